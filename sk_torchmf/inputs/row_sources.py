"""Rows of tables that need not fit in memory, as batches of Arrow: from Parquet files, data sets of pyarrow, chunks."""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from sk_torchmf._validation import MOST
from sk_torchmf.inputs.labels import is_frame

BATCH = 2**20  # rows at once


def load_pyarrow(caller):
    """Import what is used of pyarrow, refusing with words where it is not installed."""
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.dataset
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(f"{caller} needs pyarrow, which is not installed. Run: pip install pyarrow.") from error
    return pyarrow


class Rows:
    """A table that is gone through in batches, as often as is asked for.

    Subclasses have ``n_rows``, None where it is not known, and the two methods.
    """

    n_rows: int | None = None

    def choose(self, keys):
        """Find columns by their names or positions.

        Parameters
        ----------
        keys : dict of str to str, int or None
            By role; None for a role that no column has.

        Raises
        ------
        ValueError
            For a column that is missing, by the name of the file where it is.
        """
        raise NotImplementedError

    def names_of(self, *roles):
        """Names of the columns that ``choose`` found, in the first file."""
        raise NotImplementedError

    def batches(self):
        """Yield ``(batch, place)``: the chosen columns, Arrow arrays of one length by role, and a function from row to words."""
        raise NotImplementedError


class ParquetRows(Rows):
    """Files of Parquet.

    ``dataset.to_batches`` of pyarrow reads ahead without bound where the consumer is the slower; a file that is gone through by
    itself does not.

    Parameters
    ----------
    files : list of (str, FileSystem or None, dict of str to object)
        Path, where it is, and what the names of folders say of all its rows.
    pyarrow : module
    """

    def __init__(self, files, pyarrow):
        self.pyarrow, self.files = pyarrow, []
        self.names, self.n_rows = [], 0
        for path, system, keys in files:
            with self._open(path, system) as file:
                own = file.schema_arrow.names
                self.n_rows += file.metadata.num_rows
            more = {name: value for name, value in keys.items() if name not in own}
            self.files.append((path, system, more))
            self.names.append([*own, *more])

    @contextmanager
    def _open(self, path, system):
        try:
            file = self.pyarrow.parquet.ParquetFile(path, pre_buffer=False, filesystem=system)
        except self.pyarrow.ArrowInvalid as error:
            raise ValueError(f"{path} is not a complete Parquet file: {_reason(error)}. Write it again, or leave it out.") from None
        with file:
            yield file

    def choose(self, keys):
        self.columns = [
            {role: find_column(names, key, role, path) for role, key in keys.items() if key is not None}
            for names, (path, _, _) in zip(self.names, self.files, strict=True)
        ]

    def names_of(self, *roles):
        return [self.columns[0][role] for role in roles]

    def batches(self):
        for columns, (path, system, keys) in zip(self.columns, self.files, strict=True):
            own = list(dict.fromkeys(name for name in columns.values() if name not in keys))
            with self._open(path, system) as file:
                start = 0
                for batch in self._read(file, path, own):
                    constant = {name: self.pyarrow.array([keys[name]] * len(batch)) for name in columns.values() if name in keys}
                    values = {name: batch.column(name) for name in own} | constant
                    yield {role: values[name] for role, name in columns.items()}, _place(start, path)
                    start += len(batch)

    def _read(self, file, path, names):
        try:
            yield from file.iter_batches(BATCH, columns=names, use_threads=False)
        except (OSError, self.pyarrow.ArrowInvalid) as error:  # as pyarrow says of what is damaged
            raise ValueError(f"{path} is damaged: {_reason(error)}. Write it again, or leave it out.") from None


class ScannedRows(Rows):
    """A data set of pyarrow that is no plain list of Parquet files: another format, or a filter."""

    def __init__(self, dataset, pyarrow):
        self.dataset, self.options = dataset, {"batch_readahead": 1, "fragment_readahead": 1}
        if isinstance(getattr(dataset, "format", None), pyarrow.dataset.ParquetFileFormat):
            self.options["fragment_scan_options"] = pyarrow.dataset.ParquetFragmentScanOptions(pre_buffer=False)

    def choose(self, keys):
        names = self.dataset.schema.names
        self.columns = {role: find_column(names, key, role, "the data set") for role, key in keys.items() if key is not None}

    def names_of(self, *roles):
        return [self.columns[role] for role in roles]

    def batches(self):
        start, own = 0, list(dict.fromkeys(self.columns.values()))
        for batch in self.dataset.to_batches(columns=own, batch_size=BATCH, use_threads=False, **self.options):
            yield {role: batch.column(name) for role, name in self.columns.items()}, _place(start, "the data set")
            start += len(batch)


