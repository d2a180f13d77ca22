"""Matrix factorization that learns its own regularisation, by half-steps on the fused kernels. Knows tensors only."""

from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from sk_torchmf.model.factors import Factors
from sk_torchmf.model.posterior import Posterior
from sk_torchmf.nn.row_steps import (
    Frame,
    Informed,
    Rows,
    gradients,
    newton_steps,
    row_moments,
    step_lengths,
    variance_sums,
    with_one,
)
from sk_torchmf.solvers.base import Solver
from sk_torchmf.solvers.design import SEEN, SideFeatures
from sk_torchmf.solvers.effects import EffectBiases
from sk_torchmf.solvers.feature_prior import FeaturePrior, floored
from sk_torchmf.solvers.likelihood import Likelihood
from sk_torchmf.solvers.observed import observed_blocks
from sk_torchmf.solvers.prior_means import to_array

START_NOISE = 0.5  # of the ratings' variance
START_BIAS = 0.2  # likewise
NOISE_FLOOR = 1e-6
BLOCK = 2**20  # pairs worked on at once
ALL = slice(None)
LEARNED = (  # of a side as a whole
    "mean_covariance",
    "mean_covariance_over_ratings",
    "basis",
    "curvature",
    "moment",
    "reference",
    "square",
)


@dataclass
class Side:
    r"""One side's rows, users or items, and what is known of them.

    A row is a factor row, followed by the row's bias in a biased model. A row with c ratings has the posterior covariance
    :math:`M \, \mathrm{diag}(s^2 / (c L + s^2)) \, M^\top` given its prior mean; one without ratings has the prior's,
    :math:`M M^\top = T`.

    Attributes
    ----------
    prior : FeaturePrior
        Of the rows. Its design knows how sums over the rows go.
    rows : Rows
        Posterior means.
    count : Tensor of shape (n_rows, 1)
        c, the weighted number of ratings; for other losses than the squared error the summed curvature, relative to its.
    mean_covariance, mean_covariance_over_ratings : Tensor of shape (width, width), float64, on the CPU
        Posterior covariance averaged over the rows, and over the ratings.
    basis : Tensor of shape (width, width), float64, on the CPU
        M.
    curvature : Tensor of shape (width,), float64, on the CPU
        L, the curvature of one rating in each direction of the basis.
    total_count : float
        The sum of c over the rows.
    moment : Tensor of shape (width, width), float64, on the CPU
        Second moment, over the ratings, of what the other side's rows are multiplied with: factors and, in a biased model, a one.
    reference : Tensor of shape (width,)
        A row near their mean.
    square : Tensor of shape (width + 1, width + 1), float64, on the CPU
        Second moment, over the rows, of how far they are from their prior means or, where they have no features, from
        ``reference``; followed by a one.
    """

    prior: FeaturePrior
    rows: Rows
    count: Tensor
    mean_covariance: Tensor
    mean_covariance_over_ratings: Tensor
    basis: Tensor
    curvature: Tensor
    total_count: float = field(init=False)
    moment: Tensor = field(init=False)
    reference: Tensor = field(init=False)
    square: Tensor = field(init=False)

    def __post_init__(self):
        self.recount()
        self.measure()

    @property
    def n_factors(self):
        """How many of a row's numbers are factors."""
        return self.rows.factors.shape[1]

    def total(self, function):
        """Sum over the rows, see ``Design.total``."""
        return self.prior.design.total(function)

    def recount(self):
        """Bring ``total_count`` up to date with the counts."""
        (self.total_count,) = self.total(lambda some: [float(self.count[some].sum())])

    def measure(self, frame=None, noise=1.0):
        """Bring up to date what depends on all rows: ``moment`` and ``square`` and, after a half-step, the posterior covariances.

        The rows are looked at once, and as differences: what float32 rounds is then small.
        """
        self.reference = self.prior.coefficients[0].clone()
        mean_variance = None if frame is None else self.prior.mean_variance()

        def sums(some):
            own, count = self.rows.some(some), self.count[some]
            if not self.prior.design.groups:
                return row_moments(own, self.reference, count, frame, noise)
            rows = own.whole()
            Y, D = with_one(rows - self.reference), with_one(rows - self.prior.rows[some])  # (n, width + 1)
            found = [D.T @ D, (Y * count).T @ Y]
            if frame is not None:
                found += variance_sums(count, frame.L, noise, None if mean_variance is None else mean_variance[some])
            return found

        square, moment, *uncertainty = (part.double().cpu() for part in self.total(sums))
        self.square, self.moment = square / self.prior.n_in_all, _met(moment / self.total_count, self.reference, self.n_factors)
        if frame is not None:
            over_rows, over_ratings = uncertainty
            self.mean_covariance = _sandwich(self.basis, over_rows / self.prior.n_in_all)
            self.mean_covariance_over_ratings = _sandwich(self.basis, over_ratings / self.total_count)

    def covariance(self):
        """T, the covariance of the rows about their prior means, with their uncertainty: (width, width), float64, on the CPU."""
        T = self.square[:-1, :-1] + self.mean_covariance
        if not self.prior.design.groups:  # about their mean
            T.addr_(self.square[-1, :-1], self.square[-1, :-1], alpha=-1.0)
        return floored(T, self.count.dtype)

    def centre(self):
        """Where rows have no features, their prior mean is their mean."""
        if not self.prior.design.groups:
            self.prior.centre(self.reference + self.square[-1, :-1].to(self.reference))

    def improve_prior(self, frame, slopes, slope, noise):
        """Improve the prior means of rows that have features, by what their ratings say of all rows."""
        gradient = gradients(frame, self.rows.factors, self.count, slopes, slope)
        h = self.count * frame.L
        scale = h + noise
        deviation = self.prior.design.product(self.rows.whole() - self.prior.rows, frame.N)
        excess = deviation.mul_(h).sub_(gradient).div_(scale)  # not fused, which is rounded otherwise at the end of an array
        self.prior.improve(self.basis, frame.exact_N, excess, h / scale)

    def some(self, some):
        """A slice of the rows with what is known of them."""
        return Informed(self.rows.some(some), self.prior.rows[some], self.count[some])

    def move(self, some, length, move):
        """Move a slice of the rows, in place."""
        rows = self.rows.some(some)
        rows.factors.addcmul_(length[:, None], move.factors, value=-1.0)
        if rows.biases is not None:
            rows.biases.addcmul_(length, move.biases, value=-1.0)

    def _basis(self, T, S):
        """What ``diagonalise`` returns; where other processes have rows of the side, the same for all."""
        plan = self.prior.design.plan
        return diagonalise(T, S) if plan is None else plan.agreed(*diagonalise(T, S))

    def learned(self, S, noise):
        """What is known of the rows beside their means: a Posterior and, where they have features, FeatureWeights or None."""
        count = to_array(self.count[:, 0])
        posterior = Posterior(self.basis.numpy(), self.curvature.numpy(), noise, count)
        if not self.prior.design.groups:
            return posterior, None
        prior, T, N, rows = self.prior, self.covariance(), torch.linalg.inv(self.basis).T, self.rows.whole()
        pull = prior.design.product(rows - prior.rows, torch.linalg.inv(T).to(rows))
        information = self.count * prior.design.product(rows, S.to(rows)) + noise * pull
        cold, spread = prior.without({SEEN}, information, self.count, noise, T, partial(self._basis, S=S))
        unknown = (N * ((T + prior.covariance_of_means()) @ N)).sum(0) - 1  # of a row of which nothing is known
        mean_variance = np.concatenate([to_array(prior.mean_variance()), [to_array(unknown)]]).astype(np.float32)
        return replace(posterior, mean_variance=mean_variance), prior.weights(cold, spread, N, prior.shares(S, T))


