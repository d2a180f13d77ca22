"""The point-estimate solvers: rows against fixed features, the objective, and the loop over torch's optimizers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from solving import fit_als, minimise

from sk_torchmf import DivergenceError
from sk_torchmf.nn import POINTWISE, BiasedMF, Pairs, PlainMF, Plan, squared_error
from sk_torchmf.solvers import als
from sk_torchmf.solvers.als import RowPrior, solve_rows
from sk_torchmf.solvers.objective import POWER, Objective
from sk_torchmf.solvers.optimizers import OPTIMIZERS

WIDTH, N_COLUMNS = 3, 7


pytestmark = pytest.mark.usefixtures("one_thread")


SLOPE = {
    "squared_error": lambda s, r: 2 * (s - r),
    "huber": lambda s, r: 2 * np.clip(s - r, -1, 1),
    "poisson": lambda s, r: np.exp(s) - r,
    "logistic": lambda s, r: 1 / (1 + np.exp(-s)) - r,
}
VALUE = {
    "squared_error": lambda s, r: (s - r) ** 2,
    "huber": lambda s, r: np.where(abs(s - r) <= 1, (s - r) ** 2, 2 * abs(s - r) - 1),
    "poisson": lambda s, r: np.exp(s) - r * s,
    "logistic": lambda s, r: np.log(1 + np.exp(s)) - r * s,
}


class Rows:
    """A small sparse matrix of ratings with weights, features of its columns, and a prior that is full in every power."""

    lengths = (4, 0, 1, 7, 2)

    def __init__(self, loss="squared_error", seed=0):
        rng = np.random.default_rng(seed)
        self.pointers = np.concatenate([[0], np.cumsum(self.lengths)])
        self.columns = np.concatenate([rng.choice(N_COLUMNS, n, replace=False) for n in self.lengths])
        n = len(self.columns)
        self.rating = rng.integers(0, 2, n).astype(float) if loss == "logistic" else rng.uniform(0, 3, n)
        self.weight = rng.uniform(0.2, 2, n)
        self.features, self.offset = rng.normal(size=(N_COLUMNS, WIDTH)), rng.normal(size=N_COLUMNS)
        roots = rng.normal(size=(3, WIDTH, WIDTH))
        self.precision, self.shift = roots @ roots.transpose(0, 2, 1) + 0.3 * np.eye(WIDTH), rng.normal(size=(3, WIDTH))
        self.loss = POINTWISE[loss]

    def row(self, u):
        """Features, offset, rating and weight of row u, and its prior: precision and precision times mean."""
        span = slice(self.pointers[u], self.pointers[u + 1])
        columns, weight = self.columns[span], self.weight[span]
        powers = np.array([1.0, weight.sum() ** 0.75, weight.sum()])
        prior = np.tensordot(powers, self.precision, 1), powers @ self.shift
        return self.features[columns], self.offset[columns], self.rating[span], weight, *prior

    def solve(self, *, dtype=torch.float64, **options):
        values = [torch.from_numpy(a).to(dtype) for a in (self.rating, self.weight, self.features, self.offset)]
        prior = RowPrior(torch.from_numpy(self.precision).to(dtype), torch.from_numpy(self.shift).to(dtype))
        return solve_rows(torch.from_numpy(self.pointers), torch.from_numpy(self.columns), *values, prior, self.loss, **options)


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


@pytest.mark.parametrize("loss", POINTWISE)
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
        pull = Y.T @ (weight * SLOPE[loss](offset + Y @ x, rating))
        push = 2 * (precision @ x - shift)
        # Eight steps with a curvature that is an upper bound converge linearly: three digits of the forces that balance.
        scale = np.abs(Y.T) @ (weight * np.abs(SLOPE[loss](offset, rating))) + np.abs(shift)
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


ALPHA, MEAN, K = 0.07, 1.3, 3


class Problem:
    """Weighted ratings with duplicates, in user-major order, and a module away from its start."""

    def __init__(self, kind, loss=squared_error, weighted=True, empty=False, dtype=torch.float64, seed=0):
        rng = np.random.default_rng(seed)
        n_users, n_items = 9 + empty, 7 + empty
        user = np.concatenate([np.arange(9), rng.integers(0, 9, 31)])  # everyone below 9 and 7 has a rating
        item = np.concatenate([np.arange(9) % 7, rng.integers(0, 7, 31)])
        self.pairs = Pairs(user, item, n_users, n_items)
        rating = rng.integers(0, 2, 40).astype(float) if loss.name == "logistic" else rng.uniform(0, 4, 40)
        self.rating = torch.from_numpy(rating).to(dtype)
        self.weight = torch.from_numpy(rng.uniform(0.5, 2, 40)).to(dtype) if weighted else None
        self.kind, self.dtype, self.seed = kind, dtype, seed
        self.module = self.start()
        with torch.no_grad():
            for parameter in self.module.parameters():
                parameter += torch.from_numpy(rng.normal(size=tuple(parameter.shape))).to(dtype)
        self.objective = Objective.build(self.module, Plan(self.pairs), self.rating, self.weight, loss, alpha=ALPHA, mean=MEAN)

    def start(self):
        generator = torch.Generator().manual_seed(self.seed)
        return self.kind(*self.pairs.shape, K, mean=MEAN, generator=generator, dtype=self.dtype)


def value_by_hand(problem, kind, loss):
    """The objective in a loop over pairs and rows, from the formulas in the documentation."""
    P, Q = (getattr(problem.module, f"{side}_factors").detach().numpy() for side in ("user", "item"))
    biases = [getattr(problem.module, f"{side}_biases").detach().numpy() for side in ("user", "item")] if kind is BiasedMF else None
    users, items = problem.pairs.users.tolist(), problem.pairs.columns.tolist()
    total, counts = 0.0, (np.zeros(len(P)), np.zeros(len(Q)))
    for at, (u, i) in enumerate(zip(users, items, strict=True)):
        weight = 1.0 if problem.weight is None else problem.weight[at].item()
        score = P[u] @ Q[i] + (0.0 if biases is None else MEAN + biases[0][u] + biases[1][i])
        total += weight * VALUE[loss](score, problem.rating[at].item())
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


MODULES = pytest.mark.parametrize("kind", [PlainMF, BiasedMF])
WEIGHTED = pytest.mark.parametrize("weighted", [False, True], ids=["counts", "weights"])


@MODULES
@WEIGHTED
@pytest.mark.parametrize("empty", [False, True], ids=["full", "with empty rows"])
@pytest.mark.parametrize("loss", POINTWISE)
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


@MODULES
@pytest.mark.parametrize("loss", ["squared_error", "logistic"])
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


@MODULES
@WEIGHTED
@pytest.mark.parametrize("loss", POINTWISE)
def test_als_never_raises_the_objective_and_reaches_that_of_lbfgs(kind, weighted, loss):
    problem = Problem(kind, POINTWISE[loss], weighted)
    module, other = problem.start(), problem.start()
    before = problem.objective(module).item()
    _, history = fit_als(module, problem.objective, max_iter=100, tol=0)
    losses = np.array([before, *history["loss"]])
    assert (np.diff(losses) <= 1e-9 * np.abs(losses[1:])).all()  # rounding of a converged objective
    assert problem.objective(module).item() == history["loss"][-1]
    minimise(other, problem.objective, "lbfgs", max_iter=50, tol=0)
    assert history["loss"][-1] == pytest.approx(problem.objective(other).item(), rel=1e-4)


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
