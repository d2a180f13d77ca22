"""Labels of every kind: how they become row numbers, are looked up again and merged, and how a column of ids is found."""

import datetime

import numpy as np
import pytest
from data import objects
from numpy.testing import assert_array_equal

from sk_torchmf.inputs import labels as labels_module
from sk_torchmf.inputs.labels import column, encode, is_range, lookup

pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")


def check_round_trip(values, plain, distinct):
    """``labels[codes]`` are the values and ``labels`` the distinct ones, sorted; ``lookup`` agrees with ``encode``."""
    codes, labels = encode(values, "user")
    assert labels.tolist() == distinct
    assert labels[codes].tolist() == plain
    assert codes.dtype.kind in "iu"
    np.testing.assert_array_equal(lookup(values, labels, "user"), codes)


day = datetime.date(2020, 5, 17)


@pytest.mark.parametrize(
    ("values", "distinct"),
    [
        (np.array([3, 1, 3, 2]), [1, 2, 3]),
        (np.array([0, 2, 1]), [0, 1, 2]),
        (np.array([-5, 7, -5]), [-5, 7]),
        (np.array([2**62, -(2**62), 0]), [-(2**62), 0, 2**62]),
        (np.array([2**53 + 1, 2**53, 2**53 + 1]), [2**53, 2**53 + 1]),
        (np.array([2**64 - 1, 0], dtype=np.uint64), [0, 2**64 - 1]),
        (np.array([2**64 - 1, 2**64 - 2, 2**64 - 1], dtype=np.uint64), [2**64 - 2, 2**64 - 1]),
        (np.array([250, 3, 250], dtype=np.uint8), [3, 250]),
        (np.array([1.5, -2.0, 1.5]), [-2.0, 1.5]),
        (np.array([2.0, 1.0, 2.0], dtype=np.float32), [1.0, 2.0]),
        (np.array([True, False, True]), [False, True]),
        (np.array(["b", "a", "b"]), ["a", "b"]),
        (np.array(["", "ä", "Z"]), ["", "Z", "ä"]),
        (np.array([b"b", b"a"]), [b"a", b"b"]),
        (np.array(["2020-01-02", "2019-05-01"], dtype="datetime64[D]"), [datetime.date(2019, 5, 1), datetime.date(2020, 1, 2)]),
        (objects("b", "a", "b"), ["a", "b"]),
        (objects(3, 1, 3), [1, 3]),
        (objects(1.5, 3, 1.5), [1.5, 3]),
        (objects(2**70, 5), [5, 2**70]),
        (objects((1, 2), (0, 1), (1, 2)), [(0, 1), (1, 2)]),
        (objects(day, day), [day]),
    ],
    ids=lambda x: f"{x.dtype}-{x.tolist()[0]}" if isinstance(x, np.ndarray) else "",
)
def test_arrays_of_one_type_round_trip(values, distinct):
    check_round_trip(values, values.tolist(), distinct)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64])
def test_the_full_range_of_a_narrow_integer_type(dtype):
    # Counting subtracts the lowest label, which in int8 wraps around for -128 and 127.
    values = np.tile(np.array([-128, 127, 0, 3], dtype=dtype), 50)
    check_round_trip(values, values.tolist(), [-128, 0, 3, 127])


def test_many_values_of_a_wide_and_of_a_narrow_range_agree():
    values = np.random.default_rng(0).integers(-20, 20, 500)
    codes, labels = encode(values, "user")
    wide_codes, wide_labels = encode(values * 10**15, "user")
    np.testing.assert_array_equal(codes, wide_codes)
    np.testing.assert_array_equal(labels * 10**15, wide_labels)
    expected, inverse = np.unique(values, return_inverse=True)
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(codes, inverse)


@pytest.mark.parametrize(
    ("values", "distinct"),
    [
        (objects(1, "a", 2, "a"), ["1", "2", "a"]),
        (objects(1, "1"), ["1"]),
        (objects((1, 2), "b"), ["(1, 2)", "b"]),
        (pd.Series([1, "a"], dtype=object), ["1", "a"]),
    ],
    ids=["int and text", "1 and its text", "tuple and text", "pandas"],
)
def test_mixed_types_are_compared_as_text(values, distinct):
    check_round_trip(values, [str(value) for value in values], distinct)


