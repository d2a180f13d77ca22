"""Values of any kind as a tree and arrays, and back; what cannot be packed is named with its place."""

import collections
import datetime
import uuid

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from sk_torchmf.storage.archive import read, write
from sk_torchmf.storage.packing import pack, unpack

WHEN = datetime.datetime(2020, 5, 17, 12, 30, 1, 5)
VALUES = {
    "nothing": None,
    "truth": True,
    "whole": -(2**70),
    "real": 0.1,
    "nan": float("nan"),
    "infinite": -float("inf"),
    "text": "zoë \ud800",  # half a pair: no UTF-8
    "bytes": b"\x00\xff",
    "when": WHEN,
    "there": WHEN.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
    "day": WHEN.date(),
    "id": uuid.UUID(int=5),
    "tuple": (1, (2.5, None), []),
    "history": {"loss": [1.0, np.float64(0.5), np.float32(0.1)], "none": [None]},
    "numbers": [np.float32(1.1), np.int64(3), np.bool_(True), np.float16(0.1), np.uint8(7)],
    "moment": np.datetime64("2020-01-01T00", "ns"),
    "infinite scalar": np.float32("inf"),
    "a b": {"x/y": np.arange(2), "x y": np.arange(3)},
    "keys": {0: "a", "0": "b", None: 1, 2.5: {(1, "c"): np.arange(2)}, b"d": [], WHEN: {}},
    "tensors": [torch.arange(3), torch.tensor(2.5), torch.ones(2, 0), torch.ones(2, 3).T, torch.ones(2, dtype=torch.bfloat16)],
    "state": {0: {"exp_avg": torch.ones(2), "step": torch.tensor(1.0)}, 1: {"exp_avg": torch.zeros(2)}},
}


def same(ours, theirs):
    assert type(ours) is type(theirs)
    if isinstance(ours, list | tuple):
        assert len(ours) == len(theirs)
        for pair in zip(ours, theirs, strict=True):
            same(*pair)
    elif isinstance(ours, dict):
        assert list(ours) == list(theirs)
        for key in ours:
            same(ours[key], theirs[key])
    elif isinstance(ours, np.ndarray):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    elif isinstance(ours, torch.Tensor):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)
    else:
        assert ours == theirs or (ours != ours and theirs != theirs)


def through_file(values, path):
    tree, arrays = pack(values)
    write(path, tree, arrays)
    return unpack(*read(path))


def test_values_of_every_kind_come_back(tmp_path):
    same(through_file(VALUES, tmp_path / "file"), VALUES)


@pytest.mark.parametrize(
    "labels", [["a", "b\0"], [WHEN, WHEN], [1, "a", None, 2.5, b"c"], [(1, "a"), (2, "b")], [True], [2**80], [uuid.UUID(int=1)], []]
)
def test_arrays_of_objects_come_back(tmp_path, labels):
    values = np.empty(len(labels), dtype=object)
    for at, label in enumerate(labels):
        values[at] = label
    again = through_file({"labels": values}, tmp_path / "file")["labels"]
    same(again, values)
    same(again.tolist(), values.tolist())


@pytest.mark.parametrize("values", [collections.Counter("abb"), collections.OrderedDict([(2, 1), (1, 2)])])
def test_any_mapping_comes_back_as_a_dict_in_its_order(tmp_path, values):
    same(through_file({"values": values}, tmp_path / "file")["values"], dict(values))


def test_a_parameter_with_a_gradient_is_a_tensor_like_any_other(tmp_path):
    values = torch.nn.Parameter(torch.ones(2))
    same(through_file({"values": values}, tmp_path / "file")["values"], torch.ones(2))


@pytest.mark.parametrize("kind", [sp.csr_array, sp.csr_matrix])
def test_a_sparse_matrix_comes_back(tmp_path, kind):
    matrix = kind(np.array([[0.0, 2.0], [0.0, 0.0], [3.0, 4.0]]))
    again = through_file({"matrix": matrix}, tmp_path / "file")["matrix"]
    assert type(again) is kind
    np.testing.assert_array_equal(again.toarray(), matrix.toarray())


