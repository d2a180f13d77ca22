"""A fitted estimator's lists against held-out items: ranks users by blocks, leaves the arithmetic to the metrics."""

import difflib
from collections.abc import Callable
from functools import partial

import numpy as np
import scipy.sparse as sp
from sklearn.exceptions import NotFittedError

from sk_torchmf._progress import progress_bar
from sk_torchmf.inputs.forms import check_table
from sk_torchmf.inputs.labels import column, encode, lookup, merge
from sk_torchmf.inputs.queries import read_candidates, read_ids, read_labels
from sk_torchmf.interactions import as_interactions, is_interactions
from sk_torchmf.metrics import _ranking
from sk_torchmf.metrics._lists import check_k

BLOCK = 2**22  # places of lists held at once
FULL = frozenset({"auc"})  # what takes the whole ranking, and no k
METRICS: dict[str, Callable] = {
    "ndcg": _ranking.ndcg,
    "precision": _ranking.precision,
    "recall": _ranking.recall,
    "truncated_recall": partial(_ranking.recall, truncated=True),
    "average_precision": _ranking.average_precision,
    "reciprocal_rank": _ranking.reciprocal_rank,
    "hit_rate": _ranking.hit_rate,
    "auc": _ranking.auc,
}
"""The metrics of one user's list by the names that ``evaluate`` and ``ranking_scorer`` take; higher is better for all of them."""


COLD = "cold"


def evaluate(
    estimator, test, metrics=("ndcg", "precision", "recall"), k=10, *, exclude_seen=True, users=None, items=None, progress=False
):
    """Rank for every user with a test item, and average what the lists are worth.

    Parameters
    ----------
    estimator : fitted estimator
        Anything with ``recommend(users, k, exclude_seen)`` and the sorted ids ``users_`` and ``items_``; for ``items`` also with
        that parameter of ``recommend``, and for cold ones with ``item_counts_``.
    test : table, Interactions or sparse matrix of shape (n_users, n_items)
        The test items, whatever their ratings; a pair counts once. A table has the columns ``fit`` saw. Rows of a matrix are the
        users that ``fit`` saw, unless ``users`` is a matrix too.
    metrics : str or sequence of str, default=("ndcg", "precision", "recall")
        Names in ``METRICS``: ndcg, precision, recall, truncated_recall, average_precision, reciprocal_rank, hit_rate, auc.
    k : int or sequence of int, default=10
        Lengths of the lists.
    exclude_seen : bool, default=True
        Leave what a user was observed with in ``fit`` out of the lists. A test item that is among it cannot be hit, and counts as
        missed (for ``auc`` not at all).
    users : array-like of shape (n,) or sparse matrix of shape (n_rows, n_items), optional
        Evaluate these users only, by id. A matrix holds what is known of new users, to be folded in: ``test`` is then a matrix of
        the same shape, with their test items.
    items : array-like of shape (m,) or "cold", optional
        Candidates: rank these items only, by id, or the cold ones, which had no observation in ``fit``. Test items that are not
        among them do not count, as if ``test`` had not held them.
    progress : bool, default=False
        Show how far it is, on stderr: a bar if tqdm is there.

    Returns
    -------
    dict of dict
        ``{metric: {k: mean over users}}``: ``pandas.DataFrame`` shows it as a table with one row a k. ``auc`` does not depend on k
        and is the same in every row. Users without test items are left out; a user for whom nothing remains to be ranked has
        zeros (but for ``auc``, which leaves out users without a pair to compare, and is NaN if there is no other).

    Raises
    ------
    ValueError
        For an unknown metric, for a test set without items, and for candidates that are unknown, or none.

    Notes
    -----
    Test items that ``fit`` did not see are never hit but count among the test items, unless ``items`` are given. Users that it did
    not see get what ``recommend`` gives them. Ties are broken as ``recommend`` does, by the order of ``items_``. Users are ranked
    in blocks; only ``auc`` takes the ranking of all candidates.

    Examples
    --------
    >>> from sk_torchmf import BiasedMatrixFactorization
    >>> from sk_torchmf.datasets import make_ratings
    >>> from sk_torchmf.metrics import evaluate
    >>> from sk_torchmf.model_selection import LeaveRandomOut
    >>> data = make_ratings(100, 50, 2000, random_state=0).interactions
    >>> train, test = next(LeaveRandomOut(random_state=0).split(data))
    >>> model = BiasedMatrixFactorization(random_state=0).fit(data[train])
    >>> table = evaluate(model, data[test], ["hit_rate", "recall"], k=[10, 50])
    >>> {name: list(column) for name, column in table.items()}
    {'hit_rate': [10, 50], 'recall': [10, 50]}
    >>> table["hit_rate"][50]
    1.0

    Among the items that nobody has rated:

    >>> from sk_torchmf.model_selection import ColdItemSplit
    >>> train, test = next(ColdItemSplit(5, random_state=0).split(data))
    >>> model = BiasedMatrixFactorization(random_state=0).fit(data[train])
    >>> evaluate(model, data[test], "recall", k=10, items="cold")  # ten items are cold: 10 of 50
    {'recall': {10: 1.0}}
    """
    try:
        names = [metrics] if isinstance(metrics, str) else list(metrics)
    except TypeError:
        raise TypeError(f"metrics must be a name or a list of names. Got {metrics!r}.") from None
    ks = check_k(k)
    for name in names:
        check_metric(name, "metrics")
    for name in ("recommend", "users_", "items_"):
        if not hasattr(estimator, name):
            raise NotFittedError(f"{type(estimator).__name__} has no {name}. Pass a factorization that is fitted.")
    asked, relevant = _read_matrices(estimator, test, users) if sp.issparse(users) else _read_test(estimator, test, users)
    ids, options = np.asarray(estimator.items_), {"exclude_seen": exclude_seen}
    if items is not None:
        candidates = _read_items(estimator, items)
        ids, relevant = ids[candidates], relevant[:, candidates]
        options["items"] = ids
    tested = np.flatnonzero(np.diff(relevant.indptr))
    if not len(tested):
        where = "" if items is None else " among the candidates, items,"
        raise ValueError(f"test has no items{where} of the users to evaluate. Pass at least one user with a test item.")
    values = values_of(estimator, asked[tested], relevant[tested], names, ks, ids, options, progress=progress)
    return {name: dict(zip(ks.tolist(), _mean(values[name]).tolist(), strict=True)) for name in names}


