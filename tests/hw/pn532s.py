"""A PN532 and its driver in one process, in memory and on virtual time; and cards that answer from a script."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from hw.card import ChipCard
from hw.errors import LineError
from hw.pn532 import Pn532Reader
from hw.reader import ReaderEvent, parse_address
from sim.reader.memory import MemoryLine
from sim.reader.pn532 import Pn532Emulator

PPSE = bytes.fromhex("00A404000E325041592E5359532E444446303100")
FCI = bytes.fromhex(
    "6F2C840E325041592E5359532E4444463031A51ABF0C1761154F07A000000004306087010150074D41455354524F9000"
)


@dataclass
class Plastic:
    """Answers what ``says`` says, by default the PPSE to a SELECT and 6D00 to the rest; keeps what it was asked."""

    uid: bytes = bytes.fromhex("08010203")
    ats: bytes = bytes.fromhex("0578807000")
    says: Callable[[bytes], bytes] = lambda command: FCI if command[1] == 0xA4 else b"\x6d\x00"
    asked: list[bytes] = field(default_factory=list)

    def transmit(self, command: bytes) -> bytes:
        self.asked.append(command)
        return self.says(command)


@dataclass
class Bench:
    """The driver, the emulator, its line, what the reader told."""

    reader: Pn532Reader
    chip: Pn532Emulator
    line: MemoryLine
    told: list[ReaderEvent]

    async def card(self, plastic: Plastic | None = None) -> ChipCard:
        """A card that was tapped and read."""
        self.chip.tap(plastic or Plastic())
        card = await self.reader.wait_for_card(10)
        assert isinstance(card, ChipCard)
        return card


@asynccontextmanager
async def bench(monkeypatch: pytest.MonkeyPatch, options: str = "") -> AsyncIterator[Bench]:
    """A reader, not open yet, and the chip on its line. The line may be replaced, as by plugging in again."""
    line = MemoryLine()
    here = Bench(Pn532Reader(parse_address(f"pn532:///dev/ttyAMA0{options}")), Pn532Emulator(line), line, [])

    async def open_link(*_: object, **__: object) -> object:
        if here.line.unplugged:
            raise LineError("there is no such port")
        here.line.baud = 115200
        return here.line.link

    monkeypatch.setattr("hw.reader.open_link", open_link)
    here.reader.on_event = here.told.append
    running = asyncio.create_task(here.chip.run())
    try:
        yield here
    finally:
        await here.reader.close()
        await here.line.close()
        await running
