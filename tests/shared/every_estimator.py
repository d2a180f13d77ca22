"""Every estimator, entered once, for the contracts that hold whatever is fitted."""

import pytest
import sklearn
import tutorial
from sklearn.utils.fixes import parse_version

from sk_torchmf import BiasedMatrixFactorization, ImplicitMatrixFactorization, MatrixFactorization, TorchFactorization

OLDER = (
    {"check_sample_weight_equivalence_on_sparse_data": "passes a sparse X with a y whatever the tags say; later versions heed them"}
    if parse_version(sklearn.__version__) < parse_version("1.7")
    else {}
)
TORCH = {"module__n_factors": 4, "module__sparse": False, "optimizer__lr": 0.05, "max_iter": 30, "batch_size": 128}
MAKERS = {
    "plain": lambda **params: MatrixFactorization(**{"n_factors": 4, "random_state": 0, **params}),
    "biased": lambda **params: BiasedMatrixFactorization(**{"n_factors": 4, "random_state": 0, **params}),
    "als": lambda **params: BiasedMatrixFactorization(**{"n_factors": 4, "solver": "als", "random_state": 0, **params}),
    "adam": lambda **params: MatrixFactorization(**{"n_factors": 4, "solver": "adam", "random_state": 0, **params}),
    "implicit": lambda **params: ImplicitMatrixFactorization(**{"n_factors": 4, "random_state": 0, **params}),
    "torch": lambda **params: TorchFactorization(tutorial.Biased, **{"random_state": 0, **TORCH, **params}),
}
every_maker = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
of_ratings = pytest.mark.parametrize(
    "make", [m for n, m in MAKERS.items() if n != "implicit"], ids=[n for n in MAKERS if n != "implicit"]
)
