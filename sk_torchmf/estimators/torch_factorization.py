"""Any torch module as a factorization: the model, the loss and the optimizer are the user's."""

from collections.abc import Mapping
from dataclasses import replace
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import _fit_context
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions

from sk_torchmf._validation import MOST, check_device
from sk_torchmf.estimators._docs import documented
from sk_torchmf.estimators._fitting import ENCODER_CONSTRAINTS, FIT_CONSTRAINTS, reading_of
from sk_torchmf.estimators._gathering import Gathering
from sk_torchmf.estimators._refusals import MODULE_NEEDS, MODULE_UNSTORED, TO_SHARDS, check_shareable, refuse
from sk_torchmf.estimators._torch_batches import StoredModulePart, StreamTrainer
from sk_torchmf.estimators._torch_saving import SavedModule
from sk_torchmf.estimators._torch_training import ModulePart, ModuleStart
from sk_torchmf.inputs import columns as side_columns
from sk_torchmf.inputs.cached_shards import is_stored, open_stored
from sk_torchmf.inputs.exchange import exchange, with_all_users
from sk_torchmf.inputs.forms import SHARDS, read_rated, read_weighted
from sk_torchmf.inputs.shards import Shards
from sk_torchmf.inputs.stored_ratings import read_shards
from sk_torchmf.metrics._scorer import ranking_scorer
from sk_torchmf.training.callbacks import with_callbacks
from sk_torchmf.training.fitted_parts import joined_modules


