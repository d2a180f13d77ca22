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


def named_tables():
    """Ratings under the names that cmfrec asks for, and tables of users and items, two of whom have no ratings."""
    df = frame().set_axis(["UserId", "ItemId", "Rating"], axis=1)
    users, items = [*df["UserId"].unique(), "new"], [*df["ItemId"].unique(), "cold"]
    age, sweet = (np.linspace(-1.0, 1.0, len(ids)) for ids in (users, items))
    of_users = pd.DataFrame({"UserId": users, "age": age, "member": np.arange(len(users)) % 2.0})
    of_items = pd.DataFrame({"ItemId": items, "hot": np.arange(len(items)) % 2.0, "sweet": sweet})
    return {"df": df, "U": of_users, "I": of_items}


def of_cmfrec(cmfrec, path):
    import pickle

    tables, ratings = named_tables(), clicks()[0].tocoo()
    model = cmfrec.CMF(k=4, verbose=False, nthreads=1).fit(tables["df"], tables["U"], tables["I"])
    path.write_bytes(pickle.dumps(model))
    every = {name: getattr(cmfrec, name) for name in ("CMF", "CMF_implicit", "OMF_explicit")}
    every |= tables | {"ratings": ratings, "weights": np.ones(ratings.nnz), "tags": tags().tocoo(), "model": model}
    return every | {"new": np.array([[1.0, 0.5], [0.0, -0.5]]), "attributes": np.array([0.3, 1.0]), "pickle": pickle}


def tagged_items():
    """A table of the items of ``frame``, whose tags are text with commas."""
    items = np.unique(frame()["item"])
    at = np.arange(len(items))
    labels = np.where(at % 2, "hot,sweet", "sweet").astype(object)
    return pd.DataFrame({"item": items, "kind": np.array(["a", "b", "c"])[at % 3], "tags": labels, "year": 2000.0 + at})


def of_myfm(myfm, path):
    import pickle

    from myfm.utils import callbacks, encoders

    df, items = frame(), tagged_items()
    encoder = encoders.DataFrameEncoder()
    for name in ("user", "item"):
        encoder.add_column(name, encoders.CategoryValueToSparseEncoder(df[name]))
    X, y, index = encoder.encode_df(df), df["rating"].to_numpy(), np.searchsorted(items["item"], df["item"]).tolist()
    item_rows = sp.hstack([sp.eye(len(items)), tags()], format="csr")
    users, person = np.unique(df["user"], return_inverse=True)
    blocks = [myfm.RelationBlock(person.tolist(), sp.eye(len(users), format="csr")), myfm.RelationBlock(index, item_rows)]
    model = myfm.MyFMRegressor(rank=4).fit(X, y, n_iter=20)
    ordinal = myfm.MyFMOrderedProbit(rank=4).fit(X, y.astype(int) - 1, n_iter=20)
    path.write_bytes(pickle.dumps(model))
    every = {name: getattr(module, name) for module in (myfm, callbacks, encoders) for name in module.__all__}
    every |= {"df": df, "items": items, "encoder": encoder, "X": X, "y": y, "X_test": X[:9], "y_test": y[:9], "pd": pd}
    every |= {"index": index, "item_rows": item_rows, "blocks": blocks, "model": model, "ordinal": ordinal}
    return every | {"of_ann": encoder.encode_df(items[["item"]].assign(user="ann")), "pickle": pickle}


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
