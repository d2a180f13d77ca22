"""Where training goes on from: the rows of ids that were there before move to their new places. Knows shapes, no model."""

from dataclasses import dataclass

import numpy as np
import torch

from sk_torchmf.inputs.labels import lookup


@dataclass(frozen=True)
class Codes:
    """Where the ids of a fit come from.

    Attributes
    ----------
    users, items : ndarray of shape (n_users,) and (n_items,), int64
        For each row its number in the earlier state, -1 for a new one.
    sizes : tuple of int
        Numbers of users and items in the earlier state.
    """

    users: np.ndarray
    items: np.ndarray
    sizes: tuple[int, int]

    @property
    def shape(self):
        """Numbers of users and items."""
        return len(self.users), len(self.items)

    def move(self, sides, rest=0):
        """Old and new positions along a dimension of users (0), items (1) or one after the other, with what follows them."""
        codes, start = [], 0
        for side in sides:
            code = (self.users, self.items)[side]
            codes.append(np.where(code < 0, -1, code + start))
            start += self.sizes[side]
        code = np.concatenate([*codes, np.arange(start, start + rest)])
        to = np.flatnonzero(code >= 0)
        return torch.from_numpy(code[to]), torch.from_numpy(to)


def regrow(old, new, codes):
    """Fill the rows of a fresh state with those of an earlier one, in place, at their new places.

    Parameters
    ----------
    old, new : dict of dict
        Under ``"user"`` and ``"item"`` Tensors with a row for each of them. Rows of ids that ``old`` does not have stay as ``new``
        has them, as do tensors that one of the two has not: of a model with biases go on the factors alone where it has none now.
    codes : Codes
    """
    for number, side in enumerate(("user", "item")):
        for name in old[side].keys() & new[side].keys():
            move_rows(old[side][name], new[side][name], {0: codes.move([number])})


def move_rows(old, new, move):
    """Copy blocks of an old tensor into a new one, in place.

    Parameters
    ----------
    old, new : Tensor
        Of the same number of dimensions.
    move : dict of int to tuple of Tensor
        For each dimension that differs the old positions and the new ones.
    """
    with torch.no_grad():
        value = old.to(new)
        for d, (source, _) in move.items():
            value = value.index_select(d, source.to(new.device))
        index = [slice(None)] * new.ndim
        many = len(move) > 1
        for at, (d, (_, to)) in enumerate(move.items()):
            index[d] = to.view([-1 if many and other == at else 1 for other in range(len(move))] if many else -1).to(new.device)
        new[tuple(index)] = value


def rows_of(users, parts):
    """Find the rows of users among what other processes had of theirs.

    Parameters
    ----------
    users : ndarray of shape (n_users,)
        Distinct labels.
    parts : iterable of (ndarray of shape (n,), dict of dict of Tensor or tuple)
        Labels, and tensors with a row for each or, where each has any number of rows, tuples of whose each row is, a number, and
        these; at least one part, and no user in two. Parts that are not needed are not asked for.

    Returns
    -------
    dict of dict of Tensor or tuple
        Likewise, of ``users``.
    """
    found, left = None, len(users)
    for labels, state in parts:
        if found is None:
            found = {name: {key: _room_for(rows, len(users)) for key, rows in own.items()} for name, own in state.items()}
        order = np.argsort(labels, kind="stable")
        place = lookup(users, labels[order], "user")
        known = place >= 0
        source, to = torch.from_numpy(order[place[known]]), torch.from_numpy(np.flatnonzero(known))
        to_of = torch.full((len(labels),), -1, device="cpu")
        to_of[source] = to
        for name, own in state.items():
            for key, rows in own.items():
                if isinstance(rows, tuple):
                    found[name][key] = _with_more(found[name][key], to_of[rows[0]], rows[1])
                else:
                    found[name][key][to] = rows[source]
        left -= len(to)
        if left == 0:
            return found
    raise ValueError(f"{left} of {len(users)} users have no rows in it")


def _room_for(rows, n_users):
    """What the rows of so many users are put into."""
    return (rows[0][:0], rows[1][:0]) if isinstance(rows, tuple) else rows.new_zeros((n_users, *rows.shape[1:]))


def _with_more(found, owner, rows):
    """What was found of rows that users have any number of, and those of a part; -1 owns what is not looked for."""
    known = owner >= 0
    return torch.cat([found[0], owner[known]]), torch.cat([found[1], rows[known]])


def find_moves(old, new, codes, build):
    """Find how a module's tensors go over to another module, for more ids; see ``find_sides``.

    Returns
    -------
    dict of str to dict
        What ``move_rows`` takes, by name.
    """
    sides = find_sides(old, new, codes, build)
    return {name: {d: codes.move(*held) for d, held in dims.items()} for name, dims in sides.items()}


