"""Further columns of an observation, as tensors for ``forward(user, item, **features)``: numbers as they are, the rest encoded."""

from collections.abc import Mapping
from numbers import Real

import numpy as np

from sk_torchmf._validation import check_finite, check_length
from sk_torchmf.inputs.forms import SPARSE, TABLE, form_of
from sk_torchmf.inputs.labels import column, encode, is_frame, lookup
from sk_torchmf.interactions import as_interactions

TAKEN = (
    *("self", "user", "item", "user_features", "item_features"),  # forward's own
    *("users", "items", "factors"),  # what module arguments n_* mean already
)
WHOLE = 2**24  # up to which float32 tells whole numbers apart


def columns(features):
    """The parameter ``features`` as a dict of names to columns: from None, a list of column names, or such a dict."""
    if features is None:
        return {}
    if isinstance(features, str):
        raise TypeError(f"features must be a list of column names or a dict of names to columns. Got the string {features!r}.")
    if not isinstance(features, Mapping) and np.ndim(features) != 1:
        raise TypeError(f"features must be a list of column names or a dict of names to columns. Got {features!r}.")
    wanted = features if isinstance(features, Mapping) else {name: name for name in features}
    for name, key in wanted.items():
        if name in TAKEN:
            raise ValueError(
                f"features must not be called {name!r}, because that name is used for something else. Rename it with a dict, "
                f"as in features={{'{name}_': ...}}."
            )
        if not isinstance(key, str | int) or isinstance(key, bool):
            raise TypeError(f"features must name each column by a str or an int. Got {key!r} for {name!r}.")
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(
                "features become keyword arguments of forward, so each needs a name that is a Python identifier. "
                f'Got {name!r}. Name the column with a dict, as in features={{"day": 3}}.'
            )
    return dict(wanted)


def read(X, features, dtype, vocabularies=None):
    """Read the features of a table or container.

    Parameters
    ----------
    X : table or container
        A container's features are its own arrays, such as ``timestamps``.
    features : list, dict or None
        The estimator's parameter.
    dtype : {"float32", "float64"}
        Of the numbers that ``forward`` gets.
    vocabularies : dict of str to ndarray, optional
        The categories of each feature that is categorical; by default they are learned from X.

    Returns
    -------
    values : dict of str to ndarray of shape (n,)
        float64, or for a category its number, int64, -1 where it is unknown.
    vocabularies : dict of str to ndarray
        Sorted.
    """
    wanted = columns(features)
    form = form_of(X)
    if wanted and form == SPARSE:
        raise ValueError("features need X to be a table or Interactions, because a sparse matrix has no further columns.")
    if form == TABLE and not is_frame(X):
        X = np.asarray(X)
    found, learned = {}, dict(vocabularies or {})
    for name, key in wanted.items():
        if form == TABLE:
            values = column(X, key, f"features[{name!r}]")
        else:
            values = getattr(as_interactions(X), key) if key in ("timestamps", "weights") else None
        if values is None:
            raise ValueError(
                f'features={key!r} is not available: the features of Interactions are "timestamps" and "weights", if present.'
            )
        if vocabularies is None and is_categorical(values):
            codes, learned[name] = encode(values, name)
            found[name] = codes.astype(np.int64)
        else:
            found[name] = _values(name, values, dtype, learned)
    return found, learned


def check_known_categories(values):
    """Refuse a category that fit did not see, as ``partial_fit`` must."""
    for name, code in values.items():
        if code.dtype.kind == "i" and (code < 0).any():
            raise ValueError(
                f"features: {name} has a category in row {int(np.argmax(code < 0))} that fit did not see. partial_fit can add "
                "users and items, but no categories. Drop the row, or fit from scratch."
            )
    return values


def given(values, features, dtype, vocabularies, shape):
    """Read the features that are passed to ``predict`` or ``recommend`` beside ids.

    Parameters
    ----------
    values : mapping of str to array-like, or None
        They broadcast to ``shape``.
    features, dtype, vocabularies
        As in ``read``.
    shape : tuple of int

    Returns
    -------
    dict of str to ndarray
        Flat.
    """
    wanted = columns(features)
    values = {} if values is None else values
    if not isinstance(values, Mapping):
        raise TypeError(f"features must be a dict of names to values. Got {type(values).__name__}.")
    missing, unknown = wanted.keys() - values.keys(), values.keys() - wanted.keys()
    if missing or unknown:
        what = f"{sorted(missing)[0]!r} is missing" if missing else f"{sorted(unknown)[0]!r} is not one of them"
        raise ValueError(f"features must be a dict with the keys {sorted(wanted)}, as in fit: {what}.")
    found = {}
    for name, value in values.items():
        try:
            value = np.broadcast_to(np.asarray(value), shape)
        except ValueError:
            raise ValueError(f"features[{name!r}] must broadcast to shape {shape}. Got shape {np.shape(value)}.") from None
        found[name] = _values(name, value.ravel(), dtype, vocabularies)
    return found


def _values(name, values, dtype, vocabularies):
    """Numbers as they are, categories by their numbers in the vocabulary."""
    if name in vocabularies:
        return lookup(values, vocabularies[name], name)
    if np.asarray(values).dtype.kind in "mMc":
        kind = np.asarray(values).dtype
        raise ValueError(
            f"features: {name} holds {kind}. Pass numbers, such as days since the first, or labels, such as the weekday."
        )
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"features: {name} must hold numbers, as it did in fit. Got {np.asarray(values).ravel()[0]!r}.") from None
    check_finite(check_length(numbers, len(values), name), name)
    if dtype == "float32" and len(numbers) and np.abs(numbers).max() > WHOLE and (numbers == np.floor(numbers)).all():
        largest = numbers[np.abs(numbers).argmax()]
        raise ValueError(
            f"features: {name} holds whole numbers beyond 2**24, such as {largest:.0f}, which float32 cannot "
            'represent exactly. Subtract the first and divide, or use dtype="float64".'
        )
    return numbers


def is_categorical(values):
    """Whether a column holds labels: text, objects that are no numbers, a frame's categories."""
    if str(values.dtype).lower().startswith(("category", "categorical", "enum")):
        return True
    values = np.asarray(values)
    return values.dtype.kind in "US" or (values.dtype.kind == "O" and not all(isinstance(value, Real) for value in values))
