"""Which loss of positives to take: all losses at their defaults beside a grid of ``ials``, implicit's ALS and LightFM's WARP.

Run it with one of::

    OMP_NUM_THREADS=1 python docs/benchmarks/losses.py --data FOLDER --envs ENVS               # what is kept is not run again
    OMP_NUM_THREADS=1 python docs/benchmarks/losses.py --data FOLDER --systems cosine ials     # these; after a default has changed
    OMP_NUM_THREADS=1 python docs/benchmarks/losses.py --data FOLDER --systems                 # the tables alone

See README.md, Losses. Settings of grids are chosen on a tenth of each user's training positives; the test part is looked at once,
with what was chosen. A record is kept with all parameters of its estimator: where a default of the constructor has changed it is
measured anew.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "systems"))

import numpy as np  # noqa: E402
import scipy.sparse as sp  # noqa: E402
import torch  # noqa: E402
from catalogue import install  # noqa: E402
from holdout import Positives, rank_candidates  # noqa: E402
from peers import machine  # noqa: E402
from worker import Worker  # noqa: E402

from sk_torchmf import ImplicitMatrixFactorization, Interactions  # noqa: E402
from sk_torchmf.metrics import hit_rate, ndcg, recall  # noqa: E402

LOSSES = ("cosine", "ials", "logistic", "bpr", "softmax", "hinge", "adaptive_hinge")
WIDE = 128  # factors of what is tuned
GRID = [{"confidence": c, "alpha": a} for c in (0.25, 1.0, 4.0) for a in (0.003, 0.006, 0.01, 0.02, 0.04)]  # times that of None
# implicit's own scales: the weight of a positive and one ridge for all rows; given in those of ials, whose best are near these.
ALS = [{"confidence": c, "alpha": a} for c, a in ((0.25, 0.01), (1, 0.01), (1, 0.02), (1, 0.03), (4, 0.01), (4, 0.02), (4, 0.03))]
WARP = {64: (5, 10, 20, 30), WIDE: (10, 20, 30)}  # epochs, by the number of factors: one fit goes on from one to the next
EPOCHS = 20  # of LightFM's defaults, which name none


@dataclass(frozen=True)
class Set:
    """A set of positives: where they are, and what is measured.

    Attributes
    ----------
    label : str
    load : callable(folder) -> Positives
    metrics : tuple of str
        The first is what a grid is chosen by.
    """

    label: str
    load: object
    metrics: tuple[str, ...] = ("NDCG@10", "recall@20")


def fifth(name, wanted=lambda file: (file["user_ids"], file["item_ids"])):
    """A random fifth of each user's positives as the test part, seed 0; each pair once."""

    def load(folder):
        with np.load(folder / f"{name}.npz") as file:
            user, item = np.unique(np.column_stack(wanted(file)), axis=0).astype(np.int32).T
        none = np.empty(0, dtype=np.int32)
        return Positives(user, item, none, none, (int(user.max()) + 1, int(item.max()) + 1)).hold_out(0.2)

    return load


def at_least_the_mean(file):
    """Of a published split both parts together, what is rated at the mean or above."""
    user, item, rating = (
        np.concatenate([file[f"{part}_{name}"] for part in ("train", "test")]) for name in ("user_ids", "item_ids", "ratings")
    )
    return user[rating >= rating.mean()], item[rating >= rating.mean()]


def all_parts(file):
    """Of a split by users all pairs."""
    return np.concatenate([file[name] for name in ("train", "vali", "test")]).T


SETS = {  # in the order in which they are run
    "ml100k": Set("MovieLens-100K", fifth("ml100k")),
    "amazon": Set("Amazon (HIN)", fifth("hin_amazon")),
    "lastfm": Set("LastFM", fifth("lastfm_heater_cold_users", all_parts)),
    "citeulike": Set("citeulike-t", fifth("citeulike_t")),
    "ml1m": Set("MovieLens-1M", fifth("ml1m")),
    "douban": Set("Douban, rated at least the mean", fifth("douban_monti", at_least_the_mean)),
    "ncf": Set("MovieLens-1M, leave one out", Positives.ncf, ("NDCG@10", "HR@10")),
    "gowalla": Set("Gowalla", Positives.gowalla, ("NDCG@20", "recall@20")),
}


