"""What every estimator does, whatever it learns: a test class inherits EstimatorContract and says how to make one."""

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from data import FORMS, as_form, ids_in, planted
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone

from sk_torchmf import Interactions
from sk_torchmf.model import factors
from sk_torchmf.nn import top_k as ranking
from sk_torchmf.solvers import als

DATA, _ = planted(3, mean=3.0, n_users=30, n_items=20, n_ratings=300)
N_USERS, N_ITEMS = DATA.num_users, DATA.num_items
SEEN = DATA.tocsr().toarray() != 0
SPREAD = DATA.ratings.std()
every_form = pytest.mark.parametrize("form", FORMS)
by_observation = pytest.mark.parametrize("form", ["table", "interactions"])

# Some ids of DATA's sizes that DATA never shows: two more users and two more items, the last ones.
WIDER = Interactions(DATA.user_ids, DATA.item_ids, DATA.ratings, num_users=N_USERS + 2, num_items=N_ITEMS + 2)


def new_users():
    """Ratings of users that no fit saw: one of them has rated nothing and one a single item."""
    matrix = planted(3, mean=3.0, n_users=6, n_items=N_ITEMS, n_ratings=60, random_state=1)[0].tocsr()
    return sp.csr_array(sp.vstack([matrix, sp.csr_matrix((1, N_ITEMS)), sp.csr_matrix(([4.0], ([0], [2])), shape=(1, N_ITEMS))]))


def best(scores, allowed, k):
    """The plain version of recommend: the k best allowed items of each row, best first."""
    order = [sorted(np.flatnonzero(row), key=lambda item, s=s: -s[item])[:k] for s, row in zip(scores, allowed, strict=True)]
    return np.array([items + [-1] * (k - len(items)) for items in order])