def test_unhashable_labels_are_told_apart_by_their_text():
    check_round_trip(objects([1], [2], [1]), ["[1]", "[2]", "[1]"], ["[1]", "[2]"])
    check_round_trip(objects({}, {"a": 1}, {}), ["{}", "{'a': 1}", "{}"], ["{'a': 1}", "{}"])


@pytest.mark.parametrize("dtype", ["int64", "uint8", "Int64", "Float64", "float32", "int64[pyarrow]", "category"])
def test_pandas_numbers(dtype):
    if "pyarrow" in dtype:
        pytest.importorskip("pyarrow", exc_type=ImportError)  # its wheels may want a newer NumPy
    check_round_trip(pd.Series([3, 1, 3], index=[7, 7, 9]).astype(dtype), [3, 1, 3], [1, 3])


@pytest.mark.parametrize("dtype", ["str", "object", "string", "category", pd.CategoricalDtype(["b", "unused", "a"], ordered=True)])
def test_pandas_text(dtype):
    check_round_trip(pd.Series(["b", "a", "b"], index=[7, 7, 9]).astype(dtype), ["b", "a", "b"], ["a", "b"])


def test_pandas_booleans_and_times():
    check_round_trip(pd.Series([True, False]), [True, False], [False, True])
    check_round_trip(pd.Series([True, False], dtype="boolean"), [True, False], [False, True])
    for zone in (None, "UTC"):
        times = pd.Series(pd.to_datetime(["2020-01-02", "2019-05-01"])).dt.tz_localize(zone)
        codes, labels = encode(times, "user")
        np.testing.assert_array_equal(codes, [1, 0])
        np.testing.assert_array_equal(lookup(times, labels, "user"), [1, 0])
        assert pd.Timestamp(labels[0]) == times[1]


@pytest.mark.parametrize("dtype", [pl.Int64, pl.UInt8, pl.Float32])
def test_polars_numbers(dtype):
    check_round_trip(pl.Series([3, 1, 3], dtype=dtype), [3, 1, 3], [1, 3])


@pytest.mark.parametrize("dtype", [pl.String, pl.Categorical, pl.Enum(["b", "unused", "a"])], ids=str)
def test_polars_text(dtype):
    check_round_trip(pl.Series(["b", "a", "b"], dtype=dtype), ["b", "a", "b"], ["a", "b"])


def test_polars_booleans_and_dates():
    check_round_trip(pl.Series([True, False]), [True, False], [False, True])
    check_round_trip(
        pl.Series([day, datetime.date(2019, 1, 1)]), [day, datetime.date(2019, 1, 1)], [datetime.date(2019, 1, 1), day]
    )


@pytest.mark.parametrize(
    "values",
    [
        np.array([1.0, np.nan]),
        np.array([1.0, -np.inf]),
        np.array(["2020-01-02", "NaT"], dtype="datetime64[D]"),
        objects("a", None),
        objects("a", np.nan),
        objects("a", pd.NaT),
        objects("a", pd.NA),
        objects(1.0, np.inf),
        pd.Series([1.0, np.nan]),
        pd.Series([1.0, np.inf]),
        pd.Series([3, None], dtype="Int64"),
        pd.Series([1.5, None], dtype="Float64"),
        pd.Series(["b", None]),
        pd.Series(["b", None], dtype=object),
        pd.Series(["b", None], dtype="string"),
        pd.Series(["b", None], dtype="category"),
        pd.Series([True, None], dtype="boolean"),
        pd.Series(pd.to_datetime(["2020-01-02", None])),
        pl.Series([3, None]),
        pl.Series([1.0, float("nan")]),
        pl.Series([1.0, float("inf")]),
        pl.Series(["b", None]),
        pl.Series(["b", None], dtype=pl.Categorical),
        pl.Series([day, None]),
    ],
    ids=lambda x: f"{type(x).__module__.split('.')[0]}-{x.dtype}-{list(x)[1]}",
)
def test_a_missing_or_infinite_id_is_refused_by_row(values):
    words = r"item ids must not be missing or infinite\. Row 1 is .*Drop the row or give it an id\."
    with pytest.raises(ValueError, match=words):
        encode(values, "item")
    # against labels of the column's own type, which fit would have seen
    _, labels = encode(values[:1], "item")
    with pytest.raises(ValueError, match=words):
        lookup(values, labels, "item")


