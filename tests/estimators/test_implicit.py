"""ImplicitMatrixFactorization: the shared contract under every loss, and what models of positives do beyond it."""

import pickle

import joblib
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from contract import DATA, N_ITEMS, N_USERS, SEEN, WIDER, FactorContract, new_users
from data import FORMS, as_form, ids_in
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder
from test_ranking_losses import LOOPS
from test_torch_ranking import LIKED, TEST, TRAIN

from sk_torchmf import ImplicitMatrixFactorization, Interactions
from sk_torchmf.model_selection import HeldOutUsers, UserKFold, ranking_scorer
from sk_torchmf.nn import RANKING
from sk_torchmf.nn import top_k as best_of
from sk_torchmf.solvers import ranking_descent as ranking_solver

LOSSES = ("ials", *RANKING)
EXACT = ("logistic", "softmax")
PAIRWISE = tuple(name for name in RANKING if name not in EXACT)
MATRIX = sp.csr_array(TRAIN.tocsr())
N_LIKED_USERS, N_LIKED_ITEMS = TRAIN.num_users, TRAIN.num_items

pytestmark = pytest.mark.usefixtures("one_thread")
every_loss = pytest.mark.parametrize("loss", LOSSES)
every_kind_of_loss = pytest.mark.parametrize("loss", ["ials", "softmax", "bpr"])  # all pairs, an expectation, drawn
ranking_losses = pytest.mark.parametrize("loss", RANKING)
every_form = pytest.mark.parametrize("form", FORMS)
with_or_without_biases = pytest.mark.parametrize("biased", [True, False], ids=["biased", "plain"])


def small(loss="ials", **params):
    return ImplicitMatrixFactorization(**{"n_factors": 4, "loss": loss, "biased": True, "random_state": 0} | params)


def precise(loss="ials", **params):
    """In float64, and a few steps: what happens is a matter of arithmetic."""
    return small(loss, **{"n_factors": 3, "dtype": "float64", "max_iter": 5} | params)


def logit(p):
    return np.log(p / (1 - p))


def sigmoid(s):
    return 1 / (1 + np.exp(-s))


def scores_of(estimator):
    """Scores of all pairs by the fitted attributes."""
    scores = estimator.user_factors_.astype(float) @ estimator.item_factors_.T.astype(float)
    if hasattr(estimator, "item_biases_"):
        scores = scores + estimator.user_biases_[:, None] + estimator.item_biases_ + estimator.global_mean_
    return scores


def preferences(n_users=150, n_items=60, n_each=20):
    """What users of three tastes and a liking for the first items chose, three quarters to train on and the rest."""
    rng = np.random.default_rng(0)
    taste = rng.normal(size=(n_users, 3)) @ rng.normal(size=(3, n_items)) - 0.5 * np.log1p(np.arange(n_items))
    item = np.argsort(-2 * taste - rng.gumbel(size=taste.shape), axis=1)[:, :n_each]
    data = Interactions(np.repeat(np.arange(n_users), n_each), item.ravel(), num_users=n_users, num_items=n_items)
    held_out = rng.random(len(data)) < 0.25
    return data[~held_out], data[held_out]


class MostPopular(BaseEstimator):
    """The same items for everyone, but for what a user has: what any model has to beat."""

    def fit(self, X, y=None):
        self.users_, self.items_, self.seen_ = np.arange(X.num_users), np.arange(X.num_items), X.tocsr().toarray() != 0
        return self

    def recommend(self, users, k, exclude_seen=True):
        scores = np.where(self.seen_[users], -np.inf, self.seen_.sum(0))
        items = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return items, np.take_along_axis(scores, items, axis=1)


def ndcg_by_hand(scores, seen, test, k=10):
    """Mean over users with a test item, by plain loops over boolean arrays of shape (n_users, n_items)."""
    values = []
    for user in np.flatnonzero(test.any(1)):
        order = sorted(np.flatnonzero(~seen[user]), key=lambda item, s=scores[user]: -s[item])[:k]
        gain = sum(1 / np.log2(place + 2) for place, item in enumerate(order) if test[user, item])
        values.append(gain / sum(1 / np.log2(place + 2) for place in range(min(k, test[user].sum()))))
    return np.mean(values)


