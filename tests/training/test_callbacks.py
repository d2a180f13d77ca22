"""scikit-learn's callbacks on all four estimators and inside searches; and nothing where scikit-learn has none."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from every_solver import DATA, SOLVERS, numbers
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold

from sk_torchmf import BiasedMatrixFactorization

callback = pytest.importorskip("sklearn.callback", reason="scikit-learn has callbacks from 1.9 on")
pytestmark = pytest.mark.usefixtures("one_thread")
KINDS = ["variational", "variational logistic", "ials", "bpr", "torch", "torch ranking"]
every_kind = pytest.mark.parametrize("kind", KINDS)
ROOT = Path(__file__).parents[2]


class Recorder:
    """Notes every call; stops at an epoch if it is told to."""

    def __init__(self, stop_at=None):
        self.calls, self.stop_at, self.losses = [], stop_at, []

    def setup(self, estimator, context):
        self.calls.append(("setup", context.task_name))

    def teardown(self, estimator, context):
        self.calls.append(("teardown", context.task_name))

    def on_fit_task_begin(self, estimator, context):
        self.calls.append(("begin", context.task_name, context.task_id, context.max_subtasks))

    def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
        self.calls.append(("end", context.task_name, context.task_id))
        if context.task_name == "epoch":
            self.losses.append(fitted_estimator.history_["loss"][-1])
            return len(self.losses) == self.stop_at
        return False


class Keeper(Recorder):
    """Keeps the estimators of each epoch, and the data."""

    def __init__(self):
        super().__init__()
        self.fitted, self.data = [], []

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, metadata=None, fitted_estimator=None):
        if context.task_name == "epoch":
            self.fitted.append(fitted_estimator)
            self.data.append((X, y, metadata))


@every_kind
def test_each_epoch_is_a_task_of_the_fit(kind):
    recorder = Recorder()
    model = SOLVERS[kind].make().set_params(max_iter=3).set_callbacks(recorder).fit(SOLVERS[kind].data)
    epochs = [call for n in range(3) for call in (("begin", "epoch", n, 0), ("end", "epoch", n))]
    expected = [("setup", "fit"), ("begin", "fit", 0, 3), *epochs, ("end", "fit", 0), ("teardown", "fit")]
    assert recorder.calls == expected
    assert recorder.losses == model.history_["loss"]


@every_kind
def test_callbacks_change_nothing(kind):
    plain, watched = (
        SOLVERS[kind].make().fit(SOLVERS[kind].data),
        SOLVERS[kind].make().set_callbacks(Keeper()).fit(SOLVERS[kind].data),
    )
    for found, expected in zip(numbers(watched), numbers(plain), strict=True):
        assert_array_equal(found, expected)


@every_kind
def test_a_callback_stops_a_fit(kind):
    model = SOLVERS[kind].make().set_callbacks(Recorder(stop_at=2)).fit(SOLVERS[kind].data)
    assert model.n_iter_ == len(model.history_["loss"]) == 2


@every_kind
def test_the_estimator_of_an_epoch_is_that_of_a_shorter_fit_and_stays_so(kind):
    keeper, data = Keeper(), SOLVERS[kind].data
    model = SOLVERS[kind].make().set_callbacks(keeper).fit(data)
    last = keeper.fitted[-1]
    assert_array_equal(last.predict(data), model.predict(data))
    assert [fitted.n_iter_ for fitted in keeper.fitted] == list(range(1, 7))
    if kind != "bpr":  # whose steps shrink towards the last
        short = SOLVERS[kind].make().set_params(max_iter=2).fit(data)
        assert_array_equal(keeper.fitted[1].predict(data), short.predict(data))
    assert (keeper.fitted[0].predict(data) != last.predict(data)).any()


@pytest.mark.parametrize("form", ["container", "matrix", "table"])
def test_callbacks_see_the_observations_and_their_weights(form):
    keeper = Keeper()
    X = {"container": DATA, "matrix": DATA.tocsr(), "table": np.column_stack([DATA.user_ids, DATA.item_ids])}[form]
    weights = np.arange(40.0) if form == "matrix" else np.arange(float(len(DATA)))
    model = SOLVERS["als"].make().set_callbacks(keeper).fit(X, DATA.ratings if form == "table" else None, sample_weight=weights)
    X, y, metadata = keeper.data[0]
    assert len(y) == len(metadata["sample_weight"]) == model.seen_.nnz
    assert np.square(model.predict(X) - y).mean() < np.var(y)
    assert (metadata["sample_weight"] > 0).all()


def test_early_stopping_and_its_refit_are_two_tasks():
    recorder = Recorder()
    model = SOLVERS["adam"].make(early_stopping=True).set_callbacks(recorder).fit(DATA)
    parts = [call[1:] for call in recorder.calls if call[0] == "begin" and call[1] != "epoch"]
    assert parts == [("fit", 0, 2), ("early stopping", 0, 6), ("refit", 1, model.best_iter_)]
    assert len(recorder.losses) == model.n_iter_ + model.best_iter_
    assert len([call for call in recorder.calls if call[:2] == ("end", "epoch")]) == len(recorder.losses)


def test_a_fit_that_fails_is_torn_down():
    recorder = Recorder()
    model = BiasedMatrixFactorization(4, solver="sgd", learning_rate=1e6, max_iter=300).set_callbacks(recorder)
    with pytest.raises(RuntimeError):
        model.fit(DATA)
    assert recorder.calls[-1] == ("teardown", "fit")


def test_fit_batches_calls_back():
    recorder = Recorder()
    model = SOLVERS["torch"].make().set_callbacks(recorder)
    model.fit_batches([(DATA.user_ids, DATA.item_ids, DATA.ratings)], n_users=40, n_items=25)
    assert len(recorder.losses) == 6
    assert recorder.calls[-1] == ("teardown", "fit")


@every_kind
def test_scoring_monitor_scores_each_epoch(kind):
    monitor = callback.ScoringMonitor(scoring="neg_mean_squared_error")
    keeper, data = Keeper(), SOLVERS[kind].data
    SOLVERS[kind].make().set_callbacks(monitor, keeper).fit(data)
    rows = [row for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    assert [row["task_id"] for row in rows] == list(range(6))
    for row, fitted, (_, y, _) in zip(rows, keeper.fitted, keeper.data, strict=True):
        assert row["neg_mean_squared_error"] == pytest.approx(-np.square(fitted.predict(data) - y).mean(), rel=1e-9)


@every_kind
def test_a_progress_bar_and_a_monitor_work_in_a_search(kind, capsys):
    pytest.importorskip("rich")
    monitor = callback.ScoringMonitor(scoring="neg_mean_squared_error")
    model, data = SOLVERS[kind].make().set_callbacks(monitor), SOLVERS[kind].data
    search = GridSearchCV(model, {"max_iter": [2, 3]}, cv=KFold(2, shuffle=True, random_state=0), error_score="raise")
    search.set_callbacks(callback.ProgressBar()).fit(data, data.ratings)
    epochs = [row for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    assert len(epochs) == 2 * 2 + 2 * 3 + search.best_params_["max_iter"]
    assert "GridSearchCV" in capsys.readouterr().out


def test_clones_keep_their_callbacks():
    recorder = Recorder()
    clone(SOLVERS["als"].make().set_callbacks(recorder)).fit(DATA)
    assert len(recorder.losses) == 6


def test_without_callbacks_in_scikit_learn_verbose_alone_remains():
    """In a process whose scikit-learn has no such module."""
    code = """
import sys
import sklearn.linear_model, sklearn.model_selection, sklearn.pipeline
there = sys.modules["sklearn.callback"]
sys.modules["sklearn.callback"] = None
from sk_torchmf import BiasedMatrixFactorization, ImplicitMatrixFactorization, TorchFactorization, datasets, nn
sys.modules["sklearn.callback"] = there  # which scikit-learn itself imports in fit
data = datasets.make_ratings(40, 25, 400, random_state=0).interactions
for model in (
    BiasedMatrixFactorization(4), ImplicitMatrixFactorization(4), TorchFactorization(nn.BiasedMF, module__n_factors=4)
):
    assert not hasattr(model, "set_callbacks")
    model.set_params(max_iter=3, verbose=1, early_stopping=True, random_state=0).fit(data)
    assert model.n_iter_ == 3
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"(?:iteration|epoch) \d+, loss", done.stdout)) >= 9
