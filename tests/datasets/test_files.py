"""Files of ratings: every layout is read, and a malformed line is named."""

import numpy as np
import pytest

from sk_torchmf.datasets import load_ratings

TABLE = [("12", "7", "3.5", "881250949"), ("3", "1193", "5", "891717742"), ("12", "1193", "0.5", "878887116")]


def written(tmp_path, text, name="ratings.csv", encoding="utf-8"):
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("separator", ["::", "\t", ",", ";", " ", "   "])
@pytest.mark.parametrize("n_fields", [3, 4])
@pytest.mark.parametrize("header", [None, ("user_id:token", "item_id:token", "rating:float", "timestamp:float")])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_every_layout_is_read(separator, n_fields, header, end, tmp_path):
    rows = ([header] if header else []) + TABLE
    path = written(tmp_path, end.join(separator.join(row[:n_fields]) for row in rows) + end)
    bunch = load_ratings(str(path))
    np.testing.assert_array_equal(bunch.data, [[12, 7], [3, 1193], [12, 1193]])
    assert bunch.data.dtype == np.int64
    np.testing.assert_array_equal(bunch.target, np.array([3.5, 5, 0.5], dtype=np.float32))
    assert bunch.target.dtype == np.float32
    if n_fields == 3:
        assert bunch.timestamps is None
        assert bunch.interactions.timestamps is None
    else:
        np.testing.assert_array_equal(bunch.timestamps, [881250949, 891717742, 878887116])
        assert bunch.timestamps.dtype == np.int64
    np.testing.assert_array_equal(bunch.interactions.user_ids, [1, 0, 1])
    np.testing.assert_array_equal(bunch.interactions.item_ids, [0, 1, 1])
    assert "3 ratings from ratings.csv" in bunch.DESCR


def test_text_ids_are_kept(tmp_path):
    bunch = load_ratings(written(tmp_path, 'user,item,rating,when,note\nann,"tea, green",5,1.5,x\nbob,tea,3,2,\nann,tea,4,3,y'))
    assert bunch.data.tolist() == [["ann", "tea, green"], ["bob", "tea"], ["ann", "tea"]]
    assert bunch.user_labels.tolist() == ["ann", "bob"]
    assert bunch.interactions.user_ids.tolist() == [0, 1, 0]
    assert bunch.timestamps.tolist() == [1.5, 2, 3]


def test_a_column_of_numbers_beside_a_column_of_text(tmp_path):
    bunch = load_ratings(written(tmp_path, "1,tea,5\n10,tea,3\n2,milk,4\n"))
    assert bunch.user_labels.tolist() == [1, 2, 10]
    assert bunch.item_labels.tolist() == ["milk", "tea"]
    assert bunch.data.tolist() == [["1", "tea"], ["10", "tea"], ["2", "milk"]]


def test_ids_beyond_float64_stay_apart(tmp_path):
    bunch = load_ratings(written(tmp_path, f"{2**53},1,5\n{2**53 + 1},1,3\n{2**63 - 1},2,3\n"))
    assert bunch.user_labels.tolist() == [2**53, 2**53 + 1, 2**63 - 1]


@pytest.mark.parametrize("ids", [("1_0", "10"), ("01", "1"), ("1.0", "1"), (str(2**70), "1")])
def test_ids_that_are_not_plain_integers_stay_text(ids, tmp_path):
    bunch = load_ratings(written(tmp_path, f"{ids[0]},a,5\n{ids[1]},a,3\n"))
    assert sorted(bunch.user_labels.tolist()) == sorted(ids)


def test_blank_lines_a_byte_order_mark_and_extra_columns_do_no_harm(tmp_path):
    bunch = load_ratings(written(tmp_path, "\ufeff\n\nuserId,movieId,rating,timestamp,x\n1,2,3,4,5\n\n6,7,8,9,10\n \n\n"))
    assert bunch.data.tolist() == [[1, 2], [6, 7]]
    assert bunch.target.tolist() == [3, 8]


def test_a_repeated_pair_is_two_ratings(tmp_path):
    bunch = load_ratings(written(tmp_path, "1,2,3\n1,2,5\n"))
    assert bunch.target.tolist() == [3, 5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "ratings.csv is empty. A ratings file has a line for each rating"),
        ("\n \n", "ratings.csv is empty"),
        ("user,item,rating\n", "has a header and no rating below it"),
        ("1,2\n", r"line 1, must be user, item, rating\[, timestamp\].*Got '1,2'"),
        ("{}\n", "line 1, must be user"),
        ("1,2,3\n\n4,5\n", r"line 3, has 2 fields, but the first line has 3: \['4', '5'\]"),
        ("u,i,r,t\n1,2,3,4\n1,2,3\n", "line 3, has 3 fields, but the first line has 4"),
        ("u,i,r\n1,2,good\n", "line 2, has the rating 'good', which must be a finite number"),
        ("1,2,3\n1,2,nan\n", "line 2, has the rating 'nan', which must be a finite number"),
        ("a,2,3\na,2,inf\n", "line 2, has the rating 'inf', which must be a finite number"),
        ("1,2,3\n1,2,\n", "line 2, has the rating '', which must be a finite number"),
        ("1,2,3\n,2,3\n", "line 2, has the user '', which must be an id"),
        ("a,b,3\nc, ,3\n", "line 2, has the item ' ', which must be an id"),
        ("1,2,3,4\n1,2,3,monday\n", "line 2, has the timestamp 'monday', which must be a finite number"),
        ("u\ti\ttimestamp:float\n1\t2\t881250949\n", "line 1, has the column 'timestamp:float' in third place"),
        ('1,2,3\n4,5,6\n"7,8,9\n1,2,3\n4,5,6\n', "line 3, has 1 fields"),
    ],
)
def test_a_malformed_file_is_refused_by_line(text, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        load_ratings(written(tmp_path, text))


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "ratings.npz"
    path.write_bytes(b"PK\x03\x04\xff\xfe\x00\x81")
    with pytest.raises(ValueError, match=r"ratings\.npz is no ratings file in UTF-8"):
        load_ratings(path)
    late = written(tmp_path, "1,2,3\n" * 5000 + "é,2,3\n", encoding="latin-1")
    with pytest.raises(ValueError, match=r"ratings\.csv is no ratings file in UTF-8"):
        load_ratings(late)


def test_a_missing_file_and_a_wrong_argument(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_ratings(tmp_path / "nowhere.csv")
    with pytest.raises(ValueError, match="'path'"):
        load_ratings(3)
