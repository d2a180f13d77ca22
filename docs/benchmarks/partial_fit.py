"""``partial_fit`` in chunks against one fit to all ratings: the RMSE where each ends, and the time beside fitting again.

Run it with one of::

    python docs/benchmarks/partial_fit.py --data FOLDER     # FOLDER/ml100k.npz
    python docs/benchmarks/partial_fit.py                   # MovieLens-100K as datasets.fetch_movielens finds it

Options: ``--splits 3 --chunks 10 --order random --threads 1 --models biased plain als adam adagrad module --json FILE``.

A tenth of MovieLens-100K, chosen at random, is the test part; the rest comes in chunks of equal size, in random order too or,
with ``--order``, by time or by user. What is measured for each model:

- *at once*: RMSE on the test part of one fit to all the rest;
- *in chunks*: RMSE after one ``partial_fit`` a chunk, and the seconds of all these calls;
- *again*: RMSE after one ``fit`` with ``warm_start=True`` to all ratings so far, after each chunk, and the seconds of these.

Seconds are of the processor, so that they mean something on a machine that does other work too; with one thread they are what a
clock would show on one that does not.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from sk_torchmf import BiasedMatrixFactorization, MatrixFactorization, TorchFactorization, datasets, nn

MODELS = {  # name: how to make one, and on how many of the splits
    "biased": (lambda **params: BiasedMatrixFactorization(**params), None),
    "plain": (lambda **params: MatrixFactorization(**params), None),
    "als": (lambda **params: BiasedMatrixFactorization(solver="als", **params), 1),
    "adam": (lambda **params: BiasedMatrixFactorization(solver="adam", **params), 1),
    "adagrad": (lambda **params: BiasedMatrixFactorization(solver="adagrad", **params), 1),
    "module": (
        lambda **params: TorchFactorization(
            nn.BiasedMF,
            "MSELoss",
            "Adam",
            module__n_factors=10,
            module__mean=3.5,
            optimizer__lr=0.01,
            optimizer__weight_decay=2e-4,
            max_iter=20,
            **params,
        ),
        1,
    ),
}


def rmse(model, test):
    """The error of a model's predictions."""
    return float(np.sqrt(np.mean((model.predict(test) - test.ratings) ** 2)))


def timed(call, *args):
    """Seconds of the processor that a call takes."""
    start = time.process_time()
    call(*args)
    return time.process_time() - start


def compare(make, train, test, n_chunks):
    """RMSE at once, in chunks and by fits to all so far, with the seconds of the last two."""
    chunks = np.array_split(np.arange(len(train)), n_chunks)
    in_chunks, again = make(random_state=0), make(random_state=0, warm_start=True)
    seconds = {
        "in chunks": [timed(in_chunks.partial_fit, train[chunk]) for chunk in chunks],
        "again": [timed(again.fit, train[: chunk[-1] + 1]) for chunk in chunks],
    }
    at_once = make(random_state=0).fit(train)
    errors = {"at once": rmse(at_once, test), "in chunks": rmse(in_chunks, test), "again": rmse(again, test)}
    return {"rmse": errors, "seconds": {name: sum(values) for name, values in seconds.items()}}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder that holds ml100k.npz")
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--chunks", type=int, default=10)
    parser.add_argument("--order", choices=["random", "time", "user"], default="random", help="of the ratings that come in chunks")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--json", type=Path, help="write the results to this file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    data, results = datasets.fetch_movielens("100k", data_home=args.data).interactions, []
    print(f"{'model':10}{'split':>6}{'at once':>10}{'in chunks':>11}{'again':>9}{'worse by':>10}{'seconds':>9}{'again':>8}")
    for name in args.models:
        make, at_most = MODELS[name]
        make(random_state=0).fit(data[:1000])  # what a process does once only, at its first fit
        for split in range(min(args.splits, at_most or args.splits)):
            order = np.random.default_rng(split).permutation(len(data))
            held_out, rest = np.split(order, [len(data) // 10])
            if args.order != "random":
                by = data.timestamps if args.order == "time" else data.user_ids
                rest = rest[np.argsort(by[rest], kind="stable")]
            found = compare(make, data[rest], data[held_out], args.chunks)
            results.append({"model": name, "split": split, "order": args.order, **found})
            errors, seconds = found["rmse"], found["seconds"]
            worse = 100 * (errors["in chunks"] / errors["at once"] - 1)
            print(
                f"{name:10}{split:6}{errors['at once']:10.4f}{errors['in chunks']:11.4f}{errors['again']:9.4f}{worse:+9.2f}%"
                f"{seconds['in chunks']:9.1f}{seconds['again']:8.1f}",
                flush=True,
            )
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
