"""The code of README and of the documentation's pages runs as it stands; README's links lead somewhere."""

import re
import warnings
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [path for path in sorted((ROOT / "docs").rglob("*.md")) if "coming_from" not in path.parts]  # test_migration runs these
pytestmark = pytest.mark.usefixtures("one_thread")


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def run(block, page, names):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(compile(block, str(page), "exec"), names)


@pytest.mark.parametrize("block", blocks(README), ids=range(len(blocks(README))))
def test_a_block_of_the_readme_runs_by_itself(block, capsys):
    names = {}
    run(block, README, names)
    assert "model" in names


def test_there_is_a_block_for_each_input_form():
    assert len(blocks(README)) >= 3


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run_in_their_order(page, capsys):
    names = {"__name__": "docs"}
    for block in blocks(page):
        asks = "set_callbacks" in block or "sklearn.callback" in block  # which scikit-learn has from 1.9 on
        if not asks or find_spec("sklearn.callback"):
            run(block, page, names)


def test_pages_with_code_are_found():
    assert {page.stem for page in PAGES if blocks(page)} >= {"index", "start", "engine", "training", "solver"}


def test_links_lead_somewhere():
    links = re.findall(r"\]\((?!http)([^)#]+)[^)]*\)", README.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
