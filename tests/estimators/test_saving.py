"""save and load of every estimator: what comes back is what went in, and a file may change nothing but data."""

import datetime
import decimal
import json
import uuid
import zipfile

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from data import FORMS, as_form, planted
from every_estimator import MODELS, every_model
from every_solver import numbers
from numpy.testing import assert_array_equal
from round_trip import reloaded, rewrite, same
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import make_scorer, max_error

from sk_torchmf import BiasedMatrixFactorization, ImplicitMatrixFactorization, MatrixFactorization, TorchFactorization
from sk_torchmf.model_selection import ranking_scorer
from sk_torchmf.storage.archive import META, write

DATA, _ = planted(3, mean=3.0, n_users=40, n_items=25, n_ratings=500)
NEW_USERS = sp.csr_array(DATA.tocsr()[:5])
pytestmark = pytest.mark.usefixtures("one_thread")


def fitted(name, form="interactions"):
    return MODELS[name](max_iter=3).fit(*MODELS[name].arguments(DATA, form))


# what comes back


@every_model
@pytest.mark.parametrize("form", FORMS)
def test_a_loaded_model_is_the_saved_one(make, form, tmp_path):
    model = make(max_iter=3).fit(*make.arguments(DATA, form))
    again = reloaded(model, tmp_path, **make.entry.code)
    same(vars(again), vars(model))
    new_users = sp.csr_array(make.rated(DATA).tocsr()[:5])
    own = new_users if hasattr(model, "fold_in") else DATA
    X = own if form == "sparse" else as_form(DATA, form)[0]
    calls = {
        "predict": lambda m: m.predict(X),
        "pairs": lambda m: m.predict(model.users_[[0, 3]], model.items_[[1, 1]]),
        "unknown": lambda m: m.predict("nobody", model.items_) if form == "labels" else m.predict(9999, model.items_),
        "recommend": lambda m: m.recommend(k=4),
        "module": lambda m: m.to_module()(torch.tensor([0, 3]), torch.tensor([1, 1])).detach().numpy(),
    }
    if hasattr(model, "fold_in"):
        calls |= {
            "new users": lambda m: m.recommend(new_users, k=4),
            "fold_in": lambda m: m.fold_in(new_users),
            "transform": lambda m: m.transform(X),
            "similar": lambda m: m.similar_items(model.items_[:3], k=3),
            "embeddings": lambda m: m.embeddings(),
            "names": lambda m: m.get_feature_names_out(),
            "score": lambda m: m.score(new_users),
        }
    same({name: call(again) for name, call in calls.items()}, {name: call(model) for name, call in calls.items()})
    assert again.get_params() == model.get_params()
    assert clone(again).get_params() == model.get_params()


def test_uncertainty_and_exploration_come_back(tmp_path):
    model = fitted("biased")
    again = reloaded(model, tmp_path)
    same(again.predict(DATA, return_std=True), model.predict(DATA, return_std=True))
    same(again.recommend(k=3, explore=True, random_state=0), model.recommend(k=3, explore=True, random_state=0))


@every_model
def test_a_loaded_model_fits_again(make, tmp_path):
    X, y = make.arguments(DATA, "interactions")
    again = reloaded(make(max_iter=3).fit(X, y), tmp_path, **make.entry.code)
    same(numbers(again.fit(X, y)), numbers(make(max_iter=3).fit(X, y)))


def test_save_returns_the_model_and_a_loaded_one_saves_the_same_file(tmp_path):
    model = fitted("biased")
    assert model.save(tmp_path / "a") is model
    BiasedMatrixFactorization.load(str(tmp_path / "a")).save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


DAYS = np.array(["2020-01-01", "2021-01-01", "2022-01-01"], dtype="datetime64[D]")
IDS = {
    "int": np.array([7, 30, -5]),
    "uint64": np.array([7, 2**63 + 1, 5], dtype=np.uint64),
    "float": np.array([1.0, 2.0, 30.0]),
    "bool and text": np.array([True, "b", "c"]),
    "fixed text": np.array(["zoë", "b", "日本"]),
    "objects of text": np.array(["zoë", "b", "日本"], dtype=object),
    "bytes": np.array([b"a", b"b", b"cd"]),
    "dates": DAYS,
    "date objects": DAYS.astype(object),
    "datetimes": DAYS.astype("datetime64[us]").astype(object),
    "aware": np.array([datetime.datetime(2020, 1, day, tzinfo=datetime.UTC) for day in (1, 2, 3)]),
    "uuid": np.array([uuid.UUID(int=n) for n in (5, 6, 1)]),
}


