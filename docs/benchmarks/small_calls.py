"""What little work takes: a fit of 100 ratings, one user's recommendations, one prediction; and a catalogue of few ratings an item.

Run it with one of::

    python docs/benchmarks/small_calls.py --data FOLDER     # FOLDER/ml1m.npz
    python docs/benchmarks/small_calls.py                   # planted ratings of MovieLens-1M's size

Options: ``--calls 200 --fits 5 --json FILE``.

Everything runs on one thread, with the defaults of ``BiasedMatrixFactorization`` and ``random_state=0``:

- *fit of 100 ratings*: of 20 users and 15 items, at random;
- *recommend* and *predict*: ten items for one user, and one rating, by a model of MovieLens-1M;
- *sparse catalogue*: a fit of 430,000 ratings of 80,000 users and 190,000 items, most of which have one to three, and how many
  times as long it takes as a fit of MovieLens-1M. The two take turns.

Times are those of the thread, the least and the median over the calls: on a machine that does other work too the least is nearest
to what a quiet one would show.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from sk_torchmf import BiasedMatrixFactorization, Interactions, datasets


def times(call, n):
    """The times of a thread, in milliseconds, that n calls take."""
    found = []
    for _ in range(n):
        start = time.thread_time()
        call()
        found.append(1e3 * (time.thread_time() - start))
    return found


def small():
    """100 ratings as a table and a target."""
    rng = np.random.default_rng(0)
    return np.column_stack([rng.integers(0, 20, 100), rng.integers(0, 15, 100)]), rng.integers(1, 6, 100).astype(float)


def sparse():
    """Few ratings of many items, as a table and a target."""
    rng, n = np.random.default_rng(0), 430_000
    user, item = (80_000 * rng.random(n) ** 1.5).astype(int), (190_000 * rng.random(n) ** 2).astype(int)
    return np.column_stack([user, item]), rng.integers(1, 6, n).astype(float)


def movielens(folder):
    """MovieLens-1M, or planted ratings of its size, as a table and a target."""
    if folder is None:
        data = datasets.make_ratings(n_users=6040, n_items=3706, n_ratings=1_000_209, random_state=0).interactions
    else:
        with np.load(folder / "ml1m.npz") as file:
            data = Interactions(file["user_ids"], file["item_ids"], file["ratings"])
    return np.column_stack([data.user_ids, data.item_ids]), np.asarray(data.ratings, dtype=float)


def measure(folder, n_calls, n_fits):
    """Milliseconds of each call by its name."""

    def fit(X, y):
        return BiasedMatrixFactorization(random_state=0).fit(X, y)

    few, large, thin = small(), movielens(folder), sparse()
    model = fit(*large)
    fit(*few)
    found = {
        "fit of 100 ratings": times(lambda: fit(*few), n_calls),
        "recommend, one user": times(lambda: model.recommend(5, 10), n_calls),
        "predict, one pair": times(lambda: model.predict(5, 7), n_calls),
        "fit of MovieLens-1M": [],
        "fit of a sparse catalogue": [],
    }
    for _ in range(n_fits):
        found["fit of MovieLens-1M"] += times(lambda: fit(*large), 1)
        found["fit of a sparse catalogue"] += times(lambda: fit(*thin), 1)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with ml1m.npz")
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--fits", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file that takes all times")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(options.data, options.calls, options.fits)
    for name, values in found.items():
        print(f"{name:28s} least {min(values):9.3f} ms, median {np.median(values):9.3f} ms")
    ratio = [min(found[f"fit of {name}"]) for name in ("a sparse catalogue", "MovieLens-1M")]
    print(f"a sparse catalogue takes {ratio[0] / ratio[1]:.1f} times as long as MovieLens-1M (least of each)")
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
