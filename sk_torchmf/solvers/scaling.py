"""Where ratings lie and how they spread, before anything is fitted to them. Knows arrays only."""

import numpy as np

from sk_torchmf.nn.losses import HUBER_DELTA

LEAST_SPREAD = 1e-12  # of the largest rating: float32 holds the others beside it


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
        scale = max(1.4826 * _median(np.abs(rating - location), weight) or scale, LEAST_SPREAD * size)
        for _ in range(20):  # reweighted least squares
            influence = 1 / np.maximum(np.abs(rating - location) / scale, HUBER_DELTA)
            location = float(np.average(rating, weights=influence if weight is None else influence * weight))
    return location, scale_of(location, scale, size)


def scale_of(location, spread, size):
    """What to divide ratings by, given where they lie, their spread and the largest: that, where they are all alike."""
    return spread if spread > 1e-6 * abs(location) else size


def _median(values, weight):
    """Lower weighted median: repeating a value is doubling its weight."""
    order = np.argsort(values, kind="stable")
    total = np.arange(1, len(values) + 1) if weight is None else np.cumsum(weight[order])
    return float(values[order[np.searchsorted(total, total[-1] / 2)]])
