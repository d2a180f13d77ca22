"""``fit_batches``: a module is trained on batches of the caller's own making, which are seen once and kept nowhere."""

from collections.abc import Iterable, Iterator

import numpy as np
import scipy.sparse as sp

from sk_torchmf._validation import check_count, check_device, check_seed
from sk_torchmf.estimators._fitting import Fitting
from sk_torchmf.estimators._torch_prediction import ModulePredictor
from sk_torchmf.estimators._torch_training import background_of, make_trainer, trained
from sk_torchmf.inputs.chunks import Stream
from sk_torchmf.inputs.forms import INTERACTIONS, Reading
from sk_torchmf.interactions import Interactions
from sk_torchmf.solvers.minibatch import Epochs, private_random_state
from sk_torchmf.training.callbacks import with_callbacks
from sk_torchmf.training.loop import Part, Phase


class StreamTrainer(ModulePredictor, Fitting):
    """Base of ``TorchFactorization``: training on a stream."""

    @with_callbacks
    def fit_batches(self, batches, *, n_users, n_items):
        """Train a fresh module on batches of your own making, for ratings that do not fit in memory.

        Parameters
        ----------
        batches : iterable of tuple, or callable
            Each batch is (user, item, rating) or (user, item, rating, weight): arrays or tensors of shape (n,), whole numbers below
            ``n_users`` and ``n_items`` first. A list, a ``DataLoader``, an ``IterableDataset`` of batches, or a function that
            returns an iterator is gone through anew in every epoch; an iterator or generator, which is spent after one, needs
            ``max_iter=1``. ``batch_size`` is not used. Weights are not divided by their mean, which is not known: a weight of 10 is
            a step ten times as long.
        n_users, n_items : int
            Sizes.

        Returns
        -------
        self
            Memory does not grow with the number of batches, which are not kept: ``seen_`` is empty, so that ``recommend`` leaves
            nothing out, and ``partial_fit`` is refused.
        """
        self._validate_params()
        device = check_device(self.device)
        if self._ranks():
            raise ValueError(
                "fit_batches takes no ranking loss: without all that users have, it could not tell what they have not. Use fit."
            )
        if self.features is not None or self.n_processes > 1:
            raise ValueError("fit_batches takes neither features nor n_processes > 1: a batch holds users, items and ratings.")
        if self.early_stopping or self.checkpoint is not None:
            raise ValueError(
                "fit_batches takes neither early_stopping nor checkpoint: what it has passed it cannot go back to. Use fit."
            )
        if not callable(batches) and (not isinstance(batches, Iterable) or getattr(batches, "ndim", 1) == 0):
            raise TypeError(f"batches must be iterable, or a function that returns an iterator. Got {type(batches).__name__}.")
        if isinstance(batches, Iterator) and self.max_iter != 1:
            raise ValueError(
                f"batches is an iterator, spent after one pass, and max_iter={self.max_iter}. Pass max_iter=1, or what can be gone "
                "through anew: a list, a DataLoader, a function that returns an iterator."
            )
        shape = check_count(n_users, "n_users"), check_count(n_items, "n_items")
        stream = Stream(batches, shape, self._check_ratings, self.dtype, device)
        data = Interactions(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), num_users=shape[0], num_items=shape[1])
        reading = Reading(data, np.arange(shape[0]), np.arange(shape[1]), INTERACTIONS, 2)
        part = StreamPart(self._in_python(), stream, shape, device, check_seed(self.random_state))
        phases = [Phase()]
        return self._publish(self._run(reading, lambda rows: part, phases, self._showing(phases, {})))


class StreamPart(Part):
    """Batches that pass, and what trains a fresh module on them."""

    def __init__(self, params, stream, shape, device, seed):
        self.params, self.stream, self.shape, self.device, self.seed = params, stream, shape, device, seed

    def make_solver(self):
        with private_random_state(self.seed, self.device) as random:
            trainer, scheduler = make_trainer(self.params, self.shape, {}, self.device, {})
            return Epochs(trainer, self.stream, scheduler=scheduler, random=random)

    def attributes(self, solver, last=False):
        counts = self.stream.counts
        return trained(solver, last) | {
            "seen_": sp.csr_array(self.shape, dtype=bool),
            "user_counts_": counts[0],
            "item_counts_": counts[1],
            "rating_range_": np.array(self.stream.limits),
            "feature_categories_": {},
            "background_": background_of(counts, {}),
            "optimizer_state_": None,
        }
