"""Numbers as parameters: NumPy's of any width do what Python's do, wherever a parameter takes an int or a float."""

from numbers import Integral, Real

import numpy as np
import pytest
from every_estimator import ESTIMATORS
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.utils._param_validation import Interval

from sk_torchmf import ImplicitMatrixFactorization, MatrixFactorization, TorchFactorization, datasets, nn

pytestmark = pytest.mark.usefixtures("one_thread")

DATA = datasets.make_ratings(n_users=20, n_items=15, n_ratings=150, random_state=0)
FLOATS = [np.float16, np.float32, np.float64, np.longdouble]
INTS = [np.int8, np.uint16, np.int32, np.uint64]  # each width once, signed and unsigned

VALUES = {  # each is exact in half precision
    "n_factors": 3,
    "alpha": 0.5,
    "confidence": 8.0,
    "learning_rate": 0.125,
    "temperature": 0.5,
    "tol": 0.25,
    "validation_fraction": 0.25,
    "n_iter_no_change": 2,
    "max_iter": 4,
    "batch_size": 64,
    "n_negatives": 2,
    "n_processes": 1,
    "user": 1,
    "item": 0,
    "time": 2,
    "verbose": 0,
    "optimizer__lr": 0.125,
    "module__n_factors": 3,
    "parameter_options": {"user*": {"lr": 0.25}},
}
WITH = {  # what makes a parameter count
    "learning_rate": {"solver": "adam"},
    "batch_size": {"solver": "adam"},
    "alpha": {"solver": "als"},
    "temperature": {"loss": "cosine"},
    "n_negatives": {"loss": "bpr"},
    "validation_fraction": {"early_stopping": True},
    "n_iter_no_change": {"early_stopping": True, "max_iter": 12},
    "tol": {"max_iter": 12},
    "user": {"item": 0},
    "item": {"user": 1},
}
NUMERIC = {
    (name, parameter)
    for name, entry in ESTIMATORS.items()
    for parameter, rules in entry.kind._parameter_constraints.items()
    if rules != "no_validation" and any(isinstance(rule, Interval) for rule in rules)
} | {("torch", "optimizer__lr"), ("torch", "module__n_factors"), ("torch", "parameter_options")}


def as_type(value, kind):
    return {name: as_type(part, kind) for name, part in value.items()} if isinstance(value, dict) else kind(value)


def fitted(name, parameter, value):
    kind, params = ESTIMATORS[name].kind, {"max_iter": 2, "random_state": 0}
    if kind is TorchFactorization:
        params |= {"module": nn.BiasedMF, "module__n_factors": 3, "batch_size": 64}
    for other, wanted in WITH.get(parameter, {}).items():
        if other in kind._parameter_constraints and not (kind is TorchFactorization and other == "loss" and wanted == "softmax"):
            params[other] = wanted
    model = kind(**{**params, parameter: value})
    X = DATA.data[:, ::-1] if parameter in ("user", "item") else DATA.data
    if parameter == "time":
        X = np.column_stack([X, 60 * np.arange(len(X))])
    return model.fit(X, None if ESTIMATORS[name].positives else DATA.target), X


@pytest.mark.parametrize(("name", "parameter"), sorted(NUMERIC), ids=str)
def test_numpys_numbers_do_what_pythons_do(name, parameter, tmp_path):
    value = VALUES[parameter]
    expected, X = fitted(name, parameter, value)
    whole = parameter in VALUES and isinstance(value, int)
    for kind in INTS if whole else FLOATS:
        given = as_type(value, kind)
        model, _ = fitted(name, parameter, given)
        assert model.get_params()[parameter] is given  # scikit-learn's clone asks for the same object
        np.testing.assert_array_equal(model.predict(X), expected.predict(X))
        assert model.n_iter_ == expected.n_iter_
        for method in ("fold_in", "recommend"):
            if hasattr(model, method) and parameter not in ("user", "item"):
                new = DATA.interactions.tocsr()
                ours, theirs = (getattr(one, method)(new if hasattr(one, "fold_in") else None) for one in (model, expected))
                np.testing.assert_array_equal(ours[0], theirs[0])


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_a_saved_model_has_its_numbers(kind, tmp_path):
    model = MatrixFactorization(solver="als", alpha=kind(0.5), max_iter=2, random_state=np.int16(3)).fit(DATA.interactions)
    model.save(tmp_path / "model")
    loaded = MatrixFactorization.load(tmp_path / "model")
    assert loaded.alpha == 0.5
    np.testing.assert_array_equal(loaded.predict(DATA.interactions), model.predict(DATA.interactions))


def test_a_checkpoint_goes_on_whatever_the_numbers_are(tmp_path):
    fits = []
    for kind in (float, np.float32):
        model = MatrixFactorization(solver="adam", alpha=kind(0.5), max_iter=3, random_state=0, checkpoint=tmp_path / "c")
        fits.append(model.fit(DATA.interactions).predict(DATA.interactions))
    np.testing.assert_array_equal(*fits)


@pytest.mark.parametrize("make", [ImplicitMatrixFactorization, MatrixFactorization])
def test_a_grid_of_numpys_numbers(make):
    grid = {"alpha": np.logspace(-3, 0, 4).astype(np.float32), "n_factors": np.arange(1, 4, dtype=np.int8)}
    params = {"solver": "als"} if make is MatrixFactorization else {}
    search = GridSearchCV(make(max_iter=2, random_state=0, **params), grid, cv=2, error_score="raise").fit(DATA.interactions)
    assert isinstance(search.best_params_["alpha"], np.float32)
    assert isinstance(clone(search.best_estimator_).n_factors, Integral)
    assert isinstance(search.best_score_, Real)
