"""What a model of positives does beyond any factorization: how it folds new users in, and its score."""

from dataclasses import replace

import numpy as np
import scipy.sparse as sp
import torch

from sk_torchmf._forks import one_thread_if_forked
from sk_torchmf._validation import as_python, check_weights
from sk_torchmf.estimators._docs import documented
from sk_torchmf.estimators._fitting import reading_of
from sk_torchmf.estimators._prediction import attributes_of
from sk_torchmf.estimators._recommendation import Recommender
from sk_torchmf.estimators._saving import is_fitted_attribute
from sk_torchmf.inputs.queries import read_new_users, select_positives
from sk_torchmf.inputs.side_features import of_new_users
from sk_torchmf.metrics._evaluate import evaluate
from sk_torchmf.metrics._scorer import ranking_scorer
from sk_torchmf.model.factors import Side
from sk_torchmf.nn import POINTWISE, RANKING, BiasedMF, Pairs, PlainMF
from sk_torchmf.nn.sampling import POPULARITY_POWER
from sk_torchmf.solvers.cosine_softmax import suitable_temperature
from sk_torchmf.solvers.fold_in import fold_in_cosine, fold_in_ials, fold_in_ranking

AUTO, COSINE = "auto", "cosine"
INIT_STD = 0.3  # of random rows
IALS_ALPHA = 0.01  # regularisation of ials where nothing else is asked for


