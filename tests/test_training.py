"""The training loop, early stopping, history_ and what a fit prints."""

import re
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, OrdinalEncoder
from test_checkpoint import DATA, LIKED, MAKE, data_for, every_kind, numbers, torch_model

from sk_torchmf import (
    BiasedMatrixFactorization,
    DivergenceError,
    ImplicitMatrixFactorization,
    Interactions,
    MatrixFactorization,
    TorchFactorization,
    metrics,
    nn,
)
from sk_torchmf.inputs.holdout import hold_out
from sk_torchmf.model_selection import ranking_scorer
from sk_torchmf.solvers.base import Solver, copy_state, run, stalled
from sk_torchmf.storage.packing import pack
from sk_torchmf.training.validation import best_epoch, has_stalled

pytestmark = pytest.mark.usefixtures("one_thread")
TABLE = np.column_stack([DATA.user_ids, DATA.item_ids])


class Scripted(Solver):
    """A solver whose losses are known."""

    def __init__(self, losses):
        self.losses, self.at = losses, 0

    def step(self):
        self.at += 1
        return {"loss": self.losses[self.at - 1], "twice": 2 * self.losses[self.at - 1]}

    def advice(self):
        return ". Do not script it."


# the loop


def test_the_loop_keeps_all_figures_and_the_time_of_each_epoch():
    history = run(Scripted([3.0, 2.0, 1.0]), max_iter=3)
    assert history["loss"] == [3.0, 2.0, 1.0]
    assert history["twice"] == [6.0, 4.0, 2.0]
    assert len(history["seconds"]) == 3


def test_the_loop_goes_on_from_a_history():
    history = {"loss": [5.0], "twice": [10.0], "seconds": [0.1]}
    run(Scripted([3.0, 2.0, 1.0]), max_iter=3, history=history)
    assert history["loss"] == [5.0, 3.0, 2.0]
    run(Scripted([3.0]), max_iter=3, history=history)
    assert len(history["loss"]) == 3


def test_the_loop_tells_before_and_after_each_epoch_and_stops_when_told():
    calls = []

    def watch(epoch, history, solver):
        calls.append((epoch, list(history["loss"]), solver.at))
        return epoch == 2

    run(Scripted([3.0, 2.0, 1.0]), max_iter=3, begin=lambda: calls.append("begin"), watch=watch)
    assert calls == ["begin", (1, [3.0], 1), "begin", (2, [3.0, 2.0], 2)]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_is_a_divergence(value):
    with pytest.raises(DivergenceError, match=rf"Loss became {value} in iteration 2\. Do not script it."):
        run(Scripted([1.0, value]), max_iter=5)


def test_tol_of_zero_never_stops_even_a_loss_that_rises():
    losses = list(np.arange(1.0, 20.0))
    assert len(run(Scripted(losses), max_iter=19)["loss"]) == 19
    assert len(run(Scripted(losses), max_iter=19, tol=1e-9)["loss"]) == 6
    assert not stalled([1.0] * 9, 0.0)
    assert stalled([1.0] * 6, 1e-9)
    assert not stalled([1.0] * 5, 1e-9)


@every_kind
def test_a_state_is_all_that_the_next_steps_depend_on(kind):
    """The same solver set back, and another one made alike, go the same way again."""
    states, model = [], MAKE[kind]()

    class Seen(Exception):
        """Training has been watched, and nothing was fitted."""

    def train(given, start, observe):
        with start(0, None) as (solver, _, _), start(0, None) as (other, _, _):
            run(solver, max_iter=2)
            state = copy_state(solver.state())
            for one in (solver, other):
                one.restore(state)
                run(one, max_iter=3)
                states.append(copy_state(one.state()))
                one.restore(state)
        raise Seen

    model._train = train
    with pytest.raises(Seen):
        model.fit(data_for(kind))
    (tree, first), (other_tree, second) = map(pack, states)
    assert tree == other_tree
    assert first.keys() == second.keys()
    for name in first:
        assert_array_equal(first[name], second[name])


# the slice


