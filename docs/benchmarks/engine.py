"""The fused engine against the ordinary embedding-gather loop: ratings a second, gradients, the largest tensor.

Run it with one of::

    python docs/benchmarks/engine.py --data PATH/ml1m.npz
    SK_TORCHMF_DATA=FOLDER python docs/benchmarks/engine.py     # FOLDER/ml1m.npz
    python docs/benchmarks/engine.py                            # planted ratings of MovieLens-1M's size

The archive holds ``user_ids, item_ids, ratings``. Options: ``--k 64 --threads 2 --repeats 5 --json FILE``.

What is measured, on the biased model with squared error, in one run and in turn (fused, gather, minibatches, fused, ...); medians
and fastest times:

- *gradient*: forward and backward over all ratings, by ``forward_pairs`` (fused) and by ``forward(user, item)`` (gather) of one
  module with the same parameters;
- *epoch*: the same with an Adam step, against the loop of the textbooks: ``nn.Embedding``, a shuffled minibatch cut out by index,
  ``backward``, ``Adam.step``.

On a machine that does other work at the same time trust the fastest times rather than the medians.
"""

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sk_torchmf.nn import BiasedMF, Pairs

BATCHES = 1024, 4096


class EmbeddingMF(nn.Module):
    """The ordinary recipe: four embedding tables and a gather."""

    def __init__(self, n_users, n_items, k, mean):
        super().__init__()
        self.user_factors, self.item_factors = nn.Embedding(n_users, k), nn.Embedding(n_items, k)
        self.user_biases, self.item_biases = nn.Embedding(n_users, 1), nn.Embedding(n_items, 1)
        self.mean = mean
        for table in (self.user_factors, self.item_factors, self.user_biases, self.item_biases):
            nn.init.normal_(table.weight, std=0.1 / k**0.5)

    def forward(self, user, item):
        """Scores of shape (n,)."""
        dot = (self.user_factors(user) * self.item_factors(item)).sum(-1)
        return self.mean + self.user_biases(user)[:, 0] + self.item_biases(item)[:, 0] + dot


