"""How every fit goes: phases of epochs over some of the observations or all, and what watches them. Knows no model."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from sk_torchmf.distributed import Communicator
from sk_torchmf.exceptions import DivergenceError
from sk_torchmf.solvers.base import BROKEN, copy_state, run
from sk_torchmf.storage.checkpoint import Checkpoint, SharedCheckpoint
from sk_torchmf.training.callbacks import Tasks
from sk_torchmf.training.state import rows_of
from sk_torchmf.training.validation import SCORE, Validation, best_epoch, has_stalled


class Part:
    """Some of the observations, ready to be trained on: what an estimator says of its own fit.

    Attributes
    ----------
    observed : dict
        The fitted attributes that follow from the observations alone.
    """

    observed: dict

    def make_solver(self):
        """Make the solver that trains on them.

        Returns
        -------
        Solver
        """
        raise NotImplementedError

    def user_labels(self):
        """The labels of the solver's users, in its order: asked for where several processes keep a checkpoint.

        Returns
        -------
        ndarray of shape (n_users,)
        """
        raise NotImplementedError

    def attributes(self, solver, last=False):
        """The fitted attributes at the solver's present state.

        Parameters
        ----------
        solver : Solver
        last : bool
            Whether the solver is done. If not, later steps must not change them.

        Returns
        -------
        dict
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Phase:
    """A stretch of training.

    Attributes
    ----------
    name : str
        What scikit-learn's callbacks see.
    rows : ndarray or None
        Which of the observations; None for all.
    stops_early : bool
        Whether the validation figure decides when it ends.
    keeps_best : bool
        Whether it ends at the state of its best epoch.
    repeats : bool
        Whether it takes as many epochs as were best in the phase before, whose history stays.
    tol : float
        What of the training loss an epoch must gain.
    """

    name: str = "fit"
    rows: np.ndarray | None = None
    stops_early: bool = False
    keeps_best: bool = False
    repeats: bool = False
    tol: float = 0.0


@dataclass
class Progress:
    """How far a fit is: what its observers are told, and what goes into its checkpoint.

    Attributes
    ----------
    phase : int
        The number of the present one.
    history : dict of list
        Figures of its epochs so far.
    best : dict or None
        The solver's state at its best epoch, where that is kept.
    stop : bool
        Whether it is to end after this epoch.
    searched : dict of list or None
        The history of the phase before.
    """

    phase: int = 0
    history: dict = field(default_factory=dict)
    best: dict | None = None
    stop: bool = False
    searched: dict | None = None


class Observer:
    """What watches a fit; each method does nothing by default."""

    def begin_part(self, part):
        """The observations of a phase are at hand, a Part."""

    def begin_phase(self, phase, max_iter):
        """A phase of at most so many epochs begins."""

    def begin_epoch(self):
        """An epoch begins."""

    def end_epoch(self, progress, solver, fitted):
        """An epoch has ended; ``progress`` may be changed. ``fitted()`` gives an estimator fitted so far."""

    def end_phase(self, fitted):
        """A phase has ended."""

    def end(self, fitted):
        """The fit has ended."""


def fit(part_of, phases, observers, fitted, *, max_iter=None, progress=None, restore=None):
    """Train, phase by phase.

    Parameters
    ----------
    part_of : callable
        Takes ``Phase.rows``, returns a Part.
    phases : sequence of Phase
    observers : sequence of Observer
        Told in this order.
    fitted : callable
        ``fitted(attributes)`` makes an estimator that has them, for scorers and callbacks.
    max_iter : int, optional
        Epochs of a phase at most, by default the solver's own.
    progress : Progress, optional
        Where an earlier fit was, with ``restore``, a function of a part and its solver that puts these back to where they were.

    Returns
    -------
    dict
        The fitted attributes, ``history_``, ``n_iter_``, ``best_iter_`` and ``best_score_`` among them.
    """
    progress = Progress() if progress is None else progress
    for number in range(progress.phase, len(phases)):
        if number > progress.phase:
            progress = Progress(number, searched=progress.history)
        phase, part = phases[number], part_of(phases[number].rows)
        try:
            solver = part.make_solver()
        except BROKEN as error:
            raise DivergenceError(f"Training could not begin ({error}). Check ratings and weights for extreme values.") from error
        try:
            _train(phase, part, solver, progress, observers, fitted, max_iter, restore)
            for observer in observers:
                observer.end_phase(lambda part=part, solver=solver: fitted(part.attributes(solver)))
            if number == len(phases) - 1:
                attributes = finite(part.attributes(solver, last=True), solver, len(progress.history["loss"]))
        finally:
            solver.close()
        restore = None
    if phases[-1].rows is not None:
        attributes |= part_of(None).observed
    history = progress.history if progress.searched is None else progress.searched
    attributes |= {"history_": history, "n_iter_": len(history["loss"])}
    if any(phase.stops_early for phase in phases):
        attributes |= best_of(history)
    for observer in observers:
        observer.end(lambda: fitted(attributes))
    return attributes


