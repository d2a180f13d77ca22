"""Cases of TorchFactorizations that several processes fit together: each function runs in all of them and returns what it got."""

from functools import partial

import numpy as np
import pytest
import torch
import tutorial
from sharing import part, place, state
from torch import nn

from sk_torchmf import TorchFactorization
from sk_torchmf.solvers.shared_steps import SharedTrainer


class Normed(tutorial.Plain):
    """Counts and averages in buffers, and draws in training."""

    def __init__(self, n_users, n_items, n_factors=20):
        super().__init__(n_users, n_items, n_factors, sparse=False)
        self.norm, self.dropout = nn.BatchNorm1d(1), nn.Dropout(0.2)

    def forward(self, user, item):
        score = self.dropout(self.user_factors(user) * self.item_factors(item)).sum(1, keepdim=True)
        return self.norm(score) if self.norm.training is False or len(score) > 1 else score


class Biased(tutorial.Biased):
    """Starts near zero, where steps on all ratings go down."""

    def __init__(self, n_users, n_items, n_factors=3, sparse=True):
        super().__init__(n_users, n_items, n_factors, sparse)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter *= 0.3


def make(module=Biased, **options):
    params = {"optimizer": "SGD", "optimizer__lr": 0.5, "batch_size": None, "max_iter": 4, "dtype": "float64", "random_state": 0}
    return TorchFactorization(module, **params | {"user": 0, "item": 1, "distributed": True} | options)


def told(model):
    """The fitted attributes, of modules their tensors."""
    found = state(model)
    for name in found.keys() & {"module_", "loss_"}:
        found[name] = {key: value.numpy() for key, value in found[name].state_dict().items()}
    return {name: value for name, value in found.items() if name != "optimizer_state_"}


def fit(options, form="numbers", weighted=False, loss="squared_error", n=None):
    X, y, weight = part(*place(), loss, form, weighted)
    model = make(**options).fit(X if n is None else X[:n], y if n is None else y[:n], weight)
    return told(model), told(model.gather())


def all_but_one(rank, size):
    """Positives of users who have all of six items but one, so that what is drawn is certain; one user has all."""
    user, item = (codes.ravel() for codes in np.indices((9, 6)))
    kept = np.flatnonzero((user == 8) | (user % 6 != item))[rank::size]
    return np.column_stack([user, item])[kept], 1.0 + (user + 2 * item)[kept] % 4


def ranking(negatives):
    X, weight = all_but_one(*place())
    model = make(loss="bpr", negatives=negatives, n_negatives=2).fit(X, weight)
    return told(model), told(model.gather())


ON_ALL = {  # a step an epoch, on all observations: the result does not depend on how many processes there are
    "plain": partial(fit, {}),
    "weighted": partial(fit, {"parameter_options": {"*biases*": {"lr": 0.1}}}, "text", True),
    "dense": partial(fit, {"module__sparse": False, "optimizer__momentum": 0.5}, "sparse", True),
    "adagrad": partial(fit, {"optimizer": "Adagrad"}, "container", True),
    "sparse_adam": partial(fit, {"optimizer": "SparseAdam", "optimizer__lr": 0.01}),
    "ordinal": partial(fit, {"loss": "ordinal", "optimizer__lr": 0.1}, "numbers", True),
    "logistic": partial(fit, {"loss": "logistic"}, loss="logistic"),
    "fused": partial(fit, {"module": tutorial.Fused, "module__n_factors": 3, "optimizer__lr": 0.02}, "numbers", True),
    "scheduled": partial(fit, {"scheduler": "ReduceLROnPlateau", "scheduler__patience": 0, "scheduler__threshold": 0.5}),
    "bpr_uniform": partial(ranking, "uniform"),
    "bpr_popularity": partial(ranking, "popularity"),
}
IN_BATCHES = {
    "batches": partial(fit, {"batch_size": 48, "max_iter": 2}),
    "batches_of_one": partial(fit, {"batch_size": 1, "max_iter": 1, "optimizer__lr": 0.02}, n=7),
    "buffers": partial(fit, {"module": Normed, "module__n_factors": 3, "batch_size": 64}),
    "ranked_batches": partial(fit, {"loss": "softmax", "n_negatives": 3, "batch_size": 64}, "container"),
}


