"""lightfm-next's LightFM with the WARP loss: a ranking system, timed only."""

from importlib.metadata import version

import numpy as np
import scipy.sparse as sp
from harness import THREADS, main
from lightfm import LightFM


def prepare(split):
    ones = np.ones(len(split.user), dtype=np.float32)
    return sp.coo_matrix((ones, (split.user, split.item)), shape=(split.n_users, split.n_items))


def fit(data, k, epochs):
    return LightFM(no_components=k, loss="warp", random_state=0).fit(data, epochs=epochs, num_threads=THREADS)


if __name__ == "__main__":
    main(version("lightfm-next"), prepare, fit)
