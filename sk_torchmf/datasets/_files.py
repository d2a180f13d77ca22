"""Ratings files of any common layout, read to arrays."""

import os
from functools import partial
from numbers import Integral
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch
from sklearn.utils._param_validation import validate_params

from sk_torchmf.datasets._cells import CellError, Ids, Numbers, Times
from sk_torchmf.datasets._columns import ROLES, check_given, choose_columns
from sk_torchmf.datasets._opening import is_parquet, open_text
from sk_torchmf.datasets._record_tables import JsonTable, ParquetTable, is_json
from sk_torchmf.datasets._text_table import TextTable
from sk_torchmf.exceptions import warn
from sk_torchmf.inputs.labels import encode
from sk_torchmf.interactions import Interactions

MISSING = {"nan", "null", "none", "na", "n/a", "<na>", "nat", "\\n"}  # as other tools write it


@validate_params(
    {"path": [str, os.PathLike], **{role: [str, Integral, None] for role in ROLES}},
    prefer_skip_nested_validation=True,
)
def load_ratings(path, *, user=None, item=None, rating=None, timestamp=None):
    r"""Load a ratings file.

    Nothing is guessed where a header says it: columns are found by their names, in any order, and what cannot be read as it is
    meant is refused with words.

    Parameters
    ----------
    path : str or path-like
        Text, JSON or Parquet, plain or packed by gzip, bzip2, xz, Zstandard or zip with one file in it; told by the first bytes,
        never by the name. See Notes.
    user, item, rating, timestamp : str or int, optional
        A column's name in the header or its position, from 0. By default the header's names tell (user, customer or reviewer, item,
        movie, product or ASIN, rating, score, stars or overall, time or date, and their like, with ``id`` or without:
        ``reviewerID``, ``Book-Rating``, ``user_id:token``); without a header, columns are user, item, rating and, optionally,
        timestamp. Columns in no role are ignored.

    Returns
    -------
    Bunch
        ``data``, ndarray of shape (n, 2): user and item ids as in the file, int64, or str where a column is not plain integers;
        ``target``, ndarray of shape (n,), float32: ratings, None where a header names a user and an item and no other column but
        times; ``timestamps``, ndarray of shape (n,), int64, float64 if fractional, or None; ``interactions``: the same as a
        container with ids from 0, which are positions in ``user_labels`` and ``item_labels``; ``DESCR``.

    Raises
    ------
    OSError
        Where the file cannot be opened.
    ValueError
        Where it is empty, of a format that is not read, a header does not say which column is which, or a cell is not what its
        column must hold; the message names the line and the cure.

    Warns
    -----
    InputWarning
        Where times that were not asked for cannot be read, and are left out; where order alone tells the columns and their numbers
        are unlike ratings and times; and where an id is ``nan``, ``NULL`` or the like.

    Notes
    -----
    - **Text** in UTF-8, or UTF-16 with a byte order mark, separated by ``::``, tab, comma, semicolon, pipe or blanks, which the
      first lines tell: MovieLens's ``u.data``, ``ratings.dat``, ``ratings.csv``, RecBole's ``.inter`` and their like. Comments
      (``#``, ``%``) above the first row are skipped, unless one has the columns' names. Rows are all of one length.
    - **JSON** with an object for each rating: one on a line, or all in one array.
    - **Parquet** by pyarrow or polars; Zstandard by Python 3.14, zstandard or pyarrow: whichever is installed.
    - **Ids** of a text file are text unless every one in the column is an integer without sign and leading zeros. In JSON and
      Parquet they have the type that they come with: ``"7"`` stays text, 7.0 is 7.
    - **Ratings** may have a decimal comma (``3,5``) or a word behind them (``5.0 stars``).
    - **Times** that are numbers are kept as they stand, whatever their unit; dates and times of ISO 8601 (``2005-09-06``,
      ``2005-09-06 12:30:00+02:00``) become Unix seconds, UTC unless they say otherwise.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from sk_torchmf.datasets import load_ratings
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "ratings.csv")
    ...     _ = path.write_text("user,item,rating\nann,tea,5\nbob,tea,3.5\nann,milk,1\n")
    ...     ratings = load_ratings(path)
    >>> ratings.interactions, ratings.target
    (<Interactions dataset (2 users x 2 items x 3 interactions)>, array([5. , 3.5, 1. ], dtype=float32))

    Names that say nothing are refused unless it is said what they mean:

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "answers.csv")
    ...     _ = path.write_text("what,who,how\ntea,ann,5\n")
    ...     load_ratings(path, user="who", item="what", rating="how").data
    array([['ann', 'tea']], dtype='<U3')
    """
    path, given = Path(path), {"user": user, "item": item, "rating": rating, "timestamp": timestamp}
    check_given(given)
    open_lines = partial(open_text, path)
    if is_parquet(path):
        arrays = _read_table(ParquetTable(path), given)
    elif is_json(open_lines):
        arrays = _read_table(JsonTable(path), given)
    else:
        arrays = read_ratings(open_lines, path, **given)
    what = "ratings" if "ratings" in arrays else "interactions"
    return as_bunch(arrays, f"{len(arrays['user_ids'])} {what} from {path.name}")


