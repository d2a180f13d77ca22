"""Users of two communities, each of which likes its own items; small models of positives, and what any has to beat."""

import numpy as np
import pytest
import scipy.sparse as sp
from data import checkerboard
from every_loss import EXACT, RANKING_LOSSES
from sklearn.base import BaseEstimator

from sk_torchmf import ImplicitMatrixFactorization, Interactions

N_USERS, N_ITEMS = 60, 40
EVERY = checkerboard(N_USERS, N_ITEMS, missing=())[0]
LIKED = EVERY[EVERY.ratings > 0]  # each user likes only the items of her group
HELD_OUT = np.random.default_rng(0).random(len(LIKED)) < 0.2
TRAIN, TEST = LIKED[~HELD_OUT], LIKED[HELD_OUT]
SEEN = TRAIN.tocsr().toarray() != 0
LOSSES = ("ials", *RANKING_LOSSES)
DRAWN = tuple(name for name in RANKING_LOSSES if name not in EXACT)
MATRIX = sp.csr_array(TRAIN.tocsr())
N_LIKED_USERS, N_LIKED_ITEMS = TRAIN.num_users, TRAIN.num_items
every_loss = pytest.mark.parametrize("loss", LOSSES)
every_kind_of_loss = pytest.mark.parametrize("loss", ["ials", "softmax", "bpr"])  # all pairs, an expectation, drawn
ranking_losses = pytest.mark.parametrize("loss", RANKING_LOSSES)
with_or_without_biases = pytest.mark.parametrize("biased", [True, False], ids=["biased", "plain"])


def small(loss="ials", **params):
    return ImplicitMatrixFactorization(**{"n_factors": 4, "loss": loss, "biased": True, "random_state": 0} | params)


def precise(loss="ials", **params):
    """In float64, and a few steps: what happens is a matter of arithmetic."""
    return small(loss, **{"n_factors": 3, "dtype": "float64", "max_iter": 5} | params)


def logit(p):
    return np.log(p / (1 - p))


def sigmoid(s):
    return 1 / (1 + np.exp(-s))


def scores_of(estimator):
    """Scores of all pairs by the fitted attributes."""
    scores = estimator.user_factors_.astype(float) @ estimator.item_factors_.T.astype(float)
    if hasattr(estimator, "item_biases_"):
        scores = scores + estimator.user_biases_[:, None] + estimator.item_biases_ + estimator.global_mean_
    return scores


def preferences(n_users=150, n_items=60, n_each=20):
    """What users of three tastes and a liking for the first items chose, three quarters to train on and the rest."""
    rng = np.random.default_rng(0)
    taste = rng.normal(size=(n_users, 3)) @ rng.normal(size=(3, n_items)) - 0.5 * np.log1p(np.arange(n_items))
    item = np.argsort(-2 * taste - rng.gumbel(size=taste.shape), axis=1)[:, :n_each]
    data = Interactions(np.repeat(np.arange(n_users), n_each), item.ravel(), num_users=n_users, num_items=n_items)
    held_out = rng.random(len(data)) < 0.25
    return data[~held_out], data[held_out]


class MostPopular(BaseEstimator):
    """The same items for everyone, but for what a user has: what any model has to beat."""

    def fit(self, X, y=None):
        self.users_, self.items_, self.seen_ = np.arange(X.num_users), np.arange(X.num_items), X.tocsr().toarray() != 0
        return self

    def recommend(self, users, k, exclude_seen=True):
        scores = np.where(self.seen_[users], -np.inf, self.seen_.sum(0))
        items = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return items, np.take_along_axis(scores, items, axis=1)


def ndcg_by_hand(scores, seen, test, k=10):
    """Mean over users with a test item, by plain loops over boolean arrays of shape (n_users, n_items)."""
    values = []
    for user in np.flatnonzero(test.any(1)):
        order = sorted(np.flatnonzero(~seen[user]), key=lambda item, s=scores[user]: -s[item])[:k]
        gain = sum(1 / np.log2(place + 2) for place, item in enumerate(order) if test[user, item])
        values.append(gain / sum(1 / np.log2(place + 2) for place in range(min(k, test[user].sum()))))
    return np.mean(values)


def one_row(items, n_items=N_LIKED_ITEMS):
    return sp.csr_array((np.ones(len(items)), (np.zeros(len(items), dtype=int), items)), shape=(1, n_items))
