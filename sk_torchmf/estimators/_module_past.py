"""What an estimator of a module keeps of its ratings: sums of residuals, where predictions can stand in for the rest."""

from functools import partial

import numpy as np
import torch

from sk_torchmf.estimators._past import keep, recall
from sk_torchmf.estimators._torch_options import find_ranking_loss, make_loss
from sk_torchmf.nn import POINTWISE, Pairs, PointwiseLoss


def keep_ratings(estimator, data, past=None):
    """Keep a sketch of ratings, or None where it would not do; ``past`` is what was remembered before and is among them."""
    if not _remembers(estimator):
        estimator.sketch_ = None
        return
    pairs = Pairs(data.user_ids, data.item_ids, estimator.n_users_, estimator.n_items_)
    order = pairs.order.long()
    rating = torch.from_numpy(estimator._check_ratings(data.ratings).astype(np.float32))[order]
    weight = None if data.weights is None else torch.from_numpy(data.weights.astype(np.float32))[order]
    keep(estimator, pairs, rating - _predict(estimator, pairs), weight, _no_rows(estimator), past)


def recall_ratings(estimator, growth):
    """The ratings of which there is a sketch, at their new places and within the range of what they were: a Past."""
    past = recall(estimator, growth, _no_rows(estimator), partial(_predict, estimator), torch.device("cpu"))
    np.clip(past.data.ratings, *estimator.rating_range_, out=past.data.ratings)
    return past


def _remembers(estimator):
    """Whether ratings can be stood in for by predictions: known by their ids alone, and of a loss that is least at them."""
    loss = estimator.loss
    if estimator.features is not None or find_ranking_loss(loss) is not None:
        return False
    if isinstance(loss, PointwiseLoss) or loss in POINTWISE:
        return True
    loss, (low, high) = make_loss(loss, estimator._options("loss")), estimator.rating_range_
    span = 0.25 * (high - low) or 1.0
    try:
        for rating in (low, (low + high) / 2, high):
            values = [float(loss(torch.tensor([rating + step]), torch.tensor([rating]), None)) for step in (0.0, -span, span)]
            if not values[0] < min(values[1:]):
                return False
    except (RuntimeError, ValueError, TypeError):  # a loss of batches of another kind
        return False
    return True


def _no_rows(estimator):
    """A module of one's own need not have rows that would tell residuals apart."""
    return torch.zeros(estimator.n_users_, 0, device="cpu"), torch.zeros(estimator.n_items_, 0, device="cpu")


def _predict(estimator, pairs):
    user, item = (ids.numpy().astype(np.int64) for ids in (pairs.users, pairs.columns))
    return torch.from_numpy(estimator._respond(estimator._score(user, item, {}, "mean"), clip=False)).float()
