"""The default solver: what it learns, that it needs no tuning, and that it is finite and right where data are degenerate."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from data import split
from solving import fit_variational

from sk_torchmf import BiasedMatrixFactorization, Interactions, MatrixFactorization, datasets, nn

pytestmark = pytest.mark.usefixtures("each_kernels")
ESTIMATORS = [MatrixFactorization, BiasedMatrixFactorization]
both = pytest.mark.parametrize("estimator", ESTIMATORS)


def rmse(first, second):
    return float(np.sqrt(np.mean(np.square(np.asarray(first, dtype=float) - second))))


def damped_biases(train, test, damping=5.0):
    """Predictions of mean plus damped item and user biases, in plain NumPy."""
    mean = train.ratings.mean()
    biases = []
    for ids, n in ((train.item_ids, train.num_items), (train.user_ids, train.num_users)):
        rest = train.ratings - mean - sum(b[i] for b, i in zip(biases, [train.item_ids], strict=False))
        biases.append(np.bincount(ids, rest, n) / (np.bincount(ids, minlength=n) + damping))
    return mean + biases[0][test.item_ids] + biases[1][test.user_ids]


SCALES = {
    "1 to 5": lambda r: np.clip(np.round(r), 1, 5),
    "0.5 to 5": lambda r: np.clip(np.round(2 * r) / 2, 0.5, 5),
    "-10 to 10": lambda r: np.clip(4 * (r - 3.5), -10, 10),
    "0 to 100": lambda r: np.clip(20 * r, 0, 100),
    "counts": lambda r: np.random.default_rng(0).poisson(np.exp(np.clip(r, 0, 6) / 2 - 0.5)).astype(float),
}
SHAPES = {
    "dense": {"n_users": 200, "n_items": 150, "n_ratings": 20_000},
    "usual": {"n_users": 800, "n_items": 400, "n_ratings": 30_000},
    "sparse": {"n_users": 3000, "n_items": 2000, "n_ratings": 20_000},
    "very sparse": {"n_users": 4000, "n_items": 4000, "n_ratings": 8_000},
    "many ratings a user": {"n_users": 30, "n_items": 1500, "n_ratings": 15_000},
}


@both
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("shape", SHAPES)
def test_defaults_are_never_worse_than_damped_biases(estimator, shape, scale):
    ratings = datasets.make_ratings(**SHAPES[shape], random_state=1)
    ratings.interactions.ratings = SCALES[scale](ratings.target)
    train, test, _ = split(ratings)
    ours = rmse(estimator(random_state=0).fit(train).predict(test), test.ratings)
    assert ours <= 1.005 * rmse(damped_biases(train, test), test.ratings)


@both
@pytest.mark.parametrize("noise_std", [0.3, 1.0])
def test_planted_low_rank_is_predicted_to_within_16_percent_of_the_noise(estimator, noise_std):
    ratings = datasets.make_ratings(600, 300, 60_000, n_factors=5, noise_std=noise_std, random_state=0)
    train, test, _ = split(ratings)
    model = estimator(random_state=0).fit(train)
    assert rmse(model.predict(test), test.ratings) <= 1.16 * noise_std
    assert model.noise_std_ == pytest.approx(noise_std, rel=0.16)


@both
@pytest.mark.parametrize("kind", ["planted", "noise"])
def test_running_longer_is_no_worse_than_noise(estimator, kind):
    ratings = datasets.make_ratings(300, 200, 10_000, n_factors=3, random_state=2)
    if kind == "noise":
        ratings.interactions.ratings = np.random.default_rng(0).normal(3, 1, 10_000)
    train, test, _ = split(ratings)
    ten, hundred = (rmse(estimator(random_state=0, max_iter=n).fit(train).predict(test), test.ratings) for n in (10, 100))
    assert hundred <= 1.01 * ten
    if kind == "noise":  # nothing to learn: as good as the mean, but for what a mean costs to estimate
        assert hundred <= 1.01 * test.ratings.std()


@pytest.mark.parametrize("kind", [nn.PlainMF, nn.BiasedMF])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_squared_errors_own_road_equals_the_one_through_autograd(kind, weighted):
    rng = np.random.default_rng(0)
    user = np.concatenate([np.arange(20), rng.integers(0, 20, 200)])
    item = np.concatenate([np.arange(20) % 15, rng.integers(0, 15, 200)])
    pairs = nn.Pairs(user, item, 20, 15)
    rating = torch.from_numpy(rng.normal(0, 1, 220))
    weight = torch.from_numpy(rng.uniform(0.5, 2, 220)) if weighted else None
    through_autograd = replace(nn.squared_error, name="squared error, as any loss")
    solutions = []
    for loss in (nn.squared_error, through_autograd):
        module = kind(20, 15, 4, init_std=1.0, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        solutions.append(fit_variational(module, pairs, rating, weight, loss, max_iter=6)[0])
    for role in ("user", "item"):
        np.testing.assert_allclose(*(solution.side(role).factors for solution in solutions), rtol=1e-9, atol=1e-11)
    assert solutions[0].noise == pytest.approx(solutions[1].noise, rel=1e-9)


@both
@pytest.mark.parametrize(
    ("loss", "response"),
    [("poisson", lambda s, rng: rng.poisson(np.exp(s))), ("logistic", lambda s, rng: rng.random(len(s)) < 1 / (1 + np.exp(-s)))],
)
def test_other_losses_recover_the_planted_response(estimator, loss, response):
    rng = np.random.default_rng(0)
    planted = datasets.make_ratings(300, 150, 20_000, n_factors=2, noise_std=0.0, mean=0.5, random_state=7)
    planted.interactions.ratings = response(planted.expected, rng).astype(float)
    train, test, score = split(planted)
    truth = np.exp(score) if loss == "poisson" else 1 / (1 + np.exp(-score))
    model = estimator(loss=loss, random_state=0).fit(train)
    predicted, std = model.predict(test, return_std=True)
    # most of the response's variance is explained, and its spread is at least the distribution's own
    assert rmse(predicted, truth) <= 0.65 * truth.std()
    own = np.sqrt(predicted) if loss == "poisson" else np.sqrt(predicted * (1 - predicted))
    assert (std >= own * (1 - 1e-9)).all()


@both
def test_exact_low_rank_without_noise_stays_finite_for_long(estimator):
    ratings = datasets.make_ratings(60, 50, 1500, n_factors=2, noise_std=0.0, random_state=8)
    model = estimator(random_state=0, max_iter=200).fit(ratings.interactions)
    assert rmse(model.predict(ratings.interactions), ratings.target) < 1e-2


@both
def test_one_huge_outlier_is_finite_and_huber_is_hardly_moved_by_it(estimator):
    ratings = datasets.make_ratings(100, 60, 3000, random_state=9)
    clean = estimator(loss="huber", random_state=0).fit(ratings.interactions).predict(ratings.interactions)
    spoilt = Interactions(
        ratings.interactions.user_ids, ratings.interactions.item_ids, np.where(np.arange(3000) == 5, 1e6, ratings.target)
    )
    elsewhere = (spoilt.user_ids != spoilt.user_ids[5]) & (spoilt.item_ids != spoilt.item_ids[5])
    moved = {}
    for loss in ("huber", "squared_error"):
        predicted = estimator(loss=loss, random_state=0).fit(spoilt).predict(spoilt)
        assert np.isfinite(predicted).all()
        moved[loss] = rmse(predicted[elsewhere], clean[elsewhere])
    assert moved["huber"] < 0.2 * ratings.target.std()
    assert moved["huber"] < 0.1 * moved["squared_error"]


@both
def test_a_matrix_fold_in_uses_what_was_learned(estimator):
    ratings = datasets.make_ratings(400, 100, 16_000, n_factors=3, noise_std=0.5, random_state=10)
    matrix = ratings.interactions.tocsr()
    model = estimator(random_state=0).fit(matrix[:300])
    new = Interactions.from_matrix(matrix[300:])
    variance = new.ratings.var()
    explained = model.score(matrix[300:])
    assert 1 - explained <= 1.5 * 0.5**2 / variance  # leave-one-out error near the noise
