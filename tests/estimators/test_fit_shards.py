"""fit(shards): the model of the same rows as a table, and all that follows a fit; what it does not do is refused with words."""

import pickle
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow.dataset
import pytest
from killed_fits import killed_and_resumed
from numpy.testing import assert_allclose, assert_array_equal
from parquet import write
from scipy.sparse import csr_array
from sklearn.model_selection import cross_validate

from sk_torchmf import (
    BiasedMatrixFactorization,
    ImplicitMatrixFactorization,
    Interactions,
    MatrixFactorization,
    Shards,
    TorchFactorization,
    display,
    nn,
)
from sk_torchmf.estimators import _recommendation
from sk_torchmf.inputs import stored_ratings
from sk_torchmf.inputs.stored_pattern import StoredPattern
from sk_torchmf.parquet import write_recommendations
from sk_torchmf.solvers import RATING_SOLVERS, als, objective, variational

pytestmark = pytest.mark.usefixtures("one_thread")

both = pytest.mark.parametrize("kind", [MatrixFactorization, BiasedMatrixFactorization])
N_USERS, N_ITEMS = 70, 40


def make(kind=BiasedMatrixFactorization, **params):
    return kind(**{"n_factors": 3, "user": "user", "item": "item", "dtype": "float64", "random_state": 0, "max_iter": 4, **params})


def table(seed=0, n=1500, *, text=False, weights=False, kind="stars"):
    """Ratings of rank two with long tails, in half stars, counts, signs or many values; pairs occur more than once."""
    rng = np.random.default_rng(seed)
    user, item = ((size * rng.uniform(size=n) ** 2).astype(int) for size in (N_USERS, N_ITEMS))
    score = (rng.normal(size=(N_USERS, 2))[user] * rng.normal(size=(N_ITEMS, 2))[item]).sum(1) + 0.3 * rng.normal(size=n)
    rating = {
        "stars": np.clip(np.round(2 * score + 6), 1, 10) / 2,
        "counts": np.clip(np.round(score + 2), 0, 9),
        "signs": np.where(score > 0, 1.0, -1.0),
        "values": score.astype(np.float32).astype(float),
    }[kind]
    ids = {"user": 1000 - 7 * user, "item": 3 * item}  # in another order than the hash of any label
    if text:
        ids = {name: np.array([f"{name} é{value}" for value in values], dtype=object) for name, values in ids.items()}
    return pd.DataFrame(ids | {"rating": rating} | ({"weight": rng.integers(1, 5, size=n) / 4} if weights else {}))


def shards_of(data, folder, n_shards=4):
    return Shards.from_chunks(
        [data], folder, user="user", item="item", rating="rating", weight="weight" if "weight" in data else None, n_shards=n_shards
    )


@pytest.fixture(autouse=True)
def several_blocks_a_shard(monkeypatch):
    monkeypatch.setattr(variational, "BLOCK", 150)
    monkeypatch.setattr(stored_ratings, "BLOCK", 70)
    monkeypatch.setattr(objective, "BLOCK", 500)
    monkeypatch.setattr(als, "SHARED", 240)  # the matrices of 15 or 26 items


@pytest.fixture(scope="module")
def data():
    return table(weights=True)


@pytest.fixture(scope="module")
def shards(data, tmp_path_factory):
    return shards_of(data, tmp_path_factory.mktemp("data") / "shards")


@pytest.fixture
def model(shards):
    return make().fit(shards)


def fit_table(data, **params):
    fit = {name: params.pop(name) for name in ("X_val", "y_val", "user_features", "item_features") if name in params}
    return make(**params).fit(data[["user", "item"]], data["rating"], data.get("weight"), **fit)


def assert_same(model, other):
    """To 1e-8: sums over blocks come in another order."""
    assert_array_equal(model.users_, other.users_)
    assert_array_equal(model.items_, other.items_)
    assert_allclose(
        model.predict(*np.ix_(model.users_, model.items_)), other.predict(*np.ix_(model.users_, model.items_)), rtol=1e-8
    )
    for name in ("user_counts_", "item_counts_", "rating_scale_", "rating_range_"):
        assert_allclose(getattr(model, name), getattr(other, name), rtol=1e-12)
    assert model.history_.keys() == other.history_.keys()
    for name in model.history_.keys() & {"loss", "noise_std"}:
        assert_allclose(model.history_[name], other.history_[name], rtol=1e-8)
    of_model, of_other = (one.user_prior_ + (one.user_posterior_ or ()) for one in (model, other))
    for mine, theirs in zip(of_model, of_other, strict=True):
        assert_allclose(np.abs(mine), np.abs(theirs), rtol=1e-6, atol=1e-8)  # an eigenvector's sign is nobody's


