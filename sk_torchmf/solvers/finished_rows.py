"""What features say of the rows of a finished factorization, whose solver knows none. Knows no estimator."""

from dataclasses import replace

import numpy as np
import torch

from sk_torchmf.model.feature_weights import FeatureWeights
from sk_torchmf.solvers.objective import Ridge
from sk_torchmf.solvers.prior_means import to_array
from sk_torchmf.solvers.row_regression import regress_finished


def with_regressed_weights(factors, features, plan):
    """The same rows, and on each side that has features a ridge regression of its rows on these, for rows that are yet to come.

    A row counts as much as ``BiasedMatrixFactorization`` shrinks it: the more, the more it was observed.

    Parameters
    ----------
    factors : Factors
        Of the users and items of the plan.
    features : SideFeatures
        Of the same; without what was seen.
    plan : Plan

    Returns
    -------
    Factors
    """
    if not features.users and not features.items:
        return factors
    sides = [factors.users, factors.items]
    rows = [torch.from_numpy(_with_biases(side, side.biases)).to(plan.device) for side in sides]
    others = [torch.from_numpy(_with_biases(side, 1.0)).to(plan.device) for side in sides[::-1]]
    designs, numbers = features.designs(plan, rows[0]), (plan.n_users, plan.n_items)
    ridges = Ridge.of_sides(plan, None, [torch.zeros_like(own[0]) for own in rows], 1.0, factors.n_factors)
    for at, design in enumerate(designs):
        if not design.groups:
            continue
        means = regress_finished(design, rows[at], ridges[at].weight())
        (moment,) = designs[1 - at].total(lambda some, other=others[at]: [other[some].T @ other[some]])
        shares = means.shares(moment.double().cpu() / numbers[1 - at], means.covariance_of(rows[at] - means.rows))
        weights, mean = means.of_columns(means.coefficients), to_array(means.mean(rows[at]))
        weights = FeatureWeights(to_array(means.coefficients[0]), weights, mean, np.zeros_like(weights), mean, shares=shares)
        sides[at] = replace(sides[at], weights=weights)
    return replace(factors, users=sides[0], items=sides[1])


def _with_biases(side, biases):
    """The factors of a side and, where it has biases, a column of these, or of what stands for them."""
    if side.biases is None:
        return side.factors
    column = np.broadcast_to(np.asarray(biases, dtype=side.factors.dtype), len(side))
    return np.column_stack([side.factors, column])
