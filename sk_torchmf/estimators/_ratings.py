"""What a model of ratings keeps and predicts: in rating units, within limits, with its uncertainty; how it folds new users in."""

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from sk_torchmf._validation import check_ratings
from sk_torchmf.estimators._prediction import BLOCK
from sk_torchmf.estimators._recommendation import Recommender
from sk_torchmf.inputs import forms
from sk_torchmf.model.posterior import Posterior, score_variance
from sk_torchmf.nn import POINTWISE
from sk_torchmf.solvers.als import RowPrior, solve_rows


class RatingPredictor(RegressorMixin, Recommender):
    """Base of the explicit estimators: what follows their ``fit``."""

    # parameters
    n_factors: int
    loss: str
    clip: bool
    solver: str
    # what fit leaves
    rating_scale_: float
    rating_range_: np.ndarray
    noise_std_: float | None
    # the fold-in's prior and the posterior of both sides, in standardised units
    user_prior_: tuple[np.ndarray, np.ndarray] | None  # None in a model that was taken over without its training data
    user_posterior_: tuple | None
    item_posterior_: tuple | None

    def _keep(self, solution, known_users, known_items):
        """Keep a solution as fitted attributes, in rating units; ids without ratings get the mean row."""
        counts = self.user_counts_, self.item_counts_
        factors = solution.in_units(self.rating_scale_).spread_over((known_users, known_items), counts)
        self.user_prior_ = factors.prior
        standardised = POINTWISE[self.loss].standardised
        self.noise_std_ = factors.scale * factors.noise**0.5 if factors.noise is not None and standardised else None
        for role, side in (("user", factors.users), ("item", factors.items)):
            setattr(self, f"{role}_posterior_", None if side.posterior is None else tuple(side.posterior))
            setattr(self, f"mean_{role}_", side.mean)
            setattr(self, f"{role}_factors_", side.factors)
            if self._biased:
                setattr(self, f"{role}_biases_", side.biases)
        if self._biased:
            self.global_mean_ = factors.constant

    def predict(self, user_ids, item_ids=None, *, return_std=False, clip=None):
        """Predict ratings.

        Parameters
        ----------
        user_ids : table, Interactions, sparse matrix, array-like or scalar
            - a table (n, >= 2) with the columns ``fit`` saw, or a container of n interactions: one prediction a row;
            - with ``item_ids``: user ids, in the ids ``fit`` saw;
            - a scalar user id alone: its predictions for all items (Spotlight's convention);
            - a sparse matrix (n_rows, n_items) of *new* users' ratings: all their predictions, by ``fold_in``.
        item_ids : array-like or scalar, optional
            Item ids; broadcast against ``user_ids``.
        return_std : bool, default=False
            Return the standard deviation of a rating about its prediction too, the noise included: for ``solver="variational"``,
            and not for a sparse matrix of new users.
        clip : bool, optional
            Limit predictions to the range of the training ratings; by default the constructor's ``clip``.

        Returns
        -------
        ndarray of float64, or a tuple of two with ``return_std``
            Predicted ratings: of shape (n,), of the broadcast shape, (n_items,) for a scalar user, (n_rows, n_items) for a sparse
            matrix. A fresh array.

        Raises
        ------
        ValueError
            For a one-dimensional ``user_ids`` without ``item_ids``, an unknown id with ``handle_unknown="error"``, a table without
            the columns ``fit`` saw, Interactions after a fit on labels.
        MemoryError
            Where the dense predictions for a sparse matrix would not fit.
        """
        check_is_fitted(self)
        if return_std:
            if item_ids is None and sp.issparse(user_ids):
                raise ValueError("return_std=True is for users that fit saw. Got a sparse matrix of new users.")
            if self.user_posterior_ is None:
                raise ValueError(
                    f'return_std=True needs solver="variational", which learns its uncertainty. Got solver="{self.solver}".'
                )
        predicted = self._respond(self._score(user_ids, item_ids), clip)
        if not return_std:
            return predicted
        user, item = forms.read_query(self, user_ids, item_ids)
        user, item = np.broadcast_arrays(user, np.arange(self.n_items_) if item is None else item)
        return predicted, self._predictive_std(user, item, predicted)

    def _predictive_std(self, user, item, predicted):
        """Standard deviation of a rating of each pair of row numbers, in rating units."""
        variance = np.empty(user.size)
        scale = self.rating_scale_
        for start in range(0, user.size, BLOCK):
            part = slice(start, start + BLOCK)
            u, i = user.ravel()[part], item.ravel()[part]
            rows = self._user(u, "mean")[0] / scale**0.5, self._item(i, "mean")[0] / scale**0.5
            variance[part] = score_variance(
                (Posterior(*self.user_posterior_), u, rows[1]), (Posterior(*self.item_posterior_), i, rows[0])
            )
        variance = variance.reshape(user.shape)
        if self.loss == "poisson":
            return np.sqrt(predicted + predicted**2 * variance)
        if self.loss == "logistic":
            return np.sqrt(predicted * (1 - predicted))
        return np.sqrt(scale**2 * variance + (self.noise_std_ or 0.0) ** 2)

    def _respond(self, scores, clip=None):
        """The predicted rating of a score: inverse link, then the limits."""
        ratings = super()._respond(scores)
        return np.clip(ratings, *self.rating_range_) if (self.clip if clip is None else clip) else ratings

    def _read_validation(self, X, y, sample_weight):
        """Row numbers of the pairs, or None and new users' ratings; ratings and weights."""
        loss = POINTWISE[self.loss]
        if sp.issparse(X):
            data = self._read_new_users(X, y)
            if len(data) == 0:
                raise ValueError("X_val has no stored ratings to score.")
            return None, data, loss.check(data.ratings), None
        ids = forms.read_ids(self, X)
        return ids, None, loss.check(check_ratings(forms.read_target(X, y), len(ids[0]), "y_val")), sample_weight

    def _validation_loss(self, ids, data, rating, weight):
        """Mean loss of known users' ratings, or of new users' ratings from their others, in the units of training."""
        score = self._fold_in(data, leave_one_out=True)[1] if ids is None else self._score_pairs(ids[0], ids[1], "mean")
        score, rating = (torch.from_numpy(values / self.rating_scale_) for values in (score, rating))
        return np.average(POINTWISE[self.loss](score, rating).numpy(), weights=weight)

    def _pointwise(self):
        return POINTWISE[self.loss]

    def _limits(self):
        return tuple(self.rating_range_.tolist()) if self.clip else None

    def inverse_transform(self, rows, *, clip=None):
        """Predict all items for users given by their rows.

        Parameters
        ----------
        rows : array-like of shape (n_rows, width)
            As ``fold_in`` gives them.
        clip : bool, optional
            Limit predictions to the range of the training ratings; by default the constructor's ``clip``.

        Returns
        -------
        ndarray of shape (n_rows, n_items), float64
            Predicted ratings; ``inverse_transform(fold_in(X))`` is ``predict(X)``.
        """
        return self._respond(self._score_rows(rows), clip)

    def recommend(self, users=None, k=10, *, exclude_seen=True, items=None, explore=False, random_state=None, progress=False):
        """Recommend the k best items of each user.

        Parameters
        ----------
        users : array-like of shape (n,), scalar, Interactions, or sparse matrix of shape (n, n_items), optional
            User ids as ``fit`` saw them; all known users by default. A sparse matrix holds the ratings of new users. An unknown
            user gets the items that the mean user likes best. Interactions stand for the users who occur in them, in order.
        k : int, default=10
            How many.
        exclude_seen : bool, default=True
            Leave out the items a user was observed with in ``fit`` (in the row, for a sparse matrix).
        items : array-like of shape (m,), optional
            Candidates, as item ids; all by default.
        explore : bool, default=False
            Rank by one draw from the posterior instead of its mean (Thompson sampling), so that what is uncertain gets its chance.
            For known users and ``solver="variational"``.
        random_state : int, RandomState instance or None, default=None
            Seeds that draw.
        progress : bool, default=False
            Show how far it is, on stderr: a bar if tqdm is there.

        Returns
        -------
        items : ndarray of shape (n, k)
            Best first, in the ids ``fit`` saw; ties by the order of ``items_``. Where fewer than k remain, the rest is -1, or None
            where ids are not numbers. For a scalar user both arrays have shape (k,).
        scores : ndarray of shape (n, k), float64
            Predicted ratings; -inf where no item remains.
        """
        if not explore:
            return self._recommend(users, k, exclude_seen, items, progress)
        check_is_fitted(self)
        if sp.issparse(users) or self.user_posterior_ is None:
            raise ValueError('explore=True needs users that fit saw and solver="variational".')
        rng = check_random_state(random_state) if random_state is not None else np.random.default_rng()
        return self._recommend(users, k, exclude_seen, items, progress, lambda *side: self._draw(rng, *side))

    def _draw(self, rng, role, code, factors, constant):
        """A draw from the posterior of rows: factors (n, n_factors) and constants (n,) in rating units."""
        k, scale = factors.shape[1], self.rating_scale_
        deviation = Posterior(*getattr(self, f"{role}_posterior_")).draw(rng, code)
        moved = factors + deviation[:, :k] * scale**0.5
        return moved, constant + deviation[:, k] * scale if self._biased else constant

    def _fold_in(self, data, leave_one_out=False):
        """Rows of new users in rating units and, with ``leave_one_out``, the held-out score of each rating."""
        if self.user_prior_ is None:
            raise ValueError(
                "New users cannot be folded in: this model was taken over without what it was trained on, so nothing is known of "
                "how its users spread. Pass the training Interactions to weights_from_spotlight(model, train)."
            )
        dtype = torch.from_numpy(self.item_factors_[:0]).dtype
        scale, loss = self.rating_scale_, POINTWISE[self.loss]
        features, offset = self.item_factors_ / scale**0.5, np.zeros(self.n_items_)
        units = np.full(features.shape[1], scale**0.5)
        if self._biased:
            features = np.column_stack([features, np.ones(self.n_items_)])
            offset, units = (self.item_biases_ + self.global_mean_) / scale, np.append(units, scale)
        rating = loss.check(data.ratings) / scale
        weight = np.ones(len(data)) if data.weights is None else data.weights
        pointers = np.concatenate([[0], np.cumsum(np.bincount(data.user_ids, minlength=data.num_users))])
        ratings, weights, rows, offsets = (torch.from_numpy(a).to(dtype) for a in (rating, weight, features, offset))
        prior = RowPrior.from_arrays(*self.user_prior_, like=rows)
        index = torch.from_numpy(pointers), torch.from_numpy(data.item_ids.astype(np.int64))
        out = solve_rows(*index, ratings, weights, rows, offsets, prior, loss, leave_one_out=leave_one_out)
        if not leave_one_out:
            return out.double().numpy() * units
        return out[0].double().numpy() * units, out[1].double().numpy() * scale

    def score(self, X, y=None, sample_weight=None):
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

        Returns
        -------
        float
            At most 1; 0 for predictions no better than the mean of ``y``.
        """
        check_is_fitted(self)
        if sp.issparse(X):
            data = self._read_new_users(X, y, sample_weight)
            if len(data) == 0:
                raise ValueError("X has no stored ratings to score.")
            predicted = self._respond(self._fold_in(data, leave_one_out=True)[1])
            return r2_score(POINTWISE[self.loss].check(data.ratings), predicted, sample_weight=data.weights)
        y = forms.read_target(X, y)
        return r2_score(POINTWISE[self.loss].check(y), self.predict(X), sample_weight=sample_weight)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True
        return tags
