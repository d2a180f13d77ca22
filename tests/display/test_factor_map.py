import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse as sp
import tutorial
from contract import DATA, N_ITEMS, N_USERS, WIDER, every_form
from data import as_form, ids_in
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression
from sklearn.manifold import MDS
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

from sk_torchmf import BiasedMatrixFactorization, ImplicitMatrixFactorization, Interactions, MatrixFactorization, TorchFactorization
from sk_torchmf.display import FactorMapDisplay, RatingResidualDisplay, RecommendationDisplay, TrainingCurveDisplay
from sk_torchmf.display._figure import overlap

matplotlib = pytest.importorskip("matplotlib")
plt = pytest.importorskip("matplotlib.pyplot")
FigureCanvasSVG = pytest.importorskip("matplotlib.backends.backend_svg").FigureCanvasSVG

LONG = [f"The long and $winding$ title of film number {j}, as told by _those_ who saw it (19{j:02d})" for j in range(N_ITEMS)]
TIMED = Interactions(
    DATA.user_ids, DATA.item_ids, DATA.ratings, np.arange(len(DATA))[::-1] % 97, num_users=N_USERS, num_items=N_ITEMS
)
SIZES = [(6.4, 4.8), (3.2, 2.4), (12, 4)]


@pytest.fixture(autouse=True)
def figures(monkeypatch):
    """Nothing is shown, and rcParams stay as they are; figures are closed in the end."""

    def show(*args, **kwargs):
        raise AssertionError("a picture was shown")

    monkeypatch.setattr(plt, "show", show)
    before = dict(matplotlib.rcParams)
    yield
    plt.close("all")
    assert dict(matplotlib.rcParams) == before


def fitted(kind=BiasedMatrixFactorization, form="interactions", data=DATA, **params):
    if kind is TorchFactorization:
        params = {"module": tutorial.Biased, "optimizer": "Adagrad", "max_iter": 3, "module__n_factors": 3} | params
    else:
        params = {"n_factors": 3} | params
    X, y = as_form(data, form)
    return kind(random_state=0, **params).fit(X, None if kind is ImplicitMatrixFactorization else y)


def texts_in(figure):
    """All texts that are drawn, as (text, box), ticks outside the limits excepted."""
    figure.canvas.draw()
    renderer, found = figure.canvas.get_renderer(), []
    for ax in figure.axes:
        found += [*ax.texts, ax.xaxis.label, ax.yaxis.label, ax.title, ax._left_title]
        for axis, (low, high) in ((ax.xaxis, sorted(ax.get_xlim())), (ax.yaxis, sorted(ax.get_ylim()))):
            found += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high and tick.label1.get_visible()]
        if ax.get_legend():
            found += [*ax.get_legend().get_texts(), ax.get_legend().get_title()]
    drawn = [text for text in found if text.get_visible() and text.get_text().strip()]
    return [(text, matplotlib.text.Text.get_window_extent(text, renderer)) for text in drawn]


def check_texts(figure, path):
    """Once the figure is saved every text lies inside it, and none over another."""
    figure.savefig(path)
    shown = texts_in(figure)
    assert shown
    for text, box in shown:
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1  # pixels
        assert inside, (text.get_text(), box, figure.bbox)
    boxes = [box.padded(-1) for _, box in shown]
    pairs = [(i, j) for i in range(len(boxes)) for j in range(i) if boxes[i].overlaps(boxes[j])]
    assert not [(shown[i][0].get_text(), shown[j][0].get_text()) for i, j in pairs]


def best_point(display, name):
    return [float(values[0]) for values in display.best_points_[name].get_data()]


def draw(kind, ax=None):
    """One display of each kind, with long names."""
    if kind is TrainingCurveDisplay:
        validated = {"loss": [3.0, 2.0, 1.5], "validation_score": [0.1, 0.3, 0.2]}
        return kind(histories={LONG[1]: validated, "_": validated}, best_iters={LONG[1]: 2}).plot(ax)
    if kind is FactorMapDisplay:
        return kind.from_estimator(fitted(), labels=LONG, color=[text[-5:-3] for text in LONG], color_label=LONG[0], ax=ax)
    if kind is RatingResidualDisplay:
        return kind.from_estimator(fitted(), DATA, ax=ax)
    return kind.from_estimator(fitted(), 0, X=DATA, labels=LONG, ax=ax)


