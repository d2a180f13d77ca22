"""A model whose arrays are mapped from a file answers as the one in memory: no warning, plain arrays, the file as it was."""

import joblib
import numpy as np
import pytest
import torch
from data import planted
from every_call import answers, calls_of
from every_estimator import MODELS, Model
from numpy.testing import assert_array_equal

DATA = planted(3, mean=3.0)[0]
COSINES = {"loss": "cosine", "temperature": 0.3, "dtype": "float64"}
MAPPED = MODELS | {"implicit, cosines": Model(MODELS["implicit"].entry, MODELS["implicit"].params | COSINES)}
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def every_warning():
    """torch warns each time, not once in a process."""
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(False)


@pytest.fixture(scope="module", params=MAPPED)
def mapped(request, tmp_path_factory):
    """What a model was fitted to, itself, and the path of its file."""
    make = MAPPED[request.param]
    data = make.rated(DATA)
    model = make(max_iter=2).fit(data)
    path = tmp_path_factory.mktemp("mapped") / "model"
    joblib.dump(model, path)
    return data, model, path


@pytest.mark.usefixtures("every_warning")
@pytest.mark.filterwarnings("ignore:Sparse")  # what torch says of itself, once in a process as a rule
@pytest.mark.parametrize("mode", ["r", "r+"])
def test_every_call_of_a_mapped_model_answers_as_in_memory_and_writes_nothing(mapped, mode):
    data, model, path = mapped
    content = path.read_bytes()
    loaded = joblib.load(path, mmap_mode=mode)
    assert isinstance(loaded.seen_.indices, np.memmap)
    for name, call in calls_of(model).items():
        result = call(loaded, data)
        for ours, theirs in zip(answers(result), answers(call(model, data)), strict=True):
            assert_array_equal(ours, theirs, err_msg=name)
            assert type(ours) is np.ndarray, name
            assert ours.flags.writeable, name
    del loaded
    assert path.read_bytes() == content


@pytest.mark.usefixtures("every_warning")
@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("name", MODELS)
def test_data_that_cannot_be_written_to_are_fitted_without_a_warning(name):
    """As joblib hands large arrays to its processes."""
    make = MODELS[name]
    for form in ("interactions", "table"):
        X, y = make.arguments(DATA, form)
        weight = np.linspace(0.5, 2.0, len(DATA))
        parts = [X.user_ids, X.item_ids, X.ratings] if form == "interactions" else [X, y]
        for array in (*parts, weight):
            if array is not None:
                array.flags.writeable = False
        model = make(max_iter=2).fit(X, y, sample_weight=weight)
        assert np.isfinite(model.partial_fit(X, y, sample_weight=weight).predict(X)).all()
