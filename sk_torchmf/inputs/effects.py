"""The context of observations, values of columns and time, as codes of pairs: each code has a bias of its own. Knows no model."""

import datetime
from dataclasses import dataclass, fields, is_dataclass, replace
from numbers import Real

import numpy as np

from sk_torchmf._validation import check_length
from sk_torchmf.distributed import ALONE
from sk_torchmf.inputs.exchange import number_alike
from sk_torchmf.inputs.id_types import is_missing
from sk_torchmf.inputs.labels import encode, lookup

SIDES = ("user", "item")
SESSIONS, WINDOWS, PERIODS = "sessions", "windows", "periods"
# What a time stands for, see fit_effects. Periods of the items gave nothing on MovieLens, by time or at random.
TIME = ((SESSIONS, 8 * 3600.0), (SESSIONS, 60.0), (WINDOWS, 16), (SESSIONS, 0.0))


@dataclass(frozen=True)
class Values:
    """A code for each distinct value of a column.

    Attributes
    ----------
    labels : ndarray of shape (n_codes,)
        The values of the training data, as ``labels.encode`` returns them.
    """

    labels: np.ndarray
    of_users = False  # whether a code belongs to one user

    @classmethod
    def fit(cls, values, column, processes=ALONE):
        """Number the values of a column, none of which may be missing; alike in all processes."""
        missing = np.flatnonzero(_is_missing(values))
        if len(missing):
            raise ValueError(
                f"effects: column {column!r} must have a value in each row. Row {missing[0]} has {values[missing[0]]}. Drop the "
                "row, or give all such rows a value of their own."
            )
        codes, labels = encode(values, f"effects: {column}")
        if processes.size > 1:
            labels, place = number_alike(labels, f"effects: column {column!r}", processes)
            codes = place[codes]
        return cls(labels), codes.astype(np.int64)

    @property
    def n_codes(self):
        """How many codes there are."""
        return len(self.labels)

    def codes(self, user, item, values):
        """Find the codes of values, -1 for those that are missing or were not seen."""
        present = np.flatnonzero(~_is_missing(values))
        codes = np.full(len(values), -1)
        codes[present] = lookup(values[present], self.labels, "effects")
        return codes

    def regrown(self, users, items):
        """Itself: it knows neither users nor items."""
        return self


@dataclass(frozen=True)
class Periods:
    """Spans of time with about as many of the training data's observations each.

    Attributes
    ----------
    edges : ndarray of shape (n_codes - 1,), float64
        Where one ends and the next begins, in seconds.
    """

    edges: np.ndarray
    of_users = False

    @classmethod
    def fit(cls, seconds, n):
        """Cut the time of the training data into n spans."""
        return cls(np.quantile(seconds, np.linspace(0, 1, n + 1)[1:-1]))

    @property
    def n_codes(self):
        """How many codes there are."""
        return len(self.edges) + 1

    def codes(self, user, item, seconds):
        """Find the periods of some times; before the first edge is the first, after the last edge the last, -1 is missing."""
        return np.where(np.isfinite(seconds), np.searchsorted(self.edges, seconds), -1)

    def regrown(self, users, items):
        """Itself: it knows neither users nor items."""
        return self


