"""Losses that rank the items a user has above those the user does not have, for drawn negatives or in expectation."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F


def _identity(value):
    return value


@dataclass(frozen=True)
class RankingLoss:
    r"""A loss of positives and of the negatives that are drawn for each of them.

    ``loss(positive, negative, n_unobserved)`` takes the scores of n positives, shape (n,), the scores of m negatives for each,
    shape (n, m), and how many items the user of each positive does not have, shape (n,) or a number. It returns the loss of each
    positive, not reduced. All parameters are attributes too.

    Parameters
    ----------
    name : str
        The name of the loss.
    value : callable
        The function that computes the loss.
    curvature : float
        Largest second derivative along a score of one positive's loss, times the items it moves: what a step must not exceed.
    expected : callable, optional
        ``(scores, user, item, weight, share, total, n_unobserved, n_negatives)`` to the sum over the positives of a block of
        users of their expected loss: from all scores (b, n_items), the positives' rows, columns and weights, each of shape (n,)
        and every pair once, the chance of an item to be drawn up to a factor (n_items,), its sum over what a user has not and
        how many these are, both (b,). None where there is no such form for one pass over the scores.
    alpha : float, default=0.01
        The default regularisation.
    user_bias : bool, default=False
        Whether a user's bias changes the loss. It cancels if only differences between scores of the same user count.
    response : callable, default=identity
        The inverse link: makes a prediction of a score.

    Examples
    --------
    >>> import torch
    >>> from sk_torchmf.nn import RANKING
    >>> RANKING["hinge"](torch.tensor([2.0, 0.0]), torch.tensor([[1.5, 0.5], [0.0, -3.0]]), 10)
    tensor([0.2500, 0.5000])
    """

    name: str
    value: Callable
    curvature: float
    expected: Callable | None = None
    alpha: float = 0.01
    user_bias: bool = False
    response: Callable = _identity

    def __call__(self, positive, negative, n_unobserved):
        return self.value(positive, negative, n_unobserved)

    def __repr__(self):
        return f"<ranking loss {self.name}>"

    def __reduce__(self):  # ours are pickled by name: their functions have none
        return (_named, (self.name,)) if RANKING.get(self.name) is self else super().__reduce__()


def _named(name):
    return RANKING[name]


def _expected_logistic(scores, user, item, weight, share, total, n_unobserved, n_negatives):
    positive = scores[user, item]
    mass = (
        n_negatives / total * torch.zeros_like(total).index_add_(0, user, weight)
    )  # of a user's negatives, spread over the user's share
    negatives = torch.dot(F.softplus(scores) @ share, mass)
    their_own = torch.dot(F.softplus(positive), share[item] * mass[user])  # which are no negatives
    return torch.dot(F.softplus(-positive), weight) + negatives - their_own


def expected_softmax(scores, user, item, weight, share, total, n_unobserved, n_negatives):
    """The softmax loss of all positives of a block of users, see ``RankingLoss.expected``; ``n_negatives`` is not used."""
    positive = scores[user, item]
    others = scores.index_put((user, item), scores.new_tensor(-torch.inf)) + share.log()
    partition = torch.logsumexp(others, 1) + (n_unobserved / total).log()
    return torch.dot(F.softplus(partition[user] - positive), weight)


def _softmax(positive, negative, n_unobserved):
    n_unobserved = torch.as_tensor(n_unobserved, dtype=negative.dtype, device=negative.device)
    ratio = n_unobserved / negative.shape[1]  # how many items each negative stands for
    return F.softplus(torch.logsumexp(negative, 1) + ratio.log() - positive)


ranking_logistic = RankingLoss(
    "logistic",
    value=lambda positive, negative, n_unobserved: F.softplus(-positive) + F.softplus(negative).sum(1),
    curvature=0.7,
    expected=_expected_logistic,
    alpha=0.015,
    user_bias=True,
    response=torch.sigmoid,
)
r"""``log(1 + exp(-s_i)) + sum_j log(1 + exp(s_j))``: logistic regression of positives against m negatives each (Johnson 2014)."""

bpr = RankingLoss(
    "bpr",
    value=lambda positive, negative, n_unobserved: F.softplus(negative - positive[:, None]).mean(1),
    curvature=0.7,
    alpha=0.005,
)
r"""``-log sigmoid(s_i - s_j)``, averaged over the negatives j (Rendle et al. 2009)."""

hinge = RankingLoss(
    "hinge",
    value=lambda positive, negative, n_unobserved: (1 + negative - positive[:, None]).clamp_min(0).mean(1),
    curvature=2.0,
)
r"""``max(0, 1 - s_i + s_j)``, averaged over the negatives j."""

adaptive_hinge = RankingLoss(
    "adaptive_hinge",
    value=lambda positive, negative, n_unobserved: (1 + negative.amax(1) - positive).clamp_min(0),
    curvature=2.0,
    alpha=0.02,
)
r"""``max(0, 1 - s_i + max_j s_j)``: of its negatives a positive meets the one that scores highest (Weston et al. 2011)."""

softmax = RankingLoss("softmax", value=_softmax, curvature=2.0, expected=expected_softmax, alpha=0.1)
r"""``-log exp(s_i) / (exp(s_i) + sum_j exp(s_j))`` over all items j the user has not, estimated from the negatives."""

RANKING = {loss.name: loss for loss in (ranking_logistic, bpr, hinge, adaptive_hinge, softmax)}
"""The losses that rank by the names that ``loss=`` takes: ``logistic``, ``bpr``, ``hinge``, ``adaptive_hinge``, ``softmax``."""
