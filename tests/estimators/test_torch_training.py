"""More data after the fit of a module: its features, scheduler, ranking and kind of loss go on."""

import numpy as np
import pytest
import torch
import tutorial
from data import as_form, planted
from every_estimator import MODELS
from numpy.testing import assert_array_equal

from sk_torchmf import TorchFactorization

pytestmark = pytest.mark.usefixtures("one_thread")
DATA, TRUTH = planted(3, mean=3.0, n_users=60, n_items=40, n_ratings=1500)


def test_a_module_keeps_the_features_of_its_ratings():
    X = np.column_stack([*as_form(DATA, "table")[0].T, np.arange(len(DATA)) % 7])

    class WithDay(tutorial.Biased):
        def __init__(self, n_users, n_items):
            super().__init__(n_users, n_items, 3, sparse=False)

        def forward(self, user, item, day):
            return super().forward(user, item) + 0 * day[:, None]

    model = TorchFactorization(WithDay, features={"day": 2}, max_iter=1, random_state=0).fit(X[:700], DATA.ratings[:700])
    model.partial_fit(X[700:], DATA.ratings[700:])
    observed = model.observed_
    user = np.repeat(np.arange(observed.shape[0]), np.diff(observed.indptr))
    found = sorted(zip(user, observed.indices, model.observed_features_["day"], strict=True))
    assert_array_equal(found, sorted(zip(*X.T, strict=True)))
    with pytest.raises(ValueError, match=r"partial_fit goes on with the features that fit had, \['day'\]"):
        model.set_params(features=None).partial_fit(X, DATA.ratings)


def test_batches_that_passed_are_not_kept():
    model = MODELS["torch"]().fit_batches([(DATA.user_ids, DATA.item_ids, DATA.ratings)], n_users=60, n_items=40)
    with pytest.raises(ValueError, match=r"has not kept them: .* or fitted on batches"):
        model.partial_fit(DATA)


def test_a_scheduler_goes_on():
    params = {"scheduler": "StepLR", "scheduler__step_size": 1, "scheduler__gamma": 0.5, "max_iter": 2}
    model = MODELS["torch"](**params).fit(DATA)
    assert model.partial_fit(DATA[:10]).optimizer_state_["rates"] == [pytest.approx(0.05 * 0.5**4)]


def test_a_module_ranks_all_positives_after_more():
    model = MODELS["torch"](loss="bpr", max_iter=2).fit(DATA[:700]).partial_fit(DATA[700:])
    assert model.seen_.nnz == len(DATA)


def test_features_go_on_with_the_categories_they_have():
    X = np.column_stack([*as_form(DATA, "labels")[0].T, np.where(DATA.user_ids % 2, "odd", "even")])

    class WithDay(tutorial.Biased):
        def __init__(self, n_users, n_items, n_day):
            super().__init__(n_users, n_items, 3, sparse=False)
            self.days = torch.nn.Embedding(n_day, 1)

        def forward(self, user, item, day):
            return super().forward(user, item) + self.days(day)

    model = TorchFactorization(WithDay, features={"day": 2}, max_iter=1, random_state=0).fit(X[:700], DATA.ratings[:700])
    model.partial_fit(X[700:], DATA.ratings[700:])
    assert model.seen_.nnz == len(DATA)
    X[0, 2] = "another"
    with pytest.raises(ValueError, match="day has a category in row 0 that fit did not see"):
        model.partial_fit(X, DATA.ratings)


@pytest.mark.parametrize(("first", "then"), [("bpr", "squared_error"), ("squared_error", "bpr")])
def test_the_kind_of_loss_cannot_change_between_calls(first, then):
    model = MODELS["torch"](loss=first, max_iter=1).fit(DATA[:500])
    before = model.predict(DATA)
    model.set_params(loss=then)
    with pytest.raises(ValueError, match=rf"partial_fit goes on with the kind of loss that fit had, .*Got .*, '{then}'. Use fit."):
        model.partial_fit(DATA[500:])
    assert_array_equal(model.set_params(loss=first).predict(DATA), before)
    assert model.set_params(loss=then).fit(DATA).n_iter_ == 1
