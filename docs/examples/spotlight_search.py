"""
Spotlight's model beside ours
=============================

This page compares the ``ExplicitFactorizationModel`` of `Spotlight <https://github.com/maciejkula/spotlight>`_ with
``BiasedMatrixFactorization``: the same folds, the same score, and a search over the parameters of each.

Spotlight is not on PyPI (the project of that name there is another one). This page is therefore usually built without it, and runs
only our model; the table at the end has the figures measured with both. To run both, ``git clone`` Spotlight's repository and call
``SK_TORCHMF_SPOTLIGHT=spotlight python docs/examples/spotlight_search.py``, which takes a minute. Without Spotlight it takes a few
seconds.
"""

# %%
# The two models
# --------------
# ``SK_TORCHMF_SPOTLIGHT`` is the path of a clone. ``SpotlightEstimator`` turns Spotlight's class into a scikit-learn estimator; the
# arguments of the class become parameters with the prefix ``model__``.

import os
import sys

import matplotlib.pyplot as plt
import pandas as pd
from sklearn.model_selection import GridSearchCV, KFold, train_test_split

from sk_torchmf import BiasedMatrixFactorization, datasets
from sk_torchmf.spotlight import SpotlightEstimator, rmse_score

candidates = {"ours": (BiasedMatrixFactorization(random_state=0), {"n_factors": [8, 16, 32, 64]})}
if os.environ.get("SK_TORCHMF_SPOTLIGHT"):
    sys.path.append(os.environ["SK_TORCHMF_SPOTLIGHT"])
try:
    from spotlight.factorization.explicit import ExplicitFactorizationModel

    candidates["Spotlight"] = (
        SpotlightEstimator(ExplicitFactorizationModel, model__batch_size=1024, random_state=0),
        {
            "model__embedding_dim": [8, 32],
            "model__n_iter": [5, 10],
            "model__l2": [1e-6, 1e-5],
        },
    )
except ImportError as error:
    print(f"Spotlight is not installed here ({error}), so only our model runs.")

# %%
# The search
# ----------
# Our container has the attributes of Spotlight's, so both models accept it. A tenth is the test.

ratings = datasets.fetch_movielens("100k").interactions
known, test = train_test_split(ratings, test_size=0.1, random_state=0)
searches = {}
for name, (estimator, grid) in candidates.items():
    searches[name] = GridSearchCV(
        estimator,
        grid,
        scoring="neg_root_mean_squared_error",
        cv=KFold(3, shuffle=True, random_state=0),
        error_score="raise",
    ).fit(known, known.ratings)

parts = []
for name, search in searches.items():
    part = pd.DataFrame(search.cv_results_["params"]).rename(columns=lambda key: key.removeprefix("model__"))
    part.insert(0, "model", name)
    part["RMSE"] = -search.cv_results_["mean_test_score"]
    part["fold std"] = search.cv_results_["std_test_score"]
    part["fit (s)"] = search.cv_results_["mean_fit_time"]
    parts.append(part)
table = pd.concat(parts).sort_values("RMSE")
figures = ["RMSE", "fold std", "fit (s)"]
table = table[[*table.columns.difference(figures, sort=False), *figures]]
print(table.round(dict.fromkeys(figures, 3)).to_string(index=False, na_rep="", float_format="{:g}".format))

# %%
# Error and time
# --------------
# Each mark is a candidate. Times are for fits on two thirds of the training part, on the machine that built this page.

fig, ax = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
styles = {"ours": ("#0072B2", "o"), "Spotlight": ("#D55E00", "s")}
for name, marks in table.groupby("model"):
    color, marker = styles[name]
    ax.scatter(marks["fit (s)"], marks["RMSE"], color=color, marker=marker, label=name)
ax.set_xlim(left=0)
ax.set(
    xlabel="Seconds of a fit",
    ylabel="RMSE on held-out folds, in stars",
    title="Candidates of the search",
)
ax.grid(alpha=0.3)
ax.legend()
plt.show()

# %%
# The test
# --------
# ``rmse_score`` has the name and the result of Spotlight's own function, and accepts any model with Spotlight's ``predict``.

for name, search in searches.items():
    print(f"{name}: test RMSE {rmse_score(search.best_estimator_, test):.4f} with {search.best_params_}")

# %%
# With Spotlight
# --------------
# Measured on MovieLens-100K, with Spotlight at its last commit, 75f4c8c of February 2020, and torch 2.13. The RMSE on the test part
# is 0.8893 for our model and 0.9333 for Spotlight's. Seconds are medians of three runs on two cores that other programs used too,
# so they are only a rough measure.
#
# .. list-table::
#    :header-rows: 1
#
#    * - model
#      - parameters
#      - RMSE
#      - fit (s)
#    * - ours
#      - n_factors 16
#      - 0.909
#      - 0.13
#    * - ours
#      - n_factors 32
#      - 0.909
#      - 0.23
#    * - ours
#      - n_factors 8
#      - 0.912
#      - 0.14
#    * - ours
#      - n_factors 64
#      - 0.915
#      - 0.29
#    * - Spotlight
#      - embedding_dim 8, l2 1e-05, n_iter 10
#      - 0.949
#      - 0.92
#    * - Spotlight
#      - embedding_dim 32, l2 1e-05, n_iter 5
#      - 0.949
#      - 0.57
#    * - Spotlight
#      - embedding_dim 32, l2 1e-06, n_iter 5
#      - 0.950
#      - 0.68
#    * - Spotlight
#      - embedding_dim 8, l2 1e-06, n_iter 10
#      - 0.951
#      - 1.01
#    * - Spotlight
#      - embedding_dim 8, l2 1e-06, n_iter 5
#      - 0.953
#      - 1.02
#    * - Spotlight
#      - embedding_dim 8, l2 1e-05, n_iter 5
#      - 0.954
#      - 0.48
#    * - Spotlight
#      - embedding_dim 32, l2 1e-05, n_iter 10
#      - 1.017
#      - 1.20
#    * - Spotlight
#      - embedding_dim 32, l2 1e-06, n_iter 10
#      - 1.025
#      - 1.30
