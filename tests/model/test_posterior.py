"""Uncertainty: variances of scores and draws from the posterior, and that intervals hold what they say."""

import numpy as np
import pytest
from data import split

from sk_torchmf import BiasedMatrixFactorization, MatrixFactorization, datasets
from sk_torchmf.model.posterior import Posterior, score_variance

ESTIMATORS = [MatrixFactorization, BiasedMatrixFactorization]
both = pytest.mark.parametrize("estimator", ESTIMATORS)


@both
def test_eighty_percent_intervals_cover_eighty_percent(estimator):
    ratings = datasets.make_ratings(500, 300, 20_000, n_factors=5, random_state=3)
    train, test, _ = split(ratings)
    mean, std = estimator(random_state=0, max_iter=20).fit(train).predict(test, return_std=True)
    covered = np.mean(np.abs(test.ratings - mean) <= 1.2816 * std)  # the normal distribution's 90 % quantile
    assert 0.75 <= covered <= 0.85


@both
def test_the_unknown_is_more_uncertain_than_the_known_and_all_more_than_the_noise(estimator):
    ratings = datasets.make_ratings(200, 100, 6000, random_state=4)
    model = estimator(random_state=0).fit(ratings.interactions)
    _, std = model.predict([0, 0, 10**6, 10**6], [0, 10**6, 0, 10**6], return_std=True)
    assert model.noise_std_ < std[0] < min(std[1], std[2])
    assert max(std[1], std[2]) < std[3]


@both
def test_predictive_variance_is_that_of_draws_from_the_posterior(estimator):
    ratings = datasets.make_ratings(40, 30, 500, random_state=5)
    model = estimator(n_factors=3, random_state=0, dtype="float64").fit(ratings.interactions)
    rng, k, draws = np.random.default_rng(0), 3, 200_000
    scale = model.rating_scale_
    sides, user, item = [], 7, 11
    for name, number in (("user", user), ("item", item)):
        basis, curvature, noise, count = getattr(model, f"{name}_posterior_")
        variance = noise / (count[number] * curvature + noise)
        factors = getattr(model, f"{name}_factors_")[number] / scale**0.5
        bias = [getattr(model, f"{name}_biases_")[number] / scale] if len(basis) > k else []
        mean = np.concatenate([factors, bias])
        sides.append(mean + (rng.standard_normal((draws, len(mean))) * np.sqrt(variance)) @ basis.T)
    scores = (sides[0][:, :k] * sides[1][:, :k]).sum(1) + sum(side[:, k:].sum(1) for side in sides)
    expected = scale * np.sqrt(scores.var() + (model.noise_std_ / scale) ** 2)
    got = model.predict([user], [item], return_std=True)[1][0]
    assert got == pytest.approx(expected, rel=0.01)  # 200,000 draws know a standard deviation to 0.2 %


def test_score_variance_of_unknown_rows_is_the_priors():
    basis, curvature = np.diag([2.0, 3.0]), np.array([1.0, 1.0])
    posterior = Posterior(basis, curvature, 0.5, np.array([1e12]))
    unknown, sure = np.array([-1]), np.array([0])
    q = np.array([[1.0, 2.0]])
    of_items = posterior, sure, np.zeros((1, 2))
    np.testing.assert_allclose(score_variance((posterior, unknown, q), of_items), [2.0**2 * 1 + 3.0**2 * 4], rtol=1e-6)


@both
def test_exploration_draws_from_the_posterior_and_is_seeded(estimator):
    ratings = datasets.make_ratings(60, 40, 600, random_state=6)
    model = estimator(random_state=0).fit(ratings.interactions)
    options = {"k": 40, "exclude_seen": False, "explore": True}
    first, again, other = (model.recommend(**options, random_state=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first[0], again[0])
    assert (first[0] != other[0]).any()
    np.testing.assert_array_equal(np.sort(first[0], axis=1), np.tile(np.arange(40), (60, 1)))
    with pytest.raises(ValueError, match="explore=True needs"):
        model.recommend(ratings.interactions.tocsr(), explore=True)
