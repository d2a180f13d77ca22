"""The two explicit estimators: the shared contract, and what regressors of ratings do beyond it."""

import numpy as np
import pytest
import scipy.sparse as sp
from contract import DATA, N_ITEMS, N_USERS, FactorContract, new_users
from data import as_form, checkerboard, planted
from every_loss import RATING_LOSSES, every_rating_loss
from numpy.testing import assert_allclose, assert_array_equal

from sk_torchmf import BiasedMatrixFactorization, DivergenceError, Interactions, MatrixFactorization

SOLVERS = ("adam", "adagrad", "sgd", "lbfgs")


def with_ratings(data, ratings):
    return Interactions(data.user_ids, data.item_ids, ratings, num_users=data.num_users, num_items=data.num_items)


def rated_for(loss):
    """DATA with ratings that the loss can use: counts, zeros and ones, or as they are."""
    return with_ratings(DATA, RATING_LOSSES[loss].rated(DATA.ratings))


def split(data):
    held_out = np.arange(len(data)) % 5 == 0  # planted() gives them in random order
    return data[~held_out], data[held_out]


def rows_of(estimator, X):
    """Each new user's problem in the solver's own units: features (c, width), offsets (c,), ratings (c,)."""
    scale = estimator.rating_scale_
    features, offset = estimator.item_factors_ / scale**0.5, np.zeros(estimator.n_items_)
    if hasattr(estimator, "item_biases_"):
        features = np.column_stack([features, np.ones(estimator.n_items_)])
        offset = (estimator.item_biases_ + estimator.global_mean_) / scale
    for start, stop in zip(X.indptr[:-1], X.indptr[1:], strict=True):
        items = X.indices[start:stop]
        yield features[items], offset[items], X.data[start:stop] / scale


def prior_of(estimator, count):
    """Precision (width, width) and precision times mean (width,) of a row whose ratings weigh ``count``."""
    precision, shift = estimator.user_prior_
    powers = np.array([1.0, count**0.75, count])
    return np.einsum("j,jab->ab", powers, precision), powers @ shift


def ridge_solution(Y, target, weight, precision, shift):
    return np.linalg.solve(precision + Y.T @ (weight[:, None] * Y), shift + Y.T @ (weight * target))


