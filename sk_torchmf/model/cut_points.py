"""Ratings as ordered levels: the cut points between them, and what they make of a score. Knows arrays only."""

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import expit

from sk_torchmf.distributed import ALONE
from sk_torchmf.nn.ordinal_loss import MOST_LEVELS

SLOPE = math.pi / math.sqrt(3 * 0.6)  # logits a unit of score: logistic noise of 0.6 of the ratings' variance, as other fits begin
CHUNK = 2**18  # scores worked on at once


def softening(variance):
    """What logits shrink by, in the mean of a sigmoid over a normal score of some variance (MacKay 1992)."""
    return 1 / np.sqrt(1 + math.pi / 8 * SLOPE**2 * variance)


def find_levels(rating, processes=ALONE):
    """Number the distinct ratings.

    Parameters
    ----------
    rating : ndarray of shape (n_ratings,)
        Finite, float32 or float64. Of this process, which may have none where another has some.
    processes : Communicator
        Those whose ratings are numbered together; the levels are the same in all.

    Returns
    -------
    levels : ndarray of shape (n_levels,), float64
        Sorted and distinct; each the shortest number that is the rating in its own precision.
    code : ndarray of shape (n_ratings,), int64
        ``levels[code]`` are the ratings.

    Raises
    ------
    ValueError
        Where there are fewer than two levels, or more than 1000.
    """
    own, code = np.unique(np.asarray(rating), return_inverse=True)
    told = processes.all_gather((own[: MOST_LEVELS + 1], len(own), len(code)))  # more than are allowed are not sent
    distinct = np.unique(np.concatenate([first for first, _, _ in told])) if processes.size > 1 else own
    n_levels, n_ratings = max(len(distinct), *(n for _, n, _ in told)), sum(n for *_, n in told)
    levels = distinct[: MOST_LEVELS + 1].astype(str).astype(np.float64)
    if len(levels) < 2:
        got = f"All are {levels[0]:g} (n_samples = {n_ratings})" if len(levels) else "There are none"
        raise ValueError(f'loss="ordinal" needs ratings of at least two levels. {got}; use loss="squared_error".')
    if len(levels) > MOST_LEVELS:
        raise ValueError(
            f'loss="ordinal" needs at most {MOST_LEVELS} levels, which are the distinct ratings. Got {n_levels} of them in '
            f'{n_ratings} ratings. Round the ratings, or use loss="squared_error".'
        )
    return levels, np.searchsorted(distinct, own)[code]


