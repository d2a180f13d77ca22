"""TorchFactorization: any module, loss and optimizer as an estimator like the others."""

import os
import pickle
import signal
from functools import partial

import numpy as np
import pytest
import scipy.sparse as sp
import torch
import tutorial
from contract import DATA, EstimatorContract
from data import as_form, planted
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.utils.estimator_checks import estimator_checks_generator
from test_sklearn import OLDER
from torch import nn

from sk_torchmf import DivergenceError, Interactions, TorchFactorization
from sk_torchmf.nn import BiasedMF, huber

NOISE = 0.3
RATINGS, _ = planted(3, mean=3.0, noise=NOISE, n_users=150, n_items=80, n_ratings=9000)
HELD_OUT = np.arange(len(RATINGS)) % 10 == 0
TRAIN, TEST = RATINGS[~HELD_OUT], RATINGS[HELD_OUT]
pytestmark = pytest.mark.usefixtures("one_thread")


def rmse(model, data=TEST):
    return float(np.sqrt(np.mean((model.predict(data) - data.ratings) ** 2)))


def small(module=tutorial.Biased, loss="MSELoss", optimizer="Adagrad", **params):
    params = {"module__n_factors": 3, "optimizer__lr": 0.1, "max_iter": 2, "batch_size": 64, "random_state": 0} | params
    return TorchFactorization(module, loss, optimizer, **params)


class TestContract(EstimatorContract):
    """As every estimator; all ratings in each step, which is what makes weights and repeated rows the same."""

    def make(self, **params):
        options = {"module__n_factors": 3, "optimizer__lr": 0.1, "batch_size": None, "max_iter": 20, "random_state": 0}
        return TorchFactorization(tutorial.Parameters, optimizer="Adam", **options | params)

    def check_both_unknown(self, scores, known):
        assert_allclose(scores, known.mean(), atol=0.2 * known.std())  # a sample of pairs, not all

    def check_same(self, wider, narrow):
        """Ids that fit never saw have rows of the module too, drawn at random before the others, which start elsewhere."""

    def test_a_weight_of_zero_is_absence(self):  # a table's ids without weight keep their row of the module, drawn at random
        keep = np.arange(len(DATA)) % 3 > 0
        weighted = self.make(dtype="float64").fit(DATA, sample_weight=keep.astype(float))
        assert_allclose(self.grid(weighted), self.grid(self.fitted(data=DATA[keep], dtype="float64")), rtol=1e-9)
        assert weighted.seen_.nnz == keep.sum()


# what people train

SETTINGS = {
    "plain, SGD": (tutorial.Plain, {"optimizer": "SGD", "optimizer__lr": 4.0}),
    "biased, SGD": (tutorial.Biased, {"optimizer": "SGD", "optimizer__lr": 4.0}),
    "plain, Adagrad": (tutorial.Plain, {"optimizer": torch.optim.Adagrad, "optimizer__lr": 1.0}),
    "biased, Adagrad": (tutorial.Biased, {"optimizer": torch.optim.Adagrad, "optimizer__lr": 1.0}),
    "plain, SparseAdam": (tutorial.Plain, {"optimizer": "SparseAdam", "optimizer__lr": 0.03}),
    "biased, Adam": (tutorial.Biased, {"module__sparse": False, "optimizer": "Adam", "optimizer__lr": 0.03}),
    "plain, weight decay": (
        tutorial.Plain,
        {"module__sparse": False, "optimizer": "SGD", "optimizer__lr": 4.0, "optimizer__weight_decay": 1e-5},
    ),
    "biased, momentum": (
        tutorial.Biased,
        {"module__sparse": False, "optimizer": "SGD", "optimizer__lr": 0.4, "optimizer__momentum": 0.9},
    ),
    "dropout": (tutorial.Dropout, {"module__p": 0.02, "optimizer": "Adam", "optimizer__lr": 0.03}),
    "penalty": (tutorial.Penalised, {"module__alpha": 1e-5, "optimizer": "Adam", "optimizer__lr": 0.03}),
    "bare parameters": (tutorial.Parameters, {"optimizer": "Adam", "optimizer__lr": 0.03}),
    "squeezed": (tutorial.Squeezed, {"optimizer": "Adagrad", "optimizer__lr": 1.0, "batch_size": 149}),  # 8100 = 54 * 149 + 54
}


