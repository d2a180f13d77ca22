"""What users get wrong: each mistake has an error that names the argument, the value and the cure, or is harmless."""

import tracemalloc

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from five_ratings import SOLVERS, I, S, X, Y
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sk_torchmf import (
    BiasedMatrixFactorization,
    ImplicitMatrixFactorization,
    Interactions,
    MatrixFactorization,
    TorchFactorization,
    nn,
)
from sk_torchmf.metrics import evaluate
from sk_torchmf.spotlight import rmse_score

pytestmark = pytest.mark.usefixtures("one_thread")


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


FITTED = BiasedMatrixFactorization(n_factors=2, max_iter=2, random_state=0).fit(Interactions([0, 0, 1], [0, 1, 1], [1.0, 2.0, 3.0]))
TEXT = Interactions([0, 1], [0, 1], ratings=np.array(["good", "bad"]))
ODD = {
    "ragged y": (lambda: BiasedMatrixFactorization().fit(X, [[1], [2, 3], 4, 5, 6]), r"y must be an array\. Got nested lists"),
    "ragged weights": (
        lambda: BiasedMatrixFactorization().fit(X, Y, sample_weight=[[1], [2, 3], 4, 5, 6]),
        r"sample_weight must be an array\. Got nested lists",
    ),
    "ragged positions": (lambda: Interactions([[1], [2, 3]], [0, 1]), r"user_ids must be an array\. Got nested lists"),
    "complex weights": (lambda: BiasedMatrixFactorization().fit(X, Y, sample_weight=Y + 1j), "sample_weight must be numbers"),
    "a huge k": (lambda: FITTED.recommend(k=10**30), r"k must be at most 2147483647\. Got 1000"),
    "huge sizes": (
        lambda: BiasedMatrixFactorization(n_factors=10**30).fit(X, Y),
        "'n_factors' parameter .* must be an int in the range",
    ),
    "more factors than memory": (
        lambda: BiasedMatrixFactorization(n_factors=2**31 - 1).fit(Interactions([2**20], [0], [1.0])),
        r"needs .* GiB.*Lower n_factors",
    ),
    "a longer list than memory": (lambda: FITTED.recommend([0] * 10_000, k=2**31 - 1), r"needs .* GiB.*Lower k"),
    "sparse rows": (
        lambda: FITTED.set_factors(sp.csr_array((2, 2)), np.ones((2, 2))),
        "user_factors must be a dense array",
    ),
    "a class as a scorer": (
        lambda: BiasedMatrixFactorization(scoring=int).fit(X, Y, X_val=X, y_val=Y),
        "scoring must be a scorer, .* Got the class int",
    ),
    "a function that gives no batches": (
        lambda: TorchFactorization(nn.PlainMF, module__n_factors=2).fit_batches(int, n_users=2, n_items=2),
        r"batches must be an iterable, or a function that returns an iterator\. It returned int",
    ),
    "a class that is no module": (lambda: TorchFactorization(int).fit(X, Y), r"module must be a subclass of torch\.nn\.Module"),
    "rows of text": (lambda: FITTED.inverse_transform([["a", "b", "c"]]), "rows must be a two-dimensional array of numbers"),
    "new users of other items": (lambda: FITTED.fold_in(sp.coo_array([[1.0, 2.0, 3.0]])), "X has 3 features"),
    "explore=None": (lambda: FITTED.recommend(explore=None), r"explore must be True or False\. Got None"),
    "return_std=1": (lambda: FITTED.predict(0, 0, return_std=1), r"return_std must be True or False\. Got 1"),
    "ratings of text": (TEXT.tocsr, "ratings must be numbers"),
    "the error of text": (lambda: rmse_score(FITTED, TEXT), "ratings must be numbers"),
    "a metric that is a number": (lambda: evaluate(FITTED, X[:, :2], 3), "metrics must be a name or a list of names. Got 3"),
    "a metric that is a list": (lambda: evaluate(FITTED, X[:, :2], [["ndcg"]]), "metrics must be among"),
}


@pytest.mark.parametrize(("call", "words"), ODD.values(), ids=ODD)
def test_odd_arguments_are_refused_by_name(call, words):
    with pytest.raises((ValueError, TypeError, MemoryError), match=words):
        call()


def test_frames_that_cannot_be_read_are_refused():
    pd, pl = pytest.importorskip("pandas"), pytest.importorskip("polars")
    for make in (MatrixFactorization, ImplicitMatrixFactorization):
        with pytest.raises(ValueError, match=r"X must have a name for each column. Got 'user' more than once"):
            make().fit(pd.DataFrame([[1, 2], [3, 4]], columns=["user", "user"]), [1.0, 2.0])
        with pytest.raises(TypeError, match=r"Got a LazyFrame, which has none yet\. Pass X\.collect\(\)"):
            make().fit(pl.LazyFrame({"user": [1, 2], "item": [3, 4]}), [1.0, 2.0])
        with pytest.raises(TypeError, match="user ids must be numbers, text or times"):
            make().fit(pd.DataFrame({"user": np.arange(2).view("V8"), "item": [3, 4]}), [1.0, 2.0])
