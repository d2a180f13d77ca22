"""Splits by cold items and users: whole, apart, drawn evenly or last in time, and inside scikit-learn's searches."""

import numpy as np
import pytest
from data import as_form, ids_in, planted
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_validate

from sk_torchmf import BiasedMatrixFactorization, Interactions
from sk_torchmf.model_selection import ColdItemSplit, ColdUserSplit

N_USERS, N_ITEMS = 30, 20
DATA, _ = planted(3, mean=3.0, n_users=N_USERS, n_items=N_ITEMS, n_ratings=300)
TIMES = np.random.default_rng(1).integers(0, 150, size=300)  # some observations share a time
TIMED = Interactions(DATA.user_ids, DATA.item_ids, DATA.ratings, TIMES, num_users=N_USERS, num_items=N_ITEMS)
IDS = {ColdItemSplit: DATA.item_ids, ColdUserSplit: DATA.user_ids}
SIZES = {ColdItemSplit: N_ITEMS, ColdUserSplit: N_USERS}
each_side = pytest.mark.parametrize("kind", [ColdItemSplit, ColdUserSplit])


@each_side
@pytest.mark.parametrize("n_splits", [2, 7])
def test_each_is_tested_once_and_never_trained_on_then(kind, n_splits):
    ids, seen = IDS[kind], []
    for train, test in kind(n_splits, random_state=0).split(DATA):
        assert not np.isin(ids[test], ids[train]).any()
        assert_array_equal(np.sort(np.append(train, test)), np.arange(300))
        seen.append(np.unique(ids[test]))
    assert_array_equal(np.sort(np.concatenate(seen)), np.arange(SIZES[kind]))
    assert np.ptp([len(part) for part in seen]) <= 1


@each_side
@pytest.mark.parametrize(("test_size", "n_splits", "size"), [(0.2, 1, 0.2), (0.1, 3, 0.1), (4, 2, 4), (0.5, 2, 0.5)])
def test_a_test_size_is_a_share_or_a_number_of_them(kind, test_size, n_splits, size):
    ids, seen = IDS[kind], []
    for train, test in kind(n_splits, test_size=test_size, random_state=0).split(DATA):
        assert not np.isin(ids[test], ids[train]).any()
        assert len(train) + len(test) == 300
        seen.append(np.unique(ids[test]))
    expected = size if size > 1 else size * SIZES[kind]
    assert [len(part) for part in seen] == [expected] * n_splits
    assert len(np.unique(np.concatenate(seen))) == expected * n_splits  # in one part only


@each_side
def test_all_are_drawn_alike(kind):
    drawn = np.zeros(SIZES[kind])
    for seed in range(200):
        ((_, test),) = kind(1, test_size=0.5, random_state=seed).split(DATA)
        drawn[np.unique(IDS[kind][test])] += 1
    assert np.abs(drawn - 100).max() < 5 * np.sqrt(200 / 4)  # binomial


