"""Fits in threads: with one random_state they are equal, and what belongs to the process is as it was."""

import sys
import threading
import warnings

import numpy as np
import pytest
import torch
from data import planted
from every_call import answers, calls_of
from every_estimator import MODELS
from every_solver import DATA, LIKED, SOLVERS, Dropout, numbers, torch_model
from joblib import Parallel, delayed
from numpy.testing import assert_allclose, assert_array_equal
from spotlight_like import ExplicitModel
from torch_models import batches_of

from sk_torchmf import TorchFactorization, _threads
from sk_torchmf.spotlight import SpotlightEstimator

SMALL = planted(3, mean=3.0)[0]
pytestmark = pytest.mark.usefixtures("one_thread", "switching_often")
FITS = {kind: lambda fit=fit: numbers(fit.make().fit(fit.data)) for kind, fit in SOLVERS.items()} | {
    "torch early stopping": lambda: numbers(torch_model(early_stopping=True).fit(DATA)),
    "torch ranking early stopping": lambda: numbers(torch_model(loss="bpr", early_stopping=True).fit(LIKED)),
    "torch on batches": lambda: numbers(torch_model().fit_batches(batches_of(DATA), n_users=40, n_items=25)),
    "torch partial_fit": lambda: numbers(torch_model().fit(DATA[:200]).partial_fit(DATA[200:])),
    "spotlight": lambda: numbers(SpotlightEstimator(ExplicitModel, random_state=0).fit(DATA)),
}


@pytest.fixture
def switching_often():
    """Threads take turns a hundred times as often as they would."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(5e-5)
    yield
    sys.setswitchinterval(interval)


def state_of_the_process():
    """Global random states, warning filters, and what else has a setting."""
    states = [*torch.get_rng_state().tolist(), *np.random.get_state()[1]]  # noqa: NPY002
    return states, list(warnings.filters), torch.get_num_threads(), torch.get_default_dtype(), np.geterr()


def in_threads(n, job):
    return Parallel(n_jobs=n, backend="threading")(delayed(job)() for _ in range(n))


@pytest.mark.parametrize("kind", FITS)
def test_fits_in_threads_equal_the_fit_alone(kind):
    """Each seeded torch's global generator, and went on from where the others had left it."""
    alone = FITS[kind]()
    before = state_of_the_process()
    for found in in_threads(4, FITS[kind]):
        for ours, theirs in zip(found, alone, strict=True):
            assert_array_equal(ours, theirs)
    assert state_of_the_process() == before  # filters that calls had set in turns stayed


@pytest.mark.parametrize("name", MODELS)
def test_one_model_is_asked_by_several_threads(name, monkeypatch):
    data = MODELS[name].rated(SMALL)
    model = MODELS[name](max_iter=2).fit(data)
    calls = {name: call for name, call in calls_of(model).items() if "fit" not in name}

    def job():
        return {name: answers(call(model, data)) for name, call in calls.items()}

    with monkeypatch.context() as patch:  # two threads that set warning filters in turns leave those of one behind
        patch.setattr(warnings.catch_warnings, "__enter__", lambda own: pytest.fail("warning filters are set"))
        alone = job()
    before = state_of_the_process()
    for found in in_threads(3, job):
        for call, expected in alone.items():
            for ours, theirs in zip(found[call], expected, strict=True):
                assert_array_equal(ours, theirs, err_msg=call)
    assert state_of_the_process() == before


def test_a_module_is_made_and_trained_in_turns():
    """Nobody else draws while one is made or goes through an epoch, and nobody waits for a fit that failed or is between epochs."""
    running, found = [], []

    class Watched(Dropout):
        def __init__(self, n_users, n_items):
            self.alone()
            super().__init__(n_users, n_items)

        def alone(self):
            running.append(threading.get_ident())
            torch.randn(100_000)  # lets others run
            found.append(len(set(running)))
            running.remove(threading.get_ident())

        def forward(self, user, item):
            if self.training:
                self.alone()
            return super().forward(user, item)

    class Failing(Watched):
        def forward(self, user, item):
            raise KeyError("of the module")

    def fails():
        with pytest.raises(KeyError, match="of the module"):
            TorchFactorization(Failing).fit(DATA)

    def ends():
        TorchFactorization(Watched, batch_size=64, max_iter=3).fit(DATA)

    Parallel(n_jobs=4, backend="threading")(delayed(job)() for job in (fails, ends, ends, ends))
    assert len(found) > 3 * 3
    assert set(found) == {1}


class Asking:
    """A callback that notes how many threads there are after each epoch, and may then fail."""

    def __init__(self, error=None):
        self.found, self.error = [], error

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context):
        self.found.append(torch.get_num_threads())
        if self.error is not None:
            raise self.error


@pytest.fixture
def two_threads(one_thread):
    torch.set_num_threads(2)  # ``one_thread`` puts back what was


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("kind", ["variational", "als", "lbfgs", "ials", "bpr", "torch"])
def test_a_small_fit_has_one_thread_but_that_of_a_module_of_ones_own(kind):
    pytest.importorskip("sklearn.callback", reason="scikit-learn has callbacks from 1.9 on")
    fit = SOLVERS[kind]
    asking, failing = Asking(), Asking(KeyError("of the callback"))
    model = fit.make().set_callbacks(asking).fit(fit.data)
    assert set(asking.found) == {2 if kind == "torch" else 1}
    assert torch.get_num_threads() == 2
    with pytest.raises(KeyError, match="of the callback"):
        model.set_callbacks(failing).fit(fit.data)
    assert failing.found == asking.found[:1]
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_more_work_has_all_threads_and_the_same_result_to_rounding(monkeypatch):
    alone = FITS["variational"]()
    monkeypatch.setattr(_threads, "LITTLE", 0)
    for ours, theirs in zip(FITS["variational"](), alone, strict=True):
        assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)  # six epochs in float32


def test_work_counts_observations_rows_and_matrices():
    """Ratings of 40 users and 25 items with 4 factors; in als each row has a matrix of 4 x 4 of its own."""
    reading = SOLVERS["variational"].make()._read(DATA, None, None)
    n_users, n_items = reading.shape
    expected = 4 * (len(DATA) + 4 * (n_users + n_items))
    assert SOLVERS["variational"].make()._work(reading) == expected
    assert SOLVERS["als"].make()._work(reading) == 4 * expected
    assert SOLVERS["ials"].make()._work(reading) == expected
    assert SOLVERS["torch"].make()._work(reading) == float("inf")
