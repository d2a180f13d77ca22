"""Batches of the caller's own: where they can come from, and the words for those that are none."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from torch_models import TEST, TRAIN, batches_of, small

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("how", ["function", "loader", "dataset"])
def test_batches_can_come_from_what_iterates_anew(how):
    made = batches_of(TRAIN)

    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(made)

    batches = {
        "function": lambda: iter(made),
        "loader": torch.utils.data.DataLoader(Stream(), batch_size=None),
        "dataset": Stream(),
    }[how]
    expected = small().fit_batches(made, n_users=150, n_items=80).predict(TEST)
    assert_array_equal(small().fit_batches(batches, n_users=150, n_items=80).predict(TEST), expected)


def test_a_spent_iterator_is_for_one_epoch():
    with pytest.raises(ValueError, match=r"max_iter=2 times.*Use max_iter=1"):
        small().fit_batches(iter(batches_of(TRAIN)), n_users=150, n_items=80)
    small(max_iter=1).fit_batches(iter(batches_of(TRAIN)), n_users=150, n_items=80)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (([0], [0]), r"Batch 0 must be \(user, item, rating\)"),
        (([200], [0], [1.0]), r"users of batch 0\[0\] is 200, but n_users is 150"),
        (([0], [-1], [1.0]), "items of batch 0 must be >= 0"),
        (([0], [0, 1], [1.0]), "items of batch 0 must have one value"),
        (([0], [0], [np.nan]), r"ratings of batch 0\[0\] is nan"),
        (([0], [0], [1.0], [-1.0]), "weights of batch 0 must be >= 0"),
    ],
)
def test_a_bad_batch_is_named(batch, message):
    with pytest.raises(ValueError, match=message):
        small().fit_batches([batch], n_users=150, n_items=80)


def test_no_batches_are_refused():
    with pytest.raises(ValueError, match="It yielded nothing in epoch 1"):
        small().fit_batches([], n_users=150, n_items=80)


def test_memory_does_not_grow_with_the_number_of_batches():
    import tracemalloc

    def stream(n):
        rng = np.random.default_rng(0)
        for _ in range(n):
            yield rng.integers(150, size=1000), rng.integers(80, size=1000), rng.normal(size=1000)

    peaks = []
    for n in (5, 50):
        tracemalloc.start()
        small(max_iter=1).fit_batches(stream(n), n_users=150, n_items=80)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] + 100_000  # 45 batches more would be 1 MB


def test_batches_that_do_not_iterate_are_refused():
    with pytest.raises(TypeError, match="batches must be iterable"):
        small().fit_batches(5, n_users=150, n_items=80)
