"""What a training loop is made of: module, loss, optimizer and scheduler, by name or class, their options checked. Knows torch."""

import contextlib
import copy
import difflib
import fnmatch
import inspect
from collections.abc import Mapping

import torch

from sk_torchmf.nn import POINTWISE, RANKING, OrdinalLoss, PointwiseLoss, RankingLoss

TRAINED: dict[str, type] = {"ordinal": OrdinalLoss}  # losses that are modules with parameters, by the names that loss= takes


def did_you_mean(name, known):
    """The end of a message about a name that nobody knows."""
    plain = {one.lower(): one for one in known}
    close = difflib.get_close_matches(name.lower(), plain, n=1)
    return f" Did you mean {plain[close[0]]}?" if close else f" Known are {', '.join(sorted(known))}."


def find_class(value, part, base, place):
    """The class that a part's parameter means: itself, or by name, upper or lower case, among the classes of a torch module."""
    if isinstance(value, type) and issubclass(value, base) and value is not base:
        return value
    if isinstance(value, base):
        kind = type(value).__name__
        raise TypeError(
            f"{part} must be a class, because every fit makes a new instance. Pass {part}={kind}, and its arguments as {part}__*."
        )
    if not isinstance(value, str):
        raise TypeError(f"{part} must be a subclass of {base.__module__}.{base.__qualname__}, or its name. Got {_name(value)}.")
    classes = {name: found for name, found in vars(place).items() if isinstance(found, type) and issubclass(found, base)}
    classes.pop(base.__name__, None)
    found = {name.lower(): found for name, found in classes.items()}.get(value.lower().replace("_", ""))
    if found is None:
        raise ValueError(f"{part}={value!r} is not in {place.__name__}.{did_you_mean(value, list(classes))}")
    return found


def check_options(part, kind, options, given=()):
    """Refuse an option that a class or function does not take; ``given`` are those that are filled in here."""
    accepted = _accepted(kind)
    own = [name for name in accepted or () if name not in given]
    for name in options:
        if name in given:
            raise ValueError(f"{part}__{name} is passed by fit itself. Leave it out.")
        if accepted is not None and name not in own:
            advice = did_you_mean(f"{part}__{name}", [f"{part}__{known}" for known in own])
            raise ValueError(f"{part}__{name} is not a parameter of {_name(kind)}.{advice}")


def _accepted(kind):
    """Names of a callable's parameters, None where it takes any."""
    try:
        parameters = inspect.signature(kind).parameters
    except (TypeError, ValueError):  # some callables do not tell
        return None
    return None if any(p.kind is p.VAR_KEYWORD for p in parameters.values()) else list(parameters)


def _name(kind):
    return getattr(kind, "__name__", None) or repr(kind)


def make_module(factory, options, sizes, n_categories, features):
    """Build the user's module.

    Parameters
    ----------
    factory : class or callable
        Gets ``n_users`` and ``n_items``, the options, and the sizes of vocabularies that it has a parameter for.
    options : dict
    sizes : dict
        ``n_users`` and ``n_items``.
    n_categories : dict
        ``n_<feature>`` of each categorical feature; ``n_user_features`` and ``n_item_features`` where there are such.
    features : list of str
        What ``forward`` gets beside user and item.
    """
    if isinstance(factory, torch.nn.Module):
        kind = type(factory).__name__
        raise TypeError(
            "module must be a class or a function that makes a module, because every fit makes a new one. Got an instance of "
            f"{kind}. Pass module={kind}, and its arguments as module__*."
        )
    if not callable(factory) or (isinstance(factory, type) and not issubclass(factory, torch.nn.Module)):
        raise TypeError(f"module must be a subclass of torch.nn.Module, or a function that makes a module. Got {factory!r}.")
    accepted = _accepted(factory)
    check_options("module", factory, options, given=sizes)
    if accepted is not None and not set(sizes) <= set(accepted):
        raise TypeError(f"module {_name(factory)} must accept the arguments n_users and n_items. It accepts {accepted}.")
    filled = sizes | {name: n for name, n in n_categories.items() if accepted is None or name in accepted} | options
    with torch.device("cpu"):  # so that devices start alike
        module = _build("module", factory, filled)
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"module {_name(factory)} must make a torch.nn.Module. It made {type(module).__name__}.")
    try:
        inspect.signature(module.forward).bind(None, None, **dict.fromkeys(features))
    except TypeError as error:
        wanted = ", ".join(["user", "item", *features])
        raise TypeError(f"module {_name(factory)} must define forward({wanted}), tensors of equal length: {error}.") from None
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise ValueError(
            f"module {_name(factory)} must have at least one parameter that requires a gradient. It has none, so there is nothing "
            "to train."
        )
    return module


