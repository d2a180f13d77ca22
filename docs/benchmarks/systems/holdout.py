"""Positives of the ranking benchmarks: read from their archives, held out for tuning, ranked among candidates. Knows no model."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

ML100K_SHAPE = (943, 1682)
ML1M_SHAPE = (6040, 3706)


@dataclass(frozen=True)
class Positives:
    """Training and test positives.

    Attributes
    ----------
    user, item : ndarray of shape (n,), int32
    test_user, test_item : ndarray of shape (n_test,), int32
    shape : tuple of int
        Numbers of users and of items.
    negatives : ndarray of shape (n_test, n_negatives), int32, or None
        What each test item is ranked among; None for all items.
    """

    user: np.ndarray
    item: np.ndarray
    test_user: np.ndarray
    test_item: np.ndarray
    shape: tuple[int, int]
    negatives: np.ndarray | None = None

    def matrix(self):
        """The training positives, a CSR array."""
        return sp.csr_array((np.ones(len(self.user), dtype=np.float32), (self.user, self.item)), shape=self.shape)

    def save(self, path):
        """Write it where ``read`` finds it, without negatives."""
        arrays = {"user": self.user, "item": self.item, "test_user": self.test_user, "test_item": self.test_item}
        np.savez(path, shape=self.shape, **arrays)

    @classmethod
    def read(cls, path):
        with np.load(path) as archive:
            arrays = {name: archive[name] for name in archive.files}
        return cls(**arrays | {"shape": tuple(int(size) for size in arrays["shape"])})

    # the archives

    @classmethod
    def ncf(cls, folder):
        """MovieLens-1M, the last item of each user held out among 99 negatives [He et al., WWW 2017]."""
        with np.load(folder / "ncf_ml1m.npz") as archive:
            names = ("train_user_ids", "train_item_ids", "test_user_ids", "test_item_ids")
            return cls(*(archive[name] for name in names), ML1M_SHAPE, archive["test_negatives"])

    @classmethod
    def ml100k(cls, folder, fold):
        """An official fold of MovieLens-100K, u1 to u5."""
        with np.load(folder / "ml100k_folds.npz") as archive:
            names = ("train_user_ids", "train_item_ids", "test_user_ids", "test_item_ids")
            return cls(*(archive[f"{fold}_{name}"] for name in names), ML100K_SHAPE)

    @classmethod
    def gowalla(cls, folder):
        """Gowalla as LightGCN splits it [He et al., SIGIR 2020]."""
        with np.load(folder / "gowalla_lightgcn.npz") as archive:
            names = ("train_user_ids", "train_item_ids", "test_user_ids", "test_item_ids")
            return cls(*(archive[name] for name in names), (int(archive["n_users"]), int(archive["n_items"])))

    @classmethod
    def ml1m(cls, folder):
        """MovieLens-1M without a test part."""
        with np.load(folder / "ml1m.npz") as archive:
            none = np.empty(0, dtype=np.int32)
            return cls(archive["user_ids"], archive["item_ids"], none, none, ML1M_SHAPE)

    # validation parts: the test part is not looked at

    @classmethod
    def ncf_validation(cls, folder, n_negatives=99, seed=0):
        """MovieLens-1M by time: each user's last item, which the test is, left out, and the one before it held out."""
        rng = np.random.default_rng(seed)
        with np.load(folder / "ml1m.npz") as archive:
            user, item, time = (archive[name] for name in ("user_ids", "item_ids", "timestamps"))
        order = np.lexsort((rng.random(len(user)), time, user))
        user, item = user[order], item[order]
        matrix = sp.csr_array((np.ones(len(user), dtype=bool), (user, item)), shape=ML1M_SHAPE)
        last = np.append(user[1:] != user[:-1], True)
        user, item = user[~last], item[~last]
        last = np.append(user[1:] != user[:-1], True)
        negatives = np.empty((last.sum(), n_negatives), dtype=np.int32)
        for row, u in enumerate(user[last]):
            unseen = np.ones(ML1M_SHAPE[1], dtype=bool)
            unseen[matrix.indices[matrix.indptr[u] : matrix.indptr[u + 1]]] = False
            negatives[row] = rng.choice(np.flatnonzero(unseen), n_negatives, replace=False)
        return cls(user[~last], item[~last], user[last], item[last], ML1M_SHAPE, negatives)

    def hold_out(self, share, seed=0):
        """Hold out a share of each user's training items, at random: at least one where she has more than one."""
        counts = np.bincount(self.user, minlength=self.shape[0])
        wanted = np.where(counts > 1, np.maximum(1, np.rint(share * counts)), 0)
        held_out = self._first(np.random.default_rng(seed), wanted[self.user])
        return Positives(self.user[~held_out], self.item[~held_out], self.user[held_out], self.item[held_out], self.shape)

    def _first(self, rng, wanted):
        """Which positives are among the first of their user, in random order."""
        order = np.lexsort((rng.random(len(self.user)), self.user))
        counts = np.bincount(self.user)
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
        return place < wanted


def rank_candidates(scores, items, *, by_item=False):
    """Rank a positive among its negatives.

    Parameters
    ----------
    scores : ndarray of shape (n, m + 1)
        Of the items, the positive's in the last column.
    items : ndarray of shape (n, m + 1)
    by_item : bool
        Break ties by the order of the items; else against the positive, as the files' authors do.

    Returns
    -------
    ndarray of shape (n, m + 1), int64
        Items, best first. Where the positive is among its own negatives too, as it is for some users of the published files, it
        counts once and the list is one shorter, with -1 at its end: as the authors' own code does.
    """
    scores = np.array(scores, dtype=np.float64)
    again = items[:, :-1] == items[:, -1:]
    scores[:, :-1][again] = -np.inf
    is_positive = np.zeros(items.shape, dtype=bool)
    is_positive[:, -1] = True
    order = np.lexsort((items if by_item else is_positive, -scores), axis=-1)
    ranked = np.take_along_axis(items, order, axis=1).astype(np.int64)
    ranked[np.isneginf(np.take_along_axis(scores, order, axis=1))] = -1
    return ranked
