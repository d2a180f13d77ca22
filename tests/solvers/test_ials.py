"""iALS against plain loops over all pairs and exact alternating solutions."""

import numpy as np
import pytest
import torch
from few_positives import ALPHA, K, dense, kinds, positives, ridge_rows, start
from numpy.testing import assert_allclose, assert_array_equal
from rating_problems import side_features
from solving import fit_ials

from sk_torchmf.nn import BiasedMF, Pairs, PlainMF, Plan
from sk_torchmf.solvers import ials
from sk_torchmf.solvers.base import copy_state
from sk_torchmf.solvers.design import SEEN
from sk_torchmf.solvers.fold_in import fold_in_ials
from sk_torchmf.solvers.ials import ImplicitLeastSquares

pytestmark = pytest.mark.usefixtures("one_thread", "each_kernels")


def ials_by_hand(users, items, gain, has, alpha, free):
    """The objective by a loop over all pairs and all rows; ``free`` are the columns of either side that are fitted."""
    n_users, n_items = has.shape
    total = 0.0
    for u in range(n_users):
        for i in range(n_items):
            s = users[u] @ items[i]
            total += (1 + gain[u, i]) * (1 - s) ** 2 if has[u, i] else s**2
    for u in range(n_users):
        total += alpha * (gain[u].sum() + n_items) * sum(users[u, column] ** 2 for column in free[0])
    for i in range(n_items):
        total += alpha * (gain[:, i].sum() + n_users) * sum(items[i, column] ** 2 for column in free[1])
    return total


def ials_columns(kind):
    return range(K), ([*range(K), K + 1] if kind is BiasedMF else range(K))


@kinds
@pytest.mark.parametrize("max_iter", [1, 4])
def test_ials_reports_the_sum_over_all_pairs(kind, max_iter):
    has, pairs, gain = positives()
    users, items, history = fit_ials(start(kind, pairs), pairs, gain, alpha=ALPHA, max_iter=max_iter, tol=0)
    expected = ials_by_hand(users.numpy(), items.numpy(), dense(pairs, gain), has, ALPHA, ials_columns(kind))
    assert len(history["loss"]) == len(history["seconds"]) == max_iter
    assert history["loss"][-1] == pytest.approx(expected, rel=1e-12)


def alternating_ridge(kind, users, items, gain, has, alpha, n_iter):
    """Alternating least squares with exact half-steps: what the solver's steps approximate."""
    biased = kind is BiasedMF
    for _ in range(n_iter):
        bias = items[:, K + 1] if biased else np.zeros(len(items))
        users[:, :K] = ridge_rows(items[:, :K], bias, gain, has, alpha, users)
        features = np.column_stack([users[:, :K], np.ones(len(users))]) if biased else users
        solved = ridge_rows(features, np.zeros(len(users)), gain.T, has.T, alpha, items)
        items[:, :K] = solved[:, :K]
        if biased:
            items[:, K + 1] = solved[:, K]
    return users, items


@kinds
@pytest.mark.parametrize(("alpha", "unit"), [(0.02, 1.0), (0.05, 5.0), (0.1, 2.0)])
def test_ials_converges_to_exact_alternating_ridge_solutions(kind, alpha, unit):
    has, pairs, gain = positives(20, 14)
    gain = unit * gain
    module = start(kind, pairs)
    rows = [side.detach().numpy().copy() for side in module.rows()]
    *found, history = fit_ials(module, pairs, gain, alpha=alpha, max_iter=200, tol=0)
    exact = alternating_ridge(kind, *rows, dense(pairs, gain), has, alpha, 100)
    expected = ials_by_hand(*exact, dense(pairs, gain), has, alpha, ials_columns(kind))
    assert history["loss"][-1] == pytest.approx(expected, rel=1e-8)
    scores = [users @ items.T for users, items in (exact, [side.numpy() for side in found])]
    assert np.ptp(scores[0]) > 0.2
    assert_allclose(scores[1], scores[0], atol=1e-3)  # flat at the minimum: the square root of the objective's rounding


@kinds
def test_few_steps_of_ials_come_near_its_minimum(kind):
    _, pairs, gain = positives(60, 40)
    end = fit_ials(start(kind, pairs), pairs, 5 * gain, alpha=ALPHA, max_iter=300, tol=0)[2]["loss"][-1]
    first, *_, last = fit_ials(start(kind, pairs), pairs, 5 * gain, alpha=ALPHA, max_iter=15, tol=0)[2]["loss"]
    assert last - end < 0.1 * (first - end)


@kinds
@pytest.mark.parametrize("alpha", [1e-3, 0.05, 2.0])
@pytest.mark.parametrize("spread", [0.0, 2.0])
def test_ials_never_raises_its_objective(kind, alpha, spread):
    has, pairs, gain = positives(30, 17, seed=3)
    gain = gain * torch.from_numpy(10.0 ** np.random.default_rng(0).uniform(-3, 3, len(gain)))  # as unequal as they come
    module = start(kind, pairs, spread=spread)
    rows = [side.detach().numpy().copy() for side in module.rows()]
    before = ials_by_hand(*rows, dense(pairs, gain), has, alpha, ials_columns(kind))
    history = np.array([before, *fit_ials(module, pairs, gain, alpha=alpha, max_iter=40, tol=0)[2]["loss"]])
    assert (np.diff(history) <= 1e-12 * history[1:]).all()
    assert history[-1] < history[0]


