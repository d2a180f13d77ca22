"""A data set on disk: seconds, memory and bytes a rating to build it from Parquet, to read it, and to fit it or the same in memory.

Run it with one of::

    python docs/benchmarks/shards.py                                # 20 million ratings, 138,000 users x 27,000 items
    python docs/benchmarks/shards.py --ratings 100_000_000 --address-limit 1.5 --json FILE
    python docs/benchmarks/shards.py --model torch --batch-size 16384  # TorchFactorization(nn.BiasedMF), Adagrad

Options: ``--users --items --ids int|text --weights --folder FOLDER`` (for the files; a temporary one by default), ``--keep``,
``--factors 32 --epochs 3 --rounds 3 --only STEP [STEP ...]``.

Processes one after the other, so that each one's peak is its own: one generates the Parquet file, in pieces; one builds; one
reads all shards and adds them up; one fits ``BiasedMatrixFactorization`` to the shards, one to the same ratings as a DataFrame.
The two fits take turns for some rounds, and the medians of seconds an epoch are over all of these. ``--address-limit`` holds all
but the generator and the fit in memory to so many GiB of addresses (``ulimit -v``), imports included. What is printed as *above
imports* is the peak of resident memory less what the process had after its imports.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

PIECE = 2**20


def peak():
    """The largest resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def generate(path, options):
    """Ratings of users in any order, half stars; popular users and items have most of them."""
    import pyarrow as pa
    import pyarrow.parquet

    rng, left, writer = np.random.default_rng(0), options.ratings, None
    while left:
        n = min(PIECE, left)
        user = (options.users * rng.uniform(size=n) ** 2).astype(np.int64)
        item = (options.items * rng.uniform(size=n) ** 3).astype(np.int64)
        columns = {"user": user, "item": item}
        if options.ids == "text":
            columns = {name: pa.array(np.char.add(f"{name}-", ids.astype(str))) for name, ids in columns.items()}
        columns["rating"] = np.float32(0.5) * rng.integers(1, 11, size=n).astype(np.float32)
        if options.weights:
            columns["weight"] = rng.uniform(0.5, 2.0, size=n).astype(np.float32)
        table = pa.table(columns)
        writer = writer or pa.parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)
        left -= n
    writer.close()


def build(path, folder, options):
    """Build the shards; what it took."""
    import pyarrow.parquet  # noqa: F401  (an import of the build, not its memory)

    from sk_torchmf import Shards

    before, start, cpu = peak(), time.perf_counter(), time.process_time()
    weight = "weight" if options.weights else None
    shards = Shards.from_parquet(path, folder, user="user", item="item", rating="rating", weight=weight, n_shards=options.shards)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    n = shards.n_ratings
    return {
        "ratings": n,
        "users": shards.n_users,
        "items": shards.n_items,
        "shards": len(shards),
        "parquet_MB": Path(path).stat().st_size / 1e6,
        "shards_MB": shards.n_bytes / 1e6,
        "bytes_a_rating": shards.n_bytes / n,
        "build_s": seconds,
        "build_cpu_s": cpu,
        "build_ns_a_rating": 1e9 * seconds / n,
        "build_peak_MiB": peak(),
        "build_peak_above_imports_MiB": peak() - before,
    }


def read(path, folder, options):
    """Go through all shards in pieces of a million ratings; what it took."""
    from sk_torchmf import Shards

    before, start = peak(), time.perf_counter()
    total, n, shards = 0.0, 0, Shards(folder)
    counts = np.zeros(shards.n_items, dtype=np.int64)
    for shard in shards:
        cuts = np.searchsorted(shard.pointers, np.arange(0, shard.n_ratings, PIECE))
        for start_user, stop_user in zip(cuts, [*cuts[1:], shard.n_users], strict=True):
            block = shard.between(start_user, stop_user)
            counts += np.bincount(block.columns, minlength=len(counts))
            total, n = total + float(block.ratings.sum(dtype=np.float64)), n + block.n_ratings
    assert n == shards.n_ratings == counts.sum()
    seconds = time.perf_counter() - start
    return {"read_s": seconds, "mean": total / n, "read_peak_above_imports_MiB": peak() - before}