# the same model


@both
@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize(
    ("loss", "ratings"),
    [
        ("squared_error", "stars"),
        ("squared_error", "values"),
        ("huber", "stars"),
        ("poisson", "counts"),
        ("logistic", "signs"),
    ],
)
def test_the_same_rows_give_the_same_model(kind, weights, loss, ratings, tmp_path):
    rows = table(weights=weights, kind=ratings)
    assert_same(make(kind, loss=loss).fit(shards_of(rows, tmp_path / "a")), fit_table(rows, kind=kind, loss=loss))


@both
@pytest.mark.parametrize(("loss", "ratings"), [("squared_error", "values"), ("huber", "stars"), ("poisson", "counts")])
@pytest.mark.parametrize("solver", [name for name in RATING_SOLVERS if name != "variational"])
def test_every_solver_gives_the_same_model(kind, solver, loss, ratings, tmp_path):
    rows, params = table(n=700, weights=loss == "huber", kind=ratings), {"solver": solver, "loss": loss, "max_iter": 2}
    assert_same(make(kind, **params).fit(shards_of(rows, tmp_path / "a", 2)), fit_table(rows, kind=kind, **params))


@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_batches_of_users(solver, data, tmp_path):
    """In one shard users are in the order of a table, and 1500 ratings are cut alike into fifths: the steps are the same."""
    params = {"solver": solver, "batch_size": 300}
    shards = shards_of(data, tmp_path / "a", 1)
    assert_same(make(**params).fit(shards), fit_table(data, **params))
    assert_same(make(**params).fit(shards), make(**params).fit(shards))


@both
@pytest.mark.parametrize("cut_points", ["common", "user"])
@pytest.mark.parametrize("weights", [False, True])
def test_ordinal_ratings(kind, cut_points, weights, tmp_path):
    """Tenths, which float32 does not hold: a level is the shortest number that is one there."""
    rows, params = table(weights=weights), {"loss": "ordinal", "cut_points": cut_points}
    rows["rating"] /= 5
    model, other = make(kind, **params).fit(shards_of(rows, tmp_path / "a")), fit_table(rows, kind=kind, **params)
    assert_same(model, other)
    for name in ("levels_", "cut_points_", "user_cut_points_", "user_cut_covariance_"):
        mine, theirs = getattr(model, name), getattr(other, name)
        assert (mine is None) == (theirs is None)
        if mine is not None:
            assert_allclose(mine, theirs, rtol=1e-7, atol=1e-9)


def test_text_ids(tmp_path):
    rows = table(text=True)
    model = make().fit(shards_of(rows, tmp_path / "a"))
    assert_same(model, fit_table(rows))
    assert model.users_.dtype == object


def test_empty_shards_and_ids_with_one_rating(tmp_path):
    rows = table(n=60)
    assert (rows["user"].value_counts() == 1).any()
    assert (rows["item"].value_counts() == 1).any()
    shards = shards_of(rows, tmp_path / "a", n_shards=128)
    assert min(len(block) for block in shards) == 0
    assert_same(make().fit(shards), fit_table(rows))


def test_one_rating(tmp_path):
    rows = pd.DataFrame({"user": [3], "item": [5], "rating": [4.0]})
    assert_same(make().fit(shards_of(rows, tmp_path / "a")), fit_table(rows))


def test_ids_of_weight_zero_are_known_and_were_not_observed(tmp_path):
    rows = table(weights=True)
    gone = rows["user"].isin(rows["user"].unique()[::9]) | rows["item"].isin(rows["item"].unique()[::7])
    rows.loc[gone, "weight"] = 0.0
    model, other = make().fit(shards_of(rows, tmp_path / "a")), fit_table(rows)
    assert (other.user_counts_ == 0).any()
    assert (other.item_counts_ == 0).any()
    assert_same(model, other)
    assert_array_equal(model.seen_[np.arange(model.n_users_)].toarray(), other.seen_.toarray())


@both
def test_float32_differs_by_its_rounding(kind, data, shards):
    model, other = make(kind, dtype="float32").fit(shards), fit_table(data, kind=kind, dtype="float32")
    assert model.user_factors_.dtype == np.float32
    pairs = np.ix_(model.users_, model.items_)
    assert_allclose(model.predict(*pairs), other.predict(*pairs), atol=2e-4)


