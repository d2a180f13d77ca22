"""
New users
=========

A new user has rated a few films. Nothing needs to be trained again: the user's row is solved for while the items are held fixed
(*fold-in*). This page measures how good that is, how much each further rating helps, and how certain the model is.

``python docs/examples/new_users.py`` takes ten seconds.
"""

# %%
# Whole users are held out
# ------------------------
# A sparse matrix has a user in each row, so ``train_test_split`` and any ``cv`` hold out users. ``HeldOutUsers`` does the same with
# a table or container.

import copy
import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scipy.sparse as sp
from sklearn.model_selection import GridSearchCV, train_test_split

from sk_torchmf import BiasedMatrixFactorization, Interactions, datasets
from sk_torchmf.model_selection import HeldOutUsers

ratings = datasets.fetch_movielens("100k").interactions
known, new = train_test_split(ratings.tocsr(), test_size=0.2, random_state=0)
median = np.median(np.diff(new.indptr))
print(f"{known.shape[0]} known users, {new.shape[0]} new ones with a median of {median:.0f} ratings")

# %%
# Choosing for new users
# ----------------------
# ``score`` of a sparse matrix predicts each rating from the *other* ratings of its row, in closed form, and returns R². A search
# over rows therefore chooses what is best for new users.

search = GridSearchCV(
    BiasedMatrixFactorization(random_state=0),
    {"n_factors": [4, 8, 16, 32]},
    cv=HeldOutUsers(3, random_state=0),
    error_score="raise",
).fit(known)
model = search.best_estimator_
scores = pd.Series(search.cv_results_["mean_test_score"], index=[4, 8, 16, 32], name="R2")
print(scores.rename_axis("n_factors").to_frame().to_string(float_format="{:.3f}".format))
print(f"On the users held out at the beginning: {model.score(new):.3f}")

# %%
# Fold in
# -------
# ``fold_in`` returns a row of factors and a bias, ``predict`` the user's ratings of all films, and ``recommend`` the best films
# that the user has not rated. None of them changes the model.

newcomer = new[:1]
start = time.perf_counter()
row = model.fold_in(newcomer)
print(f"{newcomer.nnz} ratings make a row of shape {row.shape} in {1e3 * (time.perf_counter() - start):.1f} ms")
assert np.allclose(model.inverse_transform(row), model.predict(newcomer))
items, predicted = model.recommend(newcomer, k=5)
print(pd.DataFrame({"item": items[0], "predicted": predicted[0]}).to_string(index=False, float_format="{:.2f}".format))

# %%
# How many ratings it takes
# -------------------------
# Of each new user with sixty ratings or more, twenty ratings are the test, always the same ones. The model is given the first 0, 1,
# 2, ... of the others, in random order. An empty row is the mean user, so the line begins at the error of predicting each film's
# mean.

active = new[np.diff(new.indptr) >= 60]
all_theirs = Interactions.from_matrix(active)
place = pd.Series(np.random.default_rng(0).random(len(all_theirs))).groupby(all_theirs.user_ids).rank().to_numpy() - 1
test = all_theirs[place < 20]
counts = [0, 1, 2, 5, 10, 20, 40]
told = {n: all_theirs[(place >= 20) & (place < 20 + n)] for n in counts}


def rmse(predicted):
    return np.sqrt(np.mean((predicted - test.ratings) ** 2))


folded = {n: rmse(model.predict(told[n].tocsr())[test.user_ids, test.item_ids]) for n in counts}

# %%
# The alternative is a new fit to everything, known and new users, for each number of ratings.

refitted = {
    n: rmse(
        BiasedMatrixFactorization(**search.best_params_, random_state=0)
        .fit(sp.vstack([known, told[n].tocsr()]))
        .predict(known.shape[0] + test.user_ids, test.item_ids)
    )
    for n in counts
}

fig, ax = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
ax.plot(counts, folded.values(), "-o", color="#0072B2", label="folded in")
ax.plot(counts, refitted.values(), "--s", color="#D55E00", label="fitted again with all")
ax.set_xscale("symlog", linthresh=1, linscale=0.4)
ax.set_xticks(counts, labels=counts)
ax.set(
    xlabel="Ratings known of a new user",
    ylabel="RMSE on 20 other ratings, in stars",
    title="How much each further rating helps",
)
ax.grid(alpha=0.3)
ax.legend()
plt.show()
print(
    pd.DataFrame({"folded in": folded, "fitted again": refitted})
    .rename_axis("ratings known")
    .T.to_string(float_format="{:.3f}".format)
)

# %%
# How certain
# -----------
# The model can return standard deviations, but only for users who have a row in it. ``partial_fit`` gives them one: it continues
# from what was learned, and needs only the new ratings. It takes as long as a fit, so use it for many new users at a time. The
# standard deviation that ``predict`` returns falls as more ratings are known, and so does the error.

lines = {}
for n in counts[1:]:
    more = told[n]
    more = Interactions(
        known.shape[0] + more.user_ids,
        more.item_ids,
        more.ratings,
        num_users=known.shape[0] + active.shape[0],
    )
    grown = copy.deepcopy(model).partial_fit(more)
    predicted, std = grown.predict(known.shape[0] + test.user_ids, test.item_ids, return_std=True)
    within = np.abs(predicted - test.ratings) < std
    lines[n] = {
        "RMSE": rmse(predicted),
        "mean std": std.mean(),
        "share within one std": within.mean(),
    }
print(pd.DataFrame(lines).T.rename_axis("ratings known").to_string(float_format="{:.3f}".format))
