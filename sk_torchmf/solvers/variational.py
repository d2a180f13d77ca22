"""Matrix factorization that learns its own regularisation, by half-steps on the fused kernels. Knows tensors only."""

from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

from sk_torchmf.model.factors import Factors
from sk_torchmf.model.posterior import Posterior
from sk_torchmf.nn import Pairs
from sk_torchmf.solvers.base import Solver

START_NOISE = 0.5  # of the ratings' variance
START_BIAS = 0.2  # likewise
NOISE_FLOOR = 1e-6
LONGEST_STEP = 2.0  # of a row's line search, in Newton steps
BLOCK = 2**20  # pairs worked on at once
LEARNED = ("spread", "doubt", "basis", "curvature", "moment")  # of a side as a whole, in an epoch


@dataclass
class Side:
    r"""One side's rows, users or items, and what is known of them.

    A row is a factor row, followed by the row's bias in a biased model. A row with c ratings has the posterior covariance
    :math:`M \, \mathrm{diag}(s^2 / (c L + s^2)) \, M^\top`; one without ratings has the prior's, :math:`M M^\top = T`.

    Attributes
    ----------
    plan : Pairs
        The pairs, this side's rows first.
    blocks : list of (slice, slice, Pairs)
        The plan cut into blocks of rows, so that nothing but scores, ratings and weights has a number for each of all pairs.
    rating : Tensor of shape (n_pairs,)
        In the plan's order; zeros on one number's storage for the squared error, whose scores are carried less the ratings.
    weight : Tensor of shape (n_pairs,) or None
        In the plan's order.
    rows : Tensor of shape (n_rows, width)
        Posterior means.
    count : Tensor of shape (n_rows, 1)
        c, the weighted number of ratings; for other losses than the squared error the summed curvature, relative to its.
    spread, doubt : Tensor of shape (width, width), float64, on the CPU
        Posterior covariance averaged over the rows, and over the ratings.
    basis : Tensor of shape (width, width), float64, on the CPU
        M.
    curvature : Tensor of shape (width,), float64, on the CPU
        L, the curvature of one rating in each direction of the basis.
    moment : Tensor of shape (width + 1, width + 1), float64, on the CPU
        Second moment, over the ratings, of the rows followed by a one.
    """

    plan: Pairs
    blocks: list
    rating: Tensor
    weight: Tensor | None
    rows: Tensor
    count: Tensor
    spread: Tensor
    doubt: Tensor
    basis: Tensor
    curvature: Tensor
    moment: Tensor = field(init=False)

    def __post_init__(self):
        self.measure()

    def measure(self):
        """Bring ``moment`` up to date with the rows and counts."""
        Y = torch.cat([self.rows, torch.ones_like(self.count)], 1)
        self.moment = ((Y * (self.count / float(self.count.sum()))).T @ Y).double().cpu()

    def covariance(self):
        """T, the covariance of the rows with their uncertainty: (width, width), float64, on the CPU."""
        deviation = self.rows - self.rows.mean(0)
        T = (deviation.T @ deviation).double().cpu() / len(self.rows) + self.spread
        floor = 10 * torch.finfo(deviation.dtype).eps * T.diagonal().max()  # rounding must not make it indefinite
        return T + floor * torch.eye(len(T), dtype=T.dtype, device=T.device)


