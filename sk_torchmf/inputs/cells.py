"""Columns of attributes, whatever they came as: of what kind one is, and its cells as numbers or labels. Knows no encoding."""

import datetime
import reprlib
from decimal import Decimal
from itertools import chain
from numbers import Real

import numpy as np
import scipy.sparse as sp

from sk_torchmf._validation import as_matrix
from sk_torchmf.inputs.id_types import as_table, as_text, is_missing
from sk_torchmf.inputs.labels import column, factorize, is_frame

NUMBERS, DATES, DURATIONS = "numbers", "dates", "durations"
CATEGORIES, LISTS, NOTHING = "categories", "lists of labels", "nothing"

DTYPES = {"i": NUMBERS, "u": NUMBERS, "f": NUMBERS, "b": CATEGORIES, "U": CATEGORIES, "T": CATEGORIES, "M": DATES, "m": DURATIONS}
POLARS = {"Decimal": NUMBERS, "Boolean": CATEGORIES, "String": CATEGORIES, "Categorical": CATEGORIES, "Enum": CATEGORIES}
POLARS |= {"Date": DATES, "Datetime": DATES, "Duration": DURATIONS}
TYPES = (  # in this order: a bool is an int, NumPy's durations are integers, and a datetime is a date
    ((bool, np.bool_, str), CATEGORIES),
    ((datetime.timedelta, np.timedelta64), DURATIONS),
    ((datetime.date, np.datetime64), DATES),
    ((Real, Decimal), NUMBERS),
    ((list, tuple, set, frozenset, np.ndarray), LISTS),
)
DAY = 86_400_000_000  # in microseconds


def check_attributes(X):
    """A table as a frame or an array, with at least one row and one column, each of another name."""
    if sp.issparse(X):
        raise TypeError('Sparse data has no columns to encode: it holds numbers already. Use "passthrough", or pass a dense table.')
    if type(X).__name__ == "LazyFrame":
        raise TypeError("The table must hold its rows, and a LazyFrame has none yet. Pass its collect().")
    if not is_frame(X):
        return as_matrix(as_table(X))
    if 0 in X.shape:
        raise ValueError(f"The table has shape {tuple(X.shape)}, and at least a row and a column of attributes are needed.")
    names = names_of(X)
    if len(set(names)) < len(names):
        twice = next(name for at, name in enumerate(names) if name in names[:at])
        raise ValueError(f"Every column must have a name of its own. Got {twice!r} more than once; rename or drop one.")
    return X


def names_of(X):
    """Names of the columns of a table as text; of an array x0, x1 and so on."""
    return [str(name) for name in X.columns] if is_frame(X) else [f"x{at}" for at in range(X.shape[1])]


def column_at(X, at):
    """Return a column of a frame or array by its position: of plain numbers and times as an array, which is quicker to ask."""
    values = column(X, at, "X")
    return np.asarray(values) if isinstance(values.dtype, np.dtype) and values.dtype.kind in "iufbmM" else values


def kind_of(values, name):
    """Of what kind a column is: NUMBERS, DATES, DURATIONS, CATEGORIES, LISTS, or NOTHING where all cells are missing.

    Parameters
    ----------
    values : ndarray, pandas or polars Series of shape (n,)
        It goes by the dtype; among objects by the types of the cells.
    name : str
        The column's, for messages.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        For cells of other types, and for several kinds in one column.
    """
    dtype = values.dtype
    if hasattr(values, "to_physical"):  # polars
        kind = NUMBERS if dtype.is_numeric() else POLARS.get(str(dtype).partition("(")[0])
    elif isinstance(dtype, np.dtype):
        kind = DTYPES.get(dtype.kind)
    else:  # pandas' own
        kind = CATEGORIES if str(dtype) == "category" else NUMBERS if is_sparse(values) else DTYPES.get(dtype.kind)
    if kind is None:
        return _kind_of_cells(_objects(values), name)
    return NOTHING if kind == NUMBERS and not is_sparse(values) and np.isnan(_dense(values, name)).all() else kind


def is_sparse(values):
    """Whether a column is one of pandas' sparse ones whose cells that are not stored are zero."""
    is_plain = isinstance(values.dtype, np.dtype)
    return not is_plain and str(values.dtype).startswith("Sparse[") and values.dtype.fill_value == 0


def as_numbers(values, name):
    """Read a column of numbers, dates or durations.

    Parameters
    ----------
    values : ndarray, pandas or polars Series of shape (n,)
    name : str
        The column's, for messages.

    Returns
    -------
    row : ndarray of shape (n_stored,), integer
        The cells that are stored: all, but of a sparse column, whose others are zero.
    numbers : ndarray of shape (n_stored,), float64
        NaN where a cell is missing. Dates are days since 1970, durations days.

    Raises
    ------
    ValueError
        For infinity, and what is none of these.
    """
    if is_sparse(values):
        row, numbers = values.array.sp_index.to_int_index().indices, values.array.sp_values.astype(np.float64)
    else:
        numbers = _dense(values, name)
        row = np.arange(len(numbers))
    if np.isinf(numbers).any():
        raise ValueError(f"Column {name!r} holds {numbers[np.isinf(numbers)][0]}. Clip it, or make it NaN: missing.")
    return row, numbers


