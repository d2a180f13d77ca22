"""A folder of arrays and a manifest, made whole or not at all, read by memory maps. It knows nothing of what the arrays mean."""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil

import numpy as np

from sk_torchmf._version import __version__
from sk_torchmf.storage.archive import check_path

try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be removed either
    fcntl = None  # type: ignore[assignment]

FORMAT = 1  # raised by a change that an older version would misread
MANIFEST = "manifest.json"
LOCK = "building.lock"
CHUNK = 2**22  # bytes read at once

_DTYPE = re.compile(r"[<|](?:b1|[iu][1248]|f[48]|[mM]8\[\d{0,9}[a-zA-Z]{1,2}\])", re.ASCII)
_NAME = re.compile(r"[\w\-]{1,200}", re.ASCII)


class Building:
    """A folder on its way: see ``building``.

    Attributes
    ----------
    path : str
        Where the files lie until the folder is whole. Others than those of ``write`` must be gone by then.
    meta : dict
        What JSON can hold; goes into the manifest.
    """

    def __init__(self, path):
        self.path, self.meta, self._files = path, {}, {}

    def write(self, name, array):
        """Write an array of numbers, booleans or times as a file of NumPy's, ``name.npy``."""
        array = np.ascontiguousarray(array)
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        digest = hashlib.blake2b(array.view(np.uint8).data if array.size else b"", digest_size=16).hexdigest()
        with open(os.path.join(self.path, f"{name}.npy"), "wb", buffering=0) as file:
            np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
            write_bytes(file, array)
            size = file.tell()
        about = {"dtype": array.dtype.str, "shape": list(array.shape), "bytes": size, "digest": digest}
        self._files[name] = about

    def finish(self, kind):
        """Write the manifest, which says that all is there."""
        about = {"format": f"sk_torchmf {kind}", "version": FORMAT, "written_by": __version__}
        content = json.dumps(about | {"meta": self.meta, "files": self._files}, allow_nan=False, indent=1)
        with open(os.path.join(self.path, MANIFEST), "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


def write_bytes(file, array):
    """Write the bytes of a contiguous array to an unbuffered file; unlike ``ndarray.tofile`` it tells why it cannot."""
    left = memoryview(array.reshape(-1).view(np.uint8))
    while left:
        left = left[file.write(left) :]


@contextlib.contextmanager
def building(path, kind):
    """Make a folder of arrays that appears when all of it is written.

    Until then its files lie beside it in ``.NAME.building``, which is removed whatever goes wrong. What a process that was
    killed has left there the next one removes.

    Parameters
    ----------
    path : str or os.PathLike
        There must be nothing yet.
    kind : str
        What the folder holds, one word.

    Yields
    ------
    Building

    Raises
    ------
    FileExistsError
        Where there is something, and where another process builds the folder at this moment.
    OSError
        Where the folder cannot be written, by the caller's name for it.
    """
    path = check_path(path)
    target = os.path.abspath(path)
    parent, name = os.path.split(target)
    _check_free(path, target)
    if not os.path.isdir(parent):
        raise FileNotFoundError(errno.ENOENT, "The folder to build in does not exist. Make it first", parent)
    temporary = os.path.join(parent, f".{name}.building")
    lock = _begin(temporary, path)
    try:
        work = Building(temporary)
        yield work
        work.finish(kind)
        lock.close()
        os.remove(os.path.join(temporary, LOCK))
        _check_free(path, target)
        os.rename(temporary, target)
    except BaseException as error:
        lock.close()
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError) and error.errno and str(error.filename or temporary).startswith(temporary):
            text = f"{error.strerror} while the folder was built; nothing of it was left"
            raise OSError(error.errno, text, path) from error
        raise


def _check_free(path, target):
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, "The folder must not exist yet. Name another one, or remove this one first", path)


def _begin(temporary, path):
    """Make the folder to work in, and a file in it that is locked for as long as this process builds."""
    if os.path.isdir(temporary):
        with contextlib.suppress(FileNotFoundError), open(os.path.join(temporary, LOCK), "ab") as earlier:
            _lock(earlier, path)
        shutil.rmtree(temporary)
    try:
        os.mkdir(temporary)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    lock = open(os.path.join(temporary, LOCK), "wb")  # noqa: SIM115  (closed by building)
    _lock(lock, path)
    return lock


def _lock(file, path):
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise FileExistsError(
            errno.EEXIST, "Another process is building this folder. Wait for it, or name another folder", path
        ) from None
    except OSError:  # a file system without locks
        return