class ExplicitContract(FactorContract):
    kind = None

    def make(self, **params):
        return self.kind(**{"n_factors": 3, "random_state": 0, **params})

    # score and fold-in

    @pytest.mark.parametrize("form", ["table", "labels", "interactions"])
    def test_score_is_the_r2_of_predict(self, form):
        train, test = split(DATA)
        estimator = self.fitted(form, train)
        X, y = as_form(test, form)
        error = test.ratings - estimator.predict(X)
        deviation = test.ratings - test.ratings.mean()
        assert estimator.score(X, y) == pytest.approx(1 - error @ error / (deviation @ deviation), rel=1e-12)
        w = np.arange(len(test)) % 3 + 0.5
        deviation = test.ratings - np.average(test.ratings, weights=w)
        expected = 1 - (w @ error**2) / (w @ deviation**2)
        assert estimator.score(X, y, sample_weight=w) == pytest.approx(expected, rel=1e-12)

    def test_score_of_a_table_needs_y(self):
        with pytest.raises(ValueError, match="score needs the ratings of X"):
            self.fitted("table").score(as_form(DATA, "table")[0])

    @pytest.mark.parametrize("weighted", [False, True])
    def test_score_of_new_users_leaves_each_rating_out(self, weighted):
        estimator, X = self.fitted(dtype="float64"), new_users()
        user_weight = 0.5 + np.arange(X.shape[0]) % 3 if weighted else np.ones(X.shape[0])
        predicted, rating, weight = [], [], []
        for (Y, offset, r), w in zip(rows_of(estimator, X), user_weight, strict=True):
            prior = prior_of(estimator, w * len(r))  # the full count, though one rating is taken out
            for out in range(len(r)):
                others = np.arange(len(r)) != out
                x = ridge_solution(Y[others], (r - offset)[others], np.full(others.sum(), w), *prior)
                predicted.append(offset[out] + Y[out] @ x)
            rating.extend(r)
            weight.extend(np.full(len(r), w))
        predicted, rating, weight = (np.array(values) for values in (predicted, rating, weight))
        deviation = rating - np.average(rating, weights=weight)
        expected = 1 - weight @ (rating - predicted) ** 2 / (weight @ deviation**2)
        assert estimator.score(X, sample_weight=user_weight if weighted else None) == pytest.approx(expected, rel=1e-9)

    def test_fold_in_is_the_ridge_solution(self):
        estimator, X = self.fitted(dtype="float64"), new_users()
        expected = [
            ridge_solution(Y, r - offset, np.ones(len(r)), *prior_of(estimator, len(r))) for Y, offset, r in rows_of(estimator, X)
        ]
        units = np.full(len(expected[0]), estimator.rating_scale_**0.5)
        units[estimator.item_factors_.shape[1] :] = estimator.rating_scale_  # a bias
        assert_allclose(estimator.fold_in(X), np.array(expected) * units, rtol=1e-7)

    @pytest.mark.parametrize("loss", ["huber", "poisson", "logistic"])
    def test_fold_in_minimises_the_loss_of_a_row(self, loss):
        data = rated_for(loss)
        estimator, X = self.fitted(data=data, dtype="float64", loss=loss), as_form(data, "sparse")[0]
        units = np.full(estimator.fold_in(X).shape[1], estimator.rating_scale_**0.5)
        units[estimator.item_factors_.shape[1] :] = estimator.rating_scale_
        for x, (Y, offset, r) in zip(estimator.fold_in(X) / units, rows_of(estimator, X), strict=True):
            precision, shift = prior_of(estimator, len(r))
            gradient = [
                Y.T @ RATING_LOSSES[loss].slope(offset + Y @ at, r) + 2 * (precision @ at - shift)
                for at in (x, np.linalg.solve(precision, shift))
            ]
            assert np.linalg.norm(gradient[0]) < 0.02 * np.linalg.norm(gradient[1])  # a few Newton steps, not all of them

    def test_a_trained_user_is_its_own_fold_in(self):
        data, _ = planted(2, n_users=50, n_items=40, n_ratings=1200)
        estimator = self.make(n_factors=2, solver="lbfgs", alpha=1e-3, max_iter=300, tol=0, dtype="float64").fit(data)
        predicted = estimator.predict(as_form(data, "sparse")[0])
        assert_allclose(predicted, self.grid(estimator, n_users=50, n_items=40), atol=0.01)  # the ridges have different means

    # what comes out

    def test_an_exact_low_rank_matrix_is_completed(self):
        data, truth = planted(2, n_users=50, n_items=40, n_ratings=1200, noise=0.0)
        estimator = self.make(n_factors=2, solver="lbfgs", alpha=1e-4, max_iter=300, tol=0, dtype="float64").fit(data)
        assert_allclose(self.grid(estimator, n_users=50, n_items=40), truth, atol=0.01)  # the ridge is small, not zero

    def test_the_default_settings_come_near_the_noise(self):
        data, _ = planted(3, mean=3.0, n_users=200, n_items=100, n_ratings=8000, noise=0.5)
        train, test = split(data)
        estimator = self.make(n_factors=8).fit(train)
        assert np.sqrt(np.mean((test.ratings - estimator.predict(test)) ** 2)) < 1.1 * 0.5
        assert estimator.noise_std_ == pytest.approx(0.5, rel=0.05)

    @pytest.mark.parametrize(("loss", "n_factors"), [("squared_error", 1), ("squared_error", 2), ("huber", 2)])
    def test_a_checkerboard_is_continued(self, loss, n_factors):
        observed, held_out = checkerboard()  # of rank one; huber starts at the median, a constant which takes a factor of its own
        predicted = self.make(n_factors=n_factors, loss=loss).fit(observed).predict(held_out)
        assert_array_equal(np.sign(predicted), held_out.ratings)

    @pytest.mark.parametrize("low", [0.0, -1.0])
    def test_logistic_gives_probabilities(self, low):
        observed, held_out = checkerboard(low=low)
        estimator = self.make(n_factors=2, loss="logistic").fit(observed)
        probability = self.grid(estimator, n_users=12, n_items=10)
        assert ((probability > 0) & (probability < 1)).all()
        assert_array_equal(estimator.predict(held_out) > 0.5, held_out.ratings == 1)

    def test_logistic_takes_either_coding(self):
        coded = [self.make(loss="logistic").fit(checkerboard(low=low)[0]) for low in (0.0, -1.0)]
        assert_array_equal(coded[0].user_factors_, coded[1].user_factors_)

    def test_poisson_gives_rates(self):
        data, truth = planted(2, n_users=60, n_items=40, n_ratings=1500)
        rate = np.exp(1 + 0.7 * truth)
        counts = np.random.default_rng(0).poisson(rate[data.user_ids, data.item_ids])
        estimator = self.make(loss="poisson").fit(with_ratings(data, counts))  # two factors and the constant
        predicted = self.grid(estimator, n_users=60, n_items=40)
        assert (predicted > 0).all()
        assert np.mean(np.log(predicted / rate) ** 2) < 0.3 * np.mean(np.log(counts.mean() / rate) ** 2)

    @pytest.mark.parametrize(("loss", "rating"), [("poisson", -1.0), ("logistic", 2.0)])
    def test_ratings_that_a_loss_cannot_mean_are_refused(self, loss, rating):
        ratings = np.ones(len(DATA))
        ratings[3] = rating
        with pytest.raises(ValueError, match=f'loss="{loss}" needs ratings'):
            self.make(loss=loss).fit(with_ratings(DATA, ratings))

    def test_huber_heeds_outliers_less(self):
        data, truth = planted(2, n_users=60, n_items=40, n_ratings=1500)
        spoilt = data.ratings.copy()
        spoilt[::25] += 30.0  # four in a hundred
        error = {}
        for loss in ("squared_error", "huber"):
            estimator = self.make(n_factors=2, loss=loss).fit(with_ratings(data, spoilt))
            error[loss] = np.mean((self.grid(estimator, n_users=60, n_items=40) - truth) ** 2)
        assert error["huber"] < 0.5 * error["squared_error"]

    @pytest.mark.parametrize("loss", ["squared_error", "huber"])
    @pytest.mark.parametrize("factor", [20.0, 1e-3])
    def test_predictions_scale_with_the_ratings(self, loss, factor):
        once = self.fitted(loss=loss, dtype="float64")
        scaled = self.fitted(data=with_ratings(DATA, factor * DATA.ratings), loss=loss, dtype="float64")
        assert_allclose(self.grid(scaled), factor * self.grid(once), rtol=1e-7)
        X = new_users()
        assert_allclose(scaled.predict(factor * X), factor * once.predict(X), rtol=1e-7)

    def test_ratings_with_a_negative_mean_fit_as_well(self):
        train, test = split(planted(3, mean=3.0, n_users=50, n_items=40, n_ratings=1200)[0])
        usual = self.fitted(data=train).score(test)
        negative = self.fitted(data=with_ratings(train, -train.ratings)).score(test, -test.ratings)
        assert usual > 0.9
        assert negative == pytest.approx(usual, abs=0.02)  # another draw of the same start

    @pytest.mark.parametrize("value", [3.0, 0.0, -2.0])
    def test_equal_ratings_predict_themselves(self, value):
        estimator = self.fitted(data=with_ratings(DATA, np.full(len(DATA), value)))
        assert_allclose(self.grid(estimator), value, atol=0.05 * max(1.0, abs(value)))

    def test_one_rating_is_enough(self):
        estimator = self.make().fit(Interactions([0], [0], [4.0]))
        assert estimator.predict(0, 0) == pytest.approx(4.0, rel=0.05)

    def test_clip_limits_to_the_training_range(self):
        ratings = np.clip(DATA.ratings, 2.8, 3.2)
        free, limited = (self.fitted(data=with_ratings(DATA, ratings), clip=clip) for clip in (False, True))
        raw = self.grid(free)
        assert raw.min() < 2.8
        assert raw.max() > 3.2
        assert_array_equal(self.grid(limited), np.clip(raw, 2.8, 3.2))
        assert_array_equal(limited.predict(DATA, clip=False), free.predict(DATA))
        assert_array_equal(free.predict(DATA, clip=True), limited.predict(DATA))
        assert_array_equal(limited.predict(new_users()), np.clip(free.predict(new_users()), 2.8, 3.2))

    def test_the_predicted_spread_is_that_of_held_out_ratings(self):
        data, _ = planted(3, mean=3.0, n_users=200, n_items=100, n_ratings=8000, noise=0.5)
        train, test = split(data)
        estimator = self.make().fit(train)
        predicted, spread = estimator.predict(test, return_std=True)
        assert_array_equal(predicted, estimator.predict(test))
        assert np.std((test.ratings - predicted) / spread) == pytest.approx(1, abs=0.1)
        assert spread.min() > 0.45  # noise included
        stranger, known = (estimator.predict(user, return_std=True)[1] for user in (9999, 0))
        assert stranger.mean() > 1.2 * known.mean()
        with pytest.raises(ValueError, match='return_std=True needs solver="variational"'):
            self.fitted(solver="adam").predict(DATA, return_std=True)

    # how it is trained

    @every_rating_loss
    def test_every_solver_lowers_every_objective(self, loss):
        data = rated_for(loss)
        histories = {solver: self.fitted(data=data, solver=solver, loss=loss, max_iter=60).history_["loss"] for solver in SOLVERS}
        starts, ends = np.array([(history[0], history[-1]) for history in histories.values()]).T
        assert_allclose(starts, starts[0], rtol=1e-6)  # float32; the same factors to start from
        assert (starts - ends > 0.25 * (starts - ends).max()).all(), ends  # plain gradient steps are the slow ones

    def test_solvers_find_the_same_minimum(self):
        data, _ = planted(2, n_users=50, n_items=40, n_ratings=1200, noise=0.3)
        lowest = {
            solver: self.make(n_factors=2, solver=solver, max_iter=300, tol=1e-7).fit(data).history_["loss"][-1]
            for solver in (*SOLVERS, "als")
        }
        assert lowest == pytest.approx(dict.fromkeys(lowest, min(lowest.values())), rel=0.01)

    @every_rating_loss
    def test_als_reaches_the_minimum_of_every_loss(self, loss):
        options = {"data": rated_for(loss), "loss": loss, "alpha": 1.0, "tol": 0}  # so much that there is but one minimum
        found, expected = (self.fitted(solver=solver, max_iter=100, **options).history_["loss"][-1] for solver in ("als", "lbfgs"))
        assert found == pytest.approx(expected, rel=0.01)

    def test_blocks_of_users_reach_the_objective_of_the_whole(self):
        data, _ = planted(2, n_users=50, n_items=40, n_ratings=1200, noise=0.3)
        options = {"n_factors": 2, "solver": "adam", "max_iter": 200, "tol": 0}
        whole, blocks = (self.make(batch_size=size, **options).fit(data) for size in (None, 100))
        assert blocks.history_["loss"][-1] == pytest.approx(whole.history_["loss"][-1], rel=0.05)  # summed along the way
        errors = [np.mean((data.ratings - estimator.predict(data)) ** 2) for estimator in (whole, blocks)]
        assert errors[1] == pytest.approx(errors[0], rel=0.1)

    def test_a_batch_of_everything_is_the_full_batch(self):
        whole, blocks = (self.fitted(solver="adam", batch_size=size) for size in (None, len(DATA)))
        assert_array_equal(whole.user_factors_, blocks.user_factors_)

    @pytest.mark.parametrize("solver", ["lbfgs", "als", "variational"])
    def test_solvers_of_the_whole_take_no_batches(self, solver):
        with pytest.raises(ValueError, match=f'batch_size must be None with solver="{solver}"'):
            self.make(solver=solver, batch_size=10).fit(DATA)

    def test_divergence_names_the_epoch_and_the_learning_rate(self):
        with pytest.raises(DivergenceError, match=r"epoch \d+ \(learning_rate=1e\+06\)\. Lower learning_rate or raise alpha"):
            self.make(solver="sgd", learning_rate=1e6).fit(DATA)

    def test_training_stops_once_tol_is_met(self):
        estimator = self.make(solver="adam", max_iter=500, tol=1e-2).fit(DATA)
        assert estimator.n_iter_ == len(estimator.history_["loss"]) < 100

    @pytest.mark.parametrize("solver", ["variational", "adam"])
    def test_verbose_reports_each_pass(self, solver, capsys):
        self.make(solver=solver, max_iter=3, verbose=1).fit(DATA)
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 3
        assert all(line.startswith(f"[{self.kind.__name__}]") and "loss" in line for line in lines)
        self.make(solver=solver, max_iter=3).fit(DATA)
        assert capsys.readouterr().out == ""

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_factors_have_the_dtype_asked_for(self, dtype):
        estimator = self.fitted(dtype=dtype)
        assert {estimator.user_factors_.dtype, estimator.item_factors_.dtype} == {np.dtype(dtype)}
        assert estimator.predict(DATA).dtype == np.float64


