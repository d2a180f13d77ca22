"""save and load of modules of one's own: tensors come back, and code is never in the file."""

import pickle

import joblib
import numpy as np
import pytest
import torch
import tutorial
from data import FORMS, as_form, planted
from numpy.testing import assert_array_equal
from round_trip import reloaded, rewrite, same
from torch import nn
from torch_models import small

from sk_torchmf import TorchFactorization
from sk_torchmf.nn import BiasedMF, huber, ranking_logistic

DATA, _ = planted(3, mean=3.0, n_users=40, n_items=25, n_ratings=500)
pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_module_gets_a_scorer_that_is_code_from_the_caller(tmp_path):
    def scoring(estimator, X, y):
        return estimator.score(X, y)

    model = small(scoring=scoring).fit(DATA)
    with pytest.raises(TypeError, match="does not hold scoring"):
        reloaded(model, tmp_path, module=tutorial.Biased)
    assert TorchFactorization.load(tmp_path / "model", module=tutorial.Biased, scoring=scoring).scoring is scoring


def mean_squared(score, rating):
    return (score - rating).square().mean()


class WithState(tutorial.Biased):
    """A buffer, one that is not kept, and state beside the tensors."""

    def __init__(self, n_users, n_items, n_factors=3):
        super().__init__(n_users, n_items, n_factors)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("table", torch.arange(4.0), persistent=False)
        self.calls = 0

    def forward(self, user, item):
        if self.training:
            self.seen += len(user)
            self.calls += 1
        return super().forward(user, item) + 0.0 * self.table.sum()

    def get_extra_state(self):
        return {"calls": self.calls}

    def set_extra_state(self, state):
        self.calls = state["calls"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("module", [tutorial.Biased, tutorial.Parameters, tutorial.Dropout, WithState])
def test_a_module_gets_its_tensors_back(module, form, tmp_path):
    X, y = as_form(DATA, form)
    model = small(module, optimizer="SGD", clip=True).fit(X, y)
    again = reloaded(model, tmp_path, module=module)
    same(vars(again), vars(model))
    for name, tensor in model.module_.state_dict().items():
        assert_array_equal(again.module_.state_dict()[name], tensor)
    assert not again.module_.training
    Q = DATA if form == "sparse" else X
    assert_array_equal(again.predict(Q), model.predict(Q))
    assert_array_equal(
        again.predict("nobody" if form == "labels" else 9999, model.items_[0]),
        model.predict("nobody" if form == "labels" else 9999, model.items_[0]),
    )
    same(again.recommend(k=3), model.recommend(k=3))
    assert again.get_params() == model.get_params()
    assert_array_equal(again.fit(X, y).predict(Q), model.predict(Q))


def test_a_module_of_ours_classes_of_torchs_and_losses_of_ours_are_in_the_file_by_name(tmp_path):
    for loss in (huber, ranking_logistic, "bpr", nn.HuberLoss):
        model = small(BiasedMF, loss, torch.optim.Adam, scheduler=torch.optim.lr_scheduler.ExponentialLR, scheduler__gamma=0.9)
        again = reloaded(model.fit(DATA), tmp_path)
        assert again.get_params() == model.get_params()
        assert_array_equal(again.predict(DATA), model.predict(DATA))
        assert again.score(DATA) == model.score(DATA)


def test_a_name_that_is_not_in_the_table_leads_nowhere(tmp_path):
    small(BiasedMF).fit(DATA).save(tmp_path / "model")
    for place in (["os", "system"], ["torch.nn", "Module"], ["torch", "load"], ["sk_torchmf.nn", "__builtins__"], "x"):
        rewrite(tmp_path / "model", lambda meta, place=place: meta["known"].update(module=place))
        with pytest.raises(ValueError, match="is not a complete file"):
            TorchFactorization.load(tmp_path / "model")


def test_missing_code_is_named_with_the_call_that_passes_it(tmp_path):
    halve = {"scheduler": "LambdaLR", "scheduler__lr_lambda": lambda epoch: 0.5**epoch}
    model = small(loss=mean_squared, **halve).fit(DATA)
    path = tmp_path / "model"
    model.save(path)
    with pytest.raises(
        TypeError,
        match=r"does not hold loss, module, scheduler__lr_lambda, because .*load\(path, loss=mean_squared, module=Biased, sch",
    ):
        TorchFactorization.load(path)
    with pytest.raises(TypeError, match=r"does not hold loss, scheduler__lr_lambda, because saved files hold no code\."):
        TorchFactorization.load(path, module=tutorial.Biased)
    code = {"module": tutorial.Biased, "loss": mean_squared, "scheduler__lr_lambda": halve["scheduler__lr_lambda"]}
    again = TorchFactorization.load(path, **code)
    assert again.get_params() == model.get_params()
    assert_array_equal(again.fit(DATA).predict(DATA), model.predict(DATA))


def test_what_is_given_counts_more_than_the_file(tmp_path):
    again = reloaded(small(verbose=1).fit(DATA), tmp_path, module=tutorial.Biased, verbose=0)
    assert again.verbose == 0
    with pytest.raises(TypeError, match=r"TorchFactorization has no parameter modul. Did you mean module\?"):
        TorchFactorization.load(tmp_path / "model", modul=tutorial.Biased)


@pytest.mark.parametrize(
    ("module", "options"), [(tutorial.Plain, {}), (tutorial.Parameters, {}), (tutorial.Biased, {"module__n_factors": 4})]
)
def test_another_module_is_refused_with_what_differs(module, options, tmp_path):
    with pytest.raises(
        ValueError, match=rf"The tensors of .*model do not fit module {module.__name__}: .*user_.*[^.]\. Pass the module"
    ):
        reloaded(small().fit(DATA), tmp_path, module=module, **options)


def test_features_and_their_categories_come_back(tmp_path):
    pandas = pytest.importorskip("pandas")
    days = np.array(["mon", "tue", "wed"])[np.arange(len(DATA)) % 3]
    frame = pandas.DataFrame({"user": DATA.user_ids, "item": DATA.item_ids, "day": days, "hour": np.arange(len(DATA)) % 24 / 24})
    model = small(tutorial.Weekly, optimizer="Adam", features=["day", "hour"], user="user", item="item")
    model.fit(frame, DATA.ratings)
    again = reloaded(model, tmp_path, module=tutorial.Weekly)
    same([again.feature_categories_, again.background_], [model.feature_categories_, model.background_])
    assert_array_equal(again.predict(frame), model.predict(frame))
    features = {"day": "sun", "hour": 0.5}  # a day that was never seen: averaged over the background
    assert_array_equal(again.predict(3, 4, features=features), model.predict(3, 4, features=features))


def test_a_fit_on_batches_comes_back(tmp_path):
    batches = [(DATA.user_ids, DATA.item_ids, DATA.ratings)]
    model = small().fit_batches(batches, n_users=DATA.num_users, n_items=DATA.num_items)
    assert_array_equal(reloaded(model, tmp_path, module=tutorial.Biased).predict(DATA), model.predict(DATA))


def test_loading_draws_from_no_global_generator(tmp_path):
    small().fit(DATA).save(tmp_path / "model")
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    TorchFactorization.load(tmp_path / "model", module=tutorial.Biased)
    assert_array_equal(torch.rand(3), expected)


def test_loading_makes_no_tensor_on_another_default_device(tmp_path):
    model = small().fit(DATA)
    model.save(tmp_path / "model")
    with torch.device("meta"):
        again = TorchFactorization.load(tmp_path / "model", module=tutorial.Biased)
    assert_array_equal(again.predict(DATA), model.predict(DATA))


def test_a_scheduler_with_milestones_goes_on_after_a_file(tmp_path):
    """Its state is a Counter of ints."""
    milestones = {"scheduler": "MultiStepLR", "scheduler__milestones": [1, 3, 3]}
    model = small(**milestones).fit(DATA)
    again = reloaded(model, tmp_path, module=tutorial.Biased)
    for one in (model, again):
        one.partial_fit(DATA[:50])
    assert again.optimizer_state_["rates"] == model.optimizer_state_["rates"] == [pytest.approx(0.1 * 0.1**3)]
    assert_array_equal(again.predict(DATA), model.predict(DATA))


class WithHalf(tutorial.Biased):
    """A tensor of a dtype that NumPy has not, as its state."""

    def get_extra_state(self):
        return {0: torch.full((2,), 1.5, dtype=torch.bfloat16)}

    def set_extra_state(self, state):
        self.found = state[0]


def test_a_tensor_without_a_numpy_dtype_comes_back(tmp_path):
    again = reloaded(small(WithHalf).fit(DATA), tmp_path, module=WithHalf)
    assert again.module_.found.dtype == torch.bfloat16
    assert again.module_.found.tolist() == [1.5, 1.5]


class Unpackable(tutorial.Biased):
    def get_extra_state(self):
        return {"code": mean_squared}

    def set_extra_state(self, state):
        pass


def test_state_of_a_module_that_a_file_cannot_hold_is_named(tmp_path):
    with pytest.raises(TypeError, match=r"module._extra_state.code is a builtins.function"):
        small(Unpackable).fit(DATA).save(tmp_path / "model")


# pickle and joblib: of the others product/test_sklearn.py and test_implicit.py, with skops, which cannot hold a module


@pytest.mark.parametrize("module", [tutorial.Biased, WithState])
def test_a_module_goes_through_pickle_and_joblib(module, tmp_path):
    model = small(module).fit(DATA)
    joblib.dump(model, tmp_path / "model.joblib")
    for again in (pickle.loads(pickle.dumps(model)), joblib.load(tmp_path / "model.joblib")):
        assert vars(again).keys() == vars(model).keys()
        assert_array_equal(again.predict(DATA), model.predict(DATA))
        same(again.recommend(k=3), model.recommend(k=3))
        assert_array_equal(again.fit(DATA).predict(DATA), model.predict(DATA))
