"""What every factorization shares once it is fitted: prediction in all call forms, fold-in, features. Fitted state is NumPy."""

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.base import TransformerMixin
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted, validate_data

from sk_torchmf._validation import check_memory
from sk_torchmf.estimators._saving import SavedEstimator
from sk_torchmf.inputs import forms
from sk_torchmf.nn import POINTWISE
from sk_torchmf.training.loop import Trained

BLOCK = 2**13  # pairs scored at once: their factors stay in the cache


class BaseFactorization(Trained, TransformerMixin, SavedEstimator):
    """Base of the estimators whose score is an inner product of user and item rows, plus biases where there are any."""

    # parameters
    user: int | str
    item: int | str
    handle_unknown: str
    # whether there are biases
    _biased: bool
    # what fit leaves, beside what SavedEstimator names
    form_: str
    user_factors_: np.ndarray
    item_factors_: np.ndarray
    mean_user_: np.ndarray  # the factors of an unknown id
    mean_item_: np.ndarray
    user_biases_: np.ndarray  # where _biased
    item_biases_: np.ndarray
    global_mean_: float

    __metadata_request__predict = {"user_ids": UNUSED, "item_ids": UNUSED}
    __metadata_request__inverse_transform = {"rows": UNUSED}

    def predict(self, user_ids, item_ids=None):
        """Predict the response of pairs.

        Parameters
        ----------
        user_ids : table, Interactions, sparse matrix, array-like or scalar
            - a table (n, >= 2) with the columns ``fit`` saw, or a container of n interactions: one prediction a row;
            - with ``item_ids``: user ids, in the ids ``fit`` saw;
            - a scalar user id alone: its predictions for all items (Spotlight's convention);
            - a sparse matrix (n_rows, n_items) of *new* users: all their predictions, by ``fold_in``.
        item_ids : array-like or scalar, optional
            Item ids; broadcast against ``user_ids``.

        Returns
        -------
        ndarray of float64
            Of shape (n,), of the broadcast shape, (n_items,) for a scalar user, (n_rows, n_items) for a sparse matrix. A fresh
            array.

        Raises
        ------
        ValueError
            For a one-dimensional ``user_ids`` without ``item_ids``, an unknown id with ``handle_unknown="error"``, a table without
            the columns ``fit`` saw, Interactions after a fit on labels.
        MemoryError
            Where the dense predictions for a sparse matrix would not fit.
        """
        return self._respond(self._score(user_ids, item_ids))

    def _score(self, user_ids, item_ids):
        """The raw scores that ``predict`` is asked for, a fresh array of float64."""
        check_is_fitted(self)
        if item_ids is None and sp.issparse(user_ids):
            return self._score_rows(self.fold_in(user_ids))
        user, item = forms.read_query(self, user_ids, item_ids)
        return self._score_users(user)[0] if item is None else self._score_pairs(user, item)

    def _score_users(self, code):
        """Scores (n, n_items), float64, of users by row number, -1 for unknown."""
        scores = self._score_all_items(*self._user(code))
        if self.handle_unknown == "nan":
            scores[:, self.item_counts_ == 0] = np.nan
        return scores

    def _predict_users(self, code):
        """``predict(user)`` of each of many users by row number, -1 for unknown: (n, n_items), float64, a fresh array."""
        return self._respond(self._score_users(code))

    def _score_pairs(self, user, item, handle_unknown=None):
        """Scores in the shape of the row numbers ``user`` and ``item``, -1 for unknown; in float64, so that ranks agree."""
        scores = np.empty(user.size)
        for start in range(0, user.size, BLOCK):
            part = slice(start, start + BLOCK)
            p, b_u = self._user(user.ravel()[part], handle_unknown)
            q, b_i = self._item(item.ravel()[part], handle_unknown)
            scores[part] = np.einsum("nk,nk->n", p, q) + b_u + b_i
        return scores.reshape(user.shape)

    def _score_all_items(self, factors, biases):
        """Scores (n, n_items) of users given by factors (n, n_factors) and biases (n,), all in float64."""
        scores = factors @ self.item_factors_.T.astype(np.float64)
        scores += biases[:, None]
        if self._biased:
            scores += self.item_biases_
        alike = self._mean_items()
        if len(alike) > 1:
            scores[:, alike] = scores[:, alike[:1]]
        return scores

    def _mean_items(self):
        """Numbers of the items that have the mean row: what a matrix product rounds differently by column must tie all the same."""
        unseen = np.flatnonzero(self.item_counts_ == 0)
        alike = (self.item_factors_[unseen] == self.mean_item_).all(axis=1)
        return unseen[alike & (self.item_biases_[unseen] == 0) if self._biased else alike]

    def _user(self, code, handle_unknown=None):
        """Factors (n, n_factors) and constant part (n,) of the score, the global mean included, of user numbers."""
        biases = self.user_biases_ if self._biased else None
        factors, constant = self._side(code, handle_unknown, "user", self.user_factors_, self.mean_user_, biases, self.user_counts_)
        return factors, constant + (self.global_mean_ if self._biased else 0.0)

    def _item(self, code, handle_unknown=None):
        biases = self.item_biases_ if self._biased else None
        return self._side(code, handle_unknown, "item", self.item_factors_, self.mean_item_, biases, self.item_counts_)

    def _side(self, code, handle_unknown, role, factors, mean, biases, counts):
        handle_unknown = handle_unknown or self.handle_unknown
        unknown = code < 0
        rows = factors[code].astype(np.float64)
        constant = np.zeros(len(code)) if biases is None else biases[code].astype(np.float64)
        rows[unknown], constant[unknown] = mean, 0.0  # biases have mean zero
        if handle_unknown != "mean":
            unknown |= counts[code] == 0  # these hold the mean already
            if handle_unknown == "error" and unknown.any():
                raise ValueError(
                    f'The {role} id of row {int(np.argmax(unknown))} was not seen in fit. Drop it, or use handle_unknown="mean".'
                )
            rows[unknown] = np.nan
        return rows, constant

    def _respond(self, scores):
        """The response of raw scores, by the inverse link."""
        return self._pointwise().response(torch.from_numpy(scores)).numpy()

    def _pointwise(self):
        """A pointwise loss with the model's link."""
        return POINTWISE["squared_error"]

    def fold_in(self, X):
        """Fit new users to the fixed items, from what is known of them alone.

        Parameters
        ----------
        X : sparse matrix of shape (n_rows, n_items)
            What ``fit`` would be told of new users; column j is the item ``items_[j]``, whatever form ``fit`` saw.

        Returns
        -------
        ndarray of shape (n_rows, n_factors) or, for a biased model, (n_rows, n_factors + 1), float64
            Factors, then the user's bias. Shrunk towards the mean user, which is what an empty row gets.
        """
        check_is_fitted(self)
        return self._fold_in(self._read_new_users(X))

    def _fold_in(self, data):
        """Rows, in float64, of the users of a container."""
        raise NotImplementedError

    def _read_new_users(self, X, y=None, sample_weight=None):
        if not sp.issparse(X):
            raise TypeError(f"New users' ratings must be a scipy sparse matrix. Got {type(X).__name__}.")
        if X.shape[1] != self.n_items_:
            raise ValueError(
                f"X has {X.shape[1]} features, but {type(self).__name__} is expecting {self.n_items_} features as input: "
                "one column for each of items_."
            )
        return forms.read_matrix(X, y, sample_weight)

    def transform(self, X):
        """Turn X into features for a later step.

        Parameters
        ----------
        X : in the form ``fit`` saw
            Sparse matrix (n_rows, n_items), table or container of n interactions.

        Returns
        -------
        ndarray of float64
            For a sparse matrix ``fold_in(X)``. For a table or container the user's factors beside the item's,
            (n, 2 * n_factors). The factors of rows that ``fit`` saw know their ratings: train a later step on other rows.
        """
        check_is_fitted(self)
        if sp.issparse(X) != (self.form_ == forms.SPARSE):
            raise ValueError(
                f"transform takes X in the form fit saw ({self.form_}). Got {forms.form_of(X)}. Use fold_in for a sparse "
                "matrix of new users."
            )
        if sp.issparse(X):
            return self.fold_in(validate_data(self, X=X, reset=False, skip_check_array=True))
        user, item = forms.read_ids(self, X)
        return np.hstack([self._user(user)[0], self._item(item)[0]])

    def inverse_transform(self, rows):
        """Predict all items for users given by their rows.

        Parameters
        ----------
        rows : array-like of shape (n_rows, width)
            As ``fold_in`` gives them.

        Returns
        -------
        ndarray of shape (n_rows, n_items), float64
            Predictions; ``inverse_transform(fold_in(X))`` is ``predict(X)``.
        """
        return self._respond(self._score_rows(rows))

    def _score_rows(self, rows):
        """Scores (n_rows, n_items) of users given by rows as ``fold_in`` gives them."""
        check_is_fitted(self)
        rows = np.asarray(rows, dtype=np.float64)
        n_factors = self.item_factors_.shape[1]
        if rows.ndim != 2 or rows.shape[1] != n_factors + self._biased:
            raise ValueError(f"rows must have shape (n_rows, {n_factors + self._biased}), as fold_in gives them. Got {rows.shape}.")
        check_memory(
            8 * len(rows) * self.n_items_,
            f"A dense array of {len(rows)} x {self.n_items_} predictions",
            "Pass fewer rows, use recommend for the best items, or predict(users, items) for pairs.",
        )
        return self._score_all_items(*self._split(rows))

    def _split(self, rows):
        """Rows (n, width) of new users as factors (n, n_factors) and the constant part (n,) of their scores."""
        n_factors = self.item_factors_.shape[1]
        return rows[:, :n_factors], rows[:, -1] + self.global_mean_ if self._biased else np.zeros(len(rows))

    def get_feature_names_out(self, input_features=None):
        """Name the columns of ``transform``.

        Parameters
        ----------
        input_features : array-like of str, optional
            Ignored: the names depend on the form of X alone.

        Returns
        -------
        ndarray of str objects of shape (n_features_out,)
            ``factor0``, ``factor1`` and so on, and ``bias`` for a biased model, after a fit on a sparse matrix; else
            ``user_factor0`` and so on, then ``item_factor0`` and so on.
        """
        check_is_fitted(self)
        n_factors = self.item_factors_.shape[1]
        if self.form_ == forms.SPARSE:
            names = [f"factor{j}" for j in range(n_factors)] + ["bias"] * self._biased
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
        of_biases = {"user_biases_": (self.n_users_,), "item_biases_": (self.n_items_,)} if self._biased else {}
        return super()._shapes() | of_factors | of_biases

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        return tags
