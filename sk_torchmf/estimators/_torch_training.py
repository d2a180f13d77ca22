"""How a module of one's own is made, and trained on observations that were read."""

import copy
from contextlib import contextmanager

import numpy as np
import torch

from sk_torchmf._validation import check_device
from sk_torchmf.estimators._grow_module import optimizer_state
from sk_torchmf.estimators._past import pair_weights
from sk_torchmf.estimators._torch_options import find_ranking_loss, make_loss, make_module, make_optimizer, make_scheduler
from sk_torchmf.estimators._torch_prediction import ModulePredictor
from sk_torchmf.inputs import features as _features
from sk_torchmf.metrics._scorer import ranking_scorer
from sk_torchmf.nn import NegativeSampler
from sk_torchmf.solvers.batches import Batch, Observations, PairsBatch, Ranked
from sk_torchmf.solvers.hogwild import Hogwild, check_shareable
from sk_torchmf.solvers.minibatch import Epochs, Trainer, private_random_state
from sk_torchmf.training.loop import Trained


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

    def _check(self):
        """Refuse what cannot be combined; the device, and whether the loss ranks."""
        if self.checkpoint is not None and self.n_processes > 1:
            raise ValueError(
                f"checkpoint needs n_processes=1: what n_processes={self.n_processes} find depends on timing. Use checkpoint=None, "
                "or n_processes=1."
            )
        self._check_clip()
        ranking = self._ranks()
        if ranking and self.n_processes > 1:
            raise ValueError(
                f"n_processes={self.n_processes} needs a loss of ratings: the processes do not share what negatives are drawn by. "
                "Use n_processes=1 with a ranking loss."
            )
        return check_device(self.device), ranking

    def _default_scoring(self):
        if find_ranking_loss(self.loss) is None:
            return None
        if self.features is not None and self.scoring is None:
            raise ValueError(
                "Validation of a ranking loss ranks all items of each user, and this model's features are of single pairs. Pass "
                "scoring, or use early_stopping=False."
            )
        return ranking_scorer("ndcg", k=10)

    def _observe(self, data, features, seen=None):
        """Set what was seen: the data or, where ``seen`` has all that are known, more than these."""
        every = data if seen is None else seen
        super()._observe(every, features)
        self.pair_weights_ = pair_weights(every, self.seen_)
        if not self._ranks():
            rating = self._check_ratings(data.ratings)
            limits = [rating.min(), rating.max(), *(() if seen is None else self.rating_range_)]
            self.rating_range_ = np.array([min(limits), max(limits)], dtype=np.float64)

    @contextmanager
    def _start(self, data, features, device, trained, seen, seed, kept):
        """Make a module, fresh but for what an earlier one has learned, and what trains it."""
        if kept is not None:
            data, features = select(data, features, kept)
        self._observe(data, features, seen)
        generator, sampler = torch.Generator("cpu").manual_seed(seed), None
        if self._ranks():
            sampler = NegativeSampler(self.seen_, popularity=self.negatives == "popularity", generator=generator, device=device)
            data, features = select(data, features, sampler.total[data.user_ids] > 0)
            if len(data) == 0:
                raise ValueError(
                    "Every user of X has every item, so that there is no negative to rank a positive against. Pass a matrix or "
                    "Interactions with more items, or use a loss of ratings."
                )
            target = sampler.n_unobserved[data.user_ids]
        else:
            target = self._check_ratings(data.ratings)

        observed = Batch.from_arrays(
            data.user_ids.astype(np.int64),
            data.item_ids.astype(np.int64),
            target.astype(self.dtype),
            None if data.weights is None else (data.weights / data.weights.mean()).astype(self.dtype),
            {name: values.astype(self.dtype) if values.dtype.kind == "f" else values for name, values in features.items()},
            device,
        )
        with self._trainable(observed, sampler, generator, device, seed, trained) as solver:

            def keep_on(estimator, module):
                estimator.optimizer_state_ = optimizer_state(solver.trainer, solver.scheduler)
                self._keep_on(estimator, module)

            yield solver, self.max_iter, keep_on

    @contextmanager
    def _trainable(self, observed, sampler, generator, device, seed, trained):
        """What trains a fresh module on observations; with a sampler, each against negatives. The generator draws for both."""
        with private_random_state(seed, device) as random:
            trainer, scheduler = self._make(device)
            if trained is not None:
                trained.hand_over(trainer, scheduler, self._build)
            if self.n_processes > 1:
                check_shareable(trainer.optimizer, device, self.n_processes)
                size = self.batch_size or len(observed)
                batches = Hogwild(trainer, observed, batch_size=size, n_processes=self.n_processes, generator=generator)
                solver = Epochs(trainer, batches, scheduler=scheduler, random=random)
            else:
                batches = self._batches(observed, sampler, generator, trainer.module)
                solver = Epochs(trainer, batches, scheduler=scheduler, generator=generator, random=random)
        try:
            yield solver
        finally:
            solver.close()

    def _batches(self, observed, sampler, generator, module):
        """What to take a step on each, in every epoch."""
        fused = self.batch_size is None and hasattr(module, "forward_pairs") and not observed.features
        shape = (self.n_users_, self.n_items_) if fused else None
        batches = [observed] if self.batch_size is None else Observations(observed, self.batch_size, generator)
        if sampler is not None:
            return Ranked(batches, sampler, self.n_negatives, shape)
        return [PairsBatch.of(observed, shape)] if fused else batches

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


def select(data, features, kept):
    """Some of the observations and their features."""
    return data[kept], {name: values[kept] for name, values in features.items()}
