"""implicit's AlternatingLeastSquares: a ranking system, timed only."""

from importlib.metadata import version

import numpy as np
import scipy.sparse as sp
from harness import THREADS, main
from implicit.cpu.als import AlternatingLeastSquares


def prepare(split):
    ones = np.ones(len(split.user), dtype=np.float32)
    return sp.csr_matrix((ones, (split.user, split.item)), shape=(split.n_users, split.n_items))


def fit(data, **settings):
    model = AlternatingLeastSquares(num_threads=THREADS, random_state=0, **settings)
    model.fit(data, show_progress=False)
    return model


if __name__ == "__main__":
    main(version("implicit"), prepare, fit)
