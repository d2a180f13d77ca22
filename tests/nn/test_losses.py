"""The losses of ratings by hand: values, gradients, curvatures, links, variances, and what each refuses."""

import numpy as np
import pytest
import torch
from every_loss import RATING_LOSSES

from sk_torchmf.nn import POINTWISE, PointwiseLoss, huber, logistic, poisson, squared_error

SCORES = np.array([-3.0, -0.7, 0.0, 0.3, 1.0, 2.5])
RATINGS = np.array([0.0, 0.25, 0.5, 1.0])


def test_the_variance_of_a_rating_is_that_of_its_distribution_with_an_uncertain_mean():
    prediction, variance = np.array([0.2, 0.9]), np.array([0.5, 2.0])
    for name, loss in POINTWISE.items():
        expected = RATING_LOSSES[name].variance(prediction, variance)
        np.testing.assert_allclose(loss.variance(prediction, variance), expected, rtol=1e-12)
    assert PointwiseLoss("own", value=lambda s, r: s - r, curvature=lambda s, r: s).variance is None


@pytest.fixture(params=[POINTWISE[name] for name in RATING_LOSSES], ids=RATING_LOSSES)
def loss(request):
    return request.param


def grid():
    """Every score with every rating, as two float64 tensors of shape (24,)."""
    score, rating = np.meshgrid(SCORES, RATINGS)
    return torch.from_numpy(score.ravel()), torch.from_numpy(rating.ravel())


def test_a_loss_equals_its_formula(loss):
    score, rating = grid()
    np.testing.assert_allclose(
        loss(score, rating), RATING_LOSSES[loss.name].value(score.numpy(), rating.numpy()), rtol=1e-12, atol=1e-12
    )


def test_the_gradient_of_a_loss_is_its_finite_difference(loss):
    score, rating = grid()
    score = (score + 0.013).requires_grad_()  # off the joints of the Huber loss
    (gradient,) = torch.autograd.grad(loss(score, rating).sum(), score)
    s, r, step = score.detach().numpy(), rating.numpy(), 1e-6
    formula = RATING_LOSSES[loss.name].value
    np.testing.assert_allclose(gradient, (formula(s + step, r) - formula(s - step, r)) / (2 * step), rtol=1e-6, atol=1e-8)


def test_the_curvature_is_positive_and_no_less_than_the_second_derivative(loss):
    score, rating = grid()
    curvature = loss.curvature(score, rating)
    assert curvature.shape == score.shape
    assert (curvature > 0).all()
    assert (curvature.numpy() >= RATING_LOSSES[loss.name].bend(score.numpy(), rating.numpy()) - 1e-12).all()


@pytest.mark.parametrize("loss", [squared_error, huber])
def test_the_curvature_bounds_the_loss_from_above(loss):
    """The parabola of that curvature through a score lies on or above the loss: a step to its bottom never raises it."""
    score, rating = grid()
    score.requires_grad_()
    (slope,) = torch.autograd.grad(loss(score, rating).sum(), score)
    value, curvature = loss(score, rating).detach(), loss.curvature(score, rating).detach()
    for step in np.linspace(-4, 4, 33):
        parabola = value + slope * step + curvature / 2 * step**2
        assert (loss(score.detach() + step, rating) <= parabola + 1e-12).all()


def test_losses_stay_finite_at_extreme_scores():
    score, rating = torch.tensor([-80.0, 80.0], requires_grad=True), torch.tensor([1.0, 0.0])
    for loss in (squared_error, huber, logistic):
        value = loss(score, rating)
        (slope,) = torch.autograd.grad(value.sum(), score)
        assert value.isfinite().all()
        assert slope.isfinite().all()
        assert (loss.curvature(score.detach(), rating) > 0).all()
    assert (poisson.curvature(torch.tensor([-80.0]), torch.tensor([0.0])) > 0).all()


def test_huber_equals_the_squared_error_up_to_one_and_has_no_kink_there():
    score = torch.linspace(-1, 1, 41, dtype=torch.float64, requires_grad=True)
    rating = torch.zeros_like(score)
    assert torch.equal(huber(score, rating), squared_error(score, rating))
    beyond = torch.tensor([-1 - 1e-9, 1 + 1e-9, 5.0], dtype=torch.float64, requires_grad=True)
    value = huber(beyond, torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(value.detach(), torch.tensor([1.0, 1.0, 9.0], dtype=torch.float64))
    torch.testing.assert_close(torch.autograd.grad(value.sum(), beyond)[0], torch.tensor([-2.0, 2.0, 2.0], dtype=torch.float64))


def test_losses_are_those_of_spotlight():
    """spotlight.losses of 2020, word for word: means over a batch of predictions after the link."""
    score, rating = grid()
    predicted = torch.exp(score)
    spotlight_poisson = (predicted - rating * torch.log(predicted)).mean()
    torch.testing.assert_close(poisson(score, rating).mean(), spotlight_poisson)
    torch.testing.assert_close(squared_error(score, rating).mean(), ((rating - score) ** 2).mean())
    observed = torch.sign(rating - 0.3)  # -1 and 1
    clamped = torch.clamp(observed, 0, 1)
    spotlight_logistic = torch.nn.functional.binary_cross_entropy_with_logits(score, clamped)
    coded = torch.from_numpy(logistic.check(observed.numpy()))
    torch.testing.assert_close(logistic(score, coded).mean(), spotlight_logistic)


def test_response_undoes_link(loss):
    mean = torch.tensor([0.01, 0.3, 0.5, 0.99], dtype=torch.float64)
    torch.testing.assert_close(loss.response(loss.link(mean)), mean)


@pytest.mark.parametrize("loss", [poisson, logistic])
def test_the_link_of_a_boundary_mean_is_finite(loss):
    assert loss.link(torch.tensor([0.0, 1.0])).isfinite().all()


def test_logistic_takes_minus_one_and_one_as_zero_and_one():
    np.testing.assert_array_equal(logistic.check(np.array([-1.0, 1.0, 1.0])), [0.0, 1.0, 1.0])
    np.testing.assert_array_equal(logistic.check(np.array([0.0, 0.5, 1.0])), [0.0, 0.5, 1.0])
    with pytest.raises(
        ValueError, match=r'loss="logistic" needs ratings between 0 and 1, or all of them -1 or 1\. Got -1\.0 to 0\.5'
    ):
        logistic.check(np.array([-1.0, 0.5]))


def test_poisson_refuses_negative_counts():
    np.testing.assert_array_equal(poisson.check(np.array([0.0, 7.0])), [0.0, 7.0])
    with pytest.raises(ValueError, match=r'loss="poisson" needs ratings >= 0 \(counts\)\. Got -2\.0'):
        poisson.check(np.array([3.0, -2.0]))
