"""The one objective of every explicit model: loss of the observed pairs plus a ridge on each row. Knows tensors only."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from sk_torchmf.model.factors import Factors
from sk_torchmf.nn import Plan
from sk_torchmf.solvers.row_regression import RowRegression, about_features, regressions_of, with_weights

POWER = 0.75  # how a row's ridge grows with its number of ratings: between constant (0) and the weighted-lambda rule (1)
FACTOR_OFFSET = 10.0  # a factor row's ridge at zero ratings, in alpha
BIAS_OFFSET = 30.0  # a bias's ridge, in alpha, whatever the number of ratings

BLOCK = 2**20  # pairs that a plan on disk reads at once
MIN_RIDGE = 1e-6  # of a fold-in, so that a row without ratings is defined at alpha = 0


@dataclass(frozen=True)
class Ridge:
    r"""Penalty :math:`\sum_r (x_r - m)^\top \mathrm{diag}(\lambda_0 + c_r^g \lambda_1) (x_r - m)` of one side's rows.

    Attributes
    ----------
    mean : Tensor of shape (width,) or (n_rows, width)
        The row m that rows shrink to; each its own where they have features.
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
    def from_counts(cls, count, mean, alpha, n_factors, typical):
        """The ridge ``alpha (10 + c^g typical^(1-g))`` of factors and ``30 alpha`` of a bias, counts c of shape (n_rows,)."""
        constant, growth = torch.zeros_like(mean), torch.zeros_like(mean)
        constant[:n_factors] = FACTOR_OFFSET * alpha
        growth[:n_factors] = alpha * typical ** (1 - POWER)
        constant[n_factors:] = BIAS_OFFSET * alpha  # the column of ones never leaves its mean
        share = torch.stack([torch.ones_like(count), count**POWER], 1).to(mean.dtype)
        return cls(mean, constant, growth, share)

    @classmethod
    def of_sides(cls, plan, weight, means, alpha, n_factors, typical=None):
        """The ridges of users and items about the rows ``means``, with the sums of the pairs' weights for counts.

        What is typical of the users is by default the mean count of those that have any, as it always is of the items.
        """
        of_users, of_items = plan.sums(weight)
        if typical is None:
            counts, n = plan.total_over_users(lambda some: _sum_and_number(of_users[some]))
            typical = counts / n
        counts, n = _sum_and_number(of_items)
        return (
            cls.from_counts(of_users, means[0], alpha, n_factors, typical),
            cls.from_counts(of_items, means[1], alpha, n_factors, counts / n),
        )

    def differentiate(self, rows):
        """The penalty, a scalar tensor, and its gradient, of the shape of the rows."""
        rows = rows.detach().requires_grad_()
        value = self(rows)
        return value.detach(), torch.autograd.grad(value, rows)[0]

    def part(self, rows):
        """The penalty of a slice of the rows."""
        mean = self.mean if self.mean.ndim == 1 else self.mean[rows]
        return replace(self, mean=mean, share=self.share[rows])

    def weight(self):
        """How much each number of the rows' deviations weighs: (n_rows, width)."""
        return self.share @ torch.stack([self.constant, self.growth])

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


def _sum_and_number(count):
    """Of the counts above zero."""
    known = count[count > 0]
    return float(known.sum()), len(known)


