"""Uncertainty of rows: their posterior variances, those of scores, draws from them. Knows arrays only."""

from dataclasses import dataclass

import numpy as np


@dataclass(slots=True)
class Posterior:
    r"""Uncertainty of one side's rows: the covariance of row u is :math:`M \, \mathrm{diag}(v_u + v_u^2 q_u) \, M^\top`.

    Here :math:`v_u = s^2 / (c_u L + s^2)` is the variance given the row's prior mean, and q that of the prior mean.

    Attributes
    ----------
    basis : ndarray of shape (width, width)
        M. A row is the factors, followed by the bias in a biased model.
    curvature : ndarray of shape (width,)
        L.
    noise : float
        :math:`s^2`, the variance of a standardised rating about its score.
    count : ndarray of shape (n_rows,)
        c, the weighted number of ratings.
    mean_variance : ndarray of shape (n_rows + 1, width) or None
        q, along the basis; last that of an unknown row. None where prior means are taken for known.
    """

    basis: np.ndarray
    curvature: np.ndarray
    noise: float
    count: np.ndarray
    mean_variance: np.ndarray | None = None

    def as_tuple(self):
        """What it is made of, as fitted attributes have it."""
        parts = self.basis, self.curvature, self.noise, self.count
        return parts if self.mean_variance is None else (*parts, self.mean_variance)

    def variances(self, row):
        """Variances (n, width) of rows, by number or -1, along the columns of the basis; the prior's for unknown rows."""
        count = np.where(row >= 0, self.count[row], 0.0) if len(self.count) else np.zeros(len(row))
        variances = self.noise / (count[:, None] * self.curvature + self.noise)
        return variances if self.mean_variance is None else variances + np.square(variances) * self.mean_variance[row]

    def draw(self, rng, row):
        """Draw for rows, by number or -1, how far they lie from their means: (n, width)."""
        deviation = np.sqrt(self.variances(row)) * rng.standard_normal((len(row), len(self.curvature)))
        return deviation @ self.basis.T


def score_variance(of_users, of_items):
    r"""Posterior variance of the scores of pairs, without the noise.

    .. math:: y^\top C_u y + x^\top C_i x + \mathrm{tr}(C_u C_i)

    with y = (q, 1) and x = (p, 1) in a biased model, the trace over the factors.

    Parameters
    ----------
    of_users, of_items : tuple of (Posterior, row, other)
        The side's posterior, the row numbers of shape (n,), -1 for unknown, and the *other* side's factors (n, n_factors) at these
        pairs.

    Returns
    -------
    ndarray of shape (n,)
        In standardised units.
    """
    total, parts = 0.0, []
    for posterior, row, other in (of_users, of_items):
        basis, k = posterior.basis, other.shape[1]
        variances = posterior.variances(row)
        load = other @ basis[:k] + (basis[k] if len(basis) > k else 0.0)  # (n, width)
        total = total + np.einsum("nj,nj,nj->n", load, load, variances)
        parts.append((basis[:k], variances))
    (M, v), (N, w) = parts
    return total + np.einsum("nj,nj->n", v @ np.square(M.T @ N), w)
