"""What cut points make of scores, as arrays: probabilities of levels, expected ratings; and which ratings are levels."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit

from sk_torchmf.model import cut_points
from sk_torchmf.model.cut_points import SLOPE, CutPoints, find_levels

LEVELS = np.array([1.0, 2.0, 3.5, 5.0])
RNG = np.random.default_rng(0)
OWN = RNG.normal(0, 0.2, (3, 3))
POINTS = CutPoints(LEVELS, np.array([-2.0, 0.0, 1.5]), OWN, 0.04 * np.eye(3))
SCORE, USER, VARIANCE = RNG.normal(0, 1, 40), np.arange(40) % 4 - 1, RNG.uniform(0, 1, 40)


def by_hand(points, score, user, variance):
    """One rating after another, by the definition."""
    rows = []
    for x, u, v in zip(score, user, variance, strict=True):
        cuts = points.common if points.own is None or u < 0 else points.common + points.own[u]
        below = [1 / (1 + np.exp(-(cut - SLOPE * x) / np.sqrt(1 + np.pi / 8 * SLOPE**2 * v))) for cut in cuts]
        rows.append(np.diff([0, *below, 1]))
    return np.array(rows)


@pytest.mark.parametrize("points", [POINTS, CutPoints(LEVELS, POINTS.common)], ids=["own cuts", "one set"])
@pytest.mark.parametrize("chunk", [7, 2**18])
def test_probabilities_and_moments_are_those_of_the_definition(monkeypatch, points, chunk):
    monkeypatch.setattr(cut_points, "CHUNK", chunk)
    expected = by_hand(points, SCORE, USER, VARIANCE)
    found = points.probabilities(SCORE, USER, VARIANCE)
    assert_allclose(found, expected, rtol=1e-10)
    assert_allclose(found.sum(1), 1, rtol=1e-14)
    assert_allclose(points.expected(SCORE, USER, VARIANCE), expected @ LEVELS, rtol=1e-13)
    about = RNG.uniform(1, 5, 40)
    squares = (expected * (LEVELS - about[:, None]) ** 2).sum(1)
    assert_allclose(points.mean_square(SCORE, USER, VARIANCE, about), squares, rtol=1e-12)
    assert_allclose(points.probabilities(SCORE, USER), by_hand(points, SCORE, USER, 0 * VARIANCE), rtol=1e-10)
    assert_allclose(points.expected(SCORE, USER), by_hand(points, SCORE, USER, 0 * VARIANCE) @ LEVELS, rtol=1e-13)


def test_probabilities_average_over_the_posterior_of_the_score():
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    points = CutPoints(LEVELS, POINTS.common)
    for variance in (0.1, 0.5, 1.0):
        scores = 0.3 + np.sqrt(variance) * nodes
        averaged = weights @ points.probabilities(scores, np.zeros(60, dtype=int)) / weights.sum()
        found = points.probabilities(np.array([0.3]), np.array([0]), np.array([variance]))[0]
        assert_allclose(found, averaged, atol=0.012)  # what MacKay's formula is worth
        assert abs(points.probabilities(np.array([0.3]), np.array([0]))[0] - averaged).max() > 0.015


@pytest.mark.parametrize("points", [POINTS, CutPoints(LEVELS, POINTS.common)], ids=["own cuts", "one set"])
def test_log_loss_is_that_of_the_nearest_level(points):
    code = RNG.integers(0, 4, 40)
    expected = -np.log(by_hand(points, SCORE, USER, 0 * VARIANCE)[np.arange(40), code])
    assert_allclose(points.log_loss(LEVELS[code], SCORE, USER), expected, rtol=1e-9)
    assert_array_equal(points.log_loss(LEVELS[code] + 0.4, SCORE, USER), points.log_loss(LEVELS[code], SCORE, USER))
    assert_allclose(points.log_loss(LEVELS[[3]], np.array([-1e4]), np.array([-1])), SLOPE * 1e4 + 1.5)  # where P is zero in float64


def test_users_among_more_keep_their_cut_points():
    wider = POINTS.spread_over(np.array([4, 0, 2]), 6)
    place = np.array([-1, 4, 0, 2])
    assert_array_equal(wider.probabilities(SCORE, place[USER + 1]), POINTS.probabilities(SCORE, USER))
    assert_array_equal(wider.own[[1, 3, 5]], 0)
    common = CutPoints(LEVELS, POINTS.common)
    assert common.spread_over(np.array([4, 0, 2]), 6) is common


def test_the_shortest_number_stands_for_a_level():
    levels, _ = find_levels(np.array([0.1, 4.1, 0.1], dtype=np.float32))
    assert levels.tolist() == [0.1, 4.1]


def test_improbable_levels_keep_their_digits():
    """On both sides the tail is e^-x, far below what one differs from its neighbour by."""
    points = CutPoints(LEVELS, POINTS.common)
    low, high = points.probabilities(np.array([-60, 60]) / SLOPE, np.array([0, 0]))
    assert_allclose(low[3], np.exp(-61.5), rtol=1e-9)
    assert_allclose(high[0], np.exp(-62.0), rtol=1e-9)
    assert_allclose([low[0], high[3]], 1)


@pytest.mark.parametrize("size", [1e3, 1e30, 1e300])
def test_scores_far_away_are_certain(size):
    score, user = np.array([-size, size]), np.array([0, -1])
    assert_array_equal(POINTS.probabilities(score, user).round(12), [[1, 0, 0, 0], [0, 0, 0, 1]])
    assert_allclose(POINTS.expected(score, user), [1, 5])


def test_expected_rating_increases_with_the_score():
    score = np.linspace(-5, 5, 200)
    assert (np.diff(POINTS.expected(score, np.full(200, 1))) > 0).all()


def test_squares_about_large_levels_do_not_cancel():
    points = CutPoints(1e6 + LEVELS, POINTS.common)
    about = points.expected(SCORE, USER)
    plain = CutPoints(LEVELS, POINTS.common)
    expected = plain.mean_square(SCORE, USER, 0.0, plain.expected(SCORE, USER))
    assert_allclose(points.mean_square(SCORE, USER, 0.0, about), expected, rtol=1e-6)


def test_two_levels_are_a_logistic_model():
    points = CutPoints(np.array([0.0, 1.0]), np.array([0.3]))
    assert_allclose(points.expected(SCORE, USER), expit(SLOPE * SCORE - 0.3), rtol=1e-14)


@pytest.mark.parametrize("dtype", [np.int64, np.int8, np.float32, np.float64])
def test_levels_are_the_distinct_ratings(dtype):
    levels, code = find_levels(np.array([3, 1, 5, 3], dtype=dtype))
    assert_array_equal(levels, [1, 3, 5])
    assert levels.dtype == np.float64
    assert_array_equal(code, [1, 0, 2, 1])


def test_one_level_is_refused():
    with pytest.raises(ValueError, match=r'at least two levels. All are 3 \(n_samples = 5\); use loss="squared_error"'):
        find_levels(np.full(5, 3.0))
    with pytest.raises(ValueError, match="There are none"):
        find_levels(np.empty(0))


def test_numbers_on_no_scale_are_refused():
    with pytest.raises(ValueError, match=r"at most 1000 levels.* Got 1001 of them in 1001 ratings. Round the ratings"):
        find_levels(np.arange(1001) / 7)
    assert len(find_levels(np.arange(1000) / 7)[0]) == 1000


def test_levels_of_new_ratings():
    assert_array_equal(POINTS.check_levels(np.array([5, 1, 3.5, 2]), "y"), [3, 0, 2, 1])
    fine = CutPoints(np.array([3.6, 3.7, 3.8]), np.array([0.0, 1.0]))
    assert_array_equal(fine.check_levels(np.array([3.7, 3.8, 3.6], dtype=np.float32), "y"), [1, 2, 0])
    assert_array_equal(POINTS.check_levels(np.empty(0), "y"), np.empty(0))


@pytest.mark.parametrize("rating", [1.5, 3.501, 0.0, 6.0, -1e30])
def test_ratings_that_are_no_levels_are_refused(rating):
    with pytest.raises(ValueError, match=r"y must be among the 4 levels that fit saw .*: 1, 2, 3.5, 5. Got y\[1\] = .* Round it"):
        POINTS.check_levels(np.array([1.0, rating, 1.7]), "y")


def test_a_long_scale_is_not_listed_whole():
    with pytest.raises(ValueError, match=r"among the 69 levels .*: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ...\. Got y\[0\] = 0.5"):
        CutPoints(np.arange(69.0), np.arange(68.0)).check_levels(np.array([0.5]), "y")
