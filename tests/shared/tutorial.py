"""Models as people write them: those of a 2017 tutorial on matrix factorization with autograd, and what grew out of them."""

import torch
from torch import nn

from sk_torchmf.nn import PlainMF


class Plain(nn.Module):
    def __init__(self, n_users, n_items, n_factors=20, sparse=True):
        super().__init__()
        self.user_factors = nn.Embedding(n_users, n_factors, sparse=sparse)
        self.item_factors = nn.Embedding(n_items, n_factors, sparse=sparse)

    def forward(self, user, item):
        return (self.user_factors(user) * self.item_factors(item)).sum(1)


class Biased(Plain):
    def __init__(self, n_users, n_items, n_factors=20, sparse=True):
        super().__init__(n_users, n_items, n_factors, sparse)
        self.user_biases = nn.Embedding(n_users, 1, sparse=sparse)
        self.item_biases = nn.Embedding(n_items, 1, sparse=sparse)

    def forward(self, user, item):
        pred = self.user_biases(user) + self.item_biases(item)
        pred += (self.user_factors(user) * self.item_factors(item)).sum(dim=1, keepdim=True)
        return pred  # (n, 1)


class Squeezed(Biased):
    """Loses its only axis at a last batch of one."""

    def forward(self, user, item):
        return super().forward(user, item).squeeze()


class Dropout(Biased):
    def __init__(self, n_users, n_items, n_factors=20, p=0.1):
        super().__init__(n_users, n_items, n_factors, sparse=False)
        self.dropout = nn.Dropout(p)

    def forward(self, user, item):
        pred = self.user_biases(user) + self.item_biases(item)
        return pred + (self.dropout(self.user_factors(user)) * self.item_factors(item)).sum(dim=1, keepdim=True)


class Penalised(Plain):
    def __init__(self, n_users, n_items, n_factors=20, alpha=0.01):
        super().__init__(n_users, n_items, n_factors, sparse=False)
        self.alpha = alpha

    def penalty(self):
        return self.alpha * sum(parameter.square().sum() for parameter in self.parameters())


class Parameters(nn.Module):
    """Without embeddings: bare parameters, and a global mean that is learned."""

    def __init__(self, n_users, n_items, n_factors=20):
        super().__init__()
        self.P = nn.Parameter(0.3 * torch.randn(n_users, n_factors))
        self.Q = nn.Parameter(0.3 * torch.randn(n_items, n_factors))
        self.mean = nn.Parameter(torch.zeros(()))

    def forward(self, user, item):
        return self.mean + (self.P[user] * self.Q[item]).sum(1)


class Fused(PlainMF):
    """Both roads: ``forward`` and ``forward_pairs``."""

    def __init__(self, n_users, n_items, n_factors=20):
        super().__init__(n_users, n_items, n_factors, mean=1.0, init_std=1.0)


class Weekly(Biased):
    """Item biases that depend on the day, a category, and a slope in a number."""

    def __init__(self, n_users, n_items, n_day, n_factors=4):
        super().__init__(n_users, n_items, n_factors, sparse=False)
        self.day_biases = nn.Embedding(n_day, 1)
        self.slope = nn.Parameter(torch.zeros(()))

    def forward(self, user, item, day, hour):
        return super().forward(user, item)[:, 0] + self.day_biases(day)[:, 0] + self.slope * hour