@pytest.mark.parametrize("name", SETTINGS)
def test_every_model_of_the_tutorial_comes_within_ten_percent_of_the_noise(name):
    module, options = SETTINGS[name]
    options = {"module__n_factors": 3, "max_iter": 40, "batch_size": 128, "random_state": 0} | options
    schedule = {"scheduler": "CosineAnnealingLR", "scheduler__T_max": 40}
    model = TorchFactorization(module, "MSELoss", **options, **schedule).fit(TRAIN)
    assert rmse(model) < 1.1 * NOISE


@pytest.mark.parametrize(
    "loss", ["squared_error", "MSELoss", nn.MSELoss, nn.MSELoss(), nn.functional.mse_loss, lambda s, r: (s - r).square().mean()]
)
def test_a_loss_can_be_given_in_many_ways(loss):
    model = small(loss=loss).fit(TRAIN)
    assert_allclose(model.predict(TEST), small().fit(TRAIN).predict(TEST), rtol=1e-4)  # float32, sums in another order


def test_the_options_of_a_loss_reach_it():
    strict, loose = (small(loss="HuberLoss", loss__delta=delta).fit(TRAIN).history_["loss"][0] for delta in (0.1, 10.0))
    assert strict < loose / 2


@pytest.mark.parametrize(
    ("loss", "response"), [("poisson", np.exp), ("logistic", lambda s: 1 / (1 + np.exp(-s))), (huber, lambda s: s)]
)
def test_a_loss_with_a_link_predicts_the_response(loss, response):
    data = Interactions(TRAIN.user_ids, TRAIN.item_ids, (TRAIN.ratings > 3).astype(float), num_users=150, num_items=80)
    model = small(loss=loss).fit(data)
    score = model.module_(*(torch.from_numpy(ids).long() for ids in (TEST.user_ids, TEST.item_ids))).detach().numpy()[:, 0]
    assert_allclose(model.predict(TEST), response(score), rtol=1e-5)
    assert_allclose(model.to_module()(torch.tensor([3]), torch.tensor([4])).item(), model.predict(3, 4), rtol=1e-5)


def test_a_loss_that_sums_is_weighted_as_its_sum():
    weight = np.where(np.arange(len(TRAIN)) % 2 == 0, 2.0, 1.0)
    options = {"batch_size": None, "optimizer": "SGD", "optimizer__lr": 1e-5, "dtype": "float64"}
    twice = TRAIN[np.repeat(np.arange(len(TRAIN)), weight.astype(int))]
    scale = weight.mean()  # the estimator divides weights by their mean, so that a learning rate means the same
    weighted = small(loss=nn.MSELoss(reduction="sum"), **options).fit(TRAIN, sample_weight=weight)
    repeated = small(loss=nn.MSELoss(reduction="sum"), **options | {"optimizer__lr": 1e-5 / scale}).fit(twice)
    assert_allclose(weighted.predict(TEST), repeated.predict(TEST), rtol=1e-9)


def test_weights_need_a_loss_that_tells_the_loss_of_each_pair():
    with pytest.raises(ValueError, match='Weights need a loss that takes reduction="none"'):
        small(loss=lambda s, r: (s - r).square().mean()).fit(TRAIN, sample_weight=np.ones(len(TRAIN)))


# batches


@pytest.mark.parametrize("batch_size", [1, 7, 299, 300, 1000])
def test_last_batch_of_one_and_all_others(batch_size):
    model = small(tutorial.Squeezed, batch_size=batch_size, max_iter=1).fit(DATA)  # 300 ratings
    assert np.isfinite(model.predict(DATA)).all()


def test_every_rating_is_in_exactly_one_batch_of_an_epoch_and_orders_differ():
    seen = []

    class Recorder(tutorial.Plain):
        def forward(self, user, item):
            if self.training:
                seen.append((user * 100 + item).numpy())
            return super().forward(user, item)

    small(Recorder, batch_size=64).fit(DATA)
    assert {len(batch) for batch in seen} == {64, 300 - 4 * 64}
    first, second = np.concatenate(seen[:5]), np.concatenate(seen[5:])
    assert_array_equal(np.sort(first), np.sort(DATA.user_ids * 100 + DATA.item_ids))
    assert_array_equal(np.sort(first), np.sort(second))
    assert (first != second).any()


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


