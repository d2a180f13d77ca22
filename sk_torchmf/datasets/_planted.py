"""Generated ratings whose true factors are known, of any size."""

from numbers import Integral, Real

import numpy as np
from sklearn.utils import Bunch
from sklearn.utils._param_validation import Interval, validate_params

from sk_torchmf._validation import check_seed
from sk_torchmf.interactions import Interactions

ROUNDS = 12  # of drawing and rejecting, before pairs that are hard to hit are drawn without replacement
BLOCK = 2**18  # pairs whose factors are gathered at once
_SIZE = [Interval(Integral, 1, 2**31 - 1, closed="both")]
_SPREAD = [Interval(Real, 0, None, closed="left")]
_TAIL = [Interval(Real, 0, 10, closed="both")]


@validate_params(
    {
        "n_users": _SIZE,
        "n_items": _SIZE,
        "n_ratings": _SIZE,
        "n_factors": _SIZE,
        "factor_std": _SPREAD,
        "bias_std": _SPREAD,
        "noise_std": _SPREAD,
        "mean": [Interval(Real, None, None, closed="neither")],
        "user_tail": _TAIL,
        "item_tail": _TAIL,
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def make_ratings(
    n_users=1000,
    n_items=500,
    n_ratings=50_000,
    *,
    n_factors=8,
    factor_std=0.6,
    bias_std=0.4,
    noise_std=0.5,
    mean=3.5,
    user_tail=1.0,
    item_tail=1.5,
    random_state=None,
):
    r"""Generate ratings from known factors of low rank, known biases and Gaussian noise.

    .. math:: r_{ui} = \mu + b_u + b_i + p_u^\top q_i + \varepsilon_{ui}

    Ratings are neither rounded nor clipped, so the best root mean squared error that a model can reach is ``noise_std``.

    Parameters
    ----------
    n_users : int, default=1000
        How many users there are. By chance a user or item may have no rating.
    n_items : int, default=500
        How many items there are.
    n_ratings : int, default=50_000
        How many distinct (user, item) pairs are rated, at most ``n_users * n_items``. Memory and time grow with this number, not
        with ``n_users * n_items``.
    n_factors : int, default=8
        The rank: how many true factors there are.
    factor_std : float, default=0.6
        Standard deviation of :math:`p_u^\top q_i`, in rating units.
    bias_std : float, default=0.4
        Standard deviation of :math:`b_u`, and of :math:`b_i`, in rating units.
    noise_std : float, default=0.5
        Standard deviation of the noise, in rating units.
    mean : float, default=3.5
        :math:`\mu`.
    user_tail : float, default=1.0
        How unequal the activity of users is: the standard deviation of the logarithm of their number of ratings, between 0 (all
        equal) and 10. Because no pair is drawn twice, activity is more equal than that if nearly all pairs are rated. MovieLens-1M
        has 1.0.
    item_tail : float, default=1.5
        How unequal the popularity of items is, measured likewise. MovieLens-1M has 1.8.
    random_state : int, RandomState or None, default=None
        Seeds a generator of its own. Pass an int to get the same ratings every time.

    Returns
    -------
    Bunch
        ``data``, ndarray of shape (n_ratings, 2), int32: user and item ids, in random order; ``target``, ndarray of shape
        (n_ratings,), float32: ratings; ``expected``: the same without the noise; ``interactions``: the same data as a container;
        ``user_factors`` (n_users, n_factors), ``item_factors`` (n_items, n_factors), ``user_biases`` (n_users,) and ``item_biases``
        (n_items,), float64: the true values; ``mean`` and ``noise_std``.

    Raises
    ------
    ValueError
        If a parameter is out of its range, or there are more ratings than pairs.

    Examples
    --------
    >>> from sk_torchmf.datasets import make_ratings
    >>> ratings = make_ratings(100, 50, 1000, noise_std=0.3, random_state=0)
    >>> ratings.interactions
    <Interactions dataset (100 users x 50 items x 1000 interactions)>
    >>> ratings.data.shape, round(float((ratings.target - ratings.expected).std()), 1)
    ((1000, 2), 0.3)
    """
    if n_ratings > n_users * n_items:
        raise ValueError(
            f"n_ratings must be at most n_users * n_items = {n_users * n_items}, because no pair is rated twice. Got {n_ratings}. "
            "Lower n_ratings, or raise n_users or n_items."
        )
    rng = np.random.default_rng(check_seed(random_state))
    counts = _share_out(n_ratings, rng.lognormal(0, user_tail, n_users), n_items, rng)
    keys = _draw_pairs(counts, rng.lognormal(0, item_tail, n_items), rng)
    rng.shuffle(keys)
    user, item = (ids.astype(np.int32) for ids in np.divmod(keys, n_items))
    size = (factor_std / n_factors**0.5) ** 0.5  # then the sum of n_factors products has standard deviation factor_std
    P, Q = rng.normal(0, size, (n_users, n_factors)), rng.normal(0, size, (n_items, n_factors))
    b_u, b_i = rng.normal(0, bias_std, n_users), rng.normal(0, bias_std, n_items)
    expected = np.empty(n_ratings, dtype=np.float32)
    for start in range(0, n_ratings, BLOCK):
        part = slice(start, start + BLOCK)
        u, i = user[part], item[part]
        expected[part] = mean + b_u[u] + b_i[i] + np.einsum("nk,nk->n", P[u], Q[i])
    target = rng.standard_normal(n_ratings, dtype=np.float32)
    target *= np.float32(noise_std)
    target += expected
    return Bunch(
        data=np.column_stack([user, item]),
        target=target,
        expected=expected,
        interactions=Interactions(user, item, target, num_users=n_users, num_items=n_items),
        user_factors=P,
        item_factors=Q,
        user_biases=b_u,
        item_biases=b_i,
        mean=mean,
        noise_std=noise_std,
    )


def _share_out(n, weight, limit, rng):
    """Draw counts, int64, that sum to n, in proportion to weight but none above the limit."""
    counts, power = np.zeros(len(weight), dtype=np.int64), 1.0
    while rest := n - int(counts.sum()):
        share = np.where(counts < limit, weight**power, 0)
        counts = np.minimum(counts + rng.multinomial(rest, share / share.sum()), limit)
        power *= 0.9  # what the full ones leave goes out ever more evenly, so that a nearly full matrix ends soon
    return counts


def _draw_pairs(counts, weight, rng):
    """Draw for each user its count of distinct items, one after another in proportion to weight: keys user * n_items + item."""
    n_users, n_items = len(counts), len(weight)
    first = np.arange(n_users + 1, dtype=np.int64) * n_items
    steps = np.cumsum(weight) / weight.sum()
    steps[-1] = 1.0
    keys, lacking = np.empty(0, dtype=np.int64), counts
    for _ in range(ROUNDS):
        item = np.searchsorted(steps, rng.random(int(lacking.sum())), side="right")
        keys = np.concatenate([keys, np.repeat(first[:-1], lacking) + item])
        keys.sort(kind="stable")  # quick on runs that are in order; np.unique is ten times slower
        keys = keys[np.append(True, keys[1:] > keys[:-1])]
        lacking = counts - np.bincount(keys // n_items, minlength=n_users)
        if not lacking.any():
            return keys
    parts, bounds = [keys], np.searchsorted(keys, first)
    for user in np.flatnonzero(lacking):  # the first arrivals of exponential clocks are such a draw, whatever is left
        arrival = rng.exponential(size=n_items) / weight
        arrival[keys[bounds[user] : bounds[user + 1]] - first[user]] = np.inf
        parts.append(first[user] + np.argpartition(arrival, lacking[user] - 1)[: lacking[user]])
    return np.concatenate(parts)
