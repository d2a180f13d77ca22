"""Splitters that hold out all observations of some items or users, so that these are cold. They use ids and times, not ratings."""

import numpy as np

from sk_torchmf._validation import check_count, check_flag, check_seed
from sk_torchmf.model_selection._base import Splitter, check_folds, check_size, count_of, number_ids, rank_times


class _ColdSplit(Splitter):
    """Base: ``_role`` names the side that is cold, and the parameter with its column."""

    _role: str

    def _set(self, n_splits, by_time, test_size, time, random_state):
        self.by_time = check_flag(by_time, "by_time")
        self.test_size = None if test_size is None else check_size(test_size)
        self.n_splits = check_count(n_splits, "n_splits") if by_time or test_size is not None else check_folds(n_splits)
        self.time = time
        self.random_state = random_state

    def _parts(self, X):
        code = number_ids(X, getattr(self, self._role), self._role)
        edges = self._edges(int(code.max(initial=-1)) + 1)
        if self.by_time:
            yield from self._parts_by_time(code, rank_times(X, self.time), edges)
            return
        place = np.random.default_rng(check_seed(self.random_state)).permutation(edges[-1])[code]
        for start, stop in zip(edges[:-1], edges[1:], strict=True):
            test = (place >= start) & (place < stop)
            yield ~test, test

    def _edges(self, n):
        """Where the test parts begin among n users or items in some order, one behind another, and n."""
        if self.test_size is None:
            n_parts = self.n_splits + self.by_time  # by time the first is only trained on
            edges = np.arange(n_parts + 1)[-self.n_splits - 1 :] * n // n_parts
        else:
            edges = n - count_of(self.test_size, n) * np.arange(self.n_splits, -1, -1)
        fewest = 1 if self.by_time or self.n_splits == 1 else 0  # others than those of the first part, to train on
        if edges[0] < fewest or (np.diff(edges) == 0).any():
            raise ValueError(
                f"n_splits={self.n_splits} and test_size={self.test_size} need more {self._role}s than X has, which is {n}. Lower "
                "one of them."
            )
        return edges

    def _parts_by_time(self, code, time, edges):
        first = np.full(edges[-1], len(time))  # times are ranks below that
        np.minimum.at(first, code, time)
        cuts = np.append(np.sort(first)[edges[:-1]], len(time))
        if cuts[0] == 0 or (np.diff(cuts) == 0).any():
            raise ValueError(
                f"A part would be empty, because too many {self._role}s appear at the same time. Raise test_size or lower n_splits."
            )
        for start, stop in zip(cuts[:-1], cuts[1:], strict=True):
            yield time < start, (first[code] >= start) & (first[code] < stop)


class ColdItemSplit(_ColdSplit):
    """Hold out all observations of some items, so that the model is tested on items that nobody has rated.

    The items are drawn at random, or are those that appeared last. A user all of whose observations are in the test part is unknown
    in training.

    Parameters
    ----------
    n_splits : int, default=5
        How many test parts there are. If ``test_size`` is not passed, the items are divided evenly among the parts and each item is
        tested once; there must then be at least 2 parts.
    by_time : bool, default=False
        Split by time: order the items by their first observation, and test those that appeared last. A test part has all
        observations of the items that appeared in one period; its training part has everything before that period, so that nothing
        of the future is known. Later observations of other items are in neither part. The periods follow one another up to the end.
        If most items appear early, little data come before them: use few and small test parts then.
    test_size : float or int, optional
        The share of the items in a test part, between 0 and 1, or their number. By default all items divided by ``n_splits``; by
        time, divided by ``n_splits + 1``, because the first part is only trained on. Items that appeared at the same time stay
        together, so a part may have more.
    item : int or str, default=1
        The column of a table that holds the items, by position or name. Not used for a container, which has ``item_ids``.
    time : int or str, optional
        The column of a table that holds the time, needed for ``by_time``. Not used for a container, which has ``timestamps``.
    random_state : int, RandomState instance or None, default=None
        Seeds the random choice. Pass an int to get the same parts every time. Not used with ``by_time``.

    Examples
    --------
    >>> from sk_torchmf import Interactions
    >>> from sk_torchmf.model_selection import ColdItemSplit
    >>> data = Interactions([0, 1, 0, 1, 0, 1], [0, 0, 1, 1, 2, 0], timestamps=[1, 2, 3, 6, 5, 7])
    >>> for train, test in ColdItemSplit(3, random_state=0).split(data):
    ...     print(data.item_ids[train], data.item_ids[test])
    [1 1 2] [0 0 0]
    [0 0 1 1 0] [2]
    [0 0 2 0] [1 1]
    >>> for train, test in ColdItemSplit(1, by_time=True, test_size=1).split(data):  # item 2 appeared last, at time 5
    ...     print(data.timestamps[train], data.timestamps[test])
    [1 2 3] [5]
    """

    _role = "item"

    def __init__(self, n_splits=5, *, by_time=False, test_size=None, item=1, time=None, random_state=None):
        self._set(n_splits, by_time, test_size, time, random_state)
        self.item = item


class ColdUserSplit(_ColdSplit):
    """Hold out all observations of some users, so that the model is tested on users who have rated nothing.

    It does for users what ``ColdItemSplit`` does for items. For new users who have rated something, and are folded in, see
    ``HeldOutUsers``.

    Parameters
    ----------
    n_splits : int, default=5
        How many test parts there are. If ``test_size`` is not passed, the users are divided evenly among the parts and each user is
        tested once; there must then be at least 2 parts.
    by_time : bool, default=False
        Split by time: order the users by their first observation, and test those who appeared last. A test part has all
        observations of the users who appeared in one period; its training part has everything before that period. Later
        observations of other users are in neither part. The periods follow one another up to the end.
    test_size : float or int, optional
        The share of the users in a test part, between 0 and 1, or their number. By default all users divided by ``n_splits``; by
        time, divided by ``n_splits + 1``, because the first part is only trained on. Users who appeared at the same time stay
        together, so a part may have more.
    user : int or str, default=0
        The column of a table that holds the users, by position or name. Not used for a container, which has ``user_ids``.
    time : int or str, optional
        The column of a table that holds the time, needed for ``by_time``. Not used for a container, which has ``timestamps``.
    random_state : int, RandomState instance or None, default=None
        Seeds the random choice. Pass an int to get the same parts every time. Not used with ``by_time``.

    Examples
    --------
    >>> from sk_torchmf import Interactions
    >>> from sk_torchmf.model_selection import ColdUserSplit
    >>> data = Interactions([0, 1, 2, 1, 2, 0], [0, 0, 1, 1, 2, 2], timestamps=[1, 2, 5, 3, 6, 7])
    >>> for train, test in ColdUserSplit(1, by_time=True, test_size=1).split(data):  # user 2 appeared last
    ...     print(data.user_ids[train], data.user_ids[test])
    [0 1 1] [2 2]
    """

    _role = "user"

    def __init__(self, n_splits=5, *, by_time=False, test_size=None, user=0, time=None, random_state=None):
        self._set(n_splits, by_time, test_size, time, random_state)
        self.user = user
