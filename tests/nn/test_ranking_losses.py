"""The ranking losses by plain loops, and what they expect over the draws."""

import math
import pickle

import numpy as np
import pytest
import torch
from every_loss import COMPARING, EXACT, RANKING_LOSSES, every_exact_loss, every_ranking_loss, softplus, squared_hinge
from few_positives import POPULARITY, chances, small_matrix
from numpy.testing import assert_allclose

from sk_torchmf.nn import POINTWISE, RANKING, NegativeSampler, RankingLoss, ranking_logistic

pytestmark = pytest.mark.usefixtures("one_thread")


@every_ranking_loss
def test_a_bias_of_the_user_counts_where_the_loss_says_so(name):
    positive, negative = torch.tensor([0.3, -0.2]), torch.tensor([[0.5, 0.1], [-0.4, 0.9]])
    moved = RANKING[name](positive + 0.7, negative + 0.7, 5) - RANKING[name](positive, negative, 5)
    assert RANKING[name].user_bias == (not torch.allclose(moved, torch.zeros(2), atol=1e-6))


def test_only_the_logistic_loss_predicts_a_chance():
    score = torch.tensor([0.0, math.log(3.0)])
    assert_allclose(RANKING["logistic"].response(score), [0.5, 0.75])
    for name in RANKING_LOSSES.keys() - {"logistic"}:
        assert RANKING[name].response(score) is score


def test_a_loss_has_its_own_default_alpha():
    assert {name: loss.alpha for name, loss in RANKING.items()} == {name: loss.alpha for name, loss in RANKING_LOSSES.items()}
    own = RankingLoss("own", RANKING["bpr"].value, 0.7)
    assert (own.alpha, own.user_bias) == (0.01, False)


@pytest.fixture
def scores():
    rng = np.random.default_rng(0)
    return rng.normal(size=6), rng.normal(size=(6, 3)), rng.integers(3, 20, 6)


# losses


@every_ranking_loss
def test_a_loss_is_that_of_a_plain_loop(name, scores):
    positive, negative, n_unobserved = scores
    expected = [RANKING_LOSSES[name].value(s, t, n) for s, t, n in zip(positive, negative, n_unobserved, strict=True)]
    tensors = [torch.from_numpy(values) for values in scores]
    assert_allclose(RANKING[name](*tensors), expected, rtol=1e-12)
    first = RANKING_LOSSES[name].value(positive[0], negative[0], 7)
    assert RANKING[name](tensors[0][:1], tensors[1][:1], 7).item() == pytest.approx(first, rel=1e-12)  # one number of items


@every_ranking_loss
def test_a_loss_keeps_dtype_and_has_gradients_by_autograd(name, scores):
    positive, negative, n_unobserved = (torch.from_numpy(values) for values in scores)
    assert RANKING[name](positive.float(), negative.float(), n_unobserved).dtype == torch.float32
    leaves = positive.requires_grad_(), negative.requires_grad_()
    assert torch.autograd.gradcheck(lambda s, t: RANKING[name](s, t, n_unobserved), leaves)  # no kink within 1e-6 of these


@every_ranking_loss
def test_a_loss_falls_with_the_positive_and_not_with_a_negative(name):
    positive, negative = torch.zeros(1, requires_grad=True), torch.zeros(1, 3, requires_grad=True)
    RANKING[name](positive, negative, 5).sum().backward()
    assert positive.grad < 0
    assert (negative.grad >= 0).all()
    assert negative.grad.sum() > 0


@every_ranking_loss
def test_a_loss_of_large_scores_is_finite(name):
    positive = torch.tensor([-1e4, 1e4], requires_grad=True)
    value = RANKING[name](positive, torch.tensor([[1e4, 0.0], [-1e4, 0.0]]), 5)
    value.sum().backward()
    assert value.isfinite().all()
    assert positive.grad.isfinite().all()


@pytest.mark.parametrize("name", COMPARING)
def test_a_loss_of_comparisons_does_not_know_the_level_of_the_scores(name, scores):
    positive, negative, n_unobserved = (torch.from_numpy(values) for values in scores)
    assert_allclose(
        RANKING[name](positive + 5, negative + 5, n_unobserved), RANKING[name](positive, negative, n_unobserved), rtol=1e-12
    )


def test_names_are_those_of_the_losses_and_logistic_is_two_losses():
    assert set(RANKING) == set(RANKING_LOSSES)
    assert {name for name, loss in RANKING.items() if loss.expected is not None} == set(EXACT)
    assert all(loss.name == name and repr(loss) == f"<ranking loss {name}>" for name, loss in RANKING.items())
    assert RANKING["logistic"] is ranking_logistic is not POINTWISE["logistic"]


@every_ranking_loss
def test_a_loss_is_pickled_by_name(name):
    assert pickle.loads(pickle.dumps(RANKING[name])) is RANKING[name]


