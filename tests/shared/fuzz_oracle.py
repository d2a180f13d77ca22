"""Runs a case of the fuzz test and judges it: answered, refused with words, or a finding. Knows no strategy."""

import dis
import os
import random
import signal
import sys
import time
import traceback
import types
import warnings
from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp
import sklearn
import torch
from sklearn.exceptions import NotFittedError, UndefinedMetricWarning
from sklearn.utils._param_validation import InvalidParameterError

import sk_torchmf
from sk_torchmf import DivergenceError

LIMIT = 20  # seconds a case may take
IMPORTS = """\
import copy, datetime, pickle, random, tempfile, types
from decimal import Decimal
from fractions import Fraction
import numpy as np
import pandas as pd
import polars as pl
import scipy.sparse as sp
import torch
from sklearn.base import clone
from sk_torchmf import *
from sk_torchmf.metrics import evaluate
from sk_torchmf.model_selection import ranking_scorer
"""
OURS, SKLEARN = (os.path.dirname(package.__file__) + os.sep for package in (sk_torchmf, sklearn))
TORCH_OPTIM = os.path.dirname(torch.optim.__file__) + os.sep  # options of an optimizer are its own business
WITH_WORDS = ValueError, TypeError, MemoryError, DivergenceError, NotFittedError, InvalidParameterError
RAISE = dis.opmap["RAISE_VARARGS"]


class TooLongError(BaseException):
    """A case took longer than the limit; no ``except Exception`` holds it up."""


@dataclass(frozen=True)
class Step:
    """A line of a case.

    Attributes
    ----------
    code : str
        A statement, or an expression whose value is the answer.
    shape : str or None
        What the shape of the answer must be, an expression; None for whatever comes.
    fits : bool
        Whether it trains: it may then change the model, and where it is refused the case is.
    """

    code: str
    shape: str | None = None
    fits: bool = False


@dataclass(frozen=True)
class Case:
    """Statements that make the arguments, and steps that use them; all of them text, so that a finding can be printed and run."""

    estimator: str
    given: tuple
    steps: tuple

    def script(self, until=None):
        """The case as a script: of the steps those that train, and the one at which it ends."""
        steps = self.steps if until is None else self.steps[: until + 1]
        kept = [step.code for at, step in enumerate(steps) if at == until or until is None or step.fits or at == 0]
        return "\n".join([*self.given, *kept])


@dataclass(frozen=True)
class Finding:
    """What must not be.

    Attributes
    ----------
    kind : str
        What it was and where: findings of one kind are one finding.
    message : str
    script : str
        Code that shows it.
    """

    kind: str
    message: str
    script: str


@dataclass
class Outcome:
    """What became of a case: ``answered``, ``refused``, ``not made`` or ``finding``."""

    verdict: str
    finding: Finding | None = None
    refusals: list = field(default_factory=list)
    script: str = ""
    seconds: float = 0.0


def run(case):
    """Run a case; an Outcome."""
    module, started = types.ModuleType("case"), time.perf_counter()
    sys.modules["case"], namespace = module, vars(module)  # pickle looks for classes there
    exec(IMPORTS, namespace)
    outcome = Outcome("answered", script=case.script())
    try:
        with warnings.catch_warnings(action="ignore"), np.errstate(all="ignore"):
            for line in case.given:
                exec(line, namespace)
    except Exception as error:
        return Outcome("not made", refusals=[f"{type(error).__name__}: {error}"])
    inputs = [name for name, value in namespace.items() if not isinstance(value, (types.ModuleType, type)) and name[0] != "_"]
    with alarm(LIMIT):
        for at, step in enumerate(case.steps):
            problem, refusal = _take(step, namespace, inputs)
            if problem is not None:
                outcome.verdict = "finding"
                outcome.finding = Finding(*problem, case.script(at))
                break
            if refusal is not None:
                outcome.refusals.append(refusal)
                if step.fits or at == 0:
                    outcome.verdict = "refused"
                    break
    outcome.seconds = time.perf_counter() - started
    return outcome


