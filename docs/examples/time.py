"""
When a rating was given
=======================

``time="timestamp"`` gives each sitting of a user a bias, and ``effects=`` does so for the values of any column that belongs to a
rating rather than to a user or an item. What that gains depends on what is to be predicted, so it is tested in three ways.

``python docs/examples/time.py``: ten seconds.
"""

# %%
# Three kinds of test
# -------------------
# A tenth of the ratings is held out: at random, the last of each user, or the last of all by the calendar. For each test rating the
# table says how far from it in time the nearest training rating of the same user is.

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
# Sittings, and columns
# ---------------------
# ``time`` names the column of times. It stands for four kinds of biases of each user: of sittings, which end after eight hours
# without a rating, of shorter ones, which end after a minute, of the ratings of one second, and of 16 ratings in a row. ``effects``
# names columns; ``("user", "month")`` is a bias for each user and month. How much biases of a kind vary is learned, so nothing is
# tuned; all that was tried is in the table.

when = pd.to_datetime(X["timestamp"], unit="s")
X["month"] = when.dt.strftime("%Y-%m")
X["weekday"], X["hour"] = when.dt.day_of_week, when.dt.hour
X["dice"] = rng.integers(1, 7, len(X))  # says nothing
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
    print(f"{name}: gained by time {without - with_time:.4f}, standard error {error:.4f}")

# %%
# At random the sitting of a test rating is known, mostly even its second, and with it much of what was peculiar to it: a generous
# mood, or a page of old favourites that was rated at one go. Nobody knows that of a rating in the future. So the first line
# answers "fill in what is missing"; the second answers "what will this user think of it next", and there the gain is about as
# large as its error. Where most of the future's users are new, as in the third, little is known of anybody, and little is gained.
# None is harmed.
#
# Times that say nothing do harm, a little: the variances start above zero, and ten iterations are few to bring down those of biases
# that have a rating or two each. With twice as many it is less.

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
# So ``time`` is for filling in, and hardly worth its seconds elsewhere. (Where this page was built on planted ratings their times
# are random: there is nothing to gain in any line, and something to lose.)

# %%
# What columns say
# ----------------
# Biases with two standard deviations to either side, less their mean over the ratings. Months differ somewhat. Weekdays, hours and
# the dice do not: their variance is learned to be all but zero, and with it all biases shrink.

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
# What time says
# --------------
# All four kinds together, for the user with the most sittings: what a table with times predicts, less what the ids alone do.
# Colours change with the sitting.

model = models["at random", "time"]
kinds = ["sittings", "shorter ones", "16 in a row", "the same second"]
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
# A table has the times, and each pair is placed among the sittings of training: a minute after the last rating it belongs to the
# last sitting, a year later to none, but still to the user's latest 16. Ids alone have no time, and it is averaged out, as it is by
# ``recommend``.

last, item = own["timestamp"].max(), X["item"].mode()[0]
later = own.iloc[[-1, -1]].assign(item=item, timestamp=[last + 60, last + 365 * 86_400])
soon, then = model.predict(later)
print(f"A minute later {soon:.2f}, a year later {then:.2f}, at any time {model.predict(user, item):.2f}")

# %%
# Drifts that go on, such as that of users who become stricter the more they have rated, are no biases of sittings. A module of
# one's own can have them, and it gains something on the last ratings of each user: :ref:`sphx_glr_gallery_time_bias.py`.