def test_a_loss_of_ones_own_is_pickled_with_its_function_even_under_a_known_name():
    loss = pickle.loads(pickle.dumps(RankingLoss("hinge", squared_hinge, 4.0)))
    assert loss.value is squared_hinge
    assert loss(torch.tensor([0.0]), torch.tensor([[1.0]]), 3).item() == 4.0


# expectations


def expectation_problem(popularity):
    """The arguments of ``expected``: scores of all pairs, and what is known of the positives of users that have any."""
    seen = small_matrix()
    rng = np.random.default_rng(1)
    pairs = seen.tocoo()
    user, item = (torch.from_numpy(ids.astype(np.int64)) for ids in (pairs.row, pairs.col))
    scores, weight = torch.from_numpy(rng.normal(size=seen.shape)), torch.from_numpy(rng.uniform(0.5, 2, seen.nnz))
    sampler = NegativeSampler(seen, popularity=popularity, generator=torch.Generator().manual_seed(2))
    known = (torch.from_numpy(values) for values in (sampler.share, sampler.total, sampler.n_unobserved))
    return sampler, scores, user, item, weight, *known


@POPULARITY
def test_the_expected_logistic_loss_is_the_sum_over_all_negatives_by_their_chance(popularity):
    _, scores, user, item, weight, *known = expectation_problem(popularity)
    chance, m, total = chances(small_matrix(), popularity), 3, 0.0
    for u, i, w in zip(user.tolist(), item.tolist(), weight.tolist(), strict=True):
        total += w * softplus(-scores[u, i].item())
        total += w * m * sum(chance[u, j] * softplus(scores[u, j].item()) for j in range(scores.shape[1]))
    assert ranking_logistic.expected(scores, user, item, weight, *known, m).item() == pytest.approx(total, rel=1e-12)


@POPULARITY
def test_the_drawn_logistic_loss_is_the_expected_one_on_average(popularity):
    sampler, scores, user, item, weight, *known = expectation_problem(popularity)
    draws = 4000
    users, items, weights = user.repeat(draws), item.repeat(draws), weight.repeat(draws)
    negative = sampler.draw(users, 2)
    value = weights * ranking_logistic(scores[users, items], scores[users[:, None], negative], known[2][users])
    sums = value.view(draws, -1).sum(1)
    exact = ranking_logistic.expected(scores, user, item, weight, *known, 2)
    assert abs(sums.mean() - exact) < 4 * sums.std() / draws**0.5


@POPULARITY
def test_the_softmax_of_very_many_negatives_is_the_expected_one(popularity):
    sampler, scores, user, item, weight, *known = expectation_problem(popularity)
    m = 100_000
    value = RANKING["softmax"](scores[user, item], scores[user[:, None], sampler.draw(user, m)], known[2][user])
    exact = RANKING["softmax"].expected(scores, user, item, weight, *known, 1)
    # exp of a normal score has a coefficient of variation of 1.3, so that a positive's error is below 1.3 / m**0.5 = 0.004
    assert_allclose(torch.dot(value, weight), exact, rtol=4 * 0.004)


def test_the_expected_softmax_of_uniform_negatives_is_the_softmax_over_what_the_user_has_not():
    _, scores, user, item, weight, *known = expectation_problem(False)
    seen, total = small_matrix().toarray() != 0, 0.0
    for u, i, w in zip(user.tolist(), item.tolist(), weight.tolist(), strict=True):
        others = sum(math.exp(scores[u, j]) for j in range(scores.shape[1]) if not seen[u, j])
        own = math.exp(scores[u, i])
        total -= w * math.log(own / (own + others))
    assert RANKING["softmax"].expected(scores, user, item, weight, *known, 1).item() == pytest.approx(total, rel=1e-12)


@POPULARITY
@every_exact_loss
def test_gradients_of_an_expected_loss_are_its_finite_differences(name, popularity):
    _, scores, *known = expectation_problem(popularity)
    assert torch.autograd.gradcheck(lambda scores: RANKING[name].expected(scores, *known, 2), scores.requires_grad_())


@pytest.mark.parametrize("name", [name for name, loss in RANKING_LOSSES.items() if loss.smooth])
def test_no_second_derivative_along_a_score_exceeds_the_curvature_bound(name):
    """Of the smooth losses, by autograd on a grid; a hinge has none but at its kink, where its bound is a choice."""
    grid = torch.linspace(-6, 6, 49, dtype=torch.float64)
    positive, negative = torch.meshgrid(grid, grid, indexing="ij")
    leaves = positive.ravel().clone().requires_grad_(), negative.reshape(-1, 1).clone().requires_grad_()
    slopes = torch.autograd.grad(RANKING[name](*leaves, 1).sum(), leaves, create_graph=True)
    for slope, leaf in zip(slopes, leaves, strict=True):
        second = torch.autograd.grad(slope.sum(), leaf, retain_graph=True)[0]
        assert second.max() <= RANKING[name].curvature
