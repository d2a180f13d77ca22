"""Spotlight's evaluation, by recorded numbers of its own, by plain loops, and by hand."""

import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import tutorial
from data import as_form, planted
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError
from spotlight_like import Container, ExplicitModel, Scores, ranking_by_loop

from sk_torchmf import BiasedMatrixFactorization, ImplicitMatrixFactorization, Interactions, MatrixFactorization, TorchFactorization
from sk_torchmf.spotlight import SpotlightEstimator, _evaluation, mrr_score, precision_recall_score, rmse_score

RECORDED = dict(np.load(Path(__file__).parent / "evaluation.npz"))
SIZES = {"num_users": int(RECORDED["num_users"]), "num_items": int(RECORDED["num_items"])}

DATA = planted(3, mean=3.0, n_users=30, n_items=20, n_ratings=300)[0]
# Users 30 and 31 and items 20 to 24 are in no training part: these items tie.
WIDER = Interactions(
    np.append(DATA.user_ids, [30, 2]),
    np.append(DATA.item_ids, [21, 23]),
    np.append(DATA.ratings, [3.0, 2.0]),
    num_users=32,
    num_items=25,
)
TESTED = (np.arange(len(WIDER)) % 4 == 0) & (WIDER.user_ids != 5) | (np.arange(len(WIDER)) >= len(DATA))
TRAIN, TEST = WIDER[~TESTED], WIDER[TESTED]
KS = np.array([1, 3, 10])

pytestmark = pytest.mark.usefixtures("one_thread")
OURS = {
    "plain": lambda **params: MatrixFactorization(n_factors=3, random_state=0, **params),
    "biased": lambda **params: BiasedMatrixFactorization(n_factors=3, random_state=0, **params),
    "clipped": lambda **params: BiasedMatrixFactorization(n_factors=3, clip=True, random_state=0, **params),
    "implicit": lambda **params: ImplicitMatrixFactorization(n_factors=3, random_state=0, **params),
    "implicit, biased": lambda **params: ImplicitMatrixFactorization(3, loss="logistic", biased=True, random_state=0, **params),
    "module": lambda **params: TorchFactorization(tutorial.Biased, "MSELoss", "Adagrad", max_iter=2, random_state=0, **params),
    "module that ranks": lambda **params: TorchFactorization(
        tutorial.Biased, "bpr", "Adagrad", max_iter=2, random_state=0, **params
    ),
    "spotlight's": lambda **params: SpotlightEstimator(ExplicitModel, random_state=0, **params),
}
every_estimator = pytest.mark.parametrize("make", OURS.values(), ids=OURS)


def recorded(part):
    return Interactions(*(RECORDED[f"{part}_{name}"] for name in ("user_ids", "item_ids", "ratings")), **SIZES)


# what Spotlight's own functions returned


def test_the_recorded_rmse():
    assert rmse_score(Scores(RECORDED["scores"]), recorded("test")) == pytest.approx(RECORDED["rmse"].item(), abs=1e-12)


