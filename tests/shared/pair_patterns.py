"""Pairs in patterns of every kind, and modules with every parameter away from zero."""

import numpy as np
import pytest
import torch

from sk_torchmf.nn import BiasedMF, PlainMF


def draw_pairs(n_users, n_items, n_pairs, seed=0):
    """User and item numbers drawn with repetition; users 1 and n_users - 1, items 0 and 2 stay empty where there is room."""
    rng = np.random.default_rng(seed)
    users = np.setdiff1d(np.arange(n_users), [1, n_users - 1]) if n_users > 3 else np.arange(n_users)
    items = np.setdiff1d(np.arange(n_items), [0, 2]) if n_items > 3 else np.arange(n_items)
    return rng.choice(users, n_pairs), rng.choice(items, n_pairs)


PATTERNS = {
    "one pair": (1, 1, 1),
    "one user": (1, 9, 6),
    "one item": (9, 1, 6),
    "duplicates and empty rows": (12, 9, 40),
    "more pairs than cells": (3, 2, 25),
    "more pairs than cells with empty rows": (5, 4, 60),
    "thousands of pairs": (60, 50, 2000),
    "no pairs": (4, 3, 0),
}


def user_major(pairs):
    """The (user, item) numbers of the plan in its own order, int64 tensors."""
    return pairs.users.long(), pairs.columns.long()


def random_rows(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def build(kind, n_users, n_items, dtype=torch.float64):
    """A module with every parameter away from zero."""
    module = kind(n_users, n_items, 4, mean=1.7, generator=torch.Generator().manual_seed(0), dtype=dtype)
    with torch.no_grad():
        for at, parameter in enumerate(module.parameters()):
            parameter += random_rows(*parameter.shape, dtype=dtype, seed=at)
    return module


MODULES = pytest.mark.parametrize("kind", [PlainMF, BiasedMF])


def check_forward_equals_forward_pairs(module, pairs):
    slope = random_rows(pairs.n_pairs, seed=5).to(pairs.device)
    results = []
    for score in (module(*user_major(pairs)), module.forward_pairs(pairs)):
        module.zero_grad()
        score.backward(slope)
        results.append([score.detach(), *(parameter.grad for parameter in module.parameters())])
    for gather, fused in zip(*results, strict=True):
        torch.testing.assert_close(fused, gather, rtol=1e-10, atol=1e-10)  # sums of at most 2,000 terms in float64
