"""The plan of exact sums: blocks end where shards do, and a process's sums are those of its part of the tree."""

import numpy as np
import pytest
import torch

from sk_torchmf.nn import Pairs, Plan
from sk_torchmf.nn.exact_plan import ExactPlan

SHARDS = np.array([0, 0, 0, 2, 2, 2, 2, 3, 5, 5])  # of each user, of eight shards


def pairs_of(users):
    """Three pairs of each of some users, whatever else there is."""
    user, item = np.repeat(np.arange(len(users)), 3), (np.repeat(users, 3) + np.tile([0, 1, 3], len(users))) % 7
    return Pairs(user, item, len(users), 7)


def plan_of(users, **options):
    return ExactPlan(pairs_of(users), SHARDS[users], **options)


VALUE = torch.from_numpy(np.random.default_rng(0).normal(size=(30,)).astype(np.float32))
ROWS = torch.from_numpy(np.random.default_rng(1).normal(size=(10, 2)).astype(np.float32))


def sums(plan, start, cut=()):
    """A sum by items and one over the users' rows."""
    value, rows = VALUE[3 * start :], ROWS[start:]
    for limits in cut:
        plan = plan.cut(**limits)
    for own, span, block in plan:
        plan.add(block.item_sums(value[span], rows[own].clone()))
    return *plan.total(), *plan.total_over_users(lambda some: [rows[some].sum(0)])


def blocks(plan, start):
    return [(rows.start + start, rows.stop + start, block.n_pairs) for rows, _, block in plan]


@pytest.mark.parametrize("limits", [{}, {"max_pairs": 6}, {"max_users": 2}])
def test_blocks_of_parts_are_those_of_the_whole(limits):
    whole = plan_of(np.arange(10)).cut(**limits)
    parts = [plan_of(np.arange(7)).cut(**limits), plan_of(np.arange(7, 10)).cut(**limits)]
    assert blocks(parts[0], 0) + blocks(parts[1], 7) == blocks(whole, 0)
    assert {start for start, _, _ in blocks(whole, 0)} >= {0, 3, 7, 8}  # where shards begin


@pytest.mark.parametrize("cut", [(), [{"max_pairs": 6}]])
def test_shards_are_summed_by_a_tree(cut):
    shards = [sums(plan_of(np.arange(*ends)), ends[0], cut) for ends in ((0, 3), (3, 7), (7, 8), (8, 10))]
    for own, (a, b, c, d) in zip(sums(plan_of(np.arange(10)), 0, cut), zip(*shards, strict=True), strict=True):
        assert torch.equal(own, (a + (b + c)) + d)  # 0 alone, 2 and 3; then 5 alone


def test_sums_are_those_of_a_plan_to_rounding():
    plain = Plan(pairs_of(np.arange(10)))
    assert (plan_of(np.arange(10)).n_users, plan_of(np.arange(10)).n_pairs) == (10, 30)
    for own, other in zip(sums(plan_of(np.arange(10)), 0), sums(plain, 0), strict=True):
        torch.testing.assert_close(own, other)


def test_process_without_users_adds_zeros():
    plan = plan_of(np.arange(0), first=4)
    assert [(rows, block.n_pairs) for rows, _, block in plan] == [(slice(0, 0), 0)]
    assert torch.equal(sums(plan, 10)[0], torch.zeros(7, 2))
