"""The solvers of positives: iALS against plain loops and exact solutions, the ranking objective and its descent."""

import math

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from numpy.testing import assert_allclose, assert_array_equal
from solving import descend, fit_ials, fit_ranking
from test_ranking_losses import POPULARITY, chances

from sk_torchmf import DivergenceError
from sk_torchmf.nn import RANKING, BiasedMF, NegativeSampler, Pairs, PlainMF, Plan, RankingLoss
from sk_torchmf.solvers import fold_in
from sk_torchmf.solvers import ranking_descent as descent
from sk_torchmf.solvers.fold_in import fold_in_ials, fold_in_ranking
from sk_torchmf.solvers.objective import POWER, Ridge
from sk_torchmf.solvers.ranking_descent import RankingObjective, free_columns, popularity_biases, user_weights

pytestmark = pytest.mark.usefixtures("one_thread")
K, ALPHA = 3, 0.05
MANY = 50  # negatives, where a mean over draws is wanted
EXPECTED = [name for name, loss in RANKING.items() if loss.expected is not None]
kinds = pytest.mark.parametrize("kind", [PlainMF, BiasedMF])
losses = pytest.mark.parametrize("name", RANKING)


def positives(n_users=12, n_items=9, seed=0):
    """Who has what (bool, every user and item at least one, no user all), its plan, and weights between 0.3 and 3."""
    rng = np.random.default_rng(seed)
    has = rng.random((n_users, n_items)) < rng.uniform(0.2, 0.6, (n_users, 1))
    has[np.arange(n_users), np.arange(n_users) % n_items] = True
    has[:, -1] &= ~has[:, :-1].all(1)
    user, item = np.nonzero(has)
    return has, Pairs(user, item, n_users, n_items), torch.from_numpy(rng.uniform(0.3, 3, len(user)))


