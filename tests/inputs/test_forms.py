"""Edges and mistakes: each is a clear error, which names the argument, the rule and what came, or the right result."""

import os
import re
import tracemalloc

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.exceptions import DataConversionWarning, NotFittedError
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sk_torchmf import BiasedMatrixFactorization, Interactions, MatrixFactorization

pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")

X = np.array([[0, 0], [0, 1], [1, 0], [2, 1], [2, 2]])
Y = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
S = sp.csr_array((Y, X.T.copy()), shape=(3, 3))
I = Interactions(*X.T, Y)  # noqa: E741
FORMS = {"table": (X, Y), "container": (I, None), "sparse": (S, None)}
SOLVERS = dict.fromkeys(["adam", MatrixFactorization().solver])


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=[MatrixFactorization, BiasedMatrixFactorization])
def make(request):
    """Make an estimator that is quick to fit; keyword arguments are its parameters."""
    return lambda **options: request.param(**({"n_factors": 2, "max_iter": 3, "random_state": 0} | options))


@pytest.fixture(params=FORMS.values(), ids=FORMS.keys())
def form(request):
    """(X, y) in one of the three input forms."""
    return request.param


@pytest.mark.parametrize(
    ("X", "y", "shape"),
    [
        (np.empty((0, 2)), [], r"\(shape=\(0, 2\)\)"),
        (pd.DataFrame({"u": [], "i": []}), [], r"shape \(0, 2\)"),
        (pl.DataFrame({"u": [], "i": []}), [], r"shape \(0, 2\)"),
        (Interactions([], [], []), None, r"\(shape=\(0, 2\)\)"),
        (Interactions([], [], [], num_users=3, num_items=2), None, r"\(shape=\(0, 2\)\)"),
        (sp.csr_array((3, 2)), None, r"\(shape=\(3, 2\)\)"),
        (sp.csr_array((0, 2)), None, r"\(shape=\(0, 2\)\)"),
        (sp.csr_array((2, 0)), None, r"\(shape=\(2, 0\)\)"),
    ],
    ids=["array", "pandas", "polars", "container", "container with sizes", "sparse", "sparse, no rows", "sparse, no columns"],
)
def test_an_empty_x_is_refused_with_its_shape(make, X, y, shape):
    with pytest.raises(ValueError, match=rf"{shape}.*minimum of 1"):
        make().fit(X, y)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(
    "rows", [[0], [0, 1], [0, 2], [0, 0, 0]], ids=["one rating", "one user", "one item", "one pair three times"]
)
@pytest.mark.parametrize("kind", ["table", "container", "sparse"])
def test_the_smallest_data_fit_and_predict(make, solver, rows, kind):
    if kind == "table":
        args = X[rows], Y[rows]
    else:
        args = (Interactions(*X[rows].T, Y[rows]),)
        args = (args[0].tocsr(),) if kind == "sparse" else args
    model = make(solver=solver).fit(*args)
    for predicted in (model.predict(X), model.predict([0], [0]), model.predict(0)):
        assert np.isfinite(predicted).all()
    assert model.score(X, Y) <= 1
    items, scores = model.recommend(k=2, exclude_seen=False)
    assert items.shape == scores.shape == (len(model.users_), 2)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
def test_a_rating_that_is_not_finite_is_named_by_its_place(make, value):
    bad = Y.copy()
    bad[3] = value
    cure = r"Drop the row or fill it in before fitting\."
    with pytest.raises(ValueError, match=rf"y\[3\] is {value}\. {cure}"):
        make().fit(X, bad)
    with pytest.raises(ValueError, match=rf"ratings\[3\] is {value}\. {cure}"):
        make().fit(Interactions(*X.T, bad))
    with pytest.raises(ValueError, match=rf"y\[3\] is {value}\. {cure}"):
        make().fit(I, bad)
    with pytest.raises(ValueError, match=rf"X\.data\[3\] is {value}\. {cure}"):
        make().fit(sp.csr_array((bad, S.indices, S.indptr), shape=S.shape))


def test_none_among_ratings_is_named_by_its_place(make):
    with pytest.raises(ValueError, match=r"y\[1\] is nan"):
        make().fit(X[:3], np.array([1.0, None, 2.0], dtype=object))


