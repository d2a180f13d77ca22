"""How a module of one's own is made, trained on observations that were read, and grown by ids of whom only features are known."""

import copy
import inspect
import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from sk_torchmf._forks import one_thread_if_forked
from sk_torchmf.estimators._fitting import observed_attributes, with_more_ids
from sk_torchmf.estimators._prediction import spread_pattern
from sk_torchmf.estimators._saving import is_fitted_attribute
from sk_torchmf.inputs import columns as side_columns
from sk_torchmf.inputs.forms import SPARSE
from sk_torchmf.inputs.labels import lookup
from sk_torchmf.inputs.side_features import ROLES
from sk_torchmf.nn import NegativeSampler, Pairs
from sk_torchmf.solvers.base import fill, tensors_of
from sk_torchmf.solvers.batches import Batch, EncodedRows, Observations, PairsBatch, Ranked, SharedObservations
from sk_torchmf.solvers.factories import is_kept, make_loss, make_module, make_optimizer, make_scheduler
from sk_torchmf.solvers.hogwild import Hogwild, check_shareable
from sk_torchmf.solvers.minibatch import OF_LOSS, Epochs, Trainer, named_parameters, private_random_state
from sk_torchmf.solvers.shared_steps import SharedTrainer
from sk_torchmf.training.loop import Part
from sk_torchmf.training.state import Codes, fill_new, find_moves, find_sides, gathered, move_rows, regrow_optimizer

BACKGROUND = 64  # known ids that stand in for an unknown one
NO_NEGATIVES = (
    "Every user of X has every item, so that there is no negative to rank a positive against. Pass a matrix or Interactions with "
    "more items, or use a loss of ratings."
)


@dataclass(frozen=True)
class ModuleStart:
    """A trained module to go on from.

    Attributes
    ----------
    module : torch.nn.Module
    optimizer : dict or None
        As ``training.state.gathered`` gives it.
    codes : Codes
        Where its users and items are now.
    loss : torch.nn.Module or None
        What was trained of its loss.
    """

    module: torch.nn.Module
    optimizer: dict | None
    codes: Codes
    loss: torch.nn.Module | None = None

    def hand_over(self, trainer, scheduler, build):
        """Fill a trainer's fresh module, its optimizer and the scheduler, in place.

        Parameters
        ----------
        trainer : Trainer
        scheduler : LRScheduler or None
        build : callable
            Makes a module for (n_users, n_items).
        """
        old, new = tensors_of(self.module), tensors_of(trainer.module)
        moves = find_moves(old, new, self.codes, lambda *shape: tensors_of(build(*shape)))
        for name, tensor in new.items():
            move_rows(old[name], tensor, moves[name])
        of_loss = self._hand_loss_over(trainer)
        state = self.optimizer
        if state is not None:
            moments = {name: own for name, own in state["moments"].items() if name in moves or name in of_loss}
            state = state | {"moments": moments}
        regrow_optimizer(state, trainer, scheduler, old | of_loss, moves | {name: {} for name in of_loss})

    def _hand_loss_over(self, trainer):
        """Fill the trainer's fresh loss; the tensors, by name, of which the optimizer's state goes on too."""
        own = None if trainer.loss is None else trainer.loss.own
        if own is None or self.loss is None or type(own) is not type(self.loss):
            return {}
        old, new = tensors_of(self.loss), tensors_of(own)
        go_on = getattr(own, "go_on_from", None)
        if callable(go_on):
            go_on(self.loss)
        else:
            for name, tensor in new.items():
                if name not in old or old[name].shape != tensor.shape:
                    raise ValueError(f"loss: {name} was not there, or of another shape, when it was trained. Use fit from scratch.")
            fill(new, old)
        return {OF_LOSS + name: old[name] for name in new if name in old and old[name].shape == new[name].shape}


