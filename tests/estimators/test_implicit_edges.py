"""ImplicitMatrixFactorization where data are degenerate, and the words for what it refuses."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from communities import (
    MATRIX,
    N_LIKED_ITEMS,
    N_LIKED_USERS,
    TEST,
    TRAIN,
    every_kind_of_loss,
    every_loss,
    one_row,
    precise,
    ranking_losses,
    scores_of,
    small,
    with_or_without_biases,
)
from contract import DATA, N_ITEMS, N_USERS
from data import as_form, ids_in
from every_loss import EXACT
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError

from sk_torchmf import Interactions

pytestmark = pytest.mark.usefixtures("one_thread")


# edges


@ranking_losses
@pytest.mark.parametrize("negatives", ["uniform", "popularity"])
def test_a_user_who_has_everything_is_left_out_and_is_the_mean_user(loss, negatives):
    everything = Interactions(np.full(N_ITEMS, N_USERS), np.arange(N_ITEMS))
    both = Interactions(*(np.concatenate([getattr(part, ids) for part in (DATA, everything)]) for ids in ("user_ids", "item_ids")))
    model, without = (precise(loss, negatives=negatives).fit(data) for data in (both, DATA))
    assert_allclose(scores_of(model)[:N_USERS], scores_of(without), rtol=1e-9, atol=1e-9)
    assert_allclose(model.user_factors_[N_USERS], model.user_factors_[:N_USERS].mean(0), rtol=1e-9)
    assert_array_equal(model.predict(N_USERS), model.predict(9999))
    assert model.user_counts_[N_USERS] == N_ITEMS
    assert_array_equal(model.recommend(N_USERS, k=2)[0], [-1, -1])


@ranking_losses
def test_items_of_a_user_who_has_everything_are_still_what_others_lack(loss):
    """User 2 alone has item 2: without her, the others are ranked against it, user 1 too, who has all that is left."""
    model = small(loss, n_factors=2, exact=False if loss in EXACT else None).fit(
        Interactions([0, 1, 1, 2, 2, 2], [0, 0, 1, 0, 1, 2])
    )
    for user in (0, 1):
        scores = model.predict(user)
        assert scores[:2].min() > scores[2]
    assert model.recommend(1, k=1)[0] == [2]


@ranking_losses
@pytest.mark.parametrize("negatives", ["uniform", "popularity"])
@pytest.mark.parametrize(
    "data",
    [
        Interactions([0], [0]),
        Interactions([0, 1, 2], [0, 0, 0]),
        Interactions([0, 0], [0, 1]),
        Interactions([0, 0, 1, 1], [0, 1, 0, 1]),
        Interactions([0, 0, 1, 1], [0, 1, 0, 1], num_users=3, num_items=4),
    ],
    ids=["one interaction", "one item", "one user", "everything", "everything that anybody has"],
)
def test_nobody_to_rank_for_is_refused_and_the_cure_works(loss, negatives, data):
    n_users, n_items = len(set(data.user_ids)), len(set(data.item_ids))
    words = (
        rf'Every user has every item, so loss="{loss}" has nothing to rank them above\. Got {n_users} users and {n_items} items\.'
    )
    with pytest.raises(ValueError, match=words + r' Use loss="ials"\.'):
        small(loss, negatives=negatives).fit(data)
    model = small().fit(data)
    assert_allclose(model.predict(data), 1.0, atol=0.1)
    assert model.recommend(k=2)[0].shape == (data.num_users, 2)
    assert np.isfinite(model.fold_in(sp.csr_array(data.tocsr()))).all()


@every_loss
@pytest.mark.parametrize("data", [Interactions([0, 1], [0, 1]), Interactions([0, 0, 1], [0, 1, 2])], ids=["two pairs", "three"])
def test_the_smallest_data_fit(loss, data):
    model = small(loss, n_factors=1, alpha=1e-3).fit(data)
    for u, i in zip(data.user_ids, data.item_ids, strict=True):
        others = np.setdiff1d(np.arange(data.num_items), data.item_ids[data.user_ids == u])
        assert model.predict(u, i) > model.predict([u], others).max()
    items, scores = model.recommend(k=5)  # more than there are
    assert_array_equal(np.isneginf(scores), items < 0)
    assert_array_equal((items >= 0).sum(1), data.num_items - np.bincount(data.user_ids))


@every_kind_of_loss
def test_weights_out_of_all_proportion(loss):
    y = np.where(np.arange(len(DATA)) % 3 == 0, 1e-40, 1.0)  # which float32 cannot hold
    model, without = (small(loss).fit(DATA, w) for w in (y, np.where(y == 1, y, 0)))
    assert np.isfinite(scores_of(model)).all()
    assert model.seen_.nnz == len(DATA) > without.seen_.nnz
    large = small(loss).fit(DATA, np.where(y == 1, 1e25, 1.0))
    assert np.isfinite(scores_of(large)).all()
    known = np.flatnonzero(y == 1)
    pairs = DATA.user_ids[known], DATA.item_ids[known]
    assert large.predict(*pairs).mean() > np.delete(large.predict(np.arange(N_USERS)[:, None], np.arange(N_ITEMS)), 0).mean()


# bad input


@every_loss
@pytest.mark.parametrize("weight", [1e35, 1e300, 1e-40])
def test_weights_that_float32_could_not_hold_are_refused(loss, weight):
    with pytest.raises(
        ValueError,
        match=r"The largest (weight of a pair|of y).* must lie between 1e-3. and 1e\+?3.( in absolute value)?\. Got 1e.*Rescale",
    ):
        small(loss).fit(DATA, np.full(len(DATA), weight))


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"loss": "warp"}, "'loss' parameter .* must be a str among .*'adaptive_hinge'.* Got 'warp'"),
        ({"loss": None}, "'loss' parameter"),
        ({"alpha": -0.1}, r"'alpha' parameter .* range \[0.0, 1e\+30\].* Got -0.1"),
        ({"alpha": np.nan}, "'alpha' parameter"),
        ({"confidence": 0}, r"'confidence' parameter .* range \[1e-30, 1e\+30\].* Got 0"),
        ({"confidence": -1.0}, "'confidence' parameter"),
        ({"confidence": 1e35}, r"'confidence' parameter .* range \[1e-30, 1e\+30\].* Got 1e\+35"),
        ({"n_factors": 0}, "'n_factors' parameter"),
        ({"n_negatives": 0}, "'n_negatives' parameter"),
        ({"negatives": "hard"}, "'negatives' parameter .* must be a str among"),
        ({"max_iter": 0}, "'max_iter' parameter"),
        ({"tol": -1e-4}, "'tol' parameter"),
        ({"exact": "yes"}, "'exact' parameter"),
        ({"biased": "yes"}, "'biased' parameter"),
        ({"dtype": "float16"}, "'dtype' parameter"),
        ({"handle_unknown": "ignore"}, "'handle_unknown' parameter"),
        (
            {"exact": True},
            r'exact=True is for loss="cosine", "logistic" and "softmax"\. Got loss="ials", which always counts all pairs\.',
        ),
        ({"exact": True, "loss": "bpr"}, r'exact=True is for .* Got loss="bpr", which is drawn\.'),
        ({"exact": True, "loss": "adaptive_hinge"}, r'Got loss="adaptive_hinge", which is drawn\.'),
        ({"user": "who"}, "user='who' is not a column of X"),
        ({"item": 7}, "item=7 is not a column position of X, which has 2 columns"),
    ],
)
def test_bad_parameters_are_named(params, words):
    with pytest.raises(ValueError, match=words):
        small(**params).fit(as_form(TRAIN, "table")[0])


N = len(TRAIN)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (
            {"y": np.where(np.arange(N) == 3, -1.0, 1.0)},
            r"y must be >= 0, because it holds the weights of the positives\. Got y\[3\] = -1\.0",
        ),
        ({"y": np.where(np.arange(N) == 3, np.nan, 1.0)}, r"y\[3\] is nan\. Drop the row"),
        ({"y": np.where(np.arange(N) == 3, np.inf, 1.0)}, r"y\[3\] is inf"),
        ({"y": np.ones(N - 1)}, "y must have one value for each observation"),
        ({"y": np.full(N, "much")}, "y must be numbers"),
        ({"y": np.zeros(N)}, "y is zero for every observation. At least one"),
        ({"sample_weight": np.zeros(N)}, "sample_weight are all zero. At least one"),
        ({"sample_weight": np.where(np.arange(N) == 3, -1.0, 1.0)}, r"sample_weight must be >= 0\. Got sample_weight\[3\] = -1\.0"),
        ({"sample_weight": np.where(np.arange(N) == 3, np.nan, 1.0)}, r"sample_weight\[3\] is nan"),
        ({"sample_weight": np.ones(N + 1)}, "sample_weight must have one weight for each observation"),
        ({"y": np.arange(N) % 2, "sample_weight": np.arange(N) % 2 == 0}, "y times the weight is zero for every observation"),
    ],
)
@pytest.mark.parametrize("form", ["table", "interactions"])
def test_bad_weights_are_named(weights, words, form):
    with pytest.raises(ValueError, match=words):
        small().fit(as_form(TRAIN, form)[0], **weights)


def test_bad_weights_of_users_are_named():
    with pytest.raises(ValueError, match=r"sample_weight must have one weight for each user \(row of X\)"):
        small().fit(MATRIX, sample_weight=np.ones(N))
    with pytest.raises(ValueError, match="sample_weight must be >= 0"):
        small().fit(MATRIX, sample_weight=-np.ones(N_LIKED_USERS))
    alone = sp.csr_array(sp.vstack([one_row([0, 2]), one_row([])]))
    with pytest.raises(ValueError, match="sample_weight is zero for every user who has ratings"):
        small().fit(alone, sample_weight=[0.0, 1.0])


@pytest.mark.parametrize(
    ("X", "words"),
    [
        (np.ones((5, 1)), "X has 1 column .* but a table of interactions needs a user and an item column.*pass a scipy sparse"),
        (np.empty((0, 2)), "minimum of 1"),
        (sp.csr_array((3, 4)), r"X has no observations \(shape=\(3, 4\)\)"),
        (Interactions([], [], num_users=3, num_items=4), "X has no observations"),
        (sp.csr_array([[1.0, np.nan]]), r"X\.data\[1\] is nan"),
        (sp.csr_array([[1j, 0]]), "complex data not supported"),
        (np.array([[0, 1], [np.nan, 1]]), "user ids must not be missing or infinite"),
        (np.zeros((2, 2, 2)), "dim 3"),
    ],
    ids=["one column", "empty", "empty sparse", "empty container", "nan", "complex", "nan id", "cube"],
)
def test_bad_x_is_named(X, words):
    with pytest.raises(ValueError, match=words):
        small().fit(X)


def test_every_method_asks_for_a_fit_first():
    model = small()
    for call in (
        lambda: model.predict([[0, 0]]),
        lambda: model.recommend(),
        lambda: model.fold_in(MATRIX),
        lambda: model.transform(MATRIX),
        lambda: model.score(TEST),
        lambda: model.score(MATRIX),
        lambda: model.embeddings(),
        lambda: model.to_module(),
    ):
        with pytest.raises(NotFittedError):
            call()


@every_loss
@with_or_without_biases
def test_another_default_device_does_not_reach_a_fit_on_the_cpu(loss, biased):
    # A tensor made without a device lands on the default one: on "meta" it shows here, on "cuda" only where there is one.
    def run():
        model = small(loss, biased=biased, device="cpu", max_iter=2).fit(TRAIN)
        pairs = (torch.from_numpy(ids.astype(np.int64)) for ids in (TEST.user_ids, TEST.item_ids))
        exported = model.to_module()(*pairs).detach()
        return [model.predict(TEST), model.fold_in(MATRIX), model.score(TEST), model.score(MATRIX), *model.recommend(k=2), exported]

    expected = run()
    with torch.device("meta"):
        results = run()
    for ours, theirs in zip(results, expected, strict=True):
        assert_array_equal(ours, theirs)


def test_cuda_where_there_is_none_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r'device="cuda" was asked for.*Use device="cpu"'):
        small(device="cuda").fit(TRAIN)


def test_labels_of_the_unknown_and_of_none():
    """A fit on labels: unknown users get the mean user's items, and where a list ends stands None."""
    model = small().fit(as_form(TRAIN, "labels")[0])
    items, scores = model.recommend(["u0003", "nobody"], k=N_LIKED_ITEMS + 1)
    assert items[0, -1] is None
    assert np.isneginf(scores[0, -1])
    liked = np.argsort(-model.predict("nobody"), kind="stable")
    assert_array_equal(items[1, :5], ids_in("labels", "item", liked[:5]))
