"""More data after a fit: what is kept, how rows grow, and where training starts."""

import pickle

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from data import as_form, planted
from every_estimator import MODELS, models_where, of_ratings, of_ratings_or_positives
from every_loss import RATING_LOSSES, every_rating_loss
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone

from sk_torchmf import ImplicitMatrixFactorization, Interactions
from sk_torchmf.estimators._fitting import observed_attributes
from sk_torchmf.nn import Pairs

pytestmark = pytest.mark.usefixtures("one_thread")
DATA, TRUTH = planted(3, mean=3.0, n_users=60, n_items=40, n_ratings=1500)
SPREAD = DATA.ratings.std()
CHUNKS = np.array_split(np.random.default_rng(1).permutation(len(DATA)), 10)


def grid(estimator, users=None, items=None):
    users, items = (own if given is None else given for own, given in ((estimator.users_, users), (estimator.items_, items)))
    return estimator.predict(np.asarray(users)[:, None], np.asarray(items))


def in_chunks(estimator, chunks=CHUNKS):
    for chunk in chunks:
        estimator.partial_fit(DATA[chunk])
    return estimator


# what is kept


def with_repeats():
    """Ratings some of whose pairs come again, with another rating, and weights."""
    again = DATA[:100]
    data = Interactions(*(np.concatenate([getattr(one, name) for one in (DATA, again)]) for name in ("user_ids", "item_ids")))
    return data, np.concatenate([DATA.ratings, again.ratings + 0.5]), np.random.default_rng(0).uniform(0.5, 2, len(data))


def rows_of(estimator):
    """The observations that an estimator keeps, as sorted rows (user, item, rating, weight)."""
    observed = estimator.observed_
    user = np.repeat(np.arange(observed.shape[0]), np.diff(observed.indptr))
    weight = np.ones(observed.nnz) if estimator.pair_weights_ is None else estimator.pair_weights_
    return np.array(sorted(zip(user, observed.indices, observed.data, weight, strict=True)))


@of_ratings
@pytest.mark.parametrize("weighted", [False, True])
def test_all_ratings_so_far_are_kept_repeated_ones_too(make, weighted):
    data, rating, weight = with_repeats()
    expected = np.array(sorted(zip(data.user_ids, data.item_ids, rating, weight if weighted else np.ones(len(data)), strict=True)))
    model = make(max_iter=1, dtype="float64").fit(data[:400], rating[:400], weight[:400] if weighted else None)
    assert_allclose(rows_of(model)[:, :2], np.array(sorted(zip(data.user_ids[:400], data.item_ids[:400], strict=True))))
    for part in (slice(400, 900), slice(900, None)):
        model.partial_fit(data[part], rating[part], weight[part] if weighted else None)
    assert_allclose(rows_of(model), expected, rtol=1e-12)
    assert model.seen_.nnz == len({*zip(data.user_ids, data.item_ids, strict=True)}) < model.observed_.nnz
    assert_array_equal(model.seen_.toarray(), model.observed_.toarray() != 0)


@of_ratings
def test_what_is_kept_takes_four_bytes_a_rating_beside_what_was_seen(make):
    model = make(max_iter=1, dtype="float32").fit(DATA)
    assert model.observed_.dtype == np.float32
    assert model.observed_.indices is model.seen_.indices
    assert model.observed_.indptr is model.seen_.indptr
    assert model.pair_weights_ is None


def test_what_is_kept_are_the_plans_own_arrays():
    pairs = Pairs(np.array([1, 0, 1]), np.array([2, 1, 0]), n_users=2, n_items=3)
    kept = observed_attributes(pairs, torch.tensor([3.0, 4.0, 5.0])[pairs.order], None)
    assert_array_equal(kept["observed_"].toarray(), [[0, 4, 0], [5, 0, 3]])
    for name in ("seen_", "observed_"):
        assert np.shares_memory(kept[name].indices, pairs.columns.numpy())
        assert np.shares_memory(kept[name].indptr, pairs.pointers.numpy())


def test_pairs_seen_twice_leave_the_plan_as_it_is():
    """``seen_`` has each pair once, and came by it in arrays of its own."""
    pairs = Pairs(np.array([1, 0, 1, 1]), np.array([2, 1, 0, 2]), n_users=2, n_items=3)
    kept = observed_attributes(pairs, torch.tensor([3.0, 4.0, 5.0, 1.0])[pairs.order], None)
    assert_array_equal(kept["seen_"].toarray(), [[False, True, False], [True, False, True]])
    assert_array_equal(kept["observed_"].data, [4.0, 5.0, 3.0, 1.0])
    assert_array_equal(pairs.columns, [1, 0, 2, 2])


