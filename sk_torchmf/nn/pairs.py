"""The engine: observed pairs as an index plan, and the sparse kernels that run on it. Knows tensors only."""

import itertools
from functools import cached_property

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F

from sk_torchmf._validation import check_n_pairs
from sk_torchmf.nn import kernels

CHUNK = 2**20  # pairs worked on at once
LARGE = 2**22  # pairs, beyond which what is made and kept of them is to be small


class Pairs:
    """Which (user, item) pairs were observed, planned once for the sparse kernels.

    Values of the pairs (ratings, weights, residuals) are tensors of shape (n_pairs,) in one of two orders: *user-major*, the
    default everywhere, and *item-major*. A pair that occurs twice is two pairs.

    Parameters
    ----------
    user, item : ndarray of shape (n_pairs,), int
        Row and column numbers, in any order.
    n_users, n_items : int
        Sizes; the numbers must be below them.
    device : torch.device or str, default="cpu"
        Where the plan lives and the kernels run.

    Attributes
    ----------
    n_pairs : int
    shape : tuple
        ``(n_users, n_items)``.
    order : Tensor of shape (n_pairs,), int32
        User-major order of the caller's values: ``values[order]``. A user's pairs are in the order of their items, and those of one
        item in the caller's.
    pointers, columns : Tensor of shape (n_users + 1,) and (n_pairs,), int32
        The pattern in CSR form: the items of user u are ``columns[pointers[u]:pointers[u + 1]]``.

    Raises
    ------
    ValueError
        For more than 2**31 - 1 pairs.

    Notes
    -----
    Both orders come from SciPy's counting sorts, about 10 ms each for a million pairs, and take 20 bytes a pair: 8 of them for the
    transposed pattern, which is made when it is asked for, and 4 for ``inverse_order``. Many pairs are sorted a part at a time, so
    that nothing else of their length is needed meanwhile.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from sk_torchmf.nn import Pairs, pair_dot
    >>> pairs = Pairs(np.array([1, 0, 1]), np.array([0, 2, 1]), n_users=2, n_items=3)
    >>> P, Q = torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [10.0], [100.0]])
    >>> pair_dot(P, Q, pairs)  # pairs (0, 2), (1, 0), (1, 1)
    tensor([100.,   2.,  20.])
    """

    def __init__(self, user, item, n_users, n_items, device="cpu"):
        check_n_pairs(len(user))
        shape, sort = (int(n_users), int(n_items)), _sorted_at_once if len(user) <= LARGE else _sorted_in_parts
        parts = (torch.from_numpy(array).to(device) for array in sort(np.asarray(user), np.asarray(item), shape))
        self._keep(shape, *parts)

    @classmethod
    def from_rows(cls, pointers, columns, n_items):
        """Plan pairs that are user-major already.

        Parameters
        ----------
        pointers : Tensor of shape (n_users + 1,), int32
            The items of user u are ``columns[pointers[u]:pointers[u + 1]]``.
        columns : Tensor of shape (n_pairs,), int32
            The items, on the device of ``pointers``.
        n_items : int
            How many there are; the numbers must be below it.

        Returns
        -------
        Pairs
            On the device of ``columns``.
        """
        check_n_pairs(len(columns))
        pointers, columns = (part.to(torch.int32).contiguous() for part in (pointers, columns))
        return cls._of((len(pointers) - 1, n_items), pointers, columns)

    def _keep(self, shape, pointers, columns, order=None):
        self.shape, self.pointers, self.columns = shape, pointers, columns
        self.n_pairs, self.device = len(columns), columns.device
        if order is not None:
            self.order = order

    @classmethod
    def _of(cls, *parts):
        pairs = object.__new__(cls)
        pairs._keep(*parts)
        return pairs

    @cached_property
    def order(self):
        """Where each pair was in the arrays that were given, user-major: one after the other, where they were so already."""
        return torch.arange(self.n_pairs, dtype=torch.int32, device=self.device)

    @cached_property
    def T(self):
        """The plan of the transposed pattern; ``T.order`` takes user-major values to item-major order. It is kept."""
        return self.transposed()

    def transposed(self):
        """Make the plan of the transposed pattern, of which nothing is kept here.

        Returns
        -------
        Pairs
            Its ``order`` takes user-major values to item-major order.
        """
        number = np.arange(self.n_pairs, dtype=np.int32)
        by_user = sp.csr_matrix((number, self.columns.cpu().numpy(), self.pointers.cpu().numpy()), shape=self.shape)
        by_item = by_user.tocsc()  # a counting sort
        parts = (torch.from_numpy(array).to(self.device) for array in (by_item.indptr, by_item.indices, by_item.data))
        return self._of(self.shape[::-1], *parts)

    @cached_property
    def inverse_order(self):
        """The permutation that undoes ``order``, shape (n_pairs,), int32."""
        inverse = torch.empty_like(self.order)
        numbers = torch.arange(self.n_pairs, dtype=torch.int32, device=self.device)
        for start in range(0, self.n_pairs, CHUNK):  # the int64 indices that torch wants, a part at a time
            inverse[self.order[start : start + CHUNK].long()] = numbers[start : start + CHUNK]
        return inverse

    @cached_property
    def users(self):
        """The user of each pair, shape (n_pairs,), int32, user-major."""
        numbers = torch.arange(self.shape[0], dtype=torch.int32, device=self.device)
        return self.expand(numbers)

    def expand(self, value):
        """Give each pair the value of its user.

        Parameters
        ----------
        value : Tensor of shape (n_users,)
            A value for each user.

        Returns
        -------
        Tensor of shape (n_pairs,)
            User-major.
        """
        if value.is_cuda:
            return torch.repeat_interleave(value, self.pointers.diff(), output_size=self.n_pairs)
        return torch.from_numpy(np.repeat(value.numpy(), np.diff(self.pointers.numpy())))  # five times as fast there

    def sums(self, weight=None):
        """Sum of the pairs' weights by user and by item.

        Parameters
        ----------
        weight : Tensor of shape (n_pairs,), optional
            User-major; ones by default, so that the sums are counts.

        Returns
        -------
        tuple of Tensor of shape (n_users,) and (n_items,)
            In float64: counts stay exact.
        """
        if weight is None:
            return self.pointers.diff().double(), self._item_counts().double()
        if self.n_pairs <= LARGE:
            return self._weight_sums(self.T, weight.double())
        of_users, of_items = (torch.zeros(n, dtype=torch.float64, device=self.device) for n in self.shape)
        for rows, span, block in self.blocks(CHUNK):
            of_users[rows], by_item = block._weight_sums(block.transposed(), weight[span].double())
            of_items += by_item
        return of_users, of_items

    def _weight_sums(self, transposed, weight):
        return self.row_sums(weight), transposed.row_sums(weight.index_select(0, transposed.order))

    def _item_counts(self):
        """How many pairs each item has, int64 or int32."""
        if "T" in vars(self):
            return self.T.pointers.diff()
        counts = torch.zeros(self.shape[1], dtype=torch.int64, device=self.device)
        for some in self.columns.split(CHUNK):
            counts += torch.bincount(some, minlength=self.shape[1])
        return counts

    def blocks(self, size):
        """Cut the pairs into blocks of whole users, on the same storage.

        Parameters
        ----------
        size : int
            About how many pairs a block has.

        Yields
        ------
        rows : slice
            The block's users.
        span : slice
            The block's pairs, in user-major order.
        block : Pairs
            Their plan; user 0 is ``rows.start``.
        """
        pointers = self.pointers.cpu().numpy()
        yield from self._cut(pointers, _block_edges(pointers, size))

    def blocks_of_users(self, n):
        """Cut the pairs into blocks of n users, on the same storage.

        Parameters
        ----------
        n : int
            How many users a block has, but for the last. A block without pairs is left out.

        Yields
        ------
        rows : slice
            The block's users.
        span : slice
            The block's pairs, in user-major order.
        block : Pairs
            Their plan; user 0 is ``rows.start``.
        """
        yield from self._cut(self.pointers.cpu().numpy(), np.append(np.arange(0, self.shape[0], n), self.shape[0]))

    def _cut(self, pointers, cuts):
        for start, stop in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
            if pointers[stop] > pointers[start]:
                yield slice(start, stop), *self.between(start, stop)

    def between(self, start, stop):
        """Take the pairs of consecutive users, on the same storage.

        Parameters
        ----------
        start, stop : int
            The first of the users, and the first after them.

        Returns
        -------
        span : slice
            Their pairs, in user-major order.
        block : Pairs
            The plan of these; user 0 is ``start``.
        """
        span = slice(int(self.pointers[start]), int(self.pointers[stop]))
        pointers = self.pointers[start : stop + 1] - span.start
        return span, self._of((stop - start, self.shape[1]), pointers, self.columns[span])

    def of_users(self, users):
        """Find the pairs of some users.

        Parameters
        ----------
        users : Tensor of shape (b,), int64
            Row numbers.

        Returns
        -------
        place : Tensor of shape (m,), int64
            The places of their pairs in user-major order, one user's after another's.
        number : Tensor of shape (m,), int64
            Whose each is, as a place in ``users``.
        """
        lengths = self.pointers.diff()[users].long()
        first = self.pointers[users] - (lengths.cumsum(0) - lengths)  # of each user's pairs, less their place among all found
        number = torch.repeat_interleave(torch.arange(len(users), device=users.device), lengths)
        return torch.arange(len(number), device=users.device) + first[number], number

    def compressed(self, items=None):
        """Leave out users and items without pairs.

        Parameters
        ----------
        items : ndarray of shape (n_known_items,), int, optional
            Which items are to stay, sorted, where another process has pairs of some that have none here.

        Returns
        -------
        pairs : Pairs
            The same pairs in the same orders; itself where no user and no item is left out.
        users, items : ndarray of shape (n_known_users,) and (n_known_items,)
            The numbers here of its users and items.
        """
        users = torch.nonzero(self.pointers.diff())[:, 0]
        items = torch.nonzero(self._item_counts())[:, 0] if items is None else torch.from_numpy(items).to(self.device)
        shape = len(users), len(items)
        pairs = self
        if shape != self.shape:
            number = torch.zeros(self.shape[1], dtype=torch.int32, device=self.device)
            number[items] = torch.arange(len(items), dtype=torch.int32, device=self.device)
            pointers = torch.cat([self.pointers[users], self.pointers[-1:]])
            pairs = self._of(shape, pointers, number.index_select(0, self.columns), vars(self).get("order"))
        return pairs, users.cpu().numpy(), items.cpu().numpy()

    def tocsr(self):
        """Return the pattern as a SciPy array.

        Returns
        -------
        scipy.sparse.csr_array of shape (n_users, n_items), bool
            A pair that occurs twice is stored once.
        """
        parts = (part.cpu().numpy() for part in (self.T.columns, self.T.pointers))
        by_item = sp.csc_array((np.ones(self.n_pairs, dtype=bool), *parts), shape=self.shape)
        pattern = by_item.tocsr()  # a counting sort, after which each row is in order
        pattern.sum_duplicates()
        return pattern

    def dots(self, P, Q, add_to=None):
        """Multiply user rows by item rows at each pair (SDDMM); nothing of size n_pairs x k is made.

        Parameters
        ----------
        P : Tensor of shape (n_users, k)
            User rows, float32 or float64, on the plan's device.
        Q : Tensor of shape (n_items, k)
            Item rows, of the same dtype and device.
        add_to : Tensor of shape (n_pairs,), optional
            User-major; the products are added to it in place.

        Returns
        -------
        Tensor of shape (n_pairs,)
            ``P[user] . Q[item]``, user-major; ``add_to`` where it is given.
        """
        dots = P.new_zeros(self.n_pairs) if add_to is None else add_to
        if dots.is_contiguous() and kernels.serve(self, P, Q, of_pairs=[dots]):
            kernels.call("dots", self, kernels.padded(P), kernels.padded(Q), (), [dots])
            return dots
        if self.n_pairs > self.shape[0] * self.shape[1]:  # repeated pairs, more than sampled_addmm takes; small by definition
            return dots.add_((P @ Q.t())[self.users.long(), self.columns.long()])
        matrix = self._matrix(dots)
        torch.sparse.sampled_addmm(matrix, P, Q.t(), out=matrix)  # out of place it would copy the pattern too
        return dots

    def row_sums(self, value):
        """Sum a value of the pairs by user.

        Parameters
        ----------
        value : Tensor of shape (n_pairs,)
            User-major.

        Returns
        -------
        Tensor of shape (n_users,)
            ``sum_i value_ui``, in the dtype of ``value``.
        """
        if value.is_cuda or torch.backends.mkl.is_available():
            return self._matrix(value) @ torch.ones(self.shape[1], dtype=value.dtype, device=value.device)
        ones = torch.ones(self.shape[1], 1, dtype=value.dtype, device=value.device)
        return self.user_sums(value, ones)[:, 0]

    def user_sums(self, value, Q):
        """Sum item rows by user, weighted by a value of the pairs (SpMM).

        Parameters
        ----------
        value : Tensor of shape (n_pairs,)
            User-major.
        Q : Tensor of shape (n_items, k)
            Item rows, of the same dtype and device.

        Returns
        -------
        Tensor of shape (n_users, k)
            ``sum_i value_ui Q[i]``.
        """
        return F.embedding_bag(self.columns, Q, self.pointers, mode="sum", per_sample_weights=value, include_last_offset=True)

    def item_sums(self, value, P):
        """Sum user rows by item, weighted by a value of the pairs (SpMM).

        Parameters
        ----------
        value : Tensor of shape (n_pairs,)
            User-major, as elsewhere.
        P : Tensor of shape (n_users, k)
            User rows, of the same dtype and device.

        Returns
        -------
        Tensor of shape (n_items, k)
            ``sum_u value_ui P[u]``.
        """
        return self.T.user_sums(value.index_select(0, self.T.order), P)

    def _matrix(self, value):
        return torch.sparse_csr_tensor(self.pointers, self.columns, value, self.shape, device=value.device, check_invariants=False)


