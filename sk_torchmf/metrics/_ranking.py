"""Metrics of ranked lists: one value per user, for several lengths at once. They take arrays, not estimators."""

import numpy as np

from sk_torchmf._validation import check_count
from sk_torchmf.metrics._lists import check_k, check_lists, check_ranked, check_reach, find_hits


def precision(ranked, relevant, k=10):
    """Compute the precision: the share of the first k places that hold a test item.

    Parameters
    ----------
    ranked : ndarray of shape (n_users, K), int64
        Column numbers of distinct items, best first; filled up with -1 if a list is shorter.
    relevant : scipy sparse array of shape (n_users, n_items)
        Stored entries are the test items, whatever their value.
    k : int or sequence of int, default=10
        How many places of each list count, at most K.

    Returns
    -------
    ndarray of shape (n_users,), or (n_users, len(k)) for a sequence, float64
        Places after the end of a short list count as misses. NaN for a user without test items.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from sk_torchmf.metrics import precision
    >>> ranked = np.array([[0, 2, 1], [3, 0, -1]])
    >>> relevant = sp.csr_array([[0, 1, 1, 0], [0, 0, 0, 1]])
    >>> precision(ranked, relevant, k=[1, 2])
    array([[0. , 0.5],
           [1. , 0.5]])
    """
    hits, n_relevant, ks = _read(ranked, relevant, k)
    return _per_user(_count(hits, ks) / ks, n_relevant, k)


def recall(ranked, relevant, k=10, *, truncated=False):
    """Compute the recall: the share of a user's test items that are among the first k.

    Parameters
    ----------
    ranked : ndarray of shape (n_users, K), int64
        Column numbers of distinct items, best first; filled up with -1 if a list is shorter.
    relevant : scipy sparse array of shape (n_users, n_items)
        Stored entries are the test items, whatever their value.
    k : int or sequence of int, default=10
        How many places of each list count, at most K.
    truncated : bool, default=False
        Divide by the smaller of k and the number of test items, so that a list of k hits has the value 1, instead of by the number
        of test items. Both definitions are in use.

    Returns
    -------
    ndarray of shape (n_users,), or (n_users, len(k)) for a sequence, float64
        NaN for a user without test items.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from sk_torchmf.metrics import recall
    >>> ranked, relevant = np.array([[0, 2, 1]]), sp.csr_array([[1, 0, 1, 1]])
    >>> recall(ranked, relevant, k=2), recall(ranked, relevant, k=2, truncated=True)
    (array([0.66666667]), array([1.]))
    """
    hits, n_relevant, ks = _read(ranked, relevant, k)
    most = _attainable(n_relevant, ks) if truncated else np.maximum(n_relevant, 1)[:, None]
    return _per_user(_count(hits, ks) / most, n_relevant, k)


def ndcg(ranked, relevant, k=10):
    r"""Compute the normalised discounted cumulative gain of the first k places, with gain 1 for a test item.

    .. math:: \sum_{r \le k} \frac{\text{hit}_r}{\log_2(r + 1)} \;/\; \sum_{r \le \min(k, n)} \frac{1}{\log_2(r + 1)}

    for a user with n test items: the gain of the list divided by that of the best possible list.

    Parameters
    ----------
    ranked : ndarray of shape (n_users, K), int64
        Column numbers of distinct items, best first; filled up with -1 if a list is shorter.
    relevant : scipy sparse array of shape (n_users, n_items)
        Stored entries are the test items, whatever their value.
    k : int or sequence of int, default=10
        How many places of each list count, at most K.

    Returns
    -------
    ndarray of shape (n_users,), or (n_users, len(k)) for a sequence, float64
        NaN for a user without test items.

    References
    ----------
    .. [1] Järvelin and Kekäläinen, Cumulated Gain-based Evaluation of IR Techniques, ACM TOIS 2002.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from sk_torchmf.metrics import ndcg
    >>> ndcg(np.array([[1, 0, 2]]), sp.csr_array([[1, 0, 0, 1]]), k=[1, 3]).round(4)  # 1 / log2(3) of 1 + 1 / log2(3)
    array([[0.    , 0.3869]])
    """
    hits, n_relevant, ks = _read(ranked, relevant, k)
    discount = 1 / np.log2(np.arange(2, hits.shape[1] + 2))
    ideal = np.cumsum(discount)[_attainable(n_relevant, ks) - 1]
    return _per_user(np.cumsum(hits * discount, axis=1)[:, ks - 1] / ideal, n_relevant, k)


