"""sk_torchmf's ImplicitMatrixFactorization: curves of passes, lists and metrics."""

from importlib.metadata import version

from harness import THREADS, one_fit, wait_until_quiet
from holdout import Positives
from worker import Curve, serve

from sk_torchmf import ImplicitMatrixFactorization, Interactions, metrics

held = {}


def load(path):
    data = Positives.read(path)
    sizes = {"num_users": data.shape[0], "num_items": data.shape[1]}
    held["train"], held["test"] = Interactions(data.user, data.item, **sizes), Interactions(data.test_user, data.test_item, **sizes)
    return {"version": version("sk_torchmf"), "threads": THREADS}


def curve(model, steps, settings, folder):
    """Vectors after each number of passes, each from a fit of its own; the objective's values of the last."""
    wait_until_quiet()
    found = Curve(folder, steps)

    def run(_):
        for step in sorted(steps):
            found.start()
            made = ImplicitMatrixFactorization(loss=model, max_iter=step, tol=0, **settings).fit(held["train"])
            found.take(step, made.embeddings)
        return made

    held["model"], answer = one_fit(None, run, {})
    return {"points": found.points, "others": answer["others"], "loss": held["model"].history_["loss"]}


def recommend(k):
    """The k best items of all users."""
    wait_until_quiet()
    (found, _), answer = one_fit(None, lambda _: held["model"].recommend(k=k), {})
    return answer | {"checksum": int(found.sum())}


def evaluate(ks, metrics_asked):
    """These metrics, for every k at once."""
    wait_until_quiet()
    found, answer = one_fit(None, lambda _: metrics.evaluate(held["model"], held["test"], metrics_asked, k=ks), {})
    return answer | {"found": found}


if __name__ == "__main__":
    serve(load=load, curve=curve, recommend=recommend, evaluate=evaluate)