def finite(attributes, solver, epoch):
    """The fitted attributes after an epoch; refused where one of them is not finite."""
    for name, value in attributes.items():
        if not _is_finite(value):
            raise DivergenceError(f"{name} is not finite after {solver.epoch} {epoch}{solver.advice()}")
    return attributes


def _is_finite(value):
    if isinstance(value, torch.nn.Module):
        return all(bool(parameter.isfinite().all()) for parameter in value.parameters())
    if isinstance(value, tuple):
        return all(map(_is_finite, value))
    if isinstance(value, dict):  # what an optimizer has gathered; a scheduler's best loss is infinite at first
        return all(_is_finite(part) for name, part in value.items() if name != "scheduler")
    return not isinstance(value, float | np.ndarray) or np.asarray(value).dtype.kind != "f" or bool(np.isfinite(value).all())


def _train(phase, part, solver, progress, observers, fitted, max_iter, restore):
    """Train a solver for a phase, from where it is."""
    n_epochs = max_iter or solver.max_iter
    if phase.repeats:
        n_epochs = best_of(progress.searched)["best_iter_"]
    for observer in observers:
        observer.begin_part(part)
        observer.begin_phase(phase, n_epochs)
    if restore is not None:
        restore(part, solver)

    def begin():
        for observer in observers:
            observer.begin_epoch()

    def watch(epoch, history, solver):
        made: list = []

        def once():
            if not made:
                so_far = {"history_": {name: list(values) for name, values in history.items()}, "n_iter_": epoch}
                made.append(fitted(finite(part.attributes(solver), solver, epoch) | so_far))
            return made[0]

        for observer in observers:
            observer.end_epoch(progress, solver, once)
        return progress.stop

    if not progress.stop:
        run(solver, max_iter=n_epochs, tol=phase.tol, history=progress.history, begin=begin, watch=watch)
    if phase.keeps_best and progress.best is not None and best_epoch(progress.history) + 1 < len(progress.history["loss"]):
        solver.restore(progress.best)


def best_of(history):
    """``best_iter_`` and ``best_score_`` of a history with a validation figure."""
    at = best_epoch(history)
    figures = next(values for name, values in history.items() if name.startswith("validation_"))
    if np.isnan(figures[at]):
        raise ValueError(
            "The validation score was nan in every epoch, so no epoch is the best. Raise validation_fraction, pass X_val, or use "
            "another scoring."
        )
    return {"best_iter_": at + 1, "best_score_": figures[at]}


@dataclass
class Judge(Observer):
    """Takes the figure on validation data after each epoch and, where it decides, stops and remembers the best epoch."""

    validation: Validation
    tol: float
    patience: int
    phase: Phase = Phase()

    def begin_phase(self, phase, max_iter):
        self.phase = phase

    def end_epoch(self, progress, solver, fitted):
        if self.phase.repeats:
            return
        history = progress.history
        history.setdefault(self.validation.name, []).append(self.validation(fitted()))
        if self.phase.stops_early:
            if self.phase.keeps_best and best_epoch(history) == len(history["loss"]) - 1:
                progress.best = copy_state(solver.state())
            progress.stop |= has_stalled(history, self.tol, self.patience)


@dataclass
class Printer(Observer):
    """Prints a line an epoch: whose fit it is, what it calls an epoch, the figures."""

    name: str
    epoch: str

    def end_epoch(self, progress, solver, fitted):
        history = progress.history
        shown = [f"[{self.name}] {self.epoch} {len(history['loss'])}", f"loss {history['loss'][-1]:.6g}"]
        for figure in history.keys() & {SCORE, "validation_loss"}:
            shown.append(f"{figure.replace('_', ' ')} {history[figure][-1]:.6g}")
        print(", ".join([*shown, f"{history['seconds'][-1]:.3g} s"]))


