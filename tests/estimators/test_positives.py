"""Models of positives: what weighs them, how new users are folded in, and what score means."""

import numpy as np
import pytest
import scipy.sparse as sp
from communities import (
    MATRIX,
    N_LIKED_ITEMS,
    N_LIKED_USERS,
    TEST,
    TRAIN,
    every_kind_of_loss,
    every_loss,
    ndcg_by_hand,
    one_row,
    precise,
    preferences,
    ranking_losses,
    scores_of,
    small,
    with_or_without_biases,
)
from contract import DATA, N_ITEMS, N_USERS, WIDER, new_users
from data import as_form
from every_loss import EXACT
from numpy.testing import assert_allclose, assert_array_equal

from sk_torchmf import Interactions
from sk_torchmf.model_selection import ranking_scorer
from sk_torchmf.nn import top_k as best_of
from sk_torchmf.solvers import ranking_descent as ranking_solver

pytestmark = pytest.mark.usefixtures("one_thread")


def arguments(data, form):
    """X in a form; the ratings that a container may have none of are left out."""
    ones = Interactions(data.user_ids, data.item_ids, np.ones(len(data)), num_users=data.num_users, num_items=data.num_items)
    return as_form(ones, form)[0]


def test_positives_weigh_a_tenth_of_all_pairs_where_no_confidence_is_given():
    y = 0.5 + np.arange(len(DATA)) % 3
    assert precise().fit(WIDER, y).confidence_ * y.sum() == pytest.approx(0.1 * N_USERS * N_ITEMS, rel=1e-12)  # that anybody knows
    assert precise(confidence=3).fit(WIDER, y).confidence_ == 3
    once, scaled = (precise().fit(DATA, factor * y) for factor in (1.0, 1e6))
    assert_allclose(scores_of(scaled), scores_of(once), rtol=1e-9, atol=1e-9)


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
    known, test = scorer.hold_out(X)
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
        with pytest.raises(ValueError, match=r"test must have an item for at least one of the users to evaluate. It has"):
            model.score(X)
    with pytest.raises(ValueError, match=r"y must be >= 0.*Got y\[1\] = -1\.0"):
        model.score(TEST[:2], [1.0, -1.0])
    with pytest.raises(ValueError, match="sample_weight are all zero"):
        model.score(TEST, sample_weight=np.zeros(len(TEST)))
    with pytest.raises(ValueError, match=r"users and test must be sparse matrices of one shape, \(n_rows, 40\)"):
        model.score(MATRIX[:, :-1])
