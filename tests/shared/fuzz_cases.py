"""A hypothesis strategy of cases for the fuzz test: an estimator, its parameters, data in some form, and calls after the fit.

``n_processes`` is left out: processes that take seconds to start would be most of the time.
"""

from dataclasses import dataclass
from string import Template

import fuzz_values as values
from fuzz_calls import ODD_PARAMETERS, one_call
from fuzz_oracle import Case, Step
from hypothesis import strategies as st

ESTIMATORS = "MatrixFactorization", "BiasedMatrixFactorization", "ImplicitMatrixFactorization", "TorchFactorization"
ASPECTS = "parameter", "rating", "weight", "label", "form", "call", "size", "feature"
SOLVERS = "variational", "als", "adam", "adagrad", "sgd", "lbfgs"
LOSSES = "squared_error", "huber", "poisson", "logistic"
RANKING = "ials", "logistic", "bpr", "hinge", "adaptive_hinge", "softmax"
SUITING = {"poisson": ("counts", "uint8 counts", "stars"), "logistic": ("labels", "bool", "signs")}
WEIGHING = "counts", "stars", "bool", "uint8 counts"  # what y is to a ranking loss
COMMON = {
    "early_stopping": ("True", "np.True_"),
    "validation_fraction": ("0.5", "0.99", "1e-9", "np.float32(0.3)"),
    "n_iter_no_change": ("1", "2", "np.uint8(1)"),
    "refit": ("False",),
    "scoring": (
        "'r2'",
        "'neg_mean_squared_error'",
        "ranking_scorer('ndcg', k=2)",
        "make_scorer(max_error, greater_is_better=False)",
    ),
    "tol": ("0", "0.1", "1e300", "np.float16(0.1)", "1e-300"),
    "checkpoint": ("path + '.checkpoint'",),
    "handle_unknown": ("'nan'", "'error'"),
    "user": ("np.int64(0)", "1", "'user'", "2"),
    "item": ("np.uint8(1)", "0", "'item'", "2"),
    "dtype": ("'float64'",),
    "device": ("'cpu'", "torch.device('cpu')"),
    "warm_start": ("True",),
    "random_state": ("None", "np.int64(3)", "np.random.RandomState(0)", "2**32 - 1", "np.uint8(1)"),
    "verbose": ("1", "True"),
}
ALPHA = ("0", "0.0", "1e-300", "1e-30", "1e30", "1e300", "1", "np.float16(0.1)", "np.float32(0.1)", "np.int8(1)", "np.bool_(True)")
OF_FACTORS = {"n_factors": ("1", "3", "20", "np.int8(2)", "np.uint64(2)"), "max_iter": ("1", "2", "4", "30", "np.uint8(3)")}
OF_RATINGS = {
    "alpha": ALPHA,
    "learning_rate": ("1e-300", "1e-3", "0.1", "1", "1e3", "1e30", "1e300", "np.float16(0.1)"),
    "batch_size": ("1", "5", "10**9", "2**62", "np.uint8(7)"),
    "clip": ("True", "np.True_"),
    "effects": ("[1]", "[('user', 1)]", "['item', ('item', 'user')]"),
    "time": ("True", "1", "'item'", "np.int8(1)"),
}
OF_POSITIVES = {
    "biased": ("True",),
    "alpha": ALPHA,
    "confidence": ("1e-300", "1e-30", "0.1", "10", "1e30", "1e300", "np.float16(2)", "np.uint8(3)"),
    "n_negatives": ("1", "30", "np.int8(3)"),
    "negatives": ("'popularity'",),
    "temperature": ("'auto'", "0.1", "1e-6", "1e6", "1e-300", "1e300", "1", "np.float16(0.1)"),
    "exact": ("True", "False"),
}
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
OPTIMIZERS = "Adam", "sgd", "Adagrad", "AdamW", "RMSprop", "LBFGS"
MODULE = """\
class $name(torch.nn.Module):
    def __init__(self, n_users, n_items, n_factors=2, n_day=None):
        super().__init__()
        self.user_factors = torch.nn.Embedding(n_users, n_factors, sparse=$sparse)
        self.item_factors = torch.nn.Embedding(n_items, n_factors, sparse=$sparse)
    def forward(self, user, item$more):
        return (self.user_factors(user) * self.item_factors(item)).sum(1)$term
"""
MODULES = {
    "nn.BiasedMF": "",
    "nn.PlainMF": "",
    "Embedded": Template(MODULE).substitute(name="Embedded", sparse=False, more="", term=""),
    "Sparse": Template(MODULE).substitute(name="Sparse", sparse=True, more="", term=""),
    "Timed": Template(MODULE).substitute(name="Timed", sparse=False, more=", day", term=" + 0.1 * day"),
}
LENGTH = 256  # bytes that a case is made of; what is drawn beyond is the first of its table
UNENDING = {"max_iter": ("2**63", "10**30")}  # asked for and given