class Caller(Observer):
    """Calls scikit-learn's callbacks: the fit is a task, with a task for each phase where there are two, and one for each epoch."""

    def __init__(self, estimator, data, phases):
        self.estimator, self.data, self.phases = estimator, data, phases
        self.whole: Any = None
        self.tasks: Any = None

    def begin_phase(self, phase, max_iter):
        several = len(self.phases) > 1
        self.whole = self.whole or Tasks(self.estimator, self.data, len(self.phases) if several else max_iter)
        self.tasks = self.whole.part(phase.name, max_iter) if several else self.whole

    def begin_epoch(self):
        self.tasks.begin()

    def end_epoch(self, progress, solver, fitted):
        progress.stop |= bool(self.tasks.end(fitted))

    def end_phase(self, fitted):
        if self.tasks is not self.whole:
            self.tasks.close(fitted)

    def end(self, fitted):
        self.whole.close(fitted)


@dataclass
class Keeper(Observer):
    """Keeps the checkpoint: all that the next epoch depends on, after each."""

    checkpoint: Checkpoint
    seed: int

    def end_epoch(self, progress, solver, fitted):
        self.checkpoint.write({"seed": self.seed, "progress": vars(progress), "solver": solver.state()})

    def end(self, fitted):
        self.checkpoint.remove()


@dataclass
class SharedKeeper(Observer):
    """Keeps the checkpoint of several processes: the rows of its users each, and the first one all else."""

    checkpoint: SharedCheckpoint
    seed: int
    users: Any = None

    def begin_part(self, part):
        self.users = part.user_labels()

    def end_epoch(self, progress, solver, fitted):
        states = {"solver": solver.state(), "best": progress.best}
        own = {name: state["user"] for name, state in states.items() if state is not None}
        common = {name: None if state is None else state | {"user": {}} for name, state in states.items()}
        content = {"seed": self.seed, "progress": vars(progress) | {"best": common["best"]}, "solver": common["solver"]}
        name = f"{progress.phase}-{len(progress.history['loss'])}"
        self.checkpoint.write_part(content, {"users": self.users, "rows": own}, name)

    def end(self, fitted):
        self.checkpoint.remove()


@dataclass
class Agreement(Observer):
    """Ends the training of all processes where one of them is to end it; all tell the history of the first."""

    processes: Communicator

    def end_epoch(self, progress, solver, fitted):
        told = self.processes.all_gather((bool(progress.stop), {name: own[-1] for name, own in progress.history.items()}))
        progress.stop = any(stop for stop, _ in told)
        for name, value in told[0][1].items():
            progress.history[name][-1] = value


def keeper(checkpoint, seed):
    """What keeps a checkpoint."""
    return (SharedKeeper if isinstance(checkpoint, SharedCheckpoint) else Keeper)(checkpoint, seed)


def resume(checkpoint):
    """What ``fit`` goes on from.

    Returns
    -------
    seed : int or None
        None where there is no file.
    progress : Progress or None
    restore : callable or None
    """
    saved = checkpoint.read()
    if saved is None:
        return None, None, None
    progress = Progress(**saved["progress"])

    def restore(part, solver):
        with checkpoint.fitting():
            if isinstance(checkpoint, SharedCheckpoint):
                rows = rows_of(part.user_labels(), ((own["users"], own["rows"]) for own in checkpoint.parts()))
                saved["solver"]["user"] = rows["solver"]
                if progress.best is not None:
                    progress.best["user"] = rows["best"]
            solver.restore(saved["solver"])

    return saved["seed"], progress, restore


def phases_of(held_in, *, early_stopping, refit, tol):
    """The phases of a fit.

    Parameters
    ----------
    held_in : ndarray or None
        Which observations are trained on while others are held out; None where none are.
    early_stopping, refit : bool
    tol : float
        Of the training loss, where the validation figure does not decide.
    """
    if not early_stopping:
        return [Phase(tol=tol)]
    if held_in is None or not refit:
        return [Phase(rows=held_in, stops_early=True, keeps_best=True)]
    return [Phase("early stopping", held_in, stops_early=True), Phase("refit", repeats=True)]
