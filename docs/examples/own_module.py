"""
Your own torch module, line by line
===================================

Matrix factorization is the first model that many people write in PyTorch: two embeddings, a product, a loop. A dozen lines are
enough, and no gradient has to be derived by hand, but training is slow. This page shows such lines with the time that each takes,
then the same module as a scikit-learn estimator, and then the same model on kernels that save most of that time.

``python docs/examples/own_module.py`` takes half a minute. All times are those of the machine that built this page, which may have
had other work too. Yours will differ; their proportions will differ less.
"""

# %%
# The data
# --------
# A tenth is the test. The rest is for training and for choosing parameters. Ids are positions, which is what embeddings need.

import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from sklearn.base import clone
from sklearn.metrics import root_mean_squared_error
from sklearn.model_selection import GridSearchCV, KFold, train_test_split
from torch import nn

from sk_torchmf import BiasedMatrixFactorization, TorchFactorization, datasets
from sk_torchmf.nn import Pairs, pair_dot

ratings = datasets.fetch_movielens("100k").interactions
train, test = train_test_split(ratings, test_size=0.1, random_state=0)
user, item = (
    torch.from_numpy(train.user_ids).long(),
    torch.from_numpy(train.item_ids).long(),
)
rating = torch.from_numpy(train.ratings).float()
print(f"{len(train):,} ratings to train on, torch {torch.__version__} on {torch.get_num_threads()} threads")

# %%
# The model
# ---------
# A user is a row of one table, an item a row of the other, and a rating is their inner product. With ``sparse=True`` a step
# computes gradients only for the rows in its batch.


class Plain(nn.Module):
    """A rating is p . q."""

    def __init__(self, n_users, n_items, n_factors=20):
        super().__init__()
        self.user_factors = nn.Embedding(n_users, n_factors, sparse=True)
        self.item_factors = nn.Embedding(n_items, n_factors, sparse=True)

    def forward(self, user, item):
        return (self.user_factors(user) * self.item_factors(item)).sum(1)


# %%
# Some users give more stars than others, and some items get more. Biases are embeddings with one number for each row.


class Biased(Plain):
    """A rating is mean + b_u + b_i + p . q."""

    def __init__(self, n_users, n_items, n_factors=20):
        super().__init__(n_users, n_items, n_factors)
        self.user_biases = nn.Embedding(n_users, 1, sparse=True)
        self.item_biases = nn.Embedding(n_items, 1, sparse=True)
        self.register_buffer("mean", torch.tensor(3.5))  # about the mean of all ratings
        for table in (
            self.user_factors,
            self.item_factors,
            self.user_biases,
            self.item_biases,
        ):
            nn.init.normal_(table.weight, std=0.1)  # torch's default, a standard deviation of one, starts far from any rating

    def forward(self, user, item):
        biases = self.user_biases(user) + self.item_biases(item)
        return self.mean + biases[:, 0] + super().forward(user, item)


# %%
# A step, and what each line costs
# --------------------------------
# A simple loop takes one rating at a time, or a batch. Each line is timed over two hundred steps; the numbers are medians.


def time_lines(model, size, n_steps=200):
    """Microseconds of each line of a step on batches of a size."""
    measure, optimizer = nn.MSELoss(), torch.optim.SGD(model.parameters(), lr=0.01)
    laps = []
    for _ in range(n_steps):
        batch = torch.randint(len(rating), (size,))
        clock = [time.perf_counter()]
        u, i, r = user[batch], item[batch], rating[batch]
        clock.append(time.perf_counter())
        optimizer.zero_grad()
        clock.append(time.perf_counter())
        p, q = model.user_factors(u), model.item_factors(i)
        b = model.user_biases(u) + model.item_biases(i)
        clock.append(time.perf_counter())
        s = model.mean + b[:, 0] + (p * q).sum(1)
        clock.append(time.perf_counter())
        loss = measure(s, r)
        clock.append(time.perf_counter())
        loss.backward()
        clock.append(time.perf_counter())
        optimizer.step()
        clock.append(time.perf_counter())
        laps.append(np.diff(clock))
    return 1e6 * np.median(laps, axis=0)


lines = ["take the batch", "zero_grad()", "look up rows", "product and sum"]
lines += ["loss", "backward()", "step()"]
sizes = [1, 1024]
costs = pd.DataFrame(
    {n: time_lines(Biased(ratings.num_users, ratings.num_items), n) for n in sizes},
    index=lines,
)
shares = costs / costs.sum()
costs.loc["whole step"] = costs.sum()
epochs = costs.loc["whole step"] * len(train) / costs.columns / 1e6
print(
    "Microseconds of a step, by the size of its batch",
    costs.to_string(float_format="{:.0f}".format),
    sep="\n",
)
print(f"An epoch at that pace: {epochs[1]:.0f} s one rating at a time, {epochs[1024]:.2f} s in batches")

