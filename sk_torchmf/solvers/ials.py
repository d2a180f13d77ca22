"""Implicit alternating least squares: one preconditioned step a half-step, its length exact for each row. Knows no estimator."""

from typing import NamedTuple

import torch
from torch import Tensor

from sk_torchmf.model.factors import Factors
from sk_torchmf.solvers.base import Solver
from sk_torchmf.solvers.objective import Ridge
from sk_torchmf.solvers.row_regression import regressions_of, with_weights


class ImplicitLeastSquares(Solver):
    r"""Fit all pairs of users and items, the observed to 1 and the others to 0.

    Minimises over all users u and items i

    .. math:: \sum_{ui} s_{ui}^2 + \sum_{ui \in R} \left[ (1 + g_{ui}) (1 - s_{ui})^2 - s_{ui}^2 \right]
        + \alpha \sum_u (G_u + n) \lVert x_u \rVert^2 + \alpha \sum_i (G_i + m) \lVert y_i \rVert^2

    where x are a user's factors, y an item's factors and bias, G a row's sum of gains, m and n the numbers of users and items: the
    weights of [1]_, the regularisation of [2]_. A user has no bias of her own. The rows of a side that has features shrink to what
    these say, :math:`A^\top f`, and the ridge is that of the coefficients A too, see ``RowRegression``.

    Parameters
    ----------
    module : PlainMF or BiasedMF
        Its parameters are the start and the result.
    plan : Plan
        What was observed, each pair once.
    gain : Tensor of shape (n_pairs,)
        By how much an observed pair weighs more than one that was not, user-major; > 0.
    alpha : float
        Regularisation.
    features : SideFeatures, optional
        Of the users and items that the module has.

    Notes
    -----
    An exact solution of each row's k x k system is more than an iteration can use. Instead all rows of a side take one step along a
    preconditioned gradient. The quadratic form of row u is :math:`A + B_u`: A, over all items, is the same for every row, and
    :math:`B_u`, over its own, is taken for :math:`G_u S` with the mean S of such forms. The pencil (S, A) is diagonalised once a
    half-step, so that the preconditioner costs two small products. The step's length minimises the row's objective along it, times
    a relaxation of up to 1.75, which cannot raise it. The scores of the observed pairs are carried along: a half-step is one
    sampled product and one sparse product. Where a side has features, some steps of the coefficients' ridge regression follow its
    half-step, which cannot raise the objective either; the first two iterations are without, and after the third it is learned from
    the rows how far to believe each group. The loss of an epoch is the objective after it.

    References
    ----------
    .. [1] Hu, Koren, Volinsky, Collaborative Filtering for Implicit Feedback Datasets, ICDM 2008.
    .. [2] Rendle, Krichene, Zhang, Koren, Revisiting the Performance of iALS on Item Recommendation Benchmarks, RecSys 2022.
    """

    max_iter = 15

    def __init__(self, module, plan, gain, *, alpha, features=None):
        with torch.no_grad():
            self.rows = tuple(rows.clone() for rows in module.rows())  # (n_users, width), (n_items, width)
        self.n_factors, width = module.user_factors.shape[1], self.rows[0].shape[1]
        k = self.n_factors  # which of a user's and of an item's columns are free: all, or of [P, 0, 1] and [Q, 1, b_i] some
        self.free = (slice(None), slice(None)) if width == k else (list(range(k)), [*range(k), k + 1])
        self.plan, self.gain, self.alpha = plan, gain, alpha
        of_users = []
        for _, span, block in plan:
            of_users.append(block.row_sums(gain[span]))
            plan.add(block.T.row_sums(gain[span].index_select(0, block.T.order)))
        (of_items,) = plan.total()
        self.mass = torch.cat(of_users)[:, None], of_items[:, None]  # (n, 1)
        (total,) = plan.total_over_users(lambda some: [self.mass[0][some].sum()])
        self.shares = self.mass[0] / total, self.mass[1] / self.mass[1].sum()
        self.regressions = regressions_of(features, plan, [self._ridge_of(side) for side in range(2)])
        self.means = tuple(self.regressions[role].rows if role in self.regressions else None for role in ("user", "item"))
        self.scores = plan.pairs.dots(*self.rows)
        self.change = torch.empty_like(self.scores)  # of the scores, in a half-step of the items
        self.iteration = 0

    def _ridge_of(self, side):
        """The ridge of a side's rows about zero."""
        constant, growth = (torch.zeros_like(self.rows[side][0]) for _ in range(2))
        constant[self.free[side]], growth[self.free[side]] = self.alpha * (self.plan.n_items, self.plan.n_users)[side], self.alpha
        mass = self.mass[side].to(constant)
        return Ridge(torch.zeros_like(constant), constant, growth, torch.cat([torch.ones_like(mass), mass], 1))

    def step(self):
        relaxation = min(1 + 0.15 * self.iteration, 1.6) if self.iteration < 8 else 1.75
        for role, rows, move in zip(("user", "item"), self.rows, (self._move_users, self._move_items), strict=True):
            move(relaxation)
            if role in self.regressions:
                self.regressions[role].follow(rows, self.iteration)
        self.iteration += 1
        return {"loss": self._objective()}

    def _move_users(self, relaxation):
        """Move the users' rows and bring the scores up to date, the items' rows held fixed."""
        users, items = self.rows
        free, mass, plan = self.free[0], self.mass[0], self.plan
        features = items[:, free]
        observed = (features * self.shares[1]).T @ features
        frame = Frame.of(features.T @ features, observed, items.T @ features, plan.n_items, self.alpha)
        for rows, span, block in plan:
            gain, scores = self.gain[span], self.scores[span]
            means = None if self.means[0] is None else self.means[0][rows]
            sums = block.user_sums(1 + gain - gain * scores, features)
            step = frame.step(users[rows], free, mass[rows], sums, means)
            change = block.dots(step.direction, features)
            length = step.length(block.row_sums(gain * change * change), relaxation)
            users[rows][:, free] = step.own.addcmul_(step.direction, length)
            scores.addcmul_(block.expand(length[:, 0]), change)

    def _move_items(self, relaxation):
        """Move the items' rows and bring the scores up to date, the users' rows held fixed."""
        users, items = self.rows
        free, mass, plan = self.free[1], self.mass[1], self.plan
        features = users[:, free]

        def grams(some):
            own = features[some]
            return own.T @ own, (own * self.shares[0][some]).T @ own, users[some].T @ own

        everywhere, observed, cross = plan.total_over_users(grams)
        frame = Frame.of(everywhere, observed, cross, plan.n_users, self.alpha)
        for rows, span, block in plan:
            gain = self.gain[span]
            plan.add(block.item_sums(1 + gain - gain * self.scores[span], features[rows]))
        step = frame.step(items, free, mass, *plan.total(), self.means[1])
        for rows, span, block in plan:
            change = block.dots(features[rows], step.direction, add_to=self.change[span].zero_())
            square = self.gain[span] * change * change
            plan.add(block.T.row_sums(square.index_select(0, block.T.order)))
        length = step.length(*plan.total(), relaxation)
        items[:, free] = step.own.addcmul_(step.direction, length)
        for _, span, block in plan:
            self.scores[span].addcmul_(length[:, 0].index_select(0, block.columns), self.change[span])

    def _objective(self):
        (users, items), plan = self.rows, self.plan
        for rows, span, _ in plan:
            own, scores = users[rows], self.scores[span]
            loss = torch.dot(1 + self.gain[span], (1 - scores).square())
            plan.add(own.T @ own, loss, torch.dot(scores, scores), self._ridge(0, rows))
        gram, loss, square, ridge = plan.total()
        value = (gram * (items.T @ items)).sum() + loss
        value -= square
        value = value + ridge + self._ridge(1, slice(None))
        return float(value + sum(own.penalty() for own in self.regressions.values()))

    def _ridge(self, side, some):
        """The ridge of some rows of a side."""
        own, n_others = self.rows[side][some], (self.plan.n_items, self.plan.n_users)[side]
        if self.means[side] is not None:
            own = own - self.means[side][some]
        return self.alpha * ((self.mass[side][some] + n_others) * own[:, self.free[side]].square()).sum()

    def solution(self):
        users, items = self.rows
        return with_weights(Factors.from_rows(users, items, self.n_factors), self.regressions, users, items, self.plan)

    def state(self):
        users, items = self.rows
        rest = {"scores": self.scores, "iteration": self.iteration}
        if self.regressions:
            rest["coefficients"] = {role: own.coefficients for role, own in self.regressions.items()}
            rest["precision"] = {role: own.precision for role, own in self.regressions.items()}
        return {"user": {"rows": users}, "item": {"rows": items}, "rest": rest}

    def restore(self, state):
        for rows, role in zip(self.rows, ("user", "item"), strict=True):
            rows.copy_(state[role]["rows"])
        for role, own in self.regressions.items():
            own.restore(state["rest"]["coefficients"][role])
            own.precision.copy_(state["rest"]["precision"][role])
        self.scores.copy_(state["rest"]["scores"])
        self.iteration = state["rest"]["iteration"]

    def advice(self):
        return ". Lower the weights (y, sample_weight) or raise alpha."