@pytest.mark.parametrize(
    ("bad", "row"),
    [
        (np.array([[0, 1], [np.nan, 1]]), "nan"),
        (np.array([[0, 1], [np.inf, 1]]), "inf"),
        (pd.DataFrame({"u": ["a", None], "i": [1, 2]}), "missing"),
        (pd.DataFrame({"u": pd.array([1, None], dtype="Int64"), "i": [1, 2]}), "missing"),
        (pl.DataFrame({"u": ["a", None], "i": [1, 2]}), "missing"),
        (np.array([["a", 1], [None, 1]], dtype=object), "missing"),
    ],
    ids=["nan", "inf", "pandas None", "pandas Int64", "polars null", "object None"],
)
def test_a_missing_id_is_named_by_its_row(make, bad, row):
    words = rf"user ids must be present and finite \(no NaN, no inf\)\. Row 1 is {row}\. Drop the row or give it an id\."
    with pytest.raises(ValueError, match=words):
        make().fit(bad, [1.0, 2.0])


def test_a_missing_id_is_refused_by_predict_too(make):
    model = make().fit(X, Y)
    with pytest.raises(ValueError, match=r"item ids must be present and finite .*Row 0 is nan"):
        model.predict(np.array([[0.0, np.nan]]))
    with pytest.raises(ValueError, match=r"user ids must be present and finite .*Row 1 is nan"):
        model.predict([0.0, np.nan], [0.0, 1.0])


def test_nan_in_another_column_is_ignored(make):
    wide = np.column_stack([X, np.full(len(X), np.nan)])
    predicted = make().fit(wide, Y).predict(wide)
    np.testing.assert_array_equal(predicted, make().fit(X, Y).predict(X))


def test_a_negative_weight_is_named_by_its_place(make, form):
    weight = np.ones(form[0].shape[0])
    weight[1] = -1
    with pytest.raises(ValueError, match=r"sample_weight must be >= 0\. Got sample_weight\[1\] = -1\.0\."):
        make().fit(*form, sample_weight=weight)


def test_bad_weights_of_a_container_are_named(make):
    with pytest.raises(ValueError, match=r"weights must be >= 0\. Got weights\[2\] = -3\.0\."):
        make().fit(Interactions(*X.T, Y, weights=[1, 1, -3, 1, 1]))
    with pytest.raises(ValueError, match=r"weights\[0\] is inf"):
        make().fit(Interactions(*X.T, Y, weights=[np.inf, 1, 1, 1, 1]))


def test_a_weight_that_is_not_finite_is_named_by_its_place(make, form):
    weight = np.ones(form[0].shape[0])
    weight[2] = np.nan
    with pytest.raises(ValueError, match=r"sample_weight\[2\] is nan"):
        make().fit(*form, sample_weight=weight)


def test_weights_that_are_all_zero_are_refused(make, form):
    with pytest.raises(ValueError, match=r"sample_weight.* all zero\. At least one weight must be greater than zero\."):
        make().fit(*form, sample_weight=np.zeros(form[0].shape[0]))


def test_weight_only_on_users_without_ratings_is_all_zero(make):
    # Each stored rating then has weight zero, though not each weight is zero.
    matrix = sp.csr_array([[1.0, 2.0], [0.0, 0.0]])
    with pytest.raises(ValueError, match=r"sample_weight.*zero"):
        make().fit(matrix, sample_weight=[0.0, 1.0])


@pytest.mark.parametrize("length", [0, 2, 6])
def test_weights_of_another_length_are_refused_with_both_shapes(make, length):
    for args in ((X, Y), (I,)):
        words = rf"sample_weight must have one weight for each observation, shape \(5,\)\. Got shape \({length},\)\."
        with pytest.raises(ValueError, match=words):
            make().fit(*args, sample_weight=np.ones(length))


def test_a_sparse_matrix_has_a_weight_for_each_user_and_says_where_others_go(make):
    words = (
        r"sample_weight must have one weight for each user \(row of X\), shape \(3,\)\. Got shape \(5,\)\..*Interactions\.weights"
    )
    with pytest.raises(ValueError, match=words):
        make().fit(S, sample_weight=np.ones(5))
    by_user = np.array([1.0, 2.0, 0.5])
    model = make(dtype="float64").fit(S, sample_weight=by_user)
    by_rating = Interactions(*X.T, Y, weights=by_user[X[:, 0]])
    np.testing.assert_allclose(model.predict(X), make(dtype="float64").fit(by_rating).predict(X), rtol=1e-10)


