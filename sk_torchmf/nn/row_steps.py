"""What a half-step does with the rows of a side: where each goes, and what they add up to. Knows tensors only."""

from functools import cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sk_torchmf.nn import kernels
from sk_torchmf.nn.plan import cut_rows

TILE = 12  # of kernels.c: what the columns of its matrices are filled up to
LONGEST_STEP = 2.0  # of a row's line search, in Newton steps
MOMENTS = 6  # of kernels.c: what the columns of its moments are filled up to
PART = 2048  # of kernels.c: rows whose moments are one sum


_DTYPES = {torch.float32: np.float32, torch.float64: np.float64}


@cache
def _upper(width):
    """What takes a symmetric matrix to one with the same square that has nothing below the diagonal."""
    return np.triu(np.full((width, width), 2.0)) - np.eye(width)


class Frame(NamedTuple):
    """The coordinates in which a step of all rows of a side is a division, in the dtype of the rows but for ``exact_N``.

    Attributes
    ----------
    M, N : Tensor of shape (width, width)
        The side's basis, and its inverse transposed.
    exact_N : Tensor of shape (width, width), float64, on the CPU
        N.
    L : Tensor of shape (width,)
        The curvature of one rating along the basis.
    pull : Tensor of shape (width,)
        What a rating adds to the gradient whatever the row.
    to_gradient : Tensor of shape (n_factors, width)
        From a row's factors to the gradient of the other side's uncertainty.
    uncertainty : Tensor of shape (width, width)
        The other side's uncertainty along the basis, as far as it is on the diagonal or above, where it is twice what it is: that
        is enough for a square.
    table : Tensor of shape (5 width + 1, filled)
        All of it, as the compiled kernel takes it; the others are views of it.
    """

    M: Tensor
    N: Tensor
    exact_N: Tensor
    L: Tensor
    pull: Tensor
    to_gradient: Tensor
    uncertainty: Tensor
    table: Tensor

    @classmethod
    def of(cls, M, N, L, uncertainty, like):
        """Prepare the steps of rows like a tensor.

        Parameters
        ----------
        M, N, L : Tensor of shape (width, width) and (width,), float64, on the CPU
        uncertainty : Tensor of shape (n_factors, width), float64, on the CPU
            The covariance of the other side's factors with its rows, averaged over the ratings.
        like : Tensor
            Of the dtype and on the device that is wanted.
        """
        (k, width), basis, covariance = uncertainty.shape, M.numpy(), uncertainty.numpy()
        own_factors = basis[:k]
        to_gradient = covariance[:, :k] @ own_factors
        table = np.zeros((5 * width + 1, -(-width // TILE) * TILE), dtype=_DTYPES[like.dtype])
        used = table[:, :width]
        used[:width], used[width : width + k] = basis, to_gradient
        if width > k:  # with the covariance of q with b_i
            used[width + k] = covariance[:, k] @ own_factors
        used[2 * width : 3 * width] = N.numpy()
        used[3 * width : 4 * width] = own_factors.T @ to_gradient * _upper(width)
        used[4 * width : 5 * width] = basis.T
        used[5 * width] = L.numpy()
        kept = torch.from_numpy(table).to(like.device)
        views = kept[:, :width]
        pull = views[width + k] if width > k else views.new_zeros(width)
        to_gradient, upper, curvature = views[width : width + k], views[3 * width : 4 * width], views[5 * width]
        return cls(views[:width], views[2 * width : 3 * width], N, curvature, pull, to_gradient, upper, kept)


class Rows(NamedTuple):
    """Rows of one side, as kernels take them.

    Attributes
    ----------
    factors : Tensor of shape (n, n_factors)
        Contiguous.
    biases : Tensor of shape (n,) or None
        Contiguous; None in a plain model.
    """

    factors: Tensor
    biases: Tensor | None = None

    @classmethod
    def of(cls, rows, n_factors):
        """Copy rows (n, width), a bias after the factors or none."""
        biases = rows[:, n_factors].clone() if rows.shape[1] > n_factors else None
        return cls(rows[:, :n_factors].clone(memory_format=torch.contiguous_format), biases)

    def some(self, some):
        """Those of a slice, without a copy."""
        return Rows(self.factors[some], None if self.biases is None else self.biases[some])

    def copy(self):
        """A copy."""
        return Rows(self.factors.clone(memory_format=torch.contiguous_format), None if self.biases is None else self.biases.clone())

    def sum(self):
        """The sum of the rows, (width,)."""
        return torch.cat([part.sum(0).view(-1) for part in self if part is not None])

    def whole(self):
        """The rows (n, width), a bias after the factors or none: a copy, or the factors themselves."""
        return self.factors if self.biases is None else torch.cat([self.factors, self.biases[:, None]], 1)


class Informed(NamedTuple):
    """Rows of one side with what is known of them beside their ratings.

    Attributes
    ----------
    rows : Rows
    prior : Tensor of shape (n, width)
        The means of their prior.
    counts : Tensor of shape (n, 1)
        Their numbers of ratings.
    """

    rows: Rows
    prior: Tensor
    counts: Tensor


class Steps(NamedTuple):
    """Where rows go in a half-step, and how far.

    Attributes
    ----------
    move : Rows
        The Newton steps; rows go the other way.
    slope : Tensor of shape (n,)
        Half the derivative of the objective along them.
    bend : Tensor of shape (n,)
        Half the second derivative along them, as far as it comes from the other side's uncertainty and from the prior.
    turn : Tensor of shape (n,)
        Half the derivative of the likelihood alone, at certain rows of the other side.
    """

    move: Rows
    slope: Tensor
    bend: Tensor
    turn: Tensor


def gradients(frame, factors, count, slopes, slope):
    """Half the gradients of rows' likelihoods along the basis.

    Parameters
    ----------
    frame : Frame
    factors : Tensor of shape (n, n_factors)
        Of the rows.
    count : Tensor of shape (n, 1)
        Their numbers of ratings.
    slopes : Tensor of shape (n, n_factors)
        The other side's factors, summed over a row's ratings times half the slope there.
    slope : Tensor of shape (n,) or None
        Half the slopes alone, summed; None without biases.

    Returns
    -------
    Tensor of shape (n, width)
    """
    k = slopes.shape[1]
    gradient = slopes @ frame.M[:k]
    if slope is not None:
        gradient.addr_(slope, frame.M[k])
    return gradient.addcmul_(count, torch.addmm(frame.pull, factors, frame.to_gradient))


def newton_steps(frame, own, slopes, slope, noise):
    r"""Find the Newton steps of rows.

    With the gradient g along the basis, that of the prior included, a step is :math:`g / (c L + s^2)`.

    Parameters
    ----------
    frame : Frame
    own : Informed
        The rows.
    slopes, slope
        See ``gradients``.
    noise : float
        :math:`s^2`.

    Returns
    -------
    Steps
    """
    (rows, prior, count), (n, k), biased = own, slopes.shape, slope is not None
    factors = slopes.new_empty(n, k)
    if slopes.dtype is frame.table.dtype and slopes.stride(1) == 1 and _served(frame, own, slope):
        biases, *along = slopes.new_empty(4, n)
        given = [*rows, prior, slopes, slope, count, frame.table, count.new_tensor([noise])]
        found = [factors, biases if biased else None, *along]
        kernels.call_on_rows("steps", n, [k, *prior.shape[1:], prior.stride(0), slopes.stride(0)], given, found)
        return Steps(Rows(*found[:2]), *along)
    parts = []
    for some in cut_rows(0, n):
        part, own_count = rows.some(some), count[some]
        gradient = gradients(frame, part.factors, own_count, slopes[some], slope[some] if biased else None)
        gradient.addmm_(part.whole() - prior[some], frame.N, alpha=noise)
        step = gradient / (own_count * frame.L).add_(noise)
        torch.mm(step, frame.M[:k].T, out=factors[some])
        bend = (step * noise).addcmul_(own_count, step @ frame.uncertainty)
        turn, biases = (slopes[some] * factors[some]).sum(1), [step @ bias for bias in frame.M[k:]]
        if biased:
            turn.addcmul_(slope[some], biases[0])
        parts.append([gradient.mul_(step).sum(1), bend.mul_(step).sum(1), turn, *biases])
    along, bend, turn, *biases = parts[0] if len(parts) == 1 else map(torch.cat, zip(*parts, strict=True))
    return Steps(Rows(factors, *biases), along, bend, turn)


def step_lengths(steps, squares):
    """The minimum of the objective along steps, (n,); ``squares`` are summed over a row's ratings, of the scores' moves."""
    return (steps.slope / (squares + steps.bend).clamp_min(1e-30)).clamp_max(LONGEST_STEP)


def half_step(frame, pairs, own, other, rating, weight, noise, constant):
    """Move rows, in place, by all that a half-step of the squared error is, in one call of the compiled kernels.

    That is ``error_sums``, ``newton_steps``, ``square_sums`` and ``step_lengths``, to rounding. What is read of the other side's
    rows for a row is then in the cache when it is read again, and nothing is kept for a row on the way.

    Parameters
    ----------
    frame : Frame
    pairs : Pairs
        Of the rows.
    own : Informed
        The rows.
    other : Rows
        The other side's.
    rating : Tensor of shape (n_pairs,)
        In the order of the pairs.
    weight : Tensor of shape (n_pairs,) or None
    noise : float
    constant : float
        What is added to all scores.

    Returns
    -------
    Tensor of shape (n,) or None
        The squares of the errors then, summed over a row's ratings. None where the kernels do not serve these: nothing is done.
    """
    rows, prior, count = own
    (n, k), width = rows.factors.shape, prior.shape[1]
    served = (
        k in kernels.WIDTHS
        and kernels.serve(pairs, rows.factors, other.factors, of_pairs=[rating, weight], of_columns=[other.biases])
        and _served(frame, own, *other, rating, weight)
    )
    if not served:
        return None
    errors, sizes = rating.new_empty(n), [k // 8, pairs.n_pairs, width, prior.stride(0)]
    numbers = count.new_tensor([noise, constant, LONGEST_STEP])
    given = [pairs.pointers, pairs.columns, *rows, *other, rating, weight, prior, count, frame.table, numbers]
    kernels.call_on_rows("half_step", n, sizes, given, [errors], work=2 * k * pairs.n_pairs)
    return errors


def row_moments(rows, reference, count, frame=None, noise=1.0):
    """Sum over rows their products and their posterior variances, without weights and with their numbers of ratings.

    Parameters
    ----------
    rows : Rows
    reference : Tensor of shape (width,)
        What is taken from the rows first: near their mean, so that little is rounded.
    count : Tensor of shape (n, 1)
    frame : Frame, optional
        Without one the variances are left out.
    noise : float, default=1.0

    Returns
    -------
    square, weighted : Tensor of shape (width + 1, width + 1), float64
        The products of the rows less the reference, a one after them, with themselves.
    variance, weighted_variance : Tensor of shape (width,), float64
        Posterior variances along the basis in units of the prior's.
    """
    (n, k), width = rows.factors.shape, len(reference)
    if kernels.serve_rows(width, *rows, reference, count) and rows.factors.is_contiguous():
        filled = -(-(width + 1) // MOMENTS) * MOMENTS
        sizes = [(width + 1) * filled] * 2 + [width] * 2
        found = reference.new_zeros(max(-(-n // PART), 1), sum(sizes))
        curvature = torch.zeros_like(reference) if frame is None else frame.L
        given = [*rows, reference, count, curvature, count.new_tensor([noise])]
        kernels.call_on_rows("moments", n, [width, k], given, [found])
        square, weighted, *variances = found.sum(0, dtype=torch.float64).split(sizes)
        moments = [part.view(-1, filled)[:, : width + 1] for part in (square, weighted)]
        return moments if frame is None else [*moments, *variances]
    sums = []
    for some in cut_rows(0, n):
        own, own_count = rows.some(some), count[some]
        Y = with_one(own.whole() - reference)
        of_rows = [] if frame is None else variance_sums(own_count, frame.L, noise)
        sums.append([(Y.T @ Y).double(), ((Y * own_count).T @ Y).double(), *of_rows])
    return sums[0] if len(sums) == 1 else [sum(parts) for parts in zip(*sums, strict=True)]


def with_one(rows):
    """Rows (n, width) followed by a one: (n, width + 1)."""
    return F.pad(rows, (0, 1), value=1.0)


def variance_sums(count, L, noise, mean_variance=None):
    """Summed over rows and over their ratings, the posterior variances along the basis in units of the prior's: (width,) each.

    ``mean_variance`` (n, width) is that of the prior means, which the first term takes for known.
    """
    of_row = of_rating = (count * L).add_(noise).reciprocal_().mul_(noise)
    if mean_variance is not None:
        of_rating = of_row + of_row.square() * mean_variance
        of_row = of_row + (1 - of_row).square() * mean_variance
    return [of_row.sum(0).double(), (count.T @ of_rating)[0].double()]


def _served(frame, own, *others):
    """Whether the compiled kernels serve rows, and other arrays or None, which are to be contiguous."""
    rows, prior, count = own
    arrays = *rows, count, *others
    return (
        kernels.serve_rows(prior.shape[1], frame.table, prior, *arrays)
        and prior.stride(1) == 1
        and all(array is None or array.is_contiguous() for array in arrays)
    )
