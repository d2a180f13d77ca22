"""What a fitted factorization recommends, and why: best items, parts of scores, neighbours, vectors for an index, a module."""

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.utils.validation import check_is_fitted

from sk_torchmf._progress import progress_bar
from sk_torchmf._validation import check_count, check_memory
from sk_torchmf.estimators._docs import documented
from sk_torchmf.estimators._fitting import described_of
from sk_torchmf.estimators._prediction import FactorPredictor, check_pairs_known
from sk_torchmf.inputs.labels import label
from sk_torchmf.inputs.queries import is_scalar, read_candidates, read_labels, read_query, read_users
from sk_torchmf.inputs.side_features import ROLES
from sk_torchmf.inputs.stored_pattern import StoredPattern
from sk_torchmf.model.explanation import split_scores
from sk_torchmf.nn import Response
from sk_torchmf.nn.top_k import rank

AT_ONCE = 2**13  # users whose rows are read from disk together


class Recommender(FactorPredictor):
    """``recommend`` and its neighbours."""

    @documented()
    def recommend(self, users=None, k=10, *, exclude_seen=True, items=None, progress=False, user_features=None, item_features=None):
        """Recommend the k best items of each user.

        Parameters
        ----------
        @users
        @k
        @exclude_seen
        @items
        @progress
        @user_features
        @item_features

        Returns
        -------
        @items
        @scores
        """
        model, own = self._knowing(users, user_features, item_features)
        return model._recommend(users, k, exclude_seen, items, progress, own)

    def _recommend(self, users, k, exclude_seen, items, progress, user_features=None, rng=None):
        """See ``recommend``; with a random generator the rows of both sides are drawn from their posteriors."""
        k, model = check_count(k, "k"), self._factors
        if sp.issparse(users):
            code, seen = None, sp.csr_array(users) if exclude_seen else None
            factors, constant = model.split(self.fold_in(users, user_features=user_features))
        else:
            code = read_users(self, users, "pass its ratings as sparse")
            factors, constant = model.users.at(code) if rng is None else model.draw(rng, "user", code)
            seen = None
            if exclude_seen:  # of a data set on disk some at a time
                stored = isinstance(self.seen_, StoredPattern)
                seen = StoredRows(self.seen_, code) if stored else select_rows(self.seen_, code)
        candidates = read_candidates(self, items)
        rows = model.items.at(None if items is None else candidates) if rng is None else model.draw(rng, "item", candidates)
        user_factors, item_factors, item_biases = map(torch.from_numpy, (factors, *rows))
        found, scores = best_candidates(
            lambda block: torch.addmm(item_biases, user_factors[block], item_factors.T), len(factors), candidates, k, seen, progress
        )
        scores, remain = scores + (constant + model.constant)[:, None], found >= 0
        of_scores = None if code is None else code.repeat(np.count_nonzero(remain, axis=1))
        scores[remain] = self._respond(scores[remain], user=of_scores)
        ids = label(found, self.items_)
        return (ids[0], scores[0]) if is_scalar(users) else (ids, scores)

    @documented()
    def explain(self, user_ids, item_ids=None, *, by="item", user_features=None, item_features=None):
        """Explain the scores of pairs by parts that add up to them.

        Parameters
        ----------
        user_ids : table, Interactions, array-like or scalar
            As in ``predict``, except that a sparse matrix is refused.
        item_ids : array-like or scalar, optional
            Item ids, broadcast against ``user_ids``.
        by : {"item", "user"}, default="item"
            Whether the part ``"interaction"`` is divided by the features of items or by those of users.
        @user_features
        @item_features

        Returns
        -------
        dict of str to ndarray of float64
            The parts, each of the shape that ``predict`` returns, in units of the score. The score is the prediction, before
            ``clip`` and before the exponential, sigmoid or cut points that some losses have. The parts are

            - ``"mean"``: the score of the average user and item, the same for all pairs;
            - ``"user"``: what the user adds to it with the average item;
            - ``"item"``: what the item adds to it with the average user;
            - ``"interaction"``: what this user and this item add together;
            - ``"context"``: the biases of ``effects`` and ``time``, if the table or container has these.

            If users have features, ``"user"`` is divided into one part for each group of features, such as ``"user age"``, and the
            rest, ``"user (own)"``. ``"item"`` is divided in the same way, and ``"interaction"`` as ``by`` says.

        Raises
        ------
        ValueError
            As in ``predict``, and for a sparse matrix.
        MemoryError
            If the parts would not fit into memory.

        Notes
        -----
        The part of a group is its columns of ``item_feature_weights_`` times the encoded features, less the average of this over
        the observed items. These weights are those of an item without observations, whose own part is therefore zero. What an item
        was observed with, ``seen_features``, belongs to its own part.

        Examples
        --------
        >>> import pandas as pd
        >>> from sk_torchmf import BiasedMatrixFactorization
        >>> X = pd.DataFrame({"user": ["ann", "ann", "bob", "bob"], "item": ["tea", "milk", "tea", "cola"]})
        >>> drinks = pd.DataFrame({"hot": [True, False, False]}, index=["tea", "milk", "cola"])
        >>> model = BiasedMatrixFactorization(n_factors=2, user="user", item="item", random_state=0)
        >>> parts = model.fit(X, [5, 2, 5, 1], item_features=drinks).explain("ann", ["tea", "cola"])
        >>> list(parts)
        ['mean', 'user', 'item hot', 'item (own)', 'interaction hot', 'interaction (own)']
        >>> bool(abs(sum(parts.values()) - model.predict("ann", ["tea", "cola"])).max() < 1e-9)
        True
        """
        check_is_fitted(self)
        if not isinstance(by, str) or by not in ROLES:
            raise ValueError(f'by must be "item" or "user". Got {by!r}.')
        if item_ids is None and sp.issparse(user_ids):
            raise ValueError("explain needs users that fit saw. Got a sparse matrix of new users. Use partial_fit to add them.")
        model, _ = self._knowing(None, user_features, item_features)
        user, item = model._pairs(user_ids, item_ids)
        state, factors = vars(model), model._factors
        if self.handle_unknown == "error":
            check_pairs_known(factors, user, item)
        features = [described_of(state, role).encoded if f"{role}_features_" in state else None for role in ROLES]
        of_sides = [1 if own is None else len(own.groups) + 1 for own in features]
        n_parts = 1 + sum(of_sides) + of_sides[ROLES.index(by)]
        check_memory(8 * n_parts * user.size, f"The split of {user.size} scores into {n_parts} parts", "Pass fewer pairs.")
        parts = split_scores(factors, user.ravel(), item.ravel(), features, by, self.handle_unknown == "nan")
        parts |= model._parts_of_context(user_ids if item_ids is None else None)
        return {name: part.reshape(user.shape) for name, part in parts.items()}

    def _pairs(self, user_ids, item_ids):
        """Row numbers of what ``predict`` is asked for, of one shape."""
        user, item = read_query(self, user_ids, item_ids)
        return np.broadcast_arrays(user, np.arange(self.n_items_) if item is None else item)

    def _parts_of_context(self, X):
        """What the rows of X have in their scores beside users and items: arrays (n,) by name."""
        return {}

    def similar_items(self, items, k=10):
        """Find the items whose factors are most similar, by the cosine.

        Parameters
        ----------
        items : array-like of shape (n,) or scalar
            Known item ids.
        k : int, default=10
            Number of neighbours.

        Returns
        -------
        items : ndarray of shape (n, k)
            The most similar items first, without the item itself. If fewer than k remain, the rest is filled as in ``recommend``.
            For one item both arrays have the shape (k,).
        similarities : ndarray of shape (n, k), float64
            Cosines of the factors, between -1 and 1; -inf where no item remains.
        """
        check_is_fitted(self)
        return self._similar(items, check_count(k, "k"), "item")

    def similar_users(self, users, k=10):
        """Find the users whose factors are most similar, by the cosine.

        Parameters
        ----------
        users : array-like of shape (n,) or scalar
            Known user ids.
        k : int, default=10
            Number of neighbours.

        Returns
        -------
        users : ndarray of shape (n, k)
            The most similar users first, without the user. If fewer than k remain, the rest is filled as in ``recommend``. For one
            user both arrays have the shape (k,).
        similarities : ndarray of shape (n, k), float64
            Cosines of the factors, between -1 and 1; -inf where no user remains.
        """
        check_is_fitted(self)
        return self._similar(users, check_count(k, "k"), "user")

    def embeddings(self):
        """Return vectors whose inner product is the raw score, for a nearest-neighbour index.

        Returns
        -------
        users : ndarray of shape (n_users, width)
            The vectors of the users, in the order of ``users_`` and the precision of the factors. Their length is ``n_factors``. In
            a biased model it is two more, for the columns ``[P, b_u + mu, 1]``.
        items : ndarray of shape (n_items, width)
            The vectors of the items, in the order of ``items_``; in a biased model the columns are ``[Q, 1, b_i]``. The raw score
            is the prediction, before the exponential of ``poisson``, the sigmoid of ``logistic`` or the cut points of ``ordinal``.
        """
        check_is_fitted(self)
        return self._factors.embeddings()

    def to_module(self):
        """Return the fitted model as a ``torch.nn.Module``, for ``torch.export`` or ONNX.

        Returns
        -------
        torch.nn.Module
            A module on the CPU, in evaluation mode. Its ``forward(user, item)`` takes int64 tensors of shape (n,), which are
            positions in ``users_`` and ``items_``, and returns the same as ``predict``, of shape (n,) and in the precision of the
            factors. The position -1 stands for an unknown id. For it, and for positions that were never observed, the prediction is
            as ``handle_unknown`` says, or NaN if that is "error".

        Raises
        ------
        ValueError
            If users have cut points of their own, as with ``loss="ordinal", cut_points="user"``.

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
        self._check_module()
        return Response(self._factors.to_module(nan=self.handle_unknown != "mean"), self._link(), self._limits()).eval()

    def _check_module(self):
        """Refuse ``to_module`` of a model whose predictions are no function of the score."""

    def _limits(self):
        """The lowest and the highest prediction, None where there are none."""
        return None

    def _similar(self, ids, k, role):
        labels = self.users_ if role == "user" else self.items_
        code = read_labels(ids, labels, role, f"{role}s")
        if (code < 0).any():
            raise ValueError(f"{role}s[{int(np.argmax(code < 0))}] was not seen in fit, so it has no neighbours.")
        found, cosine = self._factors.similar(role, code, k)
        ids_found = label(found, labels)
        return (ids_found[0], cosine[0]) if is_scalar(ids) else (ids_found, cosine)


def best_candidates(score, n_users, candidates, k, seen, progress=False):
    """The k best candidates of each user.

    Parameters
    ----------
    score : callable
        Takes a slice of the users, returns their scores, a Tensor of shape (b, n_candidates).
    n_users : int
    candidates : ndarray of shape (n_candidates,)
        Row numbers of items.
    k : int
    seen : CSR array of shape (n_users, n_items), StoredRows or None
        What to leave out.
    progress : bool
        Whether to show how far it is.

    Returns
    -------
    items : ndarray of shape (n_users, k), int64
        Row numbers, -1 where fewer than k remain.
    scores : ndarray of shape (n_users, k), float64
        -inf there.
    """
    parts = []
    with progress_bar("recommend", n_users, "user", progress) as bar:
        for start, own in [(0, seen)] if not isinstance(seen, StoredRows) else seen:
            if own is not None and len(candidates) < own.shape[1]:
                own = sp.csr_array((own.data, own.indices, own.indptr), shape=own.shape)[:, candidates]
            n = n_users if own is None else own.shape[0]

            def of_block(block, start=start):
                return score(slice(start + block.start, start + block.stop))

            parts.append(rank(of_block, n, len(candidates), k, excluded=own, done=bar.update))
    found, scores = parts[0] if len(parts) == 1 else map(np.concatenate, zip(*parts, strict=True))
    return (np.where(found < 0, -1, candidates[found]) if len(candidates) else found), scores


def select_rows(matrix, code):
    """Rows of a CSR array or StoredPattern by number, an empty row for -1: SciPy's own indexing takes a tenth of a millisecond."""
    if isinstance(matrix, StoredPattern):
        pointers, columns = matrix.select(code)
        return SelectedRows(np.ones(len(columns), dtype=bool), columns, pointers, (len(code), matrix.shape[1]))
    known = code >= 0
    starts = matrix.indptr[code]  # of -1 it is the last, which is not used
    lengths = np.where(known, matrix.indptr[np.where(known, code + 1, 0)] - starts, 0)
    pointers = np.concatenate([[0], np.cumsum(lengths)])
    place = np.arange(pointers[-1]) + np.repeat(starts - pointers[:-1], lengths)
    return SelectedRows(matrix.data[place], matrix.indices[place], pointers, (len(code), matrix.shape[1]))


class StoredRows:
    """Rows of a StoredPattern by number, read some at a time: what all users have seen need not fit in memory.

    Parameters
    ----------
    pattern : StoredPattern
    code : ndarray of shape (n,), int
        -1 is an empty row.
    """

    def __init__(self, pattern, code):
        self.pattern, self.code = pattern, code

    def __iter__(self):
        """Yield the place of the first of some rows, and these as SelectedRows; no rows at all are one part too."""
        for start in range(0, max(len(self.code), 1), AT_ONCE):
            yield start, select_rows(self.pattern, self.code[start : start + AT_ONCE])


class SelectedRows(NamedTuple):
    """Rows of a sparse matrix, by the attributes that a CSR array has."""

    data: np.ndarray
    indices: np.ndarray
    indptr: np.ndarray
    shape: tuple[int, int]
