"""Cases of rows that change hands between processes: each function runs in all of them and returns what this one got."""

from dataclasses import replace
from datetime import date

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from sk_torchmf import Interactions, distributed
from sk_torchmf.distributed import communicator
from sk_torchmf.inputs import columns
from sk_torchmf.inputs.exchange import exchange
from sk_torchmf.inputs.forms import read, read_rated, read_weighted

N = 200


def as_text(codes, prefix):
    return np.char.add(prefix, codes.astype(str))


def whole(kind):
    """The table that the processes share: user and item ids, ratings, weights."""
    draw = np.random.default_rng(0)
    user, item = draw.integers(30, size=N), draw.integers(12, size=N)
    rating, weight = draw.integers(1, 6, size=N).astype(np.float32), draw.uniform(0.5, 2, size=N)
    if kind == "text":
        user, item = as_text(user, "user").astype(object), as_text(item, "film ")
    elif kind == "fractions":
        user, item = user / 2, item - 6
    elif kind == "times":
        user, item = user.astype("M8[D]"), item.astype(np.uint8)
    return user, item, rating, weight


def rows_of(rank, size):
    """The rows that a process has: some of every user's; the last has one."""
    if rank == size - 1:
        return np.array([N - 1])
    return np.arange(rank, N - 1, size - 1) if size > 2 else np.arange(N - 1)


def table(user, item):
    return pd.DataFrame({"user": user, "item": item})


def shown(reading):
    """What came out, in the caller's ids."""
    data = reading.data
    found = {"users": reading.users, "items": reading.items, "shape": (data.num_users, data.num_items)}
    found |= {"user": reading.users[data.user_ids], "item": reading.items[data.item_ids]}
    found |= {name: getattr(data, name) for name in ("ratings", "weights", "timestamps")}
    return found | {"features": reading.features, "categories": reading.categories, "n_features": reading.n_features}


def _exchanged(make):
    """What comes of a process's part, which a function of rank and size reads."""
    with communicator(True) as processes:
        reading = make(processes.rank, processes.size)
        return shown(exchange(reading, processes))


def _of_kind(kind):
    def make(rank, size):
        user, item, rating, weight = (values[rows_of(rank, size)] for values in whole(kind))
        return read_rated(table(user, item), rating, weight, "user", "item", "Name", is_part=True)

    distributed.CHUNK = 64
    try:
        return _exchanged(make)
    finally:
        distributed.CHUNK = 2**22


def numbers():
    return _of_kind("numbers")


def text():
    return _of_kind("text")


def fractions():
    return _of_kind("fractions")


def times():
    return _of_kind("times")


def dtypes_that_differ():
    """Each rank has the same numbers in another type; weights only the first."""

    def make(rank, size):
        user, item, rating, weight = (values[rows_of(rank, size)] for values in whole("numbers"))
        kind = [np.int64, np.float64, np.uint8, np.int32][rank]
        weight = weight if rank == 0 else None
        return read(table(user.astype(kind), item.astype(kind)), rating.astype(kind), weight, "user", "item")

    return _exchanged(make)


def some_are_empty():
    """All rows are on rank 1; the others have an empty table of no type."""

    def make(rank, size):
        user, item, rating, _ = whole("text")
        if rank == 1:
            return read_rated(table(user, item), rating, None, "user", "item", "Name", is_part=True)
        return read_rated(table([], []), [], None, "user", "item", "Name", is_part=True)

    return _exchanged(make)


def one_user():
    """All but one process end without users."""

    def make(rank, size):
        return read_weighted(np.array([["ann", f"film {rank}"]]), None, None, 0, 1, is_part=True)

    return _exchanged(make)


def containers():
    """Positions, of which some have no observations; times go with them."""

    def make(rank, size):
        user, item, rating, weight = (values[rows_of(rank, size)] for values in whole("numbers"))
        times = np.array(rows_of(rank, size), dtype="M8[D]")
        X = Interactions(user, item, rating, times, weight, num_users=40 + rank, num_items=20)
        return replace(read(X, None, None, 0, 1), features={"timestamps": rows_of(rank, size) / 2, "weights": rating})

    return _exchanged(make)


