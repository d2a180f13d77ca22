"""Ordered logit of ratings on a scale: their loss at given scores, and how cut points are learned. Knows no solver."""

from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sk_torchmf.model.cut_points import SLOPE, CutPoints, softening
from sk_torchmf.nn import PointwiseLoss
from sk_torchmf.nn.ordinal_loss import level_loss

START_SPREAD = 0.1  # of the users' own cut points about the common ones: variance, in square logits
LEAST_SPREAD = 1e-6
FARTHEST = 20.0  # at the start, in logits
LEAST_GAP = 1e-4  # between two cut points
BARRIER = 0.5  # ratings that each user is taken to have of each inner level: none closes that the user never gave
GUARD = 1 / 8  # of the slope: a rating far on the wrong side, without curvature, would throw its row away
LEAST_BEND = 2e-4  # curvature of a rating in its logit, so that what is certain has some
BLOCK = 2**20  # pairs, or entries of the users' matrices, worked on at once


def first_cuts(levels):
    """Cut points in the middle between levels, which is where a model of normal ratings puts them.

    Parameters
    ----------
    levels : ndarray of shape (n_levels,)
        The distinct ratings in the units of the scores: standardised, sorted, two or more.

    Returns
    -------
    Tensor of shape (n_levels - 1,), float64
        In logits.
    """
    middle = torch.from_numpy((levels[1:] + levels[:-1]) / 2 * SLOPE).double().clamp(-FARTHEST, FARTHEST)
    return _apart(middle[None])[0]


def first_spread(n_levels):
    """The covariance of the users' own cut points to start from, of shape (n_levels - 1, n_levels - 1)."""
    return START_SPREAD * torch.eye(n_levels - 1, dtype=torch.float64)


def ordinal_loss(points):
    """The loss of a score and a rating by the common cut points, which is that of users without their own.

    Parameters
    ----------
    points : CutPoints

    Returns
    -------
    PointwiseLoss
        A negative log-likelihood; a rating that is not among the levels counts as the nearest. ``response`` is the expected rating.
    """
    levels, cuts = torch.from_numpy(points.levels), torch.from_numpy(points.common)
    edges = (levels[1:] + levels[:-1]) / 2, _with_ends(cuts)
    return PointwiseLoss(
        "ordinal",
        value=partial(_value_of_rating, *edges),
        curvature=partial(_curvature_of_rating, *edges),
        response=partial(_expected, levels, cuts),
        link=torch.zeros_like,  # cut points say where ratings lie
        standardised=False,
    )


def _value_of_rating(middle, edges, score, rating):
    return level_loss(score * SLOPE, *_about(middle, edges, score, rating))


def _curvature_of_rating(middle, edges, score, rating):
    return _derivatives(score * SLOPE, *_about(middle, edges, score, rating))[1].mul_(SLOPE**2)


def _about(middle, edges, score, rating):
    """The cut points below and above the nearest levels of ratings."""
    code, edges = torch.bucketize(rating.contiguous(), middle.to(rating)), edges.to(score)
    return edges[code], edges[code + 1]


def _expected(levels, cuts, score):
    return levels[0].to(score) + torch.sigmoid(SLOPE * score[..., None] - cuts.to(score)) @ levels.diff().to(score)


def _derivatives(logit, low, high):
    """Its first and its guarded second derivative in the logit, (n,) each; ``low`` and ``high`` are overwritten."""
    above, below = low.sub_(logit).neg_().sigmoid_(), high.sub_(logit).sigmoid_()
    slope = above - below
    bend = above.sub_(above.square()).add_(below).sub_(below.square())
    return slope, torch.maximum(bend, slope.abs() * GUARD).clamp_min_(LEAST_BEND)


def _with_ends(cuts):
    """Cut points (..., n_cuts) with infinity on both sides."""
    return F.pad(F.pad(cuts, (1, 0), value=-torch.inf), (0, 1), value=torch.inf)


