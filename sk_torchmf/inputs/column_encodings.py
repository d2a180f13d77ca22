"""How one column of attributes becomes columns of numbers: what is learned of it, and its entries. Knows no table."""

from dataclasses import dataclass

import numpy as np

from sk_torchmf.inputs.cells import CATEGORIES, DATES, DURATIONS, LISTS, NOTHING, NUMBERS, as_labels, as_numbers


@dataclass(frozen=True)
class NumberColumn:
    """How a column of numbers, dates or durations is encoded: ``(x / unit - shift) / scale``.

    Attributes
    ----------
    name : str
    kind : {NUMBERS, DATES, DURATIONS}
    unit, shift, scale : float
        The power of two below the largest number, by which no square overflows; then mean and standard deviation. Where zeros are
        not stored the shift is 0 and the scale the root mean square.
    filler : float
        What a missing cell is encoded as: the mean.
    has_value, has_missing : bool
        Whether there is a column of values, as there is not where all are equal, and one that marks missing cells.
    """

    name: str
    kind: str
    unit: float = 1.0
    shift: float = 0.0
    scale: float = 1.0
    filler: float = 0.0
    has_value: bool = False
    has_missing: bool = False

    @classmethod
    def learn(cls, values, kind, name, min_frequency):
        """Learn it from a column (n,)."""
        row, numbers = as_numbers(values, name)
        missing = np.isnan(numbers)
        present, n_zeros = numbers[~missing], len(values) - len(row)
        n = len(present) + n_zeros
        if n == 0:
            return cls(name, kind)
        one = 0.0 if n_zeros else present[0]
        low, high = present.min(initial=one), present.max(initial=one)
        if low == high:
            return cls(name, kind, has_missing=bool(missing.any()))
        unit = np.ldexp(0.5, np.frexp(max(-low, high))[1])
        present = present / unit
        mean = present.sum() / n
        shift = 0.0 if n_zeros else mean
        scale = np.sqrt(np.square(present - shift).sum() / n)
        unit, shift, scale, filler = map(float, (unit, shift, scale, (mean - shift) / scale))
        return cls(name, kind, unit, shift, scale, filler, has_value=True, has_missing=bool(missing.any()))

    @property
    def width(self):
        """Number of columns it becomes."""
        return int(self.has_value) + int(self.has_missing)

    def names(self, name):
        """Those of the columns, where the column itself is called ``name``."""
        return [name] * self.has_value + [f"{name} (missing)"] * self.has_missing

    def entries(self, values):
        """Encode a column (n,): rows, columns and values of the entries that are stored."""
        row, numbers = as_numbers(values, self.name)
        if self.shift and len(row) < len(values):
            dense = np.zeros(len(values))
            dense[row] = numbers
            row, numbers = np.arange(len(values)), dense
        missing = np.isnan(numbers)
        with np.errstate(over="ignore"):
            encoded = (numbers / self.unit - self.shift) / self.scale
        if np.isinf(encoded).any():
            wrong = numbers[np.isinf(encoded)][0]
            raise ValueError(
                f"Column {self.name!r} holds {wrong}, which is too far from the values that fit saw to be scaled. Clip it."
            )
        encoded[missing] = self.filler
        at = np.zeros(len(row), dtype=np.int64)
        parts = [(row, at, encoded)] if self.has_value else []
        if self.has_missing:
            parts.append((row[missing], at[missing] + self.has_value, np.ones(missing.sum())))
        return [np.concatenate(part) for part in zip(*parts, strict=True)]


@dataclass(frozen=True)
class LabelColumn:
    """How a column of categories, or of lists of labels, is encoded: a one for each label in the cell.

    Attributes
    ----------
    name : str
    kind : {CATEGORIES, LISTS}
    labels : ndarray of shape (n_labels,), object
        Those that have a column of their own: text, sorted.
    has_infrequent, has_missing : bool
        Whether there is a column that all others share, and one that marks missing cells.
    """

    name: str
    kind: str
    labels: np.ndarray
    has_infrequent: bool
    has_missing: bool

    @classmethod
    def learn(cls, values, kind, name, min_frequency):
        """Learn it from a column (n,); a label that is rarer than ``min_frequency`` gets no column of its own."""
        _, code, labels, missing = as_labels(values, kind, name)
        least = min_frequency if min_frequency >= 1 else min_frequency * len(values)
        frequent = np.bincount(code, minlength=len(labels)) >= least
        return cls(name, kind, labels[frequent], not np.all(frequent), bool(missing.any()) and len(labels) > 0)

    @property
    def width(self):
        """Number of columns it becomes."""
        return len(self.labels) + int(self.has_infrequent) + int(self.has_missing)

    def names(self, name):
        """Those of the columns, where the column itself is called ``name``."""
        shared = [f"{name} (infrequent)"] * self.has_infrequent + [f"{name} (missing)"] * self.has_missing
        return [f"{name}={label}" for label in self.labels] + shared

    def entries(self, values):
        """Encode a column (n,): rows, columns and values of the entries that are stored."""
        row, code, labels, missing = as_labels(values, self.kind, self.name)
        places = dict(zip(self.labels, range(len(self.labels)), strict=True))
        other = len(self.labels) if self.has_infrequent else -1
        at = np.array([places.get(label, other) for label in labels], dtype=np.int64)[code]
        row, at = np.divmod(np.unique((row * self.width + at)[at >= 0]), self.width)  # of several rare labels one
        if self.has_missing:
            gone = np.flatnonzero(missing)
            row, at = np.concatenate([row, gone]), np.concatenate([at, np.full(len(gone), self.width - 1)])
        return row, at, np.ones(len(row))


COLUMNS = dict.fromkeys((NUMBERS, DATES, DURATIONS), NumberColumn) | dict.fromkeys((CATEGORIES, LISTS, NOTHING), LabelColumn)