def _dense(values, name):
    """Every cell of such a column as float64, NaN where it is missing."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "iufb":
        with np.errstate(over="ignore"):  # of a long double: infinite, and refused as that
            return values.astype(np.float64)
    if hasattr(values, "to_physical") and (values.dtype.is_numeric() or str(values.dtype) == "Boolean"):
        return values.cast(float).to_numpy()
    if hasattr(values, "iloc") and values.dtype.kind in "iufb":
        return values.to_numpy(dtype=np.float64, na_value=np.nan)
    is_plain = hasattr(values, "to_physical") or isinstance(values.dtype, np.dtype)
    cells = np.asarray(values) if is_plain else _objects(values)  # such as pandas' times of a zone, and decimals of Arrow
    if cells.dtype.kind == "O":
        cells = _from_objects(cells, name)
    if cells.dtype.kind in "mM":
        unit = cells.astype(f"{cells.dtype.kind}8[us]")
        return np.where(np.isnat(unit), np.nan, unit.astype(np.int64) / DAY)
    return cells.astype(np.float64)


def _from_objects(cells, name):
    kind = _kind_of_cells(cells, name)
    if kind in (DATES, DURATIONS):
        dtype, filler = ("M8[us]", np.datetime64("NaT")) if kind == DATES else ("m8[us]", np.timedelta64("NaT"))
        return np.array([filler if is_missing(cell) else _without_zone(cell) for cell in cells], dtype=dtype)
    return np.array([np.nan if is_missing(cell) else _as_float(cell) for cell in cells], dtype=np.float64)


def _without_zone(cell):
    """A time as it is in UTC, without saying so: NumPy knows no zones."""
    is_aware = isinstance(cell, datetime.datetime) and cell.tzinfo is not None
    return cell.astimezone(datetime.UTC).replace(tzinfo=None) if is_aware else cell


def _as_float(cell):
    try:
        return float(cell)
    except OverflowError:
        return np.inf


def as_labels(values, kind, name):
    """Read a column of categories or of lists of labels.

    Parameters
    ----------
    values : ndarray, pandas or polars Series of shape (n,)
    kind : {CATEGORIES, LISTS}
    name : str
        The column's, for messages.

    Returns
    -------
    row, code : ndarray of shape (n_stored,), integer
        Which label is in which cell; a label that a list has twice is there once.
    labels : ndarray of shape (n_labels,), object
        Text, sorted and distinct: 1 and 1.0 are "1".
    missing : ndarray of shape (n,), bool
        An empty list is not missing.

    Raises
    ------
    ValueError
        For lists of anything but text, whole numbers and booleans.
    """
    if kind == CATEGORIES:
        code, distinct = factorize(values)
        missing = code < 0
        row = np.flatnonzero(~missing)
        code = code[row]
    else:
        cells = _objects(values)
        missing = _missing(cells)
        filled = [() if gone else cell for cell, gone in zip(cells, missing, strict=True)]
        row = np.repeat(np.arange(len(cells)), np.fromiter(map(len, filled), dtype=np.int64, count=len(filled)))
        code, distinct = factorize(_checked_labels(list(chain.from_iterable(filled)), name))
    labels, rank = np.unique(_as_text(distinct), return_inverse=True)
    if kind != CATEGORIES and len(labels):
        row, code = np.divmod(np.unique(row * len(labels) + rank[code]), len(labels))
        return row, code, labels, missing
    return row, rank[code], labels, missing


def _checked_labels(flat, name):
    """The labels of all lists as an object array, each checked."""
    for kind in set(map(type, flat)):
        if issubclass(kind, str | int | np.integer | np.bool_) and not issubclass(kind, np.timedelta64):
            continue
        wrong = [label for label in flat if type(label) is kind and not _is_whole(label)]
        if wrong:
            raise ValueError(
                f"Column {name!r} has lists, which may hold text, whole numbers and booleans. Got {reprlib.repr(wrong[0])} "
                f"({kind.__name__}). Leave missing labels out, and give the numbers of a vector a column each."
            )
    labels: np.ndarray = np.empty(len(flat), dtype=np.dtype(object))
    labels[:] = flat
    return labels


def _is_whole(label):
    return isinstance(label, float | np.floating) and float(label).is_integer()


def _as_text(distinct):
    return np.asarray(distinct.astype(str) if distinct.dtype.kind in "mM" else as_text(distinct), dtype=object)


def _objects(values):
    """The cells of a column as Python's objects."""
    if hasattr(values, "to_physical"):  # polars, whose to_numpy makes arrays of lists
        cells: np.ndarray = np.empty(len(values), dtype=np.dtype(object))
        cells[:] = values.to_list()
        return cells
    return values.to_numpy(dtype=object) if hasattr(values, "to_numpy") else np.asarray(values, dtype=object)


def _missing(cells):
    return np.fromiter((not isinstance(cell, np.ndarray) and is_missing(cell) for cell in cells), dtype=bool, count=len(cells))


def _kind_of_cells(cells, name):
    """The kind of an array of objects (n,)."""
    present = cells[~_missing(cells)]
    found = {kind: _kind_of_type(kind) for kind in set(map(type, present))}
    found |= dict.fromkeys(type(cell) for cell in present if isinstance(cell, np.ndarray) and cell.ndim != 1)
    if not found:
        return NOTHING
    cell_of = {kind: reprlib.repr(next(cell for cell in present if type(cell) is kind)) for kind in found}
    for kind, of_cells in found.items():
        if of_cells is None:
            raise ValueError(
                f"Column {name!r} holds {cell_of[kind]} ({kind.__name__}). A column holds numbers, text, categories, booleans, "
                "dates, durations or lists of labels: drop it, or make it one of these."
            )
    if len(set(found.values())) > 1:
        (first, one), (second, other) = sorted({of: kind for kind, of in found.items()}.items())[:2]
        raise ValueError(
            f"Column {name!r} mixes {first} and {second}: {cell_of[one]} and {cell_of[other]}. Make it one of them, as by "
            "astype(str) in pandas."
        )
    return next(iter(found.values()))


def _kind_of_type(kind):
    return next((of for types, of in TYPES if issubclass(kind, types)), None)
