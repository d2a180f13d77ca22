"""The container: what it takes, how it slices, what it turns into."""

import copy
import pickle

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.model_selection import KFold, train_test_split
from sklearn.utils.validation import _check_method_params

from sk_torchmf import Features, Interactions
from sk_torchmf.interactions import as_interactions, is_interactions

pytestmark = pytest.mark.usefixtures("one_thread")


def test_ids_that_a_container_cannot_hold_are_refused_before_any_fit():
    for change, error, words in [
        ({"user_ids": [0, 5]}, ValueError, r"user_ids\[1\] is 5, but num_users is 3\. Raise num_users or drop the row\."),
        ({"item_ids": [-1, 0]}, ValueError, r"item_ids must be >= 0\. Got item_ids\[0\] = -1\."),
        ({"item_ids": [0.5, 0]}, ValueError, r"item_ids must be whole numbers\. Got item_ids\[0\] = 0\.5\."),
        (
            {"user_ids": ["a", "b"]},
            TypeError,
            r"user_ids must be integers\. Got dtype <U1\. If these are labels, pass a table instead\.",
        ),
    ]:
        with pytest.raises(error, match=words):
            Interactions(**({"user_ids": [0, 1], "item_ids": [0, 1], "ratings": [1, 2], "num_users": 3, "num_items": 3} | change))


FORMATS = ["bsr", "coo", "csc", "csr", "dia", "dok", "lil"]
ARRAYS = ["user_ids", "item_ids", "ratings", "timestamps", "weights"]


@pytest.fixture
def four():
    """Four interactions of 9 users and 8 items, the last ids far above the observed ones."""
    return Interactions(
        user_ids=[0, 1, 2, 1],
        item_ids=[3, 2, 1, 2],
        ratings=[1.0, 2.0, 3.0, 4.0],
        timestamps=[10, 20, 30, 40],
        weights=[0.5, 1.0, 1.5, 2.0],
        num_users=9,
        num_items=8,
    )


@pytest.mark.parametrize(
    ("index", "rows"),
    [
        (np.array([2, 0]), [2, 0]),
        ([3, 3, -1], [3, 3, 3]),
        (np.array([True, False, False, True]), [0, 3]),
        ([False, True, True, False], [1, 2]),
        (slice(1, 3), [1, 2]),
        (slice(None, None, -1), [3, 2, 1, 0]),
        (slice(None), [0, 1, 2, 3]),
        ((np.array([1, 2]), Ellipsis), [1, 2]),
        ((slice(2), Ellipsis), [0, 1]),
        (2, [2]),
        (-1, [3]),
        (np.int64(1), [1]),
        ([], []),
        (np.zeros(4, dtype=bool), []),
    ],
    ids=str,
)
def test_slicing_selects_every_array_and_keeps_the_sizes(four, index, rows):
    part = four[index]
    assert isinstance(part, Interactions)
    assert (part.num_users, part.num_items) == (9, 8)
    assert part.shape == (len(rows), 2)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(part, name), getattr(four, name)[np.array(rows, dtype=int)], err_msg=name)


def test_slicing_leaves_the_whole_as_it_was(four):
    before = copy.deepcopy(four)
    part = four[[0, 1]]
    part.ratings[:] = -1.0
    part.num_users = 1
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(four, name), getattr(before, name))
    assert four.num_users == 9


def test_slicing_keeps_what_is_missing_missing():
    part = Interactions([0, 1], [1, 0])[[1]]
    assert part.ratings is None
    assert part.timestamps is None
    assert part.weights is None


@pytest.mark.parametrize(
    "index",
    [
        4,
        -5,
        [4],
        (0, 1),
        (slice(None), 0),
        (Ellipsis, [0]),
        np.array([True, False]),
        "user_ids",
        1.5,
        None,
        np.array([[0, 1], [2, 3]]),
    ],
    ids=str,
)
def test_an_index_that_is_no_selection_of_observations_is_refused(four, index):
    with pytest.raises(IndexError):
        four[index]


def test_sklearn_splits_observations(four):
    train, test, y_train, y_test = train_test_split(four, four.ratings, test_size=0.5, random_state=0)
    assert isinstance(train, Interactions)
    assert sorted([*train.ratings, *test.ratings]) == [1.0, 2.0, 3.0, 4.0]
    np.testing.assert_array_equal(train.ratings, y_train)
    np.testing.assert_array_equal(test.ratings, y_test)
    assert [len(held_out) for _, held_out in KFold(4).split(four)] == [1, 1, 1, 1]