# batches of one's own


def batches_of(data, size=100):
    return [(part.user_ids, part.item_ids, part.ratings) for part in (data[at : at + size] for at in range(0, len(data), size))]


def test_batches_of_ones_own_train_as_well():
    options = {"max_iter": 30, "optimizer__lr": 0.2}
    model = small(**options).fit_batches(batches_of(TRAIN), n_users=150, n_items=80)
    assert rmse(model) < 1.1 * NOISE
    assert model.seen_.nnz == 0
    assert_array_equal(model.user_counts_, np.bincount(TRAIN.user_ids, minlength=150))
    assert_array_equal(model.rating_range_, [TRAIN.ratings.min(), TRAIN.ratings.max()])
    assert model.recommend([3], k=2)[0].shape == (1, 2)


@pytest.mark.parametrize("how", ["function", "loader", "dataset"])
def test_batches_can_come_from_what_iterates_anew(how):
    made = batches_of(TRAIN)

    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(made)

    batches = {
        "function": lambda: iter(made),
        "loader": torch.utils.data.DataLoader(Stream(), batch_size=None),
        "dataset": Stream(),
    }[how]
    expected = small().fit_batches(made, n_users=150, n_items=80).predict(TEST)
    assert_array_equal(small().fit_batches(batches, n_users=150, n_items=80).predict(TEST), expected)


def test_batches_weights_count():
    weighted = [(*batch, np.full(len(batch[0]), 2.0)) for batch in batches_of(TRAIN)]
    model = small().fit_batches(weighted, n_users=150, n_items=80)
    assert model.user_counts_.sum() == 2 * len(TRAIN)


def test_a_spent_iterator_is_for_one_epoch():
    with pytest.raises(ValueError, match=r"max_iter=2\. Pass max_iter=1"):
        small().fit_batches(iter(batches_of(TRAIN)), n_users=150, n_items=80)
    small(max_iter=1).fit_batches(iter(batches_of(TRAIN)), n_users=150, n_items=80)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (([0], [0]), r"Batch 0 must be \(user, item, rating\)"),
        (([200], [0], [1.0]), r"users of batch 0\[0\] is 200, but n_users is 150"),
        (([0], [-1], [1.0]), "items of batch 0 must be >= 0"),
        (([0], [0, 1], [1.0]), "items of batch 0 must have one value"),
        (([0], [0], [np.nan]), r"ratings of batch 0\[0\] is nan"),
        (([0], [0], [1.0], [-1.0]), "weights of batch 0 must be >= 0"),
    ],
)
def test_a_bad_batch_is_named(batch, message):
    with pytest.raises(ValueError, match=message):
        small().fit_batches([batch], n_users=150, n_items=80)


def test_no_batches_are_refused():
    with pytest.raises(ValueError, match="batches gave nothing in epoch 1"):
        small().fit_batches([], n_users=150, n_items=80)


def test_memory_does_not_grow_with_the_number_of_batches():
    import tracemalloc

    def stream(n):
        rng = np.random.default_rng(0)
        for _ in range(n):
            yield rng.integers(150, size=1000), rng.integers(80, size=1000), rng.normal(size=1000)

    peaks = []
    for n in (5, 50):
        tracemalloc.start()
        small(max_iter=1).fit_batches(stream(n), n_users=150, n_items=80)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] + 100_000  # 45 batches more would be 1 MB


# features


def observed_on_days():
    """Ratings that hang on the day and the hour, as a frame."""
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    day, hour = rng.choice(["mon", "sat", "sun"], len(RATINGS)), rng.uniform(0, 1, len(RATINGS))
    effect = {"mon": -1.0, "sat": 0.5, "sun": 1.5}
    target = RATINGS.ratings + np.array([effect[name] for name in day]) + 2 * hour
    return pandas.DataFrame({"u": RATINGS.user_ids, "i": RATINGS.item_ids, "day": day, "hour": hour}), target


