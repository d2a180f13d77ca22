"""Exact ridge solutions of many rows at once: alternating least squares, and the fold-in of new rows. Knows no estimator."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sk_torchmf.solvers.base import Solver, by_name, by_side, fill, tensors_of
from sk_torchmf.solvers.objective import POWER
from sk_torchmf.solvers.rating_blocks import Ratings, ratings_of
from sk_torchmf.solvers.row_regression import own_columns

BLOCK = 2**19  # numbers a block of rows may gather: they stay in the cache
SHARED = 2**23  # numbers of the items' matrices that are summed at once over blocks or processes
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
        return cls(*(torch.tensor(values, dtype=like.dtype, device=like.device) for values in (precision, shift)))

    def at(self, count):
        """Precision (n, width, width) and shift (n, width) of rows with the counts (n,)."""
        powers = torch.stack([torch.ones_like(count), count**POWER, count], 1)  # (n, 3)
        return torch.tensordot(powers, self.precision, 1), powers @ self.shift

    def pull(self, count):
        """The precision (n, width, width) with which rows with the counts (n,) are drawn to their own prior means."""
        powers = torch.stack([torch.ones_like(count), count**POWER], 1)
        return torch.tensordot(powers, self.precision[:2], 1)


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
    The loss of an epoch is the objective after it. Where a side has features, some steps of the coefficients' ridge regression
    follow its half-step: none of all this raises the objective. The solution has no posterior; its prior is the objective's ridge
    about the mean user.

    References
    ----------
    .. [1] Zhou et al., Large-scale Parallel Collaborative Filtering for the Netflix Prize, AAIM 2008.
    """

    max_iter = 15

    def __init__(self, module, objective):
        self.module, self.objective, self.plan = module, objective, objective.plan
        self.k = module.user_factors.shape[1]
        self.biased = module.biased
        rating, weight = objective.rating, objective.weight
        self.by_user, self.by_item = (ratings_of(self.plan, rating, weight, by_item=by_item) for by_item in (False, True))
        like = module.item_factors.detach()
        self.item_counts = self.plan.sums(weight)[1].to(like)
        for _, _, block in self.plan:
            self.plan.add(block.sums()[1])
        (self.item_lengths,) = self.plan.total()
        self.priors = []
        for ridge in objective.ridges:
            mean = np.zeros(self.k + self.biased)
            if ridge.mean.ndim == 1:  # else rows move from zero to means of their own
                mean[: self.k] = ridge.mean[: self.k].cpu().numpy()
            precision, shift = ridge.prior(mean)
            self.priors.append(RowPrior.from_arrays(precision, shift, like))

    def step(self):
        loss = self.objective.loss
        with torch.no_grad():
            (features, offset), moves, rows = self._features("item"), self._moves(0), []
            for some, ratings in self.by_user:
                own = None if moves is None else PriorMoves(moves[some])
                rows.append(solve_rows(*ratings, features, offset, self.priors[0], loss, moves=own))
            self._keep("user", torch.cat(rows))
            self.objective.regress(self.module, "user")
            (features, offset), moves = self._features("user"), self._moves(1)
            known = self.item_lengths, self.item_counts, features, offset
            self._keep("item", solve_items(self.plan, self.by_item, *known, self.priors[1], loss, moves=moves))
            self.objective.regress(self.module, "item")
            return {"loss": float(self.objective(self.module))}

    def _features(self, role):
        """What the other side's rows are fitted to: of each row the factors, and one in a biased model; and what is added."""
        features = getattr(self.module, f"{role}_factors").detach()
        if not self.biased:
            return features, features.new_zeros(len(features))
        offset = getattr(self.module, f"{role}_biases").detach() + self.module.global_mean
        return torch.cat([features, torch.ones_like(features[:, :1])], 1), offset

    def _moves(self, at):
        """How far the prior means of a side's rows lie from its prior's, (n_rows, k) or with biases (n_rows, k + 1); or None."""
        mean = self.objective.ridges[at].mean
        return None if mean.ndim == 1 else mean[:, own_columns(self.k, self.biased)[at]]

    def _keep(self, role, rows):
        getattr(self.module, f"{role}_factors").copy_(rows[:, : self.k])
        if self.biased:
            getattr(self.module, f"{role}_biases").copy_(rows[:, self.k])

    def solution(self):
        return self.objective.solution(self.module)

    def state(self):
        state = by_side(tensors_of(self.module))
        state["rest"] |= self.objective.state()
        return state

    def restore(self, state):
        fill(tensors_of(self.module), by_name(state))
        self.objective.restore(state["rest"])

    def advice(self):
        return ". Raise alpha, or check the ratings for extreme values."


