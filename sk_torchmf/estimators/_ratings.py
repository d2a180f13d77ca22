"""What a model of ratings does beyond any factorization: rating units, limits, uncertainty, leave-one-out, R2."""

from dataclasses import replace

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.base import RegressorMixin
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from sk_torchmf._forks import one_thread_if_forked
from sk_torchmf._validation import check_flag, check_generator, check_memory, check_ratings
from sk_torchmf.estimators._docs import documented
from sk_torchmf.estimators._fitting import observed_attributes, reading_of
from sk_torchmf.estimators._prediction import cut_points_of
from sk_torchmf.estimators._recommendation import Recommender
from sk_torchmf.inputs import context
from sk_torchmf.inputs.queries import is_structured, read_ids, read_new_users, read_target
from sk_torchmf.inputs.side_features import of_new_users
from sk_torchmf.metrics._scorer import r2
from sk_torchmf.nn import POINTWISE, Pairs
from sk_torchmf.solvers.fold_in import fold_in_ratings
from sk_torchmf.solvers.ordinal import ordinal_loss

LEAST = 1e-6  # of the mean variance of the users' rows: their covariance can be inverted


def _has_levels(estimator):
    """Whether an estimator knows the probability of each rating."""
    if estimator.loss != "ordinal":
        raise AttributeError(f'predict_proba needs loss="ordinal", for which ratings are levels. Got loss="{estimator.loss}".')
    return True


