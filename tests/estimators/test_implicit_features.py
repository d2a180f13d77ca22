"""ImplicitMatrixFactorization with attributes of users and items: cold rows, fold-in, extend, what goes on from a fit."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from communities import LOSSES, every_kind_of_loss, every_loss, ndcg_by_hand, precise, scores_of, with_or_without_biases
from killed_fits import killed_and_resumed
from numpy.testing import assert_allclose, assert_array_equal
from round_trip import reloaded, same
from sklearn import config_context
from sklearn.model_selection import GridSearchCV, KFold, cross_validate
from sklearn.preprocessing import FunctionTransformer

from sk_torchmf import Features, ImplicitMatrixFactorization, Interactions
from sk_torchmf.metrics import evaluate
from sk_torchmf.model_selection import ColdItemSplit, ranking_scorer
from sk_torchmf.nn import RANKING
from sk_torchmf.solvers.ranking_descent import user_weights

pytestmark = pytest.mark.usefixtures("one_thread")
ranking_kinds = pytest.mark.parametrize("loss", ["logistic", "softmax", "bpr"])

N_USERS, N_ITEMS, N_GENRES = 120, 100, 4
rng = np.random.default_rng(0)
GENRE, TASTE = np.arange(N_ITEMS) % N_GENRES, rng.integers(N_GENRES, size=N_USERS)
LIKES = rng.random((N_USERS, N_ITEMS)) < np.where(TASTE[:, None] == GENRE, 0.3, 0.02)
IS_COLD = rng.permuted(np.arange(N_ITEMS) % 5 == 0)
TRAIN = Interactions.from_matrix(sp.csr_array(LIKES * ~IS_COLD * 1.0))
ALL = Interactions.from_matrix(sp.csr_array(LIKES * 1.0))
FORMAT = rng.normal(size=N_ITEMS)  # says nothing
ITEMS = np.column_stack([np.eye(N_GENRES)[GENRE], FORMAT])  # a column for each genre
USERS = np.eye(N_GENRES)[TASTE]
NAMES = np.array([f"film{at:03}" for at in range(N_ITEMS)])
COLD_AUC = ranking_scorer("auc", items="cold")


def small(loss="ials", **params):
    return ImplicitMatrixFactorization(**{"n_factors": 6, "loss": loss, "random_state": 0} | params)


def frame(rows=slice(None)):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"item": NAMES, "genre": np.array(["crime", "drama", "farce", "epic"])[GENRE], "format": FORMAT})
    return table.iloc[rows]


def labelled(data):
    return pytest.importorskip("pandas").DataFrame({"user": data.user_ids, "item": NAMES[data.item_ids]})


def of_frames(loss="ials", **params):
    return small(loss, user="user", item="item", **params)


def as_rows(model, role, some=slice(None)):
    """Factors and, of a biased model, biases."""
    rows = [getattr(model, f"{role}_factors_")[some]]
    if model.biased:
        rows.append(getattr(model, f"{role}_biases_")[some][:, None])
    return np.hstack(rows)


# cold items and users


@every_loss
@with_or_without_biases
def test_cold_items_are_ranked_by_their_attributes(loss, biased):
    model = small(loss, biased=biased).fit(TRAIN, item_features=ITEMS)
    popularity = np.array([LIKES[:, (genre == GENRE) & ~IS_COLD].mean() for genre in range(N_GENRES)])[GENRE]
    taste = np.where(TASTE[:, None] == GENRE, 1.0, 0.0)  # the best that can be known

    def auc(scores):
        values = []
        for user in range(N_USERS):
            has = LIKES[user, IS_COLD]
            if has.any() and not has.all():
                own = scores[user, IS_COLD]
                difference = own[has][:, None] - own[~has]
                values.append(((difference > 0) + 0.5 * (difference == 0)).mean())
        return np.mean(values)

    assert abs(auc(np.tile(popularity, (N_USERS, 1))) - 0.5) < 0.1
    assert auc(scores_of(model)) > auc(taste) - 0.05 > 0.75
    assert COLD_AUC(model, ALL) == pytest.approx(auc(scores_of(model)), abs=1e-9)


@every_kind_of_loss
def test_cold_users_are_recommended_what_their_attributes_say(loss):
    cold = np.arange(0, N_USERS, 4)
    model = small(loss).fit(ALL[~np.isin(ALL.user_ids, cold)], user_features=USERS)
    assert (model.user_counts_[cold] == 0).all()
    found, _ = model.recommend(cold, k=10)
    assert (GENRE[found] == TASTE[cold][:, None]).mean() > 0.9


@every_kind_of_loss
def test_metrics_among_cold_items_are_those_of_their_scores(loss):
    model = small(loss).fit(TRAIN, item_features=ITEMS)
    cold, test = np.flatnonzero(IS_COLD), LIKES[:, IS_COLD]
    expected = ndcg_by_hand(scores_of(model)[:, cold], np.zeros_like(test), test)
    assert evaluate(model, ALL, "ndcg", items="cold")["ndcg"][10] == pytest.approx(expected, rel=1e-6)
    assert ranking_scorer("ndcg", items="cold")(model, ALL) == pytest.approx(expected, rel=1e-6)
    everything = ndcg_by_hand(scores_of(model), LIKES & ~IS_COLD, LIKES & IS_COLD)
    assert model.score(ALL[IS_COLD[ALL.item_ids]]) == pytest.approx(everything, rel=1e-6)  # among the warm ones


@every_kind_of_loss
@pytest.mark.parametrize("known", [ITEMS, None], ids=["described", "not"])
def test_ids_that_only_the_table_has_are_known(loss, known):
    some = ~IS_COLD if known is None else slice(None)
    model = of_frames(loss, handle_unknown="error").fit(labelled(TRAIN), item_features=frame(some))
    assert model.items_.tolist() == NAMES[some].tolist()
    assert_array_equal(model.item_counts_ == 0, IS_COLD[some])
    if known is None:
        with pytest.raises(ValueError, match="item id"):
            model.predict([0], NAMES[IS_COLD][:1])
    else:
        assert np.isfinite(model.predict([0], NAMES[IS_COLD])).all()


@every_kind_of_loss
def test_the_order_of_the_tables_rows_does_not_matter(loss):
    order = np.random.default_rng(1).permutation(N_ITEMS)
    one, other = (of_frames(loss).fit(labelled(TRAIN), item_features=frame(rows)) for rows in (slice(None), order))
    assert_array_equal(one.items_, other.items_)
    assert_array_equal(one.item_factors_, other.item_factors_)
    assert_array_equal(one.user_factors_, other.user_factors_)


@every_kind_of_loss
def test_attributes_that_say_nothing_do_no_harm(loss):
    """Columns of noise, flags in great number, and attributes of other items: less than 0.3 %."""
    draws = np.random.default_rng(2)
    flags = sp.csr_array((draws.random((N_ITEMS, 3000)) < 0.01) * 1.0)
    held_out = np.random.default_rng(3).random(len(ALL)) < 0.2
    figures = []
    for table in (None, draws.normal(size=(N_ITEMS, 50)), flags, draws.permutation(ITEMS)):
        model = small(loss, dtype="float64").fit(ALL[~held_out], item_features=table)
        figures.append(evaluate(model, ALL[held_out], "ndcg")["ndcg"][10])
    assert min(figures[1:]) > 0.997 * figures[0]


# what rows are


@ranking_kinds
@with_or_without_biases
def test_cold_rows_of_a_ranking_loss_are_the_finished_ones_regressed_on_attributes(loss, biased):
    model = precise(loss, biased=biased).fit(TRAIN, item_features=ITEMS)
    has = LIKES[:, ~IS_COLD]
    count = (has * user_weights(torch.from_numpy(has.sum(1) * 1.0), has.sum() / has.any(1).sum()).numpy()[:, None]).sum(0)
    weight = np.tile((10 + count**0.75 * count[count > 0].mean() ** 0.25)[:, None], (1, 3))
    if biased:
        weight = np.column_stack([weight, np.full(len(weight), 30.0)])
    by_hand = regressed_by_hand(model, RANKING[loss].alpha * weight)
    assert_allclose(as_rows(model, "item", IS_COLD), by_hand, rtol=1e-6, atol=1e-9)  # the solver's own tolerance


def test_warm_rows_of_cosines_are_as_without_attributes_and_cold_ones_regressed_on_them():
    plain, model = (precise("cosine", biased=False, temperature=0.2).fit(TRAIN, **more) for more in ({}, {"item_features": ITEMS}))
    assert_array_equal(as_rows(model, "item", ~IS_COLD), as_rows(plain, "item", ~IS_COLD))
    assert_array_equal(as_rows(model, "user"), as_rows(plain, "user"))
    count = LIKES[:, ~IS_COLD].sum(0)
    weight = np.tile((10 + count**0.75 * count.mean() ** 0.25)[:, None], (1, 3))
    assert_allclose(as_rows(model, "item", IS_COLD), regressed_by_hand(model, weight), rtol=1e-6, atol=1e-9)


def regressed_by_hand(model, weight):
    """Where the cold items are expected: a ridge regression of the others with weights (n, width)."""
    warm, found = ~IS_COLD, []
    columns = ITEMS / np.sqrt((ITEMS[warm] ** 2).sum(1).mean())
    for rows, w in zip(as_rows(model, "item").T, weight.T, strict=True):
        A = np.column_stack([np.ones(N_ITEMS), columns])
        centre = rows[warm].mean()  # the constant is all but free about it, the others have the ridge of a row
        ridge = np.diag([1e-6, *[w.mean()] * ITEMS.shape[1]])
        by_hand = np.linalg.solve(A[warm].T @ (w[:, None] * A[warm]) + ridge, A[warm].T @ (w * (rows[warm] - centre)))
        found.append(centre + A[IS_COLD] @ by_hand)
    return np.array(found).T


@pytest.mark.parametrize("loss", LOSSES)
def test_rows_shrink_to_what_attributes_say(loss):
    """Films of a genre come closer to each other, in proportion to how far all are apart."""

    def spread(model):
        genres = [model.item_factors_[(genre == GENRE) & ~IS_COLD] for genre in range(N_GENRES)]
        within = sum(np.square(rows - rows.mean(0)).sum() for rows in genres)
        return within / np.square(np.concatenate(genres) - np.concatenate(genres).mean(0)).sum()

    alpha = 0.1 if loss == "ials" else 3 * RANKING[loss].alpha
    plain, described = (small(loss, alpha=alpha).fit(TRAIN, item_features=table) for table in (None, ITEMS))
    few = loss in ("adaptive_hinge", "softmax")  # whose rows are so scattered that these few films hardly bear genres out
    assert spread(described) < (1 if few else 0.95) * spread(plain)


@ranking_kinds
def test_without_regularisation_cold_rows_still_follow_attributes(loss):
    model = small(loss, alpha=0.0).fit(TRAIN, item_features=ITEMS)
    assert np.isfinite(model.item_factors_).all()
    assert COLD_AUC(model, ALL) > 0.8


def test_an_id_without_attributes_is_as_the_average():
    described = np.arange(N_ITEMS)[~IS_COLD | (np.arange(N_ITEMS) % 2 == 0)]
    table = frame(described).set_index("item")
    model = of_frames("bpr").fit(labelled(TRAIN), item_features=table)
    model.extend(item_features=frame(IS_COLD))  # and then they have some
    assert model.items_.tolist() == NAMES.tolist()
    assert COLD_AUC(model, labelled(ALL)) > 0.8
    unknown = small().fit(TRAIN, item_features=sp.csr_array(ITEMS[: N_ITEMS // 2]))
    late = np.flatnonzero(IS_COLD & (np.arange(N_ITEMS) >= N_ITEMS // 2))
    assert_allclose(unknown.item_factors_[late], np.tile(unknown.mean_item_, (len(late), 1)), rtol=1e-6)


# new users


@pytest.mark.parametrize("loss", ["logistic", "softmax"])
@with_or_without_biases
def test_fold_in_by_a_ranking_loss_is_near_the_fitted_row_when_attributes_are_told(loss, biased):
    """The objective of a user's row is that of its fold-in, which takes twenty steps; without attributes it is another."""
    model = small(loss, biased=biased, dtype="float64", max_iter=200, tol=0.0).fit(TRAIN, user_features=USERS)
    some = (LIKES & ~IS_COLD).any(1)
    fitted = as_rows(model, "user", some)[:, :6]
    told, untold = (model.fold_in(TRAIN.tocsr(), user_features=table)[some, :6] for table in (USERS, None))
    far = np.square(fitted - fitted.mean(0)).sum()
    assert np.square(told - fitted).sum() < 0.05 * far
    assert np.square(told - fitted).sum() < 0.5 * np.square(untold - fitted).sum()


