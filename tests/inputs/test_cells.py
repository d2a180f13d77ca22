"""Columns of attributes in every dress: the same cells are the same numbers or labels, and what is none is refused by its cell."""

import datetime
from decimal import Decimal

import numpy as np
import pytest
from data import objects
from numpy.testing import assert_array_equal

from sk_torchmf.inputs.cells import (
    CATEGORIES,
    DATES,
    DURATIONS,
    LISTS,
    NOTHING,
    NUMBERS,
    as_labels,
    as_numbers,
    check_attributes,
    column_at,
    kind_of,
)

pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")

DAY, LATER = datetime.datetime(1970, 1, 3, 12), datetime.datetime(1969, 12, 31)
BERLIN = pd.Series([DAY, LATER, None]).dt.tz_localize("UTC").dt.tz_convert("Europe/Berlin")


@pytest.mark.parametrize(
    "values",
    [
        np.array([2.5, -1.0, np.nan]),
        np.array([2.5, -1.0, np.nan], dtype=np.float16),
        objects(2.5, -1, None),
        objects(Decimal("2.5"), np.int8(-1), np.nan),
        pd.Series([2.5, -1, None], index=[7, 7, 9]),
        pd.Series([2.5, -1, None], dtype="Float64"),
        pd.Series([2.5, -1, pd.NA], dtype=object),
        pd.Series(pd.arrays.SparseArray([2.5, -1.0, np.nan])),
        pl.Series([2.5, -1.0, None]),
        pl.Series([2.5, -1.0, float("nan")], dtype=pl.Float32),
        pl.Series([Decimal("2.5"), Decimal("-1.0"), None]),
    ],
    ids=lambda x: f"{type(x).__module__.split('.')[0]}-{x.dtype}",
)
def test_numbers_are_the_same_in_every_type(values):
    assert kind_of(values, "x") == NUMBERS
    row, numbers = as_numbers(values, "x")
    assert_array_equal(row, [0, 1, 2])
    assert numbers.dtype == np.float64
    assert_array_equal(numbers, [2.5, -1.0, np.nan])


@pytest.mark.parametrize(
    "values",
    [
        np.array([3, 0, 200], dtype=np.uint8),
        pd.Series([3, 0, 200], dtype="Int64"),
        pl.Series([3, 0, 200], dtype=pl.UInt16),
    ],
)
def test_integers_are_numbers(values):
    assert kind_of(values, "x") == NUMBERS
    assert as_numbers(values, "x")[1].tolist() == [3, 0, 200]


def test_a_sparse_column_has_its_stored_cells():
    for stored in (
        pd.arrays.SparseArray([0, 4, 0, -1], fill_value=0),
        pd.arrays.SparseArray([0, 4.0, 0, -1.0], kind="block", fill_value=0),
    ):
        assert kind_of(pd.Series(stored), "x") == NUMBERS
        row, numbers = as_numbers(pd.Series(stored), "x")
        assert (row.tolist(), numbers.tolist()) == ([1, 3], [4, -1])
    flags = pd.Series(pd.arrays.SparseArray([True, False, True], fill_value=False))
    assert kind_of(flags, "x") == NUMBERS
    assert as_numbers(flags, "x")[0].tolist() == [0, 2]


@pytest.mark.parametrize(
    "values",
    [
        np.array([DAY, LATER, "NaT"], dtype="datetime64[h]"),
        objects(DAY, LATER.date(), None),
        objects(DAY.replace(tzinfo=datetime.UTC), LATER, pd.NaT),
        pd.Series([DAY, LATER, None]),
        BERLIN,
        pl.Series([DAY, LATER, None]),
        pl.Series([DAY, LATER, None]).dt.replace_time_zone("UTC"),
    ],
    ids=lambda x: f"{type(x).__module__.split('.')[0]}-{x.dtype}",
)
def test_dates_are_days_since_1970(values):
    assert kind_of(values, "x") == DATES
    assert_array_equal(as_numbers(values, "x")[1], [2.5, -1.0, np.nan])


@pytest.mark.parametrize(
    "values",
    [objects(LATER.date(), None), pl.Series([LATER.date(), None])],
    ids=["objects", "polars"],
)
def test_days_without_a_time(values):
    assert kind_of(values, "x") == DATES
    assert_array_equal(as_numbers(values, "x")[1], [-1.0, np.nan])


