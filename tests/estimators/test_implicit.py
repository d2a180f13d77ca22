"""ImplicitMatrixFactorization: the shared contract under every loss, and what models of positives do beyond it."""

import numpy as np
import pytest
import scipy.sparse as sp
from communities import (
    DRAWN,
    LIKED,
    LOSSES,
    MATRIX,
    N_LIKED_ITEMS,
    N_LIKED_USERS,
    TEST,
    TRAIN,
    MostPopular,
    every_kind_of_loss,
    every_loss,
    logit,
    precise,
    preferences,
    scores_of,
    sigmoid,
    small,
    with_or_without_biases,
)
from contract import DATA, N_ITEMS, N_USERS, SEEN, WIDER
from contract_of_positives import ImplicitContract
from data import as_form
from every_loss import EXACT, RANKING_LOSSES
from numpy.testing import assert_allclose, assert_array_equal
from round_trip import through_joblib, through_pickle, through_skops
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

from sk_torchmf import ImplicitMatrixFactorization, Interactions
from sk_torchmf.model_selection import HeldOutUsers, UserKFold, ranking_scorer
from sk_torchmf.solvers import ranking_descent as ranking_solver

pytestmark = pytest.mark.usefixtures("one_thread")


class TestIals(ImplicitContract):
    pass


class TestPlain(ImplicitContract):
    biased = False


class TestLogistic(ImplicitContract):
    loss = "logistic"

    def average(self, predictions, axis=None):
        return sigmoid(logit(predictions).mean(axis))

    def response(self, scores):
        return sigmoid(scores)


class TestBpr(ImplicitContract):  # the hinges take the same way
    loss = "bpr"


class TestSoftmax(ImplicitContract):
    loss = "softmax"


# what is learned


@every_loss
@with_or_without_biases
def test_every_loss_finds_who_likes_what(loss, biased):
    popular = ranking_scorer("ndcg", k=10)(MostPopular().fit(TRAIN), TEST)
    model = small(loss, n_factors=8, biased=biased).fit(TRAIN)
    assert popular < 0.6  # lists hold items of both communities, and those who like the one never like the other
    assert model.score(TEST) > 0.93


@every_loss
@with_or_without_biases
@pytest.mark.parametrize("negatives", ["uniform", "popularity"])
def test_every_loss_ranks_far_better_than_the_most_popular(loss, biased, negatives):
    train, test = preferences()
    popular = ranking_scorer("ndcg", k=10)(MostPopular().fit(train), test)
    assert small(loss, biased=biased, negatives=negatives).fit(train).score(test) > 1.5 * popular


@pytest.mark.parametrize("loss", EXACT)
@with_or_without_biases
def test_drawn_negatives_rank_as_the_exact_expectation(loss, biased):
    train, test = preferences()
    exact, drawn = (small(loss, biased=biased, exact=exact).fit(train).score(test) for exact in (True, False))
    assert drawn == pytest.approx(exact, abs=0.05)  # of some 0.75
    assert exact != drawn


@pytest.mark.parametrize("loss", EXACT)
def test_the_expectation_is_exact_where_it_is_cheap(loss, monkeypatch):
    default, exact, drawn = (small(loss, exact=how).fit(TRAIN).user_factors_ for how in (None, True, False))
    assert_array_equal(default, exact)
    monkeypatch.setattr(ranking_solver, "EXACT", N_LIKED_USERS * N_LIKED_ITEMS - 1)
    assert_array_equal(small(loss, exact=None).fit(TRAIN).user_factors_, drawn)
    assert_array_equal(small(loss, exact=True).fit(TRAIN).user_factors_, exact)


def test_the_search_over_losses_and_factors_beats_popularity():
    cv, scoring = UserKFold(3, random_state=0), ranking_scorer("ndcg", k=10)
    train, _ = preferences()
    popular = cross_val_score(MostPopular(), train, scoring=scoring, cv=cv, error_score="raise").mean()
    grid = {"loss": list(LOSSES), "n_factors": [2, 4]}
    search = GridSearchCV(ImplicitMatrixFactorization(random_state=0), grid, scoring=scoring, cv=cv, error_score="raise").fit(train)
    assert (search.cv_results_["mean_test_score"] > 1.2 * popular).all()
    assert search.best_score_ > 1.5 * popular
    again = ImplicitMatrixFactorization(random_state=0, **search.best_params_).fit(train)
    assert_array_equal(search.best_estimator_.user_factors_, again.user_factors_)


