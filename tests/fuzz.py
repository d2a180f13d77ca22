"""Random cases, as many as asked for, in several processes, and a list of all that went wrong: ``nox -s fuzz -- 10000``."""

import argparse
import collections
import concurrent.futures
import contextlib
import faulthandler
import io
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "shared"))
import fuzz_oracle

CHUNK = 200  # cases that one seed draws
MEMORY = 8 * 2**30  # bytes of addresses that a process may take, so that what asks for too much fails where it asks


def explore(seed, n, folder):
    """Run n cases of a seed; a list of (estimator, Outcome)."""
    import torch
    from fuzz_cases import cases
    from hypothesis import HealthCheck, Phase, assume, given, settings
    from hypothesis import seed as seeded

    torch.set_num_threads(1)
    with contextlib.suppress(ImportError, ValueError):  # no such thing on some platforms
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.RLIM_INFINITY))
    tempfile.tempdir, results = folder, []
    journal = Path(folder) / f"{seed}.case"  # is still there if the process dies

    @seeded(seed)
    @settings(max_examples=n, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(cases())
    def take(case):
        journal.write_text(case.script(), encoding="utf-8")
        faulthandler.dump_traceback_later(3 * fuzz_oracle.LIMIT, exit=True)  # where no Python code runs that could be stopped
        try:
            outcome = fuzz_oracle.run(case)
        except Exception as error:
            what = fuzz_oracle.Finding(f"the oracle's own {type(error).__name__}: {error}", "", case.script())
            outcome = fuzz_oracle.Outcome("finding", finding=what)
        faulthandler.cancel_dump_traceback_later()
        assume(outcome.verdict != "not made")
        results.append((case.estimator, outcome))

    with contextlib.redirect_stdout(io.StringIO()):
        take()
    journal.unlink()
    return results


def explore_all(n, seed, n_processes, folder):
    """Run n cases in chunks; all (estimator, Outcome), and the scripts that ran when a process died."""
    sizes, results = [min(CHUNK, n - at) for at in range(0, n, CHUNK)], []
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(n_processes, context) as pool:
        runs = [pool.submit(explore, seed * 10**6 + at, size, folder) for at, size in enumerate(sizes)]
        with contextlib.suppress(concurrent.futures.process.BrokenProcessPool):
            for run in concurrent.futures.as_completed(runs):
                results += run.result()
    return results, [path.read_text(encoding="utf-8") for path in Path(folder).glob("*.case")]


def report(results, died, *, refusals=False):
    """Print each kind of finding with its shortest script, a table of how cases ended, and a closing line; whether all is well."""
    findings = collections.defaultdict(list)
    for _, outcome in results:
        if outcome.finding is not None:
            findings[outcome.finding.kind].append(outcome.finding)
    if findings or died:
        print(f"Each script begins with\n\n```python\n{fuzz_oracle.IMPORTS}```\n")
    for kind, found in sorted(findings.items(), key=lambda pair: -len(pair[1])):
        shortest = min(found, key=lambda finding: len(finding.script))
        print(f"## {len(found)} x {kind}\n\n{shortest.message}\n\n```python\n{shortest.script}\n```\n")
    for script in died:
        print(f"## A process died or hung; this or another such script ran\n\n```python\n{script}\n```\n")
    if refusals:
        words = collections.Counter(" ".join(text.split()[:9]) for _, outcome in results for text in outcome.refusals)
        print("Refusals:", *(f"{times:6} x {text}" for text, times in words.most_common(60)), "", sep="\n")
    slowest = max((outcome for _, outcome in results), key=lambda outcome: outcome.seconds)
    if slowest.seconds > fuzz_oracle.LIMIT / 4:
        print(f"The slowest case:\n\n```python\n{slowest.script}\n```\n")
    ends = collections.Counter((name, outcome.verdict) for name, outcome in results)
    verdicts = "answered", "refused", "finding"
    print(f"{'':30}{'answered':>10}{'refused':>10}{'findings':>10}")
    for name in sorted({name for name, _ in results}):
        print(f"{name:30}" + "".join(f"{ends[name, verdict]:10,}" for verdict in verdicts))
    answered, refused, found = (sum(times for (_, one), times in ends.items() if one == verdict) for verdict in verdicts)
    kinds = f" of {len(findings)} kinds" if findings else ""
    print(
        f"{len(results):,} cases: {answered:,} answered, {refused:,} refused with words, {found:,} findings{kinds}, "
        f"longest {slowest.seconds:.1f} s"
    )
    return not findings and not died


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("n", type=int, nargs="?", default=2000, help="how many cases")
    parser.add_argument("--seed", type=int, default=0, help="others than last time")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="all cores by default")
    parser.add_argument("--refusals", action="store_true", help="list what was refused, and how often")
    options = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        results, died = explore_all(options.n, options.seed, options.processes, folder)
    is_well = report(results, died, refusals=options.refusals)
    print(f"{time.perf_counter() - started:.0f} s in {options.processes} processes")
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
