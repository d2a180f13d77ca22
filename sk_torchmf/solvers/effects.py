"""Biases of what comes with a rating, such as a device or a user's session: one for each code. Knows tensors only."""

import torch

START_VARIANCE = 0.02  # of a bias, in standardised units


class EffectBiases:
    r"""The biases of one effect, :math:`e_c \sim N(0, \tau)` for each code c, with :math:`\tau` learned.

    Parameters
    ----------
    codes : Tensor of shape (n_pairs,), int64
        Of each pair, user-major.
    n_codes : int
    like : Tensor
        Of the dtype and on the device that the biases are to have.

    Attributes
    ----------
    biases : Tensor of shape (n_codes,)
        Posterior means.
    variances : Tensor of shape (n_codes,)
        Posterior variances.
    prior_variance : float
        :math:`\tau`.
    """

    def __init__(self, codes, n_codes, like):
        self.codes = codes
        self.biases = like.new_zeros(n_codes)
        self.variances, self.prior_variance = like.new_full((n_codes,), START_VARIANCE), START_VARIANCE

    def improve(self, plan, slope_of, score, noise):
        """Improve the biases and, in place, the scores of the pairs.

        Parameters
        ----------
        plan : Plan
        slope_of : callable
            Takes a span of the pairs; returns half the slope and half the second derivative at each, or None where that is one.
        score : Tensor of shape (n_pairs,)
        noise : float

        Returns
        -------
        float
            The biases' posterior variance, averaged over the ratings.
        """
        old = self.biases
        for _, span, _ in plan:
            code, (slope, bend) = self.codes[span], slope_of(span)
            bend = torch.ones_like(slope) if bend is None else bend
            sums = (torch.zeros_like(old).index_add_(0, code, part) for part in (bend, slope))
            plan.add(*sums)
        count, slopes = plan.total()
        precision = count + noise / self.prior_variance
        self.biases, self.variances = (count * old - slopes) / precision, noise / precision
        change = self.biases - old
        for _, span, _ in plan:
            score[span].add_(change.index_select(0, self.codes[span]))
        known = count > 0
        self.prior_variance = max(float((self.biases.square() + self.variances)[known].mean(dtype=torch.float64)), 1e-9)
        return float((count * self.variances).sum(dtype=torch.float64) / count.sum(dtype=torch.float64))

    def state(self):
        """What the next step depends on, beside the codes."""
        return {"biases": self.biases, "variances": self.variances, "prior_variance": self.prior_variance}

    def restore(self, state):
        """Go back to a state."""
        for name, value in state.items():
            setattr(self, name, value.to(self.biases, copy=True) if isinstance(value, torch.Tensor) else value)
