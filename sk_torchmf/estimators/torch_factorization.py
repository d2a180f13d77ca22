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
    r"""Your own ``torch.nn.Module`` as an estimator: you write the model, autograd does the calculus.

    Minimises the weighted mean of the loss in mini-batches, and whatever the module's own ``penalty()`` returns. A loss of ratings
    takes them as they are. To a ranking loss every observation is a positive, whatever its rating, and ``y`` is its weight; it is
    compared with ``n_negatives`` items that its user has not, drawn anew in every epoch.

    Parameters
    ----------
    module : class or callable
        A subclass of ``torch.nn.Module``, or a function that makes one. It is called with ``n_users``, ``n_items``, the arguments
        ``module__*`` and, for a categorical feature ``day``, with its number of categories ``n_day`` if it has such a parameter;
        likewise with ``n_user_features`` and ``n_item_features``, the numbers of encoded columns, where ``fit`` is given such.
        ``forward(user, item)`` takes int64 tensors of shape (n,), row numbers of ``users_`` and ``items_``, and returns one score a
        pair, of shape (n,) or (n, 1). Of the ``user_features`` and ``item_features`` that ``fit`` is given it gets the rows of
        these users and items by these names: dense tensors of shape (n, n_columns) in ``dtype``. ``penalty()``, if there is one,
        returns a number that is added to the loss of each step. With ``forward_pairs(pairs)``, see ``nn.Pairs``, and
        ``batch_size=None`` training runs on the fused kernels.
    loss : str, class, instance or function, default="squared_error"
        Of scores and ratings, both of shape (n,): a name (``squared_error``, ``huber``, ``poisson``, ``logistic``, ``ordinal``, or
        of a class in ``torch.nn`` such as ``"L1Loss"``), a loss of ``torch.nn``, or any function that returns one number.
        Predictions are the score itself, its exponential for ``"poisson"``, its sigmoid for ``"logistic"``, the expected rating
        for ``"ordinal"``; of all other losses the score, or what the method ``response(score)`` of a module makes of it.
        A loss that is a module may have parameters of its own: the optimizer trains them with the module's, under names that begin
        with ``loss__``. ``"ordinal"`` is one, ``nn.OrdinalLoss``: an ordered logit, with learned cut points between the distinct
        ratings and ``predict_proba``. A class with a parameter ``levels`` gets the distinct ratings, with ``level_weights`` their
        weighted numbers; of an instance a copy is trained.
        Or a ranking loss: ``bpr``, ``hinge``, ``adaptive_hinge``, ``softmax``, or an ``nn.RankingLoss``. The name ``logistic`` is
        that of ratings; ``nn.ranking_logistic`` is that of positives and drawn negatives, whose predictions are sigmoids too.
    optimizer : str or class, default="adam"
        Of ``torch.optim``, with torch's own defaults.
    scheduler : str or class, default=None
        Of ``torch.optim.lr_scheduler``; takes a step after each epoch.
    parameter_options : dict of str to dict, default=None
        Options of the optimizer for the parameters whose name matches a pattern: ``{"*_biases*": {"lr": 0.1}}``. The first pattern
        that matches counts; each is a group of the optimizer, in their order, and what no pattern matches is the last. The loss's
        own are ``"loss__*"``: give these ``{"weight_decay": 0}`` where the module has some.
    features : list of str or dict of str to str or int, default=None
        Further columns of a table, or ``timestamps`` or ``weights`` of Interactions, that ``forward(user, item, **features)`` gets
        as tensors of shape (n,): numbers in ``dtype``; text and a frame's categories as int64 numbers of the sorted
        ``feature_categories_``. A dict gives names to columns. What is known of users and items goes to ``fit`` instead, as
        ``user_features`` and ``item_features``.
    n_negatives : int, default=1
        For ranking losses: how many items to draw for each positive.
    @negatives
        Only for ranking losses. A user who has all items is left out.
    max_iter : int, default=10
        Epochs.
    batch_size : int, default=1024
        Observations a step, in a fresh random order every epoch; of ``Shards`` in one that is mixed within some million
        observations. None takes all at once, where there are neither features nor several processes on the fused kernels if the
        module has ``forward_pairs``.
    n_processes : int, default=1
        More than one train lock-free on shared parameters (Hogwild [1]_): SGD or Adagrad on the CPU, and a loss of ratings.
        Results then depend on timing and differ from run to run. Refused in a forked process.
    @user_encoder
    @item_encoder
    @early_stopping
    @validation_fraction
    @n_iter_no_change
    tol : float, default=1e-5
        See ``early_stopping``; the training loss ends no fit.
    @refit
        On MovieLens-100K (four splits) the RMSE of a biased module was 0.920 with and 0.928 without (1.056 without early stopping,
        after 30 epochs).
    @scoring
        None is the loss or, with a ranking loss, NDCG@10, what was trained on being left out of the lists.
    @checkpoint
        Not with ``n_processes``, nor for what a module keeps elsewhere than in parameters and buffers.
    @handle_unknown
        Categories of features that ``fit`` did not see likewise.
    @clip
        Not with a ranking loss.
    @user
    @item
    dtype : {"float32", "float64"}, default="float32"
        What the module is cast to.
    @device
    warm_start : bool, default=False
        ``fit`` starts from the parameters of the present module, at the rows of the same ids, and from the optimizer's state.
    distributed : bool, default=False
        Whether this is one fit of all processes of the default group of ``torch.distributed``, each of which calls ``fit`` with a
        part of the data, see ``gather``. Each has the whole module, which all train together: a step is taken on ``batch_size``
        observations of all processes, by the mean of their gradients. So the loss must be a mean over observations. ``features``,
        attributes of users and items, validation data, checkpoints, ``n_processes`` and the optimizer LBFGS are refused.
    @random_state
        The module's initial parameters, its dropout, the order of observations and the negatives are drawn. Modules draw from
        torch's global generators, which are put back; fits in several threads take turns with them, an epoch each.
    @verbose
    **options
        ``module__*``, ``loss__*``, ``optimizer__*`` and ``scheduler__*``: arguments of these, parameters as any other.

    Attributes
    ----------
    module_ : torch.nn.Module
        Trained, on the CPU, in evaluation mode.
    loss_ : torch.nn.Module
        Where the loss is a module with parameters, buffers or a ``response``: the trained one, on the CPU, in evaluation mode.
    levels_ : ndarray of shape (n_levels,)
        With ``loss="ordinal"``, and another that asks for them: the distinct ratings, sorted.
    @history_
    @n_iter_
    @best_iter_
    @best_score_
    @users_, items_
    @n_users_, n_items_
    feature_categories_ : dict of str to ndarray
        The vocabulary of each categorical feature.
    @seen_
        After a fit to ``Shards`` it reads the rows that are asked of it from their folder; after one with ``distributed`` it is
        that of this process's users.
    @user_counts_, item_counts_
    @rating_range_
    @background_
        The categories of each feature likewise.
    @observed_
        With a ranking loss it holds True for every positive instead. ``fit_batches`` and a fit to ``Shards`` leave none.
    observed_features_ : dict of str to ndarray
        The values of each of ``features``, in the order of the entries of ``observed_``; of categories the numbers. ``fit_batches``
        and a fit to ``Shards`` leave none.
    @user_encoder_, item_encoder_
    @user_features_, item_features_
    @user_described_, item_described_
    @user_feature_names_, item_feature_names_
    @user_feature_groups_, item_feature_groups_
    @pair_weights_
        ``fit_batches`` and a fit to ``Shards`` leave none.
    optimizer_state_ : dict or None
        The optimizer's state and the scheduler's, for ``partial_fit`` and ``warm_start`` to go on from; None after ``fit_batches``.
    @form_
        ``"shards"`` after a fit to ``Shards``, which takes tables again.
    @n_features_in_
    @feature_names_in_

    See Also
    --------
    BiasedMatrixFactorization : Faster and better where the model is biased matrix factorization.

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

    Ratings as levels, whose cut points are learned with the module:

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
        """Train a module, fresh unless ``warm_start``, on observed ratings or, with a ranking loss, on positives.

        Parameters
        ----------
        @X
            Or ``Shards``, a data set on disk, of which batches are read: memory does not grow with it. Its ratings and weights are
            columns of it, named when it was made, as were those of the ids: ``user`` and ``item`` then are for tables that
            ``predict`` and its like take.
            A path of Parquet files, or a pyarrow Dataset, becomes such a data set once, in a folder that is kept, see the guide;
            ``user``, ``item``, ``y`` and ``sample_weight`` then name its columns.
        @y
            None for ``Shards``. With a ranking loss it is a weight >= 0 instead, never required, and a container's ``ratings`` and
            a matrix's values say nothing.
        @sample_weight
            The mean of the loss is weighted by them, which torch's own losses and functions with ``reduction="none"`` allow. With a
            ranking loss they multiply ``y``.
        @X_val
        @y_val
        @user_features
            The module's ``forward`` gets their rows. Ids that only a table has are predicted by the module too; its own parameters
            for these, such as the rows of an embedding, are still as they were made: start them small.
        @item_features

        Returns
        -------
        @self
        """
        return self._fit(X, y, sample_weight, X_val, y_val, user=user_features, item=item_features)

    @with_callbacks
    @documented(unkept="was fitted with ``fit_batches``")
    def partial_fit(self, X, y=None, sample_weight=None, *, user_features=None, item_features=None):
        """Go on with more observations: the estimator has kept those so far, and trains on all of them, from the present module.

        Parameters
        ----------
        @X
        @y
        @sample_weight
        @user_features
            Their columns are those of ``fit``, and so is their encoding.
        @item_features

        Returns
        -------
        @self

        Raises
        ------
        @ValueError
            Refused, too, are a module whose other sizes have changed, other ``features`` or a new category of one, and a loss that
            ranks after one of ratings or the other way round.

        Notes
        -----
        A larger module is made as the first was, and takes over the old one's parameters and buffers at their rows; which
        dimensions are users and items is found by making it for one more of each. The optimizer's state grows likewise. A loss with
        parameters goes on from them, if need be by its ``go_on_from(earlier)``; that of ``ordinal`` takes in new levels. A call
        trains for ``max_iter`` epochs on all observations so far, as long as a ``fit`` to all of them with ``warm_start``, so give
        it many at a time.
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