def test_huge_ratings_that_hardly_differ_have_the_scale_of_a_table(tmp_path):
    rows = table(kind="values")
    rows["rating"] = (1e6 + rows["rating"]).astype(np.float32).astype(float)
    model, other = make().fit(shards_of(rows, tmp_path / "a")), fit_table(rows)
    assert_allclose(model.rating_scale_, other.rating_scale_, rtol=1e-9)


@both
def test_features_of_both_sides(kind, data, shards):
    rng = np.random.default_rng(1)
    users = pd.DataFrame({"user": [*data["user"].unique()[1:], 5], "age": rng.normal(size=data["user"].nunique())})
    items = pd.DataFrame({"genre": rng.choice(["a", "b", "c"], data["item"].nunique() + 1)}, [*data["item"].unique(), 999])
    model = make(kind).fit(shards, user_features=users, item_features=items)
    other = fit_table(data, kind=kind, user_features=users, item_features=items)
    assert_same(model, other)
    assert 5 in model.users_
    assert_array_equal(model.recommend(k=5)[0], other.recommend(k=5)[0])
    assert model.recommend(5, k=40)[0].tolist().count(-1) == 0  # nothing was seen


def test_warm_start_goes_on_from_the_rows(data, shards):
    part = data[data["user"] > 700]
    models = [fit_table(part, warm_start=True) for _ in range(2)]
    models[0].fit(shards)
    models[1].fit(data[["user", "item"]], data["rating"], data["weight"])
    assert_same(*models)


def test_early_stopping_by_validation_data(data, shards):
    held = table(seed=0, n=100)
    held = held[held["user"].isin(data["user"]) & held["item"].isin(data["item"])]
    given = {"X_val": held[["user", "item"]], "y_val": held["rating"]}
    options = {"early_stopping": True, "n_iter_no_change": 2, "max_iter": 12, "tol": 0.01}
    model = make(**options).fit(shards, **given)
    other = fit_table(data, **options, **given)
    assert model.best_iter_ == other.best_iter_
    assert_allclose(model.history_["validation_loss"], other.history_["validation_loss"], rtol=1e-8)
    assert_same(model, other)


def test_a_killed_fit_goes_on_from_its_checkpoint(shards, tmp_path, monkeypatch):
    model, written = killed_and_resumed(monkeypatch, make, shards, tmp_path / "kept", 2)
    assert written == [3, 4]
    whole = make().fit(shards)
    assert_array_equal(model.user_factors_, whole.user_factors_)
    assert_array_equal(model.item_biases_, whole.item_biases_)


def test_the_checkpoint_of_other_shards_is_refused(shards, tmp_path, monkeypatch):
    other = shards_of(table(seed=3, weights=True), tmp_path / "other")
    with pytest.raises(ValueError, match="other"):
        killed_and_resumed(monkeypatch, lambda **params: make(**params), OneAfterTheOther(shards, other), tmp_path / "kept", 2)


class OneAfterTheOther(Shards):
    """Shards that are others the second time that their digest is asked for."""

    def __init__(self, first, second):
        self.__dict__ = vars(first) | {"second": second, "asked": 0}

    @property
    def digest(self):
        self.asked += 1
        return self.__dict__["digest"] if self.asked < 3 else self.second.digest

    @digest.setter
    def digest(self, value):
        self.__dict__["digest"] = value


# what follows


def test_every_call_answers_as_after_a_table(data, model):
    other = fit_table(data)
    X = data[["user", "item"]]
    assert_allclose(model.predict(X), other.predict(X), rtol=1e-8)
    assert_allclose(model.predict(data), other.predict(X), rtol=1e-8)  # further columns are nobody's
    assert_allclose(model.predict(X, return_std=True)[1], other.predict(X, return_std=True)[1], rtol=1e-6)
    assert_allclose(model.score(X, data["rating"]), other.score(X, data["rating"]), rtol=1e-8)
    new = csr_array(np.where(np.arange(2 * model.n_items_).reshape(2, -1) % 7 == 0, 4.0, 0.0))
    assert_allclose(model.predict(new), other.predict(new), rtol=1e-7)
    assert_allclose(model.transform(X), other.transform(X), rtol=1e-6, atol=1e-8)
    assert model.form_ == "shards"
    assert model.n_features_in_ == 2
    assert "observed_" not in vars(model)