@pytest.mark.parametrize(
    ("scores", "mrr"), [("scores", "mrr"), ("scores_with_ties", "mrr_with_ties")], ids=["distinct scores", "tied scores"]
)
def test_the_recorded_reciprocal_ranks(scores, mrr):
    model = Scores(RECORDED[scores])
    assert_allclose(mrr_score(model, recorded("test")), RECORDED[mrr], rtol=0, atol=1e-12)
    assert_allclose(mrr_score(model, recorded("test"), recorded("train")), RECORDED[f"{mrr}_excluding_train"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("k", [1, 5, 10])
@pytest.mark.parametrize(("train", "suffix"), [(None, ""), ("train", "_excluding_train")], ids=["all", "without train"])
def test_the_recorded_precision_and_recall(k, train, suffix):
    model = Scores(RECORDED["scores"])
    values = precision_recall_score(model, recorded("test"), train and recorded(train), k=k)
    for name, value in zip(("precision", "recall"), values, strict=True):
        assert_allclose(value, RECORDED[f"{name}_at_{k}{suffix}"], rtol=0, atol=1e-12)


def test_the_recorded_precision_and_recall_at_several_k():
    values = precision_recall_score(Scores(RECORDED["scores"]), recorded("test"), recorded("train"), k=np.array([1, 5, 10]))
    for name, value in zip(("precision", "recall"), values, strict=True):
        assert_allclose(value, RECORDED[f"{name}_at_1_5_10_excluding_train"], rtol=0, atol=1e-12)


# our estimators, in blocks


@every_estimator
@pytest.mark.parametrize("train", [None, TRAIN], ids=["all", "without train"])
def test_blocks_of_users_give_what_a_user_at_a_time_does(make, train, monkeypatch):
    model = make().fit(TRAIN)
    mrr, precision, recall = ranking_by_loop(model, TEST, train, KS)
    assert len(np.unique(mrr)) > 10  # not one number for all
    monkeypatch.setattr(_evaluation, "BLOCK", 60)  # two users at once
    predict, asked = type(model).predict, []
    monkeypatch.setattr(type(model), "predict", lambda self, *ids: asked.append(len(ids[0])) or predict(self, *ids))
    assert_array_equal(mrr_score(model, TEST, train), mrr)
    for value, expected in zip(precision_recall_score(model, TEST, train, k=KS), (precision, recall), strict=True):
        assert_array_equal(value, expected)
    assert max(asked) == 2
    assert sum(asked) == 2 * len(mrr)


@every_estimator
def test_rmse_is_that_of_the_predictions_of_pairs(make):
    model = make().fit(TRAIN)
    expected = np.sqrt(
        np.mean([(model.predict(u, i) - r) ** 2 for u, i, r in zip(TEST.user_ids, TEST.item_ids, TEST.ratings, strict=True)])
    )
    assert rmse_score(model, TEST) == pytest.approx(expected, rel=1e-12)


def test_items_that_nobody_has_tie_exactly():
    rng = np.random.default_rng(0)
    items = np.arange(1600) % 800
    data = Interactions(rng.integers(100, size=1600), items, rng.normal(3, 1, size=1600), num_users=100, num_items=1003)
    model = MatrixFactorization(n_factors=32, max_iter=2, random_state=0).fit(data)
    for scores in [*(model.predict(user) for user in range(100)), *model.predict(np.arange(-1, 100)[:, None], model.items_)]:
        assert np.ptp(scores[:800]) > 0
        assert np.ptp(scores[800:]) == 0  # a product with one vector rounds equal rows differently, by their place


@every_estimator
def test_nan_for_an_unknown_item_makes_the_ranks_nan_and_comes_last_in_a_list(make):
    model = make(handle_unknown="nan").fit(TRAIN)
    assert np.isnan(mrr_score(model, TEST)).all()  # the unknown items of everybody
    known = make().fit(TRAIN)
    precision, _ = precision_recall_score(model, TEST[TEST.item_ids < 20], k=25)
    assert_array_equal(precision[:-1], precision_recall_score(known, TEST[TEST.item_ids < 20], k=25)[0][:-1])


def test_an_unknown_user_is_refused_where_that_is_asked_for():
    with pytest.raises(ValueError, match="user 30, who was not seen in fit"):
        mrr_score(OURS["biased"](handle_unknown="error").fit(TRAIN), TEST)


def test_a_user_beyond_the_models_is_an_unknown_user():
    further = Interactions([30, 90], [3, 3], num_users=100, num_items=25)
    first, second = mrr_score(OURS["biased"]().fit(TRAIN), further)
    assert first == second


def test_positions_after_a_fit_on_labels_are_refused():
    model = OURS["biased"]().fit(*as_form(DATA, "labels"))
    for score in (mrr_score, precision_recall_score, rmse_score):
        with pytest.raises(ValueError, match="ids are labels"):
            score(model, TEST)


def test_an_estimator_that_is_not_fitted_is_refused():
    for score in (mrr_score, precision_recall_score, rmse_score):
        with pytest.raises(NotFittedError):
            score(OURS["biased"](), TEST)


@pytest.mark.parametrize("score", [mrr_score, precision_recall_score], ids=lambda score: score.__name__)
@pytest.mark.parametrize("make", [OURS["biased"], OURS["module"]], ids=["biased", "module"])
def test_the_memory_at_the_peak_does_not_grow_with_the_users(make, score, monkeypatch):
    monkeypatch.setattr(_evaluation, "BLOCK", 2**15)
    rng = np.random.default_rng(0)
    n, sizes = 1200, {"num_users": 1200, "num_items": 200}
    train, test = (Interactions(np.arange(n), rng.integers(200, size=n), np.ones(n), **sizes) for _ in range(2))
    model = make().fit(train)
    peaks = []
    for n_users in (600, n):  # all of their scores take 1 and 2 MiB
        tracemalloc.start()
        score(model, test[test.user_ids < n_users], train)
        peaks.append(tracemalloc.get_traced_memory()[1] / 2**20)
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 0.3


# any other model


def test_other_models_are_asked_a_user_at_a_time_by_a_plain_int():
    model = Scores(np.arange(12.0).reshape(3, 4))
    before = model.scores.copy()
    train = Interactions([2], [3], num_users=3, num_items=4)
    values = mrr_score(model, Interactions([0, 2], [0, 2], num_users=3, num_items=4), train)
    assert_array_equal(values, [1 / 4, 1.0])
    assert model.asked == [0, 2]
    assert all(type(user) is int for user in model.asked)
    assert_array_equal(model.scores, before)  # predict may hand out what is its own


def test_scores_in_float32_rank_alike():
    scores = np.random.default_rng(0).normal(size=(4, 9)).astype(np.float32)
    test = Interactions([0, 1, 1, 3], [2, 4, 8, 0], num_users=4, num_items=9)
    assert_array_equal(mrr_score(Scores(scores), test), ranking_by_loop(Scores(scores), test)[0])


# by hand


def test_tied_items_share_the_mean_of_their_ranks():
    model = Scores(np.array([[2.0, 1.0, 1.0, 1.0, 0.0]]))  # ranks 1, 3, 3, 3, 5
    assert_array_equal(mrr_score(model, Interactions([0], [2], num_items=5)), [1 / 3])
    assert_array_equal(mrr_score(model, Interactions([0, 0], [0, 4], num_items=5)), [(1 + 1 / 5) / 2])


def test_tied_items_are_listed_by_number():
    model = Scores(np.zeros((1, 40)))
    for k in (2, 30):  # a partial and a full sort
        precision, _ = precision_recall_score(model, Interactions([0, 0], [k - 1, k], num_items=40), k=k)
        assert precision == 1 / k


def test_a_test_item_that_train_has_shares_the_last_ranks():
    model = Scores(np.array([[3.0, 2.0, 1.0, 0.0]]))
    test, train = Interactions([0], [1], num_items=4), Interactions([0, 0], [0, 1], num_items=4)
    assert_array_equal(mrr_score(model, test, train), [1 / 3.5])  # ranks 3 and 4
    precision, recall = precision_recall_score(model, test, train, k=[2, 4])
    assert_array_equal(precision, [0, 1 / 4])
    assert_array_equal(recall, [0, 1])


def test_a_list_is_no_longer_than_there_are_items():
    precision, recall = precision_recall_score(Scores(np.arange(6.0).reshape(2, 3)), Interactions([0, 1, 1], [0, 0, 1]), k=10)
    assert_array_equal(precision, [1 / 3, 2 / 3])
    assert_array_equal(recall, [1, 1])


def test_a_repeated_pair_counts_once_and_ratings_not_at_all():
    model = Scores(np.array([[3.0, 2.0, 1.0]]))
    test = Interactions([0, 0, 0], [1, 1, 2], ratings=[1.0, -1.0, 0.0], num_items=3)
    assert_array_equal(mrr_score(model, test), [(1 / 2 + 1 / 3) / 2])


def test_axes_of_length_one_are_dropped():
    model = Scores(np.arange(6.0).reshape(2, 3))
    one, two = Interactions([1], [0], num_users=2, num_items=3), Interactions([0, 1], [0, 0], num_items=3)
    assert precision_recall_score(model, one)[0].shape == ()
    assert precision_recall_score(model, one, k=[1, 2])[0].shape == (2,)
    assert precision_recall_score(model, two, k=[1])[0].shape == (2,)
    assert precision_recall_score(model, two, k=[1, 2])[0].shape == (2, 2)


def test_no_test_items_give_no_values():
    none = Interactions([], [], num_users=2, num_items=3)
    assert mrr_score(Scores(np.zeros((2, 3))), none).shape == (0,)
    assert precision_recall_score(Scores(np.zeros((2, 3))), none)[0].shape == (0,)


def test_a_container_without_tocsr_will_do():
    names = ("user_ids", "item_ids", "ratings", "num_users", "num_items")
    theirs = Container(**{name: getattr(TEST, name) for name in names})
    model = OURS["biased"]().fit(TRAIN)
    assert_array_equal(mrr_score(model, theirs), mrr_score(model, TEST))
    assert rmse_score(model, theirs) == rmse_score(model, TEST)


# refused


def test_what_is_no_container_is_refused():
    class Sequences:
        sequences = np.zeros((2, 3), dtype=np.int64)

    for score in (mrr_score, precision_recall_score, rmse_score):
        with pytest.raises(TypeError, match=r"test must be Interactions.*out of scope"):
            score(Scores(np.zeros((2, 3))), Sequences())
    with pytest.raises(TypeError, match=r"train must be Interactions.* Got list"):
        mrr_score(Scores(np.zeros((2, 3))), Interactions([0], [1]), [1, 2])


def test_an_item_that_the_model_does_not_score_is_refused():
    with pytest.raises(ValueError, match="test has item 7, but the model scores only 3 items"):
        mrr_score(Scores(np.zeros((2, 3))), Interactions([0], [7]))
    with pytest.raises(ValueError, match="train has item 7, but the model scores only 3 items"):
        mrr_score(Scores(np.zeros((2, 3))), Interactions([0], [1]), Interactions([0], [7]))


def test_a_train_part_with_fewer_users_is_refused():
    with pytest.raises(ValueError, match=r"train must have as many users as test\. It has 1, and test has items of user 1"):
        mrr_score(Scores(np.zeros((2, 3))), Interactions([1], [1]), Interactions([0], [1]))


def test_rmse_needs_ratings():
    with pytest.raises(ValueError, match="test has no ratings"):
        rmse_score(Scores(np.zeros((2, 3))), Interactions([1], [1]))


@pytest.mark.parametrize("k", [0, [1, 0], 1.5, []])
def test_a_k_that_counts_nothing_is_refused(k):
    with pytest.raises(ValueError, match="k must be an int >= 1"):
        precision_recall_score(Scores(np.zeros((2, 3))), Interactions([1], [1]), k=k)


@pytest.mark.parametrize("bar", [True, False])
@pytest.mark.parametrize("score", [mrr_score, precision_recall_score])
def test_progress_is_shown_where_it_is_asked_for(score, bar, monkeypatch, capsys):
    if not bar:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    model = Scores(RECORDED["scores"])
    quiet = score(model, recorded("test"))
    assert capsys.readouterr().err == ""
    shown = score(model, recorded("test"), progress=True)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert score.__name__ in printed.err
    assert "100%" in printed.err
    assert_array_equal(shown, quiet)