def _take(step, namespace, inputs):
    """Take a step; the kind and message of what is wrong, or None, and how it was refused, or None."""
    model = namespace.get("model")
    held = {name: facts(namespace[name]) for name in inputs}
    world, state = _world(), None if model is None else facts(vars(model))
    parameters = None if model is None else facts(model.get_params(deep=False))
    answer = refusal = problem = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            answer = _evaluate(step.code, namespace)
        except TooLongError as error:
            return (f"longer than {LIMIT} s at {_our_place(error)}", _text(error)), None
        except Exception as error:
            if not _has_words(error) and not (model is None and isinstance(error, TypeError)):  # Python's own, of a call's signature
                kind = f"{type(error).__name__} at {_our_place(error)}"
                return (kind, _text(error)), None
            refusal = f"{type(error).__name__}: {error}"
    foreign = [one for one in caught if not one.category.__module__.startswith("sklearn.exceptions")]
    if foreign:
        one = foreign[0]
        place = f"{os.path.relpath(one.filename, OURS)}:{one.lineno}"
        problem = f"{one.category.__name__} at {place}", str(one.message)
    for name in inputs:
        if facts(namespace[name]) != held[name]:
            problem = f"changed input {_call(step.code)}", f"{name} is not what it was"
    if _world() != world:
        changed = [name for name, value in _world().items() if value != world[name]]
        if changed == ["environment"]:
            changed = sorted(set(_world()["environment"].items()) ^ set(world["environment"].items()))
        problem = f"changed {changed} by {_call(step.code)}", "global state is not what it was"
    if model is not None:
        if facts(model.get_params(deep=False)) != parameters:
            problem = f"changed parameters {_call(step.code)}", "get_params() is not what it was"
        if (refusal is not None or not step.fits) and facts(vars(model)) != state:
            now = facts(vars(model))
            changed = [name for name in {**state, **now} if state.get(name) != now.get(name)]
            why = "by a refused call" if refusal else "by a call that does not fit"
            problem = f"changed model {_call(step.code)} {why}", f"{changed}"
    if problem is None and refusal is None:
        undefined = any(issubclass(one.category, UndefinedMetricWarning) for one in caught)
        problem = _answer_problem(step, answer, namespace, undefined)
    return problem, refusal


def _evaluate(code, namespace):
    try:
        compiled = compile(code, "<case>", "eval")
    except SyntaxError:
        exec(compile(code, "<case>", "exec"), namespace)
        return None
    return eval(compiled, namespace)


def _answer_problem(step, answer, namespace, undefined):
    """What is wrong with an answer: its shape, numbers that are not finite; None for nothing."""
    model, call = namespace["model"], _call(step.code)
    name = type(model).__name__
    if step.fits:
        fitted = {key: value for key, value in vars(model).items() if key.endswith("_") and not key.startswith("_")}
        bad = [key for key, value in fitted.items() if key != "users_" and key != "items_" and not _finite(value)]
        if bad and not step.code.startswith("model.set_factors"):
            return f"{name}.{call} leaves {bad} not finite", str({key: fitted[key] for key in bad})[:500]
        return None
    if step.shape is not None:
        due = eval(step.shape, namespace)
        shapes = [np.shape(part) for part in answer] if isinstance(answer, tuple) else [np.shape(answer)]
        if isinstance(answer, tuple) != isinstance(due, list) or any(shape != one for shape, one in zip(shapes, due if isinstance(due, list) else [due], strict=False)):
            return f"{name}.{call} has another shape", f"{shapes} instead of {due}"
    if call in ("recommend", "similar_items", "similar_users"):
        ids, scores = answer
        filler = np.array([one is None or one == -1 for one in ids.ravel().tolist()], dtype=bool).reshape(ids.shape)
        if not (np.isfinite(scores) | ((scores == -np.inf) & filler)).all():
            return f"{name}.{call} is not finite", str(scores)[:500]
    elif answer is False or answer is np.False_:
        return f"{name}: {step.code}", "is not true"
    elif not _finite(answer, nan=_nan_allowed(step, model) or undefined):
        return f"{name}.{call} is not finite", f"{answer}"[:500]
    return None


