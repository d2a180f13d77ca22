"""The ranking losses over all positives, with negatives drawn or in expectation; fitted, and folded in. Knows no estimator."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sk_torchmf.nn import NegativeSampler, Pairs, RankingLoss, pair_dot
from sk_torchmf.solvers.base import run
from sk_torchmf.solvers.cosine_softmax import CosineSoftmax
from sk_torchmf.solvers.objective import Ridge
from sk_torchmf.solvers.ranking_descent import Descent

USER_POWER = 0.5  # all of a user's positives together weigh as their number to this power
BLOCK = 2**20  # scores of all items held at once
EXACT = 2**28  # users times items up to which the expectation is exact where a loss has one
FOLD_IN_STEPS = 20


@dataclass(frozen=True)
class RankingObjective:
    r"""What the ranking losses minimise.

    .. math:: \sum_{ui \in R} w_{ui} \, E_j \, \ell(s_{ui}, s_{uj}) + \mathrm{ridge}(X) + \mathrm{ridge}(Y)

    with items j that user u has not. Call it with the rows of both sides; it returns the value, its standard error and the
    gradients.

    Attributes
    ----------
    pairs : Pairs
        The positives, each pair once.
    weight : Tensor of shape (n_pairs,)
        User-major.
    loss : RankingLoss
    ridges : tuple of Ridge
        Of the users and of the items.
    n_negatives : int
        For each positive; of an exact logistic loss the weight of the negatives.
    draw : callable or None
        Takes nothing, returns items of shape (n_pairs, n_negatives), -1 for none. None for the exact expectation.
    share : Tensor of shape (n_items,)
        The chance of an item to be drawn, up to a factor.
    total : Tensor of shape (n_users,)
        The sum of that over what a user has not; > 0.
    n_unobserved : Tensor of shape (n_users,)
        How many items a user has not.
    """

    pairs: Pairs
    weight: Tensor
    loss: RankingLoss
    ridges: tuple[Ridge, Ridge]
    n_negatives: int
    draw: Callable | None
    share: Tensor
    total: Tensor
    n_unobserved: Tensor

    @classmethod
    def build(cls, pairs, weight, loss, means, *, alpha, n_factors, n_negatives, draw, share, total, n_unobserved, typical=None):
        """Gather the parts; ``means`` are the rows that users and items shrink to, the rest NumPy or as the attributes."""
        of_users, of_items = pairs.sums(weight)
        ridges = (
            Ridge.from_counts(of_users, means[0], alpha, n_factors, typical),
            Ridge.from_counts(of_items, means[1], alpha, n_factors),
        )
        known = (torch.from_numpy(np.asarray(values)).to(weight) for values in (share, total, n_unobserved))
        return cls(pairs, weight, loss, ridges, n_negatives, draw, *known)

    def __call__(self, users, items, *, frozen=False):
        """Value and standard error, floats, and the gradients of the users and, unless they are frozen, of the items."""
        users, items = users.detach().requires_grad_(), items.detach().requires_grad_(not frozen)
        rows = (users,) if frozen else (users, items)
        penalty = sum(ridge(side) for ridge, side in zip(self.ridges, rows, strict=False))
        if self.draw is None:
            gradients = torch.autograd.grad(penalty, rows)
            value = self._add_expected(self.loss.expected, users.detach(), items.detach(), *gradients)
            return value + float(penalty.detach()), 0.0, gradients
        values = self._drawn(self.draw(), users, items) * self.weight
        error = float(values.detach().std()) * len(values) ** 0.5 if len(values) > 1 else math.inf
        total = values.sum() + penalty
        return float(total.detach()), error, torch.autograd.grad(total, rows)

    def _drawn(self, negatives, users, items):
        """The loss of each positive with its negatives, items of shape (n_pairs, m), -1 for none: shape (n_pairs,)."""
        m = negatives.shape[1]
        user = self.pairs.users.long()
        pairs = Pairs.from_rows(self.pairs.pointers * m, negatives.clamp_min(0).int().view(-1), len(items))
        scores = pair_dot(users, items, pairs).view(-1, m)
        scores = scores.masked_fill(negatives < 0, -torch.inf)
        return self.loss(pair_dot(users, items, self.pairs), scores, self.n_unobserved[user])

    def _add_expected(self, expected, users, items, to_users, to_items=None):
        """The expected loss, a block of users against all items at a time; its gradients are added to those given."""
        value = 0.0
        for rows, span, block in self.pairs.blocks_of_users(max(1, BLOCK // len(items))):
            scores = (users[rows] @ items.T).requires_grad_()  # (b, n_items)
            pairs = block.users.long(), block.columns.long(), self.weight[span]
            loss = expected(scores, *pairs, self.share, self.total[rows], self.n_unobserved[rows], self.n_negatives)
            slope = torch.autograd.grad(loss, scores)[0]
            to_users[rows].addmm_(slope, items)
            if to_items is not None:
                to_items.addmm_(slope.T, users[rows])
            value += float(loss.detach())
        return value


def user_weights(count, typical):
    """What the positives of users count for, by their weight (n,) and its mean: the loyal do not drown the others."""
    return (typical / count.clamp_min(torch.finfo(count.dtype).tiny)) ** (1 - USER_POWER)


def ranking_solver(
    module,
    pairs,
    weight,
    loss,
    *,
    alpha,
    n_negatives=4,
    popularity=False,
    exact=None,
    temperature=None,
    max_iter=None,
    generator=None,
    begun=None,
):
    """Make the solver that fits positives above what users have not.

    Parameters
    ----------
    module : PlainMF or BiasedMF
        Its parameters are the start; the item biases start at the logarithm of popularity.
    pairs : Pairs
        The positives, each pair once; every user has one, and one that she has not.
    weight : Tensor of shape (n_pairs,)
        User-major, > 0, of mean 1.
    loss : RankingLoss
    alpha : float
        Regularisation.
    n_negatives : int
        Drawn for each positive; of the exact logistic loss the weight of the negatives.
    popularity : bool
        Whether popular items are more often drawn, see ``NegativeSampler``.
    exact : bool, optional
        Take the expectation over all negatives instead of drawing them, for a loss that has it; by default where users times items
        are at most 2**28.
    temperature : float, optional
        Where it is given, the softmax of cosines over it is fitted, see ``CosineSoftmax``: ``alpha`` has no part in that.
    max_iter : int, optional
        See ``Descent``; by default 25 for an exact expectation and 40 otherwise.
    generator : torch.Generator, optional
        A CPU generator: draws the negatives.
    begun : Tensor of shape (n_items,), bool, optional
        Which items' biases start where the module has them.

    Returns
    -------
    Solver
        Its rows are laid out as the module's.
    """
    k = module.user_factors.shape[1]
    sampler = NegativeSampler(pairs.tocsr(), popularity=popularity, generator=generator, device=pairs.device)
    if exact is None:
        exact = temperature is None and loss.expected is not None and math.prod(pairs.shape) <= EXACT
    max_iter = max_iter or (25 if exact and temperature is None else 40)
    user = pairs.users.long()
    own = pairs.sums(weight)[0]
    weight = weight * user_weights(own, own.mean()).to(weight)[user]
    with torch.no_grad():
        users, items = (side.clone() for side in module.rows())  # (n_users, width), (n_items, width)
        means = module.mean_rows(0.0)
    columns = free_columns(k, users.shape[1] > k, loss)
    if users.shape[1] > k:
        biases = popularity_biases(pairs.sums(weight)[1], n_negatives, sampler.share).to(weight)
        means[1][k + 1] = biases.mean()
        items[:, k + 1] = biases if begun is None else torch.where(begun, items[:, k + 1], biases)
    known = {"share": sampler.share, "total": sampler.total, "n_unobserved": sampler.n_unobserved}
    if temperature is not None:
        known = {name: torch.from_numpy(values).to(weight) for name, values in known.items()}
        options = {"n_factors": k, "temperature": temperature, "max_iter": max_iter, "exact": exact, "generator": generator}
        return CosineSoftmax(users, items, pairs, weight, **known, **options)
    objective = RankingObjective.build(
        pairs,
        weight,
        loss,
        means,
        alpha=alpha,
        n_factors=k,
        n_negatives=n_negatives,
        draw=None if exact else lambda: sampler.draw(user, n_negatives),
        **known,
    )
    return Descent(objective, (users, columns[0]), (items, columns[1]), max_iter=max_iter, n_factors=k, generator=generator)


def free_columns(k, biased, loss):
    """Which columns of the users' and of the items' rows are fitted: [P, b_u, 1] and [Q, 1, b_i] where there are biases."""
    users, items = list(range(k)), list(range(k))
    if biased:
        items.append(k + 1)
        if loss.name == "logistic":  # in all others a user's bias cancels
            users.append(k)
    return users, items


def popularity_biases(count, n_negatives, share):
    """The score at which an item that everyone likes as much is as often a positive as a negative, weights (n_items,) in."""
    share = torch.from_numpy(share).to(count)
    drawn = n_negatives * count.sum() * share / share.sum()
    return torch.log((count + 0.5) / (drawn + 0.5))


def fold_in_ranking(pairs, users, items, centre, loss, *, alpha, n_factors, n_negatives, seen, share, item_count, typical):
    """Fit new users to fixed items, in place, by a fixed number of steps: a user's row depends on what is known of her alone.

    Parameters
    ----------
    pairs : Pairs
        What is known of each user, each pair once; every user has one, and one that can be drawn and that she has not.
    users : Tensor of shape (n_rows, width)
        Where to start.
    items : Tensor of shape (n_items, width)
        Rows as the module lays them out.
    centre : Tensor of shape (width,)
        The row that users shrink to.
    loss, alpha, n_factors, n_negatives
        As in ``ranking_solver``; the expectation is exact where the loss has it.
    seen : CSR array of shape (n_rows, n_items)
        The pairs.
    share : ndarray of shape (n_items,)
        The chance of an item to be drawn, up to a factor.
    item_count : ndarray of shape (n_items,)
        Weight of each item's positives in ``fit``.
    typical : float
        Mean weight of a user's positives in ``fit``.

    Notes
    -----
    Where negatives are drawn they depend on the positive's item and the step alone, not on the user's place among others; those
    that she has are left out.
    """
    user, sampler = pairs.users.long(), NegativeSampler(seen)
    own = pairs.sums()[0]
    weight = user_weights(own, typical).to(users)[user]
    chance, generator = torch.from_numpy(share), torch.Generator("cpu").manual_seed(0)

    def draw():
        table = torch.multinomial(chance, len(share) * n_negatives, replacement=True, generator=generator)
        drawn = table.view(-1, n_negatives)[pairs.columns.long().cpu()]  # (n_pairs, n_negatives)
        places = sampler.find_seen(user.cpu().repeat_interleave(n_negatives), drawn.view(-1))
        drawn.view(-1)[places] = -1
        return drawn.to(users.device)

    known = (share > 0).astype(np.float64)
    objective = RankingObjective.build(
        pairs,
        weight,
        loss,
        (centre, items[0]),
        alpha=alpha,
        n_factors=n_factors,
        n_negatives=n_negatives,
        draw=None if loss.expected is not None else draw,
        share=share,
        total=share.sum() - seen @ share,
        n_unobserved=known.sum() - seen @ known,
        typical=typical,
    )
    columns = free_columns(n_factors, items.shape[1] > n_factors, loss)[0]
    counts = pairs.sums(weight)[0], torch.from_numpy(item_count).to(items.device)
    descent = Descent(objective, (users, columns), (items, []), max_iter=FOLD_IN_STEPS, counts=counts, adaptive=False)
    run(descent, max_iter=FOLD_IN_STEPS)
    return users
