"""What is observed in the blocks of a plan: many pairs are packed, and what is unpacked is what a few would be."""

import numpy as np
import pytest
import torch

from sk_torchmf.nn import Pairs, Plan
from sk_torchmf.solvers.observed import PackedNumbers, observed_blocks

N_USERS, N_ITEMS, N_PAIRS = 70_000, 9, 200_000


@pytest.fixture(scope="module")
def plan():
    """Of users of whom a block has more than two bytes can number, in some of its blocks."""
    rng = np.random.default_rng(0)
    user = np.concatenate([np.arange(N_USERS), rng.integers(40, size=N_PAIRS - N_USERS)])
    return Plan(Pairs(user, rng.integers(N_ITEMS, size=N_PAIRS), N_USERS, N_ITEMS))


def numbers(n_kinds, dtype, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(n_kinds, size=N_PAIRS).astype(dtype) / dtype(1)).to(
        torch.from_numpy(np.empty(0, dtype)).dtype
    )


@pytest.mark.parametrize("max_pairs", [None, 30_000])
@pytest.mark.parametrize("n_kinds", [(5, 3), (5000, 1000)], ids=["codes", "as they are"])
def test_packed_blocks_are_those_of_the_list(plan, max_pairs, n_kinds, monkeypatch):
    plan = plan.cut(max_pairs=max_pairs)
    given = numbers(n_kinds[0], np.float32), numbers(n_kinds[1], np.float32, 1), [numbers(7, np.int64, 2)]
    expected = observed_blocks(plan, *given)
    monkeypatch.setattr("sk_torchmf.solvers.observed.LARGE", 0)
    packed = observed_blocks(plan, *given)
    assert isinstance(expected, list)
    assert not isinstance(packed, list)
    for _ in range(2):
        for (rows, *mine), (same, *theirs) in zip(packed, expected, strict=True):
            assert rows == same
            for one, other in zip(mine, theirs, strict=True):
                check_same(one, other)
                assert torch.equal(one.values, other.values)
                assert one.values.dtype == other.values.dtype
    for (_, *mine), (_, *theirs) in zip(packed.without_values(), expected, strict=True):
        for one, other in zip(mine, theirs, strict=True):
            check_same(one, other)
            assert one.values is None


def check_same(one, other):
    assert one.pairs.shape == other.pairs.shape
    assert torch.equal(one.pairs.pointers, other.pairs.pointers)
    assert torch.equal(one.pairs.columns, other.pairs.columns)
    assert torch.equal(one.weight, other.weight)
    assert torch.equal(one.codes[0], other.codes[0])


def test_nothing_is_packed_where_nothing_is_kept(plan, monkeypatch):
    monkeypatch.setattr("sk_torchmf.solvers.observed.LARGE", 0)
    blocks = observed_blocks(plan, numbers(5, np.float32), None)
    for _, by_user, by_item in blocks:
        assert by_user.weight is by_item.weight is None
        assert by_user.codes == by_item.codes == []


@pytest.mark.parametrize("n_kinds", [1, 256, 257])
def test_numbers_of_at_most_256_kinds_are_codes_of_a_byte(n_kinds):
    """New kinds come in each block; the last may be one too many for codes."""
    blocks = [torch.arange(start, stop, dtype=torch.float64) / 3 for start, stop in ((0, 0), (0, n_kinds // 2), (0, n_kinds))]
    order, start = [torch.arange(len(block) - 1, -1, -1, dtype=torch.int32) for block in blocks], 0
    packed, spans = PackedNumbers(sum(map(len, blocks))), []
    for block, own in zip(blocks, order, strict=True):
        spans.append(slice(start, start := start + len(block)))
        packed.put(spans[-1], block, own)
    assert packed.nbytes == len(blocks[1]) + len(blocks[2]) if n_kinds <= 256 else 8 * (len(blocks[1]) + len(blocks[2]))
    for span, block in zip(spans, blocks, strict=True):
        assert torch.equal(packed[span], block.flip(0))
