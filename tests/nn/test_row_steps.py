"""What a half-step does with rows, by both kernels, against the formulas in float64, a row after another."""

import numpy as np
import pytest
import torch
from pair_patterns import draw_pairs, random_rows

from sk_torchmf.nn import Pairs, kernels, use_kernels
from sk_torchmf.nn.row_steps import (
    LONGEST_STEP,
    Frame,
    Informed,
    Rows,
    half_step,
    newton_steps,
    row_moments,
    step_lengths,
)
from sk_torchmf.nn.row_sums import error_sums, square_sums

NOISE = 0.7
NUMBERS = [1, 7, 8, 9, 64, 257, 2049, 4100]  # of rows: less than a vector has, parts of vectors and of parts
SHAPES = [(n, 8) for n in NUMBERS] + [(19, k) for k in (1, 2, 5, 11, 12, 13, 23, 32, 33, 64, 127, 128, 129)]
shapes = pytest.mark.parametrize(("n", "k"), SHAPES)
biased = pytest.mark.parametrize("biased", [False, True], ids=["plain", "biased"])
needs_kernels = pytest.mark.skipif(kernels._library() is None, reason="there are no compiled kernels here")


def case(n, k, biased, *, own_priors=False, dtype=torch.float32):
    """A frame, rows with what is known of them, and sums over their ratings."""
    width = k + biased
    basis = random_rows(width, width, dtype=torch.float64) / width**0.5 + torch.eye(width, dtype=torch.float64)
    root = random_rows(width, width, seed=1, dtype=torch.float64) / width
    curvature = random_rows(width, seed=2, dtype=torch.float64).abs()
    uncertainty = (root @ root.T)[:k]
    rows = random_rows(n, width, seed=3, dtype=dtype)
    prior = random_rows(n, width, seed=4, dtype=dtype) if own_priors else random_rows(1, width, seed=4, dtype=dtype).expand(n, -1)
    count = (1 + torch.arange(n) % 5)[:, None].to(dtype)
    slopes, slope = random_rows(n, k, seed=5, dtype=dtype), random_rows(n, seed=6, dtype=dtype)
    frame = Frame.of(basis, torch.linalg.inv(basis).T, curvature, uncertainty, rows)
    return frame, (basis, curvature, uncertainty), Informed(Rows.of(rows, k), prior, count), slopes, slope if biased else None


def by_hand(exact, own, slopes, slope):
    """The steps (n, width), their slopes, bends and turns, in float64 and without a basis: by each row's own system."""
    basis, curvature, uncertainty = (part.numpy() for part in exact)
    k, width = uncertainty.shape
    T, inverse = basis @ basis.T, np.linalg.inv(basis)
    S, U = inverse.T @ np.diag(curvature) @ inverse, np.zeros((width, width))
    U[:k, :k] = uncertainty[:, :k]
    found = []
    for row, prior, count, of_ratings, of_bias in zip(
        own.rows.whole().double().numpy(),
        own.prior.double().numpy(),
        own.counts[:, 0].double().numpy(),
        slopes.double().numpy(),
        np.zeros(len(slopes)) if slope is None else slope.double().numpy(),
        strict=True,
    ):
        likelihood = np.append(of_ratings, of_bias)[:width]
        doubtful = U @ row
        if width > k:  # the covariance of an item's factors with its bias
            doubtful[:k] += uncertainty[:, k]
        gradient = likelihood + count * doubtful + NOISE * np.linalg.solve(T, row - prior)
        step = np.linalg.solve(count * S + NOISE * np.linalg.inv(T), gradient)
        bend = NOISE * step @ np.linalg.solve(T, step) + count * step @ U @ step
        found.append((step, gradient @ step, bend, likelihood @ step))
    return [np.array(part) for part in zip(*found, strict=True)]


def check(found, expected, dtype=torch.float32):
    """Within rounding of sums of up to 400 terms that partly cancel, relative to the largest."""
    assert found.dtype == dtype
    assert found.shape == expected.shape
    assert np.abs(found.double().numpy() - expected).max() <= (1e-3 if dtype == torch.float32 else 1e-9) * np.abs(expected).max()


@pytest.mark.usefixtures("each_kernels")
@biased
@shapes
def test_a_step_solves_the_system_of_its_row(n, k, biased):
    for own_priors in (False, True):
        frame, exact, own, slopes, slope = case(n, k, biased, own_priors=own_priors)
        steps = newton_steps(frame, own, slopes, slope, NOISE)
        for found, expected in zip(
            (steps.move.whole(), steps.slope, steps.bend, steps.turn), by_hand(exact, own, slopes, slope), strict=True
        ):
            check(found, expected)


def test_a_step_in_float64_is_exact():
    frame, exact, own, slopes, slope = case(40, 6, True, dtype=torch.float64)
    steps = newton_steps(frame, own, slopes, slope, NOISE)
    for found, expected in zip(
        (steps.move.whole(), steps.slope, steps.bend, steps.turn), by_hand(exact, own, slopes, slope), strict=True
    ):
        check(found, expected, torch.float64)


@pytest.mark.usefixtures("each_kernels")
def test_slopes_may_be_columns_of_wider_ones():
    frame, _, own, slopes, slope = case(30, 12, True)
    wide = torch.cat([slopes, torch.full((30, 4), torch.nan)], 1)[:, :12]
    for one, other in zip(
        newton_steps(frame, own, wide, slope, NOISE)[1:], newton_steps(frame, own, slopes, slope, NOISE)[1:], strict=True
    ):
        assert torch.equal(one, other)


