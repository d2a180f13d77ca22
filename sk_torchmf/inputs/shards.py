"""A data set on disk: ratings that do not fit in memory, in shards of whole users. Knows neither solvers nor processes."""

import copy
from functools import cached_property

import numpy as np

from sk_torchmf._validation import check_count, check_flag
from sk_torchmf.inputs.row_sources import ChunkRows, load_pyarrow, parquet_rows
from sk_torchmf.inputs.shard_building import KIND, MOST_SHARDS, ROLES, build
from sk_torchmf.storage.array_folder import ArrayFolder


class UserBlock:
    """Some users and all of their ratings: a shard, or consecutive users of one.

    Parameters
    ----------
    offset : int
        The number of the first user in the whole data set.
    users : callable
        Returns the labels of the users.
    pointers : ndarray of shape (n_users + 1,), int32 or int64
        The ratings of the block's user u are those from ``pointers[u]`` to ``pointers[u + 1]``.
    columns : ndarray of shape (n_ratings,), uint16 or int32
        Positions in the labels of the items, ascending for each user.
    codes : ndarray of shape (n_ratings,), uint8 or float32, optional
        The ratings themselves, or their positions in ``levels``.
    levels : ndarray of shape (n_levels,), float32, optional
        The distinct ratings, ascending; None if ``codes`` are the ratings.
    weights : ndarray of shape (n_ratings,), float32, optional
        Greater than zero; None if all weights are one.
    timestamps : ndarray of shape (n_ratings,), optional
        Times as they were passed: int64, float64 or datetime64.

    Attributes
    ----------
    offset : int
    pointers, columns, codes, levels, weights, timestamps : ndarray or None
        As the parameters. Only the parts that are read take memory.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_torchmf import UserBlock
    >>> labels = np.array(["ann", "bob"], dtype=object)
    >>> levels = np.array([1.0, 5.0], dtype=np.float32)
    >>> block = UserBlock(0, lambda: labels, np.array([0, 2, 3]), np.array([0, 4, 4]), np.array([1, 0, 1]), levels)
    >>> block, block.ratings
    (<UserBlock (2 users x 3 ratings, from user 0)>, array([5., 1., 5.], dtype=float32))
    >>> block.between(1, 2).users
    array(['bob'], dtype=object)
    """

    def __init__(self, offset, users, pointers, columns, codes=None, levels=None, weights=None, timestamps=None):
        self.offset, self._users, self.pointers, self.columns = offset, users, pointers, columns
        self.codes, self.levels, self.weights, self.timestamps = codes, levels, weights, timestamps

    def __repr__(self):
        return f"<UserBlock ({self.n_users} users x {self.n_ratings} ratings, from user {self.offset})>"

    def __len__(self):
        return self.n_users

    @property
    def n_users(self):
        """How many users there are; some may have no ratings."""
        return len(self.pointers) - 1

    @property
    def n_ratings(self):
        """How many ratings there are."""
        return len(self.columns)

    @property
    def users(self):
        """Labels of the users, ndarray of shape (n_users,), sorted within a shard; read from disk at each access."""
        return self._users()

    @property
    def ratings(self):
        """Ratings, ndarray of shape (n_ratings,), float32, a new array at each access; None if the data have no ratings."""
        if self.codes is None:
            return None
        return np.asarray(self.codes) if self.levels is None else self.levels[self.codes]

    def between(self, start, stop):
        """Return consecutive users of the block, without copying them.

        Parameters
        ----------
        start, stop : int
            The positions in this block of the first user and of the first one after the last.

        Returns
        -------
        UserBlock
            Its ``offset`` is the number of its first user.
        """
        start, stop, _ = slice(start, stop).indices(self.n_users)
        stop, users = max(start, stop), self._users
        pointers = self.pointers[start : stop + 1]
        span = slice(int(pointers[0]), int(pointers[-1]))
        codes, weights, timestamps = (None if own is None else own[span] for own in (self.codes, self.weights, self.timestamps))
        own, columns = pointers - pointers[0], self.columns[span]
        return UserBlock(self.offset + start, lambda: users()[start:stop], own, columns, codes, self.levels, weights, timestamps)


