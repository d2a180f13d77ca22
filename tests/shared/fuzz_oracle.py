"""Runs a case of the fuzz test and judges it: answered, refused with words, or a finding. Knows no strategy."""

import contextlib
import dis
import os
import random
import signal
import sys
import time
import traceback
import types
import warnings
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import sklearn
import torch
from facts import facts
from sklearn.exceptions import NotFittedError, UndefinedMetricWarning
from sklearn.utils._param_validation import InvalidParameterError

import sk_torchmf
from sk_torchmf import DivergenceError, InputWarning

LIMIT = 20.0  # seconds a case may take
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
from sklearn.metrics import make_scorer, max_error
from sklearn.model_selection import cross_val_score
from sk_torchmf import *
from sk_torchmf.metrics import evaluate
from sk_torchmf.model_selection import *
from sk_torchmf.spotlight import mrr_score, precision_recall_score, rmse_score
"""
OURS = os.path.dirname(sk_torchmf.__file__) + os.sep
MEANT = OURS, os.path.dirname(sklearn.__file__) + os.sep, os.path.dirname(torch.optim.__file__) + os.sep  # raise with words
NAMES = sklearn.utils.validation.__file__  # warns of feature names that fit did not see, or saw
WITH_WORDS = ValueError, TypeError, MemoryError, DivergenceError, NotFittedError, InvalidParameterError
LISTS = "recommend", "similar_items", "similar_users"


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
        An expression: the shape of the answer, or a list of shapes for a tuple; None for whatever comes.
    fits : bool
        Whether it trains: it may then change the model, and where it is refused the case is.
    makes : bool
        Whether it makes what the others need; where it is refused the case is.
    """

    code: str
    shape: str | None = None
    fits: bool = False
    makes: bool = False

    @property
    def call(self):
        """The name of the function or method that is called."""
        return self.code.split("(")[0].rpartition(".")[2].strip()


@dataclass(frozen=True)
class Case:
    """Lines that make the arguments, those of further data first; steps, of which one makes ``model``. All can be printed."""

    estimator: str
    given: tuple
    steps: tuple
    more: tuple = ()

    def script(self, until=None):
        """The lines and, of the steps, those that make and train something and the one at which it ends; all for None."""
        last = len(self.steps) - 1 if until is None else until
        kept = [
            step.code for at, step in enumerate(self.steps[: last + 1]) if until is None or step.fits or step.makes or at == last
        ]
        text = "\n".join([*self.given, *kept])
        before = ["path = tempfile.mkdtemp() + '/model'"] if "path" in text else []
        return "\n".join([*before, *(self.more if "_more" in text else ()), text])


