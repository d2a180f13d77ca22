"""Cornac's MF: biased matrix factorization by SGD in C++."""

from importlib.metadata import version

import cornac
import numpy as np
from harness import THREADS, main


def prepare(split):
    users, items = ({i: i for i in range(n)} for n in (split.n_users, split.n_items))
    ratings = split.user.astype(np.int64), split.item.astype(np.int64), split.rating  # as Dataset.build makes them
    return cornac.data.Dataset(split.n_users, split.n_items, users, items, ratings)


def fit(data, **settings):
    return cornac.models.MF(num_threads=THREADS, **settings).fit(data)


def predict(model, split):
    user, item = split.test_user, split.test_item
    score = model.global_mean + model.u_biases[user] + model.i_biases[item]
    return score + np.einsum("nk,nk->n", model.u_factors[user], model.i_factors[item])


if __name__ == "__main__":
    main(version("cornac"), prepare, fit, predict)
