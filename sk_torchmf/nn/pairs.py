"""The engine: observed pairs as an index plan, and the sparse kernels that run on it. Knows tensors only."""

from functools import cached_property

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F

from sk_torchmf._validation import check_n_pairs
from sk_torchmf.nn import kernels

CHUNK = 2**20


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
    Both orders come from SciPy's counting sorts, about 10 ms each for a million pairs, and take 20 bytes a pair.

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
        index = np.asarray(user, dtype=np.int32), np.asarray(item, dtype=np.int32)
        pattern = sp.coo_matrix((np.arange(len(user), dtype=np.int32), index), shape=(int(n_users), int(n_items)))
        pattern.has_canonical_format = True  # else tocsc() would add up the duplicates
        pattern = pattern.tocsc()
        pattern = pattern.tocsr()  # counting sorts both, after which each row is in order
        parts = (torch.from_numpy(array).to(device) for array in (pattern.indptr, pattern.indices, pattern.data))
        self._keep(pattern.shape, *parts)

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
        order = torch.arange(len(columns), dtype=torch.int32, device=columns.device)
        return cls._of((len(pointers) - 1, n_items), pointers, columns, order)

    def _keep(self, shape, pointers, columns, order):
        self.shape, self.pointers, self.columns, self.order = shape, pointers, columns, order
        self.n_pairs, self.device = len(columns), columns.device

    @classmethod
    def _of(cls, *parts):
        pairs = object.__new__(cls)
        pairs._keep(*parts)
        return pairs

    @cached_property
    def T(self):
        """The plan of the transposed pattern; ``T.order`` takes user-major values to item-major order."""
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
            return self.pointers.diff().double(), self.T.pointers.diff().double()
        weight = weight.double()
        return self.row_sums(weight), self.T.row_sums(weight.index_select(0, self.T.order))

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
        cuts = np.searchsorted(pointers, np.arange(size, self.n_pairs, size))
        yield from self._cut(pointers, np.unique(np.concatenate([[0], cuts, [self.shape[0]]])))

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
        order = torch.arange(span.stop - span.start, dtype=torch.int32, device=self.device)
        pointers = self.pointers[start : stop + 1] - span.start
        return span, self._of((stop - start, self.shape[1]), pointers, self.columns[span], order)

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

    def compressed(self):
        """Leave out users and items without pairs.

        Returns
        -------
        pairs : Pairs
            The same pairs in the same orders; itself where no user and no item is without.
        users, items : ndarray of shape (n_known_users,) and (n_known_items,)
            The numbers here of its users and items.
        """
        users, items = (torch.nonzero(plan.pointers.diff())[:, 0] for plan in (self, self.T))
        shape = len(users), len(items)
        pairs = self
        if shape != self.shape:
            pairs = self._without_empty(users, items, self.shape[1])
            pairs.T = self.T._without_empty(items, users, self.shape[0])
        return pairs, users.cpu().numpy(), items.cpu().numpy()

    def _without_empty(self, rows, columns, n_columns):
        number = torch.zeros(n_columns, dtype=torch.int32, device=self.device)
        number[columns] = torch.arange(len(columns), dtype=torch.int32, device=self.device)
        pointers = torch.cat([self.pointers[rows], self.pointers[-1:]])
        return self._of((len(rows), len(columns)), pointers, number.index_select(0, self.columns), self.order)

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
        if kernels.serve(P) and dots.is_contiguous():
            kernels.call("dots", self, kernels.padded(P), kernels.padded(Q), dots)
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
