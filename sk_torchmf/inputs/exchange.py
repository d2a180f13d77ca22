"""Observations of which each process has any part: rows to their users' owners, one numbering of the items. Knows no solver."""

import copy
import pickle
from dataclasses import replace

import numpy as np

from sk_torchmf.inputs.forms import SHARDS, SPARSE
from sk_torchmf.inputs.id_types import KINDS, NUMBER, TEXT, type_of
from sk_torchmf.inputs.labels import join
from sk_torchmf.inputs.stable_hash import mixed, shares, stable_hash
from sk_torchmf.inputs.stored_ratings import reading_of
from sk_torchmf.interactions import Interactions
from sk_torchmf.storage.checkpoint import digest_of

_KINDS = KINDS | {"b": NUMBER, "O": TEXT}
DATA, FEATURES = "data", "features"  # the parts of a Reading that hold columns
COLUMNS = "ratings", "weights", "timestamps"  # of Interactions, beside the ids
BLOCK = 2**18  # rows that are hashed at once


def exchange(reading, processes, firsts=None):
    """Give each process all observations of its users.

    A user of a table or container belongs to a process by a hash of the label, see ``stable_hash.shares``, whoever has the rows.
    The rows of a sparse matrix are users of whom no other process has any: they stay, and are numbered on over the processes.

    Parameters
    ----------
    reading : Reading
        This process's part, which may have no observations. Attributes of users and items join it after the exchange.
    processes : Communicator
    firsts : list of int or None, optional
        See ``owners_of``, where users were numbered on before.

    Returns
    -------
    Reading
        ``users`` are this process's, of which there may be none; ``items`` those of all, the same in every process. The
        observations are in the order of ranks, and of each rank in the order in which it had them: where the ranks have one part of
        a table after the other, in the order of the table. Weights are ones where a process had none and another had.

    Raises
    ------
    TypeError, ValueError
        In every process alike, where their parts do not fit together or all are empty.
    """
    if processes.size == 1 and len(reading.data):
        return reading
    columns = {} if reading.form == SHARDS else _columns(reading)
    told = processes.all_gather(_description(reading, columns))
    givers = [own for own in told if own["n"]]
    _check_forms(told)
    if not givers:
        raise ValueError("X has no observations on any rank, while a minimum of 1 is required.")
    if reading.form == SHARDS:
        return _part_of_shards(reading.data.shards, processes)
    dtypes = _agree_on_columns(told)
    items, item_code = _agree(reading.items, "item", told, processes)
    agreed = replace(reading, n_features=givers[0]["n_features"], names=givers[0]["names"], items=items, processes=processes)
    if reading.form == SPARSE:
        first = sum(own["n_users"] for own in told[: processes.rank])
        users, user, item = np.arange(first, first + len(reading.users)), reading.data.user_ids, reading.data.item_ids
        return _with_columns(agreed, users, user, item, _filled(columns, len(reading.data), dtypes))
    categories = {}
    for key in givers[0]["categories"]:
        name, own = key[1], reading.categories.get(key[1], np.empty(0))
        categories[name], code = _agree(own, name, told, processes)
        columns[key] = code[columns.get(key, np.empty(0, dtype=np.int64))]

    owner = owners_of(reading.users, processes.size, firsts)
    rows = _Rows(owner[reading.data.user_ids], processes)
    users, user = _exchange_users(reading, owner, rows, told)
    item = rows.exchange(item_code.astype(np.int32)[reading.data.item_ids])
    moved = ((key, rows.exchange(values)) for key, values in _filled(columns, len(reading.data), dtypes))
    return _with_columns(replace(agreed, categories=categories), users, user, item, moved)


