"""Where training starts that goes on from an earlier fit: its rows, at their new places, and new rows at the mean of them."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from sk_torchmf.inputs import labels as _labels


@dataclass(frozen=True)
class Rows:
    """One side's rows, in rating units.

    Attributes
    ----------
    labels : ndarray of shape (n,)
    factors : ndarray of shape (n, n_factors)
    biases : ndarray of shape (n,) or None
    known : ndarray of shape (n,), bool
        Whether a row was learned; the others start afresh, about the mean row.
    mean : ndarray of shape (n_factors,)
    """

    labels: np.ndarray
    factors: np.ndarray
    biases: np.ndarray | None
    known: np.ndarray
    mean: np.ndarray

    def placed(self, code):
        """The rows of which these are the numbers, -1 for a new one."""
        biases = None if self.biases is None else self.biases[code]
        return replace(self, factors=self.factors[code], biases=biases, known=self.known[code] & (code >= 0))

    def fill(self, factors, biases, index, planted, scale, fresh):
        """Fill parameters (m, n_factors) and (m,) or None, in place, which hold random rows about ``planted``.

        Of these random rows the part ``fresh`` is added to the known ones, in directions in which the known ones hardly differ.
        """
        known = self.known[index]
        there = torch.from_numpy(np.flatnonzero(known)).to(factors.device)

        def to(values, unit):
            return torch.from_numpy(np.asarray(values / unit)).to(factors)

        with torch.no_grad():
            random = factors[there] - planted
            factors.add_(to(self.mean, scale**0.5) - planted)
            factors[there] = rows = to(self.factors[index][known], scale**0.5)
            if fresh and len(rows) > 1:
                variance, basis = torch.linalg.eigh(torch.cov(rows.T).view(2 * rows.shape[1:]))
                missing = (1 - variance / random.square().mean()).clamp(0, 1).sqrt()
                factors[there] += fresh * (random @ (basis * missing) @ basis.T)
            if biases is not None and self.biases is not None:
                biases[there] = to(self.biases[index][known], scale)


@dataclass(frozen=True)
class Start:
    """Both sides' rows.

    Attributes
    ----------
    users, items : Rows
    constant : float
        The global mean, 0 where there is none.
    """

    users: Rows
    items: Rows
    constant: float

    @classmethod
    def of(cls, estimator):
        """The rows of a fitted estimator, whose ``n_factors`` must be what it was."""
        n_factors = estimator.item_factors_.shape[1]
        if estimator.n_factors != n_factors:
            raise ValueError(
                f"n_factors={estimator.n_factors}, but the rows to go on from have {n_factors} factors. Set n_factors={n_factors}, "
                "or fit a fresh estimator with warm_start=False."
            )
        sides = {}
        for name in ("user", "item"):
            biases = getattr(estimator, f"{name}_biases_", None)
            known = getattr(estimator, f"{name}_counts_") > 0
            factors, mean = getattr(estimator, f"{name}_factors_"), getattr(estimator, f"mean_{name}_")
            sides[name] = Rows(getattr(estimator, f"{name}s_"), factors, biases, known, mean)
        return cls(sides["user"], sides["item"], float(getattr(estimator, "global_mean_", 0.0)))

    def named(self, users, items):
        """The rows of these labels, for a fit on other data."""
        sides = zip(("user", "item"), (self.users, self.items), (users, items), strict=True)
        return replace(self, **{f"{role}s": rows.placed(_labels.lookup(labels, rows.labels, role)) for role, rows, labels in sides})

    def grown(self, growth):
        """The rows at the places that ``partial_fit`` moves them to."""
        users, items = growth.codes()
        return replace(self, users=self.users.placed(users), items=self.items.placed(items))

    def fill(self, module, known_users, known_items, mean, scale, fresh=0.0):
        """Fill a fresh module of some users and items, in place; it was made to start at the score ``mean``.

        A solver that learns how much rows differ has none left in directions that it saw no use for; what more ratings say of these
        it would not find. So a part ``fresh`` of a random start is left there.
        """
        n_factors = module.user_factors.shape[1]
        for rows, role, index, planted in zip(
            (self.users, self.items), ("user", "item"), (known_users, known_items), module.mean_rows(mean), strict=True
        ):
            biases = getattr(module, f"{role}_biases", None)
            rows.fill(getattr(module, f"{role}_factors"), biases, index, planted[:n_factors], scale, fresh)
        if hasattr(module, "global_mean") and (self.users.known.any() or self.items.known.any()):
            module.global_mean.fill_(self.constant / scale)
