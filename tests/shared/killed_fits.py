"""Fits that are killed after so many checkpoints, and one that is killed for real: importable by its process."""

import os

import numpy as np
import pytest
import torch
from every_solver import LIKED, numbers

from sk_torchmf import ImplicitMatrixFactorization
from sk_torchmf.storage.checkpoint import Checkpoint


class Killed(BaseException):
    """Stands for the end of a process."""


def die_after(monkeypatch, n_writes):
    """Have the process end after so many checkpoints; returns the list of what was written."""
    written, write = [], Checkpoint.write

    def counted(self, content):
        write(self, content)
        written.append(len(content["progress"]["history"]["loss"]))
        if len(written) == n_writes:
            raise Killed

    monkeypatch.setattr(Checkpoint, "write", counted)
    return written


def killed_and_resumed(monkeypatch, make, data, path, n_writes):
    with monkeypatch.context() as patch:
        die_after(patch, n_writes)
        with pytest.raises(Killed):
            make(checkpoint=path).fit(data)
    assert path.exists()
    with monkeypatch.context() as patch:
        written = die_after(patch, 0)
        model = make(checkpoint=path).fit(data)
    assert not path.exists()
    return model, written


def long_fit(**options):
    """Draws, momenta, steps taken back; without torch.optim, whose first step imports for a second."""
    return ImplicitMatrixFactorization(4, loss="bpr", max_iter=400, random_state=0, **options).fit(LIKED)


def fit_and_save(path, result):
    """In a process of its own: fit, with a checkpoint, and write what was found."""
    torch.set_num_threads(1)
    model = long_fit(checkpoint=path)
    np.savez(result + ".part.npz", *numbers(model), loss=model.history_["loss"])
    os.replace(result + ".part.npz", result)
