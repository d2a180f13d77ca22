"""Losses, optimizers and schedulers in every form that names one, and the words for each mistake."""

from functools import partial

import numpy as np
import pytest
import torch
import tutorial
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn
from torch_models import TEST, TRAIN, small

from sk_torchmf import DivergenceError, TorchFactorization

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    "loss", ["squared_error", "MSELoss", nn.MSELoss, nn.MSELoss(), nn.functional.mse_loss, lambda s, r: (s - r).square().mean()]
)
def test_a_loss_can_be_given_in_many_ways(loss):
    model = small(loss=loss).fit(TRAIN)
    assert_allclose(model.predict(TEST), small().fit(TRAIN).predict(TEST), rtol=1e-4)  # float32, sums in another order


def test_the_options_of_a_loss_reach_it():
    strict, loose = (small(loss="HuberLoss", loss__delta=delta).fit(TRAIN).history_["loss"][0] for delta in (0.1, 10.0))
    assert strict < loose / 2


def test_groups_of_parameters_have_options_of_their_own():
    options = {"*_biases*": {"lr": 0.0}, "*_factors*": {"lr": 0.2}}
    model = small(parameter_options=options).fit(TRAIN)
    start = small(max_iter=1, optimizer__lr=1e-12).fit(TRAIN)
    assert_array_equal(model.module_.user_biases.weight.detach(), start.module_.user_biases.weight.detach())
    assert (model.module_.user_factors.weight != start.module_.user_factors.weight).any()
    with pytest.raises(ValueError, match=r"no parameter is called 'user_bias'\. Did you mean user_biases"):
        small(parameter_options={"user_bias": {"lr": 1.0}}).fit(TRAIN)


def test_the_scheduler_takes_a_step_an_epoch():
    rates = []

    class Spy(torch.optim.SGD):
        def step(self, closure=None):
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    small(optimizer=Spy, batch_size=None, max_iter=3, optimizer__lr=1.0, scheduler="ExponentialLR", scheduler__gamma=0.5).fit(TRAIN)
    assert rates == [1.0, 0.5, 0.25]
    small(scheduler="ReduceLROnPlateau", scheduler__patience=0).fit(TRAIN)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"module__n_factor": 3}, "module__n_factor is not a parameter of Biased. Did you mean module__n_factors?"),
        ({"optimizer__lrr": 3}, "optimizer__lrr is not a parameter of Adagrad. Did you mean optimizer__lr?"),
        ({"optimizer": "Adagard"}, "optimizer='Adagard' is not in torch.optim. Did you mean Adagrad?"),
        ({"loss": "MSLoss"}, "loss='MSLoss' is not a loss. Did you mean MSELoss?"),
        ({"loss": "mse"}, "Did you mean MSELoss?"),
        ({"scheduler": "StepLR"}, "scheduler StepLR lacks an argument: .*step_size"),
        ({"parameter_options": {"*": 0.1}}, "must map a pattern to a dict of options"),
        ({"loss__beta": 1.0}, "loss__beta is not a parameter of MSELoss"),
        ({"loss": nn.MSELoss(), "loss__reduction": "sum"}, "loss__reduction is for a loss given as a class"),
        ({"scheduler": "StepLr", "scheduler__step": 1}, "Did you mean scheduler__step_size?"),
        ({"scheduler__gamma": 0.5}, "scheduler__gamma needs a scheduler"),
        ({"optimizer": nn.Linear}, "optimizer must be a subclass of torch.optim.*Got Linear"),
        ({"optimizer": len}, "optimizer must be a subclass of torch.optim.*Got len"),
        ({"module": tutorial.Plain(3, 4)}, "module must be a class.*Got an instance of Plain. Pass module=Plain"),
        ({"module": nn.Linear}, "module__n_factors is not a parameter of Linear"),
        ({"module": lambda n_users, n_factors: None}, "must accept the arguments n_users and n_items"),
        ({"module": lambda n_users, n_items, n_factors: {}}, "must make a torch.nn.Module. It made dict"),
        ({"module": dict}, "module must be a subclass of torch.nn.Module, or a function that makes a module"),
    ],
)  # fmt: skip
def test_a_wrong_parameter_is_named_with_a_cure(params, message):
    with pytest.raises((ValueError, TypeError), match=message):
        small(**params).fit(TRAIN)


def test_a_loss_that_does_not_reduce_is_refused():
    with pytest.raises(ValueError, match=r"must reduce a batch to one number.*Got shape \(64,\)"):
        small(loss=nn.MSELoss(reduction="none")).fit(TRAIN)
    with pytest.raises(ValueError, match=r"must reduce a batch to one number.*Got a float"):
        small(loss=lambda s, r: 1.0).fit(TRAIN)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"optimizer": "SGD", "optimizer__weight_decay": 0.1}, "optimizer__weight_decay=0.1"),
        ({"optimizer": "Adagrad", "optimizer__weight_decay": 0.1}, "optimizer__weight_decay=0.1"),
        ({"optimizer": "Adam"}, "optimizer=Adam"),
        ({"optimizer": "AdamW"}, "optimizer=AdamW"),
        ({"optimizer": "RMSprop"}, "optimizer=RMSprop"),
    ],
)
def test_what_torch_rejects_with_sparse_gradients_is_refused_with_a_way_out(options, named):
    with pytest.raises(ValueError, match=rf"{named} cannot be combined with the sparse gradients.*Use sparse=False"):
        small(**options).fit(TRAIN)


def test_an_optimizer_for_sparse_gradients_alone_is_refused_dense_ones():
    with pytest.raises(ValueError, match="optimizer=SparseAdam cannot take these gradients"):
        small(optimizer="SparseAdam", module__sparse=False).fit(TRAIN)


def test_momentum_of_sparse_gradients_is_refused():
    # torch takes it and concatenates every gradient it ever saw: epochs of 6, 12 and 17 s
    with pytest.raises(ValueError, match=r"optimizer__momentum=0.9 cannot be combined with the sparse gradients"):
        small(optimizer="SGD", optimizer__momentum=0.9).fit(TRAIN)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_weights_of_one_change_nothing_whatever_the_reduction(reduction):
    options = {"batch_size": None, "optimizer": "SGD", "optimizer__lr": 1e-6, "max_iter": 1}
    for loss in (partial(nn.functional.mse_loss, reduction=reduction), nn.MSELoss(reduction=reduction)):
        plain, weighted = (small(loss=loss, **options).fit(TRAIN, sample_weight=w).history_ for w in (None, np.ones(len(TRAIN))))
        assert weighted["loss"] == pytest.approx(plain["loss"], rel=1e-5)
    with pytest.raises(ValueError, match="must reduce a batch"):
        small(loss=nn.MSELoss(reduction="none")).fit(TRAIN, sample_weight=np.ones(len(TRAIN)))


def test_an_optimizer_needs_no_closure_and_no_rate():
    class Own(torch.optim.Optimizer):
        def __init__(self, params, size=0.01):
            super().__init__(params, {"size": size})

        def step(self):
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.data.add_(parameter.grad, alpha=-group["size"])

    model = TorchFactorization(tutorial.Parameters, optimizer=Own, optimizer__size=0.5, module__n_factors=3, random_state=0)
    assert np.diff(model.fit(TRAIN).history_["loss"])[:3].max() < 0
    with pytest.raises(DivergenceError):
        model.set_params(optimizer__size=1e9).fit(TRAIN)


def test_an_instance_of_an_optimizer_is_refused_with_the_way():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    with pytest.raises(TypeError, match=r"Pass optimizer=SGD, and its arguments as optimizer__"):
        small(optimizer=optimizer).fit(TRAIN)