def slice_of(user, item, fraction=0.2, seed=0):
    return hold_out(np.asarray(user), np.asarray(item), fraction, seed)


def test_the_slice_has_its_share_and_no_user_loses_all():
    held = slice_of(DATA.user_ids, DATA.item_ids)
    assert held.mean() == pytest.approx(0.2, abs=0.02)
    assert set(DATA.user_ids[~held]) == set(DATA.user_ids)
    assert set(DATA.item_ids[~held]) == set(DATA.item_ids)
    counts, taken = np.bincount(DATA.user_ids), np.bincount(DATA.user_ids[held], minlength=40)
    assert (taken <= np.ceil(0.2 * counts)).all()


@pytest.mark.parametrize("seed", range(5))
def test_users_with_one_item_and_items_with_one_user_stay(seed):
    user = np.array([0, 1, 1, 2, 2, 2, 3, 3, 3, 3])
    item = np.array([0, 0, 1, 0, 1, 2, 0, 1, 3, 4])
    held = slice_of(user, item, 0.9, seed)
    assert held.any()
    assert set(user[~held]) == set(user)
    assert set(item[~held]) == set(item)


def test_the_slice_is_chosen_by_pair_whatever_the_order_and_the_repetitions():
    held = slice_of(DATA.user_ids, DATA.item_ids)
    order = np.random.default_rng(1).permutation(len(DATA))
    assert_array_equal(slice_of(DATA.user_ids[order], DATA.item_ids[order]), held[order])
    again = np.concatenate([np.arange(len(DATA)), order[:100]])
    assert_array_equal(slice_of(DATA.user_ids[again], DATA.item_ids[again]), held[again])
    assert (slice_of(DATA.user_ids, DATA.item_ids, seed=1) != held).any()


def test_a_small_slice_holds_one_pair_and_none_can_be_made_of_lone_pairs():
    assert slice_of([0, 0, 1, 1], [0, 1, 0, 1], 1e-9).sum() == 1
    assert slice_of([0, 0], [0, 1]).sum() == 1  # the item cannot be helped
    with pytest.raises(ValueError, match=r"nothing to hold out: no user has two items\. Pass X_val"):
        slice_of([0, 1, 2], [0, 1, 2])


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


# early stopping of estimators

OVERFITS = {
    "explicit": lambda **o: BiasedMatrixFactorization(
        16, solver="adam", alpha=1e-3, max_iter=100, n_iter_no_change=3, random_state=0, dtype="float64", **o
    ),
    "implicit": lambda **o: ImplicitMatrixFactorization(16, loss="bpr", max_iter=60, n_iter_no_change=3, random_state=0, **o),
    "torch": lambda **o: TorchFactorization(
        nn.BiasedMF, "MSELoss", optimizer__lr=0.1, module__n_factors=16, max_iter=60, n_iter_no_change=3, random_state=0, **o
    ),
}
every_estimator = pytest.mark.parametrize("kind", OVERFITS)


def overfit(kind, **options):
    data = LIKED if kind == "implicit" else DATA
    return OVERFITS[kind](early_stopping=True, **options).fit(data), data


@every_estimator
def test_it_stops_early_at_the_best_epoch_of_the_slice(kind):
    model, _ = overfit(kind)
    name = "validation_score" if kind == "implicit" else "validation_loss"
    values = model.history_[name]
    assert model.n_iter_ == len(model.history_["loss"]) == len(values) == len(model.history_["seconds"]) < 60
    assert model.best_score_ == (max if kind == "implicit" else min)(values)
    assert values[model.best_iter_ - 1] == model.best_score_