class RatingPredictor(RegressorMixin, Recommender):
    """Base of the explicit estimators: what follows their ``fit``."""

    # parameters
    loss: str
    clip: bool
    solver: str
    cold_average: str | None = None
    effects: list | None = None  # of an estimator that has no such parameters
    time: int | str | bool | None = None
    # what fit leaves
    observed_: sp.csr_array | None
    pair_weights_: np.ndarray | None
    rating_scale_: float
    rating_range_: np.ndarray
    noise_std_: float | None
    # the fold-in's prior and the posterior of both sides, in standardised units
    user_prior_: tuple[np.ndarray, np.ndarray] | None  # None in a model that was taken over without its training data
    user_posterior_: tuple | None
    item_posterior_: tuple | None
    effects_: list  # where there are effects
    levels_: np.ndarray  # where ratings are levels

    __metadata_request__predict_proba = {"user_ids": UNUSED, "item_ids": UNUSED}

    @documented()
    def predict(self, user_ids, item_ids=None, *, return_std=False, clip=None, user_features=None, item_features=None):
        """Predict ratings.

        Parameters
        ----------
        @user_ids
        @item_ids
        return_std : bool, default=False
            Whether to return the standard deviation of each rating about its prediction as well; it includes the noise. This needs
            ``solver="variational"``, and is not available for a sparse matrix.
        @clip
        @user_features
        @item_features

        Returns
        -------
        @ndarray of float64
            With ``return_std=True`` a tuple of two such arrays: predictions and standard deviations.

        Raises
        ------
        @ValueError
        @MemoryError
        """
        model, own = self._knowing(user_ids if item_ids is None else None, user_features, item_features)
        new_users = item_ids is None and sp.issparse(user_ids)
        if check_flag(return_std, "return_std"):
            self._check_uncertainty("return_std=True", new_users)
        scores, effect_variance = model._scores_in_context(user_ids, item_ids, own)
        user = None
        if return_std or (vars(model).get("user_cut_points_") is not None and not new_users):
            user, item = model._pairs(user_ids, item_ids)
        predicted = model._respond(scores, clip, user=user)
        if not return_std:
            return predicted
        variance = model._variances(user, item) + effect_variance
        if self.loss == "ordinal":
            return predicted, np.sqrt(model._cut_points().mean_square(scores, user, variance, predicted))
        return predicted, np.sqrt(self._link().variance(predicted, variance) + (self.noise_std_ or 0.0) ** 2)

    def _scores_in_context(self, user_ids, item_ids, user_features=None):
        """The raw scores that are asked for, with the effects of their context; and by how much that is uncertain."""
        scores, effect_variance = self._score(user_ids, item_ids, user_features), sum(prior for *_, prior in self._effect_biases)
        if columns := self._context(user_ids if item_ids is None else None):
            user, item = read_ids(self, user_ids)
            added, effect_variance = self._of_context(user, item, columns)
            scores += added
        return scores, effect_variance

    def _parts_of_context(self, X):
        columns = self._context(X)
        if not columns:
            return {}
        user, item = read_ids(self, X)
        return {"context": self._of_context(user, item, columns)[0]}

    def _context(self, X):
        """What X has of the context that effects are of: columns as ``context.read`` returns them, none where X is no pairs."""
        effects = vars(self).get("effects_", [])
        if not effects or sp.issparse(X) or not (is_structured(X) or np.ndim(X) == 2):
            return {}
        return context.find(X, context.columns_of(effects, self.time))

    def _of_context(self, user, item, columns):
        """What the context of pairs of row numbers adds to their scores, and the variance of that: (n,) each."""
        return self._factors.of_context(context.codes(self.effects_, user, item, columns))

    @available_if(_has_levels)
    @documented()
    def predict_proba(self, user_ids, item_ids=None, *, user_features=None, item_features=None):
        """Predict the probability of each level of a rating, with ``loss="ordinal"``.

        Parameters
        ----------
        user_ids : table, Interactions, array-like or scalar
            As in ``predict``, except that a sparse matrix is refused.
        item_ids : array-like or scalar, optional
            Item ids, broadcast against ``user_ids``.
        @user_features
        @item_features

        Returns
        -------
        ndarray of float64
            The probabilities of ``levels_``. The shape is that of ``predict`` with one more dimension, of length n_levels, over
            which they add up to one. They are averages over the posterior distribution of the score, whereas ``predict`` returns
            the expected rating at the expected score.

        Raises
        ------
        ValueError
            As in ``predict``, and for a sparse matrix.
        MemoryError
            If the probabilities would not fit into memory.

        Examples
        --------
        >>> from sk_torchmf import BiasedMatrixFactorization
        >>> X = [["ann", "tea"], ["ann", "milk"], ["bob", "tea"], ["bob", "milk"], ["eve", "tea"]]
        >>> model = BiasedMatrixFactorization(n_factors=1, loss="ordinal", random_state=0).fit(X, [5, 2, 5, 1, 5])
        >>> model.levels_
        array([1., 2., 5.])
        >>> model.predict_proba(["eve", "bob"], ["milk", "tea"]).sum(axis=1)
        array([1., 1.])
        """
        model, _ = self._knowing(user_ids if item_ids is None else None, user_features, item_features)
        self._check_uncertainty("predict_proba", item_ids is None and sp.issparse(user_ids))
        user, item = model._pairs(user_ids, item_ids)
        n_levels = len(model.levels_)
        check_memory(8 * user.size * n_levels, f"Probabilities of {n_levels} levels for {user.size} pairs", "Pass fewer pairs.")
        scores, effect_variance = model._scores_in_context(user_ids, item_ids)
        known = (part.ravel() for part in (scores, user, model._variances(user, item) + effect_variance))
        return model._cut_points().probabilities(*known).reshape(*user.shape, n_levels)

    def _variances(self, user, item):
        """Posterior variances of the scores of pairs of row numbers."""
        return self._factors.score_variances(user.ravel(), item.ravel()).reshape(user.shape)

    def _check_uncertainty(self, what, new_users):
        """Refuse to tell how uncertain a prediction is where that is not known."""
        if new_users:
            raise ValueError(f"{what} needs users that fit saw. Got a sparse matrix of new users.")
        if self.user_posterior_ is None:
            raise ValueError(f'{what} needs solver="variational", which learns its uncertainty. Got solver="{self.solver}".')
        if self.loss != "ordinal" and self._link().variance is None:
            raise ValueError(f'{what} needs the variance of a rating, which loss="{self.loss}" does not define.')

    def _respond(self, scores, clip=None, *, user=None):
        """The predicted rating of a score: inverse link, then the limits."""
        if self.loss == "ordinal":
            ratings = self._cut_points().expected(scores, np.full(scores.shape, -1) if user is None else user)
        else:
            ratings = super()._respond(scores)
        return np.clip(ratings, *self.rating_range_) if check_flag(self.clip if clip is None else clip, "clip") else ratings

    def _read_validation(self, X, y, sample_weight):
        """Row numbers of the pairs and their context, or None and new users' ratings; ratings and weights."""
        loss = self._link()
        if sp.issparse(X):
            data = read_new_users(self, X, y)
            if len(data) == 0:
                raise ValueError("X_val has no stored ratings to score.")
            return None, data, loss.check(data.ratings), None
        ids = read_ids(self, X)
        rating = loss.check(check_ratings(read_target(X, y), len(ids[0]), "y_val"))
        return (*ids, self._context(X)), None, rating, sample_weight

    def _validation_loss(self, ids, data, rating, weight):
        """Mean loss of known users' ratings, or of new users' ratings from their others, in the units of training."""
        if ids is None:
            score, user = self._fold_in(data, leave_one_out=True)[1], np.full(len(data), -1)
        else:
            user, item, columns = ids
            score = self._score_pairs(user, item, "mean")
            if columns:
                score += self._of_context(user, item, columns)[0]
        if self.loss == "ordinal":
            return np.average(self._cut_points().log_loss(rating, score, user), weights=weight)
        score, rating = (torch.from_numpy(values / self.rating_scale_) for values in (score, rating))
        return np.average(self._link()(score, rating).numpy(), weights=weight)

    def _link(self):
        return ordinal_loss(self._cut_points()) if self.loss == "ordinal" else POINTWISE[self.loss]

    def _coded(self, rating):
        """Ratings as the loss codes them; levels stay as they are."""
        rating = np.asarray(rating, dtype=np.float64)
        return rating if self.loss == "ordinal" else self._link().check(rating)

    def _cut_points(self):
        """What makes ratings of scores, with ``loss="ordinal"``."""
        points = cut_points_of(vars(self))
        if points is None:
            raise ValueError('loss="ordinal" needs cut points, and this model was fitted without them. Fit again with that loss.')
        return points

    def _check_module(self):
        if vars(self).get("user_cut_points_") is not None:
            raise ValueError(
                'to_module needs cut_points="common", because with cut points of their own two users with the same score may have '
                "different ratings. Fit with that, or use embeddings, whose inner products are the scores."
            )

    def _limits(self):
        return tuple(self.rating_range_.tolist()) if self.clip else None

    @documented()
    def inverse_transform(self, rows, *, clip=None):
        """Predict all items for users that are given by their factors.

        Parameters
        ----------
        @rows
        @clip

        Returns
        -------
        @ndarray of shape (n_rows, n_items), float64
        """
        return self._respond(self._score_rows(rows), clip)

    @documented()
    def recommend(
        self,
        users=None,
        k=10,
        *,
        exclude_seen=True,
        items=None,
        explore=False,
        random_state=None,
        progress=False,
        user_features=None,
        item_features=None,
    ):
        """Recommend the k best items of each user.

        Parameters
        ----------
        @users
        @k
        @exclude_seen
        @items
        explore : bool, default=False
            Whether to rank by one random draw from the posterior distribution instead of its mean (Thompson sampling), which gives
            uncertain items a chance. This needs ``solver="variational"`` and known users.
        random_state : int, RandomState instance or None, default=None
            Seed of that draw.
        @progress
        @user_features
        @item_features

        Returns
        -------
        @items
        @scores
        """
        model, own = self._knowing(users, user_features, item_features)
        if not check_flag(explore, "explore"):
            return model._recommend(users, k, exclude_seen, items, progress, own)
        if sp.issparse(users) or self.user_posterior_ is None:
            raise ValueError('explore=True needs users that fit saw and solver="variational".')
        rng = check_generator(random_state) if random_state is not None else np.random.default_rng()
        return model._recommend(users, k, exclude_seen, items, progress, rng=rng)

    @one_thread_if_forked
    def _fold_in(self, data, features=None, leave_one_out=False):
        """Rows of new users in rating units and, with ``leave_one_out``, the held-out score of each rating."""
        if self.user_prior_ is None:
            raise ValueError(
                "New users cannot be folded in, because this model was converted without its training data, so the distribution "
                "of its users is not known. Pass the training Interactions to weights_from_spotlight(model, train)."
            )
        if self.loss == "ordinal":
            self._cut_points().check_levels(data.ratings, "ratings")
        apart = self.cold_average is not None
        return fold_in_ratings(data, self._factors, self._link(), features, cold_apart=apart, leave_one_out=leave_one_out)

    @documented()
    def predict_left_out(self, X, *, user_features=None):
        """Predict each rating of new users from their other ratings.

        Parameters
        ----------
        X : sparse matrix of shape (n_rows, n_items)
            Ratings of new users, one row for each, as in ``fold_in``.
        @user_features

        Returns
        -------
        ndarray of shape (n_ratings,), float64
            A prediction for each stored entry, row by row. It is what ``fold_in`` without this entry would predict (leave-one-out,
            computed in closed form), so no rating takes part in its own prediction.
        """
        check_is_fitted(self)
        return self._predict_left_out(read_new_users(self, X), user_features)

    def _predict_left_out(self, data, user_features):
        features = of_new_users(user_features, vars(self).get("user_encoder_"), data.num_users)
        return self._respond(self._fold_in(data, features, leave_one_out=True)[1])

    @documented()
    def score(self, X, y=None, sample_weight=None, *, user_features=None, item_features=None):
        """Return the coefficient of determination R2 of the predictions.

        Parameters
        ----------
        X : table, Interactions or sparse matrix
            The ratings of a table or container are predicted by ``predict``. The rows of a sparse matrix are *new* users, each of
            whose ratings is predicted from the others by ``predict_left_out``; that is why ``GridSearchCV`` works with a sparse
            matrix. To score held-out ratings of *known* users in a sparse matrix pass ``Interactions.from_matrix(X_test)``.
        y : array-like of shape (n,), optional
            The ratings; by default those of a container. Must be None for a sparse matrix.
        sample_weight : array-like, optional
            Weights, one for each row of X.
        @user_features
        @item_features

        Returns
        -------
        float
            R2, which is at most 1, and 0 for predictions no better than the mean of ``y``.
        """
        model, own = self._knowing(X, user_features, item_features)
        check = self._link().check
        if sp.issparse(X):
            data = read_new_users(model, X, y, sample_weight)
            if len(data) == 0:
                raise ValueError("X has no stored ratings to score.")
            return r2(check(data.ratings), model._predict_left_out(data, own), sample_weight=data.weights)
        predicted = model.predict(X)
        return r2(check(check_ratings(read_target(X, y), len(predicted), "y")), predicted, sample_weight=sample_weight)

    @one_thread_if_forked
    def _learned_from(self, factors, reading):
        if self.loss == "ordinal":
            raise ValueError('set_factors does not support loss="ordinal", which needs cut points. Use another loss, or call fit.')
        found = {"seen_": sp.csr_array((len(factors.users), len(factors.items)), dtype=bool), "rating_scale_": 1.0}
        found |= dict.fromkeys(("noise_std_", "user_prior_", "user_posterior_", "item_posterior_"))
        if reading is None:
            return found | {"rating_range_": np.array([-np.inf, np.inf])}
        data, loss = reading.data, self._link()
        if data.ratings is None:
            raise ValueError(
                "interactions must have the ratings that the factors were learned from. Pass Interactions with ratings."
            )
        rating = loss.check(np.asarray(data.ratings, dtype=np.float64))
        noise = 0.5  # a log-likelihood has half the squares of its prior
        if loss.standardised:
            scores = factors.pair_scores(data.user_ids, data.item_ids)
            noise = float(np.average((rating - scores) ** 2, weights=data.weights))
            found["noise_std_"] = noise**0.5
        pairs = Pairs(data.user_ids, data.item_ids, *reading.shape)
        kept = (
            None if values is None else torch.from_numpy(values.astype(self.dtype))[pairs.order.long()]
            for values in (rating, data.weights)
        )
        found |= {"rating_range_": np.array([rating.min(), rating.max()]), "user_prior_": prior_of_rows(factors.users, noise)}
        return found | observed_attributes(pairs, *kept)

    def _earlier(self):
        observed, weights = self._kept_for_more("observed_"), self.pair_weights_
        columns, wanted = vars(self).get("observed_features_", {}), context.wanted(self.effects, self.time)
        if columns.keys() != wanted.keys():
            raise ValueError(
                f"partial_fit needs the same effects and time as the earlier fit. Got effects={self.effects!r} and "
                f"time={self.time!r}, which name other columns. Use fit."
            )
        return replace(reading_of(self, observed, observed.data.astype(np.float64), weights), features=columns)

    def _check_shapes(self):
        super()._check_shapes()
        state = vars(self)
        for effect, (biases, variances, _) in zip(state.get("effects_", []), state.get("effect_biases_", []), strict=True):
            if not len(biases) == len(variances) == effect.n_codes:
                raise ValueError(f"effect_biases_ has {len(biases)} biases, where {effect.n_codes} are due")

    def _shapes(self):
        points = cut_points_of(vars(self))
        if points is None:
            return super()._shapes()
        n_levels = len(points.levels)
        own = {} if points.own is None else {"user_cut_points_": (self.n_users_, n_levels - 1)}
        return super()._shapes() | {"levels_": (n_levels,), "cut_points_": (n_levels - 1,)} | own

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True
        return tags


def prior_of_rows(side, noise):
    """The prior of a new user's row, as ``Factors`` has it: a Gaussian with mean and covariance of the rows there are."""
    rows = [values for values in (side.factors, side.biases) if values is not None]
    rows = np.column_stack(rows)[side.counts > 0].astype(np.float64)
    covariance = np.atleast_2d(np.cov(rows.T, bias=True))
    covariance += (LEAST * np.trace(covariance) / len(covariance) + np.finfo(np.float32).tiny) * np.eye(len(covariance))
    precision, shift = np.zeros((3, *covariance.shape)), np.zeros((3, len(covariance)))
    precision[0] = noise * np.linalg.inv(covariance)
    shift[0] = precision[0] @ rows.mean(0)
    return precision, shift
