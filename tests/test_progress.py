"""How far long work is: shown where it is asked for, on stderr, and nothing else changes."""

import sys

import pytest
from every_solver import LIKED, SOLVERS
from numpy.testing import assert_array_equal

from sk_torchmf import metrics

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("bar", [True, False])
@pytest.mark.parametrize("kind", ["als", "variational", "ials", "torch"])
def test_recommend_and_evaluate_show_how_far_they_are(kind, bar, monkeypatch, capsys):
    if not bar:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    model = SOLVERS[kind].make().fit(SOLVERS[kind].data)
    quiet = model.recommend(k=3), metrics.evaluate(model, LIKED, "ndcg", exclude_seen=False)
    assert capsys.readouterr().err == ""
    shown = model.recommend(k=3, progress=True), metrics.evaluate(model, LIKED, "ndcg", exclude_seen=False, progress=True)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "recommend" in printed.err
    assert "evaluate" in printed.err
    assert "100%" in printed.err
    for found, expected in zip(shown[0], quiet[0], strict=True):
        assert_array_equal(found, expected)
    assert shown[1]["ndcg"][10] == pytest.approx(quiet[1]["ndcg"][10], rel=1e-12)
