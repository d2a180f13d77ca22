"""Spotlight's containers, models and weights, by small models with its interface; the real one is in test_spotlight_interop."""

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from data import FORMS, as_form, ids_in, planted
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, KFold, cross_validate
from sklearn.utils.estimator_checks import estimator_checks_generator
from spotlight_like import Container, ExplicitModel, ImplicitModel

import sk_torchmf.spotlight
from sk_torchmf import BiasedMatrixFactorization, ImplicitMatrixFactorization, Interactions
from sk_torchmf.metrics import evaluate
from sk_torchmf.spotlight import SpotlightEstimator, from_spotlight, to_spotlight, weights_from_spotlight

DATA = planted(3, mean=3.0, n_users=30, n_items=20, n_ratings=300)[0]
LOSSES = dict.fromkeys(ExplicitModel.losses, ExplicitModel) | dict.fromkeys(ImplicitModel.losses, ImplicitModel)
every_loss = pytest.mark.parametrize(("loss", "kind"), LOSSES.items(), ids=LOSSES)
pytestmark = pytest.mark.usefixtures("one_thread")

THEIRS = """
class Interactions:
    def __init__(self, user_ids, item_ids, ratings=None, timestamps=None, weights=None, num_users=None, num_items=None):
        vars(self).update({name: value for name, value in locals().items() if name != "self"})
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Makes a package spotlight of the modules given, in the place of any that there is."""

    def write(**modules):
        (tmp_path / "spotlight").mkdir()
        for name, text in ({"__init__": ""} | modules).items():
            (tmp_path / "spotlight" / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)

    for name in [name for name in sys.modules if name.partition(".")[0] == "spotlight"]:
        monkeypatch.delitem(sys.modules, name)
    yield write
    for name in [name for name in sys.modules if name.partition(".")[0] == "spotlight"]:
        del sys.modules[name]


def complete():
    """Every array there can be, in dtypes that no conversion would come up with, and sizes beyond the largest ids."""
    arrays = [
        np.array(values, dtype) for values, dtype in (([3, 0, 1], "i2"), ([1, 1, 0], "u1"), ([1, 2.5, 4], "f2"), ([7, 5, 9], "i4"))
    ]
    return {
        **dict(zip(("user_ids", "item_ids", "ratings", "timestamps"), arrays, strict=True)),
        "weights": np.array([0.5, 0, 1], dtype=np.float32),
        "num_users": 11,
        "num_items": 12,
    }


# containers


@pytest.mark.parametrize("missing", [[], ["ratings", "weights"], ["timestamps"]], ids=str)
def test_containers_hold_the_same_arrays_both_ways(install, missing):
    install(interactions=THEIRS)
    given = {name: None if name in missing else value for name, value in complete().items()}
    ours = from_spotlight(Container(**given))
    theirs = to_spotlight(ours)
    assert isinstance(ours, Interactions)
    assert type(theirs).__module__ == "spotlight.interactions"
    for name, value in given.items():
        assert getattr(ours, name) is value or getattr(ours, name) == value
        assert getattr(theirs, name) is value or getattr(theirs, name) == value


def test_a_container_of_the_right_kind_is_returned_as_it_is(install):
    install(interactions=THEIRS)
    ours = Interactions([0], [1])
    theirs = to_spotlight(ours)
    assert from_spotlight(ours) is ours
    assert to_spotlight(theirs) is theirs


def test_ids_are_converted_where_that_is_asked_for(install):
    install(interactions=THEIRS)
    theirs = to_spotlight(Interactions([0, 3], [1, 2], [1.0, 2.0], num_users=5), id_dtype=np.int32)
    assert (theirs.user_ids.dtype, theirs.item_ids.dtype, theirs.num_users) == (np.int32, np.int32, 5)
    assert_array_equal(theirs.user_ids, [0, 3])
    again = to_spotlight(theirs, id_dtype=np.int64)
    assert (type(again), again.user_ids.dtype, again.ratings is theirs.ratings) == (type(theirs), np.int64, True)
    assert to_spotlight(theirs, id_dtype=np.int32) is theirs
    for dtype in (np.int8, float):
        with pytest.raises(ValueError, match="id_dtype must be an integer type that holds user_ids, which go up to 300"):
            to_spotlight(Interactions([300], [1]), id_dtype=dtype)


