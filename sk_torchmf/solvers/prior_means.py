"""The prior means of one side's rows, linear in their features, and what is to be known of such a map. Knows tensors only."""

import numpy as np
import torch

from sk_torchmf.solvers.design import MISSING, SEEN


class PriorMeans:
    r"""Prior means of one side's rows, :math:`A^\top f_u`.

    Attributes
    ----------
    design : Design
        The features; column 0 is the constant.
    coefficients : Tensor of shape (n_columns, width)
        A.
    rows : Tensor of shape (n_rows, width)
        The prior means; a view where there are no features.
    """

    def __init__(self, design, mean):
        self.design = design
        self.coefficients = torch.zeros(design.n_columns, len(mean), dtype=mean.dtype, device=mean.device)
        self.coefficients[0] = mean
        self.refresh()

    @property
    def n_in_all(self):
        """How many rows all processes have."""
        return self.design.n_rows if self.design.plan is None else self.design.plan.n_users

    def refresh(self):
        """Bring ``rows`` up to date with the coefficients."""
        self.rows = self.design.dot(self.coefficients)

    def average(self, without=()):
        """The mean of the rows' prior means, less the parts of some groups: (width,)."""
        return self.mean(self.rows) - sum(self.mean(self._part(name)) for name in without if name in self.design.groups)

    def mean(self, rows):
        """The mean over all rows of a number for each, or of several, (n_rows, width): (width,)."""
        return self.design.total(lambda some: [rows[some].sum(0)])[0] / self.n_in_all

    def covariance_of_means(self):
        """The covariance of the rows' prior means: (width, width), float64, on the CPU."""
        return self.covariance_of(self.rows)

    def covariance_of(self, rows):
        """The covariance of rows (n_rows, width): (width, width), float64, on the CPU."""
        mean = self.mean(rows)
        return self.design.total(lambda some: [square_of(rows[some] - mean)])[0].double().cpu() / self.n_in_all

    def shares(self, S, T):
        """What share of the rows' variance each group explains, by its name, as it counts for scores.

        Parameters
        ----------
        S : Tensor of shape (width, width), float64, on the CPU
            The second moment of what rows are multiplied with.
        T : Tensor of shape (width, width), float64, on the CPU
            The covariance of rows about their prior means.
        """
        total = max(float(((self.covariance_of_means() + T) * S).sum()), np.finfo(float).tiny)
        return {name: float((self.covariance_of(self._part(name)) * S).sum()) / total for name in self.design.groups}

    def of_columns(self, values, power=1):
        """What belongs to each encoded column, rows of ``values`` (n_columns, width), in the columns' own units: an array."""
        groups = {name: group for name, group in self.design.groups.items() if name not in (SEEN, MISSING)}
        parts = [to_array(values[self.design.slices[name]]) / group.scale**power for name, group in groups.items()]
        return np.concatenate(parts) if parts else np.zeros((0, values.shape[1]))

    def _part(self, name):
        """What a group adds to the prior means of the rows, (n_rows, width)."""
        return self.design.groups[name].dot(self.coefficients[self.design.slices[name]])


def square_of(rows):
    """The sums of rows' products with themselves, (width, width)."""
    return rows.T @ rows


def to_array(tensor):
    """The numbers of a tensor: float64, NumPy, a copy."""
    return tensor.double().cpu().numpy().copy()
