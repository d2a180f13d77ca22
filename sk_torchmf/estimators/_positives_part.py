"""Positives as a matrix of weights, and the solver that ranks them above what users have not."""

from functools import partial

import numpy as np
import scipy.sparse as sp
import torch

from sk_torchmf._validation import raise_tiny
from sk_torchmf.estimators._ials_search import is_searched, search
from sk_torchmf.estimators._positives import AUTO, COSINE, INIT_STD
from sk_torchmf.estimators._prediction import attributes_of
from sk_torchmf.inputs.forms import SPARSE
from sk_torchmf.inputs.initial_rows import scatter
from sk_torchmf.inputs.side_features import ROLES, features_of
from sk_torchmf.inputs.stable_hash import pair_keys, stable_hash, uniform_draws
from sk_torchmf.nn import RANKING, BiasedMF, Pairs, PlainMF, Plan
from sk_torchmf.solvers.cosine_softmax import SMALL, cosine_solver
from sk_torchmf.solvers.finished_rows import with_regressed_weights
from sk_torchmf.solvers.ials import ImplicitLeastSquares
from sk_torchmf.solvers.ranking_descent import ranking_solver
from sk_torchmf.training.loop import Part

POSITIVES = 0.1  # what all positives weigh, of all pairs, where nothing else is asked for


class PositivesPart(Part):
    """Some of the positives as a matrix of weights, and the solver that fits a built-in module to it."""

    counts: tuple
    known: tuple
    repeated = False  # whether a pair may be in the plan more than once

    def __init__(self, params, reading, device, seed, start):
        self.params, self.device, self.seed, self.start = params, device, seed, start
        data, self.processes, self.users, self.form = reading.data, reading.processes, reading.users, reading.form
        weight = np.ones(len(data)) if data.weights is None else data.weights
        ids = (own.astype(np.int32, copy=False) for own in (data.user_ids, data.item_ids))
        matrix = sp.csr_array(sp.coo_array((weight, tuple(ids)), shape=reading.shape))
        self.counts = matrix.sum(axis=1), _summed(matrix.sum(axis=0), self.processes)
        numbers = [matrix.nnz, np.count_nonzero(np.diff(matrix.indptr))]
        n_positives, n_active_users = self.processes.all_reduce(list(map(int, numbers)))
        largest = self.processes.largest(float(matrix.data.max(initial=0.0)))
        self.confidence = confidence_for(params, largest, self.counts[1], n_active_users)
        self.alpha = None if params.loss == COSINE else params._alpha()
        if is_searched(params):
            self.alpha, self.confidence = search(params, partial(_confidence, params), matrix, device, seed)
        all_one = self.processes.largest(float((matrix.data != 1).any())) == 0
        self.observed = {
            "seen_": sp.csr_array((np.ones(matrix.nnz, dtype=bool), matrix.indices, matrix.indptr), shape=matrix.shape),
            "pair_weights_": None if all_one else matrix.data,
            "n_positives_": n_positives,
            "n_active_users_": n_active_users,
            **dict(zip(("user_counts_", "item_counts_"), self.counts, strict=True)),
        }
        items = np.flatnonzero(self.counts[1])
        if params.loss != "ials":
            matrix, items = _rankable(params, matrix, self.processes)
        self.known = np.flatnonzero(np.diff(matrix.indptr)), items
        if tuple(map(len, self.known)) != matrix.shape:
            matrix = matrix[self.known[0]][:, self.known[1]]
        pointers, columns = (torch.from_numpy(part.astype(np.int32)).to(device) for part in (matrix.indptr, matrix.indices))
        self.matrix, self.plan = matrix, Plan(Pairs.from_rows(pointers, columns, matrix.shape[1]), processes=self.processes)
        self.described = [reading.described.get(role) for role in ROLES]
        self.features = features_of(self.described, self.known, processes=self.processes)

    def _gain(self, dtype):
        """What ``ials`` is told of how much a positive weighs: a float where those of all processes weigh the same."""
        gain, largest = raise_tiny(self.confidence * self.matrix.data), self.processes.largest  # user-major already
        most, least = largest(gain.max(initial=-np.inf)), -largest(-gain.min(initial=np.inf))
        if most == least:
            return float(most)
        return torch.from_numpy(gain).to(self.device, dtype)

    def _arrange(self, module):
        """Put the random rows of a module, drawn for users in the order of their labels, into that of the plan."""

    def make_solver(self):
        """Make the solver for the users and items that have something to learn from; all others get the mean row."""
        params, plan = self.params, self.plan
        generator = torch.Generator("cpu").manual_seed(self.seed)
        dtype, begun = getattr(torch, params.dtype), None
        kind, init_std = BiasedMF if params._has_biases() else PlainMF, 0.0 if params.distributed else INIT_STD
        sizes = len(self.known[0]), len(self.known[1])
        module = kind(*sizes, params.n_factors, init_std=init_std, generator=generator, dtype=dtype)
        self._arrange(module)
        spectral = params.loss == COSINE and self.start is None
        if params.distributed:
            std = SMALL if spectral else INIT_STD / params.n_factors**0.5
            scatter(module, self.user_labels(), std, self.seed, params.dtype)
            generator.manual_seed(self.seed)  # it has come as far as there are users here
        if self.start is not None:
            _, begun = self.start.fill(module, self.known, 0.0, processes=self.processes)
            begun = torch.from_numpy(begun).to(self.device)
            if kind is BiasedMF:  # here the level is a part of the items' biases
                module.get_parameter("item_biases").data.add_(self.start.factors.constant * begun.cpu())
        module = module.to(self.device)
        begun = begun if self.start is not None and self.start.factors.biased else None
        if params.loss == "ials":
            options = {"alpha": self.alpha, "features": self.features, "repeated": self.repeated}
            return ImplicitLeastSquares(module, plan, self._gain(dtype), **options)
        total, n = self.processes.all_reduce([float(self.matrix.data.sum()), self.matrix.nnz])
        weight = np.maximum(self.matrix.data / (total / n), 1e-30)  # greater than zero in float32 too
        weight = torch.from_numpy(weight).to(self.device, dtype)
        drawn = {"popularity": params.negatives == "popularity", "exact": params.exact, "generator": generator}
        options = {"max_iter": params.max_iter, "begun": begun, **drawn}
        if params.loss == COSINE:
            made = {"temperature": params._temperature(plan.n_users, plan.n_items), "spectral": spectral}
            made["order"] = self._order() if params.distributed else None
            return cosine_solver(module, plan, weight, **made, **options)
        options |= {"alpha": self.alpha, "n_negatives": params.n_negatives, "features": self.features}
        options["uniform_of"] = self._uniform_of() if params.distributed else None
        return ranking_solver(module, plan, weight, RANKING[params.loss], **options)

    def user_labels(self):
        return self.users[self.known[0]]

    def _order(self):
        """The users in an order that the number of processes does not change; see ``CosineSoftmax``."""
        users = self.user_labels()  # in order: rows of matrices are numbered on over the processes, others divided by their hash
        order = np.arange(len(users)) if self.form == SPARSE else np.argsort(stable_hash(users, "user"), kind="stable")
        return torch.from_numpy(order).to(self.device)

    def _uniform_of(self):
        """What negatives are drawn from, by the labels of users and the numbers of items: see ``ranking_solver``."""
        users, items = self.user_labels(), np.arange(len(self.known[1]))  # the items' numbers are the same in all
        of_users = np.repeat(stable_hash(users, "user"), np.diff(self.matrix.indptr))
        keys, count = pair_keys(of_users, stable_hash(items, "item")[self.matrix.indices]), self.params.n_negatives

        def uniform_of(seed):
            return lambda places, number: torch.from_numpy(uniform_draws(keys, seed, count, places.numpy(), number))

        return uniform_of

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


