"""A script, and what starts it: functions of a module run in several processes with a group of gloo; what each returned.

One process imports torch and forks the others: an import takes longer than most cases, and so does what torch's optimizers
import at their first step.
"""

import importlib
import os
import pickle
import signal
import subprocess
import sys
import time
import warnings
from datetime import timedelta
from pathlib import Path

LIMIT = 300  # seconds that the processes of a group of cases have on the busiest machine


def run(module, groups, size, folder):
    """Run cases in several processes.

    Parameters
    ----------
    module : str
        One of ``tests/shared``, whose functions are the cases: each takes no argument and returns what can be pickled.
    groups : list of (list of str, float)
        Names of cases, and the timeout of the process group in seconds. Those of one list run one after another in the same
        processes.
    size : int
        Number of processes.
    folder : Path
        Where results are put.

    Returns
    -------
    dict of str to list
        Under a case's name what it returned or raised, by rank; None of a process that has ended before.
    """
    texts = [f"{timeout}:{','.join(names)}" for names, timeout in groups]
    folder.mkdir(exist_ok=True)
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, module, str(size), str(folder), *texts]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=LIMIT * (1 + len(groups)))
    assert done.returncode == 0, done.stderr
    return {name: [_loaded(folder / f"{name}.{rank}") for rank in range(size)] for names, _ in groups for name in names}


def _loaded(path):
    return pickle.loads(path.read_bytes()) if path.exists() else None


def _in_fork(module, names, rank, size, folder, timeout):
    """In one of the processes: run the cases of a group."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    store = f"file://{folder / names[0]}.group"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=size, timeout=timedelta(seconds=timeout))
    for name in names:
        try:
            result = getattr(module, name)()
        except BaseException as error:
            result = error
        part = folder / f"{name}.{rank}.part"
        part.write_bytes(pickle.dumps(result))
        part.rename(folder / f"{name}.{rank}")


def main(module, size, folder, *groups):
    importlib.import_module("torch._dynamo")  # a second, which each process with an optimizer would take for itself
    module, size, folder = importlib.import_module(module), int(size), Path(folder)
    if hasattr(os, "sched_setaffinity"):  # all on one core: waking each other across cores costs more than most cases
        cores, worker = sorted(os.sched_getaffinity(0)), int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
        os.sched_setaffinity(0, {cores[worker % len(cores)]})
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", ".*multi-threaded, use of fork", DeprecationWarning)  # Python's, since 3.12
    for group in groups:
        timeout, _, names = group.partition(":")
        children = []
        for rank in range(size):
            child = os.fork()
            if child == 0:
                try:
                    _in_fork(module, names.split(","), rank, size, folder, float(timeout))
                    os._exit(0)
                except BaseException as error:
                    os.write(2, f"rank {rank} of {names}: {error!r}\n".encode())
                    os._exit(1)
            children.append(child)
        end = time.monotonic() + LIMIT
        while children and time.monotonic() < end:
            time.sleep(0.01)
            children = [child for child in children if os.waitpid(child, os.WNOHANG)[0] == 0]
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