@every_estimator
def test_refit_is_a_fit_of_all_with_the_best_number_of_epochs(kind):
    model, data = overfit(kind)
    again = OVERFITS[kind]()
    if kind == "implicit":  # whose drawn steps shrink towards the last, of max_iter

        class Stop:
            def __init__(self, n):
                self.n = n

            def __call__(self, epoch, history, solver):
                return epoch == self.n

        given = []
        again._train = lambda *args: given.append(args)
        again.fit(data)
        with given[0][1](np.random.RandomState(0).randint(2**31 - 1), None) as (solver, max_iter, keep):
            run(solver, max_iter=max_iter, watch=Stop(model.best_iter_))
            keep(again, solver.solution())
    else:
        again.set_params(max_iter=model.best_iter_, **({} if kind == "torch" else {"tol": 0})).fit(data)
    for found, expected in zip(numbers(model), numbers(again), strict=True):
        assert_array_equal(found, expected)


@every_estimator
def test_without_refit_the_best_epochs_own_rows_are_kept(kind):
    model, data = overfit(kind, refit=False)
    seed = np.random.RandomState(0).randint(2**31 - 1)
    held = hold_out(data.user_ids, data.item_ids, 0.1, seed)
    assert model.seen_.nnz == len(data)
    assert model.user_counts_.sum() == len(data)
    if kind == "implicit":
        model.seen_ = data[~held].tocsr()
        figure = metrics.evaluate(model, data[held], "ndcg", 10)["ndcg"][10]
    else:
        error = np.square(model.predict(data[held]) - data.ratings[held]).mean()
        figure = error / (1 if kind == "torch" else model.rating_scale_**2)
    assert figure == pytest.approx(model.best_score_, rel=1e-4)


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
@pytest.mark.parametrize("kind", ["explicit", "torch"])
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
        MAKE["adam"](early_stopping=True, scoring=lambda *args: "good").fit(DATA)


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
    model = MAKE["als"]().fit(TRAIN, X_val=weighted)
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
    assert "validation_score" not in MAKE["adam"](scoring="r2").fit(DATA).history_


def test_validation_arguments_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match=r"y_val was given without X_val"):
        MAKE["adam"]().fit(DATA, y_val=DATA.ratings)
    with pytest.raises(ValueError, match="score needs y"):
        MAKE["adam"]().fit(TABLE, DATA.ratings, X_val=TABLE)
    with pytest.raises(ValueError, match="y_val must have one value for each observation"):
        MAKE["adam"]().fit(TABLE, DATA.ratings, X_val=TABLE, y_val=[1.0])
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


def test_a_search_stops_each_candidate_early():
    model = OVERFITS["explicit"](early_stopping=True)
    search = GridSearchCV(model, {"n_factors": [2, 16]}, cv=KFold(2, shuffle=True, random_state=0), error_score="raise")
    search.fit(DATA, DATA.ratings)
    assert search.best_estimator_.best_iter_ < search.best_estimator_.n_iter_ < 100


def test_a_refit_without_early_stopping_forgets_what_it_found():
    model, data = overfit("explicit")
    assert hasattr(model, "best_iter_")
    model.set_params(early_stopping=False, max_iter=2).fit(data)
    assert not hasattr(model, "best_iter_")
    assert not hasattr(model, "best_score_")


# what is shown


@every_estimator
def test_history_makes_a_frame(kind):
    model, _ = overfit(kind)
    frame = pd.DataFrame(model.history_)
    assert len(frame) == model.n_iter_
    assert {"loss", "seconds"} < set(frame.columns)
    assert frame.notna().all(axis=None)


@every_estimator
def test_verbose_shows_the_validation_figure_of_each_epoch(kind, capsys):
    model, _ = overfit(kind, verbose=1)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == model.n_iter_ + model.best_iter_
    name = "score" if kind == "implicit" else "loss"
    unit = "epoch" if kind == "torch" else "iteration"
    for n, line in enumerate(lines[: model.n_iter_], 1):
        figure = model.history_[f"validation_{name}"][n - 1]
        assert line.startswith(f"[{type(model).__name__}] {unit} {n}, loss {model.history_['loss'][n - 1]:.6g}, ")
        assert f", validation {name} {figure:.6g}, " in line
        assert line.endswith(" s")
    assert all("validation" not in line for line in lines[model.n_iter_ :])


# divergence


