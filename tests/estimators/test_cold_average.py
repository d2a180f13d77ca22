"""Which error of ids without ratings is least: ``cold_average``, where items that are liked get more ratings."""

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.model_selection import GridSearchCV

from sk_torchmf import BiasedMatrixFactorization, Features, Interactions, MatrixFactorization
from sk_torchmf.model_selection import ColdItemSplit, ColdUserSplit

pytestmark = pytest.mark.usefixtures("one_thread")

N_USERS, N_ITEMS = 300, 200
both = pytest.mark.parametrize("kind", [BiasedMatrixFactorization, MatrixFactorization])


def popular_are_liked(seed=0, n_ratings=9000):
    """Ratings of items whose chance to be rated grows with how well they are liked; their kind says a part of that."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 3, N_ITEMS)
    own = rng.normal(size=N_ITEMS)
    liked = 0.3 * (kind - 1) + 0.6 * own
    chance = np.exp(1.2 * own)
    user, item = rng.integers(0, N_USERS, n_ratings), rng.choice(N_ITEMS, n_ratings, p=chance / chance.sum())
    rows = rng.normal(size=(N_USERS, 2)), rng.normal(size=(N_ITEMS, 2))
    score = 3 + 0.4 * rng.normal(size=N_USERS)[user] + liked[item] + 0.3 * (rows[0][user] * rows[1][item]).sum(1)
    ratings = score + 0.5 * rng.normal(size=n_ratings)
    return Interactions(user, item, ratings, num_users=N_USERS, num_items=N_ITEMS), np.eye(3)[kind]


DATA, KINDS = popular_are_liked()
IS_COLD = np.isin(DATA.item_ids, np.arange(0, N_ITEMS, 4))
WARM, OF_COLD = DATA[~IS_COLD], DATA[IS_COLD]


def make(average=None, kind=BiasedMatrixFactorization, **params):
    return kind(**{"n_factors": 4, "random_state": 0, "cold_average": average, **params})


def residuals(model, data, item=None):
    """What ratings are above their predictions; of one item, given or each its own."""
    return data.ratings - model.predict(data.user_ids, data.item_ids if item is None else np.full(len(data), item))


def by_item(values, data):
    n = np.bincount(data.item_ids)
    return (np.bincount(data.item_ids, values)[n > 0] / n[n > 0]).mean()


@both
@pytest.mark.parametrize("solver", ["variational", "als", "adam"])
def test_an_unknown_item_is_predicted_right_on_average(kind, solver):
    """Over the ratings, or over the items: what was fitted, but for one row's worth of shrinkage among 150."""
    found = {}
    for average in (None, "macro", "micro"):
        model = make(average, kind, solver=solver).fit(WARM)
        found[average] = model.predict(WARM) - model.predict(WARM.user_ids, np.full(len(WARM), -1))
    assert found[None].mean() > 0.5
    assert abs(found["micro"].mean()) < 0.03
    assert abs(by_item(found["macro"], WARM)) < 0.03
    assert (found["micro"] ** 2).mean() < 0.7 * (found[None] ** 2).mean()
    assert by_item(found["macro"] ** 2, WARM) < by_item(found[None] ** 2, WARM)


@both
@pytest.mark.parametrize("features", [{}, {"item_features": KINDS}])
def test_each_average_is_best_at_its_own_error(kind, features):
    models = [make(average, kind).fit(WARM, **features) for average in ("macro", "micro")]
    squares = [residuals(model, OF_COLD) ** 2 for model in models]
    assert squares[1].mean() < 0.85 * squares[0].mean()
    assert by_item(squares[0], OF_COLD) < by_item(squares[1], OF_COLD)


@both
@pytest.mark.parametrize("solver", ["variational", "als"])
@pytest.mark.parametrize("seen", [None, "both"])
def test_known_items_are_predicted_as_ever(kind, solver, seen):
    params, features = {"solver": solver, "seen_features": seen, "dtype": "float64"}, {"item_features": KINDS}
    ever = make(None, kind, **params).fit(WARM, **features).predict(WARM)
    for average in ("macro", "micro"):
        assert_allclose(make(average, kind, **params).fit(WARM, **features).predict(WARM), ever, rtol=1e-9)


