"""An ACS serial reader (ACR1281S), emulated: over a pty, a socket, or a line in memory.

The reader does the card's protocols by itself, and is given APDUs. Not modelled: see `sim.reader.ccid`; and LEDs,
buzzer and the contactless interface's own commands.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import ClassVar, Final

from hw.acs import SLOTS
from hw.acs_frames import ENVELOPE, ETX
from sim.reader.ccid import CcidEmulator, Emulated, living
from sim.reader.line import Line, PtyLine, SocketLine

ACCEPTED: Final = b"\x02\x00\x00\x03"
WRONG_CHECK: Final = b"\x02\xff\xff\x03"


class AcsEmulator(CcidEmulator):
    """See the module. ``slot`` is ``icc`` or ``picc``: the one that has cards."""

    LEVEL: ClassVar[str] = "apdu"
    AFTER_CHECK: ClassVar[int] = len(ETX)
    ACCEPTED: ClassVar[bytes] = ACCEPTED
    REFUSAL: ClassVar[bytes] = WRONG_CHECK

    def __init__(self, line: Line, *, slot: str = "icc") -> None:
        super().__init__(line, ENVELOPE, slot=SLOTS[slot])


@asynccontextmanager
async def on_pty(slot: str = "icc") -> AsyncIterator[Emulated[AcsEmulator]]:
    """A reader on a pty, for the time of the context."""
    line = PtyLine()
    async with living(f"acs{line.address}?slot={slot}", line, AcsEmulator(line, slot=slot)) as emulated:
        yield emulated


@asynccontextmanager
async def on_socket(slot: str = "icc") -> AsyncIterator[Emulated[AcsEmulator]]:
    """A reader behind a TCP socket on loopback, for the time of the context."""
    line = SocketLine()
    await line.open()
    async with living(f"acs{line.address}?slot={slot}", line, AcsEmulator(line, slot=slot)) as emulated:
        yield emulated
