"""What the other modules test on the CPU, on a CUDA device: kernels, modules, solvers' rows and the estimators' fit."""

import pickle

import numpy as np
import pytest
import torch
import tutorial
from communities import TEST, TRAIN
from every_loss import FOR_A_MODULE
from every_solver import SOLVERS
from few_positives import small_matrix
from killed_fits import killed_and_resumed
from pair_patterns import PATTERNS, build, check_forward_equals_forward_pairs, draw_pairs, random_rows
from rating_problems import Rows

from sk_torchmf import BiasedMatrixFactorization, ImplicitMatrixFactorization, Interactions, MatrixFactorization, TorchFactorization
from sk_torchmf.nn import RANKING, BiasedMF, NegativeSampler, Pairs, PlainMF, pair_dot
from sk_torchmf.nn.top_k import top_k
from sk_torchmf.solvers.als import RowPrior, solve_rows

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: torch.cuda.is_available() is False"),
]
COMPARED = dict.fromkeys(["adam", "sgd", "adagrad", "lbfgs", MatrixFactorization().solver])
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10}  # sums of at most some hundred terms of about unit size


@pytest.fixture(params=PATTERNS.values(), ids=PATTERNS.keys())
def plans(request):
    """The plan of the same pairs on the CPU and on the device."""
    n_users, n_items, n_pairs = request.param
    user, item = draw_pairs(n_users, n_items, n_pairs)
    return Pairs(user, item, n_users, n_items), Pairs(user, item, n_users, n_items, device="cuda")


def assert_close(on_device, on_cpu):
    assert on_device.device.type == "cuda"
    bound = TOLERANCE.get(on_cpu.dtype, 0)
    torch.testing.assert_close(on_device.cpu(), on_cpu, rtol=bound, atol=bound)


def test_the_plan_is_the_same_and_on_the_device(plans):
    cpu, cuda = plans
    for name in ("order", "pointers", "columns", "users", "inverse_order"):
        assert_close(getattr(cuda, name), getattr(cpu, name))
    for name in ("order", "pointers", "columns"):
        assert_close(getattr(cuda.T, name), getattr(cpu.T, name))
    for weight in (None, random_rows(cpu.n_pairs, dtype=torch.float32).abs()):
        on_device = cuda.sums(None if weight is None else weight.cuda())
        for ours, theirs in zip(on_device, cpu.sums(weight), strict=True):
            assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("k", [1, 8, 33])
def test_kernels_equal_those_of_the_cpu(plans, dtype, k):
    cpu, cuda = plans
    P, Q = random_rows(cpu.shape[0], k, dtype=dtype), random_rows(cpu.shape[1], k, dtype=dtype, seed=1)
    value = random_rows(cpu.n_pairs, dtype=dtype, seed=2)
    assert_close(cuda.dots(P.cuda(), Q.cuda()), cpu.dots(P, Q))
    assert_close(cuda.user_sums(value.cuda(), Q.cuda()), cpu.user_sums(value, Q))
    assert_close(cuda.item_sums(value.cuda(), P.cuda()), cpu.item_sums(value, P))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_pair_dot_and_its_gradients_equal_those_of_the_cpu(plans, dtype):
    shapes = [(plans[0].shape[0], 5), (plans[0].shape[1], 5), plans[0].shape[:1], plans[0].shape[1:]]
    slope = random_rows(plans[0].n_pairs, dtype=dtype, seed=9)
    results = []
    for pairs, device in zip(plans, ("cpu", "cuda"), strict=True):
        leaves = [random_rows(*shape, dtype=dtype, seed=at).to(device).requires_grad_() for at, shape in enumerate(shapes)]
        score = pair_dot(*leaves[:2], pairs, *leaves[2:])
        score.backward(slope.to(device))
        results.append([score.detach(), *(leaf.grad for leaf in leaves)])
    for theirs, ours in zip(*results, strict=True):
        assert_close(ours, theirs)


def test_pair_dot_passes_gradcheck():
    pairs = Pairs(*draw_pairs(4, 3, 9), 4, 3, device="cuda")
    P, Q = (random_rows(n, 3, seed=n).cuda().requires_grad_() for n in (4, 3))
    # embedding_bag adds in an order of its own on CUDA, so that the same sum may differ in the last bits
    assert torch.autograd.gradcheck(lambda P, Q: pair_dot(P, Q, pairs), (P, Q), nondet_tol=1e-12)


