"""The features of one side's rows in groups of columns, and the regression of rows on them. Knows tensors only."""

from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F

from sk_torchmf.nn import Pairs
from sk_torchmf.nn.plan import cut_rows

SEEN = "(seen)"  # the group of what a row was observed with
MISSING = "(missing)"  # the group of rows whose features are not known
TINY = 1e-30


class FeatureColumns:
    """A group of columns: an encoded attribute, divided by the root of its rows' mean square: no result depends on its scale.

    Parameters
    ----------
    matrix : CSR array of shape (n_rows, n_columns)
    like : Tensor
        Of the dtype and on the device that products are to have.
    plan : Plan, optional
        Through which sums over the rows go; None where every process has all rows.

    Attributes
    ----------
    scale : float
        What the columns were divided by.
    n_columns : int
    """

    def __init__(self, matrix, like, plan=None):
        matrix = sp.csr_array(matrix)
        self.n_columns = matrix.shape[1]

        def measure(rows):
            pointers = matrix.indptr[rows.start : rows.stop + 1]
            values = matrix.data[pointers[0] : pointers[-1]]
            return [float(np.square(values, dtype=np.float64).sum()), np.count_nonzero(np.diff(pointers))]

        square, described = measure(slice(0, matrix.shape[0])) if plan is None else plan.total_over_users(measure)
        self.scale = (square / max(described, 1)) ** 0.5 or 1.0
        self.matrix, self.like = matrix, like.new_empty(0)
        self.parts = [_bags(part, self.scale, like) for part in (matrix, sp.csr_array(matrix.T.tocsr()))]
        self.of_slices: dict = {}  # the transposed columns of some rows, by where these begin and end

    def dot(self, B, square=False):
        """Multiply by coefficients (n_columns, width): (n_rows, width); with the squares of the columns if asked for."""
        return _sum_bags(self.parts[0], B, square)

    def tdot(self, X, square=False, some=None):
        """Multiply the transpose by rows (n_rows, width), all or those of a slice: (n_columns, width)."""
        if some is None:
            return _sum_bags(self.parts[1], X, square)
        place = some.start, some.stop
        if place not in self.of_slices:
            self.of_slices[place] = _bags(sp.csr_array(self.matrix[some].T.tocsr()), self.scale, self.like)
        return _sum_bags(self.of_slices[place], X[some], square)


def _bags(matrix, scale, like):
    pointers, columns = (torch.from_numpy(part.astype(np.int32)).to(like.device) for part in (matrix.indptr, matrix.indices))
    return pointers, columns, torch.from_numpy(matrix.data / scale).to(like)


def _sum_bags(part, table, square):
    pointers, columns, value = part
    value = value.square() if square else value
    return F.embedding_bag(columns, table.contiguous(), pointers, mode="sum", per_sample_weights=value, include_last_offset=True)


class SeenColumns:
    r"""The group of what rows were observed with: :math:`1 / \sqrt{n}` at each of a row's n others (SVD++). Nothing is stored.

    Parameters
    ----------
    pairs : Pairs
        What was observed, each pair once, rows of this side first: ``pairs`` for users and ``pairs.T`` for items.
    like : Tensor

    Attributes
    ----------
    scale : float
    n_columns : int
    """

    scale = 1.0

    def __init__(self, pairs, like):
        self.pairs, self.n_columns = pairs, pairs.shape[1]
        self.power = pairs.pointers.diff().clamp_min(1).to(like).rsqrt()[:, None]  # (n_rows, 1)

    def dot(self, B, square=False):
        """As of ``FeatureColumns``."""
        return _sum_seen(self.pairs, B).mul_(self._power(square))

    def tdot(self, X, square=False, some=None):
        """As of ``FeatureColumns``."""
        if some is None:
            return _sum_seen(self.pairs.T, X * self._power(square))
        return _sum_seen(self.pairs.between(some.start, some.stop)[1].T, X[some] * self._power(square)[some])

    def _power(self, square):
        return self.power.square() if square else self.power


def _sum_seen(pairs, table):
    return F.embedding_bag(pairs.columns, table.contiguous(), pairs.pointers, mode="sum", include_last_offset=True)


