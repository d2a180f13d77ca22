"""Ranking scorers: the table's numbers, inside scikit-learn's searches."""

import pickle
import sys

import numpy as np
import pytest
import scipy.sparse as sp
from data import as_form, planted
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

from sk_torchmf import BiasedMatrixFactorization, Interactions
from sk_torchmf.metrics import METRICS, evaluate
from sk_torchmf.metrics._scorer import r2
from sk_torchmf.model_selection import HeldOutUsers, LeaveLastOut, LeaveRandomOut, TimeSplit, UserKFold, ranking_scorer

N_USERS, N_ITEMS = 30, 20
DATA, _ = planted(3, mean=3.0, n_users=N_USERS, n_items=N_ITEMS, n_ratings=300)
TIMED = Interactions(
    DATA.user_ids, DATA.item_ids, DATA.ratings, np.random.default_rng(0).permutation(300), num_users=N_USERS, num_items=N_ITEMS
)
TRAIN, TEST = DATA[:200], DATA[200:]
MODEL = BiasedMatrixFactorization(random_state=0, max_iter=3).fit(TRAIN)
by_observation = pytest.mark.parametrize("form", ["table", "labels", "interactions"])


@pytest.mark.parametrize("name", METRICS)
def test_the_score_is_that_of_the_table(name):
    score = ranking_scorer(name, k=4)(MODEL, TEST)
    assert isinstance(score, float)
    assert score == evaluate(MODEL, TEST, name, 4)[name][4]
    free = ranking_scorer(name, k=4, exclude_seen=False)(MODEL, TEST, TEST.ratings)
    assert free == evaluate(MODEL, TEST, name, 4, exclude_seen=False)[name][4] != score


@by_observation
def test_ratings_below_the_threshold_are_no_test_items(form):
    model = BiasedMatrixFactorization(random_state=0, max_iter=3).fit(*as_form(TRAIN, form))
    X, y = as_form(TEST, form)
    y = TEST.ratings if y is None else y
    threshold = np.sort(TEST.ratings)[50]  # at least: that one counts
    liked = as_form(TEST[TEST.ratings >= threshold], form)[0]
    score = ranking_scorer("recall", k=4, threshold=threshold)(model, X, y)
    assert score == evaluate(model, liked, "recall", 4)["recall"][4] != ranking_scorer("recall", k=4)(model, X, y)


def test_a_containers_ratings_serve_where_there_is_no_y():
    scorer = ranking_scorer(k=4, threshold=3.0)
    assert scorer(MODEL, TEST) == scorer(MODEL, TEST, TEST.ratings) != scorer(MODEL, TEST, TEST.ratings[::-1])
    with pytest.raises(ValueError, match=r"threshold=3\.0 needs the ratings"):
        scorer(MODEL, Interactions(TEST.user_ids, TEST.item_ids))
    with pytest.raises(ValueError, match="test has no items"):
        ranking_scorer(threshold=99)(MODEL, TEST)


def test_frames_are_scored_by_their_columns():
    pandas = pytest.importorskip("pandas")
    train, test = (pandas.DataFrame({"u": data.user_ids, "i": data.item_ids}) for data in (TRAIN, TEST))
    model = BiasedMatrixFactorization(user="u", item="i", random_state=0, max_iter=3).fit(train, TRAIN.ratings)
    scorer = ranking_scorer(k=4, threshold=3.0)
    assert scorer(model, test, pandas.Series(TEST.ratings)) == scorer(MODEL, TEST)


class Recorder:
    """Keeps what a scorer asks of an estimator of new users."""

    def __init__(self, model):
        self.model, self.users_, self.items_ = model, model.users_, model.items_

    def recommend(self, users, k=10, *, exclude_seen=True):
        self.known, self.k, self.exclude_seen = users, k, exclude_seen
        return self.model.recommend(users, k=k, exclude_seen=exclude_seen)


def new_users():
    """Rows of 0 to 12 items, with an explicit zero among them."""
    rng = np.random.default_rng(5)
    rows = [np.sort(rng.permutation(N_ITEMS)[:n]) for n in range(13)]
    ratings = rng.integers(0, 6, size=sum(map(len, rows))).astype(float)
    assert (ratings == 0).any()
    return sp.csr_array((ratings, np.concatenate(rows), np.cumsum([0, *map(len, rows)])), shape=(13, N_ITEMS))


