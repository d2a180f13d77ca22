"""The plan of a fit: its pairs in blocks, and the one place where sums over blocks and processes are added. Knows no solver."""

import copy

import numpy as np
import torch

from sk_torchmf.distributed import ALONE

ROWS = 2**13  # worked on at once


class Plan:
    """The pairs of a fit in blocks of whole users, and an accumulator for all sums over them.

    A solver sums over pairs, over users' rows and over blocks in no other way. What belongs to one user is complete in the user's
    block. Everything else that the pairs or the users' rows add up to, a number for each item or one for all, is given to ``add``
    block by block and taken from ``total``. Where several processes fit one model, each has the pairs of some of the users, and all
    have the rows of all items: ``total`` is then where the sums of the others come in, and gives the same in each process. Sums
    over items' rows are the same everywhere already.

    Parameters
    ----------
    pairs : Pairs
        The pairs of this process. Users are numbered as there.
    max_pairs : int, optional
        About how many pairs a block has. By default all pairs are in one block.
    max_users : int, optional
        How many users a block has at most. By default there is no limit.
    processes : Communicator, optional
        The processes that fit one model; by default only this one. All of them must call ``total``, ``largest`` and ``agreed`` in
        the same order.

    Attributes
    ----------
    n_users, n_pairs : int
        How many there are in all processes.
    n_items : int
        How many items there are.
    device : torch.device
        That of the pairs.
    keeps_blocks : bool
        Whether blocks stay in memory. If not, each iteration makes them anew.
    is_exact : bool
        Whether sums are bit for bit the same for any number of processes.

    Examples
    --------
    The mean user row, weighted by the number of pairs, and a sum for each item:

    >>> import numpy as np, torch
    >>> from sk_torchmf.nn import Pairs, Plan
    >>> plan = Plan(Pairs(np.array([0, 0, 1]), np.array([0, 1, 1]), n_users=2, n_items=2), max_users=1)
    >>> P, value = torch.tensor([[1.0], [10.0]]), torch.tensor([1.0, 1.0, 2.0])
    >>> for rows, span, block in plan:
    ...     count = block.row_sums(torch.ones(block.n_pairs))
    ...     plan.add(count @ P[rows], block.item_sums(value[span], P[rows]))
    >>> weighted, by_item = plan.total()
    >>> weighted / plan.n_pairs, by_item
    (tensor([4.]), tensor([[ 1.],
            [21.]]))
    """

    keeps_blocks, is_exact = True, False

    def __init__(self, pairs, *, max_pairs=None, max_users=None, processes=None):
        self.pairs, self.device, self.n_items = pairs, pairs.device, pairs.shape[1]
        self.processes = ALONE if processes is None else processes
        self._limits, self._sums = (max_pairs, max_users), []
        self._blocks = self._cut()
        self.add(pairs.shape[0], pairs.n_pairs)
        self.n_users, self.n_pairs = self.total()

    def __iter__(self):
        """Go through the blocks.

        Yields
        ------
        rows : slice
            The block's users.
        span : slice
            The block's pairs, in user-major order.
        block : Pairs
            These pairs with their kernels; its user 0 is ``rows.start``.
        """
        yield from self._blocks

    def __len__(self):
        return len(self._blocks)

    def _cut(self):
        return self._cut_pairs(self.pairs, *self._limits)

    @staticmethod
    def _cut_pairs(pairs, max_pairs=None, max_users=None):
        n_users, pointers = pairs.shape[0], pairs.pointers.cpu().numpy()
        cuts = [np.array([0, n_users])]
        if max_pairs is not None:
            cuts.append(np.searchsorted(pointers, np.arange(max_pairs, pairs.n_pairs, max_pairs)))
        if max_users is not None:
            cuts.append(np.arange(max_users, n_users, max_users))
        cuts = np.unique(np.concatenate(cuts)).tolist()
        if len(cuts) <= 2:
            return [(slice(0, n_users), slice(0, pairs.n_pairs), pairs)]
        return [(slice(start, stop), *pairs.between(start, stop)) for start, stop in zip(cuts[:-1], cuts[1:], strict=True)]

    def __getitem__(self, at):
        """Return a block by its number, as iteration yields it."""
        return self._blocks[at]

    def users(self):
        """Return the users of each block, without a look at the pairs.

        Returns
        -------
        list of slice
            Of their numbers, one for each block.
        """
        return [rows for rows, _, _ in self._blocks]

    def cut(self, *, max_pairs=None, max_users=None):
        """Make the plan of the same pairs in smaller blocks.

        Parameters
        ----------
        max_pairs : int, optional
            About how many pairs a block has; no more than before.
        max_users : int, optional
            How many users a block has at most; no more than before.

        Returns
        -------
        Plan
            Of the class of this one, with an accumulator of its own.
        """
        plan = copy.copy(self)
        plan._limits = _least(self._limits[0], max_pairs), _least(self._limits[1], max_users)
        plan._sums, plan._blocks = [], self._blocks
        if plan._limits != self._limits:
            plan._blocks = plan._cut()
        return plan

    def add(self, *parts):
        """Add a block's part to each of some sums.

        Parameters
        ----------
        *parts : Tensor or number
            As many as before, and of the same shapes; they are left as they are.
        """
        self._sums = [old + new for old, new in zip(self._sums, parts, strict=True)] if self._sums else list(parts)

    def total(self):
        """Take the sums of what was added since the last time, over all blocks and all processes.

        Returns
        -------
        list of Tensor or number
            One for each part; they may be what was added.
        """
        sums, self._sums = self._sums, []
        return self.processes.all_reduce(sums)

    def total_over_users(self, function):
        """Sum over the users' rows.

        Parameters
        ----------
        function : callable
            Takes a slice of the users and returns what their rows add up to: one tensor or number for each sum.

        Returns
        -------
        list of Tensor or number
            The sums.
        """
        for rows in self.users():
            for some in cut_rows(rows.start, rows.stop):
                self.add(*function(some))
        return self.total()

    def mean_of_users(self, rows):
        """Take the mean over all users.

        Parameters
        ----------
        rows : ndarray of shape (n_users, ...)
            Numbers for each user of this process.

        Returns
        -------
        ndarray of shape (...), float64
            Over the users of all processes.
        """
        (total,) = self.total_over_users(lambda some: [torch.from_numpy(np.asarray(rows[some].sum(0, dtype=np.float64)))])
        return total.numpy() / self.n_users

    def sums(self, weight=None):
        """Sum of the pairs' weights by user and by item.

        Parameters
        ----------
        weight : Tensor of shape (n_pairs,), optional
            User-major; ones by default, so that the sums are counts.

        Returns
        -------
        tuple of Tensor of shape (n_users,) and (n_items,)
            In float64: counts stay exact. Of this process's users, and of all pairs of the items.
        """
        by_user = []
        for _, span, block in self:
            own, by_item = block.sums(None if weight is None else weight[span])
            by_user.append(own)
            self.add(by_item)
        return torch.cat(by_user), *self.total()

    def largest(self, value):
        """Find the largest of a number that each process has.

        Parameters
        ----------
        value : float
            That of this process.

        Returns
        -------
        float
            The same in all processes.
        """
        return self.processes.largest(value)

    def agreed(self, *values):
        """Take the values of the first process, for results that may differ between machines, such as the sign of an eigenvector.

        Parameters
        ----------
        *values : Tensor
            Of one dtype, and of the same shapes in all processes.

        Returns
        -------
        list of Tensor
            The same in all processes, and laid out alike whatever their number: how a product is rounded may depend on that.
        """
        if self.processes.size == 1:
            return [value.contiguous() for value in values]
        whole = self.processes.broadcast(torch.cat([value.reshape(-1) for value in values]))
        parts = whole.split([value.numel() for value in values])
        return [part.view(value.shape).clone() for part, value in zip(parts, values, strict=True)]


def cut_rows(start, stop):
    """Slices of consecutive rows, so few in each that what is worked on stays in the cache; one at least."""
    for first in range(start, max(stop, start + 1), ROWS):
        yield slice(first, min(first + ROWS, stop))


def _least(*limits):
    """The smallest of some limits, each of which may be None."""
    return min((limit for limit in limits if limit is not None), default=None)
