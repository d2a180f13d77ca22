"""Ranking metrics as scikit-learn scorers, and R2, the score of ratings."""

import sys
import warnings
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing

from sk_torchmf._validation import check_count, check_length, check_seed, check_weights
from sk_torchmf.distributed import Communicator
from sk_torchmf.inputs.holdout import places
from sk_torchmf.inputs.id_types import as_ids
from sk_torchmf.interactions import Interactions, as_interactions, is_interactions
from sk_torchmf.metrics._evaluate import check_candidates, check_metric, evaluate, values_of


def r2(rating, predicted, sample_weight=None):
    """Coefficient of determination, the lowest number there is where predictions are so far off that their squares overflow.

    As ``sklearn.metrics.r2_score`` has it, which sets warning filters meanwhile: that is not safe in threads.
    """
    if sample_weight is not None:
        sample_weight = check_weights(sample_weight, len(predicted), "sample_weight")
    rating, predicted = (np.asarray(values, dtype=np.float64) for values in (rating, predicted))
    for values, name in ((rating, "y"), (predicted, "the predictions")):
        if not np.isfinite(values).all():
            raise ValueError(
                f"R2 needs finite numbers. Got {np.count_nonzero(~np.isfinite(values))} that are nan or infinite among {name}."
            )
    if len(rating) < 2:
        warnings.warn("R2 needs at least two ratings. For one it is nan.", UndefinedMetricWarning, stacklevel=2)
        return float("nan")
    weight = np.ones(len(rating)) if sample_weight is None else sample_weight
    with np.errstate(over="ignore", invalid="ignore"):
        error = float((weight * (rating - predicted) ** 2).sum())
        sum_of_squares = float((weight * (rating - np.average(rating, weights=weight)) ** 2).sum())
    if not sum_of_squares:
        return float(not error)
    return max(1 - error / sum_of_squares, -sys.float_info.max)


def ranking_scorer(metric="ndcg", k=10, *, threshold=None, exclude_seen=True, holdout=0.2, random_state=0, items=None):
    """Make a scorer of rankings, for the parameter ``scoring`` of ``GridSearchCV``, ``cross_validate`` and the like.

    Parameters
    ----------
    metric : str, default="ndcg"
        One of ``sk_torchmf.metrics.METRICS``. Higher is better for all of them.
    k : int, default=10
        Length of the lists.
    threshold : float, optional
        Only rows of ``X`` whose ``y`` is at least this value are test items; by default all are. If ``y`` is not passed, the
        ratings of a container are used, or the stored entries of a matrix.
    exclude_seen : bool, default=True
        Leave the items that ``fit`` saw for a user out of the user's list.
    holdout : float, default=0.2
        Used for a sparse ``X`` only: the share of each row's items that are scored, between 0 and 1. At least one item is scored,
        and at least one is folded in.
    random_state : int, RandomState instance or None, default=0
        Seeds the choice of the scored items. With an int every candidate of a search has the same ones.
    items : array-like of shape (m,) or "cold", optional
        Rank only these items, given by id. ``"cold"`` means the items without an observation in ``fit``, which ``ColdItemSplit``
        holds out; they differ between the fits of a search. Test items that are not among them are ignored.

    Returns
    -------
    callable
        ``scorer(estimator, X, y=None)`` returns the mean over users, a float. It can be pickled.

    Notes
    -----
    A table or container holds test items by user id, and is scored as ``sk_torchmf.metrics.evaluate`` does. The rows of a sparse
    ``X`` are new users: a part of each row is folded in, and the rest is scored; rows with fewer than two items are left out. Of a
    ``Pipeline`` the last step is scored, on what the other steps make of ``X``; of a search, its best estimator.

    Examples
    --------
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sk_torchmf import BiasedMatrixFactorization
    >>> from sk_torchmf.datasets import make_ratings
    >>> from sk_torchmf.model_selection import UserKFold, ranking_scorer
    >>> data = make_ratings(100, 50, 2000, random_state=0).interactions
    >>> search = GridSearchCV(
    ...     BiasedMatrixFactorization(random_state=0),
    ...     {"n_factors": [2, 8]},
    ...     scoring=ranking_scorer("ndcg", k=10, threshold=4.0),
    ...     cv=UserKFold(3, random_state=0),
    ...     error_score="raise",
    ... )
    >>> search.fit(data, data.ratings).best_params_["n_factors"] in (2, 8)
    True
    """
    if not isinstance(holdout, float) or not 0 < holdout < 1:
        raise ValueError(f"holdout must be a number between 0 and 1, both excluded. Got {holdout!r}.")
    return RankingScorer(
        check_metric(metric, "metric"), check_count(k, "k"), threshold, exclude_seen, holdout, random_state, _as_candidates(items)
    )


