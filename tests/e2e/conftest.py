from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.bad_days import Days
from tests.e2e.hosted import Home, host, pair_beforehand, provisioned
from tests.e2e.shop import Shop


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a real host listens."""
    with host(tmp_path_factory.mktemp("host")) as listening:
        yield listening


@pytest.fixture(scope="module")
def days() -> Iterator[Days]:
    """Runs commands on bad days."""
    with Days() as running:
        yield running


@pytest.fixture
def shop(url: str, tmp_path: Path, days: Days) -> Shop:
    """A home that is activated there."""
    shop = Shop(url, tmp_path / "home", days)
    shop.activate()
    return shop


@pytest.fixture(scope="module")
def activated(url: str, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A terminal that is activated."""
    home = Home(tmp_path_factory.mktemp("activated") / "home", url)
    pair_beforehand(url, provisioned(url, home.path))
    home.run("activate")
    return home