@pytest.mark.usefixtures("each_kernels")
@biased
@shapes
def test_moments_are_sums_over_rows(n, k, biased):
    frame, (_, curvature, _), own, *_ = case(n, k, biased)
    reference = random_rows(k + biased, seed=8, dtype=torch.float32)
    Y = np.column_stack([(own.rows.whole() - reference).double().numpy(), np.ones(n)])
    count = own.counts.double().numpy()
    variance = NOISE / (count * curvature.numpy() + NOISE)
    expected = Y.T @ Y, Y.T @ (count * Y), variance.sum(0), (count * variance).sum(0)
    found = row_moments(own.rows, reference, own.counts, frame, NOISE)
    for ours, theirs in zip(found, expected, strict=True):
        bound = 1e-4  # float32 has 6e-8 for each of thousands that torch adds up one after the other
        assert np.abs(ours.double().numpy() - theirs).max() <= bound * np.abs(theirs).max()
    assert all(torch.equal(*both) for both in zip(row_moments(own.rows, reference, own.counts), found[:2], strict=True))


@pytest.mark.usefixtures("each_kernels")
def test_moments_of_no_rows_are_zero():
    frame, _, own, *_ = case(1, 8, True)
    none = slice(0, 0)
    for part in row_moments(own.rows.some(none), torch.zeros(9), own.counts[none], frame, NOISE):
        assert not part.any()


def test_a_step_goes_no_further_than_the_longest():
    steps = newton_steps(*case(3, 2, False)[:1], *case(3, 2, False)[2:], NOISE)
    slope, squares = torch.tensor([6.0, 2.0, torch.nan]), torch.tensor([1.0, 1.0, 1.0])
    found = step_lengths(steps._replace(slope=slope, bend=torch.tensor([1.0, 3.0, 1.0])), squares)
    assert found[:2].tolist() == [LONGEST_STEP, 0.5]
    assert found[2].isnan()


def moved(pairs, k, *, biased, weighted, own_priors=False):
    """The rows after a half-step at once, and after its parts in torch's kernels, with the squares of the errors then."""
    frame, _, own, *_ = case(pairs.shape[0], k, biased, own_priors=own_priors)
    other = Rows.of(random_rows(pairs.shape[1], k + biased, seed=9, dtype=torch.float32), k)
    rating, weight = (random_rows(pairs.n_pairs, seed=seed, dtype=torch.float32) for seed in (10, 11))
    weight, constant = weight.abs() if weighted else None, 0.3 if biased else 0.0
    copy = own._replace(rows=own.rows.copy())
    errors = half_step(frame, pairs, copy, other, rating, weight, NOISE, constant)
    with use_kernels("torch"):
        biases = own.rows.biases + constant if biased else None
        slopes, slope, _ = error_sums(pairs, own.rows.factors, other.factors, rating, weight, biases, other.biases)
        steps = newton_steps(frame, own, slopes, slope if biased else None, NOISE)
        length = step_lengths(steps, square_sums(pairs, steps.move.factors, other.factors, weight, steps.move.biases))
        factors = own.rows.factors - length[:, None] * steps.move.factors
        biases = own.rows.biases - length * steps.move.biases if biased else None
        after = None if biases is None else biases + constant
        expected = error_sums(pairs, factors, other.factors, rating, weight, after, other.biases).square
    return copy.rows, errors, Rows(factors, biases), expected


@needs_kernels
@biased
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("k", kernels.WIDTHS)
def test_a_half_step_at_once_is_its_parts(k, biased, weighted):
    pairs = Pairs(*draw_pairs(150, 60, 1500), 150, 60)
    for own_priors in (False, True):
        with use_kernels("compiled"):
            rows, errors, expected, squares = moved(pairs, k, biased=biased, weighted=weighted, own_priors=own_priors)
        torch.testing.assert_close(rows.whole(), expected.whole(), rtol=1e-3, atol=1e-3)  # of rows of size 1
        torch.testing.assert_close(errors, squares, rtol=1e-2, atol=1e-3 * float(squares.max()))  # a difference of sums


@needs_kernels
def test_threads_change_no_bit_of_a_half_step(one_thread, monkeypatch):
    monkeypatch.setattr(kernels, "WORK_OF_A_THREAD", 1)
    pairs, found = Pairs(*draw_pairs(700, 60, 3000), 700, 60), []
    try:
        for n_threads in (1, 3):
            torch.set_num_threads(n_threads)
            rows, errors, *_ = moved(pairs, 16, biased=True, weighted=True)
            own = case(5000, 16, True)
            found.append([*rows, errors, *row_moments(own[2].rows, torch.zeros(17), own[2].counts, own[0], NOISE)])
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(*both) for both in zip(*found, strict=True))


def test_what_the_kernels_do_not_serve_is_left_as_it_is():
    pairs = Pairs(*draw_pairs(20, 10, 50), 20, 10)
    rating = random_rows(50, seed=10, dtype=torch.float32)
    for k, name in ((8, "torch"), (10, "compiled"), (136, "compiled")):
        if name == "compiled" and kernels._library() is None:
            continue
        frame, _, own, *_ = case(20, k, True)
        before = own.rows.copy()
        with use_kernels(name):
            other = Rows.of(random_rows(10, k + 1, seed=9, dtype=torch.float32), k)
            assert half_step(frame, pairs, own, other, rating, None, NOISE, 0.3) is None
        assert all(torch.equal(*both) for both in zip(own.rows, before, strict=True))