class EstimatorContract:
    """Subclass it, define ``make(**params)``, and pytest runs all of it."""

    def make(self, **params):
        """An unfitted estimator: small, quick, ``random_state=0``, and with the parameters given."""
        raise NotImplementedError

    def arguments(self, data, form):
        """The arguments ``(X, y)`` of ``fit`` that say in a form what the container does."""
        return as_form(data, form)

    def as_read(self, data, form):
        """A container with the observations in the order in which a fit of a form has them, where that matters."""
        return data

    def fitted(self, form="interactions", data=DATA, **params):
        return self.make(**params).fit(*self.arguments(data, form))

    def grid(self, estimator, form="interactions", n_users=N_USERS, n_items=N_ITEMS):
        """All predictions (n_users, n_items) by predict(users, items)."""
        return estimator.predict(ids_in(form, "user", np.arange(n_users))[:, None], ids_in(form, "item", np.arange(n_items)))

    def average(self, predictions, axis=None):
        """What an average id is predicted: the mean, where a prediction is the score itself."""
        return predictions.mean(axis)

    def check_both_unknown(self, scores, known):
        """Scores of unknown users and unknown items are the average of all known pairs."""
        assert_allclose(scores, self.average(known), rtol=1e-9)

    def check_same(self, wider, narrow):
        """Ids that were never observed change nothing for the others."""
        assert_allclose(wider, narrow, rtol=1e-7)

    @every_form
    def test_every_form_gives_the_same_model(self, form):
        estimator = self.fitted(form, dtype="float64")
        expected = self.grid(self.fitted(data=self.as_read(DATA, form), dtype="float64"))
        assert_allclose(self.grid(estimator, form), expected, rtol=1e-7)  # a sparse matrix has its rows' entries in another order
        assert estimator.form_ == ("table" if form == "labels" else form)
        assert (estimator.n_users_, estimator.n_items_) == (N_USERS, N_ITEMS)
        assert estimator.n_features_in_ == (N_ITEMS if form == "sparse" else 2)
        assert_array_equal(estimator.users_, ids_in(form, "user", np.arange(N_USERS)))
        assert_array_equal(estimator.items_, ids_in(form, "item", np.arange(N_ITEMS)))

    def test_fit_returns_the_estimator_and_changes_no_parameter(self):
        estimator = self.make()
        before = estimator.get_params()
        assert estimator.fit(DATA) is estimator
        assert estimator.get_params() == before

    def test_an_explicit_zero_is_an_observation(self):
        ratings = np.where(np.arange(len(DATA)) % 7 == 0, 0.0, DATA.ratings)
        data = Interactions(DATA.user_ids, DATA.item_ids, ratings, num_users=N_USERS, num_items=N_ITEMS)
        matrix = as_form(data, "sparse")[0]
        assert matrix.nnz == len(data)
        estimator = self.make(dtype="float64").fit(matrix)
        expected = self.fitted(data=self.as_read(data, "sparse"), dtype="float64")
        assert_allclose(self.grid(estimator), self.grid(expected), rtol=1e-7)
        assert estimator.seen_.nnz == len(data)

    def test_an_object_with_spotlights_attributes_will_do(self):
        class Container:
            pass

        other = Container()
        vars(other).update(vars(DATA))
        estimator = self.make().fit(other)
        assert_array_equal(estimator.predict(other), self.fitted().predict(DATA))

    def test_a_sparse_matrix_takes_no_y(self):
        matrix = as_form(DATA, "sparse")[0]
        with pytest.raises(ValueError, match="y must be None when X is a sparse"):
            self.make().fit(matrix, np.ones(N_USERS))

    def test_weights_of_the_wrong_length_are_refused(self):
        with pytest.raises(ValueError, match=r"Interactions\(\.\.\., weights="):
            self.make().fit(as_form(DATA, "sparse")[0], sample_weight=np.ones(len(DATA)))
        with pytest.raises(ValueError, match="sample_weight must have one weight for each observation"):
            self.make().fit(DATA, sample_weight=np.ones(N_USERS))

    # predict

    @every_form
    def test_predict_of_rows_is_predict_of_their_pairs(self, form):
        estimator = self.fitted(form)
        X = as_form(DATA[:50], "labels" if form == "labels" else "table")[0]
        expected = estimator.predict(X[:, 0], X[:, 1])
        assert expected.shape == (50,)
        assert np.ptp(expected) > 0.1 * SPREAD  # not one number for all
        assert_array_equal(estimator.predict(X), expected)
        if form != "labels":
            assert_array_equal(estimator.predict(DATA[:50]), expected)

    @every_form
    def test_predict_broadcasts_users_against_items(self, form):
        estimator = self.fitted(form)
        users, items = ids_in(form, "user", [4, 0, 9]), ids_in(form, "item", [3, 3, 8, 1])
        grid = estimator.predict(users[:, None], items)
        assert grid.shape == (3, 4)
        for row, user in enumerate(users):
            for column, item in enumerate(items):
                assert estimator.predict(user, item) == pytest.approx(grid[row, column], rel=1e-12)
        assert_allclose(estimator.predict(users[1], items), grid[1], rtol=1e-12)
        assert_allclose(estimator.predict(users, items[2]), grid[:, 2], rtol=1e-12)
        assert estimator.predict(users[0], items[0]).shape == ()
        assert estimator.predict(users[:0], items[:0]).shape == (0,)

    @every_form
    def test_predict_of_a_scalar_user_is_a_fresh_row_of_all_items(self, form):
        estimator = self.fitted(form)
        user = ids_in(form, "user", [4])[0]
        row = estimator.predict(user)
        assert_allclose(row, estimator.predict(user, estimator.items_), rtol=1e-12)
        row *= -1  # as Spotlight's metrics do: needs an array that is writable, and nobody else's
        assert_allclose(estimator.predict(user), -row, rtol=1e-15)

    @pytest.mark.parametrize("users", [[0, 1, 2], np.arange(3), (0,)], ids=["list", "array", "tuple"])
    def test_predict_of_users_alone_names_what_was_meant(self, users):
        with pytest.raises(ValueError, match=r"predict\(users, items\).*recommend.*Reshape your data"):
            self.fitted().predict(users)

    def test_predict_of_positions_after_a_fit_on_labels_is_refused(self):
        estimator = self.fitted("labels")
        with pytest.raises(ValueError, match="labels"):
            estimator.predict(DATA)
        with pytest.raises((ValueError, TypeError), match="user"):  # Spotlight's evaluation functions pass positions
            estimator.predict(0)

    # recommend

    @every_form
    def test_recommend_is_the_sort_of_predict_without_the_seen(self, form):
        estimator, k = self.fitted(form), 4
        scores = self.grid(estimator, form)
        items, values = estimator.recommend(k=k)
        expected = best(scores, ~SEEN, k)
        assert items.shape == values.shape == (N_USERS, k)
        assert_array_equal(items, ids_in(form, "item", expected))
        assert_allclose(values, np.take_along_axis(scores, expected, 1), rtol=1e-9)
        users = [7, 0, 7]
        assert_array_equal(estimator.recommend(ids_in(form, "user", users), k=k)[0], items[users])
        assert_array_equal(
            estimator.recommend(k=k, exclude_seen=False)[0], ids_in(form, "item", best(scores, np.ones_like(SEEN), k))
        )

    @every_form
    def test_recommend_for_a_scalar_user_is_one_dimensional(self, form):
        estimator = self.fitted(form)
        user = ids_in(form, "user", [7])
        items, scores = estimator.recommend(user[0], k=4)
        assert items.shape == scores.shape == (4,)
        assert_array_equal(items, estimator.recommend(user, k=4)[0][0])

    def test_recommend_takes_a_container_for_its_users(self):
        part = DATA[np.isin(DATA.user_ids, [12, 4, 9])]
        theirs = SimpleNamespace(user_ids=part.user_ids[::-1], item_ids=part.item_ids, num_users=N_USERS, num_items=N_ITEMS)
        for users in (part, theirs):
            assert_array_equal(self.fitted().recommend(users, k=4)[0], self.fitted().recommend([4, 9, 12], k=4)[0])
        with pytest.raises(ValueError, match="Interactions hold positions"):
            self.fitted("labels").recommend(part)

    @every_form
    def test_recommend_fills_up_where_too_few_items_remain(self, form):
        estimator = self.fitted(form)
        items, scores = estimator.recommend(k=N_ITEMS + 3)
        remain = N_ITEMS - SEEN.sum(1)
        filler = np.arange(N_ITEMS + 3) >= remain[:, None]
        assert_array_equal(items == (None if form == "labels" else -1), filler)
        assert_array_equal(np.isneginf(scores), filler)

    def test_recommend_chooses_among_the_candidates_only(self):
        estimator = self.fitted()
        candidates = [11, 3, 4, 19]
        allowed = np.isin(np.arange(N_ITEMS), candidates) & ~SEEN
        assert_array_equal(estimator.recommend(k=3, items=candidates)[0], best(self.grid(estimator), allowed, 3))
        with pytest.raises(ValueError, match=r"items\[1\] was not seen in fit"):
            estimator.recommend(items=[3, N_ITEMS])

    @every_form
    def test_recommend_gives_an_unknown_user_the_mean_users_items(self, form):
        unknown = ids_in(form, "user", [9999])
        for how in ("mean", "nan"):
            items, scores = self.fitted(form, handle_unknown=how).recommend(unknown, k=4)
            liked = self.fitted(form).predict(unknown[0])
            assert_array_equal(items[0], ids_in(form, "item", np.argsort(-liked)[:4]))
            assert_allclose(scores[0], np.sort(liked)[::-1][:4], rtol=1e-9)
        with pytest.raises(ValueError, match="user id of row 0"):
            self.fitted(form, handle_unknown="error").recommend(unknown)

    def test_recommend_breaks_ties_by_the_order_of_items(self):
        data = Interactions(DATA.user_ids, 2 * DATA.item_ids, DATA.ratings, num_users=N_USERS, num_items=2 * N_ITEMS)
        alike = np.arange(1, 2 * N_ITEMS, 2)  # never observed: every one of them has the mean row
        items, scores = self.fitted(data=data).recommend(k=5, items=alike[::-1])
        assert_array_equal(scores, scores[:, :1].repeat(5, axis=1))
        assert_array_equal(items, np.tile(alike[:5], (N_USERS, 1)))

    @pytest.mark.parametrize("k", [0, -1, 1.5, True])
    def test_recommend_refuses_a_k_that_counts_nothing(self, k):
        with pytest.raises(ValueError, match="k must be an int >= 1"):
            self.fitted().recommend(k=k)

    # modules

    def test_module_predicts_what_the_estimator_does(self):
        estimator = self.fitted()
        module = estimator.to_module()
        pairs = torch.from_numpy(DATA.user_ids).long(), torch.from_numpy(DATA.item_ids).long()
        with torch.no_grad():
            scores = module(*pairs)
        assert not module.training
        assert_allclose(scores.numpy(), estimator.predict(DATA), rtol=1e-5, atol=1e-6)  # the module computes in float32

    def test_module_survives_torch_export(self):
        estimator = self.fitted()
        pairs = torch.from_numpy(DATA.user_ids).long(), torch.from_numpy(DATA.item_ids).long()
        dynamic = {"user": {0: torch.export.Dim("n")}, "item": {0: torch.export.Dim("n")}}
        program = torch.export.export(estimator.to_module(), tuple(ids[:10] for ids in pairs), dynamic_shapes=dynamic)
        assert_allclose(program.module()(*pairs).detach().numpy(), estimator.predict(DATA), rtol=1e-5, atol=1e-6)

    # unknown ids

    @every_form
    def test_an_unknown_id_is_the_average_of_the_known(self, form):
        estimator = self.fitted(form, dtype="float64")
        scores = self.grid(estimator, form)
        stranger, novelty = ids_in(form, "user", [9999])[0], ids_in(form, "item", [9999])[0]
        assert_allclose(estimator.predict(stranger, estimator.items_), self.average(scores, 0), rtol=1e-9)
        assert_allclose(estimator.predict(estimator.users_, novelty), self.average(scores, 1), rtol=1e-9)
        self.check_both_unknown(estimator.predict(stranger, novelty), scores)

    @pytest.mark.parametrize("form", ["interactions", "sparse"])
    def test_a_never_observed_id_is_the_average_of_the_observed(self, form):
        estimator = self.fitted(form, WIDER, dtype="float64")
        scores = self.grid(estimator, form, N_USERS + 2, N_ITEMS + 2)
        observed = scores[:N_USERS, :N_ITEMS]
        self.check_same(observed, self.grid(self.fitted(dtype="float64")))
        assert_allclose(scores[N_USERS:, :N_ITEMS], np.tile(self.average(observed, 0), (2, 1)), rtol=1e-9)
        assert_allclose(scores[:N_USERS, N_ITEMS:], np.tile(self.average(observed, 1)[:, None], (1, 2)), rtol=1e-9)
        self.check_both_unknown(scores[N_USERS:, N_ITEMS:], observed)

    @every_form
    def test_unknown_ids_are_nan_where_asked_for(self, form):
        estimator = self.fitted(form, handle_unknown="nan")
        users, items = ids_in(form, "user", [2, 9999]), ids_in(form, "item", [3, 9999])
        assert_array_equal(np.isnan(estimator.predict(users[:, None], items)), [[False, True], [True, True]])
        assert np.isnan(estimator.predict(users[1])).all()
        assert not np.isnan(estimator.predict(users[0])).any()

    @every_form
    def test_unknown_ids_are_an_error_where_asked_for(self, form):
        estimator = self.fitted(form, handle_unknown="error")
        users, items = ids_in(form, "user", [2, 9999]), ids_in(form, "item", [3, 9999])
        estimator.predict(users[0], items[0])
        with pytest.raises(ValueError, match="user id of row 1 was not seen in fit"):
            estimator.predict(users, items[0])
        with pytest.raises(ValueError, match="item id of row 1 was not seen in fit"):
            estimator.predict(users[0], items)

    @pytest.mark.parametrize("form", ["interactions", "sparse"])
    def test_never_observed_ids_are_unknown_ids(self, form):
        pairs = [2, N_USERS + 1, 2, N_USERS], [3, 3, N_ITEMS, N_ITEMS]
        scores = self.fitted(form, WIDER, handle_unknown="nan").predict(*pairs)
        assert_array_equal(np.isnan(scores), [False, True, True, True])
        with pytest.raises(ValueError, match="row 1 was not seen in fit"):
            self.fitted(form, WIDER, handle_unknown="error").predict(*pairs)

    # from scratch, at random, with weights

    def test_refit_forgets_the_old_data(self):
        other = planted(2, n_users=9, n_items=8, n_ratings=50, random_state=5)[0]
        estimator, fresh = self.fitted("labels"), self.fitted(data=other)
        assert_array_equal(estimator.fit(other).predict(other), fresh.predict(other))
        assert vars(estimator).keys() == vars(fresh).keys()

    def test_fit_forgets_the_names_of_another_table(self):
        pandas = pytest.importorskip("pandas")
        X, y = self.arguments(DATA, "table")
        estimator = self.make().fit(pandas.DataFrame(X, columns=["u", "i"]), y)
        assert list(estimator.feature_names_in_) == ["u", "i"]
        assert not hasattr(estimator.fit(DATA), "feature_names_in_")

    def test_the_same_random_state_gives_the_same_bits(self):
        first, second = (self.grid(self.fitted(random_state=0)) for _ in range(2))
        assert_array_equal(first, second)
        instances = [self.grid(self.fitted(random_state=np.random.RandomState(0))) for _ in range(2)]
        assert_array_equal(*instances)

    def test_no_random_state_gives_other_factors(self):
        first, second, third = (self.grid(self.fitted(random_state=seed)) for seed in (None, None, 1))
        assert np.abs(first - second).max() > 1e-3
        assert np.abs(first - third).max() > 1e-3

    @pytest.mark.parametrize("random_state", [0, None])
    def test_fit_leaves_the_global_random_states_alone(self, random_state):
        before = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
        clone(self.make(random_state=random_state)).fit(DATA).recommend()
        assert torch.equal(torch.get_rng_state(), before[0])
        after = np.random.get_state()  # noqa: NPY002
        assert after[0] == before[1][0]
        assert_array_equal(after[1], before[1][1])
        assert after[2:] == before[1][2:]

    @by_observation
    def test_a_weight_of_two_is_the_row_twice(self, form):
        weight = np.where(np.arange(len(DATA)) % 3 == 0, 2.0, 1.0)
        X, y = self.arguments(DATA, form)
        weighted = self.make(dtype="float64").fit(X, y, sample_weight=weight)
        twice = self.fitted(form, DATA[np.repeat(np.arange(len(DATA)), weight.astype(int))], dtype="float64")
        assert_allclose(self.grid(weighted), self.grid(twice), rtol=1e-7)  # the steps of an optimizer magnify rounding
        assert np.abs(self.grid(weighted) - self.grid(self.fitted(dtype="float64"))).max() > 1e-3

    @by_observation
    def test_a_weight_of_zero_is_absence(self, form):
        keep = (np.arange(len(DATA)) % 3 > 0) & (DATA.user_ids != 4) & (DATA.item_ids != 5)  # a whole user and a whole item as well
        X, y = self.arguments(DATA, form)
        weighted = self.make(dtype="float64").fit(X, y, sample_weight=keep.astype(float))
        absent = self.fitted(form, DATA[keep], dtype="float64")
        assert_allclose(self.grid(weighted), self.grid(absent), rtol=1e-9)

    def test_a_users_weight_is_that_of_all_its_ratings(self):
        weight = np.where(np.arange(N_USERS) % 3 == 0, 2.0, 1.0)
        by_user = self.make(dtype="float64").fit(as_form(DATA, "sparse")[0], sample_weight=weight)
        by_rating = self.make(dtype="float64").fit(DATA, sample_weight=weight[DATA.user_ids])
        assert_allclose(self.grid(by_user), self.grid(by_rating), rtol=1e-7)

    def test_sample_weight_replaces_the_containers_weights(self):
        weight = np.where(np.arange(len(DATA)) % 3 == 0, 2.0, 1.0)
        own = Interactions(DATA.user_ids, DATA.item_ids, DATA.ratings, weights=weight, num_users=N_USERS, num_items=N_ITEMS)
        given = self.make(dtype="float64").fit(DATA, sample_weight=weight)
        assert_array_equal(self.grid(self.fitted(data=own, dtype="float64")), self.grid(given))
        replaced = self.make(dtype="float64").fit(own, sample_weight=np.ones(len(DATA)))
        assert_allclose(self.grid(replaced), self.grid(self.fitted(dtype="float64")), rtol=1e-9)


