"""New users against fixed items: of each kind of model the row that its fit would give them. Knows no estimator."""

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from sk_torchmf._validation import LARGEST, check_size
from sk_torchmf.nn import NegativeSampler, Plan, squared_error
from sk_torchmf.solvers.als import PriorMoves, RowPrior, solve_rows
from sk_torchmf.solvers.base import run
from sk_torchmf.solvers.cosine_softmax import Adam, softmax_slopes, through_unit, unit, users_of_a_block
from sk_torchmf.solvers.ranking_descent import Descent, RankingObjective, free_columns, user_weights

STEPS = 20  # of what has no closed form
COSINE_RATE = 0.05  # of the first of them, of rows of length 1


def fold_in_ratings(data, factors, loss, features=None, *, cold_apart=False, leave_one_out=False):
    """Fit users' rows to their ratings of fixed items, in closed form for the squared error.

    Parameters
    ----------
    data : Interactions
        The ratings of new users, one user's after another's, ``num_users`` of them; items are those of the factors.
    factors : Factors
        A model of ratings with a ``prior``.
    loss : PointwiseLoss
    features : EncodedFeatures, optional
        Of the new users; by default nothing is known of them.
    cold_apart : bool, default=False
        Whether the row of an unknown user is another than the prior's mean.
    leave_one_out : bool, default=False
        Whether to return the held-out scores too.

    Returns
    -------
    rows : ndarray of shape (num_users, width), float64
        Factors, followed by the bias in a biased model, in the units of ``factors``. Without ratings what the user's features say,
        and without these too the mean user.
    scores : ndarray of shape (n_ratings,), float64, only with ``leave_one_out``
        What each rating's score is by its user's other ratings, see ``solve_rows``; in the units of the scores. What a user has
        rated is among their features where the model has it there, so there each rating is left out too.
    """
    items, scale = factors.items, factors.scale
    table, offset = items.factors / scale**0.5, np.zeros(len(items))
    units = np.full(factors.n_factors, scale**0.5)
    if factors.biased:
        table = np.column_stack([table, np.ones(len(items))])
        offset, units = (items.biases + factors.constant) / scale, np.append(units, scale)
    rating = loss.check(check_size(data.ratings, "the ratings")) / scale
    if not np.abs(rating).max(initial=0) <= LARGEST:
        raise ValueError(
            f"New users' ratings must be at most {LARGEST} times the standard deviation of those that fit saw, {scale:.3g}. Got "
            f"{np.abs(data.ratings).max():.3g}. Check their units."
        )
    weight = np.ones(len(data)) if data.weights is None else data.weights
    pointers = np.concatenate([[0], np.cumsum(np.bincount(data.user_ids, minlength=data.num_users))])
    given = rating, weight, table, offset
    ratings, weights, rows, offsets = (torch.from_numpy(values.astype(np.float64)) for values in given)
    precision, shift = factors.prior
    prior = RowPrior.from_arrays(precision, shift, like=rows)
    pattern = torch.from_numpy(pointers), torch.from_numpy(data.item_ids.astype(np.int64))
    moves = None if factors.users.weights is None else _prior_moves(factors.users.weights, features, data.num_users, units, rows)
    found = solve_rows(*pattern, ratings, weights, rows, offsets, prior, loss, moves=moves, leave_one_out=leave_one_out)
    found = [tensor.double().numpy() for tensor in (found if leave_one_out else (found, ratings))]
    if not all(np.isfinite(values).all() for values in found):
        raise ValueError("New users could not be folded in: their ratings are out of proportion to those that fit saw.")
    solved = found[0] * units
    held_out = found[-1] * scale
    if moves is not None or cold_apart:  # without ratings nothing is known of what was seen
        cold, n_ratings = factors.users.expected(features, data.num_users), np.diff(pointers)
        solved[n_ratings == 0] = cold[n_ratings == 0]
        if leave_one_out:
            alone = n_ratings[data.user_ids] == 1
            user, item = data.user_ids[alone], data.item_ids[alone]
            held_out[alone] = offset[item] * scale + np.einsum("nk,nk->n", cold[user], table[item] * scale / units)
    return (solved, held_out) if leave_one_out else solved


def _prior_moves(weights, features, n, units, like):
    """How far the prior means of new users lie from that of one of whom nothing is known, in standardised units."""
    known = torch.from_numpy((weights.prior_means(n, features) - weights.own_average) / units).to(like)
    return PriorMoves(known, None if weights.seen is None else torch.from_numpy(weights.seen / units).to(like))


def fold_in_ials(pointers, columns, gain, features, offset, *, alpha, n_items, means=None):
    """Fit users to fixed items, exactly, as ``ImplicitLeastSquares`` would.

    Parameters
    ----------
    pointers, columns : Tensor of shape (n_rows + 1,) and (n_pairs,), int64
        What is known of each user, in CSR form.
    gain : Tensor of shape (n_pairs,)
        > 0.
    features : Tensor of shape (n_items, n_factors)
        Item factors.
    offset : Tensor of shape (n_items,)
        Their biases.
    alpha : float
    n_items : int
        How many of the items anyone has; the others have no feature and no offset.
    means : Tensor of shape (n_rows, n_factors), optional
        The rows that users shrink to, by default zero.

    Returns
    -------
    Tensor of shape (n_rows, n_factors)
    """
    k = features.shape[1]
    eye = torch.eye(k, dtype=features.dtype, device=features.device)
    everywhere = features.T @ features + alpha * n_items * eye
    precision = torch.stack([everywhere, torch.zeros_like(eye), alpha * eye])
    shift = features.new_zeros(3, k)
    shift[0] = -features.T @ offset
    rating = (1 + gain) / gain  # with weight g: the same minimum as 1 with weight 1 + g, in place of 0 with weight 1
    moves = None
    if means is not None:  # the prior is about all items too, so it takes this much to be pulled as the ridge alone pulls
        mass = torch.segment_reduce(gain, "sum", offsets=pointers)
        moves = PriorMoves(torch.linalg.solve(everywhere, (alpha * (mass + n_items)[:, None] * means).T).T)
    return solve_rows(pointers, columns, rating, gain, features, offset, RowPrior(precision, shift), squared_error, moves=moves)