def owners_of(users, size, firsts=None):
    """Find the processes to which users belong.

    Parameters
    ----------
    users : ndarray of shape (n,)
        Labels, as ``encode`` returns them, or positions.
    size : int
        How many processes there are.
    firsts : list of int or None, optional
        Where users are the rows of sparse matrices, that of each process's first row, None where it has none.

    Returns
    -------
    ndarray of shape (n,), uint16
    """
    if firsts is None:
        return shares(stable_hash(users, "user"), size).astype(np.uint16)
    having = [rank for rank, first in enumerate(firsts) if first is not None]
    at = np.searchsorted([firsts[rank] for rank in having], users, side="right") - 1
    return np.array(having, dtype=np.uint16)[at]


def firsts_of(reading):
    """What ``owners_of`` asks for of a Reading that was exchanged: None where a user's label says who has them."""
    if reading.form != SPARSE:
        return None
    return reading.processes.all_gather(int(reading.users[0]) if len(reading.users) else None)


def check_types(labels, more, role, name, processes):
    """Refuse ids (n,) of an argument beside X that are not of the type of the ids of X, in all processes alike."""
    told = processes.all_gather([type_of(own) if own is not None and len(own) else None for own in (labels, more)])
    check_equal(
        [own[1] for own in told],
        f"{role} ids of {name} must be of one type on all ranks",
        "Read the column as text everywhere.",
        TypeError,
    )
    of_x, got = (next((own[at] for own in told if own[at] is not None), None) for at in (0, 1))
    if None not in (of_x, got) and of_x != got:
        raise TypeError(f"{role} ids of {name} must be of the type that those of X have, {of_x}. Got {got}.")


def _part_of_shards(shards, processes):
    """A Reading of the shards that hold the users of this process."""
    check_equal(
        [own[:12] for own in processes.all_gather(shards.digest)], "X must be Shards of the same data, by digest, on all ranks"
    )
    return replace(reading_of(shards.part(processes.rank, processes.size)), processes=processes)


def with_all_users(reading):
    """A Reading that was exchanged, with the users of all processes in one numbering: those of others have no observations."""
    parts = reading.processes.all_gather(reading.users)
    users, places = join([part for part in parts if len(part)], "user")
    data = copy.copy(reading.data)
    data.num_users = len(users)
    if len(reading.users):
        own = sum(len(part) > 0 for part in parts[: reading.processes.rank])
        data.user_ids = places[own][data.user_ids]
    return replace(reading, data=data, users=users)


def digest_of_all(reading, processes, judging=None):
    """A digest of what all processes have: the same however their rows are spread and in whatever order they come.

    Parameters
    ----------
    reading : Reading
        As ``exchange`` gives it.
    processes : Communicator
    judging : Reading, optional
        What the fit is judged by, as this process was given it; in all processes or in none.

    Returns
    -------
    str
    """
    user, data, for_all, tables = stable_hash(reading.users, "user"), reading.data, [reading.items], []
    if reading.form == SHARDS:
        for_all.append(np.array([data.shards.digest]))
    else:
        observed = _columns_by_name(reading)
        for_all.append(np.array([*observed]))
        tables.append([user, data.user_ids, data.item_ids, *observed.values()])
    if judging is not None:
        users = np.zeros(len(judging.users), dtype=np.uint64) if judging.form == SPARSE else stable_hash(judging.users, "user")
        item = stable_hash(judging.items, "item")[judging.data.item_ids].view(np.int64)
        tables.append([users, judging.data.user_ids, item, *_columns_by_name(judging).values()])
    for role, side in sorted(reading.described.items()):
        matrix = side.encoded.matrix
        if role == "user":
            number = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
            tables.append([user, number, matrix.indices, matrix.data])
        else:
            for_all += [matrix.indptr, matrix.indices, matrix.data]
    own = [_sum_of_hashes(*table) for table in tables]
    whole = [[sum(sums) % 2**64 for sums in zip(*table, strict=True)] for table in zip(*processes.all_gather(own), strict=True)]
    return digest_of(*for_all, np.array(whole, dtype=np.uint64))


