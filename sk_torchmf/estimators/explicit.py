"""Matrix factorization of explicit ratings, plain and biased, as two regressors."""

from dataclasses import replace
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import _fit_context
from sklearn.utils._param_validation import Interval, StrOptions

from sk_torchmf._validation import check_device, check_size
from sk_torchmf.estimators._fitting import FIT_CONSTRAINTS, observed_attributes
from sk_torchmf.estimators._prediction import attributes_of
from sk_torchmf.estimators._ratings import RatingPredictor
from sk_torchmf.inputs.forms import read_rated
from sk_torchmf.nn import POINTWISE, BiasedMF, Pairs, PlainMF
from sk_torchmf.solvers import RATING_SOLVERS
from sk_torchmf.solvers.scaling import standardise
from sk_torchmf.training.callbacks import with_callbacks
from sk_torchmf.training.loop import Part


class RatingPart(Part):
    """Some of the ratings, standardised, and the solver that fits a built-in module to them."""

    def __init__(self, params, reading, device, seed, start):
        self.params, self.device, self.seed, self.start = params, device, seed, start
        self.loss = POINTWISE[params.loss]
        data = reading.data
        rating = self.loss.check(check_size(np.asarray(data.ratings, dtype=np.float64)))
        self.location, self.scale = standardise(rating, data.weights, self.loss)
        n_users, n_items = reading.shape
        pairs = Pairs(data.user_ids, data.item_ids, n_users, n_items, device)

        def to_pairs(values):
            return torch.from_numpy(values.astype(params.dtype)).to(device).index_select(0, pairs.order)

        self.rating, self.weight = to_pairs(rating), None if data.weights is None else to_pairs(data.weights)
        self.pairs, *self.known = pairs.compressed()
        self.counts = tuple(count.cpu().numpy() for count in pairs.sums(self.weight))
        self.observed = observed_attributes(pairs, self.rating, self.weight) | {
            "rating_range_": np.array([rating.min(), rating.max()], dtype=np.float64),
            **dict(zip(("user_counts_", "item_counts_"), self.counts, strict=True)),
        }

    def make_solver(self):
        params, row = self.params, RATING_SOLVERS[self.params.solver]
        mean = float(self.loss.link(torch.tensor(self.location / self.scale, dtype=torch.float64, device="cpu")))
        generator = torch.Generator("cpu").manual_seed(self.seed)
        options = {"init_std": row.init_std, "generator": generator, "dtype": self.rating.dtype}
        module = params._module(*self.pairs.shape, params.n_factors, mean=mean, **options)
        if self.start is not None:
            self.start.fill(module, self.known, mean, self.scale)
        return row.build(
            module.to(self.device),
            self.pairs,
            self.rating / self.scale,
            self.weight,
            self.loss,
            alpha=params.alpha,
            mean=mean,
            learning_rate=params.learning_rate,
            batch_size=params.batch_size,
            generator=generator,
        )

    def attributes(self, solver, last=False):
        factors = solver.solution()
        with np.errstate(over="ignore", invalid="ignore"):  # on the way to a divergence, which the next step raises
            factors = (factors.centred() if factors.biased else factors).in_units(self.scale)
        factors = factors.spread_over(self.known, self.counts)
        noise = None if factors.noise is None or not self.loss.standardised else self.scale * factors.noise**0.5
        posteriors = (None if side.posterior is None else side.posterior.as_tuple() for side in (factors.users, factors.items))
        return (
            self.observed
            | attributes_of(factors)
            | {
                "rating_scale_": self.scale,
                "noise_std_": noise,
                "user_prior_": factors.prior,
                **dict(zip(("user_posterior_", "item_posterior_"), posteriors, strict=True)),
            }
        )