def _build(part, kind, options, *given):
    """Call a class or function; a missing argument is named as the parameter it would be."""
    with contextlib.suppress(ValueError):  # some callables do not tell what they take
        try:
            inspect.signature(kind).bind(*given, **options)
        except TypeError as error:
            raise TypeError(f"{part} {_name(kind)} lacks an argument: {error}. Pass it as {part}__*.") from None
    return kind(*given, **options)


def make_optimizer(kind, options, named, parameter_options):
    """Build the optimizer, with a group for each pattern of parameter names.

    Parameters
    ----------
    kind : class or str
        Of ``torch.optim``.
    options : dict
    named : iterable of tuple of (str, Parameter)
    parameter_options : mapping of str to dict, or None
        Options of the parameters whose name matches a pattern, ``*`` standing for anything; the first that matches counts.
    """
    kind = find_class(kind, "optimizer", torch.optim.Optimizer, torch.optim)
    check_options("optimizer", kind, options, given=("params",))
    rest = {name: p for name, p in named if p.requires_grad}
    names, groups = list(rest), []
    for pattern, own in (parameter_options or {}).items():
        if not isinstance(own, Mapping):
            raise TypeError(f"parameter_options must map a pattern to a dict of options. Got {own!r} for {pattern!r}.")
        check_options("optimizer", kind, own, given=("params",))
        matched = fnmatch.filter(names, pattern)
        if not matched:
            raise ValueError(f"parameter_options: no parameter is called {pattern!r}.{did_you_mean(pattern, names)}")
        groups.append({**own, "params": [rest.pop(name) for name in matched if name in rest]})
    groups.append({"params": list(rest.values())})
    return _build("optimizer", kind, options, [group for group in groups if group["params"]])


def make_scheduler(kind, options, optimizer):
    """Build the learning-rate scheduler, None for None."""
    if kind is None:
        if options:
            raise ValueError(f'scheduler__{next(iter(options))} needs a scheduler, such as scheduler="StepLR".')
        return None
    place = torch.optim.lr_scheduler
    kind = find_class(kind, "scheduler", place.LRScheduler, place)
    check_options("scheduler", kind, options, given=("optimizer",))
    return _build("scheduler", kind, options, optimizer)


class Criterion(torch.nn.Module):
    """A loss as a step calls it: scores, ratings and weights or None, all of shape (n,), to one number, as the loss reduces itself.

    Parameters
    ----------
    loss : PointwiseLoss, RankingLoss, torch.nn.Module or function
        Of a ranking loss the scores are those of a batch that is ``ranked_against`` negatives, and the ratings are how many items
        each positive's user has not.
    options : dict
        Arguments of a function beside these.
    levels : ndarray, optional
        The distinct ratings, where they made the loss.

    Attributes
    ----------
    own : torch.nn.Module or None
        The loss where it is a module: its parameters are trained.
    """

    def __init__(self, loss, options, levels=None):
        super().__init__()
        self.loss, self.options, self.levels = loss, options, levels

    @property
    def own(self):
        return self.loss if isinstance(self.loss, torch.nn.Module) else None

    def forward(self, score, rating, weight):
        if isinstance(self.loss, PointwiseLoss):
            return _mean(self.loss, score, rating, weight)
        if isinstance(self.loss, RankingLoss):
            return _mean_of_positives(self.loss, score, rating, weight)
        return _reduced(self.loss, self.options, score, rating, weight)


