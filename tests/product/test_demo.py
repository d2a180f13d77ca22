"""The demo writes one page that needs no other file, here about a few planted ratings in RecBole's form."""

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from sk_torchmf.datasets import make_ratings

DEMO = Path(__file__).parents[2] / "docs" / "examples" / "demo.py"
N_USERS, N_ITEMS = 60, 40

if not DEMO.exists():
    pytest.skip("the examples are not in the source archive", allow_module_level=True)
pytest.importorskip("matplotlib")
pytest.importorskip("pandas")


def write_ratings(folder):
    """Ratings beside a table of items whose genre is the sign of their first factor."""
    planted = make_ratings(n_users=N_USERS, n_items=N_ITEMS, n_ratings=1500, n_factors=2, noise_std=0.3, random_state=0)
    rows = [f"{u + 1}\t{i + 1}\t{r:.3f}" for (u, i), r in zip(planted.data, planted.target, strict=True)]
    (folder / "few.inter").write_text("user_id:token\titem_id:token\trating:float\n" + "\n".join(rows) + "\n")
    items = [
        f"{i + 1}\tTale <{i}>, The\t{1980 + i}\t{'Comedy' if x > 0 else 'Drama Crime'}"
        for i, x in enumerate(planted.item_factors[:, 0])
    ]
    header = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"
    (folder / "few.item").write_text("\n".join([header, *items]) + "\n")
    return folder / "few.inter", planted


@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
def test_the_demo_writes_a_page_that_stands_alone(tmp_path, monkeypatch, capsys, one_thread):
    ratings, planted = write_ratings(tmp_path)
    monkeypatch.setattr(sys, "argv", ["demo.py", "--ratings", str(ratings), "--user", "7", "--output", str(tmp_path / "out")])
    runpy.run_path(str(DEMO), run_name="__main__")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.html"]

    sources = re.findall(r"(?:src|href)=\"([^\"]{0,30})", page)
    assert all(source.startswith(("data:image/png;base64,", "#s")) for source in sources)
    assert sum(source.startswith("data:") for source in sources) == 6
    assert set(re.findall(r'href="#(s\d)"', page)) == set(re.findall(r'<h2 id="(s\d)">', page))

    assert f"{N_USERS} users have given {len(planted.target):,} ratings to {N_ITEMS} items" in page
    rated = planted.data[:, 0] == 6
    assert f"User 7 has given {rated.sum()} ratings, with a mean of {np.round(planted.target[rated], 3).mean():.2f}" in page
    assert "The Tale &lt;" in page
    assert "<3>" not in page
    assert "release year and genres" in page
    assert "report.html" in capsys.readouterr().out


def test_a_user_without_ratings_is_refused_with_one_that_has_some(tmp_path, monkeypatch, capsys):
    ratings, _ = write_ratings(tmp_path)
    monkeypatch.setattr(sys, "argv", ["demo.py", "--ratings", str(ratings), "--user", "nobody"])
    with pytest.raises(SystemExit):
        runpy.run_path(str(DEMO), run_name="__main__")
    assert re.search(r"--user nobody has no rating. There is, for example, user \d+\.", capsys.readouterr().err)
