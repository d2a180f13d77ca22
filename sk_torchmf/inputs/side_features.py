"""Attributes of users and items beside what was read: whose they are, and the ids that only they have. Touches no estimator."""

from dataclasses import dataclass, replace
from typing import Any

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
                f"{role}_features were not there in fit, so their weights are not known. Fit again, on all observations, with them."
            )
        table = read_table(features[role], role, getattr(estimator, role), form, n_rows)
        if earlier is None:
            _check_describes(table, reading.users if role == "user" else reading.items)
        encoder = fit_encoder(getattr(estimator, f"{role}_encoder"), table, role) if earlier is None else earlier[role].encoder
        if reading.form == SPARSE:
            table.check_positions(reading.shape[ROLES.index(role)])
        reading, place = reading.with_ids(role, table.ids)
        encoded = encode(encoder, table, place, reading.shape[ROLES.index(role)])
        if role in reading.described:
            encoded = reading.described[role].encoded.updated(encoded)
        reading = replace(reading, described=reading.described | {role: Described(encoded, encoder)})
    return reading


def features_of(described, known, seen_by=None):
    """What a solver is told of the users and items that it is given.

    Parameters
    ----------
    described : sequence of Described or None
        Of the users and of the items.
    known : tuple of ndarray of int
        The row numbers, among all users and all items, of those.
    seen_by : {"user", "item", "both", None}
        Whose rows have what they were observed with for features.

    Returns
    -------
    SideFeatures
    """
    sides = zip(described, known, strict=True)
    users, items = ({} if side is None else side.encoded.groups_of(rows) for side, rows in sides)
    return SideFeatures(users, items, seen_by)


def _check_describes(table, labels):
    """Refuse a table that has no id of X: its rows are keyed otherwise than was meant."""
    try:
        known = (lookup(labels, table.ids, table.role) >= 0).any()
    except TypeError:  # ids of another type
        known = False
    if not known:
        raise ValueError(
            f"{table.role}_features describes none of the {table.role}s of X. Its ids are such as {table.ids[:3].tolist()}, those "
            f"of X {labels[:3].tolist()}. Put the ids into a column {table.role!r}, or make them the index."
        )


def of_new_users(features, encoder, n):
    """The attributes of new users, whose ratings are the ``n`` rows of a sparse matrix; EncodedFeatures, or None for None."""
    if features is None:
        return None
    if encoder is None:
        raise ValueError("user_features were not there in fit, so their weights are not known. Fit again with them.")
    table = read_table(features, "user", 0, SPARSE, n)
    if len(table.ids) and table.ids[-1] >= n:
        raise ValueError(f"user_features has a row for the user {table.ids[-1]}, but X has {n} rows, counted from 0.")
    return encode(encoder, table, table.ids, n)
