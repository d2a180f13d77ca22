"""fit, partial_fit and warm_start: one template. An estimator says how it reads X, and what a part of its observations is."""

import copy
import os
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.utils import _safe_indexing
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions

from sk_torchmf._forks import one_thread_if_forked
from sk_torchmf._threads import threads_for
from sk_torchmf._validation import MOST, as_array, as_python, check_memory, check_ratings, check_seed
from sk_torchmf.distributed import ALONE, EXACT, communicator
from sk_torchmf.estimators._saving import SavedEstimator
from sk_torchmf.exceptions import DivergenceError
from sk_torchmf.inputs.exchange import digest_of_all, exchange
from sk_torchmf.inputs.features import EncodedFeatures
from sk_torchmf.inputs.forms import INTERACTIONS, LABELLED, SHARDS, TABLE, Reading
from sk_torchmf.inputs.holdout import hold_out
from sk_torchmf.inputs.labels import lookup
from sk_torchmf.inputs.queries import check_goes_on
from sk_torchmf.inputs.shared_features import describe_shared
from sk_torchmf.inputs.side_features import ROLES, Described, describe
from sk_torchmf.interactions import Interactions, as_interactions, is_interactions
from sk_torchmf.model.factors import Factors
from sk_torchmf.solvers.base import by_side
from sk_torchmf.storage.checkpoint import Checkpoint, SharedCheckpoint, digest_of, fingerprint_of
from sk_torchmf.training import loop
from sk_torchmf.training.callbacks import CallbackSupportMixin
from sk_torchmf.training.fitted_parts import seen_in
from sk_torchmf.training.shared_validation import NOTHING_HELD_OUT, read_validation
from sk_torchmf.training.state import Codes, regrow
from sk_torchmf.training.validation import Validation

FIT_CONSTRAINTS: dict = {
    "tol": [Interval(Real, 0, None, closed="left")],
    "early_stopping": ["boolean"],
    "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
    "n_iter_no_change": [Interval(Integral, 1, MOST, closed="both")],
    "refit": ["boolean"],
    "scoring": [str, callable, None],
    "checkpoint": [str, os.PathLike, None],
    "handle_unknown": [StrOptions({"mean", "nan", "error"})],
    "user": [Interval(Integral, 0, None, closed="left"), str],
    "item": [Interval(Integral, 0, None, closed="left"), str],
    "dtype": [StrOptions({"float32", "float64"})],
    "device": [str, torch.device, None],
    "warm_start": ["boolean"],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
}


ENCODER_CONSTRAINTS: dict = {
    f"{role}_encoder": [StrOptions({"auto", "passthrough"}), HasMethods(["fit", "transform"])] for role in ROLES
}


@dataclass(frozen=True)
class FitArguments:
    """What ``fit`` was given.

    Attributes
    ----------
    X, X_val, y_val : as given
        X is None where the observations are more than were given.
    reading : Reading
        X, less the observations of weight zero.
    rows : ndarray of shape (n,) or None
        Which of the observations of X are left; None for all.
    """

    X: Any
    X_val: Any
    y_val: Any
    reading: Reading
    rows: np.ndarray | None = None

    def digest(self):
        """A digest of it all."""
        data, validation = self.reading.data, (None, None)
        if self.X_val is not None:
            X_val = Interactions.from_matrix(self.X_val) if sp.issparse(self.X_val) else self.X_val
            X_val = as_interactions(X_val) if is_interactions(X_val) else X_val
            of_pairs = ("user_ids", "item_ids", "ratings", "timestamps")
            parts = [getattr(X_val, name) for name in of_pairs] if is_interactions(X_val) else [np.asarray(X_val)]
            validation = (*parts, self.y_val)
        matrices = (side.encoded.matrix for side in self.reading.described.values())
        beside = [*self.reading.features.values(), *(part for own in matrices for part in (own.indices, own.data))]
        rated = (data.shards.digest,) if self.reading.form == SHARDS else (data.ratings, data.weights)
        return digest_of(data.user_ids, data.item_ids, *rated, *beside, *validation)

    def part(self, index, ranking):
        """Some of the observations as a table or container with its target and weights: what ``score`` takes."""
        data = self.reading.data
        weight = None if data.weights is None else data.weights[index]
        if sp.issparse(self.X):
            part = data[index]
            return part, None if ranking else part.ratings, weight
        X = as_interactions(self.X) if is_interactions(self.X) else self.X
        y = None if ranking or data.ratings is None else data.ratings[index]
        return _safe_indexing(X, index if self.rows is None else self.rows[index]), y, weight

    def for_callbacks(self):
        """What scikit-learn's callbacks may ask for, when they do: entries of known users where X is a sparse matrix."""
        data = self.reading.data
        if self.X is None or self.reading.form == SHARDS:
            return {}

        def y():
            return np.ones(len(data)) if data.ratings is None else data.ratings

        def observed():
            return self.part(np.arange(len(data)), True)[0]

        return {"X": observed, "y": y, "metadata": None if data.weights is None else {"sample_weight": data.weights}}


