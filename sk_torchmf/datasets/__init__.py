"""Ratings to try things on: planted ones, MovieLens, and any ratings file."""

from sk_torchmf.datasets._files import load_ratings
from sk_torchmf.datasets._movielens import fetch_movielens
from sk_torchmf.datasets._planted import make_ratings

__all__ = ["fetch_movielens", "load_ratings", "make_ratings"]
