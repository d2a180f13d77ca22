"""A hash of labels that no version, platform, process or order of the data changes, and draws by it; knows no processes."""

import hashlib
from decimal import Decimal
from fractions import Fraction

import numpy as np
from scipy.special import ndtri

from sk_torchmf.inputs.id_types import BOOLEAN, NUMBER, TEXT, type_of

GOLDEN = 0x9E3779B97F4A7C15
BLOCK = 2**14  # labels whose rows are drawn at once


def stable_hash(labels, role):
    """Hash labels by their values: what is one label gives one number, whatever type holds it.

    Whole numbers go through splitmix64 [1]_, text and bytes through 64 bits of BLAKE2b. Python's own ``hash`` differs from
    process to process.

    Parameters
    ----------
    labels : ndarray of shape (n,)
        None missing, as ``encode`` returns them. Text costs about a microsecond each, so pass the distinct ones.
    role : str
        What they name, for messages.

    Returns
    -------
    ndarray of shape (n,), uint64
        17 and 17.0 give the same, and so do times in different units.

    Raises
    ------
    TypeError
        For objects that are neither numbers nor text, booleans, bytes or times.

    References
    ----------
    .. [1] Steele, Lea, Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_torchmf.inputs.stable_hash import shares, stable_hash
    >>> hashed = stable_hash(np.array(["ann", "bob", "eve", "joe"]), "user")
    >>> shares(hashed, 2), shares(hashed, 4)
    (array([1, 1, 1, 0]), array([2, 2, 2, 1]))
    >>> bool((stable_hash(np.array([17]), "user") == stable_hash(np.array([17.0]), "user")).all())
    True
    """
    kind, type_name = labels.dtype.kind, type_of(labels)
    if len(labels) == 0:
        return np.empty(0, dtype=np.uint64)
    if kind in "iub":
        return mixed(labels.astype(np.uint64))
    if kind == "f":
        return _of_floats(labels.astype(np.float64))
    if kind in "mM":
        return mixed(labels.astype(f"{kind}8[us]").astype(np.int64).astype(np.uint64))
    if type_name in (TEXT, "bytes"):
        return _of_text(labels.tolist())
    if type_name == BOOLEAN:
        return mixed(labels.astype(bool).astype(np.uint64))
    if type_name == NUMBER or isinstance(labels[0], Decimal):
        return np.concatenate([_of_number(value) for value in labels.tolist()])
    raise TypeError(
        f"{role} ids must be numbers, text, bytes or times, so that they can be divided into shards. Got "
        f"{type(labels[0]).__name__}. Convert them to text."
    )


def shares(hashed, n_shares):
    """Divide hashed labels among shards or processes, in equal parts.

    Parameters
    ----------
    hashed : ndarray of shape (n,), uint64
        See ``stable_hash``.
    n_shares : int
        From 1 to 2**32.

    Returns
    -------
    ndarray of shape (n,), int64
        From 0 to ``n_shares - 1``. Shares nest: of 2 the first is the first two of 4.
    """
    return ((hashed >> np.uint64(32)) * np.uint64(n_shares) >> np.uint64(32)).astype(np.int64)


def normal_rows(hashed, width, seed, dtype):
    """Draw a row for each label, by the label and the seed alone: whoever has it draws the same, among however many others.

    Parameters
    ----------
    hashed : ndarray of shape (n,), uint64
        See ``stable_hash``.
    width : int
    seed : int
        At least zero.
    dtype : dtype

    Returns
    -------
    ndarray of shape (n, width)
        Standard normal: of a label's hash and the seed a stream of splitmix64 begins, and its uniform numbers go through the
        inverse of the normal distribution function.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_torchmf.inputs.stable_hash import normal_rows, stable_hash
    >>> hashed = stable_hash(np.array(["ann", "bob", "eve"]), "user")
    >>> rows = normal_rows(hashed, 2, seed=0, dtype=np.float64)
    >>> np.array_equal(normal_rows(hashed[2:], 2, seed=0, dtype=np.float64), rows[2:])
    True
    """
    rows = np.empty((len(hashed), width), dtype=dtype)
    starts = mixed(hashed ^ mixed(np.array([seed], dtype=np.uint64)))
    steps = np.arange(width, dtype=np.uint64) * np.uint64(GOLDEN)
    for first in range(0, len(rows), BLOCK):
        some = slice(first, first + BLOCK)
        rows[some] = ndtri(_uniform(starts[some, None] + steps))
    return rows


def uniform_numbers(hashed, at, seed):
    """Draw a number in (0, 1) for each label and whole number, by these and the seed alone.

    Parameters
    ----------
    hashed : ndarray of shape (n,), uint64
        See ``stable_hash``.
    at : ndarray of shape (n,), int
        At least zero: the place in the label's stream, which is that of ``normal_rows``.
    seed : int
        At least zero.

    Returns
    -------
    ndarray of shape (n,), float64
    """
    return _uniform(mixed(hashed ^ mixed(np.array([seed], dtype=np.uint64))) + at.astype(np.uint64) * np.uint64(GOLDEN))


def pair_keys(rows, columns):
    """A number for each of some pairs of labels, by the hashes of both: ndarrays of shape (n,), uint64, in and out."""
    return mixed(rows ^ mixed(columns))


def uniform_draws(keys, seed, count, places, number):
    """Draw uniform numbers by keys and seed alone: whoever has a key draws the same.

    Parameters
    ----------
    keys : ndarray of shape (n,), uint64
    seed : int
        At least zero.
    count : int
        How many places a key has.
    places : ndarray of shape (m,), int
        The places that are asked for: the first ``count`` are those of the first key, and so on.
    number : int
        Of another draw at the same places.

    Returns
    -------
    ndarray of shape (m,), float64
        Between 0 and 1, neither of which comes.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_torchmf.inputs.stable_hash import pair_keys, stable_hash, uniform_draws
    >>> user, item = stable_hash(np.array(["ann", "bob"]), "user"), stable_hash(np.array(["tea", "milk"]), "item")
    >>> keys = pair_keys(user, item)
    >>> drawn = uniform_draws(keys, 0, 3, np.arange(6), 0)
    >>> np.array_equal(uniform_draws(keys[1:], 0, 3, np.arange(3), 0), drawn[3:])
    True
    """
    key, step = keys[places // count], (places % count + number * count).astype(np.uint64)
    starts = mixed(key ^ mixed(np.array([seed], dtype=np.uint64)))
    return _uniform(starts + step * np.uint64(GOLDEN))


def _uniform(counters):
    return ((mixed(counters) >> np.uint64(11)) + 0.5) * 2.0**-53


def mixed(x):
    """Splitmix64 of the counters x (n,), uint64, in arithmetic modulo 2**64."""
    x = x + np.uint64(GOLDEN)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _of_floats(values):
    """Whole numbers as integers, others by their bits."""
    whole = (np.floor(values) == values) & (np.abs(values) < 2**53)
    return mixed(np.where(whole, np.where(whole, values, 0).astype(np.int64), values.view(np.int64)).astype(np.uint64))


def _of_text(values):
    digests = (hashlib.blake2b(_as_bytes(value), digest_size=8).digest() for value in values)
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def _as_bytes(value):
    return value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")


def _of_number(value):
    """One of Python's numbers, as NumPy's of equal value where there is one."""
    exact = Fraction(value)
    if exact.denominator > 1:
        return _of_floats(np.array([float(value)])) if float(value) == exact else _of_text([str(exact)])
    return mixed(np.array([int(exact) % 2**64], dtype=np.uint64)) if -(2**63) <= exact < 2**64 else _of_text([str(exact)])
