"""What an argument must be: each check names the argument, the rule, what came and the cure."""

import os
from numbers import Integral, Real
from types import NoneType

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import column_or_1d

MOST = 2**31 - 1  # of what is counted: index plans are int32
SMALLEST, LARGEST = 1e-30, 1e30  # of weights and parameters: float32 holds them, and what they are multiplied by


def as_array(values, name):
    """Return values as an array, refusing a sparse one and nested lists of unequal lengths."""
    if sp.issparse(values):
        raise TypeError(f"{name} must be a dense array. Got a sparse one; pass its toarray().")
    try:
        return np.asarray(values)
    except ValueError:
        raise ValueError(f"{name} must be an array of one value each. Got lists of unequal lengths.") from None


def as_matrix(X, *, least=1, **rules):
    """Return a dense table as an array of two dimensions, with ``least`` rows or more; scikit-learn's words refuse what is none.

    What is one already is not given to scikit-learn's check, which sets warning filters: that is not safe in threads.
    """
    if isinstance(X, np.ndarray) and X.ndim == 2 and X.dtype.kind in "biufOUSTMm" and X.shape[0] >= least and X.shape[1]:
        return np.asarray(X)
    return check_array(X, dtype=None, ensure_all_finite=False, ensure_min_samples=least, **rules)


def exact_digits(dtype):
    """Binary digits up to which a float type tells whole numbers apart; 62 at most, which int64 holds."""
    return min(np.finfo(dtype).nmant + 1, 62)


def check_ids(ids, name):
    """Return ids as a one-dimensional integer array >= 0; integral floats are cast, anything else is refused."""
    ids = as_array(ids, name)
    if ids.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional. Got shape {ids.shape}.")
    if ids.dtype.kind not in "iu":
        kinds = set(map(type, ids)) if ids.dtype.kind == "O" else {ids.dtype.type} if ids.size else set()
        if not all(issubclass(kind, Real | NoneType) and not issubclass(kind, bool | np.bool_) for kind in kinds):
            got = repr(ids[0]) if ids.dtype.kind == "O" else f"dtype {ids.dtype}"
            raise TypeError(f"{name} must be integers. Got {got}; pass labels in a table instead.")
        values = ids.astype(np.float64)
        digits = exact_digits(ids.dtype if ids.dtype.kind == "f" else values.dtype)
        large = np.isfinite(values) & (np.abs(values) >= 2.0**digits)
        bad = np.flatnonzero(large | ~np.isfinite(values) | (values != np.floor(values)))
        if bad.size:
            limit = f" below 2**{digits}, from where on floats do not tell them apart" if large[bad[0]] else ""
            raise ValueError(f"{name} must be whole numbers{limit}. Got {name}[{bad[0]}] = {values[bad[0]]}.")
        ids = values.astype(np.int64)
    if ids.size and ids.dtype.kind == "i" and ids.min() < 0:
        at = int(np.argmin(ids))
        raise ValueError(f"{name} must be >= 0. Got {name}[{at}] = {ids[at]}.")
    return ids


def check_below(ids, n, name, size_name):
    """Refuse ids that are not below ``n``; return ``n``, or the smallest that fits where it is None."""
    highest = int(ids.max()) if len(ids) else -1
    if n is None:
        return highest + 1
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 0:
        raise ValueError(f"{size_name} must be an int >= 0. Got {n!r}.")
    if highest >= n:
        at = int(np.argmax(ids))
        raise ValueError(f"{name}[{at}] is {highest}, but {size_name} is {n}. Raise {size_name} or drop the row.")
    return int(n)


def check_finite(values, name):
    """Refuse NaN and infinity, naming the first."""
    if not np.isfinite(values).all():
        at = int(np.flatnonzero(~np.isfinite(values))[0])
        raise ValueError(f"{name}[{at}] is {values[at]}. Drop the row or fill it in before fitting.")
    return values


def check_length(values, n, name, what="observation"):
    """Return values as an array of shape (n,)."""
    values = as_array(values, name)
    if values.shape != (n,):
        raise ValueError(f"{name} must have one value for each {what}, shape ({n},). Got shape {values.shape}.")
    return values


def check_ratings(ratings, n, name):
    """Return ratings as a finite real array of shape (n,), in the dtype they came in where that is a float."""
    values = as_array(ratings, name)
    if values.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: {name} has dtype {values.dtype}.")
    plain = values.ndim == 1 and values.dtype.kind in "biuf"
    ratings = values if plain else column_or_1d(ratings, warn=True)  # which sets warning filters: not safe in threads
    if ratings.dtype.kind in "mM":
        raise ValueError(
            f"{name} must be numbers. Got {ratings.dtype}, and a time is no rating. Pass the column of ratings; of durations pass "
            "a number, such as seconds."
        )
    if ratings.dtype.kind not in "fiu":
        try:
            ratings = ratings.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} must be numbers. {str(error).capitalize()}.") from None
    if ratings.dtype.itemsize > 8:  # torch has no type so long
        ratings = ratings.astype(np.float64)
    return check_size(check_finite(check_length(ratings, n, name), name), name)


