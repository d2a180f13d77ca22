"""An optimizer's state as fitted state: NumPy, a row for every id, those of new ids zero."""

import numpy as np
import torch

ROLES = ("user", "item")


def to_numpy(moments, places, shape):
    """Moments of a module of some users and items as arrays over all of them.

    Parameters
    ----------
    moments : dict
        As ``Solver.moments`` gives them.
    places : tuple of ndarray
        Row numbers of the module's users and items.
    shape : tuple of int
        How many there are.
    """
    found: dict[str, dict] = {"rest": dict(moments["rest"])}
    for role, place, n in zip(ROLES, places, shape, strict=True):
        found[role] = {}
        for key, value in moments[role].items():
            rows = value.detach().cpu().numpy()
            found[role][key] = np.zeros((n, *rows.shape[1:]), rows.dtype)
            found[role][key][place] = rows
    return found


def from_numpy(state, growth, places, module):
    """The moments of a larger module, as ``to_numpy`` gave those of the smaller one."""
    found: dict[str, dict] = {"rest": dict(state["rest"])}
    for role, place, n, moved in zip(ROLES, places, growth.shape, (growth.user_place, growth.item_place), strict=True):
        found[role] = {}
        for key, value in state[role].items():
            full = np.zeros((n, *value.shape[1:]), value.dtype)
            full[moved] = value
            found[role][key] = torch.from_numpy(full[place]).to(getattr(module, f"{role}_factors"))
    return found
