"""Encoders of attributes: a table of anything, or of numbers alone, becomes a sparse matrix. Their fitted state is plain values."""

from numbers import Integral

import numpy as np
import scipy.sparse as sp
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context
from sklearn.utils._param_validation import Interval, RealNotInt
from sklearn.utils.validation import _check_feature_names_in, _get_feature_names, check_is_fitted

from sk_torchmf._validation import check_rows
from sk_torchmf.inputs.cells import NOTHING, NUMBERS, as_numbers, check_attributes, column_at, kind_of, names_of
from sk_torchmf.inputs.column_encodings import COLUMNS
from sk_torchmf.inputs.labels import is_frame


class FeatureEncoder(TransformerMixin, BaseEstimator, auto_wrap_output_keys=None):  # type: ignore[call-arg]
    """Encode a table of attributes, column by column, as a sparse matrix.

    - **Numbers** are standardised to mean 0 and standard deviation 1. Integers are numbers too: convert codes to text or to a
      category.
    - **Dates and durations** are converted to numbers of days, and then treated as numbers.
    - **Sparse numbers** of pandas are divided by their root mean square, so that zeros stay zeros and take no memory.
    - **Text, categories and booleans** get a column for each value, which is 1 if the cell has that value (one-hot).
      ``"Action|Comedy"`` is one value: split it into a list if it means two.
    - **Lists**, tuples, sets and arrays of labels get a column for each label, which is 1 if the cell has that label (multi-hot).

    A missing cell (None, NaN, NaT) counts as the mean in a column of numbers, and has no label in a column of labels. If ``fit``
    sees missing cells in a column, a further column marks them. A column of equal numbers is dropped, and so is one without any
    value.

    Parameters
    ----------
    min_frequency : int or float, default=1
        Labels that occur in fewer rows than this share one column, as in scikit-learn's ``OneHotEncoder``. A float between 0 and 1
        is a share of the rows.

    Attributes
    ----------
    columns_ : list of dict
        How each column of the table is encoded: its ``name``, its ``kind``, for numbers ``unit``, ``shift`` and ``scale``, and for
        others ``labels``.
    n_features_in_ : int
        Number of columns of the table.
    feature_names_in_ : ndarray of shape (n_columns,), object
        Where the columns of the table have names: these names.

    See Also
    --------
    sklearn.compose.ColumnTransformer : Applies a different encoder to each column.

    Notes
    -----
    ``transform`` finds columns by name, in any order. A label that ``fit`` did not see counts as a rare label if there are any, and
    else is ignored.

    Examples
    --------
    >>> import pandas as pd
    >>> from sk_torchmf import FeatureEncoder
    >>> films = pd.DataFrame({"year": [1994, 1996, 1998], "genres": [["drama"], ["comedy", "drama"], []]})
    >>> encoder = FeatureEncoder().fit(films)
    >>> encoder.get_feature_names_out()
    array(['year', 'genres=comedy', 'genres=drama'], dtype=object)
    >>> encoder.transform(films).toarray().round(2)
    array([[-1.22,  0.  ,  1.  ],
           [ 0.  ,  1.  ,  1.  ],
           [ 1.22,  0.  ,  0.  ]])
    """

    _parameter_constraints = {
        "min_frequency": [Interval(Integral, 1, None, closed="left"), Interval(RealNotInt, 0, 1, closed="neither")]
    }

    def __init__(self, min_frequency=1):
        self.min_frequency = min_frequency

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Learn the means, scales and labels.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_rows, n_columns)
            Attributes of any kind, one row per user or item.
        y : None, default=None
            Ignored.

        Returns
        -------
        FeatureEncoder
            The encoder itself, fitted.

        Raises
        ------
        ValueError
            If a column holds infinity, mixes kinds, or holds other objects.
        """
        X = check_attributes(X)
        learned = []
        for at, name in enumerate(names_of(X)):
            values = column_at(X, at)
            kind = kind_of(values, name)
            learned.append(dict(vars(COLUMNS[kind].learn(values, kind, name, self.min_frequency))))
        return _publish(self, X, {"columns_": learned})

    def transform(self, X):
        """Encode a table.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_rows, n_columns)
            The columns that ``fit`` saw; those of a DataFrame may be in any order.

        Returns
        -------
        scipy.sparse.csr_array of shape (n_rows, n_columns_out), float64
            All entries are finite, and no zeros are stored.

        Raises
        ------
        ValueError
            If a column is missing, or holds another kind of values than in ``fit``.
        """
        check_is_fitted(self)
        X = check_attributes(X)
        places = places_of_fit(self, X, [state["name"] for state in self.columns_])
        parts, width = [], 0
        for place, encoding in zip(places, self._encodings(), strict=True):
            if encoding.width:
                row, at, value = encoding.entries(_of_kind(column_at(X, place), encoding))
                parts.append((row, at + width, value))
                width += encoding.width
        return _assembled(parts, (X.shape[0], width))

    def get_feature_names_out(self, input_features=None):
        """Name the columns of the matrix.

        Parameters
        ----------
        input_features : array-like of str, optional
            Names of the columns of the table. They must be those that ``fit`` saw, if it saw any.

        Returns
        -------
        ndarray of shape (n_columns_out,), object
            ``"age"``, ``"age (missing)"``, ``"genres=drama"``, ``"genres (infrequent)"``.
        """
        check_is_fitted(self)
        given = None if input_features is None else _check_feature_names_in(self, input_features)
        names = [state["name"] for state in self.columns_] if given is None else given
        found = [own for name, encoding in zip(names, self._encodings(), strict=True) for own in encoding.names(name)]
        return np.array(found, dtype=object)

    def groups(self):
        """Return which columns of the matrix come from which column of the table.

        Returns
        -------
        dict of str to slice
            By name; without the columns that were dropped.
        """
        check_is_fitted(self)
        found, width = {}, 0
        for encoding in self._encodings():
            if encoding.width:
                found[encoding.name] = slice(width, width + encoding.width)
                width += encoding.width
        return found

    def _encodings(self):
        return [COLUMNS[state["kind"]](**state) for state in self.columns_]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = tags.input_tags.categorical = tags.input_tags.allow_nan = True
        return tags


class Passthrough(TransformerMixin, BaseEstimator, auto_wrap_output_keys=None):  # type: ignore[call-arg]
    """Take a table of finite numbers as it is: a sparse or dense matrix, or a frame of numbers and booleans."""

    def fit(self, X, y=None):
        """Learn the names of the columns of X (n_rows, n_columns)."""
        X = X if sp.issparse(X) else check_attributes(X)
        return _publish(self, X, {"columns_": names_of(X)})

    def transform(self, X):
        """Return X as a csr_array of shape (n_rows, n_columns), float64."""
        check_is_fitted(self)
        X = X if sp.issparse(X) else check_attributes(X)
        places = places_of_fit(self, X, self.columns_)
        if sp.issparse(X):
            return sp.csr_array(X, dtype=np.float64)
        if not is_frame(X):
            if X.dtype.kind not in "biufO":
                raise ValueError(f"The table must hold numbers. Got {X.dtype}. Encode it, for example with FeatureEncoder().")
            return sp.csr_array(check_rows(X, "The table"))
        parts = []
        for at, place in enumerate(places):
            values, name = column_at(X, place), self.columns_[at]
            if kind_of(values, name) not in (NUMBERS, NOTHING) and not str(values.dtype).lower().startswith("bool"):
                raise ValueError(f"Column {name!r} must hold numbers. Got {kind_of(values, name)}. Drop or encode it.")
            row, numbers = as_numbers(values, name)
            parts.append((row, np.full(len(row), at), numbers))
        return _assembled(parts, (X.shape[0], X.shape[1]))

    def get_feature_names_out(self, input_features=None):
        """Names of the columns, as an array (n_columns,) of str objects."""
        return np.array(self.columns_, dtype=object)


def _assembled(parts, shape):
    """A csr_array of entries (rows, columns, values) without those that are zero."""
    if not parts:
        return sp.csr_array(shape, dtype=np.float64)
    row, column, value = map(np.concatenate, zip(*parts, strict=True))
    kept = value != 0
    return sp.coo_array((value[kept], (row[kept], column[kept])), shape=shape).tocsr()


def _publish(encoder, X, attributes):
    """Become an encoder that was fitted on X, in one step."""
    names = _get_feature_names(X)
    attributes |= {"n_features_in_": X.shape[1]} | ({} if names is None else {"feature_names_in_": names})
    vars(encoder).pop("feature_names_in_", None)
    vars(encoder).update(attributes)
    return encoder


def places_of_fit(encoder, X, names):
    """Positions in X of the columns that fit saw under these names: of a frame by name, else in their order."""
    if is_frame(X):
        places = {name: at for at, name in enumerate(names_of(X))}
        if places.keys() == set(names):
            return [places[name] for name in names]
        if hasattr(encoder, "feature_names_in_"):
            missing, unseen = sorted(set(names) - places.keys()), sorted(places.keys() - set(names))
            what = f"{missing[0]!r} is missing" if missing else f"{unseen[0]!r} is not one of them"
            raise ValueError(f"The table must have the columns that fit saw, {names[:10]}: {what}.")
    if X.shape[1] != len(names):
        raise ValueError(f"X has {X.shape[1]} features, but {type(encoder).__name__} is expecting {len(names)} features as input.")
    return list(range(len(names)))


def _of_kind(values, encoding):
    """A column of the kind that fit saw; where all is missing there is no telling, and it is of any."""
    kind = kind_of(values, encoding.name)
    if kind == NOTHING:
        return np.full(len(values), None)
    if kind != encoding.kind:
        raise ValueError(f"Column {encoding.name!r} must hold {encoding.kind}, as it did in fit. Got {kind}.")
    return values
