"""Tables of attributes: whose row is whose, what is refused, and what an encoder makes of them for n ids."""

import numpy as np
import pytest
import scipy.sparse as sp
from data import objects
from numpy.testing import assert_array_equal
from sklearn import config_context
from sklearn.compose import make_column_transformer
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler, TargetEncoder

from sk_torchmf import FeatureEncoder, Features, InputWarning
from sk_torchmf.inputs.encoders import Passthrough
from sk_torchmf.inputs.features import EncodedFeatures, encode, fit_encoder, read_table
from sk_torchmf.inputs.forms import INTERACTIONS, SPARSE, TABLE

pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")

FILMS = pd.DataFrame({"film": ["m3", "m1", "m2"], "year": [1998, 1994, 1996], "genre": ["drama", "comedy", "drama"]})
positions = pytest.mark.parametrize("form", [SPARSE, INTERACTIONS])


def as_polars(frame):
    """The same frame without pyarrow, which pl.from_pandas needs."""
    return pl.DataFrame(frame.to_dict("list"))


def read(table, key="film", form=TABLE, role="item", n_rows=None):
    return read_table(table, role, key, form, n_rows)


def years(table):
    return table.rows["year"].to_list()


@pytest.mark.parametrize(
    "table",
    [
        FILMS,
        FILMS.rename(columns={"film": "item"}),
        FILMS.set_index("film"),
        FILMS.rename(index=dict(enumerate(FILMS["film"]))).drop(columns="film"),
        as_polars(FILMS),
        as_polars(FILMS).rename({"film": "item"}),
        Features(FILMS),
        Features(Features(as_polars(FILMS))),
    ],
    ids=["key", "role", "index", "plain index", "polars", "polars by role", "wrapped", "wrapped polars"],
)
def test_rows_are_sorted_by_id_wherever_the_ids_are(table):
    found = read(table)
    assert found.ids.tolist() == ["m1", "m2", "m3"]
    assert found.role == "item"
    assert years(found) == [1994, 1996, 1998]
    assert list(found.rows.columns) == ["year", "genre"]


def test_an_arrow_table_is_read_as_the_frame_it_is():
    pa = pytest.importorskip("pyarrow", exc_type=ImportError)  # its wheels may want a newer NumPy
    films = FILMS.assign(tags=[["a", "b"], [], None])
    for table in (pa.Table.from_pandas(films, preserve_index=False), pa.Table.from_pandas(films.set_index("film"))):
        found = read(table)
        assert found.ids.tolist() == ["m1", "m2", "m3"]
        assert years(found) == [1994, 1996, 1998]
        assert_array_equal(encoded(table).matrix.toarray(), encoded(films).matrix.toarray())


def test_the_estimators_own_column_goes_before_the_roles_name_and_that_before_the_index():
    table = pd.DataFrame({"film": [3, 1], "item": [7, 8], "year": [1998, 1994]}, index=[20, 10])
    assert read(table).ids.tolist() == [1, 3]
    assert read(table, key="movie").ids.tolist() == [7, 8]
    assert read(table, key=1).ids.tolist() == [7, 8]
    assert read(table.drop(columns="item"), key=1).ids.tolist() == [10, 20]
    assert list(read(table, key="movie").rows.columns) == ["film", "year"]


@pytest.mark.parametrize("library", [lambda frame: frame, as_polars], ids=["pandas", "polars"])
def test_the_order_of_rows_makes_no_difference(library):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"film": rng.permutation(500), "year": np.arange(500), "tags": [["a"] * (n % 3) for n in range(500)]})
    first = read(library(table))
    for seed in range(3):
        other = read(library(table.sample(frac=1, random_state=seed)))
        assert_array_equal(other.ids, first.ids)
        assert years(other) == years(first)


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        (
            ["a", "b", "a"],
            ValueError,
            "item_features must have one row per id. Got more than one for 'a'. Drop all but one, or merge",
        ),
        ([1, 2, 1.0], ValueError, "more than one for 1. Drop all but one,"),
        (["a", None, "b"], ValueError, r"item_features ids must not be missing or infinite.*Row 1 is missing"),
        ([1.0, np.nan, 2.0], ValueError, "Row 1 is missing. Drop the"),
        ([True, False, True], TypeError, "item_features ids must be numbers, text or times. Got booleans"),
    ],
)
@pytest.mark.parametrize("by", ["column", "index"])
def test_ids_that_are_none_are_refused(ids, error, message, by):
    table = pd.DataFrame({"film": ids, "year": [1, 2, 3]})
    with pytest.raises(error, match=message):
        read(table if by == "column" else table.set_index("film"), key="film" if by == "column" else 1)