every_kind = pytest.mark.parametrize("kind", [TrainingCurveDisplay, FactorMapDisplay, RatingResidualDisplay, RecommendationDisplay])


# all displays


@every_kind
@pytest.mark.parametrize("size", [None, *SIZES], ids=str)
def test_every_text_lies_inside_the_figure_and_over_no_other(kind, size, tmp_path):
    ax = None if size is None else plt.subplots(figsize=size, layout="constrained")[1]
    display = draw(kind, ax)
    check_texts(display.figure_, tmp_path / "picture.png")


@every_kind
def test_a_display_makes_one_figure_or_none(kind):
    display = draw(kind)
    assert plt.get_fignums() == [display.figure_.number]
    ax = plt.figure().add_subplot()
    again = draw(kind, ax)
    assert again.figure_ is ax.figure
    assert len(plt.get_fignums()) == 2
    assert draw(kind, plt.figure().add_axes((0.1, 0.1, 0.8, 0.8))).figure_ is plt.gcf()


@every_kind
def test_a_display_can_be_drawn_on_the_canvas_of_a_vector_file(kind, tmp_path):
    figure = plt.figure(layout="constrained")
    FigureCanvasSVG(figure)
    draw(kind, figure.add_subplot()).figure_.savefig(tmp_path / "picture.svg")
    assert (tmp_path / "picture.svg").stat().st_size > 1000


@every_kind
def test_plot_draws_the_same_data_again(kind):
    display = draw(kind)
    first = display.figure_
    assert display.plot() is display
    assert display.figure_ is not first
    assert [text.get_text() for text, _ in texts_in(display.figure_)] == [text.get_text() for text, _ in texts_in(first)]


@every_kind
def test_what_is_no_axes_is_refused_before_anything_is_drawn(kind):
    display = draw(kind)
    plt.close("all")
    with pytest.raises(TypeError, match="ax must be a matplotlib Axes"):
        display.plot("axes")
    assert plt.get_fignums() == []


def test_two_axes_are_drawn_on_as_they_are():
    axes = plt.subplots(1, 2)[1]
    display = RecommendationDisplay.from_estimator(fitted(), 0, ax=axes)
    assert list(display.ax_) == list(axes)
    assert len(axes[0].figure.axes) == 2
    with pytest.raises(TypeError, match="or a sequence of 2"):
        display.plot(axes[:1])


@every_kind
def test_without_matplotlib_an_error_says_what_to_install(kind, monkeypatch):
    display = draw(kind)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for call in (display.plot, lambda: draw(kind)):
        with pytest.raises(ImportError, match="pip install matplotlib"):
            call()


def test_the_package_does_not_import_matplotlib():
    code = "import sys, sk_torchmf; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("kind", [TrainingCurveDisplay, FactorMapDisplay])
def test_an_estimator_that_is_not_fitted_is_refused(kind):
    with pytest.raises(NotFittedError):
        kind.from_estimator(MatrixFactorization())
    with pytest.raises(TypeError, match="must be a fitted estimator"):
        kind.from_estimator(MatrixFactorization)
    with pytest.raises(TypeError, match="LinearRegression has none"):
        kind.from_estimator(LinearRegression().fit([[0.0]], [1.0]))
    assert plt.get_fignums() == []


def test_a_search_and_a_pipeline_are_looked_through():
    X, y = as_form(DATA, "labels")
    pipeline = make_pipeline(OrdinalEncoder(dtype=int), BiasedMatrixFactorization(n_factors=3, random_state=0))
    grid = {"biasedmatrixfactorization__n_factors": [2]}
    search = GridSearchCV(pipeline, grid, cv=KFold(2, shuffle=True, random_state=0), error_score="raise").fit(X, y)
    model = search.best_estimator_[-1]
    assert_array_equal(TrainingCurveDisplay.from_estimator(search).ax_.lines[0].get_ydata(), model.history_["loss"])
    assert FactorMapDisplay.from_estimator(search).coordinates.shape == (N_ITEMS, 2)
    assert RatingResidualDisplay.from_estimator(search, X, y).rmse_ == pytest.approx(np.sqrt(np.mean((search.predict(X) - y) ** 2)))
    shown = RecommendationDisplay.from_estimator(search, 4, X=X, y=y, k=3)
    assert shown.recommended == [str(item) for item in model.recommend(4, 3)[0]]


