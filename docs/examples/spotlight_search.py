"""Spotlight's model and ours in one table: the same folds, the same score, a search over the parameters of each.

``python docs/examples/spotlight_search.py --spotlight CHECKOUT`` fetches MovieLens-100K; ``--data FILE.npz`` takes arrays user_ids,
item_ids and ratings, ``--ratings FILE`` any file that ``sk_torchmf.datasets.load_ratings`` reads. CHECKOUT is the repository of
Spotlight, github.com/maciejkula/spotlight, which is not on PyPI; left out, Spotlight is imported as it is installed. Some three
minutes on two cores.
"""

import argparse
import sys

import numpy as np
import pandas as pd
from sklearn.model_selection import GridSearchCV, KFold, train_test_split

from sk_torchmf import BiasedMatrixFactorization, Interactions
from sk_torchmf.datasets import fetch_movielens, load_ratings
from sk_torchmf.spotlight import SpotlightEstimator, rmse_score

FOLDS = KFold(3, shuffle=True, random_state=0)
SCORING = "neg_root_mean_squared_error"
OURS = {"n_factors": [8, 16, 32, 64]}
THEIRS = {"model__embedding_dim": [8, 32], "model__n_iter": [5, 10], "model__l2": [1e-6, 1e-5]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--data", metavar="FILE.npz", help="arrays user_ids, item_ids, ratings")
    source.add_argument("--ratings", metavar="FILE", help="lines of user, item, rating, ...; default: MovieLens-100K")
    parser.add_argument("--spotlight", metavar="CHECKOUT", help="Spotlight's repository; default: as it is installed")
    arguments = parser.parse_args()
    if arguments.spotlight:
        sys.path.append(arguments.spotlight)
    try:
        data = read(arguments)
        from spotlight.factorization.explicit import ExplicitFactorizationModel
    except (OSError, ValueError, KeyError, ImportError) as error:
        parser.error(str(error))
    known, test = (data[rows] for rows in train_test_split(np.arange(len(data)), test_size=0.1, random_state=0))

    theirs = SpotlightEstimator(ExplicitFactorizationModel, model__batch_size=1024, random_state=0)
    searches = [
        GridSearchCV(estimator, grid, scoring=SCORING, cv=FOLDS, n_jobs=2, error_score="raise").fit(known, known.ratings)
        for estimator, grid in ((BiasedMatrixFactorization(random_state=0), OURS), (theirs, THEIRS))
    ]
    table = pd.concat([rows_of(search) for search in searches]).sort_values("validation RMSE")
    print(table.to_string(index=False, float_format="{:.3f}".format))
    for search in searches:
        best = search.best_estimator_
        print(f"{type(best).__name__}: test RMSE {rmse_score(best, test):.4f} with {search.best_params_}")


def rows_of(search):
    """A line for each candidate of a search."""
    found = search.cv_results_
    return pd.DataFrame(
        {
            "estimator": type(search.best_estimator_).__name__,
            "parameters": [", ".join(f"{name}={value}" for name, value in params.items()) for params in found["params"]],
            "validation RMSE": -found["mean_test_score"],
            "deviation": found["std_test_score"],
            "fit (s)": found["mean_fit_time"],
        }
    )


def read(arguments):
    """The ratings as a container of positions."""
    if arguments.data:
        with np.load(arguments.data) as file:
            return Interactions(file["user_ids"], file["item_ids"], file["ratings"])
    return (load_ratings(arguments.ratings) if arguments.ratings else fetch_movielens("100k")).interactions


if __name__ == "__main__":
    main()
