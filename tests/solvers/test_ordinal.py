"""Cut points between the levels of ratings: the loss they make of scores, and that learning finds the right ones."""

import numpy as np
import pytest
import torch
from scipy.special import expit, logit

from sk_torchmf.model.cut_points import SLOPE, softening
from sk_torchmf.nn import Pairs, Plan
from sk_torchmf.solvers import ordinal
from sk_torchmf.solvers.observed import Observed
from sk_torchmf.solvers.ordinal import BARRIER, GUARD, LEAST_GAP, OrdinalCuts, first_cuts, first_spread, ordinal_loss

pytestmark = pytest.mark.usefixtures("one_thread", "each_kernels")

LEVELS = np.array([-1.5, -0.5, 0.2, 1.0])
own_or_not = pytest.mark.parametrize("own", [False, True], ids=["one set", "own cuts"])


class CutsOfPairs(OrdinalCuts):
    """Cut points that are asked by spans of user-major pairs, and learn from the scores of all of them."""

    def __init__(self, *args, weight=None, **options):
        super().__init__(*args, **options)
        self.weight = weight

    def slope(self, score, span):
        return super().slope(score, self.place[span], None if self.weight is None else self.weight[span])

    def loss(self, score, span):
        return super().loss(score, self.place[span])

    def learn(self, score, mean_variance, **options):
        parts = [
            (rows, Observed(block, self.place[span], None if self.weight is None else self.weight[span]), score[span])
            for rows, span, block in self.plan
        ]
        super().learn(parts, mean_variance, **options)


class Problem:
    """Ratings of some users with scores that are known; user 0 has one rating only."""

    def __init__(self, n_users=6, n_items=12, levels=LEVELS, seed=0):
        rng = np.random.default_rng(seed)
        has = rng.random((n_users, n_items)) < 0.7
        has[:, 0], has[0, 1:] = True, False
        self.user, self.item = np.nonzero(has)
        self.shape, self.levels, self.n = (n_users, n_items), levels, len(self.user)
        self.score = torch.from_numpy(rng.normal(0, 0.8, self.n))
        self.code = torch.from_numpy(rng.integers(0, len(levels), self.n))
        self.weight = torch.from_numpy(rng.uniform(0.3, 2, self.n))

    def cuts(self, own=True, weight=None, dtype=torch.float64, **options):
        plan = Plan(Pairs(self.user, self.item, *self.shape))
        spread = first_spread(len(self.levels)) if own else None
        return CutsOfPairs(plan, self.code, first_cuts(self.levels), spread, weight=weight, dtype=dtype, **options)

    def probability(self, gamma, delta=None, score=None):
        """P of each rating, by the definition."""
        score = self.score if score is None else score
        cuts = gamma.expand(self.shape[0], -1) if delta is None else gamma + delta
        ends = torch.full((self.shape[0], 1), torch.inf, dtype=torch.float64)
        edges = torch.cat([-ends, cuts, ends], 1)[self.user]
        below = torch.sigmoid(edges - SLOPE * score[:, None])
        at = torch.arange(self.n)
        return below[at, self.code + 1] - below[at, self.code]


