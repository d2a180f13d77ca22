"""The ranking losses over all positives, with negatives drawn or in expectation, and what descends them. Knows no estimator."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from sk_torchmf.exceptions import DivergenceError
from sk_torchmf.model.factors import Factors
from sk_torchmf.nn import NegativeSampler, Pairs, Plan, RankingLoss, pair_dot
from sk_torchmf.solvers.base import PATIENCE, Solver, copy_state
from sk_torchmf.solvers.objective import Ridge
from sk_torchmf.solvers.row_regression import RowRegression, about_features, regressions_of, with_weights

BLOCK = 2**20  # scores of all items held at once
EXACT = 2**28  # users times items up to which the expectation is exact where a loss has one
USER_POWER = 0.5  # all of a user's positives together weigh as their number to this power

MOMENTUM = 0.5
DAMPING = 1.0  # of a row, in positives
GROWTH = 1.2  # of steps, while the objective falls
RISE = 1.01  # a step after which the objective is that many times its lowest is taken back
LONGEST = 1.0  # change of a row's scores in a step
NOISE = 3.0  # standard errors by which a drawn objective may seem to rise
ROLES = "user", "item"
COURSE = ("iteration", "length", "last", "lowest", "falls")  # of a descent: what steers its steps


@dataclass(frozen=True)
class RankingObjective:
    r"""What the ranking losses minimise.

    .. math:: \sum_{ui \in R} w_{ui} \, E_j \, \ell(s_{ui}, s_{uj}) + \mathrm{ridge}(X) + \mathrm{ridge}(Y)

    with items j that user u has not. Call it with the rows of both sides; it returns the value, its standard error and the
    gradients. The rows of a side that has features shrink to what these say, and the ridge is that of the coefficients too, see
    ``RowRegression``; for the gradients these are constants.

    Attributes
    ----------
    plan : Plan
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
    regressions : dict of str to RowRegression
        Those of the sides that have features, by ``"user"`` and ``"item"``.
    """

    plan: Plan
    weight: Tensor
    loss: RankingLoss
    ridges: tuple[Ridge, Ridge]
    n_negatives: int
    draw: Callable | None
    share: Tensor
    total: Tensor
    n_unobserved: Tensor
    regressions: dict[str, RowRegression] = field(default_factory=dict)

    @classmethod
    def build(
        cls,
        plan,
        weight,
        loss,
        means,
        *,
        alpha,
        n_factors,
        n_negatives,
        draw,
        share,
        total,
        n_unobserved,
        typical=None,
        features=None,
    ):
        """Gather the parts.

        ``means`` are the rows that users and items without features shrink to, ``features`` are SideFeatures or None, the rest is
        NumPy or as the attributes.
        """
        ridges = Ridge.of_sides(plan, weight, means, alpha, n_factors, typical)
        regressions = regressions_of(features, plan, ridges)
        share, total, n_unobserved = (torch.from_numpy(np.asarray(values)).to(weight) for values in (share, total, n_unobserved))
        ridges = about_features(ridges, regressions)
        return cls(plan, weight, loss, ridges, n_negatives, draw, share, total, n_unobserved, regressions)

    def __call__(self, users, items, *, frozen=False):
        """Value and standard error, floats, and the gradients of the users and, unless they are frozen, of the items."""
        users, items = users.detach(), items.detach()
        slopes = []
        for rows, _, _ in self.plan:
            penalty, slope = self.ridges[0].part(rows).differentiate(users[rows])
            slopes.append(slope)
            self.plan.add(penalty)
        (of_users,), to_users = self.plan.total(), torch.cat(slopes)
        if self.draw is None:
            value, error, sums = self._add_expected(self.loss.expected, users, items, to_users, frozen)
        else:
            value, error, sums = self._add_drawn(self.draw(), users, items, to_users, frozen)
        if frozen:
            return float(value + of_users), error, (to_users,)
        of_items, to_items = self.ridges[1].differentiate(items)
        value = value + (of_users + of_items) + sum(own.penalty() for own in self.regressions.values())
        return float(value), error, (to_users, sums[0] + to_items)

    def _add_drawn(self, negatives, users, items, to_users, frozen):
        """The loss with drawn negatives, its standard error and the items' gradient; the users' is added to the one given."""
        m = negatives.shape[1]  # of each pair, -1 for none
        for rows, span, block in self.plan:
            own = negatives[span]
            drawn = Pairs.from_rows(block.pointers * m, own.clamp_min(0).int().view(-1), len(items))
            p, q = users[rows].requires_grad_(), items.clone().requires_grad_(not frozen)
            scores = pair_dot(p, q, drawn).view(-1, m).masked_fill(own < 0, -torch.inf)
            n_unobserved = self.n_unobserved[rows][block.users.long()]
            values = self.loss(pair_dot(p, q, block), scores, n_unobserved) * self.weight[span]
            value = values.sum()
            slopes = torch.autograd.grad(value, (p,) if frozen else (p, q))
            to_users[rows] += slopes[0]
            each = values.detach().double()
            self.plan.add(value.detach(), len(each), float(each.sum()), float(each.square().sum()), *slopes[1:])
        value, n, total, square, *sums = self.plan.total()
        variance = max(square - total**2 / n, 0.0) / (n - 1) if n > 1 else math.inf
        return value, (n * variance) ** 0.5, sums

    def _add_expected(self, expected, users, items, to_users, frozen):
        """The same for the expected loss, a block of users against all items at a time; its error is 0."""
        for rows, span, block in self._small:
            scores = (users[rows] @ items.T).requires_grad_()  # (b, n_items)
            pairs = block.users.long(), block.columns.long(), self.weight[span]
            loss = expected(scores, *pairs, self.share, self.total[rows], self.n_unobserved[rows], self.n_negatives)
            slope = torch.autograd.grad(loss, scores)[0]
            to_users[rows].addmm_(slope, items)
            self._small.add(loss.detach().double(), *(() if frozen else (slope.T @ users[rows],)))
        value, *sums = self._small.total()
        return value, 0.0, sums

    @cached_property
    def _small(self):
        """The plan in blocks of users whose scores of all items are held at once."""
        return self.plan.cut(max_users=max(1, BLOCK // self.plan.n_items))


@dataclass
class Side:
    """One side's rows on their way down.

    Attributes
    ----------
    rows : Tensor of shape (n, width)
        Moved in place.
    free : list of int
        The columns that move.
    count : Tensor of shape (n, 1)
        Weight of each row's positives.
    ridge : Ridge
    """

    rows: Tensor
    free: list
    count: Tensor
    ridge: Ridge

    def __post_init__(self):
        self.velocity = torch.zeros_like(self.rows[:, self.free])
        constant, growth = self.ridge.constant[0], self.ridge.growth[0]
        self.stiffness = 2 * self.ridge.share @ torch.stack([constant, growth])[:, None]  # (n, 1): the ridge's second derivative

    def step(self, gradient, shared, curvature, length):
        """Turn the velocity by a gradient (n, width), the other side's rows having the second moments ``shared`` over the pairs."""
        spectrum, basis = torch.linalg.eigh(shared)
        bend = DAMPING + self.stiffness + self.count * (curvature * spectrum.clamp_min(0))
        step = gradient[:, self.free] @ basis / bend
        change = (step.square() @ spectrum.clamp_min(0)[:, None]).sqrt()  # (n, 1): of the row's scores, in the mean square
        step *= LONGEST / change.clamp_min(LONGEST)
        self.velocity.mul_(MOMENTUM).add_(step @ basis.T, alpha=length)

    def move(self):
        self.rows[:, self.free] -= self.velocity