def test_what_is_no_container_is_not_converted(install):
    class Sequences:
        sequences, user_ids, num_items = np.ones((2, 3)), None, 4

    for convert in (from_spotlight, to_spotlight):
        with pytest.raises(TypeError, match="interactions must be Interactions, ours or Spotlight's"):
            convert(sp.csr_array((2, 2)))
        with pytest.raises(TypeError, match="sequence models are out of scope"):
            convert(Sequences())


def test_no_observations_are_refused_since_spotlight_needs_one(install):
    install(interactions=THEIRS)
    with pytest.raises(ValueError, match="interactions has no observations"):
        to_spotlight(Interactions([], []))


def test_the_wrong_package_of_that_name_is_named_with_the_cure(install):
    install(validator="class Validator: pass")  # as the project on PyPI
    with pytest.raises(
        ImportError, match=r"spotlight.__init__\.py has no interactions.*not on PyPI.*github\.com/maciejkula/spotlight"
    ):
        to_spotlight(Interactions([0], [1]))


def test_a_missing_package_is_named_with_the_cure(install, monkeypatch):
    monkeypatch.setattr(sys, "path", [place for place in sys.path if not (Path(place) / "spotlight" / "__init__.py").exists()])
    with pytest.raises(
        ImportError, match=r"is not installed.*not on PyPI.*pip install git\+https://github\.com/maciejkula/spotlight"
    ):
        to_spotlight(Interactions([0], [1]))


def test_nobody_is_told_to_install_the_wrong_package(install, monkeypatch):
    monkeypatch.setattr(sys, "path", [place for place in sys.path if not (Path(place) / "spotlight" / "__init__.py").exists()])
    with pytest.raises(ImportError) as raised:
        to_spotlight(Interactions([0], [1]))
    assert "pip install spotlight" not in str(raised.value)


def test_our_subpackage_is_not_taken_for_theirs(install):
    install(interactions=THEIRS)
    assert to_spotlight(Interactions([0], [1])).__class__.__module__ == "spotlight.interactions"
    assert sk_torchmf.spotlight.__name__ == "sk_torchmf.spotlight"


# models as estimators


def explicit(**params):
    return SpotlightEstimator(ExplicitModel, **{"model__n_iter": 8, "random_state": 0, **params})


def implicit(**params):
    return SpotlightEstimator(ImplicitModel, **{"model__n_iter": 8, "random_state": 0, **params})


@pytest.mark.parametrize("form", FORMS)
def test_every_form_trains_the_same_model(form):
    fitted = explicit(model__batch_size=300).fit(*as_form(DATA, form))
    users, items = ids_in(form, "user", DATA.user_ids), ids_in(form, "item", DATA.item_ids)
    expected = explicit(model__batch_size=300).fit(DATA).predict(DATA)
    assert_allclose(fitted.predict(users, items), expected, atol=1e-5)  # a sparse matrix has its rows' entries in another order
    assert_array_equal(fitted.users_, ids_in(form, "user", np.arange(30)))


def test_predictions_are_the_models_own():
    fitted = explicit(model__n_iter=25).fit(DATA)
    assert_array_equal(fitted.predict(DATA), fitted.model_.predict(DATA.user_ids, DATA.item_ids))
    assert_array_equal(fitted.predict(4), fitted.model_.predict(4))
    assert fitted.score(DATA) == r2_score(DATA.ratings, fitted.predict(DATA))
    assert fitted.score(DATA) > 0.3


def test_the_model_is_made_of_the_options_and_given_our_container():
    fitted = explicit(model__embedding_dim=7, model__loss="poisson").fit(DATA, np.abs(DATA.ratings))
    assert (fitted.model_._embedding_dim, fitted.model_._loss, fitted.model_._n_iter) == (7, "poisson", 8)
    assert isinstance(fitted.model_.trained_on, Interactions)
    assert fitted.model_.trained_on.ratings.dtype == np.float32


