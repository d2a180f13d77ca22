"""What a half-step sums over each row's pairs, in one pass and with no number kept for a pair. Knows tensors only."""

from typing import NamedTuple

import torch
from torch import Tensor

from sk_torchmf.nn import kernels


class RowSums(NamedTuple):
    """What the pairs of each row say of it.

    Attributes
    ----------
    slopes : Tensor of shape (n_rows, k)
        The other side's rows, summed with the weighted errors.
    slope : Tensor of shape (n_rows,)
        The weighted errors, summed.
    square : Tensor of shape (n_rows,)
        Their weighted squares, summed.
    """

    slopes: Tensor
    slope: Tensor
    square: Tensor


def error_sums(pairs, P, Q, rating, weight=None, b=None, c=None):
    r"""Sum over each row's pairs the errors :math:`e = p \cdot q + b + c - r` of scores.

    Parameters
    ----------
    pairs : Pairs
    P, Q : Tensor of shape (n_rows, k) and (n_columns, k)
        Of a floating dtype, on the device of the pairs.
    rating : Tensor of shape (n_pairs,)
        In the pairs' order.
    weight : Tensor of shape (n_pairs,), optional
        >= 0; ones by default.
    b, c : Tensor of shape (n_rows,) and (n_columns,), optional
        Biases; zeros by default.

    Returns
    -------
    RowSums
        :math:`\sum w e q`, :math:`\sum w e` and :math:`\sum w e^2`.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from sk_torchmf.nn import Pairs
    >>> from sk_torchmf.nn.row_sums import error_sums
    >>> pairs = Pairs(np.array([0, 0]), np.array([0, 1]), n_users=1, n_items=2)
    >>> error_sums(pairs, torch.tensor([[2.0]]), torch.tensor([[1.0], [3.0]]), torch.tensor([1.0, 4.0]))
    RowSums(slopes=tensor([[7.]]), slope=tensor([3.]), square=tensor([5.]))
    """
    if kernels.serve(pairs, P, Q, of_pairs=(rating, weight), of_rows=[b], of_columns=[c]):
        k = P.shape[1]
        P, Q = kernels.padded(P), kernels.padded(Q)
        found = RowSums(torch.empty_like(P), P.new_empty(P.shape[0]), P.new_empty(P.shape[0]))
        kernels.call("gradient", pairs, P, Q, (b, c, rating, weight), found)
        return found if P.shape[1] == k else found._replace(slopes=found.slopes[:, :k])
    error = pairs.dots(P, Q, add_to=-rating if b is None else pairs.expand(b).sub_(rating))
    if c is not None:
        error.add_(c.index_select(0, pairs.columns))
    slope = error if weight is None else error * weight
    slopes, sums = pairs.user_sums(slope, Q.contiguous()), pairs.row_sums(slope)
    return RowSums(slopes, sums, pairs.row_sums(error.mul_(slope)))


def square_sums(pairs, P, Q, weight=None, b=None):
    r"""Sum over each row's pairs the squares of moves of scores, :math:`w (p \cdot q + b)^2`.

    Parameters
    ----------
    pairs : Pairs
    P, Q : Tensor of shape (n_rows, k) and (n_columns, k)
        How rows move, and the other side's rows.
    weight : Tensor of shape (n_pairs,), optional
        In the pairs' order, >= 0; ones by default.
    b : Tensor of shape (n_rows,), optional
        How the rows' biases move; zeros by default.

    Returns
    -------
    Tensor of shape (n_rows,)

    Examples
    --------
    >>> import numpy as np, torch
    >>> from sk_torchmf.nn import Pairs
    >>> from sk_torchmf.nn.row_sums import square_sums
    >>> pairs = Pairs(np.array([0, 0]), np.array([0, 1]), n_users=1, n_items=2)
    >>> square_sums(pairs, torch.tensor([[2.0]]), torch.tensor([[1.0], [3.0]]), b=torch.tensor([1.0]))
    tensor([58.])
    """
    if kernels.serve(pairs, P, Q, of_pairs=[weight], of_rows=[b]):
        found = P.new_empty(P.shape[0])
        kernels.call("squares", pairs, kernels.padded(P), kernels.padded(Q), (b, weight), [found])
        return found
    move = pairs.dots(P.contiguous(), Q.contiguous(), add_to=None if b is None else pairs.expand(b))
    return pairs.row_sums(move.square_() if weight is None else move.square_().mul_(weight))
