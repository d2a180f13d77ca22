"""What attributes, what was seen (SVD++), time and ordinal ratings give the default solver, and what they cost; peers beside it.

Run it with one of::

    OMP_NUM_THREADS=1 python docs/benchmarks/features.py --data FOLDER        # or SK_TORCHMF_DATA=FOLDER
    OMP_NUM_THREADS=1 python docs/benchmarks/features.py --part rmse cold     # these parts anew, the others kept

``FOLDER`` is what ``datasets.fetch_movielens(features=True)`` takes; ``ml100k_folds.npz`` and the sets of ``SETS`` take part where
they are there, myFM, LightFM and cmfrec where they are installed (``pip install myfm lightfm-next cmfrec "setuptools<81"``; myFM
imports ``pkg_resources``, which newer ones have no longer).

There is one size for each set (``SIZES``, and ``SMALL`` of those with graphs), fixed beforehand; nothing is chosen on a test part.
RMSE is of predictions clipped to the range of the ratings. Seconds are of the processor with one thread, so that they mean
something on a machine that does other work too. Records go to ``results/features.json``, tables made of them to
``results/features.md``.
"""

import argparse
import json
import os
import statistics
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from features_peers import SWEEPS, by_myfm, epoch_of_lightfm, optional, quality, sweep_of_myfm
from features_sets import SETTINGS, SIZES, TIMELESS, Monti, MovieLens, errors_of, load_set, rmse, split, split_by_time, timed

from sk_torchmf import BiasedMatrixFactorization
from sk_torchmf.model_selection import ColdItemSplit, ColdUserSplit

RESULTS = Path(__file__).parent / "results"
SETS = "ml100k", "ml1m", "hin_amazon", "douban_monti", "flixster_monti", "yahoo_music_monti"
CHOICES = [name for name, setting in SETTINGS.items() if "loss" in setting.params]
OF_GRAPHS = *TIMELESS, "side + both, ordinal"
OF_MYFM = [name for name in SETTINGS if name.startswith("all")]  # on the fold of its example
WITHIN = 1.2816  # standard deviations about the mean: 80 % of a normal distribution
DAMPING = 5  # of a bias: as many ratings of nought


def errors(folder):
    """RMSE by setting and, of ordinal ones, the log loss; seconds of a fit."""
    for name in SIZES:
        yield from errors_on(MovieLens.load(name, folder), folder, SETTINGS)


def graphs(folder):
    """The published splits of three sets with their graphs: side is a row's neighbours, or its neighbours and theirs, two hops."""
    for name in ("douban", "flixster", "yahoo_music"):
        if (folder / f"{name}_monti.npz").exists():
            yield from errors_on(Monti.load(name, folder), folder, OF_GRAPHS)
            described = [setting for setting in OF_GRAPHS if SETTINGS[setting].described]
            for row in errors_on(Monti.load(name, folder, two_hops=True), folder, described):
                yield row | {"setting": row["setting"].replace("side", "two hops")}


def errors_on(rated, folder, settings):
    """Every setting on every split of a set."""
    splits = rated.splits(folder)
    for setting in settings:
        for at, (train, test) in splits.items():
            if "myFM" not in at or setting in OF_MYFM:
                model, seconds = timed(rated.fit, train, setting)
                yield {"data": rated.name, "split": at, "setting": setting, **errors_of(model, test), "seconds": seconds}


def choices(folder):
    """Which ordinal setting for u1 to u5 of MovieLens-100K: a random tenth of each training fold is predicted from the rest."""
    movielens = MovieLens.load("100k", folder)
    folds = {at: train for at, (train, _) in movielens.splits(folder).items() if at.startswith("u")}
    for setting in CHOICES:
        for at, fold in folds.items():
            train, validation = split(fold, 0)
            yield {"data": "100k", "split": at, "setting": setting, **errors_of(movielens.fit(train, setting), validation)}


