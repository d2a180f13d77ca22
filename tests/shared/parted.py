"""Cases of models and fits that several processes keep in a folder, and that others go on with: as those of ``sharing``."""

import contextlib
import os
import shutil
import signal
import time

import numpy as np
import pandas as pd
import pytest
from sharing import attributes_of, make, part, place, shards_of, state, validated_by

from sk_torchmf import BiasedMatrixFactorization, MatrixFactorization
from sk_torchmf.distributed import communicator
from sk_torchmf.solvers.als import AlternatingLeastSquares
from sk_torchmf.solvers.optimizers import Minimiser
from sk_torchmf.solvers.variational import Variational
from sk_torchmf.storage import archive

FOLDER = "PARTED"  # the variable that names the folder which all processes see


def at(name):
    return os.path.join(os.environ[FOLDER], name)


MODELS = {
    "biased": ({}, {"form": "text", "weighted": True}),
    "plain": ({"kind": "plain"}, {"form": "sparse"}),
    "ordinal": ({"loss": "ordinal"}, {"loss": "ordinal"}),
    "features": ({"seen_features": "user"}, {}),
    "context": ({"effects": ["where", ("user", "where"), ("item", "where")], "time": "day"}, {"weighted": True}),
    "from shards": ({}, {}),
}
TRAINED = {  # of which checkpoints are kept
    **MODELS,
    "als": ({"solver": "als"}, {"weighted": True}),
    "adam": ({"kind": "plain", "solver": "adam"}, {}),
    "sgd of features": ({"solver": "sgd"}, {}),
    "als of features": ({"solver": "als", "kind": "plain"}, {}),
    "held out": ({"early_stopping": True, "refit": False, "n_iter_no_change": 9, "validation_fraction": 0.3}, {}),
    "validated": ({"early_stopping": True, "n_iter_no_change": 9}, {}),
}
KINDS_OF_STEPS = (Variational, AlternatingLeastSquares, Minimiser)


def begun(name, **others):
    """The model of a name, and what its fit is given in this process."""
    options, data = TRAINED[name]
    rank, size = place()
    given = {}
    observed = (shards_of(),) if "from shards" in name else part(rank, size, **data)
    if "context" in name:
        X = observed[0]
        seconds = (X["user"] * 31 + X["item"] * 17) % 40 * 3000.0
        where = np.array(["home", "work", "car"])[(X["user"] + X["item"]) % 3]
        observed = (X.assign(where=where, day=seconds.to_numpy().astype("M8[s]")), *observed[1:])
    if "features" in name:
        given = {f"{role}_features": attributes_of(role, "numbers")[rank::size] for role in ("user", "item")}
    if name == "validated":
        given = dict(zip(("X_val", "y_val"), validated_by(rank, size), strict=True))
    return make(**options | others), observed, given


def fitted(name, **others):
    model, observed, given = begun(name, **others)
    return model.fit(*observed, **given)


def save_all():
    """Each model twice, the second time without what partial_fit goes on from; what the whole is."""
    found = {}
    for name in MODELS:
        model = fitted(name)
        model.save(at(name))
        model.save(at(name))  # in the place of what was there
        model.save(at(f"{name} without"), ratings=False)
        found[name] = state(model.gather())
    return found


def load_all():
    """What each process has loaded, and the whole of it."""
    found = {}
    for name in MODELS:
        kind = MatrixFactorization if name == "plain" else BiasedMatrixFactorization
        model = kind.load(at(name))
        assert model.distributed
        without = kind.load(at(f"{name} without"))
        found[name] = state(model), state(model.gather()), state(without)
    return found


def _raised(run):
    with pytest.raises(Exception) as caught:  # noqa: PT011
        run()
    return type(caught.value).__name__, str(caught.value)


