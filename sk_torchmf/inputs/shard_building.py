"""Rows in any order and number to shards of whole users on disk, by passes in which memory stays flat."""

import os
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from sk_torchmf._progress import progress_bar
from sk_torchmf._validation import MOST, SMALLEST, check_size
from sk_torchmf.inputs.arrow_columns import ArrowColumns, LabelSet
from sk_torchmf.inputs.id_types import INT64
from sk_torchmf.inputs.row_sources import check_n_rows
from sk_torchmf.inputs.stable_hash import shares, stable_hash
from sk_torchmf.storage.array_folder import building, write_bytes

KIND = "shards"
ROLES = "user", "item", "rating", "weight", "timestamp"
MOST_LEVELS = 256  # of ratings, which a byte tells apart
NARROW = 2**16  # items that two bytes tell apart
LEAST_SHARDS, MOST_SHARDS, SHARD_SIZE = 16, 4096, 2**21


@dataclass(frozen=True)
class Survey:
    """What the first pass finds.

    Attributes
    ----------
    items : labels
        Sorted.
    n_rows : int
    levels : ndarray of shape (n_levels,), float32, or None
        The distinct ratings, sorted, where they are few.
    low, high : float or None
        The lowest and the highest rating.
    weighted : bool
        Whether weights differ from one.
    times : dtype or None
        Of the timestamps.
    """

    items: object
    n_rows: int
    levels: np.ndarray | None
    low: float | None
    high: float | None
    weighted: bool
    times: np.dtype | None


def build(rows, folder, keys, *, n_shards, progress, pyarrow):
    """Write the folder of a data set.

    Parameters
    ----------
    rows : Rows
    folder : str or os.PathLike
    keys : dict of str to str, int or None
        The columns, by role.
    n_shards : int or None
    progress : bool
    pyarrow : module
    """
    columns = ArrowColumns(pyarrow)
    with building(folder, KIND) as work:
        rows.choose(keys)
        sizes, total = [], 3 * rows.n_rows if rows.n_rows else 0
        with progress_bar("shards", total, "row", progress) as bar:
            found = _survey(rows, columns, bar)
            n_shards = n_shards or _default_n_shards(found.n_rows)
            for at, piece in enumerate(_scatter(rows, columns, found, n_shards, work.path, bar)):
                sizes.append(_write_shard(at, piece, columns, found, work))
                bar.update(piece.n_rows)
        _write_labels(work, "items", found.items, columns)
        if found.levels is not None:
            work.write("levels", found.levels)
        names = {role: key if isinstance(key, str) else int(key) for role, key in keys.items() if key is not None}
        work.meta = {"names": names, "n_items": len(found.items), "shards": sizes}
        if found.low is not None:
            work.meta["rating_range"] = [found.low, found.high]


