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
        The score to start from, which a factor carries; see ``mean_rows``.
    init_std : float, default=0.1
        Standard deviation of the random initial rows: that of an entry is ``init_std / sqrt(n_factors)``.
    generator : torch.Generator, optional
        A generator on the CPU. Initial factors are drawn there, so that all devices start from the same factors.
    dtype : torch.dtype, default=torch.float32
        The dtype of the parameters.

    Examples
    --------
    >>> import torch
    >>> from sk_torchmf.nn import PlainMF
    >>> model = PlainMF(n_users=3, n_items=4, n_factors=2)
    >>> model(torch.tensor([0, 2]), torch.tensor([3, 3])).shape
    torch.Size([2])
    """

    biased = False

    def __init__(self, n_users, n_items, n_factors, *, mean=0.0, init_std=0.1, generator=None, dtype=torch.float32):
        super().__init__()
        shapes = (n_users, n_factors), (n_items, n_factors)
        users, items = (
            torch.randn(s, generator=generator, dtype=dtype, device="cpu").mul_(init_std / n_factors**0.5) for s in shapes
        )
        self.user_factors, self.item_factors = nn.Parameter(users), nn.Parameter(items)
        self._plant(float(mean))

    def _plant(self, mean):
        p0, q0 = self.mean_rows(mean)
        with torch.no_grad():
            self.user_factors.add_(p0)
            self.item_factors.add_(q0)

    def mean_rows(self, mean):
        """Make the rows to which rows without ratings shrink; their product is the mean.

        Column 0 holds the square root of the mean's size. A row can shift all its scores only along a direction in which the other
        side's mean row is not zero, so where the mean is near zero each side starts with a direction of its own.

        Parameters
        ----------
        mean : float
            The score of an unknown pair.

        Returns
        -------
        p0 : Tensor of shape (n_factors,)
            The user row.
        q0 : Tensor of shape (n_factors,)
            The item row.
        """
        p0, q0 = (factors.detach().new_zeros(factors.shape[1]) for factors in (self.user_factors, self.item_factors))
        p0[0] = max(abs(mean), 1.0) ** 0.5
        q0[0] = mean / p0[0]
        if abs(mean) < 0.5 and len(q0) > 1:
            q0[1] = 1.0
        return p0, q0

    def rows(self):
        """Return the rows whose inner products are the scores.

        Returns
        -------
        users : Parameter of shape (n_users, n_factors)
            The user factors themselves.
        items : Parameter of shape (n_items, n_factors)
            The item factors themselves.
        """
        return self.user_factors, self.item_factors

    def forward(self, user, item):
        """Score pairs.

        Parameters
        ----------
        user : Tensor of shape (n,), int64
            Row numbers of users.
        item : Tensor of shape (n,), int64
            Row numbers of items.

        Returns
        -------
        Tensor of shape (n,)
            A score for each pair.
        """
        return (self.user_factors[user] * self.item_factors[item]).sum(-1)

    def forward_pairs(self, pairs):
        """Score the observed pairs, by the fused kernels.

        Parameters
        ----------
        pairs : Pairs
            Which pairs, planned on the device of the parameters.

        Returns
        -------
        Tensor of shape (n_pairs,)
            Scores in user-major order.
        """
        return pair_dot(self.user_factors, self.item_factors, pairs)

    def block(self, rows):
        """Make the model of some of the users, which shares the storage of this one.

        Parameters
        ----------
        rows : slice
            The row numbers of these users.

        Returns
        -------
        PlainMF or BiasedMF
            A module of the same class. Its user parameters are views of those of this module, and its item parameters are the same.
        """
        part = object.__new__(type(self))
        nn.Module.__init__(part)
        for name, parameter in self.named_parameters():
            setattr(part, name, nn.Parameter(parameter.detach()[rows]) if name.startswith("user_") else parameter)
        for name, buffer in self.named_buffers():
            part.register_buffer(name, buffer)
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
        A generator on the CPU.
    dtype : torch.dtype, default=torch.float32
        The dtype of the parameters.

    Examples
    --------
    >>> import torch
    >>> from sk_torchmf.nn import BiasedMF
    >>> model = BiasedMF(n_users=3, n_items=4, n_factors=2, mean=3.5, init_std=0.0)
    >>> model(torch.tensor([0]), torch.tensor([3]))
    tensor([3.5000], grad_fn=<AddBackward0>)
    """

    biased = True

    def _plant(self, mean):
        like = self.user_factors.detach()
        self.user_biases = nn.Parameter(like.new_zeros(len(self.user_factors)))
        self.item_biases = nn.Parameter(like.new_zeros(len(self.item_factors)))
        self.register_buffer("global_mean", like.new_tensor(mean))

    def mean_rows(self, mean):
        """Make the rows to which rows without ratings shrink, in the layout of ``rows``: all factors and biases are zero.

        Parameters
        ----------
        mean : float
            Not used: here the constant carries the mean.

        Returns
        -------
        p0 : Tensor of shape (n_factors + 2,)
            The user row.
        q0 : Tensor of shape (n_factors + 2,)
            The item row.
        """
        p0, q0 = (side.detach().new_zeros(side.shape[1]) for side in self.rows())
        p0[-1] = q0[-2] = 1.0
        return p0, q0

    def rows(self):
        """Return the rows whose inner products are the scores less the constant.

        Returns
        -------
        users : Tensor of shape (n_users, n_factors + 2)
            ``[P, b_u, 1]``: the biases ride along as two more columns.
        items : Tensor of shape (n_items, n_factors + 2)
            ``[Q, 1, b_i]``.
        """
        users = torch.cat([self.user_factors, self.user_biases[:, None], torch.ones_like(self.user_biases)[:, None]], 1)
        items = torch.cat([self.item_factors, torch.ones_like(self.item_biases)[:, None], self.item_biases[:, None]], 1)
        return users, items  # (n_users, k + 2), (n_items, k + 2)

    def forward(self, user, item):
        """Score pairs.

        Parameters
        ----------
        user : Tensor of shape (n,), int64
            Row numbers of users.
        item : Tensor of shape (n,), int64
            Row numbers of items.

        Returns
        -------
        Tensor of shape (n,)
            A score for each pair.
        """
        return super().forward(user, item) + self.user_biases[user] + self.item_biases[item] + self.global_mean

    def forward_pairs(self, pairs):
        """Score the observed pairs, by the fused kernels.

        Parameters
        ----------
        pairs : Pairs
            Which pairs, planned on the device of the parameters.

        Returns
        -------
        Tensor of shape (n_pairs,)
            Scores in user-major order.
        """
        factors = self.user_factors, self.item_factors
        return pair_dot(*factors, pairs, self.user_biases, self.item_biases) + self.global_mean