def make_loss(loss, options, levels=None):
    """Build the loss of a fit; what is given as an instance with parameters or buffers stays as it is, and a copy is trained.

    Parameters
    ----------
    loss : str, class, instance or function
        A name in ``nn.POINTWISE`` or ``nn.RANKING`` or of a class in ``torch.nn``, "ordinal", such a class, an instance, or a
        function of (score, rating).
    options : dict
    levels : callable, optional
        Called where the class has a parameter ``levels`` that is not among the options: the distinct ratings and their weights,
        two arrays, for its parameters ``levels`` and ``level_weights``.

    Returns
    -------
    Criterion
    """
    loss, found = find_loss(loss), None
    if isinstance(loss, PointwiseLoss | RankingLoss):
        if options:
            raise ValueError(f"loss__{next(iter(options))} is not a parameter of loss={loss.name!r}, which has none.")
        return Criterion(loss, {})
    if isinstance(loss, type):
        check_options("loss", loss, options)
        accepted = _accepted(loss) or ()
        if levels is not None and "levels" in accepted and "levels" not in options:
            found = levels()
            filled = dict(zip(("levels", "level_weights"), found, strict=True))
            options = {name: value for name, value in filled.items() if name in accepted} | options
        with torch.device("cpu"):
            return Criterion(_build("loss", loss, options), {}, None if found is None else found[0])
    if isinstance(loss, torch.nn.Module) and options:
        raise ValueError(f"loss__{next(iter(options))} is for a loss given as a class. Got an instance of {type(loss).__name__}.")
    check_options("loss", loss, options)
    return Criterion(copy.deepcopy(loss) if is_kept(loss) else loss, options)


def is_kept(loss):
    """Whether a loss is a module that belongs to the model: it has parameters, buffers or, for predictions, a ``response``."""
    return isinstance(loss, torch.nn.Module) and (hasattr(loss, "response") or bool([*loss.parameters(), *loss.buffers()]))


def find_ranking_loss(loss):
    """The ranking loss that a parameter means, None where it is no such: "logistic" is the loss of ratings."""
    if isinstance(loss, str):
        return None if loss in POINTWISE else RANKING.get(loss)
    return loss if isinstance(loss, RankingLoss) else None


def find_loss(loss):
    """What a parameter ``loss`` means: one of ours, a class or an instance of a module, or a function."""
    if isinstance(loss, str):
        losses = {name: kind for name, kind in vars(torch.nn).items() if name.endswith("Loss")}
        known = POINTWISE.get(loss) or RANKING.get(loss) or TRAINED.get(loss)
        found = known or {name.lower(): kind for name, kind in losses.items()}.get(loss.lower())
        if found is None:
            raise ValueError(f"loss={loss!r} is not a loss.{did_you_mean(loss, [*POINTWISE, *RANKING, *TRAINED, *losses])}")
        return found
    if not callable(loss) or (isinstance(loss, type) and not issubclass(loss, torch.nn.Module)):
        raise TypeError(f"loss must be a torch loss, a function of (scores, ratings) or a name. Got {loss!r}.")
    return loss


def _mean(loss, score, rating, weight):
    value = loss(score, rating)
    return value.mean() if weight is None else (value * weight).mean()


def _mean_of_positives(loss, score, n_unobserved, weight):
    n = len(n_unobserved)
    value = loss(score[:n], score[n:].view(n, -1), n_unobserved)
    return value.mean() if weight is None else (value * weight).mean()


def _reduced(loss, options, score, rating, weight):
    if weight is None:
        return loss(score, rating, **options)
    if hasattr(loss, "reduction"):
        reduction, loss = loss.reduction, copy.copy(loss)
        loss.reduction = "none"
    elif "reduction" in (_accepted(loss) or ()):
        reduction = options.get("reduction", inspect.signature(loss).parameters["reduction"].default)
        options = options | {"reduction": "none"}
    else:
        raise ValueError(f'Weights need a loss that takes reduction="none", as torch\'s own do. {_name(loss)} does not.')
    value = loss(score, rating, **options) * weight
    return {"mean": value.mean, "sum": value.sum}.get(reduction, lambda: value)()
