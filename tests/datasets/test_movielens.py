"""fetch_movielens, with a small archive in the place of GroupLens's and no network."""

import hashlib
import io
import os
import sys
import zipfile
from urllib.error import URLError

import numpy as np
import pytest

from sk_torchmf.datasets import _movielens, fetch_movielens

LINES = {
    "100k": ("196\t242\t3\t881250949", "186\t302\t4\t891717742", "196\t302\t1\t878887116"),
    "1m": ("1::1193::5::978300760", "1::661::3::978302109", "7::661::4::978301968"),
}


class Response(io.BytesIO):
    def __init__(self, content, length=None):
        super().__init__(content)
        self.headers = {} if length is None else {"Content-Length": str(length)}


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """Every test has an empty home, no cache, and no network."""

    def refuse(url, timeout):
        raise URLError("Name or service not known")

    monkeypatch.setattr(_movielens, "urlopen", refuse)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.delenv("SK_TORCHMF_DATA", raising=False)


@pytest.fixture(params=["100k", "1m"])
def archive(request, monkeypatch):
    """(variant, bytes) of a zip whose checksum and length the table of sources now has."""
    source = _movielens.MOVIELENS[request.param]
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr(source.member, "\n".join(LINES[request.param]) + "\n")
    content = content.getvalue()
    known = source._replace(md5=hashlib.md5(content).hexdigest(), n_ratings=3)
    monkeypatch.setitem(_movielens.MOVIELENS, request.param, known)
    return request.param, content


def assert_is_the_small_archive(bunch, variant):
    table = np.array([line.replace("::", "\t").split("\t") for line in LINES[variant]]).astype(np.int64)
    np.testing.assert_array_equal(bunch.data, table[:, :2])
    assert bunch.data.dtype == bunch.timestamps.dtype == np.int64
    np.testing.assert_array_equal(bunch.target, table[:, 2])
    assert bunch.target.dtype == np.float32
    np.testing.assert_array_equal(bunch.timestamps, table[:, 3])
    interactions = bunch.interactions
    np.testing.assert_array_equal(bunch.user_labels[interactions.user_ids], table[:, 0])
    np.testing.assert_array_equal(bunch.item_labels[interactions.item_ids], table[:, 1])
    assert (interactions.num_users, interactions.num_items) == (2, 2)
    np.testing.assert_array_equal(interactions.ratings, bunch.target)
    assert f"MovieLens-{variant.upper()}" in bunch.DESCR
    assert "licence" in bunch.DESCR


def test_an_archive_in_the_folder_is_read_and_then_cached(archive, tmp_path):
    variant, content = archive
    (tmp_path / f"ml-{variant}.zip").write_bytes(content)
    assert_is_the_small_archive(fetch_movielens(variant, data_home=tmp_path), variant)
    (tmp_path / f"ml-{variant}.zip").unlink()
    assert [path.name for path in tmp_path.iterdir()] == [f"ml{variant}.npz"]
    assert_is_the_small_archive(fetch_movielens(variant, data_home=str(tmp_path), download_if_missing=False), variant)


@pytest.mark.parametrize("where", ["data_home", "environment", "home"])
def test_a_download_lands_in_the_cache_folder(archive, where, monkeypatch, tmp_path):
    variant, content = archive
    urls = []

    def serve(url, timeout):
        urls.append(url)
        return Response(content, len(content))

    monkeypatch.setattr(_movielens, "urlopen", serve)
    folder = tmp_path / "home" / "sk_torchmf_data" if where == "home" else tmp_path / "a" / "b"
    if where == "environment":
        monkeypatch.setenv("SK_TORCHMF_DATA", str(folder))
    given = {"data_home": folder} if where == "data_home" else {}
    assert_is_the_small_archive(fetch_movielens(variant, **given), variant)
    assert urls == [f"https://files.grouplens.org/datasets/movielens/ml-{variant}.zip"]
    assert sorted(path.name for path in folder.iterdir()) == [f"ml-{variant}.zip", f"ml{variant}.npz"]
    fetch_movielens(variant, **given)
    assert len(urls) == 1


