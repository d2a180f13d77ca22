"""Splitters whose parts are known by construction."""

import pickle
from inspect import signature

import numpy as np
import pytest
from data import as_form, ids_in, planted
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.model_selection import KFold, cross_val_predict

from sk_torchmf import BiasedMatrixFactorization, Interactions
from sk_torchmf.model_selection import (
    ColdItemSplit,
    ColdUserSplit,
    HeldOutUsers,
    LeaveLastOut,
    LeaveRandomOut,
    TimeSplit,
    UserKFold,
)

N_USERS, N_ITEMS = 30, 20
DATA, _ = planted(3, mean=3.0, n_users=N_USERS, n_items=N_ITEMS, n_ratings=300)
TIMED = Interactions(
    DATA.user_ids, DATA.item_ids, DATA.ratings, np.random.default_rng(0).permutation(300), num_users=N_USERS, num_items=N_ITEMS
)
SPLITTERS = [
    LeaveLastOut(2),
    LeaveRandomOut(2, n_splits=3, random_state=0),
    UserKFold(3, random_state=0),
    TimeSplit(0.2, n_splits=2),
    HeldOutUsers(4, random_state=0),
    ColdItemSplit(4, random_state=0),
    ColdUserSplit(2, test_size=0.2, random_state=0),
    ColdItemSplit(1, by_time=True, test_size=0.15),
    ColdUserSplit(2, by_time=True, test_size=2),
]
SEEDED = [LeaveRandomOut, UserKFold, HeldOutUsers, ColdItemSplit, ColdUserSplit]
every_splitter = pytest.mark.parametrize("splitter", SPLITTERS, ids=repr)


def counts(index, data=DATA):
    return np.bincount(data.user_ids[index], minlength=N_USERS)


def parts_of(splitter, X):
    return [tuple(part.tolist() for part in parts) for parts in splitter.split(X)]


@every_splitter
def test_parts_are_disjoint_ascending_and_as_many_as_said(splitter):
    parts = list(splitter.split(TIMED))
    assert len(parts) == splitter.get_n_splits() == splitter.get_n_splits(TIMED, TIMED.ratings)
    for train, test in parts:
        assert len(train)
        assert len(test)
        for part in (train, test):
            assert part.dtype.kind == "i"
            assert (np.diff(part) > 0).all()
        assert not np.intersect1d(train, test).size
        if not isinstance(splitter, TimeSplit) and not getattr(splitter, "by_time", False):
            assert len(train) + len(test) == 300


@every_splitter
@pytest.mark.parametrize("form", ["table", "labels", "pandas", "polars"])
def test_tables_split_as_interactions_do(splitter, form):
    user, item = (ids_in(form, role, ids) for role, ids in (("user", TIMED.user_ids), ("item", TIMED.item_ids)))
    columns = {"item": 0, "user": 1, "time": 2}
    if form in ("pandas", "polars"):
        columns = {"item": "what", "user": "who", "time": "when"}
        table = pytest.importorskip(form).DataFrame({"what": item, "who": user, "when": TIMED.timestamps})
    else:
        table = np.column_stack([item, user, TIMED.timestamps])  # all text, where ids are labels: 10 is after 9 nevertheless
    parameters = {name: getattr(splitter, name) for name in signature(type(splitter)).parameters}
    other = type(splitter)(**parameters | {name: key for name, key in columns.items() if name in parameters})
    assert parts_of(other, table) == parts_of(splitter, TIMED)
    if form == "table" and "time" in columns:
        assert parts_of(other, table.tolist()) == parts_of(splitter, TIMED)


@every_splitter
def test_splitters_can_be_pickled_cloned_and_read(splitter):
    expected = parts_of(splitter, TIMED)
    for copy in (pickle.loads(pickle.dumps(splitter)), clone(splitter, safe=False)):
        assert repr(copy) == repr(splitter)
        assert parts_of(copy, TIMED) == expected
    assert repr(splitter).startswith(type(splitter).__name__ + "(")
    for name in signature(type(splitter)).parameters:
        assert f"{name}={getattr(splitter, name)!r}" in repr(splitter)


@pytest.mark.parametrize("kind", SEEDED)
def test_splits_are_seeded(kind):
    first, second, third = (parts_of(kind(random_state=seed), DATA) for seed in (0, 0, 1))
    assert first == second != third
    assert parts_of(kind(), DATA) != parts_of(kind(), DATA)
    state = np.random.RandomState(0)
    assert parts_of(kind(random_state=state), DATA) != parts_of(kind(random_state=state), DATA)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    list(kind().split(DATA))
    assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize("n", [1, 8])
def test_leave_last_out_takes_each_users_last(n):
    ((_, test),) = LeaveLastOut(n).split(TIMED)
    expected = []
    for user in range(N_USERS):
        own = np.flatnonzero(TIMED.user_ids == user)
        if len(own) > n:
            expected += own[np.argsort(TIMED.timestamps[own])[-n:]].tolist()
    assert test.tolist() == sorted(expected)
    assert (counts(test) == 0).any() == (n == 8)  # who has no more than 8 keeps all