def test_loss_of_a_rating_by_the_common_cut_points():
    problem = Problem()
    cuts = problem.cuts(own=False, levels=LEVELS)
    loss = ordinal_loss(cuts.solution())
    rating = torch.from_numpy(LEVELS)[problem.code]
    every = slice(0, problem.n)
    np.testing.assert_allclose(loss(problem.score, rating), cuts.loss(problem.score, every), rtol=1e-12)
    slope, curvature = cuts.slope(problem.score, every)
    np.testing.assert_allclose(loss.slope(problem.score, rating), 2 * slope, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(loss.curvature(problem.score, rating), 2 * curvature, rtol=1e-12)
    below = expit(np.concatenate([[-np.inf], cuts.common, [np.inf]]) - SLOPE * problem.score.numpy()[:, None])
    np.testing.assert_allclose(loss.response(problem.score), np.diff(below, axis=1) @ LEVELS, rtol=1e-12)
    assert not loss.standardised
    assert loss.link(torch.tensor(3.0)) == 0


def gaps(cuts):
    return cuts.table[:, 1:-1].diff()


def test_first_cuts_lie_in_the_middle():
    np.testing.assert_allclose(first_cuts(LEVELS), SLOPE * np.array([-1.0, -0.15, 0.6]))


def test_first_cuts_of_an_outlier_are_finite_and_apart():
    cuts = first_cuts(np.array([0.0, 1e-9, 2e-9, 1e8]))
    assert (cuts.diff() >= 0.99 * LEAST_GAP).all()
    assert cuts.abs().max() <= 20


@own_or_not
def test_loss_and_its_derivatives_are_those_of_the_probability(own):
    problem = Problem()
    cuts = problem.cuts(own)
    delta = None
    if own:
        delta = torch.from_numpy(np.random.default_rng(1).normal(0, 0.1, (6, 3)))
        cuts.restore({"user": {"own_cuts": delta}, "rest": {"common_cuts": cuts.common, "cut_spread": cuts.spread}})
    score = problem.score.clone().requires_grad_()
    loss = -problem.probability(cuts.common, delta, score).log()
    (slope,) = torch.autograd.grad(loss.sum(), score, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), score)
    slope = slope.detach()
    for span in (slice(0, problem.n), slice(5, 20)):
        part = problem.score[span]
        np.testing.assert_allclose(cuts.loss(part, span), loss.detach()[span], rtol=1e-12)
        half_slope, half_curvature = cuts.slope(part, span)
        np.testing.assert_allclose(2 * half_slope, slope[span], rtol=1e-10, atol=1e-13)
        guarded = torch.maximum(curvature, slope.abs() * SLOPE * GUARD)[span]
        np.testing.assert_allclose(2 * half_curvature, guarded, rtol=1e-10)
    assert (curvature > slope.abs() * SLOPE * GUARD).double().mean() > 0.5  # where the guard does nothing


def test_slope_is_weighted_and_loss_is_not():
    problem = Problem()
    plain, weighted = problem.cuts(), problem.cuts(weight=problem.weight)
    span = slice(3, 9)
    for value, expected in zip(weighted.slope(problem.score[span], span), plain.slope(problem.score[span], span), strict=True):
        np.testing.assert_allclose(value, expected * problem.weight[span], rtol=1e-14)
    np.testing.assert_array_equal(weighted.loss(problem.score[span], span), plain.loss(problem.score[span], span))


@own_or_not
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e2, 1e6, 1e30])
def test_scores_far_away_are_finite_and_move_a_row_by_little(own, dtype, size):
    problem = Problem()
    cuts = problem.cuts(own, dtype=dtype)
    score = (torch.sign(problem.score) * size).to(dtype)
    span = slice(0, problem.n)
    slope, curvature = cuts.slope(score, span)
    assert slope.dtype == curvature.dtype == dtype
    assert torch.isfinite(slope).all()
    assert (curvature > 0).all()
    wrong = ((score > 0) & (problem.code < 3)) | ((score < 0) & (problem.code > 0))
    np.testing.assert_allclose(slope[wrong].abs(), SLOPE / 2, rtol=1e-6)
    assert ((slope / curvature).abs() <= 1.001 / (GUARD * SLOPE)).all()
    loss = cuts.loss(score, span)
    np.testing.assert_allclose(loss[wrong], SLOPE * size, rtol=0.1 if size < 1e3 else 1e-4)  # a tail falls like e^-x
    np.testing.assert_allclose(loss[~wrong], 0, atol=1e-30)
    cuts.learn(score, 0.5)
    assert torch.isfinite(cuts.table[:, 1:-1]).all()
    assert (gaps(cuts) > 0).all()


def objective(problem, weight, precision):
    """What learning minimises at fixed spread and certain scores, of all cut points in one vector: the common ones first."""

    def value(both):
        gamma, delta = both[0], both[1:]
        total = -(weight * problem.probability(gamma, delta).log()).sum() + 0.5 * ((delta @ precision) * delta).sum()
        closing = torch.log(-torch.expm1(-(gamma + delta).diff()))  # of levels that hold BARRIER ratings more
        return total - BARRIER * closing.sum()

    return value


def newton(value, at, free=slice(None)):
    """A whole Newton step by autograd and a dense solve, of those rows that are free; and the second derivatives."""
    at = at.clone().requires_grad_()
    gradient = torch.autograd.grad(value(at), at)[0][free]
    hessian = torch.autograd.functional.hessian(value, at.detach())[free][..., free, :]
    step = torch.linalg.solve(hessian.reshape(gradient.numel(), -1), gradient.reshape(-1))
    new = at.detach().clone()
    new[free] -= step.view_as(gradient)
    return new, hessian


