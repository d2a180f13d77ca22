"""The three input forms, read by one rule: whatever X is, an Interactions container comes out."""

import copy

import numpy as np
import scipy.sparse as sp
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_features, check_array, validate_data

from sk_torchmf._validation import check_finite, check_ratings, check_weights
from sk_torchmf.inputs import labels as _labels
from sk_torchmf.interactions import Interactions, as_interactions, is_interactions

SPARSE, TABLE, INTERACTIONS = "sparse", "table", "interactions"


def form_of(X):
    """Which of the three forms X has; anything that is neither sparse nor a container is taken for a table."""
    if sp.issparse(X):
        return SPARSE
    return INTERACTIONS if is_interactions(X) else TABLE


def is_structured(X):
    """Whether X is a matrix, container or frame, rather than an array or scalar."""
    return sp.issparse(X) or is_interactions(X) or _labels.is_frame(X)


def read(estimator, X, y, sample_weight):
    """Read the arguments of ``fit`` and record on the estimator what they taught: ids, form, features.

    Parameters
    ----------
    estimator : estimator with parameters ``user`` and ``item``
        Gets ``users_, items_, n_users_, n_items_, n_features_in_, form_`` and ``feature_names_in_`` where X has names.
    X : sparse matrix, table or container
    y : array-like of shape (n,) or None
        Ratings; must be None for a sparse matrix.
    sample_weight : array-like or None
        One weight a row of X.

    Returns
    -------
    Interactions
        Ids are row numbers of ``users_`` and ``items_``; ``ratings`` finite or, where there are none, None; ``weights`` checked or
        None.
    """
    form = form_of(X)
    if form == SPARSE:
        data = read_matrix(X, y, sample_weight)
        validate_data(estimator, X=X, skip_check_array=True)
        users, items = np.arange(data.num_users), np.arange(data.num_items)
    elif form == INTERACTIONS:
        data = _read_interactions(as_interactions(X), y, sample_weight)
        estimator.n_features_in_ = 2
        vars(estimator).pop("feature_names_in_", None)  # of an earlier fit on a frame
        users, items = np.arange(data.num_users), np.arange(data.num_items)
    else:
        X = check_table(estimator, X, reset=True)
        user, users = _labels.encode(_labels.column(X, estimator.user, "user"), "user")
        item, items = _labels.encode(_labels.column(X, estimator.item, "item"), "item")
        rating = None if y is None else check_ratings(y, len(user), "y")
        weights = None if sample_weight is None else check_weights(sample_weight, len(user), "sample_weight")
        data = Interactions(user, item, rating, weights=weights, num_users=len(users), num_items=len(items))
    if len(data) == 0:
        raise ValueError(f"X has no observations (shape={X.shape}), while a minimum of 1 is required.")
    estimator.form_, estimator.users_, estimator.items_ = form, users, items
    estimator.n_users_, estimator.n_items_ = data.num_users, data.num_items
    return data


def read_rated(estimator, X, y, sample_weight):
    """Read the arguments of a ``fit`` that needs ratings: see ``read``."""
    data = read(estimator, X, y, sample_weight)
    if data.ratings is not None:
        return data
    name = type(estimator).__name__
    if estimator.form_ == TABLE:
        raise ValueError(
            f"{name} requires y to be passed, but the target y is None: a table X holds the ids only, pass the ratings as y."
        )
    raise ValueError(f"{name} needs ratings: pass y, or Interactions with ratings.")


