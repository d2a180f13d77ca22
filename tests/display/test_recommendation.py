"""Recommendations beside a history: bars, neighbours, times, new users and lists without end."""

import numpy as np
import pytest
import scipy.sparse as sp
from contract import DATA, N_ITEMS, N_USERS, every_form
from data import as_form, ids_in
from numpy.testing import assert_allclose, assert_array_equal
from pictures import TIMED, fitted, plt

from sk_torchmf import BiasedMatrixFactorization, ImplicitMatrixFactorization, Interactions, MatrixFactorization, TorchFactorization
from sk_torchmf.display import RecommendationDisplay

USER = int(np.argmax(np.bincount(DATA.user_ids, minlength=N_USERS) == 12))  # with a history longer than the lists


def widths(bars):
    return [bar.get_width() for bar in bars]


def own_ratings():
    own = DATA.user_ids == USER
    return DATA.item_ids[own], DATA.ratings[own]


@every_form
def test_recommendations_stand_beside_what_was_rated_best(form):
    model = fitted(form=form, dtype="float64")
    user = ids_in(form, "user", [USER])[0]
    X, y = as_form(DATA, form)
    display = RecommendationDisplay.from_estimator(model, user, X=X, y=y, k=4)
    items, scores = model.recommend(user, k=4)
    assert display.recommended == [str(item) for item in items]
    assert_array_equal(widths(display.recommended_bars_), scores)
    assert_allclose(display.std, model.predict(user, items, return_std=True)[1])
    own, ratings = own_ratings()
    order = np.argsort(-ratings)[:4]
    assert display.history == [str(item) for item in ids_in(form, "item", own[order])]
    assert_array_equal(widths(display.history_bars_), ratings[order])
    assert display.titles[0] == f"User {user}: rated best, 4 of {len(own)}"
    assert [ax.get_xlabel() for ax in display.ax_] == ["Rating", "Predicted rating"]
    assert display.ax_[0].get_xlim() == display.ax_[1].get_xlim()


def test_error_bars_reach_one_standard_deviation_to_each_side():
    display = RecommendationDisplay.from_estimator(fitted(), USER, k=4)
    (segments,) = (bars.get_segments() for bars in display.error_bars_.lines[2])
    ends = np.array([segment[:, 0] for segment in segments])
    assert_allclose(ends, np.column_stack([display.scores - display.std, display.scores + display.std]))
    low, high = display.ax_[1].get_xlim()
    assert low <= ends.min()
    assert high >= ends.max()


def test_each_recommendation_says_which_item_of_the_history_lies_nearest():
    model = fitted(dtype="float64")
    display = RecommendationDisplay.from_estimator(model, USER, X=DATA, labels=[f"Film {j}" for j in range(N_ITEMS)], k=4)
    own, ratings = own_ratings()
    Q = model.item_factors_
    for item, said in zip(model.recommend(USER, k=4)[0], display.nearest, strict=True):
        cosine = [Q[item] @ Q[j] / np.linalg.norm(Q[item]) / np.linalg.norm(Q[j]) for j in own]
        at = int(np.argmax(cosine))
        assert said == f"cosine {cosine[at]:.2f} to Film {own[at]}, rated {ratings[at]:.4g}"
    assert [text.get_text() for text in display.nearest_texts_] == display.nearest
    silent = RecommendationDisplay.from_estimator(model, USER, nearest=False)
    assert silent.nearest is None
    assert silent.nearest_texts_ == []


def test_the_most_recent_come_first_where_asked_for():
    own = np.flatnonzero(TIMED.user_ids == USER)
    order = own[np.argsort(-TIMED.timestamps[own], kind="stable")][:3]
    expected = [str(item) for item in TIMED.item_ids[order]]
    display = RecommendationDisplay.from_estimator(fitted(), USER, X=TIMED, k=3, order="recent")
    assert display.history == expected
    assert_array_equal(widths(display.history_bars_), TIMED.ratings[order])
    X, y = as_form(TIMED, "table")
    table = RecommendationDisplay.from_estimator(fitted(), USER, X=X, y=y, timestamps=TIMED.timestamps, k=3, order="recent")
    assert table.history == expected
    unrated = Interactions(TIMED.user_ids, TIMED.item_ids, None, TIMED.timestamps, num_users=N_USERS, num_items=N_ITEMS)
    implicit = RecommendationDisplay.from_estimator(fitted(ImplicitMatrixFactorization), USER, X=unrated, k=3)
    assert implicit.history == expected  # the default where there are no ratings


