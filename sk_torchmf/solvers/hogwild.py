"""Lock-free training in several processes on shared parameters (Hogwild). Knows no estimator."""

import copy
import tempfile
from dataclasses import dataclass
from pathlib import Path
from pickle import PicklingError

import numpy as np
import torch
from joblib import Parallel, cpu_count, delayed, parallel_config

from sk_torchmf._forks import is_forked
from sk_torchmf.solvers.batches import Batch, Observations
from sk_torchmf.solvers.minibatch import Trainer, one_pass, private_random_state

SHARED = (torch.optim.SGD, torch.optim.Adagrad)  # without state, or with state that lies in shared memory


def check_shareable(optimizer, device, n_processes):
    """Refuse what several processes cannot train together."""
    if device.type != "cpu":
        raise ValueError(f'n_processes={n_processes} needs the CPU. Got device="{device}". Use device="cpu" or n_processes=1.')
    if is_forked():
        raise ValueError(
            f"n_processes={n_processes} starts processes, which can hang in a process that was itself forked. Use n_processes=1 "
            "here, or start this process with spawn or forkserver."
        )
    name = type(optimizer).__name__
    if type(optimizer) not in SHARED:
        raise ValueError(
            f"n_processes={n_processes} needs an optimizer whose state the processes can share: SGD without momentum, or Adagrad. "
            f"Got {name}; use one of these, or n_processes=1."
        )
    for option in ("momentum", "lr_decay"):  # a buffer and a count of steps, which each process would have for itself
        values = [group[option] for group in optimizer.param_groups if group.get(option)]
        if values:
            raise ValueError(
                f"n_processes={n_processes} cannot share the state that {name} keeps for optimizer__{option}={values[0]}. Use "
                f"optimizer__{option}=0 or n_processes=1."
            )


class Hogwild:
    """An epoch on several processes, for ``Epochs``: they share the parameters of a module and of its loss.

    These lie in files until ``close``.

    Every process takes a part of the observations in a random order and writes to the parameters without a lock [1]_, so
    that results depend on timing. Modules travel by value, those of ``__main__`` and of notebooks too.

    Parameters
    ----------
    trainer : Trainer
        Its module is on the CPU; its optimizer has passed ``check_shareable``.
    data : Batch
    batch_size : int
    n_processes : int
    generator : torch.Generator
        Draws the orders and the processes' seeds.

    References
    ----------
    .. [1] Recht, Re, Wright, Niu, Hogwild: A Lock-Free Approach to Parallelizing Stochastic Gradient Descent, NIPS 2011.
    """

    def __init__(self, trainer, data, *, batch_size, n_processes, generator):
        self.batch_size, self.n_processes, self.generator = batch_size, n_processes, generator
        self.whole = torch.nn.ModuleList([trainer.module, trainer.loss])
        parameters = list(self.whole.parameters())
        self.tensors = _tensors(self.whole)
        trainer.check(data[:batch_size])  # while no other process moves the parameters
        self.folder = tempfile.TemporaryDirectory(prefix="sk_torchmf")
        share = _Folder(Path(self.folder.name))
        observed = [None if part is None else share(part) for part in (data.user, data.item, data.rating, data.weight)]
        features = {name: share(value) for name, value in data.features.items()}
        self.order = share(torch.arange(len(data)))
        shared = [share(tensor) for tensor in self.tensors]
        state = trainer.optimizer.state
        sums = [share(state[p]["sum"]) if "sum" in state[p] else None for p in parameters]
        self.arrays = shared, sums, observed, features, self.order
        for tensor in self.tensors:
            tensor.data = tensor.data.new_empty(0)
        self.shell = copy.deepcopy(self.whole)  # travels without its numbers
        for tensor, array in zip(self.tensors, shared, strict=True):
            tensor.data = torch.from_numpy(array)

    def __call__(self, trainer):
        """Run an epoch; the summed loss and the number of pairs."""
        n = self.n_processes
        self.order[:] = torch.randperm(len(self.order), generator=self.generator, device="cpu").numpy()
        seeds = torch.randint(2**31 - 1, (n,), generator=self.generator, device="cpu").tolist()
        groups = _describe(trainer.optimizer, list(self.whole.parameters()))
        task = _Epoch(self.shell, type(trainer.optimizer), groups, self.batch_size)
        try:
            with parallel_config("loky", inner_max_num_threads=max(1, cpu_count() // n)):
                done = Parallel(n_jobs=n)(delayed(task)(*self.arrays, slice(at, None, n), seed) for at, seed in enumerate(seeds))
        except PicklingError as error:
            name = type(trainer.module).__name__
            raise ValueError(f"module {name} or its loss cannot be sent to another process: {error}.") from error
        trainer.optimizer.step()  # without gradients it moves nothing; a scheduler wants to see it
        return tuple(map(sum, zip(*done, strict=True)))

    def close(self):
        """Take the module's parameters off the files, and delete these."""
        for tensor in self.tensors:
            tensor.data = tensor.data.clone()
        self.folder.cleanup()


class _Folder:
    """Puts arrays into files that processes map into their memory."""

    def __init__(self, path):
        self.path, self.n_files = path, 0

    def __call__(self, tensor):
        array = tensor.detach().numpy()
        self.n_files += 1
        path = self.path / f"{self.n_files}.npy"
        shared = np.lib.format.open_memmap(path, mode="w+", dtype=array.dtype, shape=array.shape)
        shared[...] = array
        return shared


def _tensors(module):
    """What the processes share: parameters and buffers."""
    return [*module.parameters(), *module.buffers()]


def _describe(optimizer, parameters):
    """The optimizer's groups with the parameters' numbers in the place of the parameters."""
    number = {id(parameter): at for at, parameter in enumerate(parameters)}
    return [group | {"params": [number[id(p)] for p in group["params"]]} for group in optimizer.param_groups]


@dataclass
class _Epoch:
    """One process's share of an epoch: called there, it gives the summed loss and the number of pairs."""

    whole: torch.nn.ModuleList  # the module and its loss
    optimizer: type
    groups: list
    batch_size: int

    def __call__(self, shared, sums, observed, features, order, part, seed):
        for tensor, array in zip(_tensors(self.whole), shared, strict=True):
            tensor.data = torch.from_numpy(array)
        parameters = list(self.whole.parameters())
        groups = [group | {"params": [parameters[at] for at in group["params"]]} for group in self.groups]
        optimizer = self.optimizer(groups)
        for parameter, total in zip(parameters, sums, strict=True):
            if total is not None:
                optimizer.state[parameter]["sum"] = torch.from_numpy(total)
        index = np.asarray(order[part])
        user, item, rating, weight = (None if values is None else values[index] for values in observed)
        data = Batch.from_arrays(user, item, rating, weight, {name: values[index] for name, values in features.items()})
        module, loss = self.whole.train()
        trainer = Trainer(module, loss, optimizer, checked=True)
        with private_random_state(seed, torch.device("cpu")):  # dropout draws from it
            return one_pass(trainer, Observations(data, self.batch_size, torch.Generator("cpu").manual_seed(seed)))
