"""Files that released versions wrote are loaded by this one, which says of them what those versions said.

Here numbers of a recorded run are the point: ``answers.json`` beside the files has what the version that wrote them predicted, and
a later one must predict the same. That this was right is known by construction: see ``shared/saved_models.py``, which wrote them.
"""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose
from saved_models import (
    ANSWERS,
    ASKED,
    CODE,
    COLD_ITEMS,
    FLAVOUR,
    FOLDER,
    ITEMS,
    MODELS,
    TASTE,
    USERS,
    WITH_FEATURES,
    answers,
    features,
    observations,
    truth,
)

VERSIONS = sorted(path.name for path in FOLDER.iterdir() if path.is_dir())
FILES = [(version, path.stem) for version in VERSIONS for path in sorted((FOLDER / version).glob("*.model"))]
RATINGS = [(version, name) for version, name in FILES if name != "implicit"]
FLAVOURS = dict(zip(ITEMS, FLAVOUR, strict=True)) | COLD_ITEMS
pytestmark = pytest.mark.usefixtures("one_thread")


def load(version, name):
    return type(MODELS[name]).load(FOLDER / version / f"{name}.model", **CODE.get(name, {}))


def test_the_files_of_the_first_version_are_there():
    assert {name for version, name in FILES if version == "0.1.0"} == {"plain", "biased", "implicit", "torch", "module"}
    assert all((FOLDER / version / f"{name}.model").stat().st_size < 50_000 for version, name in FILES)


@pytest.mark.parametrize(("version", "name"), FILES)
def test_a_file_gives_the_answers_of_the_version_that_wrote_it(version, name):
    recorded = json.loads((FOLDER / version / ANSWERS).read_text(encoding="utf-8"))[name]
    found = answers(load(version, name))
    assert found["items"] == recorded["items"]
    for kind in recorded.keys() - {"items"}:
        assert_allclose(found[kind], recorded[kind], rtol=1e-5, atol=1e-6, err_msg=kind)  # float32, on another processor


@pytest.mark.parametrize(("version", "name"), RATINGS)
def test_predictions_from_a_file_are_the_planted_ones(version, name):
    predicted = np.array(answers(load(version, name))["predict"])
    known = np.isin(ASKED[1], ITEMS)
    assert_allclose(predicted[known], truth(*ASKED)[known], atol=0.4)  # four standard deviations of the noise
    if name == "biased":
        assert_allclose(predicted[~known], truth(*ASKED)[~known], atol=0.4)


@pytest.mark.parametrize("version", VERSIONS)
def test_what_a_file_recommends_is_to_the_taste_of_each_user(version):
    items, _ = load(version, "implicit").recommend(USERS, k=1)
    assert [FLAVOURS[item] for item in items[:, 0]] == TASTE.tolist()


@pytest.mark.parametrize(("version", "name"), FILES)
def test_a_model_from_a_file_learns_from_more_ratings(version, name):
    pytest.importorskip("pandas")
    model = load(version, name)
    table, rating = observations()
    if name == "implicit":
        table, rating = table[rating > 3], None
    model.partial_fit(table.head(40), None if rating is None else rating[:40])
    assert np.isfinite(answers(model)["predict"]).all()


@pytest.mark.parametrize(("version", "name"), [(version, name) for version, name in FILES if name in WITH_FEATURES])
def test_a_new_item_is_known_by_its_features_to_a_model_from_a_file(version, name):
    pandas = pytest.importorskip("pandas")
    model = load(version, name)
    _, items = features()
    new = items.loc[["cola", "ale"]].set_index(pandas.Index(["lemonade", "stout"], name="item"))
    sweet, bitter = model.predict(USERS[:2, None], ["lemonade", "stout"], item_features=new).T
    assert ((sweet - bitter) * TASTE[:2] > 0).all()
