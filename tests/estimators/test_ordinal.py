"""loss="ordinal" in the explicit estimators: probabilities of levels, expected ratings, and all that a fitted model does."""

import pickle

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from killed_fits import killed_and_resumed
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize
from scipy.special import expit, ndtr

from sk_torchmf import BiasedMatrixFactorization, Interactions, MatrixFactorization
from sk_torchmf.model.cut_points import SLOPE

pytestmark = pytest.mark.usefixtures("one_thread")

LEVELS = np.array([1.0, 2.0, 2.5, 5.0])
CUTS = np.array([-2.0, -0.3, 1.5])
N_USERS, N_ITEMS = 120, 60

common_or_own = pytest.mark.parametrize("cut_points", ["common", "user"])
both_kinds = pytest.mark.parametrize("kind", [BiasedMatrixFactorization, MatrixFactorization])


class Planted:
    """Levels that were drawn from an ordered logit: of scores of rank two and cut points that each user shifts by some logits."""

    def __init__(self, shift=0.0, n_users=N_USERS, n_items=N_ITEMS, share=0.5, seed=0):
        rng = np.random.default_rng(seed)
        self.score = 0.6 * rng.normal(size=(n_users, 2)) @ rng.normal(size=(2, n_items)) + 0.4 * rng.normal(size=n_items)
        stretch = shift * rng.choice([-1.0, 1.0], n_users)[:, None] * np.array([-1.0, 0.0, 1.0])  # some choose extremes, some never
        below = expit(CUTS + stretch[:, None] - SLOPE * self.score[:, :, None])
        ends = np.zeros((n_users, n_items, 1))
        self.probability = np.diff(np.concatenate([ends, below, ends + 1], axis=2), axis=2)
        code = (rng.random((n_users, n_items, 1)) > below).sum(axis=2)
        user, item = np.nonzero(rng.random((n_users, n_items)) < share)
        order = rng.permutation(len(user))
        user, item = user[order], item[order]
        data = Interactions(user, item, LEVELS[code[user, item]], num_users=n_users, num_items=n_items)
        held_out = np.arange(len(data)) % 5 == 0
        self.train, self.test = data[~held_out], data[held_out]


PLANTED = Planted()
SMALL = Planted(n_users=25, n_items=15).train


def make(kind=BiasedMatrixFactorization, **params):
    return kind(**{"n_factors": 3, "loss": "ordinal", "random_state": 0, **params})


def scores_of(model, user, item):
    biases = model.global_mean_ + model.user_biases_[user] + model.item_biases_[item] if hasattr(model, "global_mean_") else 0.0
    factors = model.user_factors_[user].astype(np.float64), model.item_factors_[item].astype(np.float64)
    return (factors[0] * factors[1]).sum(-1) + biases


def by_hand(model, user, item, variance=0.0):
    """The probabilities of the levels of pairs by the fitted attributes, one pair after another."""
    rows = []
    for u, i, v in zip(*np.broadcast_arrays(user, item, variance), strict=True):
        cuts = model.cut_points_ + (0.0 if model.user_cut_points_ is None else model.user_cut_points_[u])
        below = expit((cuts - SLOPE * scores_of(model, u, i)) / np.sqrt(1 + np.pi / 8 * SLOPE**2 * v))
        rows.append(np.diff([0.0, *below, 1.0]))
    return np.array(rows)


def log_loss(probability, rating):
    return -np.log(probability[np.arange(len(rating)), np.searchsorted(LEVELS, rating)]).mean()


def discretised(prediction, std):
    """The probabilities of the levels where ratings are normal and rounded."""
    below = ndtr(((LEVELS[1:] + LEVELS[:-1]) / 2 - prediction[:, None]) / std[:, None])
    return np.diff(np.column_stack([0 * std, below, 0 * std + 1]), axis=1)


