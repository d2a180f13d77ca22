"""How far groups of features are believed: planted groups, noise, and the same group twice."""

from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from numpy.testing import assert_allclose, assert_array_equal

from sk_torchmf.nn import Pairs, Plan
from sk_torchmf.solvers import learned_penalty as module
from sk_torchmf.solvers.design import Design, FeatureColumns
from sk_torchmf.solvers.learned_penalty import halves, learned_penalty

pytestmark = pytest.mark.usefixtures("one_thread")

N, WIDTH, PENALTY = 400, 8, 15.0
rng = np.random.default_rng(0)
KIND = np.arange(N) // 2 % 10
KINDS = np.eye(10)[KIND]
SAID = 2 * rng.normal(size=(10, WIDTH))[KIND]
OWN = rng.normal(size=(N, WIDTH))
FLAGS = (rng.random((N, 2000)) < 0.01) * 1.0
EVEN, UNEVEN = np.ones((N, 1)), rng.permuted(np.geomspace(0.1, 10, N))[:, None]


def learn(groups, rows=SAID + OWN, weight=EVEN, penalty=PENALTY):
    """The penalties of the groups, an array each; all were the same."""
    like = torch.zeros(1, dtype=torch.float64)
    design = Design(N, {name: FeatureColumns(sp.csr_array(columns), like) for name, columns in groups.items()})
    given = torch.full((design.n_columns, weight.shape[1]), penalty, dtype=torch.float64)
    learned = learned_penalty(design, torch.from_numpy(rows), torch.from_numpy(weight), given.clone())
    assert_array_equal(learned[0], given[0])
    assert (learned >= given).all()
    return {name: learned[own].numpy() for name, own in design.slices.items()}


@pytest.mark.parametrize("weight", [EVEN, UNEVEN, np.tile(UNEVEN, WIDTH)], ids=["even", "uneven", "by column"])
def test_what_says_something_is_believed_and_noise_is_not(weight):
    """Whatever the rows weigh, and although those of the uneven weights are not scattered in proportion to them."""
    found = learn({"kinds": KINDS, "flags": FLAGS, "wrong": KINDS[np.random.default_rng(1).permutation(N)]}, weight=weight)
    assert_allclose(found["kinds"], PENALTY, rtol=0.1)
    assert found["flags"].min() > 500 * PENALTY
    assert found["wrong"].min() > 500 * PENALTY


def test_what_all_rows_have_in_common_is_no_groups_merit():
    found = learn({"flags": FLAGS, "wrong": 1 + KINDS}, OWN + 5.0)
    assert found["flags"].min() > 20 * PENALTY
    assert found["wrong"].min() > 5 * PENALTY


@pytest.mark.parametrize("size", [0.25, 0.0])
def test_how_far_a_group_is_believed_is_what_the_other_half_says(size):
    """By linear solves: rows of one half are predicted by the others, and these by them."""
    rows, w = size * SAID + OWN, UNEVEN[:, 0]
    F = np.column_stack([np.ones(N), KINDS])  # rows of unit length, as they are scaled to
    said, one = np.empty_like(rows), halves(Design(N, {}))[:, 0].numpy()
    for half in (one, ~one):
        G = (F[half].T * w[half]) @ F[half] + np.diag([0.0] + [PENALTY] * 10)
        said[~half] = F[~half, 1:] @ np.linalg.solve(G, (F[half].T * w[half]) @ rows[half])[1:]
    said, excess = (part - np.average(part, axis=0, weights=w) for part in (said, rows))
    agreement = w * (said * excess).sum(1)
    t = (agreement.sum() - 3 * np.sqrt(np.square(agreement).sum())) / (w[:, None] * said**2).sum()
    assert 0.1 < t < 0.9 if size else t < 0  # else nothing is put to the test
    t = max(t / 1.001, 1e-3)
    expected = PENALTY / t + w.sum() / 10 / 2 * (1 / t - 1)
    assert_allclose(learn({"kinds": KINDS}, rows, UNEVEN)["kinds"], expected, rtol=1e-4)


def test_a_group_given_twice_is_believed_as_much_as_once():
    """Two columns of half the weight cost as much as one if either has twice its penalty."""
    found = learn({"kinds": KINDS, "again": KINDS})
    assert_allclose(found["kinds"], 2 * PENALTY, rtol=0.01)
    assert_allclose(found["again"], found["kinds"], rtol=1e-6)


def test_the_order_of_groups_does_not_matter():
    groups = {"kinds": KINDS, "flags": FLAGS, "again": KINDS}
    one, other = learn(groups), learn(dict(reversed(groups.items())))
    for name in groups:
        assert_allclose(one[name], other[name], rtol=1e-6)


@pytest.mark.parametrize("weight", [UNEVEN, np.tile(UNEVEN, WIDTH)], ids=["alike", "by column"])
def test_few_numbers_held_at_once_are_the_same_sums(weight, monkeypatch):
    groups = {"kinds": KINDS, "flags": FLAGS}
    whole = learn(groups, weight=weight)
    monkeypatch.setattr(module, "HELD", 3 * N * 3 + 3)  # three of the eight columns
    for name, expected in whole.items():
        assert_allclose(learn(groups, weight=weight)[name], expected, rtol=1e-9)


def test_where_nothing_is_to_be_said_nothing_is_learned():
    for rows, weight in ((np.zeros((N, WIDTH)), EVEN), (SAID + OWN, 0 * EVEN)):
        assert_array_equal(learn({"kinds": KINDS}, rows, weight)["kinds"], PENALTY)


def test_groups_without_columns_or_entries_change_nothing():
    found = learn({"kinds": KINDS, "none": np.zeros((N, 0)), "empty": np.zeros((N, 3))})
    assert_allclose(found["kinds"], learn({"kinds": KINDS})["kinds"], rtol=1e-6)


def test_the_more_is_said_the_lower_the_penalty():
    found = [learn({"kinds": KINDS}, size * SAID + OWN, UNEVEN)["kinds"].mean() for size in (0.0, 0.25, 0.4, 1.0)]
    assert all(later < earlier for earlier, later in pairwise(found))


def test_halves_of_users_are_those_of_any_process():
    """By the lots of their items; of items by their own."""
    rng, n_items = np.random.default_rng(4), 50
    has = rng.random((60, n_items)) < 0.2
    lots = halves(Design(n_items, {}))[:, 0].numpy()
    assert 15 < lots.sum() < 35
    for some in (slice(None), slice(40, None)):
        plan = Plan(Pairs(*np.nonzero(has[some]), *has[some].shape))
        assert_array_equal(halves(Design(plan.n_users, {}, plan))[:, 0], has[some] @ lots.astype(int) % 2 == 1)


def test_attributes_that_take_turns_are_in_both_halves():
    assert_allclose(learn({"turns": np.eye(10)[np.arange(N) % 10]}, SAID[2 * np.arange(N) % 20] + OWN)["turns"], PENALTY, rtol=0.1)
