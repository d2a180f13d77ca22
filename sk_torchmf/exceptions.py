"""The exceptions and the warning of this package. Invalid arguments raise ValueError or TypeError."""

import sys
import warnings


class InputWarning(UserWarning):
    """An argument can be read, but is almost certainly not what was meant.

    The message says what was found, how it was interpreted, and how to say what was meant.

    Examples
    --------
    >>> import warnings
    >>> import numpy as np
    >>> from sk_torchmf import ImplicitMatrixFactorization, InputWarning
    >>> one_hot = np.eye(6)[[0, 1, 2, 3, 4, 5, 0, 1]]
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always", InputWarning)
    ...     model = ImplicitMatrixFactorization(n_factors=1, max_iter=1).fit(one_hot)
    >>> print(caught[0].message)  # doctest: +ELLIPSIS
    X has 6 columns of numbers, and the first two were taken for ids of users and items. If it is a users x items matrix pass ...
    """


def warn(message):
    """Warn at the line that called the package."""
    frame, level = sys._getframe(1), 2
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in ("sk_torchmf", "sklearn"):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, InputWarning, stacklevel=level)


class DivergenceError(RuntimeError):
    """Training produced a loss or parameters that are not finite.

    The message names the epoch, the loss, the learning rate and what to lower.

    Examples
    --------
    >>> from sk_torchmf import DivergenceError, MatrixFactorization, datasets
    >>> X = datasets.make_ratings(100, 50, 1000, random_state=0).interactions
    >>> try:
    ...     MatrixFactorization(solver="sgd", learning_rate=1e6, random_state=0).fit(X)
    ... except DivergenceError as error:
    ...     print(error)  # doctest: +ELLIPSIS
    Loss became ... in epoch ... (learning_rate=1e+06). Lower learning_rate or raise alpha.
    """


class DistributedError(RuntimeError):
    """A fit over several processes was stopped on all of them, because one of them failed or cannot be reached.

    The message names the rank that failed and the error it raised, or says that the connection to the others was lost and what
    to do. The rank that failed raises its own error.

    Examples
    --------
    >>> from sk_torchmf import DistributedError
    >>> try:
    ...     raise DistributedError("Rank 1 of 2 has failed, which stops the fit on every rank.")
    ... except RuntimeError as error:
    ...     print(error)
    Rank 1 of 2 has failed, which stops the fit on every rank.
    """