def test_text_for_weights_names_the_argument(make):
    with pytest.raises((TypeError, ValueError), match="sample_weight"):
        make().fit(X, Y, sample_weight=["heavy"] * 5)


def test_ids_that_a_container_cannot_hold_are_refused_before_any_fit():
    for change, error, words in [
        ({"user_ids": [0, 5]}, ValueError, r"user_ids\[1\] is 5, but num_users is 3\. Raise num_users or drop the row\."),
        ({"item_ids": [-1, 0]}, ValueError, r"item_ids must be >= 0\. Got item_ids\[0\] = -1\."),
        ({"item_ids": [0.5, 0]}, ValueError, r"item_ids must be whole numbers\. Got item_ids\[0\] = 0\.5\."),
        ({"user_ids": ["a", "b"]}, TypeError, r"user_ids must be integers\. Got dtype <U1; pass labels in a table instead\."),
    ]:
        with pytest.raises(error, match=words):
            Interactions(**({"user_ids": [0, 1], "item_ids": [0, 1], "ratings": [1, 2], "num_users": 3, "num_items": 3} | change))


def test_bad_ids_of_an_object_like_spotlights_are_refused_by_fit(make):
    class Theirs:
        user_ids, item_ids, ratings = np.array([0, 4]), np.array([0, 1]), np.array([1.0, 2.0])
        num_users, num_items, timestamps, weights = 3, 2, None, None

    with pytest.raises(ValueError, match=r"user_ids\[1\] is 4, but num_users is 3"):
        make().fit(Theirs())


def test_negative_and_fractional_ids_are_labels_in_a_table(make):
    table = np.column_stack([X[:, 0] - 7, X[:, 1] + 0.5])
    model = make(solver="adam").fit(table, Y)
    assert model.users_.tolist() == [-7, -6, -5]
    assert model.items_.tolist() == [0.5, 1.5, 2.5]
    np.testing.assert_array_equal(model.predict(table), make(solver="adam").fit(X, Y).predict(X))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint32, np.int64, np.float32])
def test_ids_of_any_numeric_type_give_the_same_model(make, dtype):
    # The range of these labels is too wide for int8; unsigned types have no -1 to mark the unknown.
    labels = np.array([0, 120, 240]) - (120 if np.dtype(dtype).kind in "if" else 0)
    table = np.tile(labels[X], (20, 1)).astype(dtype)
    model = make().fit(table, np.tile(Y, 20))
    expected = make().fit(np.tile(X, (20, 1)), np.tile(Y, 20))
    np.testing.assert_array_equal(model.predict(table[:5]), expected.predict(X))
    unknown = np.array([[99, 99]], dtype=dtype)
    np.testing.assert_allclose(model.predict(unknown), expected.predict(unknown))


def test_unknown_unsigned_ids_after_a_fit_on_positions(make):
    model = make().fit(I)
    expected = model.predict(np.array([[99, 99]], dtype=np.int64))
    for dtype in (np.uint8, np.uint32, np.uint64):
        np.testing.assert_array_equal(model.predict(np.array([[99, 99]], dtype=dtype)), expected)


@pytest.mark.parametrize("table", [X[:, :1], X[:, :1].tolist(), pd.DataFrame(X[:, :1]), pl.DataFrame({"u": X[:, 0]})], ids=type)
def test_one_column_is_refused_and_the_sparse_form_named(make, table):
    with pytest.raises(
        ValueError, match=r"X has 1 column .* needs a user and an item column\. For a users x items matrix pass a scipy"
    ):
        make().fit(table, Y)


@pytest.mark.parametrize(("bad", "words"), [(X[:, 0], "1D array"), (X[None], "dim 3"), (3, "scalar array"), (None, "scalar array")])
def test_x_of_other_dimensions_is_refused(make, bad, words):
    with pytest.raises(ValueError, match=words):
        make().fit(bad, Y)


