"""Little work has one thread, and after it every number of threads is what it was."""

import threading

import pytest
import torch

from sk_torchmf._threads import LITTLE, WORK_OF_A_THREAD, threads_for


@pytest.fixture(autouse=True)
def _two_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("work", "n_threads"), [(0, 1), (LITTLE - 1, 1), (LITTLE, 2), (float("inf"), 2)])
def test_threads_go_by_the_size_of_the_work(work, n_threads):
    with threads_for(work):
        assert torch.get_num_threads() == n_threads
    assert torch.get_num_threads() == 2


def test_a_pass_with_several_threads_has_work_for_the_kernels_threads():
    assert LITTLE >= 2 * WORK_OF_A_THREAD


def test_the_number_of_threads_is_put_back_after_an_error():
    with pytest.raises(KeyError), threads_for(1):
        raise KeyError
    assert torch.get_num_threads() == 2


def test_a_thread_that_first_uses_torch_meanwhile_has_as_many_threads_as_ever():
    """torch gives a new thread the number that was set last, by whichever thread, and that thread keeps it."""
    found = []

    def ask():
        found.append(torch.get_num_threads())

    with threads_for(1):
        new = threading.Thread(target=ask)
        new.start()
        new.join()
        ask()
    assert found == [2, 1]


def test_one_thread_stays_one():
    torch.set_num_threads(1)
    with threads_for(LITTLE):
        assert torch.get_num_threads() == 1
    with threads_for(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 1
