"""TorchFactorization.fit(shards): a step on all of it is that on the table; what follows a fit, and what is refused."""

import pickle
import re

import numpy as np
import pandas as pd
import pytest
import tutorial
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

from sk_torchmf import Shards, TorchFactorization
from sk_torchmf.inputs import stored_batches

pytestmark = pytest.mark.usefixtures("one_thread")


def make(module=tutorial.Biased, **params):
    given = {"user": "user", "item": "item", "dtype": "float64", "random_state": 0, "max_iter": 3, "batch_size": 5000}
    return TorchFactorization(module, **given | {"module__n_factors": 3, "optimizer": "SGD", "optimizer__lr": 0.05} | params)


def table(n=1500):
    """Half stars of rank two with weights; pairs occur more than once, ids are in another order than their hash."""
    rng = np.random.default_rng(0)
    user, item = ((size * rng.uniform(size=n) ** 2).astype(int) for size in (70, 40))
    score = (rng.normal(size=(70, 2))[user] * rng.normal(size=(40, 2))[item]).sum(1)
    rating, weight = np.clip(np.round(2 * score + 6), 1, 10) / 2, rng.integers(1, 5, size=n) / 4
    return pd.DataFrame({"user": 1000 - 7 * user, "item": 3 * item, "rating": rating, "weight": weight})


def all_but_one():
    """Users have all of six items but one, and one has all, so that what is drawn for the others is certain."""
    user, item = (codes.ravel() for codes in np.indices((7, 6)))
    kept = (user == 6) | (user != item)
    return pd.DataFrame({"user": user[kept], "item": item[kept], "weight": 1.0 + (user + 2 * item)[kept] % 4})


def shards_of(data, folder):
    names = {name: name for name in data.columns}
    return Shards.from_chunks([data], folder, **names, n_shards=4)


@pytest.fixture(autouse=True)
def several_blocks_a_shard(monkeypatch):
    monkeypatch.setattr(stored_batches, "BLOCK", 70)


@pytest.fixture(scope="module")
def data():
    return table()


@pytest.fixture(scope="module")
def shards(data, tmp_path_factory):
    return shards_of(data, tmp_path_factory.mktemp("data") / "shards")


def fit_table(data, **params):
    return make(**params).fit(data[["user", "item"]], data.get("rating"), data["weight"])


def assert_same(model, other):
    assert_array_equal(model.users_, other.users_)
    pairs = np.ix_(model.users_, model.items_)
    assert_allclose(model.predict(*pairs), other.predict(*pairs), rtol=1e-11)
    assert_allclose(model.history_["loss"], other.history_["loss"], rtol=1e-12)
    for name in ("user_counts_", "item_counts_"):
        assert_allclose(getattr(model, name), getattr(other, name), rtol=1e-12)
    for name, known in other.background_.items():
        assert_array_equal(model.background_[name], known)


@pytest.mark.parametrize("loss", ["squared_error", "huber", "L1Loss", "ordinal"])
def test_a_step_on_all_is_that_on_the_table(loss, data, shards):
    model, other = make(loss=loss).fit(shards), fit_table(data, loss=loss)
    assert_same(model, other)
    assert_array_equal(model.rating_range_, other.rating_range_)
    assert model.form_ == "shards"
    assert "observed_" not in vars(model)
    assert model.levels_.tolist() == other.levels_.tolist() if loss == "ordinal" else "levels_" not in vars(model)


@pytest.mark.parametrize("negatives", ["uniform", "popularity"])
def test_a_ranking_step_on_all_is_that_on_the_table(negatives, tmp_path):
    rows = all_but_one()
    params = {"loss": "bpr", "negatives": negatives, "n_negatives": 2}
    model, other = make(**params).fit(shards_of(rows, tmp_path / "a")), fit_table(rows, **params)
    assert_same(model, other)
    assert not hasattr(model, "rating_range_")
    assert_array_equal(model.recommend(np.arange(6), k=1)[0].ravel(), np.arange(6))


