"""Exact ridge solutions of many rows at once: alternating least squares, and the fold-in of new rows. Knows no estimator."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sk_torchmf.solvers.base import Solver, by_name, by_side, fill, tensors_of
from sk_torchmf.solvers.objective import POWER

BLOCK = 2**19  # numbers a block of rows may gather: they stay in the cache
NEWTON_STEPS = 8


@dataclass(frozen=True)
class RowPrior:
    r"""A Gaussian prior of a row with c ratings, in natural form.

    The precision is :math:`\sum_j c^{g_j} M_j` and precision times mean is :math:`\sum_j c^{g_j} v_j`, with powers
    :math:`g = (0, 0.75, 1)`.

    Attributes
    ----------
    precision : Tensor of shape (3, width, width)
        :math:`M_j`, in units of the loss.
    shift : Tensor of shape (3, width)
        :math:`v_j`.
    """

    precision: Tensor
    shift: Tensor

    @classmethod
    def from_arrays(cls, precision, shift, like):
        """Take NumPy arrays over in the dtype and on the device of a tensor."""
        return cls(torch.from_numpy(precision).to(like), torch.from_numpy(shift).to(like))

    def at(self, count):
        """Precision (n, width, width) and shift (n, width) of rows with the counts (n,)."""
        powers = torch.stack([torch.ones_like(count), count**POWER, count], 1)  # (n, 3)
        return torch.tensordot(powers, self.precision, 1), powers @ self.shift


class AlternatingLeastSquares(Solver):
    """Minimise an objective by alternating least squares, in place: all rows of one side exactly, then all of the other.

    Parameters
    ----------
    module : PlainMF or BiasedMF
        Its parameters are the start and the result.
    objective : Objective
        What to minimise. Other losses than the squared error take a few Newton steps a half-step.

    Notes
    -----
    The loss of an epoch is the objective after it. The solution has no posterior; its prior is the objective's ridge about the mean
    user.

    References
    ----------
    .. [1] Zhou et al., Large-scale Parallel Collaborative Filtering for the Netflix Prize, AAIM 2008.
    """

    max_iter = 15

    def __init__(self, module, objective):
        self.module, self.objective = module, objective
        self.k = module.user_factors.shape[1]
        self.biased = hasattr(module, "user_biases")
        pairs = objective.pairs
        weight = torch.ones_like(objective.rating) if objective.weight is None else objective.weight
        order = pairs.T.order
        self.values = {"user": (objective.rating, weight), "item": (objective.rating[order.long()], weight[order.long()])}
        self.plans = {"user": pairs, "item": pairs.T}
        self.priors = {}
        for name, ridge in zip(("user", "item"), objective.ridges, strict=True):
            mean = np.zeros(self.k + self.biased)
            mean[: self.k] = ridge.mean[: self.k].cpu().numpy()
            precision, shift = ridge.prior(mean)
            self.priors[name] = RowPrior.from_arrays(precision, shift, objective.rating)

    def step(self):
        with torch.no_grad():
            self._half_step("user", "item")
            self._half_step("item", "user")
            return {"loss": float(self.objective(self.module))}

    def _half_step(self, own, other):
        features = getattr(self.module, f"{other}_factors").detach()
        offset = features.new_zeros(len(features))
        if self.biased:
            offset = getattr(self.module, f"{other}_biases").detach() + self.module.global_mean
            features = torch.cat([features, torch.ones_like(features[:, :1])], 1)
        pattern = self.plans[own].pointers.long(), self.plans[own].columns.long()
        rows = solve_rows(*pattern, *self.values[own], features, offset, self.priors[own], self.objective.loss)
        getattr(self.module, f"{own}_factors").copy_(rows[:, : self.k])
        if self.biased:
            getattr(self.module, f"{own}_biases").copy_(rows[:, self.k])

    def solution(self):
        return self.objective.solution(self.module)

    def state(self):
        return by_side(tensors_of(self.module))

    def restore(self, state):
        fill(tensors_of(self.module), by_name(state))

    def advice(self):
        return ". Raise alpha, or check the ratings for extreme values."


def solve_rows(pointers, columns, rating, weight, features, offset, prior, loss, *, leave_one_out=False):
    r"""Fit every row of a sparse rating matrix to fixed features of its columns.

    Minimises for each row on its own

    .. math:: \sum_i w_i \, \ell(o_i + y_i^\top x, r_i) + (x - m)^\top \Lambda (x - m)

    with the prior's precision :math:`\Lambda` and mean m at the row's weighted number of ratings: in closed form for the squared
    error, by Newton steps with the loss's curvature for the others.

    Parameters
    ----------
    pointers : Tensor of shape (n_rows + 1,), int64
        CSR row pointers.
    columns : Tensor of shape (n_ratings,), int64
        CSR columns, which index ``features``.
    rating, weight : Tensor of shape (n_ratings,)
        In the units of the scores.
    features : Tensor of shape (n_columns, width)
        :math:`y_i`; their dtype is the result's.
    offset : Tensor of shape (n_columns,)
        :math:`o_i`, in the units of the scores.
    prior : RowPrior
    loss : PointwiseLoss
    leave_one_out : bool, default=False
        Whether to return the held-out scores too.

    Returns
    -------
    rows : Tensor of shape (n_rows, width)
        A row without ratings is the prior's mean.
    scores : Tensor of shape (n_ratings,), only with ``leave_one_out``
        Each rating's score from its row's other ratings, at the ridge of the full row: for a linear smoother with leverage h the
        residual is :math:`e / (1 - h)`, exactly [1]_. For other losses than the squared error that of the last Newton step.

    References
    ----------
    .. [1] Hastie, Tibshirani, Friedman, The Elements of Statistical Learning, 2nd ed., eq. 7.64.
    """
    lengths = pointers.diff()
    width = features.shape[1]
    rows = features.new_empty(len(lengths), width)
    held_out = torch.empty_like(rating)
    order = torch.argsort(lengths, descending=True)
    start = 0
    while start < len(order):
        longest = int(lengths[order[start]])
        index = order[start : start + max(1, BLOCK // (width * max(longest, width)))]  # (b,)
        start += len(index)
        place = pointers[index, None] + torch.arange(longest, device=index.device)  # (b, l)
        real = place < pointers[index + 1, None]
        place = torch.where(real, place, 0)
        w = weight[place] * real
        c = columns[place] if longest else place
        row, scores = _solve_block(features[c], offset[c], rating[place], w, prior, loss, leave_one_out)
        rows[index] = row
        if leave_one_out:
            held_out[place[real]] = scores[real]
    return (rows, held_out) if leave_one_out else rows


def _solve_block(Y, offset, rating, weight, prior, loss, leave_one_out):
    """Rows (b, width) for features Y (b, l, width) and values (b, l); weight 0 marks padding."""
    precision, shift = prior.at(weight.sum(1))
    linear = loss.name == "squared_error"
    x = torch.linalg.solve(precision, shift)
    working, curvature = rating, weight
    for _ in range(1 if linear else NEWTON_STEPS):
        if not linear:
            score = offset + (Y @ x[:, :, None])[:, :, 0]
            slope = loss.slope(score, rating)
            bend = loss.curvature(score, rating)
            working, curvature = score - slope / bend, weight * bend / 2
        Yw = Y * curvature[:, :, None]
        A = torch.baddbmm(precision, Yw.mT, Y)
        b = shift[:, :, None] + Yw.mT @ (working - offset)[:, :, None]
        L = _cholesky(A)
        x = torch.cholesky_solve(b, L)[:, :, 0]
    if not leave_one_out:
        return x, None
    score = offset + (Y @ x[:, :, None])[:, :, 0]
    leverage = curvature * ((Y @ torch.cholesky_inverse(L)) * Y).sum(2)
    keep = (1 - leverage).clamp_min(torch.finfo(Y.dtype).eps)
    return x, working - (working - score) / keep


def _cholesky(A):
    L, info = torch.linalg.cholesky_ex(A)
    if info.any():  # rounding made a nearly singular matrix indefinite
        scale = A.diagonal(dim1=-2, dim2=-1).amax(-1)[:, None, None]
        eye = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
        L = torch.linalg.cholesky(A + 1e-4 * scale * eye)
    return L
