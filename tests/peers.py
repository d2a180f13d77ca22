"""What the left columns of the pages in docs/coming_from need: the peers' own objects, on data of any kind. Knows no test."""

import numpy as np
import pandas as pd
import pytest
import torch
from data import planted


def names(page, path):
    """What the page says its left column has; the test is skipped where the peer is not installed."""
    package = page.package and pytest.importorskip(page.package)
    return {"np": np, "torch": torch, "path": str(path)} | globals()[f"of_{page}"](package, path)


def frame():
    """Ratings from 1 to 5 by persons and of things with names, in random order."""
    data = planted(3, mean=3.0, n_users=30, n_items=20, n_ratings=300)[0]
    users = np.array(["ann", *(f"user{n}" for n in range(29))])[data.user_ids]
    items = np.array(["tea", *(f"item{n}" for n in range(19))])[data.item_ids]
    return pd.DataFrame({"user": users, "item": items, "rating": np.clip(np.rint(data.ratings), 1, 5)})


def ratings_file(path):
    """The same as a file, its path."""
    frame().to_csv(path, index=False)
    return str(path)


def of_surprise(surprise, path):
    from surprise import accuracy, model_selection

    reader = surprise.Reader(line_format="user item rating", sep=",", skip_lines=1)
    data = surprise.Dataset.load_from_df(frame(), reader)
    trainset, testset = model_selection.train_test_split(data, random_state=0)
    algo, knn = surprise.SVD(n_epochs=3).fit(trainset), surprise.KNNBasic(verbose=False).fit(trainset)
    surprise.dump.dump(str(path), algo=algo)
    every = {name: getattr(module, name) for module in (surprise, model_selection) for name in module.__all__}
    every |= {"df": frame(), "file": ratings_file(path.with_suffix(".csv")), "reader": reader, "data": data, "accuracy": accuracy}
    return every | {"trainset": trainset, "testset": testset, "algo": algo, "knn": knn, "predictions": algo.test(testset)}
