"""Estimators that overfit within some epochs, so that early stopping has something to stop."""

from functools import partial

import pytest
from every_estimator import ESTIMATORS
from every_solver import DATA, LIKED

OVERFITS = {name: partial(entry.kind, **entry.overfits, n_iter_no_change=3, random_state=0) for name, entry in ESTIMATORS.items()}
every_estimator = pytest.mark.parametrize("kind", OVERFITS)


def overfit(kind, **options):
    data = LIKED if ESTIMATORS[kind].positives else DATA
    return OVERFITS[kind](early_stopping=True, **options).fit(data), data