def test_options_of_the_model_are_parameters_as_any_other():
    estimator = explicit(model__embedding_dim=7)
    assert estimator.get_params()["model__embedding_dim"] == 7
    copy = clone(estimator).set_params(model__embedding_dim=3)
    assert (copy.get_params()["model__embedding_dim"], estimator.get_params()["model__embedding_dim"]) == (3, 7)
    assert "model=ExplicitModel" in repr(estimator)
    assert "model__embedding_dim=7" in repr(estimator)
    with pytest.raises(
        ValueError, match=r"model__embeding_dim is not a parameter of ExplicitModel\. Did you mean model__embedding_dim"
    ):
        explicit(model__embeding_dim=3).fit(DATA)
    with pytest.raises(TypeError, match="has no parameter module__k"):
        explicit(module__k=3)
    with pytest.raises(ValueError, match="model__random_state is passed by fit itself"):
        explicit(model__random_state=3).fit(DATA)


def test_a_search_over_the_models_options():
    search = GridSearchCV(
        explicit(), {"model__n_iter": [1, 20]}, cv=KFold(3, shuffle=True, random_state=0), scoring="r2", error_score="raise"
    )
    search.fit(DATA, DATA.ratings)
    assert search.best_params_ == {"model__n_iter": 20}
    table = as_form(DATA, "labels")
    scores = cross_validate(explicit(), *table, cv=3, scoring=["r2", "neg_root_mean_squared_error"], error_score="raise")
    assert scores["test_neg_root_mean_squared_error"].shape == (3,)


def test_a_seed_gives_the_same_model_and_every_fit_starts_anew():
    first, second, other = (explicit(random_state=seed).fit(DATA).predict(DATA) for seed in (0, 0, 1))
    assert_array_equal(first, second)
    assert np.abs(first - other).max() > 1e-3
    estimator = explicit().fit(DATA[:100])
    assert_array_equal(estimator.fit(DATA).predict(DATA), first)
    loose = [explicit(random_state=None).fit(DATA).predict(DATA) for _ in range(2)]
    assert np.abs(loose[0] - loose[1]).max() > 1e-3


def test_the_callers_generators_are_left_alone_though_the_model_seeds_torchs():
    before = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    explicit().fit(DATA).recommend()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert_array_equal(np.random.get_state()[1], before[1][1])  # noqa: NPY002


@pytest.mark.parametrize("size", [1, 2, 13, 23, 46, 299])
def test_no_batch_has_a_single_observation(size):
    fitted = explicit(model__batch_size=size).fit(DATA[:47])  # 47 = 2 * 23 + 1 = 46 + 1
    assert fitted.model_._batch_size == {1: 3, 2: 3, 13: 13, 23: 24, 46: 47, 299: 299}[size]


def test_a_single_pair_is_predicted():
    fitted = explicit().fit(DATA)
    assert fitted.predict(3, 4) == fitted.predict([3, 5], [4, 4])[0]
    assert fitted.predict(DATA[:1]).shape == (1,)
    assert explicit().fit([[0, 0], [1, 0]], [1.0, 2.0]).predict(0).shape == (1,)


def test_a_single_observation_is_refused():
    with pytest.raises(ValueError, match="n_samples=1"):
        explicit().fit(DATA[:1])


def test_unknown_ids_are_averaged_or_nan_or_refused():
    wide = Interactions(DATA.user_ids, DATA.item_ids, DATA.ratings, num_users=31, num_items=20)
    fitted = explicit().fit(wide)
    everybody = np.mean([fitted.predict(user) for user in range(30)], axis=0)
    assert_allclose(fitted.predict(30), everybody, rtol=1e-5)  # not the initial factors of a row that was never trained
    assert_allclose(fitted.predict([999], [4]), everybody[4], rtol=1e-5)
    assert np.isnan(explicit(handle_unknown="nan").fit(wide).predict(30, 4))
    with pytest.raises(ValueError, match="user id of row 0 was not seen"):
        explicit(handle_unknown="error").fit(wide).predict(30, 4)


def test_observations_of_weight_zero_are_left_out():
    weights = (np.arange(300) % 3 > 0).astype(float)
    data = Interactions(DATA.user_ids, DATA.item_ids, DATA.ratings, weights=weights, num_users=30, num_items=20)
    assert_array_equal(explicit().fit(data).predict(DATA), explicit().fit(DATA[weights > 0]).predict(DATA))


