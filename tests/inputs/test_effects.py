"""Codes of the context of observations, against plain loops: values of columns, those of each user or item, and time."""

import datetime

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from sk_torchmf.inputs.effects import TIME, Effect, as_seconds, check_effects, find_codes, fit_effects
from sk_torchmf.storage.packing import pack, unpack

pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")

RNG = np.random.default_rng(0)
N, N_USERS, N_ITEMS = 400, 12, 9
USER, ITEM = RNG.integers(0, N_USERS, N), RNG.integers(0, N_ITEMS, N)
TIMES = RNG.integers(0, 3000, N).astype(float)  # many are alike
MOOD = RNG.choice(["calm", "gay", "sad"], N)
QUERY = {"user": RNG.integers(-1, N_USERS + 2, 300), "item": RNG.integers(-1, N_ITEMS + 2, 300)}
ASKED = np.where(RNG.random(300) < 0.1, np.nan, RNG.integers(-300, 3300, 300))


def same_partition(codes, labels):
    """Whether two numberings tell the same entries apart, with numbers 0 .. n - 1."""
    assert codes.dtype == np.int64
    assert sorted(set(codes.tolist())) == list(range(codes.max() + 1))
    return len(set(zip(codes.tolist(), labels, strict=True))) == len(set(labels)) == codes.max() + 1


def fit_time(*kinds, times=TIMES):
    return fit_effects([], USER, ITEM, {}, times, kinds)


def find_time(effects, times=ASKED):
    return find_codes(effects, QUERY["user"], QUERY["item"], {}, times)


def test_each_value_of_a_column_has_a_code():
    (effect,), (codes,) = fit_effects(["mood"], USER, ITEM, {"mood": MOOD})
    assert same_partition(codes, MOOD.tolist())
    assert effect.n_codes == 3
    asked = np.array(["sad", "angry", None, "calm"], dtype=object)
    known = dict(zip(MOOD.tolist(), codes.tolist(), strict=True))
    (found,) = find_codes([effect], np.zeros(4, int), np.zeros(4, int), {"mood": asked})
    assert_array_equal(found, [known["sad"], -1, -1, known["calm"]])


@pytest.mark.parametrize("side", ["user", "item"])
def test_each_value_of_each_user_or_item_has_a_code(side):
    row = {"user": USER, "item": ITEM}[side]
    (effect,), (codes,) = fit_effects([(side, "mood")], USER, ITEM, {"mood": MOOD})
    labels = list(zip(row.tolist(), MOOD.tolist(), strict=True))
    assert same_partition(codes, labels)
    known = dict(zip(labels, codes.tolist(), strict=True))
    asked = np.append(RNG.choice(["calm", "gay", "sad", "angry"], 299).astype(object), None)
    (found,) = find_codes([effect], QUERY["user"], QUERY["item"], {"mood": asked})
    expected = [known.get((row, mood), -1) for row, mood in zip(QUERY[side].tolist(), asked.tolist(), strict=True)]
    assert_array_equal(found, expected)
    assert -1 in expected


COLUMNS = {
    "integers": np.array([3, 1, 3, 2]),
    "floats": np.array([0.5, -1.0, 0.5, 7.25]),
    "text": np.array(["b", "a", "b", "c"]),
    "objects": np.array(["b", "a", "b", "c"], dtype=object),
    "booleans": np.array([True, False, True, False]),
    "times": np.array(["2020-01-02", "2020-01-01", "2020-01-02", "2021-01-01"], dtype="datetime64[s]"),
    "categories": pd.Series(["b", "a", "b", "c"], dtype="category"),
    "nullable": pd.Series([3, 1, 3, 2], dtype="Int64"),
    "polars": pl.Series(["b", "a", "b", "c"]),
    "polars categories": pl.Series(["b", "a", "b", "c"], dtype=pl.Categorical),
    "an odd index": pd.Series([3, 1, 3, 2], index=[7, 7, 1, 0]),
}