@dataclass(frozen=True)
class Start:
    """A factorization to go on from.

    Attributes
    ----------
    factors : Factors
        In rating units.
    codes : Codes
        Where its rows are now.
    new_share : float
        How much of the observations it has not learned from.
    """

    factors: Factors
    codes: Codes
    new_share: float = 0.0

    def fill(self, module, known, mean, scale=1.0, processes=ALONE):
        """Fill a fresh PlainMF or BiasedMF of some ids, in place: known rows go on, new ones are random about the mean row.

        A solver that learns how much rows differ has none left in directions that it saw no use for, and what more ratings say of
        these it would not find. So where known rows differ less than the module's random ones, a part of these is left there.

        Parameters
        ----------
        module : PlainMF or BiasedMF
            It was made to start at the score ``mean``.
        known : tuple of ndarray of int
            The row numbers of its users and items.
        mean : float
        scale : float
            What a rating is divided by where the module is trained.
        processes : Communicator, optional
            Those that have the other users, and go on from the same factorization.

        Returns
        -------
        tuple of ndarray of bool
            Which users and items go on.
        """
        codes = self._codes_of(known)
        begun = codes.users >= 0, codes.items >= 0
        old, new = self._state(scale, module.user_factors), by_side(dict(module.named_parameters()))
        random = {}
        with torch.no_grad():
            for role, planted in zip(("user", "item"), module.mean_rows(mean), strict=True):
                rows, centre = new[role]["factors"], torch.from_numpy(self.factors.side(role).mean / scale**0.5).to(planted)
                random[role] = rows - planted[: len(centre)]
                rows += centre - planted[: len(centre)]
            regrow(old, new, codes)
            for role, known_rows in zip(("user", "item"), begun, strict=True):
                place = torch.from_numpy(np.flatnonzero(known_rows))
                if self.new_share and len(place) > 1:
                    new[role]["factors"][place] += self.new_share**0.5 * _missing(new[role]["factors"][place], random[role][place])
        if "biases" in new["user"] and processes.largest(float(any(map(np.any, begun)))) > 0:
            module.global_mean.fill_(self.factors.constant / scale)
        return begun

    def _codes_of(self, known):
        """Where the rows of some ids come from; those that were never observed before are new."""
        users, items = self.codes.users[known[0]], self.codes.items[known[1]]
        of_users, of_items = self.factors.users.unknown(users), self.factors.items.unknown(items)
        return Codes(np.where(of_users, -1, users), np.where(of_items, -1, items), self.codes.sizes)

    def _state(self, scale, like):
        state = {}
        for role in ("user", "item"):
            side = self.factors.side(role)
            state[role] = {"factors": torch.from_numpy(np.asarray(side.factors / scale**0.5)).to(like)}
            if side.biases is not None:
                state[role]["biases"] = torch.from_numpy(np.asarray(side.biases / scale)).to(like)
        return state


def _missing(rows, random):
    """The part of random rows (n, n_factors) that lies in directions in which rows differ less than these do."""
    variance, basis = torch.linalg.eigh(torch.cov(rows.T).view(2 * rows.shape[1:]))
    return random @ (basis * (1 - variance / random.square().mean()).clamp(0, 1).sqrt()) @ basis.T


