"""A hypothesis strategy of cases for the fuzz test: an estimator, its parameters, data in some form, and calls after the fit."""

from string import Template

import fuzz_values as values
from fuzz_oracle import Case, Step
from hypothesis import strategies as st

ESTIMATORS = "MatrixFactorization", "BiasedMatrixFactorization", "ImplicitMatrixFactorization", "TorchFactorization"
ASPECTS = "parameter", "rating", "weight", "label", "form", "call", "size", "number"
COMMON = {
    "early_stopping": ("True", "np.True_"),
    "validation_fraction": ("0.5", "0.99", "1e-9", "np.float32(0.3)"),
    "n_iter_no_change": ("1", "2", "np.uint8(1)"),
    "refit": ("False",),
    "scoring": ("'r2'", "'neg_mean_squared_error'", "ranking_scorer('ndcg', k=2)", "lambda model, X, y=None: 0.5", "'neg_median_absolute_error'"),
    "tol": ("0", "0.1", "1e300", "np.float16(0.1)", "1e-300"),
    "handle_unknown": ("'nan'", "'error'"),
    "dtype": ("'float64'",),
    "device": ("'cpu'", "torch.device('cpu')"),
    "warm_start": ("True",),
    "random_state": ("None", "np.int64(3)", "np.random.RandomState(0)", "2**32 - 1", "np.uint8(1)"),
    "verbose": ("1", "True"),
}
OF_FACTORS = {"n_factors": ("1", "3", "20", "np.int8(2)", "np.uint64(2)", "True"), "max_iter": ("1", "2", "4", "30", "np.uint8(3)")}
SOLVERS = "variational", "als", "adam", "adagrad", "sgd", "lbfgs"
LOSSES = "squared_error", "huber", "poisson", "logistic"
OF_RATINGS = {
    "alpha": ("0", "0.0", "1e-300", "1e-30", "1e30", "1e300", "1", "np.float16(0.1)", "np.float32(0.1)", "np.int8(1)", "np.bool_(True)"),
    "learning_rate": ("1e-300", "1e-3", "0.1", "1", "1e3", "1e30", "1e300", "np.float16(0.1)"),
    "batch_size": ("1", "5", "10**9", "2**62", "np.uint8(7)"),
    "clip": ("True", "np.True_"),
}
RANKING = "ials", "logistic", "bpr", "hinge", "adaptive_hinge", "softmax"
OF_POSITIVES = {
    "biased": ("True",),
    "alpha": OF_RATINGS["alpha"],
    "confidence": ("1e-300", "1e-30", "0.1", "10", "1e30", "1e300", "np.float16(2)", "np.uint8(3)"),
    "n_negatives": ("1", "30", "np.int8(3)"),
    "negatives": ("'popularity'",),
    "temperature": ("0.1", "1e-6", "1e6", "1e-300", "1e300", "1", "np.float16(0.1)"),
    "exact": ("True", "False"),
}
MODULES = {
    "nn.BiasedMF": {"n_factors": ("2", "np.int8(2)"), "mean": ("3.0",)},
    "nn.PlainMF": {"n_factors": ("2",)},
    "Embedded": {"n_factors": ("1", "3")},
    "Sparse": {},
}
MODULE = """\
class {name}(torch.nn.Module):
    def __init__(self, n_users, n_items, n_factors=2):
        super().__init__()
        self.user_factors = torch.nn.Embedding(n_users, n_factors, sparse={sparse})
        self.item_factors = torch.nn.Embedding(n_items, n_factors, sparse={sparse})
    def forward(self, user, item):
        return (self.user_factors(user) * self.item_factors(item)).sum(1)
"""
OF_A_MODULE = {
    "scheduler": ("'StepLR', scheduler__step_size=1", "'ReduceLROnPlateau'", "'ExponentialLR', scheduler__gamma=0.5"),
    "parameter_options": ("{'user*': {'lr': 0.01}}",),
    "n_negatives": ("1", "5"),
    "negatives": ("'popularity'",),
    "batch_size": ("None", "1", "7", "10**9", "np.uint8(7)"),
    "clip": ("True",),
    "optimizer__lr": ("1e-300", "1e-3", "1.0", "1e3", "1e30", "np.float32(0.1)", "1"),
    "max_iter": ("1", "3", "np.uint8(3)"),
}
ODD_PARAMETERS = (
    *("'x'", "''", "b'x'", "None", "True", "0", "-1", "0.5", "1.5", "np.nan", "-np.inf", "np.inf", "2**63", "-(2**63)", "10**30"),
    *("[]", "[1]", "{}", "np.array([1, 2])", "np.array(2)", "np.array('x')", "torch.tensor(2)", "Decimal('0.1')", "Fraction(1, 3)"),
    *("object()", "int", "lambda x: x", "1j", "np.float64(0.5)", "np.longdouble(0.1)", "np.datetime64('2020')", "pd.NA", "range(3)"),
)
ODD_IDS = (
    *("-1", "10**6", "'nobody'", "None", "np.nan", "np.inf", "2**70", "-(2**70)", "1.5", "b'x'", "(1, 2)", "True", "''", "1j", "object()"),
    *("np.datetime64('2020')", "np.datetime64('NaT')", "pd.NA", "pd.Timestamp('2020')", "np.uint64(2**64 - 1)", "2.0**63", "Decimal(1)"),
    *("[[0, 1], [1, 0]]", "[]", "[[]]", "np.zeros((0, 2))", "np.zeros((2, 0))", "[0, 'a']", "[None, 0]", "[0, np.nan]", "[0, [1]]", "np.array([True, False])"),
    *("range(3)", "(0 for _ in '1')", "{0, 1}", "{0: 1}", "pd.Series([0, 1])", "pd.Series([0, None], dtype='Int64')", "pd.Index(['a'])"),
    *("pl.Series([0, 1])", "pl.Series(['a', None])", "torch.tensor([0, 1])", "np.array([0, 1], dtype='>i4')", "np.array(['a', 'b'])"),
    *("np.array([0.0, 2.0**60])", "np.array([0, 1], dtype='u1')", "np.array([0, 1], dtype='f2')", "np.array([0], dtype='M8[D]')", "slice(2)"),
    *("np.ma.masked_array([0, 1], [True, False])", "np.array(0)", "np.zeros((1, 1, 1), int)", "sp.csr_array([[1, 0]])", "pd.DataFrame({'user': [0], 'item': [1]})"),
)
ODD_COUNTS = ("0", "-1", "1.5", "None", "'x'", "10**6", "10**30", "True", "np.int8(2)", "np.nan", "[1]", "np.array(2)")