# %%
# With one rating in a step, nearly all of the time is the cost of calling torch at all: a product of twenty numbers takes
# nanoseconds. In a batch of 1024 the ratings share that cost. What remains is mostly moving rows: for every rating two rows are
# looked up and two gradients are written back, and the optimizer sorts the sparse gradients to add up those of the same row.

fig, ax = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
place = np.arange(len(lines))
for shift, (size, share), color in zip((-0.2, 0.2), shares.items(), ("#E69F00", "#0072B2"), strict=True):
    ax.barh(place + shift, share, height=0.4, color=color, label=f"batch of {size}")
ax.set_yticks(place, labels=lines)
ax.invert_yaxis()
ax.xaxis.set_major_formatter("{x:.0%}")
ax.set(xlabel="Share of a step's time", title="Where a step goes")
ax.legend()
plt.show()

# %%
# As an estimator
# ---------------
# ``TorchFactorization`` is such a loop with batches, and has the other methods of a scikit-learn estimator too. Arguments of the
# module and of the optimizer can be searched like any other parameter.


def tune(model, grid):
    """A search by cross-validation on the training part."""
    folds = KFold(2, shuffle=True, random_state=0)
    search = GridSearchCV(model, grid, scoring="neg_root_mean_squared_error", cv=folds, error_score="raise")
    search.fit(train, train.ratings)
    print(f"{model.module.__name__}: RMSE {-search.best_score_:.3f} on held-out folds by {search.best_params_}")
    return search


batches = TorchFactorization(Biased, "MSELoss", "Adagrad", batch_size=1024, max_iter=6, random_state=0)
searches = {
    "Plain, batches": tune(
        clone(batches).set_params(module=Plain),
        {"module__n_factors": [5], "optimizer__lr": [0.3, 1.0]},
    ),
    "Biased, batches": tune(batches, {"module__n_factors": [5, 20], "optimizer__lr": [0.03, 0.1]}),
}

# %%
# On the fused kernels
# --------------------
# ``forward_pairs`` gets all observed pairs at once, in an order that is computed only once. ``pair_dot`` computes their inner
# products without looking up a row for each pair; its gradients are two products of a sparse and a dense matrix. The model is the
# same. With ``batch_size=None`` one step is an epoch, so more epochs are needed. The gradients are dense, and so torch's weight
# decay can be used, which it cannot with sparse gradients.


class Fused(Biased):
    """The same model, which can also compute all pairs at once."""

    def forward_pairs(self, pairs):
        biases = self.user_biases.weight[:, 0], self.item_biases.weight[:, 0]
        return self.mean + pair_dot(self.user_factors.weight, self.item_factors.weight, pairs, *biases)


pairs = Pairs(train.user_ids, train.item_ids, ratings.num_users, ratings.num_items)
model = Fused(ratings.num_users, ratings.num_items)
assert torch.allclose(model.forward_pairs(pairs), model(user, item)[pairs.order], atol=1e-5)

kernels = TorchFactorization(
    Fused,
    "MSELoss",
    "Adam",
    batch_size=None,
    max_iter=60,
    module__n_factors=20,
    optimizer__lr=0.05,
    random_state=0,
)
searches["Biased, kernels"] = tune(kernels, {"optimizer__weight_decay": [2e-4, 4e-4, 8e-4]})

# %%
# Side by side
# ------------
# Each model with the parameters that its search has chosen, trained on the whole training part, with the time of its fastest epoch.
# The errors of ``Biased`` in batches and on the kernels differ because of the optimizer, its weight decay and the number of
# factors, not because of the kernels, which compute exactly the same model. Adagrad's step on sparse gradients takes longer than
# that of SGD above. ``BiasedMatrixFactorization`` has its default parameters; one of its epochs solves for all rows.

models = {name: search.best_estimator_ for name, search in searches.items()}
models["BiasedMatrixFactorization"] = BiasedMatrixFactorization(random_state=0).fit(train)
rows = {
    name: {
        "n_factors": model.get_params().get("module__n_factors") or model.n_factors,
        "epochs": model.n_iter_,
        "an epoch (ms)": 1e3 * np.min(model.history_["seconds"]),
        "test RMSE": root_mean_squared_error(test.ratings, model.predict(test)),
    }
    for name, model in models.items()
}
results = pd.DataFrame(list(rows.values()), index=list(rows))
ratio = results.loc["Biased, batches", "an epoch (ms)"] / results["an epoch (ms)"]
results.insert(3, "times as fast", ratio.round(1))
results["an epoch (ms)"] = results["an epoch (ms)"].round(1)
print(results.round(4).to_string())
