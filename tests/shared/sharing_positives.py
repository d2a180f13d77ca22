"""Cases of fits to positives that several processes share: each function runs in all of them and returns what this one got."""

import os
import shutil
import tempfile
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch.distributed as dist

from sk_torchmf import ImplicitMatrixFactorization, Interactions, Shards
from sk_torchmf.distributed import communicator
from sk_torchmf.model_selection import ranking_scorer
from sk_torchmf.solvers import cosine_softmax
from sk_torchmf.solvers.ials import ImplicitLeastSquares
from sk_torchmf.solvers.ranking_descent import Descent

N_USERS, N_ITEMS = 40, 15
LOSSES = {"ials": {}, "logistic": {"n_negatives": 2}, "softmax": {}, "cosine": {"max_iter": 3}}
DRAWN = {"bpr": {}, "hinge": {"biased": True}, "adaptive_hinge": {}, "softmax": {"exact": False}, "logistic": {"exact": False}}
FORMS = ["numbers", "text", "container", "sparse"]


def whole(form="numbers"):
    """What the processes share: ids and weights; one user has every item, and some pairs are there twice but in a sparse matrix."""
    rng = np.random.default_rng(0)
    has = rng.random((N_USERS, N_ITEMS)) < rng.uniform(0.1, 0.7, size=(N_USERS, 1))
    has[3], has[has.sum(1) == 0, 2] = True, True
    user, item = np.nonzero(has)
    if form != "sparse":
        user, item = np.append(user, user[::9]), np.append(item, item[::9])
    weight = rng.integers(1, 6, len(user)) / 2
    if form == "text":
        user, item = (np.char.add(prefix, ids.astype(str)) for prefix, ids in (("user", user), ("song ", item)))
    elif form == "numbers":
        user, item = 3 * user + 7, 100 - item
    return user, item, weight


def part(rank, size, form="numbers", weighted=False):
    """X, y and weights of a process: any rows, but of a sparse matrix those of consecutive users."""
    user, item, weight = whole(form)
    first, last = N_USERS * rank // size, N_USERS * (rank + 1) // size
    rows = np.flatnonzero((user >= first) & (user < last)) if form == "sparse" else np.arange(rank, len(user), size)
    user, item, weight = user[rows], item[rows], weight[rows] if weighted else None
    if form == "container":
        return Interactions(user, item, weights=weight, num_users=N_USERS, num_items=N_ITEMS), None, None
    if form == "sparse":
        matrix = sp.csr_array((np.ones(len(user)), (user - first, item)), shape=(last - first, N_ITEMS))
        return matrix, None, 1.0 + np.arange(first, last) if weighted else None
    return pd.DataFrame({"user": user, "item": item}), weight, None


def make(**options):
    params = {"n_factors": 3, "loss": "ials", "max_iter": 8, "dtype": "float64", "random_state": 0, "distributed": True}
    return ImplicitMatrixFactorization(**params | options)


def place():
    """Rank and size."""
    with communicator(True) as processes:
        return processes.rank, processes.size


def state(model):
    """The fitted attributes, with pairs that are on disk read."""
    found = {name: value for name, value in vars(model).items() if name.endswith("_") and name[0] != "_"}
    return found | {"seen_": found["seen_"][np.arange(model.n_users_)]}


def found_by(model, X, y=None, weight=None):
    """The attributes of a fit, and of all its parts together."""
    model.fit(X, y, weight)
    return state(model), state(model.gather())


def fit(form="numbers", weighted=False, **options):
    return found_by(make(**options), *part(*place(), form, weighted))


FITS = {
    f"{loss}{'_biased' if biased else ''}{'_weighted' if weighted else ''}": partial(
        fit, weighted=weighted, loss=loss, biased=biased, **options
    )
    for loss, options in LOSSES.items()
    for biased in (False, True)
    for weighted in (False, True)
}
FITS |= {f"{loss}_drawn": partial(fit, weighted=True, loss=loss, **options) for loss, options in DRAWN.items()}
FITS |= {"bpr_sparse": partial(fit, "sparse", loss="bpr"), "bpr_text": partial(fit, "text", loss="bpr")}
FITS |= {f"ials_{form}": partial(fit, form, weighted=True) for form in FORMS[1:]}
FITS |= {f"cosine_{form}": partial(fit, form, weighted=True, loss="cosine", max_iter=3) for form in FORMS[1:]}
FITS |= {"softmax_sparse": partial(fit, "sparse", weighted=True, loss="softmax"), "confident": partial(fit, confidence=3.0)}


