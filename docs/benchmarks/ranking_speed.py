"""Ranking, part speed: sk_torchmf, implicit, LightFM and cmfrec take turns on MovieLens-1M, one process each. Run by ranking.py."""

import tempfile
from pathlib import Path
from statistics import mean, median

import numpy as np
import scipy.sparse as sp
from catalogue import install
from holdout import Positives
from sklearn.model_selection import ParameterGrid
from worker import Worker

from sk_torchmf.metrics import ndcg

HERE = Path(__file__).parent
SYSTEMS = {"sk_torchmf": "ours_ranking", "implicit": "implicit_ranking", "lightfm": "lightfm_ranking", "cmfrec": "cmfrec_ranking"}
HELD_OUT = 0.1
K = 64  # factors, but where ALS is compared at several
ALS_WIDTHS = (64, 128)
PASSES = 10  # of ALS, for which settings are chosen, and at whose quality it is compared
MODEL = {"sk_torchmf": "ials", "implicit": "als", "cmfrec": "als"}
ALS_GRIDS = {
    "sk_torchmf": {"alpha": [0.004, 0.006, 0.008, 0.012], "confidence": [0.5, 1.0, 2.0, 4.0]},
    "implicit": {"regularization": [10.0, 20.0, 30.0, 50.0], "alpha": [1.5, 2.0, 3.0, 5.0]},  # alpha is a positive's whole weight
    "cmfrec": {"lambda_": [10.0, 20.0, 30.0, 50.0], "alpha": [0.5, 1.0, 2.0, 4.0]},
}
ALS_STEPS = {
    "sk_torchmf": (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15),
    "implicit": (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15),
    "cmfrec": (2, 3, 5, 10),
}
CONVERGED = {"sk_torchmf": 400, "implicit": 200}  # passes after which the objective is taken for its optimum
PAIRWISE = {  # label: system, model, grid, passes
    "ours, 1 negative": ("sk_torchmf", "bpr", {"n_negatives": [1], "alpha": [0.003, 0.006, 0.012]}, (4, 8, 12, 16, 24, 32, 40)),
    "ours, 4 negatives": ("sk_torchmf", "bpr", {"n_negatives": [4], "alpha": [0.003, 0.006, 0.012]}, (4, 8, 12, 16, 24, 32, 40)),
    "implicit BPR": ("implicit", "bpr", {"learning_rate": [0.01, 0.05]}, (2, 5, 10, 15, 20, 30, 40, 50, 60, 80, 100)),
    "LightFM WARP": ("lightfm", "warp", {"learning_rate": [0.03, 0.05]}, (1, 2, 3, 4, 6, 8, 10, 12, 15, 20, 25, 30)),
}
WIDTH = {"sk_torchmf": "n_factors", "implicit": "factors", "lightfm": "no_components", "cmfrec": "k"}
FRACTIONS = (0.8, 0.9, 0.95, 0.98, 1.0)  # of the best NDCG@10 of a peer
LISTS = ["precision", "recall", "ndcg", "average_precision"]
METRICS = {"four metrics": LISTS, "five, with auc of the full ranking": [*LISTS, "auc"]}
KS = [5, 10, 20]
TARGETS = {"recommend": 1.5, "metrics": 1.0}


