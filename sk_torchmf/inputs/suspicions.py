"""What is almost surely a mistake though it can be read: warned of, not refused. Reads tables of ids."""

import numpy as np

from sk_torchmf.exceptions import warn
from sk_torchmf.inputs.labels import column, is_frame

MATRIX_COLUMNS = 5  # from how many columns on a table without named id columns may be a matrix
INDEX_ROWS = 10  # from how many rows on a column that counts them is an index
SAMPLE = 1000, 100  # rows and columns looked at
DEFAULTS = 0, 1  # the columns of user and item where nothing else was asked for


def warn_of_a_matrix(X, user, item):
    """Warn where a table of positives looks like a users x items matrix whose first two columns were taken for ids.

    That is so where its columns are numbers, five or more, and the first two hold fractions or, as in a pivot and in one-hot
    columns, nearly no value that the others have not. With other columns, or columns by name, nothing is said.
    """
    if (user, item) != DEFAULTS or X.shape[1] < MATRIX_COLUMNS or len(X) == 0:
        return
    rows = _numbers(X[: SAMPLE[0]])
    if rows is None:
        return
    own, others = rows[:, :2], rows[:, 2:]
    if (np.floor(own) != own).any() or np.isin(own, others).mean() > 0.9:
        warn(
            f"X has {X.shape[1]} columns of numbers, and the first two were taken for ids of users and items. If it is a "
            "users x items matrix pass scipy.sparse.csr_array(X). If it is a table, name its id columns with user= and item=."
        )


def warn_of_an_index(X, user, item):
    """Warn where the first column of a table with further ones counts its rows and was taken for the users' ids."""
    if (user, item) != DEFAULTS or X.shape[1] <= 2 or len(X) < INDEX_ROWS:
        return
    if _counts(X[:INDEX_ROWS]) and _counts(X):
        warn(
            f"The first of the {X.shape[1]} columns of X counts the rows, as an index does, and was taken for the users' ids. "
            "Drop it, or name the id columns with user= and item=."
        )


def _counts(X):
    """Whether the first column of a table counts its rows, from 0 or 1 on."""
    first = np.asarray(column(X, 0, "user"))
    return first.dtype.kind in "iuf" and first[0] in (0, 1) and np.array_equal(first, np.arange(len(first)) + first[0])


def _numbers(X):
    """The first columns of a table as float64, None where a column is none of numbers or booleans."""
    n = min(X.shape[1], SAMPLE[1])
    columns = [np.asarray(column(X, at, "user")) for at in range(n)] if is_frame(X) else [np.asarray(X)[:, :n]]
    if any(values.dtype.kind not in "biuf" for values in columns):
        return None
    return np.nan_to_num(np.column_stack(columns).astype(np.float64))
