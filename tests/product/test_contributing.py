"""The estimator that the page for contributors makes meets the contract that the page asks of it."""

import re
from pathlib import Path

import pytest
from contract import FactorContract

PAGE = Path(__file__).parents[2] / "docs" / "contributing" / "estimator.md"
pytestmark = pytest.mark.usefixtures("one_thread")

part, estimator, _ = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
exec(compile(part + estimator, str(PAGE), "exec"), globals())


class TestTheEstimatorOfThePage(FactorContract):
    def make(self, **params):
        return globals()["PMF"](**{"n_factors": 3, "alpha": 0.5, "random_state": 0, **params})
