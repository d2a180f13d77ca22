"""fit(shards) of positives: the model of the same rows as a table, what follows it, and what is refused."""

import pickle
import re

import numpy as np
import pandas as pd
import pytest
from killed_fits import killed_and_resumed
from numpy.testing import assert_allclose, assert_array_equal
from scipy.sparse import csr_array

from sk_torchmf import ImplicitMatrixFactorization, Shards
from sk_torchmf.inputs import stored_ratings
from sk_torchmf.solvers import ials

pytestmark = pytest.mark.usefixtures("one_thread")
N_USERS, N_ITEMS = 70, 40


@pytest.fixture(autouse=True)
def several_blocks_a_shard(monkeypatch):
    monkeypatch.setattr(ials, "BLOCK", 150)
    monkeypatch.setattr(stored_ratings, "BLOCK", 70)


def make(**params):
    options = {"loss": "ials", "n_factors": 3, "user": "user", "item": "item", "dtype": "float64", "random_state": 0, "max_iter": 4}
    return ImplicitMatrixFactorization(**options | params)


def table(*, repeated=True, weights=False):
    """Positives with long tails, with ids in another order than the hash of any label; pairs occur more than once, or once."""
    rng = np.random.default_rng(0)
    user, item = ((size * rng.uniform(size=1500) ** 2).astype(int) for size in (N_USERS, N_ITEMS))
    rows = pd.DataFrame({"user": 1000 - 7 * user, "item": 3 * item, "stars": rng.integers(1, 6, size=1500).astype(float)})
    rows = rows if repeated else rows.drop_duplicates(["user", "item"])
    return rows.assign(weight=rng.integers(1, 5, size=len(rows)) / 4) if weights else rows


def shards_of(rows, folder, **named):
    weight = "weight" if "weight" in rows else None
    return Shards.from_chunks([rows], folder, user="user", item="item", weight=weight, n_shards=4, **named)


def fit_table(rows, **params):
    return make(**params).fit(rows[["user", "item"]], rows.get("weight"))


@pytest.fixture(scope="module")
def rows():
    return table(weights=True)


@pytest.fixture(scope="module")
def shards(rows, tmp_path_factory):
    return shards_of(rows, tmp_path_factory.mktemp("data") / "shards")


def assert_same(model, other):
    """To 1e-9: sums over blocks come in another order."""
    everything = np.ix_(model.users_, model.items_)
    assert_array_equal(model.users_, other.users_)
    assert_array_equal(model.items_, other.items_)
    assert_allclose(model.predict(*everything), other.predict(*everything), rtol=0, atol=1e-9)
    for name in ("user_counts_", "item_counts_", "confidence_", "n_positives_", "n_active_users_"):
        assert_allclose(getattr(model, name), getattr(other, name), rtol=1e-12)
    assert_allclose(model.history_["loss"], other.history_["loss"], rtol=1e-10)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("repeated", [False, True])
def test_the_same_rows_give_the_same_model(biased, weights, repeated, tmp_path):
    rows = table(repeated=repeated, weights=weights)
    model = make(biased=biased).fit(shards_of(rows, tmp_path / "a", rating="stars"))  # whose values say nothing
    assert_same(model, fit_table(rows, biased=biased))


def test_everything_answers_as_after_a_table(rows, shards):
    model, other, new = make().fit(shards), fit_table(rows), csr_array(np.arange(2 * N_ITEMS).reshape(2, -1) % 7 == 0, dtype=float)
    new = new[:, : model.n_items_]
    for options in ({}, {"exclude_seen": False}, {"k": 100}):
        assert_array_equal(model.recommend(**options)[0], other.recommend(**options)[0])
    again = pickle.loads(pickle.dumps(model))
    assert_array_equal(again.recommend(model.users_[:5])[0], other.recommend(model.users_[:5])[0])
    assert_allclose(model.predict(new), other.predict(new), rtol=1e-8)
    assert_array_equal(model.recommend(new, k=4)[0], other.recommend(new, k=4)[0])
    assert model.form_ == "shards"
    with pytest.raises(ValueError, match="has not kept them"):
        model.partial_fit(rows[["user", "item"]])


def test_features_and_a_warm_start(rows, shards):
    items = pd.DataFrame({"genre": np.arange(rows["item"].nunique()) % 3}, rows["item"].unique())
    users = pd.DataFrame({"age": np.arange(rows["user"].nunique()) % 5}, rows["user"].unique())
    fitted = [make(max_iter=6), make(max_iter=6)]
    for _ in range(2):
        fitted[0].fit(shards, item_features=items, user_features=users)
        fitted[1].fit(rows[["user", "item"]], rows["weight"], item_features=items, user_features=users)
        assert_same(*fitted)
        fitted = [model.set_params(warm_start=True) for model in fitted]


def test_a_killed_fit_goes_on_from_its_checkpoint(shards, tmp_path, monkeypatch):
    model, _ = killed_and_resumed(monkeypatch, make, shards, tmp_path / "kept", 2)
    assert_array_equal(model.user_factors_, make().fit(shards).user_factors_)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"loss": "bpr"}, 'A fit to Shards needs loss="ials", which reads them block by block. Got loss="bpr".'),
        ({"loss": "softmax"}, 'A fit to Shards needs loss="ials"'),
        ({"distributed": True}, "distributed=True needs a process group"),
        ({"early_stopping": True}, "early_stopping of a fit to Shards needs X_val"),
    ],
)
def test_what_a_fit_to_shards_does_not_take(params, words, shards):
    with pytest.raises(ValueError, match=re.escape(words)):
        make(**params).fit(shards)


def test_arguments_that_are_columns_of_shards(rows, shards):
    with pytest.raises(ValueError, match=r"y must be None when X is Shards, which hold their own weights\. .*weight=\.\.\."):
        make().fit(shards, rows["weight"])
    with pytest.raises(TypeError, match="partial_fit takes no data on disk: it keeps all positives in memory"):
        make().partial_fit(shards)
