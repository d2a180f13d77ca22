"""Data sets on disk: what is written comes back, each user is in one shard, and what is wrong is refused with words."""

import errno
import json
import sys
import tracemalloc
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pytest
from numpy.testing import assert_array_equal
from parquet import ratings, rows_of, write

from sk_torchmf import Shards, UserBlock
from sk_torchmf.inputs import row_sources, shard_building
from sk_torchmf.inputs.stable_hash import shares, stable_hash

NAMES = {"user": "user", "item": "item", "rating": "rating"}


def build(tmp_path, columns, name="shards", **options):
    """A data set of one file of these columns."""
    path = write(tmp_path / f"{name}.parquet", columns)
    return Shards.from_parquet(path, tmp_path / name, **(NAMES | {"n_shards": 4} | options))


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(row_sources, "BATCH", 300)


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("more", [{}, {"weights": True}, {"times": True}, {"weights": True, "times": True}])
def test_what_is_written_comes_back(text, more, tmp_path):
    columns = ratings(text=text, **more)
    named = {"weight": "weight"} if "weights" in more else {}
    shards = build(tmp_path, columns, **named, **({"timestamp": "when"} if "times" in more else {}))
    assert rows_of(shards) == sorted(zip(*(values.tolist() for values in columns.values()), strict=True))
    assert (shards.n_ratings, shards.n_users, shards.n_items) == (2000, len(set(columns["user"])), len(set(columns["item"])))
    assert shards.items.tolist() == sorted(set(columns["item"]))
    assert sorted(shards.users.tolist()) == sorted(set(columns["user"]))
    assert shards.rating_range == (0.5, 5.0)
    shards.verify()


def test_each_user_is_in_the_shard_that_the_hash_of_the_label_says(tmp_path):
    shards, offset = build(tmp_path, ratings(text=True)), 0
    for at, block in enumerate(shards):
        assert block.offset == offset
        assert set(shares(stable_hash(block.users, "user"), 4).tolist()) <= {at}
        assert block.users.tolist() == sorted(block.users)
        offset += len(block)
    assert offset == shards.n_users
    assert_array_equal(shards.users, np.concatenate([block.users for block in shards]))


def test_items_of_a_user_ascend(tmp_path):
    for block in build(tmp_path, ratings()):
        for start, stop in zip(block.pointers[:-1], block.pointers[1:], strict=True):
            assert (np.diff(block.columns[start:stop].astype(int)) >= 0).all()


@pytest.mark.parametrize(("n_items", "kind"), [(2**16, np.uint16), (2**16 + 1, np.int32)])
def test_columns_are_as_narrow_as_the_number_of_items_lets_them_be(n_items, kind, tmp_path, monkeypatch):
    monkeypatch.setattr(row_sources, "BATCH", 2**16)
    item = np.arange(n_items)
    shards = build(tmp_path, {"user": item % 3, "item": item[::-1].copy(), "rating": item % 5}, n_shards=1)
    assert shards[0].columns.dtype == kind
    assert_array_equal(np.sort(shards[0].columns), item)


@pytest.mark.parametrize(("n_levels", "kind"), [(256, np.uint8), (257, np.float32)])
def test_ratings_are_bytes_where_they_are_few(n_levels, kind, tmp_path):
    rating = np.arange(n_levels) / 8 - 3
    shards = build(tmp_path, {"user": np.zeros(n_levels, int), "item": np.arange(n_levels), "rating": rating}, n_shards=1)
    assert shards[0].codes.dtype == kind
    assert shards[0].ratings.dtype == np.float32
    assert_array_equal(shards[0].ratings, rating)  # eighths are exact
    assert (shards[0].levels is None) == (kind == np.float32)


