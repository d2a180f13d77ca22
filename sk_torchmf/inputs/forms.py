"""The input forms of ``fit`` that are in memory, read by one rule: whatever X is, a Reading comes out. Touches no estimator."""

import copy
import os
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.utils.validation import _get_feature_names, _num_features

from sk_torchmf._validation import (
    as_array,
    as_matrix,
    check_finite,
    check_n_positions,
    check_ratings,
    check_size,
    check_weights,
    raise_tiny,
)
from sk_torchmf.distributed import ALONE, Communicator
from sk_torchmf.inputs.id_types import as_table
from sk_torchmf.inputs.labels import column, encode, is_frame, merge
from sk_torchmf.inputs.shards import Shards, UserBlock
from sk_torchmf.inputs.suspicions import warn_of_a_matrix, warn_of_an_index
from sk_torchmf.interactions import Interactions, as_interactions, is_interactions

SPARSE, TABLE, INTERACTIONS, SHARDS = "sparse", "table", "interactions", "shards"
LABELLED = TABLE, SHARDS  # whose ids are labels


@dataclass(frozen=True)
class Reading:
    """What ``fit`` was given, in one form.

    Attributes
    ----------
    data : Interactions or, of Shards, StoredRatings
        The observations; ids are row numbers of ``users`` and ``items``. ``ratings`` are finite, or None where there are none;
        ``weights`` are checked, or None.
    users, items : ndarray of shape (n_users,) and (n_items,)
        The caller's ids, sorted.
    form : {"sparse", "table", "interactions", "shards"}
    n_features : int
        Columns of X, as scikit-learn counts them: 2 for a container.
    names : ndarray of str objects or None
        The columns of a frame.
    features : dict of str to ndarray of shape (n,)
        Further columns of the observations, for estimators that read them: numbers, or of a category its number; or their context,
        see ``context.read``.
    categories : dict of str to ndarray
        The sorted vocabulary of each that is categorical.
    described : dict of str to Described
        Attributes of users and of items, under ``"user"`` and ``"item"`` where there are such.
    processes : Communicator
        Those that have the other users of the data, and all its items; this one alone where it has them all.
    """

    data: Any
    users: np.ndarray
    items: np.ndarray
    form: str
    n_features: int
    names: np.ndarray | None = None
    features: dict = field(default_factory=dict)
    categories: dict = field(default_factory=dict)
    described: dict = field(default_factory=dict)
    processes: Communicator = ALONE

    @property
    def shape(self):
        """Numbers of users and items."""
        return len(self.users), len(self.items)

    def attributes(self):
        """The fitted attributes that follow from it alone."""
        found = {"users_": self.users, "items_": self.items, "n_users_": len(self.users), "n_items_": len(self.items)}
        found |= {"form_": self.form, "n_features_in_": self.n_features}
        for role, own in self.described.items():
            encoded, groups = own.encoded, {name: (part.start, part.stop) for name, part in own.encoded.groups.items()}
            found |= {f"{role}_encoder_": own.encoder, f"{role}_features_": encoded.matrix, f"{role}_described_": encoded.described}
            found |= {f"{role}_feature_names_": encoded.names, f"{role}_feature_groups_": groups}
        return found if self.names is None else found | {"feature_names_in_": self.names}

    def observed(self):
        """The reading without the observations of weight zero, whose ids stay; and which are left, None for all."""
        if self.data.weights is None:
            return self, None
        kept = np.flatnonzero(self.data.weights > 0)
        return self[kept], kept

    def __getitem__(self, rows):
        """Some of the observations; the ids are those of the whole."""
        return replace(self, data=self.data[rows], features={name: values[rows] for name, values in self.features.items()})

    def with_ids(self, role, ids):
        """The reading of more users or items, of which nothing was observed; and where their ids have come to lie."""
        labels = self.users if role == "user" else self.items
        union, place, place_of_more = merge(labels, ids, role)
        data = copy.copy(self.data)
        if role == "user":
            data.user_ids, data.num_users = place[data.user_ids], len(union)
        else:
            data.item_ids, data.num_items = place[data.item_ids], len(union)
        described = self.described
        if role in described:
            described = described | {role: described[role].merged(place, len(union))}
        return replace(self, data=data, described=described, **{f"{role}s": union}), place_of_more

    def and_more(self, more):
        """These observations and more, of which ids may be new.

        Parameters
        ----------
        more : Reading

        Returns
        -------
        reading : Reading
            Of all: first these, then more.
        codes : tuple of ndarray of shape (n_users,) and (n_items,), int64
            For each user, and for each item, the row number it has here; -1 for a new one.
        """
        users, user_place, user_place_of_more = merge(self.users, more.users, "user")
        items, item_place, item_place_of_more = merge(self.items, more.items, "item")
        parts = self.data, more.data
        weights = None
        if any(part.weights is not None for part in parts):
            weights = np.concatenate([np.ones(len(part)) if part.weights is None else part.weights for part in parts])
        ratings = None if self.data.ratings is None else np.concatenate([part.ratings for part in parts])
        user = np.concatenate([user_place[self.data.user_ids], user_place_of_more[more.data.user_ids]])
        item = np.concatenate([item_place[self.data.item_ids], item_place_of_more[more.data.item_ids]])
        data = Interactions(user, item, ratings, weights=weights, num_users=len(users), num_items=len(items))
        n_features = len(items) if self.form == SPARSE else self.n_features
        codes = _inverse(user_place, len(users)), _inverse(item_place, len(items))
        features = {name: _joined(values, more.features[name]) for name, values in self.features.items()}
        places = {"user": (user_place, user_place_of_more, len(users)), "item": (item_place, item_place_of_more, len(items))}
        described = {}
        for role, own in self.described.items():
            place, place_of_more, n = places[role]
            described[role] = own.merged(place, n, more.described.get(role), place_of_more)
        changed = {"data": data, "users": users, "items": items, "n_features": n_features}
        return replace(self, **changed, features=features, described=described), codes


