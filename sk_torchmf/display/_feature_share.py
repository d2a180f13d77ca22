"""Draws what features explain: the share of the variance of rows for each group of features, and weights on the bias."""

from collections.abc import Mapping

import numpy as np

from sk_torchmf._validation import check_count
from sk_torchmf.display import _figure
from sk_torchmf.display._bars import RowWriter, add_titles, draw_bars, limits
from sk_torchmf.display._sources import final_step, require

SIDES = {"user": "users", "item": "items"}
NUMBERS = 0.2  # of the width of the axes, for the numbers at its right
WIDTH, ROW = 4.8, 0.42  # inches
WEIGHTS = _figure.COLOURS[2]
SMALL = 1e-3  # weights below it are written as powers of ten


class FeatureShareDisplay:
    """Draw the share of the variance of rows that each group of features explains and, if asked for, the weights of one group.

    Make one with ``from_estimator``.

    Parameters
    ----------
    shares : dict of str to dict of str to float
        For each side, by its label, the share that each group explains. Groups that carry the same information share it, so the
        bars of a side need not add up to what all of its groups explain together.
    weights : dict of str to float, optional
        The weights of the columns of one group, in the order in which they are drawn.
    weights_title : str, default="Weights"
        The title above the weights.
    weights_label : str, default="Weight on the bias"
        The label of their axis.

    Attributes
    ----------
    ax_ : ndarray of matplotlib Axes, shape (1,) or (2,)
        The second one is for the weights, if there are any.
    figure_ : matplotlib Figure
    share_bars_ : dict of str to BarContainer
        The bars of each side, the largest share first.
    weight_bars_ : BarContainer or None
    share_texts_, weight_texts_ : list of Text
        The names of groups and of columns.
    legend_ : matplotlib Legend or None
        None if there is only one side.

    Examples
    --------
    >>> import pandas as pd
    >>> from sk_torchmf import BiasedMatrixFactorization, datasets, display
    >>> X = datasets.make_ratings(100, 50, 1000, random_state=0).interactions
    >>> films = pd.DataFrame({"year": range(1970, 2020), "kind": ["long", "short"] * 25}, index=range(50))
    >>> model = BiasedMatrixFactorization(random_state=0).fit(X, item_features=films)
    >>> shown = display.FeatureShareDisplay.from_estimator(model, group="kind")
    >>> sorted(shown.shares["items"]), sorted(shown.weights)
    (['kind', 'year'], ['long', 'short'])
    """

    def __init__(self, *, shares, weights=None, weights_title="Weights", weights_label="Weight on the bias"):
        self.shares = shares
        self.weights = weights
        self.weights_title = weights_title
        self.weights_label = weights_label

    @classmethod
    def from_estimator(cls, estimator, *, side=None, group=None, n_columns=10, ax=None, bar_kwargs=None):
        """Draw what the features of a fitted estimator explain.

        Parameters
        ----------
        estimator : estimator
            An estimator that was fitted with features, or a pipeline or search that ends in one.
        side : {"user", "item"}, optional
            Whose features to draw; by default those of both sides, if they have any.
        group : str, optional
            A group of columns whose weights on the bias are drawn too: what each column adds to the bias of a user or item without
            observations, in units of the score; for a column of numbers, per standard deviation.
        n_columns : int, default=10
            How many columns of the group to draw: those with the largest weights, of either sign.
        ax : matplotlib Axes or, with ``group``, sequence of two, optional
            The axes to draw on; a single one is divided if two are needed. By default those of a new figure.
        bar_kwargs : dict, optional
            Keyword arguments for ``Axes.barh``.

        Returns
        -------
        FeatureShareDisplay
            The display; its attributes hold what was drawn.

        Raises
        ------
        TypeError
            If the estimator has no shares, because it was fitted without features, or is a ``TorchFactorization``.
        ValueError
            If there is no such group, both sides have it, or the model has no biases.
        ImportError
            If matplotlib is not installed.
        """
        _figure.check_matplotlib(f"{cls.__name__}.from_estimator")
        if side is not None and side not in SIDES:
            raise ValueError(f'side must be "user", "item" or None. Got {side!r}.')
        n_columns = check_count(n_columns, "n_columns")
        model = final_step(estimator)
        wanted = list(SIDES) if side is None else [side]
        sides = [role for role in wanted if hasattr(model, f"{role}_feature_shares_")]
        if not sides:
            advice = f"Fit it with {' or '.join(f'{role}_features' for role in wanted)}."
            require(model, f"{wanted[-1]}_feature_shares_", cls.__name__, advice)
        shares = {SIDES[role]: dict(getattr(model, f"{role}_feature_shares_")) for role in sides}
        if group is None:
            display = cls(shares=shares)
        else:
            display = cls(shares=shares, weights=_weights(model, sides, group, n_columns), weights_title=str(group))
        return display.plot(ax, bar_kwargs=bar_kwargs)

    def plot(self, ax=None, *, bar_kwargs=None):
        """Draw the bars.

        Parameters
        ----------
        ax : matplotlib Axes or, with weights, sequence of two, optional
            The axes to draw on; a single one is divided if two are needed. By default those of a new figure.
        bar_kwargs : dict, optional
            Keyword arguments for ``Axes.barh``.

        Returns
        -------
        self
            The display; its attributes hold what was drawn.
        """
        _figure.check_matplotlib(f"{type(self).__name__}.plot")
        n_panels = 1 + (self.weights is not None)
        _figure.check_axes(ax, n_panels)
        shares = self._check()
        names = [name for parts in shares.values() for name in parts]
        n_rows = max(len(names), len(self.weights or ()))
        figsize = WIDTH * n_panels, max(1.4 + ROW * n_rows, 2.2)
        two = n_panels == 2
        self.ax_ = axes = _figure.several_axes(ax, 2, figsize) if two else np.array([_figure.one_axes(ax, figsize)])
        self.figure_ = axes[0].figure

        values = np.array([value for parts in shares.values() for value in parts.values()], dtype=float)
        colours = [_figure.COLOURS[j % len(_figure.COLOURS)] for j, parts in enumerate(shares.values()) for _ in parts]
        look = {"color": colours} | (bar_kwargs or {})
        bars = draw_bars(axes[0], values, n_rows, limits(values, values), NUMBERS, "Share of the rows' variance", **look)
        axes[0].xaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
        self.share_bars_ = _apart(bars, shares)
        titles = [f"Features of {' and '.join(shares)}"]
        self.weight_bars_ = None
        if two:
            weights = np.array(list(self.weights.values()), dtype=float)
            look = {"color": WEIGHTS} | (bar_kwargs or {})
            self.weight_bars_ = draw_bars(axes[1], weights, n_rows, limits(weights, weights), NUMBERS, self.weights_label, **look)
            titles.append(self.weights_title)
        add_titles(axes, titles)
        self.legend_ = None
        if len(shares) > 1:
            self.legend_ = _figure.add_legend(axes[0], [bars[0] for bars in self.share_bars_.values()], list(shares))
        rows = RowWriter(axes)
        self.share_texts_ = rows.write_names(axes[0], names)
        rows.write_numbers(axes[0], [f"{share:.1%}" for share in values], NUMBERS)
        self.weight_texts_ = rows.write_names(axes[1], self.weights) if two else []
        if two:
            rows.write_numbers(axes[1], _written(weights), NUMBERS)
        _figure.fit_labels(*axes)
        return self

    def _check(self):
        """The shares of each side, the largest first."""
        if not isinstance(self.shares, Mapping) or not self.shares:
            raise ValueError(f"shares must be a dict from sides to shares that is not empty. Got {self.shares!r}.")
        for name, values in [*((f"shares[{side!r}]", values) for side, values in self.shares.items()), ("weights", self.weights)]:
            if name == "weights" and values is None:
                continue
            if not isinstance(values, Mapping) or not values:
                raise ValueError(f"{name} must be a dict from names to numbers that is not empty. Got {values!r}.")
            for own, value in values.items():
                if not np.isfinite(value):
                    raise ValueError(f"{name}[{own!r}] must be finite. Got {value!r}.")
        return {side: dict(sorted(parts.items(), key=lambda part: -part[1])) for side, parts in self.shares.items()}


