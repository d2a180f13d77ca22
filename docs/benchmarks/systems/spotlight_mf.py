"""Spotlight's ExplicitFactorizationModel, from a checkout on the module path: Adam on minibatches."""

import numpy as np
import spotlight
import torch
from harness import THREADS, main
from spotlight.factorization.explicit import ExplicitFactorizationModel
from spotlight.interactions import Interactions


def prepare(split):
    return Interactions(split.user, split.item, split.rating, num_users=split.n_users, num_items=split.n_items)


def fit(data, **settings):
    torch.set_num_threads(THREADS)
    model = ExplicitFactorizationModel(random_state=np.random.RandomState(0), **settings)
    model.fit(data)
    return model


def predict(model, split):
    return model.predict(split.test_user, split.test_item)


if __name__ == "__main__":
    main(spotlight.__version__, prepare, fit, predict)
