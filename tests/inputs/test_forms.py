"""What is read by fit and what is refused, with which words, in each of the three input forms."""

import numpy as np
import pytest
import scipy.sparse as sp
from five_ratings import SOLVERS, I, S, X, Y
from sklearn.exceptions import DataConversionWarning

from sk_torchmf import Interactions

pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")
pytestmark = pytest.mark.usefixtures("one_thread")


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
    words = rf"user ids must not be missing or infinite\. Row 1 is {row}\. Drop the row or give it an id\."
    with pytest.raises(ValueError, match=words):
        make().fit(bad, [1.0, 2.0])


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
    words = r"sample_weight must have .* each user \(row of X\), shape \(3,\)\. Got shape \(5,\)\..*Interactions\(\.\.\., weights="
    with pytest.raises(ValueError, match=words):
        make().fit(S, sample_weight=np.ones(5))
    by_user = np.array([1.0, 2.0, 0.5])
    model = make(dtype="float64").fit(S, sample_weight=by_user)
    by_rating = Interactions(*X.T, Y, weights=by_user[X[:, 0]])
    np.testing.assert_allclose(model.predict(X), make(dtype="float64").fit(by_rating).predict(X), rtol=1e-10)


def test_text_for_weights_names_the_argument(make):
    with pytest.raises((TypeError, ValueError), match="sample_weight"):
        make().fit(X, Y, sample_weight=["heavy"] * 5)


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


def test_an_unknown_column_is_named_with_those_there_are(make):
    frame = pd.DataFrame(X, columns=["u", "i"])
    with pytest.raises(ValueError, match=r"user='who' is not a column of X\. The columns are \['u', 'i'\]\."):
        make(user="who").fit(frame, Y)
    with pytest.raises(ValueError, match=r"item='i' is not a column of X\. X is an array, so pass the column's position, an int\."):
        make(item="i").fit(X, Y)
    with pytest.raises(ValueError, match=r"item=7 is not a column position of X, which has 2 columns\."):
        make(item=7).fit(frame, Y)


def test_sparse_with_y_is_refused_with_the_reason(make):
    words = r"y must be None when X is a sparse rating matrix, because its stored entries are the ratings\."
    with pytest.raises(ValueError, match=words):
        make().fit(S, Y)
    with pytest.raises(ValueError, match=words):
        make().fit(S).score(S, [1.0, 2.0, 3.0])


def test_a_table_without_y_is_refused_with_the_reason(make):
    with pytest.raises(ValueError, match=r"requires y to be passed, but the target y is None: a table X holds only the ids"):
        make().fit(X)
    with pytest.raises(ValueError, match=r"score needs the ratings of X"):
        make().fit(X, Y).score(X)


def test_a_container_without_ratings_is_refused_with_the_cure(make):
    with pytest.raises(ValueError, match=r"needs ratings\. Pass y, or Interactions with ratings\."):
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
