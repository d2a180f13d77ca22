"""A fit that is killed goes on from its checkpoint, to the same end; a file that is not its own is refused."""

import multiprocessing
import os
import sys
import time

import numpy as np
import pytest
import torch
from every_solver import DATA, SOLVERS, Dropout, assert_same, every_solver, numbers, torch_model
from killed_fits import Killed, die_after, fit_and_save, killed_and_resumed, long_fit
from numpy.testing import assert_array_equal

from sk_torchmf import BiasedMatrixFactorization, DivergenceError
from sk_torchmf.storage import checkpoint as _checkpoint
from sk_torchmf.storage.checkpoint import digest_of, fingerprint_of
from sk_torchmf.storage.packing import unpack

pytestmark = pytest.mark.usefixtures("one_thread")


@every_solver
@pytest.mark.parametrize("at", [1, 4, 6])
def test_a_killed_fit_ends_as_one_that_was_not(kind, at, monkeypatch, tmp_path):
    data = SOLVERS[kind].data
    whole = SOLVERS[kind].make().fit(data)
    resumed, written = killed_and_resumed(monkeypatch, SOLVERS[kind].make, data, tmp_path / "fit", at)
    assert written == list(range(at + 1, 7))  # no epoch twice
    assert_same(resumed, whole)


@pytest.mark.parametrize("refit", [True, False])
@pytest.mark.parametrize("kind", ["variational", "adam", "bpr", "torch", "torch ranking"])
def test_early_stopping_resumes_in_either_part(kind, refit, monkeypatch, tmp_path):
    def make(**options):
        return SOLVERS[kind].make(early_stopping=True, refit=refit, n_iter_no_change=2, **options).set_params(max_iter=9)

    whole = make().fit(SOLVERS[kind].data)
    n_epochs = whole.n_iter_ + refit * whole.best_iter_
    for at in {1, whole.n_iter_ - 1, whole.n_iter_, n_epochs - 1, n_epochs}:
        resumed, written = killed_and_resumed(monkeypatch, make, SOLVERS[kind].data, tmp_path / "fit", at)
        assert len(written) == n_epochs - at
        assert_same(resumed, whole)
        assert (resumed.best_iter_, resumed.best_score_) == (whole.best_iter_, whole.best_score_)


def test_converged_training_is_not_resumed_past_its_end(monkeypatch, tmp_path):
    def make(**options):
        return BiasedMatrixFactorization(4, solver="als", max_iter=200, tol=1e-2, random_state=0, **options)

    whole = make().fit(DATA)
    assert whole.n_iter_ < 200
    resumed, written = killed_and_resumed(monkeypatch, make, DATA, tmp_path / "fit", whole.n_iter_)
    assert written == []
    assert_same(resumed, whole)


def test_without_a_random_state_the_seed_is_that_of_the_file(monkeypatch, tmp_path):
    def make(**options):
        return BiasedMatrixFactorization(4, solver="adam", batch_size=50, max_iter=5, early_stopping=True, **options)

    resumed, _ = killed_and_resumed(monkeypatch, make, DATA, tmp_path / "fit", 2)
    assert resumed.n_iter_ == 5


def interrupt(monkeypatch, path, at=2, **options):
    with monkeypatch.context() as patch:
        die_after(patch, at)
        with pytest.raises(Killed):
            SOLVERS["adam"].make(checkpoint=path, **options).fit(DATA)


CURE = "Delete it to fit from scratch, or name another file with checkpoint"


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (lambda: SOLVERS["adam"].make().set_params(n_factors=5), r"n_factors \(4 there, 5 here\)"),
        (lambda: SOLVERS["adam"].make().set_params(random_state=1), "random_state"),
        (lambda: SOLVERS["adam"].make().set_params(learning_rate=0.2), r"learning_rate \(None there, 0\.2 here\)"),
        (lambda: SOLVERS["als"].make(), "class"),
        (lambda: SOLVERS["torch"].make(), "class"),
    ],
)
def test_another_fit_is_refused_by_what_differs(other, words, monkeypatch, tmp_path):
    path = tmp_path / "fit"
    interrupt(monkeypatch, path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=f"fit comes from another fit, which differs in .*{words}.*{CURE}"):
        other().set_params(checkpoint=path).fit(DATA)
    assert path.read_bytes() == before


