"""What every display does: one figure, no text over another, nothing shown, matplotlib asked for with words."""

import subprocess
import sys

import pytest
from pictures import SIZES, check_texts, draw, fitted, plt, texts_in

from sk_torchmf import display as displays
from sk_torchmf.display import RecommendationDisplay

FigureCanvasSVG = pytest.importorskip("matplotlib.backends.backend_svg").FigureCanvasSVG
every_kind = pytest.mark.parametrize("kind", [getattr(displays, name) for name in displays.__all__])


@every_kind
@pytest.mark.parametrize("size", [None, *SIZES], ids=str)
def test_every_text_lies_inside_the_figure_and_over_no_other(kind, size, tmp_path):
    ax = None if size is None else plt.subplots(figsize=size, layout="constrained")[1]
    display = draw(kind, ax)
    check_texts(display.figure_, tmp_path / "picture.png")


@every_kind
def test_a_display_makes_one_figure_or_none(kind):
    display = draw(kind)
    assert plt.get_fignums() == [display.figure_.number]
    ax = plt.figure().add_subplot()
    again = draw(kind, ax)
    assert again.figure_ is ax.figure
    assert len(plt.get_fignums()) == 2
    assert draw(kind, plt.figure().add_axes((0.1, 0.1, 0.8, 0.8))).figure_ is plt.gcf()


@every_kind
def test_a_display_can_be_drawn_on_the_canvas_of_a_vector_file(kind, tmp_path):
    figure = plt.figure(layout="constrained")
    FigureCanvasSVG(figure)
    draw(kind, figure.add_subplot()).figure_.savefig(tmp_path / "picture.svg")
    assert (tmp_path / "picture.svg").stat().st_size > 1000


@every_kind
def test_plot_draws_the_same_data_again(kind):
    display = draw(kind)
    first = display.figure_
    assert display.plot() is display
    assert display.figure_ is not first
    assert [text.get_text() for text, _ in texts_in(display.figure_)] == [text.get_text() for text, _ in texts_in(first)]


@every_kind
def test_what_is_no_axes_is_refused_before_anything_is_drawn(kind):
    display = draw(kind)
    plt.close("all")
    with pytest.raises(TypeError, match=r"ax must be (a|one) matplotlib Axes"):
        display.plot("axes")
    assert plt.get_fignums() == []


def test_two_axes_are_drawn_on_as_they_are():
    axes = plt.subplots(1, 2)[1]
    display = RecommendationDisplay.from_estimator(fitted(), 0, ax=axes)
    assert list(display.ax_) == list(axes)
    assert len(axes[0].figure.axes) == 2
    with pytest.raises(TypeError, match="or a sequence of 2"):
        display.plot(axes[:1])


@every_kind
def test_without_matplotlib_an_error_says_what_to_install(kind, monkeypatch):
    display = draw(kind)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for call in (display.plot, lambda: draw(kind)):
        with pytest.raises(ImportError, match="pip install matplotlib"):
            call()


def test_the_package_does_not_import_matplotlib():
    code = "import sys, sk_torchmf; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
