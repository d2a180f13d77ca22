"""Further columns of an observation, as tensors for ``forward(user, item, **features)``: numbers as they are, the rest encoded."""

from numbers import Real

import numpy as np

from sk_torchmf import _labels
from sk_torchmf._validation import check_finite, check_length
from sk_torchmf.estimators import _forms


def columns(features):
    """The parameter ``features`` as a dict of names to columns: from None, a list of column names, or such a dict."""
    if features is None:
        return {}
    if isinstance(features, str):
        raise TypeError(f"features must be a list of column names or a dict of names to columns. Got the string {features!r}.")
    wanted = features if hasattr(features, "keys") else {name: name for name in features}
    for name in wanted:
        if not isinstance(name, str) or not name.isidentifier() or name in ("self", "user", "item"):
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
    form = _forms.form_of(X)
    if wanted and form == _forms.SPARSE:
        raise ValueError("features need a table or Interactions: a sparse matrix has no further columns.")
    if form == _forms.TABLE and not _labels.is_frame(X):
        X = np.asarray(X)
    found = {}
    for name, key in wanted.items():
        values = _labels.column(X, key, f"features[{name!r}]") if form == _forms.TABLE else getattr(X, str(key), None)
        if values is None:
            raise ValueError(f"features={name!r} is not an array of the Interactions. Their arrays are timestamps and weights.")
        found[name] = _read(estimator, name, values, reset)
    return found


def given(estimator, features, shape):
    """The features passed to ``predict`` or ``recommend`` beside ids: a dict of values that broadcast to ``shape``, flat."""
    wanted = columns(estimator.features)
    features = {} if features is None else features
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
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"features: {name} held numbers in fit. Got {np.asarray(values).ravel()[0]!r}.") from None
    return check_finite(check_length(numbers, len(values), name), name)


def is_categorical(values):
    """Whether a column holds labels: text, objects that are no numbers, a frame's categories."""
    if str(values.dtype).lower().startswith(("category", "categorical", "enum")):
        return True
    values = np.asarray(values)
    return values.dtype.kind in "US" or (values.dtype.kind == "O" and not all(isinstance(value, Real) for value in values))
