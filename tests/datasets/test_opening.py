"""Packed files and foreign formats, told by their first bytes."""

import bz2
import gzip
import io
import lzma
import pickle
import sys
import tarfile
import zipfile

import numpy as np
import pytest

from sk_torchmf.datasets import load_ratings

TEXT = b"item,user,rating\n1,9,3\n2,8,4\n"


def written(tmp_path, content):
    path = tmp_path / "ratings.csv"  # whatever it is
    path.write_bytes(content)
    return path


def zipped(members):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return content.getvalue()


def zstandard_of(content):
    return pytest.importorskip("pyarrow", exc_type=ImportError).compress(content, "zstd", asbytes=True)


def test_packed_files_are_read(tmp_path):
    packings = [
        gzip.compress,
        lambda content: gzip.compress(content[:9]) + gzip.compress(content[9:]),
        bz2.compress,
        lzma.compress,
        lambda content: lzma.compress(content, lzma.FORMAT_ALONE),
        lambda content: zipped({"__MACOSX/._a": b"", ".DS_Store": b"", "folder/": b"", "folder/a.csv": content}),
        lambda content: zipped({"a.csv.gz": gzip.compress(content)}),
    ]
    for pack in packings:
        bunch = load_ratings(written(tmp_path, pack(TEXT)))
        assert bunch.data.tolist() == [[9, 1], [8, 2]]
        assert bunch.target.tolist() == [3, 4]


@pytest.mark.parametrize("library", ["zstandard", "pyarrow"])
def test_zstandard_is_read_by_what_is_installed(library, monkeypatch, tmp_path):
    pytest.importorskip(library, exc_type=ImportError)
    path = written(tmp_path, zstandard_of(TEXT))
    for other in {"compression.zstd", "zstandard", "pyarrow"} - {library}:
        monkeypatch.setitem(sys.modules, other, None)
    assert load_ratings(path).data.tolist() == [[9, 1], [8, 2]]
    damaged = written(tmp_path, path.read_bytes()[:12] + b"\xff" * 30)
    with pytest.raises(ValueError, match=r"ratings\.csv is damaged"):
        load_ratings(damaged)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(
        ValueError,
        match=r"ratings\.csv is compressed by Zstandard, which needs Python 3\.14 or the package zstandard",
    ):
        load_ratings(path)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, lambda content: zipped({"a": content})])
def test_damaged_files_are_refused(pack, tmp_path):
    content = pack(np.random.default_rng(0).bytes(200).hex().encode())
    for damaged in (content[: len(content) // 2], content[:40] + b"\xff" * 30 + content[70:]):
        with pytest.raises(ValueError, match=r"ratings\.csv is damaged: .*\. Download or compress it again"):
            load_ratings(written(tmp_path, damaged))


def test_an_archive_must_hold_one_file(tmp_path):
    with pytest.raises(ValueError, match=r"must hold one file. It holds \['a.csv', 'b.csv'\]. Unpack it"):
        load_ratings(written(tmp_path, zipped({"a.csv": TEXT, "b.csv": TEXT})))
    with pytest.raises(ValueError, match="must hold one file"):
        load_ratings(written(tmp_path, zipped({})))


def array_file(save, *args, **arrays):
    content = io.BytesIO()
    save(content, *args, **arrays)
    return content.getvalue()


def tar_of(content):
    with tarfile.open(fileobj=(packed := io.BytesIO()), mode="w:gz") as archive:
        (member := tarfile.TarInfo("a.csv")).size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"%%MatrixMarket matrix coordinate real general\n2 2 1\n1 1 5\n", "Matrix Market file.*Read it with scipy.io.mmread"),
        (zipped({"[Content_Types].xml": "", "xl/workbook.xml": ""}), "Excel workbook.*Save it as CSV"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "Excel workbook"),
        (array_file(np.savez, a=np.arange(3)), "archive of NumPy arrays. Read it with numpy.load"),
        (array_file(np.save, np.arange(3)), "a NumPy array.*numpy.load"),
        (pickle.dumps([1]), "is a pickle"),
        (b"SQLite format 3\0", "an SQLite database"),
        (b"\n<!DOCTYPE html>\n<p>1,2,3", "is HTML or XML, perhaps an error page"),
        (b"%PDF-1.4\n", "is a PDF"),
        (tar_of(TEXT), "is a tar archive.*Unpack it"),
        (b"7z\xbc\xaf\x27\x1c", "ratings.csv is compressed by 7z, rar or the like, which load_ratings"),
        (TEXT.decode().encode("utf-32"), "is text in UTF-32"),
        (bytes(range(256)), "has NUL bytes, so it is not text, or is UTF-16 without a byte order mark. Convert it to text"),
    ],
)
def test_other_formats_are_refused_with_the_cure(content, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        load_ratings(written(tmp_path, content))
