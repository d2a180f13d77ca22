"""TorchFactorization with the ranking losses: positives against negatives drawn for them."""

import pickle

import numpy as np
import pytest
import scipy.sparse as sp
import torch
import tutorial
from communities import LIKED, N_ITEMS, N_USERS, SEEN, TEST, TRAIN
from data import as_form
from every_loss import FOR_A_MODULE, RANKING_LOSSES, every_ranking_loss, squared_hinge
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold
from torch_models import ModuleContract

from sk_torchmf import Interactions, TorchFactorization
from sk_torchmf.inputs.forms import read_weighted
from sk_torchmf.metrics import evaluate
from sk_torchmf.model_selection import ranking_scorer
from sk_torchmf.nn import RANKING, RankingLoss, ranking_logistic

pytestmark = pytest.mark.usefixtures("one_thread")


def small(module=tutorial.Plain, loss="bpr", optimizer="SparseAdam", **params):
    options = {"module__n_factors": 4, "optimizer__lr": 0.05, "max_iter": 2, "batch_size": 64, "random_state": 0}
    return TorchFactorization(module, loss, optimizer, **options | params)


def exact(**params):
    """Every observation in each step, in float64: what happens is a matter of arithmetic."""
    return small(tutorial.Parameters, optimizer="SGD", batch_size=None, dtype="float64", **params)


class ByScore:
    """Lists by given scores (n_users, n_items), for ``evaluate``."""

    users_, items_ = np.arange(N_USERS), np.arange(N_ITEMS)

    def __init__(self, scores):
        self.scores = np.where(SEEN, -np.inf, scores)

    def recommend(self, users, k, exclude_seen=True):
        items = np.argsort(-self.scores[users], axis=1, kind="stable")[:, :k]
        return items, np.take_along_axis(self.scores[users], items, axis=1)


def baseline():
    """NDCG@10 of the most popular items and of random ones."""
    popular, random = np.broadcast_to(SEEN.sum(0), SEEN.shape), np.random.default_rng(0).random(SEEN.shape)
    return max(evaluate(ByScore(scores), TEST, "ndcg", 10)["ndcg"][10] for scores in (popular, random))


def one_left():
    """Ten users who have all of six items but one, each pair once, and the item that each has not: negatives are no chance."""
    left = np.arange(10) % 6
    user, item = np.nonzero(np.arange(6) != left[:, None])
    return Interactions(user, item, num_users=10, num_items=6), left


def spy_on(batches):
    """A module that notes the ids and the features it is trained on."""

    class Spy(tutorial.Parameters):
        def forward(self, user, item, **features):
            if self.training:
                batches.append((user.numpy(), item.numpy(), {name: values.numpy() for name, values in features.items()}))
            return super().forward(user, item)

    return Spy


class TestContract(ModuleContract):
    """As every estimator, in batches; but for what needs the same negatives of other rows, which one_left() has below."""

    test_a_weight_of_two_is_the_row_twice = None
    test_a_weight_of_zero_is_absence = None
    test_a_users_weight_is_that_of_all_its_ratings = None

    def make(self, **params):
        return small(
            tutorial.Parameters, optimizer="Adam", **{"module__n_factors": 3, "optimizer__lr": 0.1, "max_iter": 5} | params
        )

    def arguments(self, data, form):
        """Positives alone: the ratings of the others are no weights."""
        return as_form(data, form)[0], None

    def as_read(self, data, form):
        return Interactions.from_matrix(as_form(data, "sparse")[0]) if form == "sparse" else data


# what is learned


@every_ranking_loss
@pytest.mark.parametrize("negatives", ["uniform", "popularity"])
@pytest.mark.parametrize(
    ("module", "optimizer", "batch_size", "max_iter"),
    [(tutorial.Plain, "SparseAdam", 64, 10), (tutorial.Fused, "Adam", None, 100)],
    ids=["batches", "fused"],
)
def test_every_loss_finds_who_likes_what(name, negatives, module, optimizer, batch_size, max_iter):
    model = small(
        module, FOR_A_MODULE[name], optimizer, n_negatives=4, negatives=negatives, batch_size=batch_size, max_iter=max_iter
    )
    score = model.fit(TRAIN).score(TEST)
    assert baseline() < 0.6  # each list holds as many items of the other group
    assert score > 0.9
    assert score == evaluate(model, TEST, "ndcg", 10)["ndcg"][10]
    assert model.history_["loss"][-1] < model.history_["loss"][0]