def test_of_equal_times_the_later_row_is_the_later():
    data = Interactions([0, 1, 0, 0, 1], [0, 0, 1, 2, 1], timestamps=[4, 7, 4, 1, 6])
    assert parts_of(LeaveLastOut(), data) == [([0, 3, 4], [1, 2])]


def test_dates_are_times():
    dates = np.array(["2020-02-01", "2020-01-01", "2019-12-31", "2020-01-02"])
    expected = [([1, 2], [0, 3])]
    assert parts_of(LeaveLastOut(), Interactions([0, 0, 1, 1], [0, 1, 0, 1], timestamps=dates.astype("M8[D]"))) == expected
    assert parts_of(LeaveLastOut(time=1), np.column_stack([["a", "a", "b", "b"], dates])) == expected


def test_leave_random_out_takes_n_of_each_user_that_has_more():
    drawn = np.zeros(300, dtype=int)
    for _, test in LeaveRandomOut(2, n_splits=200, random_state=0).split(DATA):
        assert_array_equal(counts(test), np.where(counts(np.arange(300)) > 2, 2, 0))
        drawn[test] += 1
    own = DATA.user_ids == 0
    expected = 200 * 2 / own.sum()  # every observation alike
    assert np.abs(drawn[own] - expected).max() < 5 * np.sqrt(expected)


def test_users_of_one_observation_are_never_left_out():
    data = Interactions([0, 1, 1, 2], [0, 0, 1, 0], timestamps=[1, 2, 3, 4])
    for splitter in (LeaveLastOut(), LeaveRandomOut(n_splits=5)):
        assert all(data.user_ids[test].tolist() == [1] for _, test in splitter.split(data))
        with pytest.raises(ValueError, match=r"At least one user must have more than n=1 observations. None has."):
            list(splitter.split(data[[0, 1, 3]]))


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("n_splits", [2, 3, 7])
def test_user_folds_spread_every_user_evenly(n_splits, shuffle):
    tests = [test for _, test in UserKFold(n_splits, shuffle=shuffle, random_state=0).split(DATA)]
    assert_array_equal(np.sort(np.concatenate(tests)), np.arange(300))
    per_fold = np.array([counts(test) for test in tests])  # (n_splits, N_USERS)
    assert (np.ptp(per_fold, axis=0) <= 1).all()
    assert np.ptp([len(test) for test in tests]) <= 1


def test_user_folds_serve_cross_val_predict():
    predicted = cross_val_predict(BiasedMatrixFactorization(random_state=0, max_iter=3), DATA, DATA.ratings, cv=UserKFold(3))
    assert predicted.shape == (300,)
    assert np.isfinite(predicted).all()


def test_one_observation_of_a_user_may_be_in_any_fold():
    data = Interactions(np.arange(8), np.zeros(8, dtype=int))
    firsts = {tuple(next(UserKFold(2, random_state=seed).split(data))[1]) for seed in range(10)}
    assert len(firsts) > 5


@pytest.mark.parametrize(("test_size", "n_splits", "size"), [(0.1, 1, 30), (0.25, 3, 75), (40, 2, 40)])
def test_time_split_cuts_once_for_all(test_size, n_splits, size):
    rank = TIMED.timestamps  # a permutation of 0 .. 299
    for at, (train, test) in enumerate(TimeSplit(test_size, n_splits=n_splits).split(TIMED)):
        start = 300 - size * (n_splits - at)
        assert_array_equal(np.sort(rank[train]), np.arange(start))
        assert_array_equal(np.sort(rank[test]), np.arange(start, start + size))


def test_equal_times_are_on_one_side_of_the_cut():
    data = Interactions(np.zeros(6, dtype=int), np.arange(6), timestamps=[3.5, 1, 3.5, 2, 9, 3.5])
    assert parts_of(TimeSplit(2), data) == [([1, 3], [0, 2, 4, 5])]
    assert parts_of(TimeSplit(1, n_splits=2), data) == [([1, 3], [0, 2, 5]), ([0, 1, 2, 3, 5], [4])]
    with pytest.raises(ValueError, match="A part would be empty, because too"):
        list(TimeSplit(1, n_splits=3).split(data))
    with pytest.raises(ValueError, match="A part would be empty, because too"):
        list(TimeSplit(1).split(Interactions([0, 0, 0], [0, 1, 2], timestamps=[1, 1, 1])))


@pytest.mark.parametrize("shuffle", [True, False])
def test_held_out_users_are_whole(shuffle):
    tests = [test for _, test in HeldOutUsers(4, shuffle=shuffle, random_state=0).split(DATA)]
    assert_array_equal(np.sort(np.concatenate(tests)), np.arange(300))
    users = [np.unique(DATA.user_ids[test]) for test in tests]
    assert sorted(np.concatenate(users)) == list(range(N_USERS))  # each in one part only
    assert sorted(map(len, users)) == [7, 7, 8, 8]


