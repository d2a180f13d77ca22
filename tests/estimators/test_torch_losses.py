"""Losses of TorchFactorization that are modules with parameters of their own: trained, kept and restored as the module's are."""

import pickle

import joblib
import numpy as np
import pytest
import torch
import tutorial
from killed_fits import killed_and_resumed
from numpy.testing import assert_allclose, assert_array_equal
from round_trip import reloaded
from scipy.special import expit
from sklearn.base import clone
from torch import nn
from torch_models import TEST, TRAIN, batches_of, rmse, small

from sk_torchmf import Interactions, TorchFactorization
from sk_torchmf.nn import BiasedMF, OrdinalLoss

pytestmark = pytest.mark.usefixtures("one_thread")


class Normal(nn.Module):
    """The negative log-likelihood of ratings about their score, the standard deviation learned."""

    def __init__(self, start=1.0, reduction="mean"):
        super().__init__()
        self.log_std, self.reduction = nn.Parameter(torch.tensor(float(np.log(start)))), reduction
        self.register_buffer("n_calls", torch.zeros((), dtype=torch.int64))

    def forward(self, score, rating):
        if self.training:
            self.n_calls += 1
        value = self.log_std + 0.5 * ((rating - score) / self.log_std.exp()).square()
        return value if self.reduction == "none" else value.mean()


def normal(loss=Normal, **params):
    params = {"module__n_factors": 3, "module__sparse": False, "optimizer__lr": 0.05, "batch_size": 500} | params
    return small(loss=loss, optimizer="Adam", **params)


def std_of(model):
    return float(model.loss_.log_std.detach().exp())