@pytest.mark.parametrize("holdout", [0.01, 0.2, 0.5, 0.99])
def test_a_part_of_each_new_user_is_folded_in_and_the_rest_scored(holdout):
    X, recorder = new_users(), Recorder(MODEL)
    score = ranking_scorer("recall", k=6, holdout=holdout)(recorder, X)
    n = np.arange(2, 13)  # rows with fewer than two items are not scored
    held = np.clip(np.rint(holdout * n), 1, n - 1)
    assert_array_equal(np.diff(recorder.known.indptr), n - held)
    assert recorder.known.has_sorted_indices
    known = np.zeros((11, N_ITEMS), dtype=bool)
    known[np.repeat(np.arange(11), np.diff(recorder.known.indptr)), recorder.known.indices] = True
    stored = np.zeros((11, N_ITEMS), dtype=bool)
    stored[np.repeat(np.arange(11), n), X.indices[1:]] = True
    assert not (known & ~stored).any()
    assert_array_equal(recorder.known.toarray(), np.where(known, X.toarray()[2:], 0))
    ranked = MODEL.recommend(recorder.known, k=6)[0]
    expected = [np.isin(np.flatnonzero(test), items).mean() for test, items in zip(stored & ~known, ranked, strict=True)]
    assert score == pytest.approx(np.mean(expected))


def test_the_part_held_out_is_seeded():
    X = new_users()
    scores = [ranking_scorer(k=6, random_state=seed)(MODEL, X) for seed in (0, 0, 1, 2)]
    assert scores[0] == scores[1]
    assert len(set(scores)) == 3


def test_new_users_dislikes_are_folded_in_but_no_test_items():
    X, recorder = new_users(), Recorder(MODEL)
    ranking_scorer("recall", k=6, holdout=0.5)(recorder, X)
    known = recorder.known.toarray()
    ranking_scorer("recall", k=6, holdout=0.5, threshold=3)(recorder, X)
    liked = recorder.known.toarray()
    assert {tuple(row) for row in liked} <= {tuple(row) for row in known}  # rows that kept a test item, unchanged
    assert ((liked > 0) & (liked < 3)).any()
    assert X.data.max() == 5
    assert ranking_scorer("recall", k=N_ITEMS, holdout=0.5, threshold=5)(MODEL, X) == 1.0
    with pytest.raises(ValueError, match="test has no items"):
        ranking_scorer(holdout=0.5, threshold=6)(MODEL, X)


def test_rows_too_short_to_divide_are_refused():
    with pytest.raises(ValueError, match="test has no items"):
        ranking_scorer()(MODEL, new_users()[:2])


@pytest.mark.parametrize("cv", [UserKFold(3, random_state=0), LeaveRandomOut(2, random_state=0), LeaveLastOut(2), TimeSplit(0.3)])
def test_grid_search_ranks_by_the_score(cv):
    model, grid = BiasedMatrixFactorization(random_state=0, max_iter=3), {"n_factors": [1, 4]}
    scorer = ranking_scorer("ndcg", k=5)
    search = GridSearchCV(model, grid, scoring=scorer, cv=cv, error_score="raise").fit(TIMED, TIMED.ratings)
    for n_factors, found in zip([1, 4], search.cv_results_["mean_test_score"], strict=True):
        scores = []
        for train, test in cv.split(TIMED):
            fitted = clone(model).set_params(n_factors=n_factors).fit(TIMED[train])
            scores.append(evaluate(fitted, TIMED[test], "ndcg", 5)["ndcg"][5])
        assert found == pytest.approx(np.mean(scores), rel=1e-6)
    assert search.score(TIMED) == scorer(search.best_estimator_, TIMED) == scorer(search, TIMED) == 0.0  # all of it is seen


