"""What an ordinary training loop takes steps on: batches of observations, and loaders that make them. Knows no estimator."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from sk_torchmf.nn import NegativeSampler, Pairs


class EncodedRows:
    """The encoded features of all users, or of all items, on a device.

    Parameters
    ----------
    matrix : CSR array of shape (n, n_columns)
        Each entry stored once.
    dtype : torch.dtype
    device : torch.device
    """

    def __init__(self, matrix, dtype, device):
        pointers, columns = (torch.from_numpy(part.astype(np.int64)).to(device) for part in (matrix.indptr, matrix.indices))
        self.pointers, self.columns, self.n_columns = pointers, columns, matrix.shape[1]
        self.value = torch.from_numpy(matrix.data).to(device, dtype)

    def dense(self, code):
        """The rows of row numbers (n,), a dense tensor of shape (n, n_columns)."""
        start, lengths = self.pointers[code], self.pointers.diff()[code]
        row = torch.arange(len(code), device=code.device).repeat_interleave(lengths)
        shift = start - (lengths.cumsum(0) - lengths)  # from a place among these rows' entries to that among all
        place = torch.arange(len(row), device=code.device) + shift.repeat_interleave(lengths)
        found = self.value.new_zeros(len(code), self.n_columns)
        found[row, self.columns[place]] = self.value[place]
        return found


@dataclass(slots=True)
class Batch:
    """Observations to take one step on.

    Attributes
    ----------
    user, item : Tensor of shape (n,), int64
        Of shape (n + n m,) in a batch that is ``ranked_against`` m negatives of each observation.
    rating : Tensor of shape (n,)
        What the loss gets beside the scores; of a ranking loss, how many items each positive's user has not.
    weight : Tensor of shape (n,) or None
    features : dict of str to Tensor of shape (n,)
        What ``forward`` gets beside user and item; as long as these.
    encoded : dict of str to EncodedRows
        Under ``"user_features"`` and ``"item_features"``: ``forward`` gets the rows of the batch's users and items by these names.
    """

    user: Tensor
    item: Tensor
    rating: Tensor
    weight: Tensor | None = None
    features: dict = field(default_factory=dict)
    encoded: dict = field(default_factory=dict)

    @classmethod
    def from_arrays(cls, user, item, rating, weight, features, device="cpu"):
        """Take over NumPy arrays of the right dtypes; ``weight`` may be None."""
        user, item, rating = (torch.from_numpy(values).to(device) for values in (user, item, rating))
        weight = None if weight is None else torch.from_numpy(weight).to(device)
        return cls(user, item, rating, weight, {name: torch.from_numpy(values).to(device) for name, values in features.items()})

    def __len__(self):
        return len(self.rating)

    def score(self, module):
        """The module's scores, one for each user and item."""
        code = {"user_features": self.user, "item_features": self.item}
        rows = {name: table.dense(code[name]) for name, table in self.encoded.items()}
        return as_scores(module(self.user, self.item, **self.features, **rows), len(self.user), type(module).__name__)

    def ranked_against(self, negative):
        """The batch with negatives (n, m), each scored with the features of its positive: first n scores, then n rows of m."""

        def repeated(values):
            return torch.cat([values, values.repeat_interleave(negative.shape[1])])

        features = {name: repeated(values) for name, values in self.features.items()}
        item = torch.cat([self.item, negative.flatten()])
        return Batch(repeated(self.user), item, self.rating, self.weight, features, self.encoded)

    def __getitem__(self, index):
        """Some of the observations, by slice or index tensor."""
        weight = None if self.weight is None else self.weight[index]
        features = {name: value[index] for name, value in self.features.items()}
        return Batch(self.user[index], self.item[index], self.rating[index], weight, features, self.encoded)


