"""Bars of what features are worth: shares of the variance by group, weights on the bias by column."""

import numpy as np
import pytest
from contract import DATA, N_ITEMS, N_USERS
from numpy.testing import assert_array_equal
from pictures import LONG, SIZES, check_texts, fitted, plt
from sklearn.compose import ColumnTransformer
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import OneHotEncoder

from sk_torchmf import (
    BiasedMatrixFactorization,
    Features,
    ImplicitMatrixFactorization,
    MatrixFactorization,
    TorchFactorization,
)
from sk_torchmf.display import FeatureShareDisplay

pd = pytest.importorskip("pandas")
rng = np.random.default_rng(0)
KIND = rng.choice(["drama", "comedy", "war"], N_ITEMS)
FILMS = pd.DataFrame({"item": range(N_ITEMS), "year": rng.normal(size=N_ITEMS), "kind": KIND})
PEOPLE = pd.DataFrame({"user": range(N_USERS), "age": rng.normal(size=N_USERS), "kind": rng.choice(["a", "b"], N_USERS)})
BOTH = {"item_features": Features(FILMS), "user_features": Features(PEOPLE)}


def described(kind=BiasedMatrixFactorization, features=BOTH, **params):
    return kind(n_factors=2, random_state=0, **params).fit(DATA, **features)


def widths(bars):
    return [bar.get_width() for bar in bars]


@pytest.mark.parametrize("kind", [MatrixFactorization, BiasedMatrixFactorization, ImplicitMatrixFactorization])
def test_bars_are_the_shares_the_largest_first(kind):
    model = described(kind)
    display = FeatureShareDisplay.from_estimator(model)
    assert list(display.share_bars_) == ["users", "items"]
    names = []
    for side, shares in (("users", model.user_feature_shares_), ("items", model.item_feature_shares_)):
        assert widths(display.share_bars_[side]) == sorted(shares.values(), reverse=True)
        names += sorted(shares, key=lambda name: -shares[name])
    assert [text.get_text() for text in display.share_texts_] == names
    middles = [bar.get_y() for bars in display.share_bars_.values() for bar in bars]
    assert middles == sorted(middles)  # each below the one before, where its name is
    assert len({bars[0].get_facecolor() for bars in display.share_bars_.values()}) == 2
    assert [text.get_text() for text in display.legend_.get_texts()] == ["users", "items"]
    assert display.weight_bars_ is None
    assert display.weight_texts_ == []
    assert display.ax_.shape == (1,)


def test_numbers_are_percent():
    display = FeatureShareDisplay(shares={"items": {"year": 0.05, "genres": 0.304}}).plot()
    shown = [text.get_text() for text in display.ax_[0].texts]
    assert shown == ["genres", "year", "30.4%", "5.0%"]
    display.figure_.canvas.draw()
    assert "10%" in [tick.get_text() for tick in display.ax_[0].get_xticklabels()]
    assert display.legend_ is None
    assert display.ax_[0].get_title(loc="left") == "Features of items"


def test_what_was_seen_is_a_group():
    display = FeatureShareDisplay.from_estimator(described(features={}, seen_features="item"))
    assert list(display.shares) == ["items"]
    assert [text.get_text() for text in display.share_texts_] == ["(seen)"]


def test_weights_are_those_on_the_bias_by_their_size():
    model = described(features={"item_features": Features(FILMS)})
    model.item_feature_weights_ = np.array([[9.0, 5.0, 0.5], [9.0, 5.0, 0.2], [9.0, 5.0, -0.3], [9.0, 5.0, 0.01]])
    display = FeatureShareDisplay.from_estimator(model, group="kind")
    assert display.weights == {"comedy": 0.2, "war": 0.01, "drama": -0.3}
    assert widths(display.weight_bars_) == [0.2, 0.01, -0.3]
    assert [text.get_text() for text in display.weight_texts_] == ["comedy", "war", "drama"]
    assert [text.get_text() for text in display.ax_[1].texts][3:] == ["+0.20", "+0.01", "-0.30"]
    assert display.ax_[1].get_title(loc="left") == "kind"
    assert display.ax_[1].get_xlabel() == "Weight on the bias"
    some = FeatureShareDisplay.from_estimator(model, group="kind", n_columns=2)
    assert some.weights == {"comedy": 0.2, "drama": -0.3}
    assert FeatureShareDisplay.from_estimator(model, group="year").weights == {"year": 0.5}


@pytest.mark.parametrize(
    ("weights", "written"),
    [
        ([12.3, -4.0], ["+12", "-4"]),
        ([0.0421, 0.001], ["+0.042", "+0.001"]),
        ([2e-5, 0.0], ["+2e-05", "+0e+00"]),
        ([0.0], ["+0e+00"]),
    ],
)
def test_weights_are_written_as_precisely_as_the_largest_needs(weights, written):
    names = [f"column {j}" for j in range(len(weights))]
    display = FeatureShareDisplay(shares={"items": {"year": 0.1}}, weights=dict(zip(names, weights, strict=True))).plot()
    assert [text.get_text() for text in display.ax_[1].texts][len(names) :] == written