def weekly(**params):
    options = {"features": ["day", "hour"], "user": "u", "item": "i", "max_iter": 30, "optimizer__lr": 0.2}
    return small(tutorial.Weekly, **options | params)


def test_features_reach_forward_and_carry_their_effect():
    X, y = observed_on_days()
    model = weekly().fit(X[~HELD_OUT], y[~HELD_OUT])
    assert np.sqrt(np.mean((model.predict(X[HELD_OUT]) - y[HELD_OUT]) ** 2)) < 1.15 * NOISE
    assert list(model.feature_categories_["day"]) == ["mon", "sat", "sun"]
    by_ids = model.predict(X["u"].to_numpy()[:5], X["i"].to_numpy()[:5], features={"day": X["day"][:5], "hour": X["hour"][:5]})
    assert_allclose(by_ids, model.predict(X[:5]), rtol=1e-6)
    early, late = (model.predict(3, [4, 5], features={"day": "sun", "hour": hour}) for hour in (0.0, 1.0))
    assert_allclose(late - early, model.module_.slope.item(), rtol=1e-4)
    weekdays = [
        model.recommend([3], k=80, exclude_seen=False, features={"day": day, "hour": 0.5})[1].mean() for day in ("mon", "sun")
    ]
    assert weekdays[1] - weekdays[0] == pytest.approx(2.5, abs=0.2)


def test_features_of_an_array_are_columns_by_position_and_of_a_container_its_own_arrays():
    X, y = observed_on_days()
    frame = weekly(features={"day": "day", "hour": "hour"}).fit(X, y)
    array = weekly(features={"day": 2, "hour": 3}, user=0, item=1).fit(X.to_numpy(), y)
    assert_allclose(array.predict(X.to_numpy()), frame.predict(X), rtol=1e-6)

    class Timed(tutorial.Plain):
        def forward(self, user, item, timestamps):
            return super().forward(user, item) + timestamps

    stamped = Interactions(DATA.user_ids, DATA.item_ids, DATA.ratings, timestamps=np.linspace(0, 1, len(DATA)))
    model = small(Timed, features=["timestamps"]).fit(stamped)
    later = Interactions(DATA.user_ids, DATA.item_ids, timestamps=stamped.timestamps + 1)
    assert_allclose(model.predict(later) - model.predict(stamped), 1.0, rtol=1e-5)
    with pytest.raises(ValueError, match="features='timestamps': of Interactions"):
        model.predict(DATA)


def test_an_unknown_category_is_averaged_out_an_error_or_nan():
    X, y = observed_on_days()
    new = X[:4].assign(day=["mon", "mon", "never", "mon"])
    model = weekly().fit(X, y)
    expected = np.mean([model.predict(X[2:3].assign(day=day))[0] for day in model.background_["day"]])
    assert model.predict(new)[2] == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ValueError, match="category of day of row 2 was not seen"):
        weekly(handle_unknown="error").fit(X, y).predict(new)
    assert_array_equal(np.isnan(weekly(handle_unknown="nan").fit(X, y).predict(new)), [False, False, True, False])


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ("day", "list of column names"),
        ([3], "needs a name. Got 3"),
        (["dya", "hour"], "'dya' is not a column of X"),
        (["day"], r"must define forward\(user, item, day\).*hour"),
    ],
)
def test_features_that_do_not_fit_are_named(features, message):
    X, y = observed_on_days()
    with pytest.raises((ValueError, TypeError), match=message):
        weekly(features=features).fit(X, y)


def test_features_left_out_at_predict_are_named():
    X, y = observed_on_days()
    model = weekly().fit(X, y)
    with pytest.raises(ValueError, match="'day' is missing"):
        model.predict(3, 4)
    with pytest.raises(ValueError, match="'dya' is not one of them"):
        model.predict(3, 4, features={"day": "mon", "hour": 0.5, "dya": 1})
    with pytest.raises(ValueError, match="features need a table"):
        weekly().fit(as_form(RATINGS, "sparse")[0])
    with pytest.raises(ValueError, match=r"hour\[0\] is nan"):
        model.predict(X.assign(hour=np.nan))


# parameters


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


