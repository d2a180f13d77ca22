"""cmfrec's CMF without side information: biased matrix factorization by alternating least squares in C."""

from importlib.metadata import version

import cmfrec
import scipy.sparse as sp
from harness import THREADS, main


def prepare(split):
    return sp.coo_matrix((split.rating, (split.user, split.item)), shape=(split.n_users, split.n_items))


def fit(data, **settings):
    model = cmfrec.CMF(
        method="als", use_float=True, nthreads=THREADS, precompute_for_predictions=False, random_state=0, verbose=False, **settings
    )
    return model.fit(data)


def predict(model, split):
    return model.predict(split.test_user, split.test_item)


if __name__ == "__main__":
    main(version("cmfrec"), prepare, fit, predict)
