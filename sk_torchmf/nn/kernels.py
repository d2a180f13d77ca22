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

LIBRARY = Path(__file__).with_name("kernels.library")  # where build_kernels.py puts it
VERSION = 2  # of the functions' parameters, in kernels.c too
PARAMETERS = {  # how many sizes each takes after the number of rows, and how many arrays then
    "gradient": (2, 11),
    "squares": (2, 7),
    "dots": (2, 5),
    "half_step": (4, 13),
    "steps": (4, 13),
    "moments": (2, 7),
}
WORK_OF_A_ROW = 2**12  # multiplications in what is done with it, about
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
        integer, address = ctypes.c_int64, ctypes.c_void_p
        for name, (n_sizes, n_arrays) in PARAMETERS.items():
            function = getattr(library, name)
            function.argtypes = [address, integer, *(integer,) * n_sizes, *(address,) * n_arrays]
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

    Threads and processes that are started within the block, as by ``n_jobs=2``, do not know of it: they have what the environment
    variable ``SK_TORCHMF_KERNELS`` said.

    Parameters
    ----------
    name : {"compiled", "torch"}
        ``"compiled"`` needs them to be there.

    Yields
    ------
    None

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


def serve(pairs, P, Q, *, of_pairs=(), of_rows=(), of_columns=()):
    """Whether the compiled kernels serve some pairs with these arrays. All else is torch's, which finds what is wrong with it.

    Parameters
    ----------
    pairs : Pairs
    P, Q : Tensor
        Rows and columns, of shape (n_rows, k) and (n_columns, k) for the kernels.
    of_pairs, of_rows, of_columns : sequence of Tensor or None
        With a number for each pair, row and column.

    Returns
    -------
    bool
        That all are float32 on the CPU, of the right sizes, and autograd need not know what is done with them.
    """
    if P.ndim != 2 or not 0 < P.shape[1] <= WIDTHS[-1] or not pairs.columns.is_cpu or kernels_in_use() != "compiled":
        return False
    (n_rows, n_columns), k = pairs.shape, P.shape[1]
    return (
        _fit((P,), (n_rows, k))
        and _fit((Q,), (n_columns, k))
        and _fit(of_pairs, (pairs.n_pairs,))
        and _fit(of_rows, (n_rows,))
        and _fit(of_columns, (n_columns,))
    )


def _fit(arrays, size):
    for array in arrays:
        if array is not None and not (array.dtype is torch.float32 and array.is_cpu and array.shape == size):
            return False
        if array is not None and array.requires_grad and torch.is_grad_enabled():
            return False
    return True


def padded(rows):
    """Rows (n, k) as the kernels take them: contiguous, with zeros up to the next of ``WIDTHS``."""
    k = rows.shape[1]
    width = next(width for width in WIDTHS if width >= k)
    return rows.contiguous() if width == k else torch.nn.functional.pad(rows, (0, width - k))


def serve_rows(width, *arrays):
    """Whether the compiled kernels serve rows of so many numbers with these arrays or None: float32 on the CPU, no gradients."""
    if not 0 < width <= WIDTHS[-1] + 1 or kernels_in_use() != "compiled":
        return False
    graded = torch.is_grad_enabled()
    for array in arrays:
        if array is not None and not (array.dtype is torch.float32 and array.is_cpu and not (graded and array.requires_grad)):
            return False
    return True


def call(name, pairs, P, Q, given, results):
    """Call a kernel for all rows of some pairs, on as many threads as pay and torch may use.

    Parameters
    ----------
    name : str
        Of a function in ``kernels.c``.
    pairs : Pairs
    P, Q : Tensor of shape (n_rows, width) and (n_columns, width)
        ``padded``.
    given : sequence of Tensor or None
        What the kernel takes beside them, in its order. ``serve`` has said yes to all.
    results : sequence of Tensor
        Where it writes, float32 and contiguous, in its order.
    """
    given = [pairs.pointers, pairs.columns, P, Q, *(None if array is None else array.contiguous() for array in given)]
    _call(name, pairs.shape[0], (P.shape[1] // 8, pairs.n_pairs), [*given, *results], pairs.n_pairs * P.shape[1])


def call_on_rows(name, n_rows, sizes, given, results, work=0):
    """Call a kernel for rows, on as many threads as pay and torch may use.

    Parameters
    ----------
    name : str
        Of a function in ``kernels.c``.
    n_rows : int
    sizes : sequence of int
        What it takes after the number of rows.
    given : sequence of Tensor or None
        What it takes after these. ``serve_rows`` has said yes to all; how they lie in memory is the caller's business.
    results : sequence of Tensor or None
        Where it writes.
    work : int, default=0
        Multiplications, beside some products with matrices for each row.
    """
    _call(name, n_rows, sizes, [*given, *results], work + n_rows * WORK_OF_A_ROW)


def _call(name, n_rows, sizes, arrays, work):
    following = ctypes.c_int64(0)  # the first row that no thread has claimed
    addresses = ctypes.addressof(following), n_rows, *sizes, *(None if array is None else array.data_ptr() for array in arrays)
    task = _run, getattr(_library(), name), addresses, (following, arrays)
    others, n_threads = [], min(torch.get_num_threads(), math.ceil(work / WORK_OF_A_THREAD))
    with contextlib.suppress(RuntimeError):  # no further thread can be started: those that there are do all of the work
        for _ in range(n_threads - 1):
            others.append(_Pool.submit(*task))
    _run(*task[1:])
    for other in others:
        if not other.cancel():  # one that has not begun has nothing left to do
            other.result()


def _run(function, addresses, _):
    """Call a function; what lies at the addresses is kept until it returns, even where nobody waits for it after a Ctrl-C."""
    function(*addresses)


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
