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
        ("", "ratings.csv is empty. It must have a line for each rating: user, item,"),
        ("\n \n", "ratings.csv is empty"),
        ("user,item,rating\n", "ratings.csv must have at least one rating below its header. It"),
        ("1,2\n", r"line 1, must be user, item, rating\[, timestamp\].*Got '1,2'"),
        ("{}\n", "ratings.csv must have at least one rating. Each is a JSON object such as"),
        ("1,2,3\n\n4,5\n", r"line 3, has 2 fields, but the first line has 3: \['4', '5'\]"),
        ("u,i,r,t\n1,2,3,4\n1,2,3\n", "line 3, has 3 fields, but the first line has 4"),
        ("u,i,r\n1,2,good\n", "line 2, has the rating 'good', which must be a finite number"),
        ("u,i,r\n1,2,3,5\n", "line 2, has 4 fields, but the first line has 3"),
        ("1,2,3\n1,2,1e39\n", "line 2, has the rating 1e.39, which must be a number that float32 holds"),
        ("a,2,1\nb,2,1_0\n", "line 2, has the rating '1_0', which must be a finite number"),
        ("1;2;1,000\n", "line 1, has the rating '1,000', which must be a finite number"),
        ("1,2,3\n1,2,4/5\n", "line 2, has the rating '4/5', which must be a finite number"),
        ("u,i,r,t\n1,2,3,2005-09-06\n1,2,3,today\n", "line 3, has the timestamp 'today', which must be a finite number or a date"),
        ('"Weird" Al,tea,5\n', "line 1, has a quote"),
        ("ann\nlee,tea,5\n", "line 1, must be user, item, rating"),
        ('"ann\nlee",tea,5\nbob,tea,\n', "line 3, has the rating ''"),
        ("x" * 1001 + ",tea,5\n", "which must be an id without NUL bytes, of at most 1000 characters"),
        ("1,2,3\n" * 999 + "a\0,2,3\n", "line 1000, has the user 'a.x00', which must be an id without NUL"),
        ("1,2,3\n1,2,nan\n", "line 2, has the rating 'nan', which must be a finite number"),
        ("a,2,3\na,2,inf\n", "line 2, has the rating 'inf', which must be a finite number"),
        ("1,2,3\n1,2,\n", "line 2, has the rating '', which must be a finite number"),
        ("1,2,3\n,2,3\n", "line 2, has the user '', which must be an id"),
        ("a,b,3\nc, ,3\n", "line 2, has the item ' ', which must be an id"),
        ("1,2,3,4\n1,2,3,monday\n", "line 2, has the timestamp 'monday', which must be a finite number"),
        ('1,2,3\n4,5,6\n"7,8,9\n1,2,3\n4,5,6\n', "line 3, has a quote"),
    ],
)
def test_a_malformed_file_is_refused_by_line(text, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        load_ratings(written(tmp_path, text))


def test_a_file_in_another_encoding_is_refused(tmp_path):
    late = written(tmp_path, "1,2,3\n" * 5000 + "é,2,3\n", encoding="latin-1")
    with pytest.raises(ValueError, match=r"ratings\.csv must be text in UTF-8.*Latin-1"):
        load_ratings(late)
    with pytest.raises(
        ValueError,
        match=r"has NUL bytes, so it is not text",
    ):
        load_ratings(written(tmp_path, "1,2,3\n", encoding="utf-16-le"))


def test_utf_16_is_told_by_its_mark(tmp_path):
    bunch = load_ratings(written(tmp_path, "user,item,rating\né,tea,5\n", encoding="utf-16"))
    assert bunch.data.tolist() == [["é", "tea"]]


@pytest.mark.parametrize("ids", [("007", "7"), ("+7", "7"), ("-7", "7"), ("-0", "0"), (str(2**63), "1")])
@pytest.mark.parametrize("separator", ["::", ",", "\t", " "])
@pytest.mark.parametrize("side", ["user", "item"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_numbers_that_print_otherwise_are_text(ids, separator, side, quote, tmp_path):
    """They were read by NumPy's parser of integers, for which 007 is 7."""
    pairs = [(one, "3") if side == "user" else ("3", one) for one in ids]
    text = "".join(separator.join([*(f"{quote}{one}{quote}" for one in pair), "5"]) + "\n" for pair in pairs)
    bunch = load_ratings(written(tmp_path, text))
    assert sorted(bunch[f"{side}_labels"].tolist()) == sorted(ids)
    assert bunch["item_labels" if side == "user" else "user_labels"].tolist() == [3]


@pytest.mark.parametrize("mixed", ["", "a,1,1,1400000000123456700\n"])
def test_times_beyond_float64_stay_apart(mixed, tmp_path):
    times = [1400000000123456789, 1400000000123456788]
    bunch = load_ratings(written(tmp_path, f"1,2,3,{times[0]}\n1,3,3,{times[1]}\n{mixed}"))
    assert bunch.timestamps.tolist()[:2] == times


@pytest.mark.parametrize("text", ["1;2;3,5\n1;3;4\n", "1\t2\t3,5\n1\t3\t4\n", '1,2,"3,5"\n1,3,4\n', "1 2 3,50\n1 3 4,0\n"])
def test_a_decimal_comma_is_read(text, tmp_path):
    bunch = load_ratings(written(tmp_path, text))
    assert bunch.data.tolist() == [[1, 2], [1, 3]]
    assert bunch.target.tolist() == [3.5, 4]


def test_stars_behind_a_rating_are_read(tmp_path):
    assert load_ratings(written(tmp_path, "user,item,stars\n1,2,5.0 stars\n1,3,1 star\n")).target.tolist() == [5, 1]


@pytest.mark.parametrize(
    "text",
    [
        'ann|tea, "green"|5\nbob|milk|3\n',
        '"ann";"tea, ""green""";5\nbob;milk;3\n',
        'user,item,rating\rann,"tea, ""green""",5\rbob,milk,3\r',
        'sep=;\nuser;item;rating\nann;"tea, ""green""";5\nbob;milk;3\n',
        'user,item,rating,,\nann,"tea, ""green""",5,,\n,,,,\nbob,milk,3,,\n',
        'ann ,"tea, ""green""",5,\nbob,milk,3,\n',
    ],
)
def test_dialects_are_told_from_the_first_lines(text, tmp_path):
    bunch = load_ratings(written(tmp_path, text))
    assert bunch.data.tolist() == [["ann", 'tea, "green"'], ["bob", "milk"]]
    assert bunch.target.tolist() == [5, 3]
    assert bunch.timestamps is None


def test_a_newline_in_quotes_belongs_to_the_id(tmp_path):
    assert load_ratings(written(tmp_path, '"ann\nlee",tea,5\nbob,tea,4\n')).user_labels.tolist() == ["ann\nlee", "bob"]


@pytest.mark.parametrize("comment", ["% bip weighted\n% 3 943 1682\n", "# item and more\n\n#\n"])
def test_comments_above_the_first_row_are_skipped(comment, tmp_path):
    bunch = load_ratings(written(tmp_path, f"{comment}1 2 5\n2 1 3\n"))
    assert bunch.data.tolist() == [[1, 2], [2, 1]]


@pytest.mark.parametrize("text", ["#1,tea,5\n%2,tea,4\n", "# ratings\n#1,tea,5\n%2,tea,4\n"])
def test_an_id_that_begins_like_a_comment_is_an_id(text, tmp_path):
    assert load_ratings(written(tmp_path, text)).data.tolist() == [["#1", "tea"], ["%2", "tea"]]
    assert load_ratings(written(tmp_path, f"1,tea,2\n{text.removeprefix('# ratings')}")).user_labels.tolist() == ["#1", "%2", "1"]


@pytest.mark.parametrize(
    ("cell", "seconds"),
    [
        ("2005-09-06", 1125964800),
        ("2005-09-06 00:00:01", 1125964801),
        ("2005-09-06T02:00:01+02:00", 1125964801),
        ("2005-09-06T00:00:01Z", 1125964801),
        ("2005-09-06 00:00:01 UTC", 1125964801),
        ("2005-09-06T00:00:01.500", 1125964801.5),
        ("1125964800", 1125964800),
        ("20050906", 20050906),
    ],
)
@pytest.mark.parametrize("header", ["", "user,item,rating,date\n"])
def test_dates_become_seconds_and_numbers_stay(cell, seconds, header, tmp_path):
    bunch = load_ratings(written(tmp_path, f"{header}1,2,3,{cell}\n2,3,4,{cell}\n"))
    assert bunch.target.tolist() == [3, 4]
    assert bunch.timestamps.tolist() == [seconds, seconds]


@pytest.mark.parametrize("header", ["", "user,item,rating,date\n"])
@pytest.mark.parametrize("cell", ["12/31/2005", "yesterday", "2005-13-01"])
def test_times_that_cannot_be_read_are_left_out_with_a_warning(header, cell, tmp_path):
    path = written(tmp_path, f"{header}1,2,3,{cell}\n2,3,4,x\n")
    with pytest.warns(UserWarning, match="neither a number nor a date in ISO 8601.*no timestamps were read"):
        bunch = load_ratings(path)
    assert bunch.timestamps is None
    with pytest.raises(ValueError, match=r"has the timestamp '.*', which must be a finite number or a date"):
        load_ratings(path, timestamp=3)


def test_an_id_that_may_stand_for_nothing_is_warned_of(tmp_path):
    with pytest.warns(
        UserWarning, match="has 'nan' among its user ids, and it was read as one. If it stands for a missing value, drop its rows"
    ):
        bunch = load_ratings(written(tmp_path, "nan,tea,5\nann,tea,4\n"))
    assert bunch.user_labels.tolist() == ["ann", "nan"]


def test_both_roads_read_the_same(tmp_path):
    """Numbers alone go through NumPy's parser in blocks of text, anything else cell by cell."""
    rows = [f"{u * 7919 % 1000},{u % 777},{u % 9 / 2},{u * 1000003}" for u in range(1, 80_000)]
    fast = load_ratings(written(tmp_path, "\n".join(rows) + "\n\n"))
    slow = load_ratings(written(tmp_path, "\n".join([*rows, "1,2,3.0 stars,4"])))
    assert len(fast.target) == len(slow.target) - 1 == 79_999
    for name in ("data", "target", "timestamps"):
        np.testing.assert_array_equal(fast[name], slow[name][:-1])
        assert fast[name].dtype == slow[name].dtype


def test_a_missing_file_and_a_wrong_argument(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_ratings(tmp_path / "nowhere.csv")
    with pytest.raises(ValueError, match="'path'"):
        load_ratings(3)
    for wrong, message in [({"user": 1.5}, "'user'"), ({"item": True}, "item must be a column's name"), ({"rating": -1}, "Got -1")]:
        with pytest.raises(ValueError, match=message):
            load_ratings(written(tmp_path, "1,2,3\n"), **wrong)
