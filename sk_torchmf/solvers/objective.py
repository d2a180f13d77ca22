"""The one objective of every explicit model: loss of the observed pairs plus a ridge on each row. Knows tensors only."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from sk_torchmf.model.factors import Factors
from sk_torchmf.nn import Pairs

POWER = 0.75  # how a row's ridge grows with its number of ratings: between constant (0) and the weighted-lambda rule (1)
FACTOR_OFFSET = 10.0  # a factor row's ridge at zero ratings, in alpha
BIAS_OFFSET = 30.0  # a bias's ridge, in alpha, whatever the number of ratings

MIN_RIDGE = 1e-6  # of a fold-in, so that a row without ratings is defined at alpha = 0


@dataclass(frozen=True)
class Ridge:
    r"""Penalty :math:`\sum_r (x_r - m)^\top \mathrm{diag}(\lambda_0 + c_r^g \lambda_1) (x_r - m)` of one side's rows.

    Attributes
    ----------
    mean : Tensor of shape (width,)
        The row m that rows shrink to.
    constant, growth : Tensor of shape (width,)
        :math:`\lambda_0` and :math:`\lambda_1` by column.
    share : Tensor of shape (n_rows, 2)
        How much of each of the two counts for a row: 1 and :math:`c_r^g`, or a block's part of them.
    """

    mean: Tensor
    constant: Tensor
    growth: Tensor
    share: Tensor

    @classmethod
    def from_counts(cls, count, mean, alpha, n_factors, typical=None):
        """The ridge ``alpha (10 + c^g mean(c)^(1-g))`` of factors and ``30 alpha`` of a bias, counts of shape (n_rows,).

        ``typical`` stands for mean(c), by default that of the rows with a count.
        """
        if typical is None:
            typical = float(count[count > 0].mean())
        constant, growth = torch.zeros_like(mean), torch.zeros_like(mean)
        constant[:n_factors] = FACTOR_OFFSET * alpha
        growth[:n_factors] = alpha * typical ** (1 - POWER)
        constant[n_factors:] = BIAS_OFFSET * alpha  # the column of ones never leaves its mean
        share = torch.stack([torch.ones_like(count), count**POWER], 1).to(mean.dtype)
        return cls(mean, constant, growth, share)

    def __call__(self, rows):
        square = (rows - self.mean).square()
        return (torch.stack([square @ self.constant, square @ self.growth], 1) * self.share).sum()

    def prior(self, mean):
        """The same penalty about a row ``mean`` of shape (width,), as NumPy (3, width, width) and (3, width): see RowPrior."""
        width = len(mean)
        precision = np.zeros((3, width, width))
        for j, diagonal in enumerate((self.constant, self.growth)):
            np.fill_diagonal(precision[j], diagonal[:width].cpu().numpy())
        precision[0] += MIN_RIDGE * np.eye(width)
        return precision, precision @ np.asarray(mean, dtype=np.float64)


@dataclass(frozen=True)
class Objective:
    r"""What the point-estimate solvers minimise.

    .. math:: \sum_{ui} w_{ui} \, \ell(s_{ui}, r_{ui}) + \mathrm{ridge}(P) + \mathrm{ridge}(Q)

    Call it with a module that has ``forward_pairs(pairs)`` and ``rows()``; it returns the value as a scalar tensor.

    Attributes
    ----------
    pairs : Pairs
    rating : Tensor of shape (n_pairs,)
        Standardised ratings, user-major.
    weight : Tensor of shape (n_pairs,) or None
        Observation weights, user-major.
    loss : callable
        ``(score, rating) -> `` loss of each pair.
    ridges : tuple of Ridge
        Of the users and of the items.
    """

    pairs: Pairs
    rating: Tensor
    weight: Tensor | None
    loss: Callable
    ridges: tuple[Ridge, Ridge]

    @classmethod
    def build(cls, module, pairs, rating, weight, loss, *, alpha, mean):
        """Gather the parts for a built-in module whose scores start at ``mean``."""
        n_factors = module.user_factors.shape[1]
        ridges = tuple(
            Ridge.from_counts(count, row.detach(), alpha, n_factors)
            for count, row in zip(pairs.sums(weight), module.mean_rows(mean), strict=True)
        )
        return cls(pairs, rating, weight, loss, ridges)

    def __call__(self, module):
        value = self.loss(module.forward_pairs(self.pairs), self.rating)
        total = value.sum() if self.weight is None else torch.dot(value, self.weight)
        return total + sum(ridge(rows) for ridge, rows in zip(self.ridges, module.rows(), strict=True))

    def solution(self, module):
        """The Factors of a module that minimises it; their prior is the ridge about the mean user."""
        factors = Factors.from_module(module)
        rows = (
            factors.users.factors
            if factors.users.biases is None
            else np.column_stack([factors.users.factors, factors.users.biases])
        )
        return replace(factors, prior=self.ridges[0].prior(rows.mean(0)))

    def blocks(self, size):
        """Cut into objectives of whole users, about ``size`` pairs each, that sum to this one.

        Returns
        -------
        list of (slice, Objective)
            The block's users and its objective, to be called with ``module.block(users)``. The ridge of an item is shared out by
            the weight of its ratings in each block.
        """
        users, items = self.ridges
        item_count = self.pairs.sums(self.weight)[1]
        parts, blocks = [], list(self.pairs.blocks(size))
        for rows, span, pairs in blocks:
            weight = None if self.weight is None else self.weight[span]
            part = torch.where(item_count > 0, pairs.sums(weight)[1] / item_count, 1 / len(blocks)).to(items.share.dtype)
            ridges = replace(users, share=users.share[rows]), replace(items, share=items.share * part[:, None])
            parts.append((rows, Objective(pairs, self.rating[span], weight, self.loss, ridges)))
        return parts