def _frame(own, other, n_factors, plan):
    """Diagonalise T and S together, M'T^-1 M = 1 and M'S M = L, for a half-step of one side; the side keeps M and L."""
    own.centre()
    M, N, L = plan.agreed(*diagonalise(own.covariance(), _curvature(other, n_factors)))
    own.basis, own.curvature = M, L
    return Frame.of(M, N, L, other.mean_covariance_over_ratings[:n_factors], own.count)


def _curvature(other, n_factors):
    """S, the second moment of what a side's rows are multiplied with, the other side's uncertainty included."""
    S, k = other.moment.clone(), n_factors
    S[:k, :k] += other.mean_covariance_over_ratings[:k, :k]
    return S


def diagonalise(T, S):
    """M, N, L with M M' = T, N the inverse of M transposed, and M'S M = diag(L): float64, on the CPU.

    Products and decompositions are torch's: those of NumPy and SciPy run on threads of their own, which no call of torch's limits,
    and which on a busy machine take milliseconds where the work takes microseconds.
    """
    R = torch.linalg.cholesky(T)
    L, W = torch.linalg.eigh(R.T @ S @ R)
    return R @ W, torch.linalg.solve_triangular(R.T, W, upper=True), L.clamp_min(0)


class Variational(Solver):
    r"""Fit a built-in module by variational empirical Bayes, in place.

    Model: :math:`r_{ui} \sim N(s_{ui}, s^2)`, and each side's rows are draws from a Gaussian whose mean and full covariance T are
    *learned* with them, as is the noise :math:`s^2`: there is no regularisation parameter. Where rows have features, the mean is
    linear in them, with coefficients that have learned priors of their own, see ``FeaturePrior``. A row's posterior covariance is
    approximated with one Gram matrix S that its whole side shares, :math:`C_u^{-1} = T^{-1} + (c_u / s^2) S`, where S is that of
    the other side's rows over the ratings plus their own posterior covariance. T and S are diagonalised together, so that in the
    coordinates of M a half-step is a division by :math:`c_u L + s^2`, then an exact line search for each row. Its cost is two
    passes over the pairs, one for the gradient and one for the line search. Nothing is kept for a pair, and no rating ever sees a
    feature.

    Other losses than the squared error enter by their slope (autograd) and by their curvature at each pair, which multiplies the
    weight. Poisson, logistic and ordinal losses are log-likelihoods: their :math:`s^2` is 1/2 and not learned. Cut points between
    levels are learned after each epoch, by the scores and their uncertainty.

    Parameters
    ----------
    module : PlainMF or BiasedMF
        The start; its parameters become the posterior means.
    plan : Plan
        Every user and item has at least one rating.
    rating : Tensor of shape (n_pairs,)
        Standardised ratings, user-major, or whatever gives the tensor of a block by its span.
    weight : Tensor of shape (n_pairs,) or None
        Observation weights > 0, user-major; likewise.
    loss : PointwiseLoss
    features : SideFeatures, optional
        Of the users and items that the module has.
    effects : sequence of (Tensor of shape (n_pairs,), int, bool), optional
        The codes of each effect, int64 and user-major, how many there are, and whether each belongs to one user.
    cuts : OrdinalCuts, optional
        On the plan and with the weights, where ratings are levels: they say what the loss is of each pair.

    Notes
    -----
    The figures of an epoch, a pair of half-steps, are ``loss``, the mean loss of the ratings after it, and ``noise_std``, s of the
    standardised ratings. There is a new optimum in every epoch, so the loss says nothing about when to stop. The solution has
    posteriors.

    References
    ----------
    .. [1] Lim, Teh, Variational Bayesian Approach to Movie Rating Prediction, KDD Cup and Workshop 2007. There each row has a Gram
       matrix of its own and the prior is diagonal; the shared matrix is what makes a half-step as cheap as a gradient.
    """

    max_iter = 10

    def __init__(self, module, plan, rating, weight, loss, features=None, effects=(), cuts=None):
        self.module, self.loss, self.cuts = module, loss, cuts
        self.plan = plan.cut(max_pairs=BLOCK, max_users=None if cuts is None else cuts.max_users)
        self.n_factors, self.biased = module.user_factors.shape[1], module.biased
        self.features = SideFeatures() if features is None else features
        like = module.user_factors.detach()
        self.effects = [
            EffectBiases(n_codes, like, self._owners(code, n_codes) if of_users else None) for code, n_codes, of_users in effects
        ]
        constant = float(module.global_mean) if self.biased else 0.0
        self.likelihood = Likelihood(loss, self.effects, cuts, constant)
        values, codes = rating if cuts is None else cuts.place, [code for code, *_ in effects]
        self.blocks = self.curved = observed_blocks(self.plan, values, weight, codes)
        if self.likelihood.is_squared_error and not isinstance(self.blocks, list):
            self.curved = self.blocks.without_values()  # how it bends no rating says
        self.sides = self._start(weight)
        self.items_at_once = (
            self.likelihood.is_squared_error
            and isinstance(self.blocks, list)
            and len(self.blocks) == plan.processes.size == 1
            and not self.sides[1].prior.design.groups
        )
        self.noise = START_NOISE if loss.standardised else 0.5

    def _owners(self, code, n_codes):
        """The user of each code, where the codes (n_pairs,) belong to users: (n_codes,)."""
        owner = torch.zeros(n_codes, dtype=torch.int64, device=self.plan.device)
        for rows, span, block in self.plan:
            owner[code[span]] = rows.start + block.users.long()
        return owner

    def _start(self, weight):
        """Both sides at the module's parameters, with a guess of the uncertainty: what n ratings can tell of so many numbers."""
        k, plan = self.n_factors, self.plan
        counts = plan.sums(weight)
        (self.total_weight,) = plan.total_over_users(lambda some: [float(counts[0][some].sum())])
        informed = min(1.0, self.total_weight / (k * (plan.n_users + plan.n_items)))
        factors = [getattr(self.module, f"{role}_factors").detach() for role in ("user", "item")]
        biases = [getattr(self.module, f"{role}_biases").detach() if self.biased else None for role in ("user", "item")]
        users, items = rows = [Rows(*own) for own in zip(factors, biases, strict=True)]
        (of_users,) = plan.total_over_users(lambda some: [users.some(some).sum()])
        means = of_users / plan.n_users, items.sum() / len(items.factors)
        sides = []
        for at, design in enumerate(self.features.designs(plan, factors[0])):
            guess = torch.full((k + self.biased,), informed / k**0.5, dtype=torch.float64, device="cpu")
            across = means[1 - at][:k]  # where the other side's rows point, a row is its bias
            guess[k if self.biased else int(across.abs().argmax())] = START_BIAS
            prior, nothing = FeaturePrior(design, means[at], torch.diag(guess)), torch.zeros_like(torch.diag(guess))
            count = counts[at].to(factors[at].dtype)[:, None]
            sides.append(Side(prior, rows[at].copy(), count, torch.diag(guess), nothing, nothing, guess))
        return sides

    def step(self):
        users, items = self.sides
        loss = dispersion = self._move_items(self._move_users())
        unknown = _score_variance(users, items, self.n_factors)
        for number, effect in enumerate(self.effects):
            scores = (self._scores(rows, by_user) for rows, by_user, _ in self.blocks)
            parts = ((by_user.codes[number], *self.likelihood.slopes(by_user, score)) for _, by_user, score in scores)
            change, variance = effect.improve(self.plan, parts, self.noise)
            unknown += variance
            loss = dispersion = loss + change
        if self.cuts is not None:
            self.cuts.learn((self._scores(rows, by_user) for rows, by_user, _ in self.blocks), unknown)
        if not self.likelihood.is_squared_error:
            loss, dispersion = self._losses()
        if self.loss.dispersion is not None:
            dispersion = min(dispersion, self.total_weight)  # at most the ratings' own
        if self.loss.standardised:
            self.noise = max(dispersion / self.total_weight + unknown, NOISE_FLOOR)
        return {"loss": loss / self.total_weight, "noise_std": self.noise**0.5}

    def _move_users(self):
        """Improve the users' prior and their rows, with the items' rows fixed, and sum the items' gradients at the new rows.

        Where users have no features one visit of a block does all of it.
        """
        plan, likelihood, noise, (own, other) = self.plan, self.likelihood, self.noise, self.sides
        frame, of_all = _frame(own, other, self.n_factors, plan), None
        if own.prior.design.groups:
            blocks = [self._user_sums(rows, by_user)[:2] for rows, by_user, _ in self.blocks]
            of_all = [None if parts[0] is None else torch.cat(parts) for parts in zip(*blocks, strict=True)]
            own.improve_prior(frame, *of_all, noise)
        for rows, by_user, by_item in self.blocks:
            moved = None
            if of_all is None:
                moved = likelihood.half_step(frame, by_user, own.some(rows), other.rows, noise)
            if moved is None:
                if of_all is None:
                    slopes, slope, bend = self._user_sums(rows, by_user)
                else:
                    slopes, slope = (None if part is None else part[rows] for part in of_all)
                    bend = likelihood.bend(by_user, own.rows.some(rows), other.rows)
                steps = newton_steps(frame, own.some(rows), slopes, slope, noise)
                own.move(rows, step_lengths(steps, likelihood.squares(by_user, other.rows, steps.move, bend)), steps.move)
            if not self.items_at_once:
                plan.add(*likelihood.sums(by_item, other.rows, own.rows.some(rows))[:3])
        of_items = None if self.items_at_once else plan.total()
        if not likelihood.is_squared_error:
            own.recount()
        own.measure(frame, noise)
        return of_items

    def _user_sums(self, rows, observed):
        """The slopes and ``Likelihood.bend`` of a block's users, see ``Likelihood.sums``; brings their counts up to date."""
        own, other = self.sides
        slopes, slope, last, bend = self.likelihood.sums(observed, own.rows.some(rows), other.rows)
        if not self.likelihood.is_squared_error:
            own.count[rows] = last[:, None]
        return slopes, slope if self.biased else None, bend

    def _move_items(self, of_items):
        """Improve the items' prior and their rows by the ``Likelihood.sums`` of them; return the squared error then, summed.

        None where all of their ratings are in one block: they are then asked here.
        """
        plan, likelihood, noise, (other, own) = self.plan, self.likelihood, self.noise, self.sides
        frame = _frame(own, other, self.n_factors, plan)
        if of_items is None:
            ((_, _, by_item),) = self.blocks
            errors = likelihood.half_step(frame, by_item, own.some(ALL), other.rows, noise)
            if errors is not None:
                own.measure(frame, noise)
                return float(errors.sum(dtype=torch.float64))
            of_items = likelihood.sums(by_item, own.rows, other.rows)[:3]
        slopes, slope, last = of_items
        if not likelihood.is_squared_error:
            own.count[:] = last[:, None]
            own.recount()
        slope = slope if self.biased else None
        if own.prior.design.groups:
            own.improve_prior(frame, slopes, slope, noise)
        steps = newton_steps(frame, own.some(ALL), slopes, slope, noise)
        for rows, _, by_item in self.curved:
            bend = likelihood.bend(by_item, own.rows, other.rows.some(rows))
            plan.add(likelihood.squares(by_item, other.rows.some(rows), steps.move, bend))
        (squares,) = plan.total()
        length = step_lengths(steps, squares)
        own.move(ALL, length, steps.move)
        own.measure(frame, noise)
        return float((last.double() + length * (length * squares - 2 * steps.turn)).sum())

    def _scores(self, rows, by_user):
        """A block's users, what was observed of them, and the scores there."""
        return rows, by_user, self.likelihood.scores(by_user, self.sides[0].rows.some(rows), self.sides[1].rows)

    def _losses(self):
        """The losses of all pairs, and what they say of the noise, summed."""
        for _, by_user, score in (self._scores(rows, by_user) for rows, by_user, _ in self.blocks):
            self.plan.add(*self.likelihood.losses(by_user, score, self.noise))
        return self.plan.total()

    def solution(self):
        k = self.n_factors
        with torch.no_grad():
            for side, name in zip(self.sides, ("user", "item"), strict=True):
                getattr(self.module, f"{name}_factors").copy_(side.rows.factors)
                if self.biased:
                    getattr(self.module, f"{name}_biases").copy_(side.rows.biases)
        users, items = self.sides
        learned = [side.learned(_curvature(other, k), self.noise) for side, other in ((users, items), (items, users))]
        posteriors = [posterior for posterior, _ in learned]
        factors = Factors.from_module(self.module, None, posteriors, self.noise, self.plan.mean_of_users)
        effects = [effect.learned(centred=self.biased) for effect in self.effects]
        if self.biased:  # what effects are on average is the constant's
            factors = replace(factors, constant=factors.constant + sum(effect.average for effect in self.effects))
        users_and_items = [
            replace(side, weights=weights) for side, (_, weights) in zip((factors.users, factors.items), learned, strict=True)
        ]
        prior = _user_prior(users, items, self.noise, k)
        cut_points = None if self.cuts is None else self.cuts.solution()
        sides = {"users": users_and_items[0], "items": users_and_items[1]}
        return replace(factors, **sides, prior=prior, effects=effects, cut_points=cut_points)

    def state(self):
        effects = [effect.state() for effect in self.effects]
        state = {"rest": {"noise": self.noise, "effects": [rest for rest, _ in effects]}}
        for role, side in zip(("user", "item"), self.sides, strict=True):
            state[role] = {"rows": side.rows.whole(), "count": side.count}
            if side.prior.design.groups:  # which its coefficients give to rounding, and not to the last bit
                state[role]["prior_means"] = side.prior.rows
            state["rest"] |= {f"{role}_{name}": getattr(side, name) for name in LEARNED}
            state["rest"][f"{role}_prior"] = side.prior.state()
        state["user"] |= {f"effect_{number}": own for number, (_, own) in enumerate(effects) if own is not None}
        if self.cuts is not None:
            for part, values in self.cuts.state().items():
                state[part] |= values
        return state

    def restore(self, state):
        rest = state["rest"]
        for role, side in zip(("user", "item"), self.sides, strict=True):
            side.rows = Rows.of(state[role]["rows"].to(side.count), self.n_factors)
            known = {"count": state[role]["count"]} | {name: rest[f"{role}_{name}"] for name in LEARNED}
            for name, value in known.items():
                setattr(side, name, value.to(getattr(side, name), copy=True))  # not in place: at the start two names are one tensor
            side.prior.restore(rest[f"{role}_prior"])
            if side.prior.design.groups:
                side.prior.rows = state[role]["prior_means"].to(side.count, copy=True)
        for number, (effect, own) in enumerate(zip(self.effects, rest["effects"], strict=True)):
            effect.restore(own, state["user"].get(f"effect_{number}"))
        if self.cuts is not None:
            self.cuts.restore(state)
        self.noise = rest["noise"]

    def converged(self, losses, tol):
        return False

    def advice(self):
        return ". Check the ratings for extreme values."


