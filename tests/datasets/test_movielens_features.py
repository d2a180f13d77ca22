"""What MovieLens knows of users and films: of small archives in GroupLens's format, and of the real ones where they are."""

import hashlib
import io
import os
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from sk_torchmf.datasets import _movielens, fetch_movielens

FOLDER = Path(os.environ.get("SK_TORCHMF_DATA") or "none")
FILES = {  # not in the order of the ids; \x85, where str.splitlines ends a line, is in a title
    "100k": {
        "ml-100k/u.data": "7\t302\t3\t881250949\n2\t302\t1\t878887116\n",
        "ml-100k/u.user": "7|24|M|technician|85711\n2|53|F|other|T8H1N\n3|7|M|student|01060\n",
        "ml-100k/u.genre": "unknown|0\nDrama|1\nSci-Fi|2\n\n",
        "ml-100k/u.item": "302|L.A. Confidential (1997)|01-Jan-1997||http://us.imdb.com/M/title-exact?L%2EA%2E|0|1|0\n"
        "267|unknown||||1|0|0\n"
        "5|2001\x85 (1968) (V) |01-Jan-1998||http://us.imdb.com/Title?2001|0|1|1\n",
    },
    "1m": {
        "ml-1m/ratings.dat": "7::302::3::978300760\n2::302::1::978302109\n",
        "ml-1m/users.dat": "7::M::25::17::85711\n2::F::1::10::98107-2117\n3::M::56::0::01060\n",
        "ml-1m/movies.dat": "302::L.A. Confidential (1997)::Drama\n267::Dream::Sci-Fi\n5::2001\x85 (1968) (V) ::Sci-Fi|Drama\n",
    },
}
AGE = {"100k": [53, 7, 24], "1m": ["under 18", "56+", "25-34"]}
OCCUPATION = {
    "100k": ["other", "student", "technician"],
    "1m": ["K-12 student", "other or not specified", "technician/engineer"],
}
ZIP = {"100k": ["T8H1N", "01060", "85711"], "1m": ["98107-2117", "01060", "85711"]}
TITLES = {
    "100k": ["2001\x85 (1968) (V) ", "unknown", "L.A. Confidential (1997)"],
    "1m": ["2001\x85 (1968) (V) ", "Dream", "L.A. Confidential (1997)"],
}
GENRES = {"100k": [("Drama", "Sci-Fi"), (), ("Drama",)], "1m": [("Drama", "Sci-Fi"), ("Sci-Fi",), ("Drama",)]}


