"""
Pictures of a fitted model
==========================

What a factorization of MovieLens-100K has learned, where it errs, what it makes of one user, and what features are worth to it, in
five kinds of pictures.

``python docs/examples/pictures.py``: ten seconds.
"""

# %%
# The ratings, nine tenths of them to train on, and what is known of films and users.

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
# Features
# --------
# A model that knows of genres, years and of who the users are says how much of what tells films, or users, apart each of these
# explains. At the right a genre's weight on the bias, in stars: what it adds to a film that nobody has rated.

hybrid = BiasedMatrixFactorization(user="user", item="item", random_state=0)
hybrid.fit(X_train, y_train, user_features=users[["gender", "age", "occupation"]], item_features=films[["year", "genres"]])
features = FeatureShareDisplay.from_estimator(hybrid, group="genres")

# %%
# Each picture is a matplotlib figure, to be changed and saved as any other: ``recommendations.figure_.savefig("user.png")``.

plt.show()
