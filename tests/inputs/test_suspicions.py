"""What is almost surely a mistake is warned of, at the user's own line; what only looks a little like one is not."""

import warnings

import numpy as np
import pytest
from sklearn.preprocessing import OneHotEncoder

from sk_torchmf import BiasedMatrixFactorization, ImplicitMatrixFactorization, InputWarning, TorchFactorization, nn

pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")

pytestmark = pytest.mark.usefixtures("one_thread")

RNG = np.random.default_rng(0)
LOG = pd.DataFrame({"user": RNG.integers(0, 20, 300), "item": RNG.integers(0, 15, 300), "rating": RNG.integers(1, 6, 300) * 1.0})
PIVOT = LOG.pivot_table(index="user", columns="item", values="rating").fillna(0)
ONE_HOT = OneHotEncoder(sparse_output=False).fit_transform(LOG[["user"]])

MATRICES = {
    "a pivot": PIVOT,
    "its array": PIVOT.to_numpy(),
    "in polars": pl.from_pandas(PIVOT.reset_index(drop=True).rename(columns=str)),
    "one-hot": ONE_HOT,
    "get_dummies": pd.get_dummies(LOG["item"]),
    "get_dummies, sparse": pd.get_dummies(LOG["item"], sparse=True),
    "a list": PIVOT.to_numpy().tolist(),
    "embeddings": RNG.normal(size=(30, 8)),
}


def implicit(**params):
    return ImplicitMatrixFactorization(n_factors=2, max_iter=1, random_state=0, **params)


@pytest.mark.parametrize("X", MATRICES.values(), ids=MATRICES)
@pytest.mark.parametrize("y", [False, True], ids=["alone", "weighted"])
def test_a_dense_matrix_given_to_a_model_of_positives_is_warned_of(X, y):
    with pytest.warns(InputWarning, match=r"X has \d+ columns of numbers, .* pass scipy\.sparse\.csr_array\(X\)") as caught:
        implicit().fit(X, np.ones(len(X)) if y else None)
    assert [one.filename for one in caught] == [__file__]  # once, and where it can be mended


def test_a_module_that_ranks_is_warned_too():
    with pytest.warns(InputWarning, match="X has 15 columns of numbers"):
        TorchFactorization(nn.PlainMF, module__n_factors=2, loss="bpr", max_iter=1, random_state=0).fit(PIVOT)


CONTEXT = LOG.assign(**{f"genre {j}": RNG.integers(0, 2, 300) for j in range(18)})
TABLES = {
    "two columns": LOG[["user", "item"]],
    "ratings beside": LOG,
    "flags beside": CONTEXT,
    "flags beside, in an array": CONTEXT.to_numpy(),
    "text beside": LOG.assign(a="x", b="y", c=1),
    "a small one": pd.DataFrame({"user": [1, 2, 3], "item": [1, 2, 3], "rating": [1, 2, 3], "n": [1, 2, 3]}),
}


@pytest.mark.parametrize("X", TABLES.values(), ids=TABLES)
def test_a_table_of_positives_is_not(X):
    with warnings.catch_warnings():
        warnings.simplefilter("error", InputWarning)
        implicit().fit(X)


def test_columns_that_were_asked_for_are_meant():
    with warnings.catch_warnings():
        warnings.simplefilter("error", InputWarning)
        implicit(user=2, item=3).fit(PIVOT)
        implicit(user="user", item="item").fit(CONTEXT)


INDEXED = LOG.reset_index()


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("as_form", [lambda frame: frame, pd.DataFrame.to_numpy, pl.from_pandas], ids=["pandas", "array", "polars"])
@pytest.mark.parametrize("kind", [BiasedMatrixFactorization, ImplicitMatrixFactorization])
def test_an_index_in_the_place_of_the_users_is_warned_of(kind, as_form, first):
    X = as_form(INDEXED.assign(index=INDEXED["index"] + first))
    with pytest.warns(InputWarning, match="The first of the 4 columns of X counts the rows, as an index does") as caught:
        kind(n_factors=2, max_iter=1, random_state=0).fit(X, LOG["rating"].to_numpy())
    assert [one.filename for one in caught] == [__file__]


def test_what_is_like_an_index_in_part_is_no_index():
    y = LOG["rating"]
    model = BiasedMatrixFactorization(n_factors=2, max_iter=1, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", InputWarning)
        model.fit(INDEXED[["index", "item"]], y)  # two columns: every row a user of its own, as it says
        model.fit(INDEXED.sample(frac=1, random_state=0), y)
        model.fit(INDEXED[:9], y[:9])
        model.set_params(user="user", item="item").fit(INDEXED, y)


@pytest.mark.parametrize(
    "y",
    [
        np.full(300, np.datetime64("2024-02-29", "s")),
        np.full(300, np.timedelta64(3, "s")),
        pd.Series(pd.date_range("2024-02-29", periods=300)),
        pl.Series(pd.date_range("2024-02-29", periods=300)),
        pd.Series(pd.date_range("2024-02-29", periods=300, tz="UTC")),
    ],
    ids=["datetime64", "timedelta64", "pandas", "polars", "time zone"],
)
@pytest.mark.parametrize("kind", [BiasedMatrixFactorization, ImplicitMatrixFactorization])
def test_times_as_ratings_are_refused(kind, y):
    with pytest.raises(ValueError, match="y must be numbers"):
        kind().fit(LOG[["user", "item"]], y)
