"""What MovieLens knows of its users and films beside the ratings: from GroupLens's tables to arrays, from these to frames."""

import io
import re

import numpy as np

AGES = {1: "under 18", 18: "18-24", 25: "25-34", 35: "35-44", 45: "45-49", 50: "50-55", 56: "56+"}
OCCUPATIONS = dict(
    enumerate(
        [
            "other or not specified",
            "academic/educator",
            "artist",
            "clerical/admin",
            "college/grad student",
            "customer service",
            "doctor/health care",
            "executive/managerial",
            "farmer",
            "homemaker",
            "K-12 student",
            "lawyer",
            "programmer",
            "retired",
            "sales/marketing",
            "scientist",
            "self-employed",
            "technician/engineer",
            "tradesman/craftsman",
            "unemployed",
            "writer",
        ]
    )
)
"""What the codes of MovieLens-1M stand for, by its README; MovieLens-100K has ages in years and occupations as text."""

USER_ARRAYS = ("user_raw", "user_gender", "user_age", "user_occupation", "user_zip")
ITEM_ARRAYS = ("item_raw", "item_title", "item_genres")


def read_features_100k(archive):
    """Read the users and films of MovieLens-100K.

    Parameters
    ----------
    archive : zipfile.ZipFile
        GroupLens's own.

    Returns
    -------
    dict of ndarray
        ``USER_ARRAYS``, of shape (n_users,): ids, int32, M or F, ages and occupations as in the file, zip codes;
        ``ITEM_ARRAYS``: ids, int32, titles with the year, both of shape (n_items,), and flags of shape (n_items, n_genres), int8,
        of the genres in ``genre_names``.
    """
    user, age, gender, occupation, zip_code = zip(*_rows(archive, "ml-100k/u.user", "|"), strict=True)
    genres = [name for name, _ in _rows(archive, "ml-100k/u.genre", "|")]
    films = list(_rows(archive, "ml-100k/u.item", "|"))
    return {
        "user_raw": np.array(user, dtype=np.int32),
        "user_gender": np.array(gender),
        "user_age": np.array(age, dtype=np.int32),
        "user_occupation": np.array(occupation),
        "user_zip": np.array(zip_code),
        "item_raw": np.array([film[0] for film in films], dtype=np.int32),
        "item_title": np.array([film[1] for film in films]),
        "item_genres": np.array([film[-len(genres) :] for film in films], dtype=np.int8),
        "genre_names": np.array(genres),
    }


def read_features_1m(archive):
    """Read the users and films of MovieLens-1M, as ``read_features_100k``; ages and occupations are codes, int32."""
    user, gender, age, occupation, zip_code = zip(*_rows(archive, "ml-1m/users.dat", "::"), strict=True)
    item, title, listed = zip(*_rows(archive, "ml-1m/movies.dat", "::"), strict=True)
    own = [film.split("|") for film in listed]
    genres = sorted(set().union(*own))
    return {
        "user_raw": np.array(user, dtype=np.int32),
        "user_gender": np.array(gender),
        "user_age": np.array(age, dtype=np.int32),
        "user_occupation": np.array(occupation, dtype=np.int32),
        "user_zip": np.array(zip_code),
        "item_raw": np.array(item, dtype=np.int32),
        "item_title": np.array(title),
        "item_genres": np.array([[name in film for name in genres] for film in own], dtype=np.int8),
        "genre_names": np.array(genres),
    }


def _rows(archive, member, separator):
    with io.TextIOWrapper(archive.open(member), "latin-1") as lines:
        for line in lines:
            if line.strip():
                yield line.rstrip("\n").split(separator)


def as_frames(arrays, pandas):
    """Make of the arrays of either variant the frames of users and of films, in the order of their ids."""
    age, occupation = arrays["user_age"].astype(np.int64), arrays["user_occupation"]
    if occupation.dtype.kind in "iu":
        age = pandas.Categorical(pandas.Series(age).map(AGES), categories=list(AGES.values()), ordered=True)
        occupation = pandas.Series(occupation).map(OCCUPATIONS).array
    users = pandas.DataFrame(
        {"gender": arrays["user_gender"], "age": age, "occupation": occupation, "zip": arrays["user_zip"]},
        index=_index(pandas, arrays, "user"),
    )
    titles, names = arrays["item_title"], arrays["genre_names"]
    items = pandas.DataFrame(
        {
            "title": titles,
            "year": list(map(_year, titles.tolist())),
            "genres": [_genres(names, row) for row in arrays["item_genres"]],
        },
        index=_index(pandas, arrays, "item"),
    )
    return users.sort_index(), items.sort_index()


def _index(pandas, arrays, role):
    return pandas.Index(arrays[f"{role}_raw"].astype(np.int64), name=role)


def _year(title):
    """The year in a title such as ``Heat (1995)`` or ``Fantasia (1940) (V)``; NaN where there is none."""
    found = re.findall(r"\((\d{4})\)", title)
    return float(found[-1]) if found else np.nan


def _genres(names, flags):
    return tuple(name for name in names[flags > 0].tolist() if name != "unknown")  # which is no genre
