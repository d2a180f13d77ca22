"""Matrix factorization as scikit-learn estimators with a torch autograd backend, on CPU or CUDA."""

from sk_torchmf import _notices, datasets, display, metrics, model_selection, nn, parquet, spotlight
from sk_torchmf._version import __version__
from sk_torchmf.estimators import BiasedMatrixFactorization, ImplicitMatrixFactorization, MatrixFactorization, TorchFactorization
from sk_torchmf.exceptions import DistributedError, DivergenceError, InputWarning
from sk_torchmf.inputs.encoders import FeatureEncoder
from sk_torchmf.inputs.shards import Shards, UserBlock
from sk_torchmf.interactions import Features, Interactions

_notices.take()

__all__ = [
    "BiasedMatrixFactorization",
    "DistributedError",
    "DivergenceError",
    "FeatureEncoder",
    "Features",
    "ImplicitMatrixFactorization",
    "InputWarning",
    "Interactions",
    "MatrixFactorization",
    "Shards",
    "TorchFactorization",
    "UserBlock",
    "__version__",
    "datasets",
    "display",
    "metrics",
    "model_selection",
    "nn",
    "parquet",
    "spotlight",
]
