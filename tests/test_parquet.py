"""Recommendations and predictions in Parquet files are those of the calls, whatever the blocks; no file is half written."""

import sys
import tracemalloc

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal
from parquet import ratings, write

from sk_torchmf import (
    BiasedMatrixFactorization,
    ImplicitMatrixFactorization,
    Interactions,
    MatrixFactorization,
    TorchFactorization,
    nn,
)
from sk_torchmf import parquet as module
from sk_torchmf.inputs import row_sources
from sk_torchmf.parquet import write_predictions, write_recommendations

pytestmark = pytest.mark.usefixtures("one_thread")
COLUMNS = ratings(1500, n_users=70, n_items=25)
TEXTS = ratings(1500, n_users=70, n_items=25, text=True)
SMALL = {"n_factors": 3, "max_iter": 3, "random_state": 0}


def fitted(kind, columns=COLUMNS):
    table = pd.DataFrame(columns)[["user", "item"]]
    if kind == "implicit":
        return ImplicitMatrixFactorization(**SMALL, user="user", item="item").fit(table)
    if kind == "torch":
        model = TorchFactorization(nn.BiasedMF, module__n_factors=3, max_iter=3, random_state=0, user="user", item="item")
    else:
        model = BiasedMatrixFactorization(**SMALL, user="user", item="item")
    return model.fit(table, columns["rating"])


@pytest.fixture(scope="module")
def model():
    return fitted("biased")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 40)
    monkeypatch.setattr(row_sources, "BATCH", 300)


def expected_rows(users, items, scores):
    """What the file must hold, by a plain loop."""
    found = []
    for at, user in enumerate(users.tolist()):
        for rank, (item, score) in enumerate(zip(items[at].tolist(), scores[at].tolist(), strict=True), 1):
            if score != -np.inf:
                found.append((user, rank, item, score))
    return found


def read(path):
    table = pa.parquet.read_table(path)
    return list(zip(*(table[name].to_pylist() for name in ("user", "rank", "item", "score")), strict=True))


def assert_rows(found, expected):
    assert [row[:3] for row in found] == [row[:3] for row in expected]
    assert_allclose([row[3] for row in found], [row[3] for row in expected], rtol=1e-12)


@pytest.mark.parametrize("kind", ["biased", "implicit", "torch"])
@pytest.mark.parametrize("columns", [COLUMNS, TEXTS], ids=["numbers", "text"])
def test_recommendations_are_those_of_recommend(kind, columns, tmp_path):
    model = fitted(kind, columns)
    n_rows = write_recommendations(model, tmp_path / "best", k=7)
    expected = expected_rows(model.users_, *model.recommend(k=7))
    assert_rows(read(tmp_path / "best"), expected)
    assert n_rows == len(expected) > 70
    assert [one.name for one in tmp_path.iterdir()] == ["best"]
    kinds = [str(field.type) for field in pa.parquet.read_schema(tmp_path / "best")]
    ids = "int64" if columns is COLUMNS else "string"
    assert kinds == [ids, "int32", ids, "double"]


def test_arguments_of_recommend_go_on_to_it(model, tmp_path):
    users, items = model.users_[[5, 3, 60]], model.items_[:12]
    write_recommendations(model, tmp_path / "best", users, 4, exclude_seen=False, items=items)
    assert_rows(read(tmp_path / "best"), expected_rows(users, *model.recommend(users, 4, exclude_seen=False, items=items)))
    write_recommendations(model, str(tmp_path / "best"), users.tolist(), 4)
    assert_rows(read(tmp_path / "best"), expected_rows(users, *model.recommend(users, 4)))


def test_more_than_remain_are_left_out(model, tmp_path):
    n_rows = write_recommendations(model, tmp_path / "best", k=500)
    seen = np.asarray(model.seen_.sum(axis=1)).ravel()
    assert n_rows == (model.n_items_ - seen).sum()
    ranks = pd.read_parquet(tmp_path / "best").groupby("user")["rank"].agg(["min", "max", "size"])
    assert (ranks["min"] == 1).all()
    assert (ranks["max"] == ranks["size"]).all()


