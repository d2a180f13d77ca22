"""Many random cases in several processes, and a list of all kinds of findings: ``nox -s fuzz -- 10000``."""

import argparse
import collections
import concurrent.futures
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "shared"))
CHUNK = 250


def explore(seed, n, folder):
    """Run n cases; for each estimator how they ended, findings, refusals."""
    import faulthandler

    import fuzz_oracle
    import torch
    from fuzz_cases import cases
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded

    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, resource.RLIM_INFINITY))
    journal, results = Path(folder) / f"{seed}.py", []

    @seeded(seed)
    @settings(max_examples=n, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(cases())
    def take(case):
        journal.write_text(case.script())
        faulthandler.dump_traceback_later(3 * fuzz_oracle.LIMIT, exit=True)
        try:
            outcome = fuzz_oracle.run(case)
        except Exception as error:
            what = fuzz_oracle.Finding(f"the oracle itself: {type(error).__name__}: {error}", "", case.script())
            outcome = fuzz_oracle.Outcome("finding", what)
        faulthandler.cancel_dump_traceback_later()
        results.append((case.estimator, outcome))

    with open(os.devnull, "w") as nowhere:
        screen, sys.stdout = sys.stdout, nowhere
        try:
            take()
        finally:
            sys.stdout = screen
    journal.unlink()
    return results


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("n", type=int, nargs="?", default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args(argv)
    started, folder = time.perf_counter(), tempfile.mkdtemp()
    sizes = [min(CHUNK, options.n - at) for at in range(0, options.n, CHUNK)]
    results, crashed = [], []
    pool = concurrent.futures.ProcessPoolExecutor(options.processes, multiprocessing.get_context("spawn"), max_tasks_per_child=4)
    with pool:
        runs = [pool.submit(explore, options.seed * 10**6 + at, size, folder) for at, size in enumerate(sizes)]
        for run in concurrent.futures.as_completed(runs):
            try:
                results += run.result()
            except concurrent.futures.process.BrokenProcessPool:
                break
    crashed = [path.read_text() for path in Path(folder).glob("*.py")]
    findings = collections.defaultdict(list)
    for _, outcome in results:
        if outcome.finding is not None:
            findings[outcome.finding.kind].append(outcome.finding)
    for kind, found in sorted(findings.items(), key=lambda pair: -len(pair[1])):
        shortest = min(found, key=lambda finding: len(finding.script))
        print(f"## {len(found)} x {kind}\n\n{shortest.message}\n\n```python\n{shortest.script}\n```\n")
    for script in crashed:
        print(f"## a process died or hung\n\n```python\n{script}\n```\n")
    table = collections.defaultdict(collections.Counter)
    for name, outcome in results:
        table[name][outcome.verdict] += 1
    for name, counts in sorted(table.items()):
        print(f"{name}: {dict(counts)}")
    total = sum(table.values(), collections.Counter())
    slowest = max((outcome for _, outcome in results), key=lambda outcome: outcome.seconds)
    if slowest.seconds > 2:
        print(f"The slowest case:\n\n```python\n{slowest.script}\n```\n")
    longest = slowest.seconds
    print(
        f"{len(results):,} cases: {total['answered']:,} answered, {total['refused']:,} refused with words, {total['not made']:,} not made, "
        f"{total['finding']:,} findings of {len(findings) + len(crashed)} kinds, longest {longest:.1f} s, {time.perf_counter() - started:.0f} s in all"
    )
    return 1 if findings or crashed else 0


if __name__ == "__main__":
    sys.exit(main())
