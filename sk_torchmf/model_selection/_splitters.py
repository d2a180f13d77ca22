"""Splitters with scikit-learn's ``split`` method that hold observations out. They use users and times, not ratings."""

import numpy as np
import scipy.sparse as sp

from sk_torchmf._validation import check_count, check_seed
from sk_torchmf.inputs.holdout import places
from sk_torchmf.model_selection._base import Splitter, check_enough, check_folds, check_size, count_of, number_ids, rank_times


class LeaveLastOut(Splitter):
    """Hold out each user's last observations, and train on all others.

    Parameters
    ----------
    n : int, default=1
        How many observations of each user are held out. Users with n observations or fewer are not tested.
    user : int or str, default=0
        The column of a table that holds the users, by position or name. Not used for a container, which has ``user_ids``.
    time : int or str, optional
        The column of a table that holds the time, by position or name. Not used for a container, which has ``timestamps``. Among
        equal times the later row counts as the later one.

    Examples
    --------
    >>> from sk_torchmf import Interactions
    >>> from sk_torchmf.model_selection import LeaveLastOut
    >>> data = Interactions([0, 0, 0, 1, 1, 2], [0, 1, 2, 0, 1, 0], timestamps=[5, 9, 7, 2, 1, 3])
    >>> for train, test in LeaveLastOut().split(data):
    ...     print(train, test)
    [0 2 4 5] [1 3]
    """

    def __init__(self, n=1, *, user=0, time=None):
        self.n = check_count(n, "n")
        self.user = user
        self.time = time

    def _parts(self, X):
        yield _leave_out(number_ids(X, self.user, "user"), rank_times(X, self.time), self.n)


class LeaveRandomOut(Splitter):
    """Hold out some observations of each user, drawn at random, and train on all others.

    Parameters
    ----------
    n : int, default=1
        How many observations of each user are held out. Users with n observations or fewer are not tested.
    n_splits : int, default=1
        How many splits to draw.
    user : int or str, default=0
        The column of a table that holds the users, by position or name. Not used for a container, which has ``user_ids``.
    random_state : int, RandomState instance or None, default=None
        Seeds the draws. Pass an int to get the same splits every time.

    Examples
    --------
    >>> from sk_torchmf import Interactions
    >>> from sk_torchmf.model_selection import LeaveRandomOut
    >>> data = Interactions([0, 0, 0, 1, 1, 2], [0, 1, 2, 0, 1, 0])
    >>> for train, test in LeaveRandomOut(n_splits=2, random_state=0).split(data):
    ...     print(data.user_ids[train], data.user_ids[test])
    [0 0 1 2] [0 1]
    [0 0 1 2] [0 1]
    """

    def __init__(self, n=1, *, n_splits=1, user=0, random_state=None):
        self.n = check_count(n, "n")
        self.n_splits = check_count(n_splits, "n_splits")
        self.user = user
        self.random_state = random_state

    def _parts(self, X):
        user, rng = number_ids(X, self.user, "user"), np.random.default_rng(check_seed(self.random_state))
        for _ in range(self.n_splits):
            yield _leave_out(user, rng.random(len(user)), self.n)


class UserKFold(Splitter):
    """Divide the observations of each user into K folds: every training part has about (1 - 1/K) of each user's observations.

    Each observation is tested once. The folds are as equal in size as possible, for each user and over all. A user with a single
    observation is unknown in the training part of the fold that tests it.

    Parameters
    ----------
    n_splits : int, default=5
        K, at least 2.
    shuffle : bool, default=True
        Assign observations to folds at random, instead of in their order.
    user : int or str, default=0
        The column of a table that holds the users, by position or name. Not used for a container, which has ``user_ids``.
    random_state : int, RandomState instance or None, default=None
        Seeds the shuffling. Pass an int to get the same folds every time.

    Examples
    --------
    >>> from sk_torchmf import Interactions
    >>> from sk_torchmf.model_selection import UserKFold
    >>> data = Interactions([0, 0, 1, 1, 1, 1], [0, 1, 0, 1, 2, 3])
    >>> for train, test in UserKFold(2, random_state=0).split(data):
    ...     print(data.user_ids[train], data.user_ids[test])
    [0 1 1] [0 1 1]
    [0 1 1] [0 1 1]
    """

    def __init__(self, n_splits=5, *, shuffle=True, user=0, random_state=None):
        self.n_splits = check_folds(n_splits)
        self.shuffle = shuffle
        self.user = user
        self.random_state = random_state

    def _parts(self, X):
        user = number_ids(X, self.user, "user")
        check_enough(self.n_splits, len(user), "observations")
        key = np.zeros(len(user))
        if self.shuffle:
            rng = np.random.default_rng(check_seed(self.random_state))
            user, key = rng.permutation(user.max() + 1)[user], rng.random(len(user))
        fold = np.empty(len(user), dtype=np.int64)
        fold[np.lexsort((key, user))] = np.arange(len(user)) % self.n_splits  # a user's stand side by side: dealt out in turn
        yield from ((fold != k, fold == k) for k in range(self.n_splits))


