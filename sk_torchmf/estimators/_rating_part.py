"""Ratings at hand, standardised, and the solver that fits a built-in module to them."""

from dataclasses import dataclass

import numpy as np
import torch

from sk_torchmf.distributed import EXACT, N_SHARDS
from sk_torchmf.estimators._fitting import observed_attributes, observed_of
from sk_torchmf.estimators._prediction import attributes_of
from sk_torchmf.inputs import context
from sk_torchmf.inputs.initial_rows import scatter
from sk_torchmf.inputs.side_features import ROLES, features_of
from sk_torchmf.inputs.stable_hash import shares, stable_hash
from sk_torchmf.model.cut_points import CutPoints, find_levels
from sk_torchmf.nn import POINTWISE, Pairs, Plan, squared_error
from sk_torchmf.nn.exact_plan import ExactPlan
from sk_torchmf.nn.pairs import CHUNK
from sk_torchmf.solvers import RATING_SOLVERS
from sk_torchmf.solvers.cold_rows import with_cold_rows
from sk_torchmf.solvers.ordinal import OrdinalCuts, first_cuts, first_spread, ordinal_loss
from sk_torchmf.solvers.scaling import standardise
from sk_torchmf.training.loop import Part


def in_order(values, order, dtype):
    """``values[order]``, an ndarray, a part at a time."""
    found = np.empty(len(order), dtype=dtype)
    for start in range(0, len(order), CHUNK):
        found[start : start + CHUNK] = values[order[start : start + CHUNK]]
    return found


class Divided:
    """Ratings divided by their scale, of which none are kept: ``[span]`` makes those of a block.

    Parameters
    ----------
    rating : Tensor or StoredValues of shape (n_pairs,)
    scale : float

    Attributes
    ----------
    dtype : torch.dtype
    """

    def __init__(self, rating, scale):
        self.rating, self.scale, self.dtype = rating, scale, rating.dtype

    def __getitem__(self, span):
        return self.rating[span] / self.scale


@dataclass(frozen=True)
class ExactOrder:
    """An order of users and observations that does not depend on who had them: by shard, label and item, then by what was observed.

    Attributes
    ----------
    shards : ndarray of shape (n_users,), int64
        Of the reading's users.
    users, place : ndarray of shape (n_users,), int64
        The users in that order, and where each of the reading's is in it.
    rows : ndarray of shape (n,), int64
        The observations in that order.
    spans : list of (int, slice)
        The numbers of the shards that have observations, and where these lie among ``rows``.
    """

    shards: np.ndarray
    users: np.ndarray
    place: np.ndarray
    rows: np.ndarray
    spans: list

    @classmethod
    def of(cls, reading):
        """That of a reading."""
        shard, data = shares(stable_hash(reading.users, "user"), N_SHARDS), reading.data
        users = np.argsort(shard, kind="stable")
        place = np.argsort(users)
        beside = [values for values in (data.weights, data.ratings) if values is not None]
        rows = np.lexsort([*beside, data.item_ids, place[data.user_ids]])
        numbers, starts = np.unique(shard[data.user_ids[rows]], return_index=True)
        ends = np.append(starts, len(rows)).tolist()
        spans = [(number, slice(*own)) for number, *own in zip(numbers.tolist(), ends[:-1], ends[1:], strict=True)]
        return cls(shard, users, place, rows, spans)


