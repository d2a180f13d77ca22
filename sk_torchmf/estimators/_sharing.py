"""Fits that several processes share: what they refuse, what they have in common, how their parts become one estimator or files."""

import copy
import errno
import os
import re
import secrets
from dataclasses import replace
from numbers import Integral
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.utils.validation import check_is_fitted

from sk_torchmf.distributed import communicator, has_group
from sk_torchmf.estimators._docs import documented
from sk_torchmf.estimators._fitting import seen_in
from sk_torchmf.estimators._saving import SavedEstimator, folded, is_fitted_attribute, unfolded
from sk_torchmf.inputs import context
from sk_torchmf.inputs.effects import join_effects
from sk_torchmf.inputs.exchange import check_equal, check_types, exchange, firsts_of, owners_of, send
from sk_torchmf.inputs.features import naming
from sk_torchmf.inputs.forms import INTERACTIONS, LABELLED, SPARSE, Reading, form_of, read_rated
from sk_torchmf.inputs.holdout import hold_out_shared
from sk_torchmf.inputs.labels import join, lookup
from sk_torchmf.inputs.stable_hash import shares, stable_hash
from sk_torchmf.inputs.stored_pattern import StoredPattern
from sk_torchmf.interactions import Interactions
from sk_torchmf.storage.archive import check_path
from sk_torchmf.storage.archive import naming as naming_file
from sk_torchmf.storage.checkpoint import digest_of
from sk_torchmf.storage.packing import pack, unpack
from sk_torchmf.storage.parts import PartsFolder
from sk_torchmf.training.validation import Validation

KIND = "model"  # of the folder that parts are saved to
MAY_DIFFER = ("device", "random_state", "verbose", "scoring", "user_encoder", "item_encoder")  # or say nothing here
ROWS = ("user_factors_", "user_biases_", "user_counts_", "user_described_", "user_features_", "user_cut_points_")  # of each user
OTHERS = ("users_", "pair_weights_", "observed_features_", "effects_", "effect_biases_")  # what else is of them
NEEDS = {  # the value of a parameter in a fit that is shared, and why
    "batch_size": (None, "a batch would depend on which process has which users"),
}


