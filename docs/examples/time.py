"""
When a rating was given
=======================

``time="timestamp"`` adds a bias for each session of a user, that is, for ratings given shortly after one another. ``effects=`` adds
biases for the values of any column that belongs to a rating rather than to a user or an item. How much they help depends on what is
to be predicted, so they are tested in three ways.

``python docs/examples/time.py`` takes ten seconds.
"""

# %%
# Three kinds of test
# -------------------
# A tenth of the ratings is held out in three ways: at random, the last ratings of each user, or the last of all by date. The table
# says how far each test rating is, in time, from the nearest training rating of the same user.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from sk_torchmf import BiasedMatrixFactorization, datasets

ratings = datasets.fetch_movielens("100k", as_frame=True)
X, y = ratings.data.copy(), ratings.target.to_numpy()
by_user = X.groupby("user")["timestamp"]
rng = np.random.default_rng(0)
tests = {
    "at random": rng.random(len(X)) < 0.1,
    "last of each user": by_user.rank(method="min") > 0.9 * by_user.transform("size"),
    "last of all": X["timestamp"] >= X["timestamp"].quantile(0.9),
}


def seconds_to_nearest(train, test):
    """From each test rating to the user's nearest training rating; NaN for a new user."""
    train, test = (part[["user", "timestamp"]].sort_values("timestamp") for part in (train, test))
    train = train.assign(nearest=train["timestamp"])
    both = pd.merge_asof(test, train, on="timestamp", by="user", direction="nearest")
    return (both["nearest"] - both["timestamp"]).abs()


away = {name: seconds_to_nearest(X[~test], X[test]) for name, test in tests.items()}
shares = {
    "same second": {name: (seconds == 0).mean() for name, seconds in away.items()},
    "within 8 hours": {name: (seconds <= 8 * 3600).mean() for name, seconds in away.items()},
    "new user": {name: seconds.isna().mean() for name, seconds in away.items()},
}
print(pd.DataFrame(shares).to_string(float_format="{:.0%}".format))

# %%
# Sessions, and columns
# ---------------------
# ``time`` names the column of times. It adds four kinds of biases for each user: for sessions, which end after eight hours without
# a rating; for shorter ones, which end after a minute without one; for the ratings of the same second; and for every 16 ratings in
# a row. ``effects`` names columns; ``("user", "month")`` adds a bias for each user and month. How much the biases of each kind vary
# is learned, so there is nothing to tune. The table has everything that was tried.

when = pd.to_datetime(X["timestamp"], unit="s")
X["month"] = when.dt.strftime("%Y-%m")
X["weekday"], X["hour"] = when.dt.day_of_week, when.dt.hour
X["dice"] = rng.integers(1, 7, len(X))  # carries no information
calendar = ["month", "weekday", "hour", "dice"]
settings = {
    "neither": {},
    "calendar": {"effects": calendar},
    "months of each user": {"effects": ["month", ("user", "month")]},
    "time": {"time": "timestamp"},
}


def fit(test, X=X, **options):
    model = BiasedMatrixFactorization(user="user", item="item", clip=True, random_state=0, **options)
    return model.fit(X[~test], y[~test])


squares, models = {}, {}
for name, test in tests.items():
    for setting, options in settings.items():
        model = models[name, setting] = fit(test, **options)
        squares[name, setting] = (model.predict(X[test]) - y[test]) ** 2
rmse = pd.Series({key: square.mean() ** 0.5 for key, square in squares.items()}).unstack()
rmse = rmse.loc[[*tests], [*settings]]
print("RMSE", rmse.to_string(float_format="{:.4f}".format), sep="\n")

for name in tests:
    without, with_time = rmse.loc[name, ["neither", "time"]]
    change = squares[name, "neither"] - squares[name, "time"]
    error = change.std() / (2 * without * len(change) ** 0.5)  # of the gain, over the test ratings
    print(f"{name}: time lowers the RMSE by {without - with_time:.4f}, standard error {error:.4f}")

# %%
# If ratings are held out at random, the session of a test rating is known, and mostly even its second. What was peculiar to the
# session is known too: a generous mood, or a page of old favourites that was rated in one go. For a future rating none of this is
# known. So the first test measures how well missing ratings are filled in. The second measures how well a user's next ratings are
# predicted; there the gain is about as large as its standard error. In the third most users are new and little is known about them,
# so little is gained. No test gets worse.
#
# Times without information do a little harm. The variances start above zero, and ten iterations are too few to shrink those of
# biases that have a rating or two each. With twice as many iterations the harm is smaller.

