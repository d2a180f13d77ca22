"""Constant, tiny, huge and outlying ratings: the scale of ratings is immaterial to what is found."""

import re

import numpy as np
import pytest
from five_ratings import SOLVERS, X, Y

from sk_torchmf import Interactions
from sk_torchmf.distributed import ALONE, Communicator
from sk_torchmf.nn import POINTWISE
from sk_torchmf.solvers.scaling import _median, standardise

pytestmark = pytest.mark.usefixtures("one_thread")


def table_of(n, seed=0):
    """n random pairs of 20 users and 15 items, as a table."""
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.integers(0, 20, n), rng.integers(0, 15, n)])


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("value", [3.0, -3.0, 1e-9, 1e9])
def test_a_constant_rating_is_predicted_for_every_pair(make, solver, value):
    pairs = table_of(200)
    model = make(solver=solver, max_iter=50).fit(pairs, np.full(200, value))
    everything = model.predict(np.arange(20)[:, None], np.arange(15))
    # A tenth: the random start is not quite trained away, and there is no spread to measure it by.
    np.testing.assert_allclose(everything, value, rtol=0.1)


@pytest.mark.parametrize("solver", SOLVERS)
def test_ratings_that_are_all_zero_are_predicted_as_zero(make, solver):
    pairs = table_of(200)
    model = make(solver=solver, max_iter=50).fit(pairs, np.zeros(200))
    np.testing.assert_allclose(model.predict(pairs), 0.0, atol=0.05)
    matrix = Interactions(*pairs.T, np.zeros(200)).tocsr()
    assert matrix.nnz > 0  # explicit zeros
    assert np.isfinite(make(solver=solver).fit(matrix).predict(matrix)).all()


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("scale", [1e-6, 1e30])
def test_the_scale_of_the_ratings_is_immaterial(make, solver, scale):
    pairs = table_of(200)
    rating = np.random.default_rng(1).integers(1, 6, 200).astype(float)
    options = {"solver": solver, "dtype": "float64"}
    plain, scaled = make(**options).fit(pairs, rating), make(**options).fit(pairs, scale * rating)
    np.testing.assert_allclose(scaled.predict(pairs), scale * plain.predict(pairs), rtol=1e-6)  # float64, steps of the optimizer
    assert scaled.score(pairs, scale * rating) == pytest.approx(plain.score(pairs, rating), abs=1e-6)
    single = make(solver=solver).fit(pairs, (scale * rating).astype(np.float32))
    assert np.isfinite(single.predict(pairs)).all()


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("outlier", [1e12, -1e12, 1e30])
def test_one_huge_outlier_leaves_finite_predictions(make, solver, outlier):
    pairs = table_of(200)
    rating = np.random.default_rng(1).integers(1, 6, 200).astype(float)
    rating[17] = outlier
    model = make(solver=solver, max_iter=50).fit(pairs, rating)
    assert np.isfinite(model.predict(np.arange(20)[:, None], np.arange(15))).all()
    matrix = Interactions(*pairs.T, rating).tocsr()
    model = make(solver=solver).fit(matrix)
    assert np.isfinite(model.predict(matrix)).all()
    assert np.isfinite(model.score(matrix))


@pytest.mark.parametrize("size", [1e60, 1e-60, 1e300])
def test_ratings_that_float32_factors_could_not_hold_are_refused(make, size):
    words = f"The largest of y must lie between 1e-35 and 1e35 in absolute value. Got {5 * size:.3g}. Rescale the ratings."
    with pytest.raises(ValueError, match=re.escape(words)):
        make().fit(X, Y * size)


@pytest.mark.parametrize("n", [1, 2, 5, 40, 41])
def test_median_is_the_lower_one_of_repeated_values(n):
    rng = np.random.default_rng(n)
    values, weight = np.round(rng.normal(size=n), 1) * 10.0 ** rng.integers(-200, 200, n), rng.integers(1, 4, n)
    values[::7] = [-0.0, 0.0, -0.0, 0.0, 1e308, -5e-324][: len(values[::7])]
    for counts in (None, weight):
        every = sorted(np.repeat(values, 1 if counts is None else counts).tolist())
        assert _median(values, None if counts is None else counts.astype(float), ALONE) == every[(len(every) - 1) // 2]


class TwiceAsMany(Communicator):
    """As if another process had the same ratings."""

    size = 2

    def all_reduce(self, parts):
        return [2 * part for part in parts]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", POINTWISE)
def test_scale_of_ratings_that_two_processes_have(loss, weighted):
    rating = np.array([1.0, 2.0, 2.0, 4.0, 9.0])
    weight = np.array([1.0, 2.0, 0.5, 1.0, 0.25]) if weighted else None
    ours = standardise(rating, weight, POINTWISE[loss], TwiceAsMany())
    twice = standardise(np.tile(rating, 2), None if weight is None else np.tile(weight, 2), POINTWISE[loss])
    np.testing.assert_allclose(ours, twice, rtol=1e-14)
    if POINTWISE[loss].standardised and not POINTWISE[loss].robust:
        w = np.ones(5) if weight is None else weight
        mean = (w * rating).sum() / w.sum()
        np.testing.assert_allclose(ours, [mean, ((w * (rating - mean) ** 2).sum() / w.sum()) ** 0.5], rtol=1e-14)


@pytest.mark.parametrize("loss", ["squared_error", "huber"])
@pytest.mark.parametrize("weighted", [False, True])
def test_shards_of_ratings_are_no_matter_but_for_rounding(loss, weighted):
    rng = np.random.default_rng(0)
    rating, weight = rng.normal(3, 1, 200).round(1), rng.uniform(0.5, 2, 200) if weighted else None
    shards = [(0, slice(0, 30)), (3, slice(30, 31)), (9, slice(31, 200))]
    found = standardise(rating, weight, POINTWISE[loss], shards=shards)
    np.testing.assert_allclose(found, standardise(rating, weight, POINTWISE[loss]), rtol=1e-12)
