"""``pytest --reader URL``: the conformance suite, and nothing else, against a reader. See ``docs/wiring.md``.

Without ``--reader`` this adds its options and does nothing; `hw.conformance.session` is imported with it alone.
"""

from __future__ import annotations

from pathlib import Path

import pytest

SUITE = tuple(Path(__file__).with_name(name) for name in ("test_reader.py", "test_cards.py", "test_unplugging.py"))

MARKS = (
    "capability(name): needs a reader that can do this; skipped for one that cannot, and for no other",
    "presents: needs somebody, or an emulator, to present a card",
    "unplugs: needs somebody to pull the plug; run with --reader-unplug",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds --reader and what goes with it."""
    group = parser.getgroup("tillwright readers")
    group.addoption("--reader", metavar="URL", help="run the conformance suite, alone, against this reader")
    group.addoption(
        "--reader-timeout", metavar="SECONDS", type=float, default=30.0, help="how long to wait for a person"
    )
    group.addoption("--reader-unplug", action="store_true", help="also what needs the plug to be pulled")
    group.addoption("--reader-report", metavar="FILE", help="write what was found to FILE, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    """Registers the marks; with --reader, turns to the suite."""
    for mark in MARKS:
        config.addinivalue_line("markers", mark)
    if config.getoption("--reader") is None:
        return
    if getattr(config.option, "numprocesses", None) or hasattr(config, "workerinput"):
        raise pytest.UsageError("one reader cannot be tested by several processes: leave out -n")
    config.args = [str(path) for path in SUITE]
    config.pluginmanager.import_plugin("hw.conformance.session")