def arguments(data, form):
    """X in a form; the ratings that a container may have none of are left out."""
    ones = Interactions(data.user_ids, data.item_ids, np.ones(len(data)), num_users=data.num_users, num_items=data.num_items)
    return as_form(ones, form)[0]


def one_row(items, n_items=N_LIKED_ITEMS):
    return sp.csr_array((np.ones(len(items)), (np.zeros(len(items), dtype=int), items)), shape=(1, n_items))


# the contract


class ImplicitContract(FactorContract):
    loss = "ials"
    biased = True
    blockwise = (*FactorContract.blockwise, ranking_solver)

    def make(self, **params):
        return ImplicitMatrixFactorization(
            **{"n_factors": 3, "loss": self.loss, "biased": self.biased, "max_iter": 5, "random_state": 0} | params
        )

    def arguments(self, data, form):
        """A table without y: the ratings of the others are no weights."""
        return as_form(data, form)[0], None


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
        total += w * LOOPS["softmax"](scores[u, i], rest, len(rest))
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


def test_positives_weigh_a_tenth_of_all_pairs_where_no_confidence_is_given():
    y = 0.5 + np.arange(len(DATA)) % 3
    assert precise().fit(WIDER, y).confidence_ * y.sum() == pytest.approx(0.1 * N_USERS * N_ITEMS, rel=1e-12)  # that anybody knows
    assert precise(confidence=3).fit(WIDER, y).confidence_ == 3
    once, scaled = (precise().fit(DATA, factor * y) for factor in (1.0, 1e6))
    assert_allclose(scores_of(scaled), scores_of(once), rtol=1e-9, atol=1e-9)


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


# weights


@pytest.mark.parametrize("loss", ["ials", "bpr", *EXACT])
@with_or_without_biases
@pytest.mark.parametrize("how", ["y", "sample_weight", "weights", "both"])
def test_a_weight_is_repetition(loss, biased, how):
    weight = 1 + np.arange(len(DATA)) % 3
    options = {"y": {"y": weight}, "sample_weight": {"sample_weight": weight}, "weights": {}}
    options["both"] = {"y": np.where(weight == 2, 1, weight), "sample_weight": np.where(weight == 2, 2.0, 1.0)}
    data = Interactions(DATA.user_ids, DATA.item_ids, weights=weight) if how == "weights" else DATA
    weighted = precise(loss, biased=biased).fit(data, **options[how])
    repeated = precise(loss, biased=biased).fit(DATA[np.repeat(np.arange(len(DATA)), weight)])
    assert_allclose(scores_of(weighted), scores_of(repeated), rtol=1e-9, atol=1e-9)
    assert_array_equal(weighted.user_counts_, repeated.user_counts_)
    assert_array_equal(weighted.item_counts_, np.bincount(DATA.item_ids, weight))
    assert np.abs(scores_of(weighted) - scores_of(precise(loss, biased=biased).fit(DATA))).max() > 1e-3


@every_kind_of_loss
def test_a_y_of_zero_is_absence(loss):
    y = (np.arange(len(DATA)) % 3 > 0).astype(float)
    for options in ({"y": y}, {"sample_weight": y}):
        model = precise(loss).fit(DATA, **options)
        assert_array_equal(scores_of(model), scores_of(precise(loss).fit(DATA[y > 0])))
        assert model.seen_.nnz == y.sum()


def test_an_id_of_weight_zero_keeps_its_row_and_is_unknown():
    X, y = np.array([["a", "x"], ["b", "y"], ["a", "z"], ["c", "x"]], dtype=object), [2.0, 0.0, 1.0, 1.0]
    model = small().fit(X, y)
    assert_array_equal(model.users_, ["a", "b", "c"])
    assert_array_equal(model.user_counts_, [3.0, 0.0, 1.0])
    assert model.predict("b", "x") == model.predict("nobody", "x")
    assert np.isnan(small(handle_unknown="nan").fit(X, y).predict("b", "x"))


@ranking_losses
def test_ranking_losses_do_not_know_the_unit_of_the_weights(loss):
    y = 1.0 + np.arange(len(DATA)) % 3
    once, scaled = (precise(loss).fit(DATA, factor * y) for factor in (1.0, 1e6))
    assert_allclose(scores_of(scaled), scores_of(once), rtol=1e-7, atol=1e-7)
    X = new_users()
    assert_allclose(scaled.fold_in(X), once.fold_in(X), rtol=1e-7, atol=1e-7)


