"""Spotlight's containers to ours and back, and the words where its package is missing."""

import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_array_equal
from spotlight_like import Container

import sk_torchmf.spotlight
from sk_torchmf import Interactions
from sk_torchmf.spotlight import from_spotlight, to_spotlight

pytestmark = pytest.mark.usefixtures("one_thread")
THEIRS = """
class Interactions:
    def __init__(self, user_ids, item_ids, ratings=None, timestamps=None, weights=None, num_users=None, num_items=None):
        vars(self).update({name: value for name, value in locals().items() if name != "self"})
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Makes a package spotlight of the modules given, in the place of any that there is."""

    def write(**modules):
        (tmp_path / "spotlight").mkdir()
        for name, text in ({"__init__": ""} | modules).items():
            (tmp_path / "spotlight" / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)

    for name in [name for name in sys.modules if name.partition(".")[0] == "spotlight"]:
        monkeypatch.delitem(sys.modules, name)
    yield write
    for name in [name for name in sys.modules if name.partition(".")[0] == "spotlight"]:
        del sys.modules[name]


def complete():
    """Every array there can be, in dtypes that no conversion would come up with, and sizes beyond the largest ids."""
    arrays = [
        np.array(values, dtype) for values, dtype in (([3, 0, 1], "i2"), ([1, 1, 0], "u1"), ([1, 2.5, 4], "f2"), ([7, 5, 9], "i4"))
    ]
    return {
        **dict(zip(("user_ids", "item_ids", "ratings", "timestamps"), arrays, strict=True)),
        "weights": np.array([0.5, 0, 1], dtype=np.float32),
        "num_users": 11,
        "num_items": 12,
    }


@pytest.mark.parametrize("missing", [[], ["ratings", "weights"], ["timestamps"]], ids=str)
def test_containers_hold_the_same_arrays_both_ways(install, missing):
    install(interactions=THEIRS)
    given = {name: None if name in missing else value for name, value in complete().items()}
    ours = from_spotlight(Container(**given))
    theirs = to_spotlight(ours)
    assert isinstance(ours, Interactions)
    assert type(theirs).__module__ == "spotlight.interactions"
    for name, value in given.items():
        assert getattr(ours, name) is value or getattr(ours, name) == value
        assert getattr(theirs, name) is value or getattr(theirs, name) == value


def test_a_container_of_the_right_kind_is_returned_as_it_is(install):
    install(interactions=THEIRS)
    ours = Interactions([0], [1])
    theirs = to_spotlight(ours)
    assert from_spotlight(ours) is ours
    assert to_spotlight(theirs) is theirs


def test_ids_are_converted_where_that_is_asked_for(install):
    install(interactions=THEIRS)
    theirs = to_spotlight(Interactions([0, 3], [1, 2], [1.0, 2.0], num_users=5), id_dtype=np.int32)
    assert (theirs.user_ids.dtype, theirs.item_ids.dtype, theirs.num_users) == (np.int32, np.int32, 5)
    assert_array_equal(theirs.user_ids, [0, 3])
    again = to_spotlight(theirs, id_dtype=np.int64)
    assert (type(again), again.user_ids.dtype, again.ratings is theirs.ratings) == (type(theirs), np.int64, True)
    assert to_spotlight(theirs, id_dtype=np.int32) is theirs
    for dtype in (np.int8, float):
        with pytest.raises(ValueError, match="id_dtype must be an integer type that holds user_ids, which go up to 300"):
            to_spotlight(Interactions([300], [1]), id_dtype=dtype)


def test_what_is_no_container_is_not_converted(install):
    class Sequences:
        sequences, user_ids, num_items = np.ones((2, 3)), None, 4

    for convert in (from_spotlight, to_spotlight):
        with pytest.raises(TypeError, match="interactions must be Interactions, ours or Spotlight's"):
            convert(sp.csr_array((2, 2)))
        with pytest.raises(TypeError, match="sequence models are out of scope"):
            convert(Sequences())


def test_no_observations_are_refused_since_spotlight_needs_one(install):
    install(interactions=THEIRS)
    with pytest.raises(ValueError, match="interactions must have at least one observation"):
        to_spotlight(Interactions([], []))


def test_the_wrong_package_of_that_name_is_named_with_the_cure(install):
    install(validator="class Validator: pass")  # as the project on PyPI
    with pytest.raises(
        ImportError, match=r"spotlight.__init__\.py has no interactions.*not on PyPI.*github\.com/maciejkula/spotlight"
    ):
        to_spotlight(Interactions([0], [1]))


def test_a_missing_package_is_named_with_the_cure(install, monkeypatch):
    monkeypatch.setattr(sys, "path", [place for place in sys.path if not (Path(place) / "spotlight" / "__init__.py").exists()])
    with pytest.raises(
        ImportError, match=r"is not installed.*not on PyPI.*pip install git\+https://github\.com/maciejkula/spotlight"
    ):
        to_spotlight(Interactions([0], [1]))


def test_nobody_is_told_to_install_the_wrong_package(install, monkeypatch):
    monkeypatch.setattr(sys, "path", [place for place in sys.path if not (Path(place) / "spotlight" / "__init__.py").exists()])
    with pytest.raises(ImportError) as raised:
        to_spotlight(Interactions([0], [1]))
    assert "pip install spotlight" not in str(raised.value)


def test_our_subpackage_is_not_taken_for_theirs(install):
    install(interactions=THEIRS)
    assert to_spotlight(Interactions([0], [1])).__class__.__module__ == "spotlight.interactions"
    assert sk_torchmf.spotlight.__name__ == "sk_torchmf.spotlight"