@dataclass(frozen=True)
class Each:
    """A code for each user, or item, and code of a context that occur together in the training data.

    Attributes
    ----------
    side : {"user", "item"}
    context : Values or Periods
    keys : ndarray of shape (n_codes,), int64
        Row number times the context's number of codes, plus the context's code; sorted.
    """

    side: str
    context: Values | Periods
    keys: np.ndarray

    @classmethod
    def fit(cls, side, context, row, code, processes=ALONE):
        """Number the combinations of row numbers and codes; those of items alike in all processes."""
        keys, codes = np.unique(row * np.int64(context.n_codes) + code, return_inverse=True)
        codes = codes.reshape(-1)
        if side == "item" and processes.size > 1:
            own, keys = keys, np.unique(np.concatenate(processes.all_gather(keys)))
            codes = np.searchsorted(keys, own)[codes]
        return cls(side, context, keys), codes

    @property
    def of_users(self):
        """Whether a code belongs to one user."""
        return self.side == "user"

    @property
    def owner(self):
        """The row number that each code belongs to, (n_codes,)."""
        return self.keys // self.context.n_codes

    @property
    def n_codes(self):
        """How many codes there are."""
        return len(self.keys)

    def some(self, codes):
        """Some of the codes, by their numbers."""
        return replace(self, keys=self.keys[codes])

    def codes(self, user, item, values):
        """Find the codes of pairs, -1 where the combination was not seen."""
        row, code = _of(self.side, user, item), self.context.codes(user, item, values)
        key = np.where((row >= 0) & (code >= 0), row * np.int64(self.context.n_codes) + code, -1)
        at = np.searchsorted(self.keys, key).clip(max=len(self.keys) - 1)
        return np.where(self.keys[at] == key, at, -1)

    def regrown(self, users, items):
        """The same codes of rows with other numbers, which are in the same order."""
        row, code = np.divmod(self.keys, self.context.n_codes)
        return Each(self.side, self.context, _of(self.side, users, items)[row] * np.int64(self.context.n_codes) + code)

    @classmethod
    def joined(cls, parts):
        """Put the codes of users of several processes together, whose rows are numbered alike; and in which order they are."""
        keys = np.concatenate([part.keys for part in parts])
        order = np.argsort(keys)
        return cls(parts[0].side, parts[0].context, keys[order]), order


@dataclass(frozen=True)
class Runs:
    """A code for each run of a user's observations in the order of time; a pair belongs to the user's nearest run.

    Attributes
    ----------
    gap : float
        How far a pair may lie from the nearest observation of a run, in seconds; may be infinite.
    owner : ndarray of shape (n_codes,), int64
        The users' row numbers, in order.
    first, last : ndarray of shape (n_codes,), float64
        When each run begins and ends, in seconds; those of a user in order.
    """

    gap: float
    owner: np.ndarray
    first: np.ndarray
    last: np.ndarray
    of_users = True

    @classmethod
    def fit(cls, kind, size, user, seconds, item=None):
        """Cut users' observations into sessions, without a gap longer than ``size``, or windows of ``size`` observations.

        Those at one time are in the order of the items' row numbers, or in that in which they are given.
        """
        order = np.lexsort((seconds, user) if item is None else (item, seconds, user))
        owner, at, n = user[order], seconds[order], np.arange(len(order))
        new = np.diff(owner, prepend=-1) != 0
        if kind == WINDOWS:
            new |= (n - np.maximum.accumulate(np.where(new, n, 0))) % size == 0
        else:
            new[1:] |= np.diff(at) > size
        codes = np.empty(len(order), dtype=np.int64)
        codes[order] = np.cumsum(new) - 1
        begins = np.flatnonzero(new)
        ends = np.append(begins[1:], len(order)) - 1
        return cls(np.inf if kind == WINDOWS else size, owner[begins].astype(np.int64), at[begins], at[ends]), codes

    @property
    def n_codes(self):
        """How many codes there are."""
        return len(self.owner)

    def some(self, codes):
        """Some of the codes, by their numbers."""
        return Runs(self.gap, self.owner[codes], self.first[codes], self.last[codes])

    def codes(self, user, item, seconds):
        """Find the runs of pairs, -1 for other users, missing times, and where none is near."""
        times = np.unique(self.first)  # as ranks, times and users make whole numbers, which are exact
        key = self.owner * (len(times) + 1) + np.searchsorted(times, self.first, side="right")
        wanted = user.astype(np.int64) * (len(times) + 1) + np.searchsorted(times, seconds, side="right")
        after = np.searchsorted(key, wanted, side="right")
        before, after = (after - 1).clip(min=0), after.clip(max=len(key) - 1)  # of the user, if there are such
        started = (self.owner[before] == user) & (self.first[before] <= seconds)
        follows = (self.owner[after] == user) & (self.first[after] > seconds)
        since = np.where(started, np.maximum(seconds - self.last[before], 0), np.inf)
        until = np.where(follows, self.first[after] - seconds, np.inf)
        nearest = np.minimum(since, until)
        known = np.isfinite(nearest) & (nearest <= self.gap)
        return np.where(known, np.where(since <= until, before, after), -1)

    def regrown(self, users, items):
        """The same codes of rows with other numbers, which are in the same order."""
        return Runs(self.gap, users[self.owner], self.first, self.last)

    @classmethod
    def joined(cls, parts):
        """Put the runs of the users of several processes together; and in which order they are."""
        owner, first, last = (np.concatenate([getattr(part, name) for part in parts]) for name in ("owner", "first", "last"))
        order = np.argsort(owner, kind="stable")
        return cls(parts[0].gap, owner[order], first[order], last[order]), order


