"""The context of observations as it stands in X: the columns and times that effects are made from. Touches no estimator."""

from sk_torchmf.inputs.effects import as_seconds, check_effects, find_codes, fit_effects, plain_column
from sk_torchmf.inputs.forms import INTERACTIONS, SPARSE, check_table, form_of
from sk_torchmf.inputs.labels import column
from sk_torchmf.interactions import as_interactions

TIME = None  # the key of times among the columns of a context


def wanted(effects, time):
    """Which columns the parameters ``effects`` and ``time`` ask for: a dict of keys to columns of X, True for timestamps."""
    found = {key: key for _, key in check_effects(effects)}
    return found if time is None or time is False else found | {TIME: time}


def columns_of(effects, time):
    """Likewise what a list of Effect was made of, by the parameter ``time``."""
    found = {effect.column: effect.column for effect in effects if effect.column is not TIME}
    return found | wanted(None, time) if any(effect.column is TIME for effect in effects) else found


def read(X, effects, time):
    """Read the context of observations that are to be fitted.

    Parameters
    ----------
    X : table or container
        A sparse matrix is refused where a context is asked for.
    effects : list or None
        The estimator's parameter, see ``check_effects``.
    time : int, str, bool or None
        Likewise: a column of a table, or True for the timestamps of a container.

    Returns
    -------
    dict of int, str or None to ndarray of shape (n,)
        The columns, by name or position; under None the times, in seconds.
    """
    columns, form = wanted(effects, time), form_of(X)
    if not columns:
        return {}
    if form == SPARSE:
        raise ValueError(
            "effects and time need X to be a table or Interactions, because a sparse matrix holds neither columns nor times. "
            "Pass one of these, or set neither parameter."
        )
    if form == INTERACTIONS:
        named = next((key for key in columns.values() if key is not True), None)
        if named is not None:
            raise ValueError(
                f"effects and time name the column {named!r}, but Interactions have no columns. Pass a table, or use time=True "
                "for their timestamps."
            )
        if as_interactions(X).timestamps is None:
            raise ValueError(
                "time=True needs Interactions with timestamps, and these have none. Pass Interactions with timestamps, or set "
                "time=None."
            )
    elif columns.get(TIME) is True:
        raise ValueError(
            "time=True stands for the timestamps of Interactions. For a table pass the name or position of the time column."
        )
    return find(X, columns)


def find(X, columns):
    """Read what X, a table or container, has of a context that ``wanted`` names; a table must have all but timestamps."""
    if form_of(X) == INTERACTIONS:
        data = as_interactions(X)
        known = columns.get(TIME) is True and data.timestamps is not None
        return {TIME: as_seconds(plain_column(data.timestamps, len(data), "timestamps"))} if known else {}
    X, found = check_table(X, may_be_empty=True), {}
    for key, own in columns.items():
        if own is not True:
            what = "time" if key is TIME else "effects"
            values = plain_column(column(X, own, what), len(X), f"{what}: column {own!r}")
            found[key] = as_seconds(values) if key is TIME else values
    return found


def fit(effects, user, item, context, processes=None):
    """Learn the codes of a context, see ``fit_effects``."""
    return fit_effects(effects, user, item, context, context.get(TIME), processes=processes)


def codes(effects, user, item, context):
    """Find the codes of pairs in a context, see ``find_codes``."""
    return find_codes(effects, user, item, context, context.get(TIME))
