"""Regularisation and confidence of ``ials``, found by a search on positives that are held out for it."""

import time

import numpy as np
import scipy.sparse as sp
import torch

from sk_torchmf._validation import raise_tiny
from sk_torchmf.estimators._positives import AUTO, INIT_STD
from sk_torchmf.inputs.holdout import hold_out
from sk_torchmf.nn import BiasedMF, Pairs, PlainMF, Plan
from sk_torchmf.solvers.base import BROKEN
from sk_torchmf.solvers.ials import ImplicitLeastSquares

FACTORS = 3.0, 2.0  # by which a step changes confidence and regularisation
DIRECTIONS = ((0, 1), (0, -1)), ((1, 0), (-1, 0))  # of regularisation, and of confidence
MOST_TRIED = 10
FIRST, LATER = 15, 6  # iterations of one that starts anew, and of one that goes on: fewer flatter those with much regularisation
HELD_OUT = 0.1  # of each user's positives
AMONG = 4  # places that count nearly alike
MOST_USERS, MOST_SCORES = 2000, 2**26  # that a candidate is judged by
BLOCK = 2**22  # scores held at once


def is_searched(params):
    """Whether regularisation or confidence are to be found."""
    return AUTO in (params.alpha, params.confidence)


def search(params, usual, matrix, device, seed):
    r"""Find what ranks held-out positives best.

    The first candidate is what is usual. Confidence c is walked along on a logarithmic scale, and so is the regularisation, over
    :math:`1 + c \bar w` with the mean weight :math:`\bar w` of a positive: the noise of the weighted matrix grows with that, so
    that a step means much the same for all confidences. A candidate is the neighbour of the best so far in one direction, and goes
    on from its rows; where no neighbour is better, steps become half as long. One that diverges is the worst. Features have no
    part in it.

    Parameters
    ----------
    params : ImplicitMatrixFactorization
        Of what is not "auto" there is no search.
    usual : callable
        Takes a matrix, returns the confidence to start at.
    matrix : CSR array of shape (n_users, n_items)
        Weights of the positives.
    device : torch.device
    seed : int

    Returns
    -------
    alpha, confidence : float
        For the whole matrix.
    """
    trial = _Trial.of(params, usual, matrix, device, seed)
    free = [*(DIRECTIONS[0] if params.alpha == AUTO else ()), *(DIRECTIONS[1] if params.confidence == AUTO else ())]
    best, length, unmoved = (0.0, 0.0), 1.0, 0
    worth, rows = trial(best, None, FIRST)
    tried = {best}
    while len(tried) < MOST_TRIED and unmoved < 2:
        for direction in list(free):
            point = best[0] + length * direction[0], best[1] + length * direction[1]
            if point in tried or len(tried) == MOST_TRIED:
                continue
            tried.add(point)
            found, its_rows = trial(point, rows, LATER if rows else FIRST)
            if found > worth:
                best, worth, rows = point, found, its_rows
                free.remove(direction)
                free.insert(0, direction)  # on in this direction
                break
        else:
            length, unmoved = length / 2, unmoved + 1
    return _settings(best, params, usual, matrix)


def _settings(point, params, usual, matrix):
    """Regularisation and confidence for a matrix, so many steps from what is usual."""
    first = usual(matrix)
    confidence = float(first * FACTORS[0] ** point[0])
    if params.alpha != AUTO:
        return params._alpha(), confidence
    noise = (1 + confidence * matrix.data.mean()) / (1 + first * matrix.data.mean())
    return float(params._alpha() * FACTORS[1] ** point[1] * noise), confidence


