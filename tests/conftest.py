"""What test modules share with pytest: the contract's asserts explain themselves, pictures need no screen, threads are few."""

import os

import pytest
import torch

os.environ["MPLBACKEND"] = "Agg"
pytest.register_assert_rewrite("contract")


@pytest.fixture
def one_thread():
    """For tensors of a few numbers: a second thread costs more than it brings, ten times more on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
