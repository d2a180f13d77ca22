"""Draws the history of one user next to the recommendations."""

import numpy as np
import scipy.sparse as sp

from sk_torchmf._validation import check_count
from sk_torchmf.display import _figure
from sk_torchmf.display._bars import BAR, PAD, RowWriter, add_titles, draw_bars, limits
from sk_torchmf.display._history import check_user, nearest_seen, read_history, sort_history
from sk_torchmf.display._sources import before_final_step, final_step, require, texts_of
from sk_torchmf.inputs.labels import lookup

ORDERS = {"rating": "rated best", "recent": "most recent", "predicted": "predicted best"}
SMALLEST = 5.5  # points, below which the line about the nearest item is left out
FIGURES = 0.2, 0.3  # of the width of the axes, for the numbers at its right; with standard deviations


class RecommendationDisplay:
    """Draw bars of a user's history next to bars of the recommendations.

    Make one with ``from_estimator``.

    Parameters
    ----------
    recommended : list of str
        The names of the recommended items, best first.
    scores : array-like of shape (n_recommended,)
        Their predictions, which are the lengths of their bars.
    std : array-like of shape (n_recommended,), optional
        Standard deviations of the ratings about their predictions.
    nearest : list of str or None, optional
        For each recommended item the item of the history that it resembles most.
    history : list of str, default=()
        The names of the items of the user's history.
    history_values : array-like of shape (n_history,), optional
        Values of the history, for example its ratings.
    titles : tuple of str, default=("History", "Recommended")
        The titles above the two sides.
    value_labels : tuple of str, default=("Rating", "Predicted rating")
        The labels of the two axes: what the values of the history and the scores are.
    same_scale : bool, default=False
        Whether both sides have the same scale, as they should if both are ratings.

    Attributes
    ----------
    ax_ : ndarray of matplotlib Axes, shape (2,)
    figure_ : matplotlib Figure
    history_bars_, recommended_bars_ : BarContainer
    error_bars_ : ErrorbarContainer or None
    history_texts_, recommended_texts_, nearest_texts_ : list of Text
        ``nearest_texts_`` is empty if there is no room for them.

    Examples
    --------
    >>> from sk_torchmf import BiasedMatrixFactorization, datasets, display
    >>> X = datasets.make_ratings(100, 50, 1000, random_state=0).interactions
    >>> model = BiasedMatrixFactorization(random_state=0).fit(X)
    >>> titles = [f"Film {j}" for j in range(50)]
    >>> shown = display.RecommendationDisplay.from_estimator(model, 7, X=X, labels=titles, k=3)
    >>> len(shown.recommended)
    3
    """

    def __init__(
        self,
        *,
        recommended,
        scores,
        std=None,
        nearest=None,
        history=(),
        history_values=None,
        titles=("History", "Recommended"),
        value_labels=("Rating", "Predicted rating"),
        same_scale=False,
    ):
        self.recommended = recommended
        self.scores = scores
        self.std = std
        self.nearest = nearest
        self.history = history
        self.history_values = history_values
        self.titles = titles
        self.value_labels = value_labels
        self.same_scale = same_scale

    @classmethod
    def from_estimator(
        cls,
        estimator,
        user,
        *,
        X=None,
        y=None,
        timestamps=None,
        labels=None,
        k=10,
        n_history=None,
        order=None,
        nearest=True,
        recommend_params=None,
        ax=None,
    ):
        """Draw a user's history next to what a fitted estimator recommends.

        Parameters
        ----------
        estimator : estimator
            A fitted estimator with ``recommend``, or a pipeline or search that ends in one; ids are those that this last step was
            fitted on.
        user : scalar, or sparse matrix of shape (1, n_items)
            A user id as ``fit`` saw it, or the ratings of a new user.
        X : table, Interactions or sparse matrix (n_users, n_items), optional
            Data with the user's ratings, in any form that ``fit`` takes. By default the history is what ``fit`` saw, and its bars
            are the model's predictions.
        y, timestamps : array-like of shape (n,), optional
            Ratings and times of the rows of a table or container; by default those of the container.
        labels : mapping, Series or array-like of shape (n_items,), optional
            The names of the items: a mapping from ids, a Series whose index has the ids, or an array in the order of ``items_``. By
            default the ids.
        k : int, default=10
            How many recommendations to draw.
        n_history : int, optional
            How many items of the history to draw; ``k`` by default.
        order : {"rating", "recent", "predicted"}, optional
            How the history is sorted. By default by rating if there are ratings, else by time if there are times, else by the
            model's predictions. Ties are sorted by time.
        nearest : bool, default=True
            Whether to show for each recommendation the item of the whole history that is most similar by the cosine of the factors.
            This is a similarity, not the reason why the model recommends the item. Models without ``item_factors_`` show none.
        recommend_params : dict, optional
            Keyword arguments for ``recommend``: ``items``, ``exclude_seen``, ``features``.
        ax : matplotlib Axes or sequence of two, optional
            The axes to draw on; a single one is divided. By default those of a new figure.

        Returns
        -------
        RecommendationDisplay
            The display; its attributes hold what was drawn.

        Raises
        ------
        ValueError
            If ``fit`` did not see the user, or ``order`` needs ratings or times that are missing.
        ImportError
            If matplotlib is not installed.
        """
        _figure.check_matplotlib(f"{cls.__name__}.from_estimator")
        model = final_step(estimator)
        require(model, "recommend", cls.__name__, "Pass an estimator of sk_torchmf.")
        if order is not None and order not in ORDERS:
            raise ValueError(f'order must be "rating", "recent" or "predicted". Got {order!r}.')
        k = check_count(k, "k")
        n_history = k if n_history is None else check_count(n_history, "n_history")
        code = check_user(model, user)
        X = None if X is None else before_final_step(estimator, X)
        history = read_history(model, user, code, X, y, timestamps)
        texts = texts_of(labels, model.items_, "item")
        params = recommend_params or {}

        found, scores = model.recommend(user, k, **params)
        found, scores = np.ravel(found), np.ravel(scores)
        found, scores = found[scores > -np.inf], scores[scores > -np.inf]
        codes = lookup(found, model.items_, "item")
        std = None
        if code is not None and getattr(model, "user_posterior_", None) is not None and len(found):
            std = model.predict(user, found, return_std=True)[1]

        rated = history.ratings is not None
        predicted = _predict(model, user, history.items, params)
        order = order or ("rating" if rated else "recent" if history.times is not None else "predicted")
        shown = sort_history(history, order, predicted)[:n_history]
        values = predicted if history.ratings is None else history.ratings
        likeness = None
        if nearest and hasattr(model, "item_factors_"):
            pairs = nearest_seen(model.item_factors_, codes, history.items)
            likeness = [None if pair is None else _likeness(texts, history, *pair) for pair in pairs]
        whose = "New user" if code is None else f"User {user}"
        some = f"{len(shown)} of {len(history.items)}" if len(shown) < len(history.items) else f"all {len(shown)}"
        of_ratings = hasattr(model, "rating_range_")
        label = "Predicted rating" if of_ratings else "Score"
        display = cls(
            recommended=[texts[j] for j in codes],
            scores=scores,
            std=std,
            nearest=likeness,
            history=[texts[history.items[j]] for j in shown],
            history_values=values[shown],
            titles=(f"{whose}: {ORDERS[order]}, {some}" if len(shown) else f"{whose}: no history", "Recommended"),
            value_labels=("Rating" if rated else label, label),
            same_scale=of_ratings or not rated,
        )
        return display.plot(ax)

    def plot(self, ax=None):
        """Draw both sides.

        Parameters
        ----------
        ax : matplotlib Axes or sequence of two, optional
            The axes to draw on; a single one is divided. By default those of a new figure.

        Returns
        -------
        self
            The display; its attributes hold what was drawn.
        """
        _figure.check_matplotlib(f"{type(self).__name__}.plot")
        _figure.check_axes(ax, 2)
        sides = self._check()
        n_rows = max(len(self.history), len(self.recommended), 1)

        self.ax_ = axes = _figure.several_axes(ax, 2, (10, max(1.1 + 0.52 * n_rows, 2.2)))
        self.figure_ = axes[0].figure
        bars = []
        share = FIGURES[self.std is not None]
        colours = _figure.BLUE, _figure.ORANGE
        for part, side, colour, label in zip(axes, sides, colours, self.value_labels, strict=True):
            ends = [(values - spread, values + spread) for values, spread in (sides if self.same_scale else [side])]
            ends = limits(*map(np.concatenate, zip(*ends, strict=True)))
            bars.append(draw_bars(part, side[0], n_rows, ends, share, label, color=colour))
        self.history_bars_, self.recommended_bars_ = bars
        self.error_bars_ = None
        if self.std is not None and len(self.recommended):
            at = np.arange(len(self.recommended)) + BAR
            look = {"color": _figure.INK, "linestyle": "none", "linewidth": 1, "capsize": 2, "zorder": 4}
            self.error_bars_ = axes[1].errorbar(self.scores, at, xerr=self.std, **look)
        add_titles(axes, self.titles)
        self._write(axes)
        _figure.fit_labels(*axes)
        return self

    def _check(self):
        """Values and standard deviations of the history and of the recommendations."""
        given = (
            ("scores", self.scores, self.recommended),
            ("std", self.std, self.recommended),
            ("nearest", self.nearest, self.recommended),
            ("history_values", self.history_values, self.history),
        )
        for name, values, texts in given:
            if values is not None and len(values) != len(texts):
                raise ValueError(f"{name} must have one value for each of {len(texts)} items. Got {len(values)}.")
        history = np.zeros(0) if self.history_values is None else np.asarray(self.history_values, dtype=float)
        std = 0.0 if self.std is None else np.asarray(self.std, dtype=float)
        return (history, 0.0), (np.asarray(self.scores, dtype=float), std)

    def _write(self, axes):
        """Names, numbers and likenesses, as large as the rows allow and as long as the axes."""
        rows = RowWriter(axes)
        near = self.nearest if self.nearest is not None and 0.2 * rows.row >= SMALLEST else None
        own = {"fontsize": min(_figure.size(axes[1], 9), (0.36 if near is None else 0.3) * rows.row)}
        self.history_texts_ = [rows.write(axes[0], j, PAD, -0.12, text, 1 - PAD, **own) for j, text in enumerate(self.history)]
        at = -0.12 if near is None else -0.3
        self.recommended_texts_ = [rows.write(axes[1], j, PAD, at, text, 1 - PAD, **own) for j, text in enumerate(self.recommended)]
        kept = [(j, text) for j, text in enumerate(near or ()) if text is not None]
        small = {"fontsize": min(_figure.size(axes[1], 7.5), 0.2 * rows.row), "color": _figure.FAINT}
        self.nearest_texts_ = [rows.write(axes[1], j, PAD, 0.01, text, 1 - PAD, **small) for j, text in kept]
        figures = [f"{score:.2f}" for score in self.scores]
        if self.std is not None:
            figures = [f"{text} ± {std:.2f}" for text, std in zip(figures, self.std, strict=True)]
        values = np.asarray(() if self.history_values is None else self.history_values, dtype=float)
        ratings = [f"{value:.0f}" if np.array_equal(values, np.round(values)) else f"{value:.2f}" for value in values]
        for ax, numbers in zip(axes, (ratings, figures), strict=True):
            rows.write_numbers(ax, numbers, FIGURES[self.std is not None])
        for ax, texts, words in ((axes[0], self.history, "Nothing is known."), (axes[1], self.recommended, "Nothing is left.")):
            if not len(texts):
                rows.write(ax, 0, PAD, 0, words, 1 - PAD, fontsize=_figure.size(ax, 9), color=_figure.FAINT)


def _predict(model, user, items, params):
    """What a model predicts of items of one user, by row number."""
    if len(items) == 0:
        return np.zeros(0)
    if sp.issparse(user):
        return model.predict(user)[0][items]
    features = {"features": params["features"]} if "features" in params else {}
    return model.predict(user, model.items_[items], **features)


def _likeness(texts, history, at, cosine):
    rated = "" if history.ratings is None else f", rated {history.ratings[at]:.4g}"
    return f"cosine {cosine:.2f} to {texts[history.items[at]]}{rated}"
