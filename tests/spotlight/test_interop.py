"""With the real Spotlight, from a checkout at SK_TORCHMF_SPOTLIGHT: ``nox -s spotlight -- PATH``."""

import os
import pickle

import numpy as np
import pytest
import torch
import tutorial
from data import as_form, planted
from migration import SPOTLIGHT
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.model_selection import GridSearchCV, KFold, cross_validate

from sk_torchmf import BiasedMatrixFactorization, ImplicitMatrixFactorization, Interactions, MatrixFactorization, TorchFactorization
from sk_torchmf.metrics import evaluate
from sk_torchmf.model_selection import UserKFold, ranking_scorer
from sk_torchmf.spotlight import (
    SpotlightEstimator,
    from_spotlight,
    mrr_score,
    precision_recall_score,
    rmse_score,
    to_spotlight,
    weights_from_spotlight,
)

if not os.environ.get("SK_TORCHMF_SPOTLIGHT"):
    pytest.skip("SK_TORCHMF_SPOTLIGHT, the path of a checkout of Spotlight, is not set", allow_module_level=True)

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:size_average and reduce args:UserWarning"),  # Spotlight's logistic loss
]
EXPLICIT, IMPLICIT = ["regression", "poisson", "logistic"], ["pointwise", "bpr", "hinge", "adaptive_hinge"]
DATA = planted(3, mean=3.0, n_users=60, n_items=40, n_ratings=900)[0]
DATA.ratings = np.clip(np.rint(DATA.ratings), 1, 5).astype(np.float32)
DATA.timestamps = np.arange(900)[::-1].astype(np.int32)
DATA.weights = np.linspace(0.5, 2, 900, dtype=np.float32)
TESTED = np.arange(900) % 4 == 0
TRAIN, TEST = DATA[~TESTED], DATA[TESTED & (DATA.user_ids != 7)]
KS = np.array([1, 5, 10])
OURS = {
    "plain": MatrixFactorization(n_factors=3, random_state=0),
    "biased": BiasedMatrixFactorization(n_factors=3, random_state=0),
    "implicit": ImplicitMatrixFactorization(n_factors=3, random_state=0),
    "module": TorchFactorization(tutorial.Biased, "MSELoss", "Adagrad", max_iter=3, random_state=0),
    "module that ranks": TorchFactorization(tutorial.Biased, "bpr", "Adagrad", max_iter=3, random_state=0),
}


def ratings_for(loss, data=DATA):
    """The data with ratings that a loss takes."""
    rating = {"logistic": np.where(data.ratings > 3, 1, -1)}.get(loss, data.ratings)
    return Interactions(data.user_ids, data.item_ids, rating.astype(np.float32), num_users=data.num_users, num_items=data.num_items)


def model_class(loss):
    from spotlight.factorization.explicit import ExplicitFactorizationModel
    from spotlight.factorization.implicit import ImplicitFactorizationModel

    return ExplicitFactorizationModel if loss in EXPLICIT else ImplicitFactorizationModel


def trained(loss, **options):
    model = model_class(loss)(loss, n_iter=3, batch_size=64, embedding_dim=8, random_state=np.random.RandomState(0), **options)
    model.fit(to_spotlight(ratings_for(loss, TRAIN)))
    return model


# containers


def test_containers_there_and_back():
    theirs = to_spotlight(DATA)
    assert type(theirs).__module__ == "spotlight.interactions"
    back = from_spotlight(theirs)
    for name in ("user_ids", "item_ids", "ratings", "timestamps", "weights", "num_users", "num_items"):
        assert getattr(theirs, name) is getattr(DATA, name)
        assert getattr(back, name) is getattr(DATA, name)


def test_splits_and_shuffles_of_what_was_ours():
    from spotlight.cross_validation import random_train_test_split, shuffle_interactions, user_based_train_test_split

    whole = sorted(zip(DATA.user_ids, DATA.item_ids, DATA.ratings, DATA.timestamps, DATA.weights, strict=True))
    for split in (random_train_test_split, user_based_train_test_split):
        parts = [
            from_spotlight(part) for part in split(to_spotlight(DATA, id_dtype=np.int32), random_state=np.random.RandomState(0))
        ]
        assert all(0 < len(part) < 900 and (part.num_users, part.num_items) == (60, 40) for part in parts)
        rows = [zip(p.user_ids, p.item_ids, p.ratings, p.timestamps, p.weights, strict=True) for p in parts]
        assert sorted(row for part in rows for row in part) == whole
        assert OURS["biased"].fit(parts[0]).predict(parts[1]).shape == (len(parts[1]),)
    shuffled = from_spotlight(shuffle_interactions(to_spotlight(DATA), np.random.RandomState(0)))
    assert (shuffled.user_ids != DATA.user_ids).any()
    assert_array_equal(np.sort(shuffled.timestamps), np.sort(DATA.timestamps))


