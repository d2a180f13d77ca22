"""The ranking losses by plain loops, what they expect over the draws, and the sampler that draws."""

import math
import pickle

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from numpy.testing import assert_allclose, assert_array_equal

from sk_torchmf.nn import POINTWISE, RANKING, NegativeSampler, RankingLoss, ranking_logistic
from sk_torchmf.nn.sampling import POPULARITY_POWER

pytestmark = pytest.mark.usefixtures("one_thread")
POPULARITY = pytest.mark.parametrize("popularity", [False, True], ids=["uniform", "popularity"])


def softplus(x):
    return math.log1p(math.exp(x))


LOOPS = {  # the loss of one positive with score s, negatives with scores t, of n items that its user has not
    "logistic": lambda s, t, n: softplus(-s) + sum(softplus(one) for one in t),
    "bpr": lambda s, t, n: sum(-math.log(1 / (1 + math.exp(-(s - one)))) for one in t) / len(t),
    "hinge": lambda s, t, n: sum(max(0.0, 1 - s + one) for one in t) / len(t),
    "adaptive_hinge": lambda s, t, n: max(0.0, 1 - s + max(t)),
    "softmax": lambda s, t, n: -math.log(math.exp(s) / (math.exp(s) + n / len(t) * sum(math.exp(one) for one in t))),
}


@pytest.mark.parametrize("name", LOOPS)
def test_a_bias_of_the_user_counts_where_the_loss_says_so(name):
    positive, negative = torch.tensor([0.3, -0.2]), torch.tensor([[0.5, 0.1], [-0.4, 0.9]])
    moved = RANKING[name](positive + 0.7, negative + 0.7, 5) - RANKING[name](positive, negative, 5)
    assert RANKING[name].user_bias == (not torch.allclose(moved, torch.zeros(2), atol=1e-6))


def test_only_the_logistic_loss_predicts_a_chance():
    score = torch.tensor([0.0, math.log(3.0)])
    assert_allclose(RANKING["logistic"].response(score), [0.5, 0.75])
    for name in LOOPS.keys() - {"logistic"}:
        assert RANKING[name].response(score) is score


def test_a_loss_has_its_own_default_alpha():
    assert {name: loss.alpha for name, loss in RANKING.items()} == {
        "logistic": 0.015,
        "bpr": 0.005,
        "hinge": 0.01,
        "adaptive_hinge": 0.02,
        "softmax": 0.1,
    }
    own = RankingLoss("own", RANKING["bpr"].value, 0.7)
    assert (own.alpha, own.user_bias) == (0.01, False)


@pytest.fixture
def scores():
    rng = np.random.default_rng(0)
    return rng.normal(size=6), rng.normal(size=(6, 3)), rng.integers(3, 20, 6)


def small_matrix():
    """Who has what: user 3 has nothing, user 4 all but item 2, item 6 is rare and item 0 common; the last item nobody has."""
    has = np.array(
        [
            [1, 1, 0, 0, 0, 0, 0, 0],
            [1, 0, 1, 1, 0, 0, 0, 0],
            [1, 0, 0, 0, 1, 1, 0, 0],
            [0, 0, 0, 0, 0, 0, 0, 0],
            [1, 1, 0, 1, 1, 1, 1, 0],
        ]
    )
    return sp.csr_array(has)


def chances(seen, popularity):
    """The chance of each user's items by a plain loop, shape (n_users, n_items)."""
    has = seen.toarray() != 0
    chance = np.zeros(has.shape)
    for user in range(has.shape[0]):
        for item in range(has.shape[1]):
            if not has[user, item]:
                chance[user, item] = has[:, item].sum() ** 0.75 if popularity else 1.0
    return chance / chance.sum(1, keepdims=True)


# losses


@pytest.mark.parametrize("name", RANKING)
def test_a_loss_is_that_of_a_plain_loop(name, scores):
    positive, negative, n_unobserved = scores
    expected = [LOOPS[name](s, t, n) for s, t, n in zip(positive, negative, n_unobserved, strict=True)]
    tensors = [torch.from_numpy(values) for values in scores]
    assert_allclose(RANKING[name](*tensors), expected, rtol=1e-12)
    first = LOOPS[name](positive[0], negative[0], 7)
    assert RANKING[name](tensors[0][:1], tensors[1][:1], 7).item() == pytest.approx(first, rel=1e-12)  # one number of items


@pytest.mark.parametrize("name", RANKING)
def test_a_loss_keeps_dtype_and_has_gradients_by_autograd(name, scores):
    positive, negative, n_unobserved = (torch.from_numpy(values) for values in scores)
    assert RANKING[name](positive.float(), negative.float(), n_unobserved).dtype == torch.float32
    leaves = positive.requires_grad_(), negative.requires_grad_()
    assert torch.autograd.gradcheck(lambda s, t: RANKING[name](s, t, n_unobserved), leaves)  # no kink within 1e-6 of these


