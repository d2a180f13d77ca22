"""myFM's regression: a factorization machine on one-hot users and items, by Gibbs sampling in C++."""

from importlib.metadata import version

import numpy as np
import scipy.sparse as sp
from harness import main
from myfm import MyFMRegressor


def one_hot(user, item, split):
    """Each rating's user and item, a group of columns for each side."""
    column = np.column_stack([user, split.n_users + item]).ravel()
    pointer = np.arange(0, len(column) + 1, 2)
    return sp.csr_matrix((np.ones(len(column)), column, pointer), shape=(len(user), split.n_users + split.n_items))


def prepare(split):
    return one_hot(split.user, split.item, split), split.rating.astype(np.float64), [split.n_users, split.n_items]


def fit(data, rank, n_iter):
    features, rating, groups = data
    model = MyFMRegressor(rank=rank, random_seed=0)
    return model.fit(features, rating, n_iter=n_iter, n_kept_samples=max(1, n_iter * 4 // 5), group_shapes=groups)


def predict(model, split):
    return model.predict(one_hot(split.test_user, split.test_item, split))


if __name__ == "__main__":
    main(version("myfm"), prepare, fit, predict)
