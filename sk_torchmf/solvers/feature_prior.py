"""The learned prior of one side's rows: a Gaussian about what their features say. Knows tensors only."""

import numpy as np
import torch

from sk_torchmf.model.feature_weights import FeatureWeights
from sk_torchmf.solvers.design import MISSING, SEEN, regress

N_STEPS = 2  # of conjugate gradients in a half-step; they go on from the last
SHARE = 0.2  # of a coefficient's prior covariance at the start, in that of the rows
CONSTANT_PRECISION = 1e-6
COLD_ROUNDS, COLD_STEPS = 8, 4


class FeaturePrior:
    r"""The prior of a side's rows, :math:`x_u \sim N(A^\top f_u, T)`, and of its coefficients, :math:`A_j \sim N(0, T_g)`.

    Group g of the coefficients has a covariance of its own; column 0 of the features is the constant, whose prior is flat. Given
    the rows' likelihoods, coefficients are found with the rows integrated out. In coordinates in which T is one and the likelihood
    of a row with c ratings has the curvature c L, a row is known with the weight :math:`W = cL / (cL + s^2)`, and the coefficients
    of each coordinate are those of a ridge regression with these weights. Their uncertainty counts: without it in :math:`T_g`
    groups are switched off that say something, and without it in T columns of noise are believed.

    Attributes
    ----------
    design : Design
    coefficients : Tensor of shape (n_columns, width)
        A.
    rows : Tensor of shape (n_rows, width)
        The prior means; a view where there are no features.
    covariances : dict of str to Tensor of shape (width, width), float64, on the CPU
        :math:`T_g`.
    variance : Tensor of shape (n_columns, width)
        Of the coefficients, along the basis.
    basis : Tensor of shape (width, width), float64, on the CPU
        The M of the last improvement.
    """

    def __init__(self, design, mean, guess):
        self.design = design
        self.coefficients = torch.zeros(design.n_columns, len(mean), dtype=mean.dtype, device=mean.device)
        self.coefficients[0] = mean
        self.variance, self.basis = torch.zeros_like(self.coefficients), torch.zeros_like(guess)
        self.covariances = dict.fromkeys(design.groups, SHARE * guess)
        self.refresh()

    def refresh(self):
        """Bring ``rows`` up to date with the coefficients."""
        self.rows = self.design.dot(self.coefficients)

    def centre(self, mean):
        """Take the mean row (width,) for the constant, where there is nothing else to learn."""
        self.coefficients[0] = mean
        self.refresh()

    def improve(self, M, N, excess, weight, n_steps=N_STEPS):
        r"""Take some steps towards the best coefficients, and learn their covariances.

        Parameters
        ----------
        M, N : Tensor of shape (width, width), float64, on the CPU
            The basis in which T is one, :math:`M M^\top = T`, and its inverse transposed.
        excess, weight : Tensor of shape (n_rows, width)
            See ``regress``.
        """
        self.basis, to, back = M, N.to(self.coefficients), M.T.to(self.coefficients)
        B = self.coefficients @ to
        precision = torch.full_like(B, CONSTANT_PRECISION)
        for name, group in self.design.slices.items():
            precision[group] = (1 / (N * (self.covariances[name] @ N)).sum(0).clamp_min(1e-8)).to(B)
        change, moved, self.variance = regress(self.design, B, excess, weight, precision, n_steps)
        B = B + change
        self.coefficients = B @ back
        self.refresh()
        for name, group in self.design.slices.items():
            self.covariances[name] = self._covariance(M, B[group], self.variance[group], self.coefficients[group])

    def _covariance(self, M, B, variance, A):
        """A group's covariance: the mean square of its coefficients, uncertainty included, drawn towards the shape of T."""
        size, width = B.shape
        own = A.T.double() @ A.double()
        variance = variance.sum(0, dtype=torch.float64)
        level = (B.square().sum(dtype=torch.float64) + variance.sum()) / (size * width)
        return ((M * ((width * level + variance).cpu() / (width + size))) @ M.T) + own.cpu() / (width + size)

    def doubt(self):
        """The variances of the rows' prior means along the basis, (n_rows, width); None where there are no features."""
        return self.design.dot(self.variance, square=True) if self.design.groups else None

    def state(self):
        """What the next step depends on, beside the design."""
        return {name: getattr(self, name) for name in ("coefficients", "variance", "basis", "covariances")}

    def restore(self, state):
        """Go back to a state."""
        self.covariances = {name: value.clone() for name, value in state["covariances"].items()}
        for name in ("coefficients", "variance", "basis"):
            setattr(self, name, state[name].to(getattr(self, name), copy=True))
        self.refresh()

    def average(self, without=()):
        """The mean of the rows' prior means, less the parts of some groups: (width,)."""
        (total,) = self.design.total(lambda some: [self.rows[some].sum(0)])
        for name in without:
            if name in self.design.groups:
                part = self._part(name)
                total = total - self.design.total(lambda some, part=part: [part[some].sum(0)])[0]
        return total / self.n_in_all

    def covariance_of_means(self):
        """The covariance of the rows' prior means: (width, width), float64, on the CPU."""
        return _covariance(self.design.total(lambda some: _moments(self.rows[some]))[0], self.n_in_all)

    def _part(self, name):
        """What a group adds to the prior means of the rows, (n_rows, width)."""
        return self.design.groups[name].dot(self.coefficients[self.design.slices[name]])

    def without(self, names, information, count, noise, T, diagonalise):
        r"""The prior of rows of which some groups are not known, rather than empty: what the others alone say.

        All that the ratings say of a row is its information vector, :math:`J = c S x + s^2 T^{-1} (x - A^\top f)`, so this is a
        regression of such summaries; the ratings are not looked at.

        Parameters
        ----------
        names : set of str
            The groups that are not known.
        information : Tensor of shape (n_rows, width)
        count : Tensor of shape (n_rows, 1)
        noise : float
        T : Tensor of shape (width, width), float64, on the CPU
        diagonalise : callable
            Takes T; returns M, N, L with :math:`M M^\top = T, N = M^{-\top}, M^\top S M = L`.

        Returns
        -------
        prior : FeaturePrior
            Of the groups that remain.
        T : Tensor of shape (width, width), float64, on the CPU
            The covariance of rows about it.
        """
        design, n = self.design.only([name for name in self.design.groups if name not in names]), self.n_in_all
        if len(design.groups) == len(self.design.groups):
            return self, T
        prior = FeaturePrior(design, self.average(), 0.5 * T)
        T, like = T + self.covariance_of_means(), self.rows
        for _ in range(COLD_ROUNDS):
            M, N, L = diagonalise(T)
            to, back, h = M.to(like), N.to(like), count * L.to(like)
            scale, known = h + noise, information @ to
            prior.improve(M, N, (known - h * (prior.rows @ back)) / scale, h / scale, COLD_STEPS)
            z, v = (known - h * (prior.rows @ back)) / scale, noise / scale
            squares, variance = design.total(lambda some, z=z, v=v: [_square(z[some]), v[some].sum(0)])
            T = M @ ((squares.double().cpu() + torch.diag(variance.double().cpu())) / n) @ M.T
        return prior, T

    @property
    def n_in_all(self):
        """How many rows all processes have."""
        return self.design.n_rows if self.design.plan is None else self.design.plan.n_users

    def shares(self, S, T):
        """What share of the rows' variance each group explains, by its name, as it counts for scores.

        Parameters
        ----------
        S : Tensor of shape (width, width), float64, on the CPU
            The second moment of what rows are multiplied with.
        T : Tensor of shape (width, width), float64, on the CPU
            The covariance of rows about their prior means.
        """
        total = float(((self.covariance_of_means() + T) * S).sum())
        found = {}
        for name in self.design.groups:
            part = self._part(name)
            (moments,) = self.design.total(lambda some, part=part: _moments(part[some]))
            found[name] = float((_covariance(moments, self.n_in_all) * S).sum()) / max(total, np.finfo(float).tiny)
        return found

    def weights(self, cold, spread, N, shares):
        """What was learned, for good: FeatureWeights in the columns' own units.

        Parameters
        ----------
        cold : FeaturePrior
            Of rows without ratings: its groups are those of encoded columns.
        spread : Tensor of shape (width, width), float64, on the CPU
            The covariance of rows about it.
        N : Tensor of shape (width, width), float64, on the CPU
            The inverse, transposed, of the basis of the rows' posterior.
        shares : dict of str to float
            What ``shares`` says.
        """
        turn = (N.T @ cold.basis).square().T.numpy()
        own = [name for name in self.design.groups if name not in (SEEN, MISSING)]

        def of_columns(prior, values, power=1):
            parts = [_array(values[prior.design.slices[name]]) / self.design.groups[name].scale ** power for name in own]
            return np.concatenate(parts) if parts else np.zeros((0, values.shape[1]))

        return FeatureWeights(
            constant=_array(cold.coefficients[0]),
            weights=of_columns(cold, cold.coefficients),
            own_constant=_array(self.coefficients[0]),
            own_weights=of_columns(self, self.coefficients),
            own_average=_array(self.average({SEEN})),
            seen=_array(self.coefficients[self.design.slices[SEEN]]) if SEEN in self.design.groups else None,
            spread=_array((N * (spread @ N)).sum(0)),
            variances=of_columns(cold, cold.variance, 2) @ turn,
            shares=shares,
        )


def _square(rows):
    return rows.T @ rows


def _moments(rows):
    return [_square(torch.cat([rows, torch.ones_like(rows[:, :1])], 1))]


def _covariance(moments, n):
    """The covariance of n rows by the sums of their moments, (width + 1, width + 1), ones last."""
    moments = moments.double().cpu() / n
    mean = moments[-1, :-1]
    return moments[:-1, :-1] - torch.outer(mean, mean)


def _array(tensor):
    return tensor.double().cpu().numpy().copy()