def test_a_rating_takes_three_bytes_and_nine_with_a_weight_and_many_levels(tmp_path, monkeypatch):
    monkeypatch.setattr(row_sources, "BATCH", 2**20)
    columns = ratings(200_000, weights=True)
    some = 6000  # headers of 22 files, pointers, labels of 60 users
    assert build(tmp_path, columns, "few").n_bytes < 3 * 200_000 + some
    columns["rating"] = np.random.default_rng(0).normal(size=200_000)
    columns["item"] = np.arange(200_000)
    assert build(tmp_path, columns, "many", weight="weight").n_bytes < (4 + 4 + 4 + 8) * 200_000 + some  # 8: the items' labels


def test_weights_that_are_all_one_are_not_kept(tmp_path):
    columns = ratings() | {"weight": np.ones(2000)}
    assert all(block.weights is None for block in build(tmp_path, columns, weight="weight"))


def test_rows_of_weight_zero_are_left_out_and_their_ids_known(tmp_path):
    columns = {"user": [1, 1, 2], "item": [5, 6, 7], "rating": [1.0, 2.0, 9.0], "weight": [1.0, 0.5, 0.0]}
    shards = build(tmp_path, columns, weight="weight")
    assert rows_of(shards) == [(1, 5, 1.0, 1.0), (1, 6, 2.0, 0.5)]
    assert (shards.n_ratings, shards.n_users, shards.n_items, shards.rating_range) == (2, 2, 3, (1.0, 2.0))


def test_without_ratings_every_row_is_a_positive(tmp_path):
    columns = ratings()
    shards = build(tmp_path, columns, rating=None)
    assert all(block.ratings is None for block in shards)
    assert rows_of(shards) == sorted(zip(columns["user"].tolist(), columns["item"].tolist(), strict=True))
    assert shards.rating_range is None
    assert repr(shards).endswith("x 2000 interactions in 4 shards)>")


def test_the_same_rows_make_the_same_shards_in_whatever_order_and_files(tmp_path):
    columns = ratings(text=True, weights=True, times=True)
    named = NAMES | {"weight": "weight", "timestamp": "when", "n_shards": 4}
    plain = Shards.from_parquet(write(tmp_path / "one", columns), tmp_path / "a", **named)
    order, other = np.random.default_rng(1).permutation(2000), tmp_path / "files"
    other.mkdir()
    shuffled = {name: values[order] for name, values in columns.items()}
    write(other / "x.parquet", shuffled, slice(0, 700), row_group_size=50)
    wide = {name: pa.array(values).dictionary_encode() for name, values in shuffled.items()}
    write(other / "y.parquet", wide, slice(700, 1500), compression="zstd")
    large = {name: pa.array(shuffled[name], pa.large_string()) for name in ("user", "item")}
    write(other / "z.parquet", {"unused": np.zeros(2000)} | shuffled | large, slice(1500, None))
    again = Shards.from_parquet(other, tmp_path / "b", **named)
    assert again.digest == plain.digest
    for file in (tmp_path / "a").glob("*.npy"):
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()
    changed = columns | {"rating": np.where(np.arange(2000) == 77, 6.0, columns["rating"])}
    assert Shards.from_parquet(write(tmp_path / "two", changed), tmp_path / "c", **named).digest != plain.digest


def test_duplicates_of_a_pair_are_ordered_by_what_else_they_have(tmp_path):
    columns = {
        "user": [3] * 5 + [4],
        "item": [8, 8, 9, 8, 8, 9],
        "rating": [2.0, 1.0, 1.0, 1.0, 2.0, 1.0],
        "when": [5, 4, 0, 3, 1, 0],
    }
    shards = build(tmp_path, columns, timestamp="when", n_shards=1)
    block = shards[0].between(0, 1)
    found = list(zip(shards.items[block.columns].tolist(), block.ratings.tolist(), block.timestamps.tolist(), strict=True))
    assert found == [(8, 1.0, 3), (8, 1.0, 4), (8, 2.0, 1), (8, 2.0, 5), (9, 1.0, 0)]


