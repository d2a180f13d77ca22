"""The estimators under scikit-learn's searches and cross-validation, in each input form, with the rank to be found known."""

import numpy as np
import pytest
from data import as_form, planted
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.ensemble import BaggingRegressor, VotingRegressor
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.metrics import r2_score
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    HalvingGridSearchCV,
    KFold,
    RandomizedSearchCV,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    learning_curve,
    train_test_split,
)

from sk_torchmf import BiasedMatrixFactorization, Interactions, MatrixFactorization

KINDS = [MatrixFactorization, BiasedMatrixFactorization]
RANK, NOISE = 3, 0.3
DATA, TRUTH = planted(RANK, n_users=120, n_items=80, n_ratings=4000, noise=NOISE)
CEILING = 1 - NOISE**2 / DATA.ratings.var()  # the R2 of the truth itself
GRID = {"n_factors": [1, RANK, 2 * RANK]}
FOLDS = KFold(3, shuffle=True, random_state=0)

every_kind = pytest.mark.parametrize("kind", KINDS)
every_form = pytest.mark.parametrize("form", ["table", "interactions", "sparse"])
by_observation = pytest.mark.parametrize("form", ["table", "interactions"])


def form_of(form, data=DATA):
    """``(X, y)`` as GridSearchCV wants them: ratings apart but for a sparse matrix."""
    X, _ = as_form(data, form)
    return X, None if form == "sparse" else data.ratings


@every_kind
@every_form
def test_grid_search_finds_the_planted_rank(kind, form):
    X, y = form_of(form)
    search = GridSearchCV(kind(random_state=0), GRID, cv=FOLDS, error_score="raise").fit(X, y)
    score = dict(zip(GRID["n_factors"], search.cv_results_["mean_test_score"], strict=True))
    assert score[RANK] > 0.98 * search.best_score_  # nothing to gain from factors that are not there
    assert score[1] < score[RANK] - 0.1
    assert CEILING - 0.05 < score[RANK] < CEILING + 0.01
    assert search.best_estimator_.n_users_ == DATA.num_users
    assert_array_equal(search.predict(X), search.best_estimator_.predict(X))
    if form == "sparse":
        assert search.score(X) == search.best_estimator_.score(X)
    else:
        assert search.score(X, y) == pytest.approx(r2_score(y, search.predict(X)))


@every_kind
@every_form
def test_searches_in_two_processes_find_the_same(kind, form):
    X, y = form_of(form)
    runs = [
        GridSearchCV(kind(max_iter=3, random_state=0), {"n_factors": [1, RANK]}, cv=FOLDS, n_jobs=n_jobs, error_score="raise").fit(
            X, y
        )
        for n_jobs in (1, 2)
    ]
    scores = [run.cv_results_["mean_test_score"] for run in runs]
    assert_allclose(scores[1], scores[0], rtol=1e-3)  # float32 sums depend on the number of threads
    assert_allclose(runs[1].predict(X), runs[0].predict(X), rtol=1e-2, atol=1e-3)


@every_kind
@every_form
def test_randomized_search_draws_from_the_grid(kind, form):
    X, y = form_of(form)
    search = RandomizedSearchCV(kind(random_state=0), GRID, n_iter=2, cv=FOLDS, random_state=0, error_score="raise").fit(X, y)
    tried = [parameters["n_factors"] for parameters in search.cv_results_["params"]]
    assert len(tried) == 2
    scores = [cross_val_score(kind(k, random_state=0), X, y, cv=FOLDS, error_score="raise").mean() for k in tried]
    assert_allclose(search.cv_results_["mean_test_score"], scores, rtol=1e-6)


@every_kind
@every_form
@pytest.mark.parametrize("solver", ["variational", "adam"])
def test_halving_search_spends_passes_on_the_better_half(kind, form, solver):
    X, y = form_of(form)
    search = HalvingGridSearchCV(
        kind(solver=solver, random_state=0),
        {"n_factors": [1, RANK]},
        resource="max_iter",
        min_resources=8,
        max_resources=16,
        factor=2,
        cv=FOLDS,
        error_score="raise",
        random_state=0,
    ).fit(X, y)
    assert search.n_resources_ == [8, 16]
    assert search.best_params_ == {"n_factors": RANK, "max_iter": 16}
    assert search.best_estimator_.n_iter_ == 16


@every_kind
@by_observation
def test_cross_validate_holds_out_observations(kind, form):
    X, y = form_of(form)
    estimator = kind(RANK, random_state=0)
    results = cross_validate(
        estimator, X, y, cv=FOLDS, scoring=["r2", "neg_root_mean_squared_error"], return_estimator=True, error_score="raise"
    )
    for fold, (train, test) in enumerate(FOLDS.split(np.zeros(len(DATA)))):
        by_hand = clone(estimator).fit(X[train], y[train])
        error = y[test] - by_hand.predict(X[test])
        assert results["test_neg_root_mean_squared_error"][fold] == pytest.approx(-np.sqrt(np.mean(error**2)), rel=1e-6)
        assert results["test_r2"][fold] == pytest.approx(by_hand.score(X[test], y[test]), rel=1e-6)
        assert results["estimator"][fold].seen_.nnz == len(train)
    assert results["test_neg_root_mean_squared_error"].mean() > -1.2 * NOISE