@every_kind_of_loss
def test_a_containers_ratings_and_a_matrixs_values_say_nothing(loss):
    rng = np.random.default_rng(0)
    expected = precise(loss).fit(DATA).user_factors_
    for ratings in (None, np.zeros(len(DATA)), rng.normal(size=len(DATA)), np.full(len(DATA), np.nan)):
        data = Interactions(DATA.user_ids, DATA.item_ids, ratings, num_users=N_USERS, num_items=N_ITEMS)
        assert_array_equal(precise(loss).fit(data).user_factors_, expected)
    matrix = as_form(DATA, "sparse")[0]
    for values in (np.zeros(matrix.nnz), rng.normal(size=matrix.nnz)):
        other = sp.csr_array((values, matrix.indices, matrix.indptr), shape=matrix.shape)
        assert_array_equal(precise(loss).fit(other).user_factors_, expected)
        new = new_users()
        blank = sp.csr_array((np.zeros(new.nnz), new.indices, new.indptr), shape=new.shape)
        assert_array_equal(precise(loss).fit(other).fold_in(blank), precise(loss).fit(other).fold_in(new))


@pytest.mark.parametrize("loss", EXACT)
def test_an_exact_fit_does_not_depend_on_the_block_size(loss, monkeypatch):
    whole = precise(loss).fit(DATA)
    assert ranking_solver.BLOCK > N_USERS * N_ITEMS
    for size in (1, 50, 7 * N_ITEMS):  # one user, two and seven at a time
        monkeypatch.setattr(ranking_solver, "BLOCK", size)
        assert_allclose(scores_of(precise(loss).fit(DATA)), scores_of(whole), rtol=1e-9, atol=1e-9)


@every_kind_of_loss
def test_recommendations_and_score_do_not_depend_on_the_block_size(loss, monkeypatch):
    model = small(loss, max_iter=3).fit(TRAIN)
    expected, score = model.recommend(k=7), model.score(TEST)
    for size in (1, 100):
        monkeypatch.setattr(best_of, "BLOCK", size)
        for ours, theirs in zip(model.recommend(k=7), expected, strict=True):
            assert_allclose(ours, theirs, rtol=1e-9)
        assert model.score(TEST) == score


@pytest.mark.parametrize("loss", ["softmax", "bpr"])
def test_what_the_number_of_negatives_is_to_a_loss(loss):
    few, many = (small(loss, biased=False, n_negatives=m).fit(TRAIN).user_factors_ for m in (1, 9))
    assert (few == many).all() == (loss == "softmax")  # an exact expectation over them all


# new users


@with_or_without_biases
def test_a_trained_user_of_ials_is_its_own_fold_in(biased):
    """Each user's row is the exact minimum once the items rest, items and users that nobody saw left out."""
    data = Interactions(DATA.user_ids, DATA.item_ids, num_users=N_USERS, num_items=N_ITEMS + 2)
    model = precise(max_iter=150, tol=0, alpha=0.05, biased=biased).fit(data)
    assert model.user_factors_.std() > 0.1
    rows = model.fold_in(data.tocsr())
    assert_allclose(rows[:, :3], model.user_factors_, rtol=1e-6, atol=1e-8)
    assert_array_equal(rows[:, 3:], np.zeros((N_USERS, int(biased))))


@with_or_without_biases
def test_fold_in_of_ials_is_the_ridge_solution(biased):
    model = precise(confidence=3.0, alpha=0.05, biased=biased).fit(WIDER)
    items = model.item_factors_[:N_ITEMS]
    offset = model.item_biases_[:N_ITEMS] + model.global_mean_ if biased else np.zeros(N_ITEMS)
    X = sp.csr_array(sp.hstack([new_users(), sp.csr_array((8, 2))]))
    folded = model.fold_in(X)
    for u in (*range(6), 7):  # not who has nothing, who is the mean user
        weight, target = np.ones(N_ITEMS), np.zeros(N_ITEMS)
        seen = X.indices[X.indptr[u] : X.indptr[u + 1]]
        weight[seen], target[seen] = 1 + 3.0, 1.0
        ridge = 0.05 * (3.0 * len(seen) + N_ITEMS) * np.eye(3)
        expected = np.linalg.solve((items.T * weight) @ items + ridge, (items.T * weight) @ (target - offset))
        assert_allclose(folded[u, :3], expected, rtol=1e-9)
    assert_array_equal(folded[6], np.append(model.mean_user_, [0.0] * biased))