def test_groups_of_parameters_have_options_of_their_own():
    options = {"*_biases*": {"lr": 0.0}, "*_factors*": {"lr": 0.2}}
    model = small(parameter_options=options).fit(TRAIN)
    start = small(max_iter=1, optimizer__lr=1e-12).fit(TRAIN)
    assert_array_equal(model.module_.user_biases.weight.detach(), start.module_.user_biases.weight.detach())
    assert (model.module_.user_factors.weight != start.module_.user_factors.weight).any()
    with pytest.raises(ValueError, match=r"no parameter is called 'user_bias'\. Did you mean user_biases"):
        small(parameter_options={"user_bias": {"lr": 1.0}}).fit(TRAIN)


def test_the_scheduler_takes_a_step_an_epoch():
    rates = []

    class Spy(torch.optim.SGD):
        def step(self, closure=None):
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    small(optimizer=Spy, batch_size=None, max_iter=3, optimizer__lr=1.0, scheduler="ExponentialLR", scheduler__gamma=0.5).fit(TRAIN)
    assert rates == [1.0, 0.5, 0.25]
    small(scheduler="ReduceLROnPlateau", scheduler__patience=0).fit(TRAIN)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"module__n_factor": 3}, "module__n_factor is not a parameter of Biased. Did you mean module__n_factors?"),
        ({"optimizer__lrr": 3}, "optimizer__lrr is not a parameter of Adagrad. Did you mean optimizer__lr?"),
        ({"optimizer": "Adagard"}, "optimizer='Adagard' is not in torch.optim. Did you mean Adagrad?"),
        ({"loss": "MSLoss"}, "loss='MSLoss' is not a loss. Did you mean MSELoss?"),
        ({"loss": "mse"}, "Did you mean MSELoss?"),
        ({"scheduler": "StepLR"}, "scheduler StepLR lacks an argument: .*step_size"),
        ({"parameter_options": {"*": 0.1}}, "must map a pattern to a dict of options"),
        ({"loss__beta": 1.0}, "loss__beta is not a parameter of MSELoss"),
        ({"loss": nn.MSELoss(), "loss__reduction": "sum"}, "loss__reduction is for a loss given as a class"),
        ({"scheduler": "StepLr", "scheduler__step": 1}, "Did you mean scheduler__step_size?"),
        ({"scheduler__gamma": 0.5}, "scheduler__gamma needs a scheduler"),
        ({"optimizer": nn.Linear}, "optimizer must be a subclass of torch.optim.*Got Linear"),
        ({"optimizer": len}, "optimizer must be a subclass of torch.optim.*Got len"),
        ({"module": tutorial.Plain(3, 4)}, "module must be a class.*Got an instance of Plain; pass module=Plain"),
        ({"module": nn.Linear}, "module__n_factors is not a parameter of Linear"),
        ({"module": lambda n_users, n_factors: None}, "must take n_users and n_items"),
        ({"module": dict}, "must make a torch.nn.Module. It made dict"),
    ],
)  # fmt: skip
def test_a_wrong_parameter_is_named_with_a_cure(params, message):
    with pytest.raises((ValueError, TypeError), match=message):
        small(**params).fit(TRAIN)


def test_a_misspelt_parameter_is_named_at_once():
    with pytest.raises(TypeError, match="no parameter optimzer__lr"):
        TorchFactorization(tutorial.Plain, optimzer__lr=0.1)
    with pytest.raises(ValueError, match=r"Invalid parameter 'max_itr'.*Did you mean max_iter\?"):
        small().set_params(max_itr=3)


# what a module, a loss or an optimizer can get wrong


def variant(forward):
    return type("Wrong", (tutorial.Plain,), {"forward": forward})


