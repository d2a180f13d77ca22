"""The two modules: both roads of their scores, where they start, and their blocks."""

import pytest
import torch
from pair_patterns import MODULES, build, check_forward_equals_forward_pairs, draw_pairs

from sk_torchmf.nn import BiasedMF, Pairs


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