@pytest.mark.parametrize("change", ["rating", "weight", "order", "fewer"])
def test_other_data_are_refused(change, monkeypatch, tmp_path):
    path, data, weight = tmp_path / "fit", DATA[:], None
    interrupt(monkeypatch, path)
    if change == "rating":
        data.ratings = DATA.ratings + (np.arange(len(DATA)) == 7)
    weight = np.ones(len(DATA)) if change == "weight" else None
    data = {"order": data[::-1], "fewer": data[:-1]}.get(change, data)
    with pytest.raises(ValueError, match=r"differs in data \(other data there, other data here\)"):
        SOLVERS["adam"].make(checkpoint=path).fit(data, sample_weight=weight)


def test_what_has_no_effect_on_training_may_differ(monkeypatch, tmp_path, capsys):
    interrupt(monkeypatch, tmp_path / "fit")
    model = SOLVERS["adam"].make(checkpoint=str(tmp_path / "fit"), verbose=1, clip=True, handle_unknown="nan").fit(DATA)
    assert_same(model, SOLVERS["adam"].make().fit(DATA))
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_a_truncated_file_is_refused(monkeypatch, tmp_path):
    path = tmp_path / "fit"
    interrupt(monkeypatch, path)
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=f"checkpoint .*fit is not a checkpoint, or is truncated or damaged: .*{CURE}"):
            SOLVERS["adam"].make(checkpoint=path).fit(DATA)
        assert path.read_bytes() == whole[:length]


def test_a_foreign_file_is_refused(tmp_path):
    path = tmp_path / "thesis.docx"
    path.write_text("Chapter 1")
    with pytest.raises(ValueError, match=f"thesis.docx is not a checkpoint, or is truncated or damaged: .*{CURE}"):
        SOLVERS["adam"].make(checkpoint=path).fit(DATA)
    assert path.read_text() == "Chapter 1"
    np.savez(tmp_path / "arrays.npz", a=np.ones(3))
    with pytest.raises(ValueError, match=r"arrays\.npz is not a checkpoint, or is truncated or damaged"):
        SOLVERS["adam"].make(checkpoint=tmp_path / "arrays.npz").fit(DATA)


def test_a_model_that_was_saved_is_no_checkpoint(tmp_path):
    _checkpoint._archive.write(tmp_path / "model", {"kind": "model"}, {})
    with pytest.raises(ValueError, match=f"model is another file of sk_torchmf, not a checkpoint. {CURE}"):
        SOLVERS["adam"].make(checkpoint=tmp_path / "model").fit(DATA)


def test_a_module_that_changed_under_its_name_is_refused(monkeypatch, tmp_path):
    path = tmp_path / "fit"
    with monkeypatch.context() as patch:
        die_after(patch, 2)
        with pytest.raises(Killed):
            torch_model(checkpoint=path).fit(DATA)
    monkeypatch.setattr(Dropout.__init__, "__defaults__", (7,))
    with pytest.raises(ValueError, match=f"its state does not fit this model .*shape.*{CURE}"):
        torch_model(checkpoint=path).fit(DATA)


def test_nothing_is_left_of_a_fit_that_ended(tmp_path):
    for kind in ("adam", "bpr", "torch"):
        SOLVERS[kind].make(checkpoint=tmp_path / "fit").fit(SOLVERS[kind].data)
    with pytest.raises(DivergenceError):
        BiasedMatrixFactorization(4, solver="sgd", learning_rate=1e3, max_iter=500, checkpoint=tmp_path / "fit").fit(DATA)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        SOLVERS["adam"].make(checkpoint=tmp_path / "nowhere" / "fit").fit(DATA)


def test_what_cannot_be_resumed_is_refused(tmp_path):
    path = tmp_path / "fit"
    with pytest.raises(ValueError, match="checkpoint needs n_processes=1"):
        torch_model(optimizer="SGD", n_processes=2, checkpoint=path).fit(DATA)
    batches = [(DATA.user_ids, DATA.item_ids, DATA.ratings)]
    for options in ({"checkpoint": path}, {"early_stopping": True}):
        with pytest.raises(ValueError, match="fit_batches needs early_stopping=False and checkpoint=None"):
            torch_model(**options).fit_batches(batches, n_users=40, n_items=25)


