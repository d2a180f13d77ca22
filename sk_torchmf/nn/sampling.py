"""Draws negatives: items that a user does not have, uniformly or by popularity. Knows arrays only."""

import numpy as np
import scipy.sparse as sp
import torch

POPULARITY_POWER = 0.75  # of an item's count, as Mikolov et al. 2013 draw words
FILTER = 8  # places at least, for each pair that was seen, in a table of one byte each
ROUNDS = 8  # of rejection, before what is left is drawn from a list of what the user has not


class NegativeSampler:
    """Draw negatives: items that a user does not have.

    Parameters
    ----------
    seen : CSR array of shape (n_users, n_items)
        The stored entries are the items that users have, which are never drawn for them.
    popularity : bool, default=False
        Draw an item with a probability proportional to its number of users to the power 0.75 [1]_, instead of all items with the
        same probability.
    item_counts : ndarray of shape (n_items,), optional
        How many users each item has, for ``popularity``; by default as counted in ``seen``.
    generator : torch.Generator, optional
        A generator on the CPU. Negatives are drawn there and then moved, so that all devices draw the same.
    device : torch.device or str, default="cpu"
        The device of the result.
    uniform : callable, optional
        Where draws come from instead of ``generator``: takes places (n,), int64, and the number of a round, from 0, and returns
        uniform numbers from 0 to 1, float64. The places are those of the negatives that a call of ``draw`` asks for, one row's
        after another's; what was seen is drawn anew in the next round.

    Attributes
    ----------
    share : ndarray of shape (n_items,), float64
        The probability of each item, up to a common factor.
    total : ndarray of shape (n_users,), float64
        For each user the sum of ``share`` over the items that the user does not have; 0 for a user who has all.
    n_unobserved : ndarray of shape (n_users,), int64
        How many items each user does not have.

    References
    ----------
    .. [1] Mikolov et al., Distributed Representations of Words and Phrases and their Compositionality, NIPS 2013.

    Examples
    --------
    >>> import scipy.sparse as sp, torch
    >>> from sk_torchmf.nn import NegativeSampler
    >>> seen = sp.csr_array([[1, 0, 1], [0, 1, 1]])
    >>> NegativeSampler(seen).draw(torch.tensor([0, 1, 0]), 2)
    tensor([[1, 1],
            [0, 0],
            [1, 1]])
    """

    def __init__(self, seen, *, popularity=False, item_counts=None, generator=None, device="cpu", uniform=None):
        seen = sp.csr_array(seen)
        if not seen.has_canonical_format:
            seen = seen.copy()
            seen.sum_duplicates()
        self.seen, self.generator, self.device, self.uniform = seen, generator, device, uniform
        n_users, self.n_items = seen.shape
        counts = np.diff(seen.indptr)
        self.n_unobserved = self.n_items - counts.astype(np.int64)
        user = np.repeat(np.arange(n_users), counts)
        self.share = np.ones(self.n_items)
        if popularity:  # an item that no user has is not known, and never drawn
            item_counts = np.bincount(seen.indices, minlength=self.n_items) if item_counts is None else item_counts
            self.share = item_counts**POPULARITY_POWER
        own = np.bincount(user, self.share[seen.indices], n_users)
        drawable = np.count_nonzero(self.share) - counts  # all items of one's own are among those with a share
        self.total = np.where(drawable > 0, self.share.sum() - own, 0.0)
        self._limits = torch.from_numpy(np.cumsum(self.share)) if popularity else None
        self._keys = torch.from_numpy(user * self.n_items + seen.indices)
        self._mask = 2 ** (FILTER * max(seen.nnz, 1)).bit_length() - 1
        self._filter = torch.zeros(self._mask + 1, dtype=torch.bool, device="cpu")
        self._filter[self._keys & self._mask] = True

    def draw(self, user, n_negatives):
        """Draw negatives for each of some users.

        Parameters
        ----------
        user : Tensor of shape (n,), int64
            Row numbers of users.
        n_negatives : int
            How many negatives to draw for each of them.

        Returns
        -------
        Tensor of shape (n, n_negatives), int64
            Item numbers, on the sampler's device. Draws are independent, so the same item may occur twice.

        Raises
        ------
        ValueError
            If a user has every item that can be drawn.
        """
        user = user.cpu()
        if not self.total.all() and not (known := torch.from_numpy(self.total)[user] > 0).all():
            at = int(user[~known][0])
            raise ValueError(f"User {at} has every item that can be drawn, so there are no negatives. Leave this user out.")
        rows = user.repeat_interleave(n_negatives)
        drawn = self._propose(torch.arange(len(rows), device="cpu"), 0)
        todo = self.find_seen(rows, drawn)
        for number in range(1, ROUNDS + 1):
            if len(todo) == 0:
                break
            drawn[todo] = self._propose(todo, number)
            todo = todo[self.find_seen(rows[todo], drawn[todo])]
        if len(todo):
            self._draw_from_rest(rows, drawn, todo)
        return drawn.view(len(user), n_negatives).to(self.device)

    def _propose(self, places, number):
        if self._limits is not None:
            return self._draw_by(self._limits, places, number)
        if self.uniform is not None:
            return (self.uniform(places, number) * self.n_items).long().clamp_max_(self.n_items - 1)
        return torch.randint(self.n_items, (len(places),), generator=self.generator, device="cpu")

    def _draw_by(self, limits, places, number):
        """Places (n,) in a row of cumulated shares, each drawn with the chance of its share."""
        if self.uniform is None:
            drawn = torch.rand(len(places), generator=self.generator, dtype=torch.float64, device="cpu")
        else:
            drawn = self.uniform(places, number)
        drawn = drawn * limits[-1]
        return torch.searchsorted(limits, drawn, right=True).clamp_max_(len(limits) - 1)

    def find_seen(self, user, item):
        """Find which of some pairs were seen.

        Parameters
        ----------
        user : Tensor of shape (n,), int64
            Row numbers, on the CPU.
        item : Tensor of shape (n,), int64
            Column numbers, on the CPU.

        Returns
        -------
        Tensor of shape (m,), int64
            The positions of the pairs that were seen, ascending.
        """
        if len(self._keys) == 0:
            return torch.empty(0, dtype=torch.int64, device="cpu")
        key = user * self.n_items + item
        places = torch.nonzero(self._filter[key & self._mask])[:, 0]  # all that were seen, and a few more: spares most the search
        key = key[places]
        at = torch.searchsorted(self._keys, key).clamp_max_(len(self._keys) - 1)
        return places[self._keys[at] == key]

    def _draw_from_rest(self, rows, drawn, todo):
        """Draw for users who have nearly everything, from a list of what they have not."""
        pointers, columns = self.seen.indptr, self.seen.indices
        for user in torch.unique(rows[todo]).tolist():
            share = self.share.copy()
            share[columns[pointers[user] : pointers[user + 1]]] = 0.0
            rest = np.flatnonzero(share)
            places = todo[rows[todo] == user]
            limits = torch.from_numpy(np.cumsum(share[rest]))
            drawn[places] = torch.from_numpy(rest)[self._draw_by(limits, places, ROUNDS + 1)]