def test_a_group_of_both_sides_is_that_of_the_side_asked_for():
    model = described()
    with pytest.raises(ValueError, match=r"side must be given, because both users and items have a group 'kind'\. Pass side="):
        FeatureShareDisplay.from_estimator(model, group="kind")
    items, users = (FeatureShareDisplay.from_estimator(model, group="kind", side=side) for side in ("item", "user"))
    assert [sorted(items.weights), sorted(users.weights)] == [["comedy", "drama", "war"], ["a", "b"]]
    assert [list(items.shares), list(users.shares)] == [["items"], ["users"]]


def test_names_of_columns_are_without_those_of_their_transformer():
    encoder = ColumnTransformer([("kind", OneHotEncoder(), ["kind"])])
    model = described(features={"item_features": Features(FILMS)}, item_encoder=encoder)
    assert model.item_feature_names_[0] == "kind__kind_comedy"
    display = FeatureShareDisplay.from_estimator(model, group="kind")
    assert sorted(display.weights) == ["kind_comedy", "kind_drama", "kind_war"]


def test_a_search_is_looked_through():
    search = GridSearchCV(BiasedMatrixFactorization(random_state=0), {"n_factors": [2]}, cv=2, error_score="raise")
    search.fit(DATA, DATA.ratings, item_features=Features(FILMS))
    shares = search.best_estimator_.item_feature_shares_
    assert FeatureShareDisplay.from_estimator(search).shares == {"items": shares}


def test_long_names_fit_and_are_shortened(tmp_path):
    shares = {LONG[0]: dict.fromkeys(LONG[:3], 0.2), LONG[1]: dict.fromkeys(LONG[3:5], 0.1)}
    display = FeatureShareDisplay(shares=shares, weights={LONG[j]: 0.1 * (j - 5) for j in range(12)}, weights_title=LONG[2])
    for size in SIZES:
        ax = plt.subplots(figsize=size, layout="constrained")[1]
        check_texts(display.plot(ax).figure_, tmp_path / "shares.png")
        names = [text.get_text() for text in (*display.share_texts_, *display.weight_texts_)]
        assert all(name == full or name.endswith("…") for name, full in zip(names, [*LONG[:5], *LONG[:12]], strict=True))
        assert names[0].endswith("…") == (size != SIZES[-1])  # only the widest has room


def test_options_of_bars_are_passed_on():
    display = FeatureShareDisplay.from_estimator(described(), group="age", bar_kwargs={"color": "k", "height": 0.1})
    bars = [*display.share_bars_["users"], *display.share_bars_["items"], *display.weight_bars_]
    assert {bar.get_facecolor() for bar in bars} == {(0, 0, 0, 1)}
    assert_array_equal(np.round([bar.get_height() for bar in bars], 12), 0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"side": "both"}, r'side must be "user", "item" or None\. Got \'both\''),
        ({"group": "genres"}, r"group must be one of \['age', 'kind', 'year', 'kind'\]\. Got 'genres'"),
        ({"side": "item", "group": "age"}, r"group must be one of \['year', 'kind'\]"),
        ({"group": "age", "n_columns": 0}, "n_columns must be an int >= 1"),
    ],
)
def test_bad_arguments_of_shares_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        FeatureShareDisplay.from_estimator(described(), **arguments)
    assert plt.get_fignums() == []


def test_a_model_without_biases_has_shares_alone():
    model = described(MatrixFactorization)
    assert FeatureShareDisplay.from_estimator(model).weights is None
    with pytest.raises(ValueError, match=r"group='age' needs a model with biases, and this MatrixFactorization has none"):
        FeatureShareDisplay.from_estimator(model, group="age")


def test_a_model_without_features_has_no_shares():
    with pytest.raises(TypeError, match=r"BiasedMatrixFactorization has none\. Fit it with user_features or item_features\."):
        FeatureShareDisplay.from_estimator(fitted())
    with pytest.raises(TypeError, match=r"user_feature_shares_\. .* Fit it with user_features\."):
        FeatureShareDisplay.from_estimator(described(features={"item_features": Features(FILMS)}), side="user")
    with pytest.raises(TypeError, match=r"TorchFactorization has none"):
        FeatureShareDisplay.from_estimator(fitted(TorchFactorization))
    assert plt.get_fignums() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shares": {}}, "shares must be a dict from sides to shares that is not empty"),
        ({"shares": {"items": {}}}, r"shares\['items'\] must be a dict from names to numbers that is not empty"),
        ({"shares": {"items": {"year": np.nan}}}, r"shares\['items'\]\['year'\] must be finite\. Got nan"),
        ({"shares": {"items": {"year": 0.1}}, "weights": {}}, "weights must be a dict from names to numbers that is not empty"),
        ({"shares": {"items": {"year": 0.1}}, "weights": {"a": np.inf}}, r"weights\['a'\] must be finite\. Got inf"),
    ],
)
def test_values_without_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        FeatureShareDisplay(**arguments).plot()
    assert plt.get_fignums() == []


def test_shares_of_nothing_have_an_axis():
    display = FeatureShareDisplay(shares={"items": {"noise": 0.0}}).plot()
    low, high = display.ax_[0].get_xlim()
    assert low == 0 < high
