"""The solver that ``ImplicitMatrixFactorization`` trains with, made of its parameters and positives; sets nothing on it."""

import numpy as np
import scipy.sparse as sp
import torch

from sk_torchmf._validation import check_device
from sk_torchmf.nn import RANKING, BiasedMF, Pairs, PlainMF, Plan
from sk_torchmf.solvers.ials import ImplicitLeastSquares
from sk_torchmf.solvers.ranking_descent import ranking_solver

POSITIVES = 0.1  # what all positives weigh, of all pairs, where nothing else is asked for
ALPHA = {"ials": 0.01} | {name: loss.alpha for name, loss in RANKING.items()}
INIT_STD = 0.3


def check_params(params):
    """Refuse what cannot be combined; the device."""
    if params.exact and (params.loss == "ials" or RANKING[params.loss].expected is None):
        raise ValueError(
            f'exact=True is for loss="logistic" and loss="softmax". Got loss="{params.loss}", which '
            + ("always counts all pairs." if params.loss == "ials" else "is drawn.")
        )
    if params.temperature is not None and params.loss != "softmax":
        raise ValueError(
            f'temperature={params.temperature} is for loss="softmax", whose scores are then cosines. Got loss="{params.loss}".'
        )
    return check_device(params.device)


def alpha_of(params):
    """The regularisation that is asked for, or else suits the loss."""
    return ALPHA[params.loss] if params.alpha is None else params.alpha


def confidence_of(params, matrix):
    """The confidence that is asked for, or else suits a matrix of weights, which float32 must be able to hold."""
    largest, what = float(matrix.data.max()), "weight of a pair"
    if params.loss == "ials" and params.confidence is not None:
        largest, what = params.confidence * largest, what + ", times confidence,"
    if not 1e-30 <= largest <= 1e30:
        raise ValueError(f"The largest {what} must lie between 1e-30 and 1e30. Got {largest:.3g}. Rescale the weights.")
    if params.confidence is not None:
        return params.confidence
    n_users, n_items = _n_known(matrix)
    return POSITIVES * (n_users * n_items) / matrix.data.sum()


def make_solver(params, matrix, confidence, device, start, seed):
    """Make the solver for the users and items that have something to learn from; all others get the mean row.

    Parameters
    ----------
    params : ImplicitMatrixFactorization
        Of which parameters are read, and nothing else.
    matrix : CSR array of shape (n_users, n_items), float64
        Weights of the positives, > 0.
    confidence : float
        See ``confidence_of``.
    device : torch.device
    start : Start or None
        None for random factors.
    seed : int

    Returns
    -------
    solver : Solver
    max_iter : int
    known_users, known_items : ndarray of int64
        Which they are.
    """
    matrix, known_items = (matrix, np.flatnonzero(matrix.sum(axis=0))) if params.loss == "ials" else _rankable(params, matrix)
    known_users = np.flatnonzero(np.diff(matrix.indptr))
    if (len(known_users), len(known_items)) != matrix.shape:
        matrix = matrix[known_users][:, known_items]
    n_users, n_items = matrix.shape
    pointers, columns = (torch.from_numpy(part.astype(np.int32)).to(device) for part in (matrix.indptr, matrix.indices))
    plan = Plan(Pairs.from_rows(pointers, columns, n_items))
    generator = torch.Generator("cpu").manual_seed(seed)
    dtype, alpha = getattr(torch, params.dtype), alpha_of(params)
    kind = BiasedMF if params.biased else PlainMF
    module = kind(n_users, n_items, params.n_factors, init_std=INIT_STD, generator=generator, dtype=dtype)
    begun = None
    if start is not None:
        start.fill(module, known_users, known_items, 0.0, 1.0)
        begun = torch.from_numpy(start.items.known[known_items]).to(device)
        if params.biased:  # here the level is a part of the items' biases
            module.get_parameter("item_biases").data.add_(start.constant * begun.cpu())
    module = module.to(device)

    if params.loss == "ials":
        gain = torch.from_numpy(confidence * matrix.data).to(device, dtype)  # user-major already
        return ImplicitLeastSquares(module, plan, gain, alpha=alpha), params.max_iter or 15, known_users, known_items
    weight = np.maximum(matrix.data / matrix.data.mean(), 1e-30)  # greater than zero in float32 too
    descent = ranking_solver(
        module,
        plan,
        torch.from_numpy(weight).to(device, dtype),
        RANKING[params.loss],
        alpha=alpha,
        n_negatives=params.n_negatives,
        popularity=params.negatives == "popularity",
        exact=params.exact,
        temperature=params.temperature,
        max_iter=params.max_iter,
        generator=generator,
        begun=begun if start is not None and start.items.biases is not None else None,
    )
    return descent, descent.max_iter, known_users, known_items


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