@pytest.mark.parametrize("form", [TABLE, SPARSE, INTERACTIONS])
@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            FILMS[["film"]],
            "item_features has only the column 'film', which holds the ids. It needs at least one more, an attribute.",
        ),
        (FILMS[:0], r"item_features: The table has shape \(0, 3\)"),
        (FILMS.set_index("film")[[]], r"item_features: The table has shape \(3, 0\)"),
        (FILMS.rename(columns={"year": "genre"}), "item_features: Every column must have a name of its own. Got 'genre'"),
        (np.empty((0, 2)), r"item_features: It has shape \(0, 2\)"),
        (sp.csr_array((3, 0)), r"item_features: It has shape \(3, 0\)"),
        (sp.csr_array(np.eye(3) * 1j), "item_features: It must hold real numbers. Got dtype complex128"),
        (np.eye(3) * 1j, "item_features: It must hold real numbers. Got dtype complex128"),
    ],
)
def test_tables_that_say_nothing_are_refused(table, message, form):
    with pytest.raises(ValueError, match=message):
        read(table, form=form)


@pytest.mark.parametrize("table", [None, 3, "films.csv", [1, 2], np.arange(3), {"year": [1]}, FILMS["year"], pd.DataFrame])
def test_what_is_no_table_is_refused_by_its_argument(table):
    with pytest.raises(TypeError, match="user_features must be a table of attributes: a DataFrame, a sparse matrix or a 2-D array"):
        read(table, role="user")


def test_a_table_without_ids_beside_labels_is_refused():
    with pytest.raises(
        ValueError, match=r"needs a column 'item' that holds the ids when X is a table\. The columns are \['year', 'genre'\]\."
    ):
        read(as_polars(FILMS).drop("film"))
    for matrix in (np.eye(3), sp.csr_array(np.eye(3)), Features(np.eye(3)), [[1, 2], [3, 4]]):
        with pytest.raises(ValueError, match="must be a DataFrame when X is a table, because the rows of a matrix have no ids"):
            read(matrix)


@positions
@pytest.mark.parametrize(
    "matrix", [np.eye(3) * 2, sp.coo_array(np.eye(3) * 2), sp.csc_matrix(np.eye(3) * 2), [[2, 0, 0], [0, 2, 0], [0, 0, 2]]]
)
def test_a_matrix_has_a_row_for_each_position(matrix, form):
    table = read(matrix, form=form)
    assert table.ids.tolist() == [0, 1, 2]
    assert (table.rows.toarray() if sp.issparse(table.rows) else table.rows).tolist() == (2 * np.eye(3)).tolist()
    table.check_positions(3)
    with pytest.raises(
        ValueError, match=r"item_features has a row for the item 2, but X has 2 items, counted from 0\. Drop the row, or let"
    ):
        table.check_positions(2)


@positions
def test_a_frame_beside_positions_has_them_in_a_column_or_the_index_or_is_in_their_order(form):
    plain = pd.DataFrame({"year": [1998, 1994, 1996]})
    assert years(read(plain, form=form)) == [1998, 1994, 1996]
    assert years(read(as_polars(plain), form=form)) == [1998, 1994, 1996]
    for keyed in (plain.set_axis([2, 0, 5]), plain.assign(item=[2.0, 0.0, 5.0]), as_polars(plain.assign(film=[2, 0, 5]))):
        table = read(keyed, form=form)
        assert table.ids.tolist() == [0, 2, 5]
        assert years(table) == [1994, 1998, 1996]
    with pytest.raises(TypeError, match=r"item_features ids must be integers.*If these are labels, pass a table instead"):
        read(FILMS, form=form)
    with pytest.raises(ValueError, match="item_features ids must be >= 0"):
        read(plain.set_axis([-1, 0, 1]), form=form)


def test_a_bare_table_with_as_many_rows_as_x_may_have_been_cut():
    for form, role, table in [
        (TABLE, "user", FILMS),
        (TABLE, "item", FILMS),
        (INTERACTIONS, "user", np.eye(3)),
        (SPARSE, "item", np.eye(3)),
    ]:
        with pytest.raises(
            ValueError, match=rf"{role}_features has 3 rows, as many as X.*Pass {role}_features=Features\(table\)\."
        ):
            read(table, form=form, role=role, n_rows=3)
        for passed, n_rows in ((Features(table), 3), (table, 4), (table, None)):
            assert len(read(passed, form=form, role=role, n_rows=n_rows).ids) == 3
    assert read(np.eye(3), form=SPARSE, role="user", n_rows=3).ids.tolist() == [0, 1, 2]


