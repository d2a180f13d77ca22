"""Opens files: recognises compression and format by the first bytes, never by the file's name."""

import bz2
import contextlib
import gzip
import importlib
import io
import lzma
import re
import zipfile
import zlib

HEAD = 4096
DAMAGED = (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, gzip.BadGzipFile)
SPREADSHEET = "Save it as CSV, or read it with pandas.read_excel and pass the frame's columns to fit"
UNPACK = "Unpack it first, or compress it with gzip, bzip2, xz, zip or Zstandard"
CONVERT = "Convert it to CSV, JSON lines or Parquet first"

UNREADABLE = {
    rb"%%MatrixMarket": ("a Matrix Market file", "Read it with scipy.io.mmread and pass the sparse matrix to fit"),
    rb"\x93NUMPY": ("a NumPy array", "Read it with numpy.load and pass the array's columns to fit"),
    rb"\x80[\x02-\x05]": ("a pickle", "Load it where it was made, if you trust it, and save it as CSV"),
    rb"\xd0\xcf\x11\xe0": ("an Excel workbook", SPREADSHEET),
    rb"SQLite format 3\0": ("an SQLite database", "Read its table with pandas.read_sql and pass the frame's columns to fit"),
    rb"\x89HDF": ("an HDF5 file", CONVERT),
    rb"ARROW1\0": ("an Arrow file", CONVERT),
    rb"ORC": ("an ORC file", CONVERT),
    rb"Obj\x01": ("an Avro file", CONVERT),
    rb"%PDF-": ("a PDF", CONVERT),
    rb"\s*<(!doctype|html|\?xml|head|body)": ("HTML or XML, perhaps an error page instead of the download", "Download it again"),
    rb"(?s).{257}ustar": ("a tar archive", "Unpack it and name the file in it that has the ratings"),
    rb"7z\xbc\xaf\x27\x1c|Rar!\x1a\x07|\x1f\x9d|\x04\x22\x4d\x18|\xff\x06\0\0sNaPpY": (
        "compressed by 7z, rar or the like",
        UNPACK,
    ),
    rb"(\xff\xfe\0\0|\0\0\xfe\xff)": ("text in UTF-32", "Convert it to UTF-8"),
}
PARQUET = re.compile(rb"PAR1[\0-\x08\x0e-\x1f]")


@contextlib.contextmanager
def open_bytes(path):
    """Open a file's bytes, unpacked.

    Parameters
    ----------
    path : Path
        Packed by gzip, bzip2, xz, Zstandard or zip, in layers too, or not at all.

    Yields
    ------
    io.BufferedReader

    Raises
    ------
    ValueError
        For a format that is known not to be a table, an archive of several files, and damaged bytes.
    """
    with path.open("rb") as file:
        try:
            yield _unpack(file, path)
        except DAMAGED as error:
            raise _damaged(path, error) from None
        except OSError as error:
            if error.errno is not None:
                raise
            raise _damaged(path, error) from None  # bz2 and pyarrow say so without a number
        except Exception as error:
            if type(error).__name__ != "ZstdError":  # whichever library read it
                raise
            raise _damaged(path, error) from None


@contextlib.contextmanager
def open_text(path):
    """Open a file's text, unpacked and decoded: UTF-8, or UTF-16 where a byte order mark says so; lines end with a newline."""
    with open_bytes(path) as stream:
        head = stream.peek(HEAD)[:HEAD]
        wide = head.startswith((b"\xff\xfe", b"\xfe\xff"))
        if not wide and b"\0" in head:
            rule = "so it is not text, or is UTF-16 without a byte order mark. Convert it to text in UTF-8, or to Parquet"
            raise ValueError(f"{path} has NUL bytes, {rule}.")
        yield io.TextIOWrapper(stream, "utf-16" if wide else "utf-8-sig")


def is_parquet(path):
    """Whether the unpacked file is Parquet."""
    with open_bytes(path) as stream:
        return bool(PARQUET.match(stream.peek(HEAD)))


def _damaged(name, error):
    return ValueError(f"{name} is damaged: {str(error) or type(error).__name__}. Download or compress it again.")


def _unpack(stream, name):
    """Peel off one layer of packing after the other."""
    head = stream.peek(HEAD)[:HEAD]
    for magic, unpack in PACKED.items():
        if re.match(magic, head):
            return _unpack(io.BufferedReader(unpack(stream, name)), name)
    for magic, (what, advice) in UNREADABLE.items():
        if re.match(magic, head, re.IGNORECASE if b"doctype" in magic else 0):
            raise ValueError(f"{name} is {what}, which load_ratings does not read. {advice}.")
    return stream


def _unzip(stream, name):
    archive = zipfile.ZipFile(stream if stream.seekable() else io.BytesIO(stream.read()))
    every = archive.namelist()
    if "[Content_Types].xml" in every:
        raise ValueError(f"{name} is an Excel workbook, which load_ratings does not read. {SPREADSHEET}.")
    files = [member for member in every if not member.startswith("__MACOSX/")]
    members = [member for member in files if not member.endswith("/") and not member.rpartition("/")[2].startswith(".")]
    if members and all(one.endswith(".npy") for one in members):
        raise ValueError(f"{name} is an archive of NumPy arrays. Read it with numpy.load and pass the arrays to Interactions.")
    if len(members) != 1:
        raise ValueError(f"{name} must hold one file. It holds {members[:9]}. Unpack it and name the one that has the ratings.")
    try:
        return archive.open(members[0])
    except RuntimeError:
        raise ValueError(f"{name} is encrypted. Unpack it with its password first.") from None
    except NotImplementedError as error:
        raise ValueError(
            f"{name} is compressed in a way that Python's zipfile does not support ({error}). Unpack it first."
        ) from None


def _unpack_zstandard(stream, name):
    """Zstandard by what there is: Python from 3.14 on, the package zstandard, pyarrow."""
    for module, unpack in ZSTANDARD.items():
        try:
            return unpack(importlib.import_module(module), stream)
        except ImportError:
            continue
    raise ValueError(
        f"{name} is compressed by Zstandard, which needs Python 3.14 or the package zstandard. Run: pip install zstandard. Or "
        "unpack it first."
    )


ZSTANDARD = {
    "compression.zstd": lambda zstd, stream: zstd.ZstdFile(stream),
    "zstandard": lambda zstandard, stream: zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True),
    "pyarrow": lambda pyarrow, stream: pyarrow.CompressedInputStream(pyarrow.PythonFile(stream, "r"), "zstd"),
}
PACKED = {
    rb"\x1f\x8b": lambda stream, name: gzip.GzipFile(fileobj=stream),
    rb"BZh[1-9](1AY&SY|\x17rE8P\x90)": lambda stream, name: bz2.BZ2File(stream),
    rb"\xfd7zXZ\0|\x5d\0\0.{2}\0{0,8}\xff": lambda stream, name: lzma.LZMAFile(stream),  # noqa: SIM115
    rb"PK(\x03\x04|\x05\x06)": _unzip,
    rb"\x28\xb5\x2f\xfd": _unpack_zstandard,
}