class Design:
    """Groups of columns of one side's rows; before them all, in column 0, the constant.

    Parameters
    ----------
    n_rows : int
        Of this process.
    groups : dict of str to FeatureColumns or SeenColumns
        By their names.
    plan : Plan, optional
        Through which sums over the rows go; None where every process has all rows.

    Attributes
    ----------
    slices : dict of str to slice
        The columns of each group.
    n_columns : int
        The constant included.
    """

    def __init__(self, n_rows, groups, plan=None):
        self.n_rows, self.groups, self.plan = n_rows, groups, plan
        edges = np.cumsum([1, *(group.n_columns for group in groups.values())]).tolist()
        self.slices = {name: slice(*ends) for name, *ends in zip(groups, edges[:-1], edges[1:], strict=True)}
        self.n_columns = edges[-1]

    @property
    def is_exact(self):
        """Whether the numbers of the rows must have the same bits whatever other rows there are, see ``ExactPlan``."""
        return self.plan is not None and self.plan.is_exact

    def product(self, rows, matrix):
        """Multiply rows (n_rows, width) by a matrix; where exact block by block, since rounding depends on sizes and on places."""
        if not self.is_exact:
            return rows @ matrix
        return torch.cat([rows[some].clone() @ matrix for some in self.plan.users()])

    def only(self, names):
        """The design of some of the groups."""
        return Design(self.n_rows, {name: self.groups[name] for name in names}, self.plan)

    def total(self, function):
        """Sum over the rows: a function of a slice of them returns the parts, see ``Plan.total_over_users``."""
        if self.plan is not None:
            return self.plan.total_over_users(function)
        parts = [function(some) for some in cut_rows(0, self.n_rows)]
        return parts[0] if len(parts) == 1 else [sum(part) for part in zip(*parts, strict=True)]

    def dot(self, B, square=False):
        """The products of the rows' features with coefficients (n_columns, width): (n_rows, width), a view where all are alike."""
        if not self.groups:
            return B[:1].expand(self.n_rows, -1)
        sums = [group.dot(B[self.slices[name]], square) for name, group in self.groups.items()]
        return sum(sums[1:], sums[0].add_(B[0]))

    def tdot(self, X, square=False):
        """The sums of rows (n_rows, width), weighted by each of their features: (n_columns, width)."""
        (constant,) = self.total(lambda some: [X[some].sum(0, keepdim=True)])
        parts = [constant]
        for group in self.groups.values():
            if self.is_exact:
                (part,) = self.plan.total_over_users(lambda some, own=group: [own.tdot(X, square, some)])
            else:
                part = group.tdot(X, square)
                if self.plan is not None:
                    self.plan.add(part)
                    (part,) = self.plan.total()
            parts.append(part)
        return torch.cat(parts)


@dataclass(frozen=True)
class SideFeatures:
    """What is known of the rows of both sides, as an estimator hands it to a solver.

    Attributes
    ----------
    users, items : dict of str to CSR array of shape (n, n_columns)
        Groups of encoded columns by their names.
    seen_by : {"user", "item", "both", None}
        Whose rows have what they were observed with for features.
    """

    users: dict = field(default_factory=dict)
    items: dict = field(default_factory=dict)
    seen_by: str | None = None

    def designs(self, plan, like):
        """The designs of users and items."""
        seen, found = distinct(plan.pairs) if self.seen_by else None, []
        for role, matrices, pairs, n in (
            ("user", self.users, seen, plan.pairs.shape[0]),
            ("item", self.items, seen and seen.T, plan.n_items),
        ):
            over = plan if role == "user" else None
            groups: dict = {name: FeatureColumns(matrix, like, over) for name, matrix in matrices.items()}
            if self.seen_by in (role, "both"):
                groups[SEEN] = SeenColumns(pairs, like)
            found.append(Design(n, groups, over))
        return found


def distinct(pairs):
    """The pairs, each once."""
    pattern = pairs.tocsr()
    if pattern.nnz == pairs.n_pairs:
        return pairs
    pointers, columns = (torch.from_numpy(part.astype(np.int32)).to(pairs.device) for part in (pattern.indptr, pattern.indices))
    return Pairs.from_rows(pointers, columns, pairs.shape[1])


def regress(design, B, excess, weight, precision, n_steps):
    r"""Move coefficients towards those of the marginal likelihood, every coordinate of the rows on its own.

    With weights W and what is in excess of the present fit, both by row and coordinate, this is

    .. math:: (F^\top W_d F + p_d) \, \Delta_d = F^\top e_d - p_d B_d

    by conjugate gradients, preconditioned with the diagonal.

    Parameters
    ----------
    design : Design
    B : Tensor of shape (n_columns, width)
        The coefficients.
    excess, weight : Tensor of shape (n_rows, width)
        e and W, which is between 0 and 1.
    precision : Tensor of shape (n_columns, width)
        Of the coefficients' priors about zero.
    n_steps : int

    Returns
    -------
    change : Tensor of shape (n_columns, width)
    of_rows : Tensor of shape (n_rows, width)
        What it adds to the products of the rows' features with the coefficients.
    variance : Tensor of shape (n_columns, width)
        The coefficients' posterior variances, each as if the others were known.
    """
    left = design.tdot(excess) - precision * B
    diagonal = design.tdot(weight, square=True) + precision
    change, of_rows, direction, old = torch.zeros_like(B), torch.zeros_like(excess), torch.zeros_like(B), torch.ones_like(B[0])
    for number in range(n_steps):
        towards = left / diagonal
        new = (left * towards).sum(0)
        direction = torch.addcmul(towards, new / old.clamp_min(TINY), direction)
        old, image = new, design.dot(direction)
        weighted = weight * image
        square = weighted * image
        (bend,) = design.total(lambda some, square=square: [square[some].sum(0)])
        length = new / (bend + (precision * direction.square()).sum(0)).clamp_min(TINY)
        change.addcmul_(length, direction)
        of_rows += length * image  # not fused, which is rounded otherwise at the end of an array
        if number + 1 < n_steps:
            left = left - length * (design.tdot(weighted) + precision * direction)
    return change, of_rows, 1 / diagonal
