"""A table of attributes as numbers: against scikit-learn's own encoders, against arithmetic, and what must make no difference."""

import copy
import datetime
import pickle
import time

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.preprocessing import MultiLabelBinarizer, OneHotEncoder, StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

from sk_torchmf import FeatureEncoder
from sk_torchmf.inputs.encoders import Passthrough
from sk_torchmf.storage.packing import pack, unpack

pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")

RNG = np.random.default_rng(0)
N = 200
WORDS = np.array(["red", "green", "blue", "rare one", "rare two"])
COLORS = RNG.choice(WORDS, N, p=[0.5, 0.3, 0.18, 0.01, 0.01])
TAGS = [list(RNG.choice(WORDS, RNG.integers(0, 4))) for _ in range(N)]
NUMBERS = RNG.normal(3, 5, N)


def as_polars(frame):
    """The same frame without pyarrow, which pl.from_pandas needs."""
    return pl.DataFrame(frame.astype(object).where(frame.notna(), None).to_dict("list"))


def films():
    """A column of every kind, with missing cells."""
    return pd.DataFrame(
        {
            "year": [1994, 1996, np.nan, 1998],
            "genres": [["drama"], ["comedy", "drama", "drama"], [], None],
            "country": ["fr", None, "us", "fr"],
            "colour": [True, False, True, True],
            "released": [datetime.datetime(2020, 1, day) for day in (1, 2, 3, 4)],
            "same": [3, 3, 3, 3],
            "empty": [None] * 4,
        }
    )


EXPECTED = {  # by hand: 1994, 1996, 1998 have the mean 1996 and the variance 8 / 3, days 1 to 4 the mean 2.5 and the variance 5 / 4
    "year": [-np.sqrt(1.5), 0, 0, np.sqrt(1.5)],
    "year (missing)": [0, 0, 1, 0],
    "genres=comedy": [0, 1, 0, 0],
    "genres=drama": [1, 1, 0, 0],
    "genres (missing)": [0, 0, 0, 1],
    "country=fr": [1, 0, 0, 1],
    "country=us": [0, 0, 1, 0],
    "country (missing)": [0, 1, 0, 0],
    "colour=False": [0, 1, 0, 0],
    "colour=True": [1, 0, 1, 1],
    "released": np.array([-1.5, -0.5, 0.5, 1.5]) / np.sqrt(1.25),
}


@pytest.mark.parametrize("library", [lambda frame: frame, as_polars], ids=["pandas", "polars"])
def test_every_kind_of_column_by_hand(library):
    table = library(films())
    encoder = FeatureEncoder().fit(table)
    matrix = encoder.transform(table)
    assert isinstance(matrix, sp.csr_array)
    assert matrix.dtype == np.float64
    assert matrix.nnz == np.count_nonzero(matrix.toarray())
    names = encoder.get_feature_names_out()
    assert names.dtype == object
    assert names.tolist() == list(EXPECTED)
    expected = np.column_stack(list(EXPECTED.values()))
    assert_allclose(matrix.toarray(), expected, rtol=1e-11)  # the days of 2020 are 18,000 times their deviation
    assert encoder.groups() == {
        "year": slice(0, 2),
        "genres": slice(2, 5),
        "country": slice(5, 8),
        "colour": slice(8, 10),
        "released": slice(10, 11),
    }


def test_an_array_has_columns_by_position():
    table = films()[["year", "country"]]
    encoder = FeatureEncoder().fit(table.to_numpy())
    assert encoder.get_feature_names_out().tolist() == ["x0", "x0 (missing)", "x1=fr", "x1=us", "x1 (missing)"]
    assert encoder.get_feature_names_out(["y", "c"]).tolist() == ["y", "y (missing)", "c=fr", "c=us", "c (missing)"]
    assert_array_equal(encoder.transform(table.to_numpy()).toarray(), FeatureEncoder().fit_transform(table).toarray())


@pytest.mark.parametrize("min_frequency", [1, 4, 30, 0.1, 0.9])
def test_one_hot_is_that_of_scikit_learn(min_frequency):
    table, new = pd.DataFrame({"c": COLORS}), pd.DataFrame({"c": [*WORDS, "never seen"]})
    encoder = FeatureEncoder(min_frequency=min_frequency).fit(table)
    peer = OneHotEncoder(min_frequency=min_frequency, handle_unknown="infrequent_if_exist" if min_frequency != 1 else "ignore").fit(
        table
    )
    for X in (table, new):
        assert_array_equal(encoder.transform(X).toarray(), peer.transform(X).toarray())