def test_training_is_the_same_with_a_checkpoint_as_without(tmp_path):
    for kind in ("variational", "adam", "bpr", "torch"):
        assert_same(
            SOLVERS[kind].make(checkpoint=tmp_path / "fit").fit(SOLVERS[kind].data), SOLVERS[kind].make().fit(SOLVERS[kind].data)
        )


class WithASet(torch.optim.lr_scheduler.ConstantLR):
    def state_dict(self):
        return super().state_dict() | {"seen": {1}}


def test_a_state_that_a_file_cannot_hold_is_named(tmp_path):
    words = (
        r"checkpoint cannot store the state_dict\(\) of this optimizer or scheduler: solver\.rest\.scheduler\.seen is a "
        r"builtins.set.*"
        r"Use another one, or checkpoint=None"
    )
    with pytest.raises(TypeError, match=words):
        torch_model(scheduler=WithASet, checkpoint=tmp_path / "fit").fit(DATA)
    assert list(tmp_path.iterdir()) == []


def test_a_digest_tells_dtype_shape_content_and_absence_apart():
    a = np.arange(6)
    others = [a.astype(float), a.reshape(2, 3), a[::-1], a[:5], None, a.astype(str), a.astype(object)]
    digests = {digest_of(a), *(digest_of(other) for other in others), digest_of(a, None), digest_of(None, a), digest_of()}
    assert len(digests) == 11
    assert digest_of(a) == digest_of(np.arange(6))


def test_a_fingerprint_is_the_same_in_another_process():
    def own_loss(score, rating):
        return (score - rating).abs().mean()

    model = torch_model(loss=own_loss, optimizer=torch.optim.SGD, optimizer__lr=0.1, parameter_options={"*": {"lr": 0.2}})
    shown = repr(fingerprint_of(model, 0, "digest"))
    assert " at 0x" not in shown
    assert "own_loss" in shown
    assert "torch.optim.sgd.SGD" in shown


@pytest.mark.skipif(sys.platform == "win32", reason="no forkserver")
def test_fifty_kills_at_random_moments_lose_nothing(monkeypatch, tmp_path):
    path, result = str(tmp_path / "fit"), str(tmp_path / "result.npz")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    context = multiprocessing.get_context("forkserver")  # which has imported and not trained: its children start at once
    context.set_forkserver_preload(["killed_fits"])
    rng, reached, kills = np.random.default_rng(0), [], 0
    patience = time.monotonic() + 300
    while kills < 50:
        process = context.Process(target=fit_and_save, args=(path, result))
        process.start()
        before, early = _stamp(path), rng.random() < 0.1
        while not early and _stamp(path) == before and process.is_alive():  # most live to write one
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.01))
        process.kill()
        process.join()
        assert not os.path.exists(result), "ended before it was killed fifty times"
        assert process.exitcode == -9
        kills += 1
        reached.append(_epochs(path))
        assert time.monotonic() < patience
    assert (np.diff(reached) >= 0).all()  # no kill costs an epoch that was there
    assert len(set(reached)) > 10
    assert len(list(tmp_path.iterdir())) <= 2  # at most one unfinished write beside the checkpoint
    process = context.Process(target=fit_and_save, args=(path, result))
    process.start()
    process.join(300)
    assert process.exitcode == 0
    assert [file.name for file in tmp_path.iterdir()] == ["result.npz"]
    whole = long_fit()
    with np.load(result) as found:
        for at, expected in enumerate(numbers(whole)):
            assert_array_equal(found[f"arr_{at}"], expected)
        assert_array_equal(found["loss"], whole.history_["loss"])


def _stamp(path):
    return os.stat(path).st_mtime_ns if os.path.exists(path) else 0


def _epochs(path):
    """How many epochs a checkpoint holds; the file is whole at any moment."""
    if not os.path.exists(path):
        return 0
    meta, arrays = _checkpoint._archive.read(path)
    return len(unpack(meta["content"], arrays)["progress"]["history"]["loss"])