def test_a_search_by_new_users_of_a_matrix():
    grid = {"loss": ["ials", "bpr", "softmax"]}
    search = GridSearchCV(small(), grid, cv=HeldOutUsers(3, random_state=0), error_score="raise").fit(sp.csr_array(LIKED.tocsr()))
    assert (search.cv_results_["mean_test_score"] > 0.9).all()  # by score: NDCG of the held-out fifth of each row


@every_loss
def test_predictions_are_scores_and_of_the_logistic_loss_chances(loss):
    model = small(loss).fit(TRAIN)
    scores, predicted = scores_of(model), model.predict(np.arange(N_LIKED_USERS)[:, None], np.arange(N_LIKED_ITEMS))
    assert_allclose(predicted, sigmoid(scores) if loss == "logistic" else scores, rtol=1e-12, atol=1e-12)
    if loss == "logistic":
        assert ((predicted > 0) & (predicted < 1)).all()
    elif loss == "ials":  # positives are fitted to 1, the others to 0
        assert predicted[TRAIN.user_ids, TRAIN.item_ids].mean() > 0.8
        assert np.abs(predicted[::2, 1::2].mean()) < 0.1


@pytest.mark.parametrize("m", [1, 8])
def test_more_negatives_make_a_positive_less_likely(m):
    """Fitted without regularisation worth the name, chances are those of a positive among itself and its m negatives."""
    rng = np.random.default_rng(0)
    user, item = np.nonzero(rng.random((200, 30)) < 0.3)
    model = small("logistic", n_factors=1, alpha=1.0, n_negatives=m, max_iter=200, exact=True)
    model.fit(Interactions(user, item))  # no factor outweighs that ridge: what is left is the base rate
    unobserved = 200 * 30 - len(user)
    rate = len(user) / (200 * 30)
    weight = m * len(user) / unobserved  # of each negative
    assert model.predict(0, np.arange(30)).mean() == pytest.approx(rate / (rate + (1 - rate) * weight), abs=0.05)


# the objective


@with_or_without_biases
def test_ials_minimises_the_documented_objective(biased):
    y = 0.5 + np.arange(len(DATA)) % 3
    model = precise(biased=biased, confidence=4.0, alpha=0.03).fit(WIDER, y)  # two users and two items that nobody saw
    scores = scores_of(model)[:N_USERS, :N_ITEMS]
    gain = np.zeros((N_USERS, N_ITEMS))
    gain[DATA.user_ids, DATA.item_ids] = 4.0 * y
    total = 0.0
    for u in range(N_USERS):
        for i in range(N_ITEMS):
            s = scores[u, i]
            total += s**2 + (SEEN[u, i] and (1 + gain[u, i]) * (1 - s) ** 2 - s**2)
    for u in range(N_USERS):
        total += 0.03 * (gain[u].sum() + N_ITEMS) * (model.user_factors_[u] ** 2).sum()
    for i in range(N_ITEMS):
        bias = model.item_biases_[i] + model.global_mean_ if biased else 0.0
        total += 0.03 * (gain[:, i].sum() + N_USERS) * ((model.item_factors_[i] ** 2).sum() + bias**2)
    assert model.history_["loss"][-1] == pytest.approx(total, rel=1e-10)


def test_softmax_minimises_the_documented_objective():
    y, alpha = 0.5 + np.arange(len(DATA)) % 3, 0.03
    options = {"biased": False, "alpha": alpha, "tol": 0}
    model, longer = (precise("softmax", max_iter=n, **options).fit(DATA, y) for n in (3, 4))
    scores, weight = scores_of(model), y / y.mean()
    own = np.bincount(DATA.user_ids, weight)
    weight = weight * np.sqrt(own.mean() / own)[DATA.user_ids]
    total = 0.0
    for u, i, w in zip(DATA.user_ids, DATA.item_ids, weight, strict=True):
        rest = scores[u][~SEEN[u]]
        total += w * RANKING_LOSSES["softmax"].value(scores[u, i], rest, len(rest))
    for ids, rows, at in ((DATA.user_ids, model.user_factors_, 0), (DATA.item_ids, model.item_factors_, 1)):
        count = np.bincount(ids, weight)
        ridge = alpha * (10 + count**0.75 * count.mean() ** 0.25)
        total += ridge @ ((rows - np.eye(3)[at]) ** 2).sum(1)  # each side starts from a direction of its own
    assert longer.history_["loss"][3] == pytest.approx(total, rel=1e-9)  # each entry is the value before its step