test = tests["at random"]
by_chance = by_user.transform(lambda times: rng.permutation(times.to_numpy()))
cases = {
    "no times": (X, None),
    "their times": (X, "timestamp"),
    "times shuffled within users": (X.assign(timestamp=by_chance), "timestamp"),
}
found = {}
for max_iter in (10, 20):
    for case, (table, time) in cases.items():
        predicted = fit(test, table, time=time, max_iter=max_iter).predict(table[test])
        found[f"{max_iter} iterations", case] = ((predicted - y[test]) ** 2).mean() ** 0.5
found = pd.Series(found).unstack()[[*cases]]
print("RMSE", found.to_string(float_format="{:.4f}".format), sep="\n")

# %%
# So use ``time`` to fill in missing ratings; for the future it is hardly worth its seconds. (If this page was built on planted
# ratings, their times are random: there is nothing to gain in any test, and something to lose.)

# %%
# What the columns show
# ---------------------
# The biases with two standard deviations to either side, minus their mean over the ratings. Months differ somewhat. Weekdays, hours
# and the dice do not: their learned variance is almost zero, which shrinks all their biases.

model = models["at random", "calendar"]
train = X[~tests["at random"]]
days = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
fig, axes = plt.subplots(2, 2, figsize=(7.2, 5.4), layout="constrained", sharey=True)
learned = zip(calendar, model.effects_, model.effect_biases_, axes.flat, strict=True)
for column, effect, (biases, variances, prior), ax in learned:
    labels = effect.context.labels
    counts = train[column].value_counts()[labels]
    centred = biases - np.average(biases, weights=counts)
    ax.errorbar(range(len(labels)), centred, 2 * variances**0.5, fmt="o", markersize=4)
    ax.axhline(0, color="grey", linewidth=0.8)
    ax.set(title=f"{column}: standard deviation {prior**0.5:.3f}")
    step = 4 if column == "hour" else 1
    short = [days[label] if column == "weekday" else str(label)[-5:] for label in labels]
    ax.set_xticks(range(0, len(labels), step), short[::step], rotation=45 * (column == "month"))
    ax.grid(axis="y", alpha=0.3)
fig.supylabel("Added to a rating, in stars")
plt.show()

# %%
# What time shows
# ---------------
# All four kinds together, for the user with the most sessions: the prediction with times minus the prediction from the ids alone.
# The colour changes with each session.

model = models["at random", "time"]
kinds = ["sessions", "shorter ones", "16 in a row", "the same second"]
for kind, (_, _, prior) in zip(kinds, model.effect_biases_, strict=True):
    print(f"{kind}: standard deviation {prior**0.5:.2f} stars")

starts = X.sort_values("timestamp").groupby("user")["timestamp"].diff() > 8 * 3600
user = starts.groupby(X["user"]).sum().idxmax()
own = X[X["user"] == user].sort_values("timestamp")
without = model.predict(own["user"], own["item"], clip=False)
added = model.predict(own, clip=False) - without
odd = starts[own.index].cumsum() % 2 == 1

fig, ax = plt.subplots(figsize=(7.2, 3.6), layout="constrained")
number = np.arange(1, len(own) + 1)
for part, colour in ((odd, "#0072B2"), (~odd, "#D55E00")):
    ax.plot(number[part], added[part], ".", color=colour)
ax.axhline(0, color="grey", linewidth=0.8)
ax.set(title="Moods", xlabel=f"Ratings of user {user}, in their order", ylabel="Added by time, in stars")
ax.grid(alpha=0.3)
plt.show()

# %%
# Predictions with and without a time
# -----------------------------------
# If ``predict`` is given a table with times, each pair is placed among the sessions of training. A minute after the user's last
# rating a pair belongs to the last session; a year later it belongs to none, but still to the user's latest 16 ratings. Ids alone
# have no time, so it is averaged out; ``recommend`` does the same.

last, item = own["timestamp"].max(), X["item"].mode()[0]
later = own.iloc[[-1, -1]].assign(item=item, timestamp=[last + 60, last + 365 * 86_400])
soon, then = model.predict(later)
print(f"A minute later {soon:.2f}, a year later {then:.2f}, at any time {model.predict(user, item):.2f}")

# %%
# Lasting drifts, such as that of users who become stricter the more they rate, cannot be expressed as biases of sessions. A module
# of your own can model them, and gains something on the last ratings of each user: :ref:`sphx_glr_gallery_time_bias.py`.
