"""What a model of ratings does beyond any factorization: rating units, limits, uncertainty, leave-one-out, R2."""

from dataclasses import replace

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.base import RegressorMixin
from sklearn.utils.validation import check_is_fitted

from sk_torchmf._forks import one_thread_if_forked
from sk_torchmf._validation import check_flag, check_generator, check_ratings
from sk_torchmf.estimators._docs import documented
from sk_torchmf.estimators._fitting import observed_attributes, reading_of
from sk_torchmf.estimators._recommendation import Recommender
from sk_torchmf.inputs import context
from sk_torchmf.inputs.queries import is_structured, read_ids, read_new_users, read_query, read_target
from sk_torchmf.inputs.side_features import of_new_users
from sk_torchmf.metrics._scorer import r2
from sk_torchmf.nn import POINTWISE, Pairs
from sk_torchmf.solvers.fold_in import fold_in_ratings

LEAST = 1e-6  # of the mean variance of the users' rows: their covariance can be inverted


class RatingPredictor(RegressorMixin, Recommender):
    """Base of the explicit estimators: what follows their ``fit``."""

    # parameters
    loss: str
    clip: bool
    solver: str
    effects: list | None
    time: int | str | bool | None
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

    @documented()
    def predict(self, user_ids, item_ids=None, *, return_std=False, clip=None, user_features=None, item_features=None):
        """Predict ratings.

        Parameters
        ----------
        @user_ids
        @item_ids
        return_std : bool, default=False
            Return the standard deviation of a rating about its prediction too, the noise included: for ``solver="variational"``,
            and not for a sparse matrix of new users.
        @clip
        @user_features
        @item_features

        Returns
        -------
        @ndarray of float64
            With ``return_std`` a tuple of two such arrays, predictions and standard deviations.

        Raises
        ------
        @ValueError
        @MemoryError
        """
        check_is_fitted(self)
        if check_flag(return_std, "return_std"):
            self._check_uncertainty("return_std=True", item_ids is None and sp.issparse(user_ids))
        model, own = self._knowing(user_ids if item_ids is None else None, user_features, item_features)
        score, doubt = model._score(user_ids, item_ids, own), sum(prior for *_, prior in model._factors.effects)
        if columns := model._context(user_ids if item_ids is None else None):
            added, doubt = model._of_context(*read_ids(model, user_ids), columns)
            score += added
        predicted = self._respond(score, clip)
        if not return_std:
            return predicted
        user, item = read_query(model, user_ids, item_ids)
        user, item = np.broadcast_arrays(user, np.arange(model.n_items_) if item is None else item)
        variance = model._factors.score_variances(user.ravel(), item.ravel()).reshape(user.shape) + doubt
        return predicted, np.sqrt(self._link().variance(predicted, variance) + (self.noise_std_ or 0.0) ** 2)

    def _context(self, X):
        """What X has of the context that effects are of: columns as ``context.read`` returns them, none where X is no pairs."""
        effects = vars(self).get("effects_", [])
        if not effects or sp.issparse(X) or not (is_structured(X) or np.ndim(X) == 2):
            return {}
        return context.find(X, context.columns_of(effects, self.time))

    def _of_context(self, user, item, columns):
        """What the context of pairs of row numbers adds to their scores, and the variance of that: (n,) each."""
        return self._factors.of_context(context.codes(self.effects_, user, item, columns))

    def _check_uncertainty(self, what, new_users):
        """Refuse to tell how uncertain a prediction is where that is not known."""
        if new_users:
            raise ValueError(f"{what} is for users that fit saw. Got a sparse matrix of new users.")
        if self.user_posterior_ is None:
            raise ValueError(f'{what} needs solver="variational", which learns its uncertainty. Got solver="{self.solver}".')
        if self._link().variance is None:
            raise ValueError(f'{what} needs the variance of a rating, and loss="{self.loss}" does not say what that is.')

    def _respond(self, scores, clip=None):
        """The predicted rating of a score: inverse link, then the limits."""
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
            score = self._fold_in(data, leave_one_out=True)[1]
        else:
            user, item, columns = ids
            score = self._score_pairs(user, item, "mean")
            if columns:
                score += self._of_context(user, item, columns)[0]
        score, rating = (torch.from_numpy(values / self.rating_scale_) for values in (score, rating))
        return np.average(self._link()(score, rating).numpy(), weights=weight)

    def _link(self):
        return POINTWISE[self.loss]

    def _limits(self):
        return tuple(self.rating_range_.tolist()) if self.clip else None

    @documented()
    def inverse_transform(self, rows, *, clip=None):
        """Predict all items for users given by their rows.

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
            Rank by one draw from the posterior instead of its mean (Thompson sampling), so that what is uncertain gets its chance.
            For known users and ``solver="variational"``.
        random_state : int, RandomState instance or None, default=None
            Seeds that draw.
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
                "New users cannot be folded in: this model was taken over without what it was trained on, so nothing is known of "
                "how its users spread. Pass the training Interactions to weights_from_spotlight(model, train)."
            )
        return fold_in_ratings(data, self._factors, self._link(), features, leave_one_out=leave_one_out)

    @documented()
    def predict_left_out(self, X, *, user_features=None):
        """Predict each rating of new users from the other ratings of its row.

        Parameters
        ----------
        X : sparse matrix of shape (n_rows, n_items)
            Ratings of new users, as ``fold_in`` takes them.
        @user_features

        Returns
        -------
        ndarray of shape (n_ratings,), float64
            A prediction for each stored entry, row by row, by closed-form leave-one-out fold-in: no rating predicts itself.
        """
        check_is_fitted(self)
        return self._predict_left_out(read_new_users(self, X), user_features)

    def _predict_left_out(self, data, user_features):
        features = of_new_users(user_features, vars(self).get("user_encoder_"), data.num_users)
        return self._respond(self._fold_in(data, features, leave_one_out=True)[1])

    @documented()
    def score(self, X, y=None, sample_weight=None, *, user_features=None, item_features=None):
        """Coefficient of determination R2 of the predictions.

        Parameters
        ----------
        X : table, Interactions or sparse matrix
            For a table or container each row is predicted. The rows of a sparse matrix are *new* users: each rating is predicted
            from the other ratings of its row, by closed-form leave-one-out fold-in, so that no rating predicts itself and
            ``GridSearchCV(estimator, grid).fit(X_sparse)`` needs no wrapper. To score held-out entries of *known* users pass
            ``Interactions.from_matrix(X_test)``.
        y : array-like of shape (n,), optional
            Ratings; a container's own by default, None for a sparse matrix.
        sample_weight : array-like, optional
            One weight a row of X.
        @user_features
        @item_features

        Returns
        -------
        float
            At most 1; 0 for predictions no better than the mean of ``y``.
        """
        check_is_fitted(self)
        check = self._link().check
        if sp.issparse(X):
            data = read_new_users(self, X, y, sample_weight)
            if len(data) == 0:
                raise ValueError("X has no stored ratings to score.")
            return r2(check(data.ratings), self._predict_left_out(data, user_features), sample_weight=data.weights)
        predicted = self.predict(X, user_features=user_features, item_features=item_features)
        return r2(check(check_ratings(read_target(X, y), len(predicted), "y")), predicted, sample_weight=sample_weight)

    @one_thread_if_forked
    def _learned_from(self, factors, reading):
        found = {"seen_": sp.csr_array((len(factors.users), len(factors.items)), dtype=bool), "rating_scale_": 1.0}
        found |= dict.fromkeys(("noise_std_", "user_prior_", "user_posterior_", "item_posterior_"))
        if reading is None:
            return found | {"rating_range_": np.array([-np.inf, np.inf])}
        data, loss = reading.data, self._link()
        if data.ratings is None:
            raise ValueError("interactions have no ratings, which the factors were learned from. Pass Interactions with ratings.")
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
                f"partial_fit goes on with the context that fit had. Got effects={self.effects!r} and time={self.time!r}, which "
                "name other columns. Use fit."
            )
        return replace(reading_of(self, observed, observed.data.astype(np.float64), weights), features=columns)

    def _check_shapes(self):
        super()._check_shapes()
        state = vars(self)
        for effect, (biases, variances, _) in zip(state.get("effects_", []), state.get("effect_biases_", []), strict=True):
            if not len(biases) == len(variances) == effect.n_codes:
                raise ValueError(f"effect_biases_ has {len(biases)} biases, where {effect.n_codes} are due")

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