def test_a_frame_of_users_cut_with_a_sparse_x_is_in_its_order():
    users = pd.DataFrame({"age": [10, 20, 30, 40, 50]})
    for cut in ([1, 3, 4], [4, 1, 2], [3, 3, 1], [0, 1, 3]):
        table = read(users.iloc[cut], key=0, form=SPARSE, role="user", n_rows=3)
        assert table.ids.tolist() == [0, 1, 2]
        assert table.rows["age"].tolist() == users["age"].to_numpy()[cut].tolist()
    whole = read(users.iloc[[2, 0, 1]], key=0, form=SPARSE, role="user", n_rows=3)  # keyed by its index as ever
    assert whole.rows["age"].tolist() == [10, 20, 30]
    table = read(Features(users.iloc[[1, 3, 4]]), key=0, form=SPARSE, role="user", n_rows=3)
    assert table.ids.tolist() == [1, 3, 4]


def test_an_index_that_counts_beside_a_column_of_ids_is_warned_of():
    table = pd.DataFrame({"movieId": [31, 7, 50], "year": [1998, 1994, 1996]})
    with pytest.warns(
        InputWarning, match=r"taken for the ids\. If the ids are in the column 'movieId' pass table\.set_index\('movieId'\)"
    ):
        assert read(table).ids.tolist() == [0, 1, 2]
    assert read(table.set_index("movieId")).ids.tolist() == [7, 31, 50]
    assert read(table.assign(movieId=1)).ids.tolist() == [0, 1, 2]
    assert read(table, key="movieId").ids.tolist() == [7, 31, 50]


def test_reading_changes_nothing_of_the_callers():
    frame, matrix = FILMS.copy(), sp.coo_array(([1.0, 2.0], ([0, 0], [1, 1])), shape=(2, 2))
    read(frame)
    pd.testing.assert_frame_equal(frame, FILMS)
    assert read(matrix, form=SPARSE).rows.toarray().tolist() == [[0, 3], [0, 0]]
    assert matrix.nnz == 2


def encoded(table, encoder="auto", place=None, n=None, form=TABLE):
    table = read(table, form=form)
    place = np.arange(len(table.ids)) if place is None else place
    return encode(fit_encoder(encoder, table, "item"), table, place, max(place) + 1 if n is None else n)


def test_encoded_rows_lie_at_their_places():
    features = encoded(FILMS, place=[4, 0, 2], n=6)
    assert features.names.tolist() == ["year", "genre=comedy", "genre=drama"]
    assert features.names.dtype == object
    assert features.groups == {"year": slice(0, 1), "genre": slice(1, 3)}
    assert features.described.tolist() == [True, False, True, False, True, False]
    assert isinstance(features.matrix, sp.csr_array)
    assert features.matrix.dtype == np.float64
    expected = np.zeros((6, 3))
    expected[[4, 0, 2]] = [[-np.sqrt(1.5), 1, 0], [0, 0, 1], [np.sqrt(1.5), 0, 1]]  # m1, m2, m3
    np.testing.assert_allclose(features.matrix.toarray(), expected, rtol=1e-12)


def test_a_place_of_minus_one_leaves_a_row_out():
    features = encoded(FILMS, place=[1, -1, 0], n=2)
    assert features.matrix.toarray()[:, 1:].tolist() == [[0, 1], [1, 0]]
    assert features.described.all()


def test_rows_move_and_are_replaced():
    features = encoded(FILMS[["film", "year"]], "passthrough", place=[0, 1, 3], n=4)
    assert features.matrix.toarray().ravel().tolist() == [1994, 1996, 0, 1998]
    moved = features.placed([2, 0, 1, -1], 5)
    assert moved.matrix.toarray().ravel().tolist() == [1996, 0, 1994, 0, 0]
    assert moved.described.tolist() == [True, False, True, False, False]
    more = features.placed([4, 2, 0, 1], 5)
    both = moved.updated(more)
    assert both.matrix.toarray().ravel().tolist() == [1996, 1998, 1996, 0, 1994]
    assert both.described.tolist() == [True, True, True, False, True]
    assert both.groups == features.groups
    with pytest.raises(ValueError, match=r"Features must have the columns that fit saw\. Got 3 columns, not 1"):
        moved.updated(encoded(FILMS, n=5))


