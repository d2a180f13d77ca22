"""Implicit alternating least squares: one preconditioned step a half-step, its length exact for each row. Knows no estimator."""

import torch

from sk_torchmf.model.factors import Factors
from sk_torchmf.solvers.base import Solver


class ImplicitLeastSquares(Solver):
    r"""Fit all pairs of users and items, the observed to 1 and the others to 0.

    Minimises over all users u and items i

    .. math:: \sum_{ui} s_{ui}^2 + \sum_{ui \in R} \left[ (1 + g_{ui}) (1 - s_{ui})^2 - s_{ui}^2 \right]
        + \alpha \sum_u (G_u + n) \lVert x_u \rVert^2 + \alpha \sum_i (G_i + m) \lVert y_i \rVert^2

    where x are a user's factors, y an item's factors and bias, G a row's sum of gains, m and n the numbers of users and items: the
    weights of [1]_, the regularisation of [2]_. A user has no bias of her own.

    Parameters
    ----------
    module : PlainMF or BiasedMF
        Its parameters are the start and the result.
    pairs : Pairs
        What was observed, each pair once.
    gain : Tensor of shape (n_pairs,)
        By how much an observed pair weighs more than one that was not, user-major; > 0.
    alpha : float
        Regularisation.

    Notes
    -----
    An exact solution of each row's k x k system is more than an iteration can use. Instead all rows of a side take one step along a
    preconditioned gradient. The quadratic form of row u is :math:`A + B_u`: A, over all items, is the same for every row, and
    :math:`B_u`, over its own, is taken for :math:`G_u S` with the mean S of such forms. The pencil (S, A) is diagonalised once a
    half-step, so that the preconditioner costs two small products. The step's length minimises the row's objective along it, times
    a relaxation of up to 1.75, which cannot raise it. The scores of the observed pairs are carried along: a half-step is one
    sampled product and one sparse product. The loss of an epoch is the objective after it.

    References
    ----------
    .. [1] Hu, Koren, Volinsky, Collaborative Filtering for Implicit Feedback Datasets, ICDM 2008.
    .. [2] Rendle, Krichene, Zhang, Koren, Revisiting the Performance of iALS on Item Recommendation Benchmarks, RecSys 2022.
    """

    max_iter = 15

    def __init__(self, module, pairs, gain, *, alpha):
        with torch.no_grad():
            self.rows = tuple(rows.clone() for rows in module.rows())  # (n_users, width), (n_items, width)
        self.n_factors, width = module.user_factors.shape[1], self.rows[0].shape[1]
        k = self.n_factors
        self.free = {"user": list(range(k)), "item": list(range(k))}
        if width > k:  # [P, 0, 1] and [Q, 1, b_i]
            self.free["item"].append(k + 1)
        self.gain, self.alpha = gain, alpha
        self.order, self.back = pairs.T.order, pairs.T.inverse_order
        self.gains = {"user": gain, "item": gain.index_select(0, self.order)}
        self.plans = {"user": pairs, "item": pairs.T}
        self.mass = {side: plan.row_sums(self.gains[side])[:, None] for side, plan in self.plans.items()}  # (n, 1)
        self.scores = pairs.dots(*self.rows)
        self.iteration = 0

    def step(self):
        users, items = self.rows
        relaxation = min(1 + 0.15 * self.iteration, 1.6) if self.iteration < 8 else 1.75
        scores = self._move("user", "item", users, items, self.scores, relaxation).index_select(0, self.order)
        self.scores = self._move("item", "user", items, users, scores, relaxation).index_select(0, self.back)
        self.iteration += 1
        return {"loss": self._objective()}

    def _move(self, side, other, rows, others, scores, relaxation):
        given = self.plans[side], self.gains[side], self.mass[side], self.mass[other]
        return _half_step(*given, rows, others, scores, self.free[side], alpha=self.alpha, relaxation=relaxation)

    def _objective(self):
        (users, items), scores = self.rows, self.scores
        value = ((users.T @ users) * (items.T @ items)).sum() + torch.dot(1 + self.gain, (1 - scores).square())
        value -= torch.dot(scores, scores)
        for side, rows, n in (("user", users, len(items)), ("item", items, len(users))):
            value += self.alpha * ((self.mass[side] + n) * rows[:, self.free[side]].square()).sum()
        return float(value)

    def solution(self):
        users, items = self.rows
        return Factors.from_rows(users, items, self.n_factors)

    def state(self):
        users, items = self.rows
        return {"user": {"rows": users}, "item": {"rows": items}, "rest": {"scores": self.scores, "iteration": self.iteration}}

    def restore(self, state):
        for rows, role in zip(self.rows, ("user", "item"), strict=True):
            rows.copy_(state[role]["rows"])
        self.scores.copy_(state["rest"]["scores"])
        self.iteration = state["rest"]["iteration"]

    def advice(self):
        return ". Lower the weights (y, sample_weight) or raise alpha."


def _half_step(plan, gain, mass, other_mass, rows, others, scores, free, *, alpha, relaxation):
    """Move one side's rows, in place, the other's held fixed; returns the scores of the pairs, in the plan's order."""
    features = others[:, free]
    everywhere = features.T @ features
    everywhere.diagonal().add_(alpha * len(others))
    observed = (features * (other_mass / other_mass.sum())).T @ features
    observed.diagonal().add_(alpha)
    everywhere.diagonal().add_(torch.finfo(rows.dtype).eps * (everywhere.trace() + 1))  # definite where alpha is next to nothing
    factor = torch.linalg.cholesky(everywhere)
    pencil = torch.linalg.solve_triangular(factor, observed, upper=False)
    pencil = torch.linalg.solve_triangular(factor, pencil.T, upper=False)
    spectrum, basis = torch.linalg.eigh((pencil + pencil.T) / 2)
    basis = torch.linalg.solve_triangular(factor.T, basis, upper=True)  # everywhere -> I, observed -> diag(spectrum)

    own = rows[:, free]
    slope = plan.user_sums(1 + gain - gain * scores, features)  # minus half the gradient
    slope.addmm_(rows, others.T @ features, alpha=-1).addcmul_(mass + len(others), own, value=-alpha)
    slope = slope @ basis
    step = slope / (1 + mass * spectrum.clamp_min(0))
    direction = step @ basis.T
    change = plan.dots(direction, features)
    bend = (step * step).sum(1, keepdim=True) + alpha * mass * (direction * direction).sum(1, keepdim=True)
    bend += plan.row_sums(gain * change * change)[:, None]
    length = relaxation * (slope * step).sum(1, keepdim=True) / bend.clamp_min(torch.finfo(bend.dtype).tiny)
    rows[:, free] = own.addcmul_(direction, length)
    return scores.addcmul_(plan.expand(length[:, 0]), change)
