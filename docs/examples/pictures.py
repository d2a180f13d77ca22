"""
Pictures of a fitted model
==========================

What a factorization of MovieLens-100K has learned, where it errs, and what it makes of one user, in four pictures.

``python docs/examples/pictures.py``: ten seconds. ``SK_TORCHMF_ML100K``, if set, is the path of RecBole's ``ml-100k.inter``: titles
are taken from the ``.item`` file beside it. Without such a file items go by their numbers.
"""

# %%
# The ratings, nine tenths of them to train on.

import os
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from sklearn.model_selection import train_test_split

from sk_torchmf import BiasedMatrixFactorization, ImplicitMatrixFactorization, datasets
from sk_torchmf.display import (
    FactorMapDisplay,
    RatingResidualDisplay,
    RecommendationDisplay,
    TrainingCurveDisplay,
)

ratings = datasets.fetch_movielens("100k", as_frame=True)
X, y = ratings.data[["user", "item"]], ratings.target
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.1, random_state=0)

# %%
# Titles and genres by item id, where there are such.

titles, genres = None, None
films_file = Path(os.environ.get("SK_TORCHMF_ML100K") or "ml-100k.inter").with_suffix(".item")
if films_file.exists():
    films = pd.read_csv(films_file, sep="\t", index_col="item_id:token")
    titles = films["movie_title:token_seq"]
    genres = films["class:token_seq"].str.split().str[0].rename("First genre")

# %%
# Training
# --------
# The loss of each iteration. What a loss is differs between solvers, so each curve is relative to its own beginning. That of
# ``variational`` rises again, since it learns its regularisation meanwhile: no curve of training data says which model is best.

solvers = "variational", "als", "adam"
models = {solver: BiasedMatrixFactorization(solver=solver, random_state=0).fit(X_train, y_train) for solver in solvers}
training = TrainingCurveDisplay.from_estimator(models, x="seconds", relative=True)

# %%
# Errors
# ------
# Held-out ratings, by how many ratings training had of their user (left) and of their item (right). The number in parentheses is
# how many held-out ratings a point stands for. Items that training did not see, 0, are a group of their own.

model = models["variational"]
residuals = RatingResidualDisplay.from_estimator(model, X_test, y_test)

# %%
# Items
# -----
# Items near each other are liked by the same users. The popular ones have names; colour is the number of ratings.

items = FactorMapDisplay.from_estimator(model, labels=titles)

# %%
# Or any column: categories get a legend, numbers a colour bar.

if genres is not None:
    items_by_genre = FactorMapDisplay.from_estimator(model, labels=titles, color=genres)

# %%
# One user
# --------
# What she rated best beside what she may like, with the standard deviation of a rating about its prediction. The line below a title
# names the item of her history that lies nearest.

user = X["user"].value_counts(sort=False).sort_index().sort_values(kind="stable").index[X["user"].nunique() // 2]
recommendations = RecommendationDisplay.from_estimator(model, user, X=X_train, y=y_train, labels=titles)

# %%
# A model of implicit feedback looks at what she rated, not how.

implicit = ImplicitMatrixFactorization(random_state=0).fit(X_train)
implicit_recommendations = RecommendationDisplay.from_estimator(implicit, user, labels=titles, k=5)

# %%
# Each picture is a matplotlib figure, to be changed and saved as any other: ``recommendations.figure_.savefig("user.png")``.

plt.show()