def fold_in_ranking(pairs, users, items, centre, loss, *, alpha, n_factors, n_negatives, seen, share, item_count, typical):
    """Fit new users to fixed items, in place, by a fixed number of steps: a user's row depends on what is known of the user alone.

    Parameters
    ----------
    pairs : Pairs
        What is known of each user, each pair once; every user has one, and one that can be drawn and that the user has not.
    users : Tensor of shape (n_rows, width)
        Where to start.
    items : Tensor of shape (n_items, width)
        Rows as the module lays them out.
    centre : Tensor of shape (width,) or (n_rows, width)
        The row that users shrink to; each their own where they have features.
    loss, alpha, n_factors, n_negatives
        As in ``ranking_solver``; the expectation is exact where the loss has it.
    seen : CSR array of shape (n_rows, n_items)
        The pairs.
    share : ndarray of shape (n_items,)
        The chance of an item to be drawn, up to a factor.
    item_count : ndarray of shape (n_items,)
        Weight of each item's positives in ``fit``.
    typical : float
        Mean weight of a user's positives in ``fit``.

    Notes
    -----
    Where negatives are drawn they depend on the positive's item and the step alone, not on the user's place among others; those
    that the user has are left out.
    """
    user, sampler = pairs.users.long(), NegativeSampler(seen)
    own = pairs.sums()[0]
    weight = user_weights(own, typical).to(users)[user]
    chance, generator = torch.from_numpy(share), torch.Generator("cpu").manual_seed(0)

    def draw():
        table = torch.multinomial(chance, len(share) * n_negatives, replacement=True, generator=generator)
        drawn = table.view(-1, n_negatives)[pairs.columns.long().cpu()]  # (n_pairs, n_negatives)
        places = sampler.find_seen(user.cpu().repeat_interleave(n_negatives), drawn.view(-1))
        drawn.view(-1)[places] = -1
        return drawn.to(users.device)

    known = (share > 0).astype(np.float64)
    objective = RankingObjective.build(
        Plan(pairs),
        weight,
        loss,
        (items.new_zeros(items.shape[1]), items[0]),
        alpha=alpha,
        n_factors=n_factors,
        n_negatives=n_negatives,
        draw=None if loss.expected is not None else draw,
        share=share,
        total=share.sum() - seen @ share,
        n_unobserved=known.sum() - seen @ known,
        typical=typical,
    )
    objective = replace(objective, ridges=(replace(objective.ridges[0], mean=centre), objective.ridges[1]))
    columns = free_columns(n_factors, items.shape[1] > n_factors, loss)[0]
    counts = pairs.sums(weight)[0], torch.from_numpy(item_count).to(items.device)
    descent = Descent(objective, (users, columns), (items, []), max_iter=STEPS, counts=counts, adaptive=False)
    run(descent, max_iter=STEPS)
    return users


def fold_in_cosine(pairs, items, share, total, n_unobserved, *, n_factors, temperature):
    """Fit new users to fixed items: a user's row depends on what is known of the user alone.

    Parameters
    ----------
    pairs : Pairs
        What is known of each user, each pair once; every user has one, and one that can be drawn and that the user has not.
    items : Tensor of shape (n_items, width)
    share, total, n_unobserved : Tensor of shape (n_items,), (n_rows,) and (n_rows,)
    n_factors : int
    temperature : float
        As in ``CosineSoftmax``; all items are shown.

    Returns
    -------
    Tensor of shape (n_rows, width)
        Rows whose inner products with those of items, both as ``CosineSoftmax`` gives them, are the scores.
    """
    k, against = n_factors, torch.log(n_unobserved / total)
    directions, biases = F.normalize(items[:, :k], dim=1), items[:, k + 1] if items.shape[1] > k else None
    found = []
    for rows, _, block in pairs.blocks_of_users(users_of_a_block(pairs.shape[0], len(items))):
        weight = items.new_ones(block.n_pairs)
        mover = Adam(F.normalize(block.user_sums(weight, directions), dim=1))
        known = block.users.long(), block.columns.long(), weight, share, against[rows]
        for number in range(1, STEPS + 1):
            p, length = unit(mover.rows)
            scores = p @ directions.T / temperature
            slope = softmax_slopes(scores if biases is None else scores + biases, *known)[1]
            gradient = through_unit(slope @ directions / temperature, p, length)
            mover.step(gradient, COSINE_RATE * (1 - 0.9 * (number - 1) / STEPS), number)
        found.append(unit(mover.rows)[0])
    users = torch.cat(found) / temperature**0.5
    if biases is None:
        return users
    zeros = torch.zeros_like(users[:, :1])
    return torch.cat([users, zeros, zeros + 1], 1)
