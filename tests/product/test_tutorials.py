"""The tutorials run as they stand, one after the other in one folder; their service is asked over HTTP, its workers forked."""

import contextlib
import io
import json
import os
import re
import runpy
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from sk_torchmf import BiasedMatrixFactorization

FOLDER = Path(__file__).parents[2] / "docs" / "tutorials"
SCRIPTS = "service.py", "recommend_all.py"
needs_shell = pytest.mark.skipif(sys.platform == "win32", reason="the commands are those of a POSIX shell")

if not FOLDER.exists():
    pytest.skip("the documentation is not in the source archive", allow_module_level=True)
pd = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")


def blocks(name, language):
    page = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


def commands(name):
    """The commands of a page's consoles, each with the text that the page shows below it."""
    parts = (part for block in blocks(name, "console") for part in block.removeprefix("$ ").split("\n$ "))
    return [(command, shown.strip()) for command, _, shown in (part.partition("\n") for part in parts)]


def run_page(name, folder):
    """Run the Python of a page in a folder, warnings being errors: the names that it leaves, and as ``printed`` what it prints."""
    names, before, threads, printed = {"__name__": "docs"}, Path.cwd(), torch.get_num_threads(), io.StringIO()
    os.chdir(folder)
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(printed):
            warnings.simplefilter("error")
            for block in blocks(name, "python"):
                exec(compile(block, f"{name}.md", "exec"), names)
    finally:
        os.chdir(before)
        torch.set_num_threads(threads)
    return names | {"printed": printed.getvalue()}


def assert_prints(name, printed):
    """Each text that a page shows is in what its Python prints; numbers to a hundredth, since they are rounded."""
    number = re.compile(r"\d+(?:\.\d*)?")

    def parts(line):
        return number.sub("#", line), [float(one) for one in number.findall(line)]

    shown, lines = "".join(blocks(name, "text")).splitlines(), [parts(line) for line in printed.splitlines()]
    assert shown
    for line in shown:
        words, numbers = parts(line)
        assert any(words == own and numbers == pytest.approx(values, abs=0.01) for own, values in lines), line


def environment(**more):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    python_path = os.pathsep.join(filter(None, sys.path))
    return os.environ | {"OMP_NUM_THREADS": "1", "PATH": path, "PYTHONPATH": python_path} | more


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the reader works: the scripts are there, as the pages say."""
    folder = tmp_path_factory.mktemp("tutorials")
    for script in SCRIPTS:
        shutil.copy(FOLDER / script, folder)
    return folder


@pytest.fixture(scope="module")
def names(folder):
    """What the first page has left, its files being in the folder."""
    return run_page("from_a_file", folder)


@pytest.fixture(scope="module")
def model(folder, names):
    return BiasedMatrixFactorization.load(folder / "shop" / "model")


# from a file


def last_reviews(path):
    """For each customer and product the last stars of a file, by a plain loop."""
    last = {}
    with path.open(encoding="utf-8") as lines:
        next(lines)
        for line in lines:
            customer, product, stars, time = line.rstrip("\n").split(",")
            if customer and stars and time > last.get((customer, product), ("", 0))[0]:
                last[customer, product] = time, float(stars)
    return {pair: stars for pair, (_, stars) in last.items()}


def test_csv_parquet_and_a_database_give_the_same_reviews(folder, names):
    expected = last_reviews(folder / "shop" / "reviews.csv")
    of_database, of_csv = names["reviews"], names["cleaned"](pd.read_csv(folder / "shop" / "reviews.csv", dtype=str))
    of_parquet = names["cleaned"](pd.read_parquet(folder / "shop" / "reviews.parquet"))
    for found in (of_database, of_csv, of_parquet):
        pairs = zip(found["customer"], found["product"], strict=True)
        assert dict(zip(pairs, found["stars"].astype(float), strict=True)) == expected
        assert found["reviewed_at"].is_monotonic_increasing


def test_the_model_of_the_past_is_better_than_the_baselines_as_the_page_says(names):
    errors = [names["rmse"](names[guess]) for guess in ("mean", "of_products", "expected")]
    assert errors[0] > errors[1] > errors[2] > 0.7  # the planted noise, that of rounding to stars beside it
    assert names["train"]["reviewed_at"].max() < names["test"]["reviewed_at"].min()
    assert_prints("from_a_file", names["printed"])
    assert names["within"].mean() == pytest.approx(0.8, abs=0.05)


def test_the_saved_model_knows_ids_as_text(model):
    assert {"00042", "00007"} <= set(model.users_)
    assert model.clip
    assert model.item_feature_shares_["price"] > 0.1  # the planted appeal, of which prices are made


# the service


@pytest.fixture(scope="module")
def client(folder, model):
    """FastAPI's test client of the service, in this process."""
    pytest.importorskip("fastapi")
    pytest.importorskip("httpx2")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        names = run_page("service", folder)
    del sys.modules["service"]
    return names["client"]


