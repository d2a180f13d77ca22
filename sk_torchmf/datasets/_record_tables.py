"""Tables whose cells come with a type: JSON lines, and Parquet, which is read by whichever library is installed."""

import importlib
import io
import json
import re
from itertools import chain, islice

import numpy as np

from sk_torchmf.datasets._opening import open_bytes, open_text

JSON = re.compile(r"""\s*(\{\s*(["'}]|$)|\[\s*([\[{\]]|$))""")
N_SAMPLE, BLOCK = 10, 256  # few objects at a time, as in a text table


def is_json(open_lines):
    """Whether a text begins as JSON does; an id may begin with a bracket too, so what follows it counts."""
    with open_lines() as lines:
        return bool(JSON.match(next((line for line in lines if line.strip()), "")))


class JsonTable:
    """JSON lines, an object for each rating, or one array of such objects; to whoever reads it as a ``TextTable``.

    Parameters
    ----------
    path : Path
    """

    typed = True

    def __init__(self, path):
        self.path = self.name = path
        self.sample = [record for _, record in islice(self._records(), N_SAMPLE)]
        self.names = list(dict.fromkeys(chain(*self.sample)))
        self.n_columns = len(self.names)
        if not self.names:
            example = '{"user": 1, "item": 2, "rating": 3.5}'
            raise ValueError(f"{self.name} must have at least one rating. Each is a JSON object such as {example}.")
        if all(isinstance(value, (dict, list)) for value in self.sample[0].values()):
            advice = 'From pandas, write it with frame.to_json(path, orient="records", lines=True)'
            raise ValueError(f"{self.name} must have one JSON object per rating. Got one object with whole columns. {advice}.")

    def _records(self):
        """Yield the number of each object's line, or its own where all are one array, and the object."""
        with open_text(self.path) as lines:
            at, first = next((at, line) for at, line in enumerate(lines, 1) if line.strip())
            array = first.lstrip().startswith("[")
            if array:
                records = ((n, record) for n, record in enumerate(self._parse(first + lines.read(), None), 1))
            else:
                records = ((n, self._parse(line, n)) for n, line in enumerate(chain([first], lines), at) if line.strip())
            for n, record in records:
                if not isinstance(record, dict):
                    rule = f"must be a JSON object. Got {str(record)[:99]}"
                    raise ValueError(f"{self.name}, {'object' if array else 'line'} {n}, {rule}.")
                yield n, record

    def _parse(self, text, line):
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            rule = "It must have one object per rating, each on a line of its own or all in one array"
            place = f", line {line}," if line else ""
            raise ValueError(f"{self.name}{place} is not valid JSON ({error}). {rule}.") from None

    def first_cell(self, at):
        """Return the first cell of a column."""
        return self.sample[0].get(self.names[at])

    def read_numbers(self, columns):
        """Return None: there is no faster road."""

    def blocks(self, columns):
        """Yield the columns at the positions of ``columns``, block by block of objects."""
        records = (record for _, record in self._records())
        while rows := list(islice(records, BLOCK)):
            yield [[row.get(self.names[at]) for row in rows] for at in columns.values()]

    def place(self, row):
        """Say where an object stands."""
        with open_text(self.path) as lines:
            array = next(line for line in lines if line.strip()).lstrip().startswith("[")
        return f"{'object' if array else 'line'} {next(n for n, _ in islice(self._records(), row, None))}"


class ParquetTable:
    """A Parquet file; to whoever reads it as a ``TextTable``.

    Parameters
    ----------
    path : Path
    """

    typed = True

    def __init__(self, path):
        self.path = self.name = path
        self.names = list(self._read(None))
        self.n_columns = len(self.names)
        self._columns = {}

    def _read(self, names):
        """Names of the columns for None, else these columns, by the first library that is there."""
        for module, reader in PARQUET_READERS.items():
            try:
                library = importlib.import_module(module)
                with open_bytes(self.path) as stream:
                    return reader(library, stream if stream.seekable() else io.BytesIO(stream.read()), names)
            except ImportError:
                continue
            except Exception as error:  # polars' are of no common kind
                raise ValueError(f"{self.name} cannot be read by {module}: {error}. Write it again, or as CSV.") from error
        raise ValueError(f"{self.name} is a Parquet file, which needs pyarrow or polars. Run: pip install pyarrow.")

    def _column(self, at):
        if at not in self._columns:
            self._columns[at] = self._read([self.names[at]])[0]
        return self._columns[at]

    def first_cell(self, at):
        """Return the first cell of a column, None where it is empty."""
        return next(iter(_cells(self._column(at), 0, 1)), None)

    def read_numbers(self, columns):
        """Return columns of numbers as arrays; None where one has anything else, or gaps."""
        if not all(type(self.first_cell(at)) in (int, float) for at in columns.values()):
            return None
        values = {role: np.asarray(self._column(at).to_numpy()) for role, at in columns.items()}
        for role, own in values.items():
            if own.dtype.kind not in ("iuf" if role == "rating" else "iu") or (role != "rating" and own.max() >= 2**63):
                return None
        if "rating" in values and not (np.abs(values["rating"]) <= np.finfo(np.float32).max).all():
            return None
        return {role: own if role == "rating" else own.astype(np.int64) for role, own in values.items()}

    def blocks(self, columns):
        """Yield the columns at the positions of ``columns``, block by block of rows."""
        own = [self._column(at) for at in columns.values()]
        for start in range(0, len(own[0]), BLOCK):
            yield [_cells(column, start, start + BLOCK) for column in own]

    def place(self, row):
        """Say where a row stands, counted from 0 as libraries do."""
        return f"row {row}"


def _cells(column, start, stop):
    """Cells of a column of pyarrow or polars as Python's own types."""
    part = column[start:stop]
    return part.to_pylist() if hasattr(part, "to_pylist") else part.to_list()


def _by_pyarrow(parquet, source, names):
    file = parquet.ParquetFile(source)
    return file.schema_arrow.names if names is None else file.read(columns=names).columns


def _by_polars(polars, source, names):
    if names is None:
        return polars.read_parquet(source, n_rows=0).columns
    return polars.read_parquet(source, columns=names).get_columns()


PARQUET_READERS = {"pyarrow.parquet": _by_pyarrow, "polars": _by_polars}
