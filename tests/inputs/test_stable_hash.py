"""The stable hash: one number for one label, the same for ever and everywhere, spread evenly."""

import hashlib
import os
import struct
import subprocess
import sys
from datetime import date
from decimal import Decimal
from fractions import Fraction
from statistics import NormalDist

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sk_torchmf.inputs.labels import encode
from sk_torchmf.inputs.stable_hash import normal_rows, shares, stable_hash


def splitmix64(x):
    """The published algorithm, in Python's own integers."""
    word = 2**64 - 1
    x = (x + 0x9E3779B97F4A7C15) & word
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & word
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & word
    return x ^ (x >> 31)


def blake(text):
    return struct.unpack("<Q", hashlib.blake2b(text, digest_size=8).digest())[0]


def objects(*values):
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def test_whole_numbers_are_splitmix64():
    assert splitmix64(0) == 0xE220A8397B1DCDAF  # the first output of the published generator at seed 0
    labels = [-(2**63), -1, 0, 17, 2**63 - 1]
    assert stable_hash(np.array(labels), "user").tolist() == [splitmix64(label % 2**64) for label in labels]


def test_text_is_blake2b():
    labels = ["", "ann", "Zoë", "\ud800", "x" * 300]
    expected = [blake(label.encode("utf-8", "surrogatepass")) for label in labels]
    assert stable_hash(np.array(labels, dtype=object), "user").tolist() == expected
    assert stable_hash(np.array(labels), "user").tolist() == expected  # of fixed width


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.array([3, 17, 200], dtype=np.uint8), np.array([3.0, 17.0, 200.0])),
        (np.array([3, 17], dtype=np.int32), np.array([3, 17], dtype=np.uint64)),
        (np.array([0]), np.array([-0.0])),
        (np.array([2**64 - 1, 5], dtype=np.uint64), objects(2**64 - 1, 5)),
        (np.array([-3, 17]), objects(-3, 17.0)),
        (np.array([0.5, 0.25]), objects(Fraction(1, 2), Decimal("0.25"))),
        (objects(Fraction(1, 10)), objects(Decimal("0.10"))),
        (objects(10**400), objects(Fraction(10**400))),
        (np.array([True, False]), objects(True, False)),
        (np.array([b"ann", b"bob"]), objects(b"ann", b"bob")),
        (np.array([16, 42], dtype=">i8"), np.array([16, 42])),
        (np.array(["ann"], dtype=">U5"), np.array(["ann"])),
        (np.array(["2026-01-02"], dtype="M8[D]"), np.array(["2026-01-02"], dtype="M8[ns]")),
        (np.array([48], dtype="m8[h]"), np.array([2], dtype="m8[D]")),
    ],
)
def test_equal_labels_have_equal_hashes_in_whatever_type(one, other):
    assert_array_equal(stable_hash(one, "user"), stable_hash(other, "user"))


def test_different_labels_have_different_hashes():
    labels = [np.arange(-1000, 1000), np.arange(1000) + 0.5, np.arange(1000).astype(str), np.array([b"", b"b"])]
    hashed = np.concatenate([stable_hash(part, "user") for part in labels])
    assert len(np.unique(hashed)) == len(hashed) == 4002


def test_number_and_its_text_are_two_labels():
    assert stable_hash(np.array([7]), "user") != stable_hash(np.array(["7"]), "user")


def test_another_process_finds_the_same():
    program = "import numpy as np; from sk_torchmf.inputs.stable_hash import stable_hash as h; print(h(np.array(['bob']), '')[0])"
    env = os.environ | {"PYTHONHASHSEED": "1"}
    found = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, check=True, text=True).stdout
    assert int(found) == blake(b"bob")


@pytest.mark.parametrize("labels", [np.arange(80_000), np.arange(80_000).astype(str), np.arange(80_000) * 2.0**-3])
@pytest.mark.parametrize("n_shares", [1, 3, 8])
def test_shares_are_of_equal_size(labels, n_shares):
    counts = np.bincount(shares(stable_hash(labels, "user"), n_shares), minlength=n_shares)
    expected = 80_000 / n_shares
    assert len(counts) == n_shares
    assert np.abs(counts - expected).max() <= 5 * expected**0.5  # five standard deviations of a random division


def test_shares_nest():
    hashed = stable_hash(np.arange(1000), "user")
    for n_shares in (1, 2, 4, 8):
        assert_array_equal(shares(hashed, 16) * n_shares // 16, shares(hashed, n_shares))


def test_shares_at_the_ends():
    ends = np.array([0, 2**64 - 1], dtype=np.uint64)
    for n_shares in (1, 7, 2**32):
        assert shares(ends, n_shares).tolist() == [0, n_shares - 1]


def test_nothing_has_no_hashes():
    for kind in ("int64", "U3", object, "M8[s]"):
        hashed = stable_hash(np.empty(0, dtype=kind), "user")
        assert hashed.shape == (0,)
        assert hashed.dtype == np.uint64


def test_labels_of_a_mixed_column():
    mixed = encode(objects(3, "a", 4), "user")[1]  # numbers among text are text
    assert_array_equal(stable_hash(mixed, "user"), stable_hash(np.array(["3", "4", "a"]), "user"))


def test_other_objects_are_refused():
    with pytest.raises(TypeError, match=r"user ids must be numbers, text, bytes or times, .* Got date\. Convert them to text\."):
        stable_hash(objects(date(2026, 1, 2)), "user")


def test_rows_are_a_stream_of_splitmix64_through_the_normal_distribution():
    hashed, seed = stable_hash(np.array([3, 17]), "user"), 5
    found = normal_rows(hashed, 3, seed, np.float64)
    for label, row in zip(hashed.tolist(), found, strict=True):
        start = splitmix64(label ^ splitmix64(seed))
        words = [splitmix64((start + step * 0x9E3779B97F4A7C15) % 2**64) for step in range(3)]
        assert_allclose(row, [NormalDist().inv_cdf(((word >> 11) + 0.5) / 2**53) for word in words], rtol=1e-9)


def test_rows_depend_on_label_and_seed_alone():
    hashed = stable_hash(np.arange(40_000), "user")
    rows = normal_rows(hashed, 4, 0, np.float32)
    assert rows.dtype == np.float32
    some = np.array([39_999, 3, 20_000])
    assert_array_equal(normal_rows(hashed[some], 4, 0, np.float32), rows[some])
    assert not (normal_rows(hashed, 4, 1, np.float32) == rows).any()
    assert normal_rows(hashed[:0], 4, 0, np.float64).shape == (0, 4)


def test_rows_are_normal_and_independent():
    n = 40_000
    rows = normal_rows(stable_hash(np.arange(n), "user"), 4, 2, np.float64)
    both = np.column_stack([rows, normal_rows(stable_hash(np.arange(n), "user"), 4, 3, np.float64), np.roll(rows, 1, axis=0)])
    error = 5 / n**0.5  # five standard errors of a mean of unit variance
    assert np.abs(both.mean(0)).max() < error
    assert np.abs((both**2).mean(0) - 1).max() < 2**0.5 * error
    assert np.abs(np.corrcoef(both.T) - np.eye(12)).max() < error
    assert np.abs(np.quantile(rows, [0.1, 0.9]) - [-1.2816, 1.2816]).max() < 0.02
