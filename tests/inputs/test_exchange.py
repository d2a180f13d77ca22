"""Rows that change hands, between real processes: each user is complete in one of them, and the items are numbered alike in all."""

import sys

import numpy as np
import pytest
from exchanging import FOUND, KINDS, REFUSED, N, further, rows_of, whole
from numpy.testing import assert_array_equal
from several_processes import run

from sk_torchmf import Interactions
from sk_torchmf.distributed import ALONE
from sk_torchmf.inputs.exchange import exchange
from sk_torchmf.inputs.forms import read, read_rated, read_weighted
from sk_torchmf.inputs.labels import encode
from sk_torchmf.inputs.stable_hash import shares, stable_hash

forks = pytest.mark.skipif(sys.platform == "win32", reason="forks")


@pytest.fixture(scope="module", params=[2, 4])
def size(request):
    return request.param


@pytest.fixture(scope="module")
def found(size, tmp_path_factory):
    return run("exchanging", [([*FOUND, *REFUSED], 60)], size, tmp_path_factory.mktemp("ranks"))


def owners(labels, size):
    return shares(stable_hash(encode(labels, "user")[1], "user"), size)[encode(labels, "user")[0]]


def expected_rows(user, rank, size):
    """The rows of the whole that end at a process, in their order: those of rank 0 first."""
    owner = owners(user, size)
    return np.array([row for sender in range(size) for row in rows_of(sender, size) if owner[row] == rank])


@forks
@pytest.mark.parametrize("kind", KINDS)
def test_each_user_is_complete_in_one_process(found, size, kind):
    user, item, rating, weight = whole(kind)
    assert len(np.unique(owners(user, size))) == size  # each process gets some
    for rank, own in enumerate(found[kind]):
        rows = expected_rows(user, rank, size)
        assert_array_equal(own["users"], np.unique(user[rows]))
        assert_array_equal(own["items"], np.unique(item))
        assert own["shape"] == (len(own["users"]), len(own["items"]))
        for name, column in {"user": user, "item": item, "ratings": rating, "weights": weight}.items():
            assert_array_equal(own[name], column[rows])
        assert own["ratings"].dtype == np.float32


@forks
def test_numbers_are_one_id_in_every_type(found, size):
    user, item, rating, weight = whole("numbers")
    weight[np.concatenate([rows_of(rank, size) for rank in range(1, size)])] = 1.0
    for rank, own in enumerate(found["dtypes_that_differ"]):
        rows = expected_rows(user, rank, size)
        for name, column in {"user": user, "item": item, "ratings": rating, "weights": weight}.items():
            assert_array_equal(own[name], column[rows])
        assert own["ratings"].dtype == np.float64  # which holds int64's


@forks
def test_parts_may_be_empty(found, size):
    user, item, rating, _ = whole("text")
    for rank, own in enumerate(found["some_are_empty"]):
        rows = np.flatnonzero(owners(user, size) == rank)
        assert_array_equal(own["items"], np.unique(item))
        for name, column in {"user": user, "item": item, "ratings": rating}.items():
            assert_array_equal(own[name], column[rows])
        assert own["weights"] is None


@forks
def test_process_may_end_without_users(found, size):
    owner = owners(np.array(["ann"]), size)[0]
    films = [f"film {rank}" for rank in range(size)]
    for rank, own in enumerate(found["one_user"]):
        assert own["items"].tolist() == films
        assert own["users"].tolist() == (["ann"] if rank == owner else [])
        assert own["users"].dtype.kind == "U"
        assert own["item"].tolist() == (films if rank == owner else [])
        assert own["shape"] == (int(rank == owner), size)


@forks
def test_positions_without_observations_stay(found, size):
    user, item, rating, weight = whole("numbers")
    for rank, own in enumerate(found["containers"]):
        rows = expected_rows(user, rank, size)
        assert_array_equal(own["items"], np.arange(20))
        assert_array_equal(own["user"], user[rows])
        assert_array_equal(own["item"], item[rows])
        assert_array_equal(own["weights"], weight[rows])
        assert_array_equal(own["timestamps"], rows.astype("M8[D]"))
        assert_array_equal(own["features"]["timestamps"], rows / 2)  # of one name, and something else
        assert_array_equal(own["features"]["weights"], rating[rows])
        assert_array_equal(own["users"], np.flatnonzero(owners(np.arange(39 + size), size) == rank))  # 40 on rank 0, 41 on rank 1


