"""What every built-in factorization does once it is fitted: prediction in all call forms, fold-in, features for a later step."""

from dataclasses import replace

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.base import TransformerMixin
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted, validate_data

from sk_torchmf._forks import one_thread_if_forked
from sk_torchmf._validation import LARGEST, check_finite, check_length, check_memory, check_rows
from sk_torchmf.estimators._docs import documented
from sk_torchmf.estimators._fitting import Fitting, Start, with_more_ids
from sk_torchmf.estimators._saving import is_fitted_attribute
from sk_torchmf.inputs.forms import INTERACTIONS, SPARSE, Reading, form_of
from sk_torchmf.inputs.queries import check_known, read_ids, read_new_users, read_query
from sk_torchmf.inputs.side_features import ROLES, of_new_users
from sk_torchmf.inputs.stored_pattern import StoredPattern
from sk_torchmf.interactions import Interactions, as_interactions
from sk_torchmf.model.cut_points import CutPoints
from sk_torchmf.model.factors import Factors, Side
from sk_torchmf.model.feature_weights import FeatureWeights
from sk_torchmf.model.posterior import Posterior

LARGEST_ROW = 1e200  # of a user's numbers: their products with those of items are finite in float64


class FactorPredictor(TransformerMixin, Fitting):
    """Base of the estimators whose score is an inner product of user and item rows, plus biases where there are any."""

    # parameters
    n_factors: int
    dtype: str
    # what fit leaves
    user_factors_: np.ndarray
    item_factors_: np.ndarray
    mean_user_: np.ndarray  # the factors of an unknown id
    mean_item_: np.ndarray
    user_biases_: np.ndarray  # in a biased model
    item_biases_: np.ndarray
    global_mean_: float

    __metadata_request__predict = {"user_ids": UNUSED, "item_ids": UNUSED}
    __metadata_request__inverse_transform = {"rows": UNUSED}

    @property
    def _factors(self):
        """The fitted factorization as one value."""
        state = vars(self)

        def side(role):
            posterior = state.get(f"{role}_posterior_")
            return Side(
                state[f"{role}_factors_"],
                state.get(f"{role}_biases_"),
                state[f"mean_{role}_"],
                state[f"{role}_counts_"],
                None if posterior is None else Posterior(*posterior),
                _feature_weights_of(state, role),
                state.get(f"{role}_described_"),
            )

        constant, scale = state.get("global_mean_", 0.0), state.get("rating_scale_", 1.0)
        known = {"effects": self._effect_biases, "cut_points": cut_points_of(state)}
        return Factors(side("user"), side("item"), constant, state.get("user_prior_"), scale=scale, **known)

    @property
    def _effect_biases(self):
        """The fitted effects, as ``Factors`` has them."""
        return vars(self).get("effect_biases_", ())

    def _start_from(self, codes, new_share=0.0):
        n_factors = self.item_factors_.shape[1]
        if self.n_factors != n_factors:
            raise ValueError(
                f"n_factors must be {n_factors}, as in the earlier fit that this one starts from. Got {self.n_factors}. Set "
                f"n_factors={n_factors}, or use warm_start=False."
            )
        return Start(self._factors, codes)

    def set_factors(self, user_factors, item_factors, user_biases=None, item_biases=None, *, interactions=None, n_iter=0):
        """Use a factorization that was learned elsewhere, as if ``fit`` had found it.

        Parameters
        ----------
        user_factors, item_factors : array-like of shape (n_users, n_factors) and (n_items, n_factors)
            The factors. The score of a pair is their inner product, plus the biases in a biased model.
        user_biases, item_biases : array-like of shape (n_users,) and (n_items,), optional
            The biases, for a biased model. Their means become a part of ``global_mean_``.
        interactions : Interactions, optional
            The observations that the factors were learned from; ids are positions in the given arrays. Without it every id counts
            as known and no pair as seen. Then ``recommend`` leaves nothing out, ``clip`` has no effect, and ``partial_fit`` and
            ``fold_in`` are refused.
        n_iter : int, default=0
            The value of ``n_iter_``.

        Returns
        -------
        self
            The fitted estimator. Calling ``fit`` trains new factors.

        Examples
        --------
        >>> import numpy as np
        >>> from sk_torchmf import MatrixFactorization
        >>> model = MatrixFactorization(n_factors=1).set_factors(np.array([[1.0], [2.0]]), np.array([[3.0], [0.5]]))
        >>> model.predict([0, 1], [0, 1])
        array([3., 1.])
        """
        self._validate_params()
        user_factors, item_factors = (
            check_rows(rows, f"{role}_factors", self.dtype) for role, rows in (("user", user_factors), ("item", item_factors))
        )
        if not len(user_factors) or not len(item_factors):
            raise ValueError("user_factors and item_factors must have at least one row each.")
        reading, counts = self._read_learned(len(user_factors), len(item_factors), interactions)
        users = self._learned_side("user", user_factors, user_biases, counts[0])
        items = self._learned_side("item", item_factors, item_biases, counts[1])
        factors = Factors(users, items)
        if factors.biased:
            factors = factors.with_centred_biases()
        found = reading.attributes() | attributes_of(factors)
        found |= self._learned_from(factors, None if interactions is None else reading)
        return self._publish(found | {"history_": {"loss": [], "seconds": []}, "n_iter_": n_iter})

    def _learned_side(self, role, factors, biases, counts):
        """One side of a factorization that was learned elsewhere."""
        if factors.shape != (len(counts), self.n_factors):
            raise ValueError(f"{role}_factors must have shape (n_{role}s, {self.n_factors}). Got {factors.shape}.")
        if (biases is None) == self._has_biases():
            due = f"one number for each {role}" if self._has_biases() else "None, because this model has no biases"
            raise ValueError(f"{role}_biases must be {due}. Got {type(biases).__name__}.")
        check_finite(factors.ravel(), f"{role}_factors")
        if np.abs(factors).max() > LARGEST:
            raise ValueError(
                f"{role}_factors must be at most {LARGEST} in absolute value. Got {np.abs(factors).max():.3g}. Rescale them."
            )
        if biases is not None:
            biases = check_length(np.asarray(biases, dtype=self.dtype), len(counts), f"{role}_biases", role)
            check_finite(biases, f"{role}_biases")
        return Side(factors, biases, factors[counts > 0].mean(axis=0), counts)

    def _has_biases(self):
        """Whether a model of these parameters has biases."""
        raise NotImplementedError

    def _learned_from(self, factors, reading):
        """The fitted attributes beside the rows of a factorization that was learned elsewhere, from a Reading or None."""
        raise NotImplementedError

    def _read_learned(self, n_users, n_items, interactions):
        """What a factorization of these sizes was learned from, a Reading, and the counts of its ids: ones where it is not told."""
        if interactions is None:
            nothing = np.empty(0, dtype=np.int64)
            data = Interactions(nothing, nothing, num_users=n_users, num_items=n_items)
            counts = np.ones(n_users), np.ones(n_items)
        else:
            data = as_interactions(interactions)
            if (data.num_users, data.num_items) != (n_users, n_items):
                raise ValueError(
                    f"interactions must be the data that the factors were learned from, with {n_users} users and {n_items} items. "
                    f"Got {data.num_users} and {data.num_items}."
                )
            if len(data) == 0:
                raise ValueError("interactions must have at least one observation, because the factors were learned from them.")
            users, items = np.bincount(data.user_ids, data.weights, n_users), np.bincount(data.item_ids, data.weights, n_items)
            counts = users.astype(np.float64), items.astype(np.float64)
        return Reading(data, np.arange(n_users), np.arange(n_items), INTERACTIONS, 2), counts

    @documented()
    def predict(self, user_ids, item_ids=None, *, user_features=None, item_features=None):
        """Predict the score of pairs; with the loss ``logistic``, its sigmoid.

        Parameters
        ----------
        @user_ids
        @item_ids
        @user_features
        @item_features

        Returns
        -------
        @ndarray of float64

        Raises
        ------
        @ValueError
        @MemoryError
        """
        model, own = self._knowing(user_ids if item_ids is None else None, user_features, item_features)
        return model._respond(model._score(user_ids, item_ids, own))

    def _knowing(self, X, user_features, item_features):
        """The estimator that knows what features say of further ids; and the features of new users, where X is sparse."""
        check_is_fitted(self)
        if user_features is None and item_features is None:
            return self, None
        own = user_features if sp.issparse(X) else None
        more = {"user": None if sp.issparse(X) else user_features, "item": item_features}
        return (self._as_fitted(extended(self, more)) if any(part is not None for part in more.values()) else self), own

    def extend(self, *, user_features=None, item_features=None):
        """Add users and items of which only features are known. Nothing is trained: the learned weights turn features into factors.

        Parameters
        ----------
        user_features, item_features : Features, DataFrame or matrix, optional
            The features, with the columns and ids as in ``fit``. An id that is known but has no observations gets the factors that
            its new features say. An id with observations keeps its factors, and the next ``partial_fit`` uses the new features.

        Returns
        -------
        self
            The fitted estimator, with the added ids.

        Examples
        --------
        >>> import pandas as pd
        >>> from sk_torchmf import BiasedMatrixFactorization
        >>> X = pd.DataFrame({"user": ["ann", "ann", "bob", "bob"], "item": ["tea", "milk", "tea", "cola"]})
        >>> drinks = pd.DataFrame({"hot": [True, False, False]}, index=["tea", "milk", "cola"])
        >>> model = BiasedMatrixFactorization(n_factors=2, user="user", item="item", random_state=0)
        >>> model = model.fit(X, [5, 2, 5, 1], item_features=drinks)
        >>> model.extend(item_features=pd.DataFrame({"hot": [True]}, index=["cocoa"])).items_
        array(['cocoa', 'cola', 'milk', 'tea'], dtype=object)
        """
        check_is_fitted(self)
        if user_features is None and item_features is None:
            raise ValueError("extend needs user_features or item_features, with the attributes of the ids to add. Got neither.")
        return self._publish(extended(self, {"user": user_features, "item": item_features}))

    def _score(self, user_ids, item_ids, user_features=None):
        """The raw scores that ``predict`` is asked for, a fresh array of float64."""
        if item_ids is None and sp.issparse(user_ids):
            return self._score_rows(self.fold_in(user_ids, user_features=user_features))
        user, item = read_query(self, user_ids, item_ids)
        if item is None:
            return self._score_all_items(user)[0]
        if user.ndim == 2 and user.strides[1] == 0 and item.strides[0] == 0 and item.size:  # every user with the same items
            return self._score_all_items(user[:, 0], item[0])
        return self._score_pairs(user, item)

    def _score_all_items(self, user, items=None):
        """Scores (n, m), float64, of users with all items or some, both by row number, -1 for unknown."""
        factors, nan = self._factors, self.handle_unknown == "nan"
        if self.handle_unknown == "error":
            check_known(factors.users.unknown(user), "user id")
            if items is not None:
                check_known(factors.items.unknown(items), "item id")
        return factors.all_scores(*factors.users.at(user, nan), items, nan)

    def _score_pairs(self, user, item, handle_unknown=None):
        """Scores in the shape of the row numbers ``user`` and ``item``, -1 for unknown."""
        factors, how = self._factors, handle_unknown or self.handle_unknown
        if how == "error":
            check_pairs_known(factors, user, item)
        return factors.pair_scores(user.ravel(), item.ravel(), nan=how == "nan").reshape(user.shape)

    @one_thread_if_forked
    def _respond(self, scores, *, user=None):
        """The response of raw scores, by the inverse link; with the row numbers of the users who have them, None for new users."""
        return self._link().response(torch.from_numpy(scores)).numpy()

    def fold_in(self, X, *, user_features=None):
        """Compute the factors of new users from what is known of them, without changing the model.

        Parameters
        ----------
        X : sparse matrix of shape (n_rows, n_items)
            The observations of new users, one row for each. Column j is the item ``items_[j]``, whatever form of X ``fit`` was
            given.
        user_features : DataFrame or matrix of shape (n_rows, n_attributes), optional
            Features of these users, with the same columns as in ``fit``: one row for each row of X. A DataFrame whose index or id
            column has row numbers may leave some out.

        Returns
        -------
        ndarray of shape (n_rows, n_factors) or, for a biased model, (n_rows, n_factors + 1), float64
            The factors of each user, followed by the user's bias in a biased model. They are shrunk towards what the features of
            the user say or, without features, towards the mean user. A user without observations gets exactly that.
        """
        check_is_fitted(self)
        data = read_new_users(self, X)
        return self._fold_in(data, of_new_users(user_features, vars(self).get("user_encoder_"), data.num_users))

    def _fold_in(self, data, features=None):
        """Rows, in float64, of the users of a container, with EncodedFeatures or None."""
        raise NotImplementedError

    def transform(self, X):
        """Turn X into factors, as features for a later step of a pipeline.

        Parameters
        ----------
        X : in the form ``fit`` saw
            A sparse matrix (n_rows, n_items), or a table or container of n observations.

        Returns
        -------
        ndarray of float64
            For a sparse matrix, ``fold_in(X)``. For a table or container, the factors of the user and of the item side by side, of
            shape (n, 2 * n_factors). Train a later step on other observations than ``fit`` saw, since the factors depend on the
            ratings of these.
        """
        check_is_fitted(self)
        if sp.issparse(X) != (self.form_ == SPARSE):
            raise ValueError(
                f"transform needs X in the form that fit saw, {self.form_}. Got {form_of(X)}. Use fold_in for a sparse matrix of "
                "new users."
            )
        if sp.issparse(X):
            return self.fold_in(validate_data(self, X=X, reset=False, skip_check_array=True))
        factors, parts = self._factors, []
        for role, code in zip(("user", "item"), read_ids(self, X), strict=True):
            side = factors.side(role)
            if self.handle_unknown == "error":
                check_known(side.unknown(code), f"{role} id")
            parts.append(side.at(code, nan=self.handle_unknown == "nan")[0])
        return np.hstack(parts)

    @documented()
    def inverse_transform(self, rows):
        """Predict all items for users that are given by their factors.

        Parameters
        ----------
        @rows

        Returns
        -------
        @ndarray of shape (n_rows, n_items), float64
        """
        return self._respond(self._score_rows(rows))

    def _score_rows(self, rows):
        """Scores (n_rows, n_items) of users given by rows as ``fold_in`` gives them."""
        check_is_fitted(self)
        rows, factors = check_rows(rows, "rows"), self._factors
        width = factors.n_factors + factors.biased
        if rows.shape[1] != width:
            raise ValueError(f"rows must have shape (n_rows, {width}), as fold_in returns them. Got {rows.shape}.")
        if not np.abs(rows).max(initial=0) <= LARGEST_ROW:
            raise ValueError(
                f"rows must be finite numbers of at most {LARGEST_ROW} in absolute value. Got {rows.flat[np.abs(rows).argmax()]}."
            )
        check_memory(
            8 * len(rows) * self.n_items_,
            f"A dense array of {len(rows)} x {self.n_items_} predictions",
            "Pass fewer rows, use recommend for the best items, or predict(users, items) for pairs.",
        )
        return factors.all_scores(*factors.split(rows))

    def get_feature_names_out(self, input_features=None):
        """Name the columns of ``transform``.

        Parameters
        ----------
        input_features : array-like of str, optional
            Ignored, since the names depend on the form of X alone.

        Returns
        -------
        ndarray of str objects of shape (n_features_out,)
            After a fit to a sparse matrix ``factor0``, ``factor1`` and so on and, in a biased model, ``bias``. Otherwise
            ``user_factor0`` and so on, followed by ``item_factor0`` and so on.
        """
        check_is_fitted(self)
        n_factors = self.item_factors_.shape[1]
        if self.form_ == SPARSE:
            names = [f"factor{j}" for j in range(n_factors)] + ["bias"] * self._factors.biased
        else:
            names = [f"{side}_factor{j}" for side in ("user", "item") for j in range(n_factors)]
        return np.array(names, dtype=object)

    def _shapes(self):
        n_factors = self.user_factors_.shape[1]
        of_factors = {
            "user_factors_": (self.n_users_, n_factors),
            "item_factors_": (self.n_items_, n_factors),
            "mean_user_": (n_factors,),
            "mean_item_": (n_factors,),
        }
        of_biases = {"user_biases_": (self.n_users_,), "item_biases_": (self.n_items_,)} if self._factors.biased else {}
        return super()._shapes() | of_factors | of_biases

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        return tags


