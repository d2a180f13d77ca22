"""Shared texts in docstrings: what stands where a name was, and what is refused when a module is imported."""

import inspect
import re

import pytest
from numpydoc.docscrape import NumpyDocString

from sk_torchmf import estimators
from sk_torchmf.estimators._docs import PARAMETER_GROUPS, documented

ESTIMATORS = [kind for kind in map(vars(estimators).get, estimators.__all__) if hasattr(kind, "fit")]


class Fitting:
    """A class whose name is that of a base with shared texts."""


def described(documented_class, name, section="Parameters"):
    """The type and the description of an entry, as numpydoc reads it."""
    (entry,) = (entry for entry in NumpyDocString(inspect.getdoc(documented_class))[section] if entry.name == name)
    return entry.type, " ".join(entry.desc)


@documented(epoch="round")
class Estimator(Fitting):
    """An estimator.

    Parameters
    ----------
    own : str, default="a"
        Written here.
    @tol
        Five are enough.
    @verbose
    @device

    Attributes
    ----------
    @n_iter_
    """

    def __init__(self, own="a", tol=1e-5, verbose=0, device="cpu"):
        pass


def test_default_is_that_of_the_signature():
    assert described(Estimator, "tol")[0] == "float, default=1e-5"
    assert described(Estimator, "verbose")[0] == "int, default=0"
    assert described(Estimator, "device")[0] == 'str or torch.device, default="cpu"'


def test_a_text_has_the_words_of_the_class_and_goes_on_with_what_it_says_itself():
    text = described(Estimator, "tol")[1]
    assert " in each of five rounds in a row. " in text
    assert text.endswith(" Five are enough.")
    assert described(Estimator, "n_iter_", "Attributes") == ("int", "Number of rounds in ``history_``.")


def test_what_is_written_in_the_class_stays():
    assert described(Estimator, "own") == ('str, default="a"', "Written here.")
    assert Estimator.__doc__.startswith("An estimator.\n")


def test_a_text_of_a_derived_class_goes_on_where_that_of_its_base_ends():
    def history_of(name):
        kind = type(name, (Fitting,), {"__doc__": "A class.\n\n    Attributes\n    ----------\n    @history_\n    "})
        return described(documented(epoch="round")(kind), "history_", "Attributes")

    base, derived = history_of("Own"), history_of("ExplicitFactorization")
    assert derived[0] == base[0] == "dict of list"
    assert derived[1].startswith(base[1])
    assert len(derived[1]) > len(base[1])


def test_a_method_has_the_texts_of_its_name():
    class Model:
        @documented()
        def recommend(self, users=None, k=3, *, items=None):
            """Recommend.

            Parameters
            ----------
            @k
            @items

            Returns
            -------
            @items
            """

    assert described(Model.recommend, "k")[0] == "int, default=3"
    assert described(Model.recommend, "items")[0] == "array-like of shape (m,), optional"
    assert described(Model.recommend, "items", "Returns")[0] == "ndarray of shape (n, k)"


def test_a_list_keeps_its_lines():
    @documented()
    def predict(user_ids):
        """Predict.

        Parameters
        ----------
        @user_ids
        """

    description = re.split(r"^user_ids : .*\n", inspect.getdoc(predict), flags=re.MULTILINE)[1]
    assert [line[:6] for line in description.split("\n")] == ["    - "] * len(description.split("\n"))


def test_paragraphs_and_lists_stand_apart_and_what_goes_on_with_a_list_is_a_paragraph():
    @documented(one="a rating")
    def fit(X):
        """Fit.

        Parameters
        ----------
        @X
            It goes
            on here.

            And here.
        """

    _, description = inspect.getdoc(fit).split("of length n\n")
    first, listed, *own = description.split("\n\n")
    assert first == "    The observations, in one of these forms:"
    assert listed.startswith("    - a scipy sparse matrix")
    assert own == ["    It goes on here.", "    And here."]


def test_each_parameter_is_in_one_group():
    grouped = [name for names in PARAMETER_GROUPS.values() for name in names]
    known = {name for kind in ESTIMATORS for name in inspect.signature(kind).parameters}
    assert sorted(grouped) == sorted(known), "PARAMETER_GROUPS of estimators/_docs.py must have each parameter once"


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_parameters_are_documented_by_group_and_within_a_group_as_in_the_signature(kind):
    group_of = {name: group for group, names in enumerate(PARAMETER_GROUPS.values()) for name in names}
    names = [entry.name.lstrip("*") for entry in NumpyDocString(inspect.getdoc(kind))["Parameters"]]
    assert names == sorted(inspect.signature(kind).parameters, key=group_of.get)


def test_indentation_may_have_been_removed_already():  # as Python 3.13 does when it compiles
    def fit():
        pass

    fit.__doc__ = "Fit.\n\nReturns\n-------\n@self"
    assert documented()(fit).__doc__ == "Fit.\n\nReturns\n-------\nself\n    The fitted estimator.\n"


def test_nothing_without_a_docstring_is_changed():
    class Model(Fitting):
        def fit(self):
            pass

    assert documented()(Model) is Model
    assert Model.__doc__ is None
    assert documented(one="a rating")(Model.fit).__doc__ is None


def test_a_name_without_a_shared_text_is_refused():
    def fit(X):
        """Fit.

        Parameters
        ----------
        @Z
        """

    with pytest.raises(LookupError, match=r"@Z in the Parameters of .*fit names no shared text"):
        documented()(fit)


def test_words_are_those_that_the_texts_ask_for():
    def fit(X):
        """Fit.

        Parameters
        ----------
        @X
        """

    with pytest.raises(LookupError, match=r"@X in the Parameters of .*fit needs documented\(one=\.\.\.\)"):
        documented()(fit)
    with pytest.raises(LookupError, match=r"No shared text of .*fit asks for epoch"):
        documented(one="a rating", epoch="round")(fit)
