"""Attributes of users and items beside what was read: whose they are, and the ids that only they have. Touches no estimator."""

from dataclasses import dataclass, replace
from typing import Any

from sk_torchmf.distributed import ALONE
from sk_torchmf.inputs.features import EncodedFeatures, encode, fit_encoder, read_table
from sk_torchmf.inputs.forms import LABELLED, SPARSE, TABLE
from sk_torchmf.inputs.labels import lookup
from sk_torchmf.solvers.design import SideFeatures

ROLES = "user", "item"


@dataclass(frozen=True)
class Described:
    """The attributes of one side.

    Attributes
    ----------
    encoded : EncodedFeatures
        Of all its ids.
    encoder : transformer
        What made them.
    """

    encoded: EncodedFeatures
    encoder: Any

    def merged(self, place, n, more=None, more_place=None):
        """These among ``n`` ids, and more of the same columns, which replace what was there."""
        encoded = self.encoded.placed(place, n)
        return replace(self, encoded=encoded if more is None else encoded.updated(more.encoded.placed(more_place, n)))


def describe(reading, features, estimator, earlier=None):
    """Join tables of attributes to a Reading.

    Parameters
    ----------
    reading : Reading
    features : dict of str to table or None
        By role.
    estimator : estimator
        For its parameters ``user``, ``item``, ``user_encoder`` and ``item_encoder``.
    earlier : dict of str to Described, optional
        Whose encoders are to be used. By default those of the estimator are fitted.

    Returns
    -------
    Reading
        Of all ids: those that only a table has come in, without observations.
    """
    n_rows = reading.shape[0] if reading.form == SPARSE else len(reading.data)  # of X
    form = TABLE if reading.form in LABELLED else reading.form
    for role in ROLES:
        if features.get(role) is None:
            continue
        if earlier is not None and role not in earlier:
            raise ValueError(
                f"{role}_features were not passed to fit, so the model has no weights for them. Fit again, on all observations, "
                f"with {role}_features."
            )
        table = read_table(features[role], role, getattr(estimator, role), form, n_rows)
        labels = reading.users if role == "user" else reading.items
        if earlier is None and not describes(table.ids, labels, role):
            raise none_described(table.ids, labels, role)
        encoder = fit_encoder(getattr(estimator, f"{role}_encoder"), table, role) if earlier is None else earlier[role].encoder
        if reading.form == SPARSE:
            table.check_positions(reading.shape[ROLES.index(role)])
        reading, place = reading.with_ids(role, table.ids)
        encoded = encode(encoder, table, place, reading.shape[ROLES.index(role)])
        if role in reading.described:
            encoded = reading.described[role].encoded.updated(encoded)
        reading = replace(reading, described=reading.described | {role: Described(encoded, encoder)})
    return reading


def features_of(described, known, seen_by=None, processes=ALONE):
    """What a solver is told of the users and items that it is given.

    Parameters
    ----------
    described : sequence of Described or None
        Of the users and of the items.
    known : tuple of ndarray of int
        The row numbers, among all users and all items, of those.
    seen_by : {"user", "item", "both", None}
        Whose rows have what they were observed with for features.
    processes : Communicator, optional
        Those that have the other users, whose groups of columns are the same.

    Returns
    -------
    SideFeatures
    """
    groups: list[dict] = []
    for role, side, rows in zip(ROLES, described, known, strict=True):
        if side is None:
            groups.append({})
            continue
        missing = bool((~side.encoded.described[rows]).any())
        if role == "user":
            missing = processes.largest(float(missing)) > 0
        groups.append(side.encoded.groups_of(rows, missing))
    return SideFeatures(groups[0], groups[1], seen_by)


def describes(ids, labels, role):
    """Whether any of the ids of a table is one of X; if not, its rows are keyed otherwise than was meant."""
    try:
        return bool((lookup(labels, ids, role) >= 0).any())
    except TypeError:  # ids of another type
        return False


def none_described(ids, labels, role):
    """The error of a table none of whose ids is one of X."""
    return ValueError(
        f"{role}_features has no row for any {role} of X. Its ids look like {ids[:3].tolist()}, and those of X like "
        f"{labels[:3].tolist()}. Put the ids into a column {role!r}, or make them the index."
    )


def of_new_users(features, encoder, n):
    """The attributes of new users, whose ratings are the ``n`` rows of a sparse matrix; EncodedFeatures, or None for None."""
    if features is None:
        return None
    if encoder is None:
        raise ValueError(
            "user_features were not passed to fit, so the model has no weights for them. Fit again with user_features."
        )
    table = read_table(features, "user", 0, SPARSE, n)
    if len(table.ids) and table.ids[-1] >= n:
        raise ValueError(f"user_features has a row for the user {table.ids[-1]}, but X has {n} rows, counted from 0.")
    return encode(encoder, table, table.ids, n)
