"""Ids that people pass: the same value is the same id in every call and every form, and what is no id is refused in words."""

import numpy as np
import pytest
import scipy.sparse as sp
from every_estimator import ESTIMATORS, MODELS

from sk_torchmf import Interactions

pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")

pytestmark = pytest.mark.usefixtures("one_thread")
every_kind = pytest.mark.parametrize("make", [MODELS[name] for name in ESTIMATORS], ids=ESTIMATORS)

USER, ITEM = np.array([17850, 13047, 12583, 17850, 13047]), np.array([3, 3, 5, 5, 9])
RATING = np.array([5.0, 3.0, 4.0, 1.0, 2.0])


def fitted(make, user=USER, item=ITEM, frame=np.column_stack):
    """A model of the five ratings whose ids come as given."""
    return make(max_iter=2).fit(frame([user, item]), None if make.entry.positives else RATING)


def frame_of(columns):
    return pd.DataFrame(dict(zip("ui", columns, strict=True)))


AS_TYPE = {
    "uint64": lambda ids: np.asarray(ids, dtype=np.uint64),
    "int16": lambda ids: np.asarray(ids, dtype=np.int16),
    "float64": lambda ids: np.asarray(ids, dtype=np.float64),
    "float32": lambda ids: np.asarray(ids, dtype=np.float32),
    "objects": lambda ids: np.asarray(ids, dtype=object),
    "a list": lambda ids: np.asarray(ids).tolist(),
    "a list of integers and floats": lambda ids: [float(ids[0]), *np.asarray(ids[1:]).tolist()],
    "pandas Int64": lambda ids: pd.Series(ids, dtype="Int64"),
    "pandas float64": lambda ids: pd.Series(ids, dtype="float64"),
    "pandas category": lambda ids: pd.Series(ids).astype("category"),
    "polars": lambda ids: pl.Series(ids),
    "polars Float64": lambda ids: pl.Series(ids, dtype=pl.Float64),
}


@every_kind
@pytest.mark.parametrize("as_type", AS_TYPE.values(), ids=AS_TYPE)
def test_a_number_is_one_id_in_every_call_and_type(make, as_type):
    model = fitted(make)
    user, item = as_type(USER), as_type(ITEM)
    expected = model.predict(USER, ITEM)
    np.testing.assert_array_equal(model.predict(user, item), expected)
    np.testing.assert_array_equal(model.predict(frame_of([USER, ITEM]).to_numpy()), expected)
    np.testing.assert_array_equal(model.recommend(user, k=2)[0], model.recommend(USER, k=2)[0])
    np.testing.assert_array_equal(model.recommend(user, items=as_type([3, 9]), k=2)[0], model.recommend(USER, items=[3, 9], k=2)[0])
    if hasattr(model, "similar_items"):
        np.testing.assert_array_equal(model.similar_items(item, k=2)[0], model.similar_items(ITEM, k=2)[0])


@every_kind
@pytest.mark.parametrize("as_type", [AS_TYPE[name] for name in ("uint64", "float64", "objects", "pandas Int64", "polars")])
def test_the_type_of_the_ids_does_not_change_a_fit(make, as_type):
    model, other = fitted(make), fitted(make, as_type(USER), as_type(ITEM), frame_of)
    assert other.users_.dtype == other.items_.dtype == np.int64
    np.testing.assert_array_equal(other.users_, model.users_)
    np.testing.assert_array_equal(other.predict(USER, ITEM), model.predict(USER, ITEM))


@every_kind
def test_numbers_that_became_floats_find_ids_that_are_text(make):
    # pandas makes floats of an integer column in which a value is missing, and drops none of the others' digits
    model = fitted(make, USER.astype(str), ITEM.astype(str), frame_of)
    np.testing.assert_array_equal(
        model.predict(USER.astype(float), ITEM.astype(float)), model.predict(USER.astype(str), ITEM.astype(str))
    )
    assert model.predict([17850.0], ["3"]) == model.predict(["17850"], [3])