def test_recommend_leaves_out_what_was_seen(data, model):
    other, some = fit_table(data), data["user"].unique()[[5, 0, 5, 17]]
    for options in ({}, {"exclude_seen": False}, {"items": data["item"].unique()[::3]}, {"k": 100}):
        assert_array_equal(model.recommend(**options)[0], other.recommend(**options)[0])
        assert_array_equal(model.recommend(some, **options)[0], other.recommend(some, **options)[0])
    assert_array_equal(model.recommend([some[0], 10**6])[0], other.recommend([some[0], 10**6])[0])  # an unknown user
    found, _ = model.recommend(some[0], k=100)
    assert not set(found.tolist()) & set(data.loc[data["user"] == some[0], "item"])


def test_recommend_reads_what_some_users_have_seen_at_a_time(data, model, monkeypatch):
    others = fit_table(data).recommend(k=7)
    select, read = StoredPattern.select, []

    def counted(pattern, rows):
        read.append(len(rows))
        return select(pattern, rows)

    monkeypatch.setattr(StoredPattern, "select", counted)
    monkeypatch.setattr(_recommendation, "AT_ONCE", 16)
    for items in (None, data["item"].unique()):
        read.clear()
        found = model.recommend(k=7, items=items)
        assert read == [16] * (model.n_users_ // 16) + [model.n_users_ % 16]
        assert_array_equal(found[0], others[0])
        assert_allclose(found[1], others[1], rtol=1e-7)
    assert model.recommend([], k=2)[0].shape == (0, 2)


@pytest.mark.parametrize("again", ["pickle", "save", "save without ratings"])
def test_a_model_that_comes_back_recommends_the_same(again, model, tmp_path):
    if again == "pickle":
        other = pickle.loads(pickle.dumps(model))
    else:
        model.save(tmp_path / "model", ratings=again == "save")
        other = BiasedMatrixFactorization.load(tmp_path / "model")
    assert_array_equal(other.recommend(k=7)[0], model.recommend(k=7)[0])
    assert other.seen_.shape == model.seen_.shape


def test_a_data_set_that_was_moved_is_named_and_found_where_it_is_said_to_be(data, tmp_path):
    model = make().fit(shards_of(data, tmp_path / "a"))
    expected, one = model.recommend(k=3)[0], data["user"][0]
    model = pickle.loads(pickle.dumps(model))
    (tmp_path / "a").rename(tmp_path / "b")
    with pytest.raises(
        ValueError, match=r"read from the data set that was passed to fit, .*a, but it cannot be read .*model\.seen_\.folder"
    ):
        model.recommend(one)
    assert model.recommend(one, exclude_seen=False)[0].shape == (10,)
    assert model.predict(one, data["item"][0]) > 0
    model.seen_.folder = str(tmp_path / "b")
    assert_array_equal(model.recommend(k=3)[0], expected)
    shutil.rmtree(tmp_path / "b")
    shards_of(data[1:], tmp_path / "b")
    with pytest.raises(ValueError, match="but that folder now holds another data set"):
        pickle.loads(pickle.dumps(model)).recommend(one)


def test_a_model_gets_more_ids_by_their_features(data, shards):
    items = pd.DataFrame({"genre": np.arange(data["item"].nunique()) % 3}, data["item"].unique())
    model = make().fit(shards, item_features=items)
    other = fit_table(data, item_features=items)
    new = pd.DataFrame({"genre": [1, 2]}, [-4, 50])
    assert_array_equal(model.extend(item_features=new).recommend(k=50)[0], other.extend(item_features=new).recommend(k=50)[0])
    assert -4 in model.items_


def test_a_display_lists_what_a_user_has_seen(data, model):
    user = data["user"][0]
    shown = display.RecommendationDisplay.from_estimator(model, user, n_history=N_ITEMS)
    assert set(shown.history) == set(data.loc[data["user"] == user, "item"].astype(str))


def test_recommendations_of_all_go_to_parquet(model, tmp_path):
    write_recommendations(model, tmp_path / "best", k=3)
    found = model.recommend(model.users_, k=3)[0].ravel()
    assert_array_equal(pd.read_parquet(tmp_path / "best")["item"], found[found >= 0])  # of some users fewer than three are left


def test_partial_fit_afterwards_is_refused_since_nothing_was_kept(data, model):
    before = model.user_factors_.copy()
    with pytest.raises(ValueError, match=r"has not kept them: .* or fitted on batches or on Shards"):
        model.partial_fit(data[["user", "item"]], data["rating"])
    assert_array_equal(model.user_factors_, before)


def test_a_fit_that_is_refused_leaves_the_estimator(shards, model):
    before = model.user_factors_
    with pytest.raises(ValueError, match="y must be None"):
        model.fit(shards, [1.0])
    assert model.user_factors_ is before


# what is refused


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"seen_features": "user"}, "A fit to Shards needs seen_features=None: what a row was observed with must"),
        ({"cold_average": "macro"}, "A fit to Shards needs cold_average=None: it needs all pairs at once. Got"),
        ({"effects": ["rating"]}, "A fit to Shards needs effects=None: they have no further columns. Got"),
        ({"time": True}, "A fit to Shards needs time=None: they have no further columns. Got True. Use that, or a table."),
        ({"early_stopping": True}, "early_stopping of a fit to Shards needs X_val: nothing is held out of them."),
    ],
)
def test_parameters_that_a_fit_to_shards_does_not_take(params, words, shards):
    with pytest.raises(ValueError, match=re.escape(words)):
        make(**params).fit(shards)


