"""Reads the arguments of displays: the estimator in a pipeline or search, and values by id. Draws nothing."""

from collections.abc import Mapping

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from sk_torchmf.inputs.id_types import is_missing


def final_step(estimator):
    """The fitted estimator at the end of a search, a pipeline or both."""
    if hasattr(estimator, "best_estimator_"):
        return final_step(estimator.best_estimator_)
    if isinstance(estimator, Pipeline):
        return final_step(estimator.steps[-1][1])
    if isinstance(estimator, type) or not hasattr(estimator, "fit"):
        raise TypeError(f"estimator must be a fitted estimator. Got {estimator!r}.")
    if hasattr(estimator, "cv") and hasattr(estimator, "refit"):
        raise ValueError(
            f"estimator must be a fitted search. This {type(estimator).__name__} has no best_estimator_. Fit it, with refit=True."
        )
    check_is_fitted(estimator)
    return estimator


def before_final_step(estimator, X):
    """X as the final step of a pipeline gets it."""
    if hasattr(estimator, "best_estimator_"):
        return before_final_step(estimator.best_estimator_, X)
    if not isinstance(estimator, Pipeline):
        return X
    return before_final_step(estimator.steps[-1][1], estimator[:-1].transform(X) if len(estimator) > 1 else X)


def require(estimator, attribute, what, advice):
    """Refuse an estimator without an attribute, saying what needs it."""
    if not hasattr(estimator, attribute):
        raise TypeError(f"{what} needs an estimator with {attribute}. {type(estimator).__name__} has none. {advice}")


def of_ids(values, ids, name, role):
    """Values of ids, given by id or in their order.

    Parameters
    ----------
    values : mapping, pandas Series or array-like of shape (n,)
        A mapping and a Series, by its index, say which id a value is of; an array has one value for each of ``ids``.
    ids : ndarray of shape (n,)
    name, role : str
        Of the argument, and whose ids they are, for messages.

    Returns
    -------
    list
        None where a mapping has no value.
    """
    if isinstance(values, Mapping) or (hasattr(values, "index") and hasattr(values, "to_dict")):
        found = dict(values) if isinstance(values, Mapping) else values.to_dict()
        plain = ids.tolist()  # Python's own numbers, which hash as NumPy's do
        result = [found.get(key) for key in plain]
        if len(plain) and found and not any(key in found for key in plain):
            raise ValueError(
                f"{name} must have values for ids in {role}s_. Its keys look like {next(iter(found))!r}, and the ids like "
                f"{plain[0]!r}."
            )
        return result
    values = values.to_numpy() if hasattr(values, "to_numpy") else np.asarray(values)
    if values.shape != ids.shape:
        raise ValueError(
            f"{name} must be a mapping from {role} ids, or have one value for each id in {role}s_, shape {ids.shape}. Got shape "
            f"{values.shape}."
        )
    return values.tolist()


def texts_of(labels, ids, role):
    """What to call each id: its label, else the id itself."""
    plain = [str(id_) for id_ in ids.tolist()]
    if labels is None:
        return plain
    given = of_ids(labels, ids, "labels", role)
    return [text if is_missing(label) else str(label) for label, text in zip(given, plain, strict=True)]