def start(kind, pairs, seed=0, spread=0.5, dtype=torch.float64):
    return kind(*pairs.shape, K, init_std=spread, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def dense(pairs, values):
    """Values of the pairs as an array of shape (n_users, n_items), zero elsewhere."""
    matrix = np.zeros(pairs.shape)
    matrix[pairs.users, pairs.columns] = values
    return matrix


def random_like(tensors, seed=5):
    rng = np.random.default_rng(seed)
    return [tensor.detach() + torch.from_numpy(rng.normal(size=tuple(tensor.shape))) for tensor in tensors]


# iALS


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


def ridge_rows(others, offset, gain, has, alpha, mass):
    """The exact minimum of each row, others and their offsets fixed, by a loop over rows."""
    rows = []
    for own, observed in zip(gain, has, strict=True):
        weight, target = 1 + own, observed.astype(float)
        ridge = alpha * (own.sum() + len(others)) * np.eye(others.shape[1])
        rows.append(np.linalg.solve((others.T * weight) @ others + ridge, (others.T * weight) @ (target - offset)))
    assert np.shape(rows) == (len(mass), others.shape[1])
    return np.array(rows)


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


@pytest.mark.parametrize("n_empty", [0, 3])
def test_fold_in_of_ials_is_a_linear_solve_for_each_row(n_empty):
    """Items that nobody has are all zeros at the end of the features, and count for nothing."""
    has, pairs, gain = positives()
    rng, n_items = np.random.default_rng(1), pairs.shape[1]
    features, offset = rng.normal(size=(n_items + n_empty, K)), rng.normal(size=n_items + n_empty)
    features[n_items:], offset[n_items:] = 0.0, 0.0
    tensors = (torch.from_numpy(array) for array in (features, offset))
    rows = fold_in_ials(pairs.pointers.long(), pairs.columns.long(), gain, *tensors, alpha=0.3, n_items=n_items)
    expected = ridge_rows(features[:n_items], offset[:n_items], dense(pairs, gain), has, 0.3, has)
    assert_allclose(rows, expected, rtol=1e-10)


def test_ials_without_regularisation_fits_fewer_items_than_factors():
    """An alpha of 0 is allowed, and what there is to fit has rank two at most: positives reach 1."""
    pairs = Pairs(np.array([0, 1, 1]), np.array([0, 0, 1]), 2, 2)
    users, items, _ = fit_ials(start(PlainMF, pairs), pairs, torch.full((3,), 10.0, dtype=torch.float64), alpha=0.0, max_iter=200)
    assert_allclose(users @ items.T, [[1, 0], [1, 1]], atol=0.05)


# the ranking objective


def build(name, pairs, weight, means, *, popularity=False, n_negatives=2, draw=None):
    sampler = NegativeSampler(pairs.tocsr(), popularity=popularity)
    return RankingObjective.build(
        Plan(pairs),
        weight,
        RANKING[name],
        means,
        alpha=ALPHA,
        n_factors=K,
        n_negatives=n_negatives,
        draw=draw,
        share=sampler.share,
        total=sampler.total,
        n_unobserved=sampler.n_unobserved,
    )


def ridge_by_hand(rows, counts, means):
    """Of the sides there are: factors alpha (10 + c^0.75 mean(c)^0.25), a bias 30 alpha."""
    total = 0.0
    for side, count, mean in zip(rows, counts, means, strict=False):
        average = count.mean()
        for row, c in zip(side, count, strict=True):
            total += ALPHA * (10 + c**0.75 * average**0.25) * ((row[:K] - mean[:K]) ** 2).sum()
            total += 30 * ALPHA * ((row[K:] - mean[K:]) ** 2).sum()
    return total


def expected_by_hand(name, scores, has, weight, chance, m):
    """The expected loss by loops over positives and all their negatives; a softmax takes a share for a count of items."""
    total = 0.0
    for u, i in zip(*np.nonzero(has), strict=True):
        s, others = scores[u, i], np.flatnonzero(~has[u])
        if name == "softmax":
            partition = sum(len(others) * chance[u, j] * math.exp(scores[u, j]) for j in others)
            total -= weight[u, i] * math.log(math.exp(s) / (math.exp(s) + partition))
        else:
            negatives = sum(chance[u, j] * math.log1p(math.exp(scores[u, j])) for j in others)
            total += weight[u, i] * (math.log1p(math.exp(-s)) + m * negatives)
    return total


def check_finite_differences(value, rows, gradients, step=1e-5):
    """Central differences of a few entries of each side, in float64."""
    rng = np.random.default_rng(0)
    for side, gradient in enumerate(gradients):
        for _ in range(12):
            at = tuple(int(rng.integers(n)) for n in rows[side].shape)
            moved = []
            for sign in (1, -1):
                shifted = [tensor.clone() for tensor in rows]
                shifted[side][at] += sign * step
                moved.append(value(*shifted))
            assert gradient[at].item() == pytest.approx((moved[0] - moved[1]) / (2 * step), rel=1e-5, abs=1e-6)


@kinds
@POPULARITY
@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("block", [1, 30, 2**20], ids=["a user a block", "three", "one block"])
def test_the_expected_objective_is_a_plain_loop_and_its_gradient_its_differences(kind, popularity, name, block, monkeypatch):
    monkeypatch.setattr(descent, "BLOCK", block)
    has, pairs, weight = positives()
    module = start(kind, pairs)
    rows, means = random_like(module.rows()), module.mean_rows(0.0)
    objective = build(name, pairs, weight, means, popularity=popularity)
    value, error, gradients = objective(*rows)
    chance = chances(sp.csr_array(has), popularity)
    users, items = (side.numpy() for side in rows)
    expected = expected_by_hand(name, users @ items.T, has, dense(pairs, weight), chance, 2)
    counts = dense(pairs, weight).sum(1), dense(pairs, weight).sum(0)
    means = [mean.detach().numpy() for mean in means]
    assert value == pytest.approx(expected + ridge_by_hand((users, items), counts, means), rel=1e-10)
    assert error == 0.0
    check_finite_differences(lambda *rows: objective(*rows)[0], rows, gradients)
    frozen = objective(*rows, frozen=True)
    assert frozen[0] == pytest.approx(expected + ridge_by_hand((users,), counts, means), rel=1e-10)  # of the users alone
    assert len(frozen[2]) == 1
    assert_allclose(frozen[2][0], gradients[0], rtol=1e-10)


def dense_loss(name, users, items, pairs, weight, negatives, n_unobserved):
    """The drawn loss from the full matrix of scores, -1 for no negative: plain torch, differentiable."""
    scores = users @ items.T
    user, item = pairs.users.long(), pairs.columns.long()
    negative = scores[user[:, None], negatives.clamp_min(0)].masked_fill(negatives < 0, -torch.inf)
    return torch.dot(RANKING[name](scores[user, item], negative, n_unobserved[user]), weight)


@kinds
@losses
@pytest.mark.parametrize("some_missing", [False, True])
def test_a_drawn_objective_is_that_of_all_scores_at_the_same_negatives(kind, name, some_missing):
    has, pairs, weight = positives()
    module = start(kind, pairs)
    rows, means = random_like(module.rows()), [mean.detach() for mean in module.mean_rows(0.0)]
    sampler = NegativeSampler(pairs.tocsr(), generator=torch.Generator().manual_seed(0))
    negatives = sampler.draw(pairs.users.long(), 3)
    if some_missing:  # as a fold-in leaves out what the user has
        negatives[::2, 1] = -1
    objective = build(name, pairs, weight, means, n_negatives=3, draw=lambda: negatives.clone())
    value, error, gradients = objective(*rows)
    leaves = [side.clone().requires_grad_() for side in rows]
    loss = dense_loss(name, *leaves, pairs, weight, negatives, torch.from_numpy((~has).sum(1)))
    counts = dense(pairs, weight).sum(1), dense(pairs, weight).sum(0)
    ridge = ridge_by_hand([side.numpy() for side in rows], counts, [mean.numpy() for mean in means])
    assert value == pytest.approx(loss.item() + ridge, rel=1e-10)
    assert 0 < error < value
    ridges = sum(ridge(side) for ridge, side in zip(objective.ridges, leaves, strict=True))
    for ours, theirs in zip(gradients, torch.autograd.grad(loss + ridges, leaves), strict=True):
        assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)
    frozen = objective(*rows, frozen=True)[2]
    assert len(frozen) == 1
    assert_allclose(frozen[0], gradients[0], rtol=1e-9, atol=1e-9)


