"""Matrix factorization of explicit ratings, plain and biased, as two regressors."""

from collections import ChainMap
from dataclasses import replace
from numbers import Integral, Real
from typing import Any

from sklearn.base import _fit_context
from sklearn.utils._param_validation import Interval, StrOptions

from sk_torchmf._validation import LARGEST, MOST, SMALLEST, check_device
from sk_torchmf.distributed import EXACT
from sk_torchmf.estimators._docs import documented
from sk_torchmf.estimators._fitting import ENCODER_CONSTRAINTS, FIT_CONSTRAINTS, work_of
from sk_torchmf.estimators._gathering import SavedInParts
from sk_torchmf.estimators._rating_part import RatingPart
from sk_torchmf.estimators._ratings import RatingPredictor
from sk_torchmf.estimators._refusals import (
    NEEDS,
    SHARED_TO_SHARDS,
    TO_SHARDS,
    UNSHARED_STORED,
    UNSTORED,
    check_shareable,
    refuse,
)
from sk_torchmf.estimators._stored_part import StoredPart
from sk_torchmf.inputs import context
from sk_torchmf.inputs.cached_shards import is_stored, open_stored
from sk_torchmf.inputs.forms import SHARDS, SPARSE, read_rated
from sk_torchmf.inputs.labels import lookup
from sk_torchmf.inputs.shards import Shards
from sk_torchmf.inputs.stored_ratings import read_shards
from sk_torchmf.nn import POINTWISE, BiasedMF, PlainMF
from sk_torchmf.solvers import RATING_SOLVERS
from sk_torchmf.training.callbacks import with_callbacks
from sk_torchmf.training.shared_validation import shared_validation
from sk_torchmf.training.validation import Validation

LOSSES: ChainMap[str, Any] = ChainMap({"ordinal": None}, POINTWISE)  # ordinal has cut points to learn


