"""Batches of observations: every one of them once an epoch, a last one of any size."""

import numpy as np
import pytest
import tutorial
from contract import DATA
from numpy.testing import assert_array_equal
from torch_models import small

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("batch_size", [1, 7, 299, 300, 1000])
def test_last_batch_of_one_and_all_others(batch_size):
    model = small(tutorial.Squeezed, batch_size=batch_size, max_iter=1).fit(DATA)  # 300 ratings
    assert np.isfinite(model.predict(DATA)).all()


def test_every_rating_is_in_exactly_one_batch_of_an_epoch_and_orders_differ():
    seen = []

    class Recorder(tutorial.Plain):
        def forward(self, user, item):
            if self.training:
                seen.append((user * 100 + item).numpy())
            return super().forward(user, item)

    small(Recorder, batch_size=64).fit(DATA)
    assert {len(batch) for batch in seen} == {64, 300 - 4 * 64}
    first, second = np.concatenate(seen[:5]), np.concatenate(seen[5:])
    assert_array_equal(np.sort(first), np.sort(DATA.user_ids * 100 + DATA.item_ids))
    assert_array_equal(np.sort(first), np.sort(second))
    assert (first != second).any()
