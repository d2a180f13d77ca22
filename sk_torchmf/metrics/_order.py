"""Orders of observations within their users. Knows arrays only."""

import numpy as np


def places(user, key):
    """Place of each observation among those of its user, in the order of a key.

    Parameters
    ----------
    user : ndarray of shape (n,), int
        Numbers >= 0.
    key : ndarray of shape (n,)
        Ties are in the order of the observations.

    Returns
    -------
    place : ndarray of shape (n,), int64
        From 0.
    count : ndarray of shape (n,), int64
        How many observations that user has.
    """
    order, counts = np.lexsort((key, user)), np.bincount(user)
    first = np.cumsum(counts) - counts
    place = np.empty(len(user), dtype=np.int64)
    place[order] = np.arange(len(user)) - np.repeat(first, counts)
    return place, counts[user]