def average_of_draws(objective, rows, n):
    """Mean over draws of value and gradients, and the standard errors of the gradients' entries."""
    values, gradients = [], []
    for _ in range(n):
        value, _, gradient = objective(*rows)
        values.append(value)
        gradients.append(np.concatenate([part.numpy().ravel() for part in gradient]))
    return np.mean(values), np.mean(gradients, 0), np.std(gradients, 0) / n**0.5


def check_average(objective, rows, value, gradients, n=40):
    mean, slope, error = average_of_draws(objective, rows, n)
    assert mean == pytest.approx(value, rel=0.01)
    expected = np.concatenate([part.numpy().ravel() for part in gradients])
    moved = error > 1e-12  # the columns of ones have a ridge alone
    z = (slope - expected)[moved] / error[moved]
    assert np.abs(z).max() < 5.5  # of some hundred Student's numbers with 39 degrees of freedom
    assert 0.5 < np.sqrt(np.mean(z**2)) < 1.5
    assert_allclose(slope[~moved], expected[~moved], atol=1e-9)


@kinds
@POPULARITY
def test_drawn_gradients_of_the_logistic_loss_average_to_the_expected_one(kind, popularity):
    _, pairs, weight = positives()
    module = start(kind, pairs)
    rows, means = random_like(module.rows()), module.mean_rows(0.0)
    sampler = NegativeSampler(pairs.tocsr(), popularity=popularity, generator=torch.Generator().manual_seed(0))
    drawn = build("logistic", pairs, weight, means, popularity=popularity, draw=lambda: sampler.draw(pairs.users.long(), MANY))
    value, _, gradients = build("logistic", pairs, weight, means, popularity=popularity, n_negatives=MANY)(*rows)
    check_average(drawn, rows, value, gradients)


@kinds
@POPULARITY
@pytest.mark.parametrize("name", ["bpr", "hinge"])
def test_drawn_gradients_of_a_pairwise_loss_average_to_that_over_all_negatives(kind, popularity, name):
    has, pairs, weight = positives()
    module = start(kind, pairs)
    rows, means = random_like(module.rows()), module.mean_rows(0.0)
    sampler = NegativeSampler(pairs.tocsr(), popularity=popularity, generator=torch.Generator().manual_seed(0))
    drawn = build(name, pairs, weight, means, popularity=popularity, draw=lambda: sampler.draw(pairs.users.long(), MANY))
    leaves = [side.clone().requires_grad_() for side in rows]
    scores, chance = leaves[0] @ leaves[1].T, chances(sp.csr_array(has), popularity)
    total = sum(ridge(side) for ridge, side in zip(drawn.ridges, leaves, strict=True))
    for w, u, i in zip(weight, pairs.users.tolist(), pairs.columns.tolist(), strict=True):
        for j in np.flatnonzero(~has[u]):
            margin = scores[u, i] - scores[u, j]
            total = total + w * chance[u, j] * (torch.log1p(torch.exp(-margin)) if name == "bpr" else (1 - margin).clamp_min(0))
    gradients = torch.autograd.grad(total, leaves)
    check_average(drawn, rows, total.item(), gradients)


