"""The softmax of cosines: its loss against plain loops, what a block is shown, and what a model of it recommends."""

import copy

import numpy as np
import pytest
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from communities import TEST, TRAIN, MostPopular, preferences
from contract_of_positives import ImplicitContract
from few_positives import K, positives, start
from numpy.testing import assert_allclose, assert_array_equal

from sk_torchmf import ImplicitMatrixFactorization
from sk_torchmf.model_selection import ranking_scorer
from sk_torchmf.nn import BiasedMF, NegativeSampler, Pairs, PlainMF, Plan
from sk_torchmf.nn.ranking_losses import expected_softmax
from sk_torchmf.solvers import cosine_softmax as cosine
from sk_torchmf.solvers.base import copy_state, run
from sk_torchmf.solvers.cosine_softmax import cosine_solver, settled, spectral_rows, suitable_temperature
from sk_torchmf.solvers.fold_in import fold_in_cosine
from sk_torchmf.solvers.ranking_descent import user_weights

pytestmark = pytest.mark.usefixtures("one_thread")
TEMPERATURE = 0.3
MATRIX = sp.csr_array(TRAIN.tocsr())


class TestCosines(ImplicitContract):
    loss = "cosine"
    blockwise = (*ImplicitContract.blockwise, cosine)

    def make(self, **params):
        return super().make(**{"temperature": TEMPERATURE} | params)


def solver_of(pairs, weight, kind=PlainMF, **options):
    made = {"temperature": TEMPERATURE, "max_iter": 30, "generator": torch.Generator().manual_seed(1)} | options
    return cosine_solver(start(kind, pairs), Plan(pairs), weight, **made)


def model(**params):
    return ImplicitMatrixFactorization(**{"n_factors": 8, "loss": "cosine", "temperature": 0.2, "random_state": 0} | params)


def unit(row):
    return row / np.linalg.norm(row)


def smoothed_by_hand(users, items, has):
    """Rows by loops: of users with the mean of what they have, of items with the mean of who has them."""
    free = np.array([unit(row) for row in items])
    p = np.array([unit(row + free[own].sum(0) / own.sum() ** 0.5) for row, own in zip(users, has, strict=True)])
    q = np.array([unit(row + 30 * p[own].mean(0)) for row, own in zip(free, has.T, strict=True)])
    return p, q


def loss_by_hand(users, items, has, weight, share, biases=None):
    """Of all positives, by loops; users and items are rows of length 1, shares weigh the negatives."""
    total, biases = 0.0, np.zeros(len(items)) if biases is None else biases
    for u in range(len(users)):
        others = np.flatnonzero(~has[u])
        scores = items @ users[u] / TEMPERATURE + biases
        against = share[others] @ np.exp(scores[others]) * len(others) / share[others].sum()
        for i in np.flatnonzero(has[u]):
            total += weight[u, i] * np.log(1 + against / np.exp(scores[i]))
    return total


@pytest.mark.parametrize("kind", [PlainMF, BiasedMF])
@pytest.mark.parametrize("popularity", [False, True])
def test_the_first_loss_is_that_of_a_plain_loop(popularity, kind, monkeypatch):
    monkeypatch.setattr(cosine, "BLOCKS", 1)  # all users at once
    has, pairs, weight = positives()
    solver = solver_of(pairs, weight, kind, popularity=popularity)
    rows = smoothed_by_hand(*(side.numpy() for side in solver.rows[:2]), has)
    biases = solver.rows[2][:, 0].numpy().copy() if kind is BiasedMF else None
    own = pairs.sums(weight)[0]
    effective = np.zeros(has.shape)
    effective[pairs.users, pairs.columns] = weight * user_weights(own, own.mean())[pairs.users.long()]
    share = has.sum(0) ** 0.75 if popularity else np.ones(has.shape[1])
    assert_allclose(solver.step()["loss"], loss_by_hand(*rows, has, effective, share, biases), rtol=1e-12)