@pytest.mark.parametrize("weighted", [False, True])
def test_learning_takes_the_joint_newton_step_and_a_step_of_em(weighted):
    problem = Problem()
    weight = problem.weight if weighted else None
    cuts = problem.cuts(weight=weight)
    for _ in range(4):  # to where a step is taken whole
        cuts.learn(problem.score, 0.0)
    start, spread = torch.cat([cuts.common[None], cuts.own]).clone(), cuts.spread.clone()
    value = objective(problem, torch.ones(problem.n) if weight is None else weight, torch.linalg.inv(spread))
    expected, hessian = newton(value, start)
    assert (expected - start).abs().max() > 1e-4
    cuts.learn(problem.score, 0.0)
    np.testing.assert_allclose(cuts.common, expected[0], rtol=1e-8)
    np.testing.assert_allclose(cuts.own, expected[1:], rtol=1e-6, atol=1e-9)
    delta = expected[1:]
    covariance = sum(torch.linalg.inv(hessian[u, :, u]) for u in range(1, 7))
    np.testing.assert_allclose(cuts.spread, (delta.T @ delta + covariance) / 6, rtol=1e-5, atol=2e-6)


def test_one_set_of_cuts_takes_its_newton_step():
    problem = Problem()
    cuts = problem.cuts(own=False, weight=problem.weight)
    for _ in range(2):
        cuts.learn(problem.score, 0.0)
    expected, _ = newton(lambda gamma: -(problem.weight * problem.probability(gamma).log()).sum(), cuts.common)
    assert (expected - cuts.common).abs().max() > 1e-4
    cuts.learn(problem.score, 0.0)
    np.testing.assert_allclose(cuts.common, expected, rtol=1e-8)


def test_one_set_of_cuts_at_equal_scores_has_the_levels_frequencies():
    """P(rating <= level) is then the share of such ratings, however weighted."""
    problem = Problem()
    for weight in (None, problem.weight):
        cuts = problem.cuts(own=False, weight=weight)
        for _ in range(20):
            cuts.learn(torch.full_like(problem.score, 0.7), 0.0)
        counts = np.cumsum(np.bincount(problem.code, weight, 4))
        share = counts / counts[-1]
        np.testing.assert_allclose(cuts.common, logit(share[:-1]) + SLOPE * 0.7, rtol=1e-8)


def test_uncertain_scores_soften_the_cuts():
    """At equal scores of variance v the averaged sigmoids of one cut point must give its share: two levels."""
    problem = Problem(levels=np.array([0.0, 1.0]))
    cuts = problem.cuts(own=False)
    for _ in range(30):
        cuts.learn(torch.zeros_like(problem.score), 0.8)
    share = float((problem.code == 0).double().mean())
    np.testing.assert_allclose(cuts.common, logit(share) / softening(0.8), rtol=1e-8)


def simulate(n_users, n_each, gamma, spread, noise=0.0):
    """Many ratings with cut points that are known, and scores that are known but for some noise."""
    rng = np.random.default_rng(0)
    problem = object.__new__(Problem)
    problem.shape, problem.n = (n_users, n_each), n_users * n_each
    problem.user, problem.item = np.repeat(np.arange(n_users), n_each), np.tile(np.arange(n_each), n_users)
    delta = rng.multivariate_normal(np.zeros(len(gamma)), spread, n_users)
    assert (np.diff(gamma + delta) > 0).all()
    truth = rng.normal(0, 1, problem.n)
    below = expit((gamma + delta)[problem.user] - SLOPE * truth[:, None])
    problem.code = torch.from_numpy((rng.random((problem.n, 1)) > below).sum(1))
    problem.score = torch.from_numpy(truth / (1 + noise) + rng.normal(0, (noise / (1 + noise)) ** 0.5, problem.n))
    problem.levels = np.linspace(-1, 1, len(gamma) + 1)
    return problem, delta


GAMMA = np.array([-3.0, -1.0, 0.5, 3.0])
SPREAD = 0.04 * np.array([[4.0, 2, 1, 0], [2, 3, 1, 0], [1, 1, 2, 1], [0, 0, 1, 3]])


