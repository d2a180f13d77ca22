"""TorchFactorization with attributes of users and items: what ``forward`` gets of them, and ids that only a table has."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from data import planted
from numpy.testing import assert_allclose, assert_array_equal
from round_trip import reloaded, same
from torch import nn

from sk_torchmf import Interactions, TorchFactorization
from sk_torchmf.model_selection import ranking_scorer
from sk_torchmf.nn import BiasedMF
from sk_torchmf.solvers.batches import EncodedRows

pytestmark = pytest.mark.usefixtures("one_thread")

N_USERS, N_ITEMS, N_GENRES = 120, 100, 4
rng = np.random.default_rng(0)
GENRE, TASTE = np.arange(N_ITEMS) % N_GENRES, rng.integers(N_GENRES, size=N_USERS)
LIKES = rng.random((N_USERS, N_ITEMS)) < np.where(TASTE[:, None] == GENRE, 0.3, 0.02)
IS_COLD = rng.permuted(np.arange(N_ITEMS) % 5 == 0)
TRAIN = Interactions.from_matrix(sp.csr_array(LIKES * ~IS_COLD * 1.0))
ALL = Interactions.from_matrix(sp.csr_array(LIKES * 1.0))
ITEMS, USERS = np.eye(N_GENRES)[GENRE], np.column_stack([TASTE, rng.normal(size=N_USERS)])
NAMES = np.array([f"film{at:03}" for at in range(N_ITEMS)])
COLD_AUC = ranking_scorer("auc", items="cold")


class Content(nn.Module):
    """Items are what their attributes say."""

    def __init__(self, n_users, n_items, n_item_features, n_factors=6):
        super().__init__()
        self.user_factors = nn.Embedding(n_users, n_factors)
        self.weights = nn.Linear(n_item_features, n_factors, bias=False)

    def forward(self, user, item, item_features):
        return (self.user_factors(user) * self.weights(item_features)).sum(1)


class Watched(nn.Module):
    """Fails where what it gets is not the rows of its users and items."""

    def __init__(self, n_users, n_items, n_user_features, n_item_features):
        super().__init__()
        assert (n_users, n_items, n_user_features, n_item_features) == (N_USERS, N_ITEMS, 2, N_GENRES)
        self.bias = nn.Embedding(n_items, 1)

    def forward(self, user, item, user_features, item_features):
        for code, given, table in ((user, user_features, USERS), (item, item_features, ITEMS)):
            assert given.dtype == self.bias.weight.dtype
            assert torch.equal(given, torch.from_numpy(table)[code].to(given))
        return self.bias(item)[:, 0]


def small(module=Content, loss="bpr", **params):
    return TorchFactorization(
        module, loss, **{"optimizer__lr": 0.05, "max_iter": 15, "batch_size": 100, "random_state": 0} | params
    )


def frame(rows=slice(None)):
    pandas = pytest.importorskip("pandas")
    genres = np.array(["crime", "drama", "farce", "epic"])
    return pandas.DataFrame({"genre": genres[GENRE]}, index=NAMES).iloc[rows]


def labelled(data):
    return pytest.importorskip("pandas").DataFrame({"user": data.user_ids, "item": NAMES[data.item_ids]})


def of_frames(**params):
    return small(user="user", item="item", **params)


def test_encoded_rows_are_those_of_the_dense_matrix():
    dense = np.round(rng.normal(size=(7, 5)), 1) * (rng.random((7, 5)) < 0.4)
    dense[2] = 0
    table = EncodedRows(sp.csr_array(dense), torch.float64, torch.device("cpu"))
    for code in ([0, 6, 2, 2, 5], [2], [], range(7)):
        code = torch.tensor(list(code), dtype=torch.int64)
        assert_array_equal(table.dense(code).numpy(), dense[code.numpy()])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", ["bpr", "squared_error"])
@pytest.mark.parametrize("batch_size", [None, 64])
def test_forward_gets_the_rows_of_its_users_and_items(loss, dtype, batch_size):
    tables = {"user_features": sp.csr_array(USERS), "item_features": ITEMS}
    model = small(Watched, loss, dtype=dtype, batch_size=batch_size, n_negatives=3, max_iter=2).fit(TRAIN, **tables)
    assert np.isfinite(model.predict(TRAIN)).all()
    assert np.isfinite(model.predict(-1)).all()  # an unknown user stands for known ones, with their rows
    assert model.recommend(k=3)[0].shape == (N_USERS, 3)
    assert np.isfinite(model.score(ALL))


@pytest.mark.parametrize("loss", ["bpr", "softmax"])
def test_cold_items_are_ranked_by_their_attributes(loss):
    assert COLD_AUC(small(loss=loss, n_negatives=4).fit(TRAIN, item_features=ITEMS), ALL) > 0.8


def test_ids_that_only_the_table_has_are_known_and_its_order_does_not_matter():
    order = np.random.default_rng(1).permutation(N_ITEMS)
    model, other = (of_frames(handle_unknown="error").fit(labelled(TRAIN), item_features=frame(rows)) for rows in (order, ...))
    assert model.items_.tolist() == NAMES.tolist()
    assert_array_equal(model.item_counts_ == 0, IS_COLD)
    assert COLD_AUC(model, labelled(ALL)) > 0.8
    assert_array_equal(model.predict(0), other.predict(0))
    with pytest.raises(ValueError, match="item id"):
        model.predict([0], ["film999"])


def test_ids_that_nothing_is_known_of_stay_unknown():
    described = np.flatnonzero(~IS_COLD)
    model = of_frames(handle_unknown="nan").fit(labelled(ALL), item_features=frame(described))
    assert np.isfinite(model.predict(0)).all()  # those that were observed have empty rows
    late = small(handle_unknown="nan").fit(TRAIN, item_features=ITEMS[: N_ITEMS // 2])
    assert_array_equal(np.isnan(late.predict(0)), IS_COLD & (np.arange(N_ITEMS) >= N_ITEMS // 2))


def test_wide_tables_are_scored_in_smaller_blocks():
    wide = sp.csr_array((np.ones(N_ITEMS), (np.arange(N_ITEMS), 500 * GENRE)), shape=(N_ITEMS, 2000))
    narrow, model = (small(max_iter=1).fit(TRAIN, item_features=table) for table in (ITEMS, wide))
    with torch.no_grad():
        model.module_.weights.weight[:, ::500] = narrow.module_.weights.weight
        model.module_.user_factors.weight[:] = narrow.module_.user_factors.weight
    users, items = np.tile(np.arange(N_USERS), (N_ITEMS, 1)), np.arange(N_ITEMS)[:, None]
    np.testing.assert_allclose(model.predict(users, items), narrow.predict(users, items), rtol=1e-5, atol=1e-6)


def test_partial_fit_keeps_attributes_and_takes_more():
    half = np.arange(len(TRAIN)) % 2 == 0
    model = of_frames(max_iter=8).fit(labelled(TRAIN[half]), item_features=frame(~IS_COLD))
    model.partial_fit(labelled(TRAIN[~half]))
    model.partial_fit(labelled(TRAIN[:3]), item_features=frame(IS_COLD))
    assert_array_equal(model.items_, NAMES)
    assert COLD_AUC(model, labelled(ALL)) > 0.8
    with pytest.raises(ValueError, match="user_features were not passed to fit"):
        model.partial_fit(labelled(TRAIN), user_features=frame().set_index(np.arange(N_ITEMS)))


def test_a_saved_model_knows_the_attributes(tmp_path):
    model = of_frames().fit(labelled(TRAIN), item_features=frame())
    again = reloaded(model, tmp_path, module=Content)
    same(again.predict(0), model.predict(0))
    same(again.partial_fit(labelled(TRAIN[:5])).predict(0), model.partial_fit(labelled(TRAIN[:5])).predict(0))


def test_an_exported_module_takes_the_rows():
    model = small(loss="squared_error").fit(TRAIN, item_features=ITEMS)
    user, item = torch.tensor([0, 5]), torch.tensor([7, int(np.flatnonzero(IS_COLD)[0])])
    rows = torch.from_numpy(model.item_features_[item.numpy()].toarray()).float()
    assert_array_equal(model.to_module()(user, item, item_features=rows).detach().numpy(), model.predict(user, item))


@pytest.mark.parametrize(
    ("module", "tables", "params", "error", "message"),
    [
        (
            BiasedMF,
            {"item_features": ITEMS},
            {"module__n_factors": 2},
            TypeError,
            r"must define forward\(user, item, item_features\)",
        ),
        (Content, {}, {}, TypeError, "n_item_features"),
        (Content, {"item_features": ITEMS, "user_features": USERS}, {}, TypeError, "unexpected keyword argument 'user_features'"),
        (
            Content,
            {"item_features": ITEMS},
            {"n_processes": 2, "loss": "squared_error", "optimizer": "SGD"},
            ValueError,
            "user_features and item_features need n_processes=1",
        ),
        (
            Content,
            {"item_features": ITEMS},
            {"features": {"item_features": "weights"}},
            ValueError,
            "that name is used for something else",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_with_words(module, tables, params, error, message):
    with pytest.raises(error, match=message):
        small(module, **params).fit(TRAIN, **tables)


def test_ratings_with_attributes_on_top_of_embeddings_are_predicted_better():
    """What is planted beside rank 3 is an effect of the user's group on the item's: with few ratings only attributes tell."""
    data, _ = planted(3, mean=3.0, noise=0.3, n_users=N_USERS, n_items=N_ITEMS, n_ratings=1500)
    data.ratings = data.ratings + 2.0 * (TASTE[data.user_ids] == GENRE[data.item_ids])

    class Hybrid(BiasedMF):
        def __init__(self, n_users, n_items, n_user_features, n_item_features):
            super().__init__(n_users, n_items, 3)
            self.interaction = nn.Bilinear(n_user_features, n_item_features, 1)

        def forward(self, user, item, user_features, item_features):
            return super().forward(user, item) + self.interaction(user_features, item_features)[:, 0]

    test = np.arange(len(data)) % 5 == 0
    tables = {"user_features": np.eye(N_GENRES)[TASTE], "item_features": ITEMS}
    plain = small(BiasedMF, "squared_error", module__n_factors=3).fit(data[~test])
    assert small(Hybrid, "squared_error").fit(data[~test], **tables).score(data[test]) > plain.score(data[test]) + 0.1


# tables after the fit


class Hybrid(Content):
    """Users and items have rows of their own, and a bias in one tensor; items' attributes come on top."""

    def __init__(self, n_users, n_items, n_item_features, n_factors=6):
        super().__init__(n_users, n_items, n_item_features, n_factors)
        self.item_factors = nn.Embedding(n_items, n_factors)
        self.biases = nn.Parameter(torch.randn(n_users + n_items + 1))
        self.n_users = n_users
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, user, item, item_features):
        biases = self.biases[user] + self.biases[self.n_users + item] + self.biases[-1]
        return super().forward(user, item, item_features) + (self.user_factors(user) * self.item_factors(item)).sum(1) + biases


