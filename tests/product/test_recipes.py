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
SCRIPTS = sorted(path.name for path in RECIPES.iterdir() if path.suffix != ".md")
SLURM = {  # commands of Slurm, and a python that only tells what a task was given
    "scontrol": 'test "$1 $2 $3" = "show hostnames node[7-8]" && printf "node7\\nnode8\\n"',
    "srun": 'shift 2; for task in 0 1; do SLURM_PROCID=$task "$@" || exit; done',
    "python": 'echo "$RANK $WORLD_SIZE $MASTER_ADDR $MASTER_PORT $OMP_NUM_THREADS $*"',
}
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


def test_slurm_tells_each_task_its_number_and_where_the_first_is(tmp_path):
    for name, command in SLURM.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{command}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    job = {"SLURM_JOB_NODELIST": "node[7-8]", "SLURM_JOB_ID": "123456", "SLURM_NTASKS": "2", "SLURM_CPUS_PER_TASK": "16"}
    environment = os.environ | job | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", RECIPES / "slurm_fit.sh"], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{task} 2 node7 23456 16 torchrun_fit.py" for task in range(2)]


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_page_of_recipes_has_each_script_and_says_what_it_ran_with(script):
    page = (RECIPES / "README.md").read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| \[.*`{script}` \| (.*) \|$", page, re.MULTILINE)
    assert re.search(r"\d+\.\d+", row)
    shown = page + (RECIPES.parent / "distributed.md").read_text(encoding="utf-8")
    assert re.search(rf"{{literalinclude}} (recipes/)?{script}\n", shown)
