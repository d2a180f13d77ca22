"""Noisy ratings of planted rank, and small TorchFactorizations to train on them."""

import numpy as np
import pytest
import tutorial
from contract import EstimatorContract
from data import planted
from numpy.testing import assert_allclose

from sk_torchmf import TorchFactorization

NOISE = 0.3
RATINGS, _ = planted(3, mean=3.0, noise=NOISE, n_users=150, n_items=80, n_ratings=9000)
HELD_OUT = np.arange(len(RATINGS)) % 10 == 0
TRAIN, TEST = RATINGS[~HELD_OUT], RATINGS[HELD_OUT]


def rmse(model, data=TEST):
    return float(np.sqrt(np.mean((model.predict(data) - data.ratings) ** 2)))


def small(module=tutorial.Biased, loss="MSELoss", optimizer="Adagrad", **params):
    params = {"module__n_factors": 3, "optimizer__lr": 0.1, "max_iter": 2, "batch_size": 64, "random_state": 0} | params
    return TorchFactorization(module, loss, optimizer, **params)


def batches_of(data, size=100):
    return [(part.user_ids, part.item_ids, part.ratings) for part in (data[at : at + size] for at in range(0, len(data), size))]


def observed_on_days():
    """Ratings that hang on the day and the hour, as a frame."""
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    day, hour = rng.choice(["mon", "sat", "sun"], len(RATINGS)), rng.uniform(0, 1, len(RATINGS))
    effect = {"mon": -1.0, "sat": 0.5, "sun": 1.5}
    target = RATINGS.ratings + np.array([effect[name] for name in day]) + 2 * hour
    return pandas.DataFrame({"u": RATINGS.user_ids, "i": RATINGS.item_ids, "day": day, "hour": hour}), target


def weekly(**params):
    options = {"features": ["day", "hour"], "user": "u", "item": "i", "max_iter": 30, "optimizer__lr": 0.2}
    return small(tutorial.Weekly, **options | params)


def variant(forward):
    return type("Wrong", (tutorial.Plain,), {"forward": forward})


class ModuleContract(EstimatorContract):
    """What every TorchFactorization does: a subclass says how to make one."""

    def check_both_unknown(self, scores, known):
        assert_allclose(scores, known.mean(), atol=0.2 * known.std())  # a sample of pairs, not all

    def check_same(self, wider, narrow):
        """Ids that fit never saw have rows of the module too, drawn at random before the others, which start elsewhere."""
