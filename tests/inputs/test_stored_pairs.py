"""Pairs on disk: blocks are whole users of one shard and hold each pair once, and a plan of them sums as one in memory does."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from sk_torchmf import Shards
from sk_torchmf.inputs.stored_pairs import StoredPairs, StoredPlan, StoredValues
from sk_torchmf.nn import Pairs, Plan

N_SHARDS = 8


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Of 40 users, one of whom has half of the ratings and one none that counts; so has one item."""
    rng = np.random.default_rng(0)
    user = np.concatenate([np.zeros(400, int), rng.integers(1, 40, size=400)])
    rows = {"user": user, "item": rng.integers(25, size=800), "rating": rng.integers(1, 6, size=800) / 1.0}
    rows["weight"] = np.where((rows["user"] == 7) | (rows["item"] == 3), 0.0, rng.integers(1, 4, size=800) / 2)
    folder = tmp_path_factory.mktemp("data") / "shards"
    return Shards.from_chunks([rows], folder, user="user", item="item", rating="rating", weight="weight", n_shards=N_SHARDS)


@pytest.fixture(scope="module")
def whole(shards):
    """All that the shards hold, users in their order: numbers of users and items, ratings, weights."""
    parts = [(np.repeat(np.arange(len(b)), np.diff(b.pointers)) + b.offset, b.columns, b.ratings, b.weights) for b in shards]
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


@pytest.fixture
def pairs(shards, whole):
    return StoredPairs(shards, np.bincount(whole[1], minlength=shards.n_items) > 0, "cpu")


def test_users_and_items_without_pairs_are_left_out(pairs, shards, whole):
    assert (shards.n_users, shards.n_items) == (40, 25)
    assert pairs.shape == (39, 24)
    assert_array_equal(pairs.users, np.unique(whole[0]))
    assert_array_equal(pairs.items, np.unique(whole[1]))
    assert shards.users[np.setdiff1d(np.arange(40), pairs.users)].tolist() == [7]
    assert shards.items[np.setdiff1d(np.arange(25), pairs.items)].tolist() == [3]


@pytest.mark.parametrize("limits", [(None, None), (50, None), (None, 3), (50, 2), (1, None)])
def test_blocks_are_whole_users_of_one_shard(limits, pairs, whole):
    plan, found = StoredPlan(pairs, max_pairs=limits[0], max_users=limits[1]), []
    users, ends = 0, 0
    for rows, span, block in plan:
        assert (rows.start, span.start) == (users, ends)
        users, ends = rows.stop, span.stop
        assert block.shape == (rows.stop - rows.start, 24)
        assert block.n_pairs == span.stop - span.start
        if limits[0] is not None and len(block.pointers) > 2:  # more than one user
            assert block.n_pairs <= limits[0] + int(block.pointers.diff().max())
        assert limits[1] is None or block.shape[0] <= limits[1]
        found.append((pairs.users[rows][block.users], pairs.items[block.columns]))
    assert (users, ends) == (39, pairs.n_pairs)
    assert len(plan) == len(found) >= N_SHARDS
    for mine, all_of_them in zip(zip(*found, strict=True), whole, strict=False):
        assert_array_equal(np.concatenate(mine), all_of_them)


def test_values_are_those_of_the_pairs(pairs, shards, whole):
    plan = StoredPlan(pairs, max_pairs=50)
    table = shards[0].levels.astype(float)
    rating = StoredValues(pairs, "codes", torch.float64, table.__getitem__)
    weight = StoredValues(pairs, "weights", torch.float32)
    spans = [span for _, span, _ in plan]
    assert_array_equal(torch.cat([rating[span] for span in spans]), whole[2])
    assert_array_equal(torch.cat([weight[span] for span in spans]), whole[3])
    assert (rating[spans[0]].dtype, weight[spans[0]].dtype) == (rating.dtype, weight.dtype) == (torch.float64, torch.float32)


def test_a_plan_sums_as_one_in_memory_and_reads_nothing_for_sums_over_users(pairs, whole, monkeypatch):
    user, item = np.searchsorted(pairs.users, whole[0]), np.searchsorted(pairs.items, whole[1])
    memory, disk = Plan(Pairs(user, item, 39, 24)), StoredPlan(pairs).cut(max_pairs=50)
    assert (disk.n_users, disk.n_items, disk.n_pairs, disk.device) == (39, 24, memory.n_pairs, memory.device)
    for weight in (None, (torch.from_numpy(whole[3]), StoredValues(pairs, "weights", torch.float32))):
        found = [plan.sums(own) for plan, own in zip((memory, disk), weight or (None, None), strict=True)]
        for mine, theirs in zip(*found, strict=True):
            assert_array_equal(mine, theirs)  # quarters are exact
    monkeypatch.setattr(StoredPairs, "read", None)
    assert disk.total_over_users(lambda some: [some.stop - some.start]) == [39]
    assert not disk.keeps_blocks
    assert memory.keeps_blocks