def epochs(folder, turns=5):
    """Seconds an epoch on MovieLens-1M: by the difference of a fit of ten and one of two, in turn; of peers a sweep or an epoch."""
    movielens = MovieLens.load("1m", folder)
    train, _ = split(movielens.data, 0)
    movielens.fit(train, "side + both", max_iter=1)  # what happens once a process
    spent = {setting: [] for setting in TIMELESS}
    for _ in range(turns):
        for setting, seconds in spent.items():
            fits = [timed(movielens.fit, train, setting, max_iter=n)[1] for n in (2, 10)]
            seconds.append((fits[1] - fits[0]) / 8)
    ours = {setting: statistics.median(seconds) for setting, seconds in spent.items()}
    for setting, seconds in ours.items():
        yield {
            "system": "sk_torchmf",
            "features": setting,
            "seconds": seconds,
            "times plain": seconds / ours["plain"],
            "times ours": 1.0,
        }
    for system, measure in {"myfm": sweep_of_myfm, "lightfm": epoch_of_lightfm}.items():
        if module := optional(system):
            for setting in ("side", "side + both"):
                seconds = measure(module, movielens, train, setting)
                ratios = {"times plain": seconds / ours["plain"], "times ours": seconds / ours[setting]}
                yield {"system": system, "features": setting, "seconds": seconds, **ratios}


def noise(folder, n_columns=10_000):
    """What features that say nothing do on MovieLens-100K."""
    movielens = MovieLens.load("100k", folder)
    data, rng = movielens.data, np.random.default_rng(0)
    shapes = {"user_features": data.num_users, "item_features": data.num_items}
    own = movielens.tables
    given = {
        "attributes": own,
        "attributes, all columns twice": {role: table.assign(**table.add_suffix(" again")) for role, table in own.items()},
        "attributes, rows permuted": {role: table.sample(frac=1, random_state=0, ignore_index=True) for role, table in own.items()},
        f"{n_columns:,} columns of flags, 1 % of them set": {
            role: sp.csr_array(rng.random((n, n_columns)) < 0.01, dtype=np.float64) for role, n in shapes.items()
        },
        f"{n_columns:,} columns of normal numbers": {role: rng.normal(size=(n, n_columns)) for role, n in shapes.items()},
    }
    seeds = 0, 1
    splits = [split(data, seed) for seed in seeds]
    reference = [rmse(movielens.fit(train, "plain").predict(test, clip=True), test) for train, test in splits]
    yield {"given": "nothing", **{f"RMSE {seed}": error for seed, error in zip(seeds, reference, strict=True)}, "change": 0.0}
    for label, tables in given.items():
        found = []
        for train, test in splits[: 1 if "normal" in label else None]:  # the dense one takes a minute
            encoders = {} if label.startswith("attributes") else {"user_encoder": "passthrough", "item_encoder": "passthrough"}
            model = movielens.fit(train, "plain", tables, **encoders)
            found.append(rmse(model.predict(test, clip=True), test))
        change = max((error / plain - 1 for error, plain in zip(found, reference, strict=False)), key=abs)
        yield {"given": label, **{f"RMSE {seed}": error for seed, error in zip(seeds, found, strict=False)}, "change": change}


def cold(folder):
    """Items and users without ratings, a fifth of them, from their attributes."""
    for name in SIZES:
        movielens = MovieLens.load(name, folder)
        for role, splitter in {"item": ColdItemSplit, "user": ColdUserSplit}.items():
            train, test = (movielens.data[part] for part in next(splitter(1, test_size=0.2, random_state=0).split(movielens.data)))
            ids = getattr(test, f"{role}_ids")
            own = {"data": name, "cold": role}
            for setting in TIMELESS:
                model = movielens.fit(train, setting)
                predicted, std = model.predict(test, return_std=True)
                covered = float(np.mean(np.abs(predicted - test.ratings) <= WITHIN * std))
                label = f"{setting} (the mean row)" if setting in ("plain", "both") else setting
                yield {**own, "by": label, **by_row(predicted.clip(1, 5), test, ids), "covered": covered}
            yield {**own, "by": "biases of the other side", **by_row(other_biases(train, test, role), test, ids)}
            if name == "100k" and (myfm := optional("myfm")):
                predicted, _ = by_myfm(myfm, movielens, train, test, "side", SWEEPS[name])
                yield {**own, "by": f"myFM, side, {SWEEPS[name]} sweeps", **by_row(predicted, test, ids)}


def by_row(predicted, test, ids):
    """RMSE over ratings, and the root of the mean over items, or users, of their mean squared errors."""
    squared, counts = np.bincount(ids, (predicted - test.ratings) ** 2), np.bincount(ids)
    return {"RMSE": rmse(predicted, test), "RMSE by row": float(np.sqrt(np.mean(squared[counts > 0] / counts[counts > 0])))}


