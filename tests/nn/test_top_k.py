"""The best of each row: ties, infinities and rounding, whatever the block."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from sk_torchmf.nn import top_k as ranking
from sk_torchmf.nn.top_k import rank_rows, top_k


def test_top_k_is_best_first_and_breaks_ties_by_column():
    scores = torch.tensor([[1.0, 3.0, 3.0, 2.0, 3.0], [0.0, 0.0, 0.0, 0.0, 0.0], [-1.0, -5.0, -1.0, -torch.inf, -3.0]])
    assert top_k(scores, 4).tolist() == [[1, 2, 4, 3], [0, 1, 2, 3], [0, 2, 4, 1]]


def test_top_k_takes_minus_zero_for_zero_and_infinities_for_the_ends():
    scores = torch.tensor([[-0.0, 0.0, -torch.inf, torch.inf, 1e-45, -1e-45]])
    assert top_k(scores, 6).tolist() == [[3, 4, 0, 1, 5, 2]]


def test_top_k_sees_no_difference_below_float32():
    scores = torch.tensor([[1.0, 1.0 + 1e-12, 1.0 + 1e-3]], dtype=torch.float64)
    assert top_k(scores, 3).tolist() == [[2, 0, 1]]


@pytest.mark.parametrize("n", [3, 40], ids=["full sort", "partial"])
def test_top_k_sees_the_least_difference_where_it_is_to_be_exact(n):
    scores = torch.full((1, n), -1.0, dtype=torch.float64)
    scores[0, :3] = torch.tensor([1.0, 1.0 + 2e-16, 1.0], dtype=torch.float64)
    assert top_k(scores, 2, exact=True).tolist() == [[1, 0]]
    assert top_k(scores, 1, exact=True).tolist() == [[1]]
    assert top_k(scores, 2).tolist() == [[0, 1]]


@pytest.mark.parametrize("seed", range(3))
def test_top_k_equals_a_sort(seed):
    scores = np.random.default_rng(seed).normal(size=(20, 37)).astype(np.float32).round(1)  # round: many ties
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :11]
    np.testing.assert_array_equal(top_k(torch.from_numpy(scores), 11), expected)


def best_by_brute_force(user_rows, item_rows, k, excluded):
    """Sort each user's items by score and number, one user at a time."""
    columns, values = np.full((len(user_rows), k), -1), np.full((len(user_rows), k), -np.inf)
    for u, row in enumerate(user_rows):
        scores = [(-float(row @ item), i) for i, item in enumerate(item_rows) if not excluded[u, i]]
        for place, (score, i) in enumerate(sorted(scores)[:k]):
            columns[u, place], values[u, place] = i, -score
    return columns, values


@pytest.mark.parametrize("block", [1, 30, 61, 2**22])
@pytest.mark.parametrize("k", [1, 4, 9, 12])
def test_rank_rows_equals_brute_force_whatever_the_block(monkeypatch, block, k):
    # Small whole numbers: scores are exact, so that many tie and no rounding depends on the shape of a block.
    rng = np.random.default_rng(0)
    user_rows, item_rows = rng.integers(-2, 3, (17, 3)).astype(float), rng.integers(-2, 3, (9, 3)).astype(np.float32)
    excluded = rng.uniform(size=(17, 9)) < 0.4
    excluded[3] = True
    monkeypatch.setattr(ranking, "BLOCK", block)
    for mask in (excluded, np.zeros_like(excluded)):
        columns, values = rank_rows(user_rows, item_rows, k, excluded=sp.csr_array(mask) if mask.any() else None)
        expected_columns, expected_values = best_by_brute_force(user_rows, item_rows, k, mask)
        np.testing.assert_array_equal(columns, expected_columns)
        np.testing.assert_array_equal(values, expected_values)


def test_rank_rows_without_items_or_users():
    columns, values = rank_rows(np.ones((2, 3)), np.ones((0, 3)), 2)
    np.testing.assert_array_equal(columns, np.full((2, 2), -1))
    np.testing.assert_array_equal(values, np.full((2, 2), -np.inf))
    columns, values = rank_rows(np.ones((0, 3)), np.ones((4, 3)), 2)
    assert columns.shape == values.shape == (0, 2)