def test_held_out_rows_of_a_matrix_are_users():
    matrix = as_form(DATA, "sparse")[0]
    tests = [test for _, test in HeldOutUsers(4, random_state=0).split(matrix)]
    assert_array_equal(np.sort(np.concatenate(tests)), np.arange(N_USERS))
    assert sorted(map(len, tests)) == [7, 7, 8, 8]
    expected = [test.tolist() for _, test in KFold(3).split(matrix)]
    dealt = [test.tolist() for _, test in HeldOutUsers(3, shuffle=False).split(matrix)]
    assert dealt == [list(range(at, N_USERS, 3)) for at in range(3)] != expected


@pytest.mark.parametrize("splitter", [LeaveLastOut(), TimeSplit(), ColdItemSplit(1, by_time=True), ColdUserSplit(1, by_time=True)])
def test_times_must_be_there(splitter):
    with pytest.raises(ValueError, match=r"X has no timestamps. Pass Interactions\(\.\.\., timestamps"):
        list(splitter.split(DATA))
    with pytest.raises(ValueError, match="time must be the position or name of the column"):
        list(splitter.split(as_form(DATA, "table")[0]))
    missing = Interactions([0, 1, 2], [0, 1, 2], timestamps=[1.0, np.nan, 2.0])
    with pytest.raises(ValueError, match=r"time must not be missing\. Row 1 has none"):
        list(splitter.split(missing))
    splitter = clone(splitter, safe=False)
    splitter.time = 5
    with pytest.raises(ValueError, match="time=5 is not a column position of X"):
        list(splitter.split(as_form(DATA, "table")[0]))


def test_rows_of_a_matrix_are_no_observations():
    matrix = as_form(DATA, "sparse")[0]
    for splitter in (LeaveRandomOut(), UserKFold(), ColdUserSplit(), ColdUserSplit(by_time=True)):
        with pytest.raises(ValueError, match=r"Use HeldOutUsers .* Interactions\.from_matrix"):
            list(splitter.split(matrix))
    with pytest.raises(ValueError, match=r"A split by time needs times, and a sparse matrix has none. Pass Interactions with"):
        list(TimeSplit().split(matrix))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UserKFold(1), "n_splits must be an int >= 2. Got 1"),
        (lambda: HeldOutUsers(1), "n_splits must be an int >= 2. Got 1"),
        (lambda: UserKFold(2.5), "n_splits must be an int >= 1. Got 2.5"),
        (lambda: LeaveLastOut(0), "n must be an int >= 1. Got 0"),
        (lambda: LeaveRandomOut(n_splits=0), "n_splits must be an int >= 1. Got 0"),
        (lambda: TimeSplit(0), "test_size must be a number between 0 and 1, both excluded, or an int >= 1. Got 0."),
        (lambda: TimeSplit(1.0), "test_size must be a number .* Got 1.0"),
        (lambda: TimeSplit(-0.1), "test_size must be a number .* Got -0.1"),
        (lambda: TimeSplit("half"), "test_size must be a number .* Got 'half'"),
        (lambda: TimeSplit(True), "test_size must be a number .* Got True"),
        (lambda: TimeSplit(n_splits=0), "n_splits must be an int >= 1. Got 0"),
        (lambda: ColdItemSplit(1), "n_splits must be an int >= 2. Got 1"),
        (lambda: ColdItemSplit(0, test_size=0.1), "n_splits must be an int >= 1. Got 0"),
        (
            lambda: ColdUserSplit(test_size=1.0),
            "test_size must be a number between 0 and 1, both excluded, or an int >= 1. Got 1.0.",
        ),
    ],
)
def test_splitters_refuse_what_they_cannot_do(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("splitter", "message"),
    [
        (UserKFold(301), "n_splits must be at most the number of observations, 300. Got 301."),
        (HeldOutUsers(31), "n_splits must be at most the number of users, 30. Got 31."),
        (TimeSplit(0.5, n_splits=2), "test_size=0.5 and n_splits=2 leave none of the 300 observations to train on. Lower one"),
        (TimeSplit(300), "test_size=300 and n_splits=1 leave none of the"),
        (LeaveLastOut(50), "At least one user must have more than n=50 observations. None has."),
        (ColdItemSplit(21), "n_splits=21 and test_size=None need more items than X has, which is 20. Lower one"),
        (ColdItemSplit(20, by_time=True), "n_splits=20 and test_size=None need more items than X has, which is 20."),
        (ColdItemSplit(1, test_size=20), "n_splits=1 and test_size=20 need more items than X has, which is 20."),
        (ColdUserSplit(3, test_size=11), "n_splits=3 and test_size=11 need more users than X has, which is 30."),
        (ColdUserSplit(3, test_size=10, by_time=True), "n_splits=3 and test_size=10 need more users than X has, which is 30."),
    ],
)
def test_too_little_data_is_refused(splitter, message):
    with pytest.raises(ValueError, match=message):
        list(splitter.split(TIMED))