class ModulePart(Part):
    """Some of the observations, and what trains a fresh module on them."""

    def __init__(self, params, reading, device, seed, start):
        self.params, self.reading, self.device, self.seed, self.start = params, reading, device, seed, start
        if reading.described and params.n_processes > 1:
            raise ValueError(
                "user_features and item_features need n_processes=1, because the processes do not share them. Got "
                f"{params.n_processes}."
            )
        data, ranks, self.processes = reading.data, params._ranks(), reading.processes
        counts = tuple(
            np.bincount(ids, data.weights, n).astype(np.float64)
            for ids, n in zip((data.user_ids, data.item_ids), reading.shape, strict=True)
        )
        if self.processes.size > 1:
            counts = tuple(own.numpy() for own in self.processes.all_reduce(list(map(torch.from_numpy, counts))))
        pairs = Pairs(data.user_ids, data.item_ids, *reading.shape)
        ratings = np.ones(len(data), dtype=bool)
        if not ranks:
            self.rating, limits = code_ratings(data.ratings, params._check_ratings, self.processes)
            ratings = self.rating.astype(params.dtype)
        weights = None if data.weights is None else _in_order(pairs, data.weights)
        features = {name: _in_order(pairs, values) for name, values in reading.features.items()}
        self.observed = observed_attributes(pairs, _in_order(pairs, ratings), weights, features) | {
            "user_counts_": counts[0],
            "item_counts_": counts[1],
            "feature_categories_": reading.categories,
            "background_": background_of(counts, reading.features),
        }
        if not ranks:
            self.observed["rating_range_"] = limits

    def make_solver(self):
        params, reading = self.params, self.reading
        generator = torch.Generator("cpu").manual_seed(self.seed + reading.processes.rank)
        observations, categories = self._observations(generator), reading.categories
        n_columns = {f"{role}_features": own.encoded.matrix.shape[1] for role, own in reading.described.items()}
        with private_random_state(self.seed, self.device) as random:
            levels = partial(self._levels, observations)
            trainer, scheduler = make_trainer(params, reading.shape, categories, self.device, n_columns, levels)
            if self.start is not None:
                self.start.hand_over(trainer, scheduler, lambda *shape: build_module(params, shape, categories, n_columns))
            if reading.processes.size > 1:
                trainer = SharedTrainer(trainer.module, trainer.loss, trainer.optimizer, processes=reading.processes)
                trainer.begin()
            batches = self._batches(observations, trainer, generator)
        if reading.processes.rank > 0:  # of which each drops out other numbers
            random = private_random_state(self.seed + reading.processes.rank, self.device)
        return Epochs(trainer, batches, scheduler=scheduler, generator=generator, random=random)

    def _observations(self, generator):
        """What batches are made of: all observations as one, and what draws negatives, or None."""
        params, reading, sampler = self.params, self.reading, None
        if params._ranks():
            sampler = self._sampler(generator)
            reading = reading[sampler.total[reading.data.user_ids] > 0]
            target = sampler.n_unobserved[reading.data.user_ids]
        else:
            target = self.rating
        data, dtype = reading.data, params.dtype
        n, weight = self.processes.all_reduce([len(data), 0.0 if data.weights is None else float(data.weights.sum())])
        if n == 0:
            raise ValueError(NO_NEGATIVES)
        self.n_together = n
        batch = Batch.from_arrays(
            data.user_ids.astype(np.int64),
            data.item_ids.astype(np.int64),
            target.astype(dtype),
            None if data.weights is None else (data.weights / (weight / n)).astype(dtype),
            {name: values.astype(dtype) if values.dtype.kind == "f" else values for name, values in reading.features.items()},
            self.device,
        )
        batch.encoded = self._encoded()
        return batch, sampler

    def _encoded(self):
        """The encoded features of all users and items, as batches have them."""
        matrices = {f"{role}_features": own.encoded.matrix for role, own in self.reading.described.items()}
        return {name: EncodedRows(matrix, getattr(torch, self.params.dtype), self.device) for name, matrix in matrices.items()}

    def _sampler(self, generator):
        """What draws negatives for the users of this process, where items are as popular as all processes say."""
        seen, popular = self.observed["seen_"], self.params.negatives == "popularity"
        n_users = torch.from_numpy(np.bincount(seen.indices, minlength=seen.shape[1]))
        counts = self.processes.all_reduce([n_users])[0].numpy()
        return NegativeSampler(seen, popularity=popular, item_counts=counts, generator=generator, device=self.device)

    def _levels(self, observations):
        """The distinct ratings of all processes and their weights, as ``make_loss`` takes them."""
        levels, weights = levels_of(observations[0].rating, observations[0].weight)
        told = self.processes.all_gather((levels, weights))
        levels, code = np.unique(np.concatenate([own for own, _ in told]), return_inverse=True)
        return levels, np.bincount(code, np.concatenate([own for _, own in told]))

    def _batches(self, observations, trainer, generator):
        """What an epoch goes through."""
        params, (batch, sampler) = self.params, observations
        if params.n_processes > 1:
            check_shareable(trainer.optimizer, self.device, params.n_processes)
            size = params.batch_size or len(batch)
            return Hogwild(trainer, batch, batch_size=size, n_processes=params.n_processes, generator=generator)
        return _batches(params, batch, sampler, generator, trainer.module, self.reading.shape, self._shared(batch, generator))

    def _shared(self, batch, generator):
        """The loader of this process's part of all batches, None where there is one process."""
        size, processes = self.params.batch_size, self.processes
        if processes.size == 1 or size is None:
            return None
        return SharedObservations(batch, math.ceil(self.n_together / size), generator, processes.rank / processes.size)

    def attributes(self, solver, last=False):
        if last and self.reading.processes.size > 1:
            solver.trainer.end()
        return self.observed | trained(solver, last)


