"""Fits that several processes share: what they refuse, what they must have in common, and how their parts become one estimator."""

import re
from numbers import Integral

import numpy as np
import scipy.sparse as sp

from sk_torchmf.estimators._fitting import seen_in
from sk_torchmf.inputs.labels import join

MAY_DIFFER = ("device", "random_state", "verbose", "scoring", "user_encoder", "item_encoder")  # or say nothing here
ROWS = ("user_factors_", "user_biases_", "user_counts_", "user_cut_points_")  # what has a row for each user
NEEDS = {  # the value of a parameter in a fit that is shared, and why
    "batch_size": (None, "a batch would depend on which process has which users"),
    "early_stopping": (False, "what is held out would have to be scored by all processes"),
    "checkpoint": (None, "a file would hold the rows of one process alone"),
    "warm_start": (False, "earlier rows of a user may lie in another process"),
    "effects": (None, "values are not yet numbered over all processes"),
    "time": (None, "sessions are not yet numbered over all processes"),
    "cold_average": (None, "it needs the scores of all pairs at once"),
    "seen_features": (None, "those who have seen an item lie in several processes"),
}


MODULE_NEEDS = {  # likewise of a fit of any module
    "n_processes": (1, "each rank is a process already"),
    "features": (None, "their values are not yet agreed on by all processes"),
    "early_stopping": (False, "what is held out would have to be scored by all processes"),
    "checkpoint": (None, "a file would hold the observations of one process alone"),
    "warm_start": (False, "an earlier module may differ from process to process"),
}


def check_shareable(estimator, processes, needs=NEEDS, **given):
    """Refuse what a fit of several processes cannot have, and parameters that differ between them.

    Parameters
    ----------
    estimator : estimator
        With the parameter ``distributed``.
    processes : Communicator
    needs : dict
        The values that parameters must have, and why, as ``NEEDS``.
    **given : table, array or None
        Arguments of ``fit`` that must be None.
    """
    params = estimator.get_params(deep=False)
    for name, (value, reason) in needs.items():
        got = params[name]
        is_given = isinstance(got, str | Integral) and not isinstance(got, bool)
        if got != value if is_given else not (got is None or _is_false(got)):
            raise ValueError(
                f"distributed=True needs {name}={_shown(value)}: {reason}. Got {_shown(got)}. Use that, or distributed=False."
            )
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"distributed=True takes no {name} yet. Leave it out, or use distributed=False.")
    shared = {name: _shown(value) for name, value in params.items() if name not in MAY_DIFFER}
    for rank, other in enumerate(processes.all_gather(shared)):
        different = [name for name in shared if other.get(name) != shared[name]]
        if different:
            name = different[0]
            raise ValueError(
                f"All ranks must have the same parameters. Got {name}={shared[name]} on rank {processes.rank} and "
                f"{other.get(name)} on rank {rank}."
            )


def _is_false(value):
    return isinstance(value, bool | np.bool_) and not value


def _shown(value):
    """A value as text that is the same in every process: without the address of an object."""
    return f'"{value}"' if isinstance(value, str) else re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def joined(attributes, processes):
    """Put the fitted attributes of all processes together.

    Parameters
    ----------
    attributes : dict
        Those of this process, whose users no other has; what belongs to items or to all is the same in all.
    processes : Communicator

    Returns
    -------
    dict
        Those of a fit by one process.
    """
    own = {name: attributes[name] for name in (*ROWS, "users_", "observed_", "pair_weights_") if name in attributes}
    posterior = attributes["user_posterior_"]
    told = processes.all_gather(own | {"count": None if posterior is None else posterior[3]})
    users, places = _join([part["users_"] for part in told])
    _check_complete(len(users), [part["user_counts_"] for part in told], attributes["item_counts_"])
    order = np.argsort(np.concatenate(places), kind="stable")  # of the rows, one process's after another's

    def rows(name):
        return np.concatenate([part[name] for part in told])[order]

    def pairs(matrices):
        return sp.csr_array(sp.vstack(matrices, format="csr"))[order]

    observed = pairs([part["observed_"] for part in told])
    found = {name: rows(name) for name in ROWS if own.get(name) is not None}
    found |= {"users_": users, "n_users_": len(users), "observed_": observed, "seen_": seen_in(observed)}
    if own["pair_weights_"] is not None:
        found["pair_weights_"] = pairs([_with_values(part["observed_"], part["pair_weights_"]) for part in told]).data
    if posterior is not None:
        found["user_posterior_"] = (*posterior[:3], rows("count"))
    return attributes | found


def joined_modules(attributes, processes):
    """Put together what the processes have kept of their observations; module and ids are the same in all, see ``joined``."""
    told = processes.all_gather({name: attributes[name] for name in ("users_", "observed_", "pair_weights_")})
    patterns, weights = [part["observed_"] for part in told], [part["pair_weights_"] for part in told]
    lengths = [np.diff(own.indptr) for own in patterns]
    valued = [_with_values(own, np.ones(own.nnz) if w is None else w) for own, w in zip(patterns, weights, strict=True)]
    counts = [own.sum(axis=1)[n > 0] for own, n in zip(valued, lengths, strict=True)]
    alike = all(np.array_equal(part["users_"], told[0]["users_"]) for part in told)
    _check_complete(np.count_nonzero(sum(lengths)) if alike else 0, counts, attributes["item_counts_"])
    order = np.argsort(np.concatenate([np.repeat(np.arange(len(own)), own) for own in lengths]), kind="stable")
    columns, values = (np.concatenate([getattr(own, name) for own in patterns])[order] for name in ("indices", "data"))
    pointers = np.concatenate([[0], np.cumsum(sum(lengths))]).astype(patterns[0].indptr.dtype)
    observed = sp.csr_array((values, columns, pointers), shape=patterns[0].shape)
    weight = None if weights[0] is None else np.concatenate(weights)[order]
    return attributes | {"observed_": observed, "seen_": seen_in(observed), "pair_weights_": weight}


def _check_complete(n_users, user_counts, item_counts):
    """Refuse parts that are not those of one fit, each once: nobody is in two, and items were observed as often as users did."""
    found, expected = sum(float(own.sum()) for own in user_counts), float(item_counts.sum())
    if n_users < sum(map(len, user_counts)) or not np.isclose(found, expected, rtol=1e-5):
        raise ValueError(
            f"gather needs all parts of one fit, each on one rank. On these {len(user_counts)} ranks {n_users} users have "
            f"{found:.6g} observations, and the fit had {expected:.6g}. Call it on as many ranks as fit, each with its own "
            "estimator."
        )


def _join(parts):
    """``labels.join`` of users, of whom a process may have none."""
    union, places = join([part for part in parts if len(part)], "user")
    found = iter(places)
    return union, [next(found) if len(part) else np.empty(0, dtype=np.int64) for part in parts]


def _with_values(pattern, values):
    """Other values at the entries of a CSR array."""
    return sp.csr_array((values, pattern.indices, pattern.indptr), shape=pattern.shape)
