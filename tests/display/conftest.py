"""What the tests of displays share with pytest: no picture is shown, none is left open."""

import pytest


@pytest.fixture(autouse=True)
def figures(monkeypatch):
    """Nothing is shown, and rcParams stay as they are; figures are closed in the end."""
    matplotlib, plt = pytest.importorskip("matplotlib"), pytest.importorskip("matplotlib.pyplot")

    def show(*args, **kwargs):
        raise AssertionError("a picture was shown")

    monkeypatch.setattr(plt, "show", show)
    before = dict(matplotlib.rcParams)
    yield
    plt.close("all")
    assert dict(matplotlib.rcParams) == before
