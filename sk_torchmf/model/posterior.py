"""What a solver found, as NumPy: rows, priors and uncertainty, in standardised units and in one coordinate system."""

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Posterior:
    r"""Uncertainty of one side's rows: the covariance of row u is :math:`M \, \mathrm{diag}(s^2 / (c_u L + s^2)) \, M^\top`.

    Attributes
    ----------
    basis : ndarray of shape (width, width)
        M.
    curvature : ndarray of shape (width,)
        L.
    count : ndarray of shape (n_rows,)
        c.
    """

    basis: np.ndarray
    curvature: np.ndarray
    count: np.ndarray


@dataclass(frozen=True)
class Solution:
    """A fitted model of standardised ratings.

    Attributes
    ----------
    users, items : ndarray of shape (n_users, width) and (n_items, width)
        Factors, and the bias as the last column of a biased model.
    mean : float
        The constant of the score.
    prior : tuple of ndarray of shape (3, width, width) and (3, width)
        A user row's precision and precision times mean, at the powers 0, 0.75 and 1 of its count.
    posteriors : tuple of Posterior or None
        Of the users and of the items, where the solver knows.
    noise : float or None
        Variance of a rating about its score, where the solver knows.
    """

    users: np.ndarray
    items: np.ndarray
    mean: float
    prior: tuple[np.ndarray, np.ndarray]
    posteriors: tuple[Posterior, Posterior] | None = None
    noise: float | None = None

    @classmethod
    def from_module(cls, module, prior, posteriors=None, noise=None):
        """Take over the parameters of a PlainMF or BiasedMF."""
        state = {name: value.detach().cpu().numpy() for name, value in module.state_dict().items()}
        users, items = state["user_factors"], state["item_factors"]
        if "user_biases" in state:
            users = np.column_stack([users, state["user_biases"]])
            items = np.column_stack([items, state["item_biases"]])
        return cls(users, items, float(state.get("global_mean", 0.0)), prior, posteriors, noise)

    @classmethod
    def from_point(cls, module, objective):
        """Take over a module that minimises an objective; the prior is the objective's ridge about the mean user."""
        solution = cls.from_module(module, prior=None)
        return replace(solution, prior=objective.ridges[0].prior(solution.users.mean(0)))

    def centred(self):
        r"""The same biased model with factors and biases of mean zero on both sides.

        With :math:`p = p' + \bar p` and :math:`q = q' + \bar q` the cross terms go into the biases and the constant;
        the scores stay. An unknown id then has no factor and no bias: it scores as the known ones do on average.
        """
        p_mean, q_mean = (side[:, :-1].mean(0, dtype=np.float64) for side in (self.users, self.items))
        users, to_users, shift = _centre(self.users, p_mean, q_mean)
        items, to_items, constant = _centre(self.items, q_mean, p_mean)
        mean = self.mean - shift[-1] - constant[-1] - p_mean @ q_mean
        back = np.linalg.inv(to_users)  # old coordinates from new
        precision = back.T @ self.prior[0] @ back
        prior = precision, self.prior[1] @ back + precision @ shift
        posteriors = self.posteriors
        if posteriors is not None:
            of_users, of_items = posteriors
            posteriors = (
                replace(of_users, basis=to_users @ of_users.basis),
                replace(of_items, basis=to_items @ of_items.basis),
            )
        return replace(self, users=users, items=items, mean=mean, prior=prior, posteriors=posteriors)


def _centre(rows, mean, other_mean):
    """Rows (p, b) to (p - mean, b + (p - mean) . other_mean - constant): the new rows, the matrix and shift of that map."""
    matrix = np.eye(rows.shape[1])
    matrix[-1, :-1] = other_mean
    shift = -np.append(mean, mean @ other_mean + rows[:, -1].mean(dtype=np.float64))
    return (rows @ matrix.T + shift).astype(rows.dtype), matrix, shift


def row_variances(posterior, row):
    """Variances (n, width) of rows, by number or -1, along the posterior's basis; 1, the prior's, for unknown rows."""
    _, curvature, noise, count = posterior
    count = np.where(row >= 0, count[row], 0.0)
    return noise / (count[:, None] * curvature + noise)


def score_variance(of_users, of_items):
    r"""Posterior variance of the scores of pairs, without the noise.

    .. math:: y^\top C_u y + x^\top C_i x + \mathrm{tr}(C_u C_i)

    with y = (q, 1) and x = (p, 1) in a biased model, the trace over the factors.

    Parameters
    ----------
    of_users, of_items : tuple of (posterior, row, other)
        The side's posterior (basis, curvature, noise, count), the row numbers of shape (n,), -1 for unknown, and the *other* side's
        factors (n, n_factors) at these pairs.

    Returns
    -------
    ndarray of shape (n,)
        In standardised units.
    """
    total, parts = 0.0, []
    for posterior, row, other in (of_users, of_items):
        basis, k = posterior[0], other.shape[1]
        variances = row_variances(posterior, row)
        load = other @ basis[:k] + (basis[k] if len(basis) > k else 0.0)  # (n, width)
        total = total + np.einsum("nj,nj,nj->n", load, load, variances)
        parts.append((basis[:k], variances))
    (M, v), (N, w) = parts
    return total + np.einsum("nj,nj->n", v @ np.square(M.T @ N), w)
