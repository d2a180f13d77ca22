"""Memory of the default fit: the plan's bytes a rating, and those of the peak above the caller's arrays. Linux only.

    python docs/benchmarks/memory.py --ratings 20_000_000
    SK_TORCHMF_KERNELS=torch python docs/benchmarks/memory.py --ratings 20_000_000

Ratings are drawn in the shape of MovieLens-20M, 138,000 users and 27,000 items at 20 million; other numbers of ratings scale both.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from sk_torchmf import BiasedMatrixFactorization, Interactions, nn
from sk_torchmf.solvers.likelihood import Observed


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


def bytes_of(observed):
    pairs = observed.pairs
    return sum(part.nbytes for part in (pairs.pointers, pairs.columns, pairs.order, observed.values))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ratings", type=int, default=20_000_000)
    parser.add_argument("--max-iter", type=int, default=3, help="epochs: memory does not depend on them")
    options = parser.parse_args()
    BiasedMatrixFactorization(random_state=0).fit(draw(1000))  # what torch needs once
    data, n = draw(options.ratings), options.ratings

    pairs = nn.Pairs(data.user_ids, data.item_ids, data.num_users, data.num_items)
    by_user = Observed(pairs, torch.from_numpy(data.ratings)[pairs.order], None)
    plan = (bytes_of(by_user) + bytes_of(by_user.transposed())) / n
    del pairs, by_user

    before = resident()
    forget_the_peak()
    begun = time.perf_counter(), time.process_time()
    model = BiasedMatrixFactorization(max_iter=options.max_iter, random_state=0).fit(data)
    wall, processor = time.perf_counter() - begun[0], time.process_time() - begun[1]
    peak, after = (resident("VmHWM") - before) / n, (resident() - before) / n
    print("| ratings | kernels | both orders in the plan | peak of `fit` | in memory after it | wall, processor time of the fit |")
    print("| --- | --- | --- | --- | --- | --- |")
    print(f"| {n:,} | {nn.kernels_in_use()} | {plan:.0f} bytes | {peak:.0f} | {after:.0f} | {wall:.0f} s, {processor:.0f} s |")
    assert np.isfinite(model.user_factors_).all()


if __name__ == "__main__":
    main()
