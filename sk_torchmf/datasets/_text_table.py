"""A table in a text file: its separator, comments and header told from its first lines, its cells as text, by blocks of rows.

By the csv module and ``numpy.loadtxt``, though pandas, polars and pyarrow read CSV two to three times as fast: these take 007 for 7
and NA for nothing, or, told not to, cannot say in which line a cell is wrong, and know neither ``::`` nor runs of blanks. This
reader would stay beside them, and the two would differ in what they take.
"""

import contextlib
import csv
import re
from itertools import islice

import numpy as np

from sk_torchmf.datasets._cells import number, whole_if_all_are
from sk_torchmf.datasets._columns import LETTERS, rank_name, roles_told

SEPARATORS = ("\t", "::", ",", ";", "|", None)  # None: blanks, of any number
NOTHING = " \t\r\n,;|"  # of which a blank line is made
N_SAMPLE = 10  # rows
BLOCK = 256  # rows; more lists at a time wake the garbage collector, which goes through all of torch
N_CHARACTERS = 2**20
RULE = "must be user, item, rating[, timestamp], separated by ::, tab, comma, semicolon, pipe or blanks"
NUMBER_TYPES = {"user": np.int64, "item": np.int64, "rating": np.float64}


class TextTable:
    """Rows of text.

    Parameters
    ----------
    open_lines : callable
        Opens the text from its beginning, as a context manager.
    name : str or Path
        Of the file, for messages.
    given : dict
        Names or positions of columns by role, or None.

    Attributes
    ----------
    names : list of str or None
        The header's; None where there is none.
    n_columns : int
    sample : list of list of str
        The first rows.
    typed : bool
        False: every cell is text.
    """

    typed = False

    def __init__(self, open_lines, name, given):
        self.open_lines, self.name = open_lines, name
        comment, numbers, lines = self._first_lines()
        if not lines:
            raise ValueError(f"{name} is empty. It must have a line for each rating: user, item, rating[, timestamp].")
        self.separator = _choose_separator(lines)
        rows = _split(lines, self.separator)
        if not rows:
            raise self._error(numbers[0], f"has a field of more than {csv.field_size_limit()} characters")
        first = [field.strip() for field in rows[0]]
        pairs = roles_told(first) >= {"user", "item"} or None not in (given["user"], given["item"])
        if len(first) < 3 and not (len(first) == 2 and pairs):
            raise self._error(numbers[0], f"{RULE}. Got {lines[0].strip()[:99]!r}")
        self.n_columns, self.n_skipped = len(first), numbers[0] - 1
        self.names = _names_in_comment(comment, len(first))
        if self.names is None and _is_header(first, rows[1:], given):
            self.names, self.n_skipped, rows = first, numbers[0], rows[1:]
        self.sample = [row for row in rows if len(row) == self.n_columns]

    def _first_lines(self):
        """Return the last comment above the first row, and numbers and text of the first lines, less comments and blank ones."""
        comment = ""
        numbers: list[int] = []
        lines: list[str] = []
        with self.open_lines() as every:
            for at, line in enumerate(every, 1):
                if not line.strip(NOTHING) or (not lines and re.match(r"sep=.$", line)):  # a line of Excel's
                    continue
                if not lines and line.startswith(("#", "%")) and not _is_rating(line):
                    comment = line
                    continue
                numbers.append(at)
                lines.append(line)
                if len(lines) > N_SAMPLE:
                    break
        return comment, numbers, lines

    def _error(self, line, message):
        return ValueError(f"{self.name}, line {line}, {message}.")

    def first_cell(self, at):
        """Return the first cell of a column, None where there is none."""
        return next((row[at] for row in self.sample), None)

    def read_numbers(self, columns):
        """Read columns of numbers only, by NumPy's compiled parser.

        Parameters
        ----------
        columns : dict of int
            Positions by role.

        Returns
        -------
        dict of ndarray or None
            None where there is anything else: ids with signs or zeros in front, rows of another length, separators in quotes.
        """
        cell = self.first_cell(columns["timestamp"]) if "timestamp" in columns else None
        types = {**NUMBER_TYPES, "timestamp": np.int64 if cell and cell.strip().isdecimal() else np.float64}
        fields, positions, blocks = [(role, types[role]) for role in columns], list(columns.values()), []
        whole = [at for role, at in columns.items() if types[role] is np.int64]
        with self.open_lines() as every:
            for _ in range(self.n_skipped):
                every.readline()
            mark = _delimiter(self.separator)
            while text := every.read(N_CHARACTERS) + every.readline():
                lines = text.removesuffix("\n").split("\n")
                if self.separator is None:
                    lines = list(_simplify(lines, None))
                    text = "\n".join(lines)
                elif self.separator == "::":
                    text = text.replace("::", "\t")
                    lines = text.removesuffix("\n").split("\n")
                n_marks = text.count(mark) / (self.n_columns - 1)
                if n_marks != len(lines):
                    lines = [line for line in lines if line.strip()]
                    text = "\n".join(lines)
                if n_marks != len(lines) or _has_odd_integer(text, mark, self.n_columns, whole):
                    return None
                try:
                    blocks.append(np.loadtxt(lines, fields, None, mark, usecols=positions, ndmin=1, quotechar='"'))
                except ValueError:
                    return None
        if not sum(map(len, blocks)):
            return None
        values = {role: np.concatenate([block[role] for block in blocks]) for role in columns}
        if any((values[side] < 0).any() for side in ("user", "item")) or not all(np.isfinite(own).all() for own in values.values()):
            return None
        if "rating" in values and np.abs(values["rating"]).max() > np.finfo(np.float32).max:
            return None
        if "timestamp" in values:
            values["timestamp"] = whole_if_all_are(values["timestamp"])
        return values

    def blocks(self, columns):
        """Yield the columns at the positions of ``columns``, block by block of rows."""
        n_rows = 0
        with self.open_lines() as every:
            reader = _reader(islice(every, self.n_skipped, None), self.separator)
            while True:
                try:
                    rows = list(islice(reader, BLOCK))
                except csv.Error as error:
                    advice = "Double the quotes inside a field, and close the quotes around it"
                    message = f"{self.place(None)}, has a quote that is not closed, or a field that is too long ({error})"
                    raise ValueError(f"{self.name}, {message}. {advice}.") from None
                if not rows:
                    return
                rows = [row for row in rows if row and (row[0].strip() or "".join(row).strip())]
                if set(map(len, rows)) - {self.n_columns}:
                    self._check_lengths(rows, n_rows)
                    rows = [row[: self.n_columns] for row in rows]
                n_rows += len(rows)
                cells = list(zip(*rows, strict=True)) or [()] * self.n_columns
                yield [cells[at] for at in columns.values()]

    def _check_lengths(self, rows, n_before):
        """Refuse rows of another length than the first, but for separators at their end."""
        for at, row in enumerate(rows, n_before):
            if len(row) < self.n_columns or "".join(row[self.n_columns :]).strip():
                what = f"has {len(row)} fields, but the first line has {self.n_columns}: {str(row)[:99]}"
                raise ValueError(f"{self.name}, {self.place(at)}, {what}.")

    def place(self, row):
        """Say in which line a row begins; for None, the first row that cannot be parsed."""
        with self.open_lines() as every:
            reader = _reader(islice(every, self.n_skipped, None), self.separator)
            n_rows, line = 0, self.n_skipped + 1
            with contextlib.suppress(csv.Error):
                for fields in reader:
                    if "".join(fields).strip():
                        if n_rows == row:
                            break
                        n_rows += 1
                    line = self.n_skipped + reader.line_num + 1
        return f"line {line}"


