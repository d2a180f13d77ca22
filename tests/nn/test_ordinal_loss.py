"""The ordered logit as a loss with parameters: its values, gradients and start, and what becomes of new levels."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit

from sk_torchmf.nn import OrdinalLoss

LEVELS = np.array([1.0, 2.0, 2.5, 5.0])
SHARES = np.array([1.0, 4.0, 3.0, 2.0])


def made(levels=LEVELS, weights=SHARES, **options):
    return OrdinalLoss(levels, weights, **options).double()


def by_hand(loss, score):
    """The probabilities of the levels, one score after another."""
    cuts = loss.cut_points.detach().numpy()
    return np.array([np.diff([0.0, *expit(cuts - s), 1.0]) for s in score])


def test_value_response_and_probabilities_are_those_of_an_ordered_logit():
    loss, score, code = made(reduction="none"), np.linspace(-4, 4, 24), np.arange(24) % 4
    p = by_hand(loss, score)
    s, r = torch.from_numpy(score), torch.from_numpy(LEVELS[code])
    assert_allclose(loss(s, r).detach(), -np.log(p[np.arange(24), code]), rtol=1e-10)
    assert_allclose(loss.probabilities(s).detach(), p, rtol=1e-10)
    assert_allclose(loss.response(s).detach(), p @ LEVELS, rtol=1e-7)  # the cut points are float32's
    assert loss.probabilities(s.view(4, 6)).shape == (4, 6, 4)
    assert_allclose(loss.response(s.view(4, 6)).detach(), (p @ LEVELS).reshape(4, 6), rtol=1e-7)
    for reduction in ("mean", "sum"):
        loss.reduction = reduction
        assert float(loss(s, r).detach()) == pytest.approx(getattr(np, reduction)(-np.log(p[np.arange(24), code])), rel=1e-10)


def test_gradients_are_the_finite_differences():
    loss, generator = made(), torch.Generator().manual_seed(0)
    score = (2 * torch.randn(30, generator=generator, dtype=torch.float64)).requires_grad_()
    rating = torch.from_numpy(LEVELS)[torch.randint(4, (30,), generator=generator)]
    own = list(loss.parameters())

    def value(score, first, log_gaps):
        return torch.func.functional_call(loss, {"first": first, "log_gaps": log_gaps}, (score, rating))

    assert torch.autograd.gradcheck(value, (score, *own))


def test_at_the_start_the_score_zero_has_the_shares_of_the_levels():
    loss = made()
    assert_allclose(loss.probabilities(torch.zeros(1, dtype=torch.float64)).detach()[0], SHARES / 10, rtol=1e-6)
    rating = torch.from_numpy(np.repeat(LEVELS, SHARES.astype(int)))
    loss(torch.zeros(10, dtype=torch.float64), rating).backward()  # which is the most likely there is
    for parameter in loss.parameters():
        assert_allclose(parameter.grad, 0, atol=1e-6)


def test_cut_points_stay_in_order_whatever_the_steps():
    loss = made()
    with torch.no_grad():
        loss.log_gaps.copy_(torch.tensor([-90.0, 3.0]))
    cuts = loss.cut_points
    assert (cuts.diff() > 0).all()
    assert cuts.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_scores_stay_finite(dtype):
    loss = OrdinalLoss(LEVELS).to(dtype)
    score = torch.tensor([-80.0, 80.0, 0.0], dtype=dtype, requires_grad=True)
    for level in LEVELS:
        value = loss(score, torch.full((3,), level, dtype=dtype))
        value.backward()
        assert value.isfinite()
    assert score.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in loss.parameters())
    assert_allclose(loss.probabilities(score).sum(-1).detach(), 1, rtol=1e-6)


def test_a_rating_that_is_no_level_counts_as_the_nearest():
    loss, score = made(), torch.tensor([0.3, -0.5], dtype=torch.float64)
    strange, nearest = torch.tensor([-7.0, 3.7], dtype=torch.float64), torch.tensor([1.0, 2.5], dtype=torch.float64)
    assert_array_equal(loss(score, strange).detach(), loss(score, nearest).detach())


def trained_at(cuts, levels=LEVELS):
    loss = OrdinalLoss(levels).double()
    with torch.no_grad():
        loss.first.fill_(cuts[0])
        loss.log_gaps.copy_(torch.log(torch.tensor(np.diff(cuts)) - 1e-4))
    return loss


def test_known_cut_points_stay_and_those_of_new_levels_lie_between():
    earlier, cuts = trained_at([-3.0, 0.5, 2.5]), np.array([-3.0, 0.5, 2.5])
    same = made()
    same.go_on_from(earlier)
    assert_allclose(same.cut_points.detach(), cuts, rtol=1e-12)
    more = made(np.array([0.5, 1, 2, 2.2, 2.5, 5, 6]), np.ones(7))
    fresh = more.cut_points.detach().numpy().copy()
    more.go_on_from(earlier)
    found = more.cut_points.detach().numpy()
    assert_allclose(found[[1, 2, 4]], cuts, rtol=1e-9)  # above 1, 2 and 2.5
    assert found[0] == pytest.approx(-3.0 + fresh[0] - fresh[1])
    assert found[3] == pytest.approx(0.5 + 2.0 * (fresh[3] - fresh[2]) / (fresh[4] - fresh[2]))
    assert found[5] == pytest.approx(2.5 + fresh[5] - fresh[4])
    other = made(np.array([7.0, 8.0]), np.ones(2))
    other.go_on_from(earlier)
    assert_allclose(other.cut_points.detach(), [0.0], atol=1e-6)


@pytest.mark.parametrize(
    ("levels", "weights", "message"),
    [
        ([3.0, 3.0], None, 'loss="ordinal" needs ratings of at least two levels.* Got 1: 3'),
        (np.arange(1001), None, r"at most 1000. Got 1001: 0, 1, 2, \.\.\.\. Round the ratings"),
        ([1.0, np.nan], None, "two levels"),
        ([1.0, 2.0], [1.0], "level_weights must be 2 numbers >= 0"),
        ([1.0, 2.0], [1.0, -1.0], "level_weights must be 2 numbers >= 0"),
        ([1.0, 2.0], [0.0, 0.0], "level_weights must be 2 numbers >= 0"),
    ],
)
def test_levels_that_are_none_are_refused(levels, weights, message):
    with pytest.raises(ValueError, match=message):
        OrdinalLoss(levels, weights)