def _columns_by_name(reading):
    """The columns of the observations beside the ids, in the order of what they are called."""
    found = {name: getattr(reading.data, name) for name in ("ratings", "weights")}
    found |= {f"of {name}": own for name, own in reading.features.items()}
    return {name: own for name, own in sorted(found.items()) if own is not None}


def _sum_of_hashes(hashed, number, *columns):
    """How many rows there are, and two sums of their hashes; of the first column the hashed label counts."""
    sums = [len(number), 0, 0]
    for start in range(0, len(number), BLOCK):
        some = slice(start, start + BLOCK)
        rows = hashed[number[some]]
        for values in columns:
            rows = mixed(rows ^ _as_bits(values[some]))
        for at in (1, 2):
            rows = mixed(rows)
            sums[at] += int(rows.sum(dtype=np.uint64))  # modulo 2**64
    return sums


def _as_bits(values):
    """Numbers as 64 bits, the same for equal ones of any type; labels by their hash."""
    if values.dtype.kind not in "biuf":
        return stable_hash(values, "column")
    return (values.astype(np.float64) + 0.0).view(np.uint64)


def _columns(reading):
    """The columns of the observations beside the ids, by the part of the Reading that holds them and their name."""
    of_data = {(DATA, name): getattr(reading.data, name) for name in COLUMNS}
    columns = of_data | {(FEATURES, name): values for name, values in reading.features.items()}
    return {key: values for key, values in columns.items() if values is not None}


def _filled(columns, n, dtypes):
    """The columns that were agreed on, one by one, in the dtypes that were; ones for weights that a process has not."""
    for key, dtype in dtypes.items():
        yield key, columns[key].astype(dtype, copy=False) if key in columns else np.ones(n, dtype=dtype)


def _with_columns(reading, users, user, item, columns):
    """A Reading of other observations, and of their users alone."""
    columns = dict(columns)
    of_data = {name: columns.get((DATA, name)) for name in COLUMNS}
    data = Interactions(user, item, **of_data, num_users=len(users), num_items=len(reading.items))
    features = {name: values for (part, name), values in columns.items() if part == FEATURES}
    return replace(reading, data=data, users=users, features=features)


class _Rows:
    """The rows of this process, each of which goes to one: ``to``, of shape (n,), uint16."""

    def __init__(self, to, processes):
        self.processes, self.counts = processes, np.bincount(to, minlength=processes.size)
        self.order = np.argsort(to, kind="stable").astype(np.int32 if len(to) < 2**31 else np.int64)
        self.received = np.array(processes.all_gather(self.counts))[:, processes.rank]

    def exchange(self, values):
        """A column of the rows of this process for that of the rows that come to it."""
        if values.dtype.kind != "O":
            return self.processes.all_to_all(values, self.counts, self.order)[0]
        return np.concatenate(send(np.split(values[self.order], np.cumsum(self.counts)[:-1]), self.processes))


def _exchange_users(reading, owner, rows, told):
    """The users of this process, and their row numbers in the observations that come to it."""
    by_owner, n_users = np.argsort(owner, kind="stable"), np.bincount(owner, minlength=rows.processes.size)
    starts = np.cumsum(n_users) - n_users
    code = np.empty(len(owner), dtype=np.int32)  # among those that go to the same process
    code[by_owner] = np.arange(len(owner)) - np.repeat(starts, n_users)
    users, places = _join(send(np.split(reading.users[by_owner], starts[1:]), rows.processes), "user", told)
    user, stop = rows.exchange(code[reading.data.user_ids]), np.cumsum(rows.received)
    for sent, place in zip(np.split(user, stop[:-1]), places, strict=True):
        sent[:] = place[sent]
    return users, user


def _agree(labels, role, told, processes):
    """One numbering of what the processes have labels of: all labels, and the new row numbers of this process's."""
    union, places = _join(processes.all_gather(labels), role, told)
    return union, places[processes.rank]