KINDS = {kind.__name__: kind for kind in (Values, Periods, Each, Runs)}


@dataclass(frozen=True)
class Effect:
    """A context of observations that has a bias for each of its codes.

    Attributes
    ----------
    column : int, str or None
        What it is read from: a column of X, or None for time.
    context : Values, Each or Runs
        What its codes are.

    Examples
    --------
    Whether it was at home or at work, and what each user makes of that:

    >>> import numpy as np
    >>> from sk_torchmf.inputs.effects import find_codes, fit_effects
    >>> user, item = np.array([0, 0, 1]), np.array([0, 1, 1])
    >>> effects, codes = fit_effects(["where", ("user", "where")], user, item, {"where": np.array(["home", "work", "home"])})
    >>> codes
    [array([0, 1, 0]), array([0, 1, 2])]
    >>> find_codes(effects, np.array([1, 1]), np.array([0, 0]), {"where": np.array(["home", "work"])})
    [array([0, 1]), array([ 2, -1])]
    """

    column: int | str | None
    context: Values | Each | Runs

    @property
    def n_codes(self):
        """How many codes there are."""
        return self.context.n_codes

    @property
    def of_users(self):
        """Whether a code belongs to one user, so that of several processes each has its own."""
        return self.context.of_users

    def codes(self, user, item, values):
        """Find the codes of pairs.

        Parameters
        ----------
        user, item : ndarray of shape (n,), int
            Row numbers, -1 for unknown.
        values : array-like of shape (n,) or None
            What the column has; of time seconds, see ``as_seconds``. None where the context is not known.

        Returns
        -------
        ndarray of shape (n,), int64
            -1 for what fit did not see, and what is missing.
        """
        return np.full(len(user), -1) if values is None or not self.n_codes else self.context.codes(user, item, values)

    def regrown(self, users, items):
        """Number users and items anew.

        Parameters
        ----------
        users, items : ndarray of shape (n_old_users,) and (n_old_items,), int64
            The new number of each; in the same order as before.

        Returns
        -------
        Effect
            With the same codes.
        """
        return Effect(self.column, self.context.regrown(users, items))

    def state(self):
        """What it is made of, as a dict of plain values and arrays, which ``from_state`` takes."""
        return _state(self)

    @classmethod
    def from_state(cls, state):
        """Make an effect of what ``state`` returned."""
        return cls(state["column"], _from_state(state["context"]))


def _state(value):
    if not is_dataclass(value):
        return value
    return {"kind": type(value).__name__} | {field.name: _state(getattr(value, field.name)) for field in fields(value)}


def _from_state(state):
    if not isinstance(state, dict):
        return state
    return KINDS[state["kind"]](**{name: _from_state(value) for name, value in state.items() if name != "kind"})