def test_ids_compare_as_values_over_files(tmp_path):
    one = write(tmp_path / "1", {"user": [17, 2], "item": pa.array([1, 2], pa.uint8()), "rating": [1, 2]})
    two = write(tmp_path / "2", {"user": [17.0, 3.0], "item": pa.array([1.0, 3.0], pa.float32()), "rating": [3.5, 4]})
    shards = Shards.from_parquet([one, two], tmp_path / "shards", **NAMES)
    assert rows_of(shards) == [(2, 2, 2.0), (3, 3, 4.0), (17, 1, 1.0), (17, 1, 3.5)]
    assert shards.users.dtype == shards.items.dtype == np.int64


def test_text_that_looks_like_numbers_stays_text(tmp_path):
    shards = build(tmp_path, {"user": ["007", "7", "7"], "item": ["1", "1.0", "ß"], "rating": [1, 2, 3]})
    assert rows_of(shards) == [("007", "1", 1.0), ("7", "1.0", 2.0), ("7", "ß", 3.0)]


@pytest.mark.parametrize("role", ["user", "item"])
def test_ids_beyond_int64_are_exact(role, tmp_path):
    ids = [2**64 - 1, 2**53 + 1, 0]
    columns = {"user": [1, 2, 3], "item": [1, 2, 3], "rating": [1, 2, 3]} | {role: pa.array(ids, pa.uint64())}
    shards = build(tmp_path, columns)
    labels = shards.users if role == "user" else shards.items
    assert sorted(labels.tolist()) == sorted(ids)
    small = write(tmp_path / "small", columns | {role: pa.array([-1, 5, 6])})
    with pytest.raises(ValueError, match=f"{role} ids must lie between 0 and 2\\*\\*64 - 1, or between"):
        Shards.from_parquet([tmp_path / "shards.parquet", small], tmp_path / "other", **NAMES)


def test_text_sorts_as_it_does_in_memory(tmp_path):
    ids = ["b", "a", "é", "", "\U0001f600", "\uffee", "a\0"]
    shards = build(tmp_path, {"user": ids, "item": ids, "rating": np.arange(7)}, n_shards=1)
    assert shards.items.tolist() == shards.users.tolist() == np.unique(np.array(ids, dtype=object)).tolist()


def test_more_items_than_are_merged_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("sk_torchmf.inputs.arrow_columns.N_PENDING", 10)
    columns = ratings(n_items=900, seed=3)
    assert rows_of(build(tmp_path, columns)) == sorted(zip(*(values.tolist() for values in columns.values()), strict=True))


def sources(folder, columns):
    """One data set as each of the sources that are taken."""
    for name, rows in (("part-0", slice(0, 900)), ("part-1", slice(900, 2000))):
        write(folder / f"{name}.parquet", columns, rows)
    (folder / "_SUCCESS").touch()
    dataset = pa.dataset
    whole = write(folder.parent / "whole.parquet", columns)
    hive = folder.parent / "hive"
    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    pa.parquet.write_to_dataset(table, hive, partition_cols=["item"])
    dataset.write_dataset(table, folder.parent / "arrow", format="feather")
    return {
        "file": whole,
        "str": str(whole),
        "folder": folder,
        "list": [folder / "part-1.parquet", str(folder / "part-0.parquet")],
        "folders": [folder],
        "dataset": dataset.dataset(folder, format="parquet"),
        "filtered": dataset.dataset(whole).filter(dataset.field("rating") > 0),
        "folders' names": hive,
        "another format": dataset.dataset(folder.parent / "arrow", format="feather"),
        "in memory": dataset.dataset(table),
    }


def test_every_source_makes_the_same(tmp_path):
    columns = ratings(times=True)
    (tmp_path / "parts").mkdir()
    expected = build(tmp_path, columns, timestamp="when").digest
    for number, (name, source) in enumerate(sources(tmp_path / "parts", columns).items()):
        shards = Shards.from_parquet(source, tmp_path / f"{number}", **NAMES, timestamp="when", n_shards=4)
        assert shards.digest == expected, name


