"""Tune a factorization on a ratings file, compare it with simple baselines, recommend, and write a page with pictures about that.

``python docs/examples/demo.py --ratings FILE`` takes any file that ``sk_torchmf.datasets.load_ratings`` reads; without it
MovieLens-100K is fetched.
"""

import argparse
import base64
import collections
import csv
import html
import io
import os
import platform
import re
import sys
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # draws to files, with or without a screen

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import sklearn
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold, LearningCurveDisplay, train_test_split

import sk_torchmf
from sk_torchmf import BiasedMatrixFactorization, FeatureEncoder
from sk_torchmf.datasets import fetch_movielens, load_ratings
from sk_torchmf.display import FactorMapDisplay, FeatureShareDisplay, RatingResidualDisplay

GRID = {"n_factors": [4, 8, 16, 32], "max_iter": [5, 10]}
N_ITERATIONS = 30
FOLDS = KFold(3, shuffle=True, random_state=0)
SCORING = "neg_root_mean_squared_error"
TRAIN_SIZES = np.linspace(0.1, 1.0, 6)
ITEM_DAMPING, USER_DAMPING = 25, 10  # ratings; the values of Koren's chapter in the Recommender Systems Handbook
BLUE, ORANGE = "#0072B2", "#D55E00"  # of Okabe and Ito, told apart by colour-blind eyes
CODE = """\
model = BiasedMatrixFactorization(user="user", item="item")
model.fit(table, ratings, item_features=films)
expected, std = model.predict(users, items, return_std=True)
items, scores = model.recommend("ann", k=10)"""
NUMBER = re.compile(r"±?[\d.,]+")
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.55 system-ui, sans-serif; color: #1b1f24; background: #fff; }}
body {{ max-width: 46rem; margin: 0 auto; padding: 1rem 1.25rem 4rem; }}
h1 {{ font-size: 1.8rem; line-height: 1.2; margin: 1.5rem 0 0.5rem; }}
h2 {{ font-size: 1.3rem; line-height: 1.3; margin: 2.75rem 0 0.5rem; }}
p {{ margin: 0.6rem 0; }}
nav {{ display: flex; flex-wrap: wrap; gap: 0.2rem 1.2rem; margin: 1.2rem 0; }}
a {{ color: #005a8f; }}
.wide {{ overflow-x: auto; margin: 1rem 0; }}
table {{ border-collapse: collapse; font-size: 0.94rem; }}
th, td {{ padding: 0.3rem 0.9rem 0.3rem 0; text-align: right; border-bottom: 1px solid #e2e5e9; }}
td {{ font-variant-numeric: tabular-nums; }}
th {{ vertical-align: bottom; color: #57606a; font-weight: 600; }}
pre {{ background: #f4f6f8; padding: 0.8rem 1rem; overflow-x: auto; font-size: 0.86rem; line-height: 1.5; }}
.text {{ text-align: left; }}
img {{ width: 100%; height: auto; display: block; }}
figure {{ margin: 1.25rem 0; }}
figcaption, footer {{ color: #57606a; font-size: 0.9rem; }}
footer {{ margin-top: 3rem; border-top: 1px solid #e2e5e9; }}
@media (max-width: 36rem) {{ table {{ font-size: 0.85rem; }} th, td {{ padding-right: 0.5rem; }} }}
</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


class Report:
    """What is found out, printed while it is, and in the end written as one page that needs no other file.

    Parameters
    ----------
    title : str
    lead : str
        The first sentences of the page.
    """

    def __init__(self, title, lead):
        self.title, self.lead = title, lead
        self.start = time.perf_counter()
        self.headings, self.parts = [], []

    def section(self, heading, *sentences):
        print(f"\n{heading}\n{'-' * len(heading)}")
        self.headings.append(heading)
        self.parts.append(f'<h2 id="s{len(self.headings)}">{html.escape(heading)}</h2>')
        self.say(*sentences)

    def say(self, *sentences):
        if sentences:
            print(*sentences, sep="\n")
            self.parts.append(f"<p>{html.escape(' '.join(sentences))}</p>")

    def table(self, columns):
        """A table of columns by name; numbers are written as they are given, on the right."""
        frame = pd.DataFrame(columns)
        print(frame.to_string(index=False))
        text = [not all(NUMBER.fullmatch(str(value)) for value in values) for _, values in frame.items()]

        def row(cells, tag):
            cells = [f"<{tag}{' class=text' * left}>{html.escape(str(cell))}" for cell, left in zip(cells, text, strict=True)]
            return f"<tr>{''.join(cells)}</tr>"

        rows = "".join(row(cells, "td") for cells in frame.itertuples(index=False))
        self.parts.append(f'<div class="wide"><table>{row(frame.columns, "th")}{rows}</table></div>')

    def code(self, text):
        self.parts.append(f"<pre>{html.escape(text)}</pre>")

    def picture(self, figure, caption):
        file = io.BytesIO()
        figure.savefig(file, dpi=130, format="png")
        plt.close(figure)
        content, text = base64.b64encode(file.getvalue()).decode(), html.escape(caption)
        self.parts.append(
            f'<figure><img alt="{text}" src="data:image/png;base64,{content}"><figcaption>{text}</figcaption></figure>'
        )

    def write(self, folder):
        """Write the page, and return its path."""
        links = "".join(f'<a href="#s{n}">{html.escape(text)}</a>' for n, text in enumerate(self.headings, start=1))
        versions = f"sk_torchmf {sk_torchmf.__version__}, torch {torch.__version__}, scikit-learn {sklearn.__version__}"
        made = (
            f"Made in {time.perf_counter() - self.start:.0f} seconds by docs/examples/demo.py with {versions} and Python "
            f"{platform.python_version()} on {os.cpu_count()} processor cores. Every number and picture was computed in that run."
        )
        parts = [
            f"<p>{html.escape(self.lead)}</p>",
            f"<nav>{links}</nav>",
            *self.parts,
            f"<footer><p>{html.escape(made)}</p></footer>",
        ]
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "report.html"
        path.write_text(PAGE.format(title=html.escape(self.title), body="\n".join(parts)), encoding="utf-8")
        return path


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--ratings", type=Path, metavar="FILE", help="a table of users, items and ratings; default: MovieLens-100K")
    parser.add_argument("--user", help="whom to recommend to; default: a user with a middling number of ratings")
    parser.add_argument("--output", type=Path, default=Path("demo_output"), metavar="DIR", help="default: %(default)s")
    arguments = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # a log shows each line when it is printed

    path = arguments.ratings
    try:
        data = load_ratings(path) if path else fetch_movielens("100k", features=True)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if data.target is None:
        parser.error(f"{path} has no ratings, only users and items.")
    X, y = pd.DataFrame(data.data, columns=["user", "item"]), data.target
    user = choose_user(X["user"], arguments.user, parser)
    features = read_features(path, X["item"].dtype) if path else data.item_features[["year", "genres"]]
    titles = (
        read_titles(path) if path else dict(zip(data.item_features.index.astype(str), data.item_features["title"], strict=True))
    )

    titles = readable(titles)
    name = "MovieLens-100K" if path is None or path.name == "ml-100k.inter" else path.name
    report = Report(
        f"Matrix factorization of {name}",
        "A factorization gives every user and every item a short row of numbers, such that the product of two rows says how the "
        "user will rate the item. This page shows how good these predictions are, what they recommend to one user, and how items "
        "are predicted that nobody has rated.",
    )
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.1, random_state=0)
    report.code(CODE)
    describe(report, X, y)
    search = tune(report, X_train, y_train)
    compare(report, search, X_train, X_test, y_train, y_test, features)
    recommend(report, clone(search.best_estimator_).fit(X, y), user, X, y, titles)
    if features is not None:
        predict_unrated(report, with_features(search), user, X, y, features, titles)
    draw_items(report, clone(search.best_estimator_).fit(X, y), titles)
    draw_training(report, search.best_estimator_, X_train, X_test, y_train, y_test)
    written = report.write(arguments.output)
    print(f"\nThe report, with pictures: {written}")


def choose_user(users, wanted, parser):
    """The user asked for, in the type of the ids, or the one at the middle of the users sorted by activity."""
    if wanted is None:
        return users.value_counts(sort=False).sort_index().sort_values(kind="stable").index[users.nunique() // 2]
    found = users[users.astype(str) == wanted]
    if found.empty:
        parser.error(f"--user {wanted} has no rating. There is, for example, user {users.iloc[0]}.")
    return found.iloc[0]


def read_titles(path):
    """Titles by item id, as text, from the file that RecBole and MovieLens put beside the ratings; empty where there is none."""
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
    items = pd.read_csv(table, sep="\t", dtype=str, index_col=0)
    columns = {}
    for header, cells in items.items():
        name, _, kind = header.partition(":")
        name = "genres" if name == "class" else name  # RecBole's word for MovieLens's genres
        if "title" in name or "name" in name:
            continue  # what each item has for itself says nothing of others
        if kind == "float" or "year" in name:
            columns[name] = pd.to_numeric(cells, errors="coerce")
        else:
            columns[name] = cells.str.split() if kind == "token_seq" else cells
    return pd.DataFrame(columns).set_axis(items.index.astype(dtype)) if columns else None


def readable(titles):
    """Titles with their article in front, and with the item's id where two items have the same one."""
    titles = {item: re.sub(r"^(.+), (The|A|An|La|Le|Les|El|Il|Das|Der|Die)\b", r"\2 \1", title) for item, title in titles.items()}
    count = collections.Counter(titles.values())
    return {item: title if count[title] == 1 else f"{title} [{item}]" for item, title in titles.items()}


def label(item, titles):
    """An item's title where it has one, else its id."""
    return titles.get(str(item), f"item {item}")


def describe(report, X, y):
    n_users, n_items = X["user"].nunique(), X["item"].nunique()
    per_user = X["user"].value_counts()
    report.section(
        "The ratings",
        f"{n_users:,} users have given {len(y):,} ratings to {n_items:,} items, {len(y) / (n_users * n_items):.1%} of all pairs.",
        f"A user has between {per_user.min():,} and {per_user.max():,} ratings, half of them no more than {per_user.median():g}.",
        f"The ratings go from {y.min():g} to {y.max():g}, with a mean of {y.mean():.2f} and a standard deviation of {y.std():.2f}.",
        "A random tenth of them is put aside as the test ratings. Nothing below is chosen by looking at these.",
    )


def tune(report, X, y):
    """Search the grid by cross-validation on the training ratings."""
    n_candidates = np.prod([len(values) for values in GRID.values()])
    report.section(
        "What there is to tune",
        f"scikit-learn's GridSearchCV tries {n_candidates} settings on {FOLDS.get_n_splits()} folds of the training ratings.",
        "The strength of the regularisation is not among them, because the model learns it.",
        "RMSE is the root of the mean squared error, in units of a rating; less is better.",
    )
    model = BiasedMatrixFactorization(user="user", item="item", random_state=0)
    search = GridSearchCV(model, GRID, scoring=SCORING, cv=FOLDS, error_score="raise")
    show_progress(search).fit(X, y)
    results = pd.DataFrame(search.cv_results_).sort_values("rank_test_score", kind="stable")
    columns = {name: results[f"param_{name}"] for name in GRID}
    columns["RMSE"] = [f"{-score:.4f}" for score in results["mean_test_score"]]
    columns["spread of the folds"] = [f"{spread:.4f}" for spread in results["std_test_score"]]
    columns["seconds a fit"] = [f"{seconds:.2f}" for seconds in results["mean_fit_time"]]
    report.table(columns)
    draw_learning_curve(report, search.best_estimator_, X, y)
    return search


def show_progress(search):
    """A progress bar where the terminal and scikit-learn (1.9, with rich) have one."""
    if sys.stdout.isatty():
        try:
            from sklearn.callback import ProgressBar

            return search.set_callbacks(ProgressBar(max_propagation_depth=0))
        except ImportError:
            pass
    return search


def draw_learning_curve(report, model, X, y):
    figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
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
    ax.set_ylabel("RMSE, in units of a rating")
    ax.legend(display.lines_, ["ratings it was trained on", "ratings left out"])
    ax.grid(alpha=0.3)
    errors = -display.test_scores.mean(axis=1)
    report.say(
        f"With {display.train_sizes[0]:,} training ratings the error on ratings left out is {errors[0]:.3f}, "
        f"with {display.train_sizes[-1]:,} it is {errors[-1]:.3f}."
    )
    report.picture(figure, "The more ratings, the smaller the error. Lines are means of three folds, and the shades their spread.")


def with_features(search):
    """The tuned model, to be fitted with features of the items."""
    return clone(search.best_estimator_).set_params(item_encoder=FeatureEncoder(min_frequency=5))


def compare(report, search, X_train, X_test, y_train, y_test, features):
    """The test error of baselines, of the default and the tuned model, and with features of the items where there are any."""
    default = BiasedMatrixFactorization(user="user", item="item", random_state=0)
    models = {
        "mean of all ratings": lambda: np.full(len(y_test), y_train.mean()),
        "mean, user and item biases": lambda: predict_by_biases(X_train, y_train, X_test),
        "factorization, as it comes": lambda: default.fit(X_train, y_train).predict(X_test),
        "factorization, tuned": lambda: clone(search.best_estimator_).fit(X_train, y_train).predict(X_test),
    }
    if features is not None:
        hybrid = with_features(search)
        models["tuned, with features of the items"] = lambda: hybrid.fit(X_train, y_train, item_features=features).predict(X_test)
    errors, noise, seconds = [], [], []
    for predict in models.values():
        start = time.perf_counter()
        square = (predict() - y_test) ** 2
        seconds.append(time.perf_counter() - start)
        errors.append(square.mean() ** 0.5)
        noise.append(square.std() / (2 * errors[-1] * len(square) ** 0.5))
    report.section(
        "How good the predictions are",
        f"The error on the {len(y_test):,} test ratings, with the standard error that a test set of this size leaves,",
        "and the seconds that fitting and predicting took on this machine.",
    )
    columns = {"model": list(models), "RMSE": [f"{error:.4f}" for error in errors]}
    columns["standard error"] = [f"±{spread:.4f}" for spread in noise]
    columns["seconds"] = [f"{passed:.2f}" for passed in seconds]
    report.table(columns)
    figure = RatingResidualDisplay.from_estimator(search, X_test, y_test).figure_
    figure.set_size_inches(9, 4.2)
    report.picture(figure, "Errors of the tuned model on test ratings, by how many ratings of the user and of the item it knew.")


def predict_by_biases(X, y, X_new):
    """Mean plus item and user bias, each shrunk towards zero: sum of residuals / (number of ratings + damping)."""
    mean = y.mean()
    by_item = pd.Series(y - mean).groupby(X["item"].to_numpy())
    item_bias = by_item.sum() / (by_item.size() + ITEM_DAMPING)
    by_user = pd.Series(y - mean - X["item"].map(item_bias).to_numpy()).groupby(X["user"].to_numpy())
    user_bias = by_user.sum() / (by_user.size() + USER_DAMPING)
    return (mean + X_new["item"].map(item_bias).fillna(0) + X_new["user"].map(user_bias).fillna(0)).to_numpy()


def recommend(report, model, user, X, y, titles):
    """What a user liked best, and the ten items to show next; the model has seen all ratings."""
    items, _ = model.recommend(user, k=min(10, model.n_items_))
    items = items[items >= 0] if items.dtype.kind == "i" else items  # fewer than ten where all others are rated
    expected, std = model.predict(np.full(len(items), user), items, return_std=True)
    own = (X["user"] == user).to_numpy()
    best = np.argsort(-y[own], kind="stable")[:10]
    report.section(
        f"What is recommended to user {user}",
        f"User {user} has given {own.sum()} ratings, with a mean of {y[own].mean():.2f}. These were the highest:",
    )
    liked = X["item"].to_numpy()[own][best]
    report.table({"rated best": [label(item, titles) for item in liked], "rating": [f"{rating:g}" for rating in y[own][best]]})
    report.say(
        "And these are recommended out of all that the user has not rated.",
        "Each prediction comes with the standard deviation of the rating to expect: the model says how sure it is.",
    )
    report.table(
        {
            "recommended": [label(item, titles) for item in items],
            "predicted rating": [f"{rating:.2f}" for rating in expected],
            "standard deviation": [f"±{spread:.2f}" for spread in std],
        }
    )


def predict_unrated(report, model, user, X, y, features, titles):
    """Leave a tenth of the items without any rating, predict these by their features, and compare with what they were rated."""
    candidates = np.intersect1d(X["item"], features.index)
    held_out = np.random.default_rng(0).choice(candidates, max(1, len(candidates) // 10), replace=False)
    cold = X["item"].isin(held_out).to_numpy()
    if not (X["user"][~cold] == user).any():
        return
    model.set_params(cold_average="micro")  # least error over all ratings of new items, not over items, each counted once
    model.fit(X[~cold], y[~cold], item_features=features)
    expected, std = model.predict(X[cold], return_std=True)
    names = [name.replace("_", " ") for name in features.columns]
    found = pd.DataFrame({"item": X["item"][cold], "expected": expected, "given": y[cold], "n": 1}).groupby("item")
    table = found.mean().assign(n=found.size()).sort_values("n", ascending=False)
    among = table["n"].to_numpy() >= 20
    agreement = np.corrcoef(table["expected"][among], table["given"][among])[0, 1] if among.sum() > 2 else np.nan
    rmse, mean_only = (
        ((expected - y[cold]) ** 2).mean() ** 0.5,
        ((predict_by_biases(X[~cold], y[~cold], X[cold]) - y[cold]) ** 2).mean() ** 0.5,
    )
    within = np.mean(np.abs(expected - y[cold]) <= std)
    report.section(
        "Items that nobody has rated",
        f"Here all {cold.sum():,} ratings of {len(held_out)} items are taken out, as if these items had come today.",
        f"All that the model knows of them is what the table of items says: {' and '.join(names)}.",
        f"Their ratings are predicted with an RMSE of {rmse:.3f}, where the biases of the users alone give {mean_only:.3f}.",
        f"{within:.0%} of the ratings lie within one standard deviation of the prediction; of normal errors 68% would.",
        "These are the ones that were rated most often, and what their users had in fact given:",
    )
    top = table.head(8)
    report.table(
        {
            "item": [label(item, titles) for item in top.index],
            **{
                name: [cell(features.loc[item, of]) for item in top.index] for name, of in zip(names, features.columns, strict=True)
            },
            "predicted mean": [f"{rating:.2f}" for rating in top["expected"]],
            "given mean": [f"{rating:.2f}" for rating in top["given"]],
            "ratings": list(top["n"]),
        }
    )
    report.picture(
        draw_unrated(table), "Each dot is an item that the model had no rating of; the larger, the more users had rated it."
    )
    if among.sum() > 2:
        report.say(
            f"Over the {among.sum()} items with twenty ratings or more, predicted and given means correlate by {agreement:.2f}."
        )

    items, _ = model.recommend(user, k=min(5, len(held_out)), items=held_out)
    items = [item for item in items if item in held_out]
    scores, spread = model.predict(np.full(len(items), user), items, return_std=True)
    report.say(f"The best of these items for user {user}, by their features alone:")
    report.table(
        {
            "item": [label(item, titles) for item in items],
            "predicted for this user": [f"{score:.2f}" for score in scores],
            "standard deviation": [f"±{one:.2f}" for one in spread],
            "given mean": [f"{table['given'][item]:.2f}" for item in items],
            "ratings": [int(table["n"][item]) for item in items],
        }
    )
    figure = FeatureShareDisplay.from_estimator(model).figure_
    figure.set_size_inches(5.5, 1.2 + 0.5 * len(names))
    report.picture(
        figure, "What the columns of the table of items are worth: how much of the differences between items each explains."
    )


def cell(value):
    """A feature of an item, as text."""
    if isinstance(value, list | tuple):
        return ", ".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def draw_unrated(table):
    figure, ax = plt.subplots(figsize=(7, 4.5), layout="constrained")
    ax.scatter(table["expected"], table["given"], s=4 + table["n"] / 2, color=BLUE, alpha=0.6, linewidths=0)
    ends = [min(table["expected"].min(), table["given"].min()), max(table["expected"].max(), table["given"].max())]
    ax.plot(ends, ends, color=ORANGE, linewidth=1)
    ax.set_xlabel("Mean of the predictions for its users")
    ax.set_ylabel("Mean of what they gave")
    ax.grid(alpha=0.3)
    return figure


def draw_items(report, model, titles):
    report.section(
        "A map of the items",
        "The rows of the items, laid out in the plane. Items near each other are liked by the same users.",
        "The model was told neither titles nor genres for this picture.",
    )
    labels = [titles.get(str(item), str(item)) for item in model.items_]
    report.picture(
        FactorMapDisplay.from_estimator(model, labels=labels).figure_, "The items that were rated most often have names."
    )


def draw_training(report, model, X_train, X_test, y_train, y_test):
    """The error on the test ratings after each iteration of the tuned model."""
    model = clone(model).set_params(max_iter=N_ITERATIONS, tol=0.0, scoring=SCORING)
    errors = -np.array(model.fit(X_train, y_train, X_val=X_test, y_val=y_test).history_["validation_score"])
    report.section(
        "How it learns",
        f"The tuned model is fitted once more for {len(errors)} iterations, and asked for the test ratings after each of them.",
        f"The error was lowest after iteration {errors.argmin() + 1}, with {errors.min():.4f}; at the end it is {errors[-1]:.4f}.",
    )
    figure, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
    ax.plot(np.arange(1, len(errors) + 1), errors, color=BLUE, marker="o", markersize=4)
    ax.set_xlabel("Iteration, each one pass over users and items")
    ax.set_ylabel("RMSE on test ratings")
    ax.grid(alpha=0.3)
    report.picture(figure, "The error on ratings that take no part in the training.")


if __name__ == "__main__":
    main()