class Fitting(CallbackSupportMixin, SavedEstimator):
    """Base of the four estimators: the course of ``fit`` and ``partial_fit``."""

    # parameters
    early_stopping: bool
    validation_fraction: float
    n_iter_no_change: int
    refit: bool
    scoring: object
    checkpoint: object
    max_iter: int | None
    tol: float
    warm_start: bool
    random_state: object
    verbose: object
    distributed: bool = False  # of an estimator that has no such parameter
    # what fit leaves
    history_: dict
    n_iter_: int
    best_iter_: int
    best_score_: float
    # what an epoch is called, and whether the training loss may end a fit
    _epoch, _stops_at_tol = "iteration", True

    def _check(self):
        """Refuse what cannot be combined; the device."""
        raise NotImplementedError

    def _check_shared(self, processes, **given):
        """Refuse what several processes cannot share, and what differs between them; asked for with ``distributed`` only."""
        raise NotImplementedError

    def _goes_on(self, reading):
        """Whether there are earlier rows to go on from."""
        return self.__sklearn_is_fitted__()

    def _read(self, X, y, sample_weight):
        """Read the arguments of ``fit``, of which others may have other parts with ``distributed``; a Reading."""
        raise NotImplementedError

    def _exchange(self, reading, processes):
        """Give each process all observations of its users; a Reading."""
        return exchange(reading, processes)

    def _read_more(self, X, y, sample_weight):
        """Read the arguments of ``partial_fit``; a Reading."""
        return self._read(X, y, sample_weight)

    def _link(self):
        """A loss: its ``response`` is the inverse link, its ``check`` codes ratings."""
        raise NotImplementedError

    def _earlier(self):
        """What is kept of the observations so far, a Reading."""
        raise NotImplementedError

    def _start_from(self, codes, new_share=0.0):
        """What to go on from, ids having moved as the codes say, and so much of the observations being new."""
        raise NotImplementedError

    def _part(self, reading, device, seed, start):
        """Some of the observations, ready to be trained on; a ``training.loop.Part``."""
        raise NotImplementedError

    def _work(self, reading):
        """How many multiplications a pass over the observations takes, about: torch gets threads by it."""
        return np.inf

    def _default_scoring(self):
        """What ``scoring=None`` means: a scorer, or None for the loss."""
        return None

    def _fit(self, X, y, sample_weight, X_val=None, y_val=None, **features):
        with communicator(self.distributed) as processes:
            if self.distributed:
                named = {f"{role}_features": table for role, table in features.items()}
                self._check_shared(processes, X_val=X_val, y_val=y_val, **named)
            device = self._check()
            reading = self._exchange(self._read(X, y, sample_weight), processes)
            joining = describe if processes.size == 1 and self.distributed != EXACT else describe_shared
            reading = joining(reading, features, self)
            given = FitArguments(X if processes.size == 1 else None, X_val, y_val, *reading.observed())
            start = None
            if self.warm_start and self._goes_on(given.reading):
                users, items = lookup(given.reading.users, self.users_, "user"), lookup(given.reading.items, self.items_, "item")
                start = self._start_from(Codes(users, items, (self.n_users_, self.n_items_)))
            attributes = self._train(given, device, start)
        self._publish(attributes)
        return self

    def _partial_fit(self, X, y, sample_weight, **features):
        self._validate_params()
        if self.early_stopping or self.checkpoint is not None:
            raise ValueError(
                "partial_fit needs early_stopping=False and checkpoint=None, because both are for a fit to all ratings at once. "
                "Use these values, or call fit."
            )
        if self.distributed:
            raise ValueError(
                "partial_fit needs distributed=False, because it runs in one process. Use it on the estimator that gather() "
                "returns, or fit all of the data again."
            )
        if not self.__sklearn_is_fitted__():
            return self._fit(X, y, sample_weight, **features)
        device = self._check()
        check_goes_on(self, X)
        earlier = self._earlier()
        more = describe(self._read_more(X, y, sample_weight), features, self, earlier.described).observed()[0]
        if more.data.ratings is not None:  # those so far are as the loss codes them
            more.data.ratings = self._link().check(np.asarray(more.data.ratings, dtype=np.float64))
        reading, (users, items) = earlier.and_more(more)
        n_all, n_more = (len(data) if data.weights is None else data.weights.sum() for data in (reading.data, more.data))
        start = self._start_from(Codes(users, items, (self.n_users_, self.n_items_)), n_more / n_all)
        attributes = self._train(FitArguments(None, None, None, reading), device, start)
        history = {name: self.history_.get(name, []) + values for name, values in attributes["history_"].items()}
        self._publish(attributes | {"history_": history, "n_iter_": len(history["loss"])})
        return self

    def _kept_for_more(self, name):
        """A fitted attribute that only ``partial_fit`` needs; raises an error if it was not kept."""
        if name not in vars(self):
            raise ValueError(
                f"partial_fit needs all earlier observations, and this {type(self).__name__} has not kept them: it was saved with "
                "ratings=False or by an earlier version, taken over without its training data, or fitted on batches or on "
                "Shards. Call fit with all observations."
            )
        return getattr(self, name)

    def _in_python(self):
        """A copy whose parameters hold Python's numbers: a grid holds NumPy's, of any width."""
        plain = copy.copy(self)
        for name, value in self.get_params(deep=False).items():
            setattr(plain, name, as_python(value))
        return plain

    def _train(self, given, device, start):
        """Train on what was read; the fitted attributes."""
        params = self._in_python()
        (n_users, n_items), n_factors = given.reading.shape, getattr(params, "n_factors", 1)
        check_memory(
            8 * (n_users + n_items) * n_factors,  # the rows and as much again to improve them
            f"A model of {n_users} users and {n_items} items with {n_factors} factors each",
            "Lower n_factors, or pass the labels in a table: then only those that occur are counted.",
        )
        processes = given.reading.processes
        seed, progress, restore = processes.broadcast(check_seed(self.random_state)), None, None
        checkpoint: Checkpoint | None = None
        if self.checkpoint is not None:
            if self.distributed:
                digest = digest_of_all(given.reading, processes, read_validation(self, given))
                fingerprint = fingerprint_of(self, seed, digest)
                checkpoint = SharedCheckpoint(self.checkpoint, fingerprint, processes)
            else:
                checkpoint = Checkpoint(self.checkpoint, fingerprint_of(self, seed, given.digest()))
            saved_seed, progress, restore = loop.resume(checkpoint)
            seed = seed if saved_seed is None else saved_seed
        held_in, validation = self._hold_out(given, seed)
        phases = loop.phases_of(
            held_in, early_stopping=self.early_stopping, refit=self.refit, tol=params.tol if self._stops_at_tol else 0.0
        )
        judging = [] if validation is None else [loop.Judge(validation, params.tol, params.n_iter_no_change)]
        agreeing = [loop.Agreement(processes)] if processes.size > 1 else []
        keeping = [] if checkpoint is None else [loop.keeper(checkpoint, seed)]  # last: it holds what the others decided
        observers = [*judging, *self._showing(phases, given.for_callbacks(), processes), *agreeing, *keeping]
        reading = given.reading

        def part_of(rows):
            return params._part(reading if rows is None else reading[rows], device, seed, start)

        try:
            return self._run(reading, part_of, phases, observers, progress=progress, restore=restore)
        except DivergenceError:
            if checkpoint is not None:
                checkpoint.remove()  # it would diverge again
            raise

    def _showing(self, phases, for_callbacks, processes=ALONE):
        """The observers that tell how far training is; of several processes the first one prints."""
        printing = [loop.Printer(type(self).__name__, self._epoch)] if self.verbose and processes.rank == 0 else []
        return [*printing, loop.Caller(self, for_callbacks, phases)]

    @one_thread_if_forked
    def _run(self, reading, part_of, phases, observers, **resumed):
        """Go through the phases; the fitted attributes."""

        def fitted(attributes):
            return self._as_fitted(reading.attributes() | attributes)

        max_iter = as_python(self.max_iter)
        # numbers out of range lead to a divergence, which has words
        with threads_for(self._work(reading)), np.errstate(all="ignore"):
            return reading.attributes() | loop.fit(part_of, phases, observers, fitted, max_iter=max_iter, **resumed)

    def _hold_out(self, given, seed):
        """Which observations to train on, None for all, and the validation data, None for none."""
        if given.X_val is None and given.y_val is not None:
            raise ValueError("y_val was given without X_val. Pass both, or neither.")
        if given.X_val is None and not self.early_stopping:
            return None, None
        own = self._default_scoring()
        scoring = own if self.scoring is None else self.scoring
        if given.X_val is not None:
            X, y, weight = given.X_val, given.y_val, None
            if y is not None and as_array(y, "y_val").dtype.kind not in "biuf":
                y = check_ratings(y, np.size(y), "y_val")
            if is_interactions(X):
                X = as_interactions(X)
                y, weight = X.ratings if y is None and own is None else y, X.weights
            return None, Validation.of(self, X, y, weight, scoring)
        if given.reading.form == SHARDS:
            raise ValueError(NOTHING_HELD_OUT)
        data = given.reading.data
        held = hold_out(data.user_ids, data.item_ids, self.validation_fraction, seed)
        X, y, weight = given.part(np.flatnonzero(held), own is not None)
        return np.flatnonzero(~held), Validation.of(self, X, y, weight, scoring)