def test_users_of_a_container_and_of_a_sparse_matrix(tmp_path):
    user, item = (np.unique(COLUMNS[name], return_inverse=True)[1] for name in ("user", "item"))
    data = Interactions(user, item, COLUMNS["rating"])
    model = BiasedMatrixFactorization(**SMALL).fit(data)
    some = data[data.user_ids % 3 == 0]
    write_recommendations(model, tmp_path / "best", some, 3)
    assert_rows(read(tmp_path / "best"), expected_rows(np.unique(some.user_ids), *model.recommend(some, 3)))
    new = sp.random(50, model.n_items_, density=0.2, random_state=0, format="coo")
    write_recommendations(model, tmp_path / "best", new, 3)
    assert_rows(read(tmp_path / "best"), expected_rows(np.arange(50), *model.recommend(new, 3)))
    with pytest.raises(ValueError, match="user_features of new users cannot be divided into blocks"):
        write_recommendations(model, tmp_path / "best", new, user_features=pd.DataFrame({"age": range(50)}))


def test_draws_go_on_from_block_to_block(model, tmp_path):
    write_recommendations(model, tmp_path / "a", k=4, explore=True, random_state=0)
    write_recommendations(model, tmp_path / "b", k=4, explore=True, random_state=0)
    assert read(tmp_path / "a") == read(tmp_path / "b")
    twice = np.repeat(model.users_[:1], 2)  # of one user, in two blocks
    write_recommendations(model, tmp_path / "c", twice, 25, explore=True, random_state=0)
    half = len(read(tmp_path / "c")) // 2
    assert [row[3] for row in read(tmp_path / "c")[:half]] != [row[3] for row in read(tmp_path / "c")[half:]]


@pytest.mark.parametrize("columns", [COLUMNS, TEXTS], ids=["numbers", "text"])
@pytest.mark.parametrize("kind", ["biased", "implicit", "torch"])
def test_predictions_are_those_of_predict(kind, columns, tmp_path):
    model = fitted(kind, columns)
    pairs = {name: np.roll(columns[name], at) for at, name in enumerate(("item", "user"))}  # in this order
    one = write(tmp_path / "1", pairs, slice(0, 700))
    two = write(tmp_path / "2", {name: pa.array(values).dictionary_encode() for name, values in pairs.items()}, slice(700, None))
    assert write_predictions(model, [one, two], tmp_path / "predicted") == 1500
    table = pa.parquet.read_table(tmp_path / "predicted")
    assert table.column_names == ["user", "item", "prediction"]
    assert table["user"].to_pylist() == pairs["user"].tolist()
    assert table["item"].to_pylist() == pairs["item"].tolist()
    assert_allclose(table["prediction"].to_numpy(), model.predict(pairs["user"], pairs["item"]), rtol=1e-12)


def test_predictions_of_other_columns_and_unknown_ids(model, tmp_path):
    pairs = {"who": pa.array([model.users_[0], 10**6], pa.int32()), "what": [float(model.items_[3]), -5.0]}
    write_predictions(model, write(tmp_path / "pairs", pairs), tmp_path / "out", user="who", item=1, clip=True, return_std=True)
    table = pa.parquet.read_table(tmp_path / "out")
    assert table.column_names == ["who", "what", "prediction", "std"]
    mean, std = model.predict([model.users_[0], 10**6], [model.items_[3], -5], clip=True, return_std=True)
    assert_array_equal(table["prediction"], mean)
    assert_array_equal(table["std"], std)


def test_types_of_ids_may_differ_from_file_to_file(model, tmp_path):
    narrow = write(tmp_path / "a", {"user": pa.array([5], pa.int8()), "item": pa.array([3], pa.int8())})
    wide = write(tmp_path / "b", {"user": [2**40], "item": [3.0]})
    assert write_predictions(model, [narrow, wide], tmp_path / "out") == 2
    assert pa.parquet.read_table(tmp_path / "out")["user"].to_pylist() == [5, 2**40]


@pytest.mark.parametrize(
    ("pairs", "arguments", "error", "words"),
    [
        ({"user": [5, None], "item": [3, 3]}, {}, ValueError, r"user ids must not be missing\. Row 1 of .*pairs has none"),
        ({"user": [5], "thing": [3]}, {}, ValueError, r"item='item' is not a column of .*pairs"),
        ({"user": ["a"], "item": [3]}, {}, TypeError, "user ids must be of the type that fit saw, int64"),
        ({"user": [5], "item": [3]}, {"item": "user"}, ValueError, "user and item must be two columns whose names are not in"),
        ({"prediction": [5], "item": [3]}, {"user": "prediction"}, ValueError, "user and item must be two columns"),
        ({"user": pa.array([], pa.int64()), "item": pa.array([], pa.int64())}, {}, ValueError, "source has no pairs"),
        ({"user": [5], "item": [3]}, {"progress": "yes"}, TypeError, "progress must be True or False"),
    ],
)
def test_what_cannot_be_predicted_is_named_and_leaves_nothing(pairs, arguments, error, words, model, tmp_path):
    source = write(tmp_path / "pairs", pairs)
    with pytest.raises(error, match=words):
        write_predictions(model, source, tmp_path / "out", **arguments)
    assert [one.name for one in tmp_path.iterdir()] == ["pairs"]


