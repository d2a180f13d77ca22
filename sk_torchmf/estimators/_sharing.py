"""Fits that several processes share: what they refuse, what they must have in common, and how their parts become one estimator."""

from dataclasses import replace

import numpy as np
import scipy.sparse as sp

from sk_torchmf.estimators._fitting import seen_in
from sk_torchmf.inputs import context
from sk_torchmf.inputs.effects import join_effects
from sk_torchmf.inputs.exchange import check_equal, check_types, exchange, firsts_of, owners_of, send
from sk_torchmf.inputs.features import naming
from sk_torchmf.inputs.forms import INTERACTIONS, LABELLED, SPARSE, Reading, form_of, read_rated
from sk_torchmf.inputs.holdout import hold_out_shared
from sk_torchmf.inputs.labels import join, lookup
from sk_torchmf.interactions import Interactions
from sk_torchmf.storage.checkpoint import digest_of
from sk_torchmf.training.validation import Validation

MAY_DIFFER = ("device", "random_state", "verbose", "scoring", "user_encoder", "item_encoder")  # or say nothing here
ROWS = ("user_factors_", "user_biases_", "user_counts_", "user_described_", "user_features_", "user_cut_points_")  # of each user
OTHERS = ("users_", "observed_", "pair_weights_", "observed_features_", "effects_", "effect_biases_")  # what else is of them
NEEDS = {  # the value of a parameter in a fit that is shared, and why
    "solver": ("variational", "the others do not yet sum over processes"),
    "checkpoint": (None, "a file would hold the rows of one process alone"),
}


