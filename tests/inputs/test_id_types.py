"""Ids as values: of numbers of every type the same ones are the same ids, and what cannot be told apart is refused."""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from data import objects

from sk_torchmf.inputs.id_types import as_ids, as_table, as_text, as_values, type_of
from sk_torchmf.inputs.labels import encode, label, lookup, merge

pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")


SEVEN = {
    **{name: np.array([7, 9], dtype=name) for name in ("int8", "uint8", "int16", "int32", "uint32", "int64", "uint64")},
    **{name: np.array([7, 9], dtype=name) for name in ("float16", "float32", "float64", "longdouble")},
    "objects": objects(7, 9),
    "objects of all kinds": objects(np.int8(7), Decimal("9.0")),
    "fractions": objects(Fraction(14, 2), 9.0),
    "pandas": pd.Series([7, 9]),
    "pandas Int64": pd.Series([7, 9], dtype="Int64"),
    "pandas Float64": pd.Series([7, 9], dtype="Float64"),
    "pandas category": pd.Series([7, 9]).astype("category"),
    "pandas category of floats": pd.Series([7.0, 9.0]).astype("category"),
    "pandas objects": pd.Series([7, 9.0], dtype=object),
    "polars": pl.Series([7, 9]),
    "polars UInt64": pl.Series([7, 9], dtype=pl.UInt64),
    "polars Float32": pl.Series([7, 9], dtype=pl.Float32),
    "polars Decimal": pl.Series([Decimal(7), Decimal(9)]),
}


@pytest.mark.parametrize("values", SEVEN.values(), ids=SEVEN)
def test_a_whole_number_is_one_id_in_every_type(values):
    codes, labels = encode(values, "user")
    assert labels.dtype == np.int64
    assert labels.tolist() == [7, 9]
    assert codes.tolist() == [0, 1]
    for known, expected in (
        (np.array([7, 8, 9]), [0, 2]),
        (np.arange(8), [7, -1]),
        (np.array([7, 2**63], dtype=np.uint64), [0, -1]),
        (np.array([0.5, 9.0]), [-1, 1]),
        (objects(9, 2**70), [-1, 0]),
        (objects("007", "7"), [1, -1]),  # a number's text is what it is counted by
    ):
        assert lookup(values, known, "user").tolist() == expected
    union, place, place_of_values = merge(np.array([8, 9]), labels, "user")
    assert (union.tolist(), place.tolist(), place_of_values.tolist()) == ([7, 8, 9], [1, 2], [0, 2])


BASE = 1_400_000_000_000_000_000


@pytest.mark.parametrize(
    ("more", "union", "dtype"),
    [
        (np.array([BASE + 9], dtype=np.uint64), [BASE, BASE + 1, BASE + 9], np.int64),
        (np.array([2**63 + 1], dtype=np.uint64), [BASE, BASE + 1, 2**63 + 1], np.uint64),
        (np.array([-3]), [-3, BASE, BASE + 1], np.int64),
        (objects(2**64), [BASE, BASE + 1, 2**64], object),
        (np.array([0.5]), [0.5, BASE, BASE + 1], object),
    ],
    ids=["uint64", "beyond int64", "negative", "beyond uint64", "a fraction"],
)
def test_integers_never_become_floats_on_the_way(more, union, dtype):
    labels = encode(np.array([BASE, BASE + 1]), "user")[1]
    merged, place, place_of_more = merge(labels, encode(more, "user")[1], "user")
    assert merged.tolist() == union
    assert merged.dtype == dtype
    assert merged[place].tolist() == labels.tolist()
    assert merged[place_of_more].tolist() == more.tolist()
    assert lookup(labels, merged, "user").tolist() == place.tolist()
    assert lookup(more, labels, "user").tolist() == [-1]
    assert lookup(np.array([BASE + 2]), merged, "user").tolist() == [-1]


@pytest.mark.parametrize(
    ("values", "limit"),
    [
        (np.array([1.0, 2.0**53]), 2**53),
        (np.array([BASE, BASE + 1]).astype(float), 2**53),
        (np.array([1, 2**24], dtype=np.float32), 2**24),
        (np.array([1, 2048], dtype=np.float16), 2**11),
        (objects(1, 1e300), 2**53),
        (pd.Series([1.0, 1.4e18]), 2**53),
        (pl.Series([1.0, 1.4e18]), 2**53),
    ],
    ids=str,
)
def test_a_float_that_may_have_lost_digits_is_no_id(values, limit):
    words = rf"user ids must be exact, but float\d\d cannot represent all whole numbers from {limit} on\. Got .*\. Read the column"
    with pytest.raises(ValueError, match=words):
        encode(values, "user")
    with pytest.raises(ValueError, match=words):
        lookup(values, np.array([1, 2]), "user")


@pytest.mark.parametrize("values", [np.array([1 + 2j]), np.zeros(2, dtype=[("a", int)])], ids=["complex numbers", "records"])
def test_what_is_neither_number_text_nor_time_is_no_id(values):
    with pytest.raises(TypeError, match=r"user ids must be numbers, text or times\. Got dtype"):
        as_values(values, "user")


@pytest.mark.parametrize("values", [objects(True, 2), objects(1, True), objects("a", False), pd.Series([1, True], dtype=object)])
def test_booleans_do_not_hide_among_numbers(values):
    with pytest.raises(TypeError, match=r"user ids must be of one kind. Got booleans together with other types. Pass numbers"):
        encode(values, "user")


