"""Spotlight's evaluation with the same signatures and values, in blocks of users for models that can score them."""

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.utils.validation import check_is_fitted

from sk_torchmf._progress import progress_bar
from sk_torchmf._validation import check_ratings
from sk_torchmf.estimators import Factorization
from sk_torchmf.inputs.queries import check_positions
from sk_torchmf.interactions import as_interactions
from sk_torchmf.metrics._lists import check_k, find_hits
from sk_torchmf.nn.top_k import top_k
from sk_torchmf.spotlight._convert import check_container

BLOCK = 2**18  # scores held at once, of at least one user: 2 MiB, and a dozen times that with all that a module needs for them
LOWEST = -float(np.finfo(np.float32).max)  # what the score of a train item becomes


def rmse_score(model, test):
    """Compute the root mean squared error, as Spotlight's ``rmse_score`` does.

    Parameters
    ----------
    model : fitted model
        An estimator of this package, or anything with ``predict(user_ids, item_ids)``.
    test : Interactions
        The ratings to compare with, in our container or Spotlight's.

    Returns
    -------
    float
        In rating units.

    Examples
    --------
    >>> from sk_torchmf import BiasedMatrixFactorization, Interactions
    >>> from sk_torchmf.spotlight import rmse_score
    >>> data = Interactions([0, 0, 1, 1], [0, 1, 0, 1], [5.0, 5.0, 5.0, 5.0])
    >>> float(round(rmse_score(BiasedMatrixFactorization(n_factors=1, random_state=0).fit(data), data), 3))
    0.0
    """
    check_container(test, "test")
    test = as_interactions(test)
    if test.ratings is None:
        raise ValueError("test has no ratings to compare with. Pass Interactions with ratings.")
    predicted = model.predict(test) if _is_ours(model) else model.predict(test.user_ids, test.item_ids)
    error = check_ratings(test.ratings, len(predicted), "ratings") - predicted
    size = max(1.0, 1e-150 * np.abs(error).max(initial=0))  # greater than one where squares would overflow
    return size * np.sqrt(((error / size) ** 2).mean())


def mrr_score(model, test, train=None, *, progress=False):
    r"""Compute the mean reciprocal rank of all of a user's test items, as Spotlight's ``mrr_score`` does.

    Parameters
    ----------
    model : fitted model
        An estimator of this package, or anything whose ``predict(user)`` gives the scores of all items.
    test : Interactions
        The test items, in our container or Spotlight's. Ids are positions, ratings are ignored, and a repeated pair counts once.
    train : Interactions, optional
        Items that are ranked after all others. One that is a test item too has the mean of the last ranks.
    progress : bool, default=False
        Show progress on stderr: a tqdm bar if tqdm is installed, else a line for every tenth of the users.

    Returns
    -------
    ndarray of shape (n,), float64
        One value for each user with a test item, in the order of the users.

    Notes
    -----
    For the test items T of a user the value is :math:`\frac{1}{|T|} \sum_{i \in T} 1 / \mathrm{rank}_i`, while
    ``metrics.reciprocal_rank`` counts only the *first* test item in the list, which is the usual meaning of the name. Tied items
    share the mean of their ranks. A user with a score that is NaN has the value NaN.

    Estimators of this package score users in blocks, in float64 as ``predict(user)`` does. The values are those of Spotlight's own
    function, except that two scores which differ only by rounding may be ordered differently. For all other models
    ``predict(user)`` is called for one user at a time.

    The extra memory is some 30 MiB, plus that of ``tocsr()`` of ``test`` and ``train``, whatever the number of users. With more
    than 2**18 items, users are scored one at a time, with some 100 bytes per item.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_torchmf import Interactions
    >>> from sk_torchmf.spotlight import mrr_score
    >>> class Model:
    ...     def predict(self, user_ids, item_ids=None):
    ...         return np.array([0.1, 0.4, 0.3, 0.2])
    >>> mrr_score(Model(), Interactions([0, 0], [1, 3], num_items=4))  # ranks 1 and 3
    array([0.66666667])
    """
    test, train, users = _read(test, train)
    values = np.empty(len(users))
    for block, scores in _score(model, users, test, train, "mrr_score" if progress else None):
        part = test[users[block]]
        reciprocal = 1.0 / _ranks(scores, part)
        ends = part.indptr.tolist()
        values[block] = [reciprocal[start:end].mean() for start, end in zip(ends[:-1], ends[1:], strict=True)]
    return values


