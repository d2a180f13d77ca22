"""What processes tell each other, tried in real ones: sums, agreement, errors, processes that are lost."""

import math
import sys

import numpy as np
import pytest
import torch
from communicating import ABSENT, HEALTHY, KINDS, LOSING, N_SHARDS, TIMEOUT, part_of, parts_of, rows_for
from numpy.testing import assert_allclose, assert_array_equal
from several_processes import run

from sk_torchmf.distributed import ALONE, TreeSum, _device, communicator

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks")


@pytest.fixture(scope="module", params=[2, 4])
def size(request):
    return request.param


@pytest.fixture(scope="module")
def found_by(size, tmp_path_factory):
    groups = [(HEALTHY, 60), *(([case], TIMEOUT) for case in LOSING)]
    return run("communicating", groups, size, tmp_path_factory.mktemp("ranks"))


def bits(sums):
    return [one.numpy().tobytes() if isinstance(one, torch.Tensor) else one for one in sums]


def assert_sums(found, parts):
    """They are NumPy's in float64, to the rounding of as many additions."""
    for own, *terms in zip(found, *parts, strict=True):
        terms = [term.detach() if isinstance(term, torch.Tensor) else term for term in terms]
        assert type(own) is type(terms[0])
        if isinstance(own, torch.Tensor):
            assert own.dtype == terms[0].dtype
            assert own.shape == terms[0].shape
        if np.asarray(own).dtype.kind == "i":
            assert_array_equal(own, sum(np.asarray(term) for term in terms))
        else:
            eps = 2.0**-23 if np.asarray(own).dtype == np.float32 else 2.0**-52
            size = sum(np.abs(np.asarray(term, dtype=np.float64)) for term in terms)
            assert_allclose(
                own, sum(np.asarray(term, dtype=np.float64) for term in terms), rtol=0, atol=eps * 4 * np.max(size, initial=0)
            )


@pytest.mark.parametrize(("case", "n"), [("sums_of_few", 2), ("sums_of_many", 500)])
def test_sums_are_the_same_bits_everywhere(found_by, size, case, n):
    for found in found_by[case]:
        assert_sums(found, [parts_of(rank, n) for rank in range(size)])
        assert bits(found) == bits(found_by[case][0])


def test_default_device_is_no_matter(found_by, size):
    for few, many, broadcast in found_by["sums_under_another_default_device"]:
        assert_sums(few, [parts_of(rank, 2) for rank in range(size)])
        assert_sums(many, [parts_of(rank, 500) for rank in range(size)])
        assert_array_equal(broadcast, parts_of(0, 2)[2])


def test_a_process_may_have_nothing_to_add(found_by, size):
    for few, many, none in found_by["sums_where_one_has_nothing"]:
        assert_sums(few, [parts_of(rank, 2) for rank in range(1, size)])
        assert_sums(many, [parts_of(rank, 500) for rank in range(1, size)])
        assert none == []