class Bench:
    """Runs systems on sets, and keeps each record as soon as it is there.

    Parameters
    ----------
    options : Namespace
        The command line.
    folder : Path
        For the data and the factors of peers.
    """

    def __init__(self, options, folder):
        self.options, self.folder = options, folder
        self.path = options.out / "losses.json"
        self.results = json.loads(self.path.read_text()) if self.path.exists() else {"test": {}, "choice": {}}
        self.results["machine"] = machine(options)
        self.workers = {}

    def once(self, group, name, label, settings, measure):
        """The record of this label and these settings: the one kept, or what ``measure()`` answers."""
        records = self.results[group].setdefault(name, {})
        if records.get(label, {}).get("settings") != settings or (self.options.again and group == "test"):
            records[label] = {"settings": settings, "load": round(os.getloadavg()[0], 1)} | measure()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps(self.results, indent=1) + "\n")
        shown = " ".join(f"{key}={value:.4f}" for key, value in records[label].items() if isinstance(value, float))
        print(f"{group}: {name}: {label}: {shown}", flush=True)
        return records[label]

    def run(self, name, system):
        """One system on one set."""
        data = SETS[name].load(self.options.data)
        if system in LOSSES:
            self.ours(name, system, "test", data, {"loss": system})
        elif system == "grid":
            candidates = [{"loss": "ials", "n_factors": WIDE} | candidate for candidate in GRID]
            part = validation(name, self.options.data)
            found = [self.ours(name, str(own), "choice", part, own) for own in candidates]
            self.ours(name, "grid", "test", data, self.best(name, found, candidates))
        elif system == "implicit":
            self.peer(name, "implicit, defaults", "test", data, {})
            part = validation(name, self.options.data)
            found = [self.peer(name, f"implicit {own}", "choice", part, own) for own in ALS]
            self.peer(name, "implicit, tuned", "test", data, self.best(name, found, ALS))
        else:
            self.warp(name, "lightfm, defaults", "test", data, {}, (EPOCHS,))
            part = validation(name, self.options.data)
            candidates = [{"no_components": width, "epochs": n} for width, steps in WARP.items() for n in steps]
            found = []
            for width, steps in WARP.items():
                found += self.warp(name, "lightfm", "choice", part, {"no_components": width}, steps)
            best = dict(self.best(name, found, candidates))
            self.warp(name, "lightfm, tuned", "test", data, best, (best.pop("epochs"),))

    def best(self, name, found, candidates):
        """The candidate whose record is best by the set's first metric."""
        return candidates[int(np.argmax([record[SETS[name].metrics[0]] for record in found]))]

    def ours(self, name, label, group, data, settings):
        """Fit an estimator of ours; the confidence of the settings is in units of the default one."""
        if "confidence" in settings:
            settings = settings | {"confidence": settings["confidence"] * default_confidence(data)}
        model = ImplicitMatrixFactorization(random_state=0, **settings)

        def measure():
            train = Interactions(data.user, data.item, num_users=data.shape[0], num_items=data.shape[1])
            start = time.process_time()
            model.fit(train)
            seconds = time.process_time() - start
            return metrics(data, *model.embeddings(), SETS[name].metrics) | {"seconds": seconds}

        return self.once(group, name, label, model.get_params(), measure)

    def peer(self, name, label, group, data, settings):
        """Fit implicit's ALS; settings are given in the units of ``ials``."""
        own = {}
        if settings:
            gain = settings["confidence"] * default_confidence(data)
            ridge = settings["alpha"] * 1.1 * np.sqrt(np.prod(data.shape, dtype=float))
            own = {"factors": WIDE, "alpha": 1 + gain, "regularization": float(ridge)}
        seeded = own | {"random_state": 0}
        return self.once(group, name, label, own, lambda: self.curve(name, "implicit", "als", data, seeded, (15,))[0])

    def warp(self, name, label, group, data, settings, steps):
        """Fit LightFM's WARP for some numbers of epochs."""
        fitted = []

        def measure(j):
            if not fitted:
                fitted.extend(self.curve(name, "lightfm", "warp", data, settings | {"random_state": 0}, steps))
            return fitted[j]

        labels = [label if group == "test" else f"{label} {settings} {n} epochs" for n in steps]
        return [
            self.once(group, name, each, settings | {"epochs": n}, lambda j=j: measure(j))
            for j, (each, n) in enumerate(zip(labels, steps, strict=True))
        ]

    def curve(self, name, system, model, data, settings, steps):
        """Have a peer's process fit; the records after some numbers of passes."""
        if system not in self.workers:
            python = install(system, self.options.envs, None)
            one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
            self.workers[system] = Worker(python, HERE / "systems" / f"{system}_ranking.py", one, self.folder / f"{system}.log")
        path = self.folder / "data.npz"
        data.save(path)
        known = self.workers[system].ask("load", path=str(path))
        self.results.setdefault("versions", {})[system] = known["version"]
        asked = {"model": model, "steps": list(steps), "settings": settings, "folder": str(self.folder)}
        found = []
        for point in self.workers[system].ask("curve", **asked)["points"]:
            with np.load(point["file"]) as rows:
                found.append(metrics(data, rows["users"], rows["items"], SETS[name].metrics) | {"seconds": point["cpu_seconds"]})
        return found


