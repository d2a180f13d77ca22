"""The training loop by solvers whose losses are known, and the state of every solver."""

import numpy as np
import pytest
from every_solver import SOLVERS, every_solver
from numpy.testing import assert_array_equal

from sk_torchmf import DivergenceError
from sk_torchmf.solvers.base import Solver, copy_state, run, stalled
from sk_torchmf.storage.packing import pack

pytestmark = pytest.mark.usefixtures("one_thread", "each_kernels")


class Scripted(Solver):
    """A solver whose losses are known."""

    def __init__(self, losses):
        self.losses, self.at = losses, 0

    def step(self):
        self.at += 1
        return {"loss": self.losses[self.at - 1], "twice": 2 * self.losses[self.at - 1]}

    def advice(self):
        return ". Do not script it."


def test_the_loop_keeps_all_figures_and_the_time_of_each_epoch():
    history = run(Scripted([3.0, 2.0, 1.0]), max_iter=3)
    assert history["loss"] == [3.0, 2.0, 1.0]
    assert history["twice"] == [6.0, 4.0, 2.0]
    assert len(history["seconds"]) == 3


def test_the_loop_goes_on_from_a_history():
    history = {"loss": [5.0], "twice": [10.0], "seconds": [0.1]}
    run(Scripted([3.0, 2.0, 1.0]), max_iter=3, history=history)
    assert history["loss"] == [5.0, 3.0, 2.0]
    run(Scripted([3.0]), max_iter=3, history=history)
    assert len(history["loss"]) == 3


def test_the_loop_tells_before_and_after_each_epoch_and_stops_when_told():
    calls = []

    def watch(epoch, history, solver):
        calls.append((epoch, list(history["loss"]), solver.at))
        return epoch == 2

    run(Scripted([3.0, 2.0, 1.0]), max_iter=3, begin=lambda: calls.append("begin"), watch=watch)
    assert calls == ["begin", (1, [3.0], 1), "begin", (2, [3.0, 2.0], 2)]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_is_a_divergence(value):
    with pytest.raises(DivergenceError, match=rf"Loss became {value} in iteration 2\. Do not script it."):
        run(Scripted([1.0, value]), max_iter=5)


def test_tol_of_zero_never_stops_even_a_loss_that_rises():
    losses = list(np.arange(1.0, 20.0))
    assert len(run(Scripted(losses), max_iter=19)["loss"]) == 19
    assert len(run(Scripted(losses), max_iter=19, tol=1e-9)["loss"]) == 6
    assert not stalled([1.0] * 9, 0.0)
    assert stalled([1.0] * 6, 1e-9)
    assert not stalled([1.0] * 5, 1e-9)


@every_solver
def test_a_state_is_all_that_the_next_steps_depend_on(kind):
    """The same solver set back, and another one made alike, go the same way again."""
    states, model = [], SOLVERS[kind].make()
    reading, _ = model._read(SOLVERS[kind].data, None, None).observed()
    part = model._part(reading, model._check(), 0, None)
    solver, other = part.make_solver(), part.make_solver()
    run(solver, max_iter=2)
    state = copy_state(solver.state())
    assert state.keys() == {"user", "item", "rest"}
    for side in ("user", "item"):
        assert len({len(rows) for rows in state[side].values()}) <= 1
    for one in (solver, other):
        one.restore(state)
        run(one, max_iter=3)
        states.append(copy_state(one.state()))
        one.restore(state)
    (tree, first), (other_tree, second) = map(pack, states)
    assert tree == other_tree
    assert first.keys() == second.keys()
    for name in first:
        assert_array_equal(first[name], second[name])