@pytest.mark.parametrize("loss", [Normal, Normal()], ids=["class", "instance"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_loss_learns_its_parameters(loss, dtype):
    model = normal(loss, max_iter=30, dtype=dtype).fit(TRAIN)
    assert std_of(model) == pytest.approx(rmse(model, TRAIN), rel=0.1)  # which is the most likely; it comes from 1
    assert model.loss_.log_std.dtype == getattr(torch, dtype)
    assert int(model.loss_.n_calls) == 30 * -(-len(TRAIN) // 500)
    assert not model.loss_.training
    assert model.loss_.log_std.grad is None
    if isinstance(loss, nn.Module):  # the parameter stays as it was given
        assert model.loss is loss
        assert loss.log_std.item() == 0
        assert loss.log_std.grad is None
        assert loss.log_std.dtype == torch.float32


def test_its_parameters_have_a_group_of_the_optimizer():
    frozen = normal(loss__start=0.5, parameter_options={"loss__*": {"lr": 0.0}}).fit(TRAIN)
    assert std_of(frozen) == pytest.approx(0.5)
    with pytest.raises(ValueError, match=r"no parameter is called 'los_\*'"):
        normal(parameter_options={"los_*": {"lr": 0.0}}).fit(TRAIN)


def test_early_stopping_restores_the_loss_of_the_best_epoch():
    seen = []

    def scoring(estimator, X, y):
        seen.append((estimator, std_of(estimator)))
        return -abs(estimator.n_iter_ - 3.0)

    model = normal(early_stopping=True, refit=False, max_iter=8, scoring=scoring, n_iter_no_change=3).fit(TRAIN)
    assert (model.best_iter_, model.n_iter_) == (3, 6)
    stds = [std for _, std in seen]
    assert len(set(stds)) == 6
    assert std_of(model) == stds[2]
    assert [std_of(estimator) for estimator, _ in seen] == stds  # each epoch's has a loss of its own


def test_validation_loss_is_that_of_the_trained_loss():
    model = normal(max_iter=3).fit(TRAIN, X_val=TEST)
    error = TEST.ratings - model.predict(TEST)
    expected = np.log(std_of(model)) + 0.5 * np.mean((error / std_of(model)) ** 2)
    assert model.history_["validation_loss"][-1] == pytest.approx(expected, rel=1e-4)


def test_a_killed_fit_goes_on_with_the_loss(tmp_path, monkeypatch):
    def make(**params):
        return normal(max_iter=5, **params)

    model, _ = killed_and_resumed(monkeypatch, make, TRAIN, tmp_path / "checkpoint", 2)
    whole = make().fit(TRAIN)
    assert_array_equal(model.predict(TEST), whole.predict(TEST))
    assert std_of(model) == std_of(whole)


def test_a_checkpoint_is_not_that_of_a_fit_with_another_loss(tmp_path):
    path = tmp_path / "checkpoint"

    def interrupt(estimator, X, y):
        if estimator.n_iter_ == 2:
            raise KeyboardInterrupt
        return 0.0

    with pytest.raises(KeyboardInterrupt):
        normal(Normal(1.0), checkpoint=path, scoring=interrupt).fit(TRAIN, X_val=TEST)
    with pytest.raises(ValueError, match="checkpoint"):
        normal(Normal(2.0), checkpoint=path, scoring=interrupt).fit(TRAIN, X_val=TEST)


@pytest.mark.parametrize("how", ["warm_start", "partial_fit"])
def test_later_training_goes_on_from_the_loss(how):
    model = normal(max_iter=20, warm_start=True).fit(TRAIN)
    std, steps = std_of(model), float(model.optimizer_state_["moments"]["loss__log_std"]["step"])
    model.set_params(max_iter=1)
    model = model.fit(TRAIN) if how == "warm_start" else model.partial_fit(TEST)
    assert std_of(model) == pytest.approx(std, rel=0.1)
    assert abs(std_of(normal(max_iter=1).fit(TRAIN)) - std) > 0.3
    n = len(TRAIN) + (how == "partial_fit") * len(TEST)
    assert float(model.optimizer_state_["moments"]["loss__log_std"]["step"]) == steps + -(-n // 500)


def test_another_loss_starts_afresh():
    model = normal(max_iter=3, warm_start=True).fit(TRAIN)
    assert not hasattr(model.set_params(loss="MSELoss").fit(TRAIN), "loss_")
    assert std_of(model.set_params(loss=Normal(7.0), max_iter=1).fit(TRAIN)) > 2  # one epoch of it, from 7


class Each(nn.Module):
    """A parameter for each level, of which the class is told."""

    def __init__(self, levels):
        super().__init__()
        self.levels, self.shift = levels, nn.Parameter(torch.zeros(len(levels)))

    def forward(self, score, rating):
        code = torch.searchsorted(torch.as_tensor(self.levels).to(rating), rating.contiguous())
        return (score - rating - self.shift[code]).square().mean()


def test_a_class_is_told_the_levels_and_cannot_go_on_with_others():
    rounded = Interactions(TRAIN.user_ids, TRAIN.item_ids, np.round(TRAIN.ratings).clip(1, 5), num_users=150, num_items=80)
    model = normal(Each).fit(rounded)
    assert_array_equal(model.levels_, [1, 2, 3, 4, 5])
    assert model.loss_.shift.abs().min() > 0
    with pytest.raises(ValueError, match="loss: shift was not there, or of another shape, when it was trained"):
        model.partial_fit(Interactions([0], [0], [9.0], num_users=150, num_items=80))


@pytest.mark.parametrize("loss", [Normal, Normal(2.0)], ids=["class", "instance"])
def test_a_saved_model_has_the_trained_loss(loss, tmp_path):
    model = normal(loss).fit(TRAIN)
    code = {"module": tutorial.Biased, "loss": loss}
    joblib.dump(model, tmp_path / "model.joblib")
    for again in (
        reloaded(model, tmp_path, **code),
        pickle.loads(pickle.dumps(model)),
        joblib.load(tmp_path / "model.joblib"),
    ):
        assert std_of(again) == std_of(model)
        assert int(again.loss_.n_calls) == int(model.loss_.n_calls)
        assert not again.loss_.training
    assert clone(model).fit(TRAIN).loss_.log_std == model.loss_.log_std
    with pytest.raises(TypeError, match="does not hold loss, module"):
        TorchFactorization.load(tmp_path / "model")
    with pytest.raises(ValueError, match=r"do not fit loss .*n_calls.*Pass the loss and the loss__"):
        TorchFactorization.load(tmp_path / "model", module=tutorial.Biased, loss=OrdinalLoss([1, 2]))
    with pytest.raises(ValueError, match=r"and loss='squared_error' has none\. Pass the loss that fit had"):
        TorchFactorization.load(tmp_path / "model", module=tutorial.Biased, loss="squared_error")


def test_weights_reach_a_loss_with_a_reduction():
    weight = np.arange(len(TRAIN)) % 2 + 1
    options = {"batch_size": None, "dtype": "float64", "max_iter": 5}
    weighted = normal(**options).fit(TRAIN, sample_weight=weight)
    repeated = normal(**options).fit(TRAIN[np.repeat(np.arange(len(TRAIN)), weight)])
    assert std_of(weighted) == pytest.approx(std_of(repeated), rel=1e-9)


def test_buffers_follow_the_precision():
    data = Interactions(TRAIN.user_ids, TRAIN.item_ids, (TRAIN.ratings > 3) * 1.0, num_users=150, num_items=80)
    given = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(3.0))
    model = normal(given, dtype="float64").fit(data)
    assert model.loss_.pos_weight.dtype == torch.float64
    assert given.pos_weight.dtype == torch.float32


def test_scores_without_a_gradient_are_refused_though_the_loss_has_one():
    class Detached(tutorial.Plain):
        def forward(self, user, item):
            return super().forward(user, item).detach()

    with pytest.raises(ValueError, match="no gradient"):
        normal(module=Detached).fit(TRAIN)


class Exponential(nn.Module):
    """Scores are logarithms, but for a learned factor."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(1.0))

    def response(self, score):
        return self.factor.to(score) * score.exp()

    def forward(self, score, rating):
        return (self.response(score) - rating).square().mean()


def test_predictions_are_the_response_of_a_loss_of_ones_own():
    model = normal(Exponential, max_iter=8).fit(TRAIN)
    user, item = (torch.from_numpy(ids).long() for ids in (TEST.user_ids, TEST.item_ids))
    score = model.module_(user, item).detach().numpy()[:, 0].astype(np.float64)
    assert model.loss_.factor.item() != 1
    assert_allclose(model.predict(TEST), model.loss_.factor.item() * np.exp(score), rtol=1e-5)
    assert_allclose(model.to_module()(user, item).detach()[:, 0], model.predict(TEST), rtol=1e-5)
    assert not hasattr(model, "predict_proba")


def test_several_processes_share_the_parameters_of_a_loss():
    options = {"optimizer__lr": 0.02, "module__sparse": False, "module__n_factors": 3, "max_iter": 5, "n_processes": 2}
    model = small(loss=Normal, optimizer="SGD", **options).fit(TRAIN)
    assert abs(std_of(model) - 1) > 0.05
    assert model.history_["loss"][-1] < model.history_["loss"][0]


# ordinal: a row of that

LEVELS, CUTS = np.array([1.0, 2.0, 2.5, 5.0]), np.array([-2.0, -0.3, 1.5])


def levels_of_ratings(n_users=80, n_items=50, share=0.5, seed=0):
    """Drawn from an ordered logit of scores of rank one and an item bias; with the items' biases as attributes."""
    rng = np.random.default_rng(seed)
    bias = rng.normal(size=n_items)
    score = rng.normal(size=(n_users, 1)) @ rng.normal(size=(1, n_items)) + 1.5 * bias
    code = (rng.random((n_users, n_items, 1)) > expit(CUTS - score[:, :, None])).sum(axis=2)
    user, item = np.nonzero(rng.random((n_users, n_items)) < share)
    order = rng.permutation(len(user))
    user, item = user[order], item[order]
    return Interactions(user, item, LEVELS[code[user, item]], num_users=n_users, num_items=n_items), bias[:, None]


DATA, BIAS = levels_of_ratings()
HELD = np.arange(len(DATA)) % 5 == 0


def ordinal(loss="ordinal", **params):
    options = {"module__n_factors": 1, "optimizer__lr": 0.03, "max_iter": 15, "batch_size": 200, "random_state": 0}
    return TorchFactorization(params.pop("module", BiasedMF), loss, "Adam", **options | params)


def log_loss(probability, rating):
    return -np.log(probability[np.arange(len(rating)), np.searchsorted(LEVELS, rating)]).mean()


@pytest.mark.parametrize("loss", ["ordinal", OrdinalLoss, OrdinalLoss(LEVELS)], ids=["name", "class", "instance"])
def test_expected_ratings_and_probabilities_are_those_of_the_scores_and_cut_points(loss):
    model = ordinal(loss).fit(DATA)
    cuts = model.loss_.cut_points.detach().double().numpy()
    assert (np.diff(cuts) > 0).all()
    assert_array_equal(model.loss_.levels, LEVELS)
    user, item = (torch.from_numpy(ids).long() for ids in (DATA.user_ids, DATA.item_ids))
    score = model.module_(user, item).detach().double().numpy()
    below = np.column_stack([0 * score, *expit(cuts[:, None] - score), 0 * score + 1])
    p = np.diff(below, axis=1)
    assert_allclose(model.predict_proba(DATA), p, rtol=1e-5, atol=1e-9)
    assert_allclose(model.predict(DATA), p @ LEVELS, rtol=1e-6)
    assert model.history_["loss"][-1] < model.history_["loss"][0]
    grid = model.predict(np.arange(80)[:, None], np.arange(50))
    assert model.predict_proba(np.arange(80)[:, None], np.arange(50)).shape == (80, 50, 4)
    assert_allclose(model.predict_proba(7) @ LEVELS, grid[7], rtol=1e-6)
    items, scores = model.recommend(7, k=4, exclude_seen=False)
    assert_array_equal(items, np.argsort(-grid[7], kind="stable")[:4])
    assert_allclose(scores, grid[7][items], rtol=1e-6)
    assert 1 < model.predict(999, 999) < 5
    assert_allclose(model.predict_proba(999, 999) @ LEVELS, model.predict(999, 999), rtol=1e-9)
    assert_allclose(model.predict(DATA, clip=True), model.predict(DATA))
    model.set_params(handle_unknown="nan")
    assert np.isnan(model.predict_proba(999, 3)).all()


def test_ordinal_predicts_levels_better_than_their_shares():
    train, test = DATA[~HELD], DATA[HELD]
    model = ordinal().fit(train)
    shares = np.bincount(np.searchsorted(LEVELS, train.ratings)) / len(train)
    assert log_loss(model.predict_proba(test), test.ratings) < log_loss(np.tile(shares, (len(test), 1)), test.ratings) - 0.05
    assert model.score(test) > 0.2
    start, cuts = (one.cut_points.detach().numpy() for one in (OrdinalLoss(LEVELS, shares), model.loss_))
    assert np.ptp(cuts - start) > 0.2  # scores that differ drive the cut points apart


class WithFeatures(nn.Module):
    def __init__(self, n_users, n_items, n_item_features):
        super().__init__()
        self.weights = nn.Linear(n_item_features, 1, bias=False)

    def forward(self, user, item, item_features):
        return self.weights(item_features)


def test_ordinal_with_attributes_early_stopping_and_weights():
    cold = DATA.item_ids >= 40
    options = {"early_stopping": True, "max_iter": 30, "optimizer__lr": 0.05}
    model = TorchFactorization(WithFeatures, "ordinal", batch_size=200, random_state=0, **options)
    model.fit(DATA[~cold], sample_weight=np.ones((~cold).sum()), item_features=BIAS)
    assert model.score(DATA[cold]) > 0.15
    new = model.predict_proba([0, 0], [50, 51], item_features=np.vstack([BIAS, [[3.0], [-3.0]]]))
    assert new[0, 3] > 0.8
    assert new[1, 0] > 0.8


def test_a_weight_of_two_is_the_row_twice_for_levels_too():
    weight = np.arange(len(DATA)) % 2 + 1
    options = {"batch_size": None, "dtype": "float64", "max_iter": 6}
    weighted = ordinal(**options).fit(DATA, sample_weight=weight)
    repeated = ordinal(**options).fit(DATA[np.repeat(np.arange(len(DATA)), weight)])
    assert_allclose(weighted.predict_proba(DATA), repeated.predict_proba(DATA), rtol=1e-7)


def test_a_new_level_joins_the_known_ones():
    rating = np.round(DATA.ratings / 3, 1)  # no float32 is one of them
    sizes = {"num_users": 80, "num_items": 50}
    data = Interactions(DATA.user_ids, DATA.item_ids, rating, **sizes)
    model = ordinal().fit(data)
    levels, before = np.unique(rating), model.predict_proba(data)
    assert_array_equal(model.levels_, levels)
    cuts = model.loss_.cut_points.detach().numpy()
    model.set_params(max_iter=1).partial_fit(Interactions([0, 1], [2, 3], [0.1, 9.3], **sizes))
    assert_array_equal(model.levels_, [0.1, *levels, 9.3])
    assert_allclose(model.loss_.cut_points.detach().numpy()[1:-1], cuts, atol=0.6)  # after an epoch
    after = model.predict_proba(data)
    assert after.shape[1] == len(levels) + 2
    assert np.abs(after[:, 1:-1] - before).mean() < 0.05


def test_an_ordinal_model_goes_through_files_and_export(tmp_path):
    model = ordinal().fit(DATA)
    for again in (reloaded(model, tmp_path), pickle.loads(pickle.dumps(model))):
        assert_array_equal(again.predict_proba(DATA), model.predict_proba(DATA))
        assert_array_equal(again.partial_fit(DATA[:9]).predict(DATA), clone_of(model).partial_fit(DATA[:9]).predict(DATA))
    assert_array_equal(clone(model).fit(DATA).predict(DATA), model.predict(DATA))
    user, item = torch.tensor([0, 3, 7]), torch.tensor([1, 0, 14])
    module = model.to_module()
    assert_allclose(module(user, item).detach(), model.predict(user.numpy(), item.numpy()), rtol=1e-5)
    n = torch.export.Dim("n")
    exported = torch.export.export(module, (user, item), dynamic_shapes={"user": {0: n}, "item": {0: n}}).module()
    assert_allclose(exported(user[:2], item[:2]).detach(), model.predict(user[:2].numpy(), item[:2].numpy()), rtol=1e-5)


def clone_of(model):
    return pickle.loads(pickle.dumps(model))


def test_batches_need_the_levels():
    with pytest.raises(TypeError, match=r"loss OrdinalLoss lacks an argument: .*'levels'. Pass it as loss__\*"):
        ordinal().fit_batches(batches_of(DATA), n_users=80, n_items=50)
    model = ordinal(loss__levels=[1, 2, 2.5, 5]).fit_batches(batches_of(DATA), n_users=80, n_items=50)
    assert model.score(DATA) > 0.2


def test_what_ordinal_cannot_do_is_refused_with_words():
    same = Interactions(DATA.user_ids, DATA.item_ids, np.full(len(DATA), 3.0))
    with pytest.raises(ValueError, match=r'loss="ordinal" needs ratings of at least two levels.*Got 1: 3'):
        ordinal().fit(same)
    other = ordinal("squared_error").fit(DATA)
    assert not hasattr(other, "predict_proba")
    with pytest.raises(AttributeError, match="predict_proba"):
        other.predict_proba(DATA)
    with pytest.raises(ValueError, match=r"fitted without them\. Use fit with that loss"):
        other.set_params(loss="ordinal").predict(DATA)
    with pytest.raises(ValueError, match="no fold-in"):
        ordinal().fit(DATA).predict_proba(DATA.tocsr())