class Shards:
    """A data set on disk, made by ``from_parquet`` or ``from_chunks``: a folder of shards, each with all ratings of its users.

    A rating takes 2 to 12 bytes on disk: two for its item if there are at most 65,536 items, else four; one for its value, if it
    has one and there are at most 256 distinct ones, else four; four for its weight if the weights are not all one. A timestamp
    takes eight more. The files are memory-mapped: opening them reads nothing, and only the parts that are used take memory.

    Parameters
    ----------
    folder : str or os.PathLike
        The folder that ``from_parquet`` or ``from_chunks`` made. It may have been moved since.

    Attributes
    ----------
    folder : str
    n_users, n_items, n_ratings : int
        How many there are. Rows of weight zero do not count as ratings, but their users and items are known.
    offsets : ndarray of shape (n_shards + 1,), int64
        The users of shard ``at`` are those from ``offsets[at]`` to ``offsets[at + 1]``.
    names : dict of str to str or int
        The columns that were read, by role: user, item, rating, weight, timestamp.
    rating_range : tuple of float or None
        The lowest and the highest rating; None if the data have no ratings.
    n_bytes : int
        Size of the folder, in bytes.
    first_user : int
        The number of the first user in the whole folder; not 0 after ``part``.
    digest : str
        A hash of the data. The same data and the same number of shards have the same digest, in whatever order and files the data
        were passed.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ValueError
        If the folder holds something else, was written by a newer version, or has missing or truncated files.

    Notes
    -----
    The shard of a user depends only on a stable hash of the label: 17 and 17.0 are one label, 17 and "17" are two. The same rows in
    another order, or in other files, make the same shards, byte for byte: within a shard users are sorted by label, and ratings by
    user, item, rating, weight and timestamp. If the number of shards is a power of two, the first half of the shards holds the same
    users whichever power it is.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from sk_torchmf import Shards
    >>> rows = {"who": ["ann", "ann", "bob"], "what": [7, 3, 3], "stars": [5.0, 1.0, 4.5]}
    >>> with tempfile.TemporaryDirectory() as parent:
    ...     folder = pathlib.Path(parent, "shards")
    ...     shards = Shards.from_chunks([rows], folder, user="who", item="what", rating="stars", n_shards=2)
    ...     shards
    ...     for block in shards:
    ...         print(block.users, block.pointers, block.columns, block.ratings)
    <Shards (2 users x 2 items x 3 ratings in 2 shards)>
    [] [0] [] []
    ['ann' 'bob'] [0 2 3] [0 1 0] [1.  5.  4.5]
    """

    def __init__(self, folder):
        self._files = ArrayFolder(folder, KIND)
        self.folder, self.n_bytes, self.digest = self._files.path, self._files.n_bytes, self._files.digest
        meta = self._files.meta
        try:
            self.names, self.n_items, self._sizes = dict(meta["names"]), int(meta["n_items"]), list(meta["shards"])
            self.n_users, self.n_ratings = (sum(own[name] for own in self._sizes) for name in ("n_users", "n_ratings"))
            self.rating_range = tuple(meta["rating_range"]) if "rating_range" in meta else None
        except (LookupError, TypeError, ValueError) as error:
            raise ValueError(
                f"The manifest of {self.folder} must list its shards, and it cannot be read ({error!r}). Build the Shards again."
            ) from None
        self.offsets = np.cumsum([0, *(own["n_users"] for own in self._sizes)])
        self._first, self.first_user = 0, 0  # of the shards in the folder, where these are some of them
        self._levels = np.array(self._files.array("levels")) if "levels" in self._files else None

    @classmethod
    def from_parquet(cls, source, folder, *, user, item, rating=None, weight=None, timestamp=None, n_shards=None, progress=False):
        """Make a data set on disk from Parquet files, which need not fit in memory.

        The files are read twice, and their rows are written twice, the second time sorted. The folder appears only when it is
        complete.

        Parameters
        ----------
        source : str, os.PathLike, list of these or pyarrow.dataset.Dataset
            Files, and folders of files such as Spark writes. Names of folders such as ``year=2026`` are read as columns too. A
            Dataset with a filter, or of another format, takes some 200 MiB more memory while it is read.
        folder : str or os.PathLike
            The folder to make, which must not exist yet. While it is written it takes some 7 to 15 bytes per rating, and the ids of
            users.
        user, item : str or int
            The columns of ids, by name or position. Ids are whole numbers or text; 17 and 17.0 are one id.
        rating : str or int, optional
            The column of ratings. Without it, every row counts as a positive.
        weight : str or int, optional
            The column of weights, which are >= 0. Rows of weight zero are left out.
        timestamp : str or int, optional
            The column of times: numbers in any unit, or dates.
        n_shards : int, optional
            The number of shards among which the users are divided, 1 to 4096. By default a power of two: 16, or more if shards
            would have more than some two million ratings.
        progress : bool, default=False
            Show progress on stderr: a tqdm bar if tqdm is installed, else a line for every tenth.

        Returns
        -------
        Shards
            The folder, opened.

        Raises
        ------
        FileExistsError
            If the folder exists already, or another process is building it.
        OSError
            If the folder cannot be written, for example because the disk is full. Nothing is left behind.
        ValueError
            If a column is missing, an id or rating is missing or not finite, or the data have no rows. The message names the file
            and the row.
        TypeError
            If ids are booleans or mix numbers and text, or ratings are not numbers.
        ImportError
            If pyarrow is not installed.
        """
        pyarrow = load_pyarrow("Shards.from_parquet")
        keys = dict(zip(ROLES, (user, item, rating, weight, timestamp), strict=True))
        return cls._build(parquet_rows(source, pyarrow), folder, keys, n_shards, progress, pyarrow)

    @classmethod
    def from_chunks(cls, chunks, folder, *, user, item, rating=None, weight=None, timestamp=None, n_shards=None, progress=False):
        """Make a data set on disk from tables that are passed one after the other; see ``from_parquet``.

        Parameters
        ----------
        chunks : callable or list
            A list of tables, or a function that returns an iterator of them and is called twice. A table is a DataFrame of pandas
            or polars, an Arrow table, a dict of arrays, or a tuple of arrays, whose columns are named by their positions.
        folder : str or os.PathLike
            The folder to make, which must not exist yet.
        user, item : str or int
            The columns of ids, by name or position.
        rating, weight, timestamp : str or int, optional
            The columns of ratings, of weights and of times.
        n_shards : int, optional
            The number of shards among which the users are divided.
        progress : bool, default=False
            Show progress on stderr.

        Returns
        -------
        Shards
            The folder, opened.
        """
        pyarrow = load_pyarrow("Shards.from_chunks")
        keys = dict(zip(ROLES, (user, item, rating, weight, timestamp), strict=True))
        return cls._build(ChunkRows(chunks, pyarrow), folder, keys, n_shards, progress, pyarrow)

    @classmethod
    def _build(cls, rows, folder, keys, n_shards, progress, pyarrow):
        for role in ROLES[:2]:
            if keys[role] is None:
                raise TypeError(f"{role} must be a column's name or position. Got None.")
        if n_shards is not None and check_count(n_shards, "n_shards") > MOST_SHARDS:
            raise ValueError(f"n_shards must be at most {MOST_SHARDS}. Got {n_shards}.")
        build(rows, folder, keys, n_shards=n_shards, progress=check_flag(progress, "progress"), pyarrow=pyarrow)
        return cls(folder)

    def __repr__(self):
        what = "interactions" if self.rating_range is None else "ratings"
        sizes = f"{self.n_users} users x {self.n_items} items x {self.n_ratings} {what}"
        return f"<Shards ({sizes} in {len(self)} shards)>"

    def __len__(self):
        return len(self._sizes)

    def __getitem__(self, at):
        """Return a shard as a ``UserBlock``, by its number."""
        at = range(len(self))[at]
        number = self._first + at

        def part(name):
            name = f"{number:05}_{name}"
            return self._files.array(name) if name in self._files or name.endswith(("pointers", "columns")) else None

        pointers, columns, codes, weights, timestamps = map(part, ("pointers", "columns", "ratings", "weights", "timestamps"))
        offset, levels = int(self.offsets[at]), self._levels
        return UserBlock(offset, lambda: self._labels(f"{number:05}_users"), pointers, columns, codes, levels, weights, timestamps)

    def __iter__(self):
        """Go through the shards, in order.

        Yields
        ------
        UserBlock
        """
        return (self[at] for at in range(len(self)))

    @cached_property
    def items(self):
        """Labels of the items, ndarray of shape (n_items,), sorted; text has dtype object. They are kept in memory once read."""
        return self._labels("items")

    @property
    def users(self):
        """Labels of the users, ndarray of shape (n_users,), shard after shard; read from disk at each access."""
        return np.concatenate([self._labels(f"{self._first + at:05}_users") for at in range(len(self))])

    def part(self, at, n):
        """Return one of several equal parts of the shards, as several processes divide them; the hash of a label decides its part.

        Parameters
        ----------
        at : int
            The number of the part, from 0.
        n : int
            How many parts there are. It must divide the number of shards.

        Returns
        -------
        Shards
            All items, and the users of the part, numbered from 0: ``first_user`` is the number that the first of them has here.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> from sk_torchmf import Shards
        >>> rows = {"who": ["ann", "ann", "bob"], "what": [7, 3, 3]}
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     shards = Shards.from_chunks([rows], pathlib.Path(parent, "shards"), user="who", item="what", n_shards=2)
        ...     [shards.part(at, 2).n_users for at in range(2)]
        [0, 2]
        """
        if len(self) % n:
            raise ValueError(
                f"The number of shards must be a multiple of the number of parts, {n}. Got {len(self)}. Build the Shards with "
                f"n_shards={16 * n}."
            )
        part, size = copy.copy(self), len(self) // n
        part._first, part._sizes = self._first + at * size, self._sizes[at * size : (at + 1) * size]
        part.first_user = self.first_user + int(self.offsets[at * size])
        part.n_users, part.n_ratings = (sum(own[name] for own in part._sizes) for name in ("n_users", "n_ratings"))
        part.offsets = np.cumsum([0, *(own["n_users"] for own in part._sizes)])
        return part

    def verify(self):
        """Read every byte, and raise ValueError if a file differs from what was written."""
        self._files.verify()

    def _labels(self, name):
        if name in self._files:
            return np.array(self._files.array(name))
        data, ends = self._files.array(f"{name}_text").tobytes(), self._files.array(f"{name}_ends").tolist()
        labels = np.empty(len(ends), dtype=object)
        labels[:] = [data[start:stop].decode() for start, stop in zip([0, *ends], ends, strict=False)]
        return labels