def test_clip_keeps_predictions_within_the_ratings():
    low = explicit(model__n_iter=1, clip=True).fit(DATA, 50 + DATA.ratings)  # it starts at zero
    assert low.predict(DATA, clip=False).max() < 50 + DATA.ratings.min() == low.predict(DATA).max()


@every_loss
def test_a_model_with_implicit_in_its_name_ranks(loss, kind):
    fitted = SpotlightEstimator(kind, model__loss=loss, random_state=0)
    ranks = kind is ImplicitModel
    data = Interactions(DATA.user_ids, DATA.item_ids, None if ranks else np.abs(DATA.ratings) > 3, num_users=30, num_items=20)
    fitted.fit(data)
    score = evaluate(fitted, DATA[:50], "ndcg")["ndcg"][10] if ranks else r2_score(data.ratings, fitted.predict(data))
    assert fitted.score(DATA[:50] if ranks else data) == score
    assert hasattr(fitted, "rating_range_") is not ranks

    class Other(kind):
        pass

    assert SpotlightEstimator(Other)._ranks() is ranks
    assert SpotlightEstimator(kind, ranking=not ranks)._ranks() is not ranks


def test_a_model_that_ranks_recommends_what_its_user_has_not():
    fitted = implicit().fit(DATA)
    items, scores = fitted.recommend(k=20)
    seen = DATA.tocsr().toarray() != 0
    for user in range(30):
        listed = items[user][items[user] >= 0]
        assert_array_equal(np.sort(listed), np.flatnonzero(~seen[user]))
        assert_array_equal(scores[user][: len(listed)], np.sort(fitted.predict(user)[~seen[user]])[::-1])


def test_positives_of_weight_zero_are_none():
    y = (np.arange(300) % 3 > 0).astype(float)
    assert implicit().fit(DATA, y).seen_.nnz == 200


def test_explicit_models_need_ratings():
    with pytest.raises(ValueError, match="needs ratings"):
        explicit().fit(Interactions([0, 1], [0, 1]))
    with pytest.raises(ValueError, match="needs ratings between 0 and 1"):
        explicit(model__loss="logistic").fit([[0, 0], [1, 1]], [3.0, 4.0])


def test_new_users_are_refused():
    fitted = explicit().fit(DATA)
    for call in (fitted.predict, fitted.score, fitted.recommend):
        with pytest.raises(ValueError, match="from_matrix"):
            call(DATA.tocsr())


def test_sequence_models_are_refused():
    class Sequence(ExplicitModel):
        __module__ = "spotlight.sequence.implicit"

    with pytest.raises(TypeError, match="Sequence is a sequence model"):
        SpotlightEstimator(Sequence).fit(DATA)


def test_a_module_among_the_options_is_trained_as_a_copy():
    from spotlight_like import Net

    net = Net(30, 20, 4)
    before = net.user_embeddings.weight.clone()
    estimator = explicit(model__net=net)
    first = estimator.fit(DATA).predict(DATA)
    assert torch.equal(net.user_embeddings.weight, before)
    assert_array_equal(estimator.fit(DATA).predict(DATA), first)


def test_a_fitted_estimator_is_pickled():
    fitted = explicit().fit(DATA)
    assert_array_equal(pickle.loads(pickle.dumps(fitted)).predict(DATA), fitted.predict(DATA))


def test_verbose_is_the_models_own(capsys):
    explicit(model__n_iter=2).fit(DATA)
    assert capsys.readouterr().out == ""
    explicit(model__n_iter=2, verbose=1).fit(DATA)
    assert capsys.readouterr().out == "epoch 0\nepoch 1\n"


def test_a_fit_that_fails_leaves_the_model_that_was_there():
    estimator = explicit()
    with pytest.raises(ValueError, match="n_iters"):
        estimator.set_params(model__n_iters=1).fit(DATA)
    with pytest.raises(NotFittedError):
        estimator.predict(0)
    estimator = explicit().fit(DATA)
    before = estimator.predict(DATA)
    with pytest.raises(ValueError, match="n_iters"):
        estimator.set_params(model__n_iters=1).fit(DATA)
    assert_array_equal(estimator.predict(DATA), before)


NOT_LISTED = "model__* are parameters that no signature can list: a misspelt keyword is a TypeError at once, as of any function"


