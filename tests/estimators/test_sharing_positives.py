"""Fits to positives that several processes share, in real ones: the same as by one, or refused with words."""

import sys

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal
from several_processes import run
from sharing_positives import ASKED, CHECKPOINTED, FITS, FOLDER, N_DONE, N_EPOCHS, N_USERS, OTHER_FITS, OTHERS, REFUSED, make, part

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks")
EVERY_FIT = [*FITS, *OTHER_FITS]
GROUPS = [(EVERY_FIT[first : first + 15], 60) for first in range(0, len(EVERY_FIT), 15)]  # each has a limit of its own


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """What two processes say whose fits have left checkpoints in a folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FOLDER, str(tmp_path_factory.mktemp("shared")))
        yield run("sharing_positives", [(["interrupted"], 60)], 2, tmp_path_factory.mktemp("two"))["interrupted"]


@pytest.fixture(scope="module")
def alone(interrupted, tmp_path_factory):
    """What one process in a group of one finds."""
    found = run("sharing_positives", [*GROUPS, (["uninterrupted", "resumed"], 60)], 1, tmp_path_factory.mktemp("one"))
    return {name: own[0] for name, own in found.items()}


@pytest.fixture(scope="module", params=[2, 4])
def size(request):
    return request.param


@pytest.fixture(scope="module")
def found(size, interrupted, tmp_path_factory):
    groups = [*GROUPS, ([*OTHERS, "resumed", "bytes_of_an_epoch", "bytes_of_an_epoch_of_cosine"], 60)]
    return run("sharing_positives", groups, size, tmp_path_factory.mktemp("ranks"))


def assert_same(ours, theirs, name):
    """Numbers to 1e-12, relative to the largest."""
    if isinstance(theirs, tuple | list):
        for own, other in zip(ours, theirs, strict=True):
            assert_same(own, other, name)
    elif isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key in theirs.keys() - {"seconds"}:
            assert_same(ours[key], theirs[key], name)
    elif hasattr(theirs, "get_params"):  # an encoder
        assert_same(vars(ours), vars(theirs), name)
    elif sp.issparse(theirs):
        for own in ("indptr", "indices", "data"):
            assert_array_equal(getattr(ours, own), getattr(theirs, own), name)
        assert (ours.shape, ours.dtype, ours.indices.dtype) == (theirs.shape, theirs.dtype, theirs.indices.dtype)
    elif isinstance(theirs, float) or getattr(theirs, "dtype", np.dtype(object)).kind == "f":
        assert np.asarray(ours).dtype == np.asarray(theirs).dtype
        largest = np.abs(theirs).max(initial=1, where=np.isfinite(theirs))  # a place in a list that no item has left is -inf
        assert_allclose(ours, theirs, rtol=0, atol=1e-12 * largest, err_msg=name)
    else:
        assert_array_equal(ours, theirs, name)


@pytest.mark.parametrize("case", EVERY_FIT)
def test_gathered_parts_are_the_fit_of_one_process(found, alone, case):
    _, expected = alone[case]
    for own, gathered in found[case]:
        assert gathered.keys() == expected.keys()
        for name, value in expected.items():
            assert_same(gathered[name], value, name)
        for name in ("item_factors_", "item_counts_", "mean_user_", "history_", "n_positives_", "confidence_"):
            assert_same(own[name], expected[name], name)
        assert own["seen_"].shape == (len(own["users_"]), len(own["items_"]))
    assert_array_equal(np.sort(np.concatenate([own["users_"] for own, _ in found[case]])), expected["users_"])


def test_data_set_on_disk_gives_the_model_of_its_rows(found, alone):
    _, expected = alone["ials_biased_weighted"]
    for _, gathered in found["from_shards_weighted"]:
        for name in ("users_", "items_", "user_factors_", "item_factors_", "item_biases_", "n_positives_", "n_active_users_"):
            assert_same(gathered[name], expected[name], name)
        assert (gathered["seen_"] != expected["seen_"]).nnz == 0


def test_every_user_of_a_part_is_of_one_process(found, alone):
    assert len(alone["ials"][1]["users_"]) == N_USERS
    assert min(len(own["users_"]) for own, _ in found["ials"]) > 0
    assert min(len(own["users_"]) for own, _ in found["all_rows_on_the_last"]) > 0


@pytest.mark.parametrize("case", ASKED)
def test_process_says_of_its_users_and_of_new_ones_what_the_whole_says(found, case):
    for own, whole, loaded in found[case]:
        assert_same(own, whole, case)
        assert_same(loaded, own, case)


@pytest.mark.parametrize("name", CHECKPOINTED)
def test_fit_that_was_ended_goes_on_in_as_many_processes_as_there_are(interrupted, found, alone, name):
    assert [own[name][0] for own in interrupted] == ["KeyError", "DistributedError"]
    expected, n_epochs = alone["uninterrupted"][name]
    assert n_epochs == N_EPOCHS
    for whole, n_left in (alone["resumed"][name], *(own[name] for own in found["resumed"])):
        assert n_left == N_EPOCHS - N_DONE
        assert whole.keys() == expected.keys()
        assert_same(whole, expected, name)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_shared_is_refused_by_all(found, name):
    for kind, message in found[f"refused_{name}"]:
        assert kind == "ValueError"
        assert REFUSED[name][2] in message


@pytest.mark.parametrize(
    ("case", "text"),
    [
        ("every_user_has_every_item", 'so loss="logistic" has nothing to rank them above. Got 4 users and 3 items.'),
        ("weights_out_of_range_in_one", "The largest weight of a pair, times confidence, must lie between 1e-30 and 1e30."),
    ],
)
def test_what_is_wrong_with_the_whole_is_said_by_all(found, case, text):
    for kind, message in found[case]:
        assert kind == "ValueError"
        assert text in message


def test_two_numbers_for_each_item_beside_its_row_are_summed_an_epoch(found, size):
    """What pulls an item and its bias, and how its pairs bend; and one number of the users' pairs. Nothing of the users."""
    assert found["bytes_of_an_epoch"] == [(300 * (3 + 1 + 1) + 1) * 8] * size


def test_cosine_sums_what_an_item_is_of_its_users_and_gradients_of_the_items_shown(found, size):
    """In a step a row of each item twice, how many users of the block have it (int32), and of an item shown a row and a bias."""
    for n_bytes, shown in found["bytes_of_an_epoch_of_cosine"]:
        assert max(shown) < 300
        assert n_bytes == 17 * 300 * (2 * 3 * 8 + 4) + sum(shown) * (3 + 1) * 8


def test_initial_rows_are_all_that_differs_from_a_fit_that_is_not_distributed(alone):
    X, y, _ = part(0, 1)
    model = make(n_factors=1, max_iter=300, tol=0, distributed=False).fit(X, y)
    shared = make(n_factors=1, max_iter=300, tol=0, distributed=False, random_state=1).fit(X, y)
    assert_allclose(shared.predict(X), model.predict(X), rtol=0, atol=1e-6)