def confidence_for(params, largest, item_counts, n_users):
    """The confidence that is asked for, or else suits the weights of positives, which float32 must be able to hold.

    Parameters
    ----------
    params : estimator
    largest : float
        The largest weight of a pair.
    item_counts : ndarray of shape (n_items,)
        Weights by item, summed.
    n_users : int
        How many have a positive.

    Returns
    -------
    float
    """
    what = "weight of a pair"
    given = params.confidence is not None and params.confidence != AUTO
    if params.loss == "ials" and given:
        largest, what = params.confidence * largest, what + ", times confidence,"
    if not 1e-30 <= largest <= 1e30:
        raise ValueError(f"The largest {what} must lie between 1e-30 and 1e30. Got {largest:.3g}. Rescale the weights.")
    if given:
        return params.confidence
    return POSITIVES * (n_users * np.count_nonzero(item_counts)) / item_counts.sum()


def _confidence(params, matrix):
    """``confidence_for`` a matrix of weights."""
    n_users = np.count_nonzero(np.diff(matrix.indptr))
    return confidence_for(params, float(matrix.data.max()), matrix.sum(axis=0), n_users)


def _rankable(params, matrix, processes):
    """Without the users who have every item that could be drawn; the items that can be."""
    rest = matrix
    while True:
        counts = _summed((rest if params.negatives == "popularity" else matrix).sum(axis=0), processes)
        items, lengths = np.flatnonzero(counts), np.diff(rest.indptr)
        full = lengths == len(items)
        n_full, n_left = processes.all_reduce([int(np.count_nonzero(full)), int(lengths[~full].sum())])
        if n_full == 0:
            return rest, items
        weight = np.where(np.repeat(full, lengths), 0.0, rest.data)
        rest = sp.csr_array((weight, rest.indices, rest.indptr), shape=rest.shape, copy=True)  # others have its indices
        rest.eliminate_zeros()
        if n_left == 0:
            (n_users,) = processes.all_reduce([int(np.count_nonzero(np.diff(matrix.indptr)))])
            raise ValueError(
                f'Every user has every item, so loss="{params.loss}" has nothing to rank them above. Got {n_users} users and '
                f'{np.count_nonzero(_summed(matrix.sum(axis=0), processes))} items. Use loss="ials".'
            )


def _summed(values, processes):
    """The sums of an array over the processes."""
    if processes.size == 1:
        return values
    return processes.all_reduce([torch.from_numpy(values)])[0].numpy()
