"""Folders of arrays: whole or not there, and what is no such folder is refused with words."""

import errno
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from sk_torchmf.storage import array_folder
from sk_torchmf.storage.array_folder import FORMAT, ArrayFolder, building

ARRAYS = {
    "int8": np.arange(-3, 3, dtype=np.int8),
    "large": np.arange(3_000_000, dtype=np.int64),  # more than is read at once
    "times": np.array(["2020-01-01", "NaT"], dtype="datetime64[ns]"),
    "swapped": np.arange(5, dtype=">f4"),
    "strided": np.arange(20)[::3],
    "empty": np.empty((0, 3), dtype=np.float32),
    "table": np.arange(6.0).reshape(2, 3),
}


def make(path, arrays=ARRAYS, meta=None):
    with building(path, "shards") as work:
        for name, values in arrays.items():
            work.write(name, values)
        work.meta = meta or {"n": 3}
    return path


def test_what_is_written_comes_back(tmp_path):
    folder = ArrayFolder(make(tmp_path / "folder"), "shards")
    for name, values in ARRAYS.items():
        assert_array_equal(folder.array(name), values)
        assert folder.array(name).dtype == values.dtype.newbyteorder("<")
        assert_array_equal(np.load(tmp_path / "folder" / f"{name}.npy"), values)
    assert folder.meta == {"n": 3}
    assert "int8" in folder
    assert "other" not in folder
    assert folder.n_bytes == sum(file.stat().st_size for file in (tmp_path / "folder").glob("*.npy"))
    folder.verify()
    assert [one.name for one in tmp_path.iterdir()] == ["folder"]


def test_the_digest_is_of_the_arrays(tmp_path):
    digest = ArrayFolder(make(tmp_path / "a"), "shards").digest
    assert ArrayFolder(make(tmp_path / "b", dict(reversed(ARRAYS.items())), {"n": 4}), "shards").digest == digest
    retyped = ARRAYS | {"times": ARRAYS["times"].view(np.int64)}
    assert ArrayFolder(make(tmp_path / "c", retyped), "shards").digest != digest


def test_an_error_on_the_way_leaves_nothing(tmp_path):
    seen = []

    def fail():
        with building(tmp_path / "folder", "shards") as work:
            work.write("int8", ARRAYS["int8"])
            seen.extend(one.name for one in tmp_path.iterdir())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert seen == [".folder.building"]
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_by_the_caller_s_name(tmp_path, monkeypatch):
    def fail(file, array):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(array_folder, "write_bytes", fail)
    with pytest.raises(OSError, match="No space left on device while the folder was built; nothing of it was left") as caught:
        make(tmp_path / "folder")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "folder"))
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_another_file_keeps_its_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"elsewhere") as caught, building(tmp_path / "folder", "shards"):
        open(tmp_path / "elsewhere")  # noqa: SIM115
    assert caught.value.filename == str(tmp_path / "elsewhere")


def test_bytes_that_are_written_in_parts_are_all_written():
    class Slow:
        content = b""

        def write(self, data):
            self.content += bytes(data[:5])
            return min(len(data), 5)

    slow, values = Slow(), np.arange(7, dtype=np.int16)
    array_folder.write_bytes(slow, values)
    assert slow.content == values.tobytes()


def test_two_that_build_one_folder(tmp_path):
    with building(tmp_path / "folder", "shards") as work:
        work.write("int8", ARRAYS["int8"])
        with pytest.raises(FileExistsError, match="Another process is building this folder"):
            make(tmp_path / "folder")
    assert_array_equal(ArrayFolder(tmp_path / "folder", "shards").array("int8"), ARRAYS["int8"])


def test_a_folder_that_appears_meanwhile_is_left_alone(tmp_path):
    with pytest.raises(FileExistsError, match="The folder must not exist yet"), building(tmp_path / "folder", "shards"):
        (tmp_path / "folder").mkdir()
    assert [one.name for one in tmp_path.iterdir()] == ["folder"]