@pytest.mark.parametrize(
    "values", [np.array([], dtype=int), np.array([]), np.array([], dtype=str), objects(), pd.Series([], dtype=object)]
)
def test_no_values_have_no_labels(values):
    codes, labels = encode(values, "user")
    assert len(codes) == len(labels) == 0


@pytest.mark.parametrize("values", [[], np.array([], dtype=int), np.empty((0, 3)), np.array([], dtype=str)], ids=str)
@pytest.mark.parametrize("labels", [np.array([2, 5]), np.arange(3), np.array(["a"]), np.array([], dtype=int)], ids=str)
def test_lookup_of_nothing_is_nothing(values, labels):
    found = lookup(np.asarray(values), labels, "user")
    assert found.shape == np.shape(values)
    assert found.dtype.kind == "i"


GAPS, RANGE = np.array([2, 5, 9]), np.arange(4)
TEXT = np.array(["a", "b"], dtype=object)


@pytest.mark.parametrize(
    ("values", "labels", "expected"),
    [
        (np.array([5, 2, 3, 10, -7]), GAPS, [1, 0, -1, -1, -1]),
        (np.array([5.0, 5.5, 1e15]), GAPS, [1, -1, -1]),
        (np.array([5, 2**64 - 1], dtype=np.uint64), GAPS, [1, -1]),
        (objects(9, 2), GAPS, [2, 0]),
        (np.array([3, 0, 4, -1]), RANGE, [3, 0, -1, -1]),
        (np.array([3.0, 0.5, -0.0, 1e15]), RANGE, [3, -1, 0, -1]),
        (np.array([2**53 + 1]), np.array([2**53, 2**53 + 1]), [1]),
        (np.array(["b", "zzz", "a", ""]), np.array(["a", "b"]), [1, -1, 0, -1]),
        (np.array(["b", "zzz"]), TEXT, [1, -1]),
        (objects("b", "zzz"), np.array(["a", "b"]), [1, -1]),
        (objects(1, "a", 2), np.array(["1", "a"]), [0, 1, -1]),
        (np.array([1, 5]), np.array(["1", "2"]), [0, -1]),  # labels that were numbers and text: numbers are compared as text
        (objects((1, 2), (7, 7)), objects((0, 1), (1, 2)), [1, -1]),
        (np.array([True, False]), np.array([False, True]), [1, 0]),
        (pd.Series([5, 1], index=[3, 3]), GAPS, [1, -1]),
        (pd.Series([5, 1], dtype="Int64"), GAPS, [1, -1]),
        (pd.Series([5, 1], dtype="category"), GAPS, [1, -1]),
        (pd.Series(["b", "zzz"]), TEXT, [1, -1]),
        (pd.Series(["b", "zzz"], dtype="category"), TEXT, [1, -1]),
        (pl.Series([5, 1]), GAPS, [1, -1]),
        (pl.Series(["b", "zzz"]), TEXT, [1, -1]),
        (pl.Series(["b", "zzz", "b"], dtype=pl.Categorical), TEXT, [1, -1, 1]),
        (np.array([1, 7]), np.array([], dtype=int), [-1, -1]),
    ],
    ids=str,
)
def test_lookup_finds_rows_and_gives_minus_one_for_the_unknown(values, labels, expected):
    found = lookup(values, labels, "user")
    assert found.dtype == np.int64
    assert found.tolist() == expected


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64])
@pytest.mark.parametrize("labels", [RANGE, GAPS], ids=["range", "gaps"])
def test_lookup_of_an_unknown_unsigned_id_is_minus_one(dtype, labels):
    assert lookup(np.array([2, 77], dtype=dtype), labels, "user").tolist() == [list(labels).index(2), -1]


