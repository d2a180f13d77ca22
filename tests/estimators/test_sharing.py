"""Fits that several processes share, in real ones: the same as by one, or refused with words; errors end all of them."""

import sys
from functools import cache

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from several_processes import run
from sharing import ERRORS, FITS, FORMS, N_USERS, OTHER_FITS, OTHERS, REFUSED, TIMEOUT, assert_same, make, part

from sk_torchmf.inputs.stable_hash import shares, stable_hash

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks")
EVERY_FIT = [*FITS, *OTHER_FITS]
BOTH_KINDS = [name.removeprefix("plain_") for name in FITS if name.startswith("plain_") and name.replace("plain", "biased") in FITS]
ONLY_ON_TWO = {f"{('plain', 'biased')[at % 2]}_{name}" for at, name in enumerate(BOTH_KINDS)}  # on four one kind of each, in turn
TOLERANCES = {"in_single_precision": 2e-4, "of_two_users": 1e-8}  # the covariance of two rows has no inverse but for its floor
GROUPS = [  # one after another: each has a limit of its own
    *(list(FITS)[first : first + 12] for first in range(0, len(FITS), 12)),
    [*OTHER_FITS, *OTHERS, *[f"refused_{name}" for name in REFUSED], *ERRORS, "afterwards"],
]


