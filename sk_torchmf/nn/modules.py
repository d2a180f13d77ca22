"""The two built-in models: ``forward(user, item)`` for any loop, ``forward_pairs(pairs)`` for the fused kernels."""

import torch
from torch import nn

from sk_torchmf.nn.pairs import pair_dot


class PlainMF(nn.Module):
    r"""Plain matrix factorization, :math:`s_{ui} = p_u \cdot q_i`.

    Parameters
    ----------
    n_users, n_items, n_factors : int
        Sizes.
    mean : float, default=0.0
        The score to start from, carried by a factor, see ``mean_rows``.
    init_std : float, default=0.1
        Standard deviation of a row's random start, ``init_std / sqrt(n_factors)`` an entry.
    generator : torch.Generator, optional
        A CPU generator: initial factors are drawn on the CPU, so that devices start alike.
    dtype : torch.dtype, default=torch.float32

    Examples
    --------
    >>> import torch
    >>> from sk_torchmf.nn import PlainMF
    >>> model = PlainMF(n_users=3, n_items=4, n_factors=2)
    >>> model(torch.tensor([0, 2]), torch.tensor([3, 3])).shape
    torch.Size([2])
    """

    def __init__(self, n_users, n_items, n_factors, *, mean=0.0, init_std=0.1, generator=None, dtype=torch.float32):
        super().__init__()
        shapes = (n_users, n_factors), (n_items, n_factors)
        users, items = (
            torch.randn(s, generator=generator, dtype=dtype, device="cpu") * (init_std / n_factors**0.5) for s in shapes
        )
        self.user_factors, self.item_factors = nn.Parameter(users), nn.Parameter(items)
        self._plant(float(mean))

    def _plant(self, mean):
        p0, q0 = self.mean_rows(mean)
        with torch.no_grad():
            self.user_factors.add_(p0)
            self.item_factors.add_(q0)

    def mean_rows(self, mean):
        """The rows p0 and q0, each of shape (n_factors,), whose product is ``mean``: what rows without ratings shrink to.

        Column 0 holds the square root of the mean's size. A row can shift all its scores only along a direction in which the other
        side's mean row is not zero, so where the mean is near zero each side starts with a direction of its own.
        """
        p0, q0 = torch.zeros_like(self.user_factors[0]), torch.zeros_like(self.item_factors[0])
        p0[0] = max(abs(mean), 1.0) ** 0.5
        q0[0] = mean / p0[0]
        if abs(mean) < 0.5 and len(q0) > 1:
            q0[1] = 1.0
        return p0, q0

    def rows(self):
        """User rows (n_users, width) and item rows (n_items, width) whose inner products are the scores less ``offset``."""
        return self.user_factors, self.item_factors

    def forward(self, user, item):
        """Scores of shape (n,) for index tensors ``user`` and ``item`` of shape (n,)."""
        return (self.user_factors[user] * self.item_factors[item]).sum(-1)

    def forward_pairs(self, pairs):
        """Scores of shape (n_pairs,) at the observed pairs, user-major, by the fused kernels."""
        return pair_dot(self.user_factors, self.item_factors, pairs)

    def block(self, rows):
        """The model of the users in a slice, on the same storage: user parameters are views, item parameters are shared."""
        part = object.__new__(type(self))
        nn.Module.__init__(part)
        for name, tensor in (*self.named_parameters(), *self.named_buffers()):
            if name.startswith("user_"):
                tensor = nn.Parameter(tensor.detach()[rows])
            setattr(part, name, tensor)
        return part


class BiasedMF(PlainMF):
    r"""Biased matrix factorization, :math:`s_{ui} = \mu + b_u + b_i + p_u \cdot q_i`.

    Parameters
    ----------
    n_users, n_items, n_factors : int
        Sizes.
    mean : float, default=0.0
        The constant :math:`\mu`; a buffer, not trained.
    init_std : float, default=0.1
        Standard deviation of a row's random start, ``init_std / sqrt(n_factors)`` an entry; biases start at zero.
    generator : torch.Generator, optional
        A CPU generator.
    dtype : torch.dtype, default=torch.float32

    Examples
    --------
    >>> import torch
    >>> from sk_torchmf.nn import BiasedMF
    >>> model = BiasedMF(n_users=3, n_items=4, n_factors=2, mean=3.5, init_std=0.0)
    >>> model(torch.tensor([0]), torch.tensor([3]))
    tensor([3.5000], grad_fn=<AddBackward0>)
    """

    def _plant(self, mean):
        like = self.user_factors.detach()
        self.user_biases = nn.Parameter(like.new_zeros(len(self.user_factors)))
        self.item_biases = nn.Parameter(like.new_zeros(len(self.item_factors)))
        self.register_buffer("global_mean", like.new_tensor(mean))

    def mean_rows(self, mean):
        """Rows p0 and q0 of shape (n_factors + 2,), as ``rows`` lays them out: no factor, no bias."""
        p0, q0 = (torch.zeros_like(side[0]) for side in self.rows())
        p0[-1] = q0[-2] = 1.0
        return p0.detach(), q0.detach()

    def rows(self):
        """User rows ``[P, b_u, 1]`` and item rows ``[Q, 1, b_i]``: the biases ride along as two more columns."""
        users = torch.cat([self.user_factors, self.user_biases[:, None], torch.ones_like(self.user_biases)[:, None]], 1)
        items = torch.cat([self.item_factors, torch.ones_like(self.item_biases)[:, None], self.item_biases[:, None]], 1)
        return users, items  # (n_users, k + 2), (n_items, k + 2)

    def forward(self, user, item):
        """Scores of shape (n,) for index tensors ``user`` and ``item`` of shape (n,)."""
        return super().forward(user, item) + self.user_biases[user] + self.item_biases[item] + self.global_mean

    def forward_pairs(self, pairs):
        """Scores of shape (n_pairs,) at the observed pairs, user-major, by the fused kernels."""
        factors = self.user_factors, self.item_factors
        return pair_dot(*factors, pairs, self.user_biases, self.item_biases) + self.global_mean


class Response(nn.Module):
    """A module of scores followed by the inverse link of its loss: predictions, in the units of the ratings.

    Parameters
    ----------
    scores : torch.nn.Module
    loss : PointwiseLoss
        Whose inverse link.
    limits : tuple of float, optional
        The lowest and the highest prediction.
    """

    def __init__(self, scores, loss, limits=None):
        super().__init__()
        self.scores, self.loss, self.limits = scores, loss, limits

    def forward(self, user, item, **features):
        """Predictions for index tensors ``user`` and ``item`` of shape (n,)."""
        response = self.loss.response(self.scores(user, item, **features))
        return response if self.limits is None else response.clamp(*self.limits)
