"""Labels of users and items, of any type, to row numbers and back; knows tables, not ratings."""

import math
from decimal import Decimal

import numpy as np

from sk_torchmf.inputs.id_types import BOOLEAN, NUMBER, TEXT, align, as_text, as_values, check_types, is_missing, type_of


def is_frame(X):
    """Whether X is a DataFrame (pandas, polars), told by its interface: neither is a dependency."""
    return hasattr(X, "columns") and hasattr(X, "dtypes")


def column(X, key, role):
    """Return the column of a table that ``key`` (position or name) means; ``role`` is the parameter's name."""
    if isinstance(key, str):
        names = list(X.columns) if is_frame(X) else []
        if key not in names:
            advice = f"The columns are {names}." if names else "X is an array, so pass the column's position, an int."
            raise ValueError(f"{role}={key!r} is not a column of X. {advice}")
        key = names.index(key)
    elif key >= X.shape[1]:
        raise ValueError(f"{role}={key} is not a column position of X, which has {X.shape[1]} columns.")
    key = int(key)
    if hasattr(X, "iloc"):
        return X.iloc[:, key]
    return X.to_series(key) if is_frame(X) else X[:, key]


def encode(values, role):
    """Number the distinct labels of a column.

    Parameters
    ----------
    values : ndarray, pandas or polars Series of shape (n,)
        Labels, compared as values: 17850 and 17850.0 are one, "007" and "7" two. Where numbers and text are mixed, numbers are
        compared as text.
    role : str
        What the column holds, for messages.

    Returns
    -------
    codes : ndarray of shape (n,), integer
    labels : ndarray of shape (n_labels,)
        Sorted and distinct, of one type, see ``as_values``.
    """
    if getattr(values.dtype, "kind", None) == "V":  # pandas makes bytes of records
        raise TypeError(f"{role} ids must be numbers, text or times. Got dtype {values.dtype}.")
    codes, distinct = factorize(values)
    _check_present(codes, distinct, role)
    if distinct.dtype.kind == "O" and not all(isinstance(value, str) for value in distinct):
        check_types(values, role)  # of the whole column: True and 1 are equal, and so one of the distinct
    return _sort(codes, as_values(distinct, role))


def lookup(values, labels, role):
    """Row numbers of values (any shape) among the sorted labels, -1 where a value is not among them."""
    if not hasattr(values, "to_numpy") or is_number(labels):
        values = values.to_numpy() if hasattr(values, "to_numpy") else np.asarray(values)
        if values.ndim != 1:
            return lookup(values.ravel(), labels, role).reshape(values.shape)
    if is_number(labels) and is_number(values):
        if values.dtype.kind == "f":
            _check_present(None, values, role)
        codes, own = slice(None), as_values(values, role)
    else:
        codes, own = encode(values, role)
    if not len(own) or not len(labels):
        return np.full(len(values), -1)
    return _find(_in_type_of(labels, own, role), labels)[codes]


def merge(labels, more, role):
    """Insert labels among those there are.

    Parameters
    ----------
    labels, more : ndarray of shape (n,) and (m,)
        Each sorted and distinct, as ``encode`` returns them.
    role : str
        What they name, for messages.

    Returns
    -------
    union : ndarray
        Sorted and distinct, in the type of ``labels`` where that holds them all.
    place, place_of_more : ndarray of shape (n,) and (m,), int64
        Where each has come to lie in it.
    """
    union, (place, place_of_more) = join([labels, _in_type_of(labels, more, role)], role)
    return union, place, place_of_more


def join(parts, role):
    """Insert labels of one type among each other.

    Parameters
    ----------
    parts : list of ndarray
        At least one; each sorted and distinct, as ``encode`` returns them.
    role : str
        What they name, for messages.

    Returns
    -------
    union : ndarray
        Sorted and distinct.
    places : list of ndarray, int64
        For each part where its labels have come to lie in it.
    """
    if all(map(is_range, parts)):
        return max(parts, key=len), [np.arange(len(part)) for part in parts]
    if type_of(parts[0]) == NUMBER:
        parts = align(*(as_values(part, role) for part in parts))
    whole = np.concatenate(parts)
    places, union = _sort(np.arange(len(whole)), as_values(whole, role) if whole.dtype.kind == "O" else whole)
    return union, np.split(places, np.cumsum([len(part) for part in parts])[:-1])


