"""The best k of many scores, with ties in a defined order. Knows arrays only."""

import numpy as np
import torch

from sk_torchmf._forks import one_thread_if_forked
from sk_torchmf._validation import check_memory

BLOCK = 2**20  # scores held at once: 8 MiB in float64


@one_thread_if_forked
def top_k(scores, k, *, exact=False):
    """Columns of the k highest scores of each row, ties by column number.

    Parameters
    ----------
    scores : Tensor of shape (n, m)
        Compared in float32, so that rounding in the last bits of float64 breaks no tie; -inf is never chosen before a number.
    k : int
        At most m.
    exact : bool, default=False
        Compare scores as they are instead.

    Returns
    -------
    Tensor of shape (n, k), int64
        Best first.

    Examples
    --------
    >>> import torch
    >>> from sk_torchmf.nn.top_k import top_k
    >>> top_k(torch.tensor([[1.0, 3.0, 3.0, 2.0]]), 3)
    tensor([[1, 2, 3]])
    """

    def compared(values):
        return values if exact else values.float()

    if k > scores.shape[1] // 4:
        return _order(compared(scores))[:, :k]
    values, columns = torch.topk(scores, min(k + 1, scores.shape[1]), dim=1)  # of equal scores any
    values = compared(values)
    in_order = values.numpy()
    if (in_order[:, :-1] > in_order[:, 1:]).all():  # nothing ties
        return columns[:, :k]
    columns, order = torch.sort(columns[:, :k], dim=1)
    columns = columns.gather(1, _order(values[:, :k].gather(1, order)))
    if k < values.shape[1]:
        tied = torch.nonzero(values[:, k - 1] == values[:, k])[:, 0]
        if len(tied):
            columns[tied] = _order(compared(scores[tied]))[:, :k]  # their last place is contested
    return columns


def _order(scores):
    return torch.sort(scores, dim=1, descending=True, stable=True).indices


@one_thread_if_forked
def rank(score, n_rows, n_columns, k, *, excluded=None, done=None):
    """The k best columns of each row, in blocks of rows.

    Parameters
    ----------
    score : callable
        Takes a slice of the rows, returns their scores, a Tensor of shape (b, n_columns) that may be written to.
    n_rows, n_columns : int
    k : int
        More than ``n_columns`` will do.
    excluded : scipy CSR array of shape (n_rows, n_columns), optional
        Stored entries are never chosen.
    done : callable, optional
        Told how many rows more are done, after each block.

    Returns
    -------
    columns : ndarray of shape (n_rows, k), int64
        -1 where fewer than k columns remain.
    scores : ndarray of shape (n_rows, k), float64
        -inf there.
    """
    check_memory(16 * n_rows * k, f"A table of {n_rows} x {k} best", "Lower k, or ask for fewer rows at a time.")
    columns = np.full((n_rows, k), -1, dtype=np.int64)
    values = np.full((n_rows, k), -np.inf)
    if n_columns == 0:
        return columns, values
    size = max(1, BLOCK // n_columns)
    for start in range(0, n_rows, size):
        block = slice(start, min(start + size, n_rows))
        scores = score(block)  # (b, n_columns)
        if excluded is not None:
            pointers = excluded.indptr[block.start : block.stop + 1]
            row = np.repeat(np.arange(len(scores)), np.diff(pointers))
            scores.numpy()[row, excluded.indices[pointers[0] : pointers[-1]]] = -np.inf
        best = top_k(scores, min(k, n_columns))
        found = scores.gather(1, best).numpy()
        values[block, : found.shape[1]] = found
        columns[block, : found.shape[1]] = np.where(np.isneginf(found), -1, best.numpy())
        if done is not None:
            done(len(found))
    return columns, values


def rank_rows(user_rows, item_rows, k, *, excluded=None):
    """The k best items of each user by inner product, computed in float64; see ``rank``.

    Parameters
    ----------
    user_rows : ndarray of shape (n_users, width)
    item_rows : ndarray of shape (n_items, width)
    k : int
    excluded : scipy CSR array of shape (n_users, n_items), optional

    Returns
    -------
    columns : ndarray of shape (n_users, k), int64
    scores : ndarray of shape (n_users, k), float64
    """
    users, items = (torch.from_numpy(np.asarray(rows, dtype=np.float64)) for rows in (user_rows, item_rows))
    return rank(lambda block: users[block] @ items.T, len(users), len(items), k, excluded=excluded)