@dataclass(frozen=True)
class Finding:
    """What must not be: findings of one kind (what it is, and where) are one finding; a script shows it."""

    kind: str
    message: str
    script: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of a case: "answered", "refused", "not made" (its arguments do not exist) or "finding"."""

    verdict: str
    seconds: float = 0.0
    finding: Finding | None = None
    refusals: tuple = ()
    script: str = ""


def run(case, limit=LIMIT):
    """Run a case; an Outcome."""
    module = types.ModuleType("case")
    sys.modules["case"], namespace = module, vars(module)  # pickle looks for classes there
    exec(IMPORTS, namespace)
    known, refusals, started = set(namespace), [], time.perf_counter()
    try:
        with warnings.catch_warnings(action="ignore"), np.errstate(all="ignore"):
            exec("\n".join(["path = tempfile.mkdtemp() + '/model'", *case.more, *case.given]), namespace)
    except Exception as error:
        return Outcome("not made", refusals=(f"{type(error).__name__}: {error}",))

    def outcome(verdict, finding=None):
        return Outcome(verdict, time.perf_counter() - started, finding, tuple(refusals), case.script())

    for at, step in enumerate(case.steps):
        inputs = [name for name in namespace if name not in known and name != "model"]
        refusal, finding = take(step, namespace, inputs, started + limit - time.perf_counter())
        if finding is not None:
            return outcome("finding", Finding(finding.kind, finding.message, case.script(at)))
        if refusal is not None:
            refusals.append(refusal)
            if step.fits or step.makes:
                return outcome("refused")
    if time.perf_counter() - started > limit:  # where there is no alarm
        return outcome("finding", Finding("longer than the limit", case.steps[-1].code, case.script()))
    return outcome("answered")


def take(step, namespace, inputs, seconds):
    """Take a step; how it was refused and what is wrong, None for nothing."""
    before = _held(namespace, inputs)
    answer = refusal = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with alarm(seconds):
                answer = _evaluate(step.code, namespace)
        except TooLongError as error:
            return None, Finding(f"longer than the limit at {_place(error)}", _text(error))
        except Exception as error:
            if not _has_words(error):
                return None, Finding(f"{type(error).__name__} at {_place(error)}", _text(error))
            refusal = f"{type(error).__name__}: {error}"
    for one in caught:
        if not _is_expected(one):
            place = f"{os.path.relpath(one.filename, OURS)}:{one.lineno}"
            return None, Finding(f"{one.category.__name__} at {place}", str(one.message))
    after = _held(namespace, inputs)
    allowed = {step.code.split(" = ")[0]} if step.makes else {"model"} if step.fits and refusal is None else set()
    if step.call == "set_params":
        allowed |= {"model", "the parameters"}
    for name in before.keys() - allowed:
        if before[name] != after[name]:
            both = [one for one in (before[name], after[name]) if isinstance(one, dict)]
            changed = sorted({own for one in both for own in one if any(other.get(own) != one[own] for other in both)})
            though = "" if refusal is None else ", though it refuses"
            return None, Finding(f"{step.call} changes {name} {changed}{though}", str(refusal))
    if refusal is not None:
        return refusal, None
    undefined = any(issubclass(one.category, UndefinedMetricWarning) for one in caught)
    return None, _wrong(step, answer, namespace, nan=undefined)


def _held(namespace, inputs):
    """All that a step must not change, by name."""
    held = {"the world": facts(_world())} | {name: facts(namespace[name]) for name in inputs}
    if "model" in namespace:
        model = namespace["model"]
        held |= {"the parameters": facts(model.get_params(deep=False)), "model": facts(vars(model))}
    return held


def _world():
    """What is global."""
    return {
        "numpy's generator": np.random.get_state(),  # noqa: NPY002
        "random's generator": random.getstate(),
        "torch's generator": torch.get_rng_state(),
        "torch's threads": torch.get_num_threads(),
        "torch's default dtype": torch.get_default_dtype(),
        "torch's gradients": torch.is_grad_enabled(),
        "numpy's errors": np.geterr(),
        "scikit-learn's configuration": sklearn.get_config(),
        "environment": {
            name: value for name, value in os.environ.items() if not name.startswith("TORCHINDUCTOR")
        },  # torch's import
        "folder": os.getcwd(),
    }


def _evaluate(code, namespace):
    try:
        compiled = compile(code, "<case>", "eval")
    except SyntaxError:
        return exec(compile(code, "<case>", "exec"), namespace)
    return eval(compiled, namespace)


def _wrong(step, answer, namespace, nan):
    """What is wrong with an answer, a Finding: its shape, numbers that are not finite; None for nothing."""
    if step.makes or step.code.startswith("clone("):  # what a model of odd factors predicts is odd
        return None
    model = namespace["model"]
    what = f"{type(model).__name__}.{step.call}"
    if step.fits:
        fitted = {name: value for name, value in vars(model).items() if name.endswith("_") and not name.startswith("_")}
        fitted["optimizer_state_"] = (fitted.get("optimizer_state_") or {}).get("moments")  # a scheduler's state is torch's
        values = {name: value for name, value in fitted.items() if name not in ("users_", "items_")}
        told = nan and "history_"  # scikit-learn has warned that a score is not defined
        bad = {name: value for name, value in values.items() if not is_finite(value, name == told)}
        return Finding(f"{what} leaves {sorted(bad)} not finite", f"{bad}"[:500]) if bad else None
    if step.shape is not None:
        due, found = eval(step.shape, namespace), np.shape(answer)
        if isinstance(due, list):
            found = [np.shape(part) for part in answer]
        if due is not None and found != due:
            return Finding(f"{what} has another shape", f"{found} instead of {due}")
    if step.call in LISTS:
        ids, scores = answer
        empty = np.array([one is None or one == -1 for one in ids.ravel().tolist()], dtype=bool).reshape(ids.shape)
        if not (np.isfinite(scores) | ((scores == -np.inf) & empty)).all():
            return Finding(f"{what} is not finite", f"{scores}"[:500])
        return None
    if isinstance(answer, (bool, np.bool_)) and not answer:
        return Finding(f"{what} is false", step.code)
    unknown = model is not None and (
        model.handle_unknown == "nan" or (model.handle_unknown == "error" and "to_module" in step.code)
    )
    if not is_finite(answer, nan or unknown or "'auc'" in step.code):  # an AUC may have nothing to compare
        return Finding(f"{what} is not finite", f"{answer}"[:500])
    return None


def is_finite(value, nan=False):
    """Whether all floats in a value are finite or, if that is documented, NaN."""
    if isinstance(value, dict):
        return all(is_finite(one, nan) for one in value.values())
    if isinstance(value, (list, tuple)):
        return all(is_finite(one, nan) for one in value)
    if isinstance(value, torch.nn.Module):
        return is_finite(value.state_dict(), nan)
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    value = value.data if sp.issparse(value) else value
    if isinstance(value, (float, np.floating, np.ndarray)) and np.asarray(value).dtype.kind == "f":
        return bool((np.isfinite(value) | (nan & np.isnan(value))).all())
    return True


def _is_expected(warning):
    """Whether a warning is one of ours, at the line that called, or of those that scikit-learn gives by name."""
    kind, where = warning.category, warning.filename
    ours, names = kind is InputWarning and where == "<case>", kind is UserWarning and where == NAMES
    return ours or names or kind.__module__ == "sklearn.exceptions"


def _has_words(error):
    """Whether an exception was raised on purpose, by us, scikit-learn or an optimizer, and says something."""
    last = error.__traceback__
    while last.tb_next is not None:
        last = last.tb_next
    code = last.tb_frame.f_code
    if code.co_filename == "<case>":  # Python's own words for a call that does not suit the signature
        return type(error) is TypeError and "argument" in str(error)
    meant = code.co_code[last.tb_lasti] == dis.opmap["RAISE_VARARGS"]  # else it came up in C
    return type(error) in WITH_WORDS and meant and code.co_filename.startswith(MEANT) and len(str(error).split()) > 2


def _place(error):
    """The innermost line of ours that an exception came through."""
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(OURS)]
    return f"{os.path.relpath(lines[-1].filename, OURS)}:{lines[-1].lineno} {lines[-1].name}" if lines else "no line of ours"


def _text(error):
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error}"[:600] + f" (in {frame.filename.rpartition('site-packages/')[2]}:{frame.lineno})"


@contextlib.contextmanager
def alarm(seconds):
    """Raise TooLongError in what takes longer, where the platform can."""

    def ring(number, frame):
        raise TooLongError

    if not hasattr(signal, "SIGALRM"):
        yield
        return
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
