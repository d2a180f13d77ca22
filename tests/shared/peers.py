"""What the left columns of the pages in docs/coming_from need: the peers' own objects, on data of any kind. Knows no test."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
import tutorial
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


def clicks():
    """A CSR matrix of counts, users x items, and the same with ones."""
    data = planted(3, mean=3.0, n_users=30, n_items=20, n_ratings=300)[0]
    plays = sp.csr_matrix((1.0 + np.arange(300) % 4, (data.user_ids, data.item_ids)), shape=(30, 20), dtype=np.float32)
    likes = plays.copy()
    likes.data[:] = 1
    return plays, likes


def of_implicit(implicit, path):
    from implicit import als, bpr, evaluation, lmf, nearest_neighbours

    plays, likes = clicks()
    train, test = evaluation.train_test_split(likes, random_state=0)
    model, ranking = als.AlternatingLeastSquares(factors=4, random_state=0), bpr.BayesianPersonalizedRanking(factors=4)
    for each in (model, ranking):
        each.fit(train, show_progress=False)
    model.save(str(path))
    every = {name: value for module in (als, bpr, lmf, evaluation, nearest_neighbours) for name, value in vars(module).items()}
    user, item = plays.nonzero()
    every |= {"plays": plays, "likes": likes, "row": likes[3], "sp": sp, "user": user, "item": item, "count": plays.data}
    return every | {"train": train, "test": test, "model": model, "bpr": ranking}


def tags():
    """Which of three tags 20 items have, a CSR matrix."""
    return sp.csr_matrix(np.arange(20)[:, None] % [2, 3, 5] == 0, dtype=np.float32)


def of_lightfm(lightfm, path):
    import pickle

    from lightfm import cross_validation, data, evaluation

    df, dataset = frame(), data.Dataset()
    dataset.fit(df["user"], df["item"])
    interactions, weights = dataset.build_interactions(df.itertuples(index=False))
    signs = sp.coo_matrix((np.where(weights.data > 3, 1, -1), (weights.row, weights.col)), weights.shape)
    train, test = cross_validation.random_train_test_split(interactions, random_state=0)
    model, tagged = (lightfm.LightFM(no_components=4, loss="warp") for _ in range(2))
    tagged.fit(interactions, item_features=tags())
    path.write_bytes(pickle.dumps(model.fit(train)))
    every = {name: value for module in (lightfm, cross_validation, data, evaluation) for name, value in vars(module).items()}
    every |= {"df": df, "dataset": dataset, "interactions": interactions, "weights": weights, "signs": signs, "pickle": pickle}
    return every | {"train": train, "test": test, "tags": tags(), "model": model, "tagged": tagged, "sp": sp}


def of_torch_loop(package, path):
    data = planted(3, mean=3.0, n_users=30, n_items=20, n_ratings=300)[0]
    user, item, rating = (torch.from_numpy(part) for part in (data.user_ids, data.item_ids, data.ratings.astype(np.float32)))
    module, criterion = tutorial.Plain(30, 20, sparse=False), torch.nn.MSELoss()
    dataset = torch.utils.data.TensorDataset(user, item, rating)
    torch.save(module.state_dict(), path)
    every = {"user": user, "item": item, "rating": rating, "df": frame(), "n_users": 30, "n_items": 20, "pd": pd}
    every |= {"MyModule": tutorial.Plain, "module": module, "criterion": criterion, "u": user, "i": item, "r": rating, "epoch": 0}
    every |= {"optimizer": torch.optim.Adam(module.parameters()), "loss": criterion(module(user, item), rating), "losses": []}
    every |= {"dataset": dataset, "loader": torch.utils.data.DataLoader(dataset, 64), "best": 1.0, "P": torch.ones(30, 2)}
    return every | {"Q": torch.ones(20, 2)} | {name: getattr(torch.utils.data, name) for name in torch.utils.data.__all__}
