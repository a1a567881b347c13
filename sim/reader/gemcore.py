"""A GemCore contact reader, emulated: over a pty, a socket, or a line in memory.

    async with on_pty() as reader:
        await reader.insert(card)
        async with open_reader(reader.url) as driver: ...

pcscd works with it by its own driver for these readers (libccidtwin, as GemCorePOSPro). What is not modelled
stands in `sim.reader.ccid`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hw.ccid import Message
from hw.envelope import Signal
from hw.gemcore import FIRMWARE
from hw.gemcore_frames import ENVELOPE
from sim.reader.ccid import CcidEmulator
from sim.reader.line import Line, PtyLine, SocketLine

NAME = b"GemCore-Tillwright-1.0"
"""What it says of its firmware."""


class GemcoreEmulator(CcidEmulator):
    """See the module. ``echo``: it echoes each command, as GemPC Twin does. Notices come at once until it is told
    to keep them until the next command."""

    BUSY = b"\x80"

    def __init__(self, line: Line, *, echo: bool = False) -> None:
        super().__init__(line, ENVELOPE, echo=echo)
        self._with_answers = False

    def _escaped(self, command: Message) -> Message:
        if command.data == FIRMWARE:
            return self._answer(command, NAME)
        if command.data[:2] == b"\x01\x01" and len(command.data) == 3:
            self._with_answers = bool(command.data[2])
            return self._answer(command)
        return super()._escaped(command)

    async def _notice(self, signal: Signal) -> None:
        notice = next(frame for frame, meaning in ENVELOPE.SIGNALS.items() if meaning is signal)
        if self._with_answers:
            self._notices.append(notice)
        else:
            await self._line.write(notice)


class Emulated(GemcoreEmulator):
    """An emulator on a line that has a name: ``url`` is the reader's for the driver."""

    line: PtyLine | SocketLine

    @property
    def url(self) -> str:
        """The reader's URL."""
        return f"gemcore{self.line.address}"


@asynccontextmanager
async def on_line(line: PtyLine | SocketLine, *, echo: bool = False) -> AsyncIterator[Emulated]:
    """A reader on this line, alive for the time of the context; the line is closed with it."""
    emulated = Emulated(line, echo=echo)
    emulated.line = line
    life = asyncio.create_task(emulated.run())
    try:
        yield emulated
    finally:
        await line.close()
        life.cancel()
        await asyncio.gather(life, return_exceptions=True)


@asynccontextmanager
async def on_pty(*, echo: bool = False) -> AsyncIterator[Emulated]:
    """A reader on a pty."""
    async with on_line(PtyLine(), echo=echo) as emulated:
        yield emulated


@asynccontextmanager
async def on_socket(*, echo: bool = False) -> AsyncIterator[Emulated]:
    """A reader behind a TCP socket on loopback."""
    line = SocketLine()
    await line.open()
    async with on_line(line, echo=echo) as emulated:
        yield emulated
