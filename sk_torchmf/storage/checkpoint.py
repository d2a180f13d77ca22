"""A fit's state in a file, to go on from after the process was killed. Knows states, and no solver."""

import contextlib
import hashlib
import math
import os
import re
from collections.abc import Mapping
from functools import partial

import numpy as np
import torch

from sk_torchmf._validation import as_python
from sk_torchmf._version import __version__
from sk_torchmf.storage import archive as _archive
from sk_torchmf.storage.packing import pack, unpack

FORMAT = 2
WITHOUT_EFFECT = ("checkpoint", "clip", "handle_unknown", "verbose")  # on training


class Checkpoint:
    """The file of a fit.

    Parameters
    ----------
    path : str or os.PathLike
    fingerprint : dict
        What a fit must have in common with the one that wrote the file, by JSON's types.
    """

    def __init__(self, path, fingerprint):
        self.path, self.fingerprint = _archive.check_path(path), fingerprint
        self.temporary = f".{os.path.basename(os.path.realpath(self.path))}.tmp"

    def read(self):
        """What ``write`` was given last, or None where there is no file.

        Raises
        ------
        ValueError
            For a file of another fit, a damaged one, and one that is no checkpoint.
        """
        cure = "Delete it to fit from scratch, or name another file with checkpoint."
        try:
            meta, arrays = _archive.read(self.path)
        except FileNotFoundError:
            return None
        except ValueError as error:
            reason = str(error).partition(": ")[2].partition(". Save it again")[0] or str(error).rstrip(".")
            raise ValueError(f"checkpoint {self.path} is truncated, damaged or no checkpoint: {reason}. {cure}") from None
        if meta.get("kind") != "checkpoint" or not isinstance(meta.get("fingerprint"), dict):
            raise ValueError(f"checkpoint {self.path} is no checkpoint, but another file of sk_torchmf. {cure}")
        found = meta["fingerprint"]
        different = [name for name in {**self.fingerprint, **found} if found.get(name) != self.fingerprint.get(name)]
        if different:
            words = ", ".join(f"{name} ({_shown(found, name)} there, {_shown(self.fingerprint, name)} here)" for name in different)
            raise ValueError(f"checkpoint {self.path} is of another fit, which differs in {words}. {cure}")
        return unpack(meta["content"], arrays)

    def write(self, content):
        """Write, in the place of what was there, whole or not at all."""
        try:
            tree, arrays = pack(content)
        except TypeError as error:
            raise TypeError(
                f"checkpoint cannot keep what the optimizer or scheduler has in its state_dict(): {error} Use another, or "
                "checkpoint=None."
            ) from None
        meta = {"kind": "checkpoint", "fingerprint": self.fingerprint, "content": tree}
        _archive.write(self.path, meta, arrays, temporary=self.temporary)

    def remove(self):
        """Remove the file, and what a kill has left beside it."""
        folder = os.path.dirname(os.path.realpath(self.path))
        for path in (self.path, os.path.join(folder, self.temporary)):
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)

    @contextlib.contextmanager
    def fitting(self):
        """Say of a state that does not fit its solver where it came from."""
        try:
            yield
        except (KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
            raise ValueError(
                f"checkpoint {self.path} is of another fit: its state does not fit this model ({error}). Delete it to fit from "
                "scratch, or name another file with checkpoint."
            ) from error


def _shown(fingerprint, name):
    value = fingerprint.get(name, "nothing")
    return "other data" if name == "data" else repr(value)


def fingerprint_of(estimator, seed, digest):
    """What distinguishes a fit: class, parameters, data, version."""
    kind = type(estimator)
    params = {name: _plain(value) for name, value in estimator.get_params().items() if name not in WITHOUT_EFFECT}
    params["random_state"] = None if estimator.random_state is None else seed
    about = {"class": f"{kind.__module__}.{kind.__qualname__}", "format": FORMAT, "version": __version__, "data": digest}
    return about | params


def _plain(value):
    """A parameter's value in JSON's types: equal for equal values, in another process too."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float | np.number):
        value = as_python(value)
        return value if not isinstance(value, float) or math.isfinite(value) else repr(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | torch.Tensor):
        return digest_of(np.asarray(value.detach().cpu() if isinstance(value, torch.Tensor) else value))
    if isinstance(value, partial):
        return [_plain(value.func), _plain(value.args), _plain(value.keywords)]
    if isinstance(value, torch.nn.Module):
        return [repr(value), _plain(value.state_dict())]
    name = getattr(value, "__qualname__", None)
    return f"{value.__module__}.{name}" if name else re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def digest_of(*arrays):
    """A digest of the content of arrays, None among them."""
    found = hashlib.blake2b(digest_size=16)
    for values in arrays:
        if values is None:
            found.update(b"none")
            continue
        values = np.asarray(values)
        if values.dtype.kind == "O":
            values = np.array([repr(value) for value in values.ravel()])
        found.update(f"{values.dtype.str}{values.shape}".encode())
        found.update(np.ascontiguousarray(values).view(np.uint8).data if values.size else b"")
    return found.hexdigest()
