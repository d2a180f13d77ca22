"""The weights of a trained model with Spotlight's interface as an estimator of ours."""

import pickle

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from data import planted
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from spotlight_like import ExplicitModel, ImplicitModel

from sk_torchmf import BiasedMatrixFactorization, ImplicitMatrixFactorization, Interactions
from sk_torchmf.spotlight import weights_from_spotlight

DATA = planted(3, mean=3.0, n_users=30, n_items=20, n_ratings=300)[0]
LOSSES = dict.fromkeys(ExplicitModel.losses, ExplicitModel) | dict.fromkeys(ImplicitModel.losses, ImplicitModel)
every_loss = pytest.mark.parametrize(("loss", "kind"), LOSSES.items(), ids=LOSSES)
pytestmark = pytest.mark.usefixtures("one_thread")


def trained(loss, kind, **options):
    """A trained model, and what it was trained on: two users and an item in it have nothing."""
    ratings = (DATA.ratings > 3 if loss == "logistic" else np.rint(np.abs(DATA.ratings))).astype(np.float32)
    data = Interactions(DATA.user_ids, DATA.item_ids, ratings, num_users=32, num_items=21)
    model = kind(loss, n_iter=30, random_state=np.random.RandomState(0), **options)
    model.fit(data)
    return model, data


