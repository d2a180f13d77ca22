"""Minimise an objective with one of torch's own optimizers, on all pairs at once or on blocks. Knows no estimator."""

import math
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch

from sk_torchmf.solvers.base import Solver, by_name, by_side, copy_state, fill, tensors_of

OPTIMIZERS = {
    "adam": torch.optim.Adam,
    "adagrad": torch.optim.Adagrad,
    "sgd": torch.optim.SGD,
    "lbfgs": torch.optim.LBFGS,
}
OPTIONS: dict[str, dict] = {
    "sgd": {"momentum": 0.9, "nesterov": True},
    "lbfgs": {"max_iter": 5, "max_eval": 125, "line_search_fn": "strong_wolfe", "tolerance_change": 0, "tolerance_grad": 0},
}


def default_learning_rate(optimizer, objective, module):
    """A step size that suits the standardised objective; for SGD a tenth of the inverse of its largest curvature at the start."""
    if optimizer == "sgd":
        size = objective.plan.largest(max(_largest(ridge.mean.square().sum(-1)) for ridge in objective.ridges))
        return 0.1 / (_largest_curvature(objective, module) * (1 + size))
    return {"adam": 0.1, "adagrad": 0.2, "lbfgs": 1.0}[optimizer]


def _largest_curvature(objective, module):
    """Of all users and items the largest sum of their pairs' curvatures, halved."""
    plan, of_users = objective.plan, 0.0
    for part, _, span, block in objective.parts(module):
        bend = objective.loss.curvature(part.forward_pairs(block).detach(), objective.rating[span]) / 2
        own, of_items = block.sums(bend if objective.weight is None else bend * objective.weight[span])
        of_users = max(of_users, _largest(own))
        plan.add(of_items)
    return max(plan.largest(of_users), float(plan.total()[0].max()))


def _largest(values):
    """The largest of values >= 0, of which a process may have none."""
    return float(values.max()) if values.numel() else 0.0


def _is_like(value, parameter):
    """Whether what an optimizer has gathered has a number for each of a parameter's, and so rows of users or items."""
    return isinstance(value, torch.Tensor) and value.shape == parameter.shape


class Minimiser(Solver):
    """Train a module in place.

    Parameters
    ----------
    module : PlainMF or BiasedMF
        Its parameters are the start and the result.
    objective : Objective
        What to minimise.
    optimizer : {"adam", "adagrad", "sgd", "lbfgs"}
        One of torch.optim; sgd runs with Nesterov momentum 0.9, lbfgs with a strong Wolfe line search. An epoch of lbfgs is a group
        of five iterations (with one a call torch's line search gets stuck).
    learning_rate : float, optional
        By default one that suits the standardised objective.
    batch_size : int, optional
        About how many pairs a step takes (whole users); all of them by default. Not for lbfgs, nor for several processes.
    generator : torch.Generator, optional
        Shuffles the blocks.

    Notes
    -----
    The loss of an epoch is the objective at its start (summed over the steps where there are blocks), or NaN where a parameter is
    no longer finite. Where rows have features, an epoch ends with some steps of their coefficients' ridge regression. The solution
    has no posterior; its prior is the objective's ridge about the mean user.
    """

    epoch = "epoch"
    max_iter = 50

    def __init__(self, module, objective, optimizer, *, learning_rate=None, batch_size=None, generator=None):
        self.module, self.objective, self.generator = module, objective, generator
        if learning_rate is None:
            learning_rate = default_learning_rate(optimizer, objective, module)
        self.learning_rate = learning_rate
        self.modules = [module]
        self.parts: Any = [(slice(None), objective)]
        if batch_size is not None and batch_size < objective.plan.n_pairs:
            self.parts = objective.blocks(batch_size)
            self.modules = [module.block(rows) for rows in self.parts.users]
        self.parameters = list({id(p): p for block in self.modules for p in block.parameters()}.values())
        with torch.device("cpu"):  # where optimizers count their steps, whatever the default device
            self.optimizer = OPTIMIZERS[optimizer](self.parameters, lr=learning_rate, **OPTIONS.get(optimizer, {}))

    def step(self):
        n = len(self.parts)
        order = torch.randperm(n, generator=self.generator, device="cpu").tolist() if n > 1 else [0]
        with nullcontext() if self.optimizer.state else torch.device("cpu"):  # likewise; the first epoch makes what is missing
            value = sum(float(self.optimizer.step(partial(self._closure, at))) for at in order)
        self.objective.regress(self.module)
        return {"loss": value if all(bool(p.isfinite().all()) for p in self.parameters) else math.nan}

    def _closure(self, at):
        block = self.modules[at]
        value, gradients = self.parts[at][1].gradients(block)
        self.optimizer.zero_grad()  # to None: rows of other blocks are left alone, their moments too
        for name, parameter in block.named_parameters():
            parameter.grad = gradients[name]
        return value

    def solution(self):
        return self.objective.solution(self.module)

    def state(self):
        moments: dict[str, torch.Tensor] = {}
        kept = self.optimizer.state_dict()
        if self.modules == [self.module]:  # else what is gathered is of blocks, not of all users
            for name, parameter in self.module.named_parameters():
                own = self.optimizer.state.get(parameter, {})
                moments |= {f"{name} {key}": value for key, value in own.items() if _is_like(value, parameter)}
            others = enumerate(self.module.parameters())
            kept["state"] = {
                at: {key: value for key, value in kept["state"][at].items() if not _is_like(value, parameter)}
                for at, parameter in others
                if at in kept["state"]
            }
        state = by_side(tensors_of(self.module) | moments)
        state["rest"] |= self.objective.state() | {"optimizer": kept}
        if self.generator is not None:
            state["rest"]["generator"] = self.generator.get_state()
        return state

    def restore(self, state):
        values, kept = by_name(state), copy_state(state["rest"]["optimizer"])
        fill(tensors_of(self.module), values)
        self.objective.restore(state["rest"])
        for at, (name, _) in enumerate(self.module.named_parameters()):
            begins = f"{name} "
            own = {key.removeprefix(begins): value.clone() for key, value in values.items() if key.startswith(begins)}
            if own:
                kept["state"][at] = kept["state"].get(at, {}) | own
        self.optimizer.load_state_dict(kept)
        if self.generator is not None:
            self.generator.set_state(state["rest"]["generator"])

    def advice(self):
        return f" (learning_rate={self.learning_rate:.3g}). Lower learning_rate or raise alpha."
