"""One day from beginning to end: lived, judged, counted; and where it fails, made as short as it still fails."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TextIO

from msgspec import Struct

from sim.faults.disk import AnyDiskRule
from sim.faults.wire import PLACE
from sim.host.config import HostConfig
from sim.soak import shrink
from sim.soak.day import Day
from sim.soak.evidence import Evidence, Violation
from sim.soak.history import History
from sim.soak.judge import violations
from sim.soak.living import KEY_LIFE, Life
from sim.world import World
from terminal.config import Config
from terminal.errors import JournalError
from terminal.journal import Journal
from terminal.journal_file import FILE_NAME

ENOUGH = 20_000
"""Payments from which on a run has to have seen everything."""
AT_LEAST = 20
"""Times, of every kind of fault and every cut point."""

FAULT_KINDS = frozenset(PLACE) | {str(rule.__struct_config__.tag) for rule in AnyDiskRule.__args__}
CUT_POINTS = frozenset(
    {f"request.{when}" for when in ("before", "under_way", "unread")}
    | {
        f"{operation}.{when}"
        for operation in ("commit", "checkpoint", "write", "sync", "replace")
        for when in ("before", "during", "after")
    }
)
"""What a day of ENOUGH payments has to count."""


class Report(Struct, kw_only=True):
    """What ``till soak --json`` ends with."""

    payments: int
    faults: dict[str, int]
    power_cuts: dict[str, int]
    violations: list[dict[str, str]]
    missing: list[str]
    """What happened fewer than AT_LEAST times in a day of ENOUGH payments."""
    simulated_hours: float
    seconds: float
    payments_per_second: float
    seed: int
    history_sha256: str

    @property
    def well(self) -> bool:
        """Nothing was violated, and nothing is missing."""
        return not self.violations and not self.missing


class Lived(Struct):
    """A day that is over."""

    report: Report
    violations: list[Violation]
    tail: list[str]
    """The last lines of its history."""
    happened: dict[str, int]
    """Steps and answers, by kind."""


def lived(
    day: Day, *, file: TextIO | None = None, progress: Callable[[int], None] | None = None, complete: bool = True
) -> Lived:
    """Live through a day in a folder of its own, in memory where this machine has such folders.

    ``file`` takes the history; ``progress`` is told of every charge, by their number; without ``complete`` nothing
    has to have happened often enough.
    """
    began = perf_counter()
    history = History(file)
    with _folder() as folder, World(folder, seed=day.seed, config=_host(day)) as world:
        life = Life(world, day, history, progress or (lambda done: None))
        with _overheard(history):
            life.live()
        seen = _evidence(world, life, day)
        hours = world.loop.time() / 3600
        faults = dict(sorted(world.fault_counts().items()))
        cuts = dict(sorted(world.power.cuts.items()))
    found = violations(seen)
    seconds = perf_counter() - began
    report = Report(
        payments=day.payments,
        faults=faults,
        power_cuts=cuts,
        violations=[{"rule": one.rule, "about": one.about, "says": one.says} for one in found],
        missing=missing(faults, cuts) if complete and day.payments >= ENOUGH else [],
        simulated_hours=round(hours, 3),
        seconds=round(seconds, 3),
        payments_per_second=round(day.payments / seconds, 1),
        seed=day.seed,
        history_sha256=history.digest,
    )
    return Lived(report, found, history.tail, dict(sorted(life.record.happened.items())))


def missing(faults: dict[str, int], cuts: dict[str, int]) -> list[str]:
    """What has happened too rarely for the day to prove anything about it."""
    rare = [
        f"fault {kind}: {faults.get(kind, 0)}" for kind in sorted(FAULT_KINDS) if faults.get(kind, 0) < AT_LEAST
    ]
    return rare + [
        f"cut {point}: {cuts.get(point, 0)}" for point in sorted(CUT_POINTS) if cuts.get(point, 0) < AT_LEAST
    ]


def shortest(day: Day, violation: Violation, *, tries: int = 200) -> Day:
    """The shortest day found that still offends the same rule."""

    def fails(shorter: Day) -> bool:
        return any(one.rule == violation.rule for one in lived(shorter).violations)

    return shrink.shrunk(day, fails, about=violation.about, tries=tries)


def _host(day: Day) -> HostConfig:
    return HostConfig(offers_lookup=day.lookup, max_exchanges=64, idempotency_life=KEY_LIFE)


def _evidence(world: World, life: Life, day: Day) -> Evidence:
    """Everything is read again from where it lies."""
    record, terminal_id = life.record, str(world.device["terminal_id"])
    damage: list[str] = []
    payments, entries = [], []
    try:
        journal = Journal.read(world.home / FILE_NAME)
        try:
            journal.verify()
            payments, entries = journal.payments(), list(journal.records())
        finally:
            journal.close()
    except JournalError as error:
        damage.append(str(error))
    for path in sorted(world.home.iterdir()):
        if path.is_file() and life.history.secrets.within(path.read_bytes()):
            record.leaks.append(path.name)
    record.leaks += life.history.leaks
    books = [charge for charge in world.run(world.books()) if charge["terminal_id"] == terminal_id]
    return Evidence(
        payments, entries, books, record, terminal_id, day.lookup, _offline_limits(life.config), tuple(damage)
    )


def _offline_limits(config: Config | None) -> dict[str, int]:
    if config is None or not config.security.offline.allowed:
        return {}
    told = config.security.offline
    return {
        "max_amount": int(told.max_amount),
        "max_total": int(told.max_total),
        "max_count": told.max_count,
        "max_age_sec": told.max_age_sec,
    }


@contextmanager
def _folder() -> Iterator[Path]:
    memory = Path("/dev/shm")  # noqa: S108 a folder of our own is made in it
    with tempfile.TemporaryDirectory(prefix="till-soak-", dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


class _Ear(logging.Handler):
    """Searches the log for secrets, and keeps it off the screen."""

    def __init__(self, history: History) -> None:
        super().__init__()
        self._history = history

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        if self._history.secrets.within(line):
            self._history.leaks.append(f"a line of the log ({record.name})")


@contextmanager
def _overheard(history: History) -> Iterator[None]:
    root, ear = logging.getLogger(), _Ear(history)
    root.addHandler(ear)
    try:
        yield
    finally:
        root.removeHandler(ear)
