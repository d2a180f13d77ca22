"""The reference: every public name has a docstring that numpydoc accepts and that says what the code does; its examples run."""

import ast
import contextlib
import doctest
import functools
import importlib
import inspect
import pkgutil
import re
from itertools import pairwise
from types import FunctionType

import numpy as np
import pytest
from data import as_form, planted
from numpydoc.docscrape import NumpyDocString, get_doc_object
from numpydoc.validate import validate
from sklearn.base import BaseEstimator

import sk_torchmf
from sk_torchmf import nn

NOT_ASKED = {
    "GL01",  # the summary on the line below the quotes, before numpydoc 1.11
    "ES01",  # an extended summary: one line may say it all
    "SA01",  # a See Also for its own sake
    "EX01",  # an example in each method; classes and functions need one, see below
}
MODULES = [sk_torchmf, *(value for value in map(vars(sk_torchmf).get, sk_torchmf.__all__) if inspect.ismodule(value))]
PUBLIC = {f"{module.__name__}.{name}": getattr(module, name) for module in MODULES for name in module.__all__ if name[0] != "_"}
CLASSES = {name: value for name, value in PUBLIC.items() if inspect.isclass(value)}
FUNCTIONS = {name: value for name, value in PUBLIC.items() if inspect.isfunction(value)}
VALUES = sorted(PUBLIC.keys() - CLASSES.keys() - FUNCTIONS.keys() - {module.__name__ for module in MODULES})


def members(kind):
    """Methods and properties of a class, its own and those of bases in this package; nothing of scikit-learn's or torch's."""
    for name in dir(kind):
        owner = next(base for base in kind.__mro__ if name in vars(base))
        value = vars(owner)[name]
        value = getattr(value, "__func__", getattr(value, "fn", value))  # of a classmethod, or what available_if wraps
        is_ours = owner.__module__.startswith(sk_torchmf.__name__) and name[0] != "_"
        is_parameter = name in getattr(kind, "__dataclass_fields__", ())
        if is_ours and not is_parameter and isinstance(value, FunctionType | property | functools.cached_property):
            yield name, value


def methods():
    """Those of all classes by name; what several inherit once."""
    found = {}
    for name, kind in CLASSES.items():
        found |= {f"{name}.{own}": value for own, value in members(kind) if value not in found.values()}
    return found


METHODS = methods()
DOCUMENTED = CLASSES | FUNCTIONS | METHODS
CALLED = [name for name, value in DOCUMENTED.items() if callable(value)]


def section(value, title):
    """What a section of a docstring documents, as (name, type, description): those of ``a, b : int`` apart."""
    entries = NumpyDocString(inspect.getdoc(value))[title]
    return [(own, entry.type, " ".join(entry.desc)) for entry in entries for own in entry.name.split(", ")]


def test_there_is_something_to_check():
    assert len(CLASSES) >= 20
    assert {"sk_torchmf.MatrixFactorization", "sk_torchmf.nn.Pairs", "sk_torchmf.display.FactorMapDisplay"} <= CLASSES.keys()
    assert {"sk_torchmf.metrics.ndcg", "sk_torchmf.datasets.make_ratings", "sk_torchmf.spotlight.mrr_score"} <= FUNCTIONS.keys()
    for name in ("nn.Pairs.T", "Interactions.from_matrix", "Interactions.shape", "BiasedMatrixFactorization.transform"):
        assert f"sk_torchmf.{name}" in METHODS
    assert not [name for name in METHODS if name.endswith(("set_fit_request", "set_output", "parameters", "get_metadata_routing"))]
    assert {"sk_torchmf.metrics.METRICS", "sk_torchmf.nn.bpr"} <= set(VALUES)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_docstring_is_one_that_numpydoc_accepts(name):
    value = DOCUMENTED[name]
    errors = validate(get_doc_object(value))["errors"]
    is_grouped = inspect.isclass(value) and value.__module__.startswith("sk_torchmf.estimators.")
    not_asked = NOT_ASKED | ({"PR03"} if is_grouped else set())  # parameters in groups, see estimators/test_docs.py
    assert [error for error in errors if error[0] not in not_asked] == []


@pytest.mark.parametrize("name", [*CLASSES, *FUNCTIONS])
def test_classes_and_functions_show_an_example(name):
    assert NumpyDocString(inspect.getdoc(PUBLIC[name]))["Examples"]


@pytest.mark.parametrize("name", CALLED)
def test_documented_defaults_are_those_of_the_signature(name):
    wrong, called = [], DOCUMENTED[name]
    for own, kind, _ in section(called, "Parameters"):
        parameter = inspect.signature(called).parameters[own.lstrip("*")]
        if not own.startswith("*") and not states(kind, parameter.default):
            wrong.append(f"{own} : {kind}, where the signature has {parameter}")
    assert wrong == []