# training curves


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
        ({"loss": []}, "there is no iteration"),
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
        with pytest.raises(ValueError, match="estimator is empty"):
            TrainingCurveDisplay.from_estimator(nothing)
    assert plt.get_fignums() == []


# factor maps


def principal(rows):
    """Plain principal components: coordinates and shares of the variance."""
    centred = rows - rows.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    return (u * s)[:, :2], (s**2 / (s**2).sum())[:2]


@pytest.mark.parametrize("kind", [MatrixFactorization, BiasedMatrixFactorization, ImplicitMatrixFactorization])
@pytest.mark.parametrize("side", ["item", "user"])
def test_a_factor_map_shows_principal_components_and_counts(kind, side):
    model = fitted(kind, dtype="float64")
    display = FactorMapDisplay.from_estimator(model, side=side)
    expected, shares = principal(getattr(model, f"{side}_factors_"))
    signs = np.sign((expected * display.coordinates).sum(axis=0))
    assert_allclose(display.coordinates, signs * expected, atol=1e-10)
    assert display.ax_.get_xlabel() == f"Principal component 1 ({shares[0]:.0%} of the variance)"
    counts = np.bincount(getattr(DATA, f"{side}_ids"))
    order = np.argsort(counts, kind="stable")  # the most popular on top
    assert_array_equal(display.scatter_["values"].get_offsets(), display.coordinates[order])
    assert_array_equal(display.scatter_["values"].get_array(), counts[order])
    assert display.scatter_["values"].get_cmap().name == "viridis"
    assert display.colorbar_.ax.get_ylabel() == ("Ratings of the item" if side == "item" else "Ratings by the user")


@every_form
def test_a_factor_map_names_the_most_popular_by_their_ids(form):
    display = FactorMapDisplay.from_estimator(fitted(form=form), n_labels=5)
    most = np.argsort(-np.bincount(DATA.item_ids), kind="stable")
    counts = np.bincount(DATA.item_ids)
    assert display.texts_
    for j, note in display.texts_.items():
        assert note.get_text() == str(ids_in(form, "item", [j])[0])
        assert counts[j] >= counts[most[4]]
        assert_array_equal(note.xy, display.coordinates[j])


def test_labels_and_colours_come_by_id_or_in_order():
    pandas = pytest.importorskip("pandas")
    model = fitted(form="labels")
    ids = model.items_.tolist()
    names = [f"Film {j}" for j in range(N_ITEMS)]
    shuffled = np.random.default_rng(0).permutation(N_ITEMS)
    by_id = {ids[j]: names[j] for j in shuffled}
    values = pandas.Series({ids[j]: float(j) for j in shuffled}, name="year")
    for labels in (names, np.array(names), by_id, pandas.Series(by_id)):
        display = FactorMapDisplay.from_estimator(model, labels=labels, color=values)
        assert display.texts == names
        assert_array_equal(display.color, np.arange(N_ITEMS))
    assert display.colorbar_.ax.get_ylabel() == "year"
    some = FactorMapDisplay.from_estimator(model, labels={ids[3]: "Only one", ids[4]: None})
    assert some.texts == [*ids[:3], "Only one", *ids[4:]]


