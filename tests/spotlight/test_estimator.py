"""Models with Spotlight's interface as estimators, by small ones of ours; the real ones are in test_interop."""

import pickle

import numpy as np
import pytest
import torch
from data import FORMS, as_form, ids_in, planted
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, KFold, cross_validate
from sklearn.utils.estimator_checks import estimator_checks_generator
from spotlight_like import ExplicitModel, ImplicitModel

from sk_torchmf import Interactions
from sk_torchmf.metrics import evaluate
from sk_torchmf.spotlight import SpotlightEstimator

DATA = planted(3, mean=3.0, n_users=30, n_items=20, n_ratings=300)[0]
LOSSES = dict.fromkeys(ExplicitModel.losses, ExplicitModel) | dict.fromkeys(ImplicitModel.losses, ImplicitModel)
every_loss = pytest.mark.parametrize(("loss", "kind"), LOSSES.items(), ids=LOSSES)
pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_tables_of_attributes_are_refused():
    fitted = explicit().fit(DATA)
    for call in (fitted.predict, fitted.recommend, fitted.score):
        with pytest.raises(ValueError, match="user_features and item_features must be None"):
            call(DATA, item_features=np.ones((20, 2)))


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

    with pytest.raises(TypeError, match="Bare has none"):
        SpotlightEstimator(Bare).fit(DATA).to_module()