WRONG = {
    "wide": (lambda self, user, item: self.user_factors(user) * self.item_factors(item), r"shape \(64,\).*Got shape \(64, 3\)"),
    "reduced": (lambda self, user, item: self.user_factors(user).sum(), r"Got shape \(\)"),
    "float": (lambda self, user, item: 3.0, "must return a tensor.*Got float"),
    "no item": (lambda self, user: self.user_factors(user).sum(1), r"must define forward\(user, item\)"),
    "one more": (lambda self, user, item, day: user, "must define forward.*day"),
    "nan": (lambda self, user, item: torch.nan * self.user_factors(user).sum(1), "returned nan or inf for 64 of the first 64"),
    "detached": (lambda self, user, item: self.user_factors(user).sum(1).detach(), "no gradient"),
    "constant": (lambda self, user, item: 0.0 * user.float(), "no gradient"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_module_is_named_with_the_rule(name):
    forward, message = WRONG[name]
    with pytest.raises((ValueError, TypeError), match=message):
        small(variant(forward)).fit(TRAIN)


def test_a_module_without_parameters_is_refused():
    class Bare(nn.Module):
        def __init__(self, n_users, n_items, n_factors):
            super().__init__()

        def forward(self, user, item):
            return user + item

    with pytest.raises(ValueError, match="no parameter that requires a gradient"):
        small(Bare).fit(TRAIN)


def test_a_loss_that_does_not_reduce_is_refused():
    with pytest.raises(ValueError, match=r"must reduce a batch to one number.*Got shape \(64,\)"):
        small(loss=nn.MSELoss(reduction="none")).fit(TRAIN)
    with pytest.raises(ValueError, match=r"must reduce a batch to one number.*Got a float"):
        small(loss=lambda s, r: 1.0).fit(TRAIN)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"optimizer": "SGD", "optimizer__weight_decay": 0.1}, "optimizer__weight_decay=0.1"),
        ({"optimizer": "Adagrad", "optimizer__weight_decay": 0.1}, "optimizer__weight_decay=0.1"),
        ({"optimizer": "Adam"}, "optimizer=Adam"),
        ({"optimizer": "AdamW"}, "optimizer=AdamW"),
        ({"optimizer": "RMSprop"}, "optimizer=RMSprop"),
    ],
)
def test_what_torch_rejects_with_sparse_gradients_is_refused_with_a_way_out(options, named):
    with pytest.raises(ValueError, match=rf"{named} cannot be combined with the sparse gradients.*Use sparse=False"):
        small(**options).fit(TRAIN)


def test_an_optimizer_for_sparse_gradients_alone_is_refused_dense_ones():
    with pytest.raises(ValueError, match="optimizer=SparseAdam cannot take these gradients"):
        small(optimizer="SparseAdam", module__sparse=False).fit(TRAIN)


def test_an_error_of_the_modules_own_is_its_own():
    with pytest.raises(RuntimeError, match="size of tensor"):
        small(variant(lambda self, user, item: self.user_factors(user).sum(1) + torch.ones(7))).fit(TRAIN)


def test_divergence_names_epoch_and_rate():
    with pytest.raises(DivergenceError, match=r"in epoch \d+ \(optimizer__lr=1e\+06\). Lower optimizer__lr"):
        small(optimizer="SGD", optimizer__lr=1e6, max_iter=5).fit(TRAIN)


@pytest.mark.parametrize("call", ["predict", "score", "recommend"])
def test_a_sparse_matrix_of_new_users_is_refused_with_the_way(call):
    with pytest.raises(ValueError, match=r"no fold-in.*Interactions\.from_matrix"):
        getattr(small().fit(TRAIN), call)(sp.csr_array((2, 80)))


def test_ratings_are_needed():
    with pytest.raises(ValueError, match="needs ratings"):
        small().fit(Interactions([0, 1], [1, 0]))


# state


def test_pickle_round_trip():
    model = small().fit(TRAIN)
    again = pickle.loads(pickle.dumps(model))
    assert_array_equal(again.predict(TEST), model.predict(TEST))
    assert again.get_params() == model.get_params()
    assert all(parameter.grad is None for parameter in model.module_.parameters())


def test_dropout_is_seeded_and_off_at_predict():
    first, second = (small(tutorial.Dropout, module__p=0.5, optimizer="Adam").fit(TRAIN) for _ in range(2))
    assert_array_equal(first.predict(TEST), first.predict(TEST))
    assert_array_equal(first.predict(TEST), second.predict(TEST))
    assert not first.module_.training


