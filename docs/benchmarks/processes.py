"""One fit by several processes of this machine: seconds, processor seconds and bytes sent an epoch, and memory. Linux only.

    python docs/benchmarks/processes.py                                # 20 million ratings, 138,000 users x 27,000 items
    python docs/benchmarks/processes.py --ratings 1_000_000 --ranks 1 2 4 --rounds 3 --json FILE

Each process has one thread and draws its part of the ratings, which are the same in all for every number of processes. The
numbers of processes take turns for some rounds; what is shown is the median over the epochs of all rounds but each fit's first.
*Seconds* of an epoch are those of the slowest process, and so are *processor seconds*, of all its threads: where other work wants
the cores, the second say what an epoch costs and the first how long it was waited for. Bytes are those that a process gives to
``torch.distributed``, counted where it is called; what a cable carries, ``two_hosts.py`` counts.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from memory import forget_the_peak, resident

from sk_torchmf import BiasedMatrixFactorization, Interactions, nn

N_PIECES = 16  # in which ratings are drawn; a process has every size-th
SENDING = "all_reduce", "broadcast", "all_gather", "all_to_all_single"


def draw(options, rank, size):
    """The part of a process of ratings in half stars, in the shape of MovieLens-20M as in ``memory.py``."""
    n_users, n_items = (max(50, round(n * options.ratings / 20e6)) for n in (138_000, 27_000))
    columns = []
    for piece in range(rank, N_PIECES, size):
        rng, n = np.random.default_rng(piece), options.ratings // N_PIECES
        user = (n_users * rng.random(n, dtype=np.float32) ** 2).astype(np.int32).clip(max=n_users - 1)
        item = (n_items * rng.random(n, dtype=np.float32) ** 3).astype(np.int32).clip(max=n_items - 1)
        columns.append((user, item, rng.integers(1, 11, n, dtype=np.int8).astype(np.float32) / 2))
    user, item, rating = map(np.concatenate, zip(*columns, strict=True))
    return Interactions(user, item, rating, num_users=n_users, num_items=n_items)


class Meter:
    """A callback: what each epoch took, and what was sent in it."""

    def __init__(self):
        self.sent, self.epochs, self.first = dict.fromkeys(SENDING, 0), [], None
        for name in SENDING:
            setattr(dist, name, self._counting(name, getattr(dist, name)))

    def _counting(self, name, call):
        def counted(*args, **options):
            given = args[1] if name in ("all_gather", "all_to_all_single") else args[0]
            self.sent[name] += given.nbytes
            return call(*args, **options)

        return counted

    def _read(self):
        return {"wall": time.perf_counter(), "processor": time.process_time(), **self.sent}

    def setup(self, estimator, context): ...

    def teardown(self, estimator, context): ...

    def on_fit_task_begin(self, estimator, context):
        self.begun = self._read()
        self.first = self.first or self.begun

    def on_fit_task_end(self, estimator, context):
        if context.task_name == "epoch":
            now = self._read()
            self.epochs.append({name: now[name] - self.begun[name] for name in now})


def fit(options, rank, size):
    """In one of the processes; what it found."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=size, init_method=f"tcp://127.0.0.1:{options.port}")
    data, meter = draw(options, rank, size), Meter()
    model = BiasedMatrixFactorization(options.factors, max_iter=options.epochs, tol=0, distributed=True, random_state=0)
    before = resident()
    forget_the_peak()
    begun = time.perf_counter()
    model.set_callbacks(meter).fit(data)
    found = {
        "ratings": len(data),
        "items": model.n_items_,
        "before_s": meter.first["wall"] - begun,
        "before_sent": meter.first["all_to_all_single"],
        "peak": resident("VmHWM") - before,
        "epochs": meter.epochs[1:],
        "kernels": nn.kernels_in_use(),
    }
    dist.destroy_process_group()
    return found


def run(options, size):
    """What each of so many processes found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, *sys.argv[1:], "--port", port, "--size", str(size), "--rank"]
    started = [subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, env=environment) for rank in range(size)]
    found = [process.communicate()[0] for process in started]
    return [json.loads(text.splitlines()[-1]) for text in found]


def summary(runs):
    """Medians over epochs, and over rounds, of what the processes of each round found."""
    epochs = [each for ranks in runs for each in zip(*(rank["epochs"] for rank in ranks), strict=True)]
    sent = {name: int(np.median([epoch[0][name] for epoch in epochs])) for name in SENDING}
    return {
        "epoch_s": float(np.median([max(one["wall"] for one in epoch) for epoch in epochs])),
        "epoch_processor_s": float(np.median([max(one["processor"] for one in epoch) for epoch in epochs])),
        "before_s": float(np.median([max(rank["before_s"] for rank in ranks) for ranks in runs])),
        "before_sent": max(rank["before_sent"] for rank in runs[0]),
        "peak_a_rating": float(np.median([max(rank["peak"] / rank["ratings"] for rank in ranks) for ranks in runs])),
        "items": runs[0][0]["items"],
        "kernels": runs[0][0]["kernels"],
        "sent": sent,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--ratings", type=int, default=20_000_000)
    parser.add_argument("--factors", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json")
    for name in ("--port", "--size", "--rank"):  # of the processes
        parser.add_argument(name, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.port:
        print(json.dumps(fit(options, options.rank, options.size)))
        return
    load, runs = os.getloadavg()[0], {size: [] for size in options.ranks}
    for _ in range(options.rounds):
        for size in options.ranks:
            runs[size].append(run(options, size))
    found = {str(size): summary(runs[size]) for size in options.ranks}
    one, last = found[str(options.ranks[0])], found[str(options.ranks[-1])]
    columns = "processes", "seconds an epoch", "processor seconds", "before them", "peak, bytes a rating", "sums, bytes an epoch"
    print(f"{options.ratings:,} ratings, {one['items']:,} items, k = {options.factors}, {one['kernels']} kernels,")
    print(f"load {load:.1f} before and {os.getloadavg()[0]:.1f} after on {os.cpu_count()} cores,", end=" ")
    print(f"{options.rounds} rounds of {options.epochs} epochs\n")
    print(*columns, sep=" | ")
    print(*["---"] * len(columns), sep=" | ")
    for size, own in found.items():
        seconds = [f"{own[name]:.2f} ({own[name] / one[name]:.2f})" for name in ("epoch_s", "epoch_processor_s")]
        memory, sums = f"{own['peak_a_rating']:.0f}", f"{own['sent']['all_reduce']:,}"
        print(size, *seconds, f"{own['before_s']:.1f} s", memory, sums, sep=" | ")
    paper, sums = last["items"] * (options.factors + 3) * 4, last["sent"]["all_reduce"]
    print(f"\nn_items (k + 3) 4 = {paper:,}; the sums of an epoch are {sums / paper:.3f} of it. All calls: {last['sent']}.")
    print(f"Rows that changed hands before the first epoch: {last['before_sent']:,} bytes from the process that sent most.")
    if options.json:
        Path(options.json).write_text(json.dumps({"ratings": options.ratings, "load": load, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
