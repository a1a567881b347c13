"""Whose turn it is: one payment at a time, and between payments what keeps the terminal in order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 2.0
"""Seconds that a payment waits for work between payments that it has found under way: taking new keys on a healthy
network ends sooner, and nobody at a counter notices."""


class Interrupted(Exception):
    """A payment came first: the work between payments was not begun, or was broken off. Try it again later."""


class Turn:
    """``async with turn:`` is a payment's turn, in the order in which they came. ``between`` gives way to them."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._waiting = 0
        self._spare: asyncio.Timeout | None = None

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

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    async def between(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run ``work`` while nobody pays. A payment that comes meanwhile waits ``PATIENCE`` seconds at most.

        ``work`` is cancelled then, wherever it awaits, and must stand that. Raises Interrupted, and what it raises.
        """
        async with self._lock:
            if self._waiting:
                raise Interrupted
            try:
                async with asyncio.timeout(None) as limit:
                    self._spare = limit
                    return await work()
            except TimeoutError:
                if limit.expired():
                    raise Interrupted from None
                raise
            finally:
                self._spare = None
