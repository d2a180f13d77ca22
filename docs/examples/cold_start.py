"""
A film that nobody has rated
============================

New films have no ratings. This page predicts them from their year and genres: how the attributes are encoded, how much they lower
the error, how to recommend new films, and how certain such predictions are.

``python docs/examples/cold_start.py`` takes ten seconds.
"""

# %%
# Ratings, and a table of films
# -----------------------------
# The attributes are in a table of their own with one row for each film; its index holds the ids that the ratings use.
# ``ColdItemSplit`` holds out all ratings of some films. All that a model trained on the others knows about these is the table.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import SplineTransformer

from sk_torchmf import BiasedMatrixFactorization, FeatureEncoder, Features, datasets
from sk_torchmf.display import FeatureShareDisplay
from sk_torchmf.metrics import evaluate
from sk_torchmf.model_selection import ColdItemSplit

ratings = datasets.fetch_movielens("100k", as_frame=True, features=True)
X, y, films = ratings.data, ratings.target, ratings.item_features
train, test = next(ColdItemSplit(5, item="item", random_state=0).split(X))
X_train, y_train, X_test, y_test = X.iloc[train], y.iloc[train], X.iloc[test], y.iloc[test]
print(films[["year", "genres"]].head(3).to_string())
n_held_out = X_test["item"].nunique()
print(f"{len(train):,} ratings to train on; {n_held_out} films with {len(test):,} ratings are held out")

# %%
# Fit with what is known of the films
# -----------------------------------
# ``fit`` takes the table as it is: years are standardised, and each genre becomes a column. How much each column counts is learned
# from the ratings. Films without ratings are known to ``predict`` and ``recommend`` too, if the table has them.
#
# Each film counts once in the error here, whether it has three ratings or three hundred: the error is a mean over films.

columns = films[["year", "genres"]]
plain = BiasedMatrixFactorization(user="user", item="item", random_state=0)
plain.fit(X_train, y_train)
model = BiasedMatrixFactorization(user="user", item="item", random_state=0)
model.fit(X_train, y_train, item_features=columns)


def rmse_of_films(predicted):
    return ((y_test - predicted) ** 2).groupby(X_test["item"]).mean().pow(0.5).mean()


mean_of_user = X_test["user"].map(y_train.groupby(X_train["user"]).mean()).fillna(y_train.mean())
errors = {
    "the user's mean": rmse_of_films(mean_of_user),
    "without attributes": rmse_of_films(plain.predict(X_test)),
    "with attributes": rmse_of_films(model.predict(X_test)),
}
print(pd.Series(errors, name="RMSE, mean over films").to_frame().to_string(float_format="{:.3f}".format))

# %%
# An encoder of your own
# ----------------------
# Any transformer can encode the table, also a ``ColumnTransformer``, and its parameters are searched like those of the model. The
# ratings of films need not rise or fall steadily with the year. So the year becomes a curve, a spline, and the search chooses its
# number of knots. The folds hold out whole films, as the test does. ``Features`` is a wrapper that keeps scikit-learn from slicing
# the table as it slices the ratings.

encoder = ColumnTransformer(
    [
        ("year", make_pipeline(SimpleImputer(), SplineTransformer(degree=2)), ["year"]),
        ("genres", FeatureEncoder(), ["genres"]),
    ]
)
search = GridSearchCV(
    BiasedMatrixFactorization(16, item_encoder=encoder, user="user", item="item", random_state=0),
    {"item_encoder__year__splinetransformer__n_knots": [2, 4, 6]},
    scoring="neg_root_mean_squared_error",
    cv=ColdItemSplit(3, item="item", random_state=1),
    error_score="raise",
)
search.fit(X_train, y_train, item_features=Features(columns))
model = search.best_estimator_
print(f"{search.best_params_}, RMSE {rmse_of_films(model.predict(X_test)):.3f}")

# %%
# Recommend what nobody has rated
# -------------------------------
# ``item_counts_`` is zero for films without ratings, and ``items=`` limits ``recommend`` to them: the result has new films only.

cold = model.items_[model.item_counts_ == 0]
items, _ = model.recommend(1, k=5, items=cold)
predicted, std = model.predict(np.full(len(items), 1), items, return_std=True)
best = films.loc[items, ["title", "genres"]].assign(predicted=predicted, std=std)
print("For user 1:", best.to_string(index=False, float_format="{:.2f}".format), sep="\n")

# %%
# Why these? ``explain`` splits a score into parts: the general mean, what the user adds, what a film's attributes add for
# everybody, and what they add for this user. For a film without ratings there are no other parts.

parts = pd.DataFrame(model.explain(1, items), index=best["title"])
print(parts.T.to_string(float_format="{:+.2f}".format))

# %%
# How good are such lists? ``evaluate`` with ``items="cold"`` compares films without ratings only. For comparison, a second model
# gets the attributes in random order, so that each film has those of another: this shows what chance does.

shuffled = columns.sample(frac=1, random_state=0).set_axis(columns.index)
by_chance = clone(model).fit(X_train, y_train, item_features=shuffled)
liked = X_test[y_test >= 4]
for name, each in {"their attributes": model, "those of other films": by_chance}.items():
    ndcg = evaluate(each, liked, "ndcg", k=10, items="cold")["ndcg"][10]
    print(f"NDCG@10 among {len(cold)} films without ratings, by {name}: {ndcg:.3f}")

# %%
# A film that came after the fit
# ------------------------------
# ``predict`` accepts the attributes of ids that ``fit`` has not seen, for one call. ``extend`` adds them to the model permanently,
# without training.

new = pd.DataFrame({"year": [1998.0], "genres": [("Drama", "Romance")]}, index=[10_001])
rating, std = model.predict(1, 10_001, item_features=new, return_std=True)
print(f"User 1 would rate it {rating:.2f}, give or take {std:.2f}")
model.extend(item_features=new)
candidates = [*cold, 10_001]
print(f"Best of {len(candidates)}:", model.recommend(1, k=5, items=candidates)[0])

# %%
# How certain
# -----------
# The standard deviation is larger for a film without ratings than for others, because a film may differ from what its attributes
# say. An interval of 1.28 standard deviations to either side should hold 80 % of the ratings.

predicted, std = model.predict(X_test, return_std=True)
within = np.abs(predicted - y_test) < 1.28 * std
print(f"Within the interval: {within.mean():.0%} of the ratings of films held out")

# %%
# What the attributes are worth
# -----------------------------
# ``item_feature_shares_`` says how much of the difference between films each group of columns explains. ``item_feature_weights_``
# has what a column adds to the factors and, in the last place, to the bias of a film without ratings, in stars. The picture shows
# both.

FeatureShareDisplay.from_estimator(model, group="genres", n_columns=19)
plt.show()
