"""Our mrr_score and precision_recall_score against Spotlight's own, of the same fitted estimator: values, seconds, memory.

Run it with one of::

    python docs/benchmarks/spotlight_evaluation.py --spotlight CHECKOUT --data PATH/ml1m.npz      # user_ids, item_ids, ratings
    python docs/benchmarks/spotlight_evaluation.py --spotlight CHECKOUT       # planted ratings of MovieLens-1M's size

``CHECKOUT`` is Spotlight's repository, which is not on PyPI. Options: ``--repeats 5 --json FILE``.

A fifth of the ratings is the test part. Both sides take turns in one run, on the same estimator and the same containers; medians.
All values are compared, to the last bit. Beside the clock stand the seconds of the processor, which other work stretches
less; with such work set OMP_WAIT_POLICY=PASSIVE. Memory is what NumPy holds at the peak of our call beyond what was there, as
``tracemalloc`` sees it, of all users and of those of the first tenth; the few tensors beside that are of the lists' length.
"""

import argparse
import json
import statistics
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import torch
from engine import load

from sk_torchmf import BiasedMatrixFactorization, ImplicitMatrixFactorization, Interactions, MatrixFactorization
from sk_torchmf import spotlight as ours

ESTIMATORS = {
    "BiasedMatrixFactorization": BiasedMatrixFactorization(random_state=0),
    "MatrixFactorization": MatrixFactorization(random_state=0),
    "ImplicitMatrixFactorization": ImplicitMatrixFactorization(random_state=0),
}
CALLS = ("mrr_score", "precision_recall_score")


class Product:
    """The least that a model can be for Spotlight: a product of two tables."""

    def __init__(self, estimator):
        self.users, self.items = estimator.embeddings()

    def predict(self, user_ids, item_ids=None):
        return self.items @ self.users[user_ids]


def timed(call, *arguments):
    """Seconds on the clock, seconds of the processor in all threads, and what the call returns."""
    start = time.perf_counter(), time.process_time()
    values = call(*arguments)
    return time.perf_counter() - start[0], time.process_time() - start[1], values


def peak(call, *arguments):
    """MiB of arrays at the peak of a call beyond what there was."""
    tracemalloc.start()
    call(*arguments)
    highest = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return highest / 2**20


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--spotlight", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    sys.path.append(str(options.spotlight))
    from spotlight import evaluation as theirs

    name, user, item, rating = load(options.data)
    data = Interactions(user, item, rating)
    order = np.random.default_rng(0).permutation(len(data))
    train, test = data[order[len(data) // 5 :]], data[order[: len(data) // 5]]
    few = test[test.user_ids < data.num_users // 10]
    print(f"{name}: {len(np.unique(test.user_ids)):,} users, {data.num_items:,} items, {torch.get_num_threads()} threads")
    results = {}
    for kind, estimator in ESTIMATORS.items():
        estimator.fit(train)
        for call in CALLS:
            sides = {"ours": getattr(ours, call), "Spotlight's": getattr(theirs, call)}
            seconds, processor = ({side: [] for side in sides} for _ in range(2))
            for _ in range(options.repeats):
                found = {}
                for side, function in sides.items():
                    elapsed, used, found[side] = timed(function, estimator, test, train)
                    seconds[side].append(elapsed)
                    processor[side].append(used)
            equal = bool(np.array_equal(*found.values()))
            mine, other = (statistics.median(times) for times in seconds.values())
            busy = [statistics.median(times) for times in processor.values()]
            memory = {
                "all users": peak(sides["ours"], estimator, test, train),
                "a tenth": peak(sides["ours"], estimator, few, train),
            }
            results[f"{kind}, {call}"] = {"seconds": seconds, "processor": processor, "equal": equal, "memory": memory}
            print(
                f"{kind:28} {call:23} {mine:5.2f} s, Spotlight's {other:5.2f} s, {other / mine:4.1f} times; "
                f"processor {busy[0]:5.2f} s, {busy[1]:5.2f} s, {busy[1] / busy[0]:4.1f} times; "
                f"values {'equal' if equal else 'DIFFER'}; MiB: {', '.join(f'{of} {n:.0f}' for of, n in memory.items())}"
            )
        if kind == "BiasedMatrixFactorization":
            elapsed, used, _ = timed(theirs.mrr_score, Product(estimator), test, train)
            results["bare product, mrr_score"] = {"seconds": elapsed, "processor": used}
            print(f"{'a bare product of two tables':28} {'mrr_score':23} Spotlight's {elapsed:5.2f} s, processor {used:5.2f} s")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
