"""Maps of factors: principal components, labels, colours, and layouts of the caller's own."""

import numpy as np
import pytest
from contract import DATA, N_ITEMS, WIDER, every_form
from data import ids_in
from numpy.testing import assert_allclose, assert_array_equal
from pictures import LONG, SIZES, check_texts, fitted, matplotlib, plt
from sklearn.manifold import MDS
from sklearn.preprocessing import OrdinalEncoder

from sk_torchmf import BiasedMatrixFactorization, ImplicitMatrixFactorization, MatrixFactorization, TorchFactorization
from sk_torchmf.display import FactorMapDisplay
from sk_torchmf.display._figure import overlap


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
    with pytest.raises(ValueError, match=r"method must return two dimensions, an array of shape \(20, 2\). Got shape \(20, 3\)"):
        FactorMapDisplay.from_estimator(model, method=scaling)
    assert not hasattr(scaling, "categories_")  # a copy was fitted
    with pytest.raises(TypeError, match=r"Pass MDS\(\)"):
        FactorMapDisplay.from_estimator(model, method=MDS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"side": "both"}, 'side must be "item" or "user"'),
        ({"method": "umap"}, 'method must be "pca"'),
        ({"labels": ["a", "b"]}, r"labels must be a mapping from item ids, or have one value .* shape \(20,\)"),
        ({"labels": {"m1": "Heat"}}, "Its keys look like 'm1', and the ids like 0"),
        ({"color": [None] * N_ITEMS}, "color must have at least one value"),
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
