"""Positives as a matrix of weights, and the solver that ranks them above what users have not."""

from functools import partial

import numpy as np
import scipy.sparse as sp
import torch

from sk_torchmf._validation import raise_tiny
from sk_torchmf.estimators._ials_search import is_searched, search
from sk_torchmf.estimators._positives import AUTO, COSINE, INIT_STD
from sk_torchmf.estimators._prediction import attributes_of
from sk_torchmf.inputs.side_features import ROLES, features_of
from sk_torchmf.nn import RANKING, BiasedMF, Pairs, PlainMF, Plan
from sk_torchmf.solvers.cosine_softmax import cosine_solver
from sk_torchmf.solvers.finished_rows import with_regressed_weights
from sk_torchmf.solvers.ials import ImplicitLeastSquares
from sk_torchmf.solvers.ranking_descent import ranking_solver
from sk_torchmf.training.loop import Part

POSITIVES = 0.1  # what all positives weigh, of all pairs, where nothing else is asked for


class PositivesPart(Part):
    """Some of the positives as a matrix of weights, and the solver that fits a built-in module to it."""

    def __init__(self, params, reading, device, seed, start):
        self.params, self.device, self.seed, self.start = params, device, seed, start
        data = reading.data
        weight = np.ones(len(data)) if data.weights is None else data.weights
        matrix = sp.csr_array(sp.coo_array((weight, (data.user_ids, data.item_ids)), shape=reading.shape))
        self.counts = matrix.sum(axis=1), matrix.sum(axis=0)
        self.alpha, self.confidence = None if params.loss == COSINE else params._alpha(), _confidence(params, matrix)
        if is_searched(params):
            self.alpha, self.confidence = search(params, partial(_confidence, params), matrix, device, seed)
        self.observed = {
            "seen_": sp.csr_array((np.ones(matrix.nnz, dtype=bool), matrix.indices, matrix.indptr), shape=matrix.shape),
            "pair_weights_": None if (matrix.data == 1).all() else matrix.data,
            **dict(zip(("user_counts_", "item_counts_"), self.counts, strict=True)),
        }
        matrix, items = (matrix, np.flatnonzero(matrix.sum(axis=0))) if params.loss == "ials" else _rankable(params, matrix)
        self.known = np.flatnonzero(np.diff(matrix.indptr)), items
        if tuple(map(len, self.known)) != matrix.shape:
            matrix = matrix[self.known[0]][:, self.known[1]]
        pointers, columns = (torch.from_numpy(part.astype(np.int32)).to(device) for part in (matrix.indptr, matrix.indices))
        self.matrix, self.plan = matrix, Plan(Pairs.from_rows(pointers, columns, matrix.shape[1]))
        self.described = [reading.described.get(role) for role in ROLES]
        self.features = features_of(self.described, self.known)

    def make_solver(self):
        """Make the solver for the users and items that have something to learn from; all others get the mean row."""
        params, matrix, plan = self.params, self.matrix, self.plan
        generator = torch.Generator("cpu").manual_seed(self.seed)
        dtype, begun = getattr(torch, params.dtype), None
        kind = BiasedMF if params._has_biases() else PlainMF
        n_users, n_items = matrix.shape
        module = kind(n_users, n_items, params.n_factors, init_std=INIT_STD, generator=generator, dtype=dtype)
        if self.start is not None:
            _, begun = self.start.fill(module, self.known, 0.0)
            begun = torch.from_numpy(begun).to(self.device)
            if kind is BiasedMF:  # here the level is a part of the items' biases
                module.get_parameter("item_biases").data.add_(self.start.factors.constant * begun.cpu())
        module = module.to(self.device)
        begun = begun if self.start is not None and self.start.factors.biased else None
        if params.loss == "ials":
            gain = torch.from_numpy(raise_tiny(self.confidence * matrix.data)).to(self.device, dtype)  # user-major already
            return ImplicitLeastSquares(module, plan, gain, alpha=self.alpha, features=self.features)
        weight = np.maximum(matrix.data / matrix.data.mean(), 1e-30)  # greater than zero in float32 too
        weight = torch.from_numpy(weight).to(self.device, dtype)
        drawn = {"popularity": params.negatives == "popularity", "exact": params.exact, "generator": generator}
        options = {"max_iter": params.max_iter, "begun": begun, **drawn}
        if params.loss == COSINE:
            made = {"temperature": params._temperature(n_items), "spectral": self.start is None}
            return cosine_solver(module, plan, weight, **made, **options)
        options |= {"alpha": self.alpha, "n_negatives": params.n_negatives, "features": self.features}
        return ranking_solver(module, plan, weight, RANKING[params.loss], **options)

    def attributes(self, solver, last=False):
        factors = solver.solution()
        if self.params.loss == COSINE:  # there is no ridge that could draw rows to what features say
            factors = with_regressed_weights(factors, self.features, self.plan)
        if factors.biased:
            factors = factors.with_centred_biases()
        encoded = [None if side is None else side.encoded for side in self.described]
        factors = factors.spread_over(self.known, self.counts, encoded)
        found = self.observed | {"confidence_": self.confidence} | attributes_of(factors)
        return found | ({"temperature_": solver.temperature} if self.params.loss == COSINE else {"alpha_": self.alpha})


def _confidence(params, matrix):
    """The confidence that is asked for, or else suits a matrix of weights, which float32 must be able to hold."""
    largest, what = float(matrix.data.max()), "weight of a pair"
    given = params.confidence is not None and params.confidence != AUTO
    if params.loss == "ials" and given:
        largest, what = params.confidence * largest, what + ", times confidence,"
    if not 1e-30 <= largest <= 1e30:
        raise ValueError(f"The largest {what} must lie between 1e-30 and 1e30. Got {largest:.3g}. Rescale the weights.")
    if given:
        return params.confidence
    n_users, n_items = _n_known(matrix)
    return POSITIVES * (n_users * n_items) / matrix.data.sum()


def _rankable(params, matrix):
    """Without the users who have every item that could be drawn; the items that can be."""
    rest = matrix
    while True:
        counts = (rest if params.negatives == "popularity" else matrix).sum(axis=0)
        items, lengths = np.flatnonzero(counts), np.diff(rest.indptr)
        full = lengths == len(items)
        if not full.any():
            return rest, items
        weight = np.where(np.repeat(full, lengths), 0.0, rest.data)
        rest = sp.csr_array((weight, rest.indices, rest.indptr), shape=rest.shape, copy=True)  # others have its indices
        rest.eliminate_zeros()
        if rest.nnz == 0:
            n_users, n_items = _n_known(matrix)
            raise ValueError(
                f'Every user has every item, so loss="{params.loss}" has nothing to rank them above. Got {n_users} users and '
                f'{n_items} items. Use loss="ials".'
            )


def _n_known(matrix):
    """How many users and items have any positive."""
    return tuple(np.count_nonzero(matrix.sum(axis=axis)) for axis in (1, 0))
