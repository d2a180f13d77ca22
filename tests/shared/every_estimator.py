"""Every estimator, entered once: small ones for the contracts that hold whatever is fitted, and checks that they cannot pass."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
import sklearn
import tutorial
from data import as_form
from every_loss import RATING_LOSSES, as_it_is
from sklearn.utils.fixes import parse_version

from sk_torchmf import (
    BiasedMatrixFactorization,
    ImplicitMatrixFactorization,
    Interactions,
    MatrixFactorization,
    TorchFactorization,
    nn,
)


@dataclass(frozen=True)
class Checked:
    """Parameters for scikit-learn's own checks, and why some of these must fail: by accident they pass only if not ``strict``."""

    params: Mapping = field(default_factory=dict)
    reasons: Mapping = field(default_factory=dict)
    strict: bool = True


@dataclass(frozen=True)
class Entry:
    """An estimator.

    Attributes
    ----------
    kind : type
        The class.
    params : Mapping
        Parameters with which it is small and the same every time.
    overfits : Mapping
        Parameters with which it overfits 400 ratings within some epochs.
    checked : Mapping of str to Checked
        What scikit-learn's own checks are run on.
    variants : Mapping of str to Mapping
        By name, further parameters that lead through other code.
    positives : bool
        Whether it learns from what was chosen, not from ratings.
    code : Mapping
        What ``load`` must be passed, since no file holds code.
    """

    kind: type
    params: Mapping
    overfits: Mapping
    checked: Mapping
    variants: Mapping = field(default_factory=dict)
    positives: bool = False
    code: Mapping = field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    """An entry or a variant of it; called with more parameters it is an unfitted estimator."""

    entry: Entry
    params: Mapping

    def __call__(self, **params):
        return self.entry.kind(**{**self.params, **params})

    @property
    def loss(self):
        return None if self.entry.positives else RATING_LOSSES[self.params.get("loss", "squared_error")]

    def rated(self, data):
        """The same pairs with ratings that its loss can mean."""
        rating = data.ratings if self.loss is None else self.loss.rated(data.ratings)
        return Interactions(data.user_ids, data.item_ids, rating, num_users=data.num_users, num_items=data.num_items)

    def arguments(self, data, form):
        """The arguments ``(X, y)`` of fit in a form; positives have no y."""
        X, y = as_form(self.rated(data), form)
        return X, None if self.entry.positives else y


OLDER = (
    {"check_sample_weight_equivalence_on_sparse_data": "passes a sparse X with a y whatever the tags say; later versions heed them"}
    if parse_version(sklearn.__version__) < parse_version("1.7")
    else {}
)
ROUNDING = {
    "check_sample_weight_equivalence_on_dense_data": (
        "float32 rounding: sums of repeated rows and weighted rows are rounded differently"
    )
}
NOTHING_TO_RANK = dict.fromkeys(
    [
        "check_estimators_dtypes",
        "check_sample_weights_pandas_series",
        "check_sample_weights_not_an_array",
        "check_fit2d_1sample",
    ],
    "its users have every item that there is, so that a ranking loss has nothing to rank them above, and says so",
)
OF_A_MODULE = {
    "check_no_attributes_set_in_init": "module__* and the like are parameters that no signature can list",
    "check_do_not_raise_errors_in_init_or_set_params": "a misspelt keyword is a TypeError at once, as of any function",
    "check_sample_weight_equivalence_on_dense_data": "ids of weight 0 keep a row of the module, so that others start elsewhere",
}
FACTORS = {"n_factors": 4, "random_state": 0}
OF_RATINGS = {
    "params": FACTORS,
    "overfits": {"n_factors": 16, "solver": "adam", "alpha": 1e-3, "max_iter": 100, "dtype": "float64"},
    "checked": {
        "float32": Checked({}, ROUNDING | OLDER, strict=False),
        "float64": Checked({"dtype": "float64"}, OLDER, strict=False),
    },
}

ESTIMATORS = {
    "plain": Entry(
        MatrixFactorization,
        **OF_RATINGS,
        variants={
            "als": {"solver": "als", "dtype": "float64", "clip": True},
            "adam": {"solver": "adam"},
            "logistic": {"loss": "logistic"},
        },
    ),
    "biased": Entry(BiasedMatrixFactorization, **OF_RATINGS, variants={"als": {"solver": "als"}, "poisson": {"loss": "poisson"}}),
    "implicit": Entry(
        ImplicitMatrixFactorization,
        params=FACTORS,
        overfits={"n_factors": 16, "loss": "bpr", "max_iter": 60},
        checked={
            "cosine": Checked({}, NOTHING_TO_RANK | OLDER, strict=False),
            "float32": Checked({"loss": "ials"}, OLDER, strict=False),  # repeated rows are summed before any rounding
            "float64": Checked({"loss": "ials", "dtype": "float64"}, OLDER, strict=False),
            "softmax": Checked({"loss": "softmax"}, NOTHING_TO_RANK | OLDER, strict=False),
        },
        variants={
            "ials": {"loss": "ials"},
            "biased": {"biased": True, "loss": "logistic"},
            "popularity": {"loss": "bpr", "negatives": "popularity"},
        },
        positives=True,
    ),
    "torch": Entry(
        TorchFactorization,
        params={
            "module": tutorial.Biased,
            "module__n_factors": 4,
            "module__sparse": False,
            "optimizer__lr": 0.05,
            "max_iter": 30,
            "batch_size": 128,
            "random_state": 0,
        },
        overfits={"module": nn.BiasedMF, "loss": "MSELoss", "optimizer__lr": 0.1, "module__n_factors": 16, "max_iter": 60},
        checked={
            "module": Checked(
                {"module": nn.BiasedMF, "module__n_factors": 3, "max_iter": 5, "batch_size": None, "optimizer__lr": 0.05},
                OF_A_MODULE | OLDER,
            )
        },
        code={"module": tutorial.Biased},
    ),
}
MODELS = {
    name + (f", {variant}" if variant else ""): Model(entry, {**entry.params, **more})
    for name, entry in ESTIMATORS.items()
    for variant, more in {"": {}, **entry.variants}.items()
}


def models_where(condition):
    """Parametrises a test by ``make``, the models for which a condition holds."""
    chosen = {name: model for name, model in MODELS.items() if condition(model)}
    return pytest.mark.parametrize("make", chosen.values(), ids=chosen)


every_model = models_where(lambda model: True)
of_ratings = models_where(lambda model: model.loss is not None and model.loss.rated is as_it_is)
of_ratings_or_positives = models_where(lambda model: model.loss is None or model.loss.rated is as_it_is)  # not of counts or signs
