"""The pairs plan and its kernels, against plain loops over patterns of every kind."""

import numpy as np
import pytest
import torch
from pair_patterns import draw_pairs, random_rows, user_major

from sk_torchmf.nn import Pairs, pair_dot

EPSILON = {torch.float32: 2.0**-23, torch.float64: 2.0**-52}


def test_order_sorts_the_callers_pairs_by_user_then_item_and_keeps_that_of_repeated_ones(pattern):
    user, item, pairs = pattern
    order = pairs.order.numpy()
    np.testing.assert_array_equal(order, sorted(range(len(user)), key=lambda at: (user[at], item[at])))
    np.testing.assert_array_equal(pairs.users, user[order])
    np.testing.assert_array_equal(pairs.columns, item[order])
    np.testing.assert_array_equal(pairs.pointers, np.searchsorted(user[order], np.arange(pairs.shape[0] + 1)))
    assert pairs.n_pairs == len(user)
    assert {t.dtype for t in (pairs.order, pairs.pointers, pairs.columns, pairs.users)} == {torch.int32}


@pytest.mark.parametrize("size", [1, 7, 10**6])
def test_many_pairs_are_sorted_and_summed_in_parts_as_few_are_at_once(pattern, size, monkeypatch):
    """A part has as many pairs as there are users, at least, so that parts of all sizes come about."""
    user, item, whole = pattern
    weight = torch.from_numpy(np.random.default_rng(1).integers(1, 9, size=len(user)) / 4)
    expected = whole.sums(weight)
    monkeypatch.setattr("sk_torchmf.nn.pairs.LARGE", 0)
    monkeypatch.setattr("sk_torchmf.nn.pairs.CHUNK", size)
    for dtype in (np.int64, np.uint16):
        pairs = Pairs(user.astype(dtype), item.astype(dtype), *whole.shape)
        for name in ("pointers", "columns", "order"):
            assert torch.equal(getattr(pairs, name), getattr(whole, name))
    for found, known in zip((*pairs.sums(weight), *pairs.sums()), (*expected, *whole.sums()), strict=True):
        assert torch.equal(found, known)  # quarters are exact
    assert len(user) == 0 or "T" not in vars(pairs)


@pytest.mark.parametrize(("user", "item", "role"), [(3, 0, "user"), (0, 2, "item"), (0, -1, "item")])
def test_numbers_out_of_range_are_refused_of_many_pairs(user, item, role, monkeypatch):
    monkeypatch.setattr("sk_torchmf.nn.pairs.LARGE", 0)
    with pytest.raises(ValueError, match=f"{role} must be numbers from 0 to n_{role}s - 1"):
        Pairs(np.array([0, user]), np.array([1, item]), 3, 2)


def test_transposed_plan_is_item_major(pattern):
    _, _, pairs = pattern
    users, items = (tensor.numpy() for tensor in user_major(pairs))
    order = np.argsort(items, kind="stable")
    assert pairs.T.shape == pairs.shape[::-1]
    np.testing.assert_array_equal(pairs.T.order, order)
    np.testing.assert_array_equal(pairs.T.columns, users[order])
    np.testing.assert_array_equal(pairs.T.pointers, np.searchsorted(items[order], np.arange(pairs.shape[1] + 1)))


def test_inverse_order_brings_values_back_to_the_caller(pattern):
    user, _, pairs = pattern
    value = torch.arange(len(user))
    assert torch.equal(value[pairs.order.long()][pairs.inverse_order.long()], value)


def test_sums_are_counts_or_sums_of_weights(pattern):
    user, item, pairs = pattern
    for count, index, n in zip(pairs.sums(), (user, item), pairs.shape, strict=True):
        np.testing.assert_array_equal(count, np.bincount(index, minlength=n))
        assert count.dtype == torch.float64
    weight = np.random.default_rng(1).uniform(size=len(user)).astype(np.float32)
    sums = pairs.sums(torch.from_numpy(weight)[pairs.order.long()])
    for total, index, n in zip(sums, (user, item), pairs.shape, strict=True):
        np.testing.assert_allclose(total, np.bincount(index, weights=weight, minlength=n), rtol=1e-12)  # sums in float64
        assert total.dtype == torch.float64


@pytest.mark.parametrize("size", [1, 3, 17, 10**6])
def test_blocks_cover_every_pair_exactly_once(pattern, size):
    _, _, pairs = pattern
    users, items = user_major(pairs)
    seen, next_user = torch.zeros(pairs.n_pairs), 0
    for rows, span, block in pairs.blocks(size):
        assert rows.start >= next_user
        next_user = rows.stop
        seen[span] += 1
        assert block.shape == (rows.stop - rows.start, pairs.shape[1])
        assert block.n_pairs == span.stop - span.start > 0
        assert torch.equal(block.order, torch.arange(block.n_pairs, dtype=torch.int32))
        block_users, block_items = user_major(block)
        assert torch.equal(block_users + rows.start, users[span])
        assert torch.equal(block_items, items[span])
    assert torch.equal(seen, torch.ones(pairs.n_pairs))