@documented(epoch="epoch", observations="observations", entries="observed_")
class TorchFactorization(Gathering, SavedModule, StreamTrainer):
    r"""Your own ``torch.nn.Module`` as an estimator: you write the model, and autograd computes the gradients.

    Training minimises the weighted mean of the loss in mini-batches, plus whatever the module's own method ``penalty()`` returns. A
    loss of ratings is computed from the ratings as they are, without scaling. For a ranking loss every observation is a positive,
    whatever its rating, and ``y`` is its weight. A positive is compared with ``n_negatives`` items that its user was not observed
    with, which are drawn anew in every epoch.

    Parameters
    ----------
    module : class or callable
        A subclass of ``torch.nn.Module``, or a function that returns a module. It is called with ``n_users``, ``n_items`` and the
        arguments ``module__*``. If it has a parameter ``n_day``, it also gets the number of categories of the feature ``day``, and
        likewise, as ``n_user_features`` and ``n_item_features``, the numbers of encoded columns of the features that ``fit`` is
        given.

        ``forward(user, item)`` takes int64 tensors of shape (n,), which are row numbers of ``users_`` and ``items_``. It returns
        one score for each pair, as a tensor of shape (n,) or (n, 1). Arguments named ``user_features`` and ``item_features`` are
        the encoded features of these users and items, as dense tensors of shape (n, n_columns) and of type ``dtype``.

        Two further methods are optional. ``penalty()`` returns a number that is added to the loss in each step. With
        ``forward_pairs(pairs)``, see ``nn.Pairs``, and ``batch_size=None``, training runs on the fused kernels.
    loss : str, class, instance or function, default="squared_error"
        The loss of scores and ratings, both of shape (n,). It is one of

        - ``"squared_error"``, ``"huber"``, ``"poisson"``, ``"logistic"``, ``"ordinal"``, or the name of a class in ``torch.nn``
          such as ``"L1Loss"``;
        - a loss of ``torch.nn``, as a class or an instance, or any function that returns one number;
        - for ranking: ``"bpr"``, ``"hinge"``, ``"adaptive_hinge"``, ``"softmax"``, or an ``nn.RankingLoss``. The name
          ``"logistic"`` is that of the loss of ratings; ``nn.ranking_logistic`` compares positives with drawn negatives.

        The prediction is the score. Exceptions are its exponential for ``"poisson"``, its sigmoid for ``"logistic"`` and
        ``nn.ranking_logistic``, the expected rating for ``"ordinal"``, and whatever the method ``response(score)`` of a loss of
        your own returns.

        A loss that is a module may have parameters. The optimizer trains them together with those of the module, under names that
        begin with ``loss__``; of an instance a copy is trained. ``"ordinal"`` is such a loss, ``nn.OrdinalLoss``: an ordered logit
        with learned cut points between the distinct ratings, and with ``predict_proba``. A class that has a parameter ``levels``
        gets the distinct ratings, and as ``level_weights`` the sums of their weights.
    **options
        Arguments of the module, the loss, the optimizer and the scheduler, as ``module__*``, ``loss__*``, ``optimizer__*`` and
        ``scheduler__*``. They are parameters of the estimator like all others, and can be searched over.
    optimizer : str or class, default="adam"
        An optimizer of ``torch.optim``. Its default settings are those of torch.
    scheduler : str or class, default=None
        A learning rate scheduler of ``torch.optim.lr_scheduler``. It takes one step after each epoch.
    parameter_options : dict of str to dict, default=None
        Settings of the optimizer for parameters whose name matches a pattern: ``{"*_biases*": {"lr": 0.1}}``. The first pattern
        that matches applies. Every pattern makes one parameter group of the optimizer, in their order, and parameters that match
        none are the last group. The parameters of the loss match ``"loss__*"``; with weight decay, give them ``{"weight_decay":
        0}``.
    n_negatives : int, default=1
        For ranking losses: the number of items that are drawn for each positive.
    @negatives
        It applies to ranking losses alone. A user who has all items is left out.
    max_iter : int, default=10
        Number of epochs.
    batch_size : int, default=1024
        Number of observations in a step. Their order is random and new in every epoch; those of ``Shards`` are mixed within about a
        million. None takes all observations in each step. It then uses the fused kernels if the module has ``forward_pairs``,
        except with ``features`` or with several processes.
    warm_start : bool, default=False
        If True, ``fit`` starts from the present module, whose rows of the ids that it knows are kept, and from the state of the
        optimizer.
    features : list of str or dict of str to str or int, default=None
        Further columns of a table, or ``timestamps`` or ``weights`` of Interactions, that are passed to ``forward(user, item,
        **features)`` as tensors of shape (n,). Numbers have the type ``dtype``. Text and the categories of a DataFrame become int64
        positions in ``feature_categories_``. In a dict the keys are the names of the arguments, and the values are the columns.
        What is known of users and items is passed to ``fit`` instead, as ``user_features`` and ``item_features``.
    @user_encoder
    @item_encoder
    @early_stopping
    @validation_fraction
    @n_iter_no_change
    tol : float, default=1e-5
        The relative improvement that ``early_stopping`` asks for. The training loss does not end a fit.
    @refit
        On MovieLens-100K (four splits) the RMSE of a biased module was 0.920 with it, 0.928 without, and 1.056 after 30 epochs
        without early stopping.
    @scoring
        None means the loss or, with a ranking loss, NDCG@10 of lists without the items that were trained on.
    @handle_unknown
        The same applies to categories of ``features`` that ``fit`` did not see.
    @clip
        It cannot be used with a ranking loss.
    @user
    @item
    n_processes : int, default=1
        If more than 1, so many processes train at the same time on shared parameters without locks (Hogwild [1]_). This needs the
        optimizer SGD or Adagrad, the CPU, and a loss of ratings. The result depends on timing and differs from run to run. A forked
        process refuses it.
    @checkpoint
        It cannot be used with ``n_processes``, or for a module with state outside its parameters and buffers.
    dtype : {"float32", "float64"}, default="float32"
        The type that the module's parameters are converted to.
    @device
    distributed : bool, default=False
        If True, all processes of the default group of ``torch.distributed`` fit one model together. Each of them calls ``fit`` with
        a part of the data. See ``gather``. Every process has the whole module. A step takes ``batch_size`` observations from all
        processes together and uses the mean of their gradients, so the loss must be a mean over observations. ``features``,
        ``user_features`` and ``item_features``, validation data, checkpoints, ``n_processes`` and the optimizer LBFGS are refused.
    @random_state
        This covers the initial parameters of the module, its dropout, the order of the observations and the negatives. Since
        modules draw from torch's global generators, these are restored afterwards; fits in several threads take turns with them,
        epoch by epoch.
    @verbose

    Attributes
    ----------
    module_ : torch.nn.Module
        The trained module, on the CPU, in evaluation mode.
    loss_ : torch.nn.Module
        Where the loss is a module with parameters, buffers or a ``response``: the trained loss, on the CPU, in evaluation mode.
    levels_ : ndarray of shape (n_levels,)
        With ``loss="ordinal"``, or another loss that has a parameter ``levels``: the distinct ratings, sorted.
    @history_
    @n_iter_
    @best_iter_
    @best_score_
    @users_, items_
    @n_users_, n_items_
    feature_categories_ : dict of str to ndarray
        The sorted categories of each categorical feature.
    @seen_
        After a fit to ``Shards``, rows are read from their folder when they are asked for. After a fit with ``distributed`` it has
        the users of this process only.
    @user_counts_, item_counts_
    @rating_range_
    @background_
        The categories of a feature are sampled in the same way.
    @observed_
        With a ranking loss it has True for every positive instead. Not after ``fit_batches`` or a fit to ``Shards``.
    observed_features_ : dict of str to ndarray
        The values of each of ``features``, in the order of the entries of ``observed_``; those of categories as positions. Not
        after ``fit_batches`` or a fit to ``Shards``.
    @user_encoder_, item_encoder_
    @user_features_, item_features_
    @user_described_, item_described_
    @user_feature_names_, item_feature_names_
    @user_feature_groups_, item_feature_groups_
    @pair_weights_
        Not after ``fit_batches`` or a fit to ``Shards``.
    optimizer_state_ : dict or None
        The state of the optimizer and the scheduler, from which ``partial_fit`` and ``warm_start`` continue. None after
        ``fit_batches``.
    @form_
        It is ``"shards"`` after a fit to ``Shards``.
    @n_features_in_
    @feature_names_in_

    See Also
    --------
    BiasedMatrixFactorization : Faster and more accurate if the model you want is biased matrix factorization.

    References
    ----------
    .. [1] Recht, Re, Wright, Niu, Hogwild: A Lock-Free Approach to Parallelizing Stochastic Gradient Descent, NIPS 2011.

    Examples
    --------
    >>> import torch
    >>> from sk_torchmf import TorchFactorization, datasets
    >>> class Factorization(torch.nn.Module):
    ...     def __init__(self, n_users, n_items, n_factors=20):
    ...         super().__init__()
    ...         self.user_factors = torch.nn.Embedding(n_users, n_factors, sparse=True)
    ...         self.item_factors = torch.nn.Embedding(n_items, n_factors, sparse=True)
    ...
    ...     def forward(self, user, item):
    ...         return (self.user_factors(user) * self.item_factors(item)).sum(1)
    >>> ratings = datasets.make_ratings(random_state=0).interactions
    >>> model = TorchFactorization(Factorization, "MSELoss", "Adagrad", optimizer__lr=0.1, random_state=0)
    >>> model
    TorchFactorization(loss='MSELoss', module=Factorization, optimizer='Adagrad', random_state=0, optimizer__lr=0.1)
    >>> model.set_params(module__n_factors=8).fit(ratings).n_iter_
    10
    >>> model.predict(ratings).shape == ratings.ratings.shape
    True
    >>> ranking = model.set_params(loss="bpr", n_negatives=4).fit(ratings[ratings.ratings >= 4])
    >>> ranking.recommend(users=0, k=3)[0].shape
    (3,)

    Ratings as levels, with cut points that are learned together with the module:

    >>> stars = ratings.ratings.round().clip(1, 5)
    >>> ordinal = TorchFactorization(Factorization, "ordinal", "Adagrad", optimizer__lr=0.1, random_state=0).fit(ratings, stars)
    >>> ordinal.levels_, ordinal.predict_proba([3, 4], [5, 6]).shape
    (array([1., 2., 3., 4., 5.]), (2, 5))
    """

    _epoch, _stops_at_tol = "epoch", False

    _parameter_constraints: dict = {
        "module": [callable, torch.nn.Module],  # which fit refuses with better words
        "loss": [str, callable],
        "optimizer": [str, callable, torch.optim.Optimizer],  # an instance is refused with better words
        "scheduler": [str, callable, torch.optim.lr_scheduler.LRScheduler, None],
        "parameter_options": [Mapping, None],
        "features": ["array-like", HasMethods(["keys"]), str, None],
        "n_negatives": [Interval(Integral, 1, MOST, closed="both")],
        "negatives": [StrOptions({"uniform", "popularity"})],
        "max_iter": [Interval(Integral, 1, MOST, closed="both")],
        "batch_size": [Interval(Integral, 1, MOST, closed="both"), None],
        "n_processes": [Interval(Integral, 1, MOST, closed="both")],
        "clip": ["boolean"],
        "distributed": ["boolean"],
        **ENCODER_CONSTRAINTS,
        **FIT_CONSTRAINTS,
        "verbose": ["verbose", Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        module,
        loss="squared_error",
        optimizer="adam",
        *,
        scheduler=None,
        parameter_options=None,
        features=None,
        n_negatives=1,
        negatives="uniform",
        max_iter=10,
        batch_size=1024,
        n_processes=1,
        user_encoder="auto",
        item_encoder="auto",
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=5,
        tol=1e-5,
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
        **options,
    ):
        self.module = module
        self.loss = loss
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.parameter_options = parameter_options
        self.features = features
        self.n_negatives = n_negatives
        self.negatives = negatives
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.n_processes = n_processes
        self.user_encoder = user_encoder
        self.item_encoder = item_encoder
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
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
        self._set_options(options)

    @_fit_context(prefer_skip_nested_validation=True)
    @documented(one="an observation", forms="table or Interactions", epoch="epoch")
    def fit(self, X, y=None, sample_weight=None, X_val=None, y_val=None, *, user_features=None, item_features=None):
        """Train a module on observed ratings or, with a ranking loss, on positives; a new module unless ``warm_start=True``.

        Parameters
        ----------
        @X
            X may also be ``Shards``, a data set on disk, from which batches are read, so that memory does not grow with it. The
            columns of the ids, ratings and weights were named when the data set was made, so ``user`` and ``item`` here apply only
            to the tables that ``predict`` and other methods are given.

            A path of Parquet files, or a pyarrow Dataset, is made into such a data set, in a folder that is kept for the next call,
            see the guide. ``user``, ``item``, ``y`` and ``sample_weight`` then are names of its columns.
        @y
            It must be None for ``Shards``. With a ranking loss it is a weight >= 0 instead and may always be None; the ``ratings``
            of a container and the values of a matrix are then ignored.
        @sample_weight
            They are the weights in the mean of the loss, which is possible for the losses of torch and for functions with an
            argument ``reduction="none"``. With a ranking loss they multiply ``y``.
        @X_val
        @y_val
        @user_features
            The module's ``forward`` gets the rows of its users. Ids that occur in this table but not in X are predicted by the
            module too. Its own parameters for them, such as rows of an embedding, keep their initial values, which should therefore
            be small.
        @item_features

        Returns
        -------
        @self
        """
        return self._fit(X, y, sample_weight, X_val, y_val, user=user_features, item=item_features)

    @with_callbacks
    @documented(unkept="was fitted with ``fit_batches``")
    def partial_fit(self, X, y=None, sample_weight=None, *, user_features=None, item_features=None):
        """Continue with more observations: the estimator trains on these and on all earlier ones, which it has kept.

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
            Also for other ``features`` than in ``fit`` or a new category of one of them, for a module whose other sizes have
            changed, and for a ranking loss after a loss of ratings or the reverse.

        Notes
        -----
        Training starts from the present module. For new users and items a larger module is made in the same way as the first, and
        takes over the rows of the present one's parameters and buffers, and of the state of the optimizer. Which of their
        dimensions are users and which are items is found by making the module for one more of each. The parameters of a loss are
        kept as well, if need be by its method ``go_on_from(earlier)``; ``"ordinal"`` adds new levels in this way.

        A call trains for ``max_iter`` epochs on all observations so far, which takes as long as a ``fit`` with ``warm_start=True``
        to all of them, so pass many observations in each call.
        """
        if is_stored(X):
            raise TypeError(
                "partial_fit takes no data on disk: it keeps all observations in memory. Use fit, with warm_start=True to go on "
                "from the module."
            )
        return self._partial_fit(X, y, sample_weight, user=user_features, item=item_features)

    def _joined(self, attributes, processes):
        return joined_modules(attributes, processes) if processes.size > 1 else attributes

    def _check(self):
        if self.checkpoint is not None and self.n_processes > 1:
            raise ValueError(
                f"checkpoint needs n_processes=1: what n_processes={self.n_processes} find depends on timing. Use checkpoint=None, "
                "or n_processes=1."
            )
        self._check_clip()
        if self._ranks() and self.n_processes > 1:
            raise ValueError(
                f"n_processes={self.n_processes} needs a loss of ratings: the processes do not share what negatives are drawn by. "
                "Use n_processes=1 with a ranking loss."
            )
        return check_device(self.device)

    def _default_scoring(self):
        if not self._ranks():
            return None
        if self.features is not None and self.scoring is None:
            raise ValueError(
                "Validation of a ranking loss ranks all items of each user, and this model's features are of single pairs. Pass "
                "scoring, or use early_stopping=False."
            )
        return ranking_scorer("ndcg", k=10)

    def _read(self, X, y, sample_weight, categories=None):
        X, y, sample_weight = open_stored(X, y, sample_weight, self.user, self.item, rated=not self._ranks())
        if isinstance(X, Shards):
            self._check_takes_shards()
            return read_shards(X, y, sample_weight, type(self).__name__, rated=not self._ranks())
        if self._ranks():
            reading = read_weighted(X, y, sample_weight, self.user, self.item, is_part=self.distributed)
        else:
            name = type(self).__name__
            reading = read_rated(X, y, sample_weight, self.user, self.item, name, is_part=self.distributed)
        features, categories = side_columns.read(X, self.features, self.dtype, categories)
        return replace(reading, features=features, categories=categories)

    def _check_shared(self, processes, **given):
        check_shareable(self, processes, MODULE_NEEDS, **given)

    def _exchange(self, reading, processes):
        reading = exchange(reading, processes)
        return with_all_users(reading) if processes.size > 1 else reading

    def _check_takes_shards(self):
        """Refuse what a fit to a data set on disk does not do."""
        refuse(TO_SHARDS, MODULE_UNSTORED, self.get_params(deep=False), "a table")

    def _read_more(self, X, y, sample_weight):
        reading = self._read(X, y, sample_weight, self.feature_categories_)
        side_columns.check_known_categories(reading.features)
        return reading

    def _earlier(self):
        observed, features = self._kept_for_more("observed_"), self.observed_features_
        ranked = observed.dtype.kind == "b"
        if ranked != self._ranks():
            was, now = ("a loss that ranks", "a loss of ratings")[:: 1 if ranked else -1]
            raise ValueError(f"partial_fit goes on with the kind of loss that fit had, {was}. Got {now}, {self.loss!r}. Use fit.")
        if features.keys() != side_columns.columns(self.features).keys():
            raise ValueError(
                f"partial_fit goes on with the features that fit had, {sorted(features)}. Got {self.features!r}. Use fit."
            )
        reading = reading_of(self, observed, None if ranked else observed.data.astype(np.float64), self.pair_weights_)
        return replace(reading, features=features, categories=self.feature_categories_)

    def _start_from(self, codes, new_share=0.0):
        state = vars(self)
        return ModuleStart(self.module_, state.get("optimizer_state_"), codes, state.get("loss_"))

    def _part(self, reading, device, seed, start):
        return (StoredModulePart if reading.form == SHARDS else ModulePart)(self, reading, device, seed, start)
