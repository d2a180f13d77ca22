"""How many of torch's threads a piece of work gets: no more than pay. Knows no model."""

import contextlib
import threading

import torch

WORK_OF_A_THREAD = 2**21  # multiplications, below which a further thread costs more than it does
LITTLE = 4 * WORK_OF_A_THREAD  # of a pass, which threads begin anew in each of its steps


@contextlib.contextmanager
def threads_for(work):
    """Have torch compute on one thread within a ``with`` block, where the work is too little for more.

    torch remembers a number for each thread and one more, which every thread gets that is yet to use torch. Only that of this
    thread is changed: the other is put back at once, by a thread of its own.

    Parameters
    ----------
    work : float
        Multiplications in a pass over the data, about. Below ``LITTLE`` there is one thread, else as many as before.

    Examples
    --------
    >>> import torch
    >>> from sk_torchmf._threads import threads_for
    >>> with threads_for(work=1000):
    ...     torch.get_num_threads()
    1
    """
    before = torch.get_num_threads()
    if before == 1 or work >= LITTLE:
        yield
        return
    try:
        torch.set_num_threads(1)
        put_back = threading.Thread(target=torch.set_num_threads, args=(before,))
        put_back.start()
        put_back.join()
        yield
    finally:
        torch.set_num_threads(before)
