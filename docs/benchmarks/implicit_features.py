"""Positives and features: cold items of citeulike-t, cold users of LastFM, seconds beside LightFM, and features that say nothing.

Run it with one of::

    OMP_NUM_THREADS=1 python docs/benchmarks/implicit_features.py --data FOLDER        # or SK_TORCHMF_DATA=FOLDER
    OMP_NUM_THREADS=1 python docs/benchmarks/implicit_features.py --part seconds       # these parts anew, the others kept

``FOLDER`` holds ``citeulike_t.npz`` (``user_ids``, ``item_ids``, the counts of the articles' words as the parts of a CSR array) and
``lastfm_heater_cold_users.npz`` (the split of Heater by users, ``train``, ``vali`` and ``test``, and who is whose friend), and is
what ``datasets.fetch_movielens(features=True)`` takes. LightFM takes part where it is installed (``pip install lightfm-next``).

Each system has a grid of four settings (``GRIDS``). The part ``choice`` measures them on a validation part, a fifth of the
training articles or the users of ``vali``; the parts ``items`` and ``users`` take the best of each (the mean of recall@20, 50 and
100) to the test part. Seconds are of the processor with one thread, systems taking turns. Records go to
``results/implicit_features.json``, tables made of them to ``results/implicit_features.md``.
"""

import argparse
import json
import os
import statistics
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from features import MovieLens, optional, table, timed
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.model_selection import ParameterGrid
from sklearn.preprocessing import normalize

from sk_torchmf import ImplicitMatrixFactorization
from sk_torchmf.metrics import evaluate

RESULTS = Path(__file__).parent / "results"
AT = [20, 50, 100]  # of recall
OURS, LIGHTFM = "sk_torchmf, ials", "lightfm, warp"
PROFILES = {"items": "tf-idf profile", "users": "friends' profile"}
FITS = {
    OURS: {"n_factors": [64, 128], "alpha": [0.005, 0.01], "confidence": [None]},
    LIGHTFM: {"no_components": [64], "learning_rate": [0.05], "epochs": [5, 10, 20, 30]},
}
GRIDS = {
    "items": {PROFILES["items"]: {"sublinear_tf": [False, True], "use_idf": [False, True], "unit_items": [False]}, **FITS},
    "users": {PROFILES["users"]: {"power": [0.0, 1.0], "popularity": [0.0, 0.5]}, **FITS},
}


