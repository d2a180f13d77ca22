"""How a module of one's own is made, trained on observations that were read, and grown by ids of whom only features are known."""

import copy
import inspect
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
from sk_torchmf.solvers.batches import Batch, EncodedRows, Observations, PairsBatch, Ranked
from sk_torchmf.solvers.factories import is_kept, make_loss, make_module, make_optimizer, make_scheduler
from sk_torchmf.solvers.hogwild import Hogwild, check_shareable
from sk_torchmf.solvers.minibatch import OF_LOSS, Epochs, Trainer, named_parameters, private_random_state
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
                f"user_features and item_features need n_processes=1: the processes do not share them. Got {params.n_processes}."
            )
        data, ranks = reading.data, params._ranks()
        counts = tuple(
            np.bincount(ids, data.weights, n).astype(np.float64)
            for ids, n in zip((data.user_ids, data.item_ids), reading.shape, strict=True)
        )
        pairs = Pairs(data.user_ids, data.item_ids, *reading.shape)
        ratings = np.ones(len(data), dtype=bool) if ranks else params._check_ratings(data.ratings).astype(params.dtype)
        weights = None if data.weights is None else _in_order(pairs, data.weights)
        features = {name: _in_order(pairs, values) for name, values in reading.features.items()}
        self.observed = observed_attributes(pairs, _in_order(pairs, ratings), weights, features) | {
            "user_counts_": counts[0],
            "item_counts_": counts[1],
            "feature_categories_": reading.categories,
            "background_": background_of(counts, reading.features),
        }
        if not ranks:
            checked = params._check_ratings(data.ratings)
            self.observed["rating_range_"] = np.array([checked.min(), checked.max()], dtype=np.float64)

    def make_solver(self):
        params, reading = self.params, self.reading
        generator = torch.Generator("cpu").manual_seed(self.seed)
        observations, categories = self._observations(generator), reading.categories
        n_columns = {f"{role}_features": own.encoded.matrix.shape[1] for role, own in reading.described.items()}
        with private_random_state(self.seed, self.device) as random:
            levels = partial(self._levels, observations)
            trainer, scheduler = make_trainer(params, reading.shape, categories, self.device, n_columns, levels)
            if self.start is not None:
                self.start.hand_over(trainer, scheduler, lambda *shape: build_module(params, shape, categories, n_columns))
            batches = self._batches(observations, trainer, generator)
            return Epochs(trainer, batches, scheduler=scheduler, generator=generator, random=random)

    def _observations(self, generator):
        """What batches are made of: all observations as one, and what draws negatives, or None."""
        params, reading, sampler = self.params, self.reading, None
        if params._ranks():
            popular = params.negatives == "popularity"
            sampler = NegativeSampler(self.observed["seen_"], popularity=popular, generator=generator, device=self.device)
            reading = reading[sampler.total[reading.data.user_ids] > 0]
            if len(reading.data) == 0:
                raise ValueError(NO_NEGATIVES)
            target = sampler.n_unobserved[reading.data.user_ids]
        else:
            target = params._check_ratings(reading.data.ratings)
        data, dtype = reading.data, params.dtype
        batch = Batch.from_arrays(
            data.user_ids.astype(np.int64),
            data.item_ids.astype(np.int64),
            target.astype(dtype),
            None if data.weights is None else (data.weights / data.weights.mean()).astype(dtype),
            {name: values.astype(dtype) if values.dtype.kind == "f" else values for name, values in reading.features.items()},
            self.device,
        )
        batch.encoded = self._encoded()
        return batch, sampler

    def _encoded(self):
        """The encoded features of all users and items, as batches have them."""
        matrices = {f"{role}_features": own.encoded.matrix for role, own in self.reading.described.items()}
        return {name: EncodedRows(matrix, getattr(torch, self.params.dtype), self.device) for name, matrix in matrices.items()}

    def _levels(self, observations):
        """The distinct ratings and their weights, as ``make_loss`` takes them."""
        return levels_of(observations[0].rating, observations[0].weight)

    def _batches(self, observations, trainer, generator):
        """What an epoch goes through."""
        params, (batch, sampler) = self.params, observations
        if params.n_processes > 1:
            check_shareable(trainer.optimizer, self.device, params.n_processes)
            size = params.batch_size or len(batch)
            return Hogwild(trainer, batch, batch_size=size, n_processes=params.n_processes, generator=generator)
        return _batches(params, batch, sampler, generator, trainer.module, self.reading.shape)

    def attributes(self, solver, last=False):
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


def _in_order(pairs, values):
    """Values of the observations as a tensor in the order of a plan."""
    return torch.from_numpy(np.require(values, requirements=["C", "W"])).index_select(0, pairs.order)


def _batches(params, batch, sampler, generator, module, shape):
    """What to take a step on each, in every epoch."""
    fused = params.batch_size is None and hasattr(module, "forward_pairs") and not batch.features and not batch.encoded
    planned = shape if fused else None
    batches = [batch] if params.batch_size is None else Observations(batch, params.batch_size, generator)
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
                f"{role}_features are for a module whose forward takes them, and {type(estimator.module_).__name__} has "
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
