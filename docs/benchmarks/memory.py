"""Memory of the default fit: bytes a rating at its peak, above the caller's arrays, and after it. Linux with glibc only.

    python docs/benchmarks/memory.py --ratings 20_000_000
    SK_TORCHMF_KERNELS=torch python docs/benchmarks/memory.py --ratings 20_000_000

Ratings are drawn in the shape of MovieLens-20M, 138,000 users and 27,000 items at 20 million; other numbers of ratings scale both.
Some pairs are drawn twice, which costs ``seen_`` arrays of its own; ``--once`` leaves the second of each out.
"""

import argparse
import ctypes
import time
from pathlib import Path

import numpy as np

from sk_torchmf import BiasedMatrixFactorization, Interactions, nn


def resident(name="VmRSS"):
    """Bytes of this process in memory: now, or the most since the last ``forget_the_peak`` with ``VmHWM``."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])


def forget_the_peak():
    Path("/proc/self/clear_refs").write_text("5")


def draw(n_ratings):
    """Ratings in half stars, of users and items whose numbers of ratings differ as in MovieLens."""
    rng = np.random.default_rng(0)
    n_users, n_items = (max(50, round(n * n_ratings / 20e6)) for n in (138_000, 27_000))
    user = (n_users * rng.random(n_ratings, dtype=np.float32) ** 2).astype(np.int32).clip(max=n_users - 1)
    item = (n_items * rng.random(n_ratings, dtype=np.float32) ** 3).astype(np.int32).clip(max=n_items - 1)
    rating = rng.integers(1, 11, n_ratings, dtype=np.int8).astype(np.float32) / 2
    return Interactions(user, item, rating, num_users=n_users, num_items=n_items)


def only_once(data):
    """The first of each pair's ratings."""
    at = np.sort(np.unique(data.user_ids.astype(np.int64) * data.num_items + data.item_ids, return_index=True)[1])
    return data[at]


def fitted_bytes(model):
    """Those of the arrays with a number for each rating, which partial_fit, recommend and fold_in need."""
    arrays = [model.observed_.data, model.observed_.indices, model.seen_.data, model.seen_.indices, model.pair_weights_]
    return sum({array.ctypes.data: array.nbytes for array in arrays if array is not None}.values())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ratings", type=int, default=20_000_000)
    parser.add_argument("--max-iter", type=int, default=3, help="epochs: memory does not depend on them")
    parser.add_argument("--once", action="store_true")
    options = parser.parse_args()
    BiasedMatrixFactorization(random_state=0).fit(draw(1000))  # what torch needs once
    data = only_once(draw(options.ratings)) if options.once else draw(options.ratings)
    n, system = len(data), ctypes.CDLL("libc.so.6")
    system.malloc_trim(0)  # what was freed is not to hide what the fit takes

    before = resident()
    forget_the_peak()
    begun = time.perf_counter(), time.process_time()
    model = BiasedMatrixFactorization(max_iter=options.max_iter, random_state=0).fit(data)
    wall, processor = time.perf_counter() - begun[0], time.process_time() - begun[1]
    peak, after = (resident("VmHWM") - before) / n, (resident() - before) / n
    system.malloc_trim(0)
    in_use, epoch = (resident() - before) / n, 1e9 * np.median(model.history_["seconds"]) / n
    row = {
        "ratings": f"{n:,}",
        "kernels": nn.kernels_in_use(),
        "peak of `fit`": f"{peak:.1f}",
        "after it": f"{after:.1f}",
        "of that in use": f"{in_use:.1f}",
        "fitted arrays of ratings": f"{fitted_bytes(model) / n:.1f}",
        "wall, processor time": f"{wall:.0f} s, {processor:.0f} s",
        "an epoch": f"{epoch:.0f} ns",
    }
    for line in (row, ["---"] * len(row), row.values()):
        print("|", " | ".join(line), "|")
    assert np.isfinite(model.user_factors_).all()


if __name__ == "__main__":
    main()