class Response(nn.Module):
    """A module of scores followed by the inverse link of its loss: predictions, in the units of the ratings.

    Parameters
    ----------
    scores : torch.nn.Module
        ``forward(user, item)`` gives scores.
    loss : PointwiseLoss
        The loss whose inverse link is applied.
    limits : tuple of float, optional
        The lowest and the highest prediction.

    Examples
    --------
    >>> import torch
    >>> from sk_torchmf.nn import PlainMF, Response, poisson
    >>> scores = PlainMF(n_users=3, n_items=4, n_factors=2, mean=2.0, init_std=0.0)
    >>> user, item = torch.tensor([0, 2]), torch.tensor([3, 3])
    >>> Response(scores, poisson)(user, item).detach()  # exp(2)
    tensor([7.3891, 7.3891])
    >>> Response(scores, poisson, limits=(0.0, 5.0))(user, item).detach()
    tensor([5., 5.])
    """

    def __init__(self, scores, loss, limits=None):
        super().__init__()
        self.scores, self.loss, self.limits = scores, loss, limits

    def forward(self, user, item, **features):
        """Predict ratings.

        Parameters
        ----------
        user : Tensor of shape (n,), int64
            Row numbers of users.
        item : Tensor of shape (n,), int64
            Row numbers of items.
        **features
            Passed on to the module of scores.

        Returns
        -------
        Tensor of the shape of the scores
            Predictions within the limits.
        """
        response = self.loss.response(self.scores(user, item, **features))
        return response if self.limits is None else response.clamp(*self.limits)
