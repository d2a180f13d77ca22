"""The sets of ratings with attributes that ``features.py`` takes, their splits, and the settings that they are fitted with."""

import time
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import scipy.sparse as sp

from sk_torchmf import BiasedMatrixFactorization, Features, Interactions, datasets

SIZES = {  # fixed beforehand
    "100k": {"n_factors": 32, "max_iter": 15},
    "1m": {"n_factors": 64, "max_iter": 20},
}
SMALL = {"n_factors": 8, "max_iter": 15}  # of the sets with graphs
AGES = [0, 18, 25, 35, 45, 50, 56, 200]  # MovieLens-1M's brackets, for the years of MovieLens-100K
MONTI_SIZE = 3000  # users and items of each of the published splits
GRAPHS = {"user": ("W_users",), "item": ("W_movies", "W_tracks")}  # in the files of the published splits


@dataclass(frozen=True)
class Setting:
    """Whether the tables of attributes are given, and parameters of the estimator."""

    described: bool = False
    params: dict = field(default_factory=dict)


BOTH, TIME = {"seen_features": "both"}, {"time": True}
ORDINAL, OWN_CUTS = {"loss": "ordinal"}, {"loss": "ordinal", "cut_points": "user"}
SETTINGS = {
    "plain": Setting(),
    "side": Setting(True),
    "both": Setting(params=BOTH),
    "side + both": Setting(True, BOTH),
    "time": Setting(params=TIME),
    "all": Setting(True, BOTH | TIME),
    "side + both, ordinal": Setting(True, BOTH | ORDINAL),
    "side + both, ordinal, own cuts": Setting(True, BOTH | OWN_CUTS),
    "all, ordinal": Setting(True, BOTH | TIME | ORDINAL),
    "all, ordinal, own cuts": Setting(True, BOTH | TIME | OWN_CUTS),
}
TIMELESS = [name for name, setting in SETTINGS.items() if not {"time", "loss"} & set(setting.params)]


@dataclass(frozen=True)
class RatedSet:
    """Ratings, ids from 0, and the tables of attributes with a row for each position."""

    name: str
    data: Interactions
    tables: dict
    size: dict

    def fit(self, train, setting, tables=None, **params):
        """Fit by a key of ``SETTINGS`` with the set's size."""
        chosen = SETTINGS[setting]
        model = BiasedMatrixFactorization(random_state=0, **self.size | chosen.params | params)
        return model.fit(train, **(self.tables if chosen.described else {}) | (tables or {}))


class MovieLens(RatedSet):
    """MovieLens-100K or -1M."""

    @classmethod
    def load(cls, name, folder):
        """Gender, age and occupation of users; genres and year of films, the year in categories of three."""
        bunch = datasets.fetch_movielens(name, data_home=folder, features=True)
        users = bunch.user_features.loc[bunch.user_labels, ["gender", "age", "occupation"]].reset_index(drop=True)
        if name == "100k":
            users["age"] = pd.cut(users["age"], AGES, right=False)
        users["age"] = users["age"].astype(str)
        items = bunch.item_features.loc[bunch.item_labels, ["genres", "year"]].reset_index(drop=True)
        years = items["year"].clip(1930, 2000) // 3
        items["year"] = years.astype("Int64").astype(str).where(years.notna(), None)
        return cls(name, bunch.interactions, {"user_features": users, "item_features": items}, SIZES[name])

    def splits(self, folder):
        """Two random tenths, the last tenth by time, and of MovieLens-1M the first fold of myFM's example."""
        found = {f"random {seed}": split(self.data, seed) for seed in (0, 1)} | {"by time": split_by_time(self.data)}
        if self.name == "1m":
            order = np.arange(len(self.data))
            np.random.RandomState(42).shuffle(order)
            found["of myFM's example"] = cut(self.data, order)
        elif (folder / "ml100k_folds.npz").exists():
            found |= self._published_folds(folder)
        return found

    def _published_folds(self, folder):
        """MovieLens-100K's own folds u1 to u5, with the times of the ratings, which their file has not."""
        own, (n_users, n_items) = self.data, (self.data.num_users, self.data.num_items)
        keys = own.user_ids.astype(np.int64) * n_items + own.item_ids
        order = np.argsort(keys)
        with np.load(folder / "ml100k_folds.npz") as file:

            def part(fold, name):
                user, item, rating = (file[f"{fold}_{name}_{column}"] for column in ("user_ids", "item_ids", "ratings"))
                times = own.timestamps[order[np.searchsorted(keys[order], user.astype(np.int64) * n_items + item)]]
                return Interactions(user, item, rating, timestamps=times, num_users=n_users, num_items=n_items)

            return {f"u{k}": (part(f"u{k}", "train"), part(f"u{k}", "test")) for k in range(1, 6)}