class Picker:
    """Draws from tables of texts: a plain one, or one of the odd ones where an aspect is odd.

    It takes its numbers from bytes, of which hypothesis has no favourites and which it makes smaller: 0 is a table's first.
    """

    def __init__(self, stream):
        self.stream, self.odd = iter(stream), ()

    def number(self, n):
        """Below n."""
        return (256 * next(self.stream, 0) + next(self.stream, 0)) % n

    def one_of(self, options):
        return tuple(options)[self.number(len(options))]

    def some(self, aspect, plain, strange):
        return self.one_of(strange if aspect in self.odd else plain)

    def chance(self, n):
        """True once in n."""
        return self.number(n) == n - 1

    def between(self, low, high):
        return low + self.number(high - low + 1)


@dataclass(frozen=True)
class Model:
    """The line that makes an estimator, lines before it, and what its data must be."""

    name: str
    line: str
    before: tuple
    loss: str
    ranks: bool
    timed: bool = False


@dataclass(frozen=True)
class Data:
    """Lines that make X, y and weights, and the arguments of ``fit``; names end in ``more`` for a second data set.

    A container is a step of its own, since it judges its arguments too.
    """

    kind: str
    lines: tuple
    arguments: str
    container: str = ""


def cases(estimators=ESTIMATORS):
    """Cases of these estimators, a strategy."""
    return st.binary(min_size=LENGTH, max_size=LENGTH).map(lambda stream: case_of(Picker(stream), estimators))


def case_of(pick, estimators):
    """Draw a case; of none, one or two aspects it is odd."""
    pick.odd = [pick.one_of(ASPECTS) for _ in range(pick.between(0, 2))]
    model = one_model(pick, pick.one_of(estimators))
    data = one_data(pick, model, pick.one_of(("table", "table", "container", "container" if model.timed else "matrix")))
    more = one_data(pick, model, data.kind, "_more") if pick.chance(4) else None
    arguments = data.arguments
    if pick.chance(12):
        end = "_more" if more and pick.chance(2) else ""
        arguments += f", X_val=X{end}" + (f", y_val=y{end}" if data.kind == "table" else "")
    line = model.line
    if model.timed and data.kind == "container":
        line = line.replace("['day']", "{'day': 'timestamps'}")
    steps = [
        *([Step(data.container, makes=True)] if data.container else []),
        Step(line, makes=True),
        Step(f"model.fit({arguments})", fits=True),
    ]
    if more:
        how = pick.one_of(("partial_fit", "partial_fit", "fit"))
        steps += [Step(f"model.{how}({more.arguments})", fits=True)]
    steps += [one_call(pick, model, data, "_more" if more and pick.chance(3) else "") for _ in range(pick.between(1, 5))]
    return Case(model.name, (*model.before, *data.lines), tuple(steps), more.lines if more else ())