class Variational(Solver):
    r"""Fit a built-in module by variational empirical Bayes, in place.

    Model: :math:`r_{ui} \sim N(s_{ui}, s^2)`, and each side's rows are draws from a Gaussian whose mean and full covariance T are
    *learned* with them, as is the noise :math:`s^2`: there is no regularisation parameter. A row's posterior covariance is
    approximated with one Gram matrix S that its whole side shares, :math:`C_u^{-1} = T^{-1} + (c_u / s^2) S`, where S is that of
    the other side's rows over the ratings plus their own posterior covariance. T and S are diagonalised together, so that in the
    coordinates of M a half-step is a division by :math:`c_u L + s^2`, then an exact line search for each row. Its cost is one SDDMM
    and one SpMM.

    Other losses than the squared error enter by their slope (autograd) and by their curvature at each pair, which multiplies the
    weight. Poisson and logistic losses are log-likelihoods: their :math:`s^2` is 1/2 and not learned.

    Parameters
    ----------
    module : PlainMF or BiasedMF
        The start; its parameters become the posterior means.
    pairs : Pairs
        Every user and item has at least one rating.
    rating : Tensor of shape (n_pairs,)
        Standardised ratings, user-major.
    weight : Tensor of shape (n_pairs,) or None
        Observation weights > 0, user-major.
    loss : PointwiseLoss
    lost : float, default=0.0
        Noise that the ratings no longer show, as a variance: that of earlier ratings of which only a sketch is left.

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

    def __init__(self, module, pairs, rating, weight, loss, *, lost=0.0):
        self.module, self.pairs, self.weight, self.loss, self.lost = module, pairs, weight, loss, lost
        self.n_factors = module.user_factors.shape[1]
        self.biased = hasattr(module, "user_biases")
        self.score = module.forward_pairs(pairs).detach()
        if loss.name == "squared_error":  # the difference is all it needs: carry that, and no ratings in two orders
            self.score, rating = self.score.sub_(rating), rating.new_zeros(1).expand(pairs.n_pairs)
        self.rating = rating
        self.sides = _start(module, pairs, rating, weight, self.n_factors, self.biased)
        self.by_item = torch.empty_like(self.score)
        self.noise = START_NOISE if loss.standardised else 0.5

    def step(self):
        users, items = self.sides
        score, loss, noise = self.score, self.loss, self.noise
        _half_step(users, items, score, noise, loss, self.n_factors)
        torch.index_select(score, 0, self.pairs.T.order, out=self.by_item)
        _half_step(items, users, self.by_item, noise, loss, self.n_factors)
        torch.index_select(self.by_item, 0, self.pairs.T.inverse_order, out=score)
        mean_loss = mean_noise = _mean(loss, score, self.rating, self.weight)
        if loss.dispersion is not None:
            mean_noise = _mean(partial(loss.dispersion, noise=noise), score, self.rating, self.weight)
            mean_noise = min(mean_noise, 1.0)  # at most the ratings' own
        if loss.standardised:
            unknown = self.lost + _score_variance(users, items, self.n_factors, self.biased)
            self.noise = max(mean_noise + unknown, NOISE_FLOOR)
        return {"loss": mean_loss, "noise_std": self.noise**0.5}

    def solution(self):
        k = self.n_factors
        with torch.no_grad():
            for side, name in zip(self.sides, ("user", "item"), strict=True):
                getattr(self.module, f"{name}_factors").copy_(side.rows[:, :k])
                if self.biased:
                    getattr(self.module, f"{name}_biases").copy_(side.rows[:, k])
        posteriors = tuple(
            Posterior(side.basis.numpy(), side.curvature.numpy(), self.noise, side.count[:, 0].double().cpu().numpy().copy())
            for side in self.sides
        )
        users, items = self.sides
        return Factors.from_module(self.module, _user_prior(users, items, self.noise, k), posteriors, self.noise)

    def residual(self):
        """What the standardised ratings differ by from their scores, as the loss has it: shape (n_pairs,), user-major."""
        return self.score.neg() if self.loss.name == "squared_error" else self.loss.residual(self.score, self.rating)

    def state(self):
        state = {"rest": {"score": self.score, "noise": self.noise}}
        for role, side in zip(("user", "item"), self.sides, strict=True):
            state[role] = {"rows": side.rows, "count": side.count}
            state["rest"] |= {f"{role}_{name}": getattr(side, name) for name in LEARNED}
        return state

    def restore(self, state):
        rest = state["rest"]
        for role, side in zip(("user", "item"), self.sides, strict=True):
            for name, value in (state[role] | {name: rest[f"{role}_{name}"] for name in LEARNED}).items():
                setattr(side, name, value.to(getattr(side, name), copy=True))  # not in place: at the start two names are one tensor
        self.score.copy_(rest["score"])
        self.noise = rest["noise"]

    def converged(self, losses, tol):
        return False

    def advice(self):
        return ". Check the ratings for extreme values."


def _mean(function, score, rating, weight):
    """Weighted mean over the pairs of a function of score and rating, a part at a time."""
    parts = (score.split(BLOCK), rating.split(BLOCK)) + (() if weight is None else (weight.split(BLOCK),))
    total = 0.0
    for part_score, part_rating, *part_weight in zip(*parts, strict=True):
        if part_rating.stride(0) == 0:  # the squared error's score is the error
            total += float(torch.dot(part_score, part_score * part_weight[0] if part_weight else part_score))
            continue
        value = function(part_score, part_rating)
        total += float(torch.dot(value, part_weight[0]) if part_weight else value.sum())
    return total / (len(score) if weight is None else float(weight.sum()))


def _start(module, pairs, rating, weight, n_factors, biased):
    """Both sides at the module's parameters, with a guess of the uncertainty: what n ratings can tell of so many numbers."""
    counts = pairs.sums(weight)
    informed = min(1.0, float(counts[0].sum()) / (n_factors * sum(pairs.shape)))
    sides = []
    for plan, name, other, count in zip((pairs, pairs.T), ("user", "item"), ("item", "user"), counts, strict=True):
        rows = getattr(module, f"{name}_factors").detach()
        if biased:
            rows = torch.cat([rows, getattr(module, f"{name}_biases").detach()[:, None]], 1)
        own_rating, own_weight = rating, weight
        if name == "item":
            own_rating = rating.index_select(0, plan.order) if rating.stride(0) else rating
            own_weight = None if weight is None else weight.index_select(0, plan.order)
        guess = torch.full((n_factors + biased,), informed / n_factors**0.5, dtype=torch.float64, device="cpu")
        across = getattr(module, f"{other}_factors").detach().mean(0)  # where the other side's rows point, a row is its bias
        guess[n_factors if biased else int(across.abs().argmax())] = START_BIAS
        doubt = torch.zeros_like(torch.diag(guess))
        count = count.to(rows.dtype)[:, None]
        blocks = list(plan.blocks(BLOCK))
        sides.append(Side(plan, blocks, own_rating, own_weight, rows, count, torch.diag(guess), doubt, doubt, guess))
    return sides


