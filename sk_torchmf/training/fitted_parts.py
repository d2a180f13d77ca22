"""Fitted attributes as parts, each of some of the users: what is of one user, what is common to all, and the whole of them."""

from typing import Any

import numpy as np
import scipy.sparse as sp

from sk_torchmf.inputs.effects import join_effects, some_effects
from sk_torchmf.inputs.labels import join
from sk_torchmf.inputs.stored_pattern import StoredPattern

ROWS = ("user_factors_", "user_biases_", "user_counts_", "user_described_", "user_features_", "user_cut_points_")  # of each user
OF_OTHERS = ("pair_weights_", "observed_features_", "effects_", "effect_biases_")  # likewise, but not by row
OTHERS = ("users_", *OF_OTHERS)


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
    of_rows |= {"count": None} if posterior is None else dict(zip(("count", "mean_variance"), posterior[3:], strict=False))
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
    """A part of some of its users, by their row numbers, in order."""
    found = {name: values[rows] for name, values in part.items() if values is not None and name not in OF_OTHERS}
    pattern = part[_pattern_of(part)]
    if isinstance(pattern, StoredPattern):
        return dict.fromkeys(part) | found | {"seen_": pattern.with_rows(pattern.number[rows])}
    numbers = _with_values(pattern, np.arange(pattern.nnz))[rows].data  # of the observations
    if part.get("pair_weights_") is not None:
        found["pair_weights_"] = part["pair_weights_"][numbers]
    if "observed_features_" in part:
        found["observed_features_"] = {name: values[numbers] for name, values in part["observed_features_"].items()}
    if "effects_" in part:
        found["effects_"], left = some_effects(part["effects_"], rows, pattern.shape[0])
        found["effect_biases_"] = [
            own if codes is None else (own[0][codes], own[1][codes], own[2])
            for own, codes in zip(part["effect_biases_"], left, strict=True)
        ]
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
        if "mean_variance" in parts[0]:  # in whose last row is a user of whom nothing is known
            found["user_posterior_"] += (np.concatenate([rows("mean_variance"), posterior[4][-1:]]),)
    return attributes | found


def _joined_effects(parts, places, matrix):
    """The effects of several parts, their biases and, where these are kept, the columns of all pairs, in their order."""
    effects, orders = join_effects([part["effects_"] for part in parts], places)
    biases = [_joined_biases(own, order) for *own, order in zip(*[part["effect_biases_"] for part in parts], orders, strict=True)]
    found = {"effects_": effects, "effect_biases_": biases}
    if "observed_features_" not in parts[0]:
        return found
    ends = np.cumsum([0, *(part["observed_"].nnz for part in parts)])
    numbers = [np.arange(*some) for some in zip(ends[:-1], ends[1:], strict=True)]
    numbered = matrix([_with_values(part["observed_"], own) for part, own in zip(parts, numbers, strict=True)]).data
    columns = parts[0]["observed_features_"]
    observed = {name: np.concatenate([part["observed_features_"][name] for part in parts])[numbered] for name in columns}
    return found | {"observed_features_": observed}


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
            f"gather needs all parts of one fit, each on its own rank. The {n_users} users on these {len(user_counts)} ranks have "
            f"{found:.6g} observations, but the fit had {expected:.6g}. Call gather on as many ranks as fit, each with its own "
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


def seen_in(observed):
    """The pairs of a CSR array ``observed_``, each once, as one of bools: on the same arrays where none is there twice."""
    seen = sp.csr_array((np.ones(observed.nnz, dtype=bool), observed.indices, observed.indptr), shape=observed.shape)
    if seen.has_canonical_format:
        seen.indices, seen.indptr = observed.indices, observed.indptr  # the same arrays, in a pickle too
    else:
        seen = seen.copy()
        seen.sum_duplicates()
    return seen