@every_loss
@pytest.mark.parametrize(("biased", "negatives"), [(True, "uniform"), (False, "uniform"), (True, "popularity")])
def test_a_new_user_gets_what_her_community_likes(loss, biased, negatives):
    model = small(loss, biased=biased, negatives=negatives).fit(TRAIN)
    for group in (0, 1):
        own = np.arange(group, N_LIKED_ITEMS, 2)
        row = one_row(own[:6])
        items, scores = model.recommend(row, k=8)
        assert (items % 2 == group).all()
        assert not np.isin(items, own[:6]).any()
        assert (np.diff(scores) <= 0).all()
        predicted = model.predict(row)[0]
        assert (predicted[own][:, None] > predicted[1 - group :: 2]).mean() > 0.9


@every_loss
@with_or_without_biases
def test_fold_in_knows_no_other_row(loss, biased):
    model = precise(loss, biased=biased).fit(DATA)
    X = new_users()
    together = model.fold_in(X)
    for row in (0, 6, 7):
        assert_allclose(model.fold_in(X[[row]])[0], together[row], rtol=1e-9, atol=1e-12)
    crowd = sp.csr_array(sp.vstack([as_form(DATA, "sparse")[0], X]))
    assert_allclose(model.fold_in(crowd)[N_USERS:], together, rtol=1e-9, atol=1e-12)


@every_loss
@with_or_without_biases
def test_who_has_nothing_to_learn_from_is_the_mean_user(loss, biased):
    model = small(loss, biased=biased).fit(TRAIN)
    X = sp.csr_array(sp.vstack([one_row([]), one_row(np.arange(N_LIKED_ITEMS)), one_row([0, 2])]))
    mean = np.append(model.mean_user_.astype(float), [0.0] * biased)
    rows = model.fold_in(X)
    assert_array_equal(rows[0], mean)
    assert (rows[1] == mean).all() == (loss != "ials")  # which learns from all positives
    assert (rows[2] != mean).any()
    assert_array_equal(model.recommend(X, k=3)[0][1], [-1] * 3)
    assert_array_equal(model.recommend(one_row([]), k=4)[0][0], model.recommend([9999], k=4)[0][0])


def test_an_item_that_nobody_has_is_none_that_a_new_user_lacks():
    """By popularity, and by any share: what is left of the known items decides."""
    for negatives in ("uniform", "popularity"):
        model = small("bpr", negatives=negatives).fit(Interactions([0, 0, 1, 1, 2], [0, 1, 1, 2, 0], num_items=5))
        rows = model.fold_in(one_row([0, 1, 2], n_items=5))
        assert_array_equal(rows[0, :4], model.mean_user_)


@every_loss
def test_a_trained_users_fold_in_ranks_as_she_does(loss):
    train, test = preferences()
    model = small(loss).fit(train)
    folded = model.predict(sp.csr_array(train.tocsr()))
    seen, relevant = (data.tocsr().toarray() != 0 for data in (train, test))
    assert ndcg_by_hand(folded, seen, relevant) > 0.9 * model.score(test)


@every_loss
def test_items_similar_to_one_are_of_its_community(loss):
    model = small(loss).fit(TRAIN)
    items = np.arange(N_LIKED_ITEMS)
    near = model.similar_items(items, k=5)[0]
    assert ((near % 2) == (items % 2)[:, None]).mean() > 0.95
    near = model.similar_users(np.arange(N_LIKED_USERS), k=5)[0]
    assert ((near % 2) == (np.arange(N_LIKED_USERS) % 2)[:, None]).mean() > 0.95


# score