@every_kind
def test_a_container_brings_its_own_ratings_to_a_search(kind):
    searches = [GridSearchCV(kind(random_state=0), GRID, cv=FOLDS, error_score="raise").fit(DATA, y) for y in (None, DATA.ratings)]
    assert_array_equal(*(search.cv_results_["mean_test_score"] for search in searches))


@every_kind
def test_cross_validate_of_a_matrix_holds_out_users(kind):
    X, _ = form_of("sparse")
    estimator = kind(RANK, random_state=0)
    results = cross_validate(estimator, X, cv=3, error_score="raise")
    for fold, (train, test) in enumerate(KFold(3).split(X)):
        by_hand = clone(estimator).fit(X[train])
        assert by_hand.n_users_ == len(train)
        assert results["test_score"][fold] == pytest.approx(by_hand.score(X[test]), rel=1e-6)
    assert results["test_score"].min() > CEILING - 0.05


@every_kind
def test_string_scorers_want_a_y_that_a_matrix_has_not(kind):
    with pytest.raises(TypeError, match="y_true"):
        cross_validate(kind(random_state=0), form_of("sparse")[0], scoring="r2", error_score="raise")


@every_kind
@by_observation
def test_held_out_predictions_come_near_the_truth(kind, form):
    X, y = form_of(form)
    predicted = cross_val_predict(kind(RANK, random_state=0), X, y, cv=FOLDS)
    truth = TRUTH[DATA.user_ids, DATA.item_ids]
    assert predicted.shape == truth.shape
    assert np.sqrt(np.mean((predicted - truth) ** 2)) < NOISE  # the noise has been averaged out, not learned


@every_kind
def test_held_out_users_of_a_matrix_are_predicted_from_their_own_ratings(kind):
    X, _ = form_of("sparse")
    predicted = cross_val_predict(kind(RANK, random_state=0), X, cv=3)
    unseen = X.toarray() == 0
    assert predicted.shape == X.shape
    assert r2_score(TRUTH[unseen], predicted[unseen]) > 0.9


@every_kind
@every_form
def test_learning_curve_rises_with_the_data(kind, form):
    X, y = form_of(form)
    sizes, _, test = learning_curve(
        kind(RANK, random_state=0), X, y, train_sizes=[0.2, 1.0], cv=FOLDS, error_score="raise", shuffle=True, random_state=0
    )
    assert list(sizes) == [int(0.2 * 2 * X.shape[0] / 3), 2 * X.shape[0] // 3]
    assert test.mean(1)[1] > test.mean(1)[0] + 0.01
    assert test.mean(1)[1] > CEILING - 0.05


@every_form
def test_train_test_split_keeps_the_form(form):
    X, y = form_of(form)
    train, test = train_test_split(X, test_size=0.25, random_state=0)
    assert type(train) is type(test) is type(X)
    assert (train.shape[0], test.shape[0]) == (0.75 * X.shape[0], 0.25 * X.shape[0])
    assert train.shape[1] == X.shape[1]
    if form == "interactions":
        assert (train.num_users, train.num_items) == (DATA.num_users, DATA.num_items)
        assert sorted([*train.ratings, *test.ratings]) == sorted(y)


@every_kind
def test_ensembles_of_estimators(kind):
    train, test = train_test_split(DATA, random_state=0)
    (X, y), (X_test, y_test) = form_of("table", train), form_of("table", test)
    single = kind(RANK, random_state=0).fit(X, y).score(X_test, y_test)
    bag = BaggingRegressor(kind(RANK), n_estimators=5, random_state=0).fit(X, y)
    assert bag.score(X_test, y_test) > single - 0.05
    vote = VotingRegressor([("one", kind(RANK, random_state=0)), ("two", kind(RANK, random_state=1))]).fit(train, train.ratings)
    members = [member.predict(test) for member in vote.estimators_]
    assert_allclose(vote.predict(test), np.mean(members, axis=0), rtol=1e-12)


@every_kind
@by_observation
def test_groups_of_users_are_cold_users(kind, form):
    """By user, every tested user is unknown: what is left to predict with is the item's mean."""
    X, y = form_of(form)
    groups = DATA.user_ids
    cold = cross_val_score(kind(RANK, random_state=0), X, y, groups=groups, cv=GroupKFold(3), error_score="raise")
    warm = cross_val_score(kind(RANK, random_state=0), X, y, cv=FOLDS, error_score="raise")
    assert cold.max() < 0.2 < warm.min()


def test_a_container_keeps_its_sizes_and_weights_in_every_fold():
    weights = np.where(np.arange(len(DATA)) % 2 == 0, 1.0, 0.0)
    data = Interactions(
        DATA.user_ids, DATA.item_ids, DATA.ratings, weights=weights, num_users=DATA.num_users + 5, num_items=DATA.num_items
    )
    results = cross_validate(
        MatrixFactorization(RANK, random_state=0), data, data.ratings, cv=FOLDS, return_estimator=True, error_score="raise"
    )
    for estimator, (train, test) in zip(results["estimator"], FOLDS.split(np.zeros(len(data))), strict=True):
        counted = train[weights[train] > 0]
        by_hand = MatrixFactorization(RANK, random_state=0).fit(DATA[counted])
        assert estimator.n_users_ == DATA.num_users + 5
        assert_allclose(estimator.predict(data[test]), by_hand.predict(DATA[test]), rtol=1e-2, atol=1e-3)
