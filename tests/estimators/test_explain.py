"""Explanations of predictions: parts that add up to the score, for every estimator, loss and kind of id."""

import os

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit

from sk_torchmf import BiasedMatrixFactorization, ImplicitMatrixFactorization, MatrixFactorization, TorchFactorization, datasets

pd = pytest.importorskip("pandas")
pytestmark = pytest.mark.usefixtures("one_thread")

N_USERS, N_ITEMS, NEW = 40, 30, 7  # item 7 has no ratings
PLANTED = datasets.make_ratings(N_USERS, N_ITEMS, 600, random_state=0)
KEPT = PLANTED.data[:, 1] != NEW
X, Y = pd.DataFrame(PLANTED.data[KEPT], columns=["user", "item"]), PLANTED.target[KEPT]
FILMS = pd.DataFrame({"item": range(N_ITEMS), "year": np.arange(N_ITEMS) % 11, "kind": np.where(np.arange(N_ITEMS) % 3, "a", "b")})
PEOPLE = pd.DataFrame({"age": np.arange(N_USERS) % 7}, index=range(N_USERS))
FEATURES = {"user_features": PEOPLE, "item_features": FILMS}
CASES = {
    "plain": (MatrixFactorization, {}),
    "biased": (BiasedMatrixFactorization, {}),
    "seen": (BiasedMatrixFactorization, {"seen_features": "both"}),
    "als": (BiasedMatrixFactorization, {"solver": "als"}),
    "ials": (ImplicitMatrixFactorization, {}),
    "bpr": (ImplicitMatrixFactorization, {"loss": "bpr", "biased": True}),
}
NAMES = ["mean", "user age", "user (own)", "item year", "item kind", "item (own)"]


def fitted(case="biased", features=FEATURES, y=Y, **more):
    kind, params = CASES[case]
    model = kind(**{"n_factors": 2, "max_iter": 3, "user": "user", "item": "item", "random_state": 0} | params | more)
    return model.fit(X, None if kind is ImplicitMatrixFactorization else y, **features)