def average_precision(ranked, relevant, k=10):
    r"""Compute the average precision: the mean of the precision at each hit among the first k. Its mean over users is MAP.

    .. math:: \frac{1}{\min(k, n)} \sum_{r \le k} \text{hit}_r \, \text{precision}_r

    for a user with n test items. A list of k hits has the value 1, and so has one that begins with all n test items.

    Parameters
    ----------
    ranked : ndarray of shape (n_users, K), int64
        Column numbers of distinct items, best first; filled up with -1 if a list is shorter.
    relevant : scipy sparse array of shape (n_users, n_items)
        Stored entries are the test items, whatever their value.
    k : int or sequence of int, default=10
        How many places of each list count, at most K.

    Returns
    -------
    ndarray of shape (n_users,), or (n_users, len(k)) for a sequence, float64
        NaN for a user without test items.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from sk_torchmf.metrics import average_precision
    >>> average_precision(np.array([[1, 0, 3]]), sp.csr_array([[1, 0, 0, 1]]), k=3).round(4)  # (1/2 + 2/3) / 2
    array([0.5833])
    """
    hits, n_relevant, ks = _read(ranked, relevant, k)
    precisions = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    return _per_user(np.cumsum(hits * precisions, axis=1)[:, ks - 1] / _attainable(n_relevant, ks), n_relevant, k)


def reciprocal_rank(ranked, relevant, k=10):
    """Compute one over the place of the first hit, 0 if the first k places hold none. Its mean over users is MRR.

    Parameters
    ----------
    ranked : ndarray of shape (n_users, K), int64
        Column numbers of distinct items, best first; filled up with -1 if a list is shorter.
    relevant : scipy sparse array of shape (n_users, n_items)
        Stored entries are the test items, whatever their value.
    k : int or sequence of int, default=10
        How many places of each list count, at most K.

    Returns
    -------
    ndarray of shape (n_users,), or (n_users, len(k)) for a sequence, float64
        NaN for a user without test items.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from sk_torchmf.metrics import reciprocal_rank
    >>> reciprocal_rank(np.array([[1, 0, 3]]), sp.csr_array([[1, 0, 0, 1]]), k=[1, 3])
    array([[0. , 0.5]])
    """
    hits, n_relevant, ks = _read(ranked, relevant, k)
    place = np.argmax(hits, axis=1)[:, None] + 1
    hit = _count(hits, ks) > 0
    return _per_user(hit / place, n_relevant, k)


def hit_rate(ranked, relevant, k=10):
    """Compute the hit rate: 1 if there is a test item among the first k places, else 0.

    Parameters
    ----------
    ranked : ndarray of shape (n_users, K), int64
        Column numbers of distinct items, best first; filled up with -1 if a list is shorter.
    relevant : scipy sparse array of shape (n_users, n_items)
        Stored entries are the test items, whatever their value.
    k : int or sequence of int, default=10
        How many places of each list count, at most K.

    Returns
    -------
    ndarray of shape (n_users,), or (n_users, len(k)) for a sequence, float64
        NaN for a user without test items.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from sk_torchmf.metrics import hit_rate
    >>> hit_rate(np.array([[1, 0], [2, 1]]), sp.csr_array([[1, 0, 0], [1, 0, 0]]), k=2)
    array([1., 0.])
    """
    hits, n_relevant, ks = _read(ranked, relevant, k)
    return _per_user((_count(hits, ks) > 0).astype(np.float64), n_relevant, k)


def auc(ranked, relevant):
    """Compute the AUC: the share of pairs of a test item and another item that a full ranking puts in the right order.

    Parameters
    ----------
    ranked : ndarray of shape (n_users, K), int64
        All candidates of each user, best first; filled up with -1 if a list is shorter. Items that are not in the list, for example
        because they were seen in training, count neither as test items nor as others.
    relevant : scipy sparse array of shape (n_users, n_items)
        Stored entries are the test items.

    Returns
    -------
    ndarray of shape (n_users,), float64
        NaN for a user whose list has no test item, or no other item. Equal scores count in the order in which they were ranked.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from sk_torchmf.metrics import auc
    >>> auc(np.array([[1, 0, 2, 3]]), sp.csr_array([[1, 0, 0, 1]]))  # one pair of four: 0 before 2
    array([0.25])
    """
    ranked, relevant = check_lists(ranked, relevant)
    user, column = np.nonzero(find_hits(ranked, relevant))
    n_found = np.bincount(user, minlength=len(ranked))
    first = np.cumsum(n_found) - n_found
    above = column - (np.arange(len(user)) - first[user])  # others before each hit: its place less the hits before it
    pairs = n_found * ((ranked >= 0).sum(axis=1) - n_found)
    wrong = np.bincount(user, weights=above, minlength=len(ranked))
    return 1 - np.divide(wrong, pairs, out=np.full(len(ranked), np.nan), where=pairs > 0)


