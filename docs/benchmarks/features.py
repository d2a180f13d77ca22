"""What attributes and what was seen (SVD++) give the default solver, and what they cost; myFM and LightFM beside it.

Run it with one of::

    OMP_NUM_THREADS=1 python docs/benchmarks/features.py --data FOLDER        # or SK_TORCHMF_DATA=FOLDER
    OMP_NUM_THREADS=1 python docs/benchmarks/features.py --part rmse cold     # these parts anew, the others kept

``FOLDER`` is what ``datasets.fetch_movielens(features=True)`` takes; ``ml100k_folds.npz`` and the sets of ``SETS`` take part where
they are there, myFM and LightFM where they are installed (``pip install myfm lightfm-next "setuptools<81"``; myFM imports
``pkg_resources``, which newer ones have no longer).

There is one setting for MovieLens-100K and one for MovieLens-1M (``SIZES``), fixed beforehand; nothing is chosen on a test part.
RMSE is of predictions clipped to the range of the ratings. Seconds are of the processor with one thread, so that they mean
something on a machine that does other work too. Records go to ``results/features.json``, tables made of them to
``results/features.md``.
"""

import argparse
import json
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

from sk_torchmf import BiasedMatrixFactorization, FeatureEncoder, Interactions, datasets
from sk_torchmf.model_selection import ColdItemSplit, ColdUserSplit

RESULTS = Path(__file__).parent / "results"
SIZES = {"100k": {"n_factors": 32, "max_iter": 15}, "1m": {"n_factors": 64, "max_iter": 20}}
SETTINGS = {  # seen_features, and whether the tables of attributes are given
    "plain": (None, False),
    "side": (None, True),
    "both": ("both", False),
    "side + both": ("both", True),
}
SETS = "ml100k", "ml1m", "hin_amazon", "douban_monti", "flixster_monti", "yahoo_music_monti"
AGES = [0, 18, 25, 35, 45, 50, 56, 200]  # MovieLens-1M's brackets, for the years of MovieLens-100K
WITHIN = 1.2816  # standard deviations about the mean: 80 % of a normal distribution
DAMPING = 5  # of a bias: as many ratings of nought
SWEEPS = 100  # of myFM, where its RMSE is asked for


@dataclass(frozen=True)
class MovieLens:
    """Ratings, ids from 0, and the tables of attributes with a row for each position."""

    name: str
    data: Interactions
    tables: dict

    @classmethod
    def load(cls, name, folder):
        """Gender, age and occupation of users; genres and year of films, the year in categories of three."""
        bunch = datasets.fetch_movielens(name, data_home=folder, features=True)
        users = bunch.user_features.loc[bunch.user_labels, ["gender", "age", "occupation"]].reset_index(drop=True)
        if name == "100k":
            users["age"] = pd.cut(users["age"], AGES, right=False)
        users["age"] = users["age"].astype(str)
        items = bunch.item_features.loc[bunch.item_labels, ["genres", "year"]].reset_index(drop=True)
        years = items["year"].clip(1930, 2000) // 3
        items["year"] = years.astype("Int64").astype(str).where(years.notna(), None)
        return cls(name, bunch.interactions, {"user_features": users, "item_features": items})

    def fit(self, train, setting, tables=None, **params):
        """Fit by a key of ``SETTINGS`` with the set's size."""
        seen, described = SETTINGS[setting]
        model = BiasedMatrixFactorization(seen_features=seen, random_state=0, **SIZES[self.name] | params)
        return model.fit(train, **(self.tables if described else {}) | (tables or {}))