def precision_recall_score(model, test, train=None, k=10, *, progress=False):
    """Compute precision and recall of the first k items, as Spotlight's ``precision_recall_score`` does.

    Parameters
    ----------
    model : fitted model
        An estimator of this package, or anything whose ``predict(user)`` gives the scores of all items.
    test : Interactions
        The test items, in our container or Spotlight's. Ids are positions, ratings are ignored, and a repeated pair counts once.
    train : Interactions, optional
        Items that are ranked after all others. If k is larger than the number of other items, they fill up the list.
    k : int or array of int, default=10
        Lengths of the list; at most the number of items counts.
    progress : bool, default=False
        As for ``mrr_score``.

    Returns
    -------
    precision : ndarray of shape (n,), or (n, len(k)) for an array, float64
        One row for each user with a test item. As in Spotlight, axes of length 1 are dropped: for a single user, and for an array
        of one k.
    recall : ndarray of the same shape, float64
        Likewise.

    Notes
    -----
    Among tied items the one with the lower number comes first. Spotlight sorts with ``numpy.argsort``, which is not stable: if
    items around the k-th place are tied, those in Spotlight's list depend on the version of NumPy and on the processor, and the
    values may differ by a hit. Otherwise they are the same. Blocks and memory are those of ``mrr_score``.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_torchmf import Interactions
    >>> from sk_torchmf.spotlight import precision_recall_score
    >>> class Model:
    ...     def predict(self, user_ids, item_ids=None):
    ...         return np.array([0.1, 0.4, 0.3, 0.2])
    >>> test = Interactions([0, 0, 1], [1, 3, 2], num_items=4)
    >>> precision_recall_score(Model(), test, k=2)
    (array([0.5, 0.5]), array([0.5, 1. ]))
    """
    ks = check_k(k)
    test, train, users = _read(test, train)
    precision, recall = np.empty((2, len(users), len(ks)))
    for block, scores in _score(model, users, test, train, "precision_recall_score" if progress else None):
        part, n_items = test[users[block]], scores.shape[1]
        scores[np.isnan(scores)] = -np.inf  # behind the train items
        longest = min(int(ks.max()), n_items)
        ranked = top_k(torch.from_numpy(scores), longest, exact=True).numpy()
        part = sp.csr_array((part.data, part.indices, part.indptr), shape=scores.shape)
        hits = np.cumsum(find_hits(ranked, part), axis=1)[:, np.minimum(ks, longest) - 1]
        precision[block] = hits / np.minimum(ks, n_items)
        recall[block] = hits / np.diff(part.indptr)[:, None]
    return precision.squeeze(), recall.squeeze()


def _is_ours(model):
    """Whether the model can score many users at once."""
    return isinstance(model, Factorization)


def _read(test, train):
    """The test and train items as CSR arrays, or None, and the users with test items."""
    test, train = _rows(test, "test"), None if train is None else _rows(train, "train")
    users = np.flatnonzero(np.diff(test.indptr))
    if train is not None and len(users) and users[-1] >= train.shape[0]:
        raise ValueError(
            f"train must have as many users as test. It has {train.shape[0]}, and test has items of user {users[-1]}. Give both "
            "the same num_users."
        )
    return test, train, users


def _rows(data, name):
    return sp.csr_array(as_interactions(check_container(data, name)).tocsr())


def _score(model, users, test, train, shown=None):
    """Blocks of users, as slices, and their scores (b, n_items), float64, those of train items being the lowest there is."""
    predict = _many_users(model, users) if _is_ours(model) else _one_by_one(model)
    size = max(1, BLOCK // test.shape[1])
    with progress_bar(shown, len(users), "user", shown is not None) as bar:
        for start in range(0, len(users), size):
            block = slice(start, min(start + size, len(users)))
            scores = predict(users[block])
            _check_items(test, scores, "test")
            if train is not None:
                _check_items(train, scores, "train")
                rated = train[users[block]]
                scores[np.repeat(np.arange(len(scores)), np.diff(rated.indptr)), rated.indices] = LOWEST
            yield block, scores
            bar.update(block.stop - start)


def _check_items(data, scores, name):
    if data.shape[1] > scores.shape[1] and data.nnz and data.indices.max() >= scores.shape[1]:
        raise ValueError(
            f"{name} has item {data.indices.max()}, but the model scores only {scores.shape[1]} items. Fit the model with a "
            "larger num_items."
        )


def _many_users(model, users):
    """The scores of users by position, of a model of ours."""
    check_is_fitted(model, "users_")
    check_positions(model)
    known = users < model.n_users_
    if model.handle_unknown == "error":
        known &= model.user_counts_[np.where(known, users, 0)] > 0
        if not known.all():
            raise ValueError(
                f'test has items of user {users[~known][0]}, who was not seen in fit. Drop the user, or use handle_unknown="mean".'
            )
    return lambda block: model.predict(block[:, None], model.items_)


def _one_by_one(model):
    """The scores of users by position, of any model."""
    return lambda block: np.stack([np.asarray(model.predict(user), dtype=np.float64) for user in block.tolist()])


def _ranks(scores, test):
    """Rank, from 1, of each user's test items, ties sharing the mean; flat, as the rows of ``test``. Sorts ``scores`` in place."""
    lengths = np.diff(test.indptr)
    row = np.repeat(np.arange(len(lengths)), lengths)
    values = scores[row, test.indices]
    scores.sort(axis=1)
    n_items, ends = scores.shape[1], test.indptr.tolist()
    parts = [slice(start, end) for start, end in zip(ends[:-1], ends[1:], strict=True)]
    upto = np.concatenate([ordered.searchsorted(values[part], "right") for ordered, part in zip(scores, parts, strict=True)])
    tied = (upto > 1) & (scores[row, upto - 2] == values)  # the item itself is at upto - 1
    equal = np.ones(len(values))
    for at in np.flatnonzero(tied):
        equal[at] = upto[at] - scores[row[at]].searchsorted(values[at], "left")
    ranks = (n_items - upto) + (equal + 1) / 2
    ranks[np.isnan(scores[:, -1])[row]] = np.nan
    return ranks
