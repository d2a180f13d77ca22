"""What the fuzz test asks of a fitted estimator, and the shape that the answer must have."""

from fuzz_oracle import Step
from fuzz_values import ODD_COUNTS, ODD_IDS

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
SAVED = "np.array_equal({}.predict(model.users_[0]), model.predict(model.users_[0]), equal_nan=True)"
LEARNED = """\
clone(model).set_factors(model.user_factors_, model.item_factors_, getattr(model, 'user_biases_', None), \
getattr(model, 'item_biases_', None)).predict([0], [0])"""


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
        Step("repr(clone(model))"),
        Step(SAVED.format("pickle.loads(pickle.dumps(model))")),
        Step(f"evaluate(model, {own}, {pick.one_of(METRICS)}, k={pick.one_of(('3', '[1, 50]'))}, exclude_seen={pick.chance(2)})"),
        Step(f"ranking_scorer('ndcg', k=3)(model, {own})"),
    ]
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
