"""What type ids have, and ids as values: 17850 and 17850.0 are one, "007" and "7" two. Knows no row numbers."""

import math
from decimal import Decimal
from numbers import Real

import numpy as np

from sk_torchmf._validation import exact_digits

NUMBER, TEXT, BOOLEAN = "numbers", "text", "booleans"
KINDS = {"i": NUMBER, "u": NUMBER, "f": NUMBER, "U": TEXT, "T": TEXT, "b": BOOLEAN, "S": "bytes", "M": "times", "m": "durations"}
INT64 = np.iinfo(np.int64)


def as_ids(values, role):
    """Return the ids that a call was given as an array of any shape or a frame's column; a list of mixed types keeps them apart.

    ``numpy.asarray`` alone makes text of the 3 in ``[3, "a"]``, the number 1 of the True in ``[True, 3]``, the text "nan" of the
    NaN in ``[nan, "a"]`` and a float of the integer in ``[2**53 + 1, 0.5]``.
    """
    if hasattr(values, "to_numpy") and not hasattr(values, "columns"):
        return values
    mixed = isinstance(values, list | tuple) and len(set(map(type, values))) > 1
    try:
        array = np.asarray(values)
        if mixed or (array.dtype.kind in "US" and isinstance(values, list | tuple)):
            array = np.asarray(values, dtype=object)
    except ValueError:
        raise ValueError(f"{role} ids must be an array of single numbers or texts. Got nested lists of unequal lengths.") from None
    if array.ndim == 0 and array.dtype.kind == "O" and hasattr(values, "__iter__"):
        raise TypeError(f"{role} ids must be a list or an array. Got {type(values).__name__}. Pass list(...) of it.")
    return array


def as_table(rows):
    """Return a list of rows as an array that keeps the types of its columns apart, see ``as_ids``; anything else as it is."""
    if (
        not isinstance(rows, list | tuple)
        or not all(isinstance(row, list | tuple) for row in rows)
        or len(set(map(len, rows))) != 1
    ):
        return rows
    if len({type(value) for row in rows for value in row}) < 2:
        return rows
    table = np.array(rows, dtype=object)
    return table if table.ndim == 2 else rows


def type_of(ids):
    """What the distinct ids of one type are, as words: "numbers", "text", "booleans", "bytes", "times", or a class's name."""
    if ids.dtype.kind != "O":
        return KINDS.get(ids.dtype.kind, str(ids.dtype))
    first = ids[0] if len(ids) else None
    if isinstance(first, bool | np.bool_):
        return BOOLEAN
    return next((name for kind, name in ((Real, NUMBER), (str, TEXT), (bytes, "bytes")) if isinstance(first, kind)), "objects")


def as_values(ids, role):
    """Return distinct ids as values of one type.

    Parameters
    ----------
    ids : ndarray of shape (n,)
        Of any dtype, none missing.
    role : str
        What they name, for messages.

    Returns
    -------
    ndarray of shape (n,)
        Whole numbers are int64, where these cannot hold them uint64, else Python's; others are float64. What mixes types that do
        not compare is text. Two of them may have become equal.

    Raises
    ------
    TypeError
        For complex numbers and records.
    ValueError
        For floats so large that they do not tell whole numbers apart.
    """
    kind = ids.dtype.kind
    if kind == "O":
        return _objects_as_values(ids, role)
    if kind in "iu":
        return _integers(ids)
    if kind == "f":
        return _floats(ids, role)
    if kind not in KINDS:
        raise TypeError(f"{role} ids must be numbers, text or times. Got dtype {ids.dtype}.")
    return ids.astype(object) if kind == "T" else ids


def check_types(values, role):
    """Refuse a column (n,) without missing values in which booleans stand among other types."""
    kinds = set(map(type, np.asarray(values, dtype=object)))
    booleans = {kind for kind in kinds if issubclass(kind, bool | np.bool_)}
    if booleans and booleans != kinds:
        raise TypeError(f"{role} ids must be of one kind. Got booleans together with other types. Pass numbers or text.")


