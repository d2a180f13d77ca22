"""The estimators inside scikit-learn: its own checks, pipelines, frames, routed weights, and what is saved and loaded."""

import numpy as np
import pytest
from data import FORMS, as_form, planted
from every_estimator import ESTIMATORS
from numpy.testing import assert_allclose, assert_array_equal
from round_trip import through_joblib, through_pickle, through_skops
from sklearn import config_context
from sklearn.base import clone, is_regressor
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.ensemble import StackingRegressor
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, PredefinedSplit, cross_validate
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, PolynomialFeatures
from sklearn.utils.estimator_checks import estimator_checks_generator

from sk_torchmf import BiasedMatrixFactorization, ImplicitMatrixFactorization, MatrixFactorization

KINDS = [MatrixFactorization, BiasedMatrixFactorization]
DATA, _ = planted(3, mean=3.0, n_users=50, n_items=40, n_ratings=1200)
HELD_OUT = np.arange(len(DATA)) % 5 == 0
TRAIN, TEST = DATA[~HELD_OUT], DATA[HELD_OUT]
every_kind = pytest.mark.parametrize("kind", KINDS)
every_form = pytest.mark.parametrize("form", FORMS)


def checks():
    """Every check of each estimator, by default and in float64, as scikit-learn's own ``check_estimator`` would run it."""
    for entry in ESTIMATORS.values():
        for label, checked in entry.checked.items():
            for estimator, check in estimator_checks_generator(entry.kind(**checked.params)):
                name = check.func.__name__
                reason = checked.reasons.get(name)
                marks = [pytest.mark.xfail(reason=reason, strict=checked.strict)] if reason else []
                yield pytest.param(estimator, check, id=f"{entry.kind.__name__}-{label}-{name}", marks=marks)


@pytest.mark.filterwarnings("ignore::sk_torchmf.InputWarning")  # it hands models of positives what is no table of ids
@pytest.mark.parametrize(("estimator", "check"), list(checks()))
def test_scikit_learns_check(estimator, check):
    check(estimator)


def small(kind, **params):
    return kind(**{"n_factors": 3, "random_state": 0, **params})


def labelled(data):
    """Rows with text ids, as ``as_form(data, "labels")``, as a dict of columns with two more that no estimator should look at."""
    users, items = as_form(data, "labels")[0].T
    return {"when": np.full(len(data), np.nan), "movie": items, "person": users, "note": ["?"] * len(data)}


def frame_of(library, data):
    return pytest.importorskip(library).DataFrame(labelled(data))


def names_are_read(library):
    """Whether this version of scikit-learn reads the column names of this library: 1.6 does not read those of polars 2."""
    return hasattr(OrdinalEncoder().fit(frame_of(library, TRAIN[:3])[["person"]]), "feature_names_in_")


# meta-estimators on tables


@every_kind
@pytest.mark.parametrize("ids", ["number", "text"])
def test_pipeline_with_an_ordinal_encoder(kind, ids):
    X, y = as_form(TRAIN, "table" if ids == "number" else "labels")
    X_test, y_test = as_form(TEST, "table" if ids == "number" else "labels")
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    pipe = make_pipeline(encoder, small(kind)).fit(X, y)  # the estimator sees float64 ids
    assert_array_equal(pipe.predict(X_test), small(kind).fit(X, y).predict(X_test))
    assert pipe.score(X_test, y_test) > 0.9
    with pytest.raises(TypeError):
        pipe.predict(X_test[:, 0], X_test[:, 1])
    codes = pipe[0].transform(X_test)
    assert_array_equal(pipe[-1].predict(codes[:, 0], codes[:, 1]), pipe.predict(X_test))


@every_kind
def test_pipeline_keeps_an_unknown_id_unknown(kind):
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    X, y = as_form(TRAIN, "labels")
    pipe = make_pipeline(encoder, small(kind)).fit(X, y)
    assert pipe.predict([["nobody", X[0, 1]]]) == pytest.approx(small(kind).fit(X, y).predict([["nobody", X[0, 1]]]))