class TimeSplit(Splitter):
    """Hold out the last observations, and train on all before them: one cut in time for all users.

    Parameters
    ----------
    test_size : float or int, default=0.1
        The share of the observations in a test part, between 0 and 1, or their number. Observations with the time of the cut are on
        its later side, so a part may have more.
    n_splits : int, default=1
        How many test parts there are. They follow one another up to the end, and each is trained on all observations before it.
    time : int or str, optional
        The column of a table that holds the time, by position or name. Not used for a container, which has ``timestamps``.

    Examples
    --------
    >>> from sk_torchmf import Interactions
    >>> from sk_torchmf.model_selection import TimeSplit
    >>> data = Interactions([0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2], timestamps=[5, 9, 7, 2, 1, 3])
    >>> for train, test in TimeSplit(2, n_splits=2).split(data):
    ...     print(train, test)
    [3 4] [0 5]
    [0 3 4 5] [1 2]
    """

    def __init__(self, test_size=0.1, *, n_splits=1, time=None):
        self.test_size = check_size(test_size)
        self.n_splits = check_count(n_splits, "n_splits")
        self.time = time

    def _parts(self, X):
        time = rank_times(X, self.time)
        n = len(time)
        size = count_of(self.test_size, n)
        if self.n_splits * size >= n:
            raise ValueError(
                f"test_size={self.test_size} and n_splits={self.n_splits} leave none of the {n} observations to train on. Lower "
                "one of them."
            )
        cuts = np.append(np.sort(time)[n - size * np.arange(self.n_splits, 0, -1)], n)  # times are ranks below n
        if cuts[0] == 0 or (np.diff(cuts) == 0).any():
            raise ValueError(
                "A part would be empty, because too many observations have the same time. Raise test_size or lower n_splits."
            )
        yield from ((time < start, (time >= start) & (time < stop)) for start, stop in zip(cuts[:-1], cuts[1:], strict=True))


class HeldOutUsers(Splitter):
    """Divide the users into K folds: all observations of a user are in the same test part.

    The rows of a sparse matrix are users: ``ranking_scorer`` folds a part of each held-out row in and scores the rest. Held-out
    users of a table or container are unknown to the estimator, and are scored as unknown users.

    Parameters
    ----------
    n_splits : int, default=5
        K, at least 2 and at most the number of users.
    shuffle : bool, default=True
        Assign users to folds at random, instead of in the order of their ids.
    user : int or str, default=0
        The column of a table that holds the users, by position or name. Not used for a container, which has ``user_ids``.
    random_state : int, RandomState instance or None, default=None
        Seeds the shuffling. Pass an int to get the same folds every time.

    Examples
    --------
    >>> from sk_torchmf import Interactions
    >>> from sk_torchmf.model_selection import HeldOutUsers
    >>> data = Interactions([0, 0, 1, 1, 2, 3], [0, 1, 0, 1, 2, 3])
    >>> for train, test in HeldOutUsers(2, shuffle=False).split(data):
    ...     print(data.user_ids[train], data.user_ids[test])
    [1 1 3] [0 0 2]
    [0 0 2] [1 1 3]
    """

    def __init__(self, n_splits=5, *, shuffle=True, user=0, random_state=None):
        self.n_splits = check_folds(n_splits)
        self.shuffle = shuffle
        self.user = user
        self.random_state = random_state

    def _parts(self, X):
        user = np.arange(X.shape[0]) if sp.issparse(X) else number_ids(X, self.user, "user")
        n_users = int(user.max(initial=-1)) + 1
        check_enough(self.n_splits, n_users, "users")
        rng = np.random.default_rng(check_seed(self.random_state))
        fold = (rng.permutation(n_users) if self.shuffle else np.arange(n_users))[user] % self.n_splits
        yield from ((fold != k, fold == k) for k in range(self.n_splits))


def _leave_out(user, key, n):
    """Masks of all but the last n observations of each user in the order of a key, and of these."""
    place, count = places(user, key)
    test = (place >= count - n) & (count > n)
    if not test.any():
        raise ValueError(f"At least one user must have more than n={n} observations. None has. Lower n or add observations.")
    return ~test, test