def _joined(values, more):
    """Two parts of a column as one, in which what was different stays so."""
    if values.dtype.kind != more.dtype.kind:
        values, more = values.astype(object), more.astype(object)
    return np.concatenate([values, more])


def _inverse(place, n):
    """The inverse of an injection into n places, -1 where nothing has come to lie."""
    code = np.full(n, -1)
    code[place] = np.arange(len(place))
    return code


def form_of(X):
    """Which of the forms in memory X has; anything that is neither sparse nor a container is taken for a table."""
    if type(X).__name__ == "LazyFrame":  # of polars; the very question for its columns makes it warn
        raise TypeError("X must hold its rows, and a LazyFrame has none yet. Pass X.collect().")
    if isinstance(X, Shards):
        raise TypeError(
            "X is a data set on disk, Shards, which nothing but fit takes. "
            "Pass a table, Interactions or a sparse matrix; sk_torchmf.parquet predicts and recommends for what is on disk."
        )
    if isinstance(X, UserBlock) or (isinstance(X, list) and X and isinstance(X[0], UserBlock)):
        raise TypeError(
            "X is a part of a data set on disk, and only the whole is fitted: a search or cross-validation cannot split Shards. "
            "Make Shards of each part, or pass a table, Interactions or a sparse matrix."
        )
    if isinstance(X, str | os.PathLike) or type(X).__module__.startswith(("pyarrow.dataset", "pyarrow._dataset")):
        raise TypeError(
            f"X must be data, and it is {_named(X)}. Read it into a table or, where it does not fit in memory, make a data set on "
            "disk of it: fit(Shards.from_parquet(source, folder, user=..., item=..., rating=...)); Shards(folder) opens it again."
        )
    if sp.issparse(X):
        return SPARSE
    return INTERACTIONS if is_interactions(X) else TABLE


def _named(X):
    return "a pyarrow Dataset" if not isinstance(X, str | os.PathLike) else f"a path, {str(X)!r}"


def read(X, y, sample_weight, user, item, *, is_part=False):
    """Read the arguments of ``fit``.

    Parameters
    ----------
    X : sparse matrix, table or container
    y : array-like of shape (n,) or None
        Ratings; must be None for a sparse matrix.
    sample_weight : array-like or None
        One weight a row of X.
    user, item : int or str
        The columns of a table that hold the ids.
    is_part : bool
        Whether X is one process's part of the data, which may be empty.

    Returns
    -------
    Reading
    """
    form, names = form_of(X), None
    if form == TABLE:
        X = check_table(X, is_part)
        n_features, names = _num_features(X), _get_feature_names(X)
        if n_features < 2:
            raise ValueError(
                "X has 1 column (n_features=1); a table of interactions needs a user and an item column. For a users x items "
                "matrix pass a scipy sparse array."
            )
        warn_of_an_index(X, user, item)
        user_codes, users = encode(column(X, user, "user"), "user")
        item_codes, items = encode(column(X, item, "item"), "item")
        rating = None if y is None else check_ratings(y, len(user_codes), "y")
        weights = None if sample_weight is None else check_weights(sample_weight, len(user_codes), "sample_weight")
        data = Interactions(user_codes, item_codes, rating, weights=weights, num_users=len(users), num_items=len(items))
    else:
        data = read_matrix(X, y, sample_weight) if form == SPARSE else _read_container(as_interactions(X), y, sample_weight)
        users, items = np.arange(data.num_users), np.arange(data.num_items)
        n_features = len(items) if form == SPARSE else 2
    if len(data) == 0 and not is_part:
        raise ValueError(f"X has no observations (shape={X.shape}), while a minimum of 1 is required.")
    return Reading(data, users, items, form, n_features, names)