@common_or_own
@both_kinds
def test_probabilities_and_expected_ratings_are_those_of_the_fitted_attributes(kind, cut_points):
    model, data = make(kind, cut_points=cut_points).fit(SMALL), SMALL
    assert_array_equal(model.levels_, LEVELS)
    assert (np.diff(model.cut_points_) > 0).all()
    assert model.rating_scale_ == 1
    user, item = data.user_ids, data.item_ids
    expected = by_hand(model, user, item) @ LEVELS
    assert_allclose(model.predict(user, item), expected, rtol=1e-6)
    assert_allclose(model.predict(data), expected, rtol=1e-6)
    variance = model._factors.score_variances(user, item)
    assert (variance > 0).all()
    found = model.predict_proba(user, item)
    assert found.shape == (len(data), 4)
    assert_allclose(found, by_hand(model, user, item, variance), rtol=1e-5)
    assert_allclose(found.sum(axis=1), 1, rtol=1e-14)
    predicted, std = model.predict(user, item, return_std=True)
    assert_array_equal(predicted, model.predict(user, item))
    assert_allclose(std**2, (found * (LEVELS - predicted[:, None]) ** 2).sum(axis=1), rtol=1e-7)


@common_or_own
def test_every_way_to_ask_gives_the_same_answers(cut_points):
    model = make(cut_points=cut_points).fit(SMALL)
    users, items = np.arange(SMALL.num_users), np.arange(SMALL.num_items)
    grid = model.predict(users[:, None], items)
    assert ((grid > 1) & (grid < 5)).all()
    probability = model.predict_proba(users[:, None], items)
    assert probability.shape == (*grid.shape, 4)
    for user in (0, 7):
        assert_allclose(model.predict(user), grid[user], rtol=1e-9)
        assert_allclose(model.predict(np.full(len(items), user), items), grid[user], rtol=1e-9)
        assert_allclose(model.predict_proba(user), probability[user], rtol=1e-9)
        found, scores = model.recommend(user, k=4, exclude_seen=False)
        assert_array_equal(found, np.argsort(-grid[user], kind="stable")[:4])
        assert_allclose(scores, grid[user][found], rtol=1e-9)
    assert model.predict_proba(99, 99).shape == (4,)
    points = np.diff([0.0, *expit(model.cut_points_ - SLOPE * model.global_mean_), 1.0])
    assert model.predict(99, 99) == pytest.approx(points @ LEVELS)
    model.set_params(handle_unknown="nan")
    assert np.isnan(model.predict(99, 3))


def test_probabilities_are_calibrated_and_better_than_those_of_a_normal_rating():
    train, test = PLANTED.train, PLANTED.test
    model = make(max_iter=20).fit(train)
    found, code = model.predict_proba(test), np.searchsorted(LEVELS, test.ratings)
    hit = np.arange(4) == code[:, None]
    for low, high in ((0.0, 0.1), (0.1, 0.25), (0.25, 0.45), (0.45, 1.0)):
        some = (found >= low) & (found < high)
        p = found[some]
        assert len(p) > 100
        assert abs(hit[some].mean() - p.mean()) < 4 * np.sqrt((p * (1 - p)).sum()) / len(p) + 0.02  # beside what is not learned
    normal = make(loss="squared_error", max_iter=20).fit(train)
    plain = log_loss(discretised(*normal.predict(test, return_std=True)), test.ratings)
    truth = log_loss(PLANTED.probability[test.user_ids, test.item_ids], test.ratings)
    own = log_loss(found, test.ratings)
    assert truth < own < plain - 0.05
    assert own < truth + 0.12
    levels = np.bincount(np.searchsorted(LEVELS, train.ratings)) / len(train)
    assert own < log_loss(np.tile(levels, (len(test), 1)), test.ratings) - 0.1


def test_own_cut_points_find_users_who_choose_extremes():
    planted = Planted(shift=0.9, n_items=120)
    losses = {}
    for cut_points in ("common", "user"):
        model = make(cut_points=cut_points, max_iter=20).fit(planted.train)
        losses[cut_points] = log_loss(model.predict_proba(planted.test), planted.test.ratings)
    assert losses["user"] < losses["common"] - 0.05
    assert model.user_cut_points_.shape == (N_USERS, 3)
    width = np.ptp(model.user_cut_points_[:, [0, 2]], axis=1) * np.sign(np.diff(model.user_cut_points_[:, [0, 2]])[:, 0])
    assert width.std() > 0.8  # planted: 1.8