@every_kind
def test_stacking_is_no_worse_than_its_parts(kind):
    X, y = as_form(TRAIN, "table")
    X_test, y_test = as_form(TEST, "table")
    linear = make_pipeline(OneHotEncoder(handle_unknown="ignore"), Ridge())
    stack = StackingRegressor([("factors", small(kind)), ("linear", linear)], final_estimator=Ridge(), cv=3).fit(X, y)
    best = max(model.fit(X, y).score(X_test, y_test) for model in (small(kind), linear))
    assert stack.score(X_test, y_test) > best - 0.01
    assert stack.transform(X_test).shape == (len(TEST), 2)


@every_kind
def test_factors_are_features_of_a_second_model(kind):
    """Products of a user's and an item's factors let a linear model say p . q, which ids alone do not."""
    products = make_pipeline(small(kind), PolynomialFeatures(2, interaction_only=True, include_bias=False))
    ids = OneHotEncoder(handle_unknown="ignore")
    both = make_pipeline(FeatureUnion([("products", products), ("ids", ids)]), Ridge())
    X, y = as_form(TRAIN, "table")
    X_test, y_test = as_form(TEST, "table")
    assert make_pipeline(ids, Ridge()).fit(X, y).score(X_test, y_test) < 0.5
    assert both.fit(X, y).score(X_test, y_test) > 0.9
    names = list(both[0].get_feature_names_out())
    assert names[:2] == ["products__user_factor0", "products__user_factor1"]
    assert names[-1] == f"ids__x1_{DATA.num_items - 1}"


@every_kind
def test_column_transformer_makes_factors_of_two_of_the_columns(kind):
    pandas = pytest.importorskip("pandas")
    frame, y = frame_of("pandas", TRAIN), TRAIN.ratings
    transformer = make_column_transformer((small(kind, user="person", item="movie"), ["person", "movie"]))
    features = transformer.set_output(transform="pandas").fit_transform(frame, y)
    assert isinstance(features, pandas.DataFrame)
    expected = small(kind).fit(*as_form(TRAIN, "labels")).transform(as_form(TRAIN, "labels")[0])
    assert_allclose(features.to_numpy(), expected, rtol=1e-6)


@every_kind
@pytest.mark.parametrize("form", ["table", "interactions"])
def test_transformed_target_regressor_fits_another_scale(kind, form):
    ratings = np.exp(TRAIN.ratings)
    X, _ = as_form(TRAIN, form)
    model = TransformedTargetRegressor(small(kind), func=np.log, inverse_func=np.exp).fit(X, ratings)
    plain = small(kind).fit(X, np.log(ratings))
    X_test, _ = as_form(TEST, form)
    assert_allclose(model.predict(X_test), np.exp(plain.predict(X_test)), rtol=1e-6)


def test_estimators_of_ratings_are_regressors():
    assert all(is_regressor(kind()) for kind in KINDS)
    assert not is_regressor(ImplicitMatrixFactorization())
    assert not ImplicitMatrixFactorization().__sklearn_tags__().target_tags.required


# frames


@every_kind
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_frame_is_the_table_of_its_two_columns(kind, library):
    estimator = small(kind, user="person", item="movie").fit(frame_of(library, TRAIN), TRAIN.ratings)
    expected = small(kind).fit(*as_form(TRAIN, "labels"))
    if names_are_read(library):
        assert_array_equal(estimator.feature_names_in_, ["when", "movie", "person", "note"])
    assert estimator.n_features_in_ == 4
    assert_array_equal(estimator.users_, expected.users_)
    assert_array_equal(estimator.predict(frame_of(library, TEST)), expected.predict(as_form(TEST, "labels")[0]))
    positions = small(kind, user=2, item=1).fit(frame_of(library, TRAIN), TRAIN.ratings)
    assert_array_equal(positions.user_factors_, expected.user_factors_)