def _default_n_shards(n_rows):
    """A power of two, so that shards are some million rows and 2, 4, 8 or 16 processes get equal parts."""
    return min(MOST_SHARDS, max(LEAST_SHARDS, 1 << (-(-n_rows // SHARD_SIZE) - 1).bit_length()))


def _survey(rows, columns, bar):
    items, n, low, high = LabelSet(columns, "item"), 0, np.inf, -np.inf
    levels: np.ndarray | None = np.empty(0, dtype=np.float32)
    heaviest, weighted, rated = 0.0, False, False
    times: set[np.dtype] = set()
    for batch, place in rows.batches():
        if not len(batch["item"]):
            continue
        items.add(columns.ids(batch["item"], "item", place)[1])
        n, observed = n + len(batch["item"]), slice(None)
        if "weight" in batch:
            weight = columns.weights(batch["weight"], place)
            weighted, heaviest, observed = weighted or bool((weight != 1).any()), max(heaviest, float(weight.max())), weight > 0
        if "rating" in batch:
            with np.errstate(over="ignore"):  # what becomes infinite is refused below
                rating = columns.numbers(batch["rating"], "rating", place).astype(np.float32)[observed]
            rated, low, high = True, min(low, float(rating.min(initial=np.inf))), max(high, float(rating.max(initial=-np.inf)))
            if levels is not None:
                levels = np.unique(np.concatenate([levels, columns.unique(rating)[0]]))
                levels = levels if len(levels) <= MOST_LEVELS else None
        if "timestamp" in batch:
            times.add(columns.times(batch["timestamp"], place).dtype)
        bar.update(len(batch["item"]))
    if n == 0:
        raise ValueError("The data set has no rows, while a minimum of 1 is required.")
    if weighted and heaviest < SMALLEST:
        raise ValueError("weight is zero in every row. At least one weight must be greater than zero.")
    if rated:
        check_size(np.array([low, high]), "the ratings")
    found = Survey(items.finish(), n, None, None, None, weighted, _common_type(times))
    return replace(found, levels=levels, low=low, high=high) if rated else found


def _common_type(times):
    """The type of all timestamps, None where there are none."""
    if not times:
        return None
    if len({kind.kind == "M" for kind in times}) > 1:
        raise TypeError("timestamp must be of one type in all of the data. Got numbers and dates. Convert one to the other's type.")
    return np.result_type(*times)


@dataclass(frozen=True)
class _Piece:
    """The rows of one shard as they came, in raw files, and the labels that they refer to by number; None as their type is text."""

    path: str
    n_rows: int
    n_labels: int
    kind: np.dtype | None


def _record(found):
    """What a raw file holds of a row."""
    fields = [("user", "<u4"), ("item", "<u2" if len(found.items) <= NARROW else "<i4")]
    if found.low is not None:
        fields.append(("rating", "u1" if found.levels is not None else "<f4"))
    if found.weighted:
        fields.append(("weight", "<f4"))
    return np.dtype(fields if found.times is None else [*fields, ("timestamp", found.times.newbyteorder("<"))])


def _scatter(rows, columns, found, n_shards, folder, bar):
    """Append every row to the file of its user's shard; and the labels of each batch, to which the rows refer."""
    record, types = _record(found), set()
    n_rows, n_labels = np.zeros(n_shards, dtype=np.int64), np.zeros(n_shards, dtype=np.int64)
    paths, n_seen = [os.path.join(folder, f"raw{at}") for at in range(n_shards)], 0
    kind = np.uint8 if n_shards <= 256 else np.uint16  # sorted by radix
    for batch, place in rows.batches():
        if not len(batch["user"]):
            continue
        codes, labels = columns.ids(batch["user"], "user", place)
        types.add(_type_of(labels))
        shard = shares(stable_hash(columns.objects(labels), "user"), n_shards).astype(kind)
        order, cuts = _sorted_by(shard, n_shards)
        number = np.empty(len(labels), dtype=np.int64)  # of each label in the shard's file
        number[order] = np.arange(len(labels)) + np.repeat(n_labels - cuts[:-1], np.diff(cuts))
        for at in np.flatnonzero(np.diff(cuts)).tolist():
            _append_labels(paths[at], columns.take(labels, order[cuts[at] : cuts[at + 1]]), columns)
        n_labels += np.diff(cuts)
        check_n_rows(int(n_labels.max()))
        values, kept = _records(batch, number[codes], record, columns, found, place)
        n_seen, shard = n_seen + len(codes), shard[codes][kept]
        order, cuts = _sorted_by(shard, n_shards)
        values = values[order]
        for at in np.flatnonzero(np.diff(cuts)).tolist():
            with open(f"{paths[at]}.rows", "ab", buffering=0) as file:
                write_bytes(file, values[cuts[at] : cuts[at + 1]])
        n_rows += np.diff(cuts)
        bar.update(len(codes))
    if n_seen != found.n_rows:
        raise ValueError(
            f"The data must not change while they are read. Got {found.n_rows} rows in the first pass and {n_seen} in the second."
        )
    check_n_rows(int(n_rows.max()))
    kind = _kind_of(types)
    return [_Piece(*sizes, kind) for sizes in zip(paths, n_rows.tolist(), n_labels.tolist(), strict=True)]


def _type_of(labels):
    """What is to be known of a batch of user labels: whether they are text, and which integers they need."""
    if not isinstance(labels, np.ndarray):
        return "text"
    return "large" if labels.dtype == np.uint64 else "negative" if labels.min() < 0 else "small"


def _kind_of(types):
    """The type in which all user labels are kept; None for text."""
    if "text" in types and len(types) > 1:
        raise TypeError("user ids must be of one type in all of the data. Got numbers and text. Cast one to the other's type.")
    if {"large", "negative"} <= types:
        rule = f"user ids must lie between 0 and 2**64 - 1, or between {INT64.min} and {INT64.max}"
        raise ValueError(f"{rule}. Got ids in both ranges. Cast the column to string.")
    return None if "text" in types else np.dtype(np.uint64 if "large" in types else np.int64)


def _sorted_by(shard, n_shards):
    """An order of ascending shards that is stable, and where each begins in it."""
    cuts = np.zeros(n_shards + 1, dtype=np.int64)
    np.cumsum(np.bincount(shard, minlength=n_shards), out=cuts[1:])
    return np.argsort(shard, kind="stable"), cuts


def _records(batch, number, record, columns, found, place):
    """Rows as the raw files hold them, and which of the batch they are: a weight of zero is no observation."""
    weight, kept = None, slice(None)
    if found.weighted:
        weight = columns.weights(batch["weight"], place)
        kept = weight > 0
    number = number[kept]
    values = np.empty(len(number), dtype=record)
    values["user"] = number
    codes, labels = columns.ids(batch["item"], "item", place)
    values["item"] = _all_known(columns.find(labels, found.items), place)[codes][kept]
    if "rating" in batch:
        rating = columns.numbers(batch["rating"], "rating", place).astype(np.float32, copy=False)[kept]
        if found.levels is not None:
            distinct, codes = columns.unique(rating)
            level = np.searchsorted(found.levels, distinct).clip(max=len(found.levels) - 1)
            rating = _all_known(np.where(found.levels[level] == distinct, level, -1), place).astype(np.uint8)[codes]
        values["rating"] = rating
    if weight is not None:
        values["weight"] = weight[kept]
    if found.times is not None:
        values["timestamp"] = columns.times(batch["timestamp"], place)[kept]
    return values, kept


def _all_known(at, place):
    if (at < 0).any():
        raise ValueError(
            f"The data must not change while they are read. Got values in the second pass, from {place(0)} on, that were not "
            "there in the first."
        )
    return at


def _append_labels(path, labels, columns):
    parts = {"labels": labels}
    if not isinstance(labels, np.ndarray):
        parts["labels"], parts["lengths"] = columns.to_bytes(labels)
    for name, values in parts.items():
        with open(f"{path}.{name}", "ab", buffering=0) as file:
            write_bytes(file, np.ascontiguousarray(values))


def _read_labels(piece, columns):
    """The labels of a shard's batches, one after the other."""

    def read(name, kind):
        return np.fromfile(f"{piece.path}.{name}", dtype=kind) if piece.n_labels else np.empty(0, dtype=kind)

    if piece.kind is not None:
        return read("labels", piece.kind)
    return columns.from_bytes(read("labels", np.uint8), read("lengths", np.int64))


def _write_shard(at, piece, columns, found, work):
    """Write one shard; return what the manifest says of it."""
    labels, place = columns.sort(_read_labels(piece, columns))
    rows = np.fromfile(f"{piece.path}.rows", dtype=_record(found)) if piece.n_rows else np.empty(0, dtype=_record(found))
    user = place.astype(np.int32)[rows["user"]]
    pointers, order = _by_user(user, rows, (len(labels), len(found.items)))
    work.write(f"{at:05}_pointers", pointers)
    for role, name in (("item", "columns"), ("rating", "ratings"), ("weight", "weights"), ("timestamp", "timestamps")):
        if role in rows.dtype.names:
            work.write(f"{at:05}_{name}", np.ascontiguousarray(rows[role])[order])  # from a cache
    _write_labels(work, f"{at:05}_users", labels, columns)
    for name in ("rows", "labels", "lengths"):
        if os.path.exists(f"{piece.path}.{name}"):
            os.remove(f"{piece.path}.{name}")
    return {"n_users": len(labels), "n_ratings": piece.n_rows}


def _by_user(user, rows, shape):
    """Where the rows of each user begin in the order by user, item, and then all else: one order, however the rows came."""
    item = rows["item"].astype(np.int32)
    by_item = sp.coo_matrix((np.arange(len(user), dtype=np.int32), (item, user)), shape=shape[::-1])
    by_item.has_canonical_format = True  # else tocsr() would add up the duplicates
    by_user = by_item.tocsr().tocsc()  # two counting sorts
    order, pointers = by_user.data, by_user.indptr
    again = np.zeros(len(order) + 1, dtype=bool)  # the pair of the row before
    again[1:-1] = by_user.indices[1:] == by_user.indices[:-1]
    again[pointers] = False
    tied = np.flatnonzero(again[:-1] | again[1:])
    if len(tied):
        own = rows[order[tied]]
        keys = [own[name] for name in ("timestamp", "weight", "rating") if name in rows.dtype.names]
        order[tied] = order[tied][np.lexsort([*keys, np.cumsum(~again[tied])])]
    return pointers.astype(np.int32 if len(user) <= MOST else np.int64), order


def _write_labels(work, name, labels, columns):
    """Write labels: numbers as they are, text as its bytes and where each ends."""
    if isinstance(labels, np.ndarray):
        work.write(name, labels)
        return
    data, lengths = columns.to_bytes(labels)
    work.write(f"{name}_text", data)
    work.write(f"{name}_ends", np.cumsum(lengths))
