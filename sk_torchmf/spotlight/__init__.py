"""At home with Spotlight, in both directions: its containers, its evaluation, its models; nothing here imports it unasked."""

from sk_torchmf.spotlight._convert import from_spotlight, to_spotlight
from sk_torchmf.spotlight._estimator import SpotlightEstimator
from sk_torchmf.spotlight._evaluation import mrr_score, precision_recall_score, rmse_score
from sk_torchmf.spotlight._weights import weights_from_spotlight

__all__ = [
    "SpotlightEstimator",
    "from_spotlight",
    "mrr_score",
    "precision_recall_score",
    "rmse_score",
    "to_spotlight",
    "weights_from_spotlight",
]
