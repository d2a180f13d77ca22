"""Films and users without ratings on MovieLens: ``cold_average``, and beside it a hybrid trained by SGD, myFM, and biases alone.

Run it with::

    OMP_NUM_THREADS=1 python docs/benchmarks/cold_start.py --data FOLDER        # or SK_TORCHMF_DATA=FOLDER
    OMP_NUM_THREADS=1 python docs/benchmarks/cold_start.py --only 1m item hybrid  # records whose name has these words anew

``FOLDER`` is what ``datasets.fetch_movielens(features=True)`` takes. Settings of ours are those of
``features.py``, fixed beforehand.

The hybrid is as LightFM's model with a squared loss: a row is the sum of the rows of its features, among them one of its own, and
biases likewise; Adam on minibatches of Torch. Its step, ridge and number of epochs are chosen by row on a fifth of the *training*
rows of the cold side, then all training ratings are fitted. myFM takes part where it is installed, with an own row for each id
and the attributes in relation blocks. Predictions are clipped for RMSE. Records go to ``results/cold_start.json`` as soon as they
are there, the table to ``results/cold_start.md``.
"""

import argparse
import itertools
import json
import os
from pathlib import Path

import features
import numpy as np
import torch
from scipy import sparse as sp
from torch.nn.functional import embedding_bag

from sk_torchmf import FeatureEncoder
from sk_torchmf.model_selection import ColdItemSplit, ColdUserSplit

SPLITTERS = {"item": ColdItemSplit, "user": ColdUserSplit}
SETTINGS = "side", "side + both"
AVERAGES = None, "macro", "micro"
GRID = {  # of the hybrid
    "100k": {"learning_rate": [0.003, 0.01], "ridge": [1e-4, 1e-3, 1e-2]},
    "1m": {"learning_rate": [0.01], "ridge": [1e-4, 1e-3, 1e-2]},
}
EPOCHS = {"100k": 20, "1m": 6}  # at most
BATCH = {"100k": 4096, "1m": 16384}
SWEEPS = {"100k": 100, "1m": 20}  # of myFM


def split(data, role, seed):
    """All ratings but those of a fifth of the items or users, and those."""
    train, test = next(SPLITTERS[role](1, test_size=0.2, random_state=seed).split(data))
    return data[train], data[test]


class Hybrid(torch.nn.Module):
    """Rows and biases of users and items as sums over their features, themselves among these where they were trained on."""

    def __init__(self, movielens, train, n_factors):
        super().__init__()
        torch.manual_seed(0)
        self.mean, self.bags, self.tables = float(train.ratings.mean()), [], torch.nn.ParameterList()
        for table, ids in zip(movielens.tables.values(), (train.user_ids, train.item_ids), strict=True):
            encoded = sp.csr_array(FeatureEncoder().fit_transform(table))
            own = sp.diags_array((np.bincount(ids, minlength=len(table)) > 0).astype(float))  # one that is cold has no row
            matrix = sp.csr_array(sp.hstack([own, encoded]))
            matrix.eliminate_zeros()
            self.bags.append([torch.from_numpy(part) for part in (matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64))])
            self.bags[-1].append(torch.from_numpy(matrix.data.astype(np.float32)))
            self.tables.append(
                torch.cat([torch.randn(matrix.shape[1], n_factors) * 0.1 / n_factors**0.5, torch.zeros(matrix.shape[1], 1)], 1)
            )

    def rows(self, side, ids):
        """Factors and bias of some ids."""
        pointers, columns, values = self.bags[side]
        lengths = pointers.diff()[ids]
        ends = lengths.cumsum(0)
        place = torch.arange(int(ends[-1])) + (pointers[ids] - (ends - lengths)).repeat_interleave(lengths)
        options = {"mode": "sum", "per_sample_weights": values[place]}
        return embedding_bag(columns[place], self.tables[side], ends - lengths, **options)

    def forward(self, user, item):
        """Predicted ratings, and the squares of the rows that they were made of."""
        rows = []
        for side, ids in enumerate((user, item)):
            distinct, place = ids.unique(return_inverse=True)  # a row is summed once in a batch
            rows.append(self.rows(side, distinct)[place])
        p, q = rows
        return self.mean + (p[:, :-1] * q[:, :-1]).sum(1) + p[:, -1] + q[:, -1], p.square().sum(1) + q.square().sum(1)