@common_or_own
def test_a_weight_of_two_is_the_row_twice(cut_points):
    params = {"dtype": "float64", "cut_points": cut_points, "seen_features": None}
    weight = np.arange(len(SMALL)) % 2 + 1
    twice = SMALL[np.repeat(np.arange(len(SMALL)), weight)]
    weighted, repeated = make(**params).fit(SMALL, sample_weight=weight), make(**params).fit(twice)
    assert_allclose(weighted.predict(SMALL), repeated.predict(SMALL), rtol=1e-8)
    assert_allclose(weighted.cut_points_, repeated.cut_points_, rtol=1e-8)
    assert_allclose(weighted.history_["loss"], repeated.history_["loss"], rtol=1e-8)
    zero = make(**params).fit(SMALL, sample_weight=(np.arange(len(SMALL)) > 9) * 1.0)
    assert_allclose(zero.predict(SMALL), make(**params).fit(SMALL[10:]).predict(SMALL), rtol=1e-8)


def test_history_has_the_mean_negative_log_likelihood():
    for cut_points in ("common", "user"):
        model = make(cut_points=cut_points, dtype="float64").fit(SMALL)
        probability = by_hand(model, SMALL.user_ids, SMALL.item_ids)
        assert model.history_["loss"][-1] == pytest.approx(log_loss(probability, SMALL.ratings), rel=1e-9)


def new_users():
    """Three with ratings, one without."""
    rating = np.array([[5, 0, 1, 2.5, 0, 0], [0, 2, 0, 0, 2, 1], [5, 5, 5, 0, 0, 5], [0, 0, 0, 0, 0, 0]])
    return sp.csr_array(np.column_stack([rating, np.zeros((4, SMALL.num_items - 6))]))


def test_a_new_users_row_is_the_most_likely_one_with_the_common_cut_points():
    model = make(dtype="float64", seen_features=None, cut_points="user").fit(SMALL)
    X = new_users()
    rows = model.fold_in(X)
    precision, shift = model.user_prior_
    for u, row in enumerate(rows):
        entries = X[[u]].tocoo()
        powers = np.array([1.0, entries.nnz**0.75, entries.nnz])
        L, m = np.einsum("j,jab->ab", powers, precision), powers @ shift
        Y = np.column_stack([model.item_factors_, np.ones(SMALL.num_items)])[entries.col]
        offset, code = (model.item_biases_ + model.global_mean_)[entries.col], np.searchsorted(LEVELS, entries.data)

        def objective(x, Y=Y, offset=offset, code=code, L=L, m=m):
            below = expit(np.array([-np.inf, *model.cut_points_, np.inf]) - SLOPE * (offset + Y @ x)[:, None])
            own = np.take_along_axis(np.diff(below, axis=1), code[:, None], 1)
            return -np.log(own).sum() + x @ L @ x - 2 * m @ x

        best = minimize(objective, np.zeros(len(row)), method="BFGS", options={"gtol": 1e-7})
        assert_allclose(row, best.x, atol=2e-3)  # eight Newton steps, some guarded
    scores = rows[:, :-1] @ model.item_factors_.T + rows[:, -1:] + model.item_biases_ + model.global_mean_
    below = expit(np.array([-np.inf, *model.cut_points_, np.inf]) - SLOPE * scores[:, :, None])
    assert_allclose(model.predict(X), np.diff(below, axis=2) @ LEVELS, rtol=1e-9)
    assert_allclose(model.inverse_transform(rows), model.predict(X), rtol=1e-12)


def test_score_of_new_users_leaves_each_rating_out():
    """The held-out score is that of the last Newton step, so nearly that of a fold-in without the rating."""
    train = Planted().train
    model = make(dtype="float64", seen_features=None).fit(train)
    X = Planted(n_users=6, share=0.9, seed=3).train.tocsr()
    X = sp.csr_array(X)
    found = model.predict_left_out(X)
    by_brute_force = []
    for u in range(X.shape[0]):
        for at in range(X.indptr[u], X.indptr[u + 1]):
            others = X[[u]].tolil()
            others[0, X.indices[at]] = 0
            by_brute_force.append(model.predict(sp.csr_array(others.tocsr()))[0, X.indices[at]])
    error = found - np.array(by_brute_force)
    assert np.sqrt(np.mean(error**2)) < 0.1 * np.std(by_brute_force)
    deviation = X.data - X.data.mean()
    assert model.score(X) == pytest.approx(1 - np.sum((X.data - found) ** 2) / (deviation @ deviation), rel=1e-9)


