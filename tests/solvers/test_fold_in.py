"""New users of models of positives: each one's row near the minimum of its own objective, and of that alone."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from every_loss import every_exact_loss, every_ranking_loss
from few_positives import ALPHA, POPULARITY, K, dense, kinds, positives, ridge_rows
from numpy.testing import assert_allclose, assert_array_equal

from sk_torchmf.nn import RANKING, BiasedMF, Pairs, PlainMF, RankingLoss
from sk_torchmf.solvers import fold_in
from sk_torchmf.solvers.fold_in import fold_in_ials, fold_in_ranking
from sk_torchmf.solvers.objective import POWER
from sk_torchmf.solvers.ranking_descent import free_columns

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("n_empty", [0, 3])
def test_fold_in_of_ials_is_a_linear_solve_for_each_row(n_empty):
    """Items that nobody has are all zeros at the end of the features, and count for nothing."""
    has, pairs, gain = positives()
    rng, n_items = np.random.default_rng(1), pairs.shape[1]
    features, offset = rng.normal(size=(n_items + n_empty, K)), rng.normal(size=n_items + n_empty)
    features[n_items:], offset[n_items:] = 0.0, 0.0
    tensors = (torch.from_numpy(array) for array in (features, offset))
    rows = fold_in_ials(pairs.pointers.long(), pairs.columns.long(), gain, *tensors, alpha=0.3, n_items=n_items)
    expected = ridge_rows(features[:n_items], offset[:n_items], dense(pairs, gain), has, 0.3, has)
    assert_allclose(rows, expected, rtol=1e-10)


def fold(name, seen, items, kind, *, popularity=False, share=None):
    """Fold all users of a pattern in, from rows of zeros."""
    pattern = seen.tocoo()
    k = items.shape[1] - 2 * (kind is BiasedMF)
    centre = torch.zeros(items.shape[1], dtype=torch.float64)
    if kind is BiasedMF:
        centre[k + 1] = 1.0
    if share is None:
        share = np.ones(items.shape[0]) if not popularity else np.arange(1.0, 1 + items.shape[0])
    return fold_in_ranking(
        Pairs(pattern.row, pattern.col, *seen.shape),
        centre.repeat(seen.shape[0], 1),
        torch.from_numpy(items),
        centre,
        RANKING[name],
        alpha=ALPHA,
        n_factors=k,
        n_negatives=2,
        seen=seen,
        share=share,
        item_count=np.where(share > 0, 5.0, 0.0),
        typical=4.0,
    )


def item_rows(kind, n_items=30):
    items = np.random.default_rng(2).normal(size=(n_items, K))
    return np.column_stack([items, np.ones(n_items), np.linspace(-1, 1, n_items)]) if kind is BiasedMF else items


@kinds
@every_ranking_loss
@POPULARITY
def test_fold_in_knows_the_users_own_positives_only(kind, name, popularity):
    has = sp.csr_array(np.random.default_rng(0).random((15, 30)) < 0.3)
    items = item_rows(kind)
    together = fold(name, has, items, kind, popularity=popularity)
    for user in (3, 0, 14):
        alone = fold(name, has[[user]], items, kind, popularity=popularity)
        assert_allclose(alone[0], together[user], rtol=1e-9, atol=1e-12)


@kinds
@every_exact_loss
def test_fold_in_comes_near_the_minimum_of_a_users_objective(kind, name):
    """Against many steps of torch's LBFGS on the objective written out for one user."""
    has, items = sp.csr_array(np.random.default_rng(0).random((3, 30)) < 0.3), torch.from_numpy(item_rows(kind))
    folded = fold(name, has, items.numpy(), kind)
    start_row = torch.zeros(items.shape[1], dtype=torch.float64)
    start_row[K + 1 :] = 1.0
    free = torch.zeros_like(start_row)
    free[free_columns(K, kind is BiasedMF, RANKING[name])[0]] = 1.0
    for user in range(3):
        own = torch.from_numpy(has.toarray()[user])
        count = int(own.sum())
        weight = np.sqrt(4.0 / count)
        ridge = torch.full_like(start_row, 30 * ALPHA)
        ridge[:K] = ALPHA * (10 + (weight * count) ** POWER * 4.0 ** (1 - POWER))

        def value(row, own=own, count=count, weight=weight, ridge=ridge):
            scores = items @ row
            if name == "softmax":
                each = torch.nn.functional.softplus(torch.logsumexp(scores[~own], 0) - scores[own])
            else:
                each = torch.nn.functional.softplus(-scores[own]) + 2 * torch.nn.functional.softplus(scores[~own]).mean()
            return weight * each.sum() + (ridge * (row - start_row).square()).sum()

        move = torch.zeros_like(start_row, requires_grad=True)
        optimizer = torch.optim.LBFGS([move], max_iter=60, line_search_fn="strong_wolfe")

        def closure(move=move, optimizer=optimizer, value=value):
            optimizer.zero_grad()
            loss = value(start_row + free * move)
            loss.backward()
            return loss

        optimizer.step(closure)
        lowest, before = value(start_row + free * move.detach()), value(start_row)
        reached = value(folded[user])
        assert lowest - 1e-9 <= reached
        assert reached - lowest < 0.02 * (before - lowest)


@every_ranking_loss
def test_fold_in_leaves_out_items_without_a_share(name):
    """Nobody has the last ten items: they are no negatives, whatever their rows."""
    has = np.random.default_rng(0).random((4, 20)) < 0.3
    items = item_rows(PlainMF)
    share = np.append(np.ones(20), np.zeros(10))
    wide = sp.csr_array(np.hstack([has, np.zeros((4, 10), dtype=bool)]))
    first = fold(name, wide, items, PlainMF, share=share)
    items[20:] = 100.0
    assert_allclose(fold(name, wide, items, PlainMF, share=share), first, atol=1e-12)


def test_fold_in_draws_nothing_that_the_user_has_and_anew_in_each_step():
    """Scores tell items: the rows of items are those of the identity, and each user starts at 0, 1, 2 ..."""
    seen, drawn = np.random.default_rng(0).random((20, 12)) < 0.6, []

    def value(positive, negative, n_unobserved):
        drawn.append((positive.detach().round().int().numpy(), negative.detach().numpy()))
        return RANKING["bpr"](positive, negative, n_unobserved)

    fold_in_ranking(
        Pairs(*np.nonzero(seen), *seen.shape),
        torch.arange(12.0, dtype=torch.float64).repeat(20, 1),
        torch.eye(12, dtype=torch.float64),
        torch.zeros(12, dtype=torch.float64),
        RankingLoss("spy", value, 1e9),  # so curved that no step leads away from where users start
        alpha=0.0,
        n_factors=12,
        n_negatives=5,
        seen=sp.csr_array(seen),
        share=np.ones(12),
        item_count=np.ones(12),
        typical=1.0,
    )
    user, item = np.nonzero(seen)
    masks = []
    for positive, negative in drawn:
        assert_array_equal(positive, item)
        masks.append(there := np.isfinite(negative))
        assert not seen[np.repeat(user, 5)[there.ravel()], negative[there].round().astype(int)].any()
    assert 0.3 < np.mean(masks) < 0.5  # of the twelve items, what the user has not
    assert len(drawn) == fold_in.STEPS > 1
    assert (masks[0] != masks[1]).any()