def test_blocks_hold_about_the_size_asked_for():
    user = np.repeat(np.arange(100), 10)
    pairs = Pairs(user, np.tile(np.arange(10), 100), 100, 10)
    assert [block.n_pairs for _, _, block in pairs.blocks(250)] == [250, 250, 250, 250]
    assert [rows for rows, _, _ in pairs.blocks(600)] == [slice(0, 60), slice(60, 100)]


def test_blocks_lie_on_the_plans_own_storage(pattern):
    _, _, pairs = pattern
    for _, span, block in pairs.blocks(17):
        assert block.columns.data_ptr() == pairs.columns[span].data_ptr()


def test_the_pairs_of_some_users_are_found_in_the_order_asked_for():
    pairs = Pairs(np.array([2, 0, 2, 3, 3, 3]), np.array([1, 0, 3, 0, 2, 1]), n_users=5, n_items=4)
    place, number = pairs.of_users(torch.tensor([3, 1, 2]))
    np.testing.assert_array_equal(pairs.columns[place], [0, 1, 2, 1, 3])
    np.testing.assert_array_equal(number, [0, 0, 0, 2, 2])
    assert len(pairs.of_users(torch.tensor([4]))[0]) == 0


def test_compressed_leaves_out_users_and_items_without_pairs():
    pairs = Pairs(np.array([4, 1, 4, 4]), np.array([0, 3, 3, 0]), 6, 5)
    small, users, items = pairs.compressed()
    assert small.shape == (2, 2)
    np.testing.assert_array_equal(users, [1, 4])
    np.testing.assert_array_equal(items, [0, 3])
    expected = Pairs(np.array([1, 0, 1, 1]), np.array([0, 1, 1, 0]), 2, 2)
    for plan, by_hand in ((small, expected), (small.T, expected.T)):
        for name in ("pointers", "columns", "order", "inverse_order", "users"):
            assert torch.equal(getattr(plan, name), getattr(by_hand, name))


def test_compressed_keeps_the_items_that_are_asked_for():
    pairs = Pairs(np.array([0, 2]), np.array([4, 1]), 3, 6)
    small, users, items = pairs.compressed(np.array([1, 3, 4]))
    assert (users.tolist(), items.tolist(), small.shape) == ([0, 2], [1, 3, 4], (2, 3))
    P, Q = torch.tensor([[2.0], [3.0]]), torch.tensor([[5.0], [7.0], [11.0]])
    assert small.dots(P, Q).tolist() == [22.0, 15.0]
    assert small.item_sums(torch.ones(2), P).tolist() == [[3.0], [0.0], [2.0]]
    nobody, users, items = Pairs(np.array([], dtype=int), np.array([], dtype=int), 2, 6).compressed(np.array([1, 3]))
    assert (nobody.shape, len(users), items.tolist()) == ((0, 2), 0, [1, 3])
    assert nobody.item_sums(torch.ones(0), torch.ones(0, 1)).tolist() == [[0.0], [0.0]]


def test_compressed_changes_nothing_where_every_id_has_a_pair():
    pairs = Pairs(np.array([1, 0]), np.array([0, 1]), 2, 2)
    assert pairs.compressed()[0] is pairs


def test_tocsr_is_canonical_and_stores_a_repeated_pair_once(pattern):
    user, item, pairs = pattern
    matrix = pairs.tocsr()
    dense = np.zeros(pairs.shape, dtype=bool)
    dense[user, item] = True
    np.testing.assert_array_equal(matrix.toarray(), dense)
    assert matrix.dtype == bool
    assert matrix.nnz == dense.sum()
    assert matrix.has_canonical_format
    assert (np.diff(matrix.indices)[np.diff(np.repeat(np.arange(len(dense)), np.diff(matrix.indptr))) == 0] > 0).all()


def test_dots_add_to_a_given_tensor_in_place(pattern):
    _, _, pairs = pattern
    P, Q = random_rows(pairs.shape[0], 5), random_rows(pairs.shape[1], 5, seed=1)
    start = random_rows(pairs.n_pairs, seed=2)
    expected = start + pairs.dots(P, Q)
    assert pairs.dots(P, Q, add_to=start) is start
    torch.testing.assert_close(start, expected)


