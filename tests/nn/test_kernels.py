"""The compiled kernels: which are in use, that they are there where they can be, threads, forks, and what is left to torch."""

import importlib
import os
import runpy
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from pair_patterns import draw_pairs, random_rows

from sk_torchmf.nn import Pairs, kernels, kernels_in_use, pair_dot, use_kernels
from sk_torchmf.nn.row_sums import error_sums, square_sums

needs_kernels = pytest.mark.skipif(kernels._library() is None, reason="there are no compiled kernels here")
float32 = {"dtype": torch.float32}


@pytest.fixture
def unloaded():
    """The library is looked for anew, before and after."""
    kernels._library.cache_clear()
    yield
    kernels._library.cache_clear()


def test_compiled_kernels_are_there_where_they_can_be_compiled(tmp_path):
    """Else all tests would be of torch's kernels only, and nobody would know."""
    build = importlib.import_module("sk_torchmf.nn.build_kernels")
    if not build.compile_kernels(kernels.LIBRARY.with_name("kernels.c"), tmp_path / "kernels.library"):
        pytest.skip("there is no compiler here, or SK_TORCHMF_KERNELS is torch")
    assert kernels._library() is not None, f"{kernels.LIBRARY} is not there or is stale: pip install -e ."


@needs_kernels
def test_kernels_are_chosen_within_a_block_in_one_thread():
    before, found = kernels_in_use(), []
    with use_kernels("torch"):
        thread = threading.Thread(target=lambda: found.append(kernels_in_use()))
        thread.start()
        thread.join()
        with use_kernels("compiled"):
            assert kernels_in_use() == "compiled"
        assert kernels_in_use() == "torch"
    assert [kernels_in_use(), *found] == [before, before]
    with pytest.raises(KeyError), use_kernels("torch"):
        raise KeyError
    assert kernels_in_use() == before


def test_names_of_other_kernels_are_refused():
    with pytest.raises(ValueError, match=r'"compiled" or "torch"\. Got \'cuda\''), use_kernels("cuda"):
        pass


def library(text):
    def write(path):
        source = path.with_suffix(".c")
        source.write_text(text)
        subprocess.run(["cc", "-shared", "-fPIC", "-o", str(path), str(source)], check=True)

    return write


STALE = {
    "missing": lambda path: None,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("no library"),
    "other version": library("int kernels_version(void) { return -1; }"),
    "no version": library("int gradient(void) { return 0; }"),
    "right version without functions": library(f"int kernels_version(void) {{ return {kernels.VERSION}; }}"),
}


@needs_kernels
@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize("kind", STALE)
def test_a_library_that_does_not_fit_is_left_alone(kind, tmp_path, monkeypatch):
    STALE[kind](tmp_path / "kernels.library")
    monkeypatch.setattr(kernels, "LIBRARY", tmp_path / "kernels.library")
    assert kernels_in_use() == "torch"
    with pytest.raises(RuntimeError, match="no compiled kernels here"), use_kernels("compiled"):
        pass
    pairs = Pairs(np.array([0]), np.array([0]), 1, 1)
    assert pairs.dots(torch.tensor([[2.0]]), torch.tensor([[3.0]])).tolist() == [6.0]


@pytest.mark.parametrize(("value", "expected"), [("torch", "torch"), ("compiled", None), ("", None)])
def test_the_environment_says_which_kernels(value, expected, monkeypatch):
    """The module reads it when it is imported, so it is run once more here."""
    monkeypatch.setenv("SK_TORCHMF_KERNELS", value)
    found = runpy.run_path(kernels.__file__)["kernels_in_use"]()
    assert found == (expected or ("torch" if kernels._library() is None else "compiled"))


