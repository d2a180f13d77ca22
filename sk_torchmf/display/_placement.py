"""Labels of points that do not overlap: each goes to the nearest free place around its point, or nowhere."""

import numpy as np

from sk_torchmf.display import _figure

DISTANCES = (3, 11, 20, 32, 46)  # points from the edge of the mark, tried in turn
ANGLES = np.deg2rad([0, 180, 90, 270, 45, 135, 225, 315])
FAR = 10  # points, beyond which a line leads from a label to its point
PADDING = 2  # pixels around a label
WIDEST = 0.4  # of the axes


def place_labels(ax, points, texts, radii, legend=None):
    """Write texts beside points.

    Parameters
    ----------
    ax : Axes
        With all that moves it in place: limits, colour bar, legend.
    points : ndarray of shape (n, 2)
        In data coordinates, the one that most wants its label first.
    texts : list of str
        Of the points.
    radii : ndarray of shape (n,)
        Of the marks, in points (1/72 inch).
    legend : Legend, optional
        Not to be written on.

    Returns
    -------
    dict of int to Annotation
        By position in ``points``, those that found a place inside the axes.
    """
    from matplotlib.path import Path
    from matplotlib.patheffects import withStroke
    from matplotlib.transforms import Bbox

    renderer = _figure.lay_out(ax)
    inside, unit = ax.get_window_extent(renderer), _figure.root_figure(ax).dpi / 72
    pixels = ax.transData.transform(points)
    taken = [Bbox.from_extents(*(at - radius * unit), *(at + radius * unit)) for at, radius in zip(pixels, radii, strict=True)]
    look = {
        "fontsize": _figure.size(ax, 8),
        "color": _figure.INK,
        "ha": "center",
        "va": "center",
        "parse_math": False,
        "path_effects": [withStroke(linewidth=2, foreground="white")],
        "zorder": 4,
    }
    lines: list[Path] = []
    own, placed = len(taken), {}
    if legend is not None:
        taken.append(legend.get_window_extent(renderer))
    for j, (pixel, text) in enumerate(zip(pixels, texts, strict=True)):
        probe = ax.text(0, 0, _figure.shorten(text, _figure.LETTERS), **look)
        readable = _figure.fit_width(probe, WIDEST * inside.width, renderer)
        extent, text = probe.get_window_extent(renderer), probe.get_text()
        probe.remove()
        half = np.array([extent.width, extent.height]) / 2
        tried = ((distance, angle) for distance in DISTANCES for angle in ANGLES) if readable else ()
        for distance, angle in tried:
            reach = radii[j] + _figure.size(ax, distance)
            offset = np.array([np.cos(angle), np.sin(angle)]) * (half + reach * unit)
            box = Bbox.from_extents(*(pixel + offset - half), *(pixel + offset + half)).padded(PADDING)
            line = Path([pixel, pixel + offset])
            free = _contains(inside, box) and not any(box.overlaps(other) for k, other in enumerate(taken) if k != j)
            if distance > FAR:
                free = free and not any(line.intersects_bbox(other) for other in taken[own:])
            if free and not any(other.intersects_bbox(box) for other in lines):
                leader = {"arrowstyle": "-", "color": _figure.FAINT, "linewidth": 0.6, "shrinkA": 1, "shrinkB": radii[j]}
                arrow = {"arrowprops": leader} if distance > FAR else {}
                placed[j] = ax.annotate(text, points[j], offset / unit, textcoords="offset points", **look, **arrow)
                taken.append(box)
                lines += [line] if arrow else []
                break
    return placed


def _contains(outer, inner):
    return outer.x0 <= inner.x0 and inner.x1 <= outer.x1 and outer.y0 <= inner.y0 and inner.y1 <= outer.y1