def _block_edges(pointers, size):
    """Where blocks of whole users with about so many pairs begin and end; an ndarray of int."""
    cuts = np.searchsorted(pointers, np.arange(size, pointers[-1], size))
    return np.unique(np.concatenate([[0], cuts, [len(pointers) - 1]]))


def _sorted_at_once(user, item, shape):
    """Pointers, columns and order of ``Pairs``: a counting sort by item, then one by user."""
    index = np.asarray(user, dtype=np.int32), np.asarray(item, dtype=np.int32)
    pattern = sp.coo_matrix((np.arange(len(user), dtype=np.int32), index), shape=shape)
    pattern.has_canonical_format = True  # else tocsc() would add up the duplicates
    pattern = pattern.tocsc()
    pattern = pattern.tocsr()  # counting sorts both, after which each row is in order
    return pattern.indptr, pattern.indices, pattern.data


def _sorted_in_parts(user, item, shape):
    """The same, a part of the caller's pairs after another: each by user, put where they belong; then blocks of users by item."""
    for index, n, role in ((user, shape[0], "user"), (item, shape[1], "item")):
        if index.min() < 0 or index.max() >= n:  # as SciPy finds of what it is given whole
            raise ValueError(f"{role} must be numbers from 0 to n_{role}s - 1 = {n - 1}. Got {index.min()} to {index.max()}.")
    n_pairs, n_users, size = len(user), shape[0], max(CHUNK, shape[0])
    parts = [slice(start, min(start + size, n_pairs)) for start in range(0, n_pairs, size)]
    pointers = np.zeros(n_users + 1, dtype=np.int64)
    for some in parts:
        pointers[1:] += np.bincount(user[some], minlength=n_users)
    np.cumsum(pointers, out=pointers)
    columns, order, following = np.empty(n_pairs, dtype=np.int32), np.empty(n_pairs, dtype=np.int32), pointers[:-1].copy()
    for some in parts:
        numbers = np.arange(some.stop - some.start, dtype=np.int32)
        index = user[some].astype(np.int32), numbers
        part = sp.coo_matrix((np.zeros(len(numbers), dtype=bool), index), shape=(n_users, len(numbers)))
        part.has_canonical_format = True
        part = part.tocsr()  # whose columns are the order of its pairs
        lengths = np.diff(part.indptr)
        place = np.repeat(following - part.indptr[:-1], lengths)
        place += numbers
        columns[place], order[place] = item[some][part.indices], part.indices + np.int32(some.start)
        following += lengths
    pointers = pointers.astype(np.int32)
    for start, stop in itertools.pairwise(_block_edges(pointers, size)):
        span = slice(pointers[start], pointers[stop])
        block = sp.csr_matrix((order[span], columns[span], pointers[start : stop + 1] - span.start), shape=(stop - start, shape[1]))
        block = block.tocsc().tocsr()
        columns[span], order[span] = block.indices, block.data
    return pointers, columns, order


