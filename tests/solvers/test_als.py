"""Rows against fixed features by linear solves and Newton's steps, leave-one-out, and ALS on the shared objective."""

import numpy as np
import pytest
import torch
from every_loss import RATING_LOSSES, every_rating_loss
from rating_problems import MODULES, Problem, Rows
from solving import fit_als, minimise

from sk_torchmf.nn import POINTWISE, BiasedMF
from sk_torchmf.solvers import als
from sk_torchmf.solvers.als import RowPrior

pytestmark = pytest.mark.usefixtures("one_thread", "each_kernels")


def solve_one_by_hand(Y, offset, rating, weight, precision, shift):
    """Minimise sum w (o + y.x - r)^2 + (x - m)' precision (x - m), where shift = precision m."""
    return np.linalg.solve(precision + (Y.T * weight) @ Y, shift + (Y.T * weight) @ (rating - offset))


def test_solve_rows_equals_a_linear_solve_for_each_row():
    problem = Rows()
    expected = [solve_one_by_hand(*problem.row(u)) for u in range(len(problem.lengths))]
    np.testing.assert_allclose(problem.solve(), expected, rtol=1e-10)


def test_solve_rows_in_float32_keeps_its_dtype():
    problem = Rows()
    rows = problem.solve(dtype=torch.float32)
    assert rows.dtype == torch.float32
    np.testing.assert_allclose(rows, problem.solve(), rtol=1e-3, atol=1e-4)  # float32 rounding, times the condition of the rows


@pytest.mark.parametrize("numbers", [1, 40, 2**21])
def test_solve_rows_does_not_depend_on_the_size_of_its_blocks(monkeypatch, numbers):
    problem = Rows()
    rows, held_out = problem.solve(leave_one_out=True)
    monkeypatch.setattr(als, "BLOCK", numbers)
    again, held_out_again = problem.solve(leave_one_out=True)
    np.testing.assert_allclose(again, rows, rtol=1e-10)
    np.testing.assert_allclose(held_out_again, held_out, rtol=1e-10)


@every_rating_loss
def test_a_row_without_ratings_is_the_prior_mean(loss):
    problem = Rows(loss)
    np.testing.assert_allclose(problem.solve()[1], np.linalg.solve(problem.precision[0], problem.shift[0]), rtol=1e-10)


def test_rows_without_any_rating_at_all():
    problem = Rows()
    problem.pointers, problem.columns = np.zeros(4, dtype=np.int64), np.empty(0, dtype=np.int64)
    problem.rating, problem.weight = np.empty(0), np.empty(0)
    rows, held_out = problem.solve(leave_one_out=True)
    mean = np.linalg.solve(problem.precision[0], problem.shift[0])
    np.testing.assert_allclose(rows, np.tile(mean, (3, 1)), rtol=1e-10)
    assert held_out.shape == (0,)


def test_a_prior_at_a_count_mixes_its_three_powers():
    problem = Rows()
    prior = RowPrior(torch.from_numpy(problem.precision), torch.from_numpy(problem.shift))
    precision, shift = prior.at(torch.tensor([0.0, 16.0], dtype=torch.float64))
    np.testing.assert_allclose(precision[0], problem.precision[0])
    np.testing.assert_allclose(precision[1], problem.precision[0] + 8 * problem.precision[1] + 16 * problem.precision[2])
    np.testing.assert_allclose(shift[1], problem.shift[0] + 8 * problem.shift[1] + 16 * problem.shift[2])


def test_leave_one_out_equals_solving_again_without_each_rating():
    problem = Rows()
    _, held_out = problem.solve(leave_one_out=True)
    expected = []
    for u in range(len(problem.lengths)):
        Y, offset, rating, weight, precision, shift = problem.row(u)  # the ridge stays that of the full row
        for left_out in range(len(rating)):
            keep = np.arange(len(rating)) != left_out
            x = solve_one_by_hand(Y[keep], offset[keep], rating[keep], weight[keep], precision, shift)
            expected.append(offset[left_out] + Y[left_out] @ x)
    np.testing.assert_allclose(held_out, expected, rtol=1e-10)


def test_leave_one_out_gives_the_same_rows():
    problem = Rows()
    np.testing.assert_array_equal(problem.solve(leave_one_out=True)[0], problem.solve())


def test_leave_one_out_does_not_know_the_rating_it_predicts():
    problem = Rows()
    before = problem.solve(leave_one_out=True)[1]
    problem.rating[6] += 100.0
    after = problem.solve(leave_one_out=True)[1]
    np.testing.assert_allclose(after[6], before[6], rtol=1e-8)
    assert abs(after[7] - before[7]) > 1e-3  # its neighbour in the row does


@pytest.mark.parametrize("loss", ["huber", "logistic", "poisson"])
def test_newton_reaches_the_stationary_point(loss):
    problem = Rows(loss)
    rows = problem.solve().numpy()
    for u, x in enumerate(rows):
        Y, offset, rating, weight, precision, shift = problem.row(u)
        pull = Y.T @ (weight * RATING_LOSSES[loss].slope(offset + Y @ x, rating))
        push = 2 * (precision @ x - shift)
        # Eight steps with a curvature that is an upper bound converge linearly: three digits of the forces that balance.
        scale = np.abs(Y.T) @ (weight * np.abs(RATING_LOSSES[loss].slope(offset, rating))) + np.abs(shift)
        assert np.abs(pull + push).max() < 1e-3 * scale.max(), f"row {u}"


def test_huber_without_outliers_is_the_linear_solution():
    problem = Rows("huber")
    problem.rating = problem.offset[problem.columns] + 0.01 * problem.rating  # every residual stays below one
    problem.shift *= 0.0
    expected = [solve_one_by_hand(*problem.row(u)) for u in range(len(problem.lengths))]
    np.testing.assert_allclose(problem.solve(), expected, rtol=1e-8, atol=1e-12)


def test_a_weight_of_two_is_the_rating_given_twice():
    once, twice = Rows(), Rows()
    once.weight[:] = 2.0
    twice.weight[:] = 1.0
    starts = twice.pointers[:-1].repeat(2 * np.array(Rows.lengths))
    within = np.concatenate([np.tile(np.arange(n), 2) for n in Rows.lengths])
    index = (starts + within).astype(int)
    twice.columns, twice.rating, twice.weight = twice.columns[index], twice.rating[index], twice.weight[index]
    twice.pointers = 2 * twice.pointers
    np.testing.assert_allclose(twice.solve(), once.solve(), rtol=1e-10)


@MODULES
@every_rating_loss
def test_als_never_raises_the_objective_and_reaches_that_of_lbfgs(kind, loss):
    weighted = (kind is BiasedMF) == (loss in ("huber", "logistic"))  # each loss and each kind with weights and without
    problem = Problem(kind, POINTWISE[loss], weighted)
    module, other = problem.start(), problem.start()
    before = problem.objective(module).item()
    _, history = fit_als(module, problem.objective, max_iter=100, tol=0)
    losses = np.array([before, *history["loss"]])
    assert (np.diff(losses) <= 1e-9 * np.abs(losses[1:])).all()  # rounding of a converged objective
    assert problem.objective(module).item() == history["loss"][-1]
    minimise(other, problem.objective, "lbfgs", max_iter=50, tol=0)
    assert history["loss"][-1] == pytest.approx(problem.objective(other).item(), rel=1e-4)