class PriorMoves(NamedTuple):
    r"""How far the prior means of rows lie from the prior's own.

    Attributes
    ----------
    known : Tensor of shape (n_rows, width)
        Whatever is rated.
    seen : Tensor of shape (n_columns, width) or None
        What each rated column adds, over the root of their number.
    """

    known: Tensor
    seen: Tensor | None = None

    def at(self, index, column, real):
        """The moves (b, width) of some rows, which rated (b, l), and by how much these change without each, (b, l, width)."""
        moves = self.known[index]
        if self.seen is None:
            return moves, None
        number = real.sum(1)[:, None].to(moves)  # (b, 1)
        table = self.seen[column] * real[:, :, None]  # (b, l, width)
        total = table.sum(1)
        moves = moves + total / number.clamp_min(1).sqrt()
        others = (total[:, None] - table) / (number - 1).clamp_min(1).sqrt()[:, :, None]
        return moves, others + (self.known[index] - moves)[:, None]


def solve_rows(pointers, columns, rating, weight, features, offset, prior, loss, *, moves=None, leave_one_out=False):
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
    moves : PriorMoves, optional
        Of the rows' prior means; none by default.
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
    ratings, lengths = Ratings(pointers, columns, rating, weight), pointers.diff()
    rows = features.new_empty(len(lengths), features.shape[1])
    held_out = torch.empty_like(rating)
    for index in _chunks(lengths, features.shape[1]):
        block, place, real = ratings.padded(index, features, offset)
        own = None if moves is None else moves.at(index, columns[place] if len(columns) else place, real)
        rows[index], scores = _solve_block(block, prior, loss, own, leave_one_out)
        if leave_one_out:
            held_out[place[real]] = scores[real]
    return (rows, held_out) if leave_one_out else rows