def trained(solver, last):
    """The fitted attributes of a trained module: itself at last, else a copy, since the next epoch goes on with it."""
    module = solver.solution() if last else copy.deepcopy(solver.solution())
    for parameter in module.parameters():
        parameter.grad = None
    found = {"module_": module.cpu().eval(), "optimizer_state_": gathered(solver.trainer, solver.scheduler)}
    criterion = solver.trainer.loss
    if is_kept(criterion.own):
        found["loss_"] = (criterion.own if last else copy.deepcopy(criterion.own)).cpu().eval()
        found["loss_"].zero_grad()
    return found if criterion.levels is None else found | {"levels_": criterion.levels}


def levels_of(rating, weight):
    """The distinct ratings of a batch, float64, each the shortest number that it is in its own precision; their weights."""
    levels, code = np.unique(rating.cpu().numpy(), return_inverse=True)
    return levels.astype(str).astype(np.float64), np.bincount(code, None if weight is None else weight.cpu().numpy())


def code_ratings(rating, check, processes):
    """The ratings of this process as a loss codes them, by all that there are, and the lowest and the highest of these."""
    rating = np.asarray(rating, dtype=np.float64)
    limits = -processes.largest(-rating.min(initial=np.inf)), processes.largest(rating.max(initial=-np.inf))
    coded = check(np.append(rating, limits))  # which may be of another process
    return coded[:-2], coded[-2:].copy()


def _in_order(pairs, values):
    """Values of the observations as a tensor in the order of a plan."""
    return torch.from_numpy(np.require(values, requirements=["C", "W"])).index_select(0, pairs.order)


def _batches(params, batch, sampler, generator, module, shape, shared=None):
    """What to take a step on each, in every epoch; of several processes each has its part, which is ``shared``."""
    fused = params.batch_size is None and hasattr(module, "forward_pairs") and not batch.features and not batch.encoded
    planned = shape if fused else None
    batches = [batch] if params.batch_size is None else shared or Observations(batch, params.batch_size, generator)
    if sampler is not None:
        return Ranked(batches, sampler, params.n_negatives, planned)
    return [PairsBatch.of(batch, planned)] if fused else batches


def build_module(params, shape, categories, n_columns):
    """A fresh module for (n_users, n_items) and columns of ``user_features`` and so on, as an estimator's parameters have it."""
    sizes = dict(zip(("n_users", "n_items"), shape, strict=True))
    n_categories = {f"n_{name}": len(labels) for name, labels in categories.items()}
    n_categories |= {f"n_{name}": n for name, n in n_columns.items()}
    features = [*side_columns.columns(params.features), *n_columns]
    return make_module(params.module, params._options("module"), sizes, n_categories, features)