def test_categories_get_colours_and_a_legend_the_rarest_share_one():
    category = np.array(["a"] * 6 + ["b"] * 4 + ["c"] * 3 + ["d"] * 2 + ["e"] * 2 + ["f", "$g$", None], dtype=object)
    display = FactorMapDisplay.from_estimator(fitted(), color=category)
    assert set(display.scatter_) == {"a", "b", "c", "d", "e", "other", "none"}
    assert [text.get_text() for text in display.legend_.get_texts()] == ["a", "b", "c", "d", "e", "other", "none"]
    for name, rows in {"a": slice(0, 6), "other": slice(17, 19), "none": slice(19, 20)}.items():
        shown = np.asarray(display.scatter_[name].get_offsets())
        assert_allclose(np.sort(shown, axis=0), np.sort(display.coordinates[rows], axis=0))
    assert display.colorbar_ is None
    colours = {tuple(points.get_facecolor()[0]) for points in display.scatter_.values()}
    assert len(colours) == 7
    flags = FactorMapDisplay.from_estimator(fitted(), color=np.arange(N_ITEMS) > 5)
    assert set(flags.scatter_) == {"True", "False"}


def test_missing_numbers_are_grey():
    values = np.where(np.arange(N_ITEMS) < 4, np.nan, np.arange(N_ITEMS) - 10.0)
    display = FactorMapDisplay.from_estimator(fitted(), color=values)
    assert len(display.scatter_["none"].get_offsets()) == 4
    assert_array_equal(np.sort(display.scatter_["values"].get_array()), np.arange(-6.0, 10.0))


def test_the_never_observed_are_left_out_of_a_map():
    model = fitted(data=WIDER)
    assert len(model.item_factors_) == N_ITEMS + 2
    display = FactorMapDisplay.from_estimator(model, labels=[*LONG, "nobody's", "nobody's"])
    assert len(display.coordinates) == N_ITEMS
    assert "nobody's" not in display.texts


def test_labels_do_not_overlap_and_lead_to_their_points(tmp_path):
    rng = np.random.default_rng(0)
    points, names = rng.normal(size=(400, 2)), [f"A film with a title {j}" for j in range(400)]
    for size in SIZES:
        ax = plt.subplots(figsize=size, layout="constrained")[1]
        display = FactorMapDisplay(coordinates=points, counts=np.arange(1, 401), texts=names).plot(ax, n_labels=60)
        check_texts(display.figure_, tmp_path / "map.png")
        renderer, axes = display.figure_.canvas.get_renderer(), display.ax_.get_window_extent()
        boxes = [matplotlib.text.Text.get_window_extent(note, renderer) for note in display.texts_.values()]
        assert len(boxes) > 3
        assert 399 in display.texts_  # the most popular had the first choice
        assert min(display.texts_) >= 340
        assert all(axes.x0 <= box.x0 and box.x1 <= axes.x1 and axes.y0 <= box.y0 and box.y1 <= axes.y1 for box in boxes)


def test_overlap_is_told():
    box = matplotlib.transforms.Bbox.from_bounds
    assert overlap([box(0, 0, 2, 2), box(5, 5, 1, 1), box(1, 1, 2, 2)])
    assert not overlap([box(0, 0, 2, 2), box(3, 0, 2, 2)])


def test_one_item_one_factor_and_equal_factors_have_a_map():
    one = FactorMapDisplay.from_estimator(MatrixFactorization(n_factors=1, random_state=0).fit([["a", "$5 and $6"]], [3.0]))
    assert_array_equal(one.coordinates, [[0.0, 0.0]])
    assert one.texts_[0].get_text() == "$5 and $6"
    flat = fitted(n_factors=1, dtype="float64")
    display = FactorMapDisplay.from_estimator(flat)
    assert_array_equal(display.coordinates[:, 1], np.zeros(N_ITEMS))
    assert_allclose(np.abs(display.coordinates[:, 0]), np.abs(flat.item_factors_[:, 0] - flat.item_factors_.mean()), atol=1e-12)
    flat.item_factors_ = np.ones((N_ITEMS, 4))
    assert_array_equal(FactorMapDisplay.from_estimator(flat).coordinates, np.zeros((N_ITEMS, 2)))


