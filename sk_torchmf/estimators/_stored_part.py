"""Ratings on disk, and the solver that fits a built-in module to them block by block."""

import numpy as np
import torch

from sk_torchmf.estimators._random_rows import arrange
from sk_torchmf.estimators._rating_part import RatingPart
from sk_torchmf.inputs.side_features import ROLES
from sk_torchmf.inputs.stored_pairs import StoredPairs, StoredPlan, StoredValues
from sk_torchmf.inputs.stored_pattern import StoredPattern
from sk_torchmf.inputs.stored_ratings import survey
from sk_torchmf.nn import POINTWISE


class StoredPart(RatingPart):
    """The ratings of a data set on disk, whose users are in its own order; the numbers of what it keeps are those of labels."""

    def __init__(self, params, reading, device, seed, start):
        self.params, self.device, self.seed, self.start = params, device, seed, start
        self.processes, data = reading.processes, reading.data
        self.cut_points, self.effects, self.codes = None, [], []
        self.loss, dtype = POINTWISE[params.loss], getattr(torch, params.dtype)
        found = survey(data.shards, self.loss, params.dtype)
        self.location, self.scale = found.location, found.scale
        places = data.user_ids, data.item_ids
        self.pairs = StoredPairs(data.shards, found.counts[1] > 0, device)
        self.rating = StoredValues(self.pairs, "codes", dtype, found.decode)
        self.weight = StoredValues(self.pairs, "weights", dtype) if found.weighted else None
        self.known = [place[own] for place, own in zip(places, (self.pairs.users, self.pairs.items), strict=True)]
        self.described = [reading.described.get(role) for role in ROLES]
        self.counts = tuple(map(np.zeros, reading.shape))
        for count, place, own in zip(self.counts, places, found.counts, strict=True):
            count[place] = own
        number = np.full(reading.shape[0], -1, dtype=np.int32)
        number[places[0]] = np.arange(len(places[0]))
        alike = np.array_equal(places[1], np.arange(reading.shape[1]))
        pattern = data.shards.folder, data.shards.digest, number, None if alike else places[1].astype(np.int32), reading.shape[1]
        self.observed = {
            "seen_": StoredPattern(*pattern),
            "rating_range_": np.array(found.limits),
            **dict(zip(("user_counts_", "item_counts_"), self.counts, strict=True)),
        }

    def _plan(self):
        return StoredPlan(self.pairs)

    def _arrange(self, module):
        arrange(module, self.known[0])