def test_sizes_default_to_the_largest_id_plus_one():
    interactions = Interactions([4, 0], [1, 6])
    assert (interactions.num_users, interactions.num_items) == (5, 7)


def test_no_interactions_have_no_users():
    empty = Interactions([], [], [])
    assert (len(empty), empty.num_users, empty.num_items, empty.shape) == (0, 0, 0, (0, 2))
    assert empty.tocsr().shape == (0, 0)


def test_len_shape_ndim_and_repr(four):
    assert len(four) == 4
    assert four.shape == (4, 2)
    assert four.ndim == 2
    assert repr(four) == "<Interactions dataset (9 users x 8 items x 4 interactions)>"


@pytest.mark.parametrize("convert", [np.asarray, np.array, lambda x: np.asarray(x, dtype=float), lambda x: np.vstack([x])])
def test_an_array_of_the_container_is_refused(four, convert):
    with pytest.raises(TypeError, match=r"cannot be converted to an array, because the ratings would be lost.*user_ids"):
        convert(four)


def test_it_survives_pickle_and_deepcopy(four):
    for twin in (pickle.loads(pickle.dumps(four)), copy.deepcopy(four)):
        assert repr(twin) == repr(four)
        np.testing.assert_array_equal(twin.ratings, four.ratings)


def test_tocoo_places_each_rating(four):
    coo = four.tocoo()
    assert coo.format == "coo"
    assert coo.shape == (9, 8)
    assert coo.nnz == 4  # (1, 2) twice
    np.testing.assert_array_equal(coo.row, four.user_ids)
    np.testing.assert_array_equal(coo.col, four.item_ids)
    np.testing.assert_array_equal(coo.data, four.ratings)


def test_tocsr_sums_a_repeated_pair(four):
    expected = np.zeros((9, 8))
    expected[0, 3], expected[1, 2], expected[2, 1] = 1.0, 2.0 + 4.0, 3.0
    assert four.tocsr().format == "csr"
    np.testing.assert_array_equal(four.tocsr().toarray(), expected)


def test_tocoo_is_ones_without_ratings():
    np.testing.assert_array_equal(Interactions([0, 1], [1, 0]).tocoo().toarray(), [[0, 1], [1, 0]])


@pytest.mark.parametrize("kind", ["array", "matrix"])
@pytest.mark.parametrize("fmt", FORMATS)
def test_from_matrix_takes_every_scipy_format(fmt, kind):
    dense = np.array([[0.0, 2.0, 0.0, 0.0], [0.0, 0.0, 3.0, 0.0], [4.0, 0.0, 0.0, 0.0]])
    matrix = getattr(sp, f"coo_{kind}")(dense)
    matrix = matrix.tobsr((1, 1)) if fmt == "bsr" else matrix.asformat(fmt)  # a larger block would store zeros
    interactions = Interactions.from_matrix(matrix)
    assert (interactions.num_users, interactions.num_items) == (3, 4)
    np.testing.assert_array_equal(interactions.user_ids, [0, 1, 2])
    np.testing.assert_array_equal(interactions.item_ids, [1, 2, 0])
    np.testing.assert_array_equal(interactions.ratings, [2.0, 3.0, 4.0])


@pytest.mark.parametrize("fmt", ["bsr", "coo", "csc", "csr"])  # the others cannot be told apart from an absent entry by SciPy
def test_from_matrix_keeps_explicit_zeros(fmt):
    matrix = sp.csr_array((np.array([0.0, 2.0, 0.0]), (np.array([0, 1, 1]), np.array([2, 0, 1]))), shape=(3, 4)).asformat(fmt)
    interactions = Interactions.from_matrix(matrix)
    np.testing.assert_array_equal(interactions.user_ids, [0, 1, 1])
    np.testing.assert_array_equal(interactions.item_ids, [2, 0, 1])
    np.testing.assert_array_equal(interactions.ratings, [0.0, 2.0, 0.0])


def test_from_matrix_takes_int64_indices():
    indices, indptr = np.array([2, 0, 1], dtype=np.int64), np.array([0, 1, 1, 3], dtype=np.int64)
    matrix = sp.csr_array((np.array([1.0, 2.0, 3.0]), indices, indptr), shape=(3, 3))
    assert matrix.indices.dtype == np.int64
    interactions = Interactions.from_matrix(matrix)
    np.testing.assert_array_equal(interactions.user_ids, [0, 2, 2])
    np.testing.assert_array_equal(interactions.item_ids, [2, 0, 1])
    np.testing.assert_array_equal(interactions.ratings, [1.0, 2.0, 3.0])


