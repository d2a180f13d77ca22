"""Every call of a fitted estimator, entered once, for what holds whatever is asked: in forks, in threads, of mapped files."""

import copy
import inspect
import os
import tempfile

import numpy as np
from torch import nn

from sk_torchmf import TorchFactorization, metrics

NO_ANSWER = {"get_feature_names_out", "get_params", "load", "set_params"}  # names and parameters; what saves loads


def answers(result):
    """The numbers of what a call returns, as a flat list of arrays; those of an estimator are its predictions."""
    if isinstance(result, dict):
        result = list(result.values())
    if isinstance(result, nn.Module):
        result = [tensor.detach().numpy() for tensor in result.state_dict().values()]
    if isinstance(result, tuple | list):
        return [array for part in result for array in answers(part)]
    return [result if isinstance(result, np.ndarray) else np.asarray(result)]


def save_and_load(model, data):
    code = {"module": model.module} if isinstance(model, TorchFactorization) else {}
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model")
        model.save(path)
        return type(model).load(path, **code).predict(data)


def take_over(model, data):
    """``set_factors`` to the same rows."""
    rows = [getattr(model, f"{role}_{kind}_", None) for kind in ("factors", "biases") for role in ("user", "item")]
    return copy.copy(model).set_factors(*rows, interactions=data).predict(data)


def fit_batches(model, data):
    batches = [(data.user_ids, data.item_ids, data.ratings)]
    return copy.copy(model).fit_batches(batches, n_users=data.num_users, n_items=data.num_items).predict(data)


def extend(model, data):
    """Of a model that was fitted again with attributes; one more item is known by its own."""
    described = copy.copy(model).fit(data, item_features=np.eye(data.num_items, 3) + 1.0)
    return described.extend(item_features=np.ones((data.num_items + 1, 3))).predict(3)


def new_users(data):
    return data.tocsr()[:100]


# By the name of the method, and what is special: each takes a model that was fitted to a container, and that container. Of what
# changes an estimator a shallow copy is asked, so that arrays which it changed in place would be found changed.
CALLS = {
    "predict": lambda model, data: model.predict(data),
    "predict ids": lambda model, data: model.predict(np.arange(-1, 30)[:, None], np.arange(-1, 20)),
    "predict all of a user": lambda model, data: model.predict(3),
    "predict new": lambda model, data: model.predict(new_users(data)),
    "predict std": lambda model, data: model.predict(data, return_std=True),
    "predict_proba": lambda model, data: model.predict_proba(data),
    "recommend": lambda model, data: model.recommend(k=5),
    "recommend one": lambda model, data: model.recommend(3, k=3, items=np.arange(9), exclude_seen=False),
    "recommend new": lambda model, data: model.recommend(new_users(data), k=5),
    "recommend explore": lambda model, data: model.recommend(k=5, explore=True, random_state=0),
    "explain": lambda model, data: model.explain(data),
    "similar_items": lambda model, data: model.similar_items(data.item_ids[:100], 5),
    "similar_users": lambda model, data: model.similar_users(data.user_ids[:100], 5),
    "fold_in": lambda model, data: model.fold_in(new_users(data)),
    "transform": lambda model, data: model.transform(data),
    "inverse_transform": lambda model, data: model.inverse_transform(model.fold_in(new_users(data))),
    "predict_left_out": lambda model, data: model.predict_left_out(new_users(data)),
    "score": lambda model, data: model.score(data),
    "evaluate": lambda model, data: list(metrics.evaluate(model, data, exclude_seen=False)["ndcg"].values()),
    "embeddings": lambda model, data: model.embeddings(),
    "to_module": lambda model, data: model.to_module(),
    "gather": lambda model, data: model.gather().predict(data),
    "save": save_and_load,
    "set_factors": take_over,
    "fit": lambda model, data: copy.copy(model).fit(data).predict(data),
    "fit on": lambda model, data: copy.copy(model).set_params(warm_start=True).fit(data).predict(data),
    "partial_fit": lambda model, data: copy.copy(model).partial_fit(data).predict(data),
    "extend": extend,
    "fit_batches": fit_batches,
}
BY_FOLD_IN = {"predict new", "recommend new"}
BY_POSTERIOR = {"predict std", "recommend explore"}


def calls_of(model):
    """The calls that a fitted model answers."""
    uncertain = getattr(model, "user_posterior_", None) is not None
    left_out = set() if hasattr(model, "fold_in") else BY_FOLD_IN
    if not uncertain or model._link().variance is None:
        left_out = left_out | BY_POSTERIOR
    return {
        name: call
        for name, call in CALLS.items()
        if name not in left_out and (name == "evaluate" or hasattr(model, name.split()[0]))
    }


def public_methods(kind):
    """Names of the methods that this package gives a class."""
    found = inspect.getmembers(kind, callable)
    return {name for name, method in found if name[0] != "_" and getattr(method, "__module__", "").startswith("sk_torchmf")}
