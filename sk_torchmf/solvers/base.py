"""The one training loop: the clock, the history, when to stop. Knows what every solver can do, and no solver."""

import copy
import math
import time

import numpy as np
import torch

from sk_torchmf.exceptions import DivergenceError

BROKEN = (torch.linalg.LinAlgError, np.linalg.LinAlgError, ZeroDivisionError, OverflowError)  # what numbers out of range lead to
PATIENCE = 5  # epochs in a row with less than tol improvement before training stops


class Solver:
    """What the loop asks of a solver.

    Attributes
    ----------
    epoch : str
        What an epoch is called in messages.
    max_iter : int
        How many epochs a fit takes where nothing else is asked for.
    """

    epoch = "iteration"
    max_iter = 10

    def step(self):
        """Train for one epoch.

        Returns
        -------
        dict of str to float
            The epoch's figures, ``loss`` among them.
        """
        raise NotImplementedError

    def solution(self):
        """What was found so far; later steps may change it in place.

        Returns
        -------
        Factors
            In standardised units, of the users and items that the solver was given. A solver of any module returns the module.
        """
        raise NotImplementedError

    def state(self):
        """All that the next step and the solution depend on, beside the arguments that the solver was made with.

        Returns
        -------
        dict
            ``{"user": {...}, "item": {...}, "rest": {...}}``. Under ``user`` and ``item`` are tensors with a row for each user or
            item, in the solver's order; under ``user`` also tuples of two, the users' numbers and the rows that they have, of
            which each has any number. Under ``rest`` is everything else: tensors, arrays, numbers, strings, None, and dicts, lists
            and tuples of such. The tensors are the solver's own, and the next step changes them: ``copy_state`` copies.
        """
        raise NotImplementedError

    def restore(self, state):
        """Go back to a state, of this solver or of one made alike; the state is copied."""
        raise NotImplementedError

    def converged(self, losses, tol):
        """Whether the losses so far say that further epochs are not worth their time."""
        return stalled(losses, tol)

    def advice(self):
        """How a message about a loss that is not finite goes on: what led to it, and what to do."""
        return ""

    def close(self):
        """Give back what the solver holds beside memory, files and processes; its solution stays."""


def run(solver, *, max_iter, tol=0.0, history=None, begin=None, watch=None):
    """Train until nothing is to be gained.

    Parameters
    ----------
    solver : Solver
    max_iter : int
        Epochs at most, those of ``history`` among them.
    tol : float
        Training stops once the loss has fallen by less than this fraction in each of five epochs in a row; 0 never stops it.
    history : dict of list, optional
        Of the epochs so far, where training goes on; appended to.
    begin : callable, optional
        Called before each epoch.
    watch : callable, optional
        Called after each epoch with (number of the epoch, history, solver). Training stops where it returns True.

    Returns
    -------
    dict of list
        The figures of each epoch, and ``seconds``, the time that its step took.

    Raises
    ------
    DivergenceError
        Where the loss is not finite, or could not be computed.
    """
    history = {} if history is None else history
    done = len(history.get("loss", ()))
    if done and solver.converged(history["loss"], tol):
        return history
    for epoch in range(done + 1, max_iter + 1):
        if begin is not None:
            begin()
        start = time.perf_counter()
        try:
            figures = solver.step()
        except (*BROKEN, RuntimeError) as error:
            if not isinstance(error, BROKEN) and "without overflow" not in str(error):  # of a number that float32 cannot hold
                raise
            raise DivergenceError(f"The numbers broke down in {solver.epoch} {epoch} ({error}){solver.advice()}") from error
        seconds = time.perf_counter() - start
        if not math.isfinite(figures["loss"]):
            raise DivergenceError(f"Loss became {figures['loss']:.4g} in {solver.epoch} {epoch}{solver.advice()}")
        for name, value in (figures | {"seconds": seconds}).items():
            history.setdefault(name, []).append(value)
        if watch is not None and watch(epoch, history, solver):
            break
        if solver.converged(history["loss"], tol):
            break
    return history


def stalled(losses, tol):
    """Whether each of the last five epochs lowered the loss by less than the fraction tol; never with 0."""
    recent = losses[-PATIENCE - 1 :]
    return (
        tol > 0
        and len(recent) > PATIENCE
        and all(old - new < tol * abs(old) for old, new in zip(recent[:-1], recent[1:], strict=True))
    )


def copy_state(state):
    """The state with tensors and arrays of its own."""
    return copy.deepcopy(state)


def tensors_of(module):
    """A module's parameters and buffers by name, detached: the state of what is trained in place."""
    return {name: tensor.detach() for name, tensor in (*module.named_parameters(), *module.named_buffers())}


def by_side(named):
    """Sort what is named ``user_...``, ``item_...`` or otherwise into the three parts of a state."""
    parts: dict[str, dict] = {"user": {}, "item": {}, "rest": {}}
    for name, value in named.items():
        role, _, own = name.partition("_")
        if role in ("user", "item"):
            parts[role][own] = value
        else:
            parts["rest"][name] = value
    return parts


def by_name(parts):
    """The reverse of ``by_side``."""
    own = {f"{role}_{name}": value for role in ("user", "item") for name, value in parts[role].items()}
    return own | parts["rest"]


def fill(tensors, values):
    """Copy values into tensors of the same names, in place."""
    with torch.no_grad():
        for name, tensor in tensors.items():
            if tensor.shape != values[name].shape:
                raise ValueError(f"{name} has shape {tuple(tensor.shape)}, and that of the state {tuple(values[name].shape)}")
            tensor.copy_(values[name])