def test_the_standard_error_is_that_of_the_sum():
    _, pairs, weight = positives(200, 30)
    rows = random_like(start(PlainMF, pairs).rows())
    sampler = NegativeSampler(pairs.tocsr(), generator=torch.Generator().manual_seed(0))
    objective = build("bpr", pairs, weight, rows[0][:2], draw=lambda: sampler.draw(pairs.users.long(), 1))
    draws = [objective(*rows) for _ in range(100)]
    spread = np.std([value for value, _, _ in draws])
    assert draws[0][1] > spread  # which counts the differences between positives as chance too
    assert draws[0][1] < 10 * spread


# the weights of users, biases and columns


def test_a_users_positives_together_weigh_as_the_root_of_their_number():
    count = torch.tensor([1.0, 4.0, 25.0], dtype=torch.float64)
    assert_allclose(user_weights(count, 9.0), [3.0, 1.5, 0.6])
    assert_allclose(count * user_weights(count, 9.0), [3.0, 6.0, 15.0])
    assert user_weights(torch.zeros(1, dtype=torch.float64), 1.0).isfinite().all()


@pytest.mark.parametrize("name", EXPECTED)
def test_fit_starts_from_the_weights_of_users_and_the_biases_of_items(name):
    has, pairs, weight = positives()
    weight = weight / weight.mean()
    module = start(BiasedMF, pairs)
    _, _, history = fit_ranking(module, pairs, weight, RANKING[name], alpha=ALPHA, n_negatives=2, max_iter=1)
    own = dense(pairs, weight).sum(1)
    damped = dense(pairs, weight) * np.sqrt(own.mean() / own)[:, None]
    of_items = damped.sum(0)
    biases = np.log((of_items + 0.5) / (2 * of_items.sum() / has.shape[1] + 0.5))
    users, items = (side.detach().numpy().copy() for side in module.rows())
    items[:, K + 1] = biases
    means = [mean.numpy().copy() for mean in module.mean_rows(0.0)]
    means[1][K + 1] = biases.mean()
    chance = chances(sp.csr_array(has), False)
    expected = expected_by_hand(name, users @ items.T, has, damped, chance, 2)
    expected += ridge_by_hand((users, items), (damped.sum(1), damped.sum(0)), means)
    assert history["loss"] == [pytest.approx(expected, rel=1e-10)]


def test_popularity_biases_make_a_positive_as_likely_as_a_negative():
    count = torch.tensor([0.0, 1.0, 40.0], dtype=torch.float64)
    drawn = 2 * 41 * np.array([1, 1, 2]) / 4
    assert_allclose(popularity_biases(count, 2, np.array([1.0, 1.0, 2.0])), np.log((count.numpy() + 0.5) / (drawn + 0.5)))
    alike = popularity_biases(torch.full((5,), 1000.0, dtype=torch.float64), 1, np.ones(5))
    assert_allclose(alike, 0.0, atol=1e-3)  # the half that is added for safety


@losses
def test_only_the_logistic_loss_has_a_bias_of_the_user(name):
    assert free_columns(K, False, RANKING[name]) == ([0, 1, 2], [0, 1, 2])
    assert free_columns(K, True, RANKING[name]) == ([0, 1, 2, 3] if name == "logistic" else [0, 1, 2], [0, 1, 2, 4])


# the descent


@kinds
@POPULARITY
@pytest.mark.parametrize("name", EXPECTED)
def test_an_exact_objective_comes_down_and_near_its_minimum(kind, popularity, name):
    _, pairs, weight = positives(40, 25)
    options = {"alpha": ALPHA, "popularity": popularity, "n_negatives": 2}
    runs = [fit_ranking(start(kind, pairs), pairs, weight, RANKING[name], max_iter=n, **options) for n in (25, 150)]
    (*rows, short), (*_, long) = runs
    first, last, end = short["loss"][0], short["loss"][-1], long["loss"][-1]
    assert end < last < first
    assert last - end < 0.2 * (first - end)
    assert all(side.isfinite().all() for side in rows)


@kinds
@losses
def test_a_drawn_objective_comes_down(kind, name):
    _, pairs, weight = positives(40, 25)
    runs = [
        fit_ranking(
            start(kind, pairs), pairs, weight, RANKING[name], alpha=ALPHA, exact=False, generator=torch.Generator().manual_seed(0)
        )
        for _ in range(2)
    ]
    loss = runs[0][2]["loss"]
    assert np.mean(loss[-5:]) < 0.9 * loss[0]
    for ours, theirs in zip(runs[0][:2], runs[1][:2], strict=True):
        assert torch.equal(ours, theirs)  # the same draws


