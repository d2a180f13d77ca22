"""Draws a map of items or users: their factors in two dimensions."""

import numpy as np
from sklearn.base import clone
from sklearn.decomposition import PCA

from sk_torchmf._validation import check_count
from sk_torchmf.display import _figure
from sk_torchmf.display._placement import place_labels
from sk_torchmf.display._sources import final_step, of_ids, require, texts_of
from sk_torchmf.inputs.id_types import is_missing

COUNTS = {"item": "Ratings of the item", "user": "Ratings by the user"}
FEW, MANY = 300, 3000  # points, between which they become smaller; beyond, an image in vector files too


class FactorMapDisplay:
    """Draw a map of items or users, on which those with similar factors lie near each other.

    Make one with ``from_estimator``, or from any coordinates, for example of the embedding of your own module.

    Parameters
    ----------
    coordinates : array-like of shape (n, 2)
        The position of each point.
    counts : array-like of shape (n,), optional
        How popular each point is. The most popular are drawn on top and are labelled first. By default all are equal.
    texts : list of str, optional
        The label of each point.
    color : array-like of shape (n,), optional
        Numbers or categories that determine the colours; ``counts`` by default. None and NaN are drawn in grey.
    color_label : str, optional
        What ``color`` means, for the colour bar or legend.
    axis_labels : tuple of str, default=("Dimension 1", "Dimension 2")
        The labels of the two axes.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    scatter_ : dict of str to PathCollection
        The points by category; rare categories are under "other", points without a category under "none". If ``color`` has numbers,
        the keys are "values" and "none".
    texts_ : dict of int to Annotation
        The labels for which there was room, by row of ``coordinates``.
    colorbar_ : matplotlib Colorbar or None
    legend_ : matplotlib Legend or None

    Examples
    --------
    >>> from sk_torchmf import BiasedMatrixFactorization, datasets, display
    >>> X = datasets.make_ratings(100, 50, 1000, random_state=0).interactions
    >>> model = BiasedMatrixFactorization(random_state=0).fit(X)
    >>> titles = [f"Film {j}" for j in range(50)]
    >>> map_ = display.FactorMapDisplay.from_estimator(model, labels=titles, n_labels=5)
    >>> map_.coordinates.shape
    (50, 2)
    """

    def __init__(
        self,
        *,
        coordinates,
        counts=None,
        texts=None,
        color=None,
        color_label=None,
        axis_labels=("Dimension 1", "Dimension 2"),
    ):
        self.coordinates = coordinates
        self.counts = counts
        self.texts = texts
        self.color = color
        self.color_label = color_label
        self.axis_labels = axis_labels

    @classmethod
    def from_estimator(
        cls,
        estimator,
        *,
        side="item",
        labels=None,
        color=None,
        color_label=None,
        n_labels=20,
        method="pca",
        ax=None,
        scatter_kwargs=None,
    ):
        """Draw the items or users of a fitted estimator. Those without observations are left out.

        Parameters
        ----------
        estimator : estimator
            A fitted estimator with ``item_factors_``, or a pipeline or search that ends in one.
        side : {"item", "user"}, default="item"
            Whether to draw items or users.
        labels : mapping, Series or array-like of shape (n_items,), optional
            The labels: a mapping from ids, a Series whose index has the ids, or an array in the order of ``items_``. By default the
            ids.
        color : mapping, Series or array-like of shape (n_items,), optional
            Values that determine the colours, given like ``labels``. Numbers get a colour bar. All else are categories, shown in a
            legend, where the five most frequent have a colour of their own. By default the number of ratings, on a logarithmic
            scale.
        color_label : str, optional
            What ``color`` means, for the colour bar or legend; by default its name if it has one.
        n_labels : int, default=20
            How many of the most popular points to label, as far as there is room.
        method : "pca", transformer or callable, default="pca"
            How the factors are reduced to two dimensions: by principal components, by a transformer such as
            ``sklearn.manifold.TSNE()``, or by a function that takes the factors, of shape (n, n_factors), and returns an array of
            shape (n, 2).
        ax : matplotlib Axes, optional
            The axes to draw on. By default those of a new figure.
        scatter_kwargs : dict, optional
            Keyword arguments for ``Axes.scatter``.

        Returns
        -------
        FactorMapDisplay
            The display; its attributes hold what was drawn.

        Raises
        ------
        TypeError
            If the estimator has no factors, as ``TorchFactorization``. For the embeddings of your own module use
            ``FactorMapDisplay(coordinates=...)``.
        ImportError
            If matplotlib is not installed.
        """
        _figure.check_matplotlib(f"{cls.__name__}.from_estimator")
        if side not in ("item", "user"):
            raise ValueError(f'side must be "item" or "user". Got {side!r}.')
        model = final_step(estimator)
        advice = "For the embeddings of your own module use FactorMapDisplay(coordinates=..., counts=...)."
        require(model, f"{side}_factors_", cls.__name__, advice)
        ids, counts = getattr(model, f"{side}s_"), getattr(model, f"{side}_counts_")
        known = np.flatnonzero(counts)
        texts = texts_of(labels, ids, side)
        if color is not None:
            color_label = color_label or str(getattr(color, "name", None) or "")
            color = of_ids(color, ids, "color", side)
            color = [color[j] for j in known]
        coordinates, axis_labels = _reduce(np.asarray(getattr(model, f"{side}_factors_")[known], dtype=np.float64), method)
        display = cls(
            coordinates=coordinates,
            counts=counts[known],
            texts=[texts[j] for j in known],
            color=color,
            color_label=COUNTS[side] if color is None else color_label,
            axis_labels=axis_labels,
        )
        return display.plot(ax, n_labels=n_labels, scatter_kwargs=scatter_kwargs)

    def plot(self, ax=None, *, n_labels=20, scatter_kwargs=None):
        """Draw the map.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            The axes to draw on. By default those of a new figure.
        n_labels : int, default=20
            How many of the most popular points to label, as far as there is room.
        scatter_kwargs : dict, optional
            Keyword arguments for ``Axes.scatter``.

        Returns
        -------
        self
            The display; its attributes hold what was drawn.
        """
        _figure.check_matplotlib(f"{type(self).__name__}.plot")
        _figure.check_axes(ax, 1)
        points, counts, groups = self._check()
        if n_labels != 0:
            n_labels = check_count(n_labels, "n_labels")

        self.ax_ = ax = _figure.one_axes(ax, (7, 5.5))
        self.figure_ = ax.figure
        order = np.argsort(counts, kind="stable")  # the most popular last, on top
        area = float(np.interp(len(points), [FEW, MANY], [30, 9])) * _figure.size(ax, 1) ** 2
        look = {"s": area, "linewidths": 0.3, "edgecolors": "white", "rasterized": len(points) > MANY} | (scatter_kwargs or {})
        self.scatter_, self.colorbar_, self.legend_ = {}, None, None
        _figure.label_axes(ax, *self.axis_labels)
        if isinstance(groups, dict):
            self._scatter_groups(points, order, groups, look)
        else:
            self._scatter_numbers(points, order, groups, look)
        ax.margins(0.08)
        ax.set_aspect("equal", adjustable="datalim")  # near is near in any direction
        _figure.fit_labels(ax)

        first = order[::-1][:n_labels] if self.texts is not None else order[:0]
        sizes = np.broadcast_to(np.asarray(look["s"], dtype=float), len(points))
        placed = place_labels(ax, points[first], [self.texts[j] for j in first], np.sqrt(sizes[first]) / 2, self.legend_)
        self.texts_ = {int(first[j]): note for j, note in placed.items()}
        ringed = list(self.texts_)
        ax.scatter(*points[ringed].T, s=sizes[ringed], facecolors="none", edgecolors=_figure.INK, linewidths=0.9, zorder=3)
        return self

    def _check(self):
        """The points, their counts, and the numbers that colour them or, of categories, the rows of each."""
        points = np.asarray(self.coordinates, dtype=float)
        if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0:
            raise ValueError(f"coordinates must have shape (n, 2), with n >= 1. Got {points.shape}.")
        if not np.isfinite(points).all():
            raise ValueError(f"coordinates must be finite. Row {int(np.argmin(np.isfinite(points).all(axis=1)))} is not.")
        n = len(points)
        for name in ("counts", "texts", "color"):
            values = getattr(self, name)
            if values is not None and len(values) != n:
                raise ValueError(f"{name} must have one value for each of the {n} points. Got {len(values)}.")
        counts = np.ones(n) if self.counts is None else np.asarray(self.counts, dtype=float)
        return points, counts, _groups_or_numbers(counts if self.color is None else self.color)

    def _scatter_numbers(self, points, order, values, look):
        from matplotlib.colors import LogNorm, Normalize

        ax, given = self.ax_, values[np.isfinite(values)]
        counted = self.color is None and given.min() > 0
        known, none = order[np.isfinite(values[order])], order[~np.isfinite(values[order])]
        if len(none):
            self.scatter_["none"] = ax.scatter(*points[none].T, **{"color": _figure.MISSING} | look, zorder=1)
        low, high = given.min(), given.max()
        scale = LogNorm if counted else Normalize
        norm = scale(low, high) if low < high else Normalize(low - 0.5, high + 0.5)
        shown = {"c": values[known], "cmap": "viridis", "norm": norm} | look
        self.scatter_["values"] = ax.scatter(*points[known].T, **shown, zorder=2)
        if low < high:
            self.colorbar_ = bar = _figure.root_figure(ax).colorbar(self.scatter_["values"], ax=ax, pad=0.02, aspect=30)
            bar.outline.set_visible(False)
            bar.ax.tick_params(colors=_figure.FAINT, labelcolor=_figure.INK, width=0.8, labelsize=_figure.size(ax, 9))
            if counted:
                _plain_ticks(bar, low, high)
            bar.set_label(self.color_label or "", color=_figure.INK, fontsize=_figure.size(ax, 10), parse_math=False)

    def _scatter_groups(self, points, order, groups, look):
        colours = dict(zip((name for name in groups if name not in ("other", "none")), _figure.COLOURS, strict=False))
        colours |= {"other": "#8C8C8C", "none": _figure.MISSING}
        for j, name in reversed(list(enumerate(groups))):  # the largest on top would hide the others
            rows = order[np.isin(order, groups[name])]
            marker = _figure.MARKERS[j % len(_figure.MARKERS)]
            style = {"color": colours[name], "marker": marker} | look
            self.scatter_[name] = self.ax_.scatter(*points[rows].T, **style, zorder=1 if name == "none" else 2)
        handles = [self.scatter_[name] for name in groups]
        self.legend_ = _figure.add_legend(self.ax_, handles, list(groups), self.color_label, markerscale=1.3)