class Descent(Solver):
    r"""Move rows down an objective, in place.

    Parameters
    ----------
    objective : RankingObjective
    users, items : tuple of (Tensor of shape (n, width), list of int)
        Rows, and which of their columns move; without any for the items these are held fixed.
    max_iter : int
        Steps there will be: those of a drawn objective shrink towards the last.
    n_factors : int, optional
        How many columns of the rows are factors; by default all.
    counts : tuple of Tensor of shape (n_users,) and (n_items,), optional
        Weights of the rows' positives; by default those of the objective.
    adaptive : bool
        Whether the steps' length follows the objective. If not, and items are fixed, a row depends on its user's positives alone.
    generator : torch.Generator, optional
        What the objective draws from: a part of the state.

    Raises
    ------
    DivergenceError
        Where the objective is not finite from the start.

    Notes
    -----
    Row u moves by :math:`(1 + \rho_u + c_u h S)^{-1}` times its gradient, with the ridge :math:`\rho_u`, the weight :math:`c_u` of
    its positives, the loss's largest curvature h and the mean S of the outer products of the other side's rows: one
    eigendecomposition for all rows. No step changes a row's scores by more than 1, in the root of the mean square. Steps are halved
    where the objective rises and lengthened again while it falls; one after which it is 1 % above its lowest is taken back. Those
    of a drawn objective shrink too, so that the noise of the draws averages out. Where a side has features, the first two steps are
    without, and after the third it is learned from the rows how far to believe each group. The loss of an epoch is the objective at
    its start.
    """

    def __init__(self, objective, users, items, *, max_iter, n_factors=None, counts=None, adaptive=True, generator=None):
        plan = objective.plan
        counts = plan.sums(objective.weight) if counts is None else counts
        user_count, item_count = (count.to(users[0])[:, None] for count in counts)
        (user_rows, self.user_columns), (item_rows, self.item_columns) = users, items
        self.objective, self.max_iter, self.adaptive, self.generator = objective, max_iter, adaptive, generator
        self.n_factors = user_rows.shape[1] if n_factors is None else n_factors
        self.rows, self.frozen = (user_rows, item_rows), not self.item_columns
        self.sides = [Side(user_rows, self.user_columns, user_count, objective.ridges[0])]
        if not self.frozen:
            self.sides.append(Side(item_rows, self.item_columns, item_count, objective.ridges[1]))
        (total,) = plan.total_over_users(lambda some: [user_count[some].sum()])
        self.roots = (user_count / total).sqrt(), (item_count / item_count.sum()).sqrt()  # of how often a row occurs
        self.iteration, self.length = 0, 1.0
        self.last, self.lowest = math.inf, math.inf
        self.kept = None  # rows and gradients of the last step that was not taken back, and coefficients of features
        self.falls: list[float] = []  # by how much of itself the objective fell in the latest steps, none of which raised it

    def step(self):
        value, error, gradients = self.objective(*self.rows, frozen=self.frozen)
        if self.adaptive:
            value, gradients = self._adapt(value, error, gradients)
        exact, curvature = self.objective.draw is None, self.objective.loss.curvature
        cooled = self.length if exact else self.length * (1 - 0.9 * self.iteration / self.max_iter)
        for side, gradient, shared in zip(self.sides, gradients, self._moments(), strict=True):
            side.step(gradient, shared, curvature, cooled)
        for side in self.sides:
            side.move()
        for role, own in self.objective.regressions.items():
            own.follow(self.rows[ROLES.index(role)], self.iteration)
        self.iteration += 1
        return {"loss": value}

    def _moments(self):
        """Second moments over the pairs, (n_free, n_free): of the items for the users' steps, of the users for the items'."""

        def moment(side, columns, some):
            features = self.rows[side][some][:, columns] * self.roots[side][some]
            return [features.T @ features]

        moments = moment(1, self.user_columns, slice(None))
        if not self.frozen:
            moments += self.objective.plan.total_over_users(lambda some: moment(0, self.item_columns, some))
        return moments

    def _adapt(self, value, error, gradients):
        """Choose the step's length; value and gradients of where it starts, which may be an earlier place."""
        if not value <= RISE * self.lowest + NOISE * error:
            if self.kept is None:
                raise DivergenceError(f"Loss is {value} at the start. Lower the weights (y, sample_weight) or raise alpha.")
            for side, rows in zip(self.sides, self.kept[0], strict=True):
                side.rows.copy_(rows)
                side.velocity.zero_()
            for role, coefficients in self.kept[2].items():
                self.objective.regressions[role].restore(coefficients)
            self.length, self.falls = self.length / 4, []
            return self.last, self.kept[1]
        self.length = min(GROWTH * self.length, 1.0) if value <= self.last + NOISE * error else self.length / 2
        self.falls = [*self.falls[1 - PATIENCE :], (self.last - value) / value if value else 0.0] if value <= self.last else []
        self.last, self.lowest = value, min(self.lowest, value)
        coefficients = {role: own.coefficients.clone() for role, own in self.objective.regressions.items()}
        self.kept = [side.rows.clone() for side in self.sides], list(gradients), coefficients
        return value, gradients

    def solution(self):
        factors = Factors.from_rows(*self.rows, self.n_factors, self.objective.plan.mean_of_users)
        return with_weights(factors, self.objective.regressions, *self.rows, self.objective.plan)

    def state(self):
        state: dict[str, dict] = {"user": {}, "item": {}, "rest": {name: getattr(self, name) for name in COURSE}}
        for at, (role, side) in enumerate(zip(ROLES, self.sides, strict=False)):  # items that are held fixed have no state
            state[role] = {"rows": side.rows, "velocity": side.velocity}
            if self.kept is not None:
                state[role] |= {"kept_rows": self.kept[0][at], "kept_gradient": self.kept[1][at]}
        if self.objective.regressions:
            state["rest"]["coefficients"] = {role: own.coefficients for role, own in self.objective.regressions.items()}
            state["rest"]["precision"] = {role: own.precision for role, own in self.objective.regressions.items()}
            state["rest"]["kept_coefficients"] = {} if self.kept is None else self.kept[2]
        if self.generator is not None:
            state["rest"]["generator"] = self.generator.get_state()
        return state

    def restore(self, state):
        state = copy_state(state)
        kept = []
        for role, side in zip(ROLES, self.sides, strict=False):
            side.rows.copy_(state[role]["rows"])
            side.velocity.copy_(state[role]["velocity"])
            if "kept_rows" in state[role]:
                kept.append([state[role][name].to(side.rows) for name in ("kept_rows", "kept_gradient")])
        rows, gradients = ([pair[at] for pair in kept] for at in (0, 1))
        for role, own in self.objective.regressions.items():
            own.restore(state["rest"]["coefficients"][role])
            own.precision.copy_(state["rest"]["precision"][role])
        self.kept = (rows, gradients, state["rest"].get("kept_coefficients", {})) if kept else None
        for name in COURSE:
            setattr(self, name, state["rest"][name])
        if self.generator is not None:
            self.generator.set_state(state["rest"]["generator"])

    def converged(self, losses, tol):
        exact = self.objective.draw is None  # a drawn objective may seem to stand still
        return exact and len(self.falls) == PATIENCE and all(fall < tol for fall in self.falls)

    def advice(self):
        return ". Lower the weights (y, sample_weight) or raise alpha."


