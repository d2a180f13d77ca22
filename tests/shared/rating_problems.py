"""Small problems of ratings: rows against fixed features, and a whole objective."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from sk_torchmf.nn import POINTWISE, BiasedMF, Pairs, PlainMF, Plan, squared_error
from sk_torchmf.solvers.als import RowPrior, solve_rows
from sk_torchmf.solvers.design import SideFeatures
from sk_torchmf.solvers.objective import Objective

WIDTH, N_COLUMNS = 3, 7


class Rows:
    """A small sparse matrix of ratings with weights, features of its columns, and a prior that is full in every power."""

    lengths = (4, 0, 1, 7, 2)

    def __init__(self, loss="squared_error", seed=0):
        rng = np.random.default_rng(seed)
        self.pointers = np.concatenate([[0], np.cumsum(self.lengths)])
        self.columns = np.concatenate([rng.choice(N_COLUMNS, n, replace=False) for n in self.lengths])
        n = len(self.columns)
        self.rating = rng.integers(0, 2, n).astype(float) if loss == "logistic" else rng.uniform(0, 3, n)
        self.weight = rng.uniform(0.2, 2, n)
        self.features, self.offset = rng.normal(size=(N_COLUMNS, WIDTH)), rng.normal(size=N_COLUMNS)
        roots = rng.normal(size=(3, WIDTH, WIDTH))
        self.precision, self.shift = roots @ roots.transpose(0, 2, 1) + 0.3 * np.eye(WIDTH), rng.normal(size=(3, WIDTH))
        self.loss = POINTWISE[loss]

    def row(self, u):
        """Features, offset, rating and weight of row u, and its prior: precision and precision times mean."""
        span = slice(self.pointers[u], self.pointers[u + 1])
        columns, weight = self.columns[span], self.weight[span]
        powers = np.array([1.0, weight.sum() ** 0.75, weight.sum()])
        prior = np.tensordot(powers, self.precision, 1), powers @ self.shift
        return self.features[columns], self.offset[columns], self.rating[span], weight, *prior

    def solve(self, *, dtype=torch.float64, **options):
        values = [torch.from_numpy(a).to(dtype) for a in (self.rating, self.weight, self.features, self.offset)]
        prior = RowPrior(torch.from_numpy(self.precision).to(dtype), torch.from_numpy(self.shift).to(dtype))
        return solve_rows(torch.from_numpy(self.pointers), torch.from_numpy(self.columns), *values, prior, self.loss, **options)


ALPHA, MEAN, K = 0.07, 1.3, 3


class Problem:
    """Weighted ratings with duplicates, but for ``once``, in user-major order, and a module away from its start."""

    def __init__(
        self, kind, loss=squared_error, weighted=True, empty=False, dtype=torch.float64, seed=0, features=None, once=False
    ):
        rng = np.random.default_rng(seed)
        n_users, n_items = 9 + empty, 7 + empty
        user = np.concatenate([np.arange(9), rng.integers(0, 9, 31)])  # everyone below 9 and 7 has a rating
        item = np.concatenate([np.arange(9) % 7, rng.integers(0, 7, 31)])
        if once:
            user, item = np.unique([user, item], axis=1)
        self.pairs, n = Pairs(user, item, n_users, n_items), len(user)
        rating = rng.integers(0, 2, n).astype(float) if loss.name == "logistic" else rng.uniform(0, 4, n)
        self.rating = torch.from_numpy(rating).to(dtype)
        self.weight = torch.from_numpy(rng.uniform(0.5, 2, n)).to(dtype) if weighted else None
        self.kind, self.dtype, self.seed = kind, dtype, seed
        self.module = self.start()
        with torch.no_grad():
            for parameter in self.module.parameters():
                parameter += torch.from_numpy(rng.normal(size=tuple(parameter.shape))).to(dtype)
        parts = self.module, Plan(self.pairs), self.rating, self.weight, loss
        self.objective = Objective.build(*parts, alpha=ALPHA, mean=MEAN, features=features)

    def start(self):
        generator = torch.Generator().manual_seed(self.seed)
        return self.kind(*self.pairs.shape, K, mean=MEAN, generator=generator, dtype=self.dtype)


def side_features(n_users=9, n_items=7, seen_by="both"):
    """Kinds and a number of users, tags of items, and what was seen."""
    rng = np.random.default_rng(3)
    kinds, number = np.eye(3)[rng.integers(0, 3, n_users)], rng.normal(size=(n_users, 1))
    tags = rng.random((n_items, 4)) < 0.4
    users = {"kind": sp.csr_array(kinds), "number": sp.csr_array(7 * number)}
    return SideFeatures(users, {"tags": sp.csr_array(tags, dtype=float)}, seen_by)


MODULES = pytest.mark.parametrize("kind", [PlainMF, BiasedMF])
WEIGHTED = pytest.mark.parametrize("weighted", [False, True], ids=["counts", "weights"])
