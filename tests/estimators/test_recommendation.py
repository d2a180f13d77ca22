"""Lists of recommendations: how many there can be, and what fills them up."""

import numpy as np
import pytest
from five_ratings import X, Y

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("k", [0, -1, 1.5, True, "3", None])
def test_k_is_a_positive_int(make, k):
    model = make().fit(X, Y)
    for call in (model.recommend, lambda k: model.similar_items([0], k=k), lambda k: model.similar_users([0], k=k)):
        with pytest.raises(ValueError, match=rf"k must be an int >= 1\. Got {k!r}\."):
            call(k=k)


def test_more_than_there_is_is_filled_up(make):
    items, scores = make().fit(X, Y).recommend([0], k=5)
    assert items.tolist() == [[2, -1, -1, -1, -1]]  # items 0 and 1 were seen
    assert np.isneginf(scores[0, 1:]).all()
    items, scores = make().fit(X, Y).recommend(users=[], k=2)
    assert items.shape == scores.shape == (0, 2)
