"""Implicit alternating least squares: one preconditioned step a half-step, its length exact for each row. Knows no estimator."""

from typing import NamedTuple

import torch
from torch import Tensor

from sk_torchmf.model.factors import Factors
from sk_torchmf.nn.row_sums import error_sums, square_sums
from sk_torchmf.solvers.base import Solver
from sk_torchmf.solvers.objective import Ridge
from sk_torchmf.solvers.observed import observed_blocks
from sk_torchmf.solvers.row_regression import regressions_of, with_weights

BLOCK = 2**20  # pairs worked on at once


class ImplicitLeastSquares(Solver):
    r"""Fit all pairs of users and items, the observed to 1 and the others to 0.

    Minimises over all users u and items i

    .. math:: \sum_{ui} s_{ui}^2 + \sum_{ui \in R} \left[ (1 + g_{ui}) (1 - s_{ui})^2 - s_{ui}^2 \right]
        + \alpha \sum_u (G_u + n) \lVert x_u \rVert^2 + \alpha \sum_i (G_i + m) \lVert y_i \rVert^2

    where x are a user's factors, y an item's factors and bias, G a row's sum of gains, m and n the numbers of users and items: the
    weights of [1]_, the regularisation of [2]_. A user has no bias. The rows of a side that has features shrink to what
    these say, :math:`A^\top f`, and the ridge is that of the coefficients A too, see ``RowRegression``.

    Parameters
    ----------
    module : PlainMF or BiasedMF
        Its parameters are the start and the result.
    plan : Plan
        What was observed, each pair once or ``repeated``.
    gain : Tensor of shape (n_pairs,) or float
        By how much an observed pair weighs more than one that was not, user-major; > 0. A float is that of every pair. Of a plan
        that does not keep its blocks, whatever gives the tensor of a block by its span.
    alpha : float
        Regularisation.
    features : SideFeatures, optional
        Of the users and items that the module has.
    repeated : bool
        Whether a pair may be there more than once, one after the other: its gain is then the sum of theirs.

    Notes
    -----
    An exact solution of each row's k x k system is more than an iteration can use. Instead all rows of a side take one step along
    a preconditioned gradient. The quadratic form of row u is :math:`A + B_u`: A, over all items, is the same for every row, and
    :math:`B_u`, over its own, is taken for :math:`G_u S` with the mean S of such forms. The pencil (S, A) is diagonalised once a
    half-step, so that the preconditioner costs two small products. The step's length minimises the row's objective along it,
    times a relaxation of up to 1.75, which cannot raise it. Nothing is kept for a pair: an iteration visits the pairs twice,
    first for the users' steps and for what pulls the items from there, then for the length of the items' steps. Where a side has
    features, some steps of the coefficients' ridge regression follow its half-step, which cannot raise the objective either; the
    first two iterations are without, and after the third it is learned from the rows how far to believe each group. The loss of
    an epoch is the objective after it.

    References
    ----------
    .. [1] Hu, Koren, Volinsky, Collaborative Filtering for Implicit Feedback Datasets, ICDM 2008.
    .. [2] Rendle, Krichene, Zhang, Koren, Revisiting the Performance of iALS on Item Recommendation Benchmarks, RecSys 2022.
    """

    max_iter = 15

    def __init__(self, module, plan, gain, *, alpha, features=None, repeated=False):
        with torch.no_grad():
            self.rows = tuple(rows.clone() for rows in module.rows())  # (n_users, width), (n_items, width)
        self.n_factors, width = module.user_factors.shape[1], self.rows[0].shape[1]
        k = self.n_factors  # which of a user's and of an item's columns are free: all, or of [P, 0, 1] and [Q, 1, b_i] some
        self.free = (slice(None), slice(None)) if width == k else (list(range(k)), [*range(k), k + 1])
        self.plan, self.gain, self.alpha, self.repeated = plan.cut(max_pairs=BLOCK), gain, alpha, repeated
        own = None if isinstance(gain, float) else gain  # of each pair
        self.blocks, masses = observed_blocks(self.plan, None, own), self.plan.sums(own)
        unit = gain if own is None else 1.0
        self.mass = tuple(unit * mass.to(rows)[:, None] for mass, rows in zip(masses, self.rows, strict=True))  # (n, 1)
        (total,) = self.plan.total_over_users(lambda some: [self.mass[0][some].sum()])
        self.shares = self.mass[0] / total, self.mass[1] / self.mass[1].sum()
        self.regressions = regressions_of(features, self.plan, [self._ridge_of(side) for side in range(2)])
        self.means = tuple(self.regressions[role].rows if role in self.regressions else None for role in ("user", "item"))
        self.of_observed = self._sum_over_observed()
        self.iteration = 0

    def _parts(self, side, rows):
        """The factors of rows of a side, contiguous, and the biases of items or None."""
        k, biased = self.n_factors, side == 1 and rows.shape[1] > self.n_factors
        return rows[:, :k].contiguous(), rows[:, k + 1].contiguous() if biased else None

    def _sum_over_observed(self):
        """What the observed pairs add to the sum of squared scores, a float: at the start, later it is known from the steps."""
        (users, items), plan = self.rows, self.plan
        features, biases = self._parts(1, items)
        for rows, by_user, _ in self.blocks:
            pairs, (gain, whole) = by_user.pairs, self._gains(by_user)
            start = None if biases is None else biases.index_select(0, pairs.columns)
            scores = pairs.dots(self._parts(0, users[rows])[0], features, add_to=start)
            misses = (1 - scores).square()
            values = misses * gain + (misses - scores.square()) * (gain / whole)
            plan.add(float(values.sum(dtype=torch.float64)))
        return plan.total()[0]

    def _gains(self, observed):
        """Those of the pairs of a block as they stand, and of each in all: Tensors (n_pairs,), or a float twice for all."""
        gain = self.gain if observed.weight is None else observed.weight
        return gain, sums_of_equals(observed.pairs, gain) if self.repeated else gain

    def _pull(self, observed, own, other):
        """Minus half the gradient of the rows of the side that is first, by the pairs of each: (n, k), and of biases (n,).

        The factors and biases of both sides are as by ``_parts``. A pair of gain g has the slope :math:`g (s - 1 - 1 / g)`.
        """
        (P, b), (Q, c), (_, whole) = own, other, self._gains(observed)
        target = P.new_full((observed.pairs.n_pairs,), 1 + 1 / whole) if isinstance(whole, float) else 1 + whole.to(P).reciprocal()
        slopes, slope, _ = error_sums(observed.pairs, P, Q, target, observed.weight, b, c)
        unit = -self.gain if observed.weight is None else -1.0
        return slopes.mul_(unit), slope.mul_(unit)

    def _squares(self, observed, direction, other, b=None):
        """How much the pairs of rows bend along a direction of theirs: (n,)."""
        squares = square_sums(observed.pairs, direction, other, observed.weight, b)
        return squares.mul_(self.gain) if observed.weight is None else squares

    def _ridge_of(self, side):
        """The ridge of a side's rows about zero."""
        constant, growth = (self.rows[side].new_zeros(self.rows[side].shape[1]) for _ in range(2))  # of a side without rows too
        constant[self.free[side]], growth[self.free[side]] = self.alpha * (self.plan.n_items, self.plan.n_users)[side], self.alpha
        mass = self.mass[side].to(constant)
        return Ridge(torch.zeros_like(constant), constant, growth, torch.cat([torch.ones_like(mass), mass], 1))

    def step(self):
        relaxation = min(1 + 0.15 * self.iteration, 1.6) if self.iteration < 8 else 1.75
        pull = self._move_users(relaxation)
        self._follow("user")
        moment = self._move_items(pull, relaxation)
        self._follow("item")
        self.iteration += 1
        return {"loss": self._objective(moment)}

    def _follow(self, role):
        if role in self.regressions:
            self.regressions[role].follow(self.rows[("user", "item").index(role)], self.iteration)

    def _move_users(self, relaxation):
        """Move the users' rows, the items' held fixed; what then pulls the items' rows, (n_items, w), of the observed pairs."""
        users, items = self.rows
        free, mass, plan = self.free[0], self.mass[0], self.plan
        fixed, k = self._parts(1, items), self.n_factors
        observed = (fixed[0] * self.shares[1]).T @ fixed[0]
        frame = Frame.of(items.T @ items, observed, self.free[0], plan.n_items, self.alpha, plan)
        for rows, by_user, by_item in self.blocks:
            pull, _ = self._pull(by_user, self._parts(0, users[rows]), fixed)
            means = None if self.means[0] is None else self.means[0][rows]
            step = frame.step(users[rows], free, mass[rows], pull, means)
            squares = self._squares(by_user, step.direction, fixed[0])
            length = step.length(squares, relaxation)
            users[rows][:, :k] = step.own.addcmul(step.direction, length)
            plan.add(step.change(length, pull, squares), *self._pull(by_item, fixed, self._parts(0, users[rows])))
        change, pull, of_biases = plan.total()
        self.of_observed += change
        return pull if fixed[1] is None else torch.cat([pull, of_biases[:, None]], 1)

    def _move_items(self, pull, relaxation):
        """Move the items' rows, which the observed pairs pull so, the users' held fixed; second moments (w', w') of the users."""
        (users, items), plan, k = self.rows, self.plan, self.n_factors

        def moments(some):
            own, features = users[some], users[some][:, self.free[1]]
            return own.T @ own, (features * self.shares[0][some]).T @ features

        moment, observed = plan.total_over_users(moments)
        frame = Frame.of(moment, observed, self.free[1], plan.n_users, self.alpha, plan)
        step = frame.step(items, self.free[1], self.mass[1], pull, self.means[1])
        direction = step.direction[:, :k].contiguous()
        b = step.direction[:, k].contiguous() if step.direction.shape[1] > k else None
        for rows, _, by_item in self.blocks:
            plan.add(self._squares(by_item, direction, self._parts(0, users[rows])[0], b))
        (squares,) = plan.total()
        length = step.length(squares, relaxation)
        items[:, self.free[1]] = step.own.addcmul(step.direction, length)
        self.of_observed += step.change(length, pull, squares)
        return moment

    def _objective(self, moment):
        """The objective, with the second moments of the users' rows."""
        items, plan = self.rows[1], self.plan
        (ridge,) = plan.total_over_users(lambda some: [self._ridge(0, some)])
        value = torch.dot(moment.double().view(-1), (items.T @ items).double().view(-1)) + ridge + self._ridge(1, slice(None))
        return self.of_observed + float(value + sum(own.penalty() for own in self.regressions.values()))

    def _ridge(self, side, some):
        """The ridge of some rows of a side."""
        own, n_others = self.rows[side][some], (self.plan.n_items, self.plan.n_users)[side]
        if self.means[side] is not None:
            own = own - self.means[side][some]
        return self.alpha * ((self.mass[side][some] + n_others) * own[:, self.free[side]].square()).sum()

    def solution(self):
        users, items = self.rows
        factors = Factors.from_rows(users, items, self.n_factors, self.plan.mean_of_users)
        return with_weights(factors, self.regressions, users, items, self.plan)

    def state(self):
        users, items = self.rows
        rest = {"of_observed": self.of_observed, "iteration": self.iteration}
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
        self.of_observed = state["rest"]["of_observed"]
        self.iteration = state["rest"]["iteration"]

    def advice(self):
        return ". Lower the weights (y, sample_weight) or raise alpha."


