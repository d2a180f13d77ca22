"""
Pictures of a fitted model
==========================

Five kinds of pictures show what a factorization of MovieLens-100K has learned: its training, its errors, a map of the items, the
recommendations for one user, and how much features contribute.

``python docs/examples/pictures.py`` takes ten seconds.
"""

# %%
# The ratings, of which nine tenths are for training, and the tables of films and users.

import matplotlib.pyplot as plt
from sklearn.model_selection import train_test_split

from sk_torchmf import BiasedMatrixFactorization, ImplicitMatrixFactorization, datasets
from sk_torchmf.display import (
    FactorMapDisplay,
    FeatureShareDisplay,
    RatingResidualDisplay,
    RecommendationDisplay,
    TrainingCurveDisplay,
)

ratings = datasets.fetch_movielens("100k", as_frame=True, features=True)
X, y = ratings.data[["user", "item"]], ratings.target
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.1, random_state=0)
films, users = ratings.item_features, ratings.user_features
titles, genres = films["title"], films["genres"].str[0].rename("First genre")

# %%
# Training
# --------
# The loss of each iteration. Solvers have different losses, so each curve is divided by its own first value. The curve of
# ``variational`` rises again, because the regularisation is learned at the same time: the loss on training data does not show which
# model is best.

solvers = "variational", "als", "adam"
models = {solver: BiasedMatrixFactorization(solver=solver, random_state=0).fit(X_train, y_train) for solver in solvers}
training = TrainingCurveDisplay.from_estimator(models, x="seconds", relative=True)

# %%
# Errors
# ------
# The errors of held-out ratings, grouped by how many training ratings their user has (left) and their item has (right). The number
# in parentheses says how many held-out ratings a point stands for. Items without training ratings, 0, are a group of their own.

model = models["variational"]
residuals = RatingResidualDisplay.from_estimator(model, X_test, y_test)

# %%
# Items
# -----
# Items near each other are liked by the same users. The popular ones have labels; the colour is the number of ratings.

items = FactorMapDisplay.from_estimator(model, labels=titles)

# %%
# The colour can be any column: categories get a legend, numbers a colour bar.

items_by_genre = FactorMapDisplay.from_estimator(model, labels=titles, color=genres)

# %%
# One user
# --------
# The films that the user rated best, beside those that are recommended, with the standard deviation of each prediction. The line
# below a title names the nearest film among those the user has rated.

user = X["user"].value_counts(sort=False).sort_index().sort_values(kind="stable").index[X["user"].nunique() // 2]
recommendations = RecommendationDisplay.from_estimator(model, user, X=X_train, y=y_train, labels=titles)

# %%
# A model of implicit feedback uses which films the user rated, but not how.

implicit = ImplicitMatrixFactorization(random_state=0).fit(X_train)
implicit_recommendations = RecommendationDisplay.from_estimator(implicit, user, labels=titles, k=5)

# %%
# Features
# --------
# A model with features of films and users says how much of the difference between films, or between users, each of them explains.
# On the right is each genre's weight on the bias, in stars: what the genre adds to a film without ratings.

hybrid = BiasedMatrixFactorization(user="user", item="item", random_state=0)
hybrid.fit(X_train, y_train, user_features=users[["gender", "age", "occupation"]], item_features=films[["year", "genres"]])
features = FeatureShareDisplay.from_estimator(hybrid, group="genres")

# %%
# Each picture is a matplotlib figure and can be changed and saved like any other: ``recommendations.figure_.savefig("user.png")``.

plt.show()
