"""Which column is which: by what is asked for, by the header's names, by order; and what is refused or warned of."""

import numpy as np
import pytest

from sk_torchmf.datasets import load_ratings
from sk_torchmf.datasets._columns import rank_name, split_words


def written(tmp_path, text):
    path = tmp_path / "ratings.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("reviewerID", ["reviewer", "id"]),
        ("User-ID", ["user", "id"]),
        ("USER_ID", ["user", "id"]),
        ("userid", ["user", "id"]),
        ("user_id:token", ["user", "id"]),
        ("review/userId", ["review", "user", "id"]),
        ("unixReviewTime", ["unix", "review", "time"]),
        ("parent_asin", ["parent", "asin"]),
        ("ISBN", ["isbn"]),
        ("  Book Rating ", ["book", "rating"]),
        ("timestamp", ["timestamp"]),
        ("", []),
    ],
)
def test_a_name_is_split_into_words(name, words):
    assert split_words(name) == words


@pytest.mark.parametrize(
    ("role", "names"),
    [
        ("user", "user userId User-ID customer_id CustomerID reviewerID cust_id user_name uid visitorid u"),
        ("item", "item itemID movieId asin parent_asin ISBN product/productId article_id StockCode business_id movie_title i"),
        ("rating", "rating score stars Book-Rating review_overall overall star_rating user_rating Review_Score r"),
        (
            "timestamp",
            "timestamp time date unixReviewTime order_date date_of_rating created_at time_stamp DateTime when t",
        ),
    ],
)
def test_the_names_that_people_use_are_known(role, names):
    assert [rank_name(name)[0] for name in names.split()] == [role] * len(names.split())


OTHERS = """user_age n_users user_type user_u item_price product_category product_parent movie_year title review_id rating_count
average_rating n_ratings rating_id helpful_vote release_date number_of_ratings Year-Of-Publication
birth_date marketplace weight quantity"""


@pytest.mark.parametrize("name", OTHERS.split())
def test_names_of_other_things_tell_no_role(name):
    assert rank_name(name) is None


HEADERS = {
    "pandas index": (",userId,movieId,rating", "0,9,1,3"),
    "pandas index read once": ("Unnamed: 0,userId,movieId,rating", "0,9,1,3"),
    "item first": ("itemID,userID,rating", "1,9,3"),
    "rating first": ("rating;item;user", "3;1;9"),
    "Netflix": ("cust_id,rating,date,movie_id", "9,3,2005-09-06,1"),
    "Amazon 2018": (
        "overall,verified,reviewTime,reviewerID,asin,reviewerName,unixReviewTime",
        'x3,True,"09 13, 2009",9,1,Ann,125'.replace("x", ""),
    ),
    "Amazon 2023": ("rating,title,text,asin,parent_asin,user_id,timestamp,helpful_vote", "3,Nice,t,1,7,9,125,0"),
    "Yelp": ("review_id,user_id,business_id,stars,useful,text,date", '0,9,1,3,5,"a, b",2018-07-07 22:09:11'),
    "SNAP": ("product/productId\treview/userId\treview/profileName\treview/score\treview/time", "1\t9\tAnn\t3.0\t1182729600"),
    "Book-Crossing": ('"User-ID";"ISBN";"Book-Rating"', '"9";"1";"3"'),
    "RecBole": ("user_id:token\titem_id:token\trating:float", "9\t1\t3"),
    "blanks behind commas": ("User ID, Item ID, Rating", "9, 1, 3"),
    "an id of its own": ("id,user_id,item_id,rating", "77,9,1,3"),
    "an age": ("user_age,user_id,item_id,rating", "22,9,1,3"),
    "an average": ("user,item,average_rating,rating", "9,1,4.5,3"),
    "a title beside the id": ("user,movie_title,movie_id,rating", "9,Jaws,1,3"),
    "a year for a name": ("user,item,rating,2019", "9,1,3,4"),
    "in a comment": ("# made by hand\n# item,user,rating", "1,9,3"),
}


@pytest.mark.parametrize(("header", "row"), HEADERS.values(), ids=HEADERS)
@pytest.mark.parametrize("end", ["", "\n"])
def test_a_header_is_obeyed(header, row, end, tmp_path):
    bunch = load_ratings(written(tmp_path, f"{header}\n{row}{end}"))
    assert bunch.data.tolist() == [[9, 1]]
    assert bunch.target.tolist() == [3]
    assert (bunch.timestamps is not None) == ("ime" in header or "date" in header)


