"""The table of metrics of an estimator: a loop over users, in every form, and the edges."""

import numpy as np
import pytest
import scipy.sparse as sp
from data import FORMS, as_form, ids_in, planted
from numpy.testing import assert_allclose, assert_array_equal
from plain_metrics import plain
from sklearn.exceptions import NotFittedError

from sk_torchmf import BiasedMatrixFactorization, Interactions
from sk_torchmf.metrics import METRICS, _evaluate, evaluate

AT_K = [name for name in METRICS if name != "auc"]
KS = [1, 3, 8]
N_USERS, N_ITEMS = 30, 20
DATA, _ = planted(3, mean=3.0, n_users=N_USERS, n_items=N_ITEMS, n_ratings=300)
HELD = np.arange(len(DATA)) % 4 == 0
TRAIN, TEST = DATA[~HELD], DATA[HELD]
every_form = pytest.mark.parametrize("form", FORMS)


class Scored:
    """A recommender whose scores are known: what any object needs to be evaluated."""

    def __init__(self, scores, users=None, items=None, seen=None):
        self.scores, self.seen = scores, np.zeros(scores.shape, dtype=bool) if seen is None else seen
        self.users_ = np.arange(len(scores)) if users is None else np.asarray(users)
        self.items_ = np.arange(scores.shape[1]) if items is None else np.asarray(items)
        self.asked = []

    def recommend(self, users, k=10, *, exclude_seen=True):
        self.asked.append((len(users), k))
        row = np.searchsorted(self.users_, users)
        scores = np.where(self.seen[row] & exclude_seen, -np.inf, self.scores[row])
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores = np.take_along_axis(scores, order, axis=1)
        ids = np.where(np.isneginf(scores), -1, self.items_[order])
        filler = ((0, 0), (0, k - ids.shape[1]))
        return np.pad(ids, filler, constant_values=-1), np.pad(scores, filler, constant_values=-np.inf)


def scored(seen=None):
    rng = np.random.default_rng(3)
    return Scored(rng.normal(size=(N_USERS, N_ITEMS)).round(1), seen=seen)  # with ties


def plain_table(recommender, test, ks, *, exclude_seen=True):
    """The table of ``evaluate`` by a loop over users; test is a dict of sets of row numbers."""
    table = {}
    for name in METRICS:
        for k in ks:
            values = []
            for user, items in test.items():
                allowed = [i for i in range(N_ITEMS) if not (exclude_seen and recommender.seen[user, i])]
                ranked = sorted(allowed, key=lambda item, user=user: (-recommender.scores[user, item], item))
                values.append(plain(name, ranked, items, k))
            table.setdefault(name, {})[k] = np.nanmean(values)
    return table


def as_sets(data):
    return {user: set(data.item_ids[data.user_ids == user]) for user in np.unique(data.user_ids)}


