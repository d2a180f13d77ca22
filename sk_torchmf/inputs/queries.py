"""What predict, recommend, score and partial_fit of a fitted estimator were asked for, as row numbers. Writes nothing on it."""

import numpy as np
import scipy.sparse as sp
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import validate_data

from sk_torchmf._validation import as_array, check_ratings, check_weights
from sk_torchmf.inputs.forms import INTERACTIONS, LABELLED, SPARSE, TABLE, as_weights, check_table, form_of, read_matrix
from sk_torchmf.inputs.id_types import as_ids
from sk_torchmf.inputs.labels import column, is_frame, is_range, lookup
from sk_torchmf.inputs.shards import Shards
from sk_torchmf.interactions import as_interactions, is_interactions


def is_structured(X):
    """Whether X is a matrix, container, frame or data set, rather than an array or scalar."""
    return sp.issparse(X) or is_interactions(X) or is_frame(X) or isinstance(X, Shards)


def is_scalar(ids):
    """Whether one id was asked for, not an array of them or a matrix: the results then lose their first axis."""
    return ids is not None and not sp.issparse(ids) and not is_interactions(ids) and np.ndim(ids) == 0


def check_columns(estimator, X):
    """A table as an array or frame; after a fit on a table its columns must be those that fit saw."""
    X = check_table(X)
    if estimator.form_ == TABLE:
        validate_data(estimator, X=X, reset=False, skip_check_array=True)
    return X


def read_ids(estimator, X):
    """Row numbers of the users and items of a table or container, -1 where unknown."""
    if form_of(X) == INTERACTIONS:
        data = as_interactions(X)
        check_positions(estimator)
        user, item = data.user_ids, data.item_ids
    else:
        X = check_columns(estimator, X)
        user, item = column(X, estimator.user, "user"), column(X, estimator.item, "item")
    return lookup(user, estimator.users_, "user"), lookup(item, estimator.items_, "item")


def check_positions(estimator):
    """Refuse a model whose ids are labels, where a container's positions would be taken for them."""
    for labels, role in ((estimator.users_, "user"), (estimator.items_, "item")):
        if not is_range(labels):
            raise ValueError(
                f"Interactions hold positions, but this model was fitted on a table whose {role} ids are labels. Pass a table "
                "with the same columns, or fit the model on Interactions."
            )


def read_query(estimator, user_ids, item_ids):
    """Read the arguments of ``predict``, a sparse matrix excepted.

    Returns
    -------
    user, item : ndarray of int64
        Row numbers of the pairs to predict, -1 where unknown, of one shape. A scalar user alone is ``user`` of shape (1,) and
        ``item`` None: all items.
    """
    if item_ids is not None:
        user = lookup(np.asarray(as_ids(user_ids, "user")), estimator.users_, "user")
        item = lookup(np.asarray(as_ids(item_ids, "item")), estimator.items_, "item")
        try:
            return np.broadcast_arrays(user, item)
        except ValueError:
            raise ValueError(
                f"user_ids and item_ids must have equal lengths, or shapes that broadcast. Got shapes {user.shape} and "
                f"{item.shape}."
            ) from None
    if not is_structured(user_ids):
        user_ids = np.asarray(as_ids(user_ids, "user"))
        if user_ids.ndim == 0:
            user = lookup(user_ids[None], estimator.users_, "user")
            _check_position(estimator, user_ids, user[0])
            return user, None
        if user_ids.ndim == 1:
            raise ValueError(
                "predict got a one-dimensional array. For pairs use predict(users, items). For the best items of each user "
                "use recommend(users). Reshape your data to two dimensions if it is a table of one (user, item) row."
            )
    return read_ids(estimator, user_ids)


def _check_position(estimator, user, code):
    """Refuse an unknown whole number after a fit on labels: it is a position, where Spotlight's evaluation asks."""
    unknown = code < 0 and user.dtype.kind in "iu" and not is_range(estimator.users_)
    if unknown and estimator.handle_unknown != "nan":
        raise ValueError(
            f"predict({user}) asks for a user that fit did not see. This model was fitted on a table, so users are named by "
            "their labels, not by their positions. To use positions, fit on Interactions or a sparse matrix."
        )


