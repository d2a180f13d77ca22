"""What leaves Python: modules by torch.export and ONNX predict as the estimator does, and an index finds what it recommends."""

import inspect
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import tutorial
from data import planted
from numpy.testing import assert_allclose, assert_array_equal
from torch import export, from_numpy, no_grad, onnx

from sk_torchmf import BiasedMatrixFactorization, ImplicitMatrixFactorization, Interactions, MatrixFactorization, TorchFactorization

DATA, _ = planted(3, mean=3.0, n_users=30, n_items=20, n_ratings=300)
N_USERS, N_ITEMS = DATA.num_users + 2, DATA.num_items + 2  # the last two of each were never observed
UNKNOWN = 9999


def of_size(ratings):
    return Interactions(DATA.user_ids, DATA.item_ids, ratings, num_users=N_USERS, num_items=N_ITEMS)


STARS, COUNTS, CLICKS = (
    of_size(ratings)
    for ratings in (DATA.ratings, np.round(np.abs(DATA.ratings)), (DATA.ratings > np.median(DATA.ratings)).astype(float))
)
MODELS = {
    "plain": (MatrixFactorization(3), STARS),
    "plain, logistic": (MatrixFactorization(3, loss="logistic", max_iter=3), CLICKS),
    "plain, float64, nan": (MatrixFactorization(3, dtype="float64", handle_unknown="nan"), STARS),
    "biased": (BiasedMatrixFactorization(3), STARS),
    "biased, huber, clip": (BiasedMatrixFactorization(3, loss="huber", clip=True, max_iter=3), STARS),
    "biased, poisson": (BiasedMatrixFactorization(3, loss="poisson", max_iter=3), COUNTS),
    "biased, poisson, clip": (BiasedMatrixFactorization(3, loss="poisson", clip=True, max_iter=3), COUNTS),
    "implicit": (ImplicitMatrixFactorization(3, max_iter=3), CLICKS),
    "implicit, biased": (ImplicitMatrixFactorization(3, biased=True, max_iter=3), CLICKS),
    "implicit, logistic": (ImplicitMatrixFactorization(3, loss="logistic", biased=True, max_iter=3), CLICKS),
}
FEW = ["plain, float64, nan", "plain, logistic", "biased", "biased, poisson, clip", "implicit, logistic"]  # seconds each
TORCH = {
    "torch": (tutorial.Biased, {"loss": "MSELoss"}),
    "torch, logistic": (tutorial.Parameters, {"loss": "logistic", "optimizer": "Adam"}),
    "torch, clip": (tutorial.Parameters, {"loss": "L1Loss", "optimizer": "Adam", "clip": True}),
    "torch, bpr": (tutorial.Biased, {"loss": "bpr"}),
}
every_model = pytest.mark.parametrize("name", MODELS)
every_torch = pytest.mark.parametrize("name", TORCH)
pytestmark = pytest.mark.usefixtures("one_thread")


def fitted(name):
    if name in MODELS:
        model, data = MODELS[name]
        return type(model)(**model.get_params() | {"random_state": 0}).fit(data)
    module, options = TORCH[name]
    options = {"module__n_factors": 3, "optimizer": "Adagrad", "optimizer__lr": 0.1, "random_state": 0, **options}
    return TorchFactorization(module, max_iter=5, **options).fit(CLICKS if "logistic" in name else DATA)


def every_pair(model, unknown=True):
    """Positions of all pairs, -1 for one more unknown user and item, and what predict says of them."""
    users, items = (np.append(np.arange(n), [-1] * unknown).astype(np.int64) for n in (model.n_users_, model.n_items_))
    user, item = (ids.ravel() for ids in np.meshgrid(users, items, indexing="ij"))
    expected = model.predict(np.where(user < 0, UNKNOWN, user), np.where(item < 0, UNKNOWN, item))
    return user, item, expected


def observed_pairs(model):
    """As every_pair, of what fit saw: a module of one's own has no row for anything else."""
    users, items = np.flatnonzero(model.user_counts_), np.flatnonzero(model.item_counts_)
    user, item = (ids.ravel() for ids in np.meshgrid(users, items, indexing="ij"))
    return user, item, model.predict(user, item)


def check(run, user, item, expected, rtol=1e-5):
    """All pairs at once, a few, and one: the size of the batch is free. The module computes in float32."""
    for n in (len(user), 2, 1):
        assert_allclose(np.asarray(run(user[:n], item[:n])).ravel(), expected[:n], rtol=rtol, atol=1e-6)


def as_program(module):
    n = export.Dim("n")
    example = from_numpy(np.array([1, 2, 3])), from_numpy(np.array([3, 0, 2]))
    return export.export(module, example, dynamic_shapes={"user": {0: n}, "item": {0: n}})


def need(*packages):
    """Skip a test of what is not installed, or what this torch exports in another way."""
    for package in packages:
        pytest.importorskip(package, reason=f"the test needs {package}, of the dependency group serving")
    if "onnx" in packages and "dynamic_shapes" not in inspect.signature(onnx.export).parameters:
        pytest.skip("the test needs a later torch")


def as_session(module):
    """A session of onnxruntime on the module in ONNX form."""
    need("onnx", "onnxscript", "onnxruntime")
    from onnxruntime import InferenceSession

    n = export.Dim("n")
    example = from_numpy(np.array([1, 2, 3])), from_numpy(np.array([3, 0, 2]))
    shapes = {"user": {0: n}, "item": {0: n}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about itself
        program = onnx.export(module, example, dynamo=True, dynamic_shapes=shapes, input_names=["user", "item"], verbose=False)
    return InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])


