"""Ratings in Parquet files, and what a data set on disk holds as plain rows."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet


def ratings(n=2000, n_users=60, n_items=40, seed=0, *, text=False, weights=False, times=False):
    """Columns of random ratings in half stars; pairs occur more than once."""
    rng = np.random.default_rng(seed)
    columns = {"user": rng.integers(n_users, size=n) * 7 - 100, "item": rng.integers(n_items, size=n) * 3}
    if text:
        columns = {name: np.array([f"{name} é{value}" for value in values], dtype=object) for name, values in columns.items()}
    columns["rating"] = rng.integers(1, 11, size=n) / 2
    if weights:
        columns["weight"] = rng.integers(1, 4, size=n) / 4
    if times:
        columns["when"] = rng.integers(10**9, size=n)
    return columns


def write(path, columns, rows=slice(None), **options):
    """Write columns, or some of the rows, as a Parquet file; return its path."""
    own = {name: values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values) for name, values in columns.items()}
    table = pa.table(own)
    table = table if rows == slice(None) else table.take(pa.array(np.arange(len(table))[rows]))
    pyarrow.parquet.write_table(table, path, **options)
    return path


def rows_of(shards):
    """All observations as sorted tuples of labels and numbers."""
    found = []
    for block in shards:
        users = np.repeat(np.arange(block.n_users), np.diff(block.pointers))
        parts = [block.users[users].tolist(), shards.items[block.columns].tolist()]
        parts += [np.asarray(own).tolist() for own in (block.ratings, block.weights, block.timestamps) if own is not None]
        found += zip(*parts, strict=True)
    return sorted(found)