def test_from_matrix_sums_duplicates_and_leaves_the_matrix_alone():
    data, indices, indptr = np.array([1.0, 2.0, 5.0]), np.array([1, 1, 0]), np.array([0, 2, 3])
    matrix = sp.csr_array((data, indices, indptr), shape=(2, 2))
    assert not matrix.has_canonical_format
    for given in (matrix, matrix.tocoo()):
        interactions = Interactions.from_matrix(given)
        np.testing.assert_array_equal(interactions.item_ids, [1, 0])
        np.testing.assert_array_equal(interactions.ratings, [3.0, 5.0])
        assert given.nnz == 3
    np.testing.assert_array_equal(matrix.data, [1.0, 2.0, 5.0])


def test_from_matrix_sorts_the_columns_of_a_row():
    matrix = sp.csr_array((np.array([7.0, 8.0]), np.array([3, 1]), np.array([0, 2])), shape=(1, 4))
    interactions = Interactions.from_matrix(matrix)
    np.testing.assert_array_equal(interactions.item_ids, [1, 3])
    np.testing.assert_array_equal(interactions.ratings, [8.0, 7.0])
    np.testing.assert_array_equal(matrix.indices, [3, 1])


def test_from_matrix_and_tocsr_are_inverse():
    matrix = sp.random(7, 5, density=0.4, format="csr", random_state=0)
    assert (Interactions.from_matrix(matrix).tocsr() != matrix).nnz == 0


@pytest.mark.parametrize("other", [np.eye(2), [[1.0]], None])
def test_from_matrix_refuses_what_is_not_sparse(other):
    with pytest.raises(TypeError, match=rf"matrix must be a scipy sparse matrix or array. Got {type(other).__name__}"):
        Interactions.from_matrix(other)


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int32, np.uint64, np.float32, object])
def test_ids_of_any_whole_number_type(dtype):
    interactions = Interactions(np.array([0, 3], dtype=dtype), np.array([1, 2], dtype=dtype))
    assert (interactions.num_users, interactions.num_items) == (4, 3)
    assert interactions.user_ids.dtype.kind in "iu"
    np.testing.assert_array_equal(interactions.user_ids, [0, 3])


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"user_ids": [0, -3]}, ValueError, r"user_ids must be >= 0\. Got user_ids\[1\] = -3\."),
        ({"item_ids": [0.0, 1.5]}, ValueError, r"item_ids must be whole numbers\. Got item_ids\[1\] = 1\.5\."),
        ({"item_ids": [np.nan, 1.0]}, ValueError, r"item_ids must be whole numbers\. Got item_ids\[0\] = nan\."),
        ({"user_ids": [0.0, np.inf]}, ValueError, r"user_ids must be whole numbers\. Got user_ids\[1\] = inf\."),
        ({"user_ids": [0.0, 1e300]}, ValueError, r"user_ids.*1e\+300"),
        (
            {"user_ids": ["a", "b"]},
            TypeError,
            r"user_ids must be integers\. Got dtype <U1\. If these are labels, pass a table instead\.",
        ),
        (
            {"user_ids": np.array(["a", "b"], dtype=object)},
            TypeError,
            r"user_ids must be integers\. Got 'a'\. If these are labels, pass a table",
        ),
        ({"user_ids": [True, False]}, TypeError, r"user_ids must be integers\. Got dtype bool"),
        ({"user_ids": [[0], [1]]}, ValueError, r"user_ids must be one-dimensional\. Got shape \(2, 1\)\."),
        ({"user_ids": 3}, ValueError, r"user_ids must be one-dimensional\. Got shape \(\)\."),
        ({"item_ids": [0]}, ValueError, r"item_ids must have one value for each observation, shape \(2,\)\. Got shape \(1,\)\."),
        ({"ratings": [1.0]}, ValueError, r"ratings must have one value for each observation, shape \(2,\)\. Got shape \(1,\)\."),
        ({"timestamps": [[1, 2]]}, ValueError, r"timestamps must have one value .* Got shape \(1, 2\)\."),
        ({"weights": 1.0}, ValueError, r"weights must have one value .* Got shape \(\)\."),
        ({"num_users": 1}, ValueError, r"user_ids\[1\] is 1, but num_users is 1\. Raise num_users or drop the row\."),
        ({"num_items": 0}, ValueError, r"item_ids\[0\] is 0, but num_items is 0\."),
        ({"num_items": -1}, ValueError, r"num_items must be an int >= 0\. Got -1\."),
        ({"num_users": 2.0}, ValueError, r"num_users must be an int >= 0\. Got 2\.0\."),
        ({"num_users": True}, ValueError, r"num_users must be an int >= 0\. Got True\."),
    ],
    ids=str,
)
def test_bad_arguments_are_named(change, error, words):
    with pytest.raises(error, match=words):
        Interactions(**({"user_ids": [0, 1], "item_ids": [0, 0]} | change))


