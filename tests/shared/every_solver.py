"""Every solver, entered once: a small fit by it, for the contracts that hold whatever the solver."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from sk_torchmf import (
    BiasedMatrixFactorization,
    ImplicitMatrixFactorization,
    Interactions,
    MatrixFactorization,
    TorchFactorization,
    datasets,
    nn,
)

DATA = datasets.make_ratings(40, 25, 400, random_state=0).interactions
LIKED = DATA[DATA.ratings >= DATA.ratings.mean()]
SIGNS = DATA[:]
SIGNS.ratings = (DATA.ratings > 3).astype(float)


class Dropout(torch.nn.Module):
    """Biased factors behind dropout, which draws from torch's global generator."""

    def __init__(self, n_users, n_items, n_factors=4):
        super().__init__()
        self.scores, self.dropout = nn.BiasedMF(n_users, n_items, n_factors, mean=3.0), torch.nn.Dropout(0.3)
        self.register_buffer("n_batches", torch.zeros(()), persistent=False)

    def forward(self, user, item):
        self.n_batches += 1
        rows = self.dropout(self.scores.user_factors[user])
        return (rows * self.scores.item_factors[item]).sum(1) + self.scores.item_biases[item]


def torch_model(**options):
    return TorchFactorization(Dropout, **({"batch_size": 64, "max_iter": 6, "random_state": 0} | options))


@dataclass(frozen=True)
class Fit:
    """A small fit by a solver.

    Attributes
    ----------
    make : callable
        ``make(**parameters)``, an estimator that is trained for six epochs by this solver, ``random_state=0``.
    data : Interactions
        What it is fitted to.
    """

    make: Callable
    data: Interactions = DATA


SOLVERS = {
    "variational": Fit(lambda **o: BiasedMatrixFactorization(4, max_iter=6, random_state=0, **o)),
    "variational logistic": Fit(lambda **o: MatrixFactorization(4, loss="logistic", max_iter=6, random_state=0, **o), SIGNS),
    "als": Fit(lambda **o: BiasedMatrixFactorization(4, solver="als", max_iter=6, tol=0, random_state=0, **o)),
    "adam": Fit(lambda **o: MatrixFactorization(4, solver="adam", max_iter=6, batch_size=50, random_state=0, **o)),
    "sgd": Fit(lambda **o: BiasedMatrixFactorization(4, solver="sgd", max_iter=6, random_state=0, **o)),
    "adagrad": Fit(lambda **o: BiasedMatrixFactorization(4, solver="adagrad", max_iter=6, batch_size=90, random_state=0, **o)),
    "lbfgs": Fit(lambda **o: BiasedMatrixFactorization(4, solver="lbfgs", max_iter=6, random_state=0, **o)),
    "ials": Fit(lambda **o: ImplicitMatrixFactorization(4, loss="ials", max_iter=6, tol=0, random_state=0, **o), LIKED),
    "bpr": Fit(lambda **o: ImplicitMatrixFactorization(4, loss="bpr", biased=True, max_iter=6, random_state=0, **o), LIKED),
    "softmax": Fit(lambda **o: ImplicitMatrixFactorization(4, loss="softmax", max_iter=6, random_state=0, **o), LIKED),
    "cosines": Fit(
        lambda **o: ImplicitMatrixFactorization(4, loss="cosine", temperature=0.3, max_iter=6, random_state=0, **o), LIKED
    ),
    "torch": Fit(lambda **o: torch_model(scheduler="StepLR", scheduler__step_size=2, **o)),
    "torch milestones": Fit(lambda **o: torch_model(scheduler="MultiStepLR", scheduler__milestones=[2, 2, 4], **o)),
    "torch plateau": Fit(lambda **o: torch_model(optimizer="Adagrad", scheduler="ReduceLROnPlateau", scheduler__patience=0, **o)),
    "torch one cycle": Fit(
        lambda **o: torch_model(optimizer="SGD", scheduler="OneCycleLR", scheduler__max_lr=0.1, scheduler__total_steps=9, **o)
    ),
    "torch ranking": Fit(lambda **o: torch_model(loss="bpr", n_negatives=2, **o), LIKED),
}
every_solver = pytest.mark.parametrize("kind", SOLVERS)


def numbers(model):
    """All that training found."""
    if hasattr(model, "module_"):
        return [tensor.detach().numpy() for tensor in (*model.module_.parameters(), *model.module_.buffers())]
    names = [name for name in ("user_factors_", "item_factors_", "user_biases_", "item_biases_") if hasattr(model, name)]
    parts = [getattr(model, name) for name in names]
    posterior = getattr(model, "user_posterior_", None)
    return parts + ([] if posterior is None else [posterior[0], posterior[1], np.asarray(posterior[2]), posterior[3]])


def assert_same(model, other):
    for found, expected in zip(numbers(model), numbers(other), strict=True):
        assert_array_equal(found, expected)
    for name in model.history_.keys() - {"seconds"}:
        assert_array_equal(model.history_[name], other.history_[name])
    assert model.history_.keys() == other.history_.keys()
    assert len(model.history_["seconds"]) == model.n_iter_ == other.n_iter_