def test_a_map_by_a_function_or_a_transformer():
    model = fitted()
    display = FactorMapDisplay.from_estimator(model, method=lambda factors: factors[:, 1:])
    assert_array_equal(display.coordinates, model.item_factors_[:, 1:].astype(float))
    scaling = OrdinalEncoder()
    with pytest.raises(ValueError, match=r"method must give two dimensions, shape \(20, 2\). Got shape \(20, 3\)"):
        FactorMapDisplay.from_estimator(model, method=scaling)
    assert not hasattr(scaling, "categories_")  # a copy was fitted
    with pytest.raises(TypeError, match=r"pass MDS\(\)"):
        FactorMapDisplay.from_estimator(model, method=MDS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"side": "both"}, 'side must be "item" or "user"'),
        ({"method": "umap"}, 'method must be "pca"'),
        ({"labels": ["a", "b"]}, r"labels must be a mapping from item ids, or have one value .* shape \(20,\)"),
        ({"labels": {"m1": "Heat"}}, "Its keys are like 'm1', the ids like 0"),
        ({"color": [None] * N_ITEMS}, "color has no value at all"),
        ({"color": [np.inf] * N_ITEMS}, "color must be finite"),
        ({"n_labels": -1}, "n_labels must be an int"),
    ],
)
def test_bad_arguments_of_maps_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        FactorMapDisplay.from_estimator(fitted(), **arguments)
    assert plt.get_fignums() == []


def test_a_module_of_your_own_has_no_map_but_its_embeddings_do():
    model = fitted(TorchFactorization, module__n_factors=2)
    with pytest.raises(TypeError, match=r"TorchFactorization has none. .*FactorMapDisplay\(coordinates=\.\.\."):
        FactorMapDisplay.from_estimator(model)
    vectors = model.module_.item_factors.weight.detach().numpy()
    display = FactorMapDisplay(coordinates=vectors).plot()
    assert len(display.scatter_["values"].get_offsets()) == N_ITEMS
    assert display.texts_ == {}
    with pytest.raises(ValueError, match="must have shape"):
        FactorMapDisplay(coordinates=vectors[:, :1]).plot()
    with pytest.raises(ValueError, match="counts must have one value"):
        FactorMapDisplay(coordinates=vectors, counts=[1.0]).plot()


# residuals


def test_residuals_are_grouped_by_counts_of_about_equal_number():
    rng = np.random.default_rng(0)
    counts, y_true, y_pred = rng.integers(0, 40, 500), rng.normal(size=500), rng.normal(size=500)
    display = RatingResidualDisplay.from_predictions(y_true, y_pred, user_counts=counts, n_bins=4)
    edges = [np.quantile(counts[counts > 0], q) for q in (0.25, 0.5, 0.75)]
    groups = [[] for _ in range(5)]  # the first of those that nothing is known of
    for count, true, predicted in zip(counts, y_true, y_pred, strict=True):
        groups[0 if count == 0 else 1 + sum(count > edge for edge in edges)].append((count, true - predicted))
    bins = display.bins_["user"]
    assert list(bins.n_ratings) == [len(group) for group in groups]
    assert list(bins.low) == [min(count for count, _ in group) for group in groups]
    assert list(bins.high) == [max(count for count, _ in group) for group in groups]
    rmse = [np.sqrt(np.mean([residual**2 for _, residual in group])) for group in groups]
    assert_allclose(display.rmse_lines_["user"].get_ydata(), rmse)
    assert_allclose(display.residual_lines_["user"].get_ydata(), [np.mean([residual for _, residual in group]) for group in groups])
    assert display.rmse_ == pytest.approx(np.sqrt(np.mean((y_true - y_pred) ** 2)))
    assert_allclose(display.level_lines_["user"].get_ydata(), display.rmse_)
    first = display.ax_[0].get_xticklabels()[1].get_text()
    assert first == f"{bins.low[1]:.0f}\N{EN DASH}{bins.high[1]:.0f}\n({bins.n_ratings[1]})"
    assert list(display.bins_) == ["user"]
    assert len(display.ax_) == 1


def test_residuals_name_the_level_of_all():
    display = RatingResidualDisplay.from_predictions([3.0, 5.0], [3.0, 4.0], item_counts=[1, 2])
    assert "RMSE of all, 0.707" in [text.get_text() for text in display.legend_.get_texts()]