def work_of(reading, n_factors, has_matrices=False):
    """The multiplications of a pass: each observation by a row, and each row by a matrix, which it may have for itself."""
    n_factors = int(n_factors)  # a grid's may be of eight bits
    return n_factors ** (2 if has_matrices else 1) * (len(reading.data) + n_factors * sum(reading.shape))


def reading_of(estimator, pattern, ratings, weights):
    """What a fitted estimator keeps of its observations as a Reading: a CSR array's entries, with ratings and weights or None."""
    user = np.repeat(np.arange(pattern.shape[0], dtype=pattern.indices.dtype), np.diff(pattern.indptr))
    data = Interactions(user, pattern.indices, ratings, weights=weights, num_users=pattern.shape[0], num_items=pattern.shape[1])
    state = vars(estimator)
    described = {role: described_of(state, role) for role in ROLES if f"{role}_features_" in state}
    ids = estimator.users_, estimator.items_
    return Reading(data, *ids, estimator.form_, estimator.n_features_in_, state.get("feature_names_in_"), described=described)


def described_of(state, role):
    """The attributes of one side that a fitted estimator has, by its fitted attributes."""
    groups = {name: slice(*ends) for name, ends in state[f"{role}_feature_groups_"].items()}
    parts = state[f"{role}_features_"], state[f"{role}_feature_names_"], groups, state[f"{role}_described_"]
    return Described(EncodedFeatures(*parts), state[f"{role}_encoder_"])