def sums_of_equals(pairs, value):
    """Sum a value of pairs that are there more than once, one after the other.

    Parameters
    ----------
    pairs : Pairs
    value : Tensor of shape (n_pairs,) or float
        A float is that of every pair.

    Returns
    -------
    Tensor of shape (n_pairs,)
        At each pair the sum over those that are the same; of a float in float64.
    """
    if isinstance(value, float):
        value = torch.full((pairs.n_pairs,), value, dtype=torch.float64, device=pairs.device)
    starts = torch.ones(pairs.n_pairs, dtype=torch.bool, device=pairs.device)
    starts[1:] = (pairs.columns[1:] != pairs.columns[:-1]) | (pairs.users[1:] != pairs.users[:-1])
    if starts.all():
        return value
    number = starts.cumsum(0) - 1
    return value.new_zeros(int(number[-1]) + 1).index_add_(0, number, value)[number]


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
    def of(cls, moment, observed, free, n_others, alpha, plan):
        """Diagonalise the forms over all other rows and over a row's own, of mass one.

        Parameters
        ----------
        moment : Tensor of shape (w', w')
            The second moments of all columns of the other rows.
        observed : Tensor of shape (w, w)
            Those of the free ones over the observed pairs.
        free : slice or list of int
            Which columns are free.
        n_others : int
        alpha : float
        plan : Plan
        """
        cross = moment[:, free]
        everywhere = cross[free].clone()
        everywhere.diagonal().add_(alpha * n_others)
        observed.diagonal().add_(alpha)
        tiny = torch.finfo(everywhere.dtype).eps * (everywhere.trace() + 1)
        everywhere.diagonal().add_(tiny)  # definite where alpha is next to nothing
        factor = torch.linalg.cholesky(everywhere)
        pencil = torch.linalg.solve_triangular(factor, observed, upper=False)
        pencil = torch.linalg.solve_triangular(factor, pencil.T, upper=False)
        spectrum, basis = torch.linalg.eigh((pencil + pencil.T) / 2)
        basis = torch.linalg.solve_triangular(factor.T, basis, upper=True)  # everywhere -> I, observed -> diag(spectrum)
        spectrum, basis = plan.agreed(spectrum, basis)
        return cls(cross, spectrum, basis, n_others, alpha)

    def step(self, rows, free, mass, sums, means=None):
        """Find where rows (n, w') with mass (n, 1) go in their free columns, which the observed pairs pull by sums (n, w).

        They shrink to ``means`` (n, w'), by default to zero.
        """
        own = rows[:, free]
        deviation = own if means is None else own - means[:, free]
        slope = torch.addmm(sums, rows, self.cross, alpha=-1).addcmul_(mass + self.n_others, deviation, value=-self.alpha)
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

    def change(self, length, sums, squares):
        """By how much the rows' own pairs change the objective, a float, where rows go so far; sums (n, w) pulled them."""
        slope = (sums * self.direction).sum(1)
        return float(length[:, 0].mul(length[:, 0] * squares - 2 * slope).sum(dtype=torch.float64))