def _delimiter(separator):
    """The separator of one character that ``_simplify`` leaves."""
    return separator if separator in (",", ";", "|") else "\t"


def _simplify(lines, separator):
    """Lines with a separator of one character."""
    if separator is None:
        return ("\t".join(line.split()) for line in lines)
    return (line.replace("::", "\t") for line in lines) if separator == "::" else lines


def _has_odd_integer(text, mark, n_columns, whole):
    """Whether rows may have an integer that does not print as it stands, 007 or -0, or in the columns ``whole`` any other text.

    NumPy makes 1 of an integer that is 1.5, and only warns.
    """
    code = np.frombuffer(f"\n{text.removesuffix(chr(10))}\n".encode(), dtype=np.uint8)
    digit = code - ord("0") < 10
    first = ~digit & (code != ord("."))  # before the first digit of an integer
    if "+" in text or (first[:-2] & (code[1:-1] == ord("0")) & digit[2:]).any():
        return True
    ends = (code == ord(mark)) | (code == ord("\n"))  # of fields; that of no field comes first
    other = np.flatnonzero(~(digit | ends | (code == ord(" ")) | (code == ord('"')) | (code == ord("\r"))))
    column = (np.searchsorted(np.flatnonzero(ends), other) - 1) % n_columns
    return bool(np.isin(column, whole).any())


def _reader(lines, separator):
    return csv.reader(_simplify(lines, separator), delimiter=_delimiter(separator), strict=True)


def _split(lines, separator):
    """Split lines into rows, also where quotes do not close, which the reading of the whole will refuse; none where that fails."""
    for strict in (True, False):
        with contextlib.suppress(csv.Error):
            rows = csv.reader(_simplify(lines, separator), delimiter=_delimiter(separator), strict=strict)
            return [row for row in rows if any(map(str.strip, row))]
    return []


def _choose_separator(lines):
    """Choose the separator that makes rows of one length, and the most numbers and known names, out of the first lines."""

    def score(separator):
        rows = _split(lines, separator)
        lengths = set(map(len, rows))
        understood = sum(number(cell) is not None or rank_name(cell) is not None for row in rows for cell in row)
        return len(lengths) == 1 and min(lengths) > 1, bool(rows) and len(rows[0]) > 2, understood

    return max(SEPARATORS, key=score)


def _is_rating(line):
    """Whether a line that begins like a comment is a rating by somebody called #1."""
    rows = _split([line], _choose_separator([line]))
    return line[1:2] not in " \t#%\r\n" and bool(rows) and len(rows[0]) > 2 and number(rows[0][2]) is not None


def _names_in_comment(comment, n_columns):
    """Return the names of the columns where the comment above them says them, as ``numpy.savetxt`` writes it; else None."""
    for separator in SEPARATORS:
        for row in _split([comment.lstrip("#% \t")], separator):
            if len(row) == n_columns and len(roles_told(row)) > 1:
                return [name.strip() for name in row]
    return None


def _is_header(first, rest, given):
    """Whether the first row is one of names: some are known, are asked for, or stand where the next row has a number."""
    told = roles_told(first)
    letters = all(field.lower() in LETTERS for field in first if rank_name(field))
    if any(isinstance(key, str) for key in given.values()) or told >= {"user", "item", "rating"} or not first[0]:
        return True
    at = 2 if given["rating"] is None else given["rating"]
    if at >= len(first):  # no ratings
        return len(told) > 1 and not letters
    if number(first[at]) is not None:
        return False
    below = [row[at] for row in rest[:1] if len(row) > at]
    return bool(told) or any(number(cell) is not None for cell in below)
