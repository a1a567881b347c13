"""Fixtures for tests of programs that use the terminal: a host, a till and everything that may go wrong between.

    def test_a_lost_answer_charges_nobody_twice(till_host, till_terminal):
        till_host.fault({"match": {"call": "charge", "nth": 1}, "do": "drop_answer"})
        payment = till_terminal.charge("12.50", reference="order-17")
        assert payment.state == "approved"
        assert till_host.charge("order-17")["status"] == "approved"

- ``world``: a ``sim.world.World`` in the test's own folder;
- ``till_host``: its host (``sim.synchronous.Host``);
- ``till_terminal``: a terminal in it, activated and running (``sim.synchronous.Till``); ``till_settings`` are the
  settings that it gets, for a test module to override;
- ``till_seed``: everything in the world comes from it: ``--till-seed``, else from the test's name.

Time is the world's and costs nothing. A test that fails reports its seed and what happened. Nothing is imported
until one of the fixtures is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from sim.soak.history import History
    from sim.synchronous import Host, Till
    from sim.world import World

_HISTORY = pytest.StashKey[tuple[int, "History"]]()
LINES = 60
"""Of what happened, at most so many of the last lines are reported."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds --till-seed."""
    group = parser.getgroup("tillwright")
    group.addoption("--till-seed", type=int, default=None, help="the seed of the worlds of all tests")


@pytest.fixture
def till_seed(request: pytest.FixtureRequest) -> int:
    """The seed of the test's world."""
    given: int | None = request.config.getoption("--till-seed")
    return given if given is not None else int.from_bytes(sha256(request.node.nodeid.encode()).digest()[:4], "big")


@pytest.fixture
def till_settings() -> dict[str, Any]:
    """Settings of the terminal that differ from the defaults (``terminal.settings``); override it in your tests."""
    return {}


@pytest.fixture
def world(request: pytest.FixtureRequest, tmp_path: Path, till_seed: int) -> Iterator[World]:
    """A world of the test's own, from ``till_seed``."""
    from sim.soak.history import History
    from sim.world import World

    history = History()
    request.node.stash[_HISTORY] = till_seed, history
    with World(tmp_path / "world", seed=till_seed) as world:
        yield world


@pytest.fixture
def till_host(world: World) -> Host:
    """The host of the test's world."""
    from sim.synchronous import Host

    return Host(world)


@pytest.fixture
def till_terminal(request: pytest.FixtureRequest, world: World, till_settings: dict[str, Any]) -> Iterator[Till]:
    """A till with its terminal, activated and running in the test's world."""
    from sim.synchronous import Till

    _, history = request.node.stash[_HISTORY]
    till = Till(world, history, **till_settings)
    till.open()
    yield till
    till.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Reports the seed and what happened with a test that failed."""
    report: pytest.TestReport = yield
    kept = item.stash.get(_HISTORY, None)
    if kept is not None and report.when == "call" and report.failed:
        seed, history = kept
        shown = "".join(history.tail[-LINES:])
        report.sections.append(("tillwright", f"again with: --till-seed {seed}\n{shown}"))
    return report
