"""What ``partial_fit`` reads: more observations, and where old and new ids come to lie among each other."""

import copy
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from sk_torchmf.inputs import forms
from sk_torchmf.inputs import labels as _labels
from sk_torchmf.interactions import Interactions


@dataclass(frozen=True)
class Growth:
    """How ``partial_fit`` lengthens the rows of an estimator.

    Attributes
    ----------
    users, items : ndarray of shape (n_users,) and (n_items,)
        All ids, sorted.
    user_place, item_place : ndarray of shape (n_old_users,) and (n_old_items,), int64
        Where the rows so far have come to lie.
    """

    users: np.ndarray
    items: np.ndarray
    user_place: np.ndarray
    item_place: np.ndarray

    @property
    def shape(self):
        """Numbers of users and items."""
        return len(self.users), len(self.items)

    def record(self, estimator):
        """Tell the estimator its ids and sizes."""
        estimator.users_, estimator.items_ = self.users, self.items
        estimator.n_users_, estimator.n_items_ = self.shape
        if estimator.form_ == forms.SPARSE:
            estimator.n_features_in_ = len(self.items)

    def codes(self):
        """For each user, and for each item, the number of its row so far, -1 for a new one."""
        return tuple(inverse(place, n) for place, n in zip((self.user_place, self.item_place), self.shape, strict=True))

    def joined(self, estimator, data):
        """What an estimator has seen, at its new places and with its weights, and more: one container without ratings."""
        seen, own, weights = estimator.seen_, estimator.pair_weights_, data.weights
        if own is not None or weights is not None:
            own = np.ones(seen.nnz) if own is None else own
            weights = np.concatenate([own, np.ones(len(data)) if weights is None else weights])
        user = np.concatenate([np.repeat(self.user_place, np.diff(seen.indptr)), data.user_ids])
        item = np.concatenate([self.item_place[seen.indices], data.item_ids])
        return Interactions(user, item, weights=weights, num_users=self.shape[0], num_items=self.shape[1])


def inverse(place, n):
    """The inverse of an injection into n places, -1 where nothing has come to lie."""
    code = np.full(n, -1)
    code[place] = np.arange(len(place))
    return code


def read_more(estimator, X, y, sample_weight, reader):
    """Read the arguments of ``partial_fit`` of a fitted estimator, which stays as it is.

    Parameters
    ----------
    estimator : fitted estimator
    X, y, sample_weight
        As ``fit`` takes them. A table has the columns ``fit`` saw. Positions may go beyond those known, in a container and in a
        matrix alike; row u of a matrix is user u. A matrix may have fewer rows, but not fewer columns: these are its features.
    reader : callable
        ``read_rated``, ``read_weighted`` or ``read_positives``.

    Returns
    -------
    data : Interactions
        What ``reader`` returns, in the new row numbers.
    growth : Growth
    """
    form = forms.form_of(X)
    if (form == forms.TABLE) != (estimator.form_ == forms.TABLE):
        raise ValueError(
            f"partial_fit takes ids of the kind that fit saw, which was {estimator.form_}. Got {form}. Pass a table after a table, "
            "and Interactions or a sparse matrix after either of these."
        )
    if form == forms.TABLE:
        forms.check_table(estimator, X, reset=False)
    elif form == forms.SPARSE and X.ndim == 2 and X.shape[1] < estimator.n_items_:
        raise ValueError(
            f"X has {X.shape[1]} features, but {type(estimator).__name__} is expecting at least {estimator.n_items_} features as "
            "input: one column for each of items_, then those of new items."
        )
    chunk = copy.copy(estimator)  # which learns the ids of X alone
    data = copy.copy(reader(chunk, X, y, sample_weight))
    users, user_place, new_users = _labels.merge(estimator.users_, chunk.users_, "user")
    items, item_place, new_items = _labels.merge(estimator.items_, chunk.items_, "item")
    data.user_ids, data.item_ids = new_users[data.user_ids], new_items[data.item_ids]
    data.num_users, data.num_items = len(users), len(items)
    return data, Growth(users, items, user_place, item_place)


def check_partial(estimator):
    """Refuse what ``partial_fit`` does not do."""
    if estimator.early_stopping or estimator.checkpoint is not None:
        raise ValueError(
            "partial_fit takes neither early_stopping nor checkpoint: both are about a fit to all ratings at once. Use "
            "early_stopping=False and checkpoint=None, or fit."
        )


@contextmanager
def growing(estimator, growth):
    """An estimator of more ids is trained, and its history goes on; where that fails, it gets its attributes back."""
    before = vars(estimator).copy()
    try:
        growth.record(estimator)
        yield
    except BaseException:
        vars(estimator).update(before)
        raise
    history = before["history_"]
    estimator.history_ = {name: history.get(name, []) + values for name, values in estimator.history_.items()}
    estimator.n_iter_ = len(estimator.history_["loss"])