def test_columns_that_the_names_of_folders_tell(tmp_path):
    folder = tmp_path / "data" / "rating=9" / "hour=7"
    folder.mkdir(parents=True)
    write(folder / "part", {name: GOOD[name] for name in ("user", "item")})
    shards = Shards.from_parquet(tmp_path / "data", tmp_path / "shards", **NAMES, timestamp="hour")
    assert rows_of(shards) == [(1, 1, 9.0, 7), (2, 2, 9.0, 7), (3, 3, 9.0, 7)]
    write(folder / "part", {name: GOOD[name] for name in NAMES})
    with pytest.raises(ValueError, match=r"data is not a data set of Parquet files: .*Field rating has incompatible types"):
        Shards.from_parquet(tmp_path / "data", tmp_path / "both", **NAMES)
    of_the_file = Shards.from_parquet([folder / "part"], tmp_path / "both", **NAMES)
    assert rows_of(of_the_file) == [(1, 1, 1.0), (2, 2, 2.0), (3, 3, 3.0)]
    write(folder / "part", GOOD | {"rating": pa.array([1, 2, 3], pa.int32())})
    assert rows_of(Shards.from_parquet(tmp_path / "data", tmp_path / "same", **NAMES)) == rows_of(of_the_file)


def test_a_filter_is_kept(tmp_path):
    path = write(tmp_path / "whole", {"user": [1, 2, 3], "item": [1, 2, 3], "rating": [1, 2, 3]})
    kept = pa.dataset.dataset(path).filter(pa.dataset.field("rating") > 1)
    assert rows_of(Shards.from_parquet(kept, tmp_path / "shards", **NAMES)) == [(2, 2, 2.0), (3, 3, 3.0)]


def test_columns_by_position(tmp_path):
    columns = ratings()
    by_name = build(tmp_path, columns)
    by_position = build(tmp_path, columns, "other", user=0, item=np.int64(1), rating=2)
    assert by_position.digest == by_name.digest
    assert by_position.names == {"user": 0, "item": 1, "rating": 2}
    assert by_name.names == NAMES


@pytest.mark.parametrize("kind", ["int8", "uint16", "float16", "float32", "decimal"])
def test_ratings_of_any_type_of_numbers(kind, tmp_path):
    rating = pa.array([Decimal(n) for n in (1, 3, 5)]) if kind == "decimal" else np.array([1, 3, 5], dtype=kind)
    columns = {"user": [1, 1, 2], "item": [1, 2, 1], "rating": rating}
    assert rows_of(build(tmp_path, columns)) == [(1, 1, 1.0), (1, 2, 3.0), (2, 1, 5.0)]


@pytest.mark.parametrize(
    ("times", "kind", "expected"),
    [
        (pa.array([3, 2], pa.int32()), "<i8", [3, 2]),
        (pa.array([0.5, 2.0]), "<f8", [0.5, 2.0]),
        (pa.array([10**9, 5], pa.timestamp("ms")), "<M8[ms]", [10**9, 5]),
        (pa.array([10**9, 5], pa.timestamp("us", tz="Europe/Berlin")), "<M8[us]", [10**9, 5]),  # microseconds of UTC
        (pa.array([100, 5], pa.date32()), "<M8[D]", [100, 5]),
    ],
)
def test_times_keep_their_values_and_units(times, kind, expected, tmp_path):
    shards = build(tmp_path, {"user": [1, 1], "item": [1, 2], "rating": [1, 2], "when": times}, timestamp="when", n_shards=1)
    assert shards[0].timestamps.dtype == np.dtype(kind)
    assert shards[0].timestamps.view("<f8" if kind == "<f8" else "<i8").tolist() == expected


@pytest.mark.parametrize(("n", "expected"), [(1, 16), (16 * 2**21, 16), (16 * 2**21 + 1, 32), (10**8, 64), (10**12, 4096)])
def test_by_default_shards_are_a_power_of_two(n, expected):
    assert shard_building._default_n_shards(n) == expected


