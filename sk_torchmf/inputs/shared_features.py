"""Tables of attributes of which each process has any rows: one encoding of them all, and to each process the rows that it needs."""

import hashlib
import pickle
from dataclasses import replace

import numpy as np
import scipy.sparse as sp

from sk_torchmf.inputs.cells import column_at, names_of
from sk_torchmf.inputs.exchange import check_equal, check_types, firsts_of, owners_of, send
from sk_torchmf.inputs.features import EncodedFeatures, FeatureTable, encode, fit_encoder, read_table
from sk_torchmf.inputs.forms import LABELLED, SPARSE, TABLE
from sk_torchmf.inputs.id_types import is_missing
from sk_torchmf.inputs.labels import is_frame, join
from sk_torchmf.inputs.side_features import ROLES, Described, describes, none_described


def describe_shared(reading, features, estimator):
    """Join tables of attributes to a Reading, where each process has any rows of them or no table.

    The first process puts the rows together, fits the encoders and encodes: all encodings are its own. Then each process gets the
    attributes of all items and those of its users.

    Parameters
    ----------
    reading : Reading
        As ``exchange`` returns it.
    features : dict of str to table or None
        By role. Beside sparse matrices the users of a table are rows of this process's own.
    estimator : estimator
        For its parameters ``user``, ``item``, ``user_encoder`` and ``item_encoder``.

    Returns
    -------
    Reading
        Of all items and of this process's users: those that only a table has come in, without observations.

    Raises
    ------
    ValueError, TypeError
        Where the tables do not fit together, in every process alike; where two describe an id differently, in the first process.
    """
    for role in ROLES:
        table = None if features.get(role) is None else _read(features[role], role, reading, estimator)
        told = reading.processes.all_gather(None if table is None else _description(table))
        if any(own is not None for own in told):
            _check_fitput_together(told, f"{role}_features")
            labels = reading.users if role == "user" else reading.items
            check_types(labels, None if table is None else table.ids, role, f"{role}_features", reading.processes)
            reading = _described(reading, role, table, told, getattr(estimator, f"{role}_encoder"))
    return reading


def _read(features, role, reading, estimator):
    """Read the table of the process, whose users are numbered on over the processes where those of sparse matrices are."""
    form = TABLE if reading.form in LABELLED else reading.form
    n_rows = reading.shape[0] if form == SPARSE and role == "user" else None  # no search cuts what processes share
    table = read_table(features, role, getattr(estimator, role), form, n_rows)
    if form == SPARSE:
        table.check_positions(reading.shape[ROLES.index(role)])
        if role == "user" and len(table.ids):
            table = replace(table, ids=table.ids + reading.users[0])
    return table


def _description(table):
    """What the processes compare of a table; a digest, since one that all have need travel once."""
    rows = table.rows
    kind = f"a frame of {type(rows).__module__.partition('.')[0]}" if is_frame(rows) else "a matrix"
    columns = sorted(names_of(rows)) if is_frame(rows) else f"{rows.shape[1]} columns"
    digest = hashlib.blake2b(pickle.dumps(table, pickle.HIGHEST_PROTOCOL), digest_size=16).digest()
    return {"kind": "a sparse matrix" if sp.issparse(rows) else kind, "columns": columns, "digest": digest}


def _check_fitput_together(told, name):
    """Refuse tables that are no parts of one."""
    for what, rule in (("kind", "be of one kind"), ("columns", "have the same columns")):
        check_equal([own and own[what] for own in told], f"{name} must {rule} on all ranks that have any")


def _described(reading, role, table, told, encoder):
    """The Reading with the attributes of one side."""
    processes, n = reading.processes, len(told)
    earlier = {own["digest"] for own in told[: processes.rank] if own is not None}
    is_new = table is not None and told[processes.rank]["digest"] not in earlier
    tables = send([table if is_new else None, *[None] * (n - 1)], processes)
    firsts = firsts_of(reading)
    parts = [None] * n
    if processes.rank == 0:
        parts = _encoded_parts([own for own in tables if own is not None], encoder, n, firsts)
    encoder, ids, encoded = send(parts, processes)[0]
    known = describes(ids, reading.users if role == "user" else reading.items, role)
    if not any(processes.all_gather(known)):
        raise none_described(ids, reading.users if role == "user" else reading.items, role)
    reading, place = reading.with_ids(role, ids)
    encoded = encoded.placed(place, reading.shape[ROLES.index(role)])
    return replace(reading, described=reading.described | {role: Described(encoded, encoder)})