@dataclass(frozen=True)
class CutPoints:
    r"""The distribution of a rating over the levels, given its score: an ordered logit.

    .. math:: P(r \le l_k \mid u, x) = \sigma(\gamma_k + \delta_{uk} - \alpha x)

    with a fixed slope :math:`\alpha`. Users without cut points of their own have :math:`\delta_u = 0`.

    Attributes
    ----------
    levels : ndarray of shape (n_levels,), float64
        The distinct ratings, sorted; at least two.
    common : ndarray of shape (n_levels - 1,), float64
        :math:`\gamma`, increasing, in logits.
    own : ndarray of shape (n_users, n_levels - 1) or None
        :math:`\delta`, how far the cut points of each user lie from the common ones; None where all users share these.
    spread : ndarray of shape (n_levels - 1, n_levels - 1), float64, or None
        The covariance of :math:`\delta` over the users, None without ``own``.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_torchmf.model.cut_points import CutPoints
    >>> points = CutPoints(levels=np.array([1.0, 2.0, 5.0]), common=np.array([-1.0, 1.0]))
    >>> user, score = np.array([0, 0]), np.array([0.0, 1.0])
    >>> points.probabilities(score, user).round(3)
    array([[0.269, 0.462, 0.269],
           [0.034, 0.173, 0.793]])
    >>> points.expected(score, user).round(2)
    array([2.54, 4.34])
    """

    levels: np.ndarray
    common: np.ndarray
    own: np.ndarray | None = None
    spread: np.ndarray | None = None

    def check_levels(self, rating, name):
        """Find the levels of ratings, which must be among those that fit saw.

        Parameters
        ----------
        rating : ndarray of shape (n_ratings,)
            Finite. A rating that has been a float32 is the level that rounds to it.
        name : str
            What they are, for messages.

        Returns
        -------
        ndarray of shape (n_ratings,), int64
            Numbers of levels.
        """
        rating = np.asarray(rating, dtype=np.float64)
        code = self.nearest(rating)
        strange = np.flatnonzero(np.abs(rating - self.levels[code]) > np.finfo(np.float32).eps * np.abs(rating))
        if len(strange):
            at, known = int(strange[0]), ", ".join(f"{level:g}" for level in self.levels[:10])
            rest = ", ..." if len(self.levels) > 10 else ""
            raise ValueError(
                f'{name} must be among the {len(self.levels)} levels that fit saw with loss="ordinal": {known}{rest}. '
                f"Got {name}[{at}] = {rating[at]:g}. Round it to one of them, or fit on data that have it."
            )
        return code

    def nearest(self, rating):
        """Numbers (n_ratings,) of the levels that are nearest to ratings."""
        return np.searchsorted((self.levels[1:] + self.levels[:-1]) / 2, rating)

    def spread_over(self, known, n):
        """The same among n users: ``known`` are the row numbers of those there are, and the others have none of their own."""
        if self.own is None:
            return self
        own = np.zeros((n, len(self.common)), dtype=self.own.dtype)
        own[known] = self.own
        return replace(self, own=own)

    def log_loss(self, rating, score, user):
        """The negative log-likelihood of ratings.

        Parameters
        ----------
        rating : ndarray of shape (n,)
            One that is not among the levels counts as the nearest.
        score, user
            As for ``probabilities``.

        Returns
        -------
        ndarray of shape (n,), float64
        """
        code, score = self.nearest(rating), SLOPE * np.asarray(score, dtype=np.float64)
        low, high = self._edges(code, user), self._edges(code + 1, user)
        return np.logaddexp(0, low - score) + np.logaddexp(0, score - high) - np.log(-np.expm1(low - high))

    def _edges(self, at, user):
        """The cut points (n,) below the levels with the numbers ``at``, infinite at both ends, in float64."""
        inner = np.clip(at - 1, 0, len(self.common) - 1)
        edge = self.common[inner]
        if self.own is not None:
            edge = edge + np.where(user < 0, 0.0, self.own[user, inner])
        return np.where(at == 0, -np.inf, np.where(at == len(self.levels), np.inf, edge))

    def probabilities(self, score, user, variance=0.0):
        """The probability of each level.

        Parameters
        ----------
        score : ndarray of shape (n,)
            Standardised.
        user : ndarray of shape (n,), int
            Row numbers, -1 for users that have no cut points of their own.
        variance : ndarray of shape (n,) or float, default=0.0
            Posterior variance of the scores, over which the probabilities are averaged.

        Returns
        -------
        ndarray of shape (n, n_levels), float64
            Each row adds up to one.
        """
        variance = np.broadcast_to(variance, np.shape(score))
        found = np.empty((len(score), len(self.levels)))
        for start in range(0, len(score), CHUNK):
            some = slice(start, start + CHUNK)
            cuts = self._cuts(user[some], slice(None))
            logit = (cuts - SLOPE * np.asarray(score[some], dtype=np.float64)[:, None]) * softening(variance[some])[:, None]
            below, above = np.empty((2, len(logit), len(self.levels) + 1))  # of the cuts, the infinite ones included
            below[:, 0] = above[:, -1] = 0
            below[:, -1] = above[:, 0] = 1
            below[:, 1:-1], above[:, 1:-1] = expit(logit), expit(-logit)
            # the difference of the two that are small: next to one they would be rounded off
            found[some] = np.where(below[:, :-1] < 0.5, np.diff(below), -np.diff(above))
        return found

    def expected(self, score, user, variance=0.0):
        """The expected rating.

        Parameters
        ----------
        score, user, variance
            As for ``probabilities``. Averaged over the posterior of the scores, expected ratings are hardly better, often worse.

        Returns
        -------
        ndarray of shape (n,), float64
            In the ratings' own units, within their range. Increases with the score.
        """
        return self.levels[0] + self._mean_above(score, user, variance, np.diff(self.levels))

    def mean_square(self, score, user, variance, about):
        """The expected square of a rating's distance from a prediction of it.

        Parameters
        ----------
        score, user, variance
            As for ``probabilities``.
        about : ndarray of shape (n,)
            Predictions, in the ratings' own units.

        Returns
        -------
        ndarray of shape (n,), float64
        """
        centre = self.levels.mean()  # so that squares of levels far from zero do not cancel
        distance, levels = about - centre, self.levels - centre
        of_squares = levels[0] ** 2 + self._mean_above(score, user, variance, np.diff(levels**2))
        mean = levels[0] + self._mean_above(score, user, variance, np.diff(levels))
        return np.maximum(of_squares - 2 * distance * mean + distance**2, 0.0)

    def _mean_above(self, score, user, variance, rise):
        """The sum of what a function of the level rises by at each cut, times the chance of lying above: no (n, n_levels) array."""
        score, soft = SLOPE * np.asarray(score, dtype=np.float64), softening(variance)
        return sum(rise[k] * expit((score - self._cuts(user, k)) * soft) for k in range(len(rise)))

    def _cuts(self, user, at):
        """Some columns of the users' cut points, in float64."""
        if self.own is None:
            return self.common[at]
        own = np.array(self.own[:, at][user], dtype=np.float64)  # of one user too an array
        own[user < 0] = 0
        return self.common[at] + own
