"""sk_torchmf: fits, grid searches and fold-in."""

import time
from importlib.metadata import version

import numpy as np
import scipy.sparse as sp
from harness import THREADS, main
from joblib import parallel_config
from sklearn.model_selection import GridSearchCV, PredefinedSplit

import sk_torchmf
from sk_torchmf import Interactions


def prepare(split):
    return Interactions(split.user, split.item, split.rating, num_users=split.n_users, num_items=split.n_items)


def fit(data, model="BiasedMatrixFactorization", **settings):
    return getattr(sk_torchmf, model)(random_state=0, **settings).fit(data)


def predict(model, split):
    return model.predict(split.test_user, split.test_item)


def search(split, grid, n_jobs, repeats=2, model="BiasedMatrixFactorization"):
    """Search the grid on the split's folds; with several ``n_jobs`` these take turns."""
    data, jobs = prepare(split), [n_jobs] if isinstance(n_jobs, int) else n_jobs
    seconds = {n: [] for n in jobs}
    for _ in range(repeats):  # all but the first find their workers warm
        for n in jobs:
            grid_search = GridSearchCV(
                getattr(sk_torchmf, model)(random_state=0),
                grid,
                scoring="neg_root_mean_squared_error",
                cv=PredefinedSplit(split.fold),
                n_jobs=n,
                refit=False,
                error_score="raise",
            )
            start = time.perf_counter()
            with parallel_config("loky", inner_max_num_threads=max(1, THREADS // n)):
                grid_search.fit(data, data.ratings)
            seconds[n].append(time.perf_counter() - start)
    answer = {"rmse": -float(grid_search.best_score_), "best": grid_search.best_params_}
    return answer | {"seconds": seconds[n_jobs] if isinstance(n_jobs, int) else seconds}


def fold_in(split, repeats=3, **settings):
    """Fold in all users as new ones, and score each rating from its user's others."""
    model = fit(prepare(split), **settings)
    matrix = sp.csr_array((split.rating, (split.user, split.item)), shape=(split.n_users, split.n_items))
    answer = {"n_ratings": matrix.nnz}
    for name in ("fold_in", "score"):
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            getattr(model, name)(matrix)
            seconds.append(time.perf_counter() - start)
        answer[f"{name}_seconds"] = float(np.median(seconds))
    return answer


if __name__ == "__main__":
    main(version("sk_torchmf"), prepare, fit, predict, search=search, fold_in=fold_in)