def _chunks(lengths, width):
    """Row numbers, the longest rows first, as many at a time as keep what is gathered in the cache."""
    order = torch.argsort(lengths, descending=True, stable=True)  # the same in all processes
    start = 0
    while start < len(order):
        index = order[start : start + max(1, BLOCK // (width * max(int(lengths[order[start]]), width)))]  # (b,)
        start += len(index)
        yield index


def _solve_block(block, prior, loss, moves, leave_one_out):
    """Rows (b, width) for a block of whole rows, and the held-out scores (b, l)."""
    count, change = block.weight.sum(1), None
    precision, shift = prior.at(count)
    if moves is not None:
        own, change = moves
        pull = prior.pull(count)
        shift = shift + (pull @ own[:, :, None])[:, :, 0]
    x = torch.linalg.solve_ex(precision, shift)[0]
    for _ in range(_n_steps(loss)):
        working, curvature = block.working(x, loss)
        Yw = block.Y * curvature[:, :, None]
        L = _cholesky(torch.baddbmm(precision, Yw.mT, block.Y))
        x = torch.cholesky_solve(shift[:, :, None] + Yw.mT @ (working - block.offset)[:, :, None], L)[:, :, 0]
    if not leave_one_out:
        return x, None
    leverage = curvature * ((block.Y @ torch.cholesky_inverse(L)) * block.Y).sum(2)
    keep = (1 - leverage).clamp_min(torch.finfo(x.dtype).eps)
    score = block.score(x)
    if change is not None:  # of the prior's mean, as the row's features are without the rating
        score = score + ((block.Y @ torch.cholesky_solve(pull, L)) * change).sum(2)
    return x, working - (working - score) / keep


def solve_items(plan, ratings, lengths, count, features, offset, prior, loss, *, moves=None):
    """Fit every item's row to fixed features of the users, as ``solve_rows`` would, with an item's ratings in several blocks.

    Parameters
    ----------
    plan : Plan
    ratings : iterable of (slice, Ratings)
        Of each of the plan's blocks its users, and items in rows with these users in columns.
    lengths : Tensor of shape (n_items,)
        The number of each item's ratings in all blocks and processes.
    count : Tensor of shape (n_items,)
        The sum of their weights.
    features : Tensor of shape (n_users, width)
    offset : Tensor of shape (n_users,)
    prior : RowPrior
    loss : PointwiseLoss
    moves : Tensor of shape (n_items, width), optional
        Of the rows' prior means; none by default.

    Returns
    -------
    Tensor of shape (n_items, width)

    Notes
    -----
    One block that is at hand gives the matrices of as many items as stay in the cache. Of several blocks or processes as many are
    summed at once as ``SHARED`` numbers hold: each Newton step of them goes through all blocks and adds up over the processes.
    """
    width = features.shape[1]
    rows = features.new_empty(len(lengths), width)
    in_cache = plan.processes.size == 1 and plan.keeps_blocks and len(plan) == 1
    numbers = torch.arange(len(lengths), device=lengths.device)
    for index in _chunks(lengths, width) if in_cache else numbers.split(max(1, SHARED // width**2)):
        found = Gathered(ratings, index, features, offset)
        gathered = [list(pieces) for pieces in found] if in_cache else found
        precision, shift = prior.at(count[index])
        if moves is not None:
            shift = shift + (prior.pull(count[index]) @ moves[index, :, None])[:, :, 0]
        x = torch.linalg.solve_ex(precision, shift)[0]
        for _ in range(_n_steps(loss)):
            for pieces in gathered:
                plan.add(*_equations(pieces, x, loss))
            A, b = plan.total()
            x = torch.cholesky_solve(b + shift[:, :, None], _cholesky(A + precision))[:, :, 0]
        rows[index] = x
    return rows


@dataclass(frozen=True)
class Gathered:
    """The ratings of some items, beside the features of who rated them, made anew each time that they are gone through.

    Attributes
    ----------
    ratings : iterable of (slice, Ratings)
    index : Tensor of shape (m,), int64
        The items' numbers.
    features : Tensor of shape (n_users, width)
    offset : Tensor of shape (n_users,)
    """

    ratings: Any
    index: Tensor
    features: Tensor
    offset: Tensor

    def __iter__(self):
        """Yield for each block what it has, a generator of (places in the index, Block) of a size that stays in the cache."""
        for rows, own in self.ratings:
            yield self._pieces(own, self.features[rows], self.offset[rows])

    def _pieces(self, ratings, features, offset):
        lengths = ratings.pointers.diff()[self.index]
        for at in _chunks(lengths, features.shape[1]):
            if lengths[at[0]] == 0:  # the longest
                return
            yield at, ratings.padded(self.index[at], features, offset)[0]


def _equations(pieces, x, loss):
    """The matrices (m, width, width) and right sides (m, width, 1) of the Newton steps from x (m, width), without the prior."""
    A, b = x.new_zeros(*x.shape, x.shape[1]), x.new_zeros(*x.shape, 1)
    for at, block in pieces:
        working, curvature = block.working(x[at], loss)
        Yw = block.Y * curvature[:, :, None]
        A[at], b[at] = Yw.mT @ block.Y, Yw.mT @ (working - block.offset)[:, :, None]
    return A, b


def _n_steps(loss):
    return 1 if loss.name == "squared_error" else NEWTON_STEPS


def _cholesky(A):
    L, info = torch.linalg.cholesky_ex(A)
    if info.any():  # rounding made a nearly singular matrix indefinite
        scale = A.diagonal(dim1=-2, dim2=-1).amax(-1)[:, None, None]
        eye = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
        L, info = torch.linalg.cholesky_ex(A + 1e-4 * scale * eye)
        L[info != 0] = torch.nan  # numbers out of range
    return L