@both
@pytest.mark.parametrize("features", [{}, {"item_features": KINDS, "user_features": np.eye(2)[np.arange(N_USERS) % 2]}])
def test_all_calls_agree_on_cold_ids(kind, features, tmp_path):
    model = make("micro", kind, dtype="float64").fit(WARM, **features)
    cold = np.arange(0, N_ITEMS, 4)
    expected = model.predict(7)[cold]
    assert_allclose(model.predict(np.full(len(cold), 7), cold), expected, rtol=1e-12)
    _, scores = model.recommend([7], k=len(cold), items=cold, exclude_seen=False)
    assert_allclose(scores[0], np.sort(expected)[::-1], rtol=1e-12)
    model.save(tmp_path / "model")
    loaded = kind.load(tmp_path / "model")
    assert loaded.cold_average == "micro"
    assert_array_equal(loaded.predict(7), model.predict(7))
    empty = sp.csr_array((1, N_ITEMS))
    assert_allclose(model.predict(empty)[0], model.predict(np.full(N_ITEMS, -1), np.arange(N_ITEMS)), rtol=1e-9)
    if features:
        more = np.vstack([KINDS, KINDS[cold]])
        assert_allclose(model.predict(7, item_features=more)[N_ITEMS:], expected, rtol=1e-12)
        assert_allclose(model.extend(item_features=more).predict(7)[N_ITEMS:], expected, rtol=1e-12)


def test_one_rating_left_out_leaves_an_unknown_user():
    model = make("macro", dtype="float64").fit(WARM)
    row, empty = sp.csr_array(([4.0], ([0], [7])), shape=(1, N_ITEMS)), sp.csr_array((1, N_ITEMS))
    assert_allclose(model.predict_left_out(row), model.predict(empty)[:, 7], rtol=1e-12)


def test_features_and_none_have_a_row_each():
    """Items that lack a row of the table are unknown, and go by the mean of all; the others by their kind."""
    pd = pytest.importorskip("pandas")
    table = pd.DataFrame({"kind": KINDS.argmax(1).astype(str)}).drop(index=[0, 4])
    model = make("micro").fit(WARM, item_features=table)
    assert_array_equal(model.predict(7, [0, 4]), model.predict([7, 7], [-1, -1]))
    assert len(np.unique(model.predict(7)[np.arange(8, N_ITEMS, 4)])) == 3


def test_sessions_of_training_keep_it():
    ratings = WARM.ratings
    half = np.arange(len(WARM)) % 2 == 0
    at_once = make("micro", max_iter=30).fit(WARM, item_features=KINDS)
    in_parts = make("micro", max_iter=30).fit(WARM[half], item_features=KINDS).partial_fit(WARM[~half])
    assert_allclose(in_parts.predict(7)[::4], at_once.predict(7)[::4], atol=0.1)
    weighted = make("micro", max_iter=30).fit(WARM, sample_weight=np.where(ratings > 3, 2.0, 1.0))
    assert residuals(weighted, WARM, -1).mean() < -0.1  # what counts twice is above it


@both
def test_known_items_are_as_uncertain_as_ever(kind):
    ever = make(kind=kind, dtype="float64").fit(WARM, item_features=KINDS).predict(WARM, return_std=True)[1]
    micro = make("micro", kind, dtype="float64").fit(WARM, item_features=KINDS)
    assert_allclose(micro.predict(WARM, return_std=True)[1], ever, rtol=1e-9)
    assert (micro.predict(OF_COLD, return_std=True)[1] > ever.mean()).all()


@pytest.mark.parametrize(
    ("loss", "made"), [("poisson", np.round), ("ordinal", np.round), ("logistic", lambda x: (x > 3).astype(float))]
)
def test_other_losses_have_it_too(loss, made):
    ratings = made(np.clip(WARM.ratings, 1, 5))
    data = Interactions(WARM.user_ids, WARM.item_ids, ratings, num_users=N_USERS, num_items=N_ITEMS)
    plain, micro = (residuals(make(average, loss=loss).fit(data), data, -1).mean() for average in (None, "micro"))
    assert abs(micro) < 0.5 * abs(plain)  # the scores are met on average, of which ratings are no linear function


def test_a_search_finds_the_average_of_its_error():
    search = GridSearchCV(
        make(user="user", item="item"),
        {"cold_average": [None, "macro", "micro"]},
        scoring="neg_root_mean_squared_error",
        cv=ColdItemSplit(3, item="item", random_state=0),
        error_score="raise",
    )
    pd = pytest.importorskip("pandas")
    X = pd.DataFrame({"user": DATA.user_ids, "item": DATA.item_ids})
    table = pd.DataFrame({"kind": KINDS.argmax(1).astype(str)})
    search.fit(X, DATA.ratings, item_features=Features(table))
    assert search.best_params_ == {"cold_average": "micro"}


def test_users_who_rate_more_are_met_too():
    """The transposed data: heavy users are kind, and so cold users get more than the mean user."""
    data = Interactions(DATA.item_ids, DATA.user_ids, DATA.ratings, num_users=N_ITEMS, num_items=N_USERS)
    train, test = (data[part] for part in next(ColdUserSplit(1, test_size=0.25, random_state=0).split(data)))
    errors = [(residuals(make(average).fit(train), test) ** 2).mean() for average in (None, "micro")]
    assert errors[1] < 0.85 * errors[0]


def test_another_word_is_refused():
    with pytest.raises(ValueError, match="cold_average"):
        make("weighted").fit(DATA)
