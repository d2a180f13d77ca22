"""Where rows without observations are expected, so that the observed pairs are predicted best. Knows factors and tensors only."""

from dataclasses import replace

import numpy as np
import torch

from sk_torchmf.distributed import ALONE

TINY = 1e-30


def with_cold_rows(factors, pairs, weight, known, features, average, processes=ALONE):
    r"""Choose the rows of users and items without observations by what they would have predicted for those with observations.

    A row that nothing but features, or nothing at all, is known of has an expected row :math:`m_i`. One vector :math:`\delta` for
    the whole side is added to it, which brings the scores of the expected rows closest to the fitted ones at the observed pairs,

    .. math:: \sum_{ui} v_{ui} \left( (x_i - m_i - \delta)^\top y_u \right)^2 + \lambda \, \delta^\top T^{-1} \delta

    where v are the weights of the pairs, of each row adding up to one (``"macro"``) or as they come (``"micro"``), and T is the
    second moment of :math:`x_i - m_i` over the n rows. :math:`\lambda` is the first sum at :math:`\delta = 0` over n, so that
    :math:`\delta` counts as one row more. Ids that nothing is known of and those with features have a :math:`\delta` each.

    Parameters
    ----------
    factors : Factors
        As a solver returns it.
    pairs : Pairs
        Which pairs of its rows were observed.
    weight : Tensor of shape (n_pairs,) or None
        Observation weights, user-major.
    known : tuple of ndarray of int
        The row numbers, among all users and all items, of those of the factors.
    features : sequence of EncodedFeatures or None
        Of all users and of all items.
    average : {"macro", "micro"}
    processes : Communicator, optional
        Those that have the other users and their pairs, and the same items.

    Returns
    -------
    Factors
        A biased model is centred so that an unknown id has no factor and no bias.
    """
    tables = [_stacked(side) for side in (factors.users, factors.items)]
    weight = torch.ones(pairs.n_pairs, dtype=torch.float64, device=pairs.device) if weight is None else weight.double()
    sides, at = [], []
    for place, (side, own) in enumerate(zip((factors.users, factors.items), features, strict=True)):
        share = _shared_out(pairs, weight, place, processes) if average == "macro" else weight
        rows, mean = tables[place], _mean(tables[place], place, processes)
        others = tables[1 - place].copy()
        if factors.biased:
            others[:, -1] = 1
        at.append(mean + best_shift(pairs, share, rows - mean, others, place, processes))
        if own is not None:
            described = own.described[known[place]]
            deviation = (rows - side.weights.rows(own.matrix[known[place]])) * described[:, None]
            counted = share * _of_rows(pairs, torch.from_numpy(described).to(pairs.device), place)
            shift = best_shift(pairs, counted, deviation, others, place, processes)
            side = replace(side, weights=replace(side.weights, constant=side.weights.constant + shift))
        sides.append(side)
    if not factors.biased:
        sides = [replace(side, mean=row.astype(side.factors.dtype)) for side, row in zip(sides, at, strict=True)]
    factors = replace(factors, users=sides[0], items=sides[1])
    return factors.centred(at) if factors.biased else factors


def best_shift(pairs, weight, deviation, others, place, processes=ALONE):
    r"""Find the :math:`\delta` of ``with_cold_rows`` on one side.

    Parameters
    ----------
    pairs : Pairs
    weight : Tensor of shape (n_pairs,), float64
        v, user-major.
    deviation : ndarray of shape (n_rows, width), float64
        Of the side's rows from where they are expected; zero where they do not count.
    others : ndarray of shape (n_others, width), float64
        What rows are multiplied with.
    place : {0, 1}
        Whether the rows are those of users or of items.
    processes : Communicator, optional
        Those that have the other users and their pairs.

    Returns
    -------
    ndarray of shape (width,), float64
    """
    D, Y = (torch.from_numpy(np.ascontiguousarray(rows)).to(pairs.device) for rows in (deviation, others))
    score = pairs.dots(*((D, Y) if place == 0 else (Y, D)))
    total, squares = processes.all_reduce([weight.sum(), torch.dot(weight, score.square())])
    total = total.clamp_min(TINY)
    load, pull = (pairs.sums(values / total)[1 - place].double() for values in (weight, weight * score))
    if place == 0:
        load, pull = processes.all_reduce([load, pull])
    of_rows, of_others = [D.T @ D, (D != 0).any(dim=1).sum()], [Y.T @ (load[:, None] * Y), Y.T @ pull]
    if place == 0:
        of_rows = processes.all_reduce(of_rows)
    else:
        of_others = processes.all_reduce(of_others)
    (T, counting), (G, g) = of_rows, of_others
    counting = counting.clamp_min(1)
    T, ridge = T / counting, (squares / (total * counting)).clamp_min(TINY)
    shift = T @ torch.linalg.solve(G @ T + ridge * torch.eye(len(T), dtype=T.dtype, device=T.device), g)
    return shift.cpu().numpy()


def _stacked(side):
    """The rows of a side: factors and, in a biased model, the bias; a copy in float64."""
    parts = [side.factors] if side.biases is None else [side.factors, side.biases]
    return np.column_stack(parts).astype(np.float64)


def _mean(rows, place, processes):
    """The mean over the rows (n, width) of users, of all processes, or of items."""
    if place == 1:
        return rows.mean(axis=0)
    total, n = processes.all_reduce([torch.from_numpy(rows.sum(axis=0)), len(rows)])
    return total.numpy() / n


def _of_rows(pairs, value, place):
    """For each pair the value of its user or of its item."""
    return pairs.expand(value) if place == 0 else value.index_select(0, pairs.columns)


def _shared_out(pairs, weight, place, processes):
    """The weights of pairs, divided by what each row has of them: all rows count alike."""
    sums = pairs.sums(weight)[place].double()
    if place == 1:
        (sums,) = processes.all_reduce([sums])
    return weight / _of_rows(pairs, sums.clamp_min(TINY), place)