@dataclass(frozen=True)
class Objective:
    r"""What the point-estimate solvers minimise.

    .. math:: \sum_{ui} w_{ui} \, \ell(s_{ui}, r_{ui}) + \mathrm{ridge}(P) + \mathrm{ridge}(Q)

    The rows of a side that has features shrink to what these say, and the ridge is that of the coefficients too, see
    ``RowRegression``. It lies in the objective and is improved by ``regress``; for all else coefficients are constants.

    Call it with a PlainMF or BiasedMF; it returns the value as a scalar tensor. Autograd differentiates that where there is one
    process and the plan has one block, ``gradients`` in any case.

    Attributes
    ----------
    plan : Plan
    rating : Tensor of shape (n_pairs,)
        Standardised ratings, user-major. Of a plan that does not keep its blocks, whatever gives the tensor of a block by its span.
    weight : Tensor of shape (n_pairs,) or None
        Observation weights, user-major; likewise.
    loss : callable
        ``(score, rating) -> `` loss of each pair.
    ridges : tuple of Ridge
        Of the users and of the items.
    regressions : dict of str to RowRegression
        Those of the sides that have features, by ``"user"`` and ``"item"``.
    """

    plan: Plan
    rating: Tensor
    weight: Tensor | None
    loss: Callable
    ridges: tuple[Ridge, Ridge]
    regressions: dict[str, RowRegression] = field(default_factory=dict)

    @classmethod
    def build(cls, module, plan, rating, weight, loss, *, alpha, mean, features=None):
        """Gather the parts for a built-in module whose scores start at ``mean``; ``features`` are SideFeatures or None."""
        n_factors = module.user_factors.shape[1]
        plan = plan if plan.keeps_blocks else plan.cut(max_pairs=BLOCK)
        means = [row.detach() for row in module.mean_rows(mean)]
        ridges = Ridge.of_sides(plan, weight, means, alpha, n_factors)
        regressions = regressions_of(features, plan, ridges)
        return cls(plan, rating, weight, loss, about_features(ridges, regressions), regressions)

    def __call__(self, module):
        for part, rows, span, block in self.parts(module):
            self.plan.add(*self._of_block(part, rows, span, block))
        value, of_users = self.plan.total()
        return self.plan.agreed(value + (of_users + self.ridges[1](module.rows()[1])) + self._penalty())[0]

    def gradients(self, module):
        """Differentiate.

        Parameters
        ----------
        module : PlainMF or BiasedMF

        Returns
        -------
        value : Tensor of shape ()
        gradients : dict of str to Tensor
            By the names of the parameters. Those of the users are complete in a block; those of the items are summed over blocks
            and processes before the ridge is added, which an item has once.
        """
        items = {name: parameter for name, parameter in module.named_parameters() if name.startswith("item_")}
        of_blocks = []
        for part, rows, span, block in self.parts(module):
            values = self._of_block(part, rows, span, block)
            names, parameters = zip(*part.named_parameters(), strict=True)
            found = dict(zip(names, torch.autograd.grad(values[0] + values[1], parameters), strict=True))
            self.plan.add(*(value.detach() for value in values), *(found.pop(name) for name in items))
            of_blocks.append(found)
        value, of_users, *sums = self.plan.total()
        of_items = self.ridges[1](module.rows()[1])
        gradients = {name: torch.cat([found[name] for found in of_blocks]) for name in of_blocks[0]}
        for name, total, own in zip(items, sums, torch.autograd.grad(of_items, list(items.values())), strict=True):
            gradients[name] = total + own
        return self.plan.agreed(value + (of_users + of_items.detach()) + self._penalty())[0], gradients

    def parts(self, module):
        """Go through the plan's blocks, each with the module of its users: itself where there is one block."""
        for rows, span, block in self.plan:
            yield (module if len(self.plan) == 1 else module.block(rows)), rows, span, block

    def _of_block(self, part, rows, span, block):
        """The loss of a block's pairs, and the ridge of its users."""
        value = self.loss(part.forward_pairs(block), self.rating[span])
        total = value.sum() if self.weight is None else (value * self.weight[span]).sum()  # not by dot, which rounds by the place
        return total, self.ridges[0].part(rows)(part.rows()[0])

    def _penalty(self):
        """The ridge of the coefficients."""
        return sum(own.penalty() for own in self.regressions.values())

    def regress(self, module, *roles):
        """Bring the coefficients of the sides nearer to what is best for a module's rows, by default of both; in place."""
        with torch.no_grad():
            for role, rows in zip(("user", "item"), module.rows(), strict=True):
                if role in self.regressions and role in (roles or ("user", "item")):
                    self.regressions[role].improve(rows)

    def state(self):
        """What changes of the objective in a fit, by name: nothing where there are no features."""
        found = {role: own.coefficients for role, own in self.regressions.items()}
        return {"coefficients": found} if found else {}

    def restore(self, state):
        """Go back to what ``state`` gave."""
        for role, own in self.regressions.items():
            own.restore(state["coefficients"][role])

    def solution(self, module):
        """The Factors of a module that minimises it; their prior is the ridge about the mean user."""
        users, items = (rows.detach() for rows in module.rows())
        factors = Factors.from_module(module, mean_of_users=self.plan.mean_of_users)
        factors = with_weights(factors, self.regressions, users, items, self.plan)
        if factors.users.weights is not None:
            return replace(factors, prior=self.ridges[0].prior(factors.users.weights.own_average))
        rows, biases = factors.users.factors, factors.users.biases
        if biases is not None:
            rows = np.column_stack([rows, biases])
        (total,) = self.plan.total_over_users(lambda some: [torch.from_numpy(rows[some].sum(0))])
        return replace(factors, prior=self.ridges[0].prior(total.numpy() / self.plan.n_users))

    def blocks(self, size):
        """Cut into objectives of whole users, about ``size`` pairs each, that sum to this one.

        Their plans are of this process: a step on one of them is no business of the others.

        Returns
        -------
        BlockObjectives
            By the numbers of the blocks their users, a slice, and their objectives, to be called with ``module.block(users)``. The
            ridge of an item is shared out by the weight of its ratings in each block; that of the coefficients is the first
            block's.
        """
        return BlockObjectives(self, self.plan.cut(max_pairs=size))


class BlockObjectives:
    """The objectives of the blocks of a plan, see ``Objective.blocks``: one at a time where the plan does not keep its blocks.

    Parameters
    ----------
    whole : Objective
    plan : Plan
        Its plan in smaller blocks.

    Attributes
    ----------
    users : list of slice
        Those of each block.
    """

    def __init__(self, whole, plan):
        self.whole, self.plan, self.users = whole, plan, plan.users()
        self.item_count = whole.plan.sums(whole.weight)[1]
        self._kept = [self._of(at) for at in range(len(self))] if plan.keeps_blocks else None

    def __len__(self):
        return len(self.users)

    def __getitem__(self, at):
        return self._of(range(len(self))[at]) if self._kept is None else self._kept[at]

    def _of(self, at):
        whole, (users, items) = self.whole, self.whole.ridges
        rows, span, block = self.plan[at]
        weight = None if whole.weight is None else whole.weight[span]
        share = torch.where(self.item_count > 0, block.sums(weight)[1] / self.item_count, 1 / len(self)).to(items.share.dtype)
        ridges = users.part(rows), replace(items, share=items.share * share[:, None])
        regressions = {} if at else whole.regressions
        return rows, Objective(Plan(block), whole.rating[span], weight, whole.loss, ridges, regressions)
