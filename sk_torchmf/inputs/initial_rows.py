"""The random rows that a fit starts from: the same whoever has a user, and in whatever order. Knows no solver."""

import numpy as np
import torch

from sk_torchmf.inputs.side_features import ROLES
from sk_torchmf.inputs.stable_hash import normal_rows, stable_hash
from sk_torchmf.solvers.base import by_side


def scatter(module, users, std, seed, dtype):
    """Add random rows to those of a module, in place, that are the same whichever process has a user and however many there are.

    Parameters
    ----------
    module : PlainMF or BiasedMF
    users : ndarray of shape (n_users,)
        The labels of its users. Its items have one numbering in all processes.
    std : float
        Standard deviation of the numbers.
    seed : int
    dtype : str
    """
    labels = users, np.arange(len(module.item_factors))
    with torch.no_grad():
        for at, (role, rows) in enumerate(zip(ROLES, (module.user_factors, module.item_factors), strict=True)):
            drawn = normal_rows(stable_hash(labels[at], role), rows.shape[1], 2 * seed + at, dtype)
            rows += std * torch.from_numpy(drawn)


def arrange(module, numbers):
    """Put the rows of a module's users, drawn in the order of their labels, into another order, in place.

    Parameters
    ----------
    module : PlainMF or BiasedMF
    numbers : ndarray of shape (n_users,), int
        Of the users that it is to have one after the other, numbers that are in the order of labels.
    """
    rank = torch.from_numpy(np.argsort(np.argsort(numbers)))
    with torch.no_grad():
        for values in by_side(dict(module.named_parameters()))["user"].values():
            values.copy_(values[rank])