def test_sequences_of_what_was_ours_are_in_the_order_of_time_and_come_no_way_back():
    data = Interactions(DATA.user_ids, DATA.item_ids + 1, timestamps=DATA.timestamps)  # 0 is Spotlight's padding
    sequences = to_spotlight(data).to_sequence(max_sequence_length=3)
    own = np.flatnonzero(DATA.user_ids == 4)[::-1]  # timestamps fall
    mine = sequences.sequences[sequences.user_ids == 4]
    assert_array_equal(mine[0], data.item_ids[own][-3:])
    for convert in (from_spotlight, to_spotlight):
        with pytest.raises(TypeError, match="sequence models are out of scope"):
            convert(sequences)
    with pytest.raises(TypeError, match="sequence models are out of scope"):
        mrr_score(OURS["biased"].fit(TRAIN), sequences)


@pytest.mark.parametrize("name", OURS)
def test_estimators_take_spotlights_container(name):
    estimator = OURS[name]
    train, test = to_spotlight(TRAIN), to_spotlight(TEST)
    ours = estimator.fit(TRAIN).predict(TEST)
    estimator.fit(train)
    assert_array_equal(estimator.predict(test), ours)
    assert estimator.score(test) == estimator.score(TEST)
    assert estimator.recommend(k=3)[0].shape == (60, 3)


@pytest.mark.parametrize("loss", [*EXPLICIT, *IMPLICIT])
def test_spotlights_models_take_our_container(loss):
    model = model_class(loss)(loss, n_iter=1, random_state=np.random.RandomState(0))
    other = model_class(loss)(loss, n_iter=1, random_state=np.random.RandomState(0))
    torch.manual_seed(0)
    model.fit(ratings_for(loss))
    torch.manual_seed(0)
    other.fit(to_spotlight(ratings_for(loss)))
    assert_array_equal(model.predict(3), other.predict(3))


# evaluation


@pytest.mark.parametrize("convert", [lambda data: data, to_spotlight], ids=["our containers", "theirs"])
@pytest.mark.parametrize("train", [None, TRAIN], ids=["all", "without train"])
@pytest.mark.parametrize("name", [*OURS, *EXPLICIT, *IMPLICIT])
def test_evaluation_is_spotlights_own(name, train, convert):
    from spotlight import evaluation

    model = OURS[name].fit(TRAIN) if name in OURS else trained(name)
    test, train = convert(TEST), None if train is None else convert(train)
    assert_array_equal(mrr_score(model, test, train), evaluation.mrr_score(model, test, train))
    assert rmse_score(model, test) == evaluation.rmse_score(model, test)
    for k in (3, KS, 50):
        expected = evaluation.precision_recall_score(model, test, train, k=k)
        for value, theirs in zip(precision_recall_score(model, test, train, k=k), expected, strict=True):
            assert_array_equal(value, theirs)


def test_spotlights_evaluation_of_a_fit_on_labels_is_refused_with_words():
    from spotlight import evaluation

    model = BiasedMatrixFactorization(n_factors=3, random_state=0).fit(*as_form(DATA, "labels"))
    with pytest.raises(ValueError, match="not by their positions"):
        evaluation.mrr_score(model, to_spotlight(TEST))


# models as estimators


@pytest.mark.parametrize("loss", [*EXPLICIT, *IMPLICIT])
def test_a_model_as_an_estimator(loss):
    data = ratings_for(loss)
    estimator = SpotlightEstimator(model_class(loss), model__loss=loss, model__n_iter=5, model__embedding_dim=8, random_state=0)
    before = torch.get_rng_state()
    estimator.fit(data)
    assert torch.equal(torch.get_rng_state(), before)
    assert_allclose(estimator.predict(data), estimator.model_.predict(data.user_ids, data.item_ids), rtol=1e-6)
    assert_array_equal(SpotlightEstimator(**estimator.get_params()).fit(data).predict(data), estimator.predict(data))
    assert_array_equal(pickle.loads(pickle.dumps(estimator)).predict(data), estimator.predict(data))
    assert_allclose(
        estimator.to_module()(*(torch.from_numpy(ids).long() for ids in (data.user_ids, data.item_ids))).detach(),
        estimator.predict(data),
        rtol=1e-5,
    )
    assert np.isfinite(estimator.score(data))
    items, _ = estimator.recommend([3], k=5)
    assert not np.isin(items, DATA.item_ids[DATA.user_ids == 3]).any()


def test_one_search_over_explicit_models():
    estimator = SpotlightEstimator(model_class("regression"), model__batch_size=64, random_state=0)
    grid = {"model__n_iter": [1, 10], "model__embedding_dim": [4, 8]}
    folds = KFold(3, shuffle=True, random_state=0)
    search = GridSearchCV(estimator, grid, cv=folds, scoring="neg_root_mean_squared_error", error_score="raise", n_jobs=2)
    search.fit(from_spotlight(to_spotlight(DATA)), DATA.ratings)
    assert search.best_params_["model__n_iter"] == 10
    scores = cross_validate(
        estimator, *as_form(DATA, "labels"), cv=folds, scoring=["r2", "neg_mean_absolute_error"], error_score="raise"
    )
    assert scores["test_r2"].shape == (3,)
    assert estimator.fit(DATA.tocsr()).predict(3).shape == (40,)