@pytest.mark.parametrize("name", RANKING)
def test_a_loss_falls_with_the_positive_and_not_with_a_negative(name):
    positive, negative = torch.zeros(1, requires_grad=True), torch.zeros(1, 3, requires_grad=True)
    RANKING[name](positive, negative, 5).sum().backward()
    assert positive.grad < 0
    assert (negative.grad >= 0).all()
    assert negative.grad.sum() > 0


@pytest.mark.parametrize("name", RANKING)
def test_a_loss_of_large_scores_is_finite(name):
    positive = torch.tensor([-1e4, 1e4], requires_grad=True)
    value = RANKING[name](positive, torch.tensor([[1e4, 0.0], [-1e4, 0.0]]), 5)
    value.sum().backward()
    assert value.isfinite().all()
    assert positive.grad.isfinite().all()


@pytest.mark.parametrize("name", ["bpr", "hinge", "adaptive_hinge", "softmax"])
def test_a_loss_of_comparisons_does_not_know_the_level_of_the_scores(name, scores):
    positive, negative, n_unobserved = (torch.from_numpy(values) for values in scores)
    assert_allclose(
        RANKING[name](positive + 5, negative + 5, n_unobserved), RANKING[name](positive, negative, n_unobserved), rtol=1e-12
    )


def test_names_are_those_of_the_losses_and_logistic_is_two_losses():
    assert set(RANKING) == set(LOOPS)
    assert all(loss.name == name and repr(loss) == f"<ranking loss {name}>" for name, loss in RANKING.items())
    assert RANKING["logistic"] is ranking_logistic is not POINTWISE["logistic"]


@pytest.mark.parametrize("name", RANKING)
def test_a_loss_is_pickled_by_name(name):
    assert pickle.loads(pickle.dumps(RANKING[name])) is RANKING[name]


def squared_hinge(positive, negative, n_unobserved):
    return (1 + negative - positive[:, None]).clamp_min(0).square().mean(1)


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
@pytest.mark.parametrize("name", [name for name, loss in RANKING.items() if loss.expected is not None])
def test_gradients_of_an_expected_loss_are_its_finite_differences(name, popularity):
    _, scores, *known = expectation_problem(popularity)
    assert torch.autograd.gradcheck(lambda scores: RANKING[name].expected(scores, *known, 2), scores.requires_grad_())


@pytest.mark.parametrize("name", ["logistic", "bpr", "softmax"])
def test_no_second_derivative_along_a_score_exceeds_the_curvature_bound(name):
    """Of the smooth losses, by autograd on a grid; a hinge has none but at its kink, where its bound is a choice."""
    grid = torch.linspace(-6, 6, 49, dtype=torch.float64)
    positive, negative = torch.meshgrid(grid, grid, indexing="ij")
    leaves = positive.ravel().clone().requires_grad_(), negative.reshape(-1, 1).clone().requires_grad_()
    slopes = torch.autograd.grad(RANKING[name](*leaves, 1).sum(), leaves, create_graph=True)
    for slope, leaf in zip(slopes, leaves, strict=True):
        second = torch.autograd.grad(slope.sum(), leaf, retain_graph=True)[0]
        assert second.max() <= RANKING[name].curvature


# the sampler


def test_a_sampler_counts_what_users_have_not():
    sampler = NegativeSampler(small_matrix())
    assert_array_equal(sampler.n_unobserved, [6, 5, 5, 8, 2])
    assert_array_equal(sampler.total, sampler.n_unobserved)
    assert_array_equal(sampler.share, np.ones(8))
    by_count = NegativeSampler(small_matrix(), popularity=True)
    count = np.array([4, 2, 1, 2, 2, 2, 1, 0])
    assert_allclose(by_count.share, count**POPULARITY_POWER)
    assert_allclose(by_count.total, [sum(count[j] ** 0.75 for j in np.flatnonzero(row == 0)) for row in small_matrix().toarray()])
    assert_array_equal(by_count.n_unobserved, sampler.n_unobserved)


@POPULARITY
def test_a_negative_is_never_a_positive_of_its_user(popularity):
    rng = np.random.default_rng(0)
    seen = sp.csr_array(rng.random((50, 30)) < rng.uniform(0, 0.9, (50, 1)))
    user = torch.arange(50).repeat(40)
    negative = NegativeSampler(seen, popularity=popularity, generator=torch.Generator().manual_seed(0)).draw(user, 5)
    assert negative.shape == (2000, 5)
    assert negative.dtype == torch.int64
    assert not seen.toarray()[user[:, None], negative].any()


@POPULARITY
def test_a_negative_belongs_to_its_own_user(popularity):
    """Two users who share all items between them: each one's negatives are the other's items, in whatever order users come."""
    seen = sp.csr_array([[1, 1, 1, 0, 0], [0, 0, 0, 1, 1]])
    user = torch.from_numpy(np.random.default_rng(0).integers(0, 2, 1000))
    negative = NegativeSampler(seen, popularity=popularity, generator=torch.Generator().manual_seed(0)).draw(user, 3)
    assert ((negative >= 3) == (user == 0)[:, None]).all()


