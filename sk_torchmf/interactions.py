"""Two containers: of observed (user, item) pairs, which scikit-learn can slice, and of attributes, which it must not slice."""

import copy

import numpy as np
import scipy.sparse as sp

from sk_torchmf._validation import check_below, check_ids, check_length, check_ratings


class Interactions:
    """Observed (user, item) pairs with optional ratings, timestamps and weights.

    It has the attributes of Spotlight's class of the same name, so Spotlight's models and metrics accept it. It can also be
    sliced by observation, as scikit-learn's splitters do: ``GridSearchCV(estimator, grid).fit(interactions,
    interactions.ratings)`` holds out single observations, whatever the splitter.

    Parameters
    ----------
    user_ids, item_ids : array-like of shape (n,), int
        Row and column numbers, >= 0. Floats that are whole numbers are converted. A pair may occur more than once; each
        occurrence is an observation of its own.
    ratings : array-like of shape (n,), float or int, optional
        The ratings, in any unit.
    timestamps : array-like of shape (n,), optional
        The time of each observation, in any unit.
    weights : array-like of shape (n,), float, optional
        A weight for each observation. ``fit`` uses them unless ``sample_weight`` is given.
    num_users, num_items : int, optional
        How many users and items there are; all ids must be smaller. By default the largest id plus one.

    Raises
    ------
    ValueError
        If ids are negative, fractional or out of range, or the arrays differ in length.

    Examples
    --------
    >>> from sk_torchmf import Interactions
    >>> interactions = Interactions([0, 0, 1], [0, 2, 2], ratings=[5.0, 3.0, 4.0])
    >>> interactions
    <Interactions dataset (2 users x 3 items x 3 interactions)>
    >>> interactions[[2]].user_ids, interactions[[2]].num_users
    (array([1]), 2)
    """

    ndim = 2

    def __init__(self, user_ids, item_ids, ratings=None, timestamps=None, weights=None, num_users=None, num_items=None):
        self.user_ids = check_ids(user_ids, "user_ids")
        self.item_ids = check_ids(item_ids, "item_ids")
        n = len(self.user_ids)
        check_length(self.item_ids, n, "item_ids")
        self.num_users = check_below(self.user_ids, num_users, "user_ids", "num_users")
        self.num_items = check_below(self.item_ids, num_items, "item_ids", "num_items")
        self.ratings = None if ratings is None else check_length(ratings, n, "ratings")
        self.timestamps = None if timestamps is None else check_length(timestamps, n, "timestamps")
        self.weights = None if weights is None else check_length(weights, n, "weights")

    @classmethod
    def from_matrix(cls, matrix):
        """Make Interactions of the stored entries of a users x items matrix, explicit zeros included.

        Parameters
        ----------
        matrix : scipy sparse matrix or array of shape (n_users, n_items)
            A matrix of any format and index type; the stored values are the ratings. The BSR format stores zeros to fill its
            blocks, and DIA drops explicit zeros: use another format where that matters.

        Returns
        -------
        Interactions
            The entries in row order. Duplicate entries of a COO matrix are summed, as SciPy does.

        Raises
        ------
        TypeError
            If ``matrix`` is not sparse.
        """
        if not sp.issparse(matrix):
            raise TypeError(f"matrix must be a scipy sparse matrix or array. Got {type(matrix).__name__}.")
        if matrix.ndim != 2:
            raise ValueError(f"matrix must have two dimensions, users x items. Got a sparse array of shape {matrix.shape}.")
        if not matrix.dtype.isnative:  # which SciPy's own sums do not take
            matrix = matrix.astype(matrix.dtype.newbyteorder("="))
        rows = matrix.tocsr()
        if not rows.has_canonical_format:
            rows = rows.copy()
            rows.sum_duplicates()
        n_users, n_items = rows.shape
        user_ids = np.repeat(np.arange(n_users, dtype=rows.indices.dtype), np.diff(rows.indptr))
        return cls(user_ids, rows.indices, rows.data, num_users=n_users, num_items=n_items)

    @property
    def shape(self):
        """``(n, 2)``: one row per observation, as scikit-learn counts samples."""
        return len(self.user_ids), 2

    def __len__(self):
        return len(self.user_ids)

    def __repr__(self):
        return f"<Interactions dataset ({self.num_users} users x {self.num_items} items x {len(self)} interactions)>"

    def __getitem__(self, index):
        """Select observations by index array, boolean mask or slice; the sizes stay those of the whole."""
        if isinstance(index, tuple):
            if len(index) != 2 or index[1] is not Ellipsis:
                raise IndexError("Interactions have a single index, the observation. Use interactions[index].")
            index = index[0]
        if isinstance(index, (int, np.integer)):
            index = np.arange(len(self))[index : index + 1 or None] if -len(self) <= index < len(self) else None
            if index is None:
                raise IndexError(f"Index out of range for {len(self)} interactions.")
        if self.user_ids[index].ndim != 1:
            raise IndexError("Interactions can be indexed by a slice, a one-dimensional array of positions, or a boolean mask.")
        part = copy.copy(self)
        for name in ("user_ids", "item_ids", "ratings", "timestamps", "weights"):
            values = getattr(self, name)
            setattr(part, name, None if values is None else values[index])
        return part

    def __array__(self, *args, **kwargs):
        raise TypeError(
            "Interactions cannot be converted to an array, because the ratings would be lost. Use interactions.user_ids, "
            ".item_ids, .ratings, or tocsr()."
        )

    def tocoo(self):
        """Return the ratings as a users x items matrix, as Spotlight does.

        Returns
        -------
        scipy.sparse.coo_matrix of shape (num_users, num_items)
            The entries are 1 if there are no ratings. A pair that occurs twice is stored twice.
        """
        values = np.ones(len(self)) if self.ratings is None else self.ratings
        if values.dtype.kind not in "biuf":
            values = check_ratings(values, len(self), "ratings")
        if not values.dtype.isnative or values.dtype == np.float16:  # which SciPy does not take
            values = values.astype(np.float64)
        return sp.coo_matrix((values, (self.user_ids, self.item_ids)), shape=(self.num_users, self.num_items))

    def tocsr(self):
        """Return the ratings as a users x items matrix, ready to be sliced by user.

        Returns
        -------
        scipy.sparse.csr_matrix of shape (num_users, num_items)
            The entries are 1 if there are no ratings. The ratings of a pair that occurs twice are summed.
        """
        return self.tocoo().tocsr()


