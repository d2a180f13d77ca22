"""Solvers: tensors in, Factors out. The table of those that fit ratings, by the names that ``solver=`` takes."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from sk_torchmf.solvers.als import AlternatingLeastSquares
from sk_torchmf.solvers.objective import Objective
from sk_torchmf.solvers.optimizers import OPTIMIZERS, Minimiser
from sk_torchmf.solvers.variational import Variational


@dataclass(frozen=True)
class RatingSolver:
    """A row of the table.

    Attributes
    ----------
    build : callable
        ``build(module, pairs, rating, weight, loss, *, alpha, mean, learning_rate, batch_size, generator)`` makes the solver of
        standardised ratings; ``mean`` is the score that the module starts at.
    init_std : float
        Of the module's random rows, see ``PlainMF``.
    takes_batches : bool
        Whether ``batch_size`` means anything.
    learns_prior : bool
        Whether it learns from the rows how much they differ, so that directions in which they do not are lost to it.
    """

    build: Callable
    init_std: float = 0.1
    takes_batches: bool = False
    learns_prior: bool = False


def _variational(module, pairs, rating, weight, loss, **options):
    return Variational(module, pairs, rating, weight, loss)


def _als(module, pairs, rating, weight, loss, *, alpha, mean, **options):
    return AlternatingLeastSquares(module, Objective.build(module, pairs, rating, weight, loss, alpha=alpha, mean=mean))


def _minimiser(optimizer, module, pairs, rating, weight, loss, *, alpha, mean, **options):
    objective = Objective.build(module, pairs, rating, weight, loss, alpha=alpha, mean=mean)
    return Minimiser(module, objective, optimizer, **options)


RATING_SOLVERS = {
    "variational": RatingSolver(_variational, init_std=1.0, learns_prior=True),
    "als": RatingSolver(_als),
    **{name: RatingSolver(partial(_minimiser, name), takes_batches=name != "lbfgs") for name in OPTIMIZERS},
}
"""The solvers of ratings by name: a new one is a row here."""