@pytest.mark.parametrize("case", CASES)
def test_the_parts_add_up_to_the_score(case):
    model = fitted(case)
    for ids in ((X,), (3,), (3, NEW), ([[1], [2]], [NEW, 4, 5])):
        predicted = model.predict(*ids)
        for by, names in (("item", ["year", "kind", "(own)"]), ("user", ["age", "(own)"])):
            parts = model.explain(*ids, by=by)
            assert list(parts) == [*NAMES, *(f"interaction {name}" for name in names)]
            assert {(part.shape, part.dtype.name) for part in parts.values()} == {(predicted.shape, "float64")}
            assert_allclose(sum(parts.values()), predicted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_without_features_there_are_four_parts(case):
    model = fitted(case, features={})
    parts = model.explain(X)
    assert list(parts) == ["mean", "user", "item", "interaction"]
    assert_allclose(sum(parts.values()), model.predict(X), rtol=1e-10, atol=1e-12)
    unknown = model.explain(-1, -1)
    assert_allclose(unknown["mean"], model.predict(-1, -1), rtol=1e-12)
    assert [float(unknown[name]) for name in ("user", "item", "interaction")] == [0, 0, 0]


@pytest.mark.parametrize("case", CASES)
def test_a_group_adds_its_weights_less_those_of_the_average_item(case):
    model = fitted(case, features={"item_features": FILMS}, dtype="float64")
    first, last = model.item_feature_groups_["kind"]
    added = model.item_features_[:, first:last] @ model.item_feature_weights_[first:last]
    added -= added[model.item_counts_ > 0].mean(0)
    k = model.n_factors
    biases = added[:, k] if added.shape[1] > k else 0.0
    parts = model.explain(3)
    assert_allclose(parts["item kind"], biases + added[:, :k] @ model.mean_user_, atol=1e-12)
    assert_allclose(parts["interaction kind"], added[:, :k] @ (model.user_factors_[3] - model.mean_user_), atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_an_item_without_observations_has_nothing_of_its_own(case):
    model = fitted(case)
    for parts in (
        model.explain([3, 4], NEW),
        model.explain(3, 99, item_features=pd.DataFrame({"item": [99], "year": [4], "kind": ["b"]})),
    ):
        assert_allclose(parts["item (own)"], 0, atol=1e-5)  # the rounding of float32 rows
        assert_allclose(parts["interaction (own)"], 0, atol=1e-5)
        assert np.abs(parts["item year"]).min() > 0
    assert np.abs(model.explain(3, 5)["item (own)"]) > 1e-4


def test_more_items_do_not_move_the_average_one():
    model = fitted()
    before = model.explain(3)
    model.extend(item_features=pd.DataFrame({"item": [99], "year": [1000], "kind": ["b"]}))
    after = model.explain(3)
    assert_allclose(after["item year"][:N_ITEMS], before["item year"], rtol=1e-12)


def test_unknown_ids_are_as_handle_unknown_says():
    model = fitted()
    parts = model.explain([3, -1], [-1, 5])
    assert_allclose(sum(parts.values()), model.predict([3, -1], [-1, 5]), rtol=1e-10)
    assert [parts["item year"][0], parts["user age"][1]] == [0, 0]
    parts = model.set_params(handle_unknown="nan").explain([3, -1], [-1, 5])
    assert np.isnan(sum(parts.values())).all()
    assert np.isfinite(parts["mean"]).all()
    model.set_params(handle_unknown="error")
    with pytest.raises(ValueError, match="The item id of row 0 was not seen in fit"):
        model.explain([3, 4], [-1, 5])
    assert_allclose(sum(model.explain([3], [NEW]).values()), model.predict([3], [NEW]), rtol=1e-10)  # its features are known


@pytest.mark.parametrize(
    ("loss", "y", "response"), [("poisson", np.round(np.abs(Y)), np.exp), ("logistic", np.sign(Y - Y.mean()) / 2 + 0.5, expit)]
)
def test_with_a_link_the_parts_add_up_to_the_score_before_it(loss, y, response):
    model = fitted(y=y, loss=loss)
    assert_allclose(response(sum(model.explain(X).values())), model.predict(X), rtol=1e-10)


@pytest.mark.parametrize("cut_points", ["common", "user"])
def test_of_levels_the_parts_add_up_to_the_score_before_the_cut_points(cut_points):
    model = fitted(y=np.clip(np.round(Y), 1, 5), loss="ordinal", cut_points=cut_points)
    score, user = sum(model.explain(X).values()), np.searchsorted(model.users_, X["user"])
    assert_allclose(model._cut_points().expected(score, user), model.predict(X), rtol=1e-10)
    users, items = model.embeddings()
    assert_allclose(score, (users[user] * items[np.searchsorted(model.items_, X["item"])]).sum(1), rtol=1e-4, atol=1e-4)


def test_clipping_comes_after_the_parts():
    model = fitted(clip=True)
    model.rating_range_ = np.array([2.9, 3.1])
    assert_allclose(np.clip(sum(model.explain(X).values()), 2.9, 3.1), model.predict(X), rtol=1e-10)


def test_context_is_a_part_where_a_table_has_it():
    table = X.assign(place=np.where(np.arange(len(X)) % 3, "home", "bus"))
    model = BiasedMatrixFactorization(n_factors=2, user="user", item="item", effects=["place"], random_state=0)
    model.fit(table, Y + (table["place"] == "bus"))
    parts = model.explain(table)
    assert_allclose(sum(parts.values()), model.predict(table), rtol=1e-10)
    assert len(np.unique(parts["context"])) == 2
    ids = table["user"].to_numpy(), table["item"].to_numpy()
    assert "context" not in model.explain(*ids)
    assert_allclose(sum(model.explain(*ids).values()), model.predict(*ids), rtol=1e-10)


def test_a_table_of_the_parts_can_be_made():
    table = pd.DataFrame(fitted().explain(3), index=range(N_ITEMS))
    assert table.shape == (N_ITEMS, 9)
    assert_array_equal(table["mean"], table["mean"][0])


def test_what_cannot_be_explained_is_refused(monkeypatch):
    model = fitted()
    with pytest.raises(ValueError, match=r'by must be "item" or "user"\. Got \'genres\'\.'):
        model.explain(3, by="genres")
    with pytest.raises(ValueError, match='by must be "item" or "user"'):
        model.explain(3, by=np.array([1, 2]))  # of which "in" cannot say whether it is one
    with pytest.raises(ValueError, match=r"explain needs users that fit saw\. Got a sparse matrix of new users"):
        model.explain(sp.csr_array((2, N_ITEMS)))
    with pytest.raises(ValueError, match="got a one-dimensional array"):
        model.explain([1, 2, 3])
    with pytest.raises(ValueError, match="or shapes that broadcast"):
        model.explain([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="item_features"):
        model.explain(3, 99, item_features=pd.DataFrame({"item": [99], "year": [4]}))
    free = {"SC_AVPHYS_PAGES": 1, "SC_PAGE_SIZE": 100}
    monkeypatch.setattr(os, "sysconf", free.__getitem__)
    with pytest.raises(MemoryError, match=r"The split of 30 scores into 9 parts needs .*Pass fewer pairs"):
        model.explain(3)


def test_a_module_of_your_own_has_no_parts():
    assert not hasattr(TorchFactorization, "explain")
