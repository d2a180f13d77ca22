"""Biases of what comes with a rating, such as a device or a user's session: one for each code. Knows tensors only."""

import torch

START_VARIANCE = 0.02  # of a bias, in standardised units


class EffectBiases:
    r"""The biases of one effect, :math:`e_c \sim N(0, \tau)` for each code c, with :math:`\tau` learned.

    Parameters
    ----------
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

    def __init__(self, n_codes, like):
        self.biases = like.new_zeros(n_codes)
        self.variances, self.prior_variance = like.new_full((n_codes,), START_VARIANCE), START_VARIANCE

    def improve(self, plan, parts, noise):
        """Improve the biases.

        Parameters
        ----------
        plan : Plan
        parts : iterable of (Tensor, Tensor, Tensor or None) of shape (n_pairs,)
            Of each block the codes of its pairs, half the slopes at their scores and half the second derivatives, or None where
            these are one.
        noise : float

        Returns
        -------
        change : float
            Of the squared error, summed over the ratings.
        variance : float
            The biases' posterior variance, averaged over the ratings.
        """
        old = self.biases
        for code, slope, bend in parts:
            bend = torch.ones_like(slope) if bend is None else bend
            sums = (torch.zeros_like(old).index_add_(0, code, part) for part in (bend, slope))
            plan.add(*sums)
        count, slopes = plan.total()
        precision = count + noise / self.prior_variance
        self.biases, self.variances = (count * old - slopes) / precision, noise / precision
        move = self.biases - old
        change = float((move * (2 * slopes + count * move)).sum(dtype=torch.float64))
        known = count > 0
        self.prior_variance = max(float((self.biases.square() + self.variances)[known].mean(dtype=torch.float64)), 1e-9)
        return change, float((count * self.variances).sum(dtype=torch.float64) / count.sum(dtype=torch.float64))

    def state(self):
        """What the next step depends on, beside the codes."""
        return {"biases": self.biases, "variances": self.variances, "prior_variance": self.prior_variance}

    def restore(self, state):
        """Go back to a state."""
        for name, value in state.items():
            setattr(self, name, value.to(self.biases, copy=True) if isinstance(value, torch.Tensor) else value)