def test_gradients_are_those_of_autograd():
    has, pairs, weight = positives()
    solver = solver_of(pairs, weight, BiasedMF)
    some = torch.tensor([0, 3, 4, 9])
    loss, to_p, to_q, to_biases = solver._loss(some, *solver.smooth(*solver.rows[:2]))
    found = [*solver.smooth.back(to_p, to_q), to_biases]
    users, items, biases = free = [side.clone().requires_grad_() for side in solver.rows]
    matrix = torch.from_numpy(has).double()
    directions = F.normalize(items, dim=1)
    p = F.normalize(users + matrix @ directions / matrix.sum(1, keepdim=True).sqrt(), dim=1)
    q = F.normalize(directions + 30 * matrix.T @ p / matrix.sum(0)[:, None], dim=1)
    scores = (p[some] @ q.T) / TEMPERATURE + biases[:, 0]
    place, user = pairs.of_users(some)
    ones = torch.ones(has.shape[1], dtype=torch.float64)
    n = (~torch.from_numpy(has)).sum(1)[some].double()
    expected = expected_softmax(scores, user, pairs.columns[place].long(), solver.weight[place], ones, n, n, 1)
    assert_allclose(loss, expected.detach(), rtol=1e-12)
    for own, gradient in zip(found, torch.autograd.grad(expected, free), strict=True):
        assert_allclose(own, gradient, rtol=1e-9, atol=1e-12)


def test_the_start_is_spectral():
    has, pairs, _ = positives(n_users=40, n_items=30)
    normalised = has / np.sqrt(has.sum(1, keepdims=True) * has.sum(0))
    left, size, right = np.linalg.svd(normalised, full_matrices=False)
    like = torch.zeros(1, dtype=torch.float64)
    users, items = (rows.numpy() for rows in spectral_rows(Plan(pairs), 3, torch.Generator().manual_seed(0), like))
    for at in range(3):
        sign = np.sign(users[:, at] @ left[:, at])
        assert_allclose(users[:, at], sign * left[:, at] * size[at] ** 0.5, atol=0.02)  # random numbers of 0.001, and few rounds
        assert_allclose(items[:, at], sign * right[at] * size[at] ** 0.5, atol=0.02)


def test_vectors_of_equal_singular_values_are_those_nearest_to_given_rows():
    rng = np.random.default_rng(0)
    left, right = (torch.from_numpy(np.linalg.qr(rng.normal(size=(n, 6)))[0]) for n in (6, 20))
    size, rows = torch.tensor([2.0, 1.0, 1.0, 1.0, 0.5, 0.0], dtype=torch.float64), torch.from_numpy(rng.normal(size=(20, 3)))
    matrix = right * size @ left.T
    found = []
    for _ in range(2):  # the same decomposition in other vectors: of three of them any rotation, of the others the sign
        turn = torch.eye(6, dtype=torch.float64)
        turn[1:4, 1:4] = torch.from_numpy(np.linalg.qr(rng.normal(size=(3, 3)))[0])
        turn[0, 0] = rng.choice([-1.0, 1.0])
        found.append(settled(right @ turn, size, (left @ turn).T, rows))
    (vectors, values, turned), others = found
    for own, other in zip(found[0], others, strict=True):
        assert_allclose(own, other, rtol=0, atol=1e-14)
    assert_allclose(values, [2.0, 1.0, 1.0])
    assert_allclose(vectors.T @ vectors, np.eye(3), atol=1e-14)
    assert_allclose(matrix.T @ vectors, turned.T * values, atol=1e-14)
    assert vectors[:, 0] @ rows[:, 0] > 0
    of_equals = right[:, 1:4]  # two of these three dimensions are taken: no other pair of vectors is nearer to the rows
    nearness = (vectors[:, 1:] * rows[:, 1:]).sum()
    for _ in range(200):
        turn = torch.from_numpy(np.linalg.qr(rng.normal(size=(3, 2)))[0])
        assert (of_equals @ turn * rows[:, 1:]).sum() < nearness