def test_one_search_over_implicit_models():
    estimator = SpotlightEstimator(model_class("bpr"), model__n_iter=2, random_state=0)
    grid = {"model__loss": ["bpr", "adaptive_hinge"]}
    search = GridSearchCV(estimator, grid, scoring=ranking_scorer("ndcg"), cv=UserKFold(3, random_state=0), error_score="raise")
    search.fit(DATA)
    assert search.best_score_ == max(search.cv_results_["mean_test_score"]) > 0
    assert search.best_estimator_.score(TEST) == evaluate(search.best_estimator_, TEST, "ndcg")["ndcg"][10]


@pytest.mark.parametrize("loss", [*EXPLICIT, *IMPLICIT])
def test_a_last_batch_of_one_and_a_single_pair(loss):
    data = ratings_for(loss)[:33]
    with pytest.raises(IndexError):  # the reason for all this; if it is gone, so may be the cure
        model_class(loss)(loss, n_iter=1, batch_size=32).fit(data)
    estimator = SpotlightEstimator(model_class(loss), model__loss=loss, model__n_iter=1, model__batch_size=32, random_state=0)
    assert estimator.fit(data).predict(data[:1]).shape == (1,)


def test_a_representation_is_trained_as_a_copy():
    from spotlight.factorization.representations import BilinearNet

    net = BilinearNet(60, 40, 4)
    before = net.user_embeddings.weight.detach().clone()
    estimator = SpotlightEstimator(model_class("regression"), model__representation=net, model__n_iter=1, random_state=0)
    assert_array_equal(estimator.fit(DATA).predict(DATA), estimator.fit(DATA).predict(DATA))
    assert torch.equal(net.user_embeddings.weight, before)


def test_a_sequence_model_is_refused():
    from spotlight.sequence.implicit import ImplicitSequenceModel

    with pytest.raises(TypeError, match="is a sequence model"):
        SpotlightEstimator(ImplicitSequenceModel).fit(DATA)


# weights


@pytest.mark.parametrize("loss", [*EXPLICIT, *IMPLICIT])
@pytest.mark.parametrize("train", [None, TRAIN], ids=["train not given", "train given"])
def test_weights_predict_what_the_model_does(loss, train):
    model = trained(loss)
    fitted = weights_from_spotlight(model, None if train is None else to_spotlight(ratings_for(loss, train)))
    expected = np.array([model.predict(user) for user in range(60)])
    assert_allclose(fitted.predict(np.arange(60)[:, None], np.arange(40)), expected, rtol=2e-6, atol=2e-6)
    assert_allclose(rmse_score(fitted, TEST), rmse_score(model, TEST), rtol=1e-6)


def test_weights_of_hashed_embeddings():
    from spotlight.factorization.representations import BilinearNet
    from spotlight.layers import BloomEmbedding

    layers = [BloomEmbedding(n, 8, compression_ratio=0.5, num_hash_functions=2) for n in (60, 40)]
    model = trained("regression", representation=BilinearNet(60, 40, 8, *layers))
    fitted = weights_from_spotlight(model, TRAIN)
    assert_allclose(fitted.predict(TEST), model.predict(TEST.user_ids, TEST.item_ids), rtol=2e-6, atol=2e-6)


# the migration page


@pytest.mark.parametrize("theirs", [theirs for theirs, _ in SPOTLIGHT.calls])
def test_spotlights_call_on_the_page_runs(theirs):
    import spotlight.cross_validation
    import spotlight.evaluation
    import spotlight.factorization.explicit
    import spotlight.factorization.implicit
    import spotlight.interactions

    names = {}
    for module in (
        spotlight.cross_validation,
        spotlight.evaluation,
        spotlight.factorization.explicit,
        spotlight.factorization.implicit,
        spotlight.interactions,
    ):
        names.update({name: value for name, value in vars(module).items() if not name.startswith("_")})
    data = to_spotlight(DATA, id_dtype=np.int32)
    names |= {"np": np, "torch": torch, "user_ids": DATA.user_ids, "item_ids": DATA.item_ids, "ratings": DATA.ratings}
    names |= {"data": data, "train": to_spotlight(TRAIN), "test": to_spotlight(TEST), "model": trained("regression")}
    exec(theirs, names)


@pytest.mark.parametrize("block", SPOTLIGHT.their_blocks, ids=range(len(SPOTLIGHT.their_blocks)))
def test_a_code_block_of_the_page_runs(block, capsys):
    exec(block, {})
