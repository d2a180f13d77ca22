"""Fits that several processes share: what they refuse, what they must have in common, and how their parts become one estimator."""

import copy

import numpy as np
import scipy.sparse as sp
from sklearn.utils.validation import check_is_fitted

from sk_torchmf.distributed import communicator
from sk_torchmf.estimators._fitting import seen_in
from sk_torchmf.estimators._saving import SavedEstimator, is_fitted_attribute
from sk_torchmf.inputs.labels import join

MAY_DIFFER = ("device", "random_state", "verbose", "scoring", "user_encoder", "item_encoder")  # or say nothing here
ROWS = ("user_factors_", "user_biases_", "user_counts_")  # what has a row for each user
NEEDS = {  # the value of a parameter in a fit that is shared, and why
    "solver": ("variational", "the others do not yet sum over processes"),
    "early_stopping": (False, "what is held out would have to be scored by all processes"),
    "checkpoint": (None, "a file would hold the rows of one process alone"),
    "warm_start": (False, "earlier rows of a user may lie in another process"),
    "effects": (None, "values are not yet numbered over all processes"),
    "time": (None, "sessions are not yet numbered over all processes"),
    "cold_average": (None, "it needs the scores of all pairs at once"),
    "seen_features": (None, "those who have seen an item lie in several processes"),
}


class Gathering(SavedEstimator):
    """Base of the estimators that have the parameter ``distributed``, before the others."""

    distributed: bool

    def _check_shared(self, processes, **given):
        check_shareable(self, processes, **given)

    def gather(self):
        """Put the parts of a fit with ``distributed`` together: an estimator with the users of all processes.

        After such a fit a process knows its own users only. All processes call this at once, and each must have the memory for all
        users and ratings.

        Returns
        -------
        estimator
            Of this class, with ``distributed=False``: what one process would have fitted to all the data, on every process. Of an
            estimator that is not distributed, a copy.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            Where these are not all processes of the fit, or not its processes alone.
        DistributedError
            Where another process fails or is lost.

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
        got = params.get(name, value)  # not every estimator has all of them
        if got != value if isinstance(got, str) else not (got is None or _is_false(got)):
            raise ValueError(
                f"distributed=True needs {name}={_shown(value)}: {reason}. Got {_shown(got)}. Use that, or distributed=False."
            )
    if params["loss"] == "ordinal" and params["cut_points"] == "user":
        raise ValueError(
            'distributed=True needs cut_points="common" with loss="ordinal": own ones are not yet gathered. Got "user". Use that, '
            "or distributed=False."
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
    return f'"{value}"' if isinstance(value, str) else repr(value)


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
    pattern = "observed_" if "observed_" in attributes else "seen_"  # where all that is observed of a pair is that it was
    own = {name: attributes[name] for name in (*ROWS, "users_", pattern, "pair_weights_") if name in attributes}
    posterior = attributes.get("user_posterior_")
    told = processes.all_gather(own | {"count": None if posterior is None else posterior[3]})
    users, places = _join([part["users_"] for part in told])
    _check_complete(len(users), [part["user_counts_"] for part in told], attributes["item_counts_"])
    order = np.argsort(np.concatenate(places), kind="stable")  # of the rows, one process's after another's

    def rows(name):
        return np.concatenate([part[name] for part in told])[order]

    def pairs(matrices):
        return sp.csr_array(sp.vstack(matrices, format="csr"))[order]

    observed = pairs([part[pattern] for part in told])
    found = {name: rows(name) for name in ROWS if name in own}
    found |= {"users_": users, "n_users_": len(users), "seen_": seen_in(observed)} | {pattern: observed}
    if own["pair_weights_"] is not None:
        found["pair_weights_"] = pairs([_with_values(part[pattern], part["pair_weights_"]) for part in told]).data
    if posterior is not None:
        found["user_posterior_"] = (*posterior[:3], rows("count"))
    return attributes | found


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
