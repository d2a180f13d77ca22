"""What the layers contract cannot say: who sets fitted attributes, who asks for a loss by name, how long a file is."""

import ast
from pathlib import Path

import pytest

import sk_torchmf

ROOT = Path(sk_torchmf.__file__).parent
FILES = {str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(ROOT.rglob("*.py"))}
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef)
PICTURES = "display/"  # whose objects keep the artists that they drew
FAST_ROADS = ("solvers/als.py", "solvers/likelihood.py", "solvers/rating_blocks.py")  # of the squared error


def is_fitted(name):
    return name.endswith("_") and not name.startswith("_")


def assigned(tree):
    """Names of the attributes that a module sets, on whatever object."""
    for node in ast.walk(tree):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            yield from (own.attr for own in ast.walk(target or ast.Pass()) if isinstance(own, ast.Attribute))


def n_lines_of_code(tree):
    """Lines with code on them: neither docstrings nor comments nor blank ones."""
    kept, texts = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node) is not None:
            texts |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
        if hasattr(node, "lineno"):
            kept |= {node.lineno, node.end_lineno}
    return len(kept - texts)


def test_there_is_a_house():
    assert {"estimators/_fitting.py", "training/loop.py", "nn/plan.py", "model/factors.py"} <= FILES.keys()
    assert list(assigned(ast.parse("self.users_, a.b = 1, 2\nfor x.y_ in z: pass"))) == ["users_", "b", "y_"]
    assert n_lines_of_code(ast.parse('"""Text."""\n\n\ndef f():\n    """More."""\n    # why\n    return 1\n')) == 2


@pytest.mark.parametrize("name", [name for name in FILES if not name.startswith(PICTURES)])
def test_fitted_attributes_are_set_in_one_place(name):
    assert [attribute for attribute in assigned(FILES[name]) if is_fitted(attribute)] == []
    whole = [attribute for attribute in assigned(FILES[name]) if attribute == "__dict__"]
    assert whole == (["__dict__"] if name == "estimators/_saving.py" else [])


@pytest.mark.parametrize("name", [name for name in FILES if not name.startswith("nn/")])
def test_a_loss_is_not_asked_for_its_name(name):
    """It says by its fields what is special about it."""
    compared = [
        ast.unparse(node)
        for node in ast.walk(FILES[name])
        if isinstance(node, ast.Compare) and isinstance(node.left, ast.Attribute) and ast.unparse(node.left).endswith("loss.name")
    ]
    assert compared == [] or (name in FAST_ROADS and {text.split()[-1] for text in compared} == {"'squared_error'"})


@pytest.mark.parametrize("name", FILES)
def test_a_file_has_one_job(name):
    assert n_lines_of_code(FILES[name]) <= 400


def test_estimators_are_few_files():
    assert len([name for name in FILES if name.startswith("estimators/")]) <= 22