class ExplicitFactorization(RatingPredictor):
    """Base of the explicit estimators: parameters, ``fit`` and ``partial_fit``."""

    _parameter_constraints: dict = {
        "n_factors": [Interval(Integral, 1, None, closed="left")],
        "loss": [StrOptions(set(POINTWISE))],
        "solver": [StrOptions(set(RATING_SOLVERS))],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left"), None],
        "learning_rate": [Interval(Real, 0, None, closed="neither"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "clip": ["boolean"],
        **FIT_CONSTRAINTS,
    }

    def __init__(
        self,
        n_factors=32,
        *,
        loss="squared_error",
        solver="variational",
        alpha=0.1,
        max_iter=None,
        tol=1e-5,
        learning_rate=None,
        batch_size=None,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=5,
        refit=True,
        scoring=None,
        checkpoint=None,
        handle_unknown="mean",
        clip=False,
        user=0,
        item=1,
        dtype="float32",
        device=None,
        warm_start=False,
        random_state=None,
        verbose=0,
    ):
        self.n_factors = n_factors
        self.loss = loss
        self.solver = solver
        self.alpha = alpha
        self.max_iter = max_iter
        self.tol = tol
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.refit = refit
        self.scoring = scoring
        self.checkpoint = checkpoint
        self.handle_unknown = handle_unknown
        self.clip = clip
        self.user = user
        self.item = item
        self.dtype = dtype
        self.device = device
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, sample_weight=None, X_val=None, y_val=None):
        """Fit to observed ratings, from scratch unless ``warm_start``.

        Parameters
        ----------
        X : sparse matrix (n_users, n_items), table (n, >= 2) or Interactions of length n
            A sparse matrix has a user in each row, and every stored entry is a rating, explicit zeros included. A table has an
            observation in each row, ids of any type in the columns ``user`` and ``item``; a container likewise, ids being
            positions.
        y : array-like of shape (n,), optional
            Ratings. Required for a table, None for a sparse matrix; for a container they override its ``ratings``.
        sample_weight : array-like, optional
            Weights >= 0, one a row of X: an observation's or, where X is sparse, a user's, which counts for each of the user's
            ratings. A weight of 2 is the rating given twice, a weight of 0 its absence. Given, it replaces a
            container's ``weights``.
        X_val : table, Interactions or sparse matrix, optional
            Validation data as ``score`` takes them: ratings of known users, or a sparse matrix of new users', each of which is
            predicted from the others of its row. ``history_`` gets a figure an epoch; with ``early_stopping`` it decides, and no
            part of X is held out.
        y_val : array-like of shape (n_val,), optional
            Their ratings; a container's own by default, None for a sparse matrix.

        Returns
        -------
        self
            The fitted estimator.
        """
        return self._fit(X, y, sample_weight, X_val, y_val)

    @with_callbacks
    def partial_fit(self, X, y=None, sample_weight=None):
        """Go on with more ratings; of those so far the estimator keeps which pairs there were and a sketch of their ratings.

        Parameters
        ----------
        X : sparse matrix (n_users, n_items), table (n, >= 2) or Interactions of length n
            As ``fit`` takes it; new users and items are welcome. A table has the columns of the first call. Positions, in a
            container or a sparse matrix, may go beyond those known: row u of a matrix is user u again, and it may have more
            columns, but not fewer.
        y : array-like of shape (n,), optional
            Ratings, as ``fit`` takes them.
        sample_weight : array-like, optional
            Weights of the rows of X, as ``fit`` takes them.

        Returns
        -------
        self
            On an estimator that was not fitted, what ``fit`` would give.

        Raises
        ------
        ValueError
            Beside what ``fit`` raises: for another ``n_factors`` than that of the rows, and with ``early_stopping`` or
            ``checkpoint``. The estimator then is as it was before.

        Notes
        -----
        The result is close to that of a fit to all ratings at once: training goes on from the present rows, on the new ratings and,
        at the old pairs, on what is remembered of theirs, see ``docs/partial_fit.md``. It takes about as long as such a fit, so
        give it many ratings at a time. For a few new users there is ``fold_in``.
        """
        return self._partial_fit(X, y, sample_weight)

    def _has_biases(self):
        return self._module is BiasedMF

    def _check(self):
        if self.batch_size is not None and not RATING_SOLVERS[self.solver].takes_batches:
            raise ValueError(
                f'batch_size must be None with solver="{self.solver}", which takes all ratings at once. Got {self.batch_size}.'
            )
        return check_device(self.device)

    def _read(self, X, y, sample_weight):
        return read_rated(X, y, sample_weight, self.user, self.item, type(self).__name__)

    def _part(self, reading, device, seed, start):
        return RatingPart(self, reading, device, seed, start)

    def _start_from(self, codes, new_share=0.0):
        start = super()._start_from(codes)
        return replace(start, new_share=new_share) if RATING_SOLVERS[self.solver].learns_prior else start


class MatrixFactorization(ExplicitFactorization):
    r"""Matrix factorization of explicit ratings, :math:`r_{ui} = p_u \cdot q_i`, as a regressor.

    Parameters
    ----------
    n_factors : int, default=32
        Length of a factor row, k.
    loss : {"squared_error", "huber", "poisson", "logistic"}, default="squared_error"
        Loss of a rating and its score, see ``sk_torchmf.nn``. Predictions are the score itself, its exponential for ``poisson``
        (counts), its sigmoid for ``logistic`` (0 or 1).
    solver : {"variational", "als", "adam", "adagrad", "sgd", "lbfgs"}, default="variational"
        ``variational`` learns the regularisation and knows its uncertainty; ``als`` minimises the objective below by exact
        alternating least squares, the others with torch's optimizer of that name.
    alpha : float, default=0.1
        Regularisation of that objective, unit-free; ``variational`` has none.
    max_iter : int, default=None
        Passes over the ratings; None is 10 for ``variational``, 15 for ``als`` and 50 for torch's optimizers.
    tol : float, default=1e-5
        All but ``variational`` stop once the objective falls by less than this fraction in five epochs in a row; 0 never stops.
    learning_rate : float, default=None
        Of the torch optimizers; None chooses one that suits the standardised ratings.
    batch_size : int, default=None
        The torch optimizers (not lbfgs) take a step on about so many ratings, in blocks of whole users; None takes all at once.
    early_stopping : bool, default=False
        Hold out a part of each user's ratings, or take ``fit``'s ``X_val``, and stop once the figure on it has not improved by
        more than ``tol`` times its size for ``n_iter_no_change`` iterations; the best iteration is then used. ``tol`` then says
        nothing about the training loss.
    validation_fraction : float, default=0.1
        How much of each user's pairs to hold out: all observations of a pair or none, at random, but never all that a user has
        and, where it can be helped, never all of an item.
    n_iter_no_change : int, default=5
        How many iterations without a better figure end a fit that stops early.
    refit : bool, default=True
        After early stopping on a part of X, fit all of X for as many iterations as were best. False keeps the rows of the best
        iteration: half the time, but what was held out has not taught the model. On MovieLens-100K (four splits) the RMSE was
        0.8856 with and 0.8908 without (0.8853 without early stopping; ``adam``: 0.8986, 0.9042).
    scoring : str or callable, default=None
        The figure on validation data. None is the mean loss, in the units of ``history_["loss"]`` of ``variational``, of
        standardised ratings; else a scorer, by scikit-learn's name or ``(estimator, X, y) -> float``, higher being better, such
        as ``ranking_scorer("ndcg", k=10)``.
    checkpoint : str or os.PathLike, default=None
        A file that holds, after each iteration, all that the next depends on. ``fit`` goes on from there where the same fit was
        killed, and ends with the same numbers, bit for bit on the CPU; the file of another fit, with other parameters or data, is
        refused. A fit that has ended removes it. One file serves one fit at a time.
    handle_unknown : {"mean", "nan", "error"}, default="mean"
        What to predict for ids that ``fit`` did not see: as the known ids do on average, NaN, or raise ValueError.
    clip : bool, default=False
        Limit predictions to the range of the training ratings.
    user : int or str, default=0
        Which column of a table holds the user ids, by position or by a frame's column name.
    item : int or str, default=1
        Which column holds the item ids. All others are ignored.
    dtype : {"float32", "float64"}, default="float32"
        Precision of the computation and of the fitted factors.
    device : str or torch.device, default=None
        Where to fit: "cpu" or "cuda"; None follows ``torch.get_default_device()``. The fitted state is NumPy either way.
    warm_start : bool, default=False
        ``fit`` starts from the present rows where ids are the same, instead of from random ones; its ratings are the new call's.
    random_state : int, RandomState instance or None, default=None
        Seeds the initial factors and the order of blocks. None draws a fresh seed; no global generator is touched.
    verbose : int, default=0
        1 prints a line an iteration. For progress bars and loggers see scikit-learn's ``set_callbacks`` (1.9 and later).

    Attributes
    ----------
    user_factors_, item_factors_ : ndarray of shape (n_users, n_factors) and (n_items, n_factors)
        Factors, in units of the square root of a rating.
    mean_user_, mean_item_ : ndarray of shape (n_factors,)
        The factors of an unknown id: the mean of the known ones.
    users_, items_ : ndarray of shape (n_users,) and (n_items,)
        The ids of the rows, sorted.
    n_users_, n_items_ : int
        How many ids there are.
    seen_ : CSR array of shape (n_users, n_items), bool
        What was observed in ``fit``.
    user_counts_, item_counts_ : ndarray of shape (n_users,) and (n_items,)
        Weighted number of ratings of each id; 0 where it was never observed.
    noise_std_ : float or None
        Standard deviation of a rating about its expectation, in rating units; None where the solver does not learn it.
    rating_range_ : ndarray of shape (2,)
        Lowest and highest rating.
    rating_measure_ : tuple of float
        Sum of the weights of all ratings so far, their mean and variance (for ``huber`` what stands in for these), lowest, highest.
    sketch_ : dict
        Sums of the residuals of each row's ratings, which is what ``partial_fit`` remembers of them.
    residual_square_ : float
        The sum of the residuals' squares.
    pair_weights_ : ndarray of shape (n_pairs,) or None
        Weights of the pairs of ``seen_``; None where all are one.
    optimizer_state_ : dict
        With torch's optimizers: their state, for ``partial_fit`` to go on from.
    rating_scale_ : float
        What ratings were divided by: their standard deviation; 1 for ``poisson`` and ``logistic``.
    user_prior_ : tuple of ndarray of shape (3, width, width) and (3, width)
        What a new user's row is shrunk to and how much, see ``fold_in``; in standardised units. The width is ``n_factors``.
    user_posterior_, item_posterior_ : tuple or None
        ``(basis, curvature, noise, count)``, in standardised units: the variances of row u along the columns of ``basis``, of shape
        (width, width), are ``noise / (count[u] * curvature + noise)``. None where the solver is not ``variational``.
    history_ : dict of list
        A value an iteration: ``loss``, ``seconds``, for ``variational`` ``noise_std`` of the standardised ratings, where there
        are validation data ``validation_loss`` or ``validation_score``. ``pandas.DataFrame(model.history_)`` is a table of them.
        After early stopping it tells of the fit that was stopped, not of the refit.
    n_iter_ : int
        How many iterations ``history_`` has.
    best_iter_ : int
        With ``early_stopping``: the iteration with the best validation figure, from 1.
    best_score_ : float
        With ``early_stopping``: that figure, the lowest loss or the highest score.
    form_ : {"sparse", "table", "interactions"}
        The form of X in ``fit``, which ``transform`` takes again.
    n_features_in_ : int
        Columns of X, as scikit-learn counts them: 2 for a container.
    feature_names_in_ : ndarray of str
        Where ``X`` is a frame with such names.

    See Also
    --------
    BiasedMatrixFactorization : With a bias for each user and item.

    Notes
    -----
    Ratings are divided by their weighted standard deviation first, so that no parameter depends on the scale. With weights w and
    c the weighted number of ratings of a row, all solvers but ``variational`` minimise

    .. math::
        \sum_{ui} w_{ui} \, \ell(r_{ui}, s_{ui}) + \sum_u \rho(c_u) \lVert p_u - p_0 \rVert^2
        + \sum_i \rho(c_i) \lVert q_i - q_0 \rVert^2, \quad
        \rho(c) = \alpha \left(10 + c^{0.75} \, \bar c^{\,0.25}\right)

    where :math:`p_0, q_0` are the mean direction, one coordinate whose product is the mean rating. With exponent 1 instead of 0.75
    this is the weighted-lambda rule of [1]_.

    ``variational`` has the same likelihood and learns the ridge: rows are draws from a Gaussian whose mean and covariance are
    estimated with them, as is the noise [2]_.

    References
    ----------
    .. [1] Zhou et al., Large-scale Parallel Collaborative Filtering for the Netflix Prize, AAIM 2008.
    .. [2] Lim, Teh, Variational Bayesian Approach to Movie Rating Prediction, KDD Cup and Workshop 2007.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.sparse import csr_array
    >>> from sk_torchmf import MatrixFactorization
    >>> ratings = csr_array(np.outer([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 1.5]))
    >>> model = MatrixFactorization(n_factors=1, random_state=0).fit(ratings)
    >>> model.predict([3, 0], [1, 2]).round(1)
    array([8. , 1.5])
    """

    _module = PlainMF


class BiasedMatrixFactorization(ExplicitFactorization):
    r"""Biased matrix factorization of explicit ratings, :math:`r_{ui} = \mu + b_u + b_i + p_u \cdot q_i`, as a regressor.

    Parameters
    ----------
    n_factors : int, default=32
        Length of a factor row, k.
    loss : {"squared_error", "huber", "poisson", "logistic"}, default="squared_error"
        Loss of a rating and its score, see ``sk_torchmf.nn``. Predictions are the score itself, its exponential for ``poisson``
        (counts), its sigmoid for ``logistic`` (0 or 1).
    solver : {"variational", "als", "adam", "adagrad", "sgd", "lbfgs"}, default="variational"
        ``variational`` learns the regularisation and knows its uncertainty; ``als`` minimises the objective below by exact
        alternating least squares, the others with torch's optimizer of that name.
    alpha : float, default=0.1
        Regularisation of that objective, unit-free; ``variational`` has none.
    max_iter : int, default=None
        Passes over the ratings; None is 10 for ``variational``, 15 for ``als`` and 50 for torch's optimizers.
    tol : float, default=1e-5
        All but ``variational`` stop once the objective falls by less than this fraction in five epochs in a row; 0 never stops.
    learning_rate : float, default=None
        Of the torch optimizers; None chooses one that suits the standardised ratings.
    batch_size : int, default=None
        The torch optimizers (not lbfgs) take a step on about so many ratings, in blocks of whole users; None takes all at once.
    early_stopping : bool, default=False
        Hold out a part of each user's ratings, or take ``fit``'s ``X_val``, and stop once the figure on it has not improved by
        more than ``tol`` times its size for ``n_iter_no_change`` iterations; the best iteration is then used. ``tol`` then says
        nothing about the training loss.
    validation_fraction : float, default=0.1
        How much of each user's pairs to hold out: all observations of a pair or none, at random, but never all that a user has
        and, where it can be helped, never all of an item.
    n_iter_no_change : int, default=5
        How many iterations without a better figure end a fit that stops early.
    refit : bool, default=True
        After early stopping on a part of X, fit all of X for as many iterations as were best. False keeps the rows of the best
        iteration: half the time, but what was held out has not taught the model. On MovieLens-100K (four splits) the RMSE was
        0.8856 with and 0.8908 without (0.8853 without early stopping; ``adam``: 0.8986, 0.9042).
    scoring : str or callable, default=None
        The figure on validation data. None is the mean loss, in the units of ``history_["loss"]`` of ``variational``, of
        standardised ratings; else a scorer, by scikit-learn's name or ``(estimator, X, y) -> float``, higher being better, such
        as ``ranking_scorer("ndcg", k=10)``.
    checkpoint : str or os.PathLike, default=None
        A file that holds, after each iteration, all that the next depends on. ``fit`` goes on from there where the same fit was
        killed, and ends with the same numbers, bit for bit on the CPU; the file of another fit, with other parameters or data, is
        refused. A fit that has ended removes it. One file serves one fit at a time.
    handle_unknown : {"mean", "nan", "error"}, default="mean"
        What to predict for ids that ``fit`` did not see: as the known ids do on average, NaN, or raise ValueError.
    clip : bool, default=False
        Limit predictions to the range of the training ratings.
    user : int or str, default=0
        Which column of a table holds the user ids, by position or by a frame's column name.
    item : int or str, default=1
        Which column holds the item ids. All others are ignored.
    dtype : {"float32", "float64"}, default="float32"
        Precision of the computation and of the fitted factors.
    device : str or torch.device, default=None
        Where to fit: "cpu" or "cuda"; None follows ``torch.get_default_device()``. The fitted state is NumPy either way.
    warm_start : bool, default=False
        ``fit`` starts from the present rows where ids are the same, instead of from random ones; its ratings are the new call's.
    random_state : int, RandomState instance or None, default=None
        Seeds the initial factors and the order of blocks. None draws a fresh seed; no global generator is touched.
    verbose : int, default=0
        1 prints a line an iteration. For progress bars and loggers see scikit-learn's ``set_callbacks`` (1.9 and later).

    Attributes
    ----------
    user_factors_, item_factors_ : ndarray of shape (n_users, n_factors) and (n_items, n_factors)
        Factors, in units of the square root of a rating.
    user_biases_, item_biases_ : ndarray of shape (n_users,) and (n_items,)
        Biases in rating units, with mean zero over the observed ids.
    global_mean_ : float
        The constant: what is predicted for an unknown user and an unknown item. Each known user and item counts once in it, so it
        differs from the mean of the ratings.
    mean_user_, mean_item_ : ndarray of shape (n_factors,)
        The factors of an unknown id: the mean of the known ones, which is zero.
    users_, items_ : ndarray of shape (n_users,) and (n_items,)
        The ids of the rows, sorted.
    n_users_, n_items_ : int
        How many ids there are.
    seen_ : CSR array of shape (n_users, n_items), bool
        What was observed in ``fit``.
    user_counts_, item_counts_ : ndarray of shape (n_users,) and (n_items,)
        Weighted number of ratings of each id; 0 where it was never observed.
    noise_std_ : float or None
        Standard deviation of a rating about its expectation, in rating units; None where the solver does not learn it.
    rating_range_ : ndarray of shape (2,)
        Lowest and highest rating.
    rating_measure_ : tuple of float
        Sum of the weights of all ratings so far, their mean and variance (for ``huber`` what stands in for these), lowest, highest.
    sketch_ : dict
        Sums of the residuals of each row's ratings, which is what ``partial_fit`` remembers of them.
    residual_square_ : float
        The sum of the residuals' squares.
    pair_weights_ : ndarray of shape (n_pairs,) or None
        Weights of the pairs of ``seen_``; None where all are one.
    optimizer_state_ : dict
        With torch's optimizers: their state, for ``partial_fit`` to go on from.
    rating_scale_ : float
        What ratings were divided by: their standard deviation; 1 for ``poisson`` and ``logistic``.
    user_prior_ : tuple of ndarray of shape (3, width, width) and (3, width)
        What a new user's row is shrunk to and how much, see ``fold_in``; in standardised units. The width is ``n_factors + 1``.
    user_posterior_, item_posterior_ : tuple or None
        ``(basis, curvature, noise, count)``, in standardised units: the variances of row u along the columns of ``basis``, of shape
        (width, width), are ``noise / (count[u] * curvature + noise)``. None where the solver is not ``variational``.
    history_ : dict of list
        A value an iteration: ``loss``, ``seconds``, for ``variational`` ``noise_std`` of the standardised ratings, where there
        are validation data ``validation_loss`` or ``validation_score``. ``pandas.DataFrame(model.history_)`` is a table of them.
        After early stopping it tells of the fit that was stopped, not of the refit.
    n_iter_ : int
        How many iterations ``history_`` has.
    best_iter_ : int
        With ``early_stopping``: the iteration with the best validation figure, from 1.
    best_score_ : float
        With ``early_stopping``: that figure, the lowest loss or the highest score.
    form_ : {"sparse", "table", "interactions"}
        The form of X in ``fit``, which ``transform`` takes again.
    n_features_in_ : int
        Columns of X, as scikit-learn counts them: 2 for a container.
    feature_names_in_ : ndarray of str
        Where ``X`` is a frame with such names.

    See Also
    --------
    MatrixFactorization : Without biases.

    Notes
    -----
    Ratings are divided by their weighted standard deviation first, so that no parameter depends on the scale. With weights w and
    c the weighted number of ratings of a row, all solvers but ``variational`` minimise

    .. math::
        \sum_{ui} w_{ui} \, \ell(r_{ui}, s_{ui}) + \sum_u \rho(c_u) \lVert p_u - p_0 \rVert^2
        + \sum_i \rho(c_i) \lVert q_i - q_0 \rVert^2 + 30 \alpha \left(\sum_u b_u^2 + \sum_i b_i^2\right), \quad
        \rho(c) = \alpha \left(10 + c^{0.75} \, \bar c^{\,0.25}\right)

    where :math:`p_0, q_0` are zero. With exponent 1 instead of 0.75 this is the weighted-lambda rule of [1]_.

    ``variational`` has the same likelihood and learns the ridge: rows are draws from a Gaussian whose mean and covariance are
    estimated with them, as is the noise [2]_.

    References
    ----------
    .. [1] Zhou et al., Large-scale Parallel Collaborative Filtering for the Netflix Prize, AAIM 2008.
    .. [2] Lim, Teh, Variational Bayesian Approach to Movie Rating Prediction, KDD Cup and Workshop 2007.

    Examples
    --------
    A table of labelled observations and their ratings:

    >>> import numpy as np
    >>> from sk_torchmf import BiasedMatrixFactorization
    >>> X = np.array([["ann", "tea"], ["ann", "milk"], ["bob", "tea"], ["bob", "milk"], ["cem", "tea"]])
    >>> y = np.array([5.0, 3.0, 4.0, 2.0, 5.0])
    >>> model = BiasedMatrixFactorization(n_factors=2, random_state=0).fit(X, y)
    >>> model.predict([["bob", "milk"], ["cem", "milk"]]).shape
    (2,)
    >>> items, scores = model.recommend("cem", k=1)
    >>> items
    array(['milk'], dtype=object)
    """

    _module = BiasedMF