@pytest.mark.skipif(len(sp.coo_array([1.0, 2.0]).shape) == 2, reason="this SciPy makes a matrix of it")
def test_a_sparse_array_of_one_dimension_is_refused(make):
    with pytest.raises(ValueError, match=r"X must have two dimensions, users x items\. Got a sparse array of shape \(2,\)\."):
        make().fit(sp.coo_array([1.0, 2.0]))


def test_predict_needs_the_columns_of_fit(make):
    model = make().fit(np.hstack([X, X]), Y)
    with pytest.raises(ValueError, match=r"X has 2 features, but \w+ is expecting 4 features as input"):
        model.predict(X)
    named = make(user="u", item="i").fit(pd.DataFrame({"u": X[:, 0], "i": X[:, 1]}), Y)
    with pytest.raises(ValueError, match="feature names"):
        named.predict(pd.DataFrame({"u": X[:, 0], "other": X[:, 1]}))


def test_an_unknown_column_is_named_with_those_there_are(make):
    frame = pd.DataFrame(X, columns=["u", "i"])
    with pytest.raises(ValueError, match=r"user='who' is not a column of X\. The columns are \['u', 'i'\]\."):
        make(user="who").fit(frame, Y)
    with pytest.raises(ValueError, match=r"item='i' is not a column of X\. X is an array, whose columns have positions only\."):
        make(item="i").fit(X, Y)
    with pytest.raises(ValueError, match=r"item=7 is not a column position of X, which has 2 columns\."):
        make(item=7).fit(frame, Y)


def test_sparse_with_y_is_refused_with_the_reason(make):
    words = r"y must be None when X is a sparse rating matrix: its stored entries are the ratings\."
    with pytest.raises(ValueError, match=words):
        make().fit(S, Y)
    with pytest.raises(ValueError, match=words):
        make().fit(S).score(S, [1.0, 2.0, 3.0])


def test_a_table_without_y_is_refused_with_the_reason(make):
    with pytest.raises(ValueError, match=r"requires y to be passed, but the target y is None: a table X holds the ids only"):
        make().fit(X)
    with pytest.raises(ValueError, match=r"score needs y, the ratings of X"):
        make().fit(X, Y).score(X)


def test_a_container_without_ratings_is_refused_with_the_cure(make):
    with pytest.raises(ValueError, match=r"needs ratings: pass y, or Interactions with ratings\."):
        make().fit(Interactions(*X.T))


@pytest.mark.parametrize("x", [X, I], ids=["table", "container"])
def test_y_of_another_length_is_refused_with_both_shapes(make, x):
    with pytest.raises(ValueError, match=r"y must have one value for each observation, shape \(5,\)\. Got shape \(2,\)\."):
        make().fit(x, Y[:2])


def test_y_of_two_dimensions(make):
    with pytest.raises(ValueError, match="y should be a 1d array, got an array of shape \\(5, 2\\)"):
        make().fit(X, np.column_stack([Y, Y]))
    with pytest.warns(DataConversionWarning, match="column-vector y was passed"):
        model = make().fit(X, Y[:, None])
    np.testing.assert_array_equal(model.predict(X), make().fit(X, Y).predict(X))


def test_text_ratings_name_the_argument(make):
    with pytest.raises((TypeError, ValueError), match=r"\by\b.*good|good.*\by\b"):
        make().fit(X, ["good"] * 5)
    with pytest.raises((TypeError, ValueError), match="ratings"):
        make().fit(Interactions(*X.T, ["good"] * 5))
    with pytest.raises((TypeError, ValueError), match=r"X must hold real numbers\. Got dtype"):
        make().fit(_sparse_of(np.array(["good"] * 5, dtype=object)))


def _sparse_of(data):
    matrix = S.copy()
    matrix.data = data
    return matrix


def test_ratings_that_are_numbers_in_text_or_objects_are_numbers(make):
    expected = make().fit(X, Y).predict(X)
    np.testing.assert_array_equal(make().fit(X, Y.astype(str)).predict(X), expected)
    np.testing.assert_array_equal(make().fit(X, Y.astype(object)).predict(X), expected)
    np.testing.assert_array_equal(make().fit(X, Y.astype(np.uint8)).predict(X), expected)