def other_biases(train, test, role):
    """The mean and the damped bias of the user, for cold items, or of the item."""
    known, asked = ((part.user_ids if role == "item" else part.item_ids) for part in (train, test))
    mean, n = train.ratings.mean(dtype=np.float64), max(known.max(), asked.max()) + 1
    bias = np.bincount(known, train.ratings - mean, n) / (np.bincount(known, minlength=n) + DAMPING)
    return (mean + bias[asked]).clip(1, 5)


def seen(folder):
    """``seen_features="both"`` against None with the defaults: error and time, on all sets, at random, by time and as published."""
    for name in SETS:
        if not (folder / f"{name}.npz").exists():
            continue
        whole, published = load_set(folder / f"{name}.npz")
        n_splits = 3 if len(whole) > 50_000 else 20  # a test part of 500 ratings says little
        splits = {f"random {seed}": split(whole, seed) for seed in range(n_splits)}
        if whole.timestamps is not None:
            splits["by time"] = split_by_time(whole)
        if published is not None:
            splits["published"] = published
        for at, (train, test) in splits.items():
            found = {}
            for features in (None, "both"):
                model, seconds = timed(BiasedMatrixFactorization(seen_features=features, random_state=0).fit, train)
                found[features] = rmse(model.predict(test, clip=True), test), seconds
            (plain, seconds), (both, more) = found.values()
            change = both / plain - 1
            yield {"data": name, "split": at, "None": plain, "both": both, "change": change, "times the seconds": more / seconds}


PARTS = {
    "rmse": errors,
    "choices": choices,
    "graphs": graphs,
    "epochs": epochs,
    "quality": quality,
    "noise": noise,
    "cold": cold,
    "seen": seen,
}


def averaged(rows):
    """Rows that differ in the number of their split only become one: means of errors, medians of times; of a change its error."""
    groups = {}
    for row in rows:
        names = {column: value for column, value in row.items() if isinstance(value, str)}
        if "split" in names:
            kind = names["split"].rstrip(" 0123456789")
            names["split"] = {"u": "u1 to u5"}.get(kind, kind)
        groups.setdefault(tuple(names.items()), []).append(row)
    for names, group in groups.items():
        numbers = [column for column, value in group[0].items() if not isinstance(value, str)]
        of = {column: statistics.median if "seconds" in column else statistics.fmean for column in numbers}
        found = dict(names)
        for column in numbers:
            found[column] = of[column](row[column] for row in group)
            if column == "change" and len(group) > 1:
                found["standard error"] = statistics.stdev(row[column] for row in group) / len(group) ** 0.5
        yield found


def table(rows):
    """Rows of Markdown."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [columns, ["---"] * len(columns), *([shown(column, row.get(column, "")) for column in columns] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def shown(column, value):
    """A cell, with the digits that its column deserves."""
    if isinstance(value, str):
        return value
    if column in ("change", "standard error"):
        return f"{100 * value:{'+' if column == 'change' else ''}.2f} %"
    digits = 2 if column.startswith("times") else 3 if "seconds" in column or column == "covered" else 4
    return f"{value:.{digits}f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder of the data; by default SK_TORCHMF_DATA")
    parser.add_argument("--part", nargs="*", choices=list(PARTS), default=list(PARTS), help="none: only the tables anew")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of the results")
    args = parser.parse_args()
    folder = args.data or Path(os.environ.get("SK_TORCHMF_DATA") or "~/sk_torchmf_data").expanduser()
    torch.set_num_threads(1)
    path = args.results / "features.json"
    for part in args.part:
        print(f"\n{part}: {PARTS[part].__doc__}", flush=True)
        rows = []
        for row in PARTS[part](folder):
            rows.append(row)
            print(*(f"{column}: {shown(column, value)}" for column, value in row.items()), sep="  ", flush=True)
            results = (json.loads(path.read_text()) if path.exists() else {}) | {part: rows}
            path.write_text(json.dumps(results, indent=1) + "\n")  # at once: a run that is broken off has its rows
    results = json.loads(path.read_text())
    sections = [
        f"## {part}\n\n{PARTS[part].__doc__}\n\n{table(list(averaged(results[part])))}\n" for part in PARTS if part in results
    ]
    (args.results / "features.md").write_text("# Features: what they give, and what they cost\n\n" + "\n".join(sections))


if __name__ == "__main__":
    main()