def failing_write():
    """A process whose file cannot be written: all are told, and what was there stays."""
    rank, _ = place()
    model, write = fitted("biased"), archive.write

    def full(path, *args, **options):
        if rank == 1:
            raise OSError(28, "No space left on device", path)
        return write(path, *args, **options)

    before = _names(at("biased"))
    archive.write = full
    try:
        found = _raised(lambda: model.save(at("biased"))), _raised(lambda: model.save(at("half made")))
    finally:
        archive.write = write
    with communicator(True) as processes:
        processes.all_gather(0)
    return *found, set(before) <= set(_names(at("biased")))


def _names(path):
    return sorted(os.listdir(path))


def unshared_folder():
    """A folder that one process does not see."""
    model = fitted("biased")
    return _raised(lambda: model.save(at("a") if place()[0] == 0 else at("b")))


def strange_folder():
    model = fitted("biased")
    return _raised(lambda: model.save(os.environ[FOLDER]))


def no_folder_to_load():
    return _raised(lambda: BiasedMatrixFactorization.load(os.environ[FOLDER]))


TIMEOUT = 60  # seconds, within which a lost process is missed
N_EPOCHS, N_DONE = 7, 3


def checkpointed(name, path, **others):
    """The fit of a model with a checkpoint."""
    return fitted(name, **{"max_iter": N_EPOCHS, "checkpoint": path and at(path)} | others)


@contextlib.contextmanager
def _in_step(number=None, run=None):
    """Have the solver's steps counted, and something done at the beginning of one; gives the list of their beginnings."""
    begun, steps = [], {kind: kind.step for kind in KINDS_OF_STEPS}

    def counted(solver):
        begun.append(time.monotonic())
        if len(begun) == number:
            run()
        return steps[type(solver)](solver)

    for kind in KINDS_OF_STEPS:
        kind.step = counted
    try:
        yield begun
    finally:
        for kind, step in steps.items():
            kind.step = step


def interrupted():
    """Fits that end early, one for each model; their checkpoints in two copies."""
    rank, _ = place()
    found = {}
    for name in TRAINED:

        def stop():
            if rank == 0:
                raise KeyError("enough")

        with _in_step(N_DONE + 1, stop):
            found[name] = _raised(lambda name=name: checkpointed(name, f"fit of {name}"))
        with communicator(True) as processes:
            if rank == 0:
                shutil.copytree(at(f"fit of {name}"), at(f"copy of {name}"))
            processes.all_gather(0)
    return found


def interrupted_by_a_full_disk():
    """One process cannot write its file, when the other has."""
    rank, _ = place()
    write = archive.write

    def full(path, *args, **options):
        if rank == 1 and os.path.basename(path).startswith(f"0-{N_DONE + 1}."):
            time.sleep(0.3)
            raise OSError(28, "No space left on device", path)
        return write(path, *args, **options)

    archive.write = full
    try:
        return _raised(lambda: checkpointed("biased", "full disk"))
    finally:
        archive.write = write


def killed():
    """The second process is killed in the middle of the fit."""
    rank, _ = place()
    with _in_step(N_DONE + 1, lambda: os.kill(os.getpid(), signal.SIGKILL) if rank == 1 else None) as begun:
        return *_raised(lambda: checkpointed("biased", "killed")), time.monotonic() - begun[-1]


def whole_fits():
    return {name: state(checkpointed(name, None).gather()) for name in TRAINED}


def of_another_fit():
    """Of other data in one process, and with another parameter."""
    rank, size = place()
    X, y, weight = part(rank, size, **MODELS["biased"][1])
    y = y + (rank == 1) * (y == y[0])
    given = {"max_iter": N_EPOCHS, "checkpoint": at("fit of biased")}
    model, observed, _ = begun("validated", max_iter=N_EPOCHS, checkpoint=at("fit of validated"))
    validation = validated_by(rank, size)
    return [
        _raised(lambda: make(**given).fit(X, y, weight)),
        _raised(lambda: checkpointed("biased", "fit of biased", n_factors=4)),
        _raised(lambda: checkpointed("biased", "biased")),
        _raised(lambda: model.fit(*observed, X_val=validation[0], y_val=validation[1] + (rank == 1))),
    ]