@pytest.mark.parametrize("kind", [MatrixFactorization, BiasedMatrixFactorization, TorchFactorization])
@pytest.mark.parametrize("form", ["table", "labels", "interactions"])
def test_residuals_of_an_estimator_are_those_of_its_predictions(kind, form):
    train, test = DATA[:200], DATA[200:]
    model = fitted(kind, form, train)
    X, y = as_form(test, form)
    display = RatingResidualDisplay.from_estimator(model, X, y, n_bins=3)
    users, items = np.bincount(train.user_ids, minlength=N_USERS), np.bincount(train.item_ids, minlength=N_ITEMS)
    assert_array_equal(display.user_counts, users[test.user_ids])
    assert_array_equal(display.item_counts, items[test.item_ids])
    assert_array_equal(display.y_pred, model.predict(X))
    assert_array_equal(display.y_true, test.ratings)
    assert list(display.bins_) == ["user", "item"]


@pytest.mark.parametrize("kind", [MatrixFactorization, BiasedMatrixFactorization])
def test_residuals_of_a_sparse_matrix_are_those_that_its_score_is_made_of(kind):
    X = as_form(DATA, "sparse")[0]
    model = fitted(kind, "sparse")
    display = RatingResidualDisplay.from_estimator(model, X)
    r2 = 1 - display.rmse_**2 / X.data.var()
    assert r2 == pytest.approx(model.score(X), rel=1e-6)
    assert_array_equal(display.user_counts, np.repeat(np.diff(X.indptr) - 1, np.diff(X.indptr)))
    assert_array_equal(display.item_counts, np.bincount(X.indices)[X.indices])


def test_one_rating_equal_counts_and_no_error_have_a_picture():
    one = RatingResidualDisplay.from_predictions([3.0], [2.5], user_counts=[4])
    assert list(one.bins_["user"].n_ratings) == [1]
    equal = RatingResidualDisplay.from_predictions(
        np.arange(5.0), np.zeros(5), user_counts=np.full(5, 2.5), item_counts=np.zeros(5)
    )
    assert [len(bins.rmse) for bins in equal.bins_.values()] == [1, 1]
    assert equal.ax_[0].get_xticklabels()[0].get_text() == "2.5\n(5)"
    perfect = RatingResidualDisplay.from_predictions(np.ones(4), np.ones(4), item_counts=[1, 2, 3, 4])
    assert perfect.rmse_ == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"y_pred": [1.0]}, "y_pred must have one value for each rating"),
        ({"y_pred": [1.0, np.nan]}, r'y_pred\[1\] is nan.*handle_unknown="mean"'),
        ({"y_true": [np.nan, 1.0]}, r"y_true\[0\] is nan"),
        ({"y_true": [], "y_pred": []}, "y_true is empty"),
        ({"user_counts": None}, "Pass user_counts, item_counts or both"),
        ({"user_counts": [1]}, "user_counts must have one value for each rating"),
        ({"user_counts": [1, -1]}, r"user_counts\[1\] = -1"),
        ({"n_bins": 0}, "n_bins must be an int >= 1"),
    ],
)
def test_bad_arguments_of_residuals_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        RatingResidualDisplay.from_predictions(**{"y_true": [1.0, 2.0], "y_pred": [1.0, 2.0], "user_counts": [1, 2]} | arguments)
    assert plt.get_fignums() == []


def test_models_that_rank_have_no_residuals():
    for model in (fitted(ImplicitMatrixFactorization), fitted(TorchFactorization, loss="bpr")):
        with pytest.raises(TypeError, match=r"metrics\.evaluate"):
            RatingResidualDisplay.from_estimator(model, DATA)
    with pytest.raises(ValueError, match="no fold-in"):
        RatingResidualDisplay.from_estimator(fitted(TorchFactorization), as_form(DATA, "sparse")[0])


# recommendations

USER = int(np.argmax(np.bincount(DATA.user_ids, minlength=N_USERS) == 12))  # with a history longer than the lists


def widths(bars):
    return [bar.get_width() for bar in bars]


def own_ratings():
    own = DATA.user_ids == USER
    return DATA.item_ids[own], DATA.ratings[own]


