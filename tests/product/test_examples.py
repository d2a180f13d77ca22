"""The examples have the form that the documentation makes pages of, and run, here on few planted ratings."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest

from sk_torchmf import Interactions, datasets

FOLDER = Path(__file__).parents[2] / "docs" / "examples"
PAGES = sorted(path for path in FOLDER.glob("*.py") if path.name != "demo.py")
ELSEWHERE = {"serving"}  # test_serving.py runs it, in a process of its own

if not PAGES:
    pytest.skip("the examples are not in the source archive", allow_module_level=True)


def planted(variant, as_frame=False, features=False):
    """What ``fetch_movielens`` returns of what the examples use, with 80 users from id 1 on."""
    pandas = pytest.importorskip("pandas")
    ratings = datasets.make_ratings(n_users=80, n_items=120, n_ratings=4000, user_tail=0.3, item_tail=0.5, random_state=0)
    ids = ratings.interactions
    timestamps = np.random.default_rng(0).integers(0, 10**6, len(ids))
    ratings.interactions = Interactions(ids.user_ids, ids.item_ids, ids.ratings, timestamps, num_users=80, num_items=120)
    ratings.data, ratings.timestamps = ratings.data + 1, timestamps
    if as_frame:
        ratings.data = pandas.DataFrame(ratings.data, columns=["user", "item"]).assign(timestamp=timestamps)
        ratings.target = pandas.Series(ratings.target, name="rating")
    if features:
        films = {"title": [f"Film {i}" for i in range(1, 121)], "year": np.arange(1901.0, 2021.0)}
        genres = [("Comedy",) if x > 0 else ("Drama", "Thriller") for x in ratings.item_factors[:, 0]]
        ratings.item_features = pandas.DataFrame(films | {"genres": genres}, index=pandas.RangeIndex(1, 121, name="item"))
        people = {"gender": ["F", "M"] * 40, "age": np.arange(20, 100), "occupation": ["other", "student", "writer", "artist"] * 20}
        ratings.user_features = pandas.DataFrame(people, index=pandas.RangeIndex(1, 81, name="user"))
    return ratings


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_has_a_title_and_cells_and_no_command_line(path):
    text = path.read_text(encoding="utf-8")
    title = re.match(r'"""\n(.+)\n(=+)\n\n', text)
    assert title
    assert len(title[1]) == len(title[2])
    cells = text.split("\n# %%\n")[1:]
    assert len(cells) >= 3
    assert all(cell.startswith("# ") for cell in cells)
    assert "argparse" not in text
    assert "__main__" not in text


@pytest.mark.parametrize("path", [path for path in PAGES if path.stem not in ELSEWHERE], ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
def test_a_page_runs_and_draws(path, monkeypatch, one_thread):
    plt = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.setattr(datasets, "fetch_movielens", planted)
    monkeypatch.delenv("SK_TORCHMF_ML100K", raising=False)
    monkeypatch.delenv("SK_TORCHMF_SPOTLIGHT", raising=False)
    try:
        runpy.run_path(str(path))
        assert plt.get_fignums()
    finally:
        plt.close("all")