def test_equal_ratings_are_shown_by_time():
    X = np.array([[0, 0], [0, 1], [0, 2], [0, 3], [1, 4], [1, 0]])
    model = BiasedMatrixFactorization(n_factors=1, random_state=0).fit(X, np.ones(6))
    shown = RecommendationDisplay.from_estimator(model, 0, X=X, y=[4, 5, 5, 5, 1, 1], timestamps=[9, 3, 7, 5, 0, 0])
    assert shown.history == ["2", "3", "1", "0"]


@pytest.mark.parametrize("kind", [MatrixFactorization, BiasedMatrixFactorization, ImplicitMatrixFactorization, TorchFactorization])
def test_without_ratings_the_bars_are_predictions_of_what_fit_saw(kind):
    model = fitted(kind)
    display = RecommendationDisplay.from_estimator(model, USER, k=3)
    own, _ = own_ratings()
    predicted = np.sort(model.predict(USER, own))[::-1]
    assert_allclose(widths(display.history_bars_), predicted[:3])
    assert display.titles[0] == f"User {USER}: predicted best, 3 of {len(own)}"
    label = "Score" if kind is ImplicitMatrixFactorization else "Predicted rating"
    assert [ax.get_xlabel() for ax in display.ax_] == [label, label]
    assert (display.nearest is None) == (kind is TorchFactorization)


@pytest.mark.parametrize("kind", [BiasedMatrixFactorization, ImplicitMatrixFactorization])
@every_form
def test_a_new_user_is_a_sparse_row(kind, form):
    model = fitted(kind, form)
    row = sp.csr_array(([4.0, 1.0], ([0, 0], [3, 7])), shape=(1, N_ITEMS))
    display = RecommendationDisplay.from_estimator(model, row, k=2)
    assert display.history == [str(item) for item in ids_in(form, "item", [3, 7])]
    assert display.recommended == [str(item) for item in model.recommend(row, k=2)[0][0]]
    assert display.std is None
    assert display.titles[0] == "New user: rated best, all 2"
    empty = RecommendationDisplay.from_estimator(model, sp.csr_array((1, N_ITEMS)), k=2)
    assert empty.titles[0] == "New user: no history"
    assert "Nothing is known." in [text.get_text() for text in empty.ax_[0].texts]


def test_a_user_who_has_everything_gets_words():
    full = Interactions(np.repeat([0, 1], 3), np.tile([0, 1, 2], 2), np.arange(6.0))
    display = RecommendationDisplay.from_estimator(fitted(data=full, n_factors=1), 0)
    assert display.recommended == []
    assert "Nothing is left." in [text.get_text() for text in display.ax_[1].texts]


def test_negative_ratings_have_bars_to_the_left():
    data = Interactions(DATA.user_ids, DATA.item_ids, DATA.ratings - 9, num_users=N_USERS, num_items=N_ITEMS)
    display = RecommendationDisplay.from_estimator(fitted(data=data), USER, X=data, k=3)
    assert max(widths(display.history_bars_)) < 0
    assert display.ax_[0].get_xlim()[0] <= min(widths(display.history_bars_))
    assert display.ax_[0].get_xlim()[1] > 0


def test_parameters_reach_recommend():
    model = fitted()
    display = RecommendationDisplay.from_estimator(model, USER, k=2, recommend_params={"items": [1, 2, 3], "exclude_seen": False})
    assert set(display.recommended) < {"1", "2", "3"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"user": 9999}, "user 9999 was not seen in fit. Pass one of users_, or pass the ratings of a new user as a sparse"),
        ({"user": [1, 2]}, r"user must be one user id, or a sparse matrix with one row. Got shape \(2,\)"),
        ({"user": sp.csr_array((2, N_ITEMS))}, "Got 2 rows"),
        ({"user": sp.csr_array((1, N_ITEMS)), "X": DATA}, "X must be None when user is a sparse matrix"),
        ({"X": sp.csr_array((3, N_ITEMS))}, r"X must have shape \(30, 20\)"),
        ({"y": DATA.ratings}, "y and timestamps need X"),
        ({"order": "best"}, 'order must be "rating", "recent" or "predicted"'),
        ({"order": "rating"}, 'order="rating" needs ratings'),
        ({"X": DATA, "order": "recent"}, 'order="recent" needs times'),
        ({"k": 0}, "k must be an int >= 1"),
        ({"n_history": 0}, "n_history must be an int >= 1"),
        ({"labels": ["a"]}, "labels must be a mapping from item ids"),
    ],
)
def test_bad_arguments_of_recommendations_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        RecommendationDisplay.from_estimator(fitted(), **{"user": USER} | arguments)
    assert plt.get_fignums() == []


def test_values_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"scores must have one value for each of 2 items\. Got 1"):
        RecommendationDisplay(recommended=["a", "b"], scores=[1.0]).plot()
    assert plt.get_fignums() == []