def _reduce(factors, method):
    """Factors (n, n_factors) in two dimensions, and what these are."""
    if isinstance(method, str):
        if method != "pca":
            raise ValueError(f'method must be "pca", a transformer such as TSNE(), or a function. Got {method!r}.')
        return _principal(factors)
    if isinstance(method, type):
        raise TypeError(f"method must be an instance, not a class. Got {method.__name__}. Pass {method.__name__}().")
    if hasattr(method, "fit_transform"):
        points, name = clone(method).fit_transform(factors), type(method).__name__
    elif callable(method):
        points, name = method(factors), getattr(method, "__name__", "Dimension").strip("<>").replace("lambda", "Dimension")
    else:
        raise TypeError(f'method must be "pca", a transformer such as TSNE(), or a function. Got {method!r}.')
    points = np.asarray(points, dtype=float)
    if points.shape != (len(factors), 2):
        raise ValueError(f"method must return two dimensions, an array of shape ({len(factors)}, 2). Got shape {points.shape}.")
    return points, (f"{name} 1", f"{name} 2")


def _principal(factors):
    """The first two principal components; zeros in place of those that there are not."""
    points, shares = np.zeros((len(factors), 2)), []
    if len(factors) > 1 and np.ptp(factors, axis=0).any():
        pca = PCA(min(2, *factors.shape), svd_solver="full")
        found = pca.fit_transform(factors)
        points[:, : found.shape[1]] = found
        shares = list(pca.explained_variance_ratio_)
    shares += [0.0] * (2 - len(shares))
    return points, tuple(f"Principal component {j} ({share:.0%} of the variance)" for j, share in enumerate(shares, 1))


