"""Batches of a data set on disk: blocks of users in a random order, their pairs mixed within a window. Knows no estimator."""

import math
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch

from sk_torchmf.nn import NegativeSampler
from sk_torchmf.solvers.batches import Batch, even_parts

BLOCK = 2**16  # pairs of a block, whose users are whole
WINDOW = 2**20  # pairs that are in memory at once, and mixed


class Cut(NamedTuple):
    """Where a block of users lies: its shard, its users, counted there, and how many pairs they have."""

    shard: int
    start: int
    stop: int
    n_pairs: int


def cut(shards):
    """Cut a data set on disk into blocks of whole users; a list of Cut."""
    found = []
    for at, shard in enumerate(shards):
        pointers = shard.pointers
        edges = np.searchsorted(pointers, np.arange(BLOCK, shard.n_ratings, BLOCK))
        edges = np.unique(np.concatenate([[0], edges, [shard.n_users]])).tolist()
        sizes = np.diff(pointers[edges]).tolist()
        found += [Cut(at, start, stop, n) for start, stop, n in zip(edges[:-1], edges[1:], sizes, strict=True) if n]
    return found


@dataclass(frozen=True)
class Tally:
    """What one pass over a data set on disk counts.

    Attributes
    ----------
    cuts : list of Cut
    counts : tuple of ndarray of shape (n_users,) and (n_items,)
        Weighted number of pairs of each, float64.
    n_pairs : ndarray of shape (n_users,), int64
        How many pairs each user has.
    n_own : ndarray of shape (n_users,), int64
        How many items each user has: pairs may be there twice.
    item_users : ndarray of shape (n_items,), int64
        How many users have each item.
    level_weights : ndarray of shape (n_levels,) or None
        Weighted number of pairs of each of the distinct ratings, where these are numbered.
    """

    cuts: list
    counts: tuple[np.ndarray, np.ndarray]
    n_pairs: np.ndarray
    n_own: np.ndarray
    item_users: np.ndarray
    level_weights: np.ndarray | None


def tally(shards):
    """Go through a data set on disk and count."""
    cuts, levels = cut(shards), shards[0].levels
    by_user, n_pairs, n_own = (np.zeros(shards.n_users, dtype=dtype) for dtype in (np.float64, np.int64, np.int64))
    by_item, item_users = np.zeros(shards.n_items), np.zeros(shards.n_items, dtype=np.int64)
    of_levels = None if levels is None else np.zeros(len(levels))
    for own in cuts:
        block = shards[own.shard].between(own.start, own.stop)
        lengths, n = np.diff(block.pointers), block.n_users
        user, users = np.repeat(np.arange(n), lengths), slice(block.offset, block.offset + n)
        weight = None if block.weights is None else block.weights.astype(np.float64)
        n_pairs[users] = lengths
        by_user[users] = lengths if weight is None else np.bincount(user, weight, n)
        by_item += np.bincount(block.columns, weight, shards.n_items)
        is_first = np.ones(block.n_ratings, dtype=bool)  # of the pairs that are the same, which lie side by side
        is_first[1:] = (block.columns[1:] != block.columns[:-1]) | (user[1:] != user[:-1])
        n_own[users] = np.bincount(user[is_first], minlength=n)
        item_users += np.bincount(block.columns[is_first], minlength=shards.n_items)
        if of_levels is not None:
            of_levels += np.bincount(block.codes, weight, len(levels))
    return Tally(cuts, (by_user, by_item), n_pairs, n_own, item_users, of_levels)


class Negatives(NamedTuple):
    """What negatives are drawn by: how many for each positive, whether popular items are more often drawn, users of each item."""

    n_negatives: int
    popularity: bool
    item_counts: np.ndarray


