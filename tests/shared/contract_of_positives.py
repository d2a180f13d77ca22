"""What every ImplicitMatrixFactorization does, whatever its loss: the contract of factorizations without ratings."""

from contract import FactorContract
from data import as_form

from sk_torchmf import ImplicitMatrixFactorization
from sk_torchmf.solvers import ranking_descent as ranking_solver


class ImplicitContract(FactorContract):
    loss = "ials"
    biased = True
    blockwise = (*FactorContract.blockwise, ranking_solver)

    def make(self, **params):
        return ImplicitMatrixFactorization(
            **{"n_factors": 3, "loss": self.loss, "biased": self.biased, "max_iter": 5, "random_state": 0} | params
        )

    def arguments(self, data, form):
        """A table without y: the ratings of the others are no weights."""
        return as_form(data, form)[0], None
