"""What an estimator keeps of the ratings that it was fitted to, and what it makes of that when more come."""

import copy
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch

from sk_torchmf.estimators._growth import Growth
from sk_torchmf.interactions import Interactions
from sk_torchmf.nn import Pairs
from sk_torchmf.solvers.sketch import Sketch
from sk_torchmf.training.state import Start

BLOCK = 2**18  # ratings worked on at once


@dataclass(frozen=True)
class Past:
    """Earlier ratings, as far as they are remembered.

    Attributes
    ----------
    data : Interactions
        Each pair once; a rating is the model's prediction and what the sketch recalls of the difference.
    lost : float
        The sum of the squares, weighted, of what it does not recall.
    measure : tuple
        Of the ratings themselves, see ``Measure``; empty where nobody asks for it.
    """

    data: Interactions
    lost: float
    measure: tuple = ()

    def joined(self, data, rating):
        """These and more, their ratings given, as one container."""
        data = copy.copy(data)
        data.ratings = rating
        parts = self.data, data
        weights = None
        if any(part.weights is not None for part in parts):
            weights = np.concatenate([np.ones(len(part)) if part.weights is None else part.weights for part in parts])
        user, item, rating = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("user_ids", "item_ids", "ratings")
        )
        return Interactions(user, item, rating, weights=weights, num_users=data.num_users, num_items=data.num_items)


@dataclass
class Plan:
    """What a fit goes on from, and where it leaves what it has observed.

    Attributes
    ----------
    start : Start or None
    growth : Growth or None
    past : Past or None
    optimizer_state : dict or None
        As fitted.
    observed : tuple or None
        Plan, weights, standardised ratings and, if the solver has them, residuals of all observations, where training was on all.
    """

    start: Start | None = None
    growth: Growth | None = None
    past: Past | None = None
    optimizer_state: dict | None = None
    observed: tuple | None = None


def keep(estimator, pairs, residual, weight, rows, past=None):
    """Keep a sketch of the residuals of ratings, as attributes of the estimator.

    Parameters
    ----------
    estimator : estimator
        Gets ``sketch_`` and ``residual_square_``.
    pairs : Pairs
    residual : Tensor of shape (n_pairs,)
        Ratings less predictions, user-major, in rating units.
    weight : Tensor of shape (n_pairs,) or None
    rows : tuple of Tensor
        See ``Sketch.take``.
    past : Past, optional
        The earlier ratings among these.
    """
    seed = 0 if past is None else estimator.sketch_["seed"] + 2  # a sketch draws two kinds of numbers
    known, rows = _known(pairs, rows)
    estimator.sketch_ = vars(Sketch.take(known, residual, weight, rows, seed))
    estimator.residual_square_ = _sum_of_squares(residual, weight) + (past.lost if past else 0.0)


def _sum_of_squares(values, weight):
    """In float64, where no square is too large, and a part at a time, which stays in the cache."""
    weighted = values if weight is None else values * weight
    parts = zip(values.split(BLOCK), weighted.split(BLOCK), strict=True)
    return sum(float(torch.dot(part.double(), other.double())) for part, other in parts)


def _known(pairs, rows):
    """The same pairs of the ids that have any, and the rows of these: a sketch is no larger for ids that nobody saw."""
    pairs, *known = pairs.compressed()
    return pairs, tuple(side[torch.from_numpy(own).to(side.device)] for side, own in zip(rows, known, strict=True))


def pair_weights(data, seen):
    """The summed weights of the pairs of a CSR pattern of observations, None where all are one."""
    if data.weights is None and len(data) == seen.nnz:
        return None
    weights = np.ones(len(data)) if data.weights is None else data.weights
    return sp.csr_array(sp.coo_array((weights, (data.user_ids, data.item_ids)), shape=seen.shape)).data


def recall(estimator, growth, rows, predict, device):
    """The earlier ratings of a fitted estimator at their new places, a Past.

    Parameters
    ----------
    estimator : fitted estimator
    growth : Growth
    rows : tuple of Tensor
        What ``keep`` was given, on the device.
    predict : callable
        Takes Pairs, returns the predictions of each, user-major, in rating units.
    device : torch.device
    """
    seen, weights = estimator.seen_, estimator.pair_weights_
    pointers, columns = (torch.from_numpy(part.astype(np.int32)).to(device) for part in (seen.indptr, seen.indices))
    pairs = Pairs.from_rows(pointers, columns, seen.shape[1])
    weight = None if weights is None else torch.from_numpy(weights).to(rows[0])
    known, rows = _known(pairs, rows)
    found = Sketch(**estimator.sketch_).recall(known, weight, rows)
    rating = (predict(pairs) + found).double().cpu().numpy()
    user, item = growth.user_place[pairs.users.cpu().numpy()], growth.item_place[seen.indices]
    data = Interactions(user, item, rating, weights=weights, num_users=len(growth.users), num_items=len(growth.items))
    return Past(
        data, max(estimator.residual_square_ - _sum_of_squares(found, weight), 0.0), getattr(estimator, "rating_measure_", ())
    )
