"""Draws the errors of predicted ratings by the number of training ratings of the user and of the item."""

import numpy as np
import scipy.sparse as sp
from sklearn.utils import Bunch

from sk_torchmf._validation import check_count, check_length, check_ratings
from sk_torchmf.display import _figure
from sk_torchmf.display._sources import before_final_step, final_step, require
from sk_torchmf.inputs.queries import read_ids, read_new_users, read_target

TO = "\N{EN DASH}"
SIDES = {"user": "Training ratings of the user", "item": "Training ratings of the item"}


class RatingResidualDisplay:
    """Draw the errors of predicted ratings by the activity of the user and the popularity of the item.

    Make one with ``from_estimator`` or ``from_predictions``. The residual is the rating minus its prediction, so a mean above zero
    means that predictions are too low.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n,)
        Ratings and their predictions, in rating units.
    user_counts, item_counts : array-like of shape (n,), optional
        For each rating, the number of training ratings of its user, and of its item. At least one of the two is needed.
    n_bins : int, default=6
        Into how many groups the ratings are divided by their counts. Groups have about equal size, as far as ties allow. A count of
        zero, for ids that training did not see, is a group of its own.

    Attributes
    ----------
    rmse_ : float
        Root mean squared error of all ratings.
    bins_ : dict of str to Bunch
        The groups of "user" and "item", as far as their counts were passed: ``low, high`` (the smallest and largest count),
        ``n_ratings``, ``rmse``, ``rmse_std_error``, ``mean_residual``; each an ndarray of shape (n_groups,).
    ax_ : ndarray of matplotlib Axes
        One for each entry of ``bins_``.
    figure_ : matplotlib Figure
    rmse_lines_, residual_lines_, level_lines_ : dict of str to Line2D
        Lines of the RMSE and the mean residual of the groups, and of the RMSE of all ratings.
    legend_ : matplotlib Legend

    Examples
    --------
    >>> from sk_torchmf import BiasedMatrixFactorization, datasets, display
    >>> ratings = datasets.make_ratings(100, 50, 1000, random_state=0).interactions
    >>> model = BiasedMatrixFactorization(random_state=0).fit(ratings[:800])
    >>> residuals = display.RatingResidualDisplay.from_estimator(model, ratings[800:], n_bins=4)
    >>> int(residuals.bins_["item"].n_ratings.sum())
    200
    """

    def __init__(self, *, y_true, y_pred, user_counts=None, item_counts=None, n_bins=6):
        self.y_true = y_true
        self.y_pred = y_pred
        self.user_counts = user_counts
        self.item_counts = item_counts
        self.n_bins = n_bins

    @classmethod
    def from_estimator(cls, estimator, X, y=None, *, n_bins=6, ax=None):
        """Draw the errors of a fitted estimator on ratings, which should be held out from its training.

        Parameters
        ----------
        estimator : estimator of ratings
            A fitted estimator, or a pipeline or search that ends in one.
        X : table, Interactions or sparse matrix
            The ratings to compare with. For a table or container each row is predicted. The rows of a sparse matrix are *new*
            users: each rating is predicted from the other ratings of its row, as in ``score``, and the number of these is the
            user's count. For held-out entries of *known* users pass ``Interactions.from_matrix(X)``.
        y : array-like of shape (n,), optional
            The ratings; by default those of a container. None for a sparse matrix.
        n_bins : int, default=6
            Into how many groups the ratings are divided.
        ax : matplotlib Axes or sequence of two, optional
            The axes to draw on; a single one is divided. By default those of a new figure.

        Returns
        -------
        RatingResidualDisplay
            The display; its attributes hold what was drawn.

        Raises
        ------
        TypeError
            If the predictions of the estimator are not ratings.
        ImportError
            If matplotlib is not installed.
        """
        _figure.check_matplotlib(f"{cls.__name__}.from_estimator")
        model = final_step(estimator)
        what = f"{cls.__name__}.from_estimator"
        require(model, "rating_range_", what, "Of a model that ranks look at sk_torchmf.metrics.evaluate instead.")
        X = before_final_step(estimator, X)
        if sp.issparse(X) and hasattr(model, "fold_in"):
            y, predicted, counts = _leave_one_out(model, X, y)
        else:
            predicted, y = model.predict(X), read_target(X, y)
            sides = zip(read_ids(model, X), (model.user_counts_, model.item_counts_), strict=True)
            counts = [np.where(code < 0, 0, of_side[code]) for code, of_side in sides]
        return cls.from_predictions(y, predicted, user_counts=counts[0], item_counts=counts[1], n_bins=n_bins, ax=ax)

    @classmethod
    def from_predictions(cls, y_true, y_pred, *, user_counts=None, item_counts=None, n_bins=6, ax=None):
        """Draw the errors of predictions that are passed.

        Parameters
        ----------
        y_true, y_pred : array-like of shape (n,)
            Ratings and their predictions, in rating units.
        user_counts, item_counts : array-like of shape (n,), optional
            For each rating, the number of training ratings of its user, and of its item. At least one of the two is needed.
        n_bins : int, default=6
            Into how many groups the ratings are divided.
        ax : matplotlib Axes or sequence of them, optional
            The axes to draw on; a single one is divided if both counts are given. By default those of a new figure.

        Returns
        -------
        RatingResidualDisplay
            The display; its attributes hold what was drawn.
        """
        _figure.check_matplotlib(f"{cls.__name__}.from_predictions")
        display = cls(y_true=y_true, y_pred=y_pred, user_counts=user_counts, item_counts=item_counts, n_bins=n_bins)
        return display.plot(ax)

    def plot(self, ax=None):
        """Draw the errors.

        Parameters
        ----------
        ax : matplotlib Axes or sequence of them, optional
            The axes to draw on; a single one is divided if both counts are given. By default those of a new figure.

        Returns
        -------
        self
            The display; its attributes hold what was drawn.
        """
        _figure.check_matplotlib(f"{type(self).__name__}.plot")
        self._compute()
        n = len(self.bins_)
        _figure.check_axes(ax, n)

        self.ax_ = axes = _figure.several_axes(ax, n, (5.2 * n, 4.2))
        self.figure_ = axes[0].figure
        self.rmse_lines_: dict = {}
        self.residual_lines_: dict = {}
        self.level_lines_: dict = {}
        for part, (side, bins) in zip(axes, self.bins_.items(), strict=True):
            self._draw(part, side, bins)
        low = min(min(bins.mean_residual.min() for bins in self.bins_.values()), 0.0)
        high = max(np.nanmax(bins.rmse + np.nan_to_num(bins.rmse_std_error)) for bins in self.bins_.values())
        margin = 0.08 * (high - low) or 1.0
        for part in axes:  # one scale, so that the two sides compare
            part.set_ylim(low - margin, high + margin)
        _figure.label_axes(axes[0], y="Error, in rating units")
        for part in axes[1:]:
            part.tick_params(labelleft=False)
        for part, bins in zip(axes, self.bins_.values(), strict=True):
            _fit_ticks(part, bins)
        first = next(iter(self.bins_))
        handles = [self.rmse_lines_[first], self.residual_lines_[first], self.level_lines_[first]]
        names = ["RMSE", "mean (actual - predicted)", f"RMSE of all, {self.rmse_:.3f}"]
        self.legend_ = _figure.add_legend(axes[0], handles, names)
        _figure.fit_labels(*axes)
        return self

    def _compute(self):
        y_true = check_ratings(self.y_true, len(self.y_true), "y_true").astype(float)
        if len(y_true) == 0:
            raise ValueError("y_true must have at least one rating. It is empty.")
        y_pred = np.asarray(check_length(self.y_pred, len(y_true), "y_pred", "rating"), dtype=float)
        if not np.isfinite(y_pred).all():
            at = int(np.argmin(np.isfinite(y_pred)))
            raise ValueError(f'y_pred[{at}] is {y_pred[at]}. Drop the row, or predict unknown ids with handle_unknown="mean".')
        n_bins = check_count(self.n_bins, "n_bins")
        residual = y_true - y_pred
        self.rmse_ = float(np.sqrt(np.mean(residual**2)))
        given = {side: counts for side, counts in (("user", self.user_counts), ("item", self.item_counts)) if counts is not None}
        if not given:
            raise ValueError(
                "user_counts, item_counts or both must be passed: for each rating, the number of training ratings of its user "
                "and of its item."
            )
        self.bins_ = {}
        for side, counts in given.items():
            counts = np.asarray(check_length(counts, len(y_true), f"{side}_counts", "rating"), dtype=float)
            if not np.isfinite(counts).all() or counts.min() < 0:
                at = int(np.argmin(np.isfinite(counts) & (counts >= 0)))
                raise ValueError(f"{side}_counts must be finite and >= 0. Got {side}_counts[{at}] = {counts[at]}.")
            self.bins_[side] = _bin(residual, counts, n_bins)

    def _draw(self, ax, side, bins):
        at, mark = np.arange(len(bins.rmse)), _figure.size(ax, 5)
        level = ax.axhline(self.rmse_, color=_figure.FAINT, linestyle="--", linewidth=1.2, zorder=1)
        ax.axhline(0, color=_figure.FAINT, linewidth=0.8, zorder=1)
        (rmse,) = ax.plot(at, bins.rmse, color=_figure.BLUE, marker="o", markersize=mark, linewidth=1.6, zorder=3)
        ax.errorbar(at, bins.rmse, bins.rmse_std_error, color=_figure.BLUE, linestyle="none", linewidth=1.2, capsize=2, zorder=2)
        (mean,) = ax.plot(at, bins.mean_residual, color=_figure.ORANGE, marker="s", markersize=0.9 * mark, linewidth=1.2, zorder=3)
        self.rmse_lines_[side], self.residual_lines_[side], self.level_lines_[side] = rmse, mean, level
        ax.set_xlim(-0.5, len(at) - 0.5)
        ax.set_xticks(at, [f"{span}\n({n:,})" for span, n in zip(_spans(bins), bins.n_ratings, strict=True)])
        ax.grid(axis="y", alpha=0.25, linewidth=0.6)
        _figure.label_axes(ax, f"{SIDES[side]}\n(number of ratings compared)")


