"""A trace played back: an emulator that answers what a real reader has answered.

    recording = load(Path("reader.trace").read_text().splitlines())
    async with on_pty(recording) as replayed, open_reader(replayed.url) as reader:
        card = await reader.wait_for_card()

The driver has to say what it said then: the first command that is another ends the play with a `Deviation`. A
tolerant play looks for the command elsewhere in the trace instead, before and behind, first for the same one and
then for one of its kind; that lets a driver poll more often, or a sale be of another amount. Masked data is
compared masked, so that nobody's number need be known. Not modelled: pace, unless it is asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from hw.errors import LineGone, ProtocolError, ReaderError
from hw.trace import Traced, read_trace
from sim.dialects import DIALECTS, Dialect
from sim.reader.line import Line, PtyLine, SocketLine

SETTLES = 0.25
"""Seconds in which nobody drops what came, before a swipe: whoever opens a line and then waits does so twice."""


class Deviation(ReaderError):
    """Example: ``command 7 of the trace is GetFirmwareVersion, and what came is SAMConfiguration``."""

    advice = "The driver does something else than when the trace was recorded; a tolerant play may go on."


@dataclass(slots=True)
class Turn:
    """A command and what the reader said to it: seconds after what came before, and a frame."""

    command: bytes
    answers: list[tuple[float, bytes]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Recording:
    """A trace in turns. ``unasked`` came before any command, or is what a stripe reader has said of cards."""

    driver: str
    unasked: tuple[tuple[float, bytes], ...]
    turns: tuple[Turn, ...]

    @property
    def dialect(self) -> Dialect:
        """Its protocol."""
        return DIALECTS[self.driver]


def load(lines: Iterable[str], driver: str | None = None) -> Recording:
    """The recording in the lines of a trace, of that driver or of the one whose frames they are.

    Raises ProtocolError where they are nobody's, or no trace.
    """
    traced = list(read_trace(lines))
    name = driver or guess(traced)
    dialect = DIALECTS[name]
    unasked: list[tuple[float, bytes]] = []
    turns: list[Turn] = []
    before = 0.0
    for one in traced:
        if one.way == "out":
            turns += [Turn(frame) for frame in dialect.framer().feed(one.data)]
        else:
            answers = turns and not (dialect.unasked and dialect.unasked(one.data))
            (turns[-1].answers if answers else unasked).append((max(0.0, one.t - before), one.data))
        before = one.t
    return Recording(name, tuple(unasked), tuple(turns))


def guess(traced: Iterable[Traced]) -> str:
    """The driver whose frames these are; raises ProtocolError."""
    came = [one.data for one in traced if one.way == "in"]
    whole = {name: sum(_whole(dialect, frame) for frame in came) for name, dialect in DIALECTS.items()}
    best = max(whole, key=lambda name: whole[name])
    if 2 * whole[best] <= len(came):
        raise ProtocolError("the frames of the trace are of no driver that is known here")
    return best


def _whole(dialect: Dialect, frame: bytes) -> bool:
    return bool(frame) and dialect.framer().feed(frame) == [frame]


class Replay:
    """The reader of a recording, at the end of a line. ``pace``: 1 keeps its time, 0 takes none.

    ``heard`` is told how many turns were played, each time.
    """

    def __init__(
        self,
        line: Line,
        recording: Recording,
        *,
        tolerant: bool = False,
        pace: float = 0.0,
        heard: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._line, self._recording, self._dialect = line, recording, recording.dialect
        self._tolerant, self._pace, self._heard = tolerant, pace, heard
        self._framer, self._language = self._dialect.framer(), self._dialect.language()
        self._commands = [self._dialect.plain(turn.command) for turn in recording.turns]
        self._kinds = [self._dialect.kind(turn.command) for turn in recording.turns]
        self._next = 0
        self.played = 0
        """Turns so far."""

    @property
    def over(self) -> bool:
        """Whether everything that was recorded was played once."""
        turns, unasked = len(self._recording.turns), len(self._recording.unasked)
        return self.played >= (turns + unasked if self._dialect.unasked else turns or unasked)

    async def run(self) -> None:
        """Answer until the line is closed; raises Deviation, unless tolerant."""
        with suppress(LineGone):
            swipes = self._dialect.unasked is not None or not self._commands
            if not swipes:
                await self._say(self._recording.unasked, b"")
            while not swipes or self._next < len(self._commands):
                for frame in self._framer.feed(await self._line.read()):
                    await self._take(frame)
            await self._swipe()

    async def _swipe(self) -> None:
        """Nobody asks a stripe reader for a card: it says each swipe when somebody begins to listen."""
        listening = getattr(self._line, "listening", None)
        for seconds, frame in self._recording.unasked:
            if listening is not None:
                await _waited_for(listening)
            await self._say([(seconds, frame)], b"")
            self.played += 1
            self._heard(self.played)
        while True:  # until the line is closed
            await self._line.read()

    async def _take(self, frame: bytes) -> None:
        masked = self._language.masked(frame)
        number = self._found(self._dialect.plain(masked), self._dialect.kind(masked))
        if number is None:
            if not self._tolerant:
                raise self._deviation(masked)
            return
        self._next = number + 1
        self.played += 1
        await self._say(self._recording.turns[number].answers, frame)
        self._heard(self.played)

    def _found(self, came: bytes, kind: bytes) -> int | None:
        """The turn to play: the next one, where that is it."""
        here = self._next
        if here < len(self._commands) and self._commands[here] == came:
            return here
        if not self._tolerant:
            return None
        order = [*range(here, len(self._commands)), *range(here)]
        same = (number for number in order if self._commands[number] == came)
        alike = (number for number in order if self._kinds[number] == kind)
        return next(same, next(alike, None))

    def _deviation(self, frame: bytes) -> Deviation:
        what = self._dialect.language().describe(frame)
        if self._next >= len(self._commands):
            return Deviation(f"the trace is over after {len(self._commands)} commands, and what came is {what}")
        due = self._dialect.language().describe(self._recording.turns[self._next].command)
        same = " with other data" if what == due else ""
        return Deviation(f"command {self._next + 1} of the trace is {due}, and what came is {what}{same}")

    async def _say(self, answers: Iterable[tuple[float, bytes]], command: bytes) -> None:
        for seconds, frame in answers:
            if self._pace:
                await asyncio.sleep(seconds * self._pace)
            said = self._dialect.fitted(frame, command) if _whole(self._dialect, frame) else self._dialect.damaged
            self._language.masked(said)  # which follows the conversation
            await self._line.write(said)


async def _waited_for(listening: Callable[[], Awaitable[None]]) -> None:
    """Until somebody listens, and has done with dropping what was there before."""
    await listening()
    with suppress(TimeoutError):
        while True:
            async with asyncio.timeout(SETTLES):
                await listening()


@dataclass(frozen=True, slots=True)
class Replayed:
    """A recording that is played: the URL for the driver, its line, and the play."""

    url: str
    line: PtyLine | SocketLine
    play: Replay


@asynccontextmanager
async def on_pty(recording: Recording, *, tolerant: bool = False, pace: float = 0.0) -> AsyncIterator[Replayed]:
    """A play on a pty, for the time of the context, which ends with its Deviation."""
    line = PtyLine()
    async with _running(line, recording, tolerant, pace) as replayed:
        yield replayed


@asynccontextmanager
async def on_socket(recording: Recording, *, tolerant: bool = False, pace: float = 0.0) -> AsyncIterator[Replayed]:
    """A play behind a TCP socket on loopback, for the time of the context, which ends with its Deviation."""
    line = SocketLine()
    await line.open()
    async with _running(line, recording, tolerant, pace) as replayed:
        yield replayed


@asynccontextmanager
async def _running(
    line: PtyLine | SocketLine, recording: Recording, tolerant: bool, pace: float
) -> AsyncIterator[Replayed]:
    play = Replay(line, recording, tolerant=tolerant, pace=pace)

    async def played() -> None:
        try:
            await play.run()
        finally:
            await line.close()  # the driver is not left waiting for an answer

    running = asyncio.create_task(played())
    try:
        yield Replayed(f"{recording.driver}{line.address}", line, play)
    finally:
        await line.close()
        await running
