"""Values as JSON and arrays, and back: only the kinds listed here, so that what is read can be nothing else."""

import datetime
import math
import re
import uuid
from collections.abc import Mapping

import numpy as np
import scipy.sparse as sp
import torch

_PLAIN = (type(None), bool, int, str)
_SIZES = {"int": (8, 16, 32, 64), "uint": (8, 16, 32, 64), "float": (16, 32, 64)}
_SCALARS = {"bool": np.bool_} | {f"{kind}{n}": np.dtype(f"{kind}{n}").type for kind, sizes in _SIZES.items() for n in sizes}
_AS_TEXT: dict[type, tuple] = {  # by exact type: how it is written, how it is read
    bytes: ("bytes", bytes.hex, bytes.fromhex),
    datetime.date: ("date", datetime.date.isoformat, datetime.date.fromisoformat),
    datetime.datetime: ("datetime", datetime.datetime.isoformat, datetime.datetime.fromisoformat),
    uuid.UUID: ("uuid", str, uuid.UUID),
}
_FROM_TEXT = {tag: read for tag, _, read in _AS_TEXT.values()}
_SPARSE = {"csr_array": sp.csr_array, "csr_matrix": sp.csr_matrix}
_STATE_WORDS = 624  # of the Mersenne twister


def pack(values):
    """Take a dict of values apart.

    Parameters
    ----------
    values : dict of str to object
        None, bool, int, float, str, bytes, date, datetime, UUID, NumPy scalars, arrays (of objects too, if these are such values),
        CSR matrices, dense tensors, which come back on the CPU, RandomState; lists, tuples and mappings of them, nested. A mapping
        of any kind comes back as a dict.

    Returns
    -------
    tree : dict
        What JSON can hold, without NaN and infinity.
    arrays : dict of str to ndarray
        Named after the place of each: ``"user_prior_.0"``.

    Raises
    ------
    TypeError
        For a value of another kind, most subclasses included: its place and its type are named.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_torchmf.storage.packing import pack, unpack
    >>> tree, arrays = pack({"counts": np.arange(3), "ids": np.array(["a", "b"], dtype=object), "size": (1, None)})
    >>> tree
    {'counts': {'array': 'counts'}, 'ids': {'objects': ['a', 'b'], 'shape': [2]}, 'size': {'tuple': [1, None]}}
    >>> unpack(tree, arrays)["size"]
    (1, None)
    """
    arrays: dict = {}
    return {name: _pack(value, name, arrays) for name, value in values.items()}, arrays


def _pack(value, name, arrays):
    kind = type(value)
    if isinstance(value, np.generic):
        return _pack_scalar(value, name, arrays)
    if kind in _PLAIN or kind is float or kind in _AS_TEXT:
        return _pack_single(value, name)
    if kind in (list, tuple):
        parts = [_pack(part, f"{name}.{at}", arrays) for at, part in enumerate(value)]
        return parts if kind is list else {"tuple": parts}
    if isinstance(value, Mapping):
        packed = {key: _pack(part, f"{name}.{key}", arrays) for key, part in value.items()}
        if all(type(key) is str for key in packed):
            return {"dict": packed}
        return {"items": [[_pack(key, name, arrays), part] for key, part in packed.items()]}
    if isinstance(value, np.ndarray) and not isinstance(value, np.ma.MaskedArray):
        if value.dtype.kind == "O":
            labels = value.ravel().tolist()
            if not _all_text(labels):
                labels = [_pack_object(label, name) for label in labels]
            return {"objects": labels, "shape": list(value.shape)}
        return {"array": _keep(value, name, arrays)}
    if isinstance(value, torch.Tensor):
        return _pack_tensor(value.detach().cpu(), name, arrays)
    if kind in _SPARSE.values():
        members = {part: _keep(getattr(value, part), f"{name}.{part}", arrays) for part in ("data", "indices", "indptr")}
        return {kind.__name__: members, "shape": [int(n) for n in value.shape]}
    if kind is np.random.RandomState:
        state = value.get_state(legacy=True)
        if state[0] == "MT19937":
            return {"random_state": _keep(state[1], name, arrays), "rest": _pack(list(state[2:]), name, arrays)}
    raise TypeError(
        f"{name} is a {kind.__module__}.{kind.__qualname__}, which a saved file cannot hold. It holds numbers, text, times, None, "
        "arrays, tensors, CSR matrices and lists, tuples and dicts of them, and no code."
    )


def _keep(values, name, arrays):
    """Add an array under a name that a member can have and none has yet."""
    plain = name = re.sub(r"[^\w.\-]", "_", name)[:150]
    n = 1
    while name in arrays:
        n += 1
        name = f"{plain}-{n}"
    arrays[name] = values
    return name


def _pack_scalar(value, name, arrays):
    if isinstance(value, np.str_ | np.bytes_):
        return _pack_single(value.item(), name)
    known = _SCALARS.get(value.dtype.name)
    if known is type(value) and (value.dtype.kind != "f" or np.isfinite(value)):
        return {value.dtype.name: value.item()}
    return {"scalar": _keep(np.asarray(value), name, arrays)}


