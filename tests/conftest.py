"""What test modules share with pytest: asserts that explain themselves, no screen, one thread, where Spotlight is."""

import os
import sys

import pytest
import torch

os.environ["MPLBACKEND"] = "Agg"
collect_ignore = ["shared"]  # what test modules import: no tests, no examples
pytest.register_assert_rewrite("contract")

if os.environ.get("SK_TORCHMF_SPOTLIGHT"):
    sys.path.insert(1, os.environ["SK_TORCHMF_SPOTLIGHT"])  # behind the tests themselves


@pytest.fixture
def one_thread():
    """For tensors of a few numbers: a second thread costs more than it brings, ten times more on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
