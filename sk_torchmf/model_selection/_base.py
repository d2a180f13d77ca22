"""What all splitters share: scikit-learn's ``split`` from masks, and how ids, times and sizes are read. Know no estimator."""

import contextlib

import numpy as np
import scipy.sparse as sp
from sklearn.model_selection import BaseCrossValidator

from sk_torchmf._validation import check_count
from sk_torchmf.inputs.labels import column, encode, is_frame
from sk_torchmf.interactions import is_interactions


class Splitter(BaseCrossValidator):
    """Base: ``split`` from ``_parts``, which yields boolean masks of the training and the test part."""

    n_splits = 1

    def split(self, X, y=None, groups=None):
        """Yield the training and the test part of each split.

        Parameters
        ----------
        X : table or Interactions
            The observations; for ``HeldOutUsers`` a sparse matrix with a user in each row too.
        y : object, optional
            Ignored.
        groups : object, optional
            Ignored.

        Yields
        ------
        train : ndarray of shape (n_train,), int64
            Row numbers of X, ascending.
        test : ndarray of shape (n_test,), int64
            Likewise.
        """
        for train, test in self._parts(X):
            yield np.flatnonzero(train), np.flatnonzero(test)

    def get_n_splits(self, X=None, y=None, groups=None):
        """Tell how many splits there are.

        Parameters
        ----------
        X : object, optional
            Ignored, as are the others: the number is known without data.
        y : object, optional
            Ignored.
        groups : object, optional
            Ignored.

        Returns
        -------
        int
            How many times ``split`` yields.
        """
        return self.n_splits

    def _parts(self, X):
        raise NotImplementedError


def number_ids(X, key, role):
    """Number the users or items of the observations from 0 on, shape (n,)."""
    if sp.issparse(X):
        advice = "Use HeldOutUsers for whole users, or pass" if role == "user" else "To hold items out pass"
        raise ValueError(f"Rows of a sparse matrix are users, not observations. {advice} Interactions.from_matrix(X).")
    return encode(np.asarray(getattr(X, f"{role}_ids")) if is_interactions(X) else _column(X, key, role), role)[0]


def rank_times(X, time):
    """Ranks of the times of the observations, shape (n,), int64; equal for equal times."""
    if sp.issparse(X):
        raise ValueError(
            "A split by time needs times, and a sparse matrix has none. Pass Interactions with timestamps, or a table and "
            "time=<its column>."
        )
    if is_interactions(X):
        values = getattr(X, "timestamps", None)
        if values is None:
            raise ValueError(
                "A split by time needs times, and X has no timestamps. Pass Interactions(..., timestamps=...), or a table and "
                "time=<its column>."
            )
    elif time is None:
        raise ValueError("time must be the position or name of the column of X that holds the time. Got None.")
    else:
        values = _column(X, time, "time")
    values = np.asarray(values)
    if values.dtype.kind in "OUS":
        with contextlib.suppress(TypeError, ValueError):  # dates stay what they are
            values = values.astype(np.float64)  # numbers among labels: 9 comes before 10
    missing = values != values  # NaN and NaT differ from themselves
    if missing.any():
        raise ValueError(f"time must not be missing. Row {int(np.argmax(missing))} has none. Drop the row or give it a time.")
    return np.unique(values, return_inverse=True)[1]


def _column(X, key, role):
    return column(X if is_frame(X) else np.asarray(X), key, role)


def check_size(test_size):
    """Return the size of a test part, a share of what there is or a number."""
    share = isinstance(test_size, float) and 0 < test_size < 1
    if not share and (not isinstance(test_size, (int, np.integer)) or isinstance(test_size, bool) or test_size < 1):
        raise ValueError(f"test_size must be a number between 0 and 1, both excluded, or an int >= 1. Got {test_size!r}.")
    return test_size


def count_of(test_size, n):
    """How many of n a test part has."""
    return max(1, round(test_size * n)) if isinstance(test_size, float) else int(test_size)


def check_folds(n_splits):
    """Return the number of folds, an int >= 2."""
    if check_count(n_splits, "n_splits") < 2:
        raise ValueError(f"n_splits must be an int >= 2. Got {n_splits}.")
    return int(n_splits)


def check_enough(n_splits, n, what):
    """Refuse more folds than there is to deal out."""
    if n < n_splits:
        raise ValueError(f"n_splits must be at most the number of {what}, {n}. Got {n_splits}.")
