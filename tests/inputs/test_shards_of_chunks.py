"""Data sets on disk from tables that the caller makes one by one: every kind of table gives the same, what is none is refused."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from parquet import ratings, rows_of, write

from sk_torchmf import Shards

NAMES = {"user": "user", "item": "item", "rating": "rating"}
GOOD = {"user": [1, 2, 3], "item": [1, 2, 3], "rating": [1.0, 2.0, 3.0]}


def cut(columns, n=3):
    """The columns in n parts."""
    parts = {name: np.array_split(values, n) for name, values in columns.items()}
    return [{name: own[at] for name, own in parts.items()} for at in range(n)]


TABLES = {
    "dict": dict,
    "dict of lists": lambda chunk: {name: values.tolist() for name, values in chunk.items()},
    "pandas": pd.DataFrame,
    "pandas with another index": lambda chunk: pd.DataFrame(chunk).set_index(pd.Index(range(7, 7 + len(chunk["user"])))),
    "pandas of Arrow": lambda chunk: pd.DataFrame(chunk).convert_dtypes(dtype_backend="pyarrow"),
    "categories": lambda chunk: pd.DataFrame(chunk).astype({"user": "category", "item": "category"}),
    "polars": lambda chunk: pl.DataFrame({name: values.tolist() for name, values in chunk.items()}),
    "Arrow table": lambda chunk: pa.table({name: pa.array(values) for name, values in chunk.items()}),
    "Arrow batch": lambda chunk: pa.RecordBatch.from_pandas(pd.DataFrame(chunk)),
}


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("text", [False, True])
def test_every_kind_of_table_makes_the_same(kind, text, tmp_path):
    columns = ratings(500, text=text)
    path = write(tmp_path / "file", columns)
    expected = Shards.from_parquet(path, tmp_path / "expected", **NAMES)
    found = Shards.from_chunks(lambda: map(TABLES[kind], cut(columns)), tmp_path / "found", **NAMES)
    assert found.digest == expected.digest
    assert rows_of(found) == sorted(zip(*(values.tolist() for values in columns.values()), strict=True))


def test_tuples_have_positions(tmp_path):
    columns = ratings(500)
    chunks = [tuple(chunk.values()) for chunk in cut(columns)]
    shards = Shards.from_chunks(chunks, tmp_path / "shards", user=0, item=1, rating=2)
    assert rows_of(shards) == sorted(zip(*(values.tolist() for values in columns.values()), strict=True))


def test_columns_that_are_not_asked_for_need_not_be_columns(tmp_path):
    chunk = {"rest": [object(), {}, []], **GOOD}
    by_position = Shards.from_chunks([chunk], tmp_path / "shards", user=1, item=2, rating=3)
    assert rows_of(by_position) == [(1, 1, 1.0), (2, 2, 2.0), (3, 3, 3.0)]


def test_chunks_may_be_empty_and_of_different_kinds(tmp_path):
    empty = {name: [] for name in NAMES}
    chunks = [empty, GOOD, pd.DataFrame(GOOD), pl.DataFrame(empty)]
    assert rows_of(Shards.from_chunks(chunks, tmp_path / "shards", **NAMES)) == 2 * [(1, 1, 1.0)] + 2 * [(2, 2, 2.0)] + 2 * [
        (3, 3, 3.0)
    ]


@pytest.mark.parametrize(
    ("chunks", "error", "words"),
    [
        (
            iter([GOOD]),
            TypeError,
            r"chunks must be an iterable that can be read twice\. Got a list_iterator, which can be read once\. Pass a list, or "
            r"a function",
        ),
        (5, TypeError, r"chunks must be a list, or a function that returns an iterator\. Got int\."),
        (lambda: 5, TypeError, r"chunks must be a function that returns an iterator\. It returned int\."),
        ([GOOD, "text"], TypeError, r"chunk 1 must be a DataFrame, an Arrow table, a dict of columns .* Got str"),
        ([], ValueError, "The data set has no rows, while a"),
        ([GOOD, {"user": [1], "item": [1]}], ValueError, r"rating='rating' is not a column of chunk 1\. The columns are \['user'"),
        ([(np.array([1]), np.array([1]))], ValueError, r"user='user' is not a column of chunk 0\. The columns are \['0', '1'\]"),
        (
            [GOOD | {"item": [1, 2]}],
            ValueError,
            r"The columns of chunk 0 must have equal lengths\. Got {'user': 3, 'item': 2, 'rating': 3\}\.",
        ),
        ([GOOD | {"user": ["a", 2, 3]}], TypeError, "the user column of chunk 0 must hold values of one type"),
        (
            [GOOD | {"user": np.ones((3, 1))}],
            ValueError,
            r"the user column of chunk 0 must have one dimension\. Got shape \(3, 1\)",
        ),
        ([GOOD, GOOD | {"user": [1, None, 3]}], ValueError, r"user ids must not be missing\. Row 1 of chunk 1 has none"),
        (
            [pd.DataFrame(GOOD).replace({"rating": {2.0: np.nan}})],
            ValueError,
            r"rating must not be missing\. Row 1 of chunk 0 has none",
        ),
        ([GOOD | {"user": [True, False, True]}], TypeError, r"user ids .* is of type bool\."),
        ([pl.DataFrame(GOOD), GOOD | {"item": ["a", "b", "c"]}], TypeError, "item ids must be of one type in all of the data"),
    ],
)
def test_bad_chunks_are_named(chunks, error, words, tmp_path):
    with pytest.raises(error, match=words):
        Shards.from_chunks(chunks, tmp_path / "shards", **NAMES)
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_caller_s_own_leaves_nothing(tmp_path):
    def chunks():
        yield GOOD
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Shards.from_chunks(chunks, tmp_path / "shards", **NAMES)
    assert list(tmp_path.iterdir()) == []