def test_booleans_are_zero_and_one(make):
    liked = Y > 2
    np.testing.assert_array_equal(make().fit(X, liked).predict(X), make().fit(X, liked.astype(float)).predict(X))
    matrix = S.astype(bool)
    np.testing.assert_array_equal(make().fit(matrix).predict(X), make().fit(matrix.astype(float)).predict(X))


def test_complex_input_is_refused(make):
    with pytest.raises(ValueError, match=r"Complex data not supported: y has dtype complex128"):
        make().fit(X, Y + 1j)
    with pytest.raises(ValueError, match=r"Complex data not supported: ratings has dtype complex128"):
        make().fit(Interactions(*X.T, Y + 1j))
    with pytest.raises(ValueError, match="Complex data not supported"):
        make().fit(X + 1j, Y)
    with pytest.raises(ValueError, match=r"X must hold real numbers\. Got dtype complex128"):
        make().fit(S.astype(complex))


def test_int64_indices_of_a_sparse_matrix_change_nothing(make):
    wide = sp.csr_array((S.data, S.indices.astype(np.int64), S.indptr.astype(np.int64)), shape=S.shape)
    assert wide.indices.dtype == np.int64
    model, expected = make().fit(wide), make().fit(S)
    np.testing.assert_array_equal(model.predict(X), expected.predict(X))
    np.testing.assert_array_equal(model.predict(wide), expected.predict(S))
    np.testing.assert_array_equal(model.recommend(wide, k=2)[0], expected.recommend(S, k=2)[0])
    assert model.score(wide) == expected.score(S)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_pair_given_twice_is_two_observations(make, solver):
    repeated = np.vstack([X, X[:1], X[:1]])
    options = {"solver": solver, "dtype": "float64"}
    model = make(**options).fit(repeated, np.append(Y, [1.0, 1.0]))
    weighted = make(**options).fit(X, Y, sample_weight=[3.0, 1, 1, 1, 1])
    np.testing.assert_allclose(model.predict(X), weighted.predict(X), rtol=1e-8)  # float64; sums in another order
    assert model.seen_.nnz == 5


def test_duplicates_of_a_coo_matrix_are_summed_as_scipy_does(make):
    doubled = sp.coo_array((np.concatenate([Y, Y]), np.tile(X.T, 2)), shape=S.shape)
    np.testing.assert_array_equal(make().fit(doubled).predict(X), make().fit(S * 2).predict(X))
    assert doubled.nnz == 10


def table_of(n, seed=0):
    """n random pairs of 20 users and 15 items, as a table."""
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.integers(0, 20, n), rng.integers(0, 15, n)])


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("value", [3.0, -3.0, 1e-9, 1e9])
def test_a_constant_rating_is_predicted_for_every_pair(make, solver, value):
    pairs = table_of(200)
    model = make(solver=solver, max_iter=50).fit(pairs, np.full(200, value))
    everything = model.predict(np.arange(20)[:, None], np.arange(15))
    # A tenth: the random start is not quite trained away, and there is no spread to measure it by.
    np.testing.assert_allclose(everything, value, rtol=0.1)


@pytest.mark.parametrize("solver", SOLVERS)
def test_ratings_that_are_all_zero_are_predicted_as_zero(make, solver):
    pairs = table_of(200)
    model = make(solver=solver, max_iter=50).fit(pairs, np.zeros(200))
    np.testing.assert_allclose(model.predict(pairs), 0.0, atol=0.05)
    matrix = Interactions(*pairs.T, np.zeros(200)).tocsr()
    assert matrix.nnz > 0  # explicit zeros
    assert np.isfinite(make(solver=solver).fit(matrix).predict(matrix)).all()


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("scale", [1e-6, 1e30])
def test_the_scale_of_the_ratings_is_immaterial(make, solver, scale):
    pairs = table_of(200)
    rating = np.random.default_rng(1).integers(1, 6, 200).astype(float)
    options = {"solver": solver, "dtype": "float64"}
    plain, scaled = make(**options).fit(pairs, rating), make(**options).fit(pairs, scale * rating)
    np.testing.assert_allclose(scaled.predict(pairs), scale * plain.predict(pairs), rtol=1e-6)  # float64, steps of the optimizer
    assert scaled.score(pairs, scale * rating) == pytest.approx(plain.score(pairs, rating), abs=1e-6)
    single = make(solver=solver).fit(pairs, (scale * rating).astype(np.float32))
    assert np.isfinite(single.predict(pairs)).all()


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("outlier", [1e12, -1e12, 1e30])
def test_one_huge_outlier_leaves_finite_predictions(make, solver, outlier):
    pairs = table_of(200)
    rating = np.random.default_rng(1).integers(1, 6, 200).astype(float)
    rating[17] = outlier
    model = make(solver=solver, max_iter=50).fit(pairs, rating)
    assert np.isfinite(model.predict(np.arange(20)[:, None], np.arange(15))).all()
    matrix = Interactions(*pairs.T, rating).tocsr()
    model = make(solver=solver).fit(matrix)
    assert np.isfinite(model.predict(matrix)).all()
    assert np.isfinite(model.score(matrix))


