"""A forked worker, as of gunicorn --preload or multiprocessing, answers as its parent does, which had used torch's threads."""

import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from every_call import CALLS, NO_ANSWER, public_methods
from every_estimator import ESTIMATORS, MODELS
from torch_models import TRAIN, small

from sk_torchmf import _forks
from sk_torchmf._forks import is_forked, one_thread_if_forked

SCRIPT = Path(__file__).parents[1] / "shared" / "forked.py"
needs_fork = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="the system has no fork")


@needs_fork
def test_every_call_ends_in_a_fork_and_answers_as_the_parent_does():
    """Each call of the list hung: torch's threads are not copied, and libgomp waits for them."""
    package = Path(_forks.__file__).parents[1]
    env = os.environ | {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2", "PYTHONPATH": f"{package}{os.pathsep}{SCRIPT.parent}"}
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, env=env, timeout=300, check=False)
    assert (done.stdout, done.returncode) == (f"asked {len(MODELS)}\n", 0), done.stdout + done.stderr


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_public_method_is_asked_in_a_fork(name):
    assert public_methods(ESTIMATORS[name].kind) <= {call.split()[0] for call in CALLS} | NO_ANSWER


@pytest.fixture
def forked(monkeypatch):
    """As if this thread had come out of a fork, and torch had two threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.setattr(_forks._Forked, "thread", threading.get_ident())
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("forked")
def test_only_the_thread_that_was_copied_computes_alone_and_only_within_the_call():
    n_threads = one_thread_if_forked(torch.get_num_threads)
    assert (n_threads(), torch.get_num_threads()) == (1, 2)
    found = []
    thread = threading.Thread(target=lambda: found.extend([torch.set_num_threads(2), n_threads()]))
    thread.start()
    thread.join()
    assert found == [None, 2]


@pytest.mark.usefixtures("forked")
def test_the_number_of_threads_is_put_back_after_an_error():
    @one_thread_if_forked
    def fail():
        raise KeyError(torch.get_num_threads())

    with pytest.raises(KeyError, match="1"):
        fail()
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("forked")
def test_a_fork_refuses_to_start_processes_which_would_wait_for_ever():
    assert is_forked()
    with pytest.raises(ValueError, match=r"n_processes=2 starts processes, .*Use n_processes=1 here"):
        small(n_processes=2).fit(TRAIN)
    assert np.isfinite(small().fit(TRAIN).predict(TRAIN)).all()


def test_a_process_that_was_not_forked_computes_on_all_its_threads():
    assert not is_forked()
    assert one_thread_if_forked(torch.get_num_threads)() == torch.get_num_threads()
