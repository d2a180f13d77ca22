"""TorchFactorization: any module, loss and optimizer as an estimator like the others."""

import pickle

import numpy as np
import pytest
import torch
import tutorial
from contract import DATA
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn
from torch_models import NOISE, TEST, TRAIN, ModuleContract, rmse, small, variant

from sk_torchmf import DivergenceError, Interactions, TorchFactorization
from sk_torchmf.nn import huber

pytestmark = pytest.mark.usefixtures("one_thread")


class TestContract(ModuleContract):
    """As every estimator; all ratings in each step, which is what makes weights and repeated rows the same."""

    def make(self, **params):
        options = {"module__n_factors": 3, "optimizer__lr": 0.1, "batch_size": None, "max_iter": 20, "random_state": 0}
        return TorchFactorization(tutorial.Parameters, optimizer="Adam", **options | params)

    def test_a_weight_of_zero_is_absence(self):  # a table's ids without weight keep their row of the module, drawn at random
        keep = np.arange(len(DATA)) % 3 > 0
        weighted = self.make(dtype="float64").fit(DATA, sample_weight=keep.astype(float))
        assert_allclose(self.grid(weighted), self.grid(self.fitted(data=DATA[keep], dtype="float64")), rtol=1e-9)
        assert weighted.seen_.nnz == keep.sum()


# what people train

SETTINGS = {
    "plain, SGD": (tutorial.Plain, {"optimizer": "SGD", "optimizer__lr": 4.0}),
    "biased, SGD": (tutorial.Biased, {"optimizer": "SGD", "optimizer__lr": 4.0}),
    "plain, Adagrad": (tutorial.Plain, {"optimizer": torch.optim.Adagrad, "optimizer__lr": 1.0}),
    "biased, Adagrad": (tutorial.Biased, {"optimizer": torch.optim.Adagrad, "optimizer__lr": 1.0}),
    "plain, SparseAdam": (tutorial.Plain, {"optimizer": "SparseAdam", "optimizer__lr": 0.03}),
    "biased, Adam": (tutorial.Biased, {"module__sparse": False, "optimizer": "Adam", "optimizer__lr": 0.03}),
    "plain, weight decay": (
        tutorial.Plain,
        {"module__sparse": False, "optimizer": "SGD", "optimizer__lr": 4.0, "optimizer__weight_decay": 1e-5},
    ),
    "biased, momentum": (
        tutorial.Biased,
        {"module__sparse": False, "optimizer": "SGD", "optimizer__lr": 0.4, "optimizer__momentum": 0.9},
    ),
    "dropout": (tutorial.Dropout, {"module__p": 0.02, "optimizer": "Adam", "optimizer__lr": 0.03}),
    "penalty": (tutorial.Penalised, {"module__alpha": 1e-5, "optimizer": "Adam", "optimizer__lr": 0.03}),
    "bare parameters": (tutorial.Parameters, {"optimizer": "Adam", "optimizer__lr": 0.03}),
    "squeezed": (tutorial.Squeezed, {"optimizer": "Adagrad", "optimizer__lr": 1.0, "batch_size": 149}),  # 8100 = 54 * 149 + 54
}


@pytest.mark.parametrize("name", SETTINGS)
def test_every_model_of_the_tutorial_comes_within_ten_percent_of_the_noise(name):
    module, options = SETTINGS[name]
    options = {"module__n_factors": 3, "max_iter": 40, "batch_size": 128, "random_state": 0} | options
    schedule = {"scheduler": "CosineAnnealingLR", "scheduler__T_max": 40}
    model = TorchFactorization(module, "MSELoss", **options, **schedule).fit(TRAIN)
    assert rmse(model) < 1.1 * NOISE


def test_a_loss_that_sums_is_weighted_as_its_sum():
    weight = np.where(np.arange(len(TRAIN)) % 2 == 0, 2.0, 1.0)
    options = {"batch_size": None, "optimizer": "SGD", "optimizer__lr": 1e-5, "dtype": "float64"}
    twice = TRAIN[np.repeat(np.arange(len(TRAIN)), weight.astype(int))]
    scale = weight.mean()  # the estimator divides weights by their mean, so that a learning rate means the same
    weighted = small(loss=nn.MSELoss(reduction="sum"), **options).fit(TRAIN, sample_weight=weight)
    repeated = small(loss=nn.MSELoss(reduction="sum"), **options | {"optimizer__lr": 1e-5 / scale}).fit(twice)
    assert_allclose(weighted.predict(TEST), repeated.predict(TEST), rtol=1e-9)


def test_weights_need_a_loss_that_tells_the_loss_of_each_pair():
    with pytest.raises(ValueError, match='Weights need a loss that takes reduction="none"'):
        small(loss=lambda s, r: (s - r).square().mean()).fit(TRAIN, sample_weight=np.ones(len(TRAIN)))