class ArrayFolder:
    """A folder that ``building`` made, opened to read.

    Parameters
    ----------
    path : str or os.PathLike
    kind : str
        What it must hold.

    Attributes
    ----------
    path : str
    meta : dict
        What was put into the manifest.
    n_bytes : int
        Of all arrays.
    digest : str
        One for the same arrays, whenever and wherever they were written.

    Raises
    ------
    FileNotFoundError
        Where there is no such folder.
    ValueError
        For a folder of something else or of a newer version, and one of which files are missing or truncated.
    """

    def __init__(self, path, kind):
        self.path = check_path(path)
        found = self._read_manifest(kind)
        self.meta, self._files = found["meta"], found["files"]
        for name, about in self._files.items():
            try:
                size = os.stat(self._at(name)).st_size
            except FileNotFoundError:
                self._fail(f"{name}.npy is missing")
            if size != about["bytes"]:
                self._fail(f"{name}.npy has {size} bytes where {about['bytes']} were written")
        self.n_bytes = sum(about["bytes"] for about in self._files.values())
        whole = json.dumps([[name, about["dtype"], about["shape"], about["digest"]] for name, about in sorted(self._files.items())])
        self.digest = hashlib.blake2b(whole.encode(), digest_size=16).hexdigest()

    def _read_manifest(self, kind):
        wrong = f"{self.path} is not a folder of {kind} that sk_torchmf wrote"
        if not os.path.exists(self.path):
            raise FileNotFoundError(errno.ENOENT, f"There is no such folder of {kind}", self.path)
        try:
            with open(os.path.join(self.path, MANIFEST), encoding="utf-8") as file:
                found = json.load(file)
        except (FileNotFoundError, NotADirectoryError):
            raise ValueError(f"{wrong}: it has no {MANIFEST}.") from None
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{wrong}, or it is damaged: {MANIFEST} is not valid JSON ({error}).") from None
        if not isinstance(found, dict) or found.get("format") != f"sk_torchmf {kind}" or type(found.get("version")) is not int:
            raise ValueError(f"{wrong}: {MANIFEST} does not say that it is one.")
        if found["version"] > FORMAT:
            raise ValueError(
                f"{self.path} was written by a newer sk_torchmf ({str(found.get('written_by'))[:40]}): it has format "
                f"{found['version']}, and sk_torchmf {__version__} reads formats up to {FORMAT}. Upgrade sk_torchmf."
            )
        if not isinstance(found.get("meta"), dict) or not _are_files(found.get("files")):
            raise ValueError(f"{wrong}, or it is damaged: {MANIFEST} does not list its files.")
        return found

    def _at(self, name):
        return os.path.join(self.path, f"{name}.npy")

    def _fail(self, problem):
        raise ValueError(f"{self.path} is incomplete or damaged: {problem}. Build it again.")

    def __contains__(self, name):
        return name in self._files

    def array(self, name):
        """Map an array: read-only, of which memory is taken only for what is looked at."""
        if name not in self._files:
            self._fail(f"it has no {name}.npy")
        about = self._files[name]
        kind, shape = np.dtype(about["dtype"]), tuple(about["shape"])
        try:
            values = np.load(self._at(name), mmap_mode="r", allow_pickle=False) if 0 not in shape else np.empty(shape, kind)
        except ValueError as error:
            self._fail(f"{name}.npy cannot be read ({error})")
        if values.dtype != kind or values.shape != shape:
            self._fail(f"{name}.npy holds {values.dtype} of shape {values.shape} where {kind} of shape {shape} were written")
        return values

    def verify(self):
        """Read every byte, and refuse an array that is not what was written."""
        for name, about in self._files.items():
            found, values = hashlib.blake2b(digest_size=16), self.array(name)
            flat = values.reshape(-1).view(np.uint8) if values.size else np.empty(0, dtype=np.uint8)
            for start in range(0, len(flat), CHUNK):
                found.update(flat[start : start + CHUNK].data)
            if found.hexdigest() != about["digest"]:
                self._fail(f"{name}.npy was changed since it was written")


def _are_files(files):
    """Whether a manifest's list of files is one, so that nothing else is ever opened."""
    return isinstance(files, dict) and all(
        _NAME.fullmatch(name)
        and isinstance(about, dict)
        and _DTYPE.fullmatch(str(about.get("dtype")))
        and isinstance(about.get("shape"), list)
        and all(type(n) is int and n >= 0 for n in [*about["shape"], about.get("bytes")])
        and isinstance(about.get("digest"), str)
        for name, about in files.items()
    )
