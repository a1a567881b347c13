"""Commands and answers of a CCID reader over one wire: numbered, repeated where they were damaged, waited for.

What arrives in between is taken in its place: echoes, notices of cards, requests for time, answers that come too
late for what they answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from hw.ccid import ANSWERS, Kind, Message
from hw.envelope import Envelope, Signal
from hw.errors import FramingError, NoAnswer, ProtocolError
from hw.wire import Wire

ANSWER: Final = 1.0
"""Seconds for what the reader answers by itself: 28 bytes take 3 ms at 115,200 baud and 30 ms at 9,600."""
TRIES: Final = 3
"""Times that a command is sent, or its answer asked for, before the reader counts as silent."""
LONGEST: Final = 60.0
"""Seconds for one command, whatever time the card asks for: nobody stands at a till for longer."""

PAUSE: Final = 0.5
"""Seconds without a byte in the middle of a frame after which the rest of it is lost; a network may hold bytes back
for half as long."""

_SAME: Final = frozenset((Kind.DATA_BLOCK, Kind.SLOT_STATUS))
"""ACS's manual prints 81 for its answers in one place and 80 in another: either is taken for the other."""


class Channel:
    """One slot of a reader. ``told`` hears True for a card inserted, False for one removed, as notices say it.

    One command at a time; a second one waits for the first. ``echo``: "yes" where the reader has to echo each
    command, "no" where it must not, "auto" for either.
    """

    def __init__(
        self, wire: Wire, envelope: Envelope, told: Callable[[bool], None], *, slot: int = 0, echo: str = "auto"
    ) -> None:
        self.wire, self.name = wire, wire.name
        self._envelope, self._told, self._slot, self._echo = envelope, told, slot, echo
        self._seq = 0
        self._echoes = False
        self._own_naks = 0
        self._turn = asyncio.Lock()

    async def ask(
        self, kind: Kind, data: bytes = b"", *, specific: bytes = bytes(3), patience: float = ANSWER
    ) -> Message:
        """Send a command and give its answer, which may say that it failed.

        ``patience`` is in seconds, begins anew with each request for time, and ends at `LONGEST` in all. Where
        nothing comes the command is sent again; but what is for the card may reach it once only, so of that the
        reader is asked for its last answer. Raises NoAnswer, ProtocolError and LineGone.
        """
        async with self._turn:
            return await self._ask(kind, data, specific, patience)

    async def _ask(self, kind: Kind, data: bytes, specific: bytes, patience: float) -> Message:
        message = Message(kind, data, self._slot, self._seq, specific)
        self._seq = (self._seq + 1) % 256
        frame, clock = self._envelope.build(message), asyncio.get_running_loop().time
        await self.wire.send(frame)
        began = clock()
        due, tries, echoed = began + patience, 1, False
        while clock() < began + LONGEST:
            try:
                wait = max(0.0, min(due, began + LONGEST) - clock())
                came = await self.wire.receive(wait, kind.title, pause=PAUSE)
            except NoAnswer:
                if tries == TRIES:
                    break
                again = None if kind is Kind.XFR_BLOCK else frame
                tries, due = await self._again(tries, again), clock() + patience
                continue
            except FramingError:
                came = self._envelope.LEAD
            found = self._envelope.parse(came)
            if isinstance(found, Signal):
                self._hear(found)
                if found is Signal.WAIT:
                    due = clock() + patience
                elif found is Signal.DAMAGED and tries < TRIES:
                    self.wire.counts.errors[FramingError.__name__] += 1
                    tries, due = await self._again(tries), clock() + patience
                elif found is Signal.NAK and self._own_naks:
                    self._own_naks -= 1
                elif found is Signal.NAK:
                    if tries == TRIES:
                        raise ProtocolError(f"{self.name}: the reader does not understand {kind.title}")
                    tries, due = await self._again(tries, frame), clock() + patience
            elif not found.kind.is_answer:
                if self._echo == "no":
                    raise ProtocolError(f"{self.name}: the reader echoes, and was said not to")
                self._echoes, echoed = True, echoed or came == frame
            elif (found.seq, found.slot) == (message.seq, self._slot):
                if self._echo == "yes" and not echoed:
                    raise ProtocolError(f"{self.name}: the reader does not echo, and was said to")
                if found.kind is not ANSWERS[kind] and not {found.kind, ANSWERS[kind]} <= _SAME:
                    raise ProtocolError(f"{self.name}: the reader answers {kind.title} with {found.kind.title}")
                if not found.extends_time:
                    return found
                due = clock() + patience * max(1, found.specific[1])
        raise NoAnswer(f"{self.name}: no answer to {kind.title} within {clock() - began:.3g} s")

    async def listen(self, seconds: float) -> None:
        """Hear what the reader says unasked, until it says something or the time is over. Raises LineGone."""
        try:
            async with self._turn, asyncio.timeout(seconds):
                found = self._envelope.parse(await self.wire.receive(None, "a card"))
        except TimeoutError:
            return
        if isinstance(found, Signal):
            self._hear(found)

    def _hear(self, signal: Signal) -> None:
        if signal in (Signal.INSERTED, Signal.REMOVED):
            self._told(signal is Signal.INSERTED)

    async def _again(self, tries: int, frame: bytes | None = None) -> int:
        """Ask for the last answer again, or send a command again; how many tries that makes."""
        self.wire.counts.retries += 1
        if frame is None:
            frame = self._envelope.NAK
            self._own_naks += self._echoes
        await self.wire.send(frame)
        return tries + 1
