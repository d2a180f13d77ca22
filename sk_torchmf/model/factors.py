"""A fitted factorization as one value: what every built-in solver returns, and what all predictions are made from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from sk_torchmf._forks import one_thread_if_forked
from sk_torchmf.model.cut_points import CutPoints
from sk_torchmf.model.posterior import Posterior, score_variance
from sk_torchmf.nn import BiasedMF, PlainMF
from sk_torchmf.nn.top_k import rank_rows

BLOCK = 2**12  # pairs scored at once: their factors stay in the cache
ROWS = 2**12  # moved at once


def mean_of_rows(rows):
    """The mean of rows (n, ...) in float64."""
    total = np.zeros(rows.shape[1:])
    for start in range(0, len(rows), ROWS):
        total += rows[start : start + ROWS].astype(np.float64).sum(0)
    return total / len(rows)


@dataclass(slots=True)  # not frozen: that would double the time of a single prediction
class Side:
    """One side of a factorization, users or items.

    Attributes
    ----------
    factors : ndarray of shape (n, n_factors)
    biases : ndarray of shape (n,) or None
        None in a plain model.
    mean : ndarray of shape (n_factors,)
        The factors of an unknown id, whose bias is zero.
    counts : ndarray of shape (n,) or None
        Weighted number of observations; 0 where an id was never observed and has the mean row. None where all were observed.
    posterior : Posterior or None
        Where the solver knows how uncertain the rows are; in standardised units.
    weights : FeatureWeights or None
        Where the rows have features.
    described : ndarray of shape (n,), bool, or None
        Whose features are known, so that a row without observations is what they say; None for nobody's.
    mean_of : callable
        The mean (...) over the rows of the side, float64, of numbers for each (n, ...); where other processes have rows of it, over
        theirs too.
    """

    factors: np.ndarray
    biases: np.ndarray | None
    mean: np.ndarray
    counts: np.ndarray | None = None
    posterior: Posterior | None = None
    weights: Any = None
    described: Any = None
    mean_of: Callable = mean_of_rows

    @classmethod
    def of(cls, factors, biases=None, posterior=None, mean_of=mean_of_rows):
        """A side whose unknown ids are as its rows on average."""
        return cls(factors, biases, mean_of(factors).astype(factors.dtype), posterior=posterior, mean_of=mean_of)

    def __len__(self):
        return len(self.factors)

    def unknown(self, code=None):
        """Which row numbers, by default all there are, stand for ids with neither observations nor features; -1 does."""
        if code is None:
            return np.zeros(len(self), dtype=bool) if self.counts is None else self._unobserved(slice(None))
        missing = code < 0
        return missing if self.counts is None or len(self) == 0 else missing | self._unobserved(code)

    def _unobserved(self, some):
        without = np.asarray(self.counts)[some] == 0
        return without if self.described is None else without & ~self.described[some]

    def at(self, code=None, nan=False):
        """Factors (n, n_factors) and biases (n,), float64, of row numbers, -1 for unknown, by default of all; NaN if asked for."""
        if code is not None and len(self) == 0:  # where other processes have all rows
            rows = np.full((len(code), self.factors.shape[1]), np.nan if nan else self.mean, dtype=np.float64)
            return rows, np.zeros(len(code))
        own = slice(None) if code is None else code
        rows = self.factors[own].astype(np.float64)
        biases = np.zeros(len(rows)) if self.biases is None else self.biases[own].astype(np.float64)
        if code is not None:
            missing = code < 0
            rows[missing], biases[missing] = self.mean, 0.0
        if nan:
            rows[self.unknown(code)] = np.nan
        return rows, biases

    def with_centred_biases(self):
        """The side with biases of mean zero, and what the mean was."""
        biases = np.asarray(self.biases)
        level = float(self.mean_of(biases if self.counts is None else biases[self.counts > 0]))
        weights = self.weights
        if weights is not None:
            width = self.factors.shape[1] + 1
            weights = weights.mapped(np.eye(width), -level * np.eye(width)[-1])
        return replace(self, biases=biases - biases.dtype.type(level), weights=weights), level

    def spread_over(self, known, counts, features=None, others=None):
        """The side of more ids: these rows at ``known``, elsewhere what features say, and the mean row where there are none.

        Parameters
        ----------
        known : ndarray of int
            The numbers of these rows among all.
        counts : ndarray of shape (n,)
            Of all.
        features : EncodedFeatures, optional
            Of all.
        others : tuple of (ndarray of int, int), optional
            Likewise of the other side: the known ones, and how many there are.
        """
        posterior, weights, n = self.posterior, self.weights, len(counts)
        biases = None if self.biases is None else _spread(self.biases, known, n, 0.0)
        factors = _spread(self.factors, known, n, self.mean)
        if posterior is not None:
            mean_variance = posterior.mean_variance
            if mean_variance is not None:
                mean_variance = np.concatenate([_spread(mean_variance[:-1], known, n, mean_variance[-1]), mean_variance[-1:]])
            posterior = replace(posterior, count=_spread(posterior.count, known, n, 0.0), mean_variance=mean_variance)
        if weights is not None and others is not None:
            weights = weights.spread_over(*others)
        side = replace(self, factors=factors, biases=biases, counts=counts, posterior=posterior, weights=weights)
        return side if features is None else side.described_by(features)

    def described_by(self, features):
        """The side with the features of its ids: those without observations become what these say."""
        cold = np.flatnonzero(features.described & (self.counts == 0))
        factors, biases, posterior = self.factors, self.biases, self.posterior
        if len(cold) and self.weights is not None:  # None: all features are empty. A copy: known rows are the solver's
            own = features.matrix[cold]
            rows = self.weights.rows(own)
            factors = factors.copy()
            factors[cold] = rows[:, : factors.shape[1]]
            if biases is not None:
                biases = biases.copy()
                biases[cold] = rows[:, -1]
            if posterior is not None and posterior.mean_variance is not None:
                mean_variance = posterior.mean_variance.copy()
                mean_variance[cold] = self.weights.excess_variance(own)
                posterior = replace(posterior, mean_variance=mean_variance)
        return replace(self, factors=factors, biases=biases, posterior=posterior, described=features.described)

    def expected(self, features=None, n=1):
        """Rows (n, width), float64, of n ids without observations: what their features say, the mean row where none are known."""
        rows = np.zeros((n, self.factors.shape[1] + (self.biases is not None)))
        rows[:, : self.factors.shape[1]] = self.mean
        if features is not None:
            known = np.flatnonzero(features.described)
            rows[known] = self.weights.rows(features.matrix[known])
        return rows

    def with_unknown(self, nan):
        """Factors and biases or None, with one more row at the end, which is where an index of -1 leads: that of the unknown."""
        missing = np.append(self.unknown(), True)
        found = []
        for rows, mean in ((self.factors, self.mean), (self.biases, 0.0)):
            if rows is not None:
                rows = np.concatenate([rows, np.broadcast_to(np.asarray(mean, dtype=rows.dtype), (1, *rows.shape[1:]))])
                if nan:
                    rows[missing] = np.nan
            found.append(rows)
        return found


@dataclass(slots=True)  # not frozen: that would double the time of a single prediction
class Factors:
    r"""A fitted factorization, :math:`s_{ui} = \mu + b_u + b_i + p_u \cdot q_i`.

    Solvers return it for the ids that they were given, in standardised units; ``in_units`` and ``spread_over`` make of it what an
    estimator keeps.

    Attributes
    ----------
    users, items : Side
    constant : float
        :math:`\mu`; 0 in a plain model.
    prior : tuple of ndarray of shape (3, width, width) and (3, width), or None
        What a new user's row is shrunk to: its precision and precision times mean, at the powers 0, 0.75 and 1 of its count; in
        standardised units.
    noise : float or None
        Variance of a standardised rating about its score, where the solver knows.
    scale : float
        What ratings were divided by: the unit of the scores. Factors are in units of its square root.
    effects : sequence of tuple of (ndarray of shape (n_codes,), ndarray of shape (n_codes,), float)
        Of each effect its biases, their posterior variances and the prior's; in units of the scores and their squares.
    cut_points : CutPoints or None
        What makes ratings of scores, where these are levels; the scale is then 1.
    """

    users: Side
    items: Side
    constant: float = 0.0
    prior: tuple[np.ndarray, np.ndarray] | None = None
    noise: float | None = None
    scale: float = 1.0
    effects: Sequence = ()
    cut_points: CutPoints | None = None

    @classmethod
    def from_module(cls, module, prior=None, posteriors=(None, None), noise=None, mean_of_users=mean_of_rows):
        """Take over the parameters of a PlainMF or BiasedMF."""
        state = {name: value.detach().cpu().numpy() for name, value in module.state_dict().items()}
        users, items = (
            Side.of(state[f"{role}_factors"], state.get(f"{role}_biases"), posterior, mean_of)
            for role, posterior, mean_of in zip(("user", "item"), posteriors, (mean_of_users, mean_of_rows), strict=True)
        )
        return cls(users, items, float(state.get("global_mean", 0.0)), prior, noise)

    @classmethod
    def from_rows(cls, users, items, n_factors, mean_of_users=mean_of_rows):
        """Take over rows ``[P]`` and ``[Q]`` or, of a biased model, ``[P, b_u, 1]`` and ``[Q, 1, b_i]``: Tensors (n, width)."""
        users, items = (side.detach().cpu().numpy() for side in (users, items))
        factors = [side[:, :n_factors].copy() for side in (users, items)]
        if users.shape[1] == n_factors:
            return cls(Side.of(factors[0], mean_of=mean_of_users), Side.of(factors[1]))
        biases = users[:, n_factors].copy(), items[:, n_factors + 1].copy()
        return cls(Side.of(factors[0], biases[0], mean_of=mean_of_users), Side.of(factors[1], biases[1]))

    @property
    def n_factors(self):
        """How many factors a row has."""
        return self.users.factors.shape[1]

    @property
    def biased(self):
        """Whether there are biases."""
        return self.users.biases is not None

    def side(self, role):
        """The side of a role, ``"user"`` or ``"item"``."""
        return self.users if role == "user" else self.items

    # units and ids

    def in_units(self, scale):
        """The model in rating units, from standardised ones."""
        root = scale**0.5
        sides = []
        for side in (self.users, self.items):
            kind = side.factors.dtype.type
            factors, biases = side.factors * kind(root), None if side.biases is None else side.biases * kind(scale)
            weights = side.weights
            if weights is not None:
                weights = weights.scaled(np.append(np.full(self.n_factors, root), [scale] * self.biased))
            sides.append(replace(side, factors=factors, biases=biases, mean=side.mean * kind(root), weights=weights))
        effects = [(biases * scale, variances * scale**2, prior * scale**2) for biases, variances, prior in self.effects]
        return replace(self, users=sides[0], items=sides[1], constant=self.constant * scale, scale=scale, effects=effects)

    def spread_over(self, known, counts, features=(None, None)):
        """The model of more ids than the solver was given.

        Parameters
        ----------
        known : tuple of ndarray of int
            The row numbers, among all users and all items, of those that it was given.
        counts : tuple of ndarray of shape (n_users,) and (n_items,)
            Weighted number of observations of all.
        features : tuple of EncodedFeatures or None
            Of all users and of all items.
        """
        others = [(own, len(count)) for own, count in zip(known, counts, strict=True)][::-1]
        sides = (self.users, self.items)
        users, items = (side.spread_over(*own) for side, *own in zip(sides, known, counts, features, others, strict=True))
        cut_points = None if self.cut_points is None else self.cut_points.spread_over(known[0], len(users))
        return replace(self, users=users, items=items, cut_points=cut_points)

    def with_centred_biases(self):
        """The same biased model with biases of mean zero on both sides: their levels go into the constant."""
        (users, of_users), (items, of_items) = (side.with_centred_biases() for side in (self.users, self.items))
        return replace(self, users=users, items=items, constant=self.constant + of_users + of_items)

    def centred(self, at=None):
        r"""The same biased model with factors and biases of mean zero on both sides, or zero at given rows.

        With :math:`p = p' + \bar p` and :math:`q = q' + \bar q` the cross terms go into the biases and the constant; the scores
        stay. An unknown id then has no factor and no bias: it scores as the known ones do on average, or as the given row does.

        Parameters
        ----------
        at : sequence of two ndarray of shape (n_factors + 1,), float64, optional
            Factors and bias of an unknown user and of an unknown item; by default the means.
        """
        of_user, of_item = map(_mean_row, (self.users, self.items)) if at is None else at
        p_mean, q_mean = of_user[:-1], of_item[:-1]
        users, to_users, shift = _centre(self.users, of_user, q_mean)
        items, _, constant = _centre(self.items, of_item, p_mean)
        prior = self.prior
        if prior is not None:
            back = np.linalg.inv(to_users)  # old coordinates from new
            precision = back.T @ prior[0] @ back
            prior = precision, prior[1] @ back + precision @ shift
        return replace(
            self, users=users, items=items, constant=self.constant - shift[-1] - constant[-1] - p_mean @ q_mean, prior=prior
        )

    # scores

    def pair_scores(self, user, item, nan=False):
        """Scores (n,) of pairs of row numbers, -1 for unknown, in float64 so that ranks agree; NaN for unknown if asked for."""
        scores = np.empty(len(user))
        for start in range(0, len(user), BLOCK):
            part = slice(start, start + BLOCK)
            p, b_u = self.users.at(user[part], nan)
            q, b_i = self.items.at(item[part], nan)
            scores[part] = np.einsum("nk,nk->n", p, q) + (b_u + self.constant) + b_i
        return scores

    def all_scores(self, factors, biases, items=None, nan=False):
        """Scores of users with all items, or with some.

        Parameters
        ----------
        factors, biases : ndarray of shape (n, n_factors) and (n,), float64
            The users' rows.
        items : ndarray of shape (m,), int, optional
            Row numbers, -1 for unknown; all items by default.
        nan : bool
            Whether unknown items score NaN.

        Returns
        -------
        ndarray of shape (n, m), float64
            Items that have the mean row tie, whatever a matrix product rounds differently by column.
        """
        rows, of_items = self.items.at(items, nan)
        scores = factors @ rows.T
        scores += (biases + self.constant)[:, None]
        if self.biased:
            scores += of_items
        missing = np.flatnonzero(self.items.unknown(items))
        alike = missing[(rows[missing] == self.items.mean).all(axis=1) & (of_items[missing] == 0)]
        if len(alike) > 1:
            scores[:, alike] = scores[:, alike[:1]]
        return scores

    def split(self, rows):
        """Rows (n, width) of users, as ``fold_in`` gives them, as factors (n, n_factors) and biases (n,)."""
        return rows[:, : self.n_factors], rows[:, -1] if self.biased else np.zeros(len(rows))

    # uncertainty

    def score_variances(self, user, item):
        """Posterior variances (n,) of the scores of pairs of row numbers, -1 for unknown, in units of the scores."""
        variance, root = np.empty(len(user)), self.scale**0.5
        for start in range(0, len(user), BLOCK):
            part = slice(start, start + BLOCK)
            u, i = user[part], item[part]
            rows = self.users.at(u)[0] / root, self.items.at(i)[0] / root
            variance[part] = score_variance((self.users.posterior, u, rows[1]), (self.items.posterior, i, rows[0]))
        return self.scale**2 * variance

    def of_context(self, codes):
        """What effects add to scores, and the posterior variances of that: (n,) each, for the codes (n,) of every effect.

        A code of -1 is not known: its bias has the prior's mean, zero, and variance.
        """
        biases, variances = np.zeros(len(codes[0])), np.zeros(len(codes[0]))
        for (bias, variance, prior), code in zip(self.effects, codes, strict=True):
            if not len(bias):  # where other processes have all that have it
                variances += prior
                continue
            biases += np.where(code < 0, 0.0, bias[code])
            variances += np.where(code < 0, prior, variance[code])
        return biases, variances

    def draw(self, rng, role, code):
        """Draw rows of a side from their posterior: factors (n, n_factors) and biases (n,) of row numbers, -1 for unknown."""
        side = self.side(role)
        factors, biases = side.at(code)
        deviation = side.posterior.draw(rng, code)
        moved = factors + deviation[:, : self.n_factors] * self.scale**0.5
        return moved, biases + deviation[:, self.n_factors] * self.scale if self.biased else biases

    # other forms

    def similar(self, role, code, k):
        """The k rows of a side that point most nearly the same way as some of it: numbers (n, k), -1 for none, and cosines."""
        rows = self.side(role).factors.astype(np.float64)
        length = np.linalg.norm(rows, axis=1, keepdims=True)
        rows = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
        itself = sp.csr_array((np.ones(len(code), dtype=bool), code, np.arange(len(code) + 1)), shape=(len(code), len(rows)))
        return rank_rows(rows[code], rows, k, excluded=itself)

    def embeddings(self):
        """Rows whose inner products are the scores: ``[P]`` and ``[Q]`` or, biased, ``[P, b_u + mu, 1]`` and ``[Q, 1, b_i]``."""
        users, items = self.users.factors, self.items.factors
        if self.users.biases is None or self.items.biases is None:
            return np.array(users), np.array(items)
        of_users = np.column_stack([users, self.users.biases + self.constant, np.ones(len(users))])
        of_items = np.column_stack([items, np.ones(len(items)), self.items.biases])
        return of_users.astype(users.dtype, copy=False), of_items.astype(items.dtype, copy=False)

    @one_thread_if_forked
    def to_module(self, nan=False):
        """A PlainMF or BiasedMF with these parameters, and one more row on each side for the unknown; NaN there if asked for."""
        state: dict[str, np.ndarray] = {}
        for role in ("user", "item"):
            factors, biases = self.side(role).with_unknown(nan)
            state |= {f"{role}_factors": factors} | ({f"{role}_biases": biases} if self.biased else {})
        if self.biased:
            state["global_mean"] = np.asarray(self.constant)
        sizes = len(self.users) + 1, len(self.items) + 1, self.n_factors
        dtype = getattr(torch, self.users.factors.dtype.name)
        module = (BiasedMF if self.biased else PlainMF)(*sizes, generator=torch.Generator("cpu"), dtype=dtype)
        module.load_state_dict({name: torch.from_numpy(values) for name, values in state.items()})
        return module


def _spread(rows, known, n, fill):
    """Rows of the known ids among n, ``fill`` elsewhere."""
    if len(known) == n and np.array_equal(known, np.arange(n)):
        return rows
    full = np.empty((n, *rows.shape[1:]), dtype=rows.dtype)
    full[:] = fill
    full[known] = rows
    return full


def _mean_row(side):
    """The mean of factors and of biases, (n_factors + 1,), float64."""
    return np.append(side.mean_of(side.factors), side.mean_of(side.biases))


def _centre(side, row, other_mean):
    """Rows (p, b) to (p - mean, b + (p - mean) . other_mean - level), zero at (mean, level): side, matrix and shift of that map."""
    k = side.factors.shape[1]
    matrix = np.eye(k + 1)
    matrix[-1, :-1] = other_mean
    shift = -np.append(row[:-1], row[:-1] @ other_mean + row[-1])
    factors, biases = np.empty_like(side.factors), np.empty_like(side.biases)
    for start in range(0, len(side), ROWS):  # in float64, some at a time
        some = slice(start, start + ROWS)
        own = side.factors[some].astype(np.float64)
        biases[some] = side.biases[some] + (own @ other_mean + shift[-1])
        factors[some] = own + shift[:-1]
    posterior = side.posterior
    if posterior is not None:
        posterior = replace(posterior, basis=matrix @ posterior.basis)
    parts = {"factors": factors, "biases": biases, "mean": np.zeros(k, dtype=factors.dtype)}
    weights = None if side.weights is None else side.weights.mapped(matrix, shift)
    centred = replace(side, **parts, posterior=posterior, weights=weights)
    return centred, matrix, shift
