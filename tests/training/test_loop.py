"""How fits go: early stopping and refit, history_, what is printed, and searches over what diverges."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from every_solver import DATA, LIKED, SOLVERS, numbers, torch_model
from numpy.testing import assert_array_equal
from overfitting import OVERFITS, every_estimator, overfit
from sklearn.model_selection import GridSearchCV, KFold

from sk_torchmf import BiasedMatrixFactorization, ImplicitMatrixFactorization, MatrixFactorization, metrics
from sk_torchmf.inputs.holdout import hold_out
from sk_torchmf.solvers.base import run

pytestmark = pytest.mark.usefixtures("one_thread")


@every_estimator
def test_it_stops_early_at_the_best_epoch_of_the_slice(kind):
    model, _ = overfit(kind)
    name = "validation_score" if kind == "implicit" else "validation_loss"
    values = model.history_[name]
    assert model.n_iter_ == len(model.history_["loss"]) == len(values) == len(model.history_["seconds"]) < 60
    assert model.best_score_ == (max if kind == "implicit" else min)(values)
    assert values[model.best_iter_ - 1] == model.best_score_


@every_estimator
def test_refit_is_a_fit_of_all_with_the_best_number_of_epochs(kind):
    model, data = overfit(kind)
    again = OVERFITS[kind]()
    if kind == "implicit":  # whose drawn steps shrink towards the last, of max_iter

        class Stop:
            def __init__(self, n):
                self.n = n

            def __call__(self, epoch, history, solver):
                return epoch == self.n

        reading = again._read(data, None, None)
        part = again._part(reading, again._check(), np.random.RandomState(0).randint(2**31 - 1), None)
        solver = part.make_solver()
        run(solver, max_iter=again.max_iter, watch=Stop(model.best_iter_))
        again._publish(reading.attributes() | part.attributes(solver))
    else:
        again.set_params(max_iter=model.best_iter_, **({} if kind == "torch" else {"tol": 0})).fit(data)
    for found, expected in zip(numbers(model), numbers(again), strict=True):
        assert_array_equal(found, expected)


@every_estimator
def test_without_refit_the_best_epochs_own_rows_are_kept(kind):
    model, data = overfit(kind, refit=False)
    seed = np.random.RandomState(0).randint(2**31 - 1)
    held = hold_out(data.user_ids, data.item_ids, 0.1, seed)
    assert model.seen_.nnz == len(data)
    assert model.user_counts_.sum() == len(data)
    if kind == "implicit":
        model.seen_ = data[~held].tocsr()
        figure = metrics.evaluate(model, data[held], "ndcg", 10)["ndcg"][10]
    else:
        error = np.square(model.predict(data[held]) - data.ratings[held]).mean()
        figure = error / (1 if kind == "torch" else model.rating_scale_**2)
    assert figure == pytest.approx(model.best_score_, rel=1e-4)


def test_a_search_stops_each_candidate_early():
    model = OVERFITS["biased"](early_stopping=True)
    search = GridSearchCV(model, {"n_factors": [2, 16]}, cv=KFold(2, shuffle=True, random_state=0), error_score="raise")
    search.fit(DATA, DATA.ratings)
    assert search.best_estimator_.best_iter_ < search.best_estimator_.n_iter_ < 100


def test_a_refit_without_early_stopping_forgets_what_it_found():
    model, data = overfit("biased")
    assert hasattr(model, "best_iter_")
    model.set_params(early_stopping=False, max_iter=2).fit(data)
    assert not hasattr(model, "best_iter_")
    assert not hasattr(model, "best_score_")


# what is shown


@every_estimator
def test_history_makes_a_frame(kind):
    model, _ = overfit(kind)
    frame = pd.DataFrame(model.history_)
    assert len(frame) == model.n_iter_
    assert {"loss", "seconds"} < set(frame.columns)
    assert frame.notna().all(axis=None)


@every_estimator
def test_verbose_shows_the_validation_figure_of_each_epoch(kind, capsys):
    model, _ = overfit(kind, verbose=1)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == model.n_iter_ + model.best_iter_
    name = "score" if kind == "implicit" else "loss"
    unit = "epoch" if kind == "torch" else "iteration"
    for n, line in enumerate(lines[: model.n_iter_], 1):
        figure = model.history_[f"validation_{name}"][n - 1]
        assert line.startswith(f"[{type(model).__name__}] {unit} {n}, loss {model.history_['loss'][n - 1]:.6g}, ")
        assert f", validation {name} {figure:.6g}, " in line
        assert line.endswith(" s")
    assert all("validation" not in line for line in lines[model.n_iter_ :])


# divergence


def warnings_of(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return "\n".join(str(warning.message) for warning in caught)


@pytest.mark.parametrize(
    ("model", "good", "bad"),
    [
        (MatrixFactorization(4, solver="sgd", max_iter=200, random_state=0), {"learning_rate": None}, {"learning_rate": 1e6}),
        (BiasedMatrixFactorization(4, solver="sgd", max_iter=200, random_state=0), {"learning_rate": None}, {"learning_rate": 1e6}),
        (torch_model(optimizer="SGD", max_iter=50), {"optimizer__lr": 0.01}, {"optimizer__lr": 1e6}),
    ],
)
def test_a_candidate_that_diverges_fails_and_the_search_goes_on(model, good, bad):
    grid = [{name: [value] for name, value in options.items()} for options in (good, bad)]
    search = GridSearchCV(model, grid, cv=KFold(2, shuffle=True, random_state=0), error_score=np.nan)
    words = r"DivergenceError: Loss became .* in epoch \d+ \(\w+=1e\+06\)\. Lower "
    assert re.search(words, warnings_of(lambda: search.fit(DATA, DATA.ratings)))
    scores = search.cv_results_["mean_test_score"]
    assert np.isfinite(scores[0])
    assert np.isnan(scores[1])
    assert search.best_params_ == good


def test_an_implicit_candidate_that_diverges_fails_and_the_search_goes_on(monkeypatch):
    from sk_torchmf.solvers import ials

    step = ials.ImplicitLeastSquares.step

    def overflow(self):
        return step(self) if self.alpha < 1 else {"loss": np.inf}

    monkeypatch.setattr(ials.ImplicitLeastSquares, "step", overflow)
    model = ImplicitMatrixFactorization(4, loss="ials", max_iter=3, random_state=0)
    search = GridSearchCV(model, {"alpha": [0.01, 2.0]}, cv=KFold(2, shuffle=True, random_state=0), error_score=np.nan)
    words = r"DivergenceError: Loss became inf in iteration 1\. Lower the weights .* or raise alpha"
    assert re.search(words, warnings_of(lambda: search.fit(LIKED)))
    assert search.best_params_ == {"alpha": 0.01}
    assert np.isnan(search.cv_results_["mean_test_score"][1])


def test_seeds_are_drawn_once_from_a_random_state():
    found = [
        numbers(SOLVERS["adam"].make(early_stopping=True).set_params(random_state=np.random.RandomState(3)).fit(DATA))
        for _ in range(2)
    ]
    for first, second in zip(*found, strict=True):
        assert_array_equal(first, second)


def test_several_processes_can_stop_early():
    model = torch_model(optimizer="SGD", optimizer__lr=0.01, n_processes=2, early_stopping=True, max_iter=2).fit(DATA)
    assert len(model.history_["validation_loss"]) == 2
    assert all(torch.isfinite(p).all() for p in model.module_.parameters())