@pytest.mark.parametrize("call", [write_recommendations, lambda model, path: write_predictions(model, path, path)])
def test_what_is_no_fitted_estimator_is_refused(call, tmp_path):
    with pytest.raises(TypeError, match="estimator must be a fitted estimator with"):
        call("model", tmp_path / "out")
    with pytest.raises(TypeError, match="estimator must be a fitted estimator with"):
        call(BiasedMatrixFactorization, tmp_path / "out")
    with pytest.raises(ValueError, match="not fitted yet"):
        call(BiasedMatrixFactorization(), tmp_path / "out")


def test_an_error_on_the_way_leaves_the_earlier_file(model, tmp_path, monkeypatch):
    write_recommendations(model, tmp_path / "best", k=3)
    before, calls = (tmp_path / "best").read_bytes(), []

    def fail_at_last(self, users, k, **options):
        calls.append(len(users))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return recommend(self, users, k, **options)

    recommend = BiasedMatrixFactorization.recommend
    monkeypatch.setattr(BiasedMatrixFactorization, "recommend", fail_at_last)
    with pytest.raises(KeyboardInterrupt):
        write_recommendations(model, tmp_path / "best", k=4)
    assert calls == [10, 10, 10]
    assert (tmp_path / "best").read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["best"]


def test_a_full_disk_is_told_and_leaves_nothing(model, tmp_path):
    """A limit on the size of a file stands in for the disk's."""
    resource = pytest.importorskip("resource")  # of POSIX
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_recommendations(model, tmp_path / "best", k=20)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_is_none_is_refused_before_anything_is_asked(model, tmp_path):
    with pytest.raises(IsADirectoryError, match="path must name a file"):
        write_recommendations(model, tmp_path)
    with pytest.raises(FileNotFoundError, match="The folder to save in does not exist"):
        write_recommendations(model, tmp_path / "nowhere" / "best")
    with pytest.raises(ValueError, match=r"k must be an int >= 1\. Got 0"):
        write_recommendations(model, tmp_path / "best", k=0)
    with pytest.raises(ValueError, match=r"users must be a one-dimensional array of ids\. Got shape \(1, 2\)"):
        write_recommendations(model, tmp_path / "best", [[5, 6]])


def test_labels_that_parquet_cannot_hold_are_refused(tmp_path):
    X = np.array([[2**70, 1], [2**71, 2]], dtype=object)
    model = BiasedMatrixFactorization(**SMALL).fit(X, [1.0, 2.0])
    with pytest.raises(TypeError, match=f"user ids must be of a type that Parquet has. Got {2**70}"):
        write_recommendations(model, tmp_path / "best", k=1)


def test_memory_does_not_grow_with_the_number_of_users_and_pairs(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 10_000)
    monkeypatch.setattr(row_sources, "BATCH", 10_000)
    rng, peaks = np.random.default_rng(0), []
    for n in (4000, 32_000):
        model = MatrixFactorization(n_factors=2).set_factors(rng.normal(size=(n, 2)), rng.normal(size=(50, 2)))
        user, item = rng.integers(n, size=10 * n), rng.integers(50, size=10 * n)
        pairs = write(tmp_path / "pairs", {"user": user, "item": item}, row_group_size=10_000)
        write_recommendations(model, tmp_path / "best", k=1)  # whatever is made once is there
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        write_recommendations(model, tmp_path / "best", k=10)
        write_predictions(model, pairs, tmp_path / "predicted")
        peaks.append(tracemalloc.get_traced_memory()[1] - before)
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]  # 280,000 rows more would be 9 MB for either


def test_progress_is_shown(model, tmp_path, capsys):
    write_recommendations(model, tmp_path / "best", k=3, progress=True)
    assert "recommend" in capsys.readouterr().err
    pairs = write(tmp_path / "pairs", {"user": COLUMNS["user"], "item": COLUMNS["item"]})
    write_predictions(model, pairs, tmp_path / "out", progress=True)
    assert "predict" in capsys.readouterr().err


def test_without_pyarrow_the_error_says_what_to_install(model, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyarrow"]:
        monkeypatch.setitem(sys.modules, name, None)
    for call in (write_recommendations, lambda model, path: write_predictions(model, path, path)):
        with pytest.raises(ImportError, match=r"write_\w+ needs pyarrow, which is not installed. Run: pip install pyarrow"):
            call(model, tmp_path / "out")