@every_kind
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_frame_of_other_columns_is_refused(kind, library):
    frame = frame_of(library, TRAIN)
    with pytest.raises(
        ValueError, match=r"user='reader' is not a column of X. The columns are \['when', 'movie', 'person', 'note'\]"
    ):
        small(kind, user="reader", item="movie").fit(frame, TRAIN.ratings)
    estimator = small(kind, user="person", item="movie").fit(frame, TRAIN.ratings)
    with pytest.raises(ValueError, match="feature names" if names_are_read(library) else "has 2 features"):
        estimator.predict(frame[["movie", "person"]])


@every_kind
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_categories_are_their_labels(kind, library):
    frame = frame_of(library, TRAIN)
    if library == "pandas":
        coded = frame.astype({"person": "category", "movie": "category"})
    else:
        polars = pytest.importorskip("polars")
        coded = frame.with_columns(polars.col("person", "movie").cast(polars.Categorical))
    fitted = [small(kind, user="person", item="movie").fit(X, TRAIN.ratings) for X in (frame, coded)]
    assert_array_equal(fitted[0].users_, fitted[1].users_)
    assert_array_equal(fitted[0].predict(coded), fitted[1].predict(frame))


@every_kind
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_set_output_gives_a_frame_with_names(kind, library):
    frame = frame_of(library, TRAIN)
    estimator = small(kind, user="person", item="movie").set_output(transform=library)
    features = estimator.fit(frame, TRAIN.ratings).transform(frame)
    assert type(features).__module__.startswith(library)
    assert list(features.columns) == list(estimator.get_feature_names_out())
    assert len(features) == len(TRAIN)
    if library == "pandas":
        kept = frame[frame["person"] == "u0001"]
        assert_array_equal(estimator.transform(kept).index, kept.index)


@every_kind
@pytest.mark.parametrize("form", ["interactions", "sparse"])
def test_set_output_names_the_features_of_every_form(kind, form):
    pytest.importorskip("pandas")
    X, y = as_form(TRAIN, form)
    estimator = small(kind).set_output(transform="pandas").fit(X, y)
    features = estimator.transform(X)
    assert list(features.columns) == list(estimator.get_feature_names_out())
    assert len(features) == X.shape[0]


# weights by metadata routing: rows of weight zero stay in every training part, and must be as good as absent

WEIGHTED = np.arange(len(DATA)) % 3 > 0
FOLD = np.where(WEIGHTED, np.arange(len(DATA)) % 4, -1)  # -1 is never tested


@every_kind
@pytest.mark.parametrize("form", ["table", "interactions"])
def test_routed_weights_reach_fit(kind, form):
    X, y = as_form(DATA, form)
    X_kept, y_kept = as_form(DATA[WEIGHTED], form)
    y, y_kept = (DATA.ratings, DATA.ratings[WEIGHTED])
    grid, weight = {"n_factors": [1, 3]}, WEIGHTED.astype(float)
    with config_context(enable_metadata_routing=True):
        weighted = small(kind, dtype="float64").set_fit_request(sample_weight=True).set_score_request(sample_weight=False)
        results = cross_validate(weighted, X, y, cv=PredefinedSplit(FOLD), params={"sample_weight": weight}, error_score="raise")
        search = GridSearchCV(weighted, grid, cv=PredefinedSplit(FOLD), error_score="raise").fit(X, y, sample_weight=weight)
    absent = small(kind, dtype="float64")
    expected = cross_validate(absent, X_kept, y_kept, cv=PredefinedSplit(FOLD[WEIGHTED]), error_score="raise")
    assert_allclose(results["test_score"], expected["test_score"], rtol=1e-9)
    other = GridSearchCV(absent, grid, cv=PredefinedSplit(FOLD[WEIGHTED]), error_score="raise").fit(X_kept, y_kept)
    assert_allclose(search.cv_results_["mean_test_score"], other.cv_results_["mean_test_score"], rtol=1e-9)
    assert_allclose(search.predict(X), other.predict(X), rtol=1e-9)


