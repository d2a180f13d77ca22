"""MovieLens: cache folder, download, checksum."""

import hashlib
import io
import os
import zipfile
from collections.abc import Callable
from contextlib import contextmanager, suppress
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen
from uuid import uuid4

import numpy as np
from sklearn.utils._optional_dependencies import check_pandas_support
from sklearn.utils._param_validation import StrOptions, validate_params

from sk_torchmf._progress import progress_bar
from sk_torchmf.datasets._files import as_bunch, read_ratings
from sk_torchmf.datasets._movielens_features import ITEM_ARRAYS, USER_ARRAYS, as_frames, read_features_1m, read_features_100k


class _Source(NamedTuple):
    member: str
    n_ratings: int
    n_users: int
    n_films: int  # rated or not
    md5: str
    read_features: Callable


URL = "https://files.grouplens.org/datasets/movielens/"
MOVIELENS = {
    "100k": _Source("ml-100k/u.data", 100_000, 943, 1_682, "0e33842e24a9c977be4e0107933c0723", read_features_100k),
    "1m": _Source("ml-1m/ratings.dat", 1_000_209, 6_040, 3_883, "c4d9eecfca2ab87c1945afe126590906", read_features_1m),
}
RATINGS = ("user_ids", "item_ids", "ratings", "timestamps", "user_raw", "item_raw")
MOVIELENS_DESCR = """MovieLens-{variant}: {n} ratings, 1 to 5 stars, collected by GroupLens Research; timestamps in Unix seconds.

Its licence forbids redistribution. F. M. Harper and J. A. Konstan, The MovieLens Datasets: History and Context, ACM Transactions on
Interactive Intelligent Systems 5(4), 2015. https://doi.org/10.1145/2827872"""


@validate_params(
    {
        "variant": [StrOptions(set(MOVIELENS))],
        "data_home": [str, os.PathLike, None],
        "download_if_missing": ["boolean"],
        "return_X_y": ["boolean"],
        "as_frame": ["boolean"],
        "features": ["boolean"],
    },
    prefer_skip_nested_validation=True,
)
def fetch_movielens(variant="100k", *, data_home=None, download_if_missing=True, return_X_y=False, as_frame=False, features=False):
    """Load the MovieLens ratings and, if asked for, features of users and films. The data are downloaded once.

    Parameters
    ----------
    variant : {"100k", "1m"}, default="100k"
        100,000 ratings of 1,682 films by 943 users, or 1,000,209 ratings of 3,706 films by 6,040 users.
    data_home : str or path-like, optional
        The folder that keeps the data. By default that of the environment variable ``SK_TORCHMF_DATA``, else ``~/sk_torchmf_data``.
        The data are read from the files that this function left there (``ml100k.npz``, and ``ml100k_side.npz`` for the features),
        or from GroupLens's own ``ml-100k.zip``; for 1M from ``ml1m.npz``, ``ml1m_side.npz`` and ``ml-1m.zip``.
    download_if_missing : bool, default=True
        Whether to download the archive from GroupLens if the folder has none of these files.
    return_X_y : bool, default=False
        Return only ``(data, target)``.
    as_frame : bool, default=False
        Return ``data`` as a pandas DataFrame and ``target`` as a Series.
    features : bool, default=False
        Return ``user_features`` and ``item_features`` too, as pandas DataFrames. Needs ``return_X_y=False``.

    Returns
    -------
    Bunch or tuple
        ``data``, ndarray of shape (n, 2), int64: MovieLens's user and item ids, or a DataFrame with the columns user, item and
        timestamp; ``target``, ndarray or Series of shape (n,), float32: 1 to 5 stars; ``timestamps``, ndarray of shape (n,), int64:
        Unix seconds; ``interactions``: the same data as a container whose ids count from 0 and are positions in ``user_labels`` and
        ``item_labels``; ``DESCR``: source and licence. With ``features`` also

        - ``user_features``, a DataFrame whose index ``user`` has MovieLens's ids, ascending. Its columns are gender (M, F),
          occupation and zip, which are text, and age: in years (int64) for 100K, an ordered category from "under 18" to "56+" for
          1M;
        - ``item_features``, a DataFrame whose index ``item`` has MovieLens's ids, ascending; for 1M it includes 177 films that
          nobody rated. Its columns are title, text that ends with the year, as GroupLens has it; year, float64, NaN if the title
          has none; genres, a tuple of str, empty if none is known.

        ``item_features.loc[item_labels]`` has a row for each position of ``interactions``, in their order.

    Raises
    ------
    OSError
        If the data are not in the folder and cannot be downloaded, or a file is damaged.
    ValueError
        If both ``features`` and ``return_X_y`` are True.
    ImportError
        If pandas is needed and not installed.

    Examples
    --------
    >>> from sk_torchmf.datasets import fetch_movielens
    >>> try:
    ...     X, y = fetch_movielens("100k", download_if_missing=False, return_X_y=True)
    ... except OSError as error:
    ...     hint = str(error)  # names the file, and the folder to put it in
    """
    if return_X_y and features:
        raise ValueError("features=True needs return_X_y=False, because (data, target) does not include the features.")
    if as_frame or features:
        pandas = check_pandas_support(f"fetch_movielens({'as_frame' if as_frame else 'features'}=True)")
    source = MOVIELENS[variant]
    folder = Path(data_home or os.environ.get("SK_TORCHMF_DATA") or "~/sk_torchmf_data").expanduser()
    lengths = dict.fromkeys(RATINGS) | {"ratings": source.n_ratings}
    read = partial(_read_ratings, member=source.member)
    arrays = _load(folder / f"ml{variant}.npz", variant, download_if_missing, lengths, read)
    bunch = as_bunch(arrays, MOVIELENS_DESCR.format(variant=variant.upper(), n=source.n_ratings))
    if as_frame:
        bunch.data = pandas.DataFrame(bunch.data, columns=["user", "item"]).assign(timestamp=bunch.timestamps)
        bunch.target = pandas.Series(bunch.target, name="rating")
    if features:
        lengths = dict.fromkeys(USER_ARRAYS, source.n_users) | dict.fromkeys(ITEM_ARRAYS, source.n_films) | {"genre_names": None}
        arrays = _load(folder / f"ml{variant}_side.npz", variant, download_if_missing, lengths, source.read_features)
        bunch.user_features, bunch.item_features = as_frames(arrays, pandas)
    return (bunch.data, bunch.target) if return_X_y else bunch