def test_blocks_are_cut_by_users(tmp_path):
    block = build(tmp_path, ratings(weights=True, times=True), weight="weight", timestamp="when", n_shards=1)[0]
    part = block.between(3, 10)
    first, last = block.pointers[3], block.pointers[10]
    assert (part.offset, part.n_users, len(part), part.n_ratings) == (3, 7, 7, last - first)
    assert_array_equal(part.pointers, block.pointers[3:11] - first)
    for name in ("columns", "ratings", "weights", "timestamps"):
        assert_array_equal(getattr(part, name), getattr(block, name)[first:last])
    assert_array_equal(part.users, block.users[3:10])
    again = part.between(2, 4)
    assert (again.offset, again.users.tolist()) == (5, block.users[5:7].tolist())
    assert_array_equal(again.ratings, block.ratings[block.pointers[5] : block.pointers[7]])
    assert block.between(0, block.n_users + 5).n_users == block.n_users
    assert block.between(4, 4).n_ratings == 0


def test_shards_are_a_sequence(tmp_path):
    shards = build(tmp_path, ratings())
    assert len(shards) == 4
    assert repr(shards) == f"<Shards ({shards.n_users} users x {shards.n_items} items x 2000 ratings in 4 shards)>"
    assert shards[-1].offset == shards[3].offset
    with pytest.raises(IndexError):
        shards[4]
    assert isinstance(shards[0], UserBlock)
    assert repr(shards[0]) == f"<UserBlock ({shards[0].n_users} users x {shards[0].n_ratings} ratings, from user 0)>"