def _pack_tensor(value, name, arrays):
    if value.dtype == torch.bfloat16:  # which NumPy has not
        return {"bfloat16": _keep(value.view(torch.int16).numpy(), name, arrays)}
    try:
        return {"tensor": _keep(value.numpy(), name, arrays)}
    except (TypeError, RuntimeError):
        raise TypeError(
            f"{name} is a {value.layout} tensor of {value.dtype}, which a saved file cannot hold. It holds dense tensors of the "
            "dtypes that NumPy has, and bfloat16."
        ) from None


def _pack_single(value, name):
    kind = type(value)
    if kind is float and not math.isfinite(value):
        return {"float": repr(value)}
    if kind not in _AS_TEXT:
        return value
    tag, to_text, _ = _AS_TEXT[kind]
    if kind is datetime.datetime and not isinstance(value.tzinfo, datetime.timezone | None):
        raise TypeError(f"{name} holds a time in the zone {value.tzinfo}. Use times in UTC, or without a zone.")
    return {tag: to_text(value)}


def _all_text(labels):
    """Whether all of a list is str, as most labels are: many take a while one by one."""
    return set(map(type, labels)) == {str}


def _pack_object(value, name):
    """An entry of an array of objects: a label."""
    if isinstance(value, np.generic) and value.dtype.kind in "biufSU":
        value = value.item()
    kind = type(value)
    if kind is tuple:
        return {"tuple": [_pack_object(part, name) for part in value]}
    if kind in _PLAIN or kind is float or kind in _AS_TEXT:
        return _pack_single(value, name)
    raise TypeError(
        f"{name} has {value!r}, a {kind.__module__}.{kind.__qualname__}, which a saved file cannot hold. Labels may be str, "
        "bytes, numbers, bool, None, datetime, date, UUID and tuples of them: fit on labels of these types, or convert them with "
        "str."
    )


def unpack(tree, arrays):
    """Put together what ``pack`` took apart.

    Raises
    ------
    ValueError
        For a tree or arrays that ``pack`` cannot have made.
    """
    try:
        return {name: _unpack(part, arrays) for name, part in tree.items()}
    except (LookupError, TypeError, AttributeError, OverflowError, RuntimeError) as error:
        raise ValueError(f"a value in it cannot be read ({type(error).__name__}: {error})") from None


def _unpack(part, arrays):
    if isinstance(part, list):
        return [_unpack(one, arrays) for one in part]
    if type(part) in _PLAIN or type(part) is float:
        return part
    if not part:
        raise ValueError("a value in it has no type")
    tag, held = next(iter(part.items()))
    if tag == "array":
        return arrays[held]
    if tag == "scalar":
        return arrays[held].reshape(())[()]
    if tag == "float":
        return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[held]
    if tag in _SCALARS:
        value = np.array(held).astype(_SCALARS[tag])[()]
        if value.item() != held:  # older NumPy wraps what is too large
            raise OverflowError(f"{held} cannot be stored as {tag}")
        return value
    if tag in _FROM_TEXT:
        return _FROM_TEXT[tag](held)
    if tag == "tuple":
        return tuple(_unpack(one, arrays) for one in held)
    if tag == "dict":
        return {key: _unpack(one, arrays) for key, one in held.items()}
    if tag == "items":
        return {_unpack(key, arrays): _unpack(one, arrays) for key, one in held}
    if tag == "tensor":
        return torch.from_numpy(arrays[held])
    if tag == "bfloat16":
        return torch.from_numpy(arrays[held]).view(torch.bfloat16)
    if tag == "objects":
        values = np.empty(len(held), dtype=object)
        if _all_text(held):
            values[:] = held
        else:
            for at, one in enumerate(held):  # at once, tuples would become rows
                values[at] = _unpack(one, {})
        return values.reshape(part["shape"])
    if tag in _SPARSE:
        return _unpack_sparse(_SPARSE[tag], [arrays[held[name]] for name in ("data", "indices", "indptr")], part["shape"])
    if tag == "random_state":
        return _unpack_random_state(arrays[held], _unpack(part["rest"], {}))
    raise ValueError(f"a value in it has the unknown type {str(tag)[:40]!r}")


def _unpack_sparse(kind, parts, shape):
    data, indices, pointers = parts
    if any(values.ndim != 1 for values in parts) or indices.dtype.kind + pointers.dtype.kind != "ii" or len(data) != len(indices):
        raise ValueError("a sparse matrix in it is damaged")
    if len(shape) != 2 or len(pointers) != shape[0] + 1 or pointers[-1] != len(data):
        raise ValueError("a sparse matrix in it does not have the shape that it should have")
    matrix = kind((data, indices, pointers), shape=tuple(shape))
    matrix.check_format(full_check=True)  # SciPy's own loops go wherever the indices say
    return matrix


def _unpack_random_state(words, rest):
    position, has_gauss, gauss = rest
    if words.dtype != np.uint32 or words.shape != (_STATE_WORDS,) or not 0 <= position <= _STATE_WORDS or has_gauss not in (0, 1):
        raise ValueError("a random state in it is damaged")
    state = np.random.RandomState(0)
    state.set_state(("MT19937", words, int(position), int(has_gauss), float(gauss)))
    return state
