"""Cases for several processes: each function runs in all of them and returns what this one got."""

import os
import time

import numpy as np
import pytest
import torch

from sk_torchmf import distributed
from sk_torchmf.distributed import TreeSum, communicator

N_SHARDS = 8
TIMEOUT = 2  # seconds, where a process is lost
ABSENT = {2, 3, 6}  # shards in which nothing is


def parts_of(rank, n):
    """Parts of sums of every kind: of one value or of many."""
    draw = np.random.default_rng(rank)
    return [
        0.1 + rank,
        rank + 1,
        torch.from_numpy(draw.normal(size=(2, n))),
        torch.from_numpy(draw.normal(size=(n, 3)).astype(np.float32)),
        torch.from_numpy(draw.integers(2**60, size=n)),
        torch.tensor(float(rank), dtype=torch.float64, requires_grad=True),
        torch.empty(0, 4),
    ]


def part_of(shard, n):
    """What a shard adds to two sums."""
    draw = np.random.default_rng(100 + shard)
    return float(draw.normal()), torch.from_numpy(draw.normal(size=n).astype(np.float32))


def sums_of_few():
    with communicator(True) as processes:
        return processes.all_reduce(parts_of(processes.rank, 2))


def sums_of_many():
    with communicator(True) as processes:
        return processes.all_reduce(parts_of(processes.rank, 500))


def sums_under_another_default_device():
    with communicator(True) as processes:
        parts = [parts_of(processes.rank, n) for n in (2, 500)]
        with torch.device("meta"):
            return [processes.all_reduce(own) for own in parts] + [processes.broadcast(parts[0][2])]


def sums_where_one_has_nothing():
    with communicator(True) as processes:
        found = [processes.all_reduce([] if processes.rank == 0 else parts_of(processes.rank, n)) for n in (2, 500)]
        return [*found, processes.all_reduce([])]


def exact_sums():
    with communicator(True, exact=True) as processes:
        found = []
        for n in (3, 1000):
            for absent in (set(), ABSENT, set(range(N_SHARDS // processes.size))):
                tree = TreeSum()
                own = N_SHARDS // processes.size
                for shard in range(processes.rank * own, (processes.rank + 1) * own):
                    if shard not in absent:
                        tree.add(shard, *part_of(shard, n))
                found.append(processes.all_reduce(tree.total()))
        return found


def largest():
    with communicator(True) as processes:
        rank, last = processes.rank, processes.size - 1
        return processes.largest(-float(rank)), processes.largest(float("nan") if rank == last else 1.0)


def broadcasts():
    with communicator(True) as processes:
        rank = processes.rank
        return (
            processes.broadcast({"seed": rank}),
            processes.broadcast(torch.arange(3) + rank),
            processes.broadcast(torch.full((400, 2), float(rank)).T),
        )


def gathered():
    with communicator(True) as processes:
        return processes.all_gather("x" * processes.rank), processes.all_gather(np.arange(1000 * processes.rank))


def rows_for(sender, size, kind):
    """Rows of one process, where each goes, in any order; the last process sends nothing, and nothing goes to the first."""
    n = 0 if sender == size - 1 else 50 + sender
    draw = np.random.default_rng(sender)
    return draw.integers(10_000, size=n).astype(kind), draw.integers(1, size, size=n)


KINDS = ["int64", "float32", "uint8", "U6", "M8[s]"]


def exchanged():
    distributed.CHUNK = 100
    with communicator(True) as processes:
        found = []
        for kind in KINDS:
            values, to = rows_for(processes.rank, processes.size, kind)
            order, counts = np.argsort(to, kind="stable"), np.bincount(to, minlength=processes.size)
            found.append(processes.all_to_all(values, counts, order))
            np.testing.assert_array_equal(processes.all_to_all(values[order], counts)[0], found[-1][0])
        return found


def raised(run):
    """The text of what a function of the communicator raises inside its ``with``."""
    with pytest.raises(BaseException) as caught, communicator(True) as processes:  # noqa: PT011
        run(processes)
    return type(caught.value).__name__, str(caught.value)


def _fail(processes, rank, error):
    if processes.rank == rank:
        raise error


def error_before_a_sum():
    def run(processes):
        processes.all_reduce([1.0])
        _fail(processes, 1, ValueError("alpha must be >= 0."))
        processes.all_reduce([torch.zeros(1000)])

    return raised(run)


def error_after_the_last_call():
    def run(processes):
        processes.all_reduce([1.0])
        _fail(processes, 0, KeyError("item"))

    return raised(run)


def error_in_all():
    return raised(lambda processes: _fail(processes, processes.rank, ValueError(f"{processes.rank}")))


def interrupted():
    return raised(lambda processes: _fail(processes, 0, KeyboardInterrupt()))


def long_error():
    return raised(lambda processes: _fail(processes, 1, ValueError("x" * 5000)))


def not_to_be_pickled():
    return raised(lambda processes: processes.all_gather((lambda: 0) if processes.rank == 1 else 0))


def other_call():
    return raised(lambda processes: processes.all_gather(0) if processes.rank == 0 else processes.all_reduce([1.0]))


def other_shape():
    return raised(lambda processes: processes.all_reduce([torch.zeros(3 + (processes.rank == 1), 2), 1]))


def other_dtype():
    return raised(lambda processes: processes.all_to_all(np.zeros(0, f"M8[{'sm'[processes.rank % 2]}]"), [0] * processes.size))


def one_ends_early():
    return raised(lambda processes: None if processes.rank == 0 else processes.broadcast(3))


def afterwards():
    """Errors that all were told of leave the group as it was."""
    with communicator(True) as processes:
        return processes.all_reduce([1])


HEALTHY = [
    *[
        "sums_of_few",
        "sums_of_many",
        "sums_under_another_default_device",
        "sums_where_one_has_nothing",
        "exact_sums",
        "largest",
        "broadcasts",
        "gathered",
        "exchanged",
    ],
    *["error_before_a_sum", "error_after_the_last_call", "error_in_all", "interrupted", "long_error", "not_to_be_pickled"],
    *["other_call", "other_shape", "other_dtype", "one_ends_early", "afterwards"],
]


def _lost(run, exact=False):
    """What is raised, and after how many seconds."""
    with communicator(True, exact=exact) as processes:
        processes.all_reduce([1.0])
    start = time.monotonic()
    with pytest.raises(distributed.DistributedError) as caught, communicator(True, exact=exact) as processes:
        run(processes)
    return str(caught.value), time.monotonic() - start


def killed():
    def run(processes):
        if processes.rank == 1:
            os._exit(0)
        processes.all_reduce([1.0])

    return _lost(run)


def killed_in_an_exact_sum():
    def run(processes):
        processes._tell("a sum", ([("float32", (1000,))], None))
        if processes.rank == 1:
            os._exit(0)
        processes._summed(torch.zeros(1000))

    return _lost(run, exact=True)


def _sleep_if_second(processes):
    if processes.rank == 1:
        time.sleep(2 * TIMEOUT)
        os._exit(0)


def hung():
    def run(processes):
        _sleep_if_second(processes)
        processes.all_reduce([torch.zeros(1000)])

    return _lost(run)


def hung_in_an_exact_sum():
    def run(processes):
        processes._tell("a sum", ([("float32", (1000,))], None))
        _sleep_if_second(processes)
        processes._summed(torch.zeros(1000))

    return _lost(run, exact=True)


LOSING = ["killed", "killed_in_an_exact_sum", "hung", "hung_in_an_exact_sum"]