def test_a_random_state_goes_on_where_it_was(tmp_path):
    state = np.random.RandomState(3)
    state.normal(size=3)  # an odd number: one is left over
    again = through_file({"state": state}, tmp_path / "file")["state"]
    np.testing.assert_array_equal(again.normal(size=700), state.normal(size=700))


class Text(str):
    """Not quite a str."""


@pytest.mark.parametrize(
    "value",
    [
        object(),
        len,
        {1},
        range(3),
        Text("a"),
        {"key": len},
        {len: 1},
        torch.ones(2).to_sparse(),
        torch.ones(2, dtype=torch.float8_e5m2),
        np.ma.masked_array([1], [True]),
        sp.coo_array((2, 2)),
        np.random.default_rng(0),
        np.array([object()]),
        np.array([{"a": 1}]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_of_another_kind_is_named_with_its_place(value):
    with pytest.raises(TypeError, match=r"^options\.1"):
        pack({"options": [0, value]})


def test_a_place_in_a_zone_with_a_history_is_refused():
    zoneinfo = pytest.importorskip("zoneinfo")
    try:
        zone = zoneinfo.ZoneInfo("Europe/Vienna")
    except zoneinfo.ZoneInfoNotFoundError:
        pytest.skip("no time zones here")
    with pytest.raises(TypeError, match="when holds a time in the zone Europe/Vienna"):
        pack({"when": WHEN.replace(tzinfo=zone)})


CSR = {"data": "d", "indices": "i", "indptr": "p"}
PARTS = {"d": np.ones(2), "i": np.array([0, 1]), "p": np.array([0, 1, 2]), "w": np.zeros(624, np.uint32), "f": np.zeros(3)}


PARTS |= {"t": np.array(["text"]), "b": np.zeros((), np.int8)}


@pytest.mark.parametrize(
    ("tree", "changed"),
    [
        ({"csr_array": CSR, "shape": [2, 2]}, {"i": np.array([0, 10**6])}),
        ({"csr_array": CSR, "shape": [2, 2]}, {"i": np.array([0, -1])}),
        ({"csr_array": CSR, "shape": [2, 2]}, {"i": np.array([0.0, 1.0])}),
        ({"csr_array": CSR, "shape": [2, 2]}, {"p": np.array([0, 10**6, 2])}),
        ({"csr_array": CSR, "shape": [2, 2]}, {"p": np.array([0, 1, 10**6])}),
        ({"csr_array": CSR, "shape": [2, 2]}, {"p": np.array([1, 1, 2])}),
        ({"csr_array": CSR, "shape": [10**12, 2]}, {}),
        ({"csr_array": CSR, "shape": [2, -2]}, {}),
        ({"random_state": "w", "rest": [625, 0, 0.0]}, {}),
        ({"random_state": "w", "rest": [-1, 0, 0.0]}, {}),
        ({"random_state": "f", "rest": [0, 0, 0.0]}, {}),
        ({"array": "nowhere"}, {}),
        ({"array": ["d"]}, {}),
        ({"scalar": "d"}, {}),
        ({"eval": "1 + 1"}, {}),
        ({"__class__": "os.system"}, {}),
        ({"float": "1e3"}, {}),
        ({"int8": 1000}, {}),
        ({"datetime": "yesterday"}, {}),
        ({"uuid": "me"}, {}),
        ({"objects": ["a"], "shape": [2]}, {}),
        ({"objects": [{"array": "d"}], "shape": [1]}, {}),
        ({"tuple": 3}, {}),
        ({"dict": [1]}, {}),
        ({"items": {"a": 1}}, {}),
        ({"items": [["a"]]}, {}),
        ({"items": [[["a"], 1]]}, {}),
        ({"tensor": "nowhere"}, {}),
        ({"tensor": "t"}, {}),
        ({"bfloat16": "b"}, {}),
        ({}, {}),
    ],
)
def test_a_tree_that_pack_cannot_have_made_is_refused(tree, changed):
    with pytest.raises(ValueError, match=r"\w"):
        unpack({"value": tree}, PARTS | changed)
