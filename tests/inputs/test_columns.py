"""Further columns of an observation: they reach a module's forward, and what it cannot take is refused with words."""

import numpy as np
import pytest
import tutorial
from contract import DATA
from numpy.testing import assert_allclose
from torch_models import HELD_OUT, NOISE, TRAIN, observed_on_days, small, weekly

from sk_torchmf import Interactions

pytestmark = pytest.mark.usefixtures("one_thread")


def test_features_reach_forward_and_carry_their_effect():
    X, y = observed_on_days()
    model = weekly().fit(X[~HELD_OUT], y[~HELD_OUT])
    assert np.sqrt(np.mean((model.predict(X[HELD_OUT]) - y[HELD_OUT]) ** 2)) < 1.15 * NOISE
    assert list(model.feature_categories_["day"]) == ["mon", "sat", "sun"]
    by_ids = model.predict(X["u"].to_numpy()[:5], X["i"].to_numpy()[:5], features={"day": X["day"][:5], "hour": X["hour"][:5]})
    assert_allclose(by_ids, model.predict(X[:5]), rtol=1e-6)
    early, late = (model.predict(3, [4, 5], features={"day": "sun", "hour": hour}) for hour in (0.0, 1.0))
    assert_allclose(late - early, model.module_.slope.item(), rtol=1e-4)
    weekdays = [
        model.recommend([3], k=80, exclude_seen=False, features={"day": day, "hour": 0.5})[1].mean() for day in ("mon", "sun")
    ]
    assert weekdays[1] - weekdays[0] == pytest.approx(2.5, abs=0.2)


def test_features_of_an_array_are_columns_by_position_and_of_a_container_its_own_arrays():
    X, y = observed_on_days()
    frame = weekly(features={"day": "day", "hour": "hour"}).fit(X, y)
    array = weekly(features={"day": 2, "hour": 3}, user=0, item=1).fit(X.to_numpy(), y)
    assert_allclose(array.predict(X.to_numpy()), frame.predict(X), rtol=1e-6)

    class Timed(tutorial.Plain):
        def forward(self, user, item, timestamps):
            return super().forward(user, item) + timestamps

    stamped = Interactions(DATA.user_ids, DATA.item_ids, DATA.ratings, timestamps=np.linspace(0, 1, len(DATA)))
    model = small(Timed, features=["timestamps"]).fit(stamped)
    later = Interactions(DATA.user_ids, DATA.item_ids, timestamps=stamped.timestamps + 1)
    assert_allclose(model.predict(later) - model.predict(stamped), 1.0, rtol=1e-5)
    with pytest.raises(ValueError, match="available: the features of Interactions"):
        model.predict(DATA)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ("day", "list of column names"),
        ([3], "needs a name that is a Python identifier. Got 3. Name the"),
        (["dya", "hour"], "'dya' is not a column of X"),
        (["day"], r"must define forward\(user, item, day\).*hour"),
    ],
)
def test_features_that_do_not_fit_are_named(features, message):
    X, y = observed_on_days()
    with pytest.raises((ValueError, TypeError), match=message):
        weekly(features=features).fit(X, y)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array(["2020-01-01", "2021-01-01"], dtype="M8[ms]"), r"hour holds datetime64.*days since the first"),
        (np.array([881250949, 881250950]), "hour holds whole numbers beyond 2"),
    ],
)
@pytest.mark.parametrize("frame", ["pandas", "polars"])
def test_times_that_float32_cannot_hold_are_refused(frame, values, message):
    library = pytest.importorskip(frame)
    X = library.DataFrame({"u": ["a", "b"], "i": ["c", "d"], "day": ["mon", "sun"], "hour": values})
    with pytest.raises(ValueError, match=message):
        weekly().fit(X, [1.0, 2.0])


def test_a_feature_cannot_take_the_place_of_a_modules_argument():
    X, y = observed_on_days()
    with pytest.raises(ValueError, match=r"else. Rename it with a dict, as in features={'factors_': ...}."):
        weekly(features={"factors": "day"}).fit(X, y)
    with pytest.raises(ValueError, match="module__n_users is passed by fit itself"):
        small(module__n_users=7).fit(TRAIN)
