"""What every ``recommend`` shares: the best candidates of each user, in the ids fit saw. Knows no model."""

import numpy as np
import scipy.sparse as sp

from sk_torchmf._progress import progress_bar
from sk_torchmf.interactions import is_interactions
from sk_torchmf.nn.top_k import rank


def is_scalar(ids):
    """Whether one id was asked for, not an array of them or a matrix: the results then lose their first axis."""
    return ids is not None and not sp.issparse(ids) and not is_interactions(ids) and np.ndim(ids) == 0


def best_candidates(score, n_users, candidates, k, seen, progress=False):
    """The k best candidates of each user.

    Parameters
    ----------
    score : callable
        Takes a slice of the users, returns their scores, a Tensor of shape (b, n_candidates).
    n_users : int
    candidates : ndarray of shape (n_candidates,)
        Row numbers of items.
    k : int
    seen : CSR array of shape (n_users, n_items) or None
        What to leave out.
    progress : bool
        Whether to show how far it is.

    Returns
    -------
    items : ndarray of shape (n_users, k), int64
        Row numbers, -1 where fewer than k remain.
    scores : ndarray of shape (n_users, k), float64
        -inf there.
    """
    excluded = seen if seen is None or len(candidates) == seen.shape[1] else seen[:, candidates]
    with progress_bar("recommend", n_users, "user", progress) as bar:
        found, scores = rank(score, n_users, len(candidates), k, excluded=excluded, done=bar.update)
    return (np.where(found < 0, -1, candidates[found]) if len(candidates) else found), scores


def select_rows(matrix, code):
    """Rows of a CSR array by number; an empty row for -1."""
    known = code >= 0
    if known.all():
        return matrix[code]
    lengths = np.where(known, np.diff(matrix.indptr)[code], 0)
    pointers = np.concatenate([[0], np.cumsum(lengths)])
    part = matrix[code[known]]
    return sp.csr_array((part.data, part.indices, pointers), shape=(len(code), matrix.shape[1]))


def label(found, labels):
    """Labels of row numbers; -1 (None where labels are not numbers) for -1."""
    if labels.dtype.kind in "iufb":
        labels = labels.astype(np.int64) if labels.dtype.kind in "ub" else labels
        filler = np.array(-1, dtype=labels.dtype)
    else:
        labels, filler = labels.astype(object), None
    if len(labels) == 0:
        return np.full(found.shape, filler)
    return np.where(found < 0, filler, labels[found])