NEW_FILMS = np.array(["alien", "film050b", "zorro"])  # before, between and after those of fit
NEW_GENRES = np.array(["drama", "epic", "drama"])


def new_films():
    return pytest.importorskip("pandas").DataFrame({"genre": NEW_GENRES}, index=NEW_FILMS)


def of_new(model, user, module=Hybrid):
    """The scores of a user with the new films, by the trained parameters: their own part is the mean of those of observed films."""
    own = {name: tensor.double().numpy() for name, tensor in model.module_.state_dict().items()}
    observed = model.item_counts_ > 0
    scores = []
    for row in model.item_encoder_.transform(new_films()).toarray():
        factors = own["weights.weight"] @ row
        bias = 0.0
        if module is Hybrid:
            factors = factors + own["item_factors.weight"][observed].mean(0)
            bias = own["biases"][user] + own["biases"][len(model.users_) :][: len(observed)][observed].mean() + own["biases"][-1]
        scores.append(own["user_factors.weight"][user] @ factors + bias)
    return np.array(scores)


@pytest.mark.parametrize("module", [Content, Hybrid])
@pytest.mark.parametrize("loss", ["bpr", "squared_error"])
def test_new_items_of_a_table_are_predicted_by_their_attributes(module, loss):
    data = TRAIN if loss == "bpr" else ALL
    model = of_frames(module=module, loss=loss).fit(labelled(data), np.ones(len(data)), item_features=frame())
    before = model.predict(3), {name: tensor.clone() for name, tensor in model.module_.state_dict().items()}
    found = model.predict(3, NEW_FILMS, item_features=new_films())
    np.testing.assert_allclose(found, of_new(model, 3, module), rtol=1e-4, atol=1e-5)
    assert found[0] == found[2] != found[1]  # of one genre
    everything = model.predict(3, item_features=new_films())
    places = np.searchsorted(np.sort([*NAMES, *NEW_FILMS]), NEW_FILMS)
    assert_allclose(everything[places], found, rtol=1e-6)
    assert_allclose(np.delete(everything, places), before[0], rtol=1e-6)
    table = labelled(TRAIN[:3]).assign(item=NEW_FILMS)
    assert_allclose(
        model.predict(table, item_features=new_films()),
        [model.predict(user, film, item_features=new_films()) for user, film in zip(table["user"], NEW_FILMS, strict=True)],
        rtol=1e-6,
    )
    assert_array_equal(model.predict(3), before[0])  # known to that call alone
    assert all(torch.equal(tensor, before[1][name]) for name, tensor in model.module_.state_dict().items())
    assert len(model.items_) == N_ITEMS


