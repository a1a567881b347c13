"""A plugin that skips what it should not, as a careless driver's author might."""

from __future__ import annotations

import pytest


def pytest_runtest_call(item: pytest.Item) -> None:
    if "swipe" in item.nodeid:
        pytest.skip("the stripe is for later")
