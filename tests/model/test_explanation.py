"""Parts of scores: by hand on a planted factorization, with features on one side, on both and on none."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal

from sk_torchmf.inputs.features import EncodedFeatures
from sk_torchmf.model.explanation import split_scores
from sk_torchmf.model.factors import Factors, Side
from sk_torchmf.model.feature_weights import FeatureWeights

USER, ITEM = (ids.ravel() for ids in np.mgrid[:2, :4])
# Items are short or long, in colour or not; items 0 to 2 were observed, and of item 3 only its features are known.
LENGTH, COLOUR = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), np.array([[1.0], [0.0], [1.0], [0.0]])
ENCODED = EncodedFeatures(
    sp.csr_array(np.hstack([LENGTH, COLOUR])),
    np.array(["short", "long", "colour"], dtype=object),
    {"length": slice(0, 2), "colour": slice(2, 3)},
    np.ones(4, dtype=bool),
)
WEIGHTS = np.array([[1.0, 0.5], [-1.0, 0.25], [2.0, -0.5]])  # of one factor and the bias
CONSTANT = np.array([0.5, 0.1])
OWN = np.array([[0.3, 0.2], [-0.4, 0.1], [0.6, -0.3], [0.0, 0.0]])


def model(described=(True,) * 4):
    """Two users with factors 2 and 4 and biases 1 and -1, and the four items."""
    users = Side(np.array([[2.0], [4.0]]), np.array([1.0, -1.0]), np.array([3.0]), np.ones(2))
    rows = CONSTANT + ENCODED.matrix @ WEIGHTS + OWN
    nothing = np.zeros(2)
    weights = FeatureWeights(CONSTANT, WEIGHTS, nothing, 0 * WEIGHTS, nothing)
    items = Side(rows[:, :1], rows[:, 1], rows[:3, 0].mean(keepdims=True), np.array([5.0, 2.0, 1.0, 0.0]), weights=weights)
    features = replace(ENCODED, described=np.array(described))
    return Factors(users, items, constant=10.0), features


def test_without_features_the_parts_are_those_of_the_mean_rows():
    factors, _ = model()
    parts = split_scores(factors, USER, ITEM)
    assert list(parts) == ["mean", "user", "item", "interaction"]
    p, q = np.array([2.0, 4.0]), factors.items.factors[:, 0]
    q_mean = q[:3].mean()
    assert_allclose(parts["mean"], np.full(8, 10 + 3 * q_mean), rtol=1e-12)
    assert_allclose(parts["user"], (np.array([1.0, -1.0]) + (p - 3) * q_mean)[USER], rtol=1e-12)
    assert_allclose(parts["item"], (factors.items.biases + 3 * (q - q_mean))[ITEM], rtol=1e-12)
    assert_allclose(parts["interaction"], ((p - 3)[:, None] * (q - q_mean)).ravel(), rtol=1e-12)
    assert_allclose(sum(parts.values()), factors.pair_scores(USER, ITEM), rtol=1e-12)


def test_parts_of_features_by_hand():
    factors, features = model()
    parts = split_scores(factors, USER, ITEM, (None, features))
    names = ["length", "colour", "(own)"]
    assert list(parts) == ["mean", "user", *(f"item {name}" for name in names), *(f"interaction {name}" for name in names)]
    # Of the three items that were observed two are short and two in colour. The average item has the row
    # 0.5 + 2/3 - 1/3 + 2/3 * 2 = 13/6, with the bias 0.1 + 2/3 * 0.5 + 1/3 * 0.25 - 2/3 * 0.5 = 11/60.
    length = {"short": np.array([2 / 3, 1 / 12]), "long": np.array([-4 / 3, -1 / 6])}
    colour = {True: np.array([2 / 3, -1 / 6]), False: np.array([-4 / 3, 1 / 3])}
    rows = {
        "length": np.array([length["short"], length["short"], length["long"], length["long"]]),
        "colour": np.array([colour[True], colour[False], colour[True], colour[False]]),
        "(own)": OWN,
    }
    assert_allclose(parts["mean"], np.full(8, 10 + 11 / 60 + 3 * 13 / 6), rtol=1e-12)
    assert_allclose(parts["user"], np.array([1 - 13 / 6, -1 + 13 / 6])[USER], rtol=1e-12)
    for name, row in rows.items():
        assert_allclose(parts[f"item {name}"], (row[:, 1] + 3 * row[:, 0])[ITEM], atol=1e-12)
        assert_allclose(parts[f"interaction {name}"], np.array([-1.0, 1.0])[USER] * row[ITEM, 0], atol=1e-12)
    assert_allclose(sum(parts.values()), factors.pair_scores(USER, ITEM), rtol=1e-12)


def test_the_interaction_is_divided_by_either_side():
    factors, features = model()
    by_item = split_scores(factors, USER, ITEM, (None, features))
    by_user = split_scores(factors, USER, ITEM, (None, features), by="user")
    assert list(by_user) == ["mean", "user", "item length", "item colour", "item (own)", "interaction"]
    assert_allclose(by_user["interaction"], sum(part for name, part in by_item.items() if "interaction" in name), rtol=1e-12)
    turned = Factors(factors.items, factors.users, constant=10.0)  # what holds for items holds for users
    of_users = split_scores(turned, ITEM, USER, (features, None), by="user")
    for name, part in by_item.items():
        other = name.replace("user", "item") if "user" in name else name.replace("item", "user")
        assert_allclose(of_users[other], part, atol=1e-12)


def test_a_plain_model_has_the_same_parts_without_biases():
    factors, features = model()
    weights = FeatureWeights(CONSTANT[:1], WEIGHTS[:, :1], np.zeros(1), 0 * WEIGHTS[:, :1], np.zeros(1))
    items = replace(factors.items, biases=None, weights=weights)
    plain = Factors(replace(factors.users, biases=None), items)
    parts = split_scores(plain, USER, ITEM, (None, features))
    assert_allclose(parts["mean"], np.full(8, 3 * 13 / 6), rtol=1e-12)
    assert_allclose(parts["interaction (own)"], np.array([-1.0, 1.0])[USER] * OWN[ITEM, 0], atol=1e-12)
    assert_allclose(sum(parts.values()), plain.pair_scores(USER, ITEM), rtol=1e-12)


@pytest.mark.parametrize("nan", [False, True])
def test_of_ids_whose_features_are_not_known_all_is_their_own(nan):
    factors, features = model(described=(True, True, True, False))
    user, item = np.array([0, 1, -1, -1]), np.array([3, -1, 0, -1])
    parts = split_scores(factors, user, item, (None, features), nan=nan)
    for name in ("item length", "item colour"):
        assert_array_equal(parts[name][[0, 1, 3]], 0)
    assert_allclose(sum(parts.values()), factors.pair_scores(user, item, nan=nan), rtol=1e-12)
    assert np.isnan(sum(parts.values())).all() == nan
    if not nan:
        assert_array_equal(parts["user"][2:], 0)  # an unknown user is the mean one


def test_an_unknown_item_has_no_features():
    factors, features = model()
    parts = split_scores(factors, np.array([1]), np.array([-1]), (None, features))
    assert [parts["item length"][0], parts["item colour"][0]] == [0, 0]
    own = factors.items.mean[0] - 13 / 6  # less the average item, see above
    assert_allclose([parts["item (own)"][0], parts["interaction (own)"][0]], [3 * own - 11 / 60, own], rtol=1e-12)


def test_pairs_of_several_blocks_and_of_none():
    factors, features = model()
    rng = np.random.default_rng(0)
    user, item = rng.integers(-1, 2, 10_000), rng.integers(-1, 4, 10_000)
    parts = split_scores(factors, user, item, (None, features))
    assert_allclose(sum(parts.values()), factors.pair_scores(user, item), rtol=1e-12)
    nobody = np.zeros(0, dtype=np.int64)
    assert {len(part) for part in split_scores(factors, nobody, nobody, (None, features)).values()} == {0}
