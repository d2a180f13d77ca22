"""Which column of a table holds users, items, ratings and times: asked for, told by its name, or by order where it has none."""

import re
from itertools import takewhile
from numbers import Integral

from sk_torchmf.datasets._cells import number, seconds
from sk_torchmf.exceptions import warn

ROLES = ("user", "item", "rating", "timestamp")

# The last word of a name says what it is: a "book rating" is a rating, and a "user age" nothing that is looked for.
NAMES = {
    "user": """user users usr u uid customer cust reviewer rater member visitor client account subscriber viewer reader listener
        player buyer shopper consumer person profile critic voter visitorid guest patron learner student""",
    "item": """item items i iid movie movies film asin isbn product article book song track artist album game anime manga business
        restaurant joke recipe beer wine show video sku stock goods merchant hotel place venue poi app course app offer listing
        series episode podcast dish food paper news story post deal brand""",
    "rating": "rating ratings r score scores star stars overall grade rate preference label",
    "timestamp": "timestamp timestamps t ts time unixtime date datetime when at",
}
ROLE_OF = {word: role for role, words in NAMES.items() for word in words.split()}
LETTERS = {"u", "i", "r", "t"}
OTHERS = {
    "id": "id ids key code no nr num number index idx hash uuid guid sha1",
    "label": "name title login nick nickname",  # of a user or an item, but their id is better
    "precise": "uid iid asin isbn sku visitorid timestamp timestamps ts unixtime unix epoch",  # without an "id" after it
    "participle": "stamp added created posted rated reviewed",  # "date added"
    # A name with one of these in front is not that of one rating, or not of the time when it was given.
    "statistic": """average avg mean median std min max count n num sum total number predicted expected normalized scaled release
        released publication published birth registered registration joined signup""",
}
WORDS = {kind: frozenset(words.split()) for kind, words in OTHERS.items()}
BEHIND = {"user": WORDS["id"] | WORDS["label"], "item": WORDS["id"] | WORDS["label"], "timestamp": WORDS["participle"]}

INDEX = re.compile(r"(unnamed.*|index|__index_level_\d+__)?", re.IGNORECASE)  # as pandas writes it
MATRIX = "A users x items matrix is not read: pass it to fit as a scipy sparse array, or melt the frame to a row for each rating"


def split_words(name):
    """The words of a column's name, in lower case: ``reviewerID``, ``User-ID`` and ``user_id:token`` are two words each."""
    name = re.sub(r":(token|float|int|str|string|token_seq|float_seq)$", "", name.strip())
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    words = [word for word in re.split(r"[\W_]+", name.lower()) if word]
    return [part for word in words for part in _split_joined(word)]


def _split_joined(word):
    """Split ``userid``, ``bookrating`` and ``reviewtime`` in two."""
    if word not in ROLE_OF:
        for end in ("id", "ids", "no", "code", "name", "title", "rating", "score", "time", "date"):
            if word.endswith(end) and word[: -len(end)] in {*ROLE_OF, "review", "order"} - LETTERS:
                return [word[: -len(end)], end]
    return [word]


def rank_name(name):
    """Return the role that a column's name tells and how well, as a tuple of which the least is best; None where it tells none."""
    words = list(takewhile(lambda word: word != "of", split_words(name)))  # a "date of rating" is a date
    at = next((at for at in reversed(range(len(words))) if words[at] in ROLE_OF), None)
    if at is None:
        return None
    head, role = words[at], ROLE_OF[words[at]]
    before, behind = set(words[:at]) - {head}, set(words[at + 1 :])
    if behind - BEHIND.get(role, frozenset()) or before & WORDS["statistic"] or (head in LETTERS and before | behind):
        return None
    precise = bool(behind & WORDS["id"] or {*before, head} & WORDS["precise"])
    return role, (bool(behind & WORDS["label"]), len(before - WORDS["precise"]), not precise)


def roles_told(names):
    """The roles that some column's name tells."""
    return {ranked[0] for ranked in map(rank_name, names) if ranked}


def check_given(given):
    """Refuse positions that are none; names and positions that the table lacks are refused once it is known."""
    for role, key in given.items():
        if isinstance(key, bool) or (isinstance(key, Integral) and key < 0):
            raise ValueError(f"{role} must be a column's name or its position, an int >= 0. Got {key!r}.")


