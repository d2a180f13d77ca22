"""Preconditioned gradient steps on both sides' rows at once, their length led by the objective. Knows no estimator."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sk_torchmf.exceptions import DivergenceError
from sk_torchmf.model.factors import Factors
from sk_torchmf.solvers.base import PATIENCE, Solver, copy_state
from sk_torchmf.solvers.objective import Ridge

MOMENTUM = 0.5
DAMPING = 1.0  # of a row, in positives
GROWTH = 1.2  # of steps, while the objective falls
RISE = 1.01  # a step after which the objective is that many times its lowest is taken back
LONGEST = 1.0  # change of a row's scores in a step
COURSE = ("iteration", "length", "last", "lowest", "falls")  # of a descent: what steers its steps
NOISE = 3.0  # standard errors by which a drawn objective may seem to rise


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

    def step(self, gradient, features, curvature, length):
        """The step of the free columns, (n, n_free), for features of the other side weighted by how often they occur."""
        shared = features.T @ features
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
        Whether the steps' length follows the objective. If not, and items are fixed, a user's row depends on her positives alone.
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
    of a drawn objective shrink too, so that the noise of the draws averages out. The loss of an epoch is the objective at its
    start.
    """

    def __init__(self, objective, users, items, *, max_iter, n_factors=None, counts=None, adaptive=True, generator=None):
        counts = objective.pairs.sums(objective.weight) if counts is None else counts
        user_count, item_count = (count.to(users[0])[:, None] for count in counts)
        (user_rows, user_columns), (item_rows, item_columns) = users, items
        self.objective, self.max_iter, self.adaptive, self.generator = objective, max_iter, adaptive, generator
        self.n_factors = user_rows.shape[1] if n_factors is None else n_factors
        self.rows, self.frozen = (user_rows, item_rows), not item_columns
        self.sides = [Side(user_rows, user_columns, user_count, objective.ridges[0])]
        self.others = [(item_rows, user_columns, item_count)]
        if not self.frozen:
            self.sides.append(Side(item_rows, item_columns, item_count, objective.ridges[1]))
            self.others.append((user_rows, item_columns, user_count))
        self.iteration, self.length = 0, 1.0
        self.last, self.lowest = math.inf, math.inf
        self.kept = None  # rows and gradients of the last step that was not taken back
        self.falls: list[float] = []  # by how much of itself the objective fell in the latest steps, none of which raised it

    def step(self):
        value, error, gradients = self.objective(*self.rows, frozen=self.frozen)
        if self.adaptive:
            value, gradients = self._adapt(value, error, gradients)
        exact, curvature = self.objective.draw is None, self.objective.loss.curvature
        cooled = self.length if exact else self.length * (1 - 0.9 * self.iteration / self.max_iter)
        for side, gradient, (rows, free, count) in zip(self.sides, gradients, self.others, strict=True):
            features = rows[:, free] * (count / count.sum()).sqrt()
            side.step(gradient, features, curvature, cooled)
        for side in self.sides:
            side.move()
        self.iteration += 1
        return {"loss": value}

    def _adapt(self, value, error, gradients):
        """Choose the step's length; value and gradients of where it starts, which may be an earlier place."""
        if not value <= RISE * self.lowest + NOISE * error:
            if self.kept is None:
                raise DivergenceError(f"Loss is {value} at the start. Lower the weights (y, sample_weight) or raise alpha.")
            for side, rows in zip(self.sides, self.kept[0], strict=True):
                side.rows.copy_(rows)
                side.velocity.zero_()
            self.length, self.falls = self.length / 4, []
            return self.last, self.kept[1]
        self.length = min(GROWTH * self.length, 1.0) if value <= self.last + NOISE * error else self.length / 2
        self.falls = [*self.falls[1 - PATIENCE :], (self.last - value) / value if value else 0.0] if value <= self.last else []
        self.last, self.lowest = value, min(self.lowest, value)
        self.kept = [side.rows.clone() for side in self.sides], list(gradients)
        return value, gradients

    def solution(self):
        return Factors.from_rows(*self.rows, self.n_factors)

    def state(self):
        state: dict[str, dict] = {"user": {}, "item": {}, "rest": {name: getattr(self, name) for name in COURSE}}
        for at, (role, side) in enumerate(
            zip(("user", "item"), self.sides, strict=False)
        ):  # items that are held fixed have no state
            state[role] = {"rows": side.rows, "velocity": side.velocity}
            if self.kept is not None:
                state[role] |= {"kept_rows": self.kept[0][at], "kept_gradient": self.kept[1][at]}
        if self.generator is not None:
            state["rest"]["generator"] = self.generator.get_state()
        return state

    def restore(self, state):
        state = copy_state(state)
        kept = []
        for role, side in zip(("user", "item"), self.sides, strict=False):
            side.rows.copy_(state[role]["rows"])
            side.velocity.copy_(state[role]["velocity"])
            if "kept_rows" in state[role]:
                kept.append([state[role][name].to(side.rows) for name in ("kept_rows", "kept_gradient")])
        rows, gradients = ([pair[at] for pair in kept] for at in (0, 1))
        self.kept = (rows, gradients) if kept else None
        for name in COURSE:
            setattr(self, name, state["rest"][name])
        if self.generator is not None:
            self.generator.set_state(state["rest"]["generator"])

    def converged(self, losses, tol):
        exact = self.objective.draw is None  # a drawn objective may seem to stand still
        return exact and len(self.falls) == PATIENCE and all(fall < tol for fall in self.falls)

    def advice(self):
        return ". Lower the weights (y, sample_weight) or raise alpha."