def inputs(n_users=60, n_items=50, n_pairs=2000, k=8):
    pairs = Pairs(*draw_pairs(n_users, n_items, n_pairs), n_users, n_items)
    P, Q = random_rows(n_users, k, **float32), random_rows(n_items, k, seed=1, **float32)
    return pairs, P, Q, *(random_rows(n, seed=at, **float32) for at, n in enumerate((n_pairs, n_pairs, n_users, n_items)))


@needs_kernels
def test_they_serve_float32_on_the_cpu_up_to_128_factors():
    pairs, P, Q, rating, _, b, c = inputs()
    arrays = {"of_pairs": [rating, None], "of_rows": [b], "of_columns": [c]}
    assert kernels.serve(pairs, P, Q, **arrays)
    for k, serves in ((0, False), (1, True), (128, True), (129, False)):
        assert kernels.serve(pairs, P.new_zeros(60, k), Q.new_zeros(50, k)) == serves
    with use_kernels("torch"):
        assert not kernels.serve(pairs, P, Q, **arrays)
    wrong = [value.double() for value in (P, Q)], [P[:-1], Q], [P, Q[1:]], [P, Q[:, 1:]], [P.to("meta"), Q], [P[0], Q]
    assert [kernels.serve(pairs, *rows) for rows in wrong] == [False] * len(wrong)
    for name, value in (("of_pairs", rating), ("of_rows", b), ("of_columns", c)):
        for other in (value.double(), value[1:], value[:, None], value.to("meta"), value.clone().requires_grad_()):
            assert not kernels.serve(pairs, P, Q, **{name: [None, other]})
    P.requires_grad_()
    assert not kernels.serve(pairs, P, Q)
    with torch.no_grad():
        assert kernels.serve(pairs, P, Q)


@needs_kernels
def test_arrays_that_do_not_fit_are_refused_by_torch():
    """Kernels read arrays of another dtype or size as they lay in memory, and lost the gradient."""
    pairs, P, Q, rating, weight, b, c = inputs()
    calls = [
        lambda: pairs.dots(P, Q.double()),
        lambda: pairs.dots(P[:-1], Q),
        lambda: pairs.dots(P, Q[:, :3]),
        lambda: pairs.dots(P, Q, add_to=rating.double()),
        lambda: pairs.dots(P.clone().requires_grad_(), Q),
        lambda: error_sums(pairs, P, Q, rating.double()),
        lambda: error_sums(pairs, P, Q, rating[1:], weight, b, c),
        lambda: error_sums(pairs, P, Q, rating, weight[1:]),
        lambda: error_sums(pairs, P, Q, rating, c=c[:-30]),
        lambda: square_sums(pairs, P, Q, weight[1:]),
        lambda: square_sums(pairs, P, Q, b=b[1:]),
    ]
    for call in calls:
        for name in ("torch", "compiled"):
            with use_kernels(name), pytest.raises((RuntimeError, ValueError, IndexError)):
                call()


@needs_kernels
def test_gradients_go_through_the_compiled_kernels():
    pairs, P, Q, rating, *_ = inputs()
    found = []
    for name in ("torch", "compiled"):
        rows = [value.clone().requires_grad_() for value in (P, Q)]
        with use_kernels(name):
            (pair_dot(*rows, pairs) - rating).square().sum().backward()
        found.append([value.grad for value in rows])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)  # float32, sums of up to 60 errors of size 10


@pytest.mark.parametrize("name", ["torch", pytest.param("compiled", marks=needs_kernels)])
def test_rows_and_values_of_any_stride_are_taken(name):
    pairs, P, Q, rating, weight, b, c = inputs()
    wide = [torch.stack([value, value + 9], -1)[..., 0] for value in (P, Q, rating, weight, b, c)]
    assert not any(value.is_contiguous() for value in wide)
    with use_kernels(name):
        for ours, theirs in zip(error_sums(pairs, *wide), error_sums(pairs, P, Q, rating, weight, b, c), strict=True):
            assert torch.equal(ours, theirs)
        assert torch.equal(square_sums(pairs, *wide[:2], wide[3], wide[4]), square_sums(pairs, P, Q, weight, b))
        dots, start = torch.zeros(2000, 2)[:, 0], torch.zeros(2000)
        torch.testing.assert_close(pairs.dots(*wide[:2], add_to=dots), pairs.dots(P, Q, add_to=start), rtol=1e-5, atol=1e-5)