def test_attributes_of_items_go_with_the_batches(data, shards):
    class Described(tutorial.Plain):
        def __init__(self, n_users, n_items, n_item_features, n_factors=3):
            super().__init__(n_users, n_items, n_factors)
            self.weights = nn.Linear(n_item_features, 1, bias=False)

        def forward(self, user, item, item_features):
            return super().forward(user, item) + self.weights(item_features)[:, 0]

    items = pd.DataFrame({"genre": np.arange(42) % 3}, index=[*range(0, 120, 3), -1, 500])
    params = {"module": Described, "loss": "bpr"}
    X = data[["user", "item"]]
    model = make(**params | {"max_iter": 1}).fit(shards, item_features=items)
    assert model.n_items_ == 42
    rated = [make(module=Described).fit(*given, item_features=items) for given in ((shards,), (X, data["rating"], data["weight"]))]
    assert_same(*rated)


def test_minibatches_learn_what_those_of_the_table_do(data, shards, monkeypatch):
    """Windows hold a fifth of them."""
    monkeypatch.setattr(stored_batches, "WINDOW", 300)
    params = {"batch_size": 32, "max_iter": 15, "optimizer": "Adagrad", "optimizer__lr": 0.2, "random_state": 1}
    ours, theirs = (own.history_["loss"][-1] for own in (make(**params).fit(shards), fit_table(data, **params)))
    assert ours < 1.3 * theirs
    assert ours < 0.5 * data["rating"].var()


def test_what_follows_a_fit(data, shards, tmp_path):
    model = make(loss="bpr", batch_size=64).fit(shards)
    user = data["user"][0]
    has = set(data.loc[data["user"] == user, "item"])
    found, _ = model.recommend(user, k=40)
    assert not has & set(found.tolist())
    assert model.score(data[["user", "item"]]) == 0  # all that is known was seen
    model.save(tmp_path / "model")
    for other in (pickle.loads(pickle.dumps(model)), TorchFactorization.load(tmp_path / "model", module=tutorial.Biased)):
        assert_array_equal(other.recommend(k=5)[0], model.recommend(k=5)[0])
    further = make(loss="bpr", warm_start=True).fit(shards).set_params(max_iter=1)
    before = further.predict(user, 0)
    assert abs(further.fit(shards).predict(user, 0) - before) < 0.1
    assert model.predict(data)[0] == model.predict(user, data["item"][0])
    for estimator in (make(), model):
        with pytest.raises(TypeError, match="partial_fit takes no data on disk"):
            estimator.partial_fit(shards)
    with pytest.raises(ValueError, match=r"has not kept them: .* or fitted on batches or on Shards"):
        model.partial_fit(data[["user", "item"]])
    held = {"X_val": data[["user", "item"]], "y_val": data["rating"]}
    assert make(early_stopping=True, max_iter=2).fit(shards, **held).best_iter_ == 2


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"features": ["day"]}, "A fit to Shards needs features=None: they have no further columns. Got ['day']."),
        ({"n_processes": 2}, "A fit to Shards needs n_processes=1: one process reads them. Got 2."),
        ({"batch_size": None}, "A fit to Shards takes no batch_size=None: their observations are never all at hand."),
        ({"early_stopping": True}, "early_stopping of a fit to Shards needs X_val"),
    ],
)
def test_what_is_refused(params, words, shards):
    with pytest.raises(ValueError, match=re.escape(words)):
        make(**params).fit(shards)


def test_data_that_are_refused(data, shards, tmp_path):
    with pytest.raises(ValueError, match="y must be None when X is Shards, which hold their own weights"):
        make(loss="bpr").fit(shards, [1.0])
    with pytest.raises(ValueError, match='loss="poisson" needs ratings >= 0'):
        make(loss="poisson").fit(shards_of(data.assign(rating=-data["rating"]), tmp_path / "a"))
    many = data.assign(rating=np.arange(len(data)) / 7)
    with pytest.raises(ValueError, match="loss='ordinal' needs Shards whose ratings have at most 256 distinct values"):
        make(loss="ordinal").fit(shards_of(many, tmp_path / "b"))
    positives = shards_of(data[["user", "item"]], tmp_path / "c")
    with pytest.raises(ValueError, match="TorchFactorization needs ratings, and these Shards have none"):
        make().fit(positives)
    assert make(loss="softmax", n_negatives=3, max_iter=1).fit(positives).n_iter_ == 1
    everything = all_but_one()
    with pytest.raises(ValueError, match="Every user of X has every item"):
        make(loss="bpr").fit(shards_of(everything[everything["user"] == 6], tmp_path / "d"))
