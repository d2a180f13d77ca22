"""Minimise an objective with one of torch's own optimizers, on all pairs at once or on blocks. Knows no estimator."""

import time
from dataclasses import replace

import torch

from sk_torchmf.exceptions import DivergenceError
from sk_torchmf.solvers.solution import Solution

OPTIMIZERS = {
    "adam": torch.optim.Adam,
    "adagrad": torch.optim.Adagrad,
    "sgd": torch.optim.SGD,
    "lbfgs": torch.optim.LBFGS,
}
PATIENCE = 5  # epochs in a row with less than tol improvement before training stops


def default_learning_rate(optimizer, objective, module):
    """A step size that suits the standardised objective; for SGD a tenth of the inverse of its largest curvature at the start."""
    if optimizer == "sgd":
        bend = objective.loss.curvature(module.forward_pairs(objective.pairs).detach(), objective.rating) / 2
        bends = objective.pairs.sums(bend if objective.weight is None else bend * objective.weight)
        size = max(float(ridge.mean.square().sum()) for ridge in objective.ridges)
        return 0.1 / (max(float(bend.max()) for bend in bends) * (1 + size))
    return {"adam": 0.1, "adagrad": 0.2, "lbfgs": 1.0}[optimizer]


def minimise(
    module, objective, optimizer, *, learning_rate=None, batch_size=None, max_iter=50, tol=1e-5, generator=None, report=None
):
    """Train a module in place.

    Parameters
    ----------
    module : PlainMF or BiasedMF
        Its parameters are the start and the result.
    objective : Objective
        What to minimise.
    optimizer : {"adam", "adagrad", "sgd", "lbfgs"}
        One of torch.optim; sgd runs with Nesterov momentum 0.9, lbfgs with a strong Wolfe line search.
    learning_rate : float, optional
        By default one that suits the standardised objective.
    batch_size : int, optional
        About how many pairs a step takes (whole users); all of them by default. Not for lbfgs.
    max_iter : int
        Passes over the pairs; for lbfgs groups of five iterations (with one a call torch's line search gets stuck).
    tol : float
        Training stops once the objective has fallen by less than this fraction in each of five epochs in a row.
    generator : torch.Generator, optional
        Shuffles the blocks.
    report : callable, optional
        Called after each epoch with (epoch, objective value).

    Returns
    -------
    solution : Solution
        Without posterior; the prior is the objective's ridge about the mean user.
    history : dict of list
        ``loss``: the objective at the start of each epoch (summed over the steps where there are blocks); ``seconds``: time each
        epoch took.

    Raises
    ------
    DivergenceError
        Where the objective or a parameter is not finite.
    """
    if learning_rate is None:
        learning_rate = default_learning_rate(optimizer, objective, module)
    parts = [(module, objective)]
    if batch_size is not None and batch_size < objective.pairs.n_pairs:
        parts = [(module.block(rows), part) for rows, part in objective.blocks(batch_size)]
    parameters = list({id(p): p for block, _ in parts for p in block.parameters()}.values())
    options: dict[str, dict] = {
        "sgd": {"momentum": 0.9, "nesterov": True},
        "lbfgs": {"max_iter": 5, "max_eval": 125, "line_search_fn": "strong_wolfe", "tolerance_change": 0, "tolerance_grad": 0},
    }
    steps = OPTIMIZERS[optimizer](parameters, lr=learning_rate, **options.get(optimizer, {}))

    def closure(block, part):
        steps.zero_grad()  # to None: rows of other blocks are left alone, their moments too
        value = part(block)
        value.backward()
        return value.detach()

    history: dict[str, list] = {"loss": [], "seconds": []}
    for epoch in range(1, max_iter + 1):
        start = time.perf_counter()
        order = torch.randperm(len(parts), generator=generator, device="cpu").tolist() if len(parts) > 1 else [0]
        value = sum(float(steps.step(lambda at=at: closure(*parts[at]))) for at in order)
        history["loss"].append(value)
        history["seconds"].append(time.perf_counter() - start)
        if not _finite(value, parameters):
            raise DivergenceError(
                f"Loss became {value:.4g} in epoch {epoch} (learning_rate={learning_rate:.3g}). Lower learning_rate or raise alpha."
            )
        if report is not None:
            report(epoch, value)
        if stalled(history["loss"], tol):
            break
    solution = Solution.from_module(module, prior=None)
    return replace(solution, prior=objective.ridges[0].prior(solution.users.mean(0))), history


def stalled(losses, tol):
    """Whether each of the last five epochs lowered the objective by less than the fraction tol."""
    recent = losses[-PATIENCE - 1 :]
    return len(recent) > PATIENCE and all(old - new < tol * abs(old) for old, new in zip(recent[:-1], recent[1:], strict=True))


def _finite(value, parameters):
    return value - value == 0 and all(bool(p.isfinite().all()) for p in parameters)
