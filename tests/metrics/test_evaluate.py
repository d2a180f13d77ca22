"""Ranking metrics: each against a plain loop over users, against scikit-learn, and against arithmetic on paper."""

import numpy as np
import pytest
import scipy.sparse as sp
from data import FORMS, as_form, ids_in, planted
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError
from sklearn.metrics import ndcg_score, roc_auc_score

from sk_torchmf import BiasedMatrixFactorization, Interactions
from sk_torchmf.metrics import (
    METRICS,
    _evaluate,
    auc,
    average_precision,
    coverage,
    evaluate,
    hit_rate,
    ndcg,
    novelty,
    precision,
    recall,
    reciprocal_rank,
)

AT_K = [name for name in METRICS if name != "auc"]
KS = [1, 3, 8]
N_USERS, N_ITEMS = 30, 20
DATA, _ = planted(3, mean=3.0, n_users=N_USERS, n_items=N_ITEMS, n_ratings=300)
HELD = np.arange(len(DATA)) % 4 == 0
TRAIN, TEST = DATA[~HELD], DATA[HELD]

every_metric = pytest.mark.parametrize("name", AT_K)
every_form = pytest.mark.parametrize("form", FORMS)


def plain(name, items, test, k):
    """A metric of one list, as its definition reads."""
    items, test = [int(item) for item in items if item >= 0], {int(item) for item in test}
    if not test:
        return np.nan
    if name == "auc":
        others = [place for place, item in enumerate(items) if item not in test]
        found = [place for place, item in enumerate(items) if item in test]
        return np.mean([p < o for p in found for o in others]) if found and others else np.nan
    hits = [item in test for item in items[:k]]
    best = min(k, len(test))
    if name == "precision":
        return sum(hits) / k
    if name == "recall":
        return sum(hits) / len(test)
    if name == "truncated_recall":
        return sum(hits) / best
    if name == "hit_rate":
        return float(any(hits))
    if name == "reciprocal_rank":
        return next((1 / place for place, hit in enumerate(hits, 1) if hit), 0.0)
    if name == "average_precision":
        return sum(sum(hits[:place]) / place for place, hit in enumerate(hits, 1) if hit) / best
    gain = sum(1 / np.log2(place + 1) for place, hit in enumerate(hits, 1) if hit)
    return gain / sum(1 / np.log2(place + 1) for place in range(1, best + 1))


def random_lists(n_users=40, n_items=12, width=8, random_state=0):
    """Lists of all lengths, the empty one among them, and test items, of some users none."""
    rng = np.random.default_rng(random_state)
    ranked = rng.permuted(np.tile(np.arange(n_items), (n_users, 1)), axis=1)[:, :width]
    ranked[np.arange(width) >= rng.integers(0, width + 1, size=n_users)[:, None]] = -1
    relevant = sp.csr_array(rng.random((n_users, n_items)) < rng.choice([0.0, 0.1, 0.5], size=(n_users, 1)))
    return ranked, relevant


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


# arrays


@every_metric
@pytest.mark.parametrize("random_state", range(3))
def test_a_metric_is_its_definition(name, random_state):
    ranked, relevant = random_lists(random_state=random_state)
    tests = [relevant[[row]].indices for row in range(len(ranked))]
    expected = [[plain(name, items, test, k) for k in KS] for items, test in zip(ranked, tests, strict=True)]
    assert np.isnan(expected).any()
    assert (np.array(expected) > 0).any()
    values = METRICS[name](ranked, relevant, KS)
    assert values.dtype == np.float64
    assert_allclose(values, expected, rtol=1e-12)
    for column, k in enumerate(KS):
        assert_array_equal(METRICS[name](ranked, relevant, k), values[:, column])


@pytest.mark.parametrize("random_state", range(3))
def test_auc_is_its_definition(random_state):
    ranked, relevant = random_lists(width=12, random_state=random_state)
    expected = [plain("auc", items, relevant[[row]].indices, None) for row, items in enumerate(ranked)]
    assert len(np.unique(np.round(expected, 6))) > 5
    assert_allclose(auc(ranked, relevant), expected, rtol=1e-12)