@pytest.fixture(params=["100k", "1m"])
def variant(request, monkeypatch, tmp_path):
    """Which of them has its small archive in the folder, and no network."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for member, text in FILES[request.param].items():
            file.writestr(member, text.encode("latin-1"))
    content = content.getvalue()
    known = {"md5": hashlib.md5(content).hexdigest(), "n_ratings": 2, "n_users": 3, "n_films": 3}
    monkeypatch.setitem(_movielens.MOVIELENS, request.param, _movielens.MOVIELENS[request.param]._replace(**known))
    monkeypatch.setattr(_movielens, "urlopen", None)
    (tmp_path / f"ml-{request.param}.zip").write_bytes(content)
    return request.param


def assert_are_the_small_tables(bunch, variant):
    users, items = bunch.user_features, bunch.item_features
    assert (users.index.name, users.index.tolist(), users.index.dtype) == ("user", [2, 3, 7], np.int64)
    assert list(users.columns) == ["gender", "age", "occupation", "zip"]
    assert users["gender"].tolist() == ["F", "M", "M"]
    assert users["age"].tolist() == AGE[variant]
    assert users["occupation"].tolist() == OCCUPATION[variant]
    assert users["zip"].tolist() == ZIP[variant]
    assert (items.index.name, items.index.tolist(), items.index.dtype) == ("item", [5, 267, 302], np.int64)
    assert list(items.columns) == ["title", "year", "genres"]
    assert items["title"].tolist() == TITLES[variant]
    np.testing.assert_array_equal(items["year"], [1968.0, np.nan, 1997.0])
    assert items["year"].dtype == np.float64
    assert items["genres"].tolist() == GENRES[variant]


def test_tables_of_an_archive_are_read_and_then_cached(variant, tmp_path):
    pytest.importorskip("pandas")
    assert_are_the_small_tables(fetch_movielens(variant, data_home=tmp_path, features=True), variant)
    (tmp_path / f"ml-{variant}.zip").unlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"ml{variant}.npz", f"ml{variant}_side.npz"]
    again = fetch_movielens(variant, data_home=tmp_path, as_frame=True, features=True)
    assert_are_the_small_tables(again, variant)
    assert again.item_features.loc[again.item_labels, "title"].tolist() == ["L.A. Confidential (1997)"]
    assert "user_features" not in fetch_movielens(variant, data_home=tmp_path)


def test_ages_are_numbers_or_brackets_in_order(variant, tmp_path):
    pytest.importorskip("pandas")
    age = fetch_movielens(variant, data_home=tmp_path, features=True).user_features["age"]
    if variant == "100k":
        assert age.dtype == np.int64
    else:
        assert age.cat.ordered
        assert age.cat.categories.tolist() == ["under 18", "18-24", "25-34", "35-44", "45-49", "50-55", "56+"]
        assert (age.min(), age.max()) == ("under 18", "56+")


def test_ratings_alone_are_not_enough_for_features(variant, tmp_path):
    pytest.importorskip("pandas")
    fetch_movielens(variant, data_home=tmp_path)
    (tmp_path / f"ml-{variant}.zip").unlink()
    with pytest.raises(OSError, match=rf"ml-{variant}\.zip is not in .* download_if_missing is False\. Put ml-{variant}\.zip from"):
        fetch_movielens(variant, data_home=tmp_path, download_if_missing=False, features=True)


def test_a_foreign_cache_of_features_is_refused(variant, tmp_path):
    pytest.importorskip("pandas")
    fetch_movielens(variant, data_home=tmp_path, features=True)
    path = tmp_path / f"ml{variant}_side.npz"
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **arrays | {"user_zip": arrays["user_zip"][:2]})
    with pytest.raises(OSError, match=rf"ml{variant}_side\.npz must have 3 user_zip\. Got 2\. Delete it"):
        fetch_movielens(variant, data_home=tmp_path, features=True)
    del arrays["item_genres"]
    np.savez(path, **arrays)
    with pytest.raises(OSError, match=r"cannot be read: .*item_genres.* Delete it"):
        fetch_movielens(variant, data_home=tmp_path, features=True)


def test_features_say_that_they_need_pandas(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"fetch_movielens\(features=True\) requires pandas"):
        fetch_movielens("100k", data_home=tmp_path, download_if_missing=False, features=True)


@pytest.mark.parametrize(
    ("variant", "n_users", "n_films", "n_rated", "n_women", "n_dramas"),
    [("100k", 943, 1682, 1682, 273, 725), ("1m", 6040, 3883, 3706, 1709, 1603)],
)
def test_the_real_tables_have_the_counts_that_are_known_of_them(variant, n_users, n_films, n_rated, n_women, n_dramas):
    pytest.importorskip("pandas")
    needed = [FOLDER / f"ml{variant}{part}.npz" for part in ("", "_side")]
    if not (FOLDER / f"ml-{variant}.zip").exists() and not all(path.exists() for path in needed):
        pytest.skip("SK_TORCHMF_DATA, the folder with MovieLens, is not set")
    bunch = fetch_movielens(variant, data_home=FOLDER, download_if_missing=False, features=True)
    users, items = bunch.user_features, bunch.item_features
    assert (len(users), len(items), len(bunch.item_labels)) == (n_users, n_films, n_rated)
    assert users.index.is_monotonic_increasing
    assert items.index.is_monotonic_increasing
    assert users.index.tolist() == bunch.user_labels.tolist()
    assert set(bunch.item_labels) <= set(items.index)
    assert not users.isna().any(axis=None)
    assert (users["gender"] == "F").sum() == n_women
    assert items["genres"].map(lambda genres: "Drama" in genres).sum() == n_dramas
    assert items.loc[1].tolist()[:2] == ["Toy Story (1995)", 1995.0]
    assert set(items.loc[1, "genres"]) == {"Animation", "Children's", "Comedy"}
    assert items["year"].between(1919, 2000).sum() == n_films - (variant == "100k")  # whose film 267 is "unknown"