def find_sides(old, new, codes, build):
    """Find which dimensions of a module's tensors hold ids.

    Parameters
    ----------
    old, new : dict of str to Tensor
        Parameters and buffers of the earlier module and of a fresh one.
    codes : Codes
    build : callable
        Makes the tensors of a module for (n_users, n_items): those for one more of either tell which dimensions hold which ids.

    Returns
    -------
    dict of str to dict
        By name, for each dimension that holds ids: those of users (0), items (1) or one after the other, and how many places follow
        them.
    """
    shape, probes = codes.shape, []
    for more in ((shape[0] + 1, shape[1]), (shape[0], shape[1] + 1)):
        try:
            probes.append({name: tensor.shape for name, tensor in build(*more).items()})
        except Exception:  # a module of its own fixed size: then that is how many there are
            probes.append({})
    found: dict[str, dict] = {}
    for name, tensor in new.items():
        if name not in old or old[name].ndim != tensor.ndim:
            raise ValueError(f"module: {name} was not there, or of another shape, when it was trained. Use fit from scratch.")
        found[name] = {}
        for d, size in enumerate(tensor.shape):
            sides = [
                at
                for at, probe in enumerate(probes)
                if (probe[name][d] != size if name in probe else size == shape[at] and old[name].shape[d] == codes.sizes[at])
            ]
            rest = size - sum(shape[at] for at in sides)
            if rest < 0 or rest != old[name].shape[d] - sum(codes.sizes[at] for at in sides):
                raise ValueError(
                    f"module: {name} has shape {tuple(tensor.shape)} and had {tuple(old[name].shape)}, of which users and "
                    "items account for another part. Leave the module's own sizes as they were, or fit from scratch."
                )
            if sides:
                found[name][d] = sides, rest
    return found


def fill_new(tensors, sides, codes, observed):
    """Make the rows of new ids the mean of those of ids that were observed, in place; whole numbers stay as they are.

    Parameters
    ----------
    tensors : dict of str to Tensor
        Of a module whose other rows have been moved.
    sides : dict
        See ``find_sides``.
    codes : Codes
    observed : tuple of ndarray of bool
        Which of the users and of the items.
    """
    for name, dims in sides.items():
        for d, (held, _) in dims.items():
            start = 0
            for side in held:
                code = (codes.users, codes.items)[side]
                new = torch.from_numpy(np.flatnonzero(code < 0))
                known = torch.from_numpy(np.flatnonzero(observed[side]))
                if len(new) and len(known) and tensors[name].is_floating_point():
                    mean = tensors[name].index_select(d, start + known).mean(d, keepdim=True)
                    tensors[name].index_copy_(d, start + new, mean.repeat_interleave(len(new), d))
                start += len(code)


def regrow_optimizer(state, trainer, scheduler, old, moves):
    """Fill an optimizer with what it had gathered, as ``gathered`` gives it, and the scheduler where there is one.

    Parameters
    ----------
    state : dict
    trainer : Trainer
        Of a fresh module.
    scheduler : LRScheduler or None
    old : dict of str to Tensor
        Of the earlier module.
    moves : dict
        See ``find_moves``.
    """
    optimizer = trainer.optimizer
    if state is None or state["kind"] != type(optimizer).__name__:
        return
    for name, parameter in trainer.named_parameters():
        begun = optimizer.state[parameter] if name in state["moments"] else {}
        for key, value in state["moments"].get(name, {}).items():
            if isinstance(value, np.ndarray):
                value = torch.from_numpy(value.copy())
                if value.ndim and value.is_floating_point():  # the step counts have no dimension, and a dtype of their own
                    value = value.to(parameter.dtype)
                if value.ndim and value.shape == old[name].shape:
                    grown = begun[key].clone() if key in begun else torch.zeros_like(parameter, dtype=value.dtype)
                    move_rows(value, grown, moves[name])
                    value = grown
            begun[key] = value
    if scheduler is not None and state["scheduler"] is not None:
        scheduler.load_state_dict(state["scheduler"])
        for group, rate in zip(optimizer.param_groups, state["rates"], strict=True):
            if rate is not None:
                group["lr"] = rate


def gathered(trainer, scheduler):
    """What an optimizer and a scheduler have gathered, as NumPy; None where its memory cannot grow (LBFGS).

    Returns
    -------
    dict or None
        The optimizer's ``kind``, its ``moments`` by the name of the parameter, the ``scheduler``'s state and the ``rates`` of the
        groups.
    """
    optimizer = trainer.optimizer
    if isinstance(optimizer, torch.optim.LBFGS):
        return None
    moments = {}
    for name, parameter in trainer.named_parameters():
        own = optimizer.state.get(parameter, {}).items()
        moments[name] = {
            key: value.detach().cpu().numpy().copy() if isinstance(value, torch.Tensor) else value for key, value in own
        }
    rates = [float(group["lr"]) if "lr" in group else None for group in optimizer.param_groups]
    kind = type(optimizer).__name__
    return {"kind": kind, "moments": moments, "scheduler": None if scheduler is None else scheduler.state_dict(), "rates": rates}