def fit(name, X, y, options):
    """Fit a model for some epochs; what that took."""
    from sk_torchmf import BiasedMatrixFactorization, TorchFactorization, nn

    params = {"max_iter": options.epochs, "user": "user", "item": "item", "random_state": 0}
    if options.model == "torch":
        of_parts = {"module__n_factors": options.factors, "optimizer__lr": 0.1, "batch_size": options.batch_size}
        model = TorchFactorization(nn.BiasedMF, optimizer="Adagrad", **of_parts, **params)
    else:
        model = BiasedMatrixFactorization(options.factors, **params)
    start, cpu = time.perf_counter(), time.process_time()
    model = model.fit(X, y)
    cpu, seconds = time.process_time() - cpu, time.perf_counter() - start
    return {f"{name}_epochs_s": model.history_["seconds"], f"{name}_fit_s": seconds, f"{name}_fit_cpu_s": cpu, "kernels": kernels()}


def kernels():
    """Which kernels are in use."""
    from sk_torchmf.nn import kernels_in_use

    return kernels_in_use()


def fit_disk(path, folder, options):
    """Fit to the shards."""
    from sk_torchmf import Shards

    before, kernels_found = peak(), kernels()
    found = fit("disk", Shards(folder), None, options)
    return found | {"disk_peak_above_imports_MiB": peak() - before, "kernels": kernels_found}


def fit_memory(path, folder, options):
    """Fit to the same ratings as a DataFrame."""
    import pandas as pd
    import pyarrow.parquet  # noqa: F401  (an import, not memory of the fit)

    import sk_torchmf  # noqa: F401

    before = peak()
    frame = pd.read_parquet(path, columns=["user", "item", "rating"])
    table = peak() - before
    found = fit("memory", frame[["user", "item"]], frame["rating"], options)
    return found | {"memory_peak_of_table_MiB": table, "memory_peak_above_imports_MiB": peak() - before}


STEPS = {
    "generate": lambda path, folder, options: generate(path, options),
    "build": build,
    "read": read,
    "fit_disk": fit_disk,
    "fit_memory": fit_memory,
}
UNLIMITED = "generate", "fit_memory"


def main():
    """Run the three steps, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--ratings", type=int, default=20_000_000)
    parser.add_argument("--users", type=int, default=138_000)
    parser.add_argument("--items", type=int, default=27_000)
    parser.add_argument("--ids", choices=["int", "text"], default="int")
    parser.add_argument("--weights", action="store_true")
    parser.add_argument("--shards", type=int)
    parser.add_argument("--address-limit", type=float, help="GiB")
    parser.add_argument("--folder", help="where the files go; a temporary one by default")
    parser.add_argument("--keep", action="store_true", help="leave the Parquet file for the next run")
    parser.add_argument("--factors", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--model", choices=["default", "torch"], default="default")
    parser.add_argument("--batch-size", type=int, default=2**14)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--json")
    for name in ("--step", "--parquet"):  # of the three processes
        parser.add_argument(name, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        if options.address_limit and options.step not in UNLIMITED:
            limit = int(options.address_limit * 2**30)
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        print(json.dumps(STEPS[options.step](options.parquet, os.path.join(options.folder, "shards"), options)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        parquet = os.path.join(options.folder if options.keep and options.folder else temporary, "ratings.parquet")
        found = {"machine": f"{platform.processor() or platform.machine()}, load {os.getloadavg()[0]:.1f} before"}
        fits = [step for step in options.only if step.startswith("fit")]
        for step in [*(step for step in options.only if step not in fits), *fits * options.rounds]:
            if step == "generate" and os.path.exists(parquet):
                continue
            run = [sys.executable, __file__, *sys.argv[1:], "--folder", temporary, "--parquet", parquet, "--step", step]
            out = subprocess.run(run, check=True, stdout=subprocess.PIPE, text=True).stdout
            for name, value in (json.loads(out.splitlines()[-1]) or {}).items():
                known = found.get(name)
                found[name] = value if known is None or not isinstance(value, list) else known + value
        for name in [name for name in found if name.endswith("_epochs_s")]:
            found[f"{name.removesuffix('_epochs_s')}_epoch_median_s"] = float(np.median(found[name]))
        found["machine"] += f", {os.getloadavg()[0]:.1f} after"
    for name, value in found.items():
        print(f"{name:32} {value:,.2f}" if isinstance(value, float) else f"{name:32} {value}")
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