def test_a_download_shows_percentages_without_tqdm(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    content = bytes(2**18)
    source = _movielens.MOVIELENS["100k"]._replace(md5=hashlib.md5(content).hexdigest())
    monkeypatch.setattr(_movielens, "urlopen", lambda url, timeout: Response(content, len(content)))
    _movielens._obtain(tmp_path / "ml-100k.zip", source, "100k", True)
    printed = capsys.readouterr()
    assert printed.err.splitlines() == [f"ml-100k.zip: {state}" for state in ("downloading", "25%", "50%", "75%", "100%")]
    assert printed.out == ""


@pytest.mark.parametrize("tqdm", [True, False])
def test_a_download_of_unknown_length_works(tqdm, monkeypatch, archive, tmp_path):
    variant, content = archive
    if not tqdm:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(_movielens, "urlopen", lambda url, timeout: Response(content))
    assert_is_the_small_archive(fetch_movielens(variant, data_home=tmp_path), variant)


@pytest.mark.parametrize("damage", [lambda content: content[:-7], lambda content: b"<html>Not found</html>", lambda content: b""])
def test_a_truncated_or_foreign_download_is_refused_and_not_kept(archive, damage, monkeypatch, tmp_path):
    variant, content = archive
    monkeypatch.setattr(_movielens, "urlopen", lambda url, timeout: Response(damage(content), len(content)))
    with pytest.raises(
        OSError, match=rf"(?s)ml-{variant}.zip failed: its MD5 checksum is \w+ instead of \w+.*truncated.*Put ml-{variant}.zip"
    ):
        fetch_movielens(variant, data_home=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_download_that_breaks_off_leaves_nothing(monkeypatch, tmp_path):
    class Broken(Response):
        def read(self, size):
            raise ConnectionResetError("Connection reset by peer")

    monkeypatch.setattr(_movielens, "urlopen", lambda url, timeout: Broken(b"", 100))
    with pytest.raises(OSError, match="failed: Connection reset by peer"):
        fetch_movielens("100k", data_home=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("variant", ["100k", "1m"])
def test_offline_names_the_folder_the_file_and_where_to_get_it(variant, tmp_path):
    with pytest.raises(OSError, match="Name or service not known") as caught:
        fetch_movielens(variant, data_home=tmp_path)
    message = str(caught.value)
    assert f"Put ml-{variant}.zip from https://grouplens.org/datasets/movielens/{variant}/ into {tmp_path}" in message
    assert "SK_TORCHMF_DATA" in message


def test_nothing_is_downloaded_where_that_is_not_wanted(monkeypatch, tmp_path):
    def fail(url, timeout):
        raise AssertionError("network")

    monkeypatch.setattr(_movielens, "urlopen", fail)
    with pytest.raises(OSError, match=r"download_if_missing is False\. Put ml-1m\.zip from"):
        fetch_movielens("1m", data_home=tmp_path / "none", download_if_missing=False)
    assert not (tmp_path / "none").exists()


def test_a_foreign_archive_in_the_folder_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "ml-100k.zip"
    path.write_bytes(b"something else")
    with pytest.raises(OSError, match=r"ml-100k.zip must have the MD5 checksum 0e33842e24a9c977be4e0107933c0723.*Delete it"):
        fetch_movielens("100k", data_home=tmp_path)
    assert path.read_bytes() == b"something else"


def write_cache(path, **changed):
    arrays = {
        "user_ids": np.array([0, 1], dtype=np.int32),
        "item_ids": np.array([0, 0], dtype=np.int32),
        "ratings": np.array([5, 3], dtype=np.float32),
        "timestamps": np.array([10, 11]),
        "user_raw": np.array([3, 4]),
        "item_raw": np.array([9]),
    }
    np.savez(path, **{name: array for name, array in {**arrays, **changed}.items() if array is not None})


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(b"PK nonsense"), "cannot be read"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: write_cache(path, timestamps=None), "cannot be read.*timestamps"),
        (lambda path: write_cache(path), "ml100k.npz must have 100000"),
    ],
)
def test_a_foreign_cache_is_refused(write, message, tmp_path):
    write(tmp_path / "ml100k.npz")
    with pytest.raises(OSError, match=message):
        fetch_movielens(data_home=tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="needs a user who cannot write everywhere")
def test_a_folder_that_cannot_be_written_still_serves(archive, tmp_path):
    variant, content = archive
    (tmp_path / f"ml-{variant}.zip").write_bytes(content)
    tmp_path.chmod(0o500)
    assert_is_the_small_archive(fetch_movielens(variant, data_home=tmp_path), variant)


def test_a_cache_that_cannot_be_written_is_no_error(archive, monkeypatch, tmp_path):
    variant, content = archive
    (tmp_path / f"ml-{variant}.zip").write_bytes(content)

    def full(file, **arrays):
        file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    assert_is_the_small_archive(fetch_movielens(variant, data_home=tmp_path), variant)
    assert [path.name for path in tmp_path.iterdir()] == [f"ml-{variant}.zip"]


def test_frames_and_pairs(archive, tmp_path):
    pandas = pytest.importorskip("pandas")
    variant, content = archive
    (tmp_path / f"ml-{variant}.zip").write_bytes(content)
    bunch = fetch_movielens(variant, data_home=tmp_path)
    frame = fetch_movielens(variant, data_home=tmp_path, as_frame=True)
    assert list(frame.data.columns) == ["user", "item", "timestamp"]
    np.testing.assert_array_equal(frame.data[["user", "item"]], bunch.data)
    np.testing.assert_array_equal(frame.data["timestamp"], bunch.timestamps)
    assert isinstance(frame.target, pandas.Series)
    assert (frame.target.name, frame.target.dtype) == ("rating", np.float32)
    X, y = fetch_movielens(variant, data_home=tmp_path, return_X_y=True)
    np.testing.assert_array_equal(X, bunch.data)
    np.testing.assert_array_equal(y, bunch.target)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"variant": "10m"}, "'variant'.*among.*Got '10m'"),
        ({"data_home": 3}, "'data_home'.*Got 3"),
        ({"download_if_missing": "no"}, "'download_if_missing'"),
        ({"as_frame": "auto"}, "'as_frame'"),
        ({"features": 1.5}, "'features'"),
        (
            {"features": True, "return_X_y": True},
            r"features=True needs return_X_y=False, because \(data, target\) does not include the",
        ),
        ({"return_X_y": None}, "'return_X_y'"),
    ],
)
def test_arguments_of_fetch_movielens_are_checked(given, message):
    with pytest.raises(ValueError, match=message):
        fetch_movielens(**given)
