"""An event loop on which time passes only when nothing else is left to do.

`asyncio.sleep`, `asyncio.timeout` and `loop.time()` all follow it, so that an eight-second answer takes no time
and a day of heartbeats takes a second. It is for worlds in one process: bytes that another process sends take
real time, and this loop would not wait for them.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from sim.power import adopting

T = TypeVar("T")

EPOCH = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
"""When virtual time begins: a Monday morning."""


class _Selector(selectors.DefaultSelector):
    """Asks the descriptors once; instead of waiting it moves the clock on."""

    elapsed = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("deadlock: every task waits, and no timer is left to wake one")
            self.elapsed += max(0.0, timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop; ``now`` is the time of day that goes with its clock."""

    def __init__(self, start: datetime = EPOCH) -> None:
        self._virtual = _Selector()
        self._start = start
        self._told = 0.0, start
        super().__init__(self._virtual)
        self.set_task_factory(adopting)

    def time(self) -> float:
        """Seconds since the world began."""
        return self._virtual.elapsed

    def skip(self, seconds: float) -> None:
        """So much time is over at once: whatever was due meanwhile comes right after, in the order of its time.

        As for a process that was stopped, and goes on. All that runs on this loop is stopped together.
        """
        self._virtual.elapsed += seconds

    def now(self) -> datetime:
        """The time of day, aware and in UTC."""
        if self._virtual.elapsed != self._told[0]:  # it is asked for far more often than it moves
            self._told = self._virtual.elapsed, self._start + timedelta(seconds=self._virtual.elapsed)
        return self._told[1]


def run(main: Coroutine[Any, Any, T], loop: VirtualLoop | None = None) -> T:
    """Run ``main`` to its end in virtual time."""
    with asyncio.Runner(loop_factory=lambda: loop or VirtualLoop()) as runner:
        return runner.run(main)