@every_kind
def test_routed_weights_of_users_reach_fit_and_score(kind):
    X = as_form(DATA, "sparse")[0]
    kept = np.arange(X.shape[0]) % 5 > 0
    fold = np.where(kept, np.arange(X.shape[0]) % 3, -1)
    weight = np.where(kept, 1.0 + np.arange(X.shape[0]) % 2, 0.0)
    with config_context(enable_metadata_routing=True):
        estimator = small(kind, dtype="float64").set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        runs = [
            cross_validate(estimator, rows, cv=PredefinedSplit(part), params={"sample_weight": w}, error_score="raise")[
                "test_score"
            ]
            for rows, part, w in (
                (X, fold, weight),
                (X[kept], fold[kept], weight[kept]),
                (X[kept], fold[kept], np.ones(kept.sum())),
            )
        ]
    assert_allclose(runs[0], runs[1], rtol=1e-9)
    assert np.abs(runs[0] - runs[2]).max() > 1e-5


@every_kind
def test_routed_weights_pass_through_a_pipeline(kind):
    X, y = as_form(DATA, "labels")
    with config_context(enable_metadata_routing=True):
        pipe = make_pipeline(OrdinalEncoder(), small(kind, dtype="float64").set_fit_request(sample_weight=True))
        pipe.fit(X, y, sample_weight=WEIGHTED.astype(float))
    absent = small(kind, dtype="float64").fit(X[WEIGHTED], y[WEIGHTED])
    assert_allclose(pipe.predict(X), absent.predict(X), rtol=1e-9)


@every_kind
def test_float32_weights_are_repeated_rows_to_rounding(kind):
    """What the check expected to fail in float32 asks for, at a tolerance that float32 can meet."""
    weight = 1.0 + np.arange(len(DATA)) % 2
    twice = small(kind).fit(DATA[np.repeat(np.arange(len(DATA)), weight.astype(int))])
    assert_allclose(small(kind).fit(DATA, sample_weight=weight).predict(DATA), twice.predict(DATA), rtol=1e-2)


# copies


@every_kind
@every_form
def test_a_clone_is_unfitted_and_fits_alike(kind, form):
    X, y = as_form(DATA, form)
    estimator = small(kind, alpha=0.2, handle_unknown="nan").fit(X, y)
    copy = clone(estimator)
    assert copy.get_params() == estimator.get_params()
    assert not [name for name in vars(copy) if name.endswith("_")]
    assert_array_equal(copy.fit(X, y).user_factors_, estimator.user_factors_)


@every_kind
@every_form
@pytest.mark.parametrize("through", [through_pickle, through_joblib, through_skops])
def test_a_saved_model_answers_as_before(kind, form, through, tmp_path):
    X, y = as_form(DATA, form)
    estimator = small(kind).fit(X, y)
    copy = through(estimator, tmp_path)
    assert vars(copy).keys() == vars(estimator).keys()
    assert_array_equal(copy.predict(X), estimator.predict(X))
    assert_array_equal(copy.transform(X), estimator.transform(X))
    for ours, theirs in zip(copy.recommend(k=5), estimator.recommend(k=5), strict=True):
        assert_array_equal(ours, theirs)
    assert_array_equal(copy.fit(X, y).user_factors_, estimator.user_factors_)


def test_a_table_of_mixed_labels_is_text():
    X = np.array([["ann", 1], ["bob", 2], ["ann", 2], ["cem", 1]], dtype=object)
    model = MatrixFactorization(2, random_state=0).fit(X, [5.0, 3.0, 4.0, 2.0])
    assert_array_equal(model.items_, [1, 2])
    assert r2_score([5.0, 3.0], model.predict(X[:2])) > 0
    assert model.recommend("ann", k=1, exclude_seen=False)[0][0] in (1, 2)
