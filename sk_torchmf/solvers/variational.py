"""Matrix factorization that learns its own regularisation, by half-steps on the fused kernels. Knows tensors only."""

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sk_torchmf.exceptions import DivergenceError
from sk_torchmf.nn import Pairs
from sk_torchmf.solvers.solution import Posterior, Solution

START_NOISE = 0.6  # of the ratings' variance
NOISE_FLOOR = 1e-6
LONGEST_STEP = 2.0  # of a row's line search, in Newton steps


@dataclass
class Side:
    r"""One side's rows, users or items, and what is known of them.

    A row is a factor row, followed by the row's bias in a biased model. A row with c ratings has the posterior covariance
    :math:`M \, \mathrm{diag}(s^2 / (c L + s^2)) \, M^\top`; one without ratings has the prior's, :math:`M M^\top = T`.

    Attributes
    ----------
    plan : Pairs
        The pairs, this side's rows first.
    rating : Tensor of shape (n_pairs,), or () and zero
        In the plan's order; zero for the squared error, whose scores are carried less the ratings.
    weight : Tensor of shape (n_pairs,) or None
        Likewise.
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
    """

    plan: Pairs
    rating: Tensor
    weight: Tensor | None
    rows: Tensor
    count: Tensor
    spread: Tensor
    doubt: Tensor
    basis: Tensor
    curvature: Tensor

    def covariance(self):
        """T, the covariance of the rows with their uncertainty: (width, width), float64, on the CPU."""
        deviation = self.rows - self.rows.mean(0)
        T = (deviation.T @ deviation).double().cpu() / len(self.rows) + self.spread
        floor = 10 * torch.finfo(deviation.dtype).eps * T.diagonal().max()  # rounding must not make it indefinite
        return T + floor * torch.eye(len(T), dtype=T.dtype, device=T.device)


def fit_variational(module, pairs, rating, weight, loss, *, max_iter=10, report=None):
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
    max_iter : int
        Pairs of half-steps.
    report : callable, optional
        Called after each pair with (iteration, mean loss).

    Returns
    -------
    solution : Solution
    history : dict of list
        ``loss``: mean loss of the ratings; ``noise_std``: s, of the standardised ratings; ``seconds``.

    Raises
    ------
    DivergenceError
        Where the rows are not finite.

    References
    ----------
    .. [1] Lim, Teh, Variational Bayesian Approach to Movie Rating Prediction, KDD Cup and Workshop 2007. There each row has a Gram
       matrix of its own and the prior is diagonal; the shared matrix is what makes a half-step as cheap as a gradient.
    """
    n_factors = module.user_factors.shape[1]
    biased = hasattr(module, "user_biases")
    score = module.forward_pairs(pairs).detach()
    if loss.name == "squared_error":  # the difference is all it needs: carry that, and no ratings in two orders
        score, rating = score.sub_(rating), rating.new_zeros(())
    users, items = sides = _start(module, pairs, rating, weight, n_factors, biased)
    noise = START_NOISE if loss.standardised else 0.5
    history: dict[str, list] = {"loss": [], "noise_std": [], "seconds": []}
    for iteration in range(1, max_iter + 1):
        start = time.perf_counter()
        score = _half_step(users, items, score, noise, loss, n_factors).index_select(0, pairs.T.order)
        score = _half_step(items, users, score, noise, loss, n_factors).index_select(0, pairs.T.inverse_order)
        mean_loss = mean_noise = _mean(loss(score, rating), weight)
        if loss.dispersion is not None:
            mean_noise = min(_mean(loss.dispersion(score, rating, noise), weight), 1.0)  # at most the ratings' own
        if loss.standardised:
            noise = max(mean_noise + _score_variance(sides, n_factors, biased), NOISE_FLOOR)
        if not mean_loss - mean_loss == 0:
            raise DivergenceError(f"Loss became {mean_loss} in iteration {iteration}. Check the ratings for extreme values.")
        history["loss"].append(mean_loss)
        history["noise_std"].append(noise**0.5)
        history["seconds"].append(time.perf_counter() - start)
        if report is not None:
            report(iteration, mean_loss)
    with torch.no_grad():
        for side, name in zip(sides, ("user", "item"), strict=True):
            getattr(module, f"{name}_factors").copy_(side.rows[:, :n_factors])
            if biased:
                getattr(module, f"{name}_biases").copy_(side.rows[:, n_factors])
    posteriors = tuple(
        Posterior(side.basis.numpy(), side.curvature.numpy(), side.count[:, 0].double().cpu().numpy()) for side in sides
    )
    return Solution.from_module(module, _user_prior(users, items, noise, n_factors), posteriors, noise), history


def _mean(value, weight):
    return float(value.mean() if weight is None else torch.dot(value, weight) / weight.sum())


def _start(module, pairs, rating, weight, n_factors, biased):
    """Both sides at the module's parameters, with a guess of the uncertainty: what n ratings can tell of so many numbers."""
    counts = pairs.sums(weight)
    informed = min(1.0, (float(counts[0].sum()) / (n_factors * sum(pairs.shape))) ** 0.5)
    guess = torch.full((n_factors + biased,), informed / n_factors**0.5, dtype=torch.float64, device="cpu")
    guess[n_factors if biased else 0] = 0.1
    sides = []
    for plan, name, count in zip((pairs, pairs.T), ("user", "item"), counts, strict=True):
        rows = getattr(module, f"{name}_factors").detach()
        if biased:
            rows = torch.cat([rows, getattr(module, f"{name}_biases").detach()[:, None]], 1)
        own_rating, own_weight = rating, weight
        if name == "item":
            own_rating = rating.index_select(0, plan.order) if rating.ndim else rating
            own_weight = None if weight is None else weight.index_select(0, plan.order)
        doubt = torch.zeros_like(torch.diag(guess))
        count = count.to(rows.dtype)[:, None]
        sides.append(Side(plan, own_rating, own_weight, rows, count, torch.diag(guess), doubt, doubt, guess))
    return sides