def choose_columns(table, given):
    """Say which column of a table has which role.

    Parameters
    ----------
    table : TextTable, JsonTable or ParquetTable
        Its ``names`` are None where it has no header.
    given : dict
        For each role the column's name or position, or None.

    Returns
    -------
    dict of int
        The positions of user and item, of the rating unless the names say that there is none, and of the timestamp if there is one.
    """
    asked = {role: _find(table, role, key) for role, key in given.items() if key is not None}
    for role in asked:
        if twin := next((other for other in asked if other != role and asked[other] == asked[role]), None):
            raise ValueError(f"{role}={given[role]!r} and {twin}={given[twin]!r} are the same column of {table.name}.")
    found = _by_order(table, asked) if table.names is None else _by_name(table, asked)
    if "timestamp" in found and "timestamp" not in asked:
        _drop_unreadable_times(table, found)
    return {role: found[role] for role in ROLES if role in found}


def _find(table, role, key):
    names = table.names or []
    if isinstance(key, Integral):
        if key >= table.n_columns:
            raise ValueError(f"{role}={key} is not a column position of {table.name}, which has {table.n_columns} columns.")
        return int(key)
    at = [place for place, name in enumerate(names) if key in (name, name.rpartition(":")[0])]
    if len(at) != 1:
        what = "is the name of several columns" if at else "is not a column"
        advice = f"The columns are {names}" if names else "It has no header, so pass the column's position"
        raise ValueError(f"{role}={key!r} {what} of {table.name}. {advice}.")
    return at[0]


def _by_order(table, asked):
    """User, item, rating, timestamp in this order, where no header says so."""
    found = dict(asked)
    for at, role in enumerate(ROLES):
        if role in asked or at >= table.n_columns:
            continue
        if role == "timestamp" and (asked or not any(row[at].strip() for row in table.sample)):  # separators that end each line
            continue
        if at in asked.values():
            advice = "Pass all three: user=, item= and rating="
            raise ValueError(
                f"{table.name} has no header, and its column {at}, which would be the {role}, was passed for something else. "
                f"{advice}."
            )
        found[role] = at
    if not asked:
        _check_order(table)
    return found


def _check_order(table):
    """Refuse a matrix, and warn of columns whose numbers are unlike ratings and times, where order is all there is to go by."""
    cells = [[number(cell) for cell in row] for row in table.sample]
    small = all(len(row) > 3 and row[3] is not None and abs(row[3]) <= 100 for row in cells)
    if small and table.n_columns > 4 and all(cell is not None for row in cells for cell in row[1:]):
        raise ValueError(
            f"{table.name} has no header and {table.n_columns} columns of numbers, so the column of ratings cannot be told. Pass "
            f"user=, item= and rating= as positions. {MATRIX}."
        )
    advice = "Name the columns in a header, or pass user=, item=, rating= and timestamp= as positions."
    if small:
        what = "its fourth column, taken for the timestamps, has numbers as small as ratings"
        warn(f"{table.name} has no header, and {what}. {advice}")
    elif all(row[2] is not None and row[2] >= 1e8 for row in cells):
        what = "its third column, taken for the ratings, has numbers like Unix times"
        warn(f"{table.name} has no header, and {what}. {advice}")


def _by_name(table, asked):
    found = dict(asked)
    ranks = {at: rank_name(name) for at, name in enumerate(table.names) if at not in asked.values()}
    for role in ROLES:
        if role in asked:
            continue
        own = {at: ranked[1] for at, ranked in ranks.items() if ranked and ranked[0] == role}
        best = [at for at, rank in own.items() if rank == min(own.values())]
        if len(best) == 1:
            found[role] = best[0]
            continue
        article = "an" if role == "item" else "a"
        advice = f"Say which it is with {role}=, a column's name or position"
        if best:
            message = f"{table.name} has the columns {[table.names[at] for at in best]}, and any could be the {role}"
            if role != "timestamp":
                raise ValueError(f"{message}. {advice}.")
            warn(f"{message}, so no timestamps were read. {advice}.")
        elif role in ("user", "item") or (role == "rating" and _has_more(table, found, ranks)):
            raise ValueError(
                f"{table.name} has the columns {table.names}, and none of these names means {article} {role}. {advice}. {MATRIX}."
            )
    return found


def _has_more(table, found, ranks):
    """Whether a table without a rating by name has a column that could be it: one that is neither an index nor a time."""
    times = {at for at, ranked in ranks.items() if ranked and ranked[0] == "timestamp"}
    return any(not INDEX.fullmatch(name) for at, name in enumerate(table.names) if at not in {*found.values(), *times})


def _drop_unreadable_times(table, found):
    """Leave out a column of times that was not asked for and that cannot be read, and say so."""
    at = found["timestamp"]
    if seconds(first := table.first_cell(at)) is None:
        name = repr(table.names[at]) if table.names else f"{at} (the fourth)"
        warn(
            f"{table.name} has {first!r} in its column {name}, which is neither a number nor a date in ISO 8601 (2005-09-06), so "
            "no timestamps were read. Name another column with timestamp=, or convert it."
        )
        del found["timestamp"]