@dataclass(frozen=True)
class StoredObservations:
    """A loader over a data set on disk: every iteration is a pass, in which all pairs come once.

    Blocks of users come in a fresh random order, and the pairs of as many of them as fill a window of some million pairs are mixed.
    Where the data set is no larger than that, the order is any.

    Attributes
    ----------
    shards : Shards
    cuts : list of Cut
    places : tuple of ndarray of shape (n_users,) and (n_items,), int
        The row numbers of the users and items of the data set; those of items ascend.
    n_items : int
        How many rows of items there are.
    size : int
        Of a batch at most. Those of a window are equal, but for one pair.
    generator : torch.Generator
        A CPU generator, which draws the order and the negatives.
    dtype : str
    device : torch.device
    decode : callable
        What makes ratings of what is stored, ndarrays. Not called where there are negatives.
    mean_weight : float or None
        What weights are divided by; None where all are one.
    negatives : Negatives or None
        With these the pairs are positives. A user who has all items that can be drawn is left out.
    encoded : dict of str to EncodedRows
        As of ``Batch``.
    """

    shards: Any
    cuts: list
    places: tuple[np.ndarray, np.ndarray]
    n_items: int
    size: int
    generator: torch.Generator
    dtype: str
    device: torch.device
    decode: Any = None
    mean_weight: float | None = None
    negatives: Negatives | None = None
    encoded: dict = field(default_factory=dict)

    def __iter__(self):
        for window in self._windows():
            yield from self._batches(*self._read(window))

    def _windows(self):
        """The cuts in a random order, a list for each window: as few windows as can be, about equally large."""
        order = torch.randperm(len(self.cuts), generator=self.generator, device="cpu").tolist()
        before, total = 0, sum(own.n_pairs for own in self.cuts)
        n_windows = math.ceil(total / max(WINDOW, self.size))
        windows: list[list] = [[] for _ in range(n_windows)]
        for at in order:
            windows[before * n_windows // total].append(self.cuts[at])
            before += self.cuts[at].n_pairs
        return [sorted(window) for window in windows if window]

    def _read(self, window):
        """The pairs of a window: users' numbers in it, these users' rows, pointers, items; ratings and weights, or None."""
        blocks = []
        for at, cuts in groupby(window, key=lambda own: own.shard):
            shard = self.shards[at]
            blocks += [shard.between(own.start, own.stop) for own in cuts]
        rows = np.concatenate([self.places[0][block.offset : block.offset + block.n_users] for block in blocks])
        lengths = np.concatenate([np.diff(block.pointers) for block in blocks])
        pointers = np.concatenate([[0], np.cumsum(lengths)])
        user = np.repeat(np.arange(len(rows), dtype=np.int32), lengths)
        item = np.concatenate([self.places[1][block.columns].astype(np.int32) for block in blocks])
        rating = weight = None
        if self.negatives is None:
            rating = np.concatenate([self.decode(block.codes) for block in blocks]).astype(self.dtype, copy=False)
        if self.mean_weight is not None:
            weight = (np.concatenate([block.weights for block in blocks]) / self.mean_weight).astype(self.dtype)
        return user, rows, pointers, item, rating, weight

    def _batches(self, user, rows, pointers, item, rating, weight):
        """The batches of a window."""
        order, sampler = torch.randperm(len(user), generator=self.generator, device="cpu").numpy(), None
        if self.negatives is not None:
            pattern = sp.csr_array((np.ones(len(item), dtype=bool), item, pointers), shape=(len(rows), self.n_items))
            n_negatives, popularity, counts = self.negatives
            drawn_by = {"popularity": popularity, "item_counts": counts, "generator": self.generator}
            sampler = NegativeSampler(pattern, **drawn_by, device=self.device)
            order, rating = order[sampler.total[user[order]] > 0], sampler.n_unobserved[user].astype(self.dtype)
        for part in even_parts(len(order), math.ceil(len(order) / self.size)):
            index = order[part]
            own = user[index].astype(np.int64)
            values = rows[own].astype(np.int64), item[index].astype(np.int64), rating[index]
            batch = Batch.from_arrays(*values, None if weight is None else weight[index], {}, self.device)
            batch.encoded = self.encoded
            if sampler is not None:
                batch = batch.ranked_against(sampler.draw(torch.from_numpy(own), n_negatives))
            yield batch