def check_shareable(estimator, processes, **given):
    """Refuse what a fit of several processes cannot have, and parameters that differ between them.

    Parameters
    ----------
    estimator : estimator
        With the parameter ``distributed``.
    processes : Communicator
    **given : table, array or None
        Arguments of ``fit`` that must be None.
    """
    params = estimator.get_params(deep=False)
    for name, (value, reason) in NEEDS.items():
        got = params[name]
        if got != value if isinstance(got, str) else not (got is None or _is_false(got)):
            raise ValueError(
                f"distributed=True needs {name}={_shown(value)}: {reason}. Got {_shown(got)}. Use that, or distributed=False."
            )
    if params.get("seen_features") in ("item", "both"):
        raise ValueError(
            'distributed=True needs seen_features="user" or None: those who have seen an item are in several processes. Got '
            f"{_shown(params['seen_features'])}. Use one of these, or distributed=False."
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


def has_rows_to_go_on(estimator, reading):
    """Say whether a fit goes on from an earlier one, of which each process must have the rows of its users.

    Parameters
    ----------
    estimator : estimator
        In each process, fitted in all or in none.
    reading : Reading
        As ``exchange`` returns it.

    Returns
    -------
    bool
        The same in all processes.

    Raises
    ------
    ValueError
        Where the estimators are of several fits, or a user's row is in another process than the user.
    """
    processes, firsts, is_fitted = reading.processes, firsts_of(reading), estimator.__sklearn_is_fitted__()
    told = processes.all_gather((is_fitted, (estimator.n_factors, digest_of(estimator.items_)) if is_fitted else None))
    cure = "Fit with warm_start=False."
    states = ["a fitted one" if own[0] else "one that is not" for own in told]
    check_equal(states, "warm_start=True needs an estimator that is fitted on all ranks or on none", cure)
    if any(own[1] != told[0][1] for own in told):
        raise ValueError(f"warm_start=True needs the estimators of one fit, and on rank {processes.rank} items_ are others. {cure}")
    if not is_fitted:
        return False
    users, owner = estimator.users_, owners_of(estimator.users_, processes.size, firsts)
    others = [users[owner == rank] if rank != processes.rank else users[:0] for rank in range(processes.size)]
    for rank, labels in enumerate(send(others, processes)):
        here = labels[lookup(labels, reading.users, "user") >= 0]
        missing = here[lookup(here, users, "user") < 0]
        if len(missing):
            raise ValueError(
                f"warm_start=True needs each user's earlier row where the user is now. That of {missing.tolist()[0]!r} is on rank "
                f"{rank}, and the user on rank {processes.rank}: the earlier fit had other processes. Go on from what gather() "
                "returns on those: save it, load it on each of these, and set distributed=True."
            )
    return True


def _is_false(value):
    return isinstance(value, bool | np.bool_) and not value


def _shown(value):
    return f'"{value}"' if isinstance(value, str) else repr(value)


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
    if given.y_val is not None and given.X_val is None:
        raise ValueError("y_val was given without X_val. Pass both, or neither.")
    reading = given.reading
    forms = reading.processes.all_gather(None if given.X_val is None else form_of(given.X_val))
    form = next((own for own in forms if own is not None), None)
    if form is None and not estimator.early_stopping:
        return None, None
    if estimator.scoring is not None:
        raise ValueError(
            f"distributed=True needs scoring=None: a scorer of one process's pairs says nothing of the others'. Got "
            f"{estimator.scoring!r}. Use that, or distributed=False."
        )
    if form is None:
        data, labels = reading.data, reading.users
        held = hold_out_shared(
            data.user_ids, data.item_ids, labels, reading.shape[1], estimator.validation_fraction, seed, reading.processes
        )
        part = reading[np.flatnonzero(held)]
        return np.flatnonzero(~held), _judging(estimator, part, part.data.user_ids, part.data.item_ids, reading.processes)
    check_equal(forms, "X_val must have one form on all ranks: tables, sparse matrices or Interactions")
    if form == SPARSE:  # of new users: whoever has them
        return None, Validation(given.X_val, given.y_val, None, None, processes=reading.processes)
    if form == INTERACTIONS and reading.form in LABELLED:
        raise ValueError("X_val must be a table, as X is: Interactions hold positions, and the ids of X are labels.")
    with naming("X_val"):
        held_out = _read_validation(estimator, given, form)
    for role in ("user", "item"):
        check_types(getattr(reading, f"{role}s"), getattr(held_out, f"{role}s"), role, "X_val", reading.processes)
    with naming("X_val"):
        held_out = exchange(held_out, reading.processes, firsts_of(reading))
    user = lookup(held_out.users, reading.users, "user")[held_out.data.user_ids]
    item = lookup(held_out.items, reading.items, "item")[held_out.data.item_ids]
    return None, _judging(estimator, held_out, user, item, reading.processes)


def _read_validation(estimator, given, form):
    """The part of X_val that the process has; a Reading."""
    reading, X = given.reading, given.X_val
    if X is None:
        nothing = np.empty(0, dtype=np.int64)
        return Reading(Interactions(nothing, nothing, np.empty(0)), nothing, nothing, form, reading.n_features)
    found = read_rated(X, given.y_val, None, estimator.user, estimator.item, type(estimator).__name__, is_part=True)
    if form == reading.form and _columns(found) != _columns(reading):
        raise ValueError(f"It must have the columns of X, {_columns(reading)}. Got {_columns(found)}.")
    return replace(found, features=context.find(X, context.wanted(estimator.effects, estimator.time)))


def _columns(reading):
    return reading.n_features if reading.names is None else list(reading.names)


def _judging(estimator, held_out, user, item, processes):
    """What judges by the pairs of a Reading, which have the row numbers (n,) in X, -1 for unknown."""
    data = held_out.data
    read = (user, item, held_out.features), None, estimator._coded(data.ratings), data.weights
    return Validation(None, None, None, None, read, processes)


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
    own = {name: attributes[name] for name in (*ROWS, *OTHERS) if attributes.get(name) is not None}
    posterior = attributes["user_posterior_"]
    of_rows = {} if posterior is None else dict(zip(("count", "doubt"), posterior[3:], strict=False))
    told = processes.all_gather(own | of_rows)
    users, places = _join([part["users_"] for part in told])
    _check_complete(len(users), [part["user_counts_"] for part in told], attributes["item_counts_"])
    order = np.argsort(np.concatenate(places), kind="stable")  # of the rows, one process's after another's

    def matrix(matrices):
        return sp.csr_array(sp.vstack(matrices, format="csr"))[order]

    def rows(name):
        parts = [part[name][: len(part["users_"])] for part in told]
        return matrix(parts) if sp.issparse(parts[0]) else np.concatenate(parts)[order]

    observed = matrix([part["observed_"] for part in told])
    found = {name: rows(name) for name in ROWS if name in own}
    found |= {"users_": users, "n_users_": len(users), "observed_": observed, "seen_": seen_in(observed)}
    if "pair_weights_" in own:
        found["pair_weights_"] = matrix([_with_values(part["observed_"], part["pair_weights_"]) for part in told]).data
    if "effects_" in own:
        ends = np.cumsum([0, *(part["observed_"].nnz for part in told)])
        numbers = [np.arange(*some) for some in zip(ends[:-1], ends[1:], strict=True)]
        numbered = matrix([_with_values(part["observed_"], own) for part, own in zip(told, numbers, strict=True)]).data
        columns = own["observed_features_"]
        found["observed_features_"] = {
            name: np.concatenate([part["observed_features_"][name] for part in told])[numbered] for name in columns
        }
        found["effects_"], orders = join_effects([part["effects_"] for part in told], places)
        found["effect_biases_"] = [
            _joined_biases(parts, order) for *parts, order in zip(*[part["effect_biases_"] for part in told], orders, strict=True)
        ]
    if posterior is not None:
        found["user_posterior_"] = (*posterior[:3], rows("count"))
        if "doubt" in of_rows:  # in whose last row is a user of whom nothing is known
            found["user_posterior_"] += (np.concatenate([rows("doubt"), posterior[4][-1:]]),)
    return attributes | found


def _joined_biases(parts, order):
    """The biases of one effect with their variances, and the prior's, of the codes of all processes."""
    if order is None:
        return parts[0]
    biases, variances = (np.concatenate([part[at] for part in parts])[order] for at in range(2))
    return biases, variances, parts[0][2]


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
