"""What the fuzz test asks of a fitted estimator, and the shape that the answer must have."""

from fuzz_oracle import Step
from fuzz_values import each

ODD_PARAMETERS = each(
    """
    'x'; ''; b'x'; None; True; 0; -1; 0.5; 1.5; np.nan; -np.inf; np.inf; 2**63; -(2**63); 10**30; []; [1]; {}; np.array([1, 2])
    np.array(2); np.array('x'); torch.tensor(2); Decimal('0.1'); object(); int; len; 1j; np.float64(0.5)
    np.longdouble(0.1); np.datetime64('2020'); pd.NA; range(3)
    """
)
ODD_IDS = each(
    """
    -1; 10**6; 'nobody'; None; np.nan; np.inf; 2**70; -(2**70); 1.5; b'x'; (1, 2); True; ''; 1j; object(); np.datetime64('2020')
    np.datetime64('NaT'); pd.NA; pd.Timestamp('2020'); np.uint64(2**64 - 1); 2.0**63; Decimal(1); [[0, 1], [1, 0]]; []; [[]]
    np.zeros((0, 2)); np.zeros((2, 0)); [0, 'a']; [None, 0]; [0, np.nan]; [0, [1]]; range(3); (0 for _ in '1'); {0, 1}; {0: 1}
    pd.Series([0, 1]); pd.Series([0, None], dtype='Int64'); pd.Index(['a']); pl.Series([0, 1]); pl.Series(['a', None])
    torch.tensor([0, 1]); np.array([0, 1], dtype='>i4'); np.array(['a', 'b']); np.array([0.0, 2.0**60])
    np.array([0, 1], dtype='u1'); np.array([0, 1], dtype='f2'); np.array([0], dtype='M8[D]'); np.array([True, False])
    np.ma.masked_array([0, 1], [True, False]); np.array(0); np.zeros((1, 1, 1), int); slice(2); sp.csr_array([[1, 0]])
    pd.DataFrame({'user': [0], 'item': [1]}); Interactions([0], [0])
    """
)
ODD_COUNTS = each(
    """
    0; -1; 1.5; None; 'x'; 10**6; 10**30; True; np.int8(2); np.nan; [1]; np.array(2)
    """
)
ODD_ARRAYS = each(
    """
    sp.csr_array((3, model.n_items_)); sp.csr_array((0, model.n_items_)); sp.csr_array((3, 1)); sp.csr_array((3, 50))
    sp.csr_array(np.full((2, model.n_items_), np.nan)); sp.csr_array(np.ones((2, model.n_items_)) * 1j); sp.coo_array([1.0])
    sp.csr_matrix(np.ones((2, model.n_items_), bool)); sp.dok_array((2, model.n_items_)); np.ones((2, model.n_items_))
    np.ones((3, 2)); np.ones((3, 3)); np.full((3, 2), np.nan); np.full((3, 2), 1e300); [['a', 'b']]; [[1, 2], [3]]; []
    np.ones((0, 2)); np.ones(3); None; 'x'; 1; np.ones((2, 2, 2)); y[::-1]; y[:0]; np.ones(len(y)) * 1j; -np.ones(len(y))
    pd.DataFrame({'user': [0], 'item': [None]}); pl.DataFrame({'a': [1.0]}); torch.ones(2, 2); Interactions([0], [0], [1.0]); X
    np.full(len(y), np.nan); np.full(len(y), 'a'); np.zeros(len(y)); np.full(len(y), 1e300); np.full(len(y), 99); u * 1.5
    """
)
IDS = (
    *("model.users_[:2]", "model.users_[-1:]", "model.users_[[0, -1, 0]]", "model.users_[:2].tolist()"),
    *("model.users_[:2].astype(object)", "pd.Series(model.users_[:2])", "model.users_[:0]"),
)
USERS = "model.users_[0]", "model.users_[-1:]", "model.users_[:, None]"
ITEMS = "model.items_", "model.items_[:1]", "model.items_[0]", "model.items_[::-1]"
COUNTS = "1", "3", "50", "np.int8(2)"
ROWS = (
    *(f"sp.csr_array(np.eye(3, model.n_items_) * {size})" for size in ("1.0", "1", "0", "1e-300", "1e30", "1e300", "-2.0")),
    *(f"sp.random_array((3, model.n_items_), density=0.7, format='{form}', rng=0)" for form in ("csr", "csc", "coo", "dok", "lil")),
)
METRICS = "'auc'", "'ndcg'", "['recall', 'precision']", "'average_precision'", "'truncated_recall'", "'hit_rate'"
SPLITTERS = (
    *("UserKFold(2)", "LeaveRandomOut()", "LeaveLastOut()", "TimeSplit()", "HeldOutUsers(2)"),
    *("ColdItemSplit(2)", "ColdUserSplit(2)", "ColdItemSplit(1, test_size=1, by_time=True)"),
)
CHANGES = (
    *("n_factors=3", "loss='poisson'", "loss='bpr'", "dtype='float64'", "warm_start=True", "early_stopping=True", "alpha=1e30"),
    *(
        "solver='als'",
        "solver='adam'",
        "biased=True",
        "handle_unknown='nan'",
        "optimizer='SGD'",
        "clip=True",
        "user=1",
        "batch_size=3",
    ),
)
SAVED = "np.array_equal({}.predict(model.users_[0]), model.predict(model.users_[0]), equal_nan=True)"
BIASES = "*([model.user_biases_, model.item_biases_] if hasattr(model, 'user_biases_') else [])"
LEARNED = f"clone(model).set_factors(model.user_factors_, model.item_factors_, {BIASES}).predict([0], [0])"


