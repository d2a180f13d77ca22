"""MovieLens-100K from the files that RecBole's wheel carries: ``ml-100k.inter``, and ``ml-100k.item`` beside it."""

from pathlib import Path

import pandas as pd
from sklearn.utils import Bunch

from sk_torchmf.datasets import load_ratings


def movielens(path):
    """Ratings and films as ``fetch_movielens("100k", as_frame=True, features=True)`` has them; no times and no users' table."""
    ratings = load_ratings(path)
    columns = ["item", "title", "year", "genres"]
    films = pd.read_csv(Path(path).with_suffix(".item"), sep="\t", header=0, names=columns, index_col="item")
    films["year"] = films["year"].str.extract(r"(\d{4})", expand=False).astype(float)
    films["title"] += films["year"].map(" ({:.0f})".format, na_action="ignore").fillna("")
    films["genres"] = [tuple(genre for genre in genres.split() if genre != "unknown") for genres in films["genres"]]
    data = pd.DataFrame(ratings.data, columns=["user", "item"])
    return Bunch(data=data, target=pd.Series(ratings.target, name="rating"), item_features=films.sort_index())
