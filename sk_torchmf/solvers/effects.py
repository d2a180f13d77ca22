"""Biases of what comes with a rating, such as a device or a user's session: one for each code. Knows tensors only."""

import torch

from sk_torchmf.solvers.prior_means import to_array

START_VARIANCE = 0.02  # of a bias, in standardised units
LEAST = 1e-9


class EffectBiases:
    r"""The biases of one effect, :math:`e_c \sim N(0, \tau)` for each code c, with :math:`\tau` learned.

    Parameters
    ----------
    n_codes : int
    like : Tensor
        Of the dtype and on the device that the biases are to have.
    owner : Tensor of shape (n_codes,), int64, optional
        The user of each code, where it belongs to one, so that of several processes each has its own.

    Attributes
    ----------
    biases : Tensor of shape (n_codes,)
        Posterior means.
    variances : Tensor of shape (n_codes,)
        Posterior variances.
    prior_variance : float
        :math:`\tau`.
    average : float
        The mean of the biases over the ratings.
    """

    def __init__(self, n_codes, like, owner=None):
        self.owner, self.of_users = owner, owner is not None
        self.biases = like.new_zeros(n_codes)
        self.variances, self.prior_variance = like.new_full((n_codes,), START_VARIANCE), START_VARIANCE
        self.average = 0.0

    def improve(self, plan, parts, noise):
        """Improve the biases, and their prior variance by a step of EM.

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

        Notes
        -----
        The prior variance of an effect that says nothing falls slowly from where it starts. A fixed point that falls faster
        (MacKay, Bayesian Interpolation, 1992) takes the harm of shuffled times on MovieLens-100K from 0.5 to 0.1 % of RMSE, but
        takes as much from what true times gain: on MovieLens-1M, all tables given, 0.4 % at random and 0.2 % by time.
        """
        old = self.biases
        count, slopes = own = [torch.zeros_like(old) for _ in range(2)]
        for code, slope, bend in parts:
            bend = torch.ones_like(slope) if bend is None else bend
            if not self.of_users:
                own = [torch.zeros_like(old) for _ in range(2)]
            for total, part in zip(own, (bend, slope), strict=True):
                total.index_add_(0, code, part)
            if not self.of_users:
                plan.add(*own)
        if not self.of_users:
            count, slopes = plan.total()
        precision = count + noise / self.prior_variance
        self.biases, self.variances = (count * old - slopes) / precision, noise / precision
        move = self.biases - old
        known, weight = count > 0, count.double()
        change = (move * (2 * slopes + count * move)).sum(dtype=torch.float64)
        square = (self.biases.square() + self.variances)[known].sum(dtype=torch.float64)
        averages = (weight @ part.double() for part in (self.biases, self.variances))
        figures = [float(part) for part in (change, square, known.sum(), weight.sum(), *averages)]
        if self.of_users:
            plan.add(*figures)
            figures = plan.total()
        change, square, n_known, n_pairs, bias, variance = figures
        self.prior_variance, self.average = max(square / n_known, LEAST), bias / n_pairs
        return change, variance / n_pairs

    def learned(self, centred):
        """What was learned: biases and variances as arrays, and the prior variance. ``centred`` biases have the mean zero."""
        biases = to_array(self.biases)
        return biases - self.average if centred else biases, to_array(self.variances), self.prior_variance

    def state(self):
        """What the next step and the solution depend on, beside the codes.

        Returns
        -------
        rest : dict
        of_users : tuple of Tensor of shape (n_codes,) and (n_codes, 2), or None
            Where codes belong to users: whose each is, and what is learned of it. A user's codes are in one order wherever they
            are.
        """
        learned, rest = torch.stack([self.biases, self.variances], 1), {"variance": self.prior_variance, "average": self.average}
        return (rest, (self.owner, learned)) if self.of_users else (rest | {"learned": learned}, None)

    def restore(self, rest, of_users=None):
        """Go back to a state."""
        self.prior_variance, self.average = rest["variance"], rest["average"]
        if of_users is None:
            learned = rest["learned"].to(self.biases)
        else:
            owner, values = of_users
            learned = torch.empty_like(values).to(self.biases)
            learned[torch.argsort(self.owner, stable=True)] = values[torch.argsort(owner, stable=True)].to(learned)
        self.biases, self.variances = (own.contiguous() for own in learned.clone().unbind(1))