def with_more_ids(estimator, features):
    """What a fitted estimator knows, and further ids of whom only features are known.

    Parameters
    ----------
    estimator : estimator
    features : dict of str to table or None
        By role; with the columns that ``fit`` saw.

    Returns
    -------
    reading : Reading
        Of all ids, without observations.
    places : tuple of ndarray of int
        Where the users and items of the estimator are among them.
    """
    state, ids = vars(estimator), (estimator.users_, estimator.items_)
    earlier = {role: described_of(state, role) for role in ROLES if f"{role}_features_" in state}
    nothing = np.empty(0, dtype=np.int64)
    data = Interactions(nothing, nothing, num_users=len(ids[0]), num_items=len(ids[1]))
    form = TABLE if estimator.form_ in LABELLED else INTERACTIONS  # whose positions may go on
    reading = Reading(data, *ids, form, estimator.n_features_in_, described=earlier)
    reading = describe(reading, features, estimator, earlier=earlier)
    return reading, (lookup(ids[0], reading.users, "user"), lookup(ids[1], reading.items, "item"))


def observed_attributes(pairs, values, weight, features=None):
    """What an estimator keeps of its observations: which pairs were seen, and in their order all that ``partial_fit`` goes on from.

    Parameters
    ----------
    pairs : Pairs
    values : Tensor of shape (n_pairs,)
        User-major: ratings or, where every observation is a positive, ones of type bool.
    weight : Tensor of shape (n_pairs,) or None
        User-major.
    features : dict of str to Tensor of shape (n_pairs,), optional
        User-major.

    Returns
    -------
    dict
        The fitted attributes ``seen_``, ``observed_``, ``pair_weights_`` and, with features, ``observed_features_``.
    """
    values, weight = (None if part is None else part.cpu().numpy() for part in (values, weight))
    columns, pointers = (part.cpu().numpy() for part in (pairs.columns, pairs.pointers))  # on the CPU the plan's own arrays
    observed = sp.csr_array((values, columns, pointers), shape=pairs.shape)
    observed.indices, observed.indptr = columns, pointers
    found = {"seen_": seen_in(observed), "observed_": observed, "pair_weights_": weight}
    if features is not None:
        found["observed_features_"] = {name: own.cpu().numpy() for name, own in features.items()}
    return found


def observed_of(attributes, users):
    """What ``observed_attributes`` says of some of the users, by their row numbers, without further features."""
    pattern, weight = attributes["observed_"], attributes["pair_weights_"]
    if weight is not None:
        weight = sp.csr_array((weight, pattern.indices, pattern.indptr), shape=pattern.shape)[users].data
    observed = pattern[users]
    return {"seen_": seen_in(observed), "observed_": observed, "pair_weights_": weight}