@every_ranking_loss
@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_is_the_weighted_mean_over_positives(name, weighted):
    """Against a plain loop, where each user has one negative only, and a learning rate of zero leaves the scores."""
    data, left = one_left()
    weight = np.random.default_rng(0).uniform(0.5, 2, len(data)) if weighted else None
    model = exact(loss=FOR_A_MODULE[name], optimizer__lr=0.0, n_negatives=3, max_iter=1).fit(data, weight)
    scores = model.module_.mean.item() + (model.module_.P @ model.module_.Q.T).detach().numpy()
    pairs = zip(data.user_ids, data.item_ids, strict=True)
    values = [RANKING_LOSSES[name].value(scores[u, i], [scores[u, left[u]]] * 3, 1) for u, i in pairs]
    assert model.history_["loss"][0] == pytest.approx(np.average(values, weights=weight), rel=1e-12)


@pytest.mark.parametrize("how", ["y", "sample_weight", "weights", "both"])
def test_a_weight_is_repetition(how):
    data, _ = one_left()
    weight = np.random.default_rng(0).integers(1, 4, len(data))
    options = {"y": {"y": weight}, "sample_weight": {"sample_weight": weight}, "weights": {}}
    options["both"] = {"y": np.where(weight == 2, 1, weight), "sample_weight": np.where(weight == 2, 2.0, 1.0)}
    weighing = Interactions(data.user_ids, data.item_ids, weights=weight, num_users=10, num_items=6) if how == "weights" else data
    repeated = data[np.repeat(np.arange(len(data)), weight)]
    weighted = exact(optimizer__lr=1.0, max_iter=20).fit(weighing, **options[how])
    expected = exact(optimizer__lr=1.0, max_iter=20).fit(repeated)
    assert_allclose(weighted.predict(data), expected.predict(data), rtol=1e-9)
    assert_array_equal(weighted.user_counts_, expected.user_counts_)


def test_a_users_weight_is_that_of_her_rows():
    data, _ = one_left()
    matrix, weight = sp.csr_array(data.tocsr()), np.arange(10.0)
    by_user = exact(max_iter=20).fit(matrix, sample_weight=weight)
    by_pair = exact(max_iter=20).fit(data, sample_weight=weight[data.user_ids])
    assert_allclose(by_user.predict(data), by_pair.predict(data), rtol=1e-9)
    assert by_user.seen_.nnz == 9 * 5


def test_a_weight_of_zero_is_absence():
    data, _ = one_left()
    keep = np.arange(len(data)) % 3 > 0
    for options in ({"y": keep.astype(float)}, {"sample_weight": keep.astype(float)}):
        weighted = exact(max_iter=5).fit(data, **options)
        assert_array_equal(weighted.predict(data), exact(max_iter=5).fit(data[keep]).predict(data))
        assert weighted.seen_.nnz == keep.sum()


def test_ids_of_weight_zero_keep_their_row():
    X, y = np.array([["a", "x"], ["b", "y"], ["a", "z"], ["c", "x"]], dtype=object), [2.0, 0.0, 1.0, 1.0]
    data = read_weighted(X, y, [1.0, 1.0, 1.0, 3.0], 0, 1).observed()[0].data
    assert (data.ratings, data.num_users, data.num_items) == (None, 3, 3)
    assert_array_equal(data.user_ids, [0, 0, 2])
    assert_array_equal(data.item_ids, [0, 2, 0])
    assert_array_equal(data.weights, [2.0, 1.0, 3.0])
    assert read_weighted(X, None, None, 0, 1).data.weights is None
    model = small(optimizer="Adam", module__sparse=False).fit(X, y)
    assert_array_equal(model.users_, ["a", "b", "c"])
    assert_array_equal(model.user_counts_, [3.0, 0.0, 1.0])
    assert model.predict("b", "x") == model.predict("nobody", "x")


def test_a_containers_ratings_and_a_matrixs_values_say_nothing():
    rng = np.random.default_rng(0)
    expected = small().fit(TRAIN).predict(3)
    for ratings in (None, np.zeros(len(TRAIN)), rng.normal(size=len(TRAIN)), np.full(len(TRAIN), np.nan)):
        data = Interactions(TRAIN.user_ids, TRAIN.item_ids, ratings, num_users=N_USERS, num_items=N_ITEMS)
        assert_array_equal(small().fit(data).predict(3), expected)
    full = exact().fit(as_form(TRAIN, "sparse")[0]).predict(3)
    zeros = sp.csr_array(TRAIN.tocsr())
    zeros.data[:] = 0.0
    assert_array_equal(exact().fit(zeros).predict(3), full)