def test_kernels_equal_plain_loops(pattern):
    _, _, pairs = pattern
    users, items = user_major(pairs)
    P, Q = random_rows(pairs.shape[0], 5), random_rows(pairs.shape[1], 5, seed=1)
    value = random_rows(pairs.n_pairs, seed=2)
    dots, user_sums, item_sums = np.zeros(pairs.n_pairs), np.zeros(P.shape), np.zeros(Q.shape)
    for at, (u, i) in enumerate(zip(users.tolist(), items.tolist(), strict=True)):
        dots[at] = P[u].numpy() @ Q[i].numpy()
        user_sums[u] += value[at].item() * Q[i].numpy()
        item_sums[i] += value[at].item() * P[u].numpy()
    for result, expected in [
        (pairs.dots(P, Q), dots),
        (pairs.user_sums(value, Q), user_sums),
        (pairs.item_sums(value, P), item_sums),
    ]:
        np.testing.assert_allclose(result, expected, rtol=1e-12, atol=1e-12)  # float64, sums of at most 60 terms


@pytest.mark.parametrize("k", [1, 2, 7, 8, 33])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("biased", [False, True], ids=["plain", "biased"])
def test_pair_dot_equals_the_gather(pattern, k, dtype, biased):
    """Forward and all gradients, to the rounding of a sum of so many terms."""
    _, _, pairs = pattern
    users, items = user_major(pairs)
    shapes = [(pairs.shape[0], k), (pairs.shape[1], k)] + biased * [pairs.shape[:1], pairs.shape[1:]]
    fused = [random_rows(*shape, dtype=dtype, seed=at).requires_grad_() for at, shape in enumerate(shapes)]
    plain = [tensor.detach().double().requires_grad_() for tensor in fused]
    slope = random_rows(pairs.n_pairs, dtype=dtype, seed=9)

    score = pair_dot(fused[0], fused[1], pairs, *fused[2:])
    expected = (plain[0][users] * plain[1][items]).sum(-1)
    if biased:
        expected = expected + plain[2][users] + plain[3][items]
    assert score.dtype == dtype
    bound = 10 * EPSILON[dtype] * (k + 2)  # ten times the rounding of k products of about unit size
    torch.testing.assert_close(score.double(), expected, rtol=bound, atol=bound)

    score.backward(slope)
    expected.backward(slope.double())
    longest = max(1, *(int(count.max()) for count in pairs.sums()))
    bound = 10 * EPSILON[dtype] * longest
    for ours, theirs in zip(fused, plain, strict=True):
        torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=bound, atol=bound)


@pytest.mark.parametrize("size", [(4, 3, 9), (3, 2, 25)], ids=["duplicates", "more pairs than cells"])
def test_pair_dot_passes_gradcheck(size):
    pairs = Pairs(*draw_pairs(*size), *size[:2])
    shapes = (size[0], 3), (size[1], 3), size[:1], size[1:2]
    P, Q, b_u, b_i = (random_rows(*shape, seed=at).requires_grad_() for at, shape in enumerate(shapes))
    assert torch.autograd.gradcheck(lambda P, Q: pair_dot(P, Q, pairs), (P, Q))
    assert torch.autograd.gradcheck(lambda P, Q, b_u, b_i: pair_dot(P, Q, pairs, b_u, b_i), (P, Q, b_u, b_i))


def test_pair_dot_with_one_side_fixed():
    pairs = Pairs(*draw_pairs(6, 5, 20), 6, 5)
    users, items = user_major(pairs)
    P, Q = random_rows(6, 3).requires_grad_(), random_rows(5, 3, seed=1)
    pair_dot(P, Q, pairs).square().sum().backward()
    fixed, Q.requires_grad = P.grad, True
    assert Q.grad is None
    expected = torch.zeros(6, 3, dtype=torch.float64)
    expected.index_add_(0, users, 2 * (P[users] * Q[items]).sum(-1, keepdim=True).detach() * Q.detach()[items])
    torch.testing.assert_close(fixed, expected)


def test_pair_dot_takes_rows_and_gradients_of_any_stride():
    pairs = Pairs(*draw_pairs(6, 5, 20), 6, 5)
    P, Q = random_rows(3, 6).T.requires_grad_(), random_rows(5, 6, seed=1)[:, ::2].requires_grad_()
    P_, Q_ = (tensor.detach().contiguous().requires_grad_() for tensor in (P, Q))
    grads = torch.autograd.grad(pair_dot(P, Q, pairs).sum(), (P, Q))  # the gradient of sum() is expanded, of stride 0
    expected = torch.autograd.grad(pair_dot(P_, Q_, pairs) @ torch.ones(20, dtype=torch.float64), (P_, Q_))
    for ours, theirs in zip(grads, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
