"""The solvers as functions: made, run to the end, and asked for what they found."""

from sk_torchmf.nn import Plan
from sk_torchmf.solvers.als import AlternatingLeastSquares
from sk_torchmf.solvers.base import run
from sk_torchmf.solvers.ials import ImplicitLeastSquares
from sk_torchmf.solvers.optimizers import Minimiser
from sk_torchmf.solvers.ranking_descent import Descent, ranking_solver
from sk_torchmf.solvers.variational import Variational


def _solved(solver, report=None, **options):
    def watch(epoch, history, solver):
        report(epoch, history["loss"][-1])

    history = run(solver, watch=None if report is None else watch, **options)
    return solver.solution(), history


def fit_als(module, objective, **options):
    return _solved(AlternatingLeastSquares(module, objective), **options)


def minimise(module, objective, optimizer, *, learning_rate=None, batch_size=None, generator=None, max_iter=50, **options):
    made = {"learning_rate": learning_rate, "batch_size": batch_size, "generator": generator}
    return _solved(Minimiser(module, objective, optimizer, **made), max_iter=max_iter, **options)


def fit_variational(module, pairs, rating, weight, loss, **options):
    return _solved(Variational(module, Plan(pairs), rating, weight, loss), **options)


def fit_ials(module, pairs, gain, *, alpha, max_iter, tol=1e-4, report=None, features=None):
    solver = ImplicitLeastSquares(module, Plan(pairs), gain, alpha=alpha, features=features)
    history = _solved(solver, report, max_iter=max_iter, tol=tol)[1]
    return *solver.rows, history


def descend(objective, users, items, *, max_iter, report=None, tol=0.0, **made):
    return _solved(Descent(objective, users, items, max_iter=max_iter, **made), report, max_iter=max_iter, tol=tol)[1]


def fit_ranking(module, pairs, weight, loss, *, tol=0.0, report=None, **made):
    solver = ranking_solver(module, Plan(pairs), weight, loss, **made)
    history = _solved(solver, report, max_iter=solver.max_iter, tol=tol)[1]
    return *solver.rows, history