class ExplicitFactorization(SavedInParts, RatingPredictor):
    """Base of the explicit estimators: parameters, ``fit`` and ``partial_fit``."""

    _parameter_constraints: dict = {
        "n_factors": [Interval(Integral, 1, MOST, closed="both")],
        "loss": [StrOptions(LOSSES.keys())],  # a view: a loss that joins the table is a value at once
        "cut_points": [StrOptions({"common", "user"})],
        "solver": [StrOptions(RATING_SOLVERS.keys())],
        "alpha": [Interval(Real, 0, LARGEST, closed="both")],
        "max_iter": [Interval(Integral, 1, MOST, closed="both"), None],
        "learning_rate": [Interval(Real, SMALLEST, LARGEST, closed="both"), None],
        "batch_size": [Interval(Integral, 1, MOST, closed="both"), None],
        "clip": ["boolean"],
        "cold_average": [StrOptions({"macro", "micro"}), None],
        "seen_features": [StrOptions({"user", "item", "both"}), None],
        "effects": ["array-like", None],
        "time": [Interval(Integral, 0, None, closed="left"), str, "boolean", None],
        "distributed": ["boolean", StrOptions({EXACT})],
        **ENCODER_CONSTRAINTS,
        **FIT_CONSTRAINTS,
    }

    def __init__(
        self,
        n_factors=32,
        *,
        loss="squared_error",
        cut_points="common",
        solver="variational",
        alpha=0.1,
        max_iter=None,
        tol=1e-5,
        learning_rate=None,
        batch_size=None,
        user_encoder="auto",
        item_encoder="auto",
        seen_features=None,
        cold_average=None,
        effects=None,
        time=None,
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
        distributed=False,
        random_state=None,
        verbose=0,
    ):
        self.n_factors = n_factors
        self.loss = loss
        self.cut_points = cut_points
        self.solver = solver
        self.alpha = alpha
        self.max_iter = max_iter
        self.tol = tol
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.user_encoder = user_encoder
        self.item_encoder = item_encoder
        self.seen_features = seen_features
        self.cold_average = cold_average
        self.effects = effects
        self.time = time
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
        self.distributed = distributed
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    @documented(one="a rating", forms="table, Interactions or sparse matrix", epoch="iteration")
    def fit(self, X, y=None, sample_weight=None, X_val=None, y_val=None, *, user_features=None, item_features=None):
        """Fit the model to observed ratings, from scratch unless ``warm_start=True``.

        Parameters
        ----------
        @X
            X may also be ``Shards``, a data set on disk. The model is the same as for a table with its rows, but memory does not
            grow with their number. The columns of the ids, ratings and weights were named when the data set was made, so ``user``
            and ``item`` here apply only to the tables that ``predict`` and other methods are given.

            A path of Parquet files, or a pyarrow Dataset, is made into such a data set, in a folder that is kept for the next call,
            see the guide. ``user``, ``item``, ``y`` and ``sample_weight`` then are names of its columns.
        @y
            It must be None for ``Shards``.
        @sample_weight
            It must be None for ``Shards``.
        @X_val
            A table or container has ratings of known users. A sparse matrix has ratings of new users, each of which is predicted
            from the other ratings in its row.
        @y_val
            Must be None for a sparse matrix.
        @user_features
        @item_features

        Returns
        -------
        @self
        """
        return self._fit(X, y, sample_weight, X_val, y_val, user=user_features, item=item_features)

    @with_callbacks
    @documented(unkept="got its factors from ``set_factors`` without ``interactions``")
    def partial_fit(self, X, y=None, sample_weight=None, *, user_features=None, item_features=None):
        """Continue with more ratings: the estimator trains on these and on all earlier ones, which it has kept.

        Parameters
        ----------
        @X
        @y
        @sample_weight
        @user_features
            The columns and the encoding are those of ``fit``.
        @item_features

        Returns
        -------
        @self

        Raises
        ------
        @ValueError
            Also if ``n_factors`` has changed since the estimator was fitted.

        Notes
        -----
        Training starts from the present factors, and the result is close to that of a fit to all ratings at once. A call takes as
        long as a ``fit`` with ``warm_start=True`` to all ratings so far, so pass many ratings in each call. For a few new users use
        ``fold_in`` instead.
        """
        if is_stored(X):
            raise TypeError(
                "partial_fit takes no data on disk: it keeps all ratings in memory. Use fit, with warm_start=True to go on from "
                "the rows."
            )
        return self._partial_fit(X, y, sample_weight, user=user_features, item=item_features)

    def _has_biases(self):
        return self._module.biased

    def _check(self):
        if self.loss == "ordinal" and not RATING_SOLVERS[self.solver].takes_cuts:
            able = " or ".join(f'"{name}"' for name, row in RATING_SOLVERS.items() if row.takes_cuts)
            raise ValueError(f'loss="ordinal" needs solver={able}, which learns cut points. Got solver="{self.solver}".')
        if self.batch_size is not None and not RATING_SOLVERS[self.solver].takes_batches:
            raise ValueError(
                f'batch_size must be None with solver="{self.solver}", which takes all ratings at once. Got {self.batch_size}.'
            )
        if context.wanted(self.effects, self.time) and not RATING_SOLVERS[self.solver].takes_effects:
            raise ValueError(f'effects and time need solver="variational", which learns how much they vary. Got "{self.solver}".')
        return check_device(self.device)

    def _check_shared(self, processes, **given):
        check_shareable(self, processes, NEEDS, **given)

    def _hold_out(self, given, seed):
        return shared_validation(self, given, seed) if self.distributed else super()._hold_out(given, seed)

    def _read_held_out(self, X, y):
        """Read validation data, of which others may have other parts; a Reading."""
        found = read_rated(X, y, None, self.user, self.item, type(self).__name__, is_part=True)
        return replace(found, features=context.find(X, context.wanted(self.effects, self.time)))

    def _judging(self, held_out, reading):
        """What judges by this process's part of held-out ratings, a Reading, of its users beside what it was fitted to."""
        data, ids = held_out.data, (held_out.data.user_ids, held_out.data.item_ids)
        known = lookup(held_out.users, reading.users, "user"), lookup(held_out.items, reading.items, "item")
        user, item = (number[own] for number, own in zip(known, ids, strict=True))
        read = (user, item, held_out.features), None, self._coded(data.ratings), data.weights
        return Validation(None, None, None, None, read, reading.processes)

    def _read(self, X, y, sample_weight):
        name = type(self).__name__
        X, y, sample_weight = open_stored(X, y, sample_weight, self.user, self.item, rated=True)
        if isinstance(X, Shards):
            self._check_takes_shards()
            return read_shards(X, y, sample_weight, name)
        reading = read_rated(X, y, sample_weight, self.user, self.item, name, is_part=self.distributed)
        if self.distributed == EXACT and reading.form == SPARSE:
            raise ValueError(
                'distributed="exact" takes no sparse matrix, whose rows stay in their process: users must lie where the hash of '
                "their labels says. Pass a table or Interactions."
            )
        return replace(reading, features=context.read(X, self.effects, self.time))

    def _check_takes_shards(self):
        """Refuse what a fit to a data set on disk does not do."""
        params = self.get_params(deep=False)
        if self.distributed:
            refuse(SHARED_TO_SHARDS, UNSHARED_STORED, params, "a table in each")
        refuse(TO_SHARDS, UNSTORED, params, "a table")

    def _part(self, reading, device, seed, start):
        return (StoredPart if reading.form == SHARDS else RatingPart)(self, reading, device, seed, start)

    def _work(self, reading):
        if self.distributed == EXACT:
            return 0  # for one thread: more of them add up in another order
        return work_of(reading, self.n_factors, RATING_SOLVERS[self.solver].has_matrices)

    def _start_from(self, codes, new_share=0.0):
        start = super()._start_from(codes)
        return replace(start, new_share=new_share) if RATING_SOLVERS[self.solver].learns_prior else start