def test_new_users_ratings_must_be_levels():
    model = make().fit(SMALL)
    X = new_users()
    X.data[0] = 3.0
    with pytest.raises(ValueError, match=r"ratings must be among the 4 levels that fit saw.*: 1, 2, 2.5, 5. Got ratings\[0\] = 3"):
        model.fold_in(X)
    assert np.isfinite(model.score(SMALL, SMALL.ratings + 0.1))  # R2 asks for no level


@common_or_own
def test_a_saved_model_is_the_same(tmp_path, cut_points):
    model = make(cut_points=cut_points).fit(SMALL)
    loaded = BiasedMatrixFactorization.load(model.save(tmp_path / "model") and tmp_path / "model")
    for other in (loaded, pickle.loads(pickle.dumps(model))):
        assert_array_equal(other.predict_proba(SMALL), model.predict_proba(SMALL))
        assert_array_equal(other.fold_in(new_users()), model.fold_in(new_users()))
    assert_array_equal(loaded.partial_fit(SMALL[:5]).predict(SMALL), model.partial_fit(SMALL[:5]).predict(SMALL))


@common_or_own
def test_a_killed_fit_goes_on_to_the_same_bits(tmp_path, monkeypatch, cut_points):
    def make_one(**params):
        return make(cut_points=cut_points, early_stopping=True, max_iter=8, **params)

    model, _ = killed_and_resumed(monkeypatch, make_one, SMALL, tmp_path / "checkpoint", 3)
    whole = make_one().fit(SMALL)
    assert_array_equal(model.predict_proba(SMALL), whole.predict_proba(SMALL))
    assert model.history_["validation_loss"] == whole.history_["validation_loss"]


@common_or_own
def test_validation_loss_is_the_mean_negative_log_likelihood(cut_points):
    model = make(cut_points=cut_points).fit(SMALL[20:], X_val=SMALL[:20])
    probability = by_hand(model, SMALL.user_ids[:20], SMALL.item_ids[:20])
    assert model.history_["validation_loss"][-1] == pytest.approx(log_loss(probability, SMALL.ratings[:20]), rel=1e-5)


def test_a_level_that_is_held_out_altogether_counts_as_the_nearest():
    ratings = SMALL.ratings.copy()
    ratings[:20] = 4.9
    data = Interactions(SMALL.user_ids, SMALL.item_ids, ratings, num_users=SMALL.num_users, num_items=SMALL.num_items)
    model = make().fit(data[20:], X_val=data[:20])
    probability = by_hand(model, data.user_ids[:20], data.item_ids[:20])
    assert model.history_["validation_loss"][-1] == pytest.approx(log_loss(probability, np.full(20, 5.0)), rel=1e-5)


@common_or_own
def test_partial_fit_learns_new_levels_and_knows_the_old_ones(cut_points):
    rating = np.round(SMALL.ratings / 3, 1)  # no float32 is one of them
    rated = {"num_users": SMALL.num_users, "num_items": SMALL.num_items}
    data = Interactions(SMALL.user_ids, SMALL.item_ids, rating, **rated)
    model = make(cut_points=cut_points).fit(data[:100])
    levels = np.unique(rating[:100])
    assert_array_equal(model.levels_, levels)
    assert_array_equal(model.partial_fit(data[100:]).levels_, levels)
    assert model.n_iter_ == 20
    more = Interactions(np.array([0, 1]), np.array([2, 3]), np.array([0.1, 9.3]), **rated)
    assert_array_equal(model.partial_fit(more).levels_, [0.1, *levels, 9.3])
    assert model.predict_proba(0).shape == (SMALL.num_items, len(levels) + 2)


