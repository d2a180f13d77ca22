"""lightfm-next's WARP: curves of passes."""

from importlib.metadata import version

import numpy as np
from harness import THREADS, one_fit, wait_until_quiet
from holdout import Positives
from lightfm import LightFM
from worker import Curve, serve

held = {}


def load(path):
    held["train"] = Positives.read(path).matrix().tocoo()
    return {"version": version("lightfm-next"), "threads": THREADS}


def vectors(made):
    """Users' and items' factors; an item's bias is one more column. Users' do not change what is ranked for them."""
    ones = np.ones((len(made.user_embeddings), 1), dtype=np.float32)
    return np.hstack([made.user_embeddings, ones]), np.hstack([made.item_embeddings, made.item_biases[:, None]])


def curve(model, steps, settings, folder):
    """Factors after each number of passes, from one fit that goes on."""
    wait_until_quiet()
    found = Curve(folder, steps)

    def run(_):
        made, done = LightFM(loss=model, **settings), 0
        found.start()
        for step in sorted(steps):
            made.fit_partial(held["train"], epochs=step - done, num_threads=THREADS)
            done = step
            found.take(step, lambda: vectors(made))
        return made

    held["model"], answer = one_fit(None, run, {})
    return {"points": found.points, "others": answer["others"]}


if __name__ == "__main__":
    serve(load=load, curve=curve)