def test_multi_hot_is_that_of_scikit_learn():
    encoder = FeatureEncoder().fit(pd.DataFrame({"t": TAGS}))
    peer = MultiLabelBinarizer().fit(TAGS)
    assert_array_equal(encoder.transform(pd.DataFrame({"t": TAGS})).toarray(), peer.transform(TAGS))
    assert encoder.get_feature_names_out().tolist() == [f"t={label}" for label in peer.classes_]


def test_rare_labels_share_a_column_and_so_does_what_was_not_seen():
    table = pd.DataFrame({"t": [["a", "b"], ["a", "c", "d"], ["a"], ["b"]]})
    encoder = FeatureEncoder(min_frequency=2).fit(table)
    assert encoder.get_feature_names_out().tolist() == ["t=a", "t=b", "t (infrequent)"]
    assert encoder.transform(table).toarray().tolist() == [[1, 1, 0], [1, 0, 1], [1, 0, 0], [0, 1, 0]]
    assert encoder.transform(pd.DataFrame({"t": [["new", "c"]]})).toarray().tolist() == [[0, 0, 1]]
    assert_array_equal(FeatureEncoder(min_frequency=0.5).fit_transform(table).toarray(), encoder.transform(table).toarray())


def test_what_was_not_seen_is_no_label_where_none_is_rare():
    encoder = FeatureEncoder().fit(pd.DataFrame({"t": [["a"], ["b"]], "c": ["u", "v"]}))
    assert encoder.transform(pd.DataFrame({"t": [["new", "b"]], "c": ["w"]})).toarray().tolist() == [[0, 1, 0, 0]]


def test_missing_cells_that_fit_did_not_see_are_the_mean_and_no_label():
    encoder = FeatureEncoder(min_frequency=2).fit(
        pd.DataFrame({"x": [1.0, 3.0, 5.0], "c": ["u", "u", "v"], "t": [["a"], ["a"], ["b"]]})
    )
    assert encoder.get_feature_names_out().tolist() == ["x", "c=u", "c (infrequent)", "t=a", "t (infrequent)"]
    for missing in (None, np.nan, pd.NA):
        assert encoder.transform(pd.DataFrame({"x": [missing], "c": [missing], "t": [missing]})).nnz == 0


@pytest.mark.parametrize("offset", [0.0, -1e3, 1e6])
@pytest.mark.parametrize("scale", [1.0, 1e-300, 1e-3, 1e200])
def test_scale_and_offset_of_numbers_make_no_difference(scale, offset):
    standardised = FeatureEncoder().fit_transform(pd.DataFrame({"x": NUMBERS})).toarray()
    assert_allclose(standardised, StandardScaler().fit_transform(NUMBERS[:, None]), rtol=1e-12)
    moved = FeatureEncoder().fit_transform(pd.DataFrame({"x": (NUMBERS + offset) * scale}))
    assert_allclose(moved.toarray(), standardised, atol=1e-15 * max(abs(offset), 10))


def test_sparse_columns_are_scaled_and_stay_sparse():
    dense = np.where(RNG.random((N, 3)) < 0.1, RNG.normal(5, 1, (N, 3)), 0)
    columns = dict(zip("abc", dense.T, strict=True)) | {"one": np.ones(N), "zero": np.zeros(N)}
    table = pd.DataFrame({name: pd.arrays.SparseArray(values, fill_value=0.0) for name, values in columns.items()})
    encoder = FeatureEncoder().fit(table)
    assert encoder.get_feature_names_out().tolist() == ["a", "b", "c"]
    expected = dense / np.sqrt(np.mean(dense**2, axis=0))
    matrix = encoder.transform(table)
    assert_allclose(matrix.toarray(), expected, rtol=1e-12)
    assert matrix.nnz == np.count_nonzero(dense)
    assert_allclose(encoder.transform(table.sparse.to_dense()).toarray(), expected, rtol=1e-12)
    centred = FeatureEncoder().fit(table.sparse.to_dense())
    assert_allclose(centred.transform(table).toarray(), StandardScaler().fit_transform(dense), atol=1e-12)


