"""What test modules share with pytest: asserts that explain themselves, no screen, one thread, where Spotlight is."""

import os
import sys

import pytest
import torch
from five_ratings import FORMS

from sk_torchmf import BiasedMatrixFactorization, MatrixFactorization
from sk_torchmf.nn import kernels, use_kernels

os.environ["MPLBACKEND"] = "Agg"
collect_ignore = ["shared", "fuzz.py", "smoke.py", "soak.py"]  # what test modules import, and scripts: no tests, no examples
pytest.register_assert_rewrite("contract", "every_solver", "killed_fits", "pictures", "round_trip")

if os.environ.get("SK_TORCHMF_SPOTLIGHT"):
    sys.path.insert(1, os.environ["SK_TORCHMF_SPOTLIGHT"])  # behind the tests themselves


@pytest.fixture
def one_thread():
    """For tensors of a few numbers: a second thread costs more than it brings, ten times more on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=["torch", "compiled"])
def each_kernels(request):
    """A module that uses it runs once with each kind of kernels."""
    if request.param == "compiled" and kernels._library() is None:
        pytest.skip("there are no compiled kernels here")
    with use_kernels(request.param):
        yield


@pytest.fixture(params=[MatrixFactorization, BiasedMatrixFactorization])
def make(request):
    """Make an estimator of ratings that is quick to fit; keyword arguments are its parameters."""
    return lambda **options: request.param(**({"n_factors": 2, "max_iter": 3, "random_state": 0} | options))


@pytest.fixture(params=FORMS.values(), ids=FORMS.keys())
def form(request):
    """(X, y) of the five ratings in one of the three input forms."""
    return request.param
