"""What an estimator around your own module costs: against the loop written by hand, against skorch, and by several processes.

Run it with one of::

    python docs/benchmarks/torch_loop.py --data PATH/ml1m.npz      # user_ids, item_ids, ratings
    python docs/benchmarks/torch_loop.py                           # planted ratings of MovieLens-1M's size

skorch takes part where it is installed (``pip install skorch``). Options: ``--k 64 --batch-size 1024 --repeats 3 --json FILE``.

One module, biased matrix factorization on ``nn.Embedding``, the same batch size and optimizer for all, in one run and in turn.
What is timed is an epoch, by the histories that the estimator and skorch keep; medians over turns of two epochs each. What happens
once a fit, reading, checking and encoding the data, does not count. With other work on the machine set OMP_WAIT_POLICY=PASSIVE.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from engine import EmbeddingMF, load
from torch import nn

from sk_torchmf import Interactions, TorchFactorization

EPOCHS = 2  # a turn
OPTIMIZERS = {
    "SGD, sparse": (torch.optim.SGD, {"lr": 0.1}, True),
    "Adagrad, sparse": (torch.optim.Adagrad, {"lr": 0.05}, True),
    "Adam, dense": (torch.optim.Adam, {"lr": 0.001}, False),
}


class Model(EmbeddingMF):
    """The engine benchmark's module, with sparse gradients where asked for; takes pairs as one tensor too, as skorch gives them."""

    def __init__(self, n_users, n_items, k, sparse):
        super().__init__(n_users, n_items, k, 3.5)
        for table in self.children():
            table.sparse = sparse

    def forward(self, user, item=None):
        """Scores of shape (n,)."""
        if item is None:
            user, item = user[:, 0], user[:, 1]
        return super().forward(user, item)


def by_hand(data, size, optimizer, options, **module):
    """The loop that people write: a shuffled order, batches cut out by index."""
    user, item, rating = (torch.from_numpy(part) for part in data)
    model, loss = Model(**module), nn.MSELoss()
    steps, seconds = optimizer(model.parameters(), **options), []
    for _ in range(EPOCHS):
        start = time.perf_counter()
        order = torch.randperm(len(user))
        for at in range(0, len(user), size):
            batch = order[at : at + size]
            steps.zero_grad()
            loss(model(user[batch], item[batch]), rating[batch]).backward()
            steps.step()
        seconds.append(time.perf_counter() - start)
    return seconds


def by_estimator(data, size, optimizer, options, n_processes=1, **module):
    """TorchFactorization."""
    interactions = Interactions(*data, num_users=module["n_users"], num_items=module["n_items"])
    options = {f"optimizer__{name}": value for name, value in options.items()}
    options |= {"module__k": module["k"], "module__sparse": module["sparse"], "batch_size": size, "n_processes": n_processes}
    model = TorchFactorization(Model, nn.MSELoss, optimizer, max_iter=EPOCHS, random_state=0, **options)
    return model.fit(interactions).history_["seconds"]


def by_skorch(data, size, optimizer, options, **module):
    """NeuralNetRegressor."""
    from skorch import NeuralNetRegressor

    user, item, rating = data
    options = {f"optimizer__{name}": value for name, value in options.items()}
    options |= {f"module__{name}": value for name, value in module.items()}
    options |= {"iterator_train__shuffle": True, "train_split": None, "verbose": 0, "batch_size": size, "optimizer": optimizer}
    net = NeuralNetRegressor(Model, max_epochs=EPOCHS, **options).fit(np.column_stack([user, item]), rating)
    return net.history[:, "dur"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--k", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    name, user, item, rating = load(options.data)
    data = user.astype(np.int64), item.astype(np.int64), rating
    module = {"n_users": int(user.max()) + 1, "n_items": int(item.max()) + 1, "k": options.k}
    contestants = {"by hand": by_hand, "TorchFactorization": by_estimator}
    try:
        import skorch

        contestants[f"skorch {skorch.__version__}"] = by_skorch
    except ImportError:
        print("skorch is not installed: left out")

    print(f"{name}, {len(user):,} ratings, k={options.k}, batches of {options.batch_size}, {torch.get_num_threads()} threads")
    results = {}
    for optimizer, (kind, own, sparse) in OPTIMIZERS.items():
        seconds = {contestant: [] for contestant in contestants}
        for _ in range(options.repeats):
            for contestant, run in contestants.items():
                seconds[contestant].extend(run(data, options.batch_size, kind, own, sparse=sparse, **module))
        medians = {contestant: statistics.median(times) for contestant, times in seconds.items()}
        results[optimizer] = seconds
        ours = medians["TorchFactorization"]
        for contestant, epoch in medians.items():
            print(
                f"{optimizer:16} {contestant:20} {epoch:7.2f} s an epoch, {len(user) / epoch:10,.0f} ratings/s, {epoch / ours:5.2f}"
            )
    kind, own, sparse = OPTIMIZERS["SGD, sparse"]
    for n_processes in (1, 2):
        runs = [
            by_estimator(data, options.batch_size, kind, own, n_processes, sparse=sparse, **module) for _ in range(options.repeats)
        ]
        times = [seconds for run in runs for seconds in run[1:]]  # the first epoch of several processes starts them
        epoch = statistics.median(times)
        results[f"SGD, sparse, n_processes={n_processes}"] = times
        print(f"SGD, sparse, n_processes={n_processes}: {epoch:.2f} s an epoch, {len(user) / epoch:,.0f} ratings/s")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