@pytest.mark.parametrize("kind", [PlainMF, BiasedMF])
def test_forward_equals_forward_pairs_and_so_do_the_gradients(kind, plans):
    pairs = plans[1]
    module = build(kind, *pairs.shape).cuda()
    check_forward_equals_forward_pairs(module, pairs)


def test_blocks_stay_on_the_device():
    user, item = draw_pairs(12, 9, 40)
    pairs, module = Pairs(user, item, 12, 9, device="cuda"), build(BiasedMF, 12, 9).cuda()
    whole = module.forward_pairs(pairs)
    for rows, span, plan in pairs.blocks(7):
        torch.testing.assert_close(module.block(rows).forward_pairs(plan), whole[span])


def test_top_k_breaks_ties_by_column():
    scores = torch.from_numpy(np.random.default_rng(0).normal(size=(20, 37)).round(1))
    assert torch.equal(top_k(scores.cuda(), 11).cpu(), top_k(scores, 11))


@pytest.mark.parametrize("loss", ["squared_error", "huber", "poisson", "logistic"])
def test_rows_are_solved_on_the_device(loss):
    problem = Rows(loss)
    arrays = [problem.pointers, problem.columns, problem.rating, problem.weight, problem.features, problem.offset]
    prior = RowPrior(torch.from_numpy(problem.precision).cuda(), torch.from_numpy(problem.shift).cuda())
    solved = solve_rows(*(torch.from_numpy(a).cuda() for a in arrays), prior, problem.loss, leave_one_out=True)
    for ours, theirs in zip(solved, problem.solve(leave_one_out=True), strict=True):
        assert ours.device.type == "cuda"
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-8, atol=1e-8)


@pytest.fixture
def ratings():
    """Two thousand ratings of rank two, with noise, of 80 users and 60 items."""
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, 80, 2000), rng.integers(0, 60, 2000)
    P, Q = rng.normal(size=(80, 2)), rng.normal(size=(60, 2))
    return Interactions(user, item, 3 + (P[user] * Q[item]).sum(1) + 0.1 * rng.normal(size=2000))


ESTIMATORS = pytest.mark.parametrize("Model", [MatrixFactorization, BiasedMatrixFactorization])


@ESTIMATORS
@pytest.mark.parametrize("solver", COMPARED)
def test_a_fit_equals_that_of_the_cpu(Model, solver, ratings):
    options = {"n_factors": 4, "solver": solver, "max_iter": 10, "dtype": "float64", "random_state": 0}
    cuda, cpu = (Model(device=device, **options).fit(ratings) for device in ("cuda", "cpu"))
    np.testing.assert_allclose(cuda.predict(ratings), cpu.predict(ratings), rtol=1e-6, atol=1e-6)  # ten steps of rounding
    assert cuda.n_iter_ == cpu.n_iter_


@ESTIMATORS
@pytest.mark.parametrize("loss", ["squared_error", "huber", "poisson", "logistic"])
def test_every_loss_and_blocks_fit_in_float32(Model, loss, ratings):
    target = {"poisson": ratings.ratings.clip(0).round(), "logistic": (ratings.ratings > 3).astype(float)}.get(
        loss, ratings.ratings
    )
    for options in ({"solver": "adam", "batch_size": 500}, {"solver": "adam"}, {}):
        model = Model(n_factors=4, loss=loss, random_state=0, device="cuda", **options).fit(ratings, target)
        assert model.score(ratings, target) > 0.2  # far better than the mean


@pytest.mark.parametrize("Model", [MatrixFactorization, BiasedMatrixFactorization, ImplicitMatrixFactorization, TorchFactorization])
def test_a_saved_fit_loads_where_there_is_no_cuda(Model, ratings, tmp_path, monkeypatch):
    code = {"module": tutorial.Biased} if Model is TorchFactorization else {}
    size = {"module__n_factors": 4} if code else {"n_factors": 4}
    model = Model(device="cuda", random_state=0, **code, **size).fit(ratings)
    model.save(tmp_path / "model")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    again = Model.load(tmp_path / "model", **code)
    assert again.device == "cuda"
    np.testing.assert_array_equal(again.predict(ratings), model.predict(ratings))
    again.set_params(device="cpu").fit(ratings).save(tmp_path / "model")
    monkeypatch.undo()
    assert np.isfinite(Model.load(tmp_path / "model", **code).set_params(device="cuda").fit(ratings).predict(ratings)).all()


