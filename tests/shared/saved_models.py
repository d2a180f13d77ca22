"""The models that are kept in files, one folder a version: what they were fitted to, and what they are asked.

``python tests/shared/saved_models.py`` writes the files of the version at hand into ``tests/saved``, once, when it is released.
"""

import json
import sys
from pathlib import Path

import numpy as np
import tutorial

import sk_torchmf
from sk_torchmf import BiasedMatrixFactorization, ImplicitMatrixFactorization, MatrixFactorization, TorchFactorization
from sk_torchmf.nn import BiasedMF

FOLDER = Path(__file__).parents[1] / "saved"
ANSWERS = "answers.json"  # beside the files: what the version that wrote them predicted and recommended

# Half of the users like sweet drinks and half of them bitter ones: a rating is 3 + 1.5 taste flavour, and a little noise.
USERS = np.array([f"user {i:02d}" for i in range(24)])
ITEMS = np.array(["ale", "chai", "cider", "cola", "espresso", "gin", "juice", "mate", "punch", "soda", "tea", "tonic"])
TASTE = np.where(np.arange(24) % 2 == 0, 1.0, -1.0)
FLAVOUR = np.where(np.isin(ITEMS, ["chai", "cider", "cola", "juice", "punch", "soda"]), 1.0, -1.0)
COLD_ITEMS = {"cocoa": 1.0, "bitters": -1.0}  # nobody rated them, but their flavour is known
ASKED = np.repeat(USERS[:4], 5), np.tile(["ale", "cola", "cocoa", "bitters", "never heard of"], 4)
TRAINING = {"module__n_factors": 2, "optimizer__lr": 0.05, "batch_size": 16, "max_iter": 100}

MODELS = {
    "plain": MatrixFactorization(2, user="user", item="item", random_state=0),
    "biased": BiasedMatrixFactorization(2, user="user", item="item", random_state=0),
    "implicit": ImplicitMatrixFactorization(2, loss="ials", user="user", item="item", random_state=0),
    "torch": TorchFactorization(BiasedMF, **TRAINING, user="user", item="item", random_state=0),
    "module": TorchFactorization(tutorial.Weekly, **TRAINING, user="user", item="item", features=["day", "hour"], random_state=0),
}
CODE = {"module": {"module": tutorial.Weekly}}  # what load must be passed, since no file holds code
WITH_FEATURES = ("plain", "biased", "implicit")


def truth(user, item):
    """The ratings without noise, an ndarray: 3 for an item of which nothing is known."""
    flavour = dict(zip(ITEMS, FLAVOUR, strict=True)) | COLD_ITEMS
    taste = dict(zip(USERS, TASTE, strict=True))
    return np.array([3 + 1.5 * taste[u] * flavour.get(i, 0.0) for u, i in zip(user, item, strict=True)])


def observations():
    """Three quarters of all pairs, as a table with the day and hour of each, and their ratings."""
    import pandas as pd

    rng = np.random.default_rng(0)
    user, item = np.divmod(np.flatnonzero(rng.random(24 * 12) < 0.75), 12)
    table = pd.DataFrame({"user": USERS[user], "item": ITEMS[item]})
    table = table.assign(day=rng.choice(["monday", "sunday"], len(table)), hour=rng.random(len(table)))
    return table, truth(table["user"], table["item"]) + 0.1 * rng.normal(size=len(table))


def features():
    """A table of what is known of the users, and one of the items."""
    import pandas as pd

    users = {"sweet tooth": TASTE > 0, "age": np.arange(20.0, 44.0)}
    flavour = np.append(FLAVOUR, list(COLD_ITEMS.values()))
    items = {
        "flavour": np.where(flavour > 0, "sweet", "bitter"),
        "made of": [["water", "sugar"] if x > 0 else ["water"] for x in flavour],
    }
    return pd.DataFrame(users, index=pd.Index(USERS, name="user")), pd.DataFrame(
        items, index=pd.Index([*ITEMS, *COLD_ITEMS], name="item")
    )


def fitted(name):
    """One of the models, fitted to the observations."""
    table, rating = observations()
    users, items = features()
    if name == "implicit":
        table, rating = table[rating > 3], None
    return MODELS[name].fit(table, rating, **({"user_features": users, "item_features": items} if name in WITH_FEATURES else {}))


def answers(model):
    """What a fitted model says when asked, as JSON can hold it."""
    more = {"features": {"day": "monday", "hour": 0.5}} if getattr(model, "features", None) else {}
    found = {"predict": model.predict(*ASKED, **more).tolist()}
    if model.get_params().get("solver") == "variational":
        found["std"] = model.predict(*ASKED, return_std=True)[1].tolist()
    items, scores = model.recommend(USERS[:4], k=3, **more)
    return found | {"items": items.tolist(), "scores": scores.tolist()}


def write():
    folder = FOLDER / sk_torchmf.__version__
    if folder.exists():
        sys.exit(f"{folder} is there, and the files of a version are written once.")
    folder.mkdir(parents=True)
    given = {}
    for name in MODELS:
        model = fitted(name).save(folder / f"{name}.model")
        given[name] = answers(model)
    (folder / ANSWERS).write_text(json.dumps(given, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