def test_metrics_on_paper():
    ranked = np.array([[4, 0, 3, 1]])
    relevant = sp.csr_array([[1, 0, 1, 1, 0]])  # hits at places 2 and 3, item 2 is not in the list
    assert_allclose(precision(ranked, relevant, [1, 2, 4]), [[0, 1 / 2, 2 / 4]])
    assert_allclose(recall(ranked, relevant, [2, 4]), [[1 / 3, 2 / 3]])
    assert_allclose(recall(ranked, relevant, [2, 4], truncated=True), [[1 / 2, 2 / 3]])
    assert_allclose(hit_rate(ranked, relevant, [1, 2]), [[0, 1]])
    assert_allclose(reciprocal_rank(ranked, relevant, [1, 4]), [[0, 1 / 2]])
    assert_allclose(average_precision(ranked, relevant, [2, 4]), [[(1 / 2) / 2, (1 / 2 + 2 / 3) / 3]])
    gain = 1 / np.log2(3) + 1 / 2  # 0.63093 + 0.5
    assert_allclose(ndcg(ranked, relevant, [2, 4]), [[(1 / np.log2(3)) / (1 + 1 / np.log2(3)), gain / (1 + gain)]])
    assert_allclose(auc(ranked, relevant), [2 / 4])  # (0, 1) and (3, 1) right, (0, 4) and (3, 4) wrong


def test_auc_and_ndcg_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(25, 15))
    truth = rng.random((25, 15)) < 0.3
    truth[:, 0], truth[:, 1] = True, False
    ranked, relevant = np.argsort(-scores, axis=1), sp.csr_array(truth)
    assert_allclose(auc(ranked, relevant), [roc_auc_score(t, s) for t, s in zip(truth, scores, strict=True)], rtol=1e-12)
    for k in (1, 5, 15):
        expected = [ndcg_score(t[None], s[None], k=k) for t, s in zip(truth, scores, strict=True)]
        assert_allclose(ndcg(ranked, relevant, k), expected, rtol=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_users_do_not_know_each_other(name):
    ranked, relevant = random_lists()
    order = np.random.default_rng(1).permutation(len(ranked))
    options = () if name == "auc" else (KS,)
    whole = METRICS[name](ranked, relevant, *options)
    assert_array_equal(METRICS[name](ranked[order], relevant[order], *options), whole[order])


@pytest.mark.parametrize("name", METRICS)
def test_a_perfect_list_scores_one(name):
    ranked, relevant = np.array([[2, 0, 1, 3]]), sp.csr_array([[1, 0, 1, 0]])
    assert METRICS[name](ranked, relevant, *([] if name == "auc" else [2])) == [1.0]


def test_test_items_are_stored_entries_each_once():
    ranked = np.array([[1, 0]])
    twice = sp.csr_array((np.array([1.0, 1.0, 0.0]), np.array([1, 1, 2]), np.array([0, 3])), shape=(1, 3))
    assert twice.nnz == 3
    assert_allclose(recall(ranked, twice, 2), [1 / 2])  # items 1 and 2
    assert_allclose(precision(ranked, twice, 2), [1 / 2])
    assert twice.nnz == 3  # the caller's matrix stays as it was
    assert_allclose(recall(ranked, sp.coo_matrix(twice), 2), [1 / 2])


def test_auc_counts_candidates_only():
    ranked = np.array([[1, 3, 0, -1, -1], [1, 0, -1, -1, -1], [4, 3, -1, -1, -1], [-1] * 5])
    relevant = sp.csr_array([[0, 0, 1, 1, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 1], [1, 0, 0, 0, 0]])
    assert_array_equal(auc(ranked, relevant), [0.5, np.nan, np.nan, np.nan])  # found: one of two, none, no other item, nothing


def test_no_users_and_no_hits_are_fine():
    assert ndcg(np.empty((0, 3), dtype=int), sp.csr_array((0, 5)), [1, 3]).shape == (0, 2)
    assert auc(np.empty((0, 3), dtype=int), sp.csr_array((0, 5))).shape == (0,)
    assert_array_equal(ndcg(np.array([[0]]), sp.csr_array([[0, 1]]), 1), [0.0])


def test_coverage_and_novelty_are_their_definitions():
    ranked, _ = random_lists()
    counts = np.random.default_rng(2).integers(0, 4, size=12)
    assert (counts == 0).any()
    found = [{item for items in ranked for item in items[:k] if item >= 0} for k in KS]
    assert_allclose(coverage(ranked, 12, KS), [len(items) / 12 for items in found])
    assert coverage(ranked, 12, 3) == len(found[1]) / 12
    expected = np.full((len(ranked), len(KS)), np.nan)
    for row, items in enumerate(ranked):
        for column, k in enumerate(KS):
            surprise = [-np.log2(max(counts[item], 1) / counts.sum()) for item in items[:k] if item >= 0]
            if surprise:
                expected[row, column] = np.mean(surprise)
    assert np.isnan(expected).any()
    assert_allclose(novelty(ranked, counts, KS), expected, rtol=1e-12)
    assert_array_equal(novelty(ranked, counts, 3), novelty(ranked, counts, KS)[:, 1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.array([[0, 1]]), sp.csr_array((1, 3)), 3), "k must be at most the length of the lists, 2. Got 3"),
        ((np.array([[0, 1]]), sp.csr_array((1, 3)), 0), "k must be an int >= 1. Got 0"),
        ((np.array([[0, 1]]), sp.csr_array((1, 3)), [1, -1]), "k must be an int >= 1. Got -1"),
        ((np.array([[0, 1]]), sp.csr_array((1, 3)), 1.0), "k must be an int >= 1. Got 1.0"),
        ((np.array([[0, 1]]), sp.csr_array((1, 3)), []), "or a sequence of them"),
        ((np.array([[0, 1]]), sp.csr_array((2, 3)), 1), "relevant must have a row for each list in ranked, 1. Got 2"),
        ((np.array([[0, 3]]), sp.csr_array((1, 3)), 1), "below n_items=3"),
        ((np.array([[0, -2]]), sp.csr_array((1, 3)), 1), "or -1 where a list ends. Got numbers from -2 to 0"),
        ((np.array([[0, 1], [-1, 1]]), sp.csr_array((2, 3)), 1), r"ranked\[1\] has an item after a -1"),
        ((np.array([[2, 2]]), sp.csr_array([[0, 0, 1]]), 2), r"ranked\[0\] holds item 2 more than once"),
        ((np.array([0, 1]), sp.csr_array((2, 3)), 1), r"shape \(n_users, K\). Got shape \(2,\)"),
        ((np.array([[0.0, 1.0]]), sp.csr_array((1, 3)), 1), "dtype float64"),
    ],
)
def test_lists_that_are_none_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ndcg(*arguments)


