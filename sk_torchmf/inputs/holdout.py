"""A share of each user's pairs, for the validation slice of early stopping, and their order."""

import numpy as np
import torch

from sk_torchmf.distributed import ALONE
from sk_torchmf.inputs.stable_hash import stable_hash, uniform_numbers

STREAM = 2**40  # of random numbers, beside those of initial rows


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
    users, items, place_of = _pairs(user, item, n_items)
    rng = np.random.default_rng(seed)
    key = rng.random(len(users))
    luck = rng.random(int(users[-1]) + 1)[users]
    return _chosen(users, items, key, luck, fraction, n_items, ALONE)[place_of]


def hold_out_shared(user, item, labels, n_items, fraction, seed, processes):
    """``hold_out`` where each process has all pairs of some users: it depends on their labels, and not on who has them.

    Parameters
    ----------
    user, item : ndarray of shape (n,), int
        Row numbers of this process; those of items are the same in all.
    labels : ndarray of shape (n_users,)
        Of its users.
    n_items : int
    fraction, seed
        See ``hold_out``.
    processes : Communicator

    Returns
    -------
    ndarray of shape (n,), bool
    """
    distinct, items, place_of = _pairs(user, item, n_items)
    known, users = np.unique(distinct, return_inverse=True)
    hashed = stable_hash(labels[np.unique(user)], "user")
    key = uniform_numbers(hashed[users], items + 1, seed + STREAM)
    luck = uniform_numbers(hashed, np.zeros(len(known), dtype=np.int64), seed + STREAM)[users]
    return _chosen(users, items, key, luck, fraction, n_items, processes)[place_of]


def _pairs(user, item, n_items):
    """The distinct pairs, their users without a gap in the numbers, and which of them each observation is."""
    distinct, place_of = np.unique(user.astype(np.int64) * n_items + item, return_inverse=True)
    users, items = np.unique(distinct // n_items, return_inverse=True)[1].ravel(), distinct % n_items
    return users, items, place_of.ravel()


def _chosen(users, items, key, luck, fraction, n_items, processes):
    """Which of the distinct pairs are held out: of a user those with the least keys, as many as the share and luck say."""

    def any_of(some):
        return processes.largest(float(some.any())) > 0

    place, count = places(users, key)
    held = place < np.minimum(np.floor(fraction * count + luck), count - 1)
    if not any_of(held):  # few pairs of each user, and luck: one of a user who has two
        could = (place == 0) & (count > 1)
        held = could & (key == -processes.largest(-key[could].min(initial=np.inf)))
    if not any_of(held):
        raise ValueError(
            "early_stopping=True found nothing to hold out, because no user has two items. Pass X_val, or use early_stopping=False."
        )
    (left,) = processes.all_reduce([torch.from_numpy(np.bincount(items[~held], minlength=n_items))])
    lost = np.flatnonzero(left.numpy()[items] == 0)  # pairs of items that would be unknown
    least = np.full(n_items, np.inf)
    for own_items, own_keys in processes.all_gather((items[lost], key[lost])):
        np.minimum.at(least, own_items, own_keys)
    kept = held & (key != least[items])
    return kept if any_of(kept) else held


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
