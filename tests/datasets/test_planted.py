"""Planted ratings: their shapes, spreads, noise and tails are those asked for."""

import numpy as np
import pytest

from sk_torchmf.datasets import _planted, make_ratings


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
