"""What the tests of the torch side share with pytest: patterns of pairs."""

import pytest
from pair_patterns import PATTERNS, draw_pairs

from sk_torchmf.nn import Pairs


@pytest.fixture(params=PATTERNS.values(), ids=PATTERNS.keys())
def pattern(request):
    """(user, item, Pairs) of one of the patterns."""
    n_users, n_items, n_pairs = request.param
    user, item = draw_pairs(n_users, n_items, n_pairs)
    return user, item, Pairs(user, item, n_users, n_items)
