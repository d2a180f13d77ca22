"""Biases of columns and of time in the explicit estimators: planted ones are found, and added where they belong."""

import numpy as np
import pytest
import scipy.sparse as sp
from killed_fits import Killed, die_after, killed_and_resumed
from numpy.testing import assert_allclose, assert_array_equal
from round_trip import reloaded, rewrite, same, through_pickle
from sklearn.model_selection import GridSearchCV

from sk_torchmf import BiasedMatrixFactorization, Interactions, MatrixFactorization
from sk_torchmf.inputs.effects import TIME

pd = pytest.importorskip("pandas")
pytestmark = pytest.mark.usefixtures("one_thread")

RNG = np.random.default_rng(0)
N, N_USERS, N_ITEMS, NOISE = 2000, 40, 30, 0.2
USER, ITEM, PLACE = RNG.integers(0, N_USERS, N), RNG.integers(0, N_ITEMS, N), RNG.choice(["bus", "home", "work"], N)
WORTH = {"bus": -1.0, "home": 1.0, "work": 0.0}
TASTE = RNG.normal(0, 1, (N_USERS, 3))  # what each user makes of each place
DAY = RNG.integers(0, 5, N)
SECONDS = 86400.0 * 7 * DAY + RNG.permutation(N)  # five evenings, no two ratings at one time
MOOD = RNG.normal(0, 1, (N_USERS, 5))  # of each user on each evening
PLAIN = 3 + 0.5 * RNG.normal(0, 1, N_ITEMS)[ITEM] + NOISE * RNG.normal(0, 1, N)
Y = PLAIN + np.vectorize(WORTH.get)(PLACE)
X = pd.DataFrame({"user": [f"u{one:02}" for one in USER], "item": ITEM, "place": PLACE, "at": SECONDS})
FIRST, LAST = slice(0, 1500), slice(1500, N)
KINDS = [MatrixFactorization, BiasedMatrixFactorization]


def make(kind=BiasedMatrixFactorization, **options):
    return kind(**{"n_factors": 2, "user": "user", "item": "item", "random_state": 0} | options)


def rmse(model, X, y):
    return np.sqrt(np.mean((model.predict(X) - y) ** 2))


def timed(rows=slice(None), y=Y):
    return Interactions(USER[rows], ITEM[rows], y[rows], timestamps=SECONDS[rows], num_users=N_USERS, num_items=N_ITEMS)


def ids(X):
    return X["user"].to_numpy(), X["item"].to_numpy()


# what is learned


@pytest.mark.parametrize("kind", KINDS)
def test_a_columns_biases_are_found_and_added(kind):
    model = make(kind, effects=["place"]).fit(X[FIRST], Y[FIRST])
    (effect,), ((biases, variances, prior),) = model.effects_, model.effect_biases_
    found = dict(zip(effect.context.labels.tolist(), biases.tolist(), strict=True))
    for place, worth in WORTH.items():  # 500 ratings each; the level is the mean's, but for what the prior leaves of it
        assert abs(found[place] - worth) < 0.1
    assert 0.3 < prior < 1.2  # the mean square of -1, 0 and 1 is two thirds
    assert (variances < 0.01).all()
    assert_allclose(model.predict(X[LAST]) - model.predict(*ids(X[LAST])), [found[place] for place in PLACE[LAST]], atol=1e-12)
    assert rmse(model, X[LAST], Y[LAST]) < 1.3 * NOISE < 0.5 * rmse(make(kind).fit(X[FIRST], Y[FIRST]), X[LAST], Y[LAST])


@pytest.mark.parametrize("side", ["user", "item"])
def test_biases_of_each_user_or_item_and_value(side):
    row, code = {"user": USER, "item": ITEM}[side], np.searchsorted(sorted(WORTH), PLACE)
    y = PLAIN + TASTE[row, code]
    model = make(effects=[(side, "place")]).fit(X[FIRST], y[FIRST])
    known = sorted({(int(one), place) for one, place in zip(row[FIRST], PLACE[FIRST], strict=True)})
    biases = dict(zip(known, model.effect_biases_[0][0].tolist(), strict=True))
    asked = list(zip(row[LAST].tolist(), PLACE[LAST].tolist(), strict=True))
    added = model.predict(X[LAST]) - model.predict(*ids(X[LAST]))
    assert_allclose(added, [biases.get(one, 0.0) for one in asked], atol=1e-12)
    assert rmse(model, X[LAST], y[LAST]) < 0.5 * rmse(make().fit(X[FIRST], y[FIRST]), X[LAST], y[LAST])


