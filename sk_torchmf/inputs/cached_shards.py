"""Parquet files that ``fit`` is given by path: the data set on disk that is made of them once, and found again."""

import hashlib
import os
from numbers import Integral
from pathlib import Path

from sk_torchmf.inputs.row_sources import load_pyarrow
from sk_torchmf.inputs.shards import Shards
from sk_torchmf.storage.array_folder import MANIFEST

FOLDER = "SK_TORCHMF_CACHE"  # the environment variable that says where data sets are kept


def is_stored(X):
    """Whether X is data on disk: ``Shards``, the path of such or of Parquet files, or a pyarrow Dataset."""
    return isinstance(X, Shards | str | os.PathLike) or _is_dataset(X)


def open_stored(X, y, sample_weight, user, item, *, rated):
    """Open what ``fit`` is given by path; anything else is returned as it is.

    Parameters
    ----------
    X : object
        The path of a folder of ``Shards``; or the path of a Parquet file or of a folder of such, or a pyarrow Dataset of files.
    y, sample_weight : str, int or None
        Of Parquet files the columns of ratings, or of weights where it is not ``rated``, and of weights; None for ``Shards``.
    user, item : str or int
        The columns of ids.
    rated : bool

    Returns
    -------
    X, y, sample_weight
        Of a path: Shards, None and None.
    """
    if isinstance(X, Shards) or not is_stored(X):
        return X, y, sample_weight
    if not _is_dataset(X) and os.path.isfile(os.path.join(X, MANIFEST)):
        return Shards(X), y, sample_weight
    for name, value in (("y", y), ("sample_weight", sample_weight)):
        if value is not None and not isinstance(value, str | Integral):
            raise TypeError(f"{name} must be the name or position of a column when X is on disk. Got {type(value).__name__}.")
    if rated and y is None:
        raise ValueError(
            'y must be the name of the column of ratings when X is on disk, as in fit("ratings.parquet", "rating"). Got None.'
        )
    if not rated and y is not None and sample_weight is not None:
        raise ValueError(f"y and sample_weight both name a column of weights, {y!r} and {sample_weight!r}. Pass only one of them.")
    keys = {"user": user, "item": item, "rating": y if rated else None}
    keys["weight"] = sample_weight if rated or y is None else y
    folder = _cache() / _key(X, keys)
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            return Shards.from_parquet(X, folder, **keys), None, None
        except FileExistsError:
            if not folder.exists():  # another process is at it
                raise
    return Shards(folder), None, None


def _is_dataset(X):
    return type(X).__module__.startswith(("pyarrow.dataset", "pyarrow._dataset"))


def _cache():
    """The folder of all that is kept."""
    if FOLDER in os.environ:
        return Path(os.environ[FOLDER]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "sk_torchmf"


def _key(X, keys):
    """A name for the data set: another one once a file is another, or other columns are asked for."""
    dataset = X if _is_dataset(X) else load_pyarrow("fit").dataset.dataset(os.fspath(X))
    files = getattr(dataset, "files", None)
    if not files or not all(map(os.path.isfile, files)):
        raise ValueError("X must be a Dataset of files on this machine. Make Shards of it first, with Shards.from_parquet.")
    asked = str(getattr(dataset, "_scan_options", None))  # a filter
    told = [asked, *sorted(f"{name}={value!r}" for name, value in keys.items())]
    for file in sorted(map(os.path.abspath, files)):
        status = os.stat(file)
        told.append(f"{file} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:32]