NO_IDS = {
    "None": ([None], ValueError, "must not be missing or infinite"),
    "None alone": (None, ValueError, "must not be missing or infinite"),
    "NaN": ([np.nan], ValueError, "must not be missing or infinite"),
    "NaN alone": (float("nan"), ValueError, "must not be missing or infinite"),
    "NaT": (np.array(["NaT"], dtype="datetime64[s]"), ValueError, "must not be missing or infinite"),
    "pandas NA": (pd.Series([pd.NA], dtype="Int64"), ValueError, "must not be missing or infinite"),
    "infinity": ([np.inf], ValueError, "must not be missing or infinite"),
    "a mask": ([True, False, True], TypeError, "pass ids, not a mask"),
    "lost digits": ([1.4e18], ValueError, "must be exact"),
    "text": (["17850"], TypeError, "pass ids of that type"),
    "complex": ([1j], TypeError, "must be numbers, text or times"),
    "a generator": ((n for n in [3]), TypeError, r"Pass list\(\.\.\.\) of it"),
    "unequal lists": ([[3], [3, 5]], ValueError, "must be an array of single numbers or texts"),
}
CALLS = {
    "predict users": lambda model, ids: model.predict(ids, 3),
    "predict items": lambda model, ids: model.predict(17850, ids),
    "recommend": lambda model, ids: model.recommend(ids, k=2),
    "recommend items": lambda model, ids: model.recommend(17850, items=ids, k=2),
    "similar items": lambda model, ids: model.similar_items(ids, k=2),
    "similar users": lambda model, ids: model.similar_users(ids, k=2),
}
NONE_MEANS_ALL = {"predict items", "recommend", "recommend items"}


CALLS_OF = [  # a module of any kind has no neighbours
    pytest.param(MODELS[name], call, id=f"{name}-{call}")
    for name in ESTIMATORS
    for call in CALLS
    if not call.startswith("similar") or hasattr(ESTIMATORS[name].kind, "similar_items")
]


@pytest.mark.parametrize(("make", "call"), CALLS_OF)
@pytest.mark.parametrize("ids", NO_IDS)
def test_what_is_no_id_is_refused_in_every_call(make, call, ids):
    values, kind, words = NO_IDS["NaN" if ids == "None alone" and call in NONE_MEANS_ALL else ids]
    model = fitted(make)
    with pytest.raises(kind, match=words):
        CALLS[call](model, values)


@pytest.mark.parametrize(("make", "call"), [case for case in CALLS_OF if not case.values[1].startswith("predict")])
def test_two_dimensional_ids_are_refused_where_a_list_is_due(make, call):
    model = fitted(make)
    with pytest.raises(ValueError, match=r"must be one id or a one-dimensional array of ids\. Got shape \(1, 2\)"):
        CALLS[call](model, [[3, 5]])
    grid = model.predict(USER[:2, None], ITEM[None, :3])  # pairs may have any shape
    np.testing.assert_allclose(grid[1], model.predict(np.full(3, USER[1]), ITEM[:3]), rtol=1e-13)  # sums in another order


@every_kind
def test_pairs_that_do_not_go_together_are_refused_with_their_shapes(make):
    with pytest.raises(
        ValueError, match=r"user_ids and item_ids must have equal lengths, or shapes that broadcast.*Got shapes \(5,\) and \(2,\)"
    ):
        fitted(make).predict(USER, ITEM[:2])


@every_kind
def test_a_fit_refuses_what_is_no_id(make):
    y = None if make.entry.positives else RATING[:2]
    for bad, kind, words in (
        (np.array([1.0, np.nan]), ValueError, "user ids must not be missing or infinite"),
        (np.array([1.0, 1.4e18]), ValueError, "user ids must be exact"),
        (np.array([1, None], dtype=object), ValueError, "user ids must not be missing or infinite"),
        (np.array([1, True], dtype=object), TypeError, r"user ids must be of one kind\. Got booleans"),
    ):
        with pytest.raises(kind, match=words):
            make().fit(frame_of([bad, [1, 2]]), y)


BASE = 1_400_000_000_000_000_000