def test_epochs_bring_the_loss_down_and_scores_are_cosines_over_the_temperature():
    _, pairs, weight = positives()
    solver = solver_of(pairs, weight, BiasedMF)
    history = run(solver, max_iter=30)
    assert history["loss"][-1] < 0.8 * history["loss"][0]
    for side in solver.unit_rows():
        assert_allclose(side[:, :K].norm(dim=1), TEMPERATURE**-0.5, rtol=1e-12)


def test_the_temperature_goes_by_the_number_of_users_and_items():
    assert suitable_temperature(20_000, 50_000) == pytest.approx(0.1)
    assert suitable_temperature(1_000, 3_906.25) == pytest.approx(0.2)
    assert suitable_temperature(10, 10) == 0.3
    assert model(temperature="auto", max_iter=1).fit(TRAIN).temperature_ == 0.3
    assert model(temperature=0.17, max_iter=1).fit(TRAIN).temperature_ == 0.17


def test_a_block_is_shown_its_own_items_and_others_that_stand_for_the_rest(monkeypatch):
    monkeypatch.setattr(cosine, "OTHERS", 10)
    _, pairs, weight = positives(n_users=40, n_items=60)
    solver = solver_of(pairs, weight)
    own = torch.tensor([3, 7, 3, 50])
    drawn = np.zeros(60)
    for _ in range(400):
        columns, share = solver._show(own)
        assert len(columns) == 3 + 10
        assert_array_equal(columns, np.unique(columns))
        assert_allclose(share[np.isin(columns, own)], 1)
        assert_allclose(share[~np.isin(columns, own)], 57 / 10)  # all 60 items, in number
        drawn[columns] += share.numpy()
    assert_allclose(drawn[np.unique(own)], 400)
    assert_allclose(np.delete(drawn, own), 400, rtol=0.5)  # 400 draws of chance 0.175: five standard errors
    assert_allclose(drawn.sum(), 400 * 60)


def test_a_sample_of_the_items_leads_where_all_of_them_do(monkeypatch):
    train, test = preferences(n_items=200)
    monkeypatch.setattr(cosine, "USERS", 8)
    monkeypatch.setattr(cosine, "OTHERS", 20)
    exact, sampled = (model(exact=how).fit(train) for how in (True, False))
    assert not np.array_equal(exact.item_factors_, sampled.item_factors_)
    assert sampled.score(test) == pytest.approx(exact.score(test), abs=0.1)


@pytest.mark.parametrize("kind", [PlainMF, BiasedMF])
def test_a_restored_solver_goes_on_bit_for_bit(monkeypatch, kind):
    monkeypatch.setattr(cosine, "USERS", 5)
    monkeypatch.setattr(cosine, "OTHERS", 3)
    _, pairs, weight = positives()
    whole, first, second = (solver_of(pairs, weight, kind, max_iter=9) for _ in range(3))
    run(whole, max_iter=9)
    history = run(first, max_iter=4)
    second.restore(copy_state(first.state()))
    run(second, max_iter=9, history=copy.deepcopy(history))
    for expected, found in zip(whole.unit_rows(), second.unit_rows(), strict=True):
        assert torch.equal(expected, found)


