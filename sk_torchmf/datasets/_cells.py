"""Converts the cells of a table, text or typed, to ids, numbers and times. Knows neither files nor which column is which."""

import math
import re
from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID

import numpy as np

from sk_torchmf.inputs.id_types import is_missing
from sk_torchmf.inputs.labels import encode

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LONGEST = 1000  # characters of an id: labels are arrays as wide as the longest
INTEGER = re.compile(r"0|[1-9][0-9]*")
DECIMAL_COMMA = re.compile(r"([+-]?[0-9]+),([0-9]{1,2}|[0-9]{4,})")  # three digits could be thousands
STARS = re.compile(r"(.*[0-9])\s*stars?", re.IGNORECASE)


class CellError(ValueError):
    """A cell that is not what its column must hold."""

    def __init__(self, role, row, value, rule):
        super().__init__(role, row, value, rule)
        self.role, self.row, self.value, self.rule = role, row, value, rule


def number(cell):
    """Return the finite number that a cell is, else None: 3.5, a decimal comma 3,5, or "5.0 stars"."""
    if isinstance(cell, bool) or cell is None:
        return None
    if isinstance(cell, str):
        if "_" in cell or not cell.isascii():  # which float takes
            return None
        if stars := STARS.fullmatch(cell.strip()):
            cell = stars[1]
        if comma := DECIMAL_COMMA.fullmatch(cell.strip()):
            cell = f"{comma[1]}.{comma[2]}"
    try:
        value = float(cell)
    except (TypeError, ValueError, OverflowError):
        return None
    return value if math.isfinite(value) else None


def seconds(cell):
    """Return the time that a cell is, else None: a number as it stands, a date in Unix seconds, UTC unless it says so."""
    if isinstance(cell, str):
        try:
            return int(cell) if INTEGER.fullmatch(cell) else _since_epoch(_parse_date(cell))
        except ValueError:
            return number(cell)
    if isinstance(cell, date):
        return None if is_missing(cell) else _since_epoch(cell)
    return cell if isinstance(cell, int) and not isinstance(cell, bool) else number(cell)


def _parse_date(text):
    if not re.match(r"\s*[0-9]{4}-", text):  # a number without dashes is a number
        raise ValueError
    return datetime.fromisoformat(re.sub(r"\s*UTC$", "Z", text.strip()))


def _since_epoch(moment):
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    since = (moment - EPOCH).total_seconds()
    return int(since) if since == int(since) else since


class Numbering(dict):
    """Number keys in the order in which they come."""

    def __missing__(self, key):
        self[key] = place = len(self)
        return place


class Parsed(dict):
    """Remember what a text was parsed to: ratings have few values."""

    def __init__(self, parse):
        super().__init__()
        self.parse = parse

    def __missing__(self, key):
        self[key] = value = self.parse(key)
        return value


class Ids:
    """A column of ids.

    Parameters
    ----------
    role : str
        What they are ids of, for messages.
    typed : bool
        Whether cells come with a type, so that the text "7" is not the number 7.
    """

    def __init__(self, role, typed):
        self.role, self.typed = role, typed
        self.numbering, self.codes = Numbering(), []

    def add(self, values):
        """Take in the next cells."""
        own = self.typed and set(map(type, values)) - {str, int}
        keys = list(map(_typed_id, values)) if own else values
        if own and None in keys:
            row = keys.index(None)
            raise CellError(self.role, sum(map(len, self.codes)) + row, values[row], "an id")
        self.codes.append(np.fromiter(map(self.numbering.__getitem__, keys), np.int32, len(values)))

    def finish(self):
        """Return codes, int32, and the labels that they number, sorted: int64 where all are plain integers, else text."""
        codes = np.concatenate(self.codes)
        labels = [label.strip() if isinstance(label, str) else label for label in self.numbering]
        for place, label in enumerate(labels):
            if rule := _broken_rule(label):
                raise CellError(self.role, int(np.flatnonzero(codes == place)[0]), list(self.numbering)[place], rule)
        rank, labels = encode(self._array(labels), self.role)
        return rank.astype(np.int32)[codes], labels

    def _array(self, labels):
        """Labels as int64 where all are plain integers, else as text."""
        plain = not self.typed and all(map(INTEGER.fullmatch, labels))
        whole = list(map(int, labels)) if plain else labels
        if all(isinstance(label, int) and -(2**63) <= label < 2**63 for label in whole):
            return np.array(whole, dtype=np.int64)
        return np.array(list(map(str, labels)))


def _typed_id(cell):
    """An id of a typed table: a whole float is an integer, and what can be no id becomes None."""
    if isinstance(cell, (float, Decimal)):
        return int(cell) if math.isfinite(cell) and cell == int(cell) else None
    if isinstance(cell, (date, UUID)):
        return None if is_missing(cell) else str(cell)
    return cell if isinstance(cell, (str, int)) and not isinstance(cell, bool) else None


def _broken_rule(label):
    """Return the rule that an id breaks, None where it breaks none."""
    if label == "":
        return "an id"
    if isinstance(label, str) and ("\0" in label or len(label) > LONGEST):
        return f"an id without NUL bytes, of at most {LONGEST} characters"
    return None


class Numbers:
    """A column of ratings."""

    role, rule = "rating", "a finite number"

    def __init__(self, parse=number):
        self.parsed, self.blocks, self.n_rows = Parsed(parse), [], 0

    def add(self, values):
        """Take in the next cells."""
        text = set(map(type, values)) == {str}  # of other types, True and 1 are one key
        block = list(map(self.parsed.__getitem__ if text else self.parsed.parse, values))
        if None in block:
            row = block.index(None)
            raise CellError(self.role, self.n_rows + row, values[row], self.rule)
        self.blocks.append(np.array(block))
        self.n_rows += len(block)

    def finish(self):
        """Return the whole column, float32."""
        column = np.concatenate(self.blocks).astype(np.float64)
        too_large = np.abs(column) > np.finfo(np.float32).max
        if too_large.any():
            row = int(np.flatnonzero(too_large)[0])
            raise CellError(self.role, row, float(column[row]), "a number that float32 holds")
        return column.astype(np.float32)


class Times(Numbers):
    """A column of times."""

    role, rule = "timestamp", "a finite number or a date of ISO 8601, such as 2005-09-06"

    def __init__(self):
        super().__init__(seconds)

    def add(self, values):
        """Take in the next cells, as integers if they are, since few times come twice."""
        try:
            text = "".join(values)
            block = np.array(list(map(int, values)), dtype=np.int64)
        except (TypeError, ValueError, OverflowError):
            return super().add(values)
        if "_" in text or not text.isascii():  # which int takes
            return super().add(values)
        self.blocks.append(block)
        self.n_rows += len(block)

    def finish(self):
        """Return the whole column, int64 where all are whole."""
        return whole_if_all_are(np.concatenate(self.blocks))


def whole_if_all_are(values):
    """Turn floats into int64 where all of them are whole."""
    if values.dtype.kind == "f" and (values == np.floor(values)).all() and (np.abs(values) < 2.0**63).all():
        return values.astype(np.int64)
    return values
