"""What test modules share with pytest: asserts that explain themselves, no screen, one thread where asked, Spotlight where it is."""

import os
import sys

import pytest
import torch

os.environ["MPLBACKEND"] = "Agg"
pytest.register_assert_rewrite("contract")

SPOTLIGHT = os.environ.get("SK_TORCHMF_SPOTLIGHT")
if SPOTLIGHT:
    sys.path.insert(1, SPOTLIGHT)  # behind the tests themselves


def pytest_collection_modifyitems(items):
    skip = pytest.mark.skip(reason="SK_TORCHMF_SPOTLIGHT, the path of a checkout of Spotlight, is not set")
    for item in items:
        if not SPOTLIGHT and item.get_closest_marker("spotlight"):
            item.add_marker(skip)


@pytest.fixture
def one_thread():
    """For tensors of a few numbers: a second thread costs more than it brings, ten times more on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
