"""Numbers of any size as ratings, weights and parameters: the answer is finite, or an error says what to do."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from sk_torchmf import (
    BiasedMatrixFactorization,
    DivergenceError,
    ImplicitMatrixFactorization,
    Interactions,
    MatrixFactorization,
    TorchFactorization,
    nn,
)
from sk_torchmf.metrics._scorer import r2
from sk_torchmf.solvers import RATING_SOLVERS
from sk_torchmf.spotlight import rmse_score

pytestmark = pytest.mark.usefixtures("one_thread")

RNG = np.random.default_rng(0)
USER, ITEM = RNG.integers(0, 8, 40), RNG.integers(0, 6, 40)
X = np.column_stack([USER, ITEM])
TYPICAL = RNG.integers(1, 6, 40).astype(float)

RATINGS = {
    "one huge": np.where(np.arange(40) == 7, 1e30, TYPICAL),
    "one huge, of few": np.where(np.arange(40) == 7, 1e12, 1.0),
    "from 1e-18 to 1e18": 10.0 ** RNG.uniform(-18, 18, 40),
    "from 1e-34 to 1e34": 10.0 ** RNG.uniform(-34, 34, 40),
    "large": 1e34 * TYPICAL,
    "small": 1e-35 * TYPICAL,
    "near 1e4": RNG.normal(1e4, 10, 40),
    "alike": np.full(40, 1e20),
    "zero": np.zeros(40),
    "integers": np.full(40, 2**62),
    "half precision": TYPICAL.astype(np.float16),
    "booleans": TYPICAL > 3,
}


def check(make, *args, **kwargs):
    """A fit gives finite answers, or says what to do."""
    try:
        model = make().fit(*args, **kwargs)
    except DivergenceError as error:
        what_to_do = [words for words in ("Lower", "Raise", "Check") if words in str(error)]
        assert what_to_do, error  # noqa: PT017 - one of two right ends
        return
    known = np.unique(args[0][:, 0]) if isinstance(args[0], np.ndarray) else np.arange(8)
    for predicted in (model.predict(X), model.predict(known[0]), model.predict([99], [99])):
        assert np.isfinite(predicted).all()
    assert np.isfinite(model.recommend(exclude_seen=False, k=3)[1]).all()
    if hasattr(model, "fold_in"):
        largest = min(getattr(model, "rating_range_", np.ones(2))[1], 1e30 * getattr(model, "rating_scale_", 1.0))
        assert np.isfinite(model.fold_in(sp.csr_array(([largest], ([0], [2])), shape=(2, model.n_items_)))).all()
    if getattr(model, "user_posterior_", None) is not None:
        assert np.isfinite(model.predict(X, return_std=True)[1]).all()


@pytest.mark.parametrize("rating", RATINGS.values(), ids=RATINGS)
@pytest.mark.parametrize("loss", ["squared_error", "huber", "poisson"])
@pytest.mark.parametrize("solver", RATING_SOLVERS)
@pytest.mark.parametrize("kind", [MatrixFactorization, BiasedMatrixFactorization])
def test_ratings_of_any_size(kind, solver, loss, rating):
    for alpha in (0.0, 0.1) if solver != "variational" else (0.1,):
        check(lambda alpha=alpha: kind(n_factors=3, solver=solver, loss=loss, alpha=alpha, random_state=0, max_iter=4), X, rating)


@pytest.mark.parametrize("rating", RATINGS.values(), ids=RATINGS)
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "lbfgs"])
@pytest.mark.parametrize("lr", [0.1, 1e30])
def test_ratings_of_any_size_in_a_module(optimizer, lr, rating):
    options = {"optimizer": optimizer, "optimizer__lr": lr, "module__n_factors": 3, "max_iter": 3, "batch_size": None}
    check(lambda: TorchFactorization(nn.BiasedMF, random_state=0, **options), X, rating)


class Product(torch.nn.Module):
    """Scores that overflow while the parameters do not."""

    def __init__(self, n_users, n_items):
        super().__init__()
        self.user, self.item = torch.nn.Parameter(torch.ones(n_users)), torch.nn.Parameter(torch.ones(n_items))

    def forward(self, user, item):
        return self.user[user] * self.item[item]


def test_a_last_step_that_diverges_is_told():
    # the loss of an epoch is that of the step's start, so the last step shows in the parameters alone
    make = TorchFactorization(Product, optimizer="sgd", optimizer__lr=1e30, max_iter=1, batch_size=None, random_state=0)
    with pytest.raises(
        DivergenceError, match=r"module_ is not finite after epoch 1 \(optimizer__lr=1e\+30\)\. Lower optimizer__lr"
    ):
        make.fit(X, 1e15 * TYPICAL)
    assert not hasattr(make, "module_")


def test_scores_that_overflow_are_told():
    model = TorchFactorization(Product, optimizer="sgd", optimizer__lr=1e25, max_iter=1, batch_size=None, random_state=0).fit(
        X, TYPICAL
    )
    for call in (lambda: model.predict(X), lambda: model.recommend(k=2), lambda: model.score(X, TYPICAL)):
        with pytest.raises(DivergenceError, match=r"module Product returned -?inf for .* of .* pairs: its parameters have grown"):
            call()


@pytest.mark.parametrize("solver", RATING_SOLVERS)
@pytest.mark.parametrize("fill", [1e-300, 1e300, 1e-30, 1e30])
def test_weights_of_any_size(solver, fill):
    make = BiasedMatrixFactorization(n_factors=3, solver=solver, random_state=0, max_iter=4)
    for weight in (np.full(40, fill), np.where(np.arange(40) < 20, fill, 1.0), np.where(np.arange(40) < 39, 0.0, fill)):
        if not 1e-30 <= weight.max() <= 1e30:
            with pytest.raises(ValueError, match=r"The largest of sample_weight must lie between 1e-30 and 1e\+30\. Got .*Rescale"):
                make.fit(X, TYPICAL, sample_weight=weight)
        else:
            check(lambda: make, X, TYPICAL, sample_weight=weight)


@pytest.mark.parametrize("loss", ["ials", "logistic", "bpr", "softmax", "cosine"])
@pytest.mark.parametrize("fill", [1e-300, 1e-30, 1e29])
def test_weights_of_positives_of_any_size(loss, fill):
    for weight in (np.where(np.arange(40) < 20, fill, 1.0), np.where(np.arange(40) < 39, 1e-30, fill)):
        if weight.max() >= 1e-30:
            wide = Interactions(USER, ITEM, weights=weight, num_users=9, num_items=9)
            check(lambda: ImplicitMatrixFactorization(n_factors=3, loss=loss, random_state=0, max_iter=3), wide)


@pytest.mark.parametrize("solver", RATING_SOLVERS)
@pytest.mark.parametrize(
    "params", [{"alpha": 1e30}, {"alpha": 1e-300}, {"learning_rate": 1e30}, {"learning_rate": 1e-30}, {"tol": 1e300}]
)
def test_parameters_of_any_size(solver, params):
    check(lambda: BiasedMatrixFactorization(n_factors=3, solver=solver, random_state=0, max_iter=4, **params), X, TYPICAL)


@pytest.mark.parametrize("loss", ["ials", "logistic", "bpr", "softmax", "cosine"])
@pytest.mark.parametrize(
    "params",
    [
        {"alpha": 1e30},
        {"alpha": 1e-300},
        {"confidence": 1e29},
        {"confidence": 1e-30},
        {"temperature": 1e30},
        {"temperature": 1e-30},
    ],
)
def test_parameters_of_positives_of_any_size(loss, params):
    if "temperature" in params and loss != "cosine":
        params = {}
    wide = Interactions(USER, ITEM, num_users=9, num_items=9)
    check(lambda: ImplicitMatrixFactorization(n_factors=3, loss=loss, random_state=0, max_iter=3, **params), wide)


@pytest.mark.parametrize(
    ("name", "value"), [("alpha", 1e300), ("learning_rate", 1e300), ("learning_rate", 1e-300), ("alpha", np.inf)]
)
def test_parameters_that_float32_cannot_hold_are_refused(name, value):
    with pytest.raises(ValueError, match=rf"The '{name}' parameter of MatrixFactorization must be a float in the range"):
        MatrixFactorization(solver="adam", **{name: value}).fit(X, TYPICAL)


@pytest.mark.parametrize("size", [1e36, 1e300, 1e-37, 1e-300])
def test_ratings_that_float32_cannot_hold_are_refused(size):
    model = MatrixFactorization(random_state=0).fit(X, TYPICAL)
    module = TorchFactorization(nn.BiasedMF, module__n_factors=3, random_state=0)
    sparse = sp.csr_array((size * TYPICAL, (USER, ITEM)), shape=(8, 6))
    words = r"The largest of .* must lie between 1e-35 and 1e35 in absolute value\. Got .*\. Rescale the ratings\."
    for call in (
        lambda: MatrixFactorization().fit(X, size * TYPICAL),
        lambda: MatrixFactorization().fit(sparse),
        lambda: module.fit(X, size * TYPICAL),
        lambda: model.partial_fit(X, size * TYPICAL),
        lambda: model.fold_in(sparse),
        lambda: model.score(sparse),
        lambda: model.score(X, size * TYPICAL),
        lambda: model.predict_left_out(sparse),
    ):
        with pytest.raises(ValueError, match=words):
            call()


def test_new_users_out_of_proportion_are_refused():
    model = MatrixFactorization(random_state=0).fit(X, 1e-30 * TYPICAL)
    with pytest.raises(
        ValueError, match=r"New users' ratings must be at most 1e\+30 times the standard deviation of those that fit saw"
    ):
        model.fold_in(sp.csr_array(([1e30], ([0], [2])), shape=(1, 6)))
    with pytest.raises(ValueError, match=r"rows must be finite numbers of at most 1e\+200 in absolute value\. Got 1e\+300"):
        model.inverse_transform(np.full((1, 32), 1e300))
    assert np.isfinite(model.inverse_transform(np.full((1, 32), 1e200))).all()


def test_a_mean_count_is_finite_whatever_the_score():
    poisson = nn.POINTWISE["poisson"]
    for dtype in (torch.float32, torch.float64):
        response = poisson.response(torch.tensor([1e30, 1e4, 100.0, 2.0, -1e30], dtype=dtype))
        assert response.isfinite().all()
        assert response[3] == torch.tensor(2.0, dtype=dtype).exp()
        assert response[4] == 0


class Far:
    """A model whose predictions are finite, and their squares are not."""

    def predict(self, user, item):
        return np.full(len(user), 1e200)


def test_scores_of_predictions_far_off_are_finite():
    assert r2(np.array([1.0, 2.0]), np.array([1e200, 1e200])) == -np.finfo(np.float64).max
    assert rmse_score(Far(), Interactions([0, 1], [0, 1], [1.0, 2.0])) == pytest.approx(1e200)
    with pytest.raises(ValueError, match=r"user_factors must be at most 1e\+30 in absolute value\. Got 1e\+100"):
        MatrixFactorization(n_factors=1, dtype="float64").set_factors(np.full((2, 1), 1e100), np.ones((2, 1)))
