"""Ratings at hand, standardised, and the solver that fits a built-in module to them."""

import numpy as np
import torch

from sk_torchmf.estimators._fitting import observed_attributes
from sk_torchmf.estimators._prediction import attributes_of
from sk_torchmf.inputs import context
from sk_torchmf.inputs.initial_rows import scatter
from sk_torchmf.inputs.side_features import ROLES, features_of
from sk_torchmf.model.cut_points import CutPoints, find_levels
from sk_torchmf.nn import POINTWISE, Pairs, Plan, squared_error
from sk_torchmf.solvers import RATING_SOLVERS
from sk_torchmf.solvers.cold_rows import with_cold_rows
from sk_torchmf.solvers.ordinal import OrdinalCuts, first_cuts, first_spread, ordinal_loss
from sk_torchmf.solvers.scaling import standardise
from sk_torchmf.training.loop import Part


class RatingPart(Part):
    """Some of the ratings, standardised, and the solver that fits a built-in module to them."""

    def __init__(self, params, reading, device, seed, start):
        self.params, self.device, self.seed, self.start = params, device, seed, start
        data, self.processes = reading.data, reading.processes
        rating, self.cut_points = np.asarray(data.ratings, dtype=np.float64), None
        if params.loss == "ordinal":
            self.cut_points, code = self._first_cut_points(rating, data.weights)
        self.loss = POINTWISE[params.loss] if self.cut_points is None else ordinal_loss(self.cut_points)
        rating, limits = self._coded(rating)
        self.location, self.scale = standardise(rating, data.weights, self.loss, self.processes)
        n_users, n_items = reading.shape
        pairs = Pairs(data.user_ids, data.item_ids, n_users, n_items, device)

        def to_pairs(values, dtype=params.dtype):
            return torch.from_numpy(values.astype(dtype)).to(device).index_select(0, pairs.order)

        self.code = None if self.cut_points is None else to_pairs(code, np.int64)
        self.rating, self.weight = to_pairs(rating), None if data.weights is None else to_pairs(data.weights)
        self.effects, codes = context.fit(params.effects, data.user_ids, data.item_ids, reading.features)
        self.codes = [torch.from_numpy(code).to(device).index_select(0, pairs.order) for code in codes]
        self.counts = tuple(count.cpu().numpy() for count in Plan(pairs, processes=self.processes).sums(self.weight))
        self.pairs, *self.known = pairs.compressed(np.flatnonzero(self.counts[1]))
        self.users = reading.users
        self.described = [reading.described.get(role) for role in ROLES]
        self.observed = observed_attributes(pairs, self.rating, self.weight) | {
            "rating_range_": limits,
            **dict(zip(("user_counts_", "item_counts_"), self.counts, strict=True)),
        }
        if self.effects:
            rows = pairs.order.cpu().numpy()
            self.observed["observed_features_"] = {name: own[rows] for name, own in reading.features.items()}

    def _coded(self, rating):
        """The ratings as the loss codes them, by all that there are; the lowest and the highest of these."""
        if self.processes.size == 1:
            rating = self.loss.check(rating)
            return rating, np.array([rating.min(), rating.max()], dtype=np.float64)
        largest = self.processes.largest
        limits = -largest(-rating.min(initial=np.inf)), largest(rating.max(initial=-np.inf))
        coded = self.loss.check(np.append(rating, limits))  # which may be of another process
        return coded[:-2], coded[-2:].copy()

    def _first_cut_points(self, rating, weight):
        """The cut points to start from, those of the factorization to go on from where levels are the same; the ratings' levels."""
        kept = rating.astype(self.params.dtype)  # as partial_fit gets them back
        levels, code = find_levels(kept, self.processes)
        location, scale = standardise(rating, weight, squared_error, self.processes)
        common, spread = first_cuts((levels - location) / scale).numpy(), first_spread(len(levels)).numpy()
        earlier = None if self.start is None else self.start.factors.cut_points
        if earlier is not None and np.array_equal(earlier.levels, levels):
            common, spread = earlier.common, spread if earlier.spread is None else earlier.spread
        return CutPoints(levels, common, spread=spread if self.params.cut_points == "user" else None), code

    def _cuts(self, plan):
        """What learns the cut points on a plan, as options of the solver; none where ratings are no levels."""
        points = self.cut_points
        if points is None:
            return {}
        common, spread = (None if part is None else torch.from_numpy(part) for part in (points.common, points.spread))
        return {"cuts": OrdinalCuts(plan, self.code, common, spread, dtype=self.rating.dtype, levels=points.levels)}

    def _plan(self):
        return Plan(self.pairs, processes=self.processes)

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
            scatter(module, self.users[self.known[0]], row.init_std / params.n_factors**0.5, self.seed, params.dtype)
        if self.start is not None:
            self.start.fill(module, self.known, mean, self.scale)
        plan = self._plan()
        return row.build(
            module.to(self.device),
            plan,
            self.rating / self.scale,
            self.weight,
            self.loss,
            alpha=params.alpha,
            mean=mean,
            learning_rate=params.learning_rate,
            batch_size=params.batch_size,
            generator=generator,
            features=features_of(self.described, self.known, params.seen_features),
            effects=[(code, effect.n_codes) for code, effect in zip(self.codes, self.effects, strict=True)],
            **self._cuts(plan),
        )

    def attributes(self, solver, last=False):
        factors = solver.solution()
        encoded = [None if side is None else side.encoded for side in self.described]
        if (average := self.params.cold_average) is not None:
            factors = with_cold_rows(factors, self.pairs, self.weight, self.known, encoded, average)
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