def _encoded_parts(tables, encoder, size, firsts):
    """In the first process: the fitted encoder, and for each process the ids that it needs and their EncodedFeatures."""
    table = put_together(tables)
    encoder, n = fit_encoder(encoder, table, table.role), len(table.ids)
    try:
        pickle.dumps(encoder)
    except Exception as error:
        raise ValueError(
            f"{table.role}_encoder is fitted by one process and sent to the others, and it cannot be pickled: {error}. Use "
            "functions that a module defines in it."
        ) from error
    encoded = encode(encoder, table, np.arange(n), n)
    if table.role == "item":
        return [(encoder, table.ids, encoded)] * size
    owner = owners_of(table.ids, size, firsts)
    rows = [np.flatnonzero(owner == rank) for rank in range(size)]
    return [(encoder, table.ids[own], _some(encoded, own)) for own in rows]


def _some(encoded, rows):
    """The EncodedFeatures of some ids."""
    return EncodedFeatures(sp.csr_array(encoded.matrix[rows]), encoded.names, encoded.groups, encoded.described[rows])


def put_together(tables):
    """Make one table of the parts of several processes.

    Parameters
    ----------
    tables : list of FeatureTable
        Of one role and kind, with the same columns.

    Returns
    -------
    FeatureTable
        With one row for each id. What one part has as categories and another too are categories; other columns whose dtypes differ,
        but for numbers, are objects.

    Raises
    ------
    ValueError
        Where two parts have different rows for an id.
    """
    role = tables[0].role
    ids, places = join([table.ids for table in tables], role)
    rows, place = _stacked([table.rows for table in tables], f"{role}_features"), np.concatenate(places)
    order = np.argsort(place, kind="stable")
    first = np.zeros(len(order), dtype=bool)
    first[order[np.diff(place[order], prepend=-1) != 0]] = True
    of_id = order[first[order]]
    again = np.flatnonzero(~first)
    same = _alike(rows, again, of_id[place[again]])
    if not same.all():
        twice = ids[place[again[~same]]].tolist()[0]
        raise ValueError(
            f"{role}_features has different rows for the {role} {twice!r} on two ranks. Pass each id on one rank, or the same "
            "row on all that have it."
        )
    return FeatureTable(ids, rows if np.array_equal(of_id, np.arange(len(order))) else _taken(rows, of_id), role)


def _taken(rows, places):
    return rows.iloc[places] if hasattr(rows, "iloc") else rows[places]


def _stacked(parts, name):
    """The rows of several tables of one kind under each other."""
    first = parts[0]
    if len(parts) == 1:
        return first
    if sp.issparse(first):
        return sp.csr_array(sp.vstack(parts, format="csr"))
    if not is_frame(first):
        return np.concatenate(parts if len({part.dtype.kind for part in parts}) == 1 else [part.astype(object) for part in parts])
    parts = [part[list(first.columns)] for part in parts]
    if hasattr(first, "iloc"):
        return _stacked_pandas(parts)
    import polars

    try:
        return polars.concat(parts, how="vertical_relaxed")
    except polars.exceptions.PolarsError as error:
        raise ValueError(f"{name} must have columns of the same types on all ranks. {error}") from error


def _stacked_pandas(parts):
    """Frames of the same columns under each other: categories stay such, and what was different stays so."""
    import pandas
    from pandas.api.types import is_bool_dtype, is_numeric_dtype, union_categoricals

    found = {}
    for name in parts[0].columns:
        columns = [part[name] for part in parts]
        dtypes = [own.dtype for own in columns]
        if all(isinstance(dtype, pandas.CategoricalDtype) for dtype in dtypes):
            found[name] = union_categoricals(columns, ignore_order=True)
            continue
        if any(dtype != dtypes[0] for dtype in dtypes) and not all(
            is_numeric_dtype(dtype) and not is_bool_dtype(dtype) for dtype in dtypes
        ):
            columns = [own.astype(object) for own in columns]
        found[name] = pandas.concat(columns, ignore_index=True)
    return pandas.DataFrame(found)


def _alike(rows, some, others):
    """Which of some rows (n,) are the same as others, cell by cell; missing cells are."""
    if not len(some):
        return np.ones(0, dtype=bool)
    if sp.issparse(rows):
        return np.diff(sp.csr_array(rows[some] != rows[others]).indptr) == 0
    same = np.ones(len(some), dtype=bool)
    for at in range(rows.shape[1]):
        values = np.asarray(column_at(rows, at))
        own, other = values[some], values[others]
        same &= _equal_cells(own, other) if values.dtype.kind == "O" else (own == other) | ((own != own) & (other != other))
    return same


def _equal_cells(own, other):
    return np.array([one is two or _is_equal(one, two) for one, two in zip(own, other, strict=True)], dtype=bool)


def _is_equal(one, two):
    """Whether two cells say the same."""
    if is_missing(one) or is_missing(two):
        return is_missing(one) and is_missing(two)
    if isinstance(one, np.ndarray) or isinstance(two, np.ndarray):
        return list(one) == list(two)
    return bool(one == two)
