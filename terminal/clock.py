"""Time and randomness, as they are handed in.

Durations are measured by the event loop (``loop.time()``, ``asyncio.sleep``, ``asyncio.timeout``), which a
simulated world replaces as a whole; only the time of day needs a clock of its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from typing import Final, NamedTuple

Now = Callable[[], datetime]
"""The time of day, always aware and in UTC."""

Steady = Callable[[], float]
"""Seconds that only ever grow, at the pace of true time; since when does not matter."""

Random = Callable[[int], bytes]
"""``random(n)`` gives n bytes fit for keys, IVs and nonces."""

RELEASED = datetime(2026, 1, 1, tzinfo=UTC)
"""No clock that says an earlier moment is right: this version did not exist."""

LATEST = RELEASED + timedelta(days=50 * 365)
"""Nor is one that says a later moment: a clock chip that has lost its mind."""

NEAR = timedelta(seconds=1)
"""A host tells its time in whole seconds: what is nearer is no difference."""

_LONG_AGO = datetime.fromtimestamp(0, UTC)

_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def system_now() -> datetime:
    """The device's own clock, in UTC."""
    return datetime.now(UTC)


def system_steady() -> float:
    """Seconds since the device started, those in which it slept included where the system counts them (Linux)."""
    return time.clock_gettime(_STEADY)


system_random: Random = os.urandom


class Verdict(Enum):
    """What came of a time that a host told."""

    NEAR = auto()
    """It is ours."""
    MOVED = auto()
    """Ours follows it now."""
    ONCE = auto()
    """It is far from ours: it has to be told once more before it is followed."""
    REFUSED = auto()
    """It is below the floor, or after every moment at which this program can run."""


class Heard(NamedTuple):
    """The verdict, and by how much ours was off (positive: we were behind)."""

    verdict: Verdict
    off: timedelta


class HostClock:
    """The host's time of day, kept as an offset to the device's clock.

    A device without a battery-backed clock wakes up in the wrong year; the host tells the time, and signatures are
    dated by that. The rules:

    - What the device's clock does while we run is held against ``steady``: a jump moves nothing but the offset, and
      ``jumped`` tells it. Without ``steady`` the device's clock is taken as it is.
    - Time goes back only where ``follow`` says MOVED.
    - A host is followed at once by at most ``step``; further only when two of its answers agree.
    - Never below the floor: the day that this program was made, and ``step`` before the last moment that was
      confirmed (``confirm``), which is when the host last took a signature of ours or we its answer.
    """

    def __init__(
        self,
        now: Now,
        *,
        steady: Steady | None = None,
        floor: datetime = _LONG_AGO,
        step: timedelta = timedelta(hours=1),
    ) -> None:
        self._device, self._steady, self._step = now, steady, step
        self.floor = floor
        """No moment below this is believed, whoever says it."""
        self.offset = timedelta()
        self.confirmed: datetime | None = None
        """When the host last agreed with us, by its own clock."""
        self._read: tuple[datetime, float] | None = None
        self._last = floor
        self._jumped = timedelta()
        self._told: timedelta | None = None

    def now(self) -> datetime:
        """The host's time of day as we know it, aware and in UTC."""
        device = self._device()
        if self._steady is not None:
            self._hold(device, self._steady())
        return self._at(device)

    def restore(self, offset: timedelta, confirmed: datetime | None) -> None:
        """Begin where the last process ended: its offset, and when the host last confirmed it.

        A device whose clock stood still or fell back meanwhile goes on from what was last confirmed.
        """
        self.offset = offset
        if confirmed is not None and (self.confirmed is None or confirmed > self.confirmed):
            self.confirm(confirmed)
        if self.confirmed is not None:
            self.not_before(self.confirmed)

    def not_before(self, moment: datetime) -> None:
        """It has been that late: the device's clock is not believed below it. Against a host it proves nothing."""
        if moment <= LATEST:
            self._last = max(self._last, moment)

    def confirm(self, moment: datetime) -> None:
        """The host took a request that we dated, and said it was ``moment``: the floor rises with it."""
        self.confirmed = moment
        self.floor = max(self.floor, moment - self._step)

    def follow(self, said: datetime, took: float = 0.0) -> Heard:
        """Hear the host's time, ``took`` seconds after it was asked for it."""
        ours, way = self.now(), timedelta(seconds=took)
        if not _LONG_AGO <= said <= LATEST:
            return self._heard(Verdict.REFUSED, said - ours)
        aim = said + way / 2
        off = aim - ours
        if said - NEAR <= ours <= said + NEAR + way:
            return self._heard(Verdict.NEAR, off)
        if aim < self.floor:
            return self._heard(Verdict.REFUSED, off)
        if abs(off) > self._step and (self._told is None or abs(self._told - off) > 2 * NEAR + way):
            self._told = off
            return Heard(Verdict.ONCE, off)
        self.offset += off
        self._last = aim
        return self._heard(Verdict.MOVED, off)

    def jumped(self) -> timedelta:
        """By how much the device's own clock has jumped since this was last asked; ours went on without."""
        jumped, self._jumped = self._jumped, timedelta()
        return jumped

    def _heard(self, verdict: Verdict, off: timedelta) -> Heard:
        self._told = None
        return Heard(verdict, off)

    def _hold(self, device: datetime, steady: float) -> None:
        if self._read is not None:
            before, at = self._read
            jump = device - before - timedelta(seconds=steady - at)
            if abs(jump) >= NEAR:
                self.offset -= jump
                self._jumped += jump
        self._read = (device, steady)

    def _at(self, device: datetime) -> datetime:
        """Never before what was given last; a device whose clock is lost begins at the floor."""
        moment = device + self.offset
        if not self._last <= moment <= LATEST:
            moment = max(self._last, self.floor)
            self.offset = moment - device
        self._last = moment
        return moment


_SECONDS: Final = len("2025-12-13T14:25:30")


def rfc3339(moment: datetime) -> str:
    """``2025-12-13T14:25:30Z``: UTC, whole seconds."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return moment.isoformat()[:_SECONDS] + "Z"


def parse_rfc3339(text: str) -> datetime:
    """The aware moment in UTC; ValueError when it is not RFC 3339 or names no zone."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("the time names no zone")
    return moment.astimezone(UTC)