class RatingPart(Part):
    """Some of the ratings, standardised, and the solver that fits a built-in module to them."""

    def __init__(self, params, reading, device, seed, start):
        self.params, self.device, self.seed, self.start = params, device, seed, start
        self.exact = ExactOrder.of(reading) if params.distributed == EXACT else None
        reading = reading if self.exact is None else reading[self.exact.rows]
        data, self.processes = reading.data, reading.processes
        rating, self.cut_points = data.ratings.astype(np.result_type(data.ratings, np.float32), copy=False), None  # all are exact
        if params.loss == "ordinal":
            levels, code = find_levels(rating.astype(params.dtype), self.processes)  # as partial_fit gets them back
            self.cut_points = self._first_cut_points(levels, *self._standardised(rating, data.weights, squared_error))
        self.loss = POINTWISE[params.loss] if self.cut_points is None else ordinal_loss(self.cut_points)
        rating, limits = self._coded(rating)
        self.location, self.scale = self._standardised(rating, data.weights, self.loss)
        n_users, n_items = reading.shape
        user = data.user_ids if self.exact is None else self.exact.place[data.user_ids]
        pairs = Pairs(user, data.item_ids, n_users, n_items, device)
        order = pairs.order.cpu().numpy()
        pairs = Pairs.from_rows(pairs.pointers, pairs.columns, n_items)  # which keep no order

        def to_pairs(values, dtype=params.dtype):
            return torch.from_numpy(in_order(values, order, dtype)).to(device)

        self.code = None if self.cut_points is None else to_pairs(code, np.int64)
        self.rating, self.weight = to_pairs(rating), None if data.weights is None else to_pairs(data.weights)
        shared_by = self.processes if params.distributed else None
        self.effects, codes = context.fit(params.effects, data.user_ids, data.item_ids, reading.features, shared_by)
        self.codes = [to_pairs(code, code.dtype) for code in codes]
        self.counts = tuple(count.cpu().numpy() for count in self._plan_of(pairs).sums(self.weight))
        self.pairs, *self.known = pairs.compressed(np.flatnonzero(self.counts[1]))
        self.users = reading.users
        self.described = [reading.described.get(role) for role in ROLES]
        observed = observed_attributes(pairs, self.rating, self.weight)
        if self.exact is not None:
            self.known[0] = self.exact.users[self.known[0]]
            self.counts = self.counts[0][self.exact.place], self.counts[1]
            observed = observed_of(observed, self.exact.place)
        self.observed = observed | {
            "rating_range_": limits,
            **dict(zip(("user_counts_", "item_counts_"), self.counts, strict=True)),
        }
        if self.effects:
            self.observed["observed_features_"] = {name: own[order] for name, own in reading.features.items()}

    def _standardised(self, rating, weight, loss):
        """What ``standardise`` finds, over the shards of an exact fit."""
        return standardise(rating, weight, loss, self.processes, **({} if self.exact is None else {"shards": self.exact.spans}))

    def _coded(self, rating):
        """The ratings as the loss codes them, by all that there are; the lowest and the highest of these."""
        if self.processes.size == 1:
            rating = self.loss.check(rating)
            return rating, np.array([rating.min(), rating.max()], dtype=np.float64)
        largest = self.processes.largest
        limits = -largest(-rating.min(initial=np.inf)), largest(rating.max(initial=-np.inf))
        coded = self.loss.check(np.append(rating, limits))  # which may be of another process
        return coded[:-2], coded[-2:].copy()

    def _first_cut_points(self, levels, location, scale):
        """The cut points to start from, those of the factorization to go on from where levels are the same."""
        common, spread = first_cuts((levels - location) / scale).numpy(), first_spread(len(levels)).numpy()
        earlier = None if self.start is None else self.start.factors.cut_points
        if earlier is not None and np.array_equal(earlier.levels, levels):
            common, spread = earlier.common, spread if earlier.spread is None else earlier.spread
        return CutPoints(levels, common, spread=spread if self.params.cut_points == "user" else None)

    def _cuts(self, plan):
        """What learns the cut points on a plan, as options of the solver; none where ratings are no levels."""
        points = self.cut_points
        if points is None:
            return {}
        common, spread = (None if part is None else torch.from_numpy(part) for part in (points.common, points.spread))
        return {"cuts": OrdinalCuts(plan, self.code, common, spread, dtype=self.rating.dtype, levels=points.levels)}

    def _plan(self):
        return self._plan_of(self.pairs, self.known[0])

    def _plan_of(self, pairs, users=None):
        """The plan of pairs of some users, by their numbers among the reading's, or of all."""
        if self.exact is None:
            return Plan(pairs, processes=self.processes)
        shards = self.exact.shards[self.exact.users if users is None else users]
        first = self.processes.rank * N_SHARDS // self.processes.size
        return ExactPlan(pairs, shards, first=first, processes=self.processes)

    def _arrange(self, module):
        """Put the random rows of a module, drawn for users in the order of their labels, into that of the pairs."""

    def make_solver(self):
        params, row = self.params, RATING_SOLVERS[self.params.solver]
        mean = float(self.loss.link(torch.tensor(self.location / self.scale, dtype=torch.float64, device="cpu")))
        generator = torch.Generator("cpu").manual_seed(self.seed)
        options = {"init_std": 0.0 if params.distributed else row.init_std, "generator": generator, "dtype": self.rating.dtype}
        module = params._module(*self.pairs.shape, params.n_factors, mean=mean, **options)
        self._arrange(module)
        if params.distributed:
            scatter(module, self.user_labels(), row.init_std / params.n_factors**0.5, self.seed, params.dtype)
        if self.start is not None:
            self.start.fill(module, self.known, mean, self.scale, self.processes)
        plan = self._plan()
        return row.build(
            module.to(self.device),
            plan,
            Divided(self.rating, self.scale),
            self.weight,
            self.loss,
            alpha=params.alpha,
            mean=mean,
            learning_rate=params.learning_rate,
            batch_size=params.batch_size,
            generator=generator,
            features=features_of(self.described, self.known, params.seen_features, self.processes),
            effects=[(code, effect.n_codes, effect.of_users) for code, effect in zip(self.codes, self.effects, strict=True)],
            **self._cuts(plan),
        )

    def user_labels(self):
        return self.users[self.known[0]]

    def attributes(self, solver, last=False):
        factors = solver.solution()
        encoded = [None if side is None else side.encoded for side in self.described]
        if (average := self.params.cold_average) is not None:
            factors = with_cold_rows(factors, self.pairs, self.weight, self.known, encoded, average, self.processes)
        elif factors.biased:
            factors = factors.centred()
        factors = factors.in_units(self.scale).spread_over(self.known, self.counts, encoded)
        noise = None if factors.noise is None or not self.loss.standardised else self.scale * factors.noise**0.5
        posteriors = (None if side.posterior is None else side.posterior.as_tuple() for side in (factors.users, factors.items))
        return (
            self.observed
            | ({"effects_": self.effects} if self.effects else {})
            | attributes_of(factors)
            | {
                "rating_scale_": self.scale,
                "noise_std_": noise,
                "user_prior_": factors.prior,
                **dict(zip(("user_posterior_", "item_posterior_"), posteriors, strict=True)),
            }
        )
