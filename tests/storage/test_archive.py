"""Files of arrays and JSON: what is written comes back, and what is no such file is refused with words."""

import builtins
import io
import json
import os
import pickle
import stat
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from sk_torchmf.storage import archive as _archive
from sk_torchmf.storage.archive import FORMAT, META, read, write

ARRAYS = {
    "bool": np.array([True, False]),
    "int8": np.arange(-3, 3, dtype=np.int8),
    "uint64": np.array([2**64 - 1], dtype=np.uint64),
    "half": np.array([1.5, -0.0], dtype=np.float16),
    "float": np.array([[np.pi, np.nan, -np.inf], [5e-324, -0.0, 1.0]]),
    "complex": np.array([1 + 2j]),
    "bytes": np.array([b"a", b"bcd"]),
    "text": np.array(["zoë", "", "日本"]),
    "time": np.array(["2020-01-01T12", "NaT"], dtype="datetime64[ns]"),
    "step": np.array([3], dtype="timedelta64[25s]"),
    "number": np.array(7.0),
    "empty": np.empty((0, 3), dtype=np.float32),
    "no_text": np.empty(0, dtype="U5"),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "strided": np.arange(20)[::3],
    "swapped": np.arange(3, dtype=">f8"),
    "large": np.random.default_rng(0).normal(size=300_000),  # more than is read at once
}


