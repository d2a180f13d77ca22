"""Which systems there are, what they need, and what may be set. Knows pip, and none of the systems themselves."""

import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

TORCH_CPU = "https://download.pytorch.org/whl/cpu"


@dataclass(frozen=True)
class System:
    """One system.

    Attributes
    ----------
    label : str
        What tables and plots call it.
    adapter : str
        Its file here.
    needs : tuple of str
        Requirements for pip; empty where it runs beside the driver.
    width, steps : str
        What it calls the number of factors and the number of passes.
    asked : dict
        Named settings that are compared as they are, not tuned.
    start, grid : dict
        Settings fixed for tuning, and those searched on a validation part of the training ratings.
    passes : tuple of int
        Numbers of passes for the curve of time against RMSE.
    torch, ranking, slow : bool
        Needs torch; has no RMSE; takes so long that each split is fitted once.
    """

    label: str
    adapter: str
    needs: tuple[str, ...]
    width: str
    steps: str
    asked: dict
    start: dict
    grid: dict | list
    passes: tuple[int, ...]
    torch: bool = False
    ranking: bool = False
    slow: bool = False


SYSTEMS = {
    "sk_torchmf": System(
        "sk_torchmf",
        "ours",
        (),
        "n_factors",
        "max_iter",
        {"Biased, defaults": {}, "plain, defaults": {"model": "MatrixFactorization"}, "Biased, k=64": {"n_factors": 64}},
        {"n_factors": 64},
        {},
        (2, 3, 4, 6, 8, 10, 15, 20),
    ),
    "cmfrec": System(
        "cmfrec ALS",
        "cmfrec_als",
        ("cmfrec", "threadpoolctl"),  # which it imports and does not ask for
        "k",
        "niter",
        {"k=64, 10 iterations": {"k": 64, "niter": 10}},
        {"k": 64},
        [
            {"niter": [5, 10, 15], "lambda_": [5.0, 10.0, 20.0, 40.0]},
            {"niter": [10], "lambda_": [0.05, 0.1, 0.15], "scale_lam": [True]},
        ],
        (1, 2, 3, 5, 10, 15),
    ),
    "cornac": System(
        "Cornac MF",
        "cornac_mf",
        ("cornac",),
        "k",
        "max_iter",
        {"k=64, 30 epochs": {"k": 64, "max_iter": 30, "learning_rate": 0.01, "lambda_reg": 0.05}},
        {"k": 64},
        {"max_iter": [30, 50, 80], "learning_rate": [0.005, 0.01], "lambda_reg": [0.02, 0.04, 0.06, 0.08]},
        (5, 10, 20, 30, 45, 60),
    ),
    "libmf": System(
        "LibMF",
        "libmf",
        (),
        "k",
        "n_iter",
        {},
        {"k": 64},
        {"n_iter": [20, 40], "learning_rate": [0.05, 0.1], "l2": [0.03, 0.05, 0.07, 0.1]},
        (5, 10, 20, 30, 40),
    ),
    "lenskit": System(
        "LensKit ALS",
        "lenskit_als",
        ("lenskit",),
        "embedding_size",
        "epochs",
        {},
        {"embedding_size": 64},
        {"epochs": [5, 10], "regularization": [0.05, 0.1, 0.15]},
        (2, 4, 7, 10),
        torch=True,
    ),
    "surprise": System(
        "Surprise SVD",
        "surprise_svd",
        ("scikit-surprise",),
        "n_factors",
        "n_epochs",
        {"defaults": {}},
        {"n_factors": 64},
        {"n_epochs": [20, 40], "lr_all": [0.01], "reg_all": [0.07, 0.1, 0.13]},
        (5, 20, 40),
        slow=True,
    ),
    "myfm": System(
        "myFM",
        "myfm_gibbs",
        ("myfm",),
        "rank",
        "n_iter",
        {"rank=32, 100 sweeps": {"rank": 32, "n_iter": 100}},
        {"rank": 32, "n_iter": 100},
        {},
        (10, 30, 100),
        slow=True,
    ),
    "skorch": System(
        "skorch",
        "skorch_mf",
        ("skorch",),
        "k",
        "max_epochs",
        {},
        {"k": 64, "batch_size": 4096},
        {"max_epochs": [4], "lr": [0.005, 0.02], "weight_decay": [0.1, 0.5]},
        (1, 2),
        torch=True,
        slow=True,
    ),
    "spotlight": System(
        "Spotlight",
        "spotlight_mf",
        ("numpy", "scipy", "scikit-learn"),
        "embedding_dim",
        "n_iter",
        {},
        {"embedding_dim": 64, "batch_size": 4096},
        {"n_iter": [10], "learning_rate": [0.003, 0.01], "l2": [0.0, 1e-5]},
        (1, 2, 4),
        torch=True,
        slow=True,
    ),
    "implicit": System(
        "implicit ALS", "implicit_als", ("implicit",), "factors", "iterations", {}, {"factors": 64}, {}, (), ranking=True
    ),
    "lightfm": System("LightFM WARP", "lightfm_warp", ("lightfm-next",), "k", "epochs", {}, {"k": 64}, {}, (), ranking=True),
}


def install(name, folder, torch):
    """Make a system's environment, or find the one made before.

    Parameters
    ----------
    name : str
        A key of ``SYSTEMS``.
    folder : Path
        Of all environments.
    torch : str
        The requirement for those that need torch.

    Returns
    -------
    Path
        Its Python.

    Raises
    ------
    RuntimeError
        Where pip or the system's import fails, with the last line that was said.
    """
    system, home = SYSTEMS[name], folder / name
    if not system.needs:
        return Path(sys.executable)
    scripts, ready = home / ("Scripts" if sys.platform == "win32" else "bin"), home / "ready"
    python = scripts / "python"
    wanted = "\n".join([*system.needs, torch if system.torch else ""])
    if ready.exists() and ready.read_text() == wanted:
        return python
    venv.create(home, clear=True, with_pip=True)
    pip = [python, "-m", "pip", "install", "-q"]
    if system.torch:
        cpu = [] if shutil.which("nvidia-smi") else [["--index-url", TORCH_CPU, "--timeout", "10", "--retries", "0"]]
        for options in (["--no-index", "--no-deps"], *cpu, []):  # a wheel pip has been told of, the CPU build, PyPI's
            torch_result = subprocess.run([*pip, *options, torch], capture_output=True, text=True)
            if torch_result.returncode == 0:
                break
    result = subprocess.run([*pip, *system.needs, *([torch] if system.torch else [])], capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(last_line(result.stderr))
    ready.write_text(wanted)
    return python


def last_line(text):
    """The last line that says something."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no message")
