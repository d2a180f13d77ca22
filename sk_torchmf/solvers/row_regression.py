"""Ridge regression of one side's rows on their features, beside the ridge of the rows about it. Knows tensors only."""

from dataclasses import replace

import torch

from sk_torchmf.model.feature_weights import FeatureWeights
from sk_torchmf.solvers.design import SEEN, regress
from sk_torchmf.solvers.learned_penalty import learned_penalty
from sk_torchmf.solvers.prior_means import PriorMeans, to_array

SHARED = 2.0  # a coefficient's ridge, in that of the rows which share it on average
ALONE = 15.0  # the least it is, in that of one row: columns of noise are not believed however many there are
FIXED = 1e30  # that of the constant, which stays as it is
LEAST = 1e-6  # where alpha is 0
FIRST = 2  # the iteration, from 0, after which penalties are learned and coefficients leave zero
N_STEPS = 2  # of conjugate gradients at a time; they go on from the last
COLD_STEPS = 30  # likewise, of the regression of finished rows


class RowRegression(PriorMeans):
    r"""The coefficients A of one side's rows on their features, and the ridge of both.

    .. math:: \sum_r (x_r - m - A^\top f_r)^\top \Lambda_r (x_r - m - A^\top f_r) + \sum_j A_j^\top \mathrm{diag}(\rho_g) A_j

    Column 0 of the features is the constant, whose coefficients are m and stay so. A group g of columns on n rows has the
    penalty :math:`\rho_g = \overline{\lvert f \rvert^2 \Lambda} \, \max(2 n / n_g, 15)`, with the mean over the rows and the number
    :math:`n_g` of the columns. Given the rows, A is a ridge regression of each of their columns, with weights. Solvers that
    ``follow`` learn how far to believe a group, which makes its penalty higher, see ``learned_penalty``.

    Parameters
    ----------
    design : Design
        At least one group.
    ridge : Ridge
        Of the rows about m.

    Attributes
    ----------
    ridge : Ridge
        Of the rows about their prior means, which ``improve`` changes in place: those of blocks are views of them.
    weight : Tensor of shape (n_rows, width) or (n_rows, 1)
        :math:`\Lambda`; one column where all have the same ridge.
    precision : Tensor of shape (n_columns, width) or (n_columns, 1)
        :math:`\rho`.
    """

    def __init__(self, design, ridge):
        super().__init__(design, ridge.mean)
        self.ridge = replace(ridge, mean=self.rows)
        alike = all((one == one[0]).all() for one in (ridge.constant, ridge.growth))
        weight = design.product(ridge.share, torch.stack([ridge.constant, ridge.growth]))
        self.weight = weight = weight[:, :1].clone() if alike else weight
        self.observed = ridge.share[:, 1:] > 0  # (n_rows, 1)
        self.precision = weight.new_full((design.n_columns, weight.shape[1]), FIXED)
        n = self.n_in_all
        for name, group in design.groups.items():
            square = group.dot(weight.new_ones(group.n_columns, 1), square=True)  # (n_rows, 1)
            penalty = self.mean(square * weight) * max(SHARED * n / max(group.n_columns, 1), ALONE)
            self.precision[design.slices[name]] = penalty.clamp_min(LEAST)

    def penalty(self):
        """The ridge of the coefficients, a scalar tensor."""
        return (self.precision[1:] * self.coefficients[1:].square()).sum()

    def improve(self, rows):
        """Go some steps towards the best coefficients for rows (n_rows, width): never does the ridge of both rise."""
        B, weight = self.coefficients.clone(), self.weight
        B[0] = 0  # the constant is not drawn to zero
        change, *_ = regress(self.design, B, weight * (rows - self.rows), weight, self.precision, N_STEPS)
        change[0] = 0
        self.restore(self.coefficients + change)

    def follow(self, rows, iteration):
        """Improve after an iteration, with penalties learned from rows (n_rows, width) that know nothing of the features yet.

        Until then the coefficients are zero, and with them their ridge, so that no change of the penalties raises the objective.
        """
        if iteration == FIRST:
            weight = self.weight * self.observed  # the others lie where nothing drew them to
            self.precision.copy_(learned_penalty(self.design, rows - self.rows, weight, self.precision))
        if iteration >= FIRST:
            self.improve(rows)

    def restore(self, coefficients):
        """Take over coefficients (n_columns, width); the rows' prior means follow from them, to the last bit."""
        self.coefficients.copy_(coefficients)
        self.rows.copy_(self.design.dot(self.coefficients))

    def weights(self, rows, moment, own):
        """What was learned, for good: FeatureWeights in the columns' own units.

        Parameters
        ----------
        rows : Tensor of shape (n_rows, width)
        moment : Tensor of shape (width, width)
            The second moment of the other side's rows, whose inner products with these are the scores.
        own : list of int
            Which columns of the rows are factors and bias.

        Notes
        -----
        The objective leaves a part of what features say to the rows' own deviations. A row without observations has none, so what
        it is expected to be is a regression of the finished rows, on features other than what was seen.
        """
        prior, cold = self.coefficients[:, own], regress_finished(self.design, rows, self.weight)
        without_seen, unexplained = self.average({SEEN}), self.covariance_of(rows - self.rows)
        return FeatureWeights(
            constant=to_array(cold.coefficients[0, own]),
            weights=cold.of_columns(cold.coefficients[:, own]),
            own_constant=to_array(prior[0]),
            own_weights=self.of_columns(prior),
            own_average=to_array((self.mean(rows) - (self.average() - without_seen))[own]),
            seen=to_array(prior[self.design.slices[SEEN]]) if SEEN in self.design.groups else None,
            shares=self.shares(moment.double().cpu(), unexplained),
        )