def test_arrays_are_mapped_and_cannot_be_written_to(tmp_path):
    block = build(tmp_path, ratings())[0]
    assert isinstance(block.columns, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        block.columns[0] = 1


def test_memory_does_not_grow_with_the_number_of_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(row_sources, "BATCH", 20_000)
    peaks = []
    for n in (100_000, 800_000):
        path = write(tmp_path / f"{n}", ratings(n, n_users=500), row_group_size=20_000)
        tracemalloc.start()
        Shards.from_parquet(path, tmp_path / f"shards {n}", **NAMES, n_shards=n // 20_000)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]  # 700,000 rows more would be 8 MB


GOOD = {"user": [1, 2, 3], "item": [1, 2, 3], "rating": [1.0, 2.0, 3.0], "weight": [1.0, 1.0, 1.0], "when": [1, 2, 3]}
ROLE = {"weight": "weight", "when": "timestamp"}


@pytest.mark.parametrize(
    ("name", "values", "error", "words"),
    [
        ("user", pa.array([1, None, 3]), ValueError, r"user ids must not be missing\. Row 1 of .*bad has none"),
        ("user", pa.array(["a", "b", None]), ValueError, r"user ids must not be missing\. Row 2 of .*bad has none"),
        ("item", pa.array([1, 2, None]).dictionary_encode(), ValueError, r"item ids must not be missing\. Row 2 of"),
        ("item", pa.nulls(3), ValueError, r"item ids must not be missing\. Row 0 of"),
        ("user", [1.0, 2.0, np.nan], ValueError, r"user ids must be whole numbers or text\. Row 2 of .*bad has nan"),
        ("item", [1.0, 2.5, 3.0], ValueError, r"item ids must be whole numbers or text\. Row 1 of .*bad has 2\.5"),
        ("item", [2.0**60, 1.0, 2.0], ValueError, "item ids must be exact"),
        ("user", [True, False, True], TypeError, r"user ids must be whole numbers or text\. .* is of type bool\."),
        ("item", pa.array([b"a", b"b", b"c"]), TypeError, r"of type binary\. Cast the column to int64 or string"),
        ("rating", ["5", "4", "3"], TypeError, r"rating must be numbers\. Row 0 of .*bad is of type (large_)?string"),
        ("rating", [1.0, np.nan, 2.0], ValueError, r"rating must be finite\. Row 1 of .*bad has nan"),
        ("rating", [1.0, 2.0, -np.inf], ValueError, r"rating must be finite\. Row 2 of .*bad has -inf"),
        ("rating", pa.array([None, 1.0, 2.0]), ValueError, r"rating must not be missing\. Row 0 of .*bad has none"),
        ("rating", pa.nulls(3), ValueError, r"rating must not be missing\. Row 0 of"),
        ("rating", [1e300, 1.0, 2.0], ValueError, "largest of the ratings must lie between"),
        ("weight", [1.0, -1.0, 1.0], ValueError, r"weight must be from 0 to 1e\+30\. Row 1 of .*bad has -1\.0"),
        ("weight", [1.0, np.nan, 1.0], ValueError, r"weight must be finite\. Row 1 of"),
        ("weight", [0.0, 0.0, 0.0], ValueError, "weight is zero in every row"),
        ("when", pa.array([1, None, 2]), ValueError, r"timestamp must not be missing\. Row 1 of"),
        ("when", pa.array([1, None, 2], pa.timestamp("s")), ValueError, r"timestamp must not be missing\. Row 1 of"),
        ("when", ["a", "b", "c"], TypeError, "timestamp must be numbers"),
    ],
)
def test_a_bad_value_is_named(name, values, error, words, tmp_path):
    path = write(tmp_path / "bad", GOOD | {name: values})
    named = NAMES | ({ROLE[name]: name} if name in ROLE else {})
    with pytest.raises(error, match=words):
        Shards.from_parquet(path, tmp_path / "shards", **named)
    assert [one.name for one in tmp_path.iterdir()] == ["bad"]


def test_a_bad_row_is_counted_from_the_file_s_beginning(tmp_path):
    first, second = ratings(), ratings()
    second["rating"][1234] = np.nan
    paths = [write(tmp_path / "first", first), write(tmp_path / "second", second, row_group_size=100)]
    with pytest.raises(ValueError, match=r"Row 1234 of .*second has nan"):
        Shards.from_parquet(paths, tmp_path / "shards", **NAMES)


@pytest.mark.parametrize("role", ["user", "item"])
def test_numbers_and_text_do_not_mix(role, tmp_path):
    paths = [write(tmp_path / "a", GOOD), write(tmp_path / "b", GOOD | {role: ["x", "y", "z"]})]
    with pytest.raises(TypeError, match=f"{role} ids must be of one type in all of the data. Got numbers and text"):
        Shards.from_parquet(paths, tmp_path / "shards", **NAMES)


def test_numbers_and_dates_do_not_mix(tmp_path):
    paths = [write(tmp_path / "a", GOOD), write(tmp_path / "b", GOOD | {"when": pa.array([1, 2, 3], pa.timestamp("s"))})]
    with pytest.raises(TypeError, match=r"must be of one type in all of the data. Got numbers and dates. Convert one to the"):
        Shards.from_parquet(paths, tmp_path / "shards", **NAMES, timestamp="when")


def test_a_column_that_is_missing_is_named_with_its_file_before_all_else(tmp_path):
    paths = [
        write(tmp_path / "a", GOOD | {"rating": [np.nan] * 3}),
        write(tmp_path / "b", {"user": [1], "item": [1], "stars": [1]}),
    ]
    with pytest.raises(ValueError, match=r"rating='rating' is not a column of .*b\. The columns are \['user', 'item', 'stars'\]"):
        Shards.from_parquet(paths, tmp_path / "shards", **NAMES)
    with pytest.raises(ValueError, match=r"item=5 is not a column position of .*a, which has 5 columns"):
        Shards.from_parquet(paths, tmp_path / "shards", user=0, item=5)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"user": None}, TypeError, "user must be a column's name or position. Got None"),
        ({"item": 1.5}, TypeError, r"item must be a column's name or position\. Got 1\.5"),
        ({"rating": True}, TypeError, r"rating must be a column's name or position\. Got True"),
        ({"n_shards": 0}, ValueError, r"n_shards must be an int >= 1\. Got 0"),
        ({"n_shards": 5000}, ValueError, r"n_shards must be at most 4096\. Got 5000"),
        ({"progress": 1}, TypeError, r"progress must be True or False\. Got 1"),
        ({"source": 5}, TypeError, r"source must be the path of a Parquet file .* Got int"),
        ({"source": []}, TypeError, r"source must be .* Got an empty list"),
        ({"folder": 5}, TypeError, r"path must be a str or os\.PathLike\. Got int"),
    ],
)
def test_bad_arguments_are_refused(arguments, error, words, tmp_path):
    given = NAMES | {"source": write(tmp_path / "good", GOOD), "folder": tmp_path / "shards"} | arguments
    with pytest.raises(error, match=words):
        Shards.from_parquet(**given)
    assert [one.name for one in tmp_path.iterdir()] == ["good"]


