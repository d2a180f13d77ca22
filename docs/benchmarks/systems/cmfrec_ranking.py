"""cmfrec's implicit-feedback ALS: curves of passes."""

from importlib.metadata import version

import numpy as np
import scipy.sparse as sp
from cmfrec import CMF_implicit
from harness import THREADS, one_fit, wait_until_quiet
from holdout import Positives
from worker import Curve, serve

held = {}


def load(path):
    held["train"] = sp.coo_matrix(Positives.read(path).matrix())
    return {"version": version("cmfrec"), "threads": THREADS}


def curve(model, steps, settings, folder):
    """Factors after each number of passes, each from a fit of its own: a fit tells nothing before its end."""
    wait_until_quiet()
    found = Curve(folder, steps)

    def run(_):
        for step in sorted(steps):
            found.start()
            made = CMF_implicit(
                niter=step, nthreads=THREADS, use_float=True, precompute_for_predictions=False, produce_dicts=False, **settings
            ).fit(held["train"])
            found.take(step, lambda made=made: (np.asarray(made.A_), np.asarray(made.B_)))

    _, answer = one_fit(None, run, {})
    return {"points": found.points, "others": answer["others"]}


if __name__ == "__main__":
    serve(load=load, curve=curve)
