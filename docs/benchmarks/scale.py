"""What ratings, users and items cost, measured here; and what that makes of a billion ratings and more, on paper. Linux only.

    python docs/benchmarks/scale.py --measure      # some minutes, writes results/scale.json
    python docs/benchmarks/scale.py                # the tables of docs/scale.md, from that file and the assumptions below

Measured is the default model with one thread: fits of a million generated ratings in memory and from disk, of few users and items,
then of many ratings, many users, and many items. Processor seconds are counted, since they depend less on what else the machine
does. What more of each costs, in time and memory, is by the difference to the first fit; that rows of many are seldom in the cache
counts with the rows. From disk a block of a million ratings is read at a time, and what it says of the items is added up over
blocks, which costs by their number: by the difference of 4 blocks to one.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "results" / "scale.json"
N, FEW, MANY, FACTORS, EPOCHS, ROUNDS = 1_000_000, 20_000, 200_000, 32, 4, 3
SHAPES = {  # ratings, users, items
    "few": (N, FEW, FEW),
    "many ratings": (4 * N, FEW, FEW),
    "many users": (N, MANY, FEW),
    "many items": (N, FEW, MANY),
}
RUNS = [(shape, where) for where in ("in memory", "from disk") for shape in SHAPES] + [("many items", "from disk in 4 blocks")]
BLOCK = 2**20  # ratings that a fit from disk reads at a time

# Assumed, not measured: a machine, and the network between machines.
CORES = 16
SHARE = 0.5  # of what so many cores would do, each as fast as one alone: they share memory
NETWORK = 10e9 / 8  # bytes a second
DISK = 2e9  # bytes a second
GOAL = 60.0  # seconds for an epoch
CASES = [  # ratings, users, items, bytes a rating on disk
    (1e9, 5e6, 5e4, 3),
    (1e9, 5e6, 1e6, 5),
    (1e11, 1e9, 1e6, 5),
    (1e11, 1e9, 1e7, 5),
    (1e11, 1e9, 1e8, 5),
    (1e11, 1e9, 1e6, 9),
]


class Meter:
    """A callback: processor seconds of each epoch."""

    def __init__(self):
        self.epochs = []

    def setup(self, estimator, context): ...

    def teardown(self, estimator, context): ...

    def on_fit_task_begin(self, estimator, context):
        self.begun = time.process_time()

    def on_fit_task_end(self, estimator, context):
        if context.task_name == "epoch":
            self.epochs.append(time.process_time() - self.begun)


def fit(shape, where):
    """In a process of its own: what a fit of this shape takes."""
    import torch
    from memory import forget_the_peak, resident

    from sk_torchmf import BiasedMatrixFactorization, Interactions, Shards, nn

    torch.set_num_threads(1)
    rng, (n_ratings, n_users, n_items) = np.random.default_rng(0), SHAPES[shape]
    user, item = (rng.integers(0, n, n_ratings, dtype=np.int32) for n in (n_users, n_items))
    rating = rng.integers(1, 11, n_ratings).astype(np.float32) / 2
    data, meter = Interactions(user, item, rating, num_users=n_users, num_items=n_items), Meter()
    with tempfile.TemporaryDirectory() as folder:
        if where != "in memory":
            table, n_shards = {"user": user, "item": item, "rating": rating}, 4 if "4" in where else 1
            names = {name: name for name in table}
            data = Shards.from_chunks(lambda: iter([table]), Path(folder) / "shards", **names, n_shards=n_shards)
        BiasedMatrixFactorization(FACTORS, max_iter=1, random_state=0).fit(Interactions(user[:999], item[:999], rating[:999]))
        before = resident()
        forget_the_peak()
        model = BiasedMatrixFactorization(FACTORS, max_iter=EPOCHS, tol=0, random_state=0)
        model.set_callbacks(meter).fit(data)
        return {
            "epoch_ns": 1e9 * float(np.median(meter.epochs[1:])),
            "peak": resident("VmHWM") - before,
            "rows": len(model.users_) + len(model.items_),
            "kernels": nn.kernels_in_use(),
        }


def measure():
    """Medians of all fits, each in a process of its own, in turns."""
    load, found = os.getloadavg()[0], {}
    for shape, where in RUNS * ROUNDS:
        run = [sys.executable, __file__, "--fit", shape, where]
        text = subprocess.run(run, check=True, stdout=subprocess.PIPE, text=True).stdout
        found.setdefault(f"{shape}, {where}", []).append(json.loads(text.splitlines()[-1]))
    runs = {name: {key: _median([one[key] for one in own]) for key in own[0]} for name, own in found.items()}
    return {"load": [load, os.getloadavg()[0]], "ratings": N, "rounds": ROUNDS, "factors": FACTORS, "runs": runs}


def _median(values):
    return values[0] if isinstance(values[0], str) else float(np.median(values))


def costs(runs, where):
    """What an epoch costs one core, in ns: a rating, a user, an item, and an item in each block; and a row's bytes of memory."""
    few, ratings, users, items = (runs[f"{shape}, {where}"] for shape in SHAPES)
    row = [max(more["epoch_ns"] - few["epoch_ns"], 0) / (more["rows"] - few["rows"]) for more in (users, items)]
    memory = [max(more["peak"] - few["peak"], 0) / (more["rows"] - few["rows"]) for more in (users, items)]
    block = 0.0
    if where == "from disk":
        block = max(runs["many items, from disk in 4 blocks"]["epoch_ns"] - items["epoch_ns"], 0) / 3 / MANY
        row[1] = max(row[1] - block, 0)  # of the one block that there was
    return {
        "rating": (ratings["epoch_ns"] - few["epoch_ns"]) / (3 * N) - 3 * FEW * block / (3 * N),
        "user": row[0],
        "item": row[1],
        "item in a block": block,
        "user's row": memory[0],
        "item's row": memory[1],
    }