def read_weighted(estimator, X, y, sample_weight):
    """Read the arguments of a ``fit`` to which every observation is a positive: see ``read``.

    Parameters
    ----------
    estimator : estimator with parameters ``user`` and ``item``
    X : sparse matrix, table or container
        Which pairs were observed; a container's ``ratings`` and a matrix's values say nothing.
    y : array-like of shape (n,) or None
        Weights >= 0 of the observations; must be None for a sparse matrix.
    sample_weight : array-like or None
        One weight a row of X; of a container its own ``weights`` by default. It multiplies ``y``.

    Returns
    -------
    Interactions
        All observations; ``ratings`` is None, ``weights`` the product, with one greater than zero, or None.
    """
    if form_of(X) == INTERACTIONS:
        X = copy.copy(as_interactions(X))
        X.ratings = None
    data = read(estimator, X, y, sample_weight)
    if y is not None:
        weights = _as_weights(data.ratings)
        data.weights = weights if data.weights is None else weights * data.weights
        if not data.weights.any():
            what = "y is zero" if not weights.any() else "y times the weight is zero"
            raise ValueError(f"{what} for every observation. At least one must be greater than zero.")
    data.ratings = None
    return data


def read_positives(estimator, X, y, sample_weight):
    """Read as ``read_weighted`` does, without the observations of weight zero; their ids keep their rows."""
    data = read_weighted(estimator, X, y, sample_weight)
    return data if data.weights is None else data[data.weights > 0]


def select_positives(X, y, sample_weight):
    """The rows of a table or container whose y and weight, where given, are not zero."""
    if is_interactions(X):
        X = as_interactions(X)
        sample_weight = X.weights if sample_weight is None else sample_weight
    n = len(X) if is_interactions(X) else np.shape(X)[0]
    kept = np.ones(n, dtype=bool)
    if y is not None:
        kept &= _as_weights(check_ratings(y, n, "y")) > 0
    if sample_weight is not None:
        kept &= check_weights(sample_weight, n, "sample_weight") > 0
    return X if kept.all() else _safe_indexing(X, np.flatnonzero(kept))


def _as_weights(y):
    if len(y) and y.min() < 0:
        at = int(np.argmin(y))
        raise ValueError(f"y must be >= 0, since it weighs positives. Got y[{at}] = {y[at]}.")
    return y.astype(np.float64)


def read_target(X, y):
    """The ratings that ``score`` compares with, as an array: y, by default a container's own."""
    if y is None and is_interactions(X):
        y = X.ratings
    if y is None:
        raise ValueError("score needs y, the ratings of X.")
    return np.asarray(y)


def read_matrix(X, y=None, sample_weight=None):
    """Read a sparse rating matrix as a container: every stored entry is a rating, weighted by its user."""
    if y is not None:
        raise ValueError("y must be None when X is a sparse rating matrix: its stored entries are the ratings.")
    if X.ndim != 2:
        raise ValueError(f"X must have two dimensions, users x items. Got a sparse array of shape {X.shape}.")
    if X.dtype.kind not in "fiub":
        raise ValueError(f"X must hold real numbers. Got dtype {X.dtype}; complex data not supported.")
    data = Interactions.from_matrix(X)
    check_finite(data.ratings, "X.data")
    if sample_weight is not None:
        hint = " For a weight for each rating pass Interactions with weights: Interactions.weights."
        weights = check_weights(sample_weight, data.num_users, "sample_weight", "user (row of X)", hint)
        data.weights = weights[data.user_ids]
        if len(data) and not data.weights.any():
            raise ValueError("sample_weight is zero for every user who has ratings. At least one must be greater than zero.")
    return data


def _read_interactions(data, y, sample_weight):
    rating = data.ratings if y is None else y
    rating = None if rating is None else check_ratings(rating, len(data), "ratings" if y is None else "y")
    weights = data.weights if sample_weight is None else sample_weight
    if weights is not None:
        weights = check_weights(weights, len(data), "weights" if sample_weight is None else "sample_weight")
    return Interactions(data.user_ids, data.item_ids, rating, data.timestamps, weights, data.num_users, data.num_items)


def read_ids(estimator, X):
    """Row numbers of the users and items of a table or container, -1 where unknown."""
    if form_of(X) == INTERACTIONS:
        data = as_interactions(X)
        check_positions(estimator)
        user, item = data.user_ids, data.item_ids
    else:
        X = check_table(estimator, X, reset=False)
        user, item = _labels.column(X, estimator.user, "user"), _labels.column(X, estimator.item, "item")
    return _labels.lookup(user, estimator.users_, "user"), _labels.lookup(item, estimator.items_, "item")


