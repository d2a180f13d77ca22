"""Predictions of any module: responses, unknown categories, and what features have to come along."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
import tutorial
from data import as_form
from numpy.testing import assert_allclose, assert_array_equal
from torch_models import RATINGS, TEST, TRAIN, observed_on_days, small, weekly

from sk_torchmf import Interactions
from sk_torchmf.nn import huber

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("loss", "response"), [("poisson", np.exp), ("logistic", lambda s: 1 / (1 + np.exp(-s))), (huber, lambda s: s)]
)
def test_a_loss_with_a_link_predicts_the_response(loss, response):
    data = Interactions(TRAIN.user_ids, TRAIN.item_ids, (TRAIN.ratings > 3).astype(float), num_users=150, num_items=80)
    model = small(loss=loss).fit(data)
    score = model.module_(*(torch.from_numpy(ids).long() for ids in (TEST.user_ids, TEST.item_ids))).detach().numpy()[:, 0]
    assert_allclose(model.predict(TEST), response(score), rtol=1e-5)
    assert_allclose(model.to_module()(torch.tensor([3]), torch.tensor([4])).item(), model.predict(3, 4), rtol=1e-5)


def test_an_unknown_category_is_averaged_out_an_error_or_nan():
    X, y = observed_on_days()
    new = X[:4].assign(day=["mon", "mon", "never", "mon"])
    model = weekly().fit(X, y)
    expected = np.mean([model.predict(X[2:3].assign(day=day))[0] for day in model.background_["day"]])
    assert model.predict(new)[2] == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ValueError, match="category of day of row 2 was not seen"):
        weekly(handle_unknown="error").fit(X, y).predict(new)
    assert_array_equal(np.isnan(weekly(handle_unknown="nan").fit(X, y).predict(new)), [False, False, True, False])


def test_features_left_out_at_predict_are_named():
    X, y = observed_on_days()
    model = weekly().fit(X, y)
    with pytest.raises(ValueError, match="'day' is missing"):
        model.predict(3, 4)
    with pytest.raises(ValueError, match="'dya' is not one of them"):
        model.predict(3, 4, features={"day": "mon", "hour": 0.5, "dya": 1})
    with pytest.raises(ValueError, match="features need X to be a table"):
        weekly().fit(as_form(RATINGS, "sparse")[0])
    with pytest.raises(ValueError, match=r"hour\[0\] is nan"):
        model.predict(X.assign(hour=np.nan))


@pytest.mark.parametrize("call", ["predict", "score", "recommend"])
def test_a_sparse_matrix_of_new_users_is_refused_with_the_way(call):
    with pytest.raises(ValueError, match=r"no fold-in.*Interactions\.from_matrix"):
        getattr(small().fit(TRAIN), call)(sp.csr_array((2, 80)))


def test_dropout_is_seeded_and_off_at_predict():
    first, second = (small(tutorial.Dropout, module__p=0.5, optimizer="Adam").fit(TRAIN) for _ in range(2))
    assert_array_equal(first.predict(TEST), first.predict(TEST))
    assert_array_equal(first.predict(TEST), second.predict(TEST))
    assert not first.module_.training


def test_features_beside_a_table_are_refused():
    X, y = observed_on_days()
    with pytest.raises(ValueError, match="a table or container has its own features"):
        weekly().fit(X, y).predict(X, features={"day": "mon", "hour": 0.5})


def test_recommend_refuses_an_unknown_category_where_asked_to():
    X, y = observed_on_days()
    with pytest.raises(ValueError, match="category of day of row 0 was not seen"):
        weekly(handle_unknown="error").fit(X, y).recommend([3], features={"day": "never", "hour": 0.5})