def tree(shards, n):
    """The sum of the shards from the first to the last by a plain recursion."""
    parts = {shard: part_of(shard, n) for shard in shards}

    def add(first, last):
        if last - first == 1:
            return parts.get(first)
        left, right = add(first, (first + last) // 2), add((first + last) // 2, last)
        return [a + b for a, b in zip(left, right, strict=True)] if left and right else left or right

    return add(0, N_SHARDS)


def test_exact_sums_are_those_of_one_process(found_by, size):
    absent = set(), ABSENT, set(range(N_SHARDS // size))  # of the last the first process has nothing
    expected = [bits(tree(set(range(N_SHARDS)) - without, n)) for n in (3, 1000) for without in absent]
    for found in found_by["exact_sums"]:
        assert [bits(sums) for sums in found] == expected


def test_order_matters_to_sums_that_are_not_exact():
    """Else the test above could not fail."""
    one_by_one = part_of(0, 1000)
    for shard in range(1, N_SHARDS):
        one_by_one = [a + b for a, b in zip(one_by_one, part_of(shard, 1000), strict=True)]
    assert bits(one_by_one)[1] != bits(tree(range(N_SHARDS), 1000))[1]


def test_largest(found_by):
    for found, with_nan in found_by["largest"]:
        assert found == 0.0
        assert math.isnan(with_nan)


def test_broadcast_gives_the_first_one_s(found_by):
    for value, tensor, transposed in found_by["broadcasts"]:
        assert value == {"seed": 0}
        assert tensor.tolist() == [0, 1, 2]
        assert_array_equal(transposed, np.zeros((2, 400)))


def test_objects_are_collected_by_rank(found_by, size):
    for text, arrays in found_by["gathered"]:
        assert text == ["x" * rank for rank in range(size)]
        assert [len(array) for array in arrays] == [1000 * rank for rank in range(size)]
        assert_array_equal(arrays[-1], np.arange(1000 * (size - 1)))


def test_rows_go_where_they_are_sent(found_by, size):
    for rank, found in enumerate(found_by["exchanged"]):
        for kind, (received, counts) in zip(KINDS, found, strict=True):
            sent = [rows_for(sender, size, kind) for sender in range(size)]
            expected = [values[to == rank] for values, to in sent]
            assert received.dtype == np.dtype(kind)
            assert_array_equal(received, np.concatenate(expected))
            assert counts.tolist() == [len(part) for part in expected]


TOLD = "Rank {} of {} has failed, which stops the fit on every rank. It raised {}"


@pytest.mark.parametrize(
    ("case", "failing", "error", "text"),
    [
        ("error_before_a_sum", 1, "ValueError", "alpha must be >= 0."),
        ("error_after_the_last_call", 0, "KeyError", "'item'"),
        ("long_error", 1, "ValueError", "x" * 5000),
        ("interrupted", 0, "KeyboardInterrupt", ""),
    ],
)
def test_error_of_one_is_raised_in_all(found_by, size, case, failing, error, text):
    told = TOLD.format(failing, size, f"{error}: {text}" if text else error)
    for rank, found in enumerate(found_by[case]):
        assert found == ((error, text) if rank == failing else ("DistributedError", told))


def test_each_raises_its_own_error(found_by, size):
    assert found_by["error_in_all"] == [("ValueError", str(rank)) for rank in range(size)]


def test_value_that_cannot_be_sent(found_by, size):
    for rank, (error, text) in enumerate(found_by["not_to_be_pickled"]):
        assert (error == "DistributedError") == (rank != 1)
        assert "pickle" in text


@pytest.mark.parametrize(
    ("case", "text"),
    [
        ("other_call", "rank 0 is at a collection of objects and rank 1 at a sum."),
        ("other_shape", "rank 0 sums float32 (3, 2), int64 number and rank 1 float32 (4, 2), int64 number."),
        ("other_dtype", "the rows to be exchanged have the dtypes ['datetime64[s]', 'datetime64[m]'"),
        ("one_ends_early", "rank 0 is at the end of the fit and rank 1 at a broadcast."),
    ],
)
def test_calls_that_differ_are_found(found_by, size, case, text):
    for error, found in found_by[case]:
        assert error == "DistributedError"
        assert found.startswith(f"The {size} ranks are out of step: {text}")


def test_group_goes_on_after_errors(found_by, size):
    assert found_by["afterwards"] == [[size]] * size


@pytest.mark.parametrize("case", LOSING)
def test_lost_process_is_missed_within_the_timeout(found_by, size, case):
    for rank, found in enumerate(found_by[case]):
        if rank == 1:
            assert found is None
            continue
        message, seconds = found
        assert message.startswith(f"Rank {rank} of {size} has lost contact with the others: one of them has ended")
        assert seconds < 10 * TIMEOUT  # on a busy machine


def test_alone_every_sum_is_its_own():
    parts, values = [1.0, torch.ones(3)], np.array([3, 1, 2])
    with communicator(False) as processes:
        assert processes is ALONE
        assert (processes.rank, processes.size) == (0, 1)
        assert all(one is other for one, other in zip(processes.all_reduce(parts), parts, strict=True))
        assert processes.largest(2.0) == processes.broadcast(2.0) == 2.0
        assert processes.all_gather("ann") == ["ann"]
        assert processes.all_to_all(values, [3])[0].tolist() == [3, 1, 2]
        received, counts = processes.all_to_all(values, [3], np.array([2, 0, 1]))
        assert received.tolist() == [2, 3, 1]
        assert counts.tolist() == [3]


def test_error_leaves_a_process_alone():
    with pytest.raises(KeyError), ALONE:
        raise KeyError


def test_no_group_is_made():
    with pytest.raises(
        ValueError, match=r"distributed=True needs a process group.*init_process_group.*torchrun.*distributed=False"
    ):
        communicator(True)


def test_exact_sums_need_a_power_of_two(monkeypatch):
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 0)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 3)
    assert communicator(True).size == 3
    with pytest.raises(ValueError, match=r"their number a power of two\. Got 3\."):
        communicator(True, exact=True)


@pytest.mark.parametrize(
    ("backends", "of_cpu", "of_cuda", "of_none"),
    [
        ("cpu:gloo", "cpu", "cpu", "cpu"),
        ("cpu:gloo,cuda:gloo", "cpu", "cpu", "cpu"),  # gloo has no exchange of rows on CUDA
        ("cuda:nccl", "cuda", "cuda:1", "cuda"),
        ("cpu:gloo,cuda:nccl", "cpu", "cuda:1", "cpu"),
    ],
)
def test_messages_lie_where_the_backend_takes_them(monkeypatch, backends, of_cpu, of_cuda, of_none):
    monkeypatch.setattr("torch.distributed.get_backend_config", lambda: backends)
    found = _device(torch.device("cpu")), _device(torch.device("cuda:1")), _device()
    assert [str(device) for device in found] == [of_cpu, of_cuda, of_none]


def test_group_of_one_is_alone(monkeypatch):
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 1)
    assert communicator(True, exact=True) is ALONE


@pytest.mark.parametrize("n_shards", [1, 2, 5, 8, 13])
def test_tree_adds_neighbours_first(n_shards):
    """Told by sums of texts in brackets."""

    class Text(str):
        def __add__(self, other):
            return self if other == 0 else Text(f"({self!s}{other!s})")

    def add(first, n):
        if n == 1:
            return chr(97 + first) if first < n_shards else ""
        left, right = add(first, n // 2), add(first + n // 2, n // 2)
        return f"({left}{right})" if left and right else left or right

    found = TreeSum()
    for shard in range(n_shards):
        found.add(shard, Text(chr(97 + shard)))
    assert found.total() == [add(0, 16)]
    assert found.total() == []


def test_parts_of_a_shard_are_added_in_order():
    found = TreeSum()
    for shard, value in [(1, 0.1), (1, 0.2), (1, 0.3), (3, 0.4), (3, 0.5)]:
        found.add(shard, value)
    assert found.total() == [((0.1 + 0.2) + 0.3) + (0.4 + 0.5)]


def test_shards_come_in_order():
    found = TreeSum()
    found.add(3, 1.0)
    with pytest.raises(ValueError, match=r"shards must come in the order of their numbers\. Got 2 after 3\."):
        found.add(2, 1.0)
    assert found.total() == [1.0]


def test_sum_of_negative_zeros_does_not_depend_on_who_has_nothing():
    found = TreeSum()
    found.add(0, -0.0)
    assert math.copysign(1, found.total()[0]) == 1