def matrices():
    """Whole numbers but for the first rank, which alone has weights."""

    def make(rank, size):
        user, item, rating, _ = whole("numbers")
        matrix = sp.csr_array(sp.coo_array((rating, (user, item)), shape=(30, 12)))
        matrix = matrix[30 * rank // size : 30 * (rank + 1) // size].astype(np.int64 if rank else np.float32)
        return read(matrix, None, None if rank else np.arange(1.0, 1 + matrix.shape[0]), 0, 1, is_part=True)

    return _exchanged(make)


def further(rows):
    """Further columns of some rows: numbers, categories of which no process has all, and objects."""
    return {
        "day": rows / 4,
        "weekday": as_text(rows // 30, "day"),
        "tag": np.array([f"tag {row}" if row % 2 else row for row in rows.tolist()], dtype=object),
    }


def further_columns():
    def make(rank, size):
        user, item, rating, _ = whole("numbers")
        rows = rows_of(rank, size)
        more = further(rows)
        X = table(user[rows], item[rows]).assign(day=more["day"], weekday=more["weekday"])
        values, categories = columns.read(X, ["day", "weekday"], "float64")
        reading = read(X, rating[rows], None, "user", "item")
        return replace(reading, features=values | {"tag": more["tag"]}, categories=categories)

    return _exchanged(make)


def _refused(make):
    with pytest.raises(Exception) as caught:  # noqa: PT011
        _exchanged(make)
    return type(caught.value).__name__, str(caught.value)


def _part(**own):
    """One row: a table or what the second rank has instead."""

    def make(rank, size):
        given = {"X": table([rank], [1]), "y": [3.0], "sample_weight": None, "user": "user", "item": "item"}
        return read(**given | own if rank == 1 else given, is_part=True)

    return make


def items_of_two_types():
    return _refused(_part(X=table([1], ["1"])))


def users_of_two_types():
    return _refused(_part(X=table(["1"], [1])))


def two_forms():
    return _refused(_part(X=Interactions([0], [0])))


def two_widths():
    return _refused(_part(X=table([1], [1]).assign(day=3)))


def no_ratings_on_one():
    return _refused(_part(y=None))


def nothing_at_all():
    return _refused(lambda rank, size: read(table([], []), [], None, "user", "item", is_part=True))


def matrices_of_two_widths():
    return _refused(lambda rank, size: read(sp.csr_array(np.ones((2, 3 + (rank == 1)))), None, None, 0, 1))


def users_that_have_no_hash():
    return _refused(lambda rank, size: read(table([date(2026, 1, 2)], [1]), [3.0], None, "user", "item"))


def column_of_two_types():
    def make(rank, size):
        reading = read(table([1], [1]), [3.0], None, "user", "item")
        return replace(reading, features={"day": np.array(["Monday" if rank == 1 else 1])})

    return _refused(make)


def categories_of_two_types():
    def make(rank, size):
        reading = read(table([1], [1]), [3.0], None, "user", "item")
        return replace(reading, features={"day": np.array([0])}, categories={"day": np.array(["Monday" if rank == 1 else 1])})

    return _refused(make)


def bad_rows_on_one():
    return _refused(_part(y=[np.nan]))


KINDS = ["numbers", "text", "fractions", "times"]
FOUND = [*KINDS, *["dtypes_that_differ", "some_are_empty", "one_user", "containers", "matrices", "further_columns"]]
REFUSED = [
    *["items_of_two_types", "users_of_two_types", "two_forms", "two_widths", "no_ratings_on_one", "nothing_at_all"],
    *["matrices_of_two_widths", "users_that_have_no_hash", "column_of_two_types", "categories_of_two_types", "bad_rows_on_one"],
]