def _leave_one_out(model, X, y):
    """Ratings of new users, each predicted from the others of its row, and the counts of both sides."""
    predicted = model.predict_left_out(X)
    data = read_new_users(model, X, y)
    others = np.bincount(data.user_ids, minlength=data.num_users)[data.user_ids] - 1
    return data.ratings, predicted, (others, model.item_counts_[data.item_ids])


def _bin(residual, counts, n_bins):
    """Errors in groups of about equal size by count; equal counts are in one group, zero in its own."""
    positive = counts[counts > 0]
    edges = np.unique(np.quantile(positive, np.arange(1, n_bins) / n_bins)) if len(positive) else np.zeros(0)
    group = np.where(counts > 0, 1 + np.searchsorted(edges, counts), 0)
    bins = Bunch(low=[], high=[], n_ratings=[], rmse=[], rmse_std_error=[], mean_residual=[])
    for number in np.unique(group):
        own, square = counts[group == number], residual[group == number] ** 2
        rmse, n = np.sqrt(square.mean()), len(square)
        bins.low.append(own.min())
        bins.high.append(own.max())
        bins.n_ratings.append(n)
        bins.rmse.append(rmse)
        bins.rmse_std_error.append(square.std(ddof=1) / (2 * rmse * np.sqrt(n)) if n > 1 and rmse > 0 else np.nan)
        bins.mean_residual.append(residual[group == number].mean())
    return Bunch(**{name: np.array(values) for name, values in bins.items()})


def _spans(bins):
    """What counts each group has, as text."""
    ends = ([f"{count:,.0f}" if count == round(count) else f"{count:.3g}" for count in side] for side in (bins.low, bins.high))
    return [low if low == high else f"{low}{TO}{high}" for low, high in zip(*ends, strict=True)]


def _fit_ticks(ax, bins):
    """Turn the texts of the groups where they would overlap, and make them smaller where they still do."""
    texts = [f"{span} ({n:,})" for span, n in zip(_spans(bins), bins.n_ratings, strict=True)]
    for points, turned in ((9, {}), (7.5, {}), (8, {"labels": texts, "rotation": 90}), (5, {"labels": texts, "rotation": 90})):
        ax.set_xticks(ax.get_xticks(), **{"labels": [text.get_text() for text in ax.get_xticklabels()]} | turned)
        ax.tick_params(axis="x", labelsize=_figure.size(ax, points))
        renderer = _figure.lay_out(ax)
        if not _figure.overlap([label.get_window_extent(renderer).padded(1) for label in ax.get_xticklabels()]):
            return