POSITIVES_NEEDS = {  # likewise of a fit to positives
    "early_stopping": (False, "what is held out would have to be scored by all processes"),
    "checkpoint": (None, "a file would hold the rows of one process alone"),
    "warm_start": (False, "earlier rows of a user may lie in another process"),
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
        got = params.get(name, value)  # not every estimator has all of them
        is_given = isinstance(got, str | Integral) and not isinstance(got, bool)
        if got != value if is_given else not (got is None or _is_false(got)):
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
    """A value as text that is the same in every process: without the address of an object."""
    return f'"{value}"' if isinstance(value, str) else re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


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
    told = processes.all_gather(part_of(attributes))
    users = _users_of(told)[0]
    _check_complete(len(users), [part["user_counts_"] for part in told], attributes["item_counts_"])
    return together(attributes, told)


def part_of(attributes):
    """What is of the users of one process, of its fitted attributes."""
    n, posterior = len(attributes["users_"]), attributes.get("user_posterior_")
    of_rows = {name: attributes[name] for name in ROWS if name in attributes}
    of_rows |= {"count": None} if posterior is None else dict(zip(("count", "doubt"), posterior[3:], strict=False))
    own = {name: attributes[name] for name in (*OTHERS, _pattern_of(attributes)) if name in attributes}
    return own | {name: None if values is None else values[:n] for name, values in of_rows.items()}


def common_of(attributes):
    """What is the same in all processes, of their fitted attributes."""
    own = *ROWS, *OTHERS, "n_users_", "observed_", "seen_"
    found = {name: value for name, value in attributes.items() if name not in own}
    if (posterior := found.get("user_posterior_")) is not None:  # of the doubts the last row is an unknown user's
        found["user_posterior_"] = posterior[:3] + ((None, posterior[4][-1:]) if len(posterior) > 4 else ())
    return found


def _pattern_of(attributes):
    """Where the pairs are: in ``seen_`` of an estimator that keeps no values of them."""
    return "observed_" if "observed_" in attributes else "seen_"


def some_of(part, rows):
    """A part of some of its users, by their row numbers."""
    found = {name: values[rows] for name, values in part.items() if values is not None and name != "pair_weights_"}
    if part.get("pair_weights_") is not None:
        found["pair_weights_"] = _with_values(part[_pattern_of(part)], part["pair_weights_"])[rows].data
    return dict.fromkeys(part) | found


def together(attributes, parts):
    """Fitted attributes with the users of several parts.

    Parameters
    ----------
    attributes : dict
        Those of any process.
    parts : list of dict
        See ``part_of``; nobody is in two.

    Returns
    -------
    dict
    """
    users, places = _users_of(parts)
    order = np.argsort(np.concatenate(places), kind="stable")  # of the rows, one part's after another's

    def matrix(matrices):
        return sp.csr_array(sp.vstack(matrices, format="csr"))[order]

    def rows(name):
        own = [part[name] for part in parts]
        return matrix(own) if sp.issparse(own[0]) else np.concatenate(own)[order]

    found: dict[str, Any] = {name: None if parts[0][name] is None else rows(name) for name in ROWS if name in parts[0]}
    found |= {"users_": users, "n_users_": len(users)}
    pattern = _pattern_of(parts[0])
    observed = [part[pattern] for part in parts]
    if isinstance(observed[0], StoredPattern):
        found["seen_"] = observed[0].with_rows(np.concatenate([own.number for own in observed])[order])
    else:
        observed = matrix(observed)
        found |= {pattern: observed, "seen_": seen_in(observed) if pattern == "observed_" else observed}
    if "pair_weights_" in parts[0]:
        weighted = [_with_values(part[pattern], part["pair_weights_"]) for part in parts if part["pair_weights_"] is not None]
        found["pair_weights_"] = matrix(weighted).data if weighted else None
    if "effects_" in parts[0]:
        found |= _joined_effects(parts, places, matrix)
    if parts[0]["count"] is not None:
        posterior = attributes["user_posterior_"]
        found["user_posterior_"] = (*posterior[:3], rows("count"))
        if "doubt" in parts[0]:  # in whose last row is a user of whom nothing is known
            found["user_posterior_"] += (np.concatenate([rows("doubt"), posterior[4][-1:]]),)
    return attributes | found


def _joined_effects(parts, places, matrix):
    """The effects of several parts, their biases, and the columns that they are of, in the order of all pairs."""
    ends = np.cumsum([0, *(part["observed_"].nnz for part in parts)])
    numbers = [np.arange(*some) for some in zip(ends[:-1], ends[1:], strict=True)]
    numbered = matrix([_with_values(part["observed_"], own) for part, own in zip(parts, numbers, strict=True)]).data
    columns = parts[0]["observed_features_"]
    observed = {name: np.concatenate([part["observed_features_"][name] for part in parts])[numbered] for name in columns}
    effects, orders = join_effects([part["effects_"] for part in parts], places)
    biases = [_joined_biases(own, order) for *own, order in zip(*[part["effect_biases_"] for part in parts], orders, strict=True)]
    return {"observed_features_": observed, "effects_": effects, "effect_biases_": biases}


def _joined_biases(parts, order):
    """The biases of one effect with their variances, and the prior's, of the codes of all processes."""
    if order is None:
        return parts[0]
    biases, variances = (np.concatenate([part[at] for part in parts])[order] for at in range(2))
    return biases, variances, parts[0][2]


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


def _users_of(parts):
    """``labels.join`` of the users of parts, of which one may have none."""
    labels = [part["users_"] for part in parts]
    if not any(map(len, labels)):
        return labels[0], [np.empty(0, dtype=np.int64) for _ in labels]
    union, places = join([own for own in labels if len(own)], "user")
    found = iter(places)
    return union, [next(found) if len(own) else np.empty(0, dtype=np.int64) for own in labels]


def _with_values(pattern, values):
    """Other values at the entries of a CSR array."""
    return sp.csr_array((values, pattern.indices, pattern.indptr), shape=pattern.shape)


class Gathering(SavedEstimator):
    """An estimator whose fit several processes may share: put together, and saved by parts. Before the other bases."""

    # parameters
    distributed: bool

    def gather(self):
        """Combine the parts of a fit with ``distributed=True`` into one estimator that has the users of all processes.

        After such a fit a process has its own users only. All processes must call this method at the same time, and each needs
        enough memory for all users and observations.

        Returns
        -------
        estimator
            An estimator of this class with ``distributed=False``, as if one process had fitted it to all the data. Every process
            gets it. If this estimator is not distributed, a copy of it.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        ValueError
            If the processes are not exactly those of the fit.
        DistributedError
            If another process fails or is lost.

        Examples
        --------
        >>> from sk_torchmf import BiasedMatrixFactorization, datasets
        >>> X = datasets.make_ratings(n_users=50, n_items=20, n_ratings=500, random_state=0).interactions
        >>> whole = BiasedMatrixFactorization(n_factors=2, random_state=0).fit(X).gather()
        >>> whole.n_users_
        50
        """
        check_is_fitted(self)
        attributes = {name: value for name, value in vars(self).items() if is_fitted_attribute(name)}
        if self.distributed:
            with communicator(True) as processes:
                attributes = joined(attributes, processes)
        return copy.copy(self)._publish(attributes).set_params(distributed=False)

    @documented()
    def save(self, path, *, ratings=True):
        """Write the fitted estimator to a file or, with ``distributed=True``, to a folder, without pickle.

        The file is an ``.npz`` file, whose arrays ``numpy.load`` can read. It has a JSON part for the parameters and everything
        else that is not an array. With ``distributed=True`` all processes call this method with the same path, which all of them
        must be able to see. Each writes a file with its own users, and the first also writes the rest. Until all files are
        complete, the folder has no model, or still the earlier one.

        Parameters
        ----------
        @path
            With ``distributed=True`` it is the path of a folder, which is created.
        @ratings

        Returns
        -------
        @self

        Raises
        ------
        @NotFittedError
        TypeError
            If an id or a parameter is an object that a file without code cannot hold. Ids may be numbers, str, bytes, times, dates
            and UUIDs. Of parameters, a ``RandomState`` is saved with its state, a ``torch.device`` and a path as text, and
            ``scoring`` if it is a name or what ``ranking_scorer`` returns. Callbacks are left out.
        @OSError
            Also for a folder that has other files in it.
        DistributedError
            If another process fails or is lost.
        """
        if not self.distributed:
            return super().save(path, ratings=ratings)
        folder = PartsFolder(path, KIND)
        check_is_fitted(self)
        with communicator(True) as processes:
            values, beside = self._content(ratings)
            state = values.pop("state")
            if state.get("effects_") or isinstance(state["seen_"], StoredPattern):
                raise ValueError("After a fit with effects, time or Shards there is one file of all. Use gather().save(path).")
            own = part_of(state)
            content = {"own": folded(own | {"seen_": state["seen_"]})}
            if processes.rank == 0:
                content |= values | {"state": common_of(state)}
            tree, arrays = pack(content)
            about = {"hashes": _ends(stable_hash(own["users_"], "user"))}
            part = {"estimator": type(self).__name__, "values": tree} | beside, arrays, about
            folder.write(f"model-{secrets.token_hex(6)}", {}, part, processes)
        return self

    @classmethod
    @documented()
    def load(cls, path):
        """Read a fitted estimator that ``save`` wrote.

        Nothing in the file is run, imported or unpickled. A model that was fitted on CUDA can be loaded where there is none: the
        fitted state is made of NumPy arrays, and the parameter ``device`` is not used before the next ``fit``.

        A model that was fitted with ``distributed=True`` is in a folder. Without a group of ``torch.distributed`` the whole folder
        is read, and the result is what ``gather`` returns. With a group, all of its processes must call this method; their number
        may differ from that of the fit. Each gets a part of the users and everything else, and the estimator is distributed as
        before.

        Parameters
        ----------
        @path

        Returns
        -------
        @estimator

        Raises
        ------
        @ValueError
        @OSError
        DistributedError
            If another process fails or is lost.
        """
        if not os.path.isdir(check_path(path)):
            return super().load(path)
        folder, among = PartsFolder(path, KIND), has_group()
        with communicator(among) as processes:
            manifest = processes.broadcast(folder.manifest() if processes.rank == 0 else None)
            if manifest is None:
                raise IsADirectoryError(errno.EISDIR, "This is a folder that holds no whole model of several processes", path)
            found: Any = None
            parts = []
            for at, file in enumerate(manifest["files"]):
                if at and not _may_have(file["about"], processes):
                    continue
                meta, arrays = folder.read(file["name"])
                with naming_file(folder.at(file["name"])):
                    values = unpack(meta["values"], arrays)
                    own = unfolded(values.pop("own"))
                    found = (meta, values) if found is None else found
                    owner = shares(stable_hash(own["users_"], "user"), processes.size)
                    parts.append(some_of(own, np.flatnonzero(owner == processes.rank)))
            meta, values = found
            with naming_file(folder.path):
                values["state"] = together(values["state"], parts)
            return cls._made(folder.path, meta, values, {} if among else {"distributed": False})


def _ends(hashed):
    """The smallest and the largest of some numbers, an empty list of none."""
    return [int(hashed.min()), int(hashed.max())] if len(hashed) else []


def _may_have(about, processes):
    """Whether a file may have users of this process."""
    ends = shares(np.array(about.get("hashes", []), dtype=np.uint64), processes.size)
    return len(ends) > 0 and ends[0] <= processes.rank <= ends[-1]
