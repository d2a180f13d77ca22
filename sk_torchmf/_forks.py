"""What may be done with torch in a forked process, whose first thread waits forever for threads that were not copied with it."""

import functools
import os
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class _Forked:
    """Which thread of this process has come out of a fork, by its ``threading.get_ident``; None in one that was not forked."""

    thread: int | None = None


def _remember():
    _Forked.thread = threading.get_ident()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_remember)


def is_forked():
    """Whether this process is a fork of one that had imported the package."""
    return _Forked.thread is not None


def one_thread_if_forked(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Have torch compute on one thread while a function runs, where it would wait forever for more.

    torch's threads are OpenMP's. A thread that has started some keeps them for the next time, and a fork copies that thread
    without them: at its next computation on several threads the copy waits for them, and they are not there. It can compute by
    itself, and threads that are started after the fork start threads of their own.

    Parameters
    ----------
    function : callable
        Whatever calls torch.

    Returns
    -------
    callable
        The function, which in the copied thread runs with ``torch.set_num_threads(1)``. Afterwards the number is what it was. In
        all other threads, and in a process that was not forked, it is called as it is.

    Examples
    --------
    >>> import torch
    >>> from sk_torchmf._forks import one_thread_if_forked
    >>> n_threads = one_thread_if_forked(torch.get_num_threads)
    >>> n_threads() == torch.get_num_threads()  # 1 in a forked process
    True
    """

    @functools.wraps(function)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        if _Forked.thread != threading.get_ident() or (n := torch.get_num_threads()) == 1:
            return function(*args, **kwargs)
        torch.set_num_threads(1)
        try:
            return function(*args, **kwargs)
        finally:
            torch.set_num_threads(n)

    return call
