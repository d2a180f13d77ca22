"""Curves of training: losses by iteration or second, validation, names, and histories that make no sense."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from pictures import best_point, fitted, plt

from sk_torchmf import BiasedMatrixFactorization, ImplicitMatrixFactorization, MatrixFactorization, TorchFactorization
from sk_torchmf.display import TrainingCurveDisplay


@pytest.mark.parametrize("kind", [MatrixFactorization, BiasedMatrixFactorization, ImplicitMatrixFactorization, TorchFactorization])
def test_a_training_curve_is_the_loss_of_each_iteration(kind):
    model = fitted(kind)
    display = TrainingCurveDisplay.from_estimator(model)
    (line,) = display.lines_.values()
    assert_array_equal(line.get_xdata(), np.arange(1, model.n_iter_ + 1))
    assert_array_equal(line.get_ydata(), model.history_["loss"])
    assert display.legend_ is None
    assert display.score_ax_ is None
    assert display.ax_.get_xlabel() == "Iteration"


def test_seconds_add_up():
    history = {"loss": [3.0, 2.0, 1.0], "seconds": [1.0, 0.5, 0.25]}
    display = TrainingCurveDisplay(histories={"model": history}).plot(x="seconds")
    assert_array_equal(display.lines_["model"].get_xdata(), [1.0, 1.5, 1.75])
    assert display.ax_.get_xlabel() == "Training time (s)"


def test_relative_losses_begin_at_one():
    histories = {"a": {"loss": [4.0, 2.0], "validation_loss": [6.0, 3.0]}, "b": {"loss": [1e6, 1e5]}}
    display = TrainingCurveDisplay(histories=histories).plot(relative=True)
    assert_array_equal(display.lines_["a"].get_ydata(), [1.0, 0.5])
    assert_array_equal(display.validation_lines_["a"].get_ydata(), [1.5, 0.75])
    assert_array_equal(display.lines_["b"].get_ydata(), [1.0, 0.1])
    assert display.ax_.get_yscale() == "linear"
    assert display.plot().ax_.get_yscale() == "log"  # from 2 to 100,000


def test_curves_are_named_by_class_and_by_what_differs():
    als, adam = fitted(solver="als"), fitted(solver="adam", max_iter=3)
    display = TrainingCurveDisplay.from_estimator([als, adam, fitted(ImplicitMatrixFactorization)])
    names = ["BiasedMatrixFactorization, max_iter=None, solver=als", "BiasedMatrixFactorization, max_iter=3, solver=adam"]
    assert sorted(display.lines_) == sorted([*names, "ImplicitMatrixFactorization"])
    assert [text.get_text() for text in display.legend_.get_texts()] == list(display.lines_)
    twins = TrainingCurveDisplay.from_estimator([als, als]).lines_
    assert list(twins) == ["BiasedMatrixFactorization (1)", "BiasedMatrixFactorization (2)"]
    named = TrainingCurveDisplay.from_estimator({"first": als, "_second": adam})
    assert [text.get_text() for text in named.legend_.get_texts()] == ["first", "_second"]
    colours = {line.get_color() for line in named.lines_.values()}
    assert len(colours) == 2


def test_a_validation_loss_shares_the_axis_and_its_best_iteration_is_marked():
    model = fitted()
    model.history_ = {"loss": [3.0, 2.0, 1.0, 0.5], "seconds": [1.0] * 4, "validation_loss": [3.5, 2.5, 2.75, 3.0]}
    model.best_iter_ = 2
    display = TrainingCurveDisplay.from_estimator(model, x="seconds")
    (name,) = display.lines_
    assert display.score_ax_ is None
    assert display.validation_lines_[name].axes is display.ax_
    assert_array_equal(display.validation_lines_[name].get_ydata(), [3.5, 2.5, 2.75, 3.0])
    assert best_point(display, name) == [2.0, 2.5]
    assert [text.get_text() for text in display.legend_.get_texts()] == ["training loss", "validation loss", "best iteration"]
    assert display.ax_.get_ylabel() == "Loss"


def test_a_validation_score_has_an_axis_of_its_own():
    histories = {"a": {"loss": [3.0, 2.0, 1.0], "validation_score": [0.1, 0.2, 0.3]}, "b": {"loss": [2.0]}}
    display = TrainingCurveDisplay(histories=histories, best_iters={"a": 3, "b": 1}).plot()
    assert display.validation_lines_["a"].axes is display.score_ax_
    assert_array_equal(display.validation_lines_["a"].get_ydata(), [0.1, 0.2, 0.3])
    assert best_point(display, "a") == [3.0, 0.3]
    assert list(display.best_points_) == ["a"]  # b has nothing held out to mark
    assert display.score_ax_.get_ylabel() == "Validation score"
    assert display.ax_.get_ylabel() == "Training loss"


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ({}, 'must be a dict with a list "loss"'),
        ({"loss": []}, "must have at least one iteration"),
        ({"loss": [1.0, 2.0], "seconds": [1.0]}, "has 2 losses, but seconds has 1"),
    ],
)
def test_a_history_without_sense_is_refused(history, message):
    with pytest.raises(ValueError, match=message):
        TrainingCurveDisplay(histories={"a": history}).plot()
    assert plt.get_fignums() == []


def test_bad_arguments_of_training_curves_are_refused():
    display = TrainingCurveDisplay(histories={"a": {"loss": [1.0]}})
    with pytest.raises(ValueError, match=r"x must be .*Got 'epoch'"):
        display.plot(x="epoch")
    with pytest.raises(ValueError, match="needs seconds in each history"):
        display.plot(x="seconds")
    for best in (0, 2):
        with pytest.raises(ValueError, match="must be one of the 1 iterations"):
            TrainingCurveDisplay(histories=display.histories, best_iters={"a": best}).plot()
    for nothing in ([], {}):
        with pytest.raises(ValueError, match="estimator must be a fitted estimator, or a list or dict of them"):
            TrainingCurveDisplay.from_estimator(nothing)
    assert plt.get_fignums() == []
