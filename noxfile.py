"""What can be run: ``nox -l`` lists it, ``nox`` runs tests and lint. Requirements come from pyproject.toml, but for torch."""

import os
import re
import shutil
import sys
import zipfile
from pathlib import Path

import nox
from packaging.requirements import Requirement

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["tests", "lint"]
nox.options.reuse_venv = "yes"

PROJECT = nox.project.load_toml("pyproject.toml")
LOWEST_PYTHON = PROJECT["project"]["requires-python"].removeprefix(">=")
PYTHONS = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["project"]["classifiers"]))
TORCH = "torch==2.13.0"
QUICK = "--no-compile"  # of pip: Python compiles a module when it is imported
PASSIVE = {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE")}  # spinning threads crawl on a busy machine
TORCH_CPU = "https://download.pytorch.org/whl/cpu"
WHEEL_BYTES = 600_000  # at most: it is Python with its docstrings, and the kernels
MOVIELENS_FILES = "ml-100k.inter", "ml-100k.item", "ml-100k.user"
MOVIELENS = "recbole==1.2.1", "recbole/dataset_example/ml-100k/", MOVIELENS_FILES  # 2 MB, and on PyPI


def groups(*names):
    """Requirements of dependency groups."""
    return nox.project.dependency_groups(PROJECT, *names)


def oldest_versions():
    """The least version that pyproject.toml allows of what the package needs and may use, by name."""
    optional = PROJECT["project"]["optional-dependencies"]["files"]  # a newer pyarrow wants a newer NumPy
    needs = map(Requirement, [*PROJECT["project"]["dependencies"], *optional])
    return {need.name: next(bound.version for bound in need.specifier if bound.operator == ">=") for need in needs}


def install_torch(session, torch=TORCH, *options):
    """Install torch ahead of all else: a wheel that pip has been told of, else the CPU build where there is no GPU, else PyPI's.

    What torch needs comes with the next ``session.install``, which sees that it is missing.
    """

    def succeeds(*args):
        pip = ("python", "-m", "pip", "install", "-q", "--no-deps", *options, *args, torch)
        return "ERROR" not in (session.run_install(*pip, success_codes=[0, 1], silent=True) or "")

    cpu_build = sys.platform in ("linux", "win32") and shutil.which("nvidia-smi") is None
    if not succeeds("--no-index") and not (cpu_build and succeeds("--index-url", TORCH_CPU, "--timeout", "10", "--retries", "0")):
        session.install(torch)


def install_quickly(session, *more):
    """Install the package and more with less to wait for: the package is built right here."""
    install_torch(session, TORCH, QUICK)
    session.install(QUICK, *PROJECT["build-system"]["requires"], *PROJECT["project"]["dependencies"], *more)
    session.install(QUICK, "--no-deps", "--no-build-isolation", ".")


@nox.session
def tests(session):
    """Run the tests, on MovieLens-100K too, and the docstrings' examples; arguments go to pytest: nox -s tests -- -k fold_in."""
    install_torch(session, TORCH, QUICK)
    session.install(QUICK, "-e", ".", *groups("test"))
    _, path = movielens(session) or (None, "")  # empty where there is no download: its test is skipped
    by_file = "--dist", "loadfile"  # what a file's tests share, processes above all, is made by one worker alone
    workers = () if session.posargs else ("-n", str(min(os.cpu_count() or 1, 4)), *by_file)
    threads = {"OMP_NUM_THREADS": "1"} if workers else {}
    session.run("pytest", *workers, *session.posargs, env=PASSIVE | threads | {"SK_TORCHMF_ML100K": path})


@nox.session
def fuzz(session):
    """Put random inputs in, on all cores, and list all that is neither an answer nor refused with words: nox -s fuzz -- 10000."""
    install_torch(session, TORCH, QUICK)
    session.install(QUICK, "-e", ".", *groups("test"))
    session.run("python", "tests/fuzz.py", *session.posargs, env=PASSIVE | {"OMP_NUM_THREADS": "1"})


@nox.session
def soak(session):
    """See whether memory stays flat over 1,000 fits and 100,000 predictions in one process."""
    install_torch(session, TORCH, QUICK)
    session.install(QUICK, "-e", ".", *groups("test"))
    session.run("python", "tests/soak.py", *session.posargs, env=PASSIVE | {"OMP_NUM_THREADS": "1"})


@nox.session
def lint(session):
    """Check style, format, types and that imports go downward only."""
    install_torch(session, TORCH, QUICK)
    session.install(QUICK, "-e", ".", *groups("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")
    session.run("lint-imports")


@nox.session(python=LOWEST_PYTHON)
def lowest(session):
    """Run the tests on the oldest versions that pyproject.toml allows; the oldest torch too with: nox -s lowest -- --torch."""
    oldest = oldest_versions()
    torch = f"torch=={oldest.pop('torch')}"
    posargs = [argument for argument in session.posargs if argument != "--torch"]
    install_torch(session, TORCH if posargs == session.posargs else torch)
    session.install("-e", ".", *groups("test"), *(f"{name}=={version}" for name, version in oldest.items()))
    session.run("pytest", *posargs, env=PASSIVE)


@nox.session
def wheel(session):
    """Build the source archive and the wheels, with compiled kernels and without, into dist/; check them and their size."""
    session.install(*groups("release"))
    shutil.rmtree("dist", ignore_errors=True)
    session.run("python", "-m", "build", silent=True)
    session.run("python", "-m", "build", "--wheel", silent=True, env={"SK_TORCHMF_KERNELS": "torch"})
    archives = sorted(Path("dist").iterdir())
    session.run("python", "-m", "twine", "check", "--strict", *map(str, archives))
    for path in archives:
        session.log(f"{path}: {path.stat().st_size:,} bytes")
        if path.suffix == ".whl" and path.stat().st_size > WHEEL_BYTES:
            session.error(f"A wheel must have at most {WHEEL_BYTES:,} bytes, and {path} has more.")
    if not any(path.name.endswith("-py3-none-any.whl") for path in archives):
        session.error("The wheel without compiled kernels should be pure Python, py3-none-any.")


@nox.session
@nox.parametrize("python,versions", [(LOWEST_PYTHON, "oldest"), *((python, "newest") for python in PYTHONS)])
def installed(session, versions):
    """Use a wheel of dist/ in an environment of nothing else, on old and new versions; of torch too with: -- --torch."""
    wheels = sorted(Path("dist").resolve().glob("*.whl"), key=lambda path: "none-any" in path.name)  # the compiled one first
    if not wheels:
        session.error("There is no wheel in dist/. Build it first: nox -s wheel")
    oldest = {name: f"{name}=={version}" for name, version in oldest_versions().items()} if versions == "oldest" else {}
    install_torch(session, oldest.get("torch", "torch") if "--torch" in session.posargs else TORCH)
    session.install(str(wheels[0]), *(oldest[name] for name in oldest.keys() & {"numpy", "scipy", "scikit-learn"}))
    use = "python", str(Path("tests", "smoke.py").resolve())
    env = PASSIVE | {"PYTHONPATH": str(Path("tests", "shared").resolve())}
    session.chdir(session.create_tmp())  # away from the sources
    session.install("--force-reinstall", "--no-deps", str(wheels[0]))  # pip keeps one of the same version that was there
    session.run(*use, env=env)
    session.install("--force-reinstall", "--no-deps", str(wheels[-1]))  # pure Python
    (pandas,) = (need for need in groups("test") if need.startswith("pandas"))
    session.install(pandas.replace(">=", "==") if oldest else pandas)
    session.run(*use, "--readme", env=env)


@nox.session
def spotlight(session):
    """Run the tests against a checkout of the real Spotlight: nox -s spotlight -- PATH, or its path in SK_TORCHMF_SPOTLIGHT."""
    path, *posargs = session.posargs or [os.environ.get("SK_TORCHMF_SPOTLIGHT", "")]
    if not path:
        session.skip("the tests with Spotlight: no checkout was given. Pass its path: nox -s spotlight -- PATH")
    if not (Path(path) / "spotlight" / "interactions.py").exists():
        session.error(f"{path} is no checkout of Spotlight (github.com/maciejkula/spotlight): it has no spotlight/interactions.py")
    install_torch(session, TORCH, QUICK)
    session.install(QUICK, "-e", ".", *groups("test"))
    tests = "tests/spotlight", "tests/product/test_migration.py"
    session.run("pytest", *tests, *posargs, env=PASSIVE | {"SK_TORCHMF_SPOTLIGHT": str(Path(path).resolve())})


@nox.session
def docs(session):
    """Build docs/_build/html, examples run, links checked, warnings errors; without the examples: nox -s docs -- --no-examples."""
    install_torch(session, TORCH, QUICK)
    session.install(QUICK, "-e", ".", *groups("docs"))
    _, path = movielens(session) or (None, "")
    options = ["-D", "plot_gallery=0"] if "--no-examples" in session.posargs else []
    build = ("sphinx-build", "-W", "--keep-going", "-j", "auto", "-b", "html", *options, "docs", "docs/_build/html")
    session.run(*build, env=PASSIVE | {"SK_TORCHMF_ML100K": path})
    session.run("python", "docs/check_links.py", "docs/_build/html")


@nox.session
def demo(session):
    """Tune, compare, recommend, and write a page about it, on MovieLens-100K or any ratings file: nox -s demo -- --ratings FILE."""
    install_quickly(session, *groups("demo"))
    given = any(argument.startswith("--ratings") for argument in session.posargs)
    ratings = [] if given else movielens(session)
    session.run("python", "docs/examples/demo.py", *ratings, *session.posargs, env=PASSIVE)


@nox.session
def bench(session):
    """Time other factorizations beside ours, see docs/benchmarks/README.md; two minutes of it with: nox -s bench -- --quick."""
    install_quickly(session, *PROJECT["project"]["optional-dependencies"]["plots"])
    session.run("python", "docs/benchmarks/peers.py", "--envs", str(Path(session.cache_dir) / "bench"), *session.posargs)


def movielens(session):
    """MovieLens-100K out of a small wheel that carries it, as the demo's arguments; none, and the demo asks GroupLens."""
    wheel, folder, names = MOVIELENS
    here = Path(session.cache_dir).resolve()
    if not all((here / name).exists() for name in names):
        session.run("python", "-m", "pip", "download", "-q", "--no-deps", "--dest", str(here), wheel, success_codes=[0, 1])
        for path in here.glob("recbole-*.whl"):
            with zipfile.ZipFile(path) as archive:
                for name in names:
                    (here / name).write_bytes(archive.read(folder + name))
    ratings = here / names[0]
    return ["--ratings", str(ratings)] if ratings.exists() else []
