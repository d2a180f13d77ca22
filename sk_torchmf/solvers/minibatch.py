"""An ordinary training loop: batches in, a trained module out. Knows torch's conventions, and neither the model nor estimators."""

import inspect
import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sk_torchmf.nn import NegativeSampler, Pairs
from sk_torchmf.solvers.base import Solver, copy_state, fill, tensors_of

TAKES_SPARSE = ("SGD", "Adagrad", "SparseAdam")
COMBINED = ("weight_decay", "momentum", "nesterov")  # their options that torch may refuse with sparse gradients


@dataclass(slots=True)
class Batch:
    """Observations to take one step on.

    Attributes
    ----------
    user, item : Tensor of shape (n,), int64
        Of shape (n + n m,) in a batch that is ``ranked_against`` m negatives of each observation.
    rating : Tensor of shape (n,)
        What the loss gets beside the scores; of a ranking loss, how many items each positive's user has not.
    weight : Tensor of shape (n,) or None
    features : dict of str to Tensor of shape (n,)
        What ``forward`` gets beside user and item; as long as these.
    """

    user: Tensor
    item: Tensor
    rating: Tensor
    weight: Tensor | None = None
    features: dict = field(default_factory=dict)

    @classmethod
    def from_arrays(cls, user, item, rating, weight, features, device="cpu"):
        """Take over NumPy arrays of the right dtypes; ``weight`` may be None."""
        user, item, rating = (torch.from_numpy(values).to(device) for values in (user, item, rating))
        weight = None if weight is None else torch.from_numpy(weight).to(device)
        return cls(user, item, rating, weight, {name: torch.from_numpy(values).to(device) for name, values in features.items()})

    def __len__(self):
        return len(self.rating)

    def score(self, module):
        """The module's scores, one for each user and item."""
        return as_scores(module(self.user, self.item, **self.features), len(self.user), type(module).__name__)

    def ranked_against(self, negative):
        """The batch with negatives (n, m), each scored with the features of its positive: first n scores, then n rows of m."""

        def repeated(values):
            return torch.cat([values, values.repeat_interleave(negative.shape[1])])

        features = {name: repeated(values) for name, values in self.features.items()}
        item = torch.cat([self.item, negative.flatten()])
        return Batch(repeated(self.user), item, self.rating, self.weight, features)

    def __getitem__(self, index):
        """Some of the observations, by slice or index tensor."""
        weight = None if self.weight is None else self.weight[index]
        features = {name: value[index] for name, value in self.features.items()}
        return Batch(self.user[index], self.item[index], self.rating[index], weight, features)


@dataclass(slots=True)
class PairsBatch:
    """All observations as a plan, for modules with ``forward_pairs``.

    Attributes
    ----------
    pairs : Pairs
    rating, weight : Tensor of shape (n,), or None
        As in ``Batch``, in the order of the scores.
    place : Tensor of shape (n_pairs,), int, optional
        Places of the scores in user-major order, which is theirs by default.
    """

    pairs: Pairs
    rating: Tensor
    weight: Tensor | None = None
    place: Tensor | None = None

    @classmethod
    def of(cls, batch, shape):
        """Plan a batch without features; ``shape`` is (n_users, n_items)."""
        user, item = (tensor.cpu().numpy() for tensor in (batch.user, batch.item))
        pairs = Pairs(user, item, shape[0], shape[1], batch.rating.device)
        if len(batch) < pairs.n_pairs:  # ranked: the loss wants positives first, and of each its negatives together
            return cls(pairs, batch.rating, batch.weight, pairs.inverse_order)
        weight = None if batch.weight is None else batch.weight.index_select(0, pairs.order)
        return cls(pairs, batch.rating.index_select(0, pairs.order), weight)

    def __len__(self):
        return len(self.rating)

    def score(self, module):
        """The module's scores by the fused kernels, one for each pair."""
        score = as_scores(module.forward_pairs(self.pairs), self.pairs.n_pairs, type(module).__name__)
        return score if self.place is None else score.index_select(0, self.place)


@dataclass(frozen=True)
class Observations:
    """A loader over tensors on the device: every iteration is a pass in a fresh random order, a slice a batch.

    Attributes
    ----------
    data : Batch
        All observations.
    size : int
        Of a batch; the last may be smaller.
    generator : torch.Generator
        A CPU generator, which draws the order.
    """

    data: Batch
    size: int
    generator: torch.Generator

    def __iter__(self):
        n = len(self.data)
        order = torch.randperm(n, generator=self.generator, device="cpu").to(self.data.rating.device)
        shuffled = self.data[order]
        for start in range(0, n, self.size):
            yield shuffled[start : start + self.size]


