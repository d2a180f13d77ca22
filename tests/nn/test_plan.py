"""The plan: its blocks and its accumulator; that every solver sums through it, over blocks and over processes."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from numpy.testing import assert_allclose

from sk_torchmf.distributed import Communicator
from sk_torchmf.nn import POINTWISE, RANKING, BiasedMF, Pairs, PlainMF, Plan
from sk_torchmf.solvers import RATING_SOLVERS
from sk_torchmf.solvers.base import run
from sk_torchmf.solvers.cosine_softmax import cosine_solver
from sk_torchmf.solvers.design import SideFeatures
from sk_torchmf.solvers.ials import ImplicitLeastSquares
from sk_torchmf.solvers.ranking_descent import ranking_solver

pytestmark = pytest.mark.usefixtures("one_thread")

N_USERS, N_ITEMS, K, EPOCHS = 12, 9, 3, 5
KINDS = {"plain": PlainMF, "biased": BiasedMF}
MEAN, ALPHA = 1.3, 0.07


class Data:
    """Everyone's ratings and positives; with ``copies=2`` every user occurs once more, with another number and the same rows."""

    def __init__(self, copies=1):
        rng = np.random.default_rng(0)
        has = rng.random((N_USERS, N_ITEMS)) < 0.4
        has[np.arange(N_USERS), np.arange(N_USERS) % N_ITEMS] = True
        has[:, -1] &= ~has[:, :-1].all(1)
        user, item = np.nonzero(has)
        rating, weight = rng.uniform(0, 4, len(user)), rng.uniform(0.3, 2, len(user))
        at = np.arange(copies)
        self.copies, self.shape = copies, (copies * N_USERS, N_ITEMS)
        self.pairs = Pairs((user + N_USERS * at[:, None]).ravel(), np.tile(item, copies), *self.shape)  # in order already
        self.rating, self.weight = (torch.from_numpy(np.tile(values, copies)) for values in (rating, weight))
        self.of_users_and_items = np.tile(rng.normal(size=(N_USERS, 2)), (copies, 1)), rng.normal(size=(N_ITEMS, 3))

    def features(self):
        """Numbers of users and of items, and what users have seen."""
        users, items = ({"numbers": sp.csr_array(values)} for values in self.of_users_and_items)
        return SideFeatures(users, items, "user")

    def ratings(self, loss):
        return (self.rating > 2).double() if loss == "logistic" else self.rating

    def of_users(self, start, stop):
        """Those of some users, numbered anew."""
        part = object.__new__(Data)
        span, part.pairs = self.pairs.between(start, stop)
        part.rating, part.weight = self.rating[span], self.weight[span]
        part.of_users_and_items = self.of_users_and_items[0][start:stop], self.of_users_and_items[1]
        whole, part.shape = self.module, (stop - start, N_ITEMS)
        part.module = lambda *args, **options: whole(*args, **options).block(slice(start, stop))
        return part

    def module(self, kind, mean=0.0, init_std=1.0):
        generator = torch.Generator().manual_seed(0)
        one = KINDS[kind](N_USERS, N_ITEMS, K, mean=mean, init_std=init_std, generator=generator, dtype=torch.float64)
        every = KINDS[kind](*self.shape, K, mean=mean, init_std=0.0, dtype=torch.float64)
        state = {
            name: values.repeat(self.copies, *[1] * (values.ndim - 1)) if name.startswith("user") else values
            for name, values in one.state_dict().items()
        }
        every.load_state_dict(state)
        return every


def rating_solver(name, loss, weighted, features=False):
    def make(data, plan, kind):
        options = {"alpha": ALPHA, "mean": MEAN, "learning_rate": None, "batch_size": None, "generator": None}
        options["features"] = data.features() if features else None
        module, weight = data.module(kind, MEAN, RATING_SOLVERS[name].init_std), data.weight if weighted else None
        return RATING_SOLVERS[name].build(module, plan, data.ratings(loss), weight, POINTWISE[loss], **options)

    return make


def ials(data, plan, kind):
    return ImplicitLeastSquares(data.module(kind), plan, 3 * data.weight, alpha=ALPHA)


def ials_of_features(data, plan, kind):
    return ImplicitLeastSquares(data.module(kind), plan, 3 * data.weight, alpha=ALPHA, features=data.features())


def descent(loss, popularity, **options):
    def make(data, plan, kind):
        generator = torch.Generator().manual_seed(1)
        made = {"alpha": ALPHA, "n_negatives": 2, "popularity": popularity, "max_iter": 9, "generator": generator} | options
        return ranking_solver(data.module(kind), plan, data.weight, RANKING[loss], **made)

    return make