def validation(name, folder):
    """A part of the training positives held out: a tenth of each user's, or the last but one where the test is the last."""
    if name == "ncf":
        return Positives.ncf_validation(folder)
    data = SETS[name].load(folder)
    return replace(data, test_user=data.test_user[:0], test_item=data.test_item[:0]).hold_out(0.1, seed=1)


def default_confidence(data):
    """That of None: positives together weigh a tenth of what all pairs do, of the users and items that have any."""
    return 0.1 * len(np.unique(data.user)) * len(np.unique(data.item)) / len(data.user)


def metrics(data, users, items, names):
    """Means over users with test positives, by the inner products of rows; items without training positives are not ranked."""
    if data.negatives is not None:
        among = np.column_stack([data.negatives, data.test_item])
        ranked = rank_candidates(np.einsum("uk,uik->ui", users[data.test_user], items[among]), among)
        relevant = sp.csr_array((np.ones(len(among)), (np.arange(len(among)), data.test_item)), shape=(len(among), data.shape[1]))
    else:
        ones, rows = np.ones(len(data.test_user)), np.unique(data.test_user)
        relevant = sp.csr_array((ones, (data.test_user, data.test_item)), shape=data.shape)[rows]
        ranked = np.concatenate([best(data.matrix(), users, items, rows[a : a + 1000]) for a in range(0, len(rows), 1000)])
    measures = {"NDCG": ndcg, "recall": recall, "HR": hit_rate}
    values = {name: measures[name.split("@")[0]](ranked, relevant, k=int(name.split("@")[1])) for name in names}
    return {name: float(np.nanmean(value)) for name, value in values.items()}


def best(train, users, items, rows, k=20):
    """The k best items of some users, what they have left out."""
    scores = np.asarray(users[rows] @ items.T, dtype=np.float32)
    seen = train[rows].tocoo()
    scores[seen.row, seen.col] = -np.inf
    scores[:, train.sum(axis=0) == 0] = -np.inf
    return torch.from_numpy(scores).topk(k, dim=1).indices.numpy()


COLUMNS = (*LOSSES, "grid", "implicit, defaults", "implicit, tuned", "lightfm, defaults", "lightfm, tuned")


def table(results, metric):
    """A row of each set, a column of each system, Markdown; ``metric`` is the place among the set's metrics, or "seconds"."""
    columns = [label for label in COLUMNS if any(label in records for records in results["test"].values())]
    lines = [f"| | {' | '.join(columns)} |", "| --- " * (len(columns) + 1) + "|"]
    for name, kind in SETS.items():
        records = results["test"].get(name)
        if records:
            key = metric if metric == "seconds" else kind.metrics[metric]
            form = "{:.3g}" if metric == "seconds" else "{:.4f}"
            cells = [form.format(records[label][key]) if label in records else "" for label in columns]
            lines.append(f"| {kind.label}{'' if metric == 'seconds' else f', {key}'} | {' | '.join(cells)} |")
    return "\n".join(lines)


def page(results):
    """All tables, Markdown."""
    parts = ["# Losses of positives", "## Quality", table(results, 0), table(results, 1)]
    parts += ["## Processor seconds of a fit, one thread", table(results, "seconds"), "## Chosen on validation parts"]
    chosen = [
        f"| {SETS[name].label} | {label} | {json.dumps(own(label, records[label]['settings']))} |"
        for name, records in results["test"].items()
        for label in ("grid", "implicit, tuned", "lightfm, tuned")
        if label in records
    ]
    return "\n\n".join([*parts, "\n".join(["| set | system | settings |", "| --- | --- | --- |", *chosen])]) + "\n"


def own(label, settings):
    """What was searched of a record's settings."""
    return {key: settings[key] for key in ("n_factors", "alpha", "confidence")} if label == "grid" else settings


def main():
    systems = [*LOSSES, "grid", "implicit", "lightfm"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of the archives, see README.md")
    parser.add_argument("--envs", type=Path, help="the folder of the peers' environments; missing ones are made")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--sets", nargs="*", choices=list(SETS), default=list(SETS))
    parser.add_argument("--systems", nargs="*", choices=systems, default=systems, help="none: only the tables anew")
    parser.add_argument("--again", action="store_true", help="measure the test parts of these anew")
    options = parser.parse_args()
    options.threads = 1
    if options.envs is None and {"implicit", "lightfm"} & set(options.systems):
        parser.error("implicit and lightfm need --envs")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options, Path(folder))
        for system in options.systems:
            for name in options.sets:
                bench.run(name, system)
        for worker in bench.workers.values():
            worker.close()
    (options.out / "losses.md").write_text(page(bench.results))


if __name__ == "__main__":
    main()