class PositivesPredictor(Recommender):
    """Base of ``ImplicitMatrixFactorization``: what follows its ``fit``."""

    # parameters
    loss: str
    alpha: float | str | None
    confidence: float | str | None
    biased: bool | None
    n_negatives: int
    negatives: str
    temperature: float | str
    dtype: str
    # what fit leaves
    alpha_: float
    confidence_: float
    temperature_: float
    pair_weights_: np.ndarray | None
    n_positives_: int
    n_active_users_: int

    def _link(self):
        return POINTWISE["squared_error"] if self.loss == "ials" else RANKING["softmax" if self.loss == COSINE else self.loss]

    def _earlier(self):
        weights = self._kept_for_more("pair_weights_")
        return reading_of(self, self.seen_, None, weights)

    @one_thread_if_forked
    def _fold_in(self, data, features=None):
        """Rows of the users of a container, every observation a positive; with nothing to learn from what features say."""
        if self.n_positives_ == 0:
            raise ValueError(
                "New users cannot be folded in, because this model was converted without its training data, so the items that "
                "its users have are not known. Pass the training Interactions to weights_from_spotlight(model, train)."
            )
        users = self._factors.users
        rows = users.expected(features, data.num_users)
        seen = sp.csr_array(
            sp.coo_array((np.ones(len(data)), (data.user_ids, data.item_ids)), shape=(data.num_users, data.num_items))
        )
        share = self._share()
        informed = np.diff(seen.indptr) > 0
        if self.loss != "ials":
            informed &= np.count_nonzero(share) > seen @ (share > 0).astype(np.float64)
        if informed.any():
            known = seen[np.flatnonzero(informed)]
            means = None if users.weights is None else users.weights.prior_means(data.num_users, features)[informed]
            solve = self._fold_in_ials if self.loss == "ials" else self._fold_in_ranking
            solve = self._fold_in_cosine if self.loss == COSINE else solve
            rows[informed] = solve(known, share, means)
        return rows

    def _has_biases(self):
        return self.loss == COSINE if self.biased is None else self.biased

    def _learned_from(self, factors, reading):
        shape = len(factors.users), len(factors.items)
        found = {"temperature_": self._temperature(*shape)} if self.loss == COSINE else {"alpha_": self._alpha()}
        if reading is None:
            return found | {"seen_": sp.csr_array(shape, dtype=bool), "n_positives_": 0, "n_active_users_": 0}
        data = reading.data
        weight = np.ones(len(data)) if data.weights is None else data.weights
        matrix = sp.csr_array(sp.coo_array((weight, (data.user_ids, data.item_ids)), shape=shape))
        found |= {"n_positives_": matrix.nnz, "n_active_users_": np.count_nonzero(np.diff(matrix.indptr))}
        confidence = 1.0 if self.confidence in (None, AUTO) else self.confidence
        return found | {"seen_": matrix.astype(bool), "pair_weights_": matrix.data, "confidence_": confidence}

    def _alpha(self):
        """The regularisation that is asked for, or else suits the loss."""
        if self.alpha not in (None, AUTO):
            return as_python(self.alpha)
        return IALS_ALPHA if self.loss == "ials" else RANKING[self.loss].alpha

    def _alpha_of_fit(self):
        """The regularisation that the rows were fitted with; a model that an earlier version saved does not tell."""
        return vars(self).get("alpha_", self._alpha())

    def _temperature(self, n_users, n_items):
        """That of the cosines which is asked for, or else suits so many users and items."""
        return suitable_temperature(n_users, n_items) if self.temperature == AUTO else as_python(self.temperature)

    def _share(self):
        """The chance of an item to be a negative, up to a factor, as in ``fit``."""
        if self.negatives == "popularity":
            return np.bincount(self.seen_.indices, minlength=self.n_items_) ** POPULARITY_POWER
        return (self.item_counts_ > 0).astype(np.float64)

    def _unit(self):
        """The mean weight of a positive in ``fit``, which those of new users have."""
        return self.item_counts_.sum() / self.n_positives_

    def _fold_in_ials(self, seen, share, means):
        known, dtype = share > 0, getattr(torch, self.dtype)
        biases = self.item_biases_ + self.global_mean_ if self._factors.biased else np.zeros(self.n_items_)
        features = torch.from_numpy(self.item_factors_ * known[:, None]).to(dtype)  # an item that nobody has is not there
        offset = torch.from_numpy(biases * known).to(dtype)
        pointers, columns = (torch.from_numpy(part.astype(np.int64)) for part in (seen.indptr, seen.indices))
        gain = torch.from_numpy(self.confidence_ * self._unit() * seen.data).to(dtype)
        means = None if means is None else torch.from_numpy(means[:, : features.shape[1]]).to(dtype)
        options = {"alpha": self._alpha_of_fit(), "n_items": int(known.sum()), "means": means}
        rows = fold_in_ials(pointers, columns, gain, features, offset, **options)
        return np.column_stack([rows.numpy(), np.zeros(len(rows))]) if self._factors.biased else rows.numpy()

    def _fold_in_cosine(self, seen, share, _means):
        k, items = self.item_factors_.shape[1], torch.tensor(self._item_rows(), dtype=getattr(torch, self.dtype), device="cpu")
        n_unobserved = np.count_nonzero(share) - seen @ (share > 0).astype(np.float64)
        known = (torch.from_numpy(values).to(items) for values in (share, share.sum() - seen @ share, n_unobserved))
        rows = fold_in_cosine(_plan(seen), items, *known, n_factors=k, temperature=self.temperature_)
        return rows[:, : k + self._factors.biased].numpy()

    def _item_rows(self):
        """Rows of the items as the solvers lay them out: [Q], or [Q, 1, b_i] with the level in the bias."""
        if not self._factors.biased:
            return self.item_factors_
        return np.column_stack([self.item_factors_, np.ones(self.n_items_), self.item_biases_ + self.global_mean_])

    def _fold_in_ranking(self, seen, share, means):
        k, dtype = self.item_factors_.shape[1], getattr(torch, self.dtype)
        kind = BiasedMF if self._factors.biased else PlainMF
        centre = kind(1, 1, k, generator=torch.Generator("cpu"), dtype=dtype).mean_rows(0.0)[0]
        if means is None:
            start = self.mean_user_
            start = np.tile(np.append(start, [0.0, 1.0]) if self._factors.biased else start, (seen.shape[0], 1))
        else:
            start = np.column_stack([means, np.ones(len(means))]) if self._factors.biased else means
            centre = torch.from_numpy(start).to(dtype)
        unit = self._unit()
        rows = fold_in_ranking(
            _plan(seen),
            torch.from_numpy(start).to(dtype, copy=True),
            torch.tensor(self._item_rows(), dtype=dtype, device="cpu"),
            centre,
            RANKING[self.loss],
            alpha=self._alpha_of_fit(),
            n_factors=k,
            n_negatives=as_python(self.n_negatives),
            seen=seen,
            share=share,
            item_count=self.item_counts_ / unit,
            typical=self.n_positives_ / self.n_active_users_,
        )
        return rows[:, : k + self._factors.biased].numpy()

    def _default_scoring(self):
        return ranking_scorer("ndcg", k=10)

    @documented()
    def score(self, X, y=None, sample_weight=None, *, user_features=None, item_features=None):
        """Return NDCG@10 of the recommendations, which leave out what ``fit`` saw.

        Parameters
        ----------
        X : table, Interactions or sparse matrix
            A table or container has the test items of known users. The rows of a sparse matrix are *new* users: four fifths of the
            items of each are folded in, and the rest are the test items, see ``model_selection.ranking_scorer``.
        y : array-like of shape (n,), optional
            Weights of the test items: an item of weight 0 is no test item, and all other weights count alike.
        sample_weight : array-like of shape (n,), optional
            The same as ``y``.
        @user_features
        @item_features

        Returns
        -------
        float
            The mean over the users with test items, between 0 and 1.
        """
        model, own = self._knowing(X, user_features, item_features)
        scorer = ranking_scorer("ndcg", k=10)
        if not sp.issparse(X):
            return scorer(model, select_positives(X, y, sample_weight))
        if y is not None:
            raise ValueError("y must be None when X is a sparse matrix, because its stored entries are the positives.")
        X = sp.csr_array(X)
        features = of_new_users(own, vars(self).get("user_encoder_"), X.shape[0])
        if sample_weight is not None:
            kept = check_weights(sample_weight, X.shape[0], "sample_weight", "user (row of X)") > 0
            X = X[np.flatnonzero(kept)]
            if features is not None:
                features = features.placed(np.where(kept, np.cumsum(kept) - 1, -1), X.shape[0])
        if features is None:
            return scorer(model, X)
        known, test = scorer.hold_out(X)
        return evaluate(model._of_users(read_new_users(model, known), features), test, "ndcg", k=10)["ndcg"][10]

    def _of_users(self, data, features):
        """The estimator whose users are those of a container, folded in with their EncodedFeatures."""
        factors, biases = self._factors.split(self._fold_in(data, features))
        n, pairs = data.num_users, (data.user_ids, data.item_ids)
        users = Side(factors, biases if self._has_biases() else None, self.mean_user_, np.ones(n))
        seen = sp.csr_array(sp.coo_array((np.ones(len(data), dtype=bool), pairs), shape=(n, self.n_items_)))
        kept = {name: value for name, value in vars(self).items() if is_fitted_attribute(name) and not name.startswith("user_")}
        kept |= attributes_of(replace(self._factors, users=users))
        return self._as_fitted(kept | {"users_": np.arange(n), "n_users_": n, "seen_": seen})


def _plan(seen):
    """The stored entries of a CSR array as Pairs."""
    pointers, columns = (torch.from_numpy(part.astype(np.int32)) for part in (seen.indptr, seen.indices))
    return Pairs.from_rows(pointers, columns, seen.shape[1])