def test_ials_at_its_end_does_not_move():
    """A stationary point: no derivative of the documented objective along a user's or an item's row is left."""
    model = precise(max_iter=150, tol=0, alpha=0.05, confidence=10.0).fit(DATA)
    scores, gain = scores_of(model), np.where(SEEN, 10.0, 0.0)
    slope = np.where(SEEN, (1 + gain) * (scores - 1), scores)  # half the derivative by the score
    users = slope @ model.item_factors_ + 0.05 * (gain.sum(1) + N_ITEMS)[:, None] * model.user_factors_
    items = slope.T @ model.user_factors_ + 0.05 * (gain.sum(0) + N_USERS)[:, None] * model.item_factors_
    biases = slope.sum(0) + 0.05 * (gain.sum(0) + N_USERS) * (model.item_biases_ + model.global_mean_)
    start = np.abs(np.where(SEEN, 11.0, 0.0) @ model.item_factors_).max()  # of rows at zero
    for left in (users, items, biases):
        assert np.abs(left).max() < 1e-6 * start


@pytest.mark.parametrize("loss", ["softmax", "bpr", "hinge", "adaptive_hinge"])
def test_a_loss_of_comparisons_has_no_user_biases(loss):
    model = small(loss).fit(TRAIN)
    assert_array_equal(model.user_biases_, np.zeros(N_LIKED_USERS))
    assert model.item_biases_.mean() == pytest.approx(0, abs=1e-6)


def test_logistic_users_have_biases_of_mean_zero():
    """Who has more likes all items better; an unknown user is as biased as the average one."""
    model = small("logistic", n_factors=1, alpha=0.05).fit(
        Interactions(*np.nonzero(np.random.default_rng(0).random((60, 30)) < np.linspace(0.1, 0.6, 60)[:, None]))
    )
    assert model.user_biases_.mean() == pytest.approx(0, abs=1e-6)
    assert np.corrcoef(model.user_biases_, model.user_counts_)[0, 1] > 0.5


# as an estimator


def test_pipeline_with_an_ordinal_encoder():
    X, X_test = as_form(TRAIN, "labels")[0], as_form(TEST, "labels")[0]
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    pipe = make_pipeline(encoder, small("bpr")).fit(X)
    alone = small("bpr").fit(X)
    assert_array_equal(pipe.predict(X_test), alone.predict(X_test))
    assert pipe.score(X_test) == alone.score(X_test) > 0.93
    assert ranking_scorer("ndcg", k=10)(pipe, X_test) == alone.score(X_test)
    assert pipe.predict([["nobody", X[0, 1]]]) == alone.predict([["nobody", X[0, 1]]])
    weighted = make_pipeline(OrdinalEncoder(), precise()).fit(X, np.arange(len(X)) % 3)
    assert_array_equal(weighted[-1].user_factors_, precise().fit(X, np.arange(len(X)) % 3).user_factors_)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_frame_is_the_table_of_its_two_columns(library):
    frames = pytest.importorskip(library)
    users, items = as_form(TRAIN, "labels")[0].T
    frame = frames.DataFrame({"when": np.full(len(TRAIN), np.nan), "item": items, "user": users})
    model = small(user="user", item="item").fit(frame)
    expected = small().fit(as_form(TRAIN, "labels")[0])
    assert_array_equal(model.user_factors_, expected.user_factors_)
    assert_array_equal(model.predict(frame), expected.predict(as_form(TRAIN, "labels")[0]))
    assert_array_equal(model.recommend("u0003", k=3)[0], expected.recommend("u0003", k=3)[0])


@every_kind_of_loss
def test_a_clone_is_unfitted_and_fits_alike(loss):
    model = small(loss, alpha=0.03, confidence=3.0, n_negatives=2, negatives="popularity", handle_unknown="nan").fit(TRAIN)
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    assert not [name for name in vars(copy) if name.endswith("_")]
    assert_array_equal(copy.fit(TRAIN).user_factors_, model.user_factors_)