def split(data, seed):
    """Nine tenths and a tenth, at random."""
    held_out, rest = np.split(np.random.default_rng(seed).permutation(len(data)), [len(data) // 10])
    return data[rest], data[held_out]


def split_by_time(data):
    """All but the last tenth, and that."""
    order = np.argsort(data.timestamps, kind="stable")
    return data[order[: -(len(order) // 10)]], data[order[-(len(order) // 10) :]]


def rmse(predicted, test):
    """The error of some predictions."""
    return float(np.sqrt(np.mean((predicted - test.ratings) ** 2)))


def timed(call, *args, **params):
    """What a call returns, and seconds of the processor that it takes."""
    start = time.process_time()
    result = call(*args, **params)
    return result, time.process_time() - start


def errors(folder):
    """RMSE with and without attributes and what was seen, and seconds of a fit."""
    for name in SIZES:
        movielens = MovieLens.load(name, folder)
        splits = {f"random {seed}": split(movielens.data, seed) for seed in (0, 1)}
        if name == "100k" and (folder / "ml100k_folds.npz").exists():
            splits |= published_folds(folder)
        for setting in SETTINGS:
            for at, (train, test) in splits.items():
                model, seconds = timed(movielens.fit, train, setting)
                error = rmse(model.predict(test, clip=True), test)
                yield {"data": name, "split": at, "setting": setting, "RMSE": error, "seconds": seconds}
        if name == "100k" and (myfm := optional("myfm")):
            for setting in ("plain", "side", "side + both"):
                train, test = splits["random 0"]
                predicted, seconds = by_myfm(myfm, movielens, train, test, setting, SWEEPS)
                label = f"myFM, {setting}, {SWEEPS} sweeps"
                yield {"data": name, "split": "random 0", "setting": label, "RMSE": rmse(predicted, test), "seconds": seconds}


def published_folds(folder):
    """MovieLens-100K's own folds."""
    with np.load(folder / "ml100k_folds.npz") as file:
        return {
            f"u{k}": tuple(
                Interactions(
                    *(file[f"u{k}_{part}_{name}"] for name in ("user_ids", "item_ids", "ratings")), num_users=943, num_items=1682
                )
                for part in ("train", "test")
            )
            for k in range(1, 6)
        }


def epochs(folder, turns=5):
    """Seconds an epoch on MovieLens-1M: by the difference of a fit of ten and one of two, in turn; of peers a sweep or an epoch."""
    movielens = MovieLens.load("1m", folder)
    train, _ = split(movielens.data, 0)
    movielens.fit(train, "side + both", max_iter=1)  # what happens once a process
    spent = {setting: [] for setting in SETTINGS}
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


def sweep_of_myfm(myfm, movielens, train, setting):
    """Seconds of a Gibbs sweep with the attributes in relation blocks, by the difference of fits of three and of one."""
    few, more = (by_myfm(myfm, movielens, train, train[:1], setting, n)[1] for n in (1, 3))
    return (more - few) / 2


def epoch_of_lightfm(lightfm, movielens, train, setting, share=50):
    """Seconds of an epoch with the logistic loss: each rating has its cost, so it is that of a fiftieth of them, times fifty."""
    part = train[np.random.default_rng(0).permutation(len(train))[: len(train) // share]]
    liked = sp.coo_matrix((np.where(part.ratings >= 4, 1, -1), (part.user_ids, part.item_ids)), (train.num_users, train.num_items))
    users, items = (sp.csr_matrix(sp.hstack(parts), dtype=np.float32) for parts in matrices(movielens, train, setting))
    model = lightfm.LightFM(no_components=SIZES[movielens.name]["n_factors"], loss="logistic", random_state=0)
    model.fit_partial(liked.tocsr()[:1].tocoo(), users[:1], items)  # the first call makes the rows
    return share * timed(model.fit_partial, liked, users, items)[1]


def matrices(movielens, train, setting):
    """Of users and of items: an indicator of each, their encoded attributes, and what they were seen with, as in SVD++."""
    seen, described = SETTINGS[setting]
    entries = sp.csr_matrix((np.ones(len(train)), (train.user_ids, train.item_ids)), (train.num_users, train.num_items))
    for table, own in zip(movielens.tables.values(), (entries, entries.T.tocsr()), strict=True):
        parts = [sp.eye(own.shape[0], format="csr")]
        if described:
            parts.append(sp.csr_matrix(FeatureEncoder().fit_transform(table)))
        if seen:
            parts.append(sp.diags(np.maximum(own.sum(1).A1, 1) ** -0.5) @ own)
        yield parts


def by_myfm(myfm, movielens, train, test, setting, n_sweeps):
    """Predictions of myFM's regression, clipped, and seconds of its fit."""
    sides = list(matrices(movielens, train, setting))
    stacked = [sp.csr_matrix(sp.hstack(parts)) for parts in sides]

    def blocks(part):
        return [myfm.RelationBlock(ids.tolist(), rows) for ids, rows in zip((part.user_ids, part.item_ids), stacked, strict=True)]

    model = myfm.MyFMRegressor(rank=SIZES[movielens.name]["n_factors"], random_seed=0)
    options = {"n_iter": n_sweeps, "n_kept_samples": max(1, n_sweeps * 4 // 5)}
    groups = [part.shape[1] for parts in sides for part in parts]
    nothing = [sp.csr_matrix((len(part), 0)) for part in (train, test)]  # beside the blocks
    _, seconds = timed(model.fit, nothing[0], train.ratings.astype(np.float64), X_rel=blocks(train), group_shapes=groups, **options)
    return model.predict(nothing[1], blocks(test), n_workers=1).clip(1, 5), seconds


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
            for setting in SETTINGS:
                model = movielens.fit(train, setting)
                predicted, std = model.predict(test, return_std=True)
                covered = float(np.mean(np.abs(predicted - test.ratings) <= WITHIN * std))
                label = f"{setting} (the mean row)" if setting in ("plain", "both") else setting
                yield {**own, "by": label, **by_row(predicted.clip(1, 5), test, ids), "covered": covered}
            yield {**own, "by": "biases of the other side", **by_row(other_biases(train, test, role), test, ids)}
            if name == "100k" and (myfm := optional("myfm")):
                predicted, _ = by_myfm(myfm, movielens, train, test, "side", SWEEPS)
                yield {**own, "by": f"myFM, side, {SWEEPS} sweeps", **by_row(predicted, test, ids)}


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


def load_set(path):
    """All ratings of a set, and its published split, or None."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file if name.endswith(("user_ids", "item_ids", "ratings", "timestamps"))}
    if "ratings" in arrays:
        return Interactions(arrays["user_ids"], arrays["item_ids"], arrays["ratings"], timestamps=arrays["timestamps"]), None
    names = "user_ids", "item_ids", "ratings"
    parts = [[arrays[f"{part}_{name}"] for name in names] for part in ("train", "test")]
    joined = [np.concatenate(pair) for pair in zip(*parts, strict=True)]
    sizes = {"num_users": int(joined[0].max()) + 1, "num_items": int(joined[1].max()) + 1}
    return Interactions(*joined, **sizes), tuple(Interactions(*part, **sizes) for part in parts)


def optional(name):
    """A module, or None where it is not installed."""
    try:
        return __import__(name)
    except ImportError:
        print(f"{name} is not installed: left out")
        return None


PARTS = {"rmse": errors, "epochs": epochs, "noise": noise, "cold": cold, "seen": seen}


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
    digits = 2 if column.startswith("times") else 3 if column in ("seconds", "covered") else 4
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
        path.write_text(json.dumps(results, indent=1) + "\n")
    results = json.loads(path.read_text())
    sections = [
        f"## {part}\n\n{PARTS[part].__doc__}\n\n{table(list(averaged(results[part])))}\n" for part in PARTS if part in results
    ]
    (args.results / "features.md").write_text("# Features: what they give, and what they cost\n\n" + "\n".join(sections))


if __name__ == "__main__":
    main()