class Monti(RatedSet):
    """Douban, Flixster or YahooMusic, with a graph of the users, of the items, or of both."""

    @classmethod
    def load(cls, name, folder, two_hops=False):
        """A row's features are its neighbours in the graph, with ``two_hops`` also theirs; its squares add up to one."""
        path = folder / f"{name}_monti.npz"
        tables = {}
        with np.load(path) as file:
            for role, names in GRAPHS.items():
                for graph in (known for known in names if f"{known}_data" in file):
                    parts = tuple(file[f"{graph}_{part}"] for part in ("data", "indices", "indptr"))
                    links = sp.csr_array(parts, shape=file[f"{graph}_shape"], dtype=np.float64)
                    tables[f"{role}_features"] = Features(unit(with_second_hop(links) if two_hops else links))
        return cls(name, load_set(path)[0], tables, SMALL)

    def splits(self, folder):
        """The published one, and four in which a random tenth of its training part is predicted from the rest."""
        train, test = load_set(folder / f"{self.name}_monti.npz")[1]
        return {f"validation {seed}": split(train, seed) for seed in range(4)} | {"published": (train, test)}


def with_second_hop(links):
    """A + A A, where A are links divided by the roots of the degrees of both their ends."""
    degree = np.maximum(np.asarray(links.sum(axis=1)).ravel(), 1)
    scale = sp.diags_array(degree**-0.5)
    links = scale @ links @ scale
    return links + links @ links


def unit(matrix):
    """The rows of a matrix, each divided by the root of its sum of squares."""
    squares = np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel()
    return sp.csr_array(sp.diags_array(1 / np.sqrt(np.where(squares > 0, squares, 1))) @ matrix)


def load_set(path):
    """All ratings of a set, and its published split, or None."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file if name.endswith(("user_ids", "item_ids", "ratings", "timestamps"))}
    if "ratings" in arrays:
        return Interactions(arrays["user_ids"], arrays["item_ids"], arrays["ratings"], timestamps=arrays["timestamps"]), None
    names = "user_ids", "item_ids", "ratings"
    parts = [[arrays[f"{part}_{name}"] for name in names] for part in ("train", "test")]
    joined = [np.concatenate(pair) for pair in zip(*parts, strict=True)]
    sizes = dict.fromkeys(("num_users", "num_items"), MONTI_SIZE)
    return Interactions(*joined, **sizes), tuple(Interactions(*part, **sizes) for part in parts)


def cut(data, order):
    """All but the first tenth of some order, and that."""
    held_out, rest = np.split(order, [len(order) // 10])
    return data[rest], data[held_out]


def split(data, seed):
    """Nine tenths and a tenth, at random."""
    return cut(data, np.random.default_rng(seed).permutation(len(data)))


def split_by_time(data):
    """All but the last tenth, and that."""
    order = np.argsort(data.timestamps, kind="stable")
    return data[order[: -(len(order) // 10)]], data[order[-(len(order) // 10) :]]


def rmse(predicted, test):
    """The error of some predictions."""
    return float(np.sqrt(np.mean((predicted - test.ratings) ** 2)))


def errors_of(model, test):
    """RMSE of clipped predictions and, where ratings are levels, minus the mean log-likelihood of the ratings."""
    found = {"RMSE": rmse(model.predict(test, clip=True), test)}
    if model.loss == "ordinal":
        probability = model.predict_proba(test)[np.arange(len(test)), np.searchsorted(model.levels_, test.ratings)]
        found["log loss"] = float(-np.log(probability).mean())
    return found


def timed(call, *args, **params):
    """What a call returns, and seconds of the processor that it takes."""
    start = time.process_time()
    result = call(*args, **params)
    return result, time.process_time() - start
