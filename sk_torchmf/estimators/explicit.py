"""Matrix factorization of explicit ratings, plain and biased, as two regressors."""

from sk_torchmf.estimators._explicit import ExplicitFactorization
from sk_torchmf.nn import BiasedMF, PlainMF


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

    _module, _biased = PlainMF, False


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

    _module, _biased = BiasedMF, True