def test_new_items_of_a_table_are_recommended():
    model = of_frames().fit(labelled(TRAIN), item_features=frame())
    items, scores = model.recommend([0, 1], k=2, items=NEW_FILMS, item_features=new_films())
    expected = np.array([of_new(model, user, Content) for user in (0, 1)])
    assert_allclose(scores, -np.sort(-expected)[:, :2], rtol=1e-4)
    drama_first = expected[:, 0] > expected[:, 1]
    assert_array_equal(items[:, 0], np.where(drama_first, "alien", "film050b"))
    among_all = model.recommend(0, k=N_ITEMS + 3, exclude_seen=False, item_features=new_films())[0]
    assert set(among_all) == {*NAMES, *NEW_FILMS}
    not_seen = model.recommend(0, k=N_ITEMS + 3, item_features=new_films())
    seen = set(labelled(TRAIN).loc[TRAIN.user_ids == 0, "item"])
    assert set(not_seen[0][np.isfinite(not_seen[1])]) == {*NAMES, *NEW_FILMS} - seen


def test_score_takes_tables_of_further_items():
    model = of_frames().fit(labelled(TRAIN), item_features=frame(~IS_COLD))
    test = labelled(ALL[IS_COLD[ALL.item_ids]])
    assert model.score(test) == 0
    assert model.score(test, item_features=frame(IS_COLD)) > 0.05
    known, cold = (
        of_frames(loss="squared_error").fit(labelled(TRAIN), np.ones(len(TRAIN)), item_features=frame(~IS_COLD)),
        frame(IS_COLD),
    )
    rating = TRAIN.ratings[: len(test)] + np.arange(len(test)) % 2
    predicted = known.predict(test, item_features=cold)
    expected = 1 - np.square(rating - predicted).sum() / np.square(rating - rating.mean()).sum()
    assert known.score(test, rating, item_features=cold) == pytest.approx(expected, rel=1e-9)