@pytest.mark.parametrize("size", [1e60, 1e-60, 1e300])
def test_ratings_that_float32_factors_could_not_hold_are_refused(make, size):
    words = f"The largest rating must lie between 1e-35 and 1e35 in size. Got {5 * size:.3g}. Rescale the ratings."
    with pytest.raises(ValueError, match=re.escape(words)):
        make().fit(X, Y * size)


class LargestTensor(TorchDispatchMode):
    """Records the size in bytes of the largest storage that any torch operation returns."""

    n_bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided:
                self.n_bytes = max(self.n_bytes, tensor.untyped_storage().nbytes())
        return out


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", ["table", "container", "sparse"])
def test_ten_million_item_ids_make_no_dense_array(solver, kind):
    """A dense users x items array, even of booleans, would take 5 GB; what is proportional to the items stays far below."""
    user, item, rating = [0, 499, 7], [0, 9_999_999, 5_000_000], [1.0, 2.0, 4.0]
    sizes = {"num_users": 500, "num_items": 10_000_000}
    interactions = Interactions(user, item, rating, **sizes)
    args = {
        "table": (np.column_stack([user, item]), rating),
        "container": (interactions,),
        "sparse": (sp.coo_array((rating, (user, item)), shape=(500, 10_000_000)),),
    }[kind]
    model = BiasedMatrixFactorization(n_factors=1, solver=solver, max_iter=2, random_state=0)
    tracemalloc.start()
    try:
        with LargestTensor() as largest:
            model.fit(*args)
            predicted = [model.predict(interactions if kind != "table" else args[0]), model.predict(user, item), model.predict(0)]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert all(np.isfinite(array).all() for array in predicted)
    assert len(predicted[2]) == (3 if kind == "table" else 10_000_000)
    assert peak < 1e9  # about ten arrays of 10 million float64
    assert largest.n_bytes < 1e9


@pytest.mark.skipif(torch.cuda.is_available(), reason="has CUDA")
@pytest.mark.parametrize("device", ["cuda", "cuda:1", torch.device("cuda")])
def test_cuda_where_there_is_none_is_an_error_and_no_fallback(make, device):
    words = rf'device="{device}" was asked for, but torch\.cuda\.is_available\(\) is False\. Use device="cpu"\.'
    with pytest.raises(ValueError, match=words):
        make(device=device).fit(X, Y)


@pytest.mark.parametrize("device", ["gpu", "", "cpu:x", "meta"])
def test_a_device_that_is_none_is_named(make, device):
    with pytest.raises(ValueError, match=rf'device.*"{device}"'):
        make(device=device).fit(X, Y)


