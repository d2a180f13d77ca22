"""What a fit to positives is told of a data set on disk before it reads the pairs: counts and weights. Touches no estimator."""

from dataclasses import dataclass

import numpy as np
import torch

from sk_torchmf.distributed import ALONE
from sk_torchmf.inputs.stored_ratings import pieces


@dataclass(frozen=True)
class PositivesSurvey:
    """What one pass over a data set of positives finds: all but the users' counts of the shards of all processes.

    Attributes
    ----------
    counts : tuple of ndarray of shape (n_users,) and (n_items,)
        Weights of the positives of each, summed, float64.
    n_pairs, n_users : int
        How many pairs there are, each counted once, and how many users have any.
    largest : float
        The largest weight of a pair, those of its rows summed.
    weighted : bool
        Whether rows have weights.
    repeated : bool
        Whether a pair has more than one row.
    """

    counts: tuple[np.ndarray, np.ndarray]
    n_pairs: int
    n_users: int
    largest: float
    weighted: bool
    repeated: bool


def survey_positives(shards, processes=ALONE):
    """Go through a data set on disk, of which each process has other shards; a PositivesSurvey."""
    by_user, by_item = np.zeros(shards.n_users), np.zeros(shards.n_items)
    n_pairs, n_rows, largest, weighted = 0, 0, 0.0, False
    for block in pieces(shards):
        columns, users = np.asarray(block.columns), np.repeat(np.arange(block.n_users), np.diff(block.pointers))
        weight = np.ones(len(columns)) if block.weights is None else block.weights.astype(np.float64)
        weighted |= block.weights is not None
        by_user[block.offset : block.offset + block.n_users] = np.bincount(users, weight, block.n_users)
        by_item += np.bincount(columns, weight, shards.n_items)
        starts = np.flatnonzero(np.append(True, (columns[1:] != columns[:-1]) | (users[1:] != users[:-1]))[: len(columns)])
        if len(starts):
            largest = max(largest, float(np.add.reduceat(weight, starts).max()))
        n_pairs, n_rows = n_pairs + len(starts), n_rows + len(columns)
    sums = [torch.from_numpy(by_item), n_pairs, n_rows, int(np.count_nonzero(by_user))]
    by_item, n_pairs, n_rows, n_users = processes.all_reduce(sums)
    largest, weighted = processes.largest(largest), bool(processes.largest(float(weighted)))
    return PositivesSurvey((by_user, by_item.numpy()), n_pairs, n_users, largest, weighted, n_pairs < n_rows)