@with_or_without_biases
def test_fold_in_of_what_ials_was_fitted_to_is_the_fitted_row(biased):
    """At the optimum: the objective of a user's row is that of its fold-in, what the user's attributes say included."""
    model = small(biased=biased, dtype="float64", max_iter=400, tol=0.0).fit(TRAIN, user_features=USERS)
    rows = model.fold_in(TRAIN.tocsr(), user_features=USERS)
    some = (LIKES & ~IS_COLD).any(1)
    assert_allclose(rows[some, :6], model.user_factors_[some], rtol=1e-4, atol=1e-5)  # as far as 400 iterations get
    without = model.fold_in(TRAIN.tocsr())
    assert np.abs(without[some, :6] - model.user_factors_[some]).max() > 0.01


@every_kind_of_loss
@with_or_without_biases
def test_a_new_user_with_attributes_alone_is_what_these_say(loss, biased):
    model = small(loss, biased=biased).fit(ALL, user_features=USERS)
    nothing = sp.csr_array((2, N_ITEMS))
    rows = model.fold_in(nothing, user_features=USERS[[5, 6]])
    added = small(loss, biased=biased).fit(ALL, user_features=USERS).extend(user_features=np.vstack([USERS, USERS[[5, 6]]]))
    assert_allclose(rows, as_rows(added, "user", slice(N_USERS, None)), rtol=1e-6, atol=1e-7)
    found, _ = model.recommend(nothing, k=10, user_features=USERS[[5, 6]])
    assert_array_equal(GENRE[found] == TASTE[[5, 6]][:, None], True)
    assert_allclose(model.predict(nothing, user_features=USERS[[5, 6]]), model.inverse_transform(rows))
    mean = np.append(model.mean_user_, [0.0] * biased)
    assert_allclose(model.fold_in(nothing), np.tile(mean, (2, 1)), rtol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_attributes_that_fit_did_not_see_are_refused(loss):
    model = small(loss, max_iter=2).fit(TRAIN)
    with pytest.raises(ValueError, match="user_features were not passed to fit"):
        model.fold_in(TRAIN.tocsr(), user_features=USERS)
    for call in (model.extend, lambda **tables: model.partial_fit(TRAIN, **tables)):
        with pytest.raises(ValueError, match="item_features were not passed to fit"):
            call(item_features=ITEMS)


# score


NEW, KNOWN = np.arange(0, N_USERS, 3), np.flatnonzero(np.arange(N_USERS) % 3)
ROWS = sp.csr_array(LIKES[NEW] * 1.0)


def for_known(loss="ials", **params):
    """Fitted to some of the users, with their attributes."""
    return small(loss, **params).fit(sp.csr_array(LIKES[KNOWN] * 1.0), user_features=USERS[KNOWN])


@every_kind_of_loss
@with_or_without_biases
def test_score_of_new_users_folds_them_in_with_their_attributes(loss, biased):
    model = for_known(loss, biased=biased)
    known, test = ranking_scorer("ndcg", k=10).hold_out(ROWS)
    scores = model.predict(known, user_features=USERS[NEW])
    expected = ndcg_by_hand(scores, known.toarray() != 0, test.toarray() != 0)
    assert model.score(ROWS, user_features=USERS[NEW]) == pytest.approx(expected, rel=1e-9)
    assert expected != model.score(ROWS)


def test_new_users_of_weight_zero_are_left_out_with_their_attributes():
    model, weight = for_known(), np.arange(len(NEW)) % 3
    some = weight > 0
    score = model.score(ROWS, sample_weight=weight, user_features=USERS[NEW])
    assert score == model.score(ROWS[np.flatnonzero(some)], user_features=USERS[NEW][some])
    assert score != model.score(ROWS, sample_weight=weight, user_features=USERS[NEW][::-1])


@every_kind_of_loss
def test_score_knows_what_attributes_say_of_further_ids(loss):
    model = of_frames(loss).fit(labelled(TRAIN), item_features=frame(~IS_COLD))
    told = model.score(labelled(ALL), item_features=frame(IS_COLD))
    assert len(model.items_) == (~IS_COLD).sum()
    assert told == model.extend(item_features=frame(IS_COLD)).score(labelled(ALL)) > 0
    by_position, attributes = for_known(loss), np.vstack([USERS[KNOWN], USERS[NEW]])
    rest = Interactions.from_matrix(sp.csr_array(np.vstack([0.0 * LIKES[KNOWN], LIKES[NEW]])))
    blind, told = by_position.score(rest), by_position.score(rest, user_features=attributes)
    assert told == by_position.extend(user_features=attributes).score(rest) > blind + 0.1


def test_new_users_may_have_items_that_only_attributes_tell_of():
    early = np.arange(N_ITEMS) < 80
    model = small().fit(sp.csr_array(LIKES[:, early] * 1.0), user_features=USERS, item_features=ITEMS[early])
    told = model.score(ROWS, user_features=USERS[NEW], item_features=ITEMS)
    assert told == model.extend(item_features=ITEMS).score(ROWS, user_features=USERS[NEW])
    assert told != model.score(ROWS, item_features=ITEMS)


@pytest.mark.parametrize("framed", [False, True], ids=["matrix", "frame"])
def test_score_gets_the_attributes_of_its_rows_by_metadata_routing(framed):
    X, table = sp.csr_array(LIKES * 1.0), _users() if framed else USERS
    cv = KFold(3, shuffle=True, random_state=0)
    with config_context(enable_metadata_routing=True):
        model = small(max_iter=4).set_fit_request(user_features=True).set_score_request(user_features=True)
        found = cross_validate(model, X, params={"user_features": table}, cv=cv, error_score="raise")["test_score"]
    expected = []
    for train, test in cv.split(X):
        of_train, of_test = (Features(table.iloc[rows].reset_index(drop=True) if framed else table[rows]) for rows in (train, test))
        expected.append(small(max_iter=4).fit(X[train], user_features=of_train).score(X[test], user_features=of_test))
    assert_allclose(found, expected, rtol=1e-12)


def test_score_refuses_attributes_that_fit_did_not_see():
    model = small(max_iter=2).fit(TRAIN)
    for tables in ({"user_features": USERS}, {"item_features": ITEMS}):
        name = next(iter(tables))
        with pytest.raises(ValueError, match=f"{name} were not passed to fit"):
            model.score(ALL, **tables)
        with pytest.raises(ValueError, match=f"{name} were not passed to fit"):
            model.score(TRAIN.tocsr(), **tables)
    with pytest.raises(ValueError, match="user_features has a row for the user 79, but X has 40 rows"):
        for_known().score(ROWS, user_features=USERS[KNOWN])


# later items, and what goes on


@every_kind_of_loss
def test_extend_is_the_fit_that_knew_the_items_and_recommend_can_be_told_of_them(loss):
    early = of_frames(loss).fit(labelled(TRAIN), item_features=frame(~IS_COLD))
    whole = of_frames(loss).fit(labelled(TRAIN), item_features=frame())
    told = early.recommend([0, 1], k=5, items=NAMES[IS_COLD], item_features=frame(IS_COLD))
    assert len(early.items_) == (~IS_COLD).sum()
    assert early.extend(item_features=frame(IS_COLD)) is early
    assert not hasattr(early, "item_posterior_")
    assert_array_equal(early.items_, whole.items_)
    assert_array_equal(early.seen_.toarray(), whole.seen_.toarray())
    among = early.recommend([0, 1], k=5, items=NAMES[IS_COLD])
    assert_array_equal(told[0], among[0])
    assert_allclose(told[1], among[1])
    # the scale of "format" alone was learned from other rows
    assert np.corrcoef(early.item_factors_.ravel(), whole.item_factors_.ravel())[0, 1] > 0.999


@every_kind_of_loss
def test_partial_fit_keeps_attributes_and_takes_more(loss):
    half = np.arange(len(TRAIN)) % 2 == 0
    model = of_frames(loss).fit(labelled(TRAIN[half]), item_features=frame(~IS_COLD))
    model.partial_fit(labelled(TRAIN[~half]))
    model.partial_fit(labelled(TRAIN[:3]), item_features=frame(IS_COLD))
    assert_array_equal(model.items_, NAMES)
    assert_array_equal(model.item_counts_ > 0, ~IS_COLD)
    assert model.item_described_.all()
    assert COLD_AUC(model, labelled(ALL)) > 0.8
    late = ALL[IS_COLD[ALL.item_ids]]
    assert (model.partial_fit(labelled(late)).item_counts_[IS_COLD] == LIKES[:, IS_COLD].sum(0)).all()


@every_kind_of_loss
def test_a_saved_model_knows_the_attributes(tmp_path, loss):
    model = of_frames(loss, biased=True).fit(labelled(TRAIN), user_features=_users(), item_features=frame(~IS_COLD))
    again = reloaded(model, tmp_path)
    for one in (model, again):
        one.extend(item_features=frame(IS_COLD))
        one.partial_fit(labelled(TRAIN[:5]))
    same(as_rows(again, "item"), as_rows(model, "item"))
    nobody = sp.csr_array((1, N_ITEMS))
    same(again.fold_in(nobody, user_features=_users()[:1]), model.fold_in(nobody, user_features=_users()[:1]))


def _users():
    return pytest.importorskip("pandas").DataFrame({"taste": TASTE.astype(str)})


@every_kind_of_loss
def test_warm_start_goes_on_with_attributes(loss):
    model = small(loss, warm_start=True, max_iter=6).fit(TRAIN, item_features=ITEMS)
    first = model.history_["loss"][-1]
    model.fit(TRAIN, item_features=ITEMS)
    assert COLD_AUC(model, ALL) > 0.8
    if loss != "bpr":  # whose negatives are drawn
        assert model.history_["loss"][-1] < first * 1.01


@every_kind_of_loss
def test_a_killed_fit_resumes_to_the_same_bits(monkeypatch, tmp_path, loss):
    def make(**options):
        return FitWithAttributes(small(loss, max_iter=5, tol=0.0, **options))

    whole = make().fit(TRAIN)
    model, _ = killed_and_resumed(monkeypatch, make, TRAIN, tmp_path / "checkpoint", 2)
    same(as_rows(model, "item"), as_rows(whole, "item"))
    same(as_rows(model, "user"), as_rows(whole, "user"))


class FitWithAttributes:
    """An estimator whose ``fit`` has the attributes already."""

    def __init__(self, estimator):
        self.estimator = estimator

    def fit(self, X):
        return self.estimator.fit(X, user_features=USERS, item_features=ITEMS)


def test_a_checkpoint_is_not_that_of_a_fit_with_other_attributes(monkeypatch, tmp_path):
    path = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        small(checkpoint=path, scoring=_interrupt).fit(TRAIN, X_val=ALL, item_features=ITEMS)
    assert path.exists()
    with pytest.raises(ValueError, match="checkpoint"):
        small(checkpoint=path, scoring=_interrupt).fit(TRAIN, X_val=ALL, item_features=ITEMS[::-1])


def _interrupt(estimator, X, y=None):
    if len(estimator.history_["loss"]) > 1:  # once there is a checkpoint
        raise KeyboardInterrupt
    return 0.0


@every_kind_of_loss
def test_cold_items_of_validation_data_are_scored_in_each_iteration(loss):
    model = small(loss, scoring=COLD_AUC, max_iter=12).fit(TRAIN, X_val=ALL, item_features=ITEMS)
    scores = model.history_["validation_score"]
    assert len(scores) == model.n_iter_
    assert scores[-1] == pytest.approx(COLD_AUC(model, ALL))
    assert scores[-1] > 0.8


def test_encoders_are_searched_on_cold_items():
    blind = FunctionTransformer(np.zeros_like)
    search = GridSearchCV(
        small(max_iter=5),
        {"item_encoder": [blind, "passthrough"]},
        scoring=COLD_AUC,
        cv=ColdItemSplit(3, random_state=0),
        error_score="raise",
    ).fit(ALL, item_features=Features(ITEMS))
    assert search.best_params_ == {"item_encoder": "passthrough"}
    assert search.cv_results_["mean_test_score"][0] < 0.6
    assert search.best_score_ > 0.8


@every_kind_of_loss
def test_shares_and_weights_tell_what_attributes_are_worth(loss):
    model = of_frames(loss).fit(labelled(TRAIN), item_features=frame())
    assert model.item_feature_shares_["genre"] > 10 * model.item_feature_shares_["format"] > 0
    assert model.item_feature_weights_.shape == (len(model.item_feature_names_), 6)
    constant = model.item_feature_prior_["constant"]
    said = constant + model.item_features_ @ model.item_feature_weights_
    assert_allclose(model.item_factors_[IS_COLD], said[IS_COLD], rtol=1e-5, atol=1e-6)
