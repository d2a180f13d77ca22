"""The pairs of a data set on disk, read a block of users at a time while a solver goes through its plan. Knows no solver."""

import math
from typing import NamedTuple

import numpy as np
import torch

from sk_torchmf.nn import Pairs, Plan

BLOCK = 2**20  # pairs read at once


class Cut(NamedTuple):
    """Where a block lies: its shard, and its users and pairs, counted there and among all."""

    shard: int
    users: slice
    rows: slice
    span: slice


class StoredPairs:
    """The pairs of a data set on disk, without the users and items that have none, by the attributes that ``Pairs`` has.

    Parameters
    ----------
    shards : Shards
    has_pairs : ndarray of shape (n_items,), bool
        Which items of the data set have any.
    device : torch.device
        Where blocks go.

    Attributes
    ----------
    users, items : ndarray of int
        The numbers, in the data set, of those that have pairs.
    shape : tuple of int
        How many users and items that is.
    n_pairs : int
    device : torch.device
    """

    def __init__(self, shards, has_pairs, device):
        self.shards, self.device, self.n_pairs = shards, torch.device(device), shards.n_ratings
        self._pointers, users, n_before = [], [], [0]
        for shard in shards:
            some = np.diff(shard.pointers) > 0
            self._pointers.append(np.append(shard.pointers[:-1][some], shard.pointers[-1:]))
            users.append(shard.offset + np.flatnonzero(some))
            n_before.append(n_before[-1] + shard.n_ratings)
        self._n_before = np.array(n_before)  # pairs of the shards before
        self._n_users_before = np.cumsum([0, *map(len, users)])
        self.users, self.items = np.concatenate(users), np.flatnonzero(has_pairs)
        self.shape = len(self.users), len(self.items)
        self._number, self._at_hand = None, (-1, None)
        if self.shape[1] < shards.n_items:
            self._number = np.zeros(shards.n_items, dtype=np.int32)
            self._number[self.items] = np.arange(self.shape[1])

    def cut(self, max_pairs=None, max_users=None):
        """Cut the pairs into blocks of whole users of one shard; a list of Cut."""
        found, n_users = [], 0
        for at, pointers in enumerate(self._pointers):
            n, n_pairs = len(pointers) - 1, int(pointers[-1])
            n_parts = 1 if max_pairs is None else max(math.ceil(n_pairs / max_pairs), 1)
            edges = [np.searchsorted(pointers, np.arange(1, n_parts) * (n_pairs / n_parts)), np.array([0, n])]
            if max_users is not None:
                edges.append(np.arange(max_users, n, max_users))
            edges = np.unique(np.concatenate(edges)).tolist()
            for start, stop in zip(edges[:-1], edges[1:], strict=True):
                first, last = (int(self._n_before[at] + pointers[place]) for place in (start, stop))
                found.append(Cut(at, slice(start, stop), slice(n_users + start, n_users + stop), slice(first, last)))
            n_users += n
        return found

    def read(self, cut):
        """Read the pairs of a block."""
        pointers = self._pointers[cut.shard][cut.users.start : cut.users.stop + 1]
        shard, span = self._find(cut.span)
        columns = shard.columns[span]
        columns = columns.astype(np.int32) if self._number is None else self._number[columns]
        pointers = torch.from_numpy((pointers - pointers[0]).astype(np.int32)).to(self.device)
        return Pairs.from_rows(pointers, torch.from_numpy(columns).to(self.device), self.shape[1])

    def values(self, name, span):
        """Read what is stored of the pairs of a block, ``codes`` or ``weights``: an ndarray."""
        shard, span = self._find(span)
        return np.asarray(getattr(shard, name)[span])

    def users_of(self, span):
        """The user of each pair of a block, its number among ``users``: Tensor of shape (n,), int64."""
        at = self._shard_of(span)
        pointers = self._pointers[at]
        edges = np.searchsorted(pointers, np.array([span.start, span.stop]) - self._n_before[at])
        numbers = self._n_users_before[at] + np.arange(*edges)
        return torch.from_numpy(np.repeat(numbers, np.diff(pointers[edges[0] : edges[1] + 1]))).to(self.device)

    def _shard_of(self, span):
        return int(np.searchsorted(self._n_before, span.start, side="right")) - 1

    def _find(self, span):
        """The shard in which the pairs of a block are, which stays open until another is asked for; and where in it they are."""
        at = self._shard_of(span)
        number, shard = self._at_hand
        if number != at:
            shard = self.shards[at]
            self._at_hand = at, shard
        before = int(self._n_before[at])
        return shard, slice(span.start - before, span.stop - before)


class StoredValues:
    """Numbers of stored pairs: ``values[span]`` reads those of a block as a Tensor.

    Parameters
    ----------
    pairs : StoredPairs
    name : {"codes", "weights"}
    dtype : torch.dtype
    decode : callable
        Takes what is stored, an ndarray, returns the numbers.

    Attributes
    ----------
    dtype : torch.dtype
    """

    def __init__(self, pairs, name, dtype, decode=np.asarray):
        self.pairs, self.name, self.dtype, self.decode = pairs, name, dtype, decode

    def __getitem__(self, span):
        values = torch.from_numpy(np.array(self.decode(self.pairs.values(self.name, span))))
        return values.to(self.pairs.device, self.dtype)


class StoredPlan(Plan):
    """The plan of pairs on disk: each time that it is gone through it reads its blocks anew, one after the other.

    Parameters
    ----------
    pairs : StoredPairs
    max_pairs, max_users : int, optional
        As of ``Plan``.
    """

    keeps_blocks = False

    def _cut(self):
        return StoredBlocks(self.pairs, self.pairs.cut(*self._limits))

    def users(self):
        return [cut.rows for cut in self._blocks.cuts]


class StoredBlocks:
    """The blocks of a StoredPlan: what ``Plan`` yields, read when its turn comes."""

    def __init__(self, pairs, cuts):
        self.pairs, self.cuts = pairs, cuts

    def __len__(self):
        return len(self.cuts)

    def __iter__(self):
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, at):
        cut = self.cuts[at]
        return cut.rows, cut.span, self.pairs.read(cut)
