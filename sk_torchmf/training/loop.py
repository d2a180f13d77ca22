"""How every fit goes: what watches its epochs, the validation slice, the best epoch, the checkpoint. Knows no model."""

import copy
import os
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.utils import _safe_indexing
from sklearn.utils._param_validation import Interval

from sk_torchmf._validation import check_seed
from sk_torchmf.exceptions import DivergenceError
from sk_torchmf.inputs.holdout import hold_out
from sk_torchmf.interactions import Interactions, as_interactions, is_interactions
from sk_torchmf.solvers.base import copy_state, run
from sk_torchmf.storage.checkpoint import Checkpoint, digest_of, fingerprint_of
from sk_torchmf.training.callbacks import CallbackSupportMixin, Tasks
from sk_torchmf.training.validation import SCORE, Validation, best_epoch, has_stalled

TRAINING_CONSTRAINTS: dict = {
    "early_stopping": ["boolean"],
    "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
    "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
    "refit": ["boolean"],
    "scoring": [str, callable, None],
    "checkpoint": [str, os.PathLike, None],
}


@dataclass
class Given:
    """What ``fit`` was given, less the observations of weight zero.

    Attributes
    ----------
    X, X_val, y_val : as given
    data : Interactions
        The observations as row numbers.
    features : dict of str to ndarray of shape (n,)
    rows : ndarray of shape (n,) or None
        Which of the observations of X they are; None for all.
    """

    X: Any
    X_val: Any
    y_val: Any
    data: Interactions
    features: dict = field(default_factory=dict)
    rows: np.ndarray | None = field(init=False, default=None)

    def __post_init__(self):
        if self.data.weights is not None:
            self.rows = np.flatnonzero(self.data.weights > 0)
            self.data = self.data[self.rows]
            self.features = {name: values[self.rows] for name, values in self.features.items()}

    def digest(self):
        """A digest of it all."""
        data = self.data
        validation = (None, None)
        if self.X_val is not None:
            X_val = self.X_val
            if sp.issparse(X_val):
                X_val = Interactions.from_matrix(X_val)
            parts = (X_val.user_ids, X_val.item_ids, X_val.ratings) if is_interactions(X_val) else (np.asarray(X_val),)
            validation = (*parts, self.y_val)
        return digest_of(data.user_ids, data.item_ids, data.ratings, data.weights, *self.features.values(), *validation)

    def part(self, index, ranking):
        """Some of the observations as a table or container with its target and weights: what ``score`` takes."""
        weight = None if self.data.weights is None else self.data.weights[index]
        if sp.issparse(self.X):
            part = self.data[index]
            return part, None if ranking else part.ratings, weight
        X = as_interactions(self.X) if is_interactions(self.X) else self.X
        y = None if ranking or self.data.ratings is None else self.data.ratings[index]
        return _safe_indexing(X, index if self.rows is None else self.rows[index]), y, weight

    def for_callbacks(self):
        """What scikit-learn's callbacks may ask for, when they do: entries of known users where X is a sparse matrix."""

        def y():
            return np.ones(len(self.data)) if self.data.ratings is None else self.data.ratings

        def observed():
            return self.part(np.arange(len(self.data)), True)[0]

        weights = self.data.weights
        return {"X": observed, "y": y, "metadata": None if weights is None else {"sample_weight": weights}}


class Trained(CallbackSupportMixin):
    """Base of all estimators: ``_train`` makes a fit of what an estimator says about its own."""

    # parameters
    early_stopping: bool
    validation_fraction: float
    n_iter_no_change: int
    refit: bool
    scoring: object
    checkpoint: object
    random_state: object
    verbose: object
    tol: float
    # what fit leaves
    history_: dict
    n_iter_: int
    best_iter_: int
    best_score_: float
    # what an epoch is called, and whether the training loss may end a fit
    _epoch, _stops_at_tol = "iteration", True

    def _default_scoring(self):
        """What ``scoring=None`` means: a scorer, or None for the loss."""
        return None

    def _train(self, given, start, observe):
        """Fit, and keep what was found.

        Parameters
        ----------
        given : Given or None
            None where the observations are not known, and nothing can be made of them but a fit.
        start : callable
            ``start(seed, index)`` makes the solver for some of the observations, or all for None: a context manager that gives the
            solver, ``max_iter``, and a function ``keep(estimator, solution)`` that sets fitted attributes.
        observe : callable or None
            Sets what ``fit`` saw, all of it, where ``start`` saw a part.
        """
        for name in ("best_iter_", "best_score_"):
            if hasattr(self, name):
                delattr(self, name)
        seed = check_seed(self.random_state)
        checkpoint, saved = None, None
        if self.checkpoint is not None:
            checkpoint = Checkpoint(self.checkpoint, fingerprint_of(self, seed, given.digest()))
            saved = checkpoint.read()
            seed = seed if saved is None else saved["seed"]
        kept, validation = (None, None) if given is None else self._hold_out(given, seed)
        two = kept is not None and self.refit
        fit = _Fit(self, given, seed, start, checkpoint)
        try:
            if saved is None or saved["part"] == "first":
                fit.first(saved, kept, validation, two)
                searched, saved = None, None
            else:
                searched = saved["searched"]
                self._keep_best(searched)
            if two:
                fit.second(saved, searched or self.history_, self.best_iter_)
            elif kept is not None:
                observe()
        except DivergenceError:
            if checkpoint is not None:
                checkpoint.remove()  # it would diverge again
            raise
        fit.close()
        self.n_iter_ = len(self.history_["loss"])
        if checkpoint is not None:
            checkpoint.remove()

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
            if is_interactions(X):
                X = as_interactions(X)
                y, weight = X.ratings if y is None and own is None else y, X.weights
            return None, Validation.of(self, X, y, weight, scoring)
        held = hold_out(given.data.user_ids, given.data.item_ids, self.validation_fraction, seed)
        X, y, weight = given.part(np.flatnonzero(held), own is not None)
        return np.flatnonzero(~held), Validation.of(self, X, y, weight, scoring)

    def _keep_best(self, history):
        """Note the best epoch of a history."""
        at = best_epoch(history)
        self.best_iter_ = at + 1
        self.best_score_ = next(values for name, values in history.items() if name.startswith("validation_"))[at]


