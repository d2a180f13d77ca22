"""Preconditioned gradient steps on both sides' rows at once, their damping led by the objective. Knows no estimator."""

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from sk_torchmf.exceptions import DivergenceError
from sk_torchmf.solvers.autograd import PATIENCE
from sk_torchmf.solvers.objective import Ridge

MOMENTUM = 0.5
DAMPING = 10.0  # to start with
LEAST_DAMPING = {True: 3.0, False: 5.0}  # of an exact gradient, of a drawn one, which is noisy
RISE = 1.1  # a step after which the objective is that many times as high is taken back
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

    def step(self, gradient, features, curvature, damping, length):
        """The step of the free columns, (n, n_free), for features of the other side weighted by how often they occur."""
        shared = features.T @ features
        spectrum, basis = torch.linalg.eigh(shared)
        bend = damping + self.stiffness + self.count * (curvature * spectrum.clamp_min(0))
        self.velocity.mul_(MOMENTUM).add_((gradient[:, self.free] @ basis / bend) @ basis.T, alpha=length)

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
        Whether the damping follows the objective. If not, a user's row depends on her own positives only where items are fixed.
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
    Row u moves by :math:`(\delta + \rho_u + c_u h S)^{-1}` times its gradient, with the ridge :math:`\rho_u`, the weight
    :math:`c_u` of its positives, the loss's largest curvature h and the mean S of the outer products of the other side's rows, one
    eigendecomposition for all rows. The damping :math:`\delta` is that of Levenberg and Marquardt: it falls while the objective
    does and grows where that rises; a step after which it is a tenth higher is taken back. The steps of a drawn objective shrink,
    so that the noise of the draws averages out.
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
    least = LEAST_DAMPING[exact]
    damping = DAMPING if adaptive else least
    best, kept, calm = math.inf, None, 0
    history: dict[str, list] = {"loss": [], "seconds": []}
    for iteration in range(max_iter):
        start = time.perf_counter()
        value, error, gradients = objective(user_rows, item_rows, frozen=frozen)
        if adaptive and not value <= RISE * best + NOISE * error:
            if kept is None:
                raise DivergenceError(f"Loss is {value} at the start. Lower the weights (y, sample_weight) or raise alpha.")
            for side, rows in zip(sides, kept[0], strict=True):
                side.rows.copy_(rows)
                side.velocity.zero_()
            value, gradients, damping, calm = best, kept[1], 4 * damping, 0
        elif adaptive:
            damping = max(0.7 * damping, least) if value <= best + NOISE * error else 2 * damping
            calm = calm + 1 if 0 <= best - value < tol * value else 0
            best, kept = value, ([side.rows.clone() for side in sides], gradients)
        length = 1.0 if exact else 1 - 0.9 * iteration / max_iter
        for side, gradient, (rows, free, count) in zip(sides, gradients, others, strict=True):
            features = rows[:, free] * (count / count.sum()).sqrt()
            side.step(gradient, features, curvature, damping, length)
        for side in sides:
            side.move()
        history["loss"].append(value)
        history["seconds"].append(time.perf_counter() - start)
        if report is not None:
            report(iteration + 1, value)
        if calm == PATIENCE:
            break
    return history
