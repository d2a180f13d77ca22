"""How Sphinx builds the documentation: ``nox -s docs``."""

import os
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from docutils import nodes
from sphinx.pycode import ModuleAnalyzer
from sphinx_gallery.sorting import FunctionSortKey

import sk_torchmf
from sk_torchmf import datasets
from sk_torchmf.datasets import fetch_movielens
from sk_torchmf.datasets._files import read_ratings
from sk_torchmf.estimators import _docs

project = "sk_torchmf"
author = "the sk_torchmf developers"
copyright = f"2026, {author}"
version = release = sk_torchmf.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autosummary",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "sphinx-mathjax-offline",
]
exclude_patterns = ["_build", "_templates", "examples", "gallery/**/*.py", "sg_execution_times.rst"]
templates_path = ["_templates"]
suppress_warnings = ["config.cache"]  # the gallery's order and hook are functions

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

highlight_language = "none"  # of a block that names none: commands
smartquotes = False  # quotes in the types of parameters are Python's
toc_object_entries_show_parents = "hide"

autosummary_generate = True
autodoc_typehints = "none"  # docstrings have them
numpydoc_show_class_members = False  # the templates list them

html_theme = "pydata_sphinx_theme"
html_title = "sk_torchmf"
html_copy_source = False
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_sidebars = {"index": [], "start": []}
html_theme_options = {
    "header_links_before_dropdown": 7,
    "navigation_with_keys": False,
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "show_prev_next": True,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
    "back_to_top_button": False,
}

EXAMPLES = [
    "explicit_search.py",
    "implicit_search.py",
    "string_ids.py",
    "new_users.py",
    "cold_start.py",
    "time.py",
    "own_module.py",
    "time_bias.py",
    "spotlight_search.py",
    "pictures.py",
    "serving.py",
]


def ratings_at_hand(variant, *, as_frame=False, features=False):
    """MovieLens-100K where it can be had, else planted ratings of its size, said so on the page."""
    try:
        return fetch_movielens(variant, as_frame=as_frame, features=features)
    except OSError:
        print("Planted ratings: MovieLens-100K could not be downloaded where this page was built.")
        planted = datasets.make_ratings(n_users=943, n_items=1682, n_ratings=100_000, random_state=0)
        planted.timestamps = np.random.default_rng(0).integers(874_724_710, 893_286_638, len(planted.target))
        if as_frame:
            planted.data = pd.DataFrame(planted.data, columns=["user", "item"]).assign(timestamp=planted.timestamps)
            planted.target = pd.Series(planted.target, name="rating")
        if features:
            planted.item_features, planted.user_features = films_of(planted.item_factors), people(len(planted.user_factors))
        return planted


def films_of(factors):
    """A table of films whose genres say in which directions their planted factors (n_films, n_factors) point."""
    names = ["Comedy", "Drama", "Thriller"]
    genres = [tuple(name for name, x in zip(names, row, strict=False) if x > 0) for row in factors]
    years = np.random.default_rng(0).integers(1930, 1999, len(factors)).astype(float)
    titles = [f"Film {i} ({year:.0f})" for i, year in enumerate(years)]
    return pd.DataFrame({"title": titles, "year": years, "genres": genres}, index=pd.RangeIndex(len(factors), name="item"))


def people(n):
    """A table of n users that says nothing of what they like."""
    rng = np.random.default_rng(1)
    columns = {
        "gender": rng.choice(["F", "M"], n),
        "age": rng.integers(15, 70, n),
        "occupation": rng.choice(["other", "student"], n),
    }
    return pd.DataFrame(columns, index=pd.RangeIndex(n, name="user"))


def choose_ratings(gallery_conf, example, when):
    """Examples call ``datasets.fetch_movielens`` as anyone would."""
    datasets.fetch_movielens = ratings_at_hand if when == "before" else fetch_movielens


sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "gallery",
    "filename_pattern": "",  # all are run
    "ignore_pattern": r"demo\.py",
    "within_subsection_order": FunctionSortKey(lambda name: EXAMPLES.index(Path(name).name)),
    "reset_modules": ("matplotlib", choose_ratings),
    "reset_modules_order": "both",
    "abort_on_example_error": True,
    "min_reported_time": 1,
    "remove_config_comments": True,
    "download_all_examples": False,
}


