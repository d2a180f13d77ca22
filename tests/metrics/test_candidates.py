"""Rankings among some items, the cold ones above all: evaluate and its scorer against a loop over users."""

import pickle

import numpy as np
import pytest
import scipy.sparse as sp
from data import as_form, ids_in, planted
from plain_metrics import plain
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_validate

from sk_torchmf import BiasedMatrixFactorization, ImplicitMatrixFactorization, Interactions, TorchFactorization, nn
from sk_torchmf.metrics import METRICS, evaluate
from sk_torchmf.model_selection import ColdItemSplit, ranking_scorer

N_USERS, N_ITEMS = 30, 20
DATA, _ = planted(3, mean=3.0, n_users=N_USERS, n_items=N_ITEMS, n_ratings=300)
COLD = np.array([1, 4, 9, 12, 13, 19])  # nobody has rated them in training
IS_COLD = np.isin(DATA.item_ids, COLD)
HELD = IS_COLD | (np.arange(len(DATA)) % 5 == 0)  # and some of the warm ones
TRAIN, TEST = DATA[~HELD], DATA[HELD]
KS = [1, 3, 8]
MODELS = {
    "biased": BiasedMatrixFactorization(random_state=0, max_iter=3, dtype="float64"),
    "implicit": ImplicitMatrixFactorization(random_state=0, max_iter=3),
    "torch": TorchFactorization(nn.BiasedMF, module__n_factors=4, random_state=0, max_iter=3),
}


class Scored:
    """A recommender whose scores are known and distinct; its ids are text."""

    def __init__(self, counts):
        rng = np.random.default_rng(3)
        self.scores = rng.permutation(N_USERS * N_ITEMS).reshape(N_USERS, N_ITEMS).astype(float)
        self.seen = np.zeros((N_USERS, N_ITEMS), dtype=bool)
        self.seen[TRAIN.user_ids, TRAIN.item_ids] = True
        self.users_ = ids_in("labels", "user", np.arange(N_USERS))
        self.items_ = ids_in("labels", "item", np.arange(N_ITEMS))
        self.item_counts_ = counts
        self.user = self.form_ = None

    def recommend(self, users, k=10, *, exclude_seen=True, items=None):
        row = np.searchsorted(self.users_, users)
        scores = np.where(self.seen[row] & exclude_seen, -np.inf, self.scores[row])
        if items is not None:
            scores[:, ~np.isin(self.items_, items)] = -np.inf
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores, ids = np.take_along_axis(scores, order, axis=1), self.items_[order].astype(object)
        ids[np.isneginf(scores)] = None
        filler = ((0, 0), (0, k - ids.shape[1]))
        return np.pad(ids, filler, constant_values=None), np.pad(scores, filler, constant_values=-np.inf)


COUNTS = np.bincount(TRAIN.item_ids, minlength=N_ITEMS)
SCORED = Scored(COUNTS)


def plain_value(scores, seen, name, k, candidates, test=TEST, *, exclude_seen=True):
    """A metric among candidates, positions, by a loop over users; those with no test item among them are left out."""
    values = []
    for user in range(len(scores)):
        wanted = set(test.item_ids[test.user_ids == user]) & set(candidates)
        allowed = [item for item in candidates if not (exclude_seen and seen[user, item])]
        ranked = sorted(allowed, key=lambda item, user=user: (-scores[user, item], item))
        if wanted:
            values.append(plain(name, ranked, wanted, k))
    return np.nanmean(values)


@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("candidates", [COLD, np.arange(3, 15), [7], np.arange(N_ITEMS)], ids=["cold", "some", "one", "all"])
def test_a_table_among_candidates_is_that_of_a_loop(candidates, exclude_seen):
    names = [name for name in METRICS if name != "auc" or len(candidates) > 1]
    ids = ids_in("labels", "item", candidates)[::-1]  # in any order
    test = sp.csr_array(TEST.tocsr())
    table = evaluate(SCORED, test, names, KS, exclude_seen=exclude_seen, items=ids)
    for name in names:
        expected = [plain_value(SCORED.scores, SCORED.seen, name, k, candidates, exclude_seen=exclude_seen) for k in KS]
        assert list(table[name].values()) == pytest.approx(expected, rel=1e-12)
    if len(candidates) == N_ITEMS:
        assert table == evaluate(SCORED, test, names, KS, exclude_seen=exclude_seen)
    else:
        assert table != evaluate(SCORED, test, names, KS, exclude_seen=exclude_seen)
    assert evaluate(SCORED, test, names, KS, exclude_seen=exclude_seen, items=[*ids, ids[0]]) == table  # one twice


def test_the_cold_are_those_without_observations():
    test = sp.csr_array(TEST.tocsr())
    cold = evaluate(SCORED, test, list(METRICS), KS, items="cold")
    assert cold == evaluate(SCORED, test, list(METRICS), KS, items=ids_in("labels", "item", COLD))
    assert cold["recall"][3] == pytest.approx(plain_value(SCORED.scores, SCORED.seen, "recall", 3, COLD))