@each_side
@pytest.mark.parametrize(("n_splits", "test_size"), [(1, 0.2), (3, 2), (2, None), (1, 1)])
def test_by_time_the_last_to_appear_are_tested_on_what_was_before(kind, n_splits, test_size):
    ids, n = IDS[kind], SIZES[kind]
    first = {one: min(time for own, time in zip(ids, TIMES, strict=True) if own == one) for one in range(n)}
    order = sorted(first.values())
    size = {0.2: n // 5, 2: 2, None: n / 3, 1: 1}[test_size]
    starts = [order[int(n - size * parts)] for parts in range(n_splits, 0, -1)]
    assert len(set(starts)) == n_splits
    for start, stop, (train, test) in zip(
        starts, [*starts[1:], np.inf], kind(n_splits, by_time=True, test_size=test_size).split(TIMED), strict=True
    ):
        assert train.tolist() == [row for row in range(300) if TIMES[row] < start]
        assert test.tolist() == [row for row in range(300) if start <= first[ids[row]] < stop]
        assert not np.isin(ids[test], ids[train]).any()


def test_what_appeared_at_the_time_of_the_cut_is_on_its_later_side():
    data = Interactions([0, 0, 0, 0, 0, 0], [0, 1, 2, 3, 0, 1], timestamps=[1, 4, 4, 6, 9, 2])
    parts = [tuple(part.tolist() for part in parts) for parts in ColdItemSplit(1, by_time=True, test_size=2).split(data)]
    assert parts == [([0, 5], [2, 3])]  # item 2 at 4, item 3 at 6; row 1, of item 1 at 4, is in neither part
    tied = Interactions([0, 0, 0, 0], [0, 1, 2, 3], timestamps=[1, 4, 4, 4])
    ((train, test),) = ColdItemSplit(1, by_time=True, test_size=1).split(tied)
    assert (train.tolist(), test.tolist()) == ([0], [1, 2, 3])
    for splitter, times in ((ColdItemSplit(2, by_time=True, test_size=1), [1, 4, 4, 4]), (ColdItemSplit(1, by_time=True), [5] * 4)):
        with pytest.raises(ValueError, match=r"empty, because too many items appear at the same time\. Raise test_size or lower"):
            list(splitter.split(Interactions([0, 0, 0, 0], [0, 1, 2, 3], timestamps=times)))


def test_positions_that_nobody_rated_are_not_dealt_out():
    gaps = Interactions(DATA.user_ids, 3 * DATA.item_ids, DATA.ratings, num_items=100)
    parts = [[part.tolist() for part in parts] for parts in ColdItemSplit(4, random_state=0).split(gaps)]
    assert parts == [[part.tolist() for part in parts] for parts in ColdItemSplit(4, random_state=0).split(DATA)]


@each_side
def test_without_observations_there_is_nothing_to_hold_out(kind):
    role = "items" if kind is ColdItemSplit else "users"
    for by_time in (True, False):
        with pytest.raises(ValueError, match=f"need more {role} than X has, which is 0"):
            list(kind(2, by_time=by_time).split(TIMED[:0]))


def test_rows_of_a_matrix_cannot_hold_items_out():
    with pytest.raises(
        ValueError, match=r"Rows of a sparse matrix are users.* To hold items out pass Interactions\.from_matrix\(X\)"
    ):
        list(ColdItemSplit().split(as_form(DATA, "sparse")[0]))


@pytest.mark.parametrize("by_time", [1, "yes", None])
def test_by_time_is_a_switch(by_time):
    with pytest.raises(TypeError, match=f"by_time must be True or False. Got {by_time!r}"):
        ColdItemSplit(by_time=by_time)


@each_side
@pytest.mark.parametrize("form", ["interactions", "labels"])
def test_a_search_holds_them_out(kind, form):
    X, y = as_form(DATA, form)
    y = DATA.ratings if y is None else y
    model = BiasedMatrixFactorization(random_state=0, max_iter=3)
    cv = kind(3, random_state=0)
    search = GridSearchCV(model, {"n_factors": [1, 4]}, cv=cv, error_score="raise").fit(X, y)
    expected = [clone(model).set_params(n_factors=4).fit(X[a], y[a]).score(X[b], y[b]) for a, b in cv.split(X)]
    assert search.cv_results_["mean_test_score"][1] == pytest.approx(np.mean(expected), rel=1e-6)
    found = cross_validate(model.set_params(n_factors=4), X, y, cv=cv, error_score="raise")
    assert found["test_score"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("form", ["interactions", "labels"])
def test_cold_items_are_predicted_by_the_user_alone(form):
    X = as_form(DATA, form)[0]
    predicted = cross_val_predict(
        BiasedMatrixFactorization(random_state=0, max_iter=3), X, DATA.ratings, cv=ColdItemSplit(3, random_state=0)
    )
    for _, test in ColdItemSplit(3, random_state=0).split(X):
        for user in range(N_USERS):
            own = predicted[test[DATA.user_ids[test] == user]]
            assert np.ptp(own) < 1e-5 if len(own) else True  # every cold item is the mean item


def test_a_frame_is_split_by_time_in_a_search():
    pandas = pytest.importorskip("pandas")
    X = pandas.DataFrame({"who": ids_in("labels", "user", DATA.user_ids), "what": DATA.item_ids, "when": TIMES})
    model = BiasedMatrixFactorization(user="who", item="what", random_state=0, max_iter=3)
    cv = ColdItemSplit(2, by_time=True, test_size=2, item="what", time="when")
    found = cross_validate(model, X, DATA.ratings, cv=cv, error_score="raise", return_estimator=True)
    for fitted, (train, test) in zip(found["estimator"], cv.split(X), strict=True):
        assert set(fitted.items_) == set(DATA.item_ids[train])
        assert not np.isin(DATA.item_ids[test], fitted.items_).any()
