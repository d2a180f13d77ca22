"""Every loss, entered once: by hand in NumPy and as a plain loop, for the contracts that hold whatever the loss."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from sk_torchmf.nn import ranking_logistic


def as_it_is(rating):
    return rating


@dataclass(frozen=True)
class RatingLoss:
    """A loss of ``nn.POINTWISE``.

    Attributes
    ----------
    value, slope, bend : callable
        The loss of scores and ratings, arrays of one shape, and its first and second derivative by the score.
    variance : callable
        The variance of a rating around a prediction that itself has a variance, to first order.
    rated : callable
        Ratings between about 0 and 6 made into some that the loss can mean.
    """

    value: Callable
    slope: Callable
    bend: Callable
    variance: Callable
    rated: Callable = as_it_is


@dataclass(frozen=True)
class RankingLoss:
    """A loss of ``nn.RANKING``.

    Attributes
    ----------
    value : callable
        The loss of one positive with score s, negatives with scores t, of n items that its user has not.
    alpha : float
        Its default regularisation.
    user_bias : bool
        Whether the level of a user's scores says anything.
    smooth : bool
        Whether it has a second derivative everywhere.
    exact : bool
        Whether its expectation over all negatives can be had.
    """

    value: Callable
    alpha: float
    user_bias: bool = False
    smooth: bool = True
    exact: bool = False


RATING_LOSSES = {
    "squared_error": RatingLoss(
        value=lambda s, r: (s - r) ** 2,
        slope=lambda s, r: 2 * (s - r),
        bend=lambda s, r: 2.0 + 0 * s,
        variance=lambda p, v: v,
    ),
    "huber": RatingLoss(
        value=lambda s, r: np.where(abs(s - r) <= 1, (s - r) ** 2, 2 * abs(s - r) - 1),
        slope=lambda s, r: 2 * np.clip(s - r, -1, 1),
        bend=lambda s, r: np.where(abs(s - r) < 1, 2.0, 0.0),
        variance=lambda p, v: v,
    ),
    "poisson": RatingLoss(
        value=lambda s, r: np.exp(s) - r * s,
        slope=lambda s, r: np.exp(s) - r,
        bend=lambda s, r: np.exp(s),
        variance=lambda p, v: p + p**2 * v,  # E[var] + var[E], the mean of variance p^2 v to first order
        rated=lambda rating: np.exp(rating - 2).round(),
    ),
    "logistic": RatingLoss(
        value=lambda s, r: -r * np.log(1 / (1 + np.exp(-s))) - (1 - r) * np.log(1 - 1 / (1 + np.exp(-s))),
        slope=lambda s, r: 1 / (1 + np.exp(-s)) - r,
        bend=lambda s, r: np.exp(-s) / (1 + np.exp(-s)) ** 2,
        variance=lambda p, v: p * (1 - p),
        rated=lambda rating: 1.0 * (rating > 3),
    ),
}


def softplus(x):
    return math.log1p(math.exp(x))


def squared_hinge(positive, negative, n_unobserved):
    """A ranking loss of one's own, in torch."""
    return (1 + negative - positive[:, None]).clamp_min(0).square().mean(1)


RANKING_LOSSES = {
    "logistic": RankingLoss(
        lambda s, t, n: softplus(-s) + sum(softplus(one) for one in t), alpha=0.015, user_bias=True, exact=True
    ),
    "bpr": RankingLoss(lambda s, t, n: sum(-math.log(1 / (1 + math.exp(-(s - one)))) for one in t) / len(t), alpha=0.005),
    "hinge": RankingLoss(lambda s, t, n: sum(max(0.0, 1 - s + one) for one in t) / len(t), alpha=0.01, smooth=False),
    "adaptive_hinge": RankingLoss(lambda s, t, n: max(0.0, 1 - s + max(t)), alpha=0.02, smooth=False),
    "softmax": RankingLoss(
        lambda s, t, n: -math.log(math.exp(s) / (math.exp(s) + n / len(t) * sum(math.exp(one) for one in t))),
        alpha=0.1,
        exact=True,
    ),
}

EXACT = tuple(name for name, loss in RANKING_LOSSES.items() if loss.exact)
COMPARING = tuple(name for name, loss in RANKING_LOSSES.items() if not loss.user_bias)
FOR_A_MODULE = {name: ranking_logistic if name == "logistic" else name for name in RANKING_LOSSES}  # the name is a loss of ratings
every_rating_loss = pytest.mark.parametrize("loss", RATING_LOSSES)
every_ranking_loss = pytest.mark.parametrize("name", RANKING_LOSSES)
every_exact_loss = pytest.mark.parametrize("name", EXACT)
