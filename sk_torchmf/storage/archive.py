"""A file of arrays and JSON: a plain .npz, written whole or not at all, read without trust. It knows nothing of what they mean."""

import contextlib
import errno
import json
import math
import os
import re
import secrets
import struct
import zipfile

import numpy as np

from sk_torchmf._version import __version__

FORMAT = 2  # raised by a change that an older version would misread
META = "sk_torchmf.json"
CHUNK = 2**20

# Exactly what NumPy writes for an array of numbers, text or times: nothing is evaluated.
_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER = re.compile(
    rb"\{'descr': '([^']{2,40})', 'fortran_order': (True|False), 'shape': \(((?:\d{1,19}, ?)*(?:\d{1,19})?)\), \} *\n"
)
_DTYPE = re.compile(r"[<>|](?:b1|[iu][1248]|f[248]|c8|c16|[SU][1-9]\d{0,8}|[mM]8(?:\[\d{0,9}[a-zA-Z]{1,2}\])?)", re.ASCII)


def check_path(path):
    """Return a path as a str; only str and os.PathLike are one."""
    try:
        name = os.fspath(path)
    except TypeError:
        name = None
    if not isinstance(name, str):
        raise TypeError(f"path must be a str or os.PathLike. Got {type(path).__name__}.")
    if not name:
        raise ValueError("path must name a file. Got an empty one.")
    return name


def write(path, meta, arrays, *, temporary=None):
    """Write JSON and arrays as one file, in the place of what was there.

    A reader, or a process killed on the way, sees the old file or the new one and nothing between: a temporary file
    ``.sk_torchmf-*.tmp`` in the same folder is written, flushed to the disk and renamed.

    Parameters
    ----------
    path : str or os.PathLike
        Any extension or none. A symbolic link is followed.
    meta : dict
        What JSON can hold, without NaN and infinity.
    arrays : dict of str to ndarray
        Numbers (bool, integer, float and complex of up to 8 bytes a part), fixed-width text or bytes, times. Names are those of
        the members: ``numpy.load(path)[name]``. Order in memory, C or Fortran, is kept.
    temporary : str, optional
        Name of the temporary file, in that folder: for one who writes alone and again and again, so that no more than one is ever
        left behind.

    Raises
    ------
    TypeError
        For an array of another dtype, such as objects; a path of another type.
    OSError
        Where the folder does not exist or cannot be written to, or the path is a folder.
    """
    with replacing(path, temporary=temporary) as place:
        header = {"format": "sk_torchmf", "version": FORMAT, "written_by": __version__, "arrays": list(arrays), "meta": meta}
        content = json.dumps(header, allow_nan=False).encode()
        arrays = {_check_name(name): _check_array(name, values) for name, values in arrays.items()}
        with open(place, "xb" if temporary is None else "wb") as file:
            with zipfile.ZipFile(file, "w") as archive:
                archive.writestr(zipfile.ZipInfo(META), content)  # a fixed date: the same model is the same file
                for name, values in arrays.items():
                    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, values, version=(1, 0), allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())


