"""Exact fits: the same bits on one process, two and four, whoever has which rows."""

import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from parted import EXACT, EXACT_WITH_FEATURES
from several_processes import run

from sk_torchmf.storage.packing import pack

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each number of processes found, by case and rank."""
    return {size: run("parted", [(["exact", "exact_refused"], 60)], size, tmp_path_factory.mktemp("exact")) for size in (1, 2, 4)}


def numbers(state):
    """All numbers of a fit by their places, but for the seconds it took."""
    history = {name: own for name, own in state["history_"].items() if name != "seconds"}
    tree, arrays = pack(state | {"history_": history, "rating_scale_": float(state["rating_scale_"])})
    noise = tree["noise_std_"]
    return tree | {"noise_std_": noise["float64"] if isinstance(noise, dict) else noise}, arrays


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("case", [*EXACT, *EXACT_WITH_FEATURES, "ordinal"])
def test_numbers_have_the_same_bits(found, case, size):
    expected, arrays = numbers(found[1]["exact"][0][case])
    for own in found[size]["exact"]:
        ours, values = numbers(own[case])
        assert ours == expected
        for name, value in arrays.items():
            assert_array_equal(values[name], value, name)


def test_bits_differ_where_sums_are_not_exact(found):
    """Else the test above could not fail."""
    one, four = (found[size]["exact"][0]["not exact"]["item_factors_"] for size in (1, 4))
    assert not np.array_equal(one, four)


def test_exact_fit_is_the_other_to_rounding(found):
    exact, other = (found[1]["exact"][0][case] for case in ("biased squared_error float32", "not exact"))
    for name in ("user_factors_", "item_factors_", "user_biases_"):
        assert_allclose(exact[name], other[name], rtol=0, atol=1e-4 * np.abs(other[name]).max())
    for name in ("user_counts_", "item_counts_"):
        assert_allclose(exact[name], other[name], rtol=1e-12)
    assert_array_equal(exact["users_"], other["users_"])
    for name in ("seen_", "observed_"):  # a pair that is there twice is added up in either order
        assert_allclose(exact[name].toarray(), other[name].toarray(), rtol=0, atol=1e-5)


def test_rows_of_a_matrix_are_refused(found):
    for size in (1, 2, 4):
        for error, text in found[size]["exact_refused"]:
            assert error == "ValueError"
            assert 'distributed="exact" takes no sparse matrix' in text