def test_groups_mark_ids_that_are_not_described():
    features = encoded(FILMS, place=[0, 1, 3], n=4)
    groups = features.groups_of([3, 2])
    assert {name: part.shape for name, part in groups.items()} == {"year": (2, 1), "genre": (2, 2), "(missing)": (2, 1)}
    assert groups["(missing)"].toarray().tolist() == [[0], [1]]
    assert_array_equal(groups["genre"].toarray(), features.matrix.toarray()[[3, 2], 1:])
    assert list(features.groups_of([0, 3])) == ["year", "genre"]


@pytest.mark.parametrize(
    ("encoder", "names", "groups"),
    [
        ("auto", ["year", "genre=comedy", "genre=drama"], {"year": slice(0, 1), "genre": slice(1, 3)}),
        (
            FeatureEncoder(min_frequency=2),
            ["year", "genre=drama", "genre (infrequent)"],
            {"year": slice(0, 1), "genre": slice(1, 3)},
        ),
        (
            make_column_transformer((OneHotEncoder(), ["genre"]), remainder="passthrough"),
            ["onehotencoder__genre_comedy", "onehotencoder__genre_drama", "remainder__year"],
            {"onehotencoder": slice(0, 2), "remainder": slice(2, 3)},
        ),
        (
            make_column_transformer((CountVectorizer(), "genre"), ("drop", ["year"])),
            ["countvectorizer__comedy", "countvectorizer__drama"],
            {"countvectorizer": slice(0, 2)},
        ),
        (
            make_pipeline(OneHotEncoder(), TruncatedSVD(1, random_state=0)),
            ["truncatedsvd0"],
            {"features": slice(0, 1)},
        ),
        (FunctionTransformer(lambda frame: frame[["year"]] > 1995), ["feature0"], {"features": slice(0, 1)}),
    ],
    ids=["auto", "ours", "columns", "text", "pipeline", "function"],
)
@pytest.mark.parametrize("output", ["default", "pandas"])
def test_names_and_groups_are_those_of_the_encoder(encoder, names, groups, output):
    with config_context(transform_output=output):
        features = encoded(FILMS, encoder)
    assert features.names.tolist() == names
    assert features.groups == groups
    assert features.matrix.shape == (3, len(names))
    assert features.matrix.nnz == np.count_nonzero(features.matrix.toarray())
    assert not hasattr(encoder, "n_features_in_")  # what was given is cloned


def test_an_encoder_that_was_set_to_give_frames_gives_its_numbers():
    encoder = make_column_transformer((StandardScaler(), ["year"])).set_output(transform="pandas")
    np.testing.assert_allclose(encoded(FILMS, encoder).matrix.toarray().ravel(), np.array([-1, 0, 1]) * np.sqrt(1.5), rtol=1e-12)


@positions
@pytest.mark.parametrize("encoder", ["auto", "passthrough"])
@pytest.mark.parametrize(
    "matrix",
    [np.array([[0, 2.5], [1, 0]]), sp.csr_array([[0, 2.5], [1, 0]]), sp.csr_matrix(([0.0, 2.5, 1.0], ([0, 0, 1], [0, 1, 0])))],
)
def test_a_matrix_is_taken_as_it_is(matrix, encoder, form):
    features = encoded(matrix, encoder, form=form)
    assert features.matrix.toarray().tolist() == [[0, 2.5], [1, 0]]
    assert features.matrix.nnz == 2
    assert features.names.tolist() == ["x0", "x1"]
    assert features.groups == {"features": slice(0, 2)}
    if sp.issparse(matrix) and matrix.nnz == 3:
        assert matrix.data.tolist() == [0, 2.5, 1]


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("library", [np.asarray, sp.csr_array])
def test_numbers_that_are_not_finite_are_not_passed_through(value, library):
    with pytest.raises(ValueError, match=rf"item_features: Column 'x1' holds {value}\. Fill in such cells, or use an encoder"):
        encoded(library([[1.0, value], [0, 1.0]]), form=SPARSE)
    filled = encoded(library([[1.0, np.nan], [0, 1.0]]), SimpleImputer(), form=SPARSE)
    assert filled.matrix.toarray().tolist() == [[1, 1], [0, 1]]