def regress_finished(design, rows, weight):
    """Where rows without observations are expected: a ridge regression of finished rows on all features but what was seen.

    The constant is free, and a coefficient has the ridge of one row. Rows all count alike where none has a weight.

    Parameters
    ----------
    design : Design
    rows, weight : Tensor of shape (n_rows, width)

    Returns
    -------
    PriorMeans
    """
    cold = PriorMeans(design.only([name for name in design.groups if name != SEEN]), torch.zeros_like(rows[0]))
    cold.coefficients[0] = cold.mean(rows)
    cold.refresh()
    if cold.design.groups:
        weight = weight if (weight > 0).any() else torch.ones_like(weight)
        precision = cold.mean(weight).clamp_min(LEAST).repeat(cold.design.n_columns, 1)
        precision[0] = LEAST
        excess, nothing = weight * (rows - cold.rows), torch.zeros_like(cold.coefficients)
        cold.coefficients += regress(cold.design, nothing, excess, weight, precision, COLD_STEPS)[0]
        cold.refresh()
    return cold


def own_columns(n_factors, biased):
    """Which columns of rows, as a module lays them out, are factors and bias: of the users' and of the items'."""
    factors = list(range(n_factors))
    return ([*factors, n_factors], [*factors, n_factors + 1]) if biased else (factors, factors)


def regressions_of(features, plan, ridges):
    """The RowRegression of each side that has features, by ``"user"`` and ``"item"``; none where ``features`` is None."""
    if features is None:
        return {}
    designs = features.designs(plan, ridges[0].mean)
    sides = zip(("user", "item"), designs, ridges, strict=True)
    return {role: RowRegression(design, ridge) for role, design, ridge in sides if design.groups}


def about_features(ridges, regressions):
    """The ridges of users and items, about what features say on the sides that have any."""
    users, items = ridges
    return (
        regressions["user"].ridge if "user" in regressions else users,
        regressions["item"].ridge if "item" in regressions else items,
    )


def with_weights(factors, regressions, users, items, plan):
    """Factors of rows as a module lays them out, with what was learned of their features.

    Parameters
    ----------
    factors : Factors
    regressions : dict of str to RowRegression
    users, items : Tensor of shape (n_users, width) and (n_items, width)
    plan : Plan
    """
    columns = own_columns(factors.n_factors, factors.biased)
    if "user" in regressions:
        weights = regressions["user"].weights(users, items.T @ items / len(items), columns[0])
        factors = replace(factors, users=replace(factors.users, weights=weights))
    if "item" in regressions:
        (moment,) = plan.total_over_users(lambda some: [users[some].T @ users[some]])
        weights = regressions["item"].weights(items, moment / plan.n_users, columns[1])
        factors = replace(factors, items=replace(factors.items, weights=weights))
    return factors
