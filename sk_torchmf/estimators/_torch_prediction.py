"""Predictions and recommendations of any trained module, in all call forms; what is unknown is averaged out."""

import copy

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.base import RegressorMixin
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from sk_torchmf._forks import one_thread_if_forked
from sk_torchmf._validation import check_count, check_flag, check_memory, check_ratings
from sk_torchmf.estimators._docs import documented
from sk_torchmf.estimators._recommendation import best_candidates, select_rows
from sk_torchmf.estimators._torch_options import PartEstimator
from sk_torchmf.estimators._torch_training import BACKGROUND, extended
from sk_torchmf.exceptions import DivergenceError
from sk_torchmf.inputs import columns as side_columns
from sk_torchmf.inputs.labels import label
from sk_torchmf.inputs.queries import (
    check_known,
    is_scalar,
    read_candidates,
    read_ids,
    read_query,
    read_target,
    read_users,
    select_positives,
)
from sk_torchmf.metrics._scorer import r2, ranking_scorer
from sk_torchmf.nn import POINTWISE, PointwiseLoss, Response
from sk_torchmf.solvers.batches import as_scores
from sk_torchmf.solvers.factories import find_loss, find_ranking_loss, make_loss

BLOCK = 2**16  # pairs scored at once,
WIDTH = 64  # and fewer where they have more columns of features than this

_NO_NEW_USERS = (
    "A sparse matrix holds new users' ratings here, and a module of your own has no fold-in. For stored entries of the users that "
    "fit saw pass Interactions.from_matrix(X)."
)


def _module_of(loss):
    """The class or the instance of a module that a parameter ``loss`` means, None where it is no such."""
    try:
        found = find_loss(loss)
    except (TypeError, ValueError):
        return None
    return found if isinstance(found, torch.nn.Module | type) else None


def _has_probabilities(estimator):
    """Whether an estimator knows the probability of each rating."""
    if not hasattr(_module_of(estimator.loss), "probabilities"):
        raise AttributeError(f'predict_proba needs loss="ordinal", for which ratings are levels. Got loss={estimator.loss!r}.')
    return True