@dataclass(slots=True)
class PairsBatch:
    """All observations as a plan, for modules with ``forward_pairs``.

    Attributes
    ----------
    pairs : Pairs
    rating, weight : Tensor of shape (n,), or None
        As in ``Batch``, in the order of the scores.
    place : Tensor of shape (n_pairs,), int, optional
        Places of the scores in user-major order, which is theirs by default.
    """

    pairs: Pairs
    rating: Tensor
    weight: Tensor | None = None
    place: Tensor | None = None

    @classmethod
    def of(cls, batch, shape):
        """Plan a batch without features; ``shape`` is (n_users, n_items)."""
        user, item = (tensor.cpu().numpy() for tensor in (batch.user, batch.item))
        pairs = Pairs(user, item, shape[0], shape[1], batch.rating.device)
        if len(batch) < pairs.n_pairs:  # ranked: the loss wants positives first, and of each its negatives together
            return cls(pairs, batch.rating, batch.weight, pairs.inverse_order)
        weight = None if batch.weight is None else batch.weight.index_select(0, pairs.order)
        return cls(pairs, batch.rating.index_select(0, pairs.order), weight)

    def __len__(self):
        return len(self.rating)

    def score(self, module):
        """The module's scores by the fused kernels, one for each pair."""
        score = as_scores(module.forward_pairs(self.pairs), self.pairs.n_pairs, type(module).__name__)
        return score if self.place is None else score.index_select(0, self.place)


@dataclass(frozen=True)
class Observations:
    """A loader over tensors on the device: every iteration is a pass in a fresh random order, a slice a batch.

    Attributes
    ----------
    data : Batch
        All observations.
    size : int
        Of a batch; the last may be smaller.
    generator : torch.Generator
        A CPU generator, which draws the order.
    """

    data: Batch
    size: int
    generator: torch.Generator

    def __iter__(self):
        n = len(self.data)
        order = torch.randperm(n, generator=self.generator, device="cpu").to(self.data.rating.device)
        shuffled = self.data[order]
        for start in range(0, n, self.size):
            yield shuffled[start : start + self.size]


@dataclass(frozen=True)
class SharedObservations:
    """A loader like ``Observations`` of one process's part, of which there are as many batches an epoch as of the others'.

    Attributes
    ----------
    data : Batch
        The process's observations.
    n_batches : int
        Of about equal size; some are empty where there are fewer observations.
    generator : torch.Generator
        A CPU generator, which draws the order.
    shift : float
        From 0 to 1, another in each process, so that not all have their larger batches at once.
    """

    data: Batch
    n_batches: int
    generator: torch.Generator
    shift: float = 0.0

    def __iter__(self):
        n = len(self.data)
        order = torch.randperm(n, generator=self.generator, device="cpu").to(self.data.rating.device)
        shuffled = self.data[order]
        for part in even_parts(n, self.n_batches, self.shift):
            yield shuffled[part]


@dataclass(frozen=True)
class Ranked:
    """A loader that gives every batch of another fresh negatives.

    Attributes
    ----------
    batches : iterable of Batch
        Gone through once an iteration.
    sampler : NegativeSampler
    n_negatives : int
        Of each positive.
    shape : tuple of int, optional
        (n_users, n_items), for batches planned for modules with ``forward_pairs``.
    """

    batches: Iterable
    sampler: NegativeSampler
    n_negatives: int
    shape: tuple | None = None

    def __iter__(self):
        for batch in self.batches:
            ranked = batch.ranked_against(self.sampler.draw(batch.user, self.n_negatives))
            yield ranked if self.shape is None else PairsBatch.of(ranked, self.shape)


def even_parts(n, n_parts, shift=0.0):
    """Slices that divide ``n`` places into parts as equal as can be; a shift from 0 to 1 says which of them are the larger ones.

    Some are empty where there are fewer places than parts.
    """
    first = int(shift * n_parts)
    edges = [(n * at + first) // n_parts for at in range(n_parts + 1)] if n_parts else [0]
    return [slice(*ends) for ends in zip(edges[:-1], edges[1:], strict=True)]


def as_scores(score, n, name):
    """A module's output as shape (n,): (n, 1) will do, and a single number for a single pair."""
    if not isinstance(score, Tensor):
        raise TypeError(f"{name} must return a tensor with one number per pair. Got {type(score).__name__}.")
    shape = tuple(score.shape)
    if shape == (n,):
        return score
    if shape == (n, 1) or (n == 1 and score.numel() == 1):
        return score.reshape(n)
    raise ValueError(f"{name} must return one number per pair, shape ({n},) or ({n}, 1). Got shape {shape}.")
