"""Tune a factorization on a ratings file, compare it with simple baselines, recommend, and draw pictures of all that.

``python docs/examples/demo.py --ratings FILE`` takes any file that ``sk_torchmf.datasets.load_ratings`` reads; without it
MovieLens-100K is fetched.
"""

import argparse
import csv
import sys
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # draws to files, with or without a screen

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold, LearningCurveDisplay, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OrdinalEncoder

from sk_torchmf import BiasedMatrixFactorization, FeatureEncoder
from sk_torchmf.datasets import fetch_movielens, load_ratings
from sk_torchmf.display import FactorMapDisplay, RatingResidualDisplay, RecommendationDisplay, TrainingCurveDisplay

GRID = {"factorize__n_factors": [8, 16, 32, 64], "factorize__max_iter": [10, 20]}
FOLDS = KFold(3, shuffle=True, random_state=0)
SCORING = "neg_root_mean_squared_error"
TRAIN_SIZES = np.linspace(0.1, 1.0, 6)
ITEM_DAMPING, USER_DAMPING = 25, 10  # ratings; the values of Koren's chapter in the Recommender Systems Handbook
BLUE, ORANGE = "#0072B2", "#D55E00"  # of Okabe and Ito, told apart by colour-blind eyes


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--ratings", type=Path, metavar="FILE", help="a table of users, items and ratings; default: MovieLens-100K")
    parser.add_argument("--user", help="whom to recommend to; default: a user with a middling number of ratings")
    parser.add_argument("--output", type=Path, default=Path("demo_output"), metavar="DIR", help="default: %(default)s")
    arguments = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # a log shows each line when it is printed

    try:
        data = load_ratings(arguments.ratings) if arguments.ratings else fetch_movielens("100k", features=True)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if data.target is None:
        parser.error(f"{arguments.ratings} has no ratings, only users and items.")
    name = arguments.ratings.name if arguments.ratings else "MovieLens-100K"
    X, y = pd.DataFrame(data.data, columns=["user", "item"]), data.target
    user = choose_user(X["user"], arguments.user, parser)
    describe(name, X, y)
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.1, random_state=0)

    model = Pipeline(
        [
            ("encode", OrdinalEncoder(dtype=np.int32, handle_unknown="use_encoded_value", unknown_value=-1)),
            ("factorize", BiasedMatrixFactorization(random_state=0)),
        ]
    )
    search = tune(model, X_train, y_train)
    path = arguments.ratings
    features = read_features(path, X["item"].dtype) if path else data.item_features[["year", "genres"]]
    compare(model, search, X_train, X_test, y_train, y_test, features)
    titles = read_titles(arguments.ratings)
    model = clone(search.best_estimator_).fit(X, y)
    recommend(model, user, X, y, titles)
    if features is not None:
        recommend_unrated(with_features(search), user, X, y, features, titles)

    heading(f"Pictures in {arguments.output}")
    arguments.output.mkdir(parents=True, exist_ok=True)
    draw_learning_curve(search.best_estimator_, X_train, y_train, name, arguments.output)
    draw_training_curve(search.best_estimator_, X_train, y_train, arguments.output)
    save(RatingResidualDisplay.from_estimator(search, X_test, y_test), arguments.output / "residuals.png")
    draw_items_and_user(model, user, X, y, titles, arguments.output)


def heading(text):
    print(f"\n{text}\n{'-' * len(text)}")


