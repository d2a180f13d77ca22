"""Cases of models and fits that several processes keep in a folder, and that others go on with: as those of ``sharing``."""

import os

import pytest
from sharing import make, part, place, state

from sk_torchmf import BiasedMatrixFactorization, MatrixFactorization
from sk_torchmf.distributed import communicator
from sk_torchmf.storage import archive

FOLDER = "PARTED"  # the variable that names the folder which all processes see


def at(name):
    return os.path.join(os.environ[FOLDER], name)


MODELS = {
    "biased": ({}, {"form": "text", "weighted": True}),
    "plain": ({"kind": "plain"}, {"form": "sparse"}),
    "ordinal": ({"loss": "ordinal"}, {"loss": "ordinal"}),
}


def fitted(name):
    options, data = MODELS[name]
    return make(**options).fit(*part(*place(), **data))


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
