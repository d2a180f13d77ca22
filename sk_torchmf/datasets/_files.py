"""Ratings files of any common layout, read to arrays."""

import csv
import math
import os
import warnings
from itertools import islice
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch
from sklearn.utils._param_validation import validate_params

from sk_torchmf.inputs.labels import encode
from sk_torchmf.interactions import Interactions

FIELDS = [("user", np.int64), ("item", np.int64), ("rating", np.float64), ("timestamp", np.float64)]


@validate_params({"path": [str, os.PathLike]}, prefer_skip_nested_validation=True)
def load_ratings(path):
    r"""Load a ratings file.

    Parameters
    ----------
    path : str or path-like
        A text file with a rating in each line: user, item, rating and, optionally, a timestamp; further columns are ignored.
        Separated by ``::``, tab, comma, semicolon or blanks, which the first line tells: MovieLens's ``u.data``, ``ratings.dat``,
        ``ratings.csv``, RecBole's ``.inter`` and their like. The first line is a header if its third field is no number. Ids may be
        any text; a column of whole numbers becomes int64.

    Returns
    -------
    Bunch
        ``data``, ndarray of shape (n, 2): user and item ids as in the file, int64, or str where a column is not numbers;
        ``target``, ndarray of shape (n,), float32: ratings; ``timestamps``, ndarray of shape (n,), int64, float64 if fractional, or
        None; ``interactions``: the same as a container with ids from 0, which are positions in ``user_labels`` and
        ``item_labels``; ``DESCR``.

    Raises
    ------
    OSError
        Where the file cannot be opened.
    ValueError
        Where it is empty or a line is not a rating; the message names the line.

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
    """
    path = Path(path)
    arrays = read_ratings(lambda: path.open(encoding="utf-8-sig", newline=""), path)
    return as_bunch(arrays, f"{len(arrays['ratings'])} ratings from {path.name}")


def read_ratings(open_lines, name):
    """Read the lines of a ratings file.

    Parameters
    ----------
    open_lines : callable
        Opens the text from its beginning.
    name : str or Path
        Of the file, for messages.

    Returns
    -------
    dict of ndarray
        ``user_ids, item_ids``, int32: positions in the sorted labels ``user_raw, item_raw``; ``ratings``, float32; ``timestamps``
        where the file has them.
    """
    try:
        layout = _Layout(open_lines, name)
        columns = layout.read_numbers() or layout.read_text()
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{name} is no ratings file in UTF-8: {error}. Unpack or convert it first.") from None
    user, item, rating, *timestamps = columns
    arrays = {"ratings": rating.astype(np.float32)}
    for side, ids in (("user", user), ("item", item)):
        codes, arrays[f"{side}_raw"] = encode(ids, side)
        arrays[f"{side}_ids"] = codes.astype(np.int32)
    for seconds in timestamps:
        arrays["timestamps"] = seconds.astype(np.int64) if (seconds == np.floor(seconds)).all() else seconds
    return arrays


class _Layout:
    """How a file separates its fields and where its ratings begin, told from its first line."""

    def __init__(self, open_lines, name):
        self.open_lines, self.name = open_lines, name
        with open_lines() as lines:
            number, first = next(((number, line) for number, line in enumerate(lines, 1) if line.strip()), (0, ""))
        if not first:
            raise ValueError(f"{name} is empty. A ratings file has a line for each rating: user, item, rating[, timestamp].")
        self.separator = next((mark for mark in ("\t", "::", ",", ";") if mark in first), None)
        self.delimiter = self.separator if self.separator in (",", ";") else "\t"
        fields = next(csv.reader(self._simplify([first]), delimiter=self.delimiter))
        if len(fields) < 3:
            rule = "must be user, item, rating[, timestamp], separated by ::, tab, comma, semicolon or blanks"
            raise self._error(number, f"{rule}. Got {first.strip()[:99]!r}")
        self.fields = FIELDS[: len(fields)]
        self.n_skipped = 0 if _number(fields[2]) is not None else number
        if self.n_skipped and "time" in fields[2].lower():
            raise self._error(number, f"has the column {fields[2]!r} in third place, which must be the rating's")

    def _error(self, number, message):
        return ValueError(f"{self.name}, line {number}, {message}.")

    def _simplify(self, lines):
        """Lines with a separator of one character."""
        if self.separator is None:
            return ("\t".join(line.split()) for line in lines)
        return (line.replace("::", "\t") for line in lines) if self.separator == "::" else lines

    def read_numbers(self):
        """Columns of a file of numbers only, by the compiled parser; None where there is anything else."""
        columns = range(len(self.fields))
        with self.open_lines() as lines, warnings.catch_warnings():
            warnings.simplefilter("error")  # NumPy only warns of an id that is 1.5
            rows = self._simplify(islice(lines, self.n_skipped, None))
            try:
                table = np.loadtxt(rows, self.fields, None, self.delimiter, usecols=columns, ndmin=1, quotechar='"')
            except UnicodeDecodeError:
                raise
            except (ValueError, Warning):
                return None
        values = [table[name] for name, _ in self.fields]
        return values if all(np.isfinite(column).all() for column in values) else None

    def read_text(self):
        """Columns of any file, line by line, which can name the line that is wrong."""
        columns: list[list] = [[] for _ in self.fields]
        read = self.n_skipped
        with self.open_lines() as lines:
            rows = csv.reader(self._simplify(islice(lines, read, None)), delimiter=self.delimiter)
            for values in rows:
                number, read = read + 1, self.n_skipped + rows.line_num
                if not "".join(values).strip():
                    continue
                if len(values) < len(columns):
                    raise self._error(
                        number, f"has {len(values)} fields, but the first line has {len(columns)}: {str(values)[:99]}"
                    )
                for (name, dtype), value, column in zip(self.fields, values, columns, strict=False):
                    column.append(value.strip() or None if dtype is np.int64 else _number(value))
                    if column[-1] is None:
                        rule = "an id" if dtype is np.int64 else "a finite number"
                        raise self._error(number, f"has the {name} {value!r}, which must be {rule}")
        if not columns[0]:
            raise ValueError(f"{self.name} has a header and no rating below it.")
        user, item, *numbers = columns
        return [_whole(user), _whole(item), *map(np.array, numbers)]


def _number(text):
    """Return the finite number that a text is, else None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _whole(ids):
    """Turn ids into int64 where all are whole numbers that print as they stood, else as text."""
    text = np.array(ids)
    try:
        number = text.astype(np.int64)
    except (ValueError, OverflowError):
        return text
    return number if (number.astype(str) == text).all() else text


def as_bunch(arrays, descr):
    """Bundle the arrays of ``read_ratings`` as the public functions return them."""
    user, item, users, items = (arrays[name] for name in ("user_ids", "item_ids", "user_raw", "item_raw"))
    rating, timestamps = arrays["ratings"], arrays.get("timestamps")
    return Bunch(
        data=np.column_stack([users[user], items[item]]),
        target=rating,
        timestamps=timestamps,
        interactions=Interactions(user, item, rating, timestamps, num_users=len(users), num_items=len(items)),
        user_labels=users,
        item_labels=items,
        DESCR=descr,
    )