def check_effects(effects):
    """Return the parameter ``effects`` as a list of (side, column): side is None where the column's values have the biases."""
    if effects is None:
        return []
    if not isinstance(effects, list | tuple):
        raise TypeError(f"effects must be a list of columns of X. Got {effects!r}; write [{effects!r}].")
    found = []
    for one in effects:
        side, column = one if isinstance(one, tuple) and len(one) == 2 else (None, one)
        if side not in (None, *SIDES) or not isinstance(column, str | int | np.integer) or isinstance(column, bool):
            raise TypeError(
                'effects must name columns of X, by name or position, alone or as in ("user", column) and ("item", column). '
                f"Got {one!r}."
            )
        column = column if isinstance(column, str) else int(column)
        if (side, column) in found:
            raise ValueError(f"effects must be different from one another. Got {one!r} twice.")
        found.append((side, column))
    return found


def fit_effects(effects, user, item, columns, timestamps=None, time=TIME, processes=None):
    """Learn the codes of the training data's context.

    Parameters
    ----------
    effects : list or None
        The parameter, see ``check_effects``.
    user, item : ndarray of shape (n,), int
        Row numbers.
    columns : mapping of int or str to array-like of shape (n,)
        The columns that ``effects`` names: labels of any kind, none missing.
    timestamps : array-like of shape (n,), optional
        Seconds, or dates and times; none missing.
    time : sequence of (str, float)
        What to make of them: ``("sessions", gap)``, a user's observations without a gap longer than so many seconds between them;
        ``("windows", n)``, n of a user's observations in a row; ``("periods", n)``, of each item n spans of time with about as many
        observations in all, for one process.
    processes : Communicator, optional
        Those that have the observations of other users, where it must not matter whose they are.

    Returns
    -------
    effects : list of Effect
        First those of columns, then those of time.
    codes : list of ndarray of shape (n,), int64
        Of each.
    """
    found, others = [], ALONE if processes is None else processes
    for side, column in check_effects(effects):
        context, code = Values.fit(plain_column(columns[column], len(user), f"column {column!r}"), column, others)
        if side is not None:
            context, code = Each.fit(side, context, _of(side, user, item), code, others)
        found.append((Effect(column, context), code))
    if timestamps is not None:
        seconds = _check_times(as_seconds(plain_column(timestamps, len(user), "time")))
        for kind, size in time:
            if kind == PERIODS:
                periods = Periods.fit(seconds, size)
                context, code = Each.fit("item", periods, item, periods.codes(user, item, seconds))
            else:
                context, code = Runs.fit(kind, size, user, seconds, None if processes is None else item)
            found.append((Effect(None, context), code))
    return [effect for effect, _ in found], [code for _, code in found]


def join_effects(parts, places):
    """Put the effects that several processes have learned together.

    Parameters
    ----------
    parts : list of list of Effect
        Of each process.
    places : list of ndarray of shape (n_users,), int
        The row numbers that its users have among all.

    Returns
    -------
    effects : list of Effect
    orders : list of ndarray of shape (n_codes,), int64, or None
        Where each code stood in the processes' codes, one's after another's; None where all have the same codes.
    """
    found = []
    for of_all in zip(*parts, strict=True):
        effect = of_all[0]
        if not effect.of_users:
            found.append((effect, None))
            continue
        contexts = [own.context.regrown(place, None) for own, place in zip(of_all, places, strict=True)]
        context, order = type(effect.context).joined(contexts)
        found.append((Effect(effect.column, context), order))
    return [effect for effect, _ in found], [order for _, order in found]


def some_effects(effects, rows, n_users):
    """Take the effects of some of the users, which then are all there are.

    Parameters
    ----------
    effects : list of Effect
    rows : ndarray of shape (n,), int
        The users' row numbers, in order.
    n_users : int
        How many there were.

    Returns
    -------
    effects : list of Effect
    codes : list of ndarray of int, or None
        Which codes of each are left; None where all are.
    """
    place, found = np.full(n_users, -1), []
    place[rows] = np.arange(len(rows))
    for effect in effects:
        codes = np.flatnonzero(place[effect.context.owner] >= 0) if effect.of_users else None
        context = effect.context if codes is None else effect.context.some(codes).regrown(place, None)
        found.append((Effect(effect.column, context), codes))
    return [effect for effect, _ in found], [codes for _, codes in found]


