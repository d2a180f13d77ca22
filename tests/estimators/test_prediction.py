"""Prediction and features of fitted factorizations: what asks for a fit, for a form, and for memory."""

import os

import numpy as np
import pytest
import scipy.sparse as sp
from five_ratings import I, S, X, Y
from sklearn.exceptions import NotFittedError

pytestmark = pytest.mark.usefixtures("one_thread")


CALLS = {
    "predict": lambda model: model.predict(X),
    "predict pairs": lambda model: model.predict([0], [0]),
    "transform": lambda model: model.transform(X),
    "fold_in": lambda model: model.fold_in(S),
    "inverse_transform": lambda model: model.inverse_transform(np.ones((1, 2))),
    "score": lambda model: model.score(X, Y),
    "recommend": lambda model: model.recommend(),
    "explain": lambda model: model.explain(X),
    "similar_items": lambda model: model.similar_items([0]),
    "similar_users": lambda model: model.similar_users([0]),
    "embeddings": lambda model: model.embeddings(),
    "to_module": lambda model: model.to_module(),
    "get_feature_names_out": lambda model: model.get_feature_names_out(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_every_method_asks_for_a_fit_first(make, call):
    with pytest.raises(NotFittedError, match=r"This \w+ instance is not fitted yet"):
        call(make())


def test_transform_takes_the_form_of_fit_only(make):
    for fitted, other, names in [
        ((S,), X, ("sparse", "table")),
        ((X, Y), S, ("table", "sparse")),
        ((S,), I, ("sparse", "interactions")),
    ]:
        words = rf"transform needs X in the form that fit saw, {names[0]}\. Got {names[1]}\."
        with pytest.raises(ValueError, match=words):
            make().fit(*fitted).transform(other)


def test_predictions_for_new_users_that_would_not_fit_in_memory_are_refused(make, monkeypatch):
    model = make().fit(S)
    free = {"SC_AVPHYS_PAGES": 1, "SC_PAGE_SIZE": 100}
    monkeypatch.setattr(os, "sysconf", free.__getitem__)
    assert model.predict(S[:2]).shape == (2, 3)  # 48 bytes
    with pytest.raises(
        MemoryError, match=r"A dense array of 5 x 3 predictions needs .* GiB.*free\. Pass fewer rows, use recommend"
    ):
        model.predict(sp.vstack([S, S[:2]]))


def test_where_the_free_memory_is_unknown_nothing_is_refused(make, monkeypatch):
    def unknown(name):
        raise ValueError(f"unrecognized configuration name {name}")

    model = make().fit(S)
    monkeypatch.setattr(os, "sysconf", unknown)
    assert model.predict(S).shape == (3, 3)