def test_verbose_prints_a_line_an_epoch(capsys):
    model = small(verbose=1).fit(TRAIN)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == ["[TorchFactorization] epoch 1", "[TorchFactorization] epoch 2"]
    assert set(model.history_) == {"loss", "seconds"}
    assert model.n_iter_ == len(model.history_["loss"]) == 2


# several processes


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


def test_momentum_of_sparse_gradients_is_refused():
    # torch takes it and concatenates every gradient it ever saw: epochs of 6, 12 and 17 s
    with pytest.raises(ValueError, match=r"optimizer__momentum=0.9 cannot be combined with the sparse gradients"):
        small(optimizer="SGD", optimizer__momentum=0.9).fit(TRAIN)


@pytest.mark.parametrize("loss", ["squared_error", huber, "poisson"])
def test_losses_of_ours_pickle_by_name(loss):
    data = Interactions(DATA.user_ids, DATA.item_ids, np.abs(DATA.ratings))
    model = small(loss=loss).fit(data)
    assert pickle.loads(pickle.dumps(model)).loss == model.loss
    module = pickle.loads(pickle.dumps(model.to_module()))
    assert_allclose(module(torch.tensor([3]), torch.tensor([4])).item(), model.predict(3, 4), rtol=1e-5)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_weights_of_one_change_nothing_whatever_the_reduction(reduction):
    options = {"batch_size": None, "optimizer": "SGD", "optimizer__lr": 1e-6, "max_iter": 1}
    for loss in (partial(nn.functional.mse_loss, reduction=reduction), nn.MSELoss(reduction=reduction)):
        plain, weighted = (small(loss=loss, **options).fit(TRAIN, sample_weight=w).history_ for w in (None, np.ones(len(TRAIN))))
        assert weighted["loss"] == pytest.approx(plain["loss"], rel=1e-5)
    with pytest.raises(ValueError, match="must reduce a batch"):
        small(loss=nn.MSELoss(reduction="none")).fit(TRAIN, sample_weight=np.ones(len(TRAIN)))


def test_a_penalty_that_is_a_number_is_a_parameter_of_the_modules_own():
    class Named(tutorial.Plain):
        penalty = 0.1

    assert np.isfinite(small(Named).fit(TRAIN).predict(TEST)).all()


@pytest.mark.parametrize("value", [torch.ones(2), None, "much"])
def test_a_penalty_that_is_no_number_is_refused(value):
    class Wrong(tutorial.Plain):
        def penalty(self):
            return value

    with pytest.raises(ValueError, match=r"penalty\(\) must return one number"):
        small(Wrong).fit(TRAIN)


def test_an_optimizer_needs_no_closure_and_no_rate():
    class Own(torch.optim.Optimizer):
        def __init__(self, params, size=0.01):
            super().__init__(params, {"size": size})

        def step(self):
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.data.add_(parameter.grad, alpha=-group["size"])

    model = TorchFactorization(tutorial.Parameters, optimizer=Own, optimizer__size=0.5, module__n_factors=3, random_state=0)
    assert np.diff(model.fit(TRAIN).history_["loss"])[:3].max() < 0
    with pytest.raises(DivergenceError):
        model.set_params(optimizer__size=1e9).fit(TRAIN)


def test_an_instance_of_an_optimizer_is_refused_with_the_way():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    with pytest.raises(TypeError, match=r"Pass optimizer=SGD and its arguments as optimizer__"):
        small(optimizer=optimizer).fit(TRAIN)


def test_an_error_between_steps_is_the_modules_own():
    calls = []

    class Failing(tutorial.Plain):
        def forward(self, user, item):
            calls.append(1)
            if len(calls) == 3:
                raise RuntimeError("dense bug of my own")
            return super().forward(user, item)

    with pytest.raises(RuntimeError, match="dense bug of my own"):
        small(Failing, module__sparse=False, optimizer="LBFGS", optimizer__lr=0.1, batch_size=None).fit(TRAIN)


def test_features_beside_a_table_are_refused():
    X, y = observed_on_days()
    with pytest.raises(ValueError, match="a table or container brings its own"):
        weekly().fit(X, y).predict(X, features={"day": "mon", "hour": 0.5})


