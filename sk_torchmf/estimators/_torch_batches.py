"""A module is trained on batches of what is not at hand: of the caller's own making, or read from a data set on disk."""

from collections.abc import Iterable, Iterator

import numpy as np
import scipy.sparse as sp
import torch

from sk_torchmf._validation import check_count, check_device, check_seed
from sk_torchmf.estimators._fitting import Fitting
from sk_torchmf.estimators._torch_prediction import ModulePredictor
from sk_torchmf.estimators._torch_training import NO_NEGATIVES, ModulePart, background_of, levels_of, make_trainer, trained
from sk_torchmf.inputs.chunks import Stream
from sk_torchmf.inputs.forms import INTERACTIONS, Reading
from sk_torchmf.inputs.stored_batches import Negatives, StoredObservations, tally
from sk_torchmf.inputs.stored_pattern import pattern_of
from sk_torchmf.interactions import Interactions
from sk_torchmf.solvers.minibatch import Epochs, private_random_state
from sk_torchmf.training.callbacks import with_callbacks
from sk_torchmf.training.loop import Part, Phase


class StreamTrainer(ModulePredictor, Fitting):
    """Base of ``TorchFactorization``: training on a stream."""

    @with_callbacks
    def fit_batches(self, batches, *, n_users, n_items):
        """Train a new module on batches that you provide, for ratings that do not fit into memory.

        Parameters
        ----------
        batches : iterable of tuple, or callable
            Each batch is (user, item, rating) or (user, item, rating, weight): arrays or tensors of shape (n,), of which the first
            two have whole numbers below ``n_users`` and ``n_items``. A list, a ``DataLoader``, an ``IterableDataset`` of batches,
            or a function that returns an iterator is read again in every epoch. An iterator or a generator can be read only once,
            and needs ``max_iter=1``. ``batch_size`` is not used. Weights are not divided by their mean, which is not known, so a
            weight of 10 makes a step ten times as long.
        n_users, n_items : int
            Number of users and number of items.

        Returns
        -------
        self
            The fitted estimator. Batches are not kept, so memory does not grow with their number. For the same reason ``seen_`` is
            empty, ``recommend`` leaves nothing out, and ``partial_fit`` is refused.
        """
        self._validate_params()
        device = check_device(self.device)
        if self.distributed:
            raise ValueError("fit_batches needs distributed=False, because it runs in one process. Use that, or call fit.")
        if self._ranks():
            raise ValueError(
                "fit_batches needs a loss of ratings: for a ranking loss it would have to know all items of each user to draw "
                "negatives. Use fit."
            )
        if self.features is not None or self.n_processes > 1:
            raise ValueError(
                "fit_batches needs features=None and n_processes=1, because a batch holds only users, items and ratings."
            )
        if self.early_stopping or self.checkpoint is not None:
            raise ValueError(
                "fit_batches needs early_stopping=False and checkpoint=None, because it cannot go back to earlier batches. Use "
                "these values, or call fit."
            )
        if not callable(batches) and (not isinstance(batches, Iterable) or getattr(batches, "ndim", 1) == 0):
            raise TypeError(f"batches must be iterable, or a function that returns an iterator. Got {type(batches).__name__}.")
        if isinstance(batches, Iterator) and self.max_iter != 1:
            raise ValueError(
                f"batches must be readable max_iter={self.max_iter} times, and an iterator is exhausted after one pass. Use "
                "max_iter=1, or pass a list, a DataLoader, or a function that returns an iterator."
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


class StoredModulePart(ModulePart):
    """A data set on disk, and what trains a fresh module on batches that are read from it in every epoch."""

    def __init__(self, params, reading, device, seed, start):
        self.params, self.reading, self.device, self.seed, self.start = params, reading, device, seed, start
        data, self.processes = reading.data, reading.processes
        self.found, self.places = tally(data.shards), (data.user_ids, data.item_ids)
        counts = tuple(map(np.zeros, reading.shape))
        for count, place, own in zip(counts, self.places, self.found.counts, strict=True):
            count[place] = own
        self.observed = {
            "seen_": pattern_of(data, reading.shape),
            "user_counts_": counts[0],
            "item_counts_": counts[1],
            "feature_categories_": {},
            "background_": background_of(counts, {}),
        }
        if not params._ranks():
            self.levels, (low, high) = data.shards[0].levels, data.shards.rating_range
            known = np.array([low, (low + high) / 2, high]) if self.levels is None else self.levels.astype(np.float64)
            self.known = params._check_ratings(known)  # of many values the middle one tells that they are not all -1 or 1
            self.observed["rating_range_"] = np.array([self.known.min(), self.known.max()])

    def _observations(self, generator):
        params, data, found, negatives = self.params, self.reading.data, self.found, None
        rankable = np.ones(len(found.n_pairs), dtype=bool)
        if params._ranks():
            item_counts, popular = np.zeros(self.reading.shape[1]), params.negatives == "popularity"
            item_counts[self.places[1]] = found.item_users
            negatives = Negatives(params.n_negatives, popular, item_counts)
            rankable = found.n_own < (np.count_nonzero(item_counts) if popular else len(item_counts))
            if not found.n_pairs[rankable].any():
                raise ValueError(NO_NEGATIVES)
        weighted = data.shards[found.cuts[0].shard].weights is not None
        return StoredObservations(
            shards=data.shards,
            cuts=found.cuts,
            places=self.places,
            n_items=self.reading.shape[1],
            size=params.batch_size,
            generator=generator,
            dtype=params.dtype,
            device=self.device,
            decode=self._decode,
            mean_weight=found.counts[0][rankable].sum() / found.n_pairs[rankable].sum() if weighted else None,
            negatives=negatives,
            encoded=self._encoded(),
        )

    def _decode(self, codes):
        """Ratings, as the loss codes them, of what is stored."""
        return self.params._check_ratings(codes.astype(np.float64)) if self.levels is None else self.known[codes]

    def _levels(self, observations):
        if self.levels is None:
            raise ValueError(
                f"loss={self.params.loss!r} needs Shards whose ratings have at most 256 distinct values, which are its levels. "
                "Round the ratings before the Shards are made, or use another loss."
            )
        occur = self.found.level_weights > 0
        known = torch.from_numpy(self.known[occur].astype(self.params.dtype))
        return levels_of(known, torch.from_numpy(self.found.level_weights[occur]))

    def _batches(self, observations, trainer, generator):
        return observations