@pytest.mark.parametrize("kind", IDS)
def test_ids_of_every_type_come_back(kind, tmp_path):
    X = np.column_stack([IDS[kind][[0, 0, 1, 1, 2]].astype(object), IDS[kind][[0, 1, 1, 2, 0]].astype(object)])
    X = X if IDS[kind].dtype.kind == "O" else X.astype(IDS[kind].dtype)
    model = MatrixFactorization(1, random_state=0).fit(X, [1.0, 2.0, 3.0, 4.0, 5.0])
    again = reloaded(model, tmp_path)
    same([again.users_, again.items_], [model.users_, model.items_])
    assert [type(label) for label in again.users_.tolist()] == [type(label) for label in model.users_.tolist()]
    assert_array_equal(again.predict(X), model.predict(X))
    assert again.recommend(X[0, 0], k=2)[0].tolist() == model.recommend(X[0, 0], k=2)[0].tolist()


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames_with_names_and_categories_come_back(library, tmp_path):
    frames = pytest.importorskip(library)
    users, items = (np.array(ids, dtype=str) for ids in (DATA.user_ids, DATA.item_ids))
    frame = frames.DataFrame({"item": items, "when": np.arange(len(DATA)), "user": users})
    if library == "pandas":
        frame = frame.astype({"user": "category"})
        frame["item"] = frames.to_datetime(DATA.item_ids, unit="D")
    else:
        frame = frame.with_columns(frame["user"].cast(frames.Categorical))
    model = BiasedMatrixFactorization(2, user="user", item="item", random_state=0).fit(frame, DATA.ratings)
    again = reloaded(model.set_output(transform=library), tmp_path)
    same(vars(again), vars(model))
    if library == "pandas":  # scikit-learn 1.6 does not read the names of polars 2
        assert list(again.feature_names_in_) == ["item", "when", "user"]
    assert_array_equal(again.predict(frame), model.predict(frame))
    assert type(again.transform(frame)) is frames.DataFrame


def test_ids_that_a_file_cannot_hold_are_refused_in_words(tmp_path):
    pandas = pytest.importorskip("pandas")
    when = pandas.to_datetime(DATA.user_ids, unit="D", utc=True)
    frame = pandas.DataFrame({"user": when, "item": DATA.item_ids})
    model = MatrixFactorization(2, random_state=0).fit(frame, DATA.ratings)
    with pytest.raises(TypeError, match=r"state.users_ has Timestamp\(.*Labels may be str.*fit on labels of these types"):
        model.save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


# parameters


def test_a_random_state_object_goes_on_where_it_was(tmp_path):
    model = MatrixFactorization(3, random_state=np.random.RandomState(5)).fit(DATA)
    again = reloaded(model, tmp_path)
    assert_array_equal(again.fit(DATA).user_factors_, model.fit(DATA).user_factors_)


@pytest.mark.parametrize("device", ["cuda:3", torch.device("cuda")])
def test_a_fit_on_cuda_loads_without_it(device, tmp_path, monkeypatch):
    model = fitted("biased")
    model.set_params(device=device).save(tmp_path / "model")  # what a fit on CUDA leaves is NumPy too
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    again = BiasedMatrixFactorization.load(tmp_path / "model")
    assert again.device == str(device)
    assert_array_equal(again.predict(DATA), model.predict(DATA))
    with pytest.raises(ValueError, match='Use device="cpu"'):
        again.fit(DATA)


@pytest.mark.parametrize("value", [np.int64(3), np.float32(0.5), None])
def test_numpy_numbers_as_parameters_come_back(value, tmp_path):
    model = fitted("biased").set_params(max_iter=value)
    same(reloaded(model, tmp_path).get_params(), model.get_params())


def test_a_parameter_that_a_file_cannot_hold_is_named(tmp_path):
    with pytest.raises(TypeError, match=r"params.tol is a decimal.Decimal, which a saved file cannot hold"):
        fitted("biased").set_params(tol=decimal.Decimal(1)).save(tmp_path / "model")


@pytest.mark.parametrize(
    ("kind", "scoring"),
    [
        ("implicit", ranking_scorer("ndcg", k=5)),
        ("biased", ranking_scorer("auc", 3, threshold=3.5, exclude_seen=False, holdout=0.3, random_state=7)),
        ("biased", "neg_mean_absolute_error"),
        ("torch", ranking_scorer("ndcg", k=5, items=[0, 1, 2, 3, 4, 5])),
        ("biased", ranking_scorer("recall", 3, items=np.arange(12))),
    ],
)
def test_names_of_scorers_and_ranking_scorers_come_back(kind, scoring, tmp_path):
    model = MODELS[kind](max_iter=3, early_stopping=True, scoring=scoring).fit(DATA)
    again = reloaded(model, tmp_path, **MODELS[kind].entry.code)
    assert type(again.scoring) is type(scoring)
    assert again.scoring == scoring
    assert again.best_score_ == model.best_score_
    assert again.fit(DATA).best_score_ == model.best_score_