@both
def test_arguments_that_are_columns_of_shards(kind, data, shards):
    with pytest.raises(ValueError, match=r"y must be None when X is Shards, which hold their own ratings\. .*rating=\.\.\."):
        make(kind).fit(shards, data["rating"])
    with pytest.raises(ValueError, match=r"sample_weight must be None when X is Shards, which hold their own weights"):
        make(kind).fit(shards, sample_weight=data["weight"])


def test_shards_without_ratings_and_losses_that_need_few_values(tmp_path):
    rows = table(kind="values")
    plain = Shards.from_chunks([rows], tmp_path / "a", user="user", item="item", n_shards=2)
    with pytest.raises(ValueError, match="BiasedMatrixFactorization needs ratings, and these Shards have none"):
        make().fit(plain)
    many = shards_of(rows, tmp_path / "b")
    for loss in ("huber", "ordinal"):
        with pytest.raises(ValueError, match=f'loss="{loss}" needs Shards whose ratings have at most 256 distinct values'):
            make(loss=loss).fit(many)


def test_ratings_that_the_loss_cannot_use(tmp_path):
    with pytest.raises(ValueError, match='loss="poisson" needs ratings >= 0'):
        make(loss="poisson").fit(shards_of(table(kind="values"), tmp_path / "a"))
    many = table(kind="values")
    many["rating"] = np.tanh(many["rating"])
    many.loc[:1, "rating"] = [-1.0, 1.0]  # the limits alone would be taken for signs
    with pytest.raises(ValueError, match='loss="logistic" needs ratings between 0 and 1'):
        make(loss="logistic").fit(shards_of(many, tmp_path / "b"))


OTHERS = r"X is a data set on disk \(Shards\), and only fit accepts that"


@pytest.mark.parametrize("call", ["predict", "score", "transform"])
def test_calls_that_take_no_shards(call, model, shards):
    with pytest.raises(TypeError, match=OTHERS):
        getattr(model, call)(shards)


def test_other_estimators_validation_data_and_partial_fit_take_none(data, model, shards):
    with pytest.raises(TypeError, match=OTHERS):
        make().fit(data[["user", "item"]], data["rating"], X_val=shards)
    for estimator in (make(), model):
        with pytest.raises(TypeError, match="partial_fit takes no data on disk: it keeps all ratings in memory"):
            estimator.partial_fit(shards)


def test_a_search_cannot_split_shards(shards):
    words = "a search or cross-validation cannot split Shards"
    with pytest.raises(TypeError, match=words):
        cross_validate(make(), shards, cv=2, error_score="raise")
    with pytest.raises(TypeError, match=words):
        make().fit(shards[0])


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SK_TORCHMF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_path_is_fitted_by_shards_that_are_made_once(data, cache, tmp_path):
    columns = {name: data[name].to_numpy() for name in ("user", "item", "rating")}
    path = write(tmp_path / "rows.parquet", columns)
    expected = make(user="user", item="item").fit(
        Shards.from_parquet(path, tmp_path / "own", user="user", item="item", rating="rating")
    )
    for X in (path, str(path), pyarrow.dataset.dataset(path)):
        found = make(user="user", item="item").fit(X, "rating")
        assert_array_equal(found.user_factors_, expected.user_factors_)
        assert_array_equal(found.recommend(k=2)[0], expected.recommend(k=2)[0])
    (made,) = cache.iterdir()
    assert_array_equal(make().fit(made).user_factors_, make().fit(Shards(made)).user_factors_)
    write(tmp_path / "rows.parquet", {name: values[:-1] for name, values in columns.items()})
    changed = make(user="user", item="item").fit(path, "rating")
    assert changed.user_counts_.sum() == len(data) - 1
    filtered = pyarrow.dataset.dataset(path).filter(pyarrow.dataset.field("rating") > 2)
    assert make(user="user", item="item").fit(filtered, "rating").user_counts_.sum() == (columns["rating"][:-1] > 2).sum()
    assert len(list(cache.iterdir())) == 3


