"""A fit on two hosts: seconds, bytes on the cable between them, and what happens when it is pulled. Linux, as root, with ``ip``.

    sudo python docs/benchmarks/two_hosts.py                # all of it, a minute or two
    sudo python docs/benchmarks/two_hosts.py --only recipe pulled --timeout 5

The hosts are two network namespaces of this machine, each with a name of its own, joined by a pair of virtual interfaces, so that
one reaches the other by that cable alone. In each runs ``torchrun``, as on two machines. The steps:

- ``recipe``: ``docs/recipes/torchrun_fit.py`` as it is.
- ``bytes``: a fit of 5 epochs and one of 25; what the interfaces counted more in the second, by epoch.
- ``pulled``: the cable is pulled during the epochs; how many seconds later ``fit`` raised on each host.
- ``put back``: it is pulled for a third of the timeout and put back; whether the fit ends with the same model.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

HERE = Path(__file__).resolve()
PACKAGE = HERE.parents[2]
HOSTS = {"host1": "192.0.2.1", "host2": "192.0.2.2"}  # addresses reserved for documentation: they are nobody's
CABLE = "cable"  # what the interface is called in each namespace
NAMED = 'hostname "$0" && exec "$@"'  # what runs a command on a host that has a name
N_USERS, N_ITEMS, N_FACTORS, PORT = 6040, 3706, 32, 29400


def ip(*args):
    subprocess.run(["ip", *args], check=True)


@contextmanager
def two_hosts():
    """The names of two network namespaces that a cable joins."""
    names = [f"sk_torchmf_{os.getpid()}_{host}" for host in HOSTS]
    try:
        for name in names:
            ip("netns", "add", name)
            etc = Path("/etc/netns") / name  # what stands there is /etc for ``ip netns exec``
            etc.mkdir(parents=True)
            (etc / "hosts").write_text("127.0.0.1 localhost\n" + "".join(f"{address} {host}\n" for host, address in HOSTS.items()))
            (etc / "nsswitch.conf").write_text("hosts: files\n")
        ip("-n", names[0], "link", "add", CABLE, "type", "veth", "peer", "name", CABLE, "netns", names[1])
        for name, address in zip(names, HOSTS.values(), strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", CABLE)
            for interface in ("lo", CABLE):
                ip("-n", name, "link", "set", interface, "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], stderr=subprocess.DEVNULL)
            shutil.rmtree(Path("/etc/netns") / name, ignore_errors=True)


def start(names, folder, script, *args):
    """Start ``torchrun`` on both hosts; their processes and where they print."""
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(PACKAGE), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "PYTHONUNBUFFERED": "1",
    }
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"{next(iter(HOSTS))}:{PORT}"]
    started = []
    for name, host in zip(names, HOSTS, strict=True):
        on_host = ["ip", "netns", "exec", name, "unshare", "--uts", "sh", "-c", NAMED, host]
        path = folder / f"{host}.txt"
        with path.open("w") as output:
            command = [*on_host, *torchrun, *meeting, str(script), *args]
            process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
        started.append((process, path))
    return started


def wait(started, limit=300):
    """Wait for both; what each printed."""
    for process, _ in started:
        process.wait(limit)
    return [path.read_text() for _, path in started]


def carried(names):
    """Bytes that the interfaces of both hosts have sent."""
    counter = f"/sys/class/net/{CABLE}/statistics/tx_bytes"
    return sum(int(subprocess.check_output(["ip", "netns", "exec", name, "cat", counter])) for name in names)


def show(title, texts, pattern="^(rank|all|\\[|Rank).*"):
    print(f"\n{title}", flush=True)
    for host, text in zip(HOSTS, texts, strict=True):
        for line in re.finditer(pattern, text, re.MULTILINE):
            print(f"  {host}: {line[0]}", flush=True)


def recipe(names, folder, options):
    begun = time.perf_counter()
    started = start(names, folder, PACKAGE / "docs" / "recipes" / "torchrun_fit.py")
    texts = wait(started)
    show(f"recipe: {time.perf_counter() - begun:.1f} s with the imports, ended with {codes(started)}", texts, "^(rank|all).*")


def count_bytes(names, folder, options):
    found = {}
    for n_epochs in (5, 25):
        before, texts = carried(names), wait(start(names, folder, HERE, "--epochs", str(n_epochs)))
        found[n_epochs] = carried(names) - before
        show(f"bytes: {n_epochs} epochs, {found[n_epochs]:,} bytes on the cable, both ways", texts, "^fitted.*")
    paper = N_ITEMS * (N_FACTORS + 3) * 4
    each = (found[25] - found[5]) / 20 / 2
    print(f"  an epoch more: {each:,.0f} bytes each way; n_items (k + 3) 4 = {paper:,}, of which it is {each / paper:.3f}")


def pulled(names, folder, options):
    started = start(names, folder, HERE, "--epochs", "1000000", "--timeout", str(options.timeout))
    await_lines(started[:1], "iteration", 3)
    ip("-n", names[0], "link", "set", CABLE, "down")
    at = time.time()
    await_lines(started, "^raised", 1)
    ip("-n", names[0], "link", "set", CABLE, "up")  # else torchrun looks for the other host for minutes
    texts = wait(started)
    show(f"pulled: timeout of the group {options.timeout} s, ended with {codes(started)}", texts, "^Rank.*")
    for host, text in zip(HOSTS, texts, strict=True):
        error, raised = re.search("^raised (\\w+) at (\\S+)", text, re.MULTILINE).groups()
        print(f"  {host}: {error} {float(raised) - at:.1f} s after the cable was pulled", flush=True)


def put_back(names, folder, options):
    found = []
    for seconds in (0, options.timeout / 3):
        started = start(names, folder, HERE, "--epochs", "100", "--timeout", str(options.timeout))
        await_lines(started[:1], "iteration", 3)
        if seconds:
            ip("-n", names[0], "link", "set", CABLE, "down")
            time.sleep(seconds)
            ip("-n", names[0], "link", "set", CABLE, "up")
        texts = wait(started)
        found.append({re.search("^fitted: (\\S+)", text, re.MULTILINE)[1] for text in texts})
        show(f"put back: the cable was pulled for {seconds:.1f} s, ended with {codes(started)}", texts, "^fitted.*")
    print(f"  the same model, bit for bit, on both hosts and of both fits: {len(set.union(*found)) == 1}")


def codes(started):
    return " and ".join(str(process.returncode) for process, _ in started)


def await_lines(started, pattern, n, limit=300):
    """Wait until each has printed so many lines in which a pattern is found."""
    end = time.monotonic() + limit
    while any(len(re.findall(pattern, path.read_text(), re.MULTILINE)) < n for _, path in started):
        if time.monotonic() > end or all(process.poll() is not None for process, _ in started):
            raise RuntimeError("".join(path.read_text() for _, path in started))
        time.sleep(0.05)


def fit(options):
    """On one of the hosts: fit planted ratings; print the model's hash, or when the fit raised."""
    import torch.distributed as dist

    from sk_torchmf import DistributedError, MatrixFactorization, datasets

    dist.init_process_group("gloo", timeout=timedelta(seconds=options.timeout))
    rank, size = dist.get_rank(), dist.get_world_size()
    ratings = datasets.make_ratings(n_users=N_USERS, n_items=N_ITEMS, n_ratings=200_000, noise_std=0.9, random_state=0)
    model = MatrixFactorization(N_FACTORS, max_iter=options.epochs, tol=0, distributed=True, random_state=0, verbose=1)
    try:
        model.fit(ratings.data[rank::size], ratings.target[rank::size])
    except DistributedError as error:
        print(f"raised {type(error).__name__} at {time.time()}\n{error}")
        os._exit(1)  # without the farewell of torch.distributed, for which there is no cable
    seconds = sum(model.history_["seconds"])
    print(f"fitted: {hashlib.sha256(model.item_factors_.tobytes()).hexdigest()[:16]} {model.n_iter_} epochs in {seconds:.2f} s")
    dist.destroy_process_group()


STEPS = {"recipe": recipe, "bytes": count_bytes, "pulled": pulled, "put back": put_back}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--timeout", type=float, default=10, help="of the process group, seconds")
    parser.add_argument("--epochs", type=int, help=argparse.SUPPRESS)  # of what runs on a host
    options = parser.parse_args()
    if options.epochs:
        fit(options)
        return
    print(f"load {os.getloadavg()[0]:.1f} before")
    with two_hosts() as names, tempfile.TemporaryDirectory() as folder:
        for step in options.only:
            STEPS[step](names, Path(folder), options)


if __name__ == "__main__":
    main()
