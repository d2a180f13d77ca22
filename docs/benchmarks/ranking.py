"""Ranking from positives: published numbers met or not, and speed beside implicit and LightFM; see README.md, Ranking.

Run ``python docs/benchmarks/ranking.py --data FOLDER --envs ENVS [--part NAME ...] [--tune] [--quick]``.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from statistics import mean

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "systems"))

import numpy as np  # noqa: E402
import scipy.sparse as sp  # noqa: E402
import torch  # noqa: E402
from holdout import Positives, rank_candidates  # noqa: E402
from peers import machine  # noqa: E402
from ranking_speed import Speed, speed_tables  # noqa: E402
from sklearn.model_selection import ParameterGrid  # noqa: E402

from sk_torchmf import ImplicitMatrixFactorization, Interactions  # noqa: E402
from sk_torchmf.metrics import evaluate, hit_rate, ndcg  # noqa: E402

FOLDS = ("u1", "u2", "u3", "u4", "u5")
SEEDS = (0, 1, 2)
WIDTHS = {"ncf": 192, "gowalla": 64}  # of all parameters of an item, its bias among them; ml100k has the width it is given

# Chosen by --tune on validation parts of the training data; "auto" by the estimator itself, on a part that it holds out.
SETTINGS = {
    "ncf": {
        "ials": {"alpha": "auto", "confidence": "auto"},
        "logistic": {"alpha": 0.03, "n_negatives": 16, "max_iter": 20},
        "bpr": {},
        "hinge": {},
        "adaptive_hinge": {},
        "softmax": {},
    },
    "ml100k": {
        "ials": {"n_factors": 24, "alpha": 0.02, "confidence": 4.0, "max_iter": 15},
        "bpr": {"n_factors": 96, "alpha": 0.007, "n_negatives": 8, "max_iter": 40},
        "logistic": {},
        "hinge": {},
        "adaptive_hinge": {},
        "softmax": {},
    },
    "gowalla": {
        "ials": {"alpha": 0.001, "confidence": 100.0, "max_iter": 15},
        "bpr": {"alpha": 0.003, "n_negatives": 4, "max_iter": 160},
        "logistic": {"exact": True},
        "cosine": {},
    },
}
# What --tune searches, a list of grids for each loss.
GRIDS = {
    "ncf": {
        "logistic": [{"alpha": [0.03, 0.04, 0.06], "n_negatives": [16, 32], "max_iter": [20, 30]}],
        "bpr": [{"alpha": [0.003, 0.006], "n_negatives": [4], "max_iter": [40]}],
        "hinge": [{"alpha": [0.005, 0.01], "n_negatives": [4], "max_iter": [40]}],
        "adaptive_hinge": [{"alpha": [0.01, 0.02], "n_negatives": [4], "max_iter": [40]}],
        "softmax": [{"alpha": [0.05, 0.1], "max_iter": [25]}],
    },
    "ml100k": {
        "ials": [{"n_factors": [12, 16, 24, 48], "alpha": [0.01, 0.02, 0.03], "confidence": [2.0, 4.0, 8.0], "max_iter": [15]}],
        "bpr": [{"n_factors": [24, 48, 96], "alpha": [0.007, 0.01, 0.014], "n_negatives": [2, 4, 8], "max_iter": [40]}],
        "logistic": [{"n_factors": [16, 32], "alpha": [0.01, 0.02, 0.04], "n_negatives": [4], "max_iter": [25]}],
        "hinge": [{"n_factors": [16, 32], "alpha": [0.01, 0.02], "n_negatives": [4], "max_iter": [40]}],
        "adaptive_hinge": [{"n_factors": [16, 32], "alpha": [0.02, 0.04], "n_negatives": [4], "max_iter": [40]}],
        "softmax": [{"n_factors": [16, 32], "alpha": [0.05, 0.1, 0.2], "max_iter": [25]}],
    },
    "gowalla": {
        "ials": [{"alpha": [0.0005, 0.001, 0.002, 0.005], "confidence": [30.0, 100.0, 300.0], "max_iter": [15]}],
        "bpr": [{"alpha": [0.002, 0.003, 0.005], "n_negatives": [4], "max_iter": [40, 80, 160]}],
        "logistic": [{"alpha": [0.01, 0.02], "n_negatives": [4, 16], "max_iter": [25], "exact": [True]}],
        "cosine": [{"temperature": [0.08, 0.1, 0.125]}],
    },
}
ASKED = {  # by --tune, unless --losses says otherwise
    "ncf": ("logistic",),
    "ml100k": ("ials", "bpr"),
    "gowalla": ("ials", "bpr", "cosine"),
}
TARGETS = {  # what is aimed at, and what was published
    ("evaluator", "popularity, ties against the positive"): {"HR@10": (0.4531, 0.4531), "NDCG@10": (0.2542, 0.2542)},
    ("ncf", "ials"): {"HR@10": (0.731, 0.7310), "NDCG@10": (0.454, 0.4521)},
    ("ncf", "logistic"): {"HR@10": (0.722, 0.7294), "NDCG@10": (0.443, 0.4523)},
    ("ml100k", "ials"): {"AUC": (0.93, 0.936), "P@10": (0.345, 0.353)},
    ("ml100k", "bpr"): {"AUC": (0.925, 0.932), "P@10": (0.30, 0.309)},
    ("gowalla", "bpr"): {"recall@20": (0.163, 0.1627)},
    ("gowalla", "best"): {"recall@20": (0.192, 0.1872)},  # SimpleX
}
SAME = 5e-4  # the published figures do not say how they break ties
PRIMARY = {"ncf": ("NDCG@10",), "ml100k": ("AUC", "P@10"), "gowalla": ("recall@20",)}  # whose sum --tune maximises


class Ranking:
    """Runs the parts, and keeps each record as soon as it is there: what is already kept is not run again.

    Parameters
    ----------
    options : Namespace
        The command line.
    """

    def __init__(self, options):
        self.options = options
        self.path = options.out / ("ranking_quick.json" if options.quick else "ranking.json")
        self.results = {}
        self.update("machine", machine(options))

    def update(self, *keys_and_value):
        """Set (or, for None, drop) a value of the file, by its keys; what another run has written meanwhile stays."""
        *keys, last, value = keys_and_value
        self.results = json.loads(self.path.read_text()) if self.path.exists() else {"parts": {}, "tune": {}}
        place = self.results
        for key in keys:
            place = place.setdefault(key, {})
        place.pop(last, None)
        if value is not None:
            place[last] = value
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps(self.results, indent=1) + "\n")
        fresh.replace(self.path)

    def once(self, part, label, settings, measure, *arguments, group="parts"):
        """The record of this label and these settings: the one kept, or what ``measure`` answers to the arguments."""
        record = self.results[group].get(part, {}).get(label, {})
        if record.get("settings") != settings:
            start = time.perf_counter()
            found = measure(*arguments)
            record = {"settings": settings, "took": round(time.perf_counter() - start, 2)} | found
            self.update(group, part, label, record)
        figures = " ".join(f"{name}={value:.4f}" for name, value in record.items() if isinstance(value, float))
        print(f"{part}: {label}: {figures}", flush=True)
        return record

    def losses(self, part):
        """The losses asked for."""
        return [loss for loss in SETTINGS[part] if self.options.losses is None or loss in self.options.losses]

    # the parts

    def evaluator(self):
        """The most popular items, by the protocol of He et al."""
        data = Positives.ncf(self.options.data)
        popularity = np.bincount(data.item, minlength=data.shape[1])
        for how, by_item in (("ties against the positive", False), ("ties by item order", True)):
            self.once("evaluator", f"popularity, {how}", {}, candidates, data, popularity.take, by_item)

    def ncf(self):
        """Leave one out, 99 negatives, d = 192."""
        data = Positives.ncf(self.options.data)
        for loss in self.losses("ncf"):
            for seed in SEEDS[:1] if self.options.quick else SEEDS:
                settings = self.settings("ncf", loss) | {"random_state": seed}
                self.once("ncf", f"{loss}, seed {seed}", settings, measure_ncf, data, settings)

    def ml100k(self):
        """Official folds of MovieLens-100K, all ratings positive."""
        for loss in self.losses("ml100k"):
            for fold in FOLDS[:1] if self.options.quick else FOLDS:
                settings, data = self.settings("ml100k", loss) | {"random_state": 0}, Positives.ml100k(self.options.data, fold)
                self.once("ml100k", f"{loss}, {fold}", settings, measure_ml100k, data, settings)

    def gowalla(self):
        """Gowalla, all items ranked, d = 64."""
        data = Positives.gowalla(self.options.data)
        for loss in self.losses("gowalla"):
            for seed in SEEDS if loss == "cosine" and not self.options.quick else SEEDS[:1]:
                settings = self.settings("gowalla", loss) | {"random_state": seed}
                self.once("gowalla", f"{loss}, seed {seed}", settings, measure_gowalla, data, settings)

    def speed(self):
        """Seconds beside the peers'."""
        Speed(self).run()

    def settings(self, part, loss, own=None):
        """Arguments of the estimator; ``own`` in place of the chosen ones."""
        chosen = {"loss": loss} | (SETTINGS[part][loss] if own is None else own)
        if part in WIDTHS:
            chosen["n_factors"] = WIDTHS[part] - (loss == "cosine")  # which has biases
        return chosen | ({"max_iter": 3} if self.options.quick else {})

    def tune(self, part):
        """Try the grids on a validation part of the training data; print the best of each loss."""
        if part not in GRIDS:
            return
        data, measure = validation(part, self.options.data)
        for loss in self.options.losses or ASKED[part]:
            found = []
            for candidate in ParameterGrid(self.options.grid or GRIDS[part][loss]):
                settings = self.settings(part, loss, candidate) | {"random_state": 0}
                label = ", ".join([loss, *(f"{name}={value}" for name, value in candidate.items())])
                record = self.once(part, label, settings, measure, data, settings, group="tune")
                found.append((sum(record[name] for name in PRIMARY[part]), label))
            print(f"{part}: best on validation: {max(found)[1]}", flush=True)


