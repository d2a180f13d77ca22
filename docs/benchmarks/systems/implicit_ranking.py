"""implicit's ALS and BPR: curves of passes, lists and metrics."""

from importlib.metadata import version

import numpy as np
import scipy.sparse as sp
from harness import THREADS, one_fit, wait_until_quiet
from holdout import Positives
from implicit.cpu.als import AlternatingLeastSquares
from implicit.cpu.bpr import BayesianPersonalizedRanking
from implicit.evaluation import ranking_metrics_at_k
from worker import Curve, serve

MODELS = {"als": AlternatingLeastSquares, "bpr": BayesianPersonalizedRanking}
held = {}


def load(path):
    data = Positives.read(path)
    ones = np.ones(len(data.test_user), dtype=np.float32)
    held["train"] = sp.csr_matrix(data.matrix())
    held["test"] = sp.csr_matrix((ones, (data.test_user, data.test_item)), shape=data.shape)
    return {"version": version("implicit"), "threads": THREADS}


def fit(model, steps, settings, on_pass=None):
    made = MODELS[model](num_threads=THREADS, iterations=max(steps), **settings)
    made.fit(held["train"], show_progress=False, callback=on_pass and (lambda step, *_: on_pass(step + 1, made)))
    return made


def curve(model, steps, settings, folder):
    """Factors after each number of passes, from one fit."""
    wait_until_quiet()
    found = Curve(folder, steps)

    def run(_):
        found.start()
        return fit(model, steps, settings, lambda step, made: found.take(step, lambda: (made.user_factors, made.item_factors)))

    held["model"], answer = one_fit(None, run, {})
    return {"points": found.points, "others": answer["others"]}


def recommend(k):
    """The k best items of all users."""
    wait_until_quiet()
    users = np.arange(held["train"].shape[0])
    (found, _), answer = one_fit(None, lambda _: held["model"].recommend(users, held["train"], N=k), {})
    return answer | {"checksum": int(found.sum())}


def evaluate(ks, metrics_asked=None):
    """All of its metrics, for one k after the other: it takes one a call."""
    wait_until_quiet()

    def run(_):
        options = {"show_progress": False, "num_threads": THREADS}
        return {k: ranking_metrics_at_k(held["model"], held["train"], held["test"], K=k, **options) for k in ks}

    found, answer = one_fit(None, run, {})
    return answer | {"found": found}


if __name__ == "__main__":
    serve(load=load, curve=curve, recommend=recommend, evaluate=evaluate)
