"""Cases of fits that several processes share: each function runs in all of them and returns what this one got."""

import contextlib
import copy
import io
import os
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch.distributed as dist
from numpy.testing import assert_allclose, assert_array_equal

from sk_torchmf import BiasedMatrixFactorization, DivergenceError, Interactions, MatrixFactorization, Shards
from sk_torchmf.distributed import communicator
from sk_torchmf.solvers import als
from sk_torchmf.solvers.likelihood import Likelihood
from sk_torchmf.solvers.variational import Variational
from sk_torchmf.training import loop

N_USERS, N_ITEMS, TIMEOUT = 40, 15, 3  # seconds, where a process is lost
KINDS = {"plain": MatrixFactorization, "biased": BiasedMatrixFactorization}
LOSSES = ["squared_error", "huber", "poisson", "logistic", "ordinal"]
SOLVERS = ["als", "adam", "adagrad", "sgd"]  # beside variational
FORMS = ["numbers", "text", "container", "sparse"]


def whole(loss="squared_error", form="numbers"):
    """What the processes share: ids, ratings on eleven levels or 0 and 1, weights. No pair is there twice."""
    rng = np.random.default_rng(0)
    user, item = np.nonzero(rng.random((N_USERS, N_ITEMS)) < 0.5)
    P, Q = rng.normal(size=(N_USERS, 2)), rng.normal(size=(N_ITEMS, 2))
    rating = np.round(2 * (2.5 + (P[user] * Q[item]).sum(1) + 0.3 * rng.normal(size=len(user)))).clip(0, 10) / 2
    rating = (rating > 2.5).astype(float) if loss == "logistic" else rating
    weight = rng.uniform(0.3, 2, len(user))
    if form == "text":
        user, item = (np.char.add(prefix, ids.astype(str)) for prefix, ids in (("user", user), ("film ", item)))
    elif form == "numbers":
        user, item = 3 * user + 7, 100 - item
    return user, item, rating, weight