def one_call(pick, model, data, more=""):
    """Draw a step that follows a fit, on the data that it saw or on others."""
    odd = "call" in pick.odd
    k = pick.one_of(ODD_COUNTS if odd and pick.chance(3) else COUNTS)
    users, ids = (pick.one_of(ODD_IDS if odd else plain) for plain in (USERS, IDS))
    items = pick.one_of(ODD_IDS if odd and pick.chance(2) else ITEMS)
    rows = pick.one_of(ROWS[:3] if model.loss == "logistic" else ROWS)
    own = f"X{more}"
    X = f"Interactions.from_matrix({own})" if data.kind == "matrix" else own
    y = f", y{more}" if data.kind == "table" else ""
    n = f"(len({own}.user_ids),)" if data.kind == "container" else f"(len({X}),)"
    day = ", features={'day': day[0]}" if model.timed else ""
    tuples = any("(k, 'a')" in line or "(1, 2)" in line for line in data.lines)  # a scalar id, or two of them?

    def unless_odd(shape):
        return None if odd or tuples else shape

    pairs = unless_odd(f"np.broadcast_shapes(np.shape({users}), np.shape({items}))")
    steps = [
        Step(f"model.predict({X})", n),
        Step(f"model.predict({users}, {items}{day})", pairs),
        Step(f"model.predict(model.users_[0]{day})", "(model.n_items_,)"),
        Step(f"model.predict({ids if odd else 'model.users_[-1]'}{day})"),
        Step(f"model.recommend({ids}, {k}{day})", unless_odd(f"[(len({ids}), {k})] * 2")),
        Step(f"model.recommend(k={k}, exclude_seen=False{day})", unless_odd(f"[(model.n_users_, {k})] * 2")),
        Step(f"model.recommend({ids}, {k}, items={items}{day})"),
        Step(f"model.recommend(model.users_[0], 2{day})", None if tuples else "[(2,), (2,)]"),
        Step(f"model.score({X}{y})", "()"),
        Step(f"model.score({X}{y}, sample_weight=np.ones({n}))", "()"),
        Step(f"model.partial_fit({data.arguments})", fits=True),
        Step(f"model.fit({data.arguments})", fits=True),
        Step(f"model.set_params({pick.one_of(CHANGES)}).{pick.one_of(('fit', 'partial_fit'))}({data.arguments})", fits=True),
        Step("repr(clone(model))"),
        Step(SAVED.format("pickle.loads(pickle.dumps(model))")),
        Step(f"evaluate(model, {own}, {pick.one_of(METRICS)}, k={pick.one_of(('3', '[1, 50]'))}, exclude_seen={pick.chance(2)})"),
        Step(f"ranking_scorer('ndcg', k=3)(model, {own})"),
    ]
    if odd and pick.chance(2):
        return Step(_odd_call(pick, model, X, ids, day))
    if data.kind == "matrix":
        steps += [Step(f"sum(len(test) for train, test in {pick.one_of(SPLITTERS)}.split({X}))")]
    else:
        steps += [Step(f"sum(len(test) for train, test in {pick.one_of(SPLITTERS)}.split({own}{y}))")]
        steps += [Step(f"cross_val_score(model, {own}{y or ', y' * (not model.ranks)}, cv=2, error_score='raise')")]
    if data.kind != "table":
        steps += [
            Step(f"rmse_score(model, {X})"),
            Step(f"mrr_score(model, {X}, train={X})"),
            Step(f"precision_recall_score(model, {X}, k={k})"),
        ]
    if model.name == "TorchFactorization":
        steps += [
            Step("model.fit_batches([(u, i, y)], n_users=12, n_items=12)", fits=True),
            Step(f"model.to_module()(torch.tensor([0]), torch.tensor([0]){', day=torch.tensor([0])' if model.timed else ''})"),
            Step(SAVED.format("type(model).load(model.save(path) and path, module=model.module)")),
        ]
        return pick.one_of(steps)
    width = "model.item_factors_.shape[1]"
    steps += [
        Step(f"model.predict({rows})", "(3, model.n_items_)"),
        Step(f"model.fold_in({rows})", f"(3, {width} + hasattr(model, 'user_biases_'))"),
        Step(f"model.recommend({rows}, {k})", unless_odd(f"[(3, {k})] * 2")),
        Step(f"model.inverse_transform(model.fold_in({rows}))", "(3, model.n_items_)"),
        Step(f"model.score({rows})", "()"),
        Step(f"model.transform({own})", None if data.kind == "matrix" else f"({n}[0], 2 * {width})"),
        Step(f"sum(model.explain({users}, {items}).values())", pairs),
        Step(f"model.similar_items({items}, {k})"),
        Step(f"model.similar_users({ids}, {k})", unless_odd(f"[(len({ids}), {k})] * 2")),
        Step("model.embeddings()"),
        Step("model.get_feature_names_out()"),
        Step("model.to_module()(torch.tensor([0, -1]), torch.tensor([0, 0]))", "(2,)"),
        Step(SAVED.format("type(model).load(model.save(path) and path)")),
        Step(LEARNED, "(1,)"),
    ]
    if data.kind == "matrix":
        steps += [
            Step(f"model.predict({own})", f"{own}.shape"),
            Step(f"model.score({own})", "()"),
            Step(f"model.fold_in({own})"),
            Step(f"model.recommend({own}, 2)", f"[({own}.shape[0], 2)] * 2"),
        ]
    if "solver='variational'" in model.line or ("solver" in model.line and pick.chance(8)):
        steps += [
            Step(f"model.predict({X}, return_std=True)", f"[{n}] * 2"),
            Step(f"model.predict({users}, {items}, return_std=True, clip=True)", pairs and f"[{pairs}] * 2"),
            Step(f"model.recommend({ids}, {k}, explore=True, random_state=0)", unless_odd(f"[(len({ids}), {k})] * 2")),
        ]
    if model.name != "ImplicitMatrixFactorization":
        steps += [
            Step(f"model.predict_left_out({rows})", f"(len(Interactions.from_matrix({rows})),)"),
        ]
    return pick.one_of(steps)


