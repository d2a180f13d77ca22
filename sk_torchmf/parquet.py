"""Writes recommendations and predictions of a fitted estimator to Parquet files, in blocks that fit in memory."""

import contextlib

import numpy as np
import scipy.sparse as sp
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from sk_torchmf._progress import progress_bar
from sk_torchmf._validation import check_count, check_flag
from sk_torchmf.inputs.arrow_columns import ArrowColumns
from sk_torchmf.inputs.id_types import as_ids
from sk_torchmf.inputs.row_sources import load_pyarrow, parquet_rows
from sk_torchmf.interactions import is_interactions
from sk_torchmf.storage.archive import replacing

__all__ = ["write_predictions", "write_recommendations"]

BLOCK = 2**18  # rows written at once
ANSWERS = "prediction", "std"


def write_recommendations(estimator, path, users=None, k=10, *, progress=False, **options):
    """Write the k best items of each user to a Parquet file, in memory that does not grow with the number of users.

    Parameters
    ----------
    estimator : estimator
        A fitted estimator with ``recommend``.
    path : str or os.PathLike
        The file to write, with the columns ``user``, ``rank`` (from 1), ``item`` and ``score``, in the order of users and ranks. It
        appears, and replaces an earlier one, only when it is complete.
    users : array-like of shape (n,), Interactions or sparse matrix of shape (n, n_items), optional
        The users, as ``recommend`` takes them; by default all known users. The users of a sparse matrix are named by their row
        numbers.
    k : int, default=10
        How many items per user. A user for whom fewer remain has fewer rows.
    progress : bool, default=False
        Show progress on stderr: a tqdm bar if tqdm is installed, else a line for every tenth.
    **options : dict
        Further arguments for ``recommend``, the same for all users.

    Returns
    -------
    int
        How many rows were written.

    Raises
    ------
    OSError
        If the file cannot be written, for example because the disk is full. An earlier file is left as it was.
    ImportError
        If pyarrow is not installed.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import pyarrow.parquet
    >>> from sk_torchmf import BiasedMatrixFactorization, datasets, parquet
    >>> model = BiasedMatrixFactorization(random_state=0).fit(datasets.make_ratings(random_state=0).interactions)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "best.parquet")
    ...     n_rows = parquet.write_recommendations(model, path, k=3)
    ...     best = pyarrow.parquet.read_table(path)
    >>> best.column_names, best["rank"].to_pylist()[:4], n_rows == best.num_rows
    (['user', 'rank', 'item', 'score'], [1, 2, 3, 1], True)
    """
    pa = load_pyarrow("write_recommendations")
    _check_estimator(estimator, "recommend")
    k, progress = check_count(k, "k"), check_flag(progress, "progress")
    if isinstance(options.get("random_state"), int | np.integer):  # blocks go on drawing, they do not begin anew
        options["random_state"] = check_random_state(options["random_state"])
    asked, named = _users_of(estimator, users, options)
    kinds = {"user": _type_of(named, "user", pa), "rank": pa.int32(), "item": _type_of(estimator.items_, "item", pa)}
    schema, n_rows = pa.schema({**kinds, "score": pa.float64()}), 0
    size = max(1, BLOCK // k)
    with _writing(path, schema, pa) as writer, progress_bar("recommend", len(named), "user", progress) as bar:
        for start in range(0, len(named), size):
            block = slice(start, start + size)
            items, scores = estimator.recommend(asked[block], k, **options)
            user, rank = np.nonzero(~np.isneginf(scores))
            columns = named[block][user], rank + 1, items[user, rank], scores[user, rank]
            writer.write_batch(_batch(columns, schema, pa))
            n_rows += len(user)
            bar.update(len(scores))
    return n_rows


def write_predictions(estimator, source, path, *, user="user", item="item", progress=False, **options):
    """Predict pairs from Parquet files and write the predictions to one file, in memory that does not grow with their number.

    Parameters
    ----------
    estimator : estimator
        A fitted estimator with ``predict``.
    source : str, os.PathLike, list of these or pyarrow.dataset.Dataset
        The files with the pairs, as for ``Shards.from_parquet``.
    path : str or os.PathLike
        The file to write, with the two columns of ids, under their names, and ``prediction``. It has one row for each pair, in the
        same order. It appears, and replaces an earlier one, only when it is complete.
    user : str or int, default="user"
        The column of user ids, by name or position. Ids are whole numbers or text.
    item : str or int, default="item"
        The column of item ids.
    progress : bool, default=False
        Show progress on stderr.
    **options : dict
        Further arguments for ``predict``. With ``return_std=True`` there is also a column ``std``.

    Returns
    -------
    int
        How many rows were written.

    Raises
    ------
    OSError
        If the file cannot be written, for example because the disk is full. An earlier file is left as it was.
    ValueError
        If a column or an id is missing. The message names the file and the row.
    TypeError
        If ids are neither numbers nor text.
    ImportError
        If pyarrow is not installed.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import pyarrow, pyarrow.parquet
    >>> from sk_torchmf import BiasedMatrixFactorization, datasets, parquet
    >>> model = BiasedMatrixFactorization(random_state=0).fit(datasets.make_ratings(random_state=0).interactions)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pairs, path = (pathlib.Path(folder, name) for name in ("pairs.parquet", "predicted.parquet"))
    ...     pyarrow.parquet.write_table(pyarrow.table({"user": [0, 0, 5], "item": [1, 2, 3]}), pairs)
    ...     n_rows = parquet.write_predictions(model, pairs, path)
    ...     predicted = pyarrow.parquet.read_table(path)
    >>> predicted.column_names, n_rows
    (['user', 'item', 'prediction'], 3)
    """
    pa = load_pyarrow("write_predictions")
    _check_estimator(estimator, "predict")
    rows, columns = parquet_rows(source, pa), ArrowColumns(pa)
    rows.choose({"user": user, "item": item})
    names = rows.names_of("user", "item")
    if names[0] == names[1] or set(names) & set(ANSWERS):
        raise ValueError(f"user and item must be two columns whose names are not in {list(ANSWERS)}. Got {list(names)}.")
    n_rows, total, answers = 0, rows.n_rows or 0, ANSWERS[: 1 + bool(options.get("return_std"))]
    with contextlib.ExitStack() as stack:
        bar, writer = stack.enter_context(progress_bar("predict", total, "pair", check_flag(progress, "progress"))), None
        for batch, place in rows.batches():
            ids = [batch[role] for role in ("user", "item")]
            ids = [one.dictionary_decode() if pa.types.is_dictionary(one.type) else one for one in ids]
            if writer is None:
                kinds = [*(_wide(one.type, pa) for one in ids), *(pa.float64() for _ in answers)]
                schema = pa.schema(zip([*names, *answers], kinds, strict=True))
                writer = stack.enter_context(_writing(path, schema, pa))
            if not len(ids[0]):
                continue
            pairs = (_labels(one, role, place, columns) for one, role in zip(ids, ("user", "item"), strict=True))
            found = estimator.predict(*pairs, **options)
            writer.write_batch(_batch([*ids, *(found if len(answers) == 2 else [found])], schema, pa))
            n_rows += len(ids[0])
            bar.update(len(ids[0]))
        if writer is None:
            raise ValueError("source has no pairs, while a minimum of 1 is required.")
    return n_rows


def _check_estimator(estimator, method):
    if isinstance(estimator, type) or not hasattr(estimator, method) or not hasattr(estimator, "fit"):
        raise TypeError(f"estimator must be a fitted estimator with {method}. Got {estimator!r}.")
    check_is_fitted(estimator)


def _users_of(estimator, users, options):
    """What to ask for, which can be cut into blocks, and how each is named."""
    if sp.issparse(users):
        if options.get("user_features") is not None:
            raise ValueError(
                "user_features of new users cannot be divided into blocks here. Call recommend for blocks of rows, with their "
                "features."
            )
        return sp.csr_array(users), np.arange(users.shape[0])
    if users is None:
        return estimator.users_, estimator.users_
    ids = np.unique(users.user_ids) if is_interactions(users) else np.asarray(as_ids(users, "user"))
    if ids.ndim != 1:
        raise ValueError(f"users must be a one-dimensional array of ids. Got shape {ids.shape}.")
    return ids, ids


def _type_of(ids, role, pa):
    try:
        return pa.array(ids[:1]).type if len(ids) else pa.int64()
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError) as error:
        raise TypeError(f"{role} ids must be of a type that Parquet has. Got {ids[0]!r}: {error}.") from None


def _wide(kind, pa):
    """The type of a column of ids that holds those of other files too."""
    types = pa.types
    return pa.int64() if types.is_integer(kind) and not types.is_uint64(kind) else pa.float64() if types.is_floating(kind) else kind


def _labels(column, role, place, columns):
    """A column of ids as an ndarray."""
    codes, labels = columns.ids(column, role, place)
    return columns.objects(labels)[codes]


def _batch(columns, schema, pa):
    """Columns as a batch of Arrow, each in the type of the schema."""
    arrays = []
    for values, field in zip(columns, schema, strict=True):
        if isinstance(values, pa.Array):
            arrays.append(values.cast(field.type))
        else:
            values = np.asarray(values)
            arrays.append(pa.array(values.tolist() if values.dtype.kind in "OU" else values, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


@contextlib.contextmanager
def _writing(path, schema, pa):
    """A writer of a Parquet file that takes its place when all of it is written."""
    with replacing(path) as place, pa.parquet.ParquetWriter(place, schema) as writer:
        yield writer