class FactorContract(EstimatorContract):
    """What estimators do besides whose score is an inner product of rows: new users, features for a later step, neighbours."""

    blockwise = (factors, ranking, als)  # modules that work in blocks of their BLOCK

    def response(self, scores):
        """The prediction of a raw score."""
        return scores

    def test_fitted_state_is_numpy(self):
        state = vars(self.fitted())
        assert not [name for name, value in state.items() if isinstance(value, torch.Tensor | torch.nn.Module)]

    @every_form
    def test_predict_of_new_users_is_the_inverse_transform_of_their_fold_in(self, form):
        estimator, X = self.fitted(form, dtype="float64"), new_users()
        rows = estimator.fold_in(X)
        predicted = estimator.predict(X)
        assert rows.shape == (8, estimator.user_factors_.shape[1] + hasattr(estimator, "user_biases_"))
        assert predicted.shape == (8, N_ITEMS)
        assert_array_equal(predicted, estimator.inverse_transform(rows))
        mean_user = estimator.predict(ids_in(form, "user", [9999])[0])
        assert_allclose(predicted[6], mean_user, rtol=1e-5)  # who rated nothing is the mean user
        assert np.abs(predicted[7] - mean_user).max() > 1e-3

    def test_fold_in_takes_each_row_on_its_own(self):
        estimator, X = self.fitted(dtype="float64"), new_users()
        order = np.array([5, 0, 7])
        assert_allclose(estimator.fold_in(X[order]), estimator.fold_in(X)[order], rtol=1e-9)

    def test_new_users_must_have_one_column_an_item(self):
        with pytest.raises(ValueError, match=r"has 21 features, but .* is expecting 20 features"):
            self.fitted().predict(sp.csr_array((2, N_ITEMS + 1)))

    def test_dense_predictions_that_do_not_fit_are_refused(self, monkeypatch):
        estimator, X = self.fitted(), new_users()
        monkeypatch.setattr("sk_torchmf._validation.os.sysconf", lambda name: 1)
        with pytest.raises(MemoryError, match="use recommend"):
            estimator.predict(X)

    def test_results_do_not_depend_on_the_block_size(self, monkeypatch):
        def results(estimator):
            X = new_users()
            return [estimator.predict(DATA), estimator.predict(X), *estimator.recommend(k=4), *estimator.recommend(X, k=4)]

        estimator = self.fitted(dtype="float64")
        whole = results(estimator)
        for module in self.blockwise:
            monkeypatch.setattr(module, "BLOCK", 50)
        for part, expected in zip(results(estimator), whole, strict=True):
            assert_allclose(part, expected, rtol=1e-9)

    @every_form
    def test_transform_follows_the_form_fit_saw(self, form):
        estimator = self.fitted(form)
        X = as_form(DATA, form)[0]
        features = estimator.transform(X)
        names = list(estimator.get_feature_names_out())
        k = estimator.user_factors_.shape[1]
        if form == "sparse":
            assert_array_equal(features, estimator.fold_in(X))
            assert names == [f"factor{j}" for j in range(k)] + ["bias"] * hasattr(estimator, "user_biases_")
        else:
            assert_array_equal(features[:, :k], estimator.user_factors_.astype(float)[DATA.user_ids])
            assert_array_equal(features[:, k:], estimator.item_factors_.astype(float)[DATA.item_ids])
            assert names == [f"{side}_factor{j}" for side in ("user", "item") for j in range(k)]
        assert features.shape[1] == len(names)

    def test_transform_of_another_form_is_refused(self):
        with pytest.raises(ValueError, match="in the form that fit saw"):
            self.fitted("sparse").transform(DATA)
        with pytest.raises(ValueError, match="fold_in"):
            self.fitted("interactions").transform(new_users())

    @every_form
    def test_recommend_for_new_users_ranks_their_predictions(self, form):
        estimator, X = self.fitted(form), new_users()
        scores, seen = estimator.predict(X), X.toarray() != 0
        assert_array_equal(estimator.recommend(X, k=4)[0], ids_in(form, "item", best(scores, ~seen, 4)))
        free = estimator.recommend(X, k=4, exclude_seen=False)[0]
        assert_array_equal(free, ids_in(form, "item", best(scores, np.ones_like(seen), 4)))

    @every_form
    @pytest.mark.parametrize("role", ["user", "item"])
    def test_similar_ids_are_ranked_by_cosine(self, form, role):
        estimator = self.fitted(form)
        rows = getattr(estimator, f"{role}_factors_").astype(float)
        find = getattr(estimator, f"similar_{role}s")
        n, asked = len(rows), [5, 0, 5]
        cosine = (rows @ rows.T) / np.outer(np.linalg.norm(rows, axis=1), np.linalg.norm(rows, axis=1))
        ids, similarity = find(ids_in(form, role, asked), k=4)
        expected = best(cosine[asked], ~np.eye(n, dtype=bool)[asked], 4)
        assert_array_equal(ids, ids_in(form, role, expected))
        assert_allclose(similarity, np.take_along_axis(cosine[asked], expected, 1), rtol=1e-9)
        one, _ = find(ids_in(form, role, [5])[0], k=4)
        assert_array_equal(one, ids[0])
        filled, low = find(ids_in(form, role, [5]), k=n)  # n - 1 others
        assert filled[0, -1] == (None if form == "labels" else -1)
        assert low[0, -1] == -np.inf
        with pytest.raises(ValueError, match="was not seen in fit"):
            find(ids_in(form, role, [9999]))

    def test_embeddings_multiply_to_the_prediction(self):
        estimator = self.fitted(dtype="float64")
        users, items = estimator.embeddings()
        assert (len(users), len(items)) == (N_USERS, N_ITEMS)
        assert_allclose(self.response(users @ items.T), self.grid(estimator), rtol=1e-12)