@every_loss
@pytest.mark.parametrize("given", [True, False], ids=["train given", "train not given"])
def test_predictions_are_those_of_the_model_that_was_taken_over(loss, kind, given):
    model, data = trained(loss, kind)
    fitted = weights_from_spotlight(model, data if given else None)
    assert type(fitted) is (BiasedMatrixFactorization if kind is ExplicitModel else ImplicitMatrixFactorization)
    expected = np.array([model.predict(user) for user in range(32)])
    assert expected.std() > 0.05
    assert_allclose(fitted.predict(np.arange(32)[:, None], np.arange(21)), expected, rtol=1e-5, atol=1e-5)
    assert_allclose([fitted.predict(user) for user in range(32)], expected, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        exported = fitted.to_module()(torch.arange(21), torch.arange(21)).numpy()
    assert_allclose(exported, expected.diagonal(), rtol=1e-5, atol=1e-5)


@every_loss
def test_an_unknown_user_of_a_model_that_was_taken_over_is_the_average_of_the_known(loss, kind):
    model, data = trained(loss, kind)
    fitted = weights_from_spotlight(model, data)
    scores = fitted._score(np.arange(30)[:, None], np.arange(21))
    assert_allclose(fitted._score(np.full(21, 999), np.arange(21)), scores.mean(0), rtol=1e-5, atol=1e-6)
    assert np.isnan(weights_from_spotlight(model, data).set_params(handle_unknown="nan").predict(31, 3))


@every_loss
def test_what_was_seen_is_left_out_and_new_users_are_folded_in_where_the_training_data_are_given(loss, kind):
    model, data = trained(loss, kind)
    fitted = weights_from_spotlight(model, data)
    seen = np.zeros((32, 21), dtype=bool)
    seen[data.user_ids, data.item_ids] = True
    items, _ = fitted.recommend(k=21)
    for user in range(32):
        assert_array_equal(np.sort(items[user][items[user] >= 0]), np.flatnonzero(~seen[user]))
    rows = sp.csr_array(data.tocsr()[:30])
    again, stranger = fitted.predict(rows), fitted.predict(999)
    if kind is ExplicitModel:
        pairs = data.user_ids, data.item_ids
        errors = [np.mean((scores[pairs] - data.ratings) ** 2) for scores in (again, np.tile(stranger, (30, 1)))]
        assert errors[0] < 0.9 * errors[1]
    else:

        def lead(scores):
            return np.mean([row[own].mean() - row[~own].mean() for row, own in zip(scores, seen[:30], strict=True)])

        assert lead(again) > 1.1 * lead([stranger] * 30)
    assert_allclose(fitted.predict(sp.csr_array((1, 21)))[0], stranger, rtol=1e-4, atol=1e-4)  # nothing known: the mean user


def test_the_fold_in_of_ratings_is_the_ridge_of_the_users_own_distribution():
    model, data = trained("regression", ExplicitModel)
    fitted = weights_from_spotlight(model, data)
    rows = np.column_stack([fitted.user_factors_, fitted.user_biases_])[:30].astype(float)
    features = np.column_stack([fitted.item_factors_, np.ones(21)]).astype(float)
    noise = np.mean((data.ratings - fitted.predict(data)) ** 2)
    precision, mean = noise * np.linalg.inv(np.cov(rows.T, bias=True)), rows.mean(0)
    rated = sp.csr_array(([4.0, 1.0], ([0, 0], [2, 7])), shape=(1, 21))
    y = features[[2, 7]]
    residual = np.array([4.0, 1.0]) - fitted.item_biases_[[2, 7]] - fitted.global_mean_
    expected = np.linalg.solve(y.T @ y + precision, y.T @ residual + precision @ mean)
    assert_allclose(fitted.fold_in(rated)[0], expected, rtol=1e-3, atol=1e-4)


@every_loss
def test_without_the_training_data_nothing_is_seen_and_nobody_folded_in(loss, kind):
    model, _ = trained(loss, kind)
    fitted = weights_from_spotlight(model)
    assert (fitted.recommend(k=21)[0] >= 0).all()
    for call in (fitted.fold_in, fitted.predict, fitted.recommend):
        with pytest.raises(ValueError, match=r"weights_from_spotlight\(model, train\)"):
            call(sp.csr_array(([1.0], ([0], [2])), shape=(1, 21)))


def test_the_arrays_are_copies():
    model, data = trained("regression", ExplicitModel)
    fitted = weights_from_spotlight(model, data)
    before = fitted.predict(data)
    with torch.no_grad():
        for parameter in model._net.parameters():
            parameter.zero_()
    assert_array_equal(fitted.predict(data), before)


def test_what_was_taken_over_can_be_cloned_pickled_and_fitted_anew():
    model, data = trained("regression", ExplicitModel)
    fitted = weights_from_spotlight(model, data)
    assert_array_equal(pickle.loads(pickle.dumps(fitted)).predict(data), fitted.predict(data))
    anew = clone(fitted).set_params(random_state=0).fit(data)
    assert anew.user_factors_.shape == fitted.user_factors_.shape
    with pytest.raises(ValueError, match='return_std=True needs solver="variational"'):
        fitted.predict(data, return_std=True)


def test_limits_are_those_of_the_training_data():
    model, data = trained("regression", ExplicitModel)
    fitted = weights_from_spotlight(model, data)
    assert_array_equal(fitted.rating_range_, [data.ratings.min(), data.ratings.max()])
    assert fitted.predict(data, clip=True).max() <= data.ratings.max()


def test_only_a_trained_factorization_is_taken_over():
    with pytest.raises(NotFittedError, match="model must be trained"):
        weights_from_spotlight(ExplicitModel(random_state=np.random.RandomState(0)))
    with pytest.raises(TypeError, match=r"with a BilinearNet\. Got str"):
        weights_from_spotlight("model")
    model, data = trained("regression", ExplicitModel)
    del model._net.user_biases
    with pytest.raises(TypeError, match=r"with a BilinearNet\. Got ExplicitModel with a Net"):
        weights_from_spotlight(model)
    model, data = trained("regression", ExplicitModel)
    with pytest.raises(ValueError, match="32 users and 21 items"):
        weights_from_spotlight(model, Interactions([0], [0], [1.0], num_users=3, num_items=4))
    with pytest.raises(ValueError, match="train must have the ratings"):
        weights_from_spotlight(model, Interactions(data.user_ids, data.item_ids, num_users=32, num_items=21))
    with pytest.raises(TypeError, match="train must be Interactions"):
        weights_from_spotlight(model, data.tocsr())
    model._loss = "other"
    with pytest.raises(TypeError, match="loss 'other'"):
        weights_from_spotlight(model)
