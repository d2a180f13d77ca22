"""Rows without observations, chosen by what they would have predicted: against loops over the pairs and by hand."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sk_torchmf.model.factors import Factors
from sk_torchmf.nn import Pairs
from sk_torchmf.solvers.cold_rows import best_shift, with_cold_rows

pytestmark = pytest.mark.usefixtures("one_thread", "each_kernels")


def drawn(seed=0, n_users=9, n_items=7, n_pairs=40):
    rng = np.random.default_rng(seed)
    user = np.append(rng.integers(0, n_users, n_pairs - n_users), np.arange(n_users))
    item = np.append(rng.integers(0, n_items, n_pairs - n_items), np.arange(n_items))
    pairs = Pairs(user, item, n_users, n_items)
    order = pairs.order.numpy()
    return rng, pairs, user[order], item[order]


@pytest.mark.parametrize("place", [0, 1])
def test_best_shift_minimises_what_it_says(place):
    rng, pairs, user, item = drawn()
    own, other = (user, item) if place == 0 else (item, user)
    deviation, others = rng.normal(size=(pairs.shape[place], 3)), rng.normal(size=(pairs.shape[1 - place], 3))
    weight = rng.uniform(0.5, 2, len(user))
    shift = best_shift(pairs, torch.from_numpy(weight), deviation, others, place)

    share, score = weight / weight.sum(), np.array([deviation[i] @ others[u] for i, u in zip(own, other, strict=True)])
    ridge, inverse = share @ score**2 / len(deviation), np.linalg.inv(deviation.T @ deviation / len(deviation))

    def objective(delta):
        return share @ (score - others[other] @ delta) ** 2 + ridge * delta @ inverse @ delta

    for direction in np.eye(3):  # it is convex, so no slope anywhere means the minimum
        slope = (objective(shift + 1e-4 * direction) - objective(shift - 1e-4 * direction)) / 2e-4
        assert abs(slope) < 1e-8 * objective(np.zeros(3)) / 1e-4
    assert objective(shift) < objective(np.zeros(3))


def biases_alone(counts, biases):
    """A biased model in which one user's ratings are as the items' biases say, and has no factors."""
    item = np.repeat(np.arange(len(counts)), counts)
    pairs = Pairs(np.arange(len(item)) % 2, item, 2, len(counts))
    users = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    items = torch.tensor([[0.0, 1.0, bias] for bias in biases], dtype=torch.float64)
    return Factors.from_rows(users, items, 1), pairs, (np.arange(2), np.arange(len(counts)))


def test_two_items_by_hand():
    """Biases of 1 and -1 with 3 and 1 ratings: the mean over ratings is 1/2, T = 1, and the ridge is 1 / 2."""
    factors, pairs, known = biases_alone([3, 1], [1.0, -1.0])
    by_rating = with_cold_rows(factors, pairs, None, known, (None, None), "micro")
    assert by_rating.constant == pytest.approx((1 / 2) / (1 + 1 / 2))
    assert_allclose(by_rating.items.biases, [1 - 1 / 3, -1 - 1 / 3])
    by_item = with_cold_rows(factors, pairs, None, known, (None, None), "macro")
    assert by_item.constant == pytest.approx(0, abs=1e-12)
    assert_allclose(by_item.items.biases, [1, -1])


@pytest.mark.parametrize("average", ["macro", "micro"])
def test_a_weight_of_two_is_the_pair_twice(average):
    rng, pairs, user, item = drawn(1)
    twice = rng.integers(1, 3, len(user))
    rows = [torch.from_numpy(rng.normal(size=(n, 4))) for n in pairs.shape]
    rows[0][:, 3], rows[1][:, 2] = 1, 1
    factors, known = Factors.from_rows(*rows, 2), [np.arange(n) for n in pairs.shape]
    weighted = with_cold_rows(factors, pairs, torch.from_numpy(twice.astype(float)), known, (None, None), average)
    again = Pairs(np.repeat(user, twice), np.repeat(item, twice), *pairs.shape)
    repeated = with_cold_rows(factors, again, None, known, (None, None), average)
    for side in ("user", "item"):
        assert_allclose(weighted.side(side).factors, repeated.side(side).factors, rtol=1e-9)
        assert_allclose(weighted.side(side).biases, repeated.side(side).biases, rtol=1e-9)


@pytest.mark.parametrize("average", ["macro", "micro"])
@pytest.mark.parametrize("biased", [True, False])
def test_scores_of_known_pairs_stay(average, biased):
    rng, pairs, user, item = drawn(2)
    rows = [torch.from_numpy(rng.normal(size=(n, 2 + 2 * biased))) for n in pairs.shape]
    if biased:
        rows[0][:, 3], rows[1][:, 2] = 1, 1
    factors = Factors.from_rows(*rows, 2)
    moved = with_cold_rows(factors, pairs, None, [np.arange(n) for n in pairs.shape], (None, None), average)
    assert_allclose(moved.pair_scores(user, item), factors.pair_scores(user, item), rtol=1e-9, atol=1e-12)
    unknown = np.full(len(user), -1)
    assert not np.allclose(moved.pair_scores(user, unknown), factors.pair_scores(user, unknown), rtol=1e-3)


def test_rows_that_are_where_they_are_expected_move_nothing():
    _, pairs, _, _ = drawn(3)
    weight = torch.ones(pairs.n_pairs, dtype=torch.float64)
    assert_allclose(best_shift(pairs, weight, np.zeros((7, 3)), np.ones((9, 3)), 1), 0, atol=1e-12)