@ESTIMATORS
def test_fitted_state_is_numpy_and_loads_without_cuda(Model, ratings):
    model = Model(n_factors=4, device="cuda", random_state=0).fit(ratings)
    pickled = pickle.dumps(model)
    assert b"_rebuild_tensor" not in pickled  # a tensor anywhere in the state
    np.testing.assert_array_equal(pickle.loads(pickled).predict(ratings), model.predict(ratings))


@ESTIMATORS
def test_the_default_device_is_followed(Model, ratings):
    expected = Model(n_factors=4, device="cuda", dtype="float64", random_state=0).fit(ratings)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with torch.device("cuda"):
        model = Model(n_factors=4, dtype="float64", random_state=0).fit(ratings)
        predicted = model.predict(ratings)
        assert model.recommend(k=3)[0].shape == (80, 3)
        assert np.isfinite(model.score(ratings.tocsr()))
    assert torch.cuda.max_memory_allocated() > before
    np.testing.assert_allclose(predicted, expected.predict(ratings), rtol=1e-6, atol=1e-6)


@ESTIMATORS
def test_a_device_of_too_high_a_number_is_an_error(Model, ratings):
    with pytest.raises((ValueError, RuntimeError), match=r"cuda|device"):
        Model(n_factors=4, device="cuda:99").fit(ratings)


@pytest.mark.parametrize("module", [tutorial.Biased, tutorial.Fused, tutorial.Dropout])
@pytest.mark.parametrize("batch_size", [None, 256])
def test_a_module_of_ones_own_trains_on_the_device_and_predicts_without(module, batch_size, ratings):
    sparse = module is tutorial.Biased
    options = {"optimizer": "SparseAdam" if sparse else "Adam", "optimizer__lr": 0.05, "batch_size": batch_size, "max_iter": 20}
    state = torch.cuda.get_rng_state()
    model = TorchFactorization(module, module__n_factors=3, device="cuda", random_state=0, **options).fit(ratings)
    assert torch.equal(torch.cuda.get_rng_state(), state)
    assert {parameter.device.type for parameter in model.module_.parameters()} == {"cpu"}
    assert model.history_["loss"][-1] < model.history_["loss"][0]
    assert np.isfinite(pickle.loads(pickle.dumps(model)).predict(ratings)).all()


def test_a_module_starts_on_the_device_as_on_the_cpu(ratings):
    options = {"optimizer": "SGD", "optimizer__lr": 0.1, "batch_size": None, "max_iter": 3, "dtype": "float64", "random_state": 0}
    cuda, cpu = (TorchFactorization(tutorial.Parameters, device=device, **options).fit(ratings) for device in ("cuda", "cpu"))
    np.testing.assert_allclose(cuda.predict(ratings), cpu.predict(ratings), rtol=1e-8)