def test_pairs_from_rows_take_numbers_of_other_types():
    pairs = Pairs.from_rows(torch.tensor([0, 2, 3]), torch.tensor([[0, 1, 1], [9, 9, 9]]).T[:, 0], 2)
    found = pairs.dots(torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [5.0]]))
    assert found.tolist() == [3.0, 5.0, 10.0]


@pytest.fixture
def small_shares(monkeypatch):
    """Every thread that torch may use gets a share, however small the work; torch may use two."""
    monkeypatch.setattr(kernels, "WORK_OF_A_THREAD", 1)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@needs_kernels
def test_threads_change_no_bit(small_shares):
    given = inputs(n_users=500, n_items=80, n_pairs=20_000, k=24)

    def found():
        pairs, P, Q, rating, weight, b, c = given
        sums = error_sums(pairs, P, Q, rating, weight, b, c), error_sums(pairs.T, Q, P, rating)
        return [*sums[0], *sums[1], square_sums(pairs, P, Q, weight, b), pairs.dots(P, Q)]

    results = []
    for n_threads in (1, 2, 3, 7):
        torch.set_num_threads(n_threads)
        results.append(found())
    for more in results[1:]:
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(more, results[0], strict=True))


@needs_kernels
def test_without_further_threads_one_does_all(small_shares, monkeypatch):
    """At the end of the interpreter, or where the system has no more."""

    def refuse(*task):
        raise RuntimeError("can't start new thread")

    pairs, P, Q, *_ = inputs()
    expected = pairs.dots(P, Q)
    monkeypatch.setattr(kernels._Pool, "submit", refuse)
    assert torch.equal(pairs.dots(P, Q), expected)


@needs_kernels
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_fork_has_threads_of_its_own(small_shares):
    pairs, P, Q, *_ = inputs()
    expected = pairs.dots(P, Q)
    assert kernels._Pool.pool is not None
    child = os.fork()
    if child == 0:
        started_anew = kernels._Pool.pool is None
        os._exit(0 if started_anew and torch.equal(pairs.dots(P, Q), expected) and kernels._Pool.pool is not None else 1)
    end, done = time.monotonic() + 60, (0, 0)
    while done[0] == 0 and time.monotonic() < end:
        time.sleep(0.01)
        done = os.waitpid(child, os.WNOHANG)
    if done[0] == 0:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert done == (child, 0)


@needs_kernels
def test_other_threads_of_python_go_on_meanwhile(one_thread):
    """They have no turn while a kernel holds the lock of the interpreter."""
    pairs, P, Q, *_ = inputs(n_users=20_000, n_items=5000, n_pairs=1_000_000, k=128)
    running, counted = threading.Event(), []

    def count():
        while not running.is_set():
            counted.append(time.perf_counter())
            time.sleep(0)

    def counted_inside():
        begun = time.perf_counter()
        for _ in range(5):
            kernels.call("dots", pairs, P, Q, (), [dots])
        over = time.perf_counter()
        return sum(begun + 0.2 * (over - begun) < moment < over - 0.2 * (over - begun) for moment in counted)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # nobody is asked to give the lock up: whoever has it gives it up by themselves
    thread = threading.Thread(target=count)
    try:
        thread.start()
        dots = torch.zeros(pairs.n_pairs)
        tries = (counted_inside() for _ in range(20))  # on a busy machine it may have no turn at first
        inside = next((n for n in tries if n > 2), 0)
    finally:
        running.set()
        thread.join()
        sys.setswitchinterval(interval)
    assert inside > 2, len(counted)
