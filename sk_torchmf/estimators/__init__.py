"""Estimators: thin over the solvers. They validate, call one, and keep NumPy."""

from sk_torchmf.estimators._saving import Factorization
from sk_torchmf.estimators.explicit import BiasedMatrixFactorization, MatrixFactorization
from sk_torchmf.estimators.implicit import ImplicitMatrixFactorization
from sk_torchmf.estimators.torch_factorization import TorchFactorization

__all__ = [
    "BiasedMatrixFactorization",
    "Factorization",
    "ImplicitMatrixFactorization",
    "MatrixFactorization",
    "TorchFactorization",
]
