"""The fit that both explicit estimators share: standardise, call a solver, keep NumPy."""

from contextlib import contextmanager
from functools import partial
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import _fit_context
from sklearn.utils._param_validation import Interval, StrOptions

from sk_torchmf._validation import check_device, check_size
from sk_torchmf.estimators._growth import check_partial, growing, read_more
from sk_torchmf.estimators._moments import from_numpy, to_numpy
from sk_torchmf.estimators._past import Plan, keep, pair_weights, recall
from sk_torchmf.estimators._ratings import RatingPredictor
from sk_torchmf.inputs import forms
from sk_torchmf.nn import POINTWISE, Pairs, pair_dot
from sk_torchmf.nn import Plan as PairsPlan
from sk_torchmf.solvers import RATING_SOLVERS
from sk_torchmf.solvers.optimizers import OPTIMIZERS
from sk_torchmf.solvers.scaling import Measure
from sk_torchmf.solvers.variational import Variational
from sk_torchmf.training.callbacks import with_callbacks
from sk_torchmf.training.loop import TRAINING_CONSTRAINTS, Given
from sk_torchmf.training.state import Start


class ExplicitFactorization(RatingPredictor):
    """Base of the explicit estimators: parameters, ``fit`` and ``partial_fit``."""

    # what fit leaves, beside what predictions need
    rating_measure_: tuple
    optimizer_state_: dict  # where torch's optimizers train
    sketch_: dict
    pair_weights_: np.ndarray | None
    residual_square_: float

    _parameter_constraints: dict = {
        "n_factors": [Interval(Integral, 1, None, closed="left")],
        "loss": [StrOptions(set(POINTWISE))],
        "solver": [StrOptions(set(RATING_SOLVERS))],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left"), None],
        "tol": [Interval(Real, 0, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "handle_unknown": [StrOptions({"mean", "nan", "error"})],
        "clip": ["boolean"],
        "user": [Interval(Integral, 0, None, closed="left"), str],
        "item": [Interval(Integral, 0, None, closed="left"), str],
        "dtype": [StrOptions({"float32", "float64"})],
        "device": [str, torch.device, None],
        "warm_start": ["boolean"],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
        **TRAINING_CONSTRAINTS,
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
        self._validate_params()
        check_partial(self)
        if not hasattr(self, "user_factors_"):
            return self._fit(X, y, sample_weight)
        device = self._check()
        start = Start.of(self)
        data, growth = read_more(self, X, y, sample_weight, forms.read_rated)
        data = data if data.weights is None else data[data.weights > 0]
        past = recall(self, growth, self._rows(device), partial(self._predict_pairs, device=device), device)
        if not POINTWISE[self.loss].standardised:  # a likelihood of other numbers has no bound
            np.clip(past.data.ratings, *self.rating_range_, out=past.data.ratings)
        plan = Plan(start.grown(growth), growth, past, getattr(self, "optimizer_state_", {}))
        with growing(self, growth):
            self._train(None, partial(self._start, data, device, plan), None)
            self._remember(data, device, plan)
        return self

    def _fit(self, X, y, sample_weight, X_val=None, y_val=None):
        device = self._check()
        plan = Plan(Start.of(self) if self.warm_start and hasattr(self, "user_factors_") else None)
        given = Given(X, X_val, y_val, forms.read_rated(self, X, y, sample_weight))
        data = given.data
        if plan.start is not None:
            plan.start = plan.start.named(self.users_, self.items_)
        self._train(given, partial(self._start, data, device, plan), partial(self._observe, data, device))
        self._remember(data, device, plan)
        return self

    def _check(self):
        """Refuse what cannot be combined; the device."""
        if self.batch_size is not None and not RATING_SOLVERS[self.solver].takes_batches:
            raise ValueError(
                f'batch_size must be None with solver="{self.solver}", which takes all ratings at once. Got {self.batch_size}.'
            )
        return check_device(self.device)

    def _observe(self, data, device):
        """Set what was seen; the plan of its pairs, and their weights or None."""
        self.rating_range_ = np.array([data.ratings.min(), data.ratings.max()], dtype=np.float64)
        pairs = Pairs(data.user_ids, data.item_ids, self.n_users_, self.n_items_, device)
        self.seen_ = pairs.tocsr()
        self.pair_weights_ = pair_weights(data, self.seen_)
        weight = None if data.weights is None else self._to_pairs(data.weights, pairs)
        self.user_counts_, self.item_counts_ = (count.cpu().numpy() for count in pairs.sums(weight))
        return pairs, weight

    def _to_pairs(self, values, pairs):
        return torch.from_numpy(values.astype(self.dtype)).to(pairs.device).index_select(0, pairs.order)

    @contextmanager
    def _start(self, data, device, plan, seed, kept):
        """Make the solver of standardised ratings for the users and items that were observed."""
        plan.observed = None
        loss, past = POINTWISE[self.loss], plan.past
        pairs, weight, rating = self._read_plan(data if kept is None else data[kept], device, plan)
        scale = self.rating_scale_
        location = float(loss.link(torch.tensor(self.rating_measure_[1] / scale, dtype=torch.float64, device="cpu")))
        every = pairs
        pairs, known_users, known_items = pairs.compressed()
        generator = torch.Generator("cpu").manual_seed(seed)
        init_std = RATING_SOLVERS[self.solver].init_std
        options = {"mean": location, "init_std": init_std, "generator": generator, "dtype": rating.dtype}
        model = self._module(*pairs.shape, self.n_factors, **options)
        if plan.start is not None:
            more = 0.0 if past is None or self.solver != "variational" else max(1 - past.measure[0] / self.user_counts_.sum(), 0.0)
            plan.start.fill(model, known_users, known_items, location, scale, more**0.5)
        model = model.to(device)
        lost = past.lost / self.user_counts_.sum() / scale**2 if past else 0.0

        def keep(estimator, solution):
            estimator._keep(solution.centred() if self._biased else solution, known_users, known_items)
            if self.solver in OPTIMIZERS:
                estimator.optimizer_state_ = to_numpy(solver.moments(), (known_users, known_items), self.seen_.shape)
            else:
                vars(estimator).pop("optimizer_state_", None)

        solver = self._solver(model, pairs, rating, weight, loss, location, generator, lost)
        if plan.optimizer_state:
            solver.resume(from_numpy(plan.optimizer_state, plan.growth, (known_users, known_items), model))
        yield solver, self.max_iter or solver.max_iter, keep
        if kept is None:
            plan.observed = every, weight, rating, solver.residual() if hasattr(solver, "residual") else None

    def _read_plan(self, data, device, plan):
        """Measure ratings, and plan them with those remembered: pairs, weights or None, and standardised ratings."""
        loss = POINTWISE[self.loss]
        rating = loss.check(check_size(np.asarray(data.ratings, dtype=np.float64)))
        measure = Measure.of(rating, data.weights, loss)
        if plan.past is not None:
            measure = Measure(*plan.past.measure).pooled(measure)
            data = plan.past.joined(data, rating)
            rating = data.ratings
        pairs, weight = self._observe(data, device)
        self.rating_measure_, self.rating_range_, self.rating_scale_ = measure.as_tuple(), measure.limits(), measure.scale(loss)
        return pairs, weight, self._to_pairs(rating, pairs).div_(self.rating_scale_)

    def _remember(self, data, device, plan):
        """Keep a sketch of all ratings, those of a slice that was held out too."""
        scale = self.rating_scale_
        pairs, weight, rating, residual = plan.observed or (*self._read_plan(data, device, plan), None)
        if self.rating_scale_ != scale:  # a part was fitted, and the rows are in its units
            rating, self.rating_scale_ = rating * (self.rating_scale_ / scale), scale
        if residual is None:
            residual = POINTWISE[self.loss].residual(self._score_of_pairs(pairs, device).div_(scale), rating)
        keep(self, pairs, residual.mul_(scale), weight, self._rows(device), plan.past)

    def _rows(self, device):
        return tuple(torch.from_numpy(rows).to(device) for rows in (self.user_factors_, self.item_factors_))

    def _score_of_pairs(self, pairs, device):
        """Scores of a plan's pairs, user-major, in rating units and in the precision of the factors."""
        users, items = self._rows(device)
        if not self._biased:
            return pair_dot(users, items, pairs)
        of_users, of_items = (torch.from_numpy(biases).to(device) for biases in (self.user_biases_, self.item_biases_))
        return pair_dot(users, items, pairs, of_users, of_items).add_(self.global_mean_)

    def _predict_pairs(self, pairs, device):
        return self._pointwise().response(self._score_of_pairs(pairs, device))

    def _solver(self, model, pairs, rating, weight, loss, location, generator, lost):
        if self.solver == "variational":
            return Variational(model, PairsPlan(pairs), rating, weight, loss, lost=lost)
        options = {"learning_rate": self.learning_rate, "batch_size": self.batch_size, "generator": generator}
        build = RATING_SOLVERS[self.solver].build
        return build(model, PairsPlan(pairs), rating, weight, loss, alpha=self.alpha, mean=location, **options)