@POPULARITY
def test_a_user_with_one_item_left_gets_that_one(popularity):
    n_items = 500  # rejection alone would take 500 rounds
    has = np.ones((2, n_items), dtype=bool)
    has[0, 123] = has[1, 0] = False
    sampler = NegativeSampler(sp.csr_array(has), popularity=popularity, generator=torch.Generator().manual_seed(0))
    assert_array_equal(sampler.draw(torch.tensor([0, 1, 0]), 4), [[123] * 4, [0] * 4, [123] * 4])


@POPULARITY
def test_negatives_come_as_often_as_their_share_says(popularity):
    seen, m = small_matrix(), 60_000
    sampler = NegativeSampler(seen, popularity=popularity, generator=torch.Generator().manual_seed(0))
    negative = sampler.draw(torch.arange(5), m).numpy()
    for user, chance in enumerate(chances(seen, popularity)):
        share = np.bincount(negative[user], minlength=8) / m
        assert (np.abs(share - chance) <= 4 * np.sqrt(chance * (1 - chance) / m)).all()


def test_negatives_from_the_list_of_what_is_left_come_as_often_as_their_share_says():
    """A user with two of a thousand items left is past rejection, and one of the two is nine times as common."""
    has = np.zeros((10, 1000), dtype=bool)
    has[0, :998] = True
    has[1:, 998] = True
    has[1, 999] = True
    sampler = NegativeSampler(sp.csr_array(has), popularity=True, generator=torch.Generator().manual_seed(0))
    share = (sampler.draw(torch.zeros(1, dtype=torch.int64), 20_000) == 998).double().mean().item()
    expected = 9**0.75 / (9**0.75 + 1)
    assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / 20_000)


def test_draws_are_independent():
    """Of a user's pairs of draws among n items, one in n is twice the same item."""
    sampler = NegativeSampler(sp.csr_array((1, 10), dtype=bool), generator=torch.Generator().manual_seed(0))
    first, second = sampler.draw(torch.zeros(20_000, dtype=torch.int64), 2).T
    assert abs((first == second).double().mean() - 0.1) < 4 * math.sqrt(0.1 * 0.9 / 20_000)


@POPULARITY
def test_draws_repeat_by_seed_and_go_on_otherwise(popularity):
    user = torch.arange(5).repeat(20)
    seeds = [0, 0, 1]
    samplers = [
        NegativeSampler(small_matrix(), popularity=popularity, generator=torch.Generator().manual_seed(seed)) for seed in seeds
    ]
    first, again, other = (sampler.draw(user, 2) for sampler in samplers)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, samplers[0].draw(user, 2))


@POPULARITY
def test_torchs_global_generator_and_default_device_are_left_out(popularity):
    before = torch.get_rng_state()
    sampler = NegativeSampler(small_matrix(), popularity=popularity, generator=torch.Generator().manual_seed(0))
    user = torch.arange(5)
    expected = sampler.draw(user, 3)
    assert torch.equal(torch.get_rng_state(), before)
    sampler.generator.manual_seed(0)
    with torch.device("meta"):  # where a tensor would have no values
        assert torch.equal(sampler.draw(user, 3), expected)


@pytest.mark.parametrize(
    ("popularity", "has"), [(False, [[1, 0, 1], [1, 1, 1]]), (True, [[1, 0, 1], [1, 1, 1]]), (True, [[0, 1, 0], [1, 1, 0]])]
)
def test_a_user_who_has_every_item_is_refused(popularity, has):
    """By popularity, also one who has every item that anybody has: the others are not known."""
    sampler = NegativeSampler(sp.csr_array(has), popularity=popularity)
    assert sampler.total[1] == 0
    sampler.draw(torch.tensor([0]), 2)
    with pytest.raises(ValueError, match=r"User 1 has every item there is to draw.*Leave this user out"):
        sampler.draw(torch.tensor([0, 1]), 2)


def test_a_user_who_has_all_that_anybody_has_is_not_saved_by_rounding():
    """Sums of powers in another order differ in their last bits: what remains must be no share at all, not 1e-16 of one."""
    rng = np.random.default_rng(0)
    for n_items in range(5, 40):
        has = rng.random((30, n_items + 1)) < 0.3
        has[0], has[:, -1] = True, False
        assert NegativeSampler(sp.csr_array(has), popularity=True).total[0] == 0


def test_explicit_zeros_and_duplicates_are_what_a_user_has_once():
    pairs = [0, 0, 0, 1], [2, 2, 1, 0]
    seen = sp.coo_array(([0.0, 1.0, 0.0, 1.0], pairs), shape=(2, 3))
    stored = sp.csr_array((np.array([0.0, 1.0, 0.0, 1.0]), np.array([2, 2, 1, 0]), np.array([0, 3, 4])), shape=(2, 3))
    indices = stored.indices.copy()
    for matrix in (seen, stored):
        sampler = NegativeSampler(matrix)
        assert_array_equal(sampler.n_unobserved, [1, 2])
        assert (sampler.draw(torch.tensor([0]), 9) == 0).all()
    assert_array_equal(stored.indices, indices)  # the caller's matrix stays as it was


def test_nobody_asked_is_nothing_drawn():
    assert NegativeSampler(small_matrix()).draw(torch.empty(0, dtype=torch.int64), 3).shape == (0, 3)