@losses
def test_columns_that_are_not_free_do_not_move(name):
    _, pairs, weight = positives()
    users, items, _ = fit_ranking(start(BiasedMF, pairs), pairs, weight, RANKING[name], alpha=ALPHA, max_iter=5)
    assert (users[:, K + 1] == 1).all()
    assert (items[:, K] == 1).all()
    assert (users[:, K] != 0).any() == (name == "logistic")


class Bowl:
    """A quadratic with a curvature that the loss does not admit to: steps of its length overshoot."""

    draw = None

    def __init__(self, bend, n=6):
        self.plan = Plan(Pairs(np.arange(n), np.arange(n), n, n))
        self.weight, self.bend = torch.ones(n, dtype=torch.float64), bend
        self.loss = RANKING["bpr"]
        ridge = Ridge.from_counts(self.weight, torch.zeros(K, dtype=torch.float64), 0.0, K, 1.0)
        self.ridges = ridge, ridge

    def __call__(self, users, items, *, frozen=False):
        value = self.bend / 2 * float(users.square().sum() + items.square().sum())
        return value, 0.0, (self.bend * users,) if frozen else (self.bend * users, self.bend * items)


@pytest.mark.parametrize("bend", [1.0, 100.0, 1000.0])
def test_steps_that_overshoot_are_taken_back_and_shortened(bend):
    bowl = Bowl(bend)
    users, items = (torch.from_numpy(np.random.default_rng(seed).normal(size=(6, K))) for seed in (0, 1))
    free = list(range(K))
    history = descend(bowl, (users, free), (items, free), max_iter=100)["loss"]
    lowest = np.minimum.accumulate(history)
    assert (np.array(history[1:]) <= descent.RISE * lowest[:-1] + 1e-12).all()
    assert history[-1] < 0.01 * history[0]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_start_that_is_not_finite_is_a_divergence(value):
    _, pairs, weight = positives()
    module = start(PlainMF, pairs)
    objective = build("softmax", pairs, weight, module.mean_rows(0.0))
    rows = [(side.detach().clone(), list(range(K))) for side in module.rows()]
    rows[0][0][0, 0] = value
    with pytest.raises(DivergenceError, match=r"Loss is (nan|inf) at the start\. Lower the weights .* or raise alpha"):
        descend(objective, *rows, max_iter=3)


def test_fixed_items_stay_and_the_report_tells_each_step():
    _, pairs, weight = positives()
    module, seen = start(PlainMF, pairs), []
    objective = build("softmax", pairs, weight, module.mean_rows(0.0))
    users, items = (side.detach().clone() for side in module.rows())
    history = descend(
        objective, (users, list(range(K))), (items, []), max_iter=30, tol=1e-2, report=lambda *line: seen.append(line)
    )
    assert torch.equal(items, module.item_factors)
    assert not torch.isclose(users, module.user_factors).any()
    assert seen == list(enumerate(history["loss"], start=1))
    assert len(seen) < 30


# new users


def fold(name, seen, items, kind, *, popularity=False, share=None):
    """Fold all users of a pattern in, from rows of zeros."""
    pattern = seen.tocoo()
    k = items.shape[1] - 2 * (kind is BiasedMF)
    centre = torch.zeros(items.shape[1], dtype=torch.float64)
    if kind is BiasedMF:
        centre[k + 1] = 1.0
    if share is None:
        share = np.ones(items.shape[0]) if not popularity else np.arange(1.0, 1 + items.shape[0])
    return fold_in_ranking(
        Pairs(pattern.row, pattern.col, *seen.shape),
        centre.repeat(seen.shape[0], 1),
        torch.from_numpy(items),
        centre,
        RANKING[name],
        alpha=ALPHA,
        n_factors=k,
        n_negatives=2,
        seen=seen,
        share=share,
        item_count=np.where(share > 0, 5.0, 0.0),
        typical=4.0,
    )


def item_rows(kind, n_items=30):
    items = np.random.default_rng(2).normal(size=(n_items, K))
    return np.column_stack([items, np.ones(n_items), np.linspace(-1, 1, n_items)]) if kind is BiasedMF else items


