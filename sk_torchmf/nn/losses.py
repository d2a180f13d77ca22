"""Pointwise losses of explicit ratings: the loss of each pair, the curvature that a second-order step needs, and the link."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

HUBER_DELTA = 1.0
_TINY = 1e-3


def _identity(value):
    return value


@dataclass(frozen=True)
class PointwiseLoss:
    """A loss of one prediction and one rating, with all that a solver and ``predict`` need to know about it.

    ``loss(score, rating)`` takes tensors of shape (n,) and returns the loss of each pair, not reduced. All parameters are
    attributes too.

    Parameters
    ----------
    name : str
        The name of the loss.
    value : callable
        Takes ``(score, rating)`` and returns the loss of each pair.
    curvature : callable
        Takes ``(score, rating)`` and returns an upper bound or another safe value > 0 of the second derivative in the score.
    response : callable, default=identity
        The inverse link: makes a predicted rating of a score.
    link : callable, default=identity
        The link: makes a score of a mean rating.
    standardised : bool, default=True
        Whether ratings are divided by their standard deviation before fitting. Scores on a log or logit scale need no such
        division.
    robust : bool, default=False
        Whether the scale of the ratings is their median absolute deviation from the median instead of the standard deviation.
    dispersion : callable, optional
        Takes ``(score, rating, noise)`` and returns what each pair contributes to the estimate of the noise variance, if that is
        not the loss itself.
    check : callable, default=identity
        Takes the ratings as an array and returns them as the loss needs them coded; raises ValueError if it cannot use them.
    variance : callable, optional
        ``(prediction, score_variance)`` to the variance of a rating about its prediction, without the noise that a solver learns:
        NumPy arrays of one shape, predictions in the units of the ratings, variances in these units squared; a score on a log or
        logit scale has no unit. None where it is not known.

    Examples
    --------
    >>> import torch
    >>> from sk_torchmf.nn import POINTWISE
    >>> loss = POINTWISE["poisson"]
    >>> score, rating = torch.tensor([0.0, 1.0]), torch.tensor([2.0, 0.0])
    >>> loss(score, rating)
    tensor([1.0000, 2.7183])
    >>> loss.slope(score, rating), loss.response(score)
    (tensor([-1.0000,  2.7183]), tensor([1.0000, 2.7183]))
    >>> loss.variance(4.0, 0.25)  # of a count with the mean 4, and of that mean
    8.0
    """

    name: str
    value: Callable
    curvature: Callable
    response: Callable = _identity
    link: Callable = _identity
    standardised: bool = True
    robust: bool = False
    dispersion: Callable | None = None
    check: Callable = _identity
    variance: Callable | None = None

    def __call__(self, score, rating):
        return self.value(score, rating)

    def slope(self, score, rating):
        """Differentiate each pair's loss in its score, by autograd.

        Parameters
        ----------
        score : Tensor of shape (n,)
            Raw scores.
        rating : Tensor of shape (n,)
            Ratings as ``check`` codes them.

        Returns
        -------
        Tensor of shape (n,)
            The derivatives, detached from the graph.
        """
        with torch.enable_grad():
            score = score.detach().requires_grad_()
            return torch.autograd.grad(self.value(score, rating).sum(), score)[0]

    def __repr__(self):
        return f"<loss {self.name}>"

    def __reduce__(self):  # ours are pickled by name: their functions have none
        return (_named, (self.name,)) if POINTWISE.get(self.name) is self else super().__reduce__()


def _named(name):
    return POINTWISE[name]


def _score_variance(prediction, score_variance):
    """Where predictions are scores the one's variance is the other's."""
    return score_variance


def _huber(score, rating):
    error = (score - rating).abs()
    return torch.where(error <= HUBER_DELTA, error.square(), 2 * HUBER_DELTA * error - HUBER_DELTA**2)


def _huber_dispersion(score, rating, noise):
    """The clipped square over its expectation for normal noise, so that an outlier says no more than any other (Huber 1964)."""
    cut = HUBER_DELTA / noise**0.5
    inside = math.erf(cut / 2**0.5)
    expected = inside - cut * (2 / math.pi) ** 0.5 * math.exp(-(cut**2) / 2) + cut**2 * (1 - inside)
    return (score - rating).square().clamp_max(HUBER_DELTA**2) / expected


def _exp(score):
    """A mean count, finite whatever the score: its square, of which the variance is made, is finite in float64."""
    return score.clamp_max(min(300.0, 0.99 * math.log(torch.finfo(score.dtype).max))).exp()


def _check_counts(rating):
    if rating.size and rating.min() < 0:
        raise ValueError(f'loss="poisson" needs ratings >= 0 (counts). Got {rating.min()}.')
    return rating


def _check_binary(rating):
    if rating.size and rating.min() < 0 and np.isin(rating, (-1, 1)).all():
        return (rating + 1) / 2
    if rating.size and (rating.min() < 0 or rating.max() > 1):
        raise ValueError(
            f'loss="logistic" needs ratings between 0 and 1, or all of them -1 or 1. Got {rating.min()} to {rating.max()}.'
        )
    return rating


squared_error = PointwiseLoss(
    "squared_error",
    value=lambda score, rating: (score - rating).square(),
    curvature=lambda score, rating: torch.full_like(score, 2.0),
    variance=_score_variance,
)
"""``(r - s)^2``: Spotlight's regression loss."""

huber = PointwiseLoss(
    "huber",
    value=_huber,
    curvature=lambda score, rating: 2 * HUBER_DELTA / (score - rating).abs().clamp_min(HUBER_DELTA),
    robust=True,
    dispersion=_huber_dispersion,
    variance=_score_variance,
)
"""``(r - s)^2`` up to ``|r - s| = 1``, then ``2 |r - s| - 1`` (Huber 1964); 1 is the ratings' spread about their median."""

poisson = PointwiseLoss(
    "poisson",
    value=lambda score, rating: score.exp() - rating * score,
    curvature=lambda score, rating: torch.maximum(score.exp(), rating).clamp_min(_TINY),
    response=_exp,
    link=lambda mean: torch.log(mean.clamp_min(_TINY)),
    standardised=False,
    check=_check_counts,
    variance=lambda prediction, score_variance: prediction + prediction**2 * score_variance,  # a Poisson variable's, its mean moves
)
"""``exp(s) - r s``: the negative log-likelihood of counts, as Spotlight's poisson loss."""

logistic = PointwiseLoss(
    "logistic",
    value=lambda score, rating: F.softplus(score) - rating * score,
    curvature=lambda score, rating: (torch.sigmoid(score) * torch.sigmoid(-score)).clamp_min(0.01),
    response=torch.sigmoid,
    link=lambda mean: torch.logit(mean, eps=_TINY),
    standardised=False,
    check=_check_binary,
    variance=lambda prediction, score_variance: prediction * (1 - prediction),  # of 0 or 1, whatever is known of its chance
)
"""``log(1 + exp(s)) - r s``: the negative log-likelihood of 0 or 1 (-1 or 1 will do, as in Spotlight)."""

POINTWISE = {loss.name: loss for loss in (squared_error, huber, poisson, logistic)}
"""The losses of ratings by the names that ``loss=`` takes: ``squared_error``, ``huber``, ``poisson``, ``logistic``."""
