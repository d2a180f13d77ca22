"""Finds the observations of one user in any form of input, and those that a recommendation resembles. Draws nothing."""

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from sk_torchmf._validation import check_length, check_ratings
from sk_torchmf.inputs.forms import INTERACTIONS, form_of
from sk_torchmf.inputs.queries import read_ids, read_users
from sk_torchmf.interactions import as_interactions

ADVICE = "pass the ratings of a new user as a sparse matrix with one row"


class History(NamedTuple):
    """Observations of one user: row numbers of items, (n,), and ratings and times of each, or None."""

    items: np.ndarray
    ratings: np.ndarray | None
    times: np.ndarray | None


def check_user(model, user):
    """The row number of the one user asked for, None for a new one."""
    if sp.issparse(user):
        if user.shape[0] != 1:
            raise ValueError(f"user must be a single user: a sparse matrix must have one row. Got {user.shape[0]} rows.")
        return None
    if np.ndim(user) != 0:
        raise ValueError(f"user must be one user id, or a sparse matrix with one row. Got shape {np.shape(user)}.")
    code = int(read_users(model, user, ADVICE)[0])
    if code < 0:
        raise ValueError(f"user {user!r} was not seen in fit. Pass one of users_, or {ADVICE}.")
    return code


def read_history(model, user, code, X, y, timestamps):
    """What is known of a user: the row of a new one, the user's part of X, or else what ``fit`` saw.

    Parameters
    ----------
    model : fitted estimator
    user : scalar or sparse matrix of shape (1, n_items)
    code : int or None
        See ``check_user``.
    X : table, Interactions, sparse matrix (n_users, n_items) or None
    y, timestamps : array-like of shape (n,) or None
        Of the rows of a table or container, whose own are the default.

    Returns
    -------
    History
        Without items that the model does not know.
    """
    if X is not None and code is None:
        raise ValueError("X must be None when user is a sparse matrix, because that already holds the ratings of the new user.")
    if (X is None or sp.issparse(X)) and (y is not None or timestamps is not None):
        raise ValueError("y and timestamps need X to be a table or Interactions, to whose rows they belong. Pass it as X.")
    if code is None or sp.issparse(X):
        matrix = sp.csr_array(user if code is None else X)
        wanted = (1 if code is None else model.n_users_, model.n_items_)
        if matrix.shape != wanted:
            name = "user" if code is None else "X"
            raise ValueError(f"{name} must have shape {wanted}, which is that of users_ and items_. Got {matrix.shape}.")
        row = matrix[[code or 0]]
        return History(row.indices, row.data.astype(float), None)
    if X is None:
        return History(model.seen_[[code]].indices, None, None)
    if form_of(X) == INTERACTIONS:
        X = as_interactions(X)
        y = X.ratings if y is None else y
        timestamps = X.timestamps if timestamps is None else timestamps
    users, items = read_ids(model, X)
    if y is not None:
        y = check_ratings(y, len(users), "y").astype(float)
    if timestamps is not None:
        timestamps = check_length(timestamps, len(users), "timestamps")
    own = (users == code) & (items >= 0)
    return History(items[own], *(None if values is None else values[own] for values in (y, timestamps)))


def sort_history(history, order, predicted):
    """Positions of the observations, the first to be shown first; ``predicted`` is what the model makes of each."""
    if order == "rating" and history.ratings is None:
        raise ValueError('order="rating" needs ratings. Pass X with y, or Interactions with ratings.')
    if order == "recent" and history.times is None:
        raise ValueError('order="recent" needs times. Pass X with timestamps, or Interactions with timestamps.')
    age = np.arange(len(history.items)) if history.times is None else np.argsort(np.argsort(-history.times, kind="stable"))
    if order == "recent":
        return np.argsort(age)
    return np.lexsort((age, -(predicted if history.ratings is None or order == "predicted" else history.ratings)))


def nearest_seen(factors, recommended, seen):
    """Of each recommended item, the position among those seen whose factors point most nearly the same way, and the cosine.

    Returns
    -------
    list of tuple of (int, float), or None
        None for an item whose factors are zero.
    """
    if len(seen) == 0:
        return [None] * len(recommended)
    rows, others = (_directions(factors[codes].astype(np.float64)) for codes in (recommended, seen))
    cosine = rows @ others.T
    best = cosine.argmax(axis=1)
    return [(int(at), float(cosine[j, at])) if rows[j].any() else None for j, at in enumerate(best)]


def _directions(rows):
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
