"""Whose turn it is: one payment at a time, and between payments what keeps the terminal in order."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 2.0
"""Seconds that a payment waits for work between payments that it has found under way: taking new keys on a healthy
network ends sooner, and nobody at a counter notices."""


LONGEST = 60.0
"""Seconds after which payments that follow one another without a pause let something else come between: else what a
kiosk owes would wait for as long as it is busy."""
PAUSE = 1.0
"""Seconds between two payments from which on there was a pause."""


class Interrupted(Exception):
    """A payment came first: the work between payments was not begun, or was broken off. Try it again later."""


class Turn:
    """``async with turn:`` is a payment's turn, in the order in which they came. ``between`` gives way to them."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._waiting = 0
        self._spare: asyncio.Timeout | None = None
        self._busy_since = self._freed_at = -math.inf

    def busy(self) -> bool:
        """Whether what comes between payments had better wait."""
        return self.taken() and not self._overdue()

    def taken(self) -> bool:
        """Whether a payment has the turn, or waits for it."""
        return self._waiting > 0 or (self._lock.locked() and self._spare is None)

    async def __aenter__(self) -> None:
        self._waiting += 1
        try:
            if self._spare is not None and self._spare.when() is None:
                self._spare.reschedule(asyncio.get_running_loop().time() + PATIENCE)
            await self._lock.acquire()
        finally:
            self._waiting -= 1
        if (now := _time()) - self._freed_at >= PAUSE:
            self._busy_since = now

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._freed_at = _time()
        self._lock.release()

    async def between(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run ``work`` while nobody pays. A payment that comes meanwhile waits ``PATIENCE`` seconds at most.

        ``work`` is cancelled then, wherever it awaits, and must stand that. A payment that waits already goes
        first, unless payments have followed one another for ``LONGEST`` seconds. Raises Interrupted, and what it
        raises.
        """
        async with self._lock:
            if self._waiting and not self._overdue():
                raise Interrupted
            try:
                async with asyncio.timeout(PATIENCE if self._waiting else None) as limit:
                    self._spare = limit
                    return await work()
            except TimeoutError:
                if limit.expired():
                    raise Interrupted from None
                raise
            finally:
                self._spare = None
                self._busy_since = self._freed_at = _time()

    def _overdue(self) -> bool:
        """Payments have followed one another for too long."""
        return _time() - self._busy_since >= LONGEST


def _time() -> float:
    return asyncio.get_running_loop().time()