@pytest.mark.parametrize(("loss", "biased"), [("ials", True), ("logistic", True), ("bpr", False)])
@pytest.mark.parametrize("through", [through_pickle, through_joblib, through_skops])
def test_a_saved_model_answers_as_before(loss, biased, through, tmp_path):
    model = small(loss, biased=biased, max_iter=2).fit(TRAIN)
    copy = through(model, tmp_path)
    assert vars(copy).keys() == vars(model).keys()
    assert_array_equal(copy.predict(TEST), model.predict(TEST))
    assert_array_equal(copy.fold_in(MATRIX), model.fold_in(MATRIX))
    assert copy.score(TEST) == model.score(TEST)
    for ours, theirs in zip(copy.recommend(k=5), model.recommend(k=5), strict=True):
        assert_array_equal(ours, theirs)
    assert_array_equal(copy.fit(TRAIN).user_factors_, model.user_factors_)


@pytest.mark.parametrize("loss", ["ials", "logistic"])
def test_refit_forgets_the_biases(loss):
    model = small(loss).fit(TRAIN)
    assert {"user_biases_", "item_biases_", "global_mean_"} <= vars(model).keys()
    again, plain = model.set_params(biased=False).fit(TRAIN), small(loss, biased=False).fit(TRAIN)
    assert vars(again).keys() == vars(plain).keys()
    assert not {"user_biases_", "item_biases_", "global_mean_"} & vars(again).keys()
    assert_array_equal(again.predict(TEST), plain.predict(TEST))
    assert_array_equal(again.fold_in(MATRIX), plain.fold_in(MATRIX))
    other = again.set_params(biased=True, loss="bpr").fit(TRAIN)
    assert_array_equal(other.predict(TEST), small("bpr").fit(TRAIN).predict(TEST))


def test_parameters_set_after_fit_wait_for_the_next_one():
    model = small(biased=True).fit(TRAIN)
    predicted, width = model.predict(TEST), model.fold_in(MATRIX).shape[1]
    model.set_params(biased=False)
    assert_array_equal(model.predict(TEST), predicted)
    assert model.fold_in(MATRIX).shape[1] == width


def test_several_processes_give_the_same_numbers():
    results = [
        cross_validate(small("bpr", max_iter=2), TRAIN, cv=UserKFold(2, random_state=0), n_jobs=n_jobs, error_score="raise")
        for n_jobs in (1, 2)
    ]
    assert_allclose(
        results[0]["test_score"], results[1]["test_score"], rtol=1e-3
    )  # another number of threads sums in another order


@every_loss
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_factors_have_the_dtype_asked_for(loss, dtype):
    model = small(loss, dtype=dtype, max_iter=2).fit(TRAIN)
    for name in ("user_factors_", "item_factors_", "user_biases_", "item_biases_"):
        assert getattr(model, name).dtype == dtype
    assert isinstance(model.global_mean_, float)
    assert model.predict(TEST).dtype == model.fold_in(MATRIX).dtype == np.float64


@every_loss
def test_verbose_prints_a_line_an_iteration_and_history_has_a_value(loss, capsys):
    model = small(loss, max_iter=4, tol=0, verbose=1).fit(TRAIN)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 == model.n_iter_ == len(model.history_["loss"]) == len(model.history_["seconds"])
    for number, (line, value) in enumerate(zip(lines, model.history_["loss"], strict=True), start=1):
        assert line.startswith(f"[ImplicitMatrixFactorization] iteration {number}, loss {value:.6g}, ")
    assert all(seconds > 0 for seconds in model.history_["seconds"])
    assert model.history_["loss"][-1] < model.history_["loss"][0]
    small(loss, max_iter=4).fit(TRAIN)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("loss", ["ials", *EXACT])
def test_training_stops_once_tol_is_met(loss):
    model = small(loss, max_iter=400, tol=1e-2).fit(TRAIN)
    assert model.n_iter_ == len(model.history_["loss"]) < 100
    last = np.array(model.history_["loss"][-6:])
    assert ((last[:-1] - last[1:]) < 1e-2 * np.abs(last[:-1])).all()
    assert small(loss, max_iter=30, tol=0).fit(TRAIN).n_iter_ == 30


@pytest.mark.parametrize("loss", DRAWN)
def test_drawn_losses_take_all_their_steps(loss):
    assert small(loss, max_iter=30, tol=0.9).fit(TRAIN).n_iter_ == 30
