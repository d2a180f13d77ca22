"""Batches of the caller's own making, checked one by one and gone through anew in every epoch."""

from collections.abc import Iterable

import numpy as np
import torch

from sk_torchmf._validation import as_array, check_below, check_ids, check_length, check_ratings, check_weights
from sk_torchmf.solvers.batches import Batch


class Stream:
    """An iterable of ``Batch`` on the device, which remembers what passed in the first epoch.

    Parameters
    ----------
    batches : iterable or callable
        Of (user, item, rating) or (user, item, rating, weight).
    sizes : tuple of int
        Numbers of users and items.
    check_ratings : callable
        Takes ratings, returns them as the loss wants them.
    dtype : str
    device : torch.device

    Attributes
    ----------
    counts : tuple of ndarray of shape (n_users,) and (n_items,)
        Weighted number of ratings.
    limits : list of float
        Lowest and highest rating.
    """

    def __init__(self, batches, sizes, check_ratings, dtype, device):
        self.batches, self.sizes, self.check_ratings, self.dtype, self.device = batches, sizes, check_ratings, dtype, device
        self.counts, self.limits, self.is_first = tuple(np.zeros(n) for n in sizes), [np.inf, -np.inf], True

    def __iter__(self):
        batches = self.batches() if callable(self.batches) else self.batches
        if not isinstance(batches, Iterable):
            raise TypeError(
                f"batches must be an iterable, or a function that returns an iterator. It returned {type(batches).__name__}."
            )
        for number, batch in enumerate(batches):
            if not isinstance(batch, tuple | list) or len(batch) not in (3, 4):
                raise ValueError(
                    f"Batch {number} must be (user, item, rating) or (user, item, rating, weight). Got {_shown(batch)}."
                )
            user, item, rating, weight = self._check(number, *map(_array, batch))
            if len(user) == 0:
                continue
            if self.is_first:
                for count, ids in zip(self.counts, (user, item), strict=True):
                    np.add.at(count, ids, 1.0 if weight is None else weight)
                self.limits = [min(self.limits[0], rating.min()), max(self.limits[1], rating.max())]
            yield Batch.from_arrays(user, item, rating.astype(self.dtype), weight, {}, self.device)
        self.is_first = False

    def _check(self, number, user, item, rating, weight=None):
        parts = {f"users of batch {number}": (user, self.sizes[0]), f"items of batch {number}": (item, self.sizes[1])}
        ids = [check_ids(values, name) for name, (values, _) in parts.items()]
        for values, (name, (_, n)) in zip(ids, parts.items(), strict=True):
            check_below(values, n, name, f"n_{name[:5]}")
            check_length(values, len(ids[0]), name)
        rating = self.check_ratings(check_ratings(rating, len(ids[0]), f"ratings of batch {number}"))
        user, item = (values.astype(np.int64) for values in ids)
        if weight is None:
            return user, item, rating, None
        kept = np.zeros(len(user), dtype=bool)
        if np.any(weight):
            weight = check_weights(weight, len(user), f"weights of batch {number}")
            kept = weight > 0
        return user[kept], item[kept], rating[kept], weight[kept].astype(self.dtype)


def _shown(batch):
    return f"{len(batch)} parts" if isinstance(batch, tuple | list) else type(batch).__name__


def _array(values):
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = values.float() if values.dtype == torch.bfloat16 else values  # which NumPy does not know
    return as_array(values, "a part of a batch")
