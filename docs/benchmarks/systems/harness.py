"""Times one system in a process of its own: a warm-up, then the jobs it is given. Needs NumPy and nothing of the project.

An adapter defines ``prepare``, ``fit`` and ``predict`` and calls ``main``. The driver runs it as ``adapter.py JOBS ANSWERS``, both
JSON files.
"""

import ctypes
import gc
import json
import os
import platform
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

THREADS = int(os.environ.get("OMP_NUM_THREADS", "2"))
ATTEMPTS = int(os.environ.get("BENCH_ATTEMPTS", "3"))  # at a fit that nothing disturbs
QUIET = 0.25  # cores that others may keep busy
LONG = 5.0  # seconds of a fit that is not tried again
PATIENCE = 10  # fifths of a second


@dataclass
class Split:
    """Training and test ratings: ids int32, ratings float32; ``fold`` int8, which of the training part is held out when."""

    user: np.ndarray
    item: np.ndarray
    rating: np.ndarray
    test_user: np.ndarray
    test_item: np.ndarray
    test_rating: np.ndarray
    n_users: int
    n_items: int
    fold: np.ndarray | None = None

    @classmethod
    def read(cls, path):
        with np.load(path) as archive:
            split = cls(**{name: archive[name] for name in archive.files})
        split.n_users, split.n_items = int(split.n_users), int(split.n_items)
        return split

    @classmethod
    def tiny(cls):
        """200 ratings to warm up on."""
        user, item = np.divmod(np.arange(200, dtype=np.int32), 10)
        rating = (1 + (user * 7 + item * 3) % 5).astype(np.float32)
        fold = (np.arange(200) % 5).astype(np.int8)
        return cls(user, item, rating, user[:20], item[:20], rating[:20], 20, 10, fold)


def main(version, prepare, fit, predict=None, **tasks):
    """Run the jobs of ``sys.argv[1]``; write what they took to ``sys.argv[2]``.

    Parameters
    ----------
    version : str
        Of the system.
    prepare : callable(split) -> data
        What the system natively fits from; not in the fit time.
    fit : callable(data, **settings) -> model
        The timed part.
    predict : callable(model, split) -> ndarray of shape (n_test,), optional
        Predictions of the test pairs; None for a ranking system, which has no RMSE.
    **tasks : callable(split, **settings) -> dict
        Other things to run, by the name that a job's ``task`` has.
    """
    jobs = json.loads(Path(sys.argv[1]).read_text())
    tiny = Split.tiny()
    model = fit(prepare(tiny), **({} if "task" in jobs[0] else jobs[0]["settings"]))
    if predict:
        predict(model, tiny)
    answers, path, split = [], None, None
    for job in jobs:
        if job["split"] != path:
            path, split = job["split"], Split.read(job["split"])
        if "task" in job:
            answer = tasks[job["task"]](split, **job["settings"])
        else:
            answer = timed_fit(split, prepare, fit, predict, job["settings"], attempts=1 if job.get("untimed") else ATTEMPTS)
        setting = {"python": platform.python_version(), "threads": THREADS, "wait_policy": os.environ.get("OMP_WAIT_POLICY")}
        answers.append(job | answer | {"version": version} | setting)
        Path(sys.argv[2]).write_text(json.dumps(answers))  # after each, so that a later job's failure loses nothing


def timed_fit(split, prepare, fit, predict, settings, attempts):
    """The fit, of a few attempts, with the least going on beside it; its RMSE."""
    start = time.perf_counter()
    data = prepare(split)
    prepared = time.perf_counter() - start
    answers = []
    while len(answers) < attempts:
        if attempts > 1:
            wait_until_quiet()
        model, answer = one_fit(data, fit, settings)
        answers.append(answer)
        if answer["others"] < QUIET or answer["seconds"] > LONG:
            break
    answer = min(answers, key=lambda answer: answer["others"]) | {"attempts": len(answers)}
    return answer | {"prepare_seconds": prepared, "n_ratings": len(split.rating)} | accuracy(model, split, predict)


def one_fit(data, fit, settings):
    """Fit; return the model, seconds by the clock and of processor time, and memory above what was there before.

    ``others`` is how many cores other processes kept busy meanwhile: a fit beside them takes longer than it should.
    """
    trim()
    baseline = resident(reset=True)
    own, every, start = own_time(), all_time(), time.perf_counter()
    model = fit(data, **settings)
    wall, own, every = time.perf_counter() - start, own_time() - own, all_time() - every
    outside = hasattr(model, "seconds")  # a program that is run from outside: it knows its own time
    return model, {
        "seconds": model.seconds if outside else wall,
        "cpu_seconds": own,
        "others": max(0.0, every - own) / wall,
        "peak_bytes": None if baseline is None or outside else resident(peak=True) - baseline,
    }


def wait_until_quiet():
    """Wait until other processes leave the cores alone, a few seconds at most."""
    for _ in range(PATIENCE):
        before = all_time()
        time.sleep(0.2)
        if not (all_time() - before) / 0.2 > QUIET:
            break


def accuracy(model, split, predict):
    """RMSE of the predictions as the system makes them, and where they are clipped to the training ratings' range."""
    if predict is None or len(split.test_rating) == 0:
        return {}
    predicted = np.asarray(predict(model, split), dtype=np.float64)
    clipped = predicted.clip(split.rating.min(), split.rating.max())
    rmse, rmse_clipped = (float(np.sqrt(np.mean((values - split.test_rating) ** 2))) for values in (predicted, clipped))
    return {"rmse": rmse, "rmse_clipped": rmse_clipped}


def own_time():
    """Processor seconds of this process and of the programs it ran."""
    return sum(os.times()[:4])


def all_time():
    """Processor seconds of the whole machine, nan where it does not tell."""
    if sys.platform != "linux":
        return float("nan")
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def trim():
    """Hand freed memory back, or the baseline would hide it."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def resident(reset=False, peak=False):
    """Resident memory of this process in bytes, now or at its peak since the last reset; None where it cannot be known."""
    if sys.platform != "linux":
        return None
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:" if peak else "VmRSS:")[1].split()[0]) * 1024