def check_weights(weights, n, name, what="observation", hint=""):
    """Return weights as a float64 array of shape (n,): finite, >= 0, not all zero."""
    given = as_array(weights, name)
    try:
        if given.dtype.kind not in "biufO":
            raise TypeError
        weights = given.astype(np.float64, copy=False)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be numbers. Got {given.dtype}.") from None
    if weights.shape != (n,):
        raise ValueError(f"{name} must have one weight for each {what}, shape ({n},). Got shape {weights.shape}.{hint}")
    check_finite(weights, name)
    if n and weights.min() < 0:
        at = int(np.argmin(weights))
        raise ValueError(f"{name} must be >= 0. Got {name}[{at}] = {weights[at]}.")
    if n and not weights.any():
        raise ValueError(f"{name} are all zero. At least one weight must be greater than zero.")
    if n and not SMALLEST <= weights.max() <= LARGEST:
        raise ValueError(
            f"The largest of {name} must lie between {SMALLEST} and {LARGEST}. Got {weights.max():.3g}. Rescale the weights."
        )
    return raise_tiny(weights)


def raise_tiny(weights):
    """Return weights >= 0 with those raised to the smallest that float32 would make zeros of: a zero is no observation."""
    lost = (weights > 0) & (weights < SMALLEST)
    return np.where(lost, SMALLEST, weights) if lost.any() else weights


def check_n_positions(n, role):
    """Refuse more positions of users or items than an int32 plan can index."""
    if n > MOST:
        raise ValueError(
            f"{role} ids are positions, and {n} are more than a model can have, {MOST}. Where they are labels pass a table "
            "instead, of which only ids that occur take a row."
        )


def check_n_pairs(n):
    """Refuse more observations than an int32 plan can index."""
    if n > MOST:
        raise ValueError(f"At most {MOST} observations fit one model (int32 index plans). Got {n}. Fit on a sample of them.")


def check_device(device):
    """Return the torch device asked for, ``torch.get_default_device()`` for None; never another one instead."""
    asked = device
    try:
        device = torch.get_default_device() if device is None else torch.device(device)
    except RuntimeError:
        raise ValueError(f'device must be "cpu", "cuda" or "cuda:0" and so on. Got "{asked}".') from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f'device="{device}" was asked for, but torch.cuda.is_available() is False. Use device="cpu".')
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f'device must be "cpu" or "cuda". Got "{device}".')
    return device


def check_memory(n_bytes, what, cure):
    """Refuse, with words, an array that would not fit in the memory that is free now."""
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not every platform tells
        return
    if n_bytes > free:
        raise MemoryError(f"{what} needs {n_bytes / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free. {cure}")


def check_size(ratings, name):
    """Refuse ratings so large or so small that float32 factors could not hold them."""
    size = max(float(ratings.max(initial=0)), -float(ratings.min(initial=0)))
    if size and not 1e-35 <= size <= 1e35:
        raise ValueError(f"The largest of {name} must lie between 1e-35 and 1e35 in size. Got {size:.3g}. Rescale the ratings.")
    return ratings


def check_rows(rows, name, dtype=np.float64):
    """Return rows of numbers as an array of two dimensions."""
    rows = as_array(rows, name)
    if rows.ndim != 2 or rows.dtype.kind not in "biufO":
        raise ValueError(f"{name} must be numbers, an array of two dimensions. Got {rows.dtype} of shape {rows.shape}.")
    try:
        with np.errstate(over="ignore"):  # what becomes infinite is refused as that
            return rows.astype(dtype)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be numbers. Got {rows.dtype}.") from None


def check_flag(value, name):
    """Return a switch, True or False."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False. Got {value!r}.")
    return bool(value)


def check_count(n, name):
    """Return how many are asked for, an int >= 1."""
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise ValueError(f"{name} must be an int >= 1. Got {n!r}.")
    if n > MOST:
        raise ValueError(f"{name} must be at most {MOST}. Got {n}.")
    return int(n)


def as_python(value):
    """Return a parameter with Python's numbers for those of NumPy and others, which torch does not take everywhere."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if type(value) in (list, tuple):
        return type(value)(map(as_python, value))
    return {name: as_python(one) for name, one in value.items()} if type(value) is dict else value


def check_seed(random_state):
    """Return a seed from scikit-learn's ``random_state``; None draws from the operating system, never from a global generator."""
    if random_state is None:
        return int(np.random.default_rng().integers(2**31))
    return int(check_generator(random_state).randint(2**31 - 1))


def check_generator(random_state):
    """Return the generator that scikit-learn's ``random_state`` means."""
    try:
        return check_random_state(random_state)
    except ValueError:
        raise ValueError(f"random_state must be None, an int from 0 to 2**32 - 1 or a RandomState. Got {random_state!r}.") from None