def test_test_items_among_the_candidates_may_be_explicit_zeros():
    test = sp.csr_array(TEST.tocsr())
    test.data[:] = 0
    assert evaluate(SCORED, test, "recall", 3, items="cold") == evaluate(
        SCORED, sp.csr_array(TEST.tocsr()), "recall", 3, items="cold"
    )


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("form", ["interactions", "sparse"])
def test_estimators_rank_cold_positions_as_their_predictions_do(name, form):
    model = clone(MODELS[name])
    X, y = as_form(TRAIN, form)
    model.fit(X, y)
    assert np.flatnonzero(model.item_counts_ == 0).tolist() == COLD.tolist()
    scores = np.array([model.predict(user) for user in range(N_USERS)])
    test = as_form(TEST, form)[0]
    for metric in ("recall", "ndcg"):
        expected = plain_value(scores, SCORED.seen, metric, 3, COLD)
        assert evaluate(model, test, metric, 3, items="cold")[metric][3] == pytest.approx(expected, rel=1e-9)
    assert ranking_scorer("recall", k=3, items="cold")(model, TEST) == evaluate(model, test, "recall", 3, items=COLD)["recall"][3]


@pytest.mark.parametrize("form", ["table", "labels"])
def test_candidates_of_a_table_are_its_ids(form):
    model = BiasedMatrixFactorization(random_state=0, max_iter=3, dtype="float64").fit(*as_form(TRAIN, form))
    candidates = [2, 3, 5, 8, 11]
    users, items = (ids_in(form, role, np.arange(n)) for role, n in (("user", N_USERS), ("item", N_ITEMS)))
    scores = model.predict(users[:, None], items)
    expected = plain_value(scores, SCORED.seen, "ndcg", 3, candidates)
    test, y = as_form(TEST, form)  # the cold ones are unknown here, and do not count
    ids = ids_in(form, "item", candidates)
    assert evaluate(model, test, "ndcg", 3, items=ids)["ndcg"][3] == pytest.approx(expected, rel=1e-9)
    assert ranking_scorer("ndcg", k=3, items=ids)(model, test, y) == pytest.approx(expected, rel=1e-9)
    with pytest.raises(ValueError, match=r"items\[0\] was not seen in fit"):
        evaluate(model, test, items=ids_in(form, "item", COLD))
    with pytest.raises(ValueError, match=r'items="cold" ranks .* all 14 have some\. Hold whole items out with ColdItemSplit'):
        evaluate(model, test, items="cold")


def test_users_and_candidates_go_together():
    test, some = sp.csr_array(TEST.tocsr()), [2, 3, 5]
    own = TEST[np.isin(TEST.user_ids, some)]
    expected = plain_value(SCORED.scores, SCORED.seen, "recall", 3, COLD, own)
    found = evaluate(SCORED, test, "recall", 3, items="cold", users=ids_in("labels", "user", [5, 3, 2, 2, 99]))
    assert found["recall"][3] == pytest.approx(expected, rel=1e-12)


def test_new_users_are_folded_in_and_ranked_among_candidates():
    model = clone(MODELS["biased"]).fit(TRAIN)
    known, test = (sp.csr_array(data.tocsr()) for data in (TRAIN, TEST))
    scores, seen = model.predict(known), known.toarray() != 0
    expected = plain_value(scores, seen, "recall", 2, COLD)
    assert evaluate(model, test, "recall", 2, users=known, items="cold")["recall"][2] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ("warm", r'items must be "cold" or an array of item ids\. Got \'warm\''),
        ([], "items must hold at least one candidate. Got none"),
        (["item 99"], r"items\[0\] was not seen in fit. Pass only items"),
        ([["i0001", "i0002"]], "items must be one id or a one-dimensional array of ids"),
        (["i0016"], "test must have an item for at least one of the users to evaluate, among the"),
    ],
)
def test_candidates_that_are_none_are_refused(items, message):
    test = TEST[TEST.item_ids != 16]
    with pytest.raises(ValueError, match=message):
        evaluate(SCORED, sp.csr_array(test.tocsr()), items=items)


def test_nobody_is_cold_where_all_have_observations_or_these_are_not_counted():
    test = sp.csr_array(TEST.tocsr())
    with pytest.raises(
        ValueError, match=r'items="cold" ranks the items without observations in fit, and all 20 have some. Hold whole'
    ):
        evaluate(Scored(COUNTS + 1), test, items="cold")
    uncounted = Scored(COUNTS)
    del uncounted.item_counts_
    with pytest.raises(ValueError, match=r'items="cold" needs an estimator with item_counts_, and Scored has none\. Pass the ids'):
        evaluate(uncounted, test, items="cold")


@pytest.mark.parametrize("name", MODELS)
def test_a_search_scores_the_items_that_each_fit_has_not_seen(name):
    model, cv = MODELS[name], ColdItemSplit(3, random_state=0)
    y = None if name == "implicit" else DATA.ratings
    found = cross_validate(
        model, DATA, y, cv=cv, scoring=ranking_scorer("recall", k=2, items="cold"), error_score="raise", return_estimator=True
    )
    seen = np.zeros((N_USERS, N_ITEMS), dtype=bool)  # no cold item of a user was
    for score, fitted, (_, test) in zip(found["test_score"], found["estimator"], cv.split(DATA), strict=True):
        cold = np.unique(DATA.item_ids[test])
        scores = np.array([fitted.predict(user) for user in range(N_USERS)])
        assert score == pytest.approx(plain_value(scores, seen, "recall", 2, cold, DATA[test]), rel=1e-9)