def _resumed(paths):
    found = {}
    for path, name in paths.items():
        with _in_step() as begun:
            found[path] = state(checkpointed(name, path).gather()), len(begun), os.path.exists(at(path))
    return found


FITS = {f"fit of {name}": name for name in TRAINED}
COPIES = {f"copy of {name}": name for name in TRAINED}


def resumed():
    return _resumed(FITS)


def resumed_by_one():
    return _resumed(COPIES | {"full disk": "biased", "killed": "biased"})


N_MANY = 3000  # users, so many that shards have several cuts


def many(form="text"):
    """Observations of many users, some pairs twice with ratings that differ; weights."""
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, N_MANY, 40_000), rng.integers(0, 150, 40_000)
    rating = np.round(3 + rng.normal(size=N_MANY)[user] + rng.normal(size=len(user)), 1)
    return pd.DataFrame({"user": np.char.add("user", user.astype(str)), "item": item}), rating, rng.uniform(0.3, 2, len(user))


EXACT = {
    f"{kind} {loss} {dtype}": {"kind": kind, "loss": loss, "dtype": dtype}
    for kind, loss in (("biased", "squared_error"), ("plain", "squared_error"), ("biased", "huber"))
    for dtype in ("float32", "float64")
}


EXACT |= {
    f"{kind} {solver}": {"kind": kind, "loss": "squared_error", "dtype": "float32", "solver": solver}
    for kind, solver in (("biased", "als"), ("biased", "sgd"))
}
EXACT_WITH_FEATURES = {
    "features float32": {"dtype": "float32", "seen_features": "user"},
    "features": {},
    "features of huber": {"loss": "huber", "kind": "plain"},
    "features of als": {"solver": "als", "seen_features": "user"},
    "features of adam": {"solver": "adam", "kind": "plain", "dtype": "float32"},
}


def attributes_of_many(role):
    """Numbers with gaps and words, of some that have observations and of some that have none."""
    n = N_MANY if role == "user" else 150
    ids, rng = np.delete(np.arange(n + 5), [2, 7]), np.random.default_rng(1)
    table = pd.DataFrame(
        {"age": np.where(ids % 7 == 0, np.nan, rng.normal(size=len(ids))), "place": np.array(["a", "b", "c"])[ids % 3]}
    )
    return table.assign(**{role: np.char.add("user", ids.astype(str)) if role == "user" else ids})


def exact():
    """Rows that are spread over the processes at random, in any order."""
    rank, size = place()
    X, y, weight = many()
    rows = np.random.default_rng(size).permutation(len(y))[rank::size]
    found = {}
    for name, options in EXACT.items():
        weights = None if options["loss"] == "squared_error" and options["kind"] == "plain" else weight[rows]
        model = make(n_factors=5, max_iter=3, distributed="exact", **options).fit(X.iloc[rows], y[rows], weights)
        found[name] = state(model.gather())
    tables = {f"{role}_features": attributes_of_many(role)[rank::size] for role in ("user", "item")}
    for name, options in EXACT_WITH_FEATURES.items():
        model = make(n_factors=5, max_iter=3, distributed="exact", **options).fit(X.iloc[rows], y[rows], weight[rows], **tables)
        found[name] = {key: vars(own) if "encoder" in key else own for key, own in state(model.gather()).items()}
    model = make(loss="ordinal", distributed="exact").fit(*part(rank, size, loss="ordinal"))
    found["ordinal"] = state(model.gather())
    model = make(n_factors=5, max_iter=3, dtype="float32").fit(X.iloc[rows], y[rows], weight[rows])
    found["not exact"] = state(model.gather())
    return found


def exact_refused():
    return _raised(lambda: make(distributed="exact").fit(*part(*place(), form="sparse")))