def cosines(data, plan, kind):
    generator = torch.Generator().manual_seed(1)
    made = {"temperature": 0.3, "max_iter": 9, "generator": generator, "order": torch.arange(data.shape[0])}
    return cosine_solver(data.module(kind), plan, data.weight, **made)


SHARED = {  # what several processes can fit together
    **{
        f"{name} {loss}{' weighted' if weighted else ''}": rating_solver(name, loss, weighted)
        for name in RATING_SOLVERS
        if name != "lbfgs"  # which takes inner products of all parameters, users' and items', inside torch
        for loss in POINTWISE
        for weighted in (False, True)
    },
    "ials": ials,
    **{
        f"exact {name}{' popularity' if popularity else ''}": descent(name, popularity, exact=True)
        for name, loss in RANKING.items()
        if loss.expected is not None
        for popularity in (False, True)
    },
}
OTHERS = {  # drawn negatives are others for each copy of a user, and so are the users of a block
    "lbfgs": rating_solver("lbfgs", "squared_error", True),
    **{f"drawn {name}": descent(name, False, exact=False) for name in RANKING},
    "cosines": cosines,
}
DESCRIBED = {f"{name} features": rating_solver(name, "squared_error", True, features=True) for name in ("als", "adam")}
DESCRIBED["ials features"] = ials_of_features
EVERY = SHARED | OTHERS
kinds = pytest.mark.parametrize("kind", KINDS)


def fitted(make, data, plan, kind, epochs=EPOCHS):
    """Rows of the users and of the items, biases among them, and the figures of the epochs."""
    solver = make(data, plan, kind)
    history = run(solver, max_iter=epochs)
    factors = solver.solution()
    rows = [np.column_stack([side.factors, *([side.biases] if factors.biased else [])]) for side in (factors.users, factors.items)]
    return *rows, {name: values for name, values in history.items() if name != "seconds"}


# the plan itself


def pairs(n_users=6, seed=0):
    """With users that have nothing: the first, the last and one between."""
    rng = np.random.default_rng(seed)
    user = rng.choice([1, 2, 4], 20)
    return Pairs(user, rng.integers(0, 5, 20), n_users, 5)


LIMITS = pytest.mark.parametrize(
    "limits",
    [{}, {"max_pairs": 1}, {"max_pairs": 7}, {"max_users": 1}, {"max_users": 2}, {"max_pairs": 5, "max_users": 2}],
    ids=str,
)


@LIMITS
def test_blocks_are_of_whole_users_and_leave_nobody_out(limits):
    plan = Plan(pairs(), **limits)
    users = [user for rows, _, _ in plan for user in range(rows.start, rows.stop)]
    assert users == list(range(6))
    places = [place for _, span, _ in plan for place in range(span.start, span.stop)]
    assert places == list(range(20))
    for rows, span, block in plan:
        assert block.shape == (rows.stop - rows.start, 5)
        assert torch.equal(block.columns, plan.pairs.columns[span])
        assert torch.equal(block.users + rows.start, plan.pairs.users[span])
        assert rows.stop - rows.start <= limits.get("max_users", 6)
    assert len(plan) == len(list(plan)) >= (2 if limits else 1)
    assert (plan.n_users, plan.n_items, plan.n_pairs) == (6, 5, 20)


def test_one_block_is_the_pairs_themselves():
    own = pairs()
    assert [block for _, _, block in Plan(own)] == [own]


@LIMITS
def test_what_is_summed_over_blocks_is_the_sum_over_all_pairs(limits):
    own, rng = pairs(), np.random.default_rng(1)
    value, P = torch.from_numpy(rng.normal(size=20)), torch.from_numpy(rng.normal(size=(6, 2)))
    plan = Plan(own, **limits)
    for rows, span, block in plan:
        plan.add(block.item_sums(value[span], P[rows]), float(value[span].sum()))
    by_item, total = plan.total()
    assert_allclose(by_item, own.item_sums(value, P), rtol=1e-12, atol=1e-14)
    assert total == pytest.approx(value.sum().item(), rel=1e-12)
    assert plan.total() == []
    (mean,) = plan.total_over_users(lambda some: [P[some].sum(0)])
    assert_allclose(mean, P.sum(0), rtol=1e-12)
    for weight in (None, value.abs()):
        for ours, theirs in zip(plan.sums(weight), own.sums(weight), strict=True):
            assert_allclose(ours, theirs, rtol=1e-12)


def test_what_is_added_stays_as_it_is():
    plan, parts = Plan(pairs()), [torch.ones(2), torch.ones(2)]
    for part in parts:
        plan.add(part)
    assert_allclose(plan.total()[0], 2)
    for part in parts:
        assert_allclose(part, 1)


def test_parts_that_do_not_match_are_refused():
    plan = Plan(pairs())
    plan.add(1.0, 2.0)
    with pytest.raises(ValueError, match="zip"):
        plan.add(1.0)


