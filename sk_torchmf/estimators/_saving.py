"""``save`` and ``load`` of estimators: what of one goes into a file, and what of a file may go into one."""

import os

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from sk_torchmf.metrics._scorer import RankingScorer, ranking_scorer
from sk_torchmf.storage.archive import check_path, naming, read, write
from sk_torchmf.storage.packing import pack, unpack

SCORERS = {"ranking_scorer": ranking_scorer}  # what makes a scorer, by the name that a file may have for it
_CALLBACKS = ("_skl_callbacks", "_parent_callback_ctx")  # scikit-learn's; they are code, and not the model's


class SavedEstimator(BaseEstimator):
    """An estimator that goes into a file and comes back."""

    # what fit leaves
    users_: np.ndarray
    items_: np.ndarray
    n_users_: int
    n_items_: int
    seen_: sp.csr_array
    user_counts_: np.ndarray  # weighted number of observations
    item_counts_: np.ndarray

    def save(self, path):
        """Write the fitted estimator to a file, without pickle.

        The file is an ``.npz`` of arrays with a JSON part for parameters and all else; ``numpy.load`` reads the arrays. It is
        written whole or not at all, in the place of what was there.

        Parameters
        ----------
        path : str or os.PathLike
            Any extension or none.

        Returns
        -------
        self
            The estimator itself.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        TypeError
            For ids or parameters that are objects of a kind that a file without code cannot hold. Ids may be numbers, str, bytes,
            times, dates and UUIDs. A ``RandomState`` is kept with its state, a ``torch.device`` and a path as their names, as
            ``scoring`` a name or what ``ranking_scorer`` returns; callbacks are left out.
        OSError
            Where the folder does not exist or cannot be written to, or the path is a folder.
        """
        check_path(path)
        check_is_fitted(self)
        params = {name: _named(value) for name, value in self.get_params(deep=False).items()}
        values, beside = self._values(params)
        tree, arrays = pack(values)
        write(path, {"estimator": type(self).__name__, "values": tree} | beside, arrays)
        return self

    @classmethod
    def load(cls, path):
        """Read a fitted estimator that ``save`` wrote.

        Nothing in the file is run, imported or unpickled. A model fitted on CUDA loads without it: the fitted state is NumPy, and
        the parameter ``device`` is not looked at before the next ``fit``.

        Parameters
        ----------
        path : str or os.PathLike
            What ``save`` was given.

        Returns
        -------
        estimator
            Of this class, with its parameters and all that ``fit`` left.

        Raises
        ------
        ValueError
            For the file of another estimator or of a newer version, for one that is truncated or damaged, and any other file.
        OSError
            Where there is no such file or it cannot be read.
        """
        return cls._load(path, {})

    @classmethod
    def _load(cls, path, given):
        """Read an estimator; ``given`` are parameters that count more than the file's."""
        path = check_path(path)
        meta, arrays = read(path)
        with naming(path):
            name, values = meta.get("estimator"), unpack(meta["values"], arrays)
            params, state = dict(values["params"]), dict(values["state"])
            if isinstance(params.get("scoring"), dict):
                ((maker, options),) = params["scoring"].items()
                params["scoring"] = SCORERS[maker](**options)
            if not isinstance(name, str):
                raise ValueError("it holds no estimator")
        if name != cls.__name__:
            raise ValueError(f"{path} holds a {name[:80]}, not a {cls.__name__}. Use {name[:80]}.load.")
        params = cls._complete_params(path, params, meta, given)
        for unknown in params:
            if not cls._has_param(unknown):
                raise ValueError(
                    f"{path} has a parameter {unknown[:80]!r}, which {cls.__name__} has not in this version. Upgrade sk_torchmf."
                )
        estimator = cls(**params)
        with naming(path):
            for attribute, value in state.items():
                if not _is_free(cls, attribute):
                    raise ValueError(f"{attribute[:80]!r} is nothing that fit leaves")
                setattr(estimator, attribute, value)
            _set_requests(estimator, values["requests"])
            estimator._check_shapes()
        estimator._restore(path, values)
        return estimator

    @classmethod
    def _has_param(cls, name):
        return name in cls._get_param_names()

    @classmethod
    def _complete_params(cls, path, params, meta, given):
        """The parameters to make the estimator with: the file's, and what is given."""
        return params | given

    def _values(self, params):
        """What there is to write: values for ``pack``, and JSON beside them."""
        scoring = params.get("scoring")
        if callable(scoring):
            raise TypeError(
                f"scoring is {getattr(scoring, '__qualname__', scoring)}, which is code, and a saved file holds none. It holds the "
                "names of scikit-learn's scorers, and what ranking_scorer returns: use one of these, or set_params(scoring=None) "
                "before save, since only fit looks at it."
            )
        left_out = {*self.get_params(deep=False), *_CALLBACKS, "_metadata_request"}
        state = {name: value for name, value in vars(self).items() if name not in left_out}
        return {"params": params, "state": state, "requests": _requests(self)}, {}

    def _restore(self, path, values):
        """Make what is not written as it is, once all else is there."""

    def _shapes(self):
        """The shapes that fitted attributes must have, for those who use one to index another."""
        n_users, n_items = self.n_users_, self.n_items_
        return {
            "users_": (n_users,),
            "items_": (n_items,),
            "seen_": (n_users, n_items),
            "user_counts_": (n_users,),
            "item_counts_": (n_items,),
        }

    def _check_shapes(self):
        for name, shape in self._shapes().items():
            value = getattr(self, name)
            if value.shape != shape:
                raise ValueError(f"{name} has shape {value.shape}, where {shape} is due")
            if name not in ("users_", "items_") and value.dtype.kind not in "fiub":
                raise ValueError(f"{name} has dtype {value.dtype}, where numbers are due")


def _is_free(cls, attribute):
    """Whether a file may set an attribute: a name that is not the class's own, methods and constants."""
    own = attribute.startswith("__") or attribute in (*_CALLBACKS, "_metadata_request")
    return attribute.isidentifier() and not own and (attribute == "_biased" or not hasattr(cls, attribute))


def _requests(estimator):
    """What ``set_fit_request`` and its like have set, as a dict of dicts."""
    if "_metadata_request" not in vars(estimator):
        return {}
    routing = estimator.get_metadata_routing()
    return {method: dict(part.requests) for method, part in vars(routing).items() if hasattr(part, "requests")}


def _set_requests(estimator, requests):
    if not requests:
        return
    routing = estimator.get_metadata_routing()
    for method, wanted in requests.items():
        part = vars(routing)[method]
        for param, alias in wanted.items():
            part.add_request(param=param, alias=alias)
    estimator._metadata_request = routing


def _named(value):
    """A device and a path by their names, which ``fit`` takes as well, a ranking scorer by its options; all else as it is."""
    if isinstance(value, RankingScorer):
        return {"ranking_scorer": vars(value)}
    return str(value) if isinstance(value, torch.device | os.PathLike) else value