class _PairDot(torch.autograd.Function):
    @staticmethod
    def forward(ctx, P, Q, b_u, b_i, pairs):
        ctx.save_for_backward(P, Q)
        ctx.pairs = pairs
        start = None if b_u is None else pairs.expand(b_u)
        if b_i is not None:
            of_items = b_i.index_select(0, pairs.columns)
            start = of_items if start is None else start.add_(of_items)
        return pairs.dots(P, Q, add_to=start)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        P, Q = ctx.saved_tensors
        pairs, needs = ctx.pairs, ctx.needs_input_grad
        gradient = gradient.contiguous()
        by_item = gradient.index_select(0, pairs.T.order) if needs[1] or needs[3] else None
        return (
            pairs.user_sums(gradient, Q) if needs[0] else None,
            pairs.T.user_sums(by_item, P) if needs[1] else None,
            pairs.row_sums(gradient) if needs[2] else None,
            pairs.T.row_sums(by_item) if needs[3] else None,
            None,
        )


def pair_dot(P, Q, pairs, b_u=None, b_i=None):
    r"""Inner products of user and item rows at the observed pairs, plus biases, differentiable.

    Forward is a sampled dense-dense product, the gradients are two sparse-dense products; neither ``P[user]`` nor ``Q[item]`` is
    ever formed.

    Parameters
    ----------
    P : Tensor of shape (n_users, k)
        Float32 or float64, on the plan's device.
    Q : Tensor of shape (n_items, k)
        Of the same dtype and device.
    pairs : Pairs
        Which pairs were observed.
    b_u : Tensor of shape (n_users,), optional
        Biases of the users; they ride along at the price of a sum.
    b_i : Tensor of shape (n_items,), optional
        Biases of the items.

    Returns
    -------
    Tensor of shape (n_pairs,)
        :math:`p_u \cdot q_i + b_u + b_i` for each pair, user-major. Once differentiable.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from sk_torchmf.nn import Pairs, pair_dot
    >>> pairs = Pairs(np.array([0, 0]), np.array([0, 1]), n_users=1, n_items=2)
    >>> P = torch.ones(1, 2, requires_grad=True)
    >>> pair_dot(P, torch.tensor([[1.0, 2.0], [3.0, 4.0]]), pairs).sum().backward()
    >>> P.grad
    tensor([[4., 6.]])
    """
    return _PairDot.apply(P, Q, b_u, b_i, pairs)
