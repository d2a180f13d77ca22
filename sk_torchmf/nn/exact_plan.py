"""A plan whose sums have the same bits however many processes share it. Knows no solver."""

import numpy as np

from sk_torchmf.distributed import TreeSum
from sk_torchmf.nn.plan import Plan, cut_rows


class ExactPlan(Plan):
    """The pairs of a fit in blocks that no number of processes changes, and sums by a binary tree over shards of the users.

    Every user is in one of a fixed number of shards, and a process has all users of a run of shards. Blocks end where shards do, so
    that each is worked on as it would be in one process; within a shard what blocks say is summed in their order, and over shards
    by ``TreeSum``.

    Parameters
    ----------
    pairs : Pairs
    shards : ndarray of shape (n_users,), int
        The number of each user's shard; sorted.
    first : int, default=0
        That of the first shard which this process may have.
    processes : Communicator, optional
        Of exact sums.

    Attributes
    ----------
    As of ``Plan``.
    """

    keeps_blocks, is_exact = False, True  # going through blocks is what tells the shard of a sum

    def __init__(self, pairs, shards, *, first=0, processes=None):
        self._tree, self._at, self._shards, self._first = TreeSum(), [first], shards, first
        super().__init__(pairs, processes=processes)

    def __iter__(self):
        for number, block in zip(self._numbers, self._blocks, strict=True):
            self._at[0] = number  # which plans that are cut from this one share
            yield block

    def _cut(self):
        numbers, starts = np.unique(self._shards, return_index=True)
        ends = np.append(starts, len(self._shards)).tolist()
        blocks, self._numbers = [], []
        for number, start, stop in zip(numbers.tolist(), ends[:-1], ends[1:], strict=True):
            span, own = self.pairs.between(start, stop)
            for rows, within, block in Plan._cut_pairs(own, *self._limits):
                place = slice(start + rows.start, start + rows.stop), slice(span.start + within.start, span.start + within.stop)
                blocks.append((*place, block))
                self._numbers.append(number)
        if not blocks:  # of a process without users
            blocks, self._numbers = Plan._cut_pairs(self.pairs), [self._first]
        return blocks

    def cut(self, *, max_pairs=None, max_users=None):
        """As of ``Plan``."""
        plan = super().cut(max_pairs=max_pairs, max_users=max_users)
        plan._tree = TreeSum()
        return plan

    def add(self, *parts):
        """As of ``Plan``, for the shard whose block was yielded last."""
        self._tree.add(self._at[0], *parts)

    def total(self):
        """As of ``Plan``."""
        return self.processes.all_reduce(self._tree.total())

    def total_over_users(self, function):
        """As of ``Plan``."""
        for number, (rows, _, _) in zip(self._numbers, self._blocks, strict=True):
            self._at[0] = number
            for some in cut_rows(rows.start, rows.stop):
                self.add(*function(some))
        return self.total()