def states(kind, default):
    """Whether the type of a documented parameter says what its default is, and that there is none where there is none."""
    stated = re.search(r", default=(.+)$", kind)
    if stated is None:
        return default is (None if kind.endswith(", optional") else inspect.Parameter.empty)
    try:
        return repr(ast.literal_eval(stated[1])) == repr(default)
    except (ValueError, SyntaxError):  # no literal: torch.float32, or a function by its name
        return stated[1] in (repr(default), getattr(default, "__name__", "").lstrip("_"))


def modules():
    """All modules of the package."""
    names = [module.name for module in pkgutil.walk_packages(sk_torchmf.__path__, f"{sk_torchmf.__name__}.")]
    return [sk_torchmf, *map(importlib.import_module, names)]


@functools.cache
def texts_with_examples():
    """The docstrings in which doctest finds the examples that it runs."""
    return {test.docstring for module in modules() for test in doctest.DocTestFinder().find(module)}


@pytest.mark.parametrize("name", [name for name, value in DOCUMENTED.items() if ">>>" in (value.__doc__ or "")])
def test_examples_are_among_those_that_run(name):
    assert DOCUMENTED[name].__doc__ in texts_with_examples(), "doctest does not find it there: move the example to the class"


@functools.cache
def texts_of_values():
    """Strings right below an assignment at the top of a module, which Sphinx takes for the documentation of what is assigned."""
    found = {}
    for module in modules():
        for node, below in pairwise(ast.parse(inspect.getsource(module)).body):
            if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(below, ast.Expr):
                target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
                found[ast.unparse(target)] = ast.literal_eval(below.value)
    return found


@pytest.mark.parametrize("name", VALUES)
def test_a_value_has_its_documentation_below_it(name):
    assert texts_of_values().get(name.rpartition(".")[2], "").endswith(".")


class Factorization(nn.PlainMF):
    """Sizes are all it needs."""

    def __init__(self, n_users, n_items):
        super().__init__(n_users, n_items, 4)

    def forward(self, user, item, user_features=None, item_features=None):
        return super().forward(user, item)


class ItemMeans:
    """What a Spotlight model must have."""

    def __init__(self, random_state=None):
        pass

    def fit(self, interactions):
        self.means = interactions.tocsr().mean(axis=0).A1

    def predict(self, user_ids, item_ids):
        return self.means[item_ids]


def fitted(kind):
    """Estimators of a class that between them have all that a fit may leave."""
    data = planted(3, mean=3.0)[0]
    X, y = as_form(data, "labels")
    table = pytest.importorskip("pandas").DataFrame(X, columns=["user", "item"])
    if not hasattr(kind, "predict"):
        yield from (kind().fit(table), kind().fit(X))
        return
    needed = {"TorchFactorization": {"module": Factorization}, "SpotlightEstimator": {"model": ItemMeans}}.get(kind.__name__, {})
    known = inspect.signature(kind).parameters
    data.timestamps = np.arange(len(data))
    others = [("early_stopping", True), ("time", True), ("solver", "adam"), ("biased", True), ("ranking", True)]
    others += [("loss", "bpr"), ("loss", "ordinal")]
    yield kind(**needed).fit(data)
    yield kind(**needed, user="user", item="item").fit(table, None if "biased" in known else y)
    if "user_encoder" in known:
        tables = {"user_features": data.user_ids.max() + 1, "item_features": data.item_ids.max() + 1}
        yield kind(**needed).fit(data, **{role: np.eye(n) for role, n in tables.items()})
    for name, value in others:
        with contextlib.suppress(ValueError):  # where ratings are predicted bpr is no loss, elsewhere ordinal is none
            if name in known:
                yield kind(**needed, **{name: value}).fit(data)


@pytest.mark.parametrize("name", [name for name, kind in CLASSES.items() if issubclass(kind, BaseEstimator)])
def test_documented_attributes_are_those_of_a_fitted_estimator(name):
    left = [{own for own in vars(one) if own.endswith("_") and own[0] != "_"} for one in fitted(CLASSES[name])]
    documented = section(CLASSES[name], "Attributes")
    assert [own for own, _, _ in documented if own not in set.union(*left)] == []
    assert set.union(*left) - {own for own, _, _ in documented} == set()
    sometimes = set.union(*left) - set.intersection(*left)
    conditional = {own for own, _, text in documented if re.search(r"(^|; not )(where|with) ", text.lower())}
    assert sometimes - conditional == set()
