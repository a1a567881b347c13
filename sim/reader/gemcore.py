"""A GemCore contact reader, emulated: over a pty, a socket, or a line in memory.

    async with on_pty() as emulated, open_reader(emulated.url) as reader:
        await emulated.reader.insert(chip)
        card = await reader.wait_for_card()

pcscd works with it, by its own driver for these readers (libccidtwin as GemCorePOSPro, and with ``echo`` as
GemPCTwin). What is not modelled stands in `sim.reader.ccid`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import ClassVar, Final

from hw.ccid import Message
from hw.envelope import Signal
from hw.gemcore import FIRMWARE
from hw.gemcore_frames import ENVELOPE
from sim.reader.ccid import CcidEmulator, Emulated, living
from sim.reader.line import Line, PtyLine, SocketLine

NAME: Final = b"GemCore-Tillwright-1.0"
"""What it says of its firmware."""
NOTICES: Final = b"\x01\x01"
"""Escape, with a byte more: whether notices wait for the next command (1), or come at once (0)."""


class GemcoreEmulator(CcidEmulator):
    """See the module. ``echo``: it echoes each command, as GemPC Twin does."""

    BUSY: ClassVar[bytes] = b"\x80"
    REFUSAL: ClassVar[bytes] = ENVELOPE.NAK

    def __init__(self, line: Line, *, echo: bool = False) -> None:
        super().__init__(line, ENVELOPE, echo=echo)
        self._with_answers = False

    def _escaped(self, command: Message) -> Message:
        if command.data == FIRMWARE:
            return self._answer(command, NAME)
        if command.data[:-1] == NOTICES:
            self._with_answers = bool(command.data[2])
            return self._answer(command)
        return super()._escaped(command)

    async def _notice(self, signal: Signal) -> None:
        notice = next(frame for frame, meaning in ENVELOPE.SIGNALS.items() if meaning is signal)
        if self._with_answers:
            self._notices.append(notice)
        else:
            await self._line.write(notice)


@asynccontextmanager
async def on_pty(*, echo: bool = False) -> AsyncIterator[Emulated[GemcoreEmulator]]:
    """A reader on a pty, for the time of the context."""
    line = PtyLine()
    async with living(f"gemcore{line.address}", line, GemcoreEmulator(line, echo=echo)) as emulated:
        yield emulated


@asynccontextmanager
async def on_socket(*, echo: bool = False) -> AsyncIterator[Emulated[GemcoreEmulator]]:
    """A reader behind a TCP socket on loopback, for the time of the context."""
    line = SocketLine()
    await line.open()
    async with living(f"gemcore{line.address}", line, GemcoreEmulator(line, echo=echo)) as emulated:
        yield emulated