def test_a_grid_search_takes_it():
    search = GridSearchCV(
        MODELS["biased"],
        {"n_factors": [1, 4]},
        scoring=ranking_scorer("ndcg", k=2, items="cold", threshold=3.0),
        cv=ColdItemSplit(1, test_size=0.3, random_state=0),
        error_score="raise",
    )
    assert 0 < search.fit(DATA, DATA.ratings).best_score_ < 1


@pytest.mark.parametrize("name", MODELS)
def test_epochs_are_chosen_by_the_cold_items_of_a_validation_set(name):
    scorer = ranking_scorer("recall", k=2, items="cold")
    model = clone(MODELS[name]).set_params(early_stopping=True, scoring=scorer)
    model.fit(TRAIN, X_val=TEST)
    assert model.best_score_ == pytest.approx(scorer(model, TEST), rel=1e-9)
    with pytest.raises(ValueError, match='items="cold" ranks the items without observations in fit, and all'):
        model.fit(DATA)  # a slice of it leaves each item an observation


class Recorder:
    """Keeps the rows that a scorer has folded in."""

    def __init__(self, model):
        self.model, self.users_, self.items_, self.item_counts_ = model, model.users_, model.items_, model.item_counts_

    def recommend(self, users, k=10, **options):
        self.known = users
        return self.model.recommend(users, k, **options)


@pytest.mark.parametrize("items", ["cold", np.arange(0, N_ITEMS, 2)])
def test_rows_of_a_matrix_are_scored_by_their_candidates_among_the_items_held_out(items):
    X = sp.csr_array(DATA.tocsr())[:8]
    assert np.diff(X.indptr).min() >= 8  # some items to fold in, and some candidates among the others
    recorder = Recorder(clone(MODELS["biased"]).fit(TRAIN))
    score = ranking_scorer("recall", k=2, holdout=0.5, items=items)(recorder, X)
    known = recorder.known
    assert known.shape == X.shape  # each row has a candidate among the items held out
    held = Interactions.from_matrix(sp.csr_array(X - known))
    candidates = COLD if isinstance(items, str) else items
    expected = plain_value(recorder.model.predict(known), known.toarray() != 0, "recall", 2, candidates, held[held.ratings != 0])
    assert score == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    "items", ["cold", [1, 4, 9], np.array([1, 4, 9], dtype=np.int32), (1.5, "a"), np.array(["2020-01-02"], dtype="M8[ns]")], ids=str
)
def test_scorers_with_candidates_can_be_pickled_and_cloned(items):
    scorer = ranking_scorer("recall", k=3, items=items)
    for copy in (pickle.loads(pickle.dumps(scorer)), clone(scorer, safe=False)):
        assert copy == scorer
        assert hash(copy) == hash(scorer)
    assert scorer != ranking_scorer("recall", k=3)
    assert scorer != ranking_scorer("recall", k=3, items=[1, 4])


def test_scorers_with_the_same_candidates_are_equal():
    scorer = ranking_scorer(items=np.array([1, 4, 9], dtype=np.int32))
    assert scorer == ranking_scorer(items=[1, 4, 9]) == ranking_scorer(items=(1, 4, 9))
    assert "items=(1, 4, 9)" in repr(scorer)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_column_of_candidates_is_taken(library):
    frames = pytest.importorskip(library)
    assert ranking_scorer(items=frames.Series([4, 1])) == ranking_scorer(items=[4, 1])
    assert ranking_scorer(items=frames.Series(["b", "a"])) == ranking_scorer(items=["b", "a"])


@pytest.mark.parametrize(
    ("items", "kind", "message"),
    [
        ("warm", ValueError, 'items must be "cold" or an array of item ids'),
        ([[1, 2]], ValueError, r"items must be a one-dimensional array of item ids\. Got shape \(1, 2\)"),
        (3, ValueError, r"items must be a one-dimensional array of item ids\. Got shape \(\)"),
        ({1, 2}, TypeError, "item ids must be a list or an array"),
    ],
)
def test_scorers_refuse_candidates_that_are_none(items, kind, message):
    with pytest.raises(kind, match=message):
        ranking_scorer(items=items)


def test_an_id_may_be_the_word_itself():
    data = Interactions([0, 0, 1, 1, 2], [0, 1, 1, 2, 2], [5.0, 1.0, 4.0, 2.0, 3.0])
    table = np.column_stack([data.user_ids.astype(str), np.array(["cold", "mild", "warm"])[data.item_ids]])
    model = BiasedMatrixFactorization(random_state=0, max_iter=2).fit(table, data.ratings)
    test = np.array([["2", "cold"], ["2", "mild"]])
    assert evaluate(model, test, "precision", 1, items=["cold"]) == {"precision": {1: 1.0}}
    assert ranking_scorer("precision", k=2, items=["cold"])(model, test) == 0.5
