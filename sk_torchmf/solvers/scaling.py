"""Where ratings lie and how they spread, before anything is fitted to them. Knows arrays only."""

from dataclasses import dataclass

import numpy as np

from sk_torchmf.nn.losses import HUBER_DELTA


def standardise(rating, weight, loss):
    """Where ratings lie and what to divide them by before fitting, in rating units.

    Parameters
    ----------
    rating : ndarray of shape (n_pairs,), float64
    weight : ndarray of shape (n_pairs,) or None
    loss : PointwiseLoss

    Returns
    -------
    location : float
        Their weighted mean; for a robust loss the constant of least loss.
    scale : float
        Their weighted standard deviation, or 1.4826 times the median distance from the median for a robust loss (the same for
        normal ratings). Ratings that are all alike are divided by their size; those of a loss with a scale of its own by 1.
    """
    location = float(np.average(rating, weights=weight))
    if not loss.standardised:
        return location, 1.0
    size = float(np.abs(rating).max()) or 1.0
    scale = size * float(np.sqrt(np.average(np.square((rating - location) / size), weights=weight)))
    if loss.robust:
        location = _median(rating, weight)
        scale = 1.4826 * _median(np.abs(rating - location), weight) or scale or size
        for _ in range(20):  # reweighted least squares
            influence = 1 / np.maximum(np.abs(rating - location) / scale, HUBER_DELTA)
            location = float(np.average(rating, weights=influence if weight is None else influence * weight))
    return location, scale if scale > 1e-6 * abs(location) else size


@dataclass(frozen=True)
class Measure:
    """Where ratings lie and how they spread, in rating units; of two lots that of both.

    Attributes
    ----------
    weight : float
        Their sum of weights.
    location, variance : float
        See ``standardise``; the variance is zero where the ratings are all alike.
    lowest, highest : float
    """

    weight: float
    location: float
    variance: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, rating, weight, loss):
        """Measure ratings, as ``standardise`` takes them."""
        location, scale = standardise(rating, weight, loss)
        lowest, highest = float(rating.min()), float(rating.max())
        alike = highest - lowest <= 1e-6 * abs(location) or not loss.standardised
        return cls(float(len(rating) if weight is None else weight.sum()), location, 0.0 if alike else scale**2, lowest, highest)

    def pooled(self, other):
        """The measure of these and other ratings; exact but for robust losses, whose medians do not add up."""
        weight = self.weight + other.weight
        share, distance = other.weight / weight, other.location - self.location
        variance = (1 - share) * self.variance + share * other.variance + share * (1 - share) * distance**2
        limits = min(self.lowest, other.lowest), max(self.highest, other.highest)
        return Measure(weight, self.location + share * distance, variance, *limits)

    def scale(self, loss):
        """What to divide the ratings by, as ``standardise`` says."""
        if not loss.standardised:
            return 1.0
        scale = self.variance**0.5
        return scale if scale > 1e-6 * abs(self.location) else max(abs(self.lowest), abs(self.highest)) or 1.0

    def limits(self):
        """Lowest and highest, an ndarray."""
        return np.array([self.lowest, self.highest])

    def as_tuple(self):
        """What ``Measure`` is made of."""
        return self.weight, self.location, self.variance, self.lowest, self.highest


def _median(values, weight):
    """Lower weighted median: repeating a value is doubling its weight."""
    order = np.argsort(values, kind="stable")
    total = np.arange(1, len(values) + 1) if weight is None else np.cumsum(weight[order])
    return float(values[order[np.searchsorted(total, total[-1] / 2)]])