@pytest.mark.parametrize("labels", [GAPS, RANGE], ids=["gaps", "range"])
def test_lookup_keeps_the_shape(labels):
    assert lookup(np.array(2), labels, "user").shape == ()
    assert lookup(np.array(2), labels, "user") == list(labels).index(2)
    grid = np.array([[2, 77], [2, 2]])
    np.testing.assert_array_equal(lookup(grid, labels, "user") >= 0, grid == 2)


def test_lookup_of_text_keeps_the_shape():
    assert lookup(np.array("b"), TEXT, "user") == 1
    np.testing.assert_array_equal(lookup(np.array([["b", "a"], ["zzz", "b"]]), TEXT, "user"), [[1, 0], [-1, 1]])


@pytest.mark.parametrize(
    "values",
    [np.array(["a"]), objects("a"), pd.Series(["a"]), pl.Series(["a"]), np.array(["2020-01-02"], dtype="datetime64[D]")],
    ids=lambda x: f"{type(x).__module__.split('.')[0]}-{x.dtype}",
)
@pytest.mark.parametrize("labels", [RANGE, GAPS, np.array([0.5, 2.0])], ids=["range", "gaps", "float"])
def test_text_where_fit_saw_numbers_is_a_type_error(values, labels):
    with pytest.raises(
        TypeError, match=rf"The user ids must be of the type that fit saw, {labels.dtype}\. Got .*; pass ids of that type\."
    ):
        lookup(values, labels, "user")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [([0, 1, 2], True), ([], True), ([0], True), ([1, 2], False), ([0, 2], False), ([-1, 0], False)],
)
def test_is_range(labels, expected):
    assert bool(is_range(np.array(labels, dtype=int))) is expected
    assert not is_range(np.array(labels, dtype=float))


@pytest.mark.parametrize("key", [1, "i"])
def test_column_by_position_and_by_name(key):
    frame = {"u": [1, 2], "i": ["x", "y"]}
    assert list(column(pd.DataFrame(frame), key, "item")) == ["x", "y"]
    assert list(column(pl.DataFrame(frame), key, "item")) == ["x", "y"]


def test_column_of_a_frame_whose_names_are_numbers_goes_by_position():
    assert list(column(pd.DataFrame({1: ["a"], 0: ["b"]}), 0, "user")) == ["a"]


def test_an_absent_column_is_named_with_those_there_are():
    frame = {"u": [1], "i": [2]}
    for X in (pd.DataFrame(frame), pl.DataFrame(frame)):
        with pytest.raises(ValueError, match=r"user='who' is not a column of X\. The columns are \['u', 'i'\]\."):
            column(X, "who", "user")
        with pytest.raises(ValueError, match=r"item=2 is not a column position of X, which has 2 columns\."):
            column(X, 2, "item")
    with pytest.raises(ValueError, match=r"user='u' is not a column of X\. X is an array, so pass the column's position, an int\."):
        column(np.eye(2), "u", "user")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("old", "new", "union"),
    [
        ([1, 5], [3, 5, 9], [1, 3, 5, 9]),
        ([0, 1, 2], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]),
        (["b", "d"], ["a", "c", "longer"], ["a", "b", "c", "d", "longer"]),
        ([1, 2], [2.0, 3.0], [1, 2, 3]),
        (["1", "2"], [3], ["1", "2", "3"]),
    ],
)
def test_labels_are_merged_in_order(old, new, union):
    old, new = np.array(old), encode(np.array(new), "user")[1]
    merged, place, place_of_new = labels_module.merge(old, new, "user")
    assert_array_equal(merged, union)
    assert_array_equal(merged[place], old)
    assert_array_equal(merged[place_of_new].astype(new.dtype), new)
    assert merged.dtype.kind == old.dtype.kind


def test_text_does_not_join_numbers():
    with pytest.raises(TypeError, match="The user ids must be of the type that fit saw, int64"):
        labels_module.merge(np.array([1, 2]), np.array(["a"]), "user")
