"""How a module of one's own is made and trained; it knows tensors and batches, and not where they come from."""

import copy
from contextlib import contextmanager

import torch

from sk_torchmf.estimators import _features
from sk_torchmf.estimators._module_predict import ModulePredictor
from sk_torchmf.estimators._parts import find_ranking_loss, make_loss, make_module, make_optimizer, make_scheduler
from sk_torchmf.estimators._training import Trained
from sk_torchmf.metrics._scorer import ranking_scorer
from sk_torchmf.nn import POINTWISE, PointwiseLoss
from sk_torchmf.solvers.hogwild import check_shareable, hogwild
from sk_torchmf.solvers.minibatch import Epochs, Observations, PairsBatch, Ranked, Trainer


class ModuleTrainer(Trained, ModulePredictor):
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

    _epoch, _stops_at_tol = "epoch", False

    def _check_ranking(self):
        """Refuse what a ranking loss cannot be combined with."""
        self._check_clip()
        if self.n_processes > 1:
            raise ValueError(
                f"n_processes={self.n_processes} needs a loss of ratings: the processes do not share what negatives are drawn by. "
                "Use n_processes=1 with a ranking loss."
            )

    def _check_training(self):
        """Refuse what cannot be resumed, and what features leave without a measure."""
        if self.checkpoint is not None and self.n_processes > 1:
            raise ValueError(
                f"checkpoint needs n_processes=1: what n_processes={self.n_processes} find depends on timing. Use checkpoint=None, "
                "or n_processes=1."
            )

    def _default_scoring(self):
        if find_ranking_loss(self.loss) is None:
            return None
        if self.features is not None and self.scoring is None:
            raise ValueError(
                "Validation of a ranking loss ranks all items of each user, and this model's features are of single pairs. Pass "
                "scoring, or use early_stopping=False."
            )
        return ranking_scorer("ndcg", k=10)

    @contextmanager
    def _trainable(self, observed, sampler, generator, device, seed, trained=None):
        """What trains a fresh module on observations; with a sampler, each against negatives. The generator draws for both."""
        with private_random_state(seed, device):
            trainer, scheduler = self._make(device)
            if trained is not None:
                trained.hand_over(trainer, scheduler, self._build)
            if self.n_processes > 1:
                check_shareable(trainer.optimizer, device, self.n_processes)
                size = self.batch_size or len(observed)
                with hogwild(trainer, observed, batch_size=size, n_processes=self.n_processes, generator=generator) as epoch:
                    yield Epochs(trainer, epoch, scheduler=scheduler)
            else:
                batches = self._batches(observed, sampler, generator, trainer.module)
                yield Epochs(trainer, batches, scheduler=scheduler, generator=generator)

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

        @contextmanager
        def start(seed, kept):
            with private_random_state(seed, device):
                trainer, scheduler = self._make(device)
                yield Epochs(trainer, batches, scheduler=scheduler), self.max_iter, self._keep_on

        self._train(None, start, None)

    def _build(self, n_users, n_items):
        """A fresh module of these sizes."""
        sizes = {"n_users": n_users, "n_items": n_items}
        n_categories = {f"n_{name}": len(labels) for name, labels in self.feature_categories_.items()}
        return make_module(self.module, self._options("module"), sizes, n_categories, list(_features.columns(self.features)))

    def _make(self, device):
        """What trains the module on its device, and the scheduler."""
        loss = make_loss(self.loss, self._options("loss"))
        module = self._build(self.n_users_, self.n_items_)
        module = module.to(device, getattr(torch, self.dtype)).train()
        optimizer = make_optimizer(self.optimizer, self._options("optimizer"), module, self.parameter_options)
        scheduler = make_scheduler(self.scheduler, self._options("scheduler"), optimizer)
        return Trainer(module, loss, optimizer), scheduler

    def _keep_on(self, estimator, module):
        """Keep a trained module: itself, or of an estimator that shows how far training is, a copy."""
        if estimator is not self:
            module = copy.deepcopy(module)
        for parameter in module.parameters():
            parameter.grad = None
        estimator.module_ = module.cpu().eval()

    def _remembers(self):
        """Whether ratings can be stood in for by predictions: known by their ids alone, and of a loss that is least at them."""
        if self.features is not None or find_ranking_loss(self.loss) is not None:
            return False
        if isinstance(self.loss, PointwiseLoss) or self.loss in POINTWISE:
            return True
        loss, (low, high) = make_loss(self.loss, self._options("loss")), self.rating_range_
        span = 0.25 * (high - low) or 1.0
        try:
            for rating in (low, (low + high) / 2, high):
                values = [float(loss(torch.tensor([rating + step]), torch.tensor([rating]), None)) for step in (0.0, -span, span)]
                if not values[0] < min(values[1:]):
                    return False
        except (RuntimeError, ValueError, TypeError):  # a loss of batches of another kind
            return False
        return True


@contextmanager
def private_random_state(seed, device):
    """Seed torch's global generators for what draws from them, initial parameters and dropout, and put them back."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.random.default_generator.manual_seed(seed)
        if devices:
            torch.cuda.manual_seed_all(seed)
        yield