@pytest.mark.parametrize("form", ["table", "labels"])
def test_score_is_the_same_in_every_form(form):
    model = exact(max_iter=5, loss="hinge").fit(as_form(TRAIN, form)[0])
    assert model.score(as_form(TEST, form)[0]) == exact(max_iter=5, loss="hinge").fit(TRAIN).score(TEST)


# negatives


@pytest.mark.parametrize("batch_size", [None, 64])
def test_negatives_are_fresh_their_users_own_and_nobodys_positives(batch_size):
    batches, m = [], 3
    small(spy_on(batches), optimizer="Adam", n_negatives=m, batch_size=batch_size).fit(TRAIN)
    drawn = []
    for user, item, _ in batches:
        n = len(user) // (1 + m)
        assert SEEN[user[:n], item[:n]].all()
        assert_array_equal(user[n:].reshape(n, m), np.repeat(user[:n, None], m, axis=1))
        assert not SEEN[user[n:], item[n:]].any()
        drawn.append(np.column_stack([user[n:], item[n:]]))
    epochs = np.array_split(np.concatenate(drawn), 2)
    assert len(epochs[0]) == len(epochs[1]) == m * len(TRAIN)
    counts = [np.bincount(pairs[:, 0] * N_ITEMS + pairs[:, 1], minlength=N_USERS * N_ITEMS) for pairs in epochs]
    assert (counts[0] != counts[1]).mean() > 0.3
    assert (sum(counts)[~SEEN.ravel()] > 0).mean() > 0.95  # about 2 * 3 * 16 draws among 24 items


