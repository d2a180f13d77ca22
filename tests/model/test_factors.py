"""A factorization as one value: its scores stay the same in other units, among more ids, centred, as vectors and as a module."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from sk_torchmf.model.factors import Factors, Side
from sk_torchmf.nn import BiasedMF, PlainMF

N_USERS, N_ITEMS, K = 5, 4, 3
both = pytest.mark.parametrize("biased", [False, True], ids=["plain", "biased"])


def make(biased):
    rng = np.random.default_rng(0)
    sides = (Side.of(rng.normal(1.0, 1.0, (n, K)), rng.normal(2.0, 1.0, n) if biased else None) for n in (N_USERS, N_ITEMS))
    return Factors(*sides, constant=0.5 * biased)


def by_loop(model):
    """The scores of all pairs, one by one."""
    b_u, b_i = (np.zeros(len(side)) if side.biases is None else side.biases for side in (model.users, model.items))
    return np.array(
        [
            [
                model.constant + b_u[u] + b_i[i] + sum(model.users.factors[u] * model.items.factors[i])
                for i in range(len(model.items))
            ]
            for u in range(len(model.users))
        ]
    )


def grid(model):
    user, item = (ids.ravel() for ids in np.mgrid[: len(model.users), : len(model.items)])
    return model.pair_scores(user, item).reshape(len(model.users), len(model.items))


@both
def test_scores_of_pairs_and_of_all_items_are_the_inner_products_and_biases(biased):
    model = make(biased)
    assert_allclose(grid(model), by_loop(model), rtol=1e-12)
    assert_allclose(model.all_scores(*model.users.at()), by_loop(model), rtol=1e-12)
    assert_allclose(
        model.all_scores(*model.users.at(np.array([3, 1])), np.array([2, 0])), by_loop(model)[[3, 1]][:, [2, 0]], rtol=1e-12
    )


@both
def test_an_unknown_id_has_the_mean_row_and_no_bias_or_is_nan(biased):
    model = make(biased)
    user, item = np.array([-1, 2, -1]), np.array([1, -1, -1])
    p, q = model.users.factors.mean(0), model.items.factors.mean(0)
    b_u, b_i = (side.biases if biased else np.zeros(len(side)) for side in (model.users, model.items))
    expected = model.constant + np.array([p @ model.items.factors[1] + b_i[1], model.users.factors[2] @ q + b_u[2], p @ q])
    assert_allclose(model.pair_scores(user, item), expected, rtol=1e-12)
    assert np.isnan(model.pair_scores(user, item, nan=True)).all()


@both
@pytest.mark.parametrize("scale", [0.25, 4.0])
def test_other_units_multiply_the_scores(biased, scale):
    model = make(biased)
    assert_allclose(grid(model.in_units(scale)), scale * grid(model), rtol=1e-12)


@both
def test_among_more_ids_the_rows_keep_their_scores_and_the_others_are_the_mean(biased):
    model, known = make(biased), (np.array([1, 2, 4, 5, 6]), np.array([0, 3, 4, 5]))
    counts = tuple(np.isin(np.arange(n), own).astype(float) for n, own in zip((7, 6), known, strict=True))
    more = model.spread_over(known, counts)
    assert (len(more.users), len(more.items)) == (7, 6)
    assert_array_equal(grid(more)[np.ix_(*known)], grid(model))
    assert_array_equal(np.flatnonzero(more.users.unknown()), [0, 3])
    assert_array_equal(grid(more)[0], more.pair_scores(np.full(6, -1), np.arange(6)))
    assert np.isnan(more.pair_scores(np.array([0]), np.array([0]), nan=True)).all()
    tied = more.all_scores(*more.users.at())[:, [1, 2]]  # the two items that were never observed
    assert_array_equal(tied[:, 0], tied[:, 1])


@both
def test_side_of_which_other_processes_have_all_rows_has_unknown_ones(biased):
    model = make(biased)
    biases = model.users.biases[:0] if biased else None
    nobody = replace(model, users=replace(model.users, factors=model.users.factors[:0], biases=biases))
    user, item = np.full(3, -1), np.arange(3)
    assert_array_equal(nobody.pair_scores(user, item), model.pair_scores(user, item))
    assert np.isnan(nobody.pair_scores(user, item, nan=True)).all()
    counted = replace(nobody.users, counts=np.zeros(0))
    assert counted.unknown(user).all()


def test_centred_both_sides_have_mean_zero_and_the_scores_stay():
    model = make(True)
    centred = model.centred()
    assert_allclose(grid(centred), grid(model), rtol=1e-12)
    for side in (centred.users, centred.items):
        assert_allclose(side.factors.mean(0), 0.0, atol=1e-14)
        assert_allclose(side.biases.mean(), 0.0, atol=1e-14)
        assert_array_equal(side.mean, np.zeros(K))
    levels = model.with_centred_biases()
    assert_allclose(grid(levels), grid(model), rtol=1e-12)
    assert_array_equal(levels.users.factors, model.users.factors)
    assert_allclose([side.biases.mean() for side in (levels.users, levels.items)], 0.0, atol=1e-14)


@both
@pytest.mark.parametrize("rows", [slice(0, 3), slice(0, 0)], ids=["some", "none"])
def test_of_some_of_the_users_the_model_is_that_of_all(biased, rows):
    """Where other processes have the others, the mean is over all: rows, biases and constant become the same."""
    model = make(biased)
    means = {part.shape[1:]: part for part in (model.users.factors, model.users.biases) if part is not None}

    def of_all(own):
        every = means[own.shape[1:]]
        scale = 2.0**0.5 if own.ndim > 1 and moved else 1.0
        return every.mean(0) * scale

    moved = False
    users = replace(model.users, factors=model.users.factors[rows], mean_of=of_all)
    users = replace(users, biases=model.users.biases[rows]) if biased else users
    part = replace(model, users=users)
    if biased:
        every, part = model.centred(), part.centred()
        assert part.constant == pytest.approx(every.constant, rel=1e-14)
        assert_allclose(part.users.biases, every.users.biases[rows], rtol=1e-12, atol=1e-14)
        assert_allclose(part.items.biases, every.items.biases, rtol=1e-12, atol=1e-14)
    else:
        moved = True
        every, part = model.in_units(2.0), part.in_units(2.0)
    assert_allclose(part.users.mean, every.users.mean, rtol=1e-12)
    assert_allclose(part.users.factors, every.users.factors[rows], rtol=1e-12, atol=1e-14)


def test_the_prior_of_a_centred_model_says_the_same_of_a_row():
    """The density of a Gaussian: precision and mean move with the rows."""
    model, rng = make(True), np.random.default_rng(1)
    root = rng.normal(size=(3, K + 1, K + 1))
    precision = root @ root.transpose(0, 2, 1)
    mean = rng.normal(size=K + 1)
    model = replace(model, prior=(precision, precision @ mean))
    centred = model.centred()
    for j in range(3):
        moved = np.linalg.solve(centred.prior[0][j], centred.prior[1][j])
        for u in range(N_USERS):
            before = np.append(model.users.factors[u], model.users.biases[u]) - mean
            after = np.append(centred.users.factors[u], centred.users.biases[u]) - moved
            assert_allclose(after @ centred.prior[0][j] @ after, before @ precision[j] @ before, rtol=1e-9)


@both
def test_vectors_and_module_have_the_same_scores(biased):
    model = make(biased)
    users, items = model.embeddings()
    assert_allclose(users @ items.T, grid(model), rtol=1e-12)
    module = model.to_module()
    assert type(module) is (BiasedMF if biased else PlainMF)
    user, item = torch.tensor([0, 4, -1]), torch.tensor([3, -1, -1])
    assert_allclose(module(user, item).detach(), model.pair_scores(user.numpy(), item.numpy()), rtol=1e-12)
    missing = model.to_module(nan=True)(user, item).detach()
    assert_array_equal(missing.isnan(), [False, True, True])
    assert_allclose(grid(Factors.from_module(module.block(slice(0, N_USERS))))[:, :N_ITEMS], grid(model), rtol=1e-12)


@both
def test_rows_of_a_solver_are_taken_over(biased):
    model = make(biased)
    rows = [side.factors for side in (model.users, model.items)]
    if biased:  # [P, b_u, 1] and [Q, 1, b_i]
        ones = [np.ones((len(side), 1)) for side in rows]
        rows = [
            np.hstack([rows[0], model.users.biases[:, None], ones[0]]),
            np.hstack([rows[1], ones[1], model.items.biases[:, None]]),
        ]
    taken = Factors.from_rows(*map(torch.from_numpy, rows), K)
    assert_allclose(grid(taken) + model.constant, grid(model), rtol=1e-12)


def test_similar_rows_point_the_same_way_whatever_their_length():
    rows = np.array([[1.0, 0.0], [5.0, 0.1], [0.0, 2.0], [-1.0, 0.0], [0.0, 0.0]])
    model = Factors(Side.of(rows), Side.of(rows))
    found, cosine = model.similar("item", np.array([0]), 4)
    assert_array_equal(found[0], [1, 2, 4, 3])
    assert_allclose(cosine[0], [5 / np.hypot(5, 0.1), 0.0, 0.0, -1.0])