def test_ratings_are_kept_as_the_loss_codes_them_so_that_signs_can_follow_zeros():
    signs = Interactions(DATA.user_ids, DATA.item_ids, np.where(DATA.ratings > 3, 1.0, -1.0))
    model = MODELS["biased"](loss="logistic").fit(signs[:700])
    assert set(model.observed_.data) == {0.0, 1.0}
    model.partial_fit(signs[700:])
    assert_array_equal(model.rating_range_, [0.0, 1.0])
    assert model.user_counts_.sum() == len(DATA)


@of_ratings_or_positives
def test_without_the_ratings_partial_fit_is_refused_and_all_else_works(make, tmp_path):
    model = make(max_iter=2).fit(DATA)
    model.save(tmp_path / "whole").save(tmp_path / "model", ratings=False)
    whole, lean = (type(model).load(tmp_path / name, **make.entry.code) for name in ("whole", "model"))
    assert_array_equal(grid(lean), grid(model))
    assert_array_equal(lean.recommend(k=3)[0], model.recommend(k=3)[0])
    with pytest.raises(ValueError, match="has not kept them: it was saved with ratings=False"):
        lean.partial_fit(DATA[:5])
    assert_array_equal(grid(whole.partial_fit(DATA[:50])), grid(model.partial_fit(DATA[:50])))
    assert_array_equal(grid(lean.fit(DATA)), grid(make(max_iter=2).fit(DATA)))


# partial_fit


@of_ratings_or_positives
def test_the_first_call_is_a_fit(make):
    assert_array_equal(grid(make().partial_fit(DATA)), grid(make().fit(DATA)))


@of_ratings
def test_ten_chunks_come_close_to_one_fit(make):
    at_once, streamed = make().fit(DATA), in_chunks(make())
    errors = [np.sqrt(np.mean((grid(model) - TRUTH) ** 2)) for model in (at_once, streamed)]
    assert errors[1] < max(1.2 * errors[0], 0.1)  # the truth's spread is 1
    assert streamed.user_counts_.sum() == len(DATA)


def test_ten_chunks_of_positives_come_close_to_one_fit():
    def make():
        return ImplicitMatrixFactorization(4, loss="ials", random_state=0)

    liked = DATA[DATA.ratings > 3]
    at_once, streamed = make().fit(liked), make()
    for chunk in np.array_split(np.random.default_rng(1).permutation(len(liked)), 10):
        streamed.partial_fit(liked[chunk])
    assert_allclose(streamed.user_counts_, at_once.user_counts_)
    assert (streamed.seen_ != at_once.seen_).nnz == 0
    assert streamed.confidence_ == pytest.approx(at_once.confidence_)
    assert streamed.history_["loss"][-1] == pytest.approx(at_once.history_["loss"][-1], rel=0.02)  # of the same objective


@of_ratings_or_positives
def test_what_was_seen_adds_up(make):
    model, at_once = in_chunks(make(max_iter=1), CHUNKS[:3]), make(max_iter=1).fit(DATA[np.concatenate(CHUNKS[:3])])
    assert (model.seen_ != at_once.seen_).nnz == 0
    assert_allclose(model.user_counts_, at_once.user_counts_)
    assert_allclose(model.item_counts_, at_once.item_counts_)
    for name in ("rating_range_", "rating_scale_"):
        assert hasattr(model, name) == hasattr(at_once, name)
        if hasattr(model, name):
            assert_allclose(getattr(model, name), getattr(at_once, name), rtol=1e-7)  # ratings are kept as float32


@of_ratings_or_positives
def test_new_labels_are_inserted_and_rows_follow_their_ids(make):
    X, y = as_form(DATA, "labels")
    y = np.ones(len(y)) if make.entry.positives else y
    late_user, late_item = X[:, 0] < "u0020", X[:, 1] < "i0010"  # what sorts first comes last
    late = late_user | late_item
    model = make().fit(X[~late], y[~late])
    users, items = model.users_, model.items_
    before = grid(model)
    model.partial_fit(X[late], y[late])
    assert_array_equal(model.users_, np.unique(X[:, 0]))
    assert_array_equal(model.items_, np.unique(X[:, 1]))
    after = grid(model, users, items)
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.5  # rows of other ids are not correlated
    assert_array_equal(model.seen_.toarray(), sp.csr_array(as_form(DATA, "sparse")[0]).toarray() != 0)