def _apart(bars, shares):
    """The bars of each side."""
    from matplotlib.container import BarContainer

    ends = np.cumsum([0, *map(len, shares.values())])
    return {side: BarContainer(bars.patches[a:b]) for side, a, b in zip(shares, ends[:-1], ends[1:], strict=True)}


def _written(weights):
    """Signed numbers, the largest with two digits."""
    largest = np.abs(weights).max()
    form = f"+.{max(1 - int(np.floor(np.log10(largest))), 0)}f" if largest >= SMALL else "+.0e"
    return [format(weight, form) for weight in weights]


def _weights(model, sides, group, n_columns):
    """The largest weights on the bias of a group's columns, by the columns' names; from the highest to the lowest."""
    having = [role for role in sides if group in getattr(model, f"{role}_feature_groups_", {})]
    if not having:
        known = [name for role in sides for name in getattr(model, f"{role}_feature_groups_", {})]
        raise ValueError(f"group must be one of {known}. Got {group!r}.")
    if len(having) > 1:
        raise ValueError(
            f'side must be given, because both users and items have a group {group!r}. Pass side="user" or side="item".'
        )
    role = having[0]
    if not hasattr(model, f"{role}_biases_"):
        raise ValueError(f"group={group!r} needs a model with biases, and this {type(model).__name__} has none. Use group=None.")
    first, last = getattr(model, f"{role}_feature_groups_")[group]
    weights = getattr(model, f"{role}_feature_weights_")[first:last, -1]
    names = [_own_name(name, group) for name in getattr(model, f"{role}_feature_names_")[first:last]]
    largest = np.argsort(-np.abs(weights), kind="stable")[:n_columns]
    return {names[j]: float(weights[j]) for j in largest[np.argsort(-weights[largest], kind="stable")]}


def _own_name(name, group):
    """The name of a column without that of its group, as encoders put it first."""
    short = str(name).removeprefix(f"{group}__").removeprefix(f"{group}=").strip()
    return short or str(name)
