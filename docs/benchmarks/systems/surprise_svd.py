"""Surprise's SVD: biased matrix factorization by SGD in Cython, on one thread; and its own grid search."""

import time
from importlib.metadata import version

import numpy as np
import surprise
from harness import main
from surprise.model_selection import GridSearchCV


def dataset(split):
    ratings = surprise.Dataset.load_from_folds([], surprise.Reader(rating_scale=scale(split)))
    user, item, rating = split.user.tolist(), split.item.tolist(), split.rating.tolist()
    ratings.raw_ratings = [(u, i, r, None) for u, i, r in zip(user, item, rating, strict=True)]
    return ratings


def scale(split):
    return float(split.rating.min()), float(split.rating.max())


def prepare(split):
    ratings = dataset(split)
    return ratings.construct_trainset(ratings.raw_ratings)


def fit(data, **settings):
    return surprise.SVD(random_state=0, **settings).fit(data)


def predict(model, split):
    pairs = zip(split.test_user.tolist(), split.test_item.tolist(), strict=True)
    return np.array([model.predict(user, item).est for user, item in pairs])


class Folds:
    """The split's own folds, as Surprise takes them."""

    def __init__(self, fold):
        self.fold = fold

    def split(self, ratings):
        for k in range(self.fold.max() + 1):
            train, test = ([ratings.raw_ratings[j] for j in np.flatnonzero(mask)] for mask in (self.fold != k, self.fold == k))
            yield ratings.construct_trainset(train), [rating[:3] for rating in test]

    def get_n_folds(self):
        return int(self.fold.max()) + 1


def search(split, grid, n_jobs):
    ratings, seconds = dataset(split), []
    for _ in range(2):  # the second finds its workers warm
        grid_search = GridSearchCV(surprise.SVD, grid, measures=["rmse"], cv=Folds(split.fold), n_jobs=n_jobs)
        start = time.perf_counter()
        grid_search.fit(ratings)
        seconds.append(time.perf_counter() - start)
    return {"seconds": seconds, "rmse": float(grid_search.best_score["rmse"]), "best": grid_search.best_params["rmse"]}


if __name__ == "__main__":
    main(version("scikit-surprise"), prepare, fit, predict, search=search)
