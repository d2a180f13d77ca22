"""A score as a sum of parts: what all have in common, what features say of the user and of the item, and the rest."""

import numpy as np

from sk_torchmf.model.factors import BLOCK

OWN = "(own)"  # what a row is beyond its features


def split_rows(side, code, features=None, nan=False):
    """Split rows of a side, each a row of factors and a bias, into what all have in common and what sets each apart.

    Parameters
    ----------
    side : Side
    code : ndarray of shape (n,)
        Row numbers, -1 for unknown.
    features : EncodedFeatures, optional
        Of all ids of the side.
    nan : bool
        Whether rows of unknown ids are NaN.

    Returns
    -------
    common : ndarray of shape (n_factors + 1,)
        What is expected of a row with the average features of those that were observed; without features the mean row.
    parts : dict of str to ndarray of shape (n, n_factors + 1)
        By group what a row's features say beyond that, zero where they are not known, and what is its own; without features all of
        it, under the empty name. They add up to the row less ``common``.
    """
    rows = np.column_stack(side.at(code, nan))
    if features is None or side.weights is None:
        common = np.append(side.mean, 0.0)
        return common, {"": rows - common}
    weights = _with_bias(side.weights.weights, rows.shape[1])
    observed = (features.described & (side.counts > 0)).astype(np.float64)
    average = observed @ features.matrix / max(observed.sum(), 1.0)
    common = _with_bias(side.weights.constant[None], rows.shape[1])[0] + average @ weights
    described = np.flatnonzero((code >= 0) & features.described[code])
    own, parts = rows - common, {}
    for name, columns in features.groups.items():
        parts[name] = np.zeros_like(rows)
        known = features.matrix[code[described]][:, columns]
        parts[name][described] = known @ weights[columns] - average[columns] @ weights[columns]
        own -= parts[name]
    return common, parts | {OWN: own}


def split_scores(factors, user, item, features=(None, None), by="item", nan=False):
    r"""Split the scores of pairs into parts that add up to them.

    With the common rows :math:`\bar x` of both sides and what sets a user and an item apart from these, :math:`x_u - \bar x_U` and
    :math:`x_i - \bar x_I`, the score is that of the common rows, what either adds to it alone, and what both add together.

    Parameters
    ----------
    factors : Factors
    user, item : ndarray of shape (n,)
        Row numbers, -1 for unknown.
    features : tuple of EncodedFeatures or None
        Of all users and of all items.
    by : {"user", "item"}
        Whose groups divide what both add together.
    nan : bool
        Whether what unknown ids add is NaN.

    Returns
    -------
    dict of str to ndarray of shape (n,), float64
        ``mean``, ``user``, ``item`` and ``interaction``, the last three by group where the side has features.
    """
    k, places, sides = factors.n_factors, [], []
    for role, code, own in zip(("user", "item"), (user, item), features, strict=True):
        distinct, place = np.unique(code, return_inverse=True)
        places.append(place.reshape(code.shape))
        sides.append(split_rows(factors.side(role), distinct, own, nan))
    (common_user, of_user), (common_item, of_item) = sides
    level = factors.constant + common_user[k] + common_item[k] + common_user[:k] @ common_item[:k]
    found = {"mean": np.full(len(user), level)}
    for role, parts, place, other in (("user", of_user, places[0], common_item), ("item", of_item, places[1], common_user)):
        found |= {f"{role} {name}".strip(): (part[:, k] + part[:, :k] @ other[:k])[place] for name, part in parts.items()}
    divided, others = (of_item, of_user) if by == "item" else (of_user, of_item)
    at, at_others = places if by == "user" else places[::-1]
    whole = sum(others.values())[:, :k]
    for name, part in divided.items():
        found[f"interaction {name}".strip()] = _pair_dots(part[:, :k], at, whole, at_others)
    return found


def _pair_dots(rows, place, others, at_others):
    """The inner products (n,) of rows at some places with others at theirs."""
    dots = np.empty(len(place))
    for start in range(0, len(place), BLOCK):
        some = slice(start, start + BLOCK)
        dots[some] = np.einsum("nk,nk->n", rows[place[some]], others[at_others[some]])
    return dots


def _with_bias(rows, width):
    """Rows with a column of zeros in the place of a bias that a plain model has not."""
    return rows if rows.shape[1] == width else np.column_stack([rows, np.zeros(len(rows))])