def test_a_path_of_positives_and_of_a_module(data, cache, tmp_path):
    columns = {"user": data["user"].to_numpy(), "item": data["item"].to_numpy(), "times": np.full(len(data), 2.0)}
    path = write(tmp_path / "rows.parquet", columns)
    ids = {"user": "user", "item": "item"}
    plain = ImplicitMatrixFactorization(2, loss="ials", max_iter=2, random_state=0, **ids).fit(path)
    heavy = ImplicitMatrixFactorization(2, loss="ials", max_iter=2, random_state=0, **ids).fit(path, "times")
    assert heavy.user_counts_.sum() == 2 * plain.user_counts_.sum() == 2 * len(data)
    module = TorchFactorization(nn.PlainMF, "bpr", module__n_factors=2, max_iter=1, random_state=0, **ids).fit(path)
    assert module.user_counts_.sum() == len(data)


def test_a_path_is_refused_where_it_does_not_say_enough(cache, shards, tmp_path):
    path = write(tmp_path / "rows.parquet", {"user": [1], "item": [2], "rating": [3.0]})
    with pytest.raises(ValueError, match=r"y must be the name of the column of ratings when X is on disk.* Got None"):
        make().fit(path)
    with pytest.raises(TypeError, match=r"y must be the name or position of a column when X is on disk\. Got list"):
        make().fit(path, [3.0])
    with pytest.raises(ValueError, match="both name a column of weights"):
        ImplicitMatrixFactorization(loss="ials").fit(path, "rating", "rating")
    with pytest.raises(FileNotFoundError):
        make().fit(tmp_path / "nowhere.parquet", "rating")
    with pytest.raises(ValueError, match="stars"):
        make(user="user", item="item").fit(path, "stars")
    with pytest.raises(TypeError, match="partial_fit takes no data on disk"):
        make().partial_fit(path, "rating")
    with pytest.raises(ValueError, match="y must be None when X is Shards"):
        make().fit(shards.folder, "rating")
    assert not cache.exists() or not list(cache.iterdir())


def test_containers_are_refused_after_labels(model):
    with pytest.raises(ValueError, match="Interactions hold positions"):
        model.predict(Interactions(np.array([0]), np.array([0])))


# memory

MEMORY = """
import resource, sys
import numpy as np
import torch
from sk_torchmf import BiasedMatrixFactorization, Shards
torch.set_num_threads(1)
small, large = map(Shards, sys.argv[1:])
BiasedMatrixFactorization(8, max_iter=1, random_state=0).fit(small)  # what a first fit imports and allocates for good
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
BiasedMatrixFactorization(8, max_iter=2, random_state=0).fit(large)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss has other units elsewhere")
def test_memory_does_not_grow_with_the_ratings(tmp_path):
    """Six million ratings are 144 MB as a table, and their plan, 55 bytes each, would be 330."""
    rng, n = np.random.default_rng(0), 1_500_000

    def chunk(at):
        user, item = rng.integers(2000, size=n), rng.integers(500, size=n)
        return {"user": user, "item": item, "rating": rng.integers(1, 6, size=n).astype(float)}

    names = {"user": "user", "item": "item", "rating": "rating"}
    chunks = [chunk(at) for at in range(4)]
    Shards.from_chunks([chunks[0]], tmp_path / "small", n_shards=1, **names)
    Shards.from_chunks(chunks, tmp_path / "large", n_shards=4, **names)
    run = [sys.executable, "-c", MEMORY, str(tmp_path / "small"), str(tmp_path / "large")]
    grown = int(subprocess.run(run, capture_output=True, text=True, check=True).stdout)  # KiB
    assert grown < 20 * 1024
