"""The survey of a data set on disk: counts, and the location and scale that the same ratings have in memory."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sk_torchmf import Shards
from sk_torchmf.inputs import stored_ratings
from sk_torchmf.inputs.stored_ratings import read_shards, survey
from sk_torchmf.nn import POINTWISE
from sk_torchmf.solvers.scaling import standardise


def build(folder, rating, weights):
    rng = np.random.default_rng(0)
    rows = {"user": rng.integers(30, size=500), "item": rng.integers(20, size=500), "rating": rating}
    if weights:
        rows["weight"] = rng.integers(1, 9, size=500) / 8
    names = {"user": "user", "item": "item", "rating": "rating"} | ({"weight": "weight"} if weights else {})
    return Shards.from_chunks([rows], folder, n_shards=4, **names), rows


RATINGS = {
    "levels": np.random.default_rng(1).integers(1, 11, size=500) / 2,
    "values": np.random.default_rng(1).gamma(2.0, size=500).astype(np.float32),
    "signs": np.where(np.random.default_rng(1).uniform(size=500) < 0.3, -1.0, 1.0),
    "all alike": np.full(500, 3.0),
}


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize(
    ("loss", "ratings"),
    [
        ("squared_error", "levels"),
        ("squared_error", "values"),
        ("squared_error", "all alike"),
        ("huber", "levels"),
        ("poisson", "values"),
        ("logistic", "signs"),
    ],
)
def test_a_survey_finds_what_the_ratings_in_memory_say(loss, ratings, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(stored_ratings, "BLOCK", 60)
    shards, rows = build(tmp_path / "a", RATINGS[ratings], weights)
    loss, weight = POINTWISE[loss], rows.get("weight")
    coded, found = loss.check(np.asarray(rows["rating"], dtype=np.float64)), survey(shards, loss, "float64")
    assert_allclose((found.location, found.scale), standardise(coded, weight, loss), rtol=1e-12)
    assert found.limits == (coded.min(), coded.max())
    assert found.weighted == weights
    by_user = np.bincount(rows["user"], weight, 30)[shards.users]
    assert_allclose(found.counts[0], by_user, rtol=1e-15)
    assert_allclose(found.counts[1], np.bincount(rows["item"], weight, 20)[shards.items], rtol=1e-15)
    stored = np.concatenate([found.decode(np.asarray(block.codes)) for block in shards])
    assert_array_equal(np.sort(stored), np.sort(coded))


def test_rows_are_numbered_by_the_sorted_labels(tmp_path):
    shards, _ = build(tmp_path / "a", RATINGS["levels"], False)
    reading = read_shards(shards, None, None, "Model")
    assert_array_equal(reading.users, np.sort(shards.users))
    assert_array_equal(reading.users[reading.data.user_ids], shards.users)
    assert (reading.form, reading.shape, len(reading.data)) == ("shards", (30, 20), 500)
