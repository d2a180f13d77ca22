"""Batches of a data set on disk: every pair once an epoch, mixed within a window, negatives that no user has."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from sk_torchmf import Shards
from sk_torchmf.inputs import stored_batches
from sk_torchmf.inputs.stored_batches import Negatives, StoredObservations, tally

N_USERS, N_ITEMS, N = 50, 30, 900


@pytest.fixture(scope="module")
def rows():
    """Pairs with long tails, some of them twice; of a pair rating and weight are known by its ids."""
    rng = np.random.default_rng(0)
    user, item = ((n * rng.uniform(size=N) ** 2).astype(int) for n in (N_USERS, N_ITEMS))
    return {"user": user, "item": item, "rating": (user + item) % 7 + 0.5, "weight": 1.0 + (user * item) % 3}


@pytest.fixture(scope="module")
def shards(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "shards"
    return Shards.from_chunks([rows], folder, user="user", item="item", rating="rating", weight="weight", n_shards=4)


def loader(shards, size=64, **options):
    place = np.argsort(np.argsort(shards.users))
    levels, found = shards[0].levels, tally(shards)
    given = {"n_items": shards.n_items, "size": size, "generator": torch.Generator().manual_seed(0), "dtype": "float64"}
    given |= {"device": torch.device("cpu"), "decode": lambda codes: levels[codes], "mean_weight": 2.0}
    return StoredObservations(shards, found.cuts, (place, np.arange(shards.n_items)), **given | options)


@pytest.fixture(params=[2**20, 250])
def window(request, monkeypatch):
    monkeypatch.setattr(stored_batches, "BLOCK", 40)
    monkeypatch.setattr(stored_batches, "WINDOW", request.param)
    return request.param


def pairs_of(batches, shards):
    users, items = np.sort(shards.users), shards.items
    return np.concatenate([np.column_stack([users[own.user[: len(own)]], items[own.item[: len(own)]]]) for own in batches])


def test_every_pair_comes_once_an_epoch_with_its_rating_and_weight(rows, shards, window):
    batches = loader(shards)
    first, second = list(batches), list(batches)
    found = pairs_of(first, shards)
    expected = np.column_stack([rows["user"], rows["item"]])
    for order in ((1, 0), (0, 1)):
        assert_array_equal(np.sort(found[:, order[0]]), np.sort(expected[:, order[0]]))
    assert_array_equal(found[np.lexsort(found.T)], expected[np.lexsort(expected.T)])
    assert_array_equal(torch.cat([own.rating for own in first]), found.sum(1) % 7 + 0.5)
    assert_array_equal(torch.cat([own.weight for own in first]), (1 + found.prod(1) % 3) / 2)
    assert {own.user.dtype for own in first} == {own.item.dtype for own in first} == {torch.int64}
    assert max(map(len, first)) <= 64
    again = pairs_of(second, shards)
    assert (found != again).any()  # in another order
    assert_array_equal(pairs_of(loader(shards), shards), found)  # which the seed tells


def test_a_window_is_all_that_is_in_memory_and_is_mixed(rows, shards, window, monkeypatch):
    batches, sizes, read = loader(shards), [], StoredObservations._read

    def counted(own, cuts):
        found = read(own, cuts)
        sizes.append(len(found[0]))
        return found

    monkeypatch.setattr(StoredObservations, "_read", counted)
    users = [own.user for own in batches]
    longest = max(own.n_pairs for own in batches.cuts)
    assert longest <= 40 + np.bincount(rows["user"]).max()
    assert sum(sizes) == N
    assert max(sizes) <= N / len(sizes) + longest
    assert len(sizes) == (1 if window > N else 4)
    assert min(len(own.unique()) for own in users if len(own) > 50) > 5


@pytest.mark.parametrize("popularity", [False, True])
def test_negatives_are_what_a_user_has_not(rows, shards, window, popularity):
    found = tally(shards)
    own = list(loader(shards, mean_weight=None, negatives=Negatives(3, popularity, found.item_users)))
    users, items = np.sort(shards.users), shards.items
    have = {(int(user), int(item)) for user, item in zip(rows["user"], rows["item"], strict=True)}
    for batch in own:
        n = len(batch)
        user, item = users[batch.user[n:]], items[batch.item[n:]]
        assert_array_equal(user, np.repeat(users[batch.user[:n]], 3))
        assert not have & set(zip(user.tolist(), item.tolist(), strict=True))
        n_own = np.array([sum(one == user for one, _ in have) for user in users[batch.user[:n]]])
        assert_array_equal(batch.rating, shards.n_items - n_own)
    assert sum(map(len, own)) == N


def test_tally_counts_as_a_table_does(rows, shards, window):
    found, users = tally(shards), shards.users
    assert_array_equal(found.counts[0], np.bincount(rows["user"], rows["weight"])[users])
    assert_array_equal(found.counts[1], np.bincount(rows["item"], rows["weight"])[shards.items])
    assert_array_equal(found.n_pairs, np.bincount(rows["user"])[users])
    distinct = np.unique(np.column_stack([rows["user"], rows["item"]]), axis=0)
    assert len(distinct) < N
    assert_array_equal(found.n_own, np.bincount(distinct[:, 0])[users])
    assert_array_equal(found.item_users, np.bincount(distinct[:, 1])[shards.items])
    assert_array_equal(found.level_weights, np.bincount((2 * rows["rating"]).astype(int), rows["weight"])[1::2])
