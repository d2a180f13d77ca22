"""How a fresh module of other sizes takes over what a trained one and its optimizer have learned. Knows shapes, not models."""

from dataclasses import dataclass

import numpy as np
import torch

from sk_torchmf.solvers.base import tensors_of


@dataclass(frozen=True)
class Learned:
    """What training goes on from.

    Attributes
    ----------
    module : torch.nn.Module
    optimizer : dict or None
        As ``optimizer_state`` gives it.
    sizes : tuple of int
        Numbers of users and items of the module.
    user_code, item_code : ndarray of shape (n_users,) and (n_items,), int64
        For each new row the number of the old one, -1 for none.
    """

    module: torch.nn.Module
    optimizer: dict | None
    sizes: tuple[int, int]
    user_code: np.ndarray
    item_code: np.ndarray

    def hand_over(self, trainer, scheduler, build):
        """Fill a trainer's fresh module, its optimizer and, where the state has one, the scheduler.

        Parameters
        ----------
        trainer : Trainer
        scheduler : LRScheduler or None
        build : callable
            Makes a module for (n_users, n_items): two more of them tell which dimensions are users and items.
        """
        old, new = tensors_of(self.module), tensors_of(trainer.module)
        moves = self._moves(old, new, build)
        for name, tensor in new.items():
            _move(old[name], tensor, moves[name])
        if self.optimizer is not None and self.optimizer["kind"] == type(trainer.optimizer).__name__:
            _resume(self.optimizer, trainer, scheduler, old, moves)

    def _moves(self, old, new, build):
        """For each tensor the dimensions that hold ids: {name: {dimension: (from, to)}}."""
        shape = len(self.user_code), len(self.item_code)
        probes = []
        for more in ((shape[0] + 1, shape[1]), (shape[0], shape[1] + 1)):
            try:
                probes.append({name: tensor.shape for name, tensor in tensors_of(build(*more)).items()})
            except Exception:  # a module of its own fixed size: then that is how many there are
                probes.append({})
        moves: dict[str, dict] = {}
        for name, tensor in new.items():
            if name not in old or old[name].ndim != tensor.ndim:
                raise ValueError(f"module: {name} was not there, or of another shape, when it was trained. Use fit from scratch.")
            moves[name] = {}
            for d, size in enumerate(tensor.shape):
                sides = [
                    at
                    for at, probe in enumerate(probes)
                    if (probe[name][d] != size if name in probe else size == shape[at] and old[name].shape[d] == self.sizes[at])
                ]
                rest = size - sum(shape[at] for at in sides)
                if rest < 0 or rest != old[name].shape[d] - sum(self.sizes[at] for at in sides):
                    raise ValueError(
                        f"module: {name} has shape {tuple(tensor.shape)} and had {tuple(old[name].shape)}, of which users and "
                        "items account for another part. Leave the module's own sizes as they were, or fit from scratch."
                    )
                if sides:
                    moves[name][d] = self._move_of(sides, rest)
        return moves

    def _move_of(self, sides, rest):
        """Old and new positions along a dimension of users, items or one after the other, with what follows them."""
        codes, start = [], 0
        for at in sides:
            code = (self.user_code, self.item_code)[at]
            codes.append(np.where(code < 0, -1, code + start))
            start += self.sizes[at]
        code = np.concatenate([*codes, np.arange(start, start + rest)])
        to = np.flatnonzero(code >= 0)
        return torch.from_numpy(code[to]), torch.from_numpy(to)


def _resume(state, trainer, scheduler, old, moves):
    optimizer = trainer.optimizer
    for name, parameter in trainer.module.named_parameters():
        begun = optimizer.state[parameter] if name in state["moments"] else {}
        for key, value in state["moments"].get(name, {}).items():
            if isinstance(value, np.ndarray):
                value = torch.from_numpy(value.copy())
                if value.ndim and value.shape == old[name].shape:
                    grown = begun[key].clone() if key in begun else torch.zeros_like(parameter, dtype=value.dtype)
                    _move(value, grown, moves[name])
                    value = grown
            begun[key] = value
    if scheduler is not None and state["scheduler"] is not None:
        scheduler.load_state_dict(state["scheduler"])
        for group, rate in zip(optimizer.param_groups, state["rates"], strict=True):
            if rate is not None:
                group["lr"] = rate


def _move(old, new, move):
    """Copy the old blocks into a new tensor, in place."""
    with torch.no_grad():
        value = old.to(new)
        for d, (source, _) in move.items():
            value = value.index_select(d, source.to(new.device))
        index = [slice(None)] * new.ndim
        many = len(move) > 1
        for at, (d, (_, to)) in enumerate(move.items()):
            index[d] = to.view([-1 if many and other == at else 1 for other in range(len(move))] if many else -1).to(new.device)
        new[tuple(index)] = value


def optimizer_state(trainer, scheduler):
    """The state of an optimizer and a scheduler as NumPy, None where its memory cannot grow (LBFGS).

    A dict of the optimizer's ``kind``, its ``moments`` by the name of the parameter, the ``scheduler``'s state and the ``rates`` of
    the groups.
    """
    optimizer = trainer.optimizer
    if isinstance(optimizer, torch.optim.LBFGS):
        return None
    moments = {}
    for name, parameter in trainer.module.named_parameters():
        gathered = optimizer.state.get(parameter, {}).items()
        moments[name] = {
            key: value.detach().cpu().numpy().copy() if isinstance(value, torch.Tensor) else value for key, value in gathered
        }
    rates = [float(group["lr"]) if "lr" in group else None for group in optimizer.param_groups]
    kind = type(optimizer).__name__
    return {"kind": kind, "moments": moments, "scheduler": None if scheduler is None else scheduler.state_dict(), "rates": rates}
