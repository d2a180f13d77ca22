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

    Columns are found by the names in the header, in any order. What cannot be read with certainty raises an error that says so.

    Parameters
    ----------
    path : str or path-like
        A file of text, JSON or Parquet, plain or compressed by gzip, bzip2, xz, Zstandard or zip (with one file in it). The format
        is recognised by the first bytes, never by the name. See Notes.
    user, item, rating, timestamp : str or int, optional
        A column's name in the header, or its position, from 0. By default the columns are recognised by their names (user, customer
        or reviewer; item, movie, product or ASIN; rating, score, stars or overall; time or date; and similar ones, with or without
        ``id``: ``reviewerID``, ``Book-Rating``, ``user_id:token``). Without a header the columns are user, item, rating and,
        optionally, timestamp. Other columns are ignored.

    Returns
    -------
    Bunch
        ``data``, ndarray of shape (n, 2): user and item ids as in the file, int64, or str if a column is not plain integers;
        ``target``, ndarray of shape (n,), float32: ratings, or None if the header names a user, an item and no other columns but
        times; ``timestamps``, ndarray of shape (n,), int64, or float64 if fractional, or None; ``interactions``: the same data as a
        container whose ids count from 0 and are positions in ``user_labels`` and ``item_labels``; ``DESCR``, a description.

    Raises
    ------
    OSError
        If the file cannot be opened.
    ValueError
        If the file is empty or of another format, the header does not say which column is which, or a cell has a value that its
        column must not have. The message names the line and what to do.

    Warns
    -----
    InputWarning
        If times that were not asked for cannot be read, and are left out; if there is no header and the numbers do not look like
        ratings and times; and if an id is ``nan``, ``NULL`` or the like.

    Notes
    -----
    - **Text** in UTF-8, or UTF-16 with a byte order mark. The separator is ``::``, tab, comma, semicolon, pipe or blanks, and is
      recognised by the first lines: MovieLens's ``u.data``, ``ratings.dat`` and ``ratings.csv``, RecBole's ``.inter`` and similar
      files. Comments (``#``, ``%``) above the first row are skipped, unless one has the names of the columns. All rows must have
      the same length.
    - **JSON** with an object for each rating: each on a line of its own, or all in one array.
    - **Parquet** needs pyarrow or polars, and Zstandard needs Python 3.14, zstandard or pyarrow.
    - **Ids** of a text file are text, unless all ids of the column are integers without sign and leading zeros. In JSON and
      Parquet they keep their type: ``"7"`` stays text, 7.0 is 7.
    - **Ratings** may have a decimal comma (``3,5``) or be followed by a word (``5.0 stars``).
    - **Times** that are numbers are kept as they are, whatever their unit. Dates and times in ISO 8601 (``2005-09-06``,
      ``2005-09-06 12:30:00+02:00``) become Unix seconds; they are in UTC if they name no time zone.

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

    If the header does not tell the columns, name them:

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
        advice = 'If it is Latin-1: path.write_text(path.read_text("latin-1"), "utf-8")'
        raise ValueError(f"{name} must be text in UTF-8: {error}. Convert it first. {advice}.") from None


def _read_table(table, given):
    columns = choose_columns(table, given)
    if (values := table.read_numbers(columns)) is None:
        values = _read_cells(table, columns)
    arrays = {}
    for side in ("user", "item"):
        codes, labels = values[side] if isinstance(values[side], tuple) else encode(values[side], side)
        arrays[f"{side}_ids"], arrays[f"{side}_raw"] = codes.astype(np.int32, copy=False), labels
        if labels.dtype.kind == "U" and (missing := [label for label in labels.tolist() if label.lower() in MISSING]):
            advice = "If it stands for a missing value, drop its rows"
            warn(f"{table.name} has {missing[0]!r} among its {side} ids, and it was read as one. {advice}.")
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
            raise ValueError(f"{table.name} must have at least one rating below its header. It has none.")
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
