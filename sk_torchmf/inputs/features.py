"""Tables of attributes of users or items: whose row is whose, and their encoding as one sparse matrix. Knows no model."""

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn import clone, config_context

from sk_torchmf._validation import check_ids
from sk_torchmf.exceptions import warn
from sk_torchmf.inputs.cells import check_attributes, names_of
from sk_torchmf.inputs.encoders import FeatureEncoder, Passthrough
from sk_torchmf.inputs.forms import SPARSE, TABLE
from sk_torchmf.inputs.id_types import as_table
from sk_torchmf.inputs.labels import column, is_frame
from sk_torchmf.inputs.labels import encode as number_labels
from sk_torchmf.interactions import Features, as_attributes
from sk_torchmf.solvers.design import MISSING


@dataclass(frozen=True)
class FeatureTable:
    """Attributes by id.

    Attributes
    ----------
    ids : ndarray of shape (n,)
        Sorted and distinct: labels as ``labels.encode`` makes them, or positions.
    rows : DataFrame, csr_array or ndarray of shape (n, n_attributes)
        In the order of ``ids``.
    role : {"user", "item"}
    """

    ids: np.ndarray
    rows: Any
    role: str

    def check_positions(self, n):
        """Refuse a position that is none of ``n``."""
        if len(self.ids) and self.ids[-1] >= n:
            raise ValueError(
                f"{self.role}_features has a row for the {self.role} {self.ids[-1]}, but X has {n} {self.role}s, counted from 0. "
                f"Drop the row, or let X have as many {self.role}s."
            )


@dataclass(frozen=True)
class EncodedFeatures:
    """Attributes of the ids 0 .. n-1 as numbers.

    Attributes
    ----------
    matrix : csr_array of shape (n, n_columns), float64
        Finite; rows of ids that are not described are empty.
    names : ndarray of shape (n_columns,), object
    groups : dict of str to slice
        Contiguous columns that belong together, and between them all columns.
    described : ndarray of shape (n,), bool
        Which ids the table has.
    """

    matrix: sp.csr_array
    names: np.ndarray
    groups: dict
    described: np.ndarray

    def placed(self, place, n):
        """The same rows at the places (n_before,) among ``n``, -1 for a row that is left out; the others are not described."""
        place = np.asarray(place)
        kept = np.flatnonzero(place >= 0)
        source = np.full(n, len(place))  # of all that is not described one empty row behind the others
        source[place[kept]] = kept
        described = np.append(self.described, False)[source]
        empty = sp.csr_array((1, self.matrix.shape[1]), dtype=np.float64)
        return replace(self, matrix=_stacked(sp.vstack, self.matrix, empty)[source], described=described)

    def updated(self, more):
        """These rows, but those of ``more`` where it describes an id; both have the same columns and ids."""
        if self.names.tolist() != more.names.tolist() or self.matrix.shape != more.matrix.shape:
            raise ValueError(f"Features must have the columns that fit saw. Got {len(more.names)} columns, not {len(self.names)}.")
        n = len(self.described)
        source = np.arange(n) + n * more.described
        both = _stacked(sp.vstack, self.matrix, more.matrix)
        return replace(self, matrix=both[source], described=self.described | more.described)

    def groups_of(self, rows, some_missing=None):
        """The groups of columns of some ids, (n_rows,): CSR arrays by name; that any is not described is a column of its own.

        ``some_missing`` says whether any is, where other processes have ids too.
        """
        part = self.matrix[rows]
        groups = {name: part[:, columns] for name, columns in self.groups.items()}
        missing = ~self.described[rows]
        if missing.any() if some_missing is None else some_missing:
            groups[MISSING] = sp.csr_array(missing[:, None], dtype=np.float64)
        return groups


def _stacked(stack, *parts):
    return sp.csr_array(stack(parts, format="csr"))  # of arrays too SciPy 1.11 makes a matrix


