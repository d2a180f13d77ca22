"""Lock-free training in several processes on shared parameters (Hogwild). Knows no estimator."""

import copy
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import PicklingError

import numpy as np
import torch
from joblib import Parallel, cpu_count, delayed, parallel_config

from sk_torchmf.solvers.minibatch import Batch, Observations, Trainer, one_pass

SHARED = (torch.optim.SGD, torch.optim.Adagrad)  # without state, or with state that lies in shared memory


def check_shareable(optimizer, device, n_processes):
    """Refuse what several processes cannot train together."""
    if device.type != "cpu":
        raise ValueError(f'n_processes={n_processes} trains on the CPU only. Got device="{device}"; use n_processes=1 there.')
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
                f"n_processes={n_processes} cannot share what {name} keeps for optimizer__{option}={values[0]}. Use {option} 0 or "
                "n_processes=1."
            )


@contextmanager
def hogwild(trainer, data, *, batch_size, n_processes, generator):
    """Share a module's parameters between processes; gives a function for ``Epochs`` that runs one epoch on all of them.

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
    parameters = list(trainer.module.parameters())
    state, tensors = trainer.optimizer.state, _tensors(trainer.module)
    trainer.check(data[:batch_size])  # while no other process moves the parameters
    with tempfile.TemporaryDirectory(prefix="sk_torchmf") as folder:
        share = _Folder(Path(folder))
        observed = [None if part is None else share(part) for part in (data.user, data.item, data.rating, data.weight)]
        features = {name: share(value) for name, value in data.features.items()}
        order = share(torch.arange(len(data)))
        shared = [share(tensor) for tensor in tensors]
        sums = [share(state[p]["sum"]) if "sum" in state[p] else None for p in parameters]
        for tensor in tensors:
            tensor.data = tensor.data.new_empty(0)
        shell = copy.deepcopy(trainer.module)  # travels without its numbers
        for tensor, array in zip(tensors, shared, strict=True):
            tensor.data = torch.from_numpy(array)
        threads = max(1, cpu_count() // n_processes)
        with parallel_config("loky", inner_max_num_threads=threads), Parallel(n_jobs=n_processes) as parallel:

            def run_epoch(trainer):
                order[:] = torch.randperm(len(data), generator=generator, device="cpu").numpy()
                seeds = torch.randint(2**31 - 1, (n_processes,), generator=generator, device="cpu").tolist()
                groups = _describe(trainer.optimizer, parameters)
                task = _Epoch(shell, trainer.loss, type(trainer.optimizer), groups, batch_size)
                arrays = shared, sums, observed, features, order
                try:
                    done = parallel(delayed(task)(*arrays, slice(n, None, n_processes), seed) for n, seed in enumerate(seeds))
                except PicklingError as error:
                    name = type(trainer.module).__name__
                    raise ValueError(f"module {name} or its loss cannot travel to another process: {error}.") from error
                trainer.optimizer.step()  # without gradients it moves nothing; a scheduler wants to see it
                return tuple(map(sum, zip(*done, strict=True)))

            try:
                yield run_epoch
            finally:
                for tensor in tensors:
                    tensor.data = tensor.data.clone()  # off the files, which end here


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

    module: torch.nn.Module
    loss: Callable
    optimizer: type
    groups: list
    batch_size: int

    def __call__(self, shared, sums, observed, features, order, part, seed):
        torch.manual_seed(seed)  # of a process of our own: dropout draws from it
        for tensor, array in zip(_tensors(self.module), shared, strict=True):
            tensor.data = torch.from_numpy(array)
        parameters = list(self.module.parameters())
        groups = [group | {"params": [parameters[at] for at in group["params"]]} for group in self.groups]
        optimizer = self.optimizer(groups)
        for parameter, total in zip(parameters, sums, strict=True):
            if total is not None:
                optimizer.state[parameter]["sum"] = torch.from_numpy(total)
        index = np.asarray(order[part])
        user, item, rating, weight = (None if values is None else values[index] for values in observed)
        data = Batch.from_arrays(user, item, rating, weight, {name: values[index] for name, values in features.items()})
        trainer = Trainer(self.module.train(), self.loss, optimizer, checked=True)
        return one_pass(trainer, Observations(data, self.batch_size, torch.Generator("cpu").manual_seed(seed)))