def is_interactions(X):
    """Whether X is a container of pairs: ours, Spotlight's, or one with the same attributes."""
    return isinstance(X, Interactions) or (
        not hasattr(X, "columns") and hasattr(X, "user_ids") and hasattr(X, "item_ids") and hasattr(X, "num_users")
    )


def as_interactions(X):
    """Return X itself if it is ours, else its arrays in our container, not copied."""
    if isinstance(X, Interactions):
        return X
    names = ("user_ids", "item_ids", "ratings", "timestamps", "weights", "num_users", "num_items")
    return Interactions(**{name: getattr(X, name, None) for name in names})


class Features:
    """Attributes of users or items, one row per id, in a container that scikit-learn does not slice.

    ``GridSearchCV`` and ``cross_validate`` take a subset of every fit parameter that has as many rows as ``X``. But the rows of
    a table of attributes are users or items, not observations, so every fit needs the whole table. This container has neither a
    length nor a shape, and is therefore passed on whole.

    Parameters
    ----------
    table : DataFrame, Arrow table, sparse matrix or array of shape (n_ids, n_columns)
        The attributes. They are not copied. Of another ``Features``, its table is taken.

    Attributes
    ----------
    table : DataFrame, Arrow table, sparse matrix or array of shape (n_ids, n_columns)

    Raises
    ------
    TypeError
        If the table does not have two dimensions.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_torchmf import Features
    >>> features = Features(np.array([[1990.0, 1.0], [2001.0, 0.0], [1977.0, 1.0]]))
    >>> features
    <Features (3 rows x 2 columns)>
    >>> Features(features).table is features.table
    True
    """

    def __init__(self, table):
        self.table = as_attributes(table, "table")

    def __repr__(self):
        n_rows, n_columns = np.shape(self.table)
        return f"<Features ({n_rows} rows x {n_columns} columns)>"


def as_attributes(table, name):
    """Return a table of attributes, out of its container where it is in one; ``name`` is the argument's, for messages."""
    if isinstance(table, Features):
        return table.table
    got, hint = type(table).__name__, ""
    if got == "LazyFrame":  # of polars, which has no rows yet
        hint = " Pass its collect()."
    elif not isinstance(table, type) and not is_interactions(table):
        try:
            shape = np.shape(table)
        except ValueError:
            shape = ()
            hint = " Its rows are of unequal lengths."
        if len(shape) == 2:
            return table
        hint = f" Its shape is {tuple(shape)}, but a table has one row per id and one column per attribute." if len(shape) else hint
    raise TypeError(f"{name} must be a table of attributes: a DataFrame, a sparse matrix or a 2-D array. Got {got}.{hint}")
