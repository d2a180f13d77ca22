"""What users have seen, read from a data set on disk: the rows of a CSR array of the same pairs."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_array_equal

from sk_torchmf import Shards
from sk_torchmf.inputs.stored_pattern import StoredPattern


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    return {"user": rng.integers(50, size=400), "item": rng.integers(30, size=400)}


@pytest.fixture(scope="module")
def shards(rows, tmp_path_factory):
    return Shards.from_chunks([rows], tmp_path_factory.mktemp("data") / "shards", user="user", item="item", n_shards=4)


@pytest.fixture
def pattern(shards):
    number = np.full(50, -1)
    number[shards.users] = np.arange(shards.n_users)
    return StoredPattern(shards.folder, shards.digest, number, None, shards.n_items)


@pytest.fixture(scope="module")
def matrix(rows):
    found = sp.csr_array((np.ones(400, bool), (rows["user"], rows["item"])), shape=(50, 30))
    found.sum_duplicates()
    return found


@pytest.mark.parametrize("asked", [[0], [7, 7, 3], [], list(range(50)), list(range(49, -1, -1))])
def test_rows_are_those_of_the_array(asked, pattern, matrix):
    found = pattern[asked]
    assert_array_equal(found.toarray(), matrix[asked].toarray() if asked else np.empty((0, 30)))
    assert found.has_canonical_format
    assert (pattern.shape, pattern.dtype) == (matrix.shape, matrix.dtype)


def test_select_has_repeated_pairs_and_an_empty_row_for_the_unknown(pattern, rows):
    pointers, columns = pattern.select(np.array([-1, 5, -1]))
    assert pointers.tolist() == [0, 0, (rows["user"] == 5).sum(), (rows["user"] == 5).sum()]
    assert sorted(columns.tolist()) == sorted(rows["item"][rows["user"] == 5].tolist())


def test_rows_and_columns_move_to_new_places_twice(pattern, matrix):
    users, items = np.arange(50) * 2 + 1, np.arange(30)[::-1] + 4
    moved = pattern.spread_over((users, items), (101, 40))
    assert_array_equal(moved[users].toarray()[:, items], matrix.toarray())
    assert moved[np.arange(0, 101, 2)].nnz == 0
    again = moved.spread_over((np.arange(101) + 1, np.arange(40)), (102, 41))
    assert_array_equal(again[users + 1].toarray()[:, items], matrix.toarray())
    assert again.shape == (102, 41)


def test_a_pickle_holds_no_ratings(pattern, matrix):
    assert len(pickle.dumps(pattern)) < 50 * 8 + 600
    assert_array_equal(pickle.loads(pickle.dumps(pattern))[[3]].toarray(), matrix[[3]].toarray())
    assert StoredPattern(**pattern.state()).shape == pattern.shape


def test_a_folder_stays_the_same_in_another_working_directory(pattern, matrix, tmp_path, monkeypatch):
    folder = Path(pattern.folder)
    monkeypatch.chdir(folder.parent)
    pattern.folder = Path(folder.name)
    monkeypatch.chdir(tmp_path)
    assert pattern.folder == str(folder)
    assert_array_equal(pattern[[3]].toarray(), matrix[[3]].toarray())
