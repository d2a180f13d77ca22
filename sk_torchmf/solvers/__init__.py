"""Solvers: tensors and a plan in, Factors out. A new solver of ratings is a row of ``RATING_SOLVERS``."""

from sk_torchmf.solvers.table import RATING_SOLVERS, RatingSolver

__all__ = ["RATING_SOLVERS", "RatingSolver"]