def test_what_is_no_parquet_file_is_named(tmp_path):
    text = tmp_path / "ratings.csv"
    text.write_text("user,item,rating\n1,2,3\n")
    with pytest.raises(ValueError, match=r"ratings\.csv is not a complete Parquet file"):
        Shards.from_parquet(text, tmp_path / "shards", **NAMES)
    (tmp_path / "folder").mkdir()
    write(tmp_path / "folder" / "a", GOOD)
    text.rename(tmp_path / "folder" / "ratings.csv")
    with pytest.raises(ValueError, match=r"ratings\.csv is not a complete Parquet file"):
        Shards.from_parquet(tmp_path / "folder", tmp_path / "shards", **NAMES)
    with pytest.raises(FileNotFoundError):
        Shards.from_parquet(tmp_path / "nothing", tmp_path / "shards", **NAMES)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"at least one Parquet file.*empty has none"):
        Shards.from_parquet(tmp_path / "empty", tmp_path / "shards", **NAMES)


def test_a_truncated_source_is_named(tmp_path):
    whole = write(tmp_path / "whole", ratings()).read_bytes()
    cut = tmp_path / "cut"
    cut.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="cut is not a complete Parquet file"):
        Shards.from_parquet(cut, tmp_path / "shards", **NAMES)


def test_a_damaged_page_is_named(tmp_path):
    path = write(tmp_path / "damaged", ratings(20_000), compression="zstd", use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[2000:4000] = bytes(2000)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged is damaged: .*Write it again, or leave it out"):
        Shards.from_parquet(path, tmp_path / "shards", **NAMES)
    assert [one.name for one in tmp_path.iterdir()] == ["damaged"]


def test_two_columns_of_one_name_are_refused(tmp_path):
    pa.parquet.write_table(pa.Table.from_arrays(3 * [pa.array([1])], names=["user", "user", "item"]), tmp_path / "twice")
    with pytest.raises(ValueError, match=r"twice has 2 columns with the name 'user'\. Rename all but one"):
        Shards.from_parquet(tmp_path / "twice", tmp_path / "shards", user="user", item="item")


def test_no_rows_are_refused(tmp_path):
    with pytest.raises(ValueError, match="The data set has no rows, while a"):
        build(tmp_path, {name: pa.array([], pa.int64()) for name in NAMES})


def test_a_folder_that_is_there_is_left_alone(tmp_path):
    there = tmp_path / "shards"
    there.mkdir()
    with pytest.raises(FileExistsError, match="The folder must not exist yet") as caught:
        build(tmp_path, GOOD)
    assert caught.value.errno == errno.EEXIST
    assert list(there.iterdir()) == []
    with pytest.raises(FileNotFoundError, match="The folder to build in does not exist"):
        Shards.from_parquet(tmp_path / "shards.parquet", tmp_path / "nowhere" / "shards", **NAMES)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("at", ["_survey", "_append_labels", "_write_shard", "_write_labels"])
def test_an_interrupted_build_leaves_nothing(at, error, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:

        def interrupt(*args):
            raise error

        patch.setattr(shard_building, at, interrupt)
        with pytest.raises(error):
            build(tmp_path, ratings())
    assert [one.name for one in tmp_path.iterdir()] == ["shards.parquet"]
    assert build(tmp_path, ratings()).n_ratings == 2000


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path):
    """A limit on the size of a file stands in for the disk's: writes come back short, then fail."""
    path = write(tmp_path / "good", ratings(20_000))
    resource = pytest.importorskip("resource")  # of POSIX
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"File too large while the folder was built; nothing of it was left") as caught:
            Shards.from_parquet(path, tmp_path / "shards", **NAMES, n_shards=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(tmp_path / "shards"))
    assert [one.name for one in tmp_path.iterdir()] == ["good"]


