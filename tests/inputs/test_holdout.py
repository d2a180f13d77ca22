"""The slice that is held out: its share, whom it spares, and that it is chosen by pair."""

import numpy as np
import pytest
from every_solver import DATA
from numpy.testing import assert_array_equal

from sk_torchmf.distributed import ALONE
from sk_torchmf.inputs.holdout import hold_out, hold_out_shared

pytestmark = pytest.mark.usefixtures("one_thread")


def slice_of(user, item, fraction=0.2, seed=0):
    return hold_out(np.asarray(user), np.asarray(item), fraction, seed)


def test_the_slice_has_its_share_and_no_user_loses_all():
    held = slice_of(DATA.user_ids, DATA.item_ids)
    assert held.mean() == pytest.approx(0.2, abs=0.02)
    assert set(DATA.user_ids[~held]) == set(DATA.user_ids)
    assert set(DATA.item_ids[~held]) == set(DATA.item_ids)
    counts, taken = np.bincount(DATA.user_ids), np.bincount(DATA.user_ids[held], minlength=40)
    assert (taken <= np.ceil(0.2 * counts)).all()


@pytest.mark.parametrize("seed", range(5))
def test_users_with_one_item_and_items_with_one_user_stay(seed):
    user = np.array([0, 1, 1, 2, 2, 2, 3, 3, 3, 3])
    item = np.array([0, 0, 1, 0, 1, 2, 0, 1, 3, 4])
    held = slice_of(user, item, 0.9, seed)
    assert held.any()
    assert set(user[~held]) == set(user)
    assert set(item[~held]) == set(item)


def test_the_slice_is_chosen_by_pair_whatever_the_order_and_the_repetitions():
    held = slice_of(DATA.user_ids, DATA.item_ids)
    order = np.random.default_rng(1).permutation(len(DATA))
    assert_array_equal(slice_of(DATA.user_ids[order], DATA.item_ids[order]), held[order])
    again = np.concatenate([np.arange(len(DATA)), order[:100]])
    assert_array_equal(slice_of(DATA.user_ids[again], DATA.item_ids[again]), held[again])
    assert (slice_of(DATA.user_ids, DATA.item_ids, seed=1) != held).any()


def test_a_small_slice_holds_one_pair_and_none_can_be_made_of_lone_pairs():
    assert slice_of([0, 0, 1, 1], [0, 1, 0, 1], 1e-9).sum() == 1
    assert slice_of([0, 0], [0, 1]).sum() == 1  # the item cannot be helped
    with pytest.raises(ValueError, match=r"nothing to hold out, because no user has two items\. Pass X_val, or use"):
        slice_of([0, 1, 2], [0, 1, 2])


def test_shared_slice_of_a_user_is_that_of_the_label_whoever_else_is_there():
    labels = np.array([f"user {number}" for number in range(DATA.num_users)])

    def chosen(rows, labels, user):
        return hold_out_shared(user, DATA.item_ids[rows], labels, DATA.num_items, 0.2, 0, ALONE)

    held = chosen(slice(None), labels, DATA.user_ids)
    assert held.mean() == pytest.approx(0.2, abs=0.02)
    assert set(DATA.user_ids[~held]) == set(DATA.user_ids)
    assert set(DATA.item_ids[~held]) == set(DATA.item_ids)
    some = np.flatnonzero(DATA.user_ids >= DATA.num_users // 2)
    first = DATA.num_users // 2
    again = chosen(some, labels[first:], DATA.user_ids[some] - first)
    scarce = np.bincount(DATA.item_ids[some], minlength=DATA.num_items)[DATA.item_ids[some]] < 4  # of which one may have to stay
    assert_array_equal(again[~scarce], held[some][~scarce])
    assert (hold_out_shared(DATA.user_ids, DATA.item_ids, labels, DATA.num_items, 0.2, 1, ALONE) != held).any()