def _groups_or_numbers(values):
    """Numbers as an array, NaN where missing; or a dict of category to rows, the most frequent first."""
    missing = np.array([is_missing(value) for value in values])
    present = [value for value, gone in zip(values, missing, strict=True) if not gone]
    if not present:
        raise ValueError("color must have at least one value. Each is None or NaN.")
    if all(isinstance(value, int | float | np.number) and not isinstance(value, bool) for value in present):
        numbers = np.full(len(missing), np.nan)
        numbers[~missing] = present
        if not np.isfinite(numbers[~missing]).all():
            raise ValueError("color must be finite; use None or NaN for missing values. Got an infinite value.")
        return numbers
    names = np.array([None if gone else str(value) for value, gone in zip(values, missing, strict=True)], dtype=object)
    distinct, counts = np.unique(names[~missing].astype(str), return_counts=True)
    frequent = distinct[np.argsort(-counts, kind="stable")]
    n_own = len(frequent) if len(frequent) <= len(_figure.COLOURS) else len(_figure.COLOURS) - 1
    groups = {str(name): np.flatnonzero(names == name) for name in frequent[:n_own]}
    if n_own < len(frequent):
        groups["other"] = np.flatnonzero(np.isin(names, frequent[n_own:].astype(object)))
    if missing.any():
        groups["none"] = np.flatnonzero(missing)
    return groups


def _plain_ticks(bar, low, high):
    """1, 2, 5, 10, ... on a logarithmic colour bar, as numbers."""
    from matplotlib.ticker import NullLocator

    steps = np.outer(10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1), [1, 2, 5]).ravel()
    if high / low > 1000:
        steps = steps[::3]
    ticks = steps[(steps >= low * 0.999) & (steps <= high * 1.001)]
    if len(ticks) < 2:
        ticks = np.array([low, high])
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.set_ticks(ticks, labels=[f"{tick:,.4g}" if tick < 1000 else f"{tick:,.0f}" for tick in ticks])