class ModulePredictor(RegressorMixin, PartEstimator):
    """Base of ``TorchFactorization``: all that follows ``fit``."""

    # parameters
    distributed: bool = False  # of an estimator that has no such parameter
    loss: object
    clip: bool
    dtype: str
    features: object
    # what fit leaves
    rating_range_: np.ndarray
    feature_categories_: dict
    background_: dict
    module_: torch.nn.Module

    __metadata_request__predict = {"user_ids": UNUSED, "item_ids": UNUSED, "features": UNUSED}
    __metadata_request__predict_proba = {"user_ids": UNUSED, "item_ids": UNUSED, "features": UNUSED}

    @documented()
    def predict(self, user_ids, item_ids=None, *, features=None, clip=None, user_features=None, item_features=None):
        """Predict ratings or, with a ranking loss, scores of which only the order has a meaning.

        Parameters
        ----------
        user_ids : table, Interactions, array-like or scalar
            - a table with the columns that ``fit`` saw, or a container, of n pairs: one prediction for each, with the features in
              it;
            - user ids, together with ``item_ids``: one prediction for each pair;
            - one user id without ``item_ids``: this user's predictions for all items, as Spotlight has it.
        @item_ids
        features : dict of str to array-like, optional
            Where ids are given: the values of ``features``, which are broadcast against the ids.
        @clip
            It cannot be used with a ranking loss.
        user_features : Features, DataFrame or matrix, optional
            Features of users, with the same columns as in ``fit``, for a module whose ``forward`` takes them. Users that ``fit``
            did not see become known to this call. Where the module has parameters for each user, such as the rows of an embedding,
            it uses their mean over the observed users. For users that ``fit`` saw, the given features replace the earlier ones.
        item_features : Features, DataFrame or matrix, optional
            The same for items.

        Returns
        -------
        ndarray of float64
            The predictions, in a new array. The shape is (n,) for n pairs, the broadcast shape for ids and (n_items,) for one user.

        Raises
        ------
        ValueError
            For a sparse matrix, since a module of your own has no fold-in of new users; the stored entries of known users are
            predicted by ``Interactions.from_matrix(X)``. Also for ``user_features`` or ``item_features`` that the module does not
            take.
        """
        check_is_fitted(self, "module_")
        if item_ids is None and sp.issparse(user_ids):
            raise ValueError(_NO_NEW_USERS)
        model = self._knowing(user_features, item_features)
        return model._respond(model._scores(user_ids, item_ids, features), clip)

    @available_if(_has_probabilities)
    def predict_proba(self, user_ids, item_ids=None, *, features=None, user_features=None, item_features=None):
        """Predict the probability of each level of a rating, with ``loss="ordinal"``.

        Parameters
        ----------
        user_ids : table, Interactions, array-like or scalar
            As in ``predict``.
        item_ids : array-like or scalar, optional
            Item ids, broadcast against ``user_ids``.
        features : dict of str to array-like, optional
            As in ``predict``.
        user_features, item_features : Features, DataFrame or matrix, optional
            Features of users and of items, known or new, as in ``predict``.

        Returns
        -------
        ndarray of float64
            The probabilities of the levels, given the module's score. The shape is that of ``predict`` with one more dimension, of
            length n_levels, over which they add up to one. For a loss of your own, what its ``probabilities(score)`` returns.

        Raises
        ------
        ValueError
            As in ``predict``.
        MemoryError
            If the probabilities would not fit into memory.
        """
        check_is_fitted(self, "module_")
        if item_ids is None and sp.issparse(user_ids):
            raise ValueError(_NO_NEW_USERS)
        model = self._knowing(user_features, item_features)
        return model._probabilities(model._scores(user_ids, item_ids, features))

    @one_thread_if_forked
    def _probabilities(self, scores):
        """The probabilities of the levels at scores."""
        loss = self._own_loss()
        n_levels = loss.probabilities(torch.zeros(1, dtype=torch.float64)).shape[-1]
        check_memory(8 * scores.size * n_levels, f"Probabilities of {n_levels} levels for {scores.size} pairs", "Pass fewer pairs.")
        found, flat = np.empty((scores.size, n_levels)), scores.ravel()
        with torch.no_grad():
            for start in range(0, len(flat), BLOCK):
                part = slice(start, start + BLOCK)
                found[part] = loss.probabilities(torch.from_numpy(flat[part])).numpy()
        return found.reshape(*scores.shape, n_levels)

    def _knowing(self, user_features, item_features):
        """The estimator that knows what features say of ids, further ones among them."""
        if user_features is None and item_features is None:
            return self
        return self._as_fitted(extended(self, {"user": user_features, "item": item_features}))

    def _scores(self, user_ids, item_ids, features):
        """The scores that are asked for."""
        user, item = read_query(self, user_ids, item_ids)
        by_ids = item is None or item_ids is not None
        if item is None:
            user, item = np.broadcast_arrays(user, np.arange(self.n_items_))
        if features is not None and not by_ids:
            raise ValueError(
                "features must be None unless users and items are passed, because a table or container has its own features."
            )
        values = self._given_features(features, user.shape) if by_ids else self._features_of(user_ids)
        return self._score(user, item, values, self.handle_unknown)

    def _features_of(self, X):
        """The features that a table or container brings."""
        return side_columns.read(X, self.features, self.dtype, self.feature_categories_)[0]

    def _given_features(self, values, shape):
        """The features that are passed beside ids of a shape, flat."""
        return side_columns.given(values, self.features, self.dtype, self.feature_categories_, shape)

    def _score(self, user, item, features, handle_unknown):
        """Scores, float64, in the shape of the row numbers ``user`` and ``item``, -1 for unknown; features are flat."""
        shape, user, item = user.shape, user.ravel(), item.ravel()
        user, item = (np.where(self._is_known(role)[code], code, -1) for role, code in (("user", user), ("item", item)))
        codes = {"user": user, "item": item} | features
        if handle_unknown == "error":
            self._check_known(codes)
        unknown = np.zeros(len(user), dtype=bool)
        for code in codes.values():
            if code.dtype.kind == "i":
                unknown |= code < 0
        scores = np.full(len(user), np.nan)
        scores[~unknown] = self._forward({name: code[~unknown] for name, code in codes.items()})
        if handle_unknown == "mean" and unknown.any():
            scores[unknown] = self._average({name: code[unknown] for name, code in codes.items()})
        return scores.reshape(shape)

    def _is_known(self, role):
        """Which ids were observed, or have features."""
        observed, described = vars(self)[f"{role}_counts_"] > 0, vars(self).get(f"{role}_described_")
        return observed if described is None else observed | described

    def _encoded(self):
        """The encoded features of all users and items, by the names that ``forward`` has for them."""
        state = vars(self)
        return {name: state[f"{name}_"] for name in ("user_features", "item_features") if f"{name}_" in state}

    def _check_known(self, codes):
        for name, code in codes.items():
            if code.dtype.kind == "i":
                check_known(code < 0, f"{name} id" if name in ("user", "item") else f"category of {name}")

    @one_thread_if_forked
    def _forward(self, codes):
        """The module's scores of known codes, float64, in blocks."""
        n, encoded = len(codes["user"]), self._encoded()
        scores, dtype = np.empty(n), getattr(torch, self.dtype)
        size = max(1, BLOCK // max(1, sum(matrix.shape[1] for matrix in encoded.values()) // WIDTH))
        with torch.no_grad():
            for start in range(0, n, size):
                part = slice(start, start + size)
                user, item, *rest = (torch.from_numpy(np.ascontiguousarray(code[part])) for code in codes.values())
                named = zip(
                    list(codes)[2:], (value.to(dtype) if value.is_floating_point() else value for value in rest), strict=True
                )
                rows = {
                    name: torch.from_numpy(matrix[codes[name.removesuffix("_features")][part]].toarray()).to(dtype)
                    for name, matrix in encoded.items()
                }
                scores[part] = as_scores(self.module_(user, item, **dict(named), **rows), len(user), type(self.module_).__name__)
        if not np.isfinite(scores).all():
            bad = np.flatnonzero(~np.isfinite(scores))
            raise DivergenceError(
                f"module {type(self.module_).__name__} returned {scores[bad[0]]} for {len(bad)} of {n} pairs: its parameters have "
                "grown beyond what it can multiply. Lower optimizer__lr or rescale the ratings, and fit again."
            )
        return scores

    def _average(self, codes):
        """Scores of rows with something unknown: averaged over what the background has in its place."""
        stacked = np.column_stack([code.astype(np.float64) for code in codes.values()])
        distinct, place = np.unique(stacked, axis=0, return_inverse=True)
        rows = {name: column.astype(code.dtype) for (name, code), column in zip(codes.items(), distinct.T, strict=True)}
        rounds = np.full(len(distinct), BACKGROUND)  # whole turns through what is few
        for name, code in rows.items():
            if code.dtype.kind == "i":
                n = len(self.background_[name])
                rounds = np.where(code < 0, np.minimum(rounds, BACKGROUND // n * n), rounds)
        total = np.zeros(len(distinct))
        for at in range(int(rounds.max())):
            filled = {name: self._fill(name, code, at) for name, code in rows.items()}
            total += np.where(at < rounds, self._forward(filled), 0.0)
        return (total / rounds)[place.ravel()]

    def _fill(self, name, code, at):
        """The code with the background's in the place of the unknown."""
        if code.dtype.kind != "i":
            return code
        background = self.background_[name]
        return np.where(code < 0, background[at % len(background)], code)

    @one_thread_if_forked
    def _respond(self, scores, clip=None):
        """The predicted rating of a score."""
        clip = self._check_clip(clip)
        with torch.no_grad():
            scores = self._response().response(torch.from_numpy(scores)).numpy()
        return np.clip(scores, *self.rating_range_) if clip else scores

    def _check_clip(self, clip=None):
        clip = check_flag(self.clip if clip is None else clip, "clip")
        if clip and self._ranks():
            raise ValueError(
                "clip=True needs a loss of ratings, because it limits predictions to the range of the ratings. Use clip=False."
            )
        return clip

    def _ranks(self):
        """Whether observations are positives to rank, rather than ratings to predict."""
        return find_ranking_loss(self.loss) is not None

    def _link(self):
        """The loss where it is one of ours, with a link of its own; else one whose response is the score."""
        if self._ranks():
            return find_ranking_loss(self.loss)
        loss = POINTWISE.get(self.loss) if isinstance(self.loss, str) else self.loss
        return loss if isinstance(loss, PointwiseLoss) else POINTWISE["squared_error"]

    def _response(self):
        """What has the inverse link: the loss of the fit where that is a module with one, else one of ours."""
        return self._own_loss() if hasattr(_module_of(vars(self).get("loss")), "response") else self._link()

    def _own_loss(self):
        """What was trained of a loss that is a module."""
        kind, own = _module_of(self.loss), vars(self).get("loss_")
        if own is None or not isinstance(own, kind if isinstance(kind, type) else type(kind)):
            raise ValueError(
                f"loss={self.loss!r} has parameters of its own, and this model was fitted without them. Use fit with that loss."
            )
        return own

    def _read_validation(self, X, y, sample_weight):
        """Row numbers of the pairs with their features; ratings and weights as tensors."""
        if sp.issparse(X):
            raise ValueError(f"X_val: {_NO_NEW_USERS}")
        codes, features = read_ids(self, X), self._features_of(X)
        rating = self._check_ratings(check_ratings(read_target(X, y), len(codes[0]), "y_val"))
        weight = None if sample_weight is None else torch.from_numpy(sample_weight / np.mean(sample_weight))
        return codes, features, torch.from_numpy(rating.astype(self.dtype)), weight

    def _validation_loss(self, codes, features, rating, weight):
        """The loss of all pairs as one batch."""
        user, item = codes
        score = torch.from_numpy(self._score(user, item, features, "mean")).to(rating)
        own = vars(self).get("loss_")
        loss = make_loss(self.loss, self._options("loss")) if own is None else make_loss(own, {})
        with torch.no_grad():
            value = loss.eval()(score, rating, None if weight is None else weight.to(rating))
        return float(value)

    def _check_ratings(self, ratings):
        return self._link().check(np.asarray(ratings))

    @documented()
    def recommend(
        self,
        users=None,
        k=10,
        *,
        exclude_seen=True,
        items=None,
        features=None,
        progress=False,
        user_features=None,
        item_features=None,
    ):
        """Recommend the k best items of each user.

        Parameters
        ----------
        users : array-like of shape (n,), scalar or Interactions, optional
            The users to recommend for, by their ids or by Interactions, which stand for the users in them, in order; by default all
            known users. An unknown id gets what a sample of the known users likes best on average.
        @k
        @exclude_seen
        @items
        features : dict of str to array-like of shape (n,) or scalar, optional
            For a model with ``features``: the values for which to recommend, such as the day.
        @progress
        user_features, item_features : Features, DataFrame or matrix, optional
            Features of users and of items, known or new, as in ``predict``.

        Returns
        -------
        @items
        @scores
        """
        check_is_fitted(self, "module_")
        k = check_count(k, "k")
        if sp.issparse(users):
            raise ValueError(_NO_NEW_USERS)
        return self._knowing(user_features, item_features)._recommend(users, k, exclude_seen, items, features, progress)

    def _recommend(self, users, k, exclude_seen, items, features, progress):
        code = read_users(self, users, 'use handle_unknown="mean"')
        candidates, values = read_candidates(self, items), self._given_features(features, code.shape)
        if self.handle_unknown == "error":
            self._check_known(values)

        def score(block):
            user, item = (part.ravel() for part in np.meshgrid(code[block], candidates, indexing="ij"))
            context = {name: np.repeat(value[block], len(candidates)) for name, value in values.items()}
            return torch.from_numpy(self._score(user, item, context, "mean").reshape(-1, len(candidates)))

        seen = select_rows(self.seen_, code) if exclude_seen else None
        if seen is not None and self.distributed:
            self._check_are_own(code, np.diff(seen.indptr) == 0)
        found, scores = best_candidates(score, len(code), candidates, k, seen, progress)
        remain = found >= 0
        scores[remain] = self._respond(scores[remain])
        ids = label(found, self.items_)
        return (ids[0], scores[0]) if is_scalar(users) else (ids, scores)

    def _check_are_own(self, code, has_nothing):
        """Refuse users, by row number, of whom another process knows what they have seen."""
        others = has_nothing & (np.where(code < 0, 0.0, self.user_counts_[code]) > 0)
        if others.any():
            raise ValueError(
                f"The items that user {self.users_[code[others]][0]!r} has seen are known only on another rank. Pass users of "
                "this rank, model.users_[model.seen_.sum(axis=1) > 0], or use the estimator that gather() returns, or "
                "exclude_seen=False."
            )

    @one_thread_if_forked
    def to_module(self):
        """Return the trained module with predictions in place of scores, for ``torch.export`` or ONNX.

        Returns
        -------
        torch.nn.Module
            A copy on the CPU, in evaluation mode. Its ``forward(user, item, **features)`` takes the same tensors as your module:
            positions in ``users_`` and ``items_`` and, if it was trained with such, dense rows of ``user_features_`` and
            ``item_features_``. It returns predicted ratings in the shape of your module's scores, limited to the range of the
            training ratings with ``clip=True``. Use ``predict`` for ids that were never observed: unknown ids have no position, and
            the parameters of the others have their initial values.
        """
        check_is_fitted(self, "module_")
        limits = tuple(self.rating_range_.tolist()) if self._check_clip() else None
        return Response(copy.deepcopy(self.module_), copy.deepcopy(self._response()), limits).eval()

    def score(self, X, y=None, sample_weight=None, *, user_features=None, item_features=None):
        """Return R2 of the predictions or, with a ranking loss, NDCG@10 of the recommendations.

        Parameters
        ----------
        X : table or Interactions
            The observations to predict or, with a ranking loss, the test items of each user. For a sparse matrix of ratings of
            known users pass ``Interactions.from_matrix(X)``.
        y : array-like of shape (n,), optional
            The ratings; by default those of a container. With a ranking loss, weights of the test items: an item of weight 0 is no
            test item, and all other weights count alike.
        sample_weight : array-like of shape (n,), optional
            Weights of the observations. With a ranking loss they have the same meaning as ``y``.
        user_features, item_features : Features, DataFrame or matrix, optional
            Features of users and of items, known or new, as in ``predict``.

        Returns
        -------
        float
            R2 is at most 1, and 0 for predictions no better than the mean of ``y``. NDCG@10 is between 0 and 1: the mean over the
            users with test items, whose lists leave out what ``fit`` saw. See ``model_selection.ranking_scorer``.
        """
        check_is_fitted(self, "module_")
        if sp.issparse(X):
            raise ValueError(_NO_NEW_USERS)
        model = self._knowing(user_features, item_features)
        if self._ranks():
            if self.features is not None:
                raise ValueError(
                    "score ranks all items of each user, and this model's features are of single pairs. Compare X with what "
                    "recommend(users, features=...) gives."
                )
            return ranking_scorer("ndcg", k=10)(model, select_positives(X, y, sample_weight))
        predicted = model.predict(X)
        rating = self._check_ratings(check_ratings(read_target(X, y), len(predicted), "y"))
        return r2(rating, predicted, sample_weight=sample_weight)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.regressor_tags.poor_score = True
        tags.target_tags.required = not self._ranks()
        return tags
