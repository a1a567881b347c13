"""Frames over a line: sent, cut out of what comes, counted, timed and traced. Written once, for every protocol.

    wire = Wire(link, Framer(), LANGUAGE)
    await wire.send(build(...))
    frame = await wire.receive(1.0, "GetFirmwareVersion")

What a frame says is the driver's to know.
"""

from __future__ import annotations

import asyncio
import statistics
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Final, NoReturn, Protocol

from hw.errors import FramingError, NoAnswer
from hw.line import Link
from hw.trace import Language, Tracer

KEPT: Final = 1000
"""Round-trip times that are kept."""
SENDING: Final = 5.0
"""Seconds for a frame to be taken: the system does so at once, unless the other end holds its line back."""
BACKLOG: Final = 64
"""Frames that may wait to be taken; the oldest go beyond, as a reader that is not listened to talks to nobody."""


class Framer(Protocol):
    """Cuts a stream into frames. Takes any bytes in any pieces, and holds one frame at most."""

    dropped: int
    """Bytes so far that were no part of a frame."""

    @property
    def begun(self) -> bool:
        """Whether it holds the beginning of a frame."""

    def feed(self, data: bytes) -> list[bytes]:
        """Take what came, in the order of its coming; give the whole frames that it ends, checked."""

    def reset(self) -> None:
        """Forget what was begun."""


@dataclass(slots=True)
class Statistics:
    """What passed a line since it was first opened. Times are in seconds."""

    frames_out: int = 0
    frames_in: int = 0
    bytes_out: int = 0
    bytes_in: int = 0
    dropped: int = 0
    """Bytes that were no part of a frame."""
    retries: int = 0
    openings: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    """How often each kind of error was met, by the name of its class."""
    round_trips: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))

    @property
    def round_trip(self) -> float | None:
        """The median of the last round trips; None before the first."""
        return statistics.median(self.round_trips) if self.round_trips else None


class Wire:
    """A link on which frames travel. ``name`` is what errors call it; one coroutine at a time may receive."""

    def __init__(
        self,
        link: Link,
        framer: Framer,
        language: Language,
        *,
        counts: Statistics | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self.link, self.name = link, link.name
        self.counts = counts if counts is not None else Statistics()
        self._framer, self._language, self._tracer = framer, language, tracer
        self._waiting: deque[bytes] = deque(maxlen=BACKLOG)
        self._asked_at: float | None = None

    async def send(self, frame: bytes, *, timed: bool = True) -> None:
        """Send one frame, in one write. Not ``timed`` where the answer waits for a person.

        Raises LineGone, and NoAnswer where the other end takes nothing.
        """
        self.counts.frames_out += 1
        self.counts.bytes_out += len(frame)
        if self._tracer is not None:
            self._tracer.frame("out", frame, self._language)
        self._asked_at = asyncio.get_running_loop().time() if timed else None
        try:
            async with asyncio.timeout(SENDING):
                await self.link.write(frame)
        except TimeoutError:
            self.counts.errors[NoAnswer.__name__] += 1
            raise NoAnswer(f"{self.name}: the reader takes nothing for {SENDING:g} s") from None

    async def receive(self, timeout: float | None, what: str, *, pause: float | None = None) -> bytes:
        """The next whole frame, within ``timeout`` seconds (None: for ever).

        Raises NoAnswer, saying to ``what``, and LineGone. Bytes that are no frame are dropped and counted. A frame
        that was begun and does not go on for ``pause`` seconds is dropped as well, and FramingError says so.
        """
        if self._waiting:
            return self._waiting.popleft()
        try:
            async with asyncio.timeout(timeout) as deadline:
                ends = deadline.when()
                while not self._waiting:
                    self._take(await self.link.read())
                    if pause is not None and not self._waiting:
                        deadline.reschedule(self._until(ends, pause))
        except TimeoutError:
            self._take(self.link.take())  # a loop that was held up may time out with bytes waiting
            if not self._waiting:
                self._nothing(timeout, what, broken_off=deadline.when() != ends)
        return self._waiting.popleft()

    def _until(self, ends: float | None, pause: float) -> float | None:
        """How long the next byte is waited for, in the middle of a frame or not."""
        if not self._framer.begun:
            return ends
        due = asyncio.get_running_loop().time() + pause
        return due if ends is None else min(ends, due)

    def _nothing(self, timeout: float | None, what: str, *, broken_off: bool) -> NoReturn:
        if broken_off:
            before = self._framer.dropped
            self._framer.reset()
            self.counts.dropped += self._framer.dropped - before
            raise FramingError(f"{self.name}: the answer to {what} breaks off") from None
        self.counts.errors[NoAnswer.__name__] += 1
        raise NoAnswer(f"{self.name}: no answer to {what} within {timeout:g} s") from None

    def discard(self) -> None:
        """Drop what has come and was not taken, and what of a frame was begun."""
        self.link.discard()
        self._waiting.clear()
        self._framer.reset()

    def drop(self) -> None:
        """As `discard`, for a line on which less than a chunk can be waiting: one read, and no flush of the device,
        which takes twenty times as long."""
        self.link.take()
        self._waiting.clear()
        self._framer.reset()

    def _take(self, data: bytes) -> None:
        before = self._framer.dropped
        frames = self._framer.feed(data)
        self.counts.bytes_in += len(data)
        self.counts.dropped += self._framer.dropped - before
        for frame in frames:
            self.counts.frames_in += 1
            if self._asked_at is not None:
                self.counts.round_trips.append(asyncio.get_running_loop().time() - self._asked_at)
                self._asked_at = None
            if self._tracer is not None:
                self._tracer.frame("in", frame, self._language)
            self._waiting.append(frame)
