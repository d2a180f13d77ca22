"""What features say of a side's rows: a linear map, and how far rows lie about it. Knows arrays only."""

from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np


@dataclass(slots=True)
class FeatureWeights:
    r"""The learned map from a row's features to where the row is expected.

    A row without observations is expected at ``constant + features @ weights``. Where rows also have what they were observed with
    among their features, one that was not observed is unknown in these, rather than empty: so the prior of a row with observations
    has a constant and weights of its own.

    Attributes
    ----------
    constant : ndarray of shape (width,)
    weights : ndarray of shape (n_columns, width)
        Of the encoded columns.
    own_constant, own_weights : ndarray of shape (width,) and (n_columns, width)
        Of the prior of a row with observations.
    own_average : ndarray of shape (width,)
        That prior's mean where nothing is known of a row's features.
    seen : ndarray of shape (n_others, width) or None
        Likewise, of each of the n others that it was observed with, over the root of n.
    spread : ndarray of shape (width,) or None
        Variances of rows without observations about where they are expected, along the posterior's basis; None where the solver
        does not know.
    variances : ndarray of shape (n_columns, width) or None
        Of the weights, along the posterior's basis.
    shares : dict of str to float
        What share of the rows' variance each group explains.
    """

    constant: np.ndarray
    weights: np.ndarray
    own_constant: np.ndarray
    own_weights: np.ndarray
    own_average: np.ndarray
    seen: np.ndarray | None = None
    spread: Any = None
    variances: Any = None
    shares: dict = field(default_factory=dict)

    def rows(self, features):
        """Where rows (n, width) without observations are expected, by their features, a CSR array of shape (n, n_columns)."""
        return self.constant + features @ self.weights

    def excess_variance(self, features):
        """By how much the variances (n, width) of such rows exceed the prior's, along the posterior's basis."""
        return self.spread - 1 + features.multiply(features).tocsr() @ self.variances

    def prior_means(self, n, features=None):
        """The prior means of rows with observations, but for what they were observed with.

        Parameters
        ----------
        n : int
        features : EncodedFeatures, optional
            Of these rows; None for none that are known.

        Returns
        -------
        ndarray of shape (n, width)
            ``own_average`` where nothing is known.
        """
        means = np.tile(self.own_average, (n, 1))
        if features is not None:
            known = np.flatnonzero(features.described)
            means[known] = self.own_constant + features.matrix[known] @ self.own_weights
        return means

    def mapped(self, matrix, shift):
        """The weights after rows have become ``matrix @ row + shift``."""
        return replace(
            self,
            constant=self.constant @ matrix.T + shift,
            own_constant=self.own_constant @ matrix.T + shift,
            own_average=self.own_average @ matrix.T + shift,
            weights=self.weights @ matrix.T,
            own_weights=self.own_weights @ matrix.T,
            seen=None if self.seen is None else self.seen @ matrix.T,
        )

    def scaled(self, units):
        """The weights after rows have been multiplied by ``units`` (width,)."""
        return self.mapped(np.diag(units), 0.0)

    def spread_over(self, known, n_others):
        """The weights where there are more others: those at ``known`` are these, of the rest nothing is known."""
        if self.seen is None or len(known) == n_others:
            return self
        seen = np.zeros((n_others, self.seen.shape[1]))
        seen[known] = self.seen
        return replace(self, seen=seen)

    def as_dict(self):
        """What it is made of, by name."""
        return {own.name: getattr(self, own.name) for own in fields(self)}
