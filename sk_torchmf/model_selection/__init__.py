"""What scikit-learn's searches need to know about interactions: how to score a ranking, and how to hold observations out."""

from sk_torchmf.metrics._scorer import ranking_scorer
from sk_torchmf.model_selection._cold import ColdItemSplit, ColdUserSplit
from sk_torchmf.model_selection._splitters import HeldOutUsers, LeaveLastOut, LeaveRandomOut, TimeSplit, UserKFold

__all__ = [
    "ColdItemSplit",
    "ColdUserSplit",
    "HeldOutUsers",
    "LeaveLastOut",
    "LeaveRandomOut",
    "TimeSplit",
    "UserKFold",
    "ranking_scorer",
]