def test_a_missing_cell_of_a_sparse_column_is_its_mean():
    table = pd.DataFrame({"a": pd.arrays.SparseArray([0, 3.0, np.nan, 0, 6.0], fill_value=0.0)})
    scale = np.sqrt(45 / 4)  # of 0, 3, 0, 6, whose mean is 9 / 4
    expected = np.array([[0, 3, 9 / 4, 0, 6], [0, 0, scale, 0, 0]]).T / scale
    assert_allclose(FeatureEncoder().fit_transform(table).toarray(), expected, rtol=1e-12)


def test_a_constant_column_with_missing_cells_leaves_its_mark():
    encoder = FeatureEncoder().fit(pd.DataFrame({"x": [4.0, np.nan, 4.0]}))
    assert encoder.get_feature_names_out().tolist() == ["x (missing)"]
    assert encoder.transform(pd.DataFrame({"x": [9.0, None]}, dtype=float)).toarray().tolist() == [[0], [1]]


def test_a_table_that_says_nothing_becomes_no_column():
    table = pd.DataFrame(
        {"x": [1, 1], "y": [None, None], "t": pd.to_datetime([None, None]), "g": [[], []], "c": pd.Categorical([None, None])}
    )
    assert FeatureEncoder().fit_transform(table).shape == (2, 0)
    assert FeatureEncoder().fit(table).groups() == {}


@pytest.mark.parametrize("library", [lambda frame: frame, as_polars], ids=["pandas", "polars"])
def test_the_order_of_rows_and_of_columns_makes_no_difference(library):
    table, order = films(), [2, 0, 3, 1]
    encoder, permuted = FeatureEncoder().fit(library(table)), FeatureEncoder().fit(library(table.iloc[order]))
    assert_allclose(permuted.transform(library(table)).toarray(), encoder.transform(library(table)).toarray(), atol=1e-15)
    turned = library(table[table.columns[::-1]])
    assert_array_equal(encoder.transform(turned).toarray(), encoder.transform(library(table)).toarray())


def test_one_missing_row_of_any_type_is_of_the_kind_that_fit_saw():
    encoder = FeatureEncoder().fit(films())
    marks = [name.endswith("(missing)") for name in EXPECTED]
    for missing in (pd.DataFrame([[None] * 7], columns=films().columns), pd.DataFrame([[np.nan] * 7], columns=films().columns)):
        assert encoder.transform(missing).toarray()[0].astype(bool).tolist() == marks


def test_columns_that_fit_did_not_see_are_named():
    encoder = FeatureEncoder().fit(films())
    with pytest.raises(ValueError, match=r"must have the columns that fit saw.*: 'genres' is missing"):
        encoder.transform(films().drop(columns="genres"))
    with pytest.raises(ValueError, match="'budget' is not one of them"):
        encoder.transform(films().assign(budget=1))
    with pytest.raises(ValueError, match="X has 2 features, but FeatureEncoder is expecting 7 features"):
        encoder.transform(films().to_numpy()[:, :2])


def test_a_column_of_another_kind_than_in_fit_is_refused():
    encoder = FeatureEncoder().fit(films())
    with pytest.raises(ValueError, match=r"Column 'country' must hold categories, as it did in fit\. Got numbers\."):
        encoder.transform(films().assign(country=[1, 2, 3, 4]))
    with pytest.raises(ValueError, match=r"Column 'released' must hold dates, as it did in fit\. Got numbers"):
        encoder.transform(films().assign(released=[1, 2, 3, 4]))
    with pytest.raises(ValueError, match="Column 'year' holds inf"):
        encoder.transform(films().assign(year=np.inf))
    tiny = FeatureEncoder().fit(pd.DataFrame({"x": [1e-300, 2e-300]}))
    with pytest.raises(ValueError, match=r"Column 'x' holds 1e[+]300, which is too far from the values that fit saw"):
        tiny.transform(pd.DataFrame({"x": [1e300]}))


def test_a_sparse_matrix_is_no_table_of_anything():
    with pytest.raises(TypeError, match='Use the encoder "passthrough",'):
        FeatureEncoder().fit(sp.csr_array(np.eye(3)))


