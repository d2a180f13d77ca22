"""``save`` and ``load`` of an estimator whose module, loss and optimizer are the user's: tensors are kept, code is passed again."""

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from sk_torchmf._forks import one_thread_if_forked
from sk_torchmf.estimators._docs import documented
from sk_torchmf.estimators._fitting import Fitting
from sk_torchmf.estimators._saving import is_fitted_attribute
from sk_torchmf.estimators._torch_prediction import ModulePredictor
from sk_torchmf.estimators._torch_training import build_module
from sk_torchmf.nn import POINTWISE, RANKING, BiasedMF, OrdinalLoss, PlainMF
from sk_torchmf.solvers.factories import did_you_mean, make_loss
from sk_torchmf.solvers.minibatch import private_random_state
from sk_torchmf.storage.archive import check_path, naming
from sk_torchmf.storage.packing import pack


def _classes(place, base, ending=""):
    classes = {name: kind for name, kind in vars(place).items() if isinstance(kind, type) and issubclass(kind, base)}
    return {name: kind for name, kind in classes.items() if name.endswith(ending)}


# Code that a file may name, because it is known here; all other code is passed to ``load``.
TABLES: dict[str, dict] = {
    "sk_torchmf.nn": {"PlainMF": PlainMF, "BiasedMF": BiasedMF, "OrdinalLoss": OrdinalLoss},
    "sk_torchmf.nn.POINTWISE": POINTWISE,
    "sk_torchmf.nn.RANKING": RANKING,
    "torch.nn": _classes(torch.nn, torch.nn.Module, "Loss"),
    "torch.optim": _classes(torch.optim, torch.optim.Optimizer),
    "torch.optim.lr_scheduler": _classes(torch.optim.lr_scheduler, torch.optim.lr_scheduler.LRScheduler),
}


class SavedModule(ModulePredictor, Fitting):
    """Base of ``TorchFactorization``: files."""

    @documented()
    def save(self, path, *, ratings=True):
        """Write the fitted estimator to a file, without pickle and without code.

        The file has the parameters and buffers of the module and of its loss (their ``state_dict``), all other fitted attributes,
        and the parameters of the estimator as far as they are names, numbers and the like, classes of torch, or modules and losses
        of ``sk_torchmf.nn``. Any other parameter, such as a module, a loss or an optimizer of your own, must be passed to ``load``
        again.

        Parameters
        ----------
        @path
        @ratings

        Returns
        -------
        @self

        Raises
        ------
        @NotFittedError
        TypeError
            If an id, or a value in the module's ``state_dict``, is an object that a file without code cannot hold.
        @OSError
        """
        check_path(path)
        check_is_fitted(self, "module_")
        return super().save(path, ratings=ratings)

    @classmethod
    @documented()
    def load(cls, path, **params):
        """Read a fitted estimator that ``save`` wrote.

        Nothing in the file is run, imported or unpickled, so a module of your own has to be passed as an argument. It is made as in
        ``fit``, with the ``module__*`` of the file, and then gets the tensors of the file. Everything else in it is as its
        constructor leaves it.

        Parameters
        ----------
        @path
        **params
            The parameters that the file cannot hold, such as ``module=MyModule`` or a loss of your own, as they were in ``fit``.
            Any other parameter may be given too, and replaces that of the file.

        Returns
        -------
        @estimator

        Raises
        ------
        TypeError
            If a parameter is missing that the file does not hold; the message names it.
        @ValueError
            Also if the tensors do not fit the module.
        @OSError
        """
        for name in params:
            if not cls._has_param(name):
                raise TypeError(f"{cls.__name__} has no parameter {name}.{did_you_mean(name, cls._get_param_names())}")
        return cls._load(path, params)

    @classmethod
    def _has_param(cls, name):
        return super()._has_param(name) or cls._is_option(name)

    def _values(self, params):
        known, missing = {}, {}
        for name, value in params.items():
            place = [[table, entry] for table, entries in TABLES.items() for entry, one in entries.items() if one is value]
            if place:
                known[name] = place[0]
            elif not _is_data(value):
                missing[name] = getattr(value, "__name__", None) or type(value).__name__
        values, _ = super()._values({name: value for name, value in params.items() if name not in known and name not in missing})
        module, loss = (values["state"].pop(name, None) for name in ("module_", "loss_"))
        values["module"], values["loss"] = module.state_dict(), None if loss is None else loss.state_dict()
        return values, {"known": known, "missing": missing}

    @classmethod
    def _complete_params(cls, path, params, meta, given):
        with naming(path):
            known = {name: TABLES[table][entry] for name, (table, entry) in meta["known"].items()}
            absent = [name for name in dict(meta["missing"]) if name not in given]
        if absent:
            names, passed = ", ".join(absent)[:300], ", ".join(f"{name}={meta['missing'][name]}" for name in absent)[:300]
            raise TypeError(
                f"{path} does not hold {names}, because saved files hold no code. Pass what fit had: {cls.__name__}.load(path, "
                f"{passed})."
            )
        return params | known | given

    @one_thread_if_forked
    def _restore(self, path, values):
        n_columns = {name: matrix.shape[1] for name, matrix in self._encoded().items()}
        with private_random_state(0, torch.device("cpu")):  # a constructor draws parameters, which are not kept
            module = build_module(self, (self.n_users_, self.n_items_), self.feature_categories_, n_columns)
            loss = None if values.get("loss") is None else make_loss(self.loss, self._options("loss"), self._levels).own
        state = {name: value for name, value in vars(self).items() if is_fitted_attribute(name)}
        found = {"module_": _filled(path, "module", self.module, module.to("cpu", getattr(torch, self.dtype)), values["module"])}
        if values.get("loss") is not None:
            if loss is None:
                raise ValueError(
                    f"{path} holds the parameters of a loss, and loss={self.loss!r} has none. Pass the loss that fit had."
                )
            found["loss_"] = _filled(path, "loss", loss, loss.to("cpu", getattr(torch, self.dtype)), values["loss"])
        return self._publish(state | found)

    def _levels(self):
        """The distinct ratings that made the loss, as ``make_loss`` asks for them; their weights are in what was trained."""
        return self.levels_, np.ones(len(self.levels_))


def _filled(path, part, given, module, tensors):
    """A module with the tensors of a file, in evaluation mode."""
    try:
        module.load_state_dict(tensors)
    except (RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
        name, reason = getattr(given, "__name__", type(given).__name__), " ".join(str(error).split()).rstrip(". ")
        raise ValueError(
            f"The tensors of {path} do not fit {part} {name}: {reason}. Pass the {part} and the {part}__* that fit had."
        ) from None
    return module.eval()


def _is_data(value):
    try:
        pack({"": str(value) if isinstance(value, torch.device) else value})
    except TypeError:
        return False
    return True