@every_form
def test_recommendations_stand_beside_what_was_rated_best(form):
    model = fitted(form=form, dtype="float64")
    user = ids_in(form, "user", [USER])[0]
    X, y = as_form(DATA, form)
    display = RecommendationDisplay.from_estimator(model, user, X=X, y=y, k=4)
    items, scores = model.recommend(user, k=4)
    assert display.recommended == [str(item) for item in items]
    assert_array_equal(widths(display.recommended_bars_), scores)
    assert_allclose(display.std, model.predict(user, items, return_std=True)[1])
    own, ratings = own_ratings()
    order = np.argsort(-ratings)[:4]
    assert display.history == [str(item) for item in ids_in(form, "item", own[order])]
    assert_array_equal(widths(display.history_bars_), ratings[order])
    assert display.titles[0] == f"User {user}: rated best, 4 of {len(own)}"
    assert [ax.get_xlabel() for ax in display.ax_] == ["Rating", "Predicted rating"]
    assert display.ax_[0].get_xlim() == display.ax_[1].get_xlim()


def test_error_bars_reach_one_standard_deviation_to_each_side():
    display = RecommendationDisplay.from_estimator(fitted(), USER, k=4)
    (segments,) = (bars.get_segments() for bars in display.error_bars_.lines[2])
    ends = np.array([segment[:, 0] for segment in segments])
    assert_allclose(ends, np.column_stack([display.scores - display.std, display.scores + display.std]))
    low, high = display.ax_[1].get_xlim()
    assert low <= ends.min()
    assert high >= ends.max()


def test_each_recommendation_says_which_item_of_the_history_lies_nearest():
    model = fitted(dtype="float64")
    display = RecommendationDisplay.from_estimator(model, USER, X=DATA, labels=[f"Film {j}" for j in range(N_ITEMS)], k=4)
    own, ratings = own_ratings()
    Q = model.item_factors_
    for item, said in zip(model.recommend(USER, k=4)[0], display.nearest, strict=True):
        cosine = [Q[item] @ Q[j] / np.linalg.norm(Q[item]) / np.linalg.norm(Q[j]) for j in own]
        at = int(np.argmax(cosine))
        assert said == f"cosine {cosine[at]:.2f} to Film {own[at]}, rated {ratings[at]:.4g}"
    assert [text.get_text() for text in display.nearest_texts_] == display.nearest
    silent = RecommendationDisplay.from_estimator(model, USER, nearest=False)
    assert silent.nearest is None
    assert silent.nearest_texts_ == []


def test_the_most_recent_come_first_where_asked_for():
    own = np.flatnonzero(TIMED.user_ids == USER)
    order = own[np.argsort(-TIMED.timestamps[own], kind="stable")][:3]
    expected = [str(item) for item in TIMED.item_ids[order]]
    display = RecommendationDisplay.from_estimator(fitted(), USER, X=TIMED, k=3, order="recent")
    assert display.history == expected
    assert_array_equal(widths(display.history_bars_), TIMED.ratings[order])
    X, y = as_form(TIMED, "table")
    table = RecommendationDisplay.from_estimator(fitted(), USER, X=X, y=y, timestamps=TIMED.timestamps, k=3, order="recent")
    assert table.history == expected
    unrated = Interactions(TIMED.user_ids, TIMED.item_ids, None, TIMED.timestamps, num_users=N_USERS, num_items=N_ITEMS)
    implicit = RecommendationDisplay.from_estimator(fitted(ImplicitMatrixFactorization), USER, X=unrated, k=3)
    assert implicit.history == expected  # the default where there are no ratings


def test_equal_ratings_are_shown_by_time():
    X = np.array([[0, 0], [0, 1], [0, 2], [0, 3], [1, 4], [1, 0]])
    model = BiasedMatrixFactorization(n_factors=1, random_state=0).fit(X, np.ones(6))
    shown = RecommendationDisplay.from_estimator(model, 0, X=X, y=[4, 5, 5, 5, 1, 1], timestamps=[9, 3, 7, 5, 0, 0])
    assert shown.history == ["2", "3", "1", "0"]


