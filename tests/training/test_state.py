"""Where training goes on from: rows of a module and its optimizer move to their ids' new places."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from sk_torchmf.estimators._torch_training import ModuleStart
from sk_torchmf.solvers.base import tensors_of
from sk_torchmf.solvers.minibatch import Trainer
from sk_torchmf.training.state import Codes, fill_new, find_sides, gathered

pytestmark = pytest.mark.usefixtures("one_thread")


class Odd(torch.nn.Module):
    """Ids in either dimension, one table for both sides with a row of padding, and as many factors as there may be users."""

    def __init__(self, n_users, n_items, n_factors=3):
        super().__init__()
        self.both = torch.nn.Embedding(n_users + n_items + 1, n_factors)
        self.across = torch.nn.Parameter(torch.randn(n_factors, n_items))
        self.square = torch.nn.Parameter(torch.randn(n_users, n_items))
        self.register_buffer("level", torch.zeros(n_factors))
        self.n_users = n_users

    def forward(self, user, item):
        own = self.both(user) * self.both(self.n_users + item) + self.both(user) * self.across[:, item].T
        return own.sum(1) + self.square[user, item]


def grown_odd(optimizer=torch.optim.Adam, **options):
    torch.manual_seed(0)
    old, new = Odd(3, 4), Odd(5, 6)
    first = Trainer(old, None, optimizer(old.parameters(), lr=0.1, **options))
    old(torch.tensor([0, 1, 2]), torch.tensor([3, 1, 0])).sum().backward()
    first.optimizer.step()
    trainer = Trainer(new, None, optimizer(new.parameters(), lr=0.1, **options))
    user_code, item_code = np.array([-1, 0, 1, -1, 2]), np.array([0, 1, -1, 2, 3, -1])
    fresh = {name: tensor.detach().clone() for name, tensor in new.named_parameters()}
    ModuleStart(old, gathered(first, None), Codes(user_code, item_code, (3, 4))).hand_over(trainer, None, Odd)
    return old, new, first, trainer, fresh


def test_a_module_takes_over_rows_wherever_they_are():
    old, new, _, _, fresh = grown_odd()
    users, items = [1, 2, 4], [0, 1, 3, 4]
    table = [*users, *(5 + item for item in items), 11]
    assert_array_equal(new.both.weight.detach()[table], old.both.weight.detach())
    assert_array_equal(new.across.detach()[:, items], old.across.detach())
    assert_array_equal(new.square.detach()[np.ix_(users, items)], old.square.detach())
    assert_array_equal(new.both.weight.detach()[[0, 3, 7, 10]], fresh["both.weight"][[0, 3, 7, 10]])  # new rows are the fresh ones


@pytest.mark.parametrize(
    ("optimizer", "options", "key", "begin"),
    [
        (torch.optim.Adam, {}, "exp_avg_sq", 0.0),
        (torch.optim.SGD, {"momentum": 0.9}, "momentum_buffer", 0.0),
        (torch.optim.Adagrad, {"initial_accumulator_value": 0.5}, "sum", 0.5),
    ],
)
def test_new_rows_begin_with_the_optimizers_initial_value(optimizer, options, key, begin):
    old, new, first, trainer, _ = grown_odd(optimizer, **options)
    before, after = first.optimizer.state[old.across][key], trainer.optimizer.state[new.across][key]
    assert_array_equal(after[:, [0, 1, 3, 4]], before)
    assert (after[:, [2, 5]] == begin).all()
    if "step" in first.optimizer.state[old.across]:
        assert float(trainer.optimizer.state[new.across]["step"]) == 1


def test_new_rows_are_the_mean_of_those_that_were_observed():
    torch.manual_seed(0)
    new, codes = Odd(5, 6), Codes(np.array([-1, 0, 1, -1, 2]), np.array([0, 1, -1, 2, 3, -1]), (3, 4))
    before = {name: tensor.clone().numpy() for name, tensor in tensors_of(new).items()}
    old = tensors_of(Odd(3, 4))
    sides = find_sides(old, tensors_of(new), codes, lambda *shape: tensors_of(Odd(*shape)))
    observed = np.isin(np.arange(5), [1, 4]), np.isin(np.arange(6), [0, 1, 3])  # of those that were there not all
    fill_new(tensors_of(new), sides, codes, observed)
    expected = {name: values.copy() for name, values in before.items()}
    expected["both.weight"][[0, 3]] = before["both.weight"][[1, 4]].mean(0)
    expected["both.weight"][[7, 10]] = before["both.weight"][[5, 6, 8]].mean(0)
    expected["across"][:, [2, 5]] = before["across"][:, [0, 1, 3]].mean(1, keepdims=True)
    expected["square"][[0, 3]] = expected["square"][[1, 4]].mean(0)
    expected["square"][:, [2, 5]] = expected["square"][:, [0, 1, 3]].mean(1, keepdims=True)
    for name, tensor in tensors_of(new).items():
        np.testing.assert_allclose(tensor.numpy(), expected[name], rtol=1e-6, atol=1e-7, err_msg=name)
