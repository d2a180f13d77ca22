"""The torch side, usable without any estimator: pairs and their kernels, the plan of a fit, the built-in modules, the losses."""

from sk_torchmf.nn.kernels import kernels_in_use, use_kernels
from sk_torchmf.nn.losses import POINTWISE, PointwiseLoss, huber, logistic, poisson, squared_error
from sk_torchmf.nn.modules import BiasedMF, PlainMF, Response
from sk_torchmf.nn.ordinal_loss import OrdinalLoss
from sk_torchmf.nn.pairs import Pairs, pair_dot
from sk_torchmf.nn.plan import Plan
from sk_torchmf.nn.ranking_losses import RANKING, RankingLoss, adaptive_hinge, bpr, hinge, ranking_logistic, softmax
from sk_torchmf.nn.sampling import NegativeSampler

__all__ = [
    "POINTWISE",
    "RANKING",
    "BiasedMF",
    "NegativeSampler",
    "OrdinalLoss",
    "Pairs",
    "PlainMF",
    "Plan",
    "PointwiseLoss",
    "RankingLoss",
    "Response",
    "adaptive_hinge",
    "bpr",
    "hinge",
    "huber",
    "kernels_in_use",
    "logistic",
    "pair_dot",
    "poisson",
    "ranking_logistic",
    "softmax",
    "squared_error",
    "use_kernels",
]