@pytest.mark.parametrize("loss", FOR_A_MODULE)
@pytest.mark.parametrize(
    ("module", "batch_size"), [(tutorial.Parameters, 256), (tutorial.Parameters, None), (tutorial.Fused, None)]
)
def test_a_ranking_loss_meets_the_same_negatives_as_on_the_cpu(loss, module, batch_size, ratings):
    options = {"loss": FOR_A_MODULE[loss], "n_negatives": 3, "negatives": "popularity", "batch_size": batch_size, "max_iter": 3}
    options |= {"optimizer": "SGD", "optimizer__lr": 0.1, "dtype": "float64", "random_state": 0}
    cuda, cpu = (TorchFactorization(module, device=device, **options).fit(ratings) for device in ("cuda", "cpu"))
    np.testing.assert_allclose(cuda.predict(ratings), cpu.predict(ratings), rtol=1e-8, atol=1e-8)  # sums in another order
    with torch.device("cuda"):
        default = TorchFactorization(module, **options).fit(ratings)
        assert default.score(ratings) == pytest.approx(cuda.score(ratings))
    np.testing.assert_allclose(default.predict(ratings), cuda.predict(ratings), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("popularity", [False, True], ids=["uniform", "popularity"])
def test_a_sampler_draws_on_the_cpu_and_gives_to_the_device(popularity):
    seen, user = small_matrix(), torch.arange(5).repeat(100)
    cuda, cpu = (
        NegativeSampler(seen, popularity=popularity, generator=torch.Generator().manual_seed(0), device=device)
        for device in ("cuda", "cpu")
    )
    assert_close(cuda.draw(user.cuda(), 4), cpu.draw(user, 4))


@pytest.mark.parametrize("loss", FOR_A_MODULE)
def test_a_ranking_loss_equals_that_of_the_cpu(loss):
    positive, negative = random_rows(7, dtype=torch.float64), random_rows(7, 4, dtype=torch.float64, seed=1)
    n_unobserved = torch.arange(4, 11)
    on_cpu = RANKING[loss](positive, negative, n_unobserved)
    assert_close(RANKING[loss](positive.cuda(), negative.cuda(), n_unobserved.cuda()), on_cpu)


def test_several_processes_are_refused_on_the_device(ratings):
    with pytest.raises(ValueError, match="n_processes=2 needs the CPU"):
        TorchFactorization(tutorial.Biased, optimizer="SGD", device="cuda", n_processes=2).fit(ratings)


@pytest.mark.parametrize("biased", [True, False], ids=["biased", "plain"])
@pytest.mark.parametrize("loss", ["ials", *RANKING])
def test_a_fit_to_positives_equals_that_of_the_cpu(loss, biased):
    options = {"n_factors": 4, "loss": loss, "biased": biased, "max_iter": 5, "dtype": "float64", "random_state": 0}
    cuda, cpu = (ImplicitMatrixFactorization(device=device, **options).fit(TRAIN) for device in ("cuda", "cpu"))
    np.testing.assert_allclose(cuda.predict(TEST), cpu.predict(TEST), rtol=1e-6, atol=1e-6)  # the same draws, sums in another order
    np.testing.assert_allclose(cuda.history_["loss"], cpu.history_["loss"], rtol=1e-8)


@pytest.mark.parametrize("loss", ["ials", "softmax", "bpr"])
def test_positives_are_ranked_as_on_the_cpu(loss):
    cuda, cpu = (ImplicitMatrixFactorization(8, loss=loss, random_state=0, device=device).fit(TRAIN) for device in ("cuda", "cpu"))
    assert cuda.score(TEST) == pytest.approx(cpu.score(TEST), abs=0.02)
    assert cuda.score(TEST) > 0.9
    pickled = pickle.dumps(cuda)
    assert b"_rebuild_tensor" not in pickled  # a tensor anywhere in the state
    np.testing.assert_array_equal(pickle.loads(pickled).recommend(k=5)[0], cuda.recommend(k=5)[0])


@pytest.mark.parametrize("loss", ["ials", "softmax", "bpr"])
def test_positives_follow_the_default_device(loss):
    options = {"n_factors": 4, "loss": loss, "max_iter": 5, "dtype": "float64", "random_state": 0}
    expected = ImplicitMatrixFactorization(device="cuda", **options).fit(TRAIN)
    with torch.device("cuda"):
        model = ImplicitMatrixFactorization(**options).fit(TRAIN)
        folded, score = model.fold_in(TRAIN.tocsr()), model.score(TEST)
        assert np.isfinite(model.score(TRAIN.tocsr()))
    np.testing.assert_allclose(model.predict(TEST), expected.predict(TEST), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(folded, expected.fold_in(TRAIN.tocsr()), rtol=1e-6, atol=1e-6)
    assert score == pytest.approx(expected.score(TEST))


@pytest.mark.parametrize("kind", ["variational", "als", "adam", "lbfgs", "ials", "bpr", "torch"])
def test_a_killed_fit_goes_on_on_the_device(kind, monkeypatch, tmp_path):
    def make(**options):
        return SOLVERS[kind].make(device="cuda", dtype="float64", **options)

    data = SOLVERS[kind].data
    whole = make().fit(data)
    resumed, written = killed_and_resumed(monkeypatch, make, data, tmp_path / "fit", 3)
    assert written == [4, 5, 6]
    np.testing.assert_allclose(resumed.history_["loss"], whole.history_["loss"], rtol=1e-8)  # sums on the device vary in order