def test_a_failed_fit_leaves_what_was_fitted():
    encoder = FeatureEncoder().fit(films())
    before = copy.deepcopy(vars(encoder))
    with pytest.raises(ValueError, match="holds inf"):
        encoder.fit(films().assign(year=np.inf))
    assert vars(encoder).keys() == before.keys()
    assert_array_equal(encoder.transform(films()).toarray(), FeatureEncoder().fit_transform(films()).toarray())


def test_a_second_fit_forgets_the_first():
    encoder = FeatureEncoder().fit(films()).fit(np.eye(3))
    assert not hasattr(encoder, "feature_names_in_")
    assert encoder.get_feature_names_out().tolist() == ["x0", "x1", "x2"]


@pytest.mark.parametrize("min_frequency", [0, -1, 1.5, "a", None])
def test_min_frequency_is_a_count_or_a_share(min_frequency):
    with pytest.raises(ValueError, match="min_frequency"):
        FeatureEncoder(min_frequency=min_frequency).fit(films())


@pytest.mark.parametrize(("encoder", "check"), [*estimator_checks_generator(FeatureEncoder())])
def test_scikit_learns_check(encoder, check):
    check(encoder)


def test_the_state_is_plain_values_which_a_file_holds():
    encoder = FeatureEncoder(min_frequency=2).fit(films())
    again = clone(encoder)
    assert again.get_params() == {"min_frequency": 2}
    vars(again).update(unpack(*pack(vars(encoder))))
    for copied in (again, pickle.loads(pickle.dumps(encoder)), copy.deepcopy(encoder)):
        assert_array_equal(copied.transform(films()).toarray(), encoder.transform(films()).toarray())
        assert copied.get_feature_names_out().tolist() == encoder.get_feature_names_out().tolist()


def test_it_is_a_part_of_a_column_transformer_whatever_the_output_is_set_to():
    parts = make_column_transformer((FeatureEncoder(), ["genres", "country"]), (StandardScaler(), ["same"]), sparse_threshold=1.0)
    expected = FeatureEncoder().fit_transform(films()[["genres", "country"]]).toarray()
    assert_array_equal(parts.fit_transform(films()).toarray()[:, :-1], expected)
    with config_context(transform_output="pandas"):
        assert sp.issparse(FeatureEncoder().fit_transform(films()))


def test_fifty_thousand_labels_are_quick():
    labels = np.char.add("tag ", np.arange(50_000).astype(str))
    tags = [list(own) for own in labels[RNG.permutation(200_000) % 50_000].reshape(5_000, 40)]
    before = time.process_time()
    matrix = FeatureEncoder().fit_transform(pd.DataFrame({"tags": tags}))
    assert time.process_time() - before < 10  # 0.8 s where nothing else runs; dense it would be 2 GB
    assert matrix.shape == (5_000, 50_000)
    assert matrix.nnz == sum(len(set(own)) for own in tags)


@pytest.mark.parametrize("library", [lambda frame: frame, as_polars], ids=["pandas", "polars"])
def test_passthrough_takes_numbers_and_booleans_as_they_are(library):
    frame = pd.DataFrame({"a": [1, -2, 0], "b": [0.5, 0.0, 4.0], "c": [True, False, True]})
    encoder = Passthrough().fit(library(frame))
    assert encoder.get_feature_names_out().tolist() == ["a", "b", "c"]
    matrix = encoder.transform(library(frame[["c", "a", "b"]]))
    assert isinstance(matrix, sp.csr_array)
    assert matrix.toarray().tolist() == [[1, 0.5, 1], [-2, 0, 0], [0, 4, 1]]
    with pytest.raises(ValueError, match=r"Column 'b' must hold numbers. Got categories. Drop or encode it."):
        encoder.transform(library(frame.assign(b=["x", "y", "z"])))


@pytest.mark.parametrize(
    "matrix", [np.array([[1, 0], [0, 2.5]]), sp.coo_array([[1, 0], [0, 2.5]]), sp.csc_matrix([[1, 0], [0, 2.5]])]
)
def test_passthrough_takes_a_matrix_as_it_is(matrix):
    encoder = Passthrough().fit(matrix)
    assert encoder.transform(matrix).toarray().tolist() == [[1, 0], [0, 2.5]]
    assert encoder.get_feature_names_out().tolist() == ["x0", "x1"]
    with pytest.raises(ValueError, match="X has 3 features, but Passthrough is expecting 2"):
        encoder.transform(np.eye(3))