def test_new_users_by_position_and_attributes_that_change():
    warm = int(np.flatnonzero(~IS_COLD)[0])
    model = small(variant_of_users(), "squared_error", handle_unknown="error").fit(TRAIN, user_features=USERS)
    more = np.vstack([USERS, [[2.0, 0.5]]])
    weights = model.module_.weights.weight.detach().double().numpy()[0]
    found = model.predict([N_USERS, 0], [warm, warm], user_features=more)
    bias = model.module_.bias.weight[warm].item()
    assert_allclose(found, [more[N_USERS] @ weights + bias, USERS[0] @ weights + bias], rtol=1e-4)
    with pytest.raises(ValueError, match="user id"):
        model.predict([N_USERS], [warm])
    changed = model.predict([0], [warm], user_features=np.array([[3.0, 1.0]]))
    assert_allclose(changed, [np.array([3.0, 1.0]) @ weights + bias], rtol=1e-4)


def variant_of_users():
    class ByUser(nn.Module):
        def __init__(self, n_users, n_items, n_user_features):
            super().__init__()
            self.bias, self.weights = nn.Embedding(n_items, 1), nn.Linear(n_user_features, 1, bias=False)

        def forward(self, user, item, user_features):
            return self.bias(item) + self.weights(user_features)

    return ByUser


def test_unknown_ids_beside_new_ones_are_still_averaged():
    model = of_frames().fit(labelled(TRAIN), item_features=frame())
    unknown = model.predict(3, ["nothing", "alien"], item_features=new_films())
    assert unknown[0] == pytest.approx(model.predict(3, "nothing"), rel=1e-6)
    nan = of_frames(handle_unknown="nan").fit(labelled(TRAIN), item_features=frame())
    assert_array_equal(np.isnan(nan.predict(3, ["nothing", "alien"], item_features=new_films())), [True, False])


def test_a_table_that_the_module_cannot_take_is_refused_with_words():
    model = small(BiasedMF, module__n_factors=2).fit(TRAIN)
    users = small().fit(TRAIN, item_features=ITEMS)
    for call in (model.predict, model.recommend, model.score):
        with pytest.raises(
            ValueError, match=r"item_features need a module whose forward takes them, and BiasedMF has forward\(user"
        ):
            call(TRAIN, item_features=ITEMS)
        with pytest.raises(ValueError, match="no fold-in"):
            call(TRAIN.tocsr(), item_features=ITEMS)
    for call in (users.predict, users.recommend, users.score):
        with pytest.raises(ValueError, match=r"user_features need a module.*Content has forward\(user, item, item_features\)"):
            call(TRAIN, user_features=USERS)
    with pytest.raises(ValueError, match="item_features"):
        users.predict(TRAIN, item_features=ITEMS[:, :2])

    class Anything(BiasedMF):
        def forward(self, user, item, **features):
            return super().forward(user, item)

    with pytest.raises(ValueError, match="item_features were not passed to fit"):
        small(Anything, module__n_factors=2).fit(TRAIN).predict(0, item_features=ITEMS)


def test_tables_after_the_fit_draw_from_no_global_generator():
    model = of_frames(module=Hybrid).fit(labelled(TRAIN), item_features=frame())
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    model.predict(3, NEW_FILMS, item_features=new_films())
    assert_array_equal(torch.rand(3), expected)