def train_hybrid(movielens, train, n_epochs, learning_rate, ridge):
    """Yield the hybrid after each epoch."""
    model = Hybrid(movielens, train, features.SIZES[movielens.name]["n_factors"])
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    user, item, rating = (torch.from_numpy(np.asarray(part)) for part in (train.user_ids, train.item_ids, train.ratings))
    user, item, rating = user.long(), item.long(), rating.float()
    generator = torch.Generator().manual_seed(0)
    for _ in range(n_epochs):
        for batch in torch.randperm(len(user), generator=generator).split(BATCH[movielens.name]):
            predicted, squares = model(user[batch], item[batch])
            loss = (predicted - rating[batch]).square().mean() + ridge * squares.mean()
            for table in model.tables:
                loss = loss + ridge * table.square().sum() / BATCH[movielens.name]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield model


def predict_hybrid(model, test):
    """Predictions of a table of pairs."""
    with torch.no_grad():
        return model(torch.from_numpy(test.user_ids).long(), torch.from_numpy(test.item_ids).long())[0].double().numpy()


def hybrid(movielens, train, test, role):
    """Predictions of the hybrid by the settings that are best by row on a part of the training rows; and which these are."""
    part, held_out = split(train, role, 1)
    ids, best = getattr(held_out, f"{role}_ids"), (np.inf, None)
    grid = GRID[movielens.name]
    for values in itertools.product(*grid.values()):
        params = dict(zip(grid, values, strict=True))
        for epoch, model in enumerate(train_hybrid(movielens, part, EPOCHS[movielens.name], **params), start=1):
            error = features.by_row(predict_hybrid(model, held_out).clip(1, 5), held_out, ids)["RMSE by row"]
            best = min(best, (error, {"n_epochs": epoch, **params}), key=lambda pair: pair[0])
    *_, model = train_hybrid(movielens, train, **best[1])
    return predict_hybrid(model, test), best[1]


def records(folder, only):
    """What each way of predicting cold rows makes of them, by name."""
    for name, role in itertools.product(features.SIZES, SPLITTERS):
        movielens = features.MovieLens.load(name, folder)
        train, test = split(movielens.data, role, 0)
        ids = getattr(test, f"{role}_ids")

        def record(by, predicted, ids=ids, test=test, **more):
            return {"by": by, **features.by_row(predicted.clip(1, 5), test, ids), **more}

        for setting, average in itertools.product(("plain", *SETTINGS), AVERAGES):
            by = f"{setting}, cold_average={average!r}"
            if wanted(only, name, role, by):
                model, seconds = features.timed(movielens.fit, train, setting, cold_average=average)
                predicted, std = model.predict(test, return_std=True)
                inside = np.abs(predicted - test.ratings) <= features.WITHIN * std
                yield name, role, record(by, predicted, covered=float(inside.mean()), seconds=seconds)
        if wanted(only, name, role, "biases of the other side"):
            yield name, role, record("biases of the other side", features.other_biases(train, test, role))
        if wanted(only, name, role, "hybrid"):
            (predicted, params), seconds = features.timed(hybrid, movielens, train, test, role)
            yield name, role, record("hybrid", predicted, seconds=seconds, settings=json.dumps(params))
        if wanted(only, name, role, "myFM") and (myfm := features.optional("myfm")):
            predicted, seconds = features.by_myfm(myfm, movielens, train, test, "side", SWEEPS[name])
            yield name, role, record("myFM", predicted, seconds=seconds, settings=f"{SWEEPS[name]} sweeps")


def wanted(only, *words):
    """Whether a record is asked for: all of the given words are in its name."""
    return all(word in " ".join(words) for word in only)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder of the data; by default SK_TORCHMF_DATA")
    parser.add_argument("--only", nargs="*", default=[], help="words that are all in the names of the records to measure")
    parser.add_argument("--results", type=Path, default=features.RESULTS, help="the folder of the results")
    args = parser.parse_args()
    folder = args.data or Path(os.environ.get("SK_TORCHMF_DATA") or "~/sk_torchmf_data").expanduser()
    torch.set_num_threads(1)
    path = args.results / "cold_start.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    for name, role, row in records(folder, args.only):
        found[f"{name} {role} {row['by']}"] = {"data": name, "cold": role, **row}
        path.write_text(json.dumps(found, indent=1) + "\n")
        print(
            *(f"{column}: {features.shown(column, value)}" for column, value in found[f"{name} {role} {row['by']}"].items()),
            sep="  ",
            flush=True,
        )
    rows = sorted(found.values(), key=lambda row: (row["data"], row["cold"]))
    text = f"# Cold start: films and users without ratings\n\n{features.table(rows)}\n"
    (args.results / "cold_start.md").write_text(text)


if __name__ == "__main__":
    main()
