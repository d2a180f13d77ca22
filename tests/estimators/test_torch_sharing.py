"""TorchFactorization in several real processes: steps on all observations are those of one, and batches are the same on all."""

import sys
from functools import partial

import numpy as np
import pytest
import torch_sharing
from numpy.testing import assert_allclose, assert_array_equal
from several_processes import run
from sharing import assert_same, part
from torch_sharing import IN_BATCHES, ON_ALL, OTHERS, REFUSED, make, told

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks")
OWN = {"seen_", "observed_", "pair_weights_", "observed_features_"}  # what a process keeps of its own users alone


@pytest.fixture(scope="module")
def alone():
    """What one process finds without a group."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch_sharing, "place", lambda: (0, 1))
        patch.setattr(torch_sharing, "make", partial(make, distributed=False))
        return {name: case()[0] for name, case in ON_ALL.items()}


@pytest.fixture(scope="module", params=[2, 4])
def size(request):
    return request.param


@pytest.fixture(scope="module")
def found(size, tmp_path_factory):
    return run("torch_sharing", [(list(ON_ALL), 60), ([*IN_BATCHES, *OTHERS], 60)], size, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("case", ON_ALL)
def test_steps_on_all_observations_are_those_of_one_process(found, alone, case):
    assert alone[case]["history_"]["loss"][-1] < alone[case]["history_"]["loss"][0]
    for own, gathered in found[case]:
        assert gathered.keys() == alone[case].keys()
        for name, value in alone[case].items():
            assert_same(gathered[name], value, name, 1e-12)
            if name not in OWN:
                assert_same(own[name], value, name, 1e-12)


@pytest.mark.parametrize("case", [*IN_BATCHES, "one_user"])
def test_all_processes_have_the_same_module(found, case):
    first = found[case][0]
    assert np.isfinite(first[0]["history_"]["loss"]).all()
    for own, gathered in found[case]:
        for name in first[0].keys() - OWN:
            assert_same(own[name], first[0][name], name, 0.0)
        assert_same(gathered, first[1], "gathered", 0.0)
    assert sum(own["observed_"].nnz for own, _ in found[case]) == first[1]["observed_"].nnz


def test_batches_learn_what_one_process_learns(found):
    X, y, _ = part(0, 1)
    losses = make(batch_size=48, max_iter=2, distributed=False).fit(X, y).history_["loss"]
    assert_allclose(found["batches"][0][0]["history_"]["loss"], losses, rtol=0.2)  # batches are others


def test_every_observation_counts_once_an_epoch_in_as_many_steps(found, size):
    own, n = found["sizes_of_steps"], 0
    assert len({len(steps) for steps in own}) == 1
    together = [[total for _, total in steps] for steps in own]
    assert all(steps == together[0] for steps in together)
    assert_array_equal(np.sum([[n for n, _ in steps] for steps in own], axis=0), together[0])
    half = len(together[0]) // 2
    n = len(part(0, size)[1]) + 10 * (size - 1)
    assert sum(together[0][:half]) == sum(together[0][half:]) == n
    assert half == -(-n // 50)
    assert max(together[0]) <= 50 + size


def test_a_process_answers_for_all_and_knows_what_its_own_users_have_seen(found):
    users = np.concatenate([own for own, *_ in found["answers"]])
    assert len(np.unique(users)) == len(users) == 40
    for _, same, message, n_iter in found["answers"]:
        assert all(same.values()), same
        assert "gather() returns, or exclude_seen=False" in message
        assert n_iter == 8


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_shared_is_refused_by_all(found, name):
    for own in found["refused"]:
        assert own[name][0] == "ValueError"
        assert REFUSED[name][1] in own[name][1]


def test_errors_end_the_fit_everywhere(found, size):
    missing, forward, drifting, parameters, features = zip(*found["errors"], strict=True)
    for rank in range(size):
        assert missing[rank][0] == ("ValueError" if rank == 1 else "DistributedError")
        assert "y[2] is nan" in missing[rank][1]
        assert forward[rank][0] == ("RuntimeError" if rank == 1 else "DistributedError")
        assert "out of memory" in forward[rank][1]
        assert drifting[rank][0] == "DistributedError"
        assert "item_biases.weight has come to differ between rank 0 and rank" in drifting[rank][1]
        assert "All ranks must have the same parameters. Got optimizer__lr=" in parameters[rank][1]
        assert "distributed=True takes no user_features yet" in features[rank][1]


def test_what_is_for_one_process():
    X, y, _ = part(0, 1)
    model = make(distributed=False).fit(X, y)
    again = model.gather()
    assert again is not model
    assert_same(told(again), told(model), "gathered", 0.0)
    with pytest.raises(ValueError, match="distributed=True needs a process group"):
        make().fit(X, y)
    with pytest.raises(ValueError, match="fit_batches needs distributed=False"):
        make().fit_batches([([0], [0], [1.0])], n_users=1, n_items=1)
    with pytest.raises(ValueError, match="partial_fit needs distributed=False"):
        make().partial_fit(X, y)