def check_known(unknown, what):
    """Refuse rows (n,) that are marked as unknown, naming the first."""
    if unknown.any():
        raise ValueError(f'The {what} of row {int(np.argmax(unknown))} was not seen in fit. Drop it, or use handle_unknown="mean".')


def read_labels(ids, labels, role, name):
    """Row numbers (n,) of one id or a list of them, -1 where unknown; ``name`` is the argument's, for messages."""
    ids = as_ids(ids, role)
    if np.ndim(ids) > 1:
        raise ValueError(f"{name} must be one id or a one-dimensional array of ids. Got shape {np.shape(ids)}.")
    return lookup(ids if np.ndim(ids) else np.atleast_1d(ids), labels, role)


def read_users(estimator, users, advice):
    """Row numbers (n,) of the users that ``recommend`` was asked for, all for None, a container's own, -1 where unknown.

    Where ``handle_unknown`` is "error" an unknown one is refused, with advice.
    """
    if users is None:
        return np.arange(estimator.n_users_)
    if is_interactions(users):
        check_positions(estimator)
        users = np.unique(users.user_ids)
    code = read_labels(users, estimator.users_, "user", "users")
    if estimator.handle_unknown == "error" and (code < 0).any():
        raise ValueError(f"The user id of row {int(np.argmax(code < 0))} was not seen in fit. Drop it, or {advice}.")
    return code


def read_candidates(estimator, items):
    """Row numbers of the items that ``recommend`` may choose, sorted and distinct; all for None."""
    if items is None:
        return np.arange(estimator.n_items_)
    code = read_labels(items, estimator.items_, "item", "items")
    if (code < 0).any():
        at = int(np.argmax(code < 0))
        raise ValueError(f"items[{at}] was not seen in fit. Pass only items that are in items_.")
    return np.unique(code)


def read_new_users(estimator, X, y=None, sample_weight=None):
    """What is known of new users, a container; each row of the sparse matrix X is one, and it has a column for each item."""
    if not sp.issparse(X):
        raise TypeError(f"New users' ratings must be a scipy sparse matrix. Got {type(X).__name__}.")
    if X.ndim != 2 or X.shape[1] != estimator.n_items_:
        raise ValueError(
            f"X has {X.shape[-1]} features, but {type(estimator).__name__} is expecting {estimator.n_items_} features as input: "
            "one column for each of items_."
        )
    return read_matrix(X, y, sample_weight)


def read_target(X, y):
    """The ratings that ``score`` compares with, as an array: y, by default a container's own."""
    if y is None and is_interactions(X):
        y = as_interactions(X).ratings
    if y is None:
        raise ValueError("score needs the ratings of X. Pass them as y.")
    return as_array(y, "y")


def select_positives(X, y, sample_weight):
    """The rows of a table or container whose y and weight, where given, are not zero."""
    if is_interactions(X):
        X = as_interactions(X)
        sample_weight = X.weights if sample_weight is None else sample_weight
    n = len(X) if is_interactions(X) else np.shape(X)[0]
    kept = np.ones(n, dtype=bool)
    if y is not None:
        kept &= as_weights(check_ratings(y, n, "y")) > 0
    if sample_weight is not None:
        kept &= check_weights(sample_weight, n, "sample_weight") > 0
    return X if kept.all() else _safe_indexing(X, np.flatnonzero(kept))


def check_goes_on(estimator, X):
    """Refuse what ``partial_fit`` of a fitted estimator cannot join to what it knows."""
    form = form_of(X)
    if (form == TABLE) != (estimator.form_ in LABELLED):
        raise ValueError(
            f'partial_fit needs ids of the kind that fit saw, which was "{estimator.form_}". Got "{form}". After a table pass '
            "a table. After Interactions or a sparse matrix pass either of these two."
        )
    if form == TABLE:
        check_columns(estimator, X)
    elif form == SPARSE and X.ndim == 2 and X.shape[1] < estimator.n_items_:
        raise ValueError(
            f"X has {X.shape[1]} features, but {type(estimator).__name__} is expecting at least {estimator.n_items_} features as "
            "input: one column for each of items_, then those of new items."
        )
