"""Rows that shrink to what their features say: the objective and its coefficients by hand, and the solvers on it."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from numpy.testing import assert_allclose, assert_array_equal
from rating_problems import ALPHA, MEAN, MODULES, WEIGHTED, K, Problem, side_features
from solving import fit_als, minimise

from sk_torchmf import Interactions
from sk_torchmf.nn import POINTWISE, BiasedMF, Pairs, PlainMF, Plan, squared_error
from sk_torchmf.solvers.als import AlternatingLeastSquares
from sk_torchmf.solvers.base import copy_state
from sk_torchmf.solvers.design import SEEN, SideFeatures
from sk_torchmf.solvers.fold_in import fold_in_ratings
from sk_torchmf.solvers.objective import Objective
from sk_torchmf.solvers.optimizers import OPTIMIZERS, Minimiser
from sk_torchmf.solvers.row_regression import own_columns

pytestmark = pytest.mark.usefixtures("one_thread")

ROLES = ("user", "item")
SOLVERS = {
    "als": lambda problem, module: AlternatingLeastSquares(module, problem.objective),
    "adam": lambda problem, module: Minimiser(
        module, problem.objective, "adam", batch_size=10, generator=torch.Generator().manual_seed(0)
    ),
}
every_solver = pytest.mark.parametrize("solver", SOLVERS)


def described(kind, **options):
    """A problem whose rows have features, with coefficients away from where they start."""
    problem = Problem(kind, features=side_features(), **options)
    for at, own in enumerate(problem.objective.regressions.values()):
        coefficients = own.coefficients.clone()
        coefficients[1:, own_columns(K, problem.module.biased)[at]] += 0.3 * torch.randn(
            len(coefficients) - 1, K + problem.module.biased, generator=torch.Generator().manual_seed(at), dtype=torch.float64
        )
        own.restore(coefficients)
    return problem


def features_by_hand(problem, role):
    """The columns of each group, (n_rows, n_columns), without the constant."""
    given, has = side_features(), np.zeros(problem.pairs.shape)
    has[problem.pairs.users, problem.pairs.columns] = 1.0
    groups = given.users if role == "user" else given.items
    found = {}
    for name, matrix in groups.items():
        dense = matrix.toarray()
        square = (dense**2).sum(1)
        found[name] = dense / np.sqrt(square[square > 0].mean())
    has = has if role == "user" else has.T
    found[SEEN] = has / np.sqrt(np.maximum(has.sum(1, keepdims=True), 1))
    return found


def ridge_by_hand(problem, role):
    """The ridge of each factor and bias of a side, (n_rows, width), from the formulas in the documentation."""
    codes, n = (problem.pairs.users, problem.pairs.shape[0]) if role == "user" else (problem.pairs.columns, problem.pairs.shape[1])
    weight = np.ones(len(problem.rating)) if problem.weight is None else problem.weight.numpy()
    count = np.bincount(codes, weight, n)
    of_factor = ALPHA * (10 + count**0.75 * count[count > 0].mean() ** 0.25)
    return np.column_stack([of_factor] * K + [np.full(n, 30 * ALPHA)] * problem.module.biased)


def penalty_by_hand(features, ridge):
    """Of each coefficient, (n_columns, width)."""
    parts = []
    for columns in features.values():
        n, n_columns = columns.shape
        cost = ((columns**2).sum(1)[:, None] * ridge).mean(0)
        parts.append(np.tile(cost * max(2 * n / n_columns, 15), (n_columns, 1)))
    return np.concatenate(parts)


def own_rows(module, role):
    """Factors and biases, (n_rows, width)."""
    rows = [getattr(module, f"{role}_factors").detach()]
    if module.biased:
        rows.append(getattr(module, f"{role}_biases").detach()[:, None])
    return torch.cat(rows, 1).numpy()


def own_coefficients(problem, role):
    """Of factors and biases, with those of the constant."""
    columns = own_columns(K, problem.module.biased)[ROLES.index(role)]
    return problem.objective.regressions[role].coefficients[:, columns].numpy()


@MODULES
@WEIGHTED
def test_the_objective_is_the_one_without_features_about_other_means(kind, weighted):
    problem = described(kind, weighted=weighted)
    expected = Problem(kind, weighted=weighted).objective(problem.module).item()
    for role in ROLES:
        features, ridge = features_by_hand(problem, role), ridge_by_hand(problem, role)
        A, rows = own_coefficients(problem, role), own_rows(problem.module, role)
        said = np.concatenate(list(features.values()), 1) @ A[1:]
        expected += (ridge * (np.square(rows - A[0] - said) - np.square(rows - A[0]))).sum()
        expected += (penalty_by_hand(features, ridge) * A[1:] ** 2).sum()
    assert problem.objective(problem.module).item() == pytest.approx(expected, rel=1e-12)


@MODULES
@WEIGHTED
def test_coefficients_come_to_those_of_a_ridge_regression(kind, weighted):
    problem = described(kind, weighted=weighted)
    starts = {role: own_coefficients(problem, role).copy()[0] for role in ROLES}
    before = problem.objective(problem.module).item()
    for _ in range(40):
        problem.objective.regress(problem.module)
        after = problem.objective(problem.module).item()
        assert after <= before * (1 + 1e-12)
        before = after
    for role in ROLES:
        features, ridge = features_by_hand(problem, role), ridge_by_hand(problem, role)
        penalty, F = penalty_by_hand(features, ridge), np.concatenate(list(features.values()), 1)
        A, rows = own_coefficients(problem, role), own_rows(problem.module, role)
        for d in range(A.shape[1]):
            G = (F.T * ridge[:, d]) @ F + np.diag(penalty[:, d])
            expected = np.linalg.solve(G, F.T @ (ridge[:, d] * (rows[:, d] - starts[role][d])))
            assert_allclose(A[1:, d], expected, rtol=1e-6, atol=1e-8)
        assert_array_equal(A[0], starts[role])  # the constant stays


@MODULES
@WEIGHTED
@pytest.mark.parametrize("limits", [{}, {"max_pairs": 7}, {"max_users": 1}], ids=str)
def test_gradients_of_any_number_of_blocks_are_those_of_autograd(kind, weighted, limits):
    problem = described(kind, weighted=weighted)
    expected = problem.objective(problem.module)
    parameters = dict(problem.module.named_parameters())
    slopes = torch.autograd.grad(expected, list(parameters.values()))
    objective = replace(problem.objective, plan=Plan(problem.pairs, **limits))
    value, gradients = objective.gradients(problem.module)
    torch.testing.assert_close(value, expected.detach(), rtol=1e-12, atol=0)
    for name, slope in zip(parameters, slopes, strict=True):
        torch.testing.assert_close(gradients[name], slope, rtol=1e-10, atol=1e-10)


@MODULES
def test_block_objectives_sum_to_the_whole_and_follow_the_coefficients(kind):
    problem = described(kind)
    parts = problem.objective.blocks(7)
    assert len(parts) > 1
    for _ in range(2):
        total = sum(part(problem.module.block(rows)).item() for rows, part in parts)
        assert total == pytest.approx(problem.objective(problem.module).item(), rel=1e-12)
        problem.objective.regress(problem.module)


@MODULES
@WEIGHTED
@pytest.mark.parametrize("loss", ["squared_error", "logistic"])
def test_als_and_lbfgs_reach_the_same_minimum(kind, weighted, loss):
    reached = []
    for fit, options in ((fit_als, {"max_iter": 200}), (minimise, {"optimizer": "lbfgs", "max_iter": 300})):
        problem = Problem(kind, POINTWISE[loss], weighted, features=side_features(), seed=4)  # some others lead to two minima
        module = problem.start()
        before = problem.objective(module).item()
        _, history = fit(module, problem.objective, tol=0, **options)
        scores = module.forward_pairs(problem.pairs).detach().numpy()
        coefficients = [own_coefficients(problem, role) for role in ROLES]
        reached.append((problem.objective(module).item(), scores, *(own @ own.T for own in coefficients)))  # whatever the rotation
        if fit is fit_als:
            losses = np.array([before, *history["loss"]])
            assert (np.diff(losses) <= 1e-9 * np.abs(losses[1:])).all()
    assert reached[0][0] == pytest.approx(reached[1][0], rel=1e-7)
    for ours, theirs in zip(reached[0][1:], reached[1][1:], strict=True):
        assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)  # roots of the objective's tolerance


@MODULES
@pytest.mark.parametrize(
    ("optimizer", "batch_size"), [(name, None) for name in OPTIMIZERS] + [(name, 10) for name in OPTIMIZERS if name != "lbfgs"]
)
def test_every_optimizer_uses_what_features_say(kind, optimizer, batch_size):
    reached = {}
    for features in (None, side_features()):
        problem = Problem(kind, features=features)
        module = problem.start()
        generator = torch.Generator().manual_seed(0)
        minimise(module, problem.objective, optimizer, batch_size=batch_size, max_iter=20, tol=0, generator=generator)
        reached[features is None] = problem.objective(module).item()
    assert reached[False] < 0.99 * reached[True]  # the minimum over the coefficients too is lower than at zero


@MODULES
@WEIGHTED
@pytest.mark.parametrize("seen_by", ["both", None])
def test_a_new_user_gets_the_row_that_the_fit_would_give(kind, weighted, seen_by):
    given = side_features(seen_by=seen_by)
    problem = Problem(kind, weighted=weighted, features=given, once=True)
    module = problem.start()
    solver = AlternatingLeastSquares(module, problem.objective)
    for _ in range(4):
        solver.step()
    factors = solver.solution()
    features = SimpleNamespace(matrix=sp.hstack(list(given.users.values()), format="csr"), described=np.ones(9, dtype=bool))
    ids = problem.pairs.users.numpy(), problem.pairs.columns.numpy()
    weights = None if problem.weight is None else problem.weight.numpy()
    data = Interactions(*ids, problem.rating.numpy(), num_users=9, num_items=7, weights=weights)
    folded = fold_in_ratings(data, factors, squared_error, features)
    solver.step()  # begins with the users, by the items and coefficients that were there
    users = own_rows(module, "user")
    assert_allclose(folded, users, rtol=1e-9, atol=1e-11)


def rows_by_regression(problem, role, rows):
    """A ridge regression of the finished rows on their features without what was seen, by linear solves."""
    features, ridge = features_by_hand(problem, role), ridge_by_hand(problem, role)
    del features[SEEN]
    F = np.column_stack([np.ones(len(rows)), *features.values()])
    found = np.empty_like(rows)
    for d in range(rows.shape[1]):
        penalty = np.diag(np.append(0.0, np.full(F.shape[1] - 1, ridge[:, d].mean())))
        found[:, d] = F @ np.linalg.solve((F.T * ridge[:, d]) @ F + penalty, F.T @ (ridge[:, d] * rows[:, d]))
    return found


@MODULES
def test_the_weights_say_what_was_learned(kind):
    problem = Problem(kind, features=side_features())
    module = problem.start()
    factors = fit_als(module, problem.objective, max_iter=5)[0]
    given = side_features()
    for role, groups in (("user", given.users), ("item", given.items)):
        weights, rows = factors.side(role).weights, own_rows(module, role)
        encoded = np.concatenate([group.toarray() for group in groups.values()], 1)
        seen = features_by_hand(problem, role)[SEEN] @ weights.seen
        A = own_coefficients(problem, role)
        said = np.concatenate(list(features_by_hand(problem, role).values()), 1) @ A[1:]
        assert_allclose(weights.own_constant + encoded @ weights.own_weights + seen, A[0] + said, rtol=1e-10, atol=1e-12)
        expected = rows_by_regression(problem, role, rows)
        assert_allclose(weights.rows(sp.csr_array(encoded)), expected, atol=1e-6)  # the constant is all but free
        assert_allclose(weights.own_average + seen.mean(0), rows.mean(0), rtol=1e-10, atol=1e-12)
        assert weights.spread is None
        assert weights.variances is None
    precision, shift = factors.prior
    assert_allclose(np.linalg.solve(precision[0], shift[0]), factors.users.weights.own_average, rtol=1e-10, atol=1e-12)


@MODULES
def test_shares_are_of_the_variance_of_the_scores(kind):
    problem = described(kind)
    factors = problem.objective.solution(problem.module)
    others = {"user": own_rows(problem.module, "item")[:, :K], "item": own_rows(problem.module, "user")[:, :K]}
    for role in ROLES:
        Y = others[role] if kind is PlainMF else np.column_stack([others[role], np.ones(len(others[role]))])
        A, rows, start = own_coefficients(problem, role), own_rows(problem.module, role), 1
        parts = {}
        for name, columns in features_by_hand(problem, role).items():
            parts[name] = columns @ A[start : start + columns.shape[1]]
            start += columns.shape[1]

        def variance(part, Y=Y):
            return np.square((part - part.mean(0)) @ Y.T).mean()

        said = sum(parts.values())
        total = variance(said) + variance(rows - said)
        assert factors.side(role).weights.shares == pytest.approx({name: variance(part) / total for name, part in parts.items()})


def test_a_side_without_features_is_as_it_was():
    features = SideFeatures(items=side_features().items)
    problem = Problem(BiasedMF, features=features)
    factors = fit_als(problem.start(), problem.objective, max_iter=3)[0]
    assert problem.objective.regressions.keys() == {"item"}
    assert problem.objective.ridges[0].mean.shape == (K + 2,)
    assert factors.users.weights is None
    assert factors.items.weights is not None


@every_solver
@MODULES
def test_nothing_said_is_nothing_changed(solver, kind):
    """Features that are empty leave a fit as it is without them."""
    empty = SideFeatures({"nothing": sp.csr_array((9, 2))}, {"nothing": sp.csr_array((7, 3))})
    rows = []
    for features in (None, empty):
        problem = Problem(kind, features=features)
        module = problem.start()
        made = SOLVERS[solver](problem, module)
        for _ in range(4):
            made.step()
        rows.append(torch.cat([parameter.detach().view(-1) for parameter in module.parameters()]))
    assert_allclose(rows[1], rows[0], rtol=1e-9, atol=1e-11)


@every_solver
@MODULES
def test_a_solver_goes_on_from_its_state_to_the_same_bits(solver, kind):
    def make():
        problem = Problem(kind, features=side_features(), dtype=torch.float32)
        return SOLVERS[solver](problem, problem.start())

    one, other = make(), make()
    for _ in range(3):
        one.step()
    other.restore(copy_state(one.state()))
    for _ in range(2):
        assert one.step() == other.step()
    state = other.state()
    assert_array_equal(state["user"]["factors"], one.state()["user"]["factors"])
    for role in ROLES:
        assert_array_equal(state["rest"]["coefficients"][role], one.state()["rest"]["coefficients"][role])
        assert (state["rest"]["coefficients"][role][1:] != 0).any()


@every_solver
def test_the_scale_of_a_group_does_not_matter(solver):
    given, rows = side_features(), []
    for factor in (1.0, 1000.0):
        scaled = SideFeatures({name: factor * matrix for name, matrix in given.users.items()}, given.items, "both")
        problem = Problem(BiasedMF, features=scaled)
        module = problem.start()
        made = SOLVERS[solver](problem, module)
        for _ in range(4):
            made.step()
        weights = made.solution().users.weights
        rows.append((own_rows(module, "user"), weights.weights * factor))
    for ours, theirs in zip(*rows, strict=True):
        assert_allclose(ours, theirs, rtol=1e-8, atol=1e-10)


@MODULES
def test_alpha_of_zero_is_finite(kind):
    problem = Problem(kind)
    parts = problem.module, Plan(problem.pairs), problem.rating, problem.weight, squared_error
    objective = Objective.build(*parts, alpha=0.0, mean=MEAN, features=side_features())
    _, history = fit_als(problem.start(), objective, max_iter=5)
    assert np.isfinite(history["loss"]).all()


def planted(n_columns, seed=0):
    """Ratings of 300 users and 200 items, a quarter of which are in no rating, that follow a few columns of the items."""
    rng = np.random.default_rng(seed)
    tags = rng.normal(size=(200, n_columns))
    items = tags[:, :5] @ rng.normal(size=(5, 2)) / 5**0.5 + 0.3 * rng.normal(size=(200, 2))
    users = rng.normal(size=(300, 2))
    has = rng.random((300, 200)) < 0.1
    score = users @ items.T
    return has, score, score + 0.5 * rng.normal(size=score.shape), sp.csr_array(tags)


@every_solver
def test_rows_without_ratings_follow_their_features(solver):
    has, score, rating, tags = planted(8)
    user, item = np.nonzero(has[:, :150])
    pairs, known = Pairs(user, item, 300, 150), torch.from_numpy(rating[:, :150][has[:, :150]])
    module = BiasedMF(300, 150, 4, mean=0.0, init_std=0.1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    features = SideFeatures(items={"tags": tags[:150]})
    objective = Objective.build(module, Plan(pairs), known, None, squared_error, alpha=0.1, mean=0.0, features=features)
    fitted = (fit_als if solver == "als" else minimise)(
        module, objective, **({"max_iter": 15} if solver == "als" else {"optimizer": "adam", "max_iter": 50})
    )
    factors = fitted[0]
    rows = factors.items.weights.rows(tags[150:])
    cold = factors.users.factors @ rows[:, :4].T + factors.users.biases[:, None] + rows[:, 4] + factors.constant
    assert np.square(cold - score[:, 150:]).mean() < 0.5 * score[:, 150:].var()  # of which the items' own part is a twelfth