def eager(module):
    def run(user, item):
        with no_grad():
            return module(from_numpy(user), from_numpy(item))

    return run


@every_model
def test_a_module_predicts_as_the_estimator_does_the_unknown_included(name):
    model = fitted(name)
    check(eager(model.to_module()), *every_pair(model), rtol=1e-12 if model.dtype == "float64" else 1e-5)


@every_model
def test_an_exported_program_predicts_as_the_estimator_does(name):
    model = fitted(name)
    check(eager(as_program(model.to_module()).module()), *every_pair(model))


@pytest.mark.parametrize("name", FEW)
def test_an_onnx_file_predicts_as_the_estimator_does(name):
    model = fitted(name)
    session = as_session(model.to_module())
    check(lambda user, item: session.run(None, {"user": user, "item": item})[0], *every_pair(model))


@every_torch
def test_an_exported_module_of_ones_own_predicts_as_the_estimator_does(name):
    model = fitted(name)
    check(eager(model.to_module()), *observed_pairs(model))
    check(eager(as_program(model.to_module()).module()), *observed_pairs(model))


@pytest.mark.parametrize("name", ["torch, logistic", "torch, clip"])
def test_a_module_of_ones_own_in_onnx_predicts_as_the_estimator_does(name):
    model = fitted(name)
    session = as_session(model.to_module())
    check(lambda user, item: session.run(None, {"user": user, "item": item})[0], *observed_pairs(model))


@pytest.mark.parametrize("name", ["biased, huber, clip", "torch, clip"])
def test_clip_holds_in_the_module_too(name):
    model = fitted(name).set_params(clip=False)
    user, item, free = observed_pairs(model)
    assert_allclose(eager(model.to_module())(user, item), free, rtol=1e-4)
    model.rating_range_ = low, high = np.quantile(free, [0.3, 0.7])  # so narrow that it shows
    clipped = eager(model.set_params(clip=True).to_module())(user, item)
    assert_allclose(clipped, np.clip(free, low, high), rtol=1e-4)


def test_an_unknown_id_that_is_an_error_is_nan_in_a_module():
    model = fitted("biased").set_params(handle_unknown="error")
    run = eager(model.to_module())
    answers = run(np.array([-1, 3, N_USERS - 1, 3]), np.array([3, -1, 3, N_ITEMS - 1])).numpy()
    assert np.isnan(answers).all()
    assert_allclose(run(np.array([3]), np.array([4])), model.predict(3, 4), rtol=1e-6)


def test_a_position_that_is_none_is_an_error():
    module = fitted("biased").to_module()
    with pytest.raises(IndexError):
        eager(module)(np.array([N_USERS + 1]), np.array([0]))


def test_the_example_runs_and_agrees():
    need("faiss", "matplotlib", "onnx", "onnxscript", "onnxruntime")
    example = Path(__file__).parents[2] / "docs" / "examples" / "serving.py"
    if not example.exists():
        pytest.skip("the examples are not in the source archive")
    done = subprocess.run([sys.executable, str(example)], capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("All agree.")


# embeddings


def nearest(users, items, k):
    """Exact inner-product search, as anyone would set it up: row numbers and products, both (n_users, k)."""
    need("faiss")
    import faiss

    index = faiss.IndexFlatIP(items.shape[1])
    index.add(np.ascontiguousarray(items, dtype=np.float32))
    products, found = index.search(np.ascontiguousarray(users, dtype=np.float32), k)
    return found, products


@every_model
def test_an_index_of_the_embeddings_finds_what_is_recommended(name):
    model = fitted(name).set_params(handle_unknown="mean")
    if hasattr(model, "clip"):
        model.set_params(clip=False)
    k = 8
    found, products = nearest(*model.embeddings(), k)
    items, scores = model.recommend(k=k, exclude_seen=False)
    assert_allclose(model._respond(products.astype(np.float64)), scores, rtol=1e-4, atol=1e-5)
    raw = np.sort(model.embeddings()[0].astype(np.float64) @ model.embeddings()[1].T.astype(np.float64), axis=1)[:, ::-1]
    apart = -np.diff(raw[:, : k + 1], axis=1) > 1e-4  # from the next; float32 does not tell closer ones apart
    clear = apart & np.column_stack([np.ones(len(raw), dtype=bool), apart[:, :-1]])
    assert clear.mean() > 0.8
    assert_array_equal(found[clear], items[clear])


def test_the_embeddings_of_a_biased_model_hold_its_biases():
    model = fitted("biased")
    users, items = model.embeddings()
    assert users.shape[1] == items.shape[1] == 5
    expected = model.global_mean_ + model.user_biases_[:, None] + model.item_biases_ + model.user_factors_ @ model.item_factors_.T
    assert_allclose(users @ items.T, expected, rtol=1e-5, atol=1e-6)


def test_a_new_user_is_searched_for_by_what_fold_in_gives():
    """As in docs/examples/serving.py: [p, b + mu, 1] beside [q, 1, b]."""
    model = fitted("biased")
    new = STARS.tocsr()[:4]
    rows = model.fold_in(new)
    users = np.column_stack([rows[:, :-1], rows[:, -1] + model.global_mean_, np.ones(len(rows))])
    found, _ = nearest(users, model.embeddings()[1], 1)
    assert_array_equal(found, model.recommend(new, k=1, exclude_seen=False)[0])