class TestMatrixFactorization(ExplicitContract):
    kind = MatrixFactorization

    def test_the_objective_is_the_documented_one(self):
        weight = 0.5 + np.arange(len(DATA)) % 3
        options = {"solver": "adam", "alpha": 0.3, "tol": 0, "dtype": "float64"}
        estimator, longer = (self.make(max_iter=n, **options).fit(DATA, sample_weight=weight) for n in (20, 21))

        mean = np.average(DATA.ratings, weights=weight)
        scale = np.sqrt(np.average((DATA.ratings - mean) ** 2, weights=weight))
        expected = weight @ (DATA.ratings - estimator.predict(DATA)) ** 2 / scale**2
        for ids, rows in ((DATA.user_ids, estimator.user_factors_), (DATA.item_ids, estimator.item_factors_)):
            start = np.zeros(3)
            start[0] = np.sqrt(mean / scale)
            count = np.bincount(ids, weights=weight)
            ridge = 0.3 * (10 + count**0.75 * count.mean() ** 0.25)
            expected += ridge @ ((rows / np.sqrt(scale) - start) ** 2).sum(1)
        assert longer.history_["loss"][20] == pytest.approx(expected, rel=1e-9)  # each entry is the value before its epoch


class TestBiasedMatrixFactorization(ExplicitContract):
    kind = BiasedMatrixFactorization

    def test_predictions_shift_with_the_ratings(self):
        once = self.fitted(dtype="float64")
        shifted = self.fitted(data=with_ratings(DATA, DATA.ratings + 100), dtype="float64")
        assert_allclose(self.grid(shifted), self.grid(once) + 100, rtol=1e-7)

    def test_biases_alone_explain_an_additive_matrix(self):
        data, _ = planted(1, n_users=50, n_items=40, n_ratings=1200)
        effects = np.sin(data.user_ids) + np.cos(3 * data.item_ids)
        train, test = split(with_ratings(data, 3 + effects))
        estimator = self.make(n_factors=1, alpha=0.01, solver="lbfgs", max_iter=200).fit(train)
        assert estimator.score(test) > 0.98

    def test_an_unknown_user_keeps_the_items_bias(self):
        estimator = self.fitted(dtype="float64")
        assert_allclose(estimator.predict([9999], range(N_ITEMS)), estimator.global_mean_ + estimator.item_biases_, rtol=1e-12)
        assert_allclose(estimator.predict(range(N_USERS), [9999]), estimator.global_mean_ + estimator.user_biases_, rtol=1e-12)
        assert estimator.predict(9999, 9999) == pytest.approx(estimator.global_mean_, rel=1e-12)


def test_a_user_of_a_sparse_matrix_may_be_a_csc_row():
    X = as_form(DATA, "sparse")[0]
    estimator = MatrixFactorization(3, random_state=0).fit(X)
    for other in (X.tocsc(), X.tocoo(), sp.csr_matrix(X), X.todok()):
        assert_array_equal(MatrixFactorization(3, random_state=0).fit(other).user_factors_, estimator.user_factors_)
        assert_array_equal(estimator.fold_in(other), estimator.fold_in(X))