@pytest.mark.parametrize("values", COLUMNS.values(), ids=COLUMNS)
def test_columns_of_any_type_are_found_again(values):
    nobody = np.zeros(4, dtype=int)
    effects, (codes,) = fit_effects([2], nobody, nobody, {2: values})
    assert same_partition(codes, list(values))
    assert_array_equal(find_codes(effects, nobody, nobody, {2: values}), [codes])


MISSING = {
    "nan": np.array([1.0, np.nan]),
    "inf": np.array([1.0, np.inf]),
    "none": np.array(["a", None], dtype=object),
    "nat": np.array(["2020-01-02", "NaT"], dtype="datetime64[s]"),
    "pandas": pd.Series([1, None], dtype="Int64"),
    "categories": pd.Series(["a", None], dtype="category"),
    "polars": pl.Series(["a", None]),
    "polars numbers": pl.Series([1, None]),
}


@pytest.mark.parametrize("values", MISSING.values(), ids=MISSING)
def test_a_missing_value_is_refused_in_training_and_unknown_afterwards(values):
    nobody = np.zeros(2, dtype=int)
    with pytest.raises(ValueError, match=r"effects: column 'mood' must have a value in each row. Row 1 has .*Drop the row, or"):
        fit_effects(["mood"], nobody, nobody, {"mood": values})
    first = np.asarray(values)[:1]
    effects, _ = fit_effects(["mood"], nobody[:1], nobody[:1], {"mood": first})
    assert_array_equal(find_codes(effects, nobody, nobody, {"mood": values}), [[0, -1]])


def test_context_that_is_not_given_is_unknown():
    effects, _ = fit_effects(["mood", ("user", "mood")], USER, ITEM, {"mood": MOOD}, TIMES)
    assert_array_equal(find_codes(effects, USER[:3], ITEM[:3], {}), np.full((2 + len(TIME), 3), -1))


@pytest.mark.parametrize("gap", [0, 60, 400.0])
def test_sessions_have_no_gap_longer_than_asked(gap):
    effects, (codes,) = fit_time(("sessions", gap))
    labels = [None] * N
    for u in range(N_USERS):
        own, start = sorted((TIMES[at], at) for at in np.flatnonzero(u == USER)), None
        for (time, at), (earlier, _) in zip(own, [(-1e9, None), *own], strict=False):
            start = time if time - earlier > gap else start
            labels[at] = (u, start)
    assert same_partition(codes, labels)
    assert len(set(labels)) > N_USERS
    (found,) = find_time(effects)
    for u, time, code in zip(QUERY["user"], ASKED, found, strict=True):
        away = {at: abs(TIMES[at] - time) for at in np.flatnonzero(u == USER)}
        nearest = {codes[at] for at, distance in away.items() if distance == min(away.values()) <= gap}
        assert (code in nearest) if nearest else code == -1
    assert (found >= 0).any()
    assert_array_equal(find_codes(effects, USER, ITEM, {}, TIMES)[0], codes)