@dataclass(frozen=True)
class Ranked:
    """A loader that gives every batch of another fresh negatives.

    Attributes
    ----------
    batches : iterable of Batch
        Gone through once an iteration.
    sampler : NegativeSampler
    n_negatives : int
        Of each positive.
    shape : tuple of int, optional
        (n_users, n_items), for batches planned for modules with ``forward_pairs``.
    """

    batches: Iterable
    sampler: NegativeSampler
    n_negatives: int
    shape: tuple | None = None

    def __iter__(self):
        for batch in self.batches:
            ranked = batch.ranked_against(self.sampler.draw(batch.user, self.n_negatives))
            yield ranked if self.shape is None else PairsBatch.of(ranked, self.shape)


@dataclass
class Trainer:
    """What a step needs.

    Attributes
    ----------
    module : torch.nn.Module
        In training mode. Where it has a method ``penalty()``, what that returns is added to the loss of every step.
    loss : callable
        ``(score, rating, weight) -> `` a number to be minimised.
    optimizer : torch.optim.Optimizer
    checked : bool
        Whether a first batch has shown that module and loss are sound.
    takes_closure : bool
        Whether the optimizer's step calls for the loss itself, as torch's own do.
    """

    module: torch.nn.Module
    loss: Callable
    optimizer: torch.optim.Optimizer
    checked: bool = False
    takes_closure: bool = field(init=False)

    def __post_init__(self):
        self.takes_closure = "closure" in inspect.signature(self.optimizer.step).parameters

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
            value = self._loss(batch)
            value.backward()
            if not self.checked:
                self._check_gradients()
                self.checked = True
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
        if not value.requires_grad:
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


def as_scores(score, n, name):
    """A module's output as shape (n,): (n, 1) will do, and a single number for a single pair."""
    if not isinstance(score, Tensor):
        raise TypeError(f"{name} must return a tensor, one number a pair. Got {type(score).__name__}.")
    shape = tuple(score.shape)
    if shape == (n,):
        return score
    if shape == (n, 1) or (n == 1 and score.numel() == 1):
        return score.reshape(n)
    raise ValueError(f"{name} must return one number a pair, shape ({n},) or ({n}, 1). Got shape {shape}.")


class Epochs(Solver):
    """Train a module in place, a step a batch.

    Parameters
    ----------
    trainer : Trainer
    batches : iterable of Batch, or callable
        Iterated once an epoch; or called once an epoch with the trainer, and returns the summed loss and the number of pairs.
    scheduler : torch.optim.lr_scheduler.LRScheduler, optional
        Takes a step after each epoch.
    generator : torch.Generator, optional
        What the batches draw from: a part of the state, as are torch's global generators, which dropout draws from.

    Notes
    -----
    The loss of an epoch is the mean over its pairs of the loss that each step started from. The solution is the module. What a
    module keeps elsewhere than in parameters and buffers is no part of the state.
    """

    epoch = "epoch"

    def __init__(self, trainer, batches, *, scheduler=None, generator=None):
        self.trainer, self.batches, self.scheduler, self.generator = trainer, batches, scheduler, generator
        self.n_epochs = 0

    def step(self):
        self.n_epochs += 1
        total, n = self.batches(self.trainer) if callable(self.batches) else one_pass(self.trainer, self.batches)
        if n == 0:
            raise ValueError(f"batches gave nothing in epoch {self.n_epochs}. It must be iterable anew in every epoch.")
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
        state = {"n_epochs": self.n_epochs, "module": tensors_of(self.trainer.module)}
        state["optimizer"] = self.trainer.optimizer.state_dict()
        if self.scheduler is not None:
            state["scheduler"] = self.scheduler.state_dict()
        if self.generator is not None:
            state["generator"] = self.generator.get_state()
        state["random"] = torch.random.get_rng_state()
        if self._on_cuda():
            state["cuda"] = torch.cuda.get_rng_state()
        return state

    def restore(self, state):
        state = copy_state(state)
        self.n_epochs = state["n_epochs"]
        fill(tensors_of(self.trainer.module), state["module"])
        self.trainer.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        if self.generator is not None:
            self.generator.set_state(state["generator"])
        torch.random.set_rng_state(state["random"])
        if "cuda" in state and self._on_cuda():
            torch.cuda.set_rng_state(state["cuda"])

    def _on_cuda(self):
        return any(parameter.is_cuda for parameter in self.trainer.module.parameters())

    def cure(self):
        rates = sorted({group["lr"] for group in self.trainer.optimizer.param_groups if "lr" in group})
        shown = ", ".join(f"{float(rate):.3g}" for rate in rates)
        return f" (optimizer__lr={shown}). Lower optimizer__lr."


def one_pass(trainer, batches):
    """Take a step on each batch; the summed loss and the number of pairs."""
    total, n = torch.zeros((), dtype=torch.float64), 0
    with warnings.catch_warnings():  # torch's Adagrad makes sparse tensors and warns, once a process, that it does not check them
        warnings.filterwarnings("ignore", "Sparse invariant checks are implicitly disabled")
        for batch in batches:
            total = total.to(batch.rating.device).add_(trainer.step(batch), alpha=len(batch))
            n += len(batch)
    return float(total), n
