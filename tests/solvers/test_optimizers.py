"""The loop over torch's optimizers: where it comes to, when it stops, and that it can be repeated."""

import numpy as np
import pytest
import torch
from rating_problems import MODULES, Problem
from solving import minimise

from sk_torchmf import DivergenceError
from sk_torchmf.nn import POINTWISE, BiasedMF, Pairs, PlainMF, Plan, squared_error
from sk_torchmf.solvers.objective import Objective
from sk_torchmf.solvers.optimizers import OPTIMIZERS

pytestmark = pytest.mark.usefixtures("one_thread", "each_kernels")


@MODULES
@pytest.mark.parametrize(
    ("optimizer", "batch_size"),
    [(name, None) for name in OPTIMIZERS]
    + [(name, 10) for name in OPTIMIZERS if name != "lbfgs"],  # which takes the whole objective
)
def test_every_optimizer_lowers_the_objective(kind, optimizer, batch_size):
    problem = Problem(kind)
    module = problem.start()
    generator = torch.Generator().manual_seed(0)
    before = problem.objective(module).item()
    _, history = minimise(module, problem.objective, optimizer, batch_size=batch_size, max_iter=20, tol=0, generator=generator)
    assert problem.objective(module).item() < 0.9 * before
    assert len(history["loss"]) == len(history["seconds"]) <= 20
    if batch_size is None:
        assert history["loss"][0] == pytest.approx(before, rel=1e-12)


@pytest.mark.parametrize("tol", [1e-1, 1e-2, 1e-3])
def test_minimise_stops_by_tol_after_five_small_improvements(tol):
    problem = Problem(BiasedMF)
    _, history = minimise(problem.start(), problem.objective, "adam", learning_rate=0.02, max_iter=2000, tol=tol)
    losses = np.array(history["loss"])
    small = -np.diff(losses) < tol * losses[:-1]
    assert len(losses) < 2000
    assert small[-5:].all()
    runs = np.convolve(small, np.ones(5), mode="valid")
    assert (runs[:-1] < 5).all()  # and no earlier


def test_without_tol_minimise_runs_to_max_iter():
    problem = Problem(PlainMF)
    epochs = []
    _, history = minimise(
        problem.start(), problem.objective, "sgd", max_iter=30, tol=0, report=lambda epoch, value: epochs.append((epoch, value))
    )
    assert len(history["loss"]) == 30
    assert epochs == list(enumerate(history["loss"], start=1))


@pytest.mark.parametrize(("kind", "loss"), [(PlainMF, "squared_error"), (BiasedMF, "logistic")])
def test_two_optimizers_reach_the_same_objective(kind, loss):
    problem = Problem(kind, POINTWISE[loss])
    reached = {}
    for optimizer, options in {"adam": {"learning_rate": 0.02, "max_iter": 800}, "lbfgs": {"max_iter": 60}}.items():
        module = problem.start()
        minimise(module, problem.objective, optimizer, tol=0, **options)
        value = problem.objective(module)
        value.backward()
        largest = max(parameter.grad.abs().max().item() for parameter in module.parameters())
        assert largest < 1e-2, optimizer  # both at a stationary point
        reached[optimizer] = value.item()
    assert reached["adam"] == pytest.approx(reached["lbfgs"], rel=1e-4)


def test_minimise_is_reproducible_and_touches_no_global_seed():
    problem = Problem(BiasedMF)
    state = torch.get_rng_state()
    results = []
    for _ in range(2):
        module = problem.start()
        generator = torch.Generator().manual_seed(3)
        minimise(module, problem.objective, "adam", batch_size=10, max_iter=5, tol=0, generator=generator)
        results.append(module.state_dict())
    assert torch.equal(torch.get_rng_state(), state)
    for name, tensor in results[0].items():
        assert torch.equal(tensor, results[1][name]), name


def test_divergence_names_the_epoch_the_loss_and_the_cure():
    problem = Problem(PlainMF)
    words = r"Loss became (nan|inf|\d.*) in epoch \d+ \(learning_rate=1e\+06\)\. Lower learning_rate or raise alpha\."
    with pytest.raises(DivergenceError, match=words):
        minimise(problem.start(), problem.objective, "sgd", learning_rate=1e6, max_iter=200, tol=0)


def test_a_loss_of_zero_is_no_divergence():
    pairs = Pairs(np.array([0, 1]), np.array([0, 1]), 2, 2)
    module = PlainMF(2, 2, 2, mean=1.0, init_std=0.0, dtype=torch.float64)
    objective = Objective.build(module, Plan(pairs), torch.ones(2, dtype=torch.float64), None, squared_error, alpha=0.1, mean=1.0)
    _, history = minimise(module, objective, "adam", max_iter=20, tol=1e-5)
    assert history["loss"][0] == 0.0
    assert objective(module).item() == 0.0
