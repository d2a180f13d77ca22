"""What fits of several processes and to data sets on disk refuse: tables, and the function that goes through one."""

import re
from collections.abc import Callable
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import issparse

from sk_torchmf.distributed import EXACT
from sk_torchmf.inputs.exchange import check_equal
from sk_torchmf.solvers import RATING_SOLVERS

TO_SHARDS, SHARED_TO_SHARDS = "A fit to Shards", "A fit of several processes to Shards"
MAY_DIFFER = ("device", "random_state", "verbose", "scoring", "user_encoder", "item_encoder")  # or say nothing here
ABLE = [name for name, row in RATING_SOLVERS.items() if row.sums_over_processes]


def given(value):
    """Whether a parameter or argument is neither None nor False."""
    return value is not None and not (isinstance(value, bool | np.bool_) and not value)


def one_of(*refused):
    """What says of a value whether it is one of some words; a value may be an array."""
    return lambda value: isinstance(value, str) and value in refused


def none_of(*taken):
    """What says of a value whether it is none of some words or numbers; a value may be an array."""
    return lambda value: not isinstance(value, str | Integral) or value not in taken


class Refusal(NamedTuple):
    """A row of a table of refusals.

    Attributes
    ----------
    name : str
        A parameter of the estimator, or an argument of ``fit``.
    is_refused : callable
        Says it of a value; not asked where the estimator has no such parameter.
    why : str
        How the sentence goes on after a colon; empty for what is not there yet.
    use : str
        What to pass instead, as one writes it; empty where that is not one thing.
    """

    name: str
    is_refused: Callable[[Any], bool]
    why: str = ""
    use: str = ""


TABLES_OF_ATTRIBUTES = ("user_features", "item_features")
JUDGING = ("X_val", "y_val", "early_stopping")
CONTEXT = ("effects", "time")
NEEDS = [  # of a fit to ratings that several processes share
    Refusal("solver", none_of(*ABLE), "its steps depend on the products of all rows at once"),
    Refusal("batch_size", given, "a batch would depend on which process has which users", "None"),
    Refusal("seen_features", one_of("item", "both"), "those who have seen an item are in several processes", '"user" or None'),
]
EXACT_NEEDS = [Refusal(name, given) for name in (*CONTEXT, *JUDGING, "cold_average")]  # further, of exact sums
POSITIVES_NEEDS = [  # likewise of one to positives
    Refusal("X_val", issparse, "which items of a new user are scored would depend on who has the user"),
    Refusal("alpha", one_of("auto"), "it is searched for in all positives at once"),
    Refusal("confidence", one_of("auto"), "it is searched for in all positives at once"),
    Refusal("negatives", one_of("popularity"), "it takes numbers of users that no process keeps"),
]
MODULE_NEEDS = [  # likewise of one of any module
    Refusal("n_processes", none_of(1), "each rank is a process already", "1"),
    Refusal("features", given, "their values are not yet agreed on by all processes", "None"),
    Refusal("early_stopping", given, "what is held out would have to be scored by all processes", "False"),
    Refusal("checkpoint", given, "a file would hold the observations of one process alone", "None"),
    Refusal("warm_start", given, "an earlier module may differ from process to process", "False"),
    *(Refusal(name, given) for name in (*TABLES_OF_ATTRIBUTES, "X_val", "y_val")),
]
UNSTORED = [  # of a fit to ratings on disk
    Refusal("seen_features", given, "what a row was observed with must be at hand", "None"),
    Refusal("cold_average", given, "it needs all pairs at once", "None"),
    Refusal("effects", given, "they have no further columns", "None"),
    Refusal("time", given, "they have no further columns", "None"),
]
UNSHARED_STORED = [  # further, where several processes fit to them
    Refusal("distributed", one_of(EXACT), use="True"),
]
MODULE_UNSTORED = [  # of a fit of any module to a data set on disk
    Refusal("distributed", given, "one process reads them", "False"),
    Refusal("features", given, "they have no further columns", "None"),
    Refusal("n_processes", none_of(1), "one process reads them", "1"),
    Refusal("batch_size", lambda size: size is None, "their observations are never all at hand"),
]


def refuse(fit, rows, values, otherwise):
    """Refuse what a fit cannot have.

    Parameters
    ----------
    fit : str
        What is fitted, as a sentence begins.
    rows : list of Refusal
    values : dict
        Parameters and arguments by their names.
    otherwise : str
        What to do where that value is needed.

    Raises
    ------
    ValueError
        For the first row that refuses something.
    """
    for row in rows:
        if row.name not in values or not row.is_refused(value := values[row.name]):
            continue
        why, got = f": {row.why}" if row.why else "", _named(row.name, value)
        if row.use:
            raise ValueError(f"{fit} needs {row.name}={row.use}{why}. Got {shown(value)}. Use that, or {otherwise}.")
        if why:
            raise ValueError(f"{fit} takes no {got}{why}. Use another, or {otherwise}.")
        raise ValueError(f"{fit} takes no {got} yet. Leave it out, or use {otherwise}.")


def check_shareable(estimator, processes, rows, **arguments):
    """Refuse what a fit of several processes cannot have, and parameters that differ between them.

    Parameters
    ----------
    estimator : estimator
        With the parameter ``distributed``.
    processes : Communicator
    rows : list of Refusal
    **arguments : table, array or None
        Those of ``fit``.
    """
    params = estimator.get_params(deep=False)
    exact = params["distributed"] == EXACT
    rows = [*rows, *EXACT_NEEDS] if exact else rows
    refuse(f"distributed={shown(EXACT if exact else True)}", rows, params | arguments, "distributed=False")
    told = processes.all_gather({name: shown(value) for name, value in params.items() if name not in MAY_DIFFER})
    for name in dict.fromkeys(name for own in told for name in own):
        check_equal([f"{name}={own.get(name)}" for own in told], "All ranks must have the same parameters")


def _named(name, value):
    """A parameter as one writes it, an argument of ``fit`` by its name: a table is no word."""
    return f"{name}={shown(value)}" if value is None or isinstance(value, str | Integral | np.bool_) else name


def shown(value):
    """A value as text that is the same in every process: without the address of an object."""
    return f'"{value}"' if isinstance(value, str) else re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))
