"""The objective of ratings: a plain loop, its gradient, and its blocks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from every_loss import RATING_LOSSES, every_rating_loss
from rating_problems import ALPHA, MEAN, MODULES, WEIGHTED, K, Problem

from sk_torchmf.nn import POINTWISE, BiasedMF, Pairs, Plan, squared_error
from sk_torchmf.solvers.objective import POWER, Objective

pytestmark = pytest.mark.usefixtures("one_thread", "each_kernels")


def value_by_hand(problem, kind, loss):
    """The objective in a loop over pairs and rows, from the formulas in the documentation."""
    P, Q = (getattr(problem.module, f"{side}_factors").detach().numpy() for side in ("user", "item"))
    biases = [getattr(problem.module, f"{side}_biases").detach().numpy() for side in ("user", "item")] if kind is BiasedMF else None
    users, items = problem.pairs.users.tolist(), problem.pairs.columns.tolist()
    total, counts = 0.0, (np.zeros(len(P)), np.zeros(len(Q)))
    for at, (u, i) in enumerate(zip(users, items, strict=True)):
        weight = 1.0 if problem.weight is None else problem.weight[at].item()
        score = P[u] @ Q[i] + (0.0 if biases is None else MEAN + biases[0][u] + biases[1][i])
        total += weight * RATING_LOSSES[loss].value(score, problem.rating[at].item())
        counts[0][u] += weight
        counts[1][i] += weight
    target = np.zeros(K) if biases else np.array([MEAN**0.5, 0.0, 0.0])
    for rows, count in zip((P, Q), counts, strict=True):
        average = count[count > 0].mean()
        for row, c in zip(rows, count, strict=True):
            total += ALPHA * (10 + c**0.75 * average**0.25) * ((row - target) ** 2).sum()
    for bias in biases or ():
        total += 30 * ALPHA * (bias**2).sum()
    return total


@MODULES
@WEIGHTED
@pytest.mark.parametrize("empty", [False, True], ids=["full", "with empty rows"])
@every_rating_loss
def test_the_objective_equals_a_plain_loop(kind, weighted, empty, loss):
    assert POWER == 0.75
    problem = Problem(kind, POINTWISE[loss], weighted, empty)
    assert problem.objective(problem.module).item() == pytest.approx(value_by_hand(problem, kind, loss), rel=1e-12)


@MODULES
def test_the_gradient_of_the_objective_passes_gradcheck(kind):
    problem = Problem(kind)
    names, parameters = zip(*problem.module.named_parameters(), strict=True)

    def value(*tensors):
        module = problem.start()
        for name, tensor in zip(names, tensors, strict=True):
            delattr(module, name)
            setattr(module, name, tensor)
        return problem.objective(module)

    assert torch.autograd.gradcheck(value, parameters)


@MODULES
@WEIGHTED
@pytest.mark.parametrize("limits", [{}, {"max_pairs": 7}, {"max_users": 1}], ids=str)
def test_gradients_of_any_number_of_blocks_are_those_of_autograd(kind, weighted, limits):
    problem = Problem(kind, POINTWISE["huber"], weighted, empty=True)
    expected = problem.objective(problem.module)
    parameters = dict(problem.module.named_parameters())
    slopes = torch.autograd.grad(expected, list(parameters.values()))
    objective = replace(problem.objective, plan=Plan(problem.pairs, **limits))
    value, gradients = objective.gradients(problem.module)
    torch.testing.assert_close(value, expected.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(objective(problem.module).detach(), expected.detach(), rtol=1e-12, atol=0)
    assert gradients.keys() == parameters.keys()
    for name, slope in zip(parameters, slopes, strict=True):
        torch.testing.assert_close(gradients[name], slope, rtol=1e-10, atol=1e-10)


def check_blocks_sum_to_the_whole(problem, size):
    module = problem.module
    whole = problem.objective(module)
    whole.backward()
    expected = {name: parameter.grad for name, parameter in module.named_parameters()}
    module.zero_grad()
    total, grads = 0.0, {name: torch.zeros_like(parameter) for name, parameter in module.named_parameters()}
    parts = problem.objective.blocks(size)
    assert len(parts) > 1
    for rows, part in parts:
        block = module.block(rows)
        value = part(block)
        value.backward()
        total += value.item()
        for name in grads:
            if name.startswith("user_"):
                grads[name][rows] += getattr(block, name).grad
    for name, parameter in module.named_parameters():
        grad = grads[name] if name.startswith("user_") else parameter.grad
        torch.testing.assert_close(grad, expected[name], rtol=1e-10, atol=1e-10)
    assert total == pytest.approx(whole.item(), rel=1e-12)


@MODULES
@WEIGHTED
@pytest.mark.parametrize("size", [1, 7, 20])
def test_block_objectives_sum_to_the_whole(kind, weighted, size):
    check_blocks_sum_to_the_whole(Problem(kind, weighted=weighted), size)


@MODULES
def test_block_objectives_sum_to_the_whole_with_rows_without_ratings(kind):
    # The item share of a block was 0/0 for an item without ratings; trailing users without ratings were in no block.
    check_blocks_sum_to_the_whole(Problem(kind, empty=True), 7)


@MODULES
def test_a_weight_of_two_in_the_objective_is_the_pair_given_twice(kind):
    problem = Problem(kind, weighted=False)
    users, items = problem.pairs.users.numpy(), problem.pairs.columns.numpy()
    doubled = Pairs(np.repeat(users, 2), np.repeat(items, 2), *problem.pairs.shape)
    module, loss = problem.module, squared_error
    weight = torch.full((40,), 2.0, dtype=torch.float64)
    weighted = Objective.build(module, Plan(problem.pairs), problem.rating, weight, loss, alpha=ALPHA, mean=MEAN)
    rating = problem.rating.repeat_interleave(2)[doubled.order.long()]
    repeated = Objective.build(module, Plan(doubled), rating, None, loss, alpha=ALPHA, mean=MEAN)
    assert weighted(module).item() == pytest.approx(repeated(module).item(), rel=1e-12)