def label(found, labels):
    """Labels of row numbers; for -1 the filler, which is no label: -1 where labels are numbers that have none such, else None."""
    if labels.dtype.kind in "if" and not (len(labels) and labels[0] < 0 and lookup(np.array([-1]), labels, "")[0] >= 0):
        filler = np.array(-1, dtype=labels.dtype)
    elif labels.dtype.kind in "mM":
        filler = np.array("NaT", dtype=labels.dtype)
    else:
        labels, filler = labels.astype(object), None
    if len(labels) == 0:
        return np.full(found.shape, filler)
    return np.where(found < 0, filler, labels[found])


def _in_type_of(labels, own, role):
    """Distinct values of one type in the type of the labels; of another type they are refused, but for numbers among text."""
    if is_number(labels) and is_number(own):
        return own
    wanted, got = type_of(labels), type_of(own)
    if not len(labels) or not len(own) or wanted == got:
        return own
    if wanted == TEXT and got == NUMBER:
        return as_text(own)
    dtype = wanted if labels.dtype.kind == "O" else labels.dtype
    problem = "booleans; pass ids, not a mask" if got == BOOLEAN else f"{own.tolist()[0]!r}; pass ids of that type"
    raise TypeError(f"The {role} ids must be of the type that fit saw, {dtype}. Got {problem}.")


def _find(own, labels):
    """Row numbers of values of the labels' type, -1 for others."""
    if is_range(labels) and own.dtype.kind in "iu":
        known = (own >= 0) & (own < len(labels))
        return np.where(known, np.where(known, own, 0).astype(np.int64), -1)
    if is_number(labels):
        own, labels = align(own, labels)
    elif own.dtype.kind != labels.dtype.kind:
        own, labels = own.astype(object), labels.astype(object)
    try:
        at = np.searchsorted(labels, own).clip(max=len(labels) - 1)
        return np.where(labels[at] == own, at, -1)
    except TypeError:  # labels that do not compare with these values
        rows = {label: row for row, label in enumerate(labels.tolist())}
        return np.array([rows.get(value, -1) for value in own.tolist()], dtype=np.int64)


def is_range(labels):
    """Whether the sorted, distinct labels are 0 .. n-1, so that a label is its own row number."""
    return labels.dtype.kind in "iu" and (len(labels) == 0 or (labels[0] == 0 and labels[-1] == len(labels) - 1))


def is_number(values):
    """Whether the dtype of an array is one of numbers, booleans not among them."""
    return values.dtype.kind in "iuf"


def factorize(values):
    """Codes of a column, -1 where it is missing, and its distinct values, in any order and of any type."""
    if hasattr(values, "factorize"):  # pandas
        try:
            codes, distinct = values.factorize()
        except TypeError:  # objects without a hash
            return _factorize_objects(values.to_numpy(dtype=object))
        return codes, np.asarray(distinct)
    if hasattr(values, "to_physical"):  # polars
        if str(values.dtype).startswith(("Categorical", "Enum")):
            values = values.cast(str)
        elif str(values.dtype).startswith(("Binary", "Decimal", "List", "Array", "Struct", "Object", "Int128")):  # without an order
            return _factorize_objects(values.to_list())
        distinct = values.unique().drop_nulls().to_numpy()
        codes = (values.rank("dense") - 1).fill_null(len(distinct)).to_numpy().astype(np.int64)
        codes[codes == len(distinct)] = -1
        return codes, np.sort(distinct)
    values = np.asarray(values)
    if values.dtype.kind == "O":
        return _factorize_objects(values)
    if values.dtype.kind in "iu" and len(values) and int(values.max()) - int(values.min()) < 4 * len(values):
        return _count(values)
    return np.unique(values, return_inverse=True)[::-1]


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


def _check_present(codes, distinct, role):
    """Refuse missing and infinite ids; ``distinct[codes]`` are the column, -1 is missing."""
    unfit, every = _unfit(distinct), codes is None
    bad = np.zeros(len(distinct), dtype=bool) if every else codes == -1
    if unfit is not None and unfit.any():
        bad = bad | (unfit if every else unfit[codes])
    if bad.any():
        at = int(np.flatnonzero(bad)[0])
        code = at if every else codes[at]
        value = "missing" if code == -1 else distinct[code]
        raise ValueError(f"{role} ids must not be missing or infinite. Row {at} is {value}. Drop the row or give it an id.")


def _unfit(distinct):
    """Which of the distinct values are missing or infinite; None where the type has none such."""
    if distinct.dtype.kind == "f":
        return ~np.isfinite(distinct)
    if distinct.dtype.kind in "Mm":
        return np.isnat(distinct)
    if distinct.dtype.kind == "O":
        return np.array(
            [isinstance(value, float | np.floating | Decimal) and not math.isfinite(value) for value in distinct], dtype=bool
        )
    return None


def _sort(codes, distinct):
    labels, rank = np.unique(distinct, return_inverse=True)
    return rank[codes], labels