def test_a_header_of_users_and_items_alone_is_of_positives(tmp_path):
    bunch = load_ratings(written(tmp_path, ",item_id,user_id,timestamp\n0,1,9,125\n1,1,8,126\n"))
    assert bunch.data.tolist() == [[9, 1], [8, 1]]
    assert bunch.target is bunch.interactions.ratings is None
    assert bunch.timestamps.tolist() == bunch.interactions.timestamps.tolist() == [125, 126]
    assert bunch.DESCR == "2 interactions from ratings.csv"
    assert load_ratings(written(tmp_path, "user,item\nann,tea\n")).data.tolist() == [["ann", "tea"]]
    assert load_ratings(written(tmp_path, "tea,ann\n"), user=1, item=0).data.tolist() == [["ann", "tea"]]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            "a,b,c",
            r"has the columns \['a', 'b', 'c'\], and none of these names means a user. Say which it is with user=, a column's name",
        ),
        (",0,1", "none of these names means a user. Say which it is with user=, a column's name or"),
        ("user,what,rating", "none of these names means an item. Say which it is with item=, a column's"),
        ("userID,artistID,weight", "none of these names means a rating. Say which it is with rating=, a column's"),
        ("user,item,quantity,date", "none of these names means a rating. Say which it is with rating=, a column's name or"),
        ("user_id,rating,title,text", "none of these names means an item. Say which it is with item=, a column's name or"),
        (
            "user,item,rating,score",
            r"has the columns \['rating', 'score'\], and any could be the rating. Say which",
        ),
        ("user_id,song_id,artist_id,rating", r"\['song_id', 'artist_id'\], and any could be the item"),
        ("user,tea,milk,beer", "A users x items matrix is not read: pass it to fit as a scipy sparse array"),
    ],
)
def test_a_header_that_does_not_say_is_refused(header, message, tmp_path):
    row = ",".join("9134"[: header.count(",") + 1])
    with pytest.raises(ValueError, match=message):
        load_ratings(written(tmp_path, f"{header}\n{row}\n"))


def test_columns_are_told_by_name_or_position(tmp_path):
    path = written(tmp_path, "what,who,how,seen:float,when\ntea,ann,5,125,126\n")
    for given in (
        {"user": "who", "item": "what", "rating": "how", "timestamp": "seen"},
        {"user": 1, "item": np.int64(0), "rating": 2, "timestamp": 3},
    ):
        bunch = load_ratings(path, **given)
        assert (bunch.data.tolist(), bunch.target.tolist(), bunch.timestamps.tolist()) == ([["ann", "tea"]], [5], [125])
    named = load_ratings(written(tmp_path, "user,item,rating,score\nann,tea,5,4\n"), rating="score")
    assert named.target.tolist() == [4]
    turned = load_ratings(written(tmp_path, "tea,ann,5,125\n"), user=1, item=0)
    assert (turned.data.tolist(), turned.target.tolist(), turned.timestamps) == ([["ann", "tea"]], [5], None)
    counted = load_ratings(written(tmp_path, "0,9,1,3\n1,8,1,4\n"), user=1, item=2, rating=3)
    assert (counted.data.tolist(), counted.target.tolist()) == ([[9, 1], [8, 1]], [3, 4])


@pytest.mark.parametrize(
    ("text", "given", "message"),
    [
        (
            "user,item,rating\n1,2,3\n",
            {"user": "who"},
            r"user='who' is not a column of .*The columns are \['user', ",
        ),
        ("user,item,rating\n1,2,3\n", {"rating": 3}, "rating=3 is not a column position of .*, which has 3 columns"),
        ("user,item,rating\n1,2,3\n", {"user": 1, "item": "item"}, "are the same column of"),
        ("user,who,who,rating\n1,2,3,4\n", {"item": "who"}, "item='who' is the name of several columns"),
        (
            "1,2,3,4\n",
            {"user": 2},
            "column 2, which would be the rating, was passed for something else. Pass all three: user=, item=",
        ),
    ],
)
def test_what_is_asked_for_must_be_there(text, given, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        load_ratings(written(tmp_path, text), **given)


@pytest.mark.parametrize("first", ["", "user,", "ann,"])
def test_a_dense_matrix_is_refused(first, tmp_path):
    rows = np.tile([5, 3, 0, 1], (3, 5)).tolist()
    text = "".join(first + ",".join(map(str, row)) + "\n" for row in rows)
    with pytest.raises(ValueError, match=r"has no header and 2. columns of numbers.*A users x items matrix is not read"):
        load_ratings(written(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5,3,0,1\n4,0,0,1\n", "fourth column, taken for the timestamps, has numbers as small as ratings"),
        ("0,196,242,3\n1,186,302,3\n", "fourth column"),
        ("1,2,881250949,5\n", "fourth column"),
        ("1,2,881250949\n2,3,881250950\n", "third column, taken for the ratings, has numbers like Unix times"),
    ],
)
def test_an_order_that_the_numbers_contradict_is_warned_of(text, message, tmp_path):
    with pytest.warns(UserWarning, match=message):
        load_ratings(written(tmp_path, text))
    load_ratings(written(tmp_path, text), user=0, item=1, rating=2)  # as it was asked for


def test_times_in_several_columns_are_left_out_with_a_warning(tmp_path):
    path = written(tmp_path, "user_id,book_id,rating,started_at,finished_at\n1,2,3,125,126\n")
    with pytest.warns(UserWarning, match=r"\['started_at', 'finished_at'\], and any could be .*, so no timestamps were read"):
        assert load_ratings(path).timestamps is None
    assert load_ratings(path, timestamp="finished_at").timestamps.tolist() == [126]
