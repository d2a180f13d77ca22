"""Random inputs give finite answers of the documented shape, or are refused with words; and the oracle sees what must not be."""

import tempfile

import pytest
from fuzz_cases import ESTIMATORS, cases
from fuzz_oracle import IMPORTS, Case, Finding, Step, run
from hypothesis import HealthCheck, Phase, assume, given, settings
from sklearn.utils.fixes import parse_version, sp_version

N = 100  # cases of an estimator, the same ones every time; other and more of them: nox -s fuzz
pytestmark = pytest.mark.usefixtures("one_thread", "own_folder")

DATA = "X, y = np.array([[0, 0], [0, 1], [1, 0], [1, 1], [2, 0]]), np.array([1.0, 2.0, 3.0, 4.0, 5.0])"
MODEL = "model = {}(n_factors=2, max_iter=2, random_state=0)"
WRONG = """\
class Wrong(MatrixFactorization):
    def predict(self, user_ids, item_ids=None):
        {}
"""


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.mark.skipif(sp_version < parse_version("1.15"), reason="cases are written in the words of newer libraries")
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_random_cases_are_answered_or_refused_with_words(estimator):
    verdicts = []

    @settings(
        max_examples=N,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases((estimator,)))
    def take(case):
        outcome = run(case)
        assume(outcome.verdict != "not made")
        verdicts.append(outcome.verdict)
        if outcome.finding is not None:
            found = outcome.finding
            raise AssertionError(f"{found.kind}\n{found.message}\n\n{IMPORTS}\n{found.script}")

    take()
    assert verdicts.count("answered") > N / 4  # the strategy asks for what there is an answer to


def judged(*steps, given=(DATA,), limit=20.0):
    steps = [step if isinstance(step, Step) else Step(step, makes=step.startswith("model = ")) for step in steps]
    return run(Case("", given, tuple(steps)), limit)


def wrong(body, *steps):
    return judged(MODEL.format("Wrong"), Step("model.fit(X, y)", fits=True), *steps, given=(WRONG.format(body), DATA))


FIT = MODEL.format("MatrixFactorization"), Step("model.fit(X, y)", fits=True)


def test_an_answer_is_an_answer_and_a_refusal_a_refusal():
    assert judged(*FIT, Step("model.predict(X)", "(5,)"), Step("model.recommend([0], 3)", "[(1, 3)] * 2")).verdict == "answered"
    refused = judged(FIT[0], Step("model.fit(X, y[:2])", fits=True))
    assert (refused.verdict, refused.finding) == ("refused", None)
    assert refused.refusals[0].startswith("ValueError: y must have one value for each observation")
    assert judged("model = MatrixFactorization(alpa=1)").refusals[0].startswith("TypeError: ")
    asked = judged(*FIT, "model.predict([0])", "model.predict(0)")
    assert asked.verdict == "answered"
    assert len(asked.refusals) == 1
    assert judged(FIT[0], given=("X = no_such_thing",)).verdict == "not made"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("raise KeyError('a')", "KeyError at no line of ours"),
        ("raise ValueError('words, but not of this package')", "ValueError at no line of ours"),
        ("return Interactions([0], [0])[np.array([[0]])]", "IndexError at interactions.py:"),
        ("return super().predict(user_ids, item_ids) + np.float64(1) / np.zeros(5)", "RuntimeWarning at "),
        ("return np.full(5, np.nan)", "Wrong.predict is not finite"),
        ("return np.full(5, np.inf)", "Wrong.predict is not finite"),
        ("return np.zeros(4)", "Wrong.predict has another shape"),
        ("user_ids[0] = 1; return np.zeros(5)", "predict changes X"),
        ("np.random.random(); return np.zeros(5)", "predict changes the world"),
        ("random.random(); return np.zeros(5)", "predict changes the world"),
        ("torch.set_num_threads(2); return np.zeros(5)", "predict changes the world"),
        ("self.alpha = 3; return np.zeros(5)", "predict changes "),
        ("self.item_factors_[0] = 3; return np.zeros(5)", "predict changes model"),
        ("while True: user_ids", "longer than the limit"),
    ],
)
def test_the_oracle_sees_what_must_not_be(body, kind):
    given = WRONG.format(body), DATA
    steps = MODEL.format("Wrong"), Step("model.fit(X, y)", fits=True), "model.embeddings()", Step("model.predict(X)", "(5,)")
    found = judged(*steps, given=given, limit=2.0).finding
    assert isinstance(found, Finding)
    assert found.kind.startswith(kind)
    assert found.script.splitlines()[-3:] == [MODEL.format("Wrong"), "model.fit(X, y)", "model.predict(X)"]


def test_the_oracle_sees_what_a_fit_leaves():
    body = WRONG.replace("predict(self, user_ids, item_ids=None)", "fit(self, X, y)")
    for line, kind in {
        "self.users_ = 0; raise sk_torchmf.DivergenceError('three words long')": "DivergenceError at no line of ours",
        "self.users_ = 0; super().fit(X, y[:2])": "fit changes model [\"'users_'\"], though it refuses",
        "super().fit(X, y); self.history_['loss'].append(np.inf)": "Wrong.fit leaves ['history_'] not finite",
    }.items():
        given = "import sk_torchmf\n" + body.format(line), DATA
        found = judged(MODEL.format("Wrong"), Step("model.fit(X, y)", fits=True), given=given).finding
        assert found.kind == kind


def test_a_list_may_end_in_minus_infinity_where_no_item_is_left():
    assert judged(*FIT, "model.recommend([0], 50)").verdict == "answered"
    given = WRONG.replace("predict", "recommend").format("return np.array([[0, 1]]), np.array([[1.0, -np.inf]])"), DATA
    found = judged(MODEL.format("Wrong"), Step("model.fit(X, y)", fits=True), "model.recommend([0])", given=given).finding
    assert found.kind == "Wrong.recommend is not finite"
