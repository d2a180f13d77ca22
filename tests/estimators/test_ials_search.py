"""alpha="auto" and confidence="auto" of ImplicitMatrixFactorization: what is found, what comes of it, what is refused."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from communities import MATRIX, TEST, TRAIN, preferences, scores_of, small
from numpy.testing import assert_allclose, assert_array_equal

from sk_torchmf import Interactions
from sk_torchmf.estimators import _ials_search
from sk_torchmf.exceptions import DivergenceError
from sk_torchmf.solvers.ials import ImplicitLeastSquares

pytestmark = pytest.mark.usefixtures("one_thread")
BOTH = {"alpha": "auto", "confidence": "auto"}


def points_of(monkeypatch, worth, asked):
    """Replace what candidates are worth by a function of (alpha, confidence), and append what was asked for."""

    def trial(self, point, start, n_iterations):
        asked.append(_ials_search._settings(point, self.params, self.usual, self.matrix))
        return worth(*asked[-1]), None

    monkeypatch.setattr(_ials_search._Trial, "__call__", trial)


def test_tastes_of_three_factors_among_chance_are_found_with_more_regularisation_than_suits_by_default():
    train, test = preferences(n_users=300)
    usual = small(n_factors=48, biased=False, max_iter=30).fit(train)
    found = small(n_factors=48, biased=False, max_iter=30, **BOTH).fit(train)
    assert found.alpha_ > usual.alpha_
    assert found.score(test) > usual.score(test) + 0.02


def test_the_best_of_the_candidates_is_taken_along_both_scales(monkeypatch):
    asked = []

    def worth(alpha, confidence):  # best where alpha is twice what is usual for all weights, and confidence 9 times
        first = asked[0]
        by_three = np.log(confidence / first[1]) / np.log(3)
        by_two = np.log2(alpha / first[0] * (1 + first[1]) / (1 + confidence))
        return -abs(by_three - 2) - abs(by_two - 1)

    points_of(monkeypatch, worth, asked)
    usual, found = small().fit(TRAIN), small(**BOTH).fit(TRAIN)
    assert len(asked) == len(set(asked)) <= 12
    assert found.confidence_ / usual.confidence_ == pytest.approx(9.0)  # two steps by three
    weights = 1 + usual.confidence_, 1 + found.confidence_
    assert found.alpha_ == pytest.approx(0.01 * 2 * weights[1] / weights[0])


def test_what_is_not_auto_stays(monkeypatch):
    asked = []
    points_of(monkeypatch, lambda alpha, confidence: alpha + confidence, asked)  # more is better
    usual = small().fit(TRAIN)
    assert small(alpha=0.03, confidence="auto").fit(TRAIN).confidence_ > 3 * usual.confidence_
    assert {alpha for alpha, _ in asked} == {0.03}
    asked.clear()
    found = small(alpha="auto", confidence=7.0).fit(TRAIN)
    assert {confidence for _, confidence in asked} == {found.confidence_} == {7.0}
    asked.clear()
    assert small(alpha="auto").fit(TRAIN).confidence_ == usual.confidence_
    assert len({confidence for _, confidence in asked}) == 1
    assert small(confidence="auto").fit(TRAIN).alpha_ == usual.alpha_ == 0.01


@pytest.mark.parametrize("biased", [True, False], ids=["biased", "plain"])
def test_a_fit_with_what_was_found_is_the_same_and_so_is_one_of_the_same_seed(biased):
    found = small(biased=biased, **BOTH).fit(TRAIN)
    again = small(biased=biased, **BOTH).fit(TRAIN)
    given = small(biased=biased, alpha=found.alpha_, confidence=found.confidence_).fit(TRAIN)
    assert {type(found.alpha_), type(found.confidence_)} == {float}
    for other in (again, given):
        assert_array_equal(scores_of(other), scores_of(found))
        assert (other.alpha_, other.confidence_) == (found.alpha_, found.confidence_)
    assert found.get_params()["alpha"] == "auto"
    assert_array_equal(found.fold_in(MATRIX), given.fold_in(MATRIX))
    assert found.score(TEST) == given.score(TEST)


def test_new_users_are_folded_in_with_the_regularisation_of_the_fit():
    found = small(dtype="float64", biased=False, max_iter=500, tol=0, **BOTH).fit(MATRIX)
    assert_allclose(found.fold_in(MATRIX), found.user_factors_, atol=1e-3)  # where the fit has arrived


@pytest.mark.parametrize("broken", [np.nan, "error"])
def test_a_candidate_that_diverges_is_the_worst(monkeypatch, broken):
    class Diverging(ImplicitLeastSquares):
        def step(self):
            figures = super().step()
            if self.alpha < bound:
                if broken == "error":
                    raise torch.linalg.LinAlgError("not positive definite")
                self.rows[0].fill_(broken)
            return figures

    bound = small(**BOTH).fit(TRAIN).alpha_ * 0.8
    monkeypatch.setattr(_ials_search, "ImplicitLeastSquares", Diverging)
    found = small(**BOTH).fit(TRAIN)
    assert found.alpha_ >= bound
    assert np.isfinite(scores_of(found)).all()


def test_data_on_which_every_candidate_diverges_are_refused_as_by_any_fit(monkeypatch):
    class Diverging(ImplicitLeastSquares):
        def step(self):
            raise torch.linalg.LinAlgError("not positive definite")

    monkeypatch.setattr(_ials_search, "ImplicitLeastSquares", Diverging)
    monkeypatch.setattr("sk_torchmf.estimators._positives_part.ImplicitLeastSquares", Diverging)
    with pytest.raises(DivergenceError):
        small(**BOTH).fit(TRAIN)


def test_verbose_tells_each_candidate(monkeypatch, capsys):
    small(verbose=1, max_iter=2, tol=0, **BOTH).fit(TRAIN)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 5
    for number, line in enumerate(lines[:-2], 1):
        assert line.startswith(f"[ImplicitMatrixFactorization] candidate {number}, alpha 0.")
        assert ", confidence " in line
        assert ", worth 0." in line
    assert lines[-1].startswith("[ImplicitMatrixFactorization] iteration 2, loss ")


def test_weights_are_part_of_what_is_searched(monkeypatch):
    weight = np.full(len(TRAIN), 8.0)
    found, heavy = small(**BOTH).fit(TRAIN), small(**BOTH).fit(TRAIN, sample_weight=weight)
    assert heavy.confidence_ == pytest.approx(found.confidence_ / 8)  # all weights alike say nothing
    assert heavy.alpha_ == pytest.approx(found.alpha_)
    assert_allclose(scores_of(heavy), scores_of(found), atol=1e-4)


def test_with_early_stopping_a_checkpoint_warm_start_and_partial_fit(tmp_path):
    found = small(**BOTH).fit(TRAIN)
    kept = small(checkpoint=tmp_path / "fit", **BOTH).fit(TRAIN)
    assert_array_equal(scores_of(kept), scores_of(found))
    stopped = small(early_stopping=True, **BOTH).fit(TRAIN)
    assert stopped.score(TEST) > 0.9
    on = small(warm_start=True, **BOTH).fit(TRAIN[: len(TRAIN) // 2]).fit(TRAIN)
    assert (on.alpha_, on.confidence_) == (found.alpha_, found.confidence_)
    grown = small(**BOTH).fit(TRAIN[: len(TRAIN) // 2]).partial_fit(TRAIN[len(TRAIN) // 2 :])
    assert grown.confidence_ == pytest.approx(found.confidence_)
    assert grown.alpha_ == pytest.approx(found.alpha_)


@pytest.mark.parametrize("loss", ["cosine", "bpr", "softmax"])
@pytest.mark.parametrize("name", ["alpha", "confidence"])
def test_auto_is_for_ials(loss, name):
    with pytest.raises(ValueError, match=f'{name}="auto" is for loss="ials". Got loss="{loss}". Pass a number, or None.'):
        small(loss, **{name: "auto"}).fit(TRAIN)


def test_users_of_one_item_each_leave_nothing_to_hold_out():
    X = sp.csr_array(np.eye(4))
    with pytest.raises(ValueError, match=r'alpha and confidence="auto" holds out some .* no user has two items'):
        small(**BOTH).fit(X)


def test_rows_taken_over_have_the_usual_regularisation():
    rows = {"user_factors": np.eye(3, 2), "item_factors": np.eye(4, 2)}
    data = Interactions(np.array([0, 1, 2]), np.array([0, 1, 3]), num_users=3, num_items=4)
    model = small(n_factors=2, biased=False, **BOTH).set_factors(**rows, interactions=data)
    usual = small(n_factors=2, biased=False).set_factors(**rows, interactions=data)
    assert_array_equal(model.fold_in(data.tocsr()), usual.fold_in(data.tocsr()))
