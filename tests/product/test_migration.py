"""Our calls on the pages for those who come from elsewhere run as they stand; theirs where the peer is installed."""

import ast
import re
from itertools import chain

import numpy as np
import pandas as pd
import peers
import pytest
import scipy.sparse as sp
import sklearn.metrics
import sklearn.model_selection
import sklearn.utils
import torch
import tutorial
from data import planted
from migration import FOLDER, PAGES
from sklearn.compose import ColumnTransformer
from sklearn.preprocessing import KBinsDiscretizer

import sk_torchmf
from sk_torchmf import BiasedMatrixFactorization, ImplicitMatrixFactorization, Interactions, TorchFactorization

pytestmark = pytest.mark.usefixtures("one_thread")
DATA = planted(3, mean=3.0, n_users=30, n_items=20, n_ratings=300)[0]
CALLS = [pytest.param(page, ours, id=f"{page}-{ours}") for page in PAGES for _, ours in page.calls]


def public(*modules):
    return {name: value for module in modules for name, value in vars(module).items() if not name.startswith("_")}


@pytest.fixture
def names(tmp_path):
    """What the pages say their right columns have."""

    def of(page):
        tools = sklearn.model_selection, sklearn.metrics, sklearn.utils
        own = sk_torchmf, sk_torchmf.model_selection, sk_torchmf.metrics, sk_torchmf.spotlight
        every = public(*tools, *own) | {"np": np, "sp": sp, "torch": torch, "MyModule": tutorial.Biased, "path": tmp_path / "model"}
        return every | globals()[f"of_{page}"](every["path"])

    return of


def of_spotlight(path):
    model = BiasedMatrixFactorization(random_state=0).fit(DATA[:200])
    ids = {"user_ids": DATA.user_ids, "item_ids": DATA.item_ids, "ratings": DATA.ratings}
    return {"data": DATA, "train": DATA[:200], "test": DATA[200:], "model": model, **ids}


def of_surprise(path):
    df = peers.frame()
    X, y = df[["user", "item"]], df["rating"]
    model = BiasedMatrixFactorization(random_state=0).fit(X[:200], y[:200])
    model.save(path)
    file = peers.ratings_file(path.with_suffix(".csv"))
    return {"df": df, "X": X, "y": y, "X_test": X[200:], "y_test": y[200:], "model": model, "file": file}


def of_implicit(path):
    plays, likes = peers.clicks()
    data = Interactions.from_matrix(plays)
    model = ImplicitMatrixFactorization(4, random_state=0).fit(likes)
    model.save(path)
    parts = {"train": data[:150].tocsr(), "test": data[150:].tocsr()}
    every = {"plays": plays, "likes": likes, "row": likes[3], "data": data, "model": model}
    return every | parts | {"user": data.user_ids, "item": data.item_ids, "count": data.ratings}


def of_lightfm(path):
    df = peers.frame()
    user, item = (np.unique(df[name], return_inverse=True)[1] for name in ("user", "item"))
    data = Interactions(user, item, df["rating"], num_items=20)
    signs = Interactions(user, item, np.where(data.ratings > 3, 1, -1), num_items=20).tocsr()
    train, test = data[:200].tocsr(), data[200:].tocsr()
    model = ImplicitMatrixFactorization(4, random_state=0).fit(train)
    model.save(path)
    names = {"Hybrid": hybrid(), "tags": peers.tags()}
    names["hybrid"] = TorchFactorization(names["Hybrid"], "bpr", module__tags=peers.tags().toarray()).fit(data)
    names["tagged"] = ImplicitMatrixFactorization(4, random_state=0).fit(train, item_features=peers.tags())
    return names | {"df": df, "X": df[["user", "item"]], "data": data, "signs": signs, "train": train, "test": test, "model": model}