def test_missing_cells_of_a_frame_are_not_passed_through():
    for frame in (FILMS[["film", "year"]].assign(year=[1, None, 3]), pl.DataFrame({"film": [1, 2], "year": [1, None]})):
        with pytest.raises(ValueError, match="item_features: Column 'year' holds nan"):
            encoded(frame, "passthrough")


@pytest.mark.parametrize(
    ("encoder", "error", "message"),
    [
        ("onehot", ValueError, 'item_encoder must be "auto", "passthrough" or a scikit-learn transformer. Got \'onehot\''),
        (None, TypeError, "item_encoder must be .* Got None"),
        (OneHotEncoder, TypeError, "item_encoder must be .* not its class"),
        (TargetEncoder(), TypeError, r"item_encoder: .* missing 1 required positional argument: 'y'"),
        (StandardScaler(), ValueError, "item_encoder: could not convert string to float"),
        (FeatureEncoder(min_frequency=0), ValueError, "item_encoder: The 'min_frequency' parameter of FeatureEncoder must be"),
        (
            FunctionTransformer(),
            ValueError,
            "item_encoder: It must return one row of numbers for each of the 3 rows of the table. Got object",
        ),
        (
            FunctionTransformer(lambda frame: frame[["year"]][:2]),
            ValueError,
            r"item_encoder: .*of the 3 rows of the table. Got int64 of shape \(2, 1\)",
        ),
        (FunctionTransformer(lambda frame: frame["year"].to_numpy()), ValueError, r"item_encoder: .*of shape \(3,\)"),
        (FunctionTransformer(lambda frame: frame[["year"]] / 0), ValueError, "item_encoder: Column 'feature0' holds inf"),
        (
            FunctionTransformer(lambda frame: frame[["year", "year"]].to_numpy(), feature_names_out=lambda own, names: names[:1]),
            ValueError,
            "item_encoder: It returned 2 columns, but 1 in fit.",
        ),
    ],
)
def test_what_an_encoder_cannot_do_is_said_in_its_words_and_with_its_name(encoder, error, message):
    with pytest.raises(error, match=message):
        encoded(FILMS, encoder)


def test_the_tables_own_faults_bear_its_name():
    with pytest.raises(ValueError, match="item_features: Column 'year' holds inf"):
        encoded(FILMS.assign(year=np.inf))
    with pytest.raises(
        ValueError,
        match=r"item_features: Column 'genre' must hold numbers, text, categories, .*\. Got \{\} \(dict\)\. Drop the",
    ):
        encoded(FILMS.assign(genre=objects({}, {}, {})))
    with pytest.raises(ValueError, match=r"item_features: Column 'genre' must hold numbers. Got categories"):
        encoded(FILMS, "passthrough")
    with pytest.raises(
        ValueError, match=r"item_features: The table must hold numbers\. Got <U1\. Encode it, for example with FeatureEncoder\(\)"
    ):
        encoded(np.array([["a", "b"]]), form=SPARSE)
    with pytest.raises(ValueError, match=r"item_features: The table must be numbers\. Got object"):
        encoded([[1, "b"]], form=SPARSE)
    with pytest.raises(ValueError, match="item_features: Column 'x1' holds nan"):
        encoded(np.ma.masked_array([[1.0, 2.0]], mask=[[False, True]]), form=SPARSE)


@pytest.mark.parametrize(
    "encoder", ["auto", "passthrough", StandardScaler(), make_column_transformer((StandardScaler(), ["year"]))]
)
def test_a_later_table_may_have_its_columns_in_any_order(encoder):
    table = FILMS.assign(genre=[0, 1, 2])
    fitted = fit_encoder(encoder, read(table), "item")
    first, turned = (encode(fitted, read(one), np.arange(3), 3) for one in (table, table[["genre", "year", "film"]]))
    assert_array_equal(turned.matrix.toarray(), first.matrix.toarray())
    name = "features" if isinstance(encoder, str) else "encoder"
    with pytest.raises(ValueError, match=rf"(?s)item_{name}: .*year"):
        encode(fitted, read(table[["film", "genre"]]), np.arange(3), 3)


def test_auto_is_the_feature_encoder_of_a_frame():
    assert isinstance(fit_encoder("auto", read(FILMS), "item"), FeatureEncoder)
    assert isinstance(fit_encoder("auto", read(np.eye(3), form=SPARSE), "item"), Passthrough)
    assert isinstance(encoded(FILMS), EncodedFeatures)