class Evidence(NamedTuple):
    """What ratings say of the cut points of a user, or of all users together.

    Attributes
    ----------
    gradient : Tensor of shape (n, n_cuts)
        Of the negative log-likelihood.
    curvature : Tensor of shape (n, n_cuts)
        Its second derivatives, but for ``bend``.
    bend : Tensor of shape (n, n_cuts - 1)
        Second derivatives in the gaps between cut points.
    """

    gradient: Tensor
    curvature: Tensor
    bend: Tensor

    @classmethod
    def of(cls, sums, cuts, barrier=0.0):
        r"""Put together sums over the ratings of each level.

        With the cut points a and b about its level, D = b - a and q its logit, a rating has the negative log-likelihood

        .. math:: -\log P = -\log \sigma(q - a) - \log \sigma(b - q) - \log(1 - e^{-D}).

        Parameters
        ----------
        sums : sequence of Tensor of shape (n, n_levels), float64
            The slopes of the first term in a, and of the second in -b; their derivatives; the weights.
        cuts : Tensor of shape (n, n_cuts), float64
        barrier : float, default=0.0
            Ratings that there are of each inner level besides.
        """
        low, high, low_curvature, high_curvature, count = sums
        odds = torch.expm1(cuts.diff())
        width = (count[:, 1:-1] + barrier) / odds  # the slope of the third term in D; the outer levels have none
        gradient = low[:, 1:] - high[:, :-1]
        gradient[:, :-1] += width
        gradient[:, 1:] -= width
        return cls(gradient, low_curvature[:, 1:] + high_curvature[:, :-1], width * (1 + 1 / odds))

    def hessian(self, some):
        """Second derivatives of some rows, (n, n_cuts, n_cuts), float64; made of parts >= 0, so that it is never indefinite."""
        diagonal, bend = self.curvature[some].double(), self.bend[some].double()
        diagonal = diagonal + F.pad(bend, (1, 0)) + F.pad(bend, (0, 1))
        beside = torch.diag_embed(bend, 1)
        return torch.diag_embed(diagonal) - beside - beside.mT


