import numpy as np
import pytest

from sk_torchmf.datasets import _planted, load_ratings, make_ratings


def test_planted_ratings_have_the_asked_shape_and_dtypes():
    ratings = make_ratings(60, 40, 900, n_factors=3, random_state=0)
    assert ratings.data.shape == (900, 2)
    assert ratings.data.dtype == np.int32
    assert ratings.target.dtype == ratings.expected.dtype == np.float32
    assert ratings.user_factors.shape == (60, 3)
    assert ratings.item_biases.shape == (40,)
    interactions = ratings.interactions
    assert (interactions.num_users, interactions.num_items, len(interactions)) == (60, 40, 900)
    assert interactions.user_ids.dtype == interactions.item_ids.dtype == np.int32
    np.testing.assert_array_equal(ratings.data, np.column_stack([interactions.user_ids, interactions.item_ids]))
    np.testing.assert_array_equal(ratings.target, interactions.ratings)


def test_expected_is_what_was_planted():
    ratings = make_ratings(60, 40, 900, n_factors=3, mean=-2.0, random_state=0)
    dense = ratings.user_factors @ ratings.item_factors.T + ratings.user_biases[:, None] + ratings.item_biases - 2.0
    np.testing.assert_allclose(ratings.expected, dense[tuple(ratings.data.T)], rtol=0, atol=1e-6)  # float32


def test_noise_is_gaussian_of_the_stated_size_and_independent_of_the_signal():
    ratings = make_ratings(500, 300, 40_000, noise_std=0.7, random_state=1)
    noise = ratings.target.astype(np.float64) - ratings.expected
    error = 0.7 / 40_000**0.5  # standard error of the mean; every bound is 4 standard errors
    assert abs(noise.mean()) < 4 * error
    assert abs(noise.std() - 0.7) < 4 * error / 2**0.5
    assert abs(np.corrcoef(noise, ratings.expected)[0, 1]) < 4 / 40_000**0.5
    assert abs((np.abs(noise) < 0.7).mean() - 0.6827) < 4 * (0.6827 * 0.3173 / 40_000) ** 0.5
    assert ratings.noise_std == 0.7


@pytest.mark.parametrize("n_factors", [1, 8, 64])
def test_the_parts_have_the_stated_spread_whatever_the_rank(n_factors):
    ratings = make_ratings(3000, 2000, 1000, n_factors=n_factors, factor_std=0.8, bias_std=0.3, random_state=0)
    rows, columns = np.random.default_rng(0).integers([3000, 2000], size=(20_000, 2)).T
    signal = (ratings.user_factors[rows] * ratings.item_factors[columns]).sum(1)
    assert signal.std() == pytest.approx(0.8, rel=0.1)  # products of few normals have heavy tails
    assert ratings.user_biases.std() == pytest.approx(0.3, rel=4 / 6000**0.5)
    assert ratings.item_biases.std() == pytest.approx(0.3, rel=4 / 4000**0.5)


def test_no_noise_is_exact():
    ratings = make_ratings(30, 20, 100, noise_std=0, random_state=0)
    np.testing.assert_array_equal(ratings.target, ratings.expected)


