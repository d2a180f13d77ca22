"""A Spotlight model class as a scikit-learn estimator. Knows its constructor, fit and predict, and imports nothing of it."""

import copy
import inspect
import itertools
from numbers import Integral

import numpy as np
import torch
from sklearn.base import _fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from sk_torchmf._forks import one_thread_if_forked
from sk_torchmf._validation import check_seed
from sk_torchmf.estimators._docs import documented
from sk_torchmf.estimators._torch_prediction import ModulePredictor
from sk_torchmf.estimators._torch_training import background_of
from sk_torchmf.inputs.forms import read_rated, read_weighted
from sk_torchmf.interactions import Interactions
from sk_torchmf.nn import POINTWISE, Pairs
from sk_torchmf.solvers.factories import check_options
from sk_torchmf.solvers.minibatch import private_random_state

BLOCK = 2**16  # pairs scored at once
LOSSES = {"poisson": "poisson", "logistic": "logistic"}  # what ratings these demand, by our names; others take any


@documented()
class SpotlightEstimator(ModulePredictor):
    """Wrap a factorization model of Spotlight as an estimator, which can be tuned and compared like any other.

    Parameters
    ----------
    model : class
        ``ExplicitFactorizationModel`` or ``ImplicitFactorizationModel`` of Spotlight, or a class with the same constructor
        parameters, ``fit(interactions)`` and ``predict(user_ids, item_ids)``. Sequence models are not supported.
    ranking : bool, default=None
        Whether observations are positives to rank: ``fit`` then needs no ratings, and ``score`` is NDCG@10. By default it is True
        for a class whose name, or the name of a base class, contains "Implicit".
    @handle_unknown
        An id without an observation is one that ``fit`` did not see: Spotlight itself predicts by its initial factors.
    @clip
        Not where positives are ranked.
    @user
    @item
    random_state : int, RandomState instance or None, default=None
        Seeds the model, which gets a RandomState of its own. Spotlight also seeds torch's global generators. They are restored
        after the fit, and fits in several threads wait for each other.
    verbose : int, default=0
        With 1 the model prints its epochs.
    **options
        ``model__*``: arguments of the model's constructor, parameters as any other.

    Attributes
    ----------
    model_ : object
        The trained Spotlight model.
    module_ : torch.nn.Module or None
        Its network; None if it has none.
    @users_, items_
        What the model takes for user 3 is ``users_[3]``.
    @n_users_, n_items_
    @seen_
    user_counts_, item_counts_ : ndarray of shape (n_users,) and (n_items,)
        Number of observations of each id.
    @rating_range_
    @background_
    feature_categories_ : dict
        Always empty: Spotlight's factorization models take no features.
    @form_
    @n_features_in_
    @feature_names_in_

    See Also
    --------
    BiasedMatrixFactorization : The model of ``ExplicitFactorizationModel``, many times faster.
    ImplicitMatrixFactorization : That of ``ImplicitFactorizationModel``.

    Notes
    -----
    Every ``fit`` makes a new model. Spotlight takes no weights: those of a container are ignored, except that a weight of zero
    drops the observation.

    Spotlight cannot take a step on a single observation. If the last batch would have just one, batches are made larger until it
    has more. A single pair is predicted twice. Spotlight does not work with ``embedding_dim=1``, and stops with "Degenerate epoch
    loss" if the loss of an epoch is exactly zero. The model is pickled with its optimizer; with ``model__use_cuda=True`` it stays
    on the GPU.

    Examples
    --------
    The example uses a class of its own in the place of ``ExplicitFactorizationModel``:

    >>> import numpy as np
    >>> from sk_torchmf import Interactions
    >>> from sk_torchmf.spotlight import SpotlightEstimator
    >>> class ItemMeans:
    ...     def __init__(self, damping=0.0, random_state=None):
    ...         self.damping = damping
    ...
    ...     def fit(self, interactions, verbose=False):
    ...         total, n = (np.bincount(interactions.item_ids, w) for w in (interactions.ratings, None))
    ...         self.means = total / (n + self.damping)
    ...
    ...     def predict(self, user_ids, item_ids=None):
    ...         return self.means[item_ids]
    >>> data = Interactions([0, 1, 2, 2], [0, 0, 0, 1], [5.0, 4.0, 3.0, 1.0])
    >>> estimator = SpotlightEstimator(ItemMeans, model__damping=1.0)
    >>> estimator.fit(data).predict([0, 1], [0, 1])
    array([3. , 0.5])
    """

    PARTS = ("model",)
    features, dtype = None, "float32"  # what the base knows of other columns

    _parameter_constraints: dict = {
        "model": [callable],
        "ranking": ["boolean", None],
        "handle_unknown": [StrOptions({"mean", "nan", "error"})],
        "clip": ["boolean"],
        "user": [Interval(Integral, 0, None, closed="left"), str],
        "item": [Interval(Integral, 0, None, closed="left"), str],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        model,
        *,
        ranking=None,
        handle_unknown="mean",
        clip=False,
        user=0,
        item=1,
        random_state=None,
        verbose=0,
        **options,
    ):
        self.model = model
        self.ranking = ranking
        self.handle_unknown = handle_unknown
        self.clip = clip
        self.user = user
        self.item = item
        self.random_state = random_state
        self.verbose = verbose
        self._set_options(options)

    @_fit_context(prefer_skip_nested_validation=True)
    @documented()
    def fit(self, X, y=None):
        """Make a new model and train it.

        Parameters
        ----------
        X : sparse matrix (n_users, n_items), table (n, >= 2) or Interactions of length n
            The data, in the same forms as for the other estimators.
        @y
            If positives are ranked it is optional, and observations whose ``y`` is zero are dropped.

        Returns
        -------
        @self
        """
        self._check_clip()
        if self._ranks():
            reading = read_weighted(X, y, None, self.user, self.item)
        else:
            reading = read_rated(X, y, None, self.user, self.item, type(self).__name__)
        reading, _ = reading.observed()
        data = reading.data
        if len(data) < 2:
            raise ValueError("X has n_samples=1 observation, but Spotlight cannot train on a single one. Pass at least 2.")
        sizes = {"num_users": len(reading.users), "num_items": len(reading.items)}
        data = Interactions(data.user_ids, data.item_ids, data.ratings, **sizes)
        counts = tuple(
            np.bincount(ids, minlength=n).astype(np.float64)
            for ids, n in zip((data.user_ids, data.item_ids), reading.shape, strict=True)
        )
        found = {
            "seen_": Pairs(data.user_ids, data.item_ids, *reading.shape).tocsr(),
            "user_counts_": counts[0],
            "item_counts_": counts[1],
            "background_": background_of(counts, {}),
            "feature_categories_": {},
        }
        if not self._ranks():
            rating = np.asarray(data.ratings)
            checked = self._check_ratings(rating)
            found["rating_range_"] = np.array([checked.min(), checked.max()], dtype=np.float64)
            data.ratings = rating.astype(np.float32)  # what Spotlight computes in
        seed = check_seed(self.random_state)
        device = "cuda" if self._options("model").get("use_cuda") or torch.cuda.is_initialized() else "cpu"
        with private_random_state(seed, torch.device(device)):
            model = self._trained(data, seed)
        return self._publish(reading.attributes() | found | {"model_": model, "module_": getattr(model, "_net", None)})

    @one_thread_if_forked
    def _trained(self, data, seed):
        """A fresh model, trained."""
        model = self._make(seed, len(data))
        model.fit(data, **({"verbose": True} if self.verbose else {}))
        return model

    @one_thread_if_forked
    def to_module(self):
        """Return the trained network, followed by the inverse link of its loss.

        Returns
        -------
        torch.nn.Module
            ``forward(user, item)`` takes int64 tensors of shape (n,), positions in ``users_`` and ``items_``. Spotlight's own
            networks need n to be 2 or more. A copy, on the CPU, in evaluation mode.

        Raises
        ------
        TypeError
            If the model has no network.
        """
        check_is_fitted(self, "module_")
        if self.module_ is None:
            raise TypeError(f"to_module needs a model with a network. {type(self.model_).__name__} has none.")
        return super().to_module().cpu()

    def _make(self, seed, n):
        """A fresh model, for a fit to n observations."""
        kind, options = self.model, self._options("model")
        if getattr(kind, "__module__", "").startswith("spotlight.sequence"):
            raise TypeError(f"model={kind.__name__} is a sequence model, which is not supported. Pass a factorization model.")
        check_options("model", kind, options, given=("random_state",))
        options = {name: copy.deepcopy(value) if isinstance(value, torch.nn.Module) else value for name, value in options.items()}
        size = options.get("batch_size", _default(kind, "batch_size"))
        if isinstance(size, int | np.integer):
            options["batch_size"] = next(larger for larger in itertools.count(max(int(size), 2)) if n % larger != 1)
        return kind(random_state=np.random.RandomState(seed), **options)

    def _ranks(self):
        if self.ranking is not None:
            return self.ranking
        return any("Implicit" in base.__name__ for base in getattr(self.model, "__mro__", ()))

    def _link(self):
        """The loss of ours that takes the same ratings."""
        loss = self._options("model").get("loss", _default(self.model, "loss"))
        return POINTWISE["squared_error" if self._ranks() else LOSSES.get(loss, "squared_error")]

    def _knowing(self, user_features, item_features):
        if user_features is not None or item_features is not None:
            raise ValueError(
                "user_features and item_features must be None, because Spotlight's models take no features. Use "
                "TorchFactorization with a module whose forward takes them."
            )
        return self

    def _respond(self, scores, clip=None):
        return np.clip(scores, *self.rating_range_) if self._check_clip(clip) else scores  # responses already

    @one_thread_if_forked
    def _forward(self, codes):
        user, item = codes["user"], codes["item"]
        n, predicted = len(user), np.empty(len(user))
        with torch.no_grad():
            for start in range(0, n, BLOCK):
                part = np.arange(start, min(start + BLOCK, n))
                pairs = part if len(part) > 1 else part.repeat(2)
                predicted[part] = self.model_.predict(user[pairs], item[pairs])[: len(part)]
        return predicted


def _default(kind, name):
    """The default of a callable's parameter, None where it has none."""
    try:
        found = inspect.signature(kind).parameters.get(name)
    except (TypeError, ValueError):  # some callables do not tell
        return None
    return None if found is None or found.default is found.empty else found.default
