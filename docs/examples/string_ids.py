"""
String ids, other columns, a Pipeline
=====================================

A table as it comes from a database has names as ids, and columns that are neither ids nor ratings. The estimator accepts it as it
is. This page also combines it with other tools of scikit-learn: encoders, pipelines, stacking.

``python docs/examples/string_ids.py`` takes a few seconds.
"""

# %%
# A table
# -------
# Guests rate dishes. The ratings are planted: factors and biases, minus a star for each hour of waiting, plus a bonus at weekends
# and noise of half a star. No model can have an error below this noise.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.ensemble import StackingRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import root_mean_squared_error
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

from sk_torchmf import BiasedMatrixFactorization, datasets

planted = datasets.make_ratings(n_users=600, n_items=200, n_ratings=30_000, n_factors=4, noise_std=0.5, random_state=0)
rng = np.random.default_rng(0)
table = pd.DataFrame(
    {
        "day": rng.choice(["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"], len(planted.target)),
        "guest": [f"guest-{user:03}" for user in planted.data[:, 0]],
        "dish": [f"dish-{item:03}" for item in planted.data[:, 1]],
        "waited": rng.exponential(20, len(planted.target)).round(),  # minutes
    }
)
stars = planted.target - table["waited"] / 60 + 0.5 * table["day"].isin(["Sat", "Sun"])
X_train, X_test, y_train, y_test = train_test_split(table, stars, test_size=0.2, random_state=0)
print(X_train.head(3).to_string())

# %%
# Labels as they are
# ------------------
# The parameters ``user`` and ``item`` say which two columns hold the ids, by name or by position; other columns are ignored. All
# results use the same labels.

model = BiasedMatrixFactorization(n_factors=8, user="guest", item="dish", random_state=0)
model.fit(X_train, y_train)
print(model.users_[:3], model.items_[:3])
dishes, scores = model.recommend(["guest-007", "guest-008"], k=3)
print(pd.DataFrame(dishes, index=["guest-007", "guest-008"], columns=["first", "second", "third"]))

# %%
# Labels that fit did not see
# ---------------------------
# An unknown guest is predicted as the mean guest and an unknown dish as the mean dish. So cross-validation, whose folds always have
# some unknown ids, works without further care. NaN or an error can be chosen instead, without another fit.

new = pd.DataFrame(
    {
        "day": "Mon",
        "guest": ["guest-007", "nobody", "nobody"],
        "dish": ["dish-003", "dish-003", "haggis"],
        "waited": 5,
    }
)
try:
    model.set_params(handle_unknown="error").predict(new)
except ValueError as error:
    print(error)
answers = {handling: model.set_params(handle_unknown=handling).predict(new) for handling in ("nan", "mean")}
print(new[["guest", "dish"]].assign(**answers).to_string(index=False, float_format="{:.2f}".format))

# %%
# After an encoder
# ----------------
# In a pipeline that encodes everything first, ids arrive as floating-point codes, and predictions are the same.
# With ``unknown_value=-1`` an unknown id reaches the estimator as -1. ``set_output`` keeps the names of the columns, by which the
# estimator finds the ids.

encode = make_column_transformer(
    (
        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
        ["guest", "dish"],
    ),
    verbose_feature_names_out=False,
).set_output(transform="pandas")
pipeline = make_pipeline(encode, clone(model)).fit(X_train, y_train)
print(pipeline[:-1].transform(new).to_string(index=False))
assert np.allclose(pipeline.predict(new), model.predict(new), atol=1e-4)

# %%
# The other columns
# -----------------
# A second model can use what the first does not: the waiting time and the weekend. ``StackingRegressor`` weights the two models. It
# fits the weights to predictions out of fold, because a factorization predicts the rows it was fitted to better than it will
# predict any others.

context = make_pipeline(
    make_column_transformer((OneHotEncoder(), ["day"]), ("passthrough", ["waited"])),
    LinearRegression(),
)
stack = StackingRegressor([("factors", model), ("context", context)], LinearRegression()).fit(X_train, y_train)
print(pd.Series(stack.final_estimator_.coef_, index=list(stack.named_estimators_), name="weight").round(2).to_frame())

# %%
# The remaining error is not far above the noise of half a star.

models = {
    "context alone": clone(context).fit(X_train, y_train),
    "factorization alone": model,
    "stacked": stack,
}
rmse = {name: root_mean_squared_error(y_test, each.predict(X_test)) for name, each in models.items()}
print(pd.Series(rmse, name="test RMSE").to_frame().to_string(float_format="{:.3f}".format))

# %%
# The mean error that each model leaves, by how long the guest had waited.

fig, ax = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
waited = pd.cut(X_test["waited"], [0, 5, 10, 20, 30, 45, 60, 120], include_lowest=True)
for (name, each), color, marker in zip(models.items(), ["#E69F00", "#0072B2", "#000000"], "s^o", strict=True):
    left = (y_test - each.predict(X_test)).groupby(waited, observed=True).mean()
    ax.plot(
        [interval.mid for interval in left.index],
        left,
        color=color,
        marker=marker,
        label=name,
    )
ax.axhline(0, color="grey", linewidth=0.8)
ax.set(
    xlabel="Minutes waited",
    ylabel="Mean of rating minus prediction, in stars",
    title="What is left to explain",
)
ax.grid(alpha=0.3)
ax.legend()
plt.show()

# %%
# Factors as columns
# ------------------
# ``transform`` returns the guest's factors and the dish's factors as columns for another step. With ``set_output`` they are a frame
# with column names.

model.set_output(transform="pandas")
print(model.transform(new).iloc[:, [0, 1, 8, 9]].to_string(index=False, float_format="{:.3f}".format))

# %%
# Use such columns to predict something other than the rating, because the factors were learned from the ratings. For example: are
# dishes sweet or savoury? The factorization was not told, but guests' tastes differ in this, so the factors of a dish show it.
# (Here it is the sign of a planted factor.)

numbers = [int(dish.removeprefix("dish-")) for dish in model.items_]
sweet = planted.item_factors[numbers, 0] > 0
accuracy = cross_val_score(LogisticRegression(C=100), model.item_factors_, sweet, cv=5)
guessing = max(sweet.mean(), 1 - sweet.mean())
print(f"{accuracy.mean():.0%} of {len(model.items_)} dishes are classified correctly; guessing would reach {guessing:.0%}")
