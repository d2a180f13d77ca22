"""The fitted state of an estimator: set at once and together, written to a file, read from one."""

import copy
import functools
import os

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from sk_torchmf.inputs.effects import Effect
from sk_torchmf.inputs.encoders import FeatureEncoder, Passthrough
from sk_torchmf.inputs.stored_pattern import StoredPattern
from sk_torchmf.metrics._scorer import RankingScorer, ranking_scorer
from sk_torchmf.storage.archive import check_path, naming, read, write
from sk_torchmf.storage.packing import pack, unpack

FOR_MORE = ("observed_", "observed_features_", "pair_weights_", "optimizer_state_")  # what only partial_fit needs
RETIRED = ("sketch_", "residual_square_", "rating_measure_", "_biased")  # of files that earlier versions wrote
SCORERS = {"ranking_scorer": ranking_scorer}  # what makes a scorer, by the name that a file may have for it
ENCODERS = {kind.__name__: kind for kind in (FeatureEncoder, Passthrough)}  # likewise; their state is plain values
_CALLBACKS = ("_skl_callbacks", "_parent_callback_ctx")  # scikit-learn's; they are code, and not the model's


class Factorization(BaseEstimator):
    """Base of every estimator of this package: fitted attributes are set by one method, all of them or none."""

    # parameters
    user: int | str
    item: int | str
    handle_unknown: str
    # what fit leaves
    users_: np.ndarray
    items_: np.ndarray
    n_users_: int
    n_items_: int
    seen_: sp.csr_array
    user_counts_: np.ndarray  # weighted number of observations
    item_counts_: np.ndarray
    form_: str

    @classmethod
    @functools.cache
    def _get_param_names(cls):
        """Read the signature once for a class: scikit-learn does it anew whenever it asks for parameters, three times in a fit."""
        return super()._get_param_names()

    def _validate_params(self):
        with np.errstate(over="ignore"):  # of a number in half precision beside the limits of its parameter
            super()._validate_params()
        for name, rules in self._parameter_constraints.items():
            if isinstance(value := getattr(self, name), bool | np.bool_) and not {"boolean", "verbose"}.intersection(_names(rules)):
                raise ValueError(f"{name} must be a number, not a switch. Got {value}.")

    def __sklearn_is_fitted__(self):
        return "users_" in vars(self)

    def _publish(self, attributes):
        """Become the estimator that has these fitted attributes and no others, in one step."""
        params = self.get_params(deep=False)
        kept = {name: value for name, value in vars(self).items() if name in params or not is_fitted_attribute(name)}
        self.__dict__ = kept | attributes
        return self

    def _as_fitted(self, attributes):
        """Another estimator, of the same parameters, that has these fitted attributes: for scorers and callbacks."""
        return copy.copy(self)._publish(attributes)


def _names(rules):
    """Those of a parameter's rules that are words."""
    return {rule for rule in rules if isinstance(rule, str)}


def is_fitted_attribute(name):
    """Whether an attribute is one that ``fit`` leaves, by its name."""
    return name.endswith("_") and not name.startswith("_")