def check_tables(found, expected):
    assert found.keys() == expected.keys()
    for name, column in expected.items():
        assert found[name].keys() == column.keys()
        assert_allclose(list(found[name].values()), list(column.values()), rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_the_table_is_that_of_a_loop_over_users(exclude_seen):
    seen = TRAIN.tocsr().toarray() != 0
    seen[0, TEST.item_ids[TEST.user_ids == 0][0]] = True  # a test item that is masked
    recommender = scored(seen)
    expected = plain_table(recommender, as_sets(TEST), KS, exclude_seen=exclude_seen)
    check_tables(evaluate(recommender, TEST.tocsr(), list(METRICS), KS, exclude_seen=exclude_seen), expected)


@every_form
def test_every_form_gives_the_same_table(form):
    model = BiasedMatrixFactorization(random_state=0, dtype="float64", max_iter=3).fit(*as_form(TRAIN, form))
    reference = Scored(
        model.predict(*(ids_in(form, *axis) for axis in (("user", np.arange(N_USERS)[:, None]), ("item", np.arange(N_ITEMS))))),
        seen=TRAIN.tocsr().toarray() != 0,
    )
    expected = plain_table(reference, as_sets(TEST), KS)
    check_tables(evaluate(model, as_form(TEST, form)[0], list(METRICS), KS), expected)
    repeated = TEST[np.append(np.arange(len(TEST)), [0, 0, 5])]
    if form != "sparse":
        check_tables(evaluate(model, as_form(repeated, form)[0], list(METRICS), KS), expected)  # a pair counts once


@pytest.mark.parametrize("frame", ["pandas", "polars"])
def test_frames_are_read_by_their_columns(frame):
    library = pytest.importorskip(frame)
    train, test = (
        library.DataFrame({"day": np.zeros(len(data)), "film": ids_in("labels", "item", data.item_ids), "who": data.user_ids})
        for data in (TRAIN, TEST)
    )
    model = BiasedMatrixFactorization(user="who", item="film", random_state=0).fit(train, TRAIN.ratings)
    plain_model = BiasedMatrixFactorization(random_state=0).fit(TRAIN)
    check_tables(evaluate(model, test, "ndcg", KS), evaluate(plain_model, TEST, "ndcg", KS))


def test_the_table_does_not_depend_on_the_block_size(monkeypatch):
    recommender = scored(TRAIN.tocsr().toarray() != 0)
    whole = evaluate(recommender, TEST, list(METRICS), KS)
    monkeypatch.setattr(_evaluate, "BLOCK", 3 * N_ITEMS)
    assert evaluate(recommender, TEST, list(METRICS), KS) == whole
    assert max(recommender.asked[1:]) == (3, N_ITEMS)
    monkeypatch.setattr(_evaluate, "BLOCK", 1)
    assert evaluate(recommender, TEST, list(METRICS), KS) == whole


def test_the_table_does_not_depend_on_the_order_of_users():
    recommender = scored()
    order = np.random.default_rng(4).permutation(N_USERS)
    moved = Scored(recommender.scores[order])
    first = evaluate(recommender, TEST.tocsr(), list(METRICS), KS)
    check_tables(evaluate(moved, TEST.tocsr()[order], list(METRICS), KS), first)


def test_only_auc_ranks_all_items():
    recommender = scored()
    evaluate(recommender, TEST, ["ndcg", "recall"], [2, 5])
    evaluate(recommender, TEST, "auc", [2, 5])
    n_tested = len(np.unique(TEST.user_ids))
    assert recommender.asked == [(n_tested, 5), (n_tested, N_ITEMS)]


def test_pandas_shows_a_table():
    pandas = pytest.importorskip("pandas")
    table = evaluate(scored(), TEST, ["ndcg", "auc"], KS)
    frame = pandas.DataFrame(table)
    assert list(frame.index) == KS
    assert list(frame.columns) == ["ndcg", "auc"]
    assert frame.loc[3, "ndcg"] == table["ndcg"][3]
    assert frame["auc"].nunique() == 1


def test_one_metric_and_one_k_will_do():
    table = evaluate(scored(), TEST, "ndcg", 5)
    assert table == {"ndcg": {5: evaluate(scored(), TEST, ["recall", "ndcg"], [5, 10])["ndcg"][5]}}
    assert list(evaluate(scored(), TEST)) == ["ndcg", "precision", "recall"]


def test_a_test_item_seen_in_training_counts_as_missed():
    recommender = Scored(np.array([[3.0, 2.0, 1.0]]), seen=np.array([[True, False, False]]))
    test = Interactions([0, 0], [0, 1], num_items=3)
    masked = evaluate(recommender, test, ["recall", "auc"], 1)
    assert masked == {"recall": {1: 1 / 2}, "auc": {1: 1.0}}  # item 1 before item 2; item 0 can be had no more
    assert evaluate(recommender, test, "recall", 2, exclude_seen=False) == {"recall": {2: 1.0}}


@pytest.mark.parametrize("form", ["table", "labels", "interactions"])
def test_unknown_items_are_missed_but_counted(form):
    model = BiasedMatrixFactorization(random_state=0, max_iter=2).fit(*as_form(TRAIN, form))
    row = TEST[TEST.user_ids == 3]
    n = len(row)
    assert n > 1
    known = evaluate(model, as_form(row, form)[0], ["recall", "precision", "auc"], N_ITEMS)
    wider = Interactions(
        np.append(row.user_ids, [3, 3, 3]), np.append(row.item_ids, [777, 888, 777]), np.ones(n + 3)
    )  # two more items, one of them twice
    found = evaluate(model, as_form(wider, form)[0], ["recall", "precision", "auc"], N_ITEMS)
    assert known["recall"][N_ITEMS] == 1.0
    assert found["recall"][N_ITEMS] == pytest.approx(n / (n + 2))
    assert found["precision"] == known["precision"]
    assert found["auc"] == known["auc"]


@pytest.mark.parametrize("form", ["table", "labels", "interactions"])
def test_unknown_users_get_what_recommend_gives_them(form):
    model = BiasedMatrixFactorization(random_state=0, max_iter=2).fit(*as_form(TRAIN, form))
    strangers = Interactions([500, 500, 600], [0, 1, 2], np.ones(3), num_items=N_ITEMS)
    ranked = [list(row) for row in model.recommend(ids_in(form, "user", [500, 600]), k=5)[0]]
    tests = [ids_in(form, "item", items) for items in ([0, 1], [2])]
    hits = [np.isin(items, row).mean() for row, items in zip(ranked, tests, strict=True)]
    assert evaluate(model, as_form(strangers, form)[0], "recall", 5)["recall"][5] == pytest.approx(np.mean(hits))
    both = Interactions(np.append(TEST.user_ids, [500]), np.append(TEST.item_ids, [0]), np.ones(len(TEST) + 1), num_items=N_ITEMS)
    mean = evaluate(model, as_form(TEST, form)[0], "hit_rate", N_ITEMS)
    assert mean == evaluate(model, as_form(both, form)[0], "hit_rate", N_ITEMS) == {"hit_rate": {N_ITEMS: 1.0}}
    with pytest.raises(ValueError, match="was not seen in fit"):
        evaluate(model.set_params(handle_unknown="error"), as_form(strangers, form)[0])


def test_an_id_of_minus_one_is_an_id():
    model = BiasedMatrixFactorization(random_state=0, max_iter=2).fit([[0, -1], [0, 5], [1, 5]], [1.0, 5.0, 4.0])
    assert_array_equal(model.recommend([1], k=2)[0], [[-1, None]])  # the item, then the end
    assert evaluate(model, [[1, -1]], ["hit_rate", "precision"], 2) == {"hit_rate": {2: 1.0}, "precision": {2: 0.5}}


def test_users_restrict_the_table():
    recommender = scored()
    table = evaluate(recommender, TEST, list(METRICS), KS, users=[4, 2, 2, 999])
    sets = as_sets(TEST)
    check_tables(table, plain_table(recommender, {user: sets[user] for user in (2, 4)}, KS))
    labels = BiasedMatrixFactorization(random_state=0, max_iter=2).fit(*as_form(TRAIN, "labels"))
    some = evaluate(labels, as_form(TEST, "labels")[0], "ndcg", 5, users=ids_in("labels", "user", [2, 4]))
    part = TEST[np.isin(TEST.user_ids, [2, 4])]
    assert some == evaluate(labels, as_form(part, "labels")[0], "ndcg", 5)


def test_new_users_are_folded_in():
    model = BiasedMatrixFactorization(random_state=0).fit(TRAIN)
    known, test = (sp.csr_array(data.tocsr()) for data in (TRAIN, TEST))
    test = sp.csr_array(sp.vstack([test[:5], sp.csr_array((1, N_ITEMS))]))
    known = known[:6]
    ranked = np.asarray(model.recommend(known, k=4)[0])[:5]
    expected = [plain("ndcg", items, test[[row]].indices, 4) for row, items in enumerate(ranked)]
    table = evaluate(model, test, "ndcg", 4, users=known)
    assert table["ndcg"][4] == pytest.approx(np.mean(expected))
    assert_array_equal(model.recommend(known, k=N_ITEMS)[0] >= 0, np.arange(N_ITEMS) < N_ITEMS - np.diff(known.indptr)[:, None])
    seen = evaluate(model, known, "recall", 4, users=known)  # all masked
    assert seen["recall"][4] == 0
    assert evaluate(model, known, "recall", N_ITEMS, users=known, exclude_seen=False)["recall"][N_ITEMS] == 1


@pytest.mark.parametrize("test", [TEST, sp.csr_array((3, N_ITEMS)), sp.csr_array((6, N_ITEMS + 1))])
def test_new_users_and_their_test_items_are_matrices_of_one_shape(test):
    with pytest.raises(ValueError, match=r"must be sparse matrices of one shape, \(n_rows, 20\)"):
        evaluate(scored(), test, users=sp.csr_array((6, N_ITEMS)))


def test_a_user_with_every_item_seen_has_zeros():
    full = Interactions(
        np.append(np.zeros(3, dtype=int), [1, 1]), [0, 1, 2, 0, 1], np.array([1.0, 2.0, 3.0, 1.0, 2.0])
    )  # user 0 has all, user 1 lacks item 2
    model = BiasedMatrixFactorization(random_state=0, max_iter=2).fit(full)
    assert evaluate(model, Interactions([0], [1], num_items=3), AT_K, 2) == {name: {2: 0.0} for name in AT_K}
    both = evaluate(model, Interactions([0, 1], [1, 2], num_items=3), ["hit_rate", "auc"], 2)
    assert both["hit_rate"][2] == 1 / 2
    assert np.isnan(both["auc"][2])  # one list is empty, the other has nothing but the test item


def test_k_beyond_the_catalogue_is_fine():
    table = evaluate(scored(), TEST, ["precision", "recall", "ndcg"], [N_ITEMS, 1000])
    assert table["recall"][1000] == table["recall"][N_ITEMS] == 1.0
    assert table["precision"][1000] == pytest.approx(table["precision"][N_ITEMS] * N_ITEMS / 1000)
    assert table["ndcg"][1000] == pytest.approx(table["ndcg"][N_ITEMS])


def test_a_catalogue_of_one_item():
    model = BiasedMatrixFactorization(random_state=0, max_iter=2).fit(Interactions([0, 1], [0, 0], [1.0, 2.0], num_users=3))
    table = evaluate(model, Interactions([2], [0]), list(METRICS), 1)
    assert {name: column[1] for name, column in table.items() if name != "auc"} == dict.fromkeys(AT_K, 1.0)
    assert np.isnan(table["auc"][1])


@pytest.mark.parametrize("test", [TEST[:0], sp.csr_array((N_USERS, N_ITEMS)), sp.csr_array((N_USERS, N_ITEMS), dtype=bool).tocoo()])
def test_a_test_set_without_items_is_refused(test):
    with pytest.raises(ValueError, match=r"test must have an item for at least one of the users to evaluate. It has"):
        evaluate(scored(), test)
    with pytest.raises(ValueError, match=r"test must have an item for at least one of the users to evaluate. It has"):
        evaluate(scored(), TEST, users=[999])


def test_an_unknown_metric_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match=r"metrics must be among ndcg, .* Got 'ndgc'\. Did you mean \"ndcg\"\?"):
        evaluate(scored(), TEST, ["recall", "ndgc"])
    with pytest.raises(ValueError, match=r"Got 'zzz'\.$"):
        evaluate(scored(), TEST, "zzz")


@pytest.mark.parametrize("k", [0, -1, 2.5, "10", [], [5, 0], True])
def test_k_is_a_positive_int(k):
    with pytest.raises(ValueError, match="k must be an int >= 1"):
        evaluate(scored(), TEST, k=k)


def test_a_matrix_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"test must have the shape of the data that fit saw, \(30, 20\).* Got \(4, 20\)"):
        evaluate(scored(), sp.csr_array((4, N_ITEMS)))


def test_positions_do_not_name_labels():
    model = BiasedMatrixFactorization(random_state=0, max_iter=2).fit(*as_form(TRAIN, "labels"))
    with pytest.raises(ValueError, match="Interactions hold positions"):
        evaluate(model, TEST)


def test_an_estimator_must_be_fitted():
    with pytest.raises(NotFittedError, match="BiasedMatrixFactorization has no users_"):
        evaluate(BiasedMatrixFactorization(), TEST)