class Trap:
    """Unpickled, it leaves a trace."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return builtins.open, (str(self.trace), "w")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    write(path, {"n": 1, "name": "ä"}, {"x": np.arange(5.0), "y": np.array(["a", "b"])})
    return path


def forge(path, *members, meta=None, version=FORMAT, compression=zipfile.ZIP_STORED):
    """A file with the parts given as (name, bytes), beside a right one of JSON."""
    names = [name.removesuffix(".npy") for name, _ in members]
    header = {"format": "sk_torchmf", "version": version, "written_by": "9.9", "arrays": names, "meta": meta or {}}
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(META, json.dumps(header))
        for name, content in members:
            archive.writestr(name, content)
    return path


def npy(header, data=b""):
    header = header.encode("latin1") + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def npy_of(values, **options):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, values, **options)
    return stream.getvalue()


# what goes in comes out


def test_every_array_comes_back_to_the_bit(tmp_path):
    write(tmp_path / "file", {}, ARRAYS)
    _, arrays = read(tmp_path / "file")
    assert list(arrays) == list(ARRAYS)
    for name, values in ARRAYS.items():
        assert arrays[name].dtype == values.dtype.newbyteorder("="), name
        assert arrays[name].shape == values.shape, name
        assert arrays[name].astype(values.dtype).tobytes() == values.tobytes(), name
        assert arrays[name].flags.f_contiguous or name != "fortran"
        assert arrays[name].flags.writeable, name


def test_numpy_reads_the_arrays_too(file):
    with np.load(file, allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["x"], np.arange(5.0))


def test_the_same_content_is_the_same_file(file, tmp_path):
    write(tmp_path / "twin", {"n": 1, "name": "ä"}, {"x": np.arange(5.0), "y": np.array(["a", "b"])})
    assert (tmp_path / "twin").read_bytes() == file.read_bytes()


@pytest.mark.parametrize("name", ["model", "model.npz", "model.tar.gz", "no ëxtension", ".hidden"])
@pytest.mark.parametrize("kind", [str, Path])
def test_the_name_is_taken_as_it_is(tmp_path, name, kind):
    write(kind(tmp_path / name), {"n": 1}, {})
    assert os.listdir(tmp_path) == [name]
    assert read(kind(tmp_path / name)) == ({"n": 1}, {})


def test_a_symbolic_link_leads_to_the_file_that_is_replaced(file, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(file)
    write(link, {"n": 2}, {})
    assert link.is_symlink()
    assert read(file)[0] == {"n": 2}


def test_the_file_may_be_read_by_whom_the_umask_lets(tmp_path):
    before = os.umask(0o027)
    try:
        write(tmp_path / "file", {}, {})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


# whole or not at all


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_no_other(file, monkeypatch, step):
    old = file.read_bytes()

    def fail(*args):
        raise PermissionError(13, "Permission denied", "temporary")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(PermissionError, match="Permission denied") as error:
        write(file, {"n": 2}, {})
    assert error.value.filename == str(file)
    assert file.read_bytes() == old
    assert os.listdir(file.parent) == [file.name]


def test_the_bytes_are_on_the_disk_before_the_name_is(file, monkeypatch):
    done, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: done.append("fsync") or fsync(handle))
    monkeypatch.setattr(os, "replace", lambda *names: done.append("replace") or replace(*names))
    write(file, {}, {})
    assert done[:2] == ["fsync", "replace"]


def test_a_truncated_file_is_refused_at_every_length(file):
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=f"{file} is not a complete file of sk_torchmf"):
            read(file)


def test_a_flipped_bit_is_noticed_or_without_effect(file):
    whole, meta, arrays = bytearray(file.read_bytes()), *read(file)
    noticed = 0
    for at in range(len(whole)):
        whole[at] ^= 1 << at % 8
        file.write_bytes(whole)
        whole[at] ^= 1 << at % 8
        try:
            again = read(file)
        except ValueError as error:
            assert str(file) in str(error)  # noqa: PT017
            noticed += 1
            continue
        assert again[0] == meta
        assert {name: values.tobytes() for name, values in again[1].items()} == {n: v.tobytes() for n, v in arrays.items()}
    assert noticed > len(whole) / 2  # the others are dates, permissions and the like


# other files


def pickled(path):
    path.write_bytes(pickle.dumps([1, 2]))


def foreign_zip(path):
    torch.save({"a": torch.ones(2)}, path)


@pytest.mark.parametrize(
    "make",
    [
        pickled,
        foreign_zip,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("user,item\n"),
        lambda path: np.savez(path.open("wb"), x=np.ones(2)),
        lambda path: np.save(path.open("wb"), np.ones(2)),
    ],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_another_programs_file_is_refused(tmp_path, make):
    make(tmp_path / "file")
    with pytest.raises(ValueError, match="file is not a complete file of sk_torchmf"):
        read(tmp_path / "file")


def test_a_file_of_a_newer_version_says_upgrade(tmp_path):
    path = forge(tmp_path / "file", ("new.kind", b"what a newer version may write"), version=FORMAT + 1)
    with pytest.raises(ValueError, match=rf"written by a newer sk_torchmf \(9.9\).*has format {FORMAT + 1}.*Upgrade sk_torchmf"):
        read(path)


@pytest.mark.parametrize("version", [0, -1, 1.5, "1", None, True])
def test_a_version_that_is_none_is_refused(tmp_path, version):
    with pytest.raises(ValueError, match="has no version"):
        read(forge(tmp_path / "file", version=version))


def test_what_is_not_there_is_not_found(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        read(tmp_path / "nothing")


# files made to harm


@pytest.mark.parametrize(
    "name", ["x.npy", "x.pkl", "../x.npy", "/tmp/x.npy", "data.pkl", "state/x.npy", "x\\y.npy", ".npy", "x.npy.pkl"]
)
def test_a_pickle_anywhere_is_not_unpickled(tmp_path, name):
    trace = tmp_path / "trace"
    for content in (pickle.dumps(Trap(trace)), npy_of(np.array([Trap(trace)], dtype=object), allow_pickle=True)):
        with pytest.raises(ValueError, match=r"not an array of numbers|has a part"):
            read(forge(tmp_path / "file", (name, content)))
    assert sorted(os.listdir(tmp_path)) == ["file"]
    pickle.loads(pickle.dumps(Trap(trace))).close()
    assert trace.exists()  # the trap works


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
        "{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (1,), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1,), 'more': 1, }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (__import__('os').getpid(),), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (" + "9" * 5000 + ",), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (" + "1, " * 5000 + "), }",
        "{'descr': '<U0', 'fortran_order': False, 'shape': (1000000000000,), }",
        "{'descr': '<M8[qq]', 'fortran_order': False, 'shape': (1,), }",
        "{'descr': '|V8', 'fortran_order': False, 'shape': (1,), }",
        "(" * 9000,
        "",
    ],
)
def test_an_array_header_is_read_and_not_evaluated(tmp_path, header):
    with pytest.raises(ValueError, match="not a complete file"):
        read(forge(tmp_path / "file", ("x.npy", npy(header, bytes(8)))))


@pytest.mark.parametrize("shape", [(10**13 // 8,), (10**6, 10**6), (2**62, 2**62), (5,), (3,)])
def test_an_array_that_claims_another_size_is_refused_before_it_is_made(tmp_path, monkeypatch, shape):
    monkeypatch.setattr(_archive.np, "empty", None)
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}"
    with pytest.raises(ValueError, match=r"x.npy does not have the .* bytes"):
        read(forge(tmp_path / "file", ("x.npy", npy(header, bytes(32)))))


def test_a_compressed_part_could_be_a_bomb_and_is_refused(tmp_path):
    path = forge(tmp_path / "file", ("x.npy", npy_of(np.zeros(2**20))), compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**15
    with pytest.raises(ValueError, match=r"compressed or encrypted"):
        read(path)


def test_parts_of_one_name_are_refused(tmp_path):
    part = "x.npy", npy_of(np.zeros(3))
    with pytest.warns(UserWarning, match="Duplicate"):
        path = forge(tmp_path / "file", part, part)
    with pytest.raises(ValueError, match="two of its parts have one name"):
        read(path)


def test_a_part_too_many_or_too_few_is_noticed(tmp_path):
    part = "x.npy", npy_of(np.zeros(3))
    path = forge(tmp_path / "file", part)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("y.npy", part[1])
    with pytest.raises(ValueError, match="does not have the parts"):
        read(path)


def test_parts_that_overlap_are_refused(tmp_path):
    """A directory that names the same bytes many times makes a small file a large one (Fifield 2019)."""
    path, content = tmp_path / "file", npy_of(np.zeros(1000))
    forge(path, *((f"{at:04}.npy", content if at == 0 else b"") for at in range(50)))
    whole = bytearray(path.read_bytes())
    start = first = whole.index(b"PK\x01\x02")
    entries = []
    while whole[start : start + 4] == b"PK\x01\x02":
        entries.append(start)
        start += 46 + struct.unpack_from("<H", whole, start + 28)[0]
    assert first == entries[0]
    for entry in entries[2:]:
        whole[entry + 16 : entry + 28] = whole[entries[1] + 16 : entries[1] + 28]  # checksum and sizes
        whole[entry + 42 : entry + 46] = whole[entries[1] + 42 : entries[1] + 46]  # where it starts
    path.write_bytes(whole)
    with pytest.raises(ValueError, match="overlap"):
        read(path)


def test_json_that_nests_too_deep_is_refused(tmp_path):
    path = tmp_path / "file"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(META, "[" * 200_000)
    with pytest.raises(ValueError, match="not a complete file"):
        read(path)


# arguments


@pytest.mark.parametrize("path", [3, None, b"file", io.BytesIO(), ["file"]])
@pytest.mark.parametrize("call", [lambda path: write(path, {}, {}), read])
def test_a_path_is_a_str_or_a_path(call, path):
    with pytest.raises(TypeError, match=r"path must be a str or os.PathLike. Got \w+\."):
        call(path)


def test_an_empty_path_is_refused():
    with pytest.raises(ValueError, match="must name a file"):
        write("", {}, {})


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(IsADirectoryError, match="this is a folder"):
        write(tmp_path, {}, {})
    with pytest.raises(IsADirectoryError):
        read(tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("folder", ["missing", "file"])
def test_a_folder_that_is_not_there_is_named(file, folder):
    with pytest.raises(FileNotFoundError, match=rf"Make it first: '.*{folder}'"):
        write(file.parent / folder / "model", {}, {})


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to_is_an_error_that_names_the_path(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="model"):
        write(tmp_path / "model", {}, {})


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_what_is_no_ordinary_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="path must name an ordinary file"):
        write(tmp_path / "pipe", {}, {})


@pytest.mark.parametrize("values", [np.array([None]), np.zeros(2, "f8,i4"), np.zeros(2, np.longdouble), [1.0]])
def test_an_array_that_a_file_cannot_hold_is_named(tmp_path, values):
    if np.asarray(values).dtype.itemsize == 8 and isinstance(values, np.ndarray) and values.dtype.kind == "f":
        pytest.skip("long double is double here")
    with pytest.raises(TypeError, match="thing has dtype"):
        write(tmp_path / "file", {}, {"thing": values})
    assert os.listdir(tmp_path) == []