@pytest.mark.parametrize("loss", ["squared_error", "poisson"])
@pytest.mark.parametrize("options", [{"solver": solver} for solver in SOLVERS] + [{"solver": "adam", "batch_size": 2}], ids=str)
def test_another_default_device_does_not_reach_a_fit_on_the_cpu(make, loss, options):
    # A tensor made without a device lands on the default one: on "meta" it shows here, on "cuda" only where there is one.
    def run():
        model = make(device="cpu", loss=loss, **options).fit(I)
        user, item = (torch.from_numpy(ids.copy()) for ids in X.T)
        exported = model.to_module()(user, item).detach()
        return [model.predict(X), model.predict(0), model.predict(S), model.score(S), *model.recommend(k=2), exported]

    expected = run()
    with torch.device("meta"):
        results = run()
    for ours, theirs in zip(results, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_factors", 0),
        ("n_factors", 2.5),
        ("loss", "bpr"),
        ("solver", "newton"),
        ("alpha", -0.1),
        ("max_iter", 0),
        ("tol", -1e-3),
        ("learning_rate", 0.0),
        ("batch_size", 0),
        ("handle_unknown", "zero"),
        ("clip", "yes"),
        ("user", -1),
        ("item", 1.5),
        ("dtype", "float16"),
        ("device", 0),
        ("random_state", "seed"),
        ("verbose", -1),
    ],
)
def test_an_invalid_hyper_parameter_is_named_with_its_value(make, name, value):
    with pytest.raises(ValueError, match=rf"The '{name}' parameter of \w+ must be .* Got {value!r} instead"):
        make(**{name: value}).fit(X, Y)


def test_lbfgs_takes_no_batches(make):
    with pytest.raises(ValueError, match=r'batch_size must be None with solver="lbfgs".*Got 3'):
        make(solver="lbfgs", batch_size=3).fit(X, Y)


