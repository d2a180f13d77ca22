"""Compares sk_torchmf with other matrix factorizations on the same splits and threads: ``nox -s bench``, see README.md."""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "systems"))

import plots  # noqa: E402
from catalogue import SYSTEMS, install, last_line  # noqa: E402
from sklearn.model_selection import ParameterGrid  # noqa: E402
from splits import PLANTED, Splits  # noqa: E402

N_SPLITS = 3
WIDTHS = (16, 32, 64, 128)
FEW_PASSES = {"sk_torchmf": 10, "cmfrec": 5, "cornac": 5, "libmf": 10, "implicit": 5, "lightfm": 2}  # for ratings a second; else 1
LARGEST = {
    "surprise": 1_000_000,
    "lenskit": 5_000_000,
    "cornac": 5_000_000,
    "myfm": 0,
    "skorch": 0,
    "spotlight": 0,
    "libmf": 0,
    "lightfm": 0,
}
SEARCH = {
    "sk_torchmf": {"n_factors": [8, 16, 32, 64], "max_iter": [5, 10, 20]},
    "surprise": {"n_epochs": [10, 20], "lr_all": [0.005, 0.01], "reg_all": [0.02, 0.05, 0.1]},
}


class Bench:
    """Runs systems, each in its own process, and keeps what they answer.

    Parameters
    ----------
    options : Namespace
        The command line.
    """

    def __init__(self, options):
        self.options = options
        self.splits = Splits(options.data, options.envs / "splits")
        self.tuned = json.loads((HERE / "tuned.json").read_text()) if (HERE / "tuned.json").exists() else {}
        self.path = options.out / ("quick.json" if options.quick else "peers.json")
        self.results = json.loads(self.path.read_text()) if self.path.exists() else {"records": [], "failed": {}}
        self.results["machine"] = machine(options)
        self.pythons, paths = {}, {"libmf": options.libmf, "spotlight": options.spotlight}
        for name in options.systems:
            if paths.get(name, True) is None:
                self.results["failed"][name] = f"not asked for: give --{name} PATH"
                continue
            try:
                self.pythons[name] = install(name, options.envs, options.torch)
                self.results["failed"].pop(name, None)
            except (RuntimeError, OSError) as error:
                self.results["failed"][name] = f"not installed: {error}"

    def run(self, name, jobs, **labels):
        """Run one system's jobs in one process; keep the answers with their labels."""
        threads, system = str(self.options.threads), SYSTEMS[name]
        env = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads)
        env |= {"LIBMF": str(self.options.libmf), "PYTHONPATH": str(self.options.spotlight) if name == "spotlight" else ""}
        with tempfile.TemporaryDirectory() as folder:
            jobs_file, answers = Path(folder, "jobs.json"), Path(folder, "answers.json")
            jobs_file.write_text(json.dumps(jobs))
            command = [self.pythons[name], HERE / "systems" / f"{system.adapter}.py", jobs_file, answers]
            try:
                done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=self.options.limit)
                reason = last_line(done.stderr) if done.returncode else None
            except subprocess.TimeoutExpired:
                reason = f"not done after {self.options.limit} s"
            found = json.loads(answers.read_text()) if answers.exists() else []
        what = f"{name}, {labels['experiment']}"
        self.results["failed"].pop(what, None)
        if reason:
            self.results["failed"][what] = reason
        for answer in found:
            answer["split"] = Path(answer["split"]).stem
            self.results["records"].append({"system": name} | labels | answer)
            print(name, answer.get("label", ""), answer["split"], show(answer), flush=True)
        self.save()
        return found

    def forget(self, experiment):
        """Drop these systems' earlier records of an experiment: it is about to run again."""
        again = {(experiment, name) for name in self.pythons}
        records = self.results["records"]
        self.results["records"] = [record for record in records if (record["experiment"], record["system"]) not in again]

    def save(self):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.results, indent=1))

    def rating_systems(self):
        return [name for name in self.pythons if not SYSTEMS[name].ranking]

    def settings(self, name, dataset):
        """The tuned settings; before tuning the middle of the grid."""
        system = SYSTEMS[name]
        candidates = list(ParameterGrid(system.grid))
        tuned = self.tuned.get(dataset, {}).get(name) or self.tuned.get("ml100k", {}).get(name)
        return system.start | (tuned or candidates[len(candidates) // 2])

    # experiments

    def tune(self):
        """Choose each peer's settings on a validation part of the training ratings; slow ones on the small data only."""
        for dataset in self.options.datasets:
            split = self.splits.validation(dataset)
            for name in self.rating_systems():
                system = SYSTEMS[name]
                if not system.grid or (system.slow and dataset != "ml100k"):
                    continue
                candidates = list(ParameterGrid(system.grid))
                jobs = [{"split": split, "settings": system.start | candidate, "untimed": True} for candidate in candidates]
                found = self.run(name, jobs, experiment="tune")
                if found:
                    best = min(range(len(found)), key=lambda j: found[j]["rmse"])
                    self.tuned.setdefault(dataset, {})[name] = candidates[best]
                    (HERE / "tuned.json").write_text(json.dumps(self.tuned, indent=1) + "\n")

    def compare(self):
        """Time and RMSE on random splits, the systems taking turns."""
        for number in range(self.options.rounds):
            for name in self.rating_systems():
                if SYSTEMS[name].slow and number >= (1 if self.options.quick else N_SPLITS):
                    continue
                jobs = []
                for dataset in self.options.datasets:
                    variants = dict(SYSTEMS[name].asked)
                    if SYSTEMS[name].grid and not (self.options.quick and SYSTEMS[name].slow):
                        chosen = any(name in systems for systems in self.tuned.values())
                        variants["tuned" if chosen else "middle of the grid"] = self.settings(name, dataset)
                    if SYSTEMS[name].slow and dataset != "ml100k" and number and "defaults" not in variants:
                        continue  # minutes an epoch
                    split = self.splits.random(dataset, number % N_SPLITS)
                    jobs += [{"split": split, "settings": own, "label": label} for label, own in variants.items()]
                if jobs:
                    self.run(name, jobs, experiment="compare", round=number)

    def folds(self):
        """Our RMSE on MovieLens-100K's official folds."""
        paths, asked = self.splits.official(), SYSTEMS["sk_torchmf"].asked
        jobs = [{"split": path, "settings": own, "label": label} for path in paths for label, own in asked.items()]
        if jobs and "sk_torchmf" in self.pythons:
            self.run("sk_torchmf", jobs, experiment="folds")

    def passes(self):
        """Time against RMSE for several numbers of passes; the most first, since a process's first fit pays for its memory."""
        for number in range(max(1, self.options.rounds // 3)):
            for name in self.rating_systems():
                system, dataset = SYSTEMS[name], self.options.datasets[-1]
                if system.slow and number:
                    continue
                split, own = self.splits.random(dataset, 0), self.settings(name, dataset)
                jobs = [
                    {"split": split, "settings": own | {system.steps: n}, "label": f"{n} passes"} for n in reversed(system.passes)
                ]
                self.run(name, jobs, experiment="passes", round=number)

    def widths(self):
        """Ratings a second against k; the ranking systems too."""
        for number in range(max(1, self.options.rounds // 3)):
            for name in self.pythons:
                system, dataset = SYSTEMS[name], self.options.datasets[-1]
                if system.slow and number:
                    continue
                own, n = self.settings(name, dataset), FEW_PASSES.get(name, 1)
                split = self.splits.random(dataset, 0)
                jobs = [{"split": split, "settings": own | {system.width: k, system.steps: n}, "k": k, "passes": n} for k in WIDTHS]
                self.run(name, jobs, experiment="widths", round=number)

    def memory(self):
        """Peak memory against ratings, each fit in a process of its own."""
        for n_ratings in PLANTED:
            split = self.splits.planted(n_ratings)
            for name in self.pythons:
                if n_ratings > LARGEST.get(name, max(PLANTED)):
                    continue
                system, own = SYSTEMS[name], self.settings(name, self.options.datasets[-1])
                own = {} if name == "sk_torchmf" else own | {system.width: 32, system.steps: 2}
                self.run(name, [{"split": split, "settings": own}], experiment="memory")

    def search(self):
        """Grid searches of 12 candidates on the same five folds, two workers."""
        split = self.splits.whole("ml100k")
        for name, grid in SEARCH.items():
            if name in self.pythons:
                job = {"split": split, "task": "search", "settings": {"grid": grid, "n_jobs": 2}}
                self.run(name, [job], experiment="search")

    def workers(self):
        """Our grid search on one worker and on two, taking turns; the first turn starts the workers."""
        grid = {"n_factors": [16, 32, 48, 64]}
        split = self.splits.whole(self.options.datasets[-1])
        job = {"split": split, "task": "search", "settings": {"grid": grid, "n_jobs": [2, 1], "repeats": 4}}
        if "sk_torchmf" in self.pythons:
            self.run("sk_torchmf", [job], experiment="workers")

    def fold_in(self):
        """Fold in and score a million ratings as new users', k = 64."""
        job = {"split": self.splits.whole(self.options.datasets[-1]), "task": "fold_in", "settings": {"n_factors": 64}}
        if "sk_torchmf" in self.pythons:
            self.run("sk_torchmf", [job], experiment="fold_in")


EXPERIMENTS = ("compare", "folds", "passes", "widths", "memory", "search", "workers", "fold_in")
QUICK = ("compare", "folds", "search")


def show(answer):
    """One line of an answer."""
    names = ("seconds", "cpu_seconds", "rmse", "others", "peak_bytes", "fold_in_seconds", "score_seconds")
    parts = {name: answer[name] for name in names if answer.get(name) is not None}
    return " ".join(f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in parts.items())


def machine(options):
    """What it ran on."""
    import torch

    model = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(": ")[1] for line in lines if line.startswith("model name")), model)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "threads": options.threads,
        "memory_gib": round(memory / 2**30),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "data": "MovieLens" if options.data else "planted ratings of MovieLens' size",
    }


def parse(arguments=None):
    import torch

    parser = argparse.ArgumentParser(description=__doc__)
    data = os.environ.get("SK_TORCHMF_DATA")
    parser.add_argument("--data", type=Path, default=data, help="folder with ml100k.npz, ml1m.npz, ml100k_folds.npz")
    parser.add_argument("--envs", type=Path, required=True, help="folder for the peers' environments")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--torch", default=f"torch=={torch.__version__.split('+')[0]}", help="for the peers that need it")
    parser.add_argument("--libmf", type=Path, help="folder with mf-train and mf-predict")
    parser.add_argument("--spotlight", type=Path, help="a checkout of Spotlight")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--limit", type=int, default=1200, help="seconds for one process")
    parser.add_argument("--quick", action="store_true", help="MovieLens-100K, the main peers, two minutes")
    parser.add_argument("--tune", action="store_true", help="choose the peers' settings anew first")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--experiments", nargs="*", choices=EXPERIMENTS, default=EXPERIMENTS)
    options = parser.parse_args(arguments)
    options.datasets = ["ml100k"] if options.quick else ["ml100k", "ml1m"]
    if options.quick:
        options.rounds, options.experiments = 3, QUICK
        options.systems = ["sk_torchmf", "cmfrec", "cornac", "surprise"]
    if options.data and not (options.data / "ml100k.npz").exists():
        parser.error(f"{options.data} has no ml100k.npz. Without --data the ratings are generated.")
    return options


def main():
    options = parse()
    bench = Bench(options)
    for experiment in [*(["tune"] if options.tune else []), *options.experiments]:
        print(f"-- {experiment}", flush=True)
        bench.forget(experiment)
        getattr(bench, experiment)()
    for name, reason in bench.results["failed"].items():
        print(f"{name}: {reason}")
    plots.main(bench.path)


if __name__ == "__main__":
    main()
