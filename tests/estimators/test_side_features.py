"""Side features, what was seen, and cold start in the explicit estimators: what is learned, what is refused, what is exact."""

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold, cross_validate
from sklearn.preprocessing import OneHotEncoder

import sk_torchmf
from sk_torchmf import BiasedMatrixFactorization, FeatureEncoder, Features, Interactions, MatrixFactorization
from sk_torchmf.model_selection import ColdItemSplit, ranking_scorer

pytestmark = pytest.mark.usefixtures("one_thread")

N_USERS, N_ITEMS, N_KINDS = 120, 90, 6
both = pytest.mark.parametrize("kind", [BiasedMatrixFactorization, MatrixFactorization])
SOLVERS = ["variational", "als", "adam"]


def planted(seed=0, n_ratings=4000, own=0.3):
    """Ratings in which a user's and an item's kind decide most, and the rows' own parts the rest; the kinds as one-hot matrices."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, N_KINDS, N_USERS), rng.integers(0, N_KINDS, N_ITEMS)
    rows = [rng.normal(size=(N_KINDS, 2))[kind] + own * rng.normal(size=(len(kind), 2)) for kind in kinds]
    biases = [rng.normal(size=N_KINDS)[kind] + own * rng.normal(size=len(kind)) for kind in kinds]
    pair = rng.permutation(N_USERS * N_ITEMS)[:n_ratings]
    user, item = pair // N_ITEMS, pair % N_ITEMS
    score = 3 + biases[0][user] + biases[1][item] + (rows[0][user] * rows[1][item]).sum(1)
    data = Interactions(user, item, score + 0.3 * rng.normal(size=n_ratings), num_users=N_USERS, num_items=N_ITEMS)
    return data, [np.eye(N_KINDS)[kind] for kind in kinds]


DATA, (USERS, ITEMS) = planted()
COLD = np.arange(0, N_ITEMS, 5)
WARM = DATA[~np.isin(DATA.item_ids, COLD)]
OF_COLD = DATA[np.isin(DATA.item_ids, COLD)]


def make(kind=BiasedMatrixFactorization, **params):
    return kind(**{"n_factors": 4, "random_state": 0, "seen_features": None, **params})


def rmse(model, data):
    return float(np.sqrt(np.mean((model.predict(data) - data.ratings) ** 2)))


@both
@pytest.mark.parametrize("seen", [None, "user", "item", "both"])
def test_cold_items_are_predicted_from_their_features(kind, seen):
    with_features = make(kind, seen_features=seen).fit(WARM, user_features=USERS, item_features=ITEMS)
    without = make(kind, seen_features=seen).fit(WARM)
    assert rmse(with_features, OF_COLD) < 0.7 * rmse(without, OF_COLD)
    assert (with_features.item_counts_[COLD] == 0).all()
    assert len(np.unique(with_features.item_factors_[COLD], axis=0)) <= N_KINDS  # kinds are all that is known of them


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_predicts_cold_items_from_their_features(solver):
    with_features = make(solver=solver).fit(WARM, item_features=ITEMS)
    assert rmse(with_features, OF_COLD) < 0.9 * rmse(make(solver=solver).fit(WARM), OF_COLD)


def test_intervals_of_cold_items_cover():
    """80 % intervals of single ratings of items that nobody has rated, over several planted sets."""
    inside = []
    for seed in range(4):
        data, (users, items) = planted(seed)
        cold = np.isin(data.item_ids, COLD)
        model = make().fit(data[~cold], user_features=users, item_features=items)
        expected, std = model.predict(data[cold], return_std=True)
        inside.append(np.abs(expected - data[cold].ratings) < 1.2816 * std)
    assert 0.7 < np.concatenate(inside).mean() < 0.9


@both
def test_noise_and_features_given_twice_change_little(kind):
    rng = np.random.default_rng(0)
    train, test = DATA[:3500], DATA[3500:]
    plain = rmse(make(kind).fit(train), test)
    noise = sp.csr_array((rng.random((N_ITEMS, 1000)) < 0.01).astype(float))
    assert rmse(make(kind).fit(train, item_features=noise), test) < 1.03 * plain
    assert rmse(make(kind).fit(train, item_features=rng.permutation(ITEMS)), test) < 1.03 * plain
    once = rmse(make(kind).fit(train, item_features=ITEMS), test)
    twice = rmse(make(kind).fit(train, item_features=np.hstack([ITEMS, ITEMS])), test)
    assert twice == pytest.approx(once, rel=0.01)


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_scale_of_features_changes_nothing(solver):
    params = {"solver": solver, "dtype": "float64"}
    first = make(**params).fit(WARM, user_features=USERS, item_features=ITEMS)
    second = make(**params).fit(WARM, user_features=1e-6 * USERS, item_features=1e6 * ITEMS)
    assert_allclose(second.predict(DATA), first.predict(DATA), rtol=1e-6)


def test_without_features_nothing_is_different():
    plain, none = make().fit(DATA), make().fit(DATA, user_features=None, item_features=None)
    assert_array_equal(plain.predict(DATA), none.predict(DATA))
    assert not [name for name in vars(plain) if "feature_" in name and name != "n_features_in_"]


@both
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_table_without_any_value_says_nothing_of_cold_items(kind, solver):
    """Such as pandas makes where two indexes have no label in common; no column of it is left after encoding."""
    model = make(kind, solver=solver, max_iter=3, item_encoder=FeatureEncoder())
    model.fit(WARM, item_features=np.full((N_ITEMS, 2), np.nan))
    assert_array_equal(model.predict(DATA), make(kind, solver=solver, max_iter=3).fit(WARM).predict(DATA))


def test_the_order_of_a_tables_rows_and_ids_nobody_rated():
    pd = pytest.importorskip("pandas")
    X = pd.DataFrame({"who": [f"u{u}" for u in DATA.user_ids], "what": [f"i{i}" for i in DATA.item_ids]})
    table = pd.DataFrame({"kind": [f"k{k}" for k in ITEMS.argmax(1)]}, index=[f"i{i}" for i in range(N_ITEMS)])
    table.loc["new"] = ["k3"]
    table.loc["strange"] = ["k99"]
    model = make(user="who", item="what").fit(X, DATA.ratings, item_features=table)
    shuffled = table.sample(frac=1, random_state=0)
    again = make(user="who", item="what").fit(X, DATA.ratings, item_features=shuffled)
    assert_array_equal(model.predict(X), again.predict(X))
    keyed = shuffled.rename_axis("what").reset_index()
    assert_array_equal(model.predict(X), make(user="who", item="what").fit(X, DATA.ratings, item_features=keyed).predict(X))
    assert {"new", "strange"} <= set(model.items_)
    assert "new" in model.recommend(["u0"], k=N_ITEMS + 2)[0]
    assert list(model.item_feature_groups_) == ["kind"]
    strict = clone(model).set_params(handle_unknown="error").fit(X, DATA.ratings, item_features=table)
    assert np.isfinite(strict.predict(["u0"], ["new"]))
    with pytest.raises(ValueError, match="not seen in fit"):
        strict.predict(["u0"], ["never heard of"])


def test_a_table_of_other_ids_is_refused():
    pd = pytest.importorskip("pandas")
    X = [["ann", "tea"], ["bob", "milk"], ["bob", "tea"]]
    with pytest.raises(ValueError, match=r"item_features has no row for any item of X\. Its ids look like \['x', 'y'\]"):
        make().fit(X, [5, 3, 4], item_features=pd.DataFrame({"hot": [1, 0]}, index=["x", "y"]))
    with pytest.raises(
        ValueError, match=r"has no row for any item of X\. Its ids look like \[0, 1\], and those of X like \['milk', 'tea'\]"
    ):
        make().fit(X, [5, 3, 4], item_features=pd.DataFrame({"hot": [1, 0]}))


@both
@pytest.mark.parametrize("form", ["interactions", "sparse"])
def test_extend_adds_what_predict_makes_of_new_features(kind, form):
    X = WARM if form == "interactions" else WARM.tocsr()
    model = make(kind, seen_features="both").fit(X, user_features=USERS, item_features=ITEMS)
    more = np.vstack([ITEMS, ITEMS[COLD[:2]]])
    kept = model.predict(DATA)
    predicted, std = model.predict([3, 3], [N_ITEMS, N_ITEMS + 1], item_features=more, return_std=True)
    assert_allclose(predicted, model.predict([3, 3], COLD[:2]), rtol=1e-6)  # the same features
    assert model.n_items_ == N_ITEMS  # a prediction changes nothing
    assert N_ITEMS in model.recommend(3, k=N_ITEMS + 2, item_features=more, exclude_seen=False)[0]
    assert model.extend(item_features=more).n_items_ == N_ITEMS + 2
    assert_array_equal(model.predict([3, 3], [N_ITEMS, N_ITEMS + 1], return_std=True), [predicted, std])
    assert_array_equal(model.predict(DATA), kept)
    assert model.seen_.shape == (N_USERS, N_ITEMS + 2)
    new_user = model.extend(user_features=np.vstack([USERS, USERS[:1]])).predict(N_USERS)
    assert np.isfinite(new_user).all()
    grown = model.partial_fit(Interactions([0, N_USERS], [N_ITEMS, 0], [1.0, 5.0], num_users=N_USERS + 1, num_items=N_ITEMS + 2))
    assert grown.item_counts_[N_ITEMS] == 1


@both
@pytest.mark.parametrize("seen", ["user", "both"])
@pytest.mark.parametrize("with_features", [False, True])
def test_leave_one_out_takes_the_item_out_of_what_was_seen(kind, seen, with_features):
    """Against the solution of each row's equations without the rating and without the item, the precision being the full row's."""
    features = {"user_features": USERS} if with_features else {}
    model = make(kind, seen_features=seen, dtype="float64").fit(WARM, **features)
    rows = DATA[(DATA.user_ids < 8) & (DATA.user_ids != 5)].tocsr()[:8]  # user 5 has no rating
    new = {"user_features": USERS[:8]} if with_features else {}
    weights, scale, k = model._factors.users.weights, model.rating_scale_, model.n_factors
    units = np.append(np.full(k, scale**0.5), [scale] * (kind is BiasedMatrixFactorization))
    table, offset = model.item_factors_ / scale**0.5, np.zeros(N_ITEMS)
    if kind is BiasedMatrixFactorization:
        table, offset = np.column_stack([table, np.ones(N_ITEMS)]), (model.item_biases_ + model.global_mean_) / scale
    precision, shift = model.user_prior_

    def mean_move(user, items):
        base = weights.own_constant + USERS[user] @ weights.own_weights - weights.own_average if with_features else 0.0
        return (base + weights.seen[items].sum(0) / np.sqrt(len(items))) / units

    def solve(user, items, ratings, count):
        powers = np.array([1.0, count**0.75, count])
        A = np.einsum("j,jab->ab", powers, precision)
        b = powers @ shift + precision[0] @ mean_move(user, items)
        Y = table[items]
        return np.linalg.solve(A + Y.T @ Y, b + Y.T @ (ratings - offset[items]))

    expected, folded = [], model.fold_in(rows, **new)
    for user in range(8):
        items, ratings = rows[user].indices, rows[user].data / scale
        if len(items):
            assert_allclose(folded[user], solve(user, items, ratings, len(items)) * units, rtol=1e-7, atol=1e-10)
        for out in range(len(items)):
            left = np.arange(len(items)) != out
            x = solve(user, items[left], ratings[left], len(items))
            expected.append((offset[items[out]] + table[items[out]] @ x) * scale)
    assert_allclose(model.predict_left_out(rows, **new), expected, rtol=1e-7)
    cold = weights.constant + USERS[5] @ weights.weights if with_features else np.append(model.mean_user_, np.zeros(len(units) - k))
    assert_allclose(folded[5], cold, rtol=1e-9)


def test_one_rating_left_out_leaves_a_cold_user():
    model = make(seen_features="both", dtype="float64").fit(WARM, user_features=USERS)
    row = sp.csr_array(([4.0], ([0], [7])), shape=(1, N_ITEMS))
    empty = sp.csr_array((1, N_ITEMS))
    left_out = model.predict_left_out(row, user_features=USERS[:1])
    assert_allclose(left_out, model.predict(empty, user_features=USERS[:1])[:, 7], rtol=1e-10)


def test_a_new_user_from_features_from_ratings_from_both():
    held = np.arange(0, N_USERS, 4)
    train = DATA[~np.isin(DATA.user_ids, held)]
    test = DATA[np.isin(DATA.user_ids, held)]
    model = make(seen_features="both").fit(train, item_features=ITEMS, user_features=Features(USERS))
    matrix = test.tocsr()[held]
    few = sp.csr_array(matrix.multiply(np.random.default_rng(0).random(matrix.shape) < 0.15))
    few.eliminate_zeros()
    entry = matrix.nonzero()

    def error(X, **features):
        return np.sqrt(np.mean((model.predict(X, **features)[entry] - np.asarray(matrix[entry]).ravel()) ** 2))

    by_features = error(sp.csr_array(matrix.shape), user_features=USERS[held])
    nothing = error(sp.csr_array(matrix.shape))
    assert by_features < 0.8 * nothing
    assert error(few, user_features=USERS[held]) < min(by_features, error(few))


@pytest.mark.parametrize("solver", SOLVERS)
def test_saved_models_know_their_features(solver, tmp_path):
    seen = "both" if solver == "variational" else None
    model = make(solver=solver, seen_features=seen).fit(WARM, user_features=USERS, item_features=ITEMS)
    model.save(tmp_path / "model")
    loaded = type(model).load(tmp_path / "model")
    more = np.vstack([ITEMS, ITEMS[:1]])
    assert_array_equal(loaded.predict(0, item_features=more), model.predict(0, item_features=more))
    assert loaded.item_feature_shares_ == model.item_feature_shares_
    assert_array_equal(loaded.partial_fit(OF_COLD).predict(DATA), model.partial_fit(OF_COLD).predict(DATA))


def test_encoders_of_tables_are_saved_and_those_of_others_are_not(tmp_path):
    pd = pytest.importorskip("pandas")
    table = pd.DataFrame({"kind": ITEMS.argmax(1).astype(str), "size": np.arange(N_ITEMS) / 7.0})
    model = make(item_encoder=sk_torchmf.FeatureEncoder(min_frequency=3)).fit(WARM, item_features=table)
    loaded = type(model).load(model.save(tmp_path / "model") and tmp_path / "model")
    assert loaded.item_encoder.min_frequency == 3
    assert_array_equal(loaded.predict(0, item_features=table), model.predict(0, item_features=table))
    theirs = make(item_encoder=OneHotEncoder()).fit(WARM, item_features=table[["kind"]])
    with pytest.raises(TypeError, match=r"item_encoder_? is a OneHotEncoder, which is code.*passthrough"):
        theirs.save(tmp_path / "theirs")


def test_shares_tell_what_matters():
    rng = np.random.default_rng(1)
    pd = pytest.importorskip("pandas")
    table = pd.DataFrame({"kind": ITEMS.argmax(1).astype(str), "noise": rng.integers(0, 6, N_ITEMS).astype(str)})
    shares = make().fit(DATA, item_features=table).item_feature_shares_
    assert shares["kind"] > 0.5
    assert shares["noise"] < 0.1


@pytest.mark.parametrize("form", ["table", "interactions"])
def test_an_encoder_is_searched(form):
    pd = pytest.importorskip("pandas")
    X, y = DATA, None
    if form == "table":
        X, y = pd.DataFrame({"user": DATA.user_ids, "item": DATA.item_ids}), DATA.ratings
    table = Features(pd.DataFrame({"kind": ITEMS.argmax(1).astype(str)}))
    search = GridSearchCV(
        make(item_encoder=sk_torchmf.FeatureEncoder()),
        {"item_encoder__min_frequency": [1, 60]},
        cv=ColdItemSplit(3, random_state=0),
        scoring="neg_root_mean_squared_error",
        error_score="raise",
        n_jobs=2,
    )
    search.fit(X, DATA.ratings if y is None else y, item_features=table)
    assert search.best_params_ == {"item_encoder__min_frequency": 1}  # 60 makes one category of all
    scores = search.cv_results_["mean_test_score"]
    assert scores[0] > scores[1]


def test_metadata_routing_hands_features_to_fit():
    with config_context(enable_metadata_routing=True):
        model = make().set_fit_request(item_features=True).set_score_request(item_features=False)
        result = cross_validate(
            model,
            DATA,
            DATA.ratings,
            params={"item_features": Features(ITEMS)},
            cv=KFold(3, shuffle=True, random_state=0),
            return_estimator=True,
            error_score="raise",
        )
    assert all(hasattr(one, "item_feature_weights_") for one in result["estimator"])


def test_metadata_routing_hands_the_rows_of_a_frame_to_fit_and_score():
    pandas = pytest.importorskip("pandas")
    X, table = sp.csr_array(DATA.tocsr()), pandas.DataFrame({"kind": USERS.argmax(axis=1).astype(str)})
    cv = KFold(3, shuffle=True, random_state=0)
    with config_context(enable_metadata_routing=True):
        model = make(max_iter=4).set_fit_request(user_features=True).set_score_request(user_features=True)
        found = cross_validate(model, X, params={"user_features": table}, cv=cv, error_score="raise")["test_score"]
    expected = []
    for train, test in cv.split(X):
        of_train, of_test = (Features(table.iloc[rows].reset_index(drop=True)) for rows in (train, test))
        expected.append(make(max_iter=4).fit(X[train], user_features=of_train).score(X[test], user_features=of_test))
    assert_allclose(found, expected, rtol=1e-9)


def test_new_users_are_scored_on_items_that_only_features_tell_of():
    early = np.arange(N_ITEMS) < 80
    matrix = sp.csr_array(DATA.tocsr())
    model = make().fit(matrix[:60][:, np.flatnonzero(early)], item_features=ITEMS[early])
    told = model.score(matrix[60:], item_features=ITEMS)
    assert told == pytest.approx(model.extend(item_features=ITEMS).score(matrix[60:]), rel=1e-12)


def test_cold_items_are_ranked():
    model = make().fit(WARM, user_features=USERS, item_features=ITEMS)
    liked = OF_COLD[OF_COLD.ratings > 4]
    known, blind = (ranking_scorer("ndcg", k=5, items="cold")(one, liked) for one in (model, make().fit(WARM)))
    assert known > blind + 0.1


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_killed_fit_with_features_ends_as_one_that_was_not(solver, tmp_path):
    params = {"solver": solver, "max_iter": 6, "tol": 0.0}
    whole = make(**params).fit(WARM, item_features=ITEMS)

    class KilledError(Exception):
        pass

    def score(estimator, X, y=None, sample_weight=None):
        if estimator.n_iter_ == 4 and not score.done:
            score.done = True
            raise KilledError
        return 0.0

    score.done = False
    again = make(**params, checkpoint=tmp_path / "state", scoring=score)
    with pytest.raises(KilledError):
        again.fit(WARM, item_features=ITEMS, X_val=OF_COLD)
    again.fit(WARM, item_features=ITEMS, X_val=OF_COLD)
    assert_array_equal(again.predict(DATA), whole.predict(DATA))


def test_warm_start_and_partial_fit_with_features():
    model = make(warm_start=True, seen_features="both").fit(WARM[:1000], item_features=ITEMS)
    warm = rmse(model.fit(WARM, item_features=ITEMS), OF_COLD)
    fresh = rmse(make(seen_features="both").fit(WARM, item_features=ITEMS), OF_COLD)
    assert warm == pytest.approx(fresh, rel=0.1)
    parts = make(seen_features="both")
    for start in range(0, len(WARM), 1000):
        parts.partial_fit(WARM[start : start + 1000], item_features=ITEMS if start == 0 else None)
    assert rmse(parts, OF_COLD) == pytest.approx(fresh, rel=0.1)


REFUSED = {
    "as many rows as X": (lambda: make().fit(DATA[:N_ITEMS], item_features=ITEMS), r"item_features has 90 rows, as many as X"),
    "more rows than X has columns": (
        lambda: make().fit(DATA.tocsr(), item_features=np.ones((N_ITEMS + 1, 2))),
        r"item_features has a row for the item 90, but X has 90 items",
    ),
    "partial_fit without": (
        lambda: make().fit(DATA).partial_fit(DATA, item_features=ITEMS),
        r"item_features were not passed to fit",
    ),
    "predict without": (lambda: make().fit(DATA).predict(0, item_features=ITEMS), r"item_features were not passed to fit"),
    "fold_in without": (
        lambda: make().fit(DATA).fold_in(DATA.tocsr(), user_features=USERS),
        r"user_features were not passed to fit",
    ),
    "fold_in of fewer": (
        lambda: make().fit(DATA, user_features=USERS).fold_in(DATA.tocsr()[:3], user_features=USERS[:5]),
        r"user_features has a row for the user 4, but X has 3 rows",
    ),
    "other columns": (
        lambda: make().fit(DATA, item_features=ITEMS).predict(0, item_features=ITEMS[:, :3]),
        r"item_features: .*3",
    ),
    "extend of nothing": (lambda: make().fit(DATA).extend(), r"extend needs user_features or item_features"),
    "nan": (lambda: make().fit(DATA, item_features=np.where(ITEMS == 1, np.nan, 0)), r"item_features"),
    "a word": (lambda: make(item_encoder="onehot").fit(DATA, item_features=ITEMS), r"item_encoder"),
    "seen_features": (lambda: make(seen_features="items").fit(DATA), r"seen_features"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused(case):
    call, words = REFUSED[case]
    with pytest.raises(ValueError, match=words):
        call()