def test_dense_test_items_are_refused():
    with pytest.raises(TypeError, match="relevant must be a scipy sparse array"):
        auc(np.array([[0, 1]]), np.array([[0, 1]]))


@pytest.mark.parametrize("counts", [[0, 0], [1, -1], [1, np.nan], [[1, 1]]])
def test_novelty_needs_counts(counts):
    with pytest.raises(ValueError, match="item_counts must be one finite number >= 0"):
        novelty(np.array([[0, 1]]), counts, 1)


# evaluate


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
    assert_array_equal(model.recommend([1], k=2)[0], [[-1, -1]])  # the item, then the end
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
    with pytest.raises(ValueError, match="test has no items of the users to evaluate"):
        evaluate(scored(), test)
    with pytest.raises(ValueError, match="test has no items of the users to evaluate"):
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
    with pytest.raises(ValueError, match=r"test must have the shape of what fit saw, \(30, 20\).* Got \(4, 20\)"):
        evaluate(scored(), sp.csr_array((4, N_ITEMS)))


def test_positions_do_not_name_labels():
    model = BiasedMatrixFactorization(random_state=0, max_iter=2).fit(*as_form(TRAIN, "labels"))
    with pytest.raises(ValueError, match="Interactions hold positions"):
        evaluate(model, TEST)


def test_an_estimator_must_be_fitted():
    with pytest.raises(NotFittedError, match="BiasedMatrixFactorization has no users_"):
        evaluate(BiasedMatrixFactorization(), TEST)