def check_pairs_known(factors, user, item):
    """Refuse pairs of row numbers of which either is unknown to a factorization, naming the first."""
    for side, code, role in ((factors.users, user, "user"), (factors.items, item, "item")):
        check_known(side.unknown(code.ravel()), f"{role} id")


def extended(estimator, features):
    """The fitted attributes of an estimator that knows further ids by their features, a table or None by role."""
    state, model = dict(vars(estimator)), estimator._factors
    reading, places = with_more_ids(estimator, features)
    sizes, sides = reading.shape, []
    for at, role in enumerate(ROLES):
        counts, own = np.zeros(sizes[at]), reading.described.get(role)
        counts[places[at]] = state[f"{role}_counts_"]
        others = places[1 - at], sizes[1 - at]
        sides.append(model.side(role).spread_over(places[at], counts, own and own.encoded, others))
    kept = {name: value for name, value in state.items() if is_fitted_attribute(name)}
    found = kept | reading.attributes() | {"form_": estimator.form_}
    if estimator.form_ == SPARSE:
        found["n_features_in_"] = sizes[1]
    cut_points = None if model.cut_points is None else model.cut_points.spread_over(places[0], sizes[0])
    found |= attributes_of(replace(model, users=sides[0], items=sides[1], cut_points=cut_points))
    if "effects_" in found:
        found["effects_"] = [effect.regrown(*places) for effect in found["effects_"]]
    for role, side in zip(ROLES, sides, strict=True):
        if f"{role}_posterior_" in found:
            found[f"{role}_posterior_"] = None if side.posterior is None else side.posterior.as_tuple()
    for name in ("seen_", "observed_"):
        if found.get(name) is not None:
            found[name] = spread_pattern(found[name], places, sizes)
    if found.get("observed_") is not None and found["observed_"].nnz == found["seen_"].nnz:
        found["observed_"].indices, found["observed_"].indptr = found["seen_"].indices, found["seen_"].indptr
    return found


