"""What an epoch is worth on validation data, and which was the best."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import check_scoring
from sklearn.metrics._scorer import _BaseScorer

from sk_torchmf.distributed import ALONE, Communicator

LOSS, SCORE = "validation_loss", "validation_score"


@dataclass
class Validation:
    """Data that a fit is judged by.

    Attributes
    ----------
    X, y, sample_weight : table, Interactions or sparse matrix, array of shape (n,) or None
        As the estimator's ``score`` takes them.
    scoring : callable or None
        ``(estimator, X, y, **weights) -> float``, higher is better; None for the estimator's own ``_validation_loss``.
    read : tuple or None
        What that wants of the data, read once; ratings and weights or None are the last.
    processes : Communicator
        Those that have other parts of the data; where there are several, ``scoring`` is None.
    """

    X: Any
    y: Any
    sample_weight: Any
    scoring: Callable | None
    read: tuple | None = None
    processes: Communicator = ALONE

    @classmethod
    def of(cls, estimator, X, y, sample_weight, scoring):
        """Look the scorer up; a name is one of scikit-learn's."""
        if isinstance(scoring, type):
            raise TypeError(f"scoring must be a scorer, a function of (estimator, X, y). Got the class {scoring.__name__}.")
        if isinstance(scoring, str):
            scoring = check_scoring(estimator, scoring)
        return cls(X, y, sample_weight, scoring)

    @property
    def name(self):
        """What ``history_`` calls the figure."""
        return LOSS if self.scoring is None else SCORE

    def __call__(self, fitted):
        """The figure of a fitted estimator, a float."""
        if self.scoring is None:
            return min(self._loss(fitted), sys.float_info.max)
        weights = {"sample_weight": self.sample_weight} if isinstance(self.scoring, _BaseScorer) else {}
        if self.sample_weight is None:
            weights = {}
        try:
            value = self.scoring(fitted, self.X, self.y, **weights)
        except TypeError as error:
            if weights and "sample_weight" in str(error):
                advice = "Pass a scorer that does, or fit without weights"
                raise TypeError(f"scoring must take sample_weight, because the validation data have weights. {advice}.") from error
            raise
        if not isinstance(value, int | float | np.number):
            raise TypeError(f"scoring must return a number. Got {type(value).__name__}.")
        return float(value)

    def _loss(self, fitted):
        """The mean loss, over the parts of all processes; a part may be nothing."""
        if self.read is None and self.X is not None:
            self.read = fitted._read_validation(self.X, self.y, self.sample_weight)
        own = () if self.read is None else self.read
        if self.processes.size == 1:
            return float(fitted._validation_loss(*own))
        n = 0.0
        if own:
            rating, weight = own[-2:]
            n = float(len(rating) if weight is None else weight.sum())
        total, n_in_all = self.processes.all_reduce([n * float(fitted._validation_loss(*own)) if n else 0.0, n])
        return total / n_in_all if n_in_all else np.nan


def best_epoch(history):
    """Number, from 0, of the first epoch with the best validation figure, NaN being worse than any."""
    values = _worth(history)
    return int(np.argmax(values))


def has_stalled(history, tol, patience):
    """Whether none of the last ``patience`` epochs was better than the best before it by more than ``tol`` times its size."""
    best, last = -np.inf, -1
    for epoch, value in enumerate(_worth(history)):
        if value > best + tol * abs(best) if np.isfinite(best) else value > best:
            last = epoch
        best = max(best, value)
    return len(history["loss"]) - 1 - last >= patience


def _worth(history):
    """Validation figures, higher better."""
    values = np.asarray(history[SCORE] if SCORE in history else history[LOSS], dtype=np.float64)
    return np.nan_to_num(values if SCORE in history else -values, nan=-np.inf, posinf=np.inf, neginf=-np.inf)