CALLS = {
    "predict": lambda model: model.predict(X),
    "predict pairs": lambda model: model.predict([0], [0]),
    "transform": lambda model: model.transform(X),
    "fold_in": lambda model: model.fold_in(S),
    "inverse_transform": lambda model: model.inverse_transform(np.ones((1, 2))),
    "score": lambda model: model.score(X, Y),
    "recommend": lambda model: model.recommend(),
    "similar_items": lambda model: model.similar_items([0]),
    "similar_users": lambda model: model.similar_users([0]),
    "embeddings": lambda model: model.embeddings(),
    "to_module": lambda model: model.to_module(),
    "get_feature_names_out": lambda model: model.get_feature_names_out(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_every_method_asks_for_a_fit_first(make, call):
    with pytest.raises(NotFittedError, match=r"This \w+ instance is not fitted yet"):
        call(make())


def test_transform_takes_the_form_of_fit_only(make):
    for fitted, other, names in [
        ((S,), X, ("sparse", "table")),
        ((X, Y), S, ("table", "sparse")),
        ((S,), I, ("sparse", "interactions")),
    ]:
        words = rf"transform takes X in the form fit saw \({names[0]}\)\. Got {names[1]}\."
        with pytest.raises(ValueError, match=words):
            make().fit(*fitted).transform(other)


def test_new_users_need_a_column_for_each_item(make):
    model, wrong = make().fit(S), sp.csr_array((2, 5))
    for call in (model.predict, model.fold_in, model.transform, model.score, model.recommend):
        with pytest.raises(ValueError, match=r"X has 5 features, but \w+ is expecting 3 features as input"):
            call(wrong)
    with pytest.raises(TypeError, match=r"New users' ratings must be a scipy sparse matrix\. Got ndarray\."):
        model.fold_in(S.toarray())


def test_a_sparse_matrix_without_ratings_has_no_score(make):
    with pytest.raises(ValueError, match=r"X has no stored ratings to score"):
        make().fit(S).score(sp.csr_array((2, 3)))


def test_predictions_for_new_users_that_would_not_fit_in_memory_are_refused(make, monkeypatch):
    model = make().fit(S)
    free = {"SC_AVPHYS_PAGES": 1, "SC_PAGE_SIZE": 100}
    monkeypatch.setattr(os, "sysconf", free.__getitem__)
    assert model.predict(S[:2]).shape == (2, 3)  # 48 bytes
    with pytest.raises(
        MemoryError, match=r"A dense array of 5 x 3 predictions needs .* GiB.*free\. Pass fewer rows, use recommend"
    ):
        model.predict(sp.vstack([S, S[:2]]))


def test_where_the_free_memory_is_unknown_nothing_is_refused(make, monkeypatch):
    def unknown(name):
        raise ValueError(f"unrecognized configuration name {name}")

    model = make().fit(S)
    monkeypatch.setattr(os, "sysconf", unknown)
    assert model.predict(S).shape == (3, 3)


def test_interactions_after_a_fit_on_labels_are_refused(make):
    model = make().fit(np.array([["a", "x"], ["b", "y"]]), [1.0, 2.0])
    words = r"Interactions hold positions, but this model was fitted on a table whose user ids are labels\. Fit it on Interactions"
    for call in (model.predict, model.transform):
        with pytest.raises(ValueError, match=words):
            call(I)
    # ids that happen to be 0 .. n-1 are their own positions
    np.testing.assert_array_equal(make().fit(X, Y).predict(I), make().fit(I).predict(X))


def test_a_text_id_after_a_fit_on_numbers_is_a_type_error(make):
    with pytest.raises(TypeError, match=r"The user ids that fit saw are int64\. Got .*a.*; pass ids of that type\."):
        make().fit(X, Y).predict(["a"], [0])


def test_one_dimension_alone_names_what_may_have_been_meant(make):
    with pytest.raises(ValueError, match=r"(?s)predict\(users, items\).*recommend\(users\).*Reshape your data"):
        make().fit(X, Y).predict([0, 1])


def test_users_and_items_that_do_not_broadcast_are_refused(make):
    with pytest.raises(ValueError, match=r"\(2,\).*\(3,\)"):
        make().fit(X, Y).predict([0, 1], [0, 1, 2])


def test_an_unknown_id_is_an_error_where_asked_for(make):
    model = make(handle_unknown="error").fit(X, Y)
    with pytest.raises(ValueError, match=r"The item id of row 1 was not seen in fit\. Drop it, or use handle_unknown=\"mean\"\."):
        model.predict([0, 0], [0, 99])
    assert np.isnan(make(handle_unknown="nan").fit(X, Y).predict([99], [0])).all()


@pytest.mark.parametrize("k", [0, -1, 1.5, True, "3", None])
def test_k_is_a_positive_int(make, k):
    model = make().fit(X, Y)
    for call in (model.recommend, lambda k: model.similar_items([0], k=k), lambda k: model.similar_users([0], k=k)):
        with pytest.raises(ValueError, match=rf"k must be an int >= 1\. Got {k!r}\."):
            call(k=k)


def test_unknown_candidates_are_named_by_their_place(make):
    model = make().fit(X, Y)
    with pytest.raises(ValueError, match=r"items\[1\] was not seen in fit\. Candidates must be known items\."):
        model.recommend(items=[0, 77])
    with pytest.raises(ValueError, match=r"items\[0\] was not seen in fit, so it has no neighbours\."):
        model.similar_items([77])
    with pytest.raises(ValueError, match=r"users\[2\] was not seen in fit, so it has no neighbours\."):
        model.similar_users([0, 1, 77])


def test_more_than_there_is_is_filled_up(make):
    items, scores = make().fit(X, Y).recommend([0], k=5)
    assert items.tolist() == [[2, -1, -1, -1, -1]]  # items 0 and 1 were seen
    assert np.isneginf(scores[0, 1:]).all()
    items, scores = make().fit(X, Y).recommend(users=[], k=2)
    assert items.shape == scores.shape == (0, 2)


def test_poisson_refuses_negative_ratings(make):
    words = r'loss="poisson" needs ratings >= 0 \(counts\)\. Got -4\.0\.'
    with pytest.raises(ValueError, match=words):
        make(loss="poisson").fit(X, Y - 5)
    model = make(loss="poisson").fit(S)
    with pytest.raises(ValueError, match=words):
        model.fold_in(sp.csr_array([[-4.0, 1.0, 2.0]]))


@pytest.mark.parametrize("rating", [Y, [-1.0, 0.0, 1.0, 1.0, 1.0], [0.0, 1.0, 1.0, 1.0, 1.5]], ids=["1 to 5", "-1, 0 and 1", "1.5"])
def test_logistic_refuses_ratings_out_of_range(make, rating):
    words = rf'loss="logistic" needs ratings between 0 and 1, or all of them -1 or 1\. Got {min(rating)} to {max(rating)}\.'
    with pytest.raises(ValueError, match=words):
        make(loss="logistic").fit(X, rating)


@pytest.mark.parametrize("loss", ["poisson", "logistic"])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_counts_and_labels_that_are_all_alike_fit(make, loss, value):
    predicted = make(loss=loss).fit(X, np.full(5, value)).predict(X)
    assert np.isfinite(predicted).all()
    assert (predicted >= 0).all()
