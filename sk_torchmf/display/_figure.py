"""How all pictures look and where they are drawn: axes, colours, texts that fit. Knows no model."""

import numpy as np

# Okabe and Ito's colours, told apart by colour-blind readers too; black is left to text, yellow is too pale for lines on white
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
BLUE, ORANGE = COLOURS[:2]
MARKERS = ["o", "s", "^", "D", "v", "P"]
INK, FAINT = "#333333", "#767676"  # of text; the fainter one still has a contrast of 4.5 on white
MISSING = "#C8C8C8"
LETTERS = 60  # what a text is cut to before it is measured


def check_matplotlib(caller):
    """Refuse, with words, to draw where matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(f"{caller} needs matplotlib, which is not installed. Run: pip install matplotlib") from error


def one_axes(ax, figsize):
    """The axes given, or those of a new figure."""
    if ax is None:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots(figsize=figsize, layout="constrained")
    style(ax)
    return ax


def several_axes(ax, n, figsize):
    """An array of n axes side by side: those given, parts of the one given, or those of a new figure."""
    if ax is None:
        import matplotlib.pyplot as plt

        axes = plt.subplots(1, n, figsize=figsize, layout="constrained", squeeze=False)[1][0]
    elif hasattr(ax, "get_subplotspec"):
        axes = _divide(ax, n)
    else:
        axes = np.asarray(ax, dtype=object).ravel()
    for part in axes:
        style(part)
    return axes


def check_axes(ax, n):
    """Refuse what cannot be drawn on, before anything is drawn."""
    if ax is None or hasattr(ax, "get_subplotspec"):
        return
    given = np.asarray(ax, dtype=object).ravel()
    if n == 1 or len(given) != n or not all(hasattr(part, "get_subplotspec") for part in given):
        rule = "a matplotlib Axes" if n == 1 else f"one matplotlib Axes, which is divided, or a sequence of {n} of them"
        raise TypeError(f"ax must be {rule}. Got {ax!r}.")


def _divide(ax, n):
    """Axes side by side in the place of one, which is switched off."""
    ax.set_axis_off()
    if ax.get_subplotspec() is not None:
        grid = ax.get_subplotspec().subgridspec(1, n)
        return np.array([ax.figure.add_subplot(grid[0, j]) for j in range(n)], dtype=object)
    left, bottom, width, height = ax.get_position().bounds
    part = width / (n + 0.25 * (n - 1))
    return np.array([ax.figure.add_axes((left + 1.25 * j * part, bottom, part, height)) for j in range(n)], dtype=object)


def style(ax):
    """Thin axes and quiet ticks, of these axes alone."""
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(FAINT)
        spine.set_linewidth(0.8)
    ax.tick_params(colors=FAINT, labelcolor=INK, width=0.8, labelsize=size(ax, 9))


def size(ax, points):
    """A font size for the figure: in a small one, smaller."""
    width, height = root_figure(ax).get_size_inches()
    return points * min(max(min(width / 5, height / 3), 0.6), 1)


def label_axes(ax, x=None, y=None):
    """Axis labels."""
    if x is not None:
        ax.set_xlabel(x, color=INK, fontsize=size(ax, 10))
    if y is not None:
        ax.set_ylabel(y, color=INK, fontsize=size(ax, 10))


def fit_labels(*axes):
    """Make axis labels smaller that are longer than their axis, which could leave the figure."""
    renderer = lay_out(axes[0])
    for ax in axes:
        box = ax.get_window_extent(renderer)
        for label, room in ((ax.xaxis.label, box.width), (ax.yaxis.label, box.height)):
            extent = label.get_window_extent(renderer)
            length = max(extent.width, extent.height)
            if length > room > 0:
                label.set_fontsize(max(label.get_fontsize() * room / length, 4.5))


def add_legend(ax, handles, names, title=None, host=None, **options):
    """A legend below the axes, or inside where nothing makes room for one. Any name will do, even one that matplotlib would skip.

    The axes must have their labels by then.

    Parameters
    ----------
    ax : Axes
    handles, names : list
    title : str, optional
    host : Axes, optional
        Where ``ax`` is a second axis: the axes with the horizontal axis.
    **options
        Of ``Axes.legend``.
    """
    from matplotlib.transforms import ScaledTranslation

    figure = root_figure(ax)
    options = {"fontsize": size(ax, 9), "labelcolor": INK, "handlelength": 1.8, "labelspacing": 0.3} | options
    if figure.get_layout_engine() is None:
        return _legend(ax, handles, names, title, loc="best", **options)
    renderer, spec = lay_out(ax), ax.get_subplotspec()
    room = (ax.get_position() if spec is None else spec.get_position(ax.figure)).width * ax.figure.bbox.width
    below = (host or ax).xaxis.get_tightbbox(renderer)  # ticks, their labels, the axis label
    drop = (below.y0 - ax.get_window_extent(renderer).y0) / figure.dpi - 0.06
    under = ax.transAxes + ScaledTranslation(0, drop, figure.dpi_scale_trans)
    placed = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "bbox_transform": under, "borderaxespad": 0, "columnspacing": 1.2}
    for smaller in (1, 0.85, 0.7):
        fontsize = options["fontsize"] * smaller
        for n_columns in range(len(names), 0, -1):
            legend = _legend(ax, handles, names, title, ncols=n_columns, **placed, **options | {"fontsize": fontsize})
            if legend.get_window_extent(renderer).width <= room:
                return legend
    for text in (*legend.get_texts(), legend.get_title()):
        fit_width(text, room - 4 * fontsize * figure.dpi / 72, renderer)  # less the handle
    return legend


def _legend(ax, handles, names, title, **options):
    legend = ax.legend(handles, [f"entry {j}" for j in range(len(names))], **options)
    if title:
        legend.set_title(shorten(title, LETTERS), prop={"size": options["fontsize"]})
        legend.get_title().set(color=INK, parse_math=False)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_parse_math(False)
        text.set_text(shorten(name, LETTERS))
    legend.get_frame().set(linewidth=0, alpha=0.85)
    return legend


def root_figure(ax):
    """The figure that the axes lie in, at the end of any subfigures."""
    figure = ax.figure
    while getattr(figure, "figure", figure) is not figure:
        figure = figure.figure
    return figure


def lay_out(ax):
    """Settle where the axes lie in the figure, so that texts can be measured; returns what measures them."""
    figure = root_figure(ax)
    figure.draw_without_rendering()
    return _renderer(figure)


def _renderer(figure):
    """What measures texts; canvases of vector files have none of their own until they write."""
    return figure.canvas.get_renderer() if hasattr(figure.canvas, "get_renderer") else figure._get_renderer()


def shorten(text, n):
    """A text of one line and at most n characters, the last of which says that some are missing."""
    text = " ".join(str(text).split())
    return text if len(text) <= n else text[: max(n - 1, 0)].rstrip() + "…"


def fit_width(text, width, renderer, smallest=1.0):
    """Make a Text at most so many pixels wide: its font smaller, down to a part of its size, then the text shorter.

    Returns
    -------
    bool
        Whether more than a few letters of a longer text remain.
    """
    for _ in range(3):  # glyphs are fitted to pixels, so widths do not scale exactly
        excess = text.get_window_extent(renderer).width / max(width, 1e-9)
        if excess <= 1:
            return True
        if smallest < 1:
            shrink = max(smallest, 0.99 / excess)
            text.set_fontsize(text.get_fontsize() * shrink)
            smallest = min(smallest / shrink, 1.0)
    full = text.get_text()
    low, high = 1, len(full)
    while low < high:  # the longest that fits, by halving
        middle = (low + high + 1) // 2
        text.set_text(shorten(full, middle))
        low, high = (middle, high) if text.get_window_extent(renderer).width <= width else (low, middle - 1)
    text.set_text(shorten(full, low))
    return low > 3


def overlap(boxes):
    """Whether any two boxes of a list do."""
    return any(one.overlaps(other) for j, one in enumerate(boxes) for other in boxes[:j])
