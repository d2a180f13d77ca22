"""Any torch module as a factorization: the model, the loss and the optimizer are the user's."""

from collections.abc import Mapping
from dataclasses import replace
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import _fit_context
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions

from sk_torchmf._validation import check_device
from sk_torchmf.estimators._fitting import FIT_CONSTRAINTS, reading_of
from sk_torchmf.estimators._torch_batches import StreamTrainer
from sk_torchmf.estimators._torch_saving import SavedModule
from sk_torchmf.estimators._torch_training import ModulePart, ModuleStart
from sk_torchmf.inputs import features as side_columns
from sk_torchmf.inputs.forms import read_rated, read_weighted
from sk_torchmf.metrics._scorer import ranking_scorer
from sk_torchmf.training.callbacks import with_callbacks


class TorchFactorization(SavedModule, StreamTrainer):
    r"""Your own ``torch.nn.Module`` as an estimator: you write the model, autograd does the calculus.

    Minimises the weighted mean of the loss in mini-batches, and whatever the module's own ``penalty()`` returns. A loss of ratings
    takes them as they are. To a ranking loss every observation is a positive, whatever its rating, and ``y`` is its weight; it is
    compared with ``n_negatives`` items that its user has not, drawn anew in every epoch.

    Parameters
    ----------
    module : class or callable
        A subclass of ``torch.nn.Module``, or a function that makes one. It is called with ``n_users``, ``n_items``, the arguments
        ``module__*`` and, for a categorical feature ``day``, with its number of categories ``n_day`` if it has such a parameter.
        ``forward(user, item)`` takes int64 tensors of shape (n,), row numbers of ``users_`` and ``items_``, and returns one score a
        pair, of shape (n,) or (n, 1). ``penalty()``, if there is one, returns a number that is added to the loss of each step.
        With ``forward_pairs(pairs)``, see ``nn.Pairs``, and ``batch_size=None`` training runs on the fused kernels.
    loss : str, class, instance or function, default="squared_error"
        Of scores and ratings, both of shape (n,): a name (``squared_error``, ``huber``, ``poisson``, ``logistic``, or of a class
        in ``torch.nn`` such as ``"L1Loss"``), a loss of ``torch.nn``, or any function that returns one number. Predictions are
        the score itself, its exponential for ``"poisson"``, its sigmoid for ``"logistic"``; of all other losses the score.
        Or a ranking loss: ``bpr``, ``hinge``, ``adaptive_hinge``, ``softmax``, or an ``nn.RankingLoss``. The name ``logistic`` is
        that of ratings; ``nn.ranking_logistic`` is that of positives and drawn negatives, whose predictions are sigmoids too.
    optimizer : str or class, default="adam"
        Of ``torch.optim``, with torch's own defaults.
    scheduler : str or class, default=None
        Of ``torch.optim.lr_scheduler``; takes a step after each epoch.
    parameter_options : dict of str to dict, default=None
        Options of the optimizer for the parameters whose name matches a pattern: ``{"*_biases*": {"lr": 0.1}}``. The first pattern
        that matches counts; each is a group of the optimizer, in their order, and what no pattern matches is the last.
    features : list of str or dict of str to str or int, default=None
        Further columns of a table, or ``timestamps`` or ``weights`` of Interactions, that ``forward(user, item, **features)`` gets
        as tensors of shape (n,): numbers in ``dtype``; text and a frame's categories as int64 numbers of the sorted
        ``feature_categories_``. A dict gives names to columns.
    n_negatives : int, default=1
        For ranking losses: how many items to draw for each positive.
    negatives : {"uniform", "popularity"}, default="uniform"
        For ranking losses: whether all items that a user has not are drawn alike, or by their number of users to the power 0.75.
        A user who has all of them is left out.
    max_iter : int, default=10
        Epochs.
    batch_size : int, default=1024
        Observations a step, in a fresh random order every epoch. None takes all at once, where there are neither features nor
        several processes on the fused kernels if the module has ``forward_pairs``.
    n_processes : int, default=1
        More than one train lock-free on shared parameters (Hogwild [1]_): SGD or Adagrad on the CPU, and a loss of ratings.
        Results then depend on timing and differ from run to run.
    early_stopping : bool, default=False
        Hold out a part of each user's observations, or take ``fit``'s ``X_val``, and stop once the figure on it has not improved
        by more than ``tol`` times its size for ``n_iter_no_change`` epochs; the best epoch is then used.
    validation_fraction : float, default=0.1
        How much of each user's pairs to hold out: all observations of a pair or none, at random, but never all that a user has
        and, where it can be helped, never all of an item.
    n_iter_no_change : int, default=5
        How many epochs without a better figure end a fit that stops early.
    tol : float, default=1e-5
        See ``early_stopping``; the training loss ends no fit.
    refit : bool, default=True
        After early stopping on a part of X, fit all of X for as many epochs as were best. False keeps the rows of the best epoch:
        half the time, but what was held out has not taught the model. On MovieLens-100K (four splits) the RMSE of a biased module
        was 0.920 with and 0.928 without (1.056 without early stopping, after 30 epochs).
    scoring : str or callable, default=None
        The figure on validation data. None is the loss or, with a ranking loss, NDCG@10, what was trained on being left out of
        the lists; else a scorer, by scikit-learn's name or ``(estimator, X, y) -> float``, higher being better, such as
        ``ranking_scorer("ndcg", k=10)``.
    checkpoint : str or os.PathLike, default=None
        A file that holds, after each epoch, all that the next depends on. ``fit`` goes on from there where the same fit was
        killed, and ends with the same numbers, bit for bit on the CPU; the file of another fit, with other parameters or data, is
        refused. A fit that has ended removes it. One file serves one fit at a time. Not with ``n_processes``, nor for what a
        module keeps elsewhere than in parameters and buffers.
    handle_unknown : {"mean", "nan", "error"}, default="mean"
        What to predict for ids and categories that ``fit`` did not see: from the average score over a sample of those it saw, NaN,
        or raise ValueError.
    clip : bool, default=False
        Limit predictions to the range of the training ratings. Not with a ranking loss.
    user : int or str, default=0
        Which column of a table holds the user ids, by position or by a frame's column name.
    item : int or str, default=1
        Which column holds the item ids.
    dtype : {"float32", "float64"}, default="float32"
        What the module is cast to.
    device : str or torch.device, default=None
        Where to fit; None follows ``torch.get_default_device()``. The fitted module lies on the CPU.
    warm_start : bool, default=False
        ``fit`` starts from the parameters of the present module, at the rows of the same ids, and from the optimizer's state.
    random_state : int, RandomState instance or None, default=None
        Seeds the module's initial parameters, its dropout, the order of observations and the negatives. torch's global generators
        are left as they were.
    verbose : int, default=0
        1 prints a line an epoch. For progress bars and loggers see scikit-learn's ``set_callbacks`` (1.9 and later).
    **options
        ``module__*``, ``loss__*``, ``optimizer__*`` and ``scheduler__*``: arguments of these, parameters as any other.

    Attributes
    ----------
    module_ : torch.nn.Module
        Trained, on the CPU, in evaluation mode.
    history_ : dict of list
        A value an epoch: ``loss``, ``seconds``, where there are validation data ``validation_loss`` or ``validation_score``.
        ``pandas.DataFrame(model.history_)`` is a table of them. After early stopping it tells of the fit that was stopped, not of
        the refit.
    n_iter_ : int
        How many epochs ``history_`` has.
    best_iter_ : int
        With ``early_stopping``: the epoch with the best validation figure, from 1.
    best_score_ : float
        With ``early_stopping``: that figure, the lowest loss or the highest score.
    users_, items_ : ndarray of shape (n_users,) and (n_items,)
        The ids of the rows, sorted.
    n_users_, n_items_ : int
        How many ids there are.
    feature_categories_ : dict of str to ndarray
        The vocabulary of each categorical feature.
    seen_ : CSR array of shape (n_users, n_items), bool
        What was observed in ``fit``.
    user_counts_, item_counts_ : ndarray of shape (n_users,) and (n_items,)
        Weighted number of observations of each id.
    rating_range_ : ndarray of shape (2,)
        Lowest and highest rating; not with a ranking loss.
    background_ : dict of str to ndarray
        Some of the users, items and categories that were observed, as numbers: an unknown one is predicted as these are on average.
    sketch_ : dict or None
        Sums of the residuals of each row's ratings, which is what ``partial_fit`` remembers of them; None where it does not.
    residual_square_ : float
        Where there is a sketch: the sum of the residuals' squares.
    pair_weights_ : ndarray of shape (n_pairs,) or None
        Weights of the pairs of ``seen_``; None where all are one.
    optimizer_state_ : dict or None
        The optimizer's state and the scheduler's, for ``partial_fit`` to go on from; None after ``fit_batches``.
    form_ : {"sparse", "table", "interactions"}
        The form of X in ``fit``.
    n_features_in_ : int
        Columns of X, as scikit-learn counts them: 2 for a container.
    feature_names_in_ : ndarray of str
        Where ``X`` is a frame with such names.

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
    """

    _epoch, _stops_at_tol = "epoch", False

    _parameter_constraints: dict = {
        "module": [callable, torch.nn.Module],  # which fit refuses with better words
        "loss": [str, callable],
        "optimizer": [str, callable, torch.optim.Optimizer],  # an instance is refused with better words
        "scheduler": [str, callable, torch.optim.lr_scheduler.LRScheduler, None],
        "parameter_options": [Mapping, None],
        "features": ["array-like", HasMethods(["keys"]), str, None],
        "n_negatives": [Interval(Integral, 1, None, closed="left")],
        "negatives": [StrOptions({"uniform", "popularity"})],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "n_processes": [Interval(Integral, 1, None, closed="left")],
        "clip": ["boolean"],
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
        self.random_state = random_state
        self.verbose = verbose
        self._set_options(options)

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, sample_weight=None, X_val=None, y_val=None):
        """Train a module, fresh unless ``warm_start``, on observed ratings or, with a ranking loss, on positives.

        Parameters
        ----------
        X : sparse matrix (n_users, n_items), table (n, >= 2) or Interactions of length n
            A sparse matrix has a user in each row, and every stored entry is an observation, explicit zeros included. A table has
            an observation in each row, ids of any type in the columns ``user`` and ``item``; a container likewise, ids being
            positions.
        y : array-like of shape (n,), optional
            Ratings. Required for a table, None for a sparse matrix; for a container they override its ``ratings``. With a ranking
            loss it is a weight >= 0 instead, never required, and a container's ``ratings`` and a matrix's values say nothing.
        sample_weight : array-like, optional
            Weights >= 0, one a row of X: an observation's or, where X is sparse, a user's. The mean of the loss is weighted by
            them, which torch's own losses and functions with ``reduction="none"`` allow. With a ranking loss they multiply ``y``.
        X_val : table or Interactions, optional
            Validation data as ``score`` takes them. ``history_`` gets a figure an epoch; with ``early_stopping`` it decides, and no
            part of X is held out.
        y_val : array-like of shape (n_val,), optional
            Their ratings; a container's own by default.

        Returns
        -------
        self
            The fitted estimator.
        """
        return self._fit(X, y, sample_weight, X_val, y_val)

    @with_callbacks
    def partial_fit(self, X, y=None, sample_weight=None):
        """Go on with more observations: the module and the optimizer's state grow by the rows of new users and items.

        Parameters
        ----------
        X : sparse matrix (n_users, n_items), table (n, >= 2) or Interactions of length n
            As ``fit`` takes it. A table has the columns of the first call. Positions, in a container or a sparse matrix, may go
            beyond those known: row u of a matrix is user u again, and it may have more columns, but not fewer.
        y : array-like of shape (n,), optional
            Ratings or, with a ranking loss, weights of the positives, as ``fit`` takes them.
        sample_weight : array-like, optional
            Weights of the rows of X, as ``fit`` takes them.

        Returns
        -------
        self
            On an estimator that was not fitted, what ``fit`` would give.

        Raises
        ------
        ValueError
            Beside what ``fit`` raises: for a module whose other sizes have changed, for a new category of a feature, for a loss
            that ranks after one of ratings and the other way round, and with ``early_stopping`` or ``checkpoint``. The estimator
            then is as it was before.

        Notes
        -----
        A larger module is made as the first was, and takes over the old one's parameters and buffers at their rows; which
        dimensions are users and items is found by making it for one more of each. A call trains for ``max_iter`` epochs. Positives
        of a ranking loss are known by ``seen_``, and all take part. Ratings are not kept: where the score is on their scale and
        there are no ``features``, what the estimator remembers of them takes part, see ``docs/partial_fit.md``; else training is
        on the new ones alone, and the old fade.
        """
        return self._partial_fit(X, y, sample_weight)

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
        if self._ranks():
            reading = read_weighted(X, y, sample_weight, self.user, self.item)
        else:
            reading = read_rated(X, y, sample_weight, self.user, self.item, type(self).__name__)
        features, categories = side_columns.read(X, self.features, self.dtype, categories)
        return replace(reading, features=features, categories=categories)

    def _read_more(self, X, y, sample_weight):
        reading = self._read(X, y, sample_weight, self.feature_categories_)
        side_columns.check_known_categories(reading.features)
        return reading

    def _earlier(self):
        observed, features = self._keep_for_more("observed_"), self.observed_features_
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
        return ModuleStart(self.module_, vars(self).get("optimizer_state_"), codes)

    def _part(self, reading, device, seed, start):
        return ModulePart(self, reading, device, seed, start)
