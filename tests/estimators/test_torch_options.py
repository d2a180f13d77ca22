"""Parameters of an estimator's parts in the form part__name: get, set, repr, and a search over them."""

import pytest
import torch
import tutorial
from sklearn import config_context
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold
from torch import nn
from torch_models import TRAIN, small

from sk_torchmf import TorchFactorization

pytestmark = pytest.mark.usefixtures("one_thread")


def test_parameters_of_parts_are_parameters():
    model = small(scheduler="StepLR", scheduler__step_size=1)
    params = model.get_params()
    assert (params["module__n_factors"], params["optimizer__lr"], params["scheduler__step_size"]) == (3, 0.1, 1)
    twin = clone(model)
    assert twin.get_params() == params
    assert twin.set_params(optimizer__lr=0.3, module__n_factors=5, max_iter=1) is twin
    assert (twin.optimizer__lr, twin.module__n_factors, twin.max_iter) == (0.3, 5, 1)
    assert model.optimizer__lr == 0.1
    assert twin.fit(TRAIN).module_.user_factors.embedding_dim == 5


def test_repr_names_classes_and_leaves_defaults_out():
    model = TorchFactorization(tutorial.Plain, nn.MSELoss, torch.optim.SGD, optimizer__lr=0.1)
    assert repr(model) == "TorchFactorization(loss=MSELoss, module=Plain, optimizer=SGD, optimizer__lr=0.1)"


def test_grid_search_over_parts():
    grid = {"module__n_factors": [2, 3], "optimizer": ["Adagrad", "SGD"], "optimizer__lr": [0.05, 0.2]}
    search = GridSearchCV(small(max_iter=6), grid, cv=KFold(2, shuffle=True, random_state=0), error_score="raise", n_jobs=1)
    search.fit(TRAIN, TRAIN.ratings)
    assert len(search.cv_results_["params"]) == 8
    assert search.best_params_["optimizer"] == "Adagrad"  # SGD at a rate of 0.2 on the mean of 64 has hardly moved
    assert search.best_estimator_.optimizer__lr == search.best_params_["optimizer__lr"]


def test_a_misspelt_parameter_is_named_at_once():
    with pytest.raises(TypeError, match="no parameter optimzer__lr"):
        TorchFactorization(tutorial.Plain, optimzer__lr=0.1)
    with pytest.raises(ValueError, match=r"Invalid parameter 'max_itr'.*Did you mean max_iter\?"):
        small().set_params(max_itr=3)


def test_repr_heeds_scikit_learns_configuration():
    with config_context(print_changed_only=False):
        assert "handle_unknown='mean'" in repr(small())
