"""Our calls on the page for those who come from Spotlight run as they stand; Spotlight's do in test_spotlight_interop."""

import pytest
import tutorial
from data import planted
from migration import CALLS, N_ROWS
from sklearn.model_selection import train_test_split
from sklearn.utils import shuffle

import sk_torchmf
from sk_torchmf import BiasedMatrixFactorization
from sk_torchmf.model_selection import HeldOutUsers

DATA = planted(3, mean=3.0, n_users=30, n_items=20, n_ratings=300)[0]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("ours", [ours for _, ours in CALLS])
def test_our_call_on_the_page_runs(ours):
    names = {name: getattr(sk_torchmf, name) for name in sk_torchmf.__all__}
    names |= {name: getattr(sk_torchmf.spotlight, name) for name in sk_torchmf.spotlight.__all__}
    names |= {"HeldOutUsers": HeldOutUsers, "train_test_split": train_test_split, "shuffle": shuffle, "MyModule": tutorial.Biased}
    names |= {"data": DATA, "train": DATA[:200], "test": DATA[200:], "user_ids": DATA.user_ids, "item_ids": DATA.item_ids}
    names |= {"ratings": DATA.ratings, "model": BiasedMatrixFactorization(random_state=0).fit(DATA[:200])}
    exec(ours, names)


def test_every_row_of_the_page_has_both_calls():
    assert len(CALLS) == N_ROWS > 20
