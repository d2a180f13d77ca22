"""Ranking metrics: of lists, as arrays in and arrays out, and of a fitted estimator, as a table."""

from sk_torchmf.metrics._evaluate import METRICS, evaluate
from sk_torchmf.metrics._ranking import (
    auc,
    average_precision,
    coverage,
    hit_rate,
    ndcg,
    novelty,
    precision,
    recall,
    reciprocal_rank,
)

__all__ = [
    "METRICS",
    "auc",
    "average_precision",
    "coverage",
    "evaluate",
    "hit_rate",
    "ndcg",
    "novelty",
    "precision",
    "recall",
    "reciprocal_rank",
]