def checks():
    for estimator, check in estimator_checks_generator(SpotlightEstimator(ExplicitModel)):
        name = check.func.__name__
        failing = name == "check_do_not_raise_errors_in_init_or_set_params"
        yield pytest.param(estimator, check, id=name, marks=[pytest.mark.xfail(reason=NOT_LISTED, strict=True)] if failing else [])


@pytest.mark.parametrize(("estimator", "check"), list(checks()))
def test_scikit_learns_check(estimator, check):
    check(estimator)


def test_the_network_is_exported():
    fitted = explicit(model__loss="poisson").fit(Interactions(DATA.user_ids, DATA.item_ids, np.abs(DATA.ratings)))
    pairs = torch.from_numpy(DATA.user_ids).long(), torch.from_numpy(DATA.item_ids).long()
    assert_allclose(fitted.to_module()(*pairs).detach().numpy(), fitted.predict(DATA), rtol=1e-6)

    class Bare(ExplicitModel):
        def fit(self, interactions):
            del self._net

    with pytest.raises(TypeError, match="Bare keeps none"):
        SpotlightEstimator(Bare).fit(DATA).to_module()


# weights


def trained(loss, kind, **options):
    """A trained model, and what it was trained on: two users and an item in it have nothing."""
    ratings = (DATA.ratings > 3 if loss == "logistic" else np.rint(np.abs(DATA.ratings))).astype(np.float32)
    data = Interactions(DATA.user_ids, DATA.item_ids, ratings, num_users=32, num_items=21)
    model = kind(loss, n_iter=30, random_state=np.random.RandomState(0), **options)
    model.fit(data)
    return model, data


