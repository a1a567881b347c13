"""The PN532 as its host sees it: a command is acknowledged, then answered (NXP UM0701-02, section 6.2.1.5).

host: command  ->  chip: ACK  ->  chip: answer          NACK: the chip says its last answer again
                                                        ACK from the host: the command is called off
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from hw import pn532_frames as frames
from hw import pn532_trace
from hw.errors import FramingError, LineError, NoAnswer, ProtocolError
from hw.line import Link
from hw.trace import Tracer
from hw.wire import Statistics, Wire

ACK_TIMEOUT: Final = 0.1
"""Seconds for an ACK. The chip takes 15 ms at most (section 6.2.1.5); a USB adapter holds bytes back for 16."""

FIRST_ACK_TIMEOUTS: Final = (0.25, 0.5, 1.5)
"""Seconds for the first ACK on a line, try by try. A USB adapter on a Raspberry Pi takes up to one for the first
byte after it was opened; what is there at once is not made to wait."""

ANSWER_TIMEOUT: Final = 0.5
"""Seconds for the answer to a command that needs no card: the chip takes milliseconds."""

REPEAT_TIMEOUT: Final = 0.25
"""Seconds for an answer that was asked for again: the chip has it ready."""

TRIES: Final = 3
"""How often a command is sent, and an answer asked for, where the line spoils them."""

PAUSE: Final = 0.5
"""Seconds without a byte in the middle of an answer after which the rest of it is lost: an overrun of the UART
loses some. A network may hold bytes back for half as long."""

CALLED_OFF: Final = 0.05
"""Seconds after a command was called off before the next: what the chip (15 ms) and a USB adapter (16 ms) had still
to say of it has come by then, and is not taken for the answer to the next."""

BAUD_SETTLES: Final = 0.002
"""Seconds after a change of speed before the first byte: the chip takes some 200 us to follow (section 7.2.7)."""

MAX_STRAYS: Final = 64
"""Frames that are not what was asked for, before the thing on the line is no PN532."""


class Chip:
    """A PN532 on a line that is open. One command at a time; a second one waits for the first.

    A command that is cancelled is called off at the chip as well.
    """

    def __init__(self, link: Link, *, counts: Statistics | None = None, tracer: Tracer | None = None) -> None:
        self.name = link.name
        self._framer = frames.Framer()
        self._wire = Wire(link, self._framer, pn532_trace.language(), counts=counts, tracer=tracer)
        self._turn = asyncio.Lock()
        self._called_off = False

    @property
    def busy(self) -> bool:
        """Whether a command is under way."""
        return self._turn.locked()

    async def wake(self, *, again: bool = False) -> None:
        """Wake the chip and set it to be a reader (SAMConfiguration, normal mode). Raises NoAnswer, LineGone.

        ``again``: the line has been open for a while, and answers at once.
        """
        frame = frames.WAKE_UP + frames.command(frames.SAM_CONFIGURATION, b"\x01")
        async with self._turn:
            tries = (ACK_TIMEOUT,) * 2 if again else FIRST_ACK_TIMEOUTS
            await self._ask(frames.SAM_CONFIGURATION, frame, tries, ANSWER_TIMEOUT)

    async def ask(
        self, code: int, data: bytes = b"", *, timeout: float = ANSWER_TIMEOUT, once: bool = False
    ) -> bytes:
        """Send a command and give what its answer holds, without code.

        A command without ACK is sent again, unless it may be obeyed ``once`` only. Raises NoAnswer when the answer
        does not come within ``timeout`` seconds of the ACK, ProtocolError when the chip does not know the command,
        and LineGone.
        """
        tries = (ACK_TIMEOUT,) * (1 if once else TRIES)
        async with self._turn:
            return await self._ask(code, frames.command(code, data), tries, timeout, patient=once)

    async def set_parameters(self, parameters: int) -> None:
        """SetParameters. Whether there is a zero behind each frame is one of them, and from then on heeded."""
        await self.ask(frames.SET_PARAMETERS, bytes((parameters,)))
        self._framer.ambled = not parameters & frames.NO_AMBLE

    async def change_baud(self, baud: int) -> None:
        """Go on at another speed, the chip first: it follows when its answer is acknowledged."""
        await self.ask(frames.SET_SERIAL_BAUD_RATE, bytes((frames.BAUD_CODES[baud],)))
        async with self._turn:
            await self._wire.send(frames.ACK)
            await self.follow_baud(baud)

    async def follow_baud(self, baud: int) -> None:
        """Go on at another speed, at which the chip is already. Raises NotSupported and LineError."""
        await self._wire.link.change_baud(baud)
        await asyncio.sleep(BAUD_SETTLES)

    async def _ask(
        self, code: int, frame: bytes, ack_timeouts: Sequence[float], timeout: float, *, patient: bool = False
    ) -> bytes:
        what = frames.NAMES.get(code, f"command {code:02X}")
        if self._called_off:
            await asyncio.sleep(CALLED_OFF)
            self._called_off = False
        try:
            for number, ack_timeout in enumerate(ack_timeouts):
                self._wire.counts.retries += number > 0
                self._wire.drop()  # an answer that nobody waited for is not the answer to this
                await self._wire.send(frame)
                first = await self._first(code, what, ack_timeout)
                if first is not None:
                    return await self._answer(code, what, first, timeout)
            if patient:  # the ACK may be all that was lost
                return await self._answer(code, what, frames.ACK, timeout)
        except (asyncio.CancelledError, NoAnswer):
            await self._call_off()
            raise
        raise NoAnswer(f"{self.name}: no answer to {what} within {sum(ack_timeouts):g} s")

    async def _first(self, code: int, what: str, timeout: float) -> bytes | None:
        """The ACK; an answer whose ACK was lost is as good. None where neither comes."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + timeout
        for _ in range(MAX_STRAYS):
            try:
                frame = await self._wire.receive(max(0.0, deadline - clock()), what)
            except NoAnswer:
                return None
            if frame in (frames.ACK, frames.ERROR) or _answers(frame, code):
                return frame
            if frame == frames.NACK:
                return None
        raise self._nonsense(what)

    async def _answer(self, code: int, what: str, frame: bytes, timeout: float) -> bytes:
        """The answer, when ``frame`` was the first thing that came."""
        clock = asyncio.get_running_loop().time
        deadline, spoiled = clock() + timeout, 0
        for _ in range(MAX_STRAYS):
            if _answers(frame, code):
                return frames.payload(frame)[2:]
            if frame == frames.ERROR:
                raise ProtocolError(f"{self.name}: the chip does not know {what}")
            if frame == frames.BROKEN and spoiled < TRIES:
                spoiled += 1
                self._wire.counts.retries += 1
                self._wire.counts.errors[FramingError.__name__] += 1
                await self._wire.send(frames.NACK)
                deadline = max(deadline, clock() + REPEAT_TIMEOUT)
            try:
                frame = await self._wire.receive(max(0.0, deadline - clock()), what, pause=PAUSE)
            except FramingError:
                frame = frames.BROKEN
        raise self._nonsense(what)

    def _nonsense(self, what: str) -> ProtocolError:
        return ProtocolError(
            f"{self.name}: it talks without end, and does not answer {what}",
            advice="Check that it is a PN532, set to HSU (its serial port) by its switches.",
        )

    async def _call_off(self) -> None:
        """An ACK from the host: the chip lets go of the command."""
        self._called_off = True
        with suppress(LineError, TimeoutError):  # then there is nothing to call off
            async with asyncio.timeout(ACK_TIMEOUT):  # nor to wait for: whoever calls off has left
                await self._wire.send(frames.ACK)


def _answers(frame: bytes, code: int) -> bool:
    """Whether a frame, which the framer has checked, is the answer to the command with this code."""
    at = 8 if frame[3:5] == b"\xff\xff" else 5
    return len(frame) > at + 3 and frame[at] == frames.FROM_CHIP and frame[at + 1] == (code + 1 & 0xFF)