@pytest.mark.parametrize("size", [1, 4, 16])
def test_windows_have_so_many_observations_in_a_row(size):
    times = TIMES + np.arange(N) / N  # all different, so that their order is known
    effects, (codes,) = fit_time(("windows", size), times=times)
    labels = [None] * N
    for u in range(N_USERS):
        for place, at in enumerate(sorted(np.flatnonzero(u == USER), key=lambda at: times[at])):
            labels[at] = (u, place // size)
    assert same_partition(codes, labels)
    (found,) = find_time(effects)
    for u, time, code in zip(QUERY["user"], ASKED, found, strict=True):
        away = {at: abs(times[at] - time) for at in np.flatnonzero(u == USER)}
        windows = {codes[at]: [times[other] for other in away if codes[other] == codes[at]] for at in away}
        inside = {window for window, its in windows.items() if min(its) <= time <= max(its)}
        nearest = {codes[at] for at, distance in away.items() if distance == min(away.values())}
        expected = set() if np.isnan(time) else inside or nearest
        assert (code in expected) if expected else code == -1
    assert_array_equal(find_codes(effects, USER, ITEM, {}, times)[0], codes)


def test_periods_of_items_are_quantiles_of_all_times():
    effects, (codes,) = fit_time(("periods", 8))
    edges = [np.quantile(TIMES, q / 8) for q in range(1, 8)]

    def period(time):
        return sum(edge < time for edge in edges)

    labels = [(i, period(time)) for i, time in zip(ITEM.tolist(), TIMES, strict=True)]
    assert same_partition(codes, labels)
    known = dict(zip(labels, codes.tolist(), strict=True))
    (found,) = find_time(effects)
    expected = [
        -1 if np.isnan(time) else known.get((i, period(time)), -1) for i, time in zip(QUERY["item"].tolist(), ASKED, strict=True)
    ]
    assert_array_equal(found, expected)
    assert (found >= 0).any()


def test_effects_of_columns_come_first_then_those_of_time():
    effects, codes = fit_effects([("item", "mood")], USER, ITEM, {"mood": MOOD}, TIMES)
    assert [effect.column for effect in effects] == ["mood", *[None] * len(TIME)]
    assert [type(effect.context).__name__ for effect in effects] == ["Each", *["Runs"] * len(TIME)]
    assert [effect.n_codes for effect in effects] == [code.max() + 1 for code in codes]


def everything():
    kinds = ("sessions", 60.0), ("windows", 16), ("periods", 8), ("sessions", 0)
    return fit_effects(["mood", ("user", "mood"), ("item", "mood")], USER, ITEM, {"mood": MOOD}, TIMES, kinds)[0]


def ask(effects, user, item):
    return np.array(find_codes(effects, user, item, {"mood": np.resize(MOOD, len(user))}, ASKED))


def test_a_saved_effect_finds_the_same_codes():
    effects = everything()
    again = [Effect.from_state(unpack(*pack({"one": effect.state()}))["one"]) for effect in effects]
    assert_array_equal(ask(again, **QUERY), ask(effects, **QUERY))


def test_users_and_items_may_be_numbered_anew():
    effects = everything()
    users, items = np.sort(RNG.permutation(30)[: N_USERS + 2]), np.sort(RNG.permutation(30)[: N_ITEMS + 2])
    moved = [effect.regrown(users, items) for effect in effects]
    user, item = (np.where(QUERY[side] < 0, -1, place[QUERY[side]]) for side, place in (("user", users), ("item", items)))
    found = ask(moved, user, item)
    assert_array_equal(found, ask(effects, **QUERY))
    strangers = np.setdiff1d(np.arange(30), users).repeat(20)[:300]
    assert (ask(moved, strangers, item)[[1, 3, 4, 6]] == -1).all()


def test_sessions_far_apart_in_time_do_not_lose_digits():
    """Seconds since 1970 with fractions, and row numbers of many users."""
    user, start = np.array([0, 0, 999_999, 999_999]), 1.6e9
    times = np.array([start, start + 0.001, start + 0.002, start + 0.003])
    effects, (codes,) = fit_effects([], user, user, {}, times, [("sessions", 0)])
    assert_array_equal(codes, np.arange(4))
    assert_array_equal(find_codes(effects, user, user, {}, times), [codes])
    assert_array_equal(find_codes(effects, user, user, {}, times + 0.0005), [np.full(4, -1)])


MOMENT = datetime.datetime(2020, 5, 17, 12, 30, 15, 250_000)
SECONDS = 1589718615.25  # of it in UTC
UTC = datetime.UTC
EAST = datetime.timezone(datetime.timedelta(hours=2))
TIMES_OF_ALL_KINDS = {
    "numbers": np.array([SECONDS, np.nan, np.inf]),
    "objects": np.array([SECONDS, None, np.nan], dtype=object),
    "milliseconds": np.array([MOMENT, None, None], dtype="datetime64[ms]"),
    "nanoseconds": np.array([MOMENT, None, None], dtype="datetime64[ns]"),
    "python": np.array([MOMENT, None, pd.NaT], dtype=object),
    "python with a zone": np.array([MOMENT.replace(tzinfo=UTC).astimezone(EAST), None, None], dtype=object),
    "pandas": pd.Series([MOMENT, None, None]),
    "pandas with a zone": pd.Series([MOMENT, None, None]).dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo"),
    "polars": pl.Series([MOMENT, None, None]),
    "durations": np.array([int(SECONDS * 1000), "NaT", "NaT"], dtype="timedelta64[ms]"),
}


@pytest.mark.parametrize("values", TIMES_OF_ALL_KINDS.values(), ids=TIMES_OF_ALL_KINDS)
def test_times_of_all_kinds_are_seconds(values):
    nobody = np.zeros(3, dtype=int)
    effects, _ = fit_effects([], nobody[:1], nobody[:1], {}, np.array([SECONDS]), [("sessions", 0)])
    assert_array_equal(find_codes(effects, nobody, nobody, {}, values), [[0, -1, -1]])


def test_days_months_and_dates_are_seconds():
    day = 86400.0 * 18399
    for values in (
        np.array(["2020-05-17"], dtype="datetime64[D]"),
        np.array([datetime.date(2020, 5, 17)], dtype=object),
        np.array([18399], dtype="timedelta64[D]"),
        np.array([datetime.timedelta(days=18399)], dtype=object),
    ):
        assert_array_equal(as_seconds(values), [day])
    assert_array_equal(as_seconds(np.array(["1970-03", "3000-01"], dtype="datetime64[M]")), [59 * 86400.0, 32503680000.0])


@pytest.mark.parametrize("value", ["2020-05-17", True, b"5", 1j, (1, 2)])
def test_what_is_no_time_is_refused(value):
    values = np.empty(2, dtype=object)
    values[:] = [0.0, value]
    with pytest.raises(TypeError, match=r"time must hold numbers \(of seconds\), or dates and times\. Row 1 has .* pandas.to_dat"):
        fit_effects([], USER[:2], ITEM[:2], {}, values)


@pytest.mark.parametrize("values", [np.array(["1", "2"]), np.array([True, False]), np.array([1j, 2j])])
def test_an_array_of_no_times_is_refused(values):
    with pytest.raises(TypeError, match="Row 0 has"):
        find_codes([], USER[:2], ITEM[:2], {}, values)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_missing_time_is_refused_in_training(bad):
    with pytest.raises(ValueError, match=r"time must be present and finite in each row for fit. Row 2 has none. Drop the"):
        fit_effects([], USER[:4], ITEM[:4], {}, np.array([0.0, 1.0, bad, 2.0]))


def test_columns_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"column 'mood' must have one value for each observation, shape \(4,\). Got shape \(3,\)"):
        fit_effects(["mood"], USER[:4], ITEM[:4], {"mood": MOOD[:3]})
    with pytest.raises(ValueError, match=r"time must have one value for each observation, shape \(4,\)"):
        fit_effects([], USER[:4], ITEM[:4], {}, TIMES[:3])


def test_effects_are_named_in_a_list():
    assert check_effects(None) == []
    assert check_effects(["mood", 3, ("user", "mood"), ("item", np.int64(3))]) == [
        (None, "mood"),
        (None, 3),
        ("user", "mood"),
        ("item", 3),
    ]


@pytest.mark.parametrize("effects", ["mood", 3, {"mood"}])
def test_effects_that_are_no_list_are_refused(effects):
    with pytest.raises(TypeError, match=r"effects must be a list of columns of X. Got .*\. Write \["):
        check_effects(effects)


@pytest.mark.parametrize("one", [None, 1.5, True, ("group", "mood"), ("user", None), ("user", "mood", "x"), ["user", "mood"]])
def test_an_effect_that_names_no_column_is_refused(one):
    with pytest.raises(
        TypeError, match=r"effects must hold columns of X, by name or position, or pairs such as \(\"user\", column\)"
    ):
        check_effects(["mood", one])


def test_an_effect_that_is_named_twice_is_refused():
    with pytest.raises(ValueError, match=r"effects must not hold an entry twice\. Got \('user', 3\) twice\."):
        check_effects([("user", 3), 3, ("user", 3)])