def rows_of(rank, size, n, user, form):
    """The rows that a process has: any, but of a sparse matrix those of consecutive users."""
    if form == "sparse":
        ends = [N_USERS * at // size for at in (rank, rank + 1)]
        return np.flatnonzero((user >= ends[0]) & (user < ends[1]))
    return np.arange(rank, n, size)


def part(rank, size, loss="squared_error", form="numbers", weighted=False):
    """X, y and weights of a process."""
    user, item, rating, weight = whole(loss, form)
    rows = rows_of(rank, size, len(user), user, form)
    first = N_USERS * rank // size
    user, item, rating, weight = user[rows], item[rows], rating[rows], weight[rows] if weighted else None
    if form == "container":
        return Interactions(user, item, rating, weights=weight, num_users=N_USERS, num_items=N_ITEMS), None, None
    if form == "sparse":
        shape = N_USERS * (rank + 1) // size - first, N_ITEMS
        return (
            sp.csr_array((rating, (user - first, item)), shape=shape),
            None,
            1.0 + np.arange(first, first + shape[0]) if weighted else None,
        )
    return pd.DataFrame({"user": user, "item": item}), rating, weight


def make(kind="biased", **options):
    params = {"n_factors": 3, "max_iter": 4, "dtype": "float64", "random_state": 0, "user": 0, "item": 1, "distributed": True}
    return KINDS[kind](**params | options)


def assert_same(ours, theirs, name, tolerance):
    """One attribute of two fits, numbers to a tolerance relative to the largest."""
    if isinstance(theirs, tuple | list):
        assert len(ours) == len(theirs)
        for own, other in zip(ours, theirs, strict=True):
            assert_same(own, other, name, tolerance)
    elif isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key in theirs:
            if key != "seconds":
                assert_same(ours[key], theirs[key], name, tolerance)
    elif hasattr(theirs, "from_state"):  # an effect
        assert_same(ours.state(), theirs.state(), name, tolerance)
    elif hasattr(theirs, "with_rows"):  # what was seen, on disk
        assert_array_equal(ours.number, theirs.number, name)
    elif hasattr(theirs, "get_params"):  # an encoder
        assert_same(vars(ours), vars(theirs), name, tolerance)
    elif sp.issparse(theirs):
        for part in ("indptr", "indices", "data"):
            assert_array_equal(getattr(ours, part), getattr(theirs, part), name)
        assert (ours.shape, ours.dtype, ours.indices.dtype) == (theirs.shape, theirs.dtype, theirs.indices.dtype)
    elif isinstance(theirs, float) or getattr(theirs, "dtype", np.dtype(object)).kind == "f":
        assert np.asarray(ours).dtype == np.asarray(theirs).dtype
        assert_allclose(ours, theirs, rtol=0, atol=tolerance * max(np.abs(theirs).max(initial=0), 1), err_msg=name)
    else:
        assert_array_equal(ours, theirs, name)
        assert getattr(ours, "dtype", None) == getattr(theirs, "dtype", None)


def place():
    """Rank and size."""
    with communicator(True) as processes:
        return processes.rank, processes.size


def state(model):
    return {name: value for name, value in vars(model).items() if name.endswith("_") and name[0] != "_"}


def found_by(model, X, y=None, weight=None):
    """The attributes of a fit, and of all its parts together."""
    model.fit(X, y, weight)
    return state(model), state(model.gather())


def fit(kind, loss, form, weighted, **options):
    return found_by(make(kind, loss=loss, **options), *part(*place(), loss, form, weighted))


FITS = {
    f"{kind}_{loss}{'_weighted' if weighted else ''}": partial(fit, kind, loss, "numbers", weighted)
    for kind in KINDS
    for loss in LOSSES
    for weighted in (False, True)
}
FITS |= {
    f"{kind}_{form}": partial(fit, kind, "squared_error", form, kind == "biased")
    for kind in KINDS
    for form in FORMS
    if form != "numbers"
}


FITS |= {
    f"{kind}_{solver}_{loss}": partial(fit, kind, loss, "numbers", loss in ("huber", "logistic"), solver=solver, max_iter=4)
    for kind in KINDS
    for solver in SOLVERS
    for loss in LOSSES
    if loss != "ordinal"
}
FITS |= {f"{kind}_own_cut_points": partial(fit, kind, "ordinal", "numbers", True, cut_points="user", max_iter=4) for kind in KINDS}


def shards_of(**options):
    """A data set on disk that the first process makes, of which each reads the shards of its users."""
    user, item, rating, weight = whole(options.get("loss", "squared_error"))
    rows = {"user": user, "item": item, "rating": rating, "weight": weight}
    with communicator(True) as processes:
        folder = Path(processes.broadcast(tempfile.mkdtemp()), "shards")
        if processes.rank == 0:
            columns = {name: name for name in rows}
            Shards.from_chunks([rows], folder, **columns, n_shards=12)
        processes.all_gather(None)  # it is whole
    return Shards(folder)


def from_shards(kind, **options):
    return found_by(make(kind, **options), shards_of(**options))


def from_shards_with_all(**options):
    """Attributes, of which each process has some rows; validation data that decide; earlier rows."""
    rank, size = place()
    model, shards = make(max_iter=6, warm_start=True, early_stopping=True, n_iter_no_change=2, **options), shards_of(**options)
    tables = {f"{role}_features": attributes_of(role, "numbers")[rank::size] for role in ("user", "item")}
    for _ in range(2):
        model.fit(shards, None, None, *validated_by(rank, size), **tables)
    return state(model), state(model.gather())


FITS |= {
    f"{kind}_from_shards_{loss}": partial(from_shards, kind, loss=loss, max_iter=4)
    for kind, loss in (("biased", "squared_error"), ("plain", "huber"), ("biased", "ordinal"))
}
FITS |= {f"plain_from_shards_{solver}": partial(from_shards, "plain", solver=solver, max_iter=4) for solver in ("als", "adam")}
FITS |= {f"biased_from_shards_with_all_{solver}": partial(from_shards_with_all, solver=solver) for solver in ("variational", "als")}


def of_few_items_at_once():
    """The matrices of two items at a time are summed."""
    return _with(als, "SHARED", 40, lambda: found_by(make(solver="als", loss="huber", max_iter=3), *part(*place())))


def attributes_of(role, form):
    """A table of attributes: numbers with gaps, categories and lists; of some ids of X, and of some that X lacks."""
    n = N_USERS if role == "user" else N_ITEMS
    ids = np.delete(np.arange(n + 3), [2, 5])
    rng = np.random.default_rng(1)
    table = pd.DataFrame(
        {
            "age": np.where(ids % 7 == 0, np.nan, rng.normal(size=len(ids))),
            "place": np.array(["sea", "hills", "town"])[ids % 3],
            "tags": [[f"t{at % 4}", "t1"][: at % 3] for at in ids.tolist()],
        }
    )
    if form == "text":
        ids = np.char.add("user" if role == "user" else "film ", ids.astype(str))
    elif form == "numbers":
        ids = 3 * ids + 7 if role == "user" else 100 - ids
    return table.assign(**{role: ids})


def found_by_part(kind, **options):
    return found_by(make(kind, **options), *part(*place(), options.get("loss", "squared_error"), weighted=kind == "biased"))


def with_features(form, kind="biased", **options):
    """Each process has some rows of the users' table, of whoever; those of items are on all and on the last."""
    rank, size = place()
    X, y, weight = part(rank, size, options.get("loss", "squared_error"), form)
    users, items = attributes_of("user", form), attributes_of("item", form)
    if form == "sparse":
        first, end = (N_USERS * at // size for at in (rank, rank + 1))
        users, items = users[(users["user"] >= first) & (users["user"] < end)], items[items["item"] < N_ITEMS]
        users = users.assign(user=users["user"] - first)
    else:
        users = users[rank::size]
    items = items[::2] if rank < size - 1 else items
    tables = {"user_features": users, "item_features": items if size == 1 or rank else None}
    model = make(kind, **options).fit(X, y, weight, **tables)
    return state(model), state(model.gather())


KIND_AND_FORM = list(zip(["biased", "plain"] * 2, FORMS, strict=True))
FITS |= {f"{kind}_features_{form}": partial(with_features, form, kind) for kind, form in KIND_AND_FORM}


def of_two_users():
    """All at once, where most processes end without users: attributes, context, a slice that decides, earlier rows."""
    rank, size = place()
    rows = np.arange(rank, 2 * N_ITEMS, size)
    X = pd.DataFrame({"user": rows % 2, "item": rows // 2, "where": rows % 3 % 2})
    options = {"effects": ["where", ("user", "where"), ("item", "where")], "seen_features": "user", "cold_average": "macro"}
    model = make(warm_start=True, early_stopping=True, n_iter_no_change=2, validation_fraction=0.3, max_iter=6, **options)
    users = pd.DataFrame({"user": [0, 5], "age": [1.0, 2.0]})
    y = rows * 7 % 5 + 1.0
    for _ in range(2):
        model.fit(
            X, y, user_features=users if rank == 0 else None, item_features=attributes_of("item", "container").iloc[rank::size]
        )
    asked = X.assign(user=0, item=1, where=1)[:1] if len(X) else X
    new = sp.csr_array(np.array([[1.0, 2.0, 3.0, *[0.0] * (model.n_items_ - 3)]]))
    for answer in (model.predict(asked), model.predict(asked, return_std=True)[1], model.predict(new), model.recommend([9])[1]):
        assert np.isfinite(answer).all()
    return state(model), state(model.gather())


SEEN_AND_COLD = {
    "biased_seen": partial(with_features, "numbers", seen_features="user"),
    "plain_seen_alone": partial(found_by_part, "plain", seen_features="user"),
    "biased_cold": partial(with_features, "numbers", cold_average="macro"),
    "plain_cold": partial(found_by_part, "plain", cold_average="macro"),
    "biased_cold_micro": partial(found_by_part, "biased", cold_average="micro"),
}
FITS |= SEEN_AND_COLD
FITS |= {"biased_features_poisson": partial(with_features, "numbers", loss="poisson")}
FITS |= {
    f"{kind}_{solver}_features_{loss}": partial(
        with_features, "numbers", kind, solver=solver, loss=loss, seen_features=seen, cold_average=cold, max_iter=5
    )
    for kind, solver, loss, seen, cold in (
        ("biased", "als", "squared_error", None, None),
        ("plain", "als", "huber", "user", "macro"),
        ("biased", "adam", "poisson", "user", None),
        ("plain", "sgd", "squared_error", None, "micro"),
        ("biased", "adagrad", "logistic", None, None),
    )
}
FITS |= {
    f"plain_{solver}_seen_alone": partial(found_by_part, "plain", solver=solver, seen_features="user", max_iter=5)
    for solver in ("als", "adam")
}
FITS |= {f"biased_als_features_{form}": partial(with_features, form, solver="als", max_iter=5) for form in ("text", "sparse")}


def held_out(form, kind="biased", **options):
    """A share of each user's pairs decides, after few iterations, and the fit begins anew with all."""
    options = {"early_stopping": True, "validation_fraction": 0.2, "n_iter_no_change": 2, "max_iter": 20} | options
    return found_by(make(kind, **options), *part(*place(), options.get("loss", "squared_error"), form, kind == "biased"))


def validated_by(rank, size, form="numbers"):
    """Rows of any users and items, known or not, of which the last of four processes has none."""
    user, item, rating, weight = (own[::4] for own in whole(form=form if form != "sparse" else "container"))
    item = item[::-1].copy()
    if form == "numbers":
        user[:3], item[2:4] = [-5, -6, -7], [500, 501]
    n_parts = min(size, max(size - 1, 2))
    user, item, rating, weight = (own[rank::n_parts] if rank < n_parts else own[:0] for own in (user, item, rating, weight))
    X_val, y_val = pd.DataFrame({"user": user, "item": item}), rating
    if form in ("container", "sparse"):
        X_val, y_val = Interactions(user, item, rating, weights=weight, num_users=N_USERS, num_items=N_ITEMS), None
    return (X_val, y_val) if len(rating) else (None, None)


def validated(form, **options):
    rank, size = place()
    X, y, own_weight = part(rank, size, form=form)
    model = make(**options).fit(X, y, own_weight, *validated_by(rank, size, form))
    return state(model), state(model.gather())


def validated_by_new_users():
    """Matrices of users that nobody was fitted on, of which the last of four processes has none."""
    rank, size = place()
    n_parts = min(size, max(size - 1, 2))
    matrix = np.random.default_rng(2).integers(0, 6, size=(9, N_ITEMS)).astype(float)
    matrix = sp.csr_array(matrix[rank::n_parts]) if rank < n_parts else None
    model = make(early_stopping=True, n_iter_no_change=1, max_iter=10).fit(*part(rank, size), X_val=matrix)
    return state(model), state(model.gather())


HELD_OUT = {f"held_out_{form}": partial(held_out, form, kind) for kind, form in KIND_AND_FORM}
HELD_OUT |= {f"held_out_{loss}": partial(held_out, "numbers", loss=loss) for loss in ("logistic", "ordinal")}
HELD_OUT |= {"held_out_for_good": partial(held_out, "numbers", refit=False)}
HELD_OUT |= {f"validated_{form}": partial(validated, form) for form in FORMS}
HELD_OUT |= {
    "validated_and_stopped": partial(validated, "text", early_stopping=True, max_iter=10),
    "validated_by_new_users": validated_by_new_users,
}
FITS |= HELD_OUT


def in_context(kind, form="numbers", **options):
    """Values of which no process has all, and times, many of which are one; the last of four has no rows."""
    rank, size = place()
    user, item, rating, weight = whole(options.get("loss", "squared_error"), form)
    n, rng = len(user), np.random.default_rng(3)
    where = np.array(["home", "work", "car", "train", "sea"])[np.minimum(rng.integers(0, 5, n), np.arange(n) % 7)]
    seconds = rng.integers(0, 40, n) * 3000.0
    n_parts = min(size, max(size - 1, 2))
    rows = np.arange(rank, n, n_parts) if rank < n_parts else np.arange(0)
    user, item, rating, weight, where, seconds = (own[rows] for own in (user, item, rating, weight, where, seconds))
    X = pd.DataFrame({"user": user, "item": item, "where": where, "day": seconds.astype("M8[s]")})
    if form == "container":
        X = Interactions(user, item, rating, timestamps=seconds, num_users=N_USERS, num_items=N_ITEMS)
        return found_by(make(kind, time=True, **options), X)
    options = {"effects": ["where", ("user", "where"), ("item", "where")], "time": "day"} | options
    model = make(kind, **options)
    found = found_by(model, X, rating, weight)
    assert rank == 0 or np.isfinite(model.predict(X if len(X) else X.reindex([0]).assign(user=7, item=100))).all()
    return found


IN_CONTEXT = {f"{kind}_context": partial(in_context, kind) for kind in KINDS} | {
    "biased_context_container": partial(in_context, "biased", "container"),
    "biased_context_text": partial(in_context, "biased", "text", effects=["where"], time=None, early_stopping=True, max_iter=10),
    "biased_context_logistic": partial(in_context, "biased", loss="logistic"),
}
FITS |= IN_CONTEXT


def begun_with_a_part(kind):
    """The first iterations know neither all users nor all items."""
    X, y, _ = part(*place())
    some = ((X["user"] < 90) & (X["item"] > 90)).to_numpy()
    return make(kind, max_iter=2).fit(X[some], y[some]).set_params(warm_start=True)


def going_on(kind, gathered=False):
    model = begun_with_a_part(kind)
    model = model.gather().set_params(distributed=True, warm_start=True) if gathered else model
    return found_by(model, *part(*place()))


GOING_ON = {f"{kind}_going_on": partial(going_on, kind) for kind in KINDS} | {
    "biased_going_on_from_gathered": partial(going_on, "biased", True)
}
FITS |= GOING_ON


def in_single_precision():
    return found_by(make(dtype="float32"), *part(*place()))


def all_rows_on_the_last():
    rank, size = place()
    X, y, weight = part(0, 1)
    some = slice(None) if rank == size - 1 else slice(0, 0)
    return found_by(make(), X[some], y[some], weight)


def one_user(**options):
    """All but one process end without users."""
    rank, size = place()
    rows = np.arange(rank, N_ITEMS, size)
    return found_by(make(**options), pd.DataFrame({"user": 0 * rows, "item": rows}), rows % 3 + 1.0)


ONE_USER = {f"one_user_{solver}": partial(one_user, solver=solver, max_iter=3) for solver in ("als", "sgd")}
ONE_USER["one_user_own_cut_points"] = partial(one_user, loss="ordinal", cut_points="user", max_iter=3)


def weight_of_zero():
    """An observation that is none, of a user and an item that have no other."""
    rank, size = place()
    X, y, weight = part(rank, size, weighted=True)
    if rank == size - 1:
        X = pd.concat([X, pd.DataFrame({"user": [1000, 1001], "item": [1000, 1001]})])
        y, weight = np.append(y, [1.0, 5.0]), np.append(weight, [0.0, 0.0])
    return found_by(make("plain"), X, y, weight)


def labels_of_two_kinds():
    """-1 and 1, of which a process has one only."""
    rank, size = place()
    user, item, rating, _ = whole("logistic")
    order = np.argsort(rating, kind="stable")[len(rating) * rank // size : len(rating) * (rank + 1) // size]
    return found_by(make(loss="logistic"), pd.DataFrame({"user": user[order], "item": item[order]}), 2 * rating[order] - 1)


def long_fit():
    return make(n_factors=1, max_iter=300).fit(*part(*place())[:2]).predict(part(0, 1)[0])


OTHER_FITS = [
    *["of_few_items_at_once", "in_single_precision", "all_rows_on_the_last", "one_user", *ONE_USER],
    *["weight_of_zero", "labels_of_two_kinds", "of_two_users"],
]


def without_a_seed():
    model = make(random_state=None).fit(*part(*place()))
    return model.item_factors_


def printed():
    rank, size = place()
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        make(verbose=1, max_iter=2).fit(*part(rank, size))
    return out.getvalue()


class Stopping(loop.Observer):
    """Asks for the end after two epochs."""

    def end_epoch(self, progress, solver, fitted):
        progress.stop |= len(progress.history["loss"]) == 2


class StoppedOnOne(BiasedMatrixFactorization):
    """Is told to stop on rank 1 only."""

    def _showing(self, phases, for_callbacks, processes):
        return [Stopping()] if processes.rank == 1 else []


def stopped_by_one():
    model = StoppedOnOne(n_factors=2, random_state=0, distributed=True).fit(*part(*place()))
    return model.n_iter_, model.history_


def what_is_asked_of_others():
    """Users of another process are unknown here; nothing that is asked of a fitted model waits for others."""
    rank, size = place()
    model = make().fit(*part(rank, size))
    users = np.unique(whole()[0])
    if rank == 1:  # the others do not call
        model.recommend(k=3), model.score(*part(rank, size)[:2]), model.predict(users, 100)
    alike = [user for user in users if user not in model.users_]
    return model.users_, np.unique(model.predict(alike, np.full(len(alike), 100))), model.gather().partial_fit(*part(0, 1)).n_users_


def answers_for_own_users(form):
    """What this process says of its users, and what the whole says of them: by all that is asked of a model of ratings."""
    X, y, _ = part(*place(), form=form)
    model = make().fit(X, y)
    whole, own = model.gather(), model.users_
    pairs = np.repeat(own, 2), np.tile(model.items_[:2], len(own))
    new = sp.csr_array(np.array([[1.0, 2.0, 3.0, *[0.0] * (N_ITEMS - 3)]]))
    path = f"{tempfile.mkdtemp()}/part.npz"
    copy.copy(model).set_params(distributed=False).save(path)

    def answers(one):
        found = {
            "predict": one.predict(*pairs),
            "std": one.predict(pd.DataFrame({"user": pairs[0], "item": pairs[1]}), return_std=True)[1],
            "recommend": one.recommend(own, k=4),
            "explore": one.recommend(own, k=4, explore=True, random_state=0),
            "unknown": one.predict([-5 if form != "text" else "nobody"], [model.items_[0]]),
            "similar": one.similar_items(model.items_[:3], 2),
            "new": one.fold_in(new),
            "new scores": one.predict(new),
        }
        return found | ({"user": one.predict(own[0])} if len(own) else {})

    return answers(model), answers(whole), answers(BiasedMatrixFactorization.load(path))


ASKED = {f"asked_{form}": partial(answers_for_own_users, form) for form in FORMS}


def asked_without_users():
    """A process that has no users answers for unknown ones, and for new ones."""
    X, y, _ = part(0, 1)
    some = (X["user"] == 7).to_numpy()
    model = make().fit(X[some], y[some])  # given by all processes, so that each observation counts as often as there are these
    new = sp.csr_array(np.arange(float(model.n_items_))[None])
    path = f"{tempfile.mkdtemp()}/part.npz"
    loaded = BiasedMatrixFactorization.load(copy.copy(model).set_params(distributed=False).save(path) and path)
    return [(one.n_users_, one.predict(-5, one.items_), one.recommend(-5, k=2), one.predict(new)) for one in (model, loaded)]


def gathered_on_other_parts():
    """Each process has the estimator of the first."""
    model = make().fit(*part(*place()))
    with communicator(True) as processes:
        model = processes.broadcast(model)
    with pytest.raises(ValueError, match="gather needs") as caught:
        model.gather()
    return str(caught.value)


def _raised(run, *, expected=Exception):
    with pytest.raises(expected) as caught:
        run()
    return type(caught.value).__name__, str(caught.value)


def refused(options, given):
    return _raised(lambda: make(**options).fit(*part(*place()), **given))


REFUSED = {
    "scoring": ({"early_stopping": True, "scoring": "r2"}, {}, "needs scoring=None"),
    "seen_features": ({"seen_features": "both"}, {}, 'needs seen_features="user" or None'),
    "batches": ({"solver": "adam", "batch_size": 50}, {}, "needs batch_size=None: a batch would depend on which process has"),
    "lbfgs": ({"solver": "lbfgs"}, {}, 'takes no solver="lbfgs": its steps depend on the products of all rows at once.'),
    "validation_data": ({}, {"X_val": Interactions([0], [0], [3.0])}, "X_val must be a table, as X is"),
    "exact_early_stopping": ({"early_stopping": True, "distributed": "exact"}, {}, 'distributed="exact" takes no early_stopping'),
}
CASES = (
    FITS | ONE_USER | ASKED | {f"refused_{name}": partial(refused, options, given) for name, (options, given, _) in REFUSED.items()}
)


def partial_fit_refused():
    return _raised(lambda: make().partial_fit(*part(*place())))


def error_in_one():
    def run():
        rank, size = place()
        X, y, _ = part(rank, size)
        make().fit(X, np.where(np.arange(len(y)) == 2, np.nan, y) if rank == 1 else y)

    return _raised(run)


def ratings_out_of_range_in_one():
    def run():
        rank, size = place()
        X, y, _ = part(rank, size)
        make(loss="poisson").fit(X, -1 - y if rank == 1 else y)

    return _raised(run)


def labels_that_do_not_go_together():
    """-1 and 1 in one process, 0 and 1 in the others."""

    def run():
        rank, size = place()
        X, y, _ = part(rank, size, "logistic")
        make(loss="logistic").fit(X, 2 * y - 1 if rank == 0 else y)

    return _raised(run)


def parameters_that_differ():
    return _raised(lambda: make(max_iter=3 + place()[0]).fit(*part(*place())))


def one_level():
    """With one rating in all processes there are no levels; with two there are, whoever has them."""
    rank, size = place()
    X, y, _ = part(rank, size)
    make(loss="ordinal").fit(X, np.full(len(y), float(rank)))
    return _raised(lambda: make(loss="ordinal").fit(X, np.full(len(y), 2.0)))


def _with(owner, name, value, run):
    """Run with another function in a module or class."""
    old = getattr(owner, name)
    setattr(owner, name, value)
    try:
        return run()
    finally:
        setattr(owner, name, old)


def divergence():
    """What the users of one process add to the items' sums is not finite."""
    rank, size = place()
    sums = Likelihood.sums

    def infinite(likelihood, *args):
        slopes, *others = sums(likelihood, *args)
        return slopes * float("nan" if rank == 1 else 1), *others

    return _with(Likelihood, "sums", infinite, lambda: _raised(lambda: make().fit(*part(rank, size))))


def divergence_in_one():
    """Rows that are not finite are rows of a user, whom one process has; no estimator is changed."""
    rank, size = place()
    model = make().fit(*part(rank, size))
    before = state(model)

    def finite(attributes, solver, epoch):
        if rank == 1:
            raise DivergenceError("user_factors_ is not finite after iteration 10.")
        return attributes

    found = _with(loop, "finite", finite, lambda: _raised(lambda: model.set_params(n_factors=2).fit(*part(rank, size))))
    return *found, all(vars(model)[name] is value for name, value in before.items())


def going_on_elsewhere():
    """Each process has the estimator of the one before."""
    rank, size = place()
    model = begun_with_a_part("biased")
    with communicator(True) as processes:
        model = processes.all_gather(model)[(rank + 1) % size]
    return _raised(lambda: model.fit(*part(rank, size)))


def going_on_in_one():
    rank, size = place()
    model = begun_with_a_part("biased")
    return _raised(lambda: (model if rank == 0 else make(warm_start=True, max_iter=2)).fit(*part(rank, size)))


def features_that_differ():
    """The first process has other words of an item than the last."""
    rank, size = place()
    table = pd.DataFrame({"item": [100, 99], "place": ["sea", "hills" if rank == size - 1 else "town"]})
    return _raised(lambda: make().fit(*part(rank, size), item_features=table))


def features_of_other_columns():
    rank, size = place()
    table = pd.DataFrame({"item": [100, 99], "height" if rank == 1 else "place": [1.0, 2.0]})
    return _raised(lambda: make().fit(*part(rank, size), item_features=table))


def ids_of_another_type():
    rank, size = place()
    table = pd.DataFrame({"user": ["7", "10"], "age": [1.0, 2.0]})
    return _raised(lambda: make().fit(*part(rank, size), user_features=table if rank else None))


def afterwards():
    return found_by(make(), *part(*place()))


ERRORS = [
    *["partial_fit_refused", "error_in_one", "ratings_out_of_range_in_one", "labels_that_do_not_go_together"],
    *["parameters_that_differ", "one_level", "divergence", "divergence_in_one"],
    *["going_on_elsewhere", "going_on_in_one", "features_that_differ", "features_of_other_columns", "ids_of_another_type"],
]


def bytes_of_an_epoch():
    """What is summed over the processes in an epoch, apart from what is short, where there are 300 items."""
    rank, size = place()
    X = pd.DataFrame({"user": np.arange(rank, 900, size) % 50, "item": np.arange(rank, 900, size) % 300})
    n_bytes, all_reduce = [], dist.all_reduce

    def counted(tensor, *args):
        n_bytes.append(tensor.numel() * tensor.element_size())
        return all_reduce(tensor, *args)

    def fit(solver, max_iter):
        n_bytes.clear()
        _with(dist, "all_reduce", counted, lambda: make(solver=solver, max_iter=max_iter).fit(X, X["item"] % 7))
        return sum(n_bytes)

    return {solver: fit(solver, 3) - fit(solver, 2) for solver in ("variational", "als", "adam")}


OTHERS = [
    *ASKED,
    "asked_without_users",
    "bytes_of_an_epoch",
    "without_a_seed",
    "printed",
    "stopped_by_one",
    "what_is_asked_of_others",
    "gathered_on_other_parts",
]


def killed():
    """The second process ends in its third epoch."""
    rank, size = place()
    step, n_steps = Variational.step, []

    def killed_step(solver):
        n_steps.append(time.monotonic())
        if rank == 1 and len(n_steps) == 3:
            os._exit(0)
        return step(solver)

    found = _with(Variational, "step", killed_step, lambda: _raised(lambda: make().fit(*part(rank, size))))
    return *found, time.monotonic() - n_steps[-1]


globals().update(CASES)
