"""Plain asserts of the shared contract explain themselves as those of a test module do."""

import pytest

pytest.register_assert_rewrite("contract")