def plain_runs(kind, size):
    """A number for each run of a user's observations: users in order, then times."""
    codes, n = np.empty(1500, dtype=int), -1
    for user in range(N_USERS):
        before = None
        for place, row in enumerate(sorted(np.flatnonzero(USER[FIRST] == user), key=SECONDS.__getitem__)):
            new = place % size == 0 if kind == "windows" else before is None or SECONDS[row] - before > size
            n, before = n + new, SECONDS[row]
            codes[row] = n
    return codes


@pytest.mark.parametrize("kind", KINDS)
def test_a_users_sessions_have_biases(kind):
    y = PLAIN + MOOD[USER, DAY]
    model = make(kind, time="at").fit(X[FIRST], y[FIRST])
    expected = sum(own[0][plain_runs(*one)] for one, own in zip(TIME, model.effect_biases_, strict=True))
    assert_allclose(model.predict(X[FIRST]) - model.predict(*ids(X[FIRST])), expected, atol=1e-12)
    assert rmse(model, X[LAST], y[LAST]) < 0.6 * rmse(make(kind).fit(X[FIRST], y[FIRST]), X[LAST], y[LAST])


def test_timestamps_of_a_container_are_a_tables_column():
    found = [make(time="at").fit(X[FIRST], Y[FIRST]).predict(X[LAST]), make(time=True).fit(timed(FIRST)).predict(timed(LAST))]
    assert_array_equal(*found)
    as_times = X.assign(at=pd.to_datetime(SECONDS, unit="s"))
    assert_array_equal(make(time="at").fit(as_times[FIRST], Y[FIRST]).predict(as_times[LAST]), found[0])


def test_columns_by_position_of_any_table():
    expected = make(effects=["place"], time="at").fit(X[FIRST], Y[FIRST]).predict(X[LAST])
    options = {"user": 0, "item": 1, "effects": [2], "time": 3}
    for table in (X, X.to_numpy(), pytest.importorskip("polars").DataFrame(X.to_dict("list"))):
        assert_array_equal(make(**options).fit(table[FIRST], Y[FIRST]).predict(table[LAST]), expected)


def test_a_bias_is_added_before_the_inverse_link():
    y = np.random.default_rng(0).poisson(np.exp(Y / 3))
    model = make(effects=["place"], loss="poisson").fit(X, y)
    biases = dict(zip(sorted(WORTH), model.effect_biases_[0][0], strict=True))
    ratio = model.predict(X) / model.predict(*ids(X))
    assert_allclose(np.log(ratio), [biases[place] for place in PLACE], atol=1e-6)  # torch's exp of float64
    assert biases["bus"] < -0.2 < 0.2 < biases["home"]  # a third of -1 and 1 by construction


def test_what_no_one_said_of_time_has_no_effect():
    model = make(time=False).fit(X, Y)
    assert_array_equal(model.predict(X), make().fit(X, Y).predict(X))
    assert not {"effects_", "effect_biases_", "observed_features_"} & vars(model).keys()


# context that is not known


def test_an_unknown_value_averages_out_and_is_as_uncertain_as_the_prior():
    model = make(effects=["place"]).fit(X, Y)
    ((_, variances, prior),) = model.effect_biases_
    plain, spread = model.predict(*ids(X), return_std=True)
    for value in ("sea", None):
        predicted, std = model.predict(X.assign(place=value), return_std=True)
        assert_array_equal(predicted, plain)
        assert_array_equal(std, spread)
    std = model.predict(X, return_std=True)[1]
    own = variances[np.searchsorted(sorted(WORTH), PLACE)]
    assert_allclose(spread**2 - std**2, prior - own, atol=1e-12)
    assert_allclose(model.predict("u03", return_std=True)[1], model.predict("u03", model.items_, return_std=True)[1], atol=1e-12)


def test_recommendations_average_effects_out():
    model = make(effects=["place"], time="at").fit(X, Y)
    items, scores = model.recommend("u03", k=5)
    assert_allclose(scores, model.predict("u03", items), atol=1e-12)


def test_a_container_without_timestamps_averages_them_out():
    model = make(time=True).fit(timed())
    plain = model.predict(USER, ITEM)
    assert np.abs(model.predict(timed()) - plain).max() > 0.01
    assert_array_equal(model.predict(Interactions(USER, ITEM)), plain)
    assert_array_equal(model.set_params(user=0, item=1).predict(np.column_stack([USER, ITEM])), plain)


