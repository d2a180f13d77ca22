"""Events that have a name of their own; bad arguments are ValueError or TypeError."""


class DivergenceError(RuntimeError):
    """Training produced a loss or parameters that are not finite.

    The message names the epoch, the loss, the learning rate and what to lower.
    """
