"""Train any module on batches, a step each. Knows torch's conventions, and neither the model nor estimators."""

import inspect
import math
import os
import threading
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sk_torchmf.solvers.base import Solver, copy_state, fill, tensors_of

TAKES_SPARSE = ("SGD", "Adagrad", "SparseAdam")
OF_LOSS = "loss__"  # what the names of a loss's own parameters begin with, beside those of the module
COMBINED = ("weight_decay", "momentum", "nesterov")  # their options that torch may refuse with sparse gradients


@dataclass
class Trainer:
    """What a step needs.

    Attributes
    ----------
    module : torch.nn.Module
        In training mode. Where it has a method ``penalty()``, what that returns is added to the loss of every step.
    loss : Criterion
        ``(score, rating, weight) -> `` a number to be minimised. Its own parameters are trained too.
    optimizer : torch.optim.Optimizer
    checked : bool
        Whether a first batch has shown that module and loss are sound.
    takes_closure : bool
        Whether the optimizer's step calls for the loss itself, as torch's own do.
    """

    module: torch.nn.Module
    loss: Any
    optimizer: torch.optim.Optimizer
    checked: bool = False
    takes_closure: bool = field(init=False)

    def __post_init__(self):
        self.takes_closure = "closure" in inspect.signature(self.optimizer.step).parameters

    def named_parameters(self):
        """Names and parameters of the module, then of the loss."""
        return named_parameters(self.module, self.loss)

    def tensors(self):
        """Parameters and buffers of the module and of the loss by name, detached."""
        found = tensors_of(self.module)
        own = None if self.loss is None else self.loss.own
        return found if own is None else found | {OF_LOSS + name: tensor for name, tensor in tensors_of(own).items()}

    def check(self, batch):
        """Refuse an unsound module or loss, by a batch that no step is taken on."""
        self._loss(batch).backward()
        self._check_gradients()
        self.optimizer.zero_grad()
        self.checked = True

    def step(self, batch):
        """Take one step; returns the loss before it, a tensor."""
        values: list[Tensor] = []
        inside = False

        def closure():
            nonlocal inside
            inside = True
            self.optimizer.zero_grad()
            value = self._backward(batch)
            values.append(value.detach())
            inside = False
            return value

        try:
            if self.takes_closure:
                self.optimizer.step(closure)
            else:
                closure()
                self.optimizer.step()
            return values[0]
        except RuntimeError as error:
            if inside or not ("sparse" in str(error) or "dense" in str(error)):  # the module's or the loss's own, or no memory
                raise
            raise ValueError(self._refused(error)) from error

    def n_pairs(self, batch):
        """How many pairs the last step was taken on, which was that of a batch."""
        return len(batch)

    def end_epoch(self):
        """An epoch has ended; nothing is to be done by one process."""

    def _backward(self, batch):
        """Find the gradients of the loss; the loss."""
        value = self._loss(batch)
        value.backward()
        if not self.checked:
            self._check_gradients()
            self.checked = True
        return value

    def _loss(self, batch):
        score = batch.score(self.module)
        value = self.loss(score, batch.rating, batch.weight)
        if not self.checked:
            self._check(score, value)
        penalty = getattr(self.module, "penalty", None)
        if not callable(penalty):
            return value
        penalty = penalty()
        if not self.checked and not (isinstance(penalty, float | int) or (isinstance(penalty, Tensor) and penalty.ndim == 0)):
            shape = tuple(penalty.shape) if isinstance(penalty, Tensor) else type(penalty).__name__
            raise ValueError(f"{type(self.module).__name__}.penalty() must return one number. Got {shape}.")
        return value + penalty

    def _check(self, score, value):
        name = type(self.module).__name__
        bad = int(score.isfinite().logical_not().sum())
        if bad:
            raise ValueError(f"module {name} returned nan or inf for {bad} of the first {len(score)} pairs, before any training.")
        if not isinstance(value, Tensor) or value.ndim:
            shape = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise ValueError(f'loss must reduce a batch to one number, as torch\'s do with reduction="mean". Got {shape}.')
        if not (score.requires_grad and value.requires_grad):
            raise ValueError(f"The loss has no gradient: the scores of {name}.forward do not depend on a trainable parameter.")

    def _check_gradients(self):
        """Refuse momentum of sparse gradients: torch takes it, and its buffer keeps every gradient there ever was."""
        for group in self.optimizer.param_groups:
            if group.get("momentum") and any(p.grad is not None and p.grad.is_sparse for p in group["params"]):
                raise ValueError(self._refused("its buffer would grow with every step"))

    def _refused(self, error):
        """What to say where the optimizer could not take the gradients it got."""
        name = type(self.optimizer).__name__
        sparse = any(p.grad is not None and p.grad.is_sparse for group in self.optimizer.param_groups for p in group["params"])
        error = str(error).rstrip(".")
        if not sparse:
            return f"optimizer={name} cannot take these gradients: {error}. Use Embedding(sparse=True) or another optimizer."
        used = {key: group[key] for group in self.optimizer.param_groups for key in COMBINED if group.get(key)}
        option = ", ".join(f"optimizer__{key}={value}" for key, value in used.items()) if name in TAKES_SPARSE else ""
        return (
            f"{option or f'optimizer={name}'} cannot be combined with the sparse gradients of Embedding(sparse=True): {error}. "
            "Use sparse=False, or SGD, Adagrad or SparseAdam without such options; a penalty can go into the module's penalty()."
        )


def named_parameters(module, loss):
    """Names and parameters of a module, then of a Criterion or None, as ``Trainer`` has them."""
    own = None if loss is None else loss.own
    return [*module.named_parameters(), *([] if own is None else ((OF_LOSS + name, p) for name, p in own.named_parameters()))]


