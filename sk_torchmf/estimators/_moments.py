"""An optimizer's state as fitted state: NumPy, a row for every id, those of new ids zero."""

import numpy as np
import torch


def to_numpy(moments, places, shape):
    """Moments of a module of some users and items as arrays over all of them.

    Parameters
    ----------
    moments : dict of str to dict of str to Tensor or float
        By parameter, whose name begins with ``user`` or ``item``.
    places : tuple of ndarray
        Row numbers of the module's users and items.
    shape : tuple of int
        How many there are.
    """
    found: dict[str, dict] = {}
    for name, gathered in moments.items():
        side = name.startswith("item")
        found[name] = {}
        for key, value in gathered.items():
            if isinstance(value, torch.Tensor):
                rows = value.detach().cpu().numpy()
                value = np.zeros((shape[side], *rows.shape[1:]), rows.dtype)
                value[places[side]] = rows
            found[name][key] = value
    return found


def from_numpy(state, growth, places, module):
    """The moments of a larger module, as ``to_numpy`` gave those of the smaller one."""
    found: dict[str, dict] = {}
    for name, gathered in state.items():
        side, parameter = name.startswith("item"), getattr(module, name)
        found[name] = {}
        for key, value in gathered.items():
            if isinstance(value, np.ndarray):
                full = np.zeros((growth.shape[side], *value.shape[1:]), value.dtype)
                full[(growth.user_place, growth.item_place)[side]] = value
                value = torch.from_numpy(full[places[side]]).to(parameter)
            found[name][key] = value
    return found