def read_table(features, role, key, form, n_rows):
    """Read the argument ``user_features`` or ``item_features``.

    Parameters
    ----------
    features : Features, DataFrame, Arrow table, sparse matrix or array of shape (n, n_attributes)
        A frame is keyed by its column ``key``, else by that named like the role, else by its index. Beside a table X these are the
        caller's ids, else positions. A matrix has a row for each position, and so has a frame without any key. A bare frame of
        users beside a sparse X that has as many rows, and an index that does not number them, was cut with X and is in its order.
    role : {"user", "item"}
    key : int or str
        The estimator's parameter of that name.
    form : {SPARSE, TABLE, INTERACTIONS}
        The form of X.
    n_rows : int or None
        Rows of X as scikit-learn counts them: a bare table with as many may have been cut with X, and is refused, but for users
        beside a sparse X, of which a row is a user. None to let it pass.

    Returns
    -------
    FeatureTable

    Raises
    ------
    TypeError
        For what is no table, boolean ids and complex numbers.
    ValueError
        For a table without rows or columns, ids that are missing or occur twice, or no ids beside a table X.
    """
    name = f"{role}_features"
    table = as_attributes(features, name)
    if hasattr(table, "column_names") and hasattr(table, "to_pandas"):
        table = _from_arrow(table, name)
    with naming(name):
        table = check_attributes(table) if is_frame(table) else _as_matrix(table)
    n, is_bare = table.shape[0], not isinstance(features, Features)
    is_cut = role == "user" and form == SPARSE  # with X, whose rows are users
    if is_bare and n == n_rows and not is_cut:
        raise ValueError(
            f"{name} has {n} rows, as many as X. scikit-learn's cross-validation would pass only some of these rows to each fit, "
            f"which cannot be told apart from a whole table. Pass {name}=Features(table)."
        )
    if not is_frame(table):
        if form == TABLE:
            raise ValueError(
                f"{name} must be a DataFrame when X is a table, because the rows of a matrix have no ids. Put the ids in a column "
                f"{role!r}."
            )
        return FeatureTable(np.arange(n), table, role)
    ids, rows = _split_ids(table, name, role, key, form)
    if rows is table and form == TABLE:
        _warn_of_an_index_that_counts(table, name, role)
    elif rows is table and is_cut and is_bare and n == n_rows and not np.array_equal(np.sort(_integers(ids)), np.arange(n)):
        ids = np.arange(n)  # the index is still that of the whole
    code, labels = _distinct(ids, name)
    if form != TABLE:
        labels = check_ids(labels, f"{name} ids")
    order = np.argsort(code)
    if not np.array_equal(order, np.arange(n)):  # many sparse columns take long to permute
        rows = rows.iloc[order] if hasattr(rows, "iloc") else rows[order]
    return FeatureTable(labels, rows, role)


def _split_ids(table, name, role, key, form):
    """The ids of a frame's rows, and the frame without the column that holds them where one does."""
    by = next((known for known in (key, role) if isinstance(known, str) and known in table.columns), None)
    if by is not None:
        if table.shape[1] == 1:
            raise ValueError(f"{name} has only the column {by!r}, which holds the ids. It needs at least one more, an attribute.")
        return column(table, by, role), table[[own for own in table.columns if own != by]]
    if hasattr(table, "index"):
        return table.index, table
    if form == TABLE:
        raise ValueError(
            f"{name} needs a column {role!r} that holds the ids when X is a table. The columns are {names_of(table)[:10]}."
        )
    return np.arange(len(table)), table


def _from_arrow(table, name):
    try:
        return table.to_pandas()
    except ImportError:
        raise ImportError(
            f"{name} is an Arrow table, which is read by pandas. Run: pip install pandas. Or pass polars.from_arrow(table)."
        ) from None


def _as_matrix(table):
    """A matrix, sparse or dense, in rows; what its entries are is for the encoder to say, but for complex ones."""
    if isinstance(table, np.ma.MaskedArray):
        table = np.ma.filled(table.astype(np.float64), np.nan)
    if not sp.issparse(table):
        table = np.asarray(as_table(table))
    if table.dtype.kind == "c" or (sp.issparse(table) and table.dtype.kind not in "biuf"):
        raise ValueError(f"It must hold real numbers. Got dtype {table.dtype}: complex data not supported.")
    if 0 in table.shape:
        raise ValueError(f"It has shape {table.shape}, but at least one row and one column are needed.")
    if not sp.issparse(table):
        return table
    if table.dtype.itemsize > 8 or not table.dtype.isnative or table.dtype == np.float16:  # which SciPy does not take everywhere
        table = table.astype(np.float64)
    rows = sp.csr_array(table, copy=True)
    rows.sum_duplicates()
    return rows


def _integers(index):
    """The values of an index of integers, else none."""
    values = np.asarray(index)
    return values if values.dtype.kind in "iu" else np.empty(0, dtype=np.int64)


def _distinct(ids, name):
    """Number the ids of a table's rows, refusing one that two rows have."""
    code, labels = number_labels(ids, name)
    if labels.dtype.kind == "b":
        raise TypeError(f"{name} ids must be numbers, text or times. Got booleans.")
    if len(labels) < len(code):
        twice = labels[np.bincount(code) > 1].tolist()[0]
        raise ValueError(f"{name} must have one row per id. Got more than one for {twice!r}. Drop all but one, or merge them.")
    return code, labels


def _warn_of_an_index_that_counts(table, name, role):
    """Warn where ids come from an index that nobody made, while a column looks like them."""
    index = table.index
    if type(index).__name__ != "RangeIndex" or index.name is not None or index[0] != 0 or len(index) < 2:
        return
    for own in table.columns:
        if str(own).lower().endswith("id") and column(table, table.columns.get_loc(own), role).nunique() == len(index):
            warn(
                f"{name} has no column {role!r}, so its index, which counts the rows from 0, was taken for the ids. If the ids "
                f"are in the column {own!r} pass table.set_index({own!r}). If not, drop that column."
            )


