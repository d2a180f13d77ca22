"""What a half-step does with the rows of a side: where each goes, and what they add up to. Knows tensors only."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sk_torchmf.nn import kernels
from sk_torchmf.nn.plan import cut_rows

TILE = 12  # of kernels.c: what the columns of its matrices are filled up to
PART = 2048  # of kernels.c: rows whose moments are one sum


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
        k, width = uncertainty.shape
        own_factors = M.numpy()[:k]
        to_gradient = uncertainty.numpy()[:, :k] @ own_factors
        square = own_factors.T @ to_gradient
        table = np.zeros((5 * width + 1, -(-width // TILE) * TILE), dtype=str(like.dtype).removeprefix("torch."))
        used = table[:, :width]
        used[:width], used[width : width + k] = M, to_gradient
        pull = uncertainty.numpy()[:, k:].sum(1) @ own_factors  # with the covariance of q with b_i
        if width > k:
            used[width + k] = pull
        used[2 * width : 3 * width], used[3 * width : 4 * width], used[4 * width : 5 * width] = N, np.triu(2 * square), M.T
        used[3 * width + np.arange(width), np.arange(width)] /= 2
        used[5 * width] = L
        kept = torch.from_numpy(table).to(like.device)
        used = kept[:, :width]
        pull = used[width + k] if width > k else used.new_zeros(width)
        blocks = used[2 * width : 3 * width], N, used[5 * width], pull, used[width : width + k], used[3 * width : 4 * width]
        return cls(used[:width], *blocks, kept)


class Steps(NamedTuple):
    """Where rows go in a half-step, and how far.

    Attributes
    ----------
    factors : Tensor of shape (n, n_factors)
        The Newton steps of their factors; rows go the other way.
    biases : Tensor of shape (n,) or None
        Those of their biases; None in a plain model.
    slope : Tensor of shape (n,)
        Half the derivative of the objective along them.
    bend : Tensor of shape (n,)
        Half the second derivative along them, as far as it comes from the other side's uncertainty and from the prior.
    """

    factors: Tensor
    biases: Tensor | None
    slope: Tensor
    bend: Tensor


def gradients(frame, rows, count, slopes, slope):
    """Half the gradients of rows' likelihoods along the basis.

    Parameters
    ----------
    frame : Frame
    rows : Tensor of shape (n, width)
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
    return gradient.addcmul_(count, torch.addmm(frame.pull, rows[:, :k], frame.to_gradient))


def newton_steps(frame, rows, prior, count, slopes, slope, noise):
    r"""Find the Newton steps of rows.

    With the gradient g along the basis, that of the prior included, a step is :math:`g / (c L + s^2)`.

    Parameters
    ----------
    frame : Frame
    rows, prior : Tensor of shape (n, width)
        Their means, and the means of their prior.
    count, slopes, slope
        See ``gradients``.
    noise : float
        :math:`s^2`.

    Returns
    -------
    Steps
    """
    n, k = slopes.shape
    sums = [slopes] if slope is None else [slopes, slope]
    factors = rows.new_empty(n, k)
    if _served(frame.table, rows, prior, count, *sums) and prior.stride(1) == slopes.stride(1) == 1:
        width, of_rows = rows.shape[1], rows.new_empty(3, n)
        biases, along, bend = of_rows
        table, noise = frame.table, torch.tensor([noise])
        matrices = [table, table[3 * width :], table[4 * width :], table[5 * width :]]
        sizes = k, width, prior.stride(0), slopes.stride(0)
        given = [rows, prior, slopes, slope, count, *matrices, noise]
        kernels.call_on_rows("steps", n, sizes, given, [factors, None if slope is None else biases, along, bend], 5 * width**2)
        return Steps(factors, None if slope is None else biases, along, bend)
    parts = []
    for some in cut_rows(0, n):
        own, own_count = rows[some], count[some]
        gradient = gradients(frame, own, own_count, slopes[some], None if slope is None else slope[some])
        gradient.addmm_(own - prior[some], frame.N, alpha=noise)
        step = gradient / (own_count * frame.L).add_(noise)
        torch.mm(step, frame.M[:k].T, out=factors[some])
        bend = (step * noise).addcmul_(own_count, step @ frame.uncertainty)
        parts.append([gradient.mul_(step).sum(1), bend.mul_(step).sum(1), *(step @ bias for bias in frame.M[k:])])
    along, bend, *biases = parts[0] if len(parts) == 1 else map(torch.cat, zip(*parts, strict=True))
    return Steps(factors, biases[0] if biases else None, along, bend)


def row_moments(rows, reference, count, frame, noise):
    """Sum over rows their products and their posterior variances, without weights and with their numbers of ratings.

    Parameters
    ----------
    rows : Tensor of shape (n, width)
    reference : Tensor of shape (width,)
        What is taken from the rows first: near their mean, so that little is rounded.
    count : Tensor of shape (n, 1)
    frame : Frame
    noise : float

    Returns
    -------
    square, weighted : Tensor of shape (width + 1, width + 1)
        The products of the rows less the reference, a one after them, with themselves.
    variance, weighted_variance : Tensor of shape (width,)
        Posterior variances along the basis in units of the prior's.
    """
    if _served(frame.table, rows, reference, count):
        n, width = rows.shape
        sizes = [(width + 1) ** 2, (width + 1) ** 2, width, width]
        found = rows.new_empty(-(-n // PART), sum(sizes))
        given = [rows, reference, count, frame.table[5 * width :], torch.tensor([noise])]
        kernels.call_on_rows("moments", n, [width], given, [found], 2 * width**2)
        square, weighted, *variances = (found[0] if len(found) == 1 else found.sum(0, dtype=torch.float64)).split(sizes)
        return square.view(width + 1, -1), weighted.view(width + 1, -1), *variances
    Y = F.pad(rows - reference, (0, 1), value=1.0)
    return Y.T @ Y, (Y * count).T @ Y, *variance_sums(count, frame.L, noise)


def variance_sums(count, L, noise, doubt=None):
    """Summed over rows and over their ratings, the posterior variances along the basis in units of the prior's: (width,) each.

    ``doubt`` (n, width) is that of the prior means, which the first term takes for known.
    """
    of_row = of_rating = (count * L).add_(noise).reciprocal_().mul_(noise)
    if doubt is not None:
        of_rating = of_row + of_row.square() * doubt
        of_row = of_row + (1 - of_row).square() * doubt
    return [of_row.sum(0).double(), (count.T @ of_rating)[0].double()]


def _served(table, rows, *others):
    """Whether the compiled kernels serve rows; the arrays of one solver go together."""
    return rows.is_contiguous() and kernels.serve_rows(rows.shape[1], table, rows, *others)