@kinds
@losses
@POPULARITY
def test_fold_in_knows_the_users_own_positives_only(kind, name, popularity):
    has = sp.csr_array(np.random.default_rng(0).random((15, 30)) < 0.3)
    items = item_rows(kind)
    together = fold(name, has, items, kind, popularity=popularity)
    for user in (3, 0, 14):
        alone = fold(name, has[[user]], items, kind, popularity=popularity)
        assert_allclose(alone[0], together[user], rtol=1e-9, atol=1e-12)


@kinds
@pytest.mark.parametrize("name", EXPECTED)
def test_fold_in_comes_near_the_minimum_of_a_users_objective(kind, name):
    """Against many steps of torch's LBFGS on the objective written out for one user."""
    has, items = sp.csr_array(np.random.default_rng(0).random((3, 30)) < 0.3), torch.from_numpy(item_rows(kind))
    folded = fold(name, has, items.numpy(), kind)
    start_row = torch.zeros(items.shape[1], dtype=torch.float64)
    start_row[K + 1 :] = 1.0
    free = torch.zeros_like(start_row)
    free[free_columns(K, kind is BiasedMF, RANKING[name])[0]] = 1.0
    for user in range(3):
        own = torch.from_numpy(has.toarray()[user])
        count = int(own.sum())
        weight = np.sqrt(4.0 / count)
        ridge = torch.full_like(start_row, 30 * ALPHA)
        ridge[:K] = ALPHA * (10 + (weight * count) ** POWER * 4.0 ** (1 - POWER))

        def value(row, own=own, count=count, weight=weight, ridge=ridge):
            scores = items @ row
            if name == "softmax":
                each = torch.nn.functional.softplus(torch.logsumexp(scores[~own], 0) - scores[own])
            else:
                each = torch.nn.functional.softplus(-scores[own]) + 2 * torch.nn.functional.softplus(scores[~own]).mean()
            return weight * each.sum() + (ridge * (row - start_row).square()).sum()

        move = torch.zeros_like(start_row, requires_grad=True)
        optimizer = torch.optim.LBFGS([move], max_iter=60, line_search_fn="strong_wolfe")

        def closure(move=move, optimizer=optimizer, value=value):
            optimizer.zero_grad()
            loss = value(start_row + free * move)
            loss.backward()
            return loss

        optimizer.step(closure)
        lowest, before = value(start_row + free * move.detach()), value(start_row)
        reached = value(folded[user])
        assert lowest - 1e-9 <= reached
        assert reached - lowest < 0.02 * (before - lowest)


@losses
def test_fold_in_leaves_out_items_without_a_share(name):
    """Nobody has the last ten items: they are no negatives, whatever their rows."""
    has = np.random.default_rng(0).random((4, 20)) < 0.3
    items = item_rows(PlainMF)
    share = np.append(np.ones(20), np.zeros(10))
    wide = sp.csr_array(np.hstack([has, np.zeros((4, 10), dtype=bool)]))
    first = fold(name, wide, items, PlainMF, share=share)
    items[20:] = 100.0
    assert_allclose(fold(name, wide, items, PlainMF, share=share), first, atol=1e-12)


def test_fold_in_draws_nothing_that_the_user_has_and_anew_in_each_step():
    """Scores tell items: the rows of items are those of the identity, and each user starts at 0, 1, 2 ..."""
    seen, drawn = np.random.default_rng(0).random((20, 12)) < 0.6, []

    def value(positive, negative, n_unobserved):
        drawn.append((positive.detach().round().int().numpy(), negative.detach().numpy()))
        return RANKING["bpr"](positive, negative, n_unobserved)

    fold_in_ranking(
        Pairs(*np.nonzero(seen), *seen.shape),
        torch.arange(12.0, dtype=torch.float64).repeat(20, 1),
        torch.eye(12, dtype=torch.float64),
        torch.zeros(12, dtype=torch.float64),
        RankingLoss("spy", value, 1e9),  # so curved that no step leads away from where users start
        alpha=0.0,
        n_factors=12,
        n_negatives=5,
        seen=sp.csr_array(seen),
        share=np.ones(12),
        item_count=np.ones(12),
        typical=1.0,
    )
    user, item = np.nonzero(seen)
    masks = []
    for positive, negative in drawn:
        assert_array_equal(positive, item)
        masks.append(there := np.isfinite(negative))
        assert not seen[np.repeat(user, 5)[there.ravel()], negative[there].round().astype(int)].any()
    assert 0.3 < np.mean(masks) < 0.5  # of the twelve items, what the user has not
    assert len(drawn) == fold_in.STEPS > 1
    assert (masks[0] != masks[1]).any()