@contextmanager
def naming(name):
    """Put the argument's name before the words of an error."""
    try:
        yield
    except (ValueError, TypeError) as error:
        kind = ValueError if isinstance(error, ValueError) else TypeError
        raise kind(f"{name}: {error}") from error


def fit_encoder(encoder, table, role):
    """Fit the parameter ``user_encoder`` or ``item_encoder``.

    Parameters
    ----------
    encoder : "auto", "passthrough" or transformer
        "auto" is ``FeatureEncoder()`` for a frame; a matrix holds numbers already, which are taken as they are.
    table : FeatureTable
    role : {"user", "item"}

    Returns
    -------
    transformer
        A fitted one; what was given is cloned first.

    Raises
    ------
    TypeError
        For what is no transformer.
    ValueError
        For a table that it does not take, in its own words.
    """
    name = f"{role}_encoder"
    if isinstance(encoder, str):
        if encoder not in ("auto", "passthrough"):
            raise ValueError(f'{name} must be "auto", "passthrough" or a scikit-learn transformer. Got {encoder!r}.')
        encoder = FeatureEncoder() if encoder == "auto" and is_frame(table.rows) else Passthrough()
        name = f"{role}_features"
    elif isinstance(encoder, type) or not (hasattr(encoder, "fit") and hasattr(encoder, "transform")):
        raise TypeError(f'{name} must be "auto", "passthrough" or a scikit-learn transformer, not its class. Got {encoder!r}.')
    with naming(name), config_context(transform_output="default"):
        return clone(encoder).fit(table.rows)


def encode(encoder, table, place, n):
    """Encode a table for the ids 0 .. n-1.

    Parameters
    ----------
    encoder : transformer
        Fitted, see ``fit_encoder``.
    table : FeatureTable
        With the columns that it was fitted on; of a frame in any order.
    place : array-like of shape (n_rows,), int
        The id that each row of the table describes; -1 leaves it out.
    n : int

    Returns
    -------
    EncodedFeatures
        A group for each column of the table where ``encoder`` is a ``FeatureEncoder``, for each of its transformers where it is a
        ``ColumnTransformer``; else all columns are one, "features".

    Raises
    ------
    ValueError
        For a table that the encoder does not take, and for an output that is not one row of finite numbers for each row.
    """
    ours = isinstance(encoder, FeatureEncoder | Passthrough)
    rows, name = table.rows, f"{table.role}_features" if ours else f"{table.role}_encoder"
    if is_frame(rows) and set(getattr(encoder, "feature_names_in_", ())) == set(rows.columns):
        rows = rows[list(encoder.feature_names_in_)]
    with naming(name), config_context(transform_output="default"):
        matrix = _as_numbers(encoder.transform(rows), len(table.ids))
        names = _names(encoder, matrix.shape[1])
        if not np.isfinite(matrix.data).all():
            at = int(np.flatnonzero(~np.isfinite(matrix.data))[0])
            raise ValueError(
                f"Column {names[matrix.indices[at]]!r} holds {matrix.data[at]}. Fill in such cells, or use an encoder: "
                "FeatureEncoder marks missing cells, SimpleImputer fills them in."
            )
    return EncodedFeatures(matrix, names, _groups(encoder, len(names)), np.ones(len(table.ids), dtype=bool)).placed(place, n)


def _as_numbers(output, n_rows):
    """What a transformer returned as a csr_array of shape (n_rows, n_columns) without stored zeros."""
    if is_frame(output):
        output = output.to_numpy()
    if not sp.issparse(output):
        output = np.asarray(output)
    if output.ndim != 2 or output.shape[0] != n_rows or output.dtype.kind not in "biuf":
        raise ValueError(
            f"It must return one row of numbers for each of the {n_rows} rows of the table. Got {output.dtype} of shape "
            f"{output.shape}. Encode text and categories, for example with OneHotEncoder."
        )
    matrix = sp.csr_array(output, dtype=np.float64, copy=True)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix


def _names(encoder, n):
    """Names of the columns; numbered where a transformer gives none."""
    try:
        names = np.asarray(encoder.get_feature_names_out(), dtype=object)
    except (AttributeError, ValueError, TypeError, NotImplementedError):
        names = np.array([f"feature{at}" for at in range(n)], dtype=object)
    if len(names) != n:
        raise ValueError(f"It returned {n} columns, but {len(names)} in fit.")
    return names


def _groups(encoder, n):
    if isinstance(encoder, FeatureEncoder):
        return encoder.groups()
    parts = getattr(encoder, "output_indices_", {"features": slice(0, n)})
    return {name: part for name, part in parts.items() if part.stop > part.start}