class _Fit:
    """One fit, in one part or, where it is repeated on all observations, in two."""

    def __init__(self, estimator, given, seed, start, checkpoint):
        self.estimator, self.seed, self.start, self.checkpoint = estimator, seed, start, checkpoint
        self.data = {} if given is None else given.for_callbacks()
        self.tasks: Tasks | None = None

    def first(self, saved, kept, validation, two):
        """Train on all observations, or on those that are not held out."""
        estimator = self.estimator
        stopping = estimator.early_stopping
        with self.start(self.seed, kept) as (solver, max_iter, keep):
            self.tasks = Tasks(estimator, self.data, 2 if two else max_iter)
            tasks = self.tasks.part("early stopping", max_iter) if two else self.tasks
            watch = _Watch(self, keep, tasks, validation, keep_best=stopping and not two)
            estimator.history_ = {}
            self._go(watch, solver, saved, max_iter, estimator.tol if estimator._stops_at_tol and not stopping else 0.0)
            if stopping:
                estimator._keep_best(estimator.history_)
                if watch.best is not None and estimator.best_iter_ < len(estimator.history_["loss"]):
                    solver.restore(watch.best)
            if two:
                tasks.close()
            else:
                keep(estimator, solver.solution())

    def second(self, saved, searched, n_epochs):
        """Train on all observations for as many epochs as were best."""
        estimator = self.estimator
        with self.start(self.seed, None) as (solver, _, keep):
            self.tasks = self.tasks or Tasks(estimator, self.data, 2)
            tasks = self.tasks.part("refit", n_epochs)
            estimator.history_ = {}
            self._go(_Watch(self, keep, tasks, searched=searched), solver, saved, n_epochs, 0.0)
            tasks.close()
            keep(estimator, solver.solution())
        estimator.history_ = searched

    def _go(self, watch, solver, saved, max_iter, tol):
        history = self.estimator.history_
        if saved is not None:
            with self.checkpoint.fitting():
                solver.restore(saved["solver"])
            history.update(saved["history"])
            watch.best = saved["best"]
            if saved["stop"]:
                return
        run(solver, max_iter=max_iter, tol=tol, history=history, begin=watch.tasks.begin, watch=watch)

    def close(self):
        if self.tasks is not None:
            self.tasks.close()


class _Watch:
    """What is done after each epoch: score, print, call back, decide, save."""

    def __init__(self, fit, keep, tasks, validation=None, *, keep_best=False, searched=None):
        self.fit, self.keep, self.tasks, self.validation = fit, keep, tasks, validation
        self.keep_best, self.searched, self.best = keep_best, searched, None

    def __call__(self, epoch, history, solver):
        estimator = self.fit.estimator
        made: list[Trained] = []

        def fitted():
            if not made:
                view = copy.copy(estimator)
                view.history_, view.n_iter_ = {name: list(values) for name, values in history.items()}, epoch
                self.keep(view, solver.solution())
                made.append(view)
            return made[0]

        if self.validation is not None:
            history.setdefault(self.validation.name, []).append(self.validation(fitted()))
        if estimator.verbose:
            self._print(epoch, history)
        stop = bool(self.tasks.end(fitted))
        if self.validation is not None and estimator.early_stopping:
            if self.keep_best and best_epoch(history) == epoch - 1:
                self.best = copy_state(solver.state())
            stop |= has_stalled(history, estimator.tol, estimator.n_iter_no_change)
        if self.fit.checkpoint is not None:
            part = {"part": "first", "searched": None} if self.searched is None else {"part": "second", "searched": self.searched}
            content = {"seed": self.fit.seed, "history": history, "solver": solver.state(), "best": self.best, "stop": stop}
            self.fit.checkpoint.write(content | part)
        return stop

    def _print(self, epoch, history):
        estimator = self.fit.estimator
        shown = [f"[{type(estimator).__name__}] {estimator._epoch} {epoch}", f"loss {history['loss'][-1]:.6g}"]
        if self.validation is not None:
            name = self.validation.name
            shown.append(f"{'validation score' if name == SCORE else 'validation loss'} {history[name][-1]:.6g}")
        print(", ".join([*shown, f"{history['seconds'][-1]:.3g} s"]))