def _nan_allowed(step, model):
    """Whether NaN is a documented answer: of unknown ids where they are to be, and of an AUC without a pair to compare."""
    how = getattr(model, "handle_unknown", None)
    return how == "nan" or (how == "error" and "to_module" in step.code) or "'auc'" in step.code


def _finite(value, nan=False):
    if isinstance(value, dict):
        return all(_finite(one, nan) for one in value.values())
    if isinstance(value, (list, tuple)):
        return all(_finite(one, nan) for one in value)
    if sp.issparse(value):
        return _finite(value.data, nan)
    if isinstance(value, torch.nn.Module):
        return all(_finite(one, nan) for one in value.state_dict().values())
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, (float, np.floating, np.ndarray)) and np.asarray(value).dtype.kind == "f":
        return bool((np.isfinite(value) | (np.isnan(value) if nan else False)).all())
    return True


def _has_words(error):
    """Whether an exception was raised on purpose, by us or by scikit-learn, and says something."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    last = error.__traceback__
    while last.tb_next is not None:
        last = last.tb_next
    meant = frame.f_code.co_code[last.tb_lasti] == RAISE
    return type(error) in WITH_WORDS and meant and frame.f_code.co_filename.startswith((OURS, SKLEARN, TORCH_OPTIM)) and len(str(error).split()) > 2


def _our_place(error):
    """The innermost line of ours that an exception came through."""
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(OURS)]
    return f"{os.path.relpath(lines[-1].filename, OURS)}:{lines[-1].lineno} {lines[-1].name}" if lines else "no line of ours"


def _text(error):
    frames = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error}"[:600] + f"  (raised in {frames.filename.rpartition('site-packages/')[2]}:{frames.lineno})"


def _call(code):
    head = code.split("(")[0]
    return head.rpartition(".")[2].strip()


def _world():
    """What is global and must not change."""
    kind, keys, *rest = np.random.get_state()
    return {
        "numpy's generator": (kind, keys.tobytes(), *rest),
        "random's generator": random.getstate(),
        "torch's generator": torch.get_rng_state().numpy().tobytes(),
        "torch's threads": torch.get_num_threads(),
        "torch's default dtype": torch.get_default_dtype(),
        "torch's gradients": torch.is_grad_enabled(),
        "numpy's errors": np.geterr(),
        "scikit-learn's configuration": sklearn.get_config(),
        "environment": {name: value for name, value in os.environ.items() if not name.startswith("TORCHINDUCTOR")},
        "folder": os.getcwd(),
    }


def facts(value):
    """What a value holds, in a form that two moments can be compared by."""
    if isinstance(value, np.ndarray):
        content = [repr(one) for one in value.ravel().tolist()] if value.dtype.kind in "OV" else value.tobytes()
        return value.dtype.str, value.shape, content
    if sp.issparse(value):
        return type(value).__name__, value.shape, {k: facts(v) for k, v in vars(value).items() if isinstance(v, (np.ndarray, tuple, dict))}
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.detach().cpu().numpy().tobytes()
    if isinstance(value, torch.nn.Module):
        return type(value).__name__, facts(dict(value.state_dict())), value.training
    if isinstance(value, dict):
        return {repr(k): facts(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value).__name__, [facts(one) for one in value]
    if hasattr(value, "user_ids"):
        return facts(vars(value))
    if hasattr(value, "iloc"):
        return str(getattr(value, "dtypes", None)), repr(value.index), repr(value.to_numpy(dtype=object).tolist())
    if hasattr(value, "rows") and hasattr(value, "schema"):
        return repr(value.schema), repr(value.rows())
    if hasattr(value, "to_numpy"):
        return str(value.dtype), repr(list(value))
    if isinstance(value, np.random.RandomState):
        return "RandomState"
    return repr(value)


class alarm:
    """Raises TooLongError in what it holds after some seconds, where the platform can."""

    def __init__(self, seconds):
        self.seconds = seconds

    def __enter__(self):
        def ring(number, frame):
            raise TooLongError

        if hasattr(signal, "SIGALRM"):
            self.before = signal.signal(signal.SIGALRM, ring)
            signal.setitimer(signal.ITIMER_REAL, self.seconds)

    def __exit__(self, *error):
        if hasattr(signal, "SIGALRM"):
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self.before)
