"""The torch side: the pairs plan and its kernels, the two modules, the losses, the ranking of rows."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from sk_torchmf.nn import POINTWISE, BiasedMF, Pairs, PlainMF, PointwiseLoss, huber, logistic, pair_dot, poisson, squared_error
from sk_torchmf.nn import top_k as ranking
from sk_torchmf.nn.top_k import rank_rows, top_k

EPSILON = {torch.float32: 2.0**-23, torch.float64: 2.0**-52}


def draw_pairs(n_users, n_items, n_pairs, seed=0):
    """User and item numbers drawn with repetition; users 1 and n_users - 1, items 0 and 2 stay empty where there is room."""
    rng = np.random.default_rng(seed)
    users = np.setdiff1d(np.arange(n_users), [1, n_users - 1]) if n_users > 3 else np.arange(n_users)
    items = np.setdiff1d(np.arange(n_items), [0, 2]) if n_items > 3 else np.arange(n_items)
    return rng.choice(users, n_pairs), rng.choice(items, n_pairs)


PATTERNS = {
    "one pair": (1, 1, 1),
    "one user": (1, 9, 6),
    "one item": (9, 1, 6),
    "duplicates and empty rows": (12, 9, 40),
    "more pairs than cells": (3, 2, 25),
    "more pairs than cells with empty rows": (5, 4, 60),
    "thousands of pairs": (60, 50, 2000),
    "no pairs": (4, 3, 0),
}


@pytest.fixture(params=PATTERNS.values(), ids=PATTERNS.keys())
def pattern(request):
    """(user, item, Pairs) of one of the patterns above."""
    n_users, n_items, n_pairs = request.param
    user, item = draw_pairs(n_users, n_items, n_pairs)
    return user, item, Pairs(user, item, n_users, n_items)


def user_major(pairs):
    """The (user, item) numbers of the plan in its own order, int64 tensors."""
    return pairs.users.long(), pairs.columns.long()


def random_rows(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def test_order_sorts_the_callers_pairs_by_user(pattern):
    user, item, pairs = pattern
    order = pairs.order.numpy()
    np.testing.assert_array_equal(order, np.argsort(user, kind="stable"))
    np.testing.assert_array_equal(pairs.users, user[order])
    np.testing.assert_array_equal(pairs.columns, item[order])
    np.testing.assert_array_equal(pairs.pointers, np.searchsorted(user[order], np.arange(pairs.shape[0] + 1)))
    assert pairs.n_pairs == len(user)
    assert {t.dtype for t in (pairs.order, pairs.pointers, pairs.columns, pairs.users)} == {torch.int32}


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
    np.testing.assert_array_equal(pairs.columns[place], [0, 2, 1, 1, 3])
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


def build(kind, n_users, n_items, dtype=torch.float64):
    """A module with every parameter away from zero."""
    module = kind(n_users, n_items, 4, mean=1.7, generator=torch.Generator().manual_seed(0), dtype=dtype)
    with torch.no_grad():
        for at, parameter in enumerate(module.parameters()):
            parameter += random_rows(*parameter.shape, dtype=dtype, seed=at)
    return module


MODULES = pytest.mark.parametrize("kind", [PlainMF, BiasedMF])


def check_forward_equals_forward_pairs(module, pairs):
    slope = random_rows(pairs.n_pairs, seed=5).to(pairs.device)
    results = []
    for score in (module(*user_major(pairs)), module.forward_pairs(pairs)):
        module.zero_grad()
        score.backward(slope)
        results.append([score.detach(), *(parameter.grad for parameter in module.parameters())])
    for gather, fused in zip(*results, strict=True):
        torch.testing.assert_close(fused, gather, rtol=1e-10, atol=1e-10)  # sums of at most 2,000 terms in float64


@MODULES
def test_forward_equals_forward_pairs_and_so_do_the_gradients(kind, pattern):
    _, _, pairs = pattern
    module = build(kind, *pairs.shape)
    check_forward_equals_forward_pairs(module, pairs)


@MODULES
def test_rows_give_the_scores_as_an_inner_product(kind):
    module = build(kind, 5, 4)
    users, items = module.rows()
    constant = module.global_mean if kind is BiasedMF else 0.0
    user, item = torch.meshgrid(torch.arange(5), torch.arange(4), indexing="ij")
    torch.testing.assert_close(users @ items.T + constant, module(user.ravel(), item.ravel()).view(5, 4))


@MODULES
@pytest.mark.parametrize("mean", [2.25, 0.0, -4.0])
def test_a_module_without_noise_starts_at_the_mean(kind, mean):
    module = kind(3, 2, 4, mean=mean, init_std=0.0)
    torch.testing.assert_close(module(torch.tensor([0, 2]), torch.tensor([1, 0])), torch.full((2,), mean))
    p0, q0 = module.mean_rows(mean)
    constant = mean if kind is BiasedMF else 0.0
    torch.testing.assert_close(p0 @ q0 + constant, torch.tensor(mean))
    for rows, mean_row in zip(module.rows(), (p0, q0), strict=True):
        torch.testing.assert_close(rows.detach(), mean_row.expand_as(rows))


@MODULES
def test_the_start_comes_from_the_generator_alone(kind):
    torch.manual_seed(0)
    first = kind(4, 3, 2, generator=torch.Generator().manual_seed(7))
    torch.manual_seed(1)
    state = torch.get_rng_state()
    second = kind(4, 3, 2, generator=torch.Generator().manual_seed(7))
    assert torch.equal(torch.get_rng_state(), state)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


@MODULES
def test_a_block_shares_storage(kind):
    module = build(kind, 6, 4)
    block = module.block(slice(2, 5))
    user, item = torch.tensor([0, 1, 2]), torch.tensor([3, 0, 1])
    torch.testing.assert_close(block(user, item), module(user + 2, item))
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.fill_(0.5)
    for name, whole in module.named_parameters():
        changed = whole[2:5] if name.startswith("user_") else whole
        assert (changed == 0.5).all()
        assert name.startswith("item_") or not (whole[:2] == 0.5).any()
    assert block.item_factors is module.item_factors
    if kind is BiasedMF:
        assert block.global_mean is module.global_mean


def test_the_model_of_some_of_some_users_scores_as_the_whole_does():
    # The constant was no buffer of a block, so that a block of the block had none.
    module = BiasedMF(6, 4, 3, mean=2.5, generator=torch.Generator().manual_seed(0))
    user, item = torch.tensor([0, 1]), torch.tensor([3, 0])
    part = module.block(slice(2, 6)).block(slice(1, 3))
    torch.testing.assert_close(part(user, item), module(user + 3, item))
    assert part.item_factors is module.item_factors


@MODULES
def test_gradients_of_blocks_sum_to_those_of_the_whole(kind):
    user, item = draw_pairs(12, 9, 40)
    pairs = Pairs(user, item, 12, 9)
    module = build(kind, 12, 9)
    module.forward_pairs(pairs).square().sum().backward()
    whole = {name: parameter.grad for name, parameter in module.named_parameters()}
    module.zero_grad()
    users = {name: torch.zeros_like(grad) for name, grad in whole.items() if name.startswith("user_")}
    for rows, _, plan in pairs.blocks(7):
        block = module.block(rows)
        block.forward_pairs(plan).square().sum().backward()
        for name, grad in users.items():
            grad[rows] = getattr(block, name).grad
    for name, grad in whole.items():
        torch.testing.assert_close(users[name] if name in users else getattr(module, name).grad, grad)


def test_state_of_a_module_can_be_loaded_into_another():
    first, second = build(BiasedMF, 4, 3), BiasedMF(4, 3, 4, dtype=torch.float64)
    second.load_state_dict(first.state_dict())
    user, item = torch.tensor([0, 3]), torch.tensor([2, 1])
    assert torch.equal(first(user, item), second(user, item))


SCORES = np.array([-3.0, -0.7, 0.0, 0.3, 1.0, 2.5])
RATINGS = np.array([0.0, 0.25, 0.5, 1.0])


def test_the_variance_of_a_rating_is_that_of_its_distribution_with_an_uncertain_mean():
    prediction, variance = np.array([0.2, 0.9]), np.array([0.5, 2.0])
    expected = {
        "squared_error": [0.5, 2.0],
        "huber": [0.5, 2.0],
        "poisson": [0.2 + 0.04 * 0.5, 0.9 + 0.81 * 2],  # E[var] + var[E], the mean of variance p^2 v to first order
        "logistic": [0.2 * 0.8, 0.9 * 0.1],
    }
    assert expected.keys() == POINTWISE.keys()
    for name, loss in POINTWISE.items():
        np.testing.assert_allclose(loss.variance(prediction, variance), expected[name], rtol=1e-12)
    assert PointwiseLoss("own", value=lambda s, r: s - r, curvature=lambda s, r: s).variance is None


HAND_WRITTEN = {
    "squared_error": lambda s, r: (r - s) ** 2,
    "huber": lambda s, r: np.where(abs(s - r) <= 1, (s - r) ** 2, 2 * abs(s - r) - 1),
    "poisson": lambda s, r: np.exp(s) - r * s,
    "logistic": lambda s, r: -r * np.log(1 / (1 + np.exp(-s))) - (1 - r) * np.log(1 - 1 / (1 + np.exp(-s))),
}
SECOND_DERIVATIVE = {
    "squared_error": lambda s, r: 2.0 + 0 * s,
    "huber": lambda s, r: np.where(abs(s - r) < 1, 2.0, 0.0),
    "poisson": lambda s, r: np.exp(s),
    "logistic": lambda s, r: np.exp(-s) / (1 + np.exp(-s)) ** 2,
}


@pytest.fixture(params=POINTWISE.values(), ids=POINTWISE.keys())
def loss(request):
    return request.param


def grid():
    """Every score with every rating, as two float64 tensors of shape (24,)."""
    score, rating = np.meshgrid(SCORES, RATINGS)
    return torch.from_numpy(score.ravel()), torch.from_numpy(rating.ravel())


def test_a_loss_equals_its_formula(loss):
    score, rating = grid()
    np.testing.assert_allclose(loss(score, rating), HAND_WRITTEN[loss.name](score.numpy(), rating.numpy()), rtol=1e-12, atol=1e-12)


def test_the_gradient_of_a_loss_is_its_finite_difference(loss):
    score, rating = grid()
    score = (score + 0.013).requires_grad_()  # off the joints of the Huber loss
    (gradient,) = torch.autograd.grad(loss(score, rating).sum(), score)
    s, r, step = score.detach().numpy(), rating.numpy(), 1e-6
    formula = HAND_WRITTEN[loss.name]
    np.testing.assert_allclose(gradient, (formula(s + step, r) - formula(s - step, r)) / (2 * step), rtol=1e-6, atol=1e-8)


def test_the_curvature_is_positive_and_no_less_than_the_second_derivative(loss):
    score, rating = grid()
    curvature = loss.curvature(score, rating)
    assert curvature.shape == score.shape
    assert (curvature > 0).all()
    assert (curvature.numpy() >= SECOND_DERIVATIVE[loss.name](score.numpy(), rating.numpy()) - 1e-12).all()


@pytest.mark.parametrize("loss", [squared_error, huber])
def test_the_curvature_bounds_the_loss_from_above(loss):
    """The parabola of that curvature through a score lies on or above the loss: a step to its bottom never raises it."""
    score, rating = grid()
    score.requires_grad_()
    (slope,) = torch.autograd.grad(loss(score, rating).sum(), score)
    value, curvature = loss(score, rating).detach(), loss.curvature(score, rating).detach()
    for step in np.linspace(-4, 4, 33):
        parabola = value + slope * step + curvature / 2 * step**2
        assert (loss(score.detach() + step, rating) <= parabola + 1e-12).all()


def test_losses_stay_finite_at_extreme_scores():
    score, rating = torch.tensor([-80.0, 80.0], requires_grad=True), torch.tensor([1.0, 0.0])
    for loss in (squared_error, huber, logistic):
        value = loss(score, rating)
        (slope,) = torch.autograd.grad(value.sum(), score)
        assert value.isfinite().all()
        assert slope.isfinite().all()
        assert (loss.curvature(score.detach(), rating) > 0).all()
    assert (poisson.curvature(torch.tensor([-80.0]), torch.tensor([0.0])) > 0).all()


def test_huber_equals_the_squared_error_up_to_one_and_has_no_kink_there():
    score = torch.linspace(-1, 1, 41, dtype=torch.float64, requires_grad=True)
    rating = torch.zeros_like(score)
    assert torch.equal(huber(score, rating), squared_error(score, rating))
    beyond = torch.tensor([-1 - 1e-9, 1 + 1e-9, 5.0], dtype=torch.float64, requires_grad=True)
    value = huber(beyond, torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(value.detach(), torch.tensor([1.0, 1.0, 9.0], dtype=torch.float64))
    torch.testing.assert_close(torch.autograd.grad(value.sum(), beyond)[0], torch.tensor([-2.0, 2.0, 2.0], dtype=torch.float64))


def test_losses_are_those_of_spotlight():
    """spotlight.losses of 2020, word for word: means over a batch of predictions after the link."""
    score, rating = grid()
    predicted = torch.exp(score)
    spotlight_poisson = (predicted - rating * torch.log(predicted)).mean()
    torch.testing.assert_close(poisson(score, rating).mean(), spotlight_poisson)
    torch.testing.assert_close(squared_error(score, rating).mean(), ((rating - score) ** 2).mean())
    observed = torch.sign(rating - 0.3)  # -1 and 1
    clamped = torch.clamp(observed, 0, 1)
    spotlight_logistic = torch.nn.functional.binary_cross_entropy_with_logits(score, clamped)
    coded = torch.from_numpy(logistic.check(observed.numpy()))
    torch.testing.assert_close(logistic(score, coded).mean(), spotlight_logistic)


def test_response_undoes_link(loss):
    mean = torch.tensor([0.01, 0.3, 0.5, 0.99], dtype=torch.float64)
    torch.testing.assert_close(loss.response(loss.link(mean)), mean)


@pytest.mark.parametrize("loss", [poisson, logistic])
def test_the_link_of_a_boundary_mean_is_finite(loss):
    assert loss.link(torch.tensor([0.0, 1.0])).isfinite().all()


def test_logistic_takes_minus_one_and_one_as_zero_and_one():
    np.testing.assert_array_equal(logistic.check(np.array([-1.0, 1.0, 1.0])), [0.0, 1.0, 1.0])
    np.testing.assert_array_equal(logistic.check(np.array([0.0, 0.5, 1.0])), [0.0, 0.5, 1.0])
    with pytest.raises(
        ValueError, match=r'loss="logistic" needs ratings between 0 and 1, or all of them -1 or 1\. Got -1\.0 to 0\.5'
    ):
        logistic.check(np.array([-1.0, 0.5]))


def test_poisson_refuses_negative_counts():
    np.testing.assert_array_equal(poisson.check(np.array([0.0, 7.0])), [0.0, 7.0])
    with pytest.raises(ValueError, match=r'loss="poisson" needs ratings >= 0 \(counts\)\. Got -2\.0'):
        poisson.check(np.array([3.0, -2.0]))


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