def candidates(data, score, by_item=False):
    """HR@10 and NDCG@10 of the test items among their negatives; ``score`` takes and gives an array (n, m + 1)."""
    items = np.column_stack([data.negatives, data.test_item])
    ranked = rank_candidates(score(items), items, by_item=by_item)
    rows = np.arange(len(items))
    relevant = sp.csr_array((np.ones(len(rows)), (rows, data.test_item)), shape=(len(rows), data.shape[1]))
    return {"HR@10": float(hit_rate(ranked, relevant).mean()), "NDCG@10": float(ndcg(ranked, relevant).mean())}


def fit(data, settings):
    """A model fitted to all users and items of the data, and its seconds."""
    train = Interactions(data.user, data.item, num_users=data.shape[0], num_items=data.shape[1])
    start = time.perf_counter()
    model = ImplicitMatrixFactorization(**settings).fit(train)
    return model, {"seconds": time.perf_counter() - start, "n_iter": model.n_iter_}


def measure_ncf(data, settings):
    model, answer = fit(data, settings)
    return candidates(data, lambda items: model.predict(data.test_user[:, None], items)) | answer


def measure_gowalla(data, settings):
    model, answer = fit(data, settings)
    test = Interactions(data.test_user, data.test_item, num_users=data.shape[0], num_items=data.shape[1])
    found = evaluate(model, test, ["recall", "ndcg"], k=20)
    return {"recall@20": found["recall"][20], "NDCG@20": found["ndcg"][20]} | answer


