"""
Tune a model of ratings
=======================

How many factors, how many iterations, which solver? A grid search answers this with cross-validation on nine tenths of
MovieLens-100K. The last tenth is used once, at the end, to compare the result with a baseline that has only biases.

``python docs/examples/explicit_search.py`` takes half a minute at most.
"""

# %%
# The ratings
# -----------
# A frame with one rating in each row. The test part is set aside before anything is chosen.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.model_selection import GridSearchCV, KFold, train_test_split

from sk_torchmf import BiasedMatrixFactorization, datasets

ratings = datasets.fetch_movielens("100k", as_frame=True)
X, y = ratings.data[["user", "item"]], ratings.target
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.1, random_state=0)
print(f"{len(y_train):,} ratings to choose and train on, {len(y_test):,} to test on")

# %%
# The search
# ----------
# A row is a rating, so ``KFold`` holds out ratings of known users. ``shuffle`` matters, because most files are sorted. The default
# solver, ``variational``, learns its regularisation, so there is none to tune. ``als`` has the parameter ``alpha``, so it gets a
# grid of its own.

grids = [
    {"n_factors": [4, 8, 16, 32], "max_iter": [5, 10, 20]},
    {"solver": ["als"], "n_factors": [8], "alpha": [0.05, 0.1, 0.2]},
]
search = GridSearchCV(
    BiasedMatrixFactorization(solver="variational", random_state=0),
    grids,
    scoring="neg_root_mean_squared_error",
    cv=KFold(3, shuffle=True, random_state=0),
    error_score="raise",
).fit(X_train, y_train)

candidates = pd.DataFrame(list(search.cv_results_["params"]), columns=["solver", "n_factors", "max_iter", "alpha"])
candidates = candidates.fillna({"solver": "variational"})
candidates["RMSE"] = -search.cv_results_["mean_test_score"]
candidates["fold std"] = search.cv_results_["std_test_score"]
candidates["fit (s)"] = search.cv_results_["mean_fit_time"]
candidates = candidates.sort_values("RMSE").round(4)
print(candidates.to_string(index=False, na_rep="", float_format="{:g}".format))

# %%
# The validation curve
# --------------------
# These ratings support eight factors or so. More do little harm, because the regularisation is learned too. Five iterations are too
# few, and twenty gain next to nothing over ten. Note the axis: on MovieLens-100K it covers only hundredths of a star.

fig, ax = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
curves = candidates[candidates["solver"] == "variational"].groupby("max_iter")
styles = [("#E69F00", "s"), ("#0072B2", "o"), ("#000000", "^")]  # Okabe and Ito's colours, for colour-blind readers too
for (n_iterations, curve), (color, marker) in zip(curves, styles, strict=True):
    curve = curve.sort_values("n_factors")
    ax.plot(curve["n_factors"], curve["RMSE"], color=color, marker=marker, label=f"{n_iterations:g}")
ax.set_xscale("log", base=2)
ax.xaxis.set_major_formatter("{x:g}")
ax.set(xlabel="n_factors", ylabel="RMSE on held-out folds, in stars", title="Validation curve")
ax.grid(alpha=0.3)
ax.legend(title="max_iter")
plt.show()

# %%
# The test
# --------
# The baseline is the mean rating plus a bias of each item and a bias of each user. A bias is the mean of what is left of the
# ratings, damped: with few ratings it stays near zero. The table also has the standard error for a test part of this size. Compared
# with it, factors gain much over biases, and tuning gains nothing over the defaults.


def predict_by_biases(X, y, X_new, item_damping=25, user_damping=10):
    """Mean plus biases, each a sum of residuals / (number of ratings + damping)."""
    prediction, residual = np.full(len(X_new), y.mean()), y - y.mean()
    for side, damping in (("item", item_damping), ("user", user_damping)):
        by_id = residual.groupby(X[side])
        bias = by_id.sum() / (by_id.count() + damping)
        prediction += X_new[side].map(bias).fillna(0).to_numpy()
        residual = residual - X[side].map(bias)
    return prediction


predictions = {
    "global mean": np.full(len(y_test), y_train.mean()),
    "damped biases": predict_by_biases(X_train, y_train, X_test),
    "default parameters": BiasedMatrixFactorization(random_state=0).fit(X_train, y_train).predict(X_test),
    "tuned": search.predict(X_test),
}
squares = pd.DataFrame({name: (prediction - y_test) ** 2 for name, prediction in predictions.items()})
rmse = squares.mean() ** 0.5
test = pd.DataFrame({"test RMSE": rmse, "standard error": squares.sem() / (2 * rmse)})
print(f"Chosen: {search.best_params_}")
print(test.to_string(float_format="{:.4f}".format))