@pytest.mark.parametrize("items", ["cold", [3, 1], ["b", "a"], np.array(["2020-01-02"], dtype="M8[D]"), [b"x", 7]])
def test_a_scorer_s_candidates_come_back(items, tmp_path):
    scoring = ranking_scorer("recall", 3, items=items)
    again = reloaded(MODELS["biased"](max_iter=3, scoring=scoring).fit(DATA), tmp_path)
    assert again.scoring == scoring
    assert list(map(type, again.scoring.items)) == list(map(type, scoring.items))


def test_a_scorer_s_random_state_goes_on_where_it_was(tmp_path):
    scoring = ranking_scorer("ndcg", k=5, random_state=np.random.RandomState(3))
    model = MODELS["implicit"](max_iter=3, scoring=scoring).fit(DATA)
    again = reloaded(model, tmp_path)
    assert again.scoring(again, NEW_USERS) == model.scoring(model, NEW_USERS)


@pytest.mark.parametrize(
    ("scoring", "words"),
    [(lambda *args: 1.0, "scoring is .*<lambda>"), (make_scorer(max_error), r"scoring is make_scorer\(max_error")],
)
def test_a_scorer_that_is_code_is_refused_with_the_way_out(scoring, words, tmp_path):
    model = MODELS["biased"](max_iter=3, scoring=scoring).fit(DATA)
    with pytest.raises(TypeError, match=rf"{words}.*which is code.*ranking_scorer.*set_params\(scoring=None\)"):
        model.save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
    model.set_params(scoring=None).save(tmp_path / "model")


@pytest.mark.parametrize(
    "scoring",
    [
        {"eval": {"dict": {}}},
        {"os.system": {"dict": {"metric": "true"}}},
        {"ranking_scorer": {"dict": {"metric": "__class__"}}},
        {"ranking_scorer": {"dict": {"command": "true"}}},
        {"ranking_scorer": 3},
        {"ranking_scorer": {"dict": {}}, "more": {"dict": {}}},
        {},
    ],
)
def test_a_file_makes_no_other_scorer(scoring, tmp_path):
    fitted("plain").save(tmp_path / "model")
    rewrite(tmp_path / "model", lambda meta: meta["values"]["params"]["dict"].update(scoring={"dict": scoring}))
    with pytest.raises(ValueError, match="is not a complete file"):
        MatrixFactorization.load(tmp_path / "model")


def test_requested_metadata_come_back(tmp_path):
    with config_context(enable_metadata_routing=True):
        model = fitted("biased").set_fit_request(sample_weight=True).set_score_request(sample_weight="weight")
        again = reloaded(model, tmp_path)
        assert again.get_metadata_routing().fit.requests["sample_weight"] is True
        assert again.get_metadata_routing().score.requests["sample_weight"] == "weight"
        assert again.get_metadata_routing().fit.requests == model.get_metadata_routing().fit.requests


def test_a_parameter_that_is_new_since_has_its_default(tmp_path):
    fitted("biased").save(tmp_path / "model")
    rewrite(tmp_path / "model", lambda meta: meta["values"]["params"]["dict"].pop("clip"))
    assert BiasedMatrixFactorization.load(tmp_path / "model").clip is False


def test_a_parameter_that_is_not_there_is_refused(tmp_path):
    fitted("biased").save(tmp_path / "model")
    rewrite(tmp_path / "model", lambda meta: meta["values"]["params"]["dict"].update(depth=3))
    with pytest.raises(
        ValueError, match=r"has a parameter 'depth', which BiasedMatrixFactorization does not have in this version. Upgrade"
    ):
        BiasedMatrixFactorization.load(tmp_path / "model")


# bad input


@every_model
def test_save_asks_for_a_fit_first(make, tmp_path):
    with pytest.raises(NotFittedError, match=r"This \w+ instance is not fitted yet"):
        make().save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_the_other_class_is_refused_by_name(tmp_path):
    fitted("plain").save(tmp_path / "model")
    for other in (BiasedMatrixFactorization, ImplicitMatrixFactorization, TorchFactorization):
        with pytest.raises(
            ValueError, match=rf"model holds a MatrixFactorization, not a {other.__name__}. Use MatrixFactorization"
        ):
            other.load(tmp_path / "model")


def test_bad_paths_are_refused(tmp_path):
    model = fitted("plain")
    for call in (model.save, MatrixFactorization.load):
        with pytest.raises(TypeError, match=r"path must be a str or os.PathLike. Got int."):
            call(3)
        with pytest.raises(IsADirectoryError):
            call(tmp_path)
        with pytest.raises(FileNotFoundError):
            call(tmp_path / "missing" / "model")