def test_a_plan_cut_again_has_blocks_no_larger_than_before_and_sums_of_its_own():
    plan = Plan(pairs(), max_users=2)
    plan.add(1.0)
    smaller, same = plan.cut(max_users=1), plan.cut(max_users=4, max_pairs=100)
    assert [len(one) for one in (plan, smaller, same)] == [3, 6, 3]
    smaller.add(2.0)
    assert (plan.total(), smaller.total(), same.total()) == ([1.0], [2.0], [])


def test_a_plan_of_no_pairs_and_of_no_users():
    nothing = np.empty(0, dtype=np.int64)
    for n_users in (0, 3):
        plan = Plan(Pairs(nothing, nothing, n_users, 2), max_users=2)
        of_users, of_items = plan.sums()
        assert (len(of_users), of_items.tolist()) == (n_users, [0.0, 0.0])


class First(Communicator):
    """The first of two processes, of which the other has the same."""

    size = 2

    def all_reduce(self, parts):
        return [2 * part for part in parts]

    def largest(self, value):
        return value + 1

    def broadcast(self, value):
        return value * 10


@LIMITS
def test_what_processes_have_together(limits):
    own, rng = pairs(), np.random.default_rng(1)
    plan = Plan(own, processes=First()).cut(**limits)
    assert (plan.n_users, plan.n_items, plan.n_pairs) == (12, 5, 40)
    of_users, of_items = plan.sums()
    assert_allclose(of_users, own.sums()[0])
    assert_allclose(of_items, 2 * own.sums()[1])
    assert plan.largest(3.0) == 4.0
    rows = rng.normal(size=(6, 3)).astype(np.float32)
    for some in (rows, rows[:, 0]):
        mean = plan.mean_of_users(some)
        assert mean.dtype == np.float64
        assert_allclose(mean, some.astype(np.float64).mean(0), rtol=1e-12)  # of the two halves, which are the same
    matrix, vector = plan.agreed(torch.eye(2), torch.ones(3))
    assert_allclose(matrix, 10 * np.eye(2))
    assert_allclose(vector, np.full(3, 10.0))
    alone = Plan(own).agreed(torch.eye(2), torch.ones(3))
    assert [part.tolist() for part in alone] == [[[1, 0], [0, 1]], [1, 1, 1]]


# every solver sums through it


class Counting(Plan):
    """Counts how often sums are taken, and refuses those to which a block did not add."""

    def __init__(self, pairs, **limits):
        self.totals, self.n_added = [], 0
        super().__init__(pairs, **limits)
        self.totals.clear()

    def add(self, *parts):
        self.n_added = self.n_added + 1 if self._sums else 1
        super().add(*parts)

    def total(self):
        if hasattr(self, "n_pairs"):
            assert self.n_added == len(self)
        self.totals.append(self.n_added)
        return super().total()


@kinds
@pytest.mark.parametrize("name", [name for name in EVERY if name != "cosines"])  # whose blocks are drawn, not the plan's
def test_in_every_step_all_blocks_add_to_all_sums(name, kind):
    data = Data()
    plan = Counting(data.pairs, max_users=5)
    solver = EVERY[name](data, plan, kind)
    for _ in range(2):
        plan.totals.clear()
        solver.step()
        assert plan.totals
    plan.totals.clear()
    solver.solution()
    assert plan.totals  # new users are, or shrink to, the mean user


@kinds
@pytest.mark.parametrize("limits", [{"max_pairs": 7}, {"max_users": 1}], ids=str)
@pytest.mark.parametrize("name", EVERY | DESCRIBED)
def test_more_blocks_give_the_same_model(name, limits, kind):
    data, make = Data(), (EVERY | DESCRIBED)[name]
    one = fitted(make, data, Plan(data.pairs), kind)
    many = fitted(make, data, Plan(data.pairs, **limits), kind)
    for ours, theirs in zip(one[:2], many[:2], strict=True):
        assert_allclose(ours, theirs, rtol=1e-7, atol=1e-9)  # rounding, and what five epochs make of it
    for figure, values in one[2].items():
        assert_allclose(many[2][figure], values, rtol=1e-8)


class Twice(Plan):
    """As if a second process had all users once more: what is summed over users and pairs is twice what it is here."""

    def total(self):
        return [2 * part for part in super().total()]