def values_of(estimator, asked, relevant, names, ks, ids, options, *, progress=False):
    """Rank for users, and find what the list of each is worth.

    Parameters
    ----------
    estimator : fitted estimator
    asked : ndarray of shape (n,) or CSR array of shape (n, n_items)
        Labels of users, or what is known of new ones.
    relevant : CSR array of shape (n, n_columns)
        Their test items; columns past the ids are other items.
    names : list of str
        Of ``METRICS``.
    ks : ndarray of int
    ids : ndarray of shape (n_ids,)
        The items that may be ranked, sorted.
    options : dict
        Of ``recommend``.
    progress : bool

    Returns
    -------
    dict of str to ndarray of shape (n, len(ks))
        NaN for a user without a test item.
    """
    width = max(int(ks.max()), len(ids) if FULL.intersection(names) else 1)
    size, n_users = max(1, BLOCK // width), relevant.shape[0]
    values = {name: np.empty((n_users, len(ks))) for name in names}
    if progress:
        size = min(size, max(1, n_users // 10))
    with progress_bar("evaluate", n_users, "user", progress) as bar:
        for start in range(0, n_users, size):
            block = slice(start, min(start + size, n_users))
            ranked, part = _rank(estimator, asked[block], width, ids, options), relevant[block]
            for name in names:
                values[name][block] = METRICS[name](ranked, part)[:, None] if name in FULL else METRICS[name](ranked, part, ks)
            bar.update(len(ranked))
    return values


def check_metric(name, argument):
    """Refuse a name that is not in ``METRICS``."""
    if not isinstance(name, str) or name not in METRICS:
        close = difflib.get_close_matches(str(name), METRICS, n=1)
        hint = f' Did you mean "{close[0]}"?' if close else ""
        raise ValueError(f"{argument} must be among {', '.join(METRICS)}. Got {name!r}.{hint}")
    return name


def check_candidates(items):
    """Refuse a word for candidates that is none."""
    if isinstance(items, str) and items != COLD:
        raise ValueError(f'items must be "{COLD}" or an array of item ids. Got {items!r}.')
    return items


def _read_test(estimator, test, users):
    """Ids of the users, and their test items as a CSR array with a row for each; unknown items are columns past the others."""
    ids, n_items = np.asarray(estimator.users_), len(estimator.items_)
    if sp.issparse(test):
        relevant = sp.csr_array(test)
        if relevant.shape != (len(ids), n_items):
            raise ValueError(
                f"test must have the shape of what fit saw, {(len(ids), n_items)}, when it is a sparse matrix. "
                f"Got {relevant.shape}. For new users pass what is known of them as users."
            )
    else:
        codes = read_ids(estimator, test)
        if is_interactions(test):
            data = as_interactions(test)
            columns = data.user_ids, data.item_ids
        else:
            table = check_table(test)
            columns = tuple(column(table, getattr(estimator, role), role) for role in ("user", "item"))
        user, new_users = _number_unknown(codes[0], columns[0], len(ids), "user")
        item, new_items = _number_unknown(codes[1], columns[1], n_items, "item")
        ids, place, place_of_new = merge(ids, new_users, "user")
        user, shape = np.concatenate([place, place_of_new])[user], (len(ids), n_items + len(new_items))
        relevant = sp.csr_array(sp.coo_array((np.ones(len(user), dtype=bool), (user, item)), shape=shape))
    if users is None:
        return ids, relevant
    chosen = np.unique(read_labels(users, ids, "user", "users"))
    chosen = chosen[chosen >= 0]
    return ids[chosen], relevant[chosen]


def _read_matrices(estimator, test, users):
    """What is known of new users and their test items, two CSR arrays."""
    known, n_items = sp.csr_array(users), len(estimator.items_)
    if not sp.issparse(test) or test.shape != known.shape or known.shape[1] != n_items:
        got = test.shape if sp.issparse(test) else type(test).__name__
        raise ValueError(
            f"users and test must be sparse matrices of one shape, (n_rows, {n_items}), when users holds new users. "
            f"Got {known.shape} and {got}."
        )
    return known, sp.csr_array(test)


def _read_items(estimator, items):
    """Row numbers of the candidates, sorted and distinct."""
    if not isinstance(check_candidates(items), str):
        candidates = read_candidates(estimator, items)
        if not len(candidates):
            raise ValueError("items must hold at least one candidate. Got none.")
        return candidates
    if not hasattr(estimator, "item_counts_"):
        raise ValueError(f'items="{COLD}" needs item_counts_, which {type(estimator).__name__} has not. Pass the ids of the items.')
    candidates = np.flatnonzero(np.asarray(estimator.item_counts_) == 0)
    if not len(candidates):
        raise ValueError(
            f'items="{COLD}" are the items without observations in fit, and all {len(estimator.items_)} have some. Hold whole '
            "items out, with ColdItemSplit, of Interactions, which keep their positions, or of a table beside item_features."
        )
    return candidates


def _number_unknown(code, values, n_known, role):
    """Number what is -1 among the row numbers of values on from the known, by its id; returns all numbers and the new labels."""
    unknown = code < 0
    new_code, new = encode(np.asarray(values)[unknown], role)
    code = code.copy()
    code[unknown] = n_known + new_code
    return code, new


def _rank(estimator, asked, k, items, options):
    """Place (n, k) among the ids items of what is recommended, -1 where a list ends."""
    ids, scores = estimator.recommend(asked, k=k, **options)
    remain = ~np.isneginf(scores)  # the ids do not tell: -1 may be one of them
    ranked = np.full(ids.shape, -1, dtype=np.int64)
    ranked[remain] = lookup(ids[remain], items, "item")
    return ranked


def _mean(values):
    """Mean over users (n_users, n) -> (n,), NaN left out; NaN if nothing else is there."""
    counted = ~np.isnan(values)
    total, n = np.where(counted, values, 0).sum(axis=0), counted.sum(axis=0)
    return np.divide(total, n, out=np.full(len(total), np.nan), where=n > 0)