PROGRAM = """
import sys, time, types
import numpy as np
sys.modules["sk_torchmf"] = types.ModuleType("sk_torchmf")  # without torch, whose import takes seconds
sys.modules["sk_torchmf"].__path__ = [sys.argv[2]]
from sk_torchmf.storage.array_folder import building
with building(sys.argv[1], "shards") as work:
    work.write("leftover", np.arange(1000))
    print("written", flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_what_a_killed_process_left_goes_with_the_next_build(tmp_path):
    arguments = str(tmp_path / "folder"), os.path.dirname(os.path.dirname(array_folder.__file__))
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, *arguments], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"written\n"
    with pytest.raises(FileExistsError, match="Another process is building this folder"):
        make(tmp_path / "folder")
    os.kill(process.pid, signal.SIGKILL)
    process.wait(30)
    process.stdout.close()
    assert [one.name for one in tmp_path.iterdir()] == [".folder.building"]
    make(tmp_path / "folder")
    assert [one.name for one in tmp_path.iterdir()] == ["folder"]
    assert "leftover" not in ArrayFolder(tmp_path / "folder", "shards")


def rewrite(change):
    """Damage the manifest as a tree."""

    def damage(folder):
        tree = json.loads((folder / "manifest.json").read_text())
        change(tree)
        (folder / "manifest.json").write_text(json.dumps(tree))

    return damage


def replace_array(folder):
    size = (folder / "int8.npy").stat().st_size
    np.save(folder / "int8.npy", np.zeros(3, dtype=np.int16))
    assert (folder / "int8.npy").stat().st_size == size


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (
            lambda folder: (folder / "manifest.json").unlink(),
            "is not a folder of shards that sk_torchmf wrote: it has no",
        ),
        (lambda folder: (folder / "manifest.json").write_text("{"), r"or it is damaged: manifest\.json is not valid JSON"),
        (lambda folder: (folder / "manifest.json").write_bytes(b"\xff"), r"or it is damaged: manifest\.json is not valid JSON"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), r"manifest\.json does not say that it is one"),
        (rewrite(lambda tree: tree.update(format="sk_torchmf model")), r"manifest\.json does not say that it is one"),
        (rewrite(lambda tree: tree.update(version="1")), r"manifest\.json does not say that it is one"),
        (
            rewrite(lambda tree: tree.update(version=FORMAT + 1)),
            rf"a newer sk_torchmf .*has format {FORMAT + 1}.*Upgrade",
        ),
        (rewrite(lambda tree: tree.update(meta=None)), "does not list its files"),
        (rewrite(lambda tree: tree.update(files=[])), "does not list its files"),
        (rewrite(lambda tree: tree["files"].update({"../x": tree["files"]["int8"]})), "does not list its files"),
        (rewrite(lambda tree: tree["files"]["int8"].update(dtype="O")), "does not list its files"),
        (rewrite(lambda tree: tree["files"]["int8"].update(shape=[-1])), "does not list its files"),
        (lambda folder: (folder / "int8.npy").unlink(), r"is incomplete or damaged: int8\.npy is missing\. Build it again"),
        (
            lambda folder: (folder / "int8.npy").write_bytes(b""),
            r"is incomplete or damaged: int8\.npy has 0 bytes where 134 were written",
        ),
        (replace_array, r"int8\.npy holds int16 of shape \(3,\) where int8 of shape \(6,\) were written"),
        (lambda folder: (folder / "int8.npy").write_bytes(bytes(134)), r"int8\.npy cannot be read"),
    ],
)
def test_what_is_no_such_folder_is_refused(damage, words, tmp_path):
    make(tmp_path / "folder")
    damage(tmp_path / "folder")
    with pytest.raises(ValueError, match=words):
        ArrayFolder(tmp_path / "folder", "shards").array("int8")


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is not a folder of shards"):
        ArrayFolder(tmp_path / "file", "shards")
    with pytest.raises(FileNotFoundError, match="There is no such folder of shards"):
        ArrayFolder(tmp_path / "nothing", "shards")
    with pytest.raises(ValueError, match=r"it has no other\.npy"):
        ArrayFolder(make(tmp_path / "folder"), "shards").array("other")


def test_a_changed_byte_is_found(tmp_path):
    make(tmp_path / "folder")
    content = bytearray((tmp_path / "folder" / "large.npy").read_bytes())
    content[-5] ^= 1
    (tmp_path / "folder" / "large.npy").write_bytes(content)
    with pytest.raises(ValueError, match=r"large\.npy was changed since it was written"):
        ArrayFolder(tmp_path / "folder", "shards").verify()