def test_data_that_change_while_they_are_read_are_noticed(tmp_path):
    tables = [GOOD, GOOD | {"item": [1, 2, 4]}]
    names = NAMES | {"rating": None}
    with pytest.raises(
        ValueError,
        match=r"The data must not change while they are read. Got values in the second pass",
    ):
        Shards.from_chunks(lambda: iter([tables.pop()]), tmp_path / "shards", **names)
    tables = [GOOD | {"rating": [1.0, 2.0, 8.0]}, GOOD]
    with pytest.raises(
        ValueError,
        match=r"The data must not change while they are read. Got values in the second pass",
    ):
        Shards.from_chunks(lambda: iter([tables.pop()]), tmp_path / "shards", **NAMES)
    tables = [[GOOD], [GOOD, GOOD]]
    with pytest.raises(ValueError, match="6 rows in the first pass and 3 in the second"):
        Shards.from_chunks(lambda: iter(tables.pop()), tmp_path / "shards", **NAMES)


def test_without_pyarrow_the_error_says_what_to_install(tmp_path, monkeypatch):
    shards = build(tmp_path, ratings())
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyarrow"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"Shards\.from_parquet needs pyarrow, .* pip install pyarrow"):
        Shards.from_parquet(tmp_path / "shards.parquet", tmp_path / "more", **NAMES)
    assert Shards(tmp_path / "shards").digest == shards.digest  # to read it nothing is needed
    assert len(rows_of(shards)) == 2000


def test_progress_is_shown(tmp_path, capsys):
    build(tmp_path, ratings(), progress=True)
    assert "shards" in capsys.readouterr().err


def damage_meta(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["meta"]["shards"][1]["n_users"]
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("damage", "error", "words"),
    [
        (
            damage_meta,
            ValueError,
            r"The manifest of .* must list its shards, and it cannot be read \(KeyError\('n_users'\)\)\. Build the Shards again",
        ),
        (
            lambda folder: (folder / "00001_columns.npy").unlink(),
            ValueError,
            r"is incomplete or damaged: 00001_columns\.npy is missing",
        ),
        (lambda folder: (folder / "manifest.json").unlink(), ValueError, r"not a folder of shards .*: it has no manifest\.json"),
        (
            lambda folder: (folder / "00001_columns.npy").write_bytes((folder / "00001_columns.npy").read_bytes()[:-1]),
            ValueError,
            r"is incomplete or damaged: 00001_columns\.npy has \d+ bytes where \d+ were written\. Build it again",
        ),
    ],
)
def test_a_damaged_folder_is_refused(damage, error, words, tmp_path):
    build(tmp_path, ratings())
    damage(tmp_path / "shards")
    with pytest.raises(error, match=words):
        Shards(tmp_path / "shards")


def test_a_changed_byte_is_found(tmp_path):
    shards = build(tmp_path, ratings())
    file = tmp_path / "shards" / "00002_ratings.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"00002_ratings\.npy was changed since it was written"):
        shards.verify()
