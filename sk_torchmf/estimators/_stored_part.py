"""Ratings and positives on disk, and the solvers that fit a built-in module to them block by block."""

import numpy as np
import torch

from sk_torchmf._validation import raise_tiny
from sk_torchmf.estimators._positives_part import PositivesPart, confidence_for
from sk_torchmf.estimators._rating_part import RatingPart
from sk_torchmf.inputs.initial_rows import arrange
from sk_torchmf.inputs.side_features import ROLES, features_of
from sk_torchmf.inputs.stored_pairs import StoredPairs, StoredPlan, StoredValues
from sk_torchmf.inputs.stored_pattern import pattern_of
from sk_torchmf.inputs.stored_positives import survey_positives
from sk_torchmf.inputs.stored_ratings import survey
from sk_torchmf.model.cut_points import find_levels
from sk_torchmf.nn import POINTWISE, squared_error
from sk_torchmf.solvers.ordinal import ordinal_loss
from sk_torchmf.solvers.scaling import standardise


class StoredPart(RatingPart):
    """The ratings of a data set on disk, whose users are in its own order; the numbers of what it keeps are those of labels."""

    def __init__(self, params, reading, device, seed, start):
        self.params, self.device, self.seed, self.start = params, device, seed, start
        self.processes, self.users, data = reading.processes, reading.users, reading.data
        self.cut_points, self.exact, self.effects, self.codes = None, None, [], []
        dtype, is_ordinal = getattr(torch, params.dtype), params.loss == "ordinal"
        self.loss = squared_error if is_ordinal else POINTWISE[params.loss]
        found = survey(data.shards, self.loss, params.dtype, self.processes)
        self.location, self.scale, limits = found.location, found.scale, found.limits
        if is_ordinal:
            levels = _levels_of(found)
            self.location, scale = standardise(levels, found.totals, squared_error)  # of all processes
            self.cut_points, self.scale, limits = self._first_cut_points(levels, self.location, scale), 1.0, levels[[0, -1]]
            self.loss = ordinal_loss(self.cut_points)
        places = data.user_ids, data.item_ids
        self.pairs = StoredPairs(data.shards, found.counts[1] > 0, device)
        self.rating = StoredValues(self.pairs, "codes", dtype, found.decode)
        self.code = StoredValues(self.pairs, "codes", torch.int32) if is_ordinal else None
        self.weight = StoredValues(self.pairs, "weights", dtype) if found.weighted else None
        self.known = [place[own] for place, own in zip(places, (self.pairs.users, self.pairs.items), strict=True)]
        self.described = [reading.described.get(role) for role in ROLES]
        self.counts = tuple(map(np.zeros, reading.shape))
        for count, place, own in zip(self.counts, places, found.counts, strict=True):
            count[place] = own
        self.observed = {
            "seen_": pattern_of(data, reading.shape),
            "rating_range_": np.array(limits),
            **dict(zip(("user_counts_", "item_counts_"), self.counts, strict=True)),
        }

    def _plan(self):
        return StoredPlan(self.pairs, processes=self.processes)

    def _arrange(self, module):
        arrange(module, self.known[0])


class StoredPositivesPart(PositivesPart):
    """The positives of a data set on disk, whose users are in its own order; the numbers of what it keeps are those of labels."""

    def __init__(self, params, reading, device, seed, start):
        self.params, self.device, self.seed, self.start = params, device, seed, start
        self.processes, self.users, data = reading.processes, reading.users, reading.data
        found, places = survey_positives(data.shards, self.processes), (data.user_ids, data.item_ids)
        self.alpha = params._alpha()
        self.confidence = confidence_for(params, found.largest, found.counts[1], found.n_users)
        self.weighted, self.repeated = found.weighted, found.repeated
        self.pairs = StoredPairs(data.shards, found.counts[1] > 0, device)
        self.plan = StoredPlan(self.pairs, processes=self.processes)
        self.known = places[0][self.pairs.users], places[1][self.pairs.items]
        self.described = [reading.described.get(role) for role in ROLES]
        self.features = features_of(self.described, self.known, processes=self.processes)
        self.counts = tuple(map(np.zeros, reading.shape))
        for count, place, own in zip(self.counts, places, found.counts, strict=True):
            count[place] = own
        self.observed = {
            "seen_": pattern_of(data, reading.shape),
            "n_positives_": found.n_pairs,
            "n_active_users_": found.n_users,
            **dict(zip(("user_counts_", "item_counts_"), self.counts, strict=True)),
        }

    def _gain(self, dtype):
        if not self.weighted:
            return float(raise_tiny(np.array(float(self.confidence))))
        return StoredValues(self.pairs, "weights", dtype, lambda weights: raise_tiny(self.confidence * weights.astype(np.float64)))

    def _arrange(self, module):
        arrange(module, self.known[0])


def _levels_of(found):
    """The levels of ratings that a Survey found, by the numbers that are stored."""
    if found.levels is None:
        raise ValueError(
            'loss="ordinal" needs Shards whose ratings have at most 256 distinct values, which are its levels. Round the ratings '
            "before the Shards are made, or use another loss."
        )
    return find_levels(found.levels)[0]
