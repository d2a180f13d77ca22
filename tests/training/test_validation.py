"""What an epoch is worth: the best one, the slice or the caller's own data, any scorer."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from every_estimator import ESTIMATORS
from every_solver import DATA, LIKED, SOLVERS, torch_model
from numpy.testing import assert_allclose
from overfitting import OVERFITS
from sklearn import config_context
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, OrdinalEncoder

from sk_torchmf import BiasedMatrixFactorization, ImplicitMatrixFactorization, Interactions, TorchFactorization, nn
from sk_torchmf.inputs.holdout import hold_out
from sk_torchmf.model_selection import ranking_scorer
from sk_torchmf.training.validation import best_epoch, has_stalled

pytestmark = pytest.mark.usefixtures("one_thread")
TABLE = np.column_stack([DATA.user_ids, DATA.item_ids])


# when to stop


def test_the_best_epoch_is_the_first_with_the_best_figure():
    assert best_epoch({"loss": [0] * 4, "validation_loss": [3.0, 1.0, 1.0, 2.0]}) == 1
    assert best_epoch({"loss": [0] * 4, "validation_score": [3.0, 1.0, 4.0, 4.0]}) == 2
    assert best_epoch({"loss": [0] * 3, "validation_score": [np.nan, -5.0, np.nan]}) == 1
    assert best_epoch({"loss": [0] * 2, "validation_loss": [np.inf, np.nan]}) == 0


@pytest.mark.parametrize(
    ("losses", "stops_at"),
    [([5, 4, 3, 3, 3, 3, 3], 6), ([5, 4, 3, 2, 1], None), ([5, 6, 7, 4, 5, 6, 7], 7), ([1, 0.999, 0.998, 0.997], 4)],
)
def test_it_stops_after_n_iter_no_change_epochs_without_a_better_one(losses, stops_at):
    found = None
    for n in range(1, len(losses) + 1):
        if has_stalled({"loss": losses[:n], "validation_loss": losses[:n]}, 0.01, 3):
            found = n
            break
    assert found == stops_at


def test_weights_and_repeated_rows_are_equivalent():
    times = 1 + np.arange(len(DATA)) % 3
    options = {"early_stopping": True, "max_iter": 15, "random_state": 0, "dtype": "float64", "tol": 0}
    weighted = BiasedMatrixFactorization(4, **options).fit(DATA, sample_weight=times)
    repeated = BiasedMatrixFactorization(4, **options).fit(DATA[np.repeat(np.arange(len(DATA)), times)])
    assert_allclose(weighted.history_["validation_loss"], repeated.history_["validation_loss"], rtol=1e-8)
    assert weighted.best_iter_ == repeated.best_iter_
    dropped = np.arange(len(DATA)) % 5 > 0
    without = BiasedMatrixFactorization(4, **options).fit(TABLE[dropped], DATA.ratings[dropped])
    zero = BiasedMatrixFactorization(4, **options).fit(TABLE, DATA.ratings, sample_weight=dropped.astype(float))
    assert_allclose(zero.history_["validation_loss"], without.history_["validation_loss"], rtol=1e-8)


def test_the_three_forms_hold_the_same_pairs_out():
    options = {"early_stopping": True, "max_iter": 8, "random_state": 0, "dtype": "float64"}
    forms = {
        "container": (DATA,),
        "matrix": (DATA.tocsr(),),
        "table": (TABLE, DATA.ratings),
        "frame": (pd.DataFrame(TABLE), DATA.ratings),
    }
    found = [BiasedMatrixFactorization(4, **options).fit(*form).history_["validation_loss"] for form in forms.values()]
    for other in found[1:]:
        assert_allclose(other, found[0], rtol=1e-8)
    liked = {"container": LIKED, "matrix": LIKED.tocsr(), "table": np.column_stack([LIKED.user_ids, LIKED.item_ids])}
    options = {"early_stopping": True, "max_iter": 8, "random_state": 0, "dtype": "float64"}
    found = [ImplicitMatrixFactorization(4, **options).fit(form).history_["validation_score"] for form in liked.values()]
    for other in found[1:]:
        assert_allclose(other, found[0], rtol=1e-6)


def test_a_spotlight_container_can_be_cut():
    class Foreign:
        user_ids, item_ids, ratings, timestamps, weights = DATA.user_ids, DATA.item_ids, DATA.ratings, None, None
        num_users, num_items = DATA.num_users, DATA.num_items

    found, expected = (
        BiasedMatrixFactorization(4, early_stopping=True, max_iter=3, random_state=0).fit(X) for X in (Foreign(), DATA)
    )
    assert found.history_["validation_loss"] == expected.history_["validation_loss"]


@pytest.mark.parametrize("scoring", ["neg_mean_absolute_error", ranking_scorer("ndcg", k=5, threshold=3.5), "own"])
@pytest.mark.parametrize("kind", [name for name, entry in ESTIMATORS.items() if not entry.positives])
def test_any_scorer_decides(kind, scoring):
    def own(estimator, X, y):
        return -float(np.abs(estimator.predict(X) - y).max())

    model = OVERFITS[kind](early_stopping=True, refit=False, scoring=own if scoring == "own" else scoring).fit(TABLE, DATA.ratings)
    values = model.history_["validation_score"]
    assert "validation_loss" not in model.history_
    assert model.best_score_ == max(values)
    held = hold_out(DATA.user_ids, DATA.item_ids, 0.1, np.random.RandomState(0).randint(2**31 - 1))
    if scoring == "neg_mean_absolute_error":
        error = np.abs(model.predict(TABLE[held]) - DATA.ratings[held]).mean()
        assert model.best_score_ == pytest.approx(-error, rel=1e-6)


def test_a_scorer_that_returns_no_number_is_an_error():
    with pytest.raises(TypeError, match=r"scoring must return a number\. Got str"):
        SOLVERS["adam"].make(early_stopping=True, scoring=lambda *args: "good").fit(DATA)


# data of the caller's own


class ByDay(nn.PlainMF):
    def __init__(self, n_users, n_items):
        super().__init__(n_users, n_items, 2)

    def forward(self, user, item, day):
        return super().forward(user, item) + day


TRAIN, VALID = DATA[:320], DATA[320:]


@pytest.mark.parametrize("stopping", [False, True])
def test_own_validation_data_are_scored_each_epoch(stopping):
    models = [
        BiasedMatrixFactorization(4, solver="als", max_iter=n, tol=0, early_stopping=stopping, n_iter_no_change=9, random_state=0)
        for n in range(1, 5)
    ]
    for model in models:
        model.fit(TRAIN, X_val=VALID)
    found = models[-1].history_["validation_loss"]
    for n, model in enumerate(models):
        if stopping and model.best_iter_ != model.n_iter_:
            continue
        expected = np.square((model.predict(VALID) - VALID.ratings) / model.rating_scale_).mean()
        assert found[n] == pytest.approx(expected, rel=1e-5)  # float32
    assert hasattr(models[0], "best_iter_") == stopping
    assert models[-1].user_counts_.sum() == len(TRAIN)  # nothing was held out


def test_validation_data_take_weights_from_their_container():
    weights = 1.0 + np.arange(len(VALID))
    weighted = Interactions(VALID.user_ids, VALID.item_ids, VALID.ratings, weights=weights, num_users=40, num_items=25)
    model = SOLVERS["als"].make().fit(TRAIN, X_val=weighted)
    error = np.square((model.predict(VALID) - VALID.ratings) / model.rating_scale_)
    assert model.history_["validation_loss"][-1] == pytest.approx(np.average(error, weights=weights), rel=1e-5)


def test_a_sparse_matrix_validates_on_new_users():
    matrix = DATA.tocsr()
    model = BiasedMatrixFactorization(4, max_iter=3, random_state=0, dtype="float64").fit(matrix[:30], X_val=matrix[30:])
    new = Interactions.from_matrix(matrix[30:])
    error = (1 - model.score(matrix[30:])) * new.ratings.var()
    assert model.history_["validation_loss"][-1] == pytest.approx(error / model.rating_scale_**2, rel=1e-6)
    ranked = ImplicitMatrixFactorization(4, max_iter=3, random_state=0).fit(matrix[:30], X_val=matrix[30:])
    assert ranked.history_["validation_score"][-1] == pytest.approx(ranked.score(matrix[30:]), rel=1e-9)
    with pytest.raises(ValueError, match="X_val: A sparse matrix holds new users"):
        torch_model().fit(DATA, X_val=matrix)


def test_unknown_ids_in_validation_data_are_predicted_as_the_mean():
    X_val, y_val = np.array([["u1", "nobody"], ["stranger", "i1"]]), np.array([3.0, 4.0])
    X, y = np.array([[f"u{u}", f"i{i}"] for u, i in TABLE]), DATA.ratings
    for handle_unknown in ("mean", "nan", "error"):
        model = BiasedMatrixFactorization(4, max_iter=3, random_state=0, handle_unknown=handle_unknown).fit(
            X, y, X_val=X_val, y_val=y_val
        )
        predicted = model.set_params(handle_unknown="mean").predict(X_val)
        expected = np.square((predicted - y_val) / model.rating_scale_).mean()
        assert model.history_["validation_loss"][-1] == pytest.approx(expected, rel=1e-5)


def test_scoring_without_validation_data_says_nothing():
    assert "validation_score" not in SOLVERS["adam"].make(scoring="r2").fit(DATA).history_


def test_validation_arguments_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match=r"y_val was given without X_val"):
        SOLVERS["adam"].make().fit(DATA, y_val=DATA.ratings)
    with pytest.raises(ValueError, match="score needs the ratings of X"):
        SOLVERS["adam"].make().fit(TABLE, DATA.ratings, X_val=TABLE)
    with pytest.raises(ValueError, match="y_val must have one value for each observation"):
        SOLVERS["adam"].make().fit(TABLE, DATA.ratings, X_val=TABLE, y_val=[1.0])
    by_day = TorchFactorization(ByDay, "bpr", features={"day": 2}, early_stopping=True)
    with pytest.raises(ValueError, match="this model's features are of single pairs"):
        by_day.fit(np.column_stack([TABLE, TABLE[:, :1]]))
    by_day.set_params(early_stopping=False, max_iter=1).fit(np.column_stack([TABLE, TABLE[:, :1]]))


def test_a_pipeline_transforms_validation_data_on_the_way():
    frame = pd.DataFrame(TABLE, columns=["user", "item"]).astype({"user": str, "item": str})
    train, valid = frame[:320], frame[320:]
    with config_context(enable_metadata_routing=True):
        model = BiasedMatrixFactorization(4, max_iter=4, random_state=0).set_fit_request(X_val=True, y_val=True)
        encode = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
        pipeline = Pipeline([("encode", encode), ("model", model)], transform_input=["X_val"])
        pipeline.fit(train, TRAIN.ratings, X_val=valid, y_val=VALID.ratings)
        plain = Pipeline([("encode", FunctionTransformer()), ("model", clone(model))])
        plain.fit(train, TRAIN.ratings, X_val=valid, y_val=VALID.ratings)
    fitted = pipeline[-1]
    predicted = pipeline.predict(valid)
    expected = np.square((predicted - VALID.ratings) / fitted.rating_scale_).mean()
    assert fitted.history_["validation_loss"][-1] == pytest.approx(expected, rel=1e-5)
    assert len(plain[-1].history_["validation_loss"]) == 4


def test_a_matrix_of_scipys_old_kind_can_be_held_out_of():
    model = BiasedMatrixFactorization(4, max_iter=3, early_stopping=True, random_state=0).fit(sp.csr_matrix(DATA.tocsr()))
    assert len(model.history_["validation_loss"]) == 3