def _load(cache, variant, download, lengths, read):
    """Read the arrays that lengths names, of which some have a known length: from the cache, else from the archive into it."""
    source, archive = MOVIELENS[variant], cache.with_name(f"ml-{variant}.zip")
    if cache.exists():
        return _read_cache(cache, lengths)
    if not archive.exists():
        _obtain(archive, source, variant, download)
    with _open_archive(archive, source) as file:
        arrays = read(file)
    with suppress(OSError), _replacing(cache) as file:  # a folder that cannot be written is merely slower
        np.savez_compressed(file, **arrays)
    return arrays


def _read_cache(path, lengths):
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in lengths}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise OSError(f"{path} cannot be read: {error}. Delete it, and it will be made again.") from error
    for name, n in lengths.items():
        if n is not None and len(arrays[name]) != n:
            raise OSError(f"{path} must have {n} {name}. Got {len(arrays[name])}. Delete it, and it will be made again.")
    return arrays


def _open_archive(path, source):
    found = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    if found != source.md5:
        raise OSError(
            f"{path} must have the MD5 checksum {source.md5}. Got {found}, so it is truncated or another file. Delete it to "
            "download it again."
        )
    return zipfile.ZipFile(path)


def _read_ratings(archive, member):
    return read_ratings(lambda: io.TextIOWrapper(archive.open(member), "latin-1"), member)


def _obtain(archive, source, variant, download):
    advice = (
        f"Put {archive.name} from https://grouplens.org/datasets/movielens/{variant}/ into {archive.parent}, or name the folder "
        "that has it with data_home or the environment variable SK_TORCHMF_DATA."
    )
    if not download:
        raise OSError(f"{archive.name} is not in {archive.parent}, and download_if_missing is False. {advice}")
    url, found = URL + archive.name, hashlib.md5(usedforsecurity=False)
    try:
        with _replacing(archive) as file, urlopen(url, timeout=30) as response:
            with progress_bar(archive.name, int(response.headers.get("Content-Length") or 0), "B") as bar:
                while chunk := response.read(2**16):
                    file.write(chunk)
                    found.update(chunk)
                    bar.update(len(chunk))
            if found.hexdigest() != source.md5:
                raise OSError(
                    f"its MD5 checksum is {found.hexdigest()} instead of {source.md5}, so it is truncated or another file"
                )
    except (OSError, HTTPException) as error:
        raise OSError(f"{archive.name} is not in {archive.parent}, and fetching {url} failed: {error}. {advice}") from error


@contextmanager
def _replacing(path):
    """Open a file that takes the place of path once it is whole, and leaves nothing behind otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{uuid4().hex}.part")
    try:
        with part.open("wb") as file:
            yield file
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