def _odd_call(pick, model, X, ids, day):
    """Draw a call with an odd argument."""
    one, array = pick.one_of(ODD_PARAMETERS), pick.one_of(ODD_ARRAYS)
    calls = [
        f"model.predict({X}, {pick.one_of(('clip', 'return_std', 'features', 'item_ids'))}={one})",
        f"model.recommend({ids}, {pick.one_of(('exclude_seen', 'items', 'k', 'explore'))}={one}{day})",
        f"model.recommend(model.users_, 2, explore=True, random_state={one})",
        f"model.score({X}, {array})",
        f"model.score({X}, y, sample_weight={array})",
        f"evaluate(model, {X}, {one}, k={pick.one_of(ODD_COUNTS)})",
        f"evaluate(model, {X}, users={ids})",
        f"model.predict(model.users_[:1], {array})",
        f"clone(model).fit(X, y, X_val={array})",
        f"clone(model).fit(X, y, X_val=X, y_val={array})",
        f"UserKFold({one}).get_n_splits(X)",
        f"LeaveRandomOut({one}).get_n_splits(X)",
        f"ranking_scorer({one}, k={pick.one_of(ODD_COUNTS)})(model, X)",
    ]
    if model.name == "TorchFactorization":
        calls += [
            f"clone(model).fit_batches({one}, n_users=12, n_items=12)",
            f"clone(model).fit_batches([(u, {array}, y)], n_users=12, n_items=12)",
            f"clone(model).fit_batches([(u, i, {array})], n_users=12, n_items=12)",
            f"clone(model).fit_batches([(u, i, y)], n_users={one}, n_items=12)",
            "clone(model).fit_batches([(u, i)], n_users=2, n_items=2)",
        ]
    else:
        calls += [
            f"model.fold_in({array})",
            f"model.inverse_transform({array})",
            f"model.transform({array})",
            f"model.recommend({array}, 2)",
            f"model.explain({X}, by={one})",
            f"model.explain(model.users_[0], {array})",
            f"model.similar_items(model.items_[0], {one})",
            f"clone(model).set_factors({array}, model.item_factors_)",
            f"clone(model).set_factors(model.user_factors_, model.item_factors_, n_iter={one}).predict(0)",
            f"clone(model).set_factors(model.user_factors_, model.item_factors_, interactions={one})",
        ]
    return pick.one_of(calls)