def make_trainer(params, shape, categories, device, n_columns, levels=None):
    """What trains a fresh module and its loss on their device, and the scheduler; ``levels`` as ``make_loss`` takes them."""
    dtype = getattr(torch, params.dtype)
    loss = make_loss(params.loss, params._options("loss"), levels).to(device, dtype).train()
    module = build_module(params, shape, categories, n_columns).to(device, dtype).train()
    named = named_parameters(module, loss)
    optimizer = make_optimizer(params.optimizer, params._options("optimizer"), named, params.parameter_options)
    scheduler = make_scheduler(params.scheduler, params._options("scheduler"), optimizer)
    return Trainer(module, loss, optimizer), scheduler


def extended(estimator, features):
    """The fitted attributes for predictions of an estimator that knows further ids by their features, a table or None by role.

    What the module itself has for an id, such as a row of an embedding, is for a new one the mean of what it has for those that
    were observed.
    """
    _check_takes(estimator, [role for role in ROLES if features[role] is not None])
    state = {name: value for name, value in vars(estimator).items() if is_fitted_attribute(name)}
    reading, places = with_more_ids(estimator, features)
    found = state | reading.attributes() | {"form_": estimator.form_}
    if estimator.form_ == SPARSE:
        found["n_features_in_"] = reading.shape[1]
    background = dict(estimator.background_)
    for role, place, n in zip(ROLES, places, reading.shape, strict=True):
        found[f"{role}_counts_"] = np.zeros(n)
        found[f"{role}_counts_"][place] = state[f"{role}_counts_"]
        background[role] = place[background[role]]
    found |= {"background_": background, "seen_": spread_pattern(estimator.seen_, places, reading.shape)}
    sizes = estimator.n_users_, estimator.n_items_
    if reading.shape != sizes:
        codes = Codes(lookup(reading.users, estimator.users_, "user"), lookup(reading.items, estimator.items_, "item"), sizes)
        found["module_"] = _grown(estimator, codes, (found["user_counts_"] > 0, found["item_counts_"] > 0))
    return found


@one_thread_if_forked
def _grown(estimator, codes, observed):
    """The trained module among more ids, of which these were observed; a copy."""
    n_columns = {name: matrix.shape[1] for name, matrix in estimator._encoded().items()}

    def build(*shape):
        return build_module(estimator, shape, estimator.feature_categories_, n_columns)

    with private_random_state(0, torch.device("cpu")), torch.no_grad():  # what is drawn is replaced
        module = build(*codes.shape).to("cpu", getattr(torch, estimator.dtype)).eval()
        old, new = tensors_of(estimator.module_), tensors_of(module)
        sides = find_sides(old, new, codes, lambda *shape: tensors_of(build(*shape)))
        for name, tensor in new.items():
            move_rows(old[name], tensor, {d: codes.move(*held) for d, held in sides[name].items()})
        fill_new(new, sides, codes, observed)
    return module


def _check_takes(estimator, roles):
    """Refuse features that the module's ``forward`` has no parameter for."""
    parameters = inspect.signature(estimator.module_.forward).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for role in roles:
        if f"{role}_features" not in parameters:
            raise ValueError(
                f"{role}_features need a module whose forward takes them, and {type(estimator.module_).__name__} has "
                f"forward({', '.join(parameters)}). Give it that parameter, and fit with such features."
            )


def background_of(counts, features):
    """Some of the users, items and categories that were observed, each in an order of its own, to stand in for unknown ones.

    Parameters
    ----------
    counts : tuple of ndarray of shape (n_users,) and (n_items,)
    features : dict of str to ndarray
        Numbers of categories are whole.

    Returns
    -------
    dict of str to ndarray of int
    """
    rng = np.random.default_rng(0)
    known = {"user": np.flatnonzero(counts[0]), "item": np.flatnonzero(counts[1])}
    known |= {name: values for name, values in features.items() if values.dtype.kind == "i"}
    spread = {name: np.linspace(0, len(code) - 1, min(len(code), BACKGROUND)).astype(int) for name, code in known.items()}
    return {name: rng.permutation(code[spread[name]]) for name, code in known.items()}