@every_loss
@pytest.mark.parametrize("given", [True, False], ids=["train given", "train not given"])
def test_predictions_are_those_of_the_model_that_was_taken_over(loss, kind, given):
    model, data = trained(loss, kind)
    fitted = weights_from_spotlight(model, data if given else None)
    assert type(fitted) is (BiasedMatrixFactorization if kind is ExplicitModel else ImplicitMatrixFactorization)
    expected = np.array([model.predict(user) for user in range(32)])
    assert expected.std() > 0.05
    assert_allclose(fitted.predict(np.arange(32)[:, None], np.arange(21)), expected, rtol=1e-5, atol=1e-5)
    assert_allclose([fitted.predict(user) for user in range(32)], expected, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        exported = fitted.to_module()(torch.arange(21), torch.arange(21)).numpy()
    assert_allclose(exported, expected.diagonal(), rtol=1e-5, atol=1e-5)


@every_loss
def test_an_unknown_user_of_a_model_that_was_taken_over_is_the_average_of_the_known(loss, kind):
    model, data = trained(loss, kind)
    fitted = weights_from_spotlight(model, data)
    scores = fitted._score(np.arange(30)[:, None], np.arange(21))
    assert_allclose(fitted._score(np.full(21, 999), np.arange(21)), scores.mean(0), rtol=1e-5, atol=1e-6)
    assert np.isnan(weights_from_spotlight(model, data).set_params(handle_unknown="nan").predict(31, 3))


@every_loss
def test_what_was_seen_is_left_out_and_new_users_are_folded_in_where_the_training_data_are_given(loss, kind):
    model, data = trained(loss, kind)
    fitted = weights_from_spotlight(model, data)
    seen = np.zeros((32, 21), dtype=bool)
    seen[data.user_ids, data.item_ids] = True
    items, _ = fitted.recommend(k=21)
    for user in range(32):
        assert_array_equal(np.sort(items[user][items[user] >= 0]), np.flatnonzero(~seen[user]))
    rows = sp.csr_array(data.tocsr()[:30])
    again, stranger = fitted.predict(rows), fitted.predict(999)
    if kind is ExplicitModel:
        pairs = data.user_ids, data.item_ids
        errors = [np.mean((scores[pairs] - data.ratings) ** 2) for scores in (again, np.tile(stranger, (30, 1)))]
        assert errors[0] < 0.9 * errors[1]
    else:

        def lead(scores):
            return np.mean([row[own].mean() - row[~own].mean() for row, own in zip(scores, seen[:30], strict=True)])

        assert lead(again) > 1.1 * lead([stranger] * 30)
    assert_allclose(fitted.predict(sp.csr_array((1, 21)))[0], stranger, rtol=1e-4, atol=1e-4)  # nothing known: the mean user


def test_the_fold_in_of_ratings_is_the_ridge_of_the_users_own_distribution():
    model, data = trained("regression", ExplicitModel)
    fitted = weights_from_spotlight(model, data)
    rows = np.column_stack([fitted.user_factors_, fitted.user_biases_])[:30].astype(float)
    features = np.column_stack([fitted.item_factors_, np.ones(21)]).astype(float)
    noise = np.mean((data.ratings - fitted.predict(data)) ** 2)
    precision, mean = noise * np.linalg.inv(np.cov(rows.T, bias=True)), rows.mean(0)
    rated = sp.csr_array(([4.0, 1.0], ([0, 0], [2, 7])), shape=(1, 21))
    y = features[[2, 7]]
    residual = np.array([4.0, 1.0]) - fitted.item_biases_[[2, 7]] - fitted.global_mean_
    expected = np.linalg.solve(y.T @ y + precision, y.T @ residual + precision @ mean)
    assert_allclose(fitted.fold_in(rated)[0], expected, rtol=1e-3, atol=1e-4)


@every_loss
def test_without_the_training_data_nothing_is_seen_and_nobody_folded_in(loss, kind):
    model, _ = trained(loss, kind)
    fitted = weights_from_spotlight(model)
    assert (fitted.recommend(k=21)[0] >= 0).all()
    for call in (fitted.fold_in, fitted.predict, fitted.recommend):
        with pytest.raises(ValueError, match=r"weights_from_spotlight\(model, train\)"):
            call(sp.csr_array(([1.0], ([0], [2])), shape=(1, 21)))


def test_the_arrays_are_copies():
    model, data = trained("regression", ExplicitModel)
    fitted = weights_from_spotlight(model, data)
    before = fitted.predict(data)
    with torch.no_grad():
        for parameter in model._net.parameters():
            parameter.zero_()
    assert_array_equal(fitted.predict(data), before)


def test_what_was_taken_over_can_be_cloned_pickled_and_fitted_anew():
    model, data = trained("regression", ExplicitModel)
    fitted = weights_from_spotlight(model, data)
    assert_array_equal(pickle.loads(pickle.dumps(fitted)).predict(data), fitted.predict(data))
    anew = clone(fitted).set_params(random_state=0).fit(data)
    assert anew.user_factors_.shape == fitted.user_factors_.shape
    with pytest.raises(ValueError, match='return_std=True needs solver="variational"'):
        fitted.predict(data, return_std=True)


def test_limits_are_those_of_the_training_data():
    model, data = trained("regression", ExplicitModel)
    fitted = weights_from_spotlight(model, data)
    assert_array_equal(fitted.rating_range_, [data.ratings.min(), data.ratings.max()])
    assert fitted.predict(data, clip=True).max() <= data.ratings.max()


def test_only_a_trained_factorization_is_taken_over():
    with pytest.raises(NotFittedError, match="model is not trained"):
        weights_from_spotlight(ExplicitModel(random_state=np.random.RandomState(0)))
    with pytest.raises(TypeError, match=r"with a BilinearNet\. Got str"):
        weights_from_spotlight("model")
    model, data = trained("regression", ExplicitModel)
    del model._net.user_biases
    with pytest.raises(TypeError, match=r"with a BilinearNet\. Got ExplicitModel with a Net"):
        weights_from_spotlight(model)
    model, data = trained("regression", ExplicitModel)
    with pytest.raises(ValueError, match="32 users and 21 items"):
        weights_from_spotlight(model, Interactions([0], [0], [1.0], num_users=3, num_items=4))
    with pytest.raises(ValueError, match="train has no ratings"):
        weights_from_spotlight(model, Interactions(data.user_ids, data.item_ids, num_users=32, num_items=21))
    with pytest.raises(TypeError, match="train must be Interactions"):
        weights_from_spotlight(model, data.tocsr())
    model._loss = "other"
    with pytest.raises(TypeError, match="loss 'other'"):
        weights_from_spotlight(model)
