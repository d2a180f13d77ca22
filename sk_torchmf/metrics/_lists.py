"""What a metric is told, lists and test items: checked, and where the ones hold the others."""

import numpy as np
import scipy.sparse as sp

from sk_torchmf._validation import check_count


def check_k(k):
    """Return the list lengths asked for as an int64 array of shape (n,), n >= 1, each of them >= 1."""
    if isinstance(k, str) or np.ndim(k) > 1 or np.size(k) == 0:
        raise ValueError(f"k must be an int >= 1 or a sequence of them. Got {k!r}.")
    return np.array([check_count(one, "k") for one in ([k] if np.ndim(k) == 0 else k)])


def check_ranked(ranked, n_items):
    """Return the lists as an array; refuse what is no column number below ``n_items``, and items after the end of a list."""
    ranked = np.asarray(ranked)
    if ranked.ndim != 2 or ranked.dtype.kind not in "iu":
        raise ValueError(f"ranked must be an integer array of shape (n_users, K). Got shape {ranked.shape}, dtype {ranked.dtype}.")
    if ranked.size and not -1 <= ranked.min() <= ranked.max() < n_items:
        raise ValueError(
            f"ranked must hold column numbers below n_items={n_items}, or -1 where a list ends. "
            f"Got numbers from {ranked.min()} to {ranked.max()}."
        )
    resumed = ((ranked[:, 1:] >= 0) & (ranked[:, :-1] < 0)).any(axis=1)
    if resumed.any():
        at = int(np.argmax(resumed))
        raise ValueError(
            f"ranked[{at}] must not have an item after -1, which marks the end of the list. Move the items to the front."
        )
    return ranked


def check_lists(ranked, relevant):
    """Return the lists as an array and the test items, each once, as a CSR array with a row for each list."""
    if not sp.issparse(relevant):
        raise TypeError(f"relevant must be a scipy sparse array of the test items. Got {type(relevant).__name__}.")
    relevant = sp.csr_array(relevant)
    if not relevant.has_canonical_format:
        relevant = relevant.copy()
        relevant.sum_duplicates()
    ranked = check_ranked(ranked, relevant.shape[1])
    if len(ranked) != relevant.shape[0]:
        raise ValueError(f"relevant must have a row for each list in ranked, {len(ranked)}. Got {relevant.shape[0]}.")
    return ranked, relevant


def check_reach(ks, ranked):
    """Return the longest k, refused where the lists are shorter: what comes after their end is not known."""
    if ks.max() > ranked.shape[1]:
        raise ValueError(
            f"k must be at most the length of the lists, {ranked.shape[1]}. Got {ks.max()}. Rank more items, or fill the lists up "
            "with -1."
        )
    return int(ks.max())


def find_hits(ranked, relevant):
    """Which places of the lists hold a test item, a bool array of the shape of ``ranked``.

    The lists are taken as a sparse matrix of places, whose elementwise product with the test items is the places of the hits:
    linear in the entries of both, without a table of users x items.
    """
    present, n_places = ranked >= 0, ranked.shape[1]
    place = np.broadcast_to(np.arange(n_places, 2 * n_places), ranked.shape)[present]  # the sum of two is 2 * n_places or more
    pointers = np.concatenate([[0], np.cumsum(present.sum(axis=1))])
    listed = sp.csr_array((place, ranked[present], pointers), shape=relevant.shape)
    ones = sp.csr_array((np.ones(relevant.nnz, dtype=place.dtype), relevant.indices, relevant.indptr), shape=relevant.shape)
    common = listed.multiply(ones).tocoo()  # sums what is listed twice
    repeated = common.data >= 2 * n_places
    if repeated.any():
        at = int(np.argmax(repeated))
        raise ValueError(
            f"ranked[{common.row[at]}] holds item {common.col[at]} more than once. The items of a list must be distinct."
        )
    hits = np.zeros(ranked.shape, dtype=bool)
    hits[common.row, common.data - n_places] = True
    return hits