class OrdinalCuts:
    r"""The cut points between the levels of ratings, as a solver learns them beside the scores.

    .. math:: P(r \le l_k \mid u, x) = \sigma(\gamma_k + \delta_{uk} - \alpha x), \qquad \delta_u \sim N(0, \Sigma)

    The slope :math:`\alpha` is fixed, which sets the scale of the scores x; :math:`\gamma` is learned, and so are
    :math:`\delta` and :math:`\Sigma` where users have cut points of their own.

    Parameters
    ----------
    plan : Plan
        Every user has a rating.
    code : Tensor of shape (n_pairs,), int
        Numbers of the ratings' levels, user-major. Of a plan that does not keep its blocks, whatever gives a block's by its span.
    common : Tensor of shape (n_levels - 1,)
        :math:`\gamma` to start from, see ``first_cuts``; increasing.
    spread : Tensor of shape (n_levels - 1, n_levels - 1), optional
        :math:`\Sigma` to start from, see ``first_spread``; None for one set of cut points for all users.
    dtype : torch.dtype, default=torch.float32
        Of the scores.
    levels : ndarray of shape (n_levels,), optional
        The distinct ratings, which ``solution`` needs.

    Attributes
    ----------
    common, spread : Tensor, float64, on the CPU
    own : Tensor of shape (n_users, n_levels - 1), of ``dtype``, or None
        :math:`\delta`.
    place : Tensor of shape (n_pairs,), int, or StoredPlaces
        User-major, by which a pair's own cut points are found.
    max_users : int or None
        How many users are worked on at once, at most.

    Notes
    -----
    New users are folded in with the same class: on a plan of theirs, with the fitted ``common`` and ``spread``, half-steps of their
    rows take turns with ``learn(..., common=False)``.
    """

    def __init__(self, plan, code, common, spread=None, *, dtype=torch.float32, levels=None):
        n_cuts, n_users = len(common), plan.pairs.shape[0]
        of_all = spread is None
        self.max_users = None if of_all else max(1, BLOCK // n_cuts**2)
        self.plan = plan.cut(max_pairs=BLOCK, max_users=self.max_users)
        self.n_levels, self.dtype, self.levels = n_cuts + 1, dtype, levels
        self.common = common.to("cpu", torch.float64, copy=True)
        self.spread = None if of_all else spread.to("cpu", torch.float64, copy=True)
        self.own = None if of_all else torch.zeros(n_users, n_cuts, dtype=dtype, device=plan.device)
        index = torch.int32 if of_all or n_users * (n_cuts + 2) < 2**31 else torch.int64
        width = 0 if of_all else n_cuts + 2
        if plan.keeps_blocks:
            self.place = code.to(plan.device, index)  # of the lower cut point in the table; the upper one follows it
            if not of_all:
                self.place = self.place + plan.pairs.expand(torch.arange(n_users, dtype=index, device=plan.device) * width)
        else:
            self.place = StoredPlaces(plan.pairs, code, index, width)
        self._tabulate()

    def _tabulate(self):
        """Each user's cut points in a row, or one for all, with infinity on both sides."""
        cuts = self.common.to(self.plan.device, self.dtype)[None]
        if self.own is not None:
            cuts = cuts + self.own
        self.table = _with_ends(cuts)

    def _about(self, place):
        """The cut points below and above the levels of some pairs."""
        table = self.table.view(-1)
        return table.index_select(0, place), table.index_select(0, place + 1)

    def slope(self, score, place, weight=None):
        """Half the slope and half the curvature of the weighted loss at some pairs.

        Parameters
        ----------
        score, place : Tensor of shape (n,)
            The scores of these pairs, and their part of ``place``.
        weight : Tensor of shape (n,), optional
            Their weights > 0.

        Returns
        -------
        slope, curvature : Tensor of shape (n,)
            The curvature is kept at an eighth of the slope or more (in logits).
        """
        slope, bend = _derivatives(score * SLOPE, *self._about(place))
        for value, factor in ((slope, SLOPE / 2), (bend, SLOPE**2 / 2)):
            value.mul_(factor)
            if weight is not None:
                value.mul_(weight)
        return slope, bend

    def loss(self, score, place):
        """The negative log-likelihood of some pairs, not weighted; see ``slope``.

        Returns
        -------
        Tensor of shape (n,)
        """
        return level_loss(score * SLOPE, *self._about(place))

    def learn(self, parts, mean_variance, *, common=True):
        """Improve the cut points at given scores: a Newton step on all together, and a step of EM on their spread, in place.

        Parameters
        ----------
        parts : iterable of (slice, Observed, Tensor of shape (n,))
            Of each block of the plan cut to ``max_users``: its users, with ``place`` and weights for what was observed of them, and
            the scores of the pairs.
        mean_variance : float
            The posterior variance of a score, averaged over the ratings. Without it cut points follow scores that are not certain.
        common : bool, default=True
            Whether to learn what all users share too, or only each user's own cut points.
        """
        evidence = self._evidence(parts, float(softening(mean_variance)))
        if self.own is not None:
            self._learn_own(self.own, evidence, common)
        elif common:
            move = -_solve(evidence.hessian(0), evidence.gradient[0])
            self.common = _moved(self.common[None], move.cpu()[None])[0]
        self._tabulate()

    def _evidence(self, parts, soft):
        """What the ratings say of each user's cut points, or of those of all."""
        found = []
        for rows, observed, score in parts:
            sums = self._sums(rows, observed, score, soft)
            if self.own is None:
                self.plan.add(*sums)
            else:
                found.append(Evidence.of(sums, self.table[rows, 1:-1].double(), BARRIER))
        if self.own is None:
            return Evidence.of(self.plan.total(), self.table[:, 1:-1].double())
        return Evidence(*(torch.cat(part) for part in zip(*found, strict=True)))

    def _sums(self, rows, observed, score, soft):
        """The weighted sums that ``Evidence`` is made of, over some pairs: (n_users or 1, n_levels), float64."""
        (low, high), logit = self._about(observed.values), score * SLOPE
        low, high = low.sub_(logit).mul_(soft).sigmoid_(), logit.sub(high).mul_(soft).sigmoid_()
        width, n, place = self.n_levels + 1, 1, observed.values
        if self.own is not None:
            n, place = rows.stop - rows.start, place - rows.start * width
        weight = 1.0 if observed.weight is None else observed.weight.double()
        sums = []
        for value in (low, high, low * (1 - low) * soft, high * (1 - high) * soft, torch.ones_like(low)):
            table = torch.zeros(n * width, dtype=torch.float64, device=score.device)
            sums.append(table.index_add_(0, place, value.double() * weight).view(n, width)[:, :-1])
        return sums

    def _learn_own(self, own, evidence, common):
        plan, device = self.plan, self.plan.device
        start, precision = self.common.to(device), torch.linalg.inv(self.spread).to(device)

        def posterior(rows):
            delta = own[rows].double()
            return delta, evidence.hessian(rows) + precision, evidence.gradient[rows] + delta @ precision

        def eliminated(rows):
            """With C = (H + P)^-1 a user leaves H - H C H = P - P C P of the common Hessian: the sum needs C alone."""
            delta, hessian, gradient = posterior(rows)
            covariance = torch.linalg.inv(hessian)
            return covariance.sum(0), torch.einsum("ujk,uk->j", covariance, gradient) - delta.sum(0)

        if common:
            covariance, shift = plan.total_over_users(eliminated)
            joint = plan.n_users * precision - precision @ covariance @ precision
            move = -_solve(joint, precision @ shift)
            self.common = _moved(self.common[None], move.cpu()[None])[0]
        new = self.common.to(device)

        def improved(rows):
            delta, hessian, gradient = posterior(rows)
            move = torch.linalg.solve(hessian, precision @ (new - start) - gradient)
            delta = _moved(start + delta, move) - new
            own[rows] = delta.to(self.dtype)
            return [delta.T @ delta]

        (square,) = plan.total_over_users(improved)
        if common:
            least = LEAST_SPREAD * torch.eye(len(start), dtype=torch.float64)
            self.spread = ((square + covariance) / plan.n_users).cpu() + least

    def solution(self):
        """What was learned so far; a CutPoints."""
        own, spread = (None if part is None else part.cpu().numpy().copy() for part in (self.own, self.spread))
        return CutPoints(self.levels, self.common.numpy().copy(), own, spread)

    def state(self):
        """What was learned, as a solver's state has it: of each user under ``"user"``, of all under ``"rest"``."""
        if self.own is None:
            return {"user": {}, "rest": {"common_cuts": self.common}}
        return {"user": {"own_cuts": self.own}, "rest": {"common_cuts": self.common, "cut_spread": self.spread}}

    def restore(self, state):
        """Go on from a state, whatever the device that it was on."""
        self.common = state["rest"]["common_cuts"].to(self.common, copy=True)
        if self.own is not None:
            self.spread = state["rest"]["cut_spread"].to(self.spread, copy=True)
            self.own = state["user"]["own_cuts"].to(self.own, copy=True)
        self._tabulate()


class StoredPlaces:
    """``OrdinalCuts.place`` of pairs on disk: ``places[span]`` makes those of a block.

    Parameters
    ----------
    pairs : StoredPairs
    code : StoredValues
        Numbers of levels.
    dtype : torch.dtype
    width : int
        How many cut points a user's row of the table has; 0 where all users share one.
    """

    def __init__(self, pairs, code, dtype, width):
        self.pairs, self.code, self.dtype, self.width = pairs, code, dtype, width

    def __getitem__(self, span):
        place = self.code[span].to(self.dtype)
        return place.add_(self.pairs.users_of(span).to(self.dtype), alpha=self.width) if self.width else place


def _solve(hessian, gradient):
    """The Newton step, finite where nothing is known too."""
    ridge = 1e-9 * hessian.diagonal().mean() + 1e-30
    return torch.linalg.solve(hessian + ridge * torch.eye(len(hessian), dtype=hessian.dtype, device=hessian.device), gradient)


def _moved(cuts, move):
    """Cut points (n, n_cuts) after a part of a step: no gap shrinks below 0.3 of itself, no cut point moves by more than one."""
    shrinking = -move.diff() / (0.7 * cuts.diff())
    longest = torch.cat([move.abs(), shrinking], 1).amax(1, keepdim=True).clamp_min(1.0)
    return _apart(cuts + move / longest)


def _apart(cuts):
    """Cut points, increasing by ``LEAST_GAP`` or more."""
    least = LEAST_GAP * torch.arange(cuts.shape[1], dtype=cuts.dtype, device=cuts.device)
    return (cuts - least).cummax(1).values + least
