"""A run of the suite: the reader, the person in front of it, and the report."""

from __future__ import annotations

import asyncio
import json
import re
import statistics
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

from hw.card import Card, ChipCard, EntryMode
from hw.errors import BadAddress, CardError, CardGone, LineError, NotSupported, ReaderError, TimedOut
from hw.reader import Capabilities, Reader, ReaderEvent, open_reader
from hw.trace import Tracer

T = TypeVar("T")

WAYS: Final[Mapping[str, tuple[str, EntryMode]]] = {
    "tap": ("contactless", EntryMode.CONTACTLESS),
    "insert": ("contact", EntryMode.CHIP),
    "swipe": ("stripe", EntryMode.SWIPE),
}
"""How a card is presented -> the capability that takes it, and how it then comes in."""

TRIES: Final = 10
"""How often a card may be pulled too soon, or lie there when it should not, before that is the reader's fault."""

_BENCH = pytest.StashKey["Bench"]()


def can(capabilities: Capabilities, name: str) -> bool:
    """Whether a reader can do something by name; ``apdu``: its chips are spoken to from here."""
    if name == "apdu":
        return (capabilities.contact or capabilities.contactless) and not capabilities.own_kernel
    return bool(getattr(capabilities, name))


class Bench:
    """What the tests of the suite have: the reader, anew for each, and somebody who presents cards."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self.url = str(config.getoption("--reader"))
        self.timeout: float = config.getoption("--reader-timeout")
        try:
            self.capabilities = open_reader(self.url).capabilities
        except (BadAddress, NotSupported) as error:
            raise pytest.UsageError(f"{error}\n       {error.advice}".rstrip()) from None
        self._look_at(config.getoption("--reader-report"))
        self.firmware = ""
        self.events: list[ReaderEvent] = []
        """Of the test that runs."""
        self.counts: Counter[str] = Counter()
        self.round_trips: list[float] = []
        self.outcomes: dict[str, str] = {}

    def _look_at(self, report: str | None) -> None:
        """Nobody is to present cards for a report that can then not be written."""
        try:
            if report:
                Path(report).open("a").close()
        except OSError as error:
            raise pytest.UsageError(f"--reader-report {report}: {error.strerror}") from None

    def run(self, work: Callable[[Reader], Awaitable[T]], write: Callable[[str], object] | None = None) -> T:
        """Do something with the reader, open for that time. ``write`` is given the lines of a trace."""
        return asyncio.run(self._run(work, write))

    async def _run(self, work: Callable[[Reader], Awaitable[T]], write: Callable[[str], object] | None) -> T:
        self.events = []
        reader = open_reader(self.url)
        if write is not None:
            reader.tracer = Tracer(write, asyncio.get_running_loop().time)
        reader.on_event = self.events.append
        try:
            async with reader:
                self.firmware = str(getattr(reader, "firmware", "") or self.firmware)
                return await work(reader)
        finally:
            counts = reader.statistics
            self.counts += Counter(frames_out=counts.frames_out, frames_in=counts.frames_in, retries=counts.retries)
            self.counts += counts.errors
            self.round_trips += counts.round_trips

    def ask(self, what: str) -> None:
        """Say on the screen what somebody is to do."""
        capture = self._config.pluginmanager.getplugin("capturemanager")
        screen = self._config.pluginmanager.getplugin("terminalreporter")
        if capture is None or screen is None:
            return
        with capture.global_and_fixture_disabled():
            screen.ensure_newline()
            screen.write_line(f">>> {what}", bold=True)

    async def card(self, reader: Reader, way: str) -> Card:
        """The next card that is presented in this way; those that come in another, or unreadable, do not count.

        Raises TimedOut.
        """
        self.ask(f"{way} a card, and leave it there" if way != "swipe" else "swipe a card")
        loop = asyncio.get_running_loop()
        due = loop.time() + self.timeout
        while (left := due - loop.time()) > 0:
            try:
                card = await reader.wait_for_card(left)
            except CardError as error:
                self.ask(f"{error}: once more")
                continue
            if card.entry_mode is WAYS[way][1]:
                return card
            await let_go(card)
        raise TimedOut(f"{self.url}: nobody did {way} a card within {self.timeout:g} seconds")

    async def with_chip(self, reader: Reader, way: str, work: Callable[[ChipCard], Awaitable[T]]) -> T:
        """Do something with a chip, and once more with the next where it was taken away too soon."""
        for _ in range(TRIES):
            card = await self.card(reader, way)
            assert isinstance(card, ChipCard), f"a chip that is spoken to from here came as {card!r}"
            try:
                return await work(card)
            except CardGone:
                self.ask("it was taken away too soon")
            finally:
                await card.release()
        raise CardGone(f"{self.url}: the card was gone too soon {TRIES} times")

    def report(self) -> dict[str, Any]:
        """What was found, as plain values."""
        trips = sorted(1000 * seconds for seconds in self.round_trips)
        return {
            "reader": self.url,
            "firmware": self.firmware,
            "capabilities": [name for name, value in asdict(self.capabilities).items() if value],
            "counts": dict(self.counts),
            "round_trip_ms": {
                "min": round(trips[0], 3),
                "median": round(statistics.median(trips), 3),
                "max": round(trips[-1], 3),
            }
            if trips
            else {},
            "tests": self.outcomes,
        }


async def let_go(card: Card) -> None:
    """Release a chip; other cards need no such thing."""
    if isinstance(card, ChipCard):
        await card.release()


@pytest.fixture(scope="session")
def bench(request: pytest.FixtureRequest) -> Bench:
    """The reader under test."""
    return request.config.stash[_BENCH]


def pytest_configure(config: pytest.Config) -> None:
    """The reader's URL is looked at before anything is collected."""
    config.stash[_BENCH] = Bench(config)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What a reader does not declare it is not asked for."""
    capabilities = config.stash[_BENCH].capabilities
    kept: list[pytest.Item] = []
    left: list[pytest.Item] = []
    for item in items:
        missing = [name for name in _needed(item) if not can(capabilities, name)]
        if missing:
            item.add_marker(pytest.mark.skip(reason=f"the reader does not declare: {', '.join(missing)}"))
        unplugs = item.get_closest_marker("unplugs") is not None and not config.getoption("--reader-unplug")
        (left if unplugs else kept).append(item)
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = kept


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """A reader that does not open is told once, and not by every test."""
    if session.config.option.collectonly or not session.items:
        return

    async def answers(reader: Reader) -> None:
        """Opening it has said so."""

    try:
        session.config.stash[_BENCH].run(answers)
    except ReaderError as error:
        raise pytest.UsageError(f"{error}\n       {error.advice}".rstrip()) from None


def _needed(item: pytest.Item) -> list[str]:
    return [name for mark in item.iter_markers("capability") for name in mark.args]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """A test that is skipped although the reader declares what it needs is a failure.

    Where the line failed that is said, with what to do; ``--tb=long`` shows where.
    """
    report: pytest.TestReport = yield
    bench = item.config.stash[_BENCH]
    error = call.excinfo.value if call.excinfo is not None else None
    if report.failed and isinstance(error, LineError) and item.config.getoption("tbstyle") == "auto":
        report.longrepr = f"{type(error).__name__}: {error}\n{error.advice}".rstrip()
    if report.skipped and all(can(bench.capabilities, name) for name in _needed(item)):
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped, and the reader declares all that it needs: {why}"
    name = re.sub(r"^.*::", "", item.nodeid)
    if report.when == "call" or report.outcome != "passed":
        bench.outcomes[name] = report.outcome
    return report


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The report, and where it is wanted its file."""
    report = config.stash[_BENCH].report()
    counts = ", ".join(f"{name.replace('_', ' ')} {number}" for name, number in report["counts"].items())
    trips = ", ".join(f"{name} {value}" for name, value in report["round_trip_ms"].items())
    terminalreporter.section("reader")
    terminalreporter.write_line(f"{report['reader']}  {report['firmware']}".rstrip())
    terminalreporter.write_line(f"declares: {', '.join(report['capabilities'])}")
    terminalreporter.write_line(f"counted: {counts or 'nothing'}")
    if trips:
        terminalreporter.write_line(f"round trips in ms: {trips}")
    if file := config.getoption("--reader-report"):
        Path(file).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