@kinds
def test_ials_leaves_the_module_and_fixed_columns_alone(kind):
    _, pairs, gain = positives()
    module = start(kind, pairs)
    before = [side.detach().clone() for side in module.rows()]
    users, items, _ = fit_ials(module, pairs, gain, alpha=ALPHA, max_iter=3)
    for now, then in zip(module.rows(), before, strict=True):
        assert torch.equal(now, then)
    if kind is BiasedMF:  # [P, 0, 1] and [Q, 1, b_i]
        assert_array_equal(users[:, K:], np.tile([0.0, 1.0], (len(users), 1)))
        assert (items[:, K] == 1).all()


@kinds
def test_one_gain_of_all_pairs_is_that_of_each(kind):
    _, pairs, gain = positives()
    one = fit_ials(start(kind, pairs), pairs, 1.7, alpha=ALPHA, max_iter=4, tol=0)
    each = fit_ials(start(kind, pairs), pairs, torch.full_like(gain, 1.7), alpha=ALPHA, max_iter=4, tol=0)
    assert_allclose(one[0] @ one[1].T, each[0] @ each[1].T, rtol=1e-10)
    assert_allclose(one[2]["loss"], each[2]["loss"], rtol=1e-12)


@kinds
def test_ials_in_blocks_finds_the_same_and_its_state_has_no_number_for_a_pair(kind, monkeypatch):
    _, pairs, gain = positives()
    whole = ImplicitLeastSquares(start(kind, pairs), Plan(pairs), gain, alpha=ALPHA)
    monkeypatch.setattr(ials, "BLOCK", 5)
    blocks = ImplicitLeastSquares(start(kind, pairs), Plan(pairs), gain, alpha=ALPHA)
    assert len(blocks.plan) > 3 > len(whole.plan)
    for _ in range(3):
        assert blocks.step()["loss"] == pytest.approx(whole.step()["loss"], rel=1e-12)
    for ours, theirs in zip(blocks.rows, whole.rows, strict=True):
        assert_allclose(ours, theirs, rtol=0, atol=1e-12)
    assert {name for part in blocks.state().values() for name in part} == {"rows", "of_observed", "iteration"}


def test_ials_stops_by_tol_after_five_small_improvements():
    _, pairs, gain = positives()
    seen = []
    history = fit_ials(
        start(PlainMF, pairs), pairs, gain, alpha=ALPHA, max_iter=500, tol=1e-3, report=lambda *line: seen.append(line)
    )[2]["loss"]
    assert 6 <= len(history) < 500
    fall = -np.diff(history) / np.abs(history[:-1])
    assert (fall[-5:] < 1e-3).all()
    assert all((fall[at : at + 5] >= 1e-3).any() for at in range(len(fall) - 5))
    assert seen == list(enumerate(history, start=1))


def test_ials_in_float32_keeps_its_dtype_and_its_way():
    _, pairs, gain = positives()
    module = start(BiasedMF, pairs)
    exact = fit_ials(module, pairs, gain, alpha=ALPHA, max_iter=10, tol=0)
    rounded = fit_ials(module.float(), pairs, gain.float(), alpha=ALPHA, max_iter=10, tol=0)
    assert rounded[0].dtype == rounded[1].dtype == torch.float32
    assert_allclose(rounded[0] @ rounded[1].T, exact[0] @ exact[1].T, atol=1e-3)  # ten steps of rounding
    assert rounded[2]["loss"][-1] == pytest.approx(exact[2]["loss"][-1], rel=1e-5)


def test_ials_without_regularisation_fits_fewer_items_than_factors():
    """An alpha of 0 is allowed, and what there is to fit has rank two at most: positives reach 1."""
    pairs = Pairs(np.array([0, 1, 1]), np.array([0, 0, 1]), 2, 2)
    users, items, _ = fit_ials(start(PlainMF, pairs), pairs, torch.full((3,), 10.0, dtype=torch.float64), alpha=0.0, max_iter=200)
    assert_allclose(users @ items.T, [[1, 0], [1, 1]], atol=0.05)


# rows with features


def with_features(kind, *, max_iter=0, dtype=torch.float64):
    """A solver of 12 users and 9 items with features, after some steps: what has what, the gains, and the losses."""
    has, pairs, gain = positives()
    features = side_features(*pairs.shape)
    module = start(kind, pairs, dtype=dtype)
    solver = ImplicitLeastSquares(module, Plan(pairs), gain.to(dtype), alpha=ALPHA, features=features)
    return solver, has, dense(pairs, gain), [solver.step()["loss"] for _ in range(max_iter)]


