"""Steps that several processes take together, each on its part of a batch, with one module on all. Knows no estimator."""

from dataclasses import dataclass

import numpy as np
import torch

from sk_torchmf.distributed import ALONE, Communicator
from sk_torchmf.exceptions import DistributedError
from sk_torchmf.solvers.minibatch import Trainer


@dataclass
class SharedTrainer(Trainer):
    """A trainer whose steps are those of all processes, each of which has the whole module and some pairs of every batch.

    The loss must be a mean over pairs. Its gradients are averaged, those of a process weighing as much as it has pairs in the step,
    before the optimizer sees them: so every process takes the step that one would take on all pairs. A process may have none.

    Attributes
    ----------
    processes : Communicator
    n_together : int
        How many pairs all processes had in the last step.
    """

    processes: Communicator = ALONE
    n_together: int = 0

    def begin(self):
        """Refuse what is no sum over processes; take over what the first process's module and loss start from."""
        if isinstance(self.optimizer, torch.optim.LBFGS):
            raise ValueError(
                "distributed=True does not support the optimizer LBFGS, whose line search needs the loss of all pairs many times "
                "per step. Use another optimizer, or distributed=False."
            )
        loss = self.loss.loss
        if "sum" in (getattr(loss, "reduction", None), self.loss.options.get("reduction")):
            raise ValueError(
                "distributed=True needs a loss that is a mean over its pairs, since the processes' gradients are averaged. Got "
                'reduction="sum". Use "mean", or distributed=False.'
            )
        for tensor in self.tensors().values():
            tensor.copy_(self._of_first(tensor))

    def n_pairs(self, batch):
        return self.n_together

    def end_epoch(self):
        """Take over the first process's buffers, which each process has changed by its own pairs."""
        for module in (self.module, self.loss):
            for buffer in module.buffers():
                buffer.detach().copy_(self._of_first(buffer.detach()))

    def end(self):
        """Refuse modules that have come to differ; take over what the first process has, to the last bit."""
        for name, tensor in self.tensors().items():
            first = self._of_first(tensor)
            if tensor.is_floating_point():
                scale = float(first.abs().max()) if first.numel() else 0.0
                same = torch.allclose(tensor, first, rtol=0, atol=torch.finfo(tensor.dtype).eps ** 0.5 * scale, equal_nan=True)
            else:
                same = torch.equal(tensor, first)
            if not same:
                raise DistributedError(
                    f"{name} has come to differ between rank 0 and rank {self.processes.rank}, and it must be the same on all. A "
                    "module must return equal scores for equal parameters and pairs: keep what it draws or counts in buffers."
                )
            tensor.copy_(first)

    def _of_first(self, tensor):
        """The first process's tensor."""
        if tensor.numel() == 0 or self.processes.size == 1:
            return tensor
        plain = tensor.contiguous()
        plain = plain.view(torch.uint8) if plain.dtype == torch.bool else plain
        return self.processes.broadcast(plain).view(tensor.dtype)

    def _backward(self, batch):
        n, value, parameters = len(batch), 0.0, dict(self.named_parameters())
        if n:
            loss = self._loss(batch)
            loss.backward()
            value = float(loss.detach())
        own = {name: p.grad for name, p in parameters.items() if p.grad is not None}
        rows = {name: _rows(grad) for name, grad in own.items() if grad.is_sparse}
        told = self.processes.all_gather((n, value, own.keys() - rows.keys(), rows))
        self.n_together = sum(part[0] for part in told)
        shares = [part[0] / max(self.n_together, 1) for part in told]
        dense = [name for name in parameters if any(name in part[2] for part in told)]
        mine = shares[self.processes.rank]
        parts = [own[name] * mine if name in own else torch.zeros_like(parameters[name]) for name in dense]
        for name, grad in zip(dense, self.processes.all_reduce(parts) if dense else [], strict=True):
            parameters[name].grad = grad
        for name, parameter in parameters.items():
            found = [(share, *part[3][name]) for share, part in zip(shares, told, strict=True) if name in part[3]]
            if found:
                parameter.grad = _of_rows(found, parameter)
        if not self.checked:
            self._check_gradients()
            self.checked = True
        return torch.tensor(sum(share * part[1] for share, part in zip(shares, told, strict=True)), dtype=torch.float64)


def _rows(gradient):
    """The places and values of a sparse gradient, each place once: ndarrays."""
    gradient = gradient.coalesce()
    return gradient.indices().cpu().numpy(), gradient.values().cpu().numpy()


def _of_rows(found, parameter):
    """The weighted sum of some sparse gradients of a parameter, from (weight, places, values) each."""
    places = torch.from_numpy(np.concatenate([own for _, own, _ in found], axis=1))
    values = torch.from_numpy(np.concatenate([own * own.dtype.type(share) for share, _, own in found]))
    gradient = torch.sparse_coo_tensor(places, values, parameter.shape, check_invariants=False).coalesce()
    return gradient.to(parameter.device)