def test_warm_start_goes_on_from_rows_and_cut_points():
    model = make(cut_points="user", warm_start=True, max_iter=20).fit(SMALL)
    cuts, loss = model.cut_points_, model.history_["loss"][-1]
    model.set_params(max_iter=1).fit(SMALL)
    fresh = make(cut_points="user", max_iter=1).fit(SMALL)
    assert abs(model.history_["loss"][0] - loss) < abs(fresh.history_["loss"][0] - loss) / 3
    assert np.abs(model.cut_points_ - cuts).max() < np.abs(fresh.cut_points_ - cuts).max() / 3


@both_kinds
def test_module_predicts_what_the_estimator_does(kind, tmp_path):
    model = make(kind).fit(SMALL)
    user, item = torch.tensor([0, 3, 7, -1]), torch.tensor([1, 0, 14, 2])
    module = model.to_module()
    expected = model.predict(user.numpy(), item.numpy())
    assert_allclose(module(user, item).detach(), expected, rtol=1e-5)
    n = torch.export.Dim("n")
    exported = torch.export.export(module, (user, item), dynamic_shapes={"user": {0: n}, "item": {0: n}}).module()
    assert_allclose(exported(user[:3], item[:3]).detach(), expected[:3], rtol=1e-5)
    assert_allclose(pickle.loads(pickle.dumps(module))(user, item).detach(), expected, rtol=1e-5)
    users, items = model.embeddings()
    assert_allclose((users @ items.T)[[0, 3], [1, 0]], scores_of(model, np.array([0, 3]), np.array([1, 0])), rtol=1e-4, atol=1e-5)


def test_extended_users_keep_their_own_cut_points():
    rng = np.random.default_rng(0)
    users, items = [f"u{u:02}" for u in SMALL.user_ids], [f"i{i:02}" for i in SMALL.item_ids]
    pd = pytest.importorskip("pandas")
    known = pd.DataFrame({"a": rng.normal(size=25)}, index=[f"u{u:02}" for u in range(25)])
    X = pd.DataFrame({"user": users, "item": items})
    model = make(user="user", item="item", cut_points="user").fit(X, SMALL.ratings, user_features=known)
    before = model.predict_proba(X)
    new = pd.DataFrame({"a": [0.5, -0.5]}, index=["a", "u03b"])
    from_call = model.predict(["a", "u03b", "u24"], ["i01"] * 3, user_features=new)
    model.extend(user_features=new)
    assert model.users_[0] == "a"
    assert_allclose(model.predict_proba(X), before, rtol=1e-9)
    assert_array_equal(model.user_cut_points_[[0, list(model.users_).index("u03b")]], np.zeros((2, 3)))
    assert_allclose(model.predict(["a", "u03b", "u24"], ["i01"] * 3), from_call, rtol=1e-12)


def test_what_it_cannot_do_is_refused_with_words():
    with pytest.raises(ValueError, match=r'loss="ordinal" needs solver="variational", which learns cut points. Got solver="als"'):
        make(solver="als").fit(SMALL)
    with pytest.raises(ValueError, match="cut_points"):
        make(cut_points="own").fit(SMALL)
    same = Interactions(SMALL.user_ids, SMALL.item_ids, np.full(len(SMALL), 3.0))
    with pytest.raises(ValueError, match=r"at least two levels. All are 3"):
        make().fit(same)
    with pytest.raises(ValueError, match="set_factors does not support loss="):
        make(n_factors=1).set_factors(np.ones((2, 1)), np.ones((2, 1)), np.ones(2), np.ones(2))
    model = make(cut_points="user").fit(SMALL)
    with pytest.raises(ValueError, match=r"predict_proba needs users that fit saw. Got a sparse matrix"):
        model.predict_proba(new_users())
    with pytest.raises(ValueError, match='to_module needs cut_points="common"'):
        model.to_module()
    other = make(loss="squared_error").fit(SMALL)
    assert not hasattr(other, "predict_proba")
    with pytest.raises(AttributeError, match="predict_proba"):
        other.predict_proba(SMALL)
    with pytest.raises(ValueError, match=r"fitted without them. Fit again with that loss"):
        other.set_params(loss="ordinal").predict(SMALL)
    assert_allclose(other.fit(SMALL).predict(SMALL), make().fit(SMALL).predict(SMALL))