def test_planted_cuts_are_found():
    problem, delta = simulate(400, 300, GAMMA, SPREAD)
    cuts = problem.cuts(dtype=torch.float32)
    for _ in range(25):
        cuts.learn(problem.score.float(), 0.0)
    # standard errors: sqrt(spread / 400) = 0.02 of the mean, sqrt(2 / 400) = 7 % of a variance, about 0.2 of one user's
    np.testing.assert_allclose(cuts.common, GAMMA, atol=0.08)
    np.testing.assert_allclose(cuts.spread, SPREAD, atol=0.05)
    for j in range(4):
        assert np.corrcoef(cuts.own[:, j], delta[:, j])[0, 1] > 0.8
    assert np.square(cuts.own.numpy() - delta).mean() < 0.5 * np.diag(SPREAD).mean()


def test_planted_common_cuts_are_found():
    problem, _ = simulate(50, 1000, GAMMA, np.zeros((4, 4)))
    cuts = problem.cuts(own=False, dtype=torch.float32)
    for _ in range(15):
        cuts.learn(problem.score.float(), 0.0)
    np.testing.assert_allclose(cuts.common, GAMMA, atol=0.1)  # 3 standard errors of the rarest level


@own_or_not
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cuts_stay_in_order_whatever_comes(own, dtype):
    rng = np.random.default_rng(0)
    problem = Problem(n_users=20, levels=np.array([-2.0, -1.0, -0.99, 1.0, 3.0]))
    problem.code[problem.code == 2] = 4  # a level that nobody uses
    cuts = problem.cuts(own, weight=torch.from_numpy(10 ** rng.uniform(-6, 6, problem.n)).to(dtype), dtype=dtype)
    for size in (1, 100, 1e-3, 1e4, 1, 1, 1, 1):
        for variance in (0.0, 10.0):
            cuts.learn((torch.from_numpy(rng.normal(0, size, problem.n))).to(dtype), variance)
            assert torch.isfinite(cuts.table[:, 1:-1]).all()
            assert (gaps(cuts) > 0).all()
            assert (cuts.common.diff() > 0).all()
    assert torch.isfinite(cuts.loss(problem.score.to(dtype), slice(0, problem.n))).all()


@own_or_not
def test_a_step_is_cut(own):
    problem = Problem()
    cuts = problem.cuts(own)
    before, width = cuts.table[:, 1:-1].clone(), gaps(cuts)
    cuts.learn(problem.score - 100, 0.0)
    move = cuts.table[:, 1:-1] - before
    assert move.abs().amax() <= 1 + 1e-12
    assert move.abs().amax() > 0.99
    assert (gaps(cuts) >= 0.3 * width - 1e-12).all()


@own_or_not
def test_weight_two_is_the_row_twice(own):
    problem = Problem()
    twice = Problem()
    at = np.repeat(np.arange(problem.n), np.where(np.arange(problem.n) % 3 == 0, 2, 1))
    twice.user, twice.item, twice.n = problem.user[at], problem.item[at], len(at)
    twice.code, twice.score = problem.code[at], problem.score[at]
    weight = torch.from_numpy(np.bincount(at).astype(float))
    first, second = problem.cuts(own, weight=weight), twice.cuts(own)
    for _ in range(5):
        first.learn(problem.score, 0.3)
        second.learn(twice.score, 0.3)
    np.testing.assert_allclose(first.table, second.table, rtol=1e-10)
    if own:
        np.testing.assert_allclose(first.spread, second.spread, rtol=1e-8)


@own_or_not
@pytest.mark.parametrize("size", [1, 10, 25])
def test_results_do_not_depend_on_the_size_of_blocks(monkeypatch, own, size):
    problem = Problem()
    whole = problem.cuts(own, weight=problem.weight)
    monkeypatch.setattr(ordinal, "BLOCK", size)
    cut = problem.cuts(own, weight=problem.weight)
    assert len(cut.plan) > len(whole.plan) == 1
    for _ in range(4):
        whole.learn(problem.score, 0.3)
        cut.learn(problem.score, 0.3)
    np.testing.assert_allclose(cut.table, whole.table, rtol=1e-10)
    for _, span, _ in cut.plan:
        for value, expected in zip(
            cut.slope(problem.score[span], span), whole.slope(problem.score, slice(0, problem.n)), strict=True
        ):
            np.testing.assert_allclose(value, expected[span], rtol=1e-9, atol=1e-12)


