"""fit_batches: a module trained on batches of one's own is as good, and nothing of them is kept."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch_models import NOISE, TEST, TRAIN, batches_of, observed_on_days, rmse, small

pytestmark = pytest.mark.usefixtures("one_thread")


def test_batches_of_ones_own_train_as_well():
    options = {"max_iter": 30, "optimizer__lr": 0.2}
    model = small(**options).fit_batches(batches_of(TRAIN), n_users=150, n_items=80)
    assert rmse(model) < 1.1 * NOISE
    assert model.seen_.nnz == 0
    assert_array_equal(model.user_counts_, np.bincount(TRAIN.user_ids, minlength=150))
    assert_array_equal(model.rating_range_, [TRAIN.ratings.min(), TRAIN.ratings.max()])
    assert model.recommend([3], k=2)[0].shape == (1, 2)


def test_batches_weights_count():
    weighted = [(*batch, np.full(len(batch[0]), 2.0)) for batch in batches_of(TRAIN)]
    model = small().fit_batches(weighted, n_users=150, n_items=80)
    assert model.user_counts_.sum() == 2 * len(TRAIN)


def test_fit_batches_leaves_the_global_random_state_alone_and_takes_tensors_of_any_kind():
    user, item, rating = batches_of(TRAIN)[0]
    batch = torch.from_numpy(user), torch.from_numpy(item), torch.from_numpy(rating).bfloat16().requires_grad_()
    loader = torch.utils.data.DataLoader([batch] * 3, batch_size=None)
    before = torch.get_rng_state()
    model = small().fit_batches(loader, n_users=150, n_items=80)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.user_counts_.sum() == 300


def test_ratings_of_weight_zero_are_absent_from_batches():
    weighted = [(*batch, np.full(len(batch[0]), float(number % 2))) for number, batch in enumerate(batches_of(TRAIN))]
    model = small().fit_batches(weighted, n_users=150, n_items=80)
    expected = small().fit_batches(batches_of(TRAIN)[1::2], n_users=150, n_items=80)
    assert_allclose(model.predict(TEST), expected.predict(TEST), rtol=1e-5)
    assert_array_equal(model.rating_range_, expected.rating_range_)


def test_fit_batches_forgets_the_names_of_a_frame():
    X, y = observed_on_days()
    model = small(user="u", item="i").fit(X, y)
    assert not hasattr(model.fit_batches(batches_of(TRAIN), n_users=150, n_items=80), "feature_names_in_")
