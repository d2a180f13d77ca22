"""Fit the candidates of a search on the machines of a Dask cluster: ``python dask_search.py [SCHEDULER]``."""

import sys
import time

import joblib
import numpy as np
from dask.distributed import Client
from sklearn.model_selection import GridSearchCV, KFold

from sk_torchmf import BiasedMatrixFactorization, datasets

if __name__ == "__main__":
    ratings = datasets.make_ratings(n_users=943, n_items=1682, n_ratings=100_000, noise_std=0.9, random_state=0)
    search = GridSearchCV(
        BiasedMatrixFactorization(random_state=0),
        {"n_factors": [8, 16, 32], "max_iter": [5, 10]},
        scoring="neg_root_mean_squared_error",
        cv=KFold(3, shuffle=True, random_state=0),
        error_score="raise",
    )

    begun = time.perf_counter()
    search.fit(ratings.data, ratings.target)
    here, seconds = search.cv_results_, time.perf_counter() - begun
    print(f"here: {seconds:.1f} s, {search.best_params_}, RMSE {-search.best_score_:.4f}")

    # Use the scheduler whose address is given, or start two worker processes on this machine.
    client = Client(*sys.argv[1:2]) if sys.argv[1:] else Client(n_workers=2, threads_per_worker=1)
    begun = time.perf_counter()
    with joblib.parallel_config(backend="dask", scatter=[ratings.data, ratings.target]):  # sent to each worker once
        search.fit(ratings.data, ratings.target)
    print(f"on {len(client.scheduler_info()['workers'])} workers: {time.perf_counter() - begun:.1f} s, {search.best_params_}")
    scores = [name for name in here if "score" in name and "time" not in name]
    print("the same scores, bit for bit:", all(np.array_equal(here[name], search.cv_results_[name]) for name in scores))
    client.close()