def one_model(pick, name):
    """Draw an estimator and its parameters."""
    module, options, before = None, {"random_state": "0", "max_iter": "2"}, ()
    if name == "ImplicitMatrixFactorization":
        loss, known, ranks = pick.one_of(RANKING), COMMON | OF_FACTORS | OF_POSITIVES, True
        options |= {"loss": repr(loss), "n_factors": "2"}
    elif name == "TorchFactorization":
        loss = pick.one_of((*LOSSES, *RANKING[2:], "L1Loss", "SmoothL1Loss", "MSELoss"))
        known, ranks, module = COMMON | OF_A_MODULE, loss in RANKING[2:], pick.one_of(MODULES)
        optimizer = pick.one_of(("SGD", "Adagrad", "SparseAdam") if module == "Sparse" else OPTIMIZERS)
        options |= {"module": module, "loss": repr(loss), "optimizer": repr(optimizer)}
        options |= {"module__n_factors": "2"} if module.startswith("nn") else {}
        options |= {"features": "['day']"} if module == "Timed" else {}
        before = (MODULES[module],) if MODULES[module] else ()
    else:
        loss, known, ranks = pick.one_of(LOSSES), COMMON | OF_FACTORS | OF_RATINGS, False
        options |= {"loss": repr(loss), "solver": repr(pick.one_of(SOLVERS)), "n_factors": "2"}
    for option in sorted({pick.one_of(sorted(known)) for _ in range(pick.between(0, 3))}):
        options[option] = pick.one_of(known[option])
    if "parameter" in pick.odd:
        option = pick.one_of(sorted([*known, "bogus", "loss", "solver", "module", "optimizer", "features"]))
        if option != "checkpoint" and "__" not in option:  # a number would be a file's; and options of torch's are its business
            options[option] = pick.one_of([one for one in ODD_PARAMETERS if one not in UNENDING.get(option, ())])
    line = f"model = {name}({', '.join(f'{option}={value}' for option, value in options.items())})"
    return Model(name, line, before, loss, ranks, module == "Timed")


def one_data(pick, model, kind, more=""):
    """Draw a data set for an estimator; ``more`` ends the names of what it is made of."""
    small = "size" in pick.odd
    least, most = (1, 3) if small else (4 if model.ranks else 1, 12)
    nu, ni = pick.between(least, most), pick.between(least, most)
    n = pick.between(1, 3 if small and pick.chance(2) else nu * ni // 2 if model.ranks and not small else 60)
    lines = [f"rng = np.random.default_rng({pick.between(0, 9)})", f"u, i = rng.integers(0, {nu}, {n}), rng.integers(0, {ni}, {n})"]

    def put(name, text, n=n):
        lines.append(f"{name} = {Template(text).safe_substitute(n=n, nu=nu, ni=ni)}")

    plain = WEIGHING if model.ranks else SUITING.get(model.loss, values.RATINGS)
    put("y", pick.some("rating", [values.RATINGS[one] for one in plain], values.ODD_RATINGS.values()))
    put("day", pick.some("feature", values.FEATURES, values.ODD_FEATURES)) if model.timed else None
    arguments = "X"
    if kind == "table":
        U, I = (pick.some("label", values.LABELS.values(), values.ODD_LABELS.values()) for _ in range(2))  # noqa: E741
        put("U", U if pick.chance(4) else I, nu)
        put("I", I, ni)
        table = pick.some("form", values.TABLES.values(), values.ODD_TABLES.values())
        put("X", values.FRAME.replace("}", ", 'day': day}") if model.timed else table)
        arguments += "" if model.ranks and pick.chance(2) else ", y"
    else:
        plain, odd = (values.MATRICES, values.ODD_MATRICES) if kind == "matrix" else (values.CONTAINERS, values.ODD_CONTAINERS)
        timed = ("Interactions(u, i, y, timestamps=day)",) if model.timed else plain.values()
        put("X", pick.some("form", timed, odd.values()))
        arguments += ", y" if pick.chance(30 if kind == "matrix" else 3) else ""
    if "weight" in pick.odd or pick.chance(5):
        put("w", pick.some("weight", values.WEIGHTS.values(), values.ODD_WEIGHTS.values()), nu if kind == "matrix" else n)
        arguments += ", sample_weight=w"
    if more:
        lines += ["X_more, y_more, w_more = X, y, w" if "w" in arguments else "X_more, y_more = X, y"]
        arguments = arguments.replace("X", "X_more").replace(", y", ", y_more").replace("=w", "=w_more")
    container = lines.pop(-1 - ("w =" in lines[-1])) if kind == "container" and not more else ""
    return Data(kind, tuple(lines), arguments, container)
