"""A script: the calls of every estimator in forks of a process whose threads have computed. Prints what did not end or differs."""

import os
import sys
import threading
import time
import warnings

import numpy as np
import torch
from data import planted
from every_call import answers, calls_of
from every_estimator import MODELS

from sk_torchmf.solvers.minibatch import private_random_state

LIMIT = 20  # seconds for all calls of a model, which take less than one
BEFORE = torch.get_num_threads()


def in_fork(what, function):
    """Run a function in a fork; say what it printed last where it failed or did not end."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        failed = 1
        try:
            function(lambda text: os.write(write, f"{text}\n".encode()))
            failed = 0
        except BaseException as error:
            os.write(write, f"{type(error).__name__}: {error}\n".encode())
        os._exit(failed)
    os.close(write)
    end, done = time.monotonic() + LIMIT, (0, 0)
    while done[0] == 0 and time.monotonic() < end:
        time.sleep(0.005)
        done = os.waitpid(child, os.WNOHANG)
    if done[0] == 0:
        os.kill(child, 9)
        os.waitpid(child, 0)
    with os.fdopen(read) as said:
        steps = said.read().split("\n")[:-1]
    if done != (child, 0):
        print(f"{what}: {'waits for ever' if done[0] == 0 else 'failed'} in {', '.join(steps[-2:])}", flush=True)


def ask(model, data, expected):
    def run(say):
        for name, call in calls_of(model).items():
            say(name)
            for ours, theirs in zip(answers(call(model, data)), expected[name], strict=True):
                if theirs.dtype.kind == "f":
                    np.testing.assert_allclose(
                        ours, theirs, rtol=1e-4, atol=1e-4
                    )  # sums are split between other numbers of threads
                else:
                    assert np.mean(ours == theirs) > 0.99  # likewise, what is as good as tied
            assert torch.get_num_threads() == BEFORE, torch.get_num_threads()

    return run


def fit_while_another_held_the_turn(say):
    with private_random_state(0, torch.device("cpu")):
        say("its turn")


def main():
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", ".*multi-threaded, use of fork", DeprecationWarning)  # Python's, since 3.12
    assert BEFORE > 1
    torch.ones(2**22).exp().sum()  # starts torch's threads
    data = planted(3, mean=3.0, n_users=300, n_items=200, n_ratings=6000)[0]
    for kind, make in MODELS.items():
        rated = make.rated(data)
        model = make(max_iter=1).fit(rated)
        expected = {name: answers(call(model, rated)) for name, call in calls_of(model).items()}
        in_fork(kind, ask(model, rated, expected))

    begun, over = threading.Event(), threading.Event()

    def hold():
        with private_random_state(0, torch.device("cpu")):
            begun.set()
            over.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    begun.wait()
    in_fork("another thread", fit_while_another_held_the_turn)
    over.set()
    holder.join()
    print("asked", len(MODELS))


if __name__ == "__main__":
    sys.exit(main())