def test_grid_search_on_a_table_and_on_a_matrix():
    model, grid = BiasedMatrixFactorization(random_state=0, max_iter=3), {"n_factors": [1, 4]}
    X, y = as_form(DATA, "labels")
    search = GridSearchCV(
        model, grid, scoring=ranking_scorer("recall", k=5, threshold=3.0), cv=UserKFold(3, random_state=0), error_score="raise"
    )
    assert 0 < search.fit(X, y).best_score_ < 1
    matrix = as_form(DATA, "sparse")[0]
    search = GridSearchCV(
        model, grid, scoring=ranking_scorer("recall", k=5), cv=HeldOutUsers(3, random_state=0), error_score="raise"
    )
    assert 0 < search.fit(matrix).best_score_ < 1


def test_several_scorers_in_one_validation():
    scoring = {"ndcg": ranking_scorer("ndcg", k=5), "hits": ranking_scorer("hit_rate", k=3), "r2": "r2"}
    model = BiasedMatrixFactorization(random_state=0, max_iter=3)
    cv = UserKFold(3, random_state=0)
    found = cross_validate(model, DATA, DATA.ratings, scoring=scoring, cv=cv, error_score="raise")
    expected = [
        evaluate(clone(model).fit(DATA[train]), DATA[test], ["hit_rate"], 3)["hit_rate"][3] for train, test in cv.split(DATA)
    ]
    assert found["test_hits"] == pytest.approx(expected)
    assert set(found) >= {"test_ndcg", "test_r2"}


def test_the_last_step_of_a_pipeline_is_scored():
    X, y = as_form(DATA, "labels")
    encode = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=9999)
    model = BiasedMatrixFactorization(random_state=0, max_iter=3)
    whole = make_pipeline(encode, model).fit(X[:200], y[:200])
    scorer = ranking_scorer(k=5, threshold=3.0)
    direct = clone(model).fit(X[:200], y[:200])
    assert scorer(whole, X[200:], y[200:]) == pytest.approx(scorer(direct, X[200:], y[200:]), rel=1e-6)
    assert scorer(make_pipeline(model).fit(X[:200], y[:200]), X[200:], y[200:]) == scorer(direct, X[200:], y[200:])


def test_scorers_can_be_pickled_and_cloned():
    scorer = ranking_scorer("recall", k=5, threshold=3.0, holdout=0.3, random_state=4)
    for copy in (pickle.loads(pickle.dumps(scorer)), clone(scorer, safe=False)):
        assert copy == scorer
        assert copy(MODEL, TEST) == scorer(MODEL, TEST)
    assert scorer != ranking_scorer("recall", k=5)
    assert "metric='recall', k=5, threshold=3.0" in repr(scorer)
    search = clone(GridSearchCV(MODEL, {"n_factors": [1]}, scoring=scorer, cv=UserKFold(3)))
    assert search.scoring == scorer


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"metric": "hitrate"}, r"metric must be among ndcg, .* Got 'hitrate'\. Did you mean \"hit_rate\"\?"),
        ({"k": 0}, "k must be an int >= 1. Got 0"),
        ({"k": [5, 10]}, r"k must be an int >= 1. Got \[5, 10\]"),
        ({"holdout": 0}, "holdout must be a number between 0 and 1, both excluded. Got 0"),
        ({"holdout": 1.0}, "holdout must be a number between 0 and 1, both excluded. Got 1.0"),
    ],
)
def test_scorers_refuse_what_they_cannot_do(parameters, message):
    with pytest.raises(ValueError, match=message):
        ranking_scorer(**parameters)


@pytest.mark.parametrize("weight", [None, np.array([1.0, 2.0, 0.0, 0.5])])
@pytest.mark.parametrize("rating", [np.array([1.0, 4.0, 2.0, 3.0]), np.ones(4)])
@pytest.mark.parametrize("predicted", [np.array([1.5, 3.0, 9.0, 3.0]), np.ones(4)])
def test_r2_is_that_of_scikit_learn(rating, predicted, weight):
    assert r2(rating, predicted, weight) == pytest.approx(r2_score(rating, predicted, sample_weight=weight), rel=1e-14)


def test_r2_of_what_it_is_not_defined_for():
    with pytest.warns(UndefinedMetricWarning, match="at least two ratings"):
        assert np.isnan(r2([1.0], [2.0]))
    with pytest.raises(ValueError, match="Of the predictions 1 are nan or infinite"):
        r2([1.0, 2.0], [np.nan, 2.0])
    assert r2([1.0, 2.0], [1e200, 2.0]) == -sys.float_info.max