def test_matrices_of_many_levels_are_made_for_few_users_at_once():
    problem = Problem(n_users=700, n_items=30, levels=np.linspace(-2, 2, 69))
    cuts = problem.cuts(dtype=torch.float32)
    assert max(rows.stop - rows.start for rows, _, _ in cuts.plan) <= 2**20 // 68**2
    for _ in range(2):
        cuts.learn(problem.score.float(), 0.3)
    assert (gaps(cuts) > 0).all()
    assert torch.isfinite(cuts.own).all()


@own_or_not
def test_two_levels_have_one_cut(own):
    problem = Problem(levels=np.array([0.0, 1.0]))
    cuts = problem.cuts(own)
    for _ in range(10):
        cuts.learn(problem.score, 0.2)
    assert cuts.table.shape == (6 if own else 1, 3)
    assert torch.isfinite(cuts.common).all()
    value, _ = cuts.slope(problem.score, slice(0, problem.n))
    logits = SLOPE * problem.score - cuts.table[:, 1][problem.user if own else 0]
    np.testing.assert_allclose(2 * value, SLOPE * (torch.sigmoid(logits) - problem.code), atol=1e-12)  # logistic regression's


def test_new_users_learn_their_own_cuts_alone():
    problem = Problem()
    cuts = problem.cuts(weight=problem.weight)
    common, spread = cuts.common.clone(), cuts.spread.clone()
    value = objective(problem, problem.weight, torch.linalg.inv(spread))
    for _ in range(12):
        cuts.learn(problem.score, 0.0, common=False)
    np.testing.assert_array_equal(cuts.common, common)
    np.testing.assert_array_equal(cuts.spread, spread)
    both = torch.cat([common[None], cuts.own]).requires_grad_()
    (gradient,) = torch.autograd.grad(value(both), both)
    np.testing.assert_allclose(gradient[1:], 0, atol=1e-9)


def test_a_new_users_step_is_newtons():
    problem = Problem()
    cuts = problem.cuts()
    for _ in range(2):
        cuts.learn(problem.score, 0.0, common=False)
    start = torch.cat([cuts.common[None], cuts.own]).clone()
    expected, _ = newton(objective(problem, torch.ones(problem.n), torch.linalg.inv(cuts.spread)), start, slice(1, None))
    cuts.learn(problem.score, 0.0, common=False)
    np.testing.assert_allclose(cuts.own, expected[1:], rtol=1e-6, atol=1e-10)


def test_one_set_of_cuts_has_nothing_to_learn_of_new_users():
    problem = Problem()
    cuts = problem.cuts(own=False)
    before = cuts.common.clone()
    cuts.learn(problem.score, 0.0, common=False)
    np.testing.assert_array_equal(cuts.common, before)


@own_or_not
def test_a_fit_goes_on_from_its_state(own):
    problem = Problem()
    whole, first, second = (problem.cuts(own) for _ in range(3))
    for cuts in (whole, first):
        cuts.learn(problem.score, 0.3)
    second.restore(first.state())
    first.learn(problem.score * 0, 0.3)  # which must not reach into the other
    for cuts in (whole, second):
        cuts.learn(problem.score, 0.3)
    np.testing.assert_array_equal(second.table, whole.table)
    np.testing.assert_array_equal(second.common, whole.common)


@pytest.mark.cuda
@own_or_not
def test_a_gpu_learns_the_same(own):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    problem = Problem()
    here = problem.cuts(own, weight=problem.weight)
    plan = Plan(Pairs(problem.user, problem.item, *problem.shape, device="cuda"))
    spread = first_spread(4) if own else None
    weight, score = problem.weight.cuda(), problem.score.cuda()
    there = CutsOfPairs(plan, problem.code, first_cuts(LEVELS), spread, weight=weight, dtype=torch.float64)
    for _ in range(4):
        here.learn(problem.score, 0.3)
        there.learn(score, 0.3)
    np.testing.assert_allclose(there.table.cpu(), here.table, rtol=1e-9)
    there.restore(here.state())
    span = slice(0, problem.n)
    for value, expected in zip(there.slope(score, span), here.slope(problem.score, span), strict=True):
        np.testing.assert_allclose(value.cpu(), expected, rtol=1e-9, atol=1e-12)