def masses(gain):
    """What the ridge of each user's and of each item's row is, in alpha."""
    return gain.sum(1) + gain.shape[1], gain.sum(0) + gain.shape[0]


@kinds
def test_with_features_the_objective_is_about_other_means(kind):
    solver, has, gain, losses = with_features(kind, max_iter=3)
    users, items = (rows.numpy() for rows in solver.rows)
    expected = ials_by_hand(users, items, gain, has, ALPHA, ials_columns(kind))
    for side, (role, mass) in enumerate(zip(("user", "item"), masses(gain), strict=True)):
        own, rows, free = solver.regressions[role], (users, items)[side], list(ials_columns(kind)[side])
        means = own.rows.numpy()
        assert np.ptp(means[:, free], axis=0).min() > 1e-5  # little, of so few rows, and far more than the tolerance
        change = np.square(rows[:, free] - means[:, free]) - np.square(rows[:, free])
        expected += ALPHA * (mass[:, None] * change).sum()
        expected += (own.precision[1:] * own.coefficients[1:].square()).sum().item()
    assert losses[-1] == pytest.approx(expected, rel=1e-12)


@kinds
def test_with_features_no_step_raises_the_objective_and_it_ends_at_a_minimum(kind):
    """There a user is the row that her fold-in gives, and the coefficients are those of a ridge regression."""
    solver, _, gain, losses = with_features(kind, max_iter=600)
    assert (np.diff(losses) <= 1e-12 * np.abs(losses[1:])).all()
    users, items = solver.rows
    offset = items[:, K + 1] if kind is BiasedMF else items.new_zeros(len(items))
    pairs = solver.plan.pairs
    known = pairs.pointers.long(), pairs.columns.long(), solver.gain
    means = solver.regressions["user"].rows[:, :K]
    folded = fold_in_ials(*known, items[:, :K], offset, alpha=ALPHA, n_items=len(items), means=means)
    assert_allclose(folded, users[:, :K], rtol=1e-4, atol=1e-5)
    for role, rows, mass, free in zip(("user", "item"), solver.rows, masses(gain), ials_columns(kind), strict=True):
        own = solver.regressions[role]
        F = own.design.dot(torch.eye(own.design.n_columns, dtype=torch.float64)).numpy()[:, 1:]
        for d in free:
            G = (F.T * (ALPHA * mass)) @ F + np.diag(own.precision.expand_as(own.coefficients)[1:, d].numpy())
            expected = np.linalg.solve(G, (F.T * (ALPHA * mass)) @ rows[:, d].numpy())
            assert_allclose(own.coefficients[1:, d], expected, rtol=1e-3, atol=1e-5)


def test_a_fold_in_about_means_is_a_linear_solve_for_each_row():
    has, pairs, gain = positives()
    rng = np.random.default_rng(1)
    features, offset, means = rng.normal(size=(9, K)), rng.normal(size=9), rng.normal(size=(12, K))
    tensors = (torch.from_numpy(array) for array in (features, offset))
    known = pairs.pointers.long(), pairs.columns.long(), gain
    rows = fold_in_ials(*known, *tensors, alpha=0.3, n_items=9, means=torch.from_numpy(means))
    about_zero = ridge_rows(features, offset + 0.0, dense(pairs, gain), has, 0.3, has)
    for u, (own, observed) in enumerate(zip(dense(pairs, gain), has, strict=True)):
        ridge = 0.3 * (own.sum() + 9)
        G = (features.T * (1 + own)) @ features + ridge * np.eye(K)
        expected = np.linalg.solve(G, features.T @ ((1 + own) * (observed - offset)) + ridge * means[u])
        assert_allclose(rows[u], expected, rtol=1e-10)
    assert not np.allclose(rows, about_zero, rtol=1e-2)


@kinds
def test_ials_with_features_goes_on_from_its_state_to_the_same_bits(kind):
    one, other = (with_features(kind, max_iter=n, dtype=torch.float32)[0] for n in (3, 0))
    other.restore(copy_state(one.state()))
    for _ in range(2):
        assert one.step() == other.step()
    for ours, theirs in zip(one.rows, other.rows, strict=True):
        assert_array_equal(ours, theirs)
    for role, own in one.regressions.items():
        assert_array_equal(own.coefficients, other.regressions[role].coefficients)
        assert_array_equal(own.precision, other.regressions[role].precision)


@kinds
def test_ials_tells_what_features_say(kind):
    solver, *_ = with_features(kind, max_iter=5)
    factors = solver.solution()
    for side in (factors.users, factors.items):
        assert side.weights.constant.shape == (K + (kind is BiasedMF),)
        assert side.weights.shares.keys() >= {SEEN}
    if kind is BiasedMF:  # a user has no bias of her own
        assert_allclose(factors.users.weights.weights[:, K], 0, atol=1e-12)
    assert "coefficients" not in fit_state(kind)["rest"]


def fit_state(kind):
    _, pairs, gain = positives()
    return ImplicitLeastSquares(start(kind, pairs), Plan(pairs), gain, alpha=ALPHA).state()