@documented(epoch="iteration", observations="ratings", entries="observed_")
class MatrixFactorization(ExplicitFactorization):
    r"""Matrix factorization of explicit ratings, :math:`r_{ui} = p_u \cdot q_i`, as a regressor.

    Parameters
    ----------
    @n_factors
    @loss
    @cut_points
    @solver
    @alpha
    @max_iter
    @learning_rate
    @batch_size
    @warm_start
    @user_encoder
    @item_encoder
    @seen_features
    @cold_average
    @effects
    @time
    @tol
    @early_stopping
    @validation_fraction
    @n_iter_no_change
    @refit
    @scoring
    @handle_unknown
    @clip
    @user
    @item
    @checkpoint
    @dtype
    @device
    @distributed
    @random_state
    @verbose

    Attributes
    ----------
    @user_factors_, item_factors_
    @mean_user_, mean_item_
        With ``cold_average`` they are what that parameter asks for.
    @users_, items_
    @n_users_, n_items_
    @seen_
    @user_counts_, item_counts_
    @noise_std_
    @rating_range_
    @observed_
    @pair_weights_
    @rating_scale_
    @levels_
    @cut_points_
    @user_cut_points_, user_cut_covariance_
    @user_prior_
    @user_posterior_, item_posterior_
    @user_encoder_, item_encoder_
    @user_features_, item_features_
    @user_described_, item_described_
    @user_feature_names_, item_feature_names_
    @user_feature_groups_, item_feature_groups_
    @user_feature_weights_, item_feature_weights_
    @user_feature_shares_, item_feature_shares_
    @user_feature_prior_, item_feature_prior_
    @effects_
    @effect_biases_
    @observed_features_
    @history_
    @n_iter_
    @best_iter_
    @best_score_
    @form_
    @n_features_in_
    @feature_names_in_

    See Also
    --------
    BiasedMatrixFactorization : The same with a bias for each user and each item; usually the better model.

    Notes
    -----
    Ratings are first divided by their weighted standard deviation, so that no parameter depends on their scale. All solvers except
    ``variational`` then minimise

    .. math::
        & \sum_{ui} w_{ui} \, \ell(r_{ui}, s_{ui}) \\
        & + \sum_u \rho(c_u) \lVert p_u - p_0 \rVert^2 \\
        & + \sum_i \rho(c_i) \lVert q_i - q_0 \rVert^2, \\
        & \rho(c) = \alpha \left(10 + c^{0.75} \, \bar c^{\,0.25}\right)

    where :math:`w_{ui}` are the weights, :math:`\ell` is the loss, :math:`c_u` and :math:`c_i` are the weighted numbers of ratings
    of a user and an item, and :math:`\bar c` is the mean of these numbers. Factors shrink towards :math:`p_0` and :math:`q_0`, two
    fixed vectors whose product is the mean rating. With the exponent 1 instead of 0.75 this is the weighted-lambda rule of [1]_.

    ``variational`` has the same likelihood and learns the regularisation: the row of a user or item, which is its factors and, in a
    biased model, its bias, is a draw from a Gaussian distribution whose mean and covariance are estimated together with the rows,
    and so is the variance of the noise [2]_. With ``effects`` and ``time`` every score has a further bias for each of them:
    :math:`e_c` for the value c in the column. The biases of one effect are draws from :math:`N(0, \tau)`, where the variance
    :math:`\tau` is estimated as well.

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


@documented(epoch="iteration", observations="ratings", entries="observed_")
class BiasedMatrixFactorization(ExplicitFactorization):
    r"""Biased matrix factorization of explicit ratings, :math:`r_{ui} = \mu + b_u + b_i + p_u \cdot q_i`, as a regressor.

    Parameters
    ----------
    @n_factors
    @loss
    @cut_points
    @solver
    @alpha
    @max_iter
    @learning_rate
    @batch_size
    @warm_start
    @user_encoder
    @item_encoder
    @seen_features
    @cold_average
    @effects
    @time
    @tol
    @early_stopping
    @validation_fraction
    @n_iter_no_change
    @refit
    @scoring
    @handle_unknown
    @clip
    @user
    @item
    @checkpoint
    @dtype
    @device
    @distributed
    @random_state
    @verbose

    Attributes
    ----------
    @user_factors_, item_factors_
    user_biases_, item_biases_ : ndarray of shape (n_users,) and (n_items,)
        The biases, in rating units. Their mean over the observed ids is zero; with ``cold_average`` it is the bias of an unknown id
        that is zero.
    global_mean_ : float
        The constant of the model, which is the prediction for an unknown user and an unknown item. Every known user and item
        counts once in it, so it differs from the mean of the ratings. With ``cold_average="micro"`` it is close to that mean.
    @mean_user_, mean_item_
        In this model the mean is zero.
    @users_, items_
    @n_users_, n_items_
    @seen_
    @user_counts_, item_counts_
    @noise_std_
    @rating_range_
    @observed_
    @pair_weights_
    @rating_scale_
    @levels_
    @cut_points_
    @user_cut_points_, user_cut_covariance_
    @user_prior_
    @user_posterior_, item_posterior_
    @user_encoder_, item_encoder_
    @user_features_, item_features_
    @user_described_, item_described_
    @user_feature_names_, item_feature_names_
    @user_feature_groups_, item_feature_groups_
    @user_feature_weights_, item_feature_weights_
    @user_feature_shares_, item_feature_shares_
    @user_feature_prior_, item_feature_prior_
    @effects_
    @effect_biases_
    @observed_features_
    @history_
    @n_iter_
    @best_iter_
    @best_score_
    @form_
    @n_features_in_
    @feature_names_in_

    See Also
    --------
    MatrixFactorization : The same without biases.
    ImplicitMatrixFactorization : For clicks, purchases and other data without ratings.

    Notes
    -----
    Ratings are first divided by their weighted standard deviation, so that no parameter depends on their scale. All solvers except
    ``variational`` then minimise

    .. math::
        & \sum_{ui} w_{ui} \, \ell(r_{ui}, s_{ui}) \\
        & + \sum_u \rho(c_u) \lVert p_u - p_0 \rVert^2 \\
        & + \sum_i \rho(c_i) \lVert q_i - q_0 \rVert^2 \\
        & + 30 \alpha \left(\sum_u b_u^2 + \sum_i b_i^2\right), \\
        & \rho(c) = \alpha \left(10 + c^{0.75} \, \bar c^{\,0.25}\right)

    where :math:`w_{ui}` are the weights, :math:`\ell` is the loss, :math:`c_u` and :math:`c_i` are the weighted numbers of ratings
    of a user and an item, and :math:`\bar c` is the mean of these numbers. Factors shrink towards :math:`p_0` and :math:`q_0`,
    which are zero. With the exponent 1 instead of 0.75 this is the weighted-lambda rule of [1]_.

    ``variational`` has the same likelihood and learns the regularisation: the row of a user or item, which is its factors and, in a
    biased model, its bias, is a draw from a Gaussian distribution whose mean and covariance are estimated together with the rows,
    and so is the variance of the noise [2]_. With ``effects`` and ``time`` every score has a further bias for each of them:
    :math:`e_c` for the value c in the column. The biases of one effect are draws from :math:`N(0, \tau)`, where the variance
    :math:`\tau` is estimated as well.

    References
    ----------
    .. [1] Zhou et al., Large-scale Parallel Collaborative Filtering for the Netflix Prize, AAIM 2008.
    .. [2] Lim, Teh, Variational Bayesian Approach to Movie Rating Prediction, KDD Cup and Workshop 2007.

    Examples
    --------
    A table with the user and the item of each observation, and the ratings:

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

    The third column says where each rating was given. With ``effects`` every place has a bias:

    >>> X = np.column_stack([X, ["home", "work", "home", "work", "home"]])
    >>> model = BiasedMatrixFactorization(n_factors=2, effects=[2], random_state=0).fit(X, y)
    >>> at_home, at_work = model.predict([["cem", "milk", "home"], ["cem", "milk", "work"]])
    >>> bool(at_home > at_work)
    True
    """

    _module = BiasedMF