def _half_step(own, other, score, noise, loss, n_factors):
    """Improve one side's rows with the other's fixed; return the new scores. Everything is in the order of ``own.plan``."""
    plan, x, Q = own.plan, own.rows, other.rows[:, :n_factors].contiguous()
    biased = x.shape[1] > n_factors
    error, bend = _slope(loss, score, own.rating, own.weight)
    if bend is not None:
        own.count = plan.row_sums(bend)[:, None]
    c, n = own.count, float(own.count.sum())

    # T and S, diagonalised together: M'T^-1 M = 1, M'S M = L
    Y = torch.cat([Q, torch.ones_like(Q[:, :1])], 1) if biased else Q
    E = torch.zeros_like(own.spread)
    E[:n_factors, :n_factors] = other.doubt[:n_factors, :n_factors]
    S = _moment(Y, other.count) + E
    T = own.covariance()
    R = torch.linalg.cholesky(T)
    L, W = torch.linalg.eigh(R.T @ S @ R)
    L, M, N = L.clamp_min(0), R @ W, torch.linalg.solve_triangular(R.T, W, upper=True)
    pull = other.doubt[:, n_factors:].sum(1)  # covariance of q with b_i
    pull[n_factors:] = 0
    M_, N_, L_, E_, pull = (array.to(x) for array in (M, N, L, E, pull))

    # gradient, in M's coordinates; step; line search
    gradient = plan.user_sums(error, Q)
    if biased:
        gradient = torch.cat([gradient, plan.row_sums(error)[:, None]], 1)
    del error
    scale = c * L_ + noise
    gradient = (gradient + c * (x @ E_ + pull)) @ M_ + noise * ((x - x.mean(0)) @ N_)
    step = gradient / scale
    d = step @ M_.T
    move = plan.dots(d[:, :n_factors].contiguous(), Q)
    if biased:
        move += plan.expand(d[:, n_factors])
    square = move.square() if bend is None else move.square().mul_(bend)
    square = plan.row_sums(square)[:, None] + c * ((d @ E_) * d).sum(1, keepdim=True) + noise * step.square().sum(1, keepdim=True)
    length = ((gradient * step).sum(1, keepdim=True) / square.clamp_min(1e-30)).clamp_max(LONGEST_STEP)
    own.rows = x - length * d

    variance = (noise / scale).double()
    own.spread = _sandwich(M, variance.mean(0).cpu())
    own.doubt = _sandwich(M, (c.double().T @ variance)[0].cpu() / n)
    own.basis, own.curvature = M, L
    return score.addcmul_(plan.expand(length[:, 0]), move, value=-1.0)


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


def _score_variance(sides, n_factors, biased):
    """The posterior variance of a score, averaged over the ratings."""
    k, variance = n_factors, 0.0
    for own, other in (sides, sides[::-1]):
        Y = torch.cat([other.rows, torch.ones_like(other.rows[:, :1])], 1) if biased else other.rows
        moment = _moment(Y, other.count)
        variance += float((moment[:k, :k] * own.doubt[:k, :k]).sum())
        if biased:
            variance += float(2 * moment[:k, -1] @ own.doubt[:k, k] + own.doubt[k, k])
    return variance + float((sides[0].doubt[:k, :k] * sides[1].doubt[:k, :k]).sum())


def _moment(rows, count):
    """Second moment of the rows (n_rows, width) over the ratings: (width, width), float64, on the CPU."""
    return ((rows * (count / float(count.sum()))).T @ rows).double().cpu()


def _sandwich(M, diagonal):
    return (M * diagonal) @ M.T