@pytest.mark.parametrize("labels", [np.arange(3), np.array([3, 9]), np.array([0.5]), objects("a", "b"), np.array([b"a"])], ids=str)
@pytest.mark.parametrize("mask", [np.array([True, False, True]), objects(True, False), pl.Series([True, False])], ids=str)
def test_a_boolean_mask_is_no_id(mask, labels):
    with pytest.raises(
        TypeError,
        match=r"The item ids must be of the type that fit saw, .* Got booleans; pass ids, not a mask\.",
    ):
        lookup(mask, labels, "item")


DAY = np.array(["2024-02-29"], dtype="datetime64[D]")


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (np.array(["a"]), np.array([1, 2])),
        (np.array([1]), DAY),
        (DAY, np.array(["2024-02-29"])),
        (np.array(["a"]), np.array([b"a"])),
        (np.array([b"a"]), np.array(["a"])),
        (objects((1, 2)), np.array([1, 2])),
        (np.array([1, 2]), objects((1, 2), (3, 4))),
        (objects((1, 2)), np.array(["a"])),
        (np.array([1]), np.array([False, True])),
    ],
    ids=lambda x: type_of(x),
)
def test_ids_of_another_type_are_a_type_error(values, labels):
    with pytest.raises(TypeError, match=r"The user ids must be of the type that fit saw, .*\. Got .*; pass ids of that type\."):
        lookup(values, labels, "user")
    with pytest.raises(TypeError, match=r"The user ids must be of the type that fit saw, .*\. Got .*; pass ids of that type\."):
        merge(labels, values, "user")


@pytest.mark.parametrize(
    "values",
    [
        [None],
        [np.nan],
        [float("nan"), None],
        np.array([None]),
        np.array([np.nan]),
        np.array(["NaT"], dtype="M8[s]"),
        [pd.NA],
        [pd.NaT],
    ],
    ids=str,
)
@pytest.mark.parametrize("labels", [np.arange(3), np.array([3, 9]), objects("a"), DAY, np.array([], dtype=int)], ids=str)
def test_a_missing_id_alone_is_refused(values, labels):
    with pytest.raises(ValueError, match=r"user ids must not be missing or infinite\. Row 0 is"):
        lookup(as_ids(values, "user"), labels, "user")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3, "a"], [3, "a"]),
        ([True, 3], [True, 3]),
        ([np.nan, "a"], [np.nan, "a"]),
        ([2**53 + 1, 0.5], [2**53 + 1, 0.5]),
        (("7", 7.0), ["7", 7.0]),
        ([["a", 3], ["b", 4]], [["a", 3], ["b", 4]]),
    ],
    ids=str,
)
def test_a_list_of_mixed_types_keeps_them_apart(values, expected):
    got = as_ids(values, "user")
    assert got.dtype == object
    assert repr(got.tolist()) == repr(expected)


def test_arrays_and_lists_of_one_type_are_what_numpy_makes_of_them():
    assert as_ids([1, 2], "user").dtype == np.int64
    assert as_ids(["a"], "user").tolist() == ["a"]
    assert as_ids(np.array([1.5]), "user").dtype == np.float64
    assert as_ids(3, "user").shape == ()
    series = pl.Series([1])
    assert as_ids(series, "user") is series


def test_what_is_no_array_of_ids_is_refused():
    for ids in ((user for user in "ab"), {"a", "b"}, {"a": 1}):
        with pytest.raises(TypeError, match=r"user ids must be a list or an array\. Got \w+\. Pass list\(\.\.\.\) of it\."):
            as_ids(ids, "user")
    with pytest.raises(
        ValueError, match=r"user ids must be an array of single numbers or texts\. Got nested lists of unequal lengths"
    ):
        as_ids([[1], [2, 3]], "user")


def test_rows_of_mixed_types_become_columns_of_one_type_each():
    table = as_table([["ann", 2**53 + 1], ["bob", 4]])
    assert table.tolist() == [["ann", 2**53 + 1], ["bob", 4]]
    plain, unequal = [[1, 2], [3, 4]], [[1, "a"], [2]]
    assert as_table(plain) is plain
    assert as_table(unequal) is unequal  # scikit-learn's check has the words


def test_text_of_numbers_is_that_of_values():
    assert as_text(np.array([17850, 2])).tolist() == ["17850", "2"]
    assert as_text(np.array([1.5, 2.0])).tolist() == ["1.5", "2"]
    assert encode(objects(17850.0, "85123A"), "item")[1].tolist() == ["17850", "85123A"]
    assert lookup(np.array([17850.0]), np.array(["17850", "85123A"]), "item").tolist() == [0]


@pytest.mark.parametrize(
    ("labels", "filler"),
    [
        (np.array([3, 5]), -1),
        (np.array([0.5, 2.0]), -1.0),
        (np.array([-1, 5]), None),
        (np.array([-1.0, 0.5]), None),
        (np.array([5, 2**63 + 5], dtype=np.uint64), None),
        (np.array([False, True]), None),
        (objects("a", "b"), None),
        (objects(5, 2**70), None),
    ],
    ids=str,
)
def test_the_filler_is_never_an_id(labels, filler):
    got = label(np.array([[1, -1], [0, -1]]), labels)
    assert got[:, 0].tolist() == [labels[1], labels[0]]
    assert got[:, 1].tolist() == [filler, filler]
    assert got.dtype == (labels.dtype if filler is not None else object)


@pytest.mark.parametrize("unit", ["D", "s", "ns"])
def test_times_stay_times_and_are_filled_with_none_such(unit):
    labels = np.array(["2024-02-29", "2024-03-01"], dtype=f"datetime64[{unit}]")
    got = label(np.array([1, -1]), labels)
    assert got.dtype == labels.dtype
    assert got[0] == labels[1]
    assert np.isnat(got[1])