WRONG = {
    "wide": (lambda self, user, item: self.user_factors(user) * self.item_factors(item), r"shape \(64,\).*Got shape \(64, 3\)"),
    "reduced": (lambda self, user, item: self.user_factors(user).sum(), r"Got shape \(\)"),
    "float": (lambda self, user, item: 3.0, "must return a tensor.*Got float"),
    "no item": (lambda self, user: self.user_factors(user).sum(1), r"must define forward\(user, item\)"),
    "one more": (lambda self, user, item, day: user, "must define forward.*day"),
    "nan": (lambda self, user, item: torch.nan * self.user_factors(user).sum(1), "returned nan or inf for 64 of the first 64"),
    "detached": (lambda self, user, item: self.user_factors(user).sum(1).detach(), "no gradient"),
    "constant": (lambda self, user, item: 0.0 * user.float(), "no gradient"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_module_is_named_with_the_rule(name):
    forward, message = WRONG[name]
    with pytest.raises((ValueError, TypeError), match=message):
        small(variant(forward)).fit(TRAIN)


def test_a_module_without_parameters_is_refused():
    class Bare(nn.Module):
        def __init__(self, n_users, n_items, n_factors):
            super().__init__()

        def forward(self, user, item):
            return user + item

    with pytest.raises(ValueError, match="must have at least one parameter that requires a gradient"):
        small(Bare).fit(TRAIN)


def test_an_error_of_the_modules_own_is_its_own():
    with pytest.raises(RuntimeError, match="size of tensor"):
        small(variant(lambda self, user, item: self.user_factors(user).sum(1) + torch.ones(7))).fit(TRAIN)


def test_divergence_names_epoch_and_rate():
    with pytest.raises(DivergenceError, match=r"in epoch \d+ \(optimizer__lr=1e\+06\). Lower optimizer__lr"):
        small(optimizer="SGD", optimizer__lr=1e6, max_iter=5).fit(TRAIN)


def test_ratings_are_needed():
    with pytest.raises(ValueError, match="needs ratings"):
        small().fit(Interactions([0, 1], [1, 0]))


# state


def test_pickle_round_trip():
    model = small().fit(TRAIN)
    again = pickle.loads(pickle.dumps(model))
    assert_array_equal(again.predict(TEST), model.predict(TEST))
    assert again.get_params() == model.get_params()
    assert all(parameter.grad is None for parameter in model.module_.parameters())


def test_verbose_prints_a_line_an_epoch(capsys):
    model = small(verbose=1).fit(TRAIN)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == ["[TorchFactorization] epoch 1", "[TorchFactorization] epoch 2"]
    assert set(model.history_) == {"loss", "seconds"}
    assert model.n_iter_ == len(model.history_["loss"]) == 2


@pytest.mark.parametrize("loss", ["squared_error", huber, "poisson"])
def test_losses_of_ours_pickle_by_name(loss):
    data = Interactions(DATA.user_ids, DATA.item_ids, np.abs(DATA.ratings))
    model = small(loss=loss).fit(data)
    assert pickle.loads(pickle.dumps(model)).loss == model.loss
    module = pickle.loads(pickle.dumps(model.to_module()))
    assert_allclose(module(torch.tensor([3]), torch.tensor([4])).item(), model.predict(3, 4), rtol=1e-5)


def test_a_penalty_that_is_a_number_is_a_parameter_of_the_modules_own():
    class Named(tutorial.Plain):
        penalty = 0.1

    assert np.isfinite(small(Named).fit(TRAIN).predict(TEST)).all()


@pytest.mark.parametrize("value", [torch.ones(2), None, "much"])
def test_a_penalty_that_is_no_number_is_refused(value):
    class Wrong(tutorial.Plain):
        def penalty(self):
            return value

    with pytest.raises(ValueError, match=r"penalty\(\) must return one number"):
        small(Wrong).fit(TRAIN)


def test_an_error_between_steps_is_the_modules_own():
    calls = []

    class Failing(tutorial.Plain):
        def forward(self, user, item):
            calls.append(1)
            if len(calls) == 3:
                raise RuntimeError("dense bug of my own")
            return super().forward(user, item)

    with pytest.raises(RuntimeError, match="dense bug of my own"):
        small(Failing, module__sparse=False, optimizer="LBFGS", optimizer__lr=0.1, batch_size=None).fit(TRAIN)


def test_a_fit_that_diverges_leaves_the_estimator_as_it_was():
    model = small().fit(TRAIN)
    before = model.predict(DATA)
    with pytest.raises(DivergenceError):
        model.set_params(optimizer="SGD", optimizer__lr=1e6, max_iter=9).fit(DATA)
    assert_array_equal(model.predict(DATA), before)
