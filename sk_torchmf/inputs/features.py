"""Further columns of an observation, as tensors for ``forward(user, item, **features)``: numbers as they are, the rest encoded."""

from collections.abc import Mapping
from numbers import Real

import numpy as np

from sk_torchmf._validation import check_finite, check_length
from sk_torchmf.inputs import forms
from sk_torchmf.inputs import labels as _labels

TAKEN = ("self", "user", "item", "users", "items", "factors")  # forward's own, and what module arguments n_* mean already
WHOLE = 2**24  # up to which float32 tells whole numbers apart


def columns(features):
    """The parameter ``features`` as a dict of names to columns: from None, a list of column names, or such a dict."""
    if features is None:
        return {}
    if isinstance(features, str):
        raise TypeError(f"features must be a list of column names or a dict of names to columns. Got the string {features!r}.")
    wanted = features if isinstance(features, Mapping) else {name: name for name in features}
    for name, key in wanted.items():
        if name in TAKEN:
            raise ValueError(
                f"features: {name!r} has a meaning of its own here. Name the column otherwise, as in {{'{name}_': ...}}."
            )
        if not isinstance(key, str | int) or isinstance(key, bool):
            raise TypeError(f"features must name columns by str or int. Got {key!r} for {name!r}.")
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(
                f"features become keyword arguments of forward, so each needs a name. Got {name!r}; name a column by a dict: "
                'features={"day": 3}.'
            )
    return dict(wanted)


def read(estimator, X, reset):
    """Read the features of a table or container.

    Parameters
    ----------
    estimator : estimator with a parameter ``features``
        With ``reset`` it gets ``feature_categories_``: the sorted vocabulary of each categorical feature.
    X : table or container
        A container's features are its own arrays, such as ``timestamps``.
    reset : bool
        Whether to learn the vocabularies.

    Returns
    -------
    dict of str to ndarray of shape (n,)
        float64, or for a category its number, int64, -1 where it is unknown.
    """
    wanted = columns(estimator.features)
    if reset:
        estimator.feature_categories_ = {}
    form = forms.form_of(X)
    if wanted and form == forms.SPARSE:
        raise ValueError("features need a table or Interactions: a sparse matrix has no further columns.")
    if form == forms.TABLE and not _labels.is_frame(X):
        X = np.asarray(X)
    found = {}
    for name, key in wanted.items():
        if form == forms.TABLE:
            values = _labels.column(X, key, f"features[{name!r}]")
        else:
            values = getattr(X, key) if key in ("timestamps", "weights") else None
        if values is None:
            raise ValueError(f"features={key!r}: of Interactions these are timestamps or weights, where they have them.")
        found[name] = _read(estimator, name, values, reset)
    return found


def read_known(estimator, X):
    """Read as ``read`` does, for ``partial_fit``: a category that is unknown is refused."""
    found = read(estimator, X, reset=False)
    for name, values in found.items():
        if values.dtype.kind == "i" and (values < 0).any():
            raise ValueError(
                f"features: {name} has a category that fit did not see, in row {int(np.argmax(values < 0))}. partial_fit grows "
                "by users and items alone: drop the row, or fit from scratch."
            )
    return found


def given(estimator, features, shape):
    """The features passed to ``predict`` or ``recommend`` beside ids: a dict of values that broadcast to ``shape``, flat."""
    wanted = columns(estimator.features)
    features = {} if features is None else features
    if not isinstance(features, Mapping):
        raise TypeError(f"features must be a dict of names to values. Got {type(features).__name__}.")
    missing, unknown = wanted.keys() - features.keys(), features.keys() - wanted.keys()
    if missing or unknown:
        what = f"{sorted(missing)[0]!r} is missing" if missing else f"{sorted(unknown)[0]!r} is not one of them"
        raise ValueError(f"features must be a dict with {sorted(wanted)}, what this model was fitted with: {what}.")
    found = {}
    for name, values in features.items():
        try:
            values = np.broadcast_to(np.asarray(values), shape)
        except ValueError:
            raise ValueError(f"features[{name!r}] must broadcast to shape {shape}. Got shape {np.shape(values)}.") from None
        found[name] = _read(estimator, name, values.ravel(), False)
    return found


def _read(estimator, name, values, reset):
    vocabularies = estimator.feature_categories_
    if name in vocabularies if not reset else is_categorical(values):
        if reset:
            codes, vocabularies[name] = _labels.encode(values, name)
            return codes.astype(np.int64)
        return _labels.lookup(values, vocabularies[name], name)
    if np.asarray(values).dtype.kind in "mMc":
        kind = np.asarray(values).dtype
        raise ValueError(
            f"features: {name} holds {kind}. Pass numbers, such as days since the first, or labels, such as the weekday."
        )
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"features: {name} held numbers in fit. Got {np.asarray(values).ravel()[0]!r}.") from None
    check_finite(check_length(numbers, len(values), name), name)
    if estimator.dtype == "float32" and len(numbers) and np.abs(numbers).max() > WHOLE and (numbers == np.floor(numbers)).all():
        largest = numbers[np.abs(numbers).argmax()]
        raise ValueError(
            f"features: {name} holds whole numbers beyond 2**24, such as {largest:.0f}, which float32 does not tell apart. "
            'Subtract the first and divide, or use dtype="float64".'
        )
    return numbers


def is_categorical(values):
    """Whether a column holds labels: text, objects that are no numbers, a frame's categories."""
    if str(values.dtype).lower().startswith(("category", "categorical", "enum")):
        return True
    values = np.asarray(values)
    return values.dtype.kind in "US" or (values.dtype.kind == "O" and not all(isinstance(value, Real) for value in values))
