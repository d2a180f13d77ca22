"""Estimators that overfit within some epochs, so that early stopping has something to stop."""

import pytest
from every_solver import DATA, LIKED

from sk_torchmf import BiasedMatrixFactorization, ImplicitMatrixFactorization, TorchFactorization, nn

OVERFITS = {
    "explicit": lambda **o: BiasedMatrixFactorization(
        16, solver="adam", alpha=1e-3, max_iter=100, n_iter_no_change=3, random_state=0, dtype="float64", **o
    ),
    "implicit": lambda **o: ImplicitMatrixFactorization(16, loss="bpr", max_iter=60, n_iter_no_change=3, random_state=0, **o),
    "torch": lambda **o: TorchFactorization(
        nn.BiasedMF, "MSELoss", optimizer__lr=0.1, module__n_factors=16, max_iter=60, n_iter_no_change=3, random_state=0, **o
    ),
}
every_estimator = pytest.mark.parametrize("kind", OVERFITS)


def overfit(kind, **options):
    data = LIKED if kind == "implicit" else DATA
    return OVERFITS[kind](early_stopping=True, **options).fit(data), data
