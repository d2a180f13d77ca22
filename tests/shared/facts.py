"""What a value holds, in a form by which two moments can be compared."""

import numpy as np
import scipy.sparse as sp
import torch


def facts(value):
    """What a value of any type holds: equal for two moments between which nothing in it has changed."""
    if isinstance(value, type):
        return repr(value)
    if isinstance(value, np.ndarray):
        content = [repr(one) for one in value.ravel().tolist()] if value.dtype.kind in "OV" else value.tobytes()
        return value.dtype.str, value.shape, content
    if sp.issparse(value):  # less what it remembers of its own order
        parts = {name: part for name, part in vars(value).items() if isinstance(part, (np.ndarray, tuple, dict))}
        return type(value).__name__, value.shape, facts(parts)
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.detach().cpu().numpy().tobytes()
    if isinstance(value, torch.nn.Module):
        return type(value).__name__, facts(dict(value.state_dict())), value.training
    if isinstance(value, dict):
        return {repr(name): facts(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value).__name__, [facts(part) for part in value]
    if hasattr(value, "user_ids"):
        return facts(vars(value))
    if hasattr(value, "iloc"):
        return str(getattr(value, "dtypes", None)), repr(value.index), facts(value.to_numpy(dtype=object))
    if hasattr(value, "rows") and hasattr(value, "schema"):
        return repr(value.schema), repr(value.rows())
    if hasattr(value, "to_numpy") and hasattr(value, "dtype"):  # a Timestamp has the one alone
        return str(value.dtype), repr(list(value))
    if isinstance(value, np.random.RandomState):  # is there to be drawn from
        return "RandomState"
    return repr(value)
