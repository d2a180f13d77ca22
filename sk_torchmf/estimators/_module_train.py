"""How a module of one's own is made and trained; it knows tensors and batches, and not where they come from."""

from contextlib import contextmanager

import torch

from sk_torchmf._validation import check_seed
from sk_torchmf.estimators import _features
from sk_torchmf.estimators._module_predict import ModulePredictor
from sk_torchmf.estimators._parts import make_loss, make_module, make_optimizer, make_scheduler
from sk_torchmf.solvers.hogwild import check_shareable, hogwild
from sk_torchmf.solvers.minibatch import Epochs, Observations, PairsBatch, Ranked, Trainer
from sk_torchmf.solvers.training import run


class ModuleTrainer(ModulePredictor):
    """Base of ``TorchFactorization``: what ``fit`` does with what it has read."""

    # parameters
    module: object
    optimizer: object
    scheduler: object
    parameter_options: object
    n_negatives: int
    max_iter: int
    batch_size: int | None
    n_processes: int
    random_state: object
    verbose: object
    # what fit leaves
    history_: dict
    n_iter_: int

    def _check_ranking(self):
        """Refuse what a ranking loss cannot be combined with."""
        self._check_clip()
        if self.n_processes > 1:
            raise ValueError(
                f"n_processes={self.n_processes} needs a loss of ratings: the processes do not share what negatives are drawn by. "
                "Use n_processes=1 with a ranking loss."
            )

    def _train(self, observed, sampler, generator, device):
        """Train on observations; with a sampler, each against negatives. Seeds the generator that both draw from."""
        seed = check_seed(self.random_state)
        generator.manual_seed(seed)
        with private_random_state(seed, device):
            trainer, scheduler = self._make(device)
            if self.n_processes > 1:
                check_shareable(trainer.optimizer, device, self.n_processes)
                size = self.batch_size or len(observed)
                with hogwild(trainer, observed, batch_size=size, n_processes=self.n_processes, generator=generator) as epoch:
                    self._run(Epochs(trainer, epoch, scheduler=scheduler))
            else:
                batches = self._batches(observed, sampler, generator, trainer.module)
                self._run(Epochs(trainer, batches, scheduler=scheduler, generator=generator))
        self._keep(trainer.module)

    def _batches(self, observed, sampler, generator, module):
        """What to take a step on each, in every epoch."""
        fused = self.batch_size is None and hasattr(module, "forward_pairs") and not observed.features
        shape = (self.n_users_, self.n_items_) if fused else None
        batches = [observed] if self.batch_size is None else Observations(observed, self.batch_size, generator)
        if sampler is not None:
            return Ranked(batches, sampler, self.n_negatives, shape)
        return [PairsBatch.of(observed, shape)] if fused else batches

    def _train_on(self, batches, device):
        """Train on batches as they are."""
        with private_random_state(check_seed(self.random_state), device):
            trainer, scheduler = self._make(device)
            self._run(Epochs(trainer, batches, scheduler=scheduler))
        self._keep(trainer.module)

    def _make(self, device):
        """What trains the module on its device, and the scheduler."""
        sizes = {"n_users": self.n_users_, "n_items": self.n_items_}
        n_categories = {f"n_{name}": len(labels) for name, labels in self.feature_categories_.items()}
        names = list(_features.columns(self.features))
        loss = make_loss(self.loss, self._options("loss"))
        module = make_module(self.module, self._options("module"), sizes, n_categories, names)
        module = module.to(device, getattr(torch, self.dtype)).train()
        optimizer = make_optimizer(self.optimizer, self._options("optimizer"), module, self.parameter_options)
        scheduler = make_scheduler(self.scheduler, self._options("scheduler"), optimizer)
        return Trainer(module, loss, optimizer), scheduler

    def _run(self, solver):
        self.history_ = run(solver, max_iter=self.max_iter, watch=self._report if self.verbose else None)

    def _keep(self, module):
        for parameter in module.parameters():
            parameter.grad = None
        self.module_ = module.cpu().eval()
        self.n_iter_ = len(self.history_["loss"])

    def _report(self, epoch, history, solver):
        print(f"[{type(self).__name__}] epoch {epoch}, loss {history['loss'][-1]:.6g}")


@contextmanager
def private_random_state(seed, device):
    """Seed torch's global generators for what draws from them, initial parameters and dropout, and put them back."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.random.default_generator.manual_seed(seed)
        if devices:
            torch.cuda.manual_seed_all(seed)
        yield