def test_activity_and_popularity_have_a_long_tail():
    ratings = make_ratings(2000, 1000, 60_000, random_state=0)
    for side, n in ((0, 2000), (1, 1000)):
        count = np.sort(np.bincount(ratings.data[:, side], minlength=n))[::-1]
        assert count[: n // 10].sum() > 0.3 * 60_000  # a tenth would have a tenth if all were alike
        assert count.max() > 10 * np.median(count)


def test_the_tail_is_as_long_as_asked():
    flat = make_ratings(500, 400, 50_000, user_tail=0, item_tail=0, random_state=0)
    steep = make_ratings(500, 20_000, 50_000, user_tail=1.3, item_tail=0, random_state=0)
    count = np.bincount(flat.data[:, 1], minlength=400)
    assert count.std() < 1.5 * 125**0.5  # Poisson counts of mean 125
    spread = np.log(np.bincount(steep.data[:, 0], minlength=500).clip(1)).std()
    assert spread == pytest.approx(1.3, rel=0.15)  # counting noise, and the sample's own spread


@pytest.mark.parametrize(
    ("shape", "n_ratings"), [((40, 30), 1200), ((40, 30), 1199), ((200, 3), 500), ((3, 200), 500), ((1, 1), 1)]
)
@pytest.mark.parametrize("tail", [0, 1, 10])
def test_pairs_are_distinct_and_a_full_matrix_ends(shape, n_ratings, tail):
    ratings = make_ratings(*shape, n_ratings, user_tail=tail, item_tail=tail, random_state=0)
    assert len(np.unique(ratings.data, axis=0)) == n_ratings
    assert ratings.data.min() >= 0
    assert (ratings.data.max(0) < shape).all()


def test_rows_come_in_random_order():
    ratings = make_ratings(100, 80, 2000, random_state=0)
    assert abs(np.corrcoef(ratings.data[:, 0], np.arange(2000))[0, 1]) < 4 / 2000**0.5


@pytest.mark.parametrize("rounds", [0, 1, 12])
def test_two_items_of_a_user_are_drawn_one_after_the_other(rounds, monkeypatch):
    """By hand: P(i, then j) = p_i p_j / (1 - p_i); rejection and exponential clocks must agree on it."""
    monkeypatch.setattr(_planted, "ROUNDS", rounds)
    p, n = np.array([0.5, 0.25, 0.125, 0.125]), 5000
    keys = _planted._draw_pairs(np.full(n, 2), 3 * p, np.random.default_rng(0))
    pairs = np.sort((np.sort(keys) % 4).reshape(n, 2), axis=1)
    for i, j in [(0, 1), (0, 2), (1, 3), (2, 3)]:
        expected = p[i] * p[j] * (1 / (1 - p[i]) + 1 / (1 - p[j]))
        found = ((pairs == [i, j]).all(1)).mean()
        assert abs(found - expected) < 4 * (expected * (1 - expected) / n) ** 0.5  # four standard errors


def test_a_large_sparse_matrix_needs_memory_for_its_ratings_only():
    ratings = make_ratings(1_000_000, 900_000, 20_000, n_factors=2, random_state=0)  # 7 TB if it were dense
    assert len(ratings.target) == 20_000


def test_same_seed_same_ratings():
    one, two, three = (make_ratings(50, 40, 300, random_state=seed) for seed in (0, np.random.RandomState(0), 1))
    np.testing.assert_array_equal(one.data, two.data)
    np.testing.assert_array_equal(one.target, two.target)
    assert (one.data != three.data).any()
    assert (make_ratings(50, 40, 300).target != make_ratings(50, 40, 300).target).any()


def test_global_random_state_is_untouched():
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    make_ratings(50, 40, 300)
    make_ratings(50, 40, 300, random_state=0)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n_ratings": 1201}, r"n_ratings must be at most n_users \* n_items = 1200.*Got 1201.*Lower n_ratings"),
        ({"n_users": 0}, "'n_users'.*int in the range"),
        ({"n_items": 2.0}, "'n_items'.*int in the range"),
        ({"n_ratings": 0}, "'n_ratings'.*int in the range"),
        ({"n_factors": 0}, "'n_factors'.*int in the range"),
        ({"noise_std": -1}, "'noise_std'.*float in the range"),
        ({"factor_std": np.inf}, "'factor_std'.*float in the range"),
        ({"bias_std": np.nan}, "'bias_std'.*float in the range"),
        ({"mean": np.inf}, "'mean'.*float in the range"),
        ({"user_tail": -0.1}, "'user_tail'.*float in the range"),
        ({"item_tail": 11}, "'item_tail'.*float in the range"),
        ({"random_state": "zero"}, "'random_state'"),
    ],
)
def test_arguments_of_make_ratings_are_checked(changed, message):
    with pytest.raises(ValueError, match=message):
        make_ratings(**{"n_users": 40, "n_items": 30, "n_ratings": 100, **changed})


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