def epoch(case, n_machines, cost, k):
    """Seconds of an epoch: for ratings and users, for items in each block, for items once, for the sums of the items."""
    n, n_users, n_items, _ = case
    speed = 1e9 * CORES * SHARE  # ns of one core that a machine does in a second
    sums = 2 * (n_machines - 1) / n_machines * n_items * (k + 3) * 4 / NETWORK  # what a ring of machines sends and receives
    return (
        (n * cost["rating"] + n_users * cost["user"]) / n_machines / speed,
        math.ceil(n / n_machines / BLOCK) * n_items * cost["item in a block"] / speed,
        n_items * cost["item"] / speed,
        sums,
    )


def machines_for(case, cost, k):
    """The fewest machines whose epoch takes at most the goal; None where no number does."""
    if sum(epoch(case, 10**9, cost, k)) > GOAL:
        return None
    low, high = 0, 1
    while sum(epoch(case, high, cost, k)) > GOAL:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if sum(epoch(case, middle, cost, k)) <= GOAL else (middle, high)
    return high


def row(*cells):
    print("|", " | ".join(str(cell) for cell in cells), "|")


def count(number):
    """``1e9`` of 1,000,000,000, ``5e4`` of 50,000."""
    power = math.floor(math.log10(number))
    return f"{number / 10**power:.3g}e{power}"


def tables(found):
    """Print what was measured and what follows."""
    runs, k = found["runs"], found["factors"]
    load = " to ".join(f"{own:.0f}" for own in found["load"])
    print(f"{found['ratings']:,} ratings, k = {k}, one thread, {runs['few, in memory']['kernels']} kernels, load {load}\n")
    row(
        "processor time an epoch, and memory",
        "a rating",
        "a user",
        "an item",
        "an item in a block",
        "a user's row",
        "an item's row",
    )
    row(*["---"] * 7)
    for where in ("in memory", "from disk"):
        row(where, *(f"{own:.0f} {'bytes' if 'row' in name else 'ns'}" for name, own in costs(runs, where).items()))
    cost = costs(runs, "from disk")
    print()
    seconds_of = "ratings and users", "items in blocks", "items", "sums", "read twice"
    row("ratings", "users", "items", "on disk", f"machines for {GOAL:.0f} s", *seconds_of, "rows, each", "shards, each")
    row(*["---"] * 12)
    for case in CASES:
        n, n_users, n_items, on_disk = case
        n_machines = machines_for(case, cost, k)
        shown = n_machines or round(n / 1e8)
        seconds = epoch(case, shown, cost, k)
        rows = (n_users / shown * cost["user's row"] + n_items * cost["item's row"]) / 1e9
        size = n * on_disk / 1e9
        row(
            *(count(number) for number in case[:3]),
            f"{size:,.0f} GB ({on_disk} bytes each)",
            n_machines or f"none; {shown}:",
            *(f"{own:.1f} s" for own in seconds),
            f"{2 * size * 1e9 / shown / DISK:.1f} s",
            f"{rows:.1f} GB",
            f"{size / shown:.1f} GB",
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--fit", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fit:
        print(json.dumps(fit(*options.fit)))
        return
    if options.measure:
        RESULTS.write_text(json.dumps(measure(), indent=1) + "\n", encoding="utf-8")
    tables(json.loads(RESULTS.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
