"""Whether memory stays flat: a thousand fits and a hundred thousand predictions in one process: ``nox -s soak``."""

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch

sys.path.insert(0, str(Path(__file__).parent / "shared"))
from every_solver import SOLVERS

WARM_UP = 0.3  # of the course, in which caches fill
ALLOWED = 4.0  # MiB in the rest of it: 6 KB a fit, less than any model here takes, and 60 bytes a prediction


def resident():
    """Resident memory of this process in MiB; its peak where the platform does not tell the present."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


class Course:
    """Memory along a course of many calls, printed as it goes.

    Parameters
    ----------
    what : str
    n : int
        How many calls.
    """

    def __init__(self, what, n):
        self.what, self.n, self.points, self.started = what, n, [], time.perf_counter()

    def passed(self, at):
        """Call number ``at`` is done; from 1."""
        if at % max(1, self.n // 10) == 0:
            self.points.append((at, resident()))
            print(f"{at:8,} {self.what}  {self.points[-1][1]:8.1f} MiB  {time.perf_counter() - self.started:6.1f} s", flush=True)

    def growth(self):
        """MiB that a straight line through the points after the warm-up rises by until the end."""
        at, memory = np.array([point for point in self.points if point[0] >= WARM_UP * self.n]).T
        slope = np.polyfit(at, memory, 1)[0] if len(at) > 1 else 0.0
        print(f"{self.what}: {slope * 1000 * 1024:+.1f} KiB per 1,000, {slope * (at[-1] - at[0]):+.2f} MiB after the warm-up")
        return slope * (at[-1] - at[0])


def fits(n):
    """n fits, every estimator and solver in turn; the last model of each."""
    course, models = Course("fits", n), {}
    for at in range(1, n + 1):
        name = list(SOLVERS)[at % len(SOLVERS)]
        models[name] = SOLVERS[name].make().fit(SOLVERS[name].data)
        course.passed(at)
    return course, models


def predictions(models, n):
    """n predictions of single users in turn: pairs, all items, lists, new users."""
    course, rng = Course("predictions", n), np.random.default_rng(0)
    models = list(models.values())
    for at in range(1, n + 1):
        model, user = models[at % len(models)], int(rng.integers(0, 40))
        how = (at // len(models)) % 4
        if how == 0:
            model.predict([user], [int(rng.integers(0, 25))])
        elif how == 1:
            model.predict(user)
        elif how == 2 or not hasattr(model, "fold_in"):
            model.recommend(user, 5)
        else:
            items = rng.choice(model.n_items_, 4, replace=False)
            model.fold_in(sp.csr_array((np.ones(4), items, [0, 4]), shape=(1, model.n_items_)))
        course.passed(at)
    return course


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fits", type=int, default=1000)
    parser.add_argument("--predictions", type=int, default=100_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'':8} {'':5} {resident():8.1f} MiB after the imports")
    fitting, models = fits(options.fits)
    grown = [fitting.growth(), predictions(models, options.predictions).growth()]
    is_flat = max(grown) <= ALLOWED
    print(f"memory is {'flat' if is_flat else 'not flat'}: {max(grown):+.2f} MiB, allowed are {ALLOWED}")
    return 0 if is_flat else 1


if __name__ == "__main__":
    sys.exit(main())
