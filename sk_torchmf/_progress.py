"""How far long work is, on stderr: a bar where tqdm is there, else a line for every tenth."""

import sys


def progress_bar(name, total, unit, shown=True):
    """Make a context manager with a method ``update(n)``, for n more units done.

    Parameters
    ----------
    name : str
    total : int
        0 where it is not known.
    unit : str
        What is counted; "B" for bytes.
    shown : bool
        If not, nothing is.
    """
    if not shown:
        return _Silence()
    try:
        from tqdm import tqdm
    except ImportError:
        return _PercentLines(name, total, "downloading" if unit == "B" else f"{total} {unit}s")
    return tqdm(desc=name, total=total or None, unit=unit if unit == "B" else f" {unit}s", unit_scale=unit == "B")


class _Silence:
    def __enter__(self):
        return self

    def __exit__(self, *exc):
        return None

    def update(self, n):
        pass


class _PercentLines(_Silence):
    """The part of tqdm that is used here, as a line for every tenth."""

    def __init__(self, name, total, start):
        self.name, self.total, self.start, self.done = name, total, start, 0

    def __enter__(self):
        print(f"{self.name}: {self.start}", file=sys.stderr)
        return self

    def update(self, n):
        before, self.done = self.done, self.done + n
        if self.total and 10 * self.done // self.total > 10 * before // self.total:
            print(f"{self.name}: {100 * self.done // self.total}%", file=sys.stderr)
