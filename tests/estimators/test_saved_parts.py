"""Models that several processes have saved and fits that they were killed in: any other number of them goes on, or none does."""

import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from parted import COPIES, FITS, FOLDER, MODELS, N_DONE, N_EPOCHS, TIMEOUT
from several_processes import run
from sharing import KINDS

from sk_torchmf import BiasedMatrixFactorization
from sk_torchmf.estimators._saving import FOR_MORE
from sk_torchmf.inputs.stable_hash import shares, stable_hash
from sk_torchmf.storage.packing import pack

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks")
SAVING = ["save_all", "failing_write", "unshared_folder", "strange_folder", "no_folder_to_load"]
FITTING = ["whole_fits", "interrupted", "interrupted_by_a_full_disk", "of_another_fit"]
RESUMED = FITS | COPIES | {"full disk": "biased", "killed": "biased"}
N_LOADING = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The one that all processes see."""
    path = tmp_path_factory.mktemp("shared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FOLDER, str(path))
        yield path


@pytest.fixture(scope="module")
def saved(folder, tmp_path_factory):
    """What two processes say."""
    return run("parted", [([*SAVING, *FITTING], 60), (["killed"], TIMEOUT)], 2, tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def found(saved, tmp_path_factory):
    """What three say."""
    return run("parted", [(["load_all", "resumed"], 60)], N_LOADING, tmp_path_factory.mktemp("three"))


@pytest.fixture(scope="module")
def resumed(saved, found, tmp_path_factory):
    """What fits of three processes and of one found that had been begun by two."""
    alone = run("parted", [(["resumed_by_one"], 60)], 1, tmp_path_factory.mktemp("one"))["resumed_by_one"]
    return found["resumed"][1] | alone[0]


def kind(name):
    return KINDS["plain" if name == "plain" else "biased"]


def plain(value):
    """The own values of an encoder, of what is on disk and of effects; all else as it is."""
    if isinstance(value, list):
        return [one.state() if hasattr(one, "from_state") else one for one in value]
    if hasattr(value, "with_rows"):
        return value.state()
    return vars(value) if hasattr(value, "get_params") else value


def assert_same_state(ours, theirs):
    """Bit for bit, and of the same types."""
    (own, arrays), (other, others) = (pack({k: plain(v) for k, v in state.items()}) for state in (ours, theirs))
    assert own == other
    for name, values in others.items():
        assert arrays[name].dtype == values.dtype
        assert_array_equal(arrays[name], values, name)


def state_of(model):
    return {name: value for name, value in vars(model).items() if name.endswith("_")}


@pytest.mark.parametrize("name", MODELS)
def test_one_process_reads_the_whole(saved, folder, name):
    model = kind(name).load(folder / name)
    assert not model.distributed
    assert_same_state(state_of(model), saved["save_all"][0][name])
    path = folder.parent / f"{name}.npz"  # an ordinary estimator, which goes into a file
    assert_same_state(state_of(kind(name).load(model.save(path) and path)), state_of(model))


@pytest.mark.parametrize("name", MODELS)
def test_each_of_other_processes_reads_its_users(saved, found, name):
    whole = saved["save_all"][0][name]
    for rank, own in enumerate(found["load_all"]):
        state, gathered, without = own[name]
        assert_same_state(gathered, whole)
        assert (shares(stable_hash(state["users_"], "user"), N_LOADING) == rank).all()
        place = np.searchsorted(whole["users_"], state["users_"])
        assert 0 < len(place) == state["n_users_"] < whole["n_users_"]
        assert_array_equal(state["user_factors_"], whole["user_factors_"][place])
        assert_array_equal(state["seen_"][np.arange(len(place))].toarray(), whole["seen_"][place].toarray())
        if "observed_" in whole:
            assert_same_state({"observed_": state["observed_"]}, {"observed_": whole["observed_"][place]})
        assert_same_state({"seen_": state["seen_"]}, {"seen_": without["seen_"]})
        assert state.keys() - without.keys() == whole.keys() & set(FOR_MORE)
    assert sum(own[name][0]["n_users_"] for own in found["load_all"]) == whole["n_users_"]


def test_failure_of_one_is_told_to_all_and_leaves_what_was_there(saved, folder):
    for rank, (over, new, is_kept) in enumerate(saved["failing_write"]):
        for error, text in (over, new):
            assert error == ("OSError" if rank == 1 else "DistributedError")
            assert "No space left on device" in text
        assert is_kept
    with pytest.raises(IsADirectoryError, match="does not hold a complete model"):
        BiasedMatrixFactorization.load(folder / "half made")


@pytest.mark.parametrize(
    ("case", "culprit", "text"),
    [
        ("unshared_folder", 1, "must be on storage that all ranks share. Rank 1 does not see it"),
        ("strange_folder", 0, "The folder holds other files"),
        ("no_folder_to_load", None, "does not hold a complete model"),
    ],
)
def test_folder_that_is_none_is_refused_by_all(saved, case, culprit, text):
    for rank, (error, message) in enumerate(saved[case]):
        assert text in message
        assert (error == "DistributedError") == (culprit is not None and rank != culprit)


def changed(old, new):
    """What changes the manifest of a folder."""
    return lambda path: (path / "parts.json").write_text((path / "parts.json").read_text().replace(old, new))


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda path: max(path.glob("*.1-of-2.npz")).unlink(), r"1-of-2\.npz is missing"),
        (changed('{"format"', '{"format'), r"parts\.json is not valid JSON"),
        (changed("sk_torchmf parts", "parts"), r"parts\.json does not say that it is one"),
        (changed('"version": 1', '"version": 2'), "newer sk_torchmf"),
        (changed("model-", "../model-"), r"parts\.json does not list its files"),
    ],
)
def test_damaged_folder_is_refused(saved, folder, tmp_path, damage, text):
    for file in (folder / "plain").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    damage(tmp_path)
    with pytest.raises(ValueError, match=text):
        kind("plain").load(tmp_path)


def test_folder_of_another_estimator_is_refused(saved, folder):
    with pytest.raises(ValueError, match=r"holds a MatrixFactorization, not a BiasedMatrixFactorization"):
        BiasedMatrixFactorization.load(folder / "plain")


def test_without_a_group_a_part_is_not_saved(saved, folder, tmp_path):
    model = kind("plain").load(folder / "plain").set_params(distributed=True)
    with pytest.raises(ValueError, match="distributed=True needs a process group"):
        model.save(tmp_path / "model")


NUMBERS = ["user_factors_", "item_factors_", "item_biases_", "mean_user_", "user_counts_", "noise_std_", "cut_points_"]
NUMBERS += ["user_feature_weights_", "item_feature_weights_", "best_score_"]


@pytest.mark.parametrize("path", RESUMED)
def test_fit_that_was_killed_ends_on_other_processes_as_one_that_was_not(saved, resumed, path):
    state, n_steps, is_left = resumed[path]
    assert n_steps == N_EPOCHS - N_DONE
    assert not is_left
    whole = saved["whole_fits"][0][RESUMED[path]]
    for name in whole.keys() & set(NUMBERS):
        if whole[name] is not None:
            assert_allclose(state[name], whole[name], rtol=0, atol=1e-12 * np.abs(whole[name]).max(), err_msg=name)
    assert_array_equal(state["users_"], whole["users_"])
    for figure in whole["history_"].keys() - {"seconds"}:
        assert_allclose(state["history_"][figure], whole["history_"][figure], rtol=1e-12)
    assert len(state["history_"]["loss"]) == N_EPOCHS


def test_other_processes_of_one_that_is_killed_raise(saved):
    (error, message, seconds), of_the_killed = saved["killed"]
    assert of_the_killed is None
    assert error == "DistributedError"
    assert "has lost contact with the others" in message
    assert "With a checkpoint the fit continues where it stopped" in message
    assert seconds < TIMEOUT


def test_failed_write_of_a_checkpoint_ends_all(saved):
    errors = [error for error, _ in saved["interrupted_by_a_full_disk"]]
    assert errors == ["DistributedError", "OSError"]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "comes from another fit, which differs in data (other data there, other data here)"),
        (1, "comes from another fit, which differs in n_factors (3 there, 4 here)"),
        (2, "is not a folder of a whole checkpoint that sk_torchmf wrote: it holds a model"),
        (3, "comes from another fit, which differs in data (other data there, other data here)"),
    ],
)
def test_checkpoint_of_another_fit_is_refused_by_all(saved, number, text):
    for found in saved["of_another_fit"]:
        assert text in found[number][1]