@kinds
@pytest.mark.parametrize("name", SHARED | DESCRIBED)
def test_a_process_that_has_half_of_the_users_finds_what_one_with_all_of_them_does(name, kind):
    half, every, make = Data(), Data(copies=2), (SHARED | DESCRIBED)[name]
    users, items, history = fitted(make, half, Twice(half.pairs, max_users=5), kind)
    all_users, same_items, all_history = fitted(make, every, Plan(every.pairs), kind)
    assert_allclose(all_users[:N_USERS], all_users[N_USERS:], rtol=1e-7, atol=1e-9)
    assert_allclose(users, all_users[:N_USERS], rtol=1e-7, atol=1e-9)
    assert_allclose(items, same_items, rtol=1e-7, atol=1e-9)
    for figure, values in all_history.items():
        assert_allclose(history[figure], values, rtol=1e-8)
    _, alone, own_history = fitted(make, half, Plan(half.pairs), kind)  # and not what it would find by itself
    assert not (np.allclose(items, alone, rtol=1e-4) and np.allclose(history["loss"], own_history["loss"], rtol=1e-4))


@kinds
@pytest.mark.parametrize("name", ["variational", "als"])
@pytest.mark.parametrize("loss", POINTWISE)
def test_half_of_the_users_know_the_prior_of_all(name, loss, kind):
    half, every = Data(), Data(copies=2)
    found = []
    for data, plan in ((half, Twice(half.pairs, max_users=5)), (every, Plan(every.pairs))):
        solver = rating_solver(name, loss, True)(data, plan, kind)
        run(solver, max_iter=2)
        found.append(solver.solution())
    for ours, theirs in zip(found[0].prior, found[1].prior, strict=True):
        assert_allclose(ours, theirs, rtol=1e-8, atol=1e-10)
    if name == "variational":
        assert found[0].noise == pytest.approx(found[1].noise, rel=1e-10)
        assert_allclose(found[0].items.posterior.count, found[1].items.posterior.count, rtol=1e-10)


@kinds
@pytest.mark.parametrize("name", DESCRIBED)
def test_half_of_the_users_know_what_features_say_to_all(name, kind):
    half, every = Data(), Data(copies=2)
    found = []
    for data, plan in ((half, Twice(half.pairs, max_users=5)), (every, Plan(every.pairs))):
        solver = DESCRIBED[name](data, plan, kind)
        run(solver, max_iter=3)
        found.append(solver.solution())
    for ours, theirs in zip(found[0].prior or (), found[1].prior or (), strict=True):
        assert_allclose(ours, theirs, rtol=1e-8, atol=1e-10)
    for role in ("user", "item"):
        ours, theirs = (factors.side(role).weights.as_dict() for factors in found)
        assert ours.pop("shares") == pytest.approx(theirs.pop("shares"), rel=1e-8)
        for value, other in zip(ours.values(), theirs.values(), strict=True):
            assert (value is None) == (other is None)
            if value is not None:
                assert_allclose(value, other, rtol=1e-7, atol=1e-9)


class Team:
    """Two threads that stand for two processes: each gives a value, and both get what a function makes of the two."""

    def __init__(self):
        self.barrier, self.given = Barrier(2, timeout=60), [None, None]

    def exchange(self, rank, value, function):
        self.given[rank] = value
        self.barrier.wait()
        found = function(*self.given)
        self.barrier.wait()
        return found


class OneOfTwo(Communicator):
    """One of two processes."""

    size = 2

    def __init__(self, team, rank):
        super().__init__()
        self.team, self.rank = team, rank

    def all_gather(self, value):
        return self.team.exchange(self.rank, value, lambda *given: list(given))

    def all_reduce(self, parts):
        return [sum(own[1:], start=own[0]) for own in zip(*self.all_gather(list(parts)), strict=True)]

    def largest(self, value):
        return max(self.all_gather(value))

    def broadcast(self, value):
        return self.all_gather(value)[0]


@kinds
@pytest.mark.parametrize("name", [*SHARED, *DESCRIBED, "cosines"])
def test_two_processes_with_users_of_their_own_find_what_one_does(name, kind):
    data, team, make = Data(), Team(), (EVERY | DESCRIBED)[name]
    cuts, limits = ((0, 5), (5, N_USERS)), ({}, {"max_users": 3})

    def fit(rank):
        torch.set_num_threads(1)
        part = data.of_users(*cuts[rank])
        try:
            return fitted(make, part, Plan(part.pairs, processes=OneOfTwo(team, rank), **limits[rank]), kind)
        except BaseException:
            team.barrier.abort()  # the other one is not left waiting
            raise

    with ThreadPoolExecutor(2) as pool:
        halves = list(pool.map(fit, range(2)))
    users, items, history = fitted(make, data, Plan(data.pairs), kind)
    assert_allclose(np.concatenate([own for own, _, _ in halves]), users, rtol=1e-7, atol=1e-9)
    for _, own_items, own_history in halves:
        np.testing.assert_array_equal(own_items, halves[0][1])  # the same bits: what is summed is the same for both
        assert_allclose(own_items, items, rtol=1e-7, atol=1e-9)
        for figure, values in history.items():
            assert_allclose(own_history[figure], values, rtol=1e-8)
