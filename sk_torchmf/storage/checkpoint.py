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
from sk_torchmf.storage.parts import PartsFolder

FORMAT = 3
CURE = "Delete it to fit from scratch, or name another file with checkpoint."
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
        try:
            meta, arrays = _archive.read(self.path)
        except FileNotFoundError:
            return None
        except ValueError as error:
            reason = str(error).partition(": ")[2].partition(". Save it again")[0] or str(error).rstrip(".")
            raise ValueError(f"checkpoint {self.path} is truncated, damaged or no checkpoint: {reason}. {CURE}") from None
        if meta.get("kind") != "checkpoint" or not isinstance(meta.get("fingerprint"), dict):
            raise ValueError(f"checkpoint {self.path} is no checkpoint, but another file of sk_torchmf. {CURE}")
        self._check(meta["fingerprint"])
        return unpack(meta["content"], arrays)

    def _check(self, found):
        """Refuse another fingerprint."""
        different = [name for name in {**self.fingerprint, **found} if found.get(name) != self.fingerprint.get(name)]
        if different:
            words = ", ".join(f"{name} ({_shown(found, name)} there, {_shown(self.fingerprint, name)} here)" for name in different)
            raise ValueError(f"checkpoint {self.path} is of another fit, which differs in {words}. {CURE}")

    def write(self, content):
        """Write, in the place of what was there, whole or not at all."""
        tree, arrays = _packed(content)
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
                f"checkpoint {self.path} is of another fit: its state does not fit this model ({error}). {CURE}"
            ) from error


class SharedCheckpoint(Checkpoint):
    """The folder of a fit that several processes share, in which each has a file with the rows of its users.

    Parameters
    ----------
    path : str or os.PathLike
        On storage that all of them see.
    fingerprint : dict
        That of the first process counts.
    processes : Communicator
        All make the same calls of ``read`` and ``write_part``, in the same order.
    """

    def __init__(self, path, fingerprint, processes):
        self.folder, self.processes = PartsFolder(path, "checkpoint"), processes
        self.path, self.fingerprint = self.folder.path, fingerprint
        self._files: list[str] = []

    def read(self):
        """What is common to all of what was written last, the users' rows left out; None where there is nothing."""
        found = None
        if self.processes.rank == 0:
            try:
                found = self.folder.manifest()
            except ValueError as error:
                raise ValueError(f"checkpoint {self.path} cannot be read: {error} {CURE}") from None
            if found is not None:
                self._check(found["meta"])
        found = self.processes.broadcast(found)
        if found is None:
            return None
        self._files = [file["name"] for file in found["files"]]
        return self._read(0)["common"]

    def _read(self, number):
        try:
            meta, arrays = self.folder.read(self._files[number])
            return unpack(meta["content"], arrays)
        except ValueError as error:
            raise ValueError(f"checkpoint {self.path} cannot be read: {error} {CURE}") from None

    def parts(self):
        """Go through what the processes have written of their users, first what is likely to be that of this one's.

        Yields
        ------
        dict
            As ``own`` was given.
        """
        n = len(self._files)
        first = self.processes.rank * n // self.processes.size
        for step in range(n):
            yield self._read((first + step) % n)["own"]

    def write_part(self, content, own, name):
        """Write a set of files, in the place of what was there.

        Parameters
        ----------
        content : dict
            What is common to all; that of the first process is kept.
        own : dict
            What is of the users of this process.
        name : str
            Of the set, see ``PartsFolder.write``.
        """
        tree, arrays = _packed(({"common": content} if self.processes.rank == 0 else {}) | {"own": own})
        self.folder.write(name, self.fingerprint, ({"content": tree}, arrays, {}), self.processes)

    def remove(self):
        """Remove the folder, and what a kill has left in it."""
        if self.processes.rank == 0:
            self.folder.remove()


def _packed(content):
    try:
        return pack(content)
    except TypeError as error:
        raise TypeError(
            f"checkpoint cannot keep what the optimizer or scheduler has in its state_dict(): {error} Use another, or "
            "checkpoint=None."
        ) from None


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