def read_ratings(open_lines, name, **given):
    """Read the lines of a ratings file.

    Parameters
    ----------
    open_lines : callable
        Opens the text from its beginning, as a context manager.
    name : str or Path
        Of the file, for messages.
    **given : int, str or None
        Positions or names of columns by role.

    Returns
    -------
    dict of ndarray
        ``user_ids, item_ids``, int32: positions in the sorted labels ``user_raw, item_raw``; ``ratings``, float32, and
        ``timestamps`` where the file has them.
    """
    given = {role: given.get(role) for role in ROLES}
    try:
        return _read_table(TextTable(open_lines, name, given), given)
    except UnicodeDecodeError as error:
        cure = 'If it is Latin-1: path.write_text(path.read_text("latin-1"), "utf-8")'
        raise ValueError(f"{name} is no ratings file in UTF-8: {error}. Convert it first. {cure}.") from None


def _read_table(table, given):
    columns = choose_columns(table, given)
    if (values := table.read_numbers(columns)) is None:
        values = _read_cells(table, columns)
    arrays = {}
    for side in ("user", "item"):
        codes, labels = values[side] if isinstance(values[side], tuple) else encode(values[side], side)
        arrays[f"{side}_ids"], arrays[f"{side}_raw"] = codes.astype(np.int32, copy=False), labels
        if labels.dtype.kind == "U" and (missing := [label for label in labels.tolist() if label.lower() in MISSING]):
            cure = "Drop its rows if it stands for a missing value"
            warn(f"{table.name} has {missing[0]!r} among its {side} ids, and it was read as one. {cure}.")
    if "rating" in columns:
        arrays["ratings"] = values["rating"].astype(np.float32, copy=False)
    if "timestamp" in columns:
        arrays["timestamps"] = values["timestamp"]
    return arrays


def _read_cells(table, columns):
    """Columns of anything, cell by cell, which can name the cell that is wrong."""
    makers = {"rating": Numbers, "timestamp": Times}
    readers = {role: makers[role]() if role in makers else Ids(role, table.typed) for role in columns}
    n_rows = 0
    try:
        for block in table.blocks(columns):
            for reader, values in zip(readers.values(), block, strict=True):
                reader.add(values)
            n_rows += len(block[0])
        if not n_rows:
            raise ValueError(f"{table.name} has a header and no rating below it.")
        return {role: reader.finish() for role, reader in readers.items()}
    except CellError as error:
        text = f"has the {error.role} {repr(error.value)[:99]}, which must be {error.rule}"
        raise ValueError(f"{table.name}, {table.place(error.row)}, {text}.") from None


def as_bunch(arrays, descr):
    """Bundle the arrays of ``read_ratings`` as the public functions return them."""
    user, item, users, items = (arrays[name] for name in ("user_ids", "item_ids", "user_raw", "item_raw"))
    rating, timestamps = arrays.get("ratings"), arrays.get("timestamps")
    return Bunch(
        data=np.column_stack([users[user], items[item]]),
        target=rating,
        timestamps=timestamps,
        interactions=Interactions(user, item, rating, timestamps, num_users=len(users), num_items=len(items)),
        user_labels=users,
        item_labels=items,
        DESCR=descr,
    )
