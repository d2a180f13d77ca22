"""The ranking objective by plain loops, drawn and expected, and its descent."""

import math

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from every_loss import every_exact_loss, every_ranking_loss
from few_positives import ALPHA, POPULARITY, K, chances, dense, kinds, positives, start
from numpy.testing import assert_allclose
from solving import descend, fit_ranking

from sk_torchmf import DivergenceError
from sk_torchmf.nn import RANKING, BiasedMF, NegativeSampler, Pairs, PlainMF, Plan
from sk_torchmf.solvers import ranking_descent as descent
from sk_torchmf.solvers.base import copy_state
from sk_torchmf.solvers.design import SideFeatures
from sk_torchmf.solvers.objective import Ridge
from sk_torchmf.solvers.ranking_descent import Descent, RankingObjective, free_columns, popularity_biases, user_weights

pytestmark = pytest.mark.usefixtures("one_thread", "each_kernels")
MANY = 50  # negatives, where a mean over draws is wanted


def random_like(tensors, seed=5):
    rng = np.random.default_rng(seed)
    return [tensor.detach() + torch.from_numpy(rng.normal(size=tuple(tensor.shape))) for tensor in tensors]


# the ranking objective


def build(name, pairs, weight, means, *, popularity=False, n_negatives=2, draw=None, features=None):
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
        features=features,
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
@every_exact_loss
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


@kinds
@every_exact_loss
def test_rows_with_features_shrink_to_what_these_say(kind, name):
    """Beside the objective without features: the ridge about other means, and that of the coefficients."""
    _, pairs, weight = positives()
    module, rng = start(kind, pairs), np.random.default_rng(7)
    rows, means = random_like(module.rows()), module.mean_rows(0.0)
    tags = rng.normal(size=(pairs.shape[1], 2))
    objective = build(name, pairs, weight, means, features=SideFeatures(items={"tags": sp.csr_array(tags)}))
    assert objective.regressions.keys() == {"item"}
    A = rng.normal(size=(3, rows[1].shape[1]))
    A[0] = means[1].detach()
    objective.regressions["item"].restore(torch.from_numpy(A))
    columns, items = tags / np.sqrt((tags**2).sum(1).mean()), rows[1].numpy()
    count = dense(pairs, weight).sum(0)
    ridge = np.full(items.shape, 30 * ALPHA)
    ridge[:, :K] = ALPHA * (10 + count**0.75 * count.mean() ** 0.25)[:, None]
    moved = ridge * (np.square(items - A[0] - columns @ A[1:]) - np.square(items - A[0]))
    penalty = ((columns**2).sum(1)[:, None] * ridge).mean(0) * 15  # which is more than 2 n / 2
    value, _, gradients = objective(*rows)
    expected = build(name, pairs, weight, means)(*rows)[0] + moved.sum() + (penalty * A[1:] ** 2).sum()
    assert value == pytest.approx(expected, rel=1e-10)
    check_finite_differences(lambda *rows: objective(*rows)[0], rows, gradients)


@every_exact_loss
def test_a_descent_with_features_ends_lower_and_goes_on_from_its_state(name):
    _, pairs, weight = positives()
    module = start(PlainMF, pairs)
    features = SideFeatures(*({"same": sp.csr_array(np.eye(3)[np.arange(n) % 3])} for n in pairs.shape))

    def solver(features):
        objective = build(name, pairs, weight, module.mean_rows(0.0), features=features)
        sides = [(side.detach().clone(), list(range(K))) for side in module.rows()]
        return Descent(objective, *sides, max_iter=60)

    plain, described, other = solver(None), solver(features), solver(features)
    for _ in range(30):
        losses = plain.step()["loss"], described.step()["loss"]
    assert losses[1] < losses[0]  # by the coefficients that are chosen too, little though twelve rows are believed
    other.restore(copy_state(described.state()))
    assert [other.step() for _ in range(3)] == [described.step() for _ in range(3)]
    weights = described.solution().items.weights
    own = described.objective.regressions["item"]
    encoded = features.items["same"].toarray()
    assert_allclose(weights.own_constant + encoded @ weights.own_weights, own.rows, rtol=1e-10, atol=1e-12)


def dense_loss(name, users, items, pairs, weight, negatives, n_unobserved):
    """The drawn loss from the full matrix of scores, -1 for no negative: plain torch, differentiable."""
    scores = users @ items.T
    user, item = pairs.users.long(), pairs.columns.long()
    negative = scores[user[:, None], negatives.clamp_min(0)].masked_fill(negatives < 0, -torch.inf)
    return torch.dot(RANKING[name](scores[user, item], negative, n_unobserved[user]), weight)


@kinds
@every_ranking_loss
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


@every_exact_loss
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


@every_ranking_loss
def test_only_the_logistic_loss_has_a_bias_of_the_user(name):
    assert free_columns(K, False, RANKING[name]) == ([0, 1, 2], [0, 1, 2])
    assert free_columns(K, True, RANKING[name]) == ([0, 1, 2, 3] if name == "logistic" else [0, 1, 2], [0, 1, 2, 4])


# the descent


@kinds
@POPULARITY
@every_exact_loss
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
@every_ranking_loss
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


@every_ranking_loss
def test_columns_that_are_not_free_do_not_move(name):
    _, pairs, weight = positives()
    users, items, _ = fit_ranking(start(BiasedMF, pairs), pairs, weight, RANKING[name], alpha=ALPHA, max_iter=5)
    assert (users[:, K + 1] == 1).all()
    assert (items[:, K] == 1).all()
    assert (users[:, K] != 0).any() == (name == "logistic")


class Bowl:
    """A quadratic with a curvature that the loss does not admit to: steps of its length overshoot."""

    draw = None
    regressions: dict = {}

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
