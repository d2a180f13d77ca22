"""Ranking metrics of lists: each against a plain loop over users, scikit-learn, and arithmetic on paper."""

import numpy as np
import pytest
import scipy.sparse as sp
from data import planted
from numpy.testing import assert_allclose, assert_array_equal
from plain_metrics import plain
from sklearn.metrics import ndcg_score, roc_auc_score

from sk_torchmf.metrics import (
    METRICS,
    auc,
    average_precision,
    coverage,
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
every_metric = pytest.mark.parametrize("name", AT_K)


def random_lists(n_users=40, n_items=12, width=8, random_state=0):
    """Lists of all lengths, the empty one among them, and test items, of some users none."""
    rng = np.random.default_rng(random_state)
    ranked = rng.permuted(np.tile(np.arange(n_items), (n_users, 1)), axis=1)[:, :width]
    ranked[np.arange(width) >= rng.integers(0, width + 1, size=n_users)[:, None]] = -1
    relevant = sp.csr_array(rng.random((n_users, n_items)) < rng.choice([0.0, 0.1, 0.5], size=(n_users, 1)))
    return ranked, relevant


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
        ((np.array([[0, 1], [-1, 1]]), sp.csr_array((2, 3)), 1), r"ranked\[1\] must not have an item after -1, which marks the"),
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
    with pytest.raises(ValueError, match="item_counts must be finite numbers >= 0, one for each item, and not all"):
        novelty(np.array([[0, 1]]), counts, 1)
