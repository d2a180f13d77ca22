"""Events that have a name of their own; bad arguments are ValueError or TypeError."""


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
