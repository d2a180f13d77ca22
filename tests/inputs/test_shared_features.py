"""Parts of a table of attributes as one: whose row is whose, what becomes of the columns, and rows that contradict each other."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
from numpy.testing import assert_array_equal

from sk_torchmf.inputs.encoders import FeatureEncoder
from sk_torchmf.inputs.features import FeatureTable
from sk_torchmf.inputs.shared_features import put_together

IDS = np.array([3, 5, 8, 13, 21])
FILMS = {
    "year": [1994.0, np.nan, 1996.0, 1995.0, 1994.0],
    "genres": [["drama"], ["comedy", "drama"], [], ["comedy"], ["war"]],
    "place": ["sea", "hills", None, "sea", "town"],
}
PARTS = [[0, 2], [1, 2, 4], [3, 0, 1]]  # of which some rows are in two


def part(rows, some):
    some = sorted(some)
    return FeatureTable(IDS[some], rows.iloc[some] if hasattr(rows, "iloc") else rows[some], "item")


def in_parts(rows):
    return put_together([part(rows, some) for some in PARTS])


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_parts_of_a_frame_are_encoded_as_the_whole(frame):
    data = FILMS if frame is pd.DataFrame else FILMS | {"year": [None if np.isnan(year) else year for year in FILMS["year"]]}
    rows = frame(data)
    whole = in_parts(rows)
    assert_array_equal(whole.ids, IDS)
    encoder, expected = FeatureEncoder().fit(whole.rows), FeatureEncoder().fit(rows)
    assert encoder.get_feature_names_out().tolist() == expected.get_feature_names_out().tolist()
    assert_array_equal(encoder.transform(whole.rows).toarray(), expected.transform(rows).toarray())


@pytest.mark.parametrize("make", [np.asarray, sp.csr_array], ids=["dense", "sparse"])
def test_parts_of_a_matrix_are_its_rows(make):
    rows = make(np.arange(10.0).reshape(5, 2))
    whole = in_parts(rows)
    assert_array_equal(whole.ids, IDS)
    assert type(whole.rows) is type(rows)
    assert_array_equal(whole.rows.toarray() if sp.issparse(rows) else whole.rows, np.arange(10.0).reshape(5, 2))


def test_numbers_that_are_categories_stay_such_where_no_part_has_all():
    parts = [
        FeatureTable(np.array(ids), pd.DataFrame({"code": pd.Categorical(codes)}), "user")
        for ids, codes in (([1, 2], [7, 8]), ([3], [9]))
    ]
    names = FeatureEncoder().fit(put_together(parts).rows).get_feature_names_out()
    assert names.tolist() == ["code=7", "code=8", "code=9"]


def test_columns_may_be_in_another_order_and_numbers_of_another_type():
    one = FeatureTable(np.array([1]), pd.DataFrame({"a": [1], "b": ["x"]}), "user")
    two = FeatureTable(np.array([2]), pd.DataFrame({"b": ["y"], "a": [0.5]}), "user")
    rows = put_together([one, two]).rows
    assert rows["a"].tolist() == [1.0, 0.5]
    assert rows["b"].tolist() == ["x", "y"]


@pytest.mark.parametrize(
    ("column", "value"), [("year", 1999.0), ("genres", ["drama", "comedy"]), ("place", "sea"), ("year", np.nan)], ids=str
)
def test_rows_that_contradict_each_other_are_refused(column, value):
    rows = pd.DataFrame(FILMS)
    other = pd.DataFrame(FILMS | {column: [*FILMS[column][:2], value, *FILMS[column][3:]]})
    with pytest.raises(
        ValueError, match=r"item_features has different rows for the item 8 on two ranks\. Pass each id on one rank"
    ):
        put_together([part(rows, PARTS[0]), part(other, PARTS[1])])