@models_where(lambda make: make in (MODELS["plain"], MODELS["biased"], MODELS["biased, als"]))
def test_a_few_new_users_leave_the_others_where_they_were(make):
    model = make().fit(DATA)
    before = grid(model)
    model.partial_fit(Interactions([60, 61], [0, 1], [3.0, 4.0]))
    assert model.n_users_ == 62
    assert np.sqrt(np.mean((grid(model)[:60] - before) ** 2)) < 0.1 * SPREAD


@of_ratings_or_positives
def test_sizes_of_containers_and_matrices_grow(make):
    small = DATA[(DATA.user_ids < 50) & (DATA.item_ids < 30)]
    small.num_users, small.num_items = 50, 30
    model = make(max_iter=2).fit(small)
    assert_array_equal(grid(model.partial_fit(DATA)).shape, TRUTH.shape)
    matrix = make(max_iter=2).fit(small.tocsr())
    matrix.partial_fit(DATA.tocsr()[:20])  # fewer rows, more columns
    assert (matrix.n_users_, matrix.n_items_, matrix.n_features_in_) == (50, 40, 40)
    matrix.partial_fit(small)  # positions, as the rows of a matrix are
    assert (matrix.n_users_, matrix.n_items_) == (50, 40)
    with pytest.raises(ValueError, match=r"X has 30 features, but .* is expecting at least 40 features"):
        matrix.partial_fit(small.tocsr())


@of_ratings_or_positives
def test_one_observation_at_a_time(make):
    model = make(max_iter=3).partial_fit(DATA[:30])
    for at in (30, 31, 31):
        model.partial_fit(DATA[[at]])
    assert model.user_counts_.sum() == 33
    assert np.isfinite(grid(model)).all()


@of_ratings_or_positives
def test_a_pickle_between_the_chunks_changes_nothing(make):
    through, straight = make(max_iter=3), make(max_iter=3)
    for chunk in CHUNKS[:3]:
        straight.partial_fit(DATA[chunk])
        through = pickle.loads(pickle.dumps(through.partial_fit(DATA[chunk])))
    assert_array_equal(grid(through), grid(straight))


@of_ratings_or_positives
def test_history_and_iterations_add_up(make):
    model = make(max_iter=2, tol=0).partial_fit(DATA[CHUNKS[0]]).partial_fit(DATA[CHUNKS[1]])
    assert model.n_iter_ == 4
    assert {len(values) for values in model.history_.values()} == {4}


@of_ratings_or_positives
def test_a_fit_after_chunks_forgets_them(make):
    assert_array_equal(grid(in_chunks(make(), CHUNKS[:2]).fit(DATA)), grid(make().fit(DATA)))
    assert clone(in_chunks(make(), CHUNKS[:1])).get_params() == make().get_params()


@of_ratings_or_positives
def test_what_is_refused_leaves_the_estimator_as_it_was(make):
    X, y = as_form(DATA, "labels")
    model = make(max_iter=2).fit(X, np.abs(y))
    before = grid(model)
    X, y = X[:5].copy(), np.abs(y[:5])
    X[0, 0] = "newcomer"
    refused = [
        ((X[:, :1], y), "1 feature"),
        ((DATA,), "partial_fit needs ids of the kind that fit saw"),
        ((X, y * np.nan), "nan|NaN"),
        ((X[:0], y[:0]), "0 sample"),
    ]
    for arguments, message in refused:
        with pytest.raises(ValueError, match=message):
            model.partial_fit(*arguments)
    for params in ({"early_stopping": True}, {"checkpoint": "file"}):
        with pytest.raises(ValueError, match="partial_fit needs early_stopping=False and checkpoint=None"):
            model.set_params(**params).partial_fit(X, y)
        model.set_params(early_stopping=False, checkpoint=None)
    change = {name: 7 for name in make.params if name.endswith("n_factors")}
    with pytest.raises(ValueError, match=r"n_factors must be 4, as in the earlier fit|had .*Leave the module's own sizes"):
        model.set_params(**change).partial_fit(X, y)
    assert "newcomer" not in model.users_
    assert_array_equal(grid(model), before)


def test_nothing_to_learn_from_is_refused():
    with pytest.raises(ValueError, match="no observations"):
        MODELS["biased"]().fit(DATA).partial_fit(DATA[:0])


def test_a_weight_of_two_counts_twice_in_later_chunks():
    weighted, repeated = (MODELS["biased"](dtype="float64", max_iter=3).fit(DATA[:300]) for _ in range(2))
    more = DATA[300:600]
    weighted.partial_fit(more, sample_weight=np.full(300, 2.0)).partial_fit(DATA[600:700])
    repeated.partial_fit(more[np.tile(np.arange(300), 2)]).partial_fit(DATA[600:700])
    assert_allclose(weighted.user_counts_, repeated.user_counts_)
    assert_allclose(grid(weighted), grid(repeated), atol=1e-6)