class SavedEstimator(Factorization):
    """An estimator that goes into a file and comes back."""

    def save(self, path, *, ratings=True):
        """Write it to a file, as ``load`` reads it; ``ratings`` says whether with what only ``partial_fit`` needs."""
        check_path(path)
        check_is_fitted(self)
        values, beside = self._content(ratings)
        tree, arrays = pack(values | {"state": folded(values["state"])})
        write(path, {"estimator": type(self).__name__, "values": tree} | beside, arrays)
        return self

    @classmethod
    def load(cls, path):
        """Read an estimator of this class that ``save`` wrote."""
        return cls._load(path, {})

    @classmethod
    def _load(cls, path, given):
        """Read an estimator; ``given`` are parameters that count more than the file's."""
        path = check_path(path)
        meta, arrays = read(path)
        with naming(path):
            values = unpack(meta["values"], arrays)
            values["state"] = unfolded(_without_retired(values["state"]))
        return cls._made(path, meta, values, given)

    @classmethod
    def _made(cls, path, meta, values, given):
        """The estimator of what was read from a path."""
        with naming(path):
            name, params, state = meta.get("estimator"), dict(values["params"]), dict(values["state"])
            if isinstance(params.get("scoring"), dict):
                ((maker, options),) = params["scoring"].items()
                params["scoring"] = SCORERS[maker](**options)
            params, state = _with_encoders(params), _with_encoders(state)
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
            for attribute in state:
                if not _is_free(cls, attribute):
                    raise ValueError(f"{attribute[:80]!r} is nothing that fit leaves")
            estimator._publish(state)
            _set_requests(estimator, values["requests"])
            estimator._check_shapes()
        return estimator._restore(path, values)

    @classmethod
    def _has_param(cls, name):
        return name in cls._get_param_names()

    @classmethod
    def _complete_params(cls, path, params, meta, given):
        """The parameters to make the estimator with: the file's, and what is given."""
        return params | given

    def _content(self, ratings):
        """What ``save`` writes: values for ``pack`` once the state is ``folded``, and JSON beside them."""
        values, beside = self._values({name: _named(value) for name, value in self.get_params(deep=False).items()})
        if not ratings:
            values["state"] = {name: value for name, value in values["state"].items() if name not in FOR_MORE}
        return values, beside

    def _values(self, params):
        """What there is to write, and JSON beside it."""
        scoring = params.get("scoring")
        if callable(scoring):
            raise TypeError(
                f"scoring is {getattr(scoring, '__qualname__', scoring)}, which is code, and a saved file holds none. It holds the "
                "names of scikit-learn's scorers, and what ranking_scorer returns: use one of these, or set_params(scoring=None) "
                "before save, since only fit looks at it."
            )
        left_out = {*self.get_params(deep=False), *_CALLBACKS, "_metadata_request"}
        state = {name: value for name, value in vars(self).items() if name not in left_out}
        params, state = _without_encoders(params), _without_encoders(state)
        return {"params": params, "state": state, "requests": _requests(self)}, {}

    def _restore(self, path, values):
        """Make what is not written as it is, once all else is there; the estimator."""
        return self

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
    """Whether a file may set an attribute: a name that ``fit`` may leave, and not the class's own."""
    known = is_fitted_attribute(attribute) or attribute == "_sklearn_output_config"
    return attribute.isidentifier() and known and not hasattr(cls, attribute)


def _without_retired(state):
    """The state of a file without what only earlier versions had, which kept sums of the ratings alone."""
    dropped = (*RETIRED, *FOR_MORE) if "sketch_" in state else RETIRED
    return {name: value for name, value in state.items() if name not in dropped}


def folded(state):
    """The state with effects and what is on disk as plain values, and with the ratings as small integers where they are such,
    without their places where ``seen_`` has these.
    """
    if "effects_" in state:
        state = state | {"effects_": [effect.state() for effect in state["effects_"]]}
    if isinstance(state.get("seen_"), StoredPattern):
        state = state | {"seen_": state["seen_"].state()}
    if state.get("observed_") is None:
        return state
    observed, seen = state["observed_"], state["seen_"]
    values = observed.data
    for kind in (np.int8, np.int16):
        if np.abs(values).max(initial=0) < np.iinfo(kind).max and np.array_equal(values.astype(kind), values):
            values = values.astype(kind)
            break
    if observed.nnz != seen.nnz:  # pairs that were observed more than once
        values = sp.csr_array((values, observed.indices, observed.indptr), shape=observed.shape)
    return state | {"observed_": {"values": values, "dtype": str(observed.dtype)}}


def unfolded(state):
    """The state that ``folded`` was given."""
    if "effects_" in state:
        state = state | {"effects_": [Effect.from_state(one) for one in state["effects_"]]}
    if isinstance(state.get("seen_"), dict):
        state = state | {"seen_": StoredPattern(**state["seen_"])}
    if state.get("observed_") is None:
        return state
    values, dtype, seen = state["observed_"]["values"], state["observed_"]["dtype"], state["seen_"]
    places = values if sp.issparse(values) else seen
    data = (values.data if sp.issparse(values) else values).astype(dtype)
    observed = sp.csr_array((data, places.indices, places.indptr), shape=seen.shape)
    observed.indices, observed.indptr = places.indices, places.indptr
    return state | {"observed_": observed}


def _without_encoders(values):
    """Values with encoders, parameters or fitted, as plain values; those that are other people's code are refused."""
    found = dict(values)
    for name in values.keys() & {f"{role}_encoder{end}" for role in ("user", "item") for end in ("", "_")}:
        encoder = values[name]
        if type(encoder).__name__ in ENCODERS:
            found[name] = {"encoder": type(encoder).__name__, "state": vars(encoder)}
        elif not isinstance(encoder, str):
            raise TypeError(
                f"{name} is a {type(encoder).__name__}, which is code, and a saved file holds none. It holds FeatureEncoder, "
                '"auto" and "passthrough": encode before fit and use "passthrough", or keep the model by joblib or skops.'
            )
    return found


def _with_encoders(values):
    """The values that ``_without_encoders`` was given."""
    found = dict(values)
    for name, value in values.items():
        if isinstance(value, dict) and value.keys() == {"encoder", "state"}:
            found[name] = ENCODERS[value["encoder"]]()
            found[name].__dict__.update(value["state"])
    return found


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
