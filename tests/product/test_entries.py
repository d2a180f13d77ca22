"""Every loss, solver and estimator has its entry in tests/shared, by which it meets the contracts; each missing one is named."""

import inspect

import pytest
from every_estimator import ESTIMATORS
from every_loss import RANKING_LOSSES, RATING_LOSSES
from every_solver import SOLVERS

from sk_torchmf import estimators, nn
from sk_torchmf.solvers import RATING_SOLVERS
from sk_torchmf.solvers.base import Solver

PUBLIC = {kind.__name__ for kind in map(vars(estimators).get, estimators.__all__) if hasattr(kind, "fit")}


def solver_of(fit):
    model = fit.make()
    reading, _ = model._read(fit.data, None, None).observed()
    return type(model._part(reading, model._check(), 0, None).make_solver())


def subclasses(kind):
    return {kind}.union(*map(subclasses, kind.__subclasses__()))


@pytest.mark.parametrize(
    ("known", "entered", "what", "where"),
    [
        (nn.POINTWISE, RATING_LOSSES, "losses of nn.POINTWISE", "RATING_LOSSES of tests/shared/every_loss.py"),
        (nn.RANKING, RANKING_LOSSES, "losses of nn.RANKING", "RANKING_LOSSES of tests/shared/every_loss.py"),
        (PUBLIC, [e.kind.__name__ for e in ESTIMATORS.values()], "estimators", "ESTIMATORS of tests/shared/every_estimator.py"),
    ],
    ids=["losses of ratings", "ranking losses", "estimators"],
)
def test_what_there_is_has_an_entry_and_nothing_else(known, entered, what, where):
    missing, gone = sorted(set(known) - set(entered)), sorted(set(entered) - set(known))
    assert not missing, f"No entry for the {what} {missing}: add one to {where}, and every contract runs over it."
    assert not gone, f"{where} has entries for {gone}, which are none of the {what}: take them out."


def test_every_solver_has_an_entry():
    missing = sorted(RATING_SOLVERS.keys() - SOLVERS.keys())
    where = "add one to SOLVERS of tests/shared/every_solver.py, and every contract runs over it."
    assert not missing, f"No entry for the rows {missing} of RATING_SOLVERS: {where}"
    ours = {
        kind for kind in subclasses(Solver) - {Solver} if kind.__module__.startswith("sk_torchmf.") and not inspect.isabstract(kind)
    }
    unmet = sorted(kind.__name__ for kind in ours - {solver_of(fit) for fit in SOLVERS.values()})
    assert not unmet, f"No entry is trained by the solvers {unmet}: {where}"