class Speed:
    """Measures the peers and ours in turns.

    Parameters
    ----------
    ranking : Ranking
        Keeps the records; its ``once`` runs what is not kept yet.
    """

    def __init__(self, ranking):
        self.options, self.ranking = ranking.options, ranking
        self.rounds = 2 if self.options.quick else self.options.rounds
        whole = Positives.ml1m(self.options.data)
        self.data = {"whole": whole, "validation": whole.hold_out(HELD_OUT)}
        self.workers, self.loaded = {}, {}

    def run(self):
        with tempfile.TemporaryDirectory() as folder:
            self.folder = Path(folder)
            for name, data in self.data.items():
                data.save(self.folder / f"{name}.npz")
            for experiment in (self.recommend, self.metrics, self.als, self.pairwise):
                print(f"-- speed: {experiment.__name__}", flush=True)
                try:
                    experiment()
                except (RuntimeError, OSError) as error:  # the other experiments may do without the system that failed
                    print(f"speed: {experiment.__name__}: failed: {error}", flush=True)
                finally:
                    self.close()

    # the systems

    def close(self):
        """End the systems' processes."""
        for worker in self.workers.values():
            worker.close()
        self.workers, self.loaded = {}, {}

    def worker(self, system, data):
        """The system's process, with the data in its memory."""
        if system not in self.workers:
            threads = str(self.options.threads)
            env = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads)
            if system == "implicit":
                env |= {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # as it asks for: its own threads call BLAS
            python = install(system, self.options.envs, None)
            adapter = HERE / "systems" / f"{SYSTEMS[system]}.py"
            self.workers[system] = Worker(python, adapter, env, self.folder / f"{system}.log")
        worker = self.workers[system]
        if self.loaded.get(system) != data:
            known = worker.ask("load", path=str(self.folder / f"{data}.npz"))
            self.ranking.update("versions", system, known["version"])
            model = next(name for kind, name, *_ in PAIRWISE.values() if kind == system) if system != "cmfrec" else "als"
            worker.ask("curve", model=model, steps=[1], settings={WIDTH[system]: 8}, folder=str(self.folder))  # warm-up
            self.loaded[system] = data
        return worker

    def curve(self, label, system, model, steps, settings, data="validation", objective=None):
        """A record of seconds and NDCG@10 after each number of passes; ``objective`` adds its value."""
        if self.options.quick:
            steps = sorted(steps)[:2]

        def measure():
            asked = {"model": model, "steps": sorted(steps), "settings": settings, "folder": str(self.folder)}
            answer = self.worker(system, data).ask("curve", **asked)
            for point in answer["points"]:
                with np.load(point.pop("file")) as factors:
                    users, items = factors["users"], factors["items"]
                if data == "validation":
                    point["ndcg"] = quality(self.data[data], users, items)
                if objective is not None:
                    point["objective"] = objective(self.data[data], users, items, settings)
            last = answer["points"][-1]
            return answer | {name: float(last[name]) for name in ("seconds", "ndcg", "objective") if name in last}

        return self.ranking.once("speed", label, settings | {"steps": sorted(steps)}, measure)

    def choose(self, title, system, model, grid, steps, fixed):
        """The settings of the grid with the best NDCG@10 after any of these passes, of one run each."""
        found = []
        for own in list(ParameterGrid(grid))[: 2 if self.options.quick else None]:
            settings = fixed | own | {"random_state": 0}
            label = f"{title}, {system}, " + ", ".join(f"{name}={value}" for name, value in own.items())
            record = self.curve(label, system, model, steps, settings)
            found.append((max(point["ndcg"] for point in record["points"]), settings))
        best = max(found, key=lambda pair: pair[0])[1]
        print(f"{title}, {system}: chosen {best}", flush=True)
        return best

    # the experiments

    def als(self):
        """Seconds to equal NDCG@10, and to within the same distance of the own optimum as implicit is after its passes."""
        summary = {}
        for k in ALS_WIDTHS[:1] if self.options.quick else ALS_WIDTHS:
            chosen, within = {}, {}
            for system, grid in ALS_GRIDS.items():
                fixed = {WIDTH[system]: k} | ({"biased": False} if system == "sk_torchmf" else {})
                chosen[system] = self.choose(f"tune ALS, k={k}", system, MODEL[system], grid, [PASSES], fixed)
            for system, n in CONVERGED.items():
                n = min(n, 15) if self.options.quick else n
                steps = [*ALS_STEPS[system], n] if system == "implicit" else [n]
                label = f"converge ALS, k={k}, {system}"
                objective = ridge_objective if system == "implicit" else None
                within[system] = self.curve(label, system, MODEL[system], steps, chosen[system], objective=objective)
            distance, passes = distances(within["implicit"], within["sk_torchmf"])
            runs, others = {}, []
            for turn in range(self.rounds):
                for system in chosen:
                    steps = {*ALS_STEPS[system], passes} if system == "sk_torchmf" else ALS_STEPS[system]
                    label = f"ALS, k={k}, {system}, round {turn}"
                    settings = chosen[system] | {"random_state": turn}
                    record = self.curve(label, system, MODEL[system], steps, settings)
                    runs.setdefault(system, []).append(record["points"])
                    others.append(record["others"])
            curves = {system: average(points) for system, points in runs.items()}
            at = curves["implicit"].get(PASSES) or list(curves["implicit"].values())[-1]
            ours = curves["sk_torchmf"].get(passes) or list(curves["sk_torchmf"].values())[-1]
            aim = min(at["ndcg"], max(point["ndcg"] for point in curves["sk_torchmf"].values()))
            summary[f"k={k}"] = {
                "settings": chosen,
                "ndcg aimed at": aim,
                "ndcg of implicit": at["ndcg"],
                "seconds to it": {system: first(points, aim) for system, points in curves.items()},
                "best ndcg": {system: max(point["ndcg"] for point in points.values()) for system, points in curves.items()},
                "distance to the optimum": distance,
                "passes to it": {"implicit": PASSES, "sk_torchmf": passes},
                "seconds within it": {"implicit": at["seconds"], "sk_torchmf": ours["seconds"]},
                "cores others kept busy": mean(others),
            }
        self.keep("als", summary)

    def pairwise(self):
        """Seconds to the NDCG@10 of the better of implicit's BPR and LightFM's WARP, ours with bpr."""
        chosen, others, runs = {}, [], {label: [] for label in PAIRWISE}
        for label, (system, model, grid, steps) in PAIRWISE.items():
            fixed = {WIDTH[system]: K}
            chosen[label] = self.choose(f"tune pairwise, {label}", system, model, grid, steps, fixed)
        for turn in range(self.rounds):
            for label, (system, model, _, steps) in PAIRWISE.items():
                settings = chosen[label] | {"random_state": turn}
                record = self.curve(f"pairwise, {label}, round {turn}", system, model, steps, settings)
                runs[label].append(record["points"])
                others.append(record["others"])
        curves = {label: average(points) for label, points in runs.items()}
        best = {label: max(point["ndcg"] for point in points.values()) for label, points in curves.items()}
        aim = max(best["implicit BPR"], best["LightFM WARP"])
        aims = [share * aim for share in FRACTIONS]
        table = {f"{one:.4f}": {label: first(points, one) for label, points in curves.items()} for one in aims}
        found = {"settings": chosen, "best ndcg": best, "ndcg aimed at": aim, "seconds to it": table}
        self.keep("pairwise", found | {"cores others kept busy": mean(others)})

    def recommend(self):
        """Lists of ten for all users, what they have left out; 64 factors."""
        found = self.turns("recommend", "whole", {system: {"lists": {"k": 10}} for system in ("sk_torchmf", "implicit")})
        self.keep("recommend", found)

    def metrics(self):
        """Metrics at three lengths for all users; implicit's function has its four, one length a call."""
        jobs = {
            "sk_torchmf": {name: {"ks": KS, "metrics_asked": asked} for name, asked in METRICS.items()},
            "implicit": {"its four": {"ks": KS}},
        }
        self.keep("metrics", self.turns("evaluate", "validation", jobs))

    def turns(self, job, data, variants):
        """Median seconds of a job of fitted ALS models, systems taking turns; ``{"system, variant": seconds}``."""
        fitted, seconds, others = {}, {}, []
        for turn in range(self.rounds):
            for system, kinds in variants.items():

                def run(variant, system=system):
                    worker = self.worker(system, data)
                    if fitted.get(system) != data:
                        settings = {WIDTH[system]: K, "random_state": 0} | ({"biased": False} if system == "sk_torchmf" else {})
                        worker.ask("curve", model=MODEL[system], steps=[PASSES], settings=settings, folder=str(self.folder))
                        worker.ask(job, **variant)  # warm-up
                        fitted[system] = data
                    return worker.ask(job, **variant)

                for name, variant in kinds.items():
                    label = f"{job}, {system}, {name}, round {turn}"
                    record = self.ranking.once("speed", label, variant, run, variant)
                    seconds.setdefault(f"{system}, {name}", []).append(record["seconds"])
                    others.append(record["others"])
        return {"seconds": {name: median(values) for name, values in seconds.items()}, "cores others kept busy": mean(others)}

    def keep(self, name, summary):
        """Write an experiment's summary, made anew from the records."""
        self.ranking.update("parts", "speed", f"summary, {name}", None)
        self.ranking.once("speed", f"summary, {name}", {}, lambda: {"summary": summary})


def quality(data, users, items, k=10, block=1000):
    """NDCG@10 of the held-out items among those the user has not; of vectors, so that all systems are measured alike."""
    train, ranked = data.matrix(), []
    for start in range(0, len(users), block):
        scores = users[start : start + block] @ items.T  # (b, n_items)
        scores[train[start : start + block].nonzero()] = -np.inf
        best = np.argpartition(-scores, k, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1)
        ranked.append(np.take_along_axis(best, order, axis=1))
    ones = np.ones(len(data.test_user), dtype=bool)
    relevant = sp.csr_array((ones, (data.test_user, data.test_item)), shape=data.shape)
    return float(np.nanmean(ndcg(np.concatenate(ranked), relevant, k)))


def ridge_objective(data, users, items, settings):
    """What implicit minimises: alpha (1 - s)^2 over the positives, s^2 over the rest, and a ridge that is the same for all rows."""
    users, items = users.astype(np.float64), items.astype(np.float64)
    scores = np.concatenate(
        [(users[part] * items[data.item[at]]).sum(1) for at, part in ((at, data.user[at]) for at in parts(len(data.user)))]
    )
    everywhere = ((users.T @ users) * (items.T @ items)).sum()
    observed = (settings["alpha"] * (1 - scores) ** 2 - scores**2).sum()
    return float(everywhere + observed + settings["regularization"] * ((users**2).sum() + (items**2).sum()))


def parts(n, size=100_000):
    return [slice(start, start + size) for start in range(0, n, size)]


def distances(peer, own):
    """How far above its optimum the peer is after its passes, and after how many passes we are no further from ours."""
    values = {point["step"]: point["objective"] for point in peer["points"]}
    optimum = min(values.values())
    distance = (values.get(PASSES, max(values.values())) - optimum) / optimum
    loss = np.asarray(own["loss"])
    return distance, int(np.argmax(loss <= loss.min() * (1 + distance))) + 1


def average(runs):
    """``{passes: seconds and NDCG@10}``: the median and the mean over runs."""
    steps = [point["step"] for point in runs[0]]
    return {
        step: {"seconds": median(run[j]["seconds"] for run in runs), "ndcg": mean(run[j]["ndcg"] for run in runs)}
        for j, step in enumerate(steps)
    }


def first(points, aim):
    """Least seconds of the numbers of passes that reach an NDCG@10; None where none does."""
    return min((point["seconds"] for point in points.values() if point["ndcg"] >= aim), default=None)


def ratio(peer, own):
    return "" if peer is None or own is None else f"{peer / own:.1f}"


def shown(seconds):
    return "not reached" if seconds is None else f"{seconds:.3f}"


def speed_tables(records):
    """The summaries, Markdown."""
    lines = [""]
    found = {name: records.get(f"summary, {name}", {}).get("summary") for name in ("als", "pairwise", "recommend", "metrics")}
    if found["als"]:
        lines += [
            "| ALS | sk_torchmf (s) | implicit (s) | cmfrec (s) | implicit / ours (target 2) |",
            "| --- | --- | --- | --- | --- |",
        ]
        for k, one in found["als"].items():
            for what, key in (
                (f"NDCG@10 of {one['ndcg aimed at']:.4f}", "seconds to it"),
                (f"within {one['distance to the optimum']:.2e} of its optimum", "seconds within it"),
            ):
                own, peer, other = (one[key].get(system) for system in ("sk_torchmf", "implicit", "cmfrec"))
                other = shown(other) if "cmfrec" in one[key] else ""
                lines.append(f"| {k}, {what} | {shown(own)} | {shown(peer)} | {other} | {ratio(peer, own)} |")
            best = " | ".join(f"{one['best ndcg'].get(system, 0):.4f}" for system in ("sk_torchmf", "implicit", "cmfrec"))
            lines.append(f"| {k}, best NDCG@10 | {best} | |")
    if found["pairwise"]:
        labels = list(found["pairwise"]["best ndcg"])
        lines += ["", f"| seconds to NDCG@10 | {' | '.join(labels)} |", "| --- " * (len(labels) + 1) + "|"]
        for aim, row in found["pairwise"]["seconds to it"].items():
            lines.append(f"| {aim} | {' | '.join(shown(row[label]) for label in labels)} |")
        lines.append(f"| best | {' | '.join(f'{value:.4f}' for value in found['pairwise']['best ndcg'].values())} |")
    for name in ("recommend", "metrics"):
        if found[name]:
            seconds = found[name]["seconds"]
            peer = next(value for label, value in seconds.items() if label.startswith("implicit"))
            lines += ["", f"| {name} | seconds | implicit / it (target {TARGETS[name]}) |", "| --- | --- | --- |"]
            lines += [f"| {label} | {value:.3f} | {ratio(peer, value)} |" for label, value in seconds.items()]
    busy = [one.get("cores others kept busy") for name, one in found.items() if one and name != "als"]
    busy += [one["cores others kept busy"] for one in (found["als"] or {}).values()]
    if busy:
        lines += ["", f"Cores that other processes kept busy meanwhile, on average: at most {max(busy):.2f}."]
    return "\n".join(lines)
