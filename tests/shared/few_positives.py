"""A few users' positives and their plan, and by plain loops the chances of their negatives."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from sk_torchmf.nn import BiasedMF, Pairs, PlainMF

POPULARITY = pytest.mark.parametrize("popularity", [False, True], ids=["uniform", "popularity"])


def small_matrix():
    """Who has what: user 3 has nothing, user 4 all but item 2, item 6 is rare and item 0 common; the last item nobody has."""
    has = np.array(
        [
            [1, 1, 0, 0, 0, 0, 0, 0],
            [1, 0, 1, 1, 0, 0, 0, 0],
            [1, 0, 0, 0, 1, 1, 0, 0],
            [0, 0, 0, 0, 0, 0, 0, 0],
            [1, 1, 0, 1, 1, 1, 1, 0],
        ]
    )
    return sp.csr_array(has)


def chances(seen, popularity):
    """The chance of each user's items by a plain loop, shape (n_users, n_items)."""
    has = seen.toarray() != 0
    chance = np.zeros(has.shape)
    for user in range(has.shape[0]):
        for item in range(has.shape[1]):
            if not has[user, item]:
                chance[user, item] = has[:, item].sum() ** 0.75 if popularity else 1.0
    return chance / chance.sum(1, keepdims=True)


K, ALPHA = 3, 0.05
kinds = pytest.mark.parametrize("kind", [PlainMF, BiasedMF])


def positives(n_users=12, n_items=9, seed=0):
    """Who has what (bool, every user and item at least one, no user all), its plan, and weights between 0.3 and 3."""
    rng = np.random.default_rng(seed)
    has = rng.random((n_users, n_items)) < rng.uniform(0.2, 0.6, (n_users, 1))
    has[np.arange(n_users), np.arange(n_users) % n_items] = True
    has[:, -1] &= ~has[:, :-1].all(1)
    user, item = np.nonzero(has)
    return has, Pairs(user, item, n_users, n_items), torch.from_numpy(rng.uniform(0.3, 3, len(user)))


def start(kind, pairs, seed=0, spread=0.5, dtype=torch.float64):
    return kind(*pairs.shape, K, init_std=spread, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def dense(pairs, values):
    """Values of the pairs as an array of shape (n_users, n_items), zero elsewhere."""
    matrix = np.zeros(pairs.shape)
    matrix[pairs.users, pairs.columns] = values
    return matrix


def ridge_rows(others, offset, gain, has, alpha, mass):
    """The exact minimum of each row, others and their offsets fixed, by a loop over rows."""
    rows = []
    for own, observed in zip(gain, has, strict=True):
        weight, target = 1 + own, observed.astype(float)
        ridge = alpha * (own.sum() + len(others)) * np.eye(others.shape[1])
        rows.append(np.linalg.solve((others.T * weight) @ others + ridge, (others.T * weight) @ (target - offset)))
    assert np.shape(rows) == (len(mass), others.shape[1])
    return np.array(rows)
