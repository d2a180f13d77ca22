"""LibMF's mf-train and mf-predict: SGD on blocks of ratings in hand-vectorised C++. LIBMF names their folder."""

import os
import subprocess
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from harness import THREADS, main

HOME = Path(os.environ["LIBMF"])
WORK = Path(tempfile.mkdtemp())
OPTIONS = {"k": "-k", "n_iter": "-t", "learning_rate": "-r", "l2": "-l2"}


def write(path, user, item, rating):
    np.savetxt(path, np.column_stack([user, item, rating]), fmt=["%d", "%d", "%g"])
    return path


def prepare(split):
    """Its own format is a text file; the ratings' mean is taken off, which LibMF does not do and which helps it much."""
    mean = float(split.rating.mean())
    return SimpleNamespace(path=write(WORK / "train.txt", split.user, split.item, split.rating - mean), mean=mean)


def fit(data, **settings):
    """Train; the seconds are those between LibMF's table heading and its last line, without reading the file and sorting it."""
    options = [text for name, value in settings.items() for text in (OPTIONS[name], str(value))]
    command = ["stdbuf", "-oL", HOME / "mf-train", "-s", str(THREADS), *options, data.path, WORK / "model.txt"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            now = time.perf_counter()
            if line.split()[:1] == ["iter"]:
                start = now
            elif line.split() and line.split()[0].isdigit():
                end = now
    return SimpleNamespace(seconds=end - start, mean=data.mean)


def predict(model, split):
    test = write(WORK / "test.txt", split.test_user, split.test_item, split.test_rating)
    subprocess.run([HOME / "mf-predict", test, WORK / "model.txt", WORK / "predicted.txt"], check=True, capture_output=True)
    return model.mean + np.loadtxt(WORK / "predicted.txt")


if __name__ == "__main__":
    main("checkout", prepare, fit, predict)