def test_a_file_of_a_newer_version_is_refused_and_the_own_is_in_the_file(tmp_path):
    import sk_torchmf

    fitted("plain").save(tmp_path / "model")
    with zipfile.ZipFile(tmp_path / "model") as archive:
        header = json.loads(archive.read(META))
        parts = {info.filename: archive.read(info) for info in archive.infolist()}
    assert header["written_by"] == sk_torchmf.__version__
    with zipfile.ZipFile(tmp_path / "model", "w") as archive:
        for name, content in parts.items():
            archive.writestr(
                name, json.dumps(header | {"version": header["version"] + 1, "written_by": "7.1"}) if name == META else content
            )
    with pytest.raises(ValueError, match=r"written by a newer sk_torchmf \(7.1\).*Upgrade"):
        MatrixFactorization.load(tmp_path / "model")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("predict", 3),
        ("__class__", "x"),
        ("__dict__", {"dict": {}}),
        ("_module", "x"),
        ("_parameter_constraints", {"dict": {}}),
        ("_metadata_request", 3),
        ("_skl_callbacks", []),
        ("a b", 1),
    ],
)
def test_a_file_sets_no_attribute_that_is_the_class_s(name, value, tmp_path):
    fitted("plain").save(tmp_path / "model")
    rewrite(tmp_path / "model", lambda meta: meta["values"]["state"]["dict"].update({name: value}))
    with pytest.raises(ValueError, match=f"'{name}' is not a fitted attribute"):
        MatrixFactorization.load(tmp_path / "model")


@pytest.mark.parametrize("name", ["n_users_", "user_factors_", "item_biases_", "seen_", "items_", "mean_item_", "user_counts_"])
@pytest.mark.parametrize("change", ["missing", "another"])
def test_state_that_does_not_fit_together_is_refused(name, change, tmp_path):
    """Sparse kernels trust that an item's number is below the number of rows."""
    fitted("biased").save(tmp_path / "model")

    def damage(meta):
        state = meta["values"]["state"]["dict"]
        if change == "missing":
            del state[name]
        else:
            state[name] = 10**6 if name == "n_users_" else {"array": "state.rating_range_"}

    rewrite(tmp_path / "model", damage)
    with pytest.raises(ValueError, match="model is not a complete file of sk_torchmf"):
        BiasedMatrixFactorization.load(tmp_path / "model")


@pytest.mark.parametrize(
    "meta", [{}, {"estimator": 3}, {"values": 3}, {"estimator": "MatrixFactorization", "values": {"params": []}}]
)
def test_a_file_that_holds_something_else_is_refused(meta, tmp_path):
    write(tmp_path / "model", meta, {})
    with pytest.raises(ValueError, match="is not a complete file"):
        MatrixFactorization.load(tmp_path / "model")


# files of other versions


@every_model
def test_a_file_of_the_version_that_kept_sums_of_the_ratings_loads_without_them(make, tmp_path):
    model, more = make(max_iter=3).fit(*make.arguments(DATA, "interactions")), make.arguments(DATA[:5], "interactions")
    of_ratings = not isinstance(model, ImplicitMatrixFactorization)

    def make_older(meta):
        state = meta["values"]["state"]["dict"]
        state["_biased"] = hasattr(model, "global_mean_")
        if of_ratings:
            del state["observed_"]
            state |= {"sketch_": {"dict": {"seed": 0}}, "residual_square_": 1.5, "rating_measure_": {"tuple": [1.0, 2.0]}}

    model.save(tmp_path / "model")
    rewrite(tmp_path / "model", make_older)
    older = type(model).load(tmp_path / "model", **make.entry.code)
    assert_array_equal(older.predict(DATA), model.predict(DATA))
    assert not {"sketch_", "residual_square_", "rating_measure_", "_biased"} & vars(older).keys()
    if of_ratings:
        with pytest.raises(ValueError, match=r"has not kept them: .* by an earlier version"):
            older.partial_fit(*more)
    else:
        assert_array_equal(older.partial_fit(*more).predict(DATA), model.partial_fit(*more).predict(DATA))


@pytest.mark.parametrize(
    ("values", "kind"),
    [(np.arange(-5, 6), np.int8), (np.arange(-500, 600, 100), np.int16), (np.linspace(0, 1, 11), np.float32)],
)
def test_ratings_take_as_few_bytes_in_a_file_as_hold_them(values, kind, tmp_path):
    data = DATA[:]
    data.ratings = values[np.arange(len(data)) % 11].astype(float)
    model = MatrixFactorization(2, max_iter=1, random_state=0).fit(data).save(tmp_path / "model")
    with np.load(tmp_path / "model") as arrays:
        kept = [arrays[name] for name in arrays.files if "observed_" in name]
    assert [one.dtype for one in kept] == [kind]
    assert kept[0].shape == (len(data),)
    again = MatrixFactorization.load(tmp_path / "model")
    same(again.observed_, model.observed_)
    assert again.observed_.indices is again.seen_.indices