class Epochs(Solver):
    """Train a module in place, a step a batch.

    Parameters
    ----------
    trainer : Trainer
    batches : iterable of Batch, or Hogwild
        Iterated once an epoch; or called once an epoch with the trainer, and returns the summed loss and the number of pairs.
    scheduler : torch.optim.lr_scheduler.LRScheduler, optional
        Takes a step after each epoch.
    generator : torch.Generator, optional
        What the batches draw from: a part of the state.
    random : private_random_state, optional
        Of torch's global generators, which dropout draws from, during the steps: a part of the state. By default they go on from
        where they are now.

    Notes
    -----
    The loss of an epoch is the mean over its pairs of the loss that each step started from. The solution is the module. What a
    module keeps elsewhere than in parameters and buffers is no part of the state. Which rows of a module are those of users is not
    known here, so all of the state is under ``rest``.
    """

    epoch = "epoch"

    def __init__(self, trainer, batches, *, scheduler=None, generator=None, random=None):
        self.trainer, self.batches, self.scheduler, self.generator = trainer, batches, scheduler, generator
        device = next((parameter.device for parameter in trainer.module.parameters() if parameter.is_cuda), torch.device("cpu"))
        self.random = private_random_state(None, device) if random is None else random
        self.n_epochs = 0

    def step(self):
        with self.random:
            return self._step()

    def _step(self):
        self.n_epochs += 1
        total, n = self.batches(self.trainer) if callable(self.batches) else one_pass(self.trainer, self.batches)
        if n == 0:
            raise ValueError(f"batches must be iterable again in every epoch. It yielded nothing in epoch {self.n_epochs}.")
        self.trainer.end_epoch()
        mean_loss = total / n
        if math.isfinite(mean_loss):
            if isinstance(self.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
                self.scheduler.step(mean_loss)
            elif self.scheduler is not None:
                self.scheduler.step()
        return {"loss": mean_loss}

    def solution(self):
        return self.trainer.module

    def state(self):
        rest = {"n_epochs": self.n_epochs, "module": self.trainer.tensors(), "random": self.random.states}
        rest["optimizer"] = self.trainer.optimizer.state_dict()
        if self.scheduler is not None:
            rest["scheduler"] = self.scheduler.state_dict()
        if self.generator is not None:
            rest["generator"] = self.generator.get_state()
        return {"user": {}, "item": {}, "rest": rest}

    def restore(self, state):
        rest = copy_state(state["rest"])
        self.n_epochs, self.random.states = rest["n_epochs"], rest["random"]
        fill(self.trainer.tensors(), rest["module"])
        self.trainer.optimizer.load_state_dict(rest["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(rest["scheduler"])
        if self.generator is not None:
            self.generator.set_state(rest["generator"])

    def advice(self):
        rates = sorted({group["lr"] for group in self.trainer.optimizer.param_groups if "lr" in group})
        shown = ", ".join(f"{float(rate):.3g}" for rate in rates)
        return f" (optimizer__lr={shown}). Lower optimizer__lr."

    def close(self):
        if callable(self.batches):
            self.batches.close()


class private_random_state:
    """torch's global generators in a state of their own for the length of a ``with``, and again where they were for the next.

    Outside they are as if nothing had been drawn within: for modules that draw their parameters or their dropout from them. There
    is one such state in a process at a time: a ``with`` waits until that of another thread has ended. What a thread draws from the
    generators without one meanwhile, it draws from that state.

    Parameters
    ----------
    seed : int or None
        What they start from; None for where they are now.
    device : torch.device
        CUDA's generator is meant too where this is a GPU.

    Attributes
    ----------
    states : list of Tensor
        Of the generators, CPU first, as the last ``with`` has left them.

    Examples
    --------
    >>> import torch
    >>> from sk_torchmf.solvers.minibatch import private_random_state
    >>> before = torch.get_rng_state()
    >>> with private_random_state(0, torch.device("cpu")) as random:
    ...     first = torch.rand(2)
    >>> with random:
    ...     second = torch.rand(2)
    >>> bool((torch.get_rng_state() == before).all())
    True
    >>> with private_random_state(0, torch.device("cpu")):
    ...     bool((torch.rand(4) == torch.cat([first, second])).all())
    True
    """

    _turn = threading.RLock()

    def __init__(self, seed, device):
        self.devices = [device] if device.type == "cuda" else []
        if seed is None:
            with self._turn:
                self.states = self._now()
        else:
            self.states = [torch.Generator(place).manual_seed(seed).get_state() for place in ("cpu", *self.devices)]

    def __enter__(self):
        self._held = self._turn  # a process that is forked within has another
        self._held.acquire()
        try:
            self._outside = self._now()
            self._set(self.states)
        except BaseException:
            self._held.release()
            raise
        return self

    def __exit__(self, *error):
        try:
            self.states = self._now()
            self._set(self._outside)
        finally:
            self._held.release()

    def _now(self):
        return [torch.random.get_rng_state(), *map(torch.cuda.get_rng_state, self.devices)]

    def _set(self, states):
        torch.random.set_rng_state(states[0])
        for device, state in zip(self.devices, states[1:], strict=False):  # of a fit that went on from a GPU to a CPU no more
            torch.cuda.set_rng_state(state, device)


def _renew_turn():
    """In a forked process: the turn may be that of a thread that was not copied."""
    private_random_state._turn = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_turn)


def one_pass(trainer, batches):
    """Take a step on each batch; the summed loss and the number of pairs."""
    total, n = torch.zeros((), dtype=torch.float64), 0
    for batch in batches:
        loss, own = trainer.step(batch), trainer.n_pairs(batch)
        total = total.to(batch.rating.device).add_(loss, alpha=own)
        n += own
    return float(total), n