class ChunkRows(Rows):
    """Tables that the caller makes, one after the other.

    Parameters
    ----------
    chunks : callable or iterable
        Gives the same chunks each time.
    pyarrow : module
    """

    def __init__(self, chunks, pyarrow):
        if isinstance(chunks, Iterator):
            raise TypeError(
                f"chunks must be an iterable that can be read twice. Got a {type(chunks).__name__}, which can be read once. Pass "
                "a list, or a function that makes a new iterator."
            )
        if not callable(chunks) and not isinstance(chunks, Iterable):
            raise TypeError(f"chunks must be a list, or a function that returns an iterator. Got {type(chunks).__name__}.")
        self.chunks, self.pyarrow, self.keys = chunks, pyarrow, {}

    def choose(self, keys):
        self.keys = {role: key for role, key in keys.items() if key is not None}

    def batches(self):
        chunks = self.chunks() if callable(self.chunks) else self.chunks
        if not isinstance(chunks, Iterable):
            raise TypeError(f"chunks must be a function that returns an iterator. It returned {type(chunks).__name__}.")
        for number, chunk in enumerate(chunks):
            where = f"chunk {number}"
            table = self._as_table(chunk, where)
            columns = {role: find_column(table.column_names, key, role, where) for role, key in self.keys.items()}
            start = 0
            for batch in table.to_batches(BATCH):
                yield (
                    {role: batch.column(batch.schema.get_field_index(name)) for role, name in columns.items()},
                    _place(start, where),
                )
                start += len(batch)

    def _as_table(self, chunk, where):
        """An Arrow table of the columns that are wanted; those of a tuple are named by their positions."""
        pa = self.pyarrow
        if isinstance(chunk, pa.Table):
            return chunk
        if isinstance(chunk, pa.RecordBatch):
            return pa.Table.from_batches([chunk])
        if is_frame(chunk):
            columns = {str(name): chunk[name] for name in chunk.columns}
        elif isinstance(chunk, Mapping):
            columns = {str(name): values for name, values in chunk.items()}
        elif isinstance(chunk, tuple):
            columns = {str(at): values for at, values in enumerate(chunk)}
        else:
            rule = "must be a DataFrame, an Arrow table, a dict of columns or a tuple of columns"
            raise TypeError(f"{where} {rule}. Got {type(chunk).__name__}.")
        own = {find_column(list(columns), key, role, where): role for role, key in self.keys.items()}
        table = {name: self._as_column(columns[name], f"the {role} column of {where}") for name, role in own.items()}
        lengths = {role: len(table[name]) for name, role in own.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"The columns of {where} must have equal lengths. Got {lengths}.")
        rest = {name: pa.nulls(next(iter(lengths.values()))) for name in columns if name not in own}  # positions stay
        return pa.table({name: table.get(name, rest.get(name)) for name in columns})

    def _as_column(self, values, what):
        pa = self.pyarrow
        if hasattr(values, "to_arrow"):  # polars
            return values.to_arrow()
        if not hasattr(values, "dtype"):
            values = list(values)
        elif np.ndim(values) != 1:
            raise ValueError(f"{what} must have one dimension. Got shape {np.shape(values)}.")
        try:
            return pa.array(values, from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            raise TypeError(f"{what} must hold values of one type: {_reason(error)}.") from None


def parquet_rows(source, pyarrow):
    """Read what a caller passed as the source of a data set: a path or paths of files and folders, or a data set of pyarrow."""
    dataset = pyarrow.dataset
    if isinstance(source, dataset.Dataset):
        try:
            fragments = list(source.get_fragments())
        except ValueError:  # of one with a filter
            return ScannedRows(source, pyarrow)
        if not all(isinstance(fragment, dataset.ParquetFileFragment) for fragment in fragments):
            return ScannedRows(source, pyarrow)
        if not fragments:
            raise ValueError("source must have at least one file. This data set has none.")
        return ParquetRows(_files_of(fragments, dataset), pyarrow)
    paths = source if isinstance(source, list | tuple) else [source]
    if not paths or not all(isinstance(path, str | os.PathLike) for path in paths):
        got = "an empty list" if not paths else next(type(p).__name__ for p in paths if not isinstance(p, str | os.PathLike))
        raise TypeError(
            "source must be the path of a Parquet file or of a folder of Parquet files, a list of paths, or a pyarrow Dataset. "
            f"Got {got}."
        )
    files: list[tuple] = []
    for path in map(os.fspath, paths):
        if os.path.isfile(path):
            files.append((path, None, {}))
            continue
        try:
            found = dataset.dataset(path, format="parquet", partitioning="hive")
        except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError) as error:
            rule = f"{path} is not a data set of Parquet files: {_reason(error)}"
            raise ValueError(f"{rule}. Write it again, or pass a list of files.") from None
        own = _files_of(found.get_fragments(), dataset)
        if not own:
            raise ValueError(f"source must have at least one Parquet file. The folder {path} has none.")
        files += own
    return ParquetRows(files, pyarrow)


def _files_of(fragments, dataset):
    return [(one.path, one.filesystem, dict(dataset.get_partition_keys(one.partition_expression))) for one in fragments]


def find_column(names, key, role, where):
    """Return the name of a column that ``key`` (name or position) means."""
    if isinstance(key, int | np.integer) and not isinstance(key, bool):
        if not 0 <= key < len(names):
            raise ValueError(f"{role}={key} is not a column position of {where}, which has {len(names)} columns.")
        return names[key]
    if not isinstance(key, str):
        raise TypeError(f"{role} must be a column's name or position. Got {key!r}.")
    if key not in names:
        raise ValueError(f"{role}={key!r} is not a column of {where}. The columns are {names}.")
    if names.count(key) > 1:
        raise ValueError(f"{where} has {names.count(key)} columns with the name {key!r}. Rename all but one.")
    return key


def check_n_rows(n):
    """Refuse more rows in one shard than a plan can index."""
    if n > MOST:
        raise ValueError(f"A shard can have at most {MOST} ratings. Got {n} for one of them. Raise n_shards.")


def _reason(error):
    return str(error).rstrip(".")


def _place(start, where):
    return lambda row: f"row {start + int(row)} of {where}"
