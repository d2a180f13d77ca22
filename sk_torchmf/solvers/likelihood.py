"""What the observed values of a block say of its rows, by users or by items. Knows losses and kernels, and no solver."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sk_torchmf.nn import Pairs
from sk_torchmf.nn.row_sums import error_sums, square_sums


@dataclass(frozen=True)
class Observed:
    """The pairs of a block with the rows of one side first, and what there is of each.

    Attributes
    ----------
    pairs : Pairs
    values : Tensor of shape (n_pairs,) or None
        Standardised ratings or, where these are levels, ``OrdinalCuts.place``; None where nobody asks for them.
    weight : Tensor of shape (n_pairs,) or None
        > 0.
    codes : list of Tensor of shape (n_pairs,), int
        Of each effect.
    """

    pairs: Pairs
    values: Any
    weight: Tensor | None
    codes: list[Tensor] = field(default_factory=list)

    def transposed(self):
        """The same with the rows of the other side first."""
        order = self.pairs.T.order
        values, weight = (None if part is None else part.index_select(0, order) for part in (self.values, self.weight))
        return Observed(self.pairs.T, values, weight, [code.index_select(0, order) for code in self.codes])


class ObservedBlocks:
    """What is observed in the blocks of a plan, by users and by items, made anew each time that it is gone through.

    Parameters
    ----------
    plan : Plan
    values, weight, codes
        Of all pairs, user-major, see ``Observed``; ``[span]`` gives those of a block. ``values`` may be None where nobody asks.
    """

    def __init__(self, plan, values, weight, codes=()):
        self.plan, self.values, self.weight, self.codes = plan, values, weight, codes

    def __iter__(self):
        for rows, span, block in self.plan:
            values, weight = (None if part is None else part[span] for part in (self.values, self.weight))
            if self.plan.is_exact and weight is not None:
                weight = weight.clone()  # a product of two vectors depends on where in memory these begin
            by_user = Observed(block, values, weight, [code[span] for code in self.codes])
            yield rows, by_user, by_user.transposed()


def observed_blocks(plan, values, weight, codes=()):
    """The ``ObservedBlocks`` of a plan: all at once as a list where the plan keeps its blocks, else one at a time.

    Returns
    -------
    iterable of (slice, Observed, Observed)
        The users of a block, what is observed with users first, and with items first. It can be gone through any number of times.
    """
    blocks = ObservedBlocks(plan, values, weight, codes)
    return list(blocks) if plan.keeps_blocks else blocks


class Likelihood:
    r"""The likelihood of what is observed, given rows, cut points and effects.

    It is that of a normal rating, for the squared error, or has the slope and the curvature of another loss. All sums are over the
    pairs of a row, and nothing is kept for a pair: scores are computed where they are needed.

    Parameters
    ----------
    loss : PointwiseLoss
    n_factors : int
        The columns of rows that are factors; a further one is the bias.
    effects : list of EffectBiases
        In the order of ``Observed.codes``.
    cuts : OrdinalCuts or None
        Where ratings are levels.
    constant : float, default=0
        What a biased model adds to every score.
    """

    def __init__(self, loss, n_factors, effects=(), cuts=None, constant=0.0):
        self.loss, self.k, self.effects, self.cuts, self.constant = loss, n_factors, effects, cuts, constant
        self.is_squared_error = loss.name == "squared_error"

    def _parts(self, rows, constant=0.0):
        """Factors of rows, and biases with a constant, each contiguous; None for no biases."""
        k = self.k
        return rows[:, :k].contiguous(), rows[:, k] + constant if rows.shape[1] > k else None

    def _context(self, observed):
        """What the effects add to the scores, or None."""
        added = None
        for effect, codes in zip(self.effects, observed.codes, strict=True):
            own = effect.biases.index_select(0, codes)
            added = own if added is None else added.add_(own)
        return added

    def scores(self, observed, own, other):
        """The scores (n_pairs,) of the pairs, of rows (n, width) of the side that is first and of the other."""
        (P, b), (Q, c), pairs = self._parts(own, self.constant), self._parts(other), observed.pairs
        start = self._context(observed)
        if b is not None:
            biases = pairs.expand(b).add_(c.index_select(0, pairs.columns))
            start = biases if start is None else start.add_(biases)
        return pairs.dots(P, Q, add_to=start)

    def slopes(self, observed, score):
        """Half the weighted slope at each pair, and half the weighted second derivative or None where that is one."""
        if self.cuts is not None:
            return self.cuts.slope(score, observed.values, observed.weight)
        rating, weight = observed.values, observed.weight
        if self.is_squared_error:
            error = score - rating
            return (error, None) if weight is None else (error.mul_(weight), weight)
        scale = 0.5 if weight is None else weight / 2
        return self.loss.slope(score, rating) * scale, self.loss.curvature(score, rating) * scale

    def bend(self, observed, own, other):
        """Half the weighted second derivative at each pair, or None where that is one."""
        if self.is_squared_error:
            return observed.weight
        return self.slopes(observed, self.scores(observed, own, other))[1]

    def sums(self, observed, own, other):
        """Sum what the pairs of each row say of it.

        Parameters
        ----------
        observed : Observed
        own, other : Tensor of shape (n, width)
            Rows of the side that is first, and of the other.

        Returns
        -------
        slopes : Tensor of shape (n, k)
            The other side's factors, summed with half the slopes.
        slope : Tensor of shape (n,)
            Half the slopes, summed.
        last : Tensor of shape (n,)
            For the squared error the weighted squares of the errors, summed; else half the second derivatives, summed.
        bend : Tensor of shape (n_pairs,) or None
            What ``bend`` says.
        """
        if self.is_squared_error:
            (P, b), (Q, c), context = self._parts(own, self.constant), self._parts(other), self._context(observed)
            target = observed.values if context is None else observed.values - context
            return *error_sums(observed.pairs, P, Q, target, observed.weight, b, c), observed.weight
        pairs = observed.pairs
        slope, bend = self.slopes(observed, self.scores(observed, own, other))
        return pairs.user_sums(slope, self._parts(other)[0]), pairs.row_sums(slope), pairs.row_sums(bend), bend

    def squares(self, observed, other, move, bend):
        """How the objective bends where the rows of a side go, by what is observed.

        Parameters
        ----------
        observed : Observed
        other : Tensor of shape (n, width)
            Rows of the side that is not first.
        move : Tensor of shape (n, width)
            Where the rows of the other go.
        bend : Tensor of shape (n_pairs,) or None
            Half the second derivative at each pair, or None where that is one.

        Returns
        -------
        Tensor of shape (n,)
            The squares of the scores' moves, summed with half the second derivatives.
        """
        (d, b), (Q, _) = self._parts(move), self._parts(other)
        return square_sums(observed.pairs, d, Q, bend, b)

    def losses(self, observed, score, noise):
        """The weighted losses of the pairs, summed, and what they say of the noise, summed: two numbers."""
        kinds = [self.loss]
        if self.cuts is not None:
            kinds = [lambda score, place: self.cuts.loss(score, place)]
        elif self.loss.dispersion is not None:
            kinds.append(partial(self.loss.dispersion, noise=noise))
        found = (kind(score, observed.values) for kind in kinds)
        sums = [float(value.sum() if observed.weight is None else torch.dot(value, observed.weight)) for value in found]
        return sums[0], sums[-1]