@dataclass(frozen=True)
class RankingScorer:
    """What ``ranking_scorer`` returns."""

    metric: str
    k: int
    threshold: float | None
    exclude_seen: bool
    holdout: float
    random_state: object
    items: tuple | str | None = None

    def __call__(self, estimator, X, y=None):
        """Mean of the metric over the users of X, a float."""
        estimator = getattr(estimator, "best_estimator_", estimator)
        if isinstance(estimator, Pipeline):
            if len(estimator) > 1:
                X = estimator[:-1].transform(X)
            estimator = estimator[-1]
        known, test = self.hold_out(X) if sp.issparse(X) else (None, self._positives(X, y))
        means = evaluate(estimator, test, self.metric, self.k, exclude_seen=self.exclude_seen, users=known, items=self.items)
        return means[self.metric][self.k]

    def _positives(self, X, y):
        if is_interactions(X):
            X = as_interactions(X)
            y = X.ratings if y is None else y
        if self.threshold is None:
            return X
        if y is None:
            raise ValueError(f"threshold={self.threshold} needs the ratings. Pass them as y, or use threshold=None.")
        n = len(X) if isinstance(X, Interactions) else np.shape(X)[0]
        return _safe_indexing(X, np.flatnonzero(check_length(y, n, "y") >= self.threshold))

    def hold_out(self, X):
        """Split each row's entries at random: what to fold in and what to score, two CSR arrays of the shape of X."""
        data = Interactions.from_matrix(X)
        rng = np.random.default_rng(check_seed(self.random_state))
        place, count = places(data.user_ids, rng.random(len(data)))
        held = place < np.clip(np.rint(self.holdout * count), 1, count - 1)
        test = held if self.threshold is None else held & (data.ratings >= self.threshold)
        return _rows(data[~held]), _rows(data[test])


@dataclass(frozen=True)
class ScorerOfParts:
    """Scores a fit of several processes by NDCG@10: each ranks for its own users, and the mean is over those of all.

    Attributes
    ----------
    users : ndarray of shape (n_users,)
        Labels of this process's.
    relevant : CSR array of shape (n_users, n_columns)
        Their test items; columns past the items of the fit are others.
    processes : Communicator
    """

    users: np.ndarray
    relevant: sp.csr_array
    processes: Communicator

    def __call__(self, estimator, X=None, y=None):
        """The mean, a float: the same in all processes, which call this together."""
        tested = np.flatnonzero(np.diff(self.relevant.indptr))
        asked, relevant = self.users[tested], self.relevant[tested]
        found = values_of(estimator, asked, relevant, ["ndcg"], np.array([10]), np.asarray(estimator.items_), {})["ndcg"]
        total, n = self.processes.all_reduce([float(found.sum()), len(found)])
        return total / n if n else np.nan


def _as_candidates(items):
    """Ids as a tuple, which compares and goes into a file as a whole; None and a word as they are."""
    if items is None or isinstance(check_candidates(items), str):
        return items
    ids = as_ids(items, "item")
    ids = ids.to_numpy() if hasattr(ids, "to_numpy") else ids
    if ids.ndim != 1:
        raise ValueError(f"items must be a one-dimensional array of item ids. Got shape {ids.shape}.")
    return tuple(ids if ids.dtype.kind in "mM" else ids.tolist())  # of whose times tolist makes numbers


def _rows(data):
    """A container's observations, sorted by user, as a CSR array; explicit zeros stay."""
    pointers = np.concatenate([[0], np.cumsum(np.bincount(data.user_ids, minlength=data.num_users))])
    return sp.csr_array((data.ratings, data.item_ids, pointers), shape=(data.num_users, data.num_items))