@every_kind
@pytest.mark.parametrize(
    ("first", "more", "users"),
    [
        ([BASE, BASE + 1], np.array([BASE + 9], dtype=np.uint64), [BASE, BASE + 1, BASE + 9]),
        ([BASE, BASE + 1], np.array([2**63 + 9], dtype=np.uint64), [BASE, BASE + 1, 2**63 + 9]),
        ([1, 2], np.array([2.0]), [1, 2]),
        ([1.0, 2.0], np.array([3]), [1, 2, 3]),
        (["17850", "x"], np.array([17850.0]), ["17850", "x"]),
        (["17850", "x"], np.array([7.0]), ["17850", "7", "x"]),
    ],
    ids=["uint64", "beyond int64", "floats of known ids", "floats first", "floats of known text", "floats after text"],
)
def test_ids_of_another_type_go_on_as_the_same_values(make, first, more, users):
    def table(user):
        return frame_of([np.repeat(user, 2), np.tile([1, 2], len(user))])

    def ratings(user):
        return None if make.entry.positives else np.tile([1.0, 4.0], len(user))

    rankable = {"loss": "ials"} if make.entry.positives else {}  # users here have every item
    model = make(max_iter=2, **rankable).fit(table(first), ratings(first))
    model.partial_fit(table(more), ratings(more))
    assert model.users_.tolist() == users
    assert np.isfinite(model.predict(np.array(users, dtype=object), 1)).all()
    for user in users:
        np.testing.assert_array_equal(model.predict(user), model.predict([user], [[1], [2]]).ravel())


@every_kind
def test_text_does_not_go_on_a_model_of_numbers(make):
    model = fitted(make)
    with pytest.raises(TypeError, match=r"The user ids must be of the type that fit saw, int64\. Got 'ann'; pass ids of that type"):
        model.partial_fit(np.array([["ann", 3]], dtype=object), None if make.entry.positives else [1.0])
    assert model.users_.tolist() == [12583, 13047, 17850]


@every_kind
def test_the_end_of_a_list_is_told_from_an_id_of_minus_one(make):
    model = fitted(make, item=np.array([-1, -1, 5, 5, 9]))
    items, scores = model.recommend([17850], k=3, items=[-1, 9], exclude_seen=False)
    assert set(items[0, :2].tolist()) == {-1, 9}
    assert items[0, 2] is None
    assert np.isneginf(scores[0, 2])


@every_kind
def test_an_item_of_its_own_type_comes_back_from_recommend(make):
    days = np.array(["2024-02-28", "2024-02-29", "2024-03-01"], dtype="datetime64[ns]")
    model = fitted(make, item=days[[0, 0, 1, 1, 2]], frame=frame_of)
    items = model.recommend([17850], k=3, exclude_seen=False)[0]
    assert set(items[0].tolist()) == set(days.tolist())
    assert items.dtype == days.dtype


def test_positions_of_a_container_are_whole_numbers():
    for ids in (
        [True, False],
        np.array(["1", "2"]),
        np.array(["1", "2"], dtype=object),
        np.array([True, 1], dtype=object),
        [1j, 2],
    ):
        with pytest.raises(TypeError, match="user_ids must be integers"):
            Interactions(ids, [0, 1])
    for dtype, lost in ((np.float16, 2048), (np.float32, 2**24), (np.float64, 2**53)):
        with pytest.raises(ValueError, match="user_ids must be whole numbers"):
            Interactions(np.array([0, lost], dtype=dtype), [0, 1])
    assert Interactions(np.array([1.0, 2.0], dtype=np.float16), [0, 1]).num_users == 3


@every_kind
@pytest.mark.parametrize("shape", [(2**40, 3), (3, 2**40)], ids=["users", "items"])
def test_more_positions_than_a_model_can_have_are_refused(make, shape):
    matrix = sp.coo_array(([1.0, 2.0], ([0, 1], [0, 1])), shape=shape)
    y = None if make.entry.positives else [1.0, 2.0]
    for args in ((matrix,), (Interactions([0, shape[0] - 1], [0, shape[1] - 1], y),)):
        with pytest.raises(ValueError, match=r"ids are positions here, and a model can have at most .*pass a table"):
            make().fit(*args)
