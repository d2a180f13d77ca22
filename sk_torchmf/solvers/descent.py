"""Preconditioned gradient steps on both sides' rows at once, their length led by the objective. Knows no estimator."""

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from sk_torchmf.exceptions import DivergenceError
from sk_torchmf.solvers.autograd import PATIENCE
from sk_torchmf.solvers.objective import Ridge

MOMENTUM = 0.5
DAMPING = 1.0  # of a row, in positives
GROWTH = 1.2  # of steps, while the objective falls
RISE = 1.01  # a step after which the objective is that many times its lowest is taken back
LONGEST = 1.0  # change of a row's scores in a step
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


def descend(objective, users, items, *, max_iter, tol=0.0, counts=None, adaptive=True, report=None):
    r"""Move rows down an objective, in place.

    Parameters
    ----------
    objective : RankingObjective
    users, items : tuple of (Tensor of shape (n, width), list of int)
        Rows, and which of their columns move; without any for the items these are held fixed.
    max_iter : int
        Steps.
    tol : float
        Training stops once the objective has fallen by less than this fraction in each of five steps in a row.
    counts : tuple of Tensor of shape (n_users,) and (n_items,), optional
        Weights of the rows' positives; by default those of the objective.
    adaptive : bool
        Whether the steps' length follows the objective. If not, and items are fixed, a user's row depends on her positives alone.
    report : callable, optional
        Called after each step with (iteration, objective value).

    Returns
    -------
    dict of list
        ``loss``: the objective at the start of each step; ``seconds``.

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
    of a drawn objective shrink too, so that the noise of the draws averages out.
    """
    counts = objective.pairs.sums(objective.weight) if counts is None else counts
    user_count, item_count = (count.to(users[0])[:, None] for count in counts)
    (user_rows, user_columns), (item_rows, item_columns) = users, items
    frozen = not item_columns
    sides = [Side(user_rows, user_columns, user_count, objective.ridges[0])]
    others = [(item_rows, user_columns, item_count)]
    if not frozen:
        sides.append(Side(item_rows, item_columns, item_count, objective.ridges[1]))
        others.append((user_rows, item_columns, user_count))
    exact, curvature = objective.draw is None, objective.loss.curvature
    last, lowest, kept, calm, length = math.inf, math.inf, None, 0, 1.0
    history: dict[str, list] = {"loss": [], "seconds": []}
    for iteration in range(max_iter):
        start = time.perf_counter()
        value, error, gradients = objective(user_rows, item_rows, frozen=frozen)
        if adaptive and not value <= RISE * lowest + NOISE * error:
            if kept is None:
                raise DivergenceError(f"Loss is {value} at the start. Lower the weights (y, sample_weight) or raise alpha.")
            for side, rows in zip(sides, kept[0], strict=True):
                side.rows.copy_(rows)
                side.velocity.zero_()
            value, gradients, length, calm = last, kept[1], length / 4, 0
        elif adaptive:
            length = min(GROWTH * length, 1.0) if value <= last + NOISE * error else length / 2
            calm = calm + 1 if 0 <= last - value < tol * value else 0
            last, lowest, kept = value, min(lowest, value), ([side.rows.clone() for side in sides], gradients)
        cooled = length if exact else length * (1 - 0.9 * iteration / max_iter)
        for side, gradient, (rows, free, count) in zip(sides, gradients, others, strict=True):
            features = rows[:, free] * (count / count.sum()).sqrt()
            side.step(gradient, features, curvature, cooled)
        for side in sides:
            side.move()
        history["loss"].append(value)
        history["seconds"].append(time.perf_counter() - start)
        if report is not None:
            report(iteration + 1, value)
        if calm == PATIENCE:
            break
    return history
