"""Residuals of ratings by counts: groups, levels, and the errors that a score is made of."""

import numpy as np
import pytest
from contract import DATA, N_ITEMS, N_USERS
from data import as_form
from numpy.testing import assert_allclose, assert_array_equal
from pictures import fitted, plt

from sk_torchmf import BiasedMatrixFactorization, ImplicitMatrixFactorization, MatrixFactorization, TorchFactorization
from sk_torchmf.display import RatingResidualDisplay


def test_residuals_are_grouped_by_counts_of_about_equal_number():
    rng = np.random.default_rng(0)
    counts, y_true, y_pred = rng.integers(0, 40, 500), rng.normal(size=500), rng.normal(size=500)
    display = RatingResidualDisplay.from_predictions(y_true, y_pred, user_counts=counts, n_bins=4)
    edges = [np.quantile(counts[counts > 0], q) for q in (0.25, 0.5, 0.75)]
    groups = [[] for _ in range(5)]  # the first of those that nothing is known of
    for count, true, predicted in zip(counts, y_true, y_pred, strict=True):
        groups[0 if count == 0 else 1 + sum(count > edge for edge in edges)].append((count, true - predicted))
    bins = display.bins_["user"]
    assert list(bins.n_ratings) == [len(group) for group in groups]
    assert list(bins.low) == [min(count for count, _ in group) for group in groups]
    assert list(bins.high) == [max(count for count, _ in group) for group in groups]
    rmse = [np.sqrt(np.mean([residual**2 for _, residual in group])) for group in groups]
    assert_allclose(display.rmse_lines_["user"].get_ydata(), rmse)
    assert_allclose(display.residual_lines_["user"].get_ydata(), [np.mean([residual for _, residual in group]) for group in groups])
    assert display.rmse_ == pytest.approx(np.sqrt(np.mean((y_true - y_pred) ** 2)))
    assert_allclose(display.level_lines_["user"].get_ydata(), display.rmse_)
    first = display.ax_[0].get_xticklabels()[1].get_text()
    assert first == f"{bins.low[1]:.0f}\N{EN DASH}{bins.high[1]:.0f}\n({bins.n_ratings[1]})"
    assert list(display.bins_) == ["user"]
    assert len(display.ax_) == 1


def test_residuals_name_the_level_of_all():
    display = RatingResidualDisplay.from_predictions([3.0, 5.0], [3.0, 4.0], item_counts=[1, 2])
    assert "RMSE of all, 0.707" in [text.get_text() for text in display.legend_.get_texts()]


@pytest.mark.parametrize("kind", [MatrixFactorization, BiasedMatrixFactorization, TorchFactorization])
@pytest.mark.parametrize("form", ["table", "labels", "interactions"])
def test_residuals_of_an_estimator_are_those_of_its_predictions(kind, form):
    train, test = DATA[:200], DATA[200:]
    model = fitted(kind, form, train)
    X, y = as_form(test, form)
    display = RatingResidualDisplay.from_estimator(model, X, y, n_bins=3)
    users, items = np.bincount(train.user_ids, minlength=N_USERS), np.bincount(train.item_ids, minlength=N_ITEMS)
    assert_array_equal(display.user_counts, users[test.user_ids])
    assert_array_equal(display.item_counts, items[test.item_ids])
    assert_array_equal(display.y_pred, model.predict(X))
    assert_array_equal(display.y_true, test.ratings)
    assert list(display.bins_) == ["user", "item"]


@pytest.mark.parametrize("kind", [MatrixFactorization, BiasedMatrixFactorization])
def test_residuals_of_a_sparse_matrix_are_those_that_its_score_is_made_of(kind):
    X = as_form(DATA, "sparse")[0]
    model = fitted(kind, "sparse")
    display = RatingResidualDisplay.from_estimator(model, X)
    r2 = 1 - display.rmse_**2 / X.data.var()
    assert r2 == pytest.approx(model.score(X), rel=1e-6)
    assert_array_equal(display.user_counts, np.repeat(np.diff(X.indptr) - 1, np.diff(X.indptr)))
    assert_array_equal(display.item_counts, np.bincount(X.indices)[X.indices])


def test_one_rating_equal_counts_and_no_error_have_a_picture():
    one = RatingResidualDisplay.from_predictions([3.0], [2.5], user_counts=[4])
    assert list(one.bins_["user"].n_ratings) == [1]
    equal = RatingResidualDisplay.from_predictions(
        np.arange(5.0), np.zeros(5), user_counts=np.full(5, 2.5), item_counts=np.zeros(5)
    )
    assert [len(bins.rmse) for bins in equal.bins_.values()] == [1, 1]
    assert equal.ax_[0].get_xticklabels()[0].get_text() == "2.5\n(5)"
    perfect = RatingResidualDisplay.from_predictions(np.ones(4), np.ones(4), item_counts=[1, 2, 3, 4])
    assert perfect.rmse_ == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"y_pred": [1.0]}, "y_pred must have one value for each rating"),
        ({"y_pred": [1.0, np.nan]}, r'y_pred\[1\] is nan.*handle_unknown="mean"'),
        ({"y_true": [np.nan, 1.0]}, r"y_true\[0\] is nan"),
        ({"y_true": [], "y_pred": []}, "y_true must have at least one rating"),
        ({"user_counts": None}, "user_counts, item_counts or both must be passed"),
        ({"user_counts": [1]}, "user_counts must have one value for each rating"),
        ({"user_counts": [1, -1]}, r"user_counts\[1\] = -1"),
        ({"n_bins": 0}, "n_bins must be an int >= 1"),
    ],
)
def test_bad_arguments_of_residuals_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        RatingResidualDisplay.from_predictions(**{"y_true": [1.0, 2.0], "y_pred": [1.0, 2.0], "user_counts": [1, 2]} | arguments)
    assert plt.get_fignums() == []


def test_models_that_rank_have_no_residuals():
    for model in (fitted(ImplicitMatrixFactorization), fitted(TorchFactorization, loss="bpr")):
        with pytest.raises(TypeError, match=r"metrics\.evaluate"):
            RatingResidualDisplay.from_estimator(model, DATA)
    with pytest.raises(ValueError, match="no fold-in"):
        RatingResidualDisplay.from_estimator(fitted(TorchFactorization), as_form(DATA, "sparse")[0])
