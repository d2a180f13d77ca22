"""Labels of users and items, of any type, to row numbers and back; knows tables, not ratings."""

import numpy as np


def is_frame(X):
    """Whether X is a DataFrame (pandas, polars), told by its interface: neither is a dependency."""
    return hasattr(X, "columns") and hasattr(X, "dtypes")


def column(X, key, role):
    """Return the column of a table that ``key`` (position or name) means; ``role`` is the parameter's name."""
    if isinstance(key, str):
        names = list(X.columns) if is_frame(X) else []
        if key not in names:
            cure = f"The columns are {names}." if names else "X is an array, whose columns have positions only."
            raise ValueError(f"{role}={key!r} is not a column of X. {cure}")
        key = names.index(key)
    elif key >= X.shape[1]:
        raise ValueError(f"{role}={key} is not a column position of X, which has {X.shape[1]} columns.")
    if hasattr(X, "iloc"):
        return X.iloc[:, key]
    return X.to_series(key) if is_frame(X) else X[:, key]


def encode(values, role):
    """Number the distinct labels of a column.

    Parameters
    ----------
    values : ndarray, pandas or polars Series of shape (n,)
        Labels of any type that can be sorted; labels of mixed types are compared as text, as ``numpy.asarray([1, "a"])`` does.
    role : str
        What the column holds, for messages.

    Returns
    -------
    codes : ndarray of shape (n,), integer
    labels : ndarray of shape (n_labels,)
        Sorted and distinct; ``labels[codes]`` are the values.
    """
    if hasattr(values, "factorize"):  # pandas
        codes, labels = values.factorize()
        labels = np.asarray(labels)
    elif hasattr(values, "to_physical"):  # polars
        if values.dtype == "Categorical" or str(values.dtype).startswith(("Categorical", "Enum")):
            values = values.cast(str)
        labels = values.unique().drop_nulls().to_numpy()
        codes = (values.rank("dense") - 1).fill_null(len(labels)).to_numpy().astype(np.int64)
        codes[codes == len(labels)] = -1
        labels = np.sort(labels)
    else:
        values = np.asarray(values)
        if values.dtype.kind == "O":
            codes, labels = _factorize_objects(values)
        elif values.dtype.kind in "iu" and len(values) and int(values.max()) - int(values.min()) < 4 * len(values):
            return _count(values)
        else:
            labels, codes = np.unique(values, return_inverse=True)
    if labels.dtype.kind == "O":
        labels = _infer(labels)
    return _sort(_check_present(codes, labels, role), labels)


def lookup(values, labels, role):
    """Row numbers of values (any shape) among the sorted labels, -1 where a value is not among them."""
    if _is_numeric(labels) or not hasattr(values, "to_numpy"):
        values = values.to_numpy() if hasattr(values, "to_numpy") else np.asarray(values)
        if values.ndim != 1:
            return lookup(values.ravel(), labels, role).reshape(values.shape)
    if _is_numeric(labels) and _is_numeric(values):
        codes, own = slice(None), values
        if own.dtype.kind == "f" and not np.isfinite(own).all():
            _check_present(np.arange(len(own)), own, role)
    else:
        codes, own = encode(values, role)
    if len(own) == 0:
        return np.empty(0, dtype=np.int64)
    if _is_numeric(labels) and not _is_numeric(own):
        raise TypeError(f"The {role} ids that fit saw are {labels.dtype}. Got {own[0]!r}; pass ids of that type.")
    if _is_numeric(own) and not _is_numeric(labels):
        own = own.astype(str)
    return _find(own, labels)[codes]


def merge(labels, more, role):
    """Insert labels among those there are.

    Parameters
    ----------
    labels, more : ndarray of shape (n,) and (m,)
        Each sorted and distinct.
    role : str
        What they name, for messages.

    Returns
    -------
    union : ndarray
        Sorted and distinct, in the type of ``labels`` where that holds them all.
    place, place_of_more : ndarray of shape (n,) and (m,), int64
        Where each has come to lie in it.
    """
    if is_range(labels) and is_range(more):
        union = labels if len(labels) >= len(more) else more
        return union, np.arange(len(labels)), np.arange(len(more))
    if _is_numeric(labels) and not _is_numeric(more):
        raise TypeError(f"The {role} ids that fit saw are {labels.dtype}. Got {more[0]!r}; pass ids of that type.")
    if _is_numeric(more) and not _is_numeric(labels):
        more = more.astype(str)
    elif labels.dtype.kind in "iu" and more.dtype.kind == "f" and (more == np.floor(more)).all():
        more = more.astype(labels.dtype)
    try:
        union = np.union1d(labels, more)
        places = [np.searchsorted(union, one).astype(np.int64) for one in (labels, more)]
    except TypeError:  # types that do not sort together: compare them as text, as ``encode`` does
        as_text = [np.array([str(label) for label in one.tolist()]) for one in (labels, more)]
        union = np.unique(np.concatenate(as_text))
        places = [np.searchsorted(union, text).astype(np.int64) for text in as_text]
    return union, *places


