"""The softmax of cosines: its loss against plain loops, what a block is shown, and what a model of it recommends."""

import copy

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from communities import TEST, TRAIN, MostPopular, preferences
from contract_of_positives import ImplicitContract
from few_positives import K, positives, start
from numpy.testing import assert_allclose, assert_array_equal

from sk_torchmf import ImplicitMatrixFactorization
from sk_torchmf.model_selection import ranking_scorer
from sk_torchmf.nn import RANKING, NegativeSampler, Pairs, PlainMF, Plan
from sk_torchmf.solvers import cosine_softmax as cosine
from sk_torchmf.solvers.base import copy_state, run
from sk_torchmf.solvers.cosine_softmax import CosineSoftmax
from sk_torchmf.solvers.fold_in import fold_in_cosine
from sk_torchmf.solvers.ranking_descent import ranking_solver, user_weights

pytestmark = pytest.mark.usefixtures("one_thread")
TEMPERATURE = 0.3
MATRIX = sp.csr_array(TRAIN.tocsr())


class TestCosines(ImplicitContract):
    loss = "softmax"
    blockwise = (*ImplicitContract.blockwise, cosine)

    def make(self, **params):
        return super().make(**{"temperature": TEMPERATURE} | params)


def solver_of(pairs, weight, *, popularity=False, **options):
    made = {"temperature": TEMPERATURE, "max_iter": 30, "generator": torch.Generator().manual_seed(1)} | options
    module = start(PlainMF, pairs)
    return ranking_solver(module, Plan(pairs), weight, RANKING["softmax"], alpha=0.0, popularity=popularity, **made)


def model(**params):
    return ImplicitMatrixFactorization(
        **{"n_factors": 8, "loss": "softmax", "temperature": 0.2, "max_iter": 20, "random_state": 0} | params
    )


def loss_by_hand(users, items, has, weight, share):
    """Of all positives, by loops; users and items are rows of any length, shares weigh the negatives."""
    total = 0.0
    for u in range(len(users)):
        others = np.flatnonzero(~has[u])
        cosines = items @ users[u] / np.linalg.norm(items, axis=1) / np.linalg.norm(users[u]) / TEMPERATURE
        against = share[others] @ np.exp(cosines[others]) * len(others) / share[others].sum()
        for i in np.flatnonzero(has[u]):
            total += weight[u, i] * np.log(1 + against / np.exp(cosines[i]))
    return total


@pytest.mark.parametrize("popularity", [False, True])
def test_the_first_loss_is_that_of_a_plain_loop(popularity):
    has, pairs, weight = positives()
    rows = [side.detach().numpy() for side in start(PlainMF, pairs).rows()]
    own = pairs.sums(weight)[0]
    effective = np.zeros(has.shape)
    effective[pairs.users, pairs.columns] = weight * user_weights(own, own.mean())[pairs.users.long()]
    share = has.sum(0) ** 0.75 if popularity else np.ones(has.shape[1])
    loss = solver_of(pairs, weight, popularity=popularity).step()["loss"]
    assert_allclose(loss, loss_by_hand(*rows, has, effective, share), rtol=1e-12)


def test_epochs_bring_the_loss_down_and_scores_are_cosines_over_the_temperature():
    _, pairs, weight = positives()
    solver = solver_of(pairs, weight)
    history = run(solver, max_iter=30)
    assert history["loss"][-1] < 0.7 * history["loss"][0]
    for side in solver.unit_rows():
        assert side.shape[1] == K
        assert_allclose(side.norm(dim=1), TEMPERATURE**-0.5, rtol=1e-12)


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
    exact, sampled = (model(max_iter=15, exact=how).fit(train) for how in (True, False))
    assert not np.array_equal(exact.item_factors_, sampled.item_factors_)
    assert sampled.score(test) == pytest.approx(exact.score(test), abs=0.1)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_restored_solver_goes_on_bit_for_bit(monkeypatch, frozen):
    monkeypatch.setattr(cosine, "USERS", 5)
    monkeypatch.setattr(cosine, "OTHERS", 3)
    _, pairs, weight = positives()
    sampler = NegativeSampler(pairs.tocsr())
    known = [torch.from_numpy(values).double() for values in (sampler.share, sampler.total, sampler.n_unobserved)]

    def made():
        rows = (side.detach() for side in start(PlainMF, pairs).rows())
        options = {"n_factors": K, "temperature": 0.2, "max_iter": 9, "exact": False, "frozen": frozen}
        return CosineSoftmax(*rows, Plan(pairs), weight, *known, generator=torch.Generator().manual_seed(3), **options)

    whole, first, second = made(), made(), made()
    run(whole, max_iter=9)
    history = run(first, max_iter=4)
    second.restore(copy_state(first.state()))
    run(second, max_iter=9, history=copy.deepcopy(history))
    for expected, found in zip(whole.unit_rows(), second.unit_rows(), strict=True):
        assert torch.equal(expected, found)
    assert frozen == torch.equal(second.rows[1], made().rows[1])


def test_fold_in_is_near_the_minimum_of_the_users_loss_and_knows_her_items_only(monkeypatch):
    rng = np.random.default_rng(0)
    has, items = rng.random((15, 30)) < 0.3, rng.normal(size=(30, K))
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
        found = loss_by_hand(row[None], items, has[[user]], ones, share)
        elsewhere = [loss_by_hand(other[None], items, has[[user]], ones, share) for other in rng.normal(size=(500, K))]
        assert found < min(elsewhere) + 0.02 * np.ptp(elsewhere)


def test_a_model_of_cosines_finds_who_likes_what():
    popular = ranking_scorer("ndcg", k=10)(MostPopular().fit(TRAIN), TEST)
    fitted = model().fit(TRAIN)
    assert popular < 0.6
    assert fitted.score(TEST) > 0.93
    assert_allclose(np.linalg.norm(fitted.item_factors_, axis=1), 0.2**-0.5, rtol=1e-5)
    assert len(fitted.history_["loss"]) == fitted.n_iter_ == 20


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
        ({"loss": "ials"}, r'temperature=0\.2 is for loss="softmax", .* Got loss="ials"\.'),
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


@pytest.mark.parametrize("biased", [False, True])
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