def test_the_spread_with_known_context_is_that_of_held_out_ratings():
    y = PLAIN + MOOD[USER, DAY]
    predicted, std = make(time="at").fit(X[FIRST], y[FIRST]).predict(X[LAST], return_std=True)
    assert 0.7 < np.mean(((y[LAST] - predicted) / std) ** 2) < 1.4  # 500 ratings; the sessions are a factorized posterior's


# refusals


@pytest.mark.parametrize(
    ("options", "X", "y", "words"),
    [
        ({"effects": ["place"], "solver": "als"}, X, Y, 'need solver="variational", .* Got "als"'),
        ({"time": "at", "solver": "adam"}, X, Y, 'need solver="variational"'),
        ({"time": True}, sp.csr_array((Y, (USER, ITEM))), None, "a sparse matrix holds neither columns nor times"),
        ({"time": True}, X, Y, "time=True stands for the timestamps of Interactions"),
        ({"time": "at"}, timed(), None, "name the column 'at', but Interactions have no columns"),
        ({"effects": ["place"]}, timed(), None, "name the column 'place'"),
        ({"time": True}, Interactions(USER, ITEM, Y), None, "time=True needs Interactions with timestamps"),
        ({"effects": ["mood"]}, X, Y, "effects='mood' is not a column of X"),
        ({"time": "when"}, X, Y, "time='when' is not a column of X"),
        ({"effects": [9]}, X, Y, "effects=9 is not a column position"),
        ({"effects": ["place"]}, X.assign(place=None), Y, "column 'place' must have a value in each row. Row 0"),
        ({"time": "at"}, X.assign(at=np.nan), Y, "time must be present and finite"),
        ({"time": "place"}, X, Y, "time must hold numbers"),
        ({"effects": "place"}, X, Y, "effects"),
        ({"effects": [1.5]}, X, Y, "effects must hold columns of X"),
        ({"effects": ["place", "place"]}, X, Y, "must not hold an entry twice"),
        ({"time": -1}, X, Y, "time"),
    ],
)
def test_what_cannot_be_is_refused_with_words(options, X, y, words):
    with pytest.raises((ValueError, TypeError), match=words):
        make(**options).fit(X, y)


def test_a_table_without_the_columns_is_refused_where_it_is_predicted():
    model = make(effects=["place"]).fit(X, Y)
    with pytest.raises(ValueError, match="place"):
        model.predict(X[["user", "item", "at"]])
    with pytest.raises(ValueError, match="2 features"):
        make(user=0, item=1, effects=[2]).fit(X.to_numpy(), Y).predict(X.to_numpy()[:, :2])


# the course of a fit


def test_the_columns_are_kept_in_the_order_of_the_ratings():
    twice = pd.concat([X, X[:50].assign(place="sea", at=SECONDS[:50] + 1)])
    y, weight = np.append(Y, Y[:50] + 9), np.append(np.arange(N) % 3, np.full(50, 2))
    model = make(effects=["place"], time="at").fit(twice, y, weight)
    user = np.repeat(model.users_, np.diff(model.observed_.indptr))
    columns = model.observed_features_["place"], model.observed_features_[None], model.observed_.data
    kept = sorted(zip(user, model.items_[model.observed_.indices], *columns[:2], columns[2].round(3), strict=True))
    given = zip(twice["user"], twice["item"], twice["place"], twice["at"], y.astype("f4").round(3), strict=True)
    assert kept == sorted(one for one, own in zip(given, weight, strict=True) if own)


@pytest.mark.parametrize("table", [True, False])
def test_partial_fit_comes_near_to_a_fit_to_all(table):
    y = PLAIN + MOOD[USER, DAY]
    model = make(effects=["place"], time="at") if table else make(time=True)
    parts = [slice(0, 700), slice(700, 1500)]
    for part in parts:
        model.partial_fit(*((X[part], y[part]) if table else (timed(part, y),)))
    again = make(**{name: getattr(model, name) for name in ("effects", "time")})
    again.fit(*((X[FIRST], y[FIRST]) if table else (timed(FIRST, y),)))
    assert [one.n_codes for one in model.effects_] == [one.n_codes for one in again.effects_]
    asked = X[LAST] if table else timed(LAST)
    assert rmse(model, asked, y[LAST]) < 1.05 * rmse(again, asked, y[LAST])


def test_partial_fit_takes_values_of_another_kind():
    model = make(effects=["place"]).fit(X[FIRST].assign(place=np.arange(1500) % 2), Y[FIRST])
    model.partial_fit(X[LAST].assign(place="a place with a long name"), Y[LAST])
    assert model.effects_[0].context.labels.tolist() == ["0", "1", "a place with a long name"]


