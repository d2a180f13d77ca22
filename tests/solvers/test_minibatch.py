"""Training on batches: the fused road takes the steps of the ordinary one."""

import threading

import numpy as np
import pytest
import torch
import tutorial
from numpy.testing import assert_allclose
from torch_models import TEST, TRAIN, small

from sk_torchmf import Interactions
from sk_torchmf.solvers.minibatch import private_random_state

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("loss", ["squared_error", "huber", "poisson", "MSELoss"])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_fused_road_equals_the_ordinary_one(loss, weighted):
    class Ordinary(tutorial.Fused):
        forward_pairs = property()  # hasattr says no

    weight = np.linspace(0.5, 2, len(TRAIN)) if weighted else None
    data = Interactions(TRAIN.user_ids, TRAIN.item_ids, np.abs(TRAIN.ratings), num_users=150, num_items=80)  # poisson: counts
    options = {"loss": loss, "batch_size": None, "optimizer": "Adam", "optimizer__lr": 0.05, "max_iter": 20, "dtype": "float64"}
    fused, ordinary = (small(module, **options).fit(data, sample_weight=weight) for module in (tutorial.Fused, Ordinary))
    assert_allclose(fused.predict(TEST), ordinary.predict(TEST), rtol=1e-8)  # float64, twenty steps
    assert_allclose(fused.history_["loss"], ordinary.history_["loss"], rtol=1e-10)


def test_the_fused_road_is_taken():
    class Spy(tutorial.Fused):
        def forward(self, user, item):
            assert not self.training
            return super().forward(user, item)

    assert np.isfinite(small(Spy, batch_size=None, optimizer="LBFGS", optimizer__lr=1.0).fit(TRAIN).predict(TEST)).all()


def draw_three(drawn):
    with private_random_state(0, torch.device("cpu")):
        drawn.append(torch.rand(3))


def test_a_random_state_waits_for_that_of_another_thread_and_not_for_its_own():
    drawn = []
    other = threading.Thread(target=draw_three, args=(drawn,))
    with private_random_state(0, torch.device("cpu")):
        first = torch.rand(3)
        with private_random_state(0, torch.device("cpu")):
            within = torch.rand(3)
        other.start()
        other.join(0.05)
        assert drawn == []
    other.join()
    assert torch.equal(drawn[0], first)
    assert torch.equal(within, first)


def test_a_random_state_is_free_for_others_after_an_error():
    before = torch.get_rng_state()
    with pytest.raises(KeyError), private_random_state(0, torch.device("cpu")):
        raise KeyError(torch.rand(1))
    lost = private_random_state(0, torch.device("cpu"))
    lost.states = [torch.zeros(1, dtype=torch.uint8)]  # no state of a generator
    with pytest.raises(RuntimeError), lost:
        raise AssertionError("not reached")
    drawn = []
    other = threading.Thread(target=draw_three, args=(drawn,), daemon=True)
    other.start()
    other.join(10)
    assert len(drawn) == 1
    assert torch.equal(torch.get_rng_state(), before)
