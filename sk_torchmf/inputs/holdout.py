"""A share of each user's pairs, for the validation slice of early stopping, and their order. Knows arrays only."""

import numpy as np


def hold_out(user, item, fraction, seed):
    """Choose a share of each user's pairs, the same whatever the order of the observations and however often each comes.

    Parameters
    ----------
    user, item : ndarray of shape (n,), int
        Row numbers.
    fraction : float
        Of each user's pairs, rounded up or down at random so that it is right on average. A user keeps one at least, and an item
        one user, unless nothing were left to hold out.
    seed : int

    Returns
    -------
    ndarray of shape (n,), bool
        Which observations are held out: all of a pair or none.

    Raises
    ------
    ValueError
        Where no user has two items.
    """
    n_items = int(item.max()) + 1
    distinct, place_of = np.unique(user.astype(np.int64) * n_items + item, return_inverse=True)
    users, items = np.unique(distinct // n_items, return_inverse=True)[1].ravel(), distinct % n_items  # users without a number gap
    rng = np.random.default_rng(seed)
    key = rng.random(len(distinct))
    place, count = places(users, key)
    share = np.floor(fraction * count + rng.random(int(users[-1]) + 1)[users])
    held = place < np.minimum(share, count - 1)
    if not held.any():  # few pairs of each user, and luck: one of a user who has two
        held = (place == 0) & (count > 1) & (np.cumsum((place == 0) & (count > 1)) == 1)
    if not held.any():
        raise ValueError(
            "early_stopping=True has nothing to hold out: no user has two items. Pass X_val, or use early_stopping=False."
        )
    lost = np.bincount(items[~held], minlength=n_items)[items] == 0  # pairs of items that would be unknown
    first = np.zeros(len(held), dtype=bool)
    candidates = np.flatnonzero(lost)
    candidates = candidates[np.lexsort((key[candidates], items[candidates]))]
    first[candidates[np.diff(items[candidates], prepend=-1) != 0]] = True
    kept = held & ~first
    return (kept if kept.any() else held)[place_of.ravel()]


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
