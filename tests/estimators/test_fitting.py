"""Fitted attributes are set once, at the end, together: a fit that does not come to its end leaves the estimator as it was."""

import copy
import itertools
import pickle

import numpy as np
import pytest
import scipy.sparse as sp
from data import FORMS, as_form
from every_solver import DATA, SOLVERS, every_solver
from numpy.testing import assert_array_equal
from sklearn.exceptions import NotFittedError

from sk_torchmf import BiasedMatrixFactorization, DivergenceError, Interactions
from sk_torchmf.estimators._saving import is_fitted_attribute
from sk_torchmf.solvers import minibatch
from sk_torchmf.training import loop

pytestmark = pytest.mark.usefixtures("one_thread")
FORM_OF = dict(zip(SOLVERS, itertools.cycle(FORMS)))  # each solver has one of the forms: what is kept or not is no matter of both


def fitted_state(estimator):
    """Each fitted attribute, and its content as bytes: neither is set anew nor changed in place."""
    return {name: (value, pickle.dumps(value)) for name, value in vars(estimator).items() if is_fitted_attribute(name)}


def assert_untouched(estimator, before):
    after = fitted_state(estimator)
    assert after.keys() == before.keys()
    for name, (value, content) in before.items():
        assert after[name][0] is value, name
        assert after[name][1] == content, name


def other(data):
    """Data of other sizes, ids and ratings, so that any trace of them shows."""
    part = data[data.user_ids < 30]
    return Interactions(part.user_ids, part.item_ids, part.ratings, num_users=33, num_items=27)


def arguments(kind, data, form):
    X, y = as_form(data, form)
    return (X, None) if y is None or SOLVERS[kind].make().__class__.__name__ == "ImplicitMatrixFactorization" else (X, y)


def at_epoch(number, act):
    """``loop.run`` whose solver does something else instead of its step of that number, counted over all phases."""
    run, done = loop.run, [0]

    def watched(solver, **options):
        step = solver.step

        def counted():
            done[0] += 1
            return act() if done[0] == number else step()

        solver.step = counted
        return run(solver, **options)

    return watched


def interrupt():
    raise KeyboardInterrupt


def diverge():
    return {"loss": np.nan}


def count_epochs(monkeypatch, call):
    """How many steps a call takes, over all phases."""
    steps, run = [], loop.run

    def watched(solver, **options):
        step = solver.step
        solver.step = lambda: steps.append(1) or step()
        return run(solver, **options)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "run", watched)
        call()
    return len(steps)


