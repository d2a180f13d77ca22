"""The solvers of ratings by name. Knows how each is made, and no more."""

from collections.abc import Callable
from dataclasses import dataclass

from sk_torchmf.solvers.als import AlternatingLeastSquares
from sk_torchmf.solvers.objective import Objective
from sk_torchmf.solvers.optimizers import OPTIMIZERS, Minimiser
from sk_torchmf.solvers.variational import Variational


@dataclass(frozen=True)
class RatingSolver:
    """What an estimator must know of a solver before it makes one.

    Attributes
    ----------
    build : callable
        ``(module, plan, rating, weight, loss, *, alpha, mean, learning_rate, batch_size, generator)`` to a Solver: a PlainMF or
        BiasedMF whose scores start at ``mean``, standardised ratings and weights or None in user-major order, of a plan on disk
        what gives a block's by its span, a PointwiseLoss; each solver takes of the options what it has a use for.
    init_std : float
        Standard deviation of the rows that it starts from.
    takes_batches : bool
        Whether ``batch_size`` may be a number.
    learns_prior : bool
        Whether it learns from the rows how much they differ, so that directions in which they do not are lost to it.
    takes_effects : bool
        Whether it learns biases of the context of ratings; ``build`` then takes ``effects``, see ``Variational``.
    sums_over_processes : bool
        Whether all that it sums over pairs and over users' rows goes through the plan, so that several processes may share a fit.
    takes_cuts : bool
        Whether it learns the cut points between ratings that are levels: ``build`` then takes ``cuts``, an OrdinalCuts, too.
    has_matrices : bool
        Whether each row has a matrix of its own to sum and to solve, so that the work is ``n_factors`` times as much.
    """

    build: Callable
    init_std: float = 0.1
    takes_batches: bool = False
    learns_prior: bool = False
    takes_effects: bool = False
    sums_over_processes: bool = True
    takes_cuts: bool = False
    has_matrices: bool = False


def _variational(module, plan, rating, weight, loss, *, features, effects=(), cuts=None, **options):
    return Variational(module, plan, rating, weight, loss, features, effects, cuts=cuts)


def _als(module, plan, rating, weight, loss, *, alpha, mean, features=None, **options):
    objective = Objective.build(module, plan, rating, weight, loss, alpha=alpha, mean=mean, features=features)
    return AlternatingLeastSquares(module, objective)


def _minimiser(name):
    def build(module, plan, rating, weight, loss, *, alpha, mean, learning_rate, batch_size, generator, features=None, **options):
        objective = Objective.build(module, plan, rating, weight, loss, alpha=alpha, mean=mean, features=features)
        return Minimiser(module, objective, name, learning_rate=learning_rate, batch_size=batch_size, generator=generator)

    return RatingSolver(build, takes_batches=name != "lbfgs", sums_over_processes=name != "lbfgs")


RATING_SOLVERS = {
    "variational": RatingSolver(_variational, init_std=1.0, learns_prior=True, takes_effects=True, takes_cuts=True),
    "als": RatingSolver(_als, has_matrices=True),
    **{name: _minimiser(name) for name in OPTIMIZERS},
}
"""The solvers of ratings by the names that ``solver=`` takes: ``variational``, ``als`` and torch's optimizers."""
