"""Pictures of fitted models, by scikit-learn's Display convention. They need matplotlib, which only drawing imports."""

from sk_torchmf.display._factor_map import FactorMapDisplay
from sk_torchmf.display._feature_share import FeatureShareDisplay
from sk_torchmf.display._rating_residual import RatingResidualDisplay
from sk_torchmf.display._recommendation import RecommendationDisplay
from sk_torchmf.display._training_curve import TrainingCurveDisplay

__all__ = ["FactorMapDisplay", "FeatureShareDisplay", "RatingResidualDisplay", "RecommendationDisplay", "TrainingCurveDisplay"]
