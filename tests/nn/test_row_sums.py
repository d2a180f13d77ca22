"""What a half-step sums over each row's pairs, by both kernels, against plain loops in float64."""

import numpy as np
import pytest
import torch
from pair_patterns import random_rows, user_major

from sk_torchmf.nn import Pairs
from sk_torchmf.nn.row_sums import error_sums, square_sums

pytestmark = pytest.mark.usefixtures("each_kernels")
WIDTHS = [*range(1, 34), 47, 48, 49, 63, 64, 65, 95, 96, 97, 127, 128, 129, 130]
GIVEN = {"nothing": (), "weights": ("weight",), "biases": ("b", "c"), "all": ("weight", "b", "c"), "one bias": ("c",)}
BOUND = 1e-5  # of the sum of the terms' sizes: float32 has 6e-8 for each of the operations that follow one another
given = pytest.mark.parametrize("names", GIVEN.values(), ids=GIVEN.keys())


def draw(pairs, k, names=("weight", "b", "c"), dtype=torch.float32):
    """Rows, ratings, and what is named beside them."""
    sizes = {"weight": (pairs.n_pairs,), "b": pairs.shape[:1], "c": pairs.shape[1:]}
    P, Q = (random_rows(n, k, seed=at, dtype=dtype) for at, n in enumerate(pairs.shape))
    beside = {name: random_rows(*sizes[name], seed=ord(name[0]), dtype=dtype).abs() for name in names}
    return P, Q, random_rows(pairs.n_pairs, seed=7, dtype=dtype), beside


def check(found, by_hand, dtype=torch.float32):
    """Within rounding of sums in float64, of which the sums of the terms' sizes are known too."""
    assert found.dtype == dtype
    expected, sizes = by_hand
    assert found.shape == expected.shape
    bound = BOUND if dtype == torch.float32 else 1e-13
    assert (np.abs(found.double().numpy() - expected) <= bound * sizes + 1e-30).all()


def loop(pairs, k, terms):
    """Sum terms of a pair (user, item, place) by user, and their sizes."""
    users, items = (numbers.tolist() for numbers in user_major(pairs))
    sums, sizes = np.zeros((2, pairs.shape[0], k))
    for place, (u, i) in enumerate(zip(users, items, strict=True)):
        term, size = terms(u, i, place)
        sums[u] += term
        sizes[u] += size
    return sums, sizes


def check_sums(pairs, k, names, dtype=torch.float32):
    P, Q, rating, beside = draw(pairs, k, names, dtype)
    p, q, r = (value.double().numpy() for value in (P, Q, rating))
    zero = {"weight": np.ones(pairs.n_pairs), "b": np.zeros(pairs.shape[0]), "c": np.zeros(pairs.shape[1])}
    w, b, c = (zero | {name: value.double().numpy() for name, value in beside.items()}).values()

    def error(u, i, place):
        return p[u] @ q[i] + b[u] + c[i] - r[place], np.abs(p[u]) @ np.abs(q[i]) + abs(b[u]) + abs(c[i]) + abs(r[place])

    def first(u, i, place):
        e, size = error(u, i, place)
        return w[place] * e * np.append(q[i], 1), w[place] * size * np.abs(np.append(q[i], 1))

    def second(u, i, place):
        e, size = error(u, i, place)
        return w[place] * e**2, w[place] * size**2

    def move(u, i, place):
        return w[place] * (p[u] @ q[i] + b[u]) ** 2, w[place] * (np.abs(p[u]) @ np.abs(q[i]) + abs(b[u])) ** 2

    before = [value.clone() for value in (P, Q, rating, *beside.values())]
    slopes, slope, square = error_sums(pairs, P, Q, rating, **beside)
    sums, sizes = loop(pairs, k + 1, first)
    check(slopes, (sums[:, :k], sizes[:, :k]), dtype)
    check(slope, (sums[:, k], sizes[:, k]), dtype)
    check(square, [part[:, 0] for part in loop(pairs, 1, second)], dtype)
    squares = square_sums(pairs, P, Q, **{name: value for name, value in beside.items() if name != "c"})
    check(squares, [part[:, 0] for part in loop(pairs, 1, move)], dtype)
    assert all(torch.equal(*both) for both in zip(before, (P, Q, rating, *beside.values()), strict=True))


@given
def test_sums_equal_plain_loops(pattern, names):
    check_sums(pattern[2], 5, names)
    check_sums(pattern[2].T, 5, names)


@pytest.mark.parametrize("k", WIDTHS)
def test_every_number_of_factors_is_served(k):
    """By zeros up to the next width, or by torch."""
    rng = np.random.default_rng(k)
    check_sums(Pairs(rng.integers(0, 7, 60), rng.integers(1, 9, 60), 8, 9), k, ("weight", "b", "c"))


def test_rows_of_every_length():
    """Four pairs at a time, and the rest one by one."""
    user = np.repeat(np.arange(14), np.arange(14))
    check_sums(Pairs(user, np.arange(len(user)) % 11, 14, 11), 8, ("weight", "b", "c"))


@given
def test_float64_is_torchs(names):
    check_sums(Pairs(np.array([0, 2, 2, 2]), np.array([1, 0, 1, 1]), 3, 2), 4, names, torch.float64)


@given
def test_a_block_within_all_pairs_has_its_own_sums(names):
    rng = np.random.default_rng(0)
    pairs = Pairs(rng.integers(0, 20, 300), rng.integers(0, 9, 300), 20, 9)
    P, Q, rating, beside = draw(pairs, 12, names)
    whole = error_sums(pairs, P, Q, rating, **beside)
    for rows, span, block in pairs.blocks(50):
        cut = {name: value[{"weight": span, "b": rows, "c": slice(None)}[name]] for name, value in beside.items()}
        for ours, theirs in zip(error_sums(block, P[rows], Q, rating[span], **cut), whole, strict=True):
            torch.testing.assert_close(ours, theirs[rows], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("where", ["P", "Q", "rating", "weight", "b", "c"])
def test_what_is_not_finite_stays_in_its_rows(where, value):
    """And is not finite there: an overflow, in float32, for 1e30."""
    pairs = Pairs(np.array([0, 0, 1, 1, 1, 1, 1, 2]), np.array([0, 1, 1, 2, 2, 3, 1, 3]), 4, 4)
    P, Q, rating, beside = draw(pairs, 9)
    values = {"P": P, "Q": Q, "rating": rating, **beside}
    place, touched = {"P": (1, [1]), "Q": (2, [1]), "rating": (7, [2]), "weight": (7, [2]), "b": (0, [0]), "c": (0, [0])}[where]
    before = error_sums(pairs, P, Q, rating, **beside), square_sums(pairs, P, Q, beside["weight"], beside["b"])
    values[where][place] = value
    after = error_sums(pairs, P, Q, rating, **beside), square_sums(pairs, P, Q, beside["weight"], beside["b"])
    others = [row for row in range(4) if row not in touched]
    for old, new in zip((*before[0], before[1]), (*after[0], after[1]), strict=True):
        assert torch.equal(old[others], new[others])
    if where != "weight" or not np.isfinite(value):
        assert not torch.isfinite(after[0].square[touched]).any()


def test_no_rows_and_no_columns():
    nothing = np.empty(0, dtype=np.int64)
    for shape in ((0, 3), (3, 0), (0, 0)):
        check_sums(Pairs(nothing, nothing, *shape), 3, ("weight", "b", "c"))