def cache_movielens():
    """Make of the ratings in SK_TORCHMF_ML100K, and of RecBole's tables beside them, the cache that ``fetch_movielens`` reads."""
    path, folder = Path(os.environ["SK_TORCHMF_ML100K"]), Path(__file__).parent / "_build" / "data"
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "ml100k.npz", **read_ratings(lambda: path.open(encoding="utf-8"), path))
    films, users = path.with_suffix(".item"), path.with_suffix(".user")
    if films.exists() and users.exists():
        np.savez(folder / "ml100k_side.npz", **arrays_of_films(films), **arrays_of_users(users))
    os.environ["SK_TORCHMF_DATA"] = str(folder)


def arrays_of_films(path):
    """The arrays that ``fetch_movielens`` keeps of films, from RecBole's table; titles end with the year, as GroupLens's do."""
    names = ["raw", "title", "year", "genres"]
    films = pd.read_csv(path, sep="\t", header=0, names=names, dtype=str, keep_default_na=False)
    dated = films["year"].str.fullmatch(r"\d{4}")
    genres = films["genres"].str.get_dummies(" ")
    return {
        "item_raw": films["raw"].to_numpy(np.int32),
        "item_title": (films["title"] + (" (" + films["year"] + ")").where(dated, "")).to_numpy(str),
        "item_genres": genres.to_numpy(np.int8),
        "genre_names": genres.columns.to_numpy(str),
    }


def arrays_of_users(path):
    """Likewise of users."""
    names = ["user_raw", "user_age", "user_gender", "user_occupation", "user_zip"]
    users = pd.read_csv(path, sep="\t", header=0, names=names, dtype={"user_zip": str})
    dtypes = dict(zip(names, (np.int32, np.int32, str, str, str), strict=True))
    return {name: users[name].to_numpy(dtype) for name, dtype in dtypes.items()}


if os.environ.get("SK_TORCHMF_ML100K"):
    cache_movielens()


def skip_inherited(app, what, name, member, skip, options):
    """Leave scikit-learn's and torch's own members to their documentation."""
    home = getattr(member, "__module__", None) or getattr(getattr(member, "fget", None), "__module__", None)
    return True if home and not home.startswith("sk_torchmf") else None


def read_text_below(app, what, name, value, options, lines):
    """Of a value such as ``nn.bpr`` take the text below its assignment, wherever that is, and not its class's docstring."""
    own = name.rpartition(".")[2]
    homes = [home for home in sys.modules if home.startswith("sk_torchmf.") and what == "data"]
    for home in homes:
        if getattr(sys.modules[home], own, None) is value:
            lines[:] = ModuleAnalyzer.for_module(home).find_attr_docs().get(("", own), lines)


def head_parameter_groups(app, what, name, value, options, lines):
    """Put a heading above each group of an estimator's parameters, which its docstring has in the order of the groups."""
    if what != "class" or not value.__module__.startswith("sk_torchmf.estimators"):
        return
    app.env.note_dependency(_docs.__file__)  # its texts are in the page
    group_of = {parameter: group for group, parameters in _docs.PARAMETER_GROUPS.items() for parameter in parameters}
    start, stop = lines.index(":Parameters:") + 1, lines.index(":Attributes:")
    present, headed = None, []
    for line in lines[start:stop]:
        entry = re.match(r" {4}\*\*\W*(\w+)\*\*", line)  # numpydoc's: bold, the stars of **options escaped
        if entry and group_of[entry[1]] != present:
            present = group_of[entry[1]]
            headed += [f"    .. rubric:: {present}", ""]
        headed.append(line)
    lines[start:stop] = headed


def remove_mail_links(app, doctree):
    """``NDCG@10`` is no address."""
    for link in list(doctree.findall(nodes.reference)):
        if link.get("refuri", "").startswith("mailto:"):
            link.replace_self(link.children)


def setup(app):
    app.extensions["sphinx-mathjax-offline"].parallel_read_safe = True  # it copies files at the end, and does not say so
    app.connect("doctree-read", remove_mail_links)
    app.connect("autodoc-skip-member", skip_inherited)
    app.connect("autodoc-process-docstring", read_text_below)
    app.connect("autodoc-process-docstring", head_parameter_groups)