def find_codes(effects, user, item, columns, timestamps=None):
    """Find the codes of pairs that are to be predicted, see ``Effect.codes``.

    Parameters
    ----------
    effects : list of Effect
    user, item : ndarray of shape (n,), int
        Row numbers, -1 for unknown.
    columns : mapping of int or str to array-like of shape (n,)
        Columns that are not there are not known.
    timestamps : array-like of shape (n,), optional
        As in ``fit_effects``; some may be missing.

    Returns
    -------
    list of ndarray of shape (n,), int64
    """
    found, n = [], len(user)
    seconds = None if timestamps is None else as_seconds(plain_column(timestamps, n, "time"))
    for effect in effects:
        values = seconds if effect.column is None else columns.get(effect.column)
        if values is not None and effect.column is not None:
            values = plain_column(values, n, f"column {effect.column!r}")
        found.append(effect.codes(user, item, values))
    return found


def as_seconds(values):
    """Times as seconds since 1970, UTC, or as durations in seconds.

    Parameters
    ----------
    values : ndarray of shape (n,)
        Numbers are seconds; dates and times of NumPy, pandas or Python; None, NaN and NaT are missing. Times without a zone are
        taken for UTC.

    Returns
    -------
    ndarray of shape (n,), float64
        NaN where a time is missing or infinite.
    """
    if values.dtype.kind in "mM":
        missing, values = np.isnat(values), values.astype(f"{values.dtype.kind}8[us]")  # float64 holds no finer seconds
        seconds = np.where(missing, np.nan, values.astype(np.int64) / 1e6)
    elif values.dtype.kind in "fiu":
        seconds = values.astype(np.float64)
    else:
        seconds = np.array([_second(value, at) for at, value in enumerate(values.tolist())], dtype=np.float64)
    return np.where(np.isfinite(seconds), seconds, np.nan)


def _second(value, at):
    """The seconds of one object."""
    if is_missing(value):
        return np.nan
    if isinstance(value, Real) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, datetime.datetime):
        return (value if value.tzinfo else value.replace(tzinfo=datetime.UTC)).timestamp()
    if isinstance(value, datetime.date):
        return datetime.datetime(value.year, value.month, value.day, tzinfo=datetime.UTC).timestamp()
    raise TypeError(
        f"time must be numbers, which are seconds, or dates and times. Row {at} has {value!r}. Convert the column first, as "
        "pandas.to_datetime does."
    )


def _check_times(seconds):
    missing = np.flatnonzero(np.isnan(seconds))
    if len(missing):
        raise ValueError(
            f"time must be present and finite in each row that is fitted. Row {missing[0]} has none. Drop the row or fill it in."
        )
    return seconds


def plain_column(values, n, name):
    """A column as an array of shape (n,); times with a zone are those of UTC."""
    if getattr(getattr(values, "dtype", None), "tz", None) is not None:  # of pandas, which would make objects of them
        values = values.to_numpy(dtype="datetime64[ns]")
    elif hasattr(values, "to_numpy"):
        values = values.to_numpy()
    return check_length(values, n, name)


def _is_missing(values):
    """Which entries of an array are missing, or no finite numbers."""
    if values.dtype.kind in "mM":
        return np.isnat(values)
    if values.dtype.kind == "O":
        return np.array([is_missing(value) for value in values], dtype=bool)
    return ~np.isfinite(values) if values.dtype.kind == "f" else np.zeros(len(values), dtype=bool)


def _of(side, user, item):
    return user if side == "user" else item
