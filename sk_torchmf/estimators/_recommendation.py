"""What a fitted factorization recommends: best items of users, neighbours, vectors for an index, a module to export."""

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.utils.validation import check_is_fitted

from sk_torchmf._validation import check_count
from sk_torchmf.estimators._prediction import BaseFactorization
from sk_torchmf.estimators._ranked import best_candidates, is_scalar, label, select_rows
from sk_torchmf.inputs import forms
from sk_torchmf.inputs import labels as _labels
from sk_torchmf.nn import BiasedMF, PlainMF, Response
from sk_torchmf.nn.top_k import rank_rows


class Recommender(BaseFactorization):
    """``recommend`` and its neighbours."""

    def recommend(self, users=None, k=10, *, exclude_seen=True, items=None, progress=False):
        """Recommend the k best items of each user.

        Parameters
        ----------
        users : array-like of shape (n,), scalar, Interactions, or sparse matrix of shape (n, n_items), optional
            User ids as ``fit`` saw them; all known users by default. A sparse matrix holds what is known of new users. An unknown
            user gets the items that the mean user likes best. Interactions stand for the users who occur in them, in order.
        k : int, default=10
            How many.
        exclude_seen : bool, default=True
            Leave out the items a user was observed with in ``fit`` (in the row, for a sparse matrix).
        items : array-like of shape (m,), optional
            Candidates, as item ids; all by default.
        progress : bool, default=False
            Show how far it is, on stderr: a bar if tqdm is there.

        Returns
        -------
        items : ndarray of shape (n, k)
            Best first, in the ids ``fit`` saw; ties by the order of ``items_``. Where fewer than k remain, the rest is -1, or None
            where ids are not numbers. For a scalar user both arrays have shape (k,).
        scores : ndarray of shape (n, k), float64
            Predictions; -inf where no item remains.
        """
        return self._recommend(users, k, exclude_seen, items, progress)

    def _recommend(self, users, k, exclude_seen, items, progress, draw=None):
        """See ``recommend``; ``draw`` moves the factors (n, n_factors) and constants (n,) of a side's row numbers."""
        check_is_fitted(self)
        k = check_count(k, "k")
        if sp.issparse(users):
            code, seen = None, sp.csr_array(users)
            factors, constant = self._split(self.fold_in(users))
        else:
            code = forms.read_users(self, users)
            factors, constant = self._user(code, "mean")
            seen = select_rows(self.seen_, code)
        candidates = forms.read_candidates(self, items)
        item_factors, item_constant = self._item(candidates, "mean")
        if draw is not None:
            factors, constant = draw("user", code, factors, constant)
            item_factors, item_constant = draw("item", candidates, item_factors, item_constant)
        user_rows = torch.from_numpy(np.column_stack([factors, np.ones(len(factors))]))
        item_rows = torch.from_numpy(np.column_stack([item_factors, item_constant]))
        found, scores = best_candidates(
            lambda block: user_rows[block] @ item_rows.T, len(user_rows), candidates, k, seen if exclude_seen else None, progress
        )
        scores, remain = scores + constant[:, None], found >= 0
        scores[remain] = self._respond(scores[remain])
        ids = label(found, self.items_)
        return (ids[0], scores[0]) if is_scalar(users) else (ids, scores)

    def similar_items(self, items, k=10):
        """Find the items whose factors point most nearly the same way.

        Parameters
        ----------
        items : array-like of shape (n,) or scalar
            Known item ids.
        k : int, default=10
            How many neighbours.

        Returns
        -------
        items : ndarray of shape (n, k)
            Nearest first, without the item itself; -1 (None where ids are not numbers) where fewer than k remain. For a scalar both
            arrays have shape (k,).
        similarities : ndarray of shape (n, k), float64
            Cosines of the factors, between -1 and 1; -inf where no item remains.
        """
        check_is_fitted(self)
        return _similar(items, self.items_, self.item_factors_, check_count(k, "k"), "item")

    def similar_users(self, users, k=10):
        """Find the users whose factors point most nearly the same way; as ``similar_items``.

        Parameters
        ----------
        users : array-like of shape (n,) or scalar
            Known user ids.
        k : int, default=10
            How many neighbours.

        Returns
        -------
        users : ndarray of shape (n, k)
            Nearest first, without the user; filled up as in ``similar_items``.
        similarities : ndarray of shape (n, k), float64
            Cosines of the factors, between -1 and 1; -inf where no user remains.
        """
        check_is_fitted(self)
        return _similar(users, self.users_, self.user_factors_, check_count(k, "k"), "user")

    def embeddings(self):
        """Return vectors whose inner product is the raw score, for a nearest-neighbour index.

        Returns
        -------
        users : ndarray of shape (n_users, width)
            In the order of ``users_`` and the precision of the factors. The width is ``n_factors``, and two more for a biased
            model: ``[P, b_u + mu, 1]``.
        items : ndarray of shape (n_items, width)
            In the order of ``items_``; ``[Q, 1, b_i]`` for a biased model. The raw score is the prediction but for the inverse
            link of ``poisson`` and ``logistic``.
        """
        check_is_fitted(self)
        if not self._biased:
            return self.user_factors_.copy(), self.item_factors_.copy()
        dtype = self.user_factors_.dtype
        users = [self.user_factors_, self.user_biases_ + self.global_mean_, np.ones(self.n_users_)]
        items = [self.item_factors_, np.ones(self.n_items_), self.item_biases_]
        return np.column_stack(users).astype(dtype, copy=False), np.column_stack(items).astype(dtype, copy=False)

    def to_module(self):
        """Return the fitted model as a ``torch.nn.Module``, for ``torch.export`` or ONNX.

        Returns
        -------
        torch.nn.Module
            ``forward(user, item)`` takes int64 tensors of shape (n,), positions in ``users_`` and ``items_``, and returns what
            ``predict`` does, shape (n,), in the precision of the factors: the inverse link and ``clip=True`` included. -1 stands
            for an unknown id; it and positions that were never observed are predicted as ``handle_unknown`` says, NaN where that
            is an error. On the CPU, in evaluation mode.

        Examples
        --------
        >>> import torch
        >>> from sk_torchmf import BiasedMatrixFactorization, datasets
        >>> model = BiasedMatrixFactorization(random_state=0).fit(datasets.make_ratings(random_state=0).interactions)
        >>> pairs = torch.tensor([7, 7, -1]), torch.tensor([3, -1, 3])
        >>> n = torch.export.Dim("n")
        >>> program = torch.export.export(model.to_module(), pairs, dynamic_shapes={"user": {0: n}, "item": {0: n}})
        >>> program.module()(*pairs).shape
        torch.Size([3])
        """
        check_is_fitted(self)
        state = {}
        for side, mean, counts in (("user", self.mean_user_, self.user_counts_), ("item", self.mean_item_, self.item_counts_)):
            state[f"{side}_factors"] = _with_unknown(getattr(self, f"{side}_factors_"), mean, counts, self.handle_unknown)
            if self._biased:
                state[f"{side}_biases"] = _with_unknown(getattr(self, f"{side}_biases_"), 0.0, counts, self.handle_unknown)
        if self._biased:
            state["global_mean"] = np.asarray(self.global_mean_)
        kind = BiasedMF if self._biased else PlainMF
        sizes = self.n_users_ + 1, self.n_items_ + 1, self.user_factors_.shape[1]
        module = kind(*sizes, generator=torch.Generator("cpu"), dtype=torch.from_numpy(self.user_factors_).dtype)
        module.load_state_dict({name: torch.from_numpy(values) for name, values in state.items()})
        return Response(module, self._pointwise(), self._limits()).eval()

    def _limits(self):
        """The lowest and the highest prediction, None where there are none."""
        return None


def _with_unknown(rows, mean, counts, handle_unknown):
    """Rows, and one more at the end, which is where an index of -1 leads: that of the unknown."""
    rows = np.concatenate([rows, np.broadcast_to(np.asarray(mean, dtype=rows.dtype), (1, *rows.shape[1:]))])
    if handle_unknown != "mean":
        rows[np.append(counts == 0, True)] = np.nan
    return rows


def _similar(ids, labels, factors, k, role):
    code = _labels.lookup(np.atleast_1d(np.asarray(ids)), labels, role)
    if (code < 0).any():
        raise ValueError(f"{role}s[{int(np.argmax(code < 0))}] was not seen in fit, so it has no neighbours.")
    rows = factors.astype(np.float64)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
    itself = sp.csr_array((np.ones(len(code), dtype=bool), code, np.arange(len(code) + 1)), shape=(len(code), len(labels)))
    found, cosine = rank_rows(rows[code], rows, k, excluded=itself)
    ids_found = label(found, labels)
    return (ids_found[0], cosine[0]) if is_scalar(ids) else (ids_found, cosine)