def test_negatives_by_popularity_are_the_popular_ones():
    user = np.repeat(np.arange(N_USERS), 2)
    item = np.column_stack([np.arange(N_USERS) % 2, 2 + np.arange(N_USERS) % 38]).ravel()  # items 0 and 1 are everybody's
    data = Interactions(user, item, num_users=N_USERS, num_items=N_ITEMS + 5)  # nobody knows the last five
    shares = {}
    for negatives in ("uniform", "popularity"):
        batches = []
        small(spy_on(batches), optimizer="Adam", n_negatives=20, negatives=negatives).fit(data)
        drawn = np.concatenate([one[1][len(one[1]) // 21 :] for one in batches])
        shares[negatives] = np.bincount(drawn, minlength=N_ITEMS + 5) / len(drawn)
    assert shares["uniform"][:2].sum() == pytest.approx(1 / 43, rel=0.2)  # one of them, of the 43 items that a user has not
    assert shares["popularity"][:2].sum() > 5 * shares["uniform"][:2].sum()
    assert shares["popularity"][N_ITEMS:].sum() == 0 < shares["uniform"][N_ITEMS:].sum()


def test_a_user_who_has_everything_is_left_out():
    data, _ = one_left()
    everything = Interactions(np.full(6, 10), np.arange(6))
    both = Interactions(*(np.concatenate(ids) for ids in zip(*((d.user_ids, d.item_ids) for d in (data, everything)), strict=True)))
    batches = []
    model = small(spy_on(batches), optimizer="Adam").fit(both)
    assert 10 not in np.concatenate([user for user, _, _ in batches])
    assert sum(len(user) for user, _, _ in batches) == 2 * 2 * len(data)  # epochs, and a negative for each
    assert model.seen_[[10]].nnz == model.user_counts_[10] == 6
    assert_array_equal(model.recommend(10, k=2)[0], [-1, -1])


@pytest.mark.parametrize(
    ("data", "negatives"),
    [
        (Interactions([0, 1, 2], [0, 0, 0]), "uniform"),
        (Interactions([0, 0, 1, 1], [0, 1, 0, 1]), "uniform"),
        (Interactions([0, 1], [0, 0], num_items=3), "popularity"),  # of what anybody has
    ],
    ids=["a single item", "every item", "every known item"],
)
def test_nobody_to_rank_for_is_refused(data, negatives):
    with pytest.raises(ValueError, match="Every user of X has every item, so that there is no negative"):
        small(negatives=negatives).fit(data)


@every_ranking_loss
@pytest.mark.parametrize("weighted", [False, True])
def test_the_fused_road_equals_the_ordinary_one(name, weighted):
    class Ordinary(tutorial.Fused):
        forward_pairs = property()  # hasattr says no

    weight = np.linspace(0.5, 2, len(TRAIN)) if weighted else None
    options = {"optimizer": "Adam", "batch_size": None, "max_iter": 20, "n_negatives": 3, "dtype": "float64"}
    fused, ordinary = (small(module, FOR_A_MODULE[name], **options).fit(TRAIN, weight) for module in (tutorial.Fused, Ordinary))
    assert_allclose(fused.history_["loss"], ordinary.history_["loss"], rtol=1e-9)  # the same draws, sums in another order
    assert_allclose(fused.predict(TEST), ordinary.predict(TEST), rtol=1e-6, atol=1e-8)


def test_the_fused_road_is_taken_and_an_optimizer_may_ask_twice_for_the_same_negatives():
    class Spy(tutorial.Fused):
        def forward(self, user, item):
            assert not self.training
            return super().forward(user, item)

    model = small(Spy, optimizer="LBFGS", optimizer__lr=0.1, batch_size=None, n_negatives=4, max_iter=10).fit(TRAIN)
    assert model.score(TEST) > 0.9


@pytest.mark.parametrize("batch_size", [1, 7, len(TRAIN) - 1, 2 * len(TRAIN)])
def test_last_batch_of_one_and_all_others(batch_size):
    model = small(tutorial.Squeezed, batch_size=batch_size, max_iter=1).fit(TRAIN)
    assert np.isfinite(model.predict(TRAIN)).all()


# features


def test_features_of_a_positive_are_those_of_its_negatives():
    pandas = pytest.importorskip("pandas")
    hour = np.arange(len(TRAIN)) % 24 / 24
    X = pandas.DataFrame({"u": TRAIN.user_ids, "i": TRAIN.item_ids, "hour": hour})
    hours, batches = {(u, i): h for u, i, h in X.itertuples(index=False)}, []
    model = small(spy_on(batches), optimizer="Adam", n_negatives=2, features=["hour"], user="u", item="i").fit(X)
    for user, item, features in batches:
        n = len(user) // 3
        own = [hours[pair] for pair in zip(user[:n], item[:n], strict=True)]
        assert_allclose(features["hour"], np.concatenate([own, np.repeat(own, 2)]), rtol=1e-6)
    assert model.recommend([0], k=3, features={"hour": 0.5})[0].shape == (1, 3)
    with pytest.raises(ValueError, match=r"score ranks all items.*features are of single pairs"):
        model.score(X)


# predictions and score


@every_ranking_loss
def test_predictions_are_scores_and_of_the_logistic_loss_chances(name):
    model = small(tutorial.Parameters, FOR_A_MODULE[name], "Adam").fit(TRAIN)
    score = model.module_.mean.item() + (model.module_.P[3] @ model.module_.Q.T).detach().numpy()
    expected = 1 / (1 + np.exp(-score)) if name == "logistic" else score
    assert_allclose(model.predict(3), expected, rtol=1e-5)  # float32
    item = torch.arange(N_ITEMS)
    assert_allclose(model.to_module()(torch.full_like(item, 3), item).detach(), expected, rtol=1e-5)


def test_the_name_logistic_is_the_loss_of_ratings():
    data = Interactions(TRAIN.user_ids, TRAIN.item_ids, TRAIN.ratings > 0, num_users=N_USERS, num_items=N_ITEMS)
    assert hasattr(small(loss="logistic").fit(data), "rating_range_")
    assert not hasattr(small(loss=ranking_logistic).fit(data), "rating_range_")
    assert not hasattr(small(loss="logistic").fit(data).set_params(loss="bpr").fit(data), "rating_range_")


def test_score_leaves_out_test_items_of_weight_zero():
    model = small(max_iter=10).fit(TRAIN)
    keep = np.arange(len(TEST)) % 2 == 0
    expected = model.score(TEST[keep])
    assert expected != model.score(TEST)
    assert model.score(TEST, keep * 3.0) == model.score(TEST, sample_weight=keep) == expected
    assert model.score(TEST, np.ones(len(TEST)), keep) == expected
    weighing = Interactions(TEST.user_ids, TEST.item_ids, weights=keep * 1.0, num_users=N_USERS, num_items=N_ITEMS)
    assert model.score(weighing) == expected
    table = as_form(TEST, "table")[0]
    assert model.score(table, keep * 1.0) == model.score(table[keep]) == expected
    with pytest.raises(ValueError, match=r"y must be >= 0, because it holds the weights of the positives\. Got y\[1\] = -1\.0"):
        model.score(TEST[:2], [1.0, -1.0])


# as an estimator


def test_a_search_compares_losses_by_how_they_rank():
    grid = {"loss": ["squared_error", "bpr", ranking_logistic], "n_negatives": [1, 3]}
    ones = Interactions(LIKED.user_ids, LIKED.item_ids, num_users=N_USERS, num_items=N_ITEMS)
    search = GridSearchCV(
        small(max_iter=8),
        grid,
        scoring=ranking_scorer("ndcg", k=10),
        cv=KFold(3, shuffle=True, random_state=0),
        error_score="raise",
    )
    search.fit(ones, np.ones(len(ones)))  # ones are all that a loss of ratings learns from these
    assert search.best_params_["loss"] != "squared_error"
    assert search.best_score_ > 0.9
    own = GridSearchCV(small(max_iter=8), {"loss": ["bpr", "hinge"]}, cv=KFold(3, shuffle=True), error_score="raise").fit(ones)
    assert own.best_score_ > 0.8


def test_parameters_are_those_of_a_clone():
    model = small(loss=ranking_logistic, n_negatives=7, negatives="popularity")
    again = clone(model)
    assert again.get_params() == model.get_params()
    assert again.loss is ranking_logistic
    assert (again.n_negatives, again.negatives) == (7, "popularity")
    defaults = TorchFactorization(tutorial.Plain)
    assert (defaults.n_negatives, defaults.negatives) == (1, "uniform")
    assert small().__sklearn_tags__().target_tags.required is False
    assert defaults.__sklearn_tags__().target_tags.required is True


@every_ranking_loss
def test_pickle_round_trip(name):
    model = small(loss=FOR_A_MODULE[name]).fit(TRAIN)
    again = pickle.loads(pickle.dumps(model))
    assert_array_equal(again.predict(TEST), model.predict(TEST))
    assert again.score(TEST) == model.score(TEST)


def test_a_ranking_loss_of_ones_own():
    model = small(loss=RankingLoss("squared hinge", squared_hinge, 4.0), n_negatives=4, max_iter=10).fit(TRAIN)
    assert model.score(TEST) > 0.9


# bad input


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"clip": True}, "clip=True needs a loss of ratings"),
        ({"loss__foo": 1}, "loss__foo is not a parameter of loss='bpr', which has none"),
        ({"loss": RANKING["softmax"], "loss__reduction": "sum"}, "loss__reduction is not a parameter of loss='softmax'"),
        ({"loss": "bprr"}, "loss='bprr' is not a loss. Did you mean bpr"),
        ({"n_negatives": 0}, "'n_negatives' parameter .* must be an int in the range"),
        ({"n_negatives": 1.5}, "'n_negatives' parameter"),
        ({"negatives": "foo"}, "'negatives' parameter .* must be a str among"),
        ({"n_processes": 2}, "n_processes=2 needs a loss of ratings.*Use n_processes=1"),
    ],
)
def test_bad_parameters_are_named(params, message):
    with pytest.raises(ValueError, match=message):
        small(**params).fit(TRAIN)


