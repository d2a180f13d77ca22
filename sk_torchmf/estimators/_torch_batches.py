"""``fit_batches``: a module is trained on batches of the caller's own making, which are seen once and kept nowhere."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import scipy.sparse as sp

from sk_torchmf._validation import check_count, check_device
from sk_torchmf.estimators._torch_training import ModuleTrainer, private_random_state
from sk_torchmf.inputs import forms
from sk_torchmf.inputs.chunks import Stream
from sk_torchmf.solvers.minibatch import Epochs
from sk_torchmf.training.callbacks import with_callbacks


class StreamTrainer(ModuleTrainer):
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
            Memory does not grow with the number of batches, so ``seen_`` is empty: ``recommend`` leaves nothing out.
        """
        self._validate_params()
        self._forget("module_", "feature_names_in_")
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
        if not callable(batches) and not isinstance(batches, Iterable):
            raise TypeError(f"batches must be iterable, or a function that returns an iterator. Got {type(batches).__name__}.")
        if isinstance(batches, Iterator) and self.max_iter > 1:
            raise ValueError(
                f"batches is an iterator, spent after one pass, and max_iter={self.max_iter}. Pass max_iter=1, or what can be gone "
                "through anew: a list, a DataLoader, a function that returns an iterator."
            )
        self.n_users_, self.n_items_ = check_count(n_users, "n_users"), check_count(n_items, "n_items")
        self.users_, self.items_ = np.arange(self.n_users_), np.arange(self.n_items_)
        self.form_ = forms.INTERACTIONS
        self.n_features_in_, self.feature_categories_ = 2, {}
        self.seen_ = sp.csr_array((n_users, n_items), dtype=bool)
        self.sketch_ = self.pair_weights_ = self.optimizer_state_ = None
        stream = Stream(batches, (self.n_users_, self.n_items_), self._check_ratings, self.dtype, device)

        @contextmanager
        def start(seed, kept):
            with private_random_state(seed, device) as random:
                trainer, scheduler = self._make(device)
            yield Epochs(trainer, stream, scheduler=scheduler, random=random), self.max_iter, self._keep_on

        self._train(None, start, None)
        self.user_counts_, self.item_counts_ = stream.counts
        self.rating_range_ = np.array(stream.limits)
        self._keep_background({})
        return self