def test_recommend_refuses_an_unknown_category_where_asked_to():
    X, y = observed_on_days()
    with pytest.raises(ValueError, match="category of day of row 0 was not seen"):
        weekly(handle_unknown="error").fit(X, y).recommend([3], features={"day": "never", "hour": 0.5})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array(["2020-01-01", "2021-01-01"], dtype="M8[ms]"), r"hour holds datetime64.*days since the first"),
        (np.array([881250949, 881250950]), "hour holds whole numbers beyond 2"),
    ],
)
@pytest.mark.parametrize("frame", ["pandas", "polars"])
def test_times_that_float32_cannot_hold_are_refused(frame, values, message):
    library = pytest.importorskip(frame)
    X = library.DataFrame({"u": ["a", "b"], "i": ["c", "d"], "day": ["mon", "sun"], "hour": values})
    with pytest.raises(ValueError, match=message):
        weekly().fit(X, [1.0, 2.0])


def test_a_feature_cannot_take_the_place_of_a_modules_argument():
    X, y = observed_on_days()
    with pytest.raises(ValueError, match="'factors' has a meaning of its own"):
        weekly(features={"factors": "day"}).fit(X, y)
    with pytest.raises(ValueError, match="module__n_users is passed by fit itself"):
        small(module__n_users=7).fit(TRAIN)


def test_a_fit_that_diverges_leaves_the_estimator_as_it_was():
    model = small().fit(TRAIN)
    before = model.predict(DATA)
    with pytest.raises(DivergenceError):
        model.set_params(optimizer="SGD", optimizer__lr=1e6, max_iter=9).fit(DATA)
    assert_array_equal(model.predict(DATA), before)


def test_fit_batches_leaves_the_global_random_state_alone_and_takes_tensors_of_any_kind():
    user, item, rating = batches_of(TRAIN)[0]
    batch = torch.from_numpy(user), torch.from_numpy(item), torch.from_numpy(rating).bfloat16().requires_grad_()
    loader = torch.utils.data.DataLoader([batch] * 3, batch_size=None)
    before = torch.get_rng_state()
    model = small().fit_batches(loader, n_users=150, n_items=80)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.user_counts_.sum() == 300


def test_ratings_of_weight_zero_are_absent_from_batches():
    weighted = [(*batch, np.full(len(batch[0]), float(number % 2))) for number, batch in enumerate(batches_of(TRAIN))]
    model = small().fit_batches(weighted, n_users=150, n_items=80)
    expected = small().fit_batches(batches_of(TRAIN)[1::2], n_users=150, n_items=80)
    assert_allclose(model.predict(TEST), expected.predict(TEST), rtol=1e-5)
    assert_array_equal(model.rating_range_, expected.rating_range_)


def test_batches_that_do_not_iterate_are_refused():
    with pytest.raises(TypeError, match="batches must be iterable"):
        small().fit_batches(5, n_users=150, n_items=80)


def test_fit_batches_forgets_the_names_of_a_frame():
    X, y = observed_on_days()
    model = small(user="u", item="i").fit(X, y)
    assert not hasattr(model.fit_batches(batches_of(TRAIN), n_users=150, n_items=80), "feature_names_in_")


def test_repr_heeds_scikit_learns_configuration():
    with config_context(print_changed_only=False):
        assert "handle_unknown='mean'" in repr(small())


# scikit-learn's own checks


EXPECTED = {
    "check_no_attributes_set_in_init": "module__* and the like are parameters that no signature can list",
    "check_do_not_raise_errors_in_init_or_set_params": "a misspelt keyword is a TypeError at once, as of any function",
    "check_sample_weight_equivalence_on_dense_data": "ids of weight 0 keep a row of the module, so that others start elsewhere",
} | OLDER


def checks():
    options = {"module__n_factors": 3, "max_iter": 5, "batch_size": None, "optimizer__lr": 0.05}
    for estimator, check in estimator_checks_generator(TorchFactorization(BiasedMF, **options)):
        name = check.func.__name__
        marks = [pytest.mark.xfail(reason=EXPECTED[name], strict=True)] if name in EXPECTED else []
        yield pytest.param(estimator, check, id=name, marks=marks)


@pytest.mark.parametrize(("estimator", "check"), list(checks()))
def test_scikit_learns_check(estimator, check):
    check(estimator)