def one_user():
    """All but one process have no observations."""
    X, y, _ = part(0, 1)
    some = X["user"] == X["user"][0]
    some = some & (np.arange(len(X)) % place()[1] == place()[0])
    model = make(batch_size=4).fit(X[some], y[some])
    return told(model), told(model.gather())


def sizes_of_steps():
    """How many pairs each step of two epochs was on, on this process and together."""
    rank, size = place()
    X, y, _ = part(rank, size)
    found, backward = [], SharedTrainer._backward

    def noted(trainer, batch):
        value = backward(trainer, batch)
        found.append((len(batch), trainer.n_together))
        return value

    SharedTrainer._backward = noted
    try:
        make(batch_size=50, max_iter=2).fit(X[: 10 + len(X) * (rank == 0)], y[: 10 + len(X) * (rank == 0)])
    finally:
        SharedTrainer._backward = backward
    return found


def answers():
    """What this process says, and what the whole says."""
    X, y, _ = part(*place())
    model = make().fit(X, y)
    whole, own = model.gather(), model.users_[model.seen_.sum(axis=1) > 0]
    others = np.setdiff1d(model.users_, own)
    with pytest.raises(ValueError, match="has seen are known only on another rank") as caught:
        model.recommend(others[:1])
    pairs = np.ix_(model.users_, model.items_)
    asked = {
        "users_": lambda one: one.users_,
        "predict": lambda one: one.predict(*pairs),
        "recommend": lambda one: one.recommend(own, k=4)[0],
        "others": lambda one: one.recommend(others, exclude_seen=False)[0],
    }
    same = {name: np.array_equal(ask(model), ask(whole)) for name, ask in asked.items()}
    return own, same, str(caught.value), whole.partial_fit(*part(0, 1)[:2]).n_iter_


def _raised(options, X=None, y=None, **given):
    own = part(*place())[:2]
    with pytest.raises(Exception) as caught:  # noqa: PT011  (told to the test)
        make(**options).fit(own[0] if X is None else X, own[1] if y is None else y, **given)
    return type(caught.value).__name__, str(caught.value)


REFUSED = {
    "n_processes": ({"n_processes": 2}, "distributed=True needs n_processes=1: each rank is a process already. Got 2."),
    "checkpoint": ({"checkpoint": "file"}, "distributed=True needs checkpoint=None"),
    "early_stopping": ({"early_stopping": True}, "distributed=True needs early_stopping=False"),
    "warm_start": ({"warm_start": True}, "distributed=True needs warm_start=False"),
    "features": ({"features": ["day"]}, "distributed=True needs features=None"),
    "lbfgs": ({"optimizer": "LBFGS"}, "distributed=True does not support the optimizer LBFGS"),
    "sum": ({"loss": "MSELoss", "loss__reduction": "sum"}, "distributed=True needs a loss that is a mean over its pairs"),
}


def refused():
    return {name: _raised(options) for name, (options, _) in REFUSED.items()}


def errors():
    """An error of one process; a module that differs; a module that scores by what it draws elsewhere; parameters that differ."""
    rank, size = place()
    X, y, _ = part(rank, size)

    class Own(Biased):
        def forward(self, user, item):
            if rank == 1:
                raise RuntimeError("out of memory")
            return super().forward(user, item)

    class Drifting(Biased):
        def forward(self, user, item):
            with torch.no_grad():
                self.item_biases.weight += rank
            return super().forward(user, item)

    return [
        _raised({}, X, np.where(np.arange(len(y)) == 2, np.nan, y) if rank == 1 else y),
        _raised({"module": Own}),
        _raised({"module": Drifting}),
        _raised({"optimizer__lr": 0.1 + rank}),
        _raised({}, user_features=np.ones((3, 1))),
    ]


OTHERS = ["one_user", "sizes_of_steps", "answers", "refused", "errors"]
CASES = ON_ALL | IN_BATCHES
globals().update(CASES)