class _Trial:
    """A matrix less what is held out of it: what a candidate is fitted to and judged by."""

    def __init__(self, params, usual, matrix, held, device, seed):
        self.params, self.usual, self.matrix, self.held, self.seed = params, usual, matrix, held, seed
        pointers, columns = (torch.from_numpy(part.astype(np.int32)).to(device) for part in (matrix.indptr, matrix.indices))
        self.plan = Plan(Pairs.from_rows(pointers, columns, matrix.shape[1]))
        users = np.flatnonzero(np.diff(held.indptr))
        n_judging = min(MOST_USERS, max(MOST_SCORES // matrix.shape[1], 200))
        self.judging = np.sort(np.random.default_rng(seed).permutation(users)[:n_judging])
        self.number = 0

    @classmethod
    def of(cls, params, usual, matrix, device, seed):
        user = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
        if not (np.diff(matrix.indptr) > 1).any():
            names = [name for name in ("alpha", "confidence") if getattr(params, name) == AUTO]
            raise ValueError(
                f'{" and ".join(names)}="auto" holds out some positives of each user, and no user has two items. Pass a number, or '
                "None."
            )
        away = hold_out(user, matrix.indices, HELD_OUT, seed)

        def part(chosen):
            return sp.csr_array((matrix.data[chosen], (user[chosen], matrix.indices[chosen])), shape=matrix.shape)

        kept, held = part(~away), part(away)
        users, items = (np.flatnonzero(kept.sum(axis=axis)) for axis in (1, 0))
        kept, held = (own[users][:, items] for own in (kept, held))
        kept.sort_indices()
        return cls(params, usual, kept, held, device, seed)

    def __call__(self, point, start, n_iterations):
        """How well a candidate ranks what is held out, -inf where it diverges; its rows, None likewise."""
        began, (alpha, confidence) = time.perf_counter(), _settings(point, self.params, self.usual, self.matrix)
        try:
            rows = self._fit(alpha, confidence, start, n_iterations)
        except BROKEN:
            rows = None
        if rows is None or not all(bool(own.isfinite().all()) for own in rows):
            worth, rows = -np.inf, None
        else:
            worth = self._judge(*rows)
        self.number += 1
        if self.params.verbose:
            told = f"alpha {alpha:.3g}, confidence {confidence:.3g}, worth {worth:.4f}"
            print(f"[{type(self.params).__name__}] candidate {self.number}, {told}, {time.perf_counter() - began:.3g} s")
        return worth, rows

    def _fit(self, alpha, confidence, start, n_iterations):
        params, k = self.params, self.params.n_factors
        generator, (n_users, n_items) = torch.Generator("cpu").manual_seed(self.seed), self.matrix.shape
        kind = BiasedMF if params._has_biases() else PlainMF
        dtype, device = getattr(torch, params.dtype), self.plan.pairs.columns.device
        module = kind(n_users, n_items, k, init_std=INIT_STD, generator=generator, dtype=dtype)
        if start is not None:
            module.user_factors.data.copy_(start[0][:, :k])
            module.item_factors.data.copy_(start[1][:, :k])
            if params._has_biases():
                module.get_parameter("item_biases").data.copy_(start[1][:, k + 1])
        module = module.to(device)
        gain = torch.from_numpy(raise_tiny(confidence * self.matrix.data)).to(device, dtype)
        solver = ImplicitLeastSquares(module, self.plan, gain, alpha=alpha)
        for _ in range(n_iterations):
            solver.step()
        state = solver.state()
        return state["user"]["rows"], state["item"]["rows"]

    def _judge(self, users, items):
        """Mean over users of the mean over what is held out of 4 / (3 + place): like NDCG@10, but of half the error by chance."""
        total, size = 0.0, max(BLOCK // len(items), 1)
        for start in range(0, len(self.judging), size):
            some = self.judging[start : start + size]
            seen, held = (own[some].tocoo() for own in (self.matrix, self.held))
            scores = (users[torch.from_numpy(some).to(users.device)] @ items.T).cpu().numpy()  # (b, n_items)
            scores[seen.row, seen.col] = -np.inf
            pairs = zip(held.row, scores[held.row, held.col], strict=True)
            place = np.array([np.count_nonzero(scores[row] >= own) for row, own in pairs])  # what is as good comes before
            total += (AMONG / (AMONG - 1 + place) / np.bincount(held.row)[held.row]).sum()
        return total / len(self.judging)