def choose_user(users, wanted, parser):
    """The user asked for, in the type of the ids, or the one at the middle of the users sorted by activity."""
    if wanted is None:
        return users.value_counts(sort=False).sort_index().sort_values(kind="stable").index[users.nunique() // 2]
    found = users[users.astype(str) == wanted]
    if found.empty:
        parser.error(f"--user {wanted} has no rating. There is, for example, user {users.iloc[0]}.")
    return found.iloc[0]


def describe(name, X, y):
    heading(f"Data: {name}")
    n_users, n_items = X["user"].nunique(), X["item"].nunique()
    per_user = X["user"].value_counts()
    print(f"{len(y):,} ratings by {n_users:,} users of {n_items:,} items, {len(y) / (n_users * n_items):.2%} of all pairs")
    print(f"{per_user.min()} to {per_user.max()} ratings a user, median {per_user.median():g}")
    print(f"Ratings from {y.min():g} to {y.max():g}, mean {y.mean():.2f}, standard deviation {y.std():.2f}")
    print("Split at random: 90% to train and tune on, 10% to test")


def tune(model, X, y):
    """Search the grid by cross-validation on the training ratings and print the table."""
    n_candidates = np.prod([len(values) for values in GRID.values()])
    heading(f"Grid search: {n_candidates} candidates x {FOLDS.get_n_splits()} folds")
    search = GridSearchCV(model, GRID, scoring=SCORING, cv=FOLDS, error_score="raise")
    show_progress(search).fit(X, y)
    results = pd.DataFrame(search.cv_results_).sort_values("rank_test_score", kind="stable")
    table = pd.DataFrame({"rank": results["rank_test_score"]})
    for parameter in GRID:
        table[parameter.partition("__")[2]] = results[f"param_{parameter}"]
    table["CV RMSE"] = -results["mean_test_score"]
    table["fold std"] = results["std_test_score"]
    table["fit [s]"] = results["mean_fit_time"]
    formats = {"CV RMSE": "{:.4f}".format, "fold std": "{:.4f}".format, "fit [s]": "{:.2f}".format}
    print(table.to_string(index=False, formatters=formats))
    return search


def show_progress(search):
    """A progress bar where the terminal and scikit-learn (1.9, with rich) have one, else a line for each fit."""
    if sys.stdout.isatty():
        try:
            from sklearn.callback import ProgressBar

            return search.set_callbacks(ProgressBar(max_propagation_depth=0))
        except ImportError:
            pass
    return search.set_params(verbose=2)


def compare(model, search, X_train, X_test, y_train, y_test, features):
    """Print the test error of baselines, default and tuned model, and with features of the items where there are any."""
    start = time.perf_counter()
    model.fit(X_train, y_train)
    seconds = time.perf_counter() - start
    mean = np.full(len(y_test), y_train.mean())
    start = time.perf_counter()
    biases = predict_by_biases(X_train, y_train, X_test)
    rows = [
        ("global mean", mean, 0.0),
        ("damped biases", biases, time.perf_counter() - start),
        ("BiasedMatrixFactorization, default", model.predict(X_test), seconds),
        ("BiasedMatrixFactorization, tuned", search.predict(X_test), search.refit_time_),
    ]
    if features is not None:
        start = time.perf_counter()
        hybrid = with_features(search).fit(X_train, y_train, item_features=features)
        seconds = time.perf_counter() - start
        rows.append(("the same with features of the items", hybrid.predict(X_test), seconds))
    heading(f"Test RMSE on {len(y_test):,} ratings that nothing was tuned on")
    for label, prediction, seconds in rows:
        square = (prediction - y_test) ** 2
        rmse = square.mean() ** 0.5
        print(f"{label:36} {rmse:.4f} +- {square.std() / (2 * rmse * len(square) ** 0.5):.4f}   fit {seconds:.2f} s")
    print("+- is the standard error that a test set of this size leaves.")


def with_features(search):
    """The tuned model, to be fitted with features of the items: it takes ids as they are, without the pipeline."""
    return clone(search.best_estimator_[-1]).set_params(user="user", item="item", item_encoder=FeatureEncoder(min_frequency=5))


def predict_by_biases(X, y, X_new):
    """Mean plus item and user bias, each shrunk towards zero: sum of residuals / (number of ratings + damping)."""
    mean = y.mean()
    by_item = pd.Series(y - mean).groupby(X["item"].to_numpy())
    item_bias = by_item.sum() / (by_item.size() + ITEM_DAMPING)
    by_user = pd.Series(y - mean - X["item"].map(item_bias).to_numpy()).groupby(X["user"].to_numpy())
    user_bias = by_user.sum() / (by_user.size() + USER_DAMPING)
    return (mean + X_new["item"].map(item_bias).fillna(0) + X_new["user"].map(user_bias).fillna(0)).to_numpy()


def read_titles(path):
    """Titles by item id, as text, from the file that RecBole and MovieLens put beside the ratings; empty where there is none."""
    if path is None:
        return {}
    for name, separator, encoding in (
        (f"{path.stem}.item", "\t", "utf-8"),
        ("u.item", "|", "latin-1"),
        ("movies.dat", "\t", "latin-1"),
        ("movies.csv", ",", "utf-8"),
    ):
        if (path.parent / name).exists():
            lines = (path.parent / name).read_text(encoding).replace("::", "\t").splitlines()
            return {row[0]: row[1] for row in csv.reader(lines, delimiter=separator) if len(row) > 1}
    return {}


def read_features(path, dtype):
    """What is known of the items, by ids of a dtype, from the table that RecBole puts beside its ratings; None if there is none."""
    table = path.with_suffix(".item")
    if path.suffix != ".inter" or not table.exists():
        return None
    items = pd.read_csv(table, sep="\t", dtype=str, index_col=0)  # codes are no numbers
    as_type = {"token_seq": lambda cells: cells.str.split(), "float": lambda cells: cells.astype(float)}
    items = items.apply(lambda cells: as_type.get(cells.name.partition(":")[2], pd.Series)(cells))
    return items.set_axis(items.index.astype(dtype))


def label(item, titles):
    """An item's title, where there is one, and its id."""
    return f"{titles[str(item)]} [{item}]" if str(item) in titles else item


def recommend_unrated(model, user, X, y, features, titles):
    """Print the best five for a user of items that the model has no ratings of, and what those were rated by all."""
    items = np.intersect1d(X["item"], features.index)
    held_out = np.random.default_rng(0).choice(items, max(1, len(items) // 10), replace=False)
    cold = X["item"].isin(held_out).to_numpy()
    if not (X["user"][~cold] == user).any():
        return
    model.fit(X[~cold], y[~cold], item_features=features)
    heading(f"As if nobody had rated {len(held_out)} of the items: the best of these for user {user}, by their features alone")
    found, scores = model.recommend(user, k=min(5, len(held_out)), items=held_out)
    _, std = model.predict(np.full(len(found), user), found, return_std=True)
    for item, score, spread in zip(found, scores, std, strict=True):
        own = y[(X["item"] == item).to_numpy()]
        print(f"  {score:5.2f} +- {spread:.2f}  {label(item, titles)}; was rated {own.mean():.2f} by {len(own)}")


def recommend(model, user, X, y, titles):
    """Print what a user liked best and the ten items to show next; the model has seen all ratings."""
    encode, factorize = model
    codes, scores = factorize.recommend(np.searchsorted(encode.categories_[0], user), k=10)
    codes, scores = codes[codes >= 0], scores[codes >= 0]  # fewer than ten, where all others are rated
    own = X["user"] == user
    liked = X["item"][own].iloc[np.argsort(-y[own], kind="stable")[:10]]
    heading(f"User {user}, {own.sum()} ratings")
    print("Rated best:")
    for item, rating in zip(liked, np.sort(y[own])[::-1], strict=False):
        print(f"  {rating:5.2f}  {label(item, titles)}")
    print("Recommended, with the predicted rating:")
    for item, score in zip(encode.categories_[1][codes], scores, strict=True):
        print(f"  {score:5.2f}  {label(item, titles)}")


def draw_learning_curve(model, X, y, name, folder):
    _, ax = plt.subplots(figsize=(7, 4.5), layout="constrained")
    ax.set_prop_cycle(color=[ORANGE, BLUE], marker=["s", "o"])
    display = LearningCurveDisplay.from_estimator(
        model,
        X,
        y,
        train_sizes=TRAIN_SIZES,
        cv=FOLDS,
        scoring=SCORING,
        negate_score=True,
        shuffle=True,
        random_state=0,
        error_score="raise",
        fill_between_kw={"alpha": 0.25},
        ax=ax,
    )
    ax.set_xscale("linear")
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.set_xlabel("Number of training ratings")
    ax.set_ylabel("RMSE, in rating units")
    ax.set_title(f"{type(model[-1]).__name__} on {name}")
    ax.legend(display.lines_, ["training ratings", "validation ratings"], title="Mean and spread of 3 folds, on")
    ax.grid(alpha=0.3)
    for size, train, validation in zip(display.train_sizes, -display.train_scores, -display.test_scores, strict=True):
        print(f"{size:>10,} ratings: RMSE {train.mean():.4f} on training, {validation.mean():.4f} on validation ratings")
    save(display, folder / "learning_curve.png")


def draw_training_curve(model, X, y, folder):
    """The tuned model's training, and that of the same model by other solvers."""
    models = {solver: clone(model).set_params(factorize__solver=solver).fit(X, y) for solver in ("variational", "als", "adam")}
    save(TrainingCurveDisplay.from_estimator(models, x="seconds", relative=True), folder / "training_curve.png")


def draw_items_and_user(model, user, X, y, titles, folder):
    """A map of the items, and one user's ratings beside what is recommended; the pipeline's encoder numbers both."""
    encode, _ = model
    users, items = encode.categories_
    labels = [titles.get(str(item), str(item)) for item in items]
    save(FactorMapDisplay.from_estimator(model, labels=labels), folder / "item_map.png")
    picture = RecommendationDisplay.from_estimator(model, np.searchsorted(users, user), X=X, y=y, labels=labels)
    picture.ax_[0].set_title(f"User {user}: rated best", loc="left")
    save(picture, folder / "recommendations.png")


def save(display, path):
    display.figure_.savefig(path, dpi=150)
    plt.close(display.figure_)
    print(path)


if __name__ == "__main__":
    main()
