"""Spotlight's container to ours and back, on the same arrays. The one place that imports the real Spotlight."""

import importlib.util

import numpy as np

from sk_torchmf.interactions import as_interactions, is_interactions

_ADVICE = (
    "Spotlight, the recommender, is not on PyPI, whose project of that name is a library for validating data: take it from its "
    "repository, pip install git+https://github.com/maciejkula/spotlight"
)


def from_spotlight(interactions):
    """Convert Spotlight's container to ours, which scikit-learn can slice.

    Parameters
    ----------
    interactions : spotlight.interactions.Interactions
        Spotlight's container, or another object with its attributes. Ours is returned as it is.

    Returns
    -------
    Interactions
        The same data. The arrays are not copied.

    Raises
    ------
    TypeError
        If ``interactions`` is anything else, including Spotlight's ``SequenceInteractions``: sequence models are not supported.

    Examples
    --------
    If ``data`` is Spotlight's container, ``GridSearchCV(estimator, grid).fit(from_spotlight(data))`` holds out single observations.
    The container itself can be passed to ``fit``, ``predict`` and ``score``, but not to a search, which has to slice it.

    >>> from types import SimpleNamespace
    >>> import numpy as np
    >>> from sk_torchmf.spotlight import from_spotlight
    >>> theirs = SimpleNamespace(user_ids=np.array([0, 1]), item_ids=np.array([2, 0]), num_users=5, num_items=6)
    >>> from_spotlight(theirs)
    <Interactions dataset (5 users x 6 items x 2 interactions)>
    """
    return as_interactions(check_container(interactions, "interactions"))


def to_spotlight(interactions, *, id_dtype=None):
    """Convert our container to Spotlight's, for Spotlight's splits, shuffles and ``to_sequence``.

    Spotlight's models and evaluation accept our container as it is, without this.

    Parameters
    ----------
    interactions : Interactions
        The data, with at least one observation. For a sparse matrix pass ``Interactions.from_matrix(matrix)``.
    id_dtype : dtype, optional
        The dtype of the ids; by default they keep theirs. Spotlight's ``user_based_train_test_split`` needs ``numpy.int32``.

    Returns
    -------
    spotlight.interactions.Interactions
        The same data. The arrays are not copied, except for ids of another ``id_dtype``.

    Raises
    ------
    ImportError
        If Spotlight is not installed, or the unrelated project of the same name on PyPI is installed instead.
    TypeError
        If ``interactions`` is not such a container.
    ValueError
        If there are no observations, or ``id_dtype`` cannot hold the ids.

    Examples
    --------
    If Spotlight is installed, its split by users accepts the result::

        from spotlight.cross_validation import user_based_train_test_split

        train, test = user_based_train_test_split(to_spotlight(interactions, id_dtype=numpy.int32))
    """
    data = check_container(interactions, "interactions")
    container = _import_interactions()
    if len(data.user_ids) == 0:
        raise ValueError("interactions must have at least one observation, because Spotlight's container needs one.")
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
            raise ImportError(f"Spotlight is not installed. {_ADVICE}", name="spotlight") from None
        found = importlib.util.find_spec("spotlight")
        place = found.origin if found else "sys.path"
        raise ImportError(f"The package spotlight at {place} has no interactions ({error}). {_ADVICE}", name="spotlight") from error
    return Interactions