@every_kind_of_loss
@pytest.mark.parametrize("form", ["table", "labels", "interactions"])
def test_score_is_the_ndcg_of_the_scorer_and_of_a_plain_loop(loss, form):
    train, test = preferences()
    model = small(loss).fit(arguments(train, form))
    X = arguments(test, form)
    expected = ndcg_by_hand(scores_of(model), train.tocsr().toarray() != 0, test.tocsr().toarray() != 0)
    assert 0.5 < expected < 1
    assert model.score(X) == pytest.approx(expected, rel=1e-9)
    assert model.score(X) == ranking_scorer("ndcg", k=10)(model, X)


@every_kind_of_loss
def test_score_of_a_matrix_folds_a_part_of_each_row_in(loss):
    train, test = preferences()
    model, X = small(loss).fit(train), sp.csr_array(test.tocsr())
    assert model.score(X) == ranking_scorer("ndcg", k=10)(model, X)
    scorer = ranking_scorer("ndcg", k=10)
    known, test = scorer._hold_out(X)
    expected = ndcg_by_hand(model.predict(known), known.toarray() != 0, test.toarray() != 0)
    assert model.score(X) == pytest.approx(expected, rel=1e-9)
    weight = np.arange(X.shape[0]) % 3
    assert model.score(X, sample_weight=weight) == model.score(X[weight > 0]) != model.score(X)


def test_score_leaves_out_test_items_of_weight_zero():
    model, keep = small(max_iter=1).fit(TRAIN), np.arange(len(TEST)) % 2 == 0
    expected = model.score(TEST[keep])
    assert expected != model.score(TEST)
    assert model.score(TEST, keep * 3.0) == model.score(TEST, sample_weight=keep) == expected
    weighing = Interactions(TEST.user_ids, TEST.item_ids, weights=keep * 1.0, num_users=N_LIKED_USERS, num_items=N_LIKED_ITEMS)
    assert model.score(weighing) == expected
    table = as_form(TEST, "table")[0]
    assert model.score(table, keep * 1.0) == expected


def test_ratings_of_a_container_are_no_threshold_of_the_score():
    model = small(max_iter=1).fit(TRAIN)
    rated = Interactions(TEST.user_ids, TEST.item_ids, -np.ones(len(TEST)), num_users=N_LIKED_USERS, num_items=N_LIKED_ITEMS)
    assert model.score(rated) == model.score(TEST)


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


def through_pickle(model, folder):
    return pickle.loads(pickle.dumps(model))


def through_joblib(model, folder):
    joblib.dump(model, folder / "model.joblib")
    return joblib.load(folder / "model.joblib")


def through_skops(model, folder):
    skops_io = pytest.importorskip("skops.io")
    file = skops_io.dumps(model)
    unknown = skops_io.get_untrusted_types(data=file)
    assert all(name.startswith(("sk_torchmf.", "scipy.sparse.")) for name in unknown), unknown
    return skops_io.loads(file, trusted=unknown)


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


@pytest.mark.parametrize("loss", PAIRWISE)
def test_drawn_losses_take_all_their_steps(loss):
    assert small(loss, max_iter=30, tol=0.9).fit(TRAIN).n_iter_ == 30


# edges


@ranking_losses
@pytest.mark.parametrize("negatives", ["uniform", "popularity"])
def test_a_user_who_has_everything_is_left_out_and_is_the_mean_user(loss, negatives):
    everything = Interactions(np.full(N_ITEMS, N_USERS), np.arange(N_ITEMS))
    both = Interactions(*(np.concatenate([getattr(part, ids) for part in (DATA, everything)]) for ids in ("user_ids", "item_ids")))
    model, without = (precise(loss, negatives=negatives).fit(data) for data in (both, DATA))
    assert_allclose(scores_of(model)[:N_USERS], scores_of(without), rtol=1e-9, atol=1e-9)
    assert_allclose(model.user_factors_[N_USERS], model.user_factors_[:N_USERS].mean(0), rtol=1e-9)
    assert_array_equal(model.predict(N_USERS), model.predict(9999))
    assert model.user_counts_[N_USERS] == N_ITEMS
    assert_array_equal(model.recommend(N_USERS, k=2)[0], [-1, -1])