def failing(monkeypatch, model, method, *call):
    """Let a method fail at each moment of training that there is; yields after each."""
    n_epochs = count_epochs(monkeypatch, lambda: getattr(copy.deepcopy(model), method)(*call))
    assert n_epochs >= 2
    for act, error in ((interrupt, KeyboardInterrupt), (diverge, DivergenceError)):
        for number in sorted({1, 2, n_epochs // 2 + 1, n_epochs}):  # the last in the second phase of a fit that stops early
            with monkeypatch.context() as patch:
                patch.setattr(loop, "run", at_epoch(number, act))
                with pytest.raises(error):
                    getattr(model, method)(*call)
            yield number
    with monkeypatch.context() as patch:
        patch.setattr(loop.Caller, "end", lambda self, fitted: interrupt())
        with pytest.raises(KeyboardInterrupt):
            getattr(model, method)(*call)
    yield "end"


@every_solver
@pytest.mark.parametrize("stopping", [False, True])
def test_a_fit_that_fails_on_the_way_leaves_the_estimator_as_it_was(kind, stopping, monkeypatch):
    options, form = {"early_stopping": True, "n_iter_no_change": 5} if stopping else {}, FORM_OF[kind]
    model = SOLVERS[kind].make(**options)
    call, changed = arguments(kind, SOLVERS[kind].data, form), arguments(kind, other(SOLVERS[kind].data), form)
    for _ in failing(monkeypatch, model, "fit", *call):
        assert fitted_state(model) == {}
        with pytest.raises(NotFittedError):
            model.predict(call[0])
    model.fit(*call)
    before = fitted_state(model)
    for warm_start in (False, True):
        model.set_params(warm_start=warm_start and "one cycle" not in kind)  # whose schedule ends with the first fit
        for _ in failing(monkeypatch, model, "fit", *changed):
            assert_untouched(model, before)


@every_solver
@pytest.mark.parametrize("form", FORMS)
def test_a_partial_fit_that_fails_on_the_way_leaves_the_estimator_as_it_was(kind, form, monkeypatch):
    data = SOLVERS[kind].data
    model = SOLVERS[kind].make().fit(*arguments(kind, data, form))
    before = fitted_state(model)
    more = Interactions([40, 3, 41], [25, 4, 2], data.ratings[:3], num_users=42, num_items=26)
    if "one cycle" in kind:
        with pytest.raises(ValueError, match="Tried to step"):  # torch's own: the schedule has an end
            model.partial_fit(*arguments(kind, more, form))
        assert_untouched(model, before)
        return
    for _ in failing(monkeypatch, model, "partial_fit", *arguments(kind, more, form)):
        assert_untouched(model, before)
    model.partial_fit(*arguments(kind, more, form))
    assert model.n_users_ > before["n_users_"][0]


@every_solver
def test_what_is_refused_leaves_the_estimator_as_it_was(kind):
    data = other(SOLVERS[kind].data)
    X, y = arguments(kind, data, "table")
    bad = np.full(len(data), np.nan)
    calls = [
        (X[:, :1], y),
        (X[:0], y),
        (X, bad),
        (X, np.ones(3)),
        (data, None, -np.ones(len(data))),
        (data, None, np.zeros(len(data))),
        (data, None, None, None, bad),
        (sp.csr_array((3, 4)), None),
    ]
    for model in (SOLVERS[kind].make(), SOLVERS[kind].make().fit(SOLVERS[kind].data)):
        before = fitted_state(model)
        for call in calls:
            with pytest.raises(ValueError, match=r"."):
                model.fit(*call)
            assert_untouched(model, before)
        for params in ({"max_iter": 0}, {"device": "nowhere"}, {"dtype": "float16"}, {"tol": -1.0}):
            usual = {name: model.get_params()[name] for name in params}
            with pytest.raises(ValueError, match=next(iter(params))):
                model.set_params(**params).fit(data)
            model.set_params(**usual)
            assert_untouched(model, before)


def test_a_scorer_that_fails_leaves_the_estimator_as_it_was():
    calls = []

    def scorer(estimator, X, y):
        calls.append(estimator.predict(X))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return 0.0

    model = BiasedMatrixFactorization(4, random_state=0).fit(DATA)
    before = fitted_state(model)
    with pytest.raises(KeyboardInterrupt):
        model.set_params(early_stopping=True, scoring=scorer).fit(other(DATA))
    assert_untouched(model, before)
    assert len(calls) == 3


def test_the_estimator_that_a_scorer_sees_is_another_one_and_knows_the_part_that_is_trained_on():
    seen = []

    def scorer(estimator, X, y):
        seen.append(estimator)
        return -float(len(seen))

    model = BiasedMatrixFactorization(4, early_stopping=True, scoring=scorer, random_state=0).fit(DATA)
    assert model not in seen
    assert len({id(one) for one in seen}) == len(seen)
    assert all(one.seen_.nnz < model.seen_.nnz for one in seen)
    assert [one.n_iter_ for one in seen] == list(range(1, len(seen) + 1))


def test_batches_that_fail_leave_a_module_as_it_was():
    model = SOLVERS["torch"].make().fit(DATA)
    before = fitted_state(model)

    def batches():
        yield DATA.user_ids[:50], DATA.item_ids[:50], DATA.ratings[:50]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        model.fit_batches(batches, n_users=40, n_items=25)
    assert_untouched(model, before)


def test_torchs_generators_are_put_back_where_a_fit_is_interrupted(monkeypatch):
    import torch

    state = torch.random.get_rng_state()
    monkeypatch.setattr(minibatch.Trainer, "step", lambda self, batch: interrupt())
    with pytest.raises(KeyboardInterrupt):
        SOLVERS["torch"].make().fit(DATA)
    assert_array_equal(torch.random.get_rng_state(), state)


def test_a_subclass_has_parameters_of_its_own():
    """The names are read once for each class."""

    class WithMore(BiasedMatrixFactorization):
        def __init__(self, n_factors=2, *, more=1):
            super().__init__(n_factors)
            self.more = more

    parent = set(BiasedMatrixFactorization().get_params())
    assert {"n_factors", "alpha"} <= parent
    assert set(WithMore().get_params()) == {"n_factors", "more"}
    assert set(BiasedMatrixFactorization().get_params()) == parent


@pytest.mark.parametrize("weighted", [False, True])
def test_many_ratings_give_the_model_that_a_few_would(weighted, monkeypatch):
    """They are sorted in parts and packed: the same numbers, in the same order."""
    rng = np.random.default_rng(0)
    X, y = np.column_stack([rng.integers(40, size=600), rng.integers(30, size=600)]), rng.integers(1, 11, size=600) / 2
    weight = rng.integers(1, 4, size=600) / 2 if weighted else None
    expected = BiasedMatrixFactorization(n_factors=4, random_state=0).fit(X, y, weight)
    for name in ("nn.pairs", "solvers.observed"):
        monkeypatch.setattr(f"sk_torchmf.{name}.LARGE", 0)
    found = BiasedMatrixFactorization(n_factors=4, random_state=0).fit(X, y, weight)
    for name in ("user_factors_", "item_factors_", "user_biases_", "item_biases_"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert (found.observed_ != expected.observed_).nnz == 0
    assert (found.seen_ != expected.seen_).nnz == 0