@pytest.mark.parametrize("library", [np.array, pd.Series, pl.Series, lambda x: objects(*x)])
def test_durations_are_days(library):
    values = library([datetime.timedelta(hours=36), datetime.timedelta(-1)])
    assert kind_of(values, "x") == DURATIONS
    assert as_numbers(values, "x")[1].tolist() == [1.5, -1.0]


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (np.array(["b", "a", "b"]), ["a", "b"]),
        (objects("b", "a", "b"), ["a", "b"]),
        (pd.Series(["b", "a", "b"], dtype="string"), ["a", "b"]),
        (pd.Series(["b", "a", "b"], dtype=pd.CategoricalDtype(["b", "unused", "a"])), ["a", "b"]),
        (pl.Series(["b", "a", "b"], dtype=pl.Enum(["b", "unused", "a"])), ["a", "b"]),
        (np.array([True, False, True]), ["False", "True"]),
        (objects(True, False, True), ["False", "True"]),
        (pd.Series([True, False, True], dtype="boolean"), ["False", "True"]),
        (pl.Series([True, False, True]), ["False", "True"]),
        (pd.Series([20, 3, 20], dtype="category"), ["20", "3"]),
        (pd.Series([2.0, 10.5, 2.0], dtype="category"), ["10.5", "2"]),
    ],
    ids=lambda x: f"{type(x).__module__.split('.')[0]}-{x.dtype}" if hasattr(x, "dtype") else "",
)
def test_categories_are_text(values, labels):
    assert kind_of(values, "x") == CATEGORIES
    row, code, found, missing = as_labels(values, CATEGORIES, "x")
    assert found.tolist() == labels
    assert (row.tolist(), missing.tolist()) == ([0, 1, 2], [False] * 3)
    plain = [str(value) for value in values]
    assert [str(value).removesuffix(".0") for value in plain] == found[code].tolist()


@pytest.mark.parametrize(
    "values",
    [
        objects(["b", "a", "b"], [], None),
        objects(("a", "b"), (), np.nan),
        objects({"a", "b"}, frozenset(), None),
        objects(np.array(["b", "a"]), np.array([]), None),
        pd.Series([["b", "a"], [], None]),
        pl.Series([["b", "a"], [], None]),
    ],
    ids=["lists", "tuples", "sets", "arrays", "pandas", "polars"],
)
def test_lists_of_labels(values):
    assert kind_of(values, "genres") == LISTS
    row, code, labels, missing = as_labels(values, LISTS, "genres")
    assert labels.tolist() == ["a", "b"]
    assert missing.tolist() == [False, False, True]
    assert sorted(zip(row.tolist(), code.tolist(), strict=True)) == [(0, 0), (0, 1)]


def test_lists_of_whole_numbers_are_labels_too():
    _, _, labels, _ = as_labels(objects([1, 20], [20.0, True], [np.int8(3)]), LISTS, "x")
    assert labels.tolist() == ["1", "20", "3"]  # True is 1


@pytest.mark.parametrize(
    "values",
    [
        objects(None, np.nan, pd.NA),
        np.array([np.nan, np.nan]),
        pd.Series([None, None]),
        pl.Series([None, None]),
        pl.Series([None], dtype=pl.Float64),
    ],
)
def test_a_column_without_any_value_is_of_no_kind(values):
    assert kind_of(values, "x") == NOTHING


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            np.array([1j]),
            r"Column 'x' must hold numbers, text, categories, .*\. Got 1j \(complex\)\. Drop the column, or convert it to",
        ),
        (
            objects("a", 1 + 2j),
            r"Column 'x' must hold numbers, text, categories, .*\. Got \(1\+2j\) \(complex\)\. Drop the",
        ),
        (
            objects({"drama": 0.5}),
            r"Column 'x' must hold numbers, text, categories, .*\. Got {'drama': 0\.5} \(dict\)\. Drop the",
        ),
        (objects(np.eye(2)), r"Column 'x' must hold .*\(ndarray\)"),
        (
            objects(b"a"),
            r"Column 'x' must hold numbers, text, categories, .*\. Got b'a' \(bytes\)\. Drop the",
        ),
        (pd.Series(pd.period_range("2020", periods=1, freq="M")), r"Column 'x' must hold .*\(Period\)"),
        (
            pl.Series([{"a": 1}]),
            r"Column 'x' must hold numbers, text, categories, .*\. Got {'a': 1} \(dict\)\. Drop the",
        ),
        (pl.Series([datetime.time(3)]), r"Column 'x' must hold .*\(time\)"),
        (
            objects("a", 3.5),
            r"Column 'x' mixes categories and numbers: 'a' and 3\.5\. Convert all of it to one of them, for example",
        ),
        (objects(["a"], "b"), r"Column 'x' mixes categories and lists of labels: 'b' and \['a'\]"),
    ],
)
def test_other_objects_are_refused_by_column_and_cell(values, message):
    with pytest.raises(ValueError, match=message):
        kind_of(values, "x")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (objects(["a", None]), r"Column 'x' has lists.*Got None \(NoneType\)\. Leave out missing labels"),
        (objects([1.0, 0.25]), r"Got 0\.25 \(float\)\..*make a column of each number of a vector"),
        (objects(["a"], [["b"]]), r"Got \['b'\] \(list\)"),
        (pl.Series([[1.5, 2.5]]), r"Got 1\.5 \(float\)"),
        (objects([np.inf]), r"Got inf \(float\)"),
    ],
)
def test_lists_of_anything_but_labels_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        as_labels(values, kind_of(values, "x"), "x")