@ranking_losses
def test_items_of_a_user_who_has_everything_are_still_what_others_lack(loss):
    """User 2 alone has item 2: without her, the others are ranked against it, user 1 too, who has all that is left."""
    model = small(loss, n_factors=2, exact=False if loss in EXACT else None).fit(
        Interactions([0, 1, 1, 2, 2, 2], [0, 0, 1, 0, 1, 2])
    )
    for user in (0, 1):
        scores = model.predict(user)
        assert scores[:2].min() > scores[2]
    assert model.recommend(1, k=1)[0] == [2]


@ranking_losses
@pytest.mark.parametrize("negatives", ["uniform", "popularity"])
@pytest.mark.parametrize(
    "data",
    [
        Interactions([0], [0]),
        Interactions([0, 1, 2], [0, 0, 0]),
        Interactions([0, 0], [0, 1]),
        Interactions([0, 0, 1, 1], [0, 1, 0, 1]),
        Interactions([0, 0, 1, 1], [0, 1, 0, 1], num_users=3, num_items=4),
    ],
    ids=["one interaction", "one item", "one user", "everything", "everything that anybody has"],
)
def test_nobody_to_rank_for_is_refused_and_the_cure_works(loss, negatives, data):
    n_users, n_items = len(set(data.user_ids)), len(set(data.item_ids))
    words = (
        rf'Every user has every item, so loss="{loss}" has nothing to rank them above\. Got {n_users} users and {n_items} items\.'
    )
    with pytest.raises(ValueError, match=words + r' Use loss="ials"\.'):
        small(loss, negatives=negatives).fit(data)
    model = small().fit(data)
    assert_allclose(model.predict(data), 1.0, atol=0.1)
    assert model.recommend(k=2)[0].shape == (data.num_users, 2)
    assert np.isfinite(model.fold_in(sp.csr_array(data.tocsr()))).all()


@every_loss
@pytest.mark.parametrize("data", [Interactions([0, 1], [0, 1]), Interactions([0, 0, 1], [0, 1, 2])], ids=["two pairs", "three"])
def test_the_smallest_data_fit(loss, data):
    model = small(loss, n_factors=1, alpha=1e-3).fit(data)
    for u, i in zip(data.user_ids, data.item_ids, strict=True):
        others = np.setdiff1d(np.arange(data.num_items), data.item_ids[data.user_ids == u])
        assert model.predict(u, i) > model.predict([u], others).max()
    items, scores = model.recommend(k=5)  # more than there are
    assert_array_equal(np.isneginf(scores), items < 0)
    assert_array_equal((items >= 0).sum(1), data.num_items - np.bincount(data.user_ids))


@every_kind_of_loss
def test_weights_out_of_all_proportion(loss):
    y = np.where(np.arange(len(DATA)) % 3 == 0, 1e-40, 1.0)  # which float32 cannot hold
    model, without = (small(loss).fit(DATA, w) for w in (y, np.where(y == 1, y, 0)))
    assert np.isfinite(scores_of(model)).all()
    assert model.seen_.nnz == len(DATA) > without.seen_.nnz
    large = small(loss).fit(DATA, np.where(y == 1, 1e25, 1.0))
    assert np.isfinite(scores_of(large)).all()
    known = np.flatnonzero(y == 1)
    pairs = DATA.user_ids[known], DATA.item_ids[known]
    assert large.predict(*pairs).mean() > np.delete(large.predict(np.arange(N_USERS)[:, None], np.arange(N_ITEMS)), 0).mean()


# bad input


