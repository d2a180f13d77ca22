"""Ordered logit of ratings that are levels, as a loss with parameters of its own. Knows tensors only."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

MOST_LEVELS = 1000
LEAST_GAP = 1e-4  # between two cut points, in logits
RAREST = 1e-6  # share of the ratings that a level is taken to have at the start


def level_loss(logit, low, high):
    """The negative log-likelihood of levels between cut points, minus infinity and infinity at the ends; shapes broadcast."""
    width = torch.log(-torch.expm1(low - high))
    return F.logsigmoid(logit - low).add_(F.logsigmoid(high - logit)).add_(width).neg_()


class OrdinalLoss(nn.Module):
    r"""The negative log-likelihood of ratings that are levels, by an ordered logit with learned cut points between them.

    .. math:: P(r \le l_k \mid s) = \sigma(c_k - s)

    for the score s and cut points :math:`c_1 < c_2 < \dots`, one set for all users. ``TorchFactorization(loss="ordinal")`` makes it
    from its ratings, and its optimizer trains the cut points with the module.

    Parameters
    ----------
    levels : array-like of shape (n_levels,)
        The distinct ratings, increasing; from 2 to 1000 of them.
    level_weights : array-like of shape (n_levels,), optional
        The weighted number of ratings of each level, by default equal. The initial cut points give the score 0 these shares of the
        levels.
    reduction : {"mean", "sum", "none"}, default="mean"
        How the losses of a batch are combined, as in torch's own losses.

    Attributes
    ----------
    levels : ndarray of shape (n_levels,), float64
        The distinct ratings.
    cut_points : Tensor of shape (n_levels - 1,)
        Increasing, in logits.

    Examples
    --------
    >>> import torch
    >>> from sk_torchmf.nn import OrdinalLoss
    >>> loss = OrdinalLoss([1, 2, 5], level_weights=[1, 2, 1])
    >>> score = torch.tensor([0.0, 1.0])
    >>> loss.probabilities(score).detach()
    tensor([[0.2500, 0.5000, 0.2500],
            [0.1092, 0.4154, 0.4754]])
    >>> loss.response(score).detach()  # the expected rating
    tensor([2.5000, 3.3169])
    >>> loss(score, torch.tensor([2.0, 5.0])).detach()  # -log(0.5) and -log(0.4754), their mean
    tensor(0.7184)
    """

    middle: torch.Tensor  # between the levels

    def __init__(self, levels, level_weights=None, reduction="mean"):
        super().__init__()
        levels = np.unique(np.asarray(levels, dtype=np.float64))
        if not 2 <= len(levels) <= MOST_LEVELS or not np.isfinite(levels).all():
            shown = ", ".join(f"{level:g}" for level in levels[:3]) + (", ..." if len(levels) > 3 else "")
            raise ValueError(
                f'loss="ordinal" needs ratings of at least two levels, the distinct ratings, and at most {MOST_LEVELS}. '
                f'Got {len(levels)}: {shown}. Round the ratings, or use loss="squared_error".'
            )
        weights = np.ones(len(levels)) if level_weights is None else np.asarray(level_weights, dtype=np.float64)
        if weights.shape != levels.shape or not (weights >= 0).all() or not 0 < weights.sum() < np.inf:
            raise ValueError(f"level_weights must be {len(levels)} numbers >= 0, one for each level. Got {level_weights!r}.")
        self.levels, self.reduction = levels, reduction
        self.register_buffer("middle", torch.tensor((levels[1:] + levels[:-1]) / 2), persistent=False)
        first, gaps = _first_cuts(weights)
        self.first = nn.Parameter(torch.tensor(first, dtype=torch.float32))
        self.log_gaps = nn.Parameter(torch.tensor(gaps, dtype=torch.float32))

    @property
    def cut_points(self):
        """The cut points, a Tensor of shape (n_levels - 1,)."""
        return torch.cat([self.first, self.first + (LEAST_GAP + self.log_gaps.exp()).cumsum(0)])

    def forward(self, score, rating):
        """Compare scores with ratings.

        Parameters
        ----------
        score, rating : Tensor of shape (n,)
            A rating that is not among the levels counts as the nearest.

        Returns
        -------
        Tensor
            The mean or the sum, or of shape (n,) with ``reduction="none"``.
        """
        edges = self._edges(score)
        code = torch.bucketize(rating.contiguous(), self.middle.to(rating))
        value = level_loss(score, edges[code], edges[code + 1])
        return {"mean": value.mean, "sum": value.sum}.get(self.reduction, lambda: value)()

    def response(self, score):
        """Return the expected rating of scores.

        Parameters
        ----------
        score : Tensor
            Of any shape.

        Returns
        -------
        Tensor
            Of the shape of the scores.
        """
        levels = torch.as_tensor(self.levels).to(score)
        return levels[0] + torch.sigmoid(score[..., None] - self.cut_points.to(score)) @ levels.diff()

    def probabilities(self, score):
        """Return the probabilities of the levels at scores.

        Parameters
        ----------
        score : Tensor
            Of any shape.

        Returns
        -------
        Tensor
            Of the shape of the scores and one more dimension, of length n_levels.
        """
        edges = self._edges(score)
        return level_loss(score[..., None], edges[:-1], edges[1:]).neg().exp()

    def go_on_from(self, earlier):
        """Take over the cut points of an earlier loss; those of new levels are placed between them by the weights of the levels.

        Parameters
        ----------
        earlier : OrdinalLoss
            It may have other levels.
        """
        with torch.no_grad():
            fresh, known = (one.cut_points.double().cpu().numpy() for one in (self, earlier))
            _, here, there = np.intersect1d(self.levels[:-1], earlier.levels[:-1], return_indices=True)
            if not len(here):
                return
            at, cuts = fresh[here], known[there]
            moved = np.interp(fresh, at, cuts) + np.minimum(fresh - at[0], 0) + np.maximum(fresh - at[-1], 0)
            first, gaps = _split(moved)
            self.first.copy_(torch.from_numpy(first))
            self.log_gaps.copy_(torch.from_numpy(gaps))

    def _edges(self, score):
        """The cut points with infinity on both sides, in the precision of scores."""
        return F.pad(F.pad(self.cut_points.to(score), (1, 0), value=-torch.inf), (0, 1), value=torch.inf)


def _first_cuts(weights):
    """The parameters of cut points that give the levels their shares at the score 0."""
    share = np.maximum(weights / weights.sum(), RAREST)
    below = np.cumsum(share / share.sum())[:-1]
    return _split(np.log(below) - np.log1p(-below))


def _split(cuts):
    """Cut points as the first one, of shape (1,), and the logarithms of the gaps but for the least."""
    return cuts[:1], np.log(np.maximum(np.diff(cuts) - LEAST_GAP, LEAST_GAP))