def as_text(ids):
    """Text of ids that are values: what a column of numbers and text holds of its numbers."""
    return ids.astype(str) if ids.dtype.kind in "iuU" else np.array([_text(value) for value in ids.tolist()], dtype=object)


def align(*parts):
    """Return arrays of numbers in one type that holds all of them exactly."""
    parts = tuple(_integers(part) if part.dtype.kind in "iu" else part for part in parts)
    if len({part.dtype for part in parts}) == 1:
        return parts
    kinds = {part.dtype.kind for part in parts}
    if kinds == {"i", "u"} and all(part.min(initial=0) >= 0 for part in parts):
        return tuple(part.astype(np.uint64) for part in parts)
    if "f" in kinds and kinds <= set("iuf") and all(np.abs(part.astype(np.float64)).max(initial=0) < 2**53 for part in parts):
        return tuple(part.astype(np.float64) for part in parts)
    return tuple(part.astype(object) for part in parts)


def is_missing(value):
    """Whether a value is None, NaN, NaT or pandas' NA."""
    try:
        return value is None or bool(value != value)  # NaN and NaT differ from themselves
    except TypeError:  # pandas' NA, neither equal nor different
        return True
    except ValueError:  # an array
        return False


def _integers(ids):
    if ids.dtype.kind == "u" and len(ids) and ids.max() > INT64.max:
        return ids.astype(np.uint64, copy=False)
    return ids.astype(np.int64, copy=False)


def _floats(ids, role):
    whole = np.floor(ids) == ids
    limit = 2 ** exact_digits(ids.dtype)
    large = np.abs(ids) >= limit
    if large.any():
        raise ValueError(
            f"{role} ids must be exact, but {ids.dtype} cannot represent all whole numbers from {limit} on. Got "
            f"{ids[large][0]:.17g}. Read the column as integers or text."
        )
    return ids.astype(np.int64) if whole.all() else ids.astype(np.float64)


def _objects_as_values(ids, role):
    kinds = set(map(type, ids))
    if any(issubclass(kind, np.void | complex | np.complexfloating) for kind in kinds):
        raise TypeError(f"{role} ids must be numbers, text or times. Got {sorted(kind.__name__ for kind in kinds)[0]}.")
    if all(issubclass(kind, str) for kind in kinds):
        return ids
    if all(issubclass(kind, bool | np.bool_) for kind in kinds):
        return ids.astype(bool)
    if any(issubclass(kind, Real | Decimal) for kind in kinds):
        ids = _exact(ids, role)
        if all(issubclass(kind, Real | Decimal) for kind in kinds):
            return _numbers(ids)
    try:
        np.sort(ids)
    except TypeError:  # types that do not sort together
        return as_text(ids)
    return ids


def _exact(ids, role):
    """Objects whose whole numbers are Python's, whatever type they came in."""
    exact = ids.copy()
    for at, value in enumerate(ids):
        if isinstance(value, float | np.floating):
            exact[at] = _floats(np.asarray(value)[None], role)[0].item()
        elif isinstance(value, Real | Decimal) and value == (whole := math.floor(value)):
            exact[at] = whole
    return exact


def _numbers(ids):
    """Python's numbers in the narrowest dtype that holds each exactly."""
    numbers = ids.tolist()
    if all(type(number) is int for number in numbers):
        low, high = min(numbers), max(numbers)
        if INT64.min <= low and high <= INT64.max:
            return np.array(numbers, dtype=np.int64)
        return np.array(numbers, dtype=np.uint64) if low >= 0 and high < 2**64 else ids
    if all(type(number) is float or (type(number) is int and abs(number) < 2**53) for number in numbers):
        return np.array(numbers, dtype=np.float64)
    return ids


def _text(value):
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
