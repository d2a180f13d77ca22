"""Estimators: thin over the solvers. They validate, call one, and keep NumPy."""

from sk_torchmf.estimators.explicit import BiasedMatrixFactorization, MatrixFactorization

__all__ = ["BiasedMatrixFactorization", "MatrixFactorization"]
