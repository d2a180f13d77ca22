"""What the fuzz and the soak session print of a long run, and when they fail."""

import importlib.util
from pathlib import Path

import pytest
from fuzz_oracle import Finding, Outcome


def script(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_fuzz_lists_each_kind_of_finding_once_with_its_shortest_script(capsys):
    found = [
        ("A", Outcome("finding", 1.0, Finding("KeyError at b.py:1", "KeyError: 'x'", text)))
        for text in ("longer", "short", "longest")
    ]
    good = [("A", Outcome("answered", 0.25)), ("B", Outcome("refused", 3.0, refusals=("ValueError: k must be an int",)))]
    assert not script("fuzz").report([*found, *good], [])
    printed = capsys.readouterr().out
    assert "## 3 x KeyError at b.py:1\n\nKeyError: 'x'\n\n```python\nshort\n```" in printed
    assert "longest\n" not in printed
    assert printed.splitlines()[-1] == "5 cases: 1 answered, 1 refused with words, 3 findings of 1 kinds, longest 3.0 s"
    assert script("fuzz").report(good, [], refusals=True)
    printed = capsys.readouterr().out
    assert "1 x ValueError: k must be an int" in printed
    assert [line.split() for line in printed.splitlines()[-3:-1]] == [["A", "1", "0", "0"], ["B", "0", "1", "0"]]
    assert printed.splitlines()[-1] == "2 cases: 1 answered, 1 refused with words, 0 findings, longest 3.0 s"


def test_fuzz_fails_when_a_process_dies(capsys):
    assert not script("fuzz").report([("A", Outcome("answered"))], ["model = ..."])
    assert "A process died or hung" in capsys.readouterr().out


@pytest.mark.parametrize(("leak", "grown"), [(0.0, 0.0), (0.01, 0.01 * 700)])
def test_soak_sees_a_leak_behind_the_warm_up(monkeypatch, capsys, leak, grown):
    soak = script("soak")
    course = soak.Course("fits", 1000)
    for at in range(1, 1001):
        monkeypatch.setattr(soak, "resident", lambda at=at: 400 + min(at, 200) + leak * at)  # it fills caches, then leaks
        course.passed(at)
    assert course.growth() == pytest.approx(grown)
    assert len(capsys.readouterr().out.splitlines()) == 11