def _half_step(own, other, score, noise, loss, n_factors):
    """Improve one side's rows and the scores, in place, with the other side's rows fixed; ``score`` is in ``own.plan``'s order."""
    k, width = n_factors, own.rows.shape[1]
    Q, mean = other.rows[:, :k].contiguous(), own.rows.mean(0)

    # T and S, diagonalised together: M'T^-1 M = 1, M'S M = L
    E = torch.zeros_like(own.spread)
    E[:k, :k] = other.doubt[:k, :k]
    features = [*range(k), -1][:width]  # of a row's scores: the other side's factors, and one where there is a bias
    S = other.moment[features][:, features] + E
    R = torch.linalg.cholesky(own.covariance())
    L, W = torch.linalg.eigh(R.T @ S @ R)
    L, M, N = L.clamp_min(0), R @ W, torch.linalg.solve_triangular(R.T, W, upper=True)
    pull = other.doubt[:, k:].sum(1)  # covariance of q with b_i
    pull[k:] = 0
    own.basis, own.curvature = M, L
    to_gradient, to_move = torch.cat([E @ M, N], 1), torch.cat([M.T, M.T @ E @ M], 1)
    M, L, to_gradient, to_move, pull = (array.to(Q) for array in (M, L, to_gradient, to_move, pull @ M))
    centre = mean @ to_gradient[:, width:]

    spread, doubt = Q.new_zeros(2, width, dtype=torch.float64)
    for rows, span, plan in own.blocks:
        x, c, part = own.rows[rows], own.count[rows], score[span]
        error, bend = _slope(loss, part, own.rating[span], None if own.weight is None else own.weight[span])
        if bend is not None:
            c[:] = plan.row_sums(bend)[:, None]

        # gradient, in M's coordinates; step; line search
        gradient = plan.user_sums(error, Q) @ M[:k]  # (b, width)
        if width > k:
            gradient.addr_(plan.row_sums(error), M[k])
        uncertain, prior = (x @ to_gradient).split(width, 1)
        gradient.addcmul_(c, uncertain + pull).add_(prior - centre, alpha=noise)
        scale = c * L + noise
        step = gradient / scale
        d, uncertain = (step @ to_move).split(width, 1)
        move = plan.dots(d[:, :k].contiguous(), Q, add_to=plan.expand(d[:, k].contiguous()) if width > k else None)
        square = move.square() if bend is None else move.square().mul_(bend)
        square = plan.row_sums(square) + c[:, 0] * (uncertain * step).sum(1) + noise * step.square().sum(1)
        length = ((gradient * step).sum(1) / square.clamp_min(1e-30)).clamp_max(LONGEST_STEP)  # (b,)
        x.addcmul_(length[:, None], d, value=-1.0)
        part.addcmul_(plan.expand(length), move, value=-1.0)

        variance = noise / scale
        spread += variance.sum(0, dtype=torch.float64)
        doubt += (c * variance).sum(0, dtype=torch.float64)
    own.spread = _sandwich(own.basis, spread.cpu() / len(own.rows))
    own.doubt = _sandwich(own.basis, doubt.cpu() / float(own.count.sum()))
    own.measure()


def _slope(loss, score, rating, weight):
    """Half the weighted slope, and half the weighted second derivative or None where that is one: the squared error's terms."""
    if loss.name == "squared_error":
        return (score, None) if weight is None else (score * weight, weight)
    scale = 0.5 if weight is None else weight / 2
    return loss.slope(score, rating) * scale, loss.curvature(score, rating) * scale


def _user_prior(users, items, noise, n_factors):
    """The prior of a new user: the learned Gaussian, and for each rating the doubt about the item's row."""
    width = users.rows.shape[1]
    precision, shift = np.zeros((3, width, width)), np.zeros((3, width))
    precision[0] = noise * torch.linalg.inv(users.covariance()).numpy()
    shift[0] = precision[0] @ users.rows.mean(0).double().cpu().numpy()
    precision[2, :n_factors, :n_factors] = items.doubt[:n_factors, :n_factors].numpy()
    shift[2, :n_factors] = -items.doubt[:n_factors, n_factors:].sum(1).numpy()
    return precision, shift


def _score_variance(users, items, n_factors, biased):
    """The posterior variance of a score, averaged over the ratings."""
    k, variance = n_factors, 0.0
    for own, other in ((users, items), (items, users)):
        variance += float((other.moment[:k, :k] * own.doubt[:k, :k]).sum())
        if biased:
            variance += float(2 * other.moment[:k, -1] @ own.doubt[:k, k] + own.doubt[k, k])
    return variance + float((users.doubt[:k, :k] * items.doubt[:k, :k]).sum())


def _sandwich(M, diagonal):
    return (M * diagonal) @ M.T
