"""The compiled kernels, where they were built: how they are found, called and switched off. Knows pointers, no mathematics."""

import contextlib
import ctypes
import math
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import torch

from sk_torchmf._threads import WORK_OF_A_THREAD

LIBRARY = Path(__file__).with_name("libkernels.so")  # where build_kernels.py puts it
VERSION = 1  # of the functions' parameters, in kernels.c too
N_ARRAYS = {"gradient": 7, "squares": 3, "dots": 1}  # of each function, beside those of pairs and rows
WIDTHS = 8, 16, 24, 32, 48, 64, 96, 128  # of the rows that they take


class _State(threading.local):
    compiled = os.environ.get("SK_TORCHMF_KERNELS", "compiled") != "torch"


_state = _State()


@cache
def _library():
    """The compiled library, None where there is none that fits."""
    try:
        library = ctypes.CDLL(str(LIBRARY))
        if library.kernels_version() != VERSION:
            return None
        for name, n_arrays in N_ARRAYS.items():
            function, integer, address = getattr(library, name), ctypes.c_int64, ctypes.c_void_p
            function.argtypes = [ctypes.c_int, address, integer, integer, *(address,) * (4 + n_arrays)]
            function.restype = None
        return library
    except (OSError, AttributeError):
        return None


def kernels_in_use():
    """Say which kernels run on observed pairs on the CPU.

    Returns
    -------
    {"compiled", "torch"}
        ``"compiled"`` where a C compiler was there when the package was installed; they serve float32 and up to 128 factors.
        ``"torch"`` for torch's own, which serve everything else, and everything where the environment variable
        ``SK_TORCHMF_KERNELS`` was ``torch``. Results are the same but for rounding.

    Examples
    --------
    >>> from sk_torchmf.nn import kernels_in_use
    >>> kernels_in_use() in ("compiled", "torch")
    True
    """
    return "compiled" if _state.compiled and _library() is not None else "torch"


@contextlib.contextmanager
def use_kernels(name):
    """Choose the kernels within a ``with`` block, in this thread.

    Parameters
    ----------
    name : {"compiled", "torch"}
        ``"compiled"`` needs them to be there.

    Raises
    ------
    ValueError
        For another name.
    RuntimeError
        Where there are no compiled kernels.

    Examples
    --------
    >>> from sk_torchmf.nn import kernels_in_use, use_kernels
    >>> with use_kernels("torch"):
    ...     kernels_in_use()
    'torch'
    """
    if name not in ("compiled", "torch"):
        raise ValueError(f'name must be "compiled" or "torch". Got {name!r}.')
    if name == "compiled" and _library() is None:
        raise RuntimeError("There are no compiled kernels here. Install the package where there is a C compiler.")
    before, _state.compiled = _state.compiled, name == "compiled"
    try:
        yield
    finally:
        _state.compiled = before


def serve(rows):
    """Whether the compiled kernels serve products with rows (n, k) like these."""
    return rows.dtype == torch.float32 and not rows.is_cuda and 0 < rows.shape[1] <= WIDTHS[-1] and kernels_in_use() == "compiled"


def padded(rows):
    """Rows (n, k) as the kernels take them: contiguous, with zeros up to the next of ``WIDTHS``."""
    k = rows.shape[1]
    width = next(width for width in WIDTHS if width >= k)
    return rows.contiguous() if width == k else torch.nn.functional.pad(rows, (0, width - k))


def call(name, pairs, P, Q, *arrays):
    """Call a kernel for all rows of some pairs, on as many threads as pay and torch may use.

    Parameters
    ----------
    name : str
        Of a function in ``kernels.c``.
    pairs : Pairs
    P, Q : Tensor of shape (n_rows, width) and (n_columns, width), float32
        ``padded``.
    *arrays : Tensor or None
        Float32 and contiguous; those of the kernel in its order.
    """
    function, following = getattr(_library(), name), ctypes.c_int64(0)  # the first row that no thread has claimed
    sizes = P.shape[1] // 8, ctypes.addressof(following), pairs.shape[0], pairs.n_pairs
    given = *sizes, *(array if array is None else array.data_ptr() for array in (pairs.pointers, pairs.columns, P, Q, *arrays))
    n_threads = min(torch.get_num_threads(), math.ceil(pairs.n_pairs * P.shape[1] / WORK_OF_A_THREAD))
    others = [_Pool.submit(function, *given) for _ in range(n_threads - 1)]
    function(*given)
    for other in others:
        other.result()


class _Pool:
    """Threads for all calls of the process; a forked process has none of its parent's and makes its own."""

    pool = None
    lock = threading.Lock()

    @classmethod
    def submit(cls, *task):
        with cls.lock:
            if cls.pool is None:
                cls.pool = ThreadPoolExecutor(max(os.cpu_count() or 1, 2) - 1, thread_name_prefix="sk_torchmf")
        return cls.pool.submit(*task)

    @classmethod
    def forget(cls):
        """Leave the parent's threads to the parent."""
        cls.pool, cls.lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_Pool.forget)