def of_cmfrec(path):
    tables, data = peers.named_tables(), Interactions.from_matrix(peers.clicks()[0])
    model = BiasedMatrixFactorization(4, user="UserId", item="ItemId", random_state=0)
    model.fit(tables["df"], tables["df"]["Rating"], user_features=tables["U"], item_features=tables["I"]).save(path)
    new = pd.DataFrame({"hot": [1.0, 0.0], "sweet": [0.5, -0.5]}, index=["cocoa", "juice"])
    nobody = sp.csr_array((1, model.n_items_))
    row = sp.csr_array(([5.0], ([0], [model.items_.searchsorted("tea")])), shape=nobody.shape)
    tables |= {"new": new, "attributes": pd.DataFrame({"age": [0.3], "member": [1.0]})}
    matrices = {"ratings": data.tocsr(), "data": data, "weights": np.ones(len(data)), "tags": peers.tags()}
    return tables | matrices | {"nobody": nobody, "row": row, "model": model}


def of_myfm(path):
    df, items = peers.frame(), peers.tagged_items()
    items["tags"] = items["tags"].str.split(",")
    X, y = df[["user", "item"]], df["rating"].to_numpy()
    model = BiasedMatrixFactorization(4, user="user", item="item", random_state=0).fit(X, y)
    model.save(path)
    ordinal = BiasedMatrixFactorization(4, loss="ordinal", random_state=0).fit(X, y)
    every = {"df": df, "items": items, "X": X, "y": y, "X_test": X[:9], "y_test": y[:9], "model": model, "ordinal": ordinal}
    return every | {"ColumnTransformer": ColumnTransformer, "KBinsDiscretizer": KBinsDiscretizer}


def of_torch_loop(path):
    theirs = peers.of_torch_loop(None, path)
    shared = {name: theirs[name] for name in ("user", "item", "rating", "loader", "n_users", "n_items", "P", "Q", "df")}
    model = TorchFactorization(tutorial.Biased, "MSELoss", "Adagrad", max_iter=2, random_state=0).fit(DATA)
    model.save(path)
    pairs = sk_torchmf.nn.Pairs(DATA.user_ids, DATA.item_ids, 30, 20)
    parts = {"data": DATA, "train": DATA[:200], "valid": DATA[200:], "test": DATA[200:]}
    return shared | parts | {"pairs": pairs, "Penalised": tutorial.Penalised, "model": model}


def hybrid():
    """The class that a block of the page defines."""
    block = next(block for page in PAGES for block in page.our_blocks if "class Hybrid" in block)
    scope = {"__name__": __name__}
    exec(block.partition("\nmodel =")[0], scope)
    return scope["Hybrid"]


@pytest.mark.parametrize(("page", "ours"), CALLS)
def test_our_call_on_the_page_runs(page, ours, names):
    exec(ours, names(page))


@pytest.mark.parametrize("page", PAGES[1:], ids=str)
def test_our_blocks_on_the_page_run_one_after_another(page, names, capsys):
    scope = names(page) | {"__name__": __name__}
    for number, block in enumerate(page.our_blocks):
        exec(compile(block, f"{page}.md, block {number}", "exec"), scope)
    assert page.our_blocks


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_their_calls_on_the_page_are_python(page):
    for code in chain((theirs for theirs, _ in page.calls), page.their_blocks):
        ast.parse(code)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:cmfrec")  # it calls pandas in ways that pandas gives up
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # Surprise leaves files open, and so do people who pickle in one line
@pytest.mark.parametrize("page", PAGES[1:], ids=str)
def test_their_calls_on_the_page_run(page, tmp_path, capsys):
    for code in chain((theirs for theirs, _ in page.calls), page.their_blocks):
        exec(code, peers.names(page, tmp_path / "model"))


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_row_of_the_page_has_both_calls(page):
    assert len(page.calls) == page.n_rows > 20


def test_the_index_lists_every_page_there_is():
    listed = re.search(r"```\{toctree\}\n(.*?)```", (FOLDER / "index.md").read_text(encoding="utf-8"), re.DOTALL)[1].split()
    there = {path.stem for path in FOLDER.glob("*.md")} - {"index"}
    assert {name for name in listed if not name.startswith(":")} == there == {str(page) for page in PAGES}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.md")), ids=lambda path: path.stem)
def test_links_of_the_page_lead_somewhere(path):
    links = re.findall(r"\]\((?!http)([^)#]+)[^)]*\)", path.read_text(encoding="utf-8"))
    sources = {link: re.sub(r"gallery/(\w+)\.rst", r"examples/\1.py", link) for link in links}  # a build makes the gallery of these
    assert [link for link, source in sources.items() if not (path.parent / source).exists()] == []