N = len(TRAIN)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            {"y": np.where(np.arange(N) == 3, -1.0, 1.0)},
            r"y must be >= 0, because it holds the weights of the positives\. Got y\[3\] = -1\.0",
        ),
        ({"y": np.where(np.arange(N) == 3, np.nan, 1.0)}, r"y\[3\] is nan"),
        ({"y": np.where(np.arange(N) == 3, np.inf, 1.0)}, r"y\[3\] is inf"),
        ({"y": np.ones(N - 1)}, r"y must have one value for each observation"),
        ({"y": np.full(N, "much")}, "y must be numbers"),
        ({"y": np.zeros(N)}, "y is zero for every observation"),
        ({"sample_weight": np.zeros(N)}, "sample_weight are all zero"),
        ({"sample_weight": -np.ones(N)}, "sample_weight must be >= 0"),
        ({"y": np.arange(N) % 2, "sample_weight": np.arange(N) % 2 == 0}, "y times the weight is zero for every observation"),
    ],
)
@pytest.mark.parametrize("form", ["table", "interactions"])
def test_bad_weights_are_named(weights, message, form):
    with pytest.raises(ValueError, match=message):
        small().fit(as_form(TRAIN, form)[0], **weights)


def test_clipping_is_refused_at_predict_too():
    with pytest.raises(ValueError, match="clip=True needs a loss of ratings"):
        small().fit(TRAIN).predict(TRAIN, clip=True)


def test_batches_of_ones_own_are_refused():
    with pytest.raises(ValueError, match=r"fit_batches needs a loss of ratings.*Use fit\."):
        small().fit_batches([(TRAIN.user_ids, TRAIN.item_ids, np.ones(N))], n_users=N_USERS, n_items=N_ITEMS)


def test_a_sparse_matrix_of_new_users_is_not_scored():
    with pytest.raises(ValueError, match=r"no fold-in.*Interactions\.from_matrix"):
        small().fit(TRAIN).score(TEST.tocsr())
