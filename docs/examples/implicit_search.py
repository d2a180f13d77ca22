"""
Tune a model of implicit feedback
=================================

We know who has seen what, but not how they liked it. Such a model is judged by the list of items that it would show. The loss, the
number of factors and the regularisation are chosen by NDCG, as any other parameters, and the best model is compared with a list of
the most popular items.

``python docs/examples/implicit_search.py`` takes half a minute.
"""

# %%
# The positives
# -------------
# Every rating counts as a positive, however low. Ten positives of each user, drawn at random, are set aside for the test.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.model_selection import GridSearchCV

from sk_torchmf import ImplicitMatrixFactorization, datasets
from sk_torchmf.metrics import evaluate
from sk_torchmf.model_selection import LeaveRandomOut, UserKFold, ranking_scorer

X = datasets.fetch_movielens("100k").interactions
known, test = next(LeaveRandomOut(n=10, random_state=0).split(X))
print(f"{len(known):,} positives to choose and train on, {len(test):,} to test on")

# %%
# The search
# ----------
# ``UserKFold`` holds out a third of each user's positives. ``ranking_scorer`` asks for the ten best items of each user, without
# those that were trained on, and measures where the held-out ones stand. The default loss, ``cosine``, has nothing to tune and is
# tried as it is. A fit with ``ials`` takes a fraction of a second, so it gets the wider grid.

grids = [
    {"loss": ["cosine"]},
    {"loss": ["ials"], "n_factors": [8, 16, 32, 64], "alpha": [0.01, 0.02, 0.05]},
    {"loss": ["logistic", "bpr", "softmax"], "n_factors": [16], "alpha": [None, 0.02]},
]
search = GridSearchCV(
    ImplicitMatrixFactorization(random_state=0),
    grids,
    scoring=ranking_scorer("ndcg", k=10),
    cv=UserKFold(3, random_state=0),
    error_score="raise",
).fit(X[known])

candidates = pd.DataFrame(search.cv_results_["params"], columns=["loss", "n_factors", "alpha"], dtype=object)
candidates["NDCG@10"] = search.cv_results_["mean_test_score"]
candidates["fold std"] = search.cv_results_["std_test_score"]
candidates["fit (s)"] = search.cv_results_["mean_fit_time"]
candidates = candidates.sort_values("NDCG@10", ascending=False)
print(candidates.to_string(index=False, na_rep="default", float_format="{:.3f}".format))

# %%
# Quality and time
# ----------------
# Each mark is a candidate. Times are for fits on two thirds of the positives, on the machine that built this page.

fig, ax = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
colors = ["#CC79A7", "#0072B2", "#D55E00", "#009E73", "#E69F00"]  # Okabe and Ito's colours, for colour-blind readers too
for (loss, marks), color, marker in zip(candidates.groupby("loss", sort=False), colors, "vos^D", strict=True):
    ax.scatter(marks["fit (s)"], marks["NDCG@10"], color=color, marker=marker, label=loss)
ax.set_xlim(left=0)
ax.set(
    xlabel="Seconds of a fit",
    ylabel="NDCG@10 on held-out folds",
    title="Candidates of the search",
)
ax.grid(alpha=0.3)
ax.legend(title="loss")
plt.show()

# %%
# The test
# --------
# ``evaluate`` accepts any object with ids and a method ``recommend``, such as this one, which recommends the same popular items to
# everybody. (If this page was built on planted ratings, the pairs were drawn by popularity alone, and there is no taste to learn.)


class Popular:
    """Recommends by the number of users."""

    def fit(self, X):
        self.users_, self.items_ = np.arange(X.num_users), np.arange(X.num_items)
        self.seen_ = X.tocsr()
        self.counts_ = np.bincount(X.item_ids, minlength=X.num_items).astype(float)
        return self

    def recommend(self, users, k, exclude_seen=True):
        scores = np.tile(self.counts_, (len(users), 1))
        if exclude_seen:
            seen = self.seen_[users].tocoo()
            scores[seen.row, seen.col] = -np.inf
        items = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return items, np.take_along_axis(scores, items, axis=1)


models = {
    "most popular": Popular().fit(X[known]),
    "default parameters": ImplicitMatrixFactorization(random_state=0).fit(X[known]),
    "tuned": search.best_estimator_,
}
table = {name: evaluate(model, X[test], ["ndcg", "precision", "recall", "auc"], k=10) for name, model in models.items()}
print(f"Chosen: {search.best_params_}")
print(pd.DataFrame(table).map(lambda values: values[10]).T.to_string(float_format="{:.4f}".format))