class LargestTensor(TorchDispatchMode):
    """Records the largest number of elements that a tensor made by any operation has."""

    n_elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run the operation and look at what it returns; views count as what they show."""
        out = func(*args, **(kwargs or {}))
        sizes = [t.numel() for t in tree_leaves(out) if isinstance(t, torch.Tensor) and t.layout == torch.strided]
        self.n_elements = max(self.n_elements, *sizes, 0)
        return out


def load(path):
    """User and item numbers and ratings from an archive, or planted ones where ``path`` is None."""
    if path is not None:
        data = np.load(path)
        return path.name, data["user_ids"], data["item_ids"], data["ratings"].astype(np.float32)
    rng = np.random.default_rng(0)
    n, n_users, n_items = 1_000_209, 6040, 3706
    user = (n_users * rng.uniform(size=n) ** 2).astype(np.int32)  # some users and items have many ratings, most have few
    item = (n_items * rng.uniform(size=n) ** 3).astype(np.int32)
    P, Q = rng.normal(size=(n_users, 8)), rng.normal(size=(n_items, 8))
    score = 3.6 + 0.3 * np.einsum("nk,nk->n", P[user], Q[item]) + 0.8 * rng.normal(size=n)
    return "planted, MovieLens-1M's size", user, item, score.round().clip(1, 5).astype(np.float32)


def find_data(path):
    """The archive asked for, the one in SK_TORCHMF_DATA, or None."""
    if path is None and "SK_TORCHMF_DATA" in os.environ:
        path = Path(os.environ["SK_TORCHMF_DATA"]) / "ml1m.npz"
    return path


def contestants(module, pairs, user, item, rating, k):
    """What is timed: functions of no argument, each of which passes once over all ratings."""
    steps = torch.optim.Adam(module.parameters(), lr=0.0)  # a step that costs what a step costs and moves nothing
    runs = {}

    def gradient(forward, *where):
        module.zero_grad()
        (forward(*where) - rating).square().sum().backward()

    def epoch():
        gradient(module.forward_pairs, pairs)
        steps.step()

    runs["fused gradient"] = lambda: gradient(module.forward_pairs, pairs)
    runs["gather gradient"] = lambda: gradient(module, user, item)
    runs["fused epoch"] = epoch
    for batch in BATCHES:
        model = EmbeddingMF(*pairs.shape, k, float(rating.mean()))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

        def minibatches(batch=batch, model=model, optimizer=optimizer):
            order = torch.randperm(len(rating))
            for start in range(0, len(order), batch):
                index = order[start : start + batch]
                optimizer.zero_grad()
                (model(user[index], item[index]) - rating[index]).square().mean().backward()
                optimizer.step()

        runs[f"minibatch epoch, {batch}"] = minibatches
    return runs


def time_in_turn(runs, repeats):
    """Seconds of each, run in turn: at least once a round, and for half a second; a first round warms up and is dropped."""
    seconds = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            start = now = time.perf_counter()
            while now == start or now - start < 0.5:
                run()
                before, now = now, time.perf_counter()
                if turn:
                    seconds[name].append(now - before)
    return seconds


def largest_difference(module, runs):
    """Largest difference of the fused and the gathered gradient of any parameter, relative to its largest entry."""
    gradients = []
    for name in ("fused gradient", "gather gradient"):
        runs[name]()
        gradients.append([parameter.grad.clone() for parameter in module.parameters()])
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(*gradients, strict=True))


def largest_tensor(run):
    """Elements of the largest tensor that a run makes."""
    with LargestTensor() as largest:
        run()
    return largest.n_elements


def machine():
    """What the numbers depend on."""
    info = Path("/proc/cpuinfo")
    models = [line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line] if info.exists() else []
    return {
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.system(),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--k", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the results to this file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)

    name, user, item, rating = load(find_data(args.data))
    start = time.perf_counter()
    pairs = Pairs(user, item, user.max() + 1, item.max() + 1)
    pairs.T  # noqa: B018
    plan = time.perf_counter() - start
    rating = torch.from_numpy(rating)[pairs.order.long()]
    module = BiasedMF(*pairs.shape, args.k, mean=float(rating.mean()))
    runs = contestants(module, pairs, pairs.users.long(), pairs.columns.long(), rating, args.k)

    n = pairs.n_pairs
    result = {"machine": machine(), "data": name, "n_ratings": n, "n_users": pairs.shape[0], "n_items": pairs.shape[1], "k": args.k}
    print(", ".join(f"{key} {value}" for key, value in result["machine"].items()))
    print(f"{name}: {n:,} ratings, {pairs.shape[0]:,} users, {pairs.shape[1]:,} items, k = {args.k}, {args.repeats} repeats")
    print(f"plan, made once: {1e3 * plan:.0f} ms\n")

    difference = largest_difference(module, runs)
    tensors = {run: largest_tensor(runs[run]) for run in ("fused gradient", "gather gradient")}
    times = time_in_turn(runs, args.repeats)
    seconds = {run: statistics.median(measured) for run, measured in times.items()}
    fastest = {run: min(measured) for run, measured in times.items()}
    print(f"{'':24}{'seconds':>10}{'fastest':>10}{'ratings/s':>14}{'fused is faster by':>20}{'by fastest':>12}")
    for run, median in seconds.items():
        base = "fused gradient" if run.endswith("gradient") else "fused epoch"
        ratios = median / seconds[base], fastest[run] / fastest[base]
        print(f"{run:24}{median:10.4f}{fastest[run]:10.4f}{n / median:14,.0f}{ratios[0]:19.1f}x{ratios[1]:11.1f}x")
    print(f"\nlargest difference of the gradients, relative to the largest entry: {difference:.1e}")
    for run, elements in tensors.items():
        print(f"largest tensor of the {run}: {elements:,} elements, {elements / (n * args.k):.3f} of n_ratings x k")

    result |= {
        "plan_seconds": plan,
        "seconds": seconds,
        "fastest_seconds": fastest,
        "ratings_per_second": {run: n / t for run, t in seconds.items()},
    }
    result |= {"gradient_difference": difference, "largest_tensor": tensors}
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