@contextlib.contextmanager
def replacing(path, *, temporary=None):
    """Name a temporary file in the same folder, which takes the place of ``path`` when the block has written it without an error.

    Yields
    ------
    str
        Its path; nothing is there. See ``write`` for the parameters and errors.
    """
    path = check_path(path)
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    if os.path.isdir(target):
        raise IsADirectoryError(errno.EISDIR, "path must name a file, and this is a folder. Name a file in it", path)
    if os.path.exists(target) and not os.path.isfile(target):
        raise ValueError(f"path must name an ordinary file. {path} is something else.")
    if not os.path.isdir(folder):
        raise FileNotFoundError(errno.ENOENT, "The folder to save in does not exist. Make it first", folder)
    place = os.path.join(folder, temporary or f".sk_torchmf-{secrets.token_hex(8)}.tmp")
    try:
        yield place
        os.replace(place, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.remove(place)
        if isinstance(error, OSError) and error.errno:  # by the name that the caller knows
            raise OSError(error.errno, error.strerror, path) from None
        raise
    _sync_folder(folder)


def _sync_folder(folder):
    """Have the renaming reach the disk too, where a folder can be opened for that."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _check_name(name):
    if not re.fullmatch(r"[\w.\-]{1,200}", name):
        raise ValueError(f"A member's name must be letters, digits, '_', '-' and '.', at most 200 of them. Got {name!r}.")
    return name


def _check_array(name, values):
    if not isinstance(values, np.ndarray) or not _DTYPE.fullmatch(values.dtype.str):
        kind = values.dtype if isinstance(values, np.ndarray) else type(values).__name__
        raise TypeError(f"{name} has dtype {kind}, which a saved file cannot hold. It can hold arrays of numbers, text and times.")
    return values


def read(path):
    """Read a file that ``write`` wrote.

    Nothing in it is evaluated, imported or unpickled, no array is larger than its part of the file, and every byte that is used has
    passed its checksum.

    Parameters
    ----------
    path : str or os.PathLike

    Returns
    -------
    meta : dict
    arrays : dict of str to ndarray

    Raises
    ------
    ValueError
        For a file that is truncated, damaged, or not one of these, and for one of a newer version.
    OSError
        Where there is no such file or it cannot be read.
    """
    path = check_path(path)
    with open(path, "rb") as file:
        with naming(path):
            archive = zipfile.ZipFile(file)
            header = _read_header(archive)
        if header["version"] > FORMAT:
            raise ValueError(
                f"{path} was written by a newer sk_torchmf ({str(header.get('written_by'))[:40]}): it has format "
                f"{header['version']}, and sk_torchmf {__version__} reads formats up to {FORMAT}. Upgrade sk_torchmf."
            )
        with naming(path):
            members = _check_members(archive, os.fstat(file.fileno()).st_size)
            if list(members) != header.get("arrays"):
                raise ValueError("it does not have the parts that it should have")
            return header["meta"], {name: _read_array(archive, member) for name, member in members.items()}


@contextlib.contextmanager
def naming(path):
    """Say of anything that goes wrong in a block that this file is not, or no longer, one of ours."""
    wrong = zipfile.BadZipFile, EOFError, LookupError, OSError, ValueError, TypeError, RuntimeError, OverflowError, struct.error
    try:
        yield
    except (*wrong, AttributeError) as error:  # RuntimeError: encryption, an unknown compression, too deep a nesting
        reason = str(error).rstrip(".") or type(error).__name__
        raise ValueError(
            f"{path} is not a complete file of sk_torchmf: {reason}. Save the model again with its save method."
        ) from None


def _read_header(archive):
    if META not in archive.namelist():
        raise ValueError(f"it has no part {META}")
    header = json.loads(archive.read(_check_plain(archive.getinfo(META))))
    if not isinstance(header, dict) or header.get("format") != "sk_torchmf":
        raise ValueError(f"{META} does not say that it is one")
    if type(header.get("version")) is not int or header["version"] < 1 or not isinstance(header.get("meta"), dict):
        raise ValueError(f"{META} has no version or no content")
    return header


def _check_plain(member):
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1 or member.file_size != member.compress_size:
        raise ValueError(f"its part {member.filename[:80]} is compressed or encrypted, which save does not do")
    return member


def _check_members(archive, size):
    """Members by the names of their arrays: plain ones, that together are no larger than the file."""
    members = {}
    for member in archive.infolist():
        name = member.filename.removesuffix(".npy")
        if member.filename == META:
            continue
        if name == member.filename or not re.fullmatch(r"[\w.\-]{1,200}", name):
            raise ValueError(f"it has a part {member.filename[:80]!r}, which save does not write")
        members[name] = _check_plain(member)
    if len(archive.infolist()) != len(members) + 1:
        raise ValueError("two of its parts have one name")
    if sum(member.file_size for member in archive.infolist()) > size:
        raise ValueError("its parts overlap")
    return members


def _read_array(archive, member):
    with archive.open(member) as file:
        start = file.read(10)
        length = struct.unpack("<H", start[8:])[0]
        header = _HEADER.fullmatch(file.read(length)) if start[:8] == _MAGIC else None
        if header is None or not _DTYPE.fullmatch(header[1].decode("ascii")):
            raise ValueError(f"its part {member.filename} is not an array of numbers, text or times")
        dtype, shape = np.dtype(header[1].decode("ascii")), tuple(int(n) for n in header[3].replace(b",", b" ").split())
        n_bytes = math.prod(shape) * dtype.itemsize
        if 10 + length + n_bytes != member.file_size:
            raise ValueError(f"its part {member.filename} does not have the {n_bytes} bytes that its shape {shape} needs")
        values = np.empty(shape, dtype, "F" if header[2] == b"True" else "C")
        flat = values.reshape(-1, order="A").view(np.uint8)
        for at in range(0, n_bytes, CHUNK):
            part = file.read(min(CHUNK, n_bytes - at))
            flat[at : at + len(part)] = np.frombuffer(part, np.uint8)  # a short part does not get past the checksum
        if file.read(1):
            raise ValueError(f"its part {member.filename} has bytes after its end")
    return values.astype(dtype.newbyteorder("="), copy=False)