def spread_pattern(matrix, places, shape):
    """A CSR array or StoredPattern with its rows and columns at new places, in their order, among more."""
    if isinstance(matrix, StoredPattern):
        return matrix.spread_over(places, shape)
    lengths = np.zeros(shape[0], dtype=matrix.indptr.dtype)
    lengths[places[0]] = np.diff(matrix.indptr)
    pointers = np.concatenate([[0], np.cumsum(lengths)]).astype(matrix.indptr.dtype)
    return sp.csr_array((matrix.data, places[1][matrix.indices].astype(matrix.indices.dtype), pointers), shape=shape)


def cut_points_of(state):
    """The cut points between the levels of ratings, by the fitted attributes; None where ratings are no levels."""
    if "levels_" not in state:
        return None
    return CutPoints(state["levels_"], state["cut_points_"], state["user_cut_points_"], state["user_cut_covariance_"])


def attributes_of(factors):
    """The fitted attributes that hold a factorization of all ids."""
    found = {"global_mean_": factors.constant} if factors.biased else {}
    if factors.effects:
        found["effect_biases_"] = factors.effects
    if (points := factors.cut_points) is not None:
        found |= {"levels_": points.levels, "cut_points_": points.common}
        found |= {"user_cut_points_": points.own, "user_cut_covariance_": points.spread}
    for role in ("user", "item"):
        side = factors.side(role)
        found |= {f"{role}_factors_": side.factors, f"mean_{role}_": side.mean, f"{role}_counts_": side.counts}
        if factors.biased:
            found[f"{role}_biases_"] = side.biases
        if side.weights is not None:
            parts = side.weights.as_dict()
            found |= {f"{role}_feature_{name}_": parts.pop(name) for name in ("weights", "shares")}
            found[f"{role}_feature_prior_"] = parts
    return found


def _feature_weights_of(state, role):
    """What features say of one side's rows, by the fitted attributes; None where rows have none."""
    if f"{role}_feature_prior_" not in state:
        return None
    own = {name: state[f"{role}_feature_{name}_"] for name in ("weights", "shares")}
    return FeatureWeights(**own, **state[f"{role}_feature_prior_"])
