"""JSON lines and Parquet: columns by name, ids in the type that they come with, gaps named."""

import datetime
import gzip
import json
import sys

import numpy as np
import pytest

from sk_torchmf.datasets import load_ratings

RECORDS = [
    {"asin": "B0", "stars": 5.0, "reviewerID": "007", "text": "a\nb", "when": "2005-09-06"},
    {"reviewerID": "7", "asin": "B0", "stars": "3,5", "when": 1125964801, "more": [1]},
]

ONE = '{"user": 1, "item": 2, "rating": 3}'


def written(tmp_path, text, name="ratings.json"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def lines(records):
    return "".join(json.dumps(record) + "\n" for record in records)


TEXTS = [lines(RECORDS), "\ufeff\n\n" + lines(RECORDS), json.dumps(RECORDS), json.dumps(RECORDS, indent=1)]


@pytest.mark.parametrize("text", [*TEXTS, gzip.compress(lines(RECORDS).encode())])
def test_json_is_read(text, tmp_path):
    bunch = load_ratings(written(tmp_path, text))
    assert bunch.data.tolist() == [["007", "B0"], ["7", "B0"]]
    assert bunch.target.tolist() == [5, 3.5]
    assert bunch.timestamps.tolist() == [1125964800, 1125964801]


def test_typed_ids_compare_as_values(tmp_path):
    records = [{"user": 17850, "item": "7", "stars": 1}, {"user": 17850.0, "item": "07", "stars": 2}]
    bunch = load_ratings(written(tmp_path, lines(records)))
    assert bunch.user_labels.tolist() == [17850]
    assert bunch.item_labels.tolist() == ["07", "7"]
    records = [{"user": 1, "item": 2, "stars": 1}, {"user": "ann", "item": 2**65, "stars": 2}]
    mixed = load_ratings(written(tmp_path, lines(records)))
    assert mixed.data.tolist() == [["1", "2"], ["ann", str(2**65)]]
    given = load_ratings(written(tmp_path, '{"a": 1, "b": 2, "c": 3}\n'), user="b", item=0, rating="c")
    assert given.data.tolist() == [[2, 1]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f'{ONE}\n\n{{"user": 1, "item": 2}}\n', "line 3, has the rating None, which must be a finite number"),
        ('{"user": 1, "item": 2, "rating": true}\n', "line 1, has the rating True"),
        ('{"user": 1, "item": 2, "rating": NaN}\n', "line 1, has the rating nan"),
        (f'{ONE}\n{{"user": true, "item": 2, "rating": 1}}\n', "line 2, has the user True, which must be an id"),
        ('{"user": 1.5, "item": 2, "rating": 1}\n', "line 1, has the user 1.5, which must be an id"),
        ('{"user": {"$oid": "a"}, "item": 2, "rating": 1}\n', r"line 1, has the user {'\$oid': 'a'}, which must be an id"),
        ('{"user": 1, "item": null, "rating": 1}\n', "line 1, has the item None, which must be an id"),
        ('{"user": 1, "item": "", "rating": 1}\n', "line 1, has the item '', which must be an id"),
        (f'[{ONE}, {{"item": 2, "rating": 1}}]', "object 2, has the user None"),
        (f'{ONE}\n{{"user": 1,\n', r"line 2, is not valid JSON \(.*one object per rating, each on a line of its own"),
        ("{'user': 1, 'item': 2, 'rating': 1}\n", "line 1, is not valid JSON"),
        (f"{ONE}\n[1, 2, 3]\n", r"line 2, must be a JSON object\. Got \[1, 2, 3\]\."),
        ("[[1, 2, 3]]", r"object 1, must be a JSON object\. Got \[1, 2,"),
        ("[]", "ratings.json must have at least one rating."),
        ('{"user": {"0": 1}, "item": {"0": 2}, "rating": {"0": 3}}', 'Got one object with whole columns.*orient="records"'),
        (
            '{"a": 1, "b": 2, "c": 3}\n',
            r"has the columns \['a', 'b', 'c'\], and none of these names means a user. Say which it is with user=, a column's "
            r"name or",
        ),
    ],
)
def test_json_that_is_no_ratings_is_refused(text, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        load_ratings(written(tmp_path, text))


def test_an_id_in_brackets_is_no_json(tmp_path):
    text = "{3F25},[deleted],5\n{3F26},[deleted],4\n"
    assert load_ratings(written(tmp_path, text, "ratings.csv")).user_labels.tolist() == ["{3F25}", "{3F26}"]


@pytest.fixture(params=["pyarrow", "polars"])
def library(request, monkeypatch):
    """The one library of tables that is there, after the test has written its file."""
    pytest.importorskip("pyarrow", exc_type=ImportError)
    pytest.importorskip(request.param)

    def leave_alone():
        for other in {"pyarrow.parquet", "polars"} - {"pyarrow.parquet" if request.param == "pyarrow" else request.param}:
            monkeypatch.setitem(sys.modules, other, None)

    return leave_alone


def parquet(tmp_path, **columns):
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "ratings.csv"  # told by its first bytes
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def test_parquet_is_read_by_what_is_installed(library, tmp_path):
    path = parquet(tmp_path, item=["07", "7", "7"], rating=[1, 2, 3], user_id=[9.0, 8.0, 2.0**52], text=["x", None, "y"])
    library()
    bunch = load_ratings(path)
    assert bunch.data.tolist() == [["9", "07"], ["8", "7"], [str(2**52), "7"]]
    assert bunch.user_labels.tolist() == [8, 9, 2**52]
    assert bunch.target.tolist() == [1, 2, 3]


def test_parquet_of_numbers_keeps_them(library, tmp_path):
    path = parquet(tmp_path, userId=[2**62 + 1, 2**62], movieId=np.array([1, 2], np.uint8), rating=[1.5, 2], timestamp=[5, 6])
    library()
    bunch = load_ratings(path)
    assert bunch.data.tolist() == [[2**62 + 1, 1], [2**62, 2]]
    assert bunch.data.dtype == bunch.timestamps.dtype == np.int64
    assert (bunch.target.tolist(), bunch.timestamps.tolist()) == ([1.5, 2], [5, 6])
    assert load_ratings(path, rating="timestamp", timestamp=2).target.tolist() == [5, 6]


def test_parquet_has_dates_and_categories(library, tmp_path):
    import pyarrow

    day = datetime.date(2005, 9, 6)
    user = pyarrow.array(["ann", "bob"]).dictionary_encode()
    path = parquet(tmp_path, user=user, item=[1, 2], rating=[1, 2], date=[day, day + datetime.timedelta(1)])
    library()
    bunch = load_ratings(path)
    assert bunch.user_labels.tolist() == ["ann", "bob"]
    assert bunch.timestamps.tolist() == [1125964800, 1126051200]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"user": [1, None]}, "row 1, has the user None, which must be an id"),
        ({"item": [None, "a"]}, "row 0, has the item None, which must be an id"),
        ({"rating": [1.0, None]}, "row 1, has the rating None, which must be a finite number"),
        ({"rating": [1.0, float("nan")]}, "row 1, has the rating nan"),
        ({"rating": [1e39, 1.0]}, r"row 0, has the rating 1e\+39, which must be a number that float32 holds"),
        ({"user": [True, False]}, "row 0, has the user True, which must be an id"),
    ],
)
def test_gaps_in_parquet_are_named(columns, message, library, tmp_path):
    path = parquet(tmp_path, **{"user": [1, 2], "item": ["a", "b"], "rating": [1.0, 2.0], **columns})
    library()
    with pytest.raises(ValueError, match=message):
        load_ratings(path)


def test_parquet_without_a_library_or_whole_is_refused(monkeypatch, tmp_path):
    pytest.importorskip("pyarrow", exc_type=ImportError)
    path = parquet(tmp_path, user=[1], item=[2], rating=[3])
    damaged = written(tmp_path, path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"cannot be read by pyarrow\.parquet: .*Write it again, or as CSV"):
        load_ratings(damaged)
    for module in ("pyarrow.parquet", "polars"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=r"which needs pyarrow or polars\. Run: pip install pyarrow"):
        load_ratings(path)