class SpotlightLike:
    """The attributes of spotlight.interactions.Interactions, and nothing else of it."""

    def __init__(self, user_ids, item_ids, ratings=None, timestamps=None, weights=None):
        self.user_ids, self.item_ids = user_ids, item_ids
        self.ratings, self.timestamps, self.weights = ratings, timestamps, weights
        self.num_users, self.num_items = int(user_ids.max() + 1), int(item_ids.max() + 1)


def test_an_object_with_the_attributes_of_spotlight_is_taken():
    user, item = np.array([0, 2], dtype=np.int32), np.array([1, 4], dtype=np.int32)
    theirs = SpotlightLike(user, item, np.array([1, 5], dtype=np.float32), weights=np.array([1.0, 2.0]))
    assert is_interactions(theirs)
    ours = as_interactions(theirs)
    assert isinstance(ours, Interactions)
    assert repr(ours) == "<Interactions dataset (3 users x 5 items x 2 interactions)>"
    assert np.shares_memory(ours.ratings, theirs.ratings)
    np.testing.assert_array_equal(ours.weights, [1.0, 2.0])
    assert ours.timestamps is None


def test_our_own_container_passes_through(four):
    assert as_interactions(four) is four


@pytest.mark.parametrize("other", [np.eye(2), sp.csr_array(np.eye(2)), [[0, 1]], None, "user_ids"], ids=lambda x: type(x).__name__)
def test_a_table_or_matrix_is_no_container(other):
    assert not is_interactions(other)


def test_a_frame_with_columns_of_those_names_is_no_container():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"user_ids": [0], "item_ids": [1], "num_users": [2], "num_items": [2]})
    assert not is_interactions(frame)


def test_features_are_not_what_scikit_learn_slices():
    table = np.arange(6).reshape(3, 2)
    features = Features(table)
    assert features.table is table
    assert not any(hasattr(features, name) for name in ("__len__", "shape", "__array__", "__getitem__", "__iter__"))
    assert _check_method_params(np.eye(3), {"item_features": features}, [0, 1])["item_features"] is features
    assert len(_check_method_params(np.eye(3), {"item_features": table}, [0, 1])["item_features"]) == 2


def test_features_of_features_are_the_same_table():
    table = sp.csr_array(np.eye(3))
    assert Features(Features(table)).table is table


def test_features_are_copied_with_their_table():
    features = Features(np.arange(6).reshape(3, 2))
    for copied in (copy.deepcopy(features), pickle.loads(pickle.dumps(features)), clone(features, safe=False)):
        assert copied.table is not features.table
        np.testing.assert_array_equal(copied.table, features.table)
    assert repr(features) == "<Features (3 rows x 2 columns)>"


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_features_of_a_frame(library):
    library = pytest.importorskip(library, exc_type=ImportError)
    table = getattr(library, "DataFrame", getattr(library, "table", None))({"age": [20, 30, 40], "town": ["a", "b", "c"]})
    assert Features(table).table is table
    assert repr(Features(table)) == "<Features (3 rows x 2 columns)>"


@pytest.mark.parametrize(
    ("table", "got"),
    [
        (3, "int"),
        ("table.csv", "str"),
        (None, "NoneType"),
        ({"age": [1]}, "dict"),
        ([1, 2], r"list\. Its shape is \(2,\)"),
        (np.zeros((2, 2, 2)), r"ndarray\. Its shape is \(2, 2, 2\)"),
        ([[1], [1, 2]], r"list\. Its rows are of unequal lengths"),
        (Interactions([0], [0]), "Interactions"),
        (np.ndarray, "type"),
    ],
    ids=str,
)
def test_features_of_what_is_no_table_are_refused(table, got):
    with pytest.raises(
        TypeError, match=rf"table must be a table of attributes: a DataFrame, a sparse matrix or a 2-D array\. Got {got}"
    ):
        Features(table)


def test_a_frame_without_rows_yet_is_refused_with_the_cure():
    table = pytest.importorskip("polars").LazyFrame({"age": [1]})
    with pytest.raises(TypeError, match=r"Got LazyFrame\. Pass its collect\(\)\."):
        Features(table)