def measure_ml100k(data, settings):
    """AUC and P@10 among the items of the training part: fitted to a table, so that the model knows no others."""
    start = time.perf_counter()
    model = ImplicitMatrixFactorization(**settings).fit(np.column_stack([data.user, data.item]))
    seconds = time.perf_counter() - start
    found = evaluate(model, np.column_stack([data.test_user, data.test_item]), ["auc", "precision"], k=10)
    return {"AUC": found["auc"][10], "P@10": found["precision"][10], "seconds": seconds, "n_iter": model.n_iter_}


def validation(part, folder):
    """A part of the training data held out, and how it is measured."""
    if part == "ncf":
        return Positives.ncf_validation(folder), measure_ncf
    if part == "ml100k":
        return Positives.ml100k(folder, "u1").hold_out(0.2), measure_ml100k
    return Positives.gowalla(folder).hold_out(0.1), measure_gowalla


def quality_table(parts):
    """What was measured beside what was aimed at, Markdown."""
    lines = ["| part | what | metric | measured | target | | published | seconds |", "| --- " * 8 + "|"]
    for part in ("evaluator", "ncf", "ml100k", "gowalla"):
        groups = {}
        for label, record in parts.get(part, {}).items():
            groups.setdefault(label if part == "evaluator" else label.split(",")[0], []).append(record)
        if part == "gowalla" and groups:
            best = max(groups, key=lambda loss: mean(record["recall@20"] for record in groups[loss]))
            groups["best"] = groups[best]
        for name, records in groups.items():
            seconds = f"{mean(record['seconds'] for record in records):.1f}" if "seconds" in records[0] else ""
            for metric in (key for key in records[0] if "@" in key or key == "AUC"):
                value = mean(record[metric] for record in records)
                target, published = TARGETS.get((part, name), {}).get(metric, (None, None))
                reached = value >= (target or 0) if part != "evaluator" else abs(value - (target or 0)) < SAME
                met = "" if target is None else "met" if reached else "**missed**"
                cells = [part, name, metric, f"{value:.4f}", target or "", met, published or "", seconds]
                lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


PARTS = ("evaluator", "ncf", "ml100k", "gowalla", "speed")


def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with ncf_ml1m, ml100k_folds, gowalla_lightgcn, ml1m .npz")
    parser.add_argument("--envs", type=Path, help="folder for the peers' environments; needed by the part speed")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--losses", nargs="+", help="these only")
    parser.add_argument("--tune", action="store_true", help="search settings on validation parts instead; prints the best")
    parser.add_argument("--grid", type=json.loads, help="a grid for --tune in JSON, in place of the one in this file")
    parser.add_argument("--again", action="store_true", help="measure anew what these parts have measured before")
    parser.add_argument("--quick", action="store_true", help="three iterations, one seed, one fold: does it run")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5, help="of the part speed")
    options = parser.parse_args(arguments)
    if "speed" in options.part and not options.tune and options.envs is None:
        parser.error("the part speed needs --envs")
    return options


def main():
    options = parse()
    torch.set_num_threads(options.threads)
    bench = Ranking(options)
    for part in options.part:
        if options.again:
            bench.update("tune" if options.tune else "parts", part, None)
        if options.tune:
            bench.tune(part)
        else:
            getattr(bench, part)()
    if not options.tune:
        print(quality_table(bench.results["parts"]))
        print(speed_tables(bench.results["parts"].get("speed", {})))


if __name__ == "__main__":
    main()
