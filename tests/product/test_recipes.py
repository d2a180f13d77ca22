"""The scripts of the documentation that need more than one process, run as the pages say."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch.distributed as dist

from sk_torchmf import BiasedMatrixFactorization, datasets

RECIPES = Path(__file__).parents[2] / "docs" / "recipes"
pytestmark = [pytest.mark.skipif(sys.platform == "win32", reason="gloo"), pytest.mark.usefixtures("one_thread")]


@pytest.fixture
def alone(tmp_path):
    """A group of one."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("alone")
def test_torchrun_fits_what_one_process_does(tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = RECIPES / "torchrun_fit.py"
    done = subprocess.run([*command, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    parts = re.findall(r"rank \d of 2: (\d+) users, (\d+) items, (\d+) ratings", done.stdout)
    assert len(parts) == 2
    assert sum(int(n_users) for n_users, _, _ in parts) == 943
    assert done.stdout.count("iteration") == 10  # printed by one of them

    ratings = datasets.make_ratings(n_users=943, n_items=1682, n_ratings=100_000, noise_std=0.9, random_state=0)
    is_test = np.random.default_rng(0).random(len(ratings.data)) < 0.1
    expected = BiasedMatrixFactorization(distributed=True, random_state=0).fit(ratings.data[~is_test], ratings.target[~is_test])
    assert sum(int(n) for _, _, n in parts) == expected.observed_.nnz
    whole = BiasedMatrixFactorization.load(tmp_path / "model.npz")
    assert whole.distributed is False
    np.testing.assert_array_equal(whole.users_, expected.users_)
    np.testing.assert_array_equal(whole.seen_.indices, expected.seen_.indices)
    ours, theirs = (model.predict(ratings.data[is_test]) for model in (whole, expected))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=5e-3)  # float32, ten iterations
    rmse = np.sqrt(np.mean((theirs - ratings.target[is_test]) ** 2))
    assert float(re.search(r"all 943 users: RMSE (\S+)", done.stdout)[1]) == pytest.approx(rmse, abs=2e-4)