def test_fold_in_is_near_the_minimum_of_the_users_loss_and_knows_her_items_only(monkeypatch):
    rng = np.random.default_rng(0)
    has, items = rng.random((15, 30)) < 0.3, np.array([unit(row) for row in rng.normal(size=(30, K))])
    pattern = sp.csr_array(has)

    def fold(pattern):
        sampler = NegativeSampler(pattern)
        known = [torch.from_numpy(values).double() for values in (sampler.share, sampler.total, sampler.n_unobserved)]
        from_rows = [torch.from_numpy(part.astype(np.int32)) for part in (pattern.indptr, pattern.indices)]
        return fold_in_cosine(
            Pairs.from_rows(*from_rows, 30), torch.from_numpy(items), *known, n_factors=K, temperature=TEMPERATURE
        )

    together = fold(pattern)
    assert_allclose(together.norm(dim=1), TEMPERATURE**-0.5)
    with monkeypatch.context() as patch:
        patch.setattr(cosine, "USERS", 4)  # the steps of one block are not counted for another
        assert_allclose(fold(pattern), together, rtol=1e-9)
    monkeypatch.setattr(cosine, "BLOCK", 60)  # two users a block
    assert_allclose(fold(pattern), together, rtol=1e-9)
    ones, share = np.ones((1, 30)), np.ones(30)
    for user in (0, 7, 14):
        row = together[user].numpy()
        assert_allclose(fold(pattern[[user]])[0], row, rtol=1e-9)
        found = loss_by_hand(unit(row)[None], items, has[[user]], ones, share)
        elsewhere = [loss_by_hand(unit(other)[None], items, has[[user]], ones, share) for other in rng.normal(size=(500, K))]
        assert found < min(elsewhere) + 0.02 * np.ptp(elsewhere)


def test_a_model_of_cosines_finds_who_likes_what():
    popular = ranking_scorer("ndcg", k=10)(MostPopular().fit(TRAIN), TEST)
    fitted = model().fit(TRAIN)
    assert popular < 0.6
    assert fitted.score(TEST) > 0.93
    assert_allclose(np.linalg.norm(fitted.item_factors_, axis=1), 0.2**-0.5, rtol=1e-5)
    assert len(fitted.history_["loss"]) == fitted.n_iter_ == 8


def test_a_known_user_folded_in_is_recommended_nearly_what_she_was():
    fitted = model().fit(TRAIN)
    known, folded = (fitted.recommend(users, k=10)[0] for users in (None, MATRIX))
    shared = [len(np.intersect1d(one, other)) / 10 for one, other in zip(known, folded, strict=True)]
    assert np.mean(shared) > 0.8


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"temperature": 0}, "'temperature' parameter"),
        ({"temperature": -0.1}, "'temperature' parameter"),
        ({"temperature": "warm"}, "'temperature' parameter"),
        ({"loss": "softmax"}, r'temperature=0\.2 is for loss="cosine", .* Got loss="softmax"\.'),
    ],
)
def test_a_temperature_that_means_nothing_is_refused(params, message):
    with pytest.raises(ValueError, match=message):
        model(**params).fit(TRAIN)


def test_one_item_for_everyone_and_one_factor_do_not_break():
    with pytest.raises(ValueError, match="Every user has every item"):
        model().fit(sp.csr_array(np.ones((3, 1))))
    single = model(n_factors=1).fit(sp.csr_array([[1, 0, 1], [0, 1, 0]]))
    assert np.isfinite(single.predict(0)).all()


@pytest.mark.parametrize("biased", [False, None])
def test_cosines_go_on_with_more_positives_and_are_saved(biased, tmp_path):
    half = len(TRAIN) // 2
    order = np.random.default_rng(0).permutation(len(TRAIN))
    grown = model(biased=biased).partial_fit(TRAIN[order[:half]]).partial_fit(TRAIN[order[half:]])
    assert (grown.seen_ != MATRIX.astype(bool)).nnz == 0
    assert grown.score(TEST) > 0.93
    watched = model(biased=biased, checkpoint=tmp_path / "fit").fit(TRAIN)
    assert_array_equal(watched.item_factors_, model(biased=biased).fit(TRAIN).item_factors_)
    watched.save(tmp_path / "model")  # with its path of a checkpoint, by name
    again = ImplicitMatrixFactorization.load(tmp_path / "model")
    assert_array_equal(again.predict(3), watched.predict(3))
    assert again.checkpoint == str(tmp_path / "fit")
