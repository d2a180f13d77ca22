"""The learned prior of one side's rows: a Gaussian about what their features say. Knows tensors only."""

import torch

from sk_torchmf.model.feature_weights import FeatureWeights
from sk_torchmf.solvers.design import SEEN, regress
from sk_torchmf.solvers.prior_means import PriorMeans, square_of, to_array

N_STEPS = 2  # of conjugate gradients in a half-step; they go on from the last
SHARE = 0.2  # of a coefficient's prior covariance at the start, in that of the rows
CONSTANT_PRECISION = 1e-6
COLD_ROUNDS, COLD_STEPS = 8, 4


def floored(T, dtype):
    """A covariance that the rounding of rows of a dtype cannot make indefinite."""
    T = T.clone()
    diagonal = T.diagonal()
    diagonal += 10 * torch.finfo(dtype).eps * diagonal.max()
    return T


class FeaturePrior(PriorMeans):
    r"""The prior of a side's rows, :math:`x_u \sim N(A^\top f_u, T)`, and of its coefficients, :math:`A_j \sim N(0, T_g)`.

    Group g of the coefficients has a covariance of its own; column 0 of the features is the constant, whose prior is flat. Given
    the rows' likelihoods, coefficients are found with the rows integrated out. In coordinates in which T is one and the likelihood
    of a row with c ratings has the curvature c L, a row is known with the weight :math:`W = cL / (cL + s^2)`, and the coefficients
    of each coordinate are those of a ridge regression with these weights. Their uncertainty counts: without it in :math:`T_g`
    groups are switched off that say something, and without it in T columns of noise are believed.

    Attributes
    ----------
    covariances : dict of str to Tensor of shape (width, width), float64, on the CPU
        :math:`T_g`.
    variance : Tensor of shape (n_columns, width)
        Of the coefficients, along the basis.
    basis : Tensor of shape (width, width), float64, on the CPU
        The M of the last improvement.
    """

    def __init__(self, design, mean, guess):
        super().__init__(design, mean)
        self.variance, self.basis = torch.zeros_like(self.coefficients), torch.zeros_like(guess)
        self.covariances = dict.fromkeys(design.groups, SHARE * guess)

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
        change, of_rows, self.variance = regress(self.design, B, excess, weight, precision, n_steps)
        self.variance[0] = 0  # with a flat prior that of the constant would be all there is, where little is known
        B = B + change
        self.coefficients = B @ back
        self.rows = self.rows + self.design.product(of_rows, back)
        for name, group in self.design.slices.items():
            self.covariances[name] = self._covariance(M, B[group], self.variance[group], self.coefficients[group])

    def _covariance(self, M, B, variance, A):
        """A group's covariance: the mean square of its coefficients, uncertainty included, drawn towards the shape of T."""
        size, width = B.shape
        own = A.T.double() @ A.double()
        variance = variance.sum(0, dtype=torch.float64)
        level = (B.square().sum(dtype=torch.float64) + variance.sum()) / (size * width)
        return ((M * ((width * level + variance).cpu() / (width + size))) @ M.T) + own.cpu() / (width + size)

    def mean_variance(self):
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
            scale, known = h + noise, design.product(information, to)
            prior.improve(M, N, (known - h * design.product(prior.rows, back)) / scale, h / scale, COLD_STEPS)
            z, v = (known - h * design.product(prior.rows, back)) / scale, noise / scale
            squares, variance = design.total(lambda some, z=z, v=v: [square_of(z[some]), v[some].sum(0)])
            T = floored(M @ ((squares.double().cpu() + torch.diag(variance.double().cpu())) / n) @ M.T, like.dtype)
        return prior, T

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
        return FeatureWeights(
            constant=to_array(cold.coefficients[0]),
            weights=cold.of_columns(cold.coefficients),
            own_constant=to_array(self.coefficients[0]),
            own_weights=self.of_columns(self.coefficients),
            own_average=to_array(self.average({SEEN})),
            seen=to_array(self.coefficients[self.design.slices[SEEN]]) if SEEN in self.design.groups else None,
            spread=to_array((N * (spread @ N)).sum(0)),
            variances=cold.of_columns(cold.variance, 2) @ turn,
            shares=shares,
        )
