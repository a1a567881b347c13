"""Time and randomness, as they are handed in.

Durations are measured by the event loop (``loop.time()``, ``asyncio.sleep``, ``asyncio.timeout``), which a
simulated world replaces as a whole; only the time of day needs a clock of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Now = Callable[[], datetime]
"""The time of day, always aware and in UTC."""

Random = Callable[[int], bytes]
"""``random(n)`` gives n bytes fit for keys, IVs and nonces."""


def system_now() -> datetime:
    """The device's own clock, in UTC."""
    return datetime.now(UTC)


system_random: Random = os.urandom


class HostClock:
    """The host's time of day, kept as an offset to the device's clock.

    A device without a battery-backed clock wakes up in the wrong year; the host tells the time at bootstrap
    (``server_time``), and signatures are dated by that.
    """

    def __init__(self, now: Now, offset: timedelta = timedelta()) -> None:
        self._now = now
        self.offset = offset

    def now(self) -> datetime:
        """The host's time of day as we know it, aware and in UTC."""
        return self._now() + self.offset

    def follow(self, server_time: datetime) -> timedelta:
        """Set the offset by what the host said; give back by how much it moved."""
        offset = server_time - self._now()
        moved, self.offset = offset - self.offset, offset
        return moved


def rfc3339(moment: datetime) -> str:
    """``2025-12-13T14:25:30Z``: UTC, whole seconds."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def parse_rfc3339(text: str) -> datetime:
    """The aware moment in UTC; ValueError when it is not RFC 3339 or names no zone."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("the time names no zone")
    return moment.astimezone(UTC)