@st.composite
def cases(draw, estimators=ESTIMATORS):
    """Cases of these estimators; of at most two aspects each is odd."""
    odd = draw(st.sets(st.sampled_from(ASPECTS), max_size=2))

    def one_of(options):
        return draw(st.sampled_from(tuple(options)))

    def some(plain, aspect, strange):
        return one_of(strange) if aspect in odd else one_of(plain)

    def chance(n):
        return draw(st.integers(0, n - 1)) == n - 1

    name = one_of(estimators)
    model, loss, ranks, module = _model(name, one_of, chance, odd, draw)
    nu, ni = (draw(st.integers(1, 3)), draw(st.integers(1, 3))) if "size" in odd else (draw(st.integers(2, 12)), draw(st.integers(2, 12)))
    n = draw(st.integers(1, 3)) if "size" in odd and chance(2) else draw(st.integers(4, 60))

    def put(text, n=n):
        return Template(text).safe_substitute(n=n, nu=nu, ni=ni)

    plain = {"poisson": ("counts", "uint8 counts", "stars"), "logistic": ("labels", "bool", "signs")}.get(loss, values.RATINGS)
    if ranks:
        plain = ("counts", "stars", "bool", "uint8 counts")
    kind = one_of(("table", "table", "matrix", "container"))
    y = put(some([values.RATINGS[one] for one in plain], "rating", values.ODD_RATINGS.values()))
    given = [*module, "path = tempfile.mkdtemp() + '/model'", f"rng = np.random.default_rng({draw(st.integers(0, 9))})", f"u, i = rng.integers(0, {nu}, {n}), rng.integers(0, {ni}, {n})", f"y = {y}"]
    arguments = "X"
    if kind == "table":
        labels, more = (values.LABELS.values(), values.ODD_LABELS.values())
        U, I = some(labels, "label", more), some(labels, "label", more)  # noqa: E741
        U = I if not chance(4) else U
        given += [f"U = {put(U, nu)}", f"I = {put(I, ni)}", f"X = {put(some(values.TABLES.values(), 'form', values.ODD_TABLES.values()))}"]
        arguments += "" if ranks and chance(2) else ", y"
    elif kind == "matrix":
        given += [f"X = {put(some(values.MATRICES.values(), 'form', values.ODD_MATRICES.values()))}"]
        arguments += ", y" if "form" in odd and chance(8) else ""
    else:
        given += [f"X = {put(some(values.CONTAINERS.values(), 'form', values.ODD_CONTAINERS.values()))}"]
        arguments += ", y" if chance(3) else ""
    if "weight" in odd or chance(5):
        weights = put(some(values.WEIGHTS.values(), "weight", values.ODD_WEIGHTS.values()), nu if kind == "matrix" else n)
        given += [f"w = {weights}"]
        arguments += ", sample_weight=w"
    if chance(12):
        arguments += ", X_val=X" + (", y_val=y" if kind == "table" else "")
    steps = [Step(model), Step(f"model.fit({arguments})", fits=True)]
    steps += [_call(name, kind, arguments, one_of, chance, odd) for _ in range(draw(st.integers(1, 5)))]
    return Case(name, tuple(given), tuple(steps))


