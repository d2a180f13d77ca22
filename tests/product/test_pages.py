"""The code of README and of the documentation's pages runs; README shows what its code prints, and its links lead somewhere."""

import os
import re
import warnings
from importlib.util import find_spec
from inspect import getmembers, isfunction
from pathlib import Path

import pandas as pd
import pytest
import recbole

from sk_torchmf import BiasedMatrixFactorization, ImplicitMatrixFactorization, TorchFactorization, datasets, spotlight

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
QUICKSTART, CALLS = ROOT / "docs" / "quickstart.md", ROOT / "docs" / "calls.md"
ELSEWHERE = {"coming_from", "tutorials"}  # test_migration.py and test_tutorials.py run these
PAGES = [path for path in sorted((ROOT / "docs").rglob("*.md")) if not ELSEWHERE.intersection(path.parts)]
MOVIELENS = os.environ.get("SK_TORCHMF_ML100K")
ADDRESS = r"https://(?:github\.com/sk-torchmf/sk_torchmf/(?:blob|tree)|raw\.githubusercontent\.com/sk-torchmf/sk_torchmf)/main/"
pytestmark = pytest.mark.usefixtures("one_thread")

if not CALLS.exists():
    pytest.skip("the documentation is not in the source archive", allow_module_level=True)


def fenced(page, language):
    found = re.findall(r"^```(.*?)\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [text for own, text in found if own == language]


def blocks(page):
    return fenced(page, "python")


def run(block, page, names):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(compile(block, str(page), "exec"), names)


def planted(*args, **kwargs):
    """Ratings and films of MovieLens-100K's size, which say nothing."""
    ratings = datasets.make_ratings(943, 1682, 100_000, random_state=0)
    ids = pd.RangeIndex(1, 1683, name="item")
    films = {"title": [f"Film {i}" for i in ids], "year": 1900.0 + ids % 99, "genres": [("Drama", "War")[: i % 3] for i in ids]}
    ratings.data = pd.DataFrame(ratings.data + 1, columns=["user", "item"])
    ratings.target = pd.Series(ratings.target)
    ratings.item_features = pd.DataFrame(films, index=ids)
    return ratings


def test_the_block_of_the_readme_runs(monkeypatch, capsys):
    monkeypatch.setattr(datasets, "fetch_movielens", planted)
    (block,) = blocks(README)
    run(block, README, {})
    assert len(capsys.readouterr().out.splitlines()) == 5


@pytest.mark.skipif(not MOVIELENS, reason="SK_TORCHMF_ML100K, the path of MovieLens-100K's ratings, is not set")
def test_the_readme_shows_what_its_block_prints(monkeypatch, capsys):
    monkeypatch.setattr(datasets, "fetch_movielens", lambda *args, **kwargs: recbole.movielens(MOVIELENS))
    (block,) = blocks(README)
    run(block, README, {})
    assert capsys.readouterr().out in fenced(README, "")


@pytest.mark.parametrize("block", blocks(QUICKSTART), ids=range(len(blocks(QUICKSTART))))
def test_a_block_of_the_quickstart_runs_by_itself(block, capsys):
    names = {}
    run(block, QUICKSTART, names)
    assert "model" in names


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page) and page != QUICKSTART], ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run_in_their_order(page, capsys):
    names = {"__name__": "docs"}
    for block in blocks(page):
        asks = "set_callbacks" in block or "sklearn.callback" in block  # which scikit-learn has from 1.9 on
        if not asks or find_spec("sklearn.callback"):
            run(block, page, names)


def test_pages_with_code_are_found():
    assert {page.stem for page in PAGES if blocks(page)} >= {"choosing", "index", "start", "engine", "training", "solver"}
    assert len(blocks(QUICKSTART)) >= 3


@pytest.mark.parametrize("kind", [BiasedMatrixFactorization, ImplicitMatrixFactorization, TorchFactorization])
def test_the_page_of_calls_has_every_method(kind):
    own = {name for name, method in getmembers(kind, isfunction) if method.__module__.startswith("sk_torchmf") and name[0] != "_"}
    own -= {"get_params", "set_params", "get_feature_names_out"}  # scikit-learn's
    text = CALLS.read_text(encoding="utf-8")
    assert {name for name in own if not re.search(rf"`{name}[(`]", text)} == set()


def test_the_page_of_calls_has_all_of_spotlights():
    text = CALLS.read_text(encoding="utf-8")
    assert [name for name in spotlight.__all__ if f"`{name}(" not in text] == []


def test_links_lead_somewhere_wherever_the_readme_is_shown():
    links = re.findall(r"\]\(([^)]+)\)", README.read_text(encoding="utf-8"))
    here = [match[1] for match in map(re.compile(ADDRESS + r"([^#]+)").match, links) if match]
    assert len(here) == len(links) > 0
    assert [path for path in here if not (ROOT / path).exists()] == []
