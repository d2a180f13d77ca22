"""A system's process that waits for jobs, so that systems can take turns with their data and models in memory. Knows no system.

Jobs and answers are JSON, one a line, on stdin and stdout. Needs NumPy and nothing of the project.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np


class Worker:
    """The driver's end.

    Parameters
    ----------
    python, adapter : Path
        Which Python runs which file.
    env : dict
        Added to the environment.
    log : Path
        What it says on stderr, which is read when it fails.
    """

    def __init__(self, python, adapter, env, log):
        self.log = log
        with open(log, "w") as errors:
            self.process = subprocess.Popen(
                [python, adapter], env=os.environ | env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )

    def ask(self, do, **arguments):
        """Have a job done; returns its answer. RuntimeError where it failed."""
        try:
            self.process.stdin.write(json.dumps({"do": do} | arguments) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        answer = json.loads(line) if line else {"error": self.last_words()}
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def last_words(self):
        """What it said last, and how it ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=10)
        return "; ".join([*self.log.read_text().splitlines()[-2:], f"ended with {self.process.returncode}"])

    def close(self):
        """End the process."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(timeout=60)


def serve(**jobs):
    """Do jobs until stdin ends.

    Parameters
    ----------
    **jobs : callable(**arguments) -> dict
        By the name that a job's ``do`` has.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    for line in sys.stdin:
        job = json.loads(line)
        try:
            answer = jobs[job.pop("do")](**job)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


class Curve:
    """Factors after some numbers of passes, and the seconds until then, the taking of these not counted.

    Parameters
    ----------
    folder : str
        Where the factors go, a file for each number.
    steps : list of int
        The numbers wanted.
    """

    def __init__(self, folder, steps):
        self.folder, self.steps, self.points = Path(folder), set(steps), []
        self.start()

    def start(self):
        """Start the clock."""
        self.began, self.paused, self.worked = time.perf_counter(), 0.0, time.process_time()

    def take(self, step, factors):
        """Keep what is there after ``step`` passes, if it is wanted; ``factors()`` gives the users' and the items', arrays."""
        now, worked = time.perf_counter(), time.process_time()
        if step in self.steps:
            users, items = factors()
            spent = {"seconds": now - self.began - self.paused, "cpu_seconds": worked - self.worked}
            self.points.append({"step": step, "file": str(self.folder / f"{step}.npz")} | spent)
            np.savez(self.points[-1]["file"], users=users, items=items)
        self.paused += time.perf_counter() - now
        self.worked += time.process_time() - worked