def number_alike(labels, role, processes):
    """Agree on one numbering of labels (n,), as ``encode`` returns them: all labels, and the new numbers of this process's."""
    types = processes.all_gather(type_of(labels) if len(labels) else None)
    check_equal(types, f"{role} must be of one type on all ranks", "Read the column as text everywhere.", TypeError)
    return _agree(labels, role, [{"types": {} if own is None else {role: own}} for own in types], processes)


def _join(parts, role, told):
    """``labels.join`` of what the processes sent, where those that have no labels at all may have sent any type."""
    has_some = [role in own["types"] for own in told]
    union, places = join([part for part, has in zip(parts, has_some, strict=True) if has], role)
    found = iter(places)
    return union, [next(found) if has else np.empty(0, dtype=np.int64) for has in has_some]


def send(objects, processes):
    """Send an object to each process; what they have sent to this one, by rank."""
    messages = [pickle.dumps(one, pickle.HIGHEST_PROTOCOL) for one in objects]
    received, counts = processes.all_to_all(np.frombuffer(b"".join(messages), dtype=np.uint8), list(map(len, messages)))
    return [pickle.loads(part.tobytes()) for part in np.split(received, np.cumsum(counts)[:-1])]


def _description(reading, columns):
    """What the processes compare: dtypes and types, no values."""
    labels = {"user": reading.users, "item": reading.items} | reading.categories
    return {
        "n": len(reading.data),
        "n_users": len(reading.users),
        "form": reading.form,
        "n_features": reading.n_features,
        "names": reading.names,
        "types": {role: type_of(own) for role, own in labels.items() if len(own)},
        "dtypes": {name: values.dtype for name, values in columns.items()},
        "categories": [(FEATURES, name) for name in sorted(reading.categories)],
    }


def _check_forms(told):
    """Refuse parts that are no parts of one whole."""
    check_equal([own["form"] for own in told], "X must have one form on all ranks: tables, sparse matrices or Interactions")
    has = [own["n"] > 0 or own["form"] == SPARSE for own in told]
    names = [None if own["names"] is None else list(own["names"]) for own in told]
    n_features = [f"{own['n_features']} columns" for own in told]
    for values in (n_features, names):
        own = [value if some else None for value, some in zip(values, has, strict=True)]
        check_equal(own, "X must have the same columns on all ranks")
    for role in sorted({role for own in told for role in own["types"]}):
        rule = (
            f"{role} ids must be of one type on all ranks"
            if role in ("user", "item")
            else f"{role} must be of one type on all ranks"
        )
        check_equal([own["types"].get(role) for own in told], rule, "Read the column as text everywhere.", TypeError)


def _agree_on_columns(told):
    """The dtype of each column of the rows that change hands; a dict by name."""
    givers, found = [own if own["n"] else None for own in told], {}
    for key in sorted({key for own in told for key in own["dtypes"]}, key=str):
        dtypes = [None if own is None else own["dtypes"].get(key) for own in givers]
        what = "time" if key[1] is None else key[1]
        if key != (DATA, "weights"):
            has = [None if own is None else "them" if key in own["dtypes"] else "none" for own in givers]
            check_equal(has, f"{what} must be given on all ranks or on none")
        kinds = [None if dtype is None else _KINDS.get(dtype.kind, "objects") for dtype in dtypes]
        labels = [None if own is None else "labels" if key in own["categories"] else "numbers" for own in givers]
        check_equal(kinds, f"{what} must be of one type on all ranks")
        check_equal(labels, f"{what} must be of one type on all ranks")
        given = [dtype for dtype in dtypes if dtype is not None]
        if given:
            found[key] = np.dtype(object) if any(dtype.kind in "OT" for dtype in given) else np.result_type(*given)
    return found


def check_equal(values, rule, cure="", error=ValueError):
    """Refuse what differs between ranks; None is what says nothing."""
    said = [(rank, value) for rank, value in enumerate(values) if value is not None]
    for rank, value in said:
        if value != said[0][1]:
            raise error(f"{rule}. Got {said[0][1]} on rank {said[0][0]} and {value} on rank {rank}. {cure}".rstrip())