@every_loss
@pytest.mark.parametrize("weight", [1e35, 1e300, 1e-40])
def test_weights_that_float32_could_not_hold_are_refused(loss, weight):
    with pytest.raises(ValueError, match=r"largest weight of a pair.* must lie between 1e-30 and 1e30\. Got 1e.*Rescale"):
        small(loss).fit(DATA, np.full(len(DATA), weight))


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"loss": "warp"}, "'loss' parameter .* must be a str among .*'adaptive_hinge'.* Got 'warp'"),
        ({"loss": None}, "'loss' parameter"),
        ({"alpha": -0.1}, r"'alpha' parameter .* range \[0.0, inf\).* Got -0.1"),
        ({"alpha": np.nan}, "'alpha' parameter"),
        ({"confidence": 0}, r"'confidence' parameter .* range \(0.0, inf\).* Got 0"),
        ({"confidence": -1.0}, "'confidence' parameter"),
        ({"confidence": 1e35}, r"largest weight of a pair, times confidence, must lie between 1e-30 and 1e30\. Got 1e\+35"),
        ({"n_factors": 0}, "'n_factors' parameter"),
        ({"n_negatives": 0}, "'n_negatives' parameter"),
        ({"negatives": "hard"}, "'negatives' parameter .* must be a str among"),
        ({"max_iter": 0}, "'max_iter' parameter"),
        ({"tol": -1e-4}, "'tol' parameter"),
        ({"exact": "yes"}, "'exact' parameter"),
        ({"biased": "yes"}, "'biased' parameter"),
        ({"dtype": "float16"}, "'dtype' parameter"),
        ({"handle_unknown": "ignore"}, "'handle_unknown' parameter"),
        (
            {"exact": True},
            r'exact=True is for loss="logistic" and loss="softmax"\. Got loss="ials", which always counts all pairs\.',
        ),
        ({"exact": True, "loss": "bpr"}, r'exact=True is for .* Got loss="bpr", which is drawn\.'),
        ({"exact": True, "loss": "adaptive_hinge"}, r'Got loss="adaptive_hinge", which is drawn\.'),
        ({"user": "who"}, "user='who' is not a column of X"),
        ({"item": 7}, "item=7 is not a column position of X, which has 2 columns"),
    ],
)
def test_bad_parameters_are_named(params, words):
    with pytest.raises(ValueError, match=words):
        small(**params).fit(as_form(TRAIN, "table")[0])


N = len(TRAIN)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"y": np.where(np.arange(N) == 3, -1.0, 1.0)}, r"y must be >= 0, since it weighs positives\. Got y\[3\] = -1\.0"),
        ({"y": np.where(np.arange(N) == 3, np.nan, 1.0)}, r"y\[3\] is nan\. Drop the row"),
        ({"y": np.where(np.arange(N) == 3, np.inf, 1.0)}, r"y\[3\] is inf"),
        ({"y": np.ones(N - 1)}, "y must have one value for each observation"),
        ({"y": np.full(N, "much")}, "y must be numbers"),
        ({"y": np.zeros(N)}, "y is zero for every observation. At least one"),
        ({"sample_weight": np.zeros(N)}, "sample_weight are all zero. At least one"),
        ({"sample_weight": np.where(np.arange(N) == 3, -1.0, 1.0)}, r"sample_weight must be >= 0\. Got sample_weight\[3\] = -1\.0"),
        ({"sample_weight": np.where(np.arange(N) == 3, np.nan, 1.0)}, r"sample_weight\[3\] is nan"),
        ({"sample_weight": np.ones(N + 1)}, "sample_weight must have one weight for each observation"),
        ({"y": np.arange(N) % 2, "sample_weight": np.arange(N) % 2 == 0}, "y times the weight is zero for every observation"),
    ],
)
@pytest.mark.parametrize("form", ["table", "interactions"])
def test_bad_weights_are_named(weights, words, form):
    with pytest.raises(ValueError, match=words):
        small().fit(as_form(TRAIN, form)[0], **weights)


def test_bad_weights_of_users_are_named():
    with pytest.raises(ValueError, match=r"sample_weight must have one weight for each user \(row of X\)"):
        small().fit(MATRIX, sample_weight=np.ones(N))
    with pytest.raises(ValueError, match="sample_weight must be >= 0"):
        small().fit(MATRIX, sample_weight=-np.ones(N_LIKED_USERS))
    alone = sp.csr_array(sp.vstack([one_row([0, 2]), one_row([])]))
    with pytest.raises(ValueError, match="sample_weight is zero for every user who has ratings"):
        small().fit(alone, sample_weight=[0.0, 1.0])


@pytest.mark.parametrize(
    ("X", "words"),
    [
        (np.ones((5, 1)), "X has 1 column .*; a table of interactions needs a user and an item column.*pass a scipy sparse array"),
        (np.empty((0, 2)), "minimum of 1"),
        (sp.csr_array((3, 4)), r"X has no observations \(shape=\(3, 4\)\)"),
        (Interactions([], [], num_users=3, num_items=4), "X has no observations"),
        (sp.csr_array([[1.0, np.nan]]), r"X\.data\[1\] is nan"),
        (sp.csr_array([[1j, 0]]), "complex data not supported"),
        (np.array([[0, 1], [np.nan, 1]]), "user ids must be present and finite"),
        (np.zeros((2, 2, 2)), "dim 3"),
    ],
    ids=["one column", "empty", "empty sparse", "empty container", "nan", "complex", "nan id", "cube"],
)
def test_bad_x_is_named(X, words):
    with pytest.raises(ValueError, match=words):
        small().fit(X)


