"""What a fitted estimator is asked for: ids and new users that fit its form, and the words for those that do not."""

import numpy as np
import pytest
import scipy.sparse as sp
from five_ratings import I, S, X, Y

pd = pytest.importorskip("pandas")
pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_missing_id_is_refused_by_predict_too(make):
    model = make().fit(X, Y)
    with pytest.raises(ValueError, match=r"item ids must not be missing or infinite.*Row 0 is nan"):
        model.predict(np.array([[0.0, np.nan]]))
    with pytest.raises(ValueError, match=r"user ids must not be missing or infinite.*Row 1 is nan"):
        model.predict([0.0, np.nan], [0.0, 1.0])


def test_unknown_unsigned_ids_after_a_fit_on_positions(make):
    model = make().fit(I)
    expected = model.predict(np.array([[99, 99]], dtype=np.int64))
    for dtype in (np.uint8, np.uint32, np.uint64):
        np.testing.assert_array_equal(model.predict(np.array([[99, 99]], dtype=dtype)), expected)


def test_predict_needs_the_columns_of_fit(make):
    model = make().fit(np.hstack([X, X]), Y)
    with pytest.raises(ValueError, match=r"X has 2 features, but \w+ is expecting 4 features as input"):
        model.predict(X)
    named = make(user="u", item="i").fit(pd.DataFrame({"u": X[:, 0], "i": X[:, 1]}), Y)
    with pytest.raises(ValueError, match="feature names"):
        named.predict(pd.DataFrame({"u": X[:, 0], "other": X[:, 1]}))


def test_new_users_need_a_column_for_each_item(make):
    model, wrong = make().fit(S), sp.csr_array((2, 5))
    for call in (model.predict, model.fold_in, model.transform, model.score, model.recommend):
        with pytest.raises(ValueError, match=r"X has 5 features, but \w+ is expecting 3 features as input"):
            call(wrong)
    with pytest.raises(TypeError, match=r"New users' ratings must be a scipy sparse matrix\. Got ndarray\."):
        model.fold_in(S.toarray())


def test_a_sparse_matrix_without_ratings_has_no_score(make):
    with pytest.raises(ValueError, match=r"X has no stored ratings to score"):
        make().fit(S).score(sp.csr_array((2, 3)))


def test_interactions_after_a_fit_on_labels_are_refused(make):
    model = make().fit(np.array([["a", "x"], ["b", "y"]]), [1.0, 2.0])
    words = r"Interactions hold positions, but this model was fitted on a table whose user ids are labels\. Pass a table"
    for call in (model.predict, model.transform):
        with pytest.raises(ValueError, match=words):
            call(I)
    # ids that happen to be 0 .. n-1 are their own positions
    np.testing.assert_array_equal(make().fit(X, Y).predict(I), make().fit(I).predict(X))


def test_a_text_id_after_a_fit_on_numbers_is_a_type_error(make):
    with pytest.raises(
        TypeError, match=r"The user ids must be of the type that fit saw, int64\. Got .*a.*; pass ids of that type\."
    ):
        make().fit(X, Y).predict(["a"], [0])


def test_one_dimension_alone_names_what_may_have_been_meant(make):
    with pytest.raises(ValueError, match=r"(?s)predict\(users, items\).*recommend\(users\).*Reshape your data"):
        make().fit(X, Y).predict([0, 1])


def test_users_and_items_that_do_not_broadcast_are_refused(make):
    with pytest.raises(ValueError, match=r"\(2,\).*\(3,\)"):
        make().fit(X, Y).predict([0, 1], [0, 1, 2])


def test_an_unknown_id_is_an_error_where_asked_for(make):
    model = make(handle_unknown="error").fit(X, Y)
    with pytest.raises(ValueError, match=r"The item id of row 1 was not seen in fit\. Drop it, or use handle_unknown=\"mean\"\."):
        model.predict([0, 0], [0, 99])
    assert np.isnan(make(handle_unknown="nan").fit(X, Y).predict([99], [0])).all()


def test_unknown_candidates_are_named_by_their_place(make):
    model = make().fit(X, Y)
    with pytest.raises(ValueError, match=r"items\[1\] was not seen in fit\. Pass only items that are in items_\."):
        model.recommend(items=[0, 77])
    with pytest.raises(ValueError, match=r"items\[0\] was not seen in fit, so it has no neighbours\."):
        model.similar_items([77])
    with pytest.raises(ValueError, match=r"users\[2\] was not seen in fit, so it has no neighbours\."):
        model.similar_users([0, 1, 77])
