"""Checks Arrow columns of ids, numbers and times, and finds distinct labels: integers as NumPy arrays, text as Arrow arrays."""

import numpy as np

from sk_torchmf._validation import LARGEST, raise_tiny
from sk_torchmf.inputs.id_types import INT64, align, as_values

N_PENDING = 2**16  # labels that wait until they are merged


class ArrowColumns:
    """Reads columns of Arrow.

    Labels of ids are an ndarray of int64, or of uint64 where these are too large for it; or Arrow's large_string.

    Parameters
    ----------
    pyarrow : module
    """

    def __init__(self, pyarrow):
        self.pa, self.compute, self.types = pyarrow, pyarrow.compute, pyarrow.types

    def ids(self, column, role, place):
        """Read a column of ids as ``(codes, labels)``; each of the labels occurs, some perhaps twice."""
        codes, labels = self._encode(column, role, place)
        if column.null_count or (codes < 0).any():
            at = int(np.argmax(codes < 0))
            raise ValueError(f"{role} ids must not be missing. {_upper(place(at))} has none. Drop the row or give it an id.")
        return codes, labels

    def _encode(self, column, role, place):
        kind, types = column.type, self.types
        if types.is_dictionary(kind):
            own, labels = self._encode(column.dictionary, role, place)
            codes = np.append(own, -1)[_codes(column.indices)]
            used = np.bincount(codes[codes >= 0], minlength=len(labels)) > 0
            return np.append(np.cumsum(used) - 1, -1)[codes], self.take(labels, np.flatnonzero(used))
        if types.is_null(kind):
            return np.full(len(column), -1), np.empty(0, dtype=np.int64)
        if types.is_string(kind) or types.is_large_string(kind) or str(kind) == "string_view":
            encoded = column.cast(self.pa.large_string()).dictionary_encode()
            try:
                encoded.dictionary.validate(full=True)
            except self.pa.ArrowInvalid as error:
                raise ValueError(
                    f"{role} ids must be text in UTF-8. Got other bytes in the rows up to {place(len(column) - 1)}: {error}."
                ) from None
            return _codes(encoded.indices), encoded.dictionary
        if not types.is_integer(kind) and not types.is_floating(kind):
            raise TypeError(
                f"{role} ids must be whole numbers or text. {_upper(place(0))} is of type {kind}. Cast the column to int64 or "
                "string."
            )
        encoded = column.dictionary_encode()
        codes, labels = _codes(encoded.indices), encoded.dictionary.to_numpy(zero_copy_only=False)
        if labels.dtype.kind == "f":
            bad = ~np.isfinite(labels) | (np.floor(labels) != labels)
            if bad.any():
                at = int(np.argmax(np.append(bad, False)[codes]))
                rule = f"{role} ids must be whole numbers or text. {_upper(place(at))} has {labels[codes[at]]}."
                raise ValueError(f"{rule} Drop the row, or cast the column to string.")
        return codes, as_values(labels, role)

    def numbers(self, column, role, place):
        """Read a column of ratings or weights, float64 or what it is of a smaller type: finite."""
        kind, types = column.type, self.types
        if types.is_dictionary(kind):
            return self.numbers(column.dictionary_decode(), role, place)
        if not (types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind) or types.is_boolean(kind)):
            if types.is_null(kind) and len(column):
                raise ValueError(f"{role} must not be missing. {_upper(place(0))} has none. Drop the row or fill it in.")
            raise TypeError(f"{role} must be numbers. {_upper(place(0))} is of type {kind}. Cast the column to float32.")
        if column.null_count:
            at = int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
            raise ValueError(f"{role} must not be missing. {_upper(place(at))} has none. Drop the row or fill it in.")
        if types.is_decimal(kind) or types.is_boolean(kind):
            column = column.cast(self.pa.float64() if types.is_decimal(kind) else self.pa.uint8())
        values = column.to_numpy(zero_copy_only=False)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            at = int(np.argmin(np.isfinite(values)))
            raise ValueError(f"{role} must be finite. {_upper(place(at))} has {values[at]}. Drop the row or fill it in.")
        return values

    def weights(self, column, place):
        """Read a column of weights, float32: finite and >= 0."""
        values = self.numbers(column, "weight", place)
        bad = (values < 0) | (values > LARGEST)
        if bad.any():
            at = int(np.argmax(bad))
            raise ValueError(f"weight must be from 0 to {LARGEST}. {_upper(place(at))} has {values[at]}.")
        return raise_tiny(values.astype(np.float64)).astype(np.float32)

    def times(self, column, place):
        """Read a column of times: int64 or float64 for numbers, else NumPy's times in the column's unit, UTC."""
        kind, types = column.type, self.types
        if types.is_date(kind) or types.is_timestamp(kind):
            if column.null_count:
                at = int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
                raise ValueError(f"timestamp must not be missing. {_upper(place(at))} has none. Drop the row or fill it in.")
            return column.to_numpy(zero_copy_only=False)
        values = self.numbers(column, "timestamp", place)
        return values.astype(np.float64 if values.dtype.kind == "f" else np.int64)

    def unique(self, values):
        """Distinct numbers of an array, in any order, and which of them each is."""
        encoded = self.pa.array(values).dictionary_encode()
        return encoded.dictionary.to_numpy(), _codes(encoded.indices)

    def take(self, labels, at):
        """Some of the labels, by position."""
        return labels[at] if isinstance(labels, np.ndarray) else labels.take(self.pa.array(at))

    def objects(self, labels):
        """Labels as an ndarray: int64, uint64, or objects that are str."""
        return labels if isinstance(labels, np.ndarray) else labels.to_numpy(zero_copy_only=False)

    def join(self, parts, role):
        """Labels of one type from several arrays of such."""
        kinds = {isinstance(part, np.ndarray) for part in parts if len(part)}
        if len(kinds) > 1:
            raise TypeError(
                f"{role} ids must be of one type in all of the data. Got numbers and text. Cast one to the other's type."
            )
        parts = [part for part in parts if len(part)] or parts[:1]
        if not isinstance(parts[0], np.ndarray):
            return self.pa.concat_arrays(parts)
        if len({part.dtype for part in parts}) > 1:
            signed, unsigned = (
                np.concatenate([part for part in parts if part.dtype.kind == kind] or [np.empty(0, f"{kind}8")]) for kind in "iu"
            )
            parts = align(signed, unsigned)
            if parts[0].dtype.kind == "O":
                rule = f"{role} ids must lie between 0 and 2**64 - 1, or between {INT64.min} and {INT64.max}."
                raise ValueError(f"{rule} Got {signed.min()} and {unsigned.max()}. Cast the column to string.")
        return np.concatenate(parts)

    def sort(self, labels):
        """Sorted distinct labels, as ``labels.encode`` sorts them, and which of them each label is."""
        if isinstance(labels, np.ndarray):
            return np.unique(labels, return_inverse=True)
        encoded = labels.dictionary_encode()
        order = self.compute.sort_indices(encoded.dictionary).to_numpy()  # bytes of UTF-8 sort as characters do
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        return encoded.dictionary.take(self.pa.array(order)), place[_codes(encoded.indices)]

    def find(self, labels, among):
        """Where labels stand among sorted ones; -1 for those that do not."""
        if isinstance(labels, np.ndarray) != isinstance(among, np.ndarray) or not len(among):
            return np.full(len(labels), -1)
        if isinstance(labels, np.ndarray):
            labels, among = align(labels, among)
            at = np.searchsorted(among, labels).clip(max=len(among) - 1)
            return np.where(among[at] == labels, at, -1)
        return _codes(self.compute.index_in(labels, value_set=among))

    def to_bytes(self, labels):
        """Text labels as bytes, uint8, and the length of each."""
        _, offsets, content = labels.buffers()
        ends = np.frombuffer(offsets, dtype=np.int64)[labels.offset : labels.offset + len(labels) + 1]
        data = np.frombuffer(content, dtype=np.uint8) if content is not None else np.empty(0, dtype=np.uint8)
        return data[ends[0] : ends[-1]], np.diff(ends)

    def from_bytes(self, data, lengths):
        """Text labels from what ``to_bytes`` gave."""
        ends = np.zeros(len(lengths) + 1, dtype=np.int64)
        np.cumsum(lengths, out=ends[1:])
        return self.pa.LargeStringArray.from_buffers(len(lengths), self.pa.py_buffer(ends), self.pa.py_buffer(data))


class LabelSet:
    """The distinct labels of a column that comes in batches.

    Parameters
    ----------
    columns : ArrowColumns
    role : str
        For messages.
    """

    def __init__(self, columns, role):
        self.columns, self.role, self._known, self._pending = columns, role, None, []

    def add(self, labels):
        """Add some; they are merged when as many wait as are known, so that each costs a few comparisons."""
        if self._known is None:
            self._known = self.columns.sort(labels)[0]
            return
        new = self.columns.take(labels, np.flatnonzero(self.columns.find(labels, self._known) < 0))
        if len(new):
            self._pending.append(new)
            if sum(map(len, self._pending)) > max(N_PENDING, len(self._known)):
                self._merge()

    def _merge(self):
        self._known, self._pending = self.columns.sort(self.columns.join([self._known, *self._pending], self.role))[0], []

    def finish(self):
        """Return all, sorted."""
        if self._pending:
            self._merge()
        return self._known


def _codes(indices):
    """Indices of Arrow as int64, -1 for none."""
    return (indices.fill_null(-1) if indices.null_count else indices).to_numpy(zero_copy_only=False).astype(np.int64, copy=False)


def _upper(text):
    return text[:1].upper() + text[1:]
