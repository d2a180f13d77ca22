"""Rows of horizontal bars: a name above each, a number at its right, all as large as the rows allow. Knows no model."""

import numpy as np

from sk_torchmf.display import _figure

BAR = 0.28  # where the bar of a row lies, below the middle
PAD = 0.012  # of the width of the axes, before a text
TITLE = 0.88  # of that width: glyphs are fitted to pixels, and a file may have others than the screen


def limits(low, high):
    """The least interval that holds zero and all values, by the ends of each: arrays, or one of them of any number."""
    low, high = min([0.0, *low]), max([0.0, *high])
    return (float(low), float(high)) if low < high else (0.0, 1.0)


def draw_bars(ax, values, n_rows, ends, room, label, **look):
    """Draw a bar in each of some rows, the first at the top.

    Parameters
    ----------
    ax : Axes
    values : ndarray of shape (n,)
        At most ``n_rows``.
    n_rows : int
        For how many there is to be room.
    ends : tuple of float
        What the bars' axis is to hold, see ``limits``.
    room : float
        Of the width of the axes, for the numbers at their right.
    label : str
        What the values are.
    **look
        Passed on to ``Axes.barh``.

    Returns
    -------
    BarContainer
    """
    bars = ax.barh(np.arange(len(values)) + BAR, values, **{"height": 0.22, "zorder": 2} | look)
    low, high = ends
    ax.set_xlim(low, low + (high - low) / (1 - room))
    ax.set_xticks([tick for tick in ax.get_xticks() if low <= tick <= high])
    ax.set_ylim(n_rows - 0.45, -0.5)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.axvline(0, color=_figure.FAINT, linewidth=0.8, zorder=3)
    _figure.label_axes(ax, label)
    return bars


def add_titles(axes, titles):
    """Titles above axes, at the left, as long as there is room for."""
    look = {"color": _figure.INK, "loc": "left", "parse_math": False}
    drawn = [ax.set_title(title, fontsize=_figure.size(ax, 11), **look) for ax, title in zip(axes, titles, strict=True)]
    for title in drawn:  # one that reaches far beyond its axes would leave these no room
        title.set_visible(False)
    renderer = _figure.lay_out(axes[0])
    for ax, title in zip(axes, drawn, strict=True):
        title.set_visible(True)
        _figure.fit_width(title, TITLE * ax.get_window_extent(renderer).width, renderer, 0.7)


class RowWriter:
    """Writes into the rows of axes, once these have their place in the figure.

    Parameters
    ----------
    axes : sequence of Axes
        Side by side, with the rows of ``draw_bars``.

    Attributes
    ----------
    row : float
        Height of a row, in points.
    """

    def __init__(self, axes):
        self.renderer = _figure.lay_out(axes[0])
        low, high = axes[0].get_ylim()
        self.row = axes[0].get_window_extent(self.renderer).height / (low - high) / _figure.root_figure(axes[0]).dpi * 72

    def write(self, ax, j, x, y, text, room, smallest=1.0, **look):
        """Write into row j, from x on, of the width of the axes, y below its middle; at most ``room`` of that width long."""
        look = {"color": _figure.INK, "va": "center", "parse_math": False} | look
        text = ax.text(x, j + y, _figure.shorten(text, 200), transform=ax.get_yaxis_transform(), **look)
        _figure.fit_width(text, room * ax.get_window_extent(self.renderer).width, self.renderer, smallest)
        return text

    def write_names(self, ax, names):
        """Write a name above each bar."""
        size = min(_figure.size(ax, 9), 0.36 * self.row)
        return [self.write(ax, j, PAD, -0.12, name, 1 - PAD, fontsize=size) for j, name in enumerate(names)]

    def write_numbers(self, ax, numbers, room):
        """Write a number at the right of each bar."""
        size = min(_figure.size(ax, 8), 0.32 * self.row)
        return [self.write(ax, j, 1, BAR, text, 0.9 * room, 0.4, fontsize=size, ha="right") for j, text in enumerate(numbers)]