every_fit = pytest.mark.parametrize(
    ("size", "case"), [(size, case) for size in (2, 4) for case in EVERY_FIT if size == 2 or case not in ONLY_ON_TWO]
)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process in a group of one finds."""
    return {
        name: found[0]
        for name, found in run(
            "sharing", [*((group, 60) for group in GROUPS[:-1]), ([*OTHER_FITS, "long_fit"], 60)], 1, tmp_path_factory.mktemp("one")
        ).items()
    }


@pytest.fixture(scope="module")
def found_by(tmp_path_factory):
    """What so many processes find, once for all tests."""

    @cache
    def found_by(size):
        groups = [[name for name in group if size == 2 or name not in ONLY_ON_TWO] for group in GROUPS]
        return run("sharing", [*((group, 60) for group in groups), (["killed"], TIMEOUT)], size, tmp_path_factory.mktemp("ranks"))

    return found_by


@pytest.fixture(params=[2, 4])
def size(request):
    return request.param


@pytest.fixture
def found(size, found_by):
    return found_by(size)


def covariances(posterior):
    """Of the rows and, where they have features, of an unknown one, by a loop: a basis is known up to the signs of its columns."""
    basis, curvature, noise, count, *mean_variance = posterior
    variances = [noise / (n * curvature + noise) for n in [*count, *([0.0] if mean_variance else [])]]
    if mean_variance:
        variances = [v + v**2 * own for v, own in zip(variances, mean_variance[0], strict=True)]
    return np.array([(basis * v) @ basis.T for v in variances])


@every_fit
def test_gathered_parts_are_the_fit_of_one_process(found, alone, case):
    tolerance = TOLERANCES.get(case, 1e-12)
    _, expected = alone[case]
    for _, gathered in found[case]:
        assert gathered.keys() == expected.keys()
        for name, value in expected.items():
            has_rows = "posterior" in name and value is not None
            ours, theirs = map(covariances, [gathered[name], value]) if has_rows else (gathered[name], value)
            assert_same(ours, theirs, name, tolerance)


@every_fit
def test_items_are_everywhere_and_each_user_is_in_one_place(found, alone, case, size):
    expected = alone[case][0]
    everywhere = ["items_", "item_factors_", "item_counts_", "mean_user_", "mean_item_", "rating_range_", "history_", "user_prior_"]
    first = found[case][0][0]
    for own, _ in found[case]:
        for name in everywhere:
            assert_same(own[name], first[name], name, 0.0)
        assert own["seen_"].shape == (len(own["users_"]), len(own["items_"])) == (own["n_users_"], own["n_items_"])
        place = np.searchsorted(expected["users_"], own["users_"])
        if "observed_" in own:  # what is on disk is not kept
            assert_same(own["observed_"], expected["observed_"][place], "observed_", 0.0 if "single" not in case else 1e-6)
        tolerance = TOLERANCES.get(case, 1e-12)
        assert_same(own["user_factors_"], expected["user_factors_"][place], "user_factors_", tolerance)
    assert_array_equal(np.sort(np.concatenate([own["users_"] for own, _ in found[case]])), expected["users_"])


def test_users_belong_to_the_process_of_their_hash(found, size):
    for rank, (own, _) in enumerate(found["biased_text"]):
        assert len(own["users_"])
        assert (shares(stable_hash(own["users_"], "user"), size) == rank).all()
    for rank, (own, _) in enumerate(found["biased_sparse"]):
        assert_array_equal(own["users_"], np.arange(N_USERS * rank // size, N_USERS * (rank + 1) // size))
    assert [len(own["users_"]) for own, _ in found["one_user"]].count(0) == size - 1


def test_initial_rows_are_all_that_differs_from_a_fit_that_is_not_distributed(alone):
    """After 300 iterations with one factor it is all but forgotten where they began: predictions have a spread of 0.66."""
    X, y, _ = part(0, 1)
    expected = make(n_factors=1, max_iter=300, distributed=False).fit(X, y).predict(X)
    assert_allclose(alone["long_fit"], expected, rtol=0, atol=2e-3)


def test_a_row_of_each_item_is_summed_an_epoch(found, size):
    """Slopes, k + 1 with the bias; counts or squares of errors; squares of moves; nothing of the users. For als a matrix too."""
    numbers = {"variational": 300 * (3 + 3), "als": 300 * (4 * 4 + 4), "adam": 300 * (3 + 1) + 2}  # and loss and ridge
    assert found["bytes_of_an_epoch"] == [{solver: 8 * n for solver, n in numbers.items()}] * size


def test_seed_is_agreed_where_none_is_given(found, size):
    assert all(np.array_equal(own, found["without_a_seed"][0]) for own in found["without_a_seed"])


def test_first_process_prints(found, size):
    assert [text.count("iteration") for text in found["printed"]] == [2] + [0] * (size - 1)


def test_one_that_stops_ends_all(found):
    assert [n_iter for n_iter, _ in found["stopped_by_one"]] == [2] * len(found["stopped_by_one"])
    assert all(history == found["stopped_by_one"][0][1] for _, history in found["stopped_by_one"])


def test_users_of_others_are_unknown_until_gathered(found):
    for users, of_others, n_users in found["what_is_asked_of_others"]:
        assert 0 < len(users) < N_USERS
        assert len(of_others) == 1  # that of the mean user
        assert n_users == N_USERS
    assert len({of_others[0] for _, of_others, _ in found["what_is_asked_of_others"]}) == 1


@pytest.mark.parametrize("form", FORMS)
def test_process_says_of_its_users_what_the_whole_says(found, form):
    for own, whole, loaded in found[f"asked_{form}"]:
        for name, answer in whole.items():
            assert_same(own[name], answer, name, 1e-12)
            assert_same(loaded[name], own[name], name, 0.0)


def test_process_without_users_answers_for_unknown_and_new_ones(found, size):
    answers = [answer for own in found["asked_without_users"] for answer in own]
    assert sorted(n_users for n_users, *_ in answers) == [0] * (2 * size - 2) + [1] * 2
    for _, scores, best, of_new in answers:
        assert_allclose(scores, answers[0][1], rtol=1e-12)
        assert_array_equal(best[0], answers[0][2][0])
        assert_allclose(of_new, answers[0][3], rtol=1e-12)


def test_only_the_parts_of_a_fit_can_be_gathered(found, size):
    assert all(f"on these {size} ranks" in text for text in found["gathered_on_other_parts"])


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_shared_is_refused_by_all(found, name, size):
    text = REFUSED[name][2]
    for kind, message in found[f"refused_{name}"]:
        assert kind == "ValueError"
        assert text in message


@pytest.mark.parametrize(
    ("case", "culprits", "text"),
    [
        ("error_in_one", {1}, "y[2] is nan"),
        ("labels_that_do_not_go_together", None, 'loss="logistic" needs ratings between 0 and 1, or all of them -1 or 1. Got -1.0'),
        ("ratings_out_of_range_in_one", None, 'loss="poisson" needs ratings >= 0 (counts). Got -6.0.'),
        ("going_on_elsewhere", None, "warm_start=True needs each user on the rank that had the user in the earlier fit. User "),
        (
            "going_on_in_one",
            None,
            "on all ranks or on none. Got a fitted one on rank 0 and one that is not on rank 1. Fit with warm_start=False.",
        ),
        ("features_that_differ", {0}, "item_features has different rows for the item 99 on two ranks."),
        ("features_of_other_columns", None, "item_features must have the same columns on all ranks that have any. Got ['place']"),
        ("ids_of_another_type", None, "user ids of user_features must be of the same type as those of X, numbers. Got text."),
        ("one_level", None, "needs ratings of at least two levels. All are 2 (n_samples = 274)"),
    ],
)
def test_error_of_one_is_raised_by_all(found, case, culprits, text, size):
    for rank, (kind, message) in enumerate(found[case]):
        assert text in message
        if culprits is not None:
            assert kind == ("ValueError" if rank in culprits else "DistributedError")


def test_parameters_must_be_the_same(found, size):
    kinds = [kind for kind, _ in found["parameters_that_differ"]]
    assert kinds == ["ValueError"] * size
    text = "All ranks must have the same parameters. Got max_iter=3 on rank 0 and max_iter=4 on rank 1."
    assert found["parameters_that_differ"][0][1] == text


def test_partial_fit_is_for_one_process(found):
    for kind, message in found["partial_fit_refused"]:
        assert kind == "ValueError"
        assert "partial_fit needs distributed=False" in message
        assert "gather()" in message


def test_all_diverge_where_one_does(found):
    for kind, _ in found["divergence"]:
        assert kind == "DivergenceError"
    for kind, message, as_before in found["divergence_in_one"]:
        assert kind == "DivergenceError"
        assert "user_factors_ is not finite" in message
        assert as_before


def test_group_is_as_before_after_all_that(found, alone):
    for own, gathered in found["afterwards"]:
        assert_same(own["item_factors_"], alone["biased_squared_error"][0]["item_factors_"], "item_factors_", 1e-12)
        assert len(gathered["users_"]) == N_USERS


def test_process_that_ends_ends_all_within_the_timeout(found):
    assert found["killed"][1] is None
    for rank, own in enumerate(found["killed"]):
        if rank != 1:
            kind, message, seconds = own
            assert kind == "DistributedError"
            assert "has lost contact with the others" in message
            assert seconds < TIMEOUT + 5


def test_without_a_group_there_is_no_distributed_fit():
    X, y, _ = part(0, 1)
    with pytest.raises(ValueError, match="distributed=True needs a process group"):
        make().fit(X, y)


def test_parts_need_no_group_where_nothing_is_distributed():
    X, y, _ = part(0, 1)
    model = make(distributed=False).fit(X, y)
    whole_of_it = model.gather()
    assert whole_of_it is not model
    assert_array_equal(whole_of_it.predict(X), model.predict(X))
