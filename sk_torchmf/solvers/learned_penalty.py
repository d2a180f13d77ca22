"""How far each group of features is believed, by what it says of rows that it was not learned from. Knows tensors only."""

import numpy as np
import torch
from scipy.optimize import lsq_linear

from sk_torchmf.solvers.design import regress

N_STEPS = 10  # of conjugate gradients
FREE = 1e-6  # of the constant's penalty
LEAST = 1e-3  # to which a group is believed at the least
SMOOTH = 1e-3  # of a group's mean square: groups that say the same are believed alike
DOUBT = 3.0  # standard errors of how well a group agrees with the rows that are taken off
HELD = 2**25  # numbers held at once


def learned_penalty(design, rows, weight, penalty):
    r"""The penalties of groups of coefficients with which these say no more of half the rows than the other half bears out.

    Coefficients are learned from either half of the rows with the penalties :math:`\rho` that are given, and say
    :math:`\hat x_{rg}`, group by group, of the rows of the other. A sum :math:`\sum_g t_g \hat x_{rg}` with
    :math:`0 \le t_g \le 1` that comes nearest to the rows, by their weights and about their mean, tells how far to believe each
    group. A coefficient becomes t times what it was with the penalty :math:`\rho / t + D (1 / t - 1)`, where D is half of
    :math:`\sum_r \Lambda_r f_{rj}^2`, in the mean over the group. Chance fits of one half say nothing of the other, however rows
    are scattered and whatever they weigh; but rows must not have come to know of the features before. Three standard errors are
    taken off how well a group agrees with the rows, and none is believed more than it were alone. Groups that say the same
    share what is believed of them: the penalty grows by :math:`1 + \sum_{h \ne g} t_h c_{gh}^2`, with the cosines :math:`c_{gh}` of
    what they say where these are positive.

    Parameters
    ----------
    design : Design
        At least one group.
    rows : Tensor of shape (n_rows, width)
        Relative to any row: what is common to all of them is no group's.
    weight : Tensor of shape (n_rows, width) or (n_rows, 1)
        :math:`\Lambda`.
    penalty : Tensor of shape (n_columns, width) or (n_columns, 1)
        :math:`\rho`; that of column 0, the constant, is neither used nor changed.

    Returns
    -------
    Tensor
        As ``penalty``, nowhere less.
    """
    gram, error = _products(design, rows, weight, penalty)
    if not gram[0, 0] > 0:
        return penalty
    belief, share = _beliefs(gram, error)
    information, penalty = design.tdot(weight, square=True) / 2, penalty.clone()
    for own, t, times in zip(design.slices.values(), belief, share, strict=True):
        if own.stop > own.start:
            penalty[own] = times * (penalty[own] / t + information[own].mean(0) * (1 / t - 1))
    return penalty


def halves(design):
    """Which half each row is in, (n_rows, 1), bool: by lot, for users by the lots of their items, wherever users are kept."""
    n = design.n_rows if design.plan is None else design.plan.n_items
    lot = torch.randint(2, (n,), generator=torch.Generator("cpu").manual_seed(0), dtype=torch.int32, device="cpu")
    if design.plan is not None:
        device = design.plan.device
        lot, of_items = torch.zeros(design.n_rows, dtype=torch.int32, device=device), lot.to(device)
        for rows, _, block in design.plan:
            lot[rows].index_add_(0, block.users.long(), of_items[block.columns.long()])
    return (lot % 2 == 1)[:, None]


def _products(design, rows, weight, penalty):
    """The weighted products, summed over the rows, of what is to be said and of what each group says, and how sure they are.

    Returns
    -------
    gram : ndarray of shape (1 + n_groups, 1 + n_groups)
    error : ndarray of shape (n_groups,)
        The standard errors of the first with the others, rows being draws.
    """
    n_groups, width = len(design.groups), rows.shape[1]
    n_rows = len(rows) if design.plan is None else design.plan.n_users  # the same on every process
    half = halves(design).to(rows.device)
    mass, centre = design.total(lambda some: [weight[some].sum(0), (weight[some] * rows[some]).sum(0)])
    excess = rows - centre / mass.clamp_min(torch.finfo(mass.dtype).tiny)
    penalty = penalty.clone()
    penalty[0] = FREE * mass.clamp_min(FREE)
    start = torch.zeros(design.n_columns, width, dtype=rows.dtype, device=rows.device)
    learned = [regress(design, start, part * excess, part, penalty, N_STEPS)[0] for part in (weight * ~half, weight * half)]
    gram, agreement = (
        torch.zeros(1 + n_groups, 1 + n_groups, dtype=torch.float64, device="cpu"),
        excess.new_zeros(n_groups, len(rows)),
    )
    step = max(1, HELD // (n_rows * (1 + n_groups) + 1))
    for first in range(0, width, step):
        at = slice(first, first + step)
        said = [excess[:, at]]
        for name, group in design.groups.items():
            one, other = (group.dot(A[design.slices[name], at]) for A in learned)
            said.append(torch.where(half, one, other))
        parts, own_weight = torch.stack(said), weight if weight.shape[1] == 1 else weight[:, at]
        mass, sums = design.total(lambda some, s=parts, w=own_weight: [w[some].sum(0), (s[:, some] * w[some]).sum(1)])
        parts -= (sums / mass.clamp_min(torch.finfo(mass.dtype).tiny))[:, None]
        weighted = parts * own_weight
        (products,) = design.total(lambda some, s=parts, w=weighted: [torch.einsum("gnm,hnm->gh", w[:, some], s[:, some])])
        gram += products.double().cpu()
        agreement += torch.einsum("gnm,nm->gn", weighted[1:], parts[0])
    (square,) = design.total(lambda some: [agreement[:, some].square().sum(1)])
    return gram.numpy(), square.double().sqrt().cpu().numpy()


def _beliefs(gram, error):
    """How far each group is believed, and how many times over it is said: (n_groups,) both."""
    size = np.sqrt(np.maximum(np.diag(gram), 1e-14 * gram[0, 0]))
    cosine = gram / np.outer(size, size)
    scale = size[1:] / size[0]
    values, vectors = np.linalg.eigh(cosine[1:, 1:] + SMOOTH * np.eye(len(scale)))
    root = np.sqrt(values)[:, None] * vectors.T  # its product with itself is the matrix
    agreement = np.maximum(cosine[1:, 0] - DOUBT * error / (size[0] * size[1:]), 0)
    target = vectors.T @ agreement / np.sqrt(values)
    most = np.clip(agreement / scale, LEAST, 1)  # by itself: no group is believed only to make up for another
    belief = np.clip(lsq_linear(root * scale, target, bounds=(0, most), method="bvls").x, LEAST, 1)
    alike = np.square(np.maximum(cosine[1:, 1:], 0))
    np.fill_diagonal(alike, 0)
    return belief, 1 + alike @ belief