def test_partial_fit_with_another_context_is_refused():
    for change in ({"effects": None}, {"time": "at"}):
        model = make(effects=["place"]).fit(X, Y).set_params(**change)
        with pytest.raises(ValueError, match="the same effects and time as the earlier fit"):
            model.partial_fit(X, Y)
    with pytest.raises(ValueError, match="sparse matrix holds neither columns nor times"):
        make(time=True).fit(timed()).partial_fit(sp.csr_array((Y, (USER, ITEM))))


def test_effects_are_those_of_the_part_that_is_trained_on():
    model = make(effects=["at"], early_stopping=True, refit=False, validation_fraction=0.5).fit(X, Y)
    n_codes = model.effects_[0].n_codes  # no two ratings at one time
    assert 0.4 * N < n_codes < 0.6 * N
    assert len(model.effect_biases_[0][0]) == n_codes
    assert len(model.observed_features_["at"]) == model.observed_.nnz == N  # what partial_fit goes on from
    assert model.set_params(early_stopping=False).partial_fit(X[:1], Y[:1]).effects_[0].n_codes == N


def test_effects_count_in_validation():
    model = make(effects=["place"]).fit(X[FIRST], Y[FIRST], X_val=X[LAST], y_val=Y[LAST])
    expected = np.mean((model.predict(X[LAST]) - Y[LAST]) ** 2) / model.rating_scale_**2
    assert_allclose(model.history_["validation_loss"][-1], expected, rtol=1e-10)


def test_a_warm_start_finds_the_effects_anew():
    model = make(effects=["place"], warm_start=True).fit(X[FIRST], Y[FIRST])
    assert rmse(model.fit(X[FIRST], Y[FIRST]), X[LAST], Y[LAST]) < 1.3 * NOISE


@pytest.mark.parametrize("n_writes", [1, 4])
def test_a_killed_fit_ends_with_the_same_biases(tmp_path, monkeypatch, n_writes):
    def options(**more):
        return make(time=True, **more)

    expected = options().fit(timed())
    model, written = killed_and_resumed(monkeypatch, options, timed(), tmp_path / "checkpoint", n_writes)
    assert written[0] == n_writes + 1
    same([model.effect_biases_, model.user_factors_], [expected.effect_biases_, expected.user_factors_])


def test_a_checkpoint_is_that_of_these_columns(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        die_after(patch, 2)
        with pytest.raises(Killed):
            make(effects=["place"], checkpoint=tmp_path / "checkpoint").fit(X, Y)
    with pytest.raises(ValueError, match="data"):
        make(effects=["place"], checkpoint=tmp_path / "checkpoint").fit(X.assign(place=PLACE[::-1]), Y)


@pytest.mark.parametrize("go", [through_pickle, reloaded])
def test_effects_come_back_from_a_file(tmp_path, go):
    model = make(effects=["place", ("item", "place")], time="at").fit(X[FIRST], Y[FIRST])
    again = go(model, tmp_path)
    same([one.state() for one in again.effects_], [one.state() for one in model.effects_])
    same(again.effect_biases_, model.effect_biases_)
    same(again.predict(X, return_std=True), model.predict(X, return_std=True))
    same(*(one.partial_fit(X[LAST], Y[LAST]).predict(X) for one in (again, model)))


def test_a_file_whose_biases_are_not_those_of_the_codes_is_refused(tmp_path):
    make(effects=["place"]).fit(X, Y).save(tmp_path / "model")
    rewrite(tmp_path / "model", lambda meta: meta["values"]["state"]["dict"].pop("effect_biases_"))
    with pytest.raises(ValueError, match="not a complete file"):
        BiasedMatrixFactorization.load(tmp_path / "model")


def test_a_search_takes_effects_for_what_they_are_worth():
    search = GridSearchCV(make(), {"effects": [None, ["place"]]}, cv=2, error_score="raise").fit(X, Y)
    assert search.best_params_ == {"effects": ["place"]}
    assert search.best_score_ > 0.9


def test_more_ids_leave_the_effects_where_they_are():
    ages = pd.DataFrame({"age": np.arange(N_USERS)}, index=sorted(X["user"].unique()))
    model = make(effects=[("user", "place")], time="at").fit(X, Y, user_features=ages)
    before = model.predict(X)
    model.extend(user_features=pd.DataFrame({"age": [20]}, index=["a user before all"]))
    assert_allclose(model.predict(X), before, atol=1e-6)  # float32 rows
    more = pd.DataFrame({"age": [20]}, index=["b"])
    assert_allclose(model.predict(X, user_features=more), before, atol=1e-6)
