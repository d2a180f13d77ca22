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