def check_positions(estimator):
    """Refuse a model whose ids are labels, where a container's positions would be taken for them."""
    for labels, role in ((estimator.users_, "user"), (estimator.items_, "item")):
        if not _labels.is_range(labels):
            raise ValueError(
                f"Interactions hold positions, but this model was fitted on a table whose {role} ids are labels. "
                "Fit it on Interactions, or pass a table with the same columns."
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
        user = _labels.lookup(np.asarray(user_ids), estimator.users_, "user")
        item = _labels.lookup(np.asarray(item_ids), estimator.items_, "item")
        return np.broadcast_arrays(user, item)
    if not is_structured(user_ids):
        user_ids = np.asarray(user_ids)
        if user_ids.ndim == 0:
            user = _labels.lookup(user_ids[None], estimator.users_, "user")
            _check_position(estimator, user_ids, user[0])
            return user, None
        if user_ids.ndim == 1:
            raise ValueError(
                "predict got a one-dimensional array. For pairs use predict(users, items), for the best items of each user "
                "recommend(users). Reshape your data to two dimensions if it is a table of one (user, item) row."
            )
    return read_ids(estimator, user_ids)


def _check_position(estimator, user, code):
    """Refuse an unknown whole number after a fit on labels: it is a position, where Spotlight's evaluation asks."""
    unknown = code < 0 and user.dtype.kind in "iu" and not _labels.is_range(estimator.users_)
    if unknown and estimator.handle_unknown != "nan":
        raise ValueError(
            f"predict({user}) asks for a user that fit did not see. This model was fitted on labels, so a user is named by its "
            "label, not by its position. Fit on Interactions or a sparse matrix for positions."
        )


def read_users(estimator, users):
    """Row numbers (n,) of the users that ``recommend`` was asked for, all for None, a container's own, -1 where unknown."""
    if users is None:
        return np.arange(estimator.n_users_)
    if is_interactions(users):
        check_positions(estimator)
        users = np.unique(users.user_ids)
    code = _labels.lookup(np.atleast_1d(np.asarray(users)), estimator.users_, "user")
    if estimator.handle_unknown == "error" and (code < 0).any():
        at = int(np.argmax(code < 0))
        cure = ", or pass its ratings as sparse" if hasattr(estimator, "fold_in") else ', or use handle_unknown="mean"'
        raise ValueError(f"The user id of row {at} was not seen in fit. Drop it{cure}.")
    return code


def read_candidates(estimator, items):
    """Row numbers of the items that ``recommend`` may choose, sorted and distinct; all for None."""
    if items is None:
        return np.arange(estimator.n_items_)
    code = _labels.lookup(np.atleast_1d(np.asarray(items)), estimator.items_, "item")
    if (code < 0).any():
        at = int(np.argmax(code < 0))
        raise ValueError(f"items[{at}] was not seen in fit. Candidates must be known items.")
    return np.unique(code)


def check_table(estimator, X, reset):
    """A table as an array or frame; with ``reset`` its columns are recorded, else they must be those that fit saw."""
    if not _labels.is_frame(X):
        X = check_array(X, dtype=None, ensure_all_finite=False, input_name="X")
    elif 0 in X.shape:
        raise ValueError(f"Found a frame of shape {X.shape}; a minimum of 1 sample(s) and 2 feature(s) is required.")
    n_columns = _num_features(X)
    if reset and n_columns < 2:
        raise ValueError(
            "X has 1 column (n_features=1); a table of interactions needs a user and an item column. For a users x items matrix "
            "pass a scipy sparse array."
        )
    if reset or estimator.form_ == TABLE:
        validate_data(estimator, X=X, reset=reset, skip_check_array=True)
    return X