@forks
def test_matrix_rows_are_the_users_of_their_process(found, size):
    user, item, rating, _ = whole("numbers")
    sums = np.zeros((30, 12))
    np.add.at(sums, (user, item), rating)
    rebuilt = np.zeros((30, 12))
    for rank, own in enumerate(found["matrices"]):
        assert_array_equal(own["users"], np.arange(30 * rank // size, 30 * (rank + 1) // size))
        assert_array_equal(own["items"], np.arange(12))
        rebuilt[own["user"], own["item"]] = own["ratings"]
        assert own["ratings"].dtype == np.float64  # which holds int64's
        assert_array_equal(own["weights"], np.ones(len(own["user"])) if rank else own["user"] + 1.0)
    assert_array_equal(rebuilt, sums)


@forks
def test_further_columns_go_with_their_rows(found, size):
    user = whole("numbers")[0]
    for rank, own in enumerate(found["further_columns"]):
        more = further(expected_rows(user, rank, size))
        assert own["categories"]["weekday"].tolist() == [f"day{n}" for n in range(1 + (N - 1) // 30)]
        assert_array_equal(own["features"]["day"], more["day"])
        assert_array_equal(own["categories"]["weekday"][own["features"]["weekday"]], more["weekday"])
        assert own["features"]["tag"].tolist() == more["tag"].tolist()


@forks
@pytest.mark.parametrize(
    ("case", "error", "text"),
    [
        ("items_of_two_types", "TypeError", "item ids must be of one type on all ranks. Got numbers on rank 0 and text on rank 1."),
        ("users_of_two_types", "TypeError", "user ids must be of one type on all ranks. Got numbers on rank 0 and text on rank 1."),
        (
            "two_forms",
            "ValueError",
            "X must have one form on all ranks: tables, sparse matrices or Interactions. Got table on rank 0",
        ),
        ("two_widths", "ValueError", "X must have the same columns on all ranks. Got 2 columns on rank 0 and 3 columns on rank 1."),
        (
            "matrices_of_two_widths",
            "ValueError",
            "X must have the same columns on all ranks. Got 3 columns on rank 0 and 4 columns",
        ),
        (
            "no_ratings_on_one",
            "ValueError",
            "ratings must be given on all ranks or on none. Got them on rank 0 and none on rank 1.",
        ),
        ("nothing_at_all", "ValueError", "X has no observations on any rank, while a minimum of 1 is required."),
        (
            "users_that_have_no_hash",
            "TypeError",
            "user ids must be numbers, text, bytes or times, so that they can be divided into shards. Got date.",
        ),
        ("column_of_two_types", "ValueError", "day must be of one type on all ranks. Got numbers on rank 0 and text on rank 1."),
        ("categories_of_two_types", "TypeError", "day must be of one type on all ranks. Got numbers on rank 0 and text on rank 1."),
    ],
)
def test_parts_that_do_not_fit_are_refused_by_all(found, size, case, error, text):
    assert [own[0] for own in found[case]] == [error] * size
    assert all(own[1].startswith(text) for own in found[case])


@forks
def test_bad_rows_of_one_are_told_to_all(found, size):
    for rank, (error, text) in enumerate(found["bad_rows_on_one"]):
        assert error == ("ValueError" if rank == 1 else "DistributedError")
        assert "y[0] is nan" in text


def test_process_alone_keeps_what_it_has():
    reading = read(Interactions([0], [0]), None, None, 0, 1)
    assert exchange(reading, ALONE) is reading
    with pytest.raises(ValueError, match="X has no observations on any rank"):
        exchange(reading[[]], ALONE)


@pytest.mark.parametrize("X", [np.empty((0, 2)), np.empty((0, 7)), Interactions([], [])], ids=["array", "wide", "container"])
def test_part_may_be_empty_where_the_whole_may_not(X):
    for part in (
        read(X, None, None, 0, 1, is_part=True),
        read_rated(X, [], [], 0, 1, "Name", is_part=True),
        read_weighted(X, [], None, 0, 1, is_part=True),
    ):
        assert len(part.data) == 0
    with pytest.raises(ValueError, match="minimum of 1"):
        read_rated(X, [], None, 0, 1, "Name")