def _user_prior(users, items, noise, n_factors):
    """The prior of a new user without known features: the learned Gaussian, and each rated item's uncertainty."""
    width = len(users.basis)
    precision, shift = np.zeros((3, width, width)), np.zeros((3, width))
    users.centre()
    precision[0] = noise * torch.linalg.inv(users.covariance()).numpy()
    shift[0] = precision[0] @ to_array(users.prior.average({SEEN}))
    precision[2, :n_factors, :n_factors] = items.mean_covariance_over_ratings[:n_factors, :n_factors].numpy()
    shift[2, :n_factors] = -items.mean_covariance_over_ratings[:n_factors, n_factors:].sum(1).numpy()
    return precision, shift


def _score_variance(users, items, n_factors):
    """The posterior variance of a score, averaged over the ratings."""
    of_users, of_items = users.mean_covariance_over_ratings.view(-1), items.mean_covariance_over_ratings.view(-1)
    return float(_curvature(items, n_factors).view(-1) @ of_users + users.moment.view(-1) @ of_items)


def _met(moment, reference, n_factors):
    """``Side.moment`` by that of the rows' differences from a reference (width,), followed by a one: (width + 1, width + 1)."""
    k, moment, by = n_factors, moment.numpy(), to_array(reference[:n_factors])
    mean, ones = moment[:k, -1], moment[-1, -1]
    cross = np.multiply.outer(by, mean + ones / 2 * by)
    found = np.empty((len(reference), len(reference)))
    found[:k, :k] = moment[:k, :k] + cross + cross.T
    if len(found) > k:
        found[k, :k] = found[:k, k] = mean + ones * by
        found[k, k] = ones
    return torch.from_numpy(found)


def _sandwich(M, diagonal):
    return (M * diagonal) @ M.T