@pytest.fixture
def scores(model):
    """Expected stars (n_users, n_items), by hand."""
    scores = model.user_factors_ @ model.item_factors_.T + model.user_biases_[:, None] + model.item_biases_ + model.global_mean_
    return pd.DataFrame(np.clip(scores, 1, 5), model.users_, model.items_)


def test_the_service_predicts_what_the_factors_say(client, model, scores):
    answer = client.post("/predictions", json={"customer": "00007", "products": ["00012", "00299", "00012"]}).json()
    np.testing.assert_allclose(answer["stars"], scores.loc["00007", ["00012", "00299", "00012"]], rtol=1e-5)
    np.testing.assert_allclose(answer["std"], model.predict("00007", ["00012", "00299", "00012"], return_std=True)[1])


def test_the_service_recommends_the_best_of_what_a_customer_has_not_reviewed(client, model, scores):
    row = model.users_.searchsorted("00007")
    new = scores.loc["00007"].drop(model.items_[model.seen_[[row]].indices]).sort_values(ascending=False)
    answer = client.get("/customers/00007/recommendations", params={"k": 100}).json()
    np.testing.assert_allclose(answer["stars"], new[:100], rtol=1e-5)
    assert set(answer["products"][:50]) <= set(new[:60].index)  # those at five stars are in the order before the limit
    assert len(client.get("/customers/00007/recommendations").json()["products"]) == 10


def test_a_customer_for_whom_less_remains_gets_less(client, model):
    busiest = model.users_[np.argmax(model.user_counts_)]
    remain = model.n_items_ - int(model.user_counts_.max())
    assert remain < 100
    answer = client.get(f"/customers/{busiest}/recommendations", params={"k": 100}).json()
    assert len(answer["products"]) == len(answer["stars"]) == remain


def test_a_new_customer_is_folded_in(client, model):
    stars = {"00012": 5, "00107": 1.5}
    row = np.zeros((1, model.n_items_))
    row[0, model.items_.searchsorted(list(stars))] = list(stars.values())
    expected = pd.Series(model.predict(sp.csr_array(row))[0], model.items_).drop(list(stars))
    answer = client.post("/recommendations", params={"k": 3}, json=stars).json()
    assert answer["products"] == expected.nlargest(3).index.tolist()
    np.testing.assert_allclose(answer["stars"], expected.nlargest(3))
    nobody = client.post("/recommendations", params={"k": 3}, json={}).json()
    average = pd.Series(model.predict("nobody", model.items_), model.items_)
    np.testing.assert_allclose(nobody["stars"], average.nlargest(3), rtol=1e-5)


@pytest.mark.parametrize("known", [{"price": 12.5, "tags": ["sweet", "never seen"]}, {"tags": ["salty"]}, {"price": 0.5}, {}])
def test_a_new_product_is_predicted_from_what_is_known_of_it(client, model, known):
    table = pd.DataFrame({"item": ["x"], "price": [known.get("price", np.nan)], "tags": [known.get("tags", [])]})
    expected, std = model.predict(["00007", "00042"], ["x", "x"], item_features=table, return_std=True)
    answer = client.post("/predictions/new", json={"customers": ["00007", "00042"], **known}).json()
    np.testing.assert_allclose([answer["stars"], answer["std"]], [expected, std])


