"""Training in several processes: what is shared, what cannot be, and what becomes of their errors."""

import os
import pickle
import signal

import numpy as np
import pytest
import torch
import tutorial
from contract import DATA
from joblib import Parallel, delayed
from numpy.testing import assert_array_equal
from torch import nn
from torch_models import NOISE, TEST, TRAIN, rmse, small

from sk_torchmf import DivergenceError

pytestmark = pytest.mark.usefixtures("one_thread")


def test_several_processes_train_one_module():
    schedule = {"scheduler": "CosineAnnealingLR", "scheduler__T_max": 30}
    model = small(n_processes=2, optimizer__lr=1.0, max_iter=30, **schedule).fit(TRAIN)
    assert rmse(model) < 1.1 * NOISE
    assert np.diff(model.history_["loss"][:3]).max() < 0
    assert_array_equal(pickle.loads(pickle.dumps(model)).predict(TEST), model.predict(TEST))


def test_several_processes_take_plain_sgd_and_weights_and_a_local_module():
    class Local(tutorial.Biased):  # has no importable name: it travels by value
        pass

    weight = np.linspace(0.5, 1.5, len(TRAIN))
    model = small(Local, optimizer="SGD", optimizer__lr=1.5, n_processes=2, max_iter=30).fit(TRAIN, sample_weight=weight)
    assert rmse(model) < 1.2 * NOISE


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"optimizer": "Adam", "module__sparse": False}, "SGD without momentum, or Adagrad. Got Adam"),
        ({"optimizer": "SGD", "optimizer__momentum": 0.9, "module__sparse": False}, r"optimizer__momentum=0.9"),
    ],
)
def test_several_processes_refuse_state_they_cannot_share(params, message):
    with pytest.raises(ValueError, match=message):
        small(n_processes=2, **params).fit(TRAIN)


class Away(tutorial.Plain):
    """Knows whether it is in another process than the one that made it."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.home = os.getpid()

    def forward(self, user, item):
        if os.getpid() != self.home:
            self.fail()
        return super().forward(user, item)


class Killed(Away):
    def fail(self):
        os.kill(os.getpid(), signal.SIGKILL)


class Raising(Away):
    def fail(self):
        raise KeyError("of my own")


def test_a_process_that_dies_makes_fit_raise():
    with pytest.raises(RuntimeError, match="process"):
        small(Killed, n_processes=2).fit(TRAIN)


def test_an_error_in_a_process_is_raised_here():
    with pytest.raises(KeyError, match="of my own"):
        small(Raising, n_processes=2).fit(TRAIN)


def test_several_processes_share_buffers_too():
    class Normed(tutorial.Plain):
        def __init__(self, n_users, n_items, n_factors):
            super().__init__(n_users, n_items, n_factors, sparse=False)
            self.norm = nn.BatchNorm1d(1)

        def forward(self, user, item):
            return self.norm(super().forward(user, item)[:, None])

    model = small(Normed, optimizer="SGD", optimizer__lr=0.1, n_processes=2, batch_size=60).fit(DATA)
    assert model.module_.norm.running_mean.abs() > 0
    assert model.module_.norm.num_batches_tracked > 0


def test_divergence_in_several_processes_is_divergence():
    with pytest.raises(DivergenceError, match="optimizer__lr=1e"):
        small(optimizer="SGD", optimizer__lr=1e6, n_processes=2, max_iter=5).fit(TRAIN)


@pytest.mark.filterwarnings("ignore:Loky-backed parallel loops cannot be nested")
def test_in_a_thread_where_joblib_starts_no_process_nothing_global_is_seeded(monkeypatch):
    """The parts are trained here, one after another; torch.manual_seed would seed CUDA's generators too."""
    monkeypatch.setattr(torch, "manual_seed", None)
    before = torch.get_rng_state()
    found = Parallel(n_jobs=2, backend="threading")(
        delayed(lambda: small(n_processes=2).fit(TRAIN).predict(TEST))() for _ in range(2)
    )
    assert_array_equal(*found)
    assert torch.equal(torch.get_rng_state(), before)