def test_a_sparse_matrix_takes_no_y_for_score_either():
    model = small().fit(MATRIX)
    with pytest.raises(ValueError, match="y must be None when X is a sparse"):
        model.score(MATRIX, np.ones(N_LIKED_USERS))


@pytest.mark.parametrize(
    ("weight", "words"),
    [
        (np.ones(3), r"sample_weight must have one weight for each user \(row of X\), shape \(60,\)\. Got shape \(3,\)"),
        (np.full(N_LIKED_USERS, -1.0), "sample_weight must be >= 0"),
        (np.zeros(N_LIKED_USERS), "sample_weight are all zero"),
        (np.full(N_LIKED_USERS, np.nan), r"sample_weight\[0\] is nan"),
    ],
)
def test_bad_weights_of_score_are_named(weight, words):
    with pytest.raises(ValueError, match=words):
        small().fit(MATRIX).score(MATRIX, sample_weight=weight)


def test_a_score_of_no_test_items_is_refused():
    model = small().fit(TRAIN)
    nothing = Interactions([], [], num_users=N_LIKED_USERS, num_items=N_LIKED_ITEMS)
    for X in (nothing, sp.csr_array((3, N_LIKED_ITEMS)), one_row([4])):  # a single item is folded in, none is left to score
        with pytest.raises(ValueError, match="test has no items of the users to evaluate"):
            model.score(X)
    with pytest.raises(ValueError, match=r"y must be >= 0.*Got y\[1\] = -1\.0"):
        model.score(TEST[:2], [1.0, -1.0])
    with pytest.raises(ValueError, match="sample_weight are all zero"):
        model.score(TEST, sample_weight=np.zeros(len(TEST)))
    with pytest.raises(ValueError, match=r"users and test must be sparse matrices of one shape, \(n_rows, 40\)"):
        model.score(MATRIX[:, :-1])


def test_every_method_asks_for_a_fit_first():
    model = small()
    for call in (
        lambda: model.predict([[0, 0]]),
        lambda: model.recommend(),
        lambda: model.fold_in(MATRIX),
        lambda: model.transform(MATRIX),
        lambda: model.score(TEST),
        lambda: model.score(MATRIX),
        lambda: model.embeddings(),
        lambda: model.to_module(),
    ):
        with pytest.raises(NotFittedError):
            call()


@every_loss
@with_or_without_biases
def test_another_default_device_does_not_reach_a_fit_on_the_cpu(loss, biased):
    # A tensor made without a device lands on the default one: on "meta" it shows here, on "cuda" only where there is one.
    def run():
        model = small(loss, biased=biased, device="cpu", max_iter=2).fit(TRAIN)
        pairs = (torch.from_numpy(ids.astype(np.int64)) for ids in (TEST.user_ids, TEST.item_ids))
        exported = model.to_module()(*pairs).detach()
        return [model.predict(TEST), model.fold_in(MATRIX), model.score(TEST), model.score(MATRIX), *model.recommend(k=2), exported]

    expected = run()
    with torch.device("meta"):
        results = run()
    for ours, theirs in zip(results, expected, strict=True):
        assert_array_equal(ours, theirs)


def test_cuda_where_there_is_none_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r'device="cuda" was asked for.*Use device="cpu"'):
        small(device="cuda").fit(TRAIN)


def test_labels_of_the_unknown_and_of_none():
    """A fit on labels: unknown users get the mean user's items, and where a list ends stands None."""
    model = small().fit(as_form(TRAIN, "labels")[0])
    items, scores = model.recommend(["u0003", "nobody"], k=N_LIKED_ITEMS + 1)
    assert items[0, -1] is None
    assert np.isneginf(scores[0, -1])
    liked = np.argsort(-model.predict("nobody"), kind="stable")
    assert_array_equal(items[1, :5], ids_in("labels", "item", liked[:5]))