WRONG = {
    "an unknown customer": ("/customers/nobody/recommendations", None, 404, "Unknown customer: 'nobody'"),
    "no products asked for": ("/customers/00007/recommendations?k=0", None, 422, "greater than or equal to 1"),
    "too many products asked for": ("/customers/00007/recommendations?k=101", None, 422, "less than or equal to 100"),
    "an unknown customer in a body": ("/predictions", {"customer": "x", "products": ["00012"]}, 422, "Unknown customers: ['x']."),
    "unknown products": ("/predictions", {"customer": "00007", "products": ["a", "00012", "b"]}, 422, "products: ['a', 'b']."),
    "no products": ("/predictions", {"customer": "00007", "products": []}, 422, "at least 1 item"),
    "a number for an id": ("/predictions", {"customer": 7, "products": ["00012"]}, 422, "valid string"),
    "stars that do not exist": ("/recommendations", {"00012": 6}, 422, "less than or equal to 5"),
    "stars of an unknown product": ("/recommendations", {"tea": 5}, 422, "Unknown products: ['tea']."),
    "a price that is none": ("/predictions/new", {"customers": ["00007"], "price": "low"}, 422, "valid number"),
    "a price beyond all": ("/predictions/new", {"customers": ["00007"], "price": 1e300}, 422, "less than or equal"),
    "an unknown customer of a new product": ("/predictions/new", {"customers": ["x"]}, 422, "Unknown customers: ['x']."),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said_in_words(client, what):
    address, sent, status, words = WRONG[what]
    answer = client.get(address) if sent is None else client.post(address, json=sent)
    assert answer.status_code == status
    assert words in str(answer.json()["detail"])


@pytest.fixture(scope="module", params=["uvicorn", "gunicorn"])
def server(request, folder, model):
    """The address of the service, started by a command of the page, and what the command has written."""
    for package in ("fastapi", "httpx2", "uvicorn", *(["uvicorn_worker"] if request.param == "gunicorn" else [])):
        pytest.importorskip(package)
    pytest.importorskip(request.param)
    (command,) = [command for command, _ in commands("service") if command.startswith(request.param)]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    address = f"localhost:{port}"
    arguments = shlex.split(command.replace("localhost:8000", address))[1:]
    arguments += ["--port", str(port)] if request.param == "uvicorn" else []
    log = folder / f"{request.param}.log"
    with log.open("w") as written:
        process = subprocess.Popen(
            [sys.executable, "-m", request.param, *arguments],
            cwd=folder,
            env=environment(HOME=str(folder), OMP_NUM_THREADS="2"),
            stdout=written,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_for_workers(2, process, log)
        yield address, log
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def wait_for_workers(n, process, log):
    """Wait until a server has written that so many of its workers are ready."""
    until, ready = time.monotonic() + 300, 0
    while ready < n and time.monotonic() < until and process.poll() is None:
        time.sleep(0.1)
        ready = log.read_text().count("Application startup complete")
    assert ready >= n, log.read_text()


def ask(command, client):
    """What curl is told to, by a client whose base is the service."""
    words = shlex.split(command)[1:]
    sent = json.loads(words[words.index("--json") + 1]) if "--json" in words else None
    answer = client.request("GET" if sent is None else "POST", words[0].removeprefix("localhost:8000"), json=sent)
    return answer.status_code, answer.json()


def assert_alike(found, shown, tolerance):
    """Words are the same and numbers nearly so; of products, which may change places, there are as many."""
    assert found.keys() == shown.keys()
    for name, value in shown.items():
        if name in ("stars", "std"):
            assert found[name] == pytest.approx(value, abs=tolerance)
        elif name == "products" and isinstance(value, list):
            assert len(found[name]) == len(value)
        else:
            assert found[name] == value


@needs_shell
def test_two_workers_answer_as_the_page_shows_and_as_one_process_does(server, client):
    import httpx2

    address, log = server
    asked, shown = zip(*(pair for pair in commands("service") if pair[0].startswith("curl")), strict=True)
    assert len(asked) >= 6
    with httpx2.Client(base_url=f"http://{address}", timeout=60) as http, ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda command: ask(command, http), asked * 4))  # at once, so that both workers have some
    for command, text, (status, answer) in zip(asked * 4, shown * 4, answers, strict=True):
        assert_alike(answer, json.loads(text), tolerance=0.1)
        own_status, own = ask(command, client)
        assert status == own_status
        assert_alike(answer, own, tolerance=1e-5)
    assert "Traceback" not in log.read_text()


# the job


@needs_shell
def test_the_job_does_what_its_page_shows(folder, model):
    for command, shown in commands("batch"):
        both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        done = subprocess.run(["bash", "-c", command], cwd=folder, env=environment(), timeout=300, check=False, **both)
        assert done.stdout.strip() == shown
        assert (done.returncode == 0) == ("no_such" not in command)
    best = run_page("batch", folder)["best"]
    items, scores = model.recommend(k=5)
    there = np.isfinite(scores)
    assert best["user"].tolist() == np.repeat(model.users_, there.sum(axis=1)).tolist()
    assert best["item"].tolist() == items[there].tolist()
    np.testing.assert_allclose(best["score"], scores[there], rtol=1e-5)
    stock = pd.read_parquet(folder / "shop" / "stock.parquet")
    assert set(stock["item"]) == {"00012", "00107"}
    seen = model.seen_[:, model.items_.searchsorted(["00012", "00107"])]
    assert len(stock) == 2 * model.n_users_ - seen.nnz


def test_a_bar_is_shown_where_it_is_asked_for_and_what_fails_leaves_the_file_as_it_was(folder, model, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    output = Path("one.parquet")

    def job(*options):
        monkeypatch.setattr(sys, "argv", ["recommend_all.py", "shop/model", str(output), *options])
        runpy.run_path("recommend_all.py", run_name="__main__")

    job("-k", "1", "--progress")
    assert "100%" in capsys.readouterr().err
    before = output.read_bytes()
    Path("none.txt").write_text("tea\n", encoding="utf-8")
    for options, words in ((("-k", "0"), "k must be an int >= 1"), (("--products", "none.txt"), "no product that the model knows")):
        with pytest.raises(SystemExit, match=r"^1$"):
            job(*options)
        assert words in capsys.readouterr().err
    assert output.read_bytes() == before


# from a matrix


def test_a_search_over_a_pipeline_finds_the_planted_model(folder):
    names = run_page("from_arrays", folder)
    assert names["search"].best_params_["model__n_factors"] == 8  # as many as were planted
    assert names["search"].best_score_ > 0.5
    assert_prints("from_arrays", names["printed"])
    assert names["model"].item_counts_[290:].max() == 0
    shares = names["model"].item_feature_shares_
    assert shares["genre"] > 10 * shares["minutes"]  # a planted factor, and nothing
    assert names["expected"].shape == (2, 300)
