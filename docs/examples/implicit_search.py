"""Implicit feedback: the loss and the number of factors chosen by NDCG, as any other parameters, then tested beside popularity.

``python docs/examples/implicit_search.py`` fetches MovieLens-100K; ``--data FILE.npz`` takes arrays user_ids and item_ids,
``--ratings FILE`` any file that ``sk_torchmf.datasets.load_ratings`` reads. Every rating is a positive, however low.
MovieLens-100K takes about two minutes.
"""

import argparse

import numpy as np
import pandas as pd
from sklearn.model_selection import GridSearchCV

from sk_torchmf import ImplicitMatrixFactorization, Interactions
from sk_torchmf.datasets import fetch_movielens, load_ratings
from sk_torchmf.metrics import evaluate
from sk_torchmf.model_selection import LeaveRandomOut, UserKFold, ranking_scorer

GRID = {
    "loss": ["ials", "logistic", "bpr", "hinge", "adaptive_hinge", "softmax"],
    "n_factors": [16, 32, 64],
    "alpha": [None, 0.02, 0.05],
}
METRICS = ["ndcg", "precision", "recall", "auc"]


class Popular:
    """Recommends what most users have, as ``evaluate`` wants it: ids, and ``recommend``."""

    def fit(self, X):
        self.users_, self.items_ = np.arange(X.num_users), np.arange(X.num_items)
        self.seen_ = X.tocsr()
        self.counts_ = np.bincount(X.item_ids, minlength=X.num_items).astype(float)
        return self

    def recommend(self, users, k, exclude_seen=True):
        scores = np.tile(self.counts_, (len(users), 1))
        if exclude_seen:
            seen = self.seen_[users].tocoo()
            scores[seen.row, seen.col] = -np.inf
        items = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return items, np.take_along_axis(scores, items, axis=1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--data", metavar="FILE.npz", help="arrays user_ids, item_ids")
    source.add_argument("--ratings", metavar="FILE", help="lines of user, item, ...; default: MovieLens-100K")
    arguments = parser.parse_args()
    try:
        X = read(arguments)
    except (OSError, ValueError, KeyError) as error:
        parser.error(str(error))
    known, test = next(LeaveRandomOut(n=10, random_state=0).split(X))
    print(f"{len(known):,} positives to choose and train on, {len(test):,} to test on")

    search = GridSearchCV(
        ImplicitMatrixFactorization(random_state=0),
        GRID,
        scoring=ranking_scorer("ndcg", k=10),
        cv=UserKFold(3, random_state=0),
        n_jobs=2,
        error_score="raise",
    )
    search.fit(X[known])
    results = pd.DataFrame(search.cv_results_).sort_values("mean_test_score", ascending=False)
    best_of_each = results.drop_duplicates("param_loss")
    columns = ["param_loss", "param_n_factors", "param_alpha", "mean_test_score", "std_test_score", "mean_fit_time"]
    print(best_of_each[columns].to_string(index=False, float_format="{:.3f}".format))

    models = {"most popular": Popular().fit(X[known]), search.best_params_["loss"]: search.best_estimator_}
    table = {
        name: {metric: values[10] for metric, values in evaluate(model, X[test], METRICS, k=10).items()}
        for name, model in models.items()
    }
    print("Test, lists of ten", pd.DataFrame(table).T.to_string(float_format="{:.4f}".format), sep="\n")


def read(arguments):
    """The positives as a container of positions."""
    if arguments.data:
        with np.load(arguments.data) as file:
            return Interactions(file["user_ids"], file["item_ids"])
    return (load_ratings(arguments.ratings) if arguments.ratings else fetch_movielens("100k")).interactions


if __name__ == "__main__":
    main()
