"""The torch side, usable without any estimator: the pairs plan, its kernels, the built-in modules, the losses."""

from sk_torchmf.nn.losses import POINTWISE, PointwiseLoss, huber, logistic, poisson, squared_error
from sk_torchmf.nn.modules import BiasedMF, PlainMF, Response
from sk_torchmf.nn.pairs import Pairs, pair_dot

__all__ = [
    "POINTWISE",
    "BiasedMF",
    "Pairs",
    "PlainMF",
    "PointwiseLoss",
    "Response",
    "huber",
    "logistic",
    "pair_dot",
    "poisson",
    "squared_error",
]