def all_rows_on_the_last():
    rank, size = place()
    X, y, weight = part(0, 1, weighted=True)
    some = slice(None) if rank == size - 1 else slice(0, 0)
    return found_by(make(), X[some], y[some], weight)


def few_users(loss="softmax"):
    """Processes end without users, and of two users one has every item."""
    rank, size = place()
    X = pd.DataFrame({"user": [1, 1, 1, 5, 5], "item": [0, 1, 2, 0, 1]})
    return found_by(make(loss=loss, n_factors=1), X[rank::size])


def cosine_of_drawn_items():
    """Blocks of three users, who are shown some of the items."""
    with patch.multiple(cosine_softmax, OTHERS=4, BLOCKS=N_USERS // 3):
        return fit(loss="cosine", max_iter=5)


def cosine_of_apart():
    """Three groups that have no item in common: as many singular values are 1, which have no vectors of their own."""
    rank, size = place()
    user, item = np.nonzero(np.kron(np.eye(3), np.ones((5, 4))) * (np.random.default_rng(1).random((15, 12)) < 0.7))
    X = pd.DataFrame({"user": user, "item": item})
    return found_by(make(loss="cosine", max_iter=5), X[rank::size])


def held_out(**options):
    """A share of each user's positives decides, after few iterations, and the fit begins anew with all."""
    options = {"early_stopping": True, "validation_fraction": 0.3, "n_iter_no_change": 2} | options
    return fit(weighted=True, **options)


def validated(form, **options):
    """On positives of users and items, known or not, of which the last of four processes has none."""
    rank, size = place()
    user, item, _ = whole(form if form != "sparse" else "container")
    user, item = user[::3], item[::-3].copy()
    if form == "numbers":
        user[:3], item[2:4] = [-5, -6, -7], [500, 501]
    n_parts = min(size, max(size - 1, 2))
    user, item = (own[rank::n_parts] if rank < n_parts else own[:0] for own in (user, item))
    X_val = pd.DataFrame({"user": user, "item": item})
    if form in ("container", "sparse"):
        X_val = Interactions(user, item, num_users=N_USERS, num_items=N_ITEMS)
    model = make(**options).fit(*part(rank, size, form), X_val=X_val if len(user) else None)
    return state(model), state(model.gather())


def gone_on(form="numbers", gathered=False, **options):
    """On to all positives from a fit to the heavier ones, of which not every user has one."""
    X, y, weight = part(*place(), form, weighted=True)
    some = y > 2
    model = make(**options | {"max_iter": 3}).fit(X[some], y[some])
    model = model.gather() if gathered else model
    return found_by(model.set_params(distributed=True, warm_start=True), X, y, weight)


def weights_that_differ_in_one():
    """Users of a process have positives of one weight, and one of another process has a heavier one."""
    rank, size = place()
    user, item, _ = whole("sparse")  # each pair once
    X = pd.DataFrame({"user": user, "item": item})[rank::size]
    return found_by(make(), X, 1.0 + (X["user"] == 3).to_numpy())


def attributes_of(role, form="numbers"):
    """A table of attributes: numbers with gaps and categories; of some ids of X, and of some that X lacks."""
    ids = np.delete(np.arange((N_USERS if role == "user" else N_ITEMS) + 3), [2, 5])
    age = np.where(ids % 7 == 0, np.nan, np.random.default_rng(1).normal(size=len(ids)))
    table = {"age": age, "place": np.array(["sea", "hills", "town"])[ids % 3]}
    if form == "text":
        ids = np.char.add("user" if role == "user" else "song ", ids.astype(str))
    elif form == "numbers":
        ids = 3 * ids + 7 if role == "user" else 100 - ids
    return pd.DataFrame(table | {role: ids})


def with_features(form="numbers", **options):
    """Each process has some rows of the users' table, of whoever; those of items are on the last."""
    rank, size = place()
    tables = {"user_features": attributes_of("user", form)[rank::size]}
    tables["item_features"] = attributes_of("item", form) if rank == size - 1 else None
    model = make(**options).fit(*part(rank, size, form, weighted=True), **tables)
    return state(model), state(model.gather())


def shards_of(weighted):
    """A data set on disk that the first process makes, of which each reads the shards of its users."""
    user, item, weight = whole()
    columns = {"user": user, "item": item} | ({"weight": weight} if weighted else {})
    with communicator(True) as processes:
        folder = Path(processes.broadcast(tempfile.mkdtemp()), "shards")
        if processes.rank == 0:
            Shards.from_chunks([columns], folder, **{name: name for name in columns}, n_shards=12)
        processes.all_gather(None)  # it is whole
    return Shards(folder)


def from_shards(weighted=False, **options):
    return found_by(make(**options), shards_of(weighted))


def from_shards_and_on():
    """With validation data that decide, of which each process has a part, and on from the rows so far."""
    rank, size = place()
    user, item, _ = whole()
    X_val = pd.DataFrame({"user": user, "item": item[::-1]})[rank::size]
    model, shards = make(warm_start=True, early_stopping=True, n_iter_no_change=2, biased=True), shards_of(True)
    model.fit(shards, X_val=X_val).fit(shards, X_val=X_val)
    return state(model), state(model.gather())


OTHER_FITS = ["all_rows_on_the_last", "few_users", "ials_of_few_users", "cosine_of_few_users", "cosine_of_drawn_items"]
OTHER_FITS += ["cosine_of_apart", "weights_that_differ_in_one"]
FITS |= {f"held_out_{name}": partial(held_out, loss=name, **LOSSES.get(name, {})) for name in ("ials", "softmax", "bpr", "cosine")}
FITS |= {
    "held_out_kept": partial(held_out, loss="cosine", refit=False),
    "validated": partial(validated, "numbers", loss="cosine", max_iter=3),
}
FITS |= {f"validated_{form}": partial(validated, form, early_stopping=True, n_iter_no_change=1) for form in FORMS[1:]}
FITS |= {
    f"gone_on_{name}": partial(gone_on, loss=name, biased=biased)
    for name, biased in (("ials", False), ("logistic", True), ("bpr", None), ("cosine", None))
}
FITS |= {
    "from_shards": from_shards,
    "from_shards_weighted": partial(from_shards, True, biased=True),
    "from_shards_and_on": from_shards_and_on,
}
FITS |= {
    f"features_{loss}": partial(with_features, form, loss=loss, biased=biased)
    for loss, form, biased in (
        ("ials", "numbers", True),
        ("softmax", "text", True),
        ("bpr", "container", False),
        ("cosine", "text", None),
    )
}
FITS |= {"gone_on_from_all": partial(gone_on, gathered=True), "gone_on_text": partial(gone_on, "text", loss="cosine")}


def answers_for_own_users(form, **options):
    """What this process says of its users, and what the whole says of them; the same of new users."""
    model = make(**options).fit(*part(*place(), form, True))
    whole, own = model.gather(), model.users_
    pairs = np.repeat(own, 2), np.tile(model.items_[:2], len(own))
    new = sp.csr_array(np.array([[1.0, 1.0, 1.0, *[0.0] * (N_ITEMS - 3)]]))
    with communicator(True) as processes:
        path = processes.broadcast(tempfile.mkdtemp()) + "/parts"
    model.save(path)
    loaded = ImplicitMatrixFactorization.load(path)

    def answers(one):
        return {
            "predict": one.predict(*pairs),
            "recommend": one.recommend(own, k=4),
            "unknown": one.recommend(-5 if form != "text" else "nobody", k=3),
            "new": one.recommend(new, k=3),
            "folded": one.fold_in(new),
        }

    return answers(model), answers(whole), answers(loaded)


ASKED = {
    "asked": partial(answers_for_own_users, "text"),
    "asked_logistic": partial(answers_for_own_users, "numbers", loss="logistic", biased=True),
    "asked_softmax": partial(answers_for_own_users, "numbers", loss="softmax"),
    "asked_cosine": partial(answers_for_own_users, "text", loss="cosine"),
}


def _raised(run):
    with pytest.raises(Exception) as caught:  # noqa: PT011
        run()
    return type(caught.value).__name__, str(caught.value)


REFUSED = {
    "auto": ({"alpha": "auto"}, {}, 'takes no alpha="auto"'),
    "popularity": ({"loss": "softmax", "negatives": "popularity"}, {}, 'takes no negatives="popularity"'),
    "scoring": ({"early_stopping": True, "scoring": ranking_scorer()}, {}, "needs scoring=None"),
    "new_users": (
        {},
        {"X_val": sp.csr_array((2, N_ITEMS))},
        "takes no X_val: which items of a new user",
    ),
}


def refused(options, given):
    return _raised(lambda: make(**options).fit(*part(*place()), **given))


ials_of_few_users, cosine_of_few_users = partial(few_users, "ials"), partial(few_users, "cosine")
CASES = FITS | ASKED | {f"refused_{name}": partial(refused, options, given) for name, (options, given, _) in REFUSED.items()}


def every_user_has_every_item():
    rank, size = place()
    rows = np.arange(rank, 12, size)
    return _raised(lambda: make(loss="logistic").fit(pd.DataFrame({"user": rows // 3, "item": rows % 3})))


def weights_out_of_range_in_one():
    rank, size = place()
    X, y, _ = part(rank, size, weighted=True)
    return _raised(lambda: make(confidence=1e10).fit(X, y * (1e25 if rank == 0 else 1)))


def bytes_of_an_epoch(**options):
    """What is summed over the processes in an epoch, apart from what is short, where there are 50 users and 300 items."""
    rank, size = place()
    X = pd.DataFrame({"user": np.arange(rank, 900, size) % 50, "item": np.arange(rank, 900, size) % 300})
    n_bytes, all_reduce = [], dist.all_reduce

    def counted(tensor, *args):
        n_bytes.append(tensor.numel() * tensor.element_size())
        return all_reduce(tensor, *args)

    def fit(max_iter):
        n_bytes.clear()
        dist.all_reduce = counted
        try:
            make(max_iter=max_iter, **options).fit(X)
        finally:
            dist.all_reduce = all_reduce
        return sum(n_bytes)

    return fit(3) - fit(2)


def bytes_of_an_epoch_of_cosine():
    """Of 17 blocks, who are shown the items that their users have and 100 others, drawn; how many items they are shown in all."""
    shown, show = [], cosine_softmax.CosineSoftmax._show

    def counted(*args):
        found = show(*args)
        shown.append(len(found[0]))
        return found

    with patch.object(cosine_softmax, "OTHERS", 100), patch.object(cosine_softmax.CosineSoftmax, "_show", counted):
        return bytes_of_an_epoch(loss="cosine"), shown[-17:]


FOLDER = "PARTED"  # the variable that names the folder which all processes see
N_EPOCHS, N_DONE = 7, 3
CHECKPOINTED = {name: {"loss": name} for name in ("ials", "softmax", "bpr", "cosine")}
CHECKPOINTED["held_out"] = {"loss": "cosine", "early_stopping": True, "refit": False, "n_iter_no_change": 9}
CHECKPOINTED["features"] = {"loss": "ials", "biased": True}
CHECKPOINTED["validated"] = {"loss": "ials", "early_stopping": True, "n_iter_no_change": 9}
SIZES = 1, 2, 4  # of groups that go on


def checkpointed(name, path=None, stop_at=None):
    """What the whole of a fit is, and how many epochs were trained for; an error in one process may end the fit before."""
    rank, size = place()
    solver = {"ials": ImplicitLeastSquares, "cosine": cosine_softmax.CosineSoftmax}.get(CHECKPOINTED[name]["loss"], Descent)
    begun, step, given = [], solver.step, {}
    if name == "validated":
        user, item, _ = whole("text")
        given["X_val"] = pd.DataFrame({"user": user, "item": item[::-1]})[rank::size]
    if name == "features":
        given = {f"{role}_features": attributes_of(role, "text")[rank::size] for role in ("user", "item")}

    def counted(self):
        begun.append(self)
        if len(begun) == stop_at and rank == 0:
            raise KeyError("enough")
        return step(self)

    with patch.object(solver, "step", counted):
        model = make(max_iter=N_EPOCHS, checkpoint=path, **CHECKPOINTED[name])
        return state(model.fit(*part(rank, size, "text", weighted=True), **given).gather()), len(begun)


def uninterrupted():
    return {name: checkpointed(name) for name in CHECKPOINTED}


def interrupted():
    """Fits that end early, and copies of their checkpoints for groups of other sizes."""
    found = {}
    for name in CHECKPOINTED:
        path = os.path.join(os.environ[FOLDER], name)
        found[name] = _raised(lambda name=name, path=path: checkpointed(name, path, N_DONE + 1))
        with communicator(True) as processes:
            if processes.rank == 0:
                for size in SIZES:
                    shutil.copytree(path, f"{path} {size}")
            processes.all_gather(0)
    return found


def resumed():
    size = place()[1]
    return {name: checkpointed(name, os.path.join(os.environ[FOLDER], f"{name} {size}")) for name in CHECKPOINTED}


OTHERS = [*ASKED, *[f"refused_{name}" for name in REFUSED], "every_user_has_every_item", "weights_out_of_range_in_one"]
globals().update(CASES)
