"""Wheels with the compiled kernels where a compiler is, and pure ones without a word where none is."""

import os
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import sk_torchmf
from sk_torchmf.nn.build_kernels import compile_kernels

ROOT = Path(sk_torchmf.__file__).parents[1]
SOURCE = ROOT / "sk_torchmf" / "nn" / "kernels.c"
IN_WHEEL = "sk_torchmf/nn/kernels.library"
pytestmark = pytest.mark.skipif(not (ROOT / "pyproject.toml").exists(), reason="the package is not in its source tree")
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in ("CC", "SK_TORCHMF_KERNELS"):
        monkeypatch.delenv(name, raising=False)


def compiler(tmp_path, text):
    """A command that does what a line for the shell says."""
    path = tmp_path / "compiler"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@needs_compiler
@pytest.mark.parametrize("command", [None, "env cc"])
def test_kernels_are_compiled_by_the_compiler_that_there_is(command, tmp_path, monkeypatch, capfd):
    if command is not None:
        monkeypatch.setenv("CC", command)
    (tmp_path / "made").mkdir()
    assert compile_kernels(SOURCE, tmp_path / "made" / "lib.so") is True
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["lib.so"]
    assert capfd.readouterr() == ("", "")


NO_COMPILER = {
    "missing": "echo missing >&2; exit 127",
    "fails": "echo an error >&2; exit 1",
    "makes nothing": "exit 0",
    "makes no library": 'while [ "$1" != -o ]; do shift; done; echo text > "$2"',
}


@pytest.mark.parametrize("kind", NO_COMPILER)
def test_without_a_compiler_nothing_is_made_and_nothing_is_said(kind, tmp_path, monkeypatch, capfd):
    command = str(tmp_path / "nowhere") if kind == "missing" else compiler(tmp_path, NO_COMPILER[kind])
    monkeypatch.setenv("CC", command)
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "lib.so").write_text("of another day")
    assert compile_kernels(SOURCE, tmp_path / "made" / "lib.so") is False
    assert list((tmp_path / "made").iterdir()) == []
    assert capfd.readouterr() == ("", "")


@needs_compiler
def test_a_compiler_that_knows_no_clones_makes_plain_code(tmp_path, monkeypatch):
    monkeypatch.setenv("CC", compiler(tmp_path, 'case "$*" in *CLONES*) exit 1;; esac; exec cc "$@"'))
    assert compile_kernels(SOURCE, tmp_path / "lib.so") is True


@needs_compiler
def test_torchs_kernels_can_be_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("SK_TORCHMF_KERNELS", "torch")
    assert compile_kernels(SOURCE, tmp_path / "lib.so") is False


def wheel(folder, **env):
    """Build a wheel of a copy of the source, without an index; return its name, tag, purity and files."""
    package = folder / "source" / "sk_torchmf"
    shutil.copytree(ROOT / "sk_torchmf", package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, package.parent)
    (package / "nn" / "kernels.library").write_text("of an editable install")  # is in no wheel
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "dist")]
    done = subprocess.run(command, cwd=package.parent, env=os.environ | env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not {"error", "warning", "compil"} & set((done.stdout + done.stderr).lower().split())
    (path,) = (folder / "dist").iterdir()
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    facts = Parser().parsestr(next(text for name, text in files.items() if name.endswith(".dist-info/WHEEL")).decode())
    assert path.name.endswith(f"-{facts['Tag']}.whl")
    assert not {"sk_torchmf/nn/kernels.c", "sk_torchmf/nn/build_kernels.py"} & files.keys()
    assert {"sk_torchmf/nn/kernels.py", "sk_torchmf/nn/row_sums.py"} <= files.keys()
    return facts["Tag"], facts["Root-Is-Purelib"], files


@needs_compiler
def test_a_wheel_with_kernels_is_of_one_platform_and_of_any_python(tmp_path):
    tag, pure, files = wheel(tmp_path)
    assert tag.startswith("py3-none-")
    assert tag != "py3-none-any"
    assert pure == "false"
    (tmp_path / "kernels.library").write_bytes(files[IN_WHEEL])
    ask = "import ctypes, sys; print(ctypes.CDLL(sys.argv[1]).kernels_version())"
    found = subprocess.run(
        [sys.executable, "-c", ask, str(tmp_path / "kernels.library")], capture_output=True, text=True, check=True
    )
    assert int(found.stdout) == sk_torchmf.nn.kernels.VERSION


@pytest.mark.parametrize("env", [{"CC": "no-such-compiler"}, {"SK_TORCHMF_KERNELS": "torch"}], ids=str)
def test_a_wheel_without_kernels_is_pure(env, tmp_path):
    tag, pure, files = wheel(tmp_path, **env)
    assert (tag, pure) == ("py3-none-any", "true")
    assert IN_WHEEL not in files