@every_rating_loss
def test_every_loss_goes_on(loss):
    data = Interactions(DATA.user_ids, DATA.item_ids, RATING_LOSSES[loss].rated(DATA.ratings))
    at_once, model = (MODELS["biased"](loss=loss) for _ in range(2))
    at_once.fit(data)
    for chunk in np.array_split(np.random.default_rng(1).permutation(len(data)), 3):
        model.partial_fit(data[chunk])
    assert np.corrcoef(grid(model).ravel(), grid(at_once).ravel())[0, 1] > 0.9
    assert model.rating_scale_ == pytest.approx(at_once.rating_scale_, rel=0.2)


# implicit


def test_a_positive_that_comes_again_adds_its_weight():
    model = ImplicitMatrixFactorization(n_factors=2, random_state=0).fit(Interactions([0, 0, 1], [0, 1, 2]), [1.0, 2.0, 1.0])
    model.partial_fit(Interactions([0, 2], [1, 2]), [3.0, 1.0])
    assert_array_equal(model.pair_weights_, [1.0, 5.0, 1.0, 1.0])
    assert_array_equal(model.user_counts_, [6.0, 1.0, 1.0])


@pytest.mark.parametrize("loss", ["bpr", "softmax", "logistic"])
def test_ranking_losses_go_on(loss):
    liked = DATA[DATA.ratings > 3]
    make = ImplicitMatrixFactorization(n_factors=4, loss=loss, biased=True, max_iter=120, random_state=0)  # near its minimum
    at_once, model = (clone(make) for _ in range(2))
    at_once.fit(liked)
    for chunk in np.array_split(np.random.default_rng(1).permutation(len(liked)), 3):
        model.partial_fit(liked[chunk])
    hidden = at_once.seen_.toarray()
    scores = [np.where(hidden, np.nan, grid(one)).ravel() for one in (at_once, model)]
    kept = np.isfinite(scores[0])
    assert np.corrcoef(scores[0][kept], scores[1][kept])[0, 1] > 0.8


# warm_start


@of_ratings_or_positives
def test_a_warm_start_goes_on_where_a_cold_one_begins_anew(make):
    params = {"max_iter": 60} if make in (MODELS["torch"], MODELS["plain, adam"]) else {"max_iter": 30}
    found = make(**params).fit(DATA)
    best = grid(found)
    warm = found.set_params(warm_start=True, max_iter=1).fit(DATA)
    cold = make(max_iter=1).fit(DATA)
    distances = [np.sqrt(np.mean((grid(one) - best) ** 2)) for one in (warm, cold)]
    assert distances[0] < 0.5 * distances[1]  # Adam's first step is a long one


def test_a_warm_start_finds_the_rows_by_their_labels():
    X, y = as_form(DATA, "labels")
    model = MODELS["biased, als"](max_iter=30, tol=0).fit(X, y)
    best = grid(model)
    model.set_params(warm_start=True, max_iter=1)
    swapped = np.array([("z" + label if label < "u0030" else label) for label in X[:, 0]])  # half of the users have new names
    model.fit(np.column_stack([swapped, X[:, 1]]), y)
    assert_array_equal(model.users_, np.unique(swapped))
    rows = np.searchsorted(model.users_, [f"u{u:04}" for u in range(30, 60)])
    assert np.sqrt(np.mean((grid(model)[rows] - best[30:]) ** 2)) < 0.15 * SPREAD
    assert model.user_counts_.sum() == len(DATA)  # the new call's alone


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("more", ["warm_start", "partial_fit"])
def test_rows_go_on_where_biases_are_given_up_or_taken_on(biased, more):
    # Switching ``biased`` off ended in a KeyError: the earlier model had a tensor that the new one has not.
    model = ImplicitMatrixFactorization(n_factors=4, loss="ials", biased=not biased, max_iter=30, tol=0, random_state=0).fit(DATA)
    best = grid(model)
    model.set_params(biased=biased, max_iter=1, warm_start=True)
    went_on = grid(model.fit(DATA) if more == "warm_start" else model.partial_fit(DATA[:1]))
    assert hasattr(model, "item_biases_") == biased
    cold = grid(ImplicitMatrixFactorization(n_factors=4, loss="ials", biased=biased, max_iter=1, random_state=0).fit(DATA))
    assert np.linalg.norm(went_on - best) < 0.5 * np.linalg.norm(cold - best)
