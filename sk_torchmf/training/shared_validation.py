"""What a fit of several processes is judged by: data of which each has any part, scored where their users are."""

import numpy as np

from sk_torchmf.inputs.exchange import check_equal, check_types, exchange, firsts_of
from sk_torchmf.inputs.features import naming
from sk_torchmf.inputs.forms import INTERACTIONS, LABELLED, SHARDS, SPARSE, Reading, form_of
from sk_torchmf.inputs.holdout import hold_out_shared
from sk_torchmf.interactions import Interactions
from sk_torchmf.training.validation import Validation

NOTHING_HELD_OUT = "early_stopping of a fit to Shards needs X_val: nothing is held out of them. Pass X_val and y_val."


def shared_validation(estimator, given, seed):
    """Find what to train on and what to judge a fit by, in each process its part of it.

    Parameters
    ----------
    estimator : estimator
    given : FitArguments
    seed : int

    Returns
    -------
    rows : ndarray or None
        Which observations of this process to train on; None for all.
    validation : Validation or None
        None where nothing is asked for.
    """
    reading, form = given.reading, _form_of_all(given)
    if form is None and not estimator.early_stopping:
        return None, None
    if estimator.scoring is not None:
        raise ValueError(
            f"distributed=True needs scoring=None: a scorer of one process's pairs says nothing of the others'. Got "
            f"{estimator.scoring!r}. Use that, or distributed=False."
        )
    if form is None and reading.form == SHARDS:
        raise ValueError(NOTHING_HELD_OUT)
    if form is None:
        data, labels = reading.data, reading.users
        held = hold_out_shared(
            data.user_ids, data.item_ids, labels, reading.shape[1], estimator.validation_fraction, seed, reading.processes
        )
        part = reading[np.flatnonzero(held)]
        return np.flatnonzero(~held), estimator._judging(part, reading)
    if form == SPARSE:  # of new users: whoever has them
        return None, Validation(given.X_val, given.y_val, None, None, processes=reading.processes)
    held_out = _read(estimator, given, form)
    for role in ("user", "item"):
        check_types(getattr(reading, f"{role}s"), getattr(held_out, f"{role}s"), role, "X_val", reading.processes)
    with naming("X_val"):
        held_out = exchange(held_out, reading.processes, firsts_of(reading))
    return None, estimator._judging(held_out, reading)


def read_validation(estimator, given):
    """Read the part of ``X_val`` that this process was given: a Reading, or None where no process was given any."""
    form = _form_of_all(given)
    return None if form is None else _read(estimator, given, form)


def _form_of_all(given):
    """The form that X_val has in all processes that were given any; None where none was."""
    if given.y_val is not None and given.X_val is None:
        raise ValueError("y_val was given without X_val. Pass both, or neither.")
    forms = given.reading.processes.all_gather(None if given.X_val is None else form_of(given.X_val))
    check_equal(forms, "X_val must have one form on all ranks: tables, sparse matrices or Interactions")
    form = next((own for own in forms if own is not None), None)
    if form == INTERACTIONS and given.reading.form in LABELLED:
        raise ValueError("X_val must be a table, as X is: Interactions hold positions, and the ids of X are labels.")
    return form


@naming("X_val")
def _read(estimator, given, form):
    """The part of X_val that the process has; a Reading."""
    reading, X = given.reading, given.X_val
    if X is None:
        nothing = np.empty(0, dtype=np.int64)
        return Reading(Interactions(nothing, nothing, np.empty(0)), nothing, nothing, form, reading.n_features)
    found = estimator._read_held_out(X, given.y_val)
    if form == reading.form and _columns(found) != _columns(reading):
        raise ValueError(f"It must have the columns of X, {_columns(reading)}. Got {_columns(found)}.")
    return found


def _columns(reading):
    return reading.n_features if reading.names is None else list(reading.names)