def coverage(ranked, n_items, k=10):
    """Compute the share of all items that are among the first k of at least one user's list.

    Parameters
    ----------
    ranked : ndarray of shape (n_users, K), int64
        Column numbers of items, best first; filled up with -1 if a list is shorter.
    n_items : int
        Number of all items.
    k : int or sequence of int, default=10
        How many places of each list count, at most K.

    Returns
    -------
    float, or ndarray of shape (len(k),) for a sequence
        Between 0 and 1.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_torchmf.metrics import coverage
    >>> coverage(np.array([[0, 1], [0, 2]]), n_items=4, k=[1, 2])
    array([0.25, 0.75])
    """
    n_items = check_count(n_items, "n_items")
    ranked, ks = check_ranked(ranked, n_items), check_k(k)
    user, column = np.nonzero(ranked[:, : check_reach(ks, ranked)] >= 0)
    place = np.full(n_items, np.iinfo(np.int64).max)  # the best place of each item in any list
    np.minimum.at(place, ranked[user, column], column)
    share = (place[:, None] < ks).mean(axis=0)
    return float(share[0]) if np.ndim(k) == 0 else share


def novelty(ranked, item_counts, k=10):
    r"""Compute the mean self-information of the first k items: :math:`-\log_2` of an item's share of all observations, in bits.

    Parameters
    ----------
    ranked : ndarray of shape (n_users, K), int64
        Column numbers of items, best first; filled up with -1 if a list is shorter.
    item_counts : array-like of shape (n_items,)
        How often each item was observed in training. An item without observations counts as if it had one.
    k : int or sequence of int, default=10
        How many places of each list count, at most K.

    Returns
    -------
    ndarray of shape (n_users,), or (n_users, len(k)) for a sequence, float64
        The mean is over the items that a short list has; NaN for an empty list.

    References
    ----------
    .. [1] Zhou et al., Solving the apparent diversity-accuracy dilemma of recommender systems, PNAS 2010.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_torchmf.metrics import novelty
    >>> novelty(np.array([[0, 1], [2, -1]]), item_counts=[4, 2, 2], k=2)  # shares 1/2, 1/4, 1/4
    array([1.5, 2. ])
    """
    counts = np.asarray(item_counts, dtype=np.float64)
    if counts.ndim != 1 or not (np.isfinite(counts) & (counts >= 0)).all() or not counts.any():
        raise ValueError("item_counts must be finite numbers >= 0, one for each item, and not all zero.")
    ranked, ks = check_ranked(ranked, len(counts)), check_k(k)
    ranked = ranked[:, : check_reach(ks, ranked)]
    surprise = np.where(ranked >= 0, -np.log2(np.where(counts > 0, counts, 1) / counts.sum())[ranked], 0)
    total, length = (np.cumsum(values, axis=1)[:, ks - 1] for values in (surprise, ranked >= 0))
    mean = np.divide(total, length, out=np.full(total.shape, np.nan), where=length > 0)
    return mean[:, 0] if np.ndim(k) == 0 else mean


def _read(ranked, relevant, k):
    """Hits (n_users, max k), numbers of test items (n_users,) and the k as an array."""
    ks = check_k(k)
    ranked, relevant = check_lists(ranked, relevant)
    return find_hits(ranked[:, : check_reach(ks, ranked)], relevant), np.diff(relevant.indptr), ks


def _count(hits, ks):
    return np.cumsum(hits, axis=1)[:, ks - 1]


def _attainable(n_relevant, ks):
    """``min(k, test items)``, shape (n_users, len(ks)); 1 where there are none, which end as NaN."""
    return np.clip(n_relevant[:, None], 1, ks)


def _per_user(values, n_relevant, k):
    values[n_relevant == 0] = np.nan
    return values[:, 0] if np.ndim(k) == 0 else values
