"""Ratings whose right answer is known by construction, and the forms they can be handed over in. Knows no estimator."""

import numpy as np
import scipy.sparse as sp

from sk_torchmf import Interactions

FORMS = ("table", "labels", "interactions", "sparse")


def objects(*values):
    """Put any values, tuples and lists among them, in an object array of one dimension."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def planted(rank, *, n_users=30, n_items=20, n_ratings=300, mean=0.0, noise=0.1, random_state=0):
    """Noisy ratings of a matrix of known rank, at pairs with long-tailed counts.

    Parameters
    ----------
    rank : int
        Of the noise-free matrix; a mean other than zero takes one of the ranks.
    n_users, n_items, n_ratings : int
        Sizes. Every user and every item has at least one rating.
    mean, noise : float
        Mean and standard deviation of the noise, where the rest of the matrix has standard deviation 1.
    random_state : int

    Returns
    -------
    interactions : Interactions
        In random order.
    truth : ndarray of shape (n_users, n_items)
        The noise-free matrix.
    """
    rng = np.random.default_rng(random_state)
    user_rows = rng.normal(size=(n_users, rank))
    item_rows = rng.normal(size=(n_items, rank)) / np.sqrt(rank - (mean != 0))
    if mean != 0:
        user_rows[:, 0], item_rows[:, 0] = 1.0, mean
    truth = user_rows @ item_rows.T

    popularity = np.add.outer(-0.4 * np.log1p(np.arange(n_users)), -0.7 * np.log1p(np.arange(n_items)))
    key = popularity + rng.gumbel(size=truth.shape)  # the n highest are a draw without replacement (Gumbel top-k)
    longest = np.arange(max(n_users, n_items))
    key[longest % n_users, longest % n_items] = np.inf
    user, item = np.divmod(rng.permutation(np.argsort(-key, axis=None)[:n_ratings]), n_items)
    rating = truth[user, item] + noise * rng.normal(size=n_ratings)
    return Interactions(user, item, rating, num_users=n_users, num_items=n_items), truth


def split(ratings, seed=0):
    """Training and test parts, 90 to 10, of planted ratings, and the noise-free test ratings."""
    order = np.random.default_rng(seed).permutation(len(ratings.target))
    test, train = np.split(order, [len(order) // 10])
    return ratings.interactions[train], ratings.interactions[test], ratings.expected[test]


def checkerboard(n_users=12, n_items=10, *, low=-1.0, high=1.0, missing=(0, 3)):
    """Ratings ``high`` where user + item is even and ``low`` elsewhere; pairs with (user + 5 item) % 7 in ``missing`` are held out.

    Returns
    -------
    observed, held_out : Interactions
        What is there and what is missing; the pattern of the one decides the other.
    """
    user, item = (ids.ravel() for ids in np.mgrid[:n_users, :n_items])
    every = Interactions(user, item, np.where((user + item) % 2 == 0, high, low))
    hidden = np.isin((user + 5 * item) % 7, missing)
    return every[~hidden], every[hidden]


def as_form(data, form):
    """The arguments ``(X, y)`` of ``fit`` that say the same in one of the FORMS; labels sort as the positions do."""
    if form == "sparse":
        index = data.user_ids, data.item_ids
        return sp.csr_array(sp.coo_array((data.ratings, index), shape=(data.num_users, data.num_items))), None
    if form == "interactions":
        return data, None
    users, items = (ids_in(form, role, ids) for role, ids in (("user", data.user_ids), ("item", data.item_ids)))
    return np.column_stack([users, items]), data.ratings


def ids_in(form, role, positions):
    """The caller's ids of row numbers: text after a fit on ``labels``, else the numbers."""
    positions = np.asarray(positions)
    return np.char.add(role[0], np.char.zfill(positions.astype(str), 4)) if form == "labels" else positions