class Frame(NamedTuple):
    """What a half-step of all rows of a side needs of the other side's rows, with w free columns of w' in all.

    Attributes
    ----------
    cross : Tensor of shape (w', w)
        Second moments of all columns and the free ones, over all other rows.
    spectrum, basis : Tensor of shape (w,) and (w, w)
        The pencil of both quadratic forms: in the basis that over all other rows is one, that over a row's own the spectrum.
    n_others : int
        How many other rows there are.
    alpha : float
    """

    cross: Tensor
    spectrum: Tensor
    basis: Tensor
    n_others: int
    alpha: float

    @classmethod
    def of(cls, everywhere, observed, cross, n_others, alpha):
        """Diagonalise the forms over all other rows and over a row's own, (w, w) both, of mass one."""
        everywhere.diagonal().add_(alpha * n_others)
        observed.diagonal().add_(alpha)
        tiny = torch.finfo(everywhere.dtype).eps * (everywhere.trace() + 1)
        everywhere.diagonal().add_(tiny)  # definite where alpha is next to nothing
        factor = torch.linalg.cholesky(everywhere)
        pencil = torch.linalg.solve_triangular(factor, observed, upper=False)
        pencil = torch.linalg.solve_triangular(factor, pencil.T, upper=False)
        spectrum, basis = torch.linalg.eigh((pencil + pencil.T) / 2)
        basis = torch.linalg.solve_triangular(factor.T, basis, upper=True)  # everywhere -> I, observed -> diag(spectrum)
        return cls(cross, spectrum, basis, n_others, alpha)

    def step(self, rows, free, mass, sums, means=None):
        """Find where rows (n, w') with mass (n, 1) go in their free columns; the sums (n, w) become minus half the gradient.

        They shrink to ``means`` (n, w'), by default to zero.
        """
        own = rows[:, free]
        deviation = own if means is None else own - means[:, free]
        slope = sums.addmm_(rows, self.cross, alpha=-1).addcmul_(mass + self.n_others, deviation, value=-self.alpha)
        slope = slope @ self.basis
        step = slope / (1 + mass * self.spectrum.clamp_min(0))
        direction = step @ self.basis.T
        bend = (step * step).sum(1, keepdim=True) + self.alpha * mass * (direction * direction).sum(1, keepdim=True)
        return Step(own, direction, (slope * step).sum(1, keepdim=True), bend)


class Step(NamedTuple):
    """Where rows go in a half-step.

    Attributes
    ----------
    own, direction : Tensor of shape (n, w)
        The free columns as they are, and where they go.
    slope, bend : Tensor of shape (n, 1)
        Half the first derivative of the objective along it, negative, and half the second, but for the row's own pairs.
    """

    own: Tensor
    direction: Tensor
    slope: Tensor
    bend: Tensor

    def length(self, squares, relaxation):
        """How far rows go, (n, 1): to the minimum, times a relaxation. ``squares`` (n,) are what the row's own pairs bend."""
        bend = self.bend + squares[:, None]
        return relaxation * self.slope / bend.clamp_min(torch.finfo(bend.dtype).tiny)