def read_rated(X, y, sample_weight, user, item, name, *, is_part=False):
    """Read the arguments of a ``fit`` that needs ratings, see ``read``; ``name`` is the estimator's, for messages."""
    reading = read(X, y, sample_weight, user, item, is_part=is_part)
    if reading.data.ratings is not None:
        if reading.form == SPARSE:  # of all others they were checked as they were read
            check_size(reading.data.ratings, "the ratings")
        return reading
    if reading.form == TABLE:
        raise ValueError(
            f"{name} requires y to be passed, but the target y is None: a table X holds the ids only, pass the ratings as y."
        )
    raise ValueError(f"{name} needs ratings: pass y, or Interactions with ratings.")


def read_weighted(X, y, sample_weight, user, item, *, is_part=False):
    """Read the arguments of a ``fit`` to which every observation is a positive.

    Parameters
    ----------
    X : sparse matrix, table or container
        Which pairs were observed; a container's ``ratings`` and a matrix's values say nothing.
    y : array-like of shape (n,) or None
        Weights >= 0 of the observations; must be None for a sparse matrix.
    sample_weight : array-like or None
        One weight a row of X; of a container its own ``weights`` by default. It multiplies ``y``.
    user, item : int or str
        The columns of a table that hold the ids.
    is_part : bool
        As in ``read``.

    Returns
    -------
    Reading
        All observations; ``ratings`` is None, ``weights`` the product, with one greater than zero, or None.
    """
    form = form_of(X)
    if form == INTERACTIONS:
        X = copy.copy(as_interactions(X))
        X.ratings = None
    elif form == TABLE:
        X = check_table(X, is_part)
        warn_of_a_matrix(X, user, item)
    reading = read(X, y, sample_weight, user, item, is_part=is_part)
    data = reading.data
    if y is not None:
        weights = as_weights(data.ratings)
        data.weights = raise_tiny(weights if data.weights is None else weights * data.weights)
        if len(data) and not data.weights.any() and not is_part:
            what = "y is zero" if not weights.any() else "y times the weight is zero"
            raise ValueError(f"{what} for every observation. At least one must be greater than zero.")
    data.ratings = None
    return reading


def as_weights(y):
    """The values of ``y`` as weights of positives, float64; negative ones are refused."""
    if len(y) and y.min() < 0:
        at = int(np.argmin(y))
        raise ValueError(f"y must be >= 0, since it weighs positives. Got y[{at}] = {y[at]}.")
    return y.astype(np.float64)


def read_matrix(X, y=None, sample_weight=None):
    """Read a sparse rating matrix as a container: every stored entry is a rating, weighted by its user."""
    if y is not None:
        raise ValueError("y must be None when X is a sparse rating matrix: its stored entries are the ratings.")
    if X.ndim != 2:
        raise ValueError(f"X must have two dimensions, users x items. Got a sparse array of shape {X.shape}.")
    if X.dtype.kind not in "fiub":
        raise ValueError(f"X must hold real numbers. Got dtype {X.dtype}; complex data not supported.")
    _check_sizes(*X.shape)
    data = Interactions.from_matrix(X.astype(np.float64) if X.dtype.itemsize > 8 else X)  # torch has no type so long
    check_finite(data.ratings, "X.data")
    if sample_weight is not None:
        hint = " For a weight for each rating pass Interactions with weights: Interactions.weights."
        weights = check_weights(sample_weight, data.num_users, "sample_weight", "user (row of X)", hint)
        data.weights = weights[data.user_ids]
        if len(data) and not data.weights.any():
            raise ValueError("sample_weight is zero for every user who has ratings. At least one must be greater than zero.")
    return data


def _check_sizes(n_users, n_items):
    check_n_positions(n_users, "user")
    check_n_positions(n_items, "item")


def _read_container(data, y, sample_weight):
    _check_sizes(data.num_users, data.num_items)
    rating = data.ratings if y is None else y
    rating = None if rating is None else check_ratings(rating, len(data), "ratings" if y is None else "y")
    weights = data.weights if sample_weight is None else sample_weight
    if weights is not None:
        weights = check_weights(weights, len(data), "weights" if sample_weight is None else "sample_weight")
    return Interactions(data.user_ids, data.item_ids, rating, data.timestamps, weights, data.num_users, data.num_items)


def check_table(X, may_be_empty=False):
    """A table as an array or frame with at least one row, but where it may be empty, and one column."""
    if not is_frame(X):
        X = as_table(X)
        X = as_array(X, "X") if isinstance(X, list | tuple) else X
        return as_matrix(X, least=0 if may_be_empty else 1, input_name="X")
    if 0 in (X.shape[1:] if may_be_empty else X.shape):
        raise ValueError(f"Found a frame of shape {X.shape}; a minimum of 1 sample(s) and 2 feature(s) is required.")
    names = list(X.columns)
    if len(set(names)) < len(names):
        twice = next(name for at, name in enumerate(names) if name in names[:at])
        raise ValueError(f"X must have a name for each column. Got {twice!r} more than once; rename or drop one.")
    return X
