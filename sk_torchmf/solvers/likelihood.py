"""What the observed values of a block say of its rows, by users or by items. Knows losses and kernels, and no solver."""

from functools import partial

import torch

from sk_torchmf.nn.row_steps import half_step
from sk_torchmf.nn.row_sums import error_sums, square_sums


class Likelihood:
    r"""The likelihood of what is observed, given rows, cut points and effects.

    It is that of a normal rating, for the squared error, or has the slope and the curvature of another loss. All sums are over the
    pairs of a row, and nothing is kept for a pair: scores are computed where they are needed.

    Parameters
    ----------
    loss : PointwiseLoss
    effects : list of EffectBiases
        In the order of ``Observed.codes``.
    cuts : OrdinalCuts or None
        Where ratings are levels.
    constant : float, default=0
        What a biased model adds to every score.
    """

    def __init__(self, loss, effects=(), cuts=None, constant=0.0):
        self.loss, self.effects, self.cuts, self.constant = loss, effects, cuts, constant
        self.is_squared_error = loss.name == "squared_error"

    def _with_constant(self, own):
        """The biases of rows with what is added to every score; None for no biases."""
        return None if own.biases is None else own.biases + self.constant

    def _context(self, observed):
        """What the effects add to the scores, or None."""
        added = None
        for effect, codes in zip(self.effects, observed.codes, strict=True):
            own = effect.biases.index_select(0, codes)
            added = own if added is None else added.add_(own)
        return added

    def _target(self, observed):
        """What is left of the ratings for rows to explain."""
        context = self._context(observed)
        return observed.values if context is None else observed.values - context

    def scores(self, observed, own, other):
        """The scores (n_pairs,) of the pairs, of the Rows of the side that is first and of the other."""
        P, b, (Q, c), pairs = own.factors, self._with_constant(own), other, observed.pairs
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
        own, other : Rows
            Of the side that is first, and of the other.

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
            P, b, (Q, c) = own.factors, self._with_constant(own), other
            return *error_sums(observed.pairs, P, Q, self._target(observed), observed.weight, b, c), observed.weight
        pairs = observed.pairs
        slope, bend = self.slopes(observed, self.scores(observed, own, other))
        return pairs.user_sums(slope, other.factors), pairs.row_sums(slope), pairs.row_sums(bend), bend

    def squares(self, observed, other, move, bend):
        """How the objective bends where the rows of a side go, by what is observed.

        Parameters
        ----------
        observed : Observed
        other : Rows
            Of the side that is not first.
        move : Rows
            Where those of the other go.
        bend : Tensor of shape (n_pairs,) or None
            Half the second derivative at each pair, or None where that is one.

        Returns
        -------
        Tensor of shape (n,)
            The squares of the scores' moves, summed with half the second derivatives.
        """
        return square_sums(observed.pairs, move.factors, other.factors, bend, move.biases)

    def half_step(self, frame, observed, own, other, noise):
        """Move rows at once, where that can be: see ``row_steps.half_step``. None for other losses than the squared error."""
        if not self.is_squared_error:
            return None
        target = self._target(observed)
        constant = 0.0 if other.biases is None else self.constant
        return half_step(frame, observed.pairs, own, other, target, observed.weight, noise, constant)

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