def ranking_solver(
    module,
    plan,
    weight,
    loss,
    *,
    alpha,
    n_negatives=4,
    popularity=False,
    exact=None,
    max_iter=None,
    generator=None,
    begun=None,
    features=None,
    uniform_of=None,
):
    """Make the solver that fits positives above what users have not.

    Parameters
    ----------
    module : PlainMF or BiasedMF
        Its parameters are the start; the item biases start at the logarithm of popularity.
    plan : Plan
        The positives, each pair once; every user has one, and one that the user has not.
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
    max_iter : int, optional
        See ``Descent``; by default 25 for an exact expectation and 40 otherwise.
    generator : torch.Generator, optional
        A CPU generator: draws the negatives.
    begun : Tensor of shape (n_items,), bool, optional
        Which items' biases start where the module has them.
    features : SideFeatures, optional
        Of the users and items that the module has.
    uniform_of : callable, optional
        Where negatives come from if not from the generator, which then gives a seed for each pass only: takes that seed and returns
        ``uniform`` of ``NegativeSampler``.

    Returns
    -------
    Solver
        Its rows are laid out as the module's.
    """
    k = module.user_factors.shape[1]
    item_counts = plan.sums()[1].cpu().numpy()
    options = {"popularity": popularity, "item_counts": item_counts, "generator": generator, "device": plan.device}
    sampler = NegativeSampler(plan.pairs.tocsr(), **options)
    if exact is None:
        exact = loss.expected is not None and plan.n_users * plan.n_items <= EXACT
    max_iter = max_iter or (25 if exact else 40)
    user = plan.pairs.users.long()
    own = plan.sums(weight)[0]
    (total,) = plan.total_over_users(lambda some: [own[some].sum()])
    weight = weight * user_weights(own, total / plan.n_users).to(weight)[user]
    with torch.no_grad():
        users, items = (side.clone() for side in module.rows())  # (n_users, width), (n_items, width)
        means = module.mean_rows(0.0)

    def draw():
        if uniform_of is not None:
            sampler.uniform = uniform_of(int(torch.randint(2**62, (1,), generator=generator, device="cpu")))
        return sampler.draw(user, n_negatives)

    columns = free_columns(k, users.shape[1] > k, loss)
    if users.shape[1] > k:
        biases = popularity_biases(plan.sums(weight)[1], n_negatives, sampler.share).to(weight)
        means[1][k + 1] = biases.mean()
        items[:, k + 1] = biases if begun is None else torch.where(begun, items[:, k + 1], biases)
    known = {"share": sampler.share, "total": sampler.total, "n_unobserved": sampler.n_unobserved}
    objective = RankingObjective.build(
        plan,
        weight,
        loss,
        means,
        alpha=alpha,
        n_factors=k,
        n_negatives=n_negatives,
        draw=None if exact else draw,
        features=features,
        **known,
    )
    return Descent(objective, (users, columns[0]), (items, columns[1]), max_iter=max_iter, n_factors=k, generator=generator)


def free_columns(k, biased, loss):
    """Which columns of the users' and of the items' rows are fitted: [P, b_u, 1] and [Q, 1, b_i] where there are biases."""
    users, items = list(range(k)), list(range(k))
    if biased:
        items.append(k + 1)
        if loss.user_bias:
            users.append(k)
    return users, items


def popularity_biases(count, n_negatives, share):
    """The score at which an item that everyone likes as much is as often a positive as a negative, weights (n_items,) in."""
    share = torch.from_numpy(share).to(count)
    drawn = n_negatives * count.sum() * share / share.sum()
    return torch.log((count + 0.5) / (drawn + 0.5))


def user_weights(count, typical):
    """What the positives of users count for, by their weight (n,) and its mean: the loyal do not drown the others."""
    return (typical / count.clamp_min(torch.finfo(count.dtype).tiny)) ** (1 - USER_POWER)