def _model(name, one_of, chance, odd, draw):
    """The line that makes the estimator, its loss, whether that ranks, and lines before it."""
    module = ()
    options = {"random_state": "0", "max_iter": "2"}
    if name == "ImplicitMatrixFactorization":
        loss, known, ranks = one_of(RANKING), COMMON | OF_FACTORS | OF_POSITIVES, True
        options |= {"loss": repr(loss), "n_factors": "2"}
    elif name == "TorchFactorization":
        loss = one_of((*LOSSES, "bpr", "hinge", "softmax", "adaptive_hinge", "L1Loss", "SmoothL1Loss", "MSELoss"))
        known, ranks, kind = COMMON | OF_A_MODULE, loss in RANKING[2:], one_of(MODULES)
        optimizer = one_of(("SGD", "Adagrad", "SparseAdam")) if kind == "Sparse" else one_of(("Adam", "sgd", "Adagrad", "AdamW", "RMSprop", "LBFGS"))
        options |= {"module": kind, "loss": repr(loss), "optimizer": repr(optimizer)}
        known = known | {f"module__{own}": found for own, found in MODULES[kind].items()}
        if kind in ("nn.BiasedMF", "nn.PlainMF"):
            options["module__n_factors"] = "2"
        else:
            module = (MODULE.format(name=kind, sparse=kind == "Sparse"),)
        if chance(80):
            options |= {"n_processes": "2", "optimizer": "'SGD'"}
    else:
        loss, known, ranks = one_of(LOSSES), COMMON | OF_FACTORS | OF_RATINGS, False
        options |= {"loss": repr(loss), "solver": repr(one_of(SOLVERS)), "n_factors": "2"}
    for option in sorted(draw(st.sets(st.sampled_from(sorted(known)), max_size=3))):
        options[option] = one_of(known[option])
    if "parameter" in odd:
        option = one_of([*known, "bogus", "user", "item", "loss", "checkpoint", "solver", "module", "optimizer"])
        choices = [value for value in ODD_PARAMETERS if option != "max_iter" or value not in ("2**63", "10**30")]
        if option != "checkpoint" and not option.startswith("module__"):
            options[option] = one_of(choices)
    return f"model = {name}({', '.join(f'{option}={value}' for option, value in options.items())})", loss, ranks, module