def warnings_of(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return "\n".join(str(warning.message) for warning in caught)


@pytest.mark.parametrize(
    ("model", "good", "bad"),
    [
        (MatrixFactorization(4, solver="sgd", max_iter=200, random_state=0), {"learning_rate": None}, {"learning_rate": 1e6}),
        (BiasedMatrixFactorization(4, solver="sgd", max_iter=200, random_state=0), {"learning_rate": None}, {"learning_rate": 1e6}),
        (torch_model(optimizer="SGD", max_iter=50), {"optimizer__lr": 0.01}, {"optimizer__lr": 1e6}),
    ],
)
def test_a_candidate_that_diverges_fails_and_the_search_goes_on(model, good, bad):
    grid = [{name: [value] for name, value in options.items()} for options in (good, bad)]
    search = GridSearchCV(model, grid, cv=KFold(2, shuffle=True, random_state=0), error_score=np.nan)
    words = r"DivergenceError: Loss became .* in epoch \d+ \(\w+=1e\+06\)\. Lower "
    assert re.search(words, warnings_of(lambda: search.fit(DATA, DATA.ratings)))
    scores = search.cv_results_["mean_test_score"]
    assert np.isfinite(scores[0])
    assert np.isnan(scores[1])
    assert search.best_params_ == good


def test_an_implicit_candidate_that_diverges_fails_and_the_search_goes_on(monkeypatch):
    from sk_torchmf.solvers import ials

    step = ials.ImplicitLeastSquares.step

    def overflow(self):
        return step(self) if self.alpha < 1 else {"loss": np.inf}

    monkeypatch.setattr(ials.ImplicitLeastSquares, "step", overflow)
    model = ImplicitMatrixFactorization(4, max_iter=3, random_state=0)
    search = GridSearchCV(model, {"alpha": [0.01, 2.0]}, cv=KFold(2, shuffle=True, random_state=0), error_score=np.nan)
    words = r"DivergenceError: Loss became inf in iteration 1\. Lower the weights .* or raise alpha"
    assert re.search(words, warnings_of(lambda: search.fit(LIKED)))
    assert search.best_params_ == {"alpha": 0.01}
    assert np.isnan(search.cv_results_["mean_test_score"][1])


def test_seeds_are_drawn_once_from_a_random_state():
    found = [
        numbers(MAKE["adam"](early_stopping=True).set_params(random_state=np.random.RandomState(3)).fit(DATA)) for _ in range(2)
    ]
    for first, second in zip(*found, strict=True):
        assert_array_equal(first, second)


def test_a_matrix_of_scipys_old_kind_can_be_held_out_of():
    model = BiasedMatrixFactorization(4, max_iter=3, early_stopping=True, random_state=0).fit(sp.csr_matrix(DATA.tocsr()))
    assert len(model.history_["validation_loss"]) == 3


def test_several_processes_can_stop_early():
    model = torch_model(optimizer="SGD", optimizer__lr=0.01, n_processes=2, early_stopping=True, max_iter=2).fit(DATA)
    assert len(model.history_["validation_loss"]) == 2
    assert all(torch.isfinite(p).all() for p in model.module_.parameters())


# long work


@pytest.mark.parametrize("bar", [True, False])
@pytest.mark.parametrize("kind", ["als", "variational", "ials", "torch"])
def test_recommend_and_evaluate_show_how_far_they_are(kind, bar, monkeypatch, capsys):
    if not bar:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    model = MAKE[kind]().fit(data_for(kind))
    quiet = model.recommend(k=3), metrics.evaluate(model, LIKED, "ndcg", exclude_seen=False)
    assert capsys.readouterr().err == ""
    shown = model.recommend(k=3, progress=True), metrics.evaluate(model, LIKED, "ndcg", exclude_seen=False, progress=True)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "recommend" in printed.err
    assert "evaluate" in printed.err
    assert "100%" in printed.err
    for found, expected in zip(shown[0], quiet[0], strict=True):
        assert_array_equal(found, expected)
    assert shown[1]["ndcg"][10] == pytest.approx(quiet[1]["ndcg"][10], rel=1e-12)
