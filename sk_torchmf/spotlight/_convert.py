"""Spotlight's container to ours and back, on the same arrays. The one place that imports the real Spotlight."""

import importlib.util

import numpy as np

from sk_torchmf.interactions import as_interactions, is_interactions

_CURE = (
    "Spotlight, the recommender, is not on PyPI, whose project of that name is a library for validating data: take it from its "
    "repository, pip install git+https://github.com/maciejkula/spotlight"
)


def from_spotlight(interactions):
    """Take Spotlight's container over, so that scikit-learn can slice it.

    Parameters
    ----------
    interactions : spotlight.interactions.Interactions
        Or another object with its attributes; ours is returned as it is.

    Returns
    -------
    Interactions
        On the same arrays, of the same dtypes and sizes: nothing is copied, nothing lost.

    Raises
    ------
    TypeError
        For anything else, Spotlight's ``SequenceInteractions`` too: sequence models are out of scope.

    Examples
    --------
    ``data`` being Spotlight's, ``GridSearchCV(estimator, grid).fit(from_spotlight(data))`` holds out single observations; the
    object itself can go into ``fit``, ``predict`` and ``score``, but not into a search, which has to slice it.

    >>> from types import SimpleNamespace
    >>> import numpy as np
    >>> from sk_torchmf.spotlight import from_spotlight
    >>> theirs = SimpleNamespace(user_ids=np.array([0, 1]), item_ids=np.array([2, 0]), num_users=5, num_items=6)
    >>> from_spotlight(theirs)
    <Interactions dataset (5 users x 6 items x 2 interactions)>
    """
    return as_interactions(check_container(interactions, "interactions"))


def to_spotlight(interactions, *, id_dtype=None):
    """Make Spotlight's container of ours, for its splits, its shuffles and ``to_sequence``.

    Its models and its evaluation take ours as it is.

    Parameters
    ----------
    interactions : Interactions
        At least one observation, which Spotlight needs. For a sparse matrix pass ``Interactions.from_matrix(matrix)``.
    id_dtype : dtype, optional
        Of the ids; by default the one they have. Spotlight's ``user_based_train_test_split`` takes ``numpy.int32`` only.

    Returns
    -------
    spotlight.interactions.Interactions
        On the same arrays, of the same dtypes and sizes: nothing is copied, nothing lost, but for ids of another ``id_dtype``.

    Raises
    ------
    ImportError
        Where Spotlight is not installed, or the unrelated project of that name on PyPI is.
    TypeError
        For what is no container of pairs.
    ValueError
        For no observations, and for ids that ``id_dtype`` cannot hold.

    Examples
    --------
    Where Spotlight is installed, its split of users takes what this gives::

        from spotlight.cross_validation import user_based_train_test_split

        train, test = user_based_train_test_split(to_spotlight(interactions, id_dtype=numpy.int32))
    """
    data = check_container(interactions, "interactions")
    container = _import_interactions()
    if len(data.user_ids) == 0:
        raise ValueError("interactions has no observations, and Spotlight's container needs at least one.")
    users, items = (
        _as_dtype(np.asarray(ids), id_dtype, name) for name, ids in (("user_ids", data.user_ids), ("item_ids", data.item_ids))
    )
    if isinstance(data, container) and users is data.user_ids and items is data.item_ids:
        return data
    names = ("ratings", "timestamps", "weights", "num_users", "num_items")
    return container(users, items, **{name: getattr(data, name, None) for name in names})


def _as_dtype(ids, dtype, name):
    """Ids in a dtype that can hold them, themselves where it is theirs."""
    if dtype is None or ids.dtype == dtype:
        return ids
    if np.dtype(dtype).kind not in "iu" or ids.max() > np.iinfo(dtype).max:
        raise ValueError(f"id_dtype must be an integer type that holds {name}, which go up to {ids.max()}. Got {np.dtype(dtype)}.")
    return ids.astype(dtype)


def check_container(interactions, name):
    """Refuse what is no container of pairs."""
    if is_interactions(interactions):
        return interactions
    what = "A sequence has no pairs; sequence models are out of scope." if hasattr(interactions, "sequences") else ""
    raise TypeError(f"{name} must be Interactions, ours or Spotlight's. Got {type(interactions).__name__}. {what}".rstrip())


def _import_interactions():
    """Spotlight's own class ``Interactions``."""
    try:
        from spotlight.interactions import Interactions
    except ImportError as error:
        if error.name == "spotlight":
            raise ImportError(f"Spotlight is not installed. {_CURE}", name="spotlight") from None
        found = importlib.util.find_spec("spotlight")
        place = found.origin if found else "sys.path"
        raise ImportError(f"The package spotlight at {place} has no interactions ({error}). {_CURE}", name="spotlight") from error
    return Interactions
