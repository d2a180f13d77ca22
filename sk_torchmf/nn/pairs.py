"""The engine: observed pairs as an index plan, and the sparse kernels that run on it. Knows tensors only."""

import warnings
from functools import cached_property

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F

from sk_torchmf._validation import check_n_pairs


class Pairs:
    """Which (user, item) pairs were observed, planned once for the sparse kernels.

    Values of the pairs (ratings, weights, residuals) are tensors of shape (n_pairs,) in one of two orders: *user-major*, the
    default everywhere, and *item-major*. A pair that occurs twice is two pairs.

    Parameters
    ----------
    user, item : integer ndarray of shape (n_pairs,)
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
        User-major order of the caller's values: ``values[order]``.
    pointers, columns : Tensor of shape (n_users + 1,) and (n_pairs,), int32
        The pattern in CSR form: the items of user u are ``columns[pointers[u]:pointers[u + 1]]``.

    Raises
    ------
    ValueError
        For more than 2**31 - 1 pairs.

    Notes
    -----
    Both orders come from SciPy's counting sorts, about 10 ms for a million pairs, and take 20 bytes a pair.

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
        self.n_pairs, self.shape, self.device = len(user), (int(n_users), int(n_items)), torch.device(device)
        number = np.arange(self.n_pairs, dtype=np.int32)
        index = np.asarray(user, dtype=np.int32), np.asarray(item, dtype=np.int32)
        coo = sp.coo_matrix((number, index), shape=self.shape)
        coo.has_canonical_format = True  # else tocsr() would add up the duplicates
        self._by_user = coo.tocsr()
        self.order = self._tensor(self._by_user.data.copy())
        self._by_user.data = number
        self.pointers, self.columns = self._tensor(self._by_user.indptr), self._tensor(self._by_user.indices)

    def _tensor(self, array):
        return torch.from_numpy(array).to(self.device)

    @cached_property
    def item_major(self):
        """The transposed pattern: item-major pointers (n_items + 1,), users (n_pairs,) and item-major order (n_pairs,), int32."""
        by_item = self._by_user.tocsc()
        return self._tensor(by_item.indptr), self._tensor(by_item.indices), self._tensor(by_item.data)

    @cached_property
    def users(self):
        """The user of each pair, shape (n_pairs,), int32, user-major."""
        numbers = torch.arange(self.shape[0], dtype=torch.int32, device=self.device)
        return torch.repeat_interleave(numbers, self.pointers.diff().long(), output_size=self.n_pairs)

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
            return self.pointers.diff().double(), self.item_major[0].diff().double()
        weight = weight.double()
        return tuple(
            torch.zeros(n, dtype=weight.dtype, device=weight.device).index_add_(0, row, weight)
            for n, row in zip(self.shape, (self.users, self.columns), strict=True)
        )

    def blocks(self, size):
        """Cut the pairs into blocks of whole users with about ``size`` pairs each.

        Yields
        ------
        rows : slice
            The block's users.
        span : slice
            The block's pairs, in user-major order.
        block : Pairs
            Their plan; user 0 is ``rows.start``.
        """
        pointers = self._by_user.indptr
        cuts = np.searchsorted(pointers, np.arange(size, self.n_pairs, size))
        cuts = np.unique(np.concatenate([[0], cuts, [self.shape[0]]]))
        for start, stop in zip(cuts[:-1], cuts[1:], strict=True):
            rows, span = slice(int(start), int(stop)), slice(int(pointers[start]), int(pointers[stop]))
            if span.stop > span.start:
                user = np.repeat(np.arange(stop - start, dtype=np.int32), np.diff(pointers[start : stop + 1]))
                yield rows, span, Pairs(user, self._by_user.indices[span], stop - start, self.shape[1], self.device)

    def dots(self, P, Q):
        """``P[user] . Q[item]`` at each pair (SDDMM): shape (n_pairs,), user-major; nothing of size n_pairs x k is made."""
        if self.n_pairs > self.shape[0] * self.shape[1]:  # repeated pairs, more than sampled_addmm takes; small by definition
            return (P @ Q.t())[self.users.long(), self.columns.long()]
        zeros = torch.zeros(self.n_pairs, dtype=P.dtype, device=P.device)
        with warnings.catch_warnings():  # torch calls its CSR layout beta, once a process
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
            pattern = torch.sparse_csr_tensor(self.pointers, self.columns, zeros, self.shape, check_invariants=False)
        return torch.sparse.sampled_addmm(pattern, P, Q.t(), beta=0.0).values()

    def user_sums(self, value, Q):
        """``sum_i value_ui Q[i]`` for each user (SpMM): shape (n_users, k)."""
        return _bags(self.columns, Q, self.pointers, value)

    def item_sums(self, value, P):
        """``sum_u value_ui P[u]`` for each item (SpMM): shape (n_items, k)."""
        pointers, users, order = self.item_major
        return _bags(users, P, pointers, value.index_select(0, order))


def _bags(columns, rows, pointers, value):
    return F.embedding_bag(columns, rows, pointers, mode="sum", per_sample_weights=value, include_last_offset=True)


class _PairDot(torch.autograd.Function):
    @staticmethod
    def forward(ctx, P, Q, pairs):
        ctx.save_for_backward(P, Q)
        ctx.pairs = pairs
        return pairs.dots(P, Q)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        P, Q = ctx.saved_tensors
        gradient = gradient.contiguous()
        by_user, by_item = ctx.needs_input_grad[:2]
        return (
            ctx.pairs.user_sums(gradient, Q) if by_user else None,
            ctx.pairs.item_sums(gradient, P) if by_item else None,
            None,
        )


def pair_dot(P, Q, pairs):
    r"""Inner products of user and item rows at the observed pairs, differentiable.

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

    Returns
    -------
    Tensor of shape (n_pairs,)
        :math:`p_u \cdot q_i` for each pair, user-major. Once differentiable.

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
    return _PairDot.apply(P, Q, pairs)
