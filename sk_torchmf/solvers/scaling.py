"""Where ratings lie and how they spread, before anything is fitted to them. Knows arrays only."""

from functools import partial

import numpy as np

from sk_torchmf.distributed import ALONE, TreeSum
from sk_torchmf.nn.losses import HUBER_DELTA
from sk_torchmf.nn.pairs import CHUNK

LEAST_SPREAD = 1e-12  # of the largest rating: float32 holds the others beside it
WHOLE = ((0, slice(None)),)  # one shard of all


def standardise(rating, weight, loss, processes=ALONE, shards=WHOLE):
    """Where ratings lie and what to divide them by before fitting, in rating units.

    Parameters
    ----------
    rating : ndarray of shape (n_pairs,), float32 or float64
        Of this process, which may have none where another has some.
    weight : ndarray of shape (n_pairs,) or None
    loss : PointwiseLoss
    processes : Communicator
        Those whose ratings are meant; the result is the same in all.
    shards : sequence of (int, slice)
        The numbers of shards of the ratings, ascending, and where each lies: sums are by ``TreeSum``.

    Returns
    -------
    location : float
        Their weighted mean; for a robust loss the constant of least loss.
    scale : float
        Their weighted standard deviation, or 1.4826 times the median distance from the median for a robust loss (the same for
        normal ratings). Ratings that are all alike are divided by their size; those of a loss with a scale of its own by 1.
    """
    location = _mean(rating, weight, processes, shards)
    if not loss.standardised:
        return location, 1.0
    size = processes.largest(float(max(rating.max(initial=0.0), -rating.min(initial=0.0)))) or 1.0
    scale = size * _mean(rating, weight, processes, shards, lambda some: np.square((some - location) / size)) ** 0.5
    if loss.robust:
        rating = np.asarray(rating, dtype=np.float64)
        location = _median(rating, weight, processes, shards)
        spread = 1.4826 * _median(np.abs(rating - location), weight, processes, shards)
        scale = max(spread or scale, LEAST_SPREAD * size)
        for _ in range(20):  # reweighted least squares
            influence = 1 / np.maximum(np.abs(rating - location) / scale, HUBER_DELTA)
            location = _mean(rating, influence if weight is None else influence * weight, processes, shards)
    return location, scale_of(location, scale, size)


def scale_of(location, spread, size):
    """What to divide ratings by, given where they lie, their spread and the largest: that, where they are all alike."""
    return spread if spread > 1e-6 * abs(location) else size


def _total(sums_of, processes, shards):
    """Add up numbers over shards and processes: a function of a shard's place returns its own."""
    tree = TreeSum()
    for number, some in shards:
        tree.add(number, *sums_of(some))
    return processes.all_reduce(tree.total())


def _mean(values, weight, processes, shards, function=None):
    """The weighted mean of what all processes have, or of a function of it; in float64, a part at a time."""

    def sums_of(some):
        own, of_own, sums = values[some], None if weight is None else weight[some], np.zeros(2)
        for start in range(0, len(own), CHUNK):
            part = own[start : start + CHUNK].astype(np.float64)
            part = part if function is None else function(part)
            heavy = None if of_own is None else of_own[start : start + CHUNK]
            sums += (part.sum(), len(part)) if heavy is None else ((part * heavy).sum(), heavy.sum())
        return [float(part) for part in sums]

    weighted, total = _total(sums_of, processes, shards)
    return weighted / total


def _median(values, weight, processes, shards=WHOLE):
    """Lower weighted median: repeating a value is doubling its weight.

    Floats are in the order of their bits, taken for whole numbers: halving the range of these finds the lowest at which half of the
    weight is reached, in 64 steps and without sending a value.
    """
    sorted_by_shard = []
    for number, some in shards:
        own = values[some] + 0.0  # of the two zeros one
        order = np.argsort(own, kind="stable")
        sums = np.append(0.0, np.arange(1, len(own) + 1) if weight is None else np.cumsum(weight[some][order]))
        sorted_by_shard.append((number, (_ordered(own[order]), sums)))
    (total,) = _total(lambda own: [float(own[1][-1])], processes, sorted_by_shard)
    low, high = -(2**63), 2**63 - 1
    while low < high:
        middle = (low + high) // 2
        place = partial(np.searchsorted, v=middle, side="right")
        (reached,) = _total(lambda own, place=place: [float(own[1][place(own[0])])], processes, sorted_by_shard)
        low, high = (low, middle) if reached >= total / 2 else (middle + 1, high)
    return float(_ordered(np.array([low]).view(np.float64)).view(np.float64)[0])


def _ordered(values):
    """Whole numbers in the order of floats, by their bits; of its own result the bits back."""
    bits = values.view(np.int64)
    return bits ^ ((bits >> 63) & np.int64(2**63 - 1))