def label(found, labels):
    """Labels of row numbers; -1 (None where labels are not numbers) for -1."""
    if labels.dtype.kind in "iufb":
        labels = labels.astype(np.int64) if labels.dtype.kind in "ub" else labels
        filler = np.array(-1, dtype=labels.dtype)
    else:
        labels, filler = labels.astype(object), None
    if len(labels) == 0:
        return np.full(found.shape, filler)
    return np.where(found < 0, filler, labels[found])


def _find(own, labels):
    if is_range(labels):
        known = (own >= 0) & (own < len(labels)) & (own == np.floor(own))
        return np.where(known, np.where(known, own, 0).astype(np.int64), -1)
    try:
        at = np.searchsorted(labels, own).clip(max=len(labels) - 1)
        return np.where(labels[at] == own, at, -1)
    except TypeError:  # labels that do not compare with these values
        rows = {label: row for row, label in enumerate(labels.tolist())}
        return np.array([rows.get(value, -1) for value in own.tolist()], dtype=np.int64)


def is_range(labels):
    """Whether the sorted, distinct labels are 0 .. n-1, so that a label is its own row number."""
    return labels.dtype.kind in "iu" and (len(labels) == 0 or (labels[0] == 0 and labels[-1] == len(labels) - 1))


def _is_numeric(values):
    return values.dtype.kind in "iufb"


def _count(values):
    """The distinct integers of a narrow range by counting: no sort."""
    low = int(values.min())
    shifted = (values - values.min()).astype(np.int64) if values.dtype.kind == "u" else values.astype(np.int64) - low
    present = np.zeros(int(shifted.max()) + 1, dtype=bool)
    present[shifted] = True
    return (np.cumsum(present) - 1)[shifted], np.flatnonzero(present).astype(values.dtype) + values.min()


def _factorize_objects(values):
    rows: dict = {}
    codes = np.empty(len(values), dtype=np.int64)
    for at, value in enumerate(values):
        if is_missing(value):
            codes[at] = -1
            continue
        try:
            codes[at] = rows.setdefault(value, len(rows))
        except TypeError:  # an unhashable label is told apart by its text
            codes[at] = rows.setdefault(str(value), len(rows))
    labels: np.ndarray = np.empty(len(rows), dtype=np.dtype(object))
    labels[:] = list(rows)
    return codes, labels


def is_missing(value):
    """Whether a value is None, NaN, NaT or pandas' NA."""
    try:
        return value is None or bool(value != value)  # NaN and NaT differ from themselves
    except TypeError:  # pandas' NA, neither equal nor different
        return True
    except ValueError:  # an array
        return False


def _infer(labels):
    """Numbers that came as objects, as numbers."""
    try:
        numbers = np.array(labels.tolist())
    except ValueError:
        return labels
    return numbers if numbers.ndim == 1 and numbers.dtype.kind in "iufb" else labels


def _check_present(codes, labels, role):
    bad = codes == -1
    if labels.dtype.kind == "f":
        bad |= ~np.isfinite(labels)[codes]
    elif labels.dtype.kind in "Mm":
        bad |= np.isnat(labels)[codes]
    if bad.any():
        at = int(np.flatnonzero(bad)[0])
        value = "missing" if codes[at] == -1 else labels[codes[at]]
        raise ValueError(
            f"{role} ids must be present and finite (no NaN, no inf). Row {at} is {value}. Drop the row or give it an id."
        )
    return codes


def _sort(codes, labels):
    try:
        distinct, rank = np.unique(labels, return_inverse=True)
    except TypeError:  # mixed types do not sort: compare them as text
        distinct, rank = np.unique([str(label) for label in labels], return_inverse=True)
    return rank[codes], distinct
