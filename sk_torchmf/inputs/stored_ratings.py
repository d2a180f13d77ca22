"""What a fit is told of a data set on disk before it reads the pairs: ids, counts, where ratings lie. Touches no estimator."""

from dataclasses import dataclass

import numpy as np
import torch

from sk_torchmf.distributed import ALONE
from sk_torchmf.inputs.forms import SHARDS, Reading
from sk_torchmf.inputs.stored_pairs import BLOCK
from sk_torchmf.solvers.scaling import scale_of, standardise


class StoredRatings:
    """The ratings of a data set on disk, in the place of the Interactions of a Reading.

    Parameters
    ----------
    shards : Shards
    user_ids, item_ids : ndarray of int
        The row number of each user and item of the data set.

    Attributes
    ----------
    shards, user_ids, item_ids
        As the parameters.
    num_users, num_items : int
        How many rows there are.
    ratings, weights : None
        They are on disk; and what has weight zero is not among the pairs.
    """

    ratings = weights = None

    def __init__(self, shards, user_ids, item_ids):
        self.shards, self.user_ids, self.item_ids = shards, user_ids, item_ids
        self.num_users, self.num_items = len(user_ids), len(item_ids)

    def __len__(self):
        return self.shards.n_ratings


def read_shards(shards, y, sample_weight, name, *, rated=True):
    """Read the arguments of a ``fit`` to a data set on disk; ``name`` is the estimator's, for messages.

    Where it is not ``rated``, every row is a positive, and its rating says nothing.

    Returns
    -------
    Reading
        Its ``data`` are StoredRatings.
    """
    for given, parameter, role in ((y, "y", "rating" if rated else "weight"), (sample_weight, "sample_weight", "weight")):
        if given is not None:
            raise ValueError(
                f"{parameter} must be None when X is Shards, which hold their own {role}s. Name the column of {role}s when the "
                f"Shards are made: Shards.from_parquet(..., {role}=...)."
            )
    if rated and shards.rating_range is None:
        raise ValueError(f"{name} needs ratings, and these Shards have none. Make them with Shards.from_parquet(..., rating=...).")
    return reading_of(shards)


def reading_of(shards):
    """The Reading of a data set on disk."""
    users = shards.users
    order = np.argsort(users, kind="stable")
    place = np.empty(len(users), dtype=np.int64)
    place[order] = np.arange(len(users))
    data = StoredRatings(shards, place, np.arange(shards.n_items))
    return Reading(data, users[order], shards.items, SHARDS, 2)


@dataclass(frozen=True)
class Survey:
    """What one pass over a data set finds, or two where ratings have many values.

    Attributes
    ----------
    counts : tuple of ndarray of shape (n_users,) and (n_items,)
        Weighted number of ratings of each, float64.
    location, scale : float
        See ``standardise``.
    limits : tuple of float
        Lowest and highest rating, as the loss codes them.
    decode : callable
        What makes ratings, as the loss codes them, of what is stored: ndarrays.
    weighted : bool
        Whether weights differ from one.
    levels, totals : ndarray of shape (n_levels,), float32 and float64, or None
        The distinct ratings, of which numbers are stored, and the weight of each; None where they are too many for that.
    """

    counts: tuple[np.ndarray, np.ndarray]
    location: float
    scale: float
    limits: tuple[float, float]
    decode: object
    weighted: bool
    levels: np.ndarray | None = None
    totals: np.ndarray | None = None


def survey(shards, loss, dtype, processes=ALONE):
    """Go through the ratings of a data set on disk.

    Parameters
    ----------
    shards : Shards
    loss : PointwiseLoss
    dtype : str
        That of the numbers to be made of ratings.
    processes : Communicator
        Each of which has other shards: all but the users' counts is of all of them.

    Returns
    -------
    Survey
    """
    levels = shards[0].levels
    if levels is None and loss.robust:
        raise ValueError(
            f'loss="{loss.name}" needs Shards whose ratings have at most 256 distinct values, because it needs medians, which are '
            "found by counting. Round the ratings before the Shards are made, or pass a table."
        )
    low, high = shards.rating_range
    known = loss.check(np.array([low, (low + high) / 2, high]) if levels is None else levels.astype(np.float64))
    limits, totals = (float(known.min()), float(known.max())), np.zeros(len(known))
    by_user, by_item = np.zeros(shards.n_users), np.zeros(shards.n_items)
    total, moment, weighted = 0.0, 0.0, False
    for block in pieces(shards):
        weight = None if block.weights is None else block.weights.astype(np.float64)
        weighted |= weight is not None
        users = slice(block.offset, block.offset + block.n_users)
        if weight is None:
            by_user[users] = np.diff(block.pointers)
        else:
            by_user[users] = np.bincount(np.repeat(np.arange(block.n_users), np.diff(block.pointers)), weight, block.n_users)
        by_item += np.bincount(block.columns, weight, shards.n_items)
        if levels is not None:
            totals += np.bincount(block.codes, weight, len(levels))
        else:
            rating = loss.check(block.codes.astype(np.float64))
            total += len(rating) if weight is None else weight.sum()
            moment += rating.sum() if weight is None else rating @ weight
    sums = [torch.from_numpy(by_item), torch.from_numpy(totals), float(total), float(moment)]
    by_item, totals, total, moment = processes.all_reduce(sums)
    by_item, totals = by_item.numpy(), totals.numpy()
    weighted = bool(processes.largest(float(weighted)))
    if levels is not None:
        location, scale = standardise(known, totals, loss)  # a value counts as often as it occurs
        table = known.astype(dtype)
        return Survey((by_user, by_item), location, scale, limits, table.__getitem__, weighted, levels, totals)
    location, scale = moment / total, 1.0
    if loss.standardised:
        size, square = float(np.abs(known).max()) or 1.0, 0.0
        for block in pieces(shards):
            squares = np.square((loss.check(block.codes.astype(np.float64)) - location) / size)
            square += squares.sum() if block.weights is None else squares @ block.weights.astype(np.float64)
        (square,) = processes.all_reduce([float(square)])
        scale = scale_of(location, size * (square / total) ** 0.5, size)
    return Survey((by_user, by_item), location, scale, limits, lambda codes: loss.check(codes.astype(np.float64)), weighted)


def pieces(shards):
    """The shards in pieces of so many ratings as are worked on at once."""
    for shard in shards:
        cuts = np.searchsorted(shard.pointers, np.arange(BLOCK, shard.n_ratings, BLOCK))
        cuts = np.unique(np.concatenate([[0], cuts, [shard.n_users]])).tolist()
        for start, stop in zip(cuts[:-1], cuts[1:], strict=True):
            yield shard.between(start, stop)