def _call(name, kind, arguments, one_of, chance, odd):
    """A step after the fit."""
    torch_module, ids = name == "TorchFactorization", one_of(("model.users_[:2]", "model.users_[-1:]", "model.users_[[0, -1, 0]]"))
    user = one_of(("model.users_[0]", "model.users_[-1:]", "model.users_[:, None]"))
    items = one_of(("model.items_", "model.items_[:1]", "model.items_[0]", "model.items_[::-1]"))
    k = one_of(("1", "3", "50", "np.int8(2)"))
    if "call" in odd:
        ids, user = one_of(ODD_IDS), one_of(ODD_IDS)
        items = one_of(ODD_IDS) if chance(2) else items
        k = one_of(ODD_COUNTS) if chance(3) else k
    rows, shape = f"sp.csr_array(np.eye(3, model.n_items_) * {one_of(('1.0', '1e-300', '1e30', '1e300', '-2.0', '1', '0'))})", "(3, model.n_items_)"
    if chance(4):
        rows, shape = f"sp.random_array((2, model.n_items_), density=0.7, format='{one_of(('csr', 'csc', 'coo', 'dok', 'lil'))}', rng=0)", "(2, model.n_items_)"
    X = "X" if kind != "matrix" else "Interactions.from_matrix(X)"
    n = f"(len({X}),)"
    steps = [
        Step(f"model.predict({X})", None if kind != "container" else n),
        Step(f"model.predict({user}, {items})", None if "call" in odd else f"np.broadcast_shapes(np.shape({user}), np.shape({items}))"),
        Step("model.predict(model.users_[0])", "(model.n_items_,)"),
        Step(f"model.predict({ids})"),
        Step(f"model.recommend({ids}, {k})", None if "call" in odd else f"[(len({ids}), {k})] * 2"),
        Step(f"model.recommend(k={k}, exclude_seen=False)", None if "call" in odd else f"[(model.n_users_, {k})] * 2"),
        Step(f"model.recommend({ids}, {k}, items={items})"),
        Step("model.recommend(model.users_[0], 2)", "[(2,), (2,)]"),
        Step(f"model.score({X}{', y' if kind == 'table' else ''})", "()"),
        Step(f"model.partial_fit({arguments.split(', X_val')[0]})", fits=True),
        Step(f"model.fit({arguments})", fits=True),
        Step("clone(model)"),
        Step("np.array_equal(pickle.loads(pickle.dumps(model)).predict(model.users_[0]), model.predict(model.users_[0]), equal_nan=True)"),
        Step("model.to_module()(torch.tensor([0, -1]), torch.tensor([0, 0]))", "(2,)"),
        Step(f"evaluate(model, {X}, k=[1, 3])"),
        Step(f"evaluate(model, {X}, '{one_of(('auc', 'ndcg', 'recall', 'average_precision'))}', exclude_seen=False)"),
        Step("repr(model)"),
    ]
    if torch_module:
        steps += [Step(f"model.fit_batches([(u, i, y)], n_users=12, n_items=12)", fits=True)]
    else:
        steps += [
            Step(f"model.predict({rows})", shape),
            Step(f"model.fold_in({rows})"),
            Step(f"model.recommend({rows}, {k})"),
            Step(f"model.inverse_transform(model.fold_in({rows}))", shape),
            Step("model.transform(X)"),
            Step(f"model.similar_items({items}, {k})"),
            Step(f"model.similar_users({ids}, {k})"),
            Step("model.embeddings()", "[(model.n_users_, model.embeddings()[0].shape[1]), (model.n_items_, model.embeddings()[0].shape[1])]"),
            Step(f"model.score({rows})", "()"),
            Step("np.array_equal(type(model).load(model.save(path) and path).predict(model.users_[0]), model.predict(model.users_[0]), equal_nan=True)"),
            Step("clone(model).set_factors(model.user_factors_, model.item_factors_, *([model.user_biases_, model.item_biases_] if hasattr(model, 'user_biases_') else [])).predict([0], [0])", "(1,)"),
        ]
        if kind == "matrix":
            steps += [Step("model.predict(X)", "X.shape"), Step("model.score(X)", "()"), Step("model.fold_in(X)"), Step("model.recommend(X, 2)", "[(X.shape[0], 2)] * 2")]
    if name in ESTIMATORS[:2]:
        steps += [
            Step(f"model.predict({X}, return_std=True)"),
            Step(f"model.predict({user}, {items}, return_std=True, clip=True)"),
            Step(f"model.recommend({ids}, {k}, explore=True, random_state=0)"),
            Step(f"model.predict_left_out({rows})"),
            Step(f"model.score({X}{', y' if kind == 'table' else ''}, sample_weight=np.ones(len({X})))", "()"),
        ]
    return one_of(steps)