@dataclass(frozen=True)
class Cold:
    """Positives of a side's rows some of which have none in training.

    Attributes
    ----------
    side : {"items", "users"}
        Which rows are cold.
    train, test : CSR array of shape (n_users, n_items)
    features : CSR array of shape (n_rows, n_columns)
        Of that side: words of articles, counted; friends of users.
    cold : ndarray of int
        The rows that are ranked, or ranked for.
    """

    side: str
    train: sp.csr_array
    test: sp.csr_array
    features: sp.csr_array
    cold: np.ndarray

    @classmethod
    def citeulike(cls, folder, validation):
        """A fifth of the articles; for validation a fifth of the others, the fifth itself being left out."""
        with np.load(folder / "citeulike_t.npz") as file:
            users, items, words = file["user_ids"], file["item_ids"], csr_of(file, "item_words")
        n = words.shape[0]
        order = np.random.default_rng(0).permutation(n)
        test, rest = np.split(order, [n // 5])
        cold, known = np.split(rest, [len(rest) // 5]) if validation else (test, rest)
        shape = users.max() + 1, n
        parts = (np.isin(items, some) for some in (known, cold))
        return cls("items", *(matrix_of(users[some], items[some], shape) for some in parts), words, np.sort(cold))

    @classmethod
    def lastfm(cls, folder, validation):
        """Heater's users; either way the training part alone is fitted."""
        with np.load(folder / "lastfm_heater_cold_users.npz") as file:
            parts, friends = [file[name] for name in ("train", "vali", "test")], csr_of(file, "user_content")
        shape = friends.shape[0], max(part[:, 1].max() for part in parts) + 1
        train, vali, test = (matrix_of(*part.T, shape) for part in parts)
        test = vali if validation else test
        return cls("users", train, test, friends, np.flatnonzero(np.diff(test.indptr)))

    def encoded(self):
        """The features as every model gets them: rows of unit length, of words by tf-idf with logarithms of the counts."""
        values = TfidfTransformer(sublinear_tf=True).fit_transform(self.features) if self.side == "items" else self.features
        return sp.csr_array(normalize(values), dtype=np.float32)

    def recall(self, model):
        """By how many are asked for; among the cold items alone, or of all items for the cold users."""
        items = self.cold if self.side == "items" else None
        return evaluate(model, self.test, "recall", k=AT, items=items)["recall"]


class Scored:
    """What ranks by scores and is not an estimator: a function of user and item numbers returns them, (n_users, n_items)."""

    user = form_ = None

    def __init__(self, function, shape):
        self.function = function
        self.users_, self.items_ = (np.arange(n) for n in shape)

    def recommend(self, users, k=10, *, exclude_seen=True, items=None):
        items = self.items_ if items is None else items
        scores = self.function(users, items)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return items[best], np.take_along_axis(scores, best, 1)


def ours(data, grid):
    """One estimator with features of the cold side, by each setting."""
    for params in ParameterGrid(grid):
        model = ImplicitMatrixFactorization(loss="ials", random_state=0).set_params(**params)
        yield params, timed(model.fit, data.train, **{f"{data.side[:-1]}_features": data.encoded()})


def lightfm(data, grid):
    """LightFM's hybrid with the same features, by each setting: one fit with some epochs goes on to more."""
    rest = {name: values for name, values in grid.items() if name != "epochs"}
    described = {f"{data.side[:-1]}_features": sp.csr_matrix(data.encoded())}
    for params in ParameterGrid(rest):
        model = optional("lightfm").LightFM(loss="warp", random_state=0, **params)
        done = seconds = 0
        for epochs in grid["epochs"]:
            more = {"epochs": epochs - done, "num_threads": 1}
            seconds += timed(model.fit_partial, data.train.tocoo(), **described, **more)[1]
            done = epochs
            yield params | {"epochs": epochs}, (by_representations(model, data, described), seconds)


def by_representations(model, data, described):
    """Scores by LightFM's rows; a user's bias does not change what is ranked for that user."""
    _, users = model.get_user_representations(described.get("user_features"))
    biases, items = model.get_item_representations(described.get("item_features"))
    return Scored(lambda some, others: users[some] @ items[others].T + biases[others], data.train.shape)


def profiles(data, grid):
    """By likeness to the words of what the user has, or by what the user's friends have."""
    for params in ParameterGrid(grid):
        yield params, timed((words_of_items if data.side == "items" else items_of_friends), data, **params)


def words_of_items(data, sublinear_tf, use_idf, unit_items):
    """The cosine of an article's words and the sum of those of the user's articles, each of unit length or as long as it is."""
    words = TfidfTransformer(norm=None, sublinear_tf=sublinear_tf, use_idf=use_idf).fit_transform(data.features)
    unit = sp.csr_array(normalize(words))
    users = sp.csr_array(normalize(data.train @ (unit if unit_items else words)))
    return Scored(lambda some, items: (users[some] @ unit[items].T).toarray(), data.train.shape)


def items_of_friends(data, power, popularity):
    """How many friends have an item, one with n items counting n to minus ``power``, over a power of how many users have it."""
    counts = np.maximum(data.train.sum(1), 1.0), np.maximum(data.train.sum(0), 1.0)
    friends = sp.csr_array(data.features.multiply(counts[0] ** -power))
    has = sp.csr_array(data.train.multiply(counts[1] ** -popularity))
    ties = 1e-9 * counts[1]  # whom friends tell nothing: by popularity
    return Scored(lambda some, items: ((friends[some] @ has).toarray() + ties)[:, items], data.train.shape)


SYSTEMS = {OURS: ours, LIGHTFM: lightfm, PROFILES["items"]: profiles, PROFILES["users"]: profiles}
LOADED = {"items": Cold.citeulike, "users": Cold.lastfm}


def fitted(data, systems):
    """A row of each system and setting, as it comes."""
    for system, grid in systems.items():
        if system == LIGHTFM and optional("lightfm") is None:
            continue
        for params, (model, seconds) in SYSTEMS[system](data, grid):
            recall = {f"recall@{k}": value for k, value in data.recall(model).items()}
            setting = ", ".join(f"{name}={value}" for name, value in params.items())
            yield {"cold": data.side, "system": system, "setting": setting, **recall, "seconds": seconds}, params


def choice(folder, results):
    """All settings on the validation parts: these figures are not those of the test. What is there already is kept."""
    before = results.get("choice", [])
    for side, systems in GRIDS.items():
        data = LOADED[side](folder, True)
        for system, grid in systems.items():
            kept = [row for row in before if (row["cold"], row["system"]) == (side, system)]
            if [row["params"] for row in kept] == list(settings(grid)):
                yield from kept
                continue
            for row, params in fitted(data, {system: grid}):
                yield row | {"params": params}


def settings(grid):
    """Of a grid, in the order in which they are measured: LightFM's fits go on from one number of epochs to the next."""
    rest = {name: values for name, values in grid.items() if name != "epochs"}
    for params in ParameterGrid(rest):
        for epochs in grid.get("epochs", [None]):
            yield params | ({} if epochs is None else {"epochs": epochs})


def best(results, side, system):
    """The setting that the part ``choice`` has found best, as a grid of one."""
    rows = [row for row in results["choice"] if (row["cold"], row["system"]) == (side, system)]
    return {name: [value] for name, value in max(rows, key=score)["params"].items()} if rows else None


def score(row):
    return statistics.fmean(row[f"recall@{k}"] for k in AT)


def items(folder, results):
    """A fifth of the articles of citeulike-t, ranked among themselves, by the settings chosen."""
    yield from tested(folder, results, "items")


def users(folder, results):
    """LastFM's cold users, by the settings chosen."""
    yield from tested(folder, results, "users")


def tested(folder, results, side):
    data = LOADED[side](folder, False)
    chosen = {system: best(results, side, system) for system in GRIDS[side]}
    for row, _ in fitted(data, {system: grid for system, grid in chosen.items() if grid}):
        yield row


def seconds(folder, results, turns=3):
    """Of an iteration, by the difference of fits of two and ten, and of LightFM's epoch, in turn; citeulike-t and its words."""
    data = Cold.citeulike(folder, False)
    words, peer = data.encoded(), optional("lightfm")
    described, positives = {"item_features": sp.csr_matrix(words)}, data.train.tocoo()
    for k in FITS[LIGHTFM]["no_components"]:
        if peer:
            model = peer.LightFM(loss="warp", no_components=k, random_state=0)
            model.fit_partial(positives, **described)  # the first epoch finds violations more easily than later ones
        turn: dict = {"without": [], "with": [], "lightfm": []}
        for _ in range(turns):
            for name, features in (("without", None), ("with", words)):
                fits = [
                    timed(
                        ImplicitMatrixFactorization(k, loss="ials", max_iter=n, tol=0, random_state=0).fit,
                        data.train,
                        item_features=features,
                    )[1]
                    for n in (2, 10)
                ]
                turn[name].append((fits[1] - fits[0]) / 8)
            if peer:
                turn["lightfm"].append(timed(model.fit_partial, positives, **described, num_threads=1)[1])
        for name, found in turn.items():
            if found:
                ratios = [one / other for one, other in zip(found, turn["with"], strict=True)]
                yield {"k": str(k), "system": name, "seconds": statistics.median(found), "times with": statistics.median(ratios)}


def noise(folder, results, n_columns=10_000):
    """NDCG@10 on a fifth of each user's films, with features that say nothing and with attributes given twice; default settings."""
    for name, seeds, losses in (("100k", (0, 1), ("ials", "softmax")), ("1m", (0,), ("ials",))):
        movielens = MovieLens.load(name, folder)
        rng, tables = np.random.default_rng(0), movielens.tables
        shapes = {"user_features": movielens.data.num_users, "item_features": movielens.data.num_items}
        given = {
            "nothing": {},
            "attributes": tables,
            "attributes, all columns twice": {role: own.assign(**own.add_suffix(" again")) for role, own in tables.items()},
            "attributes, rows permuted": {
                role: own.sample(frac=1, random_state=0, ignore_index=True) for role, own in tables.items()
            },
            f"{n_columns:,} columns of flags, 1 % of them set": {
                role: sp.csr_array(rng.random((n, n_columns), dtype=np.float32) < 0.01, dtype=np.float64)
                for role, n in shapes.items()
            },
        }
        for loss in losses:
            plain = None
            for label, features in given.items():
                found = []
                for seed in seeds:
                    train, test = fifth_of_each_user(movielens.data, seed)
                    model = ImplicitMatrixFactorization(loss=loss, random_state=0).fit(train, **features)
                    found.append(evaluate(model, test, "ndcg", k=10)["ndcg"][10])
                plain = plain or found
                changes = [one / other - 1 for one, other in zip(found, plain, strict=True)]
                yield {
                    "data": name,
                    "loss": loss,
                    "given": label,
                    **{f"NDCG@10, split {seed}": value for seed, value in zip(seeds, found, strict=True)},
                    "change": statistics.fmean(changes),
                }


def fifth_of_each_user(data, seed):
    """All ratings as positives: without a random fifth of each user's, and that."""
    order = np.lexsort((np.random.default_rng(seed).random(len(data)), data.user_ids))
    counts = np.bincount(data.user_ids)
    place = np.arange(len(data)) - np.repeat(np.cumsum(counts) - counts, counts)
    held_out = place < np.rint(counts / 5)[data.user_ids[order]]
    return data[np.sort(order[~held_out])], data[np.sort(order[held_out])]


def csr_of(file, name):
    """A CSR array from its parts in an archive; LightFM takes no indices of 64 bits."""
    values, indices, pointers = (file[f"{name}_{part}"] for part in ("data", "indices", "indptr"))
    return sp.csr_array((values, indices.astype(np.int32), pointers.astype(np.int32)), shape=tuple(file[f"{name}_shape"]))


def matrix_of(users, items, shape):
    """Positives, each pair once."""
    found = sp.csr_array((np.ones(len(users)), (users, items)), shape=shape)
    found.data[:] = 1
    return found


PARTS = {"choice": choice, "items": items, "users": users, "seconds": seconds, "noise": noise}


def shown(rows):
    """Rows as they are tabulated: without the settings as a dict."""
    return [{name: value for name, value in row.items() if name != "params"} for row in rows]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder of the data; by default SK_TORCHMF_DATA")
    parser.add_argument("--part", nargs="*", choices=list(PARTS), default=list(PARTS), help="none: only the tables anew")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of the results")
    args = parser.parse_args()
    folder = args.data or Path(os.environ.get("SK_TORCHMF_DATA") or "~/sk_torchmf_data").expanduser()
    torch.set_num_threads(1)
    path = args.results / "implicit_features.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for part in args.part:
        print(f"\n{part}: {PARTS[part].__doc__}", flush=True)
        rows = []
        for row in PARTS[part](folder, results):
            rows.append(row)
            print(*(f"{name}: {value}" for name, value in row.items() if name != "params"), sep="  ", flush=True)
            path.write_text(json.dumps(results | {part: rows}, indent=1) + "\n")
        results[part] = rows
    sections = [f"## {part}\n\n{PARTS[part].__doc__}\n\n{table(shown(results[part]))}\n" for part in PARTS if part in results]
    (args.results / "implicit_features.md").write_text("# Positives and features\n\n" + "\n".join(sections))


if __name__ == "__main__":
    main()
