"""The sampler of negatives: whose they are, how often they come, and who has none."""

import math

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from few_positives import POPULARITY, chances, small_matrix
from numpy.testing import assert_allclose, assert_array_equal

from sk_torchmf.nn import NegativeSampler
from sk_torchmf.nn.sampling import POPULARITY_POWER

pytestmark = pytest.mark.usefixtures("one_thread")


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
    with pytest.raises(ValueError, match=r"User 1 has every item that can be drawn.*Leave this user out"):
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


def test_numbers_from_elsewhere_decide_what_is_drawn_and_what_was_seen_gets_others():
    """User 0 has all but item 1, and gets item 0 until the third round; user 1 gets item 0, at once."""
    asked = []

    def uniform(places, number):
        asked.append((number, places.tolist()))
        return torch.full((len(places),), 0.1 if number < 2 else 0.5, dtype=torch.float64)

    seen = sp.csr_array([[1, 0, 1], [0, 1, 1]])
    drawn = NegativeSampler(seen, uniform=uniform).draw(torch.tensor([1, 0]), 2)
    assert drawn.tolist() == [[0, 0], [1, 1]]
    assert asked == [(0, [0, 1, 2, 3]), (1, [2, 3]), (2, [2, 3])]


def test_numbers_from_elsewhere_decide_by_shares_too():
    """Of a user who has but one of many items, of which the last has the share of eight."""
    seen = sp.csr_array([[1, 0, 0, 0]])
    sampler = NegativeSampler(
        seen,
        popularity=True,
        item_counts=np.array([1.0, 1.0, 1.0, 16.0]),  # to the power 0.75: 1, 1, 1 and 8, in all 11
        uniform=lambda places, number: torch.tensor([1.5 / 11, 2.5 / 11, 3.5 / 11, 10.5 / 11], dtype=torch.float64),
    )
    assert sampler.draw(torch.tensor([0]), 4).tolist() == [[1, 2, 3, 3]]
