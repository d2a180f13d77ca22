"""On MovieLens-100K, where what is good is known: needs the ratings, which ``nox -s tests`` fetches."""

import os

import numpy as np
import pytest
import tutorial

from sk_torchmf import BiasedMatrixFactorization, MatrixFactorization, TorchFactorization
from sk_torchmf.datasets import load_ratings

PATH = os.environ.get("SK_TORCHMF_ML100K")
pytestmark = [
    pytest.mark.skipif(not PATH, reason="SK_TORCHMF_ML100K, the path of MovieLens-100K's ratings, is not set"),
    pytest.mark.usefixtures("one_thread"),
]

# The best of 37 settings on a tenth of the training ratings. The model has no mean: the user biases, left free, take its place.
# The cosine leaves time for torch's initial N(0, 1) to decay, and ends the noise of the last steps.
SETTINGS = {
    "module__n_factors": 10,
    "module__sparse": False,
    "optimizer__lr": 0.02,
    "optimizer__weight_decay": 3e-4,
    "parameter_options": {"user_biases*": {"weight_decay": 0.0}, "item_biases*": {"weight_decay": 2e-4}},
    "scheduler": "CosineAnnealingLR",
    "scheduler__T_max": 40,
    "max_iter": 40,
    "clip": True,
}


def test_the_tutorials_biased_model_reaches_an_rmse_of_0_93():
    ratings = load_ratings(PATH).interactions
    order = np.random.default_rng(0).permutation(len(ratings))
    test, train = ratings[order[: len(ratings) // 10]], ratings[order[len(ratings) // 10 :]]
    model = TorchFactorization(tutorial.Biased, "MSELoss", "Adam", random_state=0, **SETTINGS).fit(train)
    assert np.sqrt(np.mean((model.predict(test) - test.ratings) ** 2)) <= 0.93  # damped biases alone: 0.935


@pytest.mark.parametrize("kind", [MatrixFactorization, BiasedMatrixFactorization])
@pytest.mark.parametrize("order", ["random", "time", "user"])
def test_ten_chunks_come_within_four_percent_of_one_fit(kind, order):
    ratings = load_ratings(PATH).interactions
    shuffled = np.random.default_rng(0).permutation(len(ratings))
    test, train = ratings[shuffled[: len(ratings) // 10]], ratings[shuffled[len(ratings) // 10 :]]
    if order != "random":
        train = train[np.argsort(train.timestamps if order == "time" else train.user_ids, kind="stable")]
    streamed = kind(random_state=0)
    for chunk in np.array_split(np.arange(len(train)), 10):
        streamed.partial_fit(train[chunk])
    errors = [np.sqrt(np.mean((model.predict(test) - test.ratings) ** 2)) for model in (streamed, kind(random_state=0).fit(train))]
    assert errors[0] <= 1.04 * errors[1]
