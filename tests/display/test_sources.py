"""What a display can be made from: a fitted estimator, also at the end of a pipeline or inside a search."""

import numpy as np
import pytest
from contract import DATA, N_ITEMS
from data import as_form
from numpy.testing import assert_array_equal
from pictures import plt
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

from sk_torchmf import BiasedMatrixFactorization, MatrixFactorization
from sk_torchmf.display import (
    FactorMapDisplay,
    FeatureShareDisplay,
    RatingResidualDisplay,
    RecommendationDisplay,
    TrainingCurveDisplay,
)


@pytest.mark.parametrize("kind", [TrainingCurveDisplay, FactorMapDisplay, FeatureShareDisplay])
def test_an_estimator_that_is_not_fitted_is_refused(kind):
    with pytest.raises(NotFittedError):
        kind.from_estimator(MatrixFactorization())
    with pytest.raises(TypeError, match="must be a fitted estimator"):
        kind.from_estimator(MatrixFactorization)
    with pytest.raises(TypeError, match="LinearRegression has none"):
        kind.from_estimator(LinearRegression().fit([[0.0]], [1.0]))
    assert plt.get_fignums() == []


def test_a_search_and_a_pipeline_are_looked_through():
    X, y = as_form(DATA, "labels")
    pipeline = make_pipeline(OrdinalEncoder(dtype=int), BiasedMatrixFactorization(n_factors=3, random_state=0))
    grid = {"biasedmatrixfactorization__n_factors": [2]}
    search = GridSearchCV(pipeline, grid, cv=KFold(2, shuffle=True, random_state=0), error_score="raise").fit(X, y)
    model = search.best_estimator_[-1]
    assert_array_equal(TrainingCurveDisplay.from_estimator(search).ax_.lines[0].get_ydata(), model.history_["loss"])
    assert FactorMapDisplay.from_estimator(search).coordinates.shape == (N_ITEMS, 2)
    assert RatingResidualDisplay.from_estimator(search, X, y).rmse_ == pytest.approx(np.sqrt(np.mean((search.predict(X) - y) ** 2)))
    shown = RecommendationDisplay.from_estimator(search, 4, X=X, y=y, k=3)
    assert shown.recommended == [str(item) for item in model.recommend(4, 3)[0]]