@pytest.mark.parametrize(
    "values",
    [
        np.array([1, np.inf]),
        objects(1, -np.inf),
        objects(1, 10**400),
        pd.Series([1, np.inf], dtype="Float64"),
        pl.Series([1.0, np.inf]),
    ],
)
def test_infinity_is_refused_by_its_column(values):
    with pytest.raises(ValueError, match=r"Column 'x' holds -?inf\. Clip it, or replace it by NaN"):
        as_numbers(values, "x")


def test_tables_that_have_no_columns_to_encode_are_refused():
    for table, error, message in [
        (pd.DataFrame({"a": []}), ValueError, r"shape \(0, 1\)"),
        (pl.DataFrame(), ValueError, r"shape \(0, 0\)"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), ValueError, "Got 'a' more than once"),
        (pd.DataFrame([[1, 2]], columns=[1, "1"]), ValueError, "Got '1' more than once"),
        (pl.LazyFrame({"a": [1]}), TypeError, r"Pass its collect\(\)"),
    ]:
        with pytest.raises(error, match=message):
            check_attributes(table)


def test_columns_by_position():
    table = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    for X in (table, pl.DataFrame(table.to_dict("list")), table.to_numpy()):
        assert list(column_at(X, 0)) == [1, 2]
        assert list(column_at(X, 1)) == ["x", "y"]


def test_columns_of_arrow_in_pandas():
    pa = pytest.importorskip("pyarrow", exc_type=ImportError)  # its wheels may want a newer NumPy
    for kind, cells, kind_of_arrow, expected in [
        (NUMBERS, [2.5, -1.0, None], pa.float32(), [2.5, -1.0, np.nan]),
        (NUMBERS, [3, 0, None], pa.int32(), [3, 0, np.nan]),
        (NUMBERS, [Decimal("2.5"), Decimal(-1), None], pa.decimal128(5, 1), [2.5, -1.0, np.nan]),
        (DATES, [DAY, LATER, None], pa.timestamp("ms"), [2.5, -1.0, np.nan]),
        (DATES, [DAY.date(), LATER.date(), None], pa.date32(), [2.0, -1.0, np.nan]),
        (DURATIONS, [datetime.timedelta(hours=36), None], pa.duration("s"), [1.5, np.nan]),
    ]:
        values = pd.Series(cells, dtype=pd.ArrowDtype(kind_of_arrow))
        assert kind_of(values, "x") == kind
        assert_array_equal(as_numbers(values, "x")[1], expected)
    for kind, cells, kind_of_arrow, expected in [
        (CATEGORIES, ["b", "a", None], pa.string(), [(0, "b"), (1, "a")]),
        (CATEGORIES, [True, False, None], pa.bool_(), [(0, "True"), (1, "False")]),
        (LISTS, [["b", "a"], [], None], pa.list_(pa.string()), [(0, "a"), (0, "b")]),
    ]:
        values = pd.Series(cells, dtype=pd.ArrowDtype(kind_of_arrow))
        assert kind_of(values, "x") == kind
        row, code, labels, missing = as_labels(values, kind, "x")
        assert list(zip(row.tolist(), labels[code].tolist(), strict=True)) == expected
        assert missing.tolist() == [False, False, True]
