"""Which pairs a fit saw, where they are a data set on disk. Knows files, and no estimator."""

import os

import numpy as np
import scipy.sparse as sp

from sk_torchmf.inputs.shards import Shards
from sk_torchmf.storage.archive import check_path


def pattern_of(data, shape):
    """Which pairs a data set on disk has, by its StoredRatings; a StoredPattern of so many users and items."""
    number = np.full(shape[0], -1, dtype=np.int32)
    number[data.user_ids] = data.shards.first_user + np.arange(len(data.user_ids))
    alike = np.array_equal(data.item_ids, np.arange(shape[1]))
    place = None if alike else data.item_ids.astype(np.int32)
    return StoredPattern(data.shards.folder, data.shards.digest, number, place, shape[1])


class StoredPattern:
    """Which pairs were observed, read from the data set on disk where it is asked: stands in the place of a CSR array.

    It takes four bytes a user in memory, where an array takes five an observation.

    Parameters
    ----------
    folder : str or os.PathLike
        That of the data set. May be set, where it was moved; what is read is its absolute path.
    digest : str
        Of the data set, see ``Shards``.
    number : ndarray of shape (n_users,), int
        The number of each row in the data set, -1 for one that is not there.
    place : ndarray of int or None
        The column of each item of the data set; None where it is the item's number there.
    n_items : int
        How many columns there are.

    Attributes
    ----------
    folder, digest, number, place, n_items
        As the parameters.
    shape : tuple of int
    dtype : dtype
        That of the entries, bool.
    """

    dtype = np.dtype(bool)

    def __init__(self, folder, digest, number, place, n_items):
        self.folder, self.digest, self.number, self.place, self.n_items = folder, digest, number, place, n_items

    @property
    def folder(self):
        return self._folder

    @folder.setter
    def folder(self, folder):
        self._folder, self._opened = os.path.abspath(check_path(folder)), None

    @property
    def shape(self):
        """Numbers of rows and columns."""
        return len(self.number), self.n_items

    def __repr__(self):
        return f"<StoredPattern of shape {self.shape}, in {self.folder}>"

    def __getstate__(self):
        return vars(self) | {"_opened": None}

    def state(self):
        """The parameters by name."""
        return {name: getattr(self, name) for name in ("folder", "digest", "number", "place", "n_items")}

    def __getitem__(self, rows):
        """Rows by number, an ndarray or list, as a CSR array."""
        pointers, columns = self.select(np.asarray(rows, dtype=np.int64))
        found = sp.csr_array((np.ones(len(columns), dtype=bool), columns, pointers), shape=(len(rows), self.n_items))
        found.sum_duplicates()
        return found

    def select(self, rows):
        """Read rows.

        Parameters
        ----------
        rows : ndarray of shape (n,), int
            Their numbers; -1 is an empty row.

        Returns
        -------
        pointers : ndarray of shape (n + 1,)
            The columns of the row at u are ``columns[pointers[u]:pointers[u + 1]]``.
        columns : ndarray, int32
            That of a pair as often as it was observed.
        """
        shards = self._open()
        number = np.where(rows >= 0, self.number[rows], -1)
        shard = np.searchsorted(shards.offsets, number, side="right") - 1
        starts, lengths, blocks = np.zeros(len(rows), dtype=np.int64), np.zeros(len(rows), dtype=np.int64), {}
        for at in np.unique(shard[number >= 0]).tolist():
            own = np.flatnonzero((shard == at) & (number >= 0))
            block, users = shards[at], number[own] - shards.offsets[at]
            starts[own], lengths[own] = block.pointers[users], block.pointers[users + 1] - block.pointers[users]
            blocks[at] = block, own
        pointers = np.concatenate([[0], np.cumsum(lengths)])
        columns = np.empty(pointers[-1], dtype=np.int32)
        for block, own in blocks.values():
            within = np.arange(lengths[own].sum()) - np.repeat(np.cumsum(lengths[own]) - lengths[own], lengths[own])
            found = block.columns[np.repeat(starts[own], lengths[own]) + within]
            columns[np.repeat(pointers[own], lengths[own]) + within] = found if self.place is None else self.place[found]
        return pointers, columns

    def with_rows(self, number):
        """The same data set with other rows, by their numbers in it."""
        return StoredPattern(self.folder, self.digest, number, self.place, self.n_items)

    def spread_over(self, places, shape):
        """The same with rows and columns at new places among more, see ``spread_pattern``."""
        number = np.full(shape[0], -1, dtype=self.number.dtype)
        number[places[0]] = self.number
        place = places[1] if self.place is None else places[1][self.place]
        return StoredPattern(self.folder, self.digest, number, place.astype(np.int32), shape[1])

    def _open(self):
        if self._opened is None:
            advice = "Put it back, set model.seen_.folder to where it is now, or do without it: recommend(exclude_seen=False)."
            what = f"The items that users have seen are read from the data set that was passed to fit, {self.folder}"
            try:
                shards = Shards(self.folder)
            except (OSError, ValueError) as error:
                raise ValueError(f"{what}, but it cannot be read ({error}). {advice}") from error
            if shards.digest != self.digest:
                raise ValueError(f"{what}, but that folder now holds another data set. {advice}")
            self._opened = shards
        return self._opened