@pytest.mark.parametrize("kind", [MatrixFactorization, BiasedMatrixFactorization, ImplicitMatrixFactorization, TorchFactorization])
def test_without_ratings_the_bars_are_predictions_of_what_fit_saw(kind):
    model = fitted(kind)
    display = RecommendationDisplay.from_estimator(model, USER, k=3)
    own, _ = own_ratings()
    predicted = np.sort(model.predict(USER, own))[::-1]
    assert_allclose(widths(display.history_bars_), predicted[:3])
    assert display.titles[0] == f"User {USER}: predicted best, 3 of {len(own)}"
    label = "Score" if kind is ImplicitMatrixFactorization else "Predicted rating"
    assert [ax.get_xlabel() for ax in display.ax_] == [label, label]
    assert (display.nearest is None) == (kind is TorchFactorization)


@pytest.mark.parametrize("kind", [BiasedMatrixFactorization, ImplicitMatrixFactorization])
@every_form
def test_a_new_user_is_a_sparse_row(kind, form):
    model = fitted(kind, form)
    row = sp.csr_array(([4.0, 1.0], ([0, 0], [3, 7])), shape=(1, N_ITEMS))
    display = RecommendationDisplay.from_estimator(model, row, k=2)
    assert display.history == [str(item) for item in ids_in(form, "item", [3, 7])]
    assert display.recommended == [str(item) for item in model.recommend(row, k=2)[0][0]]
    assert display.std is None
    assert display.titles[0] == "New user: rated best, all 2"
    empty = RecommendationDisplay.from_estimator(model, sp.csr_array((1, N_ITEMS)), k=2)
    assert empty.titles[0] == "New user: no history"
    assert "Nothing is known." in [text.get_text() for text in empty.ax_[0].texts]


def test_a_user_who_has_everything_gets_words():
    full = Interactions(np.repeat([0, 1], 3), np.tile([0, 1, 2], 2), np.arange(6.0))
    display = RecommendationDisplay.from_estimator(fitted(data=full, n_factors=1), 0)
    assert display.recommended == []
    assert "Nothing is left." in [text.get_text() for text in display.ax_[1].texts]


def test_negative_ratings_have_bars_to_the_left():
    data = Interactions(DATA.user_ids, DATA.item_ids, DATA.ratings - 9, num_users=N_USERS, num_items=N_ITEMS)
    display = RecommendationDisplay.from_estimator(fitted(data=data), USER, X=data, k=3)
    assert max(widths(display.history_bars_)) < 0
    assert display.ax_[0].get_xlim()[0] <= min(widths(display.history_bars_))
    assert display.ax_[0].get_xlim()[1] > 0


def test_parameters_reach_recommend():
    model = fitted()
    display = RecommendationDisplay.from_estimator(model, USER, k=2, recommend_params={"items": [1, 2, 3], "exclude_seen": False})
    assert set(display.recommended) < {"1", "2", "3"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"user": 9999}, "user 9999 was not seen in fit. Pass one of users_, or pass its ratings as a sparse"),
        ({"user": [1, 2]}, r"user must be one user id, or a sparse matrix with one row. Got shape \(2,\)"),
        ({"user": sp.csr_array((2, N_ITEMS))}, "Got 2 rows"),
        ({"user": sp.csr_array((1, N_ITEMS)), "X": DATA}, "X must be None where user is a sparse matrix"),
        ({"X": sp.csr_array((3, N_ITEMS))}, r"X must have shape \(30, 20\)"),
        ({"y": DATA.ratings}, "y and timestamps are of the rows"),
        ({"order": "best"}, 'order must be "rating", "recent" or "predicted"'),
        ({"order": "rating"}, 'order="rating" needs ratings'),
        ({"X": DATA, "order": "recent"}, 'order="recent" needs times'),
        ({"k": 0}, "k must be an int >= 1"),
        ({"n_history": 0}, "n_history must be an int >= 1"),
        ({"labels": ["a"]}, "labels must be a mapping from item ids"),
    ],
)
def test_bad_arguments_of_recommendations_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        RecommendationDisplay.from_estimator(fitted(), **{"user": USER} | arguments)
    assert plt.get_fignums() == []


def test_values_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"scores must have one value for each of 2 items\. Got 1"):
        RecommendationDisplay(recommended=["a", "b"], scores=[1.0]).plot()
    assert plt.get_fignums() == []
